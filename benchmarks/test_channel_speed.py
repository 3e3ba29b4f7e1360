"""Timings of the output channels: ``make bench``.

The promises: a score costs at most 0.2 microseconds a label (a logistic one 5, an output given by
its likelihood alone 100), so that in message passing it never weighs against the products with X,
and a million overlaps take seconds.
"""

from __future__ import annotations

import numpy as np
import pytest

from bsr_theory import GaussianChannel
from bsr_theory.channels import (
    AbsChannel,
    LogisticChannel,
    OutputChannel,
    QuantizedChannel,
    ReLUChannel,
    SignChannel,
)

pytestmark = pytest.mark.bench


def logistic(y, h):
    return 1.0 / (1.0 + np.exp(-y * h))


# nanoseconds for a label
SCORES = [
    (GaussianChannel(0.1), 200),
    (SignChannel(), 200),
    (SignChannel(0.1), 200),
    (AbsChannel(), 200),
    (AbsChannel(0.1), 400),
    (ReLUChannel(), 200),
    (ReLUChannel(0.1), 400),
    (QuantizedChannel([-1.0, 0.0, 1.0]), 400),
    (LogisticChannel(2.0), 5_000),
    (OutputChannel(logistic, outputs=(-1.0, 1.0)), 100_000),
]


@pytest.mark.parametrize(("channel", "limit"), SCORES, ids=lambda x: str(x)[:40])
def test_score(benchmark, channel, limit):
    rng = np.random.default_rng(0)
    n = 100_000 if limit < 10_000 else 2_000
    omega = np.sqrt(0.6) * rng.standard_normal(n)
    y = channel.sample(omega + np.sqrt(0.4) * rng.standard_normal(n), rng=rng)
    channel.score(y, omega, 0.4)
    benchmark.pedantic(channel.score, args=(y, omega, 0.4), rounds=5, iterations=1)
    each = 1e9 * benchmark.stats.stats.min / n
    benchmark.extra_info["nanoseconds a label"] = round(each, 1)
    assert each <= limit


MANY = [
    SignChannel(),
    AbsChannel(),
    ReLUChannel(),
    AbsChannel(0.1),
    ReLUChannel(0.1),
    LogisticChannel(2.0),
    QuantizedChannel([-1.0, 0.0, 1.0], 0.1),
]


@pytest.mark.parametrize("channel", MANY, ids=lambda x: str(x)[:40])
def test_a_million_overlaps(benchmark, channel):
    q = np.random.default_rng(0).random(1_000_000)
    channel.precision([0.5, 1.0])
    benchmark.pedantic(channel.precision, args=(q,), rounds=1, iterations=1)
    assert benchmark.stats.stats.min < 15.0
