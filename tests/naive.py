"""The straightforward calculation: companion-matrix roots at every point of adaptive quadratures.

This is how such numbers are usually obtained, kept as a peer to compare with: the density of the
spectrum from ``numpy.roots`` of the quartic at each ``w``, the error of the denoiser from
``scipy.integrate.quad`` over each bulk, the state evolution from ``brentq``.  Slow (tens of
milliseconds for one error), in plain double precision, and with none of the rearrangements that
extreme parameters need: use it for ``beta = 1`` or ``beta > 1.001`` and moderate ``rho`` and ``s``.
"""

from __future__ import annotations

import numpy as np
from scipy.integrate import quad
from scipy.optimize import brentq


def _curve(beta: float, rho: float, s: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return A, B and D (highest power first) of ``w = A B / D`` and ``g = beta rho t / A``.

    In ``u = t + rho`` for weak noise, where the bulk of pure noise sits at ``u ~ s``, else in
    ``t``, where the law is at ``t ~ 1/s``.
    """
    if s < 1:
        a = np.array([1, beta - rho + s * rho, -s * rho**2])
        b = np.array([1, 1 - rho + s * rho, -s * rho**2])
        return a, b, beta * rho * np.array([1, -rho, 0])
    a = np.array([1, beta + rho + s * rho, beta * rho])
    b = np.array([1, 1 + rho + s * rho, rho])
    return a, b, beta * rho * np.array([1, rho, 0])


def edges(beta: float, rho: float, s: float) -> list[tuple[float, float]]:
    """Return the bulks of the spectrum of ``Y Y^T/d2``: critical values of ``w(t)``."""
    a, b, d = _curve(beta, rho, s)
    if beta == 1:
        slope = np.polysub(2 * np.polymul(np.polyder(a), d), np.polymul(a, np.polyder(d)))
    else:
        n = np.polymul(a, b)
        slope = np.polysub(np.polymul(np.polyder(n), d), np.polymul(n, np.polyder(d)))
    points = np.roots(slope)
    points = points[np.abs(points.imag) < 1e-10 * np.abs(points)].real
    values = np.polyval(a, points) * np.polyval(b, points) / np.polyval(d, points)
    ends = sorted(values[values > 0])
    if beta == 1:
        ends = [0.0, *ends]
    if len(ends) not in (2, 4):
        raise ArithmeticError(f"found edges {ends} for beta={beta}, rho={rho}, s={s}")
    return list(zip(ends[::2], ends[1::2], strict=True))


def stieltjes(w: float, beta: float, rho: float, s: float) -> complex:
    """Return ``g(w + i0)``, the trace of the resolvent above the cut: ``Im g <= 0``."""
    a, b, d = _curve(beta, rho, s)
    roots = np.roots(np.polysub(np.polymul(a, b), w * d))
    root = roots[np.argmax(np.abs(roots.imag))]
    t = root - rho if s < 1 else root
    g = beta * rho * t / np.polyval(a, root)
    return complex(g.real, -abs(g.imag))


def density(w: float, beta: float, rho: float, s: float) -> float:
    """Return the density of the eigenvalues of ``Y Y^T/d2``."""
    return -stieltjes(w, beta, rho, s).imag / np.pi


def average(function, beta: float, rho: float, s: float, tolerance: float = 1e-11) -> float:
    """Integrate ``function(w, g(w))`` over the law."""
    total = 0.0
    for lo, hi in edges(beta, rho, s):

        def integrand(x: float, lo: float = lo, hi: float = hi) -> float:
            w = lo + (hi - lo) * np.sin(x) ** 2
            g = stieltjes(w, beta, rho, s)
            return -g.imag / np.pi * function(w, g) * (hi - lo) * np.sin(2 * x)

        total += quad(integrand, 0, np.pi / 2, epsabs=0, epsrel=tolerance, limit=500)[0]
    return total


def mmse(beta: float, rho: float, s: float, tolerance: float = 1e-11) -> float:
    """Return M(s), the error of the optimal denoiser ``y - s h(y)`` of the singular values."""

    def repulsion(w: float, g: complex) -> float:
        y = np.sqrt(w)
        return (1 - 1 / beta) / y + 2 * y / beta * g.real

    if s < 1:
        return s * (1 - s * average(lambda w, g: repulsion(w, g) ** 2, beta, rho, s, tolerance))
    return 1 - average(
        lambda w, g: (np.sqrt(w) - s * repulsion(w, g)) ** 2, beta, rho, s, tolerance
    )


def solve(alpha: float, beta: float, rho: float, delta: float, tolerance: float = 1e-9) -> float:
    """Return the Bayes-optimal error with the Gaussian channel: ``M(s) = alpha s - delta``."""
    if delta == 0:
        degrees_of_freedom = rho * (1 + beta - rho) / beta if rho < 1 else 1.0
        if alpha >= degrees_of_freedom:
            return 0.0

    def excess(log_s: float) -> float:
        s = np.exp(log_s)
        return mmse(beta, rho, s, tolerance) / s - alpha + delta / s

    low = np.log(delta / alpha) if delta > 0 else np.log(1e-6)
    log_s = brentq(excess, low, np.log((1 + delta) / alpha), xtol=1e-13, rtol=1e-13)
    return mmse(beta, rho, np.exp(log_s), tolerance)
