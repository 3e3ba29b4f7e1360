"""Output channels.

The promises: a score costs at most 0.2 microseconds a label (0.4 with noise of its own, a logistic
one 5, an output given by its likelihood alone 100), so that in message passing it never weighs
against the products with X, and a million overlaps take at most 15 s.
"""

from __future__ import annotations

import numpy as np
import peers
import pytest
from harness import Peer, relative_error
from mpmath import mp, mpf

from bsr_theory import GaussianChannel
from bsr_theory.channels import (
    AbsChannel,
    LogisticChannel,
    OutputChannel,
    QuantizedChannel,
    ReLUChannel,
    SignChannel,
)

pytestmark = [pytest.mark.bench, pytest.mark.benchmark(group="channels")]


def logistic(y, h):
    return 1.0 / (1.0 + np.exp(-2.0 * y * h))


# name: channel, seconds for a label
SCORES = {
    "linear": (GaussianChannel(0.1), 0.2e-6),
    "signs": (SignChannel(), 0.2e-6),
    "signs with noise": (SignChannel(0.1), 0.2e-6),
    "|h|": (AbsChannel(), 0.2e-6),
    "|h| with noise": (AbsChannel(0.1), 0.4e-6),
    "ReLU": (ReLUChannel(), 0.2e-6),
    "ReLU with noise": (ReLUChannel(0.1), 0.4e-6),
    "four levels": (QuantizedChannel([-1.0, 0.0, 1.0]), 0.4e-6),
    "logistic": (LogisticChannel(2.0), 5e-6),
    "any likelihood": (OutputChannel(logistic, outputs=(-1.0, 1.0)), 100e-6),
}


def labels(channel, n):
    rng = np.random.default_rng(0)
    omega = np.sqrt(0.6) * rng.standard_normal(n)
    return channel.sample(omega + np.sqrt(0.4) * rng.standard_normal(n), rng=rng), omega


@pytest.mark.parametrize("case", SCORES)
def test_score(race, case):
    channel, limit = SCORES[case]
    n = 100_000 if limit < 10e-6 else 2_000
    y, omega = labels(channel, n)
    others, error = [], None
    if case == "signs":
        error, others = race_of_signs(channel, y, omega)
    elif case in ("logistic", "any likelihood"):
        error, others = race_of_logistic(channel, y, omega)
    race(
        f"scores, {case}",
        lambda: channel.score(y, omega, 0.4),
        unit="label",
        count=n,
        error=error,
        peers=others,
        at_most=limit,
    )


def race_of_signs(channel, y, omega):
    few = slice(20)

    def exact(label, mean):
        z = label * mpf(mean) / mp.sqrt(mpf(0.4))
        return label * mp.npdf(z) / mp.ncdf(z) / mp.sqrt(mpf(0.4))

    with mp.workdps(30):
        truth = [exact(int(a), b) for a, b in zip(y[few], omega[few].tolist(), strict=True)]
        peer = relative_error(peers.sign_score(y[few], omega[few], 0.4)[0], truth)
        error = relative_error(channel.score(y[few], omega[few], 0.4)[0], truth)
    name = "the formula with SciPy's log_ndtr"
    return error, [Peer(name, lambda: peers.sign_score(y, omega, 0.4), y.size, peer)]


def race_of_logistic(channel, y, omega):
    few = [(float(a), float(b)) for a, b in zip(y[:10], omega[:10], strict=True)]

    def exact(label, mean):
        def moment(k):
            return mp.quad(
                lambda x: (
                    x**k * mp.npdf(x) / (1 + mp.exp(-2 * label * (mean + mp.sqrt(mpf(0.4)) * x)))
                ),
                list(range(-14, 15, 2)),
            )

        return moment(1) / moment(0) / mp.sqrt(mpf(0.4))

    def quadratures():
        return [peers.score_by_quadrature(logistic, a, b, 0.4) for a, b in few]

    with mp.workdps(25):
        truth = [exact(a, b) for a, b in few]
        peer = relative_error(quadratures(), truth)
        error = relative_error(channel.score(y[:10], omega[:10], 0.4)[0], truth)
    return error, [Peer("SciPy's quad for each label", quadratures, len(few), peer)]


MANY = {
    "signs": SignChannel(),
    "|h|": AbsChannel(),
    "ReLU": ReLUChannel(),
    "|h| with noise": AbsChannel(0.1),
    "ReLU with noise": ReLUChannel(0.1),
    "logistic": LogisticChannel(2.0),
    "four levels with noise": QuantizedChannel([-1.0, 0.0, 1.0], 0.1),
}


@pytest.mark.parametrize("case", MANY)
def test_a_million_overlaps(race, case):
    channel = MANY[case]
    q = np.random.default_rng(0).random(1_000_000)
    channel.precision(q[:2])
    race(
        f"precision of a million overlaps, {case}",
        lambda: channel.precision(q),
        unit="value",
        count=q.size,
        rounds=1,
        warm=False,
        at_most=15e-6,
    )
