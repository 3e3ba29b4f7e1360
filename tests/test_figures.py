"""Figures: the numbers in them, what is drawn of these, and the files."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from matplotlib._pylab_helpers import Gcf
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

import bsr_theory as bsr
from bsr_theory import figures, limits
from bsr_theory.figures import Picture, Points

Array = npt.NDArray[np.float64]


@functools.cache
def made(name: str, delta: float | None = None) -> Picture:
    """Make each figure once; tests read it and change nothing."""
    return figures.make(name, delta)


@pytest.fixture(params=[("1", 0.0), ("1", 0.1), ("2", 0.0), ("2", 0.1)])
def errors(request: pytest.FixtureRequest) -> tuple[str, Picture]:
    """Figures 1 and 2, without and with noise."""
    name, delta = request.param
    return name, made(name, delta)


@pytest.fixture
def landscape() -> Picture:
    return made("8")


def dataset(picture: Picture) -> xr.Dataset:
    assert picture.data is not None
    return picture.data


def data_of(picture: Picture) -> Any:
    """Return the data as plain arrays."""
    variables = dataset(picture).variables
    return SimpleNamespace(
        **{str(k): v.values if v.ndim else v.values.item() for k, v in variables.items()}
    )


# --------------------------------------------------------------------------------------------
# Data
# --------------------------------------------------------------------------------------------


def test_error_curves_agree_with_one_point_at_a_time(errors: tuple[str, Picture]) -> None:
    data = data_of(errors[1])
    assert data.mmse.shape == (data.beta.size, data.rho.size, data.alpha.size)
    for i, beta in enumerate(data.beta):
        for j, rho in enumerate(data.rho):
            for k in (20, 150, 390):
                alpha = data.alpha[k]
                point = bsr.solve(bsr.bilinear_regression(alpha, beta, rho, data.delta))
                assert data.mmse[i, j, k] == pytest.approx(point.mmse, rel=1e-9, abs=1e-300)
                entries = data.alpha_low_rank[k] * (1.0 + 1.0 / beta) * rho
                point = bsr.solve(bsr.bilinear_regression(entries, beta, rho, data.delta))
                assert data.mmse_low_rank[i, j, k] == pytest.approx(
                    point.mmse, rel=1e-9, abs=1e-300
                )


def test_error_curves_agree_with_closed_forms(errors: tuple[str, Picture]) -> None:
    data = data_of(errors[1])
    delta, alpha = data.delta, data.alpha
    # ridge: s = (E + delta)/alpha and E = s/(1 + s), a quadratic
    b = alpha - 1.0 + delta
    exact = (-b + np.sqrt(b * b + 4.0 * delta)) / 2.0
    np.testing.assert_allclose(data.ridge, exact, rtol=1e-9, atol=1e-14)
    assert (data.mmse <= data.ridge + 1e-12).all()
    # infinitely many columns
    assert data.beta[-1] == np.inf
    for j, rho in enumerate(data.rho):
        exact = limits.solve_infinite_beta(alpha, rho, delta)
        np.testing.assert_allclose(data.mmse[-1, j], exact, rtol=1e-8, atol=1e-13)
        exact = limits.solve_infinite_beta(data.alpha_low_rank * rho, rho, delta)
        np.testing.assert_allclose(data.mmse_low_rank[-1, j], exact, rtol=1e-8, atol=1e-13)
    # small rank: beta = infinity is ridge regression at alpha_LR, and every curve lies below
    np.testing.assert_allclose(data.limit[-1], data.ridge, rtol=1e-9, atol=1e-14)
    assert (data.mmse_low_rank <= data.limit[:, None] + 1e-12).all()
    root = np.sqrt(data.beta)
    np.testing.assert_allclose(data.weak, (1.0 + delta) / (root + 1.0 / root), rtol=1e-14)
    for limit, weak in zip(data.limit, data.weak, strict=True):
        np.testing.assert_array_equal(limit == 1.0, data.alpha_low_rank <= weak)


def test_thresholds(errors: tuple[str, Picture]) -> None:
    data = data_of(errors[1])
    if data.delta:
        assert np.isinf(data.strong).all()
        assert np.isinf(data.strong_low_rank).all()
        assert (data.mmse > 0.0).all()
        return
    for i, beta in enumerate(data.beta):
        for j, rho in enumerate(data.rho):
            # as many equations as a matrix of rank r has degrees of freedom
            free = rho * (1.0 + (1.0 - rho) / beta) if rho < 1.0 else 1.0
            assert data.strong[i, j] == pytest.approx(free, rel=1e-14)
            scaled = free / ((1.0 + 1.0 / beta) * rho)
            assert data.strong_low_rank[i, j] == pytest.approx(scaled, rel=1e-14)
            np.testing.assert_array_equal(data.mmse[i, j] == 0.0, data.alpha >= data.strong[i, j])


# (beta, rho, alpha): the overlap of largest free entropy, from 30-digit arithmetic
OVERLAPS = {
    (1.0, 1.0): (0.54434, 0.97498, 0.99636),
    (1.0, 0.5): (0.43132, 0.91562, 0.97919),
    (2.0, 1.0): (0.57875, 0.99107, 0.99961),
    (2.0, 0.5): (0.24474, 0.89717, 0.97995),
}


def test_free_entropy_curves(landscape: Picture) -> None:
    data = data_of(landscape)
    assert data.error[0] == pytest.approx(1e-5)
    assert data.error[-1] == 1.0
    step = np.log(data.error[1] / data.error[0])
    for i, (beta, rho) in enumerate(zip(data.beta, data.rho, strict=True)):
        np.testing.assert_allclose(1.0 - data.mmse[i], OVERLAPS[beta, rho], atol=6e-6)
        prior = bsr.GaussianFactorPrior(beta, rho)
        for k, alpha in enumerate(data.alpha[i]):
            values, error = data.free_entropy[i, k], data.error
            # the highest point of the curve is next to the solution of state evolution
            highest = np.argmax(values)
            assert abs(np.log(error[highest] / data.mmse[i, k])) < step
            assert 0.0 <= data.maximum[i, k] - values[highest] < 1e-4
            # -I_S(qhat) + qhat error/2 - alpha log(error)/2 with qhat error = alpha constant, so
            # that its derivative by log(error) is (qhat M(1/qhat) - alpha)/2
            qhat = alpha / error
            slope = 0.5 * (qhat * prior.mmse(1.0 / qhat) - alpha)
            measured = np.gradient(values, np.log(error))
            np.testing.assert_allclose(measured[1:-1], slope[1:-1], atol=1e-4)


def test_bad_delta() -> None:
    with pytest.raises(ValueError, match=r"delta must be >= 0 and finite, got -1.0"):
        figures.figure_1(-1.0)
    with pytest.raises(ValueError, match=r"delta must be a scalar here, got shape \(2,\)"):
        figures.figure_2_data([0.0, 0.1])  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------
# What is drawn
# --------------------------------------------------------------------------------------------


def has_line(axes: Axes, x: Array, y: Array, colour: Any = None) -> bool:
    """Tell whether a line goes through all of these points, in this colour if one is given."""
    for line in axes.lines:
        at = np.asarray(line.get_xdata(), dtype=float)
        where = np.isin(at, x)
        if where.sum() != x.size or line.get_linestyle() == "None":
            continue
        if np.array_equal(np.asarray(line.get_ydata(), dtype=float)[where], y) and (
            colour is None or to_rgba(line.get_color()) == to_rgba(colour)
        ):
            return True
    return False


def legend_of(picture: Picture) -> dict[str, Any]:
    (legend,) = picture.legends
    labels = [text.get_text() for text in legend.get_texts()]
    return dict(zip(labels, legend.legend_handles, strict=True))


def test_error_figures_draw_their_data(errors: tuple[str, Picture]) -> None:
    name, picture = errors
    data = data_of(picture)
    by_beta = name == "1"
    rows, curves = (data.beta, data.rho) if by_beta else (data.rho, data.beta)
    symbol = r"\rho" if by_beta else r"\beta"
    axes = np.array(picture.axes).reshape(rows.size, 2)
    legend = legend_of(picture)
    for i in range(rows.size):
        left, right = axes[i]
        assert has_line(left, *before(data.alpha, data.ridge, 0.0 if data.delta else 1.0))
        for j, value in enumerate(curves):
            at = (i, j) if by_beta else (j, i)
            label = rf"${symbol}=" + (r"\infty$" if value == np.inf else f"{value:g}$")
            colour = legend[label].get_color()
            end = 0.0 if data.delta else data.strong[at]
            assert has_line(left, *before(data.alpha, data.mmse[at], end), colour)
            end = 0.0 if data.delta else data.strong_low_rank[at]
            x, y = before(data.alpha_low_rank, data.mmse_low_rank[at], end)
            assert has_line(right, x, y, colour)
        if by_beta:
            end = 0.0 if data.delta else 1.0
            assert has_line(right, *before(data.alpha_low_rank, data.limit[i], end))
        for panel in (left, right):
            assert panel.get_ylim()[0] == 0.0
            assert panel.get_xlim() == (0.0, data.alpha[-1])
            for line in panel.lines:  # every curve starts at error 1 without samples
                if line.get_linestyle() != "None":
                    assert (line.get_xdata()[0], line.get_ydata()[0]) == (0.0, 1.0)
        assert left.get_ylabel() == "error per entry,  $1-q$"
        number = r"\infty" if rows[i] == np.inf else f"{rows[i]:g}"
        assert any(f"={number}$" in text.get_text() for text in left.texts)
    assert "samples per entry" in axes[-1, 0].get_xlabel()
    assert r"\alpha=n/(d_1d_2)" in axes[-1, 0].get_xlabel()
    assert r"\alpha_{LR}=n/(r(d_1+d_2))" in axes[-1, 1].get_xlabel()
    assert ("perfect recovery" in legend) == (data.delta == 0.0)
    assert any(label.startswith("ridge") for label in legend)
    colours = {to_rgba(handle.get_color()) for label, handle in legend.items() if symbol in label}
    assert len(colours) >= curves.size


def before(x: Array, y: Array, end: float) -> tuple[Array, Array]:
    """Return the points below ``end`` (all of them for 0), where a curve is drawn."""
    inside = x < end if end else np.full(x.shape, True)
    return x[inside], y[inside]


def test_circles_mark_perfect_recovery() -> None:
    picture = made("1")
    data = data_of(picture)
    for i, (left, right) in enumerate(np.array(picture.axes).reshape(-1, 2)):
        for axes, places in ((left, data.strong[i]), (right, data.strong_low_rank[i])):
            circles = [line for line in axes.lines if line.get_marker() == "o"]
            assert [line.get_xdata()[0] for line in circles] == places.tolist()
            ends = [
                (line.get_xdata()[-1], line.get_ydata()[-1])
                for line in axes.lines
                if line.get_linestyle() == "-"
            ]
            assert ends == [(place, 0.0) for place in places]


def test_the_free_entropy_figure_draws_its_data(landscape: Picture) -> None:
    data = data_of(landscape)
    for i, axes in enumerate(landscape.axes):
        assert axes.get_xscale() == "log"
        assert f"={data.beta[i]:g}$" in axes.get_title()
        assert rf"\rho={data.rho[i]:g}$" in axes.get_title()
        legend = axes.get_legend()
        assert legend is not None
        labels = [text.get_text() for text in legend.get_texts()]
        assert labels == [rf"$\alpha={alpha:g}$" for alpha in data.alpha[i]]
        for k in range(3):
            relative = data.free_entropy[i, k] - data.maximum[i, k]
            assert has_line(axes, data.error, relative)
        dots = [line for line in axes.lines if line.get_marker() == "o"]
        assert [dot.get_xdata()[0] for dot in dots] == data.mmse[i].tolist()
        assert {dot.get_ydata()[0] for dot in dots} == {0.0}
    assert landscape.axes[-1].get_xlabel() == "error per entry,  $1-q$"
    assert "free entropy" in landscape.get_supylabel()


def test_a_legend_covers_no_curve(landscape: Picture) -> None:
    landscape.canvas.draw()
    for axes in landscape.axes:
        legend = axes.get_legend()
        assert legend is not None
        box = legend.get_window_extent()
        for line in axes.lines:
            x, y = axes.transData.transform(line.get_xydata()).T
            assert not ((x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1)).any()


def test_points_lie_on_both_panels() -> None:
    alpha = np.array([0.1, 0.2, 0.6])
    points = [
        Points(beta=5.0, rho=0.2, alpha=alpha, mse=[0.8, 0.4, 0.0], error=[0.01, 0.02, 0.0]),
        Points(beta=1.0, rho=0.5, alpha=0.4, mse=0.5, label="other"),
    ]
    data = dataset(made("1"))
    picture = figures.draw_figure_1(data, points)
    legend = legend_of(picture)
    axes = np.array(picture.axes).reshape(-1, 2)
    (bars,) = axes[1, 0].containers
    np.testing.assert_array_equal(bars.lines[0].get_xdata(), alpha)
    np.testing.assert_array_equal(bars.lines[0].get_ydata(), [0.8, 0.4, 0.0])
    assert to_rgba(bars.lines[0].get_color()) == to_rgba(legend[r"$\rho=0.2$"].get_color())
    lengths = [np.ptp(path[:, 1]) for path in bars.lines[2][0].get_segments()]
    np.testing.assert_allclose(lengths, [0.02, 0.04, 0.0], atol=1e-15)
    # 0.6 samples per entry are 2.5 per unknown, beyond the panel
    (scaled,) = axes[1, 1].containers
    np.testing.assert_allclose(scaled.lines[0].get_xdata(), alpha[:2] / 0.24)
    assert not axes[2, 0].containers
    assert {"GAMP-RIE", "other"} <= set(legend)
    table = data_of(picture)
    np.testing.assert_array_equal(table.point_alpha, [0.1, 0.2, 0.6, 0.4])
    np.testing.assert_array_equal(table.point_error, [0.01, 0.02, 0.0, np.nan])
    assert table.point_label.tolist() == ["GAMP-RIE"] * 3 + ["other"]
    assert "point" not in data.dims
    more = figures.draw_figure_1(dataset(picture), [Points(5.0, 0.2, 0.3, 0.6)])
    assert data_of(more).point_mse.tolist() == [0.8, 0.4, 0.0, 0.5, 0.6]
    # figure 2 finds its own row and colour
    picture = figures.draw_figure_2(dataset(made("2")), points)
    rows = np.array(picture.axes).reshape(-1, 2)
    assert [bool(row[0].containers) for row in rows] == [False, False, True, True]
    (bars,) = rows[3, 0].containers
    expected = legend_of(picture)[r"$\beta=5$"].get_color()
    assert to_rgba(bars.lines[0].get_color()) == to_rgba(expected)


def test_bad_points() -> None:
    with pytest.raises(ValueError, match=r"mse must have the shape of alpha, \(2,\), got \(1,\)"):
        Points(beta=1.0, rho=0.5, alpha=[0.1, 0.2], mse=[0.5])
    with pytest.raises(ValueError, match=r"error must have the shape of alpha"):
        Points(beta=1.0, rho=0.5, alpha=[0.1, 0.2], mse=[0.5, 0.4], error=[0.1])
    stray = Points(beta=3.0, rho=0.5, alpha=0.1, mse=0.5)
    for draw, name in ((figures.draw_figure_1, "1"), (figures.draw_figure_2, "2")):
        with pytest.raises(ValueError, match=r"points must lie on a curve .*got beta 3, rho 0.5"):
            draw(dataset(made(name)), [stray])


def test_draw_curve() -> None:
    alpha, mmse, ridge = np.array([0.1, 1.0, 10.0]), np.array([0.8, 0.4, 0.1]), np.full(3, 0.9)
    (axes,) = figures.draw_curve(alpha, mmse, ridge, title="t", log=True).axes
    assert axes.get_xscale() == "log"
    assert has_line(axes, alpha, mmse)
    assert has_line(axes, alpha, ridge)
    (axes,) = figures.draw_curve([0.2], [0.5], [0.6]).axes
    assert axes.get_xscale() == "linear"
    assert {line.get_marker() for line in axes.lines} == {"o"}  # one point is no line


# --------------------------------------------------------------------------------------------
# Style
# --------------------------------------------------------------------------------------------


def test_the_style_of_the_user_changes_nothing_and_is_left_alone(tmp_path: Path) -> None:
    def draw(name: str) -> None:
        picture = figures.draw_curve([0.1, 1.0, 10.0], [0.8, 0.4, 0.1], [0.9, 0.6, 0.2], log=True)
        figures.save(picture, tmp_path / name, dpi=50)

    draw("plain.png")
    with mpl.rc_context({"text.usetex": True, "font.size": 30.0, "lines.linewidth": 9.0}):
        draw("other.png")
        assert mpl.rcParams["font.size"] == 30.0
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "other.png").read_bytes()
    assert Gcf.get_all_fig_managers() == []  # nothing left open in pyplot


def test_a_window_has_the_style_too() -> None:
    def pixels(name: str) -> Array:
        canvas = FigureCanvasAgg(figures.FIGURES[name].draw(dataset(made(name))))
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())

    plain = pixels("8")
    with mpl.rc_context({"xtick.labelsize": 20.0, "mathtext.fontset": "cm"}):
        np.testing.assert_array_equal(pixels("8"), plain)


def test_a_notebook_shows_the_picture(landscape: Picture) -> None:
    assert landscape._repr_png_().startswith(b"\x89PNG")


def test_columns_are_wide_enough_for_print() -> None:
    assert figures.draw_curve([0.1, 0.2], [1, 0], [1, 1]).get_size_inches()[0] == 3.4
    assert made("8").get_size_inches()[0] == 6.8
    with mpl.rc_context(fname=figures.STYLE):
        for key in ("font.size", "axes.labelsize", "xtick.labelsize", "legend.fontsize"):
            assert mpl.rcParams[key] >= 8.0
        assert mpl.rcParams["text.usetex"] is False


# --------------------------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------------------------


PHASES = [name for name in figures.FIGURES if name.startswith("phases-")]
THEORY = [k for k, recipe in figures.FIGURES.items() if not recipe.simulated and k not in PHASES]


@pytest.mark.parametrize("name", THEORY)
def test_data_beside_the_picture_draws_it_again(name: str, tmp_path: Path) -> None:
    picture = figures.FIGURES[name].draw(dataset(made(name)))
    path, beside = figures.save(picture, tmp_path / "new" / "one.png", dpi=50)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 10_000

    data = figures.load(beside)
    xr.testing.assert_identical(data, dataset(picture))
    origin = json.loads(data.attrs["provenance"])
    assert origin["package"] == bsr.__version__
    assert {"numpy", "numba", "scipy", "matplotlib"} <= set(origin["versions"])
    again, _ = figures.save(figures.FIGURES[name].draw(data), tmp_path / "two.png", dpi=50)
    assert again.read_bytes() == path.read_bytes()


def test_points_are_kept_beside_the_picture(tmp_path: Path) -> None:
    points = Points(beta=np.inf, rho=0.2, alpha=[0.1, 0.2], mse=[0.5, 0.4], error=[0.01, 0.02])
    bare = Points(beta=1.0, rho=0.2, alpha=[0.1], mse=[0.5], label="bare")
    picture = figures.draw_figure_1(dataset(made("1")), [points, bare])
    _, beside = figures.save(picture, tmp_path / "figure.svg")
    table = figures.load(beside)
    np.testing.assert_array_equal(table.point_beta, [np.inf, np.inf, 1.0])
    assert table.point_label.values.tolist() == ["GAMP-RIE", "GAMP-RIE", "bare"]
    np.testing.assert_array_equal(table.point_error, [0.01, 0.02, np.nan])
    again, _ = figures.save(figures.draw_figure_1(table), tmp_path / "again.svg")
    assert again.read_bytes() == (tmp_path / "figure.svg").read_bytes()


@pytest.mark.parametrize("suffix", ["pdf", "svg"])
def test_vector_files_do_not_depend_on_the_day(suffix: str, tmp_path: Path) -> None:
    picture = figures.draw_curve([0.1, 0.2], [0.9, 0.8], [0.95, 0.9])
    one, two = tmp_path / f"one.{suffix}", tmp_path / f"two.{suffix}"
    assert figures.save(picture, one) == (one,)  # a curve carries no data of its own
    figures.save(picture, two)
    assert one.read_bytes() == two.read_bytes()
    assert b"CreationDate" not in one.read_bytes()
    assert b"<dc:date>" not in one.read_bytes()


def test_save_any_figure_with_data(tmp_path: Path) -> None:
    data = dataset(made("8"))
    _, beside = figures.save(Figure(), tmp_path / "empty.png", data)
    np.testing.assert_array_equal(figures.load(beside).mmse, data.mmse)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path must end in .*got '.*figure.doc'"):
        figures.save(Figure(), tmp_path / "figure.doc")
    (tmp_path / "x.nc").write_text("[]")
    with pytest.raises(ValueError, match=r"path must name the data of a figure .*x.nc"):
        figures.load(tmp_path / "x.nc")
    with pytest.raises(FileNotFoundError):
        figures.load(tmp_path / "none.nc")


def test_make() -> None:
    assert data_of(made("1", 0.1)).delta == 0.1
    points = Points(beta=1.0, rho=0.5, alpha=0.4, mse=0.5)
    for figure in (figures.figure_1, figures.figure_2):
        assert data_of(figure(points=[points])).point_mse.tolist() == [0.5]
    with pytest.raises(ValueError, match=r"figure must be one of 1, 2, 3.*, got '99'"):
        figures.make("99")
    with pytest.raises(ValueError, match=r"delta cannot be chosen for figure 8, got 0.1"):
        figures.make("8", 0.1)
    with pytest.raises(ValueError, match=r"beta cannot be chosen for figure 1, got 2"):
        figures.make("1", beta=2.0)
    with pytest.raises(ValueError, match=r"beta must be >= 1 and finite"):
        figures.make("3", beta=np.inf)


# --------------------------------------------------------------------------------------------
# Runs of finite size
# --------------------------------------------------------------------------------------------


class Counting:
    """Stands for `compare`: counts calls, and takes few and small instances."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.stop_at = ""

    def __call__(self, problem: bsr.Problem, estimator: str, **options: Any) -> xr.Dataset:
        if self.stop_at and Path(options["path"]).stem == self.stop_at:
            raise KeyboardInterrupt
        self.calls.append(estimator)
        small = {"d1": 10, "samples": 2, "executor": "serial"}
        small |= {"steps": min(options.get("steps", 30), 30)}
        return bsr.simulations.compare(problem, estimator, **{**options, **small})


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    stand_in = Counting()
    monkeypatch.setattr(figures.finite_size, "compare", stand_in)
    return stand_in


RUNS = {"3": {"gamp", "steps"}, "5": {"runs"}, "6": {"average"}, "7": {"narrow", "wide", "least"}}


@pytest.mark.filterwarnings("ignore::bsr_theory.ConvergenceWarning")
@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("delta", [0.0, 0.1])
def test_figures_with_runs(name: str, delta: float, counting: Counting, tmp_path: Path) -> None:
    place = tmp_path / f"{name}.png"
    picture = figures.make(name, delta, 2.0, fast=True, path=place)
    data = data_of(picture)
    assert (data.beta, data.delta) == (2.0, delta)
    for at in ((0, 40), (-1, 200)):
        problem = bsr.bilinear_regression(data.alpha[at[1]], 2.0, data.rho[at[0]], delta)
        assert data.mmse[at] == pytest.approx(bsr.solve(problem).mmse, rel=1e-9, abs=1e-300)
    ticks = [line for axes in picture.axes for line in axes.lines]
    for run in RUNS[name]:
        means = np.nanmean(getattr(data, f"{run}_mse"), axis=-1)
        np.testing.assert_allclose(getattr(data, f"{run}_mse_mean"), means, rtol=1e-12)
        if run in ("steps", "least"):
            continue
        drawn = [bars.lines[0].get_xydata() for axes in picture.axes for bars in axes.containers]
        for k, row in enumerate(means):
            expected = np.stack([getattr(data, f"{run}_alpha"), row], axis=1)
            assert any(np.array_equal(xy, expected) for xy in drawn), (run, k)
    assert len(ticks) > 5
    # saved and made again: nothing runs, the picture is the same
    calls = len(counting.calls)
    written, beside = figures.save(picture, place, dpi=40)
    assert not beside.with_suffix(".parts").exists()
    again = figures.make(name, delta, 2.0, fast=True, path=place)
    assert len(counting.calls) == calls
    second, _ = figures.save(again, tmp_path / "again.png", dpi=40)
    assert second.read_bytes() == written.read_bytes()


def test_other_parameters_or_other_code_make_a_figure_anew(
    counting: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "5.png"
    figures.save(figures.make("5", fast=True, path=place), place, dpi=40)
    assert len(counting.calls) == 1
    figures.make("5", 0.1, fast=True, path=place)
    assert len(counting.calls) == 2
    figures.make("5", 0.1, fast=True, path=place)
    assert len(counting.calls) == 2
    monkeypatch.setattr(figures.registry, "code_fingerprint", lambda: "other")
    figures.make("5", 0.1, fast=True, path=place)
    assert len(counting.calls) == 3


def test_an_interrupted_figure_goes_on(counting: Counting, tmp_path: Path) -> None:
    place = tmp_path / "3.png"
    counting.stop_at = "steps"
    with pytest.raises(KeyboardInterrupt):
        figures.make("3", fast=True, path=place)
    kept = tmp_path / "3.parts" / "gamp.nc"
    first = kept.stat().st_mtime_ns
    with xr.open_dataset(kept, engine="h5netcdf") as stored:
        seconds = stored.seconds.values
    counting.stop_at = ""
    picture = figures.make("3", fast=True, path=place)
    np.testing.assert_array_equal(data_of(picture).gamp_seconds, seconds)  # not run again
    assert first and not kept.parent.exists()


def test_what_is_left_of_other_runs_is_in_nobodys_way(
    counting: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "3.png"
    counting.stop_at = "steps"
    for delta in (0.0, 0.1):  # other parameters
        with pytest.raises(KeyboardInterrupt):
            figures.make("3", delta, fast=True, path=place)
    with monkeypatch.context() as other:  # other code
        other.setattr(figures.registry, "code_fingerprint", lambda: "other")
        with pytest.raises(KeyboardInterrupt):
            figures.make("3", 0.1, fast=True, path=place)
    assert counting.calls == ["amp"] * 3


def test_thresholds_of_figure_4() -> None:
    data = dataset(made("4"))
    for beta, rho, expected in ((1.0, 0.2, 0.5716899213), (2.0, 0.5, 0.8284921266)):
        found = data.nuclear_norm.sel(beta=beta).sel(rho=rho, method="nearest")
        assert float(found.rho) == pytest.approx(rho, abs=1e-12)
        assert float(found) == pytest.approx(expected, abs=1e-9)
    np.testing.assert_allclose(
        data.nuclear_norm.sel(beta=np.inf), np.where(data.rho < 1, data.rho * (2 - data.rho), 1.0)
    )
    axes = made("4").axes[0]
    assert has_line(axes, data.rho.values, data.bayes.values[0])
    assert has_line(axes, data.rho.values, data.nuclear_norm.values[1])


@pytest.mark.parametrize("name", PHASES)
def test_phase_diagrams(name: str) -> None:
    data = figures.phase_diagram_data(name.removeprefix("phases-"), size=12)
    picture = figures.FIGURES[name].draw(data)
    left, right = picture.axes[:2]
    vertical, horizontal = data.phase.dims
    assert horizontal == "alpha"
    assert "samples per entry" in left.get_xlabel()
    assert {"rho": "width", "delta": "noise", "beta": "aspect"}[str(vertical)] in left.get_ylabel()
    for axes in (left, right):
        assert axes.get_xlim() == (data.alpha[0], data.alpha[-1])
    (legend,) = picture.legends
    labels = {text.get_text() for text in legend.get_texts()}
    seen = {["easy", "hard", "impossible"][code] for code in np.unique(data.phase.values)}
    assert seen <= labels
    drawn = {"strong_recovery": "perfect recovery", "weak_recovery": "weak recovery"}
    for threshold, label in drawn.items():
        values = data[threshold].values
        inside = (values > data.alpha.values[0]) & (values < data.alpha.values[-1])
        assert (label in labels) == inside.any()
        if inside.any():
            lines = [np.asarray(line.get_xdata(), dtype=float) for line in left.lines]
            assert any(np.array_equal(x[inside], values[inside]) for x in lines if x.size == 12)
    # every pixel is a solution
    at = {"alpha": 8, str(vertical): 5}
    pixel = data.isel(at)
    with pytest.raises(ValueError, match=r"quantity must be one of mmse_algorithm"):
        figures.draw_phase_diagram(data, "free_entropy")
    with pytest.raises(ValueError, match=r"name must be one of abs, .*got 'none'"):
        figures.phase_diagram_data("none")
    assert 0.0 <= float(pixel.mmse_bayes) <= float(pixel.mmse_algorithm) + 1e-12 <= 1.0 + 2e-12


def test_means_of_runs_become_points() -> None:
    problem = bsr.bilinear_regression([0.2, 0.4], 1.0, [[0.5], [1.0]])
    runs = bsr.simulations.compare(problem, "ridge", d1=10, samples=3, rng=0, executor="serial")
    points = Points.from_runs(runs, "ridge")
    assert [(p.beta, p.rho, p.label) for p in points] == [(1.0, 0.5, "ridge"), (1.0, 1.0, "ridge")]
    for k, item in enumerate(points):
        np.testing.assert_array_equal(item.alpha, [0.2, 0.4])
        np.testing.assert_array_equal(item.mse, runs.mse_mean.values[k])
        np.testing.assert_array_equal(item.error, runs.mse_error.values[k])
    scalar = Points.from_runs(runs.isel(rho=0))
    assert len(scalar) == 1 and scalar[0].rho == 0.5


def test_a_curve_of_a_channel_with_a_hard_phase() -> None:
    alpha, bayes, reached = np.array([0.2, 0.4]), np.array([0.9, 0.0]), np.array([0.9, 0.8])
    picture = figures.draw_curve(alpha, bayes, algorithm=reached)
    (axes,) = picture.axes
    assert has_line(axes, alpha, bayes) and has_line(axes, alpha, reached)
    assert list(legend_of(picture)) == ["Bayes-optimal", "message passing"]
