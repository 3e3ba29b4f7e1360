"""Denoising without a prior: against the best spectral estimator and exact derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad

from bsr_theory._kernels import subordination
from bsr_theory.denoising import denoise_matrix, estimate_noise
from bsr_theory.priors import GaussianFactorPrior, Prior
from bsr_theory.rotational import RotationallyInvariantPrior

PRIORS = {
    "low": GaussianFactorPrior(2.0, 0.1),
    "full": GaussianFactorPrior(1.0, 1.0),
    "atoms": RotationallyInvariantPrior([0.5, 1.5], 1.0, normalize=True),
}


@pytest.mark.parametrize("x", [0.0, 0.3, 1.7, 2.3, 10.0, 59.0, 61.0, 300.0])
def test_the_kernel(x: float) -> None:
    def density(u: float) -> float:
        return 0.75 / np.sqrt(5.0) * (1.0 - u * u / 5.0)

    r = np.sqrt(5.0)
    if x < r:
        exact = -quad(density, -r, r, weight="cauchy", wvar=x)[0]
    else:
        exact = quad(lambda u: density(u) / (x - u), -r, r, epsabs=1e-15)[0]
    value, slope = subordination.epanechnikov(x)
    assert value == pytest.approx(exact, abs=1e-13)
    step = 1e-4 * max(x, 1.0)
    near = [subordination.epanechnikov(x + k * step)[0] for k in (-2, -1, 1, 2)]
    numeric = (near[0] - 8 * near[1] + 8 * near[2] - near[3]) / (12 * step)
    assert slope == pytest.approx(numeric, rel=1e-8)


@pytest.mark.parametrize("shape", [(4, 4), (3, 7), (6, 4)])
def test_the_predicted_error_is_that_of_stein(shape: tuple[int, int]) -> None:
    # s enters as a given number: the estimate is a smooth function of Y, whose divergence is
    # taken entry by entry
    rng = np.random.default_rng(0)
    Y, s, width = 2.0 * rng.standard_normal(shape), 0.3, 1.0
    result = denoise_matrix(Y, s, bandwidth=width)
    divergence, step = 0.0, 1e-5
    for index in np.ndindex(shape):
        change = np.zeros(shape)
        change[index] = step
        up, down = (
            denoise_matrix(Y + sign * change, s, bandwidth=width).estimate for sign in (1, -1)
        )
        divergence += (up - down)[index] / (2.0 * step)
    stein = np.mean((result.estimate - Y) ** 2) - s + 2.0 * s * divergence / Y.size
    assert result.mse == pytest.approx(stein, rel=1e-6)


@pytest.mark.parametrize("s", [0.1, 1.0])
@pytest.mark.parametrize("name", PRIORS)
def test_close_to_the_best_spectral_estimator(name: str, s: float) -> None:
    prior: Prior = PRIORS[name]
    rng = np.random.default_rng(4)
    S = prior.sample(500, rng=rng)
    Y = S + np.sqrt(s) * rng.standard_normal(S.shape)
    result = denoise_matrix(Y, s)
    error = np.mean((result.estimate - S) ** 2)
    left, _, right = np.linalg.svd(Y, full_matrices=False)
    best = np.einsum("ij,ij->j", left, S @ right.T)
    oracle = (np.sum(S**2) - np.sum(best**2)) / S.size
    assert oracle < error < 1.01 * oracle
    assert error == pytest.approx(prior.mmse(s), rel=0.02)
    assert result.mse == pytest.approx(error, abs=5.0 * s / np.sqrt(S.size))


def test_the_predicted_error_is_unbiased() -> None:
    rng = np.random.default_rng(5)
    gaps = []
    for _ in range(200):
        S = PRIORS["low"].sample(30, rng=rng)
        Y = S + rng.standard_normal(S.shape)
        result = denoise_matrix(Y, 1.0, bandwidth=0.1 * np.sqrt(60.0))
        gaps.append(result.mse - np.mean((result.estimate - S) ** 2))
    assert abs(np.mean(gaps)) < 3.0 * np.std(gaps) / np.sqrt(200)
    assert np.std(gaps) < 0.05


@pytest.mark.parametrize(
    ("rank", "low", "high"), [(0, 0.98, 1.02), (4, 0.98, 1.02), (30, 0.98, 1.02), (300, 1.2, 2.0)]
)
def test_noise_of_low_rank_signals(rank: int, low: float, high: float) -> None:
    rng = np.random.default_rng(6)
    S = rng.standard_normal((300, rank)) @ rng.standard_normal((rank, 450)) / np.sqrt(rank or 1)
    assert low < estimate_noise(S + rng.standard_normal(S.shape)) < high
    assert low < estimate_noise(10.0 * (S + rng.standard_normal(S.shape)).T) / 100.0 < high


def test_unknown_noise() -> None:
    rng = np.random.default_rng(7)
    S = rng.standard_normal((200, 4)) @ rng.standard_normal((4, 300)) / 2.0
    Y = S + 0.5 * rng.standard_normal(S.shape)
    result = denoise_matrix(Y)
    known = denoise_matrix(Y, 0.25)
    assert result.noise == pytest.approx(0.25, rel=0.02)
    assert np.mean((result.estimate - S) ** 2) == pytest.approx(
        np.mean((known.estimate - S) ** 2), rel=0.05
    )


def test_shapes_units_and_zeros() -> None:
    rng = np.random.default_rng(8)
    Y = rng.standard_normal((20, 30)) + 3.0 * np.outer(np.ones(20), np.ones(30))
    result = denoise_matrix(Y, 1.0)
    turned = denoise_matrix(1e3 * Y.T, 1e6)
    np.testing.assert_allclose(turned.estimate, 1e3 * result.estimate.T, rtol=1e-9, atol=1e-9)
    assert turned.mse == pytest.approx(1e6 * result.mse, rel=1e-9)
    np.testing.assert_allclose(
        np.linalg.svd(result.estimate, compute_uv=False), np.sort(result.shrunk)[::-1], atol=1e-9
    )
    flat = denoise_matrix(np.outer(np.ones(5), np.ones(6)), 0.01)
    assert np.isfinite(flat.estimate).all() and np.isfinite(flat.mse)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 2.0],), "Y must be"),
        ((np.ones((1, 5)),), "Y must be"),
        ((np.full((3, 3), np.nan),), "Y must be"),
        ((np.eye(3), 0.0), "noise must be > 0"),
        ((np.eye(3), [1.0]), "noise must be a scalar"),
    ],
)
def test_bad_input_is_named(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        denoise_matrix(*arguments)
    with pytest.raises(ValueError, match="bandwidth"):
        denoise_matrix(np.eye(3), 1.0, bandwidth=-1.0)
