"""The commands on channels, thresholds, phase diagrams, estimators and simulations."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import as_json, bsr_run, strict_json

import bsr_theory as bsr
from bsr_theory import cli, limits
from bsr_theory.results import read_dataset

ABS = "--channel abs --beta 1 --rho 0.2"
CHANNELS = {
    "linear": bsr.GaussianChannel(0.1),
    "sign": bsr.SignChannel(0.1),
    "abs": bsr.AbsChannel(0.1),
    "relu": bsr.ReLUChannel(0.1),
    "logistic --gain 3": bsr.LogisticChannel(3.0),
    "quantized --levels -0.5,1": bsr.QuantizedChannel((-0.5, 1.0), 0.1),
}
PRIOR = bsr.GaussianFactorPrior(2.0, 0.5)


def with_channel(name: str) -> str:
    noise = "" if name.startswith("logistic") else " --delta 0.1"
    return f"--channel {name} --beta 2 --rho 0.5{noise}"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def table_of(text: str) -> dict[str, list[str]]:
    """Read an aligned table, whose columns end or begin where their names do."""
    header, *lines = text.splitlines()
    words = [line.split() for line in lines]
    assert {len(row) for row in words} == {len(header.split())}
    for line in lines:  # numbers end under the end of their name
        for match in re.finditer(r"\S+", header):
            if match.group() not in ("status", "failures"):
                assert line[match.end() - 1] != " "
                assert line[match.end() : match.end() + 1] in (" ", "")
    return dict(zip(header.split(), zip(*words, strict=True), strict=True))


# --------------------------------------------------------------------------------------------
# Channels
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHANNELS)
def test_solve_knows_every_channel(name: str) -> None:
    problem = bsr.Problem(PRIOR, CHANNELS[name], 0.6)
    point = bsr.solve(problem)
    stored = as_json(f"solve --alpha 0.6 {with_channel(name)}")
    assert stored["channel"] == name.split()[0]
    solution = stored["solution"]
    for field in ("mmse", "q", "qhat", "information", "generalization_error"):
        assert solution[field] == pytest.approx(getattr(point, field), rel=1e-12), field
    linear = name == "linear"
    assert ("ridge" in solution) == ("strong_recovery" in solution) == linear
    assert ("mmse_algorithm" in solution) == (not CHANNELS[name].single_fixed_point)


def test_parameters_of_a_channel_are_named_in_every_format() -> None:
    line = "curve --alpha 0.3,0.6 --beta 2 --rho 0.5 --channel quantized --levels -0.5,1"
    expected = {"beta": 2.0, "rho": 0.5, "delta": 0.0, "levels": [-0.5, 1.0]}
    assert as_json(line)["parameters"] == expected
    first, _ = rows_of(bsr_run(f"{line} --format csv").stdout)
    assert (first["channel"], first["levels"], first["delta"]) == ("quantized", "-0.5 1", "0.0")
    assert "gain = 1" in bsr_run("solve --alpha 1 --beta 2 --rho 0.5 --channel logistic").stdout
    text = bsr_run("thresholds --beta 2 --rho 0.5 --channel quantized").stdout
    assert text.startswith("channel = quantized, beta = 2, rho = 0.5, delta = 0, levels = -1 0 1;")


@pytest.mark.parametrize(
    ("alpha", "phase", "mmse", "reached"),
    [
        (0.3, "impossible", 1.0, 1.0),  # below the number of degrees of freedom, 1 - 0.8^2
        (0.45, "hard", 0.0, 1.0),  # perfect recovery, but the start is stable up to 1/2
        (0.7, "easy", 0.0, 0.0),
    ],
)
def test_solve_tells_the_phase(alpha: float, phase: str, mmse: float, reached: float) -> None:
    line = f"solve --alpha {alpha} {ABS}"
    solution = as_json(line)["solution"]
    assert (solution["phase"], solution["mmse"]) == (phase, mmse)
    assert solution["mmse_algorithm"] == reached
    text = bsr_run(line).stdout
    assert re.search(rf"^phase +{phase} +{re.escape(cli._PHASES[phase])}$", text, re.M)


def test_an_unsolved_point_has_no_phase() -> None:
    line = "solve --alpha 0.2 --beta 2 --rho 0.5 --tolerance 1e-30 --format json"
    assert "phase" not in strict_json(bsr_run(line, exit_code=1).stdout)["solution"]


def test_fixed_points_of_a_channel_with_several() -> None:
    every = bsr.fixed_points(bsr.Problem(bsr.GaussianFactorPrior(1.0, 0.2), bsr.AbsChannel(), 0.55))
    assert every.count == 4
    stored = as_json(f"fixed-points --alpha 0.55 {ABS}")
    assert stored["channel"] == "abs"
    assert stored["parameters"] == {"alpha": 0.55, "beta": 1.0, "rho": 0.2, "delta": 0.0}
    assert stored["columns"]["mmse"] == every.mmse.tolist()
    assert stored["columns"]["stable"] == every.stable.tolist()


def test_curve_of_a_channel() -> None:
    alpha = np.linspace(0.45, 0.7, 6)
    shown = table_of(bsr_run(f"curve --alpha 0.45:0.7:6 {ABS}").stdout)
    assert list(shown) == [
        *("alpha", "alpha_LR", "mmse", "mmse_algorithm", "q", "qhat", "generalization_error"),
        "status",
    ]
    point = bsr.solve(bsr.Problem(bsr.GaussianFactorPrior(1.0, 0.2), bsr.AbsChannel(), alpha))
    for name in ("mmse", "generalization_error"):
        values = np.array(shown[name], dtype=float)
        np.testing.assert_allclose(values, getattr(point, name), rtol=1e-7)
    # message passing rests at the stable fixed point of largest error
    for a, value in zip(alpha, shown["mmse_algorithm"], strict=True):
        every = as_json(f"fixed-points --alpha {float(a)!r} {ABS}")["columns"]
        stable = np.array(every["mmse"])[every["stable"]]
        assert float(value) == pytest.approx(stable.max(), rel=1e-7)

    shown = table_of(bsr_run("curve --alpha 0.5,1 --beta 2 --rho 0.5 --channel sign").stdout)
    assert "mmse_algorithm" not in shown
    assert "ridge" not in shown


def test_a_long_curve_of_a_channel_is_solved_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = cli._read_model(beta=1.0, rho=0.2, delta=0.0, channel="abs")
    alpha = np.linspace(0.3, 0.7, 9)
    whole, status = cli._follow(alpha, model, 1e-11)
    monkeypatch.setattr(cli, "_LONG", 9)
    monkeypatch.setattr(cli, "_PART", 4)
    parts, same = cli._follow(alpha, model, 1e-11)
    np.testing.assert_array_equal(same, status)
    for name in ("mmse", "mmse_algorithm", "generalization_error"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-9)


# --------------------------------------------------------------------------------------------
# thresholds
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHANNELS)
def test_thresholds(name: str) -> None:
    found = bsr.thresholds(PRIOR, CHANNELS[name])
    line = f"thresholds {with_channel(name)}"
    stored = as_json(line)["thresholds"]
    (row,) = rows_of(bsr_run(f"{line} --format csv").stdout)
    for field in cli._THRESHOLDS:
        value = getattr(found, field)
        np.testing.assert_equal(float(stored[field]), value)
        np.testing.assert_equal(float(row[field]), value)
    assert list(cli._THRESHOLDS) == [x for x in vars(found) if x != "status"]


def test_thresholds_agree_with_closed_forms() -> None:
    def value(line: str, name: str) -> float:
        return float(as_json(f"thresholds {line}")["thresholds"][name])

    for beta, rho in [(1.0, 0.2), (3.0, 0.5), (np.inf, 0.5)]:
        freedom = limits.strong_recovery(beta, rho)  # degrees of freedom per entry
        model = f"--beta {beta} --rho {rho}"
        assert value(model, "strong_recovery") == pytest.approx(freedom, rel=1e-12)
        twice = value(f"{model} --channel relu", "strong_recovery")  # half the labels are 0
        assert twice == pytest.approx(2.0 * freedom, rel=1e-12)
        assert value(f"{model} --delta 0.1", "strong_recovery") == np.inf
    # |h| close to q = 0: precision is 2 q, and the overlap is q = qhat
    assert value(f"{ABS} --delta 0", "weak_recovery") == pytest.approx(0.5, rel=1e-9)


def test_thresholds_in_words() -> None:
    def shown(line: str) -> dict[str, tuple[str, str]]:
        text = bsr_run(f"thresholds {line}").stdout
        return {x[0]: (x[1], x[2]) for x in re.findall(r"^(\w+) +(\S+) +(.+)$", text, re.M)}

    lines = shown("--beta 2 --rho 0.5 --delta 0.1")
    assert lines["weak_recovery"] == ("0", "the first labels teach something")
    assert lines["algorithmic"] == ("-", "does not exist: there is no first-order transition")
    assert lines["strong_recovery"][0] == "inf"
    assert lines["strong_recovery"][1].startswith("no number of labels")
    lines = shown(ABS)
    assert lines["weak_recovery"] == ("0.5", "from here on message passing learns something")
    assert lines["algorithmic"][1] == "from here on message passing is Bayes-optimal"
    # just below and above it, message passing is and is not behind the Bayes-optimal estimator
    algorithmic = float(lines["algorithmic"][0])
    phases = [
        as_json(f"solve --alpha {algorithmic * factor} {ABS}")["solution"]["phase"]
        for factor in (0.9999, 1.0001)
    ]
    assert phases == ["hard", "easy"]


# --------------------------------------------------------------------------------------------
# phase-diagram
# --------------------------------------------------------------------------------------------

PLANE = "phase-diagram --channel abs --beta 1"


def test_phase_diagram(here: Path) -> None:
    result = bsr_run(f"{PLANE} --x alpha=0.1:0.9:5 --y rho=0.1,0.3 --output new/plane.nc")
    assert (result.stdout, result.stderr) == ("", "wrote new/plane.nc\n")
    data = read_dataset(here / "new/plane.nc")
    assert data.phase.dims == ("rho", "alpha")
    assert data.alpha.values.tolist() == np.linspace(0.1, 0.9, 5).tolist()
    for rho in (0.1, 0.3):
        for alpha in data.alpha.values.tolist():
            pixel = data.sel(alpha=alpha, rho=rho)
            line = f"solve --alpha {alpha} --beta 1 --rho {rho} --channel abs"
            solution = as_json(line)["solution"]
            assert float(pixel.mmse_bayes) == pytest.approx(solution["mmse"], rel=1e-9)
            assert list(cli._PHASES)[int(pixel.phase)] == solution["phase"]


def test_the_axis_x_is_the_horizontal_one(here: Path) -> None:
    axes = {"alpha": "alpha=0.1:0.9:4", "rho": "rho=0.1:0.7:3"}
    for x, y in [("alpha", "rho"), ("rho", "alpha")]:
        bsr_run(f"{PLANE} --x {axes[x]} --y {axes[y]} --output {x}.nc")
        assert read_dataset(here / f"{x}.nc").mmse_bayes.dims == (y, x)
    one, other = (read_dataset(here / f"{x}.nc") for x in axes)
    np.testing.assert_array_equal(one.phase.values, other.phase.values.T)
    assert one.mmse_algorithm.values.std() > 0.1

    drawn: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        draw = bsr.figures.draw_phase_diagram
        patch.setattr(
            bsr.figures, "draw_phase_diagram", lambda *a: drawn.append(draw(*a)) or drawn[-1]
        )
        line = f"{PLANE} --x {axes['rho']} --y {axes['alpha']} --plot plane.png"
        result = bsr_run(f"{line} --quantity generalization_error_bayes")
    assert result.stderr == "wrote plane.png\nwrote plane.nc\n"
    assert (here / "plane.png").read_bytes().startswith(b"\x89PNG")
    left, _, bar = drawn[0].axes
    assert left.get_xlabel().startswith("width")
    assert left.get_ylabel().startswith("samples")
    assert bar.get_ylabel() == "Bayes-optimal test error"


def test_phase_diagram_with_alpha_fixed(here: Path) -> None:
    line = "phase-diagram --x beta=1:3:3 --y delta=0,0.1 --alpha 0.4 --rho 0.5 --output fixed.nc"
    bsr_run(line)
    data = read_dataset(here / "fixed.nc")
    assert data.mmse_bayes.dims == ("delta", "beta")
    expected = bsr.solve(
        bsr.bilinear_regression(0.4, data.beta.values, 0.5, data.delta.values[:, None])
    )
    np.testing.assert_allclose(data.mmse_bayes.values, expected.mmse, rtol=1e-9)
    assert data.attrs["alpha"] == 0.4


def test_phase_diagram_summary() -> None:
    line = f"{PLANE} --x alpha=0.1:0.9:9 --y rho=1.5,0.1,0.3"
    stored = as_json(line)
    plane = bsr.phase_diagram(
        bsr.Problem(bsr.GaussianFactorPrior(1.0, 1.0), bsr.AbsChannel()),
        alpha=np.linspace(0.1, 0.9, 9),
        rho=[0.1, 0.3, 1.5],
    )
    shares = [float((plane.phase.values == code).mean()) for code in range(3)]
    assert stored["phases"] == dict(zip(("easy", "hard", "impossible"), shares, strict=True))
    assert sum(shares) == pytest.approx(1.0)
    assert stored["parameters"] == {"beta": 1.0, "delta": 0.0}
    assert stored["axes"]["alpha"] == {"start": 0.1, "stop": 0.9, "count": 9}
    assert stored["axes"]["rho"] == {"start": 0.1, "stop": 1.5, "count": 3}  # in order
    found = stored["thresholds"]["strong_recovery"]
    assert found["smallest"] == pytest.approx(limits.strong_recovery(1.0, 0.1))
    assert (found["largest"], found["exists"]) == (1.0, 1.0)

    text = bsr_run(line).stdout
    assert text.startswith("channel = abs, beta = 1, delta = 0\nx: alpha from 0.1 to 0.9, 9 values")
    assert re.search(rf"^easy +{100 * shares[0]:.1f} %   message", text, re.M)
    assert re.search(r"^weak_recovery +0\.5 +\S+$", text, re.M)
    text = bsr_run("phase-diagram --x alpha=0.1:1:3 --y rho=0.5,1 --beta 2").stdout
    assert re.search(r"^algorithmic +does not exist", text, re.M)


def test_an_axis_without_values_has_a_range() -> None:
    stored = as_json("phase-diagram --x alpha --y beta=1,2 --rho 0.5")["axes"]
    assert stored["alpha"] == {"start": 0.005, "stop": 1.5, "count": 200}
    assert stored["beta"] == {"start": 1.0, "stop": 2.0, "count": 2}
    ends = {"alpha": (0.005, 1.5), "beta": (1.0, 5.0), "rho": (0.005, 1.5), "delta": (0.0, 0.5)}
    for name, (low, high) in ends.items():
        _, values = cli._plane_axis("x", name)
        assert (values[0], values[-1], values.size) == (low, high, 200)


def test_unsolved_pixels_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    calculate = bsr.phase_diagram

    def unsolved(*given: Any, **axes: Any) -> Any:
        data = calculate(*given, **axes)
        data.status[0, 0] = int(bsr.Status.NOT_CONVERGED)
        return data

    monkeypatch.setattr(bsr, "phase_diagram", unsolved)
    result = bsr_run(f"{PLANE} --x alpha=0.1,0.9 --y rho=0.1,0.3", exit_code=1)
    assert result.stderr.startswith("1 of 4 points not_converged: ")
    assert "easy" in result.stdout


# --------------------------------------------------------------------------------------------
# estimate
# --------------------------------------------------------------------------------------------


def test_estimate_ridge_with_the_best_penalty() -> None:
    alpha = np.array([0.2, 0.5, 2.0])
    line = "estimate ridge --alpha 0.2,0.5,2 --beta 2 --rho 0.5 --delta 0.1"
    columns = as_json(line)["columns"]
    np.testing.assert_allclose(columns["mse"], limits.ridge_mse(alpha, 0.1), rtol=1e-12)
    assert columns["lam"] == [0.1] * 3  # the noise variance
    point = bsr.solve(bsr.bilinear_regression(alpha, 2.0, 0.5, 0.1))
    np.testing.assert_allclose(columns["bayes"], point.mmse, rtol=1e-12)
    assert as_json(f"{line} --lam optimal")["columns"] == columns
    worse = as_json(f"{line} --lam 0.4")["columns"]
    assert worse["lam"] == [0.4] * 3
    assert np.all(np.array(worse["mse"]) > columns["mse"])


def test_estimate_nuclear_norm(here: Path) -> None:
    line = "estimate nuclear-norm --alpha 0.3,0.6 --beta 1 --rho 0.2"
    shown = table_of(bsr_run(f"{line} --lam 0").stdout)
    assert list(shown) == [
        *("alpha", "mse", "bayes", "lam", "rank", "nuclear_norm", "train_loss", "overlap"),
        "status",
    ]
    point = bsr.erm.nuclear_norm(bsr.bilinear_regression([0.3, 0.6], 1.0, 0.2))
    for name in ("mse", "rank", "nuclear_norm", "train_loss", "overlap"):
        values = np.array(shown[name], dtype=float)
        np.testing.assert_allclose(values, getattr(point, name), rtol=1e-7)
    # alpha = 0.6 lies above the threshold of perfect recovery
    assert (shown["mse"][1], shown["status"][1]) == ("0", "perfect_recovery")

    result = bsr_run(f"{line} --delta 0.1 --output curve.csv")
    assert (result.stdout, result.stderr) == ("", "wrote curve.csv\n")
    first, _ = rows_of((here / "curve.csv").read_text())
    best = bsr.erm.nuclear_norm(bsr.bilinear_regression(0.3, 1.0, 0.2, 0.1), lam="optimal")
    assert (float(first["mse"]), float(first["lam"])) == (best.mse, best.lam)
    assert (first["estimator"], first["delta"]) == ("nuclear-norm", "0.1")


# --------------------------------------------------------------------------------------------
# simulate
# --------------------------------------------------------------------------------------------

SMALL = "--beta 1 --rho 0.25 --d1 12 --samples 2 --workers 1"


def test_simulate_amp() -> None:
    line = f"simulate amp --alpha 0.3,0.8 {SMALL} --delta 0.1 --seed 3"
    stored = as_json(line)
    problem = bsr.bilinear_regression([0.3, 0.8], 1.0, 0.25, 0.1)
    data = bsr.simulations.compare(problem, "amp", d1=12, samples=2, rng=3, executor="serial")
    columns = stored["columns"]
    for name in ("mse_mean", "mse_error", "theory", "bayes"):
        assert columns[name] == data[name].values.tolist(), name
    point = bsr.solve(problem[0].at_size(12))
    assert columns["bayes"][0] == columns["theory"][0] == pytest.approx(point.mmse, rel=1e-12)
    assert columns["failures"] == [0, 0]
    assert stored["estimator"] == "amp"
    assert stored["parameters"] == {
        **{"beta": 1.0, "rho": 0.25, "delta": 0.1, "d1": 12, "samples": 2, "seed": 3}
    }
    shown = table_of(bsr_run(line).stdout)
    assert list(shown) == ["alpha", "mse_mean", "mse_error", "theory", "bayes", "failures"]
    other = as_json(line.replace("--seed 3", "--seed 4"))["columns"]["mse_mean"]
    assert other != columns["mse_mean"]


def test_simulate_the_others() -> None:
    for estimator, theory in [("ridge", True), ("nuclear-norm", True), ("gradient-descent", False)]:
        line = f"simulate {estimator} --alpha 0.4 {SMALL} --delta 0.1 --format csv"
        (row,) = rows_of(bsr_run(line).stdout)
        assert ("theory" in row) == ("lam" in row) == theory
        assert float(row["mse_mean"]) > float(row["bayes"]) / 3
        if estimator == "ridge":
            n = round(0.4 * 144) / 144
            assert float(row["theory"]) == pytest.approx(limits.ridge_mse(n, 0.1), rel=1e-12)
            assert float(row["lam"]) == 0.1
            (free,) = rows_of(bsr_run(f"{line} --lam 0").stdout)
            assert float(free["lam"]) == 0.0
            assert float(free["mse_mean"]) != float(row["mse_mean"])


def test_simulate_a_channel_from_a_start() -> None:
    """Labels |h| leave the estimate at 0, unless a start says which sign is meant."""
    line = f"simulate amp --channel abs --alpha 0.9 {SMALL} --format csv"
    (row,) = rows_of(bsr_run(line).stdout)
    assert (float(row["mse_mean"]), float(row["theory"])) == (pytest.approx(1.0, abs=0.6), 1.0)
    (row,) = rows_of(bsr_run(f"{line} --start 0.5").stdout)
    assert float(row["mse_mean"]) < 1e-6
    assert float(row["theory"]) == 0.0
    assert row["start"] == "0.5"


@pytest.mark.parametrize(("option", "executor"), [("", None), ("1", "serial"), ("3", 3)])
def test_workers(option: str, executor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One worker is this process itself: no time is lost with another."""
    asked: list[Any] = []
    calculate = bsr.simulations.compare

    def compare(*given: Any, **named: Any) -> Any:
        asked.append(named["executor"])
        return calculate(*given, **{**named, "executor": "serial"})

    monkeypatch.setattr(bsr.simulations, "compare", compare)
    workers = f" --workers {option}" if option else ""
    bsr_run(f"simulate ridge --alpha 0.4 {SMALL.partition(' --workers')[0]}{workers}")
    assert asked == [executor]


def test_runs_that_did_not_converge_are_counted() -> None:
    line = f"simulate averaged-gradient-descent --alpha 0.3 {SMALL} --steps 2"
    result = bsr_run(line)
    assert table_of(result.stdout)["failures"] == ("2",)
    assert result.stderr == "2 of 2 runs did not converge; --steps allows more iterations\n"


def test_simulations_are_kept_and_read_again(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = f"simulate amp --alpha 0.3,0.8 {SMALL} --delta 0.1 --seed 3 --output deep/runs.nc"
    first = bsr_run(line)
    assert first.stderr == "wrote deep/runs.nc\n"
    data = read_dataset(here / "deep/runs.nc")
    assert dict(data.mse.sizes) == {"alpha": 2, "sample": 2}
    shown = np.array(table_of(first.stdout)["mse_mean"], dtype=float)
    np.testing.assert_allclose(shown, data.mse.values.mean(axis=1), rtol=1e-7)

    def forbidden(*given: Any, **named: Any) -> None:
        raise AssertionError("the runs are there")

    monkeypatch.setattr(bsr.Problem, "sample", forbidden)
    assert bsr_run(line).stdout == first.stdout
    result = bsr_run(f"{line} --seed 1", exit_code=2)
    assert re.fullmatch(r"Error: .*deep/runs\.nc.*\n", result.stderr)


# --------------------------------------------------------------------------------------------
# How a command ends
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("thresholds --beta 0.5 --rho 1", "beta must be >= 1, got 0.5"),
        (f"thresholds {ABS} --delta nan", "delta must be >= 0 and finite, got nan"),
        (
            "thresholds --beta 1 --rho 1 --channel logistic --delta 0.1",
            "delta must be 0 for the logistic channel, got 0.1",
        ),
        (
            "thresholds --beta 1 --rho 1 --gain 2",
            "gain belongs to the logistic channel, got 2.0 for linear",
        ),
        (
            "thresholds --beta 1 --rho 1 --levels 0,1",
            "levels belong to the quantized channel, got them for linear",
        ),
        (
            "thresholds --beta 1 --rho 1 --channel quantized --levels 1,0",
            "levels must be increasing numbers such as -1,0,1, got '1,0'",
        ),
        ("thresholds --beta 1 --rho 1 --channel quantized --levels x", "levels must be .* got 'x'"),
        (
            "thresholds --beta 1 --rho 1 --channel cubic",
            "Invalid value for '--channel': 'cubic' is not one of .* See 'bsr thresholds --help'.",
        ),
        (f"solve --alpha 0 {ABS}", "alpha must be > 0 and finite, got 0.0"),
        (
            f"{PLANE} --x gain --y rho",
            "x must be one of alpha, beta, rho, delta, or NAME=RANGE, got 'gain'",
        ),
        (
            "phase-diagram --channel logistic --x alpha --y delta=0:1:2 --beta 1 --rho 1",
            "y must be one of alpha, beta, rho, or NAME=RANGE, got 'delta=0:1:2'",
        ),
        (
            "phase-diagram --channel logistic --x alpha --y rho --beta 1 --delta 1",
            "delta must be 0 for the logistic channel, got 1.0",
        ),
        (f"{PLANE} --x rho --y rho", "x and y must be different axes, got rho twice"),
        (f"{PLANE} --x alpha --y beta", "beta is an axis: it must have no value of its own"),
        (
            f"{PLANE} --x beta=1,2 --y rho=1,2".replace("--beta 1", ""),
            "Missing option '--alpha', or an axis of that name. See 'bsr phase-diagram --help'.",
        ),
        (f"{PLANE} --x alpha --y delta", "Missing option '--rho', or an axis .*"),
        (f"{PLANE} --x alpha=0:1:3 --y rho", "alpha must be > 0 and finite, got 0.0 in '0:1:3'"),
        (f"{PLANE} --x alpha=0.1:1 --y rho", "alpha must be START:STOP:COUNT.* got '0.1:1'"),
        (
            "phase-diagram --x alpha --y beta=0.5:2:3 --rho 1",
            "beta must be >= 1, got 0.5 in '0.5:2:3'",
        ),
        (f"{PLANE} --x delta=-1,1 --y rho --alpha 1", "delta must be >= 0, got -1 in '-1,1'"),
        (f"{PLANE} --x alpha=1 --y rho --plot x.png", "x must have at least 2 values to be drawn"),
        (f"{PLANE} --x alpha --y rho --plot x.doc", "path must end in .*, got 'x.doc'"),
        (
            f"{PLANE} --x alpha --y rho --output x.csv",
            "output must be a netCDF file, ending in .nc, got 'x.csv'",
        ),
        (
            f"estimate ridge --alpha 1 {SMALL[:19]} --lam -1",
            "lam must be \"optimal\" or a number >= 0, got '-1'",
        ),
        ("estimate ridge --alpha 1 --beta 1 --rho 1 --lam best", "lam must be .* got 'best'"),
        (
            "estimate lasso --alpha 1 --beta 1 --rho 1",
            "Invalid value for .*'lasso' is not one of.*",
        ),
        (
            "estimate ridge --alpha 0 --beta 1 --rho 1",
            "alpha must be > 0 and finite, got 0.0 in '0'",
        ),
        (
            f"simulate ridge --channel sign --alpha 1 {SMALL}",
            "channel must be linear for ridge, got 'sign'",
        ),
        (
            f"simulate amp --lam 1 --alpha 1 {SMALL}",
            "lam belongs to ridge and nuclear-norm, got 1.0 for amp",
        ),
        (f"simulate ridge --steps 3 --alpha 1 {SMALL}", "steps must be left out for ridge, .*"),
        (
            f"simulate ridge --start 0.5 --alpha 1 {SMALL}",
            "start belongs to amp, got 0.5 for ridge",
        ),
        (f"simulate amp --start 1 --alpha 1 {SMALL}", r"start must be in \(0, 1\), got 1.0"),
        (f"simulate amp --alpha 1,1 {SMALL}", "alpha must hold every value once"),
        (
            f"simulate amp --alpha 1e-9 {SMALL}",
            "alpha must leave at least one label, got 1e-09: .*",
        ),
        (
            "simulate amp --alpha 1 --beta inf --rho 1",
            "beta must be finite to sample an instance, got inf",
        ),
        (
            f"simulate amp --alpha 1 {SMALL} --output runs.csv",
            "output must be a netCDF file, ending in .nc, got 'runs.csv'",
        ),
        (f"simulate amp --alpha 1 {SMALL} --output file/x.nc", "cannot write file/x.nc: .+"),
    ],
)
def test_bad_input_is_one_clear_line(line: str, message: str, here: Path) -> None:
    (here / "file").touch()
    result = bsr_run(line, exit_code=2)
    assert result.stdout == ""
    assert re.fullmatch(f"Error: {message}\n", result.stderr), result.stderr


def test_a_run_that_fails_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any, **named: Any) -> None:
        raise MemoryError("1 TB is more than there is")

    monkeypatch.setattr(bsr.Problem, "sample", full)
    result = bsr_run(f"simulate amp --alpha 0.3 {SMALL}", exit_code=1)
    assert re.fullmatch(r"Error: .* alpha=0\.3.*1 TB is more than there is\n", result.stderr)


def test_ctrl_c_ends_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*given: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bsr.Problem, "sample", interrupted)
    result = bsr_run(f"simulate amp --alpha 0.3 {SMALL} --output runs.nc", exit_code=130)
    assert result.stdout == ""
    assert "Interrupted." in result.stderr
