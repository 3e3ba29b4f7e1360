"""Runs beside the theory: the one module of simulations that knows both."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from .. import erm
from .._arrays import Array, check, check_integer
from ..problem import Problem
from ..results import SimulationRun, Status, write_dataset
from ..state_evolution import fixed_points, iterate, solve
from ..sweeps import sweep
from .amp import amp
from .convex import nuclear_norm, ridge
from .gradient import AveragedGradientRun, averaged_gradient_descent, gradient_descent

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["compare"]

_ESTIMATORS: dict[str, Callable[..., SimulationRun]] = {
    "amp": amp,
    "nuclear_norm": nuclear_norm,
    "ridge": ridge,
    "gradient_descent": gradient_descent,
    "averaged_gradient_descent": averaged_gradient_descent,
}
# Asymptotics of those that minimise a convex function.
_CONVEX: dict[Any, Callable[..., Any]] = {nuclear_norm: erm.nuclear_norm, ridge: erm.ridge}
# What a run may report besides its error, and what theory says of it.
_REPORTED = ("train_loss", "rank", "nuclear_norm", "gap", "infeasibility")
_RANDOM = (gradient_descent, averaged_gradient_descent)  # start from random factors
_PREDICTED = ("overlap", "train_loss", "rank", "nuclear_norm")


# --------------------------------------------------------------------------------------------
# One run
# --------------------------------------------------------------------------------------------


def _run(
    *,
    problem: Problem,
    estimator: Callable[..., SimulationRun],
    d1: int,
    entropy: int,
    design: Literal["dense", "stream"],
    dtype: str,
    history: bool,
    options: Mapping[str, Any],
    lam: tuple[float, ...] | None,
    axes: Mapping[str, tuple[float, ...]],
    sample: int,
    **place: float,
) -> dict[str, Any]:
    """Return what one run on one instance measured."""
    at = tuple(axes[name].index(value) for name, value in place.items())
    # a function of the place alone: no executor and no order changes it
    seed = np.random.SeedSequence(entropy, spawn_key=(*at, sample))
    generator = np.random.default_rng(seed)
    instance = problem[at].sample(d1, rng=generator, design=design, dtype=np.dtype(dtype))
    given = dict(options)
    if lam is not None:
        given["lam"] = lam[int(np.ravel_multi_index(at, problem.shape)) if at else 0]
    if estimator in _RANDOM or "rng" in inspect.signature(estimator).parameters:
        given["rng"] = generator
    run = estimator(instance, **given)
    measured: dict[str, Any] = {
        "mse": float(np.mean(run.mse[-1])),  # over initialisations, when there are several
        "overlap": float(np.mean(run.overlap[-1])),
        "signal": float(np.mean(instance.S**2)),
        "iterations": run.iterations,
        "seconds": run.seconds,
        "status": int(run.status),
    }
    for name in _REPORTED:
        value = getattr(run, name, None)
        if value is not None:
            measured[name] = float(np.mean(np.atleast_1d(value)[-1]))
    if isinstance(run, AveragedGradientRun):
        measured["member_mse"] = float(np.mean(run.runs.mse[-1]))
    if history:
        measured["trajectory"] = (
            ("iteration",),
            np.asarray(run.mse, dtype=np.float64).reshape(run.mse.shape[0], -1).mean(axis=1),
        )
    return measured


# --------------------------------------------------------------------------------------------
# Names of dimensions, seeds
# --------------------------------------------------------------------------------------------


def _dimensions(problem: Problem) -> tuple[tuple[str, ...], dict[str, tuple[tuple[str, ...], Any]]]:
    """Return a name for each dimension of the problem, and its parameters as coordinates.

    A dimension along which one parameter varies alone has the name of that parameter.
    """
    shape = problem.shape
    parameters: dict[str, Any] = {"alpha": problem.alpha}
    parts: tuple[Any, ...] = (problem.prior, problem.channel)
    for part in parts:
        if dataclasses.is_dataclass(part):
            parameters |= {f.name: getattr(part, f.name) for f in dataclasses.fields(part)}
    varying: dict[str, tuple[int, ...]] = {}
    for name, value in parameters.items():
        if isinstance(value, np.ndarray):
            offset = len(shape) - value.ndim
            along = tuple(offset + k for k, size in enumerate(value.shape) if size > 1)
            varying[name] = along or (offset,) * (value.ndim > 0)
    names = []
    for k in range(len(shape)):
        own = [name for name, along in varying.items() if along == (k,)]
        mixed = any(k in along and len(along) > 1 for along in varying.values())
        clear = len(own) == 1 and not mixed and _distinct(parameters[own[0]])
        names.append(own[0] if clear else f"dim_{k}")
    coordinates: dict[str, tuple[tuple[str, ...], Any]] = {}
    for name, value in parameters.items():
        if isinstance(value, np.ndarray):
            along = varying[name]
            dims = tuple(names[k] for k in along)
            coordinates[name] = (dims, value.reshape([shape[k] for k in along]))
        elif isinstance(value, float | int) and not isinstance(value, bool):
            coordinates[name] = ((), value)
    return tuple(names), coordinates


def _distinct(values: Array) -> bool:
    """Tell whether no number occurs twice, so that a position can be named by its value."""
    return bool(np.isfinite(values).all()) and np.unique(values).size == values.size


def _entropy(rng: Any, *, stored: bool) -> int:
    """Return the integer that all random streams of a comparison come from."""
    if rng is None:
        if stored:
            raise ValueError(
                "rng must be an integer when path is given, so that work can be resumed, got None"
            )
        return int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
    if isinstance(rng, bool) or not isinstance(rng, int | np.integer | np.random.Generator):
        raise ValueError(f"rng must be None, an integer >= 0 or a Generator, got {rng!r}")
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(2**63))
    if rng < 0:
        raise ValueError(f"rng must be None, an integer >= 0 or a Generator, got {rng!r}")
    return int(rng)


# --------------------------------------------------------------------------------------------
# Theory
# --------------------------------------------------------------------------------------------


def _each(problem: Problem, d1: int) -> list[Problem]:
    """Return the problems, one by one, with the ratios that instances of this size have."""
    return [problem[at].at_size(d1) for at in np.ndindex(problem.shape)]


def _reached(problem: Problem, q: float | None) -> float:
    """Return the error at which state evolution from an overlap (by default, none) ends.

    Its map is monotone: it goes to the next fixed point on the side where the first step leads.
    """
    if problem.channel.single_fixed_point:
        return float(solve(problem, on_failure="return").mmse)
    first, second = iterate(problem, steps=1, q=q).mmse.tolist()
    every = fixed_points(problem)
    errors = every.mmse[every.status < int(Status.NOT_CONVERGED)]
    if second < first:
        below = errors[errors < first]
        return float(below.max()) if below.size else float("nan")
    above = errors[errors > first]
    return float(above.min()) if second > first and above.size else first


def _predict(
    problems: list[Problem],
    estimator: Callable[..., SimulationRun],
    start: float | None,
    lam: tuple[float, ...] | None,
    theory: Any,
    shape: tuple[int, ...],
) -> dict[str, Array]:
    """Return what theory says of each point: the error, and of convex estimators more."""
    if callable(theory):
        return {"theory": _filled([theory(p) for p in problems], shape)}
    if theory is not None and not isinstance(theory, str):
        return {"theory": np.broadcast_to(np.asarray(theory, dtype=np.float64), shape)}
    if theory is None:
        return {}
    if estimator is amp:
        return {"theory": _filled([_reached(p, start) for p in problems], shape)}
    if estimator in _CONVEX and lam is not None:
        solution = _CONVEX[estimator]
        points = [solution(p, lam=x) for p, x in zip(problems, lam, strict=True)]
        found = {"theory": _filled([p.mse for p in points], shape)}
        for name in _PREDICTED:
            found[f"{name}_theory"] = _filled([getattr(p, name) for p in points], shape)
        return found
    return {}


def _filled(values: list[Any], shape: tuple[int, ...]) -> Array:
    return np.array(values, dtype=np.float64).reshape(shape)


def _penalties(
    problems: list[Problem], estimator: Callable[..., SimulationRun], lam: Any, shape: Any
) -> tuple[float, ...] | None:
    """Return lam of each point, the best one where "optimal" is asked for."""
    if estimator not in _CONVEX:
        if lam is not None:
            raise ValueError(f"lam belongs to nuclear_norm and ridge, got {lam!r}")
        return None
    if isinstance(lam, str):
        if lam != "optimal":
            raise ValueError(f"lam must be a number, an array or 'optimal', got {lam!r}")
        return tuple(float(_CONVEX[estimator](p, lam="optimal").lam) for p in problems)
    values = np.asarray(check("lam", 0.0 if lam is None else lam, low=0.0, allow_inf=False))
    if np.isnan(values).any():
        raise ValueError(f"lam must be >= 0 and finite, got {lam!r}")
    try:
        return tuple(np.broadcast_to(values, shape).ravel().tolist())
    except ValueError as error:
        raise ValueError(
            f"lam must broadcast to the shape {shape} of the problem, got shape {values.shape}"
        ) from error


# --------------------------------------------------------------------------------------------
# The comparison
# --------------------------------------------------------------------------------------------


def compare(
    problem: Problem,
    estimator: str | Callable[..., SimulationRun],
    *,
    d1: int,
    samples: int = 16,
    rng: Any = None,
    executor: Executor | Literal["serial", "threads"] | None = None,
    path: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    theory: Any = "auto",
    lam: Any = None,
    history: bool = False,
    design: Literal["dense", "stream"] = "dense",
    dtype: npt.DTypeLike = np.float64,
    **options: Any,
) -> xr.Dataset:
    """Run an algorithm on many instances and put what theory says beside the results.

    Parameters
    ----------
    problem : Problem
        Its parameters may be arrays: every point is simulated.
    estimator : str or callable
        "amp", "nuclear_norm", "ridge", "gradient_descent", "averaged_gradient_descent", or any
        function that takes an `Instance` and returns a `SimulationRun` (importable, so that other
        processes can find it).  A parameter ``rng`` of it is given a Generator.
    d1 : int
        Number of rows of S.
    samples : int
        Instances a point, at least 1; the standard error needs 2.
    rng : None, int or Generator
        Source of randomness.  An instance depends on this number, the position of its point and
        its own number alone: not on the executor, nor on how many others there are.
    executor : concurrent.futures.Executor, "serial", "threads" or None
        Where runs take place, as in `bsr_theory.sweep`: None is a pool of processes, one a core.
        Each holds an instance at a time.
    path : path-like, optional
        A .nc file.  Finished runs are kept beside it and a second call goes on from there; once it
        is there, the same call reads it.
    progress : bool, optional
        Whether to show a progress bar; by default on a terminal.
    theory : "auto", None, callable or array_like
        What to compare with: "auto" is state evolution from the same start for "amp" (with several
        fixed points, where it ends), `bsr_theory.erm` for
        "nuclear_norm" and "ridge", and nothing for others.  A function is given each point as a
        `Problem` and returns an error.
    lam : float, array_like or "optimal", optional
        Penalty of "nuclear_norm" and "ridge", 0 by default; "optimal" is the one that is best in
        the limit of large size.
    history : bool
        Whether to keep the error after every iteration; for "amp" with that of state evolution.
    design, dtype
        Of the sensing matrices, as in `Problem.sample`.
    **options : Any
        Further arguments of the estimator.

    Returns
    -------
    xarray.Dataset
        Over ``sample`` and the dimensions of the problem, which carry the names of the parameters
        that vary along them: ``mse``, ``overlap``, ``signal`` (the squared norm of S per entry,
        ``prior.second_moment`` on average), ``iterations``, ``seconds``, ``status`` and what else
        the estimator reports; without ``sample``: ``mse_mean`` with its standard error
        ``mse_error``, ``theory``, and the Bayes-optimal error ``bayes``.  The attributes say where
        all came from.

    Raises
    ------
    ValueError
        If an argument is out of its range, or path holds another comparison.

    Notes
    -----
    Theory is taken at the ratios that the instances have after rounding (`Problem.at_size`).
    At fixed d1 it differs from the mean by O(1/d1), and ``signal`` of Gaussian factors fluctuates
    with a standard deviation near ``sqrt(2 (1/d1 + 1/d2)/r)``, which ``mse/signal`` is free of
    where noise is not dominant.

    Examples
    --------
    >>> import bsr_theory as bsr
    >>> problem = bsr.bilinear_regression([0.2, 0.5], beta=1.0, rho=0.5, delta=0.1)
    >>> runs = bsr.simulations.compare(
    ...     problem, "amp", d1=20, samples=4, rng=0, executor="serial"
    ... )
    >>> dict(runs.mse.sizes), bool((abs(runs.mse_mean - runs.theory) < 0.2).all())
    ({'alpha': 2, 'sample': 4}, True)
    """
    function = _ESTIMATORS.get(estimator) if isinstance(estimator, str) else estimator
    if function is None or not callable(function):
        known = ", ".join(map(repr, _ESTIMATORS))
        raise ValueError(f"estimator must be {known} or a function, got {estimator!r}")
    samples = check_integer("samples", samples)
    if isinstance(theory, str) and theory != "auto":
        raise ValueError(f"theory must be 'auto', None, a function or numbers, got {theory!r}")
    if design not in ("dense", "stream"):
        raise ValueError(f"design must be 'dense' or 'stream', got {design!r}")
    entropy = _entropy(rng, stored=path is not None)
    problems = _each(problem, d1)
    penalties = _penalties(problems, function, lam, problem.shape)
    names, coordinates = _dimensions(problem)
    axes: dict[str, Any] = {
        name: tuple(np.ravel(coordinates[name][1]).tolist() if name in coordinates else range(size))
        for name, size in zip(names, problem.shape, strict=True)
    }
    task = functools.partial(
        _run,
        problem=problem,
        estimator=function,
        d1=int(d1),
        entropy=entropy,
        design=design,
        dtype=np.dtype(dtype).name,
        history=history,
        options=options,
        lam=penalties,
        axes=axes,
    )
    result = sweep(
        task, executor=executor, path=path, progress=progress, **axes, sample=range(samples)
    )
    others = {name: value for name, value in coordinates.items() if name not in axes}
    result = result.assign_coords(others)
    mean = result.mse.mean("sample")
    error = result.mse.std("sample", ddof=1) / np.sqrt(samples) if samples > 1 else mean * np.nan
    result = result.assign(mse_mean=mean, mse_error=error)
    if theory is not None:
        bayes = [solve(p, on_failure="return").mmse for p in problems]
        result["bayes"] = (names, _filled(bayes, problem.shape))
    start = options.get("start")
    predicted = _predict(problems, function, start, penalties, theory, problem.shape)
    for name, values in predicted.items():
        result[name] = (names, values)
    if history and function is amp and theory is not None:
        steps = result.sizes["iteration"] - 1
        expected = [iterate(p, steps=steps, q=start).mmse for p in problems]
        shape = (*problem.shape, steps + 1)
        result["trajectory_theory"] = ((*names, "iteration"), _filled(expected, shape))
    if penalties is not None:
        result = result.assign_coords(lam=(names, _filled(list(penalties), problem.shape)))
    result.attrs |= {"estimator": function.__name__, "d1": int(d1), "rng": str(entropy)}
    failures = int((result.status >= int(Status.NOT_CONVERGED)).sum())
    result.attrs["runs_not_converged"] = failures
    for name, (label, units) in _LABELS.items():
        if name in result:
            result[name].attrs |= {"long_name": label, "units": units}
    if path is not None:
        write_dataset(result, path)
    return result


_LABELS = {
    "mse": ("error per entry", "1"),
    "mse_mean": ("mean error per entry", "1"),
    "mse_error": ("standard error of the mean error", "1"),
    "theory": ("error per entry in the limit of large size", "1"),
    "bayes": ("Bayes-optimal error per entry", "1"),
    "overlap": ("overlap with the signal per entry", "1"),
    "signal": ("squared norm of the signal per entry", "1"),
    "seconds": ("wall-clock time", "s"),
    "trajectory": ("error per entry after each iteration", "1"),
    "trajectory_theory": ("the same from state evolution", "1"),
}
