"""A function over a grid of parameters: in parallel, resumed after a crash, in shards.

While a sweep runs, every finished point is appended to a log beside the file; a run that was killed
goes on from there.  When all points are there the netCDF file appears, whole, and the log goes.
"""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import dataclasses
import datetime
import enum
import functools
import glob
import hashlib
import inspect
import json
import math
import multiprocessing
import multiprocessing.connection
import multiprocessing.context
import os
import pickle
import queue
import random
import signal
import sys
import textwrap
import threading
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ._arrays import threads
from .results import Provenance, read_dataset, source_fingerprint, write_dataset

if TYPE_CHECKING:
    import xarray as xr

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["merge", "shard_path", "sweep"]

_CHUNK_SECONDS = 0.1  # work that goes to a worker at once: long against the 1 ms of a message
_MOST_POINTS = 1024  # in a chunk
_SYNC_SECONDS = 1.0  # between two calls of fsync
_HOPELESS = 16  # points that fail, with none that succeeds, after which nothing else is tried
_RESERVED = ("error", "index", "point")  # names in the dataset that neither axes nor values have

# One thread a process: processes are the better use of the cores.
_LIMITS = {
    name: "1"
    for name in (
        "BSR_THREADS",
        "MKL_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
    )
}

_Scalar = bool | int | float | str
_Cell = tuple[tuple[str, ...], Any]  # names of dimensions; a scalar when there is none, or an array
_Cells = dict[str, _Cell]


class _HopelessError(Exception):
    """Raised when every point fails, to spare the rest."""


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """What became of one point: its values, or what was raised there."""

    index: int
    cells: _Cells
    error: str = ""
    trace: str = ""


# --------------------------------------------------------------------------------------------
# The two public functions
# --------------------------------------------------------------------------------------------


def sweep(
    fn: Callable[..., Any],
    /,
    *,
    executor: concurrent.futures.Executor | str | int | None = None,
    path: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    shard: tuple[int, int] | None = None,
    attributes: Mapping[str, Any] | None = None,
    on_failure: Literal["raise", "warn"] = "raise",
    **axes: Iterable[Any],
) -> xr.Dataset:
    """Call ``fn`` at every point of a grid.

    Parameters
    ----------
    fn : callable
        Called as ``fn(alpha=..., rho=...)``, once a point, with plain numbers, strings or bools.
        Returns a number, or a mapping from names to numbers, strings, arrays or pairs
        ``(dims, array)``.  Constants are fixed by `functools.partial`.  For processes it has to
        live in a module or script.
    executor : None, int, str or concurrent.futures.Executor
        None or "processes": as many processes as there are cores (BSR_THREADS), an int: that many
        processes; "threads"; "serial"; or any executor, such as ``client.get_executor()`` of dask
        or ``mpi4py.futures.MPIPoolExecutor()``, which is left open.
    path : path-like, optional
        netCDF file.  If it holds the same sweep already, that is returned and nothing is computed.
    progress : bool, optional
        Bar on standard error; by default on a terminal only.
    shard : (i, n), optional
        Compute only the i-th of n parts, i from 0 to n - 1, and write it to
        ``shard_path(path, shard)``; `merge` puts the parts together.
    attributes : mapping, optional
        More attributes of the dataset.
    on_failure : {"raise", "warn"}
        What to do, when all other points are done and saved, about points where ``fn`` raised.
        "warn" leaves NaN there and a variable ``error`` with what was raised.  "raise" does not
        wait when the first 16 points all failed.
    **axes : sequence
        Name and values of each axis: distinct numbers, strings or bools.

    Returns
    -------
    xarray.Dataset
        One dimension an axis, and those of the arrays.  Arrays of different length along one
        dimension are padded with NaN (integers become floats then).  A shard has one dimension
        ``point`` instead of the axes, and ``index``, the place of a point in the flattened grid.
        The attributes tell function, arguments, versions and time.

    Raises
    ------
    ValueError
        If an argument is bad, or the file or its log holds another sweep: other axes, another
        function or arguments of it, or other code.
    RuntimeError
        If ``fn`` raised somewhere and ``on_failure="raise"``, or a process died.  What was
        finished is in the log; the next call computes the rest, failed points included.

    Warns
    -----
    RuntimeWarning
        If ``fn`` raised somewhere and ``on_failure="warn"``.

    Notes
    -----
    Processes are spawned, not forked, on every platform: a fork of a process with threads can
    hang, and linear algebra that is already loaded keeps its number of threads.  Each one computes
    with one thread.  As always with spawned processes, a script calls this below
    ``if __name__ == "__main__":``.

    Ctrl-C, a time limit and ``kill -9`` lose only the points that are being computed.

    The code is compared by `bsr_theory.results.code_fingerprint` and by the source of ``fn``
    itself, not of other functions of yours that it calls: after a change there, remove the file.

    Randomness: give ``fn`` an axis or argument ``rng`` with integer seeds.  A Generator is refused:
    its state would make the result depend on the order of the points.

    Examples
    --------
    >>> import bsr_theory as bsr
    >>> def error(alpha, rho):
    ...     return bsr.solve(bsr.bilinear_regression(alpha, 2.0, rho, 0.1)).mmse
    >>> data = bsr.sweep(error, executor="serial", alpha=[0.2, 0.4], rho=[0.5, 1.0, 2.0])
    >>> data.value.dims, data.value.shape
    (('alpha', 'rho'), (2, 3))
    >>> round(float(data.value.sel(alpha=0.4, rho=0.5)), 8)
    0.52696565
    """
    grid = _Grid({name: _axis(name, values) for name, values in axes.items()})
    if on_failure not in ("raise", "warn"):
        raise ValueError(f"on_failure must be 'raise' or 'warn', got {on_failure!r}")
    identity = _identity(fn)
    _check_call(fn, grid)
    extra = _checked_attributes(attributes)
    indices = np.arange(grid.size) if shard is None else grid.shard(*_checked_shard(shard, grid))
    target = None if path is None else Path(path)
    if target is not None and shard is not None:
        target = shard_path(target, shard)
    log_path = None if target is None else target.with_name(f"{target.name}.log")

    if target is not None and log_path is not None and target.exists() and not log_path.exists():
        stored = read_dataset(target)
        _same_sweep(str(target), _read_identity(stored), identity, _read_axes(stored), grid.axes)
        _report(grid, _failures(stored), on_failure)
        return stored

    table = _Table(grid, indices)
    log = contextlib.nullcontext() if log_path is None else _Log(log_path, identity, grid)
    with log as journal:
        if journal is not None:
            for outcome in journal.read():
                table.put(outcome)
        pending = indices[~table.done]
        failed: dict[int, _Outcome] = {}

        def record(outcomes: Sequence[_Outcome]) -> None:
            kept = [table.put(outcome) for outcome in outcomes]
            failed.update((outcome.index, outcome) for outcome in kept if outcome.error)
            if journal is not None:
                journal.append(kept)
            bar.update(len(kept))
            if on_failure == "raise" and len(failed) >= _HOPELESS and not table.done.any():
                raise _HopelessError

        hide = None if progress is None else not progress
        with tqdm(
            total=indices.size,
            initial=indices.size - pending.size,
            unit="point",
            disable=hide,
            file=sys.stderr,
        ) as bar:
            with contextlib.suppress(_HopelessError):
                _compute(fn, grid, pending, executor, record, log_path)

        errors = {index: outcome.error for index, outcome in sorted(failed.items())}
        if on_failure == "raise":
            first = failed[min(failed)].trace if failed else ""
            _report(grid, errors, on_failure, trace=first, log_path=log_path)
        dataset = table.dataset(errors, whole=shard is None)
        dataset.attrs = {**_attributes(identity, grid, shard), **extra}
        if target is not None:
            write_dataset(dataset, target)
        if journal is not None and not failed:
            journal.remove()
    _report(grid, errors, on_failure)
    return dataset


def merge(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    path: str | os.PathLike[str] | None = None,
    *,
    allow_missing: bool = False,
) -> xr.Dataset:
    """Put the shards of a sweep together.

    Parameters
    ----------
    paths : path-like, or iterable of them
        The files of the shards; a pattern such as ``"run.shard-*.nc"`` stands for what it matches.
    path : path-like, optional
        File to write the whole to.
    allow_missing : bool
        Whether points that no shard holds become NaN instead of an error.

    Returns
    -------
    xarray.Dataset
        What `sweep` without shards returns.

    Raises
    ------
    ValueError
        If there is no file, one is not a shard, two are of different sweeps or hold the same
        point, or points are missing.

    Examples
    --------
    >>> import os, tempfile
    >>> import bsr_theory as bsr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "roots.nc")
    ...     for i in range(2):
    ...         part = bsr.sweep(
    ...             lambda x: x**0.5, executor="serial", path=path, shard=(i, 2), x=[1, 4, 9]
    ...         )
    ...     bsr.merge(os.path.join(folder, "roots.shard-*.nc")).value.values
    array([1., 2., 3.])
    """
    files = _matching(paths)
    identity: dict[str, Any] = {}
    holder: dict[int, Path] = {}
    errors: dict[int, str] = {}
    for file in files:
        stored = read_dataset(file)
        if "shard" not in stored.attrs:
            raise ValueError(f"paths must name shards of a sweep, {file} is none")
        if not identity:
            identity, extra = _read_identity(stored), _other_attributes(stored)
            grid = _Grid(_read_axes(stored))
            table = _Table(grid, np.arange(grid.size))
        _same_sweep(
            str(file),
            _read_identity(stored),
            identity,
            _read_axes(stored),
            grid.axes,
            str(files[0]),
        )
        for outcome in _outcomes(stored):
            if outcome.index in holder:
                raise ValueError(
                    f"{file} and {holder[outcome.index]} both hold the point "
                    f"{grid.name(outcome.index)}"
                )
            holder[outcome.index] = file
            table.put(outcome)
        errors.update(_failures(stored))
    missing = np.flatnonzero(~table.done)
    missing = missing[~np.isin(missing, list(errors))]
    if missing.size and not allow_missing:
        raise ValueError(
            f"{missing.size} of {grid.size} points are missing (allow_missing makes them NaN): "
            f"{_names(grid, missing)}"
        )
    dataset = table.dataset(dict(sorted(errors.items())), whole=True)
    dataset.attrs = {**_attributes(identity, grid), **extra}
    if path is not None:
        write_dataset(dataset, path)
    _report(grid, errors, "warn")
    return dataset


def shard_path(path: str | os.PathLike[str], shard: tuple[int, int]) -> Path:
    """Return the file of a shard.

    Parameters
    ----------
    path : path-like
        File of the whole sweep.
    shard : (i, n)
        Which part, i from 0 to n - 1.

    Returns
    -------
    Path
        In the same folder.

    Raises
    ------
    ValueError
        If shard is not such a pair.

    Examples
    --------
    >>> from bsr_theory.sweeps import shard_path
    >>> str(shard_path("run.nc", (3, 16)))
    'run.shard-3-of-16.nc'
    """
    whole, (i, n) = Path(path), _checked_shard(shard)
    return whole.with_name(f"{whole.stem}.shard-{i}-of-{n}{whole.suffix}")


# --------------------------------------------------------------------------------------------
# The grid
# --------------------------------------------------------------------------------------------


def _axis(name: str, values: Any) -> list[_Scalar]:
    """Return the values of an axis as plain Python scalars of one kind."""
    if name in _RESERVED:
        raise ValueError(f"an axis must not have the name {name!r}, which the dataset uses")
    wanted = f"axis {name} must be a sequence of distinct numbers, strings or bools"
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise ValueError(f"{wanted}, got {values!r}")
    items: list[Any] = [x.item() if isinstance(x, np.generic) else x for x in values]
    if not items:
        raise ValueError(f"{wanted}, got none")
    for kind in (bool, str, int, float):
        if all(
            isinstance(x, (int, float) if kind is float else kind)
            and (kind is bool or not isinstance(x, bool))
            for x in items
        ):
            break
    else:
        raise ValueError(f"{wanted}, got {_short(items)}")
    try:
        items = [kind(x) for x in items]
        if kind is int:
            np.array(items, dtype=np.int64)
    except OverflowError as error:
        raise ValueError(f"axis {name} must fit into 64 bits, got {_short(items)}") from error
    if any(x != x for x in items):
        raise ValueError(f"axis {name} must not hold NaN, got {_short(items)}")
    if len(set(items)) < len(items):
        twice = next(x for k, x in enumerate(items) if x in items[:k])
        raise ValueError(f"{wanted}, got {twice!r} twice")
    return items


def _short(items: Sequence[Any]) -> str:
    text = repr(items)
    return text if len(text) <= 80 else f"{text[:60]} ... ({len(items)} values)"


class _Grid:
    """The Cartesian product of the axes, its points numbered with the last axis fastest."""

    def __init__(self, axes: dict[str, list[_Scalar]]) -> None:
        if not axes:
            raise ValueError("axes must name at least one parameter with its values, got none")
        self.axes = axes
        self.shape = tuple(map(len, axes.values()))
        self.size = math.prod(self.shape)

    def point(self, index: int) -> dict[str, Any]:
        """Return the parameters of a point."""
        found = []
        for name, values in reversed(self.axes.items()):
            index, k = divmod(index, len(values))
            found.append((name, values[k]))
        return dict(reversed(found))

    def name(self, index: int) -> str:
        """Return a point as text."""
        return ", ".join(f"{name}={value!r}" for name, value in self.point(index).items())

    def shard(self, i: int, n: int) -> npt.NDArray[np.intp]:
        """Return the points of the i-th of n parts.

        Points are dealt out in the order ``j step mod size`` with a step near the golden section
        of the size and prime to it: every part then has its share of every value of every axis,
        so that the parts take equally long also when the cost varies along an axis.
        """
        step = max(1, round(self.size * 0.6180339887498949))
        while math.gcd(step, self.size) > 1:
            step += 1
        mine = range(i * self.size // n, (i + 1) * self.size // n)
        return np.sort(np.array([j * step % self.size for j in mine], dtype=np.intp))


def _checked_shard(shard: tuple[int, int], grid: _Grid | None = None) -> tuple[int, int]:
    try:
        i, n = shard
        good = all(isinstance(x, int | np.integer) and not isinstance(x, bool) for x in (i, n))
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(f"shard must be a pair of integers (i, n), got {shard!r}")
    if grid is not None and not 1 <= n <= grid.size:
        raise ValueError(f"n in shard=(i, n) must be in [1, {grid.size}] (points), got {n}")
    if n < 1:
        raise ValueError(f"n in shard=(i, n) must be >= 1, got {n}")
    if not 0 <= i < n:
        raise ValueError(f"i in shard=(i, n) must be in [0, {n - 1}], got {i}")
    return int(i), int(n)


def _check_call(fn: Callable[..., Any], grid: _Grid) -> None:
    """Refuse axes that are no parameters of the function before anything runs."""
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # some builtins do not tell
        return
    try:
        signature.bind(**grid.point(0))
    except TypeError as error:
        raise ValueError(f"axes must fit {_function_name(fn)}{signature}: {error}") from error


# --------------------------------------------------------------------------------------------
# Values of a point
# --------------------------------------------------------------------------------------------


def _cells(result: Any, axes: Iterable[str]) -> _Cells:
    """Return what a function returned as named scalars and arrays."""
    if not isinstance(result, Mapping):
        result = {"value": result}
    cells: _Cells = {}
    lengths: dict[str, int] = {}
    taken = (*axes, *_RESERVED)
    for name, value in result.items():
        if not isinstance(name, str) or not name or "/" in name or name in taken:
            raise ValueError(f"fn must name its values by words other than {taken}, got {name!r}")
        if value is None:  # nothing to report here
            continue
        dims, data = _cell(name, value)
        for dim, length in zip(dims, np.shape(data), strict=True):
            if dim in taken:
                raise ValueError(f"a dimension of {name} must not be one of {taken}, got {dim!r}")
            if lengths.setdefault(dim, length) != length:
                raise ValueError(
                    f"dimension {dim} must have one length at a point, got {lengths[dim]} and "
                    f"{length} (of {name})"
                )
        cells[name] = dims, data
    return cells


def _cell(name: str, value: Any) -> _Cell:
    dims: tuple[str, ...] | None = None
    if isinstance(value, tuple) and len(value) == 2 and _are_names(value[0]):
        dims, value = (value[0],) if isinstance(value[0], str) else tuple(value[0]), value[1]
    elif hasattr(value, "dims") and hasattr(value, "values"):  # xarray
        dims, value = tuple(map(str, value.dims)), value.values
    if isinstance(value, str) and dims is None:
        return (), str(value)
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be made of real numbers or be a string, got {value!r:.80}")
    wide = {"b": np.bool_, "f": np.float64}.get(array.dtype.kind, np.int64)
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} must fit into 64 bits with sign, got {array.max()}")
    array = array.astype(wide)
    if dims is None:
        dims = tuple(f"{name}_{k}" for k in range(array.ndim))
    if len(dims) != array.ndim or len(set(dims)) < len(dims):
        raise ValueError(f"{name} must have a name for each of {array.ndim} dimensions, got {dims}")
    return dims, array if array.ndim else array.item()


def _are_names(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, tuple | list) and all(isinstance(x, str) for x in value)
    )


class _Table:
    """The values of all points, by name; a dataset in the end."""

    def __init__(self, grid: _Grid, indices: npt.NDArray[np.intp]) -> None:
        self.grid = grid
        self.indices = indices
        self.done = np.zeros(indices.size, dtype=np.bool_)
        self.dims: dict[str, tuple[str, ...]] = {}
        self.columns: dict[str, list[Any]] = {}

    def put(self, outcome: _Outcome) -> _Outcome:
        """Take up a point; an error is returned when its arrays do not fit those of others."""
        place = int(np.searchsorted(self.indices, outcome.index))
        if place == self.indices.size or self.indices[place] != outcome.index:
            raise ValueError(f"point {outcome.index} is not among the points of this run")
        for name, (dims, _) in outcome.cells.items():
            known = self.dims.setdefault(name, dims)
            if dims != known:
                error = f"ValueError: {name} has dimensions {dims} here, {known} at other points"
                return _Outcome(outcome.index, {}, error, error)
        if outcome.error:
            return outcome
        for name, (_, data) in outcome.cells.items():
            if name not in self.columns:
                self.columns[name] = [None] * self.indices.size
            self.columns[name][place] = data
        self.done[place] = True
        return outcome

    def dataset(self, errors: Mapping[int, str], *, whole: bool) -> xr.Dataset:
        """Return everything, over the axes or, for a shard, over its points."""
        import xarray as xr

        outer: tuple[str, ...] = tuple(self.grid.axes) if whole else ("point",)
        shape: tuple[int, ...] = self.grid.shape if whole else (self.indices.size,)
        sizes: dict[str, int] = {}
        for name, column in self.columns.items():
            for data in column:
                if data is not None:
                    for dim, length in zip(self.dims[name], np.shape(data), strict=True):
                        sizes[dim] = max(sizes.get(dim, 0), length)

        def first(name: str) -> int:
            return next(k for k, data in enumerate(self.columns[name]) if data is not None)

        variables: dict[str, Any] = {}
        for name in sorted(self.columns, key=first):
            inner = tuple(sizes[dim] for dim in self.dims[name])
            values = _stack(self.columns[name], inner)
            variables[name] = (outer + self.dims[name], values.reshape(shape + inner))
        if errors:
            texts = np.array([errors.get(int(i), "") for i in self.indices])
            variables["error"] = (outer, texts.reshape(shape))
        coords: dict[str, Any] = dict(self.grid.axes)
        if not whole:
            coords["index"] = ("point", self.indices.astype(np.int64))
        return xr.Dataset(variables, coords)


def _stack(column: Sequence[Any], inner: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the values of all points as one array, padded with NaN (strings: with "")."""
    if any(isinstance(data, str) for data in column):
        return np.array(["" if data is None else str(data) for data in column])
    full = all(data is not None and np.shape(data) == inner for data in column)
    kinds = {np.asarray(data).dtype for data in column if data is not None}
    dtype = np.result_type(*kinds) if full else np.dtype(np.float64)
    if not inner:
        return np.array([np.nan if data is None else data for data in column], dtype=dtype)
    values = np.full((len(column), *inner), np.nan if dtype.kind == "f" else 0, dtype=dtype)
    for row, data in zip(values, column, strict=True):
        if data is not None:
            row[tuple(map(slice, data.shape))] = data
    return values


# --------------------------------------------------------------------------------------------
# Who computes
# --------------------------------------------------------------------------------------------


def _run(
    fn: Callable[..., Any], axes: tuple[str, ...], points: Sequence[tuple[int, dict[str, Any]]]
) -> tuple[list[_Outcome], float]:
    """Compute some points and say how long it took: what an executor is given."""
    start = time.perf_counter()
    outcomes = []
    for index, point in points:
        try:
            outcomes.append(_Outcome(index, _cells(fn(**point), axes)))
        except Exception as error:  # one bad point leaves the others alone
            text = f"{type(error).__name__}: {error}".rstrip(": ")
            outcomes.append(_Outcome(index, {}, text, traceback.format_exc()))
    return outcomes, time.perf_counter() - start


def _compute(
    fn: Callable[..., Any],
    grid: _Grid,
    pending: npt.NDArray[np.intp],
    executor: concurrent.futures.Executor | str | int | None,
    record: Callable[[Sequence[_Outcome]], None],
    log_path: Path | None,
) -> None:
    """Compute the pending points and record each when it is done."""
    count = _workers(executor)
    if pending.size == 0:
        return
    count = min(count, pending.size)
    if executor == "serial":
        for index in pending.tolist():
            record(_run(fn, tuple(grid.axes), [(index, grid.point(index))])[0])
        return
    try:
        if executor == "threads":
            with concurrent.futures.ThreadPoolExecutor(count) as pool:
                _dispatch(fn, grid, pending, pool, count, record)
        elif isinstance(executor, str | int | None):
            _check_importable(fn)
            with _processes(count) as pool:
                _dispatch(fn, grid, pending, pool, count, record)
        else:
            _dispatch(fn, grid, pending, executor, count, record)
    except concurrent.futures.BrokenExecutor as error:
        saved = "" if log_path is None else f" Finished points are in {log_path}: run it again."
        raise RuntimeError(
            "a worker process died: out of memory, killed, or a script without "
            f"`if __name__ == '__main__':`.{saved}"
        ) from error


def _workers(executor: Any) -> int:
    """Return how many points can be computed at once."""
    if executor is None or executor in ("processes", "threads", "serial"):
        return threads()
    if isinstance(executor, int) and not isinstance(executor, bool):
        if executor < 1:
            raise ValueError(f"executor must be at least one process, got {executor}")
        return executor
    if isinstance(executor, str) or not callable(getattr(executor, "submit", None)):
        raise ValueError(
            "executor must be None, a number of processes, 'processes', 'threads', 'serial' or "
            f"an object with a method submit, got {executor!r}"
        )
    for name in ("_max_workers", "num_workers"):  # concurrent.futures, mpi4py
        number = getattr(executor, name, None)
        if isinstance(number, int) and number > 0:
            return number
    client = getattr(executor, "_client", None)  # dask
    if client is not None:
        return max(1, sum(map(int, client.nthreads().values())))
    return 64


def _dispatch(
    fn: Callable[..., Any],
    grid: _Grid,
    pending: npt.NDArray[np.intp],
    executor: concurrent.futures.Executor,
    workers: int,
    record: Callable[[Sequence[_Outcome]], None],
) -> None:
    """Keep an executor busy with chunks of points, two of them a worker, and record what returns.

    A chunk has one point as long as nothing is known of the cost, later as many as take
    `_CHUNK_SECONDS`; so neither messages nor memory matter, however many points there are.
    """
    axes = tuple(grid.axes)
    finished: queue.SimpleQueue[concurrent.futures.Future[Any]] = queue.SimpleQueue()
    running: set[concurrent.futures.Future[Any]] = set()
    start = 0
    size = 1

    def fill() -> None:
        nonlocal start
        while start < pending.size and len(running) < 2 * workers:
            fair = max(1, (pending.size - start) // (2 * workers))  # the last ones end together
            chunk = pending[start : start + min(size, fair)].tolist()
            future = executor.submit(_run, fn, axes, [(i, grid.point(i)) for i in chunk])
            start += len(chunk)
            running.add(future)
            future.add_done_callback(finished.put)

    try:
        fill()
        while running:
            try:
                future = finished.get(timeout=1.0)  # on Windows Ctrl-C waits for the timeout
            except queue.Empty:
                continue
            running.remove(future)
            outcomes, seconds = future.result()
            record(outcomes)
            wanted = _CHUNK_SECONDS * len(outcomes) / max(seconds, 1e-9)
            size = int(min(max(1.0, wanted), 2 * size, _MOST_POINTS))
            fill()
    except BaseException:
        for future in running:
            future.cancel()
        for future in list(running):
            if future.done() and not future.cancelled() and future.exception() is None:
                record(future.result()[0])
        raise


@contextlib.contextmanager
def _processes(count: int) -> Iterator[concurrent.futures.Executor]:
    """Return a pool of spawned processes with one thread each that never outlive this one.

    They watch a pipe that nobody writes to: when its other end closes, because the sweep was
    interrupted or this process was killed, they leave.
    """
    context = _LimitedContext()
    reader, writer = context.Pipe(duplex=False)
    pool = concurrent.futures.ProcessPoolExecutor(
        count, mp_context=context, initializer=_start_worker, initargs=(reader,)
    )
    try:
        yield pool
        pool.shutdown(wait=True)
    finally:
        writer.close()
        pool.shutdown(wait=True, cancel_futures=True)
        reader.close()


def _start_worker(reader: Any) -> None:
    """Prepare a worker: Ctrl-C is for the parent, and without the parent there is no work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        multiprocessing.connection.wait([reader])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _LimitedProcess(multiprocessing.context.SpawnProcess):
    """A process that is born with `_LIMITS`: later is too late for linear algebra."""

    def start(self) -> None:
        """Start it."""
        before = {name: os.environ.get(name) for name in _LIMITS}
        os.environ.update(_LIMITS)
        try:
            super().start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


class _LimitedContext(multiprocessing.context.SpawnContext):
    Process = _LimitedProcess


def _check_importable(fn: Callable[..., Any]) -> None:
    """Refuse a function that another process cannot find."""
    inner: Any = fn
    while isinstance(inner, functools.partial):
        inner = inner.func
    advice = "put it into a module, or use executor='threads'"
    main = sys.modules["__main__"]
    interactive = not hasattr(main, "__file__") and getattr(main, "__spec__", None) is None
    if getattr(inner, "__module__", None) == "__main__" and interactive:
        raise ValueError(f"other processes cannot import {_function_name(fn)}: {advice}")
    try:
        pickle.dumps(fn)
    except Exception as error:  # whatever an object says when it is asked
        raise ValueError(
            f"other processes cannot be given {_function_name(fn)} ({error}): {advice}"
        ) from error


# --------------------------------------------------------------------------------------------
# The log
# --------------------------------------------------------------------------------------------


class _Log:
    """Finished points as lines of JSON, below a line that tells which sweep it is.

    Floats are written so that they read back exactly.  Lines reach the operating system at once,
    so that they survive this process, and the disk about every second, so that they survive a
    power cut.  A line that was torn is skipped, and its point computed again.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], grid: _Grid) -> None:
        self.path = path
        self.synced = 0.0
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file: IO[bytes] = open(path, "ab+")
        try:
            self._lock()
            self.file.seek(0)
            head = self.file.readline()
            try:
                stored = json.loads(head)
            except ValueError:  # new, or killed while it wrote this line
                self.file.truncate(0)
                text = json.dumps({"sweep": identity, "axes": grid.axes})
                self.file.write(text.encode() + b"\n")
                self._sync()
            else:
                _same_sweep(str(path), stored["sweep"], identity, stored["axes"], grid.axes)
        except BaseException:
            self.file.close()
            raise

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *exception: object) -> None:
        if not self.file.closed:
            self._sync()
            self.file.close()

    def _lock(self) -> None:
        """Refuse to share the log with another process; locks vanish with their process."""
        if fcntl is None:
            return
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise ValueError(f"another process is computing {self.path} right now") from error
        except OSError:  # a file system without locks
            pass

    def _sync(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
        self.synced = time.monotonic()

    def read(self) -> Iterator[_Outcome]:
        """Yield the points that are done, and leave the file at the start of a new line."""
        self.file.seek(0)
        line = self.file.readline()
        for line in self.file:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                if "values" in entry:
                    cells = {name: _decode(text) for name, text in entry["values"].items()}
                    yield _Outcome(int(entry["index"]), cells)
        if not line.endswith(b"\n"):
            self.file.write(b"\n")

    def append(self, outcomes: Sequence[_Outcome]) -> None:
        """Write finished points."""
        lines = []
        for outcome in outcomes:
            entry: dict[str, Any] = {"index": outcome.index}
            if outcome.error:
                entry["error"] = outcome.error
            else:
                entry["values"] = {name: _encode(cell) for name, cell in outcome.cells.items()}
            lines.append(json.dumps(entry) + "\n")
        self.file.write("".join(lines).encode())
        self.file.flush()
        if time.monotonic() - self.synced > _SYNC_SECONDS:
            self._sync()

    def remove(self) -> None:
        """Close the log and remove it: everything is in the netCDF file."""
        self.file.close()
        self.path.unlink()


def _encode(cell: _Cell) -> Any:
    """Return a value in terms of JSON; an array as its bytes."""
    dims, data = cell
    if not dims:
        return data
    kind = data.dtype.kind
    little = np.ascontiguousarray(data, dtype=np.dtype(data.dtype).newbyteorder("<"))
    return [list(dims), kind, list(data.shape), base64.b64encode(little.tobytes()).decode()]


def _decode(text: Any) -> _Cell:
    """Return what `_encode` was given."""
    if not isinstance(text, list):
        return (), text
    dims, kind, shape, data = text
    dtype = np.dtype({"b": "?", "i": "<i8", "f": "<f8"}[kind])
    array = np.frombuffer(base64.b64decode(data), dtype=dtype).reshape(shape)
    return tuple(dims), array.astype(dtype.newbyteorder("="))


# --------------------------------------------------------------------------------------------
# Which sweep it is
# --------------------------------------------------------------------------------------------

_IDENTITY = ("function", "arguments", "function_code", "code")


def _identity(fn: Callable[..., Any]) -> dict[str, Any]:
    """Return what makes two sweeps over the same axes the same."""
    if not callable(fn):
        raise ValueError(f"fn must be callable, got {fn!r}")
    described = _describe_callable(fn, ())
    origin = Provenance.collect()
    return {
        "function": described["function"],
        "arguments": described.get("arguments", {}),
        "function_code": described["code"],
        "code": origin.code,
    }


def _function_name(fn: Any) -> str:
    while isinstance(fn, functools.partial):
        fn = fn.func
    fn = getattr(fn, "__func__", fn)
    named = fn if hasattr(fn, "__qualname__") else type(fn)
    module = getattr(named, "__module__", None) or "builtins"
    if module in ("__main__", "__mp_main__"):  # the name that a worker or an import would see
        file = getattr(sys.modules["__main__"], "__file__", None)
        module = Path(file).stem if file else "__main__"
    return f"{module}:{named.__qualname__}"


def _describe_callable(fn: Any, seen: tuple[int, ...]) -> dict[str, Any]:
    """Return name, source and arguments of a function in terms of JSON."""
    arguments: dict[str, Any] = {}
    name = _function_name(fn)
    while isinstance(fn, functools.partial):
        count = len([key for key in arguments if key.isdigit()])
        given = {str(count + k): value for k, value in enumerate(fn.args)} | fn.keywords
        arguments = given | arguments
        fn = fn.func
    if inspect.ismethod(fn):
        arguments["self"] = fn.__self__
        fn = fn.__func__
    elif not hasattr(fn, "__qualname__"):
        arguments["self"] = fn
        fn = type(fn).__call__
    names = getattr(getattr(fn, "__code__", None), "co_freevars", ())
    for free, cell in zip(names, getattr(fn, "__closure__", None) or (), strict=False):
        with contextlib.suppress(ValueError):
            arguments[free] = cell.cell_contents  # ValueError: it has no value yet
    arguments = {key: _describe(value, seen) for key, value in arguments.items()}
    described: dict[str, Any] = {"function": name, "code": _source(fn)}
    return described | ({"arguments": arguments} if arguments else {})


def _source(fn: Any) -> str:
    """Return the fingerprint of a function's source, or of its code if there is no source."""
    try:
        return source_fingerprint(textwrap.dedent(inspect.getsource(fn)))
    except (OSError, TypeError, SyntaxError):
        code = getattr(fn, "__code__", None)
        return "" if code is None else hashlib.sha256(_code_bytes(code)).hexdigest()[:12]


def _code_bytes(code: types.CodeType) -> bytes:
    constants = (
        _code_bytes(x) if isinstance(x, types.CodeType) else repr(x).encode()
        for x in code.co_consts
    )
    return b" ".join([code.co_code, repr(code.co_names).encode(), *constants])


def _describe(value: Any, seen: tuple[int, ...] = ()) -> Any:
    """Return an argument in terms of JSON: equal descriptions mean equal results."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, np.random.Generator | np.random.RandomState | random.Random):
        raise ValueError(
            "the arguments of fn must not hold a random generator, whose state would make results "
            f"depend on the order of the points, got {value!r}: give an integer seed"
        )
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufcSU":
        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:12]
        return {"array": f"{value.dtype} {value.shape}", "hash": digest}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if id(value) in seen:
        return "..."
    seen = (*seen, id(value))
    if isinstance(value, Mapping):
        return {str(key): _describe(item, seen) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_describe(item, seen) for item in value]
    if isinstance(value, set | frozenset):
        return {"set": sorted((_describe(item, seen) for item in value), key=str)}
    if isinstance(value, types.ModuleType):
        return value.__name__
    if isinstance(value, type):
        return f"{value.__module__}:{value.__qualname__}"
    if isinstance(value, functools.partial) or inspect.isroutine(value):
        return _describe_callable(value, seen)
    return _state(value, seen)


def _state(value: Any, seen: tuple[int, ...]) -> Any:
    """Return class and contents of an object."""
    name = f"{type(value).__module__}:{type(value).__qualname__}"
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif hasattr(value, "__dict__"):
        fields = vars(value)
    else:
        try:
            return {"class": name, "hash": hashlib.sha256(pickle.dumps(value, 4)).hexdigest()[:12]}
        except Exception:  # whatever an object says when it is asked
            return {"class": name}
    return {"class": name, **{key: _describe(item, seen) for key, item in fields.items()}}


def _same_sweep(
    path: str,
    stored: Mapping[str, Any],
    wanted: Mapping[str, Any],
    stored_axes: Mapping[str, list[Any]],
    axes: Mapping[str, list[Any]],
    other: str = "this one",
) -> None:
    """Raise a ValueError that says in what a stored sweep differs from the one asked for."""
    found: list[str] = []
    if stored["function"] != wanted["function"]:
        found.append(f"function {stored['function']} there, {wanted['function']} here")
    else:
        mine, theirs = wanted["arguments"], stored["arguments"]
        found += [
            f"{key}={_told(theirs, key)} there, {_told(mine, key)} here"
            for key in sorted({*mine, *theirs})
            if mine.get(key, ...) != theirs.get(key, ...)
        ]
        if stored["function_code"] != wanted["function_code"]:
            found.append(f"the source of {wanted['function']} is another")
    if list(stored_axes) != list(axes):
        found.append(f"axes ({', '.join(stored_axes)}) there, ({', '.join(axes)}) here")
    else:
        found += [
            f"axis {name} {_short(stored_axes[name])} there, {_short(values)} here"
            for name, values in axes.items()
            if stored_axes[name] != values
        ]
    if stored["code"] != wanted["code"]:
        found.append(f"code of bsr_theory {stored['code']} there, {wanted['code']} here")
    if found:
        raise ValueError(
            f"{path} holds another sweep than {other}: {'; '.join(found)}. "
            "Remove it or choose another path."
        )


def _told(arguments: Mapping[str, Any], key: str) -> str:
    return f"{json.dumps(arguments[key]):.80}" if key in arguments else "none"


# --------------------------------------------------------------------------------------------
# Datasets
# --------------------------------------------------------------------------------------------


def _checked_attributes(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    extra = dict(attributes or {})
    for name in extra:
        if not isinstance(name, str) or name in _OWN:
            raise ValueError(f"attributes must have names other than {_OWN}, got {name!r}")
    return {
        name: value if isinstance(value, str | int | float) else json.dumps(value, default=str)
        for name, value in extra.items()
        if value is not None
    }


_OWN = (*_IDENTITY, "axes", "created", "provenance", "shard")


def _attributes(
    identity: Mapping[str, Any], grid: _Grid, shard: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Return the attributes of a dataset: which sweep, and where and when it was computed."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    attributes = {
        **identity,
        "arguments": json.dumps(identity["arguments"]),
        "axes": json.dumps(list(grid.axes)),
        "provenance": json.dumps(dataclasses.asdict(Provenance.collect())),
        "created": now,
    }
    return attributes if shard is None else {**attributes, "shard": json.dumps(list(shard))}


def _read_identity(dataset: xr.Dataset) -> dict[str, Any]:
    try:
        identity = {name: dataset.attrs[name] for name in _IDENTITY}
        return {**identity, "arguments": json.loads(identity["arguments"])}
    except (KeyError, ValueError) as error:
        raise ValueError(f"not a file of a sweep: {dataset.encoding.get('source')}") from error


def _read_axes(dataset: xr.Dataset) -> dict[str, list[Any]]:
    return {str(name): dataset[name].values.tolist() for name in json.loads(dataset.attrs["axes"])}


def _other_attributes(dataset: xr.Dataset) -> dict[str, Any]:
    return {str(name): value for name, value in dataset.attrs.items() if name not in _OWN}


def _failures(dataset: xr.Dataset) -> dict[int, str]:
    """Return what was raised, by point."""
    if "error" not in dataset:
        return {}
    texts = dataset["error"].values.ravel().tolist()
    index = dataset["index"].values if "index" in dataset.coords else range(len(texts))
    return {int(i): text for i, text in zip(index, texts, strict=True) if text}


def _outcomes(dataset: xr.Dataset) -> Iterator[_Outcome]:
    """Yield the points of a shard."""
    names = [str(name) for name in dataset.data_vars if name != "error"]
    dims = {name: tuple(map(str, dataset[name].dims[1:])) for name in names}
    values = {
        name: dataset[name].values if dims[name] else dataset[name].values.tolist()
        for name in names
    }
    failures = _failures(dataset)
    for row, index in enumerate(dataset["index"].values.tolist()):
        cells = {name: (dims[name], values[name][row]) for name in names}
        yield _Outcome(index, {} if index in failures else cells, failures.get(index, ""))


def _matching(paths: Any) -> list[Path]:
    """Return the files that paths and patterns stand for."""
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    files: list[Path] = []
    for item in given:
        text = os.fspath(item)
        found = (
            sorted(glob.glob(text)) if glob.has_magic(text) and not Path(text).exists() else [text]
        )
        files += map(Path, found)
    absent = [str(file) for file in files if not file.exists()]
    if absent or not files:
        raise ValueError(f"paths must name files that exist, got {absent or given}")
    return files


def _names(grid: _Grid, indices: Sequence[int] | npt.NDArray[np.intp]) -> str:
    shown = "; ".join(grid.name(int(index)) for index in indices[:3])
    return shown + ("; ..." if len(indices) > 3 else "")


def _report(
    grid: _Grid,
    errors: Mapping[int, str],
    on_failure: Literal["raise", "warn"],
    *,
    trace: str = "",
    log_path: Path | None = None,
) -> None:
    """Warn or raise about the points where something was raised."""
    if not errors:
        return
    first = min(errors)
    message = (
        f"fn raised at {len(errors)} of {grid.size} points, the first of them "
        f"{grid.name(first)}: {errors[first]}"
    )
    if on_failure == "warn":
        warnings.warn(message, RuntimeWarning, stacklevel=3)
        return
    saved = "" if log_path is None else f"; the others are saved in {log_path}"
    error = RuntimeError(message + saved)
    if trace:
        error.add_note(trace)
    raise error
