"""Closed forms against quadrature, iteration, simulation and the arbitrary-precision reference."""

from __future__ import annotations

import inspect

import highprec
import mpmath
import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp, mpf
from numpy.testing import assert_allclose
from scipy.integrate import quad

from bsr_theory import limits


def positive(low: float, high: float) -> st.SearchStrategy[float]:
    """Draw numbers spread evenly in logarithm."""
    return st.floats(np.log10(low), np.log10(high)).map(lambda x: 10.0**x)


def marchenko_pastur_mean(function, ratio: float) -> float:
    """Mean over the non-zero spectrum of X X^T/m, X of shape (ratio m, m) with unit entries.

    The weight of the non-zero part is min(1, 1/ratio); what remains sits at zero.
    """
    low, high = (1 - np.sqrt(ratio)) ** 2, (1 + np.sqrt(ratio)) ** 2

    def integrand(x: float) -> float:
        value = low + (high - low) * np.sin(x) ** 2
        density = (high - low) * np.sin(2 * x) / 2 / (2 * np.pi * ratio * value)
        return density * function(value) * (high - low) * np.sin(2 * x)

    return quad(integrand, 0, np.pi / 2, epsabs=1e-14, epsrel=1e-12, limit=400)[0]


# --- ridge --------------------------------------------------------------------------------------

# alpha, delta, lam, error: computed from state evolution, confirmed by simulation.
RIDGE = [
    (0.5, 0.1, 0.0, 0.6),
    (0.5, 0.1, 0.02, 0.587697405654),
    (0.5, 0.1, 0.1, 0.574165738677),
    (0.5, 0.1, 0.5, 0.624264068712),
    (1.5, 0.5, 0.0, 1.0),
    (1.5, 0.5, 0.1, 0.532370802418),
    (1.5, 0.5, 0.5, 0.366025403784),
    (1.5, 0.5, 2.0, 0.493399267799),
    (0.8, 0.0, 0.1, 0.271791138077),
    (1.0, 0.1, 0.01, 0.501810667230),
    (1.0, 0.1, 0.1, 0.270156211872),
]


@pytest.mark.parametrize(("alpha", "delta", "lam", "error"), RIDGE)
def test_ridge_values(alpha, delta, lam, error):
    assert_allclose(limits.ridge_mse(alpha, delta, lam), error, rtol=2e-12)


@pytest.mark.parametrize("alpha", [0.3, 0.99, 1.0, 1.7])
@pytest.mark.parametrize("lam", [0.01, 0.4, 3.0])
def test_ridge_is_an_integral_over_the_spectrum_of_the_design(alpha, lam):
    delta = 0.3
    # A^T A = X^T X/N has the law of alpha x on the weight min(1, alpha), and zeros.
    error = marchenko_pastur_mean(
        lambda x: (lam**2 + delta * alpha * x) / (alpha * x + lam) ** 2, 1 / alpha
    ) + max(0.0, 1 - alpha)
    assert_allclose(limits.ridge_mse(alpha, delta, lam), error, rtol=1e-10)
    # The residual is lam (A A^T + lam)^{-1} y; A A^T has min(1, 1/alpha) non-zero eigenvalues.
    loss = marchenko_pastur_mean(
        lambda x: (lam / (x + lam)) ** 2 * (x + delta), alpha
    ) + delta * max(0.0, 1 - 1 / alpha)
    assert_allclose(limits.ridge_train_loss(alpha, delta, lam), loss, rtol=1e-10)


def test_ridge_simulation():
    rng = np.random.default_rng(1)
    d1, d2, r, delta = 20, 30, 4, 0.2
    for alpha, lam in ((0.5, 0.3), (1.5, 0.05)):
        n = round(alpha * d1 * d2)
        errors, losses = [], []
        for _ in range(4):
            signal = rng.normal(size=(d1, r)) @ rng.normal(size=(r, d2)) / np.sqrt(r)
            signal *= np.sqrt(d1 * d2) / np.linalg.norm(signal)  # its norm fluctuates: fix it
            design = rng.normal(size=(n, d1 * d2)) / np.sqrt(d1 * d2)
            y = design @ signal.ravel() + np.sqrt(delta) * rng.normal(size=n)
            gram = design.T @ design + lam * np.eye(d1 * d2)
            estimate = np.linalg.solve(gram, design.T @ y)
            errors.append(np.mean((estimate - signal.ravel()) ** 2))
            losses.append(np.mean((y - design @ estimate) ** 2))
        assert_allclose(np.mean(errors), limits.ridge_mse(alpha, delta, lam), rtol=0.03)
        assert_allclose(np.mean(losses), limits.ridge_train_loss(alpha, delta, lam), rtol=0.03)


@given(alpha=positive(1e-3, 1e3), delta=positive(1e-12, 1e3), lam=positive(1e-12, 1e3))
def test_ridge_without_cancellation(alpha, delta, lam):
    with mp.workdps(60):
        a, v, p = mpf(alpha), mpf(delta), mpf(lam)
        d = (1 + a + p - mp.sqrt((1 + a + p) ** 2 - 4 * a)) / 2
        error = (a * (1 - d) ** 2 + v * d**2) / (a - d**2)
        loss = (v + error) * (1 - d / a) ** 2
        assert_allclose(limits.ridge_mse(alpha, delta, lam), float(error), rtol=2e-14)
        assert_allclose(limits.ridge_train_loss(alpha, delta, lam), float(loss), rtol=2e-14)


@given(alpha=positive(1e-3, 1e3), delta=positive(1e-6, 1e2), factor=positive(1e-3, 1e3))
def test_ridge_optimum(alpha, delta, factor):
    best = limits.ridge_mse(alpha, delta)
    assert (
        best == limits.ridge_mse(alpha, delta, "optimal") == limits.ridge_mse(alpha, delta, delta)
    )
    assert best <= limits.ridge_mse(alpha, delta, factor * delta) * (1 + 1e-14)
    assert_allclose(best, limits.solve_infinite_rho(alpha, delta), rtol=1e-13)


def test_least_squares_and_its_peak():
    alpha = np.array([0.25, 0.5, 2.0, 5.0])
    expected = np.where(alpha < 1, 1 - alpha + 0.1 * alpha / (1 - alpha), 0.1 / (alpha - 1))
    assert_allclose(limits.ridge_mse(alpha, 0.1, 0.0), expected, rtol=1e-15)
    assert_allclose(limits.ridge_mse(alpha, 0.1, 1e-14), expected, rtol=1e-11)
    loss = np.where(alpha <= 1, 0.0, 0.1 * (1 - 1 / alpha))
    assert_allclose(limits.ridge_train_loss(alpha, 0.1, 0.0), loss, rtol=1e-15)
    assert limits.ridge_mse(1.0, 0.1, 0.0) == np.inf
    assert limits.ridge_train_loss(1.0, 0.1, 0.0) == 0.0
    assert limits.ridge_mse(1.0, 0.1, 1e-12) == pytest.approx(0.1 / 2e-6, rel=1e-4)
    for a in (1.0, 1.5):
        assert limits.ridge_mse(a, 0.0, 0.0) == 0.0
    assert limits.ridge_mse(0.5, 0.0) == 0.5


# --- beta -> infinity ---------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [0.05, 0.5, 1.0, 2.0, 30.0])
@pytest.mark.parametrize("s", [0.02, 1.0, 50.0])
def test_infinite_beta_is_a_marchenko_pastur_average(rho, s):
    # A A^T/r for A of shape d1 x r: ratio 1/rho, zeros do not contribute.
    mmse = marchenko_pastur_mean(lambda x: x * s / (x + s), 1 / rho)
    information = marchenko_pastur_mean(lambda x: np.log1p(x / s) / 2, 1 / rho)
    assert_allclose(limits.mmse_infinite_beta(rho, s), mmse, rtol=1e-10)
    assert_allclose(limits.information_infinite_beta(rho, s), information, rtol=1e-9)


@given(rho=st.one_of(positive(1e-4, 1e4), st.just(1.0)), s=positive(1e-12, 1e12))
def test_infinite_beta_without_cancellation(rho, s):
    with mp.workdps(80):
        r, v = mpf(rho), mpf(s)
        root = mp.sqrt((r - 1) ** 2 + 2 * r * (r + 1) * v + r**2 * v**2)
        mmse = v - v / 2 * (root - (r - 1) - r * v)
        t = -mmse / v
        information = (-mp.log(v) + t + (1 - r) * mp.log(1 + t / r) - mp.log(-t)) / 2
        assert_allclose(limits.mmse_infinite_beta(rho, s), float(mmse), rtol=5e-15)
        assert_allclose(limits.information_infinite_beta(rho, s), float(information), rtol=2e-14)


@given(rho=positive(1e-2, 1e2), s=positive(1e-3, 1e3))
def test_infinite_beta_error_is_the_derivative_of_information(rho, s):
    step = 1e-4
    qhat = np.array([1 - step, 1 + step]) / s
    low, high = limits.information_infinite_beta(rho, 1 / qhat)
    slope = (high - low) * s / (2 * step)
    assert_allclose(2 * slope, limits.mmse_infinite_beta(rho, s), rtol=1e-6)


@given(
    alpha=positive(1e-3, 10),
    rho=st.one_of(positive(1e-3, 1e3), st.just(1.0)),
    delta=st.one_of(positive(1e-10, 1e2), st.just(0.0)),
)
def test_solve_infinite_beta(alpha, rho, delta):
    mmse = limits.solve_infinite_beta(alpha, rho, delta)
    if delta == 0 and alpha >= min(1.0, rho):
        assert mmse == 0.0
        return
    with mp.workdps(60):
        a, r, v = mpf(alpha), mpf(rho), mpf(delta)

        def excess(log_s):
            s = mp.exp(log_s)
            b = 1 + r + r * s
            return 2 * r / (b + mp.sqrt(b**2 - 4 * r)) - a + v / s

        low, high = mp.log(v / a) if delta > 0 else mpf(-100), mp.log((1 + v) / a)
        for _ in range(180):
            middle = (low + high) / 2
            low, high = (middle, high) if excess(middle) > 0 else (low, middle)
        exact = a * mp.exp(low) - v
        assert_allclose(mmse, float(exact), rtol=1e-14)


def test_solve_infinite_beta_closed_form_and_limits():
    alpha, rho = np.array([0.1, 0.4, 0.6]), np.array([[0.5], [1.0], [3.0]])
    top = np.minimum(alpha, np.minimum(1, rho))
    expected = (1 - top) * (1 - top / rho)
    assert_allclose(limits.solve_infinite_beta(alpha, rho, 0.0), expected, rtol=1e-15, atol=0)
    with_noise = limits.solve_infinite_beta(alpha, np.inf, 0.3)
    assert_allclose(with_noise, limits.solve_infinite_rho(alpha, 0.3), rtol=1e-14)
    # rho -> 0 is ridge regression with alpha_LR samples
    few = limits.solve_infinite_beta(1e-9 * alpha, 1e-9, 0.3)
    assert_allclose(few, limits.low_rank_mmse(alpha, np.inf, 0.3), rtol=1e-8)


@pytest.mark.parametrize(("rho", "s"), [("0.5", "0.2"), ("2", "0.01")])
def test_finite_beta_approaches_the_limit_like_its_inverse(rho, s):
    limit = limits.mmse_infinite_beta(float(rho), float(s))
    gaps = [float(highprec.mmse(beta, rho, s, digits=15) - limit) for beta in (1000, 4000)]
    assert abs(gaps[0]) < 1e-2 * limit
    assert gaps[0] / gaps[1] == pytest.approx(4, rel=5e-3)


# --- rho -> infinity ----------------------------------------------------------------------------


@given(s=positive(1e-12, 1e12))
def test_infinite_rho(s):
    assert_allclose(limits.mmse_infinite_rho(s), s / (1 + s), rtol=1e-15)
    assert_allclose(limits.mmse_infinite_beta(np.inf, s), s / (1 + s), rtol=1e-15)
    information = float(mpmath.log1p(1 / mpf(s)) / 2)
    assert_allclose(limits.information_infinite_rho(s), information, rtol=1e-15)
    assert_allclose(limits.information_infinite_beta(np.inf, s), information, rtol=1e-14)


@given(alpha=positive(1e-3, 1e3), delta=positive(1e-12, 1e3))
def test_solve_infinite_rho(alpha, delta):
    mmse = limits.solve_infinite_rho(alpha, delta)
    with mp.workdps(60):
        half = (mpf(alpha) + mpf(delta) - 1) / 2
        exact = mp.sqrt(half**2 + mpf(delta)) - half
        s = (exact + mpf(delta)) / mpf(alpha)
        assert abs(exact - s / (1 + s)) < mpf("1e-50")
        assert_allclose(mmse, float(exact), rtol=1e-14)


def test_end_points():
    assert limits.mmse_infinite_rho([0.0, np.inf]).tolist() == [0.0, 1.0]
    assert limits.mmse_infinite_beta([0.5, 2.0], [0.0, np.inf]).tolist() == [0.0, 1.0]
    assert limits.information_infinite_beta(0.5, [0.0, np.inf]).tolist() == [np.inf, 0.0]
    assert limits.solve_infinite_rho([0.5, 1.0, 2.0], 0.0).tolist() == [0.5, 0.0, 0.0]


# --- rho -> 0 -----------------------------------------------------------------------------------


def overlaps(snr: float, beta: float) -> float:
    """Iterate the overlaps of the two factors, each the SNR of the other, from full knowledge."""
    x, m_a, m_b = beta * snr, 1.0, 1.0
    for _ in range(100_000):
        old = m_a
        m_a = x * m_b / (1 + x * m_b)
        m_b = x * m_a / (beta + x * m_a)
        if abs(m_a - old) <= 1e-16 * m_a:
            break
    return m_a * m_b


@pytest.mark.parametrize("beta", [1.0, 2.5, 100.0])
def test_low_rank_overlap_is_the_fixed_point_of_two_overlaps(beta):
    threshold = 1 / np.sqrt(beta)
    for factor in (1.05, 1.5, 4.0, 100.0):
        assert_allclose(
            limits.low_rank_overlap(factor * threshold, beta),
            overlaps(factor * threshold, beta),
            rtol=1e-11,
        )
    assert overlaps(0.9 * threshold, beta) < 1e-12
    assert limits.low_rank_overlap([0.0, 0.9 * threshold, np.inf], beta).tolist() == [0.0, 0.0, 1.0]


def low_rank_iteration(alpha_lr: float, beta: float, delta: float) -> float:
    """State evolution from good knowledge, the two overlaps updated in turn."""
    m_a = m_b = 0.99
    for _ in range(200_000):
        x = (1 + beta) * alpha_lr / (delta + 1 - m_a * m_b)
        old = m_a
        m_a = x * m_b / (1 + x * m_b)
        m_b = x * m_a / (beta + x * m_a)
        if abs(m_a - old) < 1e-15:
            break
    return 1 - m_a * m_b


@pytest.mark.parametrize("beta", [1.0, 3.0, 50.0])
@pytest.mark.parametrize("delta", [1e-3, 0.1, 2.0])
@pytest.mark.parametrize("factor", [1.1, 1.5, 5.0])
def test_low_rank_mmse_is_the_fixed_point_of_the_iteration(beta, delta, factor):
    alpha_lr = factor * limits.weak_recovery_low_rank(beta, delta)
    expected = low_rank_iteration(alpha_lr, beta, delta)
    assert_allclose(limits.low_rank_mmse(alpha_lr, beta, delta), expected, rtol=1e-10)


@given(
    alpha_lr=positive(1e-3, 1e2),
    beta=st.one_of(positive(1, 1e8), st.just(1.0), st.just(np.inf)),
    delta=st.one_of(positive(1e-10, 1e3), st.just(0.0)),
)
def test_low_rank_mmse_solves_state_evolution(alpha_lr, beta, delta):
    mmse = limits.low_rank_mmse(alpha_lr, beta, delta)
    assert 0 <= mmse <= 1
    if alpha_lr <= limits.weak_recovery_low_rank(beta, delta):
        assert mmse == 1
    elif delta == 0 and alpha_lr >= 1:
        assert mmse == 0
    else:
        snr = (1 + 1 / beta) * alpha_lr / (delta + mmse)
        assert_allclose(limits.low_rank_overlap(snr, beta), 1 - mmse, rtol=1e-11, atol=1e-11)


def test_low_rank_closed_forms():
    alpha = np.linspace(0.05, 2, 40)
    noiseless = np.where(alpha <= 0.5, 1.0, 1 - np.minimum(2 * alpha - 1, 1) ** 2)
    assert_allclose(limits.low_rank_mmse(alpha, 1.0, 0.0), noiseless, atol=1e-15)
    delta = 0.3
    x = (alpha - 1 + np.sqrt((1 - alpha) ** 2 + delta)) / delta
    square = 1 - np.where(x > 1, 1 - 1 / x, 0.0) ** 2
    assert_allclose(limits.low_rank_mmse(alpha, 1.0, delta), square, rtol=1e-13)
    root = np.sqrt((alpha - 1) ** 2 + 2 * (alpha + 1) * delta + delta**2)
    vector = 1 - (1 + delta + alpha - root) / 2
    assert_allclose(limits.low_rank_mmse(alpha, np.inf, delta), vector, rtol=1e-13)
    assert_allclose(limits.low_rank_mmse(alpha, np.inf, delta), limits.ridge_mse(alpha, delta))


def test_low_rank_relative_accuracy_below_perfect_recovery():
    # v = (1 + b) e/(1 - b + b^2) to first order in e = 1 - alpha_LR, and mmse = (1 + b) v
    b, e = 0.25, 2.0**-40
    expected = (1 + b) ** 2 * e / (1 - b + b**2)
    assert_allclose(limits.low_rank_mmse(1 - e, 4.0, 0.0), expected, rtol=10 * e)


@pytest.mark.parametrize("beta", [1.0, 2.0, 50.0, np.inf])
def test_low_rank_information_integrates_the_error(beta):
    def error(snr: float) -> float:
        return (1 - limits.low_rank_overlap(snr, beta)) / 2

    threshold = np.sqrt(1 / beta)
    for snr in (0.5 * threshold + 0.1, 2 * threshold + 0.3, 20.0):
        breaks = [threshold] if threshold < snr else None
        area = quad(error, 0, snr, epsabs=0, epsrel=1e-12, points=breaks, limit=200)[0]
        assert_allclose(limits.low_rank_information(snr, beta), area, rtol=1e-10)
    assert limits.low_rank_information(0.0, beta) == 0.0
    assert limits.low_rank_information(np.inf, beta) == np.inf


def test_low_rank_limit_is_reached_from_finite_rank():
    beta, snr = 2.0, 2.0
    limit = 1 - limits.low_rank_overlap(snr, beta)
    info = limits.low_rank_information(snr, beta)
    gaps = []
    for rho in (4e-3, 1e-3):
        value = highprec.evaluate(beta, rho, 1 / (rho * snr), digits=15)
        gaps.append((float(value.mmse) - limit, float(value.information) / rho - info))
    assert gaps[1][0] == pytest.approx(0, abs=5e-3) and gaps[1][1] == pytest.approx(0, abs=1e-2)
    assert gaps[0][0] / gaps[1][0] == pytest.approx(4, rel=0.05)  # O(rho)
    assert 2 < gaps[0][1] / gaps[1][1] < 4  # O(rho log(1/rho))


def test_low_rank_limit_of_the_solved_problem():
    beta, delta, alpha_lr = 2.0, 0.1, 0.8
    limit = limits.low_rank_mmse(alpha_lr, beta, delta)
    gaps = []
    for rho in (4e-2, 1e-2):
        alpha = limits.alpha_from_low_rank(alpha_lr, beta, rho)
        gaps.append(naive.solve(alpha, beta, rho, delta) - limit)
    assert abs(gaps[1]) < 0.02 and abs(gaps[1]) < 0.4 * abs(gaps[0])


@given(alpha=positive(1e-6, 1e2), beta=positive(1, 1e6), rho=positive(1e-3, 1e2))
def test_scalings_are_inverse(alpha, beta, rho):
    # n samples for r (d1 + d2) parameters, with d1 = 1 as the unit
    alpha_lr = alpha * beta / (rho * (1 + beta))
    assert_allclose(limits.alpha_low_rank(alpha, beta, rho), alpha_lr, rtol=1e-14)
    assert_allclose(limits.alpha_from_low_rank(alpha_lr, beta, rho), alpha, rtol=1e-14)


def test_weak_recovery():
    assert limits.weak_recovery_low_rank(1.0, 0.0) == 0.5
    assert limits.weak_recovery_low_rank(np.inf, 3.0) == 0.0
    for beta, delta in ((1.0, 0.0), (7.0, 0.4), (100.0, 2.0)):
        weak = limits.weak_recovery_low_rank(beta, delta)
        below, above = limits.low_rank_mmse([weak * (1 - 1e-6), weak * (1 + 1e-3)], beta, delta)
        assert below == 1 and 0.99 < above < 1
        assert low_rank_iteration(0.98 * weak, beta, delta) > 1 - 1e-9


# --- small s ------------------------------------------------------------------------------------


def test_strong_recovery():
    cases = {
        (1, 0.5): 0.75,
        (10, 0.5): 0.525,
        (2, 0.2): 0.28,
        (3, 1): 1,
        (2, 5): 1,
        (np.inf, 0.3): 0.3,
    }
    for (beta, rho), threshold in cases.items():
        assert limits.strong_recovery(beta, rho) == pytest.approx(threshold, rel=1e-15)
    assert limits.strong_recovery(4.0, np.inf) == 1
    # dimension of the manifold of 6 x 15 matrices of rank 2
    jacobian = []
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(6, 2)), rng.normal(size=(2, 15))
    for k in range(6 * 2 + 2 * 15):
        step = np.zeros(42)
        step[k] = 1
        d_left, d_right = step[:12].reshape(6, 2), step[12:].reshape(2, 15)
        jacobian.append((d_left @ right + left @ d_right).ravel())
    dimension = np.linalg.matrix_rank(np.array(jacobian))
    assert limits.strong_recovery(15 / 6, 2 / 6) == pytest.approx(dimension / 90, rel=1e-14)


# (D s - M)/s^2 for s -> 0, from quadrature over the spectrum of S S^T
KNOWN_C2 = {
    (1.0, 0.5): 0.343897286342,
    (2.0, 0.2): 0.0353419727,
    (5.0, 0.7): 1.3267053503,
    (1.0, 0.05): 0.0025645268,
    (2.0, 2.0): 1.37558914537,
}


def test_small_s_coefficients_known():
    for (beta, rho), value in KNOWN_C2.items():
        d, c2 = limits.small_s_coefficients(beta, rho)
        assert d == limits.strong_recovery(beta, rho)
        assert_allclose(c2, value, rtol=0, atol=5.1e-11)  # as many digits as are known


def second_coefficient(beta: float, rho: float, s: float) -> float:
    """(D s - M)/s^2 at s = 0, by Richardson extrapolation of three values of M."""
    digits = 18 - round(np.log10(s))
    with mp.workdps(60):
        b, r = mpf(beta), mpf(rho)
        d = r * (1 + b - r) / b if rho < 1 else mpf(1)
        value = [
            (d - highprec.mmse(beta, rho, mpf(s) * k, digits) / (mpf(s) * k)) / (mpf(s) * k)
            for k in (1, 2, 4)
        ]
        first = [2 * value[0] - value[1], 2 * value[1] - value[2]]
        return float((4 * first[0] - first[1]) / 3)


@pytest.mark.parametrize(
    ("beta", "rho", "s"),
    [
        (1.0, 0.5, 1e-5),
        (2.0, 2.0, 1e-5),
        (1e4, 0.05, 1e-5),
        pytest.param(1.0, 3.0, 1e-8, marks=pytest.mark.slow),
        pytest.param(1.0, 0.001, 1e-9, marks=pytest.mark.slow),
        pytest.param(1.0, 1 - 1e-4, 1e-17, marks=pytest.mark.slow),
        pytest.param(1.0, 1 + 1e-4, 1e-17, marks=pytest.mark.slow),
        pytest.param(1 + 1e-6, 0.7, 1e-9, marks=pytest.mark.slow),
        pytest.param(1 + 1e-3, 1 + 1e-3, 1e-15, marks=pytest.mark.slow),
        pytest.param(30.0, 0.99, 1e-12, marks=pytest.mark.slow),
        pytest.param(1e4, 100.0, 1e-8, marks=pytest.mark.slow),
        pytest.param(3.0, 1 + 1e-5, 1e-18, marks=pytest.mark.slow),
    ],
)
def test_small_s_coefficients_are_those_of_the_error(beta, rho, s):
    c2 = limits.small_s_coefficients(beta, rho)[1]
    assert_allclose(c2, second_coefficient(beta, rho, s), rtol=2e-11)


def cube_integral(beta: float, rho: float) -> mpf:
    """J by tanh-sinh over tau, on decades towards the lower end; the digits beat cancellation."""
    with mp.workdps(120):
        b, r = mpf(beta), mpf(rho)
        sigma = 1 + b + r
        roots = mp.polyroots([1, -2 * sigma, sigma**2, -4 * b * r], maxsteps=200, extraprec=400)
        _, low, high = sorted(mp.re(root) for root in roots)

    def integrand(offset: mpf) -> mpf:
        with mp.workdps(120):
            tau = low + offset
            w = (tau - 1) * (tau - b) * (tau - r) / (b * r * tau)
            slope = w * (1 / (tau - 1) + 1 / (tau - b) + 1 / (tau - r) - 1 / tau)
            imag = mp.sqrt(max(mpf(0), b * r / tau - (sigma - tau) ** 2 / 4))
            return imag**3 * slope / w**2

    with mp.workdps(25):
        ends = [mpf(0), *((high - low) * mpf(10) ** -k for k in range(24, -1, -1))]
        return 4 / (3 * mp.pi * b**2) * mp.quad(integrand, ends)


@pytest.mark.parametrize("beta", [1.0, 1 + 1e-9, 3.0, 1e4])
@pytest.mark.parametrize("rho", [1e-3, 1 - 1e-6, 1 + 1e-9, 80.0])
def test_small_s_coefficients_to_full_precision(beta, rho):
    cube = cube_integral(beta, rho)
    with mp.workdps(40):
        b, r = 1 / mpf(beta), mpf(rho)
        if r < 1:
            c2 = cube + r**2 * ((1 - b) / (1 - r) + b**2 * (1 - r) / (1 - b * r))
        else:
            c2 = cube + (1 - b) * r / (r - 1)
        assert_allclose(limits.small_s_coefficients(beta, rho)[1], float(c2), rtol=2e-14)
        computed = limits._cube_integral(np.float64(beta), np.float64(rho))
        assert_allclose(computed, float(cube), rtol=2e-14)


def test_small_s_coefficients_limits():
    d, c2 = limits.small_s_coefficients(
        [np.inf, np.inf, 2.0, 1.0, 3.0], [0.4, 5.0, np.inf, 1.0, 1.0]
    )
    assert_allclose(d, [0.4, 1, 1, 1, 1])
    # s/(1 + s) = s - s^2 + ... at rho = inf, and mmse_infinite_beta at beta = inf
    assert_allclose(c2, [0.4**2 / 0.6, 5 / 4, 1, np.inf, np.inf], rtol=1e-14)
    assert_allclose(limits.small_s_coefficients(1e12, 0.4)[1], 0.4**2 / 0.6, rtol=1e-11)
    assert_allclose(limits.small_s_coefficients(2.0, 1e10)[1], 1, rtol=1e-9)


@pytest.mark.parametrize(
    ("beta", "rho", "power", "sizes"),
    [
        (2.0, 0.5, 3, (1e-3, 1e-4)),
        (2.0, 2.0, 3, (1e-3, 1e-4)),
        (2.0, 1.0, 7 / 3, (1e-5, 1e-7)),
        (1.0, 1.0, 5 / 2, (1e-4, 1e-6)),
    ],
)
def test_small_s_expansions_have_the_stated_error(beta, rho, power, sizes):
    # If the true power were less by 1/2, the ratio would be 3 or more.
    remainders = []
    for s in sizes:
        exact = highprec.evaluate(beta, rho, s, digits=22)
        error = float(exact.mmse - limits.mmse_small_s(beta, rho, s))
        information = float(exact.information - limits.information_small_s(beta, rho, s))
        remainders.append((error / s**power, information / s ** (power - 1)))
    for first, second in zip(*remainders, strict=True):
        assert 0.05 < abs(first) < 10
        assert first / second == pytest.approx(1, abs=0.2)


def test_constant_of_the_logarithmic_law():
    # [s - M - kappa s^2 log(1/s)]/s^2 = c + O(sqrt(s)); not the form s^{1/3} of (s - M)/s
    constants = []
    for s in (mpf("1e-16"), mpf("1e-18")):
        mmse = highprec.mmse(1, 1, s, digits=38)
        with mp.workdps(38):
            kappa = 3 * mp.sqrt(3) / (4 * mp.pi)
            constants.append((1 - mmse / s) / s + kappa * mp.log(s))
    extrapolated = float((10 * constants[1] - constants[0]) / 9)
    assert_allclose(limits._OFFSET, extrapolated, rtol=1e-14)
    assert_allclose(limits._SLOPE, float(kappa), rtol=1e-15)


@pytest.mark.parametrize("beta", [1.0, 1 + 1e-9, 3.0, 1e4])
@pytest.mark.parametrize("rho", [1e-3, 0.6, 20.0, 1e2])
def test_small_s_over_the_range(beta, rho):
    s = 1e-10
    value = highprec.evaluate(beta, rho, s, digits=20)
    assert_allclose(limits.mmse_small_s(beta, rho, s), float(value.mmse), rtol=1e-13)
    information = limits.information_small_s(beta, rho, s)
    assert_allclose(information, float(value.information), rtol=2e-14)


def test_information_small_s_limits():
    # the constant at (2, 0.5), from values of I_S down to s = 1e-7
    c2 = limits.small_s_coefficients(2.0, 0.5)[1]
    assert limits.information_small_s(2.0, 0.5, 1.0) - c2 / 2 == pytest.approx(0.186659, abs=1e-6)
    s = 1e-9
    for rho in (0.3, 1.0, 4.0):
        limit = limits.information_infinite_beta(rho, s)
        assert limits.information_small_s(np.inf, rho, s) == pytest.approx(limit, abs=2e-8)
    assert limits.information_small_s(3.0, np.inf, s) == pytest.approx(np.log(1 / s) / 2, abs=1e-8)


@pytest.mark.parametrize(
    ("beta", "rho", "s", "tolerance"),
    [
        (1.0, 0.5, 1e-7, 1e-6),
        (2.0, 3.0, 1e-7, 1e-6),
        (5.0, 1.0, 1e-8, 3e-4),
        (1.0, 1.0, 1e-8, 1e-3),
    ],
)
def test_near_strong_recovery(beta, rho, s, tolerance):
    with mp.workdps(30):
        error = highprec.mmse(beta, rho, s, digits=25)
        threshold = limits.strong_recovery(beta, rho)
        # without noise: the alpha at which the state evolution stops at s
        below = limits.mmse_near_strong_recovery(float(error / s), beta, rho)
        assert below == pytest.approx(float(error), rel=tolerance)
        # with noise, at the threshold and above it: the delta at which it stops at s
        for alpha in (threshold, threshold + 0.1, 3.0):
            delta = float(mpf(alpha) * mpf(s) - error)
            mmse = limits.mmse_near_strong_recovery(alpha, beta, rho, delta)
            assert mmse == pytest.approx(float(error), rel=tolerance)


def test_near_strong_recovery_leading_terms():
    d, c2 = limits.small_s_coefficients(1.0, 0.5)
    near = limits.mmse_near_strong_recovery
    assert_allclose(near(0.7498, 1.0, 0.5), 0.7498 * (d - 0.7498) / c2, rtol=1e-10)
    assert_allclose(near(0.75, 1.0, 0.5, 1e-10), d * np.sqrt(1e-10 / c2), rtol=1e-4)
    assert_allclose(near(1.0, 1.0, 0.5, 1e-10), d * 1e-10 / 0.25, rtol=1e-8)
    b, alpha = 0.2, 0.99
    assert_allclose(near(alpha, 5.0, 1.0), alpha * ((1 - alpha) / (1 - b)) ** 2, rtol=1e-10)
    for rho, beta in ((0.5, 1.0), (1.0, 2.0), (1.0, 1.0), (3.0, 2.0)):
        assert near([1.0, 1.5], beta, rho).tolist() == [0.0, 0.0]
    assert np.isnan(near(0.01, 1.0, 1.0))  # far below: s [kappa log(1/s) + c] never reaches 0.99
    # the noise is continuous at zero
    for rho, beta, alpha in ((0.5, 1.0, 0.7), (1.0, 2.0, 0.999), (1.0, 1.0, 0.999)):
        assert_allclose(near(alpha, beta, rho, 1e-18), near(alpha, beta, rho), rtol=1e-6)


@pytest.mark.parametrize("rho", [0.01, 0.5, 0.9])
def test_bulk_merging(rho):
    s = limits.bulk_merging_square(rho)
    assert_allclose((2 + rho - 2 * rho * s) ** 3, 27 * rho * (1 + rho * s) ** 2, rtol=1e-13)
    assert len(naive.edges(1.0, rho, s * (1 - 1e-3))) == 2
    assert len(naive.edges(1.0, rho, s * (1 + 1e-3))) == 1


def test_bulk_merging_values():
    assert limits.bulk_merging_square(0.5) == pytest.approx(0.0664471131533, rel=1e-11)
    assert limits.bulk_merging_square(1.0) == 0
    # 2 (2 + c) (1 - c)^2/12 = y, s = 3 y for rho -> 1: s_c = (1 - rho)^2/12 to leading order
    gap = 2.0**-30
    assert_allclose(limits.bulk_merging_square(1 - gap), gap**2 / 12, rtol=10 * gap)


# --- large s ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("beta", "rho"), [(1.0, 0.5), (10.0, 1.0), (3.0, 8.0)])
def test_large_s_has_the_stated_error(beta, rho):
    scale = 30 * max(1, np.sqrt(beta) / rho)
    remainders = []
    for s in (round(scale), round(4 * scale)):
        value = highprec.evaluate(beta, rho, s, digits=32)
        with mp.workdps(45):
            b, r, v = mpf(beta), mpf(rho), mpf(s)
            k, y = b / r**2, 1 / (1 + v)
            c6 = (b * (1 + b) / r**3 - k**2) / 12
            information = mp.log(1 + 1 / v) / 2 - k * y**4 / 8 + c6 * y**6 + k**2 * y**7 / 2
            mmse = 1 - y + (1 - y) ** 2 * (-k * y**3 + 12 * c6 * y**5 + 7 * k**2 * y**6)
            gaps = (value.mmse - mmse) * v**7, (value.information - information) * v**8
        remainders.append([float(gap) for gap in gaps])
        # the module evaluates those expansions to double precision
        assert_allclose(limits.mmse_large_s(beta, rho, s), float(mmse), rtol=5e-15)
        assert_allclose(limits.information_large_s(beta, rho, s), float(information), rtol=5e-15)
    for first, second in zip(*remainders, strict=True):
        assert first / second == pytest.approx(1, abs=0.35)  # one power less would give 4


def test_large_s_against_the_reference():
    for beta, rho, s in ((2.0, 0.5, 300.0), (100.0, 5.0, 300.0), (1.0, 100.0, 10.0)):
        value = highprec.evaluate(beta, rho, s, digits=20)
        assert_allclose(limits.mmse_large_s(beta, rho, s), float(value.mmse), rtol=1e-12)
        assert_allclose(
            limits.information_large_s(beta, rho, s), float(value.information), rtol=1e-12
        )
    assert limits.mmse_large_s(2.0, np.inf, 3.0) == pytest.approx(0.75, rel=1e-15)
    assert (
        limits.mmse_large_s(2.0, 0.5, np.inf) == 1 and limits.information_large_s(1, 1, np.inf) == 0
    )


# --- nuclear norm -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rho", "threshold"),
    [(0.05, 0.2021445594), (0.2, 0.5716899213), (0.5, 0.9054173332), (0.8, 0.9941937477)],
)
def test_nuclear_norm_recovery_values(rho, threshold):
    assert limits.nuclear_norm_recovery_square(rho) == pytest.approx(threshold, abs=6e-11)


@pytest.mark.parametrize("beta", [1.0, float("inf")])
@pytest.mark.parametrize("rho", [0.01, 0.3, 0.9])
def test_nuclear_norm_recovery_is_a_minimal_risk(beta, rho):
    """The risk of soft thresholding among noise of vanishing variance, minimised by brute force."""
    K = (1 - rho) * (1 - rho / beta)
    cuts = np.linspace(0.0, 2.0, 20001)
    if beta == 1:  # quarter circle, sigma = 2 sin(phi)
        phi = (np.arange(20000) + 0.5) * np.pi / 40000
        sigma, weight = 2 * np.sin(phi), 4 / np.pi * np.cos(phi) ** 2 * np.pi / 40000
    else:
        sigma, weight = np.array([1.0]), np.array([1.0])
    order = np.argsort(sigma)
    sums = [np.concatenate([[0.0], np.cumsum((weight * sigma**k)[order])]) for k in range(3)]
    at = np.searchsorted(sigma[order], cuts)
    above = [s[-1] - s[at] for s in sums]
    risk = (1 - rho / beta) * rho * cuts**2 + 1 - K
    risk += K * (above[2] - 2 * cuts * above[1] + cuts**2 * above[0])
    square, infinite = (
        limits.nuclear_norm_recovery_square,
        limits.nuclear_norm_recovery_infinite_beta,
    )
    value = (square if beta == 1 else infinite)(rho)
    assert value == pytest.approx(risk.min(), abs=2e-7)


def test_nuclear_norm_recovery_of_full_rank():
    for function in (
        limits.nuclear_norm_recovery_square,
        limits.nuclear_norm_recovery_infinite_beta,
    ):
        assert_allclose(function([1.0, 2.0, np.inf]), 1.0, rtol=1e-15)


# --- the module as a whole ----------------------------------------------------------------------

GOOD = {
    "alpha": 0.4,
    "alpha_lr": 0.7,
    "beta": 2.0,
    "rho": 0.5,
    "delta": 0.1,
    "s": 0.3,
    "snr": 2.0,
    "lam": 0.2,
}
BAD = {
    "alpha": [-1.0, np.nan, np.inf],
    "alpha_lr": [-1.0, np.nan, np.inf],
    "beta": [0.5, np.nan, -np.inf],
    "rho": [0.0, -1.0, np.nan],
    "delta": [-1e-3, np.nan, np.inf],
    "s": [-1.0, np.nan],
    "snr": [-1.0, np.nan],
    "lam": [-1.0, np.nan, np.inf],
}
FUNCTIONS = [getattr(limits, name) for name in limits.__all__]


def arguments(function) -> dict[str, float]:
    return {name: GOOD[name] for name in inspect.signature(function).parameters}


def parts(result) -> tuple:
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_scalars_give_floats_and_arrays_broadcast(function):
    good = arguments(function)
    scalar = parts(function(**good))
    assert all(type(value) is float and np.isfinite(value) for value in scalar)
    shapes = [(3, 1), (4,), (2, 1, 1), (1,)]
    arrays = {
        name: np.full(shape, value)
        for (name, value), shape in zip(good.items(), shapes, strict=False)
    }
    shape = np.broadcast_shapes(*(a.shape for a in arrays.values()))
    for value, expected in zip(parts(function(**arrays)), scalar, strict=True):
        assert value.shape == shape
        assert_allclose(value, expected, rtol=1e-15)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_bad_input(function):
    good = arguments(function)
    for name in good:
        for bad in BAD[name]:
            with pytest.raises(ValueError, match=f"^{name} must be .*, got {bad!r}"):
                function(**(good | {name: bad}))
            # in an array: NaN in its own place, neighbours untouched
            values = parts(function(**(good | {name: [good[name], bad, good[name]]})))
            for value, expected in zip(values, parts(function(**good)), strict=True):
                assert np.isnan(value[1])
                assert_allclose(value[[0, 2]], expected, rtol=1e-15)
        with pytest.raises(ValueError, match=f"^{name} must be"):
            function(**(good | {name: "large"}))
    with pytest.raises(ValueError, match="rho must be in"):
        limits.bulk_merging_square(1.5)


@given(
    roots=st.integers(0, 3),
    exponent=st.floats(-40, 40),
    signs=st.lists(positive(1e-12, 1e12), min_size=5, max_size=5),
)
def test_positive_root_of_a_polynomial_with_one_change_of_sign(roots, exponent, signs):
    c = [(-1.0 if k <= roots else 1.0) * v * 10.0 ** (-exponent * k) for k, v in enumerate(signs)]
    x = float(limits._positive_root(*c))
    with mp.workdps(60):
        exact = [mpf(v) for v in c]
        value = sum(v * mpf(x) ** k for k, v in enumerate(exact))
        slope = sum(k * v * mpf(x) ** (k - 1) for k, v in enumerate(exact) if k)
        size = sum(abs(v) * mpf(x) ** k for k, v in enumerate(exact))
        assert slope > 0
        assert abs(value) < 1e-14 * size
