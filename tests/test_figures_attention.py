"""The figure of attention weights: theory against closed forms, runs against theory, drawing."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer

import bsr_theory as bsr
from bsr_theory.figures import attention
from bsr_theory.figures.attention import bridge_data, draw_bridge


@pytest.fixture(scope="module")
def data() -> xr.Dataset:
    return bridge_data(fast=True, executor="serial", progress=False)


class TestTheory:
    def test_linear_estimators(self, data: xr.Dataset) -> None:
        x = data.equations.values
        clean, noisy = (data.sel(delta=delta) for delta in (0.0, 0.1))
        np.testing.assert_allclose(clean.fit, np.maximum(1.0 - x, 0.0), atol=1e-12)
        np.testing.assert_allclose(clean.ridge, np.maximum(1.0 - x, 0.0), atol=1e-12)
        # the noise that interpolation takes for signal
        few = x[x < 1.0]
        least = 1.0 - few + 0.1 * few / (1.0 - few)
        np.testing.assert_allclose(noisy.fit[: few.size], least, rtol=1e-9)
        assert np.isnan(noisy.fit[few.size :]).all()
        # E = (delta + E)/(delta + E + x)
        b = 0.1 + x - 1.0
        best = 0.5 * (np.sqrt(b * b + 0.4) - b)
        np.testing.assert_allclose(noisy.ridge, best, rtol=1e-10)

    def test_bayes(self, data: xr.Dataset) -> None:
        rho, x = float(data.rho), data.equations.values
        clean = data.amp.sel(delta=0.0).values
        assert np.array_equal(clean == 0.0, x >= rho * (2.0 - rho) - 1e-12)
        for delta in (0.0, 0.1):
            linear = bsr.solve(bsr.bilinear_regression(x, 1.0, rho, delta)).mmse
            np.testing.assert_allclose(data.amp.sel(delta=delta), linear, rtol=1e-9, atol=1e-15)
            assert (data.amp <= data.ridge + 1e-12).all()


class TestRuns:
    def test_projection(self, data: xr.Dataset) -> None:
        """Without noise the fit is a projection, that loses a share 1 - alpha K of S."""
        clean = data.sel(delta=0.0)
        share = (clean.fit_mse / clean.signal).mean("run_sample")
        lost = np.maximum(1.0 - share.run_equations, 0.0)
        np.testing.assert_allclose(share, lost.broadcast_like(share), atol=0.04)
        np.testing.assert_allclose(clean.fit_mse, clean.ridge_mse, atol=1e-6)

    @pytest.mark.parametrize("name", ["amp", "ridge", "fit"])
    def test_theory(self, data: xr.Dataset, name: str) -> None:
        theory = data[name].interp(equations=data.run_equations)
        ratio = data[f"{name}_mse"] / data.signal
        error = ratio.std("run_sample", ddof=1) / np.sqrt(ratio.sizes["run_sample"])
        far = abs(ratio.mean("run_sample") - theory) - 4.0 * error
        assert np.isfinite(ratio).all()
        known = np.isfinite(theory) & (data.run_equations < 0.9)
        assert float(far.where(known).max()) < 0.06
        assert int(known.sum()) == 6

    @pytest.mark.parametrize("delta", [0.0, 0.3])
    def test_ridge_against_dense_least_squares(self, delta: float) -> None:
        problem = bsr.attention.cross_attention(0.2, 1.5, 0.5, 2, 3, delta)
        instance = bsr.attention.sample(problem, d1=6, rng=0)
        rows, told = [], []
        for z, x, y in zip(instance.queries, instance.keys, instance.y, strict=True):
            rows.append(np.kron(z, x - x.mean(axis=0)))
            told.append((np.log(y) - np.log(y).mean(axis=1, keepdims=True)).ravel())
        M = np.concatenate(rows) / np.sqrt(instance.S.size)
        entries = instance.S.size
        # a penalty is more rows; least squares of least norm without
        M = np.concatenate([M, np.sqrt(delta) * np.eye(entries)])
        best = np.linalg.lstsq(M, np.concatenate([*told, np.zeros(entries)]))[0]
        found = attention._ridge(instance, delta).ravel()
        np.testing.assert_allclose(found, best, atol=1e-7)

    def test_one_instance_for_all(self) -> None:
        place = {"delta": 0.1, "tokens": "1x2", "equations": 0.5, "sample_index": 1}
        found = [
            attention._measure(beta=1.5, d1=10, estimator=name, **place)  # type: ignore[arg-type]
            for name in ("amp", "ridge", "ridge", "fit")
        ]
        assert len({run["signal"] for run in found}) == 1
        assert found[1] == found[2]
        assert found[0]["mse"] != found[1]["mse"] != found[3]["mse"]


def bars(axes: Axes) -> list[np.ndarray]:
    """Return the points of every set of runs, shape (k, 2)."""
    return [
        np.column_stack([c.lines[0].get_xdata(), c.lines[0].get_ydata()])
        for c in axes.containers
        if isinstance(c, ErrorbarContainer)
    ]


class TestPicture:
    def test_panels(self, data: xr.Dataset) -> None:
        picture = draw_bridge(data)
        clean, noisy = picture.axes
        assert (len(bars(clean)), len(bars(noisy))) == (4, 6)
        shown = bars(noisy)[-1]  # message passing, more tokens
        runs = data.amp_mse.sel(delta=0.1, tokens="2x3")
        np.testing.assert_array_equal(shown[:, 0], data.run_equations)
        np.testing.assert_array_equal(shown[:, 1], runs.mean("run_sample"))
        curve = noisy.lines[0].get_ydata()
        assert curve[0] == 1.0
        assert np.isnan(curve[-1])  # no line across the pole
        assert 1.0 < np.nanmax(curve) <= noisy.get_ylim()[1] < 2.0
        assert r"\Delta" not in clean.get_title()
        assert r"\Delta=0.1" in noisy.get_title()
        assert len(picture.legends[0].get_texts()) == 5

    def test_one_panel(self, data: xr.Dataset) -> None:
        assert len(draw_bridge(data.isel(delta=[0])).axes) == 1

    def test_written(self, data: xr.Dataset, tmp_path) -> None:  # type: ignore[no-untyped-def]
        bsr.figures.save(draw_bridge(data), tmp_path / "bridge.png")
        assert (tmp_path / "bridge.png").stat().st_size > 10_000
        xr.testing.assert_allclose(bsr.figures.load(tmp_path / "bridge.nc"), data)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"delta": -0.1}, "delta must be"),
        ({"delta": np.inf}, "delta must be"),
        ({"beta": 0.5}, "beta must be"),
        ({"beta": np.inf}, "beta must be"),
    ],
)
def test_bad_input(arguments: dict[str, float], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        bridge_data(fast=True, **arguments)  # type: ignore[arg-type]


def test_one_curve_for_every_number_of_tokens() -> None:
    data = attention.collapse_data(fast=True)
    for row in data.mmse.values:
        np.testing.assert_allclose(row, data.mmse.values[0], rtol=1e-9, atol=1e-12)
    # the quadratic network, from the denoising problem alone: M(s) = 2 alpha s without noise
    prior = bsr.SymmetricFactorPrior(0.5)
    k = 40
    error, alpha = float(data.mmse[0, k]), float(data.equations[k])
    assert float(prior.mmse(error / (2.0 * alpha))) == pytest.approx(error, rel=1e-9)
    # runs of every number of tokens lie on it, up to their size
    at = np.interp(data.run_equations, data.equations, data.mmse.values[0])
    mean = data.mse.mean("run_sample")
    spread = data.mse.std("run_sample", ddof=1) / np.sqrt(data.sizes["run_sample"])
    assert (abs(mean - at) < 4.0 * spread + 3.0 / 40).all()
    assert (mean[:, 0] > 0.6).all() and (mean[:, -1] < 1e-6).all()
    picture = attention.draw_collapse(data)
    left, right = picture.axes
    for j, tokens in enumerate((1, 2, 3)):
        K = (1, 2, 5)[j]
        bars = [axes.containers[j].lines[0].get_xydata() for axes in (left, right)]
        np.testing.assert_allclose(bars[0][:, 0], data.run_equations / K)
        np.testing.assert_array_equal(bars[1][:, 0], data.run_equations)
        np.testing.assert_array_equal(bars[0][:, 1], mean.sel(tokens=tokens))
        assert left.lines[0].get_ydata()[0] == 1.0
