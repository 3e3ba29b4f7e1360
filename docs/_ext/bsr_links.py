"""Dead links: when the pages are written, every local link in them must lead somewhere.

References that Sphinx resolves itself are checked by it.  Left are raw paths, anchors of headings
and links in outputs: each is looked up in the HTML as it was written, and one that leads nowhere is
a warning, which fails the build.
"""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sphinx.application import Sphinx
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)
ATTRIBUTES = {"a": "href", "img": "src", "link": "href", "script": "src", "source": "src"}


class Page(HTMLParser):
    """The links out of a page and the anchors in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what an element links to and the names it can be linked by."""
        found = dict(attrs)
        target = found.get(ATTRIBUTES.get(tag, ""))
        if target:
            self.links.append(target)
        self.anchors.update(found[key] or "" for key in ("id", "name") if key in found)


def dead_links(root: Path) -> list[tuple[str, str]]:
    """Return (page, link) for every local link below a folder of HTML that leads nowhere."""
    pages = {
        path: Page(path.read_text(encoding="utf-8"))
        for path in sorted(root.rglob("*.html"))
        if "_static" not in path.relative_to(root).parts
    }
    dead = []
    for path, page in pages.items():
        for link in dict.fromkeys(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            missing = not target.is_file()
            if not missing and target in pages and parts.fragment:
                missing = unquote(parts.fragment) not in pages[target].anchors
            if missing:
                dead.append((path.relative_to(root).as_posix(), link))
    return dead


def check_links(app: Sphinx, failure: Exception | None) -> None:
    """Warn of dead links in what was built."""
    if failure is None and app.builder.format == "html":
        for page, link in dead_links(Path(app.outdir).resolve()):
            LOGGER.warning("%s: dead link: %s", page, link, type="bsr", subtype="links")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the check."""
    app.connect("build-finished", check_links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
