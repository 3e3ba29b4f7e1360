"""The commands on signals other than products of Gaussian factors: files, limits, symmetry."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import as_json, bsr_run
from scipy.optimize import brentq

import bsr_theory as bsr
from bsr_theory import limits
from bsr_theory.results import read_dataset

RANK, SIZE = 4, 16


def product(dtype: Any = np.float64) -> np.ndarray:
    """Return a matrix of rank 4 and mean square 0.09 or so, as a layer of a transformer is."""
    left, right = np.random.default_rng(0).standard_normal((2, SIZE, RANK)).astype(dtype)
    return np.asarray(left @ right.T * dtype(0.15))


def unknowns() -> float:
    """Return the unknowns per entry of a large S with the law of `product`: 4 values and zeros.

    Of two rotations, d^2 together, those stay free that mix equal singular values: d/16 left and
    right vectors at once for each value, 12 d/16 of either kind for 0.
    """
    return 1.0 - RANK * 0.5 / SIZE**2 - (1.0 - RANK / SIZE) ** 2


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with some files."""
    monkeypatch.chdir(tmp_path)
    np.save("weights.npy", product())
    np.savetxt("values.txt", np.linalg.svd(product(), compute_uv=False))
    Path("rows.csv").write_text("value,mass\n0.5,0.8\n2,0.2\n", encoding="utf-8")
    np.savetxt("eigenvalues.txt", [-1.0, 1.0])
    return tmp_path


def solution(line: str) -> Any:
    return as_json(f"solve {line}")["solution"]


def unlimited_columns(alpha: float, delta: float, values: Any, masses: Any) -> float:
    """Return the error at beta = inf, where M(s) = sum m v^2 s/(v^2 + s)."""
    square = np.square(values)

    def mmse(s: float) -> float:
        return float(np.dot(masses, square * s / (square + s)))

    s = brentq(lambda s: alpha * s - delta - mmse(s), 1e-12, 1e6, xtol=1e-15, rtol=1e-14)
    return mmse(float(s))


# --------------------------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------------------------


def test_every_kind_of_file_is_read(here: Path) -> None:
    """At beta = inf the error is an elementary function of the law."""
    values, masses = np.array([0.5, 2.0]), np.array([0.8, 0.2])
    np.savez("atoms.npz", values=values, masses=masses)
    np.save("rows.npy", np.stack([values, masses], axis=1))
    np.savez("one.npz", anything=np.array([0.5, 0.5, 0.5, 0.5, 2.0], dtype=np.float32))
    Path("column.txt").write_text("# a comment\n0.5\n0.5 # another\n\n0.5\n0.5\n2\n")
    Path("line.csv").write_text("0.5; 0.5; 0.5, 0.5, 2\n")
    exact = unlimited_columns(0.3, 0.1, values, masses)
    for name in ("rows.csv", "atoms.npz", "rows.npy", "one.npz", "column.txt", "line.csv"):
        stored = as_json(f"solve --alpha 0.3 --singular-values {name} --beta inf --delta 0.1")
        assert stored["solution"]["mmse"] == pytest.approx(exact, rel=1e-9), name
        assert (stored["prior"], stored["file"]) == ("singular-values", name)
        assert stored["parameters"]["mean_square"] == pytest.approx(1.0, rel=1e-12)

    # many equal bins of a histogram are a law of many atoms; the second moment is scaled to 1
    counts, edges = [3, 0, 1], [0.0, 1.0, 2.0, 4.0]
    np.savez("histogram.npz", counts=counts, edges=edges)
    middle = (np.arange(20_000) + 0.5) / 20_000
    fine = np.concatenate([middle, 2.0 + 2.0 * middle])
    weights = np.repeat([0.75, 0.25], middle.size) / middle.size
    root = np.sqrt(np.dot(weights, fine**2))
    exact = unlimited_columns(0.3, 0.1, fine / root, weights)
    found = solution("--alpha 0.3 --singular-values histogram.npz --beta inf --delta 0.1")
    assert found["mmse"] == pytest.approx(exact, rel=1e-7)


def test_a_matrix_tells_its_shape_rank_and_scale(here: Path) -> None:
    np.save("wide.npy", np.random.default_rng(1).standard_normal((24, 8)).astype(np.float32))
    told = as_json("solve --alpha 0.4 --weights wide.npy")["parameters"]
    assert (told["beta"], told["rank"]) == (3.0, 8)
    stored = as_json("solve --alpha 0.3 --weights weights.npy --delta 0.1")
    assert (stored["prior"], stored["scale"]) == ("weights", "unit")
    square = float(np.mean(product() ** 2))
    told = stored["parameters"]
    assert told == {
        **{"alpha": 0.3, "beta": 1.0, "rank": RANK, "delta": 0.1},
        "mean_square": pytest.approx(square, rel=1e-12),
    }
    prior = bsr.RotationallyInvariantPrior.from_matrix(product(), normalize=True)
    point = bsr.solve(bsr.Problem(prior, bsr.GaussianChannel(0.1), 0.3))
    assert stored["solution"]["mmse"] == pytest.approx(point.mmse, rel=1e-12)
    # as they are: all errors in the units of the matrix
    line = f"--alpha 0.3 --weights weights.npy --scale none --delta {0.1 * square!r}"
    raw, unit = solution(line), stored["solution"]
    for name in ("mmse", "q", "ridge", "generalization_error"):
        assert raw[name] == pytest.approx(square * unit[name], rel=1e-9), name
    assert unit["ridge"] == limits.ridge_mse(0.3, 0.1)
    text = bsr_run(f"solve {line}").stdout
    assert f"Bayes-optimal estimator, {square:g} - q" in text
    assert "prior = weights, file = weights.npy, scale = none, beta = 1, rank = 4" in text


def test_singular_values_in_any_unit_are_those_of_the_matrix() -> None:
    one = solution("--alpha 0.3 --weights weights.npy --delta 0.1")
    two = solution("--alpha 0.3 --singular-values values.txt --beta 1 --delta 0.1")
    for name in ("mmse", "q", "information", "strong_recovery"):
        assert two[name] == pytest.approx(one[name], rel=1e-12), name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_is_no_rank(dtype: Any) -> None:
    """A product of rank 4 that was computed and stored with rounding errors has rank 4."""
    np.save("stored.npy", product(dtype))
    np.save("values.npy", np.linalg.svd(product(dtype), compute_uv=False))
    stored = as_json("solve --alpha 0.3 --weights stored.npy")
    assert stored["parameters"]["rank"] == RANK
    unknown = unknowns()
    assert stored["solution"]["strong_recovery"] == pytest.approx(unknown, rel=1e-12)
    found = solution("--alpha 0.3 --singular-values values.npy --beta 1")
    assert found["strong_recovery"] == pytest.approx(unknown, rel=1e-12)


def test_eigenvalues() -> None:
    """Eigenvalues -1 and 1, half each: a random projector, d^2/4 unknowns."""
    stored = as_json("solve --alpha 0.2 --eigenvalues eigenvalues.txt --delta 0.1")
    prior = bsr.SymmetricPrior([-1.0, 1.0])
    point = bsr.solve(bsr.Problem(prior, bsr.GaussianChannel(0.1), 0.2))
    assert stored["solution"]["mmse"] == pytest.approx(point.mmse, rel=1e-12)
    assert stored["solution"]["strong_recovery"] == 0.25
    assert not {"ridge", "alpha_LR"} & set(stored["solution"])
    assert "beta" not in stored["parameters"]
    text = bsr_run("solve --alpha 0.2 --eigenvalues eigenvalues.txt").stdout
    assert "of which there are d^2/2" in text
    # estimators over all matrices see singular values, all of them 1 here
    np.savetxt("ones.txt", np.ones(3))
    for estimator in ("ridge", "nuclear-norm"):
        line = f"estimate {estimator} --alpha 0.3,0.7 --delta 0.1"
        symmetric, any_matrix = (
            as_json(f"{line} {signal}")["columns"]
            for signal in ("--eigenvalues eigenvalues.txt", "--singular-values ones.txt --beta 1")
        )
        assert symmetric["mse"] == any_matrix["mse"]
        assert symmetric["bayes"] != any_matrix["bayes"]
        runs = as_json(
            f"simulate {estimator} --alpha 0.7 --delta 0.1 --lam 0.1 --d1 16 --samples 6 "
            "--eigenvalues eigenvalues.txt"
        )["columns"]
        assert runs["mse_mean"][0] == pytest.approx(runs["theory"][0], rel=0.2)


# --------------------------------------------------------------------------------------------
# Priors without a file
# --------------------------------------------------------------------------------------------


def test_low_rank_factors() -> None:
    alpha = np.array([0.3, 0.8, 1.5])
    line = "curve --alpha 0.3,0.8,1.5 --prior low-rank-factors --beta 2 --delta 0.1"
    columns = as_json(line)["columns"]
    exact = limits.low_rank_mmse(alpha, 2.0, 0.1)
    np.testing.assert_allclose(columns["mmse"], exact, rtol=1e-9)
    assert not {"ridge", "alpha_LR"} & set(columns)
    text = bsr_run("solve --alpha 0.9 --prior low-rank-factors --beta 2").stdout
    assert re.search(r"^strong_recovery +1 +alpha_LR from which on the error is 0", text, re.M)
    assert re.search(r"^information .*in units of rho$", text, re.M)
    assert "prior = low-rank-factors, beta = 2, delta = 0" in text


def test_symmetric_factors() -> None:
    stored = as_json("solve --alpha 0.2 --prior symmetric-factors --rho 0.5 --delta 0.1")
    point = bsr.solve(bsr.Problem(bsr.SymmetricFactorPrior(0.5), bsr.GaussianChannel(0.1), 0.2))
    assert stored["solution"]["mmse"] == pytest.approx(point.mmse, rel=1e-12)
    assert stored["solution"]["strong_recovery"] == 0.5 * (2.0 - 0.5) / 2.0
    assert stored["prior"] == "symmetric-factors"
    assert stored["parameters"] == {"alpha": 0.2, "rho": 0.5, "delta": 0.1}
    text = bsr_run("solve --alpha 0.2 --prior symmetric-factors --rho 0.5").stdout
    assert "estimator, 1.5 - q" in text


def test_the_prior_of_two_factors_needs_no_name() -> None:
    line = "solve --alpha 0.4 --beta 2 --rho 0.5 --delta 0.1"
    named = bsr_run(f"{line} --prior factors")
    assert named.stdout == bsr_run(line).stdout
    assert "prior" not in named.stdout.partition("\n")[0]


# --------------------------------------------------------------------------------------------
# The other commands
# --------------------------------------------------------------------------------------------


def test_curve_and_plot(here: Path) -> None:
    line = "curve --alpha 0.2,0.6 --weights weights.npy --delta 0.1"
    rows = list(csv.DictReader(io.StringIO(bsr_run(f"{line} --format csv").stdout)))
    assert rows[0]["file"] == "weights.npy"
    assert [float(row["ridge"]) for row in rows] == limits.ridge_mse([0.2, 0.6], 0.1).tolist()
    for row in rows:
        point = solution(f"--alpha {row['alpha']} --weights weights.npy --delta 0.1")
        assert float(row["mmse"]) == pytest.approx(point["mmse"], rel=1e-9)
        assert float(row["mmse"]) < float(row["ridge"])

    titles = []
    draw = bsr.figures.draw_curve

    def seen(*given: Any, **named: Any) -> Any:
        titles.append(named)
        return draw(*given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bsr.figures, "draw_curve", seen)
        bsr_run(f"{line} --plot curve.png")
        bsr_run("curve --alpha 0.5,1 --prior low-rank-factors --beta 2 --plot low.png")
        bsr_run("curve --alpha 0.1,0.2 --prior symmetric-factors --rho 0.5 --plot symmetric.png")
    assert titles[0]["title"].startswith("weights.npy,")
    assert "xlabel" not in titles[0] and "ylabel" not in titles[0]
    assert "per unknown" in titles[1]["xlabel"]
    assert titles[2]["ylabel"] == "error per entry"
    assert (here / "symmetric.png").read_bytes().startswith(b"\x89PNG")


def test_labels_that_are_not_linear() -> None:
    """Weak recovery depends on the second moment alone; perfect recovery counts unknowns."""
    line = "--weights weights.npy --channel abs"
    found = as_json(f"thresholds {line}")["thresholds"]
    assert found["weak_recovery"] == pytest.approx(0.5, rel=1e-9)
    unknown = unknowns()
    assert found["strong_recovery"] == pytest.approx(unknown, rel=1e-12)
    between = 0.5 * (found["algorithmic"] + unknown)
    point = solution(f"--alpha {between} {line}")
    assert (point["phase"], point["mmse"]) == ("hard", 0.0)
    columns = as_json(f"fixed-points --alpha {between} {line}")["columns"]
    stable = np.array(columns["mmse"])[columns["stable"]]
    assert point["mmse_algorithm"] == pytest.approx(stable.max(), rel=1e-9)
    curve = as_json(f"curve --alpha {between} {line}")["columns"]
    assert curve["mmse_algorithm"][0] == pytest.approx(stable.max(), rel=1e-9)
    # a channel without noise to vary
    point = solution("--alpha 0.4 --weights weights.npy --channel logistic --gain 3")
    assert point["phase"] == "easy"


@pytest.mark.parametrize(
    ("line", "phase"),
    [
        ("--alpha 0.4 --weights weights.npy", "impossible"),  # 0.43 unknowns per entry
        ("--alpha 0.45 --weights weights.npy", "easy"),
        ("--alpha 0.4 --weights weights.npy --delta 0.1", "easy"),
        ("--alpha 0.3 --prior low-rank-factors --beta 1 --delta 0.1", "impossible"),  # below weak
        ("--alpha 0.7 --prior low-rank-factors --beta 1 --delta 0.1", "easy"),
        ("--alpha 0.7 --prior low-rank-factors --beta 1", "impossible"),
        ("--alpha 0.24 --eigenvalues eigenvalues.txt", "impossible"),
        ("--alpha 0.26 --eigenvalues eigenvalues.txt", "easy"),
    ],
)
def test_phases_of_linear_labels(line: str, phase: str) -> None:
    assert solution(line)["phase"] == phase


def test_phase_diagram_of_a_file(here: Path) -> None:
    line = "phase-diagram --channel abs --x alpha=0.3,0.45,0.9 --y delta=0,0.01 --weights"
    stored = as_json(f"{line} weights.npy")
    prior = bsr.RotationallyInvariantPrior.from_matrix(product(), normalize=True)
    plane = bsr.phase_diagram(
        bsr.Problem(prior, bsr.AbsChannel()), alpha=[0.3, 0.45, 0.9], delta=[0.0, 0.01]
    )
    shares = [float((plane.phase.values == code).mean()) for code in range(3)]
    assert list(stored["phases"].values()) == shares
    assert (stored["file"], stored["parameters"]["rank"]) == ("weights.npy", RANK)
    bsr_run(f"{line} weights.npy --plot plane.png")
    data = read_dataset(here / "plane.nc")
    assert (data.attrs["file"], data.attrs["rank"]) == ("weights.npy", RANK)
    (axes, *_) = bsr.figures.draw_phase_diagram(data).axes
    assert "weights.npy" in axes.get_title(loc="right")
    # alpha of factors of low rank counts samples per unknown
    plane = "phase-diagram --prior low-rank-factors --x alpha=0.5,1.5 --y beta=1,2"
    bsr_run(f"{plane} --output low.nc")
    axes = bsr.figures.draw_phase_diagram(read_dataset(here / "low.nc")).axes[0]
    assert "per unknown" in axes.get_xlabel()


def test_estimate_and_simulate(here: Path) -> None:
    line = "--alpha 0.4 --weights weights.npy --delta 0.1"
    columns = as_json(f"estimate ridge {line}")["columns"]
    assert columns["mse"][0] == pytest.approx(limits.ridge_mse(0.4, 0.1), rel=1e-12)
    assert columns["bayes"][0] == pytest.approx(solution(line)["mmse"], rel=1e-12)

    run = f"simulate amp {line} --d1 16 --samples 4 --workers 1 --output runs.nc"
    stored = as_json(run)
    (mean,), (error,) = stored["columns"]["mse_mean"], stored["columns"]["mse_error"]
    (theory,) = stored["columns"]["theory"]
    # 16 rows: the singular values of the runs are those of the matrix, and alpha is rounded
    exact = solution(f"--alpha {round(0.4 * 256) / 256!r} --weights weights.npy --delta 0.1")
    assert theory == pytest.approx(exact["mmse"], rel=1e-9)
    assert abs(mean - theory) < 4.0 * error + 0.1
    assert as_json(run) == stored  # read from the file
    assert stored["file"] == "weights.npy"


# --------------------------------------------------------------------------------------------
# Bad input
# --------------------------------------------------------------------------------------------

W = "--weights weights.npy"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "solve --alpha 1 --beta 1",
            r"Missing option '--rho' \(or one of --singular-values, --weights, --eigenvalues, "
            r"--prior\)\. See 'bsr solve --help'\.",
        ),
        (
            "curve --alpha 1 --singular-values rows.csv",
            r"Missing option '--beta'\. See 'bsr curve --help'\.",
        ),
        (f"solve --alpha 1 {W} --rho 0.5", "rho must be left out beside --weights, got 0.5"),
        (f"solve --alpha 1 {W} --beta 1", "beta must be left out beside --weights, got 1.0"),
        (
            "thresholds --singular-values rows.csv --beta 1 --rho 1",
            "rho must be left out beside --singular-values, got 1.0",
        ),
        (
            "thresholds --prior low-rank-factors --beta 1 --rho 1",
            "rho must be left out beside --prior low-rank-factors, got 1.0",
        ),
        (
            "estimate ridge --alpha 1 --prior symmetric-factors --beta 1 --rho 1",
            "beta must be left out beside --prior symmetric-factors, got 1.0",
        ),
        (
            f"solve --alpha 1 {W} --singular-values rows.csv",
            "one prior must be given, got --weights and --singular-values",
        ),
        (
            f"fixed-points --alpha 1 {W} --prior factors",
            "one prior must be given, got --weights and --prior factors",
        ),
        (
            "solve --alpha 1 --beta 1 --rho 1 --scale none",
            "scale belongs to a signal from a file, got 'none' for factors",
        ),
        (
            f"solve --alpha 1 {W} --scale none --channel sign",
            r"channel must be linear for a signal of mean square 0\.\d+ \(others take 1\), "
            "got 'sign'",
        ),
        (
            "solve --alpha 1 --prior symmetric-factors --rho 1 --channel abs",
            r"channel must be linear for a signal of mean square 2 \(others take 1\), got 'abs'",
        ),
        ("solve --alpha 1 --weights none.npy", "Invalid value for '--weights': File 'none.npy' .*"),
        (
            "solve --alpha 1 --weights cube.npy",
            r"weights must be a finite matrix, got shape \(2, 2, 2\) in cube.npy",
        ),
        (
            "solve --alpha 1 --weights nan.npy",
            r"weights must be a finite matrix, got shape \(2, 2\) in nan.npy",
        ),
        (
            "solve --alpha 1 --weights pair.npz",
            "weights must be one matrix, got a, b in pair.npz",
        ),
        (
            "solve --alpha 1 --weights words.txt",
            "weights must be numbers in text, .npy or .npz: words.txt: could not convert .*",
        ),
        (
            "solve --alpha 1 --weights ragged.txt",
            "weights must be numbers in text, .npy or .npz: ragged.txt: .* inhomogeneous .*",
        ),
        (
            "solve --alpha 1 --weights object.npy",
            "weights must be numbers in text, .npy or .npz: object.npy: Object arrays .*",
        ),
        (
            "solve --alpha 1 --weights complex.npy",
            r"weights must be real numbers, got complex.npy of complex128, shape \(2, 2\)",
        ),
        (
            "solve --alpha 1 --beta 1 --singular-values empty.txt",
            r"singular_values must be real numbers, got empty.txt of float64, shape \(0,\)",
        ),
        (
            "solve --alpha 1 --beta 1 --singular-values broken.npz",
            "singular_values must be numbers in text, .npy or .npz: broken.npz: .+",
        ),
        (
            "solve --alpha 1 --beta 1 --singular-values weights.npy",
            r"singular_values must be numbers or rows of value and mass, got shape \(16, 16\)",
        ),
        (
            "solve --alpha 1 --beta 1 --singular-values pair.npz",
            "singular_values must hold one array, values and masses, or counts and edges, "
            r"got a \(3,\), b \(3,\)",
        ),
        (
            "solve --alpha 1 --beta 1 --singular-values eigenvalues.txt",
            "singular_values must be >= 0 and not all 0, .*",
        ),
        ("solve --alpha 1 --beta 0.5 --singular-values rows.csv", "beta must be >= 1, got 0.5"),
        (
            f"phase-diagram {W} --x alpha --y rho",
            "y must be one of alpha, delta, or NAME=RANGE, got 'rho'",
        ),
        (
            "phase-diagram --singular-values rows.csv --x alpha --y delta",
            r"Missing option '--beta', or an axis of that name\. See .*",
        ),
        (
            f"phase-diagram {W} --x alpha --y delta --beta 1",
            "beta must be left out beside --weights, got 1.0",
        ),
        (
            f"simulate gradient-descent --alpha 1 {W}",
            "prior must be one of factors for gradient-descent, got weights",
        ),
        (
            "simulate gradient-descent --alpha 1 --eigenvalues eigenvalues.txt",
            "prior must be one of factors for gradient-descent, got eigenvalues",
        ),
    ],
)
def test_bad_input_is_one_clear_line(line: str, message: str, here: Path) -> None:
    np.save("cube.npy", np.ones((2, 2, 2)))
    np.save("nan.npy", np.full((2, 2), np.nan))
    np.save("object.npy", np.array([{}], dtype=object))
    np.save("complex.npy", np.ones((2, 2), dtype=complex))
    np.savez("pair.npz", a=np.ones(3), b=np.ones(3))
    Path("words.txt").write_text("one\ntwo\n", encoding="utf-8")
    Path("ragged.txt").write_text("3 4\n1\n2\n", encoding="utf-8")
    Path("empty.txt").touch()
    Path("broken.npz").write_bytes(b"PK\x03\x04 no archive")
    result = bsr_run(line, exit_code=2)
    assert result.stdout == ""
    assert re.fullmatch(f"Error: {message}\n", result.stderr), result.stderr
