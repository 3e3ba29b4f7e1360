"""The commands `bsr sweep` and `bsr merge`."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import bsr_run

import bsr_theory as bsr
from bsr_theory import cli
from bsr_theory.results import read_dataset

SOLVE = "sweep solve --set beta=2 --set delta=0.1 --workers 1"
MINE = """
def product(x, y=2, kind="a"):
    return {"value": x * y, "kind": kind, "type": type(x).__name__}

def bad(x):
    if x == 2:
        raise ArithmeticError("no")
    return x

value = 3
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a module and nothing else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("of_the_user", "cmath_of_mine"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "of_the_user.py").write_text(MINE)
    return tmp_path


def test_solve_on_a_grid() -> None:
    line = f"{SOLVE} --axis alpha=0.2:0.6:3 --axis rho=0.5,inf --output deep/mmse.nc"
    assert bsr_run(line).stderr == "deep/mmse.nc: 3 alpha, 2 rho\n"
    data = read_dataset("deep/mmse.nc")
    alpha = np.linspace(0.2, 0.6, 3)
    assert data.alpha.values.tolist() == alpha.tolist()
    assert data.rho.values.tolist() == [0.5, np.inf]
    point = bsr.solve(bsr.bilinear_regression(alpha[:, None], 2.0, [0.5, np.inf], 0.1))
    for name in ("mmse", "q", "qhat", "information"):
        assert data[name].values == pytest.approx(getattr(point, name), rel=1e-12)
    assert (data.status == "converged").all()
    assert bsr_run(line).stderr == "deep/mmse.nc: 3 alpha, 2 rho\n"  # reads it


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.1:1:10", np.linspace(0.1, 1, 10).tolist()),
        ("0.01:10:4:log", np.geomspace(0.01, 10, 4).tolist()),
        ("-1:1:3", [-1, 0, 1]),
        ("0:1:3", [0.0, 0.5, 1.0]),
        ("20:100:5", [20, 40, 60, 80, 100]),
        ("20.0:100:5", [20.0, 40.0, 60.0, 80.0, 100.0]),
        ("0,0.1,inf", [0, 0.1, np.inf]),
        ("7", [7]),
        ("dense,stream", ["dense", "stream"]),
        ("true,false", [True, False]),
    ],
)
def test_the_values_of_an_axis(text: str, values: list[object]) -> None:
    found = cli._values("x", text)
    assert found == values
    assert list(map(type, found)) == list(map(type, values))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{SOLVE} --axis alpha=1:2 --output a.nc", "alpha must be START:STOP:COUNT"),
        (f"{SOLVE} --axis alpha=0:2:3:log --output a.nc", "alpha must be > 0 and finite"),
        (f"{SOLVE} --axis alpha=nan --output a.nc", "axis alpha must not hold NaN"),
        (f"{SOLVE} --axis alpha=1,a --output a.nc", "axis alpha must hold values of one kind"),
        (f"{SOLVE} --axis alpha --output a.nc", "axis must be NAME=RANGE, got 'alpha'"),
        (f"{SOLVE} --axis alpha=1 --axis alpha=2 --output a.nc", "axis must name alpha once"),
        (f"{SOLVE} --axis beta=1 --output a.nc", "set must name other arguments than the axes"),
        (f"{SOLVE} --axis alpha=1 --output a.nc", "axes must fit"),
        (f"{SOLVE} --axis alpha=1 --axis rho=1 --axis rhoo=1 --output a.nc", "argument 'rhoo'"),
        (f"{SOLVE} --axis path=1 --output a.nc", "axis must have another name, path is taken"),
        (f"{SOLVE} --axis alpha=1 --shard 1 --output a.nc", "shard must be I/N"),
        (f"{SOLVE} --axis alpha=1 --shard 4/4 --output a.nc", "counts from 0/4 to 3/4, got '4/4'"),
        ("sweep solves --axis x=1 --output a.nc", "quantity must be one of solve, or MODULE"),
        ("sweep nowhere:f --axis x=1 --output a.nc", "cannot import nowhere"),
        ("sweep nowhere.py:f --axis x=1 --output a.nc", "there is no file nowhere.py"),
        ("sweep of_the_user:f --axis x=1 --output a.nc", "there is no function f in of_the_user"),
        ("sweep of_the_user:value --axis x=1 --output a.nc", "no function value in of_the_user"),
        ("sweep solve --axis alpha=1", "Missing option '--output'"),
        ("merge nothing.nc --output a.nc", "paths must name files that exist"),
        ("merge --output a.nc", "Missing argument"),
    ],
)
def test_bad_input_is_one_line(line: str, message: str, here: Path) -> None:
    error = bsr_run(line, exit_code=2).stderr
    assert message in error
    assert error.startswith("Error: ") and error.count("\n") == 1
    assert sorted(path.name for path in here.iterdir() if path.suffix == ".nc") == []


def test_a_file_with_the_name_of_a_module_is_refused(here: Path) -> None:
    (here / "json.py").write_text(MINE)
    error = bsr_run("sweep json.py:product --axis x=1 --output a.nc", exit_code=2).stderr
    assert "json.py has the name of another module" in error


def test_a_file_that_cannot_be_written_is_one_line(here: Path) -> None:
    (here / "file").touch()
    error = bsr_run(f"{SOLVE} --axis alpha=1 --axis rho=1 --output file/a.nc", exit_code=2).stderr
    assert error.startswith("Error: cannot write file/a.nc") and error.count("\n") == 1


def test_functions_of_the_user(here: Path) -> None:
    folder = here / "elsewhere"
    folder.mkdir()
    (here / "of_the_user.py").rename(folder / "of_the_user.py")
    line = (
        "sweep elsewhere/of_the_user.py:product --axis x=1:3:3 --set y=0.5 --set kind=b "
        "--workers 1 --output a.nc"
    )
    bsr_run(line)
    data = read_dataset("a.nc")
    assert data.value.values.tolist() == [0.5, 1.0, 1.5]
    assert (data.kind == "b").all() and (data["type"] == "int").all()
    assert data.attrs["function"] == "of_the_user:product"


def test_another_sweep_in_the_same_file() -> None:
    start = "sweep of_the_user:product --workers 1 --output a.nc --axis"
    bsr_run(f"{start} x=1,2")
    error = bsr_run(f"{start} x=1,3", exit_code=2).stderr
    assert "a.nc holds another sweep than this one: axis x [1, 2] there, [1, 3] here" in error


def test_points_that_fail() -> None:
    line = "sweep of_the_user:bad --axis x=1,2,3 --workers 1 --output a.nc"
    error = bsr_run(line, exit_code=1).stderr
    assert error.startswith("Error: fn raised at 1 of 3 points, the first of them x=2: Arith")
    assert not Path("a.nc").exists()
    error = bsr_run(f"{line} --on-failure warn", exit_code=1).stderr
    assert error.splitlines()[0].startswith("fn raised at 1 of 3 points")
    assert error.splitlines()[1] == "a.nc: 3 x"
    assert np.isnan(read_dataset("a.nc").value.values).tolist() == [False, True, False]


def test_shards_from_a_job_array(here: Path) -> None:
    line = "sweep of_the_user:product --axis x=1:4:4 --axis y=1,10 --workers 1 --output"
    bsr_run(f"{line} whole.nc")
    for i in (0, 2):
        out = bsr_run(f"{line} run.nc --shard {i}/3")
    assert out.stderr == "run.shard-2-of-3.nc: 3 point\n"
    error = bsr_run("merge 'run.shard-*.nc' --output all.nc", exit_code=2).stderr
    assert "3 of 8 points are missing" in error
    bsr_run("merge run.shard-0-of-3.nc run.shard-2-of-3.nc --output holes.nc --allow-missing")
    assert np.isnan(read_dataset("holes.nc").value.values).any()
    bsr_run(f"{line} run.nc --shard 1/3")
    assert (
        bsr_run("merge 'run.shard-*.nc' --output deep/all.nc").stderr == "deep/all.nc: 4 x, 2 y\n"
    )
    whole, merged = read_dataset("whole.nc"), read_dataset("deep/all.nc")
    assert merged.equals(whole)


def test_the_installed_command_finds_modules_of_this_folder(here: Path) -> None:
    command = [sys.executable, "-c", "from bsr_theory.cli import main; main()"]
    words = shlex.split("sweep of_the_user:product --axis x=1,2 --workers 1 --output a.nc")
    environment = {"PYTHONPATH": str(Path(bsr.__file__).parent.parent), "PYTHONSAFEPATH": "1"}
    subprocess.run([*command, *words], check=True, env=environment, cwd=here)
    assert read_dataset("a.nc").value.values.tolist() == [2, 4]
