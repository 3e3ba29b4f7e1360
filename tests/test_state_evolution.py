"""State evolution: fixed points by something else than the solver, and its promises."""

from __future__ import annotations

import dataclasses
import math
import warnings

import highprec
import mpmath
import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special, stats

import bsr_theory as bsr
from bsr_theory import (
    AbsChannel,
    Channel,
    ConvergenceError,
    ConvergenceWarning,
    GaussianChannel,
    GaussianFactorPrior,
    LogisticChannel,
    LowRankFactorPrior,
    Problem,
    QuantizedChannel,
    ReLUChannel,
    SignChannel,
    Status,
    SymmetricFactorPrior,
    bilinear_regression,
    fixed_points,
    free_entropy,
    iterate,
    phase_diagram,
    solve,
    state_evolution,
)

INF = float("inf")


@dataclasses.dataclass(frozen=True)
class AbsTestChannel(Channel):
    """y = |h| without noise, by plain Gauss-Hermite: a channel with first-order transitions."""

    @property
    def resolves(self):
        return 1.0

    def _evidence(self, q, v):
        # V g = y tanh(y omega/V) - omega, y = |h|
        x, w = np.polynomial.hermite_e.hermegauss(60)
        w = w / w.sum()
        q, v = np.asarray(q, float)[..., None, None], np.asarray(v, float)[..., None, None]
        omega = np.sqrt(q) * x[:, None]
        y = np.abs(omega + np.sqrt(v) * x)
        g = (y * np.tanh(y * omega / np.maximum(v, 1e-300)) - omega) / np.maximum(v, 1e-300)
        return np.einsum("...ij,i,j->...", g**2, w, w)

    def precision(self, q, v=None):
        q = np.asarray(q, float)
        v = 1 - q if v is None else np.asarray(v, float)
        with np.errstate(divide="ignore"):
            return np.where(v > 1e-12, self._evidence(q, np.maximum(v, 1e-12)), 1 / v)

    def information(self, q, v=None):
        # minus half the integral of precision from 0, by Gauss-Legendre
        x, w = np.polynomial.legendre.leggauss(40)
        q = np.asarray(q, float)
        grid = 0.5 * q[..., None] * (x + 1)
        values = self.precision(grid)
        return -0.25 * q * np.sum(w * values, axis=-1)

    def score(self, y, omega, V):
        raise NotImplementedError

    def sample(self, h, *, rng=None):
        return np.abs(h)


class TestSolve:
    @pytest.mark.parametrize(
        ("alpha", "beta", "rho", "delta"),
        [(0.4, 2.0, 0.5, 0.1), (0.2, 1.0, 0.3, 0.0), (1.5, 5.0, 2.0, 0.5), (0.05, 1.0, 1.0, 0.0)],
    )
    def test_against_the_naive_solver(self, alpha, beta, rho, delta):
        # brentq on adaptive quadratures of companion-matrix densities
        expected = naive.solve(alpha, beta, rho, delta)
        point = solve(bilinear_regression(alpha, beta, rho, delta))
        assert point.mmse == pytest.approx(expected, rel=1e-6)

    def test_published_overlaps(self):
        # arXiv:2410.18858, figure 8: maxima of the free entropy
        rows = [
            (1, 0.5, 0.35, 0.43132), (1, 0.5, 0.7, 0.91562), (1, 0.5, 0.74, 0.97919),
            (1, 1, 0.5, 0.54434), (1, 1, 0.95, 0.97498), (1, 1, 0.99, 0.99636),
            (2, 0.5, 0.2, 0.24474), (2, 0.5, 0.575, 0.89717), (2, 0.5, 0.615, 0.97995),
            (2, 1, 0.5, 0.57875), (2, 1, 0.95, 0.99107), (2, 1, 0.99, 0.99961),
        ]  # fmt: skip
        beta, rho, alpha, q = np.array(rows).T
        np.testing.assert_allclose(solve(bilinear_regression(alpha, beta, rho)).q, q, atol=6e-6)

    @given(
        st.floats(-3, 0.7),
        st.floats(0, 4),
        st.floats(-3, 2),
        st.one_of(st.just(0.0), st.floats(-8, 3).map(lambda x: 10**x)),
    )
    def test_equations_hold_at_the_returned_point(self, log_alpha, log_beta, log_rho, delta):
        alpha, beta, rho = 10**log_alpha, 10**log_beta, 10**log_rho
        point = solve(bilinear_regression(alpha, beta, rho, delta))
        prior = GaussianFactorPrior(beta, rho)
        if point.status == Status.PERFECT_RECOVERY:
            assert delta == 0.0
            assert alpha >= prior.strong_recovery
            assert (point.mmse, point.q, point.qhat, point.residual) == (0.0, 1.0, INF, 0.0)
            return
        assert point.status is Status.CONVERGED
        assert point.mmse == pytest.approx(prior.mmse(1 / point.qhat), rel=1e-10)
        assert point.qhat == pytest.approx(alpha / (delta + point.mmse), rel=1e-9)
        assert point.residual <= 1e-11
        assert point.q + point.mmse == pytest.approx(1.0, abs=1e-12)

    def test_many_alphas_equal_single_solves(self):
        # the table only guesses: alone or in company, a point is the same
        alpha = np.geomspace(1e-3, 3.0, 200)
        for delta in (0.0, 1e-6, 0.3):
            together = solve(bilinear_regression(alpha, 1.5, 0.4, delta))
            alone = [solve(bilinear_regression(a, 1.5, 0.4, delta)).mmse for a in alpha]
            np.testing.assert_allclose(together.mmse, alone, rtol=1e-9)
            shuffled = np.random.default_rng(0).permutation(alpha.size)
            again = solve(bilinear_regression(alpha[shuffled], 1.5, 0.4, delta))
            np.testing.assert_allclose(again.mmse, together.mmse[shuffled], rtol=1e-9)

    @pytest.mark.parametrize(
        ("beta", "rho"), [(2.0, 0.5), (1.0, 0.2), (1.0, 1.0), (3.0, 1.0), (1.0, 2.0), (INF, 0.3)]
    )
    def test_relative_accuracy_just_below_strong_recovery(self, beta, rho):
        # mpmath: solve strong - M(s)/s = strong - alpha with exact differences
        prior = GaussianFactorPrior(beta, rho)
        for distance in (1e-2, 1e-4, 1e-6, 1e-9, 1e-12):
            alpha = prior.strong_recovery * (1 - distance)
            point = solve(bilinear_regression(alpha, beta, rho))
            assert point.status is Status.CONVERGED
            assert point.mmse > 0
            if beta == INF or distance < 1e-6:
                # M(s)/s at the solution, 30 digits: the residual is below rounding
                exact = _ratio(beta, rho, 1 / point.qhat)
                strong = _strong(beta, rho)
                gap = (strong - exact) / (strong - mpmath.mpf(alpha))
                assert abs(float(gap) - 1) < 1e-7, distance

    def test_threshold_itself_and_above(self):
        for beta, rho in [(2.0, 0.5), (1.0, 1.0), (1.0, 3.0)]:
            strong = GaussianFactorPrior(beta, rho).strong_recovery
            point = solve(bilinear_regression([strong, 1.01 * strong, 50.0], beta, rho))
            assert np.all(point.mmse == 0.0)
            assert np.all(point.status == Status.PERFECT_RECOVERY)

    def test_noise_to_zero(self):
        # 1 - q ~ D delta/(alpha - D) above the threshold
        strong = GaussianFactorPrior(2.0, 0.5).strong_recovery
        delta = np.array([1e-6, 1e-9, 1e-12])
        point = solve(bilinear_regression(0.8, 2.0, 0.5, delta))
        np.testing.assert_allclose(point.mmse / delta, strong / (0.8 - strong), rtol=1e-4)

    def test_limits_in_the_parameters(self):
        alpha = np.array([0.1, 0.4, 0.9])
        # Gaussian prior: mmse of ridge at its optimum, q = root of a quadratic
        point = solve(bilinear_regression(alpha, 2.0, INF, 0.3))
        a = 1 + alpha + 0.3
        overlap = (a - np.sqrt(a * a - 4 * alpha)) / 2
        np.testing.assert_allclose(point.q, overlap, rtol=1e-10)
        np.testing.assert_allclose(solve(bilinear_regression(alpha, 2.0, INF)).mmse, 1 - alpha)
        long = solve(bilinear_regression(alpha, 1e9, 0.5, 0.1)).mmse
        np.testing.assert_allclose(
            solve(bilinear_regression(alpha, INF, 0.5, 0.1)).mmse, long, rtol=1e-6
        )

    def test_low_rank(self):
        # beta = 1 without noise: q = (2 alpha_LR - 1)^2
        alpha = np.array([0.3, 0.5, 0.6, 0.9, 1.0, 1.5])
        point = solve(Problem(LowRankFactorPrior(1.0), GaussianChannel(), alpha))
        expected = np.clip(2 * alpha - 1, 0, 1) ** 2
        np.testing.assert_allclose(point.q, expected, atol=1e-12)
        names = [Status(s).name for s in point.status]
        assert names[0] == names[1] == "NO_RECOVERY"
        assert names[-1] == names[-2] == "PERFECT_RECOVERY"
        # just below strong recovery: 1 - q = 1 - (2 alpha - 1)^2, exactly
        near = solve(Problem(LowRankFactorPrior(1.0), GaussianChannel(), 1 - 1e-10))
        assert near.mmse == pytest.approx(4e-10, rel=1e-6)
        # weak recovery with noise at (1 + delta) sqrt(beta)/(1 + beta)
        weak = 1.1 * math.sqrt(3) / 4
        noisy = Problem(
            LowRankFactorPrior(3.0), GaussianChannel(0.1), weak * np.array([0.999, 1.001])
        )
        assert (solve(noisy).q > 0).tolist() == [False, True]

    def test_infinite_range_of_alpha(self):
        alpha = np.geomspace(1e-8, 1e8, 60)
        point = solve(bilinear_regression(alpha, 2.0, 0.5, 0.1))
        assert np.all(point.status == Status.CONVERGED)
        assert np.all(np.diff(point.mmse) < 0)
        # a linear estimate is best at first: q = alpha/(1 + delta)
        assert point.q[0] == pytest.approx(alpha[0] / 1.1, rel=1e-6)
        strong = GaussianFactorPrior(2.0, 0.5).strong_recovery
        assert point.mmse[-1] == pytest.approx(strong * 0.1 / alpha[-1], rel=1e-4)


def _strong(beta, rho):
    with mpmath.workdps(40):
        r = mpmath.mpf(rho)
        return mpmath.mpf(1) if rho >= 1 else r + (0 if beta == INF else r * (1 - r) / beta)


def _ratio(beta, rho, s):
    """M(s)/s to 30 digits."""
    with mpmath.workdps(40):
        if beta < INF:
            return highprec.evaluate(beta, rho, s, digits=25).mmse / mpmath.mpf(s)
        k, r = mpmath.mpf(s) * rho, mpmath.mpf(rho)
        return 2 * r / (1 + r + k + mpmath.sqrt((1 - r + k) ** 2 + 4 * k * r))


class TestFixedPoints:
    def test_linear_channel_has_one(self):
        every = fixed_points(bilinear_regression(0.4, 2.0, 0.5, 0.1))
        assert every.count == 1
        assert every.stable.all()
        assert every.mmse[0] == solve(bilinear_regression(0.4, 2.0, 0.5, 0.1)).mmse

    def test_noiseless_recovery_is_a_fixed_point_too(self):
        every = fixed_points(bilinear_regression([0.3, 0.7], 2.0, 0.5))
        assert every.count.tolist() == [2, 1]
        assert every.status[:, 0].tolist() == [Status.PERFECT_RECOVERY] * 2
        assert every.stable[:, 0].tolist() == [False, True]
        assert every.slope[:, 0] == pytest.approx([0.625 / 0.3, 0.625 / 0.7])
        assert every.stable[0, 1]

    def test_slope_is_the_rate_of_the_iteration(self):
        problem = bilinear_regression(0.5, 1.5, 0.4, 0.05)
        every = fixed_points(problem)
        errors = iterate(problem, 40).mmse - every.mmse[0]
        rate = errors[21] / errors[20]
        assert every.slope[0] == pytest.approx(rate, rel=1e-4)

    def test_every_branch_of_a_first_order_transition(self):
        # |h| without noise, beta = 1, rho = 0.2: easy above .572, hard below, weak recovery at .5
        prior, channel = GaussianFactorPrior(1.0, 0.2), AbsTestChannel()
        alpha = np.array([0.37, 0.45, 0.53, 0.6])
        every = fixed_points(Problem(prior, channel, alpha))
        # brute force: signs of q'(q) - q on a fine grid, in the interior
        q = np.concatenate([np.geomspace(1e-5, 0.5, 4000), 1 - np.geomspace(0.5, 1e-5, 4000)])
        for k, a in enumerate(alpha):
            after = prior.overlap(1 / (a * channel.precision(q)))
            crossings = np.flatnonzero(np.diff(np.sign(after - q)))
            inner = (every.status[k] == Status.CONVERGED).nonzero()[0]
            assert len(inner) == len(crossings), a
            np.testing.assert_allclose(np.sort(every.q[k, inner]), np.sort(q[crossings]), rtol=5e-3)
            # uphill crossings are unstable
            down = (after - q)[crossings] > 0
            np.testing.assert_array_equal(every.stable[k, inner][::-1], down)
        ends = every.status[:, -1] if every.status.shape[1] else None
        assert ends is not None
        zero = every.status == Status.NO_RECOVERY
        assert zero.any(axis=1).all()
        stable_zero = every.stable[zero]
        np.testing.assert_array_equal(stable_zero, alpha < 0.5)
        perfect = every.status == Status.PERFECT_RECOVERY
        np.testing.assert_array_equal(every.stable[perfect], alpha > 0.36)

    def test_solve_picks_the_least_information(self):
        prior, channel = GaussianFactorPrior(1.0, 0.2), AbsTestChannel()
        problem = Problem(prior, channel, np.array([0.33, 0.6]))
        point = solve(problem)
        assert point.status.tolist() == [Status.NO_RECOVERY, Status.PERFECT_RECOVERY]
        assert point.information[0] == 0.0

    def test_table_where_bulks_meet(self):
        # mmse is only twice differentiable there
        prior = GaussianFactorPrior(2.0, 0.4)
        table = state_evolution._Table.between(prior, -12.0, 12.0)
        x = np.linspace(-12.0, 12.0, 4001)
        np.testing.assert_allclose(np.exp(table.log_mmse(x)), prior.mmse(np.exp(x)), rtol=1e-9)

    def test_padding(self):
        every = fixed_points(bilinear_regression([0.3, 0.7], 2.0, 0.5))
        assert every.status[1, 1] == Status.ABSENT
        assert np.isnan(every.mmse[1, 1])
        assert len(every) == 2


class TestFreeEntropy:
    @pytest.mark.parametrize("delta", [0.0, 0.2])
    @pytest.mark.parametrize(("beta", "rho"), [(1.0, 0.5), (2.0, 1.0), (INF, 0.4)])
    def test_maximum_is_the_fixed_point(self, beta, rho, delta):
        problem = bilinear_regression(0.3, beta, rho, delta)
        point = solve(problem)
        q = np.linspace(0.005, 0.995, 397)
        landscape = free_entropy(problem, q)
        assert abs(q[np.argmax(landscape)] - point.q) < 0.003
        h = 1e-4
        slope = free_entropy(problem, point.q + h) - free_entropy(problem, point.q - h)
        assert abs(slope) < 1e-7
        assert -point.information == pytest.approx(free_entropy(problem, point.q), abs=1e-13)

    @pytest.mark.parametrize(
        ("beta", "rho", "delta"),
        [(2.0, 0.5, 0.1), (1.0, 0.2, 0.01), (1.0, 2.0, 1.0), (INF, 1.0, 0.3)],
    )
    def test_derivative_in_alpha_and_area_theorem(self, beta, rho, delta):
        # d i/d alpha = (1/2) log(1 + mmse/delta), and i is its integral from 0
        x, w = np.polynomial.legendre.leggauss(30)
        upper = 0.9
        ends = np.linspace(0.0, upper, 10)  # where two bulks meet mmse is only C^2
        alpha = (ends[:-1, None] + 0.05 * (x + 1)).ravel()
        point = solve(bilinear_regression(alpha, beta, rho, delta))
        area = np.sum(np.tile(0.05 * w, 9) * 0.5 * np.log1p(point.mmse / delta))
        total = solve(bilinear_regression(upper, beta, rho, delta)).information
        assert total == pytest.approx(area, rel=1e-7)
        h = 1e-4
        two = solve(bilinear_regression([0.5 - h, 0.5 + h], beta, rho, delta)).information
        middle = solve(bilinear_regression(0.5, beta, rho, delta))
        slope = (two[1] - two[0]) / (2 * h)
        assert slope == pytest.approx(0.5 * math.log1p(middle.mmse / delta), rel=1e-6)

    def test_derivative_in_the_noise(self):
        # I-MMSE for the labels: d i/d(1/delta) = (alpha/2) mmse/(1 + mmse/delta)
        delta, h = 0.2, 1e-4
        inverse = 1 / delta + h * np.array([-1, 1])
        two = solve(bilinear_regression(0.5, 2.0, 0.5, 1 / inverse)).information
        mmse = solve(bilinear_regression(0.5, 2.0, 0.5, delta)).mmse
        slope = (two[1] - two[0]) / (2 * h)
        assert slope == pytest.approx(0.25 * mmse / (1 + mmse / delta), rel=1e-7)


class TestIterate:
    def test_is_the_map(self):
        problem = bilinear_regression(0.4, 2.0, 0.5, 0.1)
        steps = iterate(problem, 5)
        assert steps.mmse.shape == steps.q.shape == (6,)
        assert steps.qhat.shape == (5,)
        mmse = 1.0
        for k in range(5):
            qhat = 0.4 / (0.1 + mmse)
            mmse = naive.mmse(2.0, 0.5, 1 / qhat)
            assert steps.qhat[k] == pytest.approx(0.4 / (0.1 + steps.mmse[k]))
            assert steps.mmse[k + 1] == pytest.approx(mmse, rel=1e-7)

    def test_converges_to_the_solution_from_both_ends(self):
        problem = bilinear_regression(np.array([0.2, 0.5]), 2.0, 0.5, 0.1)
        point = solve(problem)
        for start in (0.0, 1.0, [0.3, 0.9]):
            np.testing.assert_allclose(iterate(problem, 200, q=start).mmse[:, -1], point.mmse)

    def test_bad_input(self):
        problem = bilinear_regression(0.4, 2.0, 0.5)
        with pytest.raises(ValueError, match="steps must be a positive integer, got 0"):
            iterate(problem, 0)
        with pytest.raises(ValueError, match=r"q must be in \[0, 1\], got 2\.0"):
            iterate(problem, 3, q=2.0)


class TestInput:
    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"alpha": 0.0}, r"alpha must be > 0 and finite, got 0\.0"),
            ({"alpha": -1}, r"alpha must be > 0 and finite, got -1\.0"),
            ({"alpha": math.nan}, "alpha must be > 0 and finite, got nan"),
            ({"alpha": INF}, "alpha must be > 0 and finite, got inf"),
            ({"alpha": "many"}, "alpha must be a number or an array of numbers, got 'many'"),
            ({"beta": 0.5}, r"beta must be >= 1, got 0\.5"),
            ({"rho": 0.0}, r"rho must be > 0, got 0\.0"),
            ({"delta": -1e-3}, r"delta must be >= 0 and finite, got -0\.001"),
            ({"alpha": [1, 2], "rho": [1, 2, 3]}, r"shapes do not broadcast together"),
        ],
    )
    def test_scalars_raise(self, kwargs, message):
        with pytest.raises(ValueError, match=message):
            bilinear_regression(**{"alpha": 0.5, "beta": 2.0, "rho": 0.5, "delta": 0.1, **kwargs})

    def test_a_bad_element_never_changes_its_neighbours(self):
        alpha = np.array([0.3, -1.0, 0.5, math.nan, 0.2])
        rho = np.array([1.0, 1.0, -2.0, 1.0, 0.5])
        delta = np.array([0.1, 0.1, 0.1, 0.1, 0.0])
        with pytest.warns(ConvergenceWarning, match="3 of 5 points: INVALID_INPUT"):
            point = solve(bilinear_regression(alpha, 2.0, rho, delta))
        assert np.isnan(point.mmse).tolist() == [False, True, True, True, False]
        for k in (0, 4):
            alone = solve(bilinear_regression(alpha[k], 2.0, rho[k], delta[k]))
            assert point.mmse[k] == pytest.approx(alone.mmse, rel=1e-12)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            quiet = solve(bilinear_regression(alpha, 2.0, rho, delta), on_failure="return")
        np.testing.assert_array_equal(quiet.mmse, point.mmse)
        with pytest.raises(ConvergenceError, match="INVALID_INPUT"):
            solve(bilinear_regression(alpha, 2.0, rho, delta), on_failure="raise")
        with pytest.raises(ValueError, match="on_failure must be"):
            solve(bilinear_regression(0.3, 2.0, 1.0), on_failure="ignore")  # type: ignore[arg-type]
        every = fixed_points(bilinear_regression(alpha, 2.0, rho, delta))
        assert every.status[1, 0] == Status.INVALID_INPUT

    def test_alpha_is_needed(self):
        problem = Problem(GaussianFactorPrior(2.0, 0.5), GaussianChannel())
        for call in (solve, fixed_points, lambda p: iterate(p, 3), lambda p: free_entropy(p, 0.5)):
            with pytest.raises(ValueError, match="alpha must be given"):
                call(problem)

    def test_broadcasting_and_scalars(self):
        problem = bilinear_regression(np.array([0.2, 0.4, 0.6])[:, None], [1.0, 2.0], 0.5, 0.1)
        point = solve(problem)
        assert point.shape == problem.shape == (3, 2)
        assert point.iterations.shape == point.status.shape == (3, 2)
        single = solve(bilinear_regression(0.4, 2.0, 0.5, 0.1))
        assert all(isinstance(x, float) for x in (single.q, single.qhat, single.mmse))
        assert isinstance(single.status, Status)
        assert point.mmse[1, 1] == pytest.approx(single.mmse, rel=1e-12)
        empty = solve(bilinear_regression(np.empty((0, 3)), 2.0, 0.5))
        assert empty.shape == (0, 3)

    def test_status_gives_advice(self):
        for status in Status:
            assert status.advice.endswith(".")
        assert not Status.INVALID_INPUT.ok

    def test_results_are_frozen(self):
        point = solve(bilinear_regression(0.4, 2.0, 0.5, 0.1))
        with pytest.raises(dataclasses.FrozenInstanceError):
            point.q = 0.0  # type: ignore[misc]

    def test_names(self):
        assert bsr.solve is solve
        assert set(bsr.__all__) <= set(dir(bsr))
        with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
            bsr.nonsense  # noqa: B018


@pytest.mark.slow
def test_a_million_points():
    alpha = np.linspace(0.01, 1.2, 1000)
    rho = np.geomspace(0.01, 2.0, 1000)[:, None]
    point = solve(bilinear_regression(alpha, 1.5, rho))
    assert np.all(point.status < Status.NOT_CONVERGED)
    assert np.all(np.diff(point.mmse, axis=1) <= 0)
    # the error grows with the width of the teacher
    assert np.all(np.diff(point.mmse, axis=0) >= -1e-12)


@pytest.mark.parametrize("delta", [1e-8, 1e-10, 1e-13, 1e-15, 1e-20, 1e-50, 1e-100, 1e-290])
@pytest.mark.parametrize(
    ("channel", "share"), [(GaussianChannel, 1.0), (AbsChannel, 1.0), (ReLUChannel, 0.5)]
)
def test_little_noise_and_many_labels(channel, share, delta):
    """Then ``M = r s`` and ``share alpha s = delta + M``, r the degrees of freedom an entry."""
    prior = GaussianFactorPrior(1.0, 0.3)
    r = prior.strong_recovery
    alpha = np.array([2.0, 7.0, 1e3, 1e6])
    found = solve(Problem(prior, channel(delta), alpha))
    assert (found.status == Status.CONVERGED).all()
    exact = r * delta / (share * alpha - r)
    np.testing.assert_allclose(found.mmse, exact, rtol=3.0 * delta**0.5 + 1e-9)
    one = solve(Problem(prior, channel(delta), 2.0))
    assert one.mmse == pytest.approx(found.mmse[0], rel=1e-9, abs=0.0)


def test_fixed_points_that_no_double_holds_are_not_passed_over():
    """The point of no recovery must not stand for one of mmse 1e-310."""
    problem = Problem(GaussianFactorPrior(1.0, 0.3), AbsChannel(1e-10), 1e300)
    found = solve(problem, on_failure="return")
    assert (found.status, np.isnan(found.mmse)) == (Status.NOT_CONVERGED, True)


@pytest.mark.parametrize("gain", [0.0, 1e-200, 1e-154, 1e-100, 1e-20, 1e-10])
def test_labels_that_tell_next_to_nothing(gain):
    """``gain^2/4`` of a label, so that ``q = alpha gain^2/4`` if that is small."""
    prior, alpha = GaussianFactorPrior(2.0, 0.5), np.array([0.1, 10.0, 1e4])
    found = solve(Problem(prior, LogisticChannel(gain), alpha))
    np.testing.assert_allclose(found.q, alpha * gain**2 / 4.0, rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(found.mmse, 1.0, rtol=1e-9)
    assert found.status.tolist() == [2 if gain < 1e-149 else 0] * 3


@pytest.mark.parametrize("prior", [GaussianFactorPrior(2.0, 0.3), GaussianFactorPrior(1.0, 1e-9)])
def test_noiseless_classes_of_very_many_labels(prior):
    """The error falls with the square of their number: a label in a gap of h tells its place."""
    # precision(q) sqrt(1 - q) -> sum over thresholds of phi(tau) int phi^2/(Phi (1 - Phi))
    density = stats.norm.pdf
    rate = integrate.quad(lambda x: density(x) ** 2 / special.ndtr(x) / special.ndtr(-x), -8, 8)[0]
    alpha = np.array([1e6, 1e10, 1e30, 1e80, 1e120])
    for channel, heights in ((SignChannel(), 0.0), (QuantizedChannel([-0.5, 0.2]), [-0.5, 0.2])):
        expected = (prior.strong_recovery / (alpha * np.sum(density(heights)) * rate)) ** 2
        point = solve(Problem(prior, channel, alpha))
        assert (point.status == Status.CONVERGED).all()
        np.testing.assert_allclose(point.mmse, expected, rtol=1e-5)
        np.testing.assert_allclose(point.mmse[2:], expected[2:], rtol=1e-9)
        plane = phase_diagram(Problem(prior, channel, 1.0), alpha=alpha, beta=[prior.beta])
        np.testing.assert_allclose(plane.mmse_bayes.values.ravel(), point.mmse, rtol=1e-9)


@pytest.mark.parametrize("rho", [1e-6, 1e-10, 1e-60, 1e-140])
def test_noiseless_equations_for_thin_factors(rho):
    """In closed form: mmse = 1 - x at beta = inf, x (2 - x) at beta = 1, x = alpha/rho."""
    x = np.array([0.01, 0.5, 0.9])
    for_many = solve(Problem(GaussianFactorPrior(INF, rho), GaussianChannel(), x * rho))
    assert (for_many.status == Status.CONVERGED).all()
    np.testing.assert_allclose(for_many.mmse, 1.0 - x, rtol=max(2 * rho, 1e-12))
    x = np.array([1.2, 1.5, 1.9])
    for prior in (GaussianFactorPrior(1.0, rho), SymmetricFactorPrior(rho)):
        point = solve(Problem(prior, GaussianChannel(), x * rho / prior.snr_per_alpha))
        assert (point.status == Status.CONVERGED).all()
        np.testing.assert_allclose(point.mmse, x * (2.0 - x), rtol=max(40 * rho, 1e-9))
