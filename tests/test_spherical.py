"""The rectangular spherical integral against integrals, determinants and series of other kinds."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import math
from pathlib import Path
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.optimize import brentq, minimize
from scipy.signal import lfilter
from scipy.special import gammaln, ive

from bsr_theory import GaussianFactorPrior
from bsr_theory.spectra import GaussianFactorLaw, MarchenkoPasturLaw, spherical
from bsr_theory.spectra.spherical import (
    Extrapolation,
    asymptotic_limit,
    exact_log_integral,
    finite_rank_limit,
    finite_size_extrapolation,
    quantile_means,
    rank_one_limit,
    rank_one_threshold,
)

LOG_INTEGRAL = spherical._log_integral
REFERENCE = Path(__file__).parent / "data" / "mmse.csv"

# --------------------------------------------------------------------------------------------
# What the code is compared with
# --------------------------------------------------------------------------------------------


def haar(size: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw unitary matrices, shape (count, size, size)."""
    shape = (count, size, size)
    q, r = np.linalg.qr(rng.standard_normal(shape) + 1j * rng.standard_normal(shape))
    phase = np.diagonal(r, axis1=1, axis2=2)
    return q * (phase / np.abs(phase))[:, None, :]


def textbook(a, b, snr: float, d2: int, digits: int) -> float:
    """Return log I from Bessel functions and Vandermonde products, in brute-force arithmetic.

    A repeated value among the a becomes a column of derivatives, for the n-th repetition
    d^n/dx^n of f(x y), over n!; zero needs nothing else.  The b must be distinct.
    """
    size = len(a)
    nu = d2 - size
    with mpmath.workdps(digits):
        x = [snr * mpmath.mpf(float(v)) ** 2 for v in sorted(a)]
        y = [snr * mpmath.mpf(float(v)) ** 2 for v in sorted(b)]
        order = [x[:i].count(v) for i, v in enumerate(x)]
        rows = [
            [
                t**n * mpmath.hyp0f1(nu + n + 1, v * t) / mpmath.gamma(nu + n + 1) / mpmath.fac(n)
                for t in y
            ]
            for v, n in zip(x, order, strict=True)
        ]
        log_det = mpmath.mpf(0)
        for k in range(size):
            best = max(range(k, size), key=lambda i: abs(rows[i][k]))
            rows[k], rows[best] = rows[best], rows[k]
            log_det += mpmath.log(abs(rows[k][k]))
            for i in range(k + 1, size):
                factor = rows[i][k] / rows[k][k]
                rows[i] = [p - factor * q for p, q in zip(rows[i], rows[k], strict=True)]
        for j in range(size):
            for i in range(j):
                log_det -= mpmath.log(y[j] - y[i]) + (mpmath.log(x[j] - x[i]) if x[j] > x[i] else 0)
        log_det += sum(mpmath.loggamma(k + 1) + mpmath.loggamma(k + nu + 1) for k in range(size))
        return float(log_det)


def rank_one_series(theta: float, y: np.ndarray, d2: int) -> float:
    """Return log E exp(2 d2 theta Re[u^dagger Y v]), y the singular values, u and v unit vectors.

    |u|^2-weighted moments: sum_k z^k h_k(y^2) Gamma(d1) Gamma(d2)/(Gamma(d1+k) Gamma(d2+k)).
    """
    top = y.max()
    log_z = 2.0 * math.log(d2 * theta * top)
    k = np.arange(int(3.0 * d2 * theta * top) + 200)
    h = np.zeros(k.size)
    h[0] = 1e-250
    for value in (y / top) ** 2:
        h = lfilter([1.0], [1.0, -value], h)
    terms = np.log(h) + 250 * math.log(10) + k * log_z
    terms += gammaln(y.size) + gammaln(d2) - gammaln(y.size + k) - gammaln(d2 + k)
    assert terms[-1] < terms.max() - 40
    return terms.max() + math.log(np.exp(terms - terms.max()).sum())


def fit_limit(sizes, values) -> tuple[float, float]:
    """Return the limit and the coefficient of log(n)/n."""
    n = np.asarray(sizes, dtype=float)
    columns = np.stack([n**0, np.log(n) / n, 1 / n, n**-2.0], axis=1)
    return tuple(np.linalg.lstsq(columns, values, rcond=None)[0][:2])


class ProductLaw:
    """Singular values of ``A B/sqrt(r d2)``: the cubic (beta+t)(1+t)(rho+t) = w beta rho t.

    In tau = 1 + t, so that the hard edges (tau = 0) keep their digits.  w g = tau.
    """

    def __init__(self, beta: float, rho: float) -> None:
        self.beta, self.rho = beta, rho
        self.atoms = np.array([[0.0, 1.0 - rho]]) if rho < 1 else np.empty((0, 2))
        tau = np.polynomial.Polynomial([0.0, 1.0])
        top, bottom = (beta - 1 + tau) * tau * (rho - 1 + tau), beta * rho * (tau - 1)
        critical = (top.deriv() * bottom - top * bottom.deriv()).roots()
        critical = critical[np.abs(critical.imag) < 1e-6 * np.abs(critical)].real
        w = top(critical) / bottom(critical)
        w = w[w > 1e-9 * w.max()]
        self.edges = np.sqrt(np.sort(w if w.size == 2 else np.append(w, 0.0))).reshape(1, 2)

    def density(self, y):
        y = np.asarray(y, dtype=float)
        b, r = self.beta - 1.0, self.rho - 1.0
        c = self.beta * self.rho * y * y
        companion = np.zeros((y.size, 3, 3))
        companion[:, 0] = np.stack([-(b + r) + 0 * c, c - b * r, -c], axis=1)
        companion[:, 1, 0] = companion[:, 2, 1] = 1.0
        roots = np.linalg.eigvals(companion)
        tau = roots[np.arange(y.size), np.abs(roots.imag).argmax(axis=1)]
        for _ in range(3):
            value = (b + tau) * tau * (r + tau) - c * (tau - 1)
            slope = 3 * tau**2 + 2 * (b + r) * tau + b * r - c
            tau = tau - np.where(tau.imag != 0, value / slope, 0)
        return 2.0 * np.abs(tau.imag) / (np.pi * y)


class UniformLaw:
    beta = 1.0
    edges = np.array([[0.5, 1.5]])
    atoms = np.empty((0, 2))

    def density(self, y):
        return np.ones_like(y)


def identity_law(beta: float) -> MarchenkoPasturLaw:
    """All singular values of Y/sqrt(d2) equal to 1."""
    return MarchenkoPasturLaw(beta=beta, ratio=0.0)


def noise_law(beta: float, variance: float = 1.0) -> MarchenkoPasturLaw:
    return MarchenkoPasturLaw(beta=beta, ratio=1.0 / beta, scale=variance)


# --------------------------------------------------------------------------------------------
# exact_log_integral
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d2", [1, 2, 7])
@pytest.mark.parametrize("z", [1e-3, 0.7, 40.0])
def test_one_row_is_a_bessel_function(d2, z):
    with mpmath.workdps(40):
        expected = mpmath.log(mpmath.hyp0f1(d2, mpmath.mpf(z) ** 2))
    assert_allclose(exact_log_integral([0.5 * z], [4.0], snr=0.5, d2=d2), float(expected), 1e-15)


@pytest.mark.parametrize("nu", [0, 1, 2])
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([0.4, 1.3], [0.7, 1.1]),
        ([0.3, 0.9, 1.2], [0.5, 0.8, 1.4]),
        ([0.0, 0.0, 1.4], [0.5, 1.1, 1.1]),
        ([0.8, 0.8, 0.8], [1.1, 1.1, 0.0]),
    ],
)
def test_average_over_haar_matrices(a, b, nu):
    count, d1, rng = 150_000, len(a), np.random.default_rng(7)
    u, v = haar(d1, count, rng), haar(d1 + nu, count, rng)
    # Re Tr[Y^dagger U S V] with diagonal S and Y of shape (d1, d1 + nu)
    trace = np.einsum("i,nij,j,nji->n", b, u, a, v[:, :d1, :d1]).real
    weight = np.exp(2.0 * trace)
    error = weight.std() / weight.mean() / math.sqrt(count)
    assert error < 0.02
    assert abs(math.log(weight.mean()) - exact_log_integral(a, b, d2=d1 + nu)) < 4 * error


@pytest.mark.parametrize("nu", [0, 3])
@pytest.mark.parametrize(
    "a",
    [
        [0.3, 0.8, 1.1, 1.9, 2.4, 3.0],
        [0.0, 0.8, 1.1, 1.9, 2.4, 3.0],
        [0.0, 0.0, 0.0, 1.9, 2.4, 3.0],
        [0.0, 0.0, 1.1, 1.1, 1.1, 3.0],
        [1.1, 1.1, 1.1, 1.1, 1.1, 1.1],
        [1.1, 1.1 + 1e-12, 1.1 + 3e-12, 1.9, 2.4, 3.0],
    ],
    ids=["distinct", "zero", "zeros", "both", "equal", "close"],
)
def test_determinant_of_bessel_functions(a, nu):
    b = [0.2, 0.9, 1.0, 1.7, 2.2, 3.1]
    expected = textbook(a, b, 1.3, 6 + nu, 200)
    assert_allclose(exact_log_integral(a, b, snr=1.3, d2=6 + nu), expected, rtol=1e-15)
    assert_allclose(exact_log_integral(b, a, snr=1.3, d2=6 + nu), expected, rtol=1e-15)
    assert_allclose(exact_log_integral(b[::-1], a, snr=1.3, d2=6 + nu), expected, rtol=1e-15)


@pytest.mark.parametrize("snr", [1e-9, 1e-4, 0.02])
def test_weak_coupling(snr):
    """log I = (snr ||S|| ||Y||)^2/(d1 d2) + O(snr^4), to relative precision."""
    rng = np.random.default_rng(1)
    a, b = rng.uniform(0, 2, 5), rng.uniform(0, 2, 5)
    leading = (snr**2) * (a @ a) * (b @ b) / (5 * 8)
    assert_allclose(exact_log_integral(a, b, snr=snr, d2=8) / leading, 1.0, rtol=snr**2 + 1e-14)


def test_rank_one_against_its_series():
    rng = np.random.default_rng(2)
    for d1, d2, theta in ((3, 3, 0.5), (10, 15, 0.8), (30, 30, 0.3)):
        y = rng.uniform(0, 2, d1)
        a = np.zeros(d1)
        a[4 % d1] = theta * math.sqrt(d2)
        value = exact_log_integral(a, y * math.sqrt(d2), d2=d2)
        assert_allclose(value, rank_one_series(theta, y, d2), rtol=1e-10)


def test_nothing_to_average():
    assert exact_log_integral([1.0, 2.0], [1.0, 3.0], snr=0.0) == 0.0
    assert exact_log_integral([0.0, 0.0], [1.0, 3.0], d2=5) == 0.0


def test_precision_of_the_user_is_left_alone():
    with mpmath.workdps(33):
        exact_log_integral([1.0, 2.0], [1.0, 3.0])
        assert mpmath.mp.dps == 33


def test_precision_doubles_until_it_suffices(monkeypatch):
    rng = np.random.default_rng(3)
    a, b = rng.uniform(0, 4, 12), rng.uniform(0, 4, 12)
    expected = exact_log_integral(a, b)
    attempts = []

    def coarse(a, b, snr, nu, bits):
        attempts.append(LOG_INTEGRAL(a, b, snr, nu, bits // 16))
        return attempts[-1]

    monkeypatch.setattr(spherical, "_log_integral", coarse)
    assert exact_log_integral(a, b) == expected
    assert attempts[0] is None or abs(attempts[0] / expected - 1) > 1e-10
    monkeypatch.setattr(spherical, "_MOST_BITS", 200)
    with pytest.raises(
        ValueError, match="too large for the exact formula: no agreement at 224 bits"
    ):
        exact_log_integral(a, b)


@pytest.mark.slow
@pytest.mark.parametrize(("beta", "s", "digits"), [(1, 1.0, 400), (2, 1.0, 400)])
def test_sixty_four_rows(beta, s, digits):
    clean, noisy = noise_law(float(beta)), noise_law(float(beta), 1.0 + s)
    root = math.sqrt(64 * beta)
    a, b = root * quantile_means(clean, 64), root * quantile_means(noisy, 64)
    a[:5] = 0.0
    expected = textbook(a, b, 1 / s, 64 * beta, digits)
    assert_allclose(exact_log_integral(a, b, snr=1 / s, d2=64 * beta), expected, rtol=1e-15)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], [1.0, 2.0]), "a and b must have the same length, got 1 and 2"),
        (([1.0, -1.0], [1.0, 2.0]), "a must be >= 0"),
        (([1.0, 2.0], [1.0, np.nan]), "b must be >= 0"),
        (([1.0, 2.0], [1.0, np.inf]), "b must be >= 0"),
        (([[1.0]], [1.0]), "a must be a vector"),
        (([], []), r"a must be a vector, not empty, got shape \(0,\)"),
        (([1e9], [1e9]), "too large for the exact formula: 1e"),
        (([1e90], [1e90]), "too large for the exact formula"),
    ],
)
def test_bad_singular_values(arguments, message):
    with pytest.raises(ValueError, match=message):
        exact_log_integral(*arguments)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"snr": -1.0}, r"snr must be >= 0 and finite, got -1.0"),
        ({"snr": math.nan}, r"snr must be >= 0 and finite, got nan"),
        ({"snr": [1.0, 2.0]}, "snr must be a scalar"),
        ({"d2": 1}, "d2 must be an integer >= 2, got 1"),
        ({"d2": 2.5}, "d2 must be an integer >= 2, got 2.5"),
    ],
)
def test_bad_parameters_of_the_exact_integral(named, message):
    with pytest.raises(ValueError, match=message):
        exact_log_integral([1.0, 2.0], [1.0, 2.0], **named)


# --------------------------------------------------------------------------------------------
# Finite rank
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variance", [1.0, 0.3])
@pytest.mark.parametrize("beta", [1.0, 1.5, 16.0])
def test_pure_noise_below_the_threshold(beta, variance):
    """The average over Y is exact: J = variance theta^2/2."""
    law = noise_law(beta, variance)
    threshold = beta**-0.25 / math.sqrt(variance)
    assert_allclose(rank_one_threshold(law), threshold, rtol=1e-7)
    theta = threshold * np.array([1e-3, 0.3, 0.9, 0.9999, 1.0])
    expected = 0.5 * variance * theta**2
    assert_allclose(rank_one_limit(theta, law), expected, rtol=1e-11, atol=2e-12)
    assert_allclose(rank_one_limit(theta, law, dyson=2), 2 * expected, rtol=1e-11, atol=4e-12)
    beyond = rank_one_limit(1.2 * threshold, law)
    assert beyond < 0.5 * variance * (1.2 * threshold) ** 2 - 1e-4 * beyond


@pytest.mark.parametrize(("beta", "rho", "s"), [(2.0, 0.5, 0.3), (1.0, 1.0, 0.5), (3.0, 2.0, 0.01)])
def test_noisy_product_below_the_threshold(beta, rho, s):
    """The average over the Gaussian factors, then over the noise, is a determinant."""
    law = GaussianFactorLaw(beta=beta, rho=rho, s=s)
    threshold = rank_one_threshold(law)
    assert threshold < math.sqrt(rho / beta)  # where that average diverges
    theta = threshold * np.array([0.2, 0.7, 0.95])
    expected = 0.5 * s * theta**2 - rho / (2 * beta) * np.log1p(-beta * theta**2 / rho)
    assert_allclose(rank_one_limit(theta, law), expected, rtol=1e-10)


@pytest.mark.parametrize("theta", [0.05, 0.7, 4.0])
@pytest.mark.parametrize("beta", [1.0, 2.5])
def test_identity(beta, theta):
    """Y/sqrt(d2) = [1 0]: large deviations of the overlap of two unit vectors, by hand.

    m = |first d1 components of v|^2, c = cosine of the angle they make with u.
    """

    def rate(mc):
        m, c = mc
        shape = np.log(m * beta) / beta if beta > 1 else 0.0
        rest = (1 - 1 / beta) * np.log((1 - m) / (1 - 1 / beta)) if beta > 1 else 0.0
        size = math.sqrt(m) if beta > 1 else 1.0
        return -(theta * size * c + 0.5 * (shape + rest + np.log1p(-c * c) / beta))

    bounds = [(1e-9, 1 - 1e-9), (0.0, 1 - 1e-9)]
    best = minimize(rate, [0.6, 0.5], bounds=bounds, method="L-BFGS-B", tol=1e-15)
    assert rank_one_threshold(identity_law(beta)) == math.inf
    assert_allclose(rank_one_limit(theta, identity_law(beta)), -best.fun, rtol=1e-7)


def test_real_sphere():
    """E exp(d theta u.v) is a Bessel function; the limit follows at 1/d."""
    for theta in (0.4, 2.0):
        sizes = np.array([100, 200, 400, 800])
        nu, x = sizes / 2 - 1, sizes * theta
        finite = (gammaln(nu + 1) - nu * np.log(x / 2) + np.log(ive(nu, x)) + x) / sizes
        columns = np.stack([sizes**-k for k in (0.0, 1.0, 2.0, 3.0)], axis=1)
        limit = np.linalg.solve(columns, finite)[0]
        assert_allclose(rank_one_limit(theta, identity_law(1.0)), limit, rtol=2e-7)


@pytest.mark.parametrize(
    ("beta", "theta", "largest", "sticks"),
    [
        (1, 0.5, None, False),
        (2, 0.6, None, False),
        (1, 1.5, "edge", True),
        (2, 2.5, "edge", True),
        (1, 1.5, 2.5, True),
        (2, 0.6, 2.5, True),
    ],
)
def test_rank_one_from_finite_size(beta, theta, largest, sticks):
    """A saddle point leaves a constant, the alignment with one direction sqrt(d1): seen at 1e-5."""
    law = noise_law(float(beta))
    top = float(law.edges[-1, 1]) if largest == "edge" else largest
    sizes, values = [50, 71, 100, 141, 200, 283, 400], []
    for d1 in sizes:
        y = np.append(quantile_means(law, d1 - 1), top) if top else quantile_means(law, d1)
        values.append(rank_one_series(theta, y, beta * d1) / (beta * d1))
    limit, log_coefficient = fit_limit(sizes, values)
    assert_allclose(rank_one_limit(theta, law, dyson=2, largest=top), limit, atol=3e-6)
    assert_allclose(log_coefficient, sticks / (2 * beta), atol=0.02)
    assert (theta > rank_one_threshold(law, largest=top)) == sticks


@pytest.mark.parametrize(
    ("thetas", "outliers", "accuracy"),
    [((0.4, 0.6), (), 3e-4), ((0.4, 1.5), (2.5,), 3e-4), ((1.0, 1.5), (2.5, 2.0), 5e-4)],
)
def test_rank_two_from_finite_size(thetas, outliers, accuracy):
    law, beta, sizes = noise_law(2.0), 2, [6, 8, 12, 16, 24, 32]
    values = []
    for d1 in sizes:
        root = math.sqrt(beta * d1)
        a = root * np.append(np.zeros(d1 - 2), thetas)
        b = root * np.append(quantile_means(law, d1 - len(outliers)), outliers)
        values.append(exact_log_integral(a, b, d2=beta * d1) / (beta * d1))
    limit, _ = fit_limit(sizes, values)
    assert_allclose(
        finite_rank_limit(thetas, law, dyson=2, outliers=outliers), limit, atol=accuracy
    )
    if outliers:  # the other pairing of ranks with outliers is another number
        tops = [*outliers, None][:2]
        pairs = zip(thetas, tops, strict=True)
        other = sum(rank_one_limit(theta, law, dyson=2, largest=top) for theta, top in pairs)
        assert abs(other - limit) > 100 * accuracy


def test_vanishing_rank_of_an_extensive_signal():
    """r = rho d1 singular values of size sqrt(d1/r) each: r times the rank-one integral."""
    beta, rho, x = 2.0, 1e-4, 0.7
    snr = rho * x / beta
    extensive = asymptotic_limit(GaussianFactorPrior(beta=beta, rho=rho), snr) / rho
    single = rank_one_limit(snr / math.sqrt(rho), noise_law(beta, 1 / snr))
    assert_allclose(extensive, single, rtol=1e-3)


def test_derivative_is_the_rectangular_r_transform():
    """dJ/dtheta = (z g - 1)/(beta theta) at the saddle point, C/(beta theta) beyond."""
    law = GaussianFactorLaw(beta=2.0, rho=0.5, s=0.2)
    step, top = 1e-4, 1.3 * float(law.edges[-1, 1])
    for factor in (0.5, 1.7):
        theta = factor * rank_one_threshold(law, largest=top)
        values = rank_one_limit(theta + step * np.array([-2, -1, 1, 2]), law, largest=top)
        slope = (values @ [1, -8, 8, -1]) / (12 * step)
        if factor < 1:

            def strength(z, theta=theta):
                g = law.stieltjes(z).real
                return g * (1 + z * g) / 4 - theta**2

            z = brentq(strength, top**2, 1e3, xtol=1e-13)
            c = z * law.stieltjes(z).real - 1
        else:
            c = max(np.roots([0.5, 1.5, 1 - 2 * (theta * top) ** 2]))
        assert_allclose(slope, c / (2 * theta), rtol=1e-8)


def test_finite_rank_limit_of_nothing_and_of_one():
    law = noise_law(3.0)
    assert rank_one_limit(0.0, law) == 0.0
    assert isinstance(rank_one_limit(0.5, law), float)
    assert_allclose(finite_rank_limit([0.0, 2.0], law), rank_one_limit(2.0, law), rtol=1e-15)
    array = rank_one_limit([[0.1, np.nan], [-1.0, 3.0]], law)
    assert np.isnan(array).tolist() == [[False, True], [True, False]]
    # long before the end, theta times the top singular value is all there is
    slope = rank_one_limit(1e6, law) / 1e6
    assert_allclose(slope, law.edges[-1, 1], rtol=1e-4)


def test_bad_parameters_of_the_finite_rank_limits():
    law = noise_law(4.0)
    with pytest.raises(ValueError, match=r"theta must be >= 0 and finite, got -1.0"):
        rank_one_limit(-1.0, law)
    with pytest.raises(ValueError, match=r"dyson must be 1 \(real\) or 2 \(complex\), got 4"):
        rank_one_limit(1.0, law, dyson=4)
    with pytest.raises(ValueError, match=r"largest must be finite and >= the upper edge 1.5, got"):
        rank_one_limit(1.0, law, largest=1.4)
    with pytest.raises(ValueError, match=r"largest must be finite and >= the upper edge 1.5, got"):
        rank_one_threshold(law, largest=math.nan)
    with pytest.raises(ValueError, match=r"outliers must be finite and >= the upper edge 1.5, got"):
        finite_rank_limit([1.0], law, outliers=[2.0, 1.0])
    with pytest.raises(ValueError, match=r"thetas must be >= 0 and finite"):
        finite_rank_limit([1.0, math.inf], law)
    with pytest.raises(ValueError, match=r"beta must be >= 1 and finite, got inf"):
        rank_one_limit(1.0, MarchenkoPasturLaw(beta=math.inf, ratio=0.5))
    broken = SimpleNamespace(
        beta=1.0, edges=law.edges, atoms=law.atoms, stieltjes=lambda z: complex(math.nan)
    )
    with pytest.raises(ValueError, match="positive Stieltjes transform beyond its edge, got nan"):
        rank_one_limit(1.0, broken, largest=2.0)


# --------------------------------------------------------------------------------------------
# Extensive rank, and the way there
# --------------------------------------------------------------------------------------------


def test_asymptotic_limit_from_the_reference_table():
    with REFERENCE.open() as file:
        rows = [row for row in csv.DictReader(file) if float(row["s"]) <= 10]
    assert len(rows) > 50
    for row in rows:
        snr = 1.0 / float(row["s"])
        prior = GaussianFactorPrior(beta=float(row["beta"]), rho=float(row["rho"]))
        expected = snr - float(row["I_S"])
        for dyson in (1, 2):
            value = asymptotic_limit(prior, snr, dyson=dyson)
            assert_allclose(value, dyson * expected, rtol=1e-9)


def test_asymptotic_limit_broadcasts():
    prior = GaussianFactorPrior(beta=2.0, rho=math.inf)
    snr = np.array([[0.0, 0.5], [3.0, np.nan]])
    assert_allclose(asymptotic_limit(prior, snr), snr - 0.5 * np.log1p(snr), rtol=1e-12)
    assert isinstance(asymptotic_limit(prior, 1.0), float)
    with pytest.raises(ValueError, match="snr must be >= 0 and finite, got inf"):
        asymptotic_limit(prior, math.inf)
    with pytest.raises(ValueError, match="dyson must be"):
        asymptotic_limit(prior, 1.0, dyson=True)


def test_quantile_means_of_the_quarter_circle():
    def cumulative(y):
        return (y * math.sqrt(4 - y * y) / 2 + 2 * math.asin(y / 2)) / math.pi

    cuts = [0.0, *(brentq(lambda y, p=p: cumulative(y) - p, 0, 2) for p in (0.2, 0.4, 0.6, 0.8)), 2]
    expected = [
        math.sqrt(
            5 * quad(lambda y: y * y * math.sqrt(4 - y * y) / math.pi, *cell, epsabs=1e-13)[0]
        )
        for cell in itertools.pairwise(cuts)
    ]
    assert_allclose(quantile_means(noise_law(1.0), 5), expected, rtol=1e-9)


def test_quantile_means_with_atoms():
    """An atom of mass 0.6 at zero below a bulk, cut by the second cell of four."""
    law = MarchenkoPasturLaw(beta=1.0, ratio=2.5)
    y = quantile_means(law, 4)
    assert_allclose(np.mean(y**2), 1.0, rtol=1e-12)
    assert (y[:2] == 0.0).all() and (np.diff(y[1:]) > 0).all()
    bulk = quantile_means(law, 10)
    assert (bulk[:6] < 1e-6).all() and bulk[6] > law.edges[0, 0]
    # the same cells from the side of the nonzero part: top quarter of the law
    top = quantile_means(law, 20)[15:]
    assert_allclose(y[3] ** 2, np.mean(top**2), rtol=1e-9)
    assert_allclose(quantile_means(identity_law(2.0), 3), 1.0, rtol=1e-12)


@pytest.mark.parametrize(("beta", "rho"), [(1, 1), (1, 2), (2, 1), (2, 0.5), (1.5, 0.2)])
def test_product_law_of_the_tests(beta, rho):
    """Two moments of A B B^T A^T/(r d2), hard edges included."""
    y = quantile_means(ProductLaw(beta, rho), 200)
    assert_allclose(np.mean(y**2), 1.0, rtol=1e-10)
    assert_allclose(np.mean(y**4), 1 + 1 / beta + 1 / rho, rtol=2e-3)  # cell means: a bit less


def test_law_without_its_mass():
    law = SimpleNamespace(
        beta=1.0,
        edges=UniformLaw.edges,
        atoms=UniformLaw.atoms,
        density=lambda y: 0.9 * np.ones_like(y),
    )
    with pytest.raises(ValueError, match="law must have mass 1"):
        quantile_means(law, 4)
    with pytest.raises(ValueError, match="n must be a positive integer, got 0"):
        quantile_means(UniformLaw(), 0)


def test_quantile_means_of_a_uniform_law():
    ends = 0.5 + np.arange(9) / 8
    expected = np.sqrt(8 * np.diff(ends**3) / 3)
    assert_allclose(quantile_means(UniformLaw(), 8), expected, rtol=1e-13)


CASES = [(1, 2, 0.5), (1, 0.5, 0.5), (2, 2, 1.0), (2, 1, 0.2), (2, 0.5, 0.3), (1, 1, 0.5)]


def check_extrapolation(beta, rho, s, sizes, accuracy):
    prior = GaussianFactorPrior(beta=float(beta), rho=float(rho))
    expected = asymptotic_limit(prior, 1 / s, dyson=2)
    limit = finite_size_extrapolation(
        ProductLaw(float(beta), float(rho)), prior.law(s), 1 / s, sizes=sizes
    )
    assert abs(limit.value - expected) < limit.error < accuracy
    assert abs(limit.raw[-1] - expected) > 10 * abs(limit.value - expected)


@pytest.mark.parametrize(("beta", "rho", "s"), CASES[:3])
def test_extrapolation_agrees_with_the_limit(beta, rho, s):
    check_extrapolation(beta, rho, s, (6, 8, 12, 16, 20), 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("beta", "rho", "s"), CASES)
def test_extrapolation_from_large_sizes(beta, rho, s):
    check_extrapolation(beta, rho, s, (16, 24, 32, 48, 64), 3e-5)


@pytest.mark.slow
def test_extrapolation_at_weak_noise():
    """Two bulks, and powers beyond those removed: the error bar grows, as it should."""
    check_extrapolation(1, 0.5, 0.05, (12, 16, 24, 32, 48), 1e-3)


@pytest.mark.parametrize("snr", [0.5, 4.0])
def test_extrapolation_of_independent_entries(snr):
    """No code of the package on the other side: 2 snr - log(1 + snr)."""
    limit = finite_size_extrapolation(
        noise_law(1.5), noise_law(1.5, 1 + 1 / snr), snr, sizes=(4, 6, 8, 12, 16)
    )
    assert abs(limit.value - (2 * snr - math.log1p(snr))) < limit.error < 1e-3


def test_extrapolation_from_values():
    sizes = (4, 6, 8, 12)
    values = [1.5 - 2.0 * n**-2.0 + 7.0 * n ** (-7 / 3) for n in sizes]
    limit = Extrapolation.from_values(sizes, values, ((2.0, 7 / 3), (2.0, 3.0), (2.0,)))
    assert_allclose(limit.value, 1.5, rtol=1e-13)
    assert_allclose(limit.estimates[0], limit.value, rtol=0)
    by_hand = (144 * values[3] - 64 * values[2]) / 80
    assert_allclose(limit.estimates[2], by_hand, rtol=1e-14)
    assert limit.error == max(abs(e - limit.value) for e in limit.estimates)
    assert limit.sizes == sizes and limit.raw == tuple(values)
    with pytest.raises(dataclasses.FrozenInstanceError):
        limit.value = 0.0


@pytest.mark.parametrize(
    ("sizes", "exponents", "message"),
    [
        ((8, 4, 16), ((2.0,), (3.0,)), "sizes must increase"),
        ((4, 8, 16), ((2.0,),), "exponents must be two or more sets"),
        ((4, 8, 16), ((2.0, 3.0, 4.0), (2.0,)), r"each shorter than sizes \(3\)"),
        ((4, 8, 16), ((2.0, 2.0), (2.0,)), "distinct powers"),
        ((4, 8, 16), ((0.0,), (2.0,)), "exponents must be > 0"),
        ((3, 4, 6), ((2.0,), (3.0,)), "sizes must make beta d1 an integer, got 3 at beta = 1.5"),
        ((0, 4, 6), ((2.0,), (3.0,)), "sizes must be a positive integer, got 0"),
    ],
)
def test_bad_sizes_and_exponents(sizes, exponents, message):
    law = noise_law(1.5)
    with pytest.raises(ValueError, match=message):
        finite_size_extrapolation(law, law, 1.0, sizes=sizes, exponents=exponents)


def test_two_aspect_ratios():
    with pytest.raises(ValueError, match=r"must have one beta, got 2.0 and 1.0"):
        finite_size_extrapolation(noise_law(2.0), noise_law(1.0), 1.0)
