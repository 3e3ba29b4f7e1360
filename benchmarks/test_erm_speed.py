"""The theory of convex estimators.

The promise: a thousand points of nuclear-norm regression anywhere in the range in 2 s on one core.
"""

from __future__ import annotations

import highprec_erm
import numpy as np
import peers
import pytest
from harness import Peer, relative_error

from bsr_theory import GaussianFactorPrior, Problem, bilinear_regression
from bsr_theory.channels import SignChannel
from bsr_theory.erm import nuclear_norm, ridge, soft_threshold

pytestmark = [pytest.mark.bench, pytest.mark.benchmark(group="estimators")]

RNG = np.random.default_rng(1)
RANGE = {
    "alpha": 10 ** RNG.uniform(-3, 2, 1000),
    "beta": 10 ** RNG.uniform(0, 3, 1000),
    "rho": 10 ** RNG.uniform(-3, 2, 1000),
    "delta": 10 ** RNG.uniform(-6, 3, 1000),
}
PENALTIES = {"lam = 0": 0.0, "lam = 0.3": 0.3, "the best penalty": "optimal"}


@pytest.mark.parametrize("case", PENALTIES)
def test_one_point(race, case):
    lam = PENALTIES[case]
    problem = bilinear_regression(alpha=0.4, beta=2.0, rho=0.5, delta=0.1)
    point = nuclear_norm(problem, lam=lam)
    start = (point.effective_noise, point.threshold)
    _, _, exact = highprec_erm.solve(2.0, 0.5, 0.4, 0.1, lam, start, digits=16)
    others = []
    if case == "lam = 0.3":
        others.append(
            Peer(
                "SciPy's root over adaptive quadrature",
                lambda: peers.nuclear_norm(0.4, 2.0, 0.5, 0.1, 0.3),
                error=lambda value: relative_error(value, exact.error),
                every=False,
            )
        )
    race(
        f"nuclear norm, one point, {case}",
        lambda: nuclear_norm(problem, lam=lam),
        unit="point",
        error=relative_error(point.mse, exact.error),
        peers=others,
    )


@pytest.mark.parametrize("case", PENALTIES)
def test_thousand_points_of_the_whole_range(race, case):
    problem = bilinear_regression(**RANGE)
    race(
        f"nuclear norm, whole range, {case}",
        lambda: nuclear_norm(problem, lam=PENALTIES[case]),
        unit="point",
        count=1000,
        rounds=3,
        at_most=2e-3,
    )


@pytest.mark.parametrize("loss", ["squared", "logistic", "hinge"])
def test_hundred_classifiers(race, loss):
    alpha = np.linspace(0.2, 5.0, 100)
    problem = Problem(GaussianFactorPrior(2.0, 0.5), SignChannel(0.1), alpha)
    race(
        f"nuclear norm, labels of two classes, {loss} loss",
        lambda: nuclear_norm(problem, lam=0.1, loss=loss),
        unit="point",
        count=100,
        rounds=3,
    )


def test_ridge(race):
    problem = bilinear_regression(alpha=np.linspace(0.1, 2.0, 1000), beta=2.0, rho=0.5, delta=0.1)
    race("ridge", lambda: ridge(problem, lam=0.1), unit="point", count=1000)


def test_soft_threshold(race):
    prior, s = GaussianFactorPrior(2.0, 0.5), np.geomspace(1e-3, 1e3, 1000)
    race(
        "error of soft thresholding",
        lambda: soft_threshold(prior, s),
        unit="value",
        count=s.size,
    )
