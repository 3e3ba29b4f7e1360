"""The command line, figures and the explorer with whatever options: a result or one clear line.

No traceback, no NaN in JSON, no warning, and exit code 0, 1 (a point that was not solved) or 2.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
import urllib.parse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from command_line import strict_json
from hypothesis import strategies as st
from test_fuzz import INF, NAN, NO_NUMBERS, fuzz

import bsr_theory as bsr
from bsr_theory import cli, figures
from bsr_theory.explore.model import CHANNELS, View, explore

NUMBERS = [
    "0.5", "1", "2", "0.1", "1e-3", "0", "-0", "-1", "1e-300", "1e300", "1e400", "inf", "-inf",
    "nan", "five", "", "0.1.2", "1e", "½", "0x10", "1_0", "1,5", "\N{ARABIC-INDIC DIGIT ONE}",
]  # fmt: skip
RANGES = [
    "0.1:1:3", "0.5", "0.2,0.4", "1e-3:10:4:log", "1:0.1:3", "0.1:1:0", "0.1:1:1", "0:1:2:log",
    "::", "a:b:c", "0.1:1", "0.1:1:3:lin", "inf:1:2", "nan", "0.1,,0.2", "-1,1", "", "0.1:1:2.5",
    "1:1:2",
]  # fmt: skip
AXES = [
    "alpha=0.2:1:3",
    "delta=0,0.1",
    "beta=1,2",
    "rho=0.5:2:2:log",
    "alpha",
    "delta",
    "gain",
    "=",
]
CHANNEL = ["linear", "sign", "abs", "relu", "logistic", "quantized", "cubic", ""]
PRIOR = ["factors", "low-rank-factors", "symmetric-factors", "sparse"]
FILES = [
    "weights.npy",
    "values.txt",
    "eigenvalues.txt",
    "text.txt",
    "none.npy",
    "",
    ".",
    "empty.npy",
]
FORMATS = ["text", "json", "table", "csv", "xml"]

OPTIONS: dict[str, list[str]] = {
    **dict.fromkeys(["--beta", "--rho", "--delta", "--gain", "--tolerance", "--lam"], NUMBERS),
    "--channel": CHANNEL, "--prior": PRIOR, "--scale": ["unit", "none", "both"],
    "--levels": ["-1,0,1", "0", "1,0", "a", "", "0,inf", "nan"],
    **dict.fromkeys(["--weights", "--singular-values", "--eigenvalues"], FILES),
    "--format": FORMATS, "--output": ["out.csv", "out.json", "out.nc", "no/out.csv", "", "."],
    "--plot": ["out.png", "out.svg", "out.doc", "no/out.png", ""],
    "--x": AXES, "--y": AXES, "--quantity": ["mmse_bayes", "mmse_algorithm", "error"],
    "--d1": ["4", "1", "0", "-1", "2.5", "x"], "--samples": ["1", "2", "0", "x"],
    "--seed": ["0", "-1", "1e3", "18446744073709551616"], "--steps": ["1", "3", "0", "x"],
    "--start": ["0.5", "0", "1", "nan", "x"], "--workers": ["1", "0", "x"],
}  # fmt: skip
# Lines that work, whose numbers N, B (aspect ratios) and words are then changed.
VALID = [
    "solve --alpha N --beta B --rho N --delta N",
    "solve --alpha N --beta B --rho N --delta N --channel CHANNEL --format json",
    "solve --alpha N --channel logistic --gain N --beta B --rho N",
    "solve --alpha N --weights weights.npy --delta N --scale unit --format json",
    "solve --alpha N --prior low-rank-factors --beta B --delta N --tolerance 1e-9",
    "curve --alpha 0.1:1:3 --beta B --rho N --delta N --format json",
    "curve --alpha 0.1,N --beta B --rho N --delta N --channel CHANNEL --output out.csv",
    "curve --alpha 1e-3:10:4:log --singular-values values.txt --beta B --delta N",
    "curve --alpha 0.2,0.4 --beta B --rho N --plot out.png",
    "fixed-points --alpha N --beta B --rho N --delta N --channel CHANNEL --format csv",
    "fixed-points --alpha N --eigenvalues eigenvalues.txt --delta N --format json",
    "thresholds --beta B --rho N --delta N --channel CHANNEL --format json",
    "thresholds --prior symmetric-factors --rho N --delta N",
    "phase-diagram --x alpha=0.2:1:3 --y delta=0,N --beta B --rho N --channel CHANNEL",
    "phase-diagram --x alpha=0.2:1:2 --y rho=0.5:2:2:log --beta B --delta N --format json",
    "phase-diagram --x beta=1,B --y rho=N,2 --alpha N --output out.nc",
    "estimate ridge --alpha 0.1:1:3 --beta B --rho N --delta N --lam N --format json",
    "estimate nuclear-norm --alpha 0.3,N --beta B --rho N --delta N --lam optimal",
    "estimate nuclear-norm --alpha 0.3 --eigenvalues eigenvalues.txt --delta N --lam N",
    "simulate ridge --alpha 0.5 --beta 2 --rho 1 --delta N --d1 4 --samples 2 --workers 1 --lam N",
    "simulate amp --alpha 0.5 --beta 1 --rho 1 --delta N --d1 4 --samples 1 --workers 1 --steps 3",
    "figure 12 --delta N --beta B --dpi 100",
    "verify --list",
    "info --json",
]


def number(rng: np.random.Generator) -> str:
    return f"{10.0 ** rng.uniform(-3, 1.5):.3g}"


def mutated(rng: np.random.Generator, words: list[str]) -> list[str]:
    """Return the words with one value exchanged, or one option more or less."""
    # without these it takes a minute
    kept = ("--d1", "--samples", "--list")
    options = [i for i, word in enumerate(words) if word.startswith("--") and word not in kept]
    kind = rng.integers(0, 5)
    if kind == 0 or not options:
        option = str(rng.choice(list(OPTIONS)))
        return [*words, option, str(rng.choice(OPTIONS[option]))]
    at = int(rng.choice(options))
    if kind == 1:
        return words[:at] + words[at + 2 :]
    values = RANGES if words[at] == "--alpha" else OPTIONS.get(words[at], NUMBERS)
    return [*words[: at + 1], str(rng.choice(values)), *words[at + 2 :]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.save("weights.npy", rng.standard_normal((5, 8)))
    np.save("empty.npy", np.zeros((0, 3)))
    Path("values.txt").write_text("0.5\n1\n2\n", encoding="utf-8")
    Path("eigenvalues.txt").write_text("-1\n1\n", encoding="utf-8")
    Path("text.txt").write_text("one\ntwo\n", encoding="utf-8")
    return tmp_path


@st.composite
def lines(draw: Any) -> str:
    """Draw a command line that works or nearly so."""
    template = draw(st.sampled_from(VALID))
    rng = np.random.default_rng(draw(st.integers(0, 2**63)))
    channel = str(rng.choice(["linear", "sign", "abs", "relu", "quantized"]))
    line = template.replace("CHANNEL", channel)
    line = re.sub(r"\bB\b", lambda _: str(rng.choice(["1", "2", "1.37", "40", "inf"])), line)
    words = shlex.split(re.sub(r"\bN\b", lambda _: number(rng), line))
    for _ in range(rng.choice([0, 1, 1, 2])):
        words = mutated(rng, words)
    return shlex.join(words)


@pytest.mark.parametrize("examples", [60, pytest.param(10_000, marks=pytest.mark.slow)])
def test_command_lines(examples: int, here: Path) -> None:
    codes = set()

    def test(line: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = CliRunner().invoke(cli.main, shlex.split(line), prog_name="bsr")
        if not isinstance(result.exception, SystemExit | None):
            raise AssertionError(f"bsr {line}") from result.exception
        assert result.exit_code in (0, 1, 2), line
        assert "Traceback" not in result.output, line
        codes.add(result.exit_code)
        if result.exit_code == 2:
            said = result.stderr.strip().splitlines()
            assert said[-1].startswith(("Error: ", "bsr: ")) or len(said) > 1, (line, said)
        elif "--format json" in line[line.rfind("--format") :] and "--output" not in line:
            strict_json(result.stdout)

    fuzz(lines(), examples, test)
    assert {0, 2} <= codes


@pytest.mark.parametrize("examples", [20, pytest.param(10_000, marks=pytest.mark.slow)])
def test_views(examples: int) -> None:
    names = [field.name for field in dataclasses.fields(View)]
    words = st.one_of(st.sampled_from([*NUMBERS, *CHANNEL, *CHANNELS, "1", "yes"]), st.text())

    def test(given: dict[str, str]) -> None:
        view, problems = View.read(given)
        assert all(isinstance(x, str) and x for x in problems)
        again, none = View.read(dict(urllib.parse.parse_qsl(view.query)))
        assert (again.query, none) == (view.query, [])  # it says what the channel takes

    fuzz(st.dictionaries(st.sampled_from([*names, "other"]), words, max_size=6), examples, test)


@pytest.mark.parametrize("examples", [3, pytest.param(10_000, marks=pytest.mark.slow)])
def test_what_is_explored(examples: int) -> None:
    def test(seed: int) -> None:
        rng = np.random.default_rng(seed)
        given = {
            "channel": str(rng.choice(list(CHANNELS))),
            "alpha": repr(10.0 ** rng.uniform(-2, 1)),
            "beta": str(rng.choice(["1", "inf", repr(1.0 + rng.exponential())])),
            "rho": str(rng.choice(["inf", repr(10.0 ** rng.uniform(-3, 2))])),
            "delta": str(rng.choice(["0", repr(10.0 ** rng.uniform(-4, 1))])),
            "log": str(rng.choice(["0", "1"])),
        }
        view, _ = View.read(given)
        seen = explore(view)
        assert np.isfinite(seen.curve.mmse_bayes).all()
        strict_json(seen.to_json())
        assert len(seen.to_csv().splitlines()) > 10

    fuzz(st.integers(0, 2**63), examples, test)


@pytest.mark.parametrize("name", sorted(figures.FIGURES))
def test_figures_say_what_they_do_not_take(name: str, tmp_path: Path) -> None:
    recipe = figures.FIGURES[name]
    for option, wrong in (
        ("delta", [-1.0, NAN, INF, *NO_NUMBERS]),
        ("beta", [0.5, NAN, *NO_NUMBERS]),
    ):
        for value in wrong:
            with pytest.raises(ValueError, match=option):
                figures.make(name, fast=True, path=tmp_path / "x.png", **{option: value})
    with pytest.raises(ValueError, match="path"):
        figures.make(name, fast=True, path=tmp_path / "x.doc")
    if not recipe.any_prior:
        prior = bsr.GaussianFactorPrior(1.0, 0.5)
        with pytest.raises(ValueError, match="priors"):
            figures.make(name, fast=True, path=tmp_path / "x.png", priors={"one": prior})
    assert not list(tmp_path.iterdir())
