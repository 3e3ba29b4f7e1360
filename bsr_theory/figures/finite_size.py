"""Figures 3 to 7: runs of finite size beside the theory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from .. import erm
from .._arrays import Array
from ..limits import ridge_mse, strong_recovery
from ..problem import Problem, bilinear_regression
from ..results import Status
from ..simulations.compare import compare
from ..state_evolution import solve
from .drawing import (
    BETA,
    ERROR,
    PER_ENTRY,
    PERFECT,
    POINT,
    RHO,
    RIDGE,
    Picture,
    new_picture,
    number,
    plot_error,
    shades,
    style,
    title_in,
)

__all__ = [
    "draw_figure_3",
    "draw_figure_4",
    "draw_figure_5",
    "draw_figure_6",
    "draw_figure_7",
    "figure_3",
    "figure_3_data",
    "figure_4",
    "figure_4_data",
    "figure_5",
    "figure_5_data",
    "figure_6",
    "figure_6_data",
    "figure_7",
    "figure_7_data",
]

SEED = 2410  # of all runs: a figure is a function of its parameters
_KEPT = ("mse", "mse_mean", "mse_error", "theory", "bayes", "signal", "status", "seconds")
_DASHED: dict[str, Any] = {"ls": (0, (4, 1.4))}
Executors = Executor | Literal["serial", "threads"] | None


# --------------------------------------------------------------------------------------------
# Runs and curves
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Laboratory:
    """Where the runs of a figure take place, and the problem family they belong to."""

    beta: float
    delta: float
    executor: Executors
    progress: bool | None
    folder: str | os.PathLike[str] | None

    def run(
        self, name: str, estimator: str, rho: Any, alpha: Any, *more: str, **options: Any
    ) -> xr.Dataset:
        """Return `compare` over rho and alpha, its variables and dimensions called NAME_..."""
        problem = bilinear_regression(
            np.atleast_1d(alpha), self.beta, np.atleast_1d(rho)[:, None], self.delta
        )
        return self.compare(name, estimator, problem, *more, **options)

    def compare(
        self,
        name: str,
        estimator: str,
        problem: Problem,
        *more: str,
        file: str | None = None,
        **options: Any,
    ) -> xr.Dataset:
        """Return `compare` of any problem likewise, kept in a ``file`` if not of that name."""
        runs = compare(
            problem,
            estimator,
            rng=SEED,
            executor=self.executor,
            progress=self.progress,
            path=None if self.folder is None else Path(self.folder) / f"{file or name}.nc",
            **options,
        )
        kept = runs[[x for x in (*_KEPT, *more) if x in runs]]
        kept = kept.drop_vars([x for x in kept.coords if x not in ("rho", "alpha")])
        names = [x for x in (*kept.data_vars, *kept.dims, "alpha") if x != "rho"]
        kept = kept.rename({x: f"{name}_{x}" for x in dict.fromkeys(names)})
        return kept.assign({f"{name}_d1": runs.attrs["d1"]})

    def size(self, d: int) -> int:
        """Return d1 such that S has about d^2 entries and, of every figure, rho d1 is whole."""
        return max(10, 10 * round(float(d / np.sqrt(self.beta)) / 10.0))

    def curves(self, rho: Any, end: float) -> xr.Dataset:
        """Return the Bayes-optimal error of every rho and that of ridge regression."""
        alpha = np.linspace(0.0, end, 301)[1:]
        rhos = np.atleast_1d(np.asarray(rho, dtype=np.float64))
        point = solve(
            bilinear_regression(alpha, self.beta, rhos[:, None], self.delta), on_failure="raise"
        )
        strong = (
            strong_recovery(self.beta, rhos) if self.delta == 0.0 else np.full(rhos.size, np.inf)
        )
        return xr.Dataset(
            {
                "mmse": (("rho", "alpha"), point.mmse),
                "ridge": ("alpha", ridge_mse(alpha, self.delta)),
                "strong": ("rho", strong),
            },
            {"rho": rhos, "alpha": alpha, "beta": self.beta, "delta": self.delta},
        )

    def least_nuclear_norm(self, data: xr.Dataset) -> xr.Dataset:
        """Return the error of the best nuclear-norm estimator: lam -> 0 without noise."""
        problem = bilinear_regression(
            data.alpha.values, self.beta, data.rho.values[:, None], self.delta
        )
        lam: Any = 0.0 if self.delta == 0.0 else "optimal"
        point = erm.nuclear_norm(problem, lam=lam, on_failure="raise")
        threshold = (
            erm.nuclear_norm_threshold(rho=data.rho.values, beta=self.beta)
            if self.delta == 0.0
            else np.full(data.rho.size, np.inf)
        )
        return data.assign(
            nuclear_norm=(("rho", "alpha"), point.mse), nuclear_norm_strong=("rho", threshold)
        )


def rows_of(data: xr.Dataset, along: str = "rho") -> list[xr.Dataset]:
    """Return the data of each rho, or of each place along another dimension."""
    return [data.isel({along: k}) for k in range(data.sizes[along])]


def measured(axes: Axes, data: xr.Dataset, name: str, colour: Any, **marker: Any) -> None:
    """Draw the means of runs with their standard errors, which end at the frame."""
    look = {**POINT, "color": colour, "elinewidth": 0.7, "clip_on": False, "zorder": 5, **marker}
    x, y, error = (data[f"{name}_{x}"].values for x in ("alpha", "mse_mean", "mse_error"))
    _, _, bars = axes.errorbar(x, y, error, **look)
    for bar in bars:
        bar.set_clip_on(True)


def _error_axes(axes: Axes, data: xr.Dataset, top: float = 1.04) -> None:
    axes.set(xlabel=PER_ENTRY, ylabel=ERROR, xlim=(0.0, float(data.alpha[-1])), ylim=(0.0, top))


def panel_title(letter: str, data: xr.Dataset, **more: float) -> str:
    symbols = {"beta": BETA, "rho": RHO, "delta": r"\Delta", "alpha": r"\alpha"}
    values = {"beta": float(data.beta), **more}
    if float(data.delta):
        values["delta"] = float(data.delta)
    text = ",  ".join(f"{symbols[key]}={number(value)}" for key, value in values.items())
    return rf"({letter})   ${text}$"


def _colour_handles(rhos: Sequence[float], colours: Sequence[Any]) -> list[Line2D]:
    return [
        Line2D([], [], color=colour, label=f"${RHO}={number(rho)}$")
        for colour, rho in zip(colours, rhos, strict=True)
    ]


def _marked(label: str, **marker: Any) -> Line2D:
    return Line2D([], [], label=label, **{"color": "black", **POINT, **marker})


def laboratory(
    delta: float,
    beta: float,
    fast: bool,
    executor: Executors,
    progress: bool | None,
    folder: str | os.PathLike[str] | None,
) -> Laboratory:
    """Return the laboratory of a figure; fast runs are over before processes have started."""
    if beta == np.inf:
        raise ValueError("beta must be finite for runs of finite size, got inf")
    place = "serial" if fast and executor is None else executor
    return Laboratory(float(beta), float(delta), place, progress, folder)


# --------------------------------------------------------------------------------------------
# Figure 3: message passing
# --------------------------------------------------------------------------------------------


def figure_3_data(
    delta: float = 0.0,
    beta: float = 1.0,
    *,
    fast: bool = False,
    executor: Executors = None,
    progress: bool | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> xr.Dataset:
    """Calculate figure 3: GAMP-RIE on many instances beside the Bayes-optimal error.

    Parameters
    ----------
    delta : float
        Noise variance of the labels, in [0, inf).
    beta : float
        Aspect ratio, in [1, inf).
    fast : bool
        d1 near 30 instead of 100 (at beta = 1; the size of S is kept), and fewer instances.
    executor, progress
        As in `bsr_theory.simulations.compare`.
    folder : path-like, optional
        Where unfinished runs are kept.

    Returns
    -------
    xarray.Dataset
        Theory over ``rho, alpha``; runs over ``rho, gamp_alpha, gamp_sample``; errors after each
        iteration at one rho over ``steps_alpha, steps_sample, steps_iteration``.

    Raises
    ------
    ValueError
        If delta or beta is out of its range.
    """
    lab = laboratory(delta, beta, fast, executor, progress, folder)
    rhos = np.array([0.2, 0.5, 1.0, 2.0])
    end = 1.05 if delta == 0.0 else 1.5
    data = lab.curves(rhos, end)
    alpha = np.linspace(0.0, end, 9 if fast else 17)[1:-1]
    size, samples = lab.size(30 if fast else 100), 4 if fast else 8
    # half the memory, and an error of 1e-13 where it vanishes
    single: dict[str, Any] = {"dtype": np.float32}
    runs = lab.run("gamp", "amp", rhos, alpha, d1=size, samples=samples, **single)
    few = [0.2, 0.4, 0.6] if delta == 0.0 else [0.2, 0.5, 1.0]
    size, samples = lab.size(40 if fast else 100), 8 if fast else 20
    long: dict[str, Any] = {"history": True, "steps": 24, "tolerance": 0.0}
    steps = lab.run(
        *("steps", "amp", 0.5, few, "trajectory", "trajectory_theory"),
        **{"d1": size, "samples": samples, **long, **single},
    )
    steps = steps.isel(rho=0).drop_vars("rho").assign(steps_rho=0.5)
    return data.merge(runs).merge(steps)


def draw_figure_3(data: xr.Dataset) -> Picture:
    """Draw figure 3: errors of runs on the curves, and their way there.

    Parameters
    ----------
    data : xarray.Dataset
        What to draw.

    Returns
    -------
    Picture
        Left, the error against alpha; right, the error after each iteration at one rho.
    """
    rhos = data.rho.values
    colours = shades(rhos.size)
    with style():
        picture = new_picture(data, height=3.1)
        left, right = picture.subplots(1, 2)
        for rho, colour in zip(rhos, colours, strict=True):
            line = data.sel(rho=rho)
            plot_error(left, line.alpha.values, line.mmse.values, float(line.strong), color=colour)
            measured(left, line, "gamp", colour)
        full = 1.0 if float(data.delta) == 0.0 else np.inf
        plot_error(left, data.alpha.values, data.ridge.values, full, **RIDGE)
        _error_axes(left, data)
        title_in(left, panel_title("a", data))
        shown = [f"C{k}" for k in range(data.sizes["steps_alpha"])]
        iteration = np.arange(data.sizes["steps_iteration"])
        for k, colour in enumerate(shown):
            line = data.isel(steps_alpha=k)
            runs = line.steps_trajectory
            right.plot(iteration, line.steps_trajectory_theory, color=colour)
            right.errorbar(
                iteration,
                runs.mean("steps_sample"),
                runs.std("steps_sample", ddof=1) / np.sqrt(runs.sizes["steps_sample"]),
                color=colour,
                elinewidth=0.7,
                zorder=5,
                **POINT,
            )
        right.set(
            xlabel="iteration", ylabel=ERROR, xlim=(-0.4, iteration[-1] + 0.4), ylim=(0.0, 1.04)
        )
        title_in(right, panel_title("b", data, rho=float(data.steps_rho)))
        handles = [
            *_colour_handles(rhos.tolist(), colours),
            Line2D([], [], label=rf"ridge (${RHO}\to\infty$)", **RIDGE),
        ]
        handles += [
            Line2D([], [], color=colour, label=rf"$\alpha={number(alpha)}$")
            for colour, alpha in zip(shown, data.steps_alpha.values, strict=True)
        ]
        sizes = sorted({int(data.gamp_d1), int(data.steps_d1)})
        handles.append(_marked(f"GAMP-RIE, $d_1={','.join(map(str, sizes))}$"))
        picture.legend(handles=handles, loc="outside upper center", ncols=5)
    return picture


# --------------------------------------------------------------------------------------------
# Figure 4: perfect recovery
# --------------------------------------------------------------------------------------------


def figure_4_data() -> xr.Dataset:
    """Calculate figure 4: the samples that perfect recovery takes without noise.

    Returns
    -------
    xarray.Dataset
        ``bayes`` and ``nuclear_norm`` over ``beta, rho``, in samples per entry.

    Examples
    --------
    >>> from bsr_theory import figures
    >>> data = figures.figure_4_data()
    >>> bool((data.bayes <= data.nuclear_norm + 1e-12).all())
    True
    """
    beta = np.array([1.0, 2.0, 5.0, 10.0, np.inf])
    rho = np.concatenate([np.geomspace(1e-3, 0.1, 41)[:-1], np.linspace(0.1, 1.2, 111)])
    return xr.Dataset(
        {
            "bayes": (("beta", "rho"), strong_recovery(beta[:, None], rho)),
            "nuclear_norm": (
                ("beta", "rho"),
                erm.nuclear_norm_threshold(rho=rho, beta=beta[:, None]),
            ),
        },
        {"beta": beta, "rho": rho},
        {"long_name": "alpha = n/(d1 d2) from which on recovery is perfect without noise"},
    )


def draw_figure_4(data: xr.Dataset) -> Picture:
    """Draw figure 4: thresholds of perfect recovery against the width.

    Parameters
    ----------
    data : xarray.Dataset
        What to draw.

    Returns
    -------
    Picture
        Left, samples per entry; right, how many times more the nuclear norm needs.
    """
    colours = shades(data.beta.size)
    with style():
        picture = new_picture(data, height=2.9)
        left, right = picture.subplots(1, 2)
        for beta, colour in zip(data.beta.values, colours, strict=True):
            line = data.sel(beta=beta)
            left.plot(data.rho, line.bayes, color=colour)
            left.plot(data.rho, line.nuclear_norm, color=colour, **_DASHED)
            right.semilogx(data.rho, line.nuclear_norm / line.bayes, color=colour)
        symbol = rf"${RHO}=r/d_1$"
        left.set(
            xlabel=f"width,  {symbol}",
            ylabel=r"perfect recovery from,  $\alpha$",
            xlim=(0.0, float(data.rho[-1])),
            ylim=(0.0, 1.04),
        )
        right.set(
            xlabel=f"width,  {symbol}",
            ylabel=r"nuclear norm over Bayes-optimal",
            xlim=(float(data.rho[0]), float(data.rho[-1])),
            ylim=(0.95, 3.05),
        )
        left.text(0.03, 0.93, "(a)", transform=left.transAxes, va="top")
        title_in(right, "(b)")
        handles = [
            Line2D([], [], color=colour, label=f"${BETA}={number(beta)}$")
            for colour, beta in zip(colours, data.beta.values, strict=True)
        ]
        handles.append(Line2D([], [], color="black", label="Bayes-optimal"))
        handles.append(Line2D([], [], color="black", label="least nuclear norm", **_DASHED))
        picture.legend(handles=handles, loc="outside upper center", ncols=7)
    return picture


# --------------------------------------------------------------------------------------------
# Figure 5: the least nuclear norm
# --------------------------------------------------------------------------------------------


def figure_5_data(
    delta: float = 0.0,
    beta: float = 1.0,
    *,
    fast: bool = False,
    executor: Executors = None,
    progress: bool | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> xr.Dataset:
    """Calculate figure 5: the nuclear-norm estimator beside the Bayes-optimal error.

    Parameters
    ----------
    delta : float
        Noise variance of the labels, in [0, inf).  Without noise the estimator interpolates, with
        noise the penalty is the best one.
    beta : float
        Aspect ratio, in [1, inf).
    fast : bool
        d1 near 20 instead of 60 (at beta = 1; the size of S is kept), and fewer instances.
    executor, progress
        As in `bsr_theory.simulations.compare`.
    folder : path-like, optional
        Where unfinished runs are kept.

    Returns
    -------
    xarray.Dataset
        Theory over ``rho, alpha``, runs over ``rho, runs_alpha, runs_sample``.

    Raises
    ------
    ValueError
        If delta or beta is out of its range.
    """
    lab = laboratory(delta, beta, fast, executor, progress, folder)
    rhos = np.array([0.2, 0.5, 1.0])
    end = 1.05 if delta == 0.0 else 1.5
    data = lab.least_nuclear_norm(lab.curves(rhos, end))
    alpha = np.linspace(0.0, end, 9 if fast else 17)[1:-1]
    runs = lab.run(
        *("runs", "nuclear_norm", rhos, alpha, "gap"),
        lam=0.0 if delta == 0.0 else "optimal",
        d1=lab.size(20 if fast else 60),
        samples=4 if fast else 16,
    )
    return data.merge(runs)


def draw_figure_5(data: xr.Dataset) -> Picture:
    """Draw figure 5: the error of the nuclear-norm estimator and of the best one.

    Parameters
    ----------
    data : xarray.Dataset
        What to draw.

    Returns
    -------
    Picture
        One panel a rho.
    """
    rhos = data.rho.values
    noiseless = float(data.delta) == 0.0
    label = "least nuclear norm" if noiseless else "nuclear norm, best penalty"
    with style():
        picture = new_picture(data, height=2.75)
        row = picture.subplots(1, rhos.size, sharey=True, squeeze=False)[0]
        for letter, rho, axes in zip("abcdef", rhos, row, strict=False):
            line = data.sel(rho=rho)
            x = line.alpha.values
            plot_error(axes, x, data.ridge.values, 1.0 if noiseless else np.inf, **RIDGE)
            plot_error(axes, x, line.mmse.values, float(line.strong), color="C0")
            end = float(line.nuclear_norm_strong)
            plot_error(axes, x, line.nuclear_norm.values, end, color="C1", **_DASHED)
            if noiseless:
                axes.plot([float(line.strong)], [0.0], mec="C0", **PERFECT)
                axes.plot([end], [0.0], mec="C1", **PERFECT)
            measured(axes, line, "runs", "C1")
            _error_axes(axes, data, top=1.12)
            title_in(axes, panel_title(letter, data, rho=float(rho)))
        for axes in row[1:]:
            axes.set_ylabel("")
        handles = [
            Line2D([], [], color="C0", label="Bayes-optimal"),
            Line2D([], [], color="C1", label=label, **_DASHED),
            _marked(f"$d_1={int(data.runs_d1)}$", color="C1"),
            Line2D([], [], label="ridge", **RIDGE),
        ]
        if noiseless:
            handles.append(Line2D([], [], mec="black", label="perfect recovery", **PERFECT))
        picture.legend(handles=handles, loc="outside upper center", ncols=5)
    return picture


# --------------------------------------------------------------------------------------------
# Figure 6: gradient descent from the prior
# --------------------------------------------------------------------------------------------


def figure_6_data(
    delta: float = 0.0,
    beta: float = 1.0,
    *,
    fast: bool = False,
    executor: Executors = None,
    progress: bool | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> xr.Dataset:
    """Calculate figure 6: gradient descent started from the prior, and its average.

    Parameters
    ----------
    delta : float
        Noise variance of the labels, in [0, inf).
    beta : float
        Aspect ratio, in [1, inf).
    fast : bool
        d1 near 20 instead of 40 (at beta = 1; the size of S is kept), fewer instances and starts.
    executor, progress
        As in `bsr_theory.simulations.compare`.
    folder : path-like, optional
        Where unfinished runs are kept.

    Returns
    -------
    xarray.Dataset
        Theory over ``rho, alpha``, runs over ``rho, average_alpha, average_sample``:
        ``average_mse`` is that of the average over starts, ``average_member_mse`` the mean over
        the errors of each.

    Raises
    ------
    ValueError
        If delta or beta is out of its range.
    """
    lab = laboratory(delta, beta, fast, executor, progress, folder)
    rhos = np.array([0.5, 1.0])
    data = lab.curves(rhos, 1.05 if delta == 0.0 else 1.5)
    starts = 16 if fast else 32
    runs = lab.run(
        *("average", "averaged_gradient_descent", rhos),
        np.array([0.1, 0.2, 0.3, 0.45, 0.6]) if fast else np.linspace(0.1, 0.9, 9),
        "member_mse",
        initialisations=starts,
        steps=4000 if fast else 20_000,
        d1=lab.size(20 if fast else 40),
        samples=4 if fast else 8,
    )
    return data.merge(runs).assign(average_starts=starts)


def draw_figure_6(data: xr.Dataset) -> Picture:
    """Draw figure 6: errors of gradient descent and of its average.

    Parameters
    ----------
    data : xarray.Dataset
        What to draw.

    Returns
    -------
    Picture
        One panel a rho.
    """
    with style():
        picture = new_picture(data, height=3.0)
        row = picture.subplots(1, data.rho.size, sharey=True, squeeze=False)[0]
        for letter, rho, axes in zip("abcd", data.rho.values, row, strict=False):
            line = data.sel(rho=rho)
            x, end = line.alpha.values, float(line.strong)
            plot_error(axes, x, line.mmse.values, end, color="C0")
            before = x < end
            stop = ([end], [0.0]) if end <= x[-1] else ([], [])
            twice = 2.0 * line.mmse.values[before]
            axes.plot(np.r_[0.0, x[before], stop[0]], np.r_[2.0, twice, stop[1]], "C1", **_DASHED)
            member = line.average_member_mse
            error = member.std("average_sample", ddof=1) / np.sqrt(member.sizes["average_sample"])
            axes.errorbar(
                *(line.average_alpha, member.mean("average_sample"), error),
                **{**POINT, "color": "C1", "elinewidth": 0.7, "clip_on": False, "marker": "o"},
            )
            measured(axes, line, "average", "C0")
            _error_axes(axes, data, top=2.08)
            title_in(axes, panel_title(letter, data, rho=float(rho)))
        row[-1].set_ylabel("")
        starts, size = int(data.average_starts), int(data.average_d1)
        handles = [
            Line2D([], [], color="C0", label="Bayes-optimal"),
            Line2D([], [], color="C1", label="twice that", **_DASHED),
            _marked(f"gradient descent, $d_1={size}$", color="C1", marker="o"),
            _marked(f"average over {starts} starts", color="C0"),
        ]
        picture.legend(handles=handles, loc="outside upper center", ncols=4)
    return picture


# --------------------------------------------------------------------------------------------
# Figure 7: gradient descent from small starts
# --------------------------------------------------------------------------------------------

_SCALE = 1e-3  # of small starts
_RATES = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)  # half of them close to the largest stable one, near 1
_AT = {"alpha": 0.3, "rho": 0.5}  # where the learning rate is varied


def figure_7_data(
    delta: float = 0.0,
    beta: float = 1.0,
    *,
    fast: bool = False,
    executor: Executors = None,
    progress: bool | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> xr.Dataset:
    """Calculate figure 7: gradient descent from small starts beside the least nuclear norm.

    Parameters
    ----------
    delta : float
        Noise variance of the labels, in [0, inf).
    beta : float
        Aspect ratio, in [1, inf).
    fast : bool
        d1 near 20 instead of 40 (at beta = 1; the size of S is kept), and fewer instances.
    executor, progress
        As in `bsr_theory.simulations.compare`.
    folder : path-like, optional
        Where unfinished runs are kept.

    Returns
    -------
    xarray.Dataset
        Theory over ``rho, alpha`` and runs for factors of the width of the signal (``narrow``)
        and of S (``wide``), ``narrow_mse`` over ``rho, narrow_alpha, narrow_sample``; the same
        against the learning rate, ``rates_mse`` over ``width, rate, rates_sample``.

    Raises
    ------
    ValueError
        If delta or beta is out of its range.

    Notes
    -----
    The nuclear norm is that of interpolation, also with noise: gradient descent has no penalty.
    """
    lab = laboratory(delta, beta, fast, executor, progress, folder)
    rhos = np.array([_AT["rho"]])
    data = lab.curves(rhos, 1.05 if delta == 0.0 else 1.5)
    interpolating = erm.nuclear_norm(
        bilinear_regression(data.alpha.values, beta, rhos[:, None], delta), lam=0.0
    )
    data["nuclear_norm"] = (("rho", "alpha"), np.asarray(interpolating.mse))
    size, samples = lab.size(20 if fast else 40), 4 if fast else 8
    common: dict[str, Any] = {
        "init": "small",
        "init_scale": _SCALE,
        "steps": 4000 if fast else 20_000,
        "d1": size,
        "samples": samples,
    }
    alpha = np.linspace(0.1, 0.8, 5) if fast else np.linspace(0.1, 0.9, 9)
    widths = {"narrow": None, "wide": size}
    for name, rank in widths.items():
        runs = lab.run(
            *(name, "gradient_descent", rhos, alpha), rank=rank, learning_rate=0.2, **common
        )
        data = data.merge(runs)
    found = []
    for name, rank in widths.items():
        rows = [
            lab.run(
                *(f"{name}_{rate:g}", "gradient_descent", rhos, _AT["alpha"]),
                **{"rank": rank, "learning_rate": rate, **common},
            )
            for rate in _RATES
        ]
        found.append(
            [_ended(runs, f"{name}_{rate:g}") for runs, rate in zip(rows, _RATES, strict=True)]
        )
    interpolators = lab.run(
        "least", "nuclear_norm", rhos, _AT["alpha"], lam=0.0, d1=size, samples=samples
    )
    return data.merge(interpolators).assign(
        rates_mse=(("width", "rate", "rates_sample"), np.array(found)),
        width=list(widths),
        rate=list(_RATES),
    )


def _ended(runs: xr.Dataset, name: str) -> Array:
    """Return the errors of the runs that converged, NaN for the others."""
    error, status = runs[f"{name}_mse"].values, runs[f"{name}_status"].values
    return np.where(status < int(Status.NOT_CONVERGED), error, np.nan).ravel()


def draw_figure_7(data: xr.Dataset) -> Picture:
    """Draw figure 7: gradient descent from small starts is not the least nuclear norm.

    Parameters
    ----------
    data : xarray.Dataset
        What to draw.

    Returns
    -------
    Picture
        Left, the error against alpha; right, against the learning rate at one alpha.
    """
    line = data.isel(rho=0)
    noiseless = float(data.delta) == 0.0
    marks: dict[str, dict[str, Any]] = {
        "narrow": {"color": "C2", "marker": "o"},
        "wide": {"color": "C3", "marker": "^"},
    }
    with style():
        picture = new_picture(data, height=3.1)
        left, right = picture.subplots(1, 2)
        x = line.alpha.values
        plot_error(left, x, line.mmse.values, float(line.strong), color="C0")
        nuclear = line.nuclear_norm.values
        shown = (nuclear > 0.0) & (nuclear < 2.0)  # with noise it diverges at alpha = 1
        left.plot(x, np.where(shown | (nuclear == 0.0), nuclear, np.nan), "C1", **_DASHED)
        for name, mark in marks.items():
            measured(left, line, name, mark["color"], marker=mark["marker"])
        _error_axes(left, data, top=1.3 if noiseless else 1.8)
        title_in(left, panel_title("a", data, rho=float(line.rho)))
        means = data.rates_mse.mean("rates_sample", skipna=True)
        count = data.rates_mse.count("rates_sample")
        # by hand: where one run is left, some versions of xarray warn of a standard deviation
        square = ((data.rates_mse - means) ** 2).sum("rates_sample", skipna=True)
        errors = np.sqrt(square / (count - 1).where(count > 1) / count)
        enough = count >= 0.5 * data.sizes["rates_sample"]
        for name, mark in marks.items():
            at = enough.sel(width=name).values
            right.errorbar(
                *(data.rate.values[at], means.sel(width=name)[at], errors.sel(width=name)[at]),
                **{**POINT, **mark, "elinewidth": 0.7},
            )
        alpha = float(data.least_alpha[0])
        here = line.sel(alpha=alpha, method="nearest")
        right.axhline(float(here.mmse), color="C0")
        right.axhline(float(here.nuclear_norm), color="C1", **_DASHED)
        right.set(xscale="log", xlabel="learning rate", ylabel=ERROR, ylim=left.get_ylim())
        right.set_xticks(data.rate.values, [f"{rate:g}" for rate in data.rate.values])
        right.set_xticks([], minor=True)
        title_in(right, panel_title("b", data, rho=float(line.rho), alpha=alpha))
        size = int(data.narrow_d1)
        handles = [
            Line2D([], [], color="C0", label="Bayes-optimal"),
            Line2D([], [], color="C1", label="least nuclear norm", **_DASHED),
            _marked(f"gradient descent, width $r$, $d_1={size}$", **marks["narrow"]),
            _marked("width $d_1$", **marks["wide"]),
        ]
        picture.legend(handles=handles, loc="outside upper center", ncols=4)
    return picture


# --------------------------------------------------------------------------------------------
# Each in one step
# --------------------------------------------------------------------------------------------


def figure_3(delta: float = 0.0, beta: float = 1.0, *, fast: bool = False) -> Picture:
    """GAMP-RIE of finite size against the Bayes-optimal error.

    Parameters
    ----------
    delta : float
        Noise variance of the labels, in [0, inf).
    beta : float
        Aspect ratio, in [1, inf).
    fast : bool
        Whether instances are small, a minute in place of an hour.

    Returns
    -------
    Picture
        Left, the error against alpha for rho = 0.2, 0.5, 1, 2; right, the error after each
        iteration with that of state evolution.

    References
    ----------
    arXiv:2410.18858, figure 3.
    """
    return draw_figure_3(figure_3_data(delta, beta, fast=fast))


def figure_4() -> Picture:
    """Draw the samples that perfect recovery takes: Bayes-optimal and of least nuclear norm.

    Returns
    -------
    Picture
        Thresholds against rho for beta = 1, 2, 5, 10 and infinity.

    References
    ----------
    arXiv:2410.18858, figure 4.

    Examples
    --------
    >>> from bsr_theory import figures
    >>> len(figures.figure_4().axes)
    2
    """
    return draw_figure_4(figure_4_data())


def figure_5(delta: float = 0.0, beta: float = 1.0, *, fast: bool = False) -> Picture:
    """Compare the nuclear-norm estimator with the Bayes-optimal error.

    Parameters
    ----------
    delta : float
        Noise variance of the labels, in [0, inf); with noise the penalty is the best one.
    beta : float
        Aspect ratio, in [1, inf).
    fast : bool
        Whether instances are small, seconds in place of an hour.

    Returns
    -------
    Picture
        A panel for each of rho = 0.2, 0.5, 1.

    References
    ----------
    arXiv:2410.18858, figure 5.
    """
    return draw_figure_5(figure_5_data(delta, beta, fast=fast))


def figure_6(delta: float = 0.0, beta: float = 1.0, *, fast: bool = False) -> Picture:
    """Gradient descent from the prior, and its average, against the Bayes-optimal error.

    Parameters
    ----------
    delta : float
        Noise variance of the labels, in [0, inf).
    beta : float
        Aspect ratio, in [1, inf).
    fast : bool
        Whether instances are small, a minute in place of an hour.

    Returns
    -------
    Picture
        A panel for each of rho = 0.5, 1.

    References
    ----------
    arXiv:2410.18858, figure 6.
    """
    return draw_figure_6(figure_6_data(delta, beta, fast=fast))


def figure_7(delta: float = 0.0, beta: float = 1.0, *, fast: bool = False) -> Picture:
    """Gradient descent from small starts against the least nuclear norm.

    Parameters
    ----------
    delta : float
        Noise variance of the labels, in [0, inf).
    beta : float
        Aspect ratio, in [1, inf).
    fast : bool
        Whether instances are small, a minute in place of an hour.

    Returns
    -------
    Picture
        Left, the error against alpha at rho = 0.5; right, against the learning rate.

    References
    ----------
    arXiv:2410.18858, figure 7.
    """
    return draw_figure_7(figure_7_data(delta, beta, fast=fast))
