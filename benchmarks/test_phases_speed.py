"""Phase diagrams.

The promise: 300 x 300 pixels in 60 s on 2 cores for every channel of the package.
"""

from __future__ import annotations

import numpy as np
import pytest
from harness import Peer

from bsr_theory import GaussianChannel, GaussianFactorPrior, Problem, solve
from bsr_theory.channels import AbsChannel, QuantizedChannel, ReLUChannel, SignChannel
from bsr_theory.phases import phase_diagram, thresholds

pytestmark = [pytest.mark.bench, pytest.mark.benchmark(group="phases")]

ALPHA, RHO = np.linspace(0.01, 1.3, 300), np.geomspace(0.01, 2.0, 300)
PLANES = {
    "|h|, alpha and rho": (AbsChannel(), {"rho": RHO}),
    "|h| with noise, alpha and delta": (AbsChannel(), {"delta": np.linspace(0.0, 1.0, 300)}),
    "ReLU with noise, alpha and delta": (ReLUChannel(), {"delta": np.linspace(0.0, 1.0, 300)}),
    "levels with noise, alpha and delta": (
        QuantizedChannel([-1.0, 0.0, 1.5]),
        {"delta": np.linspace(0.0, 1.0, 300)},
    ),
    "|h| with noise, alpha and rho": (AbsChannel(0.1), {"rho": RHO}),
    "signs, alpha and rho": (SignChannel(), {"rho": RHO}),
    "ReLU, alpha and beta": (ReLUChannel(), {"beta": np.geomspace(1.0, 20.0, 300)}),
    "linear, alpha and beta": (GaussianChannel(), {"beta": np.geomspace(1.0, 20.0, 300)}),
}


@pytest.mark.parametrize("case", PLANES)
def test_plane(race, case):
    channel, rows = PLANES[case]
    problem = Problem(GaussianFactorPrior(2.0, 0.2), channel)
    phase_diagram(problem, alpha=ALPHA[:2], **{k: v[:2] for k, v in rows.items()})
    race(
        case,
        lambda: phase_diagram(problem, alpha=ALPHA, **rows),
        unit="pixel",
        count=ALPHA.size * 300,
        rounds=1,
        warm=False,
        threads="all",
        at_most=60 / 90_000,
    )


def test_against_every_pixel_on_its_own(race):
    problem = Problem(GaussianFactorPrior(1.0, 0.2), AbsChannel())
    alpha, rho = ALPHA[::10], RHO[::10]
    chosen = np.random.default_rng(0).integers(30, size=(20, 2))
    plane = phase_diagram(problem, alpha=alpha, rho=rho).mmse_bayes.values

    def pixels():
        return [
            solve(Problem(GaussianFactorPrior(1.0, rho[i]), AbsChannel(), alpha[j])).mmse
            for i, j in chosen
        ]

    np.testing.assert_allclose([plane[i, j] for i, j in chosen], pixels(), rtol=0, atol=1e-8)
    race(
        "|h|, plane of 30 x 30",
        lambda: phase_diagram(problem, alpha=alpha, rho=rho),
        unit="pixel",
        count=900,
        rounds=3,
        peers=[Peer("`solve` at each pixel", pixels, len(chosen))],
        at_least=5,
    )


def test_thresholds(race):
    prior = GaussianFactorPrior(1.0, RHO[::3])
    race(
        "thresholds of |h| at 100 rhos",
        lambda: thresholds(prior, AbsChannel()),
        unit="point",
        count=100,
        rounds=3,
    )
