"""Compiled loops: scalars and arrays in, arrays out; one module for each family of equations."""

from __future__ import annotations

import functools
import os

import numba

__all__: list[str] = []


def _cache_is_writable() -> bool:
    """Tell whether numba can put its cache beside these files (or in NUMBA_CACHE_DIR)."""
    folder = os.environ.get("NUMBA_CACHE_DIR") or os.path.join(
        os.path.dirname(os.path.abspath(__file__)), "__pycache__"
    )
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


CACHE = os.environ.get("BSR_NUMBA_CACHE", "1") != "0" and _cache_is_writable()
jit = functools.partial(numba.njit, error_model="numpy", nogil=True, cache=CACHE)
