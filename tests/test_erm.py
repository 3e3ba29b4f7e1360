"""Convex estimators: against high precision, tables, closed forms, limits and finite matrices."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import highprec
import highprec_erm
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.special import expit
from scipy.stats import norm

from bsr_theory import (
    ConvergenceWarning,
    GaussianChannel,
    GaussianFactorPrior,
    LowRankFactorPrior,
    Problem,
    Status,
    SymmetricFactorPrior,
    bilinear_regression,
    limits,
    solve,
)
from bsr_theory._kernels import estimators
from bsr_theory.channels import SignChannel
from bsr_theory.erm import (
    hard_threshold,
    nuclear_norm,
    nuclear_norm_threshold,
    ridge,
    soft_threshold,
)
from bsr_theory.rotational import (
    RotationallyInvariantPrior,
    SymmetricPrior,
    without_symmetry,
)
from bsr_theory.simulations import nuclear_norm as nuclear_norm_run
from bsr_theory.spectra.numerical import Measure

DATA = Path(__file__).parent / "data"
INF = float("inf")


def rows(name):
    with (DATA / name).open() as file:
        return list(csv.DictReader(file))


def lam_of(row):
    return "optimal" if row["lam"] == "optimal" else float(row["lam"])


def problem_of(row):
    return bilinear_regression(**{k: float(row[k]) for k in ("alpha", "beta", "rho", "delta")})


def positive(low, high):
    """Draw numbers spread evenly in logarithm."""
    return st.floats(np.log10(low), np.log10(high)).map(lambda x: 10.0**x)


# --- high precision -----------------------------------------------------------------------------


class TestHighPrecision:
    @pytest.mark.parametrize(
        "row", rows("erm_highprec.csv"), ids=lambda r: ",".join(r.values())[:40]
    )
    def test_solutions(self, row):
        point = nuclear_norm(problem_of(row), lam=lam_of(row))
        for name, value in (
            ("mse", point.mse),
            ("s", point.effective_noise),
            ("tau", point.threshold),
            ("rank", point.rank),
        ):
            # 1e-6 from perfect recovery rounding is amplified a million times
            assert value == pytest.approx(float(row[name]), rel=2e-10), name
        assert point.residual < 1e-10

    @pytest.mark.parametrize(
        ("beta", "rho", "s", "tau"),
        [(2.0, 0.2, 0.05, 0.5), (1.0, 0.3, 30.0, 9.0), (1.0, 1.0, 0.01, 0.03)],
    )
    def test_functionals(self, beta, rho, s, tau):
        exact = highprec_erm.thresholded(beta, rho, s, tau, digits=14)
        assert abs(exact.mass - 1) < 1e-14
        assert abs(exact.error / exact.other_error - 1) < 1e-13
        found = soft_threshold(GaussianFactorPrior(beta, rho), s, tau)
        for name, value in (
            ("mse", exact.error),
            ("overlap", exact.overlap),
            ("norm", exact.norm),
            ("rank", exact.rank),
            ("nuclear_norm", exact.nuclear),
            ("divergence", exact.divergence),
        ):
            assert getattr(found, name) == pytest.approx(float(value), rel=1e-12), name

    @pytest.mark.parametrize(
        ("beta", "rho", "s", "tau", "rel"),
        [
            # bulks of relative width 2/sqrt(beta), in which rounding of tau moves it by 1e-16
            (1e6, 1e-8, 1e5, 316.354, 2e-11),
            (1e4, 1e-6, 1e7, 3181.25, 1e-12),
            (1e10, 0.5, 1e6, 1000.001, 2e-10),
            (1e8, 1e3, 1e5, 316.223, 2e-11),
            (1e3, 1e-9, 1e-20, 1.01265e-10, 1e-12),
            # long factors, thin ones, and those without width
            (2.0, 1e12, 0.3, 1.14018, 1e-13),
            (3.0, 1e-14, 1e12, 1.51962e6, 1e-12),
            (2.0, 1e-25, 1e3, 10.0, 1e-13),
            (1.0, 1e-18, 9.9e17, 5e8, 1e-13),
            (30.0, 1e-20, 1e23, 3e11, 1e-13),
            (2.0, 1e-18, 1.5e18, 2e9, 2e-13),
            (3.0, 1e-18, 1e-3, 0.02, 1e-13),
        ],
    )
    def test_functionals_of_unlike_scales(self, beta, rho, s, tau, rel):
        exact = highprec_erm.thresholded(beta, rho, s, tau, digits=14)
        found = soft_threshold(GaussianFactorPrior(beta, rho), s, tau)
        if abs(exact.error / exact.other_error - 1) < 1e-9:
            assert found.mse == pytest.approx(float(exact.error), rel=1e-9, abs=0.0)
        for name, value in (
            ("overlap", exact.overlap),
            ("norm", exact.norm),
            ("rank", exact.rank),
            ("nuclear_norm", exact.nuclear),
            ("divergence", exact.divergence),
        ):
            assert getattr(found, name) == pytest.approx(float(value), rel=rel, abs=0.0), name

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "row", rows("erm_highprec.csv"), ids=lambda r: ",".join(r.values())[:40]
    )
    def test_the_table_again(self, row):
        start = float(row["s"]) * (1 + 1e-9), float(row["tau"]) * (1 - 1e-9)
        names = ("beta", "rho", "alpha", "delta")
        given_ = [float(row[k]) for k in names]
        s, tau, cut = highprec_erm.solve(*given_, lam_of(row), start, digits=20)
        with mpmath.mp.workdps(40):
            assert abs(s / mpmath.mpf(row["s"]) - 1) < 1e-18
            assert abs(tau / mpmath.mpf(row["tau"]) - 1) < 1e-18
            assert abs(cut.error / mpmath.mpf(row["mse"]) - 1) < 1e-15

    @pytest.mark.slow
    @pytest.mark.parametrize("lam", ["number", "zero", "optimal"])
    def test_random_parameters(self, lam):
        rng = np.random.default_rng(5)
        for _ in range(12):
            beta = float(10 ** rng.uniform(0, 3)) if rng.random() < 0.7 else 1.0
            rho, delta = float(10 ** rng.uniform(-3, 2)), float(10 ** rng.uniform(-8, 3))
            alpha = float(10 ** rng.uniform(-3, 0 if lam == "zero" else 2))
            penalty = {"number": float(10 ** rng.uniform(-6, 0)), "zero": 0.0}.get(lam, lam)
            point = nuclear_norm(bilinear_regression(alpha, beta, rho, delta), lam=penalty)
            if point.rank == 0.0:
                continue
            start = point.effective_noise * (1 + 1e-7), point.threshold * (1 - 1e-7)
            s, tau, _ = highprec_erm.solve(beta, rho, alpha, delta, penalty, start, digits=16)
            exact = float(alpha * s - delta)
            assert point.mse == pytest.approx(exact, rel=1e-10), (beta, rho, alpha, delta)
            assert point.threshold == pytest.approx(float(tau), rel=1e-9)

    @pytest.mark.parametrize("lam", [0.0, "optimal"])
    @pytest.mark.parametrize(("beta", "rho"), [(1.0, 0.2), (2.0, 0.5), (1.0, 0.9), (300.0, 0.002)])
    def test_a_hair_below_perfect_recovery(self, beta, rho, lam):
        """Within 1e-7 of the threshold the equations need twice the digits of a double."""
        alpha = float(nuclear_norm_threshold(rho, beta)) * (1 - 1e-7)
        point = nuclear_norm(bilinear_regression(alpha, beta, rho), lam=lam)
        cut = highprec_erm.thresholded(beta, rho, point.effective_noise, point.threshold, digits=20)
        with mpmath.mp.workdps(50):
            left = mpmath.mpf(alpha) - cut.error / mpmath.mpf(point.effective_noise)
            # near the threshold E/s falls linearly with sqrt(s), by twice the distance in log s
            distance = 0.5 * alpha * 1e-7
            assert abs(left) / distance < 1e-8
            assert point.mse == pytest.approx(float(cut.error), rel=1e-8)


# --- tables -------------------------------------------------------------------------------------


class TestTables:
    @pytest.mark.parametrize("lam", ["0", "optimal", "number"])
    def test_nuclear_norm(self, lam):
        chosen = [
            r
            for r in rows("erm_nuclear_norm.csv")
            if (r["lam"] if r["lam"] in "0optimal" else "number") == lam
        ]
        assert len(chosen) > 30
        arrays = {
            k: np.array([float(r[k]) for r in chosen]) for k in ("alpha", "beta", "rho", "delta")
        }
        penalty = lam if lam == "optimal" else np.array([float(r["lam"]) for r in chosen])
        found = nuclear_norm(bilinear_regression(**arrays), lam=penalty)
        fields = {
            "mse": found.mse,
            "s": found.effective_noise,
            "tau": found.threshold,
            "train_loss": found.train_loss,
            "rank": found.rank,
            "nuclear_norm": found.nuclear_norm,
        }
        for name, values in fields.items():
            for row, value in zip(chosen, values, strict=True):
                if row[name]:
                    digits = len(row[name].partition(".")[2])
                    assert abs(value - float(row[name])) < 0.51 * 10.0**-digits, (name, row)

    def test_optimal_penalty_and_order_of_estimators(self):
        for row in rows("erm_optimal.csv"):
            problem = problem_of(row)
            best = nuclear_norm(problem, lam="optimal")
            assert best.lam == pytest.approx(float(row["lam"]), abs=6e-11)
            blind = ridge(problem, lam="optimal")
            assert blind.mse == pytest.approx(float(row["ridge"]), abs=6e-11)
            bayes = solve(problem).mmse
            assert bayes == pytest.approx(
                float(row["bayes"]), abs=1e-7
            )  # of the table's quadrature
            assert bayes <= best.mse * (1 + 1e-12)
            assert bayes <= blind.mse * (1 + 1e-12)

    def test_thresholds(self):
        for row in rows("erm_thresholds.csv"):
            beta, rho = float(row["beta"]), float(row["rho"])
            value = nuclear_norm_threshold(rho, beta)
            assert value == pytest.approx(float(row["threshold"]), abs=6e-11)
            assert GaussianFactorPrior(beta, rho).strong_recovery < value

    def test_simulations_of_the_convex_program(self):
        """Means over instances of sizes up to 80: their errors, and 1% for a bias of order 1/d."""
        z = []
        for row in rows("erm_simulations.csv"):
            point = nuclear_norm(problem_of(row), lam=lam_of(row))
            z.append((float(row["ratio"]) - point.mse) / float(row["ratio_error"]))
            noise = 3.0 * float(row["rank_error"])
            assert float(row["rank"]) == pytest.approx(point.rank, abs=noise + 0.01 * point.rank)
            noise = 3.0 * float(row["train_error"]) + 6e-5
            train = point.train_loss
            assert float(row["train"]) == pytest.approx(train, abs=noise + 0.01 * train)
        assert np.max(np.abs(z)) < 3.0
        assert np.mean(np.square(z)) < 1.8


# --- closed forms and limits --------------------------------------------------------------------


class TestThreshold:
    @pytest.mark.parametrize(
        ("beta", "closed_form"),
        [
            (1.0, limits.nuclear_norm_recovery_square),
            (INF, limits.nuclear_norm_recovery_infinite_beta),
        ],
    )
    def test_closed_forms(self, beta, closed_form):
        rho = np.concatenate([np.geomspace(1e-3, 0.99, 40), [1 - 1e-6, 1.0, 7.0, INF]])
        assert_allclose(nuclear_norm_threshold(rho, beta), closed_form(rho), rtol=3e-13)

    @pytest.mark.parametrize("beta", [1.0 + 1e-9, 1.0 + 1e-4, 1.3])
    def test_nearly_square(self, beta):
        """The risk of thresholding at small noise, integrated and minimised in mpmath."""
        rho = 0.9
        ratio, K = (1 - rho) / (beta - rho), (1 - rho) * (1 - rho / beta)
        low, high = (1 - np.sqrt(ratio)), (1 + np.sqrt(ratio))

        def risk(cut):
            def moment(k, a, b):
                def density(x):
                    square = (high**2 - x * x) * (x * x - low**2)
                    return mpmath.sqrt(max(square, 0)) / (mpmath.pi * ratio * x) * x**k

                ends = [a, *(low + d for d in (1e-8, 1e-6, 1e-4, 1e-2) if a < low + d < b), b]
                return mpmath.quad(density, ends) if b > a else 0

            place = min(max(cut, low), high)
            p0, p1 = (moment(k, place, high) for k in (0, 1))
            below = moment(2, low, place)
            lack = K * (below + 2 * cut * p1 - cut**2 * p0) - (1 - rho / beta) * rho * cut**2
            return float(1 - lack)

        least = minimize_scalar(risk, bounds=(1e-3, 0.3), method="bounded", options={"xatol": 1e-6})
        assert nuclear_norm_threshold(rho, beta) == pytest.approx(least.fun, abs=1e-11)

    @pytest.mark.parametrize("beta", [1.0, 2.0, 1e4, INF])
    def test_every_digit_of_thin_factors(self, beta):
        rho = np.array([1e-300, 1e-60, 1e-40])
        limit = 1 + 1 / beta + (1 + beta**-0.5) ** 2
        assert_allclose(nuclear_norm_threshold(rho, beta), rho * limit, rtol=1e-13)
        if beta == 1.0:
            thin = np.array([1e-14, 1e-9, 1e-5])
            with mpmath.mp.workdps(60):
                for r, value in zip(thin, nuclear_norm_threshold(thin), strict=True):
                    r = mpmath.mpf(float(r))
                    # rho l = (1 - rho) nuclear(l) with l = 2 sin(phi), of a quarter circle

                    def excess(phi, r=r):
                        left, cut = mpmath.pi / 2 - phi, 2 * mpmath.sin(phi)
                        mean = 8 / (3 * mpmath.pi) * mpmath.cos(phi) ** 3
                        share = (2 * left - mpmath.sin(2 * left)) / mpmath.pi
                        return r * cut - (1 - r) * (mean - cut * share)

                    low, phi = mpmath.mpf(0), mpmath.pi / 2
                    for _ in range(150):
                        middle = (low + phi) / 2
                        low, phi = (middle, phi) if excess(middle) < 0 else (low, middle)
                    cut = 2 * mpmath.sin(phi)
                    above = mpmath.quad(
                        lambda x, cut=cut: (x - cut) ** 2 * mpmath.sqrt(4 - x * x) / mpmath.pi,
                        [cut, 2],
                    )
                    risk = r * (2 - r + (1 - r) * cut**2) + (1 - r) ** 2 * above
                    assert value == pytest.approx(float(risk), rel=1e-13, abs=0.0)

    def test_low_rank_limit(self):
        beta = np.array([1.0, 2.0, 10.0])
        low_rank = (1 + np.sqrt(beta) + beta) * 2 / (1 + beta)
        value = nuclear_norm_threshold(1e-7, beta) * beta / ((1 + beta) * 1e-7)
        assert_allclose(value, low_rank, rtol=0.02)

    def test_it_is_where_the_error_vanishes(self):
        for beta, rho in ((1.0, 0.3), (3.0, 0.6), (INF, 0.4)):
            star = float(nuclear_norm_threshold(rho, beta))
            alpha = star * (1 + np.array([-1e-9, -1e-12, 1e-12, 1e-9]))
            for lam in (0.0, "optimal"):
                point = nuclear_norm(bilinear_regression(alpha, beta, rho), lam=lam)
                assert list(point.status) == [0, 0, 1, 1]
                assert np.all(point.mse[:2] > 0) and np.all(point.mse[2:] == 0.0)
                assert_allclose(point.mse[0] / point.mse[1], 1e6, rtol=2e-3)

    def test_bad_input(self):
        with pytest.raises(ValueError, match="rho must be > 0"):
            nuclear_norm_threshold(0.0)
        with pytest.raises(ValueError, match="beta must be >= 1"):
            nuclear_norm_threshold(0.5, 0.5)
        assert np.isnan(nuclear_norm_threshold([0.5, -1.0], 2.0)[1])


class TestAsymptotics:
    @pytest.mark.parametrize(
        ("beta", "rho", "cut", "H"),
        [
            (1.0, 0.2, 0.8677338012, 2 * 0.2**1.5),
            (1.0, 0.5, 0.4575926510, 2 * 0.5**1.5),
            (2.0, 0.2, 0.8250716327, 0.1362243736),
            (2.0, 0.5, 0.4784885795, 0.5609731118),
        ],
    )
    @pytest.mark.parametrize("lam", [0.0, "optimal"])
    def test_the_error_vanishes_quadratically(self, beta, rho, cut, H, lam):
        star = float(nuclear_norm_threshold(rho, beta))
        scale = star / (2 * cut * np.sqrt(1 - rho / beta) * H) ** 2
        for distance, rtol in ((1e-5, 5e-4), (1e-8, 1e-6)):
            alpha = star - distance
            point = nuclear_norm(bilinear_regression(alpha, beta, rho), lam=lam)
            assert point.mse == pytest.approx(scale * (star - alpha) ** 2, rel=rtol)

    def test_small_noise_above_the_threshold(self):
        problem = bilinear_regression(0.7, 1.0, 0.2, [1e-12, 1e-16])
        star = float(nuclear_norm_threshold(0.2))
        best = nuclear_norm(problem, lam="optimal").mse / [1e-12, 1e-16]
        assert_allclose(best, star / (0.7 - star), rtol=2e-5)
        assert_allclose(nuclear_norm(problem).mse / [1e-12, 1e-16], 7.1219, rtol=2e-5)

    @pytest.mark.parametrize("beta", [1.0, 2.0])
    @pytest.mark.parametrize("delta", [0.0, 0.5])
    def test_few_labels_do_harm(self, beta, delta):
        """Interpolating few labels costs alpha^(2/5), whatever the rank of S."""
        alpha = np.array([1e-9, 1e-11])
        u = 1 + 1 / np.sqrt(beta)
        kappa = beta / np.pi * np.sqrt(8 / (np.sqrt(beta) * u))
        law = (1 + delta) * 4 / (7 * u) * (15 * alpha / (4 * u * kappa)) ** 0.4
        for rho in (0.2, 1.0):
            ratio = (nuclear_norm(bilinear_regression(alpha, beta, rho, delta)).mse - 1) / law
            assert np.all(np.abs(ratio - 1) < [2e-3, 4e-4]), ratio

    def test_low_rank(self):
        """At alpha_LR = 1 the error tends to 8/9, slowly."""
        rho = np.array([1e-2, 1e-3, 1e-4])
        found = nuclear_norm(bilinear_regression(2 * rho, 1.0, rho)).mse
        assert_allclose(found, [0.70554, 0.82021, 0.86205], atol=6e-6)

    def test_infinite_sides(self):
        for lam in (0.0, 0.3, "optimal"):
            long = nuclear_norm(bilinear_regression(0.4, [1e5, INF], 0.6, 0.1), lam=lam)
            assert_allclose(long.mse[0], long.mse[1], rtol=1e-4)
            assert_allclose(long.rank[0], long.rank[1], rtol=1e-2)
            wide = nuclear_norm(bilinear_regression(0.4, 2.0, [1e6, INF], 0.1), lam=lam)
            assert_allclose(wide.mse[0], wide.mse[1], rtol=1e-5)

    def test_long_and_wide_is_ridge(self):
        """All singular values are equal: every spectral penalty is the same family."""
        alpha, delta = np.array([0.1, 0.5, 0.9, 1.5, 7.0]), np.array([[0.0], [0.2], [3.0]])
        problem = bilinear_regression(alpha, INF, INF, delta)
        best = nuclear_norm(problem, lam="optimal")
        assert_allclose(best.mse, limits.ridge_mse(alpha, delta), rtol=1e-12)
        assert_allclose(nuclear_norm(problem).mse, limits.ridge_mse(alpha, delta, 0.0), rtol=1e-12)


class TestLeastSquares:
    def test_more_labels_than_entries(self):
        problem = bilinear_regression([1.2, 3.0], 2.0, 0.5, 0.4)
        point = nuclear_norm(problem)
        assert_allclose(point.mse, [2.0, 0.2], rtol=1e-15)
        assert_allclose(point.train_loss, 0.4 * (1 - 1 / np.array([1.2, 3.0])), rtol=1e-14)
        assert np.all(point.threshold == 0.0) and np.all(point.rank == 1.0)

    def test_the_interpolation_peak(self):
        for beta in (1.0, 4.0):
            alpha = 1.0 - np.array([1e-9, 1e-6])
            point = nuclear_norm(bilinear_regression(alpha, beta, 0.5, 0.4))
            assert_allclose(point.mse, 0.4 / (1 - alpha), rtol=3e-4)
            assert nuclear_norm(bilinear_regression(1.0, beta, 0.5, 0.4)).mse == INF
            perfect = nuclear_norm(bilinear_regression(1.0, beta, 2.0))
            assert perfect.mse == 0.0 and perfect.status is Status.PERFECT_RECOVERY

    @pytest.mark.parametrize("penalty", [0.0, 1.0])
    @pytest.mark.parametrize(
        ("alpha", "beta", "rho"),
        [(0.7, 1.0, 0.2), (0.7, 2.0, 0.2), (1.5, 2.0, 1.5), (0.9, INF, 0.5), (0.1, 1e3, 1e-3)],
    )
    def test_tiny_noise_and_penalties_have_no_scale(self, alpha, beta, rho, penalty):
        unit = 10.0 ** -np.array([14, 16, 18, 25, 40, 70, 100, 145])
        problem = bilinear_regression(alpha, beta, rho, unit**2)
        point = nuclear_norm(problem, lam=penalty * unit)
        assert_allclose(point.mse / unit**2, point.mse[0] / unit[0] ** 2, rtol=1e-9)
        assert_allclose(point.threshold / unit, point.threshold[0] / unit[0], rtol=1e-9)
        assert_allclose(point.rank, point.rank[0], rtol=1e-9)

    @pytest.mark.parametrize("beta", [1.0, 3.0, 1e4])
    def test_factors_without_width(self, beta):
        # on both sides of where the outliers' law takes over; corrections are of order rho^(1/3)
        rho = np.array([1.01e-16, 0.99e-16])
        problem = bilinear_regression(2.5 * rho, beta, rho, [[0.0], [0.1]])
        for lam in (0.0, 0.3 * float(np.sqrt(rho[0])), "optimal"):
            point = nuclear_norm(problem, lam=lam)
            for name in ("mse", "overlap", "norm", "train_loss"):
                one, other = getattr(point, name).T
                assert_allclose(one, other, rtol=0.02, err_msg=name)

    def test_small_penalties_tend_to_the_interpolator(self):
        problem = bilinear_regression([0.3, 1.7], 2.0, 0.5, 0.2)
        tiny, none = nuclear_norm(problem, lam=1e-11), nuclear_norm(problem)
        assert_allclose(tiny.mse, none.mse, rtol=1e-8)
        assert_allclose(tiny.threshold[1], 1e-11 / 0.7, rtol=1e-8)

    def test_a_large_penalty_kills_the_estimate(self):
        point = nuclear_norm(bilinear_regression(0.5, 2.0, 0.5, 0.2), lam=100.0)
        assert (point.mse, point.rank, point.norm) == (1.0, 0.0, 0.0)
        assert point.train_loss == pytest.approx(1.2)
        assert point.threshold == pytest.approx(200.0)


class TestRidge:
    @given(positive(1e-3, 1e2), st.one_of(st.just(0.0), positive(1e-6, 1e3)),
           st.one_of(st.just(0.0), positive(1e-6, 1e3)))  # fmt: skip
    def test_closed_form(self, alpha, delta, lam):
        point = ridge(Problem(LowNoise(), GaussianChannel(delta), alpha), lam=lam)
        assert point.mse == pytest.approx(limits.ridge_mse(alpha, delta, lam), rel=1e-12)
        train = limits.ridge_train_loss(alpha, delta, lam)
        assert point.train_loss == pytest.approx(train, rel=1e-12, abs=1e-300)
        assert point.norm == pytest.approx(point.mse - 1 + 2 * point.overlap, rel=1e-9, abs=1e-9)

    def test_all_scales(self):
        rng = np.random.default_rng(2)
        for _ in range(300):
            alpha, delta, lam = 10.0 ** rng.uniform([-300, -300, -300], [300, 300, 300])
            point = ridge(bilinear_regression(alpha, 2.0, 0.5, delta), lam=lam)
            with mpmath.mp.workdps(1300):
                a, d, p = (mpmath.mpf(float(x)) for x in (alpha, delta, lam))
                D = 2 * a / (1 + a + p + mpmath.sqrt((1 + a + p) ** 2 - 4 * a))
                error = (a * (1 - D) ** 2 + d * D**2) / (a - D**2)
                s = (d + error) / a
                exact = {"mse": error, "overlap": D, "norm": D**2 * (1 + s),
                         "train_loss": s * (a - D) ** 2 / a}  # fmt: skip
                exact = {name: float(value) for name, value in exact.items()}
            for name, value in exact.items():
                if 1e-290 < value < 1e300:
                    assert getattr(point, name) == pytest.approx(value, rel=1e-12, abs=0.0), name

    def test_optimum(self):
        problem = bilinear_regression([0.5, 2.0], 2.0, 0.5, [[0.0], [0.3]])
        best = ridge(problem, lam="optimal")
        assert_allclose(best.mse, limits.ridge_mse([0.5, 2.0], [[0.0], [0.3]]), rtol=1e-14)
        assert_allclose(best.lam, [[0.0, 0.0], [0.3, 0.3]])
        assert best.status.tolist() == [[0, 1], [0, 0]]
        assert_allclose(best.rank, [[1.0, 0.5], [1.0, 1.0]])

    def test_nuclear_norm_of_the_estimate(self):
        point = ridge(bilinear_regression(0.5, 1.0, INF, 0.1), lam=0.2)
        s = point.effective_noise
        mean = 8 / (3 * np.pi) * np.sqrt(1 + s)  # quarter circle
        assert point.nuclear_norm == pytest.approx(point.overlap * mean, rel=1e-12)

    def test_the_peak_and_bad_input(self):
        assert ridge(bilinear_regression(1.0, 2.0, 0.5, 0.1)).mse == INF
        assert ridge(bilinear_regression(1.0, 2.0, 0.5)).mse == 0.0
        with pytest.raises(ValueError, match="prior must be one with alpha = n/"):
            ridge(Problem(LowRankFactorPrior(2.0), GaussianChannel(0.1), 0.5))
        with pytest.raises(ValueError, match="lam must be >= 0 and finite, got -1"):
            ridge(bilinear_regression(0.5, 2.0, 0.5), lam=-1.0)


class LowNoise(GaussianFactorPrior):
    """A prior of fixed parameters, to vary the channel alone."""

    def __init__(self):
        super().__init__(2.0, 0.5)


# --- structure of the equations -----------------------------------------------------------------


def _cases():
    return st.tuples(
        positive(1, 100), positive(1e-2, 10), positive(1e-4, 1e2), st.floats(0.05, 0.95)
    )


class TestThresholding:
    @pytest.mark.parametrize(
        ("beta", "rho", "s", "tau"), [(2.0, 0.3, 0.02, 0.3), (1.0, 2.0, 3.0, 1.7)]
    )
    def test_error_as_distance_to_the_optimal_shrinkage(self, beta, rho, s, tau):
        prior = GaussianFactorPrior(beta, rho)
        law = prior.law(s)

        def mean(f):
            total = 0.0
            for lo, hi in law.edges:
                ends = sorted({lo, hi, min(max(tau, lo), hi)})
                for a, b in itertools.pairwise(ends):
                    # y = a + (b - a) sin^2 opens the square roots at the edges
                    total += quad(
                        lambda x, a=a, b=b: f(y := a + (b - a) * np.sin(x) ** 2)
                        * law.density(y) * (b - a) * np.sin(2 * x),
                        0, np.pi / 2, epsabs=1e-12, epsrel=1e-11, limit=200,
                    )[0]  # fmt: skip
            return total

        soft, hard = soft_threshold(prior, s, tau), hard_threshold(prior, s, tau)

        def best(y):
            return y - s * law.hilbert(y)

        apart = mean(lambda y: (max(y - tau, 0.0) - best(y)) ** 2)
        assert soft.mse == pytest.approx(prior.mmse(s) + apart, rel=1e-9)
        apart = mean(lambda y: ((y if y > tau else 0.0) - best(y)) ** 2)
        assert hard.mse == pytest.approx(prior.mmse(s) + apart, rel=1e-9)
        overlap = mean(lambda y: (y if y > tau else 0.0) * best(y))
        assert hard.overlap == pytest.approx(overlap, rel=1e-9)

    @given(_cases())
    def test_identities(self, case):
        beta, rho, s, place = case
        prior = GaussianFactorPrior(beta, rho)
        tau = place * float(np.max(prior.law(s).edges))
        for estimate in (soft_threshold(prior, s, tau), hard_threshold(prior, s, tau)):
            assert estimate.mse == pytest.approx(
                1 - 2 * estimate.overlap + estimate.norm, rel=1e-9, abs=1e-12
            )
            assert estimate.mse >= prior.mmse(s) * (1 - 1e-12)
        # SURE, and Stein's lemma E<S, f> = E<Y, f> - s div
        soft = soft_threshold(prior, s, tau)
        on_y = soft.norm + tau * soft.nuclear_norm
        assert soft.overlap == pytest.approx(on_y - s * soft.divergence, rel=1e-8, abs=1e-12)

    @given(_cases())
    def test_derivatives(self, case):
        beta, rho, s, place = case
        prior = GaussianFactorPrior(beta, rho)
        tau = place * float(np.max(prior.law(s).edges))
        h = 1e-5 * tau
        low, mid, high = (soft_threshold(prior, s, t) for t in (tau - h, tau, tau + h))
        slope = (high.mse - low.mse) / (2 * h)
        hilbert = -(high.divergence - low.divergence) / (2 * h)
        scale = 2 * tau * mid.rank + 2 * s * abs(hilbert) + 1e-6
        assert abs(slope - 2 * tau * mid.rank + 2 * s * hilbert) < 1e-4 * scale
        nuclear = (high.nuclear_norm - low.nuclear_norm) / (2 * h)
        assert nuclear == pytest.approx(-mid.rank, rel=1e-4, abs=1e-5)

    @given(_cases())
    def test_best_thresholds(self, case):
        beta, rho, s, _ = case
        prior = GaussianFactorPrior(beta, rho)
        top = float(np.max(prior.law(s).edges))
        for kind in (soft_threshold, hard_threshold):
            best = kind(prior, s)
            others = kind(prior, s, np.linspace(0.0, 1.01 * top, 60))
            assert np.all(others.mse >= best.mse * (1 - 1e-12))
            assert prior.mmse(s) * (1 - 1e-12) <= best.mse <= min(1.0, s) * (1 + 1e-12)
        best = hard_threshold(prior, s)
        law = prior.law(s)
        inside = any(lo < best.threshold < hi for lo, hi in law.edges)
        if inside:
            assert prior.shrink(best.threshold, s) == pytest.approx(best.threshold / 2, rel=1e-7)

    @pytest.mark.parametrize("s", [1e-8, 1e-3, 2.0])
    @pytest.mark.parametrize("rho", [1.0, 1.001, 0.4])
    def test_many_columns(self, rho, s):
        """beta = inf: y^2 = x + s with x of a Marchenko-Pastur law, and h = 1/y."""
        tau = 1.3 * np.sqrt(s)
        root = 1 / np.sqrt(rho)

        def mean(f):
            def term(angle):
                x = (1 - root) ** 2 + 4 * root * mpmath.sin(angle / 2) ** 2
                return 2 / mpmath.pi * mpmath.sin(angle) ** 2 / x * f(mpmath.sqrt(x + s))

            share = (tau**2 - s - (1 - root) ** 2) / (4 * root)
            cut = 2 * np.arcsin(np.sqrt(np.clip(share, 0.0, 1.0)))
            ends = sorted({0.0, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, float(cut), float(np.pi)})
            return mpmath.quad(term, ends) + max(1 - rho, 0.0) * f(np.sqrt(s))

        divergence = mean(lambda y: max(1 - tau / y, 0))
        error = mean(lambda y: min(y, tau) ** 2) - s + 2 * s * divergence
        found = soft_threshold(GaussianFactorPrior(INF, rho), s, tau)
        assert found.divergence == pytest.approx(float(divergence), rel=1e-12)
        assert found.mse == pytest.approx(float(error), rel=1e-12)

    def test_special_noises(self):
        prior = GaussianFactorPrior(2.0, 0.5)
        soft = soft_threshold(prior, [0.0, INF])
        assert_allclose(soft.mse, [0.0, 1.0])
        assert soft_threshold(prior, 0.3, INF).mse == 1.0
        assert soft_threshold(prior, 0.3, 0.0).mse == pytest.approx(0.3, rel=1e-14)
        assert hard_threshold(prior, 0.3, 0.0).mse == pytest.approx(0.3, rel=1e-14)
        # without noise only the signal below tau is lost
        tau, law = 0.4, prior.law(0.0)
        lost = quad(lambda y: min(y, tau) ** 2 * law.density(y), law.edges[-1, 0], tau)[0]
        lost += tau**2 * quad(law.density, tau, law.edges[-1, 1], limit=200)[0]
        assert soft_threshold(prior, 0.0, tau).mse == pytest.approx(lost, rel=1e-7)
        gaussian = GaussianFactorPrior(INF, INF)
        assert soft_threshold(gaussian, 0.5).mse == pytest.approx(1 / 3, rel=1e-14)

    def test_bad_input(self):
        with pytest.raises(ValueError, match="GaussianFactorPrior"):
            soft_threshold(LowRankFactorPrior(2.0), 0.5)
        with pytest.raises(ValueError, match='tau must be a number >= 0 or "optimal"'):
            hard_threshold(GaussianFactorPrior(2.0, 0.5), 0.5, "best")
        with pytest.raises(ValueError, match="tau must be >= 0, got -1"):
            soft_threshold(GaussianFactorPrior(2.0, 0.5), 0.5, -1.0)
        assert np.isnan(soft_threshold(GaussianFactorPrior(2.0, 0.5), [0.5, np.nan]).mse[1])


class TestOptimum:
    @given(positive(1, 100), positive(1e-2, 10), positive(0.02, 3), positive(1e-3, 10))
    def test_no_penalty_does_better(self, beta, rho, alpha, delta):
        problem = bilinear_regression(alpha, beta, rho, delta)
        best = nuclear_norm(problem, lam="optimal")
        factors = np.array([0.5, 0.9, 1.0, 1.1, 2.0])
        others = nuclear_norm(problem, lam=best.lam * factors)
        assert others.mse[2] == pytest.approx(best.mse, rel=1e-10)
        assert others.threshold[2] == pytest.approx(best.threshold, rel=1e-6)
        assert np.all(others.mse >= best.mse * (1 - 1e-10))
        assert best.mse <= min(1.0, nuclear_norm(problem).mse) * (1 + 1e-12)
        assert best.mse >= solve(problem).mmse * (1 - 1e-10)

    def test_ridge_can_win(self):
        problem = bilinear_regression([0.1, 0.6], 1.0, 0.2, 0.1)
        nuclear, blind = (f(problem, lam="optimal").mse for f in (nuclear_norm, ridge))
        assert nuclear[0] > blind[0] and nuclear[1] < blind[1]


class TestInterface:
    def test_arrays_and_status(self):
        problem = bilinear_regression([0.3, np.nan, 0.9], 1.0, [[0.2], [2.0]])
        with pytest.warns(ConvergenceWarning, match="2 of 6 points: INVALID_INPUT"):
            found = nuclear_norm(problem)
        assert found.shape == (2, 3) == found.status.shape
        assert found.status.tolist() == [[0, 11, 1], [0, 11, 0]]
        assert np.isnan(found.mse[:, 1]).all() and np.isfinite(found.mse[:, [0, 2]]).all()
        one = nuclear_norm(bilinear_regression(0.3, 1.0, 0.2))
        assert isinstance(one.mse, float) and one.status is Status.CONVERGED
        assert one.mse == found.mse[0, 0]
        mixed = nuclear_norm(bilinear_regression(0.3, 1.0, 0.2), lam=[0.0, 0.5, np.nan],
                             on_failure="return")  # fmt: skip
        assert mixed.mse[0] == one.mse and mixed.status.tolist() == [0, 0, 11]
        assert ridge(problem, on_failure="return").status.tolist() == [[0, 11, 0], [0, 11, 0]]

    def test_a_tolerance_that_cannot_be_met(self):
        found = nuclear_norm(
            bilinear_regression(np.linspace(0.1, 0.5, 30), 2.0, 0.7, 0.1), tolerance=0.0,
            on_failure="return",
        )  # fmt: skip
        assert np.all(np.isnan(found.mse) == (found.status == Status.NOT_CONVERGED))
        assert np.any(found.status == Status.NOT_CONVERGED)

    def test_bad_input(self):
        good = bilinear_regression(0.3, 1.0, 0.2)
        for call in (nuclear_norm, ridge):
            with pytest.raises(ValueError, match='lam must be a number >= 0 or "optimal"'):
                call(good, lam="best")
            with pytest.raises(ValueError, match="alpha must be given"):
                call(Problem(good.prior, good.channel))
        with pytest.raises(ValueError, match="prior must be a GaussianFactorPrior"):
            nuclear_norm(Problem(LowRankFactorPrior(1.0), GaussianChannel(0.1), 1.0))

    def test_perfect_recovery_is_the_signal(self):
        point = nuclear_norm(bilinear_regression(0.9, 1.0, 0.2), lam="optimal")
        assert (point.mse, point.overlap, point.norm, point.lam) == (0.0, 1.0, 1.0, 0.0)
        assert point.status is Status.PERFECT_RECOVERY and point.rank == 0.2
        law = GaussianFactorPrior(1.0, 0.2).law(0.0)
        mean = law.integrate(lambda y: y).value
        assert point.nuclear_norm == pytest.approx(mean, rel=1e-10)


# --- labels -1 and 1 ---------------------------------------------------------------------------


def sign_problem(alpha, beta, rho, delta=0.0):
    return Problem(GaussianFactorPrior(beta, rho), SignChannel(delta), alpha)


class TestClassification:
    # alpha, beta, rho, lam, overlap, norm, label error, rank, and the same of 16 minimisations at
    # d1 = 30 or 24 (mean and standard error)
    LOGISTIC = (
        (1.0, 1.0, 0.2, 0.1, 2.6826707, 9.8159670, 0.17278803, 0.46890,
         (2.705, 0.023), (9.996, 0.136), (0.1730, 0.0014), (0.4646, 0.0057)),
        (2.0, 1.0, 0.2, 0.1, 4.4886355, 22.543810, 0.10570313, 0.57888,
         (4.4995, 0.0159), (22.662, 0.145), (0.1057, 0.0010), (0.5687, 0.0048)),
        (1.5, 2.0, 0.5, 0.05, 3.9646366, 20.925304, 0.16623836, 0.83714,
         (3.986, 0.021), (21.219, 0.149), (0.1670, 0.0015), (0.8333, 0.0066)),
    )  # fmt: skip

    @pytest.mark.parametrize("row", LOGISTIC)
    def test_logistic(self, row):
        alpha, beta, rho, lam, *exact = row
        point = nuclear_norm(sign_problem(alpha, beta, rho), lam=lam, loss="logistic")
        found = [point.overlap, point.norm, point.label_error, point.rank]
        assert_allclose(found, exact[:4], rtol=1.2e-5)
        assert_allclose(found[:3], exact[:3], rtol=2e-8, atol=5e-9)
        for value, (mean, error) in zip(found, exact[4:], strict=True):
            assert abs(value - mean) < 2.0 * error + 0.01 * value
        assert point.cosine == pytest.approx(point.overlap / np.sqrt(point.norm), rel=1e-14)

    @given(positive(0.05, 20), positive(1, 50), positive(0.02, 5), positive(0.01, 3),
           st.one_of(st.just(0.0), positive(1e-3, 10)))  # fmt: skip
    def test_squared_loss_is_regression_with_more_noise(self, alpha, beta, rho, lam, delta):
        """Labels are k h plus something uncorrelated with h, and the square sees no more."""
        k = np.sqrt(2 / (np.pi * (1 + delta)))
        point = nuclear_norm(sign_problem(alpha, beta, rho, delta), lam=lam)
        other = nuclear_norm(bilinear_regression(alpha, beta, rho, 1 / k**2 - 1), lam=lam / k)
        assert point.overlap == pytest.approx(k * other.overlap, rel=1e-9, abs=1e-12)
        assert point.norm == pytest.approx(k**2 * other.norm, rel=1e-9, abs=1e-12)
        assert point.rank == pytest.approx(other.rank, rel=1e-9, abs=1e-12)
        assert 2 * point.train_loss == pytest.approx(k**2 * other.train_loss, rel=1e-9)

    @pytest.mark.parametrize("loss", ["logistic", "hinge", "squared"])
    @pytest.mark.parametrize(
        ("delta", "missing", "q", "V"),
        [(0.0, 0.5, 1.0, 0.7), (0.2, 0.05, 30.0, 8.0), (0.0, 1e-4, 0.1, 60.0)],
    )
    def test_means_over_labels(self, loss, delta, missing, q, V):
        """The quadrature over outputs, against the minimisation that defines it."""
        code = {"squared": 0, "logistic": 1, "hinge": 2}[loss]
        found = estimators.label_means(code, delta, missing, np.sqrt(q), V)

        def value(x):
            return {"squared": 0.5 * (1 - x) ** 2, "logistic": np.logaddexp(0.0, -x),
                    "hinge": max(0.0, 1 - x)}[loss]  # fmt: skip

        def pull(omega):
            def slope(p):  # of the convex function whose minimum is the proximal map
                left = {"squared": p - 1, "logistic": -expit(-p), "hinge": -1.0 * (p < 1)}[loss]
                return left + (p - omega) / V

            p = brentq(slope, min(omega, 1) - 1, max(omega + V, 1) + 1, xtol=1e-14, rtol=1e-14)
            return p, (p - omega) / V

        width = np.sqrt((missing + delta) / (1 - missing))

        def mean(f):
            # y = 1 stands for both labels; P(y|omega) varies on the scale of `width`
            points = np.unique(np.clip(
                [0, width, -width, 4 * width, -4 * width, 1 / np.sqrt(q), (1 - V) / np.sqrt(q)],
                -8.5, 8.5))  # fmt: skip
            return sum(
                quad(lambda z: 2 * f(z) * norm.pdf(z), a, b, epsabs=1e-15, epsrel=1e-11)[0]
                for a, b in itertools.pairwise([-8.5, *points, 8.5]) if b > a
            )  # fmt: skip

        def chance(z):
            return norm.cdf(z / width)

        assert found.square == pytest.approx(
            mean(lambda z: chance(z) * pull(np.sqrt(q) * z)[1] ** 2), rel=1e-8
        )
        assert found.loss == pytest.approx(
            mean(lambda z: chance(z) * value(pull(np.sqrt(q) * z)[0])), rel=1e-8, abs=1e-12
        )
        reach = np.sqrt(missing + delta)
        assert found.pull == pytest.approx(
            mean(lambda z: norm.pdf(z / width) / reach * pull(np.sqrt(q) * z)[1]), rel=1e-8
        )
        # Gaussian integration by parts: the derivative of f without differentiating it
        by_parts = mean(lambda z: pull(np.sqrt(q) * z)[1]
                        * (norm.pdf(z / width) / width - z * chance(z))) / np.sqrt(q)  # fmt: skip
        assert found.stiffness == pytest.approx(by_parts, rel=1e-7)

    def test_bayes_is_better_and_noise_hurts(self):
        alpha, delta = np.array([0.5, 2.0, 6.0]), np.array([[0.0], [0.3]])
        problem = sign_problem(alpha, 2.0, 0.3, delta)
        bayes = np.arccos(np.sqrt(solve(problem).q / (1 + delta))) / np.pi
        for loss in ("squared", "logistic", "hinge"):
            error = np.min([nuclear_norm(problem, lam=x, loss=loss).label_error
                            for x in np.geomspace(0.02, 0.5, 12)], axis=0)  # fmt: skip
            assert np.all(error > bayes) and np.all(error < 0.4)
            assert np.all(error[1] > error[0]) and np.all(np.diff(error) < 0)

    def test_large_penalties_and_the_whole_range(self):
        none = nuclear_norm(sign_problem(0.5, 2.0, 0.5), lam=50.0, loss="hinge")
        assert (none.norm, none.label_error, none.train_loss) == (0.0, 0.5, 1.0)
        assert np.isnan(none.cosine) and none.status is Status.CONVERGED
        rng = np.random.default_rng(2)
        alpha, beta, rho = (10 ** rng.uniform(*r, 100) for r in ((-1.5, 1.5), (0, 2), (-2, 1)))
        delta, lam = 10 ** rng.uniform(-3, 1, 100), 10 ** rng.uniform(-3, 0.5, 100)
        delta[::2] = 0.0
        for loss in ("logistic", "hinge"):
            point = nuclear_norm(sign_problem(alpha, beta, rho, delta), lam=lam, loss=loss)
            assert np.all(point.status == Status.CONVERGED) and np.max(point.residual) < 1e-9

    def test_bad_input(self):
        problem = sign_problem(0.5, 2.0, [0.5, np.nan])
        for lam in (0.0, "optimal"):
            with pytest.raises(ValueError, match="lam must be"):
                nuclear_norm(problem, lam=lam)
        with pytest.raises(ValueError, match="channel must be a SignChannel"):
            nuclear_norm(bilinear_regression(0.5, 2.0, 0.5), lam=0.1, loss="hinge")
        with pytest.raises(ValueError, match="loss must be one of squared, logistic, hinge"):
            nuclear_norm(problem, lam=0.1, loss="exponential")
        with pytest.raises(ValueError, match="channel must be a GaussianChannel"):
            ridge(sign_problem(0.5, 2.0, 0.5))
        found = nuclear_norm(problem, lam=0.1, loss="hinge", on_failure="return")
        assert found.status.tolist() == [0, 11] and np.isnan(found.label_error[1])

    @pytest.mark.slow
    def test_hinge_loss_minimised(self):
        """Support vector machines on matrices, solved by a conic solver."""
        cp = pytest.importorskip("cvxpy")
        problem, lam = sign_problem(1.0, 1.0, 0.25), 0.15
        theory = nuclear_norm(problem, lam=lam, loss="hinge")
        seen = []
        for seed in range(8):
            data = problem.sample(20, rng=seed)
            d1, d2 = data.S.shape
            S = cp.Variable((d1, d2))
            X = np.asarray(data.X).reshape(-1, d1 * d2) / np.sqrt(d1 * d2)
            margin = cp.multiply(data.y, X @ cp.vec(S, order="C"))
            cost = cp.sum(cp.pos(1 - margin)) + lam * np.sqrt(d2) * cp.normNuc(S)
            cp.Problem(cp.Minimize(cost)).solve(solver="CLARABEL")
            cosine = np.sum(S.value * data.S) / np.linalg.norm(S.value) / np.linalg.norm(data.S)
            loss = np.mean(np.maximum(0.0, 1 - margin.value))
            seen.append([cosine, np.mean(S.value**2), loss])
        mean, error = np.mean(seen, 0), np.std(seen, 0, ddof=1) / np.sqrt(8)
        exact = np.array([theory.cosine, theory.norm, theory.train_loss])
        assert np.all(np.abs(mean - exact) < 3 * error + 0.02 * exact), (mean, error, exact)


# --- any singular values ------------------------------------------------------------------------


class TwoAtoms:
    """Thresholding of ``S + sqrt(s) Z`` for S of two singular values, on the real axis.

    The equation of Dozier and Silverstein is a polynomial of degree 5, solved at every node;
    pieces end at the edges, found by bisection, and at tau.
    """

    def __init__(self, places, masses, beta, s):
        self.squares, self.masses = np.square(places), np.array(masses)
        self.c, self.s = 1 / beta, s
        top = (np.sqrt(np.max(self.squares)) + np.sqrt(s) * (1 + np.sqrt(self.c))) ** 2 * 1.01
        grid = np.concatenate([np.geomspace(1e-7 * top, top, 1500), np.linspace(0, top, 3000)[1:]])
        grid.sort()
        inside = self.transform(grid).imag > 1e-6
        ends = [0.0] if inside[0] else []
        for k in np.flatnonzero(inside[1:] != inside[:-1]):
            lo, hi = grid[k], grid[k + 1]
            for _ in range(60):
                w = 0.5 * (lo + hi)
                same = (self.transform(np.array([w])).imag[0] > 1e-6) == inside[k]
                lo, hi = (w, hi) if same else (lo, w)
            ends.append(0.5 * (lo + hi))
        self.bulks = np.sqrt(np.reshape(ends, (-1, 2)))

    def transform(self, w):
        """Return ``int rho_W/(x - w)``, of the roots that with the largest imaginary part."""
        s, c, (l1, l2), (p1, p2) = self.s, self.c, self.squares, self.masses
        k, one = s * (1 - c), np.ones_like(w)
        # coefficients of (e - 1) q1 q2 - s c e (p1 q2 + p2 q1), q = l + k e - w e^2, highest first
        product = [w * w, -2 * w * k, k * k - w * (l1 + l2), k * (l1 + l2) * one, l1 * l2 * one]
        left = np.array([*product, 0 * w]) - np.array([0 * w, *product])
        left[2:5] -= s * c * np.array([-w, k * one, (p1 * l2 + p2 * l1) * one])
        companion = np.zeros((w.size, 5, 5))
        companion[:, np.arange(1, 5), np.arange(4)] = 1.0
        companion[:, 0] = (-left[1:] / left[0]).T
        m = (np.linalg.eigvals(companion) - 1) / (s * c)
        return m[np.arange(w.size), np.argmax(m.imag, axis=1)]

    def rule(self, tau, nodes):
        """Return y, h(y) and weights of ``int rho``, with tau among the ends of pieces."""
        x, weights = np.polynomial.legendre.leggauss(nodes)
        x, weights = 0.25 * np.pi * (x + 1), 0.25 * np.pi * weights
        parts = []
        for lo, hi in self.bulks:
            ends = [lo, tau, hi] if lo < tau < hi else [lo, hi]
            for a, b in itertools.pairwise(ends):
                y = a + (b - a) * np.sin(x) ** 2
                m = self.transform(y * y)
                h = (1 - self.c) / y - 2 * self.c * y * m.real
                parts.append((y, h, 2 * y * m.imag / np.pi * (b - a) * np.sin(2 * x) * weights))
        return np.hstack(parts)

    def threshold(self, tau, *, hard=False):
        """Return what the functions of the same names do, and int rho h over y > tau."""
        for nodes in (150, 600, 2400):  # many where two bulks are about to part
            y, h, weights = self.rule(tau, nodes)
            if abs(weights.sum() - 1) < 1e-12:
                break
        assert abs(weights @ (y * h) - 1) < 1e-12
        f = np.where(y > tau, y if hard else y - tau, 0.0)
        overlap, norm = weights @ (f * (y - self.s * h)), weights @ f**2
        exact = {"mse": self.masses @ self.squares - 2 * overlap + norm, "overlap": overlap,
                 "norm": norm, "rank": weights @ (y > tau), "nuclear_norm": weights @ f,
                 "divergence": weights @ (f * h)}  # fmt: skip
        return exact, weights @ (h * (y > tau))


def atoms_prior(places, masses, beta):
    return RotationallyInvariantPrior(Measure.from_atoms(places, masses), beta)


FIELDS = ("mse", "overlap", "norm", "rank", "nuclear_norm", "train_loss", "effective_noise",
          "threshold", "lam")  # fmt: skip
# singular values, their masses, beta, s, tau: gaps, zeros, a hard edge, tau in and off the bulks
ATOMS = [
    ((0.5, 2.0), (0.6, 0.4), 2.0, 0.05, 0.6),
    ((0.5, 2.0), (0.6, 0.4), 1.0, 0.3, 1.2),
    ((0.0, 1.5), (0.7, 0.3), 1.5, 0.2, 0.9),
    ((0.0, 1.5), (0.7, 0.3), 1.0, 0.02, 0.2),
    ((0.5, 2.0), (0.6, 0.4), 5.0, 2.0, 2.4),
]


class TestAnySingularValues:
    def compare(self, beta, rho, alpha, delta, lam):
        exact = GaussianFactorPrior(beta, rho)
        prior = RotationallyInvariantPrior(exact.law(0.0), beta)
        found, expected = (
            nuclear_norm(Problem(p, GaussianChannel(delta), alpha), lam=lam) for p in (prior, exact)
        )
        assert np.array_equal(found.status, expected.status)
        for name in FIELDS:
            # the training loss of the best penalty is a difference, tiny without noise
            atol = 1e-13 if name in ("train_loss", "lam") else 0.0
            assert_allclose(
                getattr(found, name), getattr(expected, name), rtol=5e-12, atol=atol, err_msg=name
            )

    @pytest.mark.parametrize("lam", [0.0, 0.3, "optimal"])
    @pytest.mark.parametrize(
        ("beta", "rho", "delta"),
        [(1.0, 0.05, 0.1), (2.0, 0.3, 0.0), (10.0, 1.0, 0.1), (1.0, 2.0, 0.0)],
    )
    def test_gaussian_factors_from_their_density(self, beta, rho, delta, lam):
        self.compare(beta, rho, np.array([0.2, 0.9]), delta, lam)

    @pytest.mark.slow
    @pytest.mark.parametrize("lam", [0.0, 0.01, 1.0, "optimal"])
    @pytest.mark.parametrize("delta", [0.0, 0.1])
    @pytest.mark.parametrize("rho", [0.05, 0.3, 1.0, 2.0])
    @pytest.mark.parametrize("beta", [1.0, 2.0, 10.0])
    def test_gaussian_factors_everywhere(self, beta, rho, delta, lam):
        self.compare(beta, rho, np.array([0.02, 0.2, 0.55, 0.95, 1.5]), delta, lam)

    @pytest.mark.parametrize("hard", [False, True])
    @pytest.mark.parametrize(("places", "masses", "beta", "s", "tau"), ATOMS)
    def test_thresholding_two_singular_values(self, places, masses, beta, s, tau, hard):
        exact, _ = TwoAtoms(places, masses, beta, s).threshold(tau, hard=hard)
        found = (hard_threshold if hard else soft_threshold)(
            atoms_prior(places, masses, beta), s, tau
        )
        assert found.threshold == tau
        for name, value in exact.items():
            assert getattr(found, name) == pytest.approx(value, rel=2e-12), name

    @pytest.mark.parametrize("lam", [0.0, 0.2, "optimal"])
    @pytest.mark.parametrize(("places", "masses", "beta", "s", "tau"), ATOMS[:4])
    def test_regression_on_two_singular_values(self, places, masses, beta, s, tau, lam):
        alpha, delta = 0.4, 0.1
        problem = Problem(atoms_prior(places, masses, beta), GaussianChannel(delta), alpha)
        point = nuclear_norm(problem, lam=lam)
        s, tau = point.effective_noise, point.threshold
        exact, hilbert = TwoAtoms(places, masses, beta, s).threshold(tau)
        assert alpha * s == pytest.approx(delta + exact["mse"], rel=2e-11)
        free = alpha - exact["divergence"]
        assert tau * free == pytest.approx(point.lam, rel=1e-10, abs=1e-12)
        if lam == "optimal":
            assert tau * exact["rank"] == pytest.approx(s * hilbert, rel=1e-10)
        for name in ("mse", "overlap", "norm", "rank", "nuclear_norm"):
            assert getattr(point, name) == pytest.approx(exact[name], rel=1e-11)
        train = (delta + exact["mse"]) * (free / alpha) ** 2
        assert point.train_loss == pytest.approx(train, rel=1e-10, abs=1e-12)

    @pytest.mark.parametrize("s", [1e-3, 0.4, 50.0])
    def test_gaussian_entries(self, s):
        """A quarter circle with noise is a larger one: everything is elementary."""
        law = GaussianFactorPrior(1.0, INF).law(0.0)
        a = np.array([1e-3, 0.3, 1.0, 1.9, 1.9999])
        found = soft_threshold(RotationallyInvariantPrior(law, 1.0), s, a * np.sqrt(1 + s))
        angle = np.arcsin(a / 2)
        rank = 2 / np.pi * (np.pi / 2 - angle - np.sin(2 * angle) / 2)
        first = (4 - a * a) ** 1.5 / (3 * np.pi)
        second = 2 / np.pi * (np.pi / 2 - angle + np.sin(4 * angle) / 4)
        divergence, norm = second - a * first, (1 + s) * (second - 2 * a * first + a * a * rank)
        for name, value in (
            ("rank", rank), ("nuclear_norm", np.sqrt(1 + s) * (first - a * rank)),
            ("divergence", divergence), ("overlap", divergence), ("norm", norm),
            ("mse", 1 - 2 * divergence + norm),
        ):  # fmt: skip
            atol = 1e-14 * (1 + s)  # of the differences above
            assert_allclose(getattr(found, name), value, rtol=1e-11, atol=atol, err_msg=name)

    @pytest.mark.parametrize("s", [1e-9, 0.02, 3.0])
    def test_many_columns(self, s):
        """beta = inf: y^2 = sigma^2 + s and h = 1/y, with atoms inside of a density too."""
        measure = Measure.from_density(
            lambda x: np.full_like(x, 0.4), [(0.0, 1.5)], [(0.0, 0.1), (0.7, 0.1), (2.0, 0.2)]
        )
        prior = RotationallyInvariantPrior(measure, INF)

        def mean(f, tau):
            total = sum(m * f(np.sqrt(x * x + s)) for x, m in ((0.0, 0.1), (0.7, 0.1), (2.0, 0.2)))
            kink = np.sqrt(max(tau * tau - s, 0.0))
            ends = np.unique([0.0, *np.minimum([np.sqrt(s), 9 * np.sqrt(s), kink], 1.5), 1.5])
            return total + 0.4 * sum(
                quad(lambda x: f(np.sqrt(x * x + s)), a, b, epsabs=1e-14, epsrel=1e-12)[0]
                for a, b in itertools.pairwise(ends)
            )

        for tau in (0.6 * np.sqrt(s), 1.3 * np.sqrt(s), 0.6, 1.8):
            found = soft_threshold(prior, s, tau)
            divergence = mean(lambda y, tau=tau: max(1 - tau / y, 0.0), tau)
            clipped = mean(lambda y, tau=tau: min(y, tau) ** 2, tau)
            error = clipped - s + 2 * s * divergence
            assert found.divergence == pytest.approx(divergence, rel=1e-10)
            assert found.mse == pytest.approx(error, rel=1e-10)
            hard = hard_threshold(prior, s, tau)
            kept = mean(lambda y, tau=tau: (y > tau) * y * (y - s / y), tau)
            assert hard.overlap == pytest.approx(kept, rel=1e-9, abs=1e-14)
        for kind in (soft_threshold, hard_threshold):
            best, others = kind(prior, s), kind(prior, s, np.linspace(0.0, 2.2, 300))
            assert np.all(others.mse >= best.mse * (1 - 1e-12))

    @pytest.mark.parametrize("lam", [0.0, "optimal"])
    @pytest.mark.parametrize("beta", [1.0, 2.0, INF])
    def test_perfect_recovery_depends_on_the_rank_alone(self, beta, lam):
        flat = Measure.from_density(lambda x: np.full_like(x, 0.3), [(1.0, 2.0)], [(0.0, 0.7)])
        star = nuclear_norm_threshold(0.3, beta)
        for prior in (
            RotationallyInvariantPrior(flat, beta),
            atoms_prior((0.0, 1.0), (0.7, 0.3), beta),
        ):
            assert prior.rank == pytest.approx(0.3, rel=1e-14)
            alpha = star * (1 + np.array([-1e-9, -1e-12, 1e-12, 1e-9]))
            point = nuclear_norm(Problem(prior, GaussianChannel(), alpha), lam=lam)
            assert list(point.status) == [0, 0, 1, 1]
            assert np.all(point.mse[:2] > 0) and np.all(point.mse[2:] == 0.0)
            assert_allclose(point.mse[0] / point.mse[1], 1e6, rtol=2e-3)
            assert_allclose(point.overlap[2], prior.second_moment, rtol=1e-14)
            points, masses = prior.measure.rule()
            assert_allclose(point.nuclear_norm[2], masses @ points, rtol=1e-13)
            assert_allclose(point.rank[2], 0.3, rtol=1e-14)
        # full rank
        full = Problem(
            atoms_prior((0.5, 1.0), (0.7, 0.3), beta), GaussianChannel(), [1 - 1e-9, 1.0]
        )
        assert nuclear_norm(full, lam=lam).status.tolist() == [0, 1]

    @pytest.mark.parametrize("lam", [0.0, "optimal"])
    @pytest.mark.parametrize(("beta", "rank"), [(1.0, 0.2), (2.0, 0.7), (INF, 0.5)])
    def test_the_error_vanishes_quadratically(self, beta, rank, lam):
        """With the constant of `TestAsymptotics`, for r equal singular values in closed form."""
        prior = RotationallyInvariantPrior(
            Measure.from_atoms([0.0, 1.0], [1 - rank, rank]), beta, normalize=True
        )
        star, c, sigma = nuclear_norm_threshold(rank, beta), 1 / beta, rank**-0.5
        # int rho h over the signal: zeros repel it from below, and its mirror image from there
        H = rank / sigma * ((1 - c) + c * rank / 2 + 2 * c * (1 - rank))
        cut = 1 - rank
        if beta < INF:
            cut = estimators.recovery(beta, rank)[2]
        scale = star / (2 * cut * np.sqrt(1 - rank / beta) * H) ** 2
        for distance, rtol in ((1e-5, 1e-3), (1e-8, 1e-6)):
            alpha = star - distance
            point = nuclear_norm(Problem(prior, GaussianChannel(), alpha), lam=lam)
            assert point.mse == pytest.approx(scale * (star - alpha) ** 2, rel=rtol)

    def test_units(self):
        """S and labels c times as large: errors c^2, thresholds and penalties c times."""
        alpha, c = np.array([0.3, 1.4]), 3.0
        small = atoms_prior((0.2, 1.0), (0.5, 0.5), 2.0)
        large = atoms_prior((0.6, 3.0), (0.5, 0.5), 2.0)
        powers = dict.fromkeys(FIELDS, 2) | {
            "rank": 0, "nuclear_norm": 1, "threshold": 1, "lam": 1
        }  # fmt: skip
        for lam, other in ((0.1, 0.3), ("optimal", "optimal"), (0.0, 0.0)):
            a = nuclear_norm(Problem(small, GaussianChannel(0.1), alpha), lam=lam)
            b = nuclear_norm(Problem(large, GaussianChannel(0.9), alpha), lam=other)
            for name in FIELDS:
                expected = getattr(a, name) * c ** powers[name]
                assert_allclose(getattr(b, name), expected, rtol=1e-11, atol=1e-15, err_msg=name)
            assert_allclose(
                b.mse, large.second_moment - 2 * b.overlap + b.norm, rtol=1e-10, atol=1e-13
            )
        a, b = soft_threshold(small, 0.1), soft_threshold(large, 0.9)
        assert b.threshold == pytest.approx(c * a.threshold) and b.rank == pytest.approx(a.rank)
        assert b.mse == pytest.approx(c * c * a.mse)
        assert b.divergence == pytest.approx(a.divergence)

    @pytest.mark.parametrize("lam", [0.0, 0.2, "optimal"])
    def test_ridge(self, lam):
        """The variance of the entries sets the scale of noise; singular values do not matter."""
        prior, alpha = atoms_prior((0.6, 3.0), (0.5, 0.5), 2.0), np.array([0.4, 1.6])
        v = prior.second_moment
        point = ridge(Problem(prior, GaussianChannel(0.3), alpha), lam=lam)
        penalty = 0.3 / v if lam == "optimal" else lam
        assert_allclose(point.lam, penalty, rtol=1e-14)
        assert_allclose(point.mse, v * limits.ridge_mse(alpha, 0.3 / v, penalty), rtol=1e-12)
        assert_allclose(point.mse, v - 2 * point.overlap + point.norm, rtol=1e-12)
        train = v * limits.ridge_train_loss(alpha, 0.3 / v, penalty)
        assert_allclose(point.train_loss, train, rtol=1e-12)
        rules = [prior.law(float(s)).quadrature() for s in point.effective_noise]
        mean = np.array([rule.weights @ rule.y for rule in rules])
        assert_allclose(point.nuclear_norm, mean / (1 + point.threshold), rtol=1e-11)

    @pytest.mark.parametrize("loss", ["squared", "logistic", "hinge"])
    def test_classification(self, loss):
        exact = GaussianFactorPrior(2.0, 0.4)
        prior = RotationallyInvariantPrior(exact.law(0.0), 2.0)
        found, expected = (
            nuclear_norm(Problem(p, SignChannel(0.1), 1.5), lam=0.1, loss=loss)
            for p in (prior, exact)
        )
        for name in (*FIELDS, "cosine", "label_error"):
            assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-10), name
        wide = RotationallyInvariantPrior([1.0, 3.0], 2.0)
        with pytest.raises(ValueError, match="second_moment of the prior must be 1"):
            nuclear_norm(Problem(wide, SignChannel(0.1), 1.5), lam=0.1, loss=loss)

    @given(st.lists(st.tuples(positive(0.03, 10), positive(0.01, 1)), min_size=1, max_size=4),
           st.sampled_from([1.0, 1.3, 4.0, INF]), positive(1e-4, 1e2), st.booleans())  # fmt: skip
    @settings(max_examples=25)
    def test_best_thresholds_of_few_singular_values(self, atoms, beta, s, zeros):
        places, masses = (np.array(x) for x in zip(*atoms, strict=True))
        if zeros:
            places, masses = np.append(places, 0.0), np.append(masses, 0.5)
        prior = RotationallyInvariantPrior(
            Measure.from_atoms(places, masses / masses.sum()), beta, normalize=True
        )
        top = prior.measure.support[1] + 2.1 * np.sqrt(s)
        tau = np.linspace(0.0, top, 40)
        for kind in (soft_threshold, hard_threshold):
            best, others = kind(prior, s), kind(prior, s, tau)
            assert np.all(others.mse >= best.mse * (1 - 1e-10))
            assert prior.mmse(s) * (1 - 1e-9) <= best.mse <= min(1.0, s) * (1 + 1e-12)
            assert_allclose(others.mse, 1 - 2 * others.overlap + others.norm, atol=1e-11 * (1 + s))
            assert np.all(np.diff(others.rank) <= 1e-14)

    def test_special_noises(self):
        prior = atoms_prior((0.0, 0.5, 2.0), (0.2, 0.4, 0.4), 2.0)
        soft = soft_threshold(prior, 0.0, [0.0, 0.2, 1.0, 3.0])
        assert_allclose(soft.mse, [0.0, 0.8 * 0.04, 0.1 + 0.4, 1.7], rtol=1e-9, atol=1e-15)
        assert_allclose(soft.rank, [1.0, 0.8, 0.4, 0.0], atol=1e-14)
        # without noise singular values repel as 1/(x^2 - y^2): finite matrices, without that
        # within groups, which cancels
        c, m, x = 0.5, (0.2, 0.4, 0.4), (0.0, 0.5, 2.0)
        for tau, value in ((0.2, soft.divergence[1]), (1.0, soft.divergence[2])):
            total = 0.0
            for p, y in zip(m, x, strict=True):
                f = max(y - tau, 0.0)
                total += p * (1 - c) * f / y if y else 0.0
                for q, z in zip(m, x, strict=True):
                    g = max(z - tau, 0.0)
                    quotient = (y * f - z * g) / (y * y - z * z) if y != z else (
                        0.5 * ((y > tau) + f / y) if y else 0.0)  # fmt: skip
                    total += c * p * q * quotient
            assert value == pytest.approx(total, rel=1e-6)
        assert soft_threshold(prior, INF).mse == pytest.approx(prior.second_moment, rel=1e-14)
        assert soft_threshold(prior, 0.3, INF).mse == pytest.approx(1.7, rel=1e-14)
        assert soft_threshold(prior, 0.3, 0.0).mse == pytest.approx(0.3, rel=1e-13)

    def test_arrays_and_refusals(self):
        prior = atoms_prior((0.5, 2.0), (0.6, 0.4), 2.0)
        problem = Problem(prior, GaussianChannel([[0.1], [-1.0]]), [0.3, np.nan, 0.9])
        found = nuclear_norm(problem, on_failure="return")
        assert found.status.tolist() == [[0, 11, 0], [11, 11, 11]]
        assert np.array_equal(np.isnan(found.mse), found.status == 11)
        assert ridge(problem, on_failure="return").status.tolist() == found.status.tolist()
        one = nuclear_norm(Problem(prior, GaussianChannel(0.1), 0.9))
        assert found.mse[0, 2] == one.mse
        assert np.isnan(soft_threshold(prior, [0.5, np.nan]).mse).tolist() == [False, True]
        refusal = pytest.raises(ValueError, match="prior must be a GaussianFactorPrior or a Rotati")
        with refusal:
            nuclear_norm(Problem(LowRankFactorPrior(2.0), GaussianChannel(0.1), 0.5))
        for other in (
            SymmetricPrior([-1.0, 1.0]),  # its noise is symmetric, too
            SymmetricFactorPrior(0.5),
            LowRankFactorPrior(2.0),
        ):
            with refusal:
                soft_threshold(other, 0.5)

    @pytest.mark.parametrize("lam", [0.0, 0.1, "optimal"])
    def test_symmetric_signals(self, lam):
        """Over all matrices the absolute eigenvalues are all that counts."""
        two_signs = Measure.from_density(
            lambda x: np.where(x > 0.0, 0.2, 0.6), [(-1.0, 0.0), (0.0, 1.0)], [(-2.0, 0.2)]
        )
        one_sign = Measure.from_density(lambda x: np.full_like(x, 0.8), [(0.0, 1.0)], [(2.0, 0.2)])
        wide = SymmetricFactorPrior(0.5)
        moments = [without_symmetry(wide).measure.moment(k) * 0.5 ** (k / 2) for k in (1, 2, 3)]
        assert moments == pytest.approx([0.5, 0.75, 1.375], rel=1e-9)  # Marchenko-Pastur
        for prior, known in (
            (
                SymmetricPrior([-1.0, -0.5, 0.0, 0.5]),
                atoms_prior((0, 0.5, 1), (0.25, 0.5, 0.25), 1.0),
            ),
            (SymmetricPrior(two_signs), RotationallyInvariantPrior(one_sign, 1.0)),
            (wide, without_symmetry(wide)),
        ):
            assert known.second_moment == pytest.approx(prior.second_moment, rel=1e-12)
            for alpha in (0.3, 0.9):
                channel = GaussianChannel(0.05)
                for kind in (nuclear_norm, ridge):
                    found = kind(Problem(prior, channel, alpha), lam=lam)
                    wanted = kind(Problem(known, channel, alpha), lam=lam)
                    for name in ("mse", "rank", "nuclear_norm", "train_loss"):
                        value = getattr(wanted, name)
                        assert getattr(found, name) == pytest.approx(value, rel=1e-9), name
        with pytest.raises(
            ValueError, match=r"parameters of the prior must be scalars here, got shape \(2,\)"
        ):
            nuclear_norm(Problem(SymmetricFactorPrior([0.5, 1.0]), GaussianChannel(0.1), 0.3))

    @pytest.mark.slow
    @pytest.mark.parametrize("lam", [0.0, 0.1])
    @pytest.mark.parametrize(
        "prior",
        [
            RotationallyInvariantPrior([0.0, 0.0, 0.5, 1.5], 1.0, normalize=True),
            SymmetricPrior([-1.5, 0.0, 0.0, 0.5], normalize=True),
        ],
    )
    def test_the_convex_program(self, prior, lam):
        """The minimiser at finite size, to a bias of order 1/d; symmetric S, too."""
        for alpha in (0.3, 0.6):
            problem = Problem(prior, GaussianChannel(0.05), alpha)
            theory = nuclear_norm(problem, lam=lam)
            runs = [nuclear_norm_run(problem.sample(40, rng=k), lam) for k in range(24)]
            for name in ("mse", "overlap", "rank", "train_loss", "nuclear_norm"):
                values = [np.atleast_1d(getattr(run, name))[-1] for run in runs]
                exact = getattr(theory, name)
                error = np.std(values, ddof=1) / np.sqrt(len(runs))
                away = abs(np.mean(values) - exact)
                assert away < 3.5 * error + 0.005 * exact + 1e-12, (name, alpha)


# --- finite matrices ----------------------------------------------------------------------------


def _divergence(sigma, f, slope, d1, d2):
    """Divergence of a spectral function (Candes, Sing-Long, Trzasko)."""
    top = sigma[:, None] * f[:, None] - sigma[None, :] * f[None, :]
    bottom = sigma[:, None] ** 2 - sigma[None, :] ** 2
    np.fill_diagonal(bottom, np.inf)
    return (slope.sum() + (d2 - d1) * (f / sigma).sum() + (top / bottom).sum()) / (d1 * d2)


@pytest.mark.parametrize("kind", [soft_threshold, hard_threshold])
@pytest.mark.parametrize(
    ("prior", "s"),
    [
        (GaussianFactorPrior(2.0, 0.2), 0.6),
        (GaussianFactorPrior(1.0, 0.5), 0.05),
        (RotationallyInvariantPrior([0.0, 0.5, 2.0], 1.5, normalize=True), 0.1),
    ],
    ids=repr,
)
def test_finite_matrices(kind, prior, s):
    rng, d1 = np.random.default_rng(7), 300
    theory = kind(prior, s, 0.9 * soft_threshold(prior, s).threshold)
    tau = theory.threshold
    seen = []
    for _ in range(6):
        S = prior.sample(d1, rng=rng)
        # without the largest of the fluctuations
        S /= np.sqrt(np.mean(S**2))
        Z = rng.standard_normal(S.shape)
        Z -= np.mean(S * Z) * S
        Z /= np.sqrt(np.mean(Z**2))
        d2 = S.shape[1]
        left, sigma, right = np.linalg.svd(S + np.sqrt(s) * Z, full_matrices=False)
        y = sigma / np.sqrt(d2)
        keep = y > tau
        f = np.where(keep, y - tau if kind is soft_threshold else y, 0.0)
        estimate = (left * f) @ right * np.sqrt(d2)
        slope = keep.astype(float)
        seen.append([
            np.mean((estimate - S) ** 2), np.mean(estimate * S), np.mean(estimate**2),
            keep.mean(), f.mean(), _divergence(y, f, slope, d1, d2),
        ])  # fmt: skip
    mean, error = np.mean(seen, 0), np.std(seen, 0, ddof=1) / np.sqrt(6)
    exact = [theory.mse, theory.overlap, theory.norm, theory.rank, theory.nuclear_norm,
             theory.divergence]  # fmt: skip
    assert_allclose(mean, exact, rtol=4e-3)
    assert np.all(np.abs(mean - exact) < 4.0 * error + 2e-3 * np.abs(exact))


class TestFactorisedProblem:
    """Weight decay on the factors is the nuclear norm, with an exact constant."""

    def setup_method(self):
        rng = np.random.default_rng(3)
        self.d1, self.d2, r, n = 10, 15, 3, 90
        S = rng.standard_normal((self.d1, r)) @ rng.standard_normal((r, self.d2)) / np.sqrt(r)
        self.X = rng.standard_normal((n, self.d1 * self.d2)) / np.sqrt(self.d1 * self.d2)
        self.y = self.X @ S.ravel() + 0.3 * rng.standard_normal(n)
        self.lam = 0.15

    def nuclear_solution(self):
        """Minimise by accelerated proximal steps on the singular values."""
        weight, L = self.lam * np.sqrt(self.d2), np.linalg.norm(self.X, 2) ** 2
        x = z = np.zeros((self.d1, self.d2))
        t = 1.0
        for _ in range(6000):
            gradient = (self.X.T @ (self.X @ z.ravel() - self.y)).reshape(z.shape)
            u, sigma, vt = np.linalg.svd(z - gradient / L, full_matrices=False)
            new = (u * np.maximum(sigma - weight / L, 0.0)) @ vt
            if np.sum((z - new) * (new - x)) > 0:  # restart
                t = 1.0
            t_new = (1 + np.sqrt(1 + 4 * t * t)) / 2
            z, x, t = new + (t - 1) / t_new * (new - x), new, t_new
        loss = 0.5 * np.sum((self.X @ x.ravel() - self.y) ** 2)
        return x, loss + weight * np.linalg.norm(x, "nuc")

    def train_factors(self, k, decay, rng):
        """Minimise over U (d1, k) and V (k, d2), S = U V/sqrt(k)."""
        cut = self.d1 * k

        def loss(x):
            U, V = x[:cut].reshape(self.d1, k), x[cut:].reshape(k, self.d2)
            miss = self.X @ (U @ V).ravel() / np.sqrt(k) - self.y
            G = (self.X.T @ miss).reshape(self.d1, self.d2) / np.sqrt(k)
            gradient = np.concatenate([(G @ V.T).ravel(), (U.T @ G).ravel()]) + decay * x
            return 0.5 * miss @ miss + 0.5 * decay * x @ x, gradient

        found = minimize(
            loss, rng.standard_normal(cut + k * self.d2), jac=True, method="L-BFGS-B",
            options={"maxiter": 20000, "maxfun": 20000, "ftol": 1e-16, "gtol": 1e-9},
        )  # fmt: skip
        U, V = found.x[:cut].reshape(self.d1, k), found.x[cut:].reshape(k, self.d2)
        return U, V, found.fun

    def test_same_minimum(self):
        S, value = self.nuclear_solution()
        rank = int(np.sum(np.linalg.svd(S, compute_uv=False) > 1e-6))
        assert 1 < rank < self.d1
        rng = np.random.default_rng(0)
        for k in (self.d1, rank):
            U, V, trained = self.train_factors(k, self.lam * np.sqrt(self.d2 / k), rng)
            assert trained == pytest.approx(value, rel=1e-9)
            assert_allclose(U @ V / np.sqrt(k), S, atol=2e-4 * np.abs(S).max())
            assert_allclose(U.T @ U, V @ V.T, atol=1e-3)  # balanced

    def test_other_constants_differ(self):
        _, value = self.nuclear_solution()
        rng = np.random.default_rng(0)
        k = self.d1
        for decay in (self.lam, self.lam * np.sqrt(self.d2)):
            assert abs(self.train_factors(k, decay, rng)[2] / value - 1) > 0.05
        # too narrow: a worse minimum
        narrow = self.train_factors(1, self.lam * np.sqrt(self.d2), rng)[2]
        assert narrow > value * 1.01


def test_the_oracle_of_this_file_agrees_with_the_other():
    """M(s) from the functionals of the threshold, against the reference of the Bayes error."""
    cut = highprec_erm.thresholded(2.0, 0.5, 0.1, 0.4, digits=12)
    best = highprec.mmse(2.0, 0.5, 0.1, digits=12)
    assert cut.other_error > best
    assert float(best) == pytest.approx(GaussianFactorPrior(2.0, 0.5).mmse(0.1), rel=1e-10)


@pytest.mark.parametrize("s", [1e20, 1e40, 1e150, 1e300, INF])
@pytest.mark.parametrize(
    "prior",
    [
        GaussianFactorPrior(2.0, 0.2),
        GaussianFactorPrior(1.5, INF),
        RotationallyInvariantPrior([0.5, 1.5], 2.0),
        RotationallyInvariantPrior([0.0, 0.3, 2.0], 1.0),
    ],
    ids=repr,
)
@pytest.mark.parametrize("kind", [soft_threshold, hard_threshold])
def test_thresholds_in_noise_that_drowns_everything(kind, prior, s):
    """Singular values are those of the noise then, of the law of Marchenko and Pastur."""
    c = 1.0 / prior.beta
    low, high = 1.0 - np.sqrt(c), 1.0 + np.sqrt(c)
    cut = 0.9

    def mean(f):
        ends = np.arcsin(np.sqrt((np.array([max(cut, low), high]) - low) / (high - low)))
        return quad(
            lambda x: f(y := low + (high - low) * np.sin(x) ** 2)
            * np.sqrt((high + y) * (y + low)) * (high - low) ** 2 * np.sin(2 * x) ** 2
            / (2 * np.pi * c * y), *ends, epsabs=1e-13,
        )[0]  # fmt: skip

    scale = s if s < INF else 1.0
    found = kind(prior, s, cut * np.sqrt(scale) if s < INF else INF)
    kept = (lambda y: y - cut) if kind is soft_threshold else (lambda y: y)
    if s == INF:
        assert (found.mse, found.rank, found.overlap) == (prior.second_moment, 0.0, 0.0)
        everything = kind(prior, s, 1.0)
        assert (everything.mse, everything.norm, everything.nuclear_norm) == (INF, INF, INF)
        assert everything.rank == pytest.approx(1.0, rel=1e-12)
        assert everything.overlap == pytest.approx(prior.second_moment, rel=1e-12)
    else:
        assert found.rank == pytest.approx(mean(lambda y: 1.0), rel=1e-9)
        assert found.norm / s == pytest.approx(mean(lambda y: kept(y) ** 2), rel=1e-9)
        assert found.mse / s == pytest.approx(mean(lambda y: kept(y) ** 2), rel=1e-9)
        assert found.nuclear_norm / np.sqrt(s) == pytest.approx(mean(kept), rel=1e-9)
        wanted = mean(lambda y: kept(y) * y)
        assert found.divergence == pytest.approx(wanted, rel=1e-9)
        assert found.overlap == pytest.approx(wanted * prior.second_moment, rel=1e-9)
    best = kind(prior, s)
    assert best.mse == pytest.approx(prior.second_moment, rel=1e-12)
    if s < INF:
        assert best.threshold == pytest.approx(high * np.sqrt(s), rel=1e-6)
