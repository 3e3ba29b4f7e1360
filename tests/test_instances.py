"""Instances: sizes, sensing matrices held or regenerated, labels, and what is refused."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
from scipy import stats

import bsr_theory as bsr
from bsr_theory import design as designs
from bsr_theory.channels import GaussianChannel
from bsr_theory.design import DenseDesign, StreamedDesign, available_memory, write_design
from bsr_theory.priors import GaussianFactorPrior, LowRankFactorPrior
from bsr_theory.problem import Instance, Problem

PROBLEM = bsr.bilinear_regression(alpha=0.5, beta=1.5, rho=0.3, delta=0.2)
KEY = [3, 2**64 - 1]
# of an output of variance 1, root mean square; what the documentation says of d1 = 80
ACCURACY = {np.float64: 1e-14, np.float32: 4e-7}


def make(kind, tmp_path, dtype=np.float64, problem=PROBLEM, d1=12, rng=7):
    path = tmp_path / f"{np.dtype(dtype)}.npy" if kind == "memmap" else None
    return problem.sample(d1, rng=rng, design=kind, dtype=dtype, path=path)


def outputs(X, S):
    """The definition, term by term."""
    return np.array([np.sum(np.float64(x) * S) for x in np.asarray(X)]) / np.sqrt(S.size)


def rms(values):
    return np.sqrt(np.mean(np.square(values)))


class TestSizes:
    @pytest.mark.parametrize(
        ("problem", "d1", "rank", "shape", "unit"),
        [
            (PROBLEM, 12, None, (108, 12, 18), 1.0),
            (bsr.bilinear_regression(0.07, 1.26, 0.5), 10, None, (9, 10, 13), 1.0),
            (bsr.bilinear_regression(0.5, 1.0, float("inf")), 4, None, (8, 4, 4), 1.0),
            (Problem(LowRankFactorPrior(2.0), GaussianChannel(), 1.5), 10, None, (45, 10, 20), 0.1),
            (Problem(LowRankFactorPrior(2.0), GaussianChannel(), 1.5), 10, 3, (135, 10, 20), 0.3),
        ],
    )
    def test_rounding(self, problem, d1, rank, shape, unit):
        data = problem.sample(d1, rng=0, rank=rank)
        assert data.X.shape == shape
        assert data.y.shape == shape[:1] and data.S.shape == shape[1:]
        assert data.alpha == shape[0] / (shape[1] * shape[2])
        assert data.noise_unit == unit
        assert data.problem is problem

    def test_the_signal_is_that_of_the_prior(self):
        S = PROBLEM.sample(12, rng=5).S
        np.testing.assert_array_equal(S, PROBLEM.prior.sample(12, rng=5))
        low = Problem(LowRankFactorPrior(1.0), GaussianChannel(), 2.0).sample(9, rng=5, rank=2).S
        assert np.linalg.matrix_rank(low) == 2

    @pytest.mark.parametrize("delta", [0.0, 0.2, 30.0])
    def test_labels(self, delta):
        data = bsr.bilinear_regression(2.0, 1.5, 0.3, delta).sample(20, rng=1)
        noise = data.y - outputs(data.X, data.S)
        if delta == 0.0:
            np.testing.assert_allclose(noise, 0.0, atol=1e-13)
        else:
            assert stats.kstest(noise / np.sqrt(delta), "norm").pvalue > 1e-3
            # noise and sensing matrices come from different streams
            assert abs(np.corrcoef(noise, np.asarray(data.X)[:, 0, 0])[0, 1]) < 0.12


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", ["dense", "memmap", "stream"])
class TestOperator:
    def test_matvec_is_the_definition_and_rmatvec_its_adjoint(self, kind, dtype, tmp_path):
        data = make(kind, tmp_path, dtype, d1=40)
        assert data.X.dtype == dtype and data.X.block_count > 1
        rng = np.random.default_rng(0)
        S, g = rng.standard_normal(data.S.shape), rng.standard_normal(data.X.n)
        h = data.X.matvec(S)
        assert rms(h - outputs(data.X, S)) < ACCURACY[dtype]
        adjoint = data.X.rmatvec(g)
        assert h.dtype == adjoint.dtype == np.float64
        size = np.linalg.norm(g) * np.linalg.norm(h)
        assert abs(g @ h - np.sum(adjoint * S)) < ACCURACY[dtype] * size

    def test_sweep_is_both_products(self, kind, dtype, tmp_path):
        X = make(kind, tmp_path, dtype, d1=40).X
        S = np.random.default_rng(0).standard_normal(X.shape[1:])
        shift = np.linspace(-1.0, 1.0, X.n)
        fused = X.sweep(S, lambda h, rows: np.tanh(h + shift[rows]))
        apart = X.rmatvec(np.tanh(X.matvec(S) + shift))
        np.testing.assert_allclose(fused, apart, atol=1e-13 if dtype == np.float64 else 1e-5)

    def test_stacks_are_their_members(self, kind, dtype, tmp_path):
        X = make(kind, tmp_path, dtype, d1=40).X
        rng = np.random.default_rng(0)
        S, g = rng.standard_normal((3, *X.shape[1:])), rng.standard_normal((3, X.n))

        def respond(h, rows):
            assert h.shape[-1] == rows.stop - rows.start
            return np.tanh(h - g[0, rows])

        for product, stack in (
            (X.matvec, S),
            (X.rmatvec, g),
            (lambda matrix: X.sweep(matrix, respond), S),
        ):
            each = np.array([product(member) for member in stack])
            atol = 1e-12 if dtype == np.float64 else 1e-4  # of sums of 1920 terms
            assert each.std() > 0.5
            np.testing.assert_allclose(product(stack), each, rtol=0, atol=atol)
            np.testing.assert_allclose(product(stack[:1])[0], each[0], rtol=0, atol=atol)

    def test_same_entries_wherever_they_live(self, kind, dtype, tmp_path):
        data, reference = make(kind, tmp_path, dtype, d1=40), make("dense", tmp_path, d1=40)
        np.testing.assert_array_equal(np.asarray(data.X), np.asarray(reference.X).astype(dtype))
        np.testing.assert_array_equal(data.S, reference.S)
        assert rms(data.y - reference.y) < ACCURACY[dtype]

    def test_blocks_can_be_made_alone(self, kind, dtype, tmp_path):
        X = make(kind, tmp_path, dtype, d1=40).X
        whole = np.asarray(X)
        pieces = list(X.blocks())
        assert [r.start for r, _ in pieces] == [0, *(r.stop for r, _ in pieces[:-1])]
        assert pieces[-1][0].stop == X.n and len(pieces) == X.block_count
        for index in reversed(range(X.block_count)):
            np.testing.assert_array_equal(X.block(index), whole[pieces[index][0]])
            np.testing.assert_array_equal(pieces[index][1], whole[pieces[index][0]])
        for index in (-1, X.block_count):
            with pytest.raises(IndexError, match="index"):
                X.block(index)


class TestStream:
    def test_entries_are_independent_and_normal(self):
        X = np.asarray(StreamedDesign((2400, 15, 20), KEY)).reshape(2400, -1)
        assert StreamedDesign((2400, 15, 20), KEY).block_count > 2
        assert stats.kstest(X.ravel()[::3], "norm").pvalue > 1e-3
        gram = X @ X.T - np.diag(np.sum(X**2, axis=1))
        assert np.abs(gram).max() < 7.0 * np.sqrt(X.shape[1])
        # the streams of two blocks do not overlap: no number comes twice
        assert np.unique(X).size == X.size

    def test_keys_give_different_entries(self):
        first, second, third = (
            np.asarray(StreamedDesign((3, 4, 5), key)) for key in ([0, 0], [1, 0], [0, 1])
        )
        assert not np.any(first == second) and not np.any(first == third)

    def test_results_do_not_depend_on_threads(self, monkeypatch):
        X = StreamedDesign((9000, 10, 20), KEY)
        S, g = np.random.default_rng(0).standard_normal((10, 20)), np.linspace(-1, 1, 9000)
        results = []
        for count in ("1", "5"):
            monkeypatch.setenv("BSR_THREADS", count)
            results.append((X.matvec(S), X.rmatvec(g), X.sweep(S, lambda h, rows: h**3)))
        for one, five in zip(*results, strict=True):
            np.testing.assert_array_equal(one, five)

    def test_a_failure_in_a_thread_is_raised(self, monkeypatch):
        monkeypatch.setenv("BSR_THREADS", "3")

        def fail(h, rows):
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            StreamedDesign((9000, 10, 20), KEY).sweep(np.ones((10, 20)), fail)

    def test_memory_is_a_few_blocks(self, monkeypatch):
        monkeypatch.setenv("BSR_THREADS", "2")
        problem = bsr.bilinear_regression(0.015, 1.0, 0.5)
        problem.sample(20, rng=0)
        tracemalloc.start()
        data = problem.sample(200, rng=0, design="stream")
        data.X.rmatvec(data.y)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # X would take 192 MB, the sums of all its blocks 32 MB
        assert data.X.block_count == 100
        assert peak < 16e6

    def test_a_slow_block_is_not_overtaken_by_all_others(self, monkeypatch):
        monkeypatch.setenv("BSR_THREADS", "2")
        X = StreamedDesign((60 * 655, 20, 20), KEY)
        assert X.block_count == 60
        done, ahead = [], []

        def respond(h, rows):
            if rows.start == 0:
                time.sleep(0.5)
                ahead.append(len(done))
            done.append(rows)
            return h

        X.sweep(np.ones((20, 20)), respond)
        assert len(done) == 60
        assert 0 < ahead[0] < 6

    @pytest.mark.slow
    def test_billions_of_entries_in_less_than_2_gb(self):
        program = (
            "import resource, bsr_theory as bsr; from bsr_theory.simulations import amp;"
            "problem = bsr.bilinear_regression(0.3, 1.0, 0.5, 0.1);"
            "data = problem.sample(300, rng=0, design='stream', dtype='float32');"
            "run = amp(data, steps=1);"
            "print(run.mse[1], bsr.iterate(problem, 1).mmse[1],"
            "      resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        mse, theory, kilobytes = (float(x) for x in done.stdout.split())
        assert kilobytes * 1024 < 2e9
        assert mse == pytest.approx(theory, abs=0.02)


class TestMemmap:
    def test_the_file_is_an_ordinary_array(self, tmp_path):
        data = make("memmap", tmp_path)
        assert isinstance(data.X, DenseDesign) and isinstance(data.X.array, np.memmap)
        np.testing.assert_array_equal(np.load(tmp_path / "float64.npy"), np.asarray(data.X))
        again = DenseDesign(np.load(tmp_path / "float64.npy", mmap_mode="r"))
        np.testing.assert_array_equal(again.matvec(data.S), data.X.matvec(data.S))
        with pytest.raises(ValueError, match="read-only"):
            data.X.array[0] = 0.0

    def test_nothing_is_overwritten(self, tmp_path):
        make("memmap", tmp_path)
        before = (tmp_path / "float64.npy").read_bytes()
        with pytest.raises(ValueError, match="path must be a new file"):
            make("memmap", tmp_path, rng=8)
        assert (tmp_path / "float64.npy").read_bytes() == before

    def test_a_full_disk_is_seen_before_writing(self, tmp_path, monkeypatch):
        usage = shutil.disk_usage(tmp_path)._replace(free=1000)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(MemoryError, match=r"on disk.*stream"):
            make("memmap", tmp_path)
        assert not list(tmp_path.iterdir())

    def test_no_half_written_file_stays(self, tmp_path):
        class Broken(StreamedDesign):
            def block(self, index):
                if index == 1:
                    raise KeyboardInterrupt
                return super().block(index)

        with pytest.raises(KeyboardInterrupt):
            write_design(Broken((9000, 10, 20), KEY), tmp_path / "x.npy")
        assert not list(tmp_path.iterdir())


class TestRandomness:
    def test_one_seed_one_instance(self):
        first, second = PROBLEM.sample(8, rng=3), PROBLEM.sample(8, rng=np.random.default_rng(3))
        other = PROBLEM.sample(8, rng=4)
        for name in ("y", "S", "X"):
            value = np.asarray(getattr(first, name))
            np.testing.assert_array_equal(value, np.asarray(getattr(second, name)))
            assert not np.any(value == np.asarray(getattr(other, name)))

    def test_a_generator_moves_on(self):
        rng = np.random.default_rng(3)
        first, second = PROBLEM.sample(8, rng=rng), PROBLEM.sample(8, rng=rng)
        assert not np.any(first.S == second.S)
        assert not np.any(np.asarray(first.X) == np.asarray(second.X))

    def test_without_a_seed_instances_differ(self):
        assert not np.any(PROBLEM.sample(8).y == PROBLEM.sample(8).y)


class TestMemory:
    """What cannot fit is refused, before anything is allocated."""

    @pytest.fixture(autouse=True)
    def signals_are_not_drawn(self, monkeypatch):
        def never(self, d1, *, rng=None):
            raise AssertionError("a signal was drawn before the memory was checked")

        monkeypatch.setattr(GaussianFactorPrior, "sample", never)

    def test_dense(self, monkeypatch):
        monkeypatch.setattr(designs, "available_memory", lambda: 16e9)
        problem = bsr.bilinear_regression(0.3, 1.0, 0.5)
        with pytest.raises(MemoryError, match=r"\(27000, 300, 300\) in float64 .* 19\.\d GB.*stre"):
            problem.sample(300)
        with pytest.raises(AssertionError, match="drawn"):
            problem.sample(300, dtype=np.float32)  # 9.7 of 16 GB
        with pytest.raises(AssertionError, match="drawn"):
            problem.sample(300, design="stream")

    def test_dense_on_this_machine(self):
        with pytest.raises(MemoryError, match=r"design=.stream"):
            bsr.bilinear_regression(1.0, 1.0, 0.5).sample(2000)

    def test_streams_end_somewhere_too(self, monkeypatch):
        monkeypatch.setattr(designs, "available_memory", lambda: 1e9)
        with pytest.raises(MemoryError, match="smaller d1"):
            bsr.bilinear_regression(1.0, 1.0, 0.5).sample(20000, design="stream")

    def test_a_stream_is_not_made_dense_by_accident(self, monkeypatch):
        X = StreamedDesign((27000, 300, 300), KEY)
        monkeypatch.setattr(designs, "available_memory", lambda: 1e9)
        with pytest.raises(MemoryError, match="stream"):
            np.asarray(X)
        with pytest.raises(ValueError, match="copied"):
            np.asarray(X, copy=False)


class TestAvailableMemory:
    def machine(self, root, meminfo=None, group="/", **limits):
        (root / "proc/self").mkdir(parents=True)
        if meminfo is not None:
            (root / "proc/meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable:  {meminfo} kB\n")
        (root / "proc/self/cgroup").write_text(f"1:cpu:/elsewhere\n0::{group}\n")
        for place, (limit, used) in limits.items():
            folder = root / "sys/fs/cgroup" / place.replace("_", "/")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "memory.max").write_text(f"{limit}\n")
            (folder / "memory.current").write_text(f"{used}\n")
        return available_memory(root)

    def test_this_machine(self):
        assert 1e7 < available_memory() < 1e14

    def test_kernel(self, tmp_path):
        assert self.machine(tmp_path, 5000) == 5000 * 1024

    def test_control_groups_bound_it_at_every_level(self, tmp_path):
        limits = {"slurm": (900, 200), "slurm_job": ("max", 100)}
        assert self.machine(tmp_path, 5000, "/slurm/job", **limits) == 700

    def test_own_group(self, tmp_path):
        limits = {"slurm": (900, 200), "slurm_job": (300, 100), "other": (1, 0)}
        assert self.machine(tmp_path, 5000, "/slurm/job", **limits) == 200

    def test_more_used_than_allowed(self, tmp_path):
        assert self.machine(tmp_path, 5000, "/job", job=(100, 300)) == 0.0

    def test_without_linux(self, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096}.get(name, 10))
        assert available_memory(tmp_path) == 40960.0

    def test_without_anything(self, tmp_path, monkeypatch):
        monkeypatch.delattr(os, "sysconf")
        assert available_memory(tmp_path) == np.inf


class TestBadInput:
    @pytest.mark.parametrize("d1", [0, -3, 2.0, "4", True, None, float("nan")])
    def test_d1(self, d1):
        with pytest.raises(ValueError, match="d1 must be a positive integer, got"):
            PROBLEM.sample(d1)

    @pytest.mark.parametrize(
        ("keywords", "message"),
        [
            ({"design": "sparse"}, "design must be .* got 'sparse'"),
            ({"dtype": np.int64}, "dtype must be float64 or float32, got int64"),
            ({"dtype": np.complex128}, "dtype must be float64 or float32"),
            ({"design": "memmap"}, "path must be given"),
            ({"path": "x.npy"}, "path must be given for design='memmap' and only then"),
            ({"design": "stream", "path": "x.npy"}, "only then"),
            ({"rank": 2}, "rank must be None"),
        ],
    )
    def test_arguments(self, keywords, message):
        with pytest.raises(ValueError, match=message):
            PROBLEM.sample(5, **keywords)

    @pytest.mark.parametrize("rank", [0, 1.0, True, "2"])
    def test_rank(self, rank):
        problem = Problem(LowRankFactorPrior(1.0), GaussianChannel(), 2.0)
        with pytest.raises(ValueError, match="rank must be a positive integer, got"):
            problem.sample(5, rank=rank)

    @pytest.mark.parametrize(
        ("problem", "message"),
        [
            (Problem(GaussianFactorPrior(1.0, 0.5), GaussianChannel()), "alpha must be a number"),
            (bsr.bilinear_regression([0.1, 0.2], 1.0, 0.5), r"scalar parameters, got shape \(2,\)"),
            (bsr.bilinear_regression(0.1, 1.0, [0.5]), r"scalar parameters, got shape \(1,\)"),
            (bsr.bilinear_regression(0.1, 1.0, 0.5, [0.0]), "scalar parameters"),
            (bsr.bilinear_regression(0.1, float("inf"), 0.5), "beta must be finite"),
            (bsr.bilinear_regression(0.01, 1.0, 0.5), "at least one label, got 0.01"),
        ],
    )
    def test_problems_without_instances(self, problem, message):
        with pytest.raises(ValueError, match=message):
            problem.sample(5)

    def test_instances_by_hand(self):
        X = DenseDesign(np.ones((3, 2, 2)))
        good = {"X": X, "y": [1.0, 2.0, 3.0], "S": np.ones((2, 2)), "problem": PROBLEM}
        assert Instance(**good).y.dtype == np.float64
        for name, value in itertools.chain(
            (("y", v) for v in ([1.0], [1.0, 2.0, np.nan], [[1.0, 2.0, 3.0]])),
            (("S", v) for v in (np.ones((2, 3)), np.full((2, 2), np.inf))),
            (("noise_unit", v) for v in (0.0, -1.0, np.nan, np.inf)),
        ):
            with pytest.raises(ValueError, match=name):
                Instance(**(good | {name: value}))

    @pytest.mark.parametrize(
        "array", [np.ones((2, 2)), np.ones((4, 4, 4))[:, ::2], np.ones((2, 2, 2), dtype=int)]
    )
    def test_arrays_that_are_no_design(self, array):
        with pytest.raises(ValueError, match=r"array must be|dtype must be"):
            DenseDesign(array)

    def test_streams(self):
        with pytest.raises(ValueError, match="shape must be three positive integers"):
            StreamedDesign((0, 2, 2), KEY)
        with pytest.raises(ValueError, match="key must be two"):
            StreamedDesign((1, 2, 2), [1, 2, 3])

    def test_products(self):
        X = DenseDesign(np.ones((3, 2, 4)))
        for S in (np.ones((4, 2)), np.ones(8)):
            with pytest.raises(ValueError, match=r"S must have shape \(2, 4\)"):
                X.matvec(S)
            with pytest.raises(ValueError, match="S must have shape"):
                X.sweep(S, lambda h, rows: h)
        with pytest.raises(ValueError, match=r"S must .* stack of these, got \(1, 1, 2, 4\)"):
            X.matvec(np.ones((1, 1, 2, 4)))
        for g in (np.ones(4), np.ones((3, 2)), np.ones((1, 1, 3)), 1.0):
            with pytest.raises(ValueError, match=r"g must have shape \(3,\)"):
                X.rmatvec(g)
