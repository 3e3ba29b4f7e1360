r"""Thresholds and phase diagrams, from the curve that holds every fixed point.

State evolution at noise ``s = 1/qhat`` says at which sampling ratio it rests there,

.. math:: \alpha(s) = \frac{1}{k\, s\, \mathrm{precision}(1 - M(s))},

with k the prior's `snr_per_alpha`.  One table of this curve answers for every alpha.

* Where alpha(s) decreases the fixed point is stable: such a part is a *branch*.  A branch ends at
  turning points of the curve, the spinodals.
* An uninformed iteration starts at large s and rests at the first branch, from large s down, that
  reaches up to its alpha: message passing jumps at local maxima.
* Two branches change order where their informations are equal.  A branch of smaller s wins from
  there on, since ``d i/d alpha`` is the information of one more label, which is less when more is
  known.
* Two limits of the curve are branches too: ``s -> inf`` (nothing is learned), stable below weak
  recovery, and ``s -> 0`` (everything is known), stable above strong recovery.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from numpy.polynomial import chebyshev
from scipy import special
from scipy.optimize import brentq, elementwise
from tqdm import tqdm

from ._arrays import (
    Array,
    Numeric,
    check_number,
    numbers,
    parameters,
    replace,
    scalar_or_array,
    select,
)
from .channels import Channel
from .priors import Prior
from .problem import Problem
from .results import Provenance, Status
from .state_evolution import (
    _BOTTOM,
    _MARGIN,
    _PANEL,
    _by_channel,
    _descend,
    _log_alpha,
    _Points,
    _root,
    _Table,
    solve,
)

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["CriticalPoint", "Thresholds", "critical_point", "phase_diagram", "thresholds"]

_Index = npt.NDArray[np.intp]

_LOW, _HIGH = np.log(1e-20), np.log(1e13)  # log s of the table of a curve
_LATEST = np.log(1e285)  # the largest such s, for the thinnest factors
_QUIET = 1e-3  # overlap from which on hardly anything is learned
_DEEP = np.log(1e-40)  # noise below which no alpha is told from strong recovery
_SHALLOW = 1e-9  # relative depth in alpha below which a wiggle of the curve is rounding
_STANDS_OUT = 10.0  # depth of a wiggle over the errors of a prior's mmse: below, it is one of them
_NOISY = 1e-3  # relative errors of alpha above which nothing is said of a curve
_FAR = 1e300  # noise at which the overlap of any prior is a multiple of 1/s
_DEAF = 1e-290  # precision of labels on which alpha would have to be near overflow
_BLIND = 1e-9  # precision at q = 0, relative to that elsewhere, below which it is 0
_FLAT = 1e-6  # third derivative of log alpha below which the curve has no inflection there
_RESIDUAL = 1e-13  # of a pixel: the evaluations of mmse are at their rounding there
_ACCEPT = 1e-11

EASY, HARD, IMPOSSIBLE = 0, 1, 2


# --------------------------------------------------------------------------------------------
# Results
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Thresholds:
    """Sampling ratios at which learning changes its nature.

    ``inf`` means that no finite alpha suffices, 0 that any does, NaN that there is no such
    transition.

    Attributes
    ----------
    weak_recovery : float or ndarray
        Above it an uninformed iteration leaves the overlap that is known without data: the linear
        stability of that point.  0 when the first labels teach something
        (``precision(0) > 0``), inf when the point is always stable.
    algorithmic : float or ndarray
        Last spinodal of the uninformed branch: message passing reaches the Bayes-optimal error
        from here on.  NaN without a first-order transition.
    information_theoretic : float or ndarray
        Where the Bayes-optimal error jumps past that spinodal: equal information of two branches,
        or strong recovery if that comes first.  NaN without a first-order transition.
    strong_recovery : float or ndarray
        Above it the Bayes-optimal error is zero: degrees of freedom over what a label
        resolves.  inf with noise, and for labels that never determine h.
    strong_recovery_algorithmic : float or ndarray
        Above it the error of message passing is zero; larger than `strong_recovery` exactly when
        a first-order transition is in its way.
    informed_spinodal : float or ndarray
        Where the fixed point that wins at `information_theoretic` or one that follows it first
        exists; an iteration that starts from the signal finds it from here on.  NaN without a
        first-order transition.
    status : Status or ndarray
        `Status.CONVERGED` with a first-order transition, `Status.ABSENT` without,
        `Status.INVALID_INPUT` for parameters that are NaN or out of their range,
        `Status.NOT_CONVERGED` if numerical errors of a prior's mmse hide the transitions,
        informations overflow, or the precision of labels at the noise 1/rho underflows.
    """

    weak_recovery: Any
    algorithmic: Any
    information_theoretic: Any
    strong_recovery: Any
    strong_recovery_algorithmic: Any
    informed_spinodal: Any
    status: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the fields, () for scalar parameters."""
        return np.shape(self.weak_recovery)


@dataclass(frozen=True)
class CriticalPoint:
    """Where a first-order transition ends: its two spinodals and its Maxwell line meet.

    Attributes
    ----------
    parameter : str
        Name of the parameter that was varied.
    value : float
        Its critical value.
    alpha : float
        Sampling ratio of the point.
    s, q, mmse : float
        Noise of the denoising problem, overlap and error there.
    """

    parameter: str
    value: float
    alpha: float
    s: float
    q: float
    mmse: float


# --------------------------------------------------------------------------------------------
# The curve alpha(s) of one prior and one channel
# --------------------------------------------------------------------------------------------


class _Denoising(_Table):
    """Error and overlap of one prior at every noise at which something is learned."""

    def __init__(self, prior: Prior) -> None:
        high = _quiet(prior)
        edge = float(_vanishing(prior, np.full(1, high))[0])
        if edge < high:
            # the overlap vanishes there: panels that shrink towards it
            count = int(np.ceil((edge - _LOW) / _PANEL))
            start = np.linspace(_LOW, edge - _PANEL, count)
            ends = np.concatenate([start, edge - _PANEL * 0.5 ** np.arange(1, 31)])
        else:
            ends = np.linspace(_LOW, high, int(np.ceil((high - _LOW) / _PANEL)) + 1)
        super().__init__(prior, ends)
        # not so for widths whose inverse is near overflow
        self.complete = bool(self.q[-1] - float(np.asarray(prior.prior_overlap)) <= _QUIET)


class _Interpolated:
    """Answers of one channel by interpolation: for channels that take long.

    A polynomial in q where q is small.  Beyond, Chebyshev panels in log(q/(1 - q)), whose poles
    are at a distance of pi; they widen where the precision nears a power of 1 - q.  Many values of
    a parameter, such as the noise of the lines of a phase diagram, share the nodes of one
    polynomial in its logarithm.
    """

    _START, _ORDER, _WIDTH, _END = 0.02, 16, 3.0, 690.0
    # error above which a panel is halved, at which the next may be twice as wide, and of sharing
    _ENOUGH = 1e-10

    def __init__(
        self, channel: Channel, first: float, start: Array, ends: Array, panels: Array
    ) -> None:
        self.channel, self.ends = channel, ends
        self.unit, self.basis = _chebyshev(self._ORDER)
        # labels that teach nothing at first: the precision is q times a polynomial
        self.blind = first <= _BLIND * start[-1]
        values = start / (self._START * self.unit) if self.blind else start
        self.small = chebyshev.Chebyshev(self.basis @ values, [0.0, self._START])
        line = chebyshev.Chebyshev([0.5 * self._START] * 2, [0.0, self._START])
        self.small_area = (self.small * line if self.blind else self.small).integ(lbnd=0.0)
        self.log = self.basis @ np.log(panels)
        # the integral of precision dq = precision q (1 - q) d log(q/(1 - q))
        width = np.diff(ends)
        x = ends[:-1] + width * self.unit[:, None]
        density = self.basis @ (panels * special.expit(x) * special.expit(-x))
        self.area = chebyshev.chebint(density, lbnd=-1, axis=0) * 0.5 * width
        steps = np.cumsum(chebyshev.chebval(1.0, self.area))
        self.area[0] += self.small_area(self._START) + np.append(0.0, steps[:-1])

    @classmethod
    def of(cls, channel: Channel, count: int) -> list[_Interpolated]:
        """Return the table of each of ``count`` channels, whose parameters are an array."""
        if count == 1:
            arrays = {k: x for k, x in vars(channel).items() if isinstance(x, np.ndarray)}
            return [_table(replace(channel, **{k: x.item() for k, x in arrays.items()}))]
        first = np.broadcast_to(channel.precision(0.0, 1.0), (count,))
        few, matrix, tail = _few(channel, count)
        start, ends, panels = cls._sums(few, tail.shape[0])
        if few is not channel:
            logs = [np.log(start), np.log(panels)]
            if max(np.max(np.abs(x @ tail)) for x in logs) < cls._ENOUGH:
                start, panels = (np.exp(x @ matrix) for x in logs)
            else:
                start, ends, panels = cls._sums(channel, count)
        each = [select(channel, (count,), np.array([i])) for i in range(count)]
        return [
            cls(each[i], float(first[i]), start[:, i], ends, panels[..., i]) for i in range(count)
        ]

    @classmethod
    def _sums(cls, channel: Channel, count: int) -> tuple[Array, Array, Array]:
        """Return the precision at the nodes of small q, the panels, and the precision on them.

        The channels are the last axis, the nodes the first.
        """
        unit, basis = _chebyshev(cls._ORDER)
        answer = getattr(channel, "_summed_precision", channel.precision)

        def precision(q: Array, v: Array) -> Array:
            return np.broadcast_to(answer(q[:, None], v[:, None]), (q.size, count))

        start = precision(cls._START * unit, 1.0 - cls._START * unit)
        ends, width = [float(special.logit(cls._START))], cls._WIDTH
        panels = []
        while ends[-1] < cls._END:
            x = ends[-1] + width * unit
            values = precision(special.expit(x), special.expit(-x))
            size = np.max(np.abs(basis @ np.log(values)), axis=1)
            if np.max(size[-2:]) > cls._ENOUGH and width > cls._WIDTH:
                width *= 0.5
                continue
            panels.append(values)
            ends.append(ends[-1] + width)
            # half of the order is enough here
            if np.max(size[cls._ORDER // 2 :]) < 0.01 * cls._ENOUGH:
                width *= 2.0
            width = min(width, cls._END - ends[-1])
        return start, np.array(ends), np.stack(panels, axis=1)

    def _split(self, q: Array, v: Array) -> tuple[npt.NDArray[np.bool_], _Index, Array]:
        """Return where q is small, and elsewhere the panel and the place in it."""
        with np.errstate(divide="ignore"):
            x = np.clip(np.log(q) - np.log(v), self.ends[0], self.ends[-1])
        panel = np.clip(np.searchsorted(self.ends, x) - 1, 0, self.ends.size - 2)
        low, high = self.ends[panel], self.ends[panel + 1]
        return q < self._START, panel, (2.0 * x - low - high) / (high - low)

    def precision(self, q: Array, v: Array) -> Array:
        """Return the precision at overlaps q = 1 - v."""
        small, panel, place = self._split(q, v)
        beyond = np.exp(chebyshev.chebval(place, self.log[:, panel], tensor=False))
        near = np.where(small, q, 0.0)
        return np.where(small, self.small(near) * (near if self.blind else 1.0), beyond)

    def information(self, q: Array, v: Array) -> Array:
        """Return the information at overlaps q = 1 - v, less that at q = 0."""
        small, panel, place = self._split(q, v)
        beyond = chebyshev.chebval(place, self.area[:, panel], tensor=False)
        return -0.5 * np.where(small, self.small_area(np.where(small, q, 0.0)), beyond)

    def generalization_error(self, q: Array, v: Array) -> Array:
        """Return the prediction error at overlaps q = 1 - v, tabulated on the panels they need."""
        small, panel, place = self._split(q, v)
        out = np.empty(q.shape)
        if small.any():
            nodes = self._START * self.unit
            values = self.basis @ self.channel.generalization_error(nodes, 1.0 - nodes)
            out[small] = chebyshev.chebval(2.0 * q[small] / self._START - 1.0, values)
        for k in np.unique(panel[~small]):
            here = ~small & (panel == k)
            x = self.ends[k] + (self.ends[k + 1] - self.ends[k]) * self.unit
            values = self.channel.generalization_error(special.expit(x), special.expit(-x))
            out[here] = chebyshev.chebval(place[here], self.basis @ values)
        return out


@functools.lru_cache(maxsize=256)
def _table(channel: Channel) -> _Interpolated:
    """Return the table of a channel with scalar parameters."""
    start, ends, panels = _Interpolated._sums(channel, 1)
    first = float(channel.precision(0.0, 1.0))
    return _Interpolated(channel, first, start[:, 0], ends, panels[..., 0])


def _chebyshev(order: int) -> tuple[Array, Array]:
    """Return the nodes in [0, 1], and the matrix from values there to coefficients."""
    angle = np.pi * (np.arange(order, -1, -1) + 0.5) / (order + 1)
    basis = np.cos(np.outer(np.arange(order + 1), angle)) * 2.0 / (order + 1)
    basis[0] *= 0.5
    return 0.5 + 0.5 * np.cos(angle), basis


def _few(channel: Channel, count: int) -> tuple[Channel, Array, Array]:
    """Return few channels that tell of many, which differ in one parameter.

    Also the matrix from the logarithms of their answers to those of the many, and the one to the
    last Chebyshev coefficients in the logarithm of the parameter.  Answers depend on the noise
    ``delta`` by way of ``v + delta`` and ``1 + delta``: singularities are at the distance pi.
    """
    varied = {
        k: x.ravel() for k, x in vars(channel).items() if isinstance(x, np.ndarray) and x.ndim
    }
    every = (channel, np.eye(count), np.zeros((count, 2)))
    if len(varied) != 1:
        return every
    ((name, value),) = varied.items()
    # 0 has no logarithm and is kept
    kept, inner = np.flatnonzero(~(value > 0.0)), np.flatnonzero(value > 0.0)
    if not inner.size:
        return every
    low, high = np.log(value[inner].min()), np.log(value[inner].max())
    half = 0.5 * (high - low)
    order = int(np.ceil(-np.log(1e-12) / np.arcsinh(np.pi / max(half, 1e-3))))
    if order + 1 >= inner.size:
        return every
    unit, basis = _chebyshev(order)
    size = kept.size + order + 1
    matrix, tail = np.zeros((size, count)), np.zeros((size, 2))
    matrix[np.arange(kept.size), kept] = 1.0
    place = np.clip((np.log(value[inner]) - low) / half - 1.0, -1.0, 1.0)
    matrix[kept.size :, inner] = basis.T @ chebyshev.chebvander(place, order).T
    tail[kept.size :] = basis[-2:].T
    nodes = np.concatenate([value[kept], np.exp(low + 2.0 * half * unit)])
    return replace(channel, **{name: nodes}), matrix, tail


class _Family:
    """Curves of many priors and channels: their exact points, quickly."""

    def __init__(self, points: _Points) -> None:
        self.points = points
        self.tables: list[_Interpolated] = []
        self.of = np.full(points.alpha.size, -1, dtype=np.intp)
        # the others' labels teach nothing at any alpha that is a number
        self.teaches = points.valid.copy()
        index = np.flatnonzero(points.valid)
        if index.size:
            _, channel = points.at(index)
            self.teaches[index] = np.asarray(channel.precision(1.0, 0.0)) > _DEAF
        if not getattr(points.channel, "_costly", False):
            return
        groups = [g for g in _by_channel(points, np.flatnonzero(self.teaches)) if g.size]
        for number, group in enumerate(groups):
            self.of[group] = number
        if groups:
            kinds = np.array([group[0] for group in groups])
            channel = select(points.channel, points.shape, kinds)
            self.tables = _Interpolated.of(channel, kinds.size)

    def log_alpha(
        self, logs: Array, mmse: Array, q: Array, prior: Prior, channel: Channel, row: _Index
    ) -> Array:
        """Return log alpha(s) from s and the error and overlap there."""
        if not self.tables:
            return _log_alpha(prior, channel, logs, mmse, q)
        k = self.points.k[row]
        with np.errstate(divide="ignore", invalid="ignore"):  # alpha is infinite, at q = 0 say
            return np.asarray(-logs - np.log(self.precision(q, mmse, row)) - np.log(k))

    def precision(self, q: Array, v: Array, row: _Index) -> Array:
        """Return the precision of the channels at overlaps q; all three broadcast."""
        q, v, row = np.broadcast_arrays(q, v, row)
        if self.tables:
            return self._each(_Interpolated.precision, q, v, row)
        channel = select(self.points.channel, self.points.shape, row.ravel())
        values = np.asarray(channel.precision(q.ravel(), v.ravel()))
        return np.broadcast_to(values, row.size).reshape(row.shape)

    def _each(self, what: Any, q: Array, v: Array, row: _Index) -> Array:
        """Return an answer of the channels' tables."""
        q, v = np.clip(q, 0.0, 1.0), np.clip(v, 0.0, 1.0)
        of = self.of[row]
        if of.size and np.all(of == of.flat[0]):
            return np.asarray(what(self.tables[of.flat[0]], q, v))
        out = np.empty(q.shape)
        for table in np.unique(of):
            where = of == table
            out[where] = what(self.tables[table], q[where], v[where])
        return out

    def evaluate(self, logs: Array, row: _Index) -> tuple[Array, Array, Array]:
        """Return log alpha(s), error and overlap."""
        prior, channel = self.points.at(row)
        with np.errstate(over="ignore"):
            mmse, q = prior.mmse_and_overlap(np.exp(logs))
        return self.log_alpha(logs, mmse, q, prior, channel, row), mmse, q

    def generalization_error(self, q: Array, mmse: Array, row: _Index) -> Array:
        """Return the error of the prediction of a new label."""
        if self.tables:
            return self._each(_Interpolated.generalization_error, q, mmse, row)
        prior, channel = self.points.at(row)
        most = np.asarray(prior.second_moment)
        q, mmse = np.clip(q, 0.0, most), np.clip(mmse, 0.0, most)
        return np.asarray(channel.generalization_error(q, mmse))

    def information(self, log_alpha: float, logs: Array, row: _Index) -> Array:
        """Return the information i at fixed points, in nats per d1 d2, up to a constant."""
        prior, channel = self.points.at(row)
        mmse, q = prior.mmse_and_overlap(np.exp(logs))
        qhat = np.exp(-logs)
        signal = np.asarray(prior.information(qhat)) - 0.5 * qhat * mmse
        if self.tables:
            labels = self._each(_Interpolated.information, q, mmse, row)
        else:
            labels = np.asarray(channel.information(q, mmse))
        return np.asarray(signal + np.exp(log_alpha) * self.points.k[row] * labels)


def _quiet(prior: Prior) -> float:
    """Return log s at which hardly anything is learned, later than usual for thin factors."""
    high, known = float(_HIGH), float(np.asarray(prior.prior_overlap))
    while high < _LATEST and float(prior.mmse_and_overlap(np.exp(high))[1]) - known > _QUIET:
        high += 20.0
    return high


def _vanishing(prior: Prior, high: Array) -> Array:
    """Return log s from which on the overlap is that of the prior, ``high`` if there is none."""
    low, known = np.full(high.shape, _LOW), prior.prior_overlap
    _, q = prior.mmse_and_overlap(np.exp(high))
    if not np.any(q <= known):
        return high
    top = high.copy()
    for _ in range(60):
        middle = 0.5 * (low + top)
        learned = prior.mmse_and_overlap(np.exp(middle))[1] > known
        low, top = np.where(learned, middle, low), np.where(learned, top, middle)
    return np.where(q <= known, top, high)


class _Curve:
    """Table of log alpha(s) against log s, cut into branches.

    Branches are numbered from large s down.  Number 0 is the point where nothing is learned, the
    last one perfect recovery; ``top`` and ``bottom`` bound the log alpha at which each one is
    stable, ``left`` and ``right`` its log s.
    """

    def __init__(
        self, table: _Denoising, values: Array, weak: float, strong: float, depth: float
    ) -> None:
        self.log_alpha = table.interpolate(values)
        self.slope = self.log_alpha.derivative()
        self.logs, self.values = table.logs, values
        with np.errstate(divide="ignore"):
            self.weak, self.strong = float(np.log(weak)), float(np.log(strong))
        turns = self.slope.roots(extrapolate=False)
        turns = np.unique(turns[np.isfinite(turns)])
        # its limits on both sides belong to the curve
        first, last = self.logs[0], self.logs[-1]
        at = np.concatenate([[-np.inf, first], turns, [last, np.inf]])
        height = np.concatenate(
            [[self.strong, values[0]], self.log_alpha(turns), [values[-1], self.weak]]
        )
        kept = _zigzag(height, depth)
        self.at, self.height = at[kept], height[kept]
        self.turning = np.isfinite(self.at) & np.isin(self.at, turns)

    def cut(self) -> None:
        """Cut the curve into branches at its extrema, once these are exact."""
        falls = np.flatnonzero(np.diff(self.height) < 0.0)[::-1]
        self.left = np.concatenate([[np.inf], self.at[falls], [-np.inf]])
        self.right = np.concatenate([[np.inf], self.at[falls + 1], [-np.inf]])
        self.top = np.concatenate([[self.weak], self.height[falls], [np.inf]])
        self.bottom = np.concatenate([[-np.inf], self.height[falls + 1], [self.strong]])
        self.rises = np.flatnonzero(np.diff(self.height) > 0.0)

    @property
    def perfect(self) -> int:
        """Number of the branch of perfect recovery."""
        return self.top.size - 1

    def invert(self, branch: int, log_alpha: Array) -> Array:
        """Return log s on a branch by interpolation, for log alpha within its range."""
        left = max(self.left[branch], self.logs[0])
        right = min(self.right[branch], self.logs[-1])
        inner = (self.logs > left) & (self.logs < right)
        logs = np.concatenate([[left], self.logs[inner], [right]])
        values = np.concatenate(
            [self.log_alpha(left)[None], self.values[inner], self.log_alpha(right)[None]]
        )
        values = np.minimum.accumulate(values)
        # the interval between nodes that holds log alpha, then Newton steps inside it
        j = np.clip(np.searchsorted(-values, -log_alpha, side="right"), 1, logs.size - 1)
        low, high = logs[j - 1], logs[j]
        x = 0.5 * (low + high)
        for _ in range(50):
            error = self.log_alpha(x) - log_alpha
            low, high = np.where(error > 0.0, x, low), np.where(error < 0.0, x, high)
            with np.errstate(divide="ignore", invalid="ignore"):
                new = x - error / self.slope(x)
            new = np.where((new >= low) & (new <= high), new, 0.5 * (low + high))
            moved, x = np.abs(new - x), new
            if np.all(moved <= 1e-11):
                break
        return np.asarray(x)

    def uninformed(self, log_alpha: Array) -> _Index:
        """Return the branch on which an iteration from the prior's mean rests."""
        return np.asarray(np.argmax(log_alpha[:, None] < self.top, axis=1))

    def bayes(self, log_alpha: Array, crossing: Array) -> _Index:
        """Return the branch of least information; ``crossing[b, c]`` is where c overtakes b."""
        best = np.full(log_alpha.shape, -1, dtype=np.intp)
        for branch in range(self.top.size):
            alive = (log_alpha >= self.bottom[branch]) & (log_alpha < self.top[branch])
            best[alive & ((best < 0) | (log_alpha >= crossing[best, branch]))] = branch
        return best


def _zigzag(height: Array, depth: float) -> _Index:
    """Return the first index, the extrema that stand out by more than ``depth``, and the last."""
    kept = [0]
    high = low = 0  # highest and lowest point since the last extremum that was kept
    direction = 0
    for i in range(1, height.size):
        if height[i] > height[high]:
            high = i
        if height[i] < height[low]:
            low = i
        if direction >= 0 and height[i] < height[high] - depth:
            if height[high] > height[kept[-1]] + depth:
                kept.append(high)
            direction, high, low = -1, i, i
        elif direction <= 0 and height[i] > height[low] + depth:
            if height[low] < height[kept[-1]] - depth:
                kept.append(low)
            direction, high, low = 1, i, i
    last = height.size - 1
    if kept[-1] != last:
        kept.append(last)
    return np.array(kept, dtype=np.intp)


# --------------------------------------------------------------------------------------------
# Many curves
# --------------------------------------------------------------------------------------------


def _weak_recovery(family: _Family) -> Array:
    """Return the alpha at which the point without learning becomes unstable."""
    points = family.points
    index = np.flatnonzero(family.teaches)
    weak = np.where(points.valid, np.inf, np.nan)
    if not index.size:
        return weak
    prior, _ = points.at(index)
    least, most = np.asarray(prior.prior_overlap), np.asarray(prior.second_moment)
    half = 0.5 * (most - least)
    first = family.precision(least, most - least, index)
    scale = family.precision(least + half, half, index)
    top = np.full(index.size, _HIGH)
    edge = _vanishing(prior, top)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        learns = np.where(edge < top, np.exp(-edge) / first, 0.0)
        # precision vanishes with q: its slope, times the overlap that qhat buys
        step = 1e-4 * np.arange(1.0, 7.0)[:, None]
        ratio = family.precision(step, most - step, index) / step
        slope = np.array([6.0, -15.0, 20.0, -15.0, 6.0, -1.0]) @ ratio
        far = _FAR
        one, two = (prior.mmse_and_overlap(s)[1] * s for s in (0.5 * far, far))
        gain = np.where(np.abs(two - one) < 0.1 * two, 2.0 * two - one, 0.0)
        blind = 1.0 / (np.maximum(slope, 0.0) * gain)
        found = np.where(first > _BLIND * scale, learns, blind) / points.k[index]
    weak[index] = found
    return weak


def _curves(
    family: _Family, weak: Array, progress: bool, known: _Denoising | None = None
) -> list[_Curve | None]:
    """Return the curve of every valid point whose prior's mmse is smooth.

    ``known``: the table of the prior, if all points have the same and it was made before.
    """
    points = family.points
    curves: list[_Curve | None] = [None] * points.alpha.size
    groups = points.groups(np.flatnonzero(family.teaches))
    for group in _bar(groups, "curves", progress):
        table = known or _Denoising(points.shared_prior(group))
        for at in group:
            channel = select(points.channel, points.shape, np.array([at]))
            row = np.full(table.logs.size, at)
            with np.errstate(divide="ignore", invalid="ignore"):
                values = family.log_alpha(
                    table.logs, table.mmse, table.q, table.prior, channel, row
                )
                noise = table.noise(values)
            if np.isfinite(values).all() and noise <= _NOISY and table.complete:
                depth = max(_SHALLOW, _STANDS_OUT * noise)
                strong = float(points.strong[at])
                curves[at] = _Curve(table, values, float(weak[at]), strong, depth)
    _polish(family, [curve for curve in curves if curve is not None], curves)
    for curve in curves:
        if curve is not None:
            curve.cut()
    return curves


def _polish(family: _Family, every: Sequence[_Curve], curves: Sequence[_Curve | None]) -> None:
    """Replace the interpolated turning points by those of the exact curve."""
    rows = [row for row, curve in enumerate(curves) if curve is not None]
    where = [
        (row, curve, int(j))
        for row, curve in zip(rows, every, strict=True)
        for j in np.flatnonzero(curve.turning)
    ]
    if not where:
        return
    row = np.array([at for at, _, _ in where], dtype=np.intp)
    at = np.array([curve.at[j] for _, curve, j in where])
    sign = np.array([1.0 if _is_minimum(curve.height, j) else -1.0 for _, curve, j in where])
    index = np.arange(row.size)

    def height(x: Array, i: _Index) -> Array:
        return np.asarray(sign[i] * family.evaluate(x, row[i])[0])

    value = height(at, index)
    for radius in (0.03, 0.3):
        found = elementwise.find_minimum(
            height,
            (at - radius, at, at + radius),
            args=(index,),
            tolerances={"xatol": 1e-7, "xrtol": 0.0, "fatol": 0.0, "frtol": 0.0},
        )
        better = found.success & (found.f_x < value)
        at, value = np.where(better, found.x, at), np.where(better, found.f_x, value)
    for (_, curve, j), x, y in zip(where, at, sign * value, strict=True):
        curve.at[j], curve.height[j] = x, y


def _is_minimum(height: Array, j: int) -> bool:
    return bool(height[j] < height[j - 1] or height[j] < height[j + 1])


def _bar(work: Iterable[Any], what: str, progress: bool) -> Iterable[Any]:
    """Wrap work that takes seconds in a progress bar, shown on a terminal only."""
    bar: Iterable[Any] = tqdm(work, desc=what, leave=False, disable=None if progress else True)
    return bar


# --------------------------------------------------------------------------------------------
# Information of branches
# --------------------------------------------------------------------------------------------


def _on_branch(points: _Points, row: int, curve: _Curve, branch: int, log_alpha: float) -> float:
    """Return log s of a branch at log alpha, inf where nothing is learned."""
    if branch > 0:
        return float(curve.invert(branch, np.array([log_alpha]))[0])
    prior, channel = points.at(np.array([row]))
    least, most = np.asarray(prior.prior_overlap), np.asarray(prior.second_moment)
    first = np.asarray(channel.precision(least, most - least))
    with np.errstate(divide="ignore"):
        return float(-log_alpha - np.log(np.ravel(first * points.k[row])[0]))


class _Undecided(ArithmeticError):
    """Informations that overflow, so that branches cannot be compared."""


def _crossings(family: _Family, row: int, curve: _Curve) -> Array:
    """Return log alpha from which on branch c has less information than branch b < c."""
    count = curve.top.size
    crossing = np.full((count, count), np.inf)
    for b in range(count):
        for c in range(b + 1, count):
            low = max(curve.bottom[b], curve.bottom[c])
            high = min(curve.top[b], curve.top[c])
            # without noise the information of perfect recovery is -inf
            one = c == curve.perfect or high <= low
            crossing[b, c] = low if one else _maxwell(family, row, curve, b, c, low, high)
    return crossing


def _maxwell(
    family: _Family, row: int, curve: _Curve, b: int, c: int, low: float, high: float
) -> float:
    """Return log alpha in (low, high) where branches b and c have equal information.

    The information is stationary along each branch, so interpolated places of the fixed points
    give it to the square of their error.
    """

    def excess(log_alpha: float) -> float:
        pair = [_on_branch(family.points, row, curve, n, log_alpha) for n in (b, c)]
        with np.errstate(over="ignore", invalid="ignore"):
            first, second = family.information(log_alpha, np.array(pair), np.full(2, row))
            difference = float(second - first)
        if math.isnan(difference):
            raise _Undecided
        return difference

    if not np.isfinite(high):
        step = 0.1
        while excess(low + step) > 0.0:
            step *= 2.0
            if low + step > curve.values[0]:
                return np.inf
        high = low + step
    inset = 1e-14 * (1.0 + abs(low))
    low, high = low + inset, high - inset
    if high <= low or excess(low) <= 0.0:
        return low
    if excess(high) >= 0.0:
        return np.inf
    return float(brentq(excess, low, high, xtol=1e-14, rtol=1e-14))


# --------------------------------------------------------------------------------------------
# Thresholds
# --------------------------------------------------------------------------------------------


def thresholds(prior: Prior, channel: Channel) -> Thresholds:
    r"""Return the weak, algorithmic, information-theoretic and strong recovery thresholds.

    Parameters
    ----------
    prior : Prior
        Parameters may be arrays, which broadcast with those of the channel.
    channel : Channel
        Parameters may be arrays.

    Returns
    -------
    Thresholds
        Sampling ratios (``alpha_LR`` for a `LowRankFactorPrior`), of the common shape.

    Raises
    ------
    ValueError
        If shapes do not broadcast.

    Notes
    -----
    All are read off the curve :math:`\alpha(s) = 1/(k s\,\mathrm{precision}(1 - M(s)))`: weak
    recovery is its limit for ``s -> inf`` (or where the overlap vanishes), strong recovery that
    for ``s -> 0``, the algorithmic threshold its highest turning point.  The
    information-theoretic one is where the branches on both sides of that turning point have equal
    information :math:`i = I_S(\hat q) - \hat q(1-q)/2 + k\alpha\,\mathrm{information}(q)`.
    Without noise perfect recovery has ``i = -inf``, so that it wins as soon as the labels that
    resolve h outnumber the degrees of freedom.

    With several first-order transitions these are the thresholds of the last one, beyond which
    there is a single fixed point.

    References
    ----------
    arXiv:2410.18858 (the prior and its state evolution); J. Barbier, F. Krzakala, N. Macris,
    L. Miolane, L. Zdeborova, arXiv:1708.03395 (the phases of generalised linear models).

    Examples
    --------
    >>> import bsr_theory as bsr
    >>> from bsr_theory.phases import thresholds
    >>> found = thresholds(bsr.GaussianFactorPrior(beta=2.0, rho=0.5), bsr.GaussianChannel())
    >>> found.weak_recovery, found.strong_recovery, found.status.name
    (0.0, 0.625, 'ABSENT')
    >>> thresholds(bsr.LowRankFactorPrior(beta=1.0), bsr.GaussianChannel([0.0, 1.0])).weak_recovery
    array([0.5, 1. ])
    """
    points = _Points(Problem(prior, channel, 1.0))
    fields, status, _ = _thresholds(_Family(points), progress=False)
    columns = [scalar_or_array(x.reshape(points.shape)) for x in (*fields.values(), status)]
    if not points.shape:
        columns[-1] = Status(columns[-1])
    return Thresholds(*columns)


_FIELDS = tuple(field.name for field in dataclasses.fields(Thresholds))[:-1]


def _thresholds(
    family: _Family, *, progress: bool
) -> tuple[dict[str, Array], npt.NDArray[np.int64], list[tuple[_Curve, Array] | None]]:
    """Return the thresholds and their status, and each curve with its crossings."""
    points = family.points
    size = points.alpha.size
    found = {name: np.full(size, np.nan) for name in _FIELDS}
    weak = _weak_recovery(family)
    strong = np.where(points.valid, points.strong, np.nan)
    status = np.where(points.valid, int(Status.ABSENT), int(Status.INVALID_INPUT))
    found |= {"weak_recovery": weak, "strong_recovery": strong}
    found["strong_recovery_algorithmic"] = strong.copy()
    out: list[tuple[_Curve, Array] | None] = [None] * size
    if points.channel.single_fixed_point:
        return found, status, out
    curves = _curves(family, weak, progress)
    for row, curve in _bar(enumerate(curves), "informations", progress):
        if curve is None:
            if family.teaches[row]:
                status[row] = Status.NOT_CONVERGED
            continue
        try:
            crossing = _crossings(family, row, curve)
        except _Undecided:
            status[row] = Status.NOT_CONVERGED
            continue
        out[row] = (curve, crossing)
        if not curve.rises.size:
            continue
        status[row] = Status.CONVERGED
        values = _first_order(curve, crossing)
        for name, value in values.items():
            with np.errstate(over="ignore"):  # an alpha beyond doubles
                found[name][row] = strong[row] if value == curve.strong else np.exp(value)
        if np.isfinite(strong[row]):
            found["strong_recovery_algorithmic"][row] = max(strong[row], found["algorithmic"][row])
    return found, status, out


def _first_order(curve: _Curve, crossing: Array) -> dict[str, float]:
    """Return log alpha of the three thresholds of the last first-order transition."""
    peaks = curve.rises + 1
    peak = peaks[np.argmax(curve.height[peaks])]
    place, top = curve.at[peak], curve.height[peak]
    informed = float(np.min(curve.height[:peak]))
    if abs(informed - curve.strong) < _SHALLOW:
        informed = curve.strong
    # the optimum changes branch at a crossing, or where a branch begins or ends
    events = np.concatenate([crossing.ravel(), curve.bottom, curve.top])
    events = np.unique(events[(events >= informed) & (events <= top)])
    beyond = (curve.right <= place) & (curve.left < np.inf)
    best = curve.bayes(events, crossing)
    first = np.flatnonzero(beyond[best] & (best >= 0))
    transition = float(events[first[0]]) if first.size else float(top)
    return {
        "algorithmic": float(top),
        "information_theoretic": transition,
        "informed_spinodal": informed,
    }


# --------------------------------------------------------------------------------------------
# The end of a first-order transition
# --------------------------------------------------------------------------------------------


def critical_point(
    prior: Prior,
    channel: Channel,
    *,
    low: float,
    high: float,
    parameter: str = "delta",
    tolerance: float = 1e-9,
) -> CriticalPoint:
    """Return where a first-order transition ends as a parameter is varied.

    Parameters
    ----------
    prior : Prior
        With scalar parameters.
    channel : Channel
        With scalar parameters.
    low, high : float
        Values of the parameter with the transition on one side and none on the other.
    parameter : str
        Field of the channel or else of the prior that is varied; its own value is ignored.
    tolerance : float
        Relative accuracy of the critical value that is aimed at.

    Returns
    -------
    CriticalPoint
        The cusp of the two spinodals.

    Raises
    ------
    ValueError
        If there is no such parameter, parameters are arrays, low or high is not finite or out of
        its range, both or neither of them have a first-order transition, or it has no cusp.

    Notes
    -----
    At the cusp ``alpha(s)`` has a horizontal inflection: the steepest ascent of the unstable part
    is followed until it is 0.  A transition that becomes continuous, at a tricritical
    point where its jump starts from no overlap, has no cusp.

    Examples
    --------
    >>> import bsr_theory as bsr
    >>> from bsr_theory.phases import critical_point
    >>> prior, channel = bsr.GaussianFactorPrior(beta=2.0, rho=0.5), bsr.GaussianChannel()
    >>> critical_point(prior, channel, low=0.1, high=1.0)
    Traceback (most recent call last):
    ...
    ValueError: one of low=0.1 and high=1.0 must have a first-order transition and the other none
    """
    if prior.shape or channel.shape:
        raise ValueError("the parameters of prior and channel must be scalars here")
    if parameter not in parameters(channel) + parameters(prior):
        raise ValueError(
            f"parameter must be a field of {prior!r} or {channel!r}, got {parameter!r}"
        )
    low, high = check_number("low", low, low=-np.inf), check_number("high", high, low=-np.inf)
    tolerance = check_number("tolerance", tolerance, open_low=True)

    # of the prior, where it is the same on the whole line
    denoising = _Denoising(prior) if parameter in parameters(channel) else None

    def curve(value: float) -> _Curve:
        points = _Points(_replace(Problem(prior, channel, 1.0), **{parameter: value}))
        family = _Family(points)
        only = _curves(family, _weak_recovery(family), False, denoising)[0]
        if only is None and family.teaches[0]:
            raise ValueError(
                "mmse of the prior must be a smooth function of s, and thin factors not thinner "
                f"than 1e-285: {prior!r}"
            )
        if only is None:
            raise ValueError(f"{parameter} is out of its range: {value!r}")
        return only

    ends = {low: curve(low), high: curve(high)}
    if bool(ends[low].rises.size) == bool(ends[high].rises.size):
        raise ValueError(
            f"one of low={low!r} and high={high!r} must have a first-order transition and the "
            "other none"
        )
    # x: the value, or its logarithm over wide ranges
    to, back = _scale(low, high)

    def at(x: float) -> float:
        return float(np.clip(back(x), min(low, high), max(low, high)))

    def apart(x: float, y: float) -> bool:
        return abs(at(x) - at(y)) > 0.05 * max(abs(at(x)), abs(at(y)))

    with_it, without = (low, high) if ends[low].rises.size else (high, low)
    inside, here, outside, there = to(with_it), ends[with_it], to(without), ends[without]
    # close to the cusp the steepest ascent outlives the transition
    steps = 0
    no_cusp = f"between low={low!r} and high={high!r} the transition has no cusp"
    while steps < 8 or apart(inside, outside) or not _summits(there).size:
        middle = 0.5 * (inside + outside)
        if steps == 200 or middle in (inside, outside):
            raise ValueError(no_cusp)
        found = curve(at(middle))
        if found.rises.size:
            inside, here = middle, found
        else:
            outside, there = middle, found
        steps += 1
    summits = _summits(here, unstable=True)
    if not summits.size:
        raise ValueError(no_cusp)
    place = float(summits[np.argmax(here.slope(summits))])

    def ascent(x: float) -> float:
        nonlocal place
        table = curve(at(x))
        summits = _summits(table)
        place = float(summits[np.argmin(np.abs(summits - place))])
        return float(table.slope(place))

    # to ``tolerance`` relative to the value: a step of a logarithm is that
    xtol, rtol = {
        math.log: (tolerance, 0.0),
        math.log1p: (1e-300, 1e-3 * tolerance),
        float: (1e-300, tolerance),
    }[to]
    x = float(brentq(ascent, inside, outside, xtol=xtol, rtol=max(rtol, 1e-15)))
    value = at(x)
    problem = _replace(Problem(prior, channel, 1.0), **{parameter: value})
    ascent(x)
    if not -float(curve(value).slope.derivative(2)(place)) > _FLAT:
        raise ValueError(no_cusp)
    family = _Family(_Points(problem))
    log_alpha, mmse, q = family.evaluate(np.array([place]), np.zeros(1, dtype=np.intp))
    return CriticalPoint(
        parameter=parameter,
        value=value,
        alpha=float(np.exp(log_alpha[0])),
        s=float(np.exp(place)),
        q=float(q[0]),
        mmse=float(mmse[0]),
    )


def _summits(curve: _Curve, *, unstable: bool = False) -> Array:
    """Return log s of the local maxima of the slope, everywhere or on the longest rise only."""
    bends = curve.slope.derivative().roots(extrapolate=False)
    bends = bends[np.isfinite(bends)]
    h = 1e-3
    slope = curve.slope(bends)
    highest = (curve.slope(bends - h) < slope) & (curve.slope(bends + h) < slope)
    if unstable:
        rise = curve.rises[np.argmax(np.diff(curve.height)[curve.rises])]
        highest &= (bends > curve.at[rise]) & (bends < curve.at[rise + 1])
    return np.asarray(bends[highest])


def _scale(low: float, high: float) -> tuple[Callable[..., float], Callable[..., float]]:
    """Return a scale on which to search between low and high, and its inverse."""
    least, most = sorted((low, high))
    if least > 0.0 and most > 1e3 * least:
        return math.log, math.exp
    if least == 0.0 and most > 1e3:
        return math.log1p, math.expm1
    return float, float


# --------------------------------------------------------------------------------------------
# Phase diagrams
# --------------------------------------------------------------------------------------------


def _replace(problem: Problem, **values: Any) -> Problem:
    """Return the problem with parameters changed, each where it lives."""
    prior, channel, alpha = problem.prior, problem.channel, problem.alpha
    for name, value in values.items():
        if name == "alpha":
            alpha = value
        elif name in parameters(channel):
            channel = replace(channel, **{name: value})
        elif name in parameters(prior):
            prior = replace(prior, **{name: value})
        else:
            raise ValueError(
                f"{name} must be a parameter of {type(prior).__name__} or "
                f"{type(channel).__name__}, which have {parameters(prior) + parameters(channel)}"
            )
    return Problem(prior, channel, alpha)


_LONG_NAMES = {
    "alpha": "sampling ratio n/(d1 d2)",
    "beta": "aspect ratio d2/d1",
    "rho": "width r/d1",
    "delta": "variance of the label noise",
    "phase": "phase of learning",
    "mmse_bayes": "Bayes-optimal error per entry",
    "mmse_algorithm": "error per entry of message passing",
    "generalization_error_bayes": "Bayes-optimal error of a new label",
    "generalization_error_algorithm": "error of message passing on a new label",
    "weak_recovery": "weak recovery threshold",
    "algorithmic": "algorithmic threshold",
    "information_theoretic": "information-theoretic threshold",
    "strong_recovery": "strong recovery threshold",
    "strong_recovery_algorithmic": "strong recovery threshold of message passing",
    "informed_spinodal": "spinodal of the informed branch",
    "status": "how the calculation of the point ended",
}


def phase_diagram(
    problem: Problem,
    *,
    alpha: Numeric | None = None,
    beta: Numeric | None = None,
    rho: Numeric | None = None,
    delta: Numeric | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Return phases, errors and thresholds over a plane of two parameters.

    Parameters
    ----------
    problem : Problem
        The parameters that stay fixed must be scalars; those of the two axes are ignored.
    alpha, beta, rho, delta : array_like, shape (k,)
        Exactly two of them: the axes.
    progress : bool
        Whether to show progress bars (on a terminal only).

    Returns
    -------
    xarray.Dataset
        On the plane ``phase`` (0 easy, 1 hard, 2 impossible, -1 invalid), ``mmse_bayes`` and
        ``mmse_algorithm`` (the uninformed iteration), the ``generalization_error_`` of both when
        the channel knows it, and the ``status`` of the Bayes-optimal point.  The fields of
        `Thresholds` are lines along the other axis than alpha, or fields over the plane when alpha
        is fixed: there the boundaries are their contours at alpha.  The axis given first in
        the signature is the last dimension, so that it is the horizontal one.

    Raises
    ------
    ValueError
        If there are not exactly two axes, an axis is not one-dimensional or not a parameter of
        the problem, or another parameter is missing or an array.

    Notes
    -----
    hard
        Message passing is worse than the Bayes-optimal estimator: between
        ``information_theoretic`` and ``algorithmic``.
    impossible
        Out of reach for every estimator, and not hard: perfect recovery where labels allow it at
        some alpha, below ``strong_recovery``; with noise, learning anything at all.
    easy
        Elsewhere: message passing is Bayes-optimal and recovers perfectly, or with noise learns.

    The error depends on alpha only through the curve alpha(s), so that a column of pixels costs
    one table of it, and one or two exact evaluations a pixel.  Boundaries are curves of their
    own, not contours of the pixels.

    Examples
    --------
    >>> import numpy as np, bsr_theory as bsr
    >>> from bsr_theory.phases import phase_diagram
    >>> problem = bsr.Problem(bsr.GaussianFactorPrior(2.0, 0.5), bsr.GaussianChannel(), alpha=None)
    >>> plane = phase_diagram(problem, alpha=np.linspace(0.1, 1.0, 4), beta=[1.0, 2.0])
    >>> plane.phase.dims, plane.phase.values.tolist()
    (('beta', 'alpha'), [[2, 2, 2, 0], [2, 2, 0, 0]])
    >>> plane.strong_recovery.values
    array([0.75 , 0.625])
    """
    given = {"alpha": alpha, "beta": beta, "rho": rho, "delta": delta}
    axes = {name: _axis(name, value) for name, value in given.items() if value is not None}
    if len(axes) != 2:
        raise ValueError(f"exactly two axes must be given, got {sorted(axes)}")
    rows = {name: value for name, value in reversed(axes.items()) if name != "alpha"}
    lines = _replace(problem, **_mesh(rows))
    if problem.alpha is None and alpha is None:
        raise ValueError("alpha must be an axis or a parameter of the problem, got None")
    base = _replace(problem, **{name: 1.0 for name in axes})
    if base.shape:
        raise ValueError(f"the fixed parameters must be scalars, got shape {base.shape}")

    points = _Points(Problem(lines.prior, lines.channel, 1.0))
    family = _Family(points)
    found, _, curves = _thresholds(family, progress=progress)
    sampling = axes.get("alpha", np.atleast_1d(np.asarray(problem.alpha, dtype=np.float64)))
    row, at = (x.ravel() for x in np.indices((points.alpha.size, sampling.size)))
    pixels = _pixels(family, found, curves, row.astype(np.intp), sampling[at], progress)
    dims = tuple(reversed(axes))
    return _dataset(base, axes, rows, dims, found, pixels)


def _axis(name: str, value: Numeric) -> Array:
    """Return an axis as a one-dimensional array."""
    array = numbers(name, value)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must be a one-dimensional array, got shape {array.shape}")
    return array


def _mesh(rows: dict[str, Array]) -> dict[str, Array]:
    """Return the axes of the lines as arrays that broadcast to their common shape."""
    return dict(zip(rows, np.meshgrid(*rows.values(), indexing="ij"), strict=True))


def _pixels(
    family: _Family,
    found: dict[str, Array],
    curves: list[tuple[_Curve, Array] | None],
    row: _Index,
    alpha: Array,
    progress: bool,
) -> dict[str, npt.NDArray[Any]]:
    """Return phase, errors and status at the pixels (row, alpha)."""
    points = family.points
    good = points.valid[row] & (alpha > 0.0) & np.isfinite(alpha)
    code = np.full(alpha.size, -1, dtype=np.int8)
    mmse, q = np.full((2, alpha.size), np.nan), np.full((2, alpha.size), np.nan)
    status = np.full(alpha.size, int(Status.INVALID_INPUT), dtype=np.int64)
    hard = np.zeros(alpha.size, dtype=bool)
    single = good & (points.channel.single_fixed_point | ~family.teaches[row])
    if single.any():
        prior, channel = points.at(row[single])
        point = solve(Problem(prior, channel, alpha[single]), on_failure="return")
        mmse[:, single], q[:, single], status[single] = point.mmse, point.q, point.status
    rest = good & ~single
    status[rest] = Status.NOT_CONVERGED
    index = np.flatnonzero(rest & np.array([curve is not None for curve in curves])[row])
    if index.size:
        logs, slope, ends, hard[index] = _place(curves, row[index], alpha[index], progress)
        for k in range(2):
            where = np.flatnonzero(hard[index]) if k else np.arange(index.size)
            at = index[where]
            failed = status[at] == Status.NOT_CONVERGED if k else np.zeros(at.size, dtype=bool)
            mmse[k, at], q[k, at], status[at] = _exact(
                family,
                row[at],
                np.log(alpha[at]),
                logs[k, where],
                slope[k, where],
                ends[k][:, where],
            )
            status[at[failed]] = Status.NOT_CONVERGED
        same = index[~hard[index]]
        mmse[1, same], q[1, same] = mmse[0, same], q[0, same]
    strong = found["strong_recovery"]
    below = np.where(np.isfinite(strong), strong, 0.0)  # with noise nothing is recovered perfectly
    lost = (alpha < below[row]) | (status == Status.NO_RECOVERY)
    code[good] = np.where(hard, HARD, np.where(lost, IMPOSSIBLE, EASY))[good]
    unknown = status >= Status.NOT_CONVERGED
    code[unknown], mmse[:, unknown], q[:, unknown] = -1, np.nan, np.nan
    out: dict[str, npt.NDArray[Any]] = {"phase": code, "status": status}
    out |= {"mmse_algorithm": mmse[0], "mmse_bayes": mmse[1]}
    fine = np.flatnonzero(np.isfinite(mmse).all(axis=0))
    wrong = np.full((2, alpha.size), np.nan)
    worse = fine[mmse[0, fine] > mmse[1, fine]]
    try:
        wrong[1, fine] = family.generalization_error(q[1, fine], mmse[1, fine], row[fine])
        wrong[0] = wrong[1]
        wrong[0, worse] = family.generalization_error(q[0, worse], mmse[0, worse], row[worse])
    except NotImplementedError:
        return out
    return out | {
        "generalization_error_algorithm": wrong[0],
        "generalization_error_bayes": wrong[1],
    }


def _place(
    curves: list[tuple[_Curve, Array] | None], row: _Index, alpha: Array, progress: bool
) -> tuple[Array, Array, Array, npt.NDArray[np.bool_]]:
    """Return log s (guessed), slope and ends of the uninformed and the Bayes-optimal branch.

    log s is -inf at perfect recovery and inf where nothing is learned.
    """
    logs, slope = np.empty((2, alpha.size)), np.ones((2, alpha.size))
    ends = np.empty((2, 2, alpha.size))
    hard = np.zeros(alpha.size, dtype=bool)
    starts = np.flatnonzero(np.diff(row, prepend=-1))
    parts = np.split(np.arange(alpha.size), starts[1:])
    for part in _bar(parts, "pixels", progress):
        held = curves[row[part[0]]] if part.size else None
        if held is None:
            continue
        curve, crossing = held
        log_alpha = np.log(alpha[part])
        pair = (curve.uninformed(log_alpha), curve.bayes(log_alpha, crossing))
        hard[part] = pair[0] != pair[1]
        for k, branch in enumerate(pair):
            for b in np.unique(branch):
                on = part[branch == b]
                ends[k][:, on] = [[curve.left[b]], [curve.right[b]]]
                if b in (0, curve.perfect):
                    logs[k, on] = curve.left[b]
                    continue
                logs[k, on] = curve.invert(b, log_alpha[branch == b])
                slope[k, on] = curve.slope(logs[k, on])
    return logs, slope, ends, hard


def _exact(
    family: _Family, row: _Index, log_alpha: Array, logs: Array, slope: Array, ends: Array
) -> tuple[Array, Array, npt.NDArray[np.int64]]:
    """Return error and overlap at guessed fixed points, after Newton steps on the exact curve."""
    prior, _ = family.points.at(row)
    most = np.broadcast_to(prior.second_moment, row.shape)
    q = np.array(np.broadcast_to(prior.prior_overlap, row.shape))
    mmse = most - q
    residual = np.zeros(row.size)
    status = np.full(row.size, int(Status.CONVERGED), dtype=np.int64)
    perfect, none = np.isneginf(logs), np.isposinf(logs)
    mmse[perfect], q[perfect] = 0.0, most[perfect]
    status[perfect], status[none] = Status.PERFECT_RECOVERY, Status.NO_RECOVERY
    inner = np.flatnonzero(~perfect & ~none)
    active = inner
    for _ in range(4):
        value, mmse[active], q[active] = family.evaluate(logs[active], row[active])
        error = value - log_alpha[active]
        residual[active] = np.abs(error)
        keep = (residual[active] > _RESIDUAL) & (slope[active] < 0.0)
        active, error = active[keep], error[keep]
        if not active.size:
            break
        logs[active] = np.clip(logs[active] - error / slope[active], *ends[:, active])
    rest = inner[~(residual[inner] <= _ACCEPT)]
    if not rest.size:
        return mmse, q, status

    # next to a spinodal, or beyond the table: the branch brackets the root
    def gap(x: Array, i: _Index) -> Array:
        return np.asarray(family.evaluate(x, row[rest[i]])[0] - log_alpha[rest[i]])

    # log s at which everything and at which nothing is known
    points, at = family.points, row[rest]
    least, most = (x[at] - log_alpha[rest] for x in (points.low, points.high))
    least = np.where(np.isfinite(least), np.maximum(least - _MARGIN, _BOTTOM), _DEEP)
    most = np.where(np.isfinite(most), np.minimum(most + _MARGIN, -_BOTTOM), _HIGH)
    every = np.arange(rest.size)
    never = points.unbounded(at)
    least[never] = _descend(gap, least[never], every[never])
    low, high = np.maximum(ends[0, rest], least), np.minimum(ends[1, rest], most)
    found = _root(gap, low, high, every)
    # a root that rounding hides is the spinodal itself
    at_low, at_high = np.abs(gap(low, every)), np.abs(gap(high, every))
    end = np.where(at_low <= at_high, low, high)
    end[np.minimum(at_low, at_high) > _ACCEPT] = np.nan
    logs[rest] = np.where(np.isnan(found), end, found)
    fine, lost = rest[np.isfinite(logs[rest])], rest[~np.isfinite(logs[rest])]
    _, mmse[fine], q[fine] = family.evaluate(logs[fine], row[fine])
    mmse[lost], q[lost], status[lost] = np.nan, np.nan, Status.NOT_CONVERGED
    return mmse, q, status


def _dataset(
    base: Problem,
    axes: dict[str, Array],
    rows: dict[str, Array],
    dims: tuple[str, ...],
    found: dict[str, Array],
    pixels: dict[str, npt.NDArray[Any]],
) -> xr.Dataset:
    """Assemble the labelled result."""
    import xarray as xr

    shape = tuple(axes[name].size for name in dims)
    data: dict[str, Any] = {}
    for name, values in pixels.items():
        data[name] = (dims, values.reshape(shape), {"long_name": _LONG_NAMES[name], "units": "1"})
    for name, values in found.items():
        lines = tuple(rows)
        of = tuple(axes[x].size for x in lines)
        data[name] = (lines, values.reshape(of), {"long_name": _LONG_NAMES[name], "units": "1"})
    codes = np.array([-1, EASY, HARD, IMPOSSIBLE], dtype=np.int8)
    data["phase"][2].update(flag_values=codes, flag_meanings="invalid easy hard impossible")
    states = np.array([int(x) for x in Status], dtype=np.int64)
    names = " ".join(x.name.lower() for x in Status)
    data["status"][2].update(flag_values=states, flag_meanings=names)
    coords = {x: (x, v, {"long_name": _LONG_NAMES[x], "units": "1"}) for x, v in axes.items()}
    fixed = {
        name: float(value)
        for model in (base.prior, base.channel)
        for name, value in ((x, getattr(model, x)) for x in parameters(model))
        if name not in axes and isinstance(value, int | float) and not isinstance(value, bool)
    }
    if base.alpha is not None and "alpha" not in axes:
        fixed["alpha"] = float(base.alpha)
    attrs = {
        "Conventions": "CF-1.11",
        "title": "Phase diagram of bilinear sequence regression",
        "prior": type(base.prior).__name__,
        "channel": type(base.channel).__name__,
        "references": "arXiv:2410.18858",
        "provenance": json.dumps(dataclasses.asdict(Provenance.collect())),
        **fixed,
    }
    return xr.Dataset(data, coords, attrs)
