"""Runs beside the theory: what is run, what is reported, and that nothing depends on how."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import bsr_theory as bsr
from bsr_theory import Instance, Problem, SimulationRun, Status
from bsr_theory.rotational import RotationallyInvariantPrior
from bsr_theory.simulations import amp, compare, nuclear_norm, ridge

PROBLEM = bsr.bilinear_regression([0.3, 0.6], 2.0, [[0.2], [0.5], [1.0]], 0.1)


def zero(instance: Instance, **options: Any) -> SimulationRun:
    """Estimate nothing."""
    estimate = np.zeros(instance.S.shape)
    error = np.array([np.mean(instance.S**2)] * 2)
    return SimulationRun(
        mse=error, overlap=np.zeros(2), estimate=estimate, status=Status.CONVERGED, seconds=0.1
    )


def failing(instance: Instance) -> SimulationRun:
    """Say so when the width is 10."""
    run = zero(instance)
    status = Status.NOT_CONVERGED if instance.problem.prior.rho == 1.0 else Status.CONVERGED
    return SimulationRun(
        mse=run.mse, overlap=run.overlap, estimate=run.estimate, status=status, seconds=0.0
    )


def noisy(instance: Instance, rng: Any = None) -> SimulationRun:
    """Report a random number as its error."""
    run = zero(instance)
    return SimulationRun(
        mse=rng.random(2),
        overlap=run.overlap,
        estimate=run.estimate,
        status=run.status,
        seconds=0.0,
    )


def test_each_run_is_the_run_of_its_own_instance() -> None:
    runs = compare(PROBLEM, "amp", d1=10, samples=3, rng=7, executor="serial", steps=20)
    assert runs.mse.dims == ("rho", "alpha", "sample")
    assert runs.rho.values.tolist() == [0.2, 0.5, 1.0]
    assert runs.alpha.values.tolist() == [0.3, 0.6]
    assert float(runs.beta) == 2.0
    assert float(runs.delta) == 0.1
    for at in ((0, 1, 2), (2, 0, 0)):
        generator = np.random.default_rng(np.random.SeedSequence(7, spawn_key=at))
        data = PROBLEM[at[:2]].sample(10, rng=generator)
        run = amp(data, steps=20)
        assert float(runs.mse[at]) == run.mse[-1]
        assert float(runs.overlap[at]) == run.overlap[-1]
        assert float(runs.signal[at]) == np.mean(data.S**2)
        assert int(runs.iterations[at]) == run.iterations
        assert int(runs.status[at]) == run.status
    values = runs.mse.values
    np.testing.assert_allclose(runs.mse_mean, values.mean(axis=-1), rtol=1e-13)
    spread = values.std(axis=-1, ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(runs.mse_error, spread, rtol=1e-12)
    assert len(np.unique(values)) == values.size  # no instance is used twice


def test_theory_is_that_of_the_size_at_hand() -> None:
    problem = bsr.bilinear_regression([0.31, 0.6], 1.3, 0.17, 0.1)
    runs = compare(problem, "amp", d1=11, samples=1, rng=0, executor="serial", steps=3)
    d1, d2, r = 11, 14, 2
    for k, alpha in enumerate((0.31, 0.6)):
        actual = bsr.bilinear_regression(round(alpha * d1 * d2) / (d1 * d2), d2 / d1, r / d1, 0.1)
        assert float(runs.theory[k]) == pytest.approx(bsr.solve(actual).mmse, rel=1e-10)
        assert float(runs.bayes[k]) == float(runs.theory[k])
    assert np.isnan(runs.mse_error).all()  # no error bar from one sample


def test_theory_of_convex_estimators() -> None:
    problem = bsr.bilinear_regression([0.3, 0.6], 1.0, 0.5, 0.1)
    for name, run, theory in (
        ("ridge", ridge, bsr.erm.ridge),
        ("nuclear_norm", nuclear_norm, bsr.erm.nuclear_norm),
    ):
        for lam in (0.3, "optimal"):
            runs = compare(problem, name, d1=10, samples=2, rng=1, executor="serial", lam=lam)
            expected = theory(problem, lam=lam)
            np.testing.assert_allclose(runs.theory, expected.mse, rtol=1e-7)
            np.testing.assert_allclose(runs.train_loss_theory, expected.train_loss, rtol=1e-6)
            np.testing.assert_allclose(runs.lam, np.broadcast_to(expected.lam, (2,)), rtol=1e-6)
            generator = np.random.default_rng(np.random.SeedSequence(1, spawn_key=(1, 0)))
            one = run(problem[1].sample(10, rng=generator), lam=float(runs.lam[1]))
            assert float(runs.mse[1, 0]) == pytest.approx(one.mse[-1], rel=1e-12)
            assert float(runs.train_loss[1, 0]) == pytest.approx(one.train_loss, rel=1e-12)
        runs = compare(problem, name, d1=10, samples=1, rng=1, executor="serial", lam=[0.1, 0.2])
        np.testing.assert_allclose(runs.theory, theory(problem, lam=[0.1, 0.2]).mse, rtol=1e-7)


def test_theory_of_ones_own() -> None:
    common: dict[str, Any] = {"d1": 10, "samples": 2, "rng": 0, "executor": "serial"}
    runs = compare(PROBLEM, zero, **common, theory=lambda problem: problem.alpha)
    np.testing.assert_array_equal(runs.theory, np.broadcast_to([0.3, 0.6], (3, 2)))
    runs = compare(PROBLEM, zero, **common, theory=[[1.0], [2.0], [3.0]])
    assert runs.theory.values.tolist() == [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]
    assert "theory" not in compare(PROBLEM, zero, **common)
    assert "bayes" in compare(PROBLEM, zero, **common)
    bare = compare(PROBLEM, zero, **common, theory=None)
    assert not {"theory", "bayes"} & set(bare)


def test_history_with_that_of_state_evolution() -> None:
    problem = bsr.bilinear_regression(0.4, 1.0, 0.5, 0.1)
    runs = compare(
        problem, "amp", d1=20, samples=3, rng=0, executor="serial", history=True, steps=6,
        tolerance=0.0,
    )  # fmt: skip
    assert runs.trajectory.dims == ("sample", "iteration")
    assert runs.trajectory.shape == (3, 7)
    np.testing.assert_array_equal(runs.trajectory[:, -1], runs.mse)
    expected = bsr.iterate(problem, steps=6).mmse
    np.testing.assert_allclose(runs.trajectory_theory, expected, rtol=1e-12)
    # runs that stop early are filled with NaN
    ragged = compare(problem, "amp", d1=10, samples=4, rng=0, executor="serial", history=True)
    lengths = ragged.trajectory.count("iteration").values
    np.testing.assert_array_equal(lengths, ragged.iterations + 1)
    assert len(set(lengths.tolist())) > 1


def test_theory_is_where_message_passing_ends() -> None:
    prior = bsr.GaussianFactorPrior(1.0, 0.1)
    hard = Problem(prior, bsr.channels.AbsChannel(), 0.4)  # solvable, but not from a small start
    common: dict[str, Any] = {"d1": 10, "samples": 1, "rng": 0, "executor": "serial", "steps": 1}
    for start in (None, 0.1, 0.98):
        runs = compare(hard, "amp", **common, start=start)
        end = bsr.iterate(hard, 3000, q=start).mmse[-1]
        assert float(runs.theory) == pytest.approx(end, abs=1e-6)
    assert float(runs.bayes) == 0.0
    assert bsr.iterate(hard, 3000, q=0.1).mmse[-1] > 0.9


@pytest.mark.parametrize("executor", ["threads", None, "pool"])
def test_nothing_depends_on_where_runs_take_place(executor: Any) -> None:
    common: dict[str, Any] = {"d1": 10, "samples": 2, "rng": 5}
    here = compare(PROBLEM, noisy, **common, executor="serial")
    with ThreadPoolExecutor(2) as pool:
        there = compare(PROBLEM, noisy, **common, executor=pool if executor == "pool" else executor)
    np.testing.assert_array_equal(here.mse, there.mse)
    # nor on how many other points and samples there are
    more = compare(PROBLEM, noisy, **{**common, "samples": 3}, executor="serial")
    np.testing.assert_array_equal(more.mse[..., :2], here.mse)
    other = compare(PROBLEM, noisy, **{**common, "rng": 6}, executor="serial")
    assert not (other.mse == here.mse).any()


def test_stored_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "runs.nc"
    common: dict[str, Any] = {"d1": 10, "samples": 2, "executor": "serial", "path": path}
    first = compare(PROBLEM, "amp", **common, rng=3, steps=5)
    with xr.open_dataset(path, engine="h5netcdf") as stored:
        xr.testing.assert_allclose(stored.load(), first, rtol=0.0)
    again = compare(PROBLEM, "amp", **common, rng=3, steps=5)
    np.testing.assert_array_equal(again.seconds, first.seconds)  # read, not run
    xr.testing.assert_allclose(again, first, rtol=0.0)
    for change in ({"rng": 4}, {"rng": 3, "steps": 6}, {"rng": 3, "d1": 11}):
        with pytest.raises(ValueError, match="path"):
            compare(PROBLEM, "amp", **{**common, "steps": 5, **change})
    assert first.attrs["estimator"] == "amp"
    assert first.attrs["d1"] == 10
    assert first.attrs["rng"] == "3"
    assert json.loads(first.attrs["provenance"])["package"] == bsr.__version__


def test_names_of_dimensions() -> None:
    def dims(problem: Problem) -> tuple[str, ...]:
        runs = compare(problem, zero, d1=6, samples=1, rng=0, executor="serial", theory=None)
        return tuple(str(x) for x in runs.mse.dims)

    r = bsr.bilinear_regression
    assert dims(r(0.3, 1.0, 0.5)) == ("sample",)
    assert dims(r([0.3], 1.0, 0.5)) == ("alpha", "sample")
    assert dims(r([0.3, 0.4], 1.0, [[0.5]])) == ("rho", "alpha", "sample")
    assert dims(r([0.3, 0.4], [1.0, 2.0], 0.5)) == ("dim_0", "sample")
    assert dims(r(0.4, 1.0, 0.5, [0.0, 0.1, 0.2])) == ("delta", "sample")
    both = compare(r([0.3, 0.4], [1.0, 2.0], 0.5), zero, d1=6, rng=0, samples=1, executor="serial")
    assert both.alpha.dims == both.beta.dims == ("dim_0",)


def test_failures_are_counted() -> None:
    runs = compare(PROBLEM, failing, d1=10, samples=2, rng=0, executor="serial")
    assert runs.attrs["runs_not_converged"] == 4
    bad = (runs.status == int(Status.NOT_CONVERGED)).sum("sample").values
    assert bad.tolist() == [[0, 0], [0, 0], [2, 2]]


def test_averages_of_gradient_descent() -> None:
    problem = bsr.bilinear_regression(0.3, 1.0, 0.5)
    options: dict[str, Any] = {"d1": 10, "samples": 2, "rng": 0, "executor": "serial"}
    runs = compare(problem, "averaged_gradient_descent", **options, initialisations=4, steps=50)
    assert (runs.member_mse > runs.mse).all()
    single = compare(problem, "gradient_descent", **options, steps=50)
    several = compare(problem, "gradient_descent", **options, steps=50, initialisations=4)
    np.testing.assert_allclose(several.mse, runs.member_mse, rtol=1e-12)
    assert not (single.mse == several.mse).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"estimator": "nothing"}, r"estimator must be 'amp', .* or a function, got 'nothing'"),
        ({"samples": 0}, "samples must be a positive integer, got 0"),
        ({"d1": 0}, "d1 must be a positive integer, got 0"),
        ({"rng": -1}, "rng must be None, an integer >= 0 or a Generator, got -1"),
        ({"rng": 0.5}, "rng must be None, an integer >= 0 or a Generator, got 0.5"),
        ({"rng": None, "path": "x.nc"}, "rng must be an integer when path is given"),
        ({"theory": "none"}, "theory must be 'auto', None, a function or numbers, got 'none'"),
        ({"lam": 0.1}, "lam belongs to nuclear_norm and ridge, got 0.1"),
        ({"estimator": "ridge", "lam": "best"}, "lam must be a number, .*'optimal', got 'best'"),
        ({"estimator": "ridge", "lam": [1, 2, 3]}, r"lam must broadcast to the shape \(3, 2\)"),
        ({"design": "memmap"}, "design must be 'dense' or 'stream', got 'memmap'"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"estimator": "amp", "d1": 10, "samples": 2, "rng": 0, **change}
    with pytest.raises(ValueError, match=message):
        compare(PROBLEM, **arguments, executor="serial")


def test_a_generator_is_a_source_too() -> None:
    common: dict[str, Any] = {"d1": 6, "samples": 2, "executor": "serial", "theory": None}
    one, two = (compare(PROBLEM, noisy, **common, rng=np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one.mse, two.mse)
    assert not (compare(PROBLEM, noisy, **common).mse == one.mse).any()


@pytest.mark.parametrize("estimator", ["nuclear_norm", "ridge"])
def test_signals_of_given_singular_values(estimator: str) -> None:
    prior = RotationallyInvariantPrior([0.0, 0.5, 2.0], 1.5)
    problem = Problem(prior, bsr.GaussianChannel(0.1), [0.3, 0.8])
    runs = compare(
        problem, estimator, d1=12, samples=3, rng=0, executor="serial", lam="optimal"
    )  # fmt: skip
    assert "normalize" not in runs.coords
    assert float(runs.beta) == 1.5
    # singular values are those of the law, up to rounding
    np.testing.assert_allclose(runs.signal, prior.second_moment, rtol=1e-12)
    rounded = Problem(prior, problem.channel, [problem[k].at_size(12).alpha for k in (0, 1)])
    expected = getattr(bsr.erm, estimator)(rounded, lam="optimal")
    np.testing.assert_allclose(runs.theory, expected.mse, rtol=1e-9)
    np.testing.assert_allclose(runs.rank_theory, expected.rank, rtol=1e-9)
    assert (runs.bayes < runs.theory).all()
    np.testing.assert_allclose(runs.mse_mean, runs.theory, rtol=0.25)
    assert runs.attrs["runs_not_converged"] == 0
