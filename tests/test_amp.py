"""GAMP-RIE against state evolution, which it does not know, and against its own promises."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.special import log_ndtr

import bsr_theory as bsr
from bsr_theory.channels import Channel, GaussianChannel
from bsr_theory.design import DenseDesign
from bsr_theory.priors import GaussianFactorPrior, LowRankFactorPrior, SymmetricFactorPrior
from bsr_theory.problem import Instance, Problem
from bsr_theory.results import Status
from bsr_theory.rotational import RotationallyInvariantPrior, SymmetricPrior
from bsr_theory.simulations import amp
from bsr_theory.simulations._message_passing import Damping, denoise
from bsr_theory.simulations._message_passing import divergence as exact_divergence


def average(problem, d1, samples, steps, **keywords):
    """Return the mean and standard error of the trajectories, and the mean of qhat."""
    runs = [
        amp(problem.sample(d1, rng=(17, k), **keywords), steps=steps, tolerance=0.0)
        for k in range(samples)
    ]
    errors = np.array([run.mse for run in runs])
    spread = errors.std(axis=0, ddof=1) / np.sqrt(samples)
    return errors.mean(axis=0), spread, np.mean([run.qhat for run in runs], axis=0)


# --------------------------------------------------------------------------------------------
# Against state evolution
# --------------------------------------------------------------------------------------------

CASES = {
    "noise": (0.4, 1.0, 0.5, 0.1),
    "no noise, wide": (0.4, 2.0, 0.5, 0.0),
    "low rho": (0.3, 1.0, 0.2, 0.0),
    "few labels, much noise": (0.15, 1.5, 0.3, 0.3),
    "factors wider than S": (0.6, 1.0, 2.0, 0.05),
}


class TestAgainstStateEvolution:
    @pytest.mark.parametrize("case", CASES)
    def test_every_iteration(self, case):
        problem = bsr.bilinear_regression(*CASES[case])
        theory = bsr.iterate(problem, 8)
        mean, error, qhat = average(problem, 40, 10, 8)
        assert np.all(np.abs(mean - theory.mmse) < 3.0 * error + 0.5 / 40)
        assert error[1:].max() < 0.05  # or the comparison would mean nothing
        np.testing.assert_allclose(qhat, theory.qhat, rtol=0.1)

    @pytest.mark.slow
    @pytest.mark.parametrize("case", CASES)
    def test_every_iteration_at_size_100(self, case):
        problem = bsr.bilinear_regression(*CASES[case])
        theory = bsr.iterate(problem, 10)
        mean, error, qhat = average(problem, 100, 20, 10)
        assert np.all(np.abs(mean - theory.mmse) < 2.5 * error + 0.2 / 100)
        assert error[1:].max() < 0.012
        np.testing.assert_allclose(qhat, theory.qhat, rtol=0.03)

    @pytest.mark.parametrize("beta", [1.0, 2.0])
    def test_low_rank(self, beta):
        problem = Problem(LowRankFactorPrior(beta), GaussianChannel(0.1), 1.5)
        theory = bsr.iterate(problem, 8)
        mean, error, qhat = average(problem, 50, 10, 8, rank=2)
        # the limit takes r/d1 to 0 as well
        assert np.all(np.abs(mean - theory.mmse) < 3.0 * error + 2 / 50)
        np.testing.assert_allclose(qhat, theory.qhat, rtol=0.15)
        run = amp(problem.sample(50, rng=0, rank=2))
        np.testing.assert_allclose(run.estimated_mse[-1], run.mse[-1], rtol=0.2)

    def test_low_rank_below_the_transition(self):
        problem = Problem(LowRankFactorPrior(1.0), GaussianChannel(), 0.15)
        runs = [amp(problem.sample(60, rng=k, rank=3)) for k in range(8)]
        assert bsr.iterate(problem, 1).q[-1] == 0.0
        # a singular value beyond the edge of the noise happens at finite size
        assert np.median([np.abs(run.estimate).max() for run in runs]) == 0.0
        assert max(abs(run.overlap[-1]) for run in runs) < 0.05

    def test_gaussian_entries(self):
        """Without structure the fixed point is that of ridge regression, a linear system."""
        problem = bsr.bilinear_regression(0.7, 1.0, float("inf"), 0.4)
        data = problem.sample(24, rng=2)
        A = np.asarray(data.X).reshape(data.X.n, -1) / 24.0
        ridge = A.T @ np.linalg.solve(A @ A.T + 0.4 * np.eye(data.X.n), data.y)
        run = amp(data, tolerance=1e-9)
        # the algorithm measures the noise s; the ridge that it converges to fluctuates with it
        gap = np.mean((run.estimate - ridge.reshape(24, 24)) ** 2)
        assert gap < 1e-3 * run.mse[-1]

    @pytest.mark.parametrize("q", [0.5, 0.95])
    def test_informed_start(self, q):
        problem = bsr.bilinear_regression(0.4, 1.0, 0.5, 0.1)
        theory = bsr.iterate(problem, 6, q=q)
        errors = []
        for k in range(8):
            data = problem.sample(40, rng=(3, k))
            # S plus noise, shrunk to its best linear estimate: overlap q, error 1 - q
            noisy = data.S + np.sqrt(1 / q - 1) * np.random.default_rng(k).standard_normal((40, 40))
            run = amp(data, start=q * noisy, steps=6, tolerance=0.0)
            errors.append(run.mse)
            assert run.estimated_mse[0] == run.mse[0]
        error = np.std(errors, axis=0, ddof=1) / np.sqrt(8)
        assert np.all(np.abs(np.mean(errors, axis=0) - theory.mmse) < 3 * error + 0.5 / 40)

    def test_one_fixed_point_from_everywhere(self):
        data = bsr.bilinear_regression(0.4, 1.0, 0.5, 0.1).sample(40, rng=5)
        cold = amp(data, tolerance=1e-7)
        for start in (data.S, -data.S, np.random.default_rng(0).standard_normal((40, 40))):
            run = amp(data, start=start, tolerance=1e-7)
            assert run.status is Status.CONVERGED
            np.testing.assert_allclose(run.estimate, cold.estimate, atol=1e-5)

    def test_what_it_believes_of_its_error(self):
        runs = [
            amp(bsr.bilinear_regression(0.4, 1.0, 0.5, 0.1).sample(60, rng=k)) for k in range(5)
        ]
        for run in runs:
            np.testing.assert_allclose(run.estimated_mse[1:], run.mse[1:], rtol=0.15)
            np.testing.assert_allclose(run.misfit, 1.0, atol=0.12)
            # the Bayes estimate: overlap with S and own norm agree, and with the error
            np.testing.assert_allclose(run.overlap[-1], np.mean(run.estimate**2), rtol=0.1)


# --------------------------------------------------------------------------------------------
# Perfect recovery, precision, where X lives
# --------------------------------------------------------------------------------------------


SYMMETRIC = {
    "three eigenvalues": (SymmetricPrior([-1.0, 1.0, 2.0]), GaussianChannel(0.1), 0.4),
    "negative mean": (SymmetricPrior([-3.0, -1.0]), GaussianChannel(0.1), 0.4),
    "factor": (SymmetricFactorPrior(0.5), GaussianChannel(0.1), 0.4),
    "signs of labels": (SymmetricPrior([-1.0, 1.0]), bsr.SignChannel(), 0.6),
}


class TestSymmetricSignals:
    @pytest.mark.parametrize("case", SYMMETRIC)
    def test_every_iteration(self, case):
        d = 48
        prior, channel, alpha = SYMMETRIC[case]
        theory = bsr.iterate(Problem(prior, channel, alpha), 8)
        # d (d + 1)/2 entries, not d^2/2, are unknown
        close = bsr.iterate(Problem(prior, channel, alpha * d / (d + 1)), 8)
        mean, error, qhat = average(Problem(prior, channel, alpha), d, 8, 8)
        size = np.abs(close.mmse - theory.mmse) + prior.second_moment / d
        assert np.all(np.abs(mean - theory.mmse) < 3.0 * error + 1.5 * size)
        assert np.all(error[1:] < 0.05)
        np.testing.assert_allclose(qhat, theory.qhat, rtol=0.12)

    def test_the_sign_is_known_where_the_mean_is_not_zero(self):
        # even labels, but E S = -2 sqrt(d) I
        problem = Problem(SymmetricPrior([-3.0, -1.0]), GaussianChannel(0.0), 0.45)
        run = amp(problem.sample(30, rng=0))
        assert run.status is Status.PERFECT_RECOVERY
        assert run.mse[0] == pytest.approx(1.0, abs=0.05)
        assert run.estimate.trace() < 0.0

    def test_a_start_with_an_overlap(self):
        problem = Problem(SymmetricPrior([-1.0, 1.0]), GaussianChannel(0.1), 0.4)
        run = amp(problem.sample(60, rng=0), steps=1, start=0.7, rng=1)
        assert run.overlap[0] == pytest.approx(0.7, abs=0.05)


class TestPerfectRecovery:
    @pytest.mark.parametrize(
        "prior, alpha",
        [
            (RotationallyInvariantPrior([0.5, 1.5], 1.0), 0.9),
            (RotationallyInvariantPrior([1.0], 2.0), 0.85),
            (SymmetricPrior([-1.0, 1.0]), 0.45),
        ],
    )
    def test_bulks_as_narrow_as_the_noise(self, prior, alpha):
        run = amp(Problem(prior, GaussianChannel(0.0), alpha).sample(30, rng=0))
        assert run.status is Status.PERFECT_RECOVERY
        assert run.mse[-1] < 1e-24

    @pytest.mark.parametrize(("beta", "rho"), [(1.0, 0.3), (2.5, 0.2), (1.0, 1.5)])
    def test_above_strong_recovery(self, beta, rho):
        strong = GaussianFactorPrior(beta, rho).strong_recovery
        data = bsr.bilinear_regression(1.35 * strong, beta, rho).sample(30, rng=1)
        run = amp(data)
        assert run.status is Status.PERFECT_RECOVERY
        assert run.mse[-1] < 1e-26
        np.testing.assert_allclose(run.estimate, data.S, atol=1e-12)

    def test_follows_state_evolution_down_to_rounding(self):
        prior = GaussianFactorPrior(1.5, 0.3)
        problem = Problem(prior, GaussianChannel(), 1.5 * prior.strong_recovery)
        theory = bsr.iterate(problem, 120).mmse
        assert theory[-1] < 1e-20
        runs = [amp(problem.sample(30, rng=k), steps=120, tolerance=0.0) for k in range(5)]
        decades = np.log10(np.median([run.mse for run in runs], axis=0) / theory)
        assert np.abs(decades).max() < 0.5

    def test_not_below_it_and_not_with_noise(self):
        for alpha, delta in ((0.35, 0.0), (0.8, 1e-3)):
            data = bsr.bilinear_regression(alpha, 1.0, 0.3, delta).sample(30, rng=1)
            run = amp(data)
            assert run.status is Status.CONVERGED
            assert run.mse[-1] > 1e-4

    def test_started_at_the_signal(self):
        data = bsr.bilinear_regression(0.9, 1.0, 0.3).sample(20, rng=1)
        run = amp(data, start=data.S)
        assert run.status is Status.PERFECT_RECOVERY
        assert run.mse.max() < 1e-26

    def test_single_precision(self):
        problem = bsr.bilinear_regression(0.9, 1.0, 0.3)
        single, double = (amp(problem.sample(30, rng=1, dtype=t)) for t in (np.float32, np.float64))
        assert single.status is Status.PERFECT_RECOVERY
        assert 1e-15 < single.mse[-1] < 1e-9
        np.testing.assert_allclose(single.mse[:20], double.mse[:20], atol=1e-6)


class TestWhereXLives:
    PROBLEM = bsr.bilinear_regression(0.5, 1.5, 0.4, 0.1)

    def test_streamed_and_mapped_runs_are_the_dense_run(self, tmp_path):
        runs = [
            amp(self.PROBLEM.sample(30, rng=2, design=design, path=path))
            for design, path in (("dense", None), ("stream", None), ("memmap", tmp_path / "X.npy"))
        ]
        for run in runs[1:]:
            assert run.iterations == runs[0].iterations
            np.testing.assert_allclose(run.mse, runs[0].mse, rtol=1e-10)
            np.testing.assert_allclose(run.estimate, runs[0].estimate, atol=1e-10)

    def test_threads_do_not_matter(self, monkeypatch):
        data = self.PROBLEM.sample(40, rng=2, design="stream")
        estimates = []
        for count in ("1", "3"):
            monkeypatch.setenv("BSR_THREADS", count)
            estimates.append(amp(data, steps=5).estimate)
        np.testing.assert_array_equal(*estimates)

    def test_same_seed_same_run(self):
        first, second = (amp(self.PROBLEM.sample(20, rng=9)) for _ in range(2))
        np.testing.assert_array_equal(first.estimate, second.estimate)

    def test_the_signal_is_not_looked_at(self):
        data = self.PROBLEM.sample(20, rng=9)
        blind = dataclasses.replace(data, S=np.zeros_like(data.S))
        np.testing.assert_array_equal(amp(blind).estimate, amp(data).estimate)


# --------------------------------------------------------------------------------------------
# The denoiser, its divergence, the Onsager term
# --------------------------------------------------------------------------------------------


class TestDivergence:
    @pytest.mark.parametrize("shape", [(5, 5), (4, 7), (1, 6), (1, 1)])
    def test_is_the_trace_of_the_jacobian(self, shape):
        """Entry by entry, by central differences."""
        Y = np.random.default_rng(0).standard_normal(shape)

        def f(matrix):
            left, sigma, right = np.linalg.svd(matrix, full_matrices=False)
            return (left * np.tanh(sigma) ** 2) @ right

        trace, h = 0.0, 1e-5
        for at in np.ndindex(shape):
            bump = np.zeros(shape)
            bump[at] = h
            trace += (f(Y + bump) - f(Y - bump))[at] / (2 * h)
        sigma = np.linalg.svd(Y, compute_uv=False)
        slope = 2 * np.tanh(sigma) / np.cosh(sigma) ** 2
        value = exact_divergence(sigma, np.tanh(sigma) ** 2, slope, shape[1])
        assert value == pytest.approx(trace, rel=1e-8)

    @pytest.mark.parametrize("s", [0.3, 1e-10])
    def test_of_the_denoiser_at_any_scale(self, s):
        """Signal and noise bulks may lie decades apart."""
        prior = GaussianFactorPrior(1.5, 0.5)
        rng = np.random.default_rng(1)
        R = prior.sample(6, rng=rng) + np.sqrt(s) * rng.standard_normal((6, 9))
        trace, h = 0.0, 1e-4 * np.sqrt(s)
        for at in np.ndindex(R.shape):
            bump = np.zeros(R.shape)
            bump[at] = h
            trace += (prior.denoise(R + bump, s) - prior.denoise(R - bump, s))[at] / (2 * h)
        assert denoise(prior, R, s)[1] * R.size == pytest.approx(trace, rel=1e-4)

    def test_equal_and_vanishing_singular_values(self):
        """f(y) = y^3 is the polynomial Y Y^T Y: its divergence is smooth in Y."""
        exact = []
        for sigma in (np.array([2.0, 1.0, 1.0, 0.0]), np.array([2.0, 1.0 + 1e-7, 1.0, 1e-9])):
            exact.append(exact_divergence(sigma, sigma**3, 3 * sigma**2, 6))
        # (d1 + d2 + 1) tr Y Y^T
        assert exact[0] == pytest.approx((4 + 6 + 1) * 6.0, rel=1e-12)
        assert exact[1] == pytest.approx(exact[0], rel=1e-5)

    def test_denoiser_is_that_of_the_prior(self):
        prior = GaussianFactorPrior(1.5, 0.4)
        rng = np.random.default_rng(0)
        R = prior.sample(40, rng=rng) + np.sqrt(0.5) * rng.standard_normal((40, 60))
        denoised, divergence = denoise(prior, R, 0.5)
        np.testing.assert_allclose(denoised, prior.denoise(R, 0.5), atol=1e-12)
        # Stein: s times the divergence estimates the error
        assert 0.5 * divergence == pytest.approx(prior.mmse(0.5), rel=0.05)

    @pytest.mark.parametrize("s", [1e-4, 1e-10, 1e-18, 1e-22])
    def test_atoms_as_narrow_as_the_noise(self, s):
        # eigenvalues are -1 and 1 after denoising: only pairs of different ones contribute
        rng = np.random.default_rng(0)
        prior, vectors = SymmetricPrior([-1.0, 1.0]), np.linalg.qr(rng.standard_normal((30, 30)))[0]
        inside = 0.5 * np.sqrt(s) * np.linspace(-1.0, 1.0, 15)  # the bulks are (-1.4, 1.4) sqrt(s)
        y = np.concatenate([inside - 1.0, inside + 1.0])
        R = np.sqrt(30) * (vectors * y) @ vectors.T
        _, divergence = denoise(prior, R, s)
        assert divergence == pytest.approx(15**2 / (15 * 31), rel=1e-3 if s < 1e-5 else 3e-2)

    def test_zero(self):
        denoised, divergence = denoise(GaussianFactorPrior(1.0, 0.4), np.zeros((5, 5)), 1.0)
        assert not denoised.any() and np.isfinite(divergence)


# --------------------------------------------------------------------------------------------
# Other channels
# --------------------------------------------------------------------------------------------


class Sign(Channel):
    """Labels y = sign(h)."""

    resolves = 0.0

    def precision(self, q, v=None):
        raise NotImplementedError

    def information(self, q, v=None):
        raise NotImplementedError

    def score(self, y, omega, V):
        root = np.sqrt(V)
        x = y * omega / root
        g = y * np.exp(-0.5 * x * x - log_ndtr(x)) / np.sqrt(2 * np.pi) / root
        return g, -g * (g + omega / V)

    def sample(self, h, *, rng=None):
        return np.sign(h)


class Magnitude(Sign):
    """Labels y = |h|, even in h: at omega = 0 the scores vanish."""

    def score(self, y, omega, V):
        t = np.tanh(omega * y / V)
        return (y * t - omega) / V, (y * y * (1 - t * t) / V - 1.0) / V

    def sample(self, h, *, rng=None):
        return np.abs(h)


class TestOtherChannels:
    def test_sign(self):
        problem = Problem(GaussianFactorPrior(1.0, 0.5), Sign(), 1.5)
        mean, error, _ = average(problem, 30, 10, 5)
        theory = [1.0]
        for _ in range(40):
            s = 1.0 / (1.5 * sign_precision(1.0 - theory[-1]))
            theory.append(GaussianFactorPrior(1.0, 0.5).mmse(s))
        np.testing.assert_allclose(theory[-1], 0.27826934, atol=1e-7)
        assert np.all(np.abs(mean - theory[:6]) < 3 * error + 0.5 / 30)

    def test_scores_that_cancel(self):
        problem = Problem(GaussianFactorPrior(1.0, 0.2), Magnitude(), 0.9)
        norms = []
        for seed in range(6):
            data = problem.sample(30, rng=seed)
            blind = amp(data, steps=5)
            assert not blind.estimate.any() and np.isfinite(blind.mse).all()
            assert blind.status is Status.CONVERGED and blind.estimated_mse[-1] > 0.1
            norms.append(blind.mse[0])
        assert min(norms) < 0.95 < 1.05 < max(norms)  # chi cancels from above and from below
        # once it knows the signs, the labels are those of the linear channel
        start = 0.5 * (data.S + np.random.default_rng(1).standard_normal(data.S.shape))
        run = amp(data, start=start)
        assert run.status is Status.PERFECT_RECOVERY
        assert run.mse[-1] < 1e-25


NONLINEAR = {
    "sign": (bsr.channels.SignChannel(), 1.5, None),
    "noisy sign": (bsr.channels.SignChannel(0.2), 2.0, None),
    "relu": (bsr.channels.ReLUChannel(0.05), 0.8, None),
    "abs": (bsr.channels.AbsChannel(), 1.3, 0.3),
    "noisy abs": (bsr.channels.AbsChannel(0.1), 1.2, 0.2),
}


class TestNonlinearOutputs:
    @pytest.mark.parametrize("case", NONLINEAR)
    def test_every_iteration(self, case):
        channel, alpha, start = NONLINEAR[case]
        problem = Problem(GaussianFactorPrior(1.0, 0.5), channel, alpha)
        theory = bsr.iterate(problem, 10, q=start).mmse
        runs = []
        for k in range(8):
            data = problem.sample(30, rng=(5, k))
            run = amp(data, start=start, rng=k, steps=10, tolerance=0.0)
            runs.append(run.mse / np.mean(data.S**2))  # without what the norm of S does
        mean, error = np.mean(runs, axis=0), np.std(runs, axis=0, ddof=1) / np.sqrt(8)
        assert np.all(np.abs(mean - theory) < 3.0 * error + 0.8 / 30)
        assert error.max() < 0.08 and theory[-1] < 0.6

    def test_the_start_has_the_overlap_asked_for(self):
        problem = Problem(GaussianFactorPrior(1.0, 0.5), bsr.channels.AbsChannel(), 0.6)
        for q in (1e-3, 0.1, 0.9):
            first = [amp(problem.sample(40, rng=k), start=q, rng=k, steps=1) for k in range(6)]
            overlaps = np.array([run.overlap[0] for run in first])
            error = overlaps.std(ddof=1) / np.sqrt(overlaps.size)
            assert abs(overlaps.mean() - q) < 3.0 * error + 0.5 / 40
            assert {run.estimated_mse[0] for run in first} == {1.0 - q}

    def test_symmetry_breaks_from_a_tiny_start(self):
        # above alpha = 1/2 overlap 0 is unstable: any hint grows, with either sign
        problem = Problem(GaussianFactorPrior(1.0, 0.3), bsr.channels.AbsChannel(), 1.0)
        data = problem.sample(30, rng=2)
        run = amp(data, start=0.01, rng=0, steps=200)
        assert run.status is Status.PERFECT_RECOVERY
        flipped = amp(data, start=-run.estimate + 1e-3, steps=200)
        np.testing.assert_allclose(flipped.estimate, -run.estimate, atol=1e-8)
        assert flipped.mse[-1] < 1e-20 and flipped.overlap[-1] > 0.5  # of the better sign
        # below it no hint grows
        below = Problem(GaussianFactorPrior(1.0, 2.0), bsr.channels.AbsChannel(), 0.25)
        runs = [amp(below.sample(30, rng=k), start=0.3, rng=k, steps=60) for k in range(4)]
        assert max(run.overlap[-1] for run in runs) < 0.05
        assert min(run.overlap[0] for run in runs) > 0.2

    def test_a_misstep_is_recovered_from(self):
        # for even labels 0 is a fixed point: a run that were sent there would stay
        problem = Problem(GaussianFactorPrior(1.0, 0.2), bsr.channels.AbsChannel(), 1.03)
        for k in (0, 1, 7):
            run = amp(problem.sample(30, rng=k), start=0.1, rng=k)
            assert run.misfit.max() > 2.0  # it once believed more than it knew
            assert run.status is Status.PERFECT_RECOVERY

    def test_signs_are_kept_where_labels_tell_them(self):
        data = bsr.bilinear_regression(0.3, 1.0, 0.5, 0.1).sample(20, rng=0)
        run = amp(data, start=-data.S, steps=1)
        assert run.mse[0] == pytest.approx(4.0 * np.mean(data.S**2))
        assert run.overlap[0] < 0.0


def sign_precision(q):
    """E g^2 over omega ~ N(0, q) and the sign, by Gauss-Hermite quadrature."""
    x, w = np.polynomial.hermite_e.hermegauss(200)
    V = 1.0 - q
    u = np.sqrt(q / V) * x
    terms = np.exp(-(u**2) - log_ndtr(u)) / (2 * np.pi * V)
    return 2.0 * np.sum(w * terms) / np.sqrt(2 * np.pi)


# --------------------------------------------------------------------------------------------
# Stability
# --------------------------------------------------------------------------------------------


def random_problem(rng, entries):
    """Any corner of the range, as far as ``n d1 d2 <= entries``."""
    while True:
        delta = rng.choice([0.0, rng.uniform(0, 1), 10 ** rng.uniform(-4, 0)])
        alpha, rho = np.exp(rng.uniform(np.log([0.02, 0.05]), np.log([2.0, 2.0])))
        beta, d1 = rng.choice([1.0, rng.uniform(1, 5)]), int(rng.integers(20, 101))
        if alpha * (d1 * round(beta * d1)) ** 2 <= entries:
            return bsr.bilinear_regression(alpha, beta, rho, delta), d1


def check_sane(run, data):
    """An error is never much above that of knowing nothing, and success is success."""
    assert np.isfinite(run.mse).all() and np.isfinite(run.estimate).all()
    assert run.mse.max() < 3.0 * max(1.0, run.mse[0])
    assert run.status in (Status.CONVERGED, Status.NOT_CONVERGED, Status.PERFECT_RECOVERY)
    rounding = (1e3 * np.finfo(data.X.dtype).eps) ** 2
    if run.status is Status.PERFECT_RECOVERY:
        assert run.mse[-1] < rounding
    elif run.status is Status.CONVERGED:
        assert run.mse[-1] > rounding
    assert run.estimated_mse.max() <= 1.0


class TestNeverDiverges:
    def test_60_problems(self):
        rng = np.random.default_rng(1)
        ends = []
        for k in range(60):
            problem, d1 = random_problem(rng, 5e5)
            data = problem.sample(d1, rng=(1, k))
            run = amp(data, steps=100)
            check_sane(run, data)
            ends.append(run.status.ok)
        assert np.mean(ends) > 0.85

    @pytest.mark.slow
    def test_500_problems(self):
        rng = np.random.default_rng(2)
        ends = []
        for k in range(500):
            problem, d1 = random_problem(rng, 1e8)
            data = problem.sample(d1, rng=(2, k), dtype=np.float32 if k % 2 else np.float64)
            run = amp(data)
            check_sane(run, data)
            ends.append(run.status.ok)
        assert np.mean(ends) > 0.85

    @pytest.mark.parametrize("alpha", [0.02, 0.05])
    @pytest.mark.parametrize("delta", [0.0, 1.0])
    def test_few_labels(self, alpha, delta):
        for k in range(5):
            data = bsr.bilinear_regression(alpha, 1.0, 0.5, delta).sample(40, rng=k)
            check_sane(amp(data), data)

    def test_a_random_start(self):
        rng = np.random.default_rng(0)
        for alpha in (0.05, 0.4):
            data = bsr.bilinear_regression(alpha, 1.0, 0.5).sample(40, rng=0)
            for scale in (1.0, 100.0, 1e12):
                run = amp(data, start=scale * rng.standard_normal(data.S.shape))
                assert run.mse[1:].max() < 3.0 * max(run.mse[0], 1.0)
                assert run.mse[-1] < 1.05

    def test_whatever_the_denoiser_does(self):
        @dataclasses.dataclass(frozen=True)
        class Wild(GaussianFactorPrior):
            def shrink(self, y, s):
                return 5.0 * np.asarray(y)

        problem = Problem(Wild(1.0, 0.5), GaussianChannel(), 0.3)
        data = problem.sample(20, rng=0)
        for damping in ("auto", 0.0):
            run = amp(data, damping=damping)
            assert run.status is Status.NOT_CONVERGED
            assert run.mse.max() < 1e4


class TestDamping:
    DATA = bsr.bilinear_regression(0.4, 1.0, 0.5, 0.1).sample(40, rng=1)

    def test_does_not_move_the_fixed_point(self):
        free = amp(self.DATA, damping=0.0, tolerance=1e-8)
        for damping in (0.3, 0.8):
            run = amp(self.DATA, damping=damping, tolerance=1e-8, steps=500)
            assert run.status is Status.CONVERGED
            np.testing.assert_array_equal(run.damping, damping)
            assert run.iterations > free.iterations
            np.testing.assert_allclose(run.estimate, free.estimate, atol=1e-6)

    def test_automatic_does_nothing_without_need(self):
        auto, free = amp(self.DATA), amp(self.DATA, damping=0.0)
        np.testing.assert_array_equal(auto.damping, 0.0)
        np.testing.assert_array_equal(auto.mse, free.mse)

    def test_automatic_stops_an_oscillation(self):
        """A denoiser that reaches twice as far as its divergence says: +-1 for ever, undamped."""

        @dataclasses.dataclass(frozen=True)
        class Steep(GaussianFactorPrior):
            def shrink(self, y, s):
                best = np.asarray(super().shrink(y, s))
                return best + 0.6 * np.sin(6.0 * best)

        problem = Problem(Steep(1.0, 0.5), GaussianChannel(0.1), 0.4)
        data = problem.sample(40, rng=0)
        free, auto = (amp(data, damping=d, steps=150, tolerance=0.0) for d in (0.0, "auto"))
        moved = [np.abs(np.diff(run.mse[-20:])).max() for run in (free, auto)]
        assert auto.damping.max() > 0.4
        assert moved[1] < 0.1 * moved[0]

    def test_rises_with_the_misfit_and_falls_back(self):
        keep = Damping(0.0, automatic=True)
        for misfit, expected in ((1.1, 0.0), (2.3, 0.5), (3.0, 0.75), (2.9, 0.75), (1.2, 0.725)):
            keep.update(misfit, noise=misfit, step=1.0)
            assert keep.value == pytest.approx(expected)

    def test_rises_without_progress(self):
        keep = Damping(0.0, automatic=True)
        for k in range(16):
            assert keep.value == 0.0
            keep.update(1.0, noise=1.0 + k, step=1.0 + k % 3)
        assert keep.value == 0.5


# --------------------------------------------------------------------------------------------
# The interface
# --------------------------------------------------------------------------------------------


class TestInterface:
    DATA = bsr.bilinear_regression(0.4, 1.5, 0.5, 0.1).sample(20, rng=1)

    def test_what_is_returned(self):
        run = amp(self.DATA, steps=7, tolerance=0.0)
        assert run.iterations == 7
        for series in (run.mse, run.overlap, run.estimated_mse):
            assert series.shape == (8,)
        for series in (run.qhat, run.misfit, run.damping):
            assert series.shape == (7,)
        assert run.mse[0] == pytest.approx(np.mean(self.DATA.S**2))
        assert run.overlap[0] == 0.0 and run.estimated_mse[0] == 1.0
        assert run.mse[-1] == pytest.approx(np.mean((run.estimate - self.DATA.S) ** 2))
        assert run.overlap[-1] == pytest.approx(np.mean(run.estimate * self.DATA.S))
        assert 0.0 < run.seconds < 60.0
        with pytest.raises(dataclasses.FrozenInstanceError):
            run.mse = None

    def test_tolerance_decides_when_to_stop(self):
        runs = [amp(self.DATA, tolerance=t) for t in (1e-2, 1e-4, 1e-6)]
        assert [run.status for run in runs] == 3 * [Status.CONVERGED]
        assert runs[0].iterations < runs[1].iterations < runs[2].iterations
        gaps = [np.sqrt(np.mean((run.estimate - runs[2].estimate) ** 2)) for run in runs]
        assert gaps[1] < 0.1 * gaps[0]
        assert amp(self.DATA, steps=2).status is Status.NOT_CONVERGED

    def test_callback(self):
        seen = []

        def watch(iteration, estimate):
            seen.append((iteration, np.mean((estimate - self.DATA.S) ** 2)))
            return iteration == 3

        run = amp(self.DATA, callback=watch)
        assert [k for k, _ in seen] == [1, 2, 3] and run.iterations == 3
        np.testing.assert_allclose([e for _, e in seen], run.mse[1:])

    def test_progress(self, capsys):
        amp(self.DATA, steps=2)
        assert capsys.readouterr().err == ""
        amp(self.DATA, steps=2, progress=True)
        assert "2/2" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("keywords", "message"),
        [
            ({"steps": 0}, "steps must be a positive integer, got 0"),
            ({"steps": 2.0}, "steps must be a positive integer, got 2.0"),
            ({"steps": True}, "steps"),
            ({"tolerance": -1e-3}, "tolerance must be >= 0 and finite, got -0.001"),
            ({"tolerance": float("nan")}, "tolerance"),
            ({"tolerance": [1e-3, 1e-4]}, r"tolerance must be a scalar, .* shape \(2,\)"),
            ({"damping": "none"}, "damping must be 'auto' or a number, got 'none'"),
            ({"damping": 1.0}, r"damping must be in \[0, 0.9375\]"),
            ({"damping": -0.1}, "damping"),
            ({"damping": float("nan")}, "damping"),
            ({"start": np.zeros((20, 20))}, r"start must be None, .* finite of shape \(20, 30\)"),
            ({"start": np.full((20, 30), np.nan)}, "start must be None, an overlap or finite"),
            ({"start": 1.0}, r"start must be an overlap in \(0, 1\) or a matrix, got 1.0"),
            ({"start": -0.1}, "start must be >= 0 and finite, got -0.1"),
        ],
    )
    def test_bad_input(self, keywords, message):
        with pytest.raises(ValueError, match=message):
            amp(self.DATA, **keywords)

    def test_a_design_that_is_not_finite(self):
        broken = np.asarray(self.DATA.X).copy()
        broken[3, 2, 1] = np.nan
        data = Instance(DenseDesign(broken), self.DATA.y, self.DATA.S, self.DATA.problem)
        with pytest.raises(ValueError, match="X of the instance must be finite"):
            amp(data)
