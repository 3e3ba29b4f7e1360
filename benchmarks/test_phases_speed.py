"""Timings of phase diagrams: ``make bench``.

The promise: 300 x 300 pixels in 60 s on 2 cores for every channel of the package.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

from bsr_theory import GaussianChannel, GaussianFactorPrior, Problem, solve
from bsr_theory.channels import AbsChannel, QuantizedChannel, ReLUChannel, SignChannel
from bsr_theory.phases import phase_diagram, thresholds

pytestmark = pytest.mark.bench

ALPHA, RHO = np.linspace(0.01, 1.3, 300), np.geomspace(0.01, 2.0, 300)
PLANES = {
    "abs, rho": (AbsChannel(), {"rho": RHO}),
    "abs with noise, delta": (AbsChannel(), {"delta": np.linspace(0.0, 1.0, 300)}),
    "relu with noise, delta": (ReLUChannel(), {"delta": np.linspace(0.0, 1.0, 300)}),
    "levels with noise, delta": (
        QuantizedChannel([-1.0, 0.0, 1.5]),
        {"delta": np.linspace(0.0, 1.0, 300)},
    ),
    "abs with noise, rho": (AbsChannel(0.1), {"rho": RHO}),
    "sign, rho": (SignChannel(), {"rho": RHO}),
    "relu, beta": (ReLUChannel(), {"beta": np.geomspace(1.0, 20.0, 300)}),
    "linear, beta": (GaussianChannel(), {"beta": np.geomspace(1.0, 20.0, 300)}),
}


@pytest.mark.parametrize("case", PLANES)
def test_plane(benchmark, case):
    channel, rows = PLANES[case]
    problem = Problem(GaussianFactorPrior(2.0, 0.2), channel)
    phase_diagram(problem, alpha=ALPHA[:2], **{k: v[:2] for k, v in rows.items()})
    benchmark.pedantic(phase_diagram, (problem,), {"alpha": ALPHA, **rows}, rounds=1)
    assert benchmark.stats.stats.median < 60


def test_against_every_pixel_on_its_own(benchmark):
    problem = Problem(GaussianFactorPrior(1.0, 0.2), AbsChannel())
    rho = RHO[::10]
    plane = benchmark.pedantic(
        phase_diagram, (problem,), {"alpha": ALPHA[::10], "rho": rho}, rounds=3, warmup_rounds=1
    )
    chosen = np.random.default_rng(0).integers(30, size=(20, 2))
    start = time.perf_counter()
    for i, j in chosen:
        single = Problem(GaussianFactorPrior(1.0, rho[i]), AbsChannel(), ALPHA[::10][j])
        assert solve(single).mmse == pytest.approx(plane.mmse_bayes.values[i, j], abs=1e-8)
    each = (time.perf_counter() - start) / len(chosen)
    ratio = each / (benchmark.stats.stats.median / 900)
    benchmark.extra_info["times faster than a fixed_points per pixel"] = round(ratio, 1)
    assert ratio > 5


def test_thresholds(benchmark):
    prior = GaussianFactorPrior(1.0, RHO[::3])
    benchmark.pedantic(thresholds, (prior, AbsChannel()), rounds=3, warmup_rounds=1)
