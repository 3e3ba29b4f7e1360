"""Message passing for attention against its definitions and against state evolution."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from bsr_theory import GaussianChannel, Problem, Status, iterate, solve
from bsr_theory.attention import (
    AttentionInstance,
    LinearTokenChannel,
    SoftmaxChannel,
    amp,
    cross_attention,
    hardmax_attention,
    linear_attention,
    quadratic_network,
    sample,
    self_attention,
    softmax_attention,
)
from bsr_theory.attention.amp import (
    _covariances,
    _denoise_symmetric,
    _equations,
    _gather,
    _pairs,
    _whitened,
)
from bsr_theory.priors import GaussianFactorPrior, SymmetricFactorPrior

SMALL = {
    "tied": softmax_attention(0.2, 0.5, 3),
    "linear": linear_attention(0.2, 0.5, 2, delta=0.1),
    "cross": cross_attention(0.2, 1.5, 0.5, 2, 3),
    "masked": self_attention(0.2, 0.5, 4, masked=True),
}


def measurements(data: AttentionInstance, n: int) -> np.ndarray:
    """The matrices M_p of one sample, from the definition of a score."""
    channel = data.problem.channel
    d1, d2 = data.S.shape
    rows = []
    for a, b in zip(*_pairs(channel), strict=True):
        outer = np.outer(data.queries[n, a], data.keys[n, b])
        if channel.tied:
            outer = 0.5 * (outer + outer.T) - (a == b) * np.eye(d1)
        rows.append(outer / math.sqrt(d1 * d2))
    return np.array(rows)


class TestPieces:
    @pytest.mark.parametrize("name", SMALL)
    def test_scores_covariances_and_their_transpose(self, name):
        data = sample(SMALL[name], 12, rng=0)
        channel = data.problem.channel
        M = np.array([measurements(data, n) for n in range(len(data.queries))])
        a, b = _pairs(channel)
        scores = data.scores(data.S)
        np.testing.assert_allclose(
            scores[:, a, b], np.einsum("npij,ij->np", M, data.S), rtol=1e-11, atol=1e-12
        )
        if channel.tied:
            np.testing.assert_allclose(scores, np.swapaxes(scores, 1, 2), atol=1e-12)
        factor = 2.0 if channel.tied else 1.0
        C = factor * np.einsum("npij,nqij->npq", M, M)
        np.testing.assert_allclose(_covariances(data), C, atol=1e-12)
        g = np.random.default_rng(1).standard_normal((len(M), a.size))
        np.testing.assert_allclose(
            _gather(data, g), np.einsum("np,npij->ij", g, M), rtol=1e-11, atol=1e-12
        )

    @pytest.mark.parametrize("name", SMALL)
    def test_covariances_tend_to_those_of_the_limit(self, name):
        data = sample(SMALL[name], 80, rng=0)
        a, b = _pairs(data.problem.channel)
        D = data.problem.channel.pair_variance[a, b]
        # corrections of order 1/d
        np.testing.assert_allclose(_covariances(data).mean(axis=0), np.diag(D), atol=0.08)

    @pytest.mark.parametrize(
        "channel",
        [
            SoftmaxChannel(3, 3),
            SoftmaxChannel(2, 4, False),
            SoftmaxChannel(4, 4, False, masked=True),
            LinearTokenChannel(2, 2),
        ],
    )
    def test_equations_are_what_a_label_tells(self, channel):
        A = _equations(channel)
        a, b = _pairs(channel)
        assert np.linalg.matrix_rank(A) == len(A) == channel.equations
        z = np.random.default_rng(0).standard_normal((channel.queries, channel.keys))
        z = z + z.T if channel.tied else z
        # the projection changes nothing that they see
        np.testing.assert_allclose(A @ channel.project(z)[a, b], A @ z[a, b], atol=1e-12)

    @pytest.mark.parametrize("name", SMALL)
    def test_whitened_equations_give_the_score_of_the_definition(self, name):
        data = sample(SMALL[name], 12, rng=0)
        channel, V, delta = data.problem.channel, 0.3, 0.1
        A, C = _equations(channel), _covariances(data)
        B, power = _whitened(channel, C)
        z = np.random.default_rng(1).standard_normal((len(C), C.shape[1]))
        D = np.diag(channel.pair_variance[_pairs(channel)])
        for n in range(len(C)):
            direct = A.T @ np.linalg.inv(V * A @ C[n] @ A.T + delta * A @ D @ A.T) @ A
            found = B[n].T @ (B[n] @ z[n] / (V * power[n] + delta))
            np.testing.assert_allclose(found, direct @ z[n], rtol=1e-9, atol=1e-11)
            response = np.sum(power[n] / (V * power[n] + delta))
            assert response == pytest.approx(np.trace(direct @ C[n]), rel=1e-10)

    # all eigenvalues inside the spectrum, one above it, one below
    @pytest.mark.parametrize(("noise", "shift"), [(0.4, 0.0), (0.4, 40.0), (0.1, -40.0)])
    def test_divergence_by_finite_differences(self, noise, shift):
        rng = np.random.default_rng(0)
        prior = SymmetricFactorPrior(4 / 7)
        Z = rng.standard_normal((7, 7))
        R = prior.sample(7, rng=rng) + np.sqrt(noise / 2) * (Z + Z.T)
        R[0, 0] += shift
        _, divergence = _denoise_symmetric(prior, R, noise)
        total, step = 0.0, 1e-6
        for i in range(7):
            for j in range(i, 7):
                E = np.zeros((7, 7))
                E[i, j] = E[j, i] = 1.0
                up, down = (
                    _denoise_symmetric(prior, R + x * step * E, noise)[0][i, j] for x in (1, -1)
                )
                total += (up - down) / (2 * step)
        assert divergence == pytest.approx(total / 28, rel=1e-6)

    def test_divergence_at_equal_eigenvalues(self):
        prior = SymmetricFactorPrior(0.5)
        R = np.diag([1.0, 1.0, 1.0, 2.0, 3.0])
        apart = R + np.diag([0.0, 1e-6, -1e-6, 0.0, 0.0])
        values = [_denoise_symmetric(prior, x, 0.5)[1] for x in (R, apart)]
        assert values[0] == pytest.approx(values[1], rel=1e-4)

    def test_denoiser_is_that_of_the_prior(self):
        # but for eigenvalues below the spectrum
        prior, rng = SymmetricFactorPrior(0.5), np.random.default_rng(1)
        Z = rng.standard_normal((60, 60))
        R = prior.sample(60, rng=rng) + np.sqrt(0.25) * (Z + Z.T)
        edge = prior.law(0.5).edges[0, 0]
        values, vectors = np.linalg.eigh(R / np.sqrt(60))
        values[0] = edge - 0.2
        estimate, _ = _denoise_symmetric(prior, np.sqrt(60) * (vectors * values) @ vectors.T, 0.5)
        found = np.einsum("ik,ij,jk->k", vectors, estimate, vectors) / np.sqrt(60)
        np.testing.assert_allclose(found[1:], prior.shrink(values[1:], 0.5), atol=1e-12)
        assert found[0] == pytest.approx(prior.shrink(edge, 0.5), abs=1e-12)


def of_size(problem, d):
    """The problem whose limit counts the d (d + 1)/2 entries of a symmetric S of size d."""
    return dataclasses.replace(problem, alpha=problem.alpha * d / (d + 1))


def random_problem(kind, rng):
    """A problem with any number of labels, a size, and the variance of S per entry there."""
    rho, share = rng.uniform(0.2, 1.0), rng.uniform(0.05, 1.2)
    delta, d = float(rng.choice([0.0, 0.1])), int(rng.integers(20, 41))
    if kind == "cross":
        problem = cross_attention(share * rho * (2.0 - rho) / 4, 1.0, rho, 2, 3, delta)
        return problem, d, 1.0
    make, tokens = KINDS[kind]
    problem = make(1.0, rho, tokens, delta=delta)
    alpha = share * rho * (1.0 - rho / 2) / problem.channel.equations
    return dataclasses.replace(problem, alpha=alpha), d, 1.0 + 1.0 / d


KINDS = {
    "one token": (linear_attention, 1),
    "linear, 2 tokens": (linear_attention, 2),
    "linear, 3 tokens": (linear_attention, 3),
    "softmax, 2 tokens": (softmax_attention, 2),
    "softmax, 3 tokens": (softmax_attention, 3),
    "cross": None,
}


def fate(kind, seed, **keywords):
    """The last and the largest error over the variance of S, and whether the run settled."""
    problem, d, variance = random_problem(kind, np.random.default_rng((3, seed)))
    run = amp(sample(problem, d, rng=seed), **keywords)
    for series in (run.mse, run.overlap, run.estimated_mse, run.qhat, run.misfit, run.damping):
        assert np.isfinite(series).all()
    assert np.isfinite(run.estimate).all()
    assert run.status in (Status.CONVERGED, Status.PERFECT_RECOVERY, Status.NOT_CONVERGED)
    return run.mse[-1] / variance, run.mse.max() / variance, run.status.ok


class TestNoRunDiverges:
    @pytest.mark.parametrize("kind", KINDS)
    def test_random_problems(self, kind):
        for seed in range(3):
            last, most, _ = fate(kind, seed, steps=200)
            assert last < 1.3
            assert most < 10.0

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", KINDS)
    def test_many_random_problems(self, kind):
        last, most, settled = np.transpose([fate(kind, 100 + seed) for seed in range(25)])
        assert last.max() < 1.3
        assert most.max() < 10.0
        # the others are at a threshold, where errors fall slowly, or have a handful of samples
        assert np.mean(settled) > 0.6

    @pytest.mark.parametrize(("equations", "delta", "d"), [(0.15, 0.0, 50), (0.1, 0.1, 20)])
    def test_few_samples_of_six_pairs(self, equations, delta, d):
        # never giving up, with a constant damping of 0.3: 2 to 400 and 1e8 times the signal
        problem = cross_attention(equations / 4, 1.0, 0.3, 2, 3, delta)
        runs = [amp(sample(problem, d, rng=k), steps=150) for k in range(4)]
        last = [r.mse[-1] for r in runs]
        assert max(r.damping.max() for r in runs) > 0.7
        assert max(last) < 1.3
        # 10 samples at d = 20: as little as in the limit, within the scatter of instances
        assert np.mean(last) == pytest.approx(solve(problem).mmse, abs=0.15)

    def test_more_pairs_than_coordinates(self):
        # 21 scores of 3 entries: dependent equations
        problem = softmax_attention(1.0, 0.5, 6)
        result = amp(sample(problem, 2, rng=0), steps=50)
        assert np.isfinite(result.mse).all()
        assert result.mse[-1] < 1e-10


class TestRuns:
    def test_collapse_at_equal_equations_per_entry(self):
        # one token, two, three: the same error at the same alpha K
        equations = 0.55 * 0.375
        exact = solve(quadratic_network(equations, 0.5)).mmse
        means = []
        for problem in (
            quadratic_network(equations, 0.5),
            softmax_attention(equations / 2, 0.5, 2),
            softmax_attention(equations / 5, 0.5, 3),
        ):
            runs = [amp(sample(problem, 100, rng=seed)) for seed in range(2)]
            means.append(np.mean([r.mse[-1] for r in runs]))
            assert np.mean([r.estimated_mse[-1] for r in runs]) == pytest.approx(exact, rel=0.1)
        # runs lie above the limit by a few per d, and spread by 0.01
        np.testing.assert_allclose(means, exact, rtol=0.08)
        assert np.ptp(means) < 0.03

    def test_perfect_recovery(self):
        problem = softmax_attention(3 * 0.375 / 2, 0.5, 2)
        result = amp(sample(problem, 50, rng=0))
        assert result.status is Status.PERFECT_RECOVERY
        assert result.mse[-1] < 1e-10
        assert result.overlap[-1] == pytest.approx(1.5, rel=0.2)

    def test_follows_state_evolution(self):
        problem, d = softmax_attention(0.1, 0.5, 2), 120
        steps = iterate(of_size(problem, d), 5)
        runs = [amp(sample(problem, d, rng=k), steps=5, damping=0.0, tolerance=0) for k in range(3)]
        mean = np.mean([r.mse for r in runs], axis=0)
        np.testing.assert_allclose(mean, steps.mmse * (d + 1) / d, rtol=0.06)
        # the noise of an undamped iteration by 11 percent at d = 120, by 4 percent at 250
        np.testing.assert_allclose(np.mean([r.qhat for r in runs], axis=0), steps.qhat, rtol=0.12)

    def test_settles_where_denoising_at_that_size_says(self):
        """State evolution with the error of S + noise denoised at d = 60, not in the limit.

        It shares with the algorithm the number of independent entries, and nothing else.
        """
        d, delta = 60, 0.1
        problem = softmax_attention(0.1, 0.5, 2, delta=delta)
        prior, entries = problem.prior.at_size(d), d * (d + 1) / 2
        labels = 2 * round(problem.alpha * d * d) / entries

        def error(s):
            found = []
            for k in range(10):
                rng = np.random.default_rng((9, k))
                S, Z = prior.sample(d, rng=rng), rng.standard_normal((d, d))
                R = S + np.sqrt(s / 2) * (Z + Z.T)
                found.append(np.sum((prior.denoise(R, s) - S) ** 2) / (2 * entries))
            return float(np.mean(found))

        v = 1.0
        for _ in range(12):
            v = error((v + delta) / labels)
        runs = [amp(sample(problem, d, rng=k)) for k in range(8)]
        assert all(r.status is Status.CONVERGED for r in runs)
        expected = v * (d + 1) / d
        mse = np.array([r.mse[-1] for r in runs])
        # the rest, 2 or 3 per d, is what message passing loses
        assert abs(mse.mean() - expected) < (3 / d) * expected + 2.0 * mse.std() / np.sqrt(8)
        believed = np.mean([r.estimated_mse[-1] for r in runs])
        assert believed == pytest.approx(expected, rel=0.05)

    def test_tied_runs_settle(self):
        # without damping they end in cycles of two
        for share in (0.3, 0.55, 0.8):
            problem = softmax_attention(share * 0.375 / 2, 0.5, 2)
            for k in range(3):
                result = amp(sample(problem, 60, rng=k))
                assert result.status is Status.CONVERGED

    def test_cross_attention(self):
        for problem, d in ((cross_attention(0.3, 1.0, 0.5, 1, 2), 80),
                           (cross_attention(0.112, 1.5, 0.4, 2, 2), 80)):  # fmt: skip
            result = amp(sample(problem, d, rng=0), steps=25)
            assert result.mse[-1] == pytest.approx(solve(problem).mmse, rel=0.06)

    def test_masked_self_attention(self):
        # the rotational invariance that state evolution assumes, checked on the algorithm
        problem = self_attention(0.4 / 3, 0.5, 3, masked=True)
        result = amp(sample(problem, 80, rng=0), steps=25)
        assert result.mse[-1] == pytest.approx(solve(problem).mmse, rel=0.06)

    def test_with_noise(self):
        problem = softmax_attention(0.225, 0.5, 2, delta=0.1)
        result = amp(sample(problem, 80, rng=0), steps=30)
        assert result.mse[-1] == pytest.approx(solve(problem).mmse, rel=0.12)

    @pytest.mark.slow
    def test_excess_over_the_limit_vanishes_with_size(self):
        problem = softmax_attention(0.8 * 0.375 / 2, 0.5, 2)
        exact, excess = solve(problem).mmse, {}
        for d, samples in ((60, 12), (200, 4)):
            runs = [amp(sample(problem, d, rng=k)) for k in range(samples)]
            excess[d] = np.mean([r.mse[-1] for r in runs]) / exact - 1.0
        assert abs(excess[200]) < 0.04 < excess[60] < 0.2

    @pytest.mark.slow
    def test_worst_case_of_small_rank(self):
        # r = 20 only: finite-size bias of 15 percent in the middle of the range
        problem = softmax_attention(0.55 * 0.36 / 4, 0.2, 2)
        mean = np.mean([amp(sample(problem, 100, rng=k)).mse[-1] for k in range(4)])
        assert mean == pytest.approx(solve(problem).mmse, rel=0.15)

    def test_what_comes_back(self):
        problem = softmax_attention(0.1, 0.5, 2)
        result = amp(sample(problem, 30, rng=0), steps=4, tolerance=0.0)
        assert result.status is Status.NOT_CONVERGED
        assert result.iterations == 4
        assert result.mse.shape == result.overlap.shape == result.estimated_mse.shape == (5,)
        assert result.qhat.shape == result.misfit.shape == result.damping.shape == (4,)
        # before the first iteration the algorithm knows the law of S
        assert result.estimated_mse[0] == 31 / 30
        assert result.damping[0] == 0.5
        np.testing.assert_allclose(result.estimate, result.estimate.T)
        assert result.seconds > 0
        again = amp(sample(problem, 30, rng=0), steps=4, damping=0.5, tolerance=0.0)
        np.testing.assert_array_equal(again.mse, result.mse)


class TestInput:
    def test_bad_input(self):
        data = sample(softmax_attention(0.2, 0.5, 2), 10, rng=0)
        for call, message in (
            (lambda: amp(data, steps=0), "steps must be a positive integer, got 0"),
            (lambda: amp(data, damping=1.0), r"damping must be in \[0, 0\.9375\] .*, got 1\.0"),
            (lambda: amp(data, damping="none"), "damping must be 'auto' or a number, got 'none'"),
            (lambda: amp(data, damping=[0.1, 0.2]), r"damping must be a scalar"),
            (lambda: amp(data, tolerance=-1), r"tolerance must be >= 0 and finite, got -1\.0"),
            (
                lambda: amp(dataclasses.replace(data, queries=np.full_like(data.queries, np.nan))),
                "queries of the instance must be finite",
            ),
            (lambda: sample(softmax_attention([0.1, 0.2], 0.5), 10), "scalar parameters"),
            (lambda: sample(softmax_attention(1e-4, 0.5), 10), "alpha must leave at least one"),
            (
                lambda: sample(Problem(SymmetricFactorPrior(0.5), SoftmaxChannel()), 10),
                "alpha must be a number to sample",
            ),
            (
                lambda: sample(Problem(GaussianFactorPrior(1, 1), GaussianChannel(), 0.1), 10),
                "problem must have a channel of token pairs",
            ),
            (
                lambda: amp(
                    sample(Problem(GaussianFactorPrior(1.0, 0.5), SoftmaxChannel(), 0.2), 10, rng=0)
                ),
                "prior must be symmetric for tied tokens",
            ),
            (
                lambda: AttentionInstance(
                    data.queries[:, :, :5], data.keys, data.y, data.S, data.problem
                ),
                r"queries must have shape \(n, T1, 10\)",
            ),
        ):
            with pytest.raises(ValueError, match=message):
                call()
        with pytest.raises(NotImplementedError, match="linear combinations of scores"):
            amp(sample(hardmax_attention(0.2, 0.5), 10, rng=0))
