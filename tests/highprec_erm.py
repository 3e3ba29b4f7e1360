"""Soft thresholding of a noisy product of Gaussian matrices to any number of digits, in mpmath.

The spectrum of ``S + sqrt(s) Z`` comes from `highprec`: on the real axis, point by point from the
quartic, with the trapezoidal rule on pieces between the singularities.  The threshold is one more
end of a piece.  Nothing is shared with the package: not the curve of conjugate pairs, not the
panels, not the forms of the equations, not the root finding.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import highprec
import mpmath
from mpmath import mp, mpf

Real = highprec.Real


@dataclass(frozen=True)
class Thresholded:
    """Functionals of ``f(y) = (y - tau)_+``; h is such that y - s h denoises best."""

    rank: mpf  # int rho over y > tau
    hilbert: mpf  # int rho h over y > tau
    nuclear: mpf  # int rho f
    norm: mpf  # int rho f^2
    divergence: mpf  # int rho f h
    overlap: mpf  # int rho f (y - s h)
    error: mpf  # int rho min(y, tau)^2 - s + 2 s divergence
    other_error: mpf  # M(s) + int rho (f - y + s h)^2
    mass: mpf


class _Law(highprec._Law):
    def point(self, y: mpf, r1: mpf, r2: mpf) -> tuple[mpf, mpf]:
        """Return density of y and h(y) from the two real roots of the quartic."""
        real = -(self.N[1] + r1 + r2) / 2
        imag2 = self.N[4] / (r1 * r2) - real**2
        t = mpmath.mpc(real, -mp.sqrt(max(imag2, mpf(0))))
        g = self.beta * self.rho * t / mp.polyval(self.A, t)
        return -2 * y * g.imag / mp.pi, (1 - 1 / self.beta) / y + 2 * y / self.beta * g.real

    def sums(self, f: Callable[..., list[mpf]], tau: mpf, target: int) -> list[list[mpf]]:
        """Return the integrals of ``f(y, rho, h)`` over y < tau and over y > tau."""
        totals = [[mpf(0)] * 6, [mpf(0)] * 6]
        for lo, hi in self.pieces():
            ends = [lo, tau, hi] if lo < tau < hi else [lo, hi]
            for left, right in itertools.pairwise(ends):
                part = self._piece(f, left, right, target)
                side = totals[1 if left >= tau else 0]
                side[:] = [a + b for a, b in zip(side, part, strict=True)]
        return totals

    def _piece(self, f: Callable[..., list[mpf]], lo: mpf, hi: mpf, target: int) -> list[mpf]:
        length, h = hi - lo, self._step(lo, hi, target)
        floor = mpf(10) ** (-target - 4)
        total = [mpf(0)] * 6
        for direction in (1, -1):
            roots, quiet, k = None, 0, 0 if direction == 1 else 1
            while quiet < 4:
                e = mp.exp(-k * h)
                fraction = 1 / (1 + e)
                y = lo + length * fraction if direction == 1 else hi - length * fraction
                weight = length * fraction**2 * e * h
                roots = self._real_roots(y * y, roots)
                terms = [weight * v for v in f(y, *self.point(y, *roots))]
                total = [a + b for a, b in zip(total, terms, strict=True)]
                small = all(abs(b) <= floor * abs(a) for a, b in zip(total, terms, strict=True))
                quiet = quiet + 1 if small else 0
                k += 1
        return total


def thresholded(beta: Real, rho: Real, s: Real, tau: Real, digits: int = 25) -> Thresholded:
    """Return the functionals of soft thresholding to ``digits`` digits."""
    with mp.workdps(2 * digits + 60):
        law, cut, s = _Law(mpf(beta), mpf(rho), mpf(s)), mpf(tau), mpf(s)

        def terms(y: mpf, density: mpf, h: mpf) -> list[mpf]:
            return [
                density * v for v in (mpf(1), h, y, y * y, y * h, (y - s * h) ** 2)
            ]  # the last is what the optimal denoiser keeps

        low, high = law.sums(terms, cut, digits + 6)
        rank, hilbert, mean, square, product, kept = high
        divergence = product - cut * hilbert
        norm = square - 2 * cut * mean + cut**2 * rank
        error = low[3] + cut**2 * rank - s + 2 * s * divergence
        optimal = 1 - low[5] - kept
        # int (f - y + s h)^2 = int (s h - tau)^2 above, int (y - s h)^2 below
        spread = kept - 2 * (norm_overlap := square - cut * mean - s * divergence) + norm
        other = optimal + low[5] + spread
        return Thresholded(
            rank, hilbert, mean - cut * rank, norm, divergence, norm_overlap, error, other,
            low[0] + rank,
        )  # fmt: skip


def solve(
    beta: Real,
    rho: Real,
    alpha: Real,
    delta: Real,
    lam: Any,
    start: tuple[float, float],
    digits: int = 25,
) -> tuple[mpf, mpf, Thresholded]:
    """Return (s, tau, functionals) of nuclear-norm regression, lam a number or "optimal".

    Newton's method from ``start``, the derivatives by differences: any start near the solution
    leads to it, and the residuals of the equations as they stand decide.
    """
    with mp.workdps(2 * digits + 60):
        alpha, delta = mpf(alpha), mpf(delta)

        def residuals(x: mpmath.matrix) -> tuple[mpmath.matrix, Thresholded]:
            s, tau = mp.exp(x[0]), mp.exp(x[1])
            cut = thresholded(beta, rho, s, tau, digits)
            if lam == "optimal":
                second = cut.rank - s * cut.hilbert / tau
            elif float(lam) == 0.0:
                second = alpha - cut.divergence
            else:
                second = tau * (alpha - cut.divergence) - mpf(lam)
            return mpmath.matrix([alpha - (delta + cut.error) / s, second]), cut

        x = mpmath.matrix([mp.log(mpf(v)) for v in start])
        step = mpf(10) ** (-digits // 2)
        jacobian = mpmath.matrix(2, 2)
        value, cut = residuals(x)
        for k in range(2):
            moved = x.copy()
            moved[k] += step
            jacobian[:, k] = (residuals(moved)[0] - value) / step
        for _ in range(30):
            change = -(jacobian**-1) * value
            x += change
            value, cut = residuals(x)
            if max(abs(c) for c in change) < mpf(10) ** (-digits // 2 - 2):
                break
        x -= jacobian**-1 * value
        return mp.exp(x[0]), mp.exp(x[1]), cut
