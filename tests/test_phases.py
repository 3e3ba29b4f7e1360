"""Thresholds and phase diagrams: brute-force iteration, areas, high precision, closed forms."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import highprec
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq, minimize_scalar
from scipy.special import expit, k1

from bsr_theory import (
    GaussianChannel,
    GaussianFactorPrior,
    LowRankFactorPrior,
    Problem,
    RotationallyInvariantPrior,
    Status,
    fixed_points,
    iterate,
    limits,
    phases,
    solve,
)
from bsr_theory._kernels.channels import PRECISION
from bsr_theory.channels import (
    AbsChannel,
    Channel,
    QuantizedChannel,
    ReLUChannel,
    SignChannel,
)
from bsr_theory.phases import critical_point, phase_diagram, thresholds
from bsr_theory.priors import Prior

INF = float("inf")
FIRST_ORDER = ("informed_spinodal", "information_theoretic", "algorithmic")


@dataclasses.dataclass(frozen=True)
class ToyChannel(Channel):
    """Labels that teach nothing at first and all at last: ``precision = q/(1 + delta - q)``."""

    delta: Any = 0.0

    @property
    def shape(self):
        return np.shape(self.delta)

    @property
    def resolves(self):
        return np.where(np.asarray(self.delta) == 0.0, 1.0, 0.0)[()]

    def precision(self, q, v=None):
        q = np.asarray(q, float)
        v = 1.0 - q if v is None else np.asarray(v, float)
        with np.errstate(divide="ignore"):
            return q / (v + np.asarray(self.delta))

    def information(self, q, v=None):
        q = np.asarray(q, float)
        v = 1.0 - q if v is None else np.asarray(v, float)
        c = 1.0 + np.asarray(self.delta)
        with np.errstate(divide="ignore"):
            return 0.5 * (q + c * np.log((v + np.asarray(self.delta)) / c))

    def score(self, y, omega, V):
        raise NotImplementedError

    def sample(self, h, *, rng=None):
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class TricriticalChannel(ToyChannel):
    """``precision = q (1 + delta q)``: for few labels the square of the overlap decides.

    Of independent entries ``alpha = 1/((1 - q)(1 + delta q))``, which falls with q for delta > 1.
    """

    @property
    def resolves(self):
        return np.zeros(self.shape)[()]

    def precision(self, q, v=None):
        return np.asarray(q, float) * (1.0 + np.asarray(self.delta) * q)

    def information(self, q, v=None):
        return -0.25 * np.asarray(q, float) ** 2 * (1.0 + np.asarray(self.delta) * q * 2.0 / 3.0)


@dataclasses.dataclass(frozen=True)
class CostlyToyChannel(ToyChannel):
    """The same, told to be slow: its curves go through the interpolated precision."""

    _costly = True


class RoughToyChannel(CostlyToyChannel):
    """Not smooth in the noise."""

    def precision(self, q, v=None):
        return super().precision(q, v) * (1.0 + np.asarray(self.delta) % 0.1)


def error_after(prior, channel, alpha, q, steps=2000):
    """Return the error that an iteration reaches from overlap q."""
    return iterate(Problem(prior, channel, alpha), steps, q=q).mmse[..., -1]


class TestWeakRecovery:
    def test_half_for_every_prior_when_the_sign_is_lost(self):
        beta, rho = np.array([[1.0], [3.0], [1e3]]), np.array([1e-3, 0.05, 0.5, 1.0, 4.0, INF])
        weak = thresholds(GaussianFactorPrior(beta, rho), AbsChannel()).weak_recovery
        np.testing.assert_allclose(weak, 0.5, rtol=1e-11)

    def test_infinitely_long_sequences(self):
        # there noisy data show the column space of S: the overlap starts as (1 + 1/rho) qhat
        rho = np.array([1e-3, 0.05, 0.5, 1.0, 4.0, INF])
        weak = thresholds(GaussianFactorPrior(INF, rho), AbsChannel()).weak_recovery
        np.testing.assert_allclose(weak, 0.5 / (1.0 + 1.0 / rho), rtol=1e-11)

    def test_noise(self):
        delta = np.array([0.0, 0.3, 2.0])
        weak = thresholds(GaussianFactorPrior(2.0, 0.4), ToyChannel(delta)).weak_recovery
        np.testing.assert_allclose(weak, 1.0 + delta, rtol=1e-11)

    def test_zero_when_the_first_label_teaches_something(self):
        for channel in (GaussianChannel(0.2), SignChannel(), ReLUChannel()):
            assert thresholds(GaussianFactorPrior(2.0, 0.4), channel).weak_recovery == 0.0

    @pytest.mark.parametrize("delta", [0.0, 0.7])
    def test_low_rank(self, delta):
        beta = np.array([1.0, 2.0, 9.0, 1e4])
        prior = LowRankFactorPrior(beta)
        linear = thresholds(prior, GaussianChannel(delta)).weak_recovery
        np.testing.assert_allclose(linear, limits.weak_recovery_low_rank(beta, delta), rtol=1e-12)
        # the sign of h + noise has precision 2/(pi (1 + delta)) at q = 0
        sign = thresholds(prior, SignChannel(delta)).weak_recovery
        np.testing.assert_allclose(sign, math.pi / 2 * linear, rtol=1e-11)
        # a spike below the transition gives no overlap that could be amplified
        assert np.all(np.isinf(thresholds(prior, ToyChannel(delta)).weak_recovery))

    def test_low_rank_against_iteration(self):
        prior, channel = LowRankFactorPrior(2.0), SignChannel(0.1)
        weak = thresholds(prior, channel).weak_recovery
        after = error_after(prior, channel, weak * np.array([0.98, 1.02]), 0.5)
        assert after[0] > 1 - 1e-8
        assert after[1] < 1 - 1e-5


class TestStrongRecovery:
    def test_counts_degrees_of_freedom(self):
        beta, rho = np.array([[1.0], [2.0], [7.0]]), np.array([0.01, 0.3, 1.0, 2.0])
        prior, count = GaussianFactorPrior(beta, rho), limits.strong_recovery(beta, rho)
        for channel, share in ((GaussianChannel(), 1.0), (ToyChannel(), 1.0), (ReLUChannel(), 0.5)):
            found = thresholds(prior, channel)
            assert found.shape == (3, 4)
            np.testing.assert_allclose(found.strong_recovery, count / share, rtol=1e-14)
        for channel in (GaussianChannel(0.1), ToyChannel(1e-3), SignChannel()):
            found = thresholds(prior, channel)
            assert np.all(np.isinf(found.strong_recovery))
            assert np.all(np.isinf(found.strong_recovery_algorithmic))

    def test_perfect_recovery_wins_as_soon_as_it_can(self):
        # without noise its information is -inf, though iteration does not find it
        found = thresholds(GaussianFactorPrior(1.0, 0.2), AbsChannel())
        assert found.information_theoretic == found.strong_recovery == pytest.approx(0.36)
        assert found.informed_spinodal == found.strong_recovery
        assert found.strong_recovery_algorithmic == found.algorithmic > 0.57
        low, high = (found.strong_recovery * x for x in (0.99, 1.01))
        after = error_after(GaussianFactorPrior(1.0, 0.2), AbsChannel(), [low, high], 1 - 1e-9)
        assert after[1] < 1e-12 < after[0]

    def test_continuous_strong_recovery_of_wide_sequences(self):
        # at rho = 1, M(s)/s = 1 - (1 - 1/beta) sqrt(s), and the sign that is lost costs
        # (1 - q) precision = 1 - c sqrt(1 - q): the curve ascends only if c wins
        c = 2 / math.pi * quad(lambda p: p * k1(p) / math.cosh(p), 0, 60, epsabs=1e-12)[0]
        edge = 1 / (1 - c)
        found = thresholds(GaussianFactorPrior([edge - 0.02, edge + 0.02], 1.0), AbsChannel())
        assert found.status.tolist() == [Status.CONVERGED, Status.ABSENT]
        np.testing.assert_array_equal(np.isnan(found.algorithmic), [False, True])
        assert found.strong_recovery_algorithmic[1] == 1.0 < found.strong_recovery_algorithmic[0]


class TestFirstOrder:
    @pytest.mark.parametrize(
        ("prior", "channel"),
        [
            (GaussianFactorPrior(1.0, 0.3), AbsChannel()),
            (GaussianFactorPrior(2.0, 0.2), ToyChannel(0.1)),
            (GaussianFactorPrior(1.0, 0.05), ToyChannel(1e-3)),
        ],
    )
    def test_algorithmic_against_iteration(self, prior, channel):
        found = thresholds(prior, channel)
        after = error_after(prior, channel, found.algorithmic * np.array([0.995, 1.005]), 1e-6)
        informed = error_after(prior, channel, 1.005 * found.algorithmic, 1 - 1e-9)
        assert after[1] == pytest.approx(informed, rel=1e-6, abs=1e-8)
        assert after[0] > informed + 0.1

    @pytest.mark.parametrize("prior", [GaussianFactorPrior(2.0, 0.2), LowRankFactorPrior(2.0)])
    def test_informed_spinodal_against_iteration(self, prior):
        channel = ToyChannel(0.1)
        alpha = thresholds(prior, channel).informed_spinodal * np.array([0.999, 1.001])
        after = error_after(prior, channel, alpha, 1 - 1e-9)
        assert after[0] > after[1] + 0.2

    @pytest.mark.parametrize(
        ("prior", "delta"),
        [
            (GaussianFactorPrior(2.0, 0.2), 0.1),
            (GaussianFactorPrior(1.0, 0.05), 0.02),
            (LowRankFactorPrior(2.0), 0.05),
        ],
    )
    def test_equal_areas(self, prior, delta):
        # between two fixed points: int qhat dq = k alpha int precision dq, from M alone
        k, c = float(prior.snr_per_alpha), 1 + delta

        def curve(s):
            q = prior.overlap(s)
            return (c - q) / (k * s * q) if q > 0 else INF

        grid = np.geomspace(1e-3, 1e4, 4000)
        values = np.array([curve(s) for s in grid])
        finite = np.isfinite(values).all()
        grid, values = grid[np.isfinite(values)], values[np.isfinite(values)]
        dip = 1 + np.flatnonzero((np.diff(values[:-1]) < 0) & (np.diff(values[1:]) > 0))[0]
        peak = dip + int(np.argmax(values[dip:]))

        def area(alpha):
            one = brentq(lambda s: curve(s) - alpha, grid[0], grid[dip])
            two = INF
            if finite and alpha > (1 + delta) / k:
                two = brentq(lambda s: curve(s) - alpha, grid[peak], grid[-1])
            q1, q2 = prior.overlap(one), prior.overlap(two)
            # by parts: int qhat dq = [qhat q] - int q dqhat
            x2 = 0.0 if two == INF else 1 / two
            kinks = np.geomspace(max(x2, 1e-9), 1 / one, 25)
            inner = sum(
                quad(lambda x: prior.overlap(1 / x), a, b, epsabs=0, epsrel=1e-11, limit=200)[0]
                for a, b in zip(np.append(x2, kinks[1:-1]), kinks[1:], strict=True)
            )
            left = q1 / one - q2 * x2 - inner
            right = quad(lambda q: q / (c - q), q2, q1, epsabs=0, epsrel=1e-12)[0]
            return left - k * alpha * right

        found = thresholds(prior, ToyChannel(delta))
        upper = min(found.algorithmic, 3 * values[dip])
        alpha = brentq(area, values[dip] * 1.001, upper * 0.999, xtol=1e-11)
        assert found.information_theoretic == pytest.approx(alpha, rel=1e-8)

    @pytest.mark.slow
    def test_high_precision(self):
        # values of M and I_S to 25 digits; alpha(s) and i are stationary where they are taken
        beta, rho, delta = 2.0, 0.2, 0.1
        prior, c = GaussianFactorPrior(beta, rho), 1 + mpmath.mpf(delta)
        found = thresholds(prior, ToyChannel(delta))

        def log_alpha(x):
            return -x + math.log((1.1 - prior.overlap(math.exp(x))) / prior.overlap(math.exp(x)))

        grid = np.linspace(-4, 9, 500)
        values = [log_alpha(x) for x in grid]
        low = int(np.argmin(values[:300]))
        high = low + int(np.argmax(values[low:]))
        dip, peak = (
            minimize_scalar(f, grid[[i - 5, i, i + 5]], tol=1e-9).x
            for f, i in ((log_alpha, low), (lambda x: -log_alpha(x), high))
        )
        for name, x in (("informed_spinodal", dip), ("algorithmic", peak)):
            with mpmath.workdps(30):
                s = mpmath.exp(x)
                q = 1 - highprec.mmse(beta, rho, s)
                assert getattr(found, name) == pytest.approx(float((c - q) / (s * q)), rel=1e-10)

        # below weak recovery the other branch is q = 0, where i = 0
        assert found.information_theoretic < found.weak_recovery
        target = math.log(found.information_theoretic)
        x = brentq(lambda x: log_alpha(x) - target, dip - 5, dip, xtol=1e-13)
        with mpmath.workdps(30):
            point = highprec.evaluate(beta, rho, mpmath.exp(x))
            signal = point.information - mpmath.exp(-x) * point.mmse / 2
            q = 1 - point.mmse
            alpha = -signal / ((q + c * mpmath.log((c - q) / c)) / 2)
        assert found.information_theoretic == pytest.approx(float(alpha), rel=1e-9)

    def test_spinodals_are_those_of_the_exact_curve(self):
        rho = np.array([0.2, 0.4, 0.8, 1.5])
        found = thresholds(GaussianFactorPrior(1.0, rho), ToyChannel(0.02))
        for k, prior in enumerate(GaussianFactorPrior(1.0, x) for x in rho):

            def curve(x, prior=prior):
                m = prior.mmse(np.exp(x))
                return np.exp(-x) * (0.02 + m) / (1 - m)

            grid = np.linspace(-6, 3, 400)
            low = grid[np.argmin(curve(grid))]
            least = minimize_scalar(curve, bounds=(low - 0.1, low + 0.1), options={"xatol": 1e-8})
            assert found.informed_spinodal[k] == pytest.approx(least.fun, rel=3e-13)

    def test_the_table_only_guesses(self, monkeypatch):
        prior, channel = GaussianFactorPrior(1.0, [0.2, 0.8]), ToyChannel(0.02)
        exact, smooth = thresholds(prior, channel), phases._Denoising.interpolate
        monkeypatch.setattr(
            phases._Denoising,
            "interpolate",
            lambda self, values: smooth(self, values + 1e-6 * np.sin(self.logs)),
        )
        rough = thresholds(prior, channel)
        for name in FIRST_ORDER:
            np.testing.assert_allclose(getattr(rough, name), getattr(exact, name), rtol=1e-10)

    def test_table_where_bulks_meet(self):
        # mmse is only twice differentiable there
        prior = GaussianFactorPrior(1.0, 0.4)
        table = phases._Denoising(prior)
        x = math.log(limits.bulk_merging_square(0.4)) + np.linspace(-0.5, 0.5, 301)
        values = table.interpolate(np.log(table.mmse))(x)
        np.testing.assert_allclose(values, np.log(prior.mmse(np.exp(x))), rtol=1e-9)

    def test_two_transitions(self):
        # message passing jumps to a branch in between before it recovers the signal
        prior, channel = GaussianFactorPrior(5.0, 0.5), AbsChannel()
        found = thresholds(prior, channel)
        first = 0.58833
        after = error_after(prior, channel, [0.99 * first, 1.01 * first, 1.002 * 0.61172], 1e-6)
        assert after[0] > 0.75 > 0.6 > after[1] > 0.1
        assert after[2] < 1e-6
        assert found.algorithmic == pytest.approx(0.61172, abs=1e-5)
        plane = phase_diagram(
            Problem(prior, channel), alpha=[0.99 * first, 1.01 * first, 0.615], beta=[5.0]
        )
        np.testing.assert_allclose(plane.mmse_algorithm[0], after, rtol=1e-6, atol=1e-9)
        assert plane.phase[0].values.tolist() == [phases.HARD, phases.HARD, phases.EASY]

    def test_absent(self):
        for channel in (GaussianChannel(), GaussianChannel(0.1), SignChannel(), ReLUChannel()):
            found = thresholds(GaussianFactorPrior(2.0, 0.5), channel)
            assert found.status is Status.ABSENT
            assert all(math.isnan(getattr(found, name)) for name in FIRST_ORDER)
            assert found.strong_recovery_algorithmic == found.strong_recovery

    @settings(max_examples=15)
    @given(st.floats(0, 2), st.floats(-2.5, 0.5), st.floats(-4, 1))
    def test_order(self, log_beta, log_rho, log_delta):
        prior, channel = GaussianFactorPrior(10**log_beta, 10**log_rho), ToyChannel(10**log_delta)
        found = thresholds(prior, channel)
        assert found.weak_recovery == pytest.approx(1 + channel.delta, rel=1e-10)
        low, middle, high = (getattr(found, name) for name in FIRST_ORDER)
        if found.status is Status.ABSENT:
            return
        assert low <= middle <= high
        assert high >= found.weak_recovery * (1 - 1e-9)
        # there are three fixed points between the spinodals, nothing learned not counted
        if high > low * (1 + 1e-6):
            every = fixed_points(Problem(prior, channel, math.sqrt(low * high)))
            assert np.sum(every.stable) == 2

    def test_costly_channels_are_interpolated(self):
        prior, delta = GaussianFactorPrior(1.0, [0.1, 0.3]), np.array([[0.01], [0.2]])
        direct, table = (thresholds(prior, kind(delta)) for kind in (ToyChannel, CostlyToyChannel))
        for name in FIRST_ORDER:
            np.testing.assert_allclose(getattr(table, name), getattr(direct, name), rtol=1e-9)

    def test_many_noises_share_few_sums(self):
        prior, delta = GaussianFactorPrior(1.0, 0.2), np.append(0.0, np.geomspace(0.02, 2.0, 40))
        few, matrix, _ = phases._few(ToyChannel(delta), delta.size)
        assert few.delta.size < 0.7 * delta.size
        assert matrix.shape == (few.delta.size, delta.size)
        direct, table = (thresholds(prior, kind(delta)) for kind in (ToyChannel, CostlyToyChannel))
        for name in ("weak_recovery", *FIRST_ORDER):
            np.testing.assert_allclose(getattr(table, name), getattr(direct, name), rtol=1e-9)
        # one that the noises do not share smoothly is summed for each
        rough = RoughToyChannel(delta)
        table = phases._Interpolated.of(rough, delta.size)[31]
        assert table.precision(np.array([0.4]), np.array([0.6])) == pytest.approx(
            ToyChannel(delta[31]).precision(0.4) * (1 + delta[31] % 0.1), rel=1e-9
        )

    @pytest.mark.parametrize(
        "kind", [AbsChannel, pytest.param(ReLUChannel, marks=pytest.mark.slow)]
    )
    def test_shared_precision(self, kind, monkeypatch):
        monkeypatch.setattr(phases._Interpolated, "_END", 20.0)
        delta = np.append(0.0, np.geomspace(0.1, 0.5, 20))
        tables = phases._Interpolated.of(kind(delta), delta.size)
        v = np.array([1 - 1e-8, 1 - 1e-3, 0.7, 0.02, 1e-8])
        for i in (0, 7, 18):
            known = kind(delta[i])._direct(PRECISION, 1 - v, v)
            np.testing.assert_allclose(tables[i].precision(1 - v, v), known, rtol=3e-10)

    @pytest.mark.parametrize("delta", [0.0, 1e-200, 1e-30, 1e-3, 0.1, 30.0])
    def test_panels_widen_where_precision_is_a_power(self, delta):
        channel = QuantizedChannel([-0.5, 0.5], delta)
        (table,) = phases._Interpolated.of(channel, 1)
        assert table.ends.size < 40
        assert table.ends[-1] == table._END
        x = np.linspace(-20.0, 690.0, 200)
        q, v = expit(x), expit(-x)
        known = channel._direct(PRECISION, q, v)
        np.testing.assert_allclose(table.precision(q, v), known, rtol=1e-8)
        less = table.information(q, v) - channel.information(q, v)
        np.testing.assert_allclose(less, less[0], atol=1e-10)

    @pytest.mark.parametrize("delta", [0.0, 0.1])
    def test_interpolated_precision(self, delta):
        x = np.linspace(-9, 30, 14)
        q, v = 1 / (1 + np.exp(-x)), 1 / (1 + np.exp(x))
        channel = AbsChannel(delta)
        (table,) = phases._Interpolated.of(channel, 1)
        np.testing.assert_allclose(table.precision(q, v), channel.precision(q, v), rtol=3e-10)
        less = table.information(q, v) - channel.information(q, v)
        np.testing.assert_allclose(less, less[0], atol=1e-10)


def test_thin_factors_down_to_the_end_of_doubles():
    """At beta = inf everything depends on alpha/rho; at finite beta noise hides thin factors."""
    rho = np.array([1e-6, 1e-9, 1e-12, 1e-29, 1e-60, 1e-100, 1e-150, 1e-200, 1e-280])
    found = thresholds(GaussianFactorPrior(np.inf, rho), AbsChannel(0.0))
    assert (found.status == Status.CONVERGED).all()
    np.testing.assert_allclose(found.weak_recovery / rho, 0.5, rtol=2e-6)
    np.testing.assert_allclose(found.algorithmic / rho, found.algorithmic[5] / 1e-100, rtol=2e-6)
    np.testing.assert_allclose(found.information_theoretic / rho, 1.0, rtol=2e-6)
    found = thresholds(GaussianFactorPrior(1.0, rho), AbsChannel(0.0))
    np.testing.assert_allclose(found.weak_recovery, 0.5, rtol=1e-12)
    np.testing.assert_allclose(found.algorithmic, 0.5, rtol=1e-5)
    np.testing.assert_allclose(found.strong_recovery / rho, 2.0, rtol=2e-6)
    np.testing.assert_allclose(found.information_theoretic / rho, 2.0, rtol=2e-6)
    # where 1/rho, the noise at which they are first seen, is near overflow
    lost = thresholds(GaussianFactorPrior(1.0, [1e-290, 1e-310]), AbsChannel(0.0))
    assert (lost.status == Status.NOT_CONVERGED).all()
    assert np.isnan(lost.algorithmic).all()


class TestCriticalPoint:
    @pytest.mark.parametrize("ends", [(0.5, 2.0), (-0.5, 50.0), (100.0, 0.0)])
    def test_a_transition_that_becomes_continuous_has_no_cusp(self, ends):
        prior = GaussianFactorPrior(1.0, INF)
        few = thresholds(prior, TricriticalChannel(np.array([0.9, 1.1, 3.0])))
        assert few.status.tolist() == [Status.ABSENT, Status.CONVERGED, Status.CONVERGED]
        # it begins at 1/((1 - q)(1 + delta q)) with q = (delta - 1)/(2 delta)
        expected = 4 * np.array([1.1, 3.0]) / (1 + np.array([1.1, 3.0])) ** 2
        np.testing.assert_allclose(few.informed_spinodal[1:], expected, rtol=1e-12)
        with pytest.raises(ValueError, match="the transition has no cusp"):
            critical_point(prior, TricriticalChannel(), low=ends[0], high=ends[1])

    def test_cusp(self):
        prior = GaussianFactorPrior(1.0, 1.0)
        point = critical_point(prior, ToyChannel(), low=0.0, high=1.0)
        assert point.parameter == "delta"

        def slopes(delta, s):
            # of log alpha(s) in log s, from M alone
            h = 3e-3
            x = math.log(s) + h * np.arange(-2, 3)
            m = prior.mmse(np.exp(x))
            y = -x + np.log((delta + m) / (1 - m))
            first = (y[0] - 8 * y[1] + 8 * y[3] - y[4]) / (12 * h)
            return y[2], first, (-y[0] + 16 * y[1] - 30 * y[2] + 16 * y[3] - y[4]) / (12 * h * h)

        height, first, second = slopes(point.value, point.s)
        assert point.alpha == pytest.approx(math.exp(height), rel=1e-12)
        assert abs(first) < 1e-6
        assert abs(second) < 1e-3
        assert point.mmse == pytest.approx(1 - point.q) == prior.mmse(point.s)
        # the transition is there below and not above, and closes with the power 3/2
        off = np.array([1e-2, 1e-3, 1e-4, -1e-6])
        found = thresholds(prior, ToyChannel(point.value * (1 - off)))
        assert found.status.tolist() == [Status.CONVERGED] * 3 + [Status.ABSENT]
        gap = (found.algorithmic - found.informed_spinodal)[:3]
        np.testing.assert_allclose(gap[:-1] / gap[1:], 10**1.5, rtol=0.02)
        assert np.all(found.information_theoretic[:3] > found.informed_spinodal[:3])
        assert np.all(found.information_theoretic[:3] < found.algorithmic[:3])

    def test_parameter_of_the_prior(self):
        channel = ToyChannel(0.05)
        point = critical_point(
            GaussianFactorPrior(1.0, 1.0), channel, low=0.5, high=2.0, parameter="rho"
        )
        found = thresholds(
            GaussianFactorPrior(1.0, point.value * np.array([0.9999, 1.0001])), channel
        )
        assert found.status.tolist() == [Status.CONVERGED, Status.ABSENT]
        assert found.algorithmic[0] == pytest.approx(point.alpha, rel=1e-3)

    def test_ends_many_decades_apart(self):
        prior, channel = GaussianFactorPrior(1.0, 1.0), ToyChannel(0.05)
        near = critical_point(prior, channel, low=0.01, high=1.0)
        for low, high in ((0.0, 1e100), (1e-300, 1e10)):
            far = critical_point(prior, channel, low=low, high=high)
            assert far.value == pytest.approx(near.value, rel=1e-7)
            assert far.alpha == pytest.approx(near.alpha, rel=1e-7)

    def test_bad_input(self):
        prior = GaussianFactorPrior(1.0, 1.0)
        with pytest.raises(ValueError, match=r"one of low=2\.0 and high=3\.0 must have"):
            critical_point(prior, ToyChannel(), low=2.0, high=3.0)
        with pytest.raises(ValueError, match=r"parameter must be a field of .* got .gain."):
            critical_point(prior, ToyChannel(), low=0.1, high=1.0, parameter="gain")
        with pytest.raises(ValueError, match="must be scalars here"):
            critical_point(prior, ToyChannel([0.1, 0.2]), low=0.0, high=1.0)


class TestPhaseDiagram:
    @pytest.mark.parametrize(
        ("channel", "rows"),
        [
            (AbsChannel(), {"rho": np.geomspace(0.02, 1.5, 9)}),
            (ToyChannel(0.05), {"beta": np.array([1.0, 1.3, 4.0, INF])}),
            (ToyChannel(), {"delta": np.array([0.0, 0.01, 0.1, 1.0])}),
            (ReLUChannel(), {"rho": np.array([0.1, 0.5, 2.0])}),
            (GaussianChannel(), {"beta": np.array([1.0, 2.0, 9.0])}),
        ],
    )
    def test_pixels_against_all_fixed_points(self, channel, rows):
        (name,) = rows
        alpha = np.random.default_rng(3).uniform(0.05, 2.0, 30)
        plane = phase_diagram(Problem(GaussianFactorPrior(1.0, 0.3), channel), alpha=alpha, **rows)
        assert plane.phase.dims == (name, "alpha")
        fixed = {"beta": 1.0, "rho": 0.3} | {k: v[:, None] for k, v in rows.items()}
        if name == "delta":
            channel = dataclasses.replace(channel, delta=fixed.pop("delta"))
        problem = Problem(GaussianFactorPrior(**fixed), channel, alpha)
        best, every = solve(problem), fixed_points(problem)
        np.testing.assert_allclose(plane.mmse_bayes, best.mmse, atol=1e-9, rtol=1e-8)
        np.testing.assert_array_equal(plane.status, best.status * (plane.phase != 1) + plane.status
                                      * (plane.phase == 1))  # fmt: skip
        worst = np.where(every.stable, every.mmse, 0.0).max(axis=-1)
        np.testing.assert_allclose(plane.mmse_algorithm, worst, atol=1e-9, rtol=1e-8)
        hard = plane.mmse_algorithm > plane.mmse_bayes + 1e-9
        np.testing.assert_array_equal(plane.phase == phases.HARD, hard)

    def test_pixels_against_iteration(self):
        prior, channel = GaussianFactorPrior(1.0, 0.2), AbsChannel()
        alpha = np.array([0.3, 0.55, 0.57, 0.58])
        plane = phase_diagram(Problem(prior, channel), alpha=alpha, rho=[0.2])
        after = error_after(prior, channel, alpha, 1e-9)
        np.testing.assert_allclose(plane.mmse_algorithm[0], after, rtol=1e-8, atol=1e-8)
        # the optimum is perfect recovery from alpha = 0.36 on
        assert plane.status[0].values.tolist() == [2, 1, 1, 1]
        assert plane.phase[0].values.tolist() == [2, 1, 1, 0]

    def test_boundaries_are_curves(self):
        rho = np.geomspace(0.05, 0.9, 120)
        prior, channel = GaussianFactorPrior(1.0, 1.0), AbsChannel()
        alpha = np.linspace(0.2, 1.1, 7)
        plane = phase_diagram(Problem(prior, channel), alpha=alpha, rho=rho)
        for name in FIRST_ORDER:
            line = plane[name]
            assert line.dims == ("rho",)
            bend = np.abs(np.diff(line.values, 2))
            assert bend.max() < 5e-3  # a jump by a pixel would be 0.15
        every = thresholds(GaussianFactorPrior(1.0, rho[::30]), channel)
        np.testing.assert_allclose(plane.algorithmic[::30], every.algorithmic, rtol=1e-12)
        # pixels change phase where the lines are
        below = alpha < plane.information_theoretic.values[:, None]
        above = alpha >= plane.algorithmic.values[:, None]
        expected = np.where(below, phases.IMPOSSIBLE, np.where(above, phases.EASY, phases.HARD))
        np.testing.assert_array_equal(plane.phase, expected)

    def test_linear_channel(self):
        beta, alpha = np.array([1.0, 2.0, 5.0]), np.linspace(0.1, 0.9, 17)
        plane = phase_diagram(
            Problem(GaussianFactorPrior(1.0, 0.5), GaussianChannel()), alpha=alpha, beta=beta
        )
        strong = limits.strong_recovery(beta, 0.5)
        np.testing.assert_allclose(plane.strong_recovery, strong, rtol=1e-15)
        np.testing.assert_array_equal(plane.phase == phases.EASY, alpha >= strong[:, None])
        assert not np.any(plane.phase == phases.HARD)
        np.testing.assert_array_equal(plane.mmse_bayes, plane.mmse_algorithm)

    def test_low_rank(self):
        delta, alpha = np.array([0.0, 0.5]), np.linspace(0.1, 2.0, 20)
        plane = phase_diagram(
            Problem(LowRankFactorPrior(2.0), GaussianChannel()), alpha=alpha, delta=delta
        )
        expected = limits.low_rank_mmse(alpha, 2.0, delta[:, None])
        np.testing.assert_allclose(plane.mmse_bayes, expected, atol=1e-11)
        weak = limits.weak_recovery_low_rank(2.0, delta)[:, None]
        nothing = plane.mmse_bayes.values == 1.0
        np.testing.assert_array_equal(nothing, alpha <= weak)
        assert np.all(plane.phase.values[nothing] == phases.IMPOSSIBLE)

    def test_with_noise_only_ignorance_is_impossible(self):
        # both sides of the critical noise, 0.054: no phase may end there but the hard one
        alpha, delta = np.linspace(0.4, 0.8, 9), np.array([0.0, 0.005, 0.03, 0.07])
        problem = Problem(GaussianFactorPrior(1.0, 0.25), AbsChannel())
        plane = phase_diagram(problem, alpha=alpha, delta=delta)
        hard = (plane.mmse_algorithm > plane.mmse_bayes + 1e-9).values
        np.testing.assert_array_equal(plane.phase == phases.HARD, hard)
        lost = np.where(delta[:, None] > 0.0, plane.mmse_bayes == 1.0, alpha < 0.4375)
        np.testing.assert_array_equal(plane.phase == phases.IMPOSSIBLE, lost & ~hard)
        assert lost.any(axis=1).all() and not lost.all(axis=1).any()

    def test_generalization_error(self):
        plane = phase_diagram(
            Problem(GaussianFactorPrior(2.0, 0.5), SignChannel()), alpha=[0.3, 1.0], rho=[0.2, 0.5]
        )
        expected = np.arccos(np.sqrt(1 - plane.mmse_bayes)) / np.pi
        np.testing.assert_allclose(plane.generalization_error_bayes, expected, rtol=1e-9)
        assert np.all(plane.phase == phases.EASY)
        toy = phase_diagram(
            Problem(GaussianFactorPrior(2.0, 0.5), ToyChannel(0.1)), alpha=[0.3, 1.0], rho=[0.2]
        )
        assert "generalization_error_bayes" not in toy

    def test_plane_at_fixed_alpha(self):
        problem = Problem(GaussianFactorPrior(1.0, 0.2), ToyChannel(), 0.9)
        rho, delta = np.array([0.05, 0.1, 0.2]), np.array([0.0, 0.05, 0.3])
        plane = phase_diagram(problem, rho=rho, delta=delta)
        assert plane.phase.dims == plane.algorithmic.dims == ("delta", "rho")
        best = solve(Problem(GaussianFactorPrior(1.0, rho), ToyChannel(delta[:, None]), 0.9))
        np.testing.assert_allclose(plane.mmse_bayes, best.mmse, atol=1e-9, rtol=1e-8)
        assert plane.attrs["alpha"] == 0.9

    def test_bad_elements(self):
        problem = Problem(GaussianFactorPrior(1.0, 0.2), AbsChannel())
        plane = phase_diagram(problem, alpha=[0.3, -1.0, 0.6], rho=[0.2, -1.0])
        assert plane.phase.values.tolist() == [[2, -1, 0], [-1, -1, -1]]
        bad = plane.phase == -1
        assert np.all(np.isnan(plane.mmse_bayes.values[bad]))
        assert np.all(plane.status.values[bad] == Status.INVALID_INPUT)
        assert math.isnan(plane.algorithmic[1])
        found = thresholds(GaussianFactorPrior(1.0, [0.2, math.nan]), AbsChannel())
        assert found.status.tolist() == [Status.CONVERGED, Status.INVALID_INPUT]
        assert math.isnan(found.weak_recovery[1])

    def test_bad_input(self):
        problem = Problem(GaussianFactorPrior(1.0, 0.2), GaussianChannel())
        with pytest.raises(ValueError, match=r"exactly two axes must be given, got \['alpha'\]"):
            phase_diagram(problem, alpha=[0.1])
        with pytest.raises(ValueError, match="rho must be a one-dimensional array, got shape"):
            phase_diagram(problem, alpha=[0.1], rho=0.5)
        with pytest.raises(ValueError, match="alpha must be an axis or a parameter"):
            phase_diagram(problem, beta=[1.0], rho=[0.5])
        with pytest.raises(ValueError, match="rho must be a parameter of LowRankFactorPrior or"):
            phase_diagram(
                Problem(LowRankFactorPrior(1.0), GaussianChannel()), alpha=[0.1], rho=[0.5]
            )
        with pytest.raises(ValueError, match=r"must be scalars, got shape \(2,\)"):
            phase_diagram(
                Problem(GaussianFactorPrior([1.0, 2.0], 0.2), GaussianChannel()),
                alpha=[0.1], rho=[0.5],
            )  # fmt: skip

    def test_file(self, tmp_path):
        import xarray as xr

        problem = Problem(GaussianFactorPrior(1.0, 0.2), AbsChannel())
        plane = phase_diagram(problem, alpha=[0.3, 0.5], rho=[0.2, 0.3, 0.4])
        assert plane.phase.attrs["flag_meanings"] == "invalid easy hard impossible"
        assert plane.phase.attrs["flag_values"].tolist() == [-1, 0, 1, 2]
        assert {"numpy", "scipy"} <= set(json.loads(plane.attrs["provenance"])["versions"])
        assert (plane.attrs["prior"], plane.attrs["beta"]) == ("GaussianFactorPrior", 1.0)
        assert "rho" not in plane.attrs
        plane.to_netcdf(tmp_path / "plane.nc", engine="h5netcdf")
        with xr.open_dataset(tmp_path / "plane.nc", engine="h5netcdf") as back:
            xr.testing.assert_identical(back.load(), plane)


@dataclasses.dataclass(frozen=True)
class OwnPrior(Prior):
    """What a user writes: no overlap of its own, and an mmse with numerical errors."""

    noise: float
    sizes: list[int] = dataclasses.field(default_factory=list, compare=False)
    beta = 2.0
    exact = GaussianFactorPrior(2.0, 0.2)
    strong_recovery = exact.strong_recovery

    @property
    def evaluations(self) -> int:
        return sum(self.sizes)

    def mmse(self, s):
        self.sizes.append(np.size(s))
        chance = np.sin(1e9 * np.log(np.clip(s, 1e-320, 1e300)))
        return self.exact.mmse(s) * (1.0 + self.noise * chance)

    def information(self, snr):
        return self.exact.information(snr)

    law = shrink = sample = None


class TestOwnPrior:
    @pytest.mark.parametrize("delta", [0.0, 0.01])
    @pytest.mark.parametrize("noise", [0.0, 1e-12, 1e-9, 1e-7])
    def test_errors_of_its_mmse_are_those_of_thresholds(self, noise, delta):
        prior, channel = OwnPrior(noise), AbsChannel(delta)
        found, exact = thresholds(prior, channel), thresholds(prior.exact, channel)
        assert found.status == Status.CONVERGED
        assert prior.evaluations < 1e5
        for name in ("algorithmic", "information_theoretic", "informed_spinodal"):
            wanted = getattr(exact, name)
            assert getattr(found, name) == pytest.approx(wanted, rel=30 * noise + 1e-11), name
        # where labels begin to teach something all depends on the overlap at much noise
        assert found.weak_recovery == pytest.approx(exact.weak_recovery, rel=1e5 * noise + 1e-8)

    def test_errors_that_hide_what_there_is(self):
        prior = OwnPrior(1e-3)
        found = thresholds(prior, AbsChannel())
        assert found.status == Status.NOT_CONVERGED
        assert np.isnan([found.algorithmic, found.information_theoretic]).all()
        assert found.strong_recovery == prior.strong_recovery
        assert prior.evaluations < 1e5
        # which the overlap at much noise does not matter for
        assert thresholds(prior, ReLUChannel()).status == Status.ABSENT
        plane = phase_diagram(Problem(prior, AbsChannel()), alpha=[0.2, 0.5], delta=[0.0, 0.1])
        assert (plane.status == Status.NOT_CONVERGED).all()
        assert (plane.phase == -1).all()
        assert np.isnan(plane.mmse_bayes).all()
        with pytest.raises(ValueError, match="mmse of the prior must be a smooth function of s"):
            critical_point(prior, AbsChannel(), low=0.0, high=0.1)


def test_a_kink_is_no_numerical_error():
    """Two atoms whose bulks meet: mmse has a kink there, which halved panels resolve."""
    for prior in (
        RotationallyInvariantPrior([0.5, 1.5], 2.0, normalize=True),
        RotationallyInvariantPrior([0.0, 1.0, 1.1], 1.0, normalize=True),
        GaussianFactorPrior(1.0, 0.2),
        GaussianFactorPrior(2.0, 1e-3),
    ):
        table = phases._Denoising(prior)
        assert table.width.min() < phases._PANEL / 8
        assert not table.rough.any()
