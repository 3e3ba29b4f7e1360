r"""State evolution: iterate it, solve it, list every fixed point.

With ``s = 1/qhat`` the two equations ``qhat = alpha precision(q)`` and ``q = 1 - M(s)`` say that
alpha is an explicit function of s,

.. math:: \alpha(s) = \frac{1}{s\,\mathrm{precision}(1 - M(s))},

and every fixed point at every alpha lies on this curve: its turning points are the spinodals, its
descending parts are stable, and on each monotone part a fixed point is a bracketed root.  Nothing
depends on where an iteration happens to start.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.interpolate import PPoly
from scipy.optimize import elementwise

from ._arrays import (
    Array,
    Numeric,
    check,
    check_integer,
    check_number,
    replace,
    scalar_or_array,
    select,
)
from .channels import Channel
from .priors import Prior
from .problem import Problem
from .results import Branches, FixedPoint, OnFailure, Status, Trajectory, report_failures

__all__ = ["fixed_points", "free_entropy", "iterate", "solve"]

_Index = npt.NDArray[np.intp]
_Codes = npt.NDArray[np.int64]

# Panels of log s with Chebyshev nodes: an interpolation good to about 1e-9.
_PANEL, _DEGREE = 1.5, 12
_ANGLES = np.pi * (np.arange(_DEGREE + 1) + 0.5) / (_DEGREE + 1)
_NODES = 0.5 - 0.5 * np.cos(_ANGLES)
_POWERS = np.vander(_NODES)
_TAIL = np.cos(np.outer(_ANGLES, [_DEGREE - 1, _DEGREE])) * 2.0 / (_DEGREE + 1)
_UNRESOLVED = 1e-10  # last Chebyshev coefficients above which a panel is halved
_NARROW = 2e-3  # narrowest panel
_GRID = 24  # points a panel among which turning points are looked for
_FLOOR = np.log(1e-13)  # smallest log s that a table covers
_DEEP = np.log(1e-40)  # below any noise that alpha can resolve in double precision
_BOTTOM = np.log(1e-300)  # below any noise of labels
_MARGIN = 1e-6  # by which a bound of log s is widened
_ROUNDING = 1e-13  # residual at which the evaluations of mmse are at their rounding
_ENOUGH = 12  # points that share a prior from which on a table pays
_NEAR = 1e-3  # relative distance to strong recovery inside which the difference is solved for
_MOST = 1e300  # qhat in place of one that overflows
_STEP = 0.02  # step in log s of the derivative that decides stability


# --------------------------------------------------------------------------------------------
# The curve alpha(s)
# --------------------------------------------------------------------------------------------


def _log_alpha(prior: Prior, channel: Channel, logs: Array, mmse: Array, q: Array) -> Array:
    """Return log alpha(s) from s and the mmse and overlap there."""
    least, most = np.asarray(prior.prior_overlap), np.asarray(prior.second_moment)
    q, mmse = np.clip(q, least, most), np.clip(mmse, 0.0, most - least)
    precision = np.asarray(channel.precision(q, mmse))
    # at q = 1 without noise s and 1/precision vanish together
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(-logs - np.log(precision) - np.log(prior.snr_per_alpha))


class _Table:
    """Error and overlap of one prior, with scalar parameters, at the nodes of panels of log s."""

    def __init__(self, prior: Prior, ends: Array) -> None:
        self.prior = prior
        # where two bulks of the spectrum meet, mmse is only twice differentiable: halve panels
        done: list[tuple[Array, ...]] = []
        low, width, place = ends[:-1], np.diff(ends), np.arange(ends.size - 1)
        levels: list[tuple[_Index, Array]] = []
        while low.size:
            logs = low[:, None] + width[:, None] * _NODES
            with np.errstate(over="ignore"):
                s = np.exp(logs.ravel())
            mmse, q = (x.reshape(logs.shape) for x in prior.mmse_and_overlap(s))
            with np.errstate(divide="ignore", invalid="ignore"):
                tail = np.fmax(np.abs(np.log(mmse) @ _TAIL), np.abs(np.log(q) @ _TAIL))
            tail = np.fmax.reduce(tail, axis=1)
            good = ~(tail > _UNRESOLVED) | (width < _NARROW)
            rough = np.zeros(low.size, dtype=bool)
            rough[~good] = _rough(place[~good], tail[~good], levels)
            levels.append((place, tail))
            good |= rough
            done.append((low[good], logs[good], mmse[good], q[good], rough[good]))
            half = 0.5 * width[~good]
            low = np.stack([low[~good], low[~good] + half], axis=1).ravel()
            width = np.repeat(half, 2)
            place = np.stack([2 * place[~good], 2 * place[~good] + 1], axis=1).ravel()
        low, logs, mmse, q, rough = (np.concatenate(parts) for parts in zip(*done, strict=True))
        order = np.argsort(low)
        self.ends = np.append(low[order], ends[-1])
        self.width = np.diff(self.ends)
        self.logs, self.mmse, self.q = (x[order].ravel() for x in (logs, mmse, q))
        self.rough = rough[order]

    @classmethod
    def between(cls, prior: Prior, low: float, high: float) -> _Table:
        """Return the table from ``low`` to ``high``."""
        return cls(prior, np.linspace(low, high, max(1, int(np.ceil((high - low) / _PANEL))) + 1))

    def noise(self, values: Array) -> float:
        """Return how far values at the nodes are from smooth where the prior's errors tell."""
        rows = values.reshape(self.width.size, -1)[self.rough]
        return float(np.max(np.abs(rows @ _TAIL), initial=0.0))

    def interpolate(self, values: Array) -> PPoly:
        """Return the piecewise polynomial through values at the nodes."""
        power = np.linalg.solve(_POWERS, values.reshape(self.width.size, -1).T)
        scale = self.width ** -np.arange(_DEGREE, -1, -1.0)[:, None]
        return PPoly(power * scale, self.ends)

    @functools.cached_property
    def log_mmse(self) -> PPoly:
        """Log M against log s."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.interpolate(np.log(self.mmse))

    def log_alpha(self, channel: Channel, logs: Array) -> Array:
        """Return log alpha(s) with the interpolated M."""
        mmse = np.exp(self.log_mmse(logs))
        return _log_alpha(self.prior, channel, logs, mmse, self.prior.second_moment - mmse)


def _rough(place: _Index, tail: Array, levels: list[tuple[_Index, Array]]) -> Any:
    """Return which panels are no smoother than the one that they are an eighth of.

    Features that halving resolves lie somewhere in it, numerical errors of mmse everywhere.
    """
    if len(levels) < 3:
        return False
    group, inverse, count = np.unique(place >> 3, return_inverse=True, return_counts=True)
    least = np.full(group.size, np.inf)
    np.minimum.at(least, inverse, tail)
    before, former = levels[-3]
    return ((count == 8) & (least > 0.3 * former[np.searchsorted(before, group)]))[inverse]


class _Points:
    """The flattened points of a problem, with mmse evaluations counted."""

    def __init__(self, problem: Problem) -> None:
        if problem.alpha is None:
            raise ValueError("alpha must be given (a number or an array), got None")
        self.shape = problem.shape
        self.prior, self.channel = problem.prior, problem.channel
        self.alpha = self._flat(problem.alpha)
        self.k = self._flat(self.prior.snr_per_alpha)
        self.evaluations = np.zeros(self.alpha.size, dtype=np.int64)
        ones = np.ones(self.shape)
        least, most = ones * self.prior.prior_overlap, ones * self.prior.second_moment
        self.most = most.ravel()
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            # precision when all and when nothing is known bound qhat = 1/s
            scale = np.log(self.alpha) + np.log(self.k)
            low = -scale - np.log(self._flat(self.channel.precision(most, 0 * ones)))
            high = -scale - np.log(self._flat(self.channel.precision(least, most - least)))
            self.low, self.high = np.minimum(low, -_DEEP), np.maximum(high, _DEEP)
            resolves = self._flat(self.channel.resolves)
            strong = self._flat(self.prior.strong_recovery) / (self.k * resolves)
        self.strong = np.where(resolves > 0.0, strong, np.inf)
        self.resolves = resolves
        self.valid = np.isfinite(self.alpha) & ~np.isnan(self.high)
        for value in [*vars(self.prior).values(), *vars(self.channel).values()]:
            if isinstance(value, np.ndarray):
                self.valid &= ~np.isnan(self._flat(value))

    def _flat(self, value: Any) -> Array:
        return np.broadcast_to(np.asarray(value, dtype=np.float64), self.shape).ravel()

    def at(self, index: _Index) -> tuple[Prior, Channel]:
        """Return prior and channel of the points ``index``."""
        return select(self.prior, self.shape, index), select(self.channel, self.shape, index)

    def unbounded(self, index: _Index) -> npt.NDArray[np.bool_]:
        """Tell where the error falls forever with alpha: no noise, and no perfect recovery."""
        return np.asarray(~np.isfinite(self.low[index]) & (self.resolves[index] == 0.0))

    def least(self, index: _Index) -> Array:
        """Return log s below every fixed point, with a margin for rounding."""
        # without noise in the labels there is no bound: what is below counts as perfect recovery,
        low = np.where(np.isfinite(self.low[index]), self.low[index] - _MARGIN, _FLOOR)
        # or, if they never determine h, is reached by more of them
        never = self.unbounded(index)
        low[never] = _descend(self.gap, low[never], index[never])
        return np.asarray(np.maximum(low, _BOTTOM))

    def evaluate(self, logs: Array, index: _Index) -> tuple[Array, Array, Array]:
        """Return log alpha(s) - log alpha, mmse and overlap at the points ``index``."""
        np.add.at(self.evaluations, index, 1)
        prior, channel = self.at(index)
        with np.errstate(over="ignore"):
            mmse, q = prior.mmse_and_overlap(np.exp(logs))
        return _log_alpha(prior, channel, logs, mmse, q) - np.log(self.alpha[index]), mmse, q

    def gap(self, logs: Array, index: _Index) -> Array:
        """Return log alpha(s) - log alpha."""
        return self.evaluate(logs, index)[0]

    def groups(self, index: _Index) -> list[_Index]:
        """Return the points ``index`` gathered by equal prior."""
        columns = [
            self._flat(value)[index]
            for value in vars(self.prior).values()
            if isinstance(value, np.ndarray)
        ]
        if not columns or not index.size:
            return [index] if index.size else []
        _, inverse = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
        inverse = inverse.ravel()
        order = np.argsort(inverse, kind="stable")
        return np.split(index[order], np.flatnonzero(np.diff(inverse[order])) + 1)

    def shared_prior(self, index: _Index) -> Prior:
        """Return the prior that the points ``index`` of one group share, with scalar parameters."""
        prior = select(self.prior, self.shape, index[:1])
        fields = {k: float(v[0]) for k, v in vars(prior).items() if isinstance(v, np.ndarray)}
        return replace(prior, **fields)


def _descend(gap: Callable[..., Array], low: Array, index: _Index) -> Array:
    """Return log s, ``low`` or less, where alpha(s) has risen to alpha: gap is not negative."""
    low = low.copy()
    active = np.arange(low.size)
    while active.size:
        short = (gap(low[active], index[active]) < 0.0) & (low[active] > _BOTTOM)
        active = active[short]
        low[active] = np.maximum(low[active] - 20.0, _BOTTOM)
    return low


def _root(f: Callable[..., Array], low: Array, high: Array, index: _Index) -> Array:
    """Return the roots of ``f(x, index)`` between ``low`` and ``high``, NaN where none is found."""
    if index.size == 0:
        return np.empty(0)
    with np.errstate(invalid="ignore", over="ignore"):  # where the ends bracket nothing
        result = elementwise.find_root(
            f, (low, high), args=(index,), tolerances={"xatol": 2e-15, "xrtol": 4e-16}
        )
    return np.asarray(np.where(result.success, result.x, np.nan))


# --------------------------------------------------------------------------------------------
# One fixed point a problem: channels whose alpha(s) is monotone
# --------------------------------------------------------------------------------------------


def _from_table(points: _Points, index: _Index, tolerance: float) -> tuple[Array, ...]:
    """Solve points that share a prior: guess from a table, Newton steps on the exact curve.

    Returns log s, mmse, overlap and residual, NaN where that did not work.
    """
    low = np.maximum(points.low[index] - _MARGIN, _FLOOR)
    high = np.maximum(np.minimum(points.high[index], -_BOTTOM), low + 1e-9)
    prior = points.shared_prior(index)
    table = _Table.between(prior, float(low.min()), float(high.max()) + 1e-6)

    def gap(logs: Array, index: _Index) -> Array:
        channel = select(points.channel, points.shape, index)
        return table.log_alpha(channel, logs) - np.log(points.alpha[index])

    logs = _root(gap, low, high, index)
    with np.errstate(invalid="ignore"):
        slope = (gap(logs + 1e-4, index) - gap(logs - 1e-4, index)) / 2e-4
    mmse, q, residual = (np.full(logs.shape, np.nan) for _ in range(3))
    active = np.flatnonzero(np.isfinite(logs) & (slope < 0.0))
    for _ in range(6):
        error, mmse[active], q[active] = points.evaluate(logs[active], index[active])
        residual[active] = np.abs(np.expm1(error))
        keep = residual[active] > min(tolerance, _ROUNDING)
        active = active[keep]
        if active.size == 0:
            break
        logs[active] -= error[keep] / slope[active]
    return logs, mmse, q, residual


def _near_strong_recovery(points: _Points, index: _Index) -> Array:
    """Return log s just below strong recovery without noise.

    There ``k resolves alpha(s) = M(s)/s`` tends to its limit with s: the difference must be solved
    for, not the ratio.
    """
    prior = select(points.prior, points.shape, index)
    alpha = points.alpha[index] * (points.k[index] * points.resolves[index])
    target = np.log(np.asarray(prior.strong_recovery_gap(alpha)))

    def gap(logs: Array, at: _Index) -> Array:
        points.evaluations[index[at]] += 1
        prior = select(points.prior, points.shape, index[at])
        with np.errstate(divide="ignore"):
            log = np.log(prior.deficit(np.exp(logs)))
        return np.asarray(np.maximum(log, -1e3) - target[at])

    local = np.arange(index.size)
    return _root(gap, np.full(index.size, _DEEP), points.high[index], local)


def _solve_single(points: _Points, tolerance: float) -> tuple[Array, Array, Array, Array, _Codes]:
    """Return log s, mmse, overlap, residual and status of every point."""
    size = points.alpha.size
    logs, mmse, q, residual = (np.full(size, np.nan) for _ in range(4))
    status = np.full(size, int(Status.INVALID_INPUT), dtype=np.int64)

    perfect = points.valid & (points.alpha >= points.strong)
    status[perfect] = Status.PERFECT_RECOVERY
    logs[perfect], mmse[perfect], residual[perfect] = -np.inf, 0.0, 0.0
    q[perfect] = points.most[perfect]

    index = np.flatnonzero(points.valid & ~perfect)
    if points.prior.has_transition:
        # no overlap even at the noise of q = 0: nothing is learned
        _, mmse[index], q[index] = points.evaluate(points.high[index], index)
        none = q[index] <= points.prior.prior_overlap
        flat, index = index[none], index[~none]
        status[flat], logs[flat], residual[flat] = Status.NO_RECOVERY, points.high[flat], 0.0

    # labels that teach nothing, or less than a double can tell
    deaf = points.high[index] > -_BOTTOM
    flat, index = index[deaf], index[~deaf]
    status[flat], logs[flat], residual[flat] = Status.NO_RECOVERY, np.inf, 0.0
    q[flat] = np.broadcast_to(points.prior.prior_overlap, points.shape).ravel()[flat]
    mmse[flat] = points.most[flat] - q[flat]

    # for the linear channel only, whose alpha(s) is M(s)/s without noise: the one single fixed
    # point with a share of noiseless equations
    near = points.strong[index] - points.alpha[index] < _NEAR * points.strong[index]
    slow = [index[near]]
    logs[index[near]] = _near_strong_recovery(points, index[near])
    for group in points.groups(index[~near]):
        if group.size >= _ENOUGH:
            solved = _from_table(points, group, tolerance)
            logs[group], mmse[group], q[group], residual[group] = solved
            group = group[~(residual[group] <= tolerance)]
        high = points.high[group] + _MARGIN
        low = np.maximum(points.low[group], np.minimum(points.high[group], 0.0) + _BOTTOM)
        # without noise in the labels: further down the error of thin factors would underflow
        free = ~np.isfinite(points.low[group])
        low[free] = _descend(points.gap, np.minimum(high[free], 0.0), group[free])
        logs[group] = _root(points.gap, low - _MARGIN, high, group)
        slow.append(group)
    # residuals are measured at the point that is returned
    rest = np.concatenate(slow)
    rest = rest[np.isfinite(logs[rest])]
    gap, mmse[rest], q[rest] = points.evaluate(logs[rest], rest)
    residual[rest] = np.abs(np.expm1(gap))
    good = residual[index] <= tolerance
    status[index] = np.where(good, Status.CONVERGED, Status.NOT_CONVERGED)
    for values in (logs, mmse, q):
        values[index[~good]] = np.nan
    return logs, mmse, q, residual, status


# --------------------------------------------------------------------------------------------
# All fixed points
# --------------------------------------------------------------------------------------------


def _turning_points(table: _Table, channel: Channel) -> Array:
    """Return log s where alpha(s) turns, for a channel with scalar parameters."""
    # fine enough to see every wiggle that a panel resolves
    low, high = table.ends[[0, -1]]
    grid = np.linspace(low, high, _GRID * int(np.ceil((high - low) / _PANEL)) + 1)
    values = table.log_alpha(channel, grid)
    # a flat stretch (no learning at all, alpha(s) infinite or constant to rounding) does not turn
    with np.errstate(invalid="ignore"):
        step = np.diff(values)
        step[~(np.abs(step) >= 1e-10)] = 0.0
    kept = np.flatnonzero(step)
    turns = kept[1:][np.sign(step[kept[1:]]) != np.sign(step[kept[:-1]])]

    def slope(logs: Array, _: _Index) -> Array:
        h = 1e-4
        with np.errstate(invalid="ignore"):
            return table.log_alpha(channel, logs + h) - table.log_alpha(channel, logs - h)

    left, right = grid[np.maximum(turns - 1, 1)], grid[np.minimum(turns + 1, grid.size - 2)]
    found = _root(slope, left, right, turns.astype(np.intp))
    return np.where(np.isnan(found), grid[turns], found)


def _all_single_prior(
    points: _Points, index: _Index, tolerance: float
) -> list[list[tuple[float, float]]]:
    """Return (log s, residual) of every fixed point of points that share prior and channel."""
    prior = points.shared_prior(index)
    channel = select(points.channel, points.shape, index[:1])
    low = float(points.least(index).min())
    top = points.high[index]
    high = max(float(np.where(np.isfinite(top), top, -_FLOOR).max()), low) + _MARGIN
    table = _Table.between(prior, low, high)
    ends = np.concatenate([[low], _turning_points(table, channel), [high]])
    found: list[list[tuple[float, float]]] = [[] for _ in index]
    # exact values at the ends decide which alphas a monotone part holds
    with np.errstate(over="ignore"):
        mmse, q = prior.mmse_and_overlap(np.exp(ends))
    values = _log_alpha(prior, channel, ends, mmse, q)
    target = np.log(points.alpha[index])
    for left, right, a, b in zip(ends[:-1], ends[1:], values[:-1], values[1:], strict=True):
        inside = np.flatnonzero((target - a) * (target - b) < 0.0)
        at = index[inside]
        logs = _root(points.gap, np.full(at.size, left), np.full(at.size, right), at)
        gap = np.abs(points.gap(logs, at)) if at.size else np.empty(0)
        for i, x, error in zip(inside, logs, gap, strict=True):
            if error <= tolerance:
                found[i].append((float(x), float(error)))
    return found


def fixed_points(problem: Problem, *, tolerance: float = 1e-11) -> Branches:
    """Return every fixed point of state evolution, with its stability.

    Parameters
    ----------
    problem : Problem
        Parameters may be arrays; ``alpha`` must be given.
    tolerance : float
        Largest ``|alpha(s)/alpha - 1|`` of a solution.

    Returns
    -------
    Branches
        Fixed points along the last axis, by increasing mmse, padded with `Status.ABSENT`.

    Raises
    ------
    ValueError
        If ``problem.alpha`` is None.

    Notes
    -----
    Roots are bracketed on each monotone part of ``alpha(s)``, so none depends on a starting
    point.  Without noise ``q = 1`` is a fixed point too, stable above strong recovery; so is the
    prior's overlap when labels teach nothing at first (weak recovery).  A fixed point is stable
    when ``alpha(s)`` decreases through it: the derivative of the map ``q -> q'`` is
    ``1 + d log alpha/d log s``.

    Examples
    --------
    >>> import bsr_theory as bsr
    >>> every = bsr.fixed_points(bsr.bilinear_regression(alpha=0.3, beta=2.0, rho=0.5))
    >>> every.mmse.round(8)
    array([0.        , 0.59024539])
    >>> every.stable
    array([False,  True])
    """
    tolerance = check_number("tolerance", tolerance)
    points = _Points(problem)
    size = points.alpha.size
    rows: list[list[tuple[float, float, Status]]] = [[] for _ in range(size)]
    if points.channel.single_fixed_point:
        logs, _, _, residual, status = _solve_single(points, tolerance)
        for at in np.flatnonzero(points.valid):
            rows[at].append((logs[at].item(), residual[at].item(), Status(status[at].item())))
    else:
        # a fixed point below what doubles hold is not found, and the others alone would mislead
        held = ~(np.isfinite(points.low) & (points.low < _BOTTOM))
        for group in points.groups(np.flatnonzero(points.valid & held)):
            for sub in _by_channel(points, group):
                every = _all_single_prior(points, sub, tolerance)
                for point, found in zip(sub, every, strict=True):
                    rows[point] += [(x, error, Status.CONVERGED) for x, error in found]
        for at in np.flatnonzero(points.valid & held & np.isinf(points.high)):
            rows[at].append((np.inf, 0.0, Status.NO_RECOVERY))
    for at in np.flatnonzero(points.valid & np.isfinite(points.strong)):
        if not any(state == Status.PERFECT_RECOVERY for _, _, state in rows[at]):
            rows[at].append((-np.inf, 0.0, Status.PERFECT_RECOVERY))

    k = max([1, *(len(row) for row in rows)])
    logs, residual = np.full((size, k), np.nan), np.full((size, k), np.nan)
    status = np.full((size, k), int(Status.ABSENT), dtype=np.int64)
    status[~points.valid, 0] = Status.INVALID_INPUT
    for i, row in enumerate(rows):
        for j, (x, error, state) in enumerate(sorted(row)):
            logs[i, j], residual[i, j], status[i, j] = x, error, int(state)
    mmse, q, slope = (np.full((size, k), np.nan) for _ in range(3))
    where = np.nonzero(status < Status.NOT_CONVERGED)
    index = where[0].astype(np.intp)
    _, mmse[where], q[where] = points.evaluate(logs[where], index)
    slope[where] = _slopes(points, logs[where], index)
    out = (*points.shape, k)
    with np.errstate(invalid="ignore", over="ignore"):
        qhat = np.exp(-logs)
        stable = np.abs(slope) < 1.0
    return Branches(
        q=q.reshape(out),
        qhat=qhat.reshape(out),
        mmse=mmse.reshape(out),
        residual=residual.reshape(out),
        slope=slope.reshape(out),
        stable=stable.reshape(out),
        status=status.reshape(out),
    )


def _by_channel(points: _Points, index: _Index) -> list[_Index]:
    """Split points by equal channel parameters."""
    columns = [
        points._flat(value)[index]
        for value in vars(points.channel).values()
        if isinstance(value, np.ndarray) and value.ndim
    ]
    if not columns:
        return [index]
    kinds, inverse = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    return [index[inverse.ravel() == j] for j in range(len(kinds))]


def _slopes(points: _Points, logs: Array, index: _Index) -> Array:
    """Return the derivative of the map q -> q' at the fixed points ``logs``."""
    slope = np.empty(logs.shape)
    # q = 1: the error is multiplied by alpha_strong/alpha; q = prior: the same with weak recovery
    perfect, none = np.isneginf(logs), np.isposinf(logs)
    with np.errstate(over="ignore"):
        slope[perfect] = (points.strong / points.alpha)[index[perfect]]
    inner = ~perfect & ~none
    middle, at = logs[inner], index[inner]
    h = _STEP
    far = points.gap(middle + 2 * h, at) - points.gap(middle - 2 * h, at)
    close = points.gap(middle + h, at) - points.gap(middle - h, at)
    slope[inner] = 1.0 + (8.0 * close - far) / (12.0 * h)
    if none.any():
        at = index[none]
        top = np.full(at.size, -_FLOOR)
        with np.errstate(over="ignore"):
            slope[none] = np.exp(-points.gap(top, at))
    return slope


# --------------------------------------------------------------------------------------------
# Bayes-optimal point, potential, iteration
# --------------------------------------------------------------------------------------------


def _potential(points: _Points, logs: Array, mmse: Array, q: Array, index: _Index) -> Array:
    """Return i = I_S(qhat) - qhat mmse/2 + alpha information(q), in nats per d1 d2."""
    prior, channel = points.at(index)
    k = points.k[index]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        qhat = np.minimum(np.exp(-logs), _MOST)
        signal = np.asarray(prior.information(qhat)) - 0.5 * qhat * mmse
        labels = points.alpha[index] * (k * np.asarray(channel.information(q, mmse)))
    # as s -> 0 it is (strong - alpha)/2 log(1/s) per resolved equation
    perfect = np.where(points.alpha[index] >= points.strong[index], -np.inf, np.inf)
    return np.where(mmse == 0.0, perfect, signal + labels)


def solve(
    problem: Problem, *, tolerance: float = 1e-11, on_failure: OnFailure = "warn"
) -> FixedPoint:
    """Return the Bayes-optimal fixed point of state evolution.

    Parameters
    ----------
    problem : Problem
        Parameters may be arrays, which broadcast; ``alpha`` must be given.
    tolerance : float
        Largest residual ``|alpha(s)/alpha - 1|`` of a solution.
    on_failure : {"warn", "raise", "return"}
        What to do about unsolved or invalid points of an array; they are NaN in any case.

    Returns
    -------
    FixedPoint
        The fixed point of least information (largest free entropy), of the problem's shape.
        Where there are several this is the Bayes-optimal one, which message passing from no
        knowledge need not reach: `fixed_points` lists them all, and the stable one of largest
        mmse is where `iterate` ends.

    Raises
    ------
    ValueError
        If ``problem.alpha`` is None or ``on_failure`` is unknown.
    ConvergenceError
        If a point is unsolved and ``on_failure="raise"``.

    Notes
    -----
    ``qhat = alpha precision(q)``, ``q = 1 - M(1/qhat)`` (arXiv:2410.18858).  Without noise and at
    or above strong recovery, ``mmse`` is exactly 0 with `Status.PERFECT_RECOVERY`; just below,
    ``strong_recovery - M(s)/s`` is solved for, which keeps the relative accuracy of ``mmse``.

    Examples
    --------
    >>> import numpy as np, bsr_theory as bsr
    >>> curve = bsr.solve(bsr.bilinear_regression(alpha=[0.2, 0.5, 0.7], beta=2.0, rho=0.5))
    >>> curve.mmse.round(8)
    array([0.75526401, 0.23786201, 0.        ])
    >>> bsr.Status(curve.status[2]).name
    'PERFECT_RECOVERY'
    """
    tolerance = check_number("tolerance", tolerance)
    points = _Points(problem)
    if points.channel.single_fixed_point:
        logs, mmse, q, residual, status = _solve_single(points, tolerance)
    else:
        logs, mmse, q, residual, status = _least_information(points, problem, tolerance)
    report_failures(status, on_failure)
    with np.errstate(over="ignore", invalid="ignore"):
        qhat = np.exp(-logs)
    information = np.full(logs.shape, np.nan)
    index = np.flatnonzero(status < Status.NOT_CONVERGED)
    information[index] = _potential(points, logs[index], mmse[index], q[index], index)
    fields = [
        scalar_or_array(x.reshape(points.shape))
        for x in (q, qhat, mmse, information, residual, points.evaluations, status)
    ]
    if not points.shape:
        fields[-1] = Status(fields[-1])
    return FixedPoint(*[*fields, problem.channel])


def _least_information(
    points: _Points, problem: Problem, tolerance: float
) -> tuple[Array, Array, Array, Array, _Codes]:
    """Pick the branch of least information at each point."""
    every = fixed_points(problem, tolerance=tolerance)
    size, k = points.alpha.size, len(every)
    mmse, q, residual = (x.reshape(size, k) for x in (every.mmse, every.q, every.residual))
    status = every.status.reshape(size, k)
    with np.errstate(divide="ignore"):
        logs = -np.log(every.qhat.reshape(size, k))
    information = np.full((size, k), np.inf)
    where = np.nonzero(status < Status.NOT_CONVERGED)
    index = where[0].astype(np.intp)
    information[where] = _potential(points, logs[where], mmse[where], q[where], index)
    best = np.argmin(information, axis=1)
    rows = np.arange(size)
    state = status[rows, best]
    state[state == Status.ABSENT] = Status.NOT_CONVERGED
    return logs[rows, best], mmse[rows, best], q[rows, best], residual[rows, best], state


def _overlap(prior: Prior, q: Numeric) -> Array:
    """Return the overlap ``q`` as an array, checked against what the prior allows."""
    least, most = np.asarray(prior.prior_overlap), np.asarray(prior.second_moment)
    low = float(np.fmin.reduce(least, axis=None, initial=np.inf))
    high = float(np.fmax.reduce(most, axis=None, initial=-np.inf))
    if low > high:  # no prior, or none that is known
        low, high = -np.inf, np.inf
    value = np.asarray(check("q", q, low=low, high=high))
    with np.errstate(invalid="ignore"):
        return np.where((value >= least) & (value <= most), value, np.nan)


def free_entropy(problem: Problem, q: Numeric) -> Any:
    r"""Return the replica-symmetric free entropy as a function of the overlap.

    Parameters
    ----------
    problem : Problem
        Parameters may be arrays; they broadcast with ``q``.
    q : float or array_like
        Overlap, from that of the prior's mean to its second moment: in [0, 1], but for a
        `SymmetricFactorPrior` in [rho, 1 + rho].

    Returns
    -------
    float or ndarray
        ``-i(q, qhat)`` in nats per ``d1 d2``, with qhat eliminated by the channel's equation
        ``qhat = alpha precision(q)``; its maxima over q are the stable fixed points.  At the
        largest q, where labels without noise make qhat infinite, it is inf at and above strong
        recovery and -inf below.

    Notes
    -----
    .. math:: i(q, \hat q) = I_S(\hat q) - \tfrac12 \hat q (Q - q)
              + \alpha\, \mathrm{information}(q)

    with Q the second moment of the prior, 1 but for a `SymmetricFactorPrior`, where everything is
    per ``d^2/2``.  At a stationary point i is the mutual information between S and the labels per
    ``d1 d2`` (noiseless channels: without its infinite constant), and
    ``(1/(d1 d2)) E log Z = -i - (alpha/2) log(2 pi e delta)`` for a Gaussian channel.  This
    elimination is the one whose landscape arXiv:2410.18858 plots; off the stationary points it
    differs from ``sup over qhat``.

    Examples
    --------
    >>> import bsr_theory as bsr
    >>> problem = bsr.bilinear_regression(alpha=0.4, beta=2.0, rho=0.5, delta=0.1)
    >>> point = bsr.solve(problem)
    >>> abs(bsr.free_entropy(problem, point.q) + point.information) < 1e-12
    True
    """
    if problem.alpha is None:
        raise ValueError("alpha must be given (a number or an array), got None")
    overlap = _overlap(problem.prior, q)
    rest = np.asarray(problem.prior.second_moment) - overlap
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        alpha = np.asarray(problem.alpha) * np.asarray(problem.prior.snr_per_alpha)
        alpha = np.minimum(alpha, np.finfo(np.float64).max)
        qhat = alpha * np.asarray(problem.channel.precision(overlap, rest))
        qhat = np.where(rest > 0.0, np.minimum(qhat, _MOST), qhat)
        labels = alpha * np.asarray(problem.channel.information(overlap, rest))
        signal = np.asarray(problem.prior.information(qhat)) - 0.5 * qhat * rest
        strong = np.asarray(problem.prior.strong_recovery) <= alpha * problem.channel.resolves
        perfect = np.where(strong, np.inf, -np.inf)
        value = np.where(np.isinf(qhat) & (rest == 0.0), perfect, -(signal + labels))
        return scalar_or_array(value)


def iterate(problem: Problem, steps: int, *, q: Numeric | None = None) -> Trajectory:
    """Iterate state evolution: the trajectory that GAMP-RIE follows.

    Parameters
    ----------
    problem : Problem
        Parameters may be arrays; ``alpha`` must be given.
    steps : int
        Number of iterations, at least 1.
    q : float or array_like, optional
        Overlap to start from, at most the prior's second moment, 1; by default that of the
        prior's mean, 0 (``1 + rho`` and ``rho`` for a `SymmetricFactorPrior`).

    Returns
    -------
    Trajectory
        Step 0 is the start.

    Raises
    ------
    ValueError
        If steps is not a positive integer, or ``problem.alpha`` is None.

    Examples
    --------
    >>> import bsr_theory as bsr
    >>> steps = bsr.iterate(bsr.bilinear_regression(alpha=0.4, beta=2.0, rho=0.5), steps=3)
    >>> steps.mmse.round(6)
    array([1.      , 0.655076, 0.539201, 0.485123])
    """
    steps = check_integer("steps", steps)
    if problem.alpha is None:
        raise ValueError("alpha must be given (a number or an array), got None")
    prior = problem.prior
    start = prior.prior_overlap if q is None else _overlap(prior, q)
    shape = np.broadcast_shapes(problem.shape, np.shape(start))
    overlaps = [np.broadcast_to(np.asarray(start, dtype=np.float64), shape)]
    errors = [prior.second_moment - overlaps[0]]
    snrs = []
    for _ in range(steps):
        with np.errstate(divide="ignore", over="ignore"):
            alpha = np.asarray(problem.alpha) * np.asarray(prior.snr_per_alpha)
            snr = alpha * np.asarray(problem.channel.precision(overlaps[-1], errors[-1]))
            error, overlap = prior.mmse_and_overlap(1.0 / snr)
        snrs.append(np.broadcast_to(snr, shape))
        errors.append(np.broadcast_to(error, shape))
        overlaps.append(np.broadcast_to(overlap, shape))
    return Trajectory(np.stack(overlaps, -1), np.stack(errors, -1), np.stack(snrs, -1))
