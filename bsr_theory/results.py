"""What calculations return: small frozen dataclasses and the status of each point."""

from __future__ import annotations

import enum
import functools
import platform
import subprocess
import warnings
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ._arrays import Array

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
    "report_failures",
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
    NOT_CONVERGED = 10
    INVALID_INPUT = 11
    ABSENT = 12

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
        "No root met the tolerance; the value is NaN. Check that the prior's mmse is finite and "
        "monotone there, or allow a larger tolerance."
    ),
    Status.INVALID_INPUT: "A parameter of this point is NaN or out of its range; the value is NaN.",
    Status.ABSENT: "There is no such branch at this point; the value is NaN.",
}


class ConvergenceWarning(UserWarning):
    """Some points of an array were not solved; their values are NaN."""


class ConvergenceError(RuntimeError):
    """Raised instead of ConvergenceWarning with ``on_failure="raise"``."""


def report_failures(status: npt.NDArray[np.int64], on_failure: OnFailure) -> None:
    """Warn, raise or stay silent about the points whose status is a failure."""
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
    """

    q: Any
    qhat: Any
    mmse: Any
    information: Any
    residual: Any
    iterations: Any
    status: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the fields, () for a scalar problem."""
        return np.shape(self.mmse)


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
