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

Labels that are linear combinations of scores in disguise (`LinearTokenChannel`, `SoftmaxChannel`)
are answered by a Gaussian posterior.  Those of two tied tokens that are not (`HardmaxChannel`,
`NoisySoftmaxChannel`) depend on two differences of scores, whose correlation, 1/3 in the limit,
spreads from 0 to 0.6 at d = 100: their posterior is integrated for every sample.

Errors of a symmetric S are counted as those of its ``N = d (d + 1)/2`` independent entries: V is
the variance off the diagonal, of which there is twice as much on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from .._arrays import Array, check_integer, check_number
from ..priors import SymmetricSignal
from ..problem import Problem
from ..results import SimulationRun, Status
from ..simulations._message_passing import HOPELESS, Damping, denoise, prior_mean
from .indexed import (
    HardmaxChannel,
    LinearTokenChannel,
    NoisySoftmaxChannel,
    SoftmaxChannel,
    TokenChannel,
)

__all__ = ["AttentionInstance", "amp", "sample"]

_Index = npt.NDArray[np.intp]

_EPS = float(np.finfo(float).eps)
_DAMPING = 0.5  # with none tied runs end in cycles of two, with 0.3 some leave a fixed point
_LEAST_MISFIT = 0.1  # a residual that vanishes by chance does not prove that there is no error
_CANCELS = 0.1  # share of a sum of terms of both signs that is not trusted


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
        Labels; (n, 2) for `NoisySoftmaxChannel`.
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


def _whitened(channel: LinearTokenChannel, C: Array) -> tuple[Array, Array]:
    """Return the equations of every sample with independent errors, and what these are.

    Rows of the first array, shape (n, K, pairs), are combinations of scores whose noise has the
    variance delta and whose error has V times the second array, shape (n, K), for every V.
    """
    A = _equations(channel)
    noise = (A * channel.pair_variance[_pairs(channel)]) @ A.T
    A = np.linalg.solve(np.linalg.cholesky(noise), A)
    power, vectors = np.linalg.eigh(A @ C @ A.T)
    # more pairs than tokens have coordinates: combinations that vanish
    power = np.where(power > 1e-10 * power.max(), power, 0.0)
    return np.swapaxes(vectors, 1, 2) @ A, power


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
# What labels answer
# --------------------------------------------------------------------------------------------


class _Answer(NamedTuple):
    """What the labels of all samples say about their scores."""

    g: Array  # shape (n, pairs)
    energy: float  # mean of g^T C g
    response: float  # mean of -tr(C dg/domega), which the energy equals on average where V is right


def _linear_answers(
    instance: AttentionInstance, channel: LinearTokenChannel, C: Array
) -> Callable[[Array, float], _Answer]:
    """Return the answers at means omega, shape (n, pairs), and an error V: a Gaussian posterior."""
    delta = float(channel.delta)
    a, b = _pairs(channel)
    B, power = _whitened(channel, C)
    told = np.einsum("nkp,np->nk", B, channel.scores_of(instance.y)[:, a, b])

    def answer(omega: Array, V: float) -> _Answer:
        spread = V * power + delta
        residual = np.divide(
            told - np.einsum("nkp,np->nk", B, omega),
            spread,
            out=np.zeros_like(told),
            where=power > 0.0,
        )
        weight = np.divide(power, spread, out=np.zeros_like(power), where=power > 0.0)
        return _Answer(
            np.einsum("nkp,nk->np", B, residual),
            float(np.mean(np.sum(power * residual**2, axis=1))),
            float(np.mean(np.sum(weight, axis=1))),
        )

    return answer


def _two_token_answers(
    instance: AttentionInstance, channel: HardmaxChannel | NoisySoftmaxChannel, C: Array
) -> Callable[[Array, float], _Answer]:
    """Return the answers at means omega, shape (n, 3), and an error V: integrals over u."""
    a, b = _pairs(channel)
    means = np.empty((len(C), 2, 2))

    def answer(omega: Array, V: float) -> _Answer:
        means[:, a, b] = means[:, b, a] = omega
        g, divergence = channel.score(instance.y, means, V, covariance=C)
        g = g[:, a, b]
        energy = float(np.mean(np.einsum("np,npq,nq->n", g, C, g)))
        response = -float(np.mean(divergence))
        # labels with much noise may widen a posterior; where that cancels the others' answers,
        # their size is left
        if response <= _CANCELS * float(np.mean(np.abs(divergence))):
            response = energy
        return _Answer(g, energy, response)

    return answer


def _answers(instance: AttentionInstance, C: Array) -> Callable[[Array, float], _Answer]:
    channel = _channel(instance.problem)
    if isinstance(channel, LinearTokenChannel):
        return _linear_answers(instance, channel, C)
    if isinstance(channel, HardmaxChannel | NoisySoftmaxChannel):
        return _two_token_answers(instance, channel, C)
    raise NotImplementedError(
        "amp needs a score for scores of any covariance, which LinearTokenChannel, SoftmaxChannel, "
        f"HardmaxChannel and NoisySoftmaxChannel have, got {channel!r}"
    )


# --------------------------------------------------------------------------------------------
# The algorithm
# --------------------------------------------------------------------------------------------


def amp(
    instance: AttentionInstance,
    *,
    steps: int = 500,
    damping: float | Literal["auto"] = "auto",
    tolerance: float = 1e-3,
) -> SimulationRun:
    r"""Run GAMP-RIE on an attention problem.

    Parameters
    ----------
    instance : AttentionInstance
        With any channel of `bsr_theory.attention`; S is used to report errors only.
    steps : int
        Largest number of iterations.
    damping : "auto" or float
        Share of the old estimate that is kept, in [0, 15/16].  "auto" begins at 0.5 and damps more
        when the residual of the labels outgrows what it should be, or when for 15 iterations
        neither the noise nor the step reaches a new low.  0 is the iteration whose limit is
        ``bsr_theory.iterate``.
    tolerance : float
        Step before damping over the error, both root mean square, at which a run has converged.
        0 runs all the steps.

    Returns
    -------
    SimulationRun
        With `Status.PERFECT_RECOVERY` when the algorithm's own error is at rounding, CONVERGED
        when the estimate no longer moves, NOT_CONVERGED after all the steps.

    Raises
    ------
    ValueError
        If an argument is out of its range or the instance is not finite.
    NotImplementedError
        For a channel of another kind: its score would have to know the covariance of each sample.

    Notes
    -----
    From ``S_hat = E S`` and b = 0 the iteration is, with N independent entries of S,

    .. math:: \omega &= \langle M, \hat S\rangle - b, \qquad
              g = \partial_\omega \log \mathrm E\,[P_\mathrm{out}(y\,|\,h)],\quad
              h \sim \mathcal N(\omega, V C), \\
              \chi &= -\frac nN\,\big\langle\operatorname{tr} C\,\partial_\omega g\big\rangle,
              \qquad s = \frac nN\,\frac{\langle g^{\mathsf T} C g\rangle}{\chi^2}, \\
              R &= \hat S + \frac k\chi \textstyle\sum g_p M_p, \qquad
              \hat S \leftarrow f(R; s), \qquad
              b \leftarrow \frac{\mathrm{div} f}{N \chi}\,C g, \qquad V \leftarrow M(s),

    where averages are over the n samples, the sum is over all pairs of all samples, C is that of
    each sample (head of this module), and k is 2 for tied tokens and 1 otherwise.  Where a label
    tells the values u of combinations A of scores,
    ``g = A^T (V A C A^T + delta A D A^T)^-1 (u - A omega)``; where it depends on two differences
    of scores, see `HardmaxChannel.score` and `NoisySoftmaxChannel.score`: a few microseconds a
    sample, and tens.  The model is that of arXiv:2506.01582.

    The scale of the step is the response of the scores and s is measured from their size, div is
    that of the denoiser that was applied, and an estimate that explains the labels 4 times worse
    than ``E S`` does is given up for it, as in `bsr_theory.simulations.amp`: no run diverges.  At
    ``alpha K`` below a tenth of the threshold and d of 30, errors pass through a few times the
    prior's before they settle.

    Hardmax labels do not depend on the scale of S, about which a finite run then errs for long:
    its estimates are given the norm of a Bayes estimate of the error ``M(s)``, ``E S^2 - M(s)`` per
    entry.  In the limit they have it.

    Finite tied problems lie above the limit by a few per d, more near the threshold, where the
    error is steep in the number of labels: of these there are ``n/N = 2 alpha d/(d + 1)`` per
    independent entry.

    Examples
    --------
    >>> from bsr_theory.attention import amp, sample, softmax_attention
    >>> data = sample(softmax_attention(alpha=0.3, rho=0.3, tokens=2), d1=30, rng=1)
    >>> run = amp(data)
    >>> run.status.name, bool(run.mse[-1] < 1e-20)
    ('PERFECT_RECOVERY', True)
    """
    channel = _channel(instance.problem)
    steps = check_integer("steps", steps)
    keep = Damping.chosen(damping, _DAMPING)
    tolerance = check_number("tolerance", tolerance)
    for name in ("queries", "keys", "y"):
        if not np.isfinite(getattr(instance, name)).all():
            raise ValueError(f"{name} of the instance must be finite")
    began = time.perf_counter()
    S, prior = instance.S, instance.problem.prior.at_size(len(instance.S))
    if channel.tied != isinstance(prior, SymmetricSignal):
        raise ValueError(f"prior must be symmetric for tied tokens and only then, got {prior!r}")
    k = 2.0 if channel.tied else 1.0
    entries = len(S) * (len(S) + 1) / 2 if channel.tied else S.size
    unit = k * entries / S.size  # of V in terms of an error per entry of S
    ratio = len(instance.queries) / entries

    a, b = _pairs(channel)
    C = _covariances(instance)
    answer = _answers(instance, C)
    # logarithms of a soft softmax have an absolute error of eps
    rounding = (256.0 * _EPS * max(1.0, 1.0 / getattr(channel, "sharpness", 1.0))) ** 2
    # signs do not tell the scale of S, in which runs would drift for hundreds of iterations
    blind = isinstance(channel, HardmaxChannel)
    mean = prior_mean(prior, S.shape)
    unknown = float(prior.second_moment - prior.prior_overlap)  # error without data, M(inf)

    estimate, memory, V = mean, np.zeros(C.shape[:2]), unknown
    errors, overlaps = [float(np.mean((estimate - S) ** 2))], [float(np.mean(estimate * S))]
    believed, snrs, misfits, kept = [unit * V], [], [], []
    status, hopeless = Status.NOT_CONVERGED, 0.0
    for _ in range(steps):
        omega = instance.scores(estimate)[:, a, b] - memory
        g, energy, response = answer(omega, V)
        # signs that are certain of all scores at once tell nothing
        misfit = energy / response if response > 0.0 else 1.0
        gain = 1.0 / (ratio * response) if response > 0.0 else np.inf
        s = max(misfit, _LEAST_MISFIT) * gain
        hopeless = hopeless or HOPELESS * s  # of the first iteration
        if s <= hopeless and s < np.inf:
            denoised, divergence = denoise(prior, estimate + k * gain * _gather(instance, g), s)
            if blind:
                scale = np.sqrt(
                    (prior.prior_overlap + unit * (unknown - float(prior.mmse(s))))
                    / np.mean(denoised**2)
                )
                denoised, divergence = scale * denoised, scale * divergence
            moved = float(np.mean((denoised - estimate) ** 2))
            keep.update(misfit, noise=s, step=moved)
            new = 1.0 - keep.value
            estimate = estimate + new * (denoised - estimate)
            memory = keep.value * memory + new * divergence * gain * np.einsum("npq,nq->np", C, g)
            V = max(keep.value * V + new * float(prior.mmse(s)), _EPS**2)
        else:
            estimate, memory, V, moved = mean, np.zeros_like(memory), unknown, np.inf
            keep.strengthen()
        errors.append(float(np.mean((estimate - S) ** 2)))
        overlaps.append(float(np.mean(estimate * S)))
        believed.append(unit * V)
        snrs.append(1.0 / s)
        misfits.append(misfit)
        kept.append(keep.value)
        if V <= rounding:
            status = Status.PERFECT_RECOVERY
        elif moved <= tolerance**2 * V:
            status = Status.CONVERGED
        else:
            status = Status.NOT_CONVERGED
        if tolerance > 0.0 and status.ok:
            break
    return SimulationRun(
        mse=np.array(errors),
        overlap=np.array(overlaps),
        estimate=estimate,
        status=status,
        seconds=time.perf_counter() - began,
        estimated_mse=np.array(believed),
        qhat=np.array(snrs),
        misfit=np.array(misfits),
        damping=np.array(kept),
    )
