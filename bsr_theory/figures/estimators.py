"""What can be run, against what could be known: learning curves of all estimators."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.lines import Line2D

from .. import erm
from ..channels import GaussianChannel
from ..priors import Prior
from ..problem import Problem, bilinear_regression
from ..state_evolution import solve
from .drawing import ERROR, PER_ENTRY, POINT, Picture, new_picture, style
from .finite_size import Executors, Laboratory, laboratory, measured, panel_title, rows_of
from .priors import checked_priors

__all__ = ["draw_learning_curves", "learning_curves", "learning_curves_data"]

_KINDS: dict[str, tuple[str, str, Any, dict[str, Any]]] = {
    "least_squares": ("least squares of least norm", "ridge", 0.0, {"color": "0.6", "marker": "v"}),
    "ridge": ("ridge, best penalty", "ridge", "optimal", {"color": "0.25", "marker": "D"}),
    "least_nuclear": ("least nuclear norm", "nuclear_norm", 0.0, {"color": "C4", "marker": "^"}),
    "nuclear": (
        *("nuclear norm, best penalty", "nuclear_norm", "optimal"),
        {"color": "C1", "marker": "o"},
    ),
    "bayes": ("Bayes-optimal, GAMP-RIE", "amp", None, {"color": "C0", "marker": "s"}),
}


def learning_curves_data(
    delta: float = 0.1,
    beta: float = 1.0,
    *,
    priors: Mapping[str, Prior] | None = None,
    fast: bool = False,
    executor: Executors = None,
    progress: bool | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> xr.Dataset:
    """Calculate the learning curves of every estimator, and runs of each.

    Parameters
    ----------
    delta : float
        Noise variance of the labels, in [0, inf).
    beta : float
        Aspect ratio of Gaussian factors, in [1, inf).
    priors : mapping of str to Prior, optional
        A panel for each of these in place of rho = 0.2 and 1.  They need second moment 1 and one
        beta, which takes the place of ``beta``.
    fast : bool
        d1 near 20 instead of 50 (at beta = 1; the size of S is kept), and fewer instances.
    executor, progress
        As in `bsr_theory.simulations.compare`.
    folder : path-like, optional
        Where unfinished runs are kept.

    Returns
    -------
    xarray.Dataset
        Theory over ``rho, alpha``, runs ``NAME_mse`` over ``rho, NAME_alpha, NAME_sample`` for the
        names least_squares, ridge, least_nuclear, nuclear and bayes; ``prior`` in place of rho if
        there are ``priors``.

    Raises
    ------
    ValueError
        If delta or beta is out of its range, or the priors do not fit together.
    """
    if priors is not None:
        every = checked_priors(priors)
        beta = float(next(iter(every.values())).beta)
        lab = laboratory(delta, beta, fast, executor, progress, folder)
        panels = [_panel(lab, prior, k, fast) for k, prior in enumerate(every.values())]
        return xr.concat(panels, dim=xr.DataArray(list(every), dims="prior", name="prior"))
    lab = laboratory(delta, beta, fast, executor, progress, folder)
    rhos = np.array([0.2, 1.0])
    data = lab.curves(rhos, 1.6)
    problem = bilinear_regression(data.alpha.values, beta, rhos[:, None], delta)
    data["bayes"] = data.mmse
    alpha = _measured_at(fast)
    for name, (_, estimator, lam, _) in _KINDS.items():
        if estimator != "amp":
            solution = getattr(erm, estimator)(problem, lam=lam, on_failure="raise")
            data[name] = (("rho", "alpha"), np.broadcast_to(solution.mse, problem.shape))
        options: dict[str, Any] = {} if estimator == "amp" else {"lam": lam}
        runs = lab.run(
            *(name, estimator, rhos, alpha),
            **{"d1": lab.size(20 if fast else 50), "samples": 3 if fast else 12, **options},
        )
        data = data.merge(runs)
    return data


def _measured_at(fast: bool) -> Any:
    """Return the alphas of runs."""
    return np.linspace(0.1, 1.5, 8 if fast else 15)


def _panel(lab: Laboratory, prior: Prior, number: int, fast: bool) -> xr.Dataset:
    """Return the curves of one prior, and runs."""
    alpha, channel = np.linspace(0.0, 1.6, 301)[1:], GaussianChannel(lab.delta)
    problem = Problem(prior, channel, alpha)
    data = xr.Dataset(coords={"alpha": alpha, "beta": lab.beta, "delta": lab.delta})
    data["bayes"] = ("alpha", solve(problem, on_failure="raise").mmse)
    for name, (_, estimator, lam, _) in _KINDS.items():
        options: dict[str, Any] = {} if estimator == "amp" else {"lam": lam}
        if options:
            data[name] = ("alpha", getattr(erm, estimator)(problem, **options).mse)
        runs = lab.compare(
            *(name, estimator, Problem(prior, channel, _measured_at(fast))),
            file=f"{name}_{number}",
            **{"d1": lab.size(20 if fast else 50), "samples": 3 if fast else 12, **options},
        )
        data = data.merge(runs.drop_vars("rho", errors="ignore"))
    return data


def draw_learning_curves(data: xr.Dataset) -> Picture:
    """Draw the learning curves of every estimator.

    Parameters
    ----------
    data : xarray.Dataset
        What to draw.

    Returns
    -------
    Picture
        One panel a rho, or a prior.
    """
    along = "prior" if "prior" in data.dims else "rho"
    with style():
        picture = new_picture(data, height=3.3)
        row = picture.subplots(1, data.sizes[along], sharey=True, squeeze=False)[0]
        for letter, line, axes in zip("abcdefgh", rows_of(data, along), row, strict=False):
            for name, (_, _, _, mark) in _KINDS.items():
                curve = line[name].values
                # interpolation diverges at alpha = 1 with noise: no line across the pole
                axes.plot(line.alpha, np.where(curve < 3.0, curve, np.nan), color=mark["color"])
                measured(axes, line, name, mark["color"], marker=mark["marker"], clip_on=True)
            axes.set(xlabel=PER_ENTRY, xlim=(0.0, float(data.alpha[-1])), ylim=(0.0, 1.5))
            if along == "rho":
                axes.set_title(panel_title(letter, data, rho=float(line.rho)))
            else:
                axes.set_title(f"({letter})   {line.prior.values}")
        row[0].set_ylabel(ERROR)
        handles = [
            Line2D([], [], label=label, **{**POINT, **mark, "ls": "-"})
            for label, _, _, mark in _KINDS.values()
        ]
        picture.legend(handles=handles, loc="outside upper center", ncols=3)
    return picture


def learning_curves(
    delta: float = 0.1,
    beta: float = 1.0,
    *,
    priors: Mapping[str, Prior] | None = None,
    fast: bool = False,
) -> Picture:
    """Draw errors of all estimators against the number of samples, theory and runs.

    Parameters
    ----------
    delta : float
        Noise variance of the labels, in [0, inf).
    beta : float
        Aspect ratio of Gaussian factors, in [1, inf).
    priors : mapping of str to Prior, optional
        A panel for each of these, by name, of second moment 1 and one beta.
    fast : bool
        Whether instances are small, a minute in place of an hour.

    Returns
    -------
    Picture
        A panel for each of rho = 0.2 and 1, or each prior.
    """
    return draw_learning_curves(learning_curves_data(delta, beta, priors=priors, fast=fast))
