"""Timings, as ratios within one run: ``make bench``.

The promises: 50 microseconds for one mmse inside an array call on one thread, a factor 1000 over
adaptive quadrature on companion-matrix densities, 500 alphas in 50 ms, a million points of an
(alpha, rho) grid in 60 s on 2 cores.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bsr_theory import GaussianFactorPrior, bilinear_regression, iterate, solve

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import naive

pytestmark = pytest.mark.bench

# ordinary parameters, two bulks, hard edge, merging bulks, the whole range at random
RNG = np.random.default_rng(1)
CASES = {
    "one bulk": (2.0, 1.0, 1.0),
    "two bulks": (2.0, 0.2, 0.1),
    "hard edge": (1.0, 0.2, 0.01),
    "merging": (2.0, 0.5, 0.160016712131059),
    "nearly hard edge": (1.0 + 1e-12, 0.02, 100.0),
    "whole range": (10 ** RNG.uniform(0, 4, 2000), 10 ** RNG.uniform(-3, 2, 2000),
                    10 ** RNG.uniform(-8, 6, 2000)),
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("BSR_THREADS", "1")


@pytest.mark.parametrize("case", CASES)
def test_mmse(benchmark, case):
    beta, rho, s = (np.broadcast_to(x, 2000) for x in CASES[case])
    prior = GaussianFactorPrior(beta, rho)
    prior.mmse(s)
    benchmark.extra_info["points"] = 2000
    benchmark(prior.mmse, s)
    assert benchmark.stats.stats.median / 2000 < 50e-6


@pytest.mark.parametrize("case", CASES)
def test_information(benchmark, case):
    beta, rho, s = (np.broadcast_to(x, 2000) for x in CASES[case])
    prior = GaussianFactorPrior(beta, rho)
    prior.information(1 / s)
    benchmark.extra_info["points"] = 2000
    benchmark(prior.information, 1 / s)


def test_mmse_against_adaptive_quadrature(benchmark):
    beta, rho, s = CASES["two bulks"]
    prior = GaussianFactorPrior(beta, rho)
    noises = np.geomspace(0.5 * s, 2 * s, 2000)
    prior.mmse(noises)
    start = time.perf_counter()
    slow = [naive.mmse(beta, rho, x) for x in noises[::100]]
    each = (time.perf_counter() - start) / len(slow)
    fast = benchmark(prior.mmse, noises)
    np.testing.assert_allclose(fast[::100], slow, rtol=1e-8)
    ratio = each / (benchmark.stats.stats.median / noises.size)
    benchmark.extra_info["times faster than adaptive quadrature"] = round(ratio)
    assert ratio > 1000


@pytest.mark.parametrize("delta", [0.0, 0.1])
def test_curve_of_500_alphas(benchmark, delta, monkeypatch):
    monkeypatch.delenv("BSR_THREADS")
    problem = bilinear_regression(np.linspace(0.01, 1.0, 500), 2.0, 0.5, delta)
    solve(problem)
    benchmark(solve, problem)
    assert benchmark.stats.stats.median < 0.05


def test_grid_of_a_million_points(benchmark, monkeypatch):
    monkeypatch.delenv("BSR_THREADS")
    rho = np.geomspace(0.01, 2.0, 1000)[:, None]
    problem = bilinear_regression(np.linspace(0.01, 1.2, 1000), 1.5, rho, 0.1)
    benchmark.pedantic(solve, args=(problem,), rounds=1, iterations=1)
    assert benchmark.stats.stats.median < 60


def test_single_point(benchmark):
    problem = bilinear_regression(0.4, 2.0, 0.5, 0.1)
    solve(problem)
    benchmark(solve, problem)


def test_trajectories_of_1000_problems(benchmark):
    problem = bilinear_regression(np.linspace(0.1, 1.0, 1000), 2.0, 0.5, 0.1)
    iterate(problem, 2)
    benchmark(iterate, problem, 30)


def test_shrink_a_million_singular_values(benchmark):
    prior = GaussianFactorPrior(2.0, 0.5)
    y = np.linspace(0.0, 3.0, 10**6)
    prior.shrink(y[:10], 0.3)
    benchmark(prior.shrink, y, 0.3)
