"""Message passing for attention against its definitions and against state evolution."""

from __future__ import annotations

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
    _denoise_rectangular,
    _denoise_symmetric,
    _equations,
    _gather,
    _pairs,
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

    @pytest.mark.parametrize("symmetric", [True, False])
    def test_divergence_by_finite_differences(self, symmetric):
        rng = np.random.default_rng(0)
        if symmetric:
            prior, denoise, shape = SymmetricFactorPrior(0.5), _denoise_symmetric, (7, 7)
        else:
            prior, denoise, shape = GaussianFactorPrior(10 / 7, 0.5), _denoise_rectangular, (7, 10)
        R = prior.sample(7, rng=rng) + 0.6 * rng.standard_normal(shape)
        R = 0.5 * (R + R.T) if symmetric else R
        _, divergence = denoise(prior, R, 0.5)
        total, step = 0.0, 1e-6
        for i in range(shape[0]):
            for j in range(i if symmetric else 0, shape[1]):
                E = np.zeros(shape)
                E[i, j] = 1.0
                if symmetric:
                    E[j, i] = 1.0
                up, down = (denoise(prior, R + x * step * E, 0.5)[0][i, j] for x in (1, -1))
                total += (up - down) / (2 * step)
        entries = R.size / 2 if symmetric else R.size
        assert divergence == pytest.approx(total / entries, rel=1e-4)


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
            runs = [amp(sample(problem, 100, rng=seed), steps=25) for seed in range(2)]
            means.append(np.mean([r.mse[-1] for r in runs]))
            assert np.mean([r.estimated_mse[-1] for r in runs]) == pytest.approx(exact, rel=0.1)
        # runs lie above the limit by about 1/d, and spread by 0.01
        np.testing.assert_allclose(means, exact, rtol=0.08)
        assert np.ptp(means) < 0.03

    def test_perfect_recovery(self):
        problem = softmax_attention(3 * 0.375 / 2, 0.5, 2)
        result = amp(sample(problem, 50, rng=0))
        assert result.status is Status.PERFECT_RECOVERY
        assert result.mse[-1] < 1e-10
        assert result.overlap[-1] == pytest.approx(1.5, rel=0.2)

    def test_follows_state_evolution(self):
        problem = softmax_attention(0.1, 0.5, 2)
        steps = iterate(problem, 5)
        runs = [amp(sample(problem, 120, rng=k), steps=5, damping=0.0, tolerance=0) for k in (0, 1)]
        mean = np.mean([r.mse for r in runs], axis=0)
        np.testing.assert_allclose(mean, steps.mmse, rtol=0.08)
        np.testing.assert_allclose(np.mean([r.qhat for r in runs], axis=0), steps.qhat, rtol=0.12)

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
        assert result.qhat.shape == result.damping.shape == (4,)
        np.testing.assert_allclose(result.estimate, result.estimate.T)
        assert result.seconds > 0
        again = amp(sample(problem, 30, rng=0), steps=4, tolerance=0.0)
        np.testing.assert_array_equal(again.mse, result.mse)


class TestInput:
    def test_bad_input(self):
        data = sample(softmax_attention(0.2, 0.5, 2), 10, rng=0)
        for call, message in (
            (lambda: amp(data, steps=0), "steps must be a positive integer, got 0"),
            (lambda: amp(data, damping=1.0), r"damping must be in \[0, 0.999\], got 1\.0"),
            (lambda: amp(data, tolerance=-1), r"tolerance must be >= 0, got -1\.0"),
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
