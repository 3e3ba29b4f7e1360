"""Figures of any prior: the numbers in them, what is drawn of these, and bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from click.testing import CliRunner
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D

import bsr_theory as bsr
from bsr_theory import cli, figures, limits
from bsr_theory.figures import Picture

Array = npt.NDArray[np.float64]
Gaussian = bsr.GaussianFactorPrior
S = 0.25
# of the four laws: masses of atoms, and unknowns per entry at beta = 1
ATOMS = [{0.0: 0.75}, {}, {0.5: 0.8, 2.0: 0.2}, {}]
UNKNOWNS = [0.25 * 1.75, 1.0, 1.0 - 0.5 * (0.64 + 0.04), 1.0]


@pytest.fixture(scope="module", autouse=True)
def quick() -> Any:
    """Make all runs few and small."""

    def compare(problem: bsr.Problem, estimator: str, **options: Any) -> xr.Dataset:
        small = {"d1": 10, "samples": 2, "steps": 5, "executor": "serial"}
        if estimator in ("ridge", "nuclear_norm"):
            del small["steps"]
        return bsr.simulations.compare(problem, estimator, **{**options, **small})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures.finite_size, "compare", compare)
        yield


@pytest.fixture(scope="module")
def data() -> xr.Dataset:
    """Return the data of the figure, made once."""
    return figures.FIGURES["priors"].data(fast=True)


@pytest.fixture(scope="module")
def picture(data: xr.Dataset) -> Picture:
    return figures.draw_any_prior(data)


def rule(x: Array, density: Array) -> tuple[Array, Array]:
    """Return points and weights of the trapezoidal rule on each stretch between NaN."""
    gap = np.isnan(x)
    x, density = np.where(gap, 0.0, x), np.where(gap, 0.0, density)
    width = np.diff(x) * ~(gap[1:] | gap[:-1])
    share = 0.5 * (np.append(width, 0.0) + np.append(0.0, width))
    return x, density * share


# --------------------------------------------------------------------------------------------
# Data
# --------------------------------------------------------------------------------------------


def test_laws_and_noisy_laws(data: xr.Dataset) -> None:
    assert list(data.prior.values) == list(figures.example_priors())
    for k, atoms in enumerate(ATOMS):
        row = data.isel(prior=k)
        place, mass = row.atom_value.values, row.atom_mass.values
        found = {float(x): float(m) for x, m in zip(place, mass, strict=True) if m > 0.0}
        assert found == pytest.approx(atoms)
        x, weight = rule(row.value.values, row.density.values)
        squares = sum(m * v * v for v, m in atoms.items())
        assert weight.sum() + sum(atoms.values()) == pytest.approx(1.0, abs=1e-4)
        assert np.dot(weight, x**2) + squares == pytest.approx(1.0, abs=1e-4)
        # noise adds s to the second moment
        x, weight = rule(row.noisy_value.values, row.noisy_density.values)
        assert weight.sum() == pytest.approx(1.0, abs=1e-4)
        assert np.dot(weight, x**2) == pytest.approx(1.0 + S, abs=1e-4)
    low, high = data.value.isel(prior=3).min(), data.value.isel(prior=3).max()
    assert float(high / low) == pytest.approx(12.0, rel=1e-6)
    law = (data.density * data.value**2).isel(prior=3).values
    np.testing.assert_allclose(law[np.isfinite(law)], law[0], rtol=1e-9)


def test_denoisers(data: xr.Dataset) -> None:
    for k, prior in enumerate(figures.example_priors().values()):
        row = data.isel(prior=k)
        # the overlap of a Bayes estimate with S is its own squared norm
        _, weight = rule(row.noisy_value.values, row.noisy_density.values)
        square = float(np.dot(weight, np.nan_to_num(row.denoised.values) ** 2))
        assert square == pytest.approx(prior.overlap(S), abs=1e-4)
    row = data.isel(prior=1)  # Wiener's filter
    np.testing.assert_allclose(row.denoised, row.noisy_value / (1.0 + S), rtol=1e-12)
    gap = data.isel(prior=2)
    assert int(np.isnan(gap.noisy_value.values[:-1]).sum()) >= 1  # two bulks


def test_errors(data: xr.Dataset) -> None:
    np.testing.assert_allclose(data.strong, UNKNOWNS, rtol=1e-12)
    for half, delta in (("clean", 0.0), ("noisy", 0.1)):
        alpha = data[f"{half}_alpha"].values
        ridge = limits.ridge_mse(alpha, delta)
        np.testing.assert_array_equal(data[f"ridge_{half}"], ridge)
        np.testing.assert_allclose(data[half][1], ridge, rtol=1e-9, atol=1e-14)
        factors = bsr.solve(bsr.bilinear_regression(alpha, 1.0, 0.25, delta)).mmse
        np.testing.assert_allclose(data[half][0], factors, rtol=1e-9, atol=1e-14)
        assert (data[half].values <= ridge + 1e-9).all()
        priors = list(figures.example_priors().values())
        for k in (2, 3):
            for i in (20, 60):
                problem = bsr.Problem(priors[k], bsr.GaussianChannel(delta), alpha[i])
                assert float(data[half][k, i]) == pytest.approx(bsr.solve(problem).mmse, rel=1e-9)
        runs = data[f"{half}_runs_mse"]
        assert runs.dims == ("prior", f"{half}_runs_alpha", f"{half}_runs_sample")
        assert data[f"{half}_runs_theory"].shape == (4, 5)
    assert int(data.clean_runs_d1) == 10
    assert all("long_name" in data[name].attrs for name in ("density", "clean", "strong"))


def test_other_priors_and_parameters() -> None:
    weights = np.random.default_rng(0).standard_normal((6, 12))
    mine = bsr.RotationallyInvariantPrior.from_matrix(weights, normalize=True)
    priors = {"mine": mine, "factors": Gaussian(2.0, 0.5)}
    data = figures.any_prior_data(0.3, priors=priors, s=0.1, fast=True)
    assert (float(data.beta), float(data.delta), float(data.s)) == (2.0, 0.3, 0.1)
    assert list(data.prior.values) == ["mine", "factors"]
    point = bsr.solve(bsr.bilinear_regression(data.noisy_alpha.values[40], 2.0, 0.5, 0.3))
    assert float(data.noisy[1, 40]) == pytest.approx(point.mmse, rel=1e-9)
    np.testing.assert_allclose(
        np.sort(data.atom_value[0]) * np.sqrt(np.mean(weights**2)),
        np.sort(np.linalg.svd(weights, compute_uv=False)) / np.sqrt(12.0),
        rtol=1e-12,
    )
    assert [prior.beta for prior in figures.example_priors(3.0).values()] == [3.0] * 4


def test_symmetric_signals() -> None:
    """Eigenvalues of both signs, alpha = n/d^2, and what the mean of S tells without samples."""
    priors = {
        "signs": bsr.SymmetricPrior([-1.0, 1.0]),
        "few": bsr.SymmetricPrior([0.0, 0.0, 0.0, 2.0]),
    }
    data = figures.any_prior_data(priors=priors, fast=True)
    np.testing.assert_allclose(data.strong, [1 / 4, 3 / 16], rtol=1e-12)  # of d^2/2 unknowns
    np.testing.assert_allclose(data.unknown, [1.0, 0.75], rtol=1e-12)
    assert data.value.attrs["long_name"] == "eigenvalue of S/sqrt(d)"
    assert float(data.noisy_value[0].min()) < -1.0
    assert (data.clean_runs_theory.values[1] <= 0.75).all()
    picture = figures.draw_any_prior(data)
    laws, denoisers, _, noisy = picture.axes
    assert laws.get_xlim()[0] < -1.0
    assert laws.get_xlabel().startswith(r"eigenvalue of $S/\sqrt{d}$")
    assert denoisers.get_ylabel() == "denoised eigenvalue"
    starts = [float(line.get_ydata()[0]) for line in noisy.lines if len(line.get_ydata()) > 50]
    assert starts == [1.0, 0.75, 1.0]  # the last is ridge regression, which knows no mean
    learned = figures.learning_curves_data(priors=priors, fast=True)
    assert float(learned.bayes[1, 0]) < 0.75
    away = learned.nuclear_mse.mean("nuclear_sample") - learned.nuclear_theory
    assert float(np.abs(away).max()) < 0.15  # d1 = 10 here


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"delta": 0.0}, "delta must be > 0 and finite, got 0.0"),
        ({"delta": [0.1, 0.2]}, r"delta must be a scalar here, got shape \(2,\)"),
        ({"s": 0.0}, "s must be > 0 and finite, got 0.0"),
        ({"beta": 0.5}, "beta must be >= 1, got 0.5"),
        ({"beta": np.inf}, "priors must share one finite beta, got .*inf.*"),
        (
            {"priors": {"a": Gaussian(1.0, 1.0), "b": Gaussian(2.0, 1.0)}},
            r"priors must share one finite beta, got \[1.0, 2.0\]",
        ),
        ({"priors": {}}, r"priors must share one finite beta, got \[\]"),
        (
            {"priors": {"raw": bsr.RotationallyInvariantPrior([1.0, 2.0], 1.0)}},
            r"priors must have second moment 1 \(normalize=True\), got 2.5 for 'raw'",
        ),
        (
            {"priors": {"low": bsr.LowRankFactorPrior(1.0)}},
            "priors must be of one S, of extensive rank, got 'low'",
        ),
        (
            {"priors": {"symmetric": bsr.SymmetricPrior([-1.0, 1.0]), "not": Gaussian(1.0, 1.0)}},
            r"priors must all be of a symmetric S or none, got \['symmetric'\]",
        ),
        (
            {"priors": {"several": Gaussian(1.0, [0.5, 1.0])}},
            "priors must be of one S, of extensive rank, got 'several'",
        ),
    ],
)
def test_bad_input(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        figures.any_prior_data(**given, fast=True)
    if "priors" in given:
        with pytest.raises(ValueError, match=f"^{message}$"):
            figures.learning_curves_data(**given, fast=True)


# --------------------------------------------------------------------------------------------
# What is drawn
# --------------------------------------------------------------------------------------------


def curve_through(axes: Axes, x: Array, y: Array) -> Any:
    """Return the colour of the line through all these points."""
    for line in axes.lines:
        at, height = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
        where = np.isin(at, x)
        if where.sum() == x.size and np.array_equal(height[where], y):
            return to_rgba(line.get_color())
    raise AssertionError("no such line")


def test_the_picture_draws_its_data(data: xr.Dataset, picture: Picture) -> None:
    laws, denoisers, clean, noisy = picture.axes
    (legend,) = picture.legends
    labels = [text.get_text() for text in legend.get_texts()]
    handles = dict(zip(labels, legend.legend_handles, strict=True))
    assert labels[:4] == list(data.prior.values)
    assert {"ridge regression", "perfect recovery", "GAMP-RIE, $d_1=10$"} == set(labels[4:])
    colours = []
    for k, name in enumerate(labels[:4]):
        row, handle = data.isel(prior=k), handles[name]
        assert isinstance(handle, Line2D)
        colours.append(to_rgba(handle.get_color()))
        there = np.isfinite(row.noisy_value.values)
        x, y = row.noisy_value.values[there], row.denoised.values[there]
        assert curve_through(denoisers, x, y) == colours[-1]
        alpha = row.noisy_alpha.values
        assert curve_through(noisy, alpha, row.noisy.values) == colours[-1]
        before = row.clean_alpha.values < float(row.strong)
        assert (
            curve_through(clean, row.clean_alpha.values[before], row.clean.values[before])
            == colours[-1]
        )
        for axes, half in ((clean, "clean"), (noisy, "noisy")):
            bars = axes.containers[k]
            np.testing.assert_array_equal(bars.lines[0].get_ydata(), row[f"{half}_runs_mse_mean"])
            assert bars.lines[0].get_marker() == handle.get_marker()
        # a strip of its own for each law
        heights = np.concatenate(
            [np.asarray(x.get_ydata()) for x in laws.lines if to_rgba(x.get_color()) == colours[-1]]
        )
        assert 3 - k <= np.nanmin(heights) and np.nanmax(heights) < 4 - k
    assert len(set(colours)) == 4
    circles = [line.get_xdata()[0] for line in clean.lines if line.get_marker() == "o"]
    assert set(data.strong.values) <= set(circles)
    assert curve_through(noisy, data.noisy_alpha.values, data.ridge_noisy.values)
    assert [axes.get_title(loc="left") for axes in picture.axes] == ["(a)", "(b)", "(c)", "(d)"]


def test_data_beside_the_picture_draws_it_again(
    data: xr.Dataset, picture: Picture, tmp_path: Path
) -> None:
    path, beside = figures.save(picture, tmp_path / "one.png", dpi=50)
    again = figures.draw_any_prior(figures.load(beside))
    second, _ = figures.save(again, tmp_path / "two.png", dpi=50)
    assert second.read_bytes() == path.read_bytes()


def test_many_small_atoms_are_a_rug() -> None:
    values = np.random.default_rng(0).exponential(size=12)
    prior = bsr.RotationallyInvariantPrior(values, 1.0, normalize=True)
    data = figures.any_prior_data(priors={"mine": prior}, fast=True)
    laws = figures.draw_any_prior(data).axes[0]
    rug = [path for x in laws.collections for path in getattr(x, "get_segments", list)()]
    assert len(rug) == 12
    assert {round(float(path[1, 1] - path[0, 1]), 12) for path in rug} == {round(0.82 / 1.2, 12)}


def test_a_figure_of_other_priors_is_kept_by_their_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bsr.Problem] = []
    calculate = figures.finite_size.compare

    def compare(problem: bsr.Problem, estimator: str, **options: Any) -> xr.Dataset:
        asked.append(problem)
        return calculate(problem, estimator, **options)

    monkeypatch.setattr(figures.finite_size, "compare", compare)
    place = tmp_path / "mine.png"
    # as many atoms, of the same second moment
    for number, values in enumerate(([1.0, 7.0], [3.0, 41.0**0.5])):
        prior = bsr.RotationallyInvariantPrior(values, 1.0, normalize=True)
        for _ in range(2):  # the second time it is there
            made = figures.make("priors", priors={"mine": prior}, fast=True, path=place)
            figures.save(made, place, dpi=40)
        assert len(asked) == 2 * (number + 1)
    with pytest.raises(ValueError, match=r"^priors cannot be chosen for figure 1, got mine$"):
        figures.make("1", priors={"mine": prior})
    with pytest.raises(ValueError, match=r"^beta must be left out beside priors, got 2$"):
        figures.make("priors", beta=2.0, priors={"mine": prior})


def test_the_command_line_draws_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(line: str) -> Any:
        return CliRunner().invoke(cli.main, line.split(), prog_name="bsr")

    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    generator = np.random.default_rng(0)
    for name in ("one", "two", "other/one"):
        np.save(f"{name}.npy", generator.standard_normal((6, 6)))
    result = run("figure priors --fast --dpi 40 --weights one.npy --weights two.npy")
    assert result.stdout.split() == [
        "figure_priors_one_two_fast.png",
        "figure_priors_one_two_fast.nc",
    ]
    data = figures.load("figure_priors_one_two_fast.nc")
    assert list(data.prior.values) == ["one", "two"]
    assert float(data.beta) == 1.0
    assert data.atom_value.shape == (2, 6)
    for line, message in (
        ("figure 1 --weights one.npy", "priors cannot be chosen for figure 1, got one"),
        (
            "figure priors --weights one.npy --weights other/one.npy",
            "weights must be files of different names, got one, one",
        ),
        ("figure priors --beta 2 --weights one.npy", "beta must be left out beside priors, got 2"),
    ):
        result = run(line)
        assert (result.exit_code, result.stderr) == (2, f"Error: {message}\n")
    listed = run("figure").stdout.splitlines()
    assert [line.split()[0] for line in listed if "--weights" in line] == [
        "learning-curves",
        "priors",
    ]


# --------------------------------------------------------------------------------------------
# Learning curves
# --------------------------------------------------------------------------------------------


def test_learning_curves_of_priors() -> None:
    priors = {"narrow": Gaussian(2.0, 0.2)}
    data = figures.learning_curves_data(0.1, priors=priors, fast=True)
    assert list(data.prior.values) == ["narrow"]
    assert float(data.beta) == 2.0
    for k, prior in enumerate(priors.values()):
        for i in (40, 200):
            alpha = float(data.alpha[i])
            problem = bsr.Problem(prior, bsr.GaussianChannel(0.1), alpha)
            assert float(data.bayes[k, i]) == pytest.approx(bsr.solve(problem).mmse, rel=1e-9)
            assert float(data.ridge[k, i]) == pytest.approx(limits.ridge_mse(alpha, 0.1))
            best = bsr.erm.nuclear_norm(problem, lam="optimal").mse
            assert float(data.nuclear[k, i]) == pytest.approx(best, rel=1e-9)
    assert data.bayes_mse.dims == ("prior", "bayes_alpha", "bayes_sample")
    picture = figures.draw_learning_curves(data)
    assert [axes.get_title() for axes in picture.axes] == ["(a)   narrow"]
    for k, axes in enumerate(picture.axes):
        assert curve_through(axes, data.alpha.values, data.bayes.values[k])
        means = [bars.lines[0].get_ydata() for bars in axes.containers]
        assert any(np.array_equal(x, data.ridge_mse_mean.values[k]) for x in means)
