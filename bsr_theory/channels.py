"""Output channels: the law of a label y given the noiseless output h."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy import special

from ._arrays import (
    UNIT,
    Array,
    Numeric,
    broadcast,
    check,
    numbers,
    run_blocks,
    scalar_or_array,
)
from ._kernels import channels as kernels

__all__ = [
    "AbsChannel",
    "Channel",
    "GaussianChannel",
    "LogisticChannel",
    "OutputChannel",
    "QuantizedChannel",
    "ReLUChannel",
    "SignChannel",
]

_GRAIN = 64  # of the 512 points of a block, 8 remain where a point takes a millisecond
_WIDE = 64  # labels that count as one point: a score takes tens of nanoseconds
_PANEL, _DEGREE = 1.5, 16  # interpolation in log(q/v): poles at distance pi, error 1e-15
_WHOLE = 690.0  # log(q/v) up to which panels may begin


class Channel(ABC):
    """Law ``P_out(y | h)`` of a label given ``h = <X, S>/sqrt(d1 d2)``, with ``E h^2 = 1``.

    A subclass is a frozen dataclass whose parameters may be arrays.
    """

    single_fixed_point: ClassVar[bool] = False
    """Whether ``(1 - q) precision(q)`` is known to decrease with q.

    Then ``alpha(s)`` is monotone for every prior whose ``mmse(s)/s`` decreases, and state
    evolution has one solution.
    """

    any_variance: ClassVar[bool] = False
    """Whether h may have another variance than 1: that of the prior, its second moment."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Common shape of the parameters, () when they are all scalars."""
        return ()

    @property
    @abstractmethod
    def resolves(self) -> Any:
        """Return ``lim (1 - q) precision(q)`` for q -> 1: the share of noiseless equations.

        0 for a noisy channel, whose precision stays finite; 1 for ``y = h``.
        """

    @abstractmethod
    def precision(self, q: Numeric, v: Numeric | None = None) -> Any:
        """Return the information about h that one label gives at overlap ``q``.

        ``qhat = alpha precision(q)`` with ``precision(q) = E g_out^2``.

        Parameters
        ----------
        q : float or array_like
            Overlap, in [0, 1].
        v : float or array_like, optional
            ``1 - q``, when it is known more accurately than by subtraction.
        """

    @abstractmethod
    def information(self, q: Numeric, v: Numeric | None = None) -> Any:
        """Return the information per sample at overlap q: ``d/dq = -precision(q)/2``."""

    def generalization_error(self, q: Numeric, v: Numeric | None = None) -> Any:
        """Return the error of the best prediction of a new label at overlap ``q``.

        The probability of a wrong label when labels are classes, ``E (y - E[y | omega])^2`` when
        they are numbers; the noise of the new label is part of it.
        """
        raise NotImplementedError(f"{type(self).__name__} does not know its prediction error")

    @abstractmethod
    def score(self, y: Numeric, omega: Numeric, V: Numeric) -> tuple[Any, Any]:
        """Return ``g_out = d log Z/d omega`` and its derivative, Z = E P_out(y | N(omega, V))."""

    @abstractmethod
    def sample(self, h: Numeric, *, rng: Any = None) -> Array:
        """Return labels drawn from ``P_out(. | h)``."""


@dataclass(frozen=True)
class GaussianChannel(Channel):
    r"""Linear output with Gaussian noise, ``y = h + sqrt(delta) xi``.

    Parameters
    ----------
    delta : float or array_like
        Noise variance, in [0, inf).  0 is the noiseless linear output.

    Raises
    ------
    ValueError
        If a scalar delta is negative or NaN; a bad element of an array gives NaN there.

    Notes
    -----
    ``precision(q) = 1/(delta + 1 - q)`` (arXiv:2410.18858).  With any prior of unit variance for
    which ``mmse(s)/s`` decreases, state evolution has a single fixed point.

    Examples
    --------
    >>> from bsr_theory import GaussianChannel
    >>> GaussianChannel(delta=0.5).precision(0.5)
    1.0
    """

    delta: Any = 0.0

    single_fixed_point: ClassVar[bool] = True
    any_variance: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the parameter."""
        object.__setattr__(self, "delta", check("delta", self.delta, low=0.0, allow_inf=False))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of delta."""
        return np.shape(self.delta)

    @property
    def resolves(self) -> Any:
        """1 without noise, 0 with noise."""
        return scalar_or_array(np.where(np.asarray(self.delta) == 0.0, 1.0, 0.0))

    def _variance(self, q: Numeric, v: Numeric | None) -> Any:
        # v alone counts, and q + v is the second moment of the prior: 1 if nothing is said
        if v is None:
            overlap, rest = _overlap(q, v)
        else:
            overlap = np.asarray(check("q", q, low=0.0, allow_inf=False))
            rest = np.asarray(check("v", v, low=0.0, allow_inf=False))
            rest = np.where(np.isnan(overlap), np.nan, rest)
        broadcast(q=overlap, v=rest, delta=self.delta)
        return rest

    def precision(self, q: Numeric, v: Numeric | None = None) -> Any:
        """Return ``1/(delta + 1 - q)``.

        Parameters
        ----------
        q : float or array_like
            Overlap, in [0, 1]; with v given, in [0, inf).
        v : float or array_like, optional
            Variance that is left, by default ``1 - q``.

        Returns
        -------
        float or ndarray
            inf at ``q = 1`` without noise.
        """
        rest = self._variance(q, v)
        with np.errstate(divide="ignore", over="ignore"):
            return scalar_or_array(1.0 / (np.asarray(self.delta) + rest))

    def information(self, q: Numeric, v: Numeric | None = None) -> Any:
        """Return ``log(1 + (1 - q)/delta)/2`` in nats, for delta = 0 without its infinite part.

        Parameters
        ----------
        q : float or array_like
            Overlap, in [0, 1]; with v given, in [0, inf).
        v : float or array_like, optional
            Variance that is left, by default ``1 - q``.

        Returns
        -------
        float or ndarray
            What one more label tells about h.  For ``delta = 0`` that is infinite and
            ``log(1 - q)/2`` is returned: its limit after ``log(1/delta)/2`` is taken off, a
            constant that no comparison of overlaps depends on.
        """
        rest = self._variance(q, v)
        delta = np.asarray(self.delta)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            noisy = 0.5 * (np.log(delta + rest) - np.log(delta))
            noisy = np.where(rest < delta, 0.5 * np.log1p(rest / delta), noisy)
            return scalar_or_array(np.where(delta == 0.0, 0.5 * np.log(rest), noisy))

    def generalization_error(self, q: Numeric, v: Numeric | None = None) -> Any:
        """Return ``E (y - omega)^2 = delta + 1 - q``, the squared error of a new label.

        Parameters
        ----------
        q : float or array_like
            Overlap, in [0, 1]; with v given, in [0, inf).
        v : float or array_like, optional
            Variance that is left, by default ``1 - q``.

        Returns
        -------
        float or ndarray
            The noise delta of the new label included.
        """
        return scalar_or_array(np.asarray(self.delta) + self._variance(q, v))

    def score(self, y: Numeric, omega: Numeric, V: Numeric) -> tuple[Any, Any]:
        """Return ``g_out = (y - omega)/(delta + V)`` and ``dg_out/domega = -1/(delta + V)``.

        Parameters
        ----------
        y, omega : float or array_like
            Labels and the means of h.
        V : float or array_like
            Variance of h around omega, ``V >= 0``; ``delta + V > 0``.

        Returns
        -------
        tuple
            g_out and its derivative, of the common shape.
        """
        y, omega, V = numbers("y", y), numbers("omega", omega), check("V", V, low=0.0)
        broadcast(y=y, omega=omega, V=V, delta=self.delta)
        spread = np.asarray(V) + np.asarray(self.delta)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            g = (y - omega) / spread
            slope = np.where(np.isnan(g), np.nan, -1.0 / spread)
        return scalar_or_array(g), scalar_or_array(slope)

    def sample(self, h: Numeric, *, rng: Any = None) -> Array:
        """Return ``h + sqrt(delta) xi``.

        Parameters
        ----------
        h : array_like
            Noiseless outputs.
        rng : None, int or numpy.random.Generator
            Source of randomness.

        Returns
        -------
        ndarray
            Labels, of the shape of h.
        """
        output = numbers("h", h)
        noise = np.random.default_rng(rng).standard_normal(output.shape)
        return np.asarray(output + np.sqrt(np.asarray(self.delta)) * noise)


# --------------------------------------------------------------------------------------------
# Channels whose answers are compiled sums
# --------------------------------------------------------------------------------------------


def _overlap(q: Numeric, v: Numeric | None) -> tuple[Array, Array]:
    """Return the overlap and what is missing to 1."""
    # priors round, and integrate: their second moment may be 1 + UNIT
    overlap = np.asarray(np.minimum(check("q", q, low=0.0, high=1.0 + UNIT), 1.0))
    if v is None:
        return overlap, np.asarray(1.0 - overlap)
    return overlap, np.asarray(np.minimum(check("v", v, low=0.0, high=1.0 + UNIT), 1.0))


@functools.lru_cache(maxsize=8192)
def _panel(channel: Any, what: int, panel: int) -> Array:
    """Return the Chebyshev coefficients of an answer on one panel of ``log(q/v)``."""
    angle = np.pi * (np.arange(_DEGREE + 1) + 0.5) / (_DEGREE + 1)
    t = _PANEL * (panel + 0.5 + 0.5 * np.cos(angle))
    values = channel._direct(what, special.expit(t), special.expit(-t))
    basis = np.cos(np.outer(angle, np.arange(_DEGREE + 1))) * 2.0 / (_DEGREE + 1)
    basis[:, 0] *= 0.5
    return np.asarray(values @ basis)


def _interpolated(channel: Any, what: int, q: Array, v: Array) -> Array:
    """Return an answer of a channel with scalar parameters at any overlaps.

    Piecewise Chebyshev interpolation in ``log(q/v)``; a panel is solved once and remembered.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        x = (np.log(q) - np.log(v)) / _PANEL
    inner = np.abs(x) < _WHOLE / _PANEL  # the ends of a panel are numbers
    panel = np.floor(x[inner])
    keys, where = np.unique(panel, return_inverse=True)
    out, values = np.empty(q.size), np.empty(panel.size)
    if keys.size:
        coefficients = np.stack([_panel(channel, what, int(key)) for key in keys])
        kernels.chebyshev(coefficients, where.ravel(), 2.0 * (x[inner] - panel) - 1.0, values)
    out[inner] = values
    out[~inner] = channel._direct(what, q[~inner], v[~inner])
    return out


@functools.cache
def _bessel_rules() -> tuple[Array, Array, Array]:
    """Return p and weights of rules for ``(2/pi) int_0^inf K_0(p) f(p) dp`` and ``p K_1(p)``.

    Double exponential: with ``p = exp(x - exp(-x))`` the trapezoidal rule is exact to rounding
    for what is analytic around the positive axis up to the poles of sech, at ``+-i pi/2``.
    """
    step = 0.15
    x = np.arange(-3.6, 3.8, step)
    p = np.exp(x - np.exp(-x))
    weight = step * 2.0 / np.pi * p * (1.0 + np.exp(-x))
    return p, weight * special.k0(p), weight * p * special.k1(p)


@dataclass(frozen=True)
class _KernelChannel(Channel):
    """A channel whose answers are compiled sums: one array loop, told what to return."""

    _costly: ClassVar[bool] = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Common shape of the parameters."""
        return broadcast(**self._parameters())

    def _parameters(self) -> dict[str, Any]:
        """Return the parameters that may be arrays."""
        values = ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))
        return {name: value for name, value in values if not isinstance(value, tuple)}

    @abstractmethod
    def _fill(self, what: int, q: Array, v: Array, parameter: Array, out: Array) -> None:
        """Fill ``out`` for points of given overlap and parameter."""

    def _run(self, what: int, q: Numeric, v: Numeric | None) -> Any:
        """Return one answer at every overlap, in threads, interpolated where a sum is costly."""
        overlap, rest = _overlap(q, v)
        shape, columns = self._columns(overlap, rest)
        (name,) = self._parameters()
        # an element that is bad does not decide how the others are calculated
        known = columns[2][~np.isnan(columns[0] + columns[1] + columns[2])]
        one = known.size > 0 and bool(np.all(known == known[0]))
        if self._costly and one and what != kernels.ERROR:
            channel = dataclasses.replace(self, **{name: float(known[0])})
            values = _interpolated(channel, what, *columns[:2])
            values[np.isnan(columns[2])] = np.nan
        else:
            values = self._direct(what, *columns)
        return scalar_or_array(values.reshape(shape))

    def _columns(self, q: Array, v: Array) -> tuple[tuple[int, ...], list[Array]]:
        """Return the common shape, and flat: overlaps, what is missing to 1, the parameter."""
        ((name, value),) = self._parameters().items()
        shape = broadcast(q=q, v=v, **{name: value})
        return shape, [
            np.ascontiguousarray(np.broadcast_to(x, shape), dtype=np.float64).ravel()
            for x in (q, v, value)
        ]

    def _summed_precision(self, q: Array, v: Array) -> Array:
        """Return `precision`, never interpolated: for tables with nodes of their own."""
        shape, columns = self._columns(q, v)
        return self._direct(kernels.PRECISION, *columns).reshape(shape)

    def _direct(self, what: int, q: Array, v: Array, parameter: Array | None = None) -> Array:
        """Return one answer at flat overlaps, each by its sum."""
        if parameter is None:
            (value,) = self._parameters().values()
            parameter = np.full(q.size, value)
        column, out = parameter, np.empty(q.size)
        # a point may take milliseconds: blocks of few points
        grain = _GRAIN if self._costly else 1

        def work(block: slice) -> None:
            b = slice(block.start // grain, block.stop // grain)
            self._fill(what, q[b], v[b], column[b], out[b])

        run_blocks(work, q.size * grain)
        return out

    def precision(self, q: Numeric, v: Numeric | None = None) -> Any:
        """Return the information about h that one label gives at overlap ``q``.

        Parameters
        ----------
        q : float or array_like
            Overlap, in [0, 1].
        v : float or array_like, optional
            ``1 - q``, when it is known more accurately than by subtraction.

        Returns
        -------
        float or ndarray
            ``E g_out^2``, to a relative error of about 1e-11 at most.
        """
        return self._run(kernels.PRECISION, q, v)

    def information(self, q: Numeric, v: Numeric | None = None) -> Any:
        """Return what one more label tells about h at overlap ``q``, in nats.

        Parameters
        ----------
        q : float or array_like
            Overlap, in [0, 1].
        v : float or array_like, optional
            ``1 - q``, when it is known more accurately than by subtraction.

        Returns
        -------
        float or ndarray
            Mutual information ``I(y; h | omega)``, ``d/dq = -precision/2``.  Where it is infinite
            (labels without noise that are continuous with probability `resolves`) the infinite
            constant ``resolves log(1/delta)/2`` is left out, as for the `GaussianChannel`.
        """
        return self._run(kernels.INFORMATION, q, v)

    def generalization_error(self, q: Numeric, v: Numeric | None = None) -> Any:
        """Return the error of the best prediction of a new label at overlap ``q``.

        Parameters
        ----------
        q : float or array_like
            Overlap, in [0, 1].
        v : float or array_like, optional
            ``1 - q``, when it is known more accurately than by subtraction.

        Returns
        -------
        float or ndarray
            Probability of a wrong label when labels are classes, ``E (y - E[y | omega])^2`` when
            they are numbers; the noise of the new label is part of it.
        """
        return self._run(kernels.ERROR, q, v)

    def _labels(self, *values: Numeric) -> tuple[tuple[int, ...], list[Array]]:
        """Return the shape and the flat columns (y, omega, V, parameter)."""
        y, omega = (numbers(name, x) for name, x in zip(("y", "omega"), values[:2], strict=True))
        ((name, value),) = self._parameters().items()
        V = check("V", values[2], low=0.0)
        shape = broadcast(y=y, omega=omega, V=V, **{name: value})
        columns = (np.broadcast_to(np.asarray(x, np.float64), shape) for x in (y, omega, V, value))
        return shape, [np.ascontiguousarray(x).ravel() for x in columns]

    @abstractmethod
    def _scores(self, columns: list[Array], g: Array, slope: Array) -> None:
        """Fill g and its derivative."""

    def score(self, y: Numeric, omega: Numeric, V: Numeric) -> tuple[Any, Any]:
        """Return ``g_out`` and ``dg_out/domega``, stable in the tails.

        Parameters
        ----------
        y, omega : float or array_like
            Labels and the means of h.
        V : float or array_like
            Variance of h around omega, ``V >= 0``.

        Returns
        -------
        tuple
            g_out and its derivative, of the common shape; NaN at an impossible label.
        """
        shape, columns = self._labels(y, omega, V)
        g, slope = np.empty(columns[0].size), np.empty(columns[0].size)
        run_blocks(
            lambda b: self._scores([c[_wide(b)] for c in columns], g[_wide(b)], slope[_wide(b)]),
            -(-g.size // _WIDE),
        )
        return scalar_or_array(g.reshape(shape)), scalar_or_array(slope.reshape(shape))


def _wide(block: slice) -> slice:
    """Return the labels that belong to a block of points."""
    return slice(block.start * _WIDE, block.stop * _WIDE)


@dataclass(frozen=True)
class SignChannel(_KernelChannel):
    r"""Binary output ``y = sign(h + sqrt(delta) xi)``, with labels -1 and 1: probit.

    Parameters
    ----------
    delta : float or array_like
        Variance of the noise before the sign, in [0, inf).

    Raises
    ------
    ValueError
        If a scalar delta is negative or NaN; a bad element of an array gives NaN there.

    Notes
    -----
    With :math:`u = y\omega/\sqrt{V + \delta}` the evidence of a label is :math:`\Phi(u)`, and

    .. math:: \mathrm{precision}(q) = \frac{1}{\sqrt{(1 - q + \delta)(1 + \delta)}}\,
              \mathbb{E}\, k\Big(x \sqrt{\tfrac{q}{1 + \delta}}\Big), \qquad
              k(u) = \frac{e^{-u^2/2}}{2\pi\, \Phi(u)\, \Phi(-u)},

    x standard normal: :math:`2/(\pi (1 + \delta))` at q = 0, and without noise
    :math:`C/\sqrt{1 - q}` as q tends to 1, :math:`C = (2 \pi)^{-1/2} \int \phi^2/(\Phi(1 - \Phi))
    = 0.7206...`.  ``generalization_error`` is the probability that the sign of omega is not the
    label, :math:`\arccos(\sqrt{q/(1 + \delta)})/\pi`.

    Examples
    --------
    >>> from bsr_theory.channels import SignChannel
    >>> SignChannel().precision([0.3, 0.9]).round(10)
    array([0.79192525, 2.25347865])
    """

    delta: Any = 0.0

    single_fixed_point: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the parameter."""
        object.__setattr__(self, "delta", check("delta", self.delta, low=0.0, allow_inf=False))

    @property
    def resolves(self) -> Any:
        """0: the precision diverges without noise too, but only like ``1/sqrt(1 - q)``."""
        return scalar_or_array(0.0 * np.asarray(self.delta))

    def _fill(self, what: int, q: Array, v: Array, parameter: Array, out: Array) -> None:
        kernels.sign_array(what, q, v, parameter, out)

    def _scores(self, columns: list[Array], g: Array, slope: Array) -> None:
        kernels.sign_score(*columns, g, slope)

    def sample(self, h: Numeric, *, rng: Any = None) -> Array:
        """Return ``sign(h + sqrt(delta) xi)``.

        Parameters
        ----------
        h : array_like
            Noiseless outputs.
        rng : None, int or numpy.random.Generator
            Source of randomness.

        Returns
        -------
        ndarray
            Labels -1.0 and 1.0, of the shape of h.
        """
        return np.where(_noisy(h, self.delta, rng) >= 0.0, 1.0, -1.0)


def _noisy(h: Numeric, delta: Any, rng: Any) -> Array:
    """Return ``h + sqrt(delta) xi``."""
    return GaussianChannel(delta).sample(h, rng=rng)


@dataclass(frozen=True)
class _RectifiedChannel(_KernelChannel):
    """What `AbsChannel` and `ReLUChannel` share: a piecewise linear output and noise."""

    delta: Any = 0.0

    _kind: ClassVar[int]
    _share: ClassVar[float]

    def __post_init__(self) -> None:
        """Check the parameter."""
        object.__setattr__(self, "delta", check("delta", self.delta, low=0.0, allow_inf=False))

    @property  # a constant of other channels depends on the noise here
    def _costly(self) -> bool:  # type: ignore[override]
        return bool(np.any(np.asarray(self.delta) > 0.0))

    @property
    def resolves(self) -> Any:
        """Share of labels without noise that are linear equations; 0 with noise."""
        return scalar_or_array(np.where(np.asarray(self.delta) == 0.0, self._share, 0.0))

    def _fill(self, what: int, q: Array, v: Array, parameter: Array, out: Array) -> None:
        rule = kernels.RULES[self._kind]
        kernels.rectified_array(what, self._kind, q, v, parameter, *_bessel_rules(), *rule, out)

    def _scores(self, columns: list[Array], g: Array, slope: Array) -> None:
        kernels.rectified_score(self._kind, *columns, g, slope)


@dataclass(frozen=True)
class AbsChannel(_RectifiedChannel):
    r"""Output without its sign, ``y = |h| + sqrt(delta) xi``: phase retrieval with real numbers.

    Parameters
    ----------
    delta : float or array_like
        Noise variance, in [0, inf).

    Raises
    ------
    ValueError
        If a scalar delta is negative or NaN; a bad element of an array gives NaN there.

    Notes
    -----
    The score is :math:`g = (y T - \omega)/(V + \delta)`, T the posterior mean of the sign of h.
    Without noise :math:`T = \tanh(\omega y/V)`, the average over labels is that of an antipodal
    signal in Gaussian noise, and with the law :math:`p K_1(p)/\pi` of a product of two normal
    variables (one of them squared in the weight)

    .. math:: (1 - q)\, \mathrm{precision}(q) = 1 - \sqrt{1 - q}\; \frac2\pi
              \int_0^\infty p K_1(p)\, \mathrm{sech}(\sqrt q\, p)\, dp .

    It is 2q at first, since labels are even in h and teach nothing at q = 0: without noise weak
    recovery from a prior of unit variance is at alpha = 1/2.  As q tends to 1 it is
    :math:`1/(1 - q)`: the sign is known and labels are linear.

    Examples
    --------
    >>> from bsr_theory.channels import AbsChannel
    >>> AbsChannel().precision([0.05, 0.6]).round(10)
    array([0.08814931, 1.40877407])
    """

    _kind: ClassVar[int] = kernels.ABS
    _share: ClassVar[float] = 1.0

    def sample(self, h: Numeric, *, rng: Any = None) -> Array:
        """Return ``|h| + sqrt(delta) xi``.

        Parameters
        ----------
        h : array_like
            Noiseless outputs.
        rng : None, int or numpy.random.Generator
            Source of randomness.

        Returns
        -------
        ndarray
            Labels, of the shape of h.
        """
        return _noisy(np.abs(numbers("h", h)), self.delta, rng)


@dataclass(frozen=True)
class ReLUChannel(_RectifiedChannel):
    r"""Rectified output, ``y = max(h, 0) + sqrt(delta) xi``.

    Parameters
    ----------
    delta : float or array_like
        Noise variance, in [0, inf).

    Raises
    ------
    ValueError
        If a scalar delta is negative or NaN; a bad element of an array gives NaN there.

    Notes
    -----
    With w the posterior probability that h > 0 and p its density at the kink h = 0 the score is
    :math:`g = (w (y - \omega) - V p)/(V + \delta)`.  Without noise half of the labels are linear
    equations and the others signs, and the precision is the mean of the two:
    :math:`\tfrac12 (1 - q)^{-1} + \tfrac12\,\mathrm{precision}_{\rm sign}(q)`.  The same holds
    for the information.

    Examples
    --------
    >>> from bsr_theory.channels import ReLUChannel
    >>> ReLUChannel().precision([0.3, 0.9]).round(10)
    array([1.11024834, 6.12673932])
    """

    _kind: ClassVar[int] = kernels.RELU
    _share: ClassVar[float] = 0.5

    def sample(self, h: Numeric, *, rng: Any = None) -> Array:
        """Return ``max(h, 0) + sqrt(delta) xi``.

        Parameters
        ----------
        h : array_like
            Noiseless outputs.
        rng : None, int or numpy.random.Generator
            Source of randomness.

        Returns
        -------
        ndarray
            Labels, of the shape of h.
        """
        return _noisy(np.maximum(numbers("h", h), 0.0), self.delta, rng)


@dataclass(frozen=True)
class LogisticChannel(_KernelChannel):
    r"""Binary output with ``P(y = 1 | h) = 1/(1 + exp(-gain h))``, labels -1 and 1.

    Parameters
    ----------
    gain : float or array_like
        Slope of the log odds, in [0, inf).  Large gains approach `SignChannel`.

    Raises
    ------
    ValueError
        If a scalar gain is negative, infinite or NaN; a bad element of an array gives NaN there.

    Notes
    -----
    The evidence of a label is a log-concave integral over h, summed from its mode outwards.
    ``generalization_error`` is the probability that the sign of omega is not the label.

    Examples
    --------
    >>> from bsr_theory.channels import LogisticChannel
    >>> round(LogisticChannel(gain=2.0).precision(0.5), 10)
    0.451352778
    """

    gain: Any = 1.0

    _costly: ClassVar[bool] = True
    single_fixed_point: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the parameter."""
        object.__setattr__(self, "gain", check("gain", self.gain, low=0.0, allow_inf=False))

    @property
    def resolves(self) -> Any:
        """0: the precision is at most ``gain^2/4``."""
        return scalar_or_array(0.0 * np.asarray(self.gain))

    def _fill(self, what: int, q: Array, v: Array, parameter: Array, out: Array) -> None:
        kernels.logistic_array(what, q, v, parameter, kernels.NODES, kernels.WEIGHTS, out)

    def _scores(self, columns: list[Array], g: Array, slope: Array) -> None:
        kernels.logistic_score(*columns, kernels.NODES, kernels.WEIGHTS, g, slope)

    def sample(self, h: Numeric, *, rng: Any = None) -> Array:
        """Return labels -1.0 and 1.0.

        Parameters
        ----------
        h : array_like
            Noiseless outputs.
        rng : None, int or numpy.random.Generator
            Source of randomness.

        Returns
        -------
        ndarray
            Labels, of the shape of h.
        """
        field = np.asarray(self.gain) * numbers("h", h)
        return np.where(
            np.random.default_rng(rng).random(field.shape) < special.expit(field), 1.0, -1.0
        )


@dataclass(frozen=True)
class QuantizedChannel(_KernelChannel):
    r"""Quantised output: the number of thresholds below ``h + sqrt(delta) xi``.

    Parameters
    ----------
    thresholds : sequence of float
        Increasing and finite; K of them make labels 0, 1, ..., K.
    delta : float or array_like
        Variance of the noise before the quantisation, in [0, inf).

    Raises
    ------
    ValueError
        If thresholds are not finite and increasing, or a scalar delta is negative or NaN; a bad
        element of an array gives NaN there.

    Notes
    -----
    With :math:`P_j(\omega)` the probability of bin j under :math:`N(\omega, V + \delta)` the
    precision is :math:`\mathbb{E}_\omega \sum_j P_j'^2/P_j`.  Without noise it diverges as q tends
    to 1 like :math:`C \sum_t e^{-t^2/2}/\sqrt{1 - q}`, a sum over thresholds, C as for
    `SignChannel`.  ``generalization_error`` is the probability that the likeliest bin given omega
    is not the label.

    Examples
    --------
    >>> from bsr_theory.channels import QuantizedChannel, SignChannel
    >>> bool(abs(QuantizedChannel([0.0]).precision(0.3) - SignChannel().precision(0.3)) < 1e-14)
    True
    """

    thresholds: tuple[float, ...]
    delta: Any = 0.0

    _costly: ClassVar[bool] = True
    single_fixed_point: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the parameters."""
        levels = numbers("thresholds", self.thresholds)
        good = levels.ndim == 1 and levels.size > 0 and bool(np.isfinite(levels).all())
        if not good or np.any(np.diff(levels) <= 0.0):
            raise ValueError(f"thresholds must be finite and increasing, got {self.thresholds!r}")
        object.__setattr__(self, "thresholds", tuple(float(x) for x in levels))
        object.__setattr__(self, "delta", check("delta", self.delta, low=0.0, allow_inf=False))

    @property
    def resolves(self) -> Any:
        """0: the precision diverges without noise too, but only like ``1/sqrt(1 - q)``."""
        return scalar_or_array(0.0 * np.asarray(self.delta))

    def _fill(self, what: int, q: Array, v: Array, parameter: Array, out: Array) -> None:
        levels = np.array(self.thresholds)
        kernels.quantized_array(what, levels, q, v, parameter, kernels.NODES, kernels.WEIGHTS, out)

    def _scores(self, columns: list[Array], g: Array, slope: Array) -> None:
        levels = np.array(self.thresholds)
        kernels.quantized_score(*columns, levels, kernels.NODES, kernels.WEIGHTS, g, slope)

    def sample(self, h: Numeric, *, rng: Any = None) -> Array:
        """Return the number of thresholds below ``h + sqrt(delta) xi``.

        Parameters
        ----------
        h : array_like
            Noiseless outputs.
        rng : None, int or numpy.random.Generator
            Source of randomness.

        Returns
        -------
        ndarray
            Labels 0.0, 1.0, ..., K, of the shape of h.
        """
        field = _noisy(h, self.delta, rng)
        return np.searchsorted(np.array(self.thresholds), field).astype(np.float64)


# --------------------------------------------------------------------------------------------
# A channel given by its likelihood
# --------------------------------------------------------------------------------------------

_ORDER = 16
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(_ORDER)
# values at the nodes -> Legendre coefficients
_TO_LEGENDRE = (np.arange(_ORDER)[:, None] + 0.5) * (
    np.polynomial.legendre.legvander(_NODES, _ORDER - 1) * _WEIGHTS[:, None]
).T
_FAR = 8.6  # standard deviations that a sum covers
_REACH = 12.5  # no h beyond has weight: 8.6 (sqrt(q) + sqrt(1 - q)) at most
_RESOLVED = 1e-12  # last Legendre coefficients of a panel over the largest value
_FINEST = 1e-9  # width below which a panel is not split: a jump
_TABLE = 3e6  # likelihoods that are kept for the next overlap
_LIMIT = 1e-13  # 1 - q below which the limit q = 1 is taken


def _nodes(edges: Array) -> tuple[Array, Array]:
    """Return nodes and weights of Gauss-Legendre rules on the panels between edges."""
    half, middle = 0.5 * np.diff(edges), 0.5 * (edges[1:] + edges[:-1])
    return (middle[:, None] + half[:, None] * _NODES).ravel(), np.outer(half, _WEIGHTS).ravel()


def _subdivided(edges: Array, width: float) -> Array:
    """Return edges with every panel cut into equal ones of at most ``width``."""
    parts = np.maximum(1, np.ceil(np.diff(edges) / width)).astype(int)
    pieces = [
        np.linspace(a, b, n, endpoint=False)
        for a, b, n in zip(edges[:-1], edges[1:], parts, strict=True)
    ]
    return np.concatenate([*pieces, edges[-1:]])


def _resolved(f: Callable[[Array], Array], edges: Array) -> tuple[Array, bool]:
    """Return edges of panels on which polynomials represent f, and whether f jumps.

    ``f(x)`` has a row for each x.
    """
    done: list[Array] = []
    panels = np.stack([edges[:-1], edges[1:]], axis=1)
    scale, jumps = 0.0, False
    while panels.size:
        half, middle = 0.5 * np.diff(panels, axis=1), panels.mean(axis=1, keepdims=True)
        values = f((middle + half * _NODES).ravel()).reshape(len(panels), _ORDER, -1)
        scale = max(scale, float(np.max(np.abs(values))))
        tail = np.abs(np.einsum("kn,pnm->pkm", _TO_LEGENDRE[-2:], values)).max(axis=(1, 2))
        rough = tail > _RESOLVED * scale
        narrow = (half <= 0.5 * _FINEST).ravel()
        jumps |= bool(np.any(rough & narrow))
        split = rough & ~narrow
        done.append(panels[~split])
        low, high, middle = panels[split, :1], panels[split, 1:], middle[split]
        panels = np.concatenate([np.hstack([low, middle]), np.hstack([middle, high])])
    return np.unique(np.concatenate(done)), jumps


@dataclass(frozen=True)
class _OutputGrid:
    """Labels with their weights, and panels of h on which the likelihood is a polynomial."""

    y: Array
    weight: Array
    edges: Array  # of panels in h
    panels: Array | None  # edges of panels in y, None for classes
    jumps: bool
    alive: npt.NDArray[np.bool_]  # whether a label occurs at all on a panel of h

    def around(self, low: float, high: float) -> tuple[slice, _OutputGrid]:
        """Return the panels of h that meet [low, high], and the grid of labels alive there."""
        first, last = np.searchsorted(self.edges, [low, high])
        panels = slice(max(int(first) - 1, 0), min(int(last), self.edges.size - 1))
        rows = self.alive[:, panels].any(axis=1)
        if rows.all():
            return panels, self
        alive = dataclasses.replace(
            self, y=self.y[rows], weight=self.weight[rows], alive=self.alive[rows]
        )
        return panels, alive


@dataclass(frozen=True)
class OutputChannel(Channel):
    r"""Any output law, given by its likelihood ``P_out(y | h)``.

    Parameters
    ----------
    likelihood : callable
        ``likelihood(y, h)`` for arrays that broadcast: probability of the label y, or its
        density when labels are continuous.  Normalised over y at every h in [-12.5, 12.5].
    outputs : sequence of float, optional
        The labels when there are finitely many; without it they are continuous.
    support : tuple of two floats
        Range of continuous labels; its ends may be infinite.
    points : sequence of float
        Labels y at which the density has kinks or jumps, if any.
    breaks : sequence of float
        Values of h at which the likelihood has kinks or jumps, or narrow features, if any.
    noiseless_share : float
        What `resolves` returns; labels that are functions of h need their own channel.

    Raises
    ------
    ValueError
        If outputs, support, points or breaks are not finite and increasing where they must be,
        or the likelihood is negative, not finite or not normalised to 1e-8.

    Notes
    -----
    The likelihood is resolved once by Gauss-Legendre panels of 16 nodes in h and in y, bisected
    until its Legendre coefficients fall below 1e-12 of its largest value.  Averages over
    ``h ~ N(omega, V)`` and omega then use panels of the widths ``sqrt(V)`` and ``sqrt(q)`` graded
    towards the breaks.  For likelihoods that are smooth in y and h apart from the given points
    the relative error of `precision` is about 1e-10 for q in [1e-8, 1 - 1e-8], as the tests show
    for the channels with formulas; `accuracy` estimates it.  Features of the density in y that
    move with h must not be narrower than about 0.01: noise below has to be treated in closed form.

    One overlap costs milliseconds for classes and up to a second for continuous labels; overlaps
    are interpolated in ``log(q/(1 - q))`` from panels of 17 that are solved once.

    Examples
    --------
    >>> import numpy as np
    >>> from bsr_theory.channels import LogisticChannel, OutputChannel
    >>> logistic = OutputChannel(lambda y, h: 1 / (1 + np.exp(-y * h)), outputs=(-1.0, 1.0))
    >>> bool(abs(logistic.precision(0.5) / LogisticChannel(gain=1.0).precision(0.5) - 1) < 1e-10)
    True
    """

    likelihood: Callable[[Array, Array], Any]
    outputs: tuple[float, ...] | None = None
    support: tuple[float, float] = (-np.inf, np.inf)
    points: tuple[float, ...] = ()
    breaks: tuple[float, ...] = ()
    noiseless_share: float = 0.0

    def __post_init__(self) -> None:
        """Check the parameters and the normalisation."""
        if not callable(self.likelihood):
            raise ValueError(f"likelihood must be callable, got {self.likelihood!r}")
        for name in ("outputs", "points", "breaks", "support"):
            value = getattr(self, name)
            if value is None:
                continue
            array = numbers(name, value)
            finite = name == "support" or bool(np.isfinite(array).all())
            if array.ndim != 1 or not finite or not np.all(np.diff(array) > 0.0):
                raise ValueError(f"{name} must be finite and increasing, got {value!r}")
            object.__setattr__(self, name, tuple(float(x) for x in array))
        if self.outputs is not None and not self.outputs:
            raise ValueError(f"outputs must hold at least one label, got {self.outputs!r}")
        if len(self.support) != 2:
            raise ValueError(f"support must be a pair (low, high), got {self.support!r}")
        share = check("noiseless_share", self.noiseless_share, low=0.0, high=1.0)
        object.__setattr__(self, "noiseless_share", share)
        grid = _output_grid(self)
        h = _nodes(grid.edges)[0]
        values = self._likelihood(grid.y[:, None], h)
        if not np.isfinite(values).all() or np.any(values < 0.0):
            raise ValueError("likelihood must be finite and >= 0")
        total = grid.weight @ values
        worst = np.argmax(np.abs(total - 1.0))
        if abs(total[worst] - 1.0) > 1e-8:
            raise ValueError(
                f"likelihood must be normalised over y, got total {total[worst]:.10g} "
                f"at h = {h[worst]:.4g}"
            )

    @property
    def resolves(self) -> Any:
        """The given ``noiseless_share``."""
        return self.noiseless_share

    def _likelihood(self, y: Array, h: Array) -> Array:
        value = np.asarray(self.likelihood(y, h), dtype=np.float64)
        return np.broadcast_to(value, np.broadcast_shapes(np.shape(y), np.shape(h)))

    # ---- averages over h at given omega, by panels ----

    def _moments(
        self, omega: Array, V: float, grid: _OutputGrid
    ) -> tuple[Array, Array, _OutputGrid]:
        """Return Z and Z', a row for each label of the grid and a column for each omega.

        The grid that is returned leaves out labels that do not occur.
        """
        width = float(np.sqrt(V))
        low, high = float(omega.min()) - _FAR * width, float(omega.max()) + _FAR * width
        level = int(np.floor(np.log2(width)))
        if grid.y.size * _ORDER * (grid.edges.size + 10.0 / 2.0**level) <= _TABLE:
            h, weight, P = _likelihood_table(self, level)
            inside = slice(*np.searchsorted(h, [low, high]))
            x = (h[inside, None] - omega) / width
            kernel = weight[inside, None] * np.exp(-0.5 * x * x) / (np.sqrt(2 * np.pi) * width)
            return P[:, inside] @ kernel, P[:, inside] @ (kernel * x) / width, grid
        inner = grid.edges[(grid.edges > low) & (grid.edges < high)]
        panels, grid = grid.around(low, high)
        rough = any(low < b < high for b in self.breaks)
        if not rough and np.diff(grid.edges)[panels].min() >= 4.0 * width:
            # smooth on the scale of the normal law: trapezoidal rule around each omega
            x = 0.55 * np.arange(-16.0, 17.0)
            mass = 0.55 * np.exp(-0.5 * x * x) / np.sqrt(2.0 * np.pi)
            h = omega[:, None] + width * x
            P = self._likelihood(grid.y[:, None, None], h)
            return P @ mass, P @ (mass * x) / width, grid
        edges = _subdivided(np.unique(np.concatenate([[low], inner, [high]])), 2.5 * width)
        h, weight = _nodes(edges)
        x = (h[:, None] - omega) / width
        kernel = weight[:, None] * np.exp(-0.5 * x * x) / (np.sqrt(2.0 * np.pi) * width)
        P = self._likelihood(grid.y[:, None], h)
        return P @ kernel, P @ (kernel * x) / width, grid

    def _at_one(self, grid: _OutputGrid) -> tuple[Array, Array, Array, Array]:
        """Return omega = h, its weights, P and dP/dh: the limit V = 0."""
        h, weight = _nodes(grid.edges)
        P = self._likelihood(grid.y[:, None], h)
        basis = np.polynomial.legendre
        slope = basis.legval(_NODES, basis.legder(_TO_LEGENDRE)).T
        half = 0.5 * np.diff(grid.edges)
        slopes = np.einsum("ymn,kn->ymk", P.reshape(P.shape[0], -1, _ORDER), slope)
        slopes = slopes / half[:, None]
        law = weight * np.exp(-0.5 * h * h) / np.sqrt(2.0 * np.pi)
        return h, law, P, slopes.reshape(P.shape)

    def _panels(self, q: float, v: float, grid: _OutputGrid, fine: float) -> Array:
        """Return edges of panels in omega."""
        width, end = np.sqrt(v), _FAR * np.sqrt(q)
        steps = width * 2.0 ** np.arange(0.0, 5.0)
        graded = [b + s for b in self.breaks for s in (*-steps, 0.0, *steps)]
        edges = np.unique(np.concatenate([grid.edges, graded]))
        kept = [-end]
        for edge in edges[(edges > -end) & (edges < end)]:
            if edge - kept[-1] >= 0.5 * width:
                kept.append(float(edge))
        kept.append(end)
        # the law of omega and the smoothed likelihood vary over sqrt(q); 1 is the width of y
        return _subdivided(np.array(kept), fine * min(1.5 * np.sqrt(q), 1.5))

    def _mean(self, what: int, q: float, v: float, fine: float = 1.0) -> float:
        """Return an average over omega."""
        if np.isnan(q + v):
            return float("nan")
        grid = _output_grid(self)
        if v < _LIMIT:
            if grid.jumps and what != kernels.ERROR:
                # a jump is resolved to sqrt(v): precision and information scale with that
                power = 0.5 if what == kernels.INFORMATION else -0.5
                scale = float("inf") if v == 0.0 and power < 0.0 else (v / _LIMIT) ** power
                return scale * self._mean(what, q, _LIMIT, fine)
            if what == kernels.INFORMATION:
                return 0.0
            _, law, Z, slope = self._at_one(grid)
            return float(law @ self._collect(what, Z, slope, grid))
        if q == 0.0:
            total = float(self._collect(what, *self._moments(np.zeros(1), v, grid))[0])
        else:
            edges, total = self._panels(q, v, grid, fine), 0.0
            for low, high in itertools.pairwise(edges):
                omega, weight = _nodes(np.array([low, high]))
                law = weight * np.exp(-0.5 * omega**2 / q) / np.sqrt(2.0 * np.pi * q)
                total += float(law @ self._collect(what, *self._moments(omega, v, grid)))
        if what == kernels.INFORMATION:
            _, law, Z, slope = self._at_one(grid)
            total -= float(law @ self._collect(what, Z, slope, grid))
        return total

    def _collect(self, what: int, Z: Array, slope: Array, grid: _OutputGrid) -> Array:
        """Return the sum over labels at each omega."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if what == kernels.PRECISION:
                terms = np.where(Z > 1e-290, slope * slope / Z, 0.0)
            elif what == kernels.INFORMATION:
                terms = -special.xlogy(Z, Z)
            elif grid.panels is None:
                return np.asarray(1.0 - Z.max(axis=0))
            else:
                mean = (grid.weight * grid.y) @ Z
                return np.asarray((grid.weight * grid.y**2) @ Z - mean**2)
        return np.asarray(grid.weight @ terms)

    def _run(self, what: int, q: Numeric, v: Numeric | None) -> Any:
        overlap, rest = _overlap(q, v)
        shape = broadcast(q=overlap, v=rest)
        columns = [np.broadcast_to(x, shape).astype(np.float64).ravel() for x in (overlap, rest)]

        if what == kernels.ERROR:
            return scalar_or_array(self._direct(what, *columns).reshape(shape))
        return scalar_or_array(_interpolated(self, what, *columns).reshape(shape))

    def _direct(self, what: int, q: Array, v: Array) -> Array:
        points = zip(q.tolist(), v.tolist(), strict=True)
        return np.array([self._mean(what, *point) for point in points], dtype=np.float64)

    def precision(self, q: Numeric, v: Numeric | None = None) -> Any:
        """Return the information about h that one label gives at overlap ``q``.

        Parameters
        ----------
        q : float or array_like
            Overlap, in [0, 1].
        v : float or array_like, optional
            ``1 - q``, when it is known more accurately than by subtraction.

        Returns
        -------
        float or ndarray
            ``E g_out^2``; at q = 1 the mean Fisher information of the likelihood, inf if it
            jumps.
        """
        return self._run(kernels.PRECISION, q, v)

    def information(self, q: Numeric, v: Numeric | None = None) -> Any:
        """Return the mutual information ``I(y; h | omega)`` at overlap ``q``, in nats.

        Parameters
        ----------
        q : float or array_like
            Overlap, in [0, 1].
        v : float or array_like, optional
            ``1 - q``, when it is known more accurately than by subtraction.

        Returns
        -------
        float or ndarray
            ``d/dq = -precision/2``; absolute error about 1e-11.
        """
        return self._run(kernels.INFORMATION, q, v)

    def generalization_error(self, q: Numeric, v: Numeric | None = None) -> Any:
        """Return the error of the best prediction of a new label at overlap ``q``.

        Parameters
        ----------
        q : float or array_like
            Overlap, in [0, 1].
        v : float or array_like, optional
            ``1 - q``, when it is known more accurately than by subtraction.

        Returns
        -------
        float or ndarray
            Classes: probability that the likeliest label given omega is wrong, to about 1e-4
            (the likeliest label changes at kinks that no panel knows).  Continuous labels:
            ``E (y - E[y | omega])^2``, meaningless where the variance of y is infinite.
        """
        return self._run(kernels.ERROR, q, v)

    def accuracy(self, q: Numeric, v: Numeric | None = None) -> Any:
        """Return an estimate of the relative error of `precision`.

        Parameters
        ----------
        q : float or array_like
            Overlap, in [0, 1].
        v : float or array_like, optional
            ``1 - q``, when it is known more accurately than by subtraction.

        Returns
        -------
        float or ndarray
            Relative difference from panels in omega of half the width.
        """
        overlap, rest = _overlap(q, v)
        shape = broadcast(q=overlap, v=rest)
        out = np.empty(shape)
        for at in np.ndindex(shape):
            point = float(np.broadcast_to(overlap, shape)[at])
            beside = float(np.broadcast_to(rest, shape)[at])
            coarse = self._mean(kernels.PRECISION, point, beside)
            fine = self._mean(kernels.PRECISION, point, beside, fine=0.5)
            out[at] = abs(coarse - fine) / abs(fine) if np.isfinite(fine) and fine else 0.0
        return scalar_or_array(out)

    def score(self, y: Numeric, omega: Numeric, V: Numeric) -> tuple[Any, Any]:
        """Return ``g_out`` and ``dg_out/domega``.

        Parameters
        ----------
        y, omega : float or array_like
            Labels and the means of h.
        V : float or array_like
            Variance of h around omega, ``V > 0``.

        Returns
        -------
        tuple
            g_out and its derivative, of the common shape; NaN where the evidence vanishes.

        Notes
        -----
        A Gauss-Legendre sum of some 150 likelihoods for each label, with panels that end at the
        breaks: for a likelihood narrower in h than about ``sqrt(V)/2`` give breaks around it.
        """
        y, omega = numbers("y", y), numbers("omega", omega)
        V = check("V", V, low=0.0, open_low=True)
        shape = broadcast(y=y, omega=omega, V=V)
        labels, means, variances = (
            np.broadcast_to(np.asarray(x, dtype=np.float64), shape).ravel() for x in (y, omega, V)
        )
        g, slope = np.empty(labels.size), np.empty(labels.size)
        for start in range(0, labels.size, _BATCH):
            rows = slice(start, start + _BATCH)
            g[rows], slope[rows] = self._score(labels[rows], means[rows], variances[rows])
        return scalar_or_array(g.reshape(shape)), scalar_or_array(slope.reshape(shape))

    def _score(self, y: Array, omega: Array, V: Array) -> tuple[Array, Array]:
        width = np.sqrt(V)[:, None]
        fixed = _FAR * np.linspace(-1.0, 1.0, 9)
        kinks = np.clip((np.array(self.breaks) - omega[:, None]) / width, -_FAR, _FAR)
        ends = np.hstack([np.broadcast_to(fixed, (y.size, fixed.size)), kinks])
        edges = np.sort(ends, axis=1)
        half, middle = 0.5 * np.diff(edges), 0.5 * (edges[:, 1:] + edges[:, :-1])
        x = (middle[..., None] + half[..., None] * _NODES).reshape(y.size, -1)
        mass = (half[..., None] * _WEIGHTS).reshape(y.size, -1) * np.exp(-0.5 * x * x)
        P = mass * self._likelihood(y[:, None], omega[:, None] + width * x)
        with np.errstate(divide="ignore", invalid="ignore"):
            total = P.sum(axis=1)
            mean = (P * x).sum(axis=1) / total
            excess = (P * (x - mean[:, None]) ** 2).sum(axis=1) / total - 1.0
            return mean / width[:, 0], excess / V

    def sample(self, h: Numeric, *, rng: Any = None) -> Array:
        """Return labels drawn from the likelihood, by inversion of its distribution function.

        Parameters
        ----------
        h : array_like
            Noiseless outputs.
        rng : None, int or numpy.random.Generator
            Source of randomness.

        Returns
        -------
        ndarray
            Labels, of the shape of h.
        """
        field = numbers("h", h)
        uniform = np.random.default_rng(rng).random(field.shape).ravel()
        out = np.empty(uniform.size)
        for start in range(0, out.size, _BATCH):
            rows = slice(start, start + _BATCH)
            out[rows] = self._inverse(field.ravel()[rows], uniform[rows])
        return out.reshape(field.shape)

    def _inverse(self, h: Array, uniform: Array) -> Array:
        """Return the label at which the distribution function given h is ``uniform``."""
        grid = _output_grid(self)
        P = self._likelihood(grid.y[:, None], h) * grid.weight[:, None]
        if grid.panels is None:
            sums = np.cumsum(P, axis=0)
            below = (sums < uniform * sums[-1]).sum(axis=0)
            return np.asarray(grid.y[np.minimum(below, grid.y.size - 1)])
        masses = P.reshape(-1, _ORDER, h.size).sum(axis=1)
        sums = np.cumsum(masses, axis=0)
        target = uniform * sums[-1]
        panel = np.minimum((sums < target).sum(axis=0), masses.shape[0] - 1)
        column = np.arange(h.size)
        target = target - (sums[panel, column] - masses[panel, column])
        # inside the panel: the integral of the polynomial through the nodes, by bisection
        half = 0.5 * np.diff(grid.panels)
        values = P.reshape(-1, _ORDER, h.size)[panel, :, column] / _WEIGHTS
        integral = np.polynomial.legendre.legint(_TO_LEGENDRE @ values.T, lbnd=-1.0)
        low, high = -np.ones(h.size), np.ones(h.size)
        for _ in range(52):
            middle = 0.5 * (low + high)
            short = np.polynomial.legendre.legval(middle, integral, tensor=False) < target
            low, high = np.where(short, middle, low), np.where(short, high, middle)
        return np.asarray(grid.panels[panel] + half[panel] * (1.0 + low))


_BATCH = 1000  # labels treated at once


@functools.lru_cache(maxsize=32)
def _output_grid(channel: OutputChannel) -> _OutputGrid:
    """Resolve the likelihood of a channel in y and in h."""
    kinks = [b for b in channel.breaks if abs(b) < _REACH]
    # uneven ends: a kink at a round number must not hide at the edge of two panels
    start = np.unique(np.concatenate([np.linspace(-_REACH - 0.0314, _REACH + 0.1627, 26), kinks]))
    if channel.outputs is not None:
        y, weight, panels = np.array(channel.outputs), np.ones(len(channel.outputs)), None
    else:
        probes = _nodes(start)[0][::2]
        panels = _label_panels(channel, probes)
        y, weight = _nodes(panels)
    edges, jumps = _resolved(lambda h: channel._likelihood(y, h[:, None]), start)
    for b in kinks:
        sides = [channel._likelihood(y, np.array(b + s * 1e-10)) for s in (-1.0, 1.0)]
        jumps |= bool(np.max(np.abs(sides[1] - sides[0])) > 1e-7)
    values = channel._likelihood(y[:, None], _nodes(edges)[0])
    alive = values.reshape(y.size, -1, _ORDER).max(axis=2) > 1e-40
    return _OutputGrid(y, weight, edges, panels, jumps, alive)


@functools.lru_cache(maxsize=8)
def _likelihood_table(channel: OutputChannel, level: int) -> tuple[Array, Array, Array]:
    """Return h, weights and the likelihood of every label, for ``sqrt(V) >= 2^level``."""
    grid = _output_grid(channel)
    h, weight = _nodes(_subdivided(grid.edges, 2.5 * 2.0**level))
    return h, weight, channel._likelihood(grid.y[:, None], h)


def _label_panels(channel: OutputChannel, h: Array) -> Array:
    """Return edges of panels in y that resolve the density of continuous labels at every h."""

    def density(y: Array) -> Array:
        return channel._likelihood(y[:, None], h)

    low, high = channel.support
    inner = [p for p in channel.points if low < p < high]
    ends: list[float] = []
    for end, side in ((low, -1.0), (high, 1.0)):
        if np.isfinite(end):
            ends.append(end)
            continue
        # panels of doubling length until nothing is left
        edge = max(1.0, side * (inner[-1 if side > 0 else 0] if inner else 0.0))
        if np.isfinite(other := high if side < 0 else low):
            edge = max(edge, side * other + 1.0)
        while edge < 2.0**60:
            ends.append(side * edge)
            y, weight = _nodes(np.sort(side * np.array([edge, 2.0 * edge])))
            edge *= 2.0
            if edge > 2.0 * _REACH and np.max(weight @ density(y)) < 1e-16:
                break
        ends.append(side * edge)
    middle = [0.0] if low < 0.0 < high else []
    return _resolved(density, np.unique([*ends, *inner, *middle]))[0]
