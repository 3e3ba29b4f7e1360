"""What message passing needs for any kind of labels: the denoiser, its divergence, and damping."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from .._arrays import Array, check_number
from ..priors import Prior, SymmetricSignal

__all__ = ["HOPELESS", "Damping", "denoise", "divergence", "prior_mean"]

HOPELESS = 4.0  # labels explained that many times worse than without data: start again

_STEP = 1e-5  # relative step of the derivative of the denoiser
_INSIDE = 1e-3  # the same, of the width of a bulk
_MISFIT = 2.0  # times its first value: a misfit that, still growing, calls for damping
_GROWTH = 1.1  # of the misfit in one iteration
_PATIENCE = 15  # iterations without progress that call for damping
_STRONGEST = 1.0 - 2.0**-4  # damping never exceeds this


# --------------------------------------------------------------------------------------------
# The denoiser and its divergence
# --------------------------------------------------------------------------------------------


def divergence(sigma: Array, f: Array, slope: Array, d2: int) -> float:
    r"""Return the divergence of ``Y -> U f(sigma) V^T``, Y of shape (d1, d2), d1 <= d2.

    .. math:: \sum_i f'(\sigma_i) + (d_2 - d_1) \sum_i \frac{f(\sigma_i)}{\sigma_i}
              + 2 \sum_{i<j} \frac{\sigma_i f(\sigma_i) - \sigma_j f(\sigma_j)}
                                  {\sigma_i^2 - \sigma_j^2}

    (Candes, Sing-Long and Trzasko, arXiv:1210.4139).
    """
    d1 = sigma.size
    i, j = np.triu_indices(d1, 1)
    square, product = sigma**2, sigma * f
    gap = square[i] - square[j]
    # singular values that agree to half the digits: the derivative is the better quotient
    close = np.abs(gap) <= 1e-8 * square[i]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(sigma > 0.0, f / sigma, slope)
        pairs = np.where(close, 0.5 * (slope + ratio)[i], (product[i] - product[j]) / gap)
    return float(slope.sum() + (d2 - d1) * ratio.sum() + 2.0 * pairs.sum())


def _within_bulks(step: Array, y: Array, edges: Array) -> Array:
    """Return steps that are small on the scale of the bulk around each y.

    Bulks around values that many singular values of S share are as narrow as the noise.
    """
    step = step.copy()
    for low, high in edges:
        width = high - low
        around = (y > low - 0.5 * width) & (y < high + 0.5 * width)
        step[around] = np.minimum(step[around], _INSIDE * width)
    return np.maximum(step, 8.0 * np.spacing(np.abs(y)))


def denoise(prior: Prior, R: Array, s: float) -> tuple[Array, float]:
    """Return the Bayes estimate of S from ``R = S + sqrt(s) Z`` and its divergence.

    The divergence is per independent entry: all, or ``d (d + 1)/2`` of a symmetric S.
    """
    if s == np.inf:
        return prior_mean(prior, R.shape), 0.0
    if isinstance(prior, SymmetricSignal):
        return _denoise_symmetric(prior, R, s)
    left, sigma, right = np.linalg.svd(R, full_matrices=False)
    d1, d2 = sorted(R.shape)
    root = np.sqrt(d2)
    y = sigma / root
    # noise and signal may lie at scales that differ by many decades: a step for each
    step = _within_bulks(_STEP * np.where(y > 0.0, y, y[0] or 1.0), y, prior.law(s).edges)
    below, above = np.maximum(y - step, 0.0), y + step
    # one call, so that the spectral law is solved once
    f, down, up = np.reshape(prior.shrink(np.concatenate([y, below, above]), s), (3, d1))
    slope = (up - down) / (above - below)
    return (left * (f * root)) @ right, divergence(y, f, slope, d2) / R.size


def _denoise_symmetric(prior: SymmetricSignal, R: Array, s: float) -> tuple[Array, float]:
    r"""Return the Bayes estimate of a symmetric S and its divergence per independent entry.

    .. math:: \mathrm{div} f = \sum_i f'(\lambda_i)
              + \sum_{i<j} \frac{f(\lambda_i) - f(\lambda_j)}{\lambda_i - \lambda_j}.
    """
    values, vectors = np.linalg.eigh(R)
    d = len(R)
    root = np.sqrt(d)
    y = values / root
    # below the spectrum f falls to 0 within a few eigenvalues' distance: there it stays what it is
    # at the edge, else whether the lowest one has crossed decides on div and runs do not settle
    edges = prior.law(s).edges
    # eigenvalues of the noise are of size sqrt(s), those of the signal may be much larger
    step = _within_bulks(_STEP * np.maximum(np.abs(y), np.sqrt(s)), y, edges)
    points = np.maximum(np.concatenate([y, y - step, y + step]), edges[0, 0])
    # one call, so that the spectral law is solved once
    f, down, up = np.reshape(prior.shrink(points, s), (3, d))
    slope = (up - down) / (2.0 * step)
    i, j = np.triu_indices(d, 1)
    gap = y[j] - y[i]
    # eigenvalues that agree to half the digits: the derivative is the better quotient
    close = gap <= 1e-8 * np.abs(y[j])
    with np.errstate(divide="ignore", invalid="ignore"):
        pairs = np.where(close, slope[i], (f[j] - f[i]) / gap)
    estimate = (vectors * (f * root)) @ vectors.T
    return estimate, 2.0 * float(slope.sum() + pairs.sum()) / (d * (d + 1))


def prior_mean(prior: Prior, shape: tuple[int, ...]) -> Array:
    """Return E S, a multiple of the unit matrix; 0 unless S is symmetric."""
    if isinstance(prior, SymmetricSignal):
        center = float(prior.shrink(0.0, np.inf)) * float(np.sqrt(shape[0]))
        return center * np.eye(shape[0])
    return np.zeros(shape)


# --------------------------------------------------------------------------------------------
# Damping
# --------------------------------------------------------------------------------------------


@dataclass
class Damping:
    """Share of the old estimate that is kept, chosen from what the run itself shows.

    It rises when the labels are explained worse than the algorithm expects and worse than an
    iteration ago, or when for some time neither the noise s nor the step has reached a new low;
    it falls again, down to ``base``, while one of them does.
    """

    value: float
    automatic: bool
    first: float = 0.0
    last: float = np.inf
    least: dict[str, float] = field(default_factory=dict)
    waited: int = 0
    base: float = 0.0

    def strengthen(self) -> None:
        """Halve the share of the new estimate."""
        if self.automatic:
            self.value = min(0.5 * (1.0 + self.value), _STRONGEST)
        self.waited = 0
        self.least = {}

    def update(self, misfit: float, **measures: float) -> None:
        """Take note of an iteration."""
        self.first = self.first or max(1.0, misfit)
        record = False
        for name, value in measures.items():
            if value < self.least.get(name, np.inf):
                self.least[name], record = value, True
        self.waited = 0 if record else self.waited + 1
        grows = misfit > _MISFIT * self.first and misfit > _GROWTH * self.last
        self.last = misfit
        if grows or self.waited >= _PATIENCE:
            self.strengthen()
        elif self.automatic and record and misfit <= _MISFIT * self.first:
            self.value = max(self.base, 1.0 - 1.1 * (1.0 - self.value))

    @classmethod
    def chosen(cls, damping: float | Literal["auto"], base: float = 0.0) -> Damping:
        """Return what an argument of that name asks for; "auto" begins at ``base``."""
        if isinstance(damping, str):
            if damping != "auto":
                raise ValueError(f"damping must be 'auto' or a number, got {damping!r}")
            return cls(base, automatic=True, base=base)
        return cls(check_number("damping", damping, high=_STRONGEST), automatic=False)
