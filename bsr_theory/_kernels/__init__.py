"""Compiled loops: scalars and arrays in, arrays out; one module for each family of equations."""

from __future__ import annotations

import functools
import os

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
jit = functools.partial(numba.njit, error_model="numpy", nogil=True, cache=CACHE)
