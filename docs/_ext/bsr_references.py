"""Names in docstrings become links wherever they live: `Problem` in one module is that of another.

Sphinx looks a name up in the module whose docstring it stands in.  What it does not find there is
taken for a public name of the package, then for the only function or class of that name, and last,
if it has a dot, for a member of either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

import bsr_theory

PACKAGE = "bsr_theory"
TOP = {"class", "exception", "function", "module"}


def candidates(name: str) -> list[str]:
    """Return full names that a public name of the package may have."""
    name = name.removeprefix(f"{PACKAGE}.")
    first, _, rest = name.partition(".")
    if first not in bsr_theory.__all__:
        return []
    value = getattr(bsr_theory, first)
    home = getattr(value, "__module__", None)
    full = f"{home}.{first}" if home else value.__name__
    return [f"{full}.{rest}" if rest else full]


def find(name: str, objects: Mapping[str, Any]) -> str | None:
    """Return the full name of a documented object, None if there is none or more than one."""
    for full in candidates(name):
        if full in objects:
            return full
    found = [
        full
        for full, entry in objects.items()
        if full.endswith(f".{name}") and (entry.objtype in TOP or "." in name) and not entry.aliased
    ]
    if len(found) == 1:
        return found[0]
    parent, _, _ = name.rpartition(".")
    return find(parent, objects) if not found and parent and parent != PACKAGE else None


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """Return a link for a name of Python that Sphinx did not find."""
    if node.get("refdomain") != "py":
        return None
    objects = env.domains.python_domain.objects
    full = find(node["reftarget"], objects)
    if full is None:
        return None
    entry = objects[full]
    return make_refnode(
        app.builder, node["refdoc"], entry.docname, entry.node_id, content, title=full
    )


def setup(app: Sphinx) -> dict[str, Any]:
    """Register what is done about names that were not found."""
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
