"""What the explorer shows, calculated: from a few parameters to arrays, tables and files."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import numpy as np
import numpy.typing as npt

from .._arrays import Array, Numeric, check, check_number, scalar_or_array
from .._kernels.channels import PRECISION
from ..channels import (
    AbsChannel,
    Channel,
    GaussianChannel,
    LogisticChannel,
    QuantizedChannel,
    ReLUChannel,
    SignChannel,
)
from ..erm import nuclear_norm, ridge
from ..limits import alpha_low_rank
from ..phases import HARD, Thresholds, _Interpolated, phase_diagram, thresholds
from ..priors import GaussianFactorPrior
from ..problem import Problem
from ..results import Branches, Provenance, Status, write_dataset
from ..state_evolution import fixed_points, free_entropy

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "CHANNELS",
    "PARAMETERS",
    "Exploration",
    "FixedPointCurve",
    "LearningCurve",
    "Spectrum",
    "View",
    "explore",
]

CHANNELS = ("linear", "sign", "abs", "relu", "logistic", "quantized")
"""What labels show of h: h with noise, its sign, ``|h|``, ``max(h, 0)``, or classes."""

PARAMETERS = ("alpha", "beta", "rho", "delta", "gain", "levels")
"""Names of the parameters that are numbers, or a list of them."""

_POINTS = 240  # of the curve against alpha
_GRAIN = 400  # points of the curve of all fixed points, of a spectrum, of a landscape
_MOST_LEVELS = 16
_JUMP = 1e-9  # relative distance at which both sides of a jump are calculated
_SMALLEST = 1e-6  # error where logarithmic axes end at the latest


# --------------------------------------------------------------------------------------------
# A view: the parameters
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """Everything that decides what the page shows.

    Parameters
    ----------
    alpha : float
        Sampling ratio ``n/(d1 d2)`` in [1e-6, 1e6]: where spectrum and landscape are shown.
    beta : float
        Aspect ratio ``d2/d1`` in [1, inf].
    rho : float
        Width ``r/d1`` in [1e-3, inf].
    delta : float
        Noise variance of the labels in [0, 1e6]; without effect on logistic labels.
    channel : str
        One of `CHANNELS`.
    gain : float
        Slope in [0, 1e6] of the log odds of logistic labels.
    levels : sequence of float
        Where quantized labels change: at most 16 increasing numbers.
    log : bool
        Whether the axes of alpha and of the error are logarithmic.
    ridge, nuclear_norm : bool
        Whether to calculate what these estimators reach at their best penalty, for linear labels.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Examples
    --------
    >>> from bsr_theory.explore.model import View
    >>> View(alpha=0.5, channel="abs").query
    'channel=abs&alpha=0.5&beta=2.0&rho=0.5&delta=0.1'
    """

    alpha: float = 0.4
    beta: float = 2.0
    rho: float = 0.5
    delta: float = 0.1
    channel: str = "linear"
    gain: float = 1.0
    levels: tuple[float, ...] = (-1.0, 0.0, 1.0)
    log: bool = False
    ridge: bool = True
    nuclear_norm: bool = False

    def __post_init__(self) -> None:
        """Check the parameters, those without effect too."""
        if self.channel not in CHANNELS:
            raise ValueError(f"channel must be one of {', '.join(CHANNELS)}, got {self.channel!r}")
        # far beyond these numbers there is nothing to see, and a table of the prior takes minutes
        for name, low, high in (("alpha", 1e-6, 1e6), ("delta", 0.0, 1e6), ("gain", 0.0, 1e6)):
            number = check_number(name, getattr(self, name), low=low, high=high)
            object.__setattr__(self, name, number)
        for name, low in (("beta", 1.0), ("rho", 1e-3)):
            object.__setattr__(self, name, float(check(name, getattr(self, name), low=low)))
        levels = np.asarray(self.levels, dtype=np.float64)
        increasing = levels.ndim == 1 and bool(np.all(np.diff(levels) > 0.0))
        if not (increasing and 1 <= levels.size <= _MOST_LEVELS and np.isfinite(levels).all()):
            raise ValueError(
                f"levels must be 1 to {_MOST_LEVELS} increasing numbers, got {self.levels!r}"
            )
        object.__setattr__(self, "levels", tuple(levels.tolist()))

    @classmethod
    def read(cls, words: Mapping[str, str], start: View | None = None) -> tuple[View, list[str]]:
        """Return the view that words describe, and what is wrong with them.

        Parameters
        ----------
        words : mapping of str to str
            Values by name, as in `query`; other names are ignored.
        start : View, optional
            Where a value comes from that is missing or bad; by default the default view.

        Returns
        -------
        tuple of View and list of str
            A sentence a bad word.

        Examples
        --------
        >>> from bsr_theory.explore.model import View
        >>> view, problems = View.read({"alpha": "0.7", "beta": "0.5"})
        >>> view.alpha, view.beta, problems
        (0.7, 2.0, ['beta must be >= 1, got 0.5'])
        """
        view, problems = cls() if start is None else start, []
        for field in dataclasses.fields(cls):
            if field.name in words:
                try:
                    view = view.with_word(field.name, words[field.name])
                except ValueError as error:
                    problems.append(str(error))
        return view, problems

    def with_word(self, name: str, word: str) -> View:
        """Return the view with one parameter changed.

        Parameters
        ----------
        name : str
            Of the parameter.
        word : str
            Its value as somebody may write it: ``1e-3``, ``inf``, ``-1, 0, 1``.

        Returns
        -------
        View
            All else is the same.

        Raises
        ------
        ValueError
            If the word has no sense there.
        """
        word = word.strip()
        value: Any = word
        if name in ("log", "ridge", "nuclear_norm"):
            if word not in ("0", "1"):
                raise ValueError(f"{name} must be 0 or 1, got {word!r}")
            value = word == "1"
        elif name != "channel":
            plain = word.replace("\N{INFINITY}", "inf").replace("\N{MINUS SIGN}", "-")
            parts = plain.replace(",", " ").split() if name == "levels" else [plain]
            try:
                numbers = tuple(float(part) for part in parts)
            except ValueError as error:
                kind = "numbers such as -1, 0, 1" if name == "levels" else "a number"
                raise ValueError(f"{name} must be {kind}, got {word!r}") from error
            value = numbers if name == "levels" else numbers[0]
        return dataclasses.replace(self, **{name: value})

    def word(self, name: str) -> str:
        """Return the value of a parameter as `with_word` reads it.

        Parameters
        ----------
        name : str
            Of the parameter.

        Returns
        -------
        str
            Reads back as the same value.
        """
        value = getattr(self, name)
        if isinstance(value, bool):
            return str(int(value))
        return ",".join(map(repr, value)) if isinstance(value, tuple) else str(value)

    @property
    def active(self) -> tuple[str, ...]:
        """Names of the parameters that have an effect."""
        own = {"logistic": ("gain",), "quantized": ("delta", "levels")}
        return ("alpha", "beta", "rho", *own.get(self.channel, ("delta",)))

    @property
    def query(self) -> str:
        """The view as the query string of an address."""
        standard = View()
        names = ["channel", *self.active]
        names += [x for x in ("log", "ridge", "nuclear_norm") if self.word(x) != standard.word(x)]
        return urlencode({name: self.word(name) for name in names}, safe=",")

    @property
    def prior(self) -> GaussianFactorPrior:
        """Law of the signal."""
        return GaussianFactorPrior(self.beta, self.rho)

    @property
    def labels(self) -> Channel:
        """Law of a label."""
        if self.channel == "logistic":
            return LogisticChannel(self.gain)
        if self.channel == "quantized":
            return QuantizedChannel(self.levels, self.delta)
        kinds: dict[str, Callable[[float], Channel]] = {
            "linear": GaussianChannel,
            "sign": SignChannel,
            "abs": AbsChannel,
            "relu": ReLUChannel,
        }
        return kinds[self.channel](self.delta)

    @property
    def problem(self) -> Problem:
        """The problem at alpha."""
        return Problem(self.prior, self.labels, self.alpha)

    @property
    def _quick(self) -> Channel:
        """Law of a label that answers quickly, and only what the page asks a thousand times."""
        labels = self.labels
        return labels if labels.single_fixed_point else _Quick(labels)


class _Sums:
    """A channel that answers by its sum at each overlap, not by a table of its own."""

    def __init__(self, channel: Channel) -> None:
        self.channel: Any = channel

    def precision(self, q: Array, v: Array) -> Array:
        """Return what `Channel.precision` is."""
        values = self.channel._direct(PRECISION, q.ravel(), v.ravel())
        return np.asarray(values.reshape(q.shape))


@functools.lru_cache(maxsize=32)
def _table(channel: Channel) -> tuple[_Interpolated, float]:
    """Return the table of a channel, and its information without any overlap."""
    sums: Any = _Sums(channel)
    start, ends, panels = _Interpolated._sums(sums, 1)
    first = float(channel.precision(0.0, 1.0))
    table = _Interpolated(channel, first, start[:, 0], ends, panels[..., 0])
    return table, float(channel.information(0.0, 1.0))


@dataclass(frozen=True)
class _Quick(Channel):
    """A channel without prediction errors, and with a table, good to 1e-10, if its sums are long.

    A view asks for thousands of answers, and a slider makes ten views a second.
    """

    channel: Channel

    @property
    def resolves(self) -> Any:
        """As the channel says."""
        return self.channel.resolves

    def _answer(self, name: str, q: Numeric, v: Numeric | None) -> Any:
        if not getattr(self.channel, "_costly", False):
            return getattr(self.channel, name)(q, v)
        overlap = np.asarray(q, dtype=np.float64)
        rest = np.asarray(1.0 - overlap if v is None else v, dtype=np.float64)
        overlap, rest = np.broadcast_arrays(overlap, rest)
        table, start = _table(self.channel)
        out = np.array(getattr(table, name)(overlap, rest), dtype=np.float64)
        out += start if name == "information" else 0.0
        # the ends are off the table
        ends = (overlap <= 0.0) | (rest <= 0.0)
        if ends.any():
            out[ends] = getattr(self.channel, name)(overlap[ends], rest[ends])
        return scalar_or_array(out)

    def precision(self, q: Numeric, v: Numeric | None = None) -> Any:
        """Return what `Channel.precision` is."""
        return self._answer("precision", q, v)

    def information(self, q: Numeric, v: Numeric | None = None) -> Any:
        """Return what `Channel.information` is."""
        return self._answer("information", q, v)

    def score(self, y: Numeric, omega: Numeric, V: Numeric) -> tuple[Any, Any]:
        """Return what `Channel.score` is."""
        return self.channel.score(y, omega, V)

    def sample(self, h: Numeric, *, rng: Any = None) -> Array:
        """Return labels."""
        return self.channel.sample(h, rng=rng)


# --------------------------------------------------------------------------------------------
# Error against alpha
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class FixedPointCurve:
    """Every fixed point of state evolution, at every alpha: ``alpha(s)`` and ``M(s)``.

    Attributes
    ----------
    s, alpha, mmse : ndarray, shape (k,)
        Noise of the denoising problem, and the sampling ratio and error of the fixed point there.
    stable : ndarray of bool, shape (k,)
        Whether alpha decreases with s there: whether an iteration rests at this point.
    """

    s: Array
    alpha: Array
    mmse: Array
    stable: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """Errors against alpha, and where learning changes.

    Attributes
    ----------
    alpha : ndarray, shape (k,)
        Sampling ratios, increasing; jumps are between neighbours ``2e-9 alpha`` apart.
    mmse_bayes, mmse_algorithm : ndarray, shape (k,)
        Bayes-optimal error per entry, and that of message passing, which starts uninformed.
    hard : ndarray, shape (m, 2)
        Intervals of alpha in which the two differ.
    status : ndarray of Status, shape (k,)
        Of the Bayes-optimal points.
    ridge, nuclear_norm : ndarray, shape (k,), or None
        Error per entry of these estimators at their best penalty, None where they do not apply.
    thresholds : Thresholds
        Where learning changes its nature.
    every : FixedPointCurve
        All fixed points.
    """

    alpha: Array
    mmse_bayes: Array
    mmse_algorithm: Array
    hard: Array
    status: npt.NDArray[np.int64]
    ridge: Array | None
    nuclear_norm: Array | None
    thresholds: Thresholds
    every: FixedPointCurve

    @property
    def marks(self) -> dict[str, float]:
        """Names and places of the thresholds that lie at a positive finite alpha."""
        found = self.thresholds
        places = {
            "weak recovery": found.weak_recovery,
            "informed spinodal": found.informed_spinodal,
            "information-theoretic": found.information_theoretic,
            "strong recovery": found.strong_recovery,
            "algorithmic": found.algorithmic,
        }
        return {name: float(x) for name, x in places.items() if 0.0 < x < np.inf}


@functools.lru_cache(maxsize=64)
def _thresholds(prior: GaussianFactorPrior, labels: Channel) -> Thresholds:
    return thresholds(prior, labels)


def _round_up(value: float) -> float:
    """Return the next number of one or two digits that an axis can end at."""
    power = 10.0 ** math.floor(math.log10(value))
    steps = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
    return next(step for step in steps if step * power >= value * (1.0 - 1e-12)) * power


def _axis(view: View) -> tuple[float, float]:
    """Return the ends of the axis of alpha: all that happens is on it, and alpha."""
    found = _thresholds(view.prior, view._quick)
    places = (found.information_theoretic, found.algorithmic, found.strong_recovery)
    events = [float(x) for x in places if np.isfinite(x)]
    # without a transition the error falls on the scale of the degrees of freedom
    freedom = view.prior.strong_recovery
    top = max(1.4 * max(events), freedom) if events else 2.5 * freedom
    if view.log:
        return _round_up(min(1e-2 * freedom, 0.5 * view.alpha)), _round_up(
            max(20.0 * top, 2.0 * view.alpha)
        )
    return 0.0, _round_up(max(top, 1.1 * view.alpha))


def learning_curve(view: View) -> LearningCurve:
    """Return the errors against alpha.

    Parameters
    ----------
    view : View
        Of alpha only the ends of the axis depend, in steps, so that curves are found again.

    Returns
    -------
    LearningCurve
        About 250 points.
    """
    linear = isinstance(view.labels, GaussianChannel)
    return _learning_curve(
        view.prior,
        view._quick,
        _axis(view),
        view.log,
        view.ridge and linear,
        view.nuclear_norm and linear,
    )


@functools.lru_cache(maxsize=64)
def _learning_curve(
    prior: GaussianFactorPrior,
    labels: Channel,
    ends: tuple[float, float],
    log: bool,
    with_ridge: bool,
    with_nuclear_norm: bool,
) -> LearningCurve:
    found = _thresholds(prior, labels)
    low, high = ends
    grid = np.geomspace(low, high, _POINTS) if log else np.linspace(low, high, _POINTS + 1)[1:]
    jumps = np.array([found.information_theoretic, found.algorithmic, found.strong_recovery])
    jumps = jumps[(jumps > grid[0]) & (jumps < high)]
    both = np.concatenate([jumps * (1.0 - _JUMP), jumps * (1.0 + _JUMP)])
    alpha = np.unique(np.concatenate([grid, both]))
    plane = phase_diagram(Problem(prior, labels), alpha=alpha, rho=[prior.rho], progress=False)
    problem = Problem(prior, labels, alpha)
    penalised = ridge(problem, lam="optimal", on_failure="return") if with_ridge else None
    sparse = (
        nuclear_norm(problem, lam="optimal", on_failure="return") if with_nuclear_norm else None
    )
    return LearningCurve(
        alpha=alpha,
        mmse_bayes=plane.mmse_bayes.values.ravel(),
        mmse_algorithm=plane.mmse_algorithm.values.ravel(),
        hard=_intervals(alpha, plane.phase.values.ravel() == HARD),
        status=plane.status.values.ravel(),
        thresholds=found,
        ridge=None if penalised is None else penalised.mse,
        nuclear_norm=None if sparse is None else sparse.mse,
        every=_every_fixed_point(prior, labels, low, high),
    )


def _intervals(alpha: Array, inside: npt.NDArray[np.bool_]) -> Array:
    """Return the ends of the runs of alphas that are inside."""
    padded = np.concatenate([[False], inside, [False]]).astype(int)
    step = np.diff(padded)
    first, last = np.flatnonzero(step > 0), np.flatnonzero(step < 0) - 1
    return np.column_stack([alpha[first], alpha[last]])


def _every_fixed_point(
    prior: GaussianFactorPrior, labels: Channel, low: float, high: float
) -> FixedPointCurve:
    """Return the curve alpha(s), M(s) where alpha is between ``low`` and a little over ``high``."""

    def evaluate(logs: Array) -> tuple[Array, Array]:
        mmse, q = prior.mmse_and_overlap(np.exp(logs))
        q, mmse = np.clip(q, 0.0, 1.0), np.clip(mmse, 0.0, 1.0)
        with np.errstate(divide="ignore", over="ignore"):
            return np.exp(-logs) / np.asarray(labels.precision(q, mmse)), mmse

    coarse = np.linspace(np.log(1e-12), np.log(1e6), 181)
    alpha, _ = evaluate(coarse)
    # the part on the axis, with a neighbour on either side
    on = np.flatnonzero((alpha <= 1.05 * high) & (alpha >= low))
    if not on.size:
        nothing = np.empty(0)
        return FixedPointCurve(nothing, nothing, nothing, np.empty(0, dtype=bool))
    first, last = max(on[0] - 1, 0), min(on[-1] + 1, coarse.size - 1)
    logs = np.linspace(coarse[first], coarse[last], _GRAIN)
    alpha, mmse = evaluate(logs)
    stable = np.gradient(alpha, logs) < 0.0
    return FixedPointCurve(np.exp(logs), alpha, mmse, stable)


# --------------------------------------------------------------------------------------------
# The point at alpha: fixed points, spectrum, landscape
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Law of the singular values of ``(S + sqrt(s) Z)/sqrt(d2)``, and the denoiser on it.

    Attributes
    ----------
    s : float
        Noise variance per entry.
    y : ndarray, shape (k,)
        Singular values, denser towards the edges of bulks.
    density : ndarray, shape (k,)
        Of singular values, atoms apart.
    denoised : ndarray, shape (k,)
        What the Bayes-optimal denoiser makes of y.
    edges : ndarray, shape (bulks, 2)
        Ends of the bulks.
    masses : ndarray, shape (bulks,)
        Share of the singular values in each.
    atoms : ndarray, shape (m, 2)
        Rows (y, mass).
    """

    s: float
    y: Array
    density: Array
    denoised: Array
    edges: Array
    masses: Array
    atoms: Array


def spectrum(prior: GaussianFactorPrior, s: float) -> Spectrum | None:
    """Return the law of the noisy signal and its denoiser.

    Parameters
    ----------
    prior : GaussianFactorPrior
        Law of the signal, with scalar parameters.
    s : float
        Noise variance per entry, in [0, inf].

    Returns
    -------
    Spectrum or None
        None without any signal, at infinite s.
    """
    if not math.isfinite(s):
        return None
    law = prior.law(s)
    edges, atoms = law.edges, law.atoms
    far = max([*edges.ravel().tolist(), *atoms[:, 0].tolist()])
    # cosines: a density vanishes like a square root at an edge
    unit = 0.5 - 0.5 * np.cos(np.linspace(0.0, np.pi, _GRAIN // 2))
    pieces = [low + (high - low) * unit for low, high in edges]
    y = np.unique(np.concatenate([*pieces, np.linspace(0.0, 1.12 * far, _GRAIN // 2)]))
    y = y[y > 0.0]
    rule = law.quadrature()
    counted = rule.weights[: rule.y.size - len(atoms)]
    places = rule.y[: counted.size]
    masses = [counted[(places >= a) & (places <= b)].sum() for a, b in edges]
    with np.errstate(divide="ignore", invalid="ignore"):
        density, denoised = np.asarray(law.density(y)), np.asarray(prior.shrink(y, s))
    return Spectrum(s, y, density, denoised, edges, np.array(masses), atoms)


@dataclass(frozen=True, eq=False)
class Exploration:
    """What a view shows.

    Attributes
    ----------
    view : View
        The parameters.
    curve : LearningCurve
        Errors against alpha.
    points : Branches
        The fixed points at alpha, by increasing error.
    free_entropies : ndarray, shape (k,)
        Free entropy of each fixed point; infinite where everything is known without noise.
    bayes, algorithm : int or None
        Which of the fixed points is Bayes-optimal, and on which message passing rests; None when
        none was found.
    spectrum : Spectrum or None
        Of the signal in the noise of the Bayes-optimal point; None when nothing is learned.
    error, free_entropy : ndarray, shape (k,)
        The landscape: free entropy in nats per ``d1 d2`` against ``1 - q``.
    """

    view: View
    curve: LearningCurve
    points: Branches
    free_entropies: Array
    bayes: int | None
    algorithm: int | None
    spectrum: Spectrum | None
    error: Array
    free_entropy: Array

    @property
    def status(self) -> Status:
        """How the calculation of the point at alpha ended."""
        if self.bayes is None:
            bad = self.points.status[self.points.status != Status.ABSENT]
            return Status(int(bad[0])) if bad.size else Status.NOT_CONVERGED
        return Status(int(self.points.status[self.bayes]))

    @property
    def failures(self) -> list[str]:
        """A sentence for each thing that could not be calculated."""
        found = []
        if not self.status.ok:
            found.append(f"No fixed point was found at alpha = {self.view.alpha:g}.")
        bad = self.curve.status >= Status.NOT_CONVERGED
        if bad.any():
            advice = Status(int(self.curve.status[bad][0])).advice
            found.append(f"{bad.sum()} of {bad.size} points of the curve are missing: {advice}")
        return found

    @property
    def summary(self) -> dict[str, float]:
        """The numbers of the point at alpha, by name."""
        names = ("mmse", "mmse_algorithm", "q", "s", "generalization_error", "free_entropy")
        values = dict.fromkeys(names, math.nan)
        if self.bayes is not None and self.algorithm is not None:
            at = self.points
            values["mmse"] = float(at.mmse[self.bayes])
            values["mmse_algorithm"] = float(at.mmse[self.algorithm])
            values["q"] = float(at.q[self.bayes])
            with np.errstate(divide="ignore"):
                values["s"] = float(1.0 / at.qhat[self.bayes])
            error = self.view.labels.generalization_error(values["q"], values["mmse"])
            values["generalization_error"] = float(error)
            values["free_entropy"] = float(self.free_entropies[self.bayes])
        values["alpha_LR"] = float(self._per_unknown(self.view.alpha))
        return values

    @property
    def phase(self) -> str:
        """A sentence about what can be learned at alpha."""
        values, strong = self.summary, self.curve.thresholds.strong_recovery
        if self.bayes is None:
            return "not solved"
        if values["mmse_algorithm"] > values["mmse"] * (1.0 + 1e-6):
            return "hard: message passing stays above the Bayes-optimal error"
        if self.status is Status.PERFECT_RECOVERY:
            return "easy: message passing recovers the signal perfectly"
        if self.status is Status.NO_RECOVERY:
            return "impossible: the labels teach nothing yet"
        if np.isfinite(strong):
            return "message passing is Bayes-optimal; perfect recovery needs more labels"
        return "easy: message passing is Bayes-optimal"

    def _per_unknown(self, alpha: Any) -> Any:
        """Return alpha_LR; 0 where there are infinitely many unknowns per entry."""
        if self.view.rho == np.inf:
            return 0.0 * alpha
        return alpha_low_rank(alpha, self.view.beta, self.view.rho)

    # ------------------------------------------------------------------------------ files

    def tables(self) -> dict[str, dict[str, Array]]:
        """Return everything that is drawn: columns by table.

        Returns
        -------
        dict of dict of ndarray
            ``curve``, ``fixed_point_curve``, ``fixed_points``, ``spectrum``, ``atoms`` and
            ``landscape``, each a table whose columns have one length.
        """
        curve, every, points = self.curve, self.curve.every, self.points
        law = self.spectrum
        errors = {
            "alpha": curve.alpha,
            "alpha_LR": np.asarray(self._per_unknown(curve.alpha)),
            "mmse_bayes": curve.mmse_bayes,
            "mmse_algorithm": curve.mmse_algorithm,
            "ridge": curve.ridge,
            "nuclear_norm": curve.nuclear_norm,
            "status": _names(curve.status),
        }
        found = points.status < Status.NOT_CONVERGED
        with np.errstate(divide="ignore"):
            fixed = {
                "mmse": points.mmse,
                "q": points.q,
                "s": 1.0 / points.qhat,
                "free_entropy": self.free_entropies,
                "slope": points.slope,
                "stable": points.stable,
                "status": _names(points.status),
            }
        empty = np.empty(0)
        return {
            "curve": {name: x for name, x in errors.items() if x is not None},
            "fixed_point_curve": {
                "alpha": every.alpha,
                "mmse": every.mmse,
                "s": every.s,
                "stable": every.stable,
            },
            "fixed_points": {name: x[found] for name, x in fixed.items()},
            "spectrum": {
                "y": law.y if law else empty,
                "density": law.density if law else empty,
                "denoised": law.denoised if law else empty,
            },
            "atoms": {
                "y": law.atoms[:, 0] if law else empty,
                "mass": law.atoms[:, 1] if law else empty,
            },
            "landscape": {"error": self.error, "free_entropy": self.free_entropy},
        }

    @property
    def attributes(self) -> dict[str, Any]:
        """The parameters, the numbers at alpha and the thresholds."""
        view, found = self.view, self.curve.thresholds
        names = [x.name for x in dataclasses.fields(found) if x.name != "status"]
        return {
            "channel": view.channel,
            "parameters": {name: getattr(view, name) for name in view.active},
            "solution": {**self.summary, "status": self.status.name.lower()},
            "thresholds": {name: float(getattr(found, name)) for name in names},
        }

    def to_json(self) -> str:
        """Return everything as JSON, which has no infinity: "inf" and "nan" stand for these.

        Returns
        -------
        str
            An object: parameters, solution, thresholds, one member a table, provenance.
        """
        parts = {**self.attributes, **self.tables()}
        parts["provenance"] = dataclasses.asdict(Provenance.collect())
        rows = (f"{json.dumps(key)}: {json.dumps(_plain(part))}" for key, part in parts.items())
        return "{\n" + ",\n".join(rows) + "\n}\n"

    def to_csv(self) -> str:
        """Return every curve and marked point as rows ``panel,curve,x,y`` below a commented head.

        Returns
        -------
        str
            ``pandas.read_csv(path, comment="#")`` reads it.
        """
        tables, attributes = self.tables(), self.attributes
        text = io.StringIO(newline="")
        origin = Provenance.collect()
        text.write(f"# bsr_theory {origin.package}, code {origin.code}\n")
        text.write(f"# channel = {attributes['channel']}\n")
        for part in ("parameters", "solution", "thresholds"):
            words = (f"{k} = {_word(v)}" for k, v in attributes[part].items())
            text.write(f"# {part}: {', '.join(words)}\n")
        for panel, meaning in _PANELS.items():
            text.write(f"# panel {panel}: {meaning}\n")
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("panel", "curve", "x", "y"))
        for panel, name, x, y in self._series(tables):
            for a, b in zip(x.tolist(), y.tolist(), strict=True):
                rows.writerow((panel, name, repr(a), repr(b)))
        return text.getvalue()

    def _series(self, tables: dict[str, dict[str, Array]]) -> list[tuple[str, str, Array, Array]]:
        """Return panel, name, x and y of everything drawn."""
        curve, every, fixed = (tables[x] for x in ("curve", "fixed_point_curve", "fixed_points"))
        law, atoms, landscape = (tables[x] for x in ("spectrum", "atoms", "landscape"))
        errors = [x for x in curve if x not in ("alpha", "alpha_LR", "status")]
        found = [("error", name, curve["alpha"], curve[name]) for name in errors]
        for name, wanted in (("stable", True), ("unstable", False)):
            on = every["stable"] == wanted
            found.append(("error", f"fixed_points_{name}", every["alpha"][on], every["mmse"][on]))
        found += [
            ("spectrum", "density", law["y"], law["density"]),
            ("spectrum", "atoms", atoms["y"], atoms["mass"]),
            ("denoiser", "denoised", law["y"], law["denoised"]),
            ("landscape", "free_entropy", landscape["error"], landscape["free_entropy"]),
        ]
        for name, wanted in (("stable", True), ("unstable", False)):
            on = fixed["stable"] == wanted
            values = fixed["mmse"][on], fixed["free_entropy"][on]
            found.append(("landscape", f"fixed_points_{name}", *values))
        return found

    def to_dataset(self) -> xr.Dataset:
        """Return everything as an xarray Dataset, one dimension a table.

        Returns
        -------
        xarray.Dataset
            Variables ``table_column``; parameters, thresholds and provenance as attributes.
        """
        import xarray as xr

        data = {
            f"{table}_{name}": (f"{table}_row", _storable(column))
            for table, columns in self.tables().items()
            for name, column in columns.items()
        }
        attributes = self.attributes
        flat = {
            name if part == "parameters" else f"{part}_{name}": value
            for part in ("parameters", "solution", "thresholds")
            for name, value in attributes[part].items()
        }
        origin = json.dumps(dataclasses.asdict(Provenance.collect()))
        title = "A view of the theory of bilinear sequence regression"
        return xr.Dataset(
            data,
            attrs={
                "title": title,
                "references": "arXiv:2410.18858",
                "channel": attributes["channel"],
                **flat,
                "provenance": origin,
            },
        )

    def to_netcdf(self) -> bytes:
        """Return the contents of the netCDF file of `to_dataset`.

        Returns
        -------
        bytes
            `bsr_theory.results.read_dataset` reads the file.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "explore.nc"
            write_dataset(self.to_dataset(), path)
            return path.read_bytes()


_PANELS = {
    "error": "x = alpha, samples per entry n/(d1 d2); y = error per entry, 1 - q",
    "spectrum": "x = singular value of (S + sqrt(s) Z)/sqrt(d2); y = density, or mass of an atom",
    "denoiser": "x = singular value; y = what the Bayes-optimal denoiser makes of it",
    "landscape": "x = error 1 - q; y = free entropy in nats per d1 d2",
}


def _names(status: npt.NDArray[np.int64]) -> Any:
    return np.array([Status(int(x)).name.lower() for x in status], dtype=str)


def _storable(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a column in a type that netCDF has."""
    if column.dtype.kind == "b":
        return column.astype(np.int8)
    return column.astype(object) if column.dtype.kind == "U" else column


def _word(value: Any) -> str:
    return " ".join(map(repr, value)) if isinstance(value, tuple) else str(value)


def _plain(value: Any) -> Any:
    """Return a value in terms of JSON."""
    if isinstance(value, np.ndarray | tuple):
        return [_plain(x) for x in (value.tolist() if isinstance(value, np.ndarray) else value)]
    if isinstance(value, dict):
        return {key: _plain(x) for key, x in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _free_entropies(problem: Problem, points: Branches) -> Array:
    """Return the free entropy of each fixed point, NaN where there is none."""
    out = np.full(points.status.shape, np.nan)
    for i, state in enumerate(points.status):
        if state == Status.PERFECT_RECOVERY:
            # (alpha - strong)/2 log(1/s) for s -> 0
            out[i] = np.inf if points.slope[i] <= 1.0 else -np.inf
        elif state < Status.NOT_CONVERGED:
            out[i] = free_entropy(problem, float(np.clip(points.q[i], 0.0, 1.0)))
    return out


def explore(view: View) -> Exploration:
    """Calculate everything that a view shows.

    Parameters
    ----------
    view : View
        The parameters.

    Returns
    -------
    Exploration
        Points that were not solved are NaN, and named in `Exploration.failures`.

    Examples
    --------
    >>> from bsr_theory.explore.model import View, explore
    >>> shown = explore(View(alpha=0.4, beta=2.0, rho=0.5, delta=0.1))
    >>> round(shown.summary["mmse"], 8), shown.phase
    (0.52696565, 'easy: message passing is Bayes-optimal')
    """
    problem = Problem(view.prior, view._quick, view.alpha)
    points = fixed_points(problem)
    entropies = _free_entropies(problem, points)
    found = np.flatnonzero(points.status < Status.NOT_CONVERGED)
    # where several are stable, the Bayes-optimal point has the largest free entropy
    stable = [int(i) for i in found if points.stable[i]] or [int(i) for i in found]
    bayes = max(found.tolist(), key=lambda i: entropies[i], default=None)
    algorithm = stable[-1] if stable else None
    with np.errstate(divide="ignore"):
        noise = math.inf if bayes is None else float(1.0 / points.qhat[bayes])
    low = min(_SMALLEST, *(0.1 * x for x in points.mmse[found] if x > 0.0), 1.0)
    error = np.geomspace(low, 1.0, _GRAIN) if view.log else np.linspace(0.0, 1.0, _GRAIN + 1)
    return Exploration(
        view=view,
        curve=learning_curve(view),
        points=points,
        free_entropies=entropies,
        bayes=bayes,
        algorithm=algorithm,
        spectrum=spectrum(view.prior, noise),
        error=error,
        free_entropy=np.asarray(free_entropy(problem, 1.0 - error)),
    )
