"""What calculations return: small frozen dataclasses and the status of each point."""

from __future__ import annotations

import ast
import contextlib
import enum
import functools
import hashlib
import os
import platform
import secrets
import subprocess
import warnings
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ._arrays import Array

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "Branches",
    "ConvergenceError",
    "ConvergenceWarning",
    "FixedPoint",
    "OnFailure",
    "Provenance",
    "SimulationRun",
    "Status",
    "Trajectory",
    "code_fingerprint",
    "read_dataset",
    "report_failures",
    "source_fingerprint",
    "write_dataset",
]

OnFailure = Literal["warn", "raise", "return"]


class Status(enum.IntEnum):
    """How the calculation of one point ended.

    ``status.advice`` is a sentence that tells what to do.  Values below ``NOT_CONVERGED`` are
    successes.

    Examples
    --------
    >>> from bsr_theory import Status
    >>> Status.CONVERGED.ok, Status.NOT_CONVERGED.ok
    (True, False)
    """

    CONVERGED = 0
    PERFECT_RECOVERY = 1
    NO_RECOVERY = 2
    NOT_IDENTIFIABLE = 3
    NOT_CONVERGED = 10
    INVALID_INPUT = 11
    ABSENT = 12
    SATURATED = 13
    OVERFLOW = 14
    ESCAPED = 15

    @property
    def ok(self) -> bool:
        """Whether the point was solved."""
        return self < Status.NOT_CONVERGED

    @property
    def advice(self) -> str:
        """A sentence: what the status means and what to do about it."""
        return _ADVICE[self]


_ADVICE = {
    Status.CONVERGED: "The equations are solved to the residual that is reported.",
    Status.PERFECT_RECOVERY: "Noiseless and at or above strong recovery: mmse is exactly 0.",
    Status.NO_RECOVERY: "Below weak recovery: the overlap is exactly that of the prior.",
    Status.NOT_CONVERGED: (
        "No root met the tolerance; the value is NaN. Check that the prior's mmse is finite, "
        "monotone and smooth there, or allow a larger tolerance."
    ),
    Status.INVALID_INPUT: "A parameter of this point is NaN or out of its range; the value is NaN.",
    Status.ABSENT: "There is no such branch at this point; the value is NaN.",
    Status.NOT_IDENTIFIABLE: (
        "A minimum was found, but the data leave directions of the weights open; these weights "
        "are one choice. More data or regularization > 0 make them unique."
    ),
    Status.SATURATED: (
        "Rows of attention are one-hot, where the loss is flat: a wrong row is stuck, or the "
        "minimum is at infinity. Use init='closed_form', kind='cross_entropy' or regularization."
    ),
    Status.OVERFLOW: (
        "The rescaled loss leaves the range of a double at these weights. Use kind='normalised', "
        "which has the same minimum when an attention matrix equals the labels."
    ),
    Status.ESCAPED: (
        "The weights of all rows went to zero on the way to infinity, without an explanation of "
        "the labels. Use kind='normalised' or regularization > 0."
    ),
}


class ConvergenceWarning(UserWarning):
    """Some points of an array were not solved; their values are NaN."""


class ConvergenceError(RuntimeError):
    """Raised instead of ConvergenceWarning with ``on_failure="raise"``."""


def report_failures(status: npt.NDArray[np.int64], on_failure: OnFailure) -> None:
    """Warn, raise or stay silent about the points whose status is a failure.

    Parameters
    ----------
    status : ndarray of int
        Codes of `Status`.
    on_failure : {"warn", "raise", "return"}
        What to do about those that are failures; `Status.ABSENT` is none.

    Raises
    ------
    ValueError
        If on_failure is unknown.
    ConvergenceError
        If there is a failure and ``on_failure="raise"``.

    Warns
    -----
    ConvergenceWarning
        If there is a failure and ``on_failure="warn"``.

    Examples
    --------
    >>> import numpy as np
    >>> from bsr_theory.results import Status, report_failures
    >>> report_failures(np.array([Status.CONVERGED, Status.INVALID_INPUT]), "raise")
    Traceback (most recent call last):
        ...
    bsr_theory.results.ConvergenceError: 1 of 2 points: INVALID_INPUT. A parameter of this point is
    NaN or out of its range; the value is NaN.
    """
    if on_failure not in ("warn", "raise", "return"):
        raise ValueError(f"on_failure must be 'warn', 'raise' or 'return', got {on_failure!r}")
    flat = np.atleast_1d(status).ravel()
    bad = flat[(flat >= Status.NOT_CONVERGED) & (flat != Status.ABSENT)]
    if bad.size == 0 or on_failure == "return":
        return
    parts = [
        f"{int(np.sum(bad == value))} of {flat.size} points: {Status(value).name}. "
        f"{Status(value).advice}"
        for value in np.unique(bad)
    ]
    message = " ".join(parts)
    if on_failure == "raise":
        raise ConvergenceError(message)
    warnings.warn(message, ConvergenceWarning, stacklevel=3)


@dataclass(frozen=True)
class FixedPoint:
    """A fixed point of state evolution, or an array of them.

    Attributes
    ----------
    q : float or ndarray
        Overlap of the Bayes estimator with the signal, per entry: ``1 - mmse``, but accurate to
        relative precision also when it is small.
    qhat : float or ndarray
        Conjugate of ``q``: the signal-to-noise ratio of the effective denoising problem, 1/s.
    mmse : float or ndarray
        Error per entry, ``||S_hat - S||^2/(d1 d2)``.
    information : float or ndarray
        Mutual information between signal and labels in nats per ``d1 d2`` (noiseless channels:
        without its infinite constant, and -inf at perfect recovery); minus the free entropy.
    residual : float or ndarray
        ``|alpha(s)/alpha - 1|`` at the returned point: how well the equations hold there.
    iterations : int or ndarray
        Evaluations of the prior's mmse spent on the point.
    status : Status or ndarray
        One `Status` a point.
    channel : Channel, optional
        Channel of the problem, for `generalization_error`.
    """

    q: Any
    qhat: Any
    mmse: Any
    information: Any
    residual: Any
    iterations: Any
    status: Any
    channel: Any = field(default=None, repr=False, compare=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the fields, () for a scalar problem."""
        return np.shape(self.mmse)

    @functools.cached_property
    def generalization_error(self) -> Any:
        """Error of the best prediction of a new label, calculated when first asked for.

        What `Channel.generalization_error` returns at this overlap: the probability of a wrong
        label for classes, the mean squared error, noise of the new label included, for numbers;
        NaN where the point was not solved.
        """
        if self.channel is None:
            raise ValueError("channel must be given for the generalization error, got None")
        if self.shape == () and not self.status.ok:
            return float("nan")
        return self.channel.generalization_error(self.q, self.mmse)


@dataclass(frozen=True)
class Branches:
    """Every fixed point of a problem, along the last axis, by increasing mmse.

    Attributes
    ----------
    q, qhat, mmse, residual : ndarray, shape (..., k)
        As in `FixedPoint`; NaN where a point has fewer than k fixed points.
    slope : ndarray, shape (..., k)
        Derivative of the state-evolution map ``q -> q'`` there.
    stable : ndarray of bool, shape (..., k)
        Whether iteration converges to it: ``|slope| < 1``.
    status : ndarray of Status, shape (..., k)
        `Status.ABSENT` marks the padding.
    """

    q: Array
    qhat: Array
    mmse: Array
    residual: Array
    slope: Array
    stable: npt.NDArray[np.bool_]
    status: npt.NDArray[np.int64]

    @property
    def count(self) -> Any:
        """Number of fixed points at each parameter point."""
        ok = self.status < Status.NOT_CONVERGED
        number = ok.sum(axis=-1)
        return int(number) if number.ndim == 0 else number

    def __len__(self) -> int:
        """Return the largest number of fixed points at any parameter point."""
        return int(self.mmse.shape[-1])


@dataclass(frozen=True)
class Trajectory:
    """State evolution iterated from a start: what message passing follows step by step.

    Attributes
    ----------
    q, mmse : ndarray, shape (..., steps + 1)
        Overlap and error before the first and after each iteration.
    qhat : ndarray, shape (..., steps)
        Signal-to-noise ratio that iteration k denoised at.
    """

    q: Array
    mmse: Array
    qhat: Array


@dataclass(frozen=True, eq=False)
class SimulationRun:
    """One run of an algorithm on one instance.

    Attributes
    ----------
    mse : ndarray, shape (iterations + 1,)
        ``||S_hat - S||^2/(d1 d2)`` before the first and after each iteration.
    overlap : ndarray, shape (iterations + 1,)
        ``<S_hat, S>/(d1 d2)``.
    estimate : ndarray, shape (d1, d2)
        S_hat after the last iteration.
    status : Status
        How the run ended; CONVERGED when the estimate no longer moves.
    seconds : float
        Wall-clock time.
    estimated_mse : ndarray, shape (iterations + 1,), or None
        What the algorithm itself takes its error to be, without knowing S.
    qhat : ndarray, shape (iterations,), or None
        Signal-to-noise ratio that each iteration measured and denoised at, in the unit of the
        prior, as in `Trajectory`.
    misfit : ndarray, shape (iterations,), or None
        Squared residual of the labels over its expectation under the algorithm's own error; 1 up
        to finite-size fluctuations as long as the algorithm knows where it stands.
    damping : ndarray, shape (iterations,), or None
        Share of the previous estimate that each iteration kept.
    """

    mse: Array
    overlap: Array
    estimate: Array
    status: Status
    seconds: float
    estimated_mse: Array | None = None
    qhat: Array | None = None
    misfit: Array | None = None
    damping: Array | None = None

    @property
    def iterations(self) -> int:
        """Number of iterations."""
        return self.mse.size - 1


@dataclass(frozen=True)
class Provenance:
    """Where a result came from: kept beside every stored one.

    Attributes
    ----------
    package : str
        Version of bsr_theory.
    git : str or None
        Commit of a source checkout, "+" appended when files differ from it.
    python, platform : str
        Of the machine.
    versions : dict
        Of numpy, scipy and numba.
    code : str
        `code_fingerprint`: results of equal parameters and equal code are equal.

    Examples
    --------
    >>> from bsr_theory import Provenance
    >>> sorted(Provenance.collect().versions)[:2]
    ['numba', 'numpy']
    """

    package: str
    git: str | None
    python: str
    platform: str
    versions: dict[str, str]
    code: str

    @classmethod
    def collect(cls) -> Provenance:
        """Gather the versions, the git state of a source checkout and the platform."""
        versions = {name: _version(name) for name in ("numpy", "scipy", "numba")}
        return cls(
            package=_version("bsr_theory"),
            git=_git_state(),
            python=platform.python_version(),
            platform=platform.platform(),
            versions=versions,
            code=code_fingerprint(),
        )


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"


@functools.cache
def _git_state() -> str | None:
    """Return the commit of the source checkout, "+" appended when files differ, else None."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        run = [
            subprocess.run(
                ["git", *words], cwd=root, capture_output=True, text=True, timeout=5, check=True
            ).stdout.strip()
            for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "-uno"])
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return run[0] + ("+" if run[1] else "")


# --------------------------------------------------------------------------------------------
# The code that made a result
# --------------------------------------------------------------------------------------------

# Modules of the package that draw, print or examine numbers but make none.
_NO_NUMBERS = {"__init__", "__main__", "cli", "explore", "figures", "verify"}


@functools.cache
def code_fingerprint() -> str:
    """Return a short hash of the package's code, blind to comments, docstrings and layout.

    Two versions with the same fingerprint give the same numbers: stored data is used again when
    its parameters and this agree.  Modules that draw, print or examine numbers do not enter.

    Returns
    -------
    str
        Twelve hexadecimal digits.

    Examples
    --------
    >>> from bsr_theory.results import code_fingerprint
    >>> len(code_fingerprint())
    12
    """
    folder = Path(__file__).resolve().parent
    sources = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.py")}
    parts = [
        f"{name} {source_fingerprint(path.read_text(encoding='utf-8'))}"
        for name, path in sorted(sources.items())
        if Path(name).parts[0].removesuffix(".py") not in _NO_NUMBERS
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def source_fingerprint(source: str) -> str:
    """Return a short hash of Python source, blind to comments, docstrings and layout.

    Parameters
    ----------
    source : str
        Whole statements.

    Returns
    -------
    str
        Twelve hexadecimal digits; the same from every version of Python.

    Raises
    ------
    SyntaxError
        If it is not Python.

    Examples
    --------
    >>> from bsr_theory.results import source_fingerprint
    >>> source_fingerprint("x = 1  # one") == source_fingerprint("x  =  (1)")
    True
    """
    tokens: list[str] = []
    _tokenise(ast.parse(source), tokens)
    return hashlib.sha256("".join(tokens).encode()).hexdigest()[:12]


def _tokenise(node: object, tokens: list[str]) -> None:
    """Append a syntax tree as text; unlike `ast.dump` it is the same in every version of Python."""
    if isinstance(node, ast.AST):
        tokens.append(f"{type(node).__name__}(")
        for name, value in ast.iter_fields(node):
            if name == "body" and isinstance(node, _DOCUMENTED) and ast.get_docstring(node, False):
                value = value[1:]
            if value is not None and value != []:  # fields that a newer Python may have added
                tokens.append(f"{name}=")
                _tokenise(value, tokens)
        tokens.append(")")
    elif isinstance(node, list):
        tokens.append("[")
        for item in node:
            _tokenise(item, tokens)
        tokens.append("]")
    else:
        tokens.append(f"{node!r},")


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


# --------------------------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------------------------


def write_dataset(dataset: xr.Dataset, path: str | os.PathLike[str]) -> None:
    """Write a netCDF file, whole or not at all.

    Parameters
    ----------
    dataset : xarray.Dataset
        What to write.
    path : path-like
        The file; missing folders are made, an older file is replaced.

    Notes
    -----
    The data goes to a temporary file in the same folder, which then takes the name: another
    process sees the old file or the new one, and a crash in between leaves the old one.

    Examples
    --------
    >>> import os, tempfile, xarray
    >>> from bsr_theory.results import read_dataset, write_dataset
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "results", "mmse.nc")
    ...     write_dataset(xarray.Dataset({"mmse": ("alpha", [0.8, 0.6])}), path)
    ...     read_dataset(path).mmse.values
    array([0.8, 0.6])
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        dataset.to_netcdf(draft, engine="h5netcdf")
        with open(draft, "rb+") as file:  # on disk before it takes the name
            os.fsync(file.fileno())
        os.replace(draft, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()


def read_dataset(path: str | os.PathLike[str]) -> xr.Dataset:
    """Read a netCDF file into memory and close it.

    Parameters
    ----------
    path : path-like
        A file of `write_dataset`.

    Returns
    -------
    xarray.Dataset
        Numbers, strings and attributes as they were written.

    Raises
    ------
    FileNotFoundError
        If there is no such file.

    Examples
    --------
    >>> import os, tempfile, xarray
    >>> from bsr_theory.results import read_dataset, write_dataset
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "mmse.nc")
    ...     write_dataset(xarray.Dataset({"name": ("k", ["a", "b"])}, attrs={"beta": 2.0}), path)
    ...     data = read_dataset(path)
    >>> data.name.values.tolist(), float(data.attrs["beta"])
    (['a', 'b'], 2.0)
    """
    import xarray as xr

    dataset = xr.load_dataset(Path(path), engine="h5netcdf", decode_times=False)
    texts = {name: array for name, array in dataset.variables.items() if array.dtype.kind == "O"}
    return dataset.assign({name: array.astype(str) for name, array in texts.items()})
