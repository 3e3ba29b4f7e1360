"""The priors: mmse, overlap, information, denoiser, against references that share no code."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import highprec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from bsr_theory import GaussianFactorPrior, LowRankFactorPrior, SymmetricFactorPrior, limits
from bsr_theory.priors import Prior
from bsr_theory.spectra import GaussianFactorLaw, MarchenkoPasturLaw

DATA = Path(__file__).parent / "data"
INF = float("inf")


def reference_rows():
    rows = []
    for name in ("mmse.csv", "mmse_extreme.csv"):
        with (DATA / name).open() as file:
            reader = csv.DictReader(line for line in file if not line.startswith("#"))
            rows += [[float(row[k]) for k in ("beta", "rho", "s", "M", "I_S")] for row in reader]
    return np.array(rows).T


class TestAgainstReferences:
    def test_mmse_to_1e10(self):
        beta, rho, s, mmse, _ = reference_rows()
        prior = GaussianFactorPrior(beta, rho)
        np.testing.assert_allclose(prior.mmse(s), mmse, rtol=1e-10)
        assert beta.size > 150

    def test_information_to_1e9(self):
        beta, rho, s, _, information = reference_rows()
        prior = GaussianFactorPrior(beta, rho)
        np.testing.assert_allclose(prior.information(1 / s), information, rtol=1e-9)

    @pytest.mark.slow
    def test_random_parameters_to_1e10(self):
        rng = np.random.default_rng(12)
        for _ in range(150):
            beta = float(10 ** rng.uniform(0, 4)) if rng.random() < 0.8 else 1.0
            rho = float(10 ** rng.uniform(-3, 2)) if rng.random() < 0.9 else 1.0
            s = float(10 ** rng.uniform(-8, 6))
            exact = highprec.evaluate(beta, rho, s, digits=16)
            prior = GaussianFactorPrior(beta, rho)
            assert abs(prior.mmse(s) / float(exact.mmse) - 1) < 1e-10, (beta, rho, s)
            assert abs(prior.information(1 / s) / float(exact.information) - 1) < 1e-9, (
                beta,
                rho,
                s,
            )

    @pytest.mark.slow
    @pytest.mark.parametrize(("beta", "rho"), [(1.0, 0.5), (2.0, 0.5), (5.0, 0.9)])
    def test_through_the_closing_gap(self, beta, rho):
        critical = {(1.0, 0.5): 0.0664471131533, (2.0, 0.5): 0.160016712131059}.get(
            (beta, rho), 0.0131145434311
        )
        for shift in (-1e-2, -1e-4, -1e-7, 0.0, 1e-9, 1e-6, 1e-3):
            s = critical * (1 + shift)
            exact = highprec.evaluate(beta, rho, s, digits=14)
            prior = GaussianFactorPrior(beta, rho)
            assert prior.mmse(s) == pytest.approx(float(exact.mmse), rel=1e-10)


class TestIdentities:
    @given(st.floats(0, 4), st.floats(-3, 2), st.floats(-8, 6))
    def test_bounds_and_overlap(self, log_beta, log_rho, log_s):
        prior = GaussianFactorPrior(10**log_beta, 10**log_rho)
        s = 10**log_s
        mmse, overlap = prior.mmse(s), prior.overlap(s)
        assert 0 < mmse <= min(1.0, s)
        assert mmse + overlap == pytest.approx(1.0, abs=1e-12)
        assert mmse <= s / (1 + s) * (1 + 1e-12)  # the best linear estimator
        assert mmse <= prior.strong_recovery * s * (1 + 1e-12)

    @given(st.floats(0, 4), st.floats(-3, 2))
    def test_monotone_in_noise_and_in_width(self, log_beta, log_rho):
        prior = GaussianFactorPrior(10**log_beta, 10**log_rho)
        s = np.geomspace(1e-8, 1e6, 60)
        mmse = prior.mmse(s)
        assert np.all(np.diff(mmse) > 0)
        assert np.all(np.diff(mmse / s) < 1e-14)  # the linear channel has one fixed point
        wider = GaussianFactorPrior(10**log_beta, 2 * 10**log_rho).mmse(s)
        assert np.all(wider >= mmse * (1 - 1e-12))

    @pytest.mark.parametrize(
        ("beta", "rho", "s"),
        [(2, 0.5, 0.1), (1, 1, 0.3), (5, 0.2, 3), (1, 0.3, 0.02), (30, 4, 1), (1.5, 0.9, 0.05)],
    )
    def test_shrink_and_mmse_agree(self, beta, rho, s):
        # E shat^2 = overlap, E y shat = 1 (Nishimori), with the law's own quadrature
        prior = GaussianFactorPrior(beta, rho)
        law = prior.law(s)
        square = law.integrate(lambda y: prior.shrink(y, s) ** 2)
        assert square.value == pytest.approx(prior.overlap(s), abs=1e-11)
        # integration by parts: the identity function has divergence 1
        assert law.integrate(lambda y: y * law.hilbert(y)).value == pytest.approx(1.0, abs=1e-11)

    @pytest.mark.parametrize("beta", [1.0, 1.3, 20.0, 1e4, INF])
    @pytest.mark.parametrize("rho", [1e-3, 0.4, 1.0, 7.0, INF])
    def test_information_is_the_integral_of_mmse(self, beta, rho):
        prior = GaussianFactorPrior(beta, rho)
        for snr in (1e-5, 3e-3, 1.0, 40.0, 1e5, 1e7):
            # panels: where two bulks meet mmse is only C^2
            x, w = np.polynomial.legendre.leggauss(10)
            ends = np.linspace(snr, 1.7 * snr, 9)
            half = 0.5 * (ends[1] - ends[0])
            q = (ends[:-1, None] + half * (1 + x)).ravel()
            step = half * np.sum(np.tile(w, 8) * 0.5 * prior.mmse(1 / q))
            rise = prior.information(1.7 * snr) - prior.information(snr)
            assert rise == pytest.approx(step, rel=1e-9, abs=2e-15)

    def test_information_derivative_to_1e9(self):
        # Richardson with steps that rounding allows: three orders of snr, all kinds of law
        for beta, rho, snr in [(2, 0.5, 3.0), (1, 1, 1.0), (1, 0.2, 8.0), (50, 3, 0.4)]:
            prior = GaussianFactorPrior(beta, rho)
            h = 0.02 * snr
            d = [
                (prior.information(snr + k * h) - prior.information(snr - k * h)) / (2 * k * h)
                for k in (1, 2, 3)
            ]
            slope = 1.5 * d[0] - 0.6 * d[1] + 0.1 * d[2]
            assert slope == pytest.approx(0.5 * prior.mmse(1 / snr), rel=1e-9)

    def test_deficit_is_strong_recovery_minus_the_ratio(self):
        s = np.array([1e-3, 0.1, 1.0, 50.0])
        for beta in (1.0, 3.0, INF):
            for rho in (0.2, 0.9, 1.0, 2.0, INF):
                prior = GaussianFactorPrior(beta, rho)
                expected = prior.strong_recovery - prior.mmse(s) / s
                np.testing.assert_allclose(prior.deficit(s), expected, rtol=1e-9, atol=1e-13)

    @pytest.mark.parametrize(("beta", "rho"), [(1, 0.5), (2, 0.2), (5, 0.7), (1, 0.05)])
    def test_deficit_at_tiny_noise(self, beta, rho):
        # second coefficient of M = D s - c2 s^2 (closed forms of the expansion, 10 digits)
        c2 = {
            (1, 0.5): 0.343897286342,
            (2, 0.2): 0.0353419727,
            (5, 0.7): 1.3267053503,
            (1, 0.05): 0.0025645268,
        }[beta, rho]
        prior = GaussianFactorPrior(beta, rho)
        for s in (1e-7, 1e-9, 1e-15, 1e-25):
            assert prior.deficit(s) == pytest.approx(c2 * s, rel=1e-6)

    def test_strong_recovery_gap_is_exact(self):
        prior = GaussianFactorPrior(3.0, 0.3)
        exact = highprec.mpmath.mpf(0.3) * (1 + 3 - highprec.mpmath.mpf(0.3)) / 3
        alpha = float(exact) - 1e-15
        gap = prior.strong_recovery_gap(alpha)
        with highprec.mpmath.workdps(40):
            exact = highprec.mpmath.mpf(0.3) * (4 - highprec.mpmath.mpf(0.3)) / 3
            assert gap == pytest.approx(float(exact - highprec.mpmath.mpf(alpha)), rel=1e-15)


class TestLimits:
    s = np.geomspace(1e-8, 1e6, 29)

    def test_infinite_width_is_gaussian(self):
        exact = self.s / (1 + self.s)
        for beta in (1.0, 3.0, INF):
            np.testing.assert_array_equal(GaussianFactorPrior(beta, INF).mmse(self.s), exact)
            wide = GaussianFactorPrior(beta, 1e9).mmse(self.s)
            np.testing.assert_allclose(wide, exact, rtol=2e-9)

    @pytest.mark.parametrize("rho", [1e-3, 0.3, 1.0, 40.0])
    def test_infinite_aspect_ratio(self, rho):
        limit = GaussianFactorPrior(INF, rho)
        # the integral of l s/(l + s) over Marchenko-Pastur of A A^T/r, by quadrature
        law = MarchenkoPasturLaw(beta=INF, ratio=1 / rho)
        rule = law.quadrature(64)
        for s in (1e-3, 0.1, 2.0, 300.0):
            x = rule.y**2
            exact = np.sum(rule.weights * x * s / (x + s))
            assert limit.mmse(s) == pytest.approx(exact, rel=1e-11)
            information = 0.5 * np.sum(rule.weights * np.log1p(x / s))
            assert limit.information(1 / s) == pytest.approx(information, rel=1e-10)
        # not uniform: a noise of sqrt(beta) is where the columns' own noise begins to matter
        moderate = self.s[self.s < 100]
        close = GaussianFactorPrior(1e8, rho)
        np.testing.assert_allclose(close.mmse(moderate), limit.mmse(moderate), rtol=1e-5)
        np.testing.assert_allclose(limit.mmse(self.s) + limit.overlap(self.s), 1.0, atol=1e-15)

    def test_no_noise_and_no_signal(self):
        for prior in (
            GaussianFactorPrior(2, 0.5),
            GaussianFactorPrior(1, 3),
            LowRankFactorPrior(2),
        ):
            np.testing.assert_array_equal(prior.mmse([0.0, INF]), [0.0, 1.0])
            np.testing.assert_array_equal(prior.overlap([0.0, INF]), [1.0, 0.0])
            np.testing.assert_array_equal(prior.information([0.0, INF]), [0.0, INF])

    @pytest.mark.parametrize("beta", [1.0, 2.0, 50.0])
    def test_low_rank_is_the_limit(self, beta):
        scaled = np.array([0.01, 0.3, 0.8, 3.0]) * math.sqrt(beta)
        limit = LowRankFactorPrior(beta).mmse(scaled)
        for rho in (1e-3, 1e-4, 1e-5):
            error = np.max(np.abs(GaussianFactorPrior(beta, rho).mmse(scaled / rho) - limit))
            assert error < 30 * rho
        information = GaussianFactorPrior(beta, 1e-6).information(1e-6 / scaled) / 1e-6
        np.testing.assert_allclose(
            information, LowRankFactorPrior(beta).information(1 / scaled), rtol=2e-4
        )

    @pytest.mark.parametrize("beta", [1.0, 2.0, 50.0, INF])
    def test_low_rank_identities(self, beta):
        prior = LowRankFactorPrior(beta)
        s = np.geomspace(1e-6, 1e4, 41)
        np.testing.assert_allclose(prior.mmse(s) + prior.overlap(s), 1.0, atol=1e-15)
        np.testing.assert_allclose(
            prior.deficit(s), prior.strong_recovery - prior.mmse(s) / s, rtol=1e-9, atol=1e-12
        )
        for snr in (0.01, 0.5, 3.0, 1e3):
            h = 1e-4 * snr
            slope = (prior.information(snr + h) - prior.information(snr - h)) / (2 * h)
            assert slope == pytest.approx(0.5 * prior.mmse(1 / snr), rel=1e-6)
        if beta < INF:
            # fixed point of the two overlap equations by iteration
            for noise in (0.05, 0.4):
                x, ma, mb = beta / noise, 0.5, 0.5
                for _ in range(2000):
                    ma, mb = x * mb / (1 + x * mb), x * ma / (beta + x * ma)
                assert prior.overlap(noise) == pytest.approx(ma * mb, rel=1e-12)
                place = prior.outlier(noise)
                assert 1 - prior.shrink(place, noise) ** 2 == pytest.approx(prior.mmse(noise))


class TestDenoiser:
    @pytest.mark.parametrize(
        ("beta", "rho", "s"), [(1.0, 0.5, 0.3), (2.0, 0.2, 0.1), (1.0, 1.0, 1.0), (1.5, 2.0, 0.5)]
    )
    def test_monte_carlo_at_d1_300(self, beta, rho, s):
        prior = GaussianFactorPrior(beta, rho)
        rng = np.random.default_rng(7)
        errors, oracle = [], []
        for _ in range(4):
            signal = prior.sample(300, rng=rng)
            noisy = signal + math.sqrt(s) * rng.standard_normal(signal.shape)
            estimate = prior.denoise(noisy, s)
            errors.append(np.mean((estimate - signal) ** 2))
            u, _, vt = np.linalg.svd(noisy, full_matrices=False)
            best = np.einsum("ij,jk,ik->i", u.T, signal, vt)
            oracle.append(np.mean((u * best @ vt - signal) ** 2))
        exact = prior.mmse(s)
        # O(1/d1) bias and O(1/d1) fluctuations
        assert np.mean(errors) == pytest.approx(exact, rel=0.02)
        # no rotationally invariant estimator beats the oracle, and ours nearly reaches it
        assert np.mean(oracle) < np.mean(errors) < np.mean(oracle) * 1.02

    def test_perturbed_denoiser_is_worse(self):
        prior = GaussianFactorPrior(1.5, 0.5)
        law, s = prior.law(0.3), 0.3
        rule = law.quadrature()
        best = prior.shrink(rule.y, s)
        h = law.hilbert(rule.y)

        def error(f):  # SURE, exact in the limit
            return np.sum(rule.weights * ((f - rule.y) ** 2 + 2 * s * f * h)) - s

        assert error(best) == pytest.approx(prior.mmse(s), abs=1e-12)
        for change in (1.01 * best, best + 0.01, 0.99 * best):
            assert error(change) > error(best)

    def test_off_the_spectrum(self):
        # outliers, the gap, below the lower edge: continuous, monotone, within [0, y]
        prior, s = GaussianFactorPrior(2.0, 0.5), 0.1
        law = prior.law(s)
        edges = law.edges.ravel()
        assert edges.size == 4
        for edge in edges:
            around = prior.shrink(edge * np.array([1 - 1e-10, 1 + 1e-10]), s)
            assert np.ptp(around) < 1e-4
        y = np.linspace(1e-6, 8.0, 4001)
        shrunk = prior.shrink(y, s)
        assert np.all((shrunk >= 0) & (shrunk <= y))
        far = 1e3
        # far out a lone spike: Gavish-Donoho shrinkage of a rank-one signal
        spike = LowRankFactorPrior(2.0).shrink(far, s)
        assert prior.shrink(far, s) == pytest.approx(spike, rel=1e-6)

    def test_outlier_gets_its_posterior_mean(self):
        # Tweedie: the joint density of singular values has the log-derivative of its own
        # potential, so one value apart from the rest is denoised by y - s h(y) with the real g
        prior, s = GaussianFactorPrior(1.5, 0.4), 0.2
        law = prior.law(s)
        rule = law.quadrature(64)
        for y in (1.2 * law.edges.max(), 3.0 * law.edges.max()):
            h = (1 - 1 / 1.5) / y + 2 * y / 1.5 * np.sum(rule.weights / (y * y - rule.y**2))
            assert prior.shrink(y, s) == pytest.approx(y - s * h, rel=1e-10)

    def test_denoise_transposes_and_keeps_shape(self):
        prior = GaussianFactorPrior(2.0, 0.5)
        rng = np.random.default_rng(0)
        noisy = rng.standard_normal((20, 40))
        np.testing.assert_allclose(prior.denoise(noisy.T, 0.5), prior.denoise(noisy, 0.5).T)
        np.testing.assert_allclose(prior.denoise(noisy, 0.0), noisy, atol=1e-13)
        assert np.all(prior.denoise(noisy, INF) == 0.0)

    def test_a_million_singular_values(self):
        prior = GaussianFactorPrior(2.0, 0.5)
        y = np.linspace(0.0, 3.0, 10**6)
        shrunk = prior.shrink(y, 0.3)
        index = np.array([0, 137_000, 500_000, 999_999])
        np.testing.assert_allclose(shrunk[index], prior.shrink(y[index], 0.3), rtol=1e-12)

    def test_limits_of_shrink(self):
        assert GaussianFactorPrior(INF, 0.5).shrink(2.0, 1.0) == 1.5
        np.testing.assert_allclose(
            GaussianFactorPrior(2.0, 1e8).shrink([0.5, 1.0, 2.0], 1.0), [0.25, 0.5, 1.0], rtol=1e-6
        )

    def test_bad_matrix(self):
        prior = GaussianFactorPrior(2.0, 0.5)
        with pytest.raises(ValueError, match=r"Y must be a finite matrix .*got shape \(3,\)"):
            prior.denoise(np.ones(3), 0.1)
        with pytest.raises(ValueError, match="Y must be a finite matrix"):
            prior.denoise(np.full((2, 2), np.nan), 0.1)


class TestSample:
    @pytest.mark.parametrize(
        "prior", [GaussianFactorPrior(1.5, 0.5), GaussianFactorPrior(1.5, INF)]
    )
    def test_shape_variance_and_rank(self, prior):
        signal = prior.sample(200, rng=1)
        assert signal.shape == (200, 300)
        assert np.mean(signal**2) == pytest.approx(1.0, abs=0.05)
        rank = np.linalg.matrix_rank(signal)
        assert rank == (200 if prior.rho == INF else 100)
        np.testing.assert_array_equal(signal, prior.sample(200, rng=1))

    def test_low_rank(self):
        signal = LowRankFactorPrior(2.0).sample(50, rank=3, rng=1)
        assert signal.shape == (50, 100)
        assert np.linalg.matrix_rank(signal) == 3

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda: GaussianFactorPrior(2, 1).sample(0), "d1 must be a positive integer, got 0"),
            (lambda: GaussianFactorPrior(INF, 1).sample(5), "beta must be finite"),
            (lambda: GaussianFactorPrior([1, 2], 1).sample(5), "must be scalars"),
            (lambda: LowRankFactorPrior(2).sample(5, rank=0), "rank must be a positive integer"),
        ],
    )
    def test_bad_input(self, call, message):
        with pytest.raises(ValueError, match=message):
            call()


class TestInput:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: GaussianFactorPrior(0.9, 1), r"beta must be >= 1, got 0\.9"),
            (lambda: GaussianFactorPrior(2, 0), r"rho must be > 0, got 0\.0"),
            (lambda: GaussianFactorPrior(2, -1), r"rho must be > 0, got -1\.0"),
            (lambda: GaussianFactorPrior(math.nan, 1), "beta must be >= 1, got nan"),
            (lambda: GaussianFactorPrior("a", 1), "beta must be a number or an array"),
            (lambda: GaussianFactorPrior([1, 2], [1, 2, 3]), r"do not broadcast.*beta \(2,\)"),
            (lambda: LowRankFactorPrior(0.5), r"beta must be >= 1, got 0\.5"),
            (lambda: GaussianFactorPrior(2, 1).mmse(-1), r"s must be >= 0, got -1\.0"),
            (lambda: GaussianFactorPrior(2, 1).information(math.nan), "snr must be >= 0, got nan"),
            (
                lambda: GaussianFactorPrior(2, 1).law(-0.1),
                r"s must be in \[0, 1e\+100\] and finite",
            ),
            (lambda: GaussianFactorPrior([2, 3], 1).law(0.1), "must be scalars"),
        ],
    )
    def test_scalars_raise(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()

    def test_a_bad_element_is_nan_and_leaves_its_neighbours(self):
        prior = GaussianFactorPrior([1.0, 0.5, 2.0, math.nan], [1.0, 1.0, -1.0, 1.0])
        assert np.isnan(prior.mmse(0.3)).tolist() == [False, True, True, True]
        assert prior.mmse(0.3)[0] == GaussianFactorPrior(1.0, 1.0).mmse(0.3)
        mmse = GaussianFactorPrior(2.0, 1.0).mmse([0.1, -1.0, 0.3])
        assert np.isnan(mmse).tolist() == [False, True, False]

    def test_broadcasting_scalars_and_threads(self, monkeypatch):
        prior = GaussianFactorPrior(np.array([1.0, 2.0])[:, None], [0.5, 1.0, INF])
        mmse = prior.mmse(np.full((4, 1, 1), 0.2))
        assert mmse.shape == (4, 2, 3)
        assert isinstance(GaussianFactorPrior(2, 1).mmse(0.2), float)
        s = np.geomspace(1e-3, 10, 3000)
        monkeypatch.setenv("BSR_THREADS", "1")
        one = GaussianFactorPrior(2, 0.5).mmse(s)
        monkeypatch.setenv("BSR_THREADS", "3")
        np.testing.assert_array_equal(one, GaussianFactorPrior(2, 0.5).mmse(s))
        monkeypatch.setenv("BSR_THREADS", "no")
        with pytest.raises(ValueError, match="BSR_THREADS must be a positive integer"):
            GaussianFactorPrior(2, 0.5).mmse(s)

    def test_empty_array(self):
        assert GaussianFactorPrior(2, 0.5).mmse([]).shape == (0,)

    def test_law_is_cached_by_nothing_but_its_parameters(self):
        assert GaussianFactorPrior(2, 0.5).law(0.1) == GaussianFactorLaw(2.0, 0.5, 0.1)


def test_merging_noise_is_where_the_mmse_is_least_smooth():
    # the closed form of the merging noise at beta = 1 against the bulks of the law
    rho = 0.5
    s = brentq(lambda s: (2 + rho - 2 * rho * s) ** 3 - 27 * rho * (1 + rho * s) ** 2, 1e-6, 1.0)
    assert GaussianFactorLaw(1.0, rho, s * 1.0001).edges.shape == (1, 2)
    assert GaussianFactorLaw(1.0, rho, s * 0.9999).edges.shape == (2, 2)


@pytest.mark.parametrize("beta", [1.0, 3.0, 1e3])
def test_overlap_of_a_prior_that_only_has_an_error(beta):
    class Plain(GaussianFactorPrior):
        overlap, mmse_and_overlap = Prior.overlap, Prior.mmse_and_overlap

    s = np.concatenate([[0.0], np.geomspace(1e-10, 1e18, 500), [np.inf, np.nan]])
    for rho, rtol in ((1e-3, 1e-8), (0.1, 1e-8), (1.0, 1e-10), (100.0, 1e-10), (np.inf, 1e-11)):
        plain, exact = Plain(beta, rho), GaussianFactorPrior(beta, rho)
        np.testing.assert_allclose(plain.overlap(s), exact.overlap(s), rtol=rtol)
        assert plain.overlap(1e12) == pytest.approx(exact.overlap(1e12), rel=rtol, abs=0.0)
    rho = np.array([[0.1], [0.2]])
    plain, exact = Plain([1.0, 2.0], rho), GaussianFactorPrior([1.0, 2.0], rho)
    for noise in (1e9, np.array([1.0, 1e9]), np.array([[[1e4]], [[1e9]], [[1e-3]]])):
        np.testing.assert_allclose(plain.overlap(noise), exact.overlap(noise), rtol=1e-9)
    symmetric = SymmetricFactorPrior(0.3)
    found = Prior.overlap(symmetric, np.array([1.0, 1e6, np.inf]))
    np.testing.assert_allclose(found, symmetric.overlap(np.array([1.0, 1e6, np.inf])), rtol=1e-12)


@pytest.mark.parametrize(
    ("beta", "rho", "s"),
    [
        (1e8, 1e3, 1e6), (1e12, 1e3, 1e8), (1e12, 0.5, 1e11), (1e17, 20.0, 1e13), (1.0, 2.0, 1e5),
        (1e12, 0.5, 1e6), (1e16, 0.1, 3e9), (1e8, 10.0, 1e3), (1e10, 1e-3, 1e9), (1e14, 0.2, 8e6),
    ],
)  # fmt: skip
def test_overlap_at_much_noise(beta, rho, s):
    """At many columns, where w varies little along the curve, and beyond."""
    with highprec.mp.workdps(45):
        exact = float(1 - highprec.mmse(beta, rho, s, digits=45))
    assert GaussianFactorPrior(beta, rho).overlap(s) == pytest.approx(exact, rel=2e-15, abs=0.0)


# beta, rho, s; mmse, 1 - mmse, information from the quartic at each node, in 110 digits
THIN = [
    (1.0, 1e-3, 0.5, 0.0009992498747338955847, 0.99900075012526610442, 0.0075951737211024454159),
    (1.0, 1e-3, 400.0, 0.63938981918046520383, 0.36061018081953479617, 0.0011138257744949916392),
    (1.0, 1e-5, 1e-3, 1.9999899899999502049e-8, 0.9999999800001001, 0.00018420555346126919482),
    (1.0, 1e-6, 1.02e6, 0.99997602833555837953, 2.3971664441620466624e-5, 4.9019527087610520914e-7),
    (4.0, 1e-7, 1e5, 0.012419445558828003812, 0.98758055444117199619, 3.0555630104894551394e-7),
    (100.0, 1e-9, 3e9, 0.79900485419375350734, 0.20099514580624649266, 1.5481074672075328729e-10),
    (1.0, 1e-12, 9e11, 0.98999999999121315427, 0.01000000000878684573, 5.5536051565140498145e-13),
    (2.0, 1e-12, 3e12, 0.99999999999957142857, 4.2857142857099e-13, 1.6666666666663525236e-13),
    (1e6, 1e-14, 1e15, 0.90910999890001024838, 0.090890001099989751622, 4.7659647447258303515e-16),
    (1.5, 1e-19, 5e18, 0.65277777777777776584, 0.34722222222222223416, 8.9907485911207312072e-20),
]


@pytest.mark.parametrize(("beta", "rho", "s", "mmse", "overlap", "information"), THIN)
def test_thin_factors_to_all_digits(beta, rho, s, mmse, overlap, information):
    prior = GaussianFactorPrior(beta, rho)
    assert prior.mmse(s) == pytest.approx(mmse, rel=2e-15, abs=0.0)
    near = abs(s * rho / beta**0.5 - 1.0) < 0.05  # the gap between the bulks is about to close
    assert prior.overlap(s) == pytest.approx(overlap, rel=5e-14 if near else 2e-15, abs=0.0)
    # up to rho = 1e-4 a difference of energies of order 1
    absolute = 5e-14 if rho > 1e-4 else 0.0
    assert prior.information(1 / s) == pytest.approx(information, rel=1e-14, abs=absolute)


def test_limit_of_thin_factors():
    """One width on each side of where it takes over, also around the noise that hides it."""
    below, above = (GaussianFactorPrior([[1.0], [30.0], [1e9]], x) for x in (0.99e-20, 1.01e-20))
    t = np.array([1e-9, 1e-3, 0.3, 0.9, 1.2, 3.0, 1e3, 1e9])
    s = t * np.sqrt(below.beta) / 1e-20
    # at n = s rho, where both are the same but for 1e-20
    at = (s / 0.99, s / 1.01)
    np.testing.assert_allclose(below.mmse(at[0]), above.mmse(at[1]), rtol=2e-15)
    # 1 - mmse beyond t = 1 is 1/s there, without a factor of rho
    one, two = (
        p.overlap(x) * np.where(t > 1, x, 1.0) for p, x in zip((below, above), at, strict=True)
    )
    np.testing.assert_allclose(one, two, rtol=1e-12)
    one, two = (p.information(1 / x) / p.rho for p, x in zip((below, above), at, strict=True))
    np.testing.assert_allclose(one, two, rtol=1e-13)


def test_thin_factors_far_below_the_noise():
    beta, rho = (
        np.array([1.0, 1e9, 1e24, 1e40, 1e60]),
        np.array([[1e-13], [2e-16], [1e-17], [1e-19]]),
    )
    for t in (9e3, 1.1e4, 6e5, 1e7, 9e7):
        prior = GaussianFactorPrior(beta, rho)
        s = t * beta**0.5 / rho
        np.testing.assert_allclose(prior.overlap(s) * s, 1 + 1 / (t * t - 1), rtol=2e-14)
        assert np.isfinite(prior.deficit(s)).all()
        np.testing.assert_allclose(prior.information(1 / s), 0.5 / s, rtol=2e-14)


@pytest.mark.parametrize("beta", [1.0, 30.0, 1e6])
def test_denoisers_join_their_limits(beta):
    """Outliers apart from each other, independent entries, known columns."""
    t = np.array([0.03, 0.5, 0.9])
    below, above = (GaussianFactorPrior(beta, x) for x in (0.99e-16, 1.01e-16))
    for one in t * beta**0.5 / 1e-16:
        y = (1e16 * (1 + one * 1e-16) * (1 + one * 1e-16 / beta)) ** 0.5
        np.testing.assert_allclose(below.shrink(y, one), above.shrink(y, one), rtol=0.02)
        exact = LowRankFactorPrior(beta).shrink(y * 1.01e-16**0.5, one * 1.01e-16) / 1.01e-16**0.5
        assert above.shrink(y, one) == pytest.approx(exact, rel=1e-6)
    for rho, s in (
        (min(0.99e11 * beta, 1e14), 0.3),
        (1e3 * beta, 0.99e4),
        (0.1, 9e8 * beta**0.5),
    ):
        prior, width = GaussianFactorPrior(beta, rho), beta**-0.5
        y = np.sqrt(1 + s) * np.array([1 - 0.5 * width, 1.0, 1 + 0.5 * width])
        curve = y - s * np.asarray(GaussianFactorLaw(beta, rho, s).hilbert(y))
        rtol = 1e-5 + 1e-14 * s  # what the subtraction leaves
        np.testing.assert_allclose(prior.shrink(y, s), y / (1 + s), rtol=rtol)
        np.testing.assert_allclose(curve, y / (1 + s), rtol=rtol)
    y = np.array([0.8, 1.0, 2.0])
    many, known = (GaussianFactorPrior(x, 0.5).shrink(y, 0.3) for x in (0.99e40, 1.01e40))
    np.testing.assert_allclose(many, known, rtol=1e-14)


def test_symmetric_denoisers_join_their_limits():
    for n in (0.01, 0.5, 0.9):  # outliers of size rho^(-1/2)
        s, size = n * 1e16, 1e8
        y = size * (1 + n)
        thin, curve = (SymmetricFactorPrior(x).shrink(y, s) for x in (0.99e-16, 1.01e-16))
        assert thin == pytest.approx(size * (1 - n), rel=1e-9)
        assert curve == pytest.approx(size * (1 - n), rel=1e-6)
    for rho, s in ((0.5, 2.1e8), (1e10, 0.99e4), (1.25e21, 1.0)):
        y = rho**0.5 + np.sqrt(1 + s) * np.array([-1.0, 0.3, 1.5])
        for noise in (0.9 * s, 1.1 * s):
            entries = np.maximum(rho**0.5 + (y - rho**0.5) / (1 + noise), 0.0)
            np.testing.assert_allclose(
                SymmetricFactorPrior(rho).shrink(y, noise), entries, rtol=1e-4
            )


@pytest.mark.slow
def test_everything_at_many_columns():
    rng = np.random.default_rng(7)
    for _ in range(60):
        beta, rho = float(10 ** rng.uniform(4, 16)), float(10 ** rng.uniform(-3, 4))
        turn = np.sqrt(beta) / rho * 10 ** rng.uniform(-2, 4)
        s = float(turn if rng.random() < 0.7 else 10 ** rng.uniform(-6, 6))
        with highprec.mp.workdps(45):
            exact = highprec.evaluate(beta, rho, s, digits=40)
            expected = [float(x) for x in (exact.mmse, 1 - exact.mmse, exact.information)]
        prior = GaussianFactorPrior(beta, rho)
        found = [prior.mmse(s), prior.overlap(s), prior.information(1 / s)]
        where = f"beta={beta!r}, rho={rho!r}, s={s!r}"
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-11, err_msg=where)
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-11 if s > 1 else 1e-9)
        np.testing.assert_allclose(found[2], expected[2], rtol=1e-10, atol=1e-15, err_msg=where)


@pytest.mark.parametrize("beta", [1e200, 1.7976931348623157e308])
def test_low_rank_at_the_end_of_doubles(beta):
    """Finite beta that is infinite for all purposes: columns of known covariance."""
    snr = np.array([1e-30, 1.0, 1e30])
    prior = LowRankFactorPrior(beta)
    for information in (prior.information(snr), limits.low_rank_information(snr, beta)):
        np.testing.assert_allclose(information, 0.5 * np.log1p(snr), rtol=1e-15)
    s = np.array([1.0, 1e90, np.inf])
    np.testing.assert_allclose(prior.overlap(s), [0.5, 1e-90, 0.0], rtol=1e-15)
    np.testing.assert_allclose(LowRankFactorPrior(np.inf).overlap(1e200), 1e-200, rtol=1e-15)
    np.testing.assert_allclose(LowRankFactorPrior(np.inf).deficit([1.0, 1e200]), [0.5, 1.0])
