"""Attention weights from samples: what is usually fitted, and what could be known."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.lines import Line2D
from scipy.sparse.linalg import lsmr

from .. import erm
from .._arrays import Array, check
from ..attention import (
    AttentionInstance,
    AttentionRegression,
    SoftmaxChannel,
    amp,
    cross_attention,
    fit,
    kronecker_operator,
    quadratic_network,
    sample,
    softmax_attention,
)
from ..problem import Problem, bilinear_regression
from ..results import Status
from ..state_evolution import solve
from ..sweeps import sweep
from .drawing import BETA, ERROR, POINT, RHO, Picture, new_picture, number, style
from .finite_size import Executors, laboratory

__all__ = [
    "bridge",
    "bridge_data",
    "collapse",
    "collapse_data",
    "draw_bridge",
    "draw_collapse",
]

_SEED = 2506  # of all runs: a figure is a function of its parameters
_RHO = 0.3
_TOKENS = ("1x2", "2x3")  # queries x keys of a sample
_LINES: dict[str, tuple[str, dict[str, Any]]] = {
    "fit": ("attention regression", {"color": "C1"}),
    "ridge": ("ridge on logarithms, best penalty", {"color": "0.25"}),
    "amp": ("Bayes-optimal, GAMP-RIE", {"color": "C0"}),
}
_MARKERS = dict(zip(_TOKENS, ("s", "o"), strict=True))
_HIGHEST = 1.55  # error shown


# --------------------------------------------------------------------------------------------
# Runs
# --------------------------------------------------------------------------------------------


def _ridge(instance: AttentionInstance, delta: float) -> Array:
    """Return the ridge estimate of S from the logarithms of attention, with penalty delta."""
    channel = instance.problem.channel
    assert isinstance(channel, SoftmaxChannel)
    keys = instance.keys - instance.keys.mean(axis=1, keepdims=True)
    scores = kronecker_operator(instance.queries, keys)
    size = np.sqrt(instance.S.size)
    told = size * channel.scores_of(instance.y).ravel()
    damp, tight = size * np.sqrt(delta), 1e-10
    found = lsmr(scores, told, damp=damp, atol=tight, btol=tight, conlim=0.0, maxiter=10_000)
    return np.asarray(found[0].reshape(instance.S.shape))


def _measure(
    *,
    beta: float,
    d1: int,
    estimator: str,
    delta: float,
    tokens: str,
    equations: float,
    sample_index: int,
) -> dict[str, float]:
    """Return the error of one estimator on one instance."""
    queries, keys = map(int, tokens.split("x"))
    alpha = equations / (queries * (keys - 1))
    problem = cross_attention(alpha, beta, _RHO, queries, keys, delta)
    # the same instance for every estimator, whatever the grid
    place = (_SEED, queries, keys, round(1e6 * equations), sample_index)
    instance = sample(problem, d1, rng=np.random.default_rng(place))
    if estimator == "amp":
        run = amp(instance)
        estimate, status = run.estimate, run.status
    elif estimator == "fit":
        found = fit(AttentionRegression(instance.queries, instance.keys, instance.y))
        estimate, status = found.X * np.sqrt(instance.S.size), found.status
    else:
        estimate, status = _ridge(instance, delta), Status.CONVERGED
    return {
        "mse": float(np.mean((estimate - instance.S) ** 2)),
        "signal": float(np.mean(instance.S**2)),
        "status": int(status),
    }


def bridge_data(
    delta: float = 0.1,
    beta: float = 1.0,
    *,
    fast: bool = False,
    executor: Executors = None,
    progress: bool | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> xr.Dataset:
    """Calculate errors of the weights of cross-attention against the number of samples.

    Parameters
    ----------
    delta : float
        Noise variance of a score, before the softmax, of the noisy panel; in [0, inf).  With 0
        there is only the noiseless one.
    beta : float
        Aspect ratio of keys and queries, in [1, inf).
    fast : bool
        d1 near 20 instead of 50 (at beta = 1; the size of S is kept), and fewer instances.
    executor, progress
        As in `bsr_theory.sweep`.
    folder : path-like, optional
        Where unfinished runs are kept.

    Returns
    -------
    xarray.Dataset
        Theory over ``delta, equations``, in equations per entry ``alpha K``: ``amp`` (the
        Bayes-optimal error), ``ridge`` (of best penalty) and ``fit`` (least squares of least
        norm on logarithms, which is where the fit ends as long as it explains the data;
        NaN beyond).  Runs ``NAME_mse`` of each over
        ``delta, tokens, run_equations, run_sample``.

    Raises
    ------
    ValueError
        If delta or beta is out of its range.

    Notes
    -----
    A label of ``T1`` queries and ``T2`` keys tells ``K = T1 (T2 - 1)`` linear combinations of
    scores, each with noise variance delta: the error depends on ``alpha K`` alone and is that
    of bilinear regression at that sampling ratio.
    """
    check("delta", delta, low=0.0, allow_inf=False)
    check("beta", beta, low=1.0, allow_inf=False)
    lab = laboratory(delta, beta, fast, executor, progress, folder)
    deltas = np.unique([0.0, lab.delta])
    line = np.linspace(0.0, 1.6, 321)[1:]
    problem = bilinear_regression(line, lab.beta, _RHO, deltas[:, None])
    least = np.array(erm.ridge(problem, lam=0.0, on_failure="raise").mse)
    least[(deltas[:, None] > 0.0) & (line >= 1.0)] = np.nan
    data = xr.Dataset(
        {
            "amp": (
                ("delta", "equations"),
                solve(
                    cross_attention(line, lab.beta, _RHO, 1, 2, deltas[:, None]),
                    on_failure="raise",
                ).mmse,
            ),
            "ridge": (
                ("delta", "equations"),
                erm.ridge(problem, lam="optimal", on_failure="raise").mse,
            ),
            "fit": (("delta", "equations"), least),
        },
        {"delta": deltas, "equations": line, "beta": lab.beta, "rho": _RHO},
    )
    size = lab.size(20 if fast else 50)
    runs = sweep(
        functools.partial(_measure, beta=lab.beta, d1=size),
        executor=lab.executor,
        path=None if folder is None else Path(folder) / "runs.nc",
        progress=progress,
        estimator=list(_LINES),
        delta=deltas.tolist(),
        tokens=list(_TOKENS),
        equations=(np.linspace(0.25, 1.5, 6) if fast else np.linspace(0.1, 1.5, 15)).tolist(),
        sample_index=range(4 if fast else 12),
    )
    runs = runs.rename(equations="run_equations", sample_index="run_sample")
    for name in _LINES:
        one = runs.sel(estimator=name).drop_vars("estimator")
        data = data.merge(one[["mse", "status"]].rename(mse=f"{name}_mse", status=f"{name}_status"))
    return data.assign(signal=runs.signal.isel(estimator=0).drop_vars("estimator"), run_d1=size)


# --------------------------------------------------------------------------------------------
# The picture
# --------------------------------------------------------------------------------------------


def draw_bridge(data: xr.Dataset) -> Picture:
    """Draw errors of the weights of cross-attention against the number of samples.

    Parameters
    ----------
    data : xarray.Dataset
        What to draw.

    Returns
    -------
    Picture
        One panel a noise variance; curves are theory, points are runs.
    """
    count = data.sizes["delta"]
    with style():
        picture = new_picture(data, height=3.2)
        row = picture.subplots(1, count, sharey=True, squeeze=False)[0]
        for letter, k, axes in zip("ab", range(count), row, strict=False):
            line = data.isel(delta=k)
            noiseless = float(line.delta) == 0.0
            for name, (_, colour) in _LINES.items():
                if noiseless and name == "ridge":  # the fit ends there too
                    continue
                curve = line[name].values
                # with noise least squares diverge where they begin to be determined
                shown = np.where(curve < _HIGHEST, curve, np.nan)
                axes.plot(np.r_[0.0, line.equations], np.r_[1.0, shown], **colour)
                for tokens, marker in _MARKERS.items():
                    runs = line[f"{name}_mse"].sel(tokens=tokens)
                    axes.errorbar(
                        line.run_equations.values,
                        runs.mean("run_sample").values,
                        (runs.std("run_sample", ddof=1) / np.sqrt(runs.sizes["run_sample"])).values,
                        **{**POINT, **colour, "marker": marker, "elinewidth": 0.7, "zorder": 5},
                    )
            axes.set(
                xlabel=r"equations per entry,  $\alpha K$",
                xlim=(0.0, float(data.equations[-1])),
                ylim=(0.0, _HIGHEST),
            )
            fixed = rf"{BETA}={number(float(data.beta))},  {RHO}={number(float(data.rho))}"
            noise = "" if noiseless else rf",  \Delta={number(float(line.delta))}"
            axes.set_title(rf"({letter})   ${fixed}{noise}$")
        row[0].set_ylabel(ERROR)
        handles = [Line2D([], [], label=label, **colour) for label, colour in _LINES.values()]
        for tokens, marker in _MARKERS.items():
            shape = tokens.replace("x", r"\times ")
            label = rf"${shape}$ tokens, $d_1={int(data.run_d1)}$"
            handles.append(
                Line2D([], [], label=label, **{"color": "black", **POINT, "marker": marker})
            )
        picture.legend(handles=handles, loc="outside upper center", ncols=3)
    return picture


def bridge(delta: float = 0.1, beta: float = 1.0, *, fast: bool = False) -> Picture:
    """Compare attention regression with the Bayes-optimal estimate of the same weights.

    Parameters
    ----------
    delta : float
        Noise variance of a score in the noisy panel, in [0, inf).
    beta : float
        Aspect ratio of keys and queries, in [1, inf).
    fast : bool
        Whether instances are small, a minute in place of an hour.

    Returns
    -------
    Picture
        Left without noise, right with noise.

    References
    ----------
    arXiv:2307.02419 (the regression), arXiv:2506.01582 (the Bayes-optimal theory of attention).
    """
    return draw_bridge(bridge_data(delta, beta, fast=fast))


# --------------------------------------------------------------------------------------------
# Tied attention: one curve for every number of tokens
# --------------------------------------------------------------------------------------------

_WIDTH_RATIO = 0.5
_COUNTS = (1, 2, 3)  # tokens; one is a quadratic network


def _equations(tokens: int) -> int:
    """Return K: a tied softmax leaves one shift of all scores open, a single score nothing."""
    return 1 if tokens == 1 else tokens * (tokens + 1) // 2 - 1


def _tied(alpha_k: Any, tokens: int) -> Problem:
    """Return the noiseless tied problem at ``alpha K`` equations per ``d^2``."""
    alpha = np.asarray(alpha_k) / _equations(tokens)
    if tokens == 1:
        return quadratic_network(alpha, _WIDTH_RATIO)
    return softmax_attention(alpha, _WIDTH_RATIO, tokens)


def _tied_run(*, tokens: int, equations: float, sample_index: int, d: int) -> dict[str, float]:
    """Return the error of one run, per entry of S off the diagonal."""
    place = (_SEED, tokens, round(1e6 * equations), sample_index)
    instance = sample(_tied(equations, tokens), d, rng=np.random.default_rng(place))
    run = amp(instance)
    return {"mse": float(run.mse[-1]), "status": int(run.status)}


def collapse_data(
    *,
    fast: bool = False,
    executor: Executors = None,
    progress: bool | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> xr.Dataset:
    """Calculate errors of tied attention for one, two and three tokens against ``alpha K``.

    Parameters
    ----------
    fast : bool
        d = 40 instead of 100, and fewer instances.
    executor, progress
        As in `bsr_theory.sweep`.
    folder : path-like, optional
        Where unfinished runs are kept.

    Returns
    -------
    xarray.Dataset
        ``mmse`` over ``tokens, equations`` and runs ``mse`` over
        ``tokens, run_equations, run_sample``.

    Notes
    -----
    A sample of T tokens tells K = T (T + 1)/2 - 1 combinations of the scores of ``S = W W^T``
    (1 for T = 1, a quadratic network), and the error depends on ``alpha K`` alone
    (arXiv:2506.01582).
    """
    line = np.linspace(0.0, 0.5, 201)[1:]
    curves = [solve(_tied(line, tokens), on_failure="raise").mmse for tokens in _COUNTS]
    d = 40 if fast else 100
    runs = sweep(
        functools.partial(_tied_run, d=d),
        executor="serial" if fast and executor is None else executor,
        path=None if folder is None else Path(folder) / "runs.nc",
        progress=progress,
        tokens=list(_COUNTS),
        equations=(np.linspace(0.08, 0.48, 6) if fast else np.linspace(0.05, 0.5, 10)).tolist(),
        sample_index=range(3 if fast else 8),
    )
    runs = runs.rename(equations="run_equations", sample_index="run_sample")
    curve = xr.Dataset(
        {"mmse": (("tokens", "equations"), np.array(curves))},
        {"tokens": list(_COUNTS), "equations": line, "rho": _WIDTH_RATIO},
    )
    return curve.merge(runs[["mse", "status"]]).assign(run_d=d)


def draw_collapse(data: xr.Dataset) -> Picture:
    """Draw errors of tied attention: left against samples, right against ``alpha K``.

    Parameters
    ----------
    data : xarray.Dataset
        What to draw.

    Returns
    -------
    Picture
        The same errors twice: on the right they are one curve.
    """
    with style():
        picture = new_picture(data, height=3.0)
        left, right = picture.subplots(1, 2, sharey=True)
        mean = data.mse.mean("run_sample")
        error = data.mse.std("run_sample", ddof=1) / np.sqrt(data.sizes["run_sample"])
        for k, tokens in enumerate(data.tokens.values):
            marker = {"color": f"C{k}", "marker": ("o", "s", "^")[k], "elinewidth": 0.7}
            for axes, scale in ((left, 1.0 / _equations(int(tokens))), (right, 1.0)):
                x, y = data.equations.values * scale, data.mmse.sel(tokens=tokens).values
                axes.plot(np.r_[0.0, x], np.r_[1.0, y], color=f"C{k}")
                axes.errorbar(
                    data.run_equations.values * scale,
                    mean.sel(tokens=tokens).values,
                    error.sel(tokens=tokens).values,
                    **{**POINT, **marker, "clip_on": False, "zorder": 5},
                )
        left.set(xlabel=r"samples,  $\alpha=n/d^2$", ylabel=ERROR, ylim=(0.0, 1.04))
        right.set(xlabel=r"equations,  $\alpha K$")
        for letter, axes in zip("ab", (left, right), strict=True):
            axes.set_xlim(0.0, float(data.equations[-1]))
            axes.set_title(rf"({letter})   ${RHO}={number(float(data.rho))}$")
        handles = [
            Line2D([], [], color=f"C{k}", label=f"{tokens} token" + "s" * int(tokens > 1))
            for k, tokens in enumerate(data.tokens.values)
        ]
        handles.append(Line2D([], [], color="black", label=f"GAMP, $d={int(data.run_d)}$", **POINT))
        picture.legend(handles=handles, loc="outside upper center", ncols=4)
    return picture


def collapse(*, fast: bool = False) -> Picture:
    """Draw errors of tied attention for one, two and three tokens, which are one curve.

    Parameters
    ----------
    fast : bool
        Whether instances are small, a minute in place of an hour.

    Returns
    -------
    Picture
        At rho = 0.5, without noise.

    References
    ----------
    arXiv:2506.01582.
    """
    return draw_collapse(collapse_data(fast=fast))
