"""Validation, broadcasting and threads: what every public function does at its boundary."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = [
    "UNIT",
    "Array",
    "Numeric",
    "broadcast",
    "check",
    "check_integer",
    "check_number",
    "numbers",
    "parameters",
    "replace",
    "rounding",
    "run_blocks",
    "scalar_or_array",
    "select",
    "threads",
]

Array = npt.NDArray[np.float64]
Numeric = float | npt.ArrayLike

UNIT = 1e-9
"""Distance to 1 of a second moment that is 1 but for quadrature and rounding."""

_T = TypeVar("_T")
_BLOCK = 512  # points a thread takes at once: about 5 ms, so Ctrl-C is answered at once


def numbers(name: str, value: Any) -> Array:
    """Return ``value`` as an array of doubles; masked elements are NaN.

    Parameters
    ----------
    name : str
        Name of the parameter, for the message.
    value : array_like
        What the user gave.

    Returns
    -------
    ndarray
        Of the shape of ``value``; no copy of an array of doubles is made.

    Raises
    ------
    ValueError
        If it is not made of real numbers: NumPy would read text and dates as numbers, too, and
        drop imaginary parts.
    """
    if type(value) is np.ndarray and value.dtype == np.float64:  # the usual case, in every loop
        return value
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "biufO" or (
            array.dtype.kind == "O" and any(isinstance(x, str | bytes) for x in array.flat)
        ):
            raise TypeError("not real numbers")
        with np.errstate(over="ignore"):
            floats = np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{name} must be a number or an array of numbers, got {value!r}"
        ) from error
    mask = np.ma.getmask(value)
    return np.where(mask, np.nan, floats) if np.any(mask) else floats


def rounding(value: Any) -> float:
    """Return the relative rounding of stored numbers, at least that of doubles."""
    dtype = np.asarray(value).dtype
    double = float(np.finfo(np.float64).eps)
    return max(float(np.finfo(dtype).eps), double) if dtype.kind == "f" else double


def check(
    name: str,
    value: Any,
    *,
    low: float = -np.inf,
    high: float = np.inf,
    open_low: bool = False,
    allow_inf: bool = True,
) -> Any:
    """Return ``value`` as a float or a float array, with bad numbers dealt with.

    Parameters
    ----------
    name : str
        Name of the parameter, for the message.
    value : float or array_like
        What the user gave.
    low, high : float
        Allowed range, ends included.
    open_low : bool
        Whether ``low`` itself is excluded.
    allow_inf : bool
        Whether infinity is allowed (as far as ``high`` allows it).

    Returns
    -------
    float or ndarray
        A bad element of an array becomes NaN, so that it never breaks the batch.

    Raises
    ------
    ValueError
        If ``value`` is not numeric or is a bad scalar.
    """
    if type(value) is float and low < value < high:  # the usual case, in every loop
        return value + 0.0  # 1/-0.0 is -inf
    array = numbers(name, value)
    with np.errstate(invalid="ignore"):
        good = (array > low if open_low else array >= low) & (array <= high)
        if not allow_inf:
            good &= np.isfinite(array)
    if array.ndim == 0:
        if not good:
            sign = ">" if open_low else ">="
            allowed = f"{sign} {low:g}" if high == np.inf else f"in [{low:g}, {high:g}]"
            finite = "" if allow_inf else " and finite"
            raise ValueError(f"{name} must be {allowed}{finite}, got {float(array)!r}")
        return float(array) + 0.0  # 1/-0.0 is -inf
    if not good.all():
        return np.where(good, array, np.nan) + 0.0
    return array + 0.0 if np.signbit(array).any() else array


def check_integer(name: str, value: Any, low: int = 1) -> int:
    """Return an integer of at least ``low``, or raise a ValueError that names it."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low:
        kind = "a positive integer" if low == 1 else f"an integer >= {low}"
        raise ValueError(f"{name} must be {kind}, got {value!r}")
    return int(value)


def check_number(
    name: str, value: Any, *, low: float = 0.0, high: float = np.inf, open_low: bool = False
) -> float:
    """Return a finite scalar in [low, high], or raise a ValueError that names it."""
    number = check(name, value, low=low, high=high, open_low=open_low, allow_inf=False)
    if np.ndim(number):
        raise ValueError(f"{name} must be a scalar, got an array of shape {np.shape(number)}")
    return float(number)


def broadcast(**named: Any) -> tuple[int, ...]:
    """Return the common shape, or raise a ValueError that names who does not fit."""
    try:
        return np.broadcast_shapes(*(np.shape(v) for v in named.values()))
    except ValueError as error:
        shapes = ", ".join(f"{k} {np.shape(v)}" for k, v in named.items())
        raise ValueError(f"shapes do not broadcast together: {shapes}") from error


def scalar_or_array(values: npt.ArrayLike) -> Any:
    """Turn a 0-d array into a Python scalar and leave others alone."""
    array = np.asarray(values)
    return array.item() if array.ndim == 0 else array


def select(obj: _T, shape: tuple[int, ...], index: npt.NDArray[np.intp]) -> _T:
    """Return the dataclass ``obj`` with its array fields at the flat ``index`` of ``shape``."""
    arrays = {name: getattr(obj, name) for name in parameters(obj)}
    return replace(
        obj,
        **{
            name: np.broadcast_to(value, shape).reshape(-1)[index]
            for name, value in arrays.items()
            if isinstance(value, np.ndarray)
        },
    )


def parameters(obj: object) -> list[str]:
    """Return the names of the parameters of a prior, a channel or a result: dataclasses all."""
    # their base classes and protocols cannot promise it
    return [field.name for field in dataclasses.fields(obj) if field.init]  # type: ignore[arg-type]


def replace(obj: _T, **changes: Any) -> _T:
    """Return ``obj`` with other parameters, itself if there are none; see `parameters`."""
    # that these are dataclasses their base classes and protocols cannot promise
    return dataclasses.replace(obj, **changes) if changes else obj  # type: ignore[type-var]


def threads() -> int:
    """Return the number of threads that array calls use (environment variable BSR_THREADS)."""
    value = os.environ.get("BSR_THREADS", "")
    if value:
        if not value.isdigit() or int(value) < 1:
            raise ValueError(f"BSR_THREADS must be a positive integer, got {value!r}")
        return int(value)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_blocks(work: Callable[[slice], None], size: int) -> None:
    """Call ``work(block)`` over ``range(size)``, in threads when that pays.

    The compiled loops release the GIL.  Blocks are independent, so the result does not depend on
    the number of threads.
    """
    blocks = [slice(i, min(i + _BLOCK, size)) for i in range(0, size, _BLOCK)]
    workers = min(threads(), len(blocks))
    if workers <= 1:
        for block in blocks:
            work(block)
        return
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(work, block) for block in blocks]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
