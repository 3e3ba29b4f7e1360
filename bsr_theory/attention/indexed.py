r"""Attention-indexed models: labels that depend on the scores of pairs of tokens.

A sample is a set of Gaussian tokens, and its label depends on the scores

.. math:: h_{ab} = \frac{x_a^{\mathsf T} S x_b - \delta_{ab}\operatorname{tr} S}{d}

of all pairs (a, b): tied attention, with ``S = W W^T/sqrt(r)`` symmetric (arXiv:2506.01582).  The
scores of unordered pairs are Gaussian with covariance ``(q + v) D``, ``D_ab = 1 + delta_ab``, of
which ``v D`` is left once S is known up to an error v.  In cross-attention the queries and the keys
are different tokens, S is the product of two factors, and ``D = 1``.

Each problem is a prior times a channel at ``alpha = n/(d1 d2)`` like any other, so that everything
that solves a `Problem` solves these.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.polynomial import chebyshev
from scipy.special import expit, softmax
from scipy.stats import norm, qmc

from .._arrays import (
    Array,
    Numeric,
    broadcast,
    check,
    check_integer,
    run_blocks,
    scalar_or_array,
)
from .._kernels import attention as kernels
from ..channels import Channel
from ..priors import GaussianFactorPrior, SymmetricFactorPrior
from ..problem import Problem

__all__ = [
    "HardmaxChannel",
    "LinearTokenChannel",
    "NoisySoftmaxChannel",
    "SoftmaxChannel",
    "TokenChannel",
    "cross_attention",
    "hardmax_attention",
    "linear_attention",
    "quadratic_network",
    "self_attention",
    "softmax_attention",
]

_LARGEST_RULE = 1500  # points for a row's softmax of two tokens, enough up to a scale of 55
_SOBOL = 14  # log2 of the points of an average over more tokens
_DRAWS = 12  # log2 of the points of an average over labels with noise after the softmax
_SEED = 20241018  # of these points: the same at every call, so that answers are smooth


class TokenChannel(Channel):
    """Law of the label of one sample given the scores of its pairs of tokens.

    Scores and labels are arrays of shape (..., queries, keys), symmetric in the last two axes for
    tied tokens.  ``q`` and ``v`` are variances per pair: ``q D`` of the estimates of the scores,
    ``v D`` of the scores around them; q + v is the second moment of the prior.

    Attributes
    ----------
    queries, keys : int
        Numbers of tokens on both sides.
    tied : bool
        Whether queries and keys are the same tokens and S is symmetric.
    """

    any_variance: ClassVar[bool] = True

    queries: int
    keys: int
    tied: bool

    @property
    def pair_variance(self) -> Array:
        """Return D, shape (queries, keys): ``1 + delta_ab`` for tied tokens, else 1."""
        return 1.0 + np.eye(self.queries) if self.tied else np.ones((self.queries, self.keys))

    def _checked(self, q: Numeric, v: Numeric | None) -> tuple[Array, Array]:
        """Return q and v; without v the prior is taken to have the second moment 1."""
        if v is None:
            if self.tied:
                raise ValueError(
                    "v must be given: for tied tokens q + v is the second moment 1 + rho, got None"
                )
            overlap = np.asarray(check("q", q, low=0.0, high=1.0))
            return overlap, 1.0 - overlap
        overlap, rest = check("q", q, low=0.0), check("v", v, low=0.0)
        broadcast(q=overlap, v=rest, channel=np.empty(self.shape))
        return np.asarray(overlap), np.asarray(rest)

    def _scores(self, name: str, value: Numeric) -> Array:
        """Return ``value`` as an array whose last two axes are the pairs."""
        array = np.asarray(value, dtype=np.float64)
        if array.shape[-2:] != (self.queries, self.keys):
            raise ValueError(
                f"{name} must have shape (..., {self.queries}, {self.keys}), got {array.shape}"
            )
        return array

    def _noise(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        """Return Gaussian noise of variance D, symmetric for tied tokens."""
        noise = rng.standard_normal(shape)
        if self.tied:
            return np.asarray((noise + np.swapaxes(noise, -1, -2)) / np.sqrt(2.0))
        return noise


@dataclass(frozen=True)
class LinearTokenChannel(TokenChannel):
    r"""Labels are the scores themselves, ``y_ab = h_ab + sqrt(delta D_ab) xi_ab``.

    Parameters
    ----------
    queries, keys : int
        Numbers of tokens, at least 1.
    tied : bool
        Whether queries and keys are the same tokens; then ``queries == keys``.
    delta : float or array_like
        Noise variance of a score of two different tokens, in [0, inf); twice that, as for the
        scores themselves, of a tied token with itself.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Notes
    -----
    K labels of equal signal-to-noise ratio, K the number of pairs (``T (T + 1)/2`` when tied):
    ``precision = K/(v + delta)``.

    Examples
    --------
    >>> from bsr_theory.attention import LinearTokenChannel
    >>> LinearTokenChannel(queries=3, keys=3, delta=0.5).precision(0.0, 1.0)
    4.0
    """

    queries: int = 1
    keys: int = 1
    tied: bool = True
    delta: Any = 0.0

    single_fixed_point: ClassVar[bool] = True
    _fewest_keys: ClassVar[int] = 1

    def __post_init__(self) -> None:
        """Check the parameters."""
        for name, least in (("queries", 1), ("keys", self._fewest_keys)):
            check_integer(name, getattr(self, name), least)
        if self.tied and self.queries != self.keys:
            raise ValueError(
                f"keys must equal queries = {self.queries} for tied tokens, got {self.keys}"
            )
        object.__setattr__(self, "delta", check("delta", self.delta, low=0.0, allow_inf=False))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of delta."""
        return np.shape(self.delta)

    @property
    def equations(self) -> int:
        """K: independent equations on S in one label."""
        return self.queries * (self.queries + 1) // 2 if self.tied else self.queries * self.keys

    @property
    def resolves(self) -> Any:
        """K without noise, 0 with noise."""
        return scalar_or_array(np.where(np.asarray(self.delta) == 0.0, float(self.equations), 0.0))

    def precision(self, q: Numeric, v: Numeric | None = None) -> Any:
        """Return ``E g^T D g = K/(v + delta)``.

        Parameters
        ----------
        q, v : float or array_like
            Variances of the estimated scores and around them, see `TokenChannel`.

        Returns
        -------
        float or ndarray
            inf for v = 0 without noise.
        """
        overlap, rest = self._checked(q, v)
        with np.errstate(divide="ignore"):
            return scalar_or_array(self.equations / (np.asarray(self.delta) + rest) + 0.0 * overlap)

    def information(self, q: Numeric, v: Numeric | None = None) -> Any:
        """Return ``(K/2) log(1 + v/delta)`` in nats, for delta = 0 without its infinite part.

        Parameters
        ----------
        q, v : float or array_like
            Variances of the estimated scores and around them, see `TokenChannel`.

        Returns
        -------
        float or ndarray
            ``(K/2) log v`` for delta = 0.
        """
        overlap, rest = self._checked(q, v)
        delta = np.asarray(self.delta)
        with np.errstate(divide="ignore", invalid="ignore"):
            one = np.where(delta == 0.0, np.log(rest), np.log1p(rest / delta))
        return scalar_or_array(0.5 * self.equations * one + 0.0 * overlap)

    def generalization_error(self, q: Numeric, v: Numeric | None = None) -> Any:
        """Return the mean square error of a new label, averaged over its pairs.

        Parameters
        ----------
        q, v : float or array_like
            Variances of the estimated scores and around them, see `TokenChannel`.

        Returns
        -------
        float or ndarray
            ``(v + delta)`` times the mean of D; the noise of the new label is part of it.
        """
        overlap, rest = self._checked(q, v)
        mean = float(np.mean(self.pair_variance))
        return scalar_or_array(mean * (rest + np.asarray(self.delta)) + 0.0 * overlap)

    def _scalar_delta(self) -> float:
        if self.shape:
            raise ValueError(f"delta must be a scalar here, got shape {self.shape}")
        return float(self.delta)

    def scores_of(self, y: Numeric) -> Array:
        """Return the scores that the label tells, with noise, up to what it leaves open.

        Parameters
        ----------
        y : array_like, shape (..., queries, keys)
            Labels.

        Returns
        -------
        ndarray, shape (..., queries, keys)
            Here y itself.
        """
        return self._scores("y", y)

    def project(self, z: Numeric) -> Array:
        """Return the part of scores that a label tells: here all of it.

        Parameters
        ----------
        z : array_like, shape (..., queries, keys)
            Scores.

        Returns
        -------
        ndarray, shape (..., queries, keys)
            The projection that is orthogonal with respect to ``1/D``.
        """
        return self._scores("z", z)

    def score(self, y: Numeric, omega: Numeric, V: Numeric) -> tuple[Any, Any]:
        """Return the gradient of the log-likelihood in omega, and its divergence.

        Parameters
        ----------
        y, omega : array_like, shape (..., queries, keys)
            Labels and the means of the scores.
        V : float or array_like
            Scores have the covariance ``V D`` around omega, ``V >= 0``; shape (...).

        Returns
        -------
        tuple
            ``g``, shape (..., queries, keys), by unordered pairs when tied: ``g_ab = g_ba`` is
            the derivative in the one score of the pair.  And ``sum D_ab dg_ab/domega_ab`` over
            the pairs, shape (...).
        """
        spread = np.asarray(check("V", V, low=0.0)) + self._scalar_delta()
        z = self.project(self.scores_of(y) - self._scores("omega", omega))
        g = z / (spread[..., None, None] * self.pair_variance)
        return g, scalar_or_array(np.broadcast_to(-self.equations / spread, g.shape[:-2]))

    def sample(self, h: Numeric, *, rng: Any = None) -> Array:
        """Return labels drawn from ``P_out(. | h)``.

        Parameters
        ----------
        h : array_like, shape (..., queries, keys)
            Scores.
        rng : None, int or numpy.random.Generator
            Source of randomness.

        Returns
        -------
        ndarray, shape (..., queries, keys)
            Labels.
        """
        scores = self._scores("h", h)
        noise = self._noise(scores.shape, np.random.default_rng(rng))
        return np.asarray(scores + np.sqrt(self._scalar_delta()) * noise)


@dataclass(frozen=True)
class SoftmaxChannel(LinearTokenChannel):
    r"""Labels are the rows of an attention matrix, ``y = softmax(sharpness (h + noise))``.

    Parameters
    ----------
    queries, keys : int
        Numbers of tokens; at least 2 keys.
    tied : bool
        Whether queries and keys are the same tokens.
    delta : float or array_like
        Variance of the noise before the softmax, ``delta D_ab``, in [0, inf).
    sharpness : float
        Inverse temperature, in (0, inf).  The error of S does not depend on it.
    masked : bool
        Whether the entries of a token with itself are left out of the softmax; for square untied
        S, with queries and keys the same tokens.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Notes
    -----
    The logarithm of a row gives its scores up to one constant.  Untied, that leaves ``keys - 1``
    equations a row.  Tied, the symmetry of h fixes the constants of all rows against each other
    and a single one is left: ``K = T (T + 1)/2 - 1`` (arXiv:2506.01582).  In any case
    ``precision = K/(v + delta)``: softmax attention is the quadratic network at ``alpha K``.

    Examples
    --------
    >>> from bsr_theory.attention import SoftmaxChannel
    >>> SoftmaxChannel(queries=2, keys=2).precision(0.5, 0.5)
    4.0
    """

    queries: int = 2
    keys: int = 2
    sharpness: float = 1.0
    masked: bool = False

    _fewest_keys: ClassVar[int] = 2

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        sharpness = check("sharpness", self.sharpness, low=0.0, open_low=True, allow_inf=False)
        if np.ndim(sharpness):
            raise ValueError(f"sharpness must be a scalar, got shape {np.shape(sharpness)}")
        object.__setattr__(self, "sharpness", sharpness)
        if self.masked and (self.tied or self.queries != self.keys or self.keys < 3):
            raise ValueError(
                "masked must be False unless S is untied, queries = keys and there are 3 tokens or "
                f"more, got tied={self.tied}, queries={self.queries}, keys={self.keys}"
            )

    @property
    def equations(self) -> int:
        """K: independent equations on S in one label."""
        if self.tied:
            return self.queries * (self.queries + 1) // 2 - 1
        return self.queries * (self.keys - (2 if self.masked else 1))

    @property
    def _open(self) -> Array:
        """Pairs that enter the softmax, shape (queries, keys), 1 or 0."""
        return 1.0 - np.eye(self.keys) if self.masked else np.ones((self.queries, self.keys))

    def scores_of(self, y: Numeric) -> Array:
        """Return scores that have the softmax y.

        Parameters
        ----------
        y : array_like, shape (..., queries, keys)
            Rows of positive numbers.

        Returns
        -------
        ndarray, shape (..., queries, keys)
            Tied: symmetric, up to one constant; untied: up to a constant a row.

        Raises
        ------
        ValueError
            If an entry is not positive.
        """
        label = self._scores("y", y)
        where = self._open > 0.0
        if not (label > 0.0)[..., where].all():
            raise ValueError(f"y must have positive entries, got {label[..., where].min():g}")
        logs = np.where(where, np.log(np.where(where, label, 1.0)), 0.0) / self.sharpness
        if self.tied:
            # L_ab = h_ab - c_a, so that c_a - c_b = L_ba - L_ab
            shift = np.mean(np.swapaxes(logs, -1, -2) - logs, axis=-1, keepdims=True)
            logs = logs + shift
            logs = 0.5 * (logs + np.swapaxes(logs, -1, -2))
        return self.project(logs)

    def project(self, z: Numeric) -> Array:
        """Return scores less what the softmax does not see.

        Parameters
        ----------
        z : array_like, shape (..., queries, keys)
            Scores.

        Returns
        -------
        ndarray, shape (..., queries, keys)
            Tied: less the mean of all; untied: less the mean of each row.
        """
        scores = self._scores("z", z)
        if self.tied:
            return np.asarray(scores - np.mean(scores, axis=(-2, -1), keepdims=True))
        where = self._open
        mean = np.sum(scores * where, axis=-1, keepdims=True) / np.sum(
            where, axis=-1, keepdims=True
        )
        return np.asarray((scores - mean) * where)

    def generalization_error(self, q: Numeric, v: Numeric | None = None) -> Any:
        """Return the mean square error of the best prediction of one entry of a new label.

        Parameters
        ----------
        q, v : float or array_like
            Variances of the estimated scores and around them, see `TokenChannel`.

        Returns
        -------
        float or ndarray
            ``E Var[y_ab | omega]``, the noise of the new label included.  To 1e-12 for two keys
            and ``sharpness`` up to 20; for more keys an average over quasi-random points, the
            same at every call, to about 1e-4.
        """
        overlap, rest = self._checked(q, v)
        shape = broadcast(q=overlap, v=rest, delta=self.delta)
        columns = (
            np.broadcast_to(x, shape).ravel() for x in (overlap, rest + np.asarray(self.delta))
        )
        error = [self._row_error(float(a), float(b)) for a, b in zip(*columns, strict=True)]
        return scalar_or_array(np.array(error).reshape(shape))

    def _row_error(self, q: float, v: float) -> float:
        if not np.isfinite(q + v):
            return float("nan")
        keys = self.keys - 1 if self.masked else self.keys
        variance = np.ones(keys)
        if self.tied:
            variance[0] = 2.0
        if keys == 2:
            # one difference of scores
            scale = self.sharpness * np.sqrt(variance.sum())
            return _sigmoid_error(scale**2 * q, scale**2 * v)
        points = norm.ppf(_sobol(3 * keys, _SOBOL))
        root = self.sharpness * np.sqrt(variance)
        base = np.sqrt(q) * points[:, :keys]
        one, two = (
            softmax(root * (base + np.sqrt(v) * points[:, k * keys : (k + 1) * keys]), axis=1)
            for k in (1, 2)
        )
        # E Var = E (y - y')^2/2 for two draws of the same omega
        return float(np.mean((one - two) ** 2) / 2.0)

    def sample(self, h: Numeric, *, rng: Any = None) -> Array:
        """Return labels drawn from ``P_out(. | h)``.

        Parameters
        ----------
        h : array_like, shape (..., queries, keys)
            Scores.
        rng : None, int or numpy.random.Generator
            Source of randomness.

        Returns
        -------
        ndarray, shape (..., queries, keys)
            Rows that sum to 1.
        """
        noisy = super().sample(h, rng=rng)
        logits = np.where(self._open > 0.0, self.sharpness * noisy, -np.inf)
        return np.asarray(softmax(logits, axis=-1))


@functools.cache
def _sobol(dimension: int, log2: int) -> Array:
    return np.asarray(qmc.Sobol(dimension, rng=_SEED).random_base2(log2))


@functools.lru_cache(maxsize=64)
def _gaussian_rule(points: int) -> tuple[Array, Array]:
    x, step = np.linspace(-9.0, 9.0, points, retstep=True)
    return x, step * norm.pdf(x)


def _rule(scale: float) -> tuple[Array, Array]:
    """Return a rule for the standard normal law of functions of ``sigmoid(scale x)``.

    The trapezoidal rule of step h errs by ``exp(-2 pi^2/(scale h))``, from the poles of sigmoid.
    """
    return _gaussian_rule(int(min(18.0 * max(1.5 * scale, 2.0), _LARGEST_RULE)) + 1)


def _sigmoid_error(q: float, v: float) -> float:
    """Return ``E Var[sigmoid(u) | w]``, ``u ~ N(w, v)``, ``w ~ N(0, q)``."""
    x, weight = _rule(np.sqrt(q + v))
    y = expit(np.sqrt(q) * x[:, None] + np.sqrt(v) * x)
    mean = y @ weight
    return float(weight @ (((y - mean[:, None]) ** 2) @ weight))


# --------------------------------------------------------------------------------------------
# Channels whose precision is tabulated
# --------------------------------------------------------------------------------------------


class _Table:
    """A positive function of ``x = log(ratio)`` by Chebyshev interpolation on panels.

    It also knows the integral of the function from the left end.
    """

    def __init__(self, f: Any, low: float, high: float, panels: int, degree: int) -> None:
        self.ends = np.linspace(low, high, panels + 1)
        self.width = (high - low) / panels
        nodes, x = self._nodes(degree)
        values = np.log(f(x.ravel())).reshape(panels, -1)
        self.logs = np.stack([chebyshev.chebfit(nodes, row, degree) for row in values])
        # the integral of the interpolant itself, so that the two answers fit together
        nodes, x = self._nodes(2 * degree)
        values = self(x.ravel()).reshape(panels, -1)
        fit = [chebyshev.chebfit(nodes, row, 2 * degree) for row in values]
        self.areas = np.stack([chebyshev.chebint(c, lbnd=-1) * 0.5 * self.width for c in fit])
        whole = [float(chebyshev.chebval(1.0, c)) for c in self.areas]
        self.before = np.concatenate([[0.0], np.cumsum(whole)])

    def _nodes(self, degree: int) -> tuple[Array, Array]:
        """Return Chebyshev nodes in (-1, 1) and on every panel."""
        nodes = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
        return nodes, self.ends[:-1, None] + 0.5 * self.width * (nodes + 1.0)

    def _place(self, x: Array) -> tuple[Any, Array]:
        panel = np.clip(((x - self.ends[0]) / self.width).astype(int), 0, len(self.logs) - 1)
        return panel, 2.0 * (x - self.ends[panel]) / self.width - 1.0

    def __call__(self, x: Array) -> Array:
        """Return the function inside the range."""
        panel, t = self._place(x)
        return np.asarray(
            np.exp(chebyshev.chebval(t, np.moveaxis(self.logs[panel], -1, 0), tensor=False))
        )

    def area(self, x: Array) -> Array:
        """Return its integral from the left end to x inside the range."""
        panel, t = self._place(x)
        inner = chebyshev.chebval(t, np.moveaxis(self.areas[panel], -1, 0), tensor=False)
        return np.asarray(self.before[panel] + inner)


_LOW, _HIGH = np.log(1e-9), np.log(1e18)


@functools.cache
def _hardmax_table() -> tuple[_Table, _Table]:
    """Return ``v precision`` of hardmax and its density of information, of log(q/v)."""

    def product(x: Array) -> Array:
        ratio, out = np.exp(x), np.empty(x.size)
        # a point takes milliseconds: a block each
        run_blocks(
            lambda b: kernels.hardmax_array(
                ratio[b.start // 512 : b.stop // 512], out[b.start // 512 : b.stop // 512]
            ),
            512 * x.size,
        )
        return out

    table = _Table(product, _LOW, _HIGH, 21, 16)
    return table, _Table(lambda x: 0.5 * table(x) * expit(x), _LOW, _HIGH, 21, 24)


@dataclass(frozen=True)
class HardmaxChannel(TokenChannel):
    r"""Labels are where each row of the scores of two tied tokens has its maximum.

    Attention at zero temperature: ``y = (sign(h11 - h12), sign(h22 - h12))``, as the matrix of 1
    at the maximum of each row and 0 elsewhere.

    Notes
    -----
    With ``u = (h11 - h12, h22 - h12)`` of covariance ``v G`` around its estimate,
    ``G = [[3, 1], [1, 3]]``, the likelihood of the two signs is a bivariate normal distribution
    function and ``precision = E g_u^T G g_u`` with its gradient

    .. math:: g_{u_1} = \frac{s_1}{\sqrt{3v}}\,
              \frac{\varphi(h_1)\,\Phi\big((h_2-rh_1)/\sqrt{1-r^2}\big)}{\Phi_2(h_1,h_2;r)},\qquad
              h_i=\frac{s_iw_i}{\sqrt{3v}},\quad r=\frac{s_1s_2}3 .

    ``v precision`` is a function of q/v alone, tabulated once to 1e-10 (about a second).  It falls
    like ``sqrt(v/q)``: the error vanishes like ``1/alpha^2`` and there is no finite threshold.
    The channel is that of arXiv:2506.01582.

    Examples
    --------
    >>> from bsr_theory.attention import HardmaxChannel
    >>> round(HardmaxChannel().precision(1.0, 1.0), 8)
    0.93767503
    """

    # fields of other channels of tokens are fixed here, which the type checker takes for an error
    queries: ClassVar[int] = 2  # type: ignore[misc]
    keys: ClassVar[int] = 2  # type: ignore[misc]
    tied: ClassVar[bool] = True  # type: ignore[misc]
    single_fixed_point: ClassVar[bool] = True

    @property
    def resolves(self) -> Any:
        """0: signs alone never tell the scores."""
        return 0.0

    def precision(self, q: Numeric, v: Numeric | None = None) -> Any:
        """Return ``E g^T D g``.

        Parameters
        ----------
        q, v : float or array_like
            Variances of the estimated scores and around them, see `TokenChannel`.

        Returns
        -------
        float or ndarray
            To a relative error of 1e-9; inf for v = 0.
        """
        overlap, rest = self._checked(q, v)
        with np.errstate(divide="ignore", invalid="ignore"):
            x = np.log(overlap) - np.log(rest)
            # beyond the table it is the power law of small v
            tail = np.exp(0.5 * np.minimum(_HIGH - x, 0.0))
            product = _hardmax_table()[0](np.clip(np.nan_to_num(x), _LOW, _HIGH)) * tail
            value = np.where(rest == 0.0, np.inf, product / rest)
        return scalar_or_array(np.where(np.isnan(overlap + rest), np.nan, value))

    def information(self, q: Numeric, v: Numeric | None = None) -> Any:
        """Return the entropy of the label given the estimated scores, in nats.

        Parameters
        ----------
        q, v : float or array_like
            Variances of the estimated scores and around them, see `TokenChannel`.

        Returns
        -------
        float or ndarray
            ``d/dq = -precision/2`` at fixed q + v; 1.3627 for q = 0.
        """
        overlap, rest = self._checked(q, v)
        product, area = _hardmax_table()
        with np.errstate(divide="ignore", invalid="ignore"):
            x = np.log(overlap) - np.log(rest)
            inner = np.clip(np.nan_to_num(x), _LOW, _HIGH)
            # to the right of the table the integrand is a power law
            last = product(np.array(_HIGH))
            beyond = last * np.exp(0.5 * np.minimum(_HIGH - x, 0.0))
            value = np.where(
                x > _HIGH, beyond, area.area(np.array(_HIGH)) - area.area(inner) + last
            )
            # to the left it is proportional to q/v
            value = np.where(
                rest == 0.0,
                0.0,
                value
                + 0.5 * product(np.array(_LOW)) * np.where(x < _LOW, np.exp(_LOW) - np.exp(x), 0.0),
            )
        return scalar_or_array(np.where(np.isnan(overlap + rest), np.nan, value))

    def generalization_error(self, q: Numeric, v: Numeric | None = None) -> Any:
        """Return the probability that the best prediction of a row's maximum is wrong.

        Parameters
        ----------
        q, v : float or array_like
            Variances of the estimated scores and around them, see `TokenChannel`.

        Returns
        -------
        float or ndarray
            ``arctan(sqrt(v/q))/pi``.
        """
        overlap, rest = self._checked(q, v)
        return scalar_or_array(np.arctan2(np.sqrt(rest), np.sqrt(overlap)) / np.pi)

    def score(
        self, y: Numeric, omega: Numeric, V: Numeric, covariance: Numeric | None = None
    ) -> tuple[Any, Any]:
        """Return the gradient of the log-likelihood in omega, and its divergence.

        Parameters
        ----------
        y, omega : array_like, shape (..., 2, 2)
            Labels and the means of the scores.
        V : float or array_like
            Scores have the covariance ``V C`` around omega, ``V > 0``; shape (...).
        covariance : array_like, shape (..., 3, 3), optional
            C of (h11, h12, h22), D by default.  Of a sample of finite size it depends on the
            tokens.

        Returns
        -------
        tuple
            As `LinearTokenChannel.score`, with ``tr(C dg/domega)`` for the divergence.

        Notes
        -----
        To a relative error of 1e-13 for labels that contradict omega by any number of standard
        deviations; towards equal or opposite differences of scores, of correlation r, that of r
        comes in, ``1e-16/(1 - r^2)``.
        """
        label, mean = self._scores("y", y), self._scores("omega", omega)
        signs = (label[..., 0, 0] - label[..., 0, 1], label[..., 1, 1] - label[..., 1, 0])
        columns, v, shape = _differences([np.sign(x) for x in signs], mean, V, covariance)
        out = np.empty((v.size, 3))
        run_blocks(lambda b: kernels.hardmax_scores(*(x[b] for x in columns), out[b]), v.size)
        return _from_differences(out, v, shape)

    def sample(self, h: Numeric, *, rng: Any = None) -> Array:
        """Return the labels of scores; there is no noise.

        Parameters
        ----------
        h : array_like, shape (..., 2, 2)
            Scores.
        rng : None, int or numpy.random.Generator
            Not used.

        Returns
        -------
        ndarray, shape (..., 2, 2)
            1 at the maximum of each row, 0 elsewhere.
        """
        scores = self._scores("h", h)
        first = np.stack(
            [scores[..., 0, 0] > scores[..., 0, 1], scores[..., 1, 0] > scores[..., 1, 1]], axis=-1
        )
        return np.stack([first, ~first], axis=-1).astype(np.float64)


_DIFFERENCES = np.array([[1.0, -1.0, 0.0], [0.0, -1.0, 1.0]])  # u of (h11, h12, h22)


def _differences(
    labels: Sequence[Array], mean: Array, V: Numeric, covariance: Numeric | None
) -> tuple[list[Array], Array, tuple[int, ...]]:
    """Return columns of labels, means and covariances (11, 12, 22) of u, then V and the shape."""
    spread = np.asarray(check("V", V, low=0.0, open_low=True))
    C = np.diag([2.0, 1.0, 2.0]) if covariance is None else np.asarray(covariance, np.float64)
    if C.shape[-2:] != (3, 3):
        raise ValueError(f"covariance must have shape (..., 3, 3), got {C.shape}")
    shape = np.broadcast_shapes(labels[0].shape, mean.shape[:-2], spread.shape, C.shape[:-2])
    w = (mean[..., 0, 0] - mean[..., 0, 1], mean[..., 1, 1] - mean[..., 0, 1])
    G = spread[..., None, None] * (_DIFFERENCES @ C @ _DIFFERENCES.T)
    *columns, v = (
        np.broadcast_to(x, shape).ravel()
        for x in (*labels, *w, G[..., 0, 0], G[..., 0, 1], G[..., 1, 1], spread)
    )
    return columns, v, shape


def _from_differences(out: Array, v: Array, shape: tuple[int, ...]) -> tuple[Array, Any]:
    """Turn gradients in u and tr(V G J), shape (n, 3), into g by pairs and tr(G J)."""
    g1, g2 = out[:, 0].reshape(shape), out[:, 1].reshape(shape)
    cross = -(g1 + g2)
    g = np.stack([np.stack([g1, cross], -1), np.stack([cross, g2], -1)], -2)
    return g, scalar_or_array((out[:, 2] / v).reshape(shape))


@functools.lru_cache(maxsize=64)
def _noisy_table(total: float, sharpness: float, delta: float) -> _Table:
    """Return ``v precision`` of `NoisySoftmaxChannel`, of log(v), for q + v = ``total``."""
    normals = norm.ppf(_sobol(6, _DRAWS))

    def product(x: Array) -> Array:
        v = np.exp(x)
        out = np.empty(x.size)

        def work(b: slice) -> None:
            for i in range(b.start // 512, b.stop // 512):
                out[i] = v[i] * kernels.noisy_softmax_precision(
                    total - v[i], v[i], sharpness, delta, normals
                )

        run_blocks(work, 512 * x.size)
        return out

    # below, where the difference of covariances has no digits, the precision is linear in v
    floor = np.log(1e-4 * min(total, delta / sharpness**2))
    return _Table(product, floor, np.log(total), max(1, round((np.log(total) - floor) / 2.5)), 8)


@dataclass(frozen=True)
class NoisySoftmaxChannel(TokenChannel):
    r"""Softmax of two tied tokens with noise after it: ``y_a = sigmoid(sharpness u_a) + noise``.

    Parameters
    ----------
    delta : float
        Variance of the noise of each of the two rows, in (0, inf).
    sharpness : float
        Inverse temperature, in (0, inf).

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Notes
    -----
    ``u = (h11 - h12, h22 - h12)``; y_a is the weight of token a in its own row.  The posterior of
    u is integrated over a box, the precision ``E e^T G^-1 e/v^2 = E (2 v - tr G^-1 C)/v^2``, with e
    its mean less omega and C its covariance, averaged over quasi-random points, the same at every
    call: accurate to about 1e-3, and a smooth function of q.  Its values along ``q + v = const``
    are tabulated at first use, which takes seconds.

    Examples
    --------
    >>> from bsr_theory.attention import NoisySoftmaxChannel
    >>> channel = NoisySoftmaxChannel(delta=0.01)
    >>> channel.resolves
    0.0
    """

    delta: float = 0.01
    sharpness: float = 1.0

    # fields of other channels of tokens are fixed here, which the type checker takes for an error
    queries: ClassVar[int] = 2  # type: ignore[misc]
    keys: ClassVar[int] = 2  # type: ignore[misc]
    tied: ClassVar[bool] = True  # type: ignore[misc]

    def __post_init__(self) -> None:
        """Check the parameters."""
        for name in ("delta", "sharpness"):
            value = check(name, getattr(self, name), low=0.0, open_low=True, allow_inf=False)
            if np.ndim(value):
                raise ValueError(f"{name} must be a scalar, got shape {np.shape(value)}")
            object.__setattr__(self, name, value)

    @property
    def resolves(self) -> Any:
        """0: there is noise."""
        return 0.0

    def _most(self, total: float) -> float:
        """Return the precision at v = 0: that of the linearised label."""
        scale = float(self.sharpness * np.sqrt(3.0 * total))
        x, weight = _rule(scale)
        y = expit(scale * x)
        return float(6.0 * self.sharpness**2 / self.delta * weight @ (y * (1.0 - y)) ** 2)

    def _along(self, q: Numeric, v: Numeric | None, what: str) -> Any:
        """Evaluate the tables of all sums q + v that occur."""
        overlap, rest = self._checked(q, v)
        shape = broadcast(q=overlap, v=rest)
        overlap, rest = (np.broadcast_to(x, shape).ravel() for x in (overlap, rest))
        # sums that differ by rounding share a table
        total = np.array([float(f"{x:.10g}") for x in overlap + rest])
        out = np.full(total.size, np.nan)
        for value in np.unique(total[np.isfinite(total)]):
            at = total == value
            if value == 0.0:
                out[at] = 0.0
                continue
            table = _noisy_table(float(value), self.sharpness, self.delta)
            with np.errstate(divide="ignore"):
                x = np.log(np.minimum(rest[at], value))
            inner = np.maximum(x, table.ends[0])
            floor = np.exp(table.ends[0])
            low, limit = table(table.ends[:1])[0] / floor, self._most(float(value))
            part = np.minimum(np.exp(x) / floor, 1.0)
            if what == "precision":
                below = limit + (low - limit) * part
                out[at] = np.where(part < 1.0, below, table(inner) / np.exp(inner))
            else:
                below = 0.5 * floor * part * (limit + 0.5 * (low - limit) * part)
                out[at] = below + 0.5 * table.area(inner)
        return scalar_or_array(out.reshape(shape))

    def precision(self, q: Numeric, v: Numeric | None = None) -> Any:
        """Return ``E g^T D g``.

        Parameters
        ----------
        q, v : float or array_like
            Variances of the estimated scores and around them, see `TokenChannel`.

        Returns
        -------
        float or ndarray
            ``6 sharpness^2 E sigmoid'^2/delta`` for v = 0.
        """
        return self._along(q, v, "precision")

    def information(self, q: Numeric, v: Numeric | None = None) -> Any:
        """Return the information of a label about the scores, in nats.

        Parameters
        ----------
        q, v : float or array_like
            Variances of the estimated scores and around them, see `TokenChannel`.

        Returns
        -------
        float or ndarray
            The integral of ``precision/2`` over q up to q + v.
        """
        return self._along(q, v, "information")

    def generalization_error(self, q: Numeric, v: Numeric | None = None) -> Any:
        """Return the mean square error of the best prediction of a new label.

        Parameters
        ----------
        q, v : float or array_like
            Variances of the estimated scores and around them, see `TokenChannel`.

        Returns
        -------
        float or ndarray
            The noise delta of the new label included.
        """
        inner = SoftmaxChannel(2, 2, sharpness=self.sharpness).generalization_error(q, v)
        return scalar_or_array(np.asarray(inner) + self.delta)

    def score(
        self, y: Numeric, omega: Numeric, V: Numeric, covariance: Numeric | None = None
    ) -> tuple[Any, Any]:
        """Return the gradient of the log-likelihood in omega, and its divergence.

        Parameters
        ----------
        y : array_like, shape (..., 2)
            Labels.
        omega : array_like, shape (..., 2, 2)
            Means of the scores.
        V : float or array_like
            Scores have the covariance ``V C`` around omega, ``V > 0``; shape (...).
        covariance : array_like, shape (..., 3, 3), optional
            C of (h11, h12, h22), D by default.  Correlations of the two differences of scores
            beyond ``1 - 1e-5`` are taken to be that.

        Returns
        -------
        tuple
            As `LinearTokenChannel.score`, with ``tr(C dg/domega)`` for the divergence.
        """
        label, mean = np.asarray(y, dtype=np.float64), self._scores("omega", omega)
        if label.shape[-1:] != (2,):
            raise ValueError(f"y must have shape (..., 2), got {label.shape}")
        columns, v, shape = _differences([label[..., 0], label[..., 1]], mean, V, covariance)
        out = np.empty((v.size, 3))
        run_blocks(
            lambda b: kernels.softmax_scores(
                *(x[b] for x in columns), self.sharpness, self.delta, out[b]
            ),
            v.size,
        )
        return _from_differences(out, v, shape)

    def sample(self, h: Numeric, *, rng: Any = None) -> Array:
        """Return labels drawn from ``P_out(. | h)``.

        Parameters
        ----------
        h : array_like, shape (..., 2, 2)
            Scores.
        rng : None, int or numpy.random.Generator
            Source of randomness.

        Returns
        -------
        ndarray, shape (..., 2)
            Labels of the two rows.
        """
        scores = self._scores("h", h)
        u = np.stack(
            [scores[..., 0, 0] - scores[..., 0, 1], scores[..., 1, 1] - scores[..., 1, 0]], axis=-1
        )
        noise = np.random.default_rng(rng).standard_normal(u.shape)
        return np.asarray(expit(self.sharpness * u) + np.sqrt(self.delta) * noise)


# --------------------------------------------------------------------------------------------
# Problems
# --------------------------------------------------------------------------------------------


def quadratic_network(alpha: Numeric, rho: Numeric, delta: Numeric = 0.0) -> Problem:
    """Network with one hidden layer of quadratic units (arXiv:2408.03733).

    Parameters
    ----------
    alpha : float or array_like
        Sampling ratio ``n/d^2`` in (0, inf).
    rho : float or array_like
        Width ``r/d`` in (0, inf).
    delta : float or array_like
        Variance of the noise of a label, in [0, inf).

    Returns
    -------
    Problem
        ``y = (x^T S x - tr S)/d + noise`` with ``S = W W^T/sqrt(r)``, one token a sample; the
        variance of y without noise is ``2 (1 + rho)``.

    Examples
    --------
    >>> import bsr_theory as bsr
    >>> from bsr_theory.attention import quadratic_network
    >>> round(bsr.solve(quadratic_network(alpha=0.2, rho=0.5)).mmse, 6)
    0.392196
    """
    channel = LinearTokenChannel(1, 1, delta=0.5 * np.asarray(check("delta", delta, low=0.0)))
    return Problem(SymmetricFactorPrior(rho), channel, alpha)


def linear_attention(alpha: Numeric, rho: Numeric, tokens: int, delta: Numeric = 0.0) -> Problem:
    """Tied attention whose labels are the scores of all pairs of tokens.

    Parameters
    ----------
    alpha : float or array_like
        Sampling ratio ``n/d^2`` in (0, inf).
    rho : float or array_like
        Width ``r/d`` in (0, inf).
    tokens : int
        Tokens in a sample, at least 1.
    delta : float or array_like
        Variance of the noise of a score of different tokens, in [0, inf); twice that of a token
        with itself.

    Returns
    -------
    Problem
        `SymmetricFactorPrior` times `LinearTokenChannel`.

    Examples
    --------
    >>> import bsr_theory as bsr
    >>> from bsr_theory.attention import linear_attention
    >>> round(bsr.solve(linear_attention(alpha=0.2 / 3, rho=0.5, tokens=2)).mmse, 6)
    0.392196
    """
    check_integer("tokens", tokens)
    return Problem(
        SymmetricFactorPrior(rho), LinearTokenChannel(tokens, tokens, delta=delta), alpha
    )


def softmax_attention(
    alpha: Numeric,
    rho: Numeric,
    tokens: int = 2,
    delta: Numeric = 0.0,
    *,
    sharpness: float = 1.0,
    noise: Literal["before", "after"] = "before",
) -> Problem:
    """Tied softmax attention (arXiv:2506.01582).

    Parameters
    ----------
    alpha : float or array_like
        Sampling ratio ``n/d^2`` in (0, inf).
    rho : float or array_like
        Width ``r/d`` in (0, inf).
    tokens : int
        Tokens in a sample, at least 2.
    delta : float or array_like
        Noise variance in [0, inf): of a score of different tokens before the softmax (twice that
        of a token with itself), or of a row after it, then a number > 0.
    sharpness : float
        Inverse temperature of the softmax, in (0, inf).
    noise : {"before", "after"}
        Where the noise acts; "after" is solved for two tokens.

    Returns
    -------
    Problem
        `SymmetricFactorPrior` times `SoftmaxChannel`, or `NoisySoftmaxChannel`.

    Raises
    ------
    NotImplementedError
        For noise after the softmax of more than two tokens.

    Examples
    --------
    >>> import bsr_theory as bsr
    >>> round(bsr.solve(bsr.attention.softmax_attention(alpha=0.1, rho=0.5, tokens=2)).mmse, 6)
    0.392196
    """
    check_integer("tokens", tokens, 2)
    prior = SymmetricFactorPrior(rho)
    if noise not in ("before", "after"):
        raise ValueError(f"noise must be 'before' or 'after', got {noise!r}")
    channel: TokenChannel = SoftmaxChannel(tokens, tokens, delta=delta, sharpness=sharpness)
    if noise == "after" and np.any(np.asarray(delta) != 0.0):
        if tokens != 2:
            raise NotImplementedError(
                "noise after the softmax is solved for 2 tokens: with T of them the posterior is "
                f"an integral over {tokens * (tokens + 1) // 2 - 1} scores, got tokens={tokens}"
            )
        # the constructor refuses an array of noises, which the annotation cannot say
        channel = NoisySoftmaxChannel(delta, sharpness)  # type: ignore[arg-type]
    return Problem(prior, channel, alpha)


def hardmax_attention(alpha: Numeric, rho: Numeric) -> Problem:
    """Tied attention of two tokens at zero temperature (arXiv:2506.01582).

    Parameters
    ----------
    alpha : float or array_like
        Sampling ratio ``n/d^2`` in (0, inf).
    rho : float or array_like
        Width ``r/d`` in (0, inf).

    Returns
    -------
    Problem
        `SymmetricFactorPrior` times `HardmaxChannel`.

    Examples
    --------
    >>> import bsr_theory as bsr
    >>> round(bsr.solve(bsr.attention.hardmax_attention(alpha=0.2, rho=0.5)).mmse, 4)
    0.5222
    """
    return Problem(SymmetricFactorPrior(rho), HardmaxChannel(), alpha)


def cross_attention(
    alpha: Numeric,
    beta: Numeric,
    rho: Numeric,
    query_tokens: int,
    key_tokens: int,
    delta: Numeric = 0.0,
    *,
    sharpness: float = 1.0,
    output: Literal["softmax", "linear"] = "softmax",
) -> Problem:
    """Attention of queries on other tokens, ``h_ab = z_a^T S x_b/sqrt(d1 d2)``.

    Parameters
    ----------
    alpha : float or array_like
        Sampling ratio ``n/(d1 d2)`` in (0, inf).
    beta : float or array_like
        Aspect ratio ``d2/d1`` in [1, inf] of the dimensions of keys and queries.
    rho : float or array_like
        Width ``r/d1`` in (0, inf] of ``S = A B/sqrt(r)``.
    query_tokens, key_tokens : int
        Tokens on both sides of a sample, independent of each other; a softmax needs 2 keys.
    delta : float or array_like
        Noise variance of a score, before the softmax, in [0, inf).
    sharpness : float
        Inverse temperature of the softmax, in (0, inf).
    output : {"softmax", "linear"}
        Whether labels are the softmax of the rows of scores or the scores themselves.

    Returns
    -------
    Problem
        `GaussianFactorPrior` times `SoftmaxChannel` or `LinearTokenChannel`: ``K = T1 (T2 - 1)``
        or ``T1 T2`` equations a label.

    Examples
    --------
    >>> import bsr_theory as bsr
    >>> from bsr_theory.attention import cross_attention
    >>> round(bsr.solve(cross_attention(0.3, 1.0, 0.5, query_tokens=1, key_tokens=2)).mmse, 5)
    0.64055
    """
    check_integer("query_tokens", query_tokens)
    check_integer("key_tokens", key_tokens, 2 if output == "softmax" else 1)
    channel: TokenChannel
    if output == "softmax":
        channel = SoftmaxChannel(query_tokens, key_tokens, False, delta, sharpness)
    elif output == "linear":
        channel = LinearTokenChannel(query_tokens, key_tokens, False, delta)
    else:
        raise ValueError(f"output must be 'softmax' or 'linear', got {output!r}")
    return Problem(GaussianFactorPrior(beta, rho), channel, alpha)


def self_attention(
    alpha: Numeric,
    rho: Numeric,
    tokens: int,
    delta: Numeric = 0.0,
    *,
    masked: bool = False,
    sharpness: float = 1.0,
) -> Problem:
    """Softmax self-attention with different matrices for queries and keys, ``S = Q K^T/sqrt(r)``.

    Parameters
    ----------
    alpha : float or array_like
        Sampling ratio ``n/d^2`` in (0, inf).
    rho : float or array_like
        Width ``r/d`` in (0, inf].
    tokens : int
        Tokens in a sample, at least 3.
    delta : float or array_like
        Noise variance of a score, before the softmax, in [0, inf).
    masked : bool
        Whether a token attends to the others only.  False is not solved.
    sharpness : float
        Inverse temperature of the softmax, in (0, inf).

    Returns
    -------
    Problem
        Square `GaussianFactorPrior` times a masked `SoftmaxChannel`, ``K = T (T - 2)``.

    Raises
    ------
    NotImplementedError
        If the scores of a token with itself are observed.  They involve the symmetric part of S
        alone, so that the labels tell more about it than about the antisymmetric part, in the
        ratio ``(T + 1):(T - 1)``.  The effective noise is then not invariant under rotations from
        both sides and the denoiser of the prior, and with it this state evolution, does not
        apply.  Tied matrices (`softmax_attention`), separate tokens for queries and keys
        (`cross_attention`) or ``masked=True`` do not have this problem.

    Examples
    --------
    >>> import bsr_theory as bsr
    >>> from bsr_theory.attention import self_attention
    >>> problem = self_attention(alpha=0.1, rho=0.5, tokens=3, masked=True)
    >>> problem.channel.equations
    3
    """
    if not masked:
        raise NotImplementedError(
            "untied self-attention with an observed diagonal is not solved: x_a^T S x_a sees the "
            "symmetric part of S alone, so that the effective noise is not rotationally invariant; "
            "use masked=True, softmax_attention (tied) or cross_attention"
        )
    check_integer("tokens", tokens, 2)
    channel = SoftmaxChannel(tokens, tokens, False, delta, sharpness, masked=True)
    return Problem(GaussianFactorPrior(1.0, rho), channel, alpha)
