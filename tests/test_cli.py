"""The command line: every command, every format, every way to end."""

from __future__ import annotations

import csv
import io
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from command_line import bsr_run, strict_json

import bsr_theory as bsr
from bsr_theory import cli, limits

ROOT = Path(__file__).resolve().parent.parent
MODEL = "--beta 2 --rho 0.5"
COMMANDS = [None, *cli.main.commands]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def help_of(command: str | None) -> str:
    return bsr_run(f"{command or ''} --help").stdout


def examples() -> list[str]:
    texts = [help_of(command).partition("Examples:")[2] for command in COMMANDS]
    return list(dict.fromkeys(re.findall(r"^ +bsr (.+)$", "".join(texts), re.M)))


# --------------------------------------------------------------------------------------------
# Help
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_describes_and_has_examples(command: str | None) -> None:
    text = help_of(command)
    assert text.startswith("Usage: bsr")
    assert re.search(r"Examples:\n +bsr " + (command or ""), text)
    for parameter in (cli.main.commands[command] if command else cli.main).params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            assert parameter.opts[0] in text


def runnable(line: str) -> Any:
    """Return an example; figures with simulations run small, which takes a minute each."""
    name, _, numbers = line.partition(" ")
    chosen = bsr.figures.FIGURES if "all" in numbers.split() else set(numbers.split())
    if name != "figure" or not any(
        recipe.simulated and number in chosen for number, recipe in bsr.figures.FIGURES.items()
    ):
        return line
    small = line if "--fast" in line else f"{line} --fast"
    return pytest.param(small, id=line, marks=pytest.mark.slow)


@pytest.mark.parametrize("line", examples())
def test_the_examples_of_the_help_are_understood(line: str) -> None:
    name, *words = shlex.split(line)
    command = cli.main.commands[name]
    context = command.make_context(name, words)  # parses, and runs the callbacks of options
    assert not context.args


# explore runs until somebody stops it: see test_explore.py
ENDING = [line for line in examples() if not line.startswith("explore")]


@pytest.mark.parametrize("line", [runnable(line) for line in ENDING])
def test_the_examples_of_the_help_run(line: str, here: Path) -> None:
    if line.startswith("merge"):  # takes files that another command wrote
        for i in range(2):
            constants = "--set beta=2 --set rho=0.5"
            bsr_run(f"sweep solve --axis alpha=1,2 {constants} --output run.nc --shard {i}/2")
    result = bsr_run(line)
    assert result.stdout or "--output" in line or "--plot" in line
    for option in ("--output", "--plot"):
        if option in line:
            path = here / line.partition(option)[2].split()[0]
            assert path.is_file() or any(path.iterdir())


def test_every_command_lists_its_short_help_in_full() -> None:
    assert "..." not in help_of(None).partition("Commands:")[2]


def test_help_is_quick_and_light() -> None:
    program = (
        "import sys, time\n"
        "from bsr_theory.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "print(time.process_time(), *sys.modules, file=sys.stderr)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    seconds, *modules = run.stderr.split()
    assert run.stdout.startswith("Usage:")
    assert float(seconds) < 0.5
    assert not {"numba", "scipy", "matplotlib", "sympy", "xarray"} & set(modules)


def test_python_m_is_the_command() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "bsr_theory", "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == f"bsr, version {bsr.__version__}\n"


# --------------------------------------------------------------------------------------------
# solve
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alpha", "beta", "rho", "delta"),
    [(0.4, 2.0, 0.5, 0.1), (0.3, 1.0, 0.2, 0.0), (0.7, np.inf, 0.5, 0.0), (0.5, 1.0, np.inf, 0.2)],
)
def test_solve(alpha: float, beta: float, rho: float, delta: float) -> None:
    line = f"solve --alpha {alpha} --beta {beta} --rho {rho} --delta {delta}"
    point = bsr.solve(bsr.bilinear_regression(alpha, beta, rho, delta))

    stored = strict_json(bsr_run(f"{line} --format json").stdout)
    parameters = {key: float(value) for key, value in stored["parameters"].items()}
    assert parameters == {"alpha": alpha, "beta": beta, "rho": rho, "delta": delta}
    solution = stored["solution"]
    for name in ("mmse", "q", "qhat", "information", "residual", "iterations"):
        assert float(solution[name]) == getattr(point, name), name
    assert solution["ridge"] == limits.ridge_mse(alpha, delta)
    unknowns = (1.0 + 1.0 / beta) * rho  # per entry
    assert solution["alpha_LR"] == pytest.approx(alpha / unknowns, rel=1e-15)
    assert solution["strong_recovery"] == limits.strong_recovery(beta, rho)
    assert bsr.Status[solution["status"].upper()] == point.status
    assert stored["provenance"]["package"] == bsr.__version__

    text = bsr_run(line).stdout
    shown = dict(re.findall(r"^(\w+) +(\S+) ", text, re.M))
    assert float(shown["mmse"]) == pytest.approx(point.mmse, rel=1e-9)
    assert float(shown["q"]) == pytest.approx(point.q, rel=1e-9)
    assert shown["status"] == solution["status"]
    assert bsr.Status(point.status).advice in text
    assert f"beta = {beta:g}" in text


def test_solve_agrees_with_closed_forms() -> None:
    def mmse(options: str) -> float:
        stored = strict_json(bsr_run(f"solve {options} --format json").stdout)
        return float(stored["solution"]["mmse"])

    exact = limits.solve_infinite_beta(0.3, 0.5, 0.1)
    assert mmse("--alpha 0.3 --beta inf --rho 0.5 --delta 0.1") == pytest.approx(exact, rel=1e-9)
    exact = limits.ridge_mse(0.3, 0.1)
    assert mmse("--alpha 0.3 --beta 2 --rho inf --delta 0.1") == pytest.approx(exact, rel=1e-9)


# --------------------------------------------------------------------------------------------
# fixed-points
# --------------------------------------------------------------------------------------------


def test_fixed_points() -> None:
    every = bsr.fixed_points(bsr.bilinear_regression(0.3, 2.0, 0.5))
    line = f"fixed-points --alpha 0.3 {MODEL}"

    rows = list(csv.DictReader(io.StringIO(bsr_run(f"{line} --format csv").stdout)))
    assert len(rows) == every.count == 2
    for name in ("mmse", "q", "qhat", "slope", "residual"):
        assert [float(row[name]) for row in rows] == getattr(every, name).tolist()
    assert [row["stable"] for row in rows] == ["false", "true"]
    assert [row["status"] for row in rows] == ["perfect_recovery", "converged"]

    columns = strict_json(bsr_run(f"{line} --format json").stdout)["columns"]
    assert columns["stable"] == [False, True]
    assert [float(x) for x in columns["qhat"]] == every.qhat.tolist()

    header, *table = bsr_run(line).stdout.splitlines()
    assert header.split() == ["mmse", "q", "qhat", "slope", "residual", "stable", "status"]
    assert [row.split()[-1] for row in table] == ["perfect_recovery", "converged"]


# --------------------------------------------------------------------------------------------
# curve
# --------------------------------------------------------------------------------------------

FIELDS = ("mmse", "q", "qhat")


@pytest.mark.parametrize(
    ("text", "alpha"),
    [
        ("0.1:0.5:5", np.linspace(0.1, 0.5, 5)),
        ("0.5:0.1:3", np.linspace(0.5, 0.1, 3)),
        ("0.01:10:7:log", np.geomspace(0.01, 10.0, 7)),
        ("0.2,0.1,0.3", np.array([0.2, 0.1, 0.3])),
        ("0.25", np.array([0.25])),
    ],
)
def test_ranges_and_formats(text: str, alpha: np.ndarray, here: Path) -> None:
    curve = bsr.solve(bsr.bilinear_regression(alpha, 2.0, 0.5, 0.1))
    line = f"curve --alpha {text} {MODEL} --delta 0.1"

    rows = list(csv.DictReader(io.StringIO(bsr_run(f"{line} --format csv").stdout)))
    assert [float(row["alpha"]) for row in rows] == alpha.tolist()
    assert {(row["beta"], row["rho"], row["delta"]) for row in rows} == {("2.0", "0.5", "0.1")}
    for name in FIELDS:
        assert [float(row[name]) for row in rows] == getattr(curve, name).tolist()
    assert [float(row["ridge"]) for row in rows] == limits.ridge_mse(alpha, 0.1).tolist()
    low_rank = limits.alpha_low_rank(alpha, 2.0, 0.5).tolist()
    assert [float(row["alpha_LR"]) for row in rows] == low_rank
    assert {row["status"] for row in rows} == {"converged"}

    stored = strict_json(bsr_run(f"{line} --format json").stdout)
    assert stored["parameters"] == {"beta": 2.0, "rho": 0.5, "delta": 0.1}
    for name in FIELDS:
        assert stored["columns"][name] == getattr(curve, name).tolist()
    assert stored["provenance"]["package"] == bsr.__version__

    header, *table = bsr_run(line).stdout.splitlines()
    assert header.split() == ["alpha", "alpha_LR", "mmse", "q", "qhat", "ridge", "status"]
    assert len({len(row) for row in (header.replace("status", "converged"), *table)}) == 1
    shown = np.array([row.split()[2:5] for row in table], dtype=float)
    expected = np.stack([getattr(curve, name) for name in FIELDS], axis=1)
    np.testing.assert_allclose(shown, expected, rtol=1e-7)


def test_infinity_survives_every_format() -> None:
    line = "curve --alpha 0.4,0.6 --beta inf --rho 0.5"
    stored = strict_json(bsr_run(f"{line} --format json").stdout)
    assert stored["parameters"]["beta"] == "inf"
    assert stored["columns"]["qhat"][1] == "inf"
    assert stored["columns"]["mmse"][1] == 0.0
    assert stored["columns"]["status"] == ["converged", "perfect_recovery"]
    row = list(csv.DictReader(io.StringIO(bsr_run(f"{line} --format csv").stdout)))[1]
    assert float(row["qhat"]) == float(row["beta"]) == np.inf


@pytest.mark.parametrize("suffix", ["csv", "json", "txt"])
def test_output_goes_to_a_file_in_the_format_of_its_name(suffix: str, here: Path) -> None:
    style = {"txt": "table"}.get(suffix, suffix)
    line = f"curve --alpha 0.1:0.5:5 {MODEL}"
    result = bsr_run(f"{line} --output new/folder/curve.{suffix}")
    assert result.stdout == ""
    assert result.stderr == f"wrote new/folder/curve.{suffix}\n"
    assert [path.name for path in (here / "new/folder").iterdir()] == [f"curve.{suffix}"]
    text = (here / f"new/folder/curve.{suffix}").read_text(encoding="utf-8")
    assert text == bsr_run(f"{line} --format {style}").stdout


def test_plot(here: Path) -> None:
    result = bsr_run(f"curve --alpha 0.01:10:9:log {MODEL} --delta 0.1 --plot curve.png")
    assert len(result.stdout.splitlines()) == 10
    assert (here / "curve.png").read_bytes().startswith(b"\x89PNG")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_long_curve_is_solved_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = cli._read_model(beta=2.0, rho=0.5, delta=0.0)
    alpha = np.linspace(0.01, 0.9, 40)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    whole, status = cli._follow(alpha, model, 1e-11)
    assert terminal.getvalue() == ""  # too short for a progress bar

    monkeypatch.setattr(cli, "_LONG", 40)
    monkeypatch.setattr(cli, "_PART", 17)
    parts, same = cli._follow(alpha, model, 1e-11)
    assert "40.0/40.0" in terminal.getvalue()
    assert "point" in terminal.getvalue()
    np.testing.assert_array_equal(same, status)
    for name in FIELDS:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-9)

    monkeypatch.setattr(sys, "stderr", quiet := io.StringIO())
    cli._follow(alpha, model, 1e-11)
    assert quiet.getvalue() == ""


# --------------------------------------------------------------------------------------------
# figure, info
# --------------------------------------------------------------------------------------------


def test_figures_are_listed() -> None:
    lines = bsr_run("figure").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(bsr.figures.FIGURES)
    for line, recipe in zip(lines, bsr.figures.FIGURES.values(), strict=True):
        assert ("--delta" in line) == ("delta" in recipe.parameters)
        assert ("--fast" in line) == recipe.simulated


def test_figure_writes_picture_and_data(here: Path) -> None:
    result = bsr_run("figure 8 --dpi 40 --output made/")
    assert result.stdout.split() == ["made/figure_8.png", "made/figure_8.nc"]
    header = (here / "made/figure_8.png").read_bytes()[:24]
    assert header.startswith(b"\x89PNG")
    assert int.from_bytes(header[16:20]) == 272  # 6.8 inches at 40 dots
    assert bsr.figures.load(here / "made/figure_8.nc").free_entropy.shape == (4, 3, 401)

    result = bsr_run("figure 1 --delta 0.1 --dpi 40 --output made")
    assert result.stdout.split() == ["made/figure_1_delta_0.1.png", "made/figure_1_delta_0.1.nc"]
    data = bsr.figures.load(here / "made/figure_1_delta_0.1.nc")
    assert data.mmse.dims == ("beta", "rho", "alpha")
    assert data.delta == 0.1

    result = bsr_run("figure 8 --output name.pdf")
    assert result.stdout.split() == ["name.pdf", "name.nc"]
    assert (here / "name.pdf").read_bytes().startswith(b"%PDF")


def test_info(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BSR_THREADS", "3")
    rows = dict(re.findall(r"^(\S+(?: cache)?) +(.+)$", bsr_run("info").stdout, re.M))
    assert rows["bsr_theory"] == bsr.__version__
    assert rows["threads"].startswith("3 ")
    assert rows["numpy"] == np.__version__
    assert {"git", "python", "platform", "numba", "kernel cache"} <= set(rows)
    stored = strict_json(bsr_run("info --format json").stdout)
    assert stored["threads"] == 3
    folder = stored["kernel_cache"]
    assert rows["kernel cache"].startswith("off" if folder is None else f"on, {folder}")
    monkeypatch.setattr(cli, "_cache", lambda: None)
    assert "BSR_NUMBA_CACHE" in bsr_run("info").stdout


def test_a_waiting_user_is_told_of_the_compilation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr(cli, "_cache", lambda: tmp_path)
    cli._prepare()
    assert "Compiling" in terminal.getvalue()

    (tmp_path / "rectangular.mmse_array-1.py3.nbc").touch()
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    cli._prepare()
    assert terminal.getvalue() == ""


# --------------------------------------------------------------------------------------------
# How a command ends
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("solve --alpha 0.4 --beta 0.5 --rho 0.5", "beta must be >= 1, got 0.5"),
        ("solve --alpha 0 --beta 2 --rho 0.5", "alpha must be > 0 and finite, got 0.0"),
        (f"solve --alpha nan {MODEL}", "alpha must be > 0 and finite, got nan"),
        ("solve --alpha 1 --beta 2 --rho 0", "rho must be > 0, got 0.0"),
        (f"solve --alpha 1 {MODEL} --delta -1", "delta must be >= 0 and finite, got -1.0"),
        (f"solve --alpha 1 {MODEL} --tolerance nan", "tolerance must be > 0 and finite, got nan"),
        (
            "solve --alpha 1 --beta two --rho 1",
            "Invalid value for '--beta': 'two' is not a valid float. See 'bsr solve --help'.",
        ),
        (f"solve {MODEL}", "Missing option '--alpha'. See 'bsr solve --help'."),
        ("nothing", "No such command 'nothing'. See 'bsr --help'."),
        ("fixed-points --alpha 1 --beta nan --rho 1", "beta must be >= 1, got nan"),
        (f"curve --alpha 0:1:5 {MODEL}", "alpha must be > 0 and finite, got 0.0 in '0:1:5'"),
        (f"curve --alpha 1,inf {MODEL}", "alpha must be > 0 and finite, got inf in '1,inf'"),
        (f"curve --alpha 0.1:1:0 {MODEL}", r"COUNT in alpha must be in \[1, 10000000\], got 0"),
        (f"curve --alpha 0.1:1:2.5 {MODEL}", "alpha must be START:STOP:COUNT.*, got '0.1:1:2.5'"),
        (f"curve --alpha 0.1:1 {MODEL}", "alpha must be START:STOP:COUNT.*, got '0.1:1'"),
        (f"curve --alpha 0.1:1:5:lin {MODEL}", "alpha must be START.*, got '0.1:1:5:lin'"),
        (f"curve --alpha , {MODEL}", "alpha must be START:STOP:COUNT.*, got ','"),
        ("curve --alpha 0.1:1:5 --beta 2 --rho -1", "rho must be > 0, got -1.0"),
        (
            f"curve --alpha 0.1:1:5 {MODEL} --output .",
            "Invalid value for '--output': File '.' is a directory. See 'bsr curve --help'.",
        ),
        (f"curve --alpha 0.1:1:5 {MODEL} --output file/x.csv", "cannot write file/x.csv: .+"),
        (f"curve --alpha 0.1:1:5 {MODEL} --plot x.doc", "path must end in .*, got 'x.doc'"),
        ("figure 99", "figure must be one of 1, 2, 3, .*, got '99'"),
        ("figure 8 --delta 0.1", "delta cannot be chosen for figure 8, got 0.1"),
        ("figure 1 --delta nan", "delta must be >= 0 and finite, got nan"),
        ("figure 1 2 --output x.png", "output must be a folder for 2 figures, got 'x.png'"),
        ("figure 1 --output x.doc", "path must end in .*, got 'x.doc'"),
        ("figure 8 --output file/", "cannot write file/figure_8.png: .+"),
        ("figure 1 --dpi 1", "Invalid value for '--dpi': 1 is not in .*"),
    ],
)
def test_bad_input_is_one_clear_line(line: str, message: str, here: Path) -> None:
    (here / "file").touch()
    result = bsr_run(line, exit_code=2)
    assert result.stdout == ""
    assert re.fullmatch(f"Error: {message}\n", result.stderr), result.stderr


@pytest.mark.parametrize("line", [f"solve --alpha 1 {MODEL}", "figure 8", "info"])
def test_a_bad_number_of_threads_is_one_clear_line(
    line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BSR_THREADS", "many")
    result = bsr_run(line, exit_code=2)
    assert result.stderr == "Error: BSR_THREADS must be a positive integer, got 'many'\n"


def test_unsolved_points_are_printed_and_told() -> None:
    """No residual reaches 1e-30."""
    advice = bsr.Status.NOT_CONVERGED.advice
    line = f"curve --alpha 0.2,0.4,0.9 {MODEL} --tolerance 1e-30 --format csv"
    result = bsr_run(line, exit_code=1)
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["mmse"] for row in rows] == ["nan", "nan", "0.0"]
    assert [row["status"] for row in rows] == ["not_converged"] * 2 + ["perfect_recovery"]
    assert result.stderr == f"2 of 3 points not_converged: {advice}\n"

    line = f"solve --alpha 0.2 {MODEL} --tolerance 1e-30"
    result = bsr_run(line, exit_code=1)
    assert re.search(r"^mmse +nan ", result.stdout, re.M)
    assert result.stdout.count(advice) == 1
    assert result.stderr == ""
    result = bsr_run(f"{line} --format json", exit_code=1)
    assert strict_json(result.stdout)["solution"]["mmse"] == "nan"
    assert advice in result.stderr


def test_an_unsolved_figure_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsolved(name: str, **given: Any) -> None:
        raise bsr.ConvergenceError("1 of 2 points: NOT_CONVERGED.")

    monkeypatch.setattr(bsr.figures, "make", unsolved)
    assert bsr_run("figure 1", exit_code=1).stderr == "Error: 1 of 2 points: NOT_CONVERGED.\n"


def test_ctrl_c_ends_quietly_and_leaves_no_file(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bsr, "solve", interrupted)
    result = bsr_run(f"curve --alpha 0.1:1:5 {MODEL} --output curve.csv", exit_code=130)
    assert result.output == "\nInterrupted.\n"
    assert not list(here.iterdir())


def test_verify_prints_a_table_or_json() -> None:
    table = bsr_run("verify --only denoiser --only ridge").stdout
    assert re.search(r"^ok +denoiser ", table, re.M)
    assert re.search(r"^ok +ridge ", table, re.M)
    assert "2 of 2 certificates hold" in table
    outcomes = strict_json(bsr_run("verify --only denoiser --json").stdout)
    assert [(o["name"], o["passed"], o["error"]) for o in outcomes] == [("denoiser", True, 0.0)]
    listed = bsr_run("verify --list").stdout
    assert all(f"{c.name}\n    {c.formula}" in listed for c in bsr.verify.certificates())


def test_verify_fails_when_a_formula_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    (right,) = (c for c in bsr.verify.certificates() if c.name == "infinite-rho-mmse")
    wrong = replace(right, subject=lambda s: 1.01 * s / (1 + s))
    monkeypatch.setattr(bsr.verify, "_CERTIFICATES", [wrong])
    assert "FAILED  infinite-rho-mmse" in bsr_run("verify", exit_code=1).stdout
    assert strict_json(bsr_run("verify --json", exit_code=1).stdout)[0]["passed"] is False


def test_verify_knows_its_certificates() -> None:
    result = bsr_run("verify --only nonsense", exit_code=2)
    assert "only must name certificates among free-product," in result.stderr
    assert len(result.stderr.splitlines()) == 1
