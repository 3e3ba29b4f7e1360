"""Channels: closed limits, other routes to the same numbers, scores against their evidence."""

from __future__ import annotations

import dataclasses
import math
import time

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special, stats

import bsr_theory as bsr
from bsr_theory import (
    GaussianChannel,
    GaussianFactorPrior,
    Problem,
    Status,
    fixed_points,
    free_entropy,
    iterate,
    solve,
)
from bsr_theory._kernels import channels as kernels
from bsr_theory.attention import linear_attention
from bsr_theory.channels import (
    AbsChannel,
    LogisticChannel,
    OutputChannel,
    QuantizedChannel,
    ReLUChannel,
    SignChannel,
)
from bsr_theory.priors import SymmetricFactorPrior

INF = float("inf")
C = 0.720647169514263  # (2 pi)^(-1/2) int phi^2/(Phi (1 - Phi)), checked below

LINEAR = [GaussianChannel(0.0), GaussianChannel(0.1), GaussianChannel(30.0)]
SIGNS = [SignChannel(), SignChannel(0.2), SignChannel(50.0)]
RECTIFIED = [
    *(AbsChannel(delta) for delta in (0.0, 0.1, 20.0)),
    *(ReLUChannel(delta) for delta in (0.0, 1e-3, 0.5)),
]
CLASSES = [
    LogisticChannel(0.5), LogisticChannel(4.0), LogisticChannel(60.0),
    QuantizedChannel([-1.0, 0.0, 1.5]), QuantizedChannel([-1.0, 0.0, 1.5], 0.1),
    QuantizedChannel([0.3, 0.31]),
]  # fmt: skip
NONLINEAR = [*SIGNS, *RECTIFIED, *CLASSES]
CHANNELS = [*LINEAR, *NONLINEAR]


def name(value):
    return str(value).replace("thresholds=", "") if dataclasses.is_dataclass(value) else None


def evidence(channel, y, omega, V):
    """Return Z(y, omega) by an integral over h or a closed form, with none of the package."""

    def normal(x, variance):
        return math.exp(-0.5 * x * x / variance) / math.sqrt(2 * math.pi * variance)

    spread = V + getattr(channel, "delta", 0.0)
    if isinstance(channel, SignChannel):
        return stats.norm.cdf(y * omega / math.sqrt(spread))
    if isinstance(channel, QuantizedChannel):
        edges = np.array([-INF, *channel.thresholds, INF])
        z = (edges[[int(y), int(y) + 1]] - omega) / math.sqrt(spread)
        return abs(np.diff(stats.norm.cdf(z if z[0] < 0 else -z))[0])
    if isinstance(channel, LogisticChannel):

        def law(h):
            return normal(h - omega, V) * special.expit(channel.gain * y * h)
    else:
        fold = abs if isinstance(channel, AbsChannel) else lambda h: max(h, 0.0)

        def law(h):
            return normal(y - fold(h), channel.delta) * normal(h - omega, V)

    width = 12 * math.sqrt(V)
    options = {"epsabs": 0.0, "epsrel": 1e-12, "limit": 400}
    return integrate.quad(law, omega - width, omega + width, points=(0.0, y, -y), **options)[0]


def as_output(channel):
    """Return the same law by way of its likelihood alone."""
    if isinstance(channel, LogisticChannel):
        return OutputChannel(lambda y, h: special.expit(channel.gain * y * h), outputs=(-1, 1))
    if isinstance(channel, SignChannel):
        if channel.delta == 0.0:
            return OutputChannel(lambda y, h: 1.0 * (y * h > 0), outputs=(-1, 1), breaks=(0,))
        root = math.sqrt(channel.delta)
        return OutputChannel(lambda y, h: special.ndtr(y * h / root), outputs=(-1, 1))
    if isinstance(channel, QuantizedChannel):
        edges = np.array([-INF, *channel.thresholds, INF])

        def bins(y, h):
            k = np.asarray(y).astype(int)
            if channel.delta == 0.0:
                return 1.0 * ((h > edges[k]) & (h <= edges[k + 1]))
            root = math.sqrt(channel.delta)
            return special.ndtr((edges[k + 1] - h) / root) - special.ndtr((edges[k] - h) / root)

        labels = range(len(channel.thresholds) + 1)
        return OutputChannel(bins, outputs=labels, breaks=channel.thresholds)
    fold = np.abs if isinstance(channel, AbsChannel) else lambda h: np.maximum(h, 0.0)

    def density(y, h):
        return np.exp(-((y - fold(h)) ** 2) / (2 * channel.delta)) / math.sqrt(
            2 * math.pi * channel.delta
        )

    return OutputChannel(density, breaks=(0.0,))


# --------------------------------------------------------------------------------------------
# Every channel
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", CHANNELS, ids=name)
@given(q=st.floats(0.1, 0.9))
def test_information_differentiates_to_precision(channel, q):
    h = 1e-3 * min(q, 1 - q)
    two, one = (channel.information(q + k * h) - channel.information(q - k * h) for k in (2, 1))
    slope = (8 * one - two) / (12 * h)
    assert slope == pytest.approx(-0.5 * channel.precision(q), rel=1e-6)


@pytest.mark.parametrize("channel", CHANNELS, ids=name)
@pytest.mark.parametrize("q", [0.0, 0.4, 0.9])
def test_precision_is_the_mean_square_score(channel, q):
    # Monte Carlo of E g_out^2 = -E g_out' under the model
    rng = np.random.default_rng(5)
    n = 100_000
    omega = math.sqrt(q) * rng.standard_normal(n)
    y = channel.sample(omega + math.sqrt(1 - q) * rng.standard_normal(n), rng=rng)
    g, slope = channel.score(y, omega, 1 - q)
    exact = channel.precision(q)
    assert np.mean(g**2) == pytest.approx(exact, abs=5 * np.std(g**2) / math.sqrt(n) + 1e-12)
    assert -np.mean(slope) == pytest.approx(exact, abs=5 * np.std(slope) / math.sqrt(n) + 1e-12)
    assert np.mean(g) == pytest.approx(0.0, abs=5 * np.std(g) / math.sqrt(n) + 1e-12)


@pytest.mark.parametrize(
    "channel",
    [*SIGNS, AbsChannel(0.1), AbsChannel(20.0), ReLUChannel(0.1), ReLUChannel(20.0), *CLASSES],
    ids=name,
)
def test_score_is_the_derivative_of_log_evidence(channel):
    # Z in closed form or by adaptive quadrature over h; derivatives by differences
    rng = np.random.default_rng(2)
    for _ in range(6):
        V, omega = rng.uniform(0.05, 1.0), rng.normal()
        y = channel.sample(omega + math.sqrt(V) * rng.standard_normal(), rng=rng).item()
        h = 2e-3 * math.sqrt(V)
        logs = [math.log(evidence(channel, y, omega + k * h, V)) for k in (-2, -1, 0, 1, 2)]
        g, slope = channel.score(y, omega, V)
        first = (8 * (logs[3] - logs[1]) - (logs[4] - logs[0])) / (12 * h)
        second = (16 * (logs[3] + logs[1]) - (logs[4] + logs[0]) - 30 * logs[2]) / (12 * h * h)
        assert g == pytest.approx(first, rel=1e-6, abs=1e-7)
        assert slope == pytest.approx(second, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("channel", [*SIGNS, *CLASSES], ids=name)
def test_classes_against_the_likelihood(channel):
    # OutputChannel shares no formula: panels in h and omega, no transformation
    other = as_output(channel)
    for q, v in [(1e-8, 1 - 1e-8), (0.3, 0.7), (0.97, 0.03), (1 - 1e-8, 1e-8)]:
        exact = other._mean(kernels.PRECISION, q, v)
        assert channel.precision(q, v) == pytest.approx(exact, rel=1e-10)
        exact = other._mean(kernels.INFORMATION, q, v)
        assert channel.information(q, v) == pytest.approx(exact, abs=1e-11)


def test_likelihoods_are_interpolated_without_loss():
    channel = as_output(SignChannel(0.2))
    for q in (0.3, 0.97):
        exact = channel._mean(kernels.PRECISION, q, 1 - q)
        assert channel.precision(q) == pytest.approx(exact, rel=1e-11)
        exact = channel._mean(kernels.INFORMATION, q, 1 - q)
        assert channel.information(q) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize(
    "channel",
    [pytest.param(AbsChannel(0.1), marks=pytest.mark.slow), AbsChannel(2.0), ReLUChannel(0.1)],
    ids=name,
)
def test_numbers_against_the_likelihood(channel):
    other = as_output(channel)
    for q, v in [(1e-8, 1 - 1e-8), (0.1, 0.9), (0.3, 0.7), (0.97, 0.03), (1 - 1e-8, 1e-8)]:
        exact, known = other._mean(kernels.PRECISION, q, v), channel.precision(q, v)
        assert known == pytest.approx(exact, rel=1e-11)
        exact = other._mean(kernels.INFORMATION, q, v)
        assert channel.information(q, v) == pytest.approx(exact, abs=1e-11)
        assert channel.generalization_error(q, v) == pytest.approx(
            other.generalization_error(q, v), rel=1e-11
        )


@pytest.mark.parametrize("channel", NONLINEAR, ids=name)
def test_error_of_new_labels(channel):
    # Monte Carlo, from predictors that are known: sign(omega), or E[y | omega]
    q, n = 0.6, 200_000
    rng = np.random.default_rng(8)
    omega = math.sqrt(q) * rng.standard_normal(n)
    y = channel.sample(omega + math.sqrt(1 - q) * rng.standard_normal(n), rng=rng)
    root = math.sqrt(1 - q)
    u = omega / root
    rectified = root * (u * stats.norm.cdf(u) + stats.norm.pdf(u))
    if isinstance(channel, SignChannel | LogisticChannel):
        losses = 1.0 * (y != np.sign(omega))
    elif isinstance(channel, QuantizedChannel):
        edges = np.array([-INF, *channel.thresholds, INF])
        P = stats.norm.cdf((edges[:, None] - omega) / math.sqrt(1 - q + channel.delta))
        losses = 1.0 * (y != np.argmax(np.diff(P, axis=0), axis=0))
    else:
        prediction = rectified if isinstance(channel, ReLUChannel) else 2 * rectified - omega
        losses = (y - prediction) ** 2
    expected = pytest.approx(losses.mean(), abs=5 * losses.std() / math.sqrt(n))
    assert channel.generalization_error(q) == expected
    worse = channel.generalization_error([0.0, 0.2, 0.6, 0.9, 1.0])
    assert np.all(np.diff(worse) < 1e-15)


@pytest.mark.parametrize("channel", NONLINEAR, ids=name)
def test_single_fixed_point_means_monotone(channel):
    end = 25.0 if channel.single_fixed_point else 4.0
    t = np.append(np.linspace(-end, end, 301), 36.5)
    q, v = special.expit(t), special.expit(-t)
    share = v * channel.precision(q, v)
    if channel.single_fixed_point:
        assert np.all(np.diff(share) < 1e-14)
    assert np.all(share >= 0.0)
    assert np.all(share <= 1.0 + 1e-14)
    # V precision tends to the share of noiseless equations
    assert share[-1] == pytest.approx(channel.resolves, abs=1e-7)


@pytest.mark.parametrize("channel", NONLINEAR, ids=name)
def test_arrays_equal_single_points(channel):
    q = np.array([0.0, 1e-9, 0.2, 0.77, 1 - 1e-9, 1.0])
    for method in (channel.precision, channel.information, channel.generalization_error):
        np.testing.assert_allclose(method(q), [method(x) for x in q], rtol=1e-13)
        assert method(q[:, None]).shape == (6, 1)
        assert isinstance(method(0.3), float)
    bad = channel.precision([0.2, -1.0, math.nan, 0.77])
    assert np.isnan(bad).tolist() == [False, True, True, False]


def test_array_parameters_and_bad_elements():
    delta = np.array([0.0, 0.3, -1.0, math.nan, 0.3])
    for kind in (SignChannel, AbsChannel, ReLUChannel):
        values = kind(delta).precision(0.4)
        assert np.isnan(values).tolist() == [False, False, True, True, False]
        for at in (0, 1, 4):
            assert values[at] == pytest.approx(kind(delta[at]).precision(0.4), rel=1e-12)
        g, slope = kind(delta).score(1.0, 0.2, 0.5)
        assert np.isnan(g).tolist() == np.isnan(slope).tolist() == np.isnan(values).tolist()
    assert LogisticChannel([1.0, -1.0]).precision([[0.1], [0.2]]).shape == (2, 2)
    assert QuantizedChannel([0.0], [0.1, 0.2]).precision(0.5).shape == (2,)


def test_costly_sums_are_interpolated_without_loss():
    for channel, end in (
        (AbsChannel(0.1), 3.0),
        (ReLUChannel(1e-3), 3.0),
        (LogisticChannel(4.0), 18.4),
        (QuantizedChannel([-1.0, 0.0, 1.5], 0.1), 18.4),
    ):
        t = np.random.default_rng(0).uniform(-end, end, 12)
        q, v = special.expit(t), special.expit(-t)
        direct = channel._direct(kernels.PRECISION, q, v)
        np.testing.assert_allclose(channel.precision(q, v), direct, rtol=1e-11)
        direct = channel._direct(kernels.INFORMATION, q, v)
        np.testing.assert_allclose(channel.information(q, v), direct, atol=1e-13)


# --------------------------------------------------------------------------------------------
# Special functions
# --------------------------------------------------------------------------------------------


def test_normal_tails_against_mpmath():
    with mpmath.workdps(40):
        for x in [-20.3, -5.1, -1.0, -0.3, 0.0, 0.7, 3.3, 9.99, 10.01, 27.7, 1e4]:
            exact = mpmath.exp(mpmath.mpf(x) ** 2) * mpmath.erfc(x)
            assert kernels.erfcx(x) == pytest.approx(float(exact), rel=3e-15)
        for x in [-1e5, -300.0, -14.2, -14.1, -3.0, -0.5, 0.0, 2.0, 8.0, 30.0]:
            phi = mpmath.npdf(x)
            exact = phi / (mpmath.erfc(-mpmath.mpf(x) / mpmath.sqrt(2)) / 2)
            ratio, rest = kernels.hazard(x)
            assert ratio == pytest.approx(float(exact), rel=1e-14)
            assert rest == pytest.approx(float(exact + mpmath.mpf(x)), rel=1e-13)
            log = mpmath.log(mpmath.erfc(-mpmath.mpf(x) / mpmath.sqrt(2)) / 2)
            assert kernels.log_ndtr(x) == pytest.approx(float(log), rel=1e-14)


def test_bins_against_mpmath():
    with mpmath.workdps(50):
        for left, right in [
            (-INF, -3.0), (-INF, 2.0), (5.0, INF), (-1.0, 1.0), (-1e-3, 2e-3), (8.0, 8.001),
            (30.0, 30.4), (-12.0, -3.0), (0.1, 0.7), (2.0, 2.6), (-1e9, 1e9), (0.0, 1e-7),
        ]:  # fmt: skip
            a, b = mpmath.mpf(left), mpmath.mpf(right)
            P = (mpmath.erfc(a / mpmath.sqrt(2)) - mpmath.erfc(b / mpmath.sqrt(2))) / 2
            first = (mpmath.npdf(a) - mpmath.npdf(b)) / P
            ends = [0 if abs(x) == INF else x * mpmath.npdf(x) for x in (a, b)]
            found = kernels.bin_evidence(left, right, kernels.NODES, kernels.WEIGHTS)
            assert found[0] == pytest.approx(float(mpmath.log(P)), rel=1e-12, abs=1e-15)
            assert found[1] == pytest.approx(float(first), rel=1e-12, abs=1e-15)
            assert found[2] == pytest.approx(float((ends[0] - ends[1]) / P), rel=1e-9, abs=1e-15)


# --------------------------------------------------------------------------------------------
# Sign
# --------------------------------------------------------------------------------------------


def test_sign_limits():
    delta = np.array([0.0, 0.3, 7.0])
    np.testing.assert_allclose(
        SignChannel(delta).precision(0.0), 2 / (math.pi * (1 + delta)), rtol=1e-15
    )
    with mpmath.workdps(25):
        law = mpmath.quad(
            lambda u: mpmath.npdf(u) ** 2 / (mpmath.ncdf(u) * mpmath.ncdf(-u)), [-30, -6, 0, 6, 30]
        )
        assert float(law / mpmath.sqrt(2 * mpmath.pi)) == pytest.approx(C, rel=1e-14)
    for v in (1e-10, 1e-20, 1e-30):
        assert SignChannel().precision(1 - v, v) * math.sqrt(v) == pytest.approx(C, rel=2 * v**0.9)
    assert SignChannel().precision(1.0) == INF
    assert SignChannel().resolves == 0.0
    # no information given h without noise, one bit from nothing
    assert SignChannel().information([0.0, 1.0]) == pytest.approx([math.log(2), 0.0])


@pytest.mark.parametrize("q", ["1e-8", "0.3", "0.9", "0.9999", "0.99999999"])
@pytest.mark.parametrize("delta", ["0", "0.01", "3"])
def test_sign_against_mpmath(q, delta):
    # the definition: E over u ~ N(0, q/(v + delta)) of phi^2/(Phi(u) Phi(-u))
    with mpmath.workdps(25):
        q, delta = mpmath.mpf(q), mpmath.mpf(delta)
        spread = 1 - q + delta
        tau = mpmath.sqrt(q / spread)

        def f(u):
            # symmetric; erfc keeps the tail
            tail = mpmath.erfc(u / mpmath.sqrt(2)) / 2
            return mpmath.npdf(u) ** 2 / (tail * (1 - tail)) * mpmath.npdf(u, 0, tau)

        ends = [min(x, 12) * min(1, tau) for x in (0, 0.5, 1, 2, 4, 7, 12)]
        exact = 2 * mpmath.quad(f, ends) / spread
        found = SignChannel(float(delta)).precision(float(q), float(1 - q))
        assert found == pytest.approx(float(exact), rel=1e-12)


def test_sign_values():
    # reference values of an independent calculation
    assert SignChannel().precision([0.3, 0.9]) == pytest.approx([0.7919252456, 2.2534786500])
    assert SignChannel(0.2).precision(0.3) == pytest.approx(0.6334265253, abs=5e-11)
    np.testing.assert_allclose(
        SignChannel(0.3).generalization_error([0.2, 0.7]),
        np.arccos(np.sqrt(np.array([0.2, 0.7]) / 1.3)) / math.pi,
    )
    tiny = SignChannel().generalization_error(1.0, 1e-20)
    assert tiny == pytest.approx(1e-10 / math.pi, rel=1e-12)


@given(u=st.floats(-1e6, 1e6), V=st.floats(1e-8, 1.0), side=st.sampled_from([-1.0, 1.0]))
def test_sign_score_in_the_tails(u, V, side):
    g, slope = SignChannel().score(side, u * math.sqrt(V), V)
    assert side * g >= 0.0
    assert -1.0 / V * (1 + 1e-12) <= slope <= 0.0
    if side * u < -20.0:
        # Mills: g = -(omega/V)(1 + 1/u^2 ...), g' = -(1 - 1/u^2 + ...)/V
        assert g * math.sqrt(V) == pytest.approx(-u * (1 + u**-2 - 2 * u**-4), rel=1e-6)
        assert slope * V == pytest.approx(-1.0, abs=1.1 * u**-2)


# --------------------------------------------------------------------------------------------
# Absolute value and rectifier
# --------------------------------------------------------------------------------------------


def panels(end, width, order=20):
    """Return a Gauss-Legendre rule on [0, end]."""
    x, w = np.polynomial.legendre.leggauss(order)
    left = np.arange(0.0, end, width)
    return (left[:, None] + 0.5 * width * (1 + x)).ravel(), np.tile(0.5 * width * w, left.size)


@pytest.mark.parametrize("v", [1 - 1e-8, 0.95, 0.4, 0.01, 1e-8])
def test_abs_as_a_double_integral(v):
    # over y = |h| and the noise of the log odds, without the Bessel functions:
    # E[var(h | y, omega)] = V^(3/2) E x^2 sech(sqrt(q) x xi)
    q = 1 - v
    x, w = panels(10.0, 0.25)
    a = math.sqrt(q) * np.outer(x, x)
    law = 2 * w * stats.norm.pdf(x)
    rest = (law * x**2) @ (2 * np.sinh(a / 2) ** 2 / np.cosh(a)) @ law
    exact = (q / (1 + math.sqrt(v)) + math.sqrt(v) * rest) / v
    assert AbsChannel().precision(q, v) == pytest.approx(exact, rel=1e-11)
    # entropy of the sign given y and omega
    b = a * np.exp(-a) + np.cosh(a) * np.log1p(np.exp(-2 * a))
    exact = 0.5 * math.log(v) - math.sqrt(v) * (law @ b @ law)
    assert AbsChannel().information(q, v) == pytest.approx(exact, rel=1e-11)


def test_abs_limits():
    assert AbsChannel().precision(0.0) == 0.0
    q = np.array([1e-8, 1e-12, 1e-200])
    np.testing.assert_allclose(AbsChannel().precision(q) / q, 2.0, rtol=1e-7)
    assert AbsChannel().information(0.0) == pytest.approx(-math.log(2), rel=1e-15)
    v = np.array([1e-8, 1e-16, 1e-24])
    # 1 - E[var]/V with E[var] = V^(3/2) (2/pi) int p K_1 sech
    p = np.linspace(0, 40, 400_001)[1:]
    kappa = 2 / np.pi * integrate.simpson(p * special.k1(p) / np.cosh(p), x=p)
    share = v * AbsChannel().precision(1 - v, v)
    np.testing.assert_allclose((1 - share) / np.sqrt(v), kappa, rtol=1e-3, atol=1e-4)
    assert AbsChannel().precision(1.0) == ReLUChannel().precision(1.0) == INF
    assert AbsChannel().resolves == 1.0
    assert ReLUChannel().resolves == 0.5
    np.testing.assert_array_equal(AbsChannel([0.0, 0.1]).resolves, [1.0, 0.0])


def test_weak_recovery_of_abs_is_at_one_half():
    prior = GaussianFactorPrior(1.0, 0.8)
    start = 1e-6
    for alpha, grows in ((0.49, False), (0.51, True)):
        steps = iterate(Problem(prior, AbsChannel(), alpha), 1, q=start)
        assert (steps.q[-1] > start) == grows


def test_relu_is_half_linear_half_sign():
    # from its own definition: censored Gaussian
    q = 0.45
    x, w = np.polynomial.hermite_e.hermegauss(100)
    u = x * math.sqrt(q / (1 - q))
    positive = stats.norm.cdf(u) - u * stats.norm.pdf(u)
    censored = np.exp(2 * stats.norm.logpdf(u) - stats.norm.logsf(u))
    exact = (w / w.sum()) @ (positive + censored) / (1 - q)
    assert ReLUChannel().precision(q) == pytest.approx(exact, rel=1e-9)
    assert ReLUChannel().precision([0.3, 0.9]) == pytest.approx([1.1102483371, 6.1267393250])
    assert AbsChannel().precision([0.05, 0.6]) == pytest.approx([0.0881493145, 1.4087740687])


@pytest.mark.parametrize("kind", [AbsChannel, ReLUChannel])
def test_noise_to_zero_and_to_infinity(kind):
    q = np.array([0.01, 0.5, 0.99])
    for delta in (1e-8, 1e-14, 1e-22):
        noisy = kind(delta).precision(q)
        np.testing.assert_allclose(noisy, kind().precision(q), rtol=40 * math.sqrt(delta) + 1e-11)
        # the constant that is left out
        shift = 0.5 * kind().resolves * math.log(1 / delta)
        information = kind(delta).information(q) - shift
        np.testing.assert_allclose(information, kind().information(q), atol=60 * delta**0.5 + 1e-10)
    # weak signal: precision = E (dE[y|omega]/domega)^2/delta
    delta = 1e6
    t = stats.norm.cdf(np.sqrt(0.5 / 0.5) * np.polynomial.hermite_e.hermegauss(80)[0])
    w = np.polynomial.hermite_e.hermegauss(80)[1]
    slope = 2 * t - 1 if kind is AbsChannel else t
    weak = (w / w.sum()) @ slope**2 / delta
    assert kind(delta).precision(0.5) == pytest.approx(weak, rel=1e-5)
    # known outputs: the noise alone is left
    share = kind().resolves
    assert kind(0.2).precision(1.0) == pytest.approx(share / 0.2)
    assert kind(0.2).information(1.0) == pytest.approx(0.0, abs=1e-14)


@pytest.mark.parametrize("delta", [1e-3, 0.1, 5.0])
def test_noisy_abs_from_nearly_nothing(delta):
    # precision = q int Z''^2/Z dy + O(q^2), derivatives in omega at omega = 0, V = 1, where
    # Z = 2 N(y; 0, S) Phi(b), S = 1 + delta, b = y/sqrt(delta S)
    S, root = 1 + delta, math.sqrt(delta)
    ends = np.unique([*root * np.linspace(-14, 14, 57), *np.arange(14 * root, 15 * S**0.5, 0.5)])
    x, w = np.polynomial.legendre.leggauss(20)
    half = 0.5 * np.diff(ends)[:, None]
    y, w = (ends[:-1, None] + half * (1 + x)).ravel(), (half * w).ravel()
    b, k = y / math.sqrt(delta * S), math.sqrt(delta / S)
    hazard = math.sqrt(2 / math.pi) / special.erfcx(-b / math.sqrt(2))
    Z = 2 * stats.norm.pdf(y, scale=S**0.5) * special.ndtr(b)
    second = (y * y / S - 1) / S + hazard * (2 * k * y / S - k * k * b)
    slope = w @ (Z * second**2)
    for q in (1e-12, 1e-10, 1e-7):
        one, two = (AbsChannel(delta).precision(x) / x for x in (q, 2 * q))
        # the score is of order sqrt(q) beside terms of order 1
        assert 2 * one - two == pytest.approx(slope, rel=3e-12 + 3e-16 / math.sqrt(q))


def test_impossible_labels():
    for channel in (AbsChannel(), ReLUChannel()):
        assert np.isnan(channel.score(-0.1, 0.3, 0.5)).all()
    assert np.isnan(QuantizedChannel([0.0]).score([2.0, 0.5, -1.0], 0.1, 0.5)).all()
    assert np.isnan(SignChannel().score(0.0, 0.1, 0.5)).all()


# --------------------------------------------------------------------------------------------
# Logistic and quantised
# --------------------------------------------------------------------------------------------


def test_logistic_limits():
    q = np.array([1e-8, 0.3, 0.9, 0.999])
    # weak: k^2/4 of h - omega; strong: a sign
    np.testing.assert_allclose(LogisticChannel(1e-4).precision(q), 0.25e-8, rtol=1e-7)
    np.testing.assert_allclose(LogisticChannel(1e5).precision(q), SignChannel().precision(q), 1e-6)
    assert LogisticChannel(0.0).precision(0.3) == LogisticChannel(0.0).information(0.3) == 0.0
    assert LogisticChannel(0.0).generalization_error(0.3) == 0.5
    # known outputs: Fisher information k^2 E s (1 - s)
    h = np.linspace(-12, 12, 20001)
    s = special.expit(3.0 * h)
    fisher = integrate.simpson(9 * s * (1 - s) * stats.norm.pdf(h), x=h)
    assert LogisticChannel(3.0).precision(1.0) == pytest.approx(fisher, rel=1e-12)


@pytest.mark.parametrize("gain", [0.5, 3.0, 60.0])
def test_logistic_outputs_that_are_nearly_known(gain):
    # with p = s (1 - s): k^2 E p, and to first order in v less k^4 E p^2
    x, w = panels(12.0, 0.25 / max(gain, 1.0))
    p = special.expit(gain * x) * special.expit(-gain * x)
    law = 2 * w * stats.norm.pdf(x)
    known, slope = gain**2 * (law @ p), gain**4 * (law @ p**2)
    for v in (1e-7 / gain**2, 1e-12, 1e-20, 1e-60, 1e-300):
        exact = known - slope * v
        channel = LogisticChannel(gain)
        assert channel.precision(1 - v, v) == pytest.approx(exact, rel=1e-12)
        direct = channel._direct(kernels.PRECISION, np.array([1 - v]), np.array([v]))
        assert direct[0] == pytest.approx(exact, rel=1e-12)
        assert channel.information(1 - v, v) == pytest.approx(0.5 * v * known, rel=1e-6)
    # the score of a known output
    g, rate = LogisticChannel(gain).score([1.0, -1.0], 0.7, 1e-40)
    s = special.expit(-0.7 * gain)
    np.testing.assert_allclose(g, [gain * s, -gain * (1 - s)], rtol=1e-13)
    np.testing.assert_allclose(rate, -(gain**2) * s * (1 - s), rtol=1e-12, atol=1e-15 * gain**2)


@pytest.mark.parametrize(
    ("k", "omega", "V"),
    [(2, 1, 0.5), (2, 30, 0.5), (20, 3, 0.3), (1000, 1, 0.01), (3, -2, 1), (100, 10, 0.1)],
)
def test_logistic_evidence_against_mpmath(k, omega, V):
    with mpmath.workdps(25):
        root = mpmath.sqrt(V)
        low, high = mpmath.mpf(omega) - k * V, mpmath.mpf(omega)
        for _ in range(60):
            mode = (low + high) / 2
            above = mode - omega + k * V / (1 + mpmath.exp(-k * mode)) > 0
            low, high = (low, mode) if above else (mode, high)
        ends = {mode + x * root / 2 for x in range(-28, 29)} | {
            mpmath.mpf(x) / k for x in range(-30, 31, 3)
        }
        ends = sorted(x for x in ends if abs(x - mode) <= 14 * root)

        peak = mpmath.npdf(mode, omega, root)  # the tolerance of quad is absolute

        def law(h):
            return mpmath.npdf(h, omega, root) / (1 + mpmath.exp(k * h)) / peak

        rule = {"method": "gauss-legendre"}
        Z = mpmath.quad(law, ends, **rule)
        first = mpmath.quad(lambda h: law(h) * (h - omega) / V, ends, **rule) / Z
        found = kernels.logistic_evidence(k, omega, V, kernels.NODES, kernels.WEIGHTS)
        assert found[0] == pytest.approx(float(mpmath.log(Z * peak)), rel=1e-12)
        assert found[1] == pytest.approx(float(first), rel=1e-12)


def test_quantised_limits():
    levels = (-1.0, 0.0, 1.5)
    v = 1e-18
    expected = C * sum(math.exp(-t * t / 2) for t in levels)
    assert QuantizedChannel(levels).precision(1 - v, v) * math.sqrt(v) == pytest.approx(expected)
    q = np.array([0.0, 1e-8, 0.4, 1 - 1e-8])
    for delta in (0.0, 0.2):
        for method in ("precision", "information", "generalization_error"):
            sign = getattr(SignChannel(delta), method)(q)
            one = getattr(QuantizedChannel([0.0], delta), method)(q)
            np.testing.assert_allclose(one, sign, rtol=1e-11)
    # thousands of levels: the output itself, log of the bin width apart
    fine = QuantizedChannel(np.linspace(-8, 8, 3201))
    assert fine._direct(kernels.PRECISION, np.array([0.5]), np.array([0.5]))[0] == pytest.approx(
        2.0, rel=1e-4
    )
    # at q = 0: discrete entropy
    P = np.diff(stats.norm.cdf([-INF, *levels, INF]))
    assert QuantizedChannel(levels).information(0.0) == pytest.approx(stats.entropy(P))


# --------------------------------------------------------------------------------------------
# A channel given by its likelihood
# --------------------------------------------------------------------------------------------


def cauchy(y, h):
    return 1 / (math.pi * (1 + (y - h) ** 2))


def test_output_channel_continuous():
    # heavy tails: at q = 1 the Fisher information of a location, 1/2 for Cauchy
    channel = OutputChannel(cauchy)
    assert channel.precision(1.0) == pytest.approx(0.5, rel=1e-9)
    # at q = 0 labels are Voigt distributed: E (Re, Im of the Faddeeva function)
    y = np.sinh(np.linspace(-12, 12, 40001))
    z = (y + 1j) / math.sqrt(2)
    w = special.wofz(z)
    Z, slope = w.real / math.sqrt(2 * math.pi), (z * w).real * math.sqrt(2) / math.sqrt(2 * math.pi)
    exact = integrate.simpson(slope**2 / Z * np.sqrt(1 + y * y), x=np.arcsinh(y))
    assert channel.precision(0.0) == pytest.approx(exact, rel=1e-9)
    assert channel.accuracy(0.5) < 1e-9
    h = np.array([0.0, 1.0, -3.0]).repeat(20_000)
    noise = channel.sample(h, rng=1) - h
    assert stats.kstest(noise, stats.cauchy.cdf).pvalue > 1e-3
    np.testing.assert_array_equal(channel.sample(h[:5], rng=4), channel.sample(h[:5], rng=4))


def test_output_channel_finds_kinks_and_jumps():
    # the rate of a count with a threshold at 0, nothing said about it
    channel = OutputChannel(lambda y, h: np.where(y > 0, h > 0, h <= 0) * 1.0, outputs=(0, 1))
    assert channel.precision(0.7) == pytest.approx(SignChannel().precision(0.7), rel=1e-7)
    assert channel.precision(1.0) == INF
    label = channel.sample([-0.5, 0.5, 3.0], rng=0)
    np.testing.assert_array_equal(label, [0.0, 1.0, 1.0])
    g, slope = OutputChannel(
        lambda y, h: special.ndtr(3 * y * h), outputs=(-1, 1), breaks=(-0.5, 0, 0.5)
    ).score([1.0, -1.0], [0.3, 0.4], 0.2)
    exact = SignChannel(1 / 9).score([1.0, -1.0], [0.3, 0.4], 0.2)
    np.testing.assert_allclose(g, exact[0], rtol=1e-10)
    np.testing.assert_allclose(slope, exact[1], rtol=1e-10)


def test_output_channel_bounded_support():
    # labels in [0, 1] of density 1 + tanh(h) (2 y - 1)
    channel = OutputChannel(lambda y, h: 1 + np.tanh(h) * (2 * y - 1), support=(0, 1))
    # at q = 0: Z = 1, Z' = (2 y - 1) E sech^2
    h = np.linspace(-12, 12, 20001)
    mean = integrate.simpson(stats.norm.pdf(h) / np.cosh(h) ** 2, x=h)
    assert channel.precision(0.0) == pytest.approx(mean**2 / 3, rel=1e-11)
    labels = channel.sample(np.full(50_000, 0.8), rng=3)
    assert labels.mean() == pytest.approx(0.5 + math.tanh(0.8) / 6, abs=5 * 0.3 / 50_000**0.5)
    assert labels.min() >= 0.0
    assert labels.max() <= 1.0


# --------------------------------------------------------------------------------------------
# With state evolution
# --------------------------------------------------------------------------------------------


def test_solved_points():
    # reference values of an independent solver
    for channel, beta, rho, alpha, mmse in [
        (SignChannel(), 1.0, 0.5, 1.5, 0.27826934),
        (SignChannel(), 2.0, 0.2, 0.5, 0.41555792),
        (ReLUChannel(), 2.0, 0.2, 0.5, 0.02279087),
    ]:
        point = solve(Problem(GaussianFactorPrior(beta, rho), channel, alpha))
        assert point.mmse == pytest.approx(mmse, abs=6e-9)


@pytest.mark.parametrize(
    "channel",
    [SignChannel(), AbsChannel(0.05), ReLUChannel(0.1), LogisticChannel(3.0),
     QuantizedChannel([-1.0, 0.0, 1.0])],
    ids=name,
)  # fmt: skip
def test_solve_ends_where_iteration_ends(channel):
    problem = Problem(GaussianFactorPrior(1.0, 0.5), channel, [2.0, 3.0])
    point = solve(problem)
    q = iterate(problem, 300, q=0.5).q[:, -1]
    np.testing.assert_allclose(point.q, q, rtol=1e-8)
    np.testing.assert_allclose(
        point.generalization_error, channel.generalization_error(point.q, point.mmse)
    )
    assert np.all(point.status == Status.CONVERGED)


def test_error_of_labels_where_a_point_is_not_solved():
    prior = GaussianFactorPrior(1.0, 0.5)
    point = solve(Problem(prior, SignChannel(), [1.0, -1.0]), on_failure="return")
    assert np.isnan(point.generalization_error).tolist() == [False, True]
    linear = solve(Problem(prior, GaussianChannel(0.3), 0.4))
    assert linear.generalization_error == pytest.approx(linear.mmse + 0.3)


# --------------------------------------------------------------------------------------------
# The linear channel, input
# --------------------------------------------------------------------------------------------


def test_noiseless_information_is_the_limit_without_its_constant():
    q = np.array([0.0, 0.5, 0.99])
    delta = 1e-9
    noisy = GaussianChannel(delta).information(q) + 0.5 * math.log(delta)
    np.testing.assert_allclose(GaussianChannel(0.0).information(q), noisy, atol=1e-6)


def test_accurate_variance_is_used():
    assert GaussianChannel(0.0).precision(1.0, 1e-30) == pytest.approx(1e30)
    assert GaussianChannel(0.0).precision(1.0) == math.inf
    assert GaussianChannel([0.0, 1.0]).precision([[0.5], [1.0]]).shape == (2, 2)
    np.testing.assert_array_equal(GaussianChannel([0.0, 1.0]).resolves, [1.0, 0.0])


def test_linear_channel_at_any_second_moment():
    # q + v is 1 + rho for a symmetric prior, and h of one token is h of a linear model
    assert GaussianChannel(0.2).precision(1.5, 0.3) == pytest.approx(2.0)
    assert GaussianChannel(0.2).information(1.5, 0.6) == pytest.approx(math.log(2.0))
    assert GaussianChannel(0.2).generalization_error([1.5, 7.0], 1.3) == pytest.approx([1.5, 1.5])
    rho, delta = np.array([[0.3], [1.0], [2.5]]), np.array([0.0, 0.05, 1.0])
    problem = Problem(SymmetricFactorPrior(rho), GaussianChannel(delta), 0.2)
    tokens = linear_attention(tokens=1, rho=rho, delta=delta, alpha=0.2)
    point, other = solve(problem), solve(tokens)
    np.testing.assert_allclose(point.mmse, other.mmse, rtol=1e-12)
    np.testing.assert_allclose(point.information, other.information, rtol=1e-10)
    steps = iterate(problem, 400)
    np.testing.assert_allclose(steps.mmse[..., -1], point.mmse, rtol=1e-8)
    np.testing.assert_allclose(point.q + point.mmse, np.broadcast_to(1 + rho, (3, 3)), rtol=1e-13)
    again = Problem(SymmetricFactorPrior(0.3), GaussianChannel(0.05), 0.2)
    assert fixed_points(again).mmse[0] == pytest.approx(point.mmse[0, 1], rel=1e-9)
    assert free_entropy(again, point.q[0, 1]) == pytest.approx(-point.information[0, 1], rel=1e-9)


def test_sample_is_reproducible():
    h = np.zeros(1000)
    one = GaussianChannel(4.0).sample(h, rng=3)
    np.testing.assert_array_equal(one, GaussianChannel(4.0).sample(h, rng=3))
    assert np.std(one) == pytest.approx(2.0, rel=0.1)
    np.testing.assert_array_equal(GaussianChannel(0.0).sample(h + 1, rng=3), h + 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GaussianChannel(-0.1), r"delta must be >= 0 and finite, got -0\.1"),
        (lambda: GaussianChannel(math.nan), "delta must be >= 0 and finite, got nan"),
        (lambda: GaussianChannel(math.inf), "delta must be >= 0 and finite, got inf"),
        (lambda: GaussianChannel(0.1).precision(1.1), r"q must be in \[0, 1\], got 1\.1"),
        (lambda: GaussianChannel(0.1).precision(-0.1, 0.5), r"q must be >= 0 and finite, got -0"),
        (lambda: GaussianChannel(0.1).precision(1.2, -0.1), r"v must be >= 0 and finite, got -0"),
        (lambda: GaussianChannel([0.1, 1]).precision([0.1, 0.2, 0.3]), "do not broadcast"),
        (lambda: SignChannel(-0.1), r"delta must be >= 0 and finite, got -0\.1"),
        (lambda: AbsChannel(math.nan), "delta must be >= 0 and finite, got nan"),
        (lambda: ReLUChannel().precision(-0.1), r"q must be in \[0, 1\], got -0\.1"),
        (lambda: SignChannel([0.1, 1]).precision([0.1, 0.2, 0.3]), "do not broadcast"),
        (lambda: SignChannel().score(1.0, 0.0, -1.0), r"V must be >= 0, got -1\.0"),
        (lambda: LogisticChannel(-2), r"gain must be >= 0 and finite, got -2\.0"),
        (lambda: QuantizedChannel([1.0, 0.0]), r"thresholds must be finite and increasing"),
        (lambda: QuantizedChannel([]), r"thresholds must be finite and increasing, got \[\]"),
        (lambda: OutputChannel("sign"), "likelihood must be callable, got 'sign'"),
        (lambda: OutputChannel(cauchy, points=(2, 1)), r"points must be finite and increasing"),
        (lambda: OutputChannel(cauchy, support=(0, 1)), "normalised over y, got total"),
        (lambda: OutputChannel(lambda y, h: y * h, outputs=(0, 1)), "finite and >= 0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.slow
def test_a_million_overlaps_in_seconds():
    q = np.random.default_rng(0).random(1_000_000)
    for channel in NONLINEAR:
        start = time.perf_counter()
        values = channel.precision(q)
        assert np.isfinite(values).all()
        assert time.perf_counter() - start < 15.0


def test_a_likelihood_that_jumps():
    # signs flipped with probability p: at v -> 0 all happens within sqrt(v) of the jump
    p = 0.1
    channel = OutputChannel(
        lambda y, h: p + (1.0 - 2.0 * p) * (y * h > 0.0), outputs=(-1, 1), breaks=(0.0,)
    )

    def near(u):
        Z = p + (1.0 - 2.0 * p) * special.ndtr(u)
        return (1.0 - 2.0 * p) ** 2 * np.exp(-(u**2)) / (2.0 * np.pi) / (Z * (1.0 - Z))

    constant = integrate.quad(near, -10.0, 10.0, epsabs=1e-13)[0] / np.sqrt(2.0 * np.pi)
    v = np.array([1e-11, 1e-13, 1e-14, 1e-20, 1e-300])
    np.testing.assert_allclose(channel.precision(1.0 - v, v) * np.sqrt(v), constant, rtol=1e-9)
    rest = channel.information(1.0 - v[1:], v[1:]) / np.sqrt(v[1:])
    np.testing.assert_allclose(rest, constant, rtol=1e-4)
    assert channel.precision(1.0) == np.inf and channel.information(1.0) == 0.0
    point = bsr.solve(bsr.Problem(bsr.GaussianFactorPrior(1.0, 0.5), channel, [2.0, 1e4]))
    assert all(bsr.Status(x).ok for x in point.status)
    assert np.all(np.diff(point.mmse) < 0.0)
