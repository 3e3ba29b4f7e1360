"""The error and the information of the denoising problem, and the denoiser itself.

The promises: 50 microseconds for one error inside an array call on one thread, and a factor 1000
over adaptive quadrature of densities from companion matrices.
"""

from __future__ import annotations

import highprec
import naive
import numpy as np
import peers
import pytest
from harness import Peer, on_threads, relative_error

from bsr_theory import GaussianFactorPrior

pytestmark = [pytest.mark.bench, pytest.mark.benchmark(group="denoising")]

# ordinary parameters, two bulks, hard edge, merging bulks, the whole range at random
RNG = np.random.default_rng(1)
CASES = {
    "one bulk": (2.0, 1.0, 1.0),
    "two bulks": (2.0, 0.2, 0.1),
    "hard edge": (1.0, 0.2, 0.01),
    "merging bulks": (2.0, 0.5, 0.160016712131059),
    "nearly hard edge": (1.0 + 1e-12, 0.02, 100.0),
    "whole range": (10 ** RNG.uniform(0, 4, 2000), 10 ** RNG.uniform(-3, 2, 2000),
                    10 ** RNG.uniform(-8, 6, 2000)),
}  # fmt: skip
NOISES = np.geomspace(0.05, 0.2, 2000)  # of the races, around "two bulks"
FEW = NOISES[::666]


@pytest.fixture(scope="module")
def exact():
    return [highprec.evaluate(2.0, 0.2, s, digits=20) for s in FEW.tolist()]


def each(name, function, truth):
    """Return the peer that calls a function of s for each of the few noises."""
    return Peer(
        name,
        lambda: [function(s) for s in FEW.tolist()],
        FEW.size,
        lambda values: relative_error(values, truth),
    )


def test_mmse(race, exact):
    prior = GaussianFactorPrior(2.0, 0.2)
    truth = [x.mmse for x in exact]
    ways = {
        "adaptive quadrature to 1e-11": lambda s: naive.mmse(2.0, 0.2, s),
        "adaptive quadrature to 1e-6": lambda s: naive.mmse(2.0, 0.2, s, 1e-6),
        "roots on a grid of 100 nodes, vectorised": lambda s: peers.mmse_on_a_grid(2.0, 0.2, s),
        "roots on a grid of 20 nodes, vectorised": lambda s: peers.mmse_on_a_grid(2.0, 0.2, s, 20),
    }
    others = [each(name, function, truth) for name, function in ways.items()]
    others.append(
        Peer("mpmath, 15 digits", lambda: highprec.mmse(2.0, 0.2, 0.1, digits=15), every=False)
    )
    race(
        "mmse, array of 2000 noises",
        lambda: prior.mmse(NOISES),
        unit="value",
        count=NOISES.size,
        error=relative_error(prior.mmse(FEW), truth),
        peers=others,
        at_least=1000,
    )


def test_information(race, exact):
    prior = GaussianFactorPrior(2.0, 0.2)
    truth = [x.information for x in exact]
    snr = 1 / float(FEW[-1])
    race(
        "information, array of 2000 noises",
        lambda: prior.information(1 / NOISES),
        unit="value",
        count=NOISES.size,
        error=relative_error(prior.information(1 / FEW), truth),
        peers=[
            Peer(
                "quadrature of mmse by quadrature, to 1e-8",
                lambda: peers.information(2.0, 0.2, snr),
                error=lambda value: relative_error(value, truth[-1]),
                every=False,
            ),
            Peer(
                "mpmath, 15 digits",
                lambda: highprec.information(2.0, 0.2, 0.1, digits=15),
                every=False,
            ),
        ],
    )


@pytest.mark.parametrize("case", CASES)
def test_mmse_everywhere(race, case):
    beta, rho, s = (np.broadcast_to(x, 2000) for x in CASES[case])
    prior = GaussianFactorPrior(beta, rho)
    race(f"mmse, {case}", lambda: prior.mmse(s), unit="value", count=2000, at_most=50e-6)


@pytest.mark.parametrize("case", CASES)
def test_information_everywhere(race, case):
    beta, rho, s = (np.broadcast_to(x, 2000) for x in CASES[case])
    prior = GaussianFactorPrior(beta, rho)
    race(f"information, {case}", lambda: prior.information(1 / s), unit="value", count=2000)


def test_one_number(race, exact):
    prior = GaussianFactorPrior(2.0, 0.2)
    truth = [x.mmse for x in exact]
    race(
        "mmse, one number a call",
        lambda: prior.mmse(0.1),
        unit="value",
        error=relative_error([prior.mmse(s) for s in FEW.tolist()], truth),
        peers=[each("adaptive quadrature to 1e-11", lambda s: naive.mmse(2.0, 0.2, s), truth)],
    )


def test_shrink(race):
    prior = GaussianFactorPrior(2.0, 0.5)
    y = np.linspace(0.0, 3.0, 10**6)
    race(
        "denoiser of a million singular values",
        lambda: prior.shrink(y, 0.3),
        unit="value",
        count=y.size,
        rounds=3,
    )


@pytest.mark.benchmark(group="threads")
@pytest.mark.parametrize("what", ["mmse", "information"])
def test_threads(race, what):
    prior = GaussianFactorPrior(2.0, 0.2)
    s = np.geomspace(1e-3, 10.0, 50_000)
    work = (lambda: prior.mmse(s)) if what == "mmse" else (lambda: prior.information(1 / s))
    race(
        f"{what}, array of 50,000",
        work,
        unit="value",
        count=s.size,
        rounds=3,
        threads="all",
        peers=[Peer("on one thread", on_threads(1, work), s.size)],
    )
