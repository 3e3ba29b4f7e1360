"""Figures 1, 2 and 8: pure theory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.lines import Line2D

from .._arrays import Numeric, check
from ..limits import (
    alpha_from_low_rank,
    alpha_low_rank,
    low_rank_mmse,
    ridge_mse,
    strong_recovery,
    weak_recovery_low_rank,
)
from ..problem import bilinear_regression
from ..state_evolution import free_entropy, solve
from .drawing import (
    BETA,
    ERROR,
    LIMIT,
    PER_ENTRY,
    PER_UNKNOWN,
    PERFECT,
    RHO,
    RIDGE,
    WIDTH,
    Picture,
    Points,
    draw_points,
    new_picture,
    number,
    plot_error,
    point_handles,
    points_of,
    shades,
    style,
    title_in,
    with_points,
)

__all__ = [
    "draw_curve",
    "draw_figure_1",
    "draw_figure_2",
    "draw_figure_8",
    "figure_1",
    "figure_1_data",
    "figure_2",
    "figure_2_data",
    "figure_8",
    "figure_8_data",
]


# --------------------------------------------------------------------------------------------
# Figures 1 and 2: error against the number of samples
# --------------------------------------------------------------------------------------------

_MEANINGS = {
    "mmse": "Bayes-optimal error per entry",
    "ridge": "error per entry of ridge regression with the best penalty, the limit rho -> infinity",
    "mmse_low_rank": "Bayes-optimal error per entry at alpha_low_rank",
    "limit": "limit rho -> 0 of the Bayes-optimal error",
    "weak": "alpha_low_rank from which on that limit is below 1",
    "strong": "alpha from which on the error is 0, infinite with noise",
    "strong_low_rank": "the same in terms of alpha_low_rank",
    "alpha": "samples per entry n/(d1 d2)",
    "alpha_low_rank": "samples per unknown n/(r (d1 + d2))",
    "beta": "aspect ratio d2/d1",
    "rho": "width r/d1",
    "delta": "noise variance of the labels",
    "free_entropy": "free entropy in nats per d1 d2, without the constant of a noiseless channel",
    "maximum": "free entropy at the Bayes-optimal point",
    "error": "error per entry 1 - q",
}


def _explained(data: xr.Dataset) -> xr.Dataset:
    """Return the data with the meaning of every variable in its attributes."""
    for name, meaning in _MEANINGS.items():
        if name in data.variables:
            data[name].attrs["long_name"] = meaning
    return data


def _noise(delta: float) -> float:
    noise = check("delta", delta, low=0.0, allow_inf=False)
    if np.ndim(noise):
        raise ValueError(f"delta must be a scalar here, got shape {np.shape(noise)}")
    return float(noise)


def _error_curves(delta: float, betas: Sequence[float], rhos: Sequence[float]) -> xr.Dataset:
    noise = _noise(delta)
    beta, rho = np.array(betas, dtype=np.float64), np.array(rhos, dtype=np.float64)
    b, r = beta[:, None, None], rho[:, None]
    # without noise all is learned at 1, so little more needs to be shown
    alpha = np.linspace(0.0, 1.05 if noise == 0.0 else 1.5, 421)[1:]
    strong = strong_recovery(beta[:, None], rho)
    recovered = np.where(noise == 0.0, strong, np.inf)
    recovered_low_rank = np.where(noise == 0.0, alpha_low_rank(strong, beta[:, None], rho), np.inf)
    mmse = solve(bilinear_regression(alpha, b, r, noise), on_failure="raise").mmse
    scaled = bilinear_regression(alpha_from_low_rank(alpha, b, r), b, r, noise)
    return _explained(
        xr.Dataset(
            {
                "mmse": (("beta", "rho", "alpha"), mmse),
                "ridge": ("alpha", ridge_mse(alpha, noise)),
                "mmse_low_rank": (
                    ("beta", "rho", "alpha_low_rank"),
                    solve(scaled, on_failure="raise").mmse,
                ),
                "limit": (
                    ("beta", "alpha_low_rank"),
                    low_rank_mmse(alpha, beta[:, None], noise),
                ),
                "weak": ("beta", weak_recovery_low_rank(beta, noise)),
                "strong": (("beta", "rho"), recovered),
                "strong_low_rank": (("beta", "rho"), recovered_low_rank),
            },
            {"beta": beta, "rho": rho, "alpha": alpha, "alpha_low_rank": alpha, "delta": noise},
        )
    )


def _draw_errors(data: xr.Dataset, rows: Literal["beta", "rho"]) -> Picture:
    """Draw a row of two panels for each beta (rho), a curve for each rho (beta)."""
    by_beta = rows == "beta"
    panels, curves = (
        data[name].values for name in (("beta", "rho") if by_beta else ("rho", "beta"))
    )
    panel_symbol, curve_symbol = (BETA, RHO) if by_beta else (RHO, BETA)
    colours, laid = shades(curves.size), points_of(data)
    v = {str(name): variable.values for name, variable in data.variables.items()}
    with style():
        picture = new_picture(data, height=0.75 + 1.75 * panels.size)
        grid = picture.subplots(panels.size, 2, sharex="col", sharey=True, squeeze=False)
        noiseless = float(data.delta) == 0.0
        full = 1.0 if noiseless else np.inf
        for i, (left, right) in enumerate(grid):
            plot_error(left, v["alpha"], v["ridge"], full, **RIDGE)
            for j, colour in enumerate(colours):
                at = (i, j) if by_beta else (j, i)
                for axes, x, error, end in (
                    (left, v["alpha"], v["mmse"], v["strong"]),
                    (right, v["alpha_low_rank"], v["mmse_low_rank"], v["strong_low_rank"]),
                ):
                    plot_error(axes, x, error[at], end[at], color=colour)
                    if noiseless:
                        axes.plot([end[at]], [0.0], mec=colour, **PERFECT)
            if by_beta:
                plot_error(right, v["alpha_low_rank"], v["limit"][i], full, **LIMIT)
            for points in laid:
                panel, curve = (points.beta, points.rho) if by_beta else (points.rho, points.beta)
                if panel == panels[i]:
                    colour = colours[int(np.flatnonzero(curves == curve)[0])]
                    draw_points(left, points.alpha, points, v["alpha"][-1], colour)
                    scaled = alpha_low_rank(points.alpha, points.beta, points.rho)
                    draw_points(right, scaled, points, v["alpha_low_rank"][-1], colour)
            for letter, axes in zip("ab", (left, right), strict=True):
                title_in(axes, rf"({letter}{i + 1})   ${panel_symbol}={number(panels[i])}$")
            left.set_ylabel(ERROR)
        for axes, label in zip(grid[-1], (PER_ENTRY, PER_UNKNOWN), strict=True):
            axes.set(xlabel=label, xlim=(0.0, v["alpha"][-1]), ylim=(0.0, 1.04))
        handles = [
            Line2D([], [], color=colour, label=f"${curve_symbol}={number(value)}$")
            for colour, value in zip(colours, curves, strict=True)
        ]
        if by_beta:
            handles.insert(0, Line2D([], [], label=rf"${RHO}\to 0$", **LIMIT))
        handles.append(Line2D([], [], label=rf"ridge (${RHO}\to\infty$)", **RIDGE))
        if noiseless:
            handles.append(Line2D([], [], mec="black", label="perfect recovery", **PERFECT))
        handles += point_handles(list(dict.fromkeys(points.label for points in laid)))
        columns = len(handles) if len(handles) <= 9 else -(-len(handles) // 2)
        picture.legend(handles=handles, loc="outside upper center", ncols=columns)
    return picture


def figure_1_data(delta: float = 0.0) -> xr.Dataset:
    """Calculate figure 1: the error for beta = 1, 5, infinity and six rho.

    Parameters
    ----------
    delta : float
        Noise variance of the labels, in [0, inf).

    Returns
    -------
    xarray.Dataset
        420 points a curve.

    Raises
    ------
    ValueError
        If delta is out of its range.

    Examples
    --------
    >>> from bsr_theory import figures
    >>> figures.figure_1_data().mmse.shape
    (3, 6, 420)
    """
    return _error_curves(delta, betas=(1.0, 5.0, np.inf), rhos=(0.05, 0.1, 0.2, 0.5, 1.0, 2.0))


def draw_figure_1(data: xr.Dataset, points: Iterable[Points] = ()) -> Picture:
    """Draw figure 1: a row a beta, a colour a rho.

    Parameters
    ----------
    data : xarray.Dataset
        What to draw.
    points : iterable of Points
        Simulations to lay over the curves.

    Returns
    -------
    Picture
        Left panels against alpha, right panels against alpha_LR.

    Raises
    ------
    ValueError
        If points belong to a beta or rho without a curve.
    """
    return _draw_errors(with_points(data, points), rows="beta")


def figure_1(delta: float = 0.0, *, points: Iterable[Points] = ()) -> Picture:
    """Bayes-optimal error against the number of samples, for beta = 1, 5 and infinity.

    Parameters
    ----------
    delta : float
        Noise variance of the labels, in [0, inf).
    points : iterable of Points
        Simulations to lay over the curves.

    Returns
    -------
    Picture
        Left panels against ``alpha = n/(d1 d2)``, with ridge regression on the vectorised
        sequence; right panels against ``alpha_LR = n/(r (d1 + d2))``, with the limit rho -> 0.
        Circles mark where recovery becomes perfect without noise.

    Raises
    ------
    ValueError
        If delta is out of its range, or points belong to a beta or rho without a curve.

    References
    ----------
    arXiv:2410.18858, figure 1.

    Examples
    --------
    >>> from bsr_theory import figures
    >>> len(figures.figure_1().axes)
    6
    """
    return draw_figure_1(figure_1_data(delta), points)


def figure_2_data(delta: float = 0.0) -> xr.Dataset:
    """Calculate figure 2: the error for rho = 2, 1, 0.5, 0.2 and five beta.

    Parameters
    ----------
    delta : float
        Noise variance of the labels, in [0, inf).

    Returns
    -------
    xarray.Dataset
        420 points a curve.

    Raises
    ------
    ValueError
        If delta is out of its range.

    Examples
    --------
    >>> from bsr_theory import figures
    >>> figures.figure_2_data().mmse.shape
    (5, 4, 420)
    """
    return _error_curves(delta, betas=(1.0, 2.0, 5.0, 10.0, np.inf), rhos=(2.0, 1.0, 0.5, 0.2))


def draw_figure_2(data: xr.Dataset, points: Iterable[Points] = ()) -> Picture:
    """Draw figure 2: a row a rho, a colour a beta.

    Parameters
    ----------
    data : xarray.Dataset
        What to draw.
    points : iterable of Points
        Simulations to lay over the curves.

    Returns
    -------
    Picture
        Left panels against alpha, right panels against alpha_LR.

    Raises
    ------
    ValueError
        If points belong to a beta or rho without a curve.
    """
    return _draw_errors(with_points(data, points), rows="rho")


def figure_2(delta: float = 0.0, *, points: Iterable[Points] = ()) -> Picture:
    """Bayes-optimal error against the number of samples: dependence on the aspect ratio.

    Parameters
    ----------
    delta : float
        Noise variance of the labels, in [0, inf).
    points : iterable of Points
        Simulations to lay over the curves.

    Returns
    -------
    Picture
        Rows rho = 2, 1, 0.5, 0.2; curves beta = 1, 2, 5, 10, infinity; left panels against
        ``alpha = n/(d1 d2)``, right panels against ``alpha_LR = n/(r (d1 + d2))``.

    Raises
    ------
    ValueError
        If delta is out of its range, or points belong to a beta or rho without a curve.

    References
    ----------
    arXiv:2410.18858, figure 2.

    Examples
    --------
    >>> from bsr_theory import figures
    >>> len(figures.figure_2().axes)
    8
    """
    return draw_figure_2(figure_2_data(delta), points)


# --------------------------------------------------------------------------------------------
# Figure 8: free entropy
# --------------------------------------------------------------------------------------------

# (beta, rho) and the alphas of its curves: one far from perfect recovery and two close to it
_LANDSCAPES = {
    (1.0, 1.0): (0.5, 0.95, 0.99),
    (1.0, 0.5): (0.35, 0.7, 0.74),
    (2.0, 1.0): (0.5, 0.95, 0.99),
    (2.0, 0.5): (0.2, 0.575, 0.615),
}


def figure_8_data() -> xr.Dataset:
    """Calculate figure 8: the free entropy of twelve noiseless problems.

    Returns
    -------
    xarray.Dataset
        Four panels of three curves of 401 points.

    Notes
    -----
    As `bsr_theory.free_entropy`: qhat is eliminated by ``qhat = alpha/(1 - q)``.

    Examples
    --------
    >>> from bsr_theory import figures
    >>> data = figures.figure_8_data()
    >>> bool((data.free_entropy <= data.maximum + 1e-12).all())
    True
    """
    beta, rho = np.array(list(_LANDSCAPES)).T
    alpha = np.array(list(_LANDSCAPES.values()))
    problem = bilinear_regression(alpha, beta[:, None], rho[:, None])
    along = bilinear_regression(alpha[..., None], beta[:, None, None], rho[:, None, None])
    error = np.logspace(-5.0, 0.0, 401)
    point = solve(problem, on_failure="raise")
    return _explained(
        xr.Dataset(
            {
                "free_entropy": (("panel", "curve", "error"), free_entropy(along, 1.0 - error)),
                "mmse": (("panel", "curve"), point.mmse),
                "maximum": (("panel", "curve"), -point.information),
            },
            {
                "beta": ("panel", beta),
                "rho": ("panel", rho),
                "alpha": (("panel", "curve"), alpha),
                "error": error,
            },
        )
    )


def draw_figure_8(data: xr.Dataset) -> Picture:
    """Draw figure 8: a panel for each (beta, rho), a curve for each alpha.

    Parameters
    ----------
    data : xarray.Dataset
        What to draw.

    Returns
    -------
    Picture
        Each curve relative to its maximum, which a dot marks.
    """
    v = {str(name): variable.values for name, variable in data.variables.items()}
    with style():
        picture = new_picture(data, height=4.6)
        picture.set_layout_engine("constrained", wspace=0.05)
        shape = (2, -(-data.sizes["panel"] // 2))
        grid = picture.subplots(*shape, sharex=True, sharey=True, squeeze=False)
        for i, axes in enumerate(grid.flat):
            for j, alpha in enumerate(v["alpha"][i]):
                (line,) = axes.semilogx(
                    v["error"],
                    v["free_entropy"][i, j] - v["maximum"][i, j],
                    label=rf"$\alpha={number(alpha)}$",
                )
                axes.plot([v["mmse"][i, j]], [0.0], "o", color=line.get_color(), zorder=4)
            beta, rho = number(v["beta"][i]), number(v["rho"][i])
            axes.set_title(rf"({'abcd'[i]})   ${BETA}={beta}$,  ${RHO}={rho}$")
            axes.legend(loc="lower left")
            axes.set(xlim=(v["error"][0], 1.0), ylim=(-0.33, 0.03))
        for axes in grid[-1]:
            axes.set_xlabel(ERROR)
        picture.supylabel(
            "free entropy per entry, relative to its maximum (nats)",
            fontsize=mpl.rcParams["axes.labelsize"],
        )
    return picture


def figure_8() -> Picture:
    """Free entropy against the error, without noise, for (beta, rho) in {1, 2} x {1, 0.5}.

    Returns
    -------
    Picture
        Free entropy in nats per ``d1 d2``, relative to its maximum; dots mark the maxima, the
        solutions of state evolution.

    References
    ----------
    arXiv:2410.18858, figure 8.

    Examples
    --------
    >>> from bsr_theory import figures
    >>> len(figures.figure_8().axes)
    4
    """
    return draw_figure_8(figure_8_data())


# --------------------------------------------------------------------------------------------
# One curve
# --------------------------------------------------------------------------------------------


def draw_curve(
    alpha: Numeric,
    mmse: Numeric,
    ridge: Numeric | None = None,
    algorithm: Numeric | None = None,
    *,
    title: str = "",
    log: bool = False,
    xlabel: str = PER_ENTRY,
    ylabel: str = ERROR,
) -> Picture:
    """Draw one curve of the error against the number of samples, one column wide.

    Parameters
    ----------
    alpha : array_like, shape (k,)
        Samples per entry.
    mmse : array_like, shape (k,)
        Bayes-optimal error.
    ridge : array_like, shape (k,), optional
        Error of ridge regression.
    algorithm : array_like, shape (k,), optional
        Error of message passing, where it can be larger.
    title : str
        What to write above, mathtext allowed.
    log : bool
        Whether the axis of alpha is logarithmic.
    xlabel, ylabel : str
        What the axes show; by default samples per entry and error per entry.

    Returns
    -------
    Picture
        The errors against alpha.

    Examples
    --------
    >>> from bsr_theory import figures
    >>> picture = figures.draw_curve([0.2, 0.4], [0.8, 0.4], [0.8, 0.6], title="two points")
    >>> picture.axes[0].get_title()
    'two points'
    """
    with style():
        picture = new_picture(None, height=2.8, width=0.5 * WIDTH)
        axes = picture.subplots()
        marker = "o" if np.size(alpha) == 1 else ""
        if ridge is not None:
            axes.plot(alpha, ridge, marker=marker, label="ridge, best penalty", **RIDGE)
        if algorithm is not None:
            axes.plot(alpha, algorithm, "C1", ls="--", marker=marker, label="message passing")
        axes.plot(alpha, mmse, marker=marker, color="C0", label="Bayes-optimal")
        axes.set(xlabel=xlabel, ylabel=ylabel, xscale="log" if log else "linear", title=title)
        axes.set_ylim(bottom=0.0)
        axes.margins(x=0.0 if np.size(alpha) > 1 else 0.05)
        handles, labels = axes.get_legend_handles_labels()
        picture.legend(handles[::-1], labels[::-1], loc="outside upper center", ncols=2)
    return picture
