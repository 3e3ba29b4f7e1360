"""Starting: the command line with and without compiled code in the cache, and imports; memory."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import Peer

pytestmark = [pytest.mark.bench, pytest.mark.benchmark(group="starting")]

CURVE = ["-m", "bsr_theory", "curve", "--alpha", "0.1:0.7:7", "--beta", "2", "--rho", "0.5"]


def python(*arguments, **environment):
    """Return the work of running Python in a process of its own."""

    def run():
        done = subprocess.run(
            [sys.executable, *arguments],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    return run


def test_command(race, tmp_path):
    fresh = (str(tmp_path / f"cold-{k}") for k in itertools.count())
    warm = python(*CURVE, NUMBA_CACHE_DIR=str(tmp_path / "warm"))
    warm()
    race(
        "`bsr curve` of 7 points, warm",
        warm,
        unit="start",
        rounds=3,
        peers=[
            Peer(
                "the same, cold: all it needs is compiled",
                lambda: python(*CURVE, NUMBA_CACHE_DIR=next(fresh))(),
                every=False,
            ),
            Peer(
                "importing NumPy, SciPy's solvers and Numba alone",
                python("-c", "import numpy, scipy.optimize, scipy.special, numba"),
            ),
        ],
    )


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_quick_answers(race, option):
    race(
        f"`bsr {option}`",
        python("-m", "bsr_theory", option),
        unit="start",
        peers=[Peer("importing NumPy alone", python("-c", "import numpy"))],
    )


def test_import(race):
    race(
        "`import bsr_theory`",
        python("-c", "import bsr_theory"),
        unit="start",
        peers=[Peer("Python alone", python("-c", "pass"))],
    )


MEMORY = """
import numpy as np
import bsr_theory as bsr

def most():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))

prior = bsr.GaussianFactorPrior(2.0, 0.2)
s = np.geomspace(1e-3, 10.0, 10**6)
prior.mmse(s[:2000])
before = most()
prior.mmse(s)
print(1024 * (most() - before))
"""


@pytest.mark.benchmark(group="memory")
def test_memory_of_a_million_points(benchmark):
    if not Path("/proc/self/status").exists():
        pytest.skip("the memory of a process is read from /proc/self/status, which Linux has")
    run = python("-c", MEMORY, BSR_THREADS="")
    grown = int(benchmark.pedantic(run, rounds=1))
    benchmark.extra_info.update(task="mmse, array of a million noises", bytes=grown, count=10**6)
