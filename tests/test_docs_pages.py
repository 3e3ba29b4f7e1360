"""The code on pages of the documentation: every cell is run, in order, as when it is built."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = ("add-a-channel", "quickstart")
CELL = re.compile(r"^```\{code-cell\}.*\n(?P<code>(?:.*\n)*?)^```$", re.MULTILINE)
OPTIONS = re.compile(r"\A(?:(?::[\w-]+:.*\n)+|---\n(?:.*\n)*?---\n)")


def cells(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line on which each code cell begins, and its code."""
    for found in CELL.finditer(text):
        code = found["code"]
        options = OPTIONS.match(code)
        skipped = options.end() if options else 0
        yield text.count("\n", 0, found.start("code") + skipped) + 1, code[skipped:]


def run(page: Path, module: ModuleType) -> None:
    """Run the cells of a page; errors point at its lines."""
    text = page.read_text(encoding="utf-8")
    found = list(cells(text))
    assert len(found) == text.count("```{code-cell}") > 0
    for line, code in found:
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), module.__dict__)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Return the module that the cells are run in, on which no window opens."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    page = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", page)  # where dataclasses look themselves up
    yield page
    pyplot.close("all")


@pytest.mark.parametrize("name", PAGES)
def test_code_runs(name: str, module: ModuleType) -> None:
    run(DOCS / f"{name}.md", module)


def test_cells_are_read_as_they_are_built() -> None:
    text = (
        "# Title\n\n```python\nnot_run()\n```\n\n"
        "```{code-cell} ipython3\na = 1\n```\n\n"
        "```{code-cell} ipython3\n:tags: [remove-cell]\n\nb = a\n```\n\n"
        "```{code-cell}\n---\ntags: [x]\n---\nc = b\n```\n"
    )
    assert list(cells(text)) == [(8, "a = 1\n"), (13, "\nb = a\n"), (21, "c = b\n")]


def test_an_error_points_at_its_line(tmp_path: Path, module: ModuleType) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n```{code-cell} ipython3\na = 1\nassert a == 2\n```\n")
    with pytest.raises(AssertionError) as caught:
        run(page, module)
    assert caught.traceback[-1].path == page
    assert caught.traceback[-1].lineno + 1 == 5
