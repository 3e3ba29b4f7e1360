"""Priors of any singular values: against closed forms, polynomial roots and finite size."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad

import bsr_theory as bsr
from bsr_theory._kernels import subordination
from bsr_theory.priors import GaussianFactorPrior, SymmetricFactorPrior
from bsr_theory.rotational import RotationallyInvariantPrior, SymmetricPrior
from bsr_theory.spectra import MarchenkoPasturLaw
from bsr_theory.spectra.numerical import Measure, RectangularConvolution, SymmetricConvolution

NOISES = np.array([1e-6, 1e-3, 0.1, 1.0, 10.0, 1e4])


def semicircle(x: Any) -> Any:
    return np.sqrt(np.maximum(4.0 - x * x, 0.0)) / (2.0 * np.pi)


# -- measures ------------------------------------------------------------------------------------


def test_a_density_is_resolved_up_to_its_edges() -> None:
    law = Measure.from_density(semicircle, [(-2.0, 2.0)])
    assert law.mass_error < 1e-13
    np.testing.assert_allclose([law.moment(k) for k in (1, 2, 4, 6)], [0, 1, 2, 5], atol=1e-12)
    x = np.linspace(-2.1, 2.1, 101)
    np.testing.assert_allclose(law.density(x), semicircle(x), atol=1e-7)
    np.testing.assert_array_equal(law.intervals, [[-2.0, 2.0]])


def test_histograms_and_samples() -> None:
    rng = np.random.default_rng(0)
    values = rng.uniform(0.1, 2.0, 1000)
    counts, edges = np.histogram(values, bins=7)
    law = Measure.from_histogram(counts, edges)
    exact = np.sum(counts * np.diff(edges**3) / np.diff(edges)) / 3000.0
    assert law.moment(2) == pytest.approx(exact, rel=1e-14)
    x = 0.5 * (edges[1:] + edges[:-1])
    np.testing.assert_allclose(law.density(x), counts / 1000.0 / np.diff(edges), rtol=1e-13)
    samples = Measure.from_samples([1.0, 3.0, 1.0, 0.0])
    np.testing.assert_array_equal(samples.atoms, [[0.0, 0.25], [1.0, 0.5], [3.0, 0.25]])
    assert samples == Measure.from_atoms([0.0, 3.0, 1.0], [0.25, 0.25, 0.5])
    assert hash(samples) == hash(Measure.from_samples([0.0, 3.0, 1.0, 1.0]))
    assert samples.is_discrete and not law.is_discrete


@pytest.mark.parametrize("shift", [0.0, 0.3, 2.0, 3.0, -0.7, -4.0])
def test_absolute_values(shift: float) -> None:
    def semicircle(x: Any) -> Any:
        return 0.7 * np.sqrt(np.maximum(4.0 - (x - shift) ** 2, 0.0)) / (2 * np.pi)

    measure = Measure.from_density(
        semicircle, [(shift - 2, shift + 2)], [(-1.5, 0.1), (0.5, 0.1), (1.5, 0.1)]
    )
    folded = measure.folded()
    np.testing.assert_allclose(folded.atoms, [[0.5, 0.1], [1.5, 0.2]], rtol=1e-12)
    assert folded.support[0] >= 0.0
    for order in (0, 2, 4, 6):
        assert folded.moment(order) == pytest.approx(measure.moment(order), rel=1e-12)
    ends = [0.0, *sorted({abs(shift - 2), abs(shift + 2)})]
    for order in (1, 3):
        exact = sum(
            quad(lambda x, k=order: x**k * (semicircle(x) + semicircle(-x)), a, b, epsabs=1e-13)[0]
            for a, b in itertools.pairwise(ends)
        )
        exact += 0.1 * 0.5**order + 0.2 * 1.5**order
        assert folded.moment(order) == pytest.approx(exact, rel=1e-10)
    x = np.linspace(0.01, 6.2, 500)
    np.testing.assert_allclose(folded.density(x), semicircle(x) + semicircle(-x), atol=1e-9)


def test_quantiles() -> None:
    uniform = Measure.from_density(lambda x: np.full_like(x, 0.5), [(1.0, 3.0)])
    np.testing.assert_allclose(uniform.quantiles(4), [1.25, 1.75, 2.25, 2.75], rtol=1e-13)
    atoms = Measure.from_atoms([3.0, 1.0], [0.25, 0.75])
    np.testing.assert_array_equal(atoms.quantiles(4), [1.0, 1.0, 1.0, 3.0])
    mixed = Measure.from_density(lambda x: np.full_like(x, 0.5), [(1.0, 2.0)], [(0.0, 0.5)])
    np.testing.assert_allclose(mixed.quantiles(4), [0.0, 0.0, 1.25, 1.75], rtol=1e-13)
    np.testing.assert_allclose(mixed.scaled(2.0).quantiles(2), [0.0, 3.0], rtol=1e-13)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Measure.from_samples([]), "values"),
        (lambda: Measure.from_samples([1.0, np.nan]), "values"),
        (lambda: Measure.from_atoms([1.0, 2.0], [0.5]), "masses"),
        (lambda: Measure.from_atoms([1.0, 2.0], [0.5, 0.6]), "masses"),
        (lambda: Measure.from_histogram([1.0], [1.0, 1.0]), "edges"),
        (lambda: Measure.from_histogram([-1.0], [0.0, 1.0]), "counts"),
        (lambda: Measure.from_density(semicircle, [(-2.0, 1.0)]), "mass 1"),
        (lambda: Measure.from_density(lambda x: x, [(-1.0, 1.0)]), ">= 0"),
        (lambda: Measure.from_density(semicircle, [(-2.0, 1.0), (0.0, 2.0)]), "disjoint"),
        (lambda: RotationallyInvariantPrior([-1.0, 1.0], 1.0), "singular_values"),
        (lambda: RotationallyInvariantPrior([0.0], 1.0), "singular_values"),
        (lambda: RotationallyInvariantPrior([1.0], 0.5), "beta must be >= 1"),
        (lambda: RotationallyInvariantPrior.from_matrix([1.0]), "S must be"),
        (lambda: SymmetricPrior([2.0, 2.0]), "eigenvalues"),
        (lambda: RotationallyInvariantPrior([1.0], np.inf).law(1.0), "beta must be less than"),
        (lambda: RotationallyInvariantPrior([1.0], 1.0).mmse(-1.0), "s must be >= 0"),
        (lambda: RectangularConvolution(Measure.from_samples([-1.0]), 1.0, 1.0), "support"),
    ],
)
def test_bad_input_is_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# -- against closed forms ------------------------------------------------------------------------


@pytest.mark.parametrize(("beta", "rho"), [(2.0, 0.5), (1.0, 0.3), (1.0, 1.0), (3.0, 2.0)])
def test_gaussian_factors_from_their_density(beta: float, rho: float) -> None:
    exact = GaussianFactorPrior(beta, rho)
    prior = RotationallyInvariantPrior(exact.law(0.0), beta)
    assert prior.strong_recovery == pytest.approx(exact.strong_recovery, rel=1e-12)
    np.testing.assert_allclose(prior.mmse(NOISES), exact.mmse(NOISES), rtol=2e-13)
    np.testing.assert_allclose(prior.overlap(NOISES), exact.overlap(NOISES), rtol=2e-13)
    np.testing.assert_allclose(prior.deficit(NOISES), exact.deficit(NOISES), rtol=1e-8)
    np.testing.assert_allclose(
        prior.information(1.0 / NOISES), exact.information(1.0 / NOISES), rtol=2e-12, atol=1e-15
    )
    law, reference = prior.law(0.1), exact.law(0.1)
    np.testing.assert_allclose(law.edges, reference.edges, rtol=1e-11, atol=1e-12)
    y = np.linspace(0.01, 4.0, 40)
    for name in ("density", "hilbert", "log_potential"):
        found = getattr(law, name)(y)
        np.testing.assert_allclose(found, getattr(reference, name)(y), rtol=1e-11, atol=1e-11)
    z = np.array([1 + 1j, 0.5 + 1e-3j, -1 + 0.2j, 2 - 0.5j, 4 + 1e-8j, 1.0])
    np.testing.assert_allclose(law.stieltjes(z), reference.stieltjes(z), rtol=1e-11)
    np.testing.assert_allclose(prior.shrink(y[:20], 0.1), exact.shrink(y[:20], 0.1), atol=1e-11)
    assert max(law.mass_error, law.moment_error) < 1e-12


@pytest.mark.parametrize("rho", [0.3, 1.0, 2.0])
def test_symmetric_factors_from_their_density(rho: float) -> None:
    exact = SymmetricFactorPrior(rho)
    prior = SymmetricPrior(exact.law(0.0))
    tolerance = 1e-9 if rho == 1.0 else 1e-12  # a hard edge, where the density diverges
    assert prior.second_moment == pytest.approx(1.0 + rho, rel=tolerance)
    assert prior.prior_overlap == pytest.approx(rho, rel=tolerance)
    assert prior.strong_recovery == pytest.approx(exact.strong_recovery, rel=1e-12)
    np.testing.assert_allclose(prior.mmse(NOISES), exact.mmse(NOISES), rtol=tolerance)
    np.testing.assert_allclose(prior.overlap(NOISES), exact.overlap(NOISES), rtol=tolerance)
    np.testing.assert_allclose(prior.deficit(NOISES), exact.deficit(NOISES), rtol=1e-7)
    np.testing.assert_allclose(
        prior.information(1.0 / NOISES), exact.information(1.0 / NOISES), rtol=1e-9
    )
    law, reference = prior.law(0.1), exact.law(0.1)
    y = np.linspace(-2.0, 5.0, 40)
    for name in ("density", "hilbert", "log_potential", "denoised"):
        np.testing.assert_allclose(getattr(law, name)(y), getattr(reference, name)(y), atol=1e-9)
    z = np.array([1 + 1j, 0.5 + 1e-3j, -1 + 0.2j, 2 - 0.5j, -3.0, 4 + 1e-8j])
    np.testing.assert_allclose(law.stieltjes(z), reference.stieltjes(z), rtol=1e-9)


@pytest.mark.parametrize("beta", [1.0, 1.5, 8.0])
def test_gaussian_entries(beta: float) -> None:
    prior = RotationallyInvariantPrior(MarchenkoPasturLaw(beta, 1.0 / beta), beta)
    np.testing.assert_allclose(prior.mmse(NOISES), NOISES / (1.0 + NOISES), rtol=1e-12)
    np.testing.assert_allclose(
        prior.information(1.0 / NOISES), 0.5 * np.log1p(1.0 / NOISES), rtol=1e-11
    )
    reference = MarchenkoPasturLaw(beta, 1.0 / beta, scale=1.5)
    y = np.linspace(0.05, 2.2, 30)
    np.testing.assert_allclose(prior.law(0.5).density(y), reference.density(y), atol=1e-10)


def test_noise_alone() -> None:
    zero = Measure.from_atoms([0.0], [1.0])
    law, exact = RectangularConvolution(zero, 0.7, 3.0), MarchenkoPasturLaw(3.0, 1 / 3, scale=0.7)
    np.testing.assert_allclose(law.edges, exact.edges, rtol=1e-14)
    y = np.linspace(0.1, 2.0, 30)
    np.testing.assert_allclose(law.density(y), exact.density(y), atol=1e-13)
    np.testing.assert_allclose(law.log_potential(y), exact.log_potential(y), atol=1e-13)
    inside = (y > law.edges[0, 0]) & (y < law.edges[0, 1])
    np.testing.assert_allclose(law.shrink_factor(y[inside]), 0.0, atol=1e-14)
    circle = SymmetricConvolution(zero, 1.0)
    x = np.linspace(-3.0, 3.0, 30)
    np.testing.assert_allclose(circle.density(x), semicircle(x), atol=1e-13)


def test_columns_without_end() -> None:
    exact = GaussianFactorPrior(np.inf, 0.5)
    prior = RotationallyInvariantPrior(exact.law(0.0), np.inf)
    np.testing.assert_allclose(prior.mmse(NOISES), exact.mmse(NOISES), rtol=1e-12)
    np.testing.assert_allclose(prior.overlap(NOISES), exact.overlap(NOISES), rtol=1e-12)
    np.testing.assert_allclose(prior.information(1 / NOISES), exact.information(1 / NOISES))
    y = np.linspace(0.2, 3.0, 9)
    np.testing.assert_allclose(prior.shrink(y, 0.3), np.minimum(exact.shrink(y, 0.3), 1 + 2**0.5))


@pytest.mark.parametrize("beta", [1e20, 1e30, 1e40, 1e49, 1e51, 1e100, 1e200, 1e300])
def test_many_columns(beta: float) -> None:
    """Columns are known or, around s = sqrt(beta), S S^T is seen in symmetric noise s^2/beta."""
    values = np.array([0.1, 1.0, 2.0])
    prior, square = RotationallyInvariantPrior(values, beta), values**2
    s = 10.0 ** np.arange(-12.0, 4.0)
    known = np.mean(square**2 / (square + s[:, None]), axis=1)
    np.testing.assert_allclose(prior.overlap(s), known, rtol=1e-6 if beta < 1e30 else 1e-9)
    assert prior.information(1 / s) == pytest.approx(
        0.5 * np.mean(np.log1p(square / s[:, None]), axis=1), rel=1e-9
    )
    np.testing.assert_allclose(prior.shrink([1.2, 3.0], 0.3), [0.95, 2.0], rtol=1e-8)
    noise = np.array([1e-12, 1e-4, 0.3, 1.0, 4.0, 1e3, 1e9])
    seen = SymmetricPrior(square).overlap(noise**2)
    s = noise * beta**0.5
    # the next term is sigma^2/s
    np.testing.assert_allclose(prior.overlap(s[2:]) * s[2:], seen[2:], rtol=1e-8)
    if beta > 1e50:
        np.testing.assert_allclose(prior.overlap(s) * s, seen, rtol=1e-12)
        with pytest.raises(ValueError, match=r"beta must be less than 1e\+50"):
            prior.law(1.0)


@pytest.mark.parametrize("rho", [0.01, 0.5, 3.0, 1e3])
@pytest.mark.parametrize("beta", [1e20, 1e25, 1e49, 1e51, 1e200, 1e300])
def test_many_columns_of_gaussian_factors(beta: float, rho: float) -> None:
    exact = GaussianFactorPrior(beta, rho)
    prior = RotationallyInvariantPrior(GaussianFactorPrior(1e20, rho).law(0.0), beta)
    noise = 10.0 ** np.arange(-4.0, 7.0)
    for s in (noise / rho, noise * beta**0.5 / rho):
        np.testing.assert_allclose(prior.mmse(s), exact.mmse(s), rtol=1e-11)
        np.testing.assert_allclose(prior.overlap(s), exact.overlap(s), rtol=2e-11)


@pytest.mark.parametrize("excess", [1e-13, 1e-9, 1e-7, 1e-6, 4.5e-6, 1e-4])
def test_nearly_hard_edge(excess: float) -> None:
    """The density next to w = 0 bends within 1 - 1/sqrt(beta), unseen by nodes far from there."""
    exact = GaussianFactorPrior(1.0 + excess, 0.5)
    prior = RotationallyInvariantPrior(exact.law(0.0), 1.0 + excess)
    np.testing.assert_allclose(prior.mmse(NOISES), exact.mmse(NOISES), rtol=1e-12)
    np.testing.assert_allclose(prior.overlap(NOISES), exact.overlap(NOISES), rtol=1e-12)
    information = prior.information(1 / NOISES)
    np.testing.assert_allclose(information, exact.information(1 / NOISES), rtol=1e-10, atol=1e-13)
    assert prior.law(1.0).mass_error < 1e-13
    for tau in (0.01, 0.5):
        found, known = (bsr.erm.soft_threshold(x, 0.3, tau) for x in (prior, exact))
        for name in ("mse", "nuclear_norm", "divergence"):
            assert getattr(found, name) == pytest.approx(getattr(known, name), rel=1e-9)


# -- against roots of polynomials ----------------------------------------------------------------


def polynomial_density(
    atoms: np.ndarray[Any, Any], beta: float, s: float, w: float
) -> tuple[float, float]:
    """Return density and Re g at w from the equation for u = 1 - s c g, all roots at once."""
    c, k = 1.0 / beta, s * (1.0 - 1.0 / beta)
    factors = [np.array([w, -k, -(x**2)]) for x, _ in atoms]
    product = np.array([1.0])
    for factor in factors:
        product = np.polymul(product, factor)
    right = np.zeros(1)
    for i, (_, mass) in enumerate(atoms):
        term = np.array([s * c * mass, 0.0])
        for j, factor in enumerate(factors):
            if j != i:
                term = np.polymul(term, factor)
        right = np.polyadd(right, term)
    roots = np.roots(np.polysub(np.polymul([-1.0, 1.0], product), right))
    g = (1.0 - roots) / (s * c)
    best = g[np.argmin(g.imag)]
    return max(-best.imag / np.pi, 0.0), best.real


@pytest.mark.parametrize(("beta", "s"), [(2.0, 0.05), (2.0, 2.0), (1.0, 0.2), (6.0, 0.1)])
def test_two_atoms_against_polynomial_roots(beta: float, s: float) -> None:
    atoms = np.array([[0.5, 0.7], [1.6, 0.3]])
    prior = RotationallyInvariantPrior(Measure.from_atoms(*atoms.T), beta)
    law = prior.law(s)
    assert law.edges.shape == (1 if s == 2.0 else 2, 2)
    y = np.linspace(0.02, law.edges[-1, 1] * 1.1, 60)
    exact = np.array([polynomial_density(atoms, beta, s, x * x) for x in y])
    np.testing.assert_allclose(law.density(y), 2.0 * y * exact[:, 0], atol=2e-6)  # roots split
    inside = exact[:, 0] > 1e-3
    gap = np.abs(law.hilbert(y) - (1 - 1 / beta) / y - 2 * y / beta * exact[:, 1])
    assert np.max(gap[inside]) < 1e-9

    def integrand(angle: float, low: float, high: float) -> float:
        w = low + (high - low) * np.sin(angle / 2.0) ** 2
        density, g = polynomial_density(atoms, beta, s, w)
        shrunk = np.sqrt(w) - s * ((1 - 1 / beta) / np.sqrt(w) + 2.0 * np.sqrt(w) / beta * g)
        return float(density * shrunk**2 * 0.5 * (high - low) * np.sin(angle))

    overlap = sum(
        quad(integrand, 0.0, np.pi, args=(a, b), epsabs=1e-11, epsrel=1e-11, limit=200)[0]
        for a, b in law.edges**2
    )
    assert prior.overlap(s) == pytest.approx(overlap, abs=2e-9)


def test_the_mass_of_each_bulk_is_that_of_its_atom() -> None:
    prior = RotationallyInvariantPrior(Measure.from_atoms([0.5, 1.6], [0.7, 0.3]), 2.0)
    law = prior.law(0.05)
    rule = law.quadrature()
    below = rule.y < 0.5 * (law.edges[0, 1] + law.edges[1, 0])
    assert rule.weights[below].sum() == pytest.approx(0.7, rel=1e-13)


@pytest.mark.parametrize("beta", [1.0, 2.5])
def test_off_the_bulks(beta: float) -> None:
    s = 0.05
    law = RotationallyInvariantPrior(Measure.from_atoms([0.5, 1.6], [0.7, 0.3]), beta).law(s)
    low, high = law.edges
    y = np.array([0.5 * low[0], low[0] - 0.01, 0.5 * (low[1] + high[0]), high[1] + 0.05, 9.0])
    rule = law.quadrature(128)
    g = np.sum(rule.weights / (y[:, None] ** 2 - rule.y**2), axis=1)
    hilbert = (1.0 - 1.0 / beta) / y + 2.0 * y / beta * g
    np.testing.assert_allclose(law.hilbert(y), hilbert, rtol=1e-9)
    np.testing.assert_allclose(
        y * law.shrink_factor(y), np.maximum(y - s * hilbert, 0.0), rtol=1e-9
    )
    logs = np.log(np.abs(y[:, None] ** 2 - rule.y**2)) @ rule.weights
    np.testing.assert_allclose(law.log_potential(y), logs, rtol=1e-9)
    np.testing.assert_array_equal(law.density(y), 0.0)
    real = np.sum(rule.weights / (-2.0 - rule.y**2))
    assert law.stieltjes(-2.0) == pytest.approx(real, rel=1e-12)


def test_two_opposite_eigenvalues() -> None:
    # g solves s^2 g^3 - 2 s y g^2 + (y^2 - 1 + s) g - y = 0
    s = 0.6
    law = SymmetricPrior([-1.0, 1.0]).law(s)
    y = np.linspace(-2.5, 2.5, 41)
    g = [np.roots([s * s, -2 * s * x, x * x - 1 + s, -x]) for x in y]
    density = np.array([max(-z.imag.min() / np.pi, 0.0) for z in g])
    np.testing.assert_allclose(law.density(y), density, atol=1e-7)


def random_law(rng: np.random.Generator, low: float) -> Measure:
    n = int(rng.integers(1, 30))
    places = rng.choice([rng.uniform(low, 2.0, n), 10.0 ** rng.uniform(-4, 1, n)])
    if rng.random() < 0.3:
        places[0] = 0.0
    masses = rng.dirichlet(np.full(n, rng.choice([0.1, 1.0, 10.0]))) + 1e-12
    return Measure.from_atoms(places, masses / masses.sum())


def test_random_laws_keep_mass_and_moments() -> None:
    rng = np.random.default_rng(1)
    for _ in range(60):
        law = random_law(rng, 0.0)
        s, beta = 10.0 ** rng.uniform(-6, 2), 1.0 + rng.choice([0.0, 1e-3, 1.0, 50.0])
        rectangular = RectangularConvolution(law, s, beta)
        # atoms as light as 1e-12 make features that no panel was cut for
        assert max(rectangular.mass_error, rectangular.moment_error) < 1e-10
        assert np.all(np.diff(rectangular.edges.ravel()) >= 0.0)
        rule = rectangular.quadrature(64)
        z = rectangular.edges[-1, 1] ** 2 * (0.5 + 0.5j)
        # along the curve, and by continuation through the half plane
        assert np.sum(rule.weights / (z - rule.y**2)) == pytest.approx(
            rectangular.stieltjes(z), rel=1e-10
        )
        symmetric = SymmetricConvolution(random_law(rng, -2.0), s)
        assert max(symmetric.mass_error, symmetric.moment_error) < 1e-10


def test_stieltjes_solves_the_equation_of_dozier_and_silverstein() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        measure = random_law(rng, 0.0)
        s, beta = 10.0 ** rng.uniform(-3, 1), 1.0 + 3.0 * rng.random()
        law, c = RectangularConvolution(measure, s, beta), 1.0 / beta
        z = complex(rng.uniform(-1, 4), 10.0 ** rng.uniform(-6, 0))
        g = law.stieltjes(z)
        u = 1.0 - s * c * g
        zeta = u * u * z - s * (1.0 - c) * u
        x, m = measure.atoms.T
        assert u * np.sum(m / (zeta - x * x)) == pytest.approx(g, rel=1e-9)
        assert g.imag < 0.0 and law.stieltjes(z.conjugate()) == g.conjugate()


# -- identities ----------------------------------------------------------------------------------

PRIORS = [
    RotationallyInvariantPrior([0.5, 1.5], 2.0, normalize=True),
    RotationallyInvariantPrior([0.0, 0.2, 0.9, 2.0], 1.0),
    RotationallyInvariantPrior(Measure.from_histogram([1, 3, 2], [0.0, 0.5, 1.0, 2.0]), 3.0),
    SymmetricPrior([-1.0, 0.5, 2.0]),
    SymmetricPrior(Measure.from_density(semicircle, [(-2.0, 2.0)])),
]


@pytest.mark.parametrize("prior", PRIORS)
def test_information_is_the_integral_of_the_error(prior: Any) -> None:
    x, w = np.polynomial.legendre.leggauss(96)  # bulks part inside the intervals
    for low, high in ((0.0, 5e-3), (0.05, 0.2), (1.0, 1.2), (30.0, 60.0)):
        snr = 0.5 * (low + high) + 0.5 * (high - low) * x
        integral = 0.25 * (high - low) * np.dot(w, prior.mmse(1.0 / snr))
        rise = prior.information(high) - prior.information(low)
        assert rise == pytest.approx(integral, rel=1e-9)


@pytest.mark.parametrize("prior", PRIORS)
def test_limits(prior: Any) -> None:
    least, most = prior.prior_overlap, prior.second_moment
    assert prior.mmse(0.0) == 0.0 and prior.overlap(0.0) == pytest.approx(most)
    assert prior.mmse(np.inf) == pytest.approx(most - least)
    assert prior.overlap(np.inf) == pytest.approx(least)
    assert prior.information(0.0) == 0.0 and prior.information(np.inf) == np.inf
    assert prior.deficit(0.0) == 0.0
    s = np.array([[1e-7, np.nan], [-1.0, 1.0]])
    values = prior.mmse(s)
    assert values.shape == (2, 2) and np.isnan(values[0, 1]) and np.isnan(values[1, 0])
    # mmse from the curve knows nothing of the formula for the degrees of freedom
    assert values[0, 0] / 1e-7 == pytest.approx(prior.strong_recovery, abs=2e-3)
    # large noise: the error of the best linear estimate at first order
    assert prior.overlap(1e8) - least == pytest.approx((most - least) ** 2 / 1e8, rel=1e-5)


@pytest.mark.parametrize("prior", [PRIORS[0], PRIORS[1], PRIORS[3]])
def test_deficit_joins_its_expansion(prior: Any) -> None:
    step = prior._small[0]
    below, above = prior.deficit(step * (1.0 - 1e-9)), prior.deficit(step * (1.0 + 1e-9))
    assert below == pytest.approx(above, rel=1e-7)
    ratio = prior.deficit([1e-3 * step, 1e-8 * step]) / [1e-3 * step, 1e-8 * step]
    np.testing.assert_allclose(ratio, below / step, rtol=1e-2)
    np.testing.assert_allclose(ratio[0], ratio[1], rtol=1e-4)


def test_scale() -> None:
    prior = RotationallyInvariantPrior([0.5, 1.5], 2.0)
    unit = RotationallyInvariantPrior([0.5, 1.5], 2.0, normalize=True)
    assert prior.second_moment == 1.25 and unit.second_moment == pytest.approx(1.0)
    assert prior.mmse(0.125) == pytest.approx(1.25 * unit.mmse(0.1), rel=1e-13)
    assert prior.information(8.0) == pytest.approx(unit.information(10.0), rel=1e-12)


def test_histogram_of_many_samples_approaches_the_law() -> None:
    exact = GaussianFactorPrior(2.0, 2.0)
    values = np.concatenate(
        [np.linalg.svd(exact.sample(150, rng=i), compute_uv=False) for i in range(8)]
    ) / np.sqrt(300.0)
    counts, edges = np.histogram(values, bins=40)
    prior = RotationallyInvariantPrior(Measure.from_histogram(counts, edges), 2.0)
    s = np.array([0.05, 0.5, 2.0])
    np.testing.assert_allclose(prior.mmse(s), exact.mmse(s), rtol=5e-3)
    atoms = RotationallyInvariantPrior(values, 2.0)
    np.testing.assert_allclose(atoms.mmse(s), exact.mmse(s), rtol=5e-3)


# -- finite size ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prior", "s"), [(PRIORS[0], 0.1), (PRIORS[1], 0.3), (PRIORS[3], 0.2), (PRIORS[4], 0.5)]
)
def test_denoising_of_matrices(prior: Any, s: float) -> None:
    rng = np.random.default_rng(3)
    d1 = 240
    S = prior.sample(d1, rng=rng)
    Z = rng.standard_normal(S.shape)
    if isinstance(prior, SymmetricPrior):
        Z = (Z + Z.T) / np.sqrt(2.0)
    Y = S + np.sqrt(s) * Z
    error = np.mean((prior.denoise(Y, s) - S) ** 2)
    assert error == pytest.approx(prior.mmse(s), rel=0.03)
    assert np.mean(S**2) == pytest.approx(prior.second_moment, rel=0.01)
    # no spectral estimator does better: the overlaps of singular vectors with S
    if isinstance(prior, SymmetricPrior):
        vectors = np.linalg.eigh(Y)[1]
        best = np.einsum("ij,ij->j", vectors, S @ vectors)
    else:
        left, _, right = np.linalg.svd(Y, full_matrices=False)
        best = np.einsum("ij,ij->j", left, S @ right.T)
    oracle = (np.sum(S**2) - np.sum(best**2)) / S.size
    assert oracle <= error <= oracle * 1.01


def test_noise_can_push_singular_values_down() -> None:
    prior = RotationallyInvariantPrior([0.5, 1.5], 1.0, normalize=True)
    law = prior.law(0.1)
    y = law.edges[0, 0] + 1e-3
    assert prior.shrink(y, 0.1) > 2.0 * y
    assert 0.0 <= prior.shrink(0.0, 0.1) <= prior.measure.support[1]
    assert prior.shrink(np.inf, 0.1) == prior.shrink(10.0, 0.1) == prior.measure.support[1]
    y = np.linspace(0.0, 3.0, 400)
    assert np.all(np.diff(prior.shrink(y, 0.1)) >= -1e-9)
    np.testing.assert_array_equal(prior.shrink([0.1, 5.0], 0.0), [0.1, prior.measure.support[1]])
    np.testing.assert_array_equal(prior.shrink([0.1, 5.0], np.inf), 0.0)


def test_given_matrices() -> None:
    S = GaussianFactorPrior(2.0, 0.4).sample(30, rng=0)
    prior = RotationallyInvariantPrior.from_matrix(S.T)
    assert prior.beta == 2.0
    assert prior.second_moment == pytest.approx(np.mean(S**2), rel=1e-12)
    assert prior.measure.atoms[0] == pytest.approx([0.0, 18 / 30])
    again = prior.sample(30, rng=1)
    np.testing.assert_allclose(
        np.linalg.svd(again, compute_uv=False), np.linalg.svd(S, compute_uv=False), atol=1e-9
    )
    normal = RotationallyInvariantPrior.from_matrix(S, normalize=True)
    assert normal.second_moment == pytest.approx(1.0)
    for dtype in (np.float64, np.float32, np.float16):  # a product keeps its rank
        stored = RotationallyInvariantPrior.from_matrix(S.astype(dtype))
        assert stored.rank == pytest.approx(12 / 30, rel=1e-12)
        assert stored.mmse(0.1) == pytest.approx(
            prior.mmse(0.1), rel=4 * float(np.finfo(dtype).eps)
        )
    rounded = PRIORS[0].at_size(5)
    np.testing.assert_allclose(rounded.measure.atoms[:, 1], [0.6, 0.4], rtol=1e-12)


# -- with the rest of the package ----------------------------------------------------------------


def test_state_evolution_and_message_passing() -> None:
    problem = bsr.Problem(PRIORS[0], bsr.GaussianChannel(0.05), 0.5)
    point = bsr.solve(problem)
    assert point.status.ok
    assert point.mmse == pytest.approx(PRIORS[0].mmse(1.0 / point.qhat), rel=1e-10)
    assert point.qhat == pytest.approx(0.5 / (0.05 + point.mmse), rel=1e-10)
    assert bsr.iterate(problem, 60).mmse[-1] == pytest.approx(point.mmse, rel=1e-6)
    run = bsr.simulations.amp(problem.sample(40, rng=0))
    assert run.status.ok and run.mse[-1] == pytest.approx(point.mmse, rel=0.08)


@pytest.mark.parametrize("prior", PRIORS, ids=repr)
def test_information_without_noise(prior: Any) -> None:
    """It grows by half the degrees of freedom per factor of e, however small noise is."""
    logs = np.array([-55.0, -58.0, -61.0, -64.0, -100.0, -300.0, -690.0])
    information = prior.information(np.exp(-logs))
    slope = np.diff(information) / -np.diff(logs)
    np.testing.assert_allclose(slope, 0.5 * prior.strong_recovery, rtol=1e-8)


def test_strong_recovery() -> None:
    alpha = np.array([0.5, 0.87, 0.8749999, 0.876])
    points = bsr.solve(bsr.Problem(PRIORS[0], bsr.GaussianChannel(0.0), alpha))
    s = 1.0 / points.qhat[:3]
    np.testing.assert_allclose(PRIORS[0].mmse(s) / s, alpha[:3], rtol=1e-10)
    assert points.mmse[3] == 0.0


def test_a_second_moment_that_is_not_one() -> None:
    prior = PRIORS[1]
    point = bsr.solve(bsr.Problem(prior, bsr.GaussianChannel(0.1), 0.6))
    assert point.q + point.mmse == pytest.approx(prior.second_moment, rel=1e-12)
    scale = prior.second_moment
    unit = RotationallyInvariantPrior(prior.measure, 1.0, normalize=True)
    same = bsr.solve(bsr.Problem(unit, bsr.GaussianChannel(0.1 / scale), 0.6))
    assert point.mmse == pytest.approx(scale * same.mmse, rel=1e-9)
    symmetric = bsr.Problem(PRIORS[3], bsr.GaussianChannel(0.1), 0.3)
    found = bsr.solve(symmetric)
    assert found.qhat == pytest.approx(2.0 * 0.3 / (0.1 + found.mmse), rel=1e-10)


def test_rounding_of_the_second_moment_stays_below_one() -> None:
    """Channels refuse variances above 1, and quadrature may give 1 + 2e-16 or so."""
    rng = np.random.default_rng(0)
    above = 0
    for _ in range(40):
        values = rng.exponential(size=rng.integers(2, 200))
        for prior in (
            RotationallyInvariantPrior(values, 1.0 + rng.exponential(), normalize=True),
            SymmetricPrior(values - 0.5, normalize=True),
        ):
            exact = prior._source.variance + prior._source.mean**2
            above += exact > 1.0
            assert prior.second_moment == 1.0
            assert prior.mmse(np.inf) <= 1.0
            assert prior.overlap(0.0) <= 1.0
            solution = bsr.solve(bsr.Problem(prior, bsr.SignChannel(), 0.01))
            assert solution.status == bsr.Status.CONVERGED
    assert above


@pytest.mark.parametrize("excess", [1e-15, 9e-10])
def test_channels_take_second_moments_that_are_one_but_for_rounding(excess: float) -> None:
    class Rough(bsr.GaussianFactorPrior):
        @property
        def second_moment(self) -> float:
            return 1.0 + excess

        def mmse(self, s: Any) -> Any:
            return super().mmse(s) * (1.0 + excess)

        def mmse_and_overlap(self, s: Any) -> Any:
            return tuple(x * (1.0 + excess) for x in super().mmse_and_overlap(s))

    for channel in (bsr.AbsChannel(0.1), bsr.SignChannel(), bsr.ReLUChannel(0.1)):
        rough, fine = (
            bsr.solve(bsr.Problem(prior, channel, [1e-4, 0.4, 1.0]))
            for prior in (Rough(2.0, 0.5), bsr.GaussianFactorPrior(2.0, 0.5))
        )
        np.testing.assert_array_equal(rough.status, fine.status)
        np.testing.assert_allclose(rough.mmse, fine.mmse, rtol=1e-7)
    with pytest.raises(ValueError, match=r"q must be in \[0, 1\], got 1.00000001"):
        bsr.SignChannel().precision(1.00000001)


def test_thresholds() -> None:
    found = bsr.thresholds(PRIORS[0], bsr.GaussianChannel(0.0))
    assert found.strong_recovery == pytest.approx(0.875)
    channel = bsr.AbsChannel()
    exact = GaussianFactorPrior(1.0, 0.2)
    prior = RotationallyInvariantPrior(exact.law(0.0), 1.0)
    ours, theirs = bsr.thresholds(prior, channel), bsr.thresholds(exact, channel)
    for name in ("weak_recovery", "algorithmic", "information_theoretic", "informed_spinodal"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=1e-6)


# -- the tables that convex estimators read ------------------------------------------------------


def table(prior: RotationallyInvariantPrior, s: float) -> tuple[Any, ...]:
    """Return y, weights, h and what is denoised at all nodes of `subordination.tabulate`."""
    bulk, panels, nodes = subordination.tabulate(prior.unit_source(), s, 1.0 / prior.beta)
    half = 0.5 * np.diff(panels, axis=1)
    weights = half * subordination.WEIGHTS * nodes[:, :, subordination.NODE_DENSITY]
    atoms = 0.5 * subordination.WEIGHTS * nodes[:, :, subordination.NODE_DENSITY]
    weights = np.where(bulk[:, None] < 0, atoms, weights)
    columns = (subordination.NODE_Y, subordination.NODE_HILBERT, subordination.NODE_DENOISED)
    y, h, denoised = (nodes[:, :, k].ravel() for k in columns)
    return y, weights.ravel(), h, denoised


TABLED = [
    RotationallyInvariantPrior(GaussianFactorPrior(2.0, 0.5).law(0.0), 2.0),
    RotationallyInvariantPrior(GaussianFactorPrior(1.0, 1.0).law(0.0), 1.0),
    RotationallyInvariantPrior([0.0, 0.0, 0.5, 1.0, 1.5], 3.0, normalize=True),
    RotationallyInvariantPrior(np.linspace(0.1, 2.0, 40), 1.0, normalize=True),
    RotationallyInvariantPrior([0.0, 0.5, 0.5, 1.5], np.inf, normalize=True),
    RotationallyInvariantPrior(GaussianFactorPrior(2.0, 0.5).law(0.0), np.inf),
]


@pytest.mark.parametrize("prior", TABLED, ids=repr)
def test_tables_obey_the_sum_rules(prior: RotationallyInvariantPrior) -> None:
    for s in (1e-12, 1e-4, 0.05, 1.0, 1e4):
        y, weights, h, denoised = table(prior, s)
        assert weights.sum() == pytest.approx(1.0, abs=1e-13)
        assert weights @ y**2 == pytest.approx(1.0 + s, rel=1e-12)
        # h of atoms is of order 1/sqrt(s)
        assert weights @ (y * h) == pytest.approx(1.0, abs=1e-12 + 1e-16 / np.sqrt(s))
        assert weights @ (y * denoised) == pytest.approx(1.0, rel=1e-11)
        assert weights @ denoised**2 == pytest.approx(prior.overlap(s), rel=1e-10)
        np.testing.assert_allclose(y - s * h, denoised, atol=1e-14 * (1.0 + s))


@pytest.mark.parametrize("prior", TABLED[:4], ids=repr)
def test_tables_are_the_law(prior: RotationallyInvariantPrior) -> None:
    for s in (1e-3, 0.3, 20.0):
        y, _, h, _ = table(prior, s)
        law = prior.law(s)
        # close to an edge y itself does not resolve the law
        inside = np.min(np.abs(np.subtract.outer(y, law.edges.ravel())), axis=1) > 1e-6 * y
        np.testing.assert_allclose(h[inside], law.hilbert(y[inside]), rtol=1e-9, atol=1e-9)
    _, weights, _, _ = table(prior, 0.3)
    y = table(prior, 0.3)[0]
    rule = prior.law(0.3).quadrature(32)
    for power in (1, 3, 5):
        assert weights @ y**power == pytest.approx(rule.weights @ rule.y**power, rel=1e-12)


@pytest.mark.parametrize("beta", [1.0, 2.0, np.inf])
def test_the_noise_at_which_zeros_part(beta: float) -> None:
    prior = RotationallyInvariantPrior([0.0, 1.0, 1.5], beta)
    s = subordination.parting_noise(prior.unit_source(), 1.0 / beta)
    assert s > 1e-3
    if beta < np.inf:
        law = RotationallyInvariantPrior(prior.measure, beta, normalize=True).law(s)
        low = law.edges[0]
        rule = law.quadrature()
        assert rule.weights[rule.y <= low[1]].sum() == pytest.approx(1.0 / 3.0, abs=1e-10)
    none = RotationallyInvariantPrior([1.0, 1.5], beta)
    assert subordination.parting_noise(none.unit_source(), 1.0 / beta) == 0.0


def test_noise_without_an_extent() -> None:
    """At 1e-32 the edge of a bulk is that of the density, to the last digit."""
    prior = RotationallyInvariantPrior(GaussianFactorPrior(1.0, 0.05).law(0.0), 1.0)
    y, weights, _, _ = table(prior, 1e-32)
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)
    assert weights @ y**2 == pytest.approx(1.0, rel=1e-12)
    assert prior.mmse(1e-32) == pytest.approx(1e-32 * prior.strong_recovery, rel=1e-10)


def test_rank() -> None:
    assert RotationallyInvariantPrior([0.0, 0.0, 0.5, 1.0], 2.0).rank == 0.5
    law = GaussianFactorPrior(2.0, 0.3).law(0.0)
    assert RotationallyInvariantPrior(law, 2.0).rank == pytest.approx(0.3, rel=1e-14)
    assert RotationallyInvariantPrior([0.1, 2.0], 2.0).rank == 1.0


@pytest.mark.parametrize(
    "prior",
    [
        RotationallyInvariantPrior([0.5, 1.5], 2.0, normalize=True),
        RotationallyInvariantPrior([0.0, 0.1, 10.0], 1e6, normalize=True),
        SymmetricPrior([-1.0, 1.0]),
        SymmetricPrior([-1.0, 2.0, 0.5, 0.0, 30.0], normalize=True),
    ],
)
def test_noise_that_drowns_everything(prior: Any) -> None:
    """The overlap is V^2/s then, the estimate a share V/s of what is seen."""
    s = 10.0 ** np.arange(14, 309, 7)
    known = prior.prior_overlap
    variance = 1.0 - known
    learned = prior._evaluate(s)[:, 1]
    np.testing.assert_allclose(learned * s, variance**2, rtol=1e-8)
    np.testing.assert_allclose(prior.overlap(s), known + variance**2 / s, rtol=1e-12)
    np.testing.assert_allclose(prior.information(1.0 / s), 0.5 * variance / s, rtol=1e-8)
    start, _ = prior._drowned
    near = prior._evaluate(start * np.array([0.5, 1.0 - 1e-12, 1.0 + 1e-12, 2.0]))[:, 1]
    assert near[1] == pytest.approx(near[2], rel=1e-10, abs=0.0)
    mean = prior._source.mean if isinstance(prior, SymmetricPrior) else 0.0
    for noise in (1e17, 1e19, 1e61, 1e200):
        y = np.sqrt(noise)
        wanted = mean + variance / noise * y
        assert prior.shrink(y, noise) == pytest.approx(wanted, rel=1e-6, abs=0.0)
    assert prior.shrink(3.0, np.inf) == pytest.approx(mean, abs=1e-300)
    with pytest.raises(ValueError, match="s must be at most 1e"):
        prior.law(1e70)
