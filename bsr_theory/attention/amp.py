r"""Approximate message passing for attention: scores of token pairs, one sample at a time.

The algorithm of `bsr_theory.simulations.amp` for samples with several labels.  A score is linear in
S, ``h_p = <M_p, S>``, with a matrix of its own for every pair p of tokens of a sample,

.. math:: M_{ab} = \frac{x_a x_b^{\mathsf T} + x_b x_a^{\mathsf T}}{2d}
          - \frac{\delta_{ab}}{d} I \quad\text{(tied)},\qquad
          M_{ab} = \frac{z_a x_b^{\mathsf T}}{\sqrt{d_1 d_2}} \quad\text{(queries z, keys x)},

and an error of variance V per entry of S gives the scores of the sample the covariance ``V C``,
``C_pp' = 2 tr M_p M_p'`` (tied) or ``tr M_p M_p'^T``.  C depends on the tokens.  In the limit it is
D, but at d = 200 the lengths of the tokens still spread by several percent, and with D in its place
the iteration stalls or diverges.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import Array, check
from ..priors import GaussianFactorPrior, Prior, SymmetricFactorPrior
from ..problem import Problem
from ..results import SimulationRun, Status
from .indexed import LinearTokenChannel, SoftmaxChannel, TokenChannel

__all__ = ["AttentionInstance", "amp", "sample"]

_Index = npt.NDArray[np.intp]

_FLOOR = 1e-13  # smallest error per entry that the iteration resolves
_STEP = 1e-5  # relative step of the derivative of the denoiser
_STEEPEST = 3.0  # slope of the denoiser that is believed at an eigenvalue off the bulk
_PATIENCE = 8  # iterations without a shorter step until the damping rises


@dataclass(frozen=True, eq=False)
class AttentionInstance:
    """An attention problem of finite size: tokens, labels, and the signal.

    Attributes
    ----------
    queries : ndarray, shape (n, T1, d1)
        Standard Gaussian tokens.
    keys : ndarray, shape (n, T2, d2)
        The same array for self-attention.
    y : ndarray, shape (n, T1, T2)
        Labels.
    S : ndarray, shape (d1, d2)
        The signal.
    problem : Problem
        What they were drawn from.
    """

    queries: Array
    keys: Array
    y: Array
    S: Array
    problem: Problem

    def __post_init__(self) -> None:
        """Check the shapes."""
        d1, d2 = self.S.shape
        n = self.queries.shape[0]
        if self.queries.ndim != 3 or self.queries.shape[2] != d1:
            raise ValueError(f"queries must have shape (n, T1, {d1}), got {self.queries.shape}")
        if self.keys.ndim != 3 or self.keys.shape[0] != n or self.keys.shape[2] != d2:
            raise ValueError(f"keys must have shape ({n}, T2, {d2}), got {self.keys.shape}")
        if self.y.shape[:1] != (n,):
            raise ValueError(f"y must have {n} rows, got shape {self.y.shape}")

    @property
    def alpha(self) -> float:
        """Samples per entry, ``n/(d1 d2)``, after rounding."""
        return len(self.queries) / self.S.size

    def scores(self, S: Array) -> Array:
        """Return the scores of all pairs of tokens.

        Parameters
        ----------
        S : ndarray, shape (d1, d2)
            Any matrix in the place of the signal, symmetric for tied tokens.

        Returns
        -------
        ndarray, shape (n, T1, T2)
            ``(x_a^T S x_b - delta_ab tr S)/d``, or ``z_a^T S x_b/sqrt(d1 d2)`` untied.
        """
        scores = self.queries @ S @ np.swapaxes(self.keys, 1, 2)
        if _channel(self.problem).tied:
            scores = scores - np.trace(S) * np.eye(scores.shape[1])
        return np.asarray(scores / np.sqrt(S.size))


def _channel(problem: Problem) -> TokenChannel:
    if not isinstance(problem.channel, TokenChannel):
        raise ValueError(f"problem must have a channel of token pairs, got {problem.channel!r}")
    return problem.channel


def sample(problem: Problem, d1: int, *, rng: Any = None) -> AttentionInstance:
    """Return one instance of an attention problem.

    Parameters
    ----------
    problem : Problem
        With scalar parameters and an alpha.
    d1 : int
        Dimension of a query; keys have ``round(beta d1)``.
    rng : None, int or numpy.random.Generator
        Source of randomness.

    Returns
    -------
    AttentionInstance
        ``n = round(alpha d1 d2)`` samples.

    Raises
    ------
    ValueError
        If a parameter is an array, alpha is None, or no sample is left after rounding.

    Examples
    --------
    >>> from bsr_theory.attention import sample, softmax_attention
    >>> data = sample(softmax_attention(alpha=0.1, rho=0.5, tokens=3), d1=20, rng=0)
    >>> data.queries.shape, data.y.shape
    ((40, 3, 20), (40, 3, 3))
    """
    channel = _channel(problem)
    if problem.shape:
        raise ValueError(f"an instance needs scalar parameters, got shape {problem.shape}")
    if problem.alpha is None:
        raise ValueError("alpha must be a number to sample an instance, got None")
    generator = np.random.default_rng(rng)
    S = problem.prior.sample(d1, rng=generator)
    n = round(problem.alpha * S.size)
    if n < 1:
        raise ValueError(f"alpha must leave at least one sample, got {problem.alpha!r}")
    queries = generator.standard_normal((n, channel.queries, S.shape[0]))
    same = channel.tied or bool(getattr(channel, "masked", False))
    keys = queries if same else generator.standard_normal((n, channel.keys, S.shape[1]))
    blank = AttentionInstance(queries, keys, np.empty((n, 0)), S, problem)
    y = channel.sample(blank.scores(S), rng=generator)
    return AttentionInstance(queries, keys, y, S, problem)


# --------------------------------------------------------------------------------------------
# Pairs of one sample
# --------------------------------------------------------------------------------------------


def _pairs(channel: TokenChannel) -> tuple[_Index, _Index]:
    """Return the indices (a, b) of the scores that differ."""
    if channel.tied:
        return np.triu_indices(channel.queries)
    a, b = np.indices((channel.queries, channel.keys)).reshape(2, -1)
    return a, b


def _equations(channel: LinearTokenChannel) -> Array:
    """Return the matrix, shape (K, pairs), that takes scores to what a label tells."""
    a, b = _pairs(channel)
    identity = np.eye(a.size)
    if not isinstance(channel, SoftmaxChannel):
        return identity
    if channel.tied:
        return np.asarray(identity[1:] - identity[0])
    rows = []
    for i in range(channel.queries):
        seen = np.flatnonzero((a == i) & ~(channel.masked & (a == b)))
        rows.append(identity[seen[1:]] - identity[seen[0]])
    return np.concatenate(rows)


def _covariances(instance: AttentionInstance) -> Array:
    """Return C of every sample, shape (n, pairs, pairs)."""
    channel = _channel(instance.problem)
    a, b = _pairs(channel)
    x, z = instance.keys, instance.queries
    d1, d2 = instance.S.shape
    gram = x @ np.swapaxes(x, 1, 2) / d2
    if not channel.tied:
        other = z @ np.swapaxes(z, 1, 2) / d1
        return np.asarray(other[:, a[:, None], a] * gram[:, b[:, None], b])
    same = (a == b).astype(float)
    inner = gram[:, a, b]
    C = gram[:, a[:, None], a] * gram[:, b[:, None], b]
    C = C + gram[:, a[:, None], b] * gram[:, b[:, None], a]
    C = C - 2.0 * (same * inner[:, :, None] + same[:, None] * inner[:, None, :]) / d1
    return np.asarray(C + 2.0 * np.outer(same, same) / d1)


def _gather(instance: AttentionInstance, g: Array) -> Array:
    """Return ``sum_p g_p M_p`` over all pairs of all samples, ``g`` of shape (n, pairs)."""
    channel = _channel(instance.problem)
    a, b = _pairs(channel)
    n = len(g)
    weights = np.zeros((n, channel.queries, channel.keys))
    d1, d2 = instance.S.shape
    if channel.tied:
        weights[:, a, b] += 0.5 * g
        weights[:, b, a] += 0.5 * g
    else:
        weights[:, a, b] = g
    total = instance.queries.reshape(-1, d1).T @ (weights @ instance.keys).reshape(-1, d2)
    if channel.tied:
        total = 0.5 * (total + total.T) - g[:, a == b].sum() * np.eye(d1)
    return np.asarray(total / np.sqrt(d1 * d2))


# --------------------------------------------------------------------------------------------
# Denoisers with their divergence
# --------------------------------------------------------------------------------------------


def _slope(prior: Prior, y: Array, s: float) -> tuple[Array, Array]:
    """Return the denoised values and the derivative of the denoiser."""
    step = _STEP * np.maximum(np.abs(y), 1e-2 * np.ptp(y))
    down = y - step
    if isinstance(prior, GaussianFactorPrior):
        down = np.maximum(down, 0.0)  # singular values
    # one call, so that the spectral law is solved once
    f, below, above = np.reshape(prior.shrink(np.concatenate([y, down, y + step]), s), (3, y.size))
    return f, np.clip((above - below) / (y + step - down), 0.0, _STEEPEST)


def _denoise_symmetric(prior: Prior, R: Array, s: float) -> tuple[Array, float]:
    """Return the Bayes estimate of a symmetric S and its divergence over ``d^2/2``."""
    values, vectors = np.linalg.eigh(R)
    root = np.sqrt(len(R))
    y = values / root
    f, slope = _slope(prior, y, s)
    i, j = np.triu_indices(y.size, 1)
    gap = y[i] - y[j]
    close = np.abs(gap) <= 1e-9 * np.ptp(y)
    with np.errstate(divide="ignore", invalid="ignore"):
        pairs = np.where(close, slope[i], (f[i] - f[j]) / gap)
    estimate = (vectors * (f * root)) @ vectors.T
    return estimate, 2.0 * float(slope.sum() + pairs.sum()) / R.size


def _denoise_rectangular(prior: Prior, R: Array, s: float) -> tuple[Array, float]:
    """Return the Bayes estimate of S and its divergence per entry."""
    left, sigma, right = np.linalg.svd(R, full_matrices=False)
    d1, d2 = sorted(R.shape)
    root = np.sqrt(d2)
    y = sigma / root
    f, slope = _slope(prior, y, s)
    i, j = np.triu_indices(d1, 1)
    gap = y[i] ** 2 - y[j] ** 2
    close = np.abs(gap) <= 1e-9 * y[0] ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(y > 0.0, f / y, slope)
        pairs = np.where(close, 0.5 * (slope + ratio)[i], ((y * f)[i] - (y * f)[j]) / gap)
    total = slope.sum() + (d2 - d1) * ratio.sum() + 2.0 * pairs.sum()
    return (left * (f * root)) @ right, float(total) / R.size


def amp(
    instance: AttentionInstance, *, steps: int = 80, damping: float = 0.3, tolerance: float = 1e-3
) -> SimulationRun:
    r"""Run GAMP-RIE on an attention problem whose labels tell linear combinations of scores.

    Parameters
    ----------
    instance : AttentionInstance
        With a `LinearTokenChannel` or a `SoftmaxChannel`.
    steps : int
        Largest number of iterations.
    damping : float
        Share of the old estimate that an iteration keeps at first, in [0, 0.999]; the other share
        is halved whenever the steps have not become shorter for 8 iterations.  0 is the iteration
        whose limit is `bsr_theory.iterate`; at d of about 100 and below it drifts away from the
        fixed point.
    tolerance : float
        Step before damping over the error, both root mean square, at which a run has converged.

    Returns
    -------
    SimulationRun
        PERFECT_RECOVERY when the algorithm's own error is 0 to rounding, CONVERGED when the
        estimate no longer moves.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    NotImplementedError
        For labels that are not linear combinations of scores in disguise.

    Notes
    -----
    From ``S_hat = E S`` the iteration is, with k = 2 for tied tokens and 1 otherwise,

    .. math:: \omega &= \langle M, \hat S\rangle - b\, C g, \qquad
              g = A^{\mathsf T}\big(V A C A^{\mathsf T} + \Delta A D A^{\mathsf T}\big)^{-1}
              (u - A\omega), \\
              \chi^{-1} &= k\,\alpha\,\big\langle\operatorname{tr}
              A C A^{\mathsf T}(V A C A^{\mathsf T}+\Delta A D A^{\mathsf T})^{-1}\big\rangle,
              \qquad s = k\,\alpha\,\chi^2\,\langle g^{\mathsf T} C g\rangle, \\
              \hat S &= \mathrm{denoise}\Big(\hat S + k\,\chi\sum g_p M_p;\ s\Big), \qquad
              V = M(s),\quad b = \chi\ \mathrm{div},

    where the rows of A are the combinations of scores that a label tells, u their values, averages
    are over samples, and C is that of each sample (head of this module).  State evolution is that
    of `bsr_theory.solve`; the model is that of arXiv:2506.01582.

    Examples
    --------
    >>> from bsr_theory.attention import amp, sample, softmax_attention
    >>> data = sample(softmax_attention(alpha=0.3, rho=0.3, tokens=2), d1=30, rng=1)
    >>> run = amp(data)
    >>> run.status.name, bool(run.mse[-1] < 1e-6)
    ('PERFECT_RECOVERY', True)
    """
    channel = _channel(instance.problem)
    if not isinstance(channel, LinearTokenChannel):
        raise NotImplementedError(
            "amp needs labels that are linear combinations of scores (LinearTokenChannel, "
            f"SoftmaxChannel), got {channel!r}"
        )
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
        raise ValueError(f"steps must be a positive integer, got {steps!r}")
    keep = check("damping", damping, low=0.0, high=0.999)
    least = check("tolerance", tolerance, low=0.0)
    began = time.perf_counter()
    S, prior = instance.S, instance.problem.prior.at_size(len(instance.S))
    if channel.tied != isinstance(prior, SymmetricFactorPrior):
        raise ValueError(f"prior must be symmetric for tied tokens and only then, got {prior!r}")
    k = 2.0 if channel.tied else 1.0
    delta = float(channel.delta)
    a, b = _pairs(channel)
    A, C = _equations(channel), _covariances(instance)
    AC = A @ C
    ACA = AC @ A.T
    noise = delta * (A * channel.pair_variance[a, b]) @ A.T
    told = channel.scores_of(instance.y)[:, a, b] @ A.T
    # E S = sqrt(r) I has the overlap rho = r/d
    estimate = np.sqrt(prior.prior_overlap * len(S)) * np.eye(*S.shape)
    denoise = _denoise_symmetric if channel.tied else _denoise_rectangular

    def error() -> float:
        return float(np.mean((estimate - S) ** 2))

    V, memory = 1.0, np.zeros((len(C), a.size))
    errors, overlaps = [error()], [float(np.mean(estimate * S))]
    believed, snrs, kept = [V], [], []
    status, lowest, stale = Status.NOT_CONVERGED, np.inf, 0
    for _ in range(steps):
        omega = instance.scores(estimate)[:, a, b] - memory
        inverse = np.linalg.inv(V * ACA + noise)
        g = np.einsum("nkl,nl->nk", inverse, told - omega @ A.T) @ A
        response = np.mean(np.einsum("nkl,nlk->n", ACA, inverse))
        Cg = np.einsum("npq,nq->np", C, g)
        chi = 1.0 / (k * instance.alpha * response)
        s = k * instance.alpha * chi**2 * float(np.mean(np.sum(g * Cg, axis=1)))
        R = estimate + k * chi * _gather(instance, g)
        if not np.isfinite(R).all():  # diverged
            break
        denoised, divergence = denoise(prior, R, s)
        change = (1.0 - keep) * (denoised - estimate)
        moved = float(np.sqrt(np.mean((denoised - estimate) ** 2)))
        estimate = estimate + change
        memory = keep * memory + (1.0 - keep) * divergence * chi * Cg
        V = max(keep * V + (1.0 - keep) * float(prior.mmse(s)), _FLOOR)
        errors.append(error())
        overlaps.append(float(np.mean(estimate * S)))
        believed.append(V)
        snrs.append(1.0 / s if s > 0.0 else np.inf)
        kept.append(keep)
        if V <= 10.0 * _FLOOR and delta == 0.0:
            status = Status.PERFECT_RECOVERY
            break
        if moved <= least * np.sqrt(V):
            status = Status.CONVERGED
            break
        lowest, stale = (moved, 0) if moved < 0.99 * lowest else (lowest, stale + 1)
        if stale == _PATIENCE:
            keep, stale = 0.5 * (1.0 + keep), 0
    return SimulationRun(
        mse=np.array(errors),
        overlap=np.array(overlaps),
        estimate=estimate,
        status=status,
        seconds=time.perf_counter() - began,
        estimated_mse=np.array(believed),
        qhat=np.array(snrs),
        damping=np.array(kept),
    )
