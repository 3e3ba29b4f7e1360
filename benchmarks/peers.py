"""Other ways to the same numbers, as one writes them with NumPy and SciPy alone.

All use the spectrum from the roots of the quartic (tests/naive.py); none uses the package.
"""

from __future__ import annotations

import naive
import numpy as np
from scipy.integrate import quad, quad_vec
from scipy.optimize import root
from scipy.special import log_ndtr


def mmse_on_a_grid(beta: float, rho: float, s: float, nodes: int = 100) -> float:
    """Return M(s) from all companion matrices of a Gauss-Legendre rule at once (for s < 1)."""
    a, b, d = naive._curve(beta, rho, s)
    x, weights = np.polynomial.legendre.leggauss(nodes)
    angle, total = np.pi / 4 * (1 + x), 0.0
    for lo, hi in naive.edges(beta, rho, s):
        w = lo + (hi - lo) * np.sin(angle) ** 2
        quartic = np.tile(np.polymul(a, b), (nodes, 1))
        quartic[:, 5 - d.size :] -= w[:, None] * d
        companion = np.zeros((nodes, 4, 4))
        companion[:, 1:, :3] = np.eye(3)
        companion[:, 0] = -quartic[:, 1:] / quartic[:, :1]
        roots = np.linalg.eigvals(companion)
        u = roots[np.arange(nodes), np.argmax(np.abs(roots.imag), axis=1)]
        g = beta * rho * (u - rho) / np.polyval(a, u)
        y = np.sqrt(w)
        repulsion = (1 - 1 / beta) / y + 2 * y / beta * g.real
        density = np.abs(g.imag) / np.pi * (hi - lo) * np.sin(2 * angle)
        total += np.pi / 4 * np.sum(weights * density * repulsion**2)
    return s * (1 - s * total)


def information(beta: float, rho: float, snr: float, tolerance: float = 1e-8) -> float:
    """Return I_S(snr), the integral of the error over the signal-to-noise ratio, halved."""

    def integrand(x: float) -> float:
        return 0.5 * naive.mmse(beta, rho, 1 / x, tolerance)

    return quad(integrand, 0, snr, epsabs=0, epsrel=tolerance)[0]


def nuclear_norm(
    alpha: float, beta: float, rho: float, delta: float, lam: float, tolerance: float = 1e-9
) -> float:
    """Return the error of least squares with a nuclear-norm penalty, from quadratures."""

    def functionals(s: float, tau: float) -> tuple[float, float]:
        """Return the error of soft thresholding at tau, and its divergence."""

        def integrand(x: float, lo: float, hi: float) -> np.ndarray:
            w = lo + (hi - lo) * np.sin(x) ** 2
            g = naive.stieltjes(w, beta, rho, s)
            y = np.sqrt(w)
            h = (1 - 1 / beta) / y + 2 * y / beta * g.real
            kept = max(y - tau, 0.0)
            density = -g.imag / np.pi * (hi - lo) * np.sin(2 * x)
            return density * np.array([(y - kept) ** 2, kept * h])

        total = np.zeros(2)
        for lo, hi in naive.edges(beta, rho, s):
            cut = np.arcsin(np.sqrt(np.clip((tau**2 - lo) / (hi - lo), 0, 1)))
            for left, right in ((0.0, cut), (cut, np.pi / 2)):
                if right > left:
                    total += quad_vec(
                        integrand, left, right, epsabs=tolerance, epsrel=tolerance, args=(lo, hi)
                    )[0]
        removed, divergence = total
        return removed - s + 2 * s * divergence, divergence

    def residuals(x: np.ndarray) -> list[float]:
        s, tau = np.exp(x)
        error, divergence = functionals(s, tau)
        return [alpha - (delta + error) / s, tau * (alpha - divergence) - lam]

    s, tau = np.exp(root(residuals, np.log([(1 + delta) / alpha, 1.0]), tol=tolerance).x)
    return functionals(s, tau)[0]


def sign_score(y: np.ndarray, omega: np.ndarray, V: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the score of noiseless signs and its derivative, from the normal distribution."""
    z = y * omega / np.sqrt(V)
    mills = np.exp(-0.5 * z**2 - 0.5 * np.log(2 * np.pi) - log_ndtr(z))
    return y * mills / np.sqrt(V), -mills * (z + mills) / V


def score_by_quadrature(likelihood, y: float, omega: float, V: float) -> float:
    """Return the score of one label, E[(h - omega) P(y | h)]/(V E[P(y | h)])."""

    def moment(k: int) -> float:
        def integrand(x: float) -> float:
            return x**k * np.exp(-0.5 * x * x) * likelihood(y, omega + np.sqrt(V) * x)

        return quad(integrand, -12, 12, epsabs=0, epsrel=1e-10, limit=200)[0]

    return moment(1) / (np.sqrt(V) * moment(0))
