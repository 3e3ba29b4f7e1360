"""Benchmarks: one thread unless they say otherwise, and a record without names of machines."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# high-precision references and the straightforward calculation are kept with the tests
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from harness import Race, machine


def pytest_addoption(parser):
    parser.addoption(
        "--rounds", type=int, default=None, help="most rounds of a race (to try benchmarks out)"
    )


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info.pop("node", None)
    machine_info["bsr_theory"] = machine()


def pytest_benchmark_update_commit_info(config, commit_info):
    for name in ("project", "branch"):
        commit_info.pop(name, None)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("BSR_THREADS", "1")


@pytest.fixture
def race(benchmark, request):
    return Race(benchmark, request.config.getoption("--rounds"))
