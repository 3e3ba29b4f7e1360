"""Fixed points of state evolution: one, a learning curve, a million.

The promises: 500 alphas in 50 ms and a million points of an (alpha, rho) grid in 60 s, both on
2 cores.
"""

from __future__ import annotations

import highprec
import naive
import numpy as np
import pytest
from harness import Peer, on_threads, relative_error
from mpmath import mp, mpf

from bsr_theory import bilinear_regression, iterate, solve

pytestmark = [pytest.mark.bench, pytest.mark.benchmark(group="curves")]

ALPHA = np.linspace(0.01, 1.0, 500)


def exact(alpha, delta, near):
    """Return the error to 20 digits: Newton's method for M(s) = alpha s - delta from near."""
    with mp.workdps(40):
        alpha, delta = mpf(alpha), mpf(delta)

        def excess(s):
            return highprec.mmse(2.0, 0.5, s, digits=25) - alpha * s + delta

        s, h = (mpf(near) + delta) / alpha, mpf(10) ** -12
        value = excess(s)
        for _ in range(5):
            step = value / ((excess(s * (1 + h)) - value) / (s * h))
            s, value = s - step, excess(s - step)
            if abs(step) < mpf(10) ** -21 * s:
                return alpha * s - delta
    raise ArithmeticError(f"no fixed point to 20 digits at alpha = {alpha}, delta = {delta}")


@pytest.mark.parametrize("delta", [0.0, 0.1])
def test_curve(race, delta):
    problem = bilinear_regression(ALPHA, 2.0, 0.5, delta)
    few = [100, 250]
    alphas = ALPHA[few].tolist()
    curve = solve(problem).mmse[few]
    truth = [exact(a, delta, m) for a, m in zip(alphas, curve.tolist(), strict=True)]

    def quadratures():
        return [naive.solve(a, 2.0, 0.5, delta) for a in alphas]

    def one_by_one():
        return [solve(bilinear_regression(a, 2.0, 0.5, delta)).mmse for a in alphas]

    race(
        f"learning curve of 500 alphas, delta = {delta:g}",
        lambda: solve(problem),
        unit="point",
        count=ALPHA.size,
        threads="all",
        error=relative_error(curve, truth),
        peers=[
            Peer(
                "root finding over adaptive quadrature",
                quadratures,
                len(few),
                lambda values: relative_error(values, truth),
            ),
            Peer(
                "a call of `solve` for each alpha",
                one_by_one,
                len(few),
                lambda values: relative_error(values, truth),
            ),
        ],
        at_most=0.05 / ALPHA.size,
    )


def test_single_point(race):
    problem = bilinear_regression(0.4, 2.0, 0.5, 0.1)
    mmse = solve(problem).mmse
    truth = exact(0.4, 0.1, mmse)
    race(
        "one fixed point",
        lambda: solve(problem),
        unit="point",
        error=relative_error(mmse, truth),
        peers=[
            Peer(
                "root finding over adaptive quadrature",
                lambda: naive.solve(0.4, 2.0, 0.5, 0.1),
                error=lambda value: relative_error(value, truth),
            )
        ],
    )


def test_trajectories(race):
    problem = bilinear_regression(np.linspace(0.1, 1.0, 1000), 2.0, 0.5, 0.1)
    race(
        "30 steps of state evolution of 1000 problems",
        lambda: iterate(problem, 30),
        unit="step",
        count=30_000,
        rounds=3,
    )


def test_grid_of_a_million_points(race):
    rho = np.geomspace(0.01, 2.0, 1000)[:, None]
    problem = bilinear_regression(np.linspace(0.01, 1.2, 1000), 1.5, rho, 0.1)
    solve(problem[:2, :2])
    race(
        "grid of 1000 alphas and 1000 rhos",
        lambda: solve(problem),
        unit="point",
        count=10**6,
        rounds=1,
        warm=False,
        threads="all",
        at_most=60e-6,
    )


@pytest.mark.benchmark(group="threads")
def test_threads(race):
    rho = np.geomspace(0.01, 2.0, 200)[:, None]
    problem = bilinear_regression(np.linspace(0.01, 1.2, 200), 1.5, rho, 0.1)

    def work():
        return solve(problem)

    race(
        "fixed points of 200 alphas and 200 rhos",
        work,
        unit="point",
        count=40_000,
        rounds=3,
        threads="all",
        peers=[Peer("on one thread", on_threads(1, work), 40_000)],
    )
