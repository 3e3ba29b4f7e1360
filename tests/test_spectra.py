"""The spectral laws: edges, densities, transforms and quadrature."""

from __future__ import annotations

import math

import highprec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from bsr_theory._kernels import rectangular
from bsr_theory.spectra import GaussianFactorLaw, MarchenkoPasturLaw, RectangularCurve

# (beta, rho, s): one and two bulks, hard edge, about to split, narrow, extreme
POINTS = [
    (2.0, 0.5, 0.1),
    (2.0, 0.5, 0.160016712131059),  # gap closes
    (2.0, 0.5, 0.17),
    (1.0, 1.0, 0.01),
    (1.0, 0.5, 0.0664471131533),  # gap closes at a hard edge law
    (1.0, 0.2, 0.05),
    (1.0 + 1e-9, 0.7, 0.3),
    (1.5, 0.9, 0.01),
    (5.0, 0.2, 3.0),
    (100.0, 0.5, 0.1),
    (1e4, 2.0, 10.0),
    (1.5, 30.0, 0.2),
    (1.0, 1.0, 1e-6),
    (3.0, 1e-3, 1e-4),
    (2.0, 0.3, 1e6),
]


def spread_points(n: int, seed: int) -> np.ndarray:
    """Random (beta, rho, s) over the whole range, with the special values overrepresented."""
    rng = np.random.default_rng(seed)
    beta = 10 ** rng.uniform(0, 4, n)
    beta = np.where(rng.random(n) < 0.15, 1.0, beta)
    beta = np.where(rng.random(n) < 0.15, 1 + 10 ** rng.uniform(-12, 0, n), beta)
    rho = 10 ** rng.uniform(-3, 2, n)
    rho = np.where(rng.random(n) < 0.1, 1.0, rho)
    near = 1 + rng.choice([-0.9, 0.9], n) * 10 ** rng.uniform(-10, 0, n)
    rho = np.where(rng.random(n) < 0.15, near, rho)
    return np.stack([beta, rho, 10 ** rng.uniform(-8, 6, n)], axis=1)


class TestGaussianFactorLaw:
    @pytest.mark.parametrize("point", POINTS)
    def test_mass_mean_and_second_moment(self, point):
        law = GaussianFactorLaw(*point)
        beta, rho, s = point
        mass = law.integrate(lambda y: np.ones_like(y))
        assert mass.value == pytest.approx(1.0, abs=5e-12)
        assert mass.error < 1e-11
        # exact moments of W: words in Gaussian matrices (Wick)
        first = 1.0 + s
        second = (1 + 1 / beta) * (1 + s) ** 2 + 1 / rho
        np.testing.assert_allclose(law.moments([0, 1, 2]), [1.0, first, second], rtol=2e-11)

    def test_moments_of_a_finite_matrix(self):
        # one draw at d1 = 600 against moments 1..4: fluctuations are O(1/d1)
        rng = np.random.default_rng(3)
        d1, beta, rho, s = 600, 1.5, 0.4, 0.3
        d2, r = int(beta * d1), int(rho * d1)
        signal = rng.standard_normal((d1, r)) @ rng.standard_normal((r, d2)) / math.sqrt(r)
        noisy = signal + math.sqrt(s) * rng.standard_normal((d1, d2))
        w = np.linalg.svd(noisy, compute_uv=False) ** 2 / d2
        moments = [np.mean(w**k) for k in range(1, 5)]
        np.testing.assert_allclose(
            GaussianFactorLaw(beta, rho, s).moments([1, 2, 3, 4]), moments, rtol=0.03
        )

    @pytest.mark.parametrize("point", POINTS)
    def test_edges_are_critical_values_of_the_curve(self, point):
        law = GaussianFactorLaw(*point)
        curve = RectangularCurve(*point)
        # independent: zeros of the derivative's numerator by the companion matrix
        beta, rho, s = point
        a = np.array([1.0, beta + rho * (1 + s), beta * rho])
        b = np.array([1.0, 1 + rho * (1 + s), rho])
        d = np.array([1.0, rho, 0.0])
        n = np.polymul(a, b)
        critical = np.roots(np.polysub(np.polymul(np.polyder(n), d), np.polymul(n, np.polyder(d))))
        values = curve.w(critical)
        for edge in law.edges.ravel() ** 2:
            if edge > 1e-4 * law.edges.max() ** 2:
                assert np.min(np.abs(values - edge)) < 1e-5 * edge

    @pytest.mark.parametrize(
        "point",
        [
            (420.1459454459042, 1 - 2**-53, 1e-30), (420.1459454459042, 1 - 1e-14, 1e-20),
            (2.0, 1 - 1e-12, 1e-22), (1e12, 0.5, 1e6), (3.2e10, 0.206, 9.5e4), (1e16, 30.0, 1e7),
            (1e9, 1e-3, 1e-6), (1.0000001, 0.3, 1e-4), (1e4, 1e4, 1e-3), (1e14, 240.0, 1e11),
        ],
    )  # fmt: skip
    def test_every_digit_of_edges(self, point):
        with highprec.mp.workdps(150):
            values = highprec._Law(*(highprec.mpf(x) for x in point)).critical_values
            ends = [highprec.mp.sqrt(w) for w in values if highprec.mp.im(w) == 0 and w.real >= 0]
            exact = np.array(sorted(float(x) for x in ends))
        edges = GaussianFactorLaw(*point).edges.ravel()
        np.testing.assert_allclose(edges, exact, rtol=1e-14)

    @pytest.mark.parametrize("beta", [1.0, 2.0, 1e3, 1e8])
    def test_long_factors(self, beta):
        for rho in (1e6, 1e10, 1e12, 1e14):
            rule = GaussianFactorLaw(beta, rho, 0.1).quadrature()
            second = 1.1**2 * (1.0 + 1.0 / beta) + 1.0 / rho
            exact = [1.0, 1.1, second]
            found = [rule.weights @ rule.y ** (2 * k) for k in range(3)]
            np.testing.assert_allclose(found, exact, rtol=1e-13)

    def test_number_of_bulks_at_the_merging_noise(self):
        # beta = 1: (2 + rho - 2 rho s)^3 = 27 rho (1 + rho s)^2; others from mpmath
        for beta, rho, sc in [
            (1.0, 0.5, 0.0664471131533),
            (2.0, 0.5, 0.160016712131059),
            (1.5, 0.2, 1.02488888160681),
            (5.0, 0.05, 19.4235018499),
            (5.0, 0.9, 0.0131145434311),
        ]:
            assert GaussianFactorLaw(beta, rho, sc * (1 - 1e-8)).edges.shape == (2, 2)
            assert GaussianFactorLaw(beta, rho, sc * (1 + 1e-8)).edges.shape == (1, 2)

    @pytest.mark.parametrize("point", POINTS[:12])
    def test_density_is_that_of_the_quartic(self, point):
        law = GaussianFactorLaw(*point)
        curve = RectangularCurve(*point)
        for low, high in law.edges:
            for y in low + (high - low) * np.array([0.03, 0.2, 0.5, 0.8, 0.97]):
                t = curve.roots(y * y)
                g = curve.g(t[np.argmax(np.abs(t.imag))])
                expected = 2 * y * abs(g.imag) / math.pi
                assert law.density(y) == pytest.approx(expected, rel=1e-6)

    @pytest.mark.parametrize("point", POINTS)
    def test_quadrature_integrates_the_density(self, point):
        law = GaussianFactorLaw(*point)
        rule = law.quadrature()
        assert np.all(rule.weights > 0)
        assert np.all(np.diff(rule.y) > -1e-12)  # ties where a gap has just closed
        # the density is found by eigenvalue, the rule runs along the arc
        total, scale = 0.0, law.edges.max() / 9
        for low, high in law.edges:

            def integrand(v, a=low, width=high - low):
                y = a + width * math.sin(v) ** 2
                return law.density(y) * math.cos(y / scale) * width * math.sin(2 * v)

            total += quad(integrand, 0, math.pi / 2, epsabs=1e-8, epsrel=0, limit=400)[0]
        assert total == pytest.approx(law.integrate(lambda y: np.cos(y / scale)).value, abs=3e-8)

    @pytest.mark.parametrize("point", [POINTS[0], POINTS[3], POINTS[7], POINTS[12]])
    def test_quadrature_converges_exponentially(self, point):
        law = GaussianFactorLaw(*point)

        def value(nodes):
            return law.integrate(lambda y: np.exp(-y), nodes=nodes).value

        exact = value(64)
        errors = [abs(law_value(law, nodes) - exact) for nodes in (4, 8, 16)]
        assert errors[1] < 2e-2 * errors[0] + 1e-14
        assert errors[2] < 2e-2 * errors[1] + 1e-14
        assert errors[2] < 1e-11

    @pytest.mark.parametrize("point", POINTS)
    def test_stieltjes_off_the_axis_is_the_sum_over_the_law(self, point):
        law = GaussianFactorLaw(*point)
        rule = law.quadrature(64)
        scale = law.edges.max() ** 2
        for z in np.array([1 + 1j, -0.5, 3 - 5j, -1e-2 + 0.5j, 0.3 + 0.4j]) * scale:
            exact = np.sum(rule.weights / (z - rule.y**2))
            assert abs(law.stieltjes(z) - exact) < 1e-11 * abs(exact)
        assert law.stieltjes(1e12 * scale) == pytest.approx(1e-12 / scale, rel=1e-9)

    @pytest.mark.parametrize("point", POINTS)
    def test_transforms_off_the_bulks(self, point):
        law = GaussianFactorLaw(*point)
        rule = law.quadrature(64)
        edges = law.edges.ravel()
        outside = [1.001 * edges[-1], 1.5 * edges[-1], 40.0 * edges[-1]]
        if edges[0] > 1e-6 * edges[-1]:
            outside += [0.999 * edges[0], 0.5 * edges[0], 1e-3 * edges[0]]
        if len(edges) == 4:
            outside += list(edges[1] + (edges[2] - edges[1]) * np.array([0.1, 0.5, 0.9]))
        for y in outside:
            if np.min(np.abs(y - edges)) < 1e-4 * y:
                continue  # a sum of poles needs distance
            g = np.sum(rule.weights / (y * y - rule.y**2))
            h = (1 - 1 / law.beta) / y + 2 * y / law.beta * g
            assert law.hilbert(y) == pytest.approx(h, rel=2e-7, abs=1e-9 / y)
            potential = np.sum(rule.weights * np.log(np.abs(y * y - rule.y**2)))
            assert law.log_potential(y) == pytest.approx(potential, abs=1e-8)
            assert law.density(y) == 0.0

    @pytest.mark.parametrize("point", [POINTS[0], POINTS[5], POINTS[8]])
    def test_log_potential_on_the_bulk(self, point):
        # its derivative is twice the principal value: d Phi/dw = Re g
        law = GaussianFactorLaw(*point)
        for low, high in law.edges:
            y = 0.5 * (low + high)
            h = 1e-4 * (high - low)
            slope = (law.log_potential(y + h) - law.log_potential(y - h)) / (2 * h)
            g = (law.hilbert(y) - (1 - 1 / law.beta) / y) * law.beta / (2 * y)
            assert slope == pytest.approx(2 * y * g, rel=1e-5, abs=1e-6)

    @pytest.mark.parametrize(
        ("beta", "rho"), [(1.0, 0.5), (2.0, 0.2), (1.0, 1.0), (3.0, 2.0), (1.0, 5.0)]
    )
    def test_without_noise(self, beta, rho):
        # the signal itself: two Marchenko-Pastur laws multiplied, an atom when r < d1
        law = GaussianFactorLaw(beta, rho, 0.0)
        assert law.edges.shape == (1, 2)
        atom = max(0.0, 1.0 - rho)
        assert law.atoms.tolist() == ([[0.0, atom]] if atom else [])
        np.testing.assert_allclose(
            law.moments([0, 1, 2]), [1.0, 1.0, 1 + 1 / beta + 1 / rho], rtol=1e-11
        )
        # the cubic beta rho t w = (beta + t)(1 + t)(rho + t)
        for w in law.edges[0, 1] ** 2 * np.array([0.1, 0.5, 0.9]):
            poly = np.polymul(np.polymul([1, beta], [1, 1]), [1, rho]) - [0, 0, beta * rho * w, 0]
            t = min(np.roots(poly), key=lambda t: t.imag)
            expected = -2 * math.sqrt(w) * ((1 + t) / w).imag / math.pi
            assert law.density(math.sqrt(w)) == pytest.approx(max(expected, 0.0), rel=1e-8)
            z = w * (1 + 1j)
            rule = law.quadrature(200)
            direct = np.sum(rule.weights / (z - rule.y**2))
            assert abs(law.stieltjes(z) - direct) < 1e-9
        if atom:
            assert law.density(0.0) == law.density(0.5 * law.edges[0, 0]) == 0.0

    def test_infinity_and_zero(self):
        law = GaussianFactorLaw(1.0, 0.5, 0.3)
        assert law.density([0.0, np.inf]).tolist()[1] == 0.0
        assert law.density(0.0) == pytest.approx(law.density(1e-9), rel=1e-8)
        assert np.isnan(law.density([1.0, -1.0])[1])

    @given(st.floats(0, 4), st.floats(-3, 2), st.floats(-8, 6))
    def test_every_parameter(self, log_beta, log_rho, log_s):
        law = GaussianFactorLaw(10**log_beta, 10**log_rho, 10**log_s)
        assert np.all(np.diff(law.edges.ravel()) > 0)
        assert law.moments(0) == pytest.approx(1.0, abs=1e-10)
        assert law.moments(1) == pytest.approx(1 + 10**log_s, rel=1e-10)

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            ((0.5, 1.0, 1.0), r"beta must be in \[1, 1e\+50\] and finite, got 0\.5"),
            ((np.inf, 1.0, 1.0), r"beta must be in \[1, 1e\+50\] and finite, got inf"),
            ((2.0, 0.0, 1.0), r"rho must be in \[1e-16, 1e\+14\] and finite, got 0\.0"),
            ((2.0, 1.0, -1.0), r"s must be >= 0 and finite, got -1\.0"),
            ((4.0, 1.0, 2.1e13), r"s rho must be at most 1e\+13 sqrt\(beta\)"),
            ((2.0, 1.0, math.nan), "s must be >= 0 and finite, got nan"),
            ((2.0, [1.0, 2.0], 1.0), r"rho must be a scalar, got an array of shape \(2,\)"),
            ((2.0, "x", 1.0), "rho must be a number"),
        ],
    )
    def test_bad_input(self, bad, message):
        with pytest.raises(ValueError, match=message):
            GaussianFactorLaw(*bad)

    def test_bad_rule(self):
        law = GaussianFactorLaw(2.0, 0.5, 0.1)
        with pytest.raises(ValueError, match="nodes must be an integer"):
            law.quadrature(0)
        with pytest.raises(ValueError, match="order must be >= 0"):
            law.moments(-1)


def law_value(law, nodes):
    rule = law.quadrature(nodes)
    return float(np.sum(rule.weights * np.exp(-rule.y)))


class TestKernels:
    def test_pair_of_roots_solves_the_quartic(self):
        # every point of the arc, in both gauges, is a conjugate pair of roots of the quartic
        for beta, rho, s in POINTS:
            c = rectangular.make_curve(beta, rho, s)
            curve = RectangularCurve(beta, rho, s)
            for which in range(c.bulks):
                b = rectangular.make_bulk(c, which)
                for x in (0.3, 1.0, 2.0, 2.9):
                    z = rectangular.arc_point(c, b, b.height * math.sin(x / 2) ** 2)
                    w = z.w
                    t = complex(z.x, -z.y)
                    size = np.polyval(np.abs(curve.quartic(w)), abs(t))
                    assert abs(np.polyval(curve.quartic(w), t)) < 1e-10 * size

    def test_w_increases_along_every_arc(self):
        # what makes the search by eigenvalue safe: conjectured for all, checked on thousands
        for beta, rho, s in spread_points(3000, seed=1):
            c = rectangular.make_curve(beta, rho, s)
            for which in range(c.bulks):
                b = rectangular.make_bulk(c, which)
                x = np.linspace(0.02, math.pi - 0.02, 40)
                for v in x:
                    z = rectangular.arc_point(c, b, b.height * math.sin(v / 2) ** 2)
                    assert z.slope > 0

    def test_panels_are_ordered_and_cover(self):
        for beta, rho, s in spread_points(500, seed=2):
            c = rectangular.make_curve(beta, rho, s)
            for which in range(c.bulks):
                ends = np.empty((rectangular._PANELS, 2))
                count = rectangular.make_panels(c, rectangular.make_bulk(c, which), ends)
                assert count < rectangular._PANELS - 2
                assert ends[0, 0] == 0.0
                assert ends[count - 1, 1] == math.pi
                np.testing.assert_array_equal(ends[1:count, 0], ends[: count - 1, 1])

    @pytest.mark.parametrize("name", ["make_curve", "factor_mmse", "arc_point"])
    def test_compiled_equals_python(self, name):
        # the same code without the compiler: no undefined behaviour hides in it
        c = rectangular.make_curve(2.0, 0.5, 0.1)
        if name == "make_curve":
            assert rectangular.make_curve.py_func(2.0, 0.5, 0.1) == pytest.approx(c)
        elif name == "arc_point":
            b = rectangular.make_bulk(c, 1)
            python = rectangular.arc_point.py_func(c, b, 0.3)
            assert python == pytest.approx(rectangular.arc_point(c, b, 0.3))
        else:
            sums = np.empty(4)
            args = (2.0, 0.5, 0.1, rectangular.NODES, rectangular.WEIGHTS, sums)
            python = rectangular.factor_mmse.py_func(*args)
            assert python == pytest.approx(rectangular.factor_mmse(*args))


class TestMarchenkoPasturLaw:
    @pytest.mark.parametrize("ratio", [0.0, 1e-3, 0.3, 0.999999, 1.0, 1.7, 50.0])
    def test_mass_and_moments(self, ratio):
        law = MarchenkoPasturLaw(beta=2.0, ratio=ratio, scale=1.5, shift=0.2)
        assert law.integrate(np.ones_like).value == pytest.approx(1.0, abs=1e-11)
        mean, square = 1.7, 1.7**2 + 1.5**2 * ratio
        np.testing.assert_allclose(law.moments([1, 2]), [mean, square], rtol=1e-11)

    @pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0, 1.7])
    def test_transforms(self, ratio):
        law = MarchenkoPasturLaw(beta=2.0, ratio=ratio, scale=1.5, shift=0.2)
        rule = law.quadrature(64)
        for z in (1 + 2j, -0.7, 3 - 2j, 30.0):
            exact = np.sum(rule.weights / (z - rule.y**2))
            assert abs(law.stieltjes(z) - exact) < 1e-11
        potential = np.sum(rule.weights * np.log(np.abs(49.0 - rule.y**2)))
        assert law.log_potential(7.0) == pytest.approx(potential, abs=1e-11)

    def test_density_is_normalised(self):
        law = MarchenkoPasturLaw(beta=2.0, ratio=0.5)
        (low, high) = law.edges[0]
        x, w = np.polynomial.legendre.leggauss(200)
        y = 0.5 * (low + high) - 0.5 * (high - low) * np.cos(np.pi * (0.5 + 0.5 * x))
        jacobian = 0.5 * (high - low) * np.sin(np.pi * (0.5 + 0.5 * x)) * np.pi * 0.5
        assert np.sum(w * jacobian * law.density(y)) == pytest.approx(1.0, abs=1e-12)

    def test_is_the_limit_of_the_factor_law(self):
        y = np.array([0.8, 1.2, 1.9])
        wide = GaussianFactorLaw(beta=2.0, rho=1e7, s=0.5)
        limit = MarchenkoPasturLaw(beta=2.0, ratio=0.5, scale=1.5)
        np.testing.assert_allclose(wide.density(y), limit.density(y), rtol=1e-6)
        long = GaussianFactorLaw(beta=1e9, rho=2.0, s=0.5)
        limit = MarchenkoPasturLaw(beta=np.inf, ratio=0.5, shift=0.5)
        np.testing.assert_allclose(long.density(y), limit.density(y), rtol=1e-4)
