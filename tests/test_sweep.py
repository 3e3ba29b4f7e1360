"""Sweeps: every point once, whoever computes it and whatever happens in between."""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grid_functions
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import bsr_theory as bsr
from bsr_theory import results, sweeps
from bsr_theory.results import code_fingerprint, read_dataset, source_fingerprint, write_dataset

MIXED = {"x": [0.5, 1.5, 2.0], "k": [0, 1, 3], "kind": ["a", "long"]}
SCRIPT = Path(grid_functions.__file__)


def same(one: xr.Dataset, other: xr.Dataset) -> None:
    """Check that two datasets agree to the last bit, up to when and where they were made."""
    strip = ("created", "provenance", "shard")
    left, right = (
        d.assign_attrs({k: v for k, v in d.attrs.items() if k not in strip}) for d in (one, other)
    )
    for data in (left, right):
        for name in strip:
            data.attrs.pop(name, None)
    xr.testing.assert_identical(left, right)
    for name in one.data_vars:
        assert one[name].dtype == other[name].dtype, name


def started(trace: Path) -> Counter[int]:
    """Return how often each point was begun."""
    lines = trace.read_text().splitlines() if trace.exists() else []
    return Counter(int(line.split()[1]) for line in lines if line.startswith("start"))


def logged(log: Path) -> set[int]:
    """Return the points whose values are in a log."""
    lines = [line for line in log.read_text().split("\n")[1:-1] if line]
    return {entry["index"] for entry in map(json.loads, lines) if "values" in entry}


# --------------------------------------------------------------------------------------------
# Points and values
# --------------------------------------------------------------------------------------------


def test_every_point_is_called_once_with_plain_values() -> None:
    calls = []

    def record(**point: Any) -> float:
        calls.append(point)
        return point["a"]

    data = bsr.sweep(
        record, executor="serial", a=np.array([1.5, 2.0]), b=range(3), c=("u", "v"), d=[True, False]
    )
    expected = [
        dict(zip("abcd", point, strict=True))
        for point in itertools.product([1.5, 2.0], range(3), "uv", [True, False])
    ]
    assert calls == expected
    assert {type(x) for point in calls for x in point.values()} == {float, int, str, bool}
    assert data.value.dims == ("a", "b", "c", "d")
    assert [data[name].dtype.kind for name in "abcd"] == list("fiUb")


def test_values_stand_where_they_belong() -> None:
    data = bsr.sweep(grid_functions.mixed, executor="serial", **MIXED)
    for x, k, kind in itertools.product(*MIXED.values()):
        wanted = grid_functions.mixed(x, k, kind)
        here = data.sel(x=x, k=k, kind=kind)
        assert here.number == wanted["number"]
        assert here["count"] == k
        assert bool(here.flag) == wanted["flag"]
        assert here.word == wanted["word"]
        history = wanted["history"][1]
        assert here.history.values[: k + 2].tolist() == history.tolist()
        assert np.isnan(here.history.values[k + 2 :]).all()
        assert here.matrix.values.tolist() == wanted["matrix"][1].tolist()
        assert here.unnamed.values.tolist() == [x, k]
        assert np.isnan(here.sometimes) if k == 0 else here.sometimes == k
    assert data.matrix.dims == ("x", "k", "kind", "row", "column")
    assert data.unnamed.dims == ("x", "k", "kind", "unnamed_0")
    assert data.sizes["step"] == 5
    assert data["count"].dtype == np.int64
    assert data.flag.dtype == np.bool_
    assert data.visits.dtype == np.float64  # padded integers
    assert data.sometimes.dtype == np.float64


def test_integers_of_equal_length_stay_integers() -> None:
    data = bsr.sweep(lambda x: {"n": ("t", [x, 2**53 + 1])}, executor="serial", x=[1, 2])
    assert data.n.dtype == np.int64
    assert data.n.values[1].tolist() == [2, 2**53 + 1]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1j, "real numbers"),
        ([[1], [2, 3]], "inhomogeneous"),
        (object(), "real numbers"),
        (np.array(["a"]), "real numbers"),
        (2**63, "real numbers|64 bits"),
        (np.array([2**63], dtype=np.uint64), "64 bits with sign"),
        ({"x": 1}, "other than"),
        ({"error": 1}, "other than"),
        ({"a/b": 1}, "other than"),
        ({1: 1}, "other than"),
        ({"v": (("t",), [[1]])}, "a name for each of 2 dimensions"),
        ({"v": (("t", "t"), [[1]])}, "a name for each of 2 dimensions"),
        ({"v": ("x", [1])}, "a dimension of v"),
        ({"v": ("t", [1]), "w": ("t", [1, 2])}, "one length at a point, got 1 and 2"),
    ],
)
def test_values_that_cannot_be_stored_say_so(value: Any, message: str) -> None:
    with pytest.raises(RuntimeError, match=f"x=0: ValueError: .*({message})"):
        bsr.sweep(lambda x: value, executor="serial", x=[0])


def test_dimensions_that_differ_between_points_are_an_error_of_the_point() -> None:
    def fn(x: int) -> dict[str, Any]:
        return {"v": ("t" if x < 2 else "u", [x])}

    with pytest.raises(RuntimeError, match=r"1 of 3 points.*x=2.*\('u',\) here, \('t',\) at other"):
        bsr.sweep(fn, executor="serial", x=[0, 1, 2])


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({}, "axes must name at least one"),
        ({"x": []}, "axis x .* got none"),
        ({"x": 0.5}, "axis x must be a sequence of distinct .* got 0.5"),
        ({"x": "abc"}, "axis x must be a sequence"),
        ({"x": [[1, 2], [3, 4]]}, "axis x must be a sequence"),
        ({"x": [1, "a"]}, "axis x must be a sequence"),
        ({"x": [True, 2]}, "axis x must be a sequence"),
        ({"x": [None]}, "axis x must be a sequence"),
        ({"x": [1.0, math.nan]}, "axis x must not hold NaN"),
        ({"x": [1, 2, 1.0]}, r"axis x .* got 1\.0 twice"),
        ({"x": [10**30]}, "axis x must fit into 64 bits"),
        ({"point": [1]}, "name 'point'"),
        ({"y": [1]}, r"axes must fit .*:smooth\(x: .*argument"),
    ],
)
def test_bad_axes(axes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bsr.sweep(grid_functions.smooth, executor="serial", **axes)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"executor": "procesess"}, "executor must be .* got 'procesess'"),
        ({"executor": 0}, "at least one process, got 0"),
        ({"executor": True}, "executor must be"),
        ({"executor": object()}, "executor must be"),
        ({"on_failure": "ignore"}, "on_failure must be 'raise' or 'warn'"),
        ({"shard": 3}, r"shard must be a pair of integers \(i, n\), got 3"),
        ({"shard": (0.5, 2)}, "shard must be a pair of integers"),
        ({"shard": (4, 4)}, r"i in shard=\(i, n\) must be in \[0, 3\], got 4"),
        ({"shard": (-1, 4)}, r"must be in \[0, 3\], got -1"),
        ({"shard": (0, 7)}, r"must be in \[1, 6\] \(points\), got 7"),
        ({"attributes": {"code": 1}}, "attributes must have names other than"),
    ],
)
def test_bad_arguments(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bsr.sweep(grid_functions.smooth, **keywords, x=[1.0, 2.0], k=[0, 1, 2])
    with pytest.raises(ValueError, match="fn must be callable"):
        bsr.sweep(3, x=[1.0])  # type: ignore[arg-type]


def test_attributes_tell_where_it_comes_from() -> None:
    run = functools.partial(grid_functions.smooth, k=2)
    given = {"title": "a test", "nested": {"a": [1, 2]}, "nothing": None}
    attrs = bsr.sweep(run, executor="serial", attributes=given, x=[1.0]).attrs
    assert attrs["function"] == "grid_functions:smooth"
    assert json.loads(attrs["arguments"]) == {"k": 2}
    assert json.loads(attrs["axes"]) == ["x"]
    assert attrs["created"].endswith("+00:00")
    assert json.loads(attrs["provenance"])["package"] == bsr.__version__
    assert attrs["code"] == code_fingerprint()
    assert (attrs["title"], json.loads(attrs["nested"])) == ("a test", {"a": [1, 2]})
    assert "nothing" not in attrs


# --------------------------------------------------------------------------------------------
# Who computes
# --------------------------------------------------------------------------------------------


def test_the_result_does_not_depend_on_who_computes(tmp_path: Path) -> None:
    serial = bsr.sweep(grid_functions.mixed, executor="serial", **MIXED)
    for name, executor in (("threads", "threads"), ("processes", 2)):
        path = tmp_path / f"{name}.nc"
        same(bsr.sweep(grid_functions.mixed, executor=executor, path=path, **MIXED), serial)
        same(read_dataset(path), serial)
    backwards = {name: values[::-1] for name, values in MIXED.items()}
    again = bsr.sweep(grid_functions.mixed, executor="serial", **backwards)
    same(again.sel(**MIXED), serial)


class Watched(concurrent.futures.Executor):
    """Threads that finish in any order, and the number of points handed over and not yet done."""

    num_workers = 3

    def __init__(self) -> None:
        self.pool = concurrent.futures.ThreadPoolExecutor(self.num_workers)
        self.lock = threading.Lock()
        self.outstanding = self.most = self.calls = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        with self.lock:
            self.calls += 1
            self.outstanding += 1
            self.most = max(self.most, self.outstanding)
        future = self.pool.submit(fn, *args, **kwargs)
        future.add_done_callback(self.finished)
        return future

    def finished(self, future: object) -> None:
        with self.lock:
            self.outstanding -= 1


def test_cheap_points_travel_in_few_messages_and_never_all_at_once() -> None:
    executor = Watched()
    data = bsr.sweep(lambda k: 0.5 * k, executor=executor, k=range(20_000))
    assert data.value.values.tolist() == [0.5 * k for k in range(20_000)]
    assert executor.most <= 2 * executor.num_workers
    assert executor.calls < 200


def test_expensive_points_travel_alone() -> None:
    executor = Watched()
    bsr.sweep(lambda k: time.sleep(0.06) or 1, executor=executor, k=range(40))
    assert executor.calls == 40


def test_processes_have_one_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("threadpoolctl")
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BSR_THREADS"):
        monkeypatch.setenv(name, "2")
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    before = dict(os.environ)
    data = bsr.sweep(grid_functions.threads_here, x=[1, 2, 3, 4])
    assert (data.blas == 1).all()
    assert (data.package == 1).all()
    assert os.getpid() not in data.process
    assert dict(os.environ) == before


def test_functions_that_processes_cannot_have_are_refused() -> None:
    with pytest.raises(ValueError, match=r"cannot be given .*<lambda>.*executor='threads'"):
        bsr.sweep(lambda x: x, x=[1])
    program = (
        "import bsr_theory as bsr\n"
        "def f(x): return x\n"
        "try: bsr.sweep(f, x=[1])\n"
        "except ValueError as error: print(error)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "cannot import __main__:f: put it into a module" in run.stdout


def test_a_worker_that_dies_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "data.nc"
    with pytest.raises(RuntimeError, match=r"worker process died.*data\.nc\.log"):
        bsr.sweep(grid_functions.dying, executor=1, path=path, x=[0, 1, 2, 3])
    assert logged(tmp_path / "data.nc.log") == {0, 1, 2}


def test_dask(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        data = bsr.sweep(
            grid_functions.mixed, executor=client.get_executor(), path=tmp_path / "a.nc", **MIXED
        )
    same(data, bsr.sweep(grid_functions.mixed, executor="serial", **MIXED))


@pytest.mark.parametrize(("progress", "shown"), [(True, True), (False, False), (None, False)])
def test_progress(progress: bool | None, shown: bool, capsys: pytest.CaptureFixture[str]) -> None:
    bsr.sweep(lambda x: x, executor="serial", progress=progress, x=range(7))
    out, err = capsys.readouterr()
    assert out == ""
    assert ("7/7" in err and "point" in err) if shown else err == ""


# --------------------------------------------------------------------------------------------
# Interruptions
# --------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_killed_goes_on(sent: signal.Signals, tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "data.nc"
    log = tmp_path / "data.nc.log"
    command = [sys.executable, str(SCRIPT), str(trace), str(path)]
    root = SCRIPT.parent.parent
    run = subprocess.Popen(
        command,
        cwd=root,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell lets what it runs in the background ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().count("\n") >= 5):
        assert time.monotonic() < deadline and run.poll() is None
        time.sleep(0.02)
    if sent is signal.SIGINT:
        os.killpg(run.pid, sent)  # as a terminal does: to the workers, too
    else:
        run.kill()
    _, err = run.communicate(timeout=30)
    assert err.count("Traceback") == (sent is signal.SIGINT)  # none of a worker
    saved = logged(log)
    assert 4 <= len(saved) < 20
    assert not path.exists()

    workers = {int(line.split()[2]) for line in trace.read_text().splitlines()}
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in workers):  # they leave with their parent
        assert time.monotonic() < deadline
        time.sleep(0.02)
    begun = started(trace)
    assert set(begun) >= saved
    assert sum(begun.values()) <= len(saved) + 4  # what was being computed, or on its way

    again = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    data = read_dataset(path)
    assert data.value.values.tolist() == [math.sqrt(2.0) ** x for x in range(20)]
    done = started(trace)
    assert all(done[x] == 1 for x in saved)
    assert all(done[x] == begun[x] + 1 for x in set(range(20)) - saved)
    assert not log.exists()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


@pytest.mark.parametrize("executor", ["serial", "threads"])
def test_ctrl_c_leaves_what_is_finished(executor: str, tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "data.nc"
    run = functools.partial(grid_functions.interrupted, str(trace))
    with pytest.raises(KeyboardInterrupt):
        bsr.sweep(run, executor=executor, path=path, x=range(12))
    saved = logged(tmp_path / "data.nc.log")
    assert saved >= set(range(6)) if executor == "serial" else 6 not in saved
    (tmp_path / "mended").touch()
    data = bsr.sweep(run, executor=executor, path=path, x=range(12))
    assert data.value.values.tolist() == [math.sqrt(2.0) ** x for x in range(12)]
    done = started(trace)
    assert all(done[x] == 1 for x in saved)


def interrupt(tmp_path: Path) -> tuple[Callable[..., float], Path, Path]:
    """Return a function, and the log and trace of a sweep of it that stopped after six points."""
    trace, log = tmp_path / "trace", tmp_path / "data.nc.log"
    run = functools.partial(grid_functions.interrupted, str(trace))
    with pytest.raises(KeyboardInterrupt):
        bsr.sweep(run, executor="serial", path=tmp_path / "data.nc", x=range(8))
    (tmp_path / "mended").touch()
    assert logged(log) == set(range(6))
    return run, log, trace


@pytest.mark.parametrize("cut", [1, 2, 7, 15, 30])
def test_a_torn_line_is_computed_again(cut: int, tmp_path: Path) -> None:
    run, log, trace = interrupt(tmp_path)
    log.write_bytes(log.read_bytes()[:-cut])
    data = bsr.sweep(run, executor="serial", path=tmp_path / "data.nc", x=range(8))
    assert data.value.values.tolist() == [math.sqrt(2.0) ** x for x in range(8)]
    assert started(trace) == Counter([*range(8)] + ([] if cut == 1 else [5]))


def test_a_log_that_was_torn_twice(tmp_path: Path) -> None:
    run, log, trace = interrupt(tmp_path)
    log.write_bytes(log.read_bytes()[:-9])
    (tmp_path / "mended").unlink()
    with pytest.raises(KeyboardInterrupt):
        bsr.sweep(run, executor="serial", path=tmp_path / "data.nc", x=range(8))
    assert b'"index": 5' in log.read_bytes()
    (tmp_path / "mended").touch()
    lines = log.read_bytes().split(b"\n")
    lines[2] = lines[2].replace(b"{", b"\0")  # a block that the disk never got
    log.write_bytes(b"\n".join(lines))
    bsr.sweep(run, executor="serial", path=tmp_path / "data.nc", x=range(8))
    assert started(trace) == Counter([*range(8), 5, 1])


@pytest.mark.parametrize("left", [0, 1, 40])
def test_a_log_without_its_first_line_is_begun_anew(left: int, tmp_path: Path) -> None:
    run, log, trace = interrupt(tmp_path)
    log.write_bytes(log.read_bytes()[:left])
    data = bsr.sweep(run, executor="serial", path=tmp_path / "data.nc", x=range(8))
    assert data.value.values.tolist() == [math.sqrt(2.0) ** x for x in range(8)]
    assert started(trace) == Counter([*range(6), *range(8)])


def test_a_crash_between_file_and_log(tmp_path: Path) -> None:
    run, log, trace = interrupt(tmp_path)
    path = tmp_path / "data.nc"
    kept = log.read_bytes()
    first = bsr.sweep(run, executor="serial", path=path, x=range(8))
    log.write_bytes(kept)
    trace.unlink()
    same(bsr.sweep(run, executor="serial", path=path, x=range(8)), first)
    assert set(started(trace)) == {6, 7}  # what this log does not know
    assert not log.exists()


scalars = st.one_of(
    st.floats(), st.integers(-(2**63), 2**63 - 1), st.booleans(), st.text(max_size=5)
)


@given(scalars)
def test_a_scalar_reads_back_exactly(value: Any) -> None:
    stored = json.loads(json.dumps(sweeps._encode(((), value))))
    dims, back = sweeps._decode(stored)
    assert dims == ()
    assert type(back) is type(value)
    assert repr(back) == repr(value)  # NaN, and the sign of zero


@pytest.mark.parametrize("dtype", [np.bool_, np.int64, np.float64, ">f8"])
@pytest.mark.parametrize("shape", [(0,), (3,), (2, 0), (2, 3)])
def test_an_array_reads_back_exactly(dtype: Any, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).normal(size=shape).astype(dtype)
    if array.size and array.dtype.kind == "f":
        array.flat[:2] = np.nan, -0.0
    names = tuple("ab"[: len(shape)])
    dims, back = sweeps._decode(json.loads(json.dumps(sweeps._encode((names, array)))))
    assert dims == names
    assert back.dtype == array.dtype.newbyteorder("=")
    assert back.tobytes() == array.astype(back.dtype).tobytes()


@pytest.mark.skipif(sys.platform == "win32", reason="no locks")
def test_two_processes_do_not_share_a_log(tmp_path: Path) -> None:
    run, log, _ = interrupt(tmp_path)
    program = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'ab+')\n"
        "fcntl.lockf(file, fcntl.LOCK_EX)\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", program, str(log)], stdin=pipe, stdout=pipe, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "locked\n"
        with pytest.raises(ValueError, match=r"another process is computing .*data\.nc\.log"):
            bsr.sweep(run, executor="serial", path=tmp_path / "data.nc", x=range(8))
        other.communicate()
    bsr.sweep(run, executor="serial", path=tmp_path / "data.nc", x=range(8))


# --------------------------------------------------------------------------------------------
# Points where something is raised
# --------------------------------------------------------------------------------------------


def test_an_exception_is_raised_when_all_else_is_saved(tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "data.nc"
    run = functools.partial(grid_functions.failing, str(trace))
    message = r"raised at 2 of 8 points, the first of them x=2: ArithmeticError: 2 is not for me"
    with pytest.raises(RuntimeError, match=message) as caught:
        bsr.sweep(run, executor=2, path=path, x=range(8))
    assert "grid_functions.py" in "".join(caught.value.__notes__)  # where it happened
    assert not path.exists()
    assert logged(tmp_path / "data.nc.log") == {0, 1, 3, 4, 6, 7}
    with pytest.raises(RuntimeError, match=message):
        bsr.sweep(run, executor="serial", path=path, x=range(8))
    (tmp_path / "mended").touch()
    data = bsr.sweep(run, executor="serial", path=path, x=range(8))
    assert data.value.values.tolist() == [10 * x for x in range(8)]
    assert data.value.dtype == np.int64
    assert started(trace) == Counter([*range(8), 2, 5, 2, 5])


def test_an_exception_can_leave_a_hole(tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "data.nc"
    run = functools.partial(grid_functions.failing, str(trace))

    def go(on_failure: Any = "warn") -> xr.Dataset:
        return bsr.sweep(run, executor="serial", path=path, on_failure=on_failure, x=range(8))

    with pytest.warns(RuntimeWarning, match="2 of 8 points") as caught:
        data = go()
    assert Path(caught[0].filename) == Path(__file__)
    assert np.flatnonzero(np.isnan(data.value)).tolist() == [2, 5]
    assert data.error.values.tolist()[1:3] == ["", "ArithmeticError: 2 is not for me"]
    same(read_dataset(path), data)
    log, kept = tmp_path / "data.nc.log", (tmp_path / "data.nc.log").read_bytes()
    log.unlink()  # without it the file is taken as it is
    with pytest.warns(RuntimeWarning, match="2 of 8 points"):
        same(go(), data)
    with pytest.raises(RuntimeError, match="2 of 8 points"):
        go("raise")
    log.write_bytes(kept)
    (tmp_path / "mended").touch()
    mended = go()
    assert "error" not in mended
    assert started(trace) == Counter([*range(8), 2, 5])
    same(read_dataset(path), mended)
    assert not log.exists()


@pytest.mark.parametrize("executor", ["serial", "threads"])
def test_a_function_that_always_fails_is_not_tried_everywhere(executor: str) -> None:
    calls = []

    def broken(x: int, spare: int | None = None) -> int:
        calls.append(x)
        if x == spare:
            return x
        raise TypeError("a mistake")

    with pytest.raises(RuntimeError, match=r"of 2000 points, .*: TypeError: a mistake"):
        bsr.sweep(broken, executor=executor, x=range(2000))
    assert len(calls) < 500
    calls.clear()
    with pytest.raises(RuntimeError, match="1999 of 2000 points"):
        bsr.sweep(functools.partial(broken, spare=3), executor=executor, x=range(2000))
    assert len(calls) == 2000


def test_nothing_but_exceptions() -> None:
    with pytest.warns(RuntimeWarning, match="2 of 2 points"):
        data = bsr.sweep(lambda x: 1 / 0, executor="serial", on_failure="warn", x=[1, 2])
    assert data.error.values.tolist() == ["ZeroDivisionError: division by zero"] * 2
    assert list(data.data_vars) == ["error"]


# --------------------------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------------------------


def test_a_finished_sweep_is_read_again(tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "deep" / "er" / "data.nc"
    run = functools.partial(grid_functions.traced, str(trace))
    first = bsr.sweep(run, executor="serial", path=path, x=[1, 2])
    again = bsr.sweep(run, executor="serial", path=str(path), x=np.array([1, 2]))
    xr.testing.assert_identical(first, again)
    assert started(trace) == Counter([1, 2])
    assert [p.name for p in path.parent.iterdir()] == ["data.nc"]


@dataclass(frozen=True)
class Model:
    """An argument with contents."""

    weights: Any
    name: str = "m"


def evaluate(x: float, model: Model | None = None, shift: float = 0.0) -> float:
    return x + shift


def evaluate_otherwise(x: float, model: Model | None = None, shift: float = 0.0) -> float:
    return x + 2 * shift


BASE = Model(np.arange(2000.0))
CHANGES: dict[str, tuple[Callable[..., float], dict[str, Any], str]] = {
    "values": (evaluate, {"x": [1.0, 2.5]}, r"axis x \[1\.0, 2\.0\] there, \[1\.0, 2\.5\] here"),
    "kind": (evaluate, {"x": [1, 2], "shift": [0.5]}, r"axes \(x\) there, \(x, shift\) here"),
    "argument": (functools.partial(evaluate, shift=0.5), {}, "shift=none there, 0.5 here"),
    "inside": (
        functools.partial(evaluate, model=replace(BASE, weights=BASE.weights + 1e-9)),
        {},
        "model=.*hash.*there,.*here",
    ),
    "function": (evaluate_otherwise, {}, "function .*:evaluate there, .*:evaluate_otherwise here"),
}


@pytest.mark.parametrize("case", CHANGES)
@pytest.mark.parametrize("unfinished", [False, True])
def test_another_sweep_at_the_same_path_is_refused(
    case: str, unfinished: bool, tmp_path: Path
) -> None:
    fn, axes, message = CHANGES[case]
    path, log = tmp_path / "data.nc", tmp_path / "data.nc.log"
    base = functools.partial(evaluate, model=BASE)
    if case != "inside" and not isinstance(fn, functools.partial):
        fn = functools.partial(fn, model=BASE)
    elif case == "argument":
        fn = functools.partial(fn, model=BASE)
    identity, grid = sweeps._identity(base), sweeps._Grid({"x": [1.0, 2.0]})
    bsr.sweep(base, executor="serial", path=path, x=[1.0, 2.0])
    if unfinished:
        path.unlink()
        with sweeps._Log(log, identity, grid):
            pass
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=rf"data\.nc.* holds another sweep.*{message}"):
        bsr.sweep(fn, executor="serial", path=path, **({"x": [1.0, 2.0]} | axes))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    bsr.sweep(base, executor="serial", path=path, x=[1.0, 2.0])


def test_another_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.nc"
    bsr.sweep(evaluate, executor="serial", path=path, x=[1.0])
    monkeypatch.setattr(results, "code_fingerprint", lambda: "0123456789ab")
    with pytest.raises(ValueError, match=r"code of bsr_theory .* there, 0123456789ab here"):
        bsr.sweep(evaluate, executor="serial", path=path, x=[1.0])


def test_another_source_of_the_function_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)

    def load(body: str) -> Callable[..., float]:
        (tmp_path / "mine.py").write_text(f"def f(x):\n    {body}\n")
        name = f"mine_{len(list(tmp_path.iterdir()))}"
        space: dict[str, Any] = {"__name__": "mine"}
        file = tmp_path / f"{name}.py"
        file.write_text(f"def f(x):\n    {body}\n")
        exec(compile(file.read_text(), str(file), "exec"), space)
        return space["f"]  # type: ignore[no-any-return]

    path = tmp_path / "data.nc"
    bsr.sweep(load("return x + 1"), executor="serial", path=path, x=[1.0])
    bsr.sweep(load("return x + 1  # the same"), executor="serial", path=path, x=[1.0])
    with pytest.raises(ValueError, match="the source of mine:f is another"):
        bsr.sweep(load("return x + 2"), executor="serial", path=path, x=[1.0])


def test_arguments_of_every_kind_are_told_apart() -> None:
    def told(value: Any) -> str:
        return json.dumps(sweeps._describe(value))

    different = [
        None, True, 0.5, math.inf, "a", b"a", [1, 2], [1, 3], {"a": 1}, {1, 2}, Path("a/b"),
        np.arange(3), np.arange(3.0), np.arange(4), np.zeros((3, 1)), Model(1), Model(2),
        Model(1, "n"), bsr.Status.CONVERGED, bsr.GaussianFactorPrior(2.0, 0.5),
        bsr.GaussianFactorPrior(2.0, 0.25), grid_functions.smooth, grid_functions.mixed,
        functools.partial(grid_functions.smooth, k=1),
        functools.partial(grid_functions.smooth, k=2),
        np.random.SeedSequence(1), np.random.SeedSequence(2), math.sin, float, math,
    ]  # fmt: skip
    told_all = [told(value) for value in different]
    assert len(set(told_all)) == len(different)
    assert told_all == [told(value) for value in different]
    assert " at 0x" not in "".join(told_all)
    loop: list[Any] = [1]
    loop.append(loop)
    assert told(loop) == '[1, "..."]'


def test_closures_and_methods_are_arguments() -> None:
    def scaled(factor: float) -> Callable[..., float]:
        return lambda x: factor * x

    class Scale:
        def __init__(self, factor: float) -> None:
            self.factor = factor

        def __call__(self, x: float) -> float:
            return self.factor * x

        def method(self, x: float) -> float:
            return self.factor * x

    for make in (scaled, Scale, lambda f: Scale(f).method):
        assert sweeps._identity(make(2.0)) == sweeps._identity(make(2.0))
        assert sweeps._identity(make(2.0)) != sweeps._identity(make(3.0))


def test_a_random_generator_is_refused() -> None:
    def draw(x: int, rng: np.random.Generator) -> float:
        return float(rng.normal())

    fn = functools.partial(draw, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"depend on the order of the points.*integer seed"):
        bsr.sweep(fn, executor="serial", x=[1])


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.nc"
    write_dataset(xr.Dataset({"a": 1}), path)
    with pytest.raises(ValueError, match=r"not a file of a sweep.*data\.nc"):
        bsr.sweep(evaluate, executor="serial", path=path, x=[1.0])


def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.nc"
    old, new = xr.Dataset({"a": 1}), xr.Dataset({"a": 2})
    seen = []

    def torn(self: xr.Dataset, target: Path, **keywords: Any) -> None:
        seen.append((path.exists(), Path(target).parent == tmp_path))
        Path(target).write_bytes(b"half of")
        raise OSError("disk full")

    for existing in (False, True):
        if existing:
            write_dataset(old, path)
        with monkeypatch.context() as patch:
            patch.setattr(xr.Dataset, "to_netcdf", torn)
            with pytest.raises(OSError, match="disk full"):
                write_dataset(new, path)
        assert [p.name for p in tmp_path.iterdir()] == (["data.nc"] if existing else [])
    xr.testing.assert_identical(read_dataset(path), old)
    if os.name == "posix":  # who reads the old file goes on reading the old file
        before = path.read_bytes()
        with open(path, "rb") as reader:
            write_dataset(new, path)
            assert reader.read() == before
    write_dataset(new, path)
    xr.testing.assert_identical(read_dataset(path), new)
    assert [p.name for p in tmp_path.iterdir()] == ["data.nc"]
    assert seen == [(False, True), (True, True)]
    with open(path, "rb+"):  # nobody holds it
        os.rename(path, tmp_path / "moved.nc")


# --------------------------------------------------------------------------------------------
# Shards
# --------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 13), min_size=1, max_size=4), st.data())
def test_shards_are_a_partition_that_is_fair_to_the_last_axis(
    shape: list[int], data: st.DataObject
) -> None:
    grid = sweeps._Grid({f"a{k}": list(range(size)) for k, size in enumerate(shape)})
    n = data.draw(st.integers(1, grid.size))
    parts = [grid.shard(i, n).tolist() for i in range(n)]
    assert sorted(itertools.chain.from_iterable(parts)) == list(range(grid.size))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for part in parts:
        counts = Counter(index % shape[-1] for index in part)
        assert max(counts.values()) - min(counts[k] for k in range(shape[-1])) <= 1


@pytest.mark.parametrize("n", [4, 8, 10, 16, 64])
def test_shards_are_fair_to_every_axis(n: int) -> None:
    grid = sweeps._Grid({"alpha": [*range(64)], "rho": [*range(4)], "sample": [*range(8)]})
    points = map(grid.point, range(grid.size))
    cost = np.array([(1.0 + p["alpha"]) ** 2 * (1.0 + p["rho"]) for p in points])
    costs = [cost[grid.shard(i, n)].sum() for i in range(n)]
    assert max(costs) < 1.15 * np.mean(costs)


def shards(tmp_path: Path, n: int, fn: Callable[..., Any] = grid_functions.mixed) -> list[Path]:
    path = tmp_path / "data.nc"
    for i in range(n):
        bsr.sweep(fn, executor="serial", path=path, shard=(i, n), **MIXED)
    return [sweeps.shard_path(path, (i, n)) for i in range(n)]


@pytest.mark.parametrize("n", [1, 2, 5])
def test_shards_make_the_whole(n: int, tmp_path: Path) -> None:
    paths = shards(tmp_path, n)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in paths)
    whole = bsr.sweep(grid_functions.mixed, executor="serial", attributes={"a": 1}, **MIXED)
    del whole.attrs["a"]
    same(bsr.merge(paths[::-1]), whole)
    target = tmp_path / "deep" / "all.nc"
    same(bsr.merge(str(tmp_path / "data.shard-*.nc"), target), whole)
    same(read_dataset(target), whole)
    # the merged file is the file of the sweep
    merged = read_dataset(target)
    again = bsr.sweep(grid_functions.mixed, executor="serial", path=target, **MIXED)
    xr.testing.assert_identical(again, merged)


def test_a_shard_knows_its_points(tmp_path: Path) -> None:
    shards(tmp_path, 5)
    part = read_dataset(tmp_path / "data.shard-3-of-5.nc")
    grid = list(itertools.product(*MIXED.values()))
    for row, index in enumerate(part["index"].values.tolist()):
        assert part.number.values[row] == grid_functions.mixed(*grid[index])["number"]
    assert json.loads(part.attrs["shard"]) == [3, 5]


def test_shards_that_do_not_fit_together(tmp_path: Path) -> None:
    paths = shards(tmp_path, 3)
    with pytest.raises(ValueError, match=r"6 of 18 points are missing.*: x=.*, k=.*kind='.*\.\.\."):
        bsr.merge(paths[:2])
    with pytest.raises(ValueError, match=r"copy\.nc and .*shard-0-of-3\.nc both hold the point x="):
        bsr.merge([paths[0], shutil.copy(paths[0], tmp_path / "copy.nc"), *paths[1:]])
    with pytest.raises(ValueError, match="files that exist"):
        bsr.merge(tmp_path / "nothing.*.nc")
    with pytest.raises(ValueError, match="files that exist"):
        bsr.merge([])
    with pytest.raises(ValueError, match=r"files that exist.*gone\.nc"):
        bsr.merge([*paths, tmp_path / "gone.nc"])
    bsr.sweep(grid_functions.mixed, executor="serial", path=tmp_path / "whole.nc", **MIXED)
    with pytest.raises(ValueError, match=r"must name shards.*whole\.nc is none"):
        bsr.merge([*paths, tmp_path / "whole.nc"])
    other = {**MIXED, "x": [0.5, 1.5, 2.5]}
    bsr.sweep(
        grid_functions.mixed, executor="serial", path=tmp_path / "o.nc", shard=(2, 3), **other
    )
    with pytest.raises(ValueError, match=r"another sweep than .*0-of-3.nc: axis x .*2\.5\] there"):
        bsr.merge([*paths[:2], tmp_path / "o.shard-2-of-3.nc"])


def test_missing_points_can_be_allowed(tmp_path: Path) -> None:
    paths = shards(tmp_path, 3)
    whole = bsr.merge(paths)
    holes = bsr.merge(paths[:2], allow_missing=True)
    missing = np.isnan(holes.number)
    assert int(missing.sum()) == 6
    xr.testing.assert_equal(holes.number, whole.number.where(~missing))
    assert (holes.word.values[missing.values] == "").all()


def test_shards_with_exceptions(tmp_path: Path) -> None:
    run = functools.partial(grid_functions.failing, str(tmp_path / "trace"))

    def part(i: int) -> None:
        path = tmp_path / "data.nc"
        bsr.sweep(run, executor="serial", path=path, shard=(i, 2), on_failure="warn", x=range(8))

    with pytest.warns(RuntimeWarning, match="2 of 8 points"):
        part(0)
    part(1)  # has neither 2 nor 5
    with pytest.warns(RuntimeWarning, match="2 of 8 points"):
        data = bsr.merge(tmp_path / "data.shard-*.nc")
    assert np.flatnonzero(np.isnan(data.value)).tolist() == [2, 5]
    assert np.flatnonzero(data.error.values != "").tolist() == [2, 5]


# --------------------------------------------------------------------------------------------
# The fingerprint of the code
# --------------------------------------------------------------------------------------------

CODE = '''
def f(x):
    """Return it."""
    return 0.5 * x
'''


@pytest.mark.parametrize(
    ("change", "equal"),
    [
        (CODE.replace('"""Return it."""', '"""Return half."""'), True),
        (CODE.replace('    """Return it."""\n', ""), True),
        (CODE.replace("0.5 * x", "(0.5 * x)  # half"), True),
        ('"""A module."""\n' + CODE, True),
        (CODE.replace("0.5", "0.25"), False),
        (CODE.replace("0.5 * x", "x * 0.5"), False),
        (CODE.replace("*", "+"), False),
        (CODE.replace("def f", "def g"), False),
        (CODE.replace("0.5", "'0.5'"), False),
        (CODE + "f(1)\n", False),
    ],
)
def test_a_fingerprint_sees_what_code_does(change: str, equal: bool) -> None:
    assert (source_fingerprint(change) == source_fingerprint(CODE)) == equal


def test_the_fingerprint_covers_what_makes_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    monkeypatch.setattr(results, "__file__", str(package / "results.py"))
    fresh = code_fingerprint.__wrapped__
    drawing = ("__init__.py", "__main__.py", "cli.py", "verify.py", "figures/__init__.py")
    making = ("results.py", "priors.py", "spectra/__init__.py", "_kernels/rectangular.py")
    for name in (*drawing, *making):
        assert (Path(bsr.__file__).parent / name).exists()
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("x = 1\n")
    original = fresh()
    for name in (*drawing, *making):
        (package / name).write_text("# a remark\nx = 1\n")
        assert fresh() == original
        (package / name).write_text("x = 2\n")
        assert (fresh() != original) == (name in making), name
        (package / name).write_text("x = 1\n")
    (package / "new.py").write_text("x = 1\n")
    assert fresh() != original
