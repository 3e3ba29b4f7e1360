"""Reference values of M(s) and I_S(1/s) to any number of digits, in plain mpmath.

The problem is the denoising of ``S = A B / sqrt(r)`` observed as ``Y = S + sqrt(s) Z``.  The
spectrum of ``W = Y Y^T / d2`` lives on the rational curve (``u = t + rho``)::

    w = A B / (beta rho t u),       g = beta rho t / A,
    A = u (beta + t) + s rho t,     B = u (1 + t) + s rho t

and a bulk is where the quartic ``A B = w beta rho t u`` has a pair of complex roots.  How the
values are computed, so that no parameter is special:

* *Roots.*  ``A < 0`` and ``B < 0`` between their zeros, ``a1 <= b1 < -rho < 0``.  For every
  ``w > 0`` the curve therefore has one real root below ``a1`` (``w`` falls from infinity to 0) and
  one in ``(b1, -rho)`` (``w`` rises from 0 to infinity).  These two are bracketed and found by
  Newton steps; their sum and product give the complex pair.  No root is ever chosen.
* *Quadrature.*  In ``y = sqrt(w)`` every integrand is analytic except at square roots of critical
  values of ``w(t)``.  Each bulk is split at the real parts of those, and each piece is mapped to
  the line by ``y = lo + L / (1 + exp(-v))``: whatever the distance of a singularity to the piece,
  its image has ``|Im v| >= pi/2``.  The trapezoidal rule then converges like ``exp(-pi^2 / h)`` for
  every parameter, and ``h`` follows from the digits that are asked for.
* *Cancellation* is met with working digits: twice what is asked for, and sixty more.

`Reference` reports the residuals of two identities that no step above uses: the mass of the law is
1, and the two forms of the error agree, from the denoiser and from the third power of the density.

References: Erba, Troiani, Biggio, Maillard, Zdeborova, arXiv:2410.18858 (the model, M and I_S);
Troiani, Erba, Krzakala, Maillard, Zdeborova, arXiv:2203.07752 (the denoiser and its error).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import mpmath
from mpmath import mp, mpc, mpf

Real = Any  # mpf, or what mpf() reads without rounding: a float, an int, a decimal string


@dataclass(frozen=True)
class Reference:
    """M(s) and I_S(1/s), with the residuals of identities that the computation did not use."""

    mmse: mpf
    information: mpf
    mass_error: mpf
    mmse_error: mpf  # relative difference of the two forms of M
    nodes: int


def evaluate(beta: Real, rho: Real, s: Real, digits: int = 25) -> Reference:
    """Evaluate M(s) and I_S(1/s) to ``digits`` significant digits, in nats per entry of S.

    A float is taken for the binary number it is, a string for the decimal number it spells.
    """
    with mp.workdps(2 * digits + 60):
        law = _Law(mpf(beta), mpf(rho), mpf(s))
        # I_S ~ 1/(2 s) is what is left of terms of order log s.
        target = digits + 6 + max(0, int(mpmath.log10(law.s)))
        mass, signal, cube, energy, nodes = law.integrate(target)
        beta, rho, s = law.beta, law.rho, law.s
        from_denoiser = 1 - signal
        from_density = s - s * s * (
            (1 - 1 / beta) * law.inverse_moment() + 4 * mp.pi**2 / (3 * beta**2) * cube
        )
        mmse = from_denoiser if s >= 1 else from_density
        information = (
            -mp.log(s) / 2
            + energy / (2 * beta)
            + (1 - 1 / beta) / 2 * law.log_determinant()
            - _haar_constant(beta)
        )
        result = mmse, information, abs(mass - 1), abs(from_denoiser / from_density - 1)
    with mp.workdps(digits):
        return Reference(*(+value for value in result), nodes=nodes)


def mmse(beta: Real, rho: Real, s: Real, digits: int = 25) -> mpf:
    """Return M(s), the Bayes-optimal error per entry."""
    return evaluate(beta, rho, s, digits).mmse


def information(beta: Real, rho: Real, s: Real, digits: int = 25) -> mpf:
    """Return I_S(1/s), the mutual information of S and Y per entry of S, in nats."""
    return evaluate(beta, rho, s, digits).information


class _Law:
    """The spectrum of W at one (beta, rho, s)."""

    def __init__(self, beta: mpf, rho: mpf, s: mpf) -> None:
        self.beta, self.rho, self.s = beta, rho, s
        # Coefficients, highest power first; D is the denominator of w(t).
        self.A = [mpf(1), beta + rho + s * rho, beta * rho]
        self.B = [mpf(1), 1 + rho + s * rho, rho]
        self.D = [beta * rho, beta * rho**2, mpf(0)]
        self.N = _times(self.A, self.B)
        self.a1 = self._lower_zero(self.A)
        self.b1 = self._lower_zero(self.B)
        self.critical_values = self._critical_values()

    @staticmethod
    def _lower_zero(p: list[mpf]) -> mpf:
        return -(p[1] + mp.sqrt(p[1] ** 2 - 4 * p[2])) / 2

    def _critical_values(self) -> list[mpc]:
        """Values of w where w'(t) = 0, and the hard edge w = 0 of beta = 1."""
        if self.beta == 1:  # w = A^2 / D: the double zeros of w are factored out
            equation = _minus(
                [2 * c for c in _times(_slope(self.A), self.D)], _times(self.A, _slope(self.D))
            )
        else:
            equation = _minus(_times(_slope(self.N), self.D), _times(self.N, _slope(self.D)))
        points = mp.polyroots(equation, maxsteps=1000, extraprec=2 * mp.prec)
        values = [mpf(0)] if self.beta == 1 else []
        for t in points:
            t = mpc(t)
            if abs(t.imag) < mpf(10) ** (-mp.dps // 2) * abs(t):
                t = t.real
            values.append(mp.polyval(self.N, t) / mp.polyval(self.D, t))
        return values

    def pieces(self) -> list[tuple[mpf, mpf]]:
        """Intervals of y = sqrt(w): the bulks, split at the real parts of the singularities."""
        edges = sorted(mp.sqrt(w) for w in self.critical_values if mp.im(w) == 0 and mp.re(w) >= 0)
        if len(edges) not in (2, 4):
            raise ArithmeticError(
                f"{len(edges)} edges at beta, rho, s = {self.beta, self.rho, self.s}"
            )
        cuts = {mp.sqrt(w).real for w in self.critical_values if mp.im(w) > 0}
        out = []
        for lo, hi in zip(edges[::2], edges[1::2], strict=True):
            points = [lo, *sorted(cut for cut in cuts if lo < cut < hi), hi]
            out += itertools.pairwise(points)
        return out

    def _step(self, lo: mpf, hi: mpf, target: int) -> mpf:
        """Step of the trapezoidal rule: half-width of the strip without singularities, in v."""
        strip = mp.pi
        for w in self.critical_values:
            for y in (mp.sqrt(w), -mp.sqrt(w)):
                # The ends themselves are mapped to infinity; mpmath gave them with rounding errors.
                if min(abs(y - lo), abs(y - hi)) > mpf(10) ** (-mp.dps // 2) * hi:
                    strip = min(strip, abs(mp.arg((y - lo) / (hi - y))))
        return 2 * mp.pi * strip / ((target + 4) * mp.log(10))

    def integrate(self, target: int) -> tuple[mpf, mpf, mpf, mpf, int]:
        """Integrate 1, the squared denoised value, pi_W^2 w and the log potential over the law."""
        totals = [mpf(0)] * 4
        floor = mpf(10) ** (-target - 4)
        nodes = 0
        for lo, hi in self.pieces():
            length = hi - lo
            h = self._step(lo, hi, target)
            for direction in (1, -1):
                roots = None
                quiet, k = 0, 0 if direction == 1 else 1
                while quiet < 4:  # the terms decay exponentially: four small ones end the sum
                    e = mp.exp(-k * h)
                    fraction = 1 / (1 + e)
                    y = lo + length * fraction if direction == 1 else hi - length * fraction
                    weight = 2 * y * length * fraction**2 * e * h
                    roots = self._real_roots(y * y, roots)
                    terms = [weight * v for v in self._integrands(y * y, *roots)]
                    totals = [a + b for a, b in zip(totals, terms, strict=True)]
                    small = all(
                        abs(b) <= floor * abs(a) for a, b in zip(totals, terms, strict=True)
                    )
                    quiet = quiet + 1 if small else 0
                    nodes += 1
                    k += 1
        mass, signal, cube, energy = totals
        return mass, signal, cube, energy, nodes

    def _real_roots(self, w: mpf, guess: tuple[mpf, mpf] | None) -> tuple[mpf, mpf]:
        """Find the two real roots of w(t) = w below -rho."""
        p = list(self.N)
        p[2] -= w * self.D[0]
        p[3] -= w * self.D[1]
        far = 2 * max(abs(c) ** (mpf(1) / k) for k, c in enumerate(p[1:], start=1))  # Fujiwara
        return (
            _newton(p, -far, self.a1, guess and guess[0]),
            _newton(p, self.b1, -self.rho, guess and guess[1]),
        )

    def _integrands(self, w: mpf, r1: mpf, r2: mpf) -> tuple[mpf, mpf, mpf, mpf]:
        beta, rho, s = self.beta, self.rho, self.s
        p3, p0 = self.N[1], self.N[4]
        real = -(p3 + r1 + r2) / 2
        imag2 = p0 / (r1 * r2) - real**2
        t = mpc(real, -mp.sqrt(max(imag2, mpf(0))))
        u = t + rho
        a = mp.polyval(self.A, t)
        density = -(beta * rho * t / a).imag / mp.pi
        # y times the optimally denoised singular value (its argument is y)
        denoised = (u * (beta + t) * (1 + t) / (beta * rho * t) - s * s * rho * t / (beta * u)).real
        potential = (
            (2 * t + s * rho * t / u).real
            + (beta - rho) * mp.log(abs(u) / rho)
            - (beta - 1) * mp.log(abs(a) / (beta * rho))
            - mp.log(abs(t))
        )
        return density, density * denoised**2 / w, density**3 * w, density * potential

    def _origin(self) -> mpf:
        """Return t at w = 0 on the physical sheet: the upper zero of B."""
        return self.rho / self.b1

    def log_determinant(self) -> mpf:
        """Return the mean of log w over the law."""
        t = self._origin()
        product_law = -1 - (self.beta - 1) * mp.log(1 - 1 / self.beta) if self.beta > 1 else mpf(-1)
        return product_law + t + (1 - self.rho) * mp.log(1 + t / self.rho) - mp.log(-t)

    def inverse_moment(self) -> mpf:
        """Return the mean of 1/(l + s) over the eigenvalues l of A A^T / r."""
        t = self._origin()
        return -self.rho * t / (self.rho + t)


def _haar_constant(beta: mpf) -> mpf:
    """Constant that makes I_S vanish for infinite noise (Laguerre-Selberg integral)."""
    value = -mpf(1) / 4 + (beta - 2) / 4 * mp.log(beta)
    return value - (beta - 1) ** 2 / (4 * beta) * mp.log(beta - 1) if beta > 1 else value


def _newton(p: list[mpf], lo: mpf, hi: mpf, guess: mpf | None) -> mpf:
    """Root of p in (lo, hi), where p changes sign once: Newton steps, bisection when they leave."""
    falling = mp.polyval(p, lo) > 0
    x = guess if guess is not None and lo < guess < hi else (lo + hi) / 2
    tolerance = mpf(10) ** (-0.6 * mp.dps)  # of the last step, which squares the error
    for _ in range(10 * mp.prec):
        value, slope = mp.polyval(p, x, derivative=True)
        if (value > 0) == falling:
            lo = x
        else:
            hi = x
        step = value / slope if slope else mpf("inf")
        new = x - step
        if not lo <= new <= hi:
            new = (lo + hi) / 2
        if abs(new - x) <= tolerance * abs(x):
            return new
        x = new
    raise ArithmeticError("no convergence of a bracketed root")


def _times(p: list[mpf], q: list[mpf]) -> list[mpf]:
    out = [mpf(0)] * (len(p) + len(q) - 1)
    for i, a in enumerate(p):
        for j, b in enumerate(q):
            out[i + j] += a * b
    return out


def _minus(p: list[mpf], q: list[mpf]) -> list[mpf]:
    n = max(len(p), len(q))
    p = [mpf(0)] * (n - len(p)) + p
    q = [mpf(0)] * (n - len(q)) + q
    return [a - b for a, b in zip(p, q, strict=True)]


def _slope(p: list[mpf]) -> list[mpf]:
    n = len(p) - 1
    return [c * (n - i) for i, c in enumerate(p[:-1])]
