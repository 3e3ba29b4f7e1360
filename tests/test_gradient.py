"""Gradient descent: its gradient, its invariants, its checkpoints, and what it finds."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
import types

import numpy as np
import pytest

import bsr_theory as bsr
from bsr_theory.channels import GaussianChannel
from bsr_theory.design import DenseDesign
from bsr_theory.priors import GaussianFactorPrior, LowRankFactorPrior
from bsr_theory.problem import Instance, Problem
from bsr_theory.results import Status
from bsr_theory.simulations import amp
from bsr_theory.simulations.gradient import averaged_gradient_descent, gradient_descent

MODULE = sys.modules["bsr_theory.simulations.gradient"]
PROBLEM = bsr.bilinear_regression(alpha=0.5, beta=1.5, rho=0.3, delta=0.2)
DATA = PROBLEM.sample(10, rng=1)
NOISELESS = bsr.bilinear_regression(alpha=0.4, beta=1.5, rho=0.5).sample(10, rng=2)
MANY_LABELS = bsr.bilinear_regression(alpha=2.5, beta=1.5, rho=0.3, delta=0.2).sample(10, rng=3)


def factors(data, rank, seed=0, count=None):
    d1, d2 = data.S.shape
    rng = np.random.default_rng(seed)
    stack = () if count is None else (count,)
    return rng.standard_normal((*stack, d1, rank)), rng.standard_normal((*stack, rank, d2))


def loss(data, U, V, decay=0.0):
    """The definition, sample by sample; U and V may be complex."""
    total = 0.5 * decay * (np.sum(U * U) + np.sum(V * V))
    S = U @ V / np.sqrt(U.shape[1])
    for x, y in zip(np.asarray(data.X), data.y, strict=True):
        total += 0.5 * (y - np.sum(x * S) / np.sqrt(S.size)) ** 2
    return total


def one_step(data, U, V, rate=1e-3, **options):
    """Return the gradient that a step of gradient descent takes."""
    run = gradient_descent(data, init=(U, V), learning_rate=rate, steps=1, **options)
    return (U - run.factors[0]) / rate, (V - run.factors[1]) / rate


def same(first, second):
    """Two runs agree bit for bit."""
    for name in ("mse", "overlap", "train_loss", "iteration", "estimate", "learning_rate"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)
    for a, b in zip(first.factors, second.factors, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(first.statuses, second.statuses)
    assert first.status is second.status


def close(first, second, tolerance=1e-9):
    """Two runs took the same steps, up to rounding."""
    np.testing.assert_array_equal(first.iteration, second.iteration)
    for name in ("mse", "overlap", "train_loss", "estimate", "learning_rate"):
        a, b = getattr(first, name), getattr(second, name)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=name)
    np.testing.assert_array_equal(first.statuses, second.statuses)


# --------------------------------------------------------------------------------------------
# The gradient
# --------------------------------------------------------------------------------------------


class TestGradient:
    @pytest.mark.parametrize("data", [DATA, MANY_LABELS], ids=["few labels", "many labels"])
    @pytest.mark.parametrize("rank", [1, 3, 12])
    @pytest.mark.parametrize("decay", [0.0, 0.7])
    def test_is_the_derivative_of_the_loss(self, data, rank, decay):
        """By complex steps, exact to rounding, in random directions."""
        U, V = factors(data, rank)
        left, right = one_step(data, U, V, weight_decay=decay)
        rng = np.random.default_rng(5)
        for _ in range(3):
            u, v = rng.standard_normal(U.shape), rng.standard_normal(V.shape)
            h = 1e-30
            exact = loss(data, U + 1j * h * u, V + 1j * h * v, decay).imag / h
            assert np.sum(left * u) + np.sum(right * v) == pytest.approx(exact, rel=1e-9)

    def test_every_entry_by_differences(self):
        data = bsr.bilinear_regression(0.5, 1.5, 0.5, 0.1).sample(4, rng=0)
        U, V = factors(data, 2)
        h = 1e-5
        for which, gradient in enumerate(one_step(data, U, V, weight_decay=0.3)):
            for at in np.ndindex(gradient.shape):
                pair = []
                for sign in (1, -1):
                    moved = [U.copy(), V.copy()]
                    moved[which][at] += sign * h
                    pair.append(loss(data, *moved, 0.3))
                assert gradient[at] == pytest.approx((pair[0] - pair[1]) / (2 * h), abs=1e-6)

    def test_train_loss(self):
        U, V = factors(DATA, 3)
        run = gradient_descent(DATA, init=(U, V), weight_decay=0.4, steps=3, record=1)
        assert run.train_loss[0] == pytest.approx(2 * loss(DATA, U, V) / DATA.X.n, rel=1e-12)
        last = 2 * loss(DATA, *run.factors) / DATA.X.n
        assert run.train_loss[-1] == pytest.approx(last, rel=1e-12)

    def test_curvature_is_the_largest_of_the_hessian(self):
        """Column by column, from differences of the gradient."""
        data = bsr.bilinear_regression(0.6, 1.5, 0.5, 0.1).sample(4, rng=0)
        for scale, decay in itertools.product((1.0, 1e-3), (0.0, 0.5)):
            U, V = (scale * x for x in factors(data, 2, seed=3))
            columns = []
            for which, at in [(0, at) for at in np.ndindex(U.shape)] + [
                (1, at) for at in np.ndindex(V.shape)
            ]:
                pair = []
                for sign in (1, -1):
                    moved = [U.copy(), V.copy()]
                    moved[which][at] += sign * 1e-4
                    gradient = one_step(data, *moved, weight_decay=decay)
                    pair.append(np.concatenate([x.ravel() for x in gradient]))
                columns.append((pair[0] - pair[1]) / 2e-4)
            exact = np.abs(np.linalg.eigvalsh(np.array(columns) / 2 + np.array(columns).T / 2))
            run = gradient_descent(data, init=(U, V), weight_decay=decay, steps=1)
            assert 1 / run.learning_rate == pytest.approx(exact.max(), rel=0.05)


# --------------------------------------------------------------------------------------------
# The flow
# --------------------------------------------------------------------------------------------


class TestFlow:
    def test_balance_is_conserved(self):
        """U^T U - V V^T is constant in the flow; in steps it drifts in proportion to the rate."""
        U, V = factors(NOISELESS, 5)
        before = U.T @ U - V @ V.T
        drifts = []
        for rate in (4e-3, 2e-3, 1e-3):
            run = gradient_descent(
                NOISELESS, init=(U, V), learning_rate=rate, steps=round(3 / rate), tolerance=0.0
            )
            left, right = run.factors
            assert np.linalg.norm(run.estimate - U @ V / np.sqrt(5)) > 5.0
            drifts.append(np.linalg.norm(left.T @ left - right @ right.T - before))
        assert drifts[2] < 0.02 * np.linalg.norm(before)
        assert drifts[0] / drifts[1] == pytest.approx(2.0, rel=0.1)
        assert drifts[1] / drifts[2] == pytest.approx(2.0, rel=0.1)

    def test_weight_decay_forgets_the_balance(self):
        U, V = factors(DATA, 3)
        run = gradient_descent(DATA, init=(2 * U, V), weight_decay=2.0, steps=600)
        left, right = run.factors
        np.testing.assert_allclose(left.T @ left, right @ right.T, atol=1e-8)

    def test_loss_falls_at_every_step(self):
        for init in ("prior", "small"):
            run = gradient_descent(DATA, init=init, rng=0, steps=200, record=1)
            assert np.all(np.diff(run.train_loss) <= 1e-12)

    def test_gradient_vanishes_at_the_end(self):
        run = gradient_descent(MANY_LABELS, rng=0, weight_decay=0.1)
        assert run.status is Status.CONVERGED and run.iterations < 10_000
        start = np.linalg.norm(one_step(MANY_LABELS, *factors(MANY_LABELS, 3))[0])
        end = np.linalg.norm(one_step(MANY_LABELS, *run.factors, weight_decay=0.1)[0])
        assert end < 1e-2 * start

    def test_labels_are_fitted_when_they_are_few(self):
        run = gradient_descent(NOISELESS, rng=0)
        assert run.status is Status.CONVERGED
        residual = NOISELESS.y - NOISELESS.X.matvec(run.estimate)
        assert np.mean(residual**2) <= 1e-10 * np.mean(NOISELESS.y**2)

    def test_wide_factors(self):
        """Many labels, full rank: the least-squares solution is the only minimum."""
        data = bsr.bilinear_regression(3.0, 1.5, 0.5, 0.1).sample(8, rng=0)
        A = np.asarray(data.X).reshape(data.X.n, -1) / np.sqrt(data.S.size)
        least, *_ = np.linalg.lstsq(A, data.y)
        run = gradient_descent(data, rank=20, rng=0, tolerance=0.0)
        assert run.factors[0].shape == (8, 20) and run.factors[1].shape == (20, 12)
        np.testing.assert_allclose(run.estimate.ravel(), least, atol=1e-2)

    def test_small_factors_are_not_taken_for_converged(self):
        """It takes longer than ``patience`` until the loss falls by 0.1%."""
        run = gradient_descent(
            NOISELESS, init="small", init_scale=1e-6, learning_rate=0.1, patience=10, rng=0
        )
        assert run.train_loss[1] > 0.999 * np.mean(NOISELESS.y**2)
        assert run.train_loss[-1] < 1e-2 * run.train_loss[0]


class TestNuclearNorm:
    def test_weight_decay_is_a_nuclear_norm(self):
        """At full width, lam sqrt(d2) = w sqrt(k): the KKT conditions of the convex problem."""
        decay = 0.6
        run = gradient_descent(
            DATA, rank=10, weight_decay=decay, rng=0, patience=8000, steps=8000, record=1000
        )
        level = decay * np.sqrt(10)
        G = DATA.X.rmatvec(DATA.y - DATA.X.matvec(run.estimate)) / level
        left, sigma, right = np.linalg.svd(run.estimate, full_matrices=False)
        kept = sigma > 1e-5
        assert 0 < kept.sum() < 10
        # G/level is a subgradient: U V^T on the range of the estimate, norm at most 1 beside it
        np.testing.assert_allclose(left.T[kept] @ G @ right[kept].T, np.eye(kept.sum()), atol=1e-6)
        assert np.linalg.norm(G, 2) < 1.0 + 1e-6

    @pytest.mark.parametrize("scale", [1e-3, 1e-5])
    def test_small_start_is_not_the_minimal_nuclear_norm(self, scale):
        """There is another interpolator of smaller norm; one from the prior is far above."""
        data = bsr.bilinear_regression(0.4, 1.0, 0.5).sample(20, rng=1)
        small = gradient_descent(data, init="small", init_scale=scale, rng=0)
        prior = gradient_descent(data, rng=0)
        # weight decay gives nearly the minimal norm, a projection makes it an interpolator
        near = gradient_descent(
            data, rank=20, init="small", init_scale=0.1, rng=0, weight_decay=0.01
        )
        A = np.asarray(data.X).reshape(data.X.n, -1) / np.sqrt(data.S.size)
        rest = np.linalg.lstsq(A, data.y - A @ near.estimate.ravel())[0]
        best = near.estimate + rest.reshape(data.S.shape)
        np.testing.assert_allclose(data.X.matvec(best), data.y, atol=1e-9)
        norms = [np.linalg.norm(x, "nuc") for x in (best, small.estimate, prior.estimate)]
        assert 1.05 * norms[0] < norms[1] < norms[2] / 1.3


# --------------------------------------------------------------------------------------------
# Many at once, wherever the design lives
# --------------------------------------------------------------------------------------------


class TestBatches:
    @pytest.mark.parametrize("data", [NOISELESS, MANY_LABELS], ids=["few labels", "many labels"])
    @pytest.mark.parametrize("rate", ["auto", 0.05])
    def test_batch_is_the_loop(self, data, rate):
        """Members that end early leave the others alone."""
        U, V = factors(data, 5, count=4)
        U[1] *= 0.1
        options = {"learning_rate": rate, "steps": 400, "tolerance": 1e-4, "patience": 150}
        batch = gradient_descent(data, init=(U, V), initialisations=4, **options)
        ends = []
        for k in range(4):
            one = gradient_descent(data, init=(U[k], V[k]), **options)
            rows = np.minimum(np.arange(batch.iteration.size), one.iteration.size - 1)
            for name in ("mse", "overlap", "train_loss"):
                series = getattr(one, name)[rows]
                np.testing.assert_allclose(getattr(batch, name)[:, k], series, rtol=1e-7)
            np.testing.assert_allclose(batch.estimate[k], one.estimate, atol=1e-8)
            assert batch.statuses[k] == one.status
            ends.append(one.iterations)
        assert batch.iterations == max(ends)
        if data is NOISELESS:
            assert min(ends) < max(ends)

    def test_the_first_of_many_is_that_of_one(self):
        one = gradient_descent(DATA, rng=3, steps=30)
        many = gradient_descent(DATA, rng=3, steps=30, initialisations=3)
        np.testing.assert_allclose(many.mse[:, 0], one.mse, rtol=1e-9)
        assert np.ptp(many.mse[-1]) > 0.0

    @pytest.mark.parametrize("dtype", [np.float64, np.float32])
    @pytest.mark.parametrize("problem", [PROBLEM, MANY_LABELS.problem], ids=["few", "many"])
    def test_streamed_and_memmap_are_dense(self, problem, dtype, tmp_path, monkeypatch):
        d1 = 24 if problem is PROBLEM else 12
        dense, stream = (
            problem.sample(d1, rng=1, dtype=dtype, design=kind) for kind in ("dense", "stream")
        )
        mapped = problem.sample(d1, rng=1, dtype=dtype, design="memmap", path=tmp_path / "x.npy")
        assert stream.X.block_count > 1 or d1 == 12
        options = {"initialisations": 3, "rng": 0, "steps": 25, "learning_rate": 0.05}
        reference = gradient_descent(dense, **options)
        tolerance = 1e-9 if dtype == np.float64 else 1e-3
        for data in (stream, mapped):
            close(gradient_descent(data, **options), reference, tolerance)
        monkeypatch.setenv("BSR_THREADS", "3")
        same(gradient_descent(stream, **options), gradient_descent(stream, **options))

    def test_float32_is_as_accurate_as_it_can_be(self):
        problem = bsr.bilinear_regression(0.9, 1.0, 0.2)
        run = gradient_descent(problem.sample(15, rng=2, dtype=np.float32), rng=0, tolerance=0.0)
        assert run.status is Status.CONVERGED
        assert run.mse[-1] < 1e-9


class TestGram:
    def test_is_taken_when_it_is_cheaper(self):
        big, few = bsr.bilinear_regression(3.0, 1.0, 0.5), bsr.bilinear_regression(0.6, 1.0, 0.5)
        X = big.sample(12, rng=0, design="stream").X
        assert MODULE._gram_pays(X, 10_000, 8, np.inf)
        assert not MODULE._gram_pays(X, 10_000, 8, 1e5)  # memory
        assert not MODULE._gram_pays(big.sample(12, rng=0).X, 5, 1, np.inf)  # not worth making it
        assert not MODULE._gram_pays(few.sample(12, rng=0).X, 10_000, 8, np.inf)

    @pytest.mark.parametrize("delta", [0.0, 0.2])
    @pytest.mark.parametrize("alpha", [1.0, 3.0])
    def test_same_run_with_and_without(self, delta, alpha, monkeypatch):
        data = bsr.bilinear_regression(alpha, 1.5, 0.3, delta).sample(10, rng=1)
        runs = []
        for pays in (True, False):
            monkeypatch.setattr(MODULE, "_gram_pays", lambda *args, pays=pays: pays)
            runs.append(
                gradient_descent(
                    data, rng=0, initialisations=3, learning_rate=0.03, steps=60, tolerance=0.0
                )
            )
        close(*runs, 1e-8)

    def test_perfect_fits_keep_their_digits(self):
        data = bsr.bilinear_regression(2.0, 1.0, 0.3).sample(10, rng=1)
        assert MODULE._gram_pays(data.X, 10_000, 1, np.inf)
        run = gradient_descent(data, rng=0, tolerance=1e-26)
        assert run.status is Status.CONVERGED
        assert run.mse[-1] < 1e-22

    def test_a_stream_of_many_blocks(self):
        data = bsr.bilinear_regression(3.5, 1.0, 0.5, 0.1).sample(20, rng=0, design="stream")
        assert data.X.block_count > 2 and data.X.n > 2 * MODULE._PANEL
        S = np.random.default_rng(0).standard_normal((2, 20, 20))
        backend = MODULE._Backend(None, None)
        by_gram = MODULE._loss_of_gram(data.X, data.y, backend)(S)
        for one, other in zip(by_gram, MODULE._loss_of_design(data.X, data.y)(S), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11)

    @pytest.mark.parametrize("factor", [0.0, 1.0])
    def test_a_design_without_full_rank(self, factor, monkeypatch):
        X = np.random.default_rng(0).standard_normal((80, 4, 5))
        X[40:] = X[:40]
        X[:, 3] = factor * X[:, 2]
        S = np.random.default_rng(1).standard_normal((4, 5))
        design = DenseDesign(X)
        data = Instance(design, design.matvec(S), S, PROBLEM)
        runs = []
        for pays in (True, False):
            monkeypatch.setattr(MODULE, "_gram_pays", lambda *args, pays=pays: pays)
            runs.append(gradient_descent(data, rank=4, rng=0, learning_rate=0.02, steps=100))
        close(*runs, 1e-8)

    def test_a_wrong_solution_is_not_used(self, monkeypatch):
        """As an ill-conditioned K may give, without an error."""
        backend = MODULE._Backend(None, None)
        assert MODULE._loss_of_gram(MANY_LABELS.X, MANY_LABELS.y, backend) is not None
        monkeypatch.setattr(np.linalg, "solve", lambda K, b: np.ones_like(b))
        assert MODULE._loss_of_gram(MANY_LABELS.X, MANY_LABELS.y, backend) is None


# --------------------------------------------------------------------------------------------
# Checkpoints
# --------------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


class TestCheckpoints:
    OPTIONS = types.MappingProxyType(
        {"initialisations": 4, "tolerance": 1e-4, "rng": 0, "steps": 95, "patience": 40}
    )

    @pytest.mark.parametrize("data", [NOISELESS, MANY_LABELS], ids=["few labels", "many labels"])
    @pytest.mark.parametrize("rate", ["auto", 0.08])
    @pytest.mark.parametrize("at", [0, 10, 60, 90])
    def test_killed_and_resumed(self, data, rate, at, tmp_path):
        path = tmp_path / "state.npz"
        options = {**self.OPTIONS, "learning_rate": rate, "checkpoint_seconds": 0.0}
        reference = gradient_descent(data, **options)

        def kill(iteration, estimate):
            if iteration == at:
                raise Killed

        if reference.iterations <= at:
            pytest.skip("this learning rate ends before that iteration")
        with pytest.raises(Killed):
            gradient_descent(data, checkpoint=path, callback=kill, **options)
        assert path.exists() == (at > 0)
        assert len(list(tmp_path.iterdir())) == (at > 0)
        same(gradient_descent(data, checkpoint=path, **options), reference)
        # it has ended: nothing is left to do
        calls = []
        again = gradient_descent(
            data, checkpoint=path, callback=lambda *seen: calls.append(seen), **options
        )
        same(again, reference)
        assert len(calls) <= 1  # of the end

    def test_more_steps(self, tmp_path):
        path = tmp_path / "state.npz"
        options = {**self.OPTIONS, "tolerance": 0.0, "checkpoint": path}
        short = gradient_descent(NOISELESS, **{**options, "steps": 33})
        assert short.iteration[-1] == 33
        long = gradient_descent(NOISELESS, **{**options, "steps": 71})
        same(long, gradient_descent(NOISELESS, **{**options, "steps": 71, "checkpoint": None}))
        with pytest.raises(ValueError, match="steps must be >= 71, where the checkpoint"):
            gradient_descent(NOISELESS, **options | {"steps": 70})

    def test_the_average(self, tmp_path):
        path = tmp_path / "state.npz"
        reference = averaged_gradient_descent(NOISELESS, **self.OPTIONS)
        averaged_gradient_descent(NOISELESS, checkpoint=path, **{**self.OPTIONS, "steps": 30})
        run = averaged_gradient_descent(NOISELESS, checkpoint=path, **self.OPTIONS)
        np.testing.assert_array_equal(run.mse, reference.mse)
        np.testing.assert_array_equal(run.estimate, reference.estimate)
        same(run.runs, reference.runs)

    @pytest.mark.parametrize(
        "change",
        [
            {"learning_rate": 0.02},
            {"initialisations": 5},
            {"rank": 4},
            {"weight_decay": 0.1},
            {"init": "small"},
            {"init_scale": 1e-2},
            {"record": 5},
            {"tolerance": 1e-5},
            {"patience": 41},
            {"rng": 1},
            {"data": PROBLEM.sample(10, rng=8)},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_of_another_problem(self, change, tmp_path):
        path = tmp_path / "state.npz"
        options = {**self.OPTIONS, "checkpoint": path, "steps": 5}
        gradient_descent(NOISELESS, **options)
        before = path.read_bytes()
        with pytest.raises(ValueError, match=r"checkpoint .* is of another"):
            gradient_descent(**{"instance": NOISELESS, **options} | rename(change))
        assert path.read_bytes() == before

    def test_without_a_seed(self, tmp_path):
        """The initialisation is that of the file, then."""
        options = {"checkpoint": tmp_path / "state.npz", "tolerance": 0.0}
        first = gradient_descent(NOISELESS, steps=10, **options)
        second = gradient_descent(NOISELESS, steps=20, **options)
        np.testing.assert_array_equal(first.mse, second.mse[:2])

    def test_files_that_are_none(self, tmp_path):
        path = tmp_path / "state.npz"
        for content in (b"", b"not a checkpoint"):
            path.write_bytes(content)
            with pytest.raises(ValueError, match="checkpoint must be a file that this"):
                gradient_descent(DATA, checkpoint=path)
        np.savez(path, U=np.ones(3))
        with pytest.raises(ValueError, match="checkpoint must be a file that this"):
            gradient_descent(DATA, checkpoint=path)
        with pytest.raises(ValueError, match="checkpoint must be in an existing folder"):
            gradient_descent(DATA, checkpoint=tmp_path / "none" / "state.npz")

    def test_a_failed_write_leaves_the_old_file(self, tmp_path, monkeypatch):
        path = tmp_path / "state.npz"
        gradient_descent(NOISELESS, rng=0, steps=5, checkpoint=path)
        before = path.read_bytes()

        def full(*args, **arrays):
            args[0].write(b"half")
            raise OSError("no space left")

        monkeypatch.setattr(np, "savez", full)
        with pytest.raises(OSError, match="no space"):
            gradient_descent(NOISELESS, rng=0, steps=9, checkpoint=path)
        assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]

    @pytest.mark.slow
    def test_a_process_that_is_killed(self, tmp_path):
        program = (
            "import sys, os, signal, bsr_theory as bsr\n"
            "from bsr_theory.simulations.gradient import gradient_descent\n"
            "data = bsr.bilinear_regression(0.4, 1.5, 0.5).sample(10, rng=2)\n"
            "def kill(iteration, estimate):\n"
            "    if iteration == int(sys.argv[2]): os.kill(os.getpid(), signal.SIGKILL)\n"
            "run = gradient_descent(data, rng=0, checkpoint=sys.argv[1], checkpoint_seconds=0,\n"
            "                       callback=kill)\n"
            "print(run.mse[-1].hex(), run.iterations)"
        )
        path = str(tmp_path / "state.npz")
        for at, code in (("20", -9), ("70", -9), ("-1", 0)):
            done = subprocess.run(
                [sys.executable, "-c", program, path, at], capture_output=True, text=True
            )
            assert done.returncode == code
        reference = gradient_descent(NOISELESS, rng=0)
        assert done.stdout.split() == [reference.mse[-1].hex(), str(reference.iterations)]


def rename(change):
    return {"instance" if name == "data" else name: value for name, value in change.items()}


# --------------------------------------------------------------------------------------------
# Backends
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["array_api_strict", "torch", "array_api_compat.numpy"])
class TestBackends:
    @pytest.fixture(autouse=True)
    def is_installed(self, name):
        pytest.importorskip(name)

    @pytest.mark.parametrize("kind", ["dense", "stream", "memmap", "many labels"])
    @pytest.mark.parametrize("dtype", [np.float64, np.float32])
    def test_is_numpy(self, name, kind, dtype, tmp_path):
        problem = MANY_LABELS.problem if kind == "many labels" else PROBLEM
        place = "dense" if kind == "many labels" else kind
        path = tmp_path / "x.npy" if kind == "memmap" else None
        data = problem.sample(12, rng=1, design=place, dtype=dtype, path=path)
        options = {"initialisations": 3, "rng": 0, "steps": 60, "tolerance": 0.05}
        options |= {"weight_decay": 0.01}
        reference = gradient_descent(data, **options)
        run = gradient_descent(data, backend=name, **options)
        close(run, reference, 1e-8 if dtype == np.float64 else 1e-3)
        assert all(type(x) is np.ndarray for x in (run.mse, run.estimate, *run.factors))

    def test_module_and_checkpoint(self, name, tmp_path):
        module = sys.modules[name]
        options = {"rng": 0, "initialisations": 3, "tolerance": 1e-3, "backend": module}
        reference = gradient_descent(NOISELESS, **options)
        assert reference.status is Status.CONVERGED
        path = tmp_path / "state.npz"
        gradient_descent(NOISELESS, steps=25, checkpoint=path, **options)
        same(gradient_descent(NOISELESS, checkpoint=path, **options), reference)

    def test_divergence(self, name):
        run = gradient_descent(NOISELESS, rng=0, learning_rate=1e200, backend=name)
        assert run.status is Status.NOT_CONVERGED and np.isfinite(run.mse).all()

    def test_average(self, name):
        options = {"rng": 0, "initialisations": 3, "steps": 20}
        reference = averaged_gradient_descent(NOISELESS, **options)
        run = averaged_gradient_descent(NOISELESS, backend=name, **options)
        np.testing.assert_allclose(run.mse, reference.mse, rtol=1e-9)
        np.testing.assert_allclose(run.train_loss, reference.train_loss, rtol=1e-9)


class TestDevices:
    def test_goes_where_it_is_told(self):
        strict = pytest.importorskip("array_api_strict")
        device = strict.Device("device1")
        backend = MODULE._Backend(strict, device)
        assert backend.put(np.ones(3)).device == device
        assert backend.cast(backend.put(np.ones(3)), np.dtype(np.float32)).device == device

    def test_arrays_as_those_of_cupy(self):
        """They leave their device by a method ``get`` only."""

        class OnDevice:
            def get(self):
                return np.arange(3.0)

            def __array__(self, dtype=None, copy=None):
                raise TypeError("implicit conversion to a NumPy array is not allowed")

        np.testing.assert_array_equal(MODULE._Backend(None, None).get(OnDevice()), np.arange(3.0))

    @pytest.mark.parametrize(
        ("keywords", "message"),
        [
            ({"backend": "no_such_module"}, "backend must be .* imported, got 'no_such_module'"),
            ({"backend": 3}, "backend must be None, the name .* got 3"),
            ({"backend": types.ModuleType("empty")}, "namespace of arrays, got 'empty'"),
            ({"device": "cuda"}, "device must be None or 'cpu' without a backend, got 'cuda'"),
        ],
    )
    def test_bad_input(self, keywords, message):
        with pytest.raises(ValueError, match=message):
            gradient_descent(DATA, **keywords)


# --------------------------------------------------------------------------------------------
# Divergence
# --------------------------------------------------------------------------------------------


class TestDivergence:
    @pytest.mark.parametrize("rate", [1.0, 10.0, 1e8, 1e100, 1e300])
    @pytest.mark.parametrize("data", [DATA, MANY_LABELS], ids=["few labels", "many labels"])
    def test_ends_quietly(self, data, rate):
        run = gradient_descent(data, rng=0, learning_rate=rate, weight_decay=0.1, record=1)
        assert run.status is Status.NOT_CONVERGED
        assert run.iterations < 30
        for series in (run.mse, run.overlap, run.train_loss, run.estimate):
            assert np.isfinite(series).all()
        assert run.train_loss.max() < 2e6 * run.train_loss[0]

    @pytest.mark.parametrize("dtype", [np.float64, np.float32])
    def test_in_threads(self, dtype, monkeypatch):
        monkeypatch.setenv("BSR_THREADS", "2")
        data = PROBLEM.sample(30, rng=0, design="stream", dtype=dtype)
        run = gradient_descent(data, rng=0, learning_rate=1e30)
        assert run.status is Status.NOT_CONVERGED and np.isfinite(run.mse).all()

    def test_of_one_member(self):
        """The others converge, and as they would alone."""
        U, V = factors(NOISELESS, 5, count=3)
        U[1] *= 30.0
        options = {"learning_rate": 0.08, "tolerance": 1e-6}
        run = gradient_descent(NOISELESS, init=(U, V), initialisations=3, **options)
        wanted = [Status.CONVERGED, Status.NOT_CONVERGED, Status.CONVERGED]
        np.testing.assert_array_equal(run.statuses, wanted)
        assert run.status is Status.NOT_CONVERGED
        assert np.isfinite(run.mse).all() and np.isfinite(run.estimate).all()
        alone = gradient_descent(NOISELESS, init=(U[2], V[2]), **options)
        np.testing.assert_allclose(run.estimate[2], alone.estimate, atol=1e-9)

    def test_automatic_rate_never_diverges(self):
        for k, scale in enumerate((1e-8, 1e-2, 1.0, 100.0)):
            U, V = (scale * x for x in factors(NOISELESS, 5, seed=k))
            run = gradient_descent(NOISELESS, init=(U, V), record=1, tolerance=1e-4, steps=2000)
            assert run.status is Status.CONVERGED or scale > 1.0  # slow from far away
            assert np.all(np.diff(run.train_loss) <= 1e-12 * run.train_loss[0])

    def test_automatic_rate_falls_where_it_must(self):
        """From small factors the curvature grows: the first rate is too large for the end."""
        options = {"init": "small", "rng": 0}
        first = gradient_descent(NOISELESS, steps=1, **options).learning_rate
        last = gradient_descent(NOISELESS, **options)
        assert last.status is Status.CONVERGED and last.learning_rate < first
        fixed = gradient_descent(NOISELESS, learning_rate=4.0 * first, **options)
        assert fixed.status is Status.NOT_CONVERGED


# --------------------------------------------------------------------------------------------
# The average
# --------------------------------------------------------------------------------------------


class TestAverage:
    RUN = averaged_gradient_descent(DATA, initialisations=6, rng=0, steps=60)

    def test_is_the_average(self):
        run, each = self.RUN, self.RUN.runs
        np.testing.assert_allclose(run.estimate, each.estimate.mean(axis=0), rtol=1e-14)
        assert run.mse[-1] == pytest.approx(np.mean((run.estimate - DATA.S) ** 2), rel=1e-12)
        assert run.overlap[-1] == pytest.approx(np.mean(run.estimate * DATA.S), rel=1e-12)
        residual = DATA.y - DATA.X.matvec(run.estimate)
        assert run.train_loss[-1] == pytest.approx(np.mean(residual**2), rel=1e-9)
        same(each, gradient_descent(DATA, initialisations=6, rng=0, steps=60))
        assert run.iterations == each.iterations == 60 and run.mse.shape == (7,)

    def test_expected_error_is_that_of_all_choices(self):
        each = self.RUN.runs.estimate
        for count in range(1, 7):
            errors = [
                np.mean((each[list(chosen)].mean(axis=0) - DATA.S) ** 2)
                for chosen in itertools.combinations(range(6), count)
            ]
            assert self.RUN.expected_mse(count) == pytest.approx(np.mean(errors), rel=1e-12)
        assert self.RUN.expected_mse([1, 6])[1] == pytest.approx(self.RUN.mse[-1])
        with pytest.raises(ValueError, match="count must be >= 1, got 0"):
            self.RUN.expected_mse(0)

    def test_expected_error_is_unbiased_beyond(self):
        """Against the average of very many, within its error bars."""
        options = {"learning_rate": 0.05, "steps": 120, "record": 120}
        many = averaged_gradient_descent(NOISELESS, initialisations=400, rng=0, **options)
        few = np.array(
            [
                averaged_gradient_descent(
                    NOISELESS, initialisations=4, rng=k + 1, **options
                ).expected_mse(np.inf)
                for k in range(40)
            ]
        )
        error = few.std(ddof=1) / np.sqrt(few.size)
        assert abs(few.mean() - many.mse[-1]) < 4 * error
        assert error < 0.1 * many.mse[-1]

    def test_callback_sees_the_average(self):
        seen = []

        def watch(iteration, estimate):
            seen.append((iteration, np.mean((estimate - DATA.S) ** 2)))
            return iteration == 20

        run = averaged_gradient_descent(DATA, initialisations=3, rng=0, callback=watch)
        assert [k for k, _ in seen] == [0, 10, 20] == list(run.iteration)
        np.testing.assert_allclose([e for _, e in seen], run.mse)
        assert run.status is Status.NOT_CONVERGED

    @pytest.mark.parametrize("count", [1, 0, 2.0, True, None])
    def test_needs_two(self, count):
        with pytest.raises(ValueError, match="initialisations must be an integer >= 2, got"):
            averaged_gradient_descent(DATA, initialisations=count)


# --------------------------------------------------------------------------------------------
# What it finds, against state evolution
# --------------------------------------------------------------------------------------------


def against_theory(problem, d1, samples, **options):
    """Return mean and standard error of the errors over the Bayes-optimal one.

    First of a member, then of the average of infinitely many, in units of the size of the signal.
    """
    rows = []
    for k in range(samples):
        data = problem.sample(d1, rng=(2, k))
        run = averaged_gradient_descent(data, rng=k, record=1000, **options)
        size = np.mean(data.S**2) * bsr.solve(problem).mmse
        rows.append((run.runs.mse[-1].mean() / size, run.expected_mse(np.inf) / size))
    rows = np.array(rows)
    return rows.mean(axis=0), rows.std(axis=0, ddof=1) / np.sqrt(samples)


class TestAgainstBayes:
    def test_few_labels(self):
        """Twice the minimal error, and the minimal error by averaging."""
        problem = bsr.bilinear_regression(0.2, 1.0, 0.5)
        ratio, error = against_theory(problem, 20, 16, initialisations=6, learning_rate=0.3)
        assert error[0] < 0.1 and error[1] < 0.05
        assert np.all(np.abs(ratio - [2.0, 1.0]) < 3 * error + 0.05)

    @pytest.mark.slow
    def test_twice_the_error_of_message_passing(self):
        """On the same instances, which takes away most of their fluctuations."""
        problem = bsr.bilinear_regression(0.3, 1.0, 0.5)
        ratios = []
        for k in range(16):
            data = problem.sample(20, rng=(4, k))
            run = averaged_gradient_descent(data, initialisations=6, rng=k, learning_rate=0.3)
            best = amp(data).mse[-1]
            ratios.append((run.runs.mse[-1].mean() / best, run.expected_mse(np.inf) / best))
        mean, error = np.mean(ratios, axis=0), np.std(ratios, axis=0, ddof=1) / 4.0
        assert np.all(error < 0.1)
        assert np.all(np.abs(mean - [2.0, 1.0]) < 3 * error + 0.1)

    @pytest.mark.slow
    def test_the_rate_matters(self):
        """Near the largest stable rate: 2.2 and 1.1 times the minimal error, 2.6 for the flow."""
        problem = bsr.bilinear_regression(0.4, 1.0, 0.5)
        options = {"initialisations": 8, "steps": 4000}
        large, error = against_theory(problem, 40, 8, learning_rate=0.3, **options)
        slow, spread = against_theory(problem, 40, 8, learning_rate=0.03, **options)
        assert 2.0 - 3 * error[0] < large[0] < 2.3 + 3 * error[0]
        assert 1.0 - 3 * error[1] < large[1] < 1.1 + 3 * error[1]
        assert slow[0] - large[0] > 3 * np.hypot(error[0], spread[0]) + 0.2
        assert slow[1] < 1.15 + 3 * spread[1]

    @pytest.mark.slow
    def test_wide(self):
        problem = bsr.bilinear_regression(0.1, 2.0, 0.5)
        ratio, error = against_theory(problem, 40, 6, initialisations=8, learning_rate=0.25)
        assert np.all(np.abs(ratio - [2.0, 1.0]) < 3 * error + 0.02)
        assert np.all(error < 0.02)

    def test_perfect_recovery(self):
        """With labels enough the signal is found, not only an interpolator."""
        data = bsr.bilinear_regression(0.9, 1.0, 0.2).sample(20, rng=1)
        for init in ("prior", "small"):
            run = gradient_descent(data, init=init, rng=0, tolerance=1e-14)
            assert run.status is Status.CONVERGED and run.mse[-1] < 1e-12


# --------------------------------------------------------------------------------------------
# The interface
# --------------------------------------------------------------------------------------------


class TestInterface:
    def test_what_is_returned(self):
        run = gradient_descent(DATA, rng=0, steps=25)
        np.testing.assert_array_equal(run.iteration, [0, 10, 20, 25])
        assert run.iterations == 25 and run.status is Status.NOT_CONVERGED
        for series in (run.mse, run.overlap, run.train_loss):
            assert series.shape == (4,)
        assert run.factors[0].shape == (10, 3) and run.factors[1].shape == (3, 15)
        product = run.factors[0] @ run.factors[1] / np.sqrt(3)
        np.testing.assert_allclose(run.estimate, product, rtol=1e-14)
        assert run.mse[-1] == pytest.approx(np.mean((run.estimate - DATA.S) ** 2), rel=1e-12)
        assert run.overlap[-1] == pytest.approx(np.mean(run.estimate * DATA.S), rel=1e-12)
        assert isinstance(run.learning_rate, float) and run.statuses.shape == ()
        assert 0.0 < run.seconds < 60.0
        with pytest.raises(dataclasses.FrozenInstanceError):
            run.mse = None

    def test_shapes_of_many(self):
        run = gradient_descent(DATA, rng=0, steps=25, initialisations=2, rank=12)
        assert run.mse.shape == run.train_loss.shape == (4, 2)
        assert run.estimate.shape == (2, 10, 15)
        assert run.factors[0].shape == (2, 10, 12) and run.factors[1].shape == (2, 12, 15)
        assert run.learning_rate.shape == run.statuses.shape == (2,)
        assert gradient_descent(DATA, steps=1, initialisations=1).mse.shape == (2, 1)

    def test_initial_factors(self):
        def start(**options):
            seen = []
            gradient_descent(DATA, callback=lambda k, S: seen.append(S) or True, **options)
            return seen[0]

        entries = np.concatenate([start(rng=k).ravel() for k in range(40)])
        assert np.mean(entries**2) == pytest.approx(1.0, abs=0.1)
        np.testing.assert_array_equal(start(rng=1), start(rng=np.random.default_rng(1)))
        small = start(rng=1, init="small", init_scale=0.01)
        np.testing.assert_allclose(small, 1e-4 * start(rng=1), rtol=1e-12)
        assert np.any(start() != start())

    def test_width_of_the_signal(self):
        low = Problem(LowRankFactorPrior(1.5), GaussianChannel(), 1.5).sample(10, rng=0, rank=2)
        assert gradient_descent(low, steps=1).factors[0].shape == (10, 2)
        free = bsr.bilinear_regression(0.5, 1.5, float("inf")).sample(6, rng=0)
        with pytest.raises(ValueError, match="rank must be given"):
            gradient_descent(free)
        assert gradient_descent(free, rank=6, steps=1).factors[0].shape == (6, 6)

    def test_the_signal_is_not_looked_at(self):
        blind = dataclasses.replace(DATA, S=np.zeros_like(DATA.S))
        runs = [gradient_descent(data, rng=0, steps=50) for data in (DATA, blind)]
        np.testing.assert_array_equal(runs[0].estimate, runs[1].estimate)

    def test_callback_ends_a_run(self):
        run = gradient_descent(DATA, rng=0, record=3, callback=lambda k, S: k == 6)
        np.testing.assert_array_equal(run.iteration, [0, 3, 6])
        assert run.status is Status.NOT_CONVERGED

    def test_nothing_to_do(self):
        """Labels that are fitted from the start; a stationary point."""
        rank = 5
        U, s, V = np.linalg.svd(NOISELESS.S)
        left = U[:, :rank] * np.sqrt(s[:rank] * np.sqrt(rank))
        right = (V[:rank].T * np.sqrt(s[:rank] * np.sqrt(rank))).T
        run = gradient_descent(NOISELESS, init=(left, right))
        assert run.status is Status.CONVERGED and run.iterations == 0 and run.mse.shape == (1,)
        run = gradient_descent(NOISELESS, init=(0 * left, 0 * right), patience=7)
        assert run.status is Status.CONVERGED and run.iterations == 7

    def test_progress(self, capsys):
        gradient_descent(DATA, steps=2)
        assert capsys.readouterr().err == ""
        gradient_descent(DATA, steps=2, progress=True)
        assert "2/2" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("keywords", "message"),
        [
            ({"steps": 0}, "steps must be a positive integer, got 0"),
            ({"steps": 2.0}, "steps must be a positive integer, got 2.0"),
            ({"steps": True}, "steps"),
            ({"record": 0}, "record must be a positive integer, got 0"),
            ({"patience": -1}, "patience must be a positive integer, got -1"),
            ({"rank": 0}, "rank must be a positive integer, got 0"),
            ({"initialisations": 0}, "initialisations must be a positive integer, got 0"),
            ({"learning_rate": 0.0}, "learning_rate must be > 0 and finite, got 0.0"),
            ({"learning_rate": float("nan")}, "learning_rate must be > 0"),
            ({"learning_rate": float("inf")}, "learning_rate must be > 0"),
            ({"learning_rate": [0.1]}, r"learning_rate must be a scalar, .* shape \(1,\)"),
            ({"learning_rate": "fast"}, "learning_rate must be 'auto' or a number, got 'fast'"),
            ({"init": "large"}, "init must be 'prior', 'small' or a pair of arrays, got 'large'"),
            ({"init": 3}, "init must be 'prior', 'small' or a pair of arrays, got 3"),
            ({"init": (np.ones((10, 3)), np.ones((4, 15)))}, r"init must be finite of shapes"),
            ({"init": (np.ones((9, 3)), np.ones((3, 15)))}, r"\(1, 10, k\) and \(1, k, 15\)"),
            ({"init": (np.full((10, 3), np.nan), np.ones((3, 15)))}, "init must be finite"),
            ({"init": (np.full((10, 3), 1e200), np.ones((3, 15)))}, "init must have a finite loss"),
            ({"init": (np.ones((10, 3)), np.ones((3, 15))), "rank": 4}, "rank must be that of"),
            ({"init_scale": 0.0}, "init_scale must be > 0 and finite, got 0.0"),
            ({"weight_decay": -1.0}, "weight_decay must be >= 0 and finite, got -1.0"),
            ({"tolerance": -1.0}, "tolerance must be >= 0 and finite, got -1.0"),
            ({"checkpoint_seconds": -1.0}, "checkpoint_seconds must be >= 0"),
        ],
    )
    def test_bad_input(self, keywords, message):
        with pytest.raises(ValueError, match=message):
            gradient_descent(DATA, **keywords)

    def test_other_channels(self):
        class Sign(GaussianChannel.__base__):
            resolves = 0.0
            precision = information = score = None

            def sample(self, h, *, rng=None):
                return np.sign(h)

        data = Problem(GaussianFactorPrior(1.0, 0.5), Sign(), 0.5).sample(6, rng=0)
        with pytest.raises(ValueError, match="channel must be a GaussianChannel"):
            gradient_descent(data)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    @pytest.mark.parametrize("data", [DATA, MANY_LABELS], ids=["few labels", "many labels"])
    def test_a_design_that_is_not_finite(self, data, value):
        broken = np.asarray(data.X).copy()
        broken[3, 2, 1] = value
        data = Instance(DenseDesign(broken), data.y, data.S, data.problem)
        with pytest.raises(ValueError, match="X of the instance must be finite"):
            gradient_descent(data)
