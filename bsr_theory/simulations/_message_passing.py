"""What message passing needs for any kind of labels: the denoiser, its divergence, and damping."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from .._arrays import Array, check_number
from ..priors import Prior

__all__ = ["HOPELESS", "Damping", "denoise", "divergence"]

HOPELESS = 4.0  # labels explained that many times worse than without data: start again

_STEP = 1e-5  # relative step of the derivative of the denoiser
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


def denoise(prior: Prior, R: Array, s: float) -> tuple[Array, float]:
    """Return the Bayes estimate of S from ``R = S + sqrt(s) Z`` and its divergence per entry."""
    left, sigma, right = np.linalg.svd(R, full_matrices=False)
    d1, d2 = sorted(R.shape)
    root = np.sqrt(d2)
    y = sigma / root
    # noise and signal may lie at scales that differ by many decades: a step for each
    step = _STEP * np.where(y > 0.0, y, y[0] or 1.0)
    below, above = np.maximum(y - step, 0.0), y + step
    # one call, so that the spectral law is solved once
    f, down, up = np.reshape(prior.shrink(np.concatenate([y, below, above]), s), (3, d1))
    slope = (up - down) / (above - below)
    return (left * (f * root)) @ right, divergence(y, f, slope, d2) / R.size


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
