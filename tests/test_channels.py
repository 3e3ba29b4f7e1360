"""Channels: precision, information, score and samples agree with each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsr_theory import GaussianChannel

CHANNELS = [GaussianChannel(0.0), GaussianChannel(0.1), GaussianChannel(30.0)]


@pytest.mark.parametrize("channel", CHANNELS)
@given(q=st.floats(0.01, 0.98))
def test_information_differentiates_to_precision(channel, q):
    h = 1e-4 * (1 - q)
    slope = (channel.information(q + h) - channel.information(q - h)) / (2 * h)
    assert slope == pytest.approx(-0.5 * channel.precision(q), rel=1e-6)


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("q", [0.0, 0.4, 0.9])
def test_precision_is_the_mean_square_score(channel, q):
    # Monte Carlo of E g_out^2 = -E g_out' under the model
    rng = np.random.default_rng(5)
    n = 200_000
    omega = math.sqrt(q) * rng.standard_normal(n)
    y = channel.sample(omega + math.sqrt(1 - q) * rng.standard_normal(n), rng=rng)
    g, slope = channel.score(y, omega, 1 - q)
    assert np.mean(g**2) == pytest.approx(channel.precision(q), rel=5 * math.sqrt(2 / n))
    assert -np.mean(slope) == pytest.approx(channel.precision(q), rel=1e-12)


def test_score_is_the_derivative_of_log_evidence():
    channel, y, omega, V, h = GaussianChannel(0.3), 0.7, -0.2, 0.5, 1e-5

    def log_evidence(omega):  # by quadrature over h, not by the formula
        x, w = np.polynomial.hermite_e.hermegauss(80)
        field = omega + math.sqrt(V) * x
        return math.log(np.sum(w * np.exp(-((y - field) ** 2) / (2 * channel.delta))))

    g, slope = channel.score(y, omega, V)
    up, mid, down = (log_evidence(omega + k * h) for k in (1, 0, -1))
    assert g == pytest.approx((up - down) / (2 * h), rel=1e-6)
    assert slope == pytest.approx((up - 2 * mid + down) / h**2, rel=1e-3)


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
        (lambda: GaussianChannel([0.1, 1]).precision([0.1, 0.2, 0.3]), "do not broadcast"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
