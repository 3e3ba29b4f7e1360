"""Spectral laws that freealg, a package of free probability, has too.

FreeLevy is the free convolution of a compound free Poisson law and a semicircle: with one jump
``1/sqrt(rho)`` and rate rho the law of a noisy symmetric signal.  FussCatalan of order 2 is the
law of the squared singular values of a product of two square Gaussian matrices: beta = rho = 1
without noise.  freealg evaluates the density a distance eta above the real axis.
"""

from __future__ import annotations

import numpy as np
import pytest
from harness import Peer, relative_error
from mpmath import mp, mpf

from bsr_theory import SymmetricFactorPrior
from bsr_theory.spectra import GaussianFactorLaw, SymmetricFactorLaw

pytestmark = [
    pytest.mark.bench,
    pytest.mark.benchmark(group="free probability"),
    pytest.mark.filterwarnings("default"),
]

RHO, S = 0.5, 0.1


@pytest.fixture
def distributions(monkeypatch, tmp_path):
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    return pytest.importorskip("freealg").distributions


def density_from(coefficients):
    """Return the density where the equation of the Stieltjes transform has a complex root."""
    roots = mp.polyroots(coefficients, maxsteps=500, extraprec=200)
    return max(abs(mp.im(x)) for x in roots) / mp.pi


def exact_symmetric(y):
    """``y = 1/g + rho/(sqrt(rho) - g) + s g`` as a cubic in g."""
    y, rho, s = mpf(y), mpf(RHO), mpf(S)
    a = mp.sqrt(rho)
    return density_from([-s, s * a + y, rho - 1 - y * a, a])


def exact_product(w):
    """``w^2 g^3 - w g + 1 = 0``."""
    return density_from([mpf(w) ** 2, 0, -mpf(w), 1])


def test_noisy_symmetric_signal(race, distributions):
    law = SymmetricFactorLaw(RHO, S)
    y = np.linspace(*law.edges[0], 1002)[1:-1]
    peer = distributions.FreeLevy([RHO**-0.5], [1.0], RHO, sigma=S**0.5)
    few = slice(20, None, 100)
    with mp.workdps(30):
        truth = [exact_symmetric(x) for x in y[few].tolist()]
        others = [
            Peer(
                f"freealg's FreeLevy.density, eta = {name}",
                lambda eta=eta: peer.density(y, eta=eta),
                y.size,
                relative_error(peer.density(y, eta=eta)[few], truth),
            )
            for name, eta in (("2e-4", 2e-4), ("1e-12", 1e-12))
        ]
        error = relative_error(law.density(y)[few], truth)
    race(
        "density of a noisy symmetric signal",
        lambda: SymmetricFactorLaw(RHO, S).density(y),
        unit="value",
        count=y.size,
        error=error,
        peers=others,
    )


def test_product_of_two_matrices(race, distributions):
    w = np.linspace(0.0, 6.75, 1002)[1:-1]
    root = np.sqrt(w)
    peer = distributions.FussCatalan(2)
    few = slice(20, None, 100)

    def ours():
        return GaussianFactorLaw(1.0, 1.0, 0.0).density(root) / (2 * root)

    with mp.workdps(30):
        truth = [exact_product(x) for x in w[few].tolist()]
        others = [
            Peer(
                f"freealg's FussCatalan.density, eta = {name}",
                lambda eta=eta: peer.density(w, eta=eta),
                w.size,
                relative_error(peer.density(w, eta=eta)[few], truth),
            )
            for name, eta in (("2e-4", 2e-4), ("1e-12", 1e-12))
        ]
        error = relative_error(ours()[few], truth)
    race(
        "density of a product of two square matrices",
        ours,
        unit="value",
        count=w.size,
        error=error,
        peers=others,
    )


def test_error_of_a_symmetric_signal(race, distributions):
    """``M(s) = s - (4 pi^2/3) s^2 int density^3``: theirs by a rule on a grid of the density."""
    prior = SymmetricFactorPrior(RHO)
    noises = np.geomspace(0.05, 0.2, 2000)
    ((low, high),) = SymmetricFactorLaw(RHO, S).edges
    peer = distributions.FreeLevy([RHO**-0.5], [1.0], RHO, sigma=S**0.5)
    x, weights = np.polynomial.legendre.leggauss(200)
    y = low + (high - low) * np.sin(np.pi / 4 * (1 + x)) ** 2
    weights = np.pi / 4 * weights * (high - low) * np.sin(np.pi / 2 * (1 + x))

    def theirs():
        return S - 4 * np.pi**2 / 3 * S**2 * (weights @ peer.density(y, eta=1e-12) ** 3)

    with mp.workdps(30):
        length = mpf(high) - mpf(low)
        cube = mp.quad(
            lambda t: exact_symmetric(low + length * mp.sin(t) ** 2) ** 3 * length * mp.sin(2 * t),
            mp.linspace(0, mp.pi / 2, 5),
        )
        truth = mpf(S) - 4 * mp.pi**2 / 3 * mpf(S) ** 2 * cube
    race(
        "mmse of a symmetric signal, array of 2000 noises",
        lambda: prior.mmse(noises),
        unit="value",
        count=noises.size,
        error=relative_error(prior.mmse(S), truth),
        peers=[
            Peer(
                "a rule of 200 nodes over freealg's density, eta = 1e-12",
                theirs,
                error=relative_error(theirs(), truth),
            )
        ],
    )
