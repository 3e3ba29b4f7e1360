"""Compiled loops: scalars and arrays in, arrays out; one module for each family of equations."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import numba

__all__: list[str] = []


def _cache_is_writable() -> bool:
    """Tell whether numba has a place for its cache.

    That is NUMBA_CACHE_DIR, the folder of these files or the user's own cache; without any, a
    function that wants to be cached is an error.  Nothing is compiled here.
    """

    def probe() -> None:
        """Stand for any function of this folder."""

    try:
        numba.njit(cache=True)(probe)
    except (OSError, RuntimeError):
        return False
    return True


CACHE = os.environ.get("BSR_NUMBA_CACHE", "1") != "0" and _cache_is_writable()
_STAMP = [
    (path.name, path.stat().st_mtime, path.stat().st_size)
    for path in sorted(Path(__file__).parent.glob("*.py"))
]


def jit(function: Any = None, **options: Any) -> Any:
    """Compile a function, and keep the result until a file of this folder changes.

    Compiled functions embed those they call, also of other files, and numba asks about their own
    file alone: after an update of one file, an old caller would read the new callee's tuples.
    """
    if function is None:
        return functools.partial(jit, **options)
    compiled = numba.njit(error_model="numpy", nogil=True, cache=CACHE, **options)(function)
    file = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if file is not None:  # None without a cache, and where numba is switched off
        file._source_stamp = _STAMP
    return compiled
