"""Notebooks of the repository as pages, and how the code on pages is run.

Sphinx reads files below ``docs`` only, so that every ``notebooks/*.ipynb`` is copied to
``docs/notebooks`` when a build begins: a notebook that is new there is a page without further ado.
The directive ``notebooks`` lists them, those that it names first::

    ```{notebooks}
    quickstart
    ```

Outputs are kept between builds, below a name that is the hash of the package's code: words can be
edited without running anything again, and a change of the code runs everything again.  Pictures
have twice the resolution of the screen.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "notebooks"
KERNEL = "c.InlineBackend.figure_formats = {'retina'}\n"
LIBRARIES = ("numpy", "scipy", "numba", "matplotlib", "mpmath", "sympy", "xarray")
OPENING = re.compile(r"#\s+(?P<title>[^\n]+)\n+(?P<summary>(?:[^\n]+\n?)*)")


class Notebook(NamedTuple):
    """What is said of a notebook: its heading and its first paragraph."""

    name: str
    title: str
    summary: str


def describe(path: Path) -> Notebook:
    """Read the opening of a notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    first = "".join(cells[0]["source"]) if cells and cells[0]["cell_type"] == "markdown" else ""
    opening = OPENING.match(first)
    if opening is None:
        raise ValueError(f"{path.name} must begin with a cell that has a heading, '# Title'")
    return Notebook(path.stem, opening["title"].strip(), " ".join(opening["summary"].split()))


def sources() -> list[Path]:
    """Return the notebooks of the repository, by name."""
    return sorted((ROOT / FOLDER).glob("*.ipynb"))


def copy_notebooks(app: Sphinx) -> None:
    """Make docs/notebooks what notebooks is; files that have not changed keep their times."""
    folder = Path(app.srcdir, FOLDER)
    folder.mkdir(exist_ok=True)
    wanted = {path.name: path.read_bytes() for path in sources()}
    for old in folder.glob("*.ipynb"):
        if old.name not in wanted:
            old.unlink()
    for name, content in wanted.items():
        copy = folder / name
        if not copy.exists() or copy.read_bytes() != content:
            copy.write_bytes(content)


def fingerprint() -> str:
    """Return a hash of what the output of a cell may depend on."""
    digest = hashlib.sha256(KERNEL.encode())
    for path in sorted((ROOT / "bsr_theory").rglob("*")):
        if path.suffix in (".py", ".mplstyle"):
            digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    digest.update(repr([(name, version(name)) for name in LIBRARIES]).encode())
    return digest.hexdigest()[:16]


def prepare_execution(app: Sphinx, config: Config) -> None:
    """Say where outputs are kept and how pictures are made; both are below the output folder."""
    build = Path(app.outdir).resolve().parent
    caches, code = build / "jupyter_cache", fingerprint()
    config.nb_execution_cache_path = str(caches / code)
    for old in caches.glob("*"):
        if old.name != code:
            shutil.rmtree(old)
    profile = build / "ipython" / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    (profile / "ipython_kernel_config.py").write_text(KERNEL, encoding="utf-8")
    os.environ["IPYTHONDIR"] = str(profile.parent)  # kernels inherit it


class Notebooks(SphinxDirective):
    """List every notebook with its first paragraph, and put it into the contents."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the list and a hidden toctree."""
        self.env.note_reread()  # a notebook may have come or gone
        folder = Path(self.env.srcdir, FOLDER)
        listed = {path.stem: describe(path) for path in sorted(folder.glob("*.ipynb"))}
        first = [line.strip() for line in self.content if line.strip()]
        unknown = [name for name in first if name not in listed]
        if unknown:
            raise self.error(f"no such notebook: {', '.join(unknown)}")
        order = [*first, *(name for name in listed if name not in first)]
        lines = []
        for name in order:
            lines += [f"[{listed[name].title}]({FOLDER}/{name}.ipynb)"]
            lines += [f": {listed[name].summary or listed[name].title}", ""]
        lines += ["```{toctree}", ":hidden:", "", *(f"{FOLDER}/{name}" for name in order), "```"]
        return list(self.parse_text_to_nodes("\n".join(lines)))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive and what happens when a build begins."""
    app.add_directive("notebooks", Notebooks)
    app.connect("config-inited", prepare_execution)
    app.connect("builder-inited", copy_notebooks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
