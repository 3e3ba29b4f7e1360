"""The rational spectral curve of a noisy product of two Gaussian matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["RectangularCurve"]


@dataclass(frozen=True)
class RectangularCurve:
    r"""Rational curve ``t -> (w(t), g(t))`` of ``Y = A B/sqrt(r) + sqrt(s) Z``.

    ``W = Y Y^T/d2`` has eigenvalues ``w`` and Stieltjes transform
    ``g(w) = (1/d1) tr (w - W)^{-1}``; both are rational in one parameter ``t``.

    Parameters
    ----------
    beta, rho, s : number
        ``d2/d1 >= 1``, ``r/d1 > 0`` and the noise variance per entry ``s > 0``.  Floats,
        fractions, mpmath numbers and sympy expressions all work: the methods only add, multiply
        and divide.

    Notes
    -----
    With ``u = rho + t``, ``A = u (beta + t) + s rho t`` and ``B = u (1 + t) + s rho t``,

    .. math:: w = \frac{A B}{\beta \rho t u}, \qquad g = \frac{\beta \rho t}{A}, \qquad
              w g = \frac{B}{u}.

    ``t -> 0`` is ``w -> infinity``.  On the physical sheet, for ``Im w > 0``, ``Im t < 0`` and
    ``|t|^2 < rho beta``.  Edges of the spectrum are the real critical points of ``w(t)`` with
    ``w > 0``.  It follows from the S-transforms of the two Marchenko-Pastur laws and the
    information-plus-noise equation of Dozier and Silverstein (docs/theory); the matrix ensemble
    is that of arXiv:2410.18858.

    Examples
    --------
    >>> from fractions import Fraction
    >>> from bsr_theory.spectra import RectangularCurve
    >>> curve = RectangularCurve(beta=2, rho=1, s=Fraction(1, 2))
    >>> t = Fraction(1, 3)
    >>> curve.w(t) * curve.g(t) == curve.wg(t)
    True
    """

    beta: Any
    rho: Any
    s: Any

    def a(self, t: Any) -> Any:
        """Return ``A(t)``, whose zeros are the poles of g."""
        return (self.rho + t) * (self.beta + t) + self.s * self.rho * t

    def b(self, t: Any) -> Any:
        """Return ``B(t)``; its zero ``-rho < t0 < 0`` is ``w = 0`` on the physical sheet."""
        return (self.rho + t) * (1 + t) + self.s * self.rho * t

    def w(self, t: Any) -> Any:
        """Return the eigenvalue variable ``w(t)``."""
        return self.a(t) * self.b(t) / (self.beta * self.rho * t * (self.rho + t))

    def g(self, t: Any) -> Any:
        """Return the Stieltjes transform ``g(t)``."""
        return self.beta * self.rho * t / self.a(t)

    def wg(self, t: Any) -> Any:
        """Return ``w g = B/u``."""
        return self.b(t) / (self.rho + t)

    def dlogw(self, t: Any) -> Any:
        """Return the logarithmic derivative ``w'(t)/w(t)``: zero at the edges."""
        u = self.rho + t
        shift = self.rho * (1 + self.s)
        da, db = 2 * t + self.beta + shift, 2 * t + 1 + shift
        return da / self.a(t) + db / self.b(t) - 1 / t - 1 / u

    def quartic(self, w: Any) -> list[Any]:
        """Return the coefficients, highest first, of ``A B - w beta rho t u`` as a polynomial in t.

        Its four roots are the sheets above ``w``; for ``w > 0`` at most one pair is complex.
        """
        beta, rho, kappa = self.beta, self.rho, self.s * self.rho
        a1, b1 = beta + rho + kappa, 1 + rho + kappa
        return [
            1,
            a1 + b1,
            beta * rho + rho + a1 * b1 - w * beta * rho,
            a1 * rho + b1 * beta * rho - w * beta * rho * rho,
            beta * rho * rho,
        ]

    def roots(self, w: complex) -> np.ndarray[Any, np.dtype[np.complex128]]:
        """Return the four sheets above ``w``, in double precision (companion matrix, polished)."""
        coefficients = np.array([complex(x) for x in self.quartic(w)])
        roots = np.roots(coefficients)
        derivative = np.polyder(coefficients)
        for _ in range(3):
            slope = np.polyval(derivative, roots)
            step = np.polyval(coefficients, roots) / np.where(slope == 0, 1, slope)
            roots = np.where(np.abs(step) < 0.1 * np.abs(roots), roots - step, roots)
        return np.asarray(roots)
