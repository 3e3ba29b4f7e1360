"""Sensing matrices: n Gaussian matrices X_mu as a linear operator, held, on disk or regenerated.

Block i of the rows is drawn from the counter-based generator Philox at counter ``i 2^128``, so any
block can be made alone and a held design has the same entries as a regenerated one.
"""

from __future__ import annotations

import operator
import os
import shutil
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from ._arrays import Array, check_integer, numbers, threads

__all__ = [
    "DenseDesign",
    "Design",
    "StreamedDesign",
    "available_memory",
    "require_memory",
    "write_design",
]

_T = TypeVar("_T")
Respond = Callable[[Array, slice], Array]

# Entries of a block.  Held: it stays in cache between its two products and is work enough for the
# threads of BLAS.  Made: too little for these, which would disturb the threads that make blocks.
_HELD, _MADE = 2**20, 2**18
_SHARE = 0.9  # of the free memory that may be asked for


# --------------------------------------------------------------------------------------------
# What fits
# --------------------------------------------------------------------------------------------


def available_memory(root: str | Path = "/") -> float:
    """Return the bytes of memory that can be had without swapping, inf when nobody tells.

    Parameters
    ----------
    root : str or Path
        Where the ``proc`` and ``sys`` file systems of Linux are.

    Returns
    -------
    float
        The least of what the kernel reports and what the control groups of the process leave: a
        batch system kills a job by the second.

    Examples
    --------
    >>> from bsr_theory.design import available_memory
    >>> available_memory() > 0.0
    True
    """
    bounds = [np.inf]
    base = Path(root)
    try:
        lines = (base / "proc/meminfo").read_text().splitlines()
        bounds += [1024.0 * int(x.split()[1]) for x in lines if x.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        try:
            bounds.append(float(os.sysconf("SC_AVPHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE"))
        except (AttributeError, OSError, ValueError):
            pass  # not a POSIX system
    try:
        groups = (base / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        groups = []
    top = base / "sys/fs/cgroup"
    for own in (line.removeprefix("0::/") for line in groups if line.startswith("0::/")):
        group = top / own
        for place in (group, *group.parents):
            try:
                limit = float((place / "memory.max").read_text())  # "max" is no number
                used = float((place / "memory.current").read_text())
            except (OSError, ValueError):
                continue
            bounds.append(max(limit - used, 0.0))
    return min(bounds)


def _require(needed: float, free: float, what: str, instead: str) -> None:
    """Raise MemoryError when ``needed`` bytes are more than ``free`` ones allow."""
    if needed > _SHARE * free:
        raise MemoryError(
            f"{what} needs {needed / 1e9:.3g} GB, of which {free / 1e9:.3g} GB are free; {instead}"
        )


_STREAM = 'design="stream" keeps no matrix: it makes the rows again, block by block, at each pass'
_VECTORS = 12  # doubles a label and an entry of S that an algorithm works with


def _bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> float:
    return float(np.prod(np.asarray(shape, dtype=np.float64))) * dtype.itemsize


def _checked(shape: Any) -> tuple[int, int, int]:
    """Return a shape as three Python integers."""
    try:
        n, d1, d2 = (check_integer("shape", size) for size in shape)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"shape must be three positive integers (n, d1, d2), got {shape!r}"
        ) from error
    return n, d1, d2


def require_memory(shape: tuple[int, int, int], dtype: np.dtype[Any], *, held: bool) -> None:
    """Raise MemoryError when a design and what an algorithm adds to it do not fit.

    Parameters
    ----------
    shape : tuple of int
        ``(n, d1, d2)``.
    dtype : dtype
        Of the entries.
    held : bool
        Whether the entries are in memory; else a block for each thread is.

    Raises
    ------
    ValueError
        If the shape is not three positive integers.
    MemoryError
        If they do not fit; the message says what to do.

    Examples
    --------
    >>> import numpy as np
    >>> from bsr_theory.design import require_memory
    >>> require_memory((100, 10, 20), np.dtype(np.float64), held=True)
    """
    n, d1, d2 = _checked(shape)
    entries = d1 * d2
    double = np.dtype(np.float64)
    work = _VECTORS * _bytes((n + entries,), double)
    work += 2 * threads() * _bytes((max(entries, _MADE),), double)
    free = available_memory()
    if held:
        what = f"a dense design of shape {shape} in {dtype}"
        _require(work + _bytes(shape, dtype), free, what, _STREAM)
    else:
        _require(work, free, f"what goes with a design of shape {shape}", "take a smaller d1")


# --------------------------------------------------------------------------------------------
# The operator
# --------------------------------------------------------------------------------------------


class Design(ABC):
    """The n matrices X_mu of shape (d1, d2), as the linear operator ``S -> <X_mu, S>/sqrt(d1 d2)``.

    Parameters
    ----------
    shape : tuple of int
        ``(n, d1, d2)``.
    dtype : dtype
        float64 or float32.

    Notes
    -----
    Products are formed in ``dtype`` inside a block of rows and summed over blocks in float64;
    S, g and what is returned are float64.  In float32 an output h of variance 1 carries an error of
    1e-7 (root mean square) at ``d1 = 20`` and 4e-7 at ``d1 = 80``, nearly all of it from the
    product; without noise the error per entry of an estimate then ends at about 1e-13.
    """

    _entries: ClassVar[int] = _HELD

    def __init__(self, shape: tuple[int, int, int], dtype: npt.DTypeLike) -> None:
        try:
            kind = np.dtype(dtype)
        except TypeError as error:
            raise ValueError(f"dtype must be float64 or float32, got {dtype!r}") from error
        if kind not in (np.dtype(np.float64), np.dtype(np.float32)):
            raise ValueError(f"dtype must be float64 or float32, got {kind}")
        self.shape = _checked(shape)
        self.dtype = kind

    @property
    def n(self) -> int:
        """Number of matrices."""
        return self.shape[0]

    @property
    def _rows(self) -> int:
        """Rows of a block: a function of the shape alone, so that streams are the same."""
        return max(1, self._entries // (self.shape[1] * self.shape[2]))

    @property
    def block_count(self) -> int:
        """Number of blocks of rows."""
        return -(-self.n // self._rows)

    def _slice(self, index: int) -> slice:
        return slice(index * self._rows, min((index + 1) * self._rows, self.n))

    def _check(self, index: int) -> None:
        if not 0 <= index < self.block_count:
            raise IndexError(f"index must be in [0, {self.block_count}), got {index}")

    @abstractmethod
    def block(self, index: int) -> npt.NDArray[Any]:
        """Return the rows of block ``index`` (0 to block_count - 1), shape (rows, d1, d2)."""

    def blocks(self) -> Iterator[tuple[slice, npt.NDArray[Any]]]:
        """Iterate over ``(rows, X[rows])``, each ``X[rows]`` of shape (rows, d1, d2)."""
        for index in range(self.block_count):
            yield self._slice(index), self.block(index)

    def _each(self, work: Callable[[slice, npt.NDArray[Any]], _T]) -> Iterator[_T]:
        """Yield ``work(rows, X[rows] as a matrix)`` of each block, in order."""
        for rows, block in self.blocks():
            yield work(rows, block.reshape(block.shape[0], -1))

    def _columns(self, S: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return S as a vector, a stack of S as the columns of a matrix."""
        matrix = numbers("S", S)
        if matrix.ndim not in (2, 3) or matrix.shape[-2:] != self.shape[1:]:
            raise ValueError(
                f"S must have shape {self.shape[1:]} or be a stack of these, got {matrix.shape}"
            )
        flat = np.ascontiguousarray(matrix, dtype=self.dtype)
        return flat.reshape(*matrix.shape[:-2], -1).T

    @property
    def _scale(self) -> float:
        return 1.0 / float(np.sqrt(self.shape[1] * self.shape[2]))

    def matvec(self, S: npt.ArrayLike) -> Array:
        """Return the outputs ``h_mu = <X_mu, S>/sqrt(d1 d2)``.

        Parameters
        ----------
        S : array_like, shape (d1, d2) or (m, d1, d2)
            A signal, or a stack of them.

        Returns
        -------
        ndarray, shape (n,) or (m, n)
            One pass over X, for a stack too: one matrix product a block.
        """
        columns = self._columns(S)
        h = np.empty((*columns.shape[1:], self.n))

        def work(rows: slice, X: npt.NDArray[Any]) -> None:
            h[..., rows] = (X @ columns).T

        deque(self._each(work), maxlen=0)
        return h * self._scale

    def rmatvec(self, g: npt.ArrayLike) -> Array:
        """Return ``sum_mu g_mu X_mu/sqrt(d1 d2)``, the adjoint of `matvec`.

        Parameters
        ----------
        g : array_like, shape (n,) or (m, n)
            One weight a sample, or a stack of such weights.

        Returns
        -------
        ndarray, shape (d1, d2) or (m, d1, d2)
            One pass over X.
        """
        weights = numbers("g", g)
        if weights.ndim not in (1, 2) or weights.shape[-1] != self.n:
            raise ValueError(
                f"g must have shape ({self.n},) or be a stack of these, got {weights.shape}"
            )
        cast = np.asarray(weights, dtype=self.dtype)
        stack = weights.shape[:-1]
        total = np.zeros((*stack, self.shape[1] * self.shape[2]))
        for part in self._each(lambda rows, X: cast[..., rows] @ X):
            total += part
        return total.reshape(*stack, *self.shape[1:]) * self._scale

    def sweep(self, S: npt.ArrayLike, respond: Respond) -> Array:
        """Return ``rmatvec(respond(matvec(S)))`` in one pass over X instead of two.

        Parameters
        ----------
        S : array_like, shape (d1, d2) or (m, d1, d2)
            A signal, or a stack of them.
        respond : callable
            ``respond(h[..., rows], rows)`` returns the weights of these samples, of the same
            shape; several threads may call it at once, each with rows of its own.

        Returns
        -------
        ndarray, shape (d1, d2) or (m, d1, d2)
            What a gradient of a loss that is a sum over samples needs, and message passing too.
        """
        columns, scale = self._columns(S), self._scale
        stack = columns.shape[1:]
        total = np.zeros((*stack, self.shape[1] * self.shape[2]))

        def work(rows: slice, X: npt.NDArray[Any]) -> npt.NDArray[Any]:
            h = np.asarray((X @ columns).T, dtype=np.float64) * scale
            return np.asarray(np.asarray(respond(h, rows), dtype=self.dtype) @ X)

        for part in self._each(work):
            total += part
        return total.reshape(*stack, *self.shape[1:]) * scale

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Return all of X, shape (n, d1, d2), if it fits into memory."""
        if copy is False:
            raise ValueError("a regenerated design can only be copied")
        kind = np.dtype(self.dtype if dtype is None else dtype)
        require_memory(self.shape, kind, held=True)
        out = np.empty(self.shape, dtype=kind)
        for rows, block in self.blocks():
            out[rows] = block
        return out


class DenseDesign(Design):
    """A design whose entries are held, in memory or in a memory-mapped file.

    Parameters
    ----------
    array : ndarray, shape (n, d1, d2)
        float64 or float32, C-contiguous; a `numpy.memmap` is read block by block.

    Examples
    --------
    >>> import numpy as np
    >>> from bsr_theory.design import DenseDesign
    >>> X = DenseDesign(np.ones((3, 2, 2)))
    >>> X.matvec(np.eye(2))
    array([1., 1., 1.])
    >>> X.rmatvec([1.0, 0.0, 1.0])
    array([[1., 1.],
           [1., 1.]])
    """

    def __init__(self, array: npt.NDArray[Any]) -> None:
        if not isinstance(array, np.ndarray) or array.ndim != 3 or not array.flags.c_contiguous:
            what = f"shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise ValueError(f"array must be C-contiguous of shape (n, d1, d2), got {what}")
        super().__init__((array.shape[0], array.shape[1], array.shape[2]), array.dtype)
        self.array = array

    def block(self, index: int) -> npt.NDArray[Any]:
        """Return the rows of block ``index``, a view."""
        self._check(index)
        return self.array[self._slice(index)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Return the array itself."""
        return np.array(self.array, dtype=dtype, copy=copy)


class StreamedDesign(Design):
    """A design of independent standard Gaussian entries that is made again at every pass.

    Parameters
    ----------
    shape : tuple of int
        ``(n, d1, d2)``.
    key : array_like of uint64, shape (2,)
        Key of the generator: it determines X.
    dtype : dtype
        float64, or float32 for the same entries, rounded.

    Notes
    -----
    Memory: a block for each thread (environment variable BSR_THREADS), 2 MB or one matrix X_mu
    if that is larger; a pass costs about 10 ns an entry and thread.  Results do not depend on
    the number of threads.

    Examples
    --------
    >>> from bsr_theory.design import StreamedDesign
    >>> X = StreamedDesign((10**9, 300, 300), key=[1, 2])
    >>> X.block(10**8).shape
    (2, 300, 300)
    """

    _entries: ClassVar[int] = _MADE

    def __init__(
        self, shape: tuple[int, int, int], key: npt.ArrayLike, dtype: npt.DTypeLike = np.float64
    ) -> None:
        super().__init__(shape, dtype)
        try:
            first, second = (operator.index(part) for part in np.asarray(key, dtype=object).ravel())
            self.key = np.array([first, second], dtype=np.uint64)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"key must be two integers in [0, 2^64), got {key!r}") from error

    def block(self, index: int) -> npt.NDArray[Any]:
        """Draw the rows of block ``index``."""
        self._check(index)
        rows = self._slice(index)
        start = np.array([0, 0, index, 0], dtype=np.uint64)
        generator = np.random.Generator(np.random.Philox(key=self.key, counter=start))
        drawn = generator.standard_normal((rows.stop - rows.start, *self.shape[1:]))
        return np.asarray(drawn, dtype=self.dtype)

    def _each(self, work: Callable[[slice, npt.NDArray[Any]], _T]) -> Iterator[_T]:
        """Yield the result of each block in order, a few blocks at once in threads."""

        def one(index: int) -> _T:
            block = self.block(index)
            return work(self._slice(index), block.reshape(block.shape[0], -1))

        count = self.block_count
        workers = min(threads(), count)
        if workers == 1:
            yield from map(one, range(count))
            return
        with ThreadPoolExecutor(workers) as pool:
            waiting: deque[Future[_T]] = deque()
            try:
                for index in range(count):
                    waiting.append(pool.submit(one, index))
                    if len(waiting) > 2 * workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def write_design(source: Design, path: str | os.PathLike[str]) -> DenseDesign:
    """Write a design to a file and return it memory-mapped.

    Parameters
    ----------
    source : Design
        Its blocks are written one after the other.
    path : path-like
        A new file in the format of `numpy.save`.

    Returns
    -------
    DenseDesign
        Its array is read from the file when it is needed, and the file is left to the caller.

    Raises
    ------
    ValueError
        If the file exists.
    MemoryError
        If the disk has no room for it.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from bsr_theory.design import DenseDesign, write_design
    >>> X = np.random.default_rng(0).standard_normal((6, 2, 3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mapped = write_design(DenseDesign(X), os.path.join(folder, "X.npy"))
    ...     bool(np.array_equal(mapped.matvec(np.eye(2, 3)), DenseDesign(X).matvec(np.eye(2, 3))))
    ...     del mapped
    True
    """
    target = Path(path)
    if target.exists():
        raise ValueError(f"path must be a new file, but {str(target)!r} exists")
    needed = _bytes(source.shape, source.dtype)
    free = float(shutil.disk_usage(target.resolve().parent).free)
    _require(needed, free, f"a design of shape {source.shape} in {source.dtype} on disk", _STREAM)
    try:
        array = np.lib.format.open_memmap(target, mode="w+", dtype=source.dtype, shape=source.shape)
        for rows, block in source.blocks():
            array[rows] = block
        array.flush()
        del array
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return DenseDesign(np.load(target, mmap_mode="r"))
