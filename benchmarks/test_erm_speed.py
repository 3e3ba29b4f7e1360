"""Timings of the convex estimators: ``make bench``.

The promise: a thousand points of nuclear-norm regression anywhere in the range in 2 s on one core.
"""

from __future__ import annotations

import numpy as np
import pytest

from bsr_theory import GaussianFactorPrior, Problem, bilinear_regression
from bsr_theory.channels import SignChannel
from bsr_theory.erm import nuclear_norm, soft_threshold

pytestmark = pytest.mark.bench

RNG = np.random.default_rng(1)
RANGE = {
    "alpha": 10 ** RNG.uniform(-3, 2, 1000),
    "beta": 10 ** RNG.uniform(0, 3, 1000),
    "rho": 10 ** RNG.uniform(-3, 2, 1000),
    "delta": 10 ** RNG.uniform(-6, 3, 1000),
}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("BSR_THREADS", "1")


@pytest.mark.parametrize("lam", [0.0, 0.3, "optimal"])
def test_one_point(benchmark, lam):
    problem = bilinear_regression(alpha=0.4, beta=2.0, rho=0.5, delta=0.1)
    nuclear_norm(problem, lam=lam)
    benchmark(nuclear_norm, problem, lam=lam)


@pytest.mark.parametrize("lam", [0.0, 0.3, "optimal"])
def test_thousand_points_of_the_whole_range(benchmark, lam):
    problem = bilinear_regression(**RANGE)
    nuclear_norm(problem, lam=lam)
    benchmark(nuclear_norm, problem, lam=lam)
    assert benchmark.stats.stats.median < 2.0


@pytest.mark.parametrize("loss", ["squared", "logistic", "hinge"])
def test_hundred_classifiers(benchmark, loss):
    alpha = np.linspace(0.2, 5.0, 100)
    problem = Problem(GaussianFactorPrior(2.0, 0.5), SignChannel(0.1), alpha)
    nuclear_norm(problem, lam=0.1, loss=loss)
    benchmark(nuclear_norm, problem, lam=0.1, loss=loss)


def test_soft_threshold(benchmark):
    prior, s = GaussianFactorPrior(2.0, 0.5), np.geomspace(1e-3, 1e3, 1000)
    soft_threshold(prior, s)
    benchmark(soft_threshold, prior, s)
