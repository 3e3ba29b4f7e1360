"""Sharp asymptotics of convex estimators against runs that do not know them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bsr_theory as bsr
from bsr_theory.simulations import compare

# estimator, lam, (alpha, beta, rho, delta)
POINTS = [
    ("nuclear_norm", 0.0, (0.3, 1.0, 0.2, 0.0)),
    ("nuclear_norm", 0.0, (0.5, 2.0, 0.5, 0.0)),
    ("nuclear_norm", 0.0, (0.4, 1.0, 1.0, 0.0)),
    ("nuclear_norm", 0.0, (0.6, 1.0, 0.2, 0.1)),
    ("nuclear_norm", 0.1, (0.4, 1.0, 0.5, 0.1)),
    ("nuclear_norm", 0.5, (0.7, 2.0, 0.2, 0.3)),
    ("nuclear_norm", 0.3, (1.3, 1.0, 2.0, 0.2)),
    ("nuclear_norm", "optimal", (0.5, 1.0, 0.2, 0.1)),
    ("nuclear_norm", "optimal", (0.8, 2.0, 1.0, 0.3)),
    ("ridge", 0.0, (0.5, 1.0, 0.5, 0.1)),
    ("ridge", 0.2, (0.8, 2.0, 0.2, 0.0)),
    ("ridge", "optimal", (1.2, 1.0, 1.0, 0.4)),
]


def deviations(runs: Any, name: str) -> tuple[float, float]:
    """Return mean deviation from theory and its standard error.

    The share of it that the norm of the signal explains is taken out (a control variate, whose
    mean is exactly 1).
    """
    values, signal = runs[name].values.ravel(), runs.signal.values.ravel()
    theory = float(runs["theory" if name == "mse" else f"{name}_theory"])
    slope = np.polyfit(signal, values, 1)[0]
    freed = values - slope * (signal - 1.0) - theory
    return float(freed.mean()), float(freed.std(ddof=2) / np.sqrt(freed.size))


def check(d1: int, samples: int, allowance: float, points: list[Any]) -> list[float]:
    scores = []
    for k, (estimator, lam, parameters) in enumerate(points):
        problem = bsr.bilinear_regression(*parameters)
        runs = compare(
            problem, estimator, d1=d1, samples=samples, rng=k, executor="serial", lam=lam
        )
        for name in ("mse", "train_loss", "overlap"):
            mean, error = deviations(runs, name)
            # corrections of order 1/d1 on top of the error bar
            limit = 4.0 * error + allowance
            assert abs(mean) <= limit, (estimator, lam, parameters, name, mean, error)
            if name == "mse":
                scores.append(mean / error)
    return scores


def test_a_few_points() -> None:
    check(20, 12, 0.03, POINTS[::4])


@pytest.mark.slow
def test_all_points() -> None:
    scores = np.array(check(40, 24, 0.01, POINTS))
    assert np.sqrt(np.mean(scores**2)) < 2.0  # about 1 without any bias of finite size
