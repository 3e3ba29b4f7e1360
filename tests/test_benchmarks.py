"""The benchmarks: each file is found, races are fair, the page says what was measured."""

from __future__ import annotations

import copy
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import report

    return report


@pytest.fixture
def harness(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import harness

    return harness


def entry(task="a task", **values):
    return {
        "task": task,
        "unit": "value",
        "count": 2000,
        "seconds": 12.34e-6,
        "error": 2.6e-13,
        "threads": 1,
        "rounds": 5,
        "peers": [],
        "promises": [],
    } | values


def peer(name="another way", **values):
    return {"name": name, "seconds": 15.2e-3, "ratio": 1234.5, "error": 3.2e-9} | values


MEASURED = {
    "machine_info": {
        "node": "a-name-that-nobody-needs",
        "cpu": {"brand_raw": "A processor"},
        "bsr_theory": {
            "system": "Linux x86_64",
            "python": "CPython 3.11.7",
            "versions": {"bsr_theory": "0.1.0", "numpy": "2.4.6"},
            "threads": 2,
            "blas": ["openblas"],
            "blas_threads": 2,
        },
    },
    "commit_info": {"id": "0123abcd", "time": "2001-02-03T04:05:06"},
    "datetime": "2001-02-03T04:05:06",
    "benchmarks": [
        {
            "group": "curves",
            "extra_info": entry(
                "a curve",
                threads="all",
                unit="point",
                count=500,
                error=None,
                promises=[
                    {"kind": "seconds", "bound": 1e-4, "measured": 1.5e-4, "kept": False},
                ],
            ),
        },
        {
            "group": "denoising",
            "extra_info": entry(
                "mmse |s|",
                peers=[peer(), peer("one more", ratio=0.4321, error=None)],
                promises=[
                    {"kind": "ratio", "bound": 1000.0, "measured": 1234.5, "kept": True},
                ],
            ),
        },
        {"group": "memory", "extra_info": {"task": "much", "bytes": 24_100_000, "count": 10**6}},
    ],
}


CURVES = "Fixed points and learning curves"


def rows(page, title):
    """Return the table below a heading, its cells stripped, the rule left out."""
    part = page.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    assert len({len(row) for row in cells}) == 1
    # no space inside a quantity is one where a line may break
    assert not any(re.search(r"\d (s|ms|ns|MB)\b", cell) for row in cells for cell in row)
    return [[cell.strip().replace("\u00a0", " ") for cell in row] for row in (cells[0], *cells[2:])]


class TestReport:
    def test_ratios_times_and_errors(self, report):
        found = rows(report.report(MEASURED), "Denoising: error and information")
        assert found == [
            [
                "Task", "Threads", "Time", "Each", "Error",
                "Other way", "Each of its", "Its error", "Ratio",
            ],
            [
                r"mmse \|s\|", "1", "25 ms", "12 \u00b5s a value", "3e-13",
                "another way", "15 ms", "3e-09", "**1,200**",
            ],
            ["", "", "", "", "", "one more", "15 ms", "", "**0.43**"],
        ]  # fmt: skip

    def test_columns_without_content_are_left_out(self, report):
        found = rows(report.report(MEASURED), CURVES)
        assert found == [
            ["Task", "Threads", "Time", "Each"],
            ["a curve", "2", "6.2 ms", "12 \u00b5s a point"],
        ]

    def test_one_unit_a_call_is_not_said_twice(self, report):
        single = [{"group": "curves", "extra_info": entry("a point", unit="entry", count=1)}]
        found = rows(report.report(MEASURED | {"benchmarks": single}), CURVES)
        assert found[1] == ["a point", "1", "12 \u00b5s", "3e-13"]
        several = [{"group": "curves", "extra_info": entry("two", unit="entry", count=2)}]
        found = rows(report.report(MEASURED | {"benchmarks": several}), CURVES)
        assert found[1] == ["two", "1", "25 \u00b5s", "12 \u00b5s an entry", "3e-13"]

    def test_memory_and_promises(self, report):
        page = report.report(MEASURED)
        assert rows(page, "Memory")[1] == ["much", "24 MB", "24 bytes"]
        assert rows(page, "Promises")[1:] == [
            [r"mmse \|s\|", "ratio at least 1,000", "1,200", "yes"],
            ["a curve", "at most 50 ms", "75 ms", "**no**"],
        ]

    def test_machine_without_names_and_dates(self, report):
        page = report.report(MEASURED)
        assert "A processor, 2 cores; Linux x86_64" in page
        assert "bsr_theory 0.1.0, numpy 2.4.6" in page
        for private in ("a-name", "2001", "0123abcd"):
            assert private not in page

    def test_noise_below_the_rounding_changes_nothing(self, report):
        again = copy.deepcopy(MEASURED)
        again["benchmarks"][1]["extra_info"]["seconds"] *= 1.003
        again["benchmarks"][1]["extra_info"]["peers"][0]["ratio"] *= 0.997
        assert report.report(again) == report.report(MEASURED)

    def test_unknown_group_and_nothing_measured(self, report):
        with pytest.raises(ValueError, match="nothing"):
            report.report(MEASURED | {"benchmarks": []})
        odd = [{"group": "odd", "extra_info": entry()}]
        with pytest.raises(ValueError, match="got odd"):
            report.report(MEASURED | {"benchmarks": odd})

    def test_as_a_command(self, report, tmp_path):
        source, page = tmp_path / "measured.json", tmp_path / "page.md"
        source.write_text(json.dumps(MEASURED), encoding="utf-8")
        subprocess.run([sys.executable, BENCHMARKS / "report.py", source, page], check=True)
        assert page.read_text(encoding="utf-8") == report.report(MEASURED)

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (3.14159e-10, "0.31 ns"),
            (4.56e-8, "46 ns"),
            (9.996e-7, "1.0 \u00b5s"),
            (0.0123, "12 ms"),
            (0.9999, "1.0 s"),
            (123.0, "120 s"),
        ],
    )
    def test_durations(self, report, seconds, text):
        assert report.duration(seconds) == text

    @pytest.mark.parametrize(
        ("value", "text"),
        [(None, ""), (2.6e-13, "3e-13"), (0.0, "< 1e-15"), (1e-15, "1e-15"), (math.nan, "nan")],
    )
    def test_errors(self, report, value, text):
        assert report.error(value) == text

    @pytest.mark.parametrize(
        ("value", "text"),
        [(0.0, "0"), (9.96, "10"), (0.0996, "0.10"), (99_600.0, "100,000"), (1.0, "1.0")],
    )
    def test_rounding(self, report, value, text):
        assert report.rounded(value) == text

    def test_page_in_the_documentation_has_this_form(self, report):
        page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
        assert page.startswith(report.OPENING)
        for title, text in report.THEMES.values():
            assert f"## {title}\n\n{text}\n\n| Task" in page
            assert len(rows(page, title)) > 1


class Clockwork:
    """Stands for the clock, which work moves on, and for the benchmark fixture."""

    def __init__(self):
        self.now, self.extra_info, self.turns = 0.0, {}, []

    def perf_counter(self):
        return self.now

    def work(self, seconds, who="ours"):
        def run():
            self.turns.append(who)
            self.now += seconds
            return who

        return run

    def pedantic(self, work, setup, rounds):
        times = []
        for _ in range(rounds):
            setup()
            start = self.now
            work()
            times.append(self.now - start)
        self.stats = SimpleNamespace(stats=SimpleNamespace(data=times))


class TestRace:
    @pytest.fixture
    def clock(self, harness, monkeypatch):
        clock = Clockwork()
        monkeypatch.setattr(harness, "time", clock)
        return clock

    def test_ratio_is_that_of_the_times_of_a_unit(self, harness, clock):
        slow = harness.Peer("slow", clock.work(0.06, "slow"), count=2, error=len)
        work = clock.work(0.02)
        harness.Race(clock, None)("task", work, unit="nap", count=4, peers=[slow], rounds=3)
        info = clock.extra_info
        assert info["seconds"] == pytest.approx(0.005)
        assert info["rounds"] == 3
        (peer,) = info["peers"]
        assert peer["seconds"] == pytest.approx(0.03)
        assert peer["ratio"] == pytest.approx(6.0)
        assert peer["error"] == len("slow")  # of its result

    def test_ratio_is_within_rounds(self, harness, clock):
        """Neither a machine that is slower in one round nor a turn that is disturbed counts."""
        prepared, rounds = [1, 1, 1, 1], [10, 1, 4, 4, 1, 1]  # peer and task by turns
        slower = iter(prepared + rounds)

        def work(seconds):
            def run():
                clock.now += seconds * next(slower)

            return run

        harness.Race(clock, 3)("task", work(0.02), peers=[harness.Peer("peer", work(0.06))])
        assert clock.extra_info["peers"][0]["ratio"] == pytest.approx(3.0)

    def test_quick_work_is_repeated_and_turns_alternate(self, harness, clock):
        peer = harness.Peer("peer", clock.work(0.06, "peer"))
        harness.Race(clock, None)("task", clock.work(0.004), peers=[peer], rounds=2)
        ours, once = ["ours"] * 3, ["peer"]
        assert clock.turns == ["ours"] * 2 + ["peer"] * 2 + (once + ours) * 2
        assert clock.extra_info["seconds"] == pytest.approx(0.004)

    def test_slow_peer_runs_once(self, harness, clock):
        peer = harness.Peer("peer", clock.work(60.0, "peer"), every=False)
        harness.Race(clock, None)("task", clock.work(0.02), peers=[peer], rounds=4)
        assert clock.turns.count("peer") == 1
        assert clock.extra_info["peers"][0]["ratio"] == pytest.approx(3000.0)

    def test_missed_promise_fails_after_the_record(self, harness, clock):
        peer = harness.Peer("peer", clock.work(0.02))
        with pytest.raises(AssertionError, match="ratio"):
            harness.Race(clock, 1)("task", clock.work(0.02), peers=[peer], at_least=5)
        assert [p["kept"] for p in clock.extra_info["promises"]] == [False]
        with pytest.raises(AssertionError, match="seconds"):
            harness.Race(clock, 1)("task", clock.work(0.02), at_most=1e-3)
        harness.Race(clock, 1)("task", clock.work(0.02), at_most=10.0)
        assert [p["kept"] for p in clock.extra_info["promises"]] == [True]

    def test_threads_are_those_asked_for(self, harness, monkeypatch):
        from bsr_theory._arrays import threads

        monkeypatch.setenv("BSR_THREADS", "3")
        assert harness.on_threads(1, threads)() == 1
        everything = harness.on_threads("all", threads)()
        assert harness.machine()["threads"] == everything
        assert threads() == 3

    def test_relative_error_in_the_precision_of_the_reference(self, harness):
        from mpmath import mp, mpf

        with mp.workdps(30):
            assert harness.relative_error([1.0, 2.0], [mpf(1), mpf(2) + mpf(10) ** -20]) == (
                pytest.approx(5e-21, rel=1e-6, abs=0)
            )
        assert harness.relative_error(1.5, 1.0) == 0.5
        assert math.isnan(harness.relative_error([1.0, math.nan], [1.0, 1.0]))


def test_every_file_of_benchmarks_is_collected():
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "bench",
            "-p", "no:cacheprovider", "-p", "no:xdist", "benchmarks",
        ],
        cwd=ROOT,
        # the plugin of benchmarks takes these for its own xdist
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = {line.split("::")[0] for line in done.stdout.splitlines() if "::" in line}
    files = {f"benchmarks/{path.name}" for path in BENCHMARKS.glob("test_*.py")}
    assert found == files and len(files) >= 8
