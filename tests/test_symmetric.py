"""The symmetric prior: a Gaussian matrix times its transpose, seen through symmetric noise."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from mpmath import mp, mpf

from bsr_theory._kernels import rectangular, symmetric
from bsr_theory.priors import SymmetricFactorPrior
from bsr_theory.spectra import SymmetricFactorLaw

INF = math.inf


class Oracle:
    """The law of ``W W^T/sqrt(r d) + sqrt(s) GOE`` in mpmath, straight from its cubic.

    ``-s g^3 + (s a + y) g^2 + (rho - 1 - y a) g + a = 0`` with ``a = sqrt(rho)``.  The quadrature
    runs along the real axis by the double exponential rule, whose nodes crowd at the ends: every
    bulk is cut where complex critical points of y(g) come close.
    """

    def __init__(self, rho: str | float, s: str | float) -> None:
        self.rho, self.s = mpf(rho), mpf(s)
        self.a = mp.sqrt(self.rho)
        quartic = [self.s, -2 * self.s * self.a, self.s * self.rho + self.rho - 1]
        quartic += [2 * self.a, -self.rho]
        critical = mp.polyroots(quartic, maxsteps=500, extraprec=500)
        values = [self.y(g) for g in critical]
        real = [abs(mp.im(g)) < mpf(10) ** (-mp.dps // 2) * abs(g) for g in critical]
        ends = sorted(mp.re(y) for y, flat in zip(values, real, strict=True) if flat)
        cuts = [mp.re(y) for y, flat in zip(values, real, strict=True) if not flat]
        self.edges = list(zip(ends[::2], ends[1::2], strict=True))
        self.pieces = []
        for lo, hi in self.edges:
            self.pieces += itertools.pairwise([lo, *sorted(x for x in cuts if lo < x < hi), hi])

    def y(self, g):
        return 1 / g + self.rho / (self.a - g) + self.s * g

    def g(self, y):
        """Return the root with Im g < 0, by Cardano's formula."""
        a2, a1, a0 = (
            -(self.s * self.a + y) / self.s,
            (y * self.a + 1 - self.rho) / self.s,
            -self.a / self.s,
        )
        p, q = a1 - a2 * a2 / 3, a0 - a1 * a2 / 3 + 2 * a2**3 / 27
        root = mp.sqrt(max(q * q / 4 + p**3 / 27, 0))
        # of the two signs the one without cancellation
        u = mp.sign(q) * mp.cbrt(abs(q) / 2 + root)
        real = p / (3 * u) - u - a2 / 3
        # (g - real)(g^2 - sum g + product)
        total = -a2 - real
        product = a1 - real * total
        return mp.mpc(total / 2, -mp.sqrt(max(product - total * total / 4, 0)))

    def integrals(self):
        """Return (mass, mmse, 1 - mmse, information); 1 - mmse from the denoised eigenvalues."""
        step = mpf(1) / 32
        rule = []
        for t in mp.arange(-4, 4 + step / 2, step):
            node = 1 / (1 + mp.exp(-mp.pi * mp.sinh(t)))
            rule.append((node, step * mp.pi * mp.cosh(t) * node * (1 - node)))
        sums = [mpf(0)] * 4
        for left, right in self.pieces:
            for node, weight in rule:
                y = left + (right - left) * node
                g = self.g(y)
                density = -mp.im(g) / mp.pi
                if density == 0:  # an end, to all digits
                    continue
                mass = weight * (right - left) * density
                rest = self.rho * mp.log(1 - g / self.a) - self.s * g * g / 2 - 1
                potential = mp.re(g * y - mp.log(g) + rest)
                shrunk = y - 2 * self.s * mp.re(g) - self.a
                for k, value in enumerate((1, density**2, shrunk**2, potential)):
                    sums[k] += mass * value
        mass, cube, gain, energy = sums
        mmse = self.s - 4 * mp.pi**2 / 3 * self.s**2 * cube
        return mass, mmse, gain, energy - mp.log(self.s) / 2 + mpf(1) / 4


# (rho, s): one and two bulks, a cusp, a hard edge nearly, both ends of the range
POINTS = [
    (0.5, 0.3),
    (0.1, 0.5),
    (0.5, 0.0175),  # the bulks are about to meet (at 0.01755...)
    (0.3, 1e-6),
    (1.0, 0.01),
    (2.0, 5.0),
    (0.01, 30.0),
    (30.0, 0.01),
    (0.001, 1e-3),
]


def assert_like_the_oracle(rho, s, digits, rtol):
    with mp.workdps(digits):
        law = Oracle(rho, s)
        mass, mmse, gain, information = law.integrals()
        assert abs(mass - 1) < 1e-15
        assert abs(gain / (1 - mmse) - 1) < 1e-13
        ends = [[float(lo), float(hi)] for lo, hi in law.edges]
    prior = SymmetricFactorPrior(rho)
    assert prior.mmse(s) == pytest.approx(float(mmse), rel=rtol)
    assert prior.explained_variance(s) == pytest.approx(float(gain), rel=rtol)
    assert prior.information(1 / s) == pytest.approx(float(information), rel=rtol)
    np.testing.assert_allclose(prior.law(s).edges, ends, rtol=1e-11, atol=1e-14)


# rho, s; mmse, strong_recovery - mmse/s from the cubic at each node, in 60 digits
THIN = [
    (1e-2, 1e-9, 1.989999999989798145e-11, 1.0202020202022285125e-13),
    (1e-4, 50.0, 0.0099744949743641935059, 5.0010051271613946517e-7),
    (1e-4, 1e-3, 1.9998998999799981353e-7, 1.0002000200220083207e-11),
    (1e-6, 3e5, 0.50999944285639314616, 3.0000085714535608897e-7),
    (1e-8, 2e6, 0.039599999791836735427, 2.000000040816327048e-10),
]


@pytest.mark.parametrize(("rho", "s", "mmse", "deficit"), THIN)
def test_thin_factors(rho, s, mmse, deficit):
    prior = SymmetricFactorPrior(rho)
    assert prior.mmse(s) == pytest.approx(mmse, rel=2e-15, abs=0.0)
    assert prior.deficit(s) == pytest.approx(deficit, rel=1e-9, abs=0.0)


@pytest.mark.parametrize("rho", [1e-10, 1e-12, 1e-30])
def test_thin_factors_that_noise_hides(rho):
    """On both sides of the width where their limit takes over."""
    prior, n = SymmetricFactorPrior(rho), np.array([1.1, 1.5, 3.0, 1e3, 1e8])
    # free cumulants rho^(1 - k/2): sum over k of rho^(2 - k) s^(1 - k)
    expected = n / (n - 1.0) * rho / n
    np.testing.assert_allclose(prior.explained_variance(n / rho), expected, rtol=1e-6)


class TestOracle:
    @pytest.mark.parametrize(("rho", "s"), POINTS)
    def test_mmse_and_information(self, rho, s):
        assert_like_the_oracle(rho, s, 30, 1e-12)

    @pytest.mark.slow
    @pytest.mark.parametrize("seed", range(60))
    def test_over_the_whole_range(self, seed):
        rng = np.random.default_rng(seed)
        assert_like_the_oracle(10 ** rng.uniform(-3, 2), 10 ** rng.uniform(-8, 6), 50, 2e-12)

    def test_the_smallest_noise(self):
        # M/s -> strong recovery: what is left of it, to relative precision
        for rho, rtol in ((0.2, 1e-8), (1.0, 1e-11)):
            with mp.workdps(40):
                ratio = Oracle(rho, 1e-8).integrals()[1] / mpf(1e-8)
                deficit = float(2 * mpf(rho) - mpf(rho) ** 2 - ratio)
            assert SymmetricFactorPrior(rho).deficit(1e-8) == pytest.approx(deficit, rel=rtol)


class TestMmse:
    # (rho, s, M) to 8 digits, and twice the information per d^2
    def test_reference_values(self):
        table = [
            (0.2, 0.02, 0.00717594), (0.2, 0.3, 0.10233015), (0.2, 2, 0.46427427),
            (0.5, 0.02, 0.01467745), (0.5, 0.3, 0.16888922), (0.5, 2, 0.57561420),
            (1.0, 0.02, 0.01843601), (1.0, 0.3, 0.19862356), (1.0, 2, 0.61921484),
        ]  # fmt: skip
        rho, s, mmse = np.array(table).T
        np.testing.assert_allclose(SymmetricFactorPrior(rho).mmse(s), mmse, atol=6e-9)
        for rho, s, value in ((0.5, 0.5, 0.2323118), (1, 0.1, 0.5339896), (2, 1, 0.1682304)):
            half = SymmetricFactorPrior(rho).information(1 / s) / 2
            assert half == pytest.approx(value, abs=6e-8)

    def test_small_and_large_noise_are_dual(self):
        rng = np.random.default_rng(1)
        rho, s = 10 ** rng.uniform(-3, 2, 2000), 10 ** rng.uniform(0, 6, 2000)
        keep = rho * s < 1e4
        rho, s = rho[keep], s[keep]
        here, there = SymmetricFactorPrior(rho), SymmetricFactorPrior(rho * s)
        # the two sides use different integrals: of (xi - sqrt(rho))^2 and of the cube
        np.testing.assert_allclose(here.mmse(s), s * there.mmse(1 / s), rtol=1e-12, atol=3e-14)
        sums = np.empty(5)
        for r, noise in zip(rho[:200], s[:200], strict=True):
            dual = symmetric.factor_mmse(
                r * noise, 1 / noise, rectangular.NODES, rectangular.WEIGHTS, sums
            )[2]
            gain = SymmetricFactorPrior(r).explained_variance(noise)
            assert gain == pytest.approx(dual, rel=5e-12)

    def test_both_forms_of_the_error(self):
        rng = np.random.default_rng(2)
        nodes, weights = np.polynomial.legendre.leggauss(24)
        sums = np.empty(5)
        for rho, s in zip(
            10 ** rng.uniform(-3, 2, 300), 10 ** rng.uniform(-2, 2, 300), strict=True
        ):
            symmetric.curve_sums(symmetric.make_curve(rho, s), nodes, weights, False, sums)
            mass, cube, gain = sums[:3] / math.pi
            assert mass == pytest.approx(1.0, abs=1e-13)
            assert s * (1 - 4 * cube / 3) == pytest.approx(
                1 - rho * gain, rel=1e-12, abs=1e-13 * (1 + s)
            )
            assert SymmetricFactorPrior(rho).mmse(s) == pytest.approx(
                1 - rho * gain, rel=1e-12, abs=1e-13
            )

    def test_where_bulks_meet(self):
        # rho^(1/3) + (s rho)^(1/3) = 1
        rho = np.geomspace(1e-3, 0.97, 40)
        merge = (1 - np.cbrt(rho)) ** 3 / rho
        nodes, weights = np.polynomial.legendre.leggauss(48)
        sums = np.empty(5)
        for shift in (-1e-2, -1e-5, -1e-9, 0.0, 1e-9, 1e-5, 1e-2):
            s = merge * (1 + shift)
            mmse = SymmetricFactorPrior(rho).mmse(s)
            for k in range(rho.size):
                fine = symmetric.factor_mmse(rho[k], s[k], nodes, weights, sums)[0]
                assert mmse[k] == pytest.approx(fine, rel=5e-12)
                bulks = len(SymmetricFactorLaw(rho[k], s[k]).edges)
                if shift:
                    assert bulks == (2 if shift < 0 else 1)

    def test_limits(self):
        # many factors: independent Gaussian entries around a known mean
        assert SymmetricFactorPrior(1e10).mmse(0.7) == pytest.approx(0.7 / 1.7, rel=1e-9)
        # few factors at fixed rho s: the noise of weak recovery is 1/rho
        sigma = np.array([0.2, 0.5, 0.9, 1.5])
        low = SymmetricFactorPrior(1e-6).mmse(sigma / 1e-6)
        np.testing.assert_allclose(low, 1 - np.maximum(1 - sigma, 0) ** 2, atol=3e-3)
        for rho in (0.01, 0.3, 1.0, 4.0):
            prior = SymmetricFactorPrior(rho)
            dof = min(rho, 1) * (2 - min(rho, 1))
            assert prior.strong_recovery == pytest.approx(dof, rel=1e-15)
            assert prior.mmse(1e-13) / 1e-13 == pytest.approx(dof, rel=2e-4)
            assert prior.mmse(1e-50) == pytest.approx(dof * 1e-50, rel=1e-14)
            assert prior.mmse([0.0, INF]).tolist() == [0.0, 1.0]
            # large noise: structure shows at the second order, the third is s^-3/rho^2
            gain = 1e-5 - (1 - 1 / rho) * 1e-10
            assert prior.explained_variance(1e5) == pytest.approx(gain, rel=2e-10 * (1 + rho**-2))
            assert prior.overlap(INF) == rho
            assert prior.overlap(0.0) == 1 + rho

    def test_noise_ratio_decreases(self):
        s = np.geomspace(1e-8, 1e6, 4000)
        for rho in (1e-3, 0.05, 0.5, 1.0, 3.0, 100.0):
            ratio = SymmetricFactorPrior(rho).mmse(s) / s
            assert np.all(np.diff(ratio) < 1e-12 * ratio[1:])

    def test_deficit(self):
        s = np.geomspace(1e-12, 1e6, 60)
        for rho in (0.05, 0.5, 1.0, 3.0):
            prior = SymmetricFactorPrior(rho)
            rest = prior.strong_recovery - prior.mmse(s) / s
            np.testing.assert_allclose(prior.deficit(s), rest, rtol=1e-8, atol=1e-12)
            assert np.all(np.diff(prior.deficit(s)) > 0)
            assert prior.deficit(0.0) == 0.0
            # analytic for rho < 1, also where it is extrapolated
            if rho < 1:
                step = prior.deficit(np.array([1e-20, 1e-14])) / np.array([1e-20, 1e-14])
                assert step[0] == pytest.approx(step[1], rel=1e-7)

    def test_strong_recovery_gap_is_rounded_once(self):
        prior = SymmetricFactorPrior([0.1, 0.7, 2.0])
        with mp.workdps(40):
            for k, rho in enumerate((0.1, 0.7)):
                alpha = np.nextafter(prior.strong_recovery[k], 0)
                exact = float(2 * mpf(rho) - mpf(rho) ** 2 - mpf(alpha))
                assert SymmetricFactorPrior(rho).strong_recovery_gap(alpha) == exact
        assert prior.strong_recovery_gap(0.25)[2] == 0.75


class TestInformation:
    @pytest.mark.parametrize("rho", [0.01, 0.5, 1.0, 5.0])
    @pytest.mark.parametrize("snr", [1e-4, 0.3, 3.0, 40.0, 1e4])
    def test_derivative_is_half_the_mmse(self, rho, snr):
        prior = SymmetricFactorPrior(rho)
        steps = snr * (1 + 1e-3 * np.array([-2.0, -1.0, 1.0, 2.0]))
        i = prior.information(steps)
        slope = (i[0] - 8 * i[1] + 8 * i[2] - i[3]) / (12 * 1e-3 * snr)
        assert slope == pytest.approx(prior.mmse(1 / snr) / 2, rel=2e-10)

    def test_small_and_infinite_snr(self):
        for rho in (0.01, 1.0, 10.0):
            prior = SymmetricFactorPrior(rho)
            # i = (snr - snr^2/2 + O(snr^3))/2
            assert prior.information(1e-7) == pytest.approx(0.5 * (1e-7 - 5e-15), rel=1e-11)
            assert prior.information([0.0, INF]).tolist() == [0.0, INF]

    def test_one_shot_average_of_the_error(self):
        # i(snr) is half the integral of the mmse from 0
        x, w = np.polynomial.legendre.leggauss(40)
        prior, top = SymmetricFactorPrior(0.7), 4.0
        snr = 0.5 * top * (x + 1)
        area = 0.5 * np.sum(0.5 * top * w * prior.mmse(1 / snr))
        assert prior.information(top) == pytest.approx(area, rel=1e-9)


class TestLaw:
    @pytest.mark.parametrize("point", [*POINTS, (100.0, 1e6), (0.5, 1e-8), (0.3, 0.0), (1.0, 0.0)])
    def test_moments_are_those_of_the_free_cumulants(self, point):
        rho, s = point
        # free cumulants: rho^(1 - k/2) of S, s added to the second
        k1, k2, k3, k4 = math.sqrt(rho), 1 + s, rho**-0.5, 1 / rho
        exact = [
            1.0,
            k1,
            k2 + k1**2,
            k3 + 3 * k1 * k2 + k1**3,
            k4 + 4 * k1 * k3 + 2 * k2**2 + 6 * k1**2 * k2 + k1**4,
        ]
        law = SymmetricFactorLaw(rho, s)
        np.testing.assert_allclose(law.moments(np.arange(5)), exact, rtol=1e-12)
        mass = law.integrate(np.ones_like)
        assert mass.value == pytest.approx(1.0, abs=1e-13)
        assert mass.error < 1e-12

    @pytest.mark.parametrize("point", [(0.5, 0.3), (0.3, 0.01), (1.0, 1e-3), (4.0, 2.0)])
    def test_values_solve_the_cubic(self, point):
        law = SymmetricFactorLaw(*point)
        rho, s = point
        a = math.sqrt(rho)
        ends = law.edges
        y = np.concatenate([np.linspace(lo, hi, 41)[1:-1] for lo, hi in ends])
        outside = [
            ends[0, 0] - np.geomspace(1e-6, 100, 9),
            ends[-1, 1] + np.geomspace(1e-6, 100, 9),
        ]
        if len(ends) == 2:
            outside.append(np.linspace(ends[0, 1], ends[1, 0], 9)[1:-1])
        for where, inside in ((y, True), (np.concatenate(outside), False)):
            g = law.stieltjes(where)
            np.testing.assert_allclose(1 / g + rho / (a - g) + s * g, where, rtol=1e-11, atol=1e-12)
            np.testing.assert_allclose(law.hilbert(where), 2 * g.real, rtol=1e-13)
            np.testing.assert_allclose(law.density(where), -g.imag / math.pi, rtol=1e-13)
            assert np.all((g.imag < 0) == inside)
            shrunk = where - s * law.hilbert(where)
            np.testing.assert_allclose(law.denoised(where), shrunk, rtol=1e-10, atol=1e-11)

    @pytest.mark.parametrize("point", [(0.5, 0.3), (0.1, 0.2), (2.0, 1.0)])
    def test_off_the_support_against_the_definition(self, point):
        law = SymmetricFactorLaw(*point)
        rule = law.quadrature(128)
        ends = law.edges
        y = [ends[0, 0] - 0.3, ends[0, 0] - 5.0, ends[-1, 1] + 0.3, ends[-1, 1] + 5.0]
        y += [0.5 * (ends[0, 1] + ends[1, 0])] if len(ends) == 2 else []
        for at in y:
            direct = np.sum(rule.weights / (at - rule.y))
            assert law.hilbert(at) / 2 == pytest.approx(direct, rel=1e-10)
            logs = np.sum(rule.weights * np.log(np.abs(at - rule.y)))
            assert law.log_potential(at) == pytest.approx(logs, abs=1e-10)
        for z in (0.4 + 0.9j, -2 - 1j, 1e3 + 1e-3j, ends[0, 0] + 0.5j):
            assert law.stieltjes(z) == pytest.approx(np.sum(rule.weights / (z - rule.y)), rel=1e-9)
            assert law.stieltjes(np.conj(z)) == np.conj(law.stieltjes(z))

    def test_the_potential_inside(self):
        # its derivative is Re g, and it joins the outside continuously
        law = SymmetricFactorLaw(0.2, 0.1)
        for lo, hi in law.edges:
            y = np.linspace(lo, hi, 21)[1:-1]
            h = 1e-5 * (hi - lo)
            slope = (law.log_potential(y + h) - law.log_potential(y - h)) / (2 * h)
            np.testing.assert_allclose(slope, law.hilbert(y) / 2, rtol=1e-6, atol=1e-6)
            for edge, side in ((lo, -1), (hi, 1)):
                out = law.log_potential(edge + side * 1e-9)
                assert law.log_potential(edge) == pytest.approx(out, abs=1e-7)

    def test_finite_matrix(self):
        d, rho, s = 400, 0.3, 0.05
        rng = np.random.default_rng(5)
        prior = SymmetricFactorPrior(rho)
        noisy = prior.sample(d, rng=rng) + math.sqrt(s) * goe(d, rng)
        values = np.linalg.eigvalsh(noisy) / math.sqrt(d)
        law = prior.law(s)
        assert law.edges.shape == (2, 2)
        assert np.sum(values > law.edges[:, 1].min() + 0.1) == round(rho * d)
        np.testing.assert_allclose(values[[0, -1]], law.edges[[0, -1], [0, 1]], rtol=0.05)
        # distribution function: one eigenvalue is 1/400
        rule = law.quadrature(64)
        cdf = np.concatenate([[0], np.cumsum(rule.weights)])[np.searchsorted(rule.y, values)]
        assert np.max(np.abs(cdf - (np.arange(d) + 0.5) / d)) < 0.02
        moments = [np.mean(values**k) for k in range(1, 5)]
        np.testing.assert_allclose(law.moments([1, 2, 3, 4]), moments, rtol=0.03)

    def test_bad_input(self):
        for kwargs, message in (
            ({"rho": 0.0, "s": 1.0}, r"rho must be > 0 and finite, got 0\.0"),
            ({"rho": 1.0, "s": -1.0}, r"s must be >= 0 and finite, got -1\.0"),
            ({"rho": [1.0], "s": 1.0}, r"rho must be a scalar, got an array of shape \(1,\)"),
        ):
            with pytest.raises(ValueError, match=message):
                SymmetricFactorLaw(**kwargs)
        law = SymmetricFactorLaw(0.5, 0.3)
        assert np.isnan(law.density([math.nan, 1.0])).tolist() == [True, False]
        assert law.density([INF, -INF]).tolist() == [0.0, 0.0]
        with pytest.raises(ValueError, match="order must be an integer"):
            law.moments(0.5)


def goe(d: int, rng: np.random.Generator) -> np.ndarray:
    """Symmetric noise: variance 1 off the diagonal, 2 on it."""
    z = rng.standard_normal((d, d))
    return (z + z.T) / math.sqrt(2)


class TestDenoise:
    @pytest.mark.parametrize("rho", [0.2, 1.0])
    @pytest.mark.parametrize("s", [0.05, 0.5, 2.0])
    def test_error_of_a_finite_matrix(self, rho, s):
        d = 300
        rng = np.random.default_rng(11)
        prior = SymmetricFactorPrior(rho)
        signal = prior.sample(d, rng=rng)
        noisy = signal + math.sqrt(s) * goe(d, rng)
        estimate = prior.denoise(noisy, s)
        error = np.sum((estimate - signal) ** 2) / d**2
        assert error == pytest.approx(prior.mmse(s), rel=0.03)
        overlap = np.sum(estimate * signal) / d**2
        assert overlap == pytest.approx(prior.overlap(s), rel=0.03)
        # no spectral function does better
        vectors = np.linalg.eigh(noisy)[1]
        best = np.einsum("ij,ik,kj->j", vectors, signal, vectors)
        oracle = np.sum(((vectors * best) @ vectors.T - signal) ** 2) / d**2
        assert oracle < error < oracle * 1.03

    def test_shrink(self):
        prior = SymmetricFactorPrior(0.4)
        y = np.linspace(-5, 9, 500)
        for s in (0.01, 0.5, 3.0):
            shrunk = prior.shrink(y, s)
            assert np.all(shrunk >= 0)
            assert np.all(np.diff(shrunk) >= 0)
            # far above, an eigenvalue keeps its place up to 2 s/y + ...
            assert prior.shrink(1e4, s) == pytest.approx(1e4 - 2e-4 * s, abs=1e-7)
            assert prior.shrink(-1e4, s) == 0.0
        assert prior.shrink([-1.0, 2.0], 0.0).tolist() == [0.0, 2.0]
        assert prior.shrink(7.0, INF) == math.sqrt(0.4)

    def test_variance_of_the_denoised(self):
        # E xi = sqrt(rho) and E xi^2 = overlap, by quadrature of the density
        prior, s = SymmetricFactorPrior(0.4), 0.7
        rule = prior.law(s).quadrature(32)
        xi = prior.shrink(rule.y, s)
        assert np.dot(rule.weights, xi) == pytest.approx(math.sqrt(0.4), rel=1e-12)
        assert np.dot(rule.weights, xi**2) == pytest.approx(prior.overlap(s), rel=1e-12)

    def test_sample(self):
        prior = SymmetricFactorPrior(0.25)
        matrix = prior.sample(200, rng=3)
        np.testing.assert_array_equal(matrix, matrix.T)
        np.testing.assert_array_equal(matrix, prior.sample(200, rng=3))
        assert np.linalg.matrix_rank(matrix) == 50
        assert np.var(matrix[np.triu_indices(200, 1)]) == pytest.approx(1.0, rel=0.05)
        assert np.mean(np.diag(matrix)) == pytest.approx(math.sqrt(50), rel=0.02)
        assert np.sum(matrix**2) / 200**2 == pytest.approx(prior.second_moment, rel=0.05)
        assert prior.prior_overlap == 0.25
        assert prior.at_size(10) == SymmetricFactorPrior(0.2)

    def test_bad_input(self):
        prior = SymmetricFactorPrior(0.5)
        rng = np.random.default_rng(0)
        for bad in (rng.standard_normal((4, 4)), np.ones((2, 3)), np.full((2, 2), math.nan)):
            with pytest.raises(ValueError, match="Y must be a finite symmetric matrix"):
                prior.denoise(bad, 0.1)
        with pytest.raises(ValueError, match="rho must be > 0 and finite, got inf"):
            SymmetricFactorPrior(INF)
        with pytest.raises(ValueError, match=r"s must be >= 0, got -1\.0"):
            prior.mmse(-1)
        with pytest.raises(ValueError, match="d1 must be a positive integer"):
            prior.sample(0)
        for call in (lambda p: p.sample(3), lambda p: p.law(0.1), lambda p: p.at_size(3)):
            with pytest.raises(ValueError, match="rho must be a scalar here"):
                call(SymmetricFactorPrior([0.5, 1.0]))
        with pytest.raises(ValueError, match="s must be a scalar here"):
            prior.law([0.1, 0.2])

    def test_bad_elements_and_shapes(self):
        prior = SymmetricFactorPrior(np.array([0.5, -1.0, math.nan, 2.0]))
        for call in (prior.mmse, prior.overlap, prior.information, prior.deficit):
            assert np.isnan(call(0.3)).tolist() == [False, True, True, False]
        assert prior.mmse(0.3)[0] == SymmetricFactorPrior(0.5).mmse(0.3)
        grid = SymmetricFactorPrior(np.array([[0.5], [2.0]]))
        assert grid.mmse([0.1, 0.2, 0.3]).shape == (2, 3)
        assert isinstance(SymmetricFactorPrior(1).mmse(0.2), float)
        assert prior.mmse(np.empty((0, 4))).shape == (0, 4)
