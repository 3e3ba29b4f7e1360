"""Message passing for labels that are not linear in h, beside the theory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.lines import Line2D

from ..channels import AbsChannel, Channel, ReLUChannel, SignChannel
from ..phases import phase_diagram
from ..priors import GaussianFactorPrior
from ..problem import Problem
from ..simulations.compare import compare
from .drawing import ERROR, PER_ENTRY, POINT, Picture, new_picture, number, style
from .finite_size import SEED, Executors

__all__ = ["draw_outputs", "outputs", "outputs_data"]

_DASHED: dict[str, Any] = {"ls": (0, (4, 1.4))}
# name: channel, title, largest alpha, start of message passing
_OUTPUTS: dict[str, tuple[Channel, str, float, float | None]] = {
    "sign": (SignChannel(), r"$y={\rm sign}(h)$", 3.0, None),
    "relu": (ReLUChannel(0.01), r"$y=\max(h,0)+{\rm noise}$,  $\Delta=0.01$", 1.6, None),
    # labels that are even in h tell nothing of the first direction: a hint has to break the tie
    "abs": (AbsChannel(), r"$y=|h|$", 1.2, 0.1),
}


def outputs_data(
    *,
    fast: bool = False,
    executor: Executors = None,
    progress: bool | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> xr.Dataset:
    """Calculate errors for sign, ReLU and magnitude labels, theory and runs of GAMP-RIE.

    Parameters
    ----------
    fast : bool
        d1 = 30 instead of 80, and fewer instances.
    executor, progress
        As in `bsr_theory.simulations.compare`.
    folder : path-like, optional
        Where unfinished runs are kept.

    Returns
    -------
    xarray.Dataset
        For each output NAME ``NAME_bayes`` and ``NAME_algorithm`` over ``rho, NAME_alpha``, and
        runs ``NAME_mse`` over ``rho, NAME_run_alpha, sample``.
    """
    rhos = np.array([0.2, 0.5])
    d1, samples = (30, 3) if fast else (80, 8)
    data = xr.Dataset(coords={"rho": rhos, "beta": 1.0}, attrs={"d1": d1})
    for name, (channel, _, end, start) in _OUTPUTS.items():
        fine = np.linspace(0.0, end, 301)[1:]
        open_problem = Problem(GaussianFactorPrior(1.0, 1.0), channel)
        plane = phase_diagram(open_problem, alpha=fine, rho=rhos, progress=False)
        alpha = np.linspace(0.0, end, 8 if fast else 13)[1:]
        runs = compare(
            Problem(GaussianFactorPrior(1.0, rhos[:, None]), channel, alpha),
            "amp",
            d1=d1,
            samples=samples,
            rng=SEED,
            executor="serial" if fast and executor is None else executor,
            progress=progress,
            path=None if folder is None else Path(folder) / f"{name}.nc",
            start=start,
            steps=300,
        )
        data = data.assign(
            {
                f"{name}_alpha": fine,
                f"{name}_run_alpha": alpha,
                f"{name}_bayes": (("rho", f"{name}_alpha"), plane.mmse_bayes.values),
                f"{name}_algorithm": (("rho", f"{name}_alpha"), plane.mmse_algorithm.values),
                f"{name}_mse": (("rho", f"{name}_run_alpha", "sample"), runs.mse.values),
                f"{name}_mse_mean": (("rho", f"{name}_run_alpha"), runs.mse_mean.values),
                f"{name}_mse_error": (("rho", f"{name}_run_alpha"), runs.mse_error.values),
                f"{name}_theory": (("rho", f"{name}_run_alpha"), runs.theory.values),
            }
        )
    return data


def draw_outputs(data: xr.Dataset) -> Picture:
    """Draw the errors for labels that are not linear.

    Parameters
    ----------
    data : xarray.Dataset
        What to draw.

    Returns
    -------
    Picture
        One panel an output.
    """
    with style():
        picture = new_picture(data, height=2.75)
        row = picture.subplots(1, len(_OUTPUTS), sharey=True)
        for letter, (name, (_, title, end, _)), axes in zip(
            "abc", _OUTPUTS.items(), row, strict=True
        ):
            for k, colour in enumerate(("C0", "C1")):
                line = data.isel(rho=k)
                x = line[f"{name}_alpha"].values
                axes.plot(x, line[f"{name}_algorithm"], color=colour)
                axes.plot(x, line[f"{name}_bayes"], color=colour, **_DASHED)
                axes.errorbar(
                    line[f"{name}_run_alpha"].values,
                    line[f"{name}_mse_mean"].values,
                    line[f"{name}_mse_error"].values,
                    **{**POINT, "color": colour, "elinewidth": 0.7, "zorder": 5, "clip_on": False},
                )
            axes.set(xlabel=PER_ENTRY, xlim=(0.0, end), ylim=(0.0, 1.06))
            axes.set_title(f"({letter})  {title}")
        row[0].set_ylabel(ERROR)
        handles = [
            Line2D([], [], color=colour, label=rf"$\rho={number(rho)}$")
            for colour, rho in zip(("C0", "C1"), data.rho.values, strict=True)
        ]
        handles += [
            Line2D([], [], color="black", label="message passing, theory"),
            Line2D([], [], color="black", label="Bayes-optimal", **_DASHED),
            Line2D([], [], color="black", label=f"GAMP-RIE, $d_1={data.attrs['d1']}$", **POINT),
        ]
        picture.legend(handles=handles, loc="outside upper center", ncols=5)
    return picture


def outputs(*, fast: bool = False) -> Picture:
    """Draw GAMP-RIE for sign, ReLU and magnitude labels beside the theory.

    Parameters
    ----------
    fast : bool
        Whether instances are small, a minute in place of an hour.

    Returns
    -------
    Picture
        Curves at beta = 1 for rho = 0.2 and 0.5.
    """
    return draw_outputs(outputs_data(fast=fast))
