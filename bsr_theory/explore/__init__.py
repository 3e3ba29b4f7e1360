"""A page to explore the theory by hand: ``bsr explore`` serves it to the browser of this machine.

`model` calculates what a view shows, without a browser; `page` draws it with Bokeh and `server`
serves it, which needs ``pip install 'bsr_theory[explore]'``.
"""

from __future__ import annotations

from . import model

__all__ = ["model"]
