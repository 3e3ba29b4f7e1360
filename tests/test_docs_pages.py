"""The pages of the documentation: their code runs, their links lead somewhere, and all is shown.

Every page that is executed when it is built is executed here, cell by cell.  Links are looked up in
the sources, which takes no build; the build itself looks at the HTML (docs/_ext/bsr_links.py).
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, is_typeddict
from urllib.parse import unquote

import pytest

import bsr_theory

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
BUILT = {"_build", "_ext", "_static", "jupyter_execute", "notebooks"}
SOURCES = sorted(
    path for path in DOCS.rglob("*.md") if not BUILT.intersection(path.relative_to(DOCS).parts)
)
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXECUTED = [path for path in SOURCES if "file_format: mystnb" in path.read_text(encoding="utf-8")]
SLOW = {"figures", "high-precision", "tutorial"}  # `make docs` runs them as well

CELL = re.compile(r"^```\{code-cell\}.*\n(?P<code>(?:.*\n)*?)^```$", re.MULTILINE)
OPTIONS = re.compile(r"\A(?:(?::[\w-]+:.*\n)+|---\n(?:.*\n)*?---\n)")


def named(paths: list[Path]) -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in paths]


# --------------------------------------------------------------------------------------------
# Code
# --------------------------------------------------------------------------------------------


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
def module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """Return the module that the cells are run in, on which no window opens."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    page = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", page)  # where dataclasses look themselves up
    monkeypatch.chdir(tmp_path)
    with pyplot.rc_context(), monkeypatch.context() as patch:
        patch.setattr("mpmath.mp.dps", 15)
        yield page
    pyplot.close("all")


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in SLOW else [])
        for path in EXECUTED
    ],
)
def test_code_runs(page: Path, module: ModuleType) -> None:
    run(page, module)


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


# --------------------------------------------------------------------------------------------
# Links
# --------------------------------------------------------------------------------------------

FENCE = re.compile(r"^(?P<mark>```+|:::+)\s*(?P<rest>.*)$")
DIRECTIVE = re.compile(r"\{(?P<name>[\w-]+)\}\s*(?P<argument>\S*)")
CODE_SPAN = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
ROLE = re.compile(r"\{(?P<role>[\w:-]+)\}`(?P<target>[^`]+)`")
LINK = re.compile(r"\]\((?P<target>[^)\s]+)(?:\s+\"[^\"]*\")?\)")
HEADING = re.compile(r"^#{1,3}\s+(?P<title>.+?)\s*$")
LABEL = re.compile(r"^\((?P<label>[\w-]+)\)=\s*$")
EQUATION = re.compile(r"^\$\$\s*\((?P<label>[\w-]+)\)\s*$")


def slug(title: str) -> str:
    """Return the anchor that MyST gives a heading: that of GitHub."""
    title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "")
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


class Page:
    """What a page links to and what in it can be linked to."""

    def __init__(self, text: str) -> None:
        self.links: list[str] = []
        self.roles: list[tuple[str, str]] = []
        self.files: list[str] = []
        self.documents: list[str] = []
        self.anchors: set[str] = set()
        self.labels: set[str] = set()
        self.equations: set[str] = set()
        inside: list[tuple[str, str]] = []  # fences that are open: their mark, their directive
        for line in text.splitlines():
            if fence := FENCE.match(line):
                if inside and inside[-1][0] == fence["mark"] and not fence["rest"]:
                    inside.pop()
                    continue
                if not inside or inside[-1][0].startswith(":"):
                    directive = DIRECTIVE.match(fence["rest"])
                    inside.append((fence["mark"], directive["name"] if directive else "code"))
                    if directive and directive["name"] in ("image", "figure", "include"):
                        self.files.append(directive["argument"])
                    continue
            if inside and inside[-1][0].startswith("`"):
                if inside[-1][1] == "toctree" and re.match(r"[\w/-]+\s*$", line):
                    self.documents.append(line.strip())
                continue
            self._read(line)

    def _read(self, line: str) -> None:
        """Read a line of prose."""
        if heading := HEADING.match(line):
            self.anchors.add(slug(heading["title"]))
        if label := LABEL.match(line):
            self.labels.add(label["label"])
        if equation := EQUATION.match(line):
            self.equations.add(equation["label"])
        self.roles += [(found["role"], found["target"]) for found in ROLE.finditer(line)]
        prose = CODE_SPAN.sub("", ROLE.sub("", line))
        self.links += [found["target"] for found in LINK.finditer(prose)]


@cache
def page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


@cache
def labels() -> tuple[set[str], set[str], set[str]]:
    """Return what can be referred to from everywhere: labels, equations and references."""
    pages = [page(path) for path in SOURCES]
    bibliography = (DOCS / "references.bib").read_text(encoding="utf-8")
    return (
        set().union(*(each.labels for each in pages)),
        set().union(*(each.equations for each in pages)),
        set(re.findall(r"^@\w+\{([^,\s]+)\s*,", bibliography, re.MULTILINE)),
    )


def importable(name: str) -> bool:
    """Whether a dotted name of Python exists."""
    parts = name.split(".")
    for k in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:k]))
        except ImportError:
            continue
        return all((found := getattr(found, part, None)) is not None for part in parts[k:])
    return False


def dead_link(path: Path, target: str, text: Page) -> bool:
    """Whether a link of a page leads nowhere; links to other sites are not followed."""
    if re.match(r"[a-z]+:", target):
        return False
    place, _, anchor = target.partition("#")
    if not place:
        return anchor not in text.anchors | text.labels | labels()[0]
    file = (path.parent / unquote(place)).resolve()
    if not place.endswith((".md", ".ipynb")) and place in labels()[0]:
        return False
    copied = ROOT / "notebooks" / file.name
    if file.parent == DOCS / "notebooks" and file.suffix == ".ipynb":  # made by the build
        return not copied.is_file()
    if not file.exists():
        return True
    if not anchor or file.suffix != ".md":
        return False
    return anchor not in page(file).anchors | page(file).labels


def dead(path: Path, text: Page) -> list[str]:
    """Return what a page refers to that is not there."""
    known, equations, bibliography = labels()
    found = [target for target in text.links if dead_link(path, target, text)]
    found += [name for name in text.files if not (path.parent / name).is_file()]
    found += [name for name in text.documents if not (path.parent / f"{name}.md").is_file()]
    for role, target in text.roles:
        named_target = re.fullmatch(r".*<(?P<target>[^>]+)>", target)
        name = (named_target["target"] if named_target else target).lstrip("~!")
        if role.startswith("cite"):
            missing = any(key.strip() not in bibliography for key in name.split(","))
        elif role == "eq":
            missing = name not in equations
        elif role == "ref":
            missing = name not in known
        elif role.startswith("py:"):
            missing = not importable(name)
        else:
            missing = False
        found += [f"{{{role}}}`{target}`"] if missing else []
    return found


@pytest.mark.parametrize("path", SOURCES, ids=named(SOURCES))
def test_links_of_pages(path: Path) -> None:
    assert dead(path, page(path)) == []


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md"])
def test_links_of_the_repository(name: str) -> None:
    path = ROOT / name
    assert dead(path, page(path)) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named(NOTEBOOKS))
def test_links_of_notebooks(path: Path) -> None:
    """They hold in the repository and among the pages, where the notebooks are copied to."""
    parts = [
        "".join(cell["source"])
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "markdown"
    ]
    text = Page("\n\n".join(parts))
    local = [target for target in text.links if not re.match(r"[a-z]+:|#", target)]
    assert [x for x in local if not (path.parent / x.partition("#")[0]).exists()] == []
    assert parts[0].startswith("# "), "the first cell of a notebook is its title"


def test_dead_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# Other\n\n## A `name`, and more\n\n(mark)=\n### Three\n")
    text = (
        "# Title\n\n(own)=\n[a](other.md) [b](other.md#a-name-and-more) [c](other.md#mark)\n"
        "[d](#title) [d](#own)\n"
        "[e](https://example.org/none) `[f](code.md)` [q](#own-not)\n\n"
        '[g](none.md) [h](other.md#none) ![i](none.png "title")\n'
        "{cite}`nobody2000` {py:obj}`~bsr_theory.solve` {py:func}`x <bsr_theory.none>`\n\n"
        "```python\n[j](none.md)\n```\n\n"
        "::::{container} x\n:::{figure} none.png\n[k](lost.md)\n:::\n::::\n"
        "```{toctree}\nother\nnone\n```\n"
    )
    path = tmp_path / "page.md"
    path.write_text(text)
    assert dead(path, Page(text)) == [
        *("#own-not", "none.md", "other.md#none", "none.png", "lost.md"),
        *("none.png", "none", "{cite}`nobody2000`", "{py:func}`x <bsr_theory.none>`"),
    ]


@pytest.fixture
def extension(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return an extension of Sphinx that builds the pages."""
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    return importlib.import_module(request.param)


@pytest.mark.parametrize("extension", ["bsr_links"], indirect=True)
def test_dead_links_are_found_in_html(extension: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "api").mkdir()
    (tmp_path / "index.html").write_text(
        '<a href="api/x.html#here"></a><a href="api/"></a><a href="#"></a><a href="#up"></a>'
        '<a href="https://example.org/none"></a><a href="mailto:a@example.org"></a>'
        '<p id="up"><a href="api/x.html#gone"></a><img src="none%20.png?v=1"></p>'
    )
    (tmp_path / "api" / "x.html").write_text('<a name="here" href="../index.html#down"></a>')
    (tmp_path / "api" / "index.html").write_text('<a href="../x.html"></a>')
    assert extension.dead_links(tmp_path.resolve()) == [
        ("api/index.html", "../x.html"),
        ("api/x.html", "../index.html#down"),
        ("index.html", "api/x.html#gone"),
        ("index.html", "none%20.png?v=1"),
    ]


# --------------------------------------------------------------------------------------------
# Nothing is left out
# --------------------------------------------------------------------------------------------


def test_every_page_is_in_the_contents() -> None:
    listed = {
        (path.parent / name).with_suffix(".md").resolve()
        for path in SOURCES
        for name in page(path).documents
    }
    assert sorted(set(SOURCES) - listed) == [DOCS / "index.md"]


def test_every_picture_is_shown() -> None:
    """The gallery takes pictures by the names of figures, and so would miss one of another name."""
    figures = pytest.importorskip("bsr_theory.figures.registry").FIGURES
    names = {f"figure_{x}.png" if x.isdigit() else x.replace("-", "_") + ".png" for x in figures}
    shown = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
    for picture in sorted((DOCS / "_static").glob("*.png")):
        assert picture.name in names or f"_static/{picture.name}" in shown, picture.name


@pytest.mark.parametrize("extension", ["bsr_notebooks"], indirect=True)
def test_every_notebook_is_described(extension: ModuleType) -> None:
    for path in NOTEBOOKS:
        name, title, summary = extension.describe(path)
        assert name == path.stem and title and summary


def public() -> Iterator[tuple[str, Any]]:
    """Yield the functions and classes of every public module."""
    for info in pkgutil.walk_packages(bsr_theory.__path__, "bsr_theory."):
        if any(part.startswith("_") for part in info.name.split(".")):
            continue
        found = importlib.import_module(info.name)
        for name in getattr(found, "__all__", ()):
            value = getattr(found, name, None)  # submodules that nobody has imported
            if (inspect.isclass(value) or inspect.isroutine(value)) and (
                value.__module__ == info.name
            ):
                yield f"{info.name}.{name}", value


def returned(function: Any) -> set[str]:
    """Return the names in the annotation of what a function returns."""
    return set(re.findall(r"\w+", str(getattr(function, "__annotations__", {}).get("return", ""))))


# What draws or serves has a page of its own that shows it: figures take up to hours, and a server
# does not return.
DRAWN = ("bsr_theory.figures.", "bsr_theory.explore.")


def test_every_public_name_has_an_example() -> None:
    """Left out are what draws or serves, and classes that are shown elsewhere.

    Those are abstract ones, protocols, exceptions, types of keywords, and results: classes that a
    function with an example returns, or that extend such a class.
    """
    names = dict(public())
    shown = {name for name, value in names.items() if ">>>" in (value.__doc__ or "")}
    results: set[str] = set()
    for name in shown:
        members = vars(names[name]).values() if inspect.isclass(names[name]) else [names[name]]
        results = results.union(*(returned(member) for member in members))
    missing = []
    for name, value in names.items():
        if name in shown or name.startswith(DRAWN):
            continue
        if inspect.isclass(value) and (
            inspect.isabstract(value)
            or is_typeddict(value)
            or getattr(value, "_is_protocol", False)
            or issubclass(value, Exception)
            or results.intersection(base.__name__ for base in value.__mro__)
        ):
            continue
        missing.append(name)
    assert missing == []
