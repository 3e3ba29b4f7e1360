"""The directive ``gallery``: every figure of the package in small, with its title and command.

Pictures are those in ``docs/_static``, named like the figures: ``figure_1.png``,
``phases_abs.png``.  Each title links to the section of the page of figures that shows the picture
or draws it; a figure without a picture is listed below the others.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from bsr_theory.figures.registry import FIGURES

HEADING = re.compile(r"^#{2,3}\s+(?P<title>.+?)\s*$")


def stem(name: str) -> str:
    """Return the file name of a figure, without suffix, also that of its function."""
    return f"figure_{name}" if name.isdigit() else name.replace("-", "_")


def slug(heading: str) -> str:
    """Return the anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def sections(page: str) -> dict[str, str]:
    """Return where a page shows each figure: its name, and the anchor of the section."""
    found: dict[str, str] = {}
    anchor = ""
    for line in page.splitlines():
        if heading := HEADING.match(line):
            anchor = slug(heading["title"])
        for name in FIGURES:
            if f"_static/{stem(name)}.png" in line or f"figures.{stem(name)}(" in line:
                found.setdefault(name, anchor)
    return found


class Gallery(SphinxDirective):
    """Show every figure that has a picture."""

    def run(self) -> list[nodes.Node]:
        """Return a container of figures, and a list of those without a picture."""
        docs = Path(self.env.srcdir)
        shown = sections((docs / "figures.md").read_text(encoding="utf-8"))
        self.env.note_dependency(str(docs / "figures.md"))
        lines, rest = ["::::{container} gallery", ""], []
        for name, recipe in FIGURES.items():
            place = f"figures.md#{shown[name]}" if name in shown else "figures.md"
            title = recipe.title[0].upper() + recipe.title[1:]
            caption = f"[{title}]({place})"
            picture = f"_static/{stem(name)}.png"
            if not (docs / picture).exists():
                rest.append(f"- {caption}: `bsr figure {name}`")
                continue
            lines += [f":::{{figure}} {picture}", f":alt: {title}", f":target: {picture}", ""]
            lines += [caption, "", f"`bsr figure {name}`", ":::", ""]
        lines += ["::::", ""]
        if rest:
            lines += ["Without a picture here:", "", *rest]
        return list(self.parse_text_to_nodes("\n".join(lines)))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("gallery", Gallery)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
