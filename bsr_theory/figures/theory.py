"""The figures of arXiv:2410.18858, from their parameters alone.

A figure is made in two steps.  ``figure_1_data(...)`` calculates: it returns a small frozen
dataclass of plain arrays.  ``draw_figure_1(data, points)`` draws that and nothing else, with
simulations laid over the theory where `Points` are given.  ``figure_1(...)`` does both, and `save`
writes the picture with its data and their origin beside it.  No figure touches the state of
``matplotlib.pyplot``.

`FIGURES` lists what ``bsr figure`` can draw.

Examples
--------
>>> from bsr_theory import figures
>>> picture = figures.figure_1(delta=0.1)
>>> [axes.get_xlabel().split(",")[0] for axes in picture.axes[-2:]]
['samples per entry', 'samples per unknown']
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ._arrays import Array, Numeric, check
from .limits import (
    alpha_from_low_rank,
    alpha_low_rank,
    low_rank_mmse,
    ridge_mse,
    strong_recovery,
    weak_recovery_low_rank,
)
from .problem import bilinear_regression
from .results import Provenance
from .state_evolution import free_entropy, solve

__all__ = [
    "FIGURES",
    "ErrorCurves",
    "FreeEntropyCurves",
    "Picture",
    "Points",
    "Recipe",
    "check_path",
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
    "load",
    "make",
    "save",
]

STYLE = Path(__file__).with_name("bsr.mplstyle")

_WIDTH = 6.8  # inches: two columns
_BETA, _RHO = r"\beta", r"\rho"
_PER_ENTRY = r"samples per entry,  $\alpha=n/(d_1d_2)$"
_PER_UNKNOWN = r"samples per unknown,  $\alpha_{LR}=n/(r(d_1+d_2))$"
_ERROR = r"error per entry,  $1-q$"
_RIDGE: dict[str, Any] = {"color": "0.45", "ls": (0, (1, 1.3)), "lw": 1.4}
_LIMIT: dict[str, Any] = {"color": "black", "ls": (0, (4, 1.6)), "lw": 1.0}
_PERFECT: dict[str, Any] = {
    **{"ls": "", "marker": "o", "ms": 3.2, "mfc": "white", "mew": 0.9},
    **{"clip_on": False, "zorder": 4},
}
_POINT: dict[str, Any] = {"ls": "", "marker": "s", "ms": 2.8, "mfc": "white", "mew": 0.8}


# --------------------------------------------------------------------------------------------
# What is drawn
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Points:
    """Measured errors to lay over a curve, such as those of message passing at finite size.

    Parameters
    ----------
    beta, rho : float
        The curve they belong to.
    alpha : array_like, shape (k,)
        Samples per entry.
    mse : array_like, shape (k,)
        Error per entry.
    error : array_like, shape (k,), optional
        Half length of the error bars.
    label : str
        What they are, for the legend.

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> from bsr_theory.figures import Points
    >>> Points(beta=1.0, rho=0.5, alpha=[0.2, 0.4], mse=[0.8, 0.5], error=[0.02, 0.02]).mse
    array([0.8, 0.5])
    """

    beta: float
    rho: float
    alpha: Any
    mse: Any
    error: Any = None
    label: str = "GAMP-RIE"

    def __post_init__(self) -> None:
        """Turn the fields into arrays of one shape."""
        for name in ("alpha", "mse", "error"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, np.atleast_1d(np.asarray(value, dtype=np.float64)))
        for name in ("mse", "error"):
            value = getattr(self, name)
            if value is not None and (value.ndim != 1 or value.shape != self.alpha.shape):
                raise ValueError(
                    f"{name} must have the shape of alpha, {self.alpha.shape}, got {value.shape}"
                )


@dataclass(frozen=True, eq=False)
class ErrorCurves:
    """Bayes-optimal error against the number of samples, for every beta and rho.

    Attributes
    ----------
    delta : float
        Noise variance of the labels.
    beta, rho : ndarray, shapes (B,) and (R,)
        Aspect and width ratios.
    alpha : ndarray, shape (A,)
        Samples per entry.
    mmse : ndarray, shape (B, R, A)
        Bayes-optimal error at alpha.
    ridge : ndarray, shape (A,)
        Error of ridge regression on the vectorised sequence with the best penalty, which is also
        the limit ``rho -> infinity`` of mmse.
    alpha_low_rank : ndarray, shape (L,)
        Samples per unknown, ``alpha beta/((1 + beta) rho)``.
    mmse_low_rank : ndarray, shape (B, R, L)
        Bayes-optimal error at alpha_low_rank.
    limit : ndarray, shape (B, L)
        Its limit ``rho -> 0``.
    weak : ndarray, shape (B,)
        alpha_low_rank from which on that limit is below 1.
    strong, strong_low_rank : ndarray, shape (B, R)
        alpha and alpha_low_rank from which on the error is 0; infinite with noise.
    points : tuple of Points
        What is laid over the curves.
    """

    delta: float
    beta: Array
    rho: Array
    alpha: Array
    mmse: Array
    ridge: Array
    alpha_low_rank: Array
    mmse_low_rank: Array
    limit: Array
    weak: Array
    strong: Array
    strong_low_rank: Array
    points: tuple[Points, ...] = ()


@dataclass(frozen=True, eq=False)
class FreeEntropyCurves:
    """Free entropy of noiseless problems as a function of the error.

    Attributes
    ----------
    beta, rho : ndarray, shape (P,)
        One problem family a panel.
    alpha : ndarray, shape (P, K)
        Samples per entry of the curves.
    error : ndarray, shape (E,)
        ``1 - q``.
    free_entropy : ndarray, shape (P, K, E)
        Free entropy in nats per ``d1 d2``, without the infinite constant of a noiseless channel.
    mmse : ndarray, shape (P, K)
        Bayes-optimal error, where the free entropy is largest.
    maximum : ndarray, shape (P, K)
        Free entropy there.
    points : tuple of Points
        Empty: there are no simulations of a free entropy.
    """

    beta: Array
    rho: Array
    alpha: Array
    error: Array
    free_entropy: Array
    mmse: Array
    maximum: Array
    points: tuple[Points, ...] = ()


Curves: TypeAlias = ErrorCurves | FreeEntropyCurves
_KINDS: dict[str, type[Curves]] = {kind.__name__: kind for kind in (ErrorCurves, FreeEntropyCurves)}


# --------------------------------------------------------------------------------------------
# Pictures
# --------------------------------------------------------------------------------------------


def _style() -> contextlib.AbstractContextManager[None]:
    return mpl.rc_context(fname=STYLE)


class Picture(Figure):
    """A Matplotlib figure that knows its data and keeps its style wherever it is drawn.

    Attributes
    ----------
    data : ErrorCurves or FreeEntropyCurves or None
        What is drawn.
    """

    data: Curves | None = None

    def draw(self, renderer: Any) -> None:
        """Draw in the style of the package.

        Parameters
        ----------
        renderer : matplotlib.backend_bases.RendererBase
            Where to.
        """
        with _style():  # ticks are made when they are first drawn
            super().draw(renderer)

    def savefig(self, fname: Any, *, transparent: bool | None = None, **kwargs: Any) -> None:
        """Write a file, in the style of the package.

        Parameters
        ----------
        fname : str, path or file
            Where to.
        transparent : bool, optional
            As in `matplotlib.figure.Figure.savefig`, like all others.
        **kwargs : Any
            The others.
        """
        with _style():
            super().savefig(fname, transparent=transparent, **kwargs)

    def _repr_png_(self) -> bytes:
        """Return the picture that a notebook shows."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=150)
        return buffer.getvalue()


def _picture(data: Curves | None, height: float, width: float = _WIDTH) -> Picture:
    picture = Picture(figsize=(width, height))
    picture.data = data
    return picture


def _number(value: float) -> str:
    return r"\infty" if np.isinf(value) else f"{value:g}"


def _shades(count: int) -> list[Any]:
    """Return colours for an ordered parameter: lightness falls with it, so grey print works."""
    return [mpl.colormaps["viridis"](x) for x in np.linspace(0.88, 0.0, count)]


def _with_points(data: ErrorCurves, points: Iterable[Points]) -> ErrorCurves:
    together = (*data.points, *points)
    for item in together:
        if item.beta not in data.beta or item.rho not in data.rho:
            betas, rhos = (", ".join(f"{x:g}" for x in values) for values in (data.beta, data.rho))
            raise ValueError(
                f"points must lie on a curve of the figure (beta {betas}; rho {rhos}), "
                f"got beta {item.beta:g}, rho {item.rho:g}"
            )
    return dataclasses.replace(data, points=together)


# --------------------------------------------------------------------------------------------
# Figures 1 and 2: error against the number of samples
# --------------------------------------------------------------------------------------------


def _error_curves(delta: float, betas: Sequence[float], rhos: Sequence[float]) -> ErrorCurves:
    noise = check("delta", delta, low=0.0, allow_inf=False)
    if np.ndim(noise):
        raise ValueError(f"delta must be a scalar here, got shape {np.shape(noise)}")
    beta, rho = np.array(betas, dtype=np.float64), np.array(rhos, dtype=np.float64)
    b, r = beta[:, None, None], rho[:, None]
    # without noise all is learned at 1, so little more needs to be shown
    alpha = np.linspace(0.0, 1.05 if noise == 0.0 else 1.5, 421)[1:]
    strong = strong_recovery(beta[:, None], rho)
    return ErrorCurves(
        delta=noise,
        beta=beta,
        rho=rho,
        alpha=alpha,
        mmse=solve(bilinear_regression(alpha, b, r, noise), on_failure="raise").mmse,
        ridge=ridge_mse(alpha, noise),
        alpha_low_rank=alpha,
        mmse_low_rank=solve(
            bilinear_regression(alpha_from_low_rank(alpha, b, r), b, r, noise), on_failure="raise"
        ).mmse,
        limit=low_rank_mmse(alpha, beta[:, None], noise),
        weak=weak_recovery_low_rank(beta, noise),
        strong=np.where(noise == 0.0, strong, np.inf),
        strong_low_rank=np.where(noise == 0.0, alpha_low_rank(strong, beta[:, None], rho), np.inf),
    )


def _draw_errors(data: ErrorCurves, rows: Literal["beta", "rho"]) -> Picture:
    """Draw a row of two panels for each beta (rho), a curve for each rho (beta)."""
    by_beta = rows == "beta"
    panels, curves = (data.beta, data.rho) if by_beta else (data.rho, data.beta)
    panel_symbol, curve_symbol = (_BETA, _RHO) if by_beta else (_RHO, _BETA)
    colours = _shades(curves.size)
    with _style():
        picture = _picture(data, height=0.75 + 1.75 * panels.size)
        grid = picture.subplots(panels.size, 2, sharex="col", sharey=True, squeeze=False)
        noiseless = data.delta == 0.0
        full = 1.0 if noiseless else np.inf
        for i, (left, right) in enumerate(grid):
            _plot_error(left, data.alpha, data.ridge, full, **_RIDGE)
            for j, colour in enumerate(colours):
                at = (i, j) if by_beta else (j, i)
                for axes, x, error, end in (
                    (left, data.alpha, data.mmse, data.strong),
                    (right, data.alpha_low_rank, data.mmse_low_rank, data.strong_low_rank),
                ):
                    _plot_error(axes, x, error[at], end[at], color=colour)
                    if noiseless:
                        axes.plot([end[at]], [0.0], mec=colour, **_PERFECT)
            if by_beta:
                _plot_error(right, data.alpha_low_rank, data.limit[i], full, **_LIMIT)
            for points in data.points:
                panel, curve = (points.beta, points.rho) if by_beta else (points.rho, points.beta)
                if panel == panels[i]:
                    colour = colours[int(np.flatnonzero(curves == curve)[0])]
                    _draw_points(left, points.alpha, points, data.alpha[-1], colour)
                    scaled = alpha_low_rank(points.alpha, points.beta, points.rho)
                    _draw_points(right, scaled, points, data.alpha_low_rank[-1], colour)
            for letter, axes in zip("ab", (left, right), strict=True):
                title = rf"({letter}{i + 1})   ${panel_symbol}={_number(panels[i])}$"
                axes.text(0.97, 0.93, title, transform=axes.transAxes, ha="right", va="top")
            left.set_ylabel(_ERROR)
        for axes, label in zip(grid[-1], (_PER_ENTRY, _PER_UNKNOWN), strict=True):
            axes.set(xlabel=label, xlim=(0.0, data.alpha[-1]), ylim=(0.0, 1.04))
        handles = [
            Line2D([], [], color=colour, label=f"${curve_symbol}={_number(value)}$")
            for colour, value in zip(colours, curves, strict=True)
        ]
        if by_beta:
            handles.insert(0, Line2D([], [], label=rf"${_RHO}\to 0$", **_LIMIT))
        handles.append(Line2D([], [], label=rf"ridge (${_RHO}\to\infty$)", **_RIDGE))
        if noiseless:
            handles.append(Line2D([], [], mec="black", label="perfect recovery", **_PERFECT))
        handles += _point_handles(data.points)
        columns = len(handles) if len(handles) <= 9 else -(-len(handles) // 2)
        picture.legend(handles=handles, loc="outside upper center", ncols=columns)
    return picture


def _plot_error(axes: Axes, x: Array, error: Array, end: float, **style: Any) -> None:
    """Plot an error that is 1 without samples and 0 from ``end`` on, up to there."""
    before = x < end
    stop = ([end], [0.0]) if end <= x[-1] else ([], [])
    axes.plot(np.r_[0.0, x[before], stop[0]], np.r_[1.0, error[before], stop[1]], **style)


def _draw_points(axes: Axes, x: Array, points: Points, end: float, colour: Any) -> None:
    """Draw points up to ``end``, over the frame where the error vanishes."""
    shown = x <= end
    axes.errorbar(
        x[shown],
        points.mse[shown],
        None if points.error is None else points.error[shown],
        color=colour,
        elinewidth=0.7,
        clip_on=False,
        zorder=5,
        **_POINT,
    )


def _point_handles(points: Iterable[Points]) -> list[Line2D]:
    labels = dict.fromkeys(item.label for item in points)
    return [Line2D([], [], color="black", label=label, **_POINT) for label in labels]


def figure_1_data(delta: float = 0.0) -> ErrorCurves:
    """Calculate figure 1: the error for beta = 1, 5, infinity and six rho.

    Parameters
    ----------
    delta : float
        Noise variance of the labels, in [0, inf).

    Returns
    -------
    ErrorCurves
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


def draw_figure_1(data: ErrorCurves, points: Iterable[Points] = ()) -> Picture:
    """Draw figure 1: a row a beta, a colour a rho.

    Parameters
    ----------
    data : ErrorCurves
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
    return _draw_errors(_with_points(data, points), rows="beta")


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


def figure_2_data(delta: float = 0.0) -> ErrorCurves:
    """Calculate figure 2: the error for rho = 2, 1, 0.5, 0.2 and five beta.

    Parameters
    ----------
    delta : float
        Noise variance of the labels, in [0, inf).

    Returns
    -------
    ErrorCurves
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


def draw_figure_2(data: ErrorCurves, points: Iterable[Points] = ()) -> Picture:
    """Draw figure 2: a row a rho, a colour a beta.

    Parameters
    ----------
    data : ErrorCurves
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
    return _draw_errors(_with_points(data, points), rows="rho")


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


def figure_8_data() -> FreeEntropyCurves:
    """Calculate figure 8: the free entropy of twelve noiseless problems.

    Returns
    -------
    FreeEntropyCurves
        Four panels of three curves of 401 points.

    Notes
    -----
    As `bsr_theory.free_entropy`: qhat is eliminated by ``qhat = alpha/(1 - q)``.

    Examples
    --------
    >>> from bsr_theory import figures
    >>> data = figures.figure_8_data()
    >>> bool((data.free_entropy <= data.maximum[..., None] + 1e-12).all())
    True
    """
    beta, rho = np.array(list(_LANDSCAPES)).T
    alpha = np.array(list(_LANDSCAPES.values()))
    problem = bilinear_regression(alpha, beta[:, None], rho[:, None])
    along = bilinear_regression(alpha[..., None], beta[:, None, None], rho[:, None, None])
    error = np.logspace(-5.0, 0.0, 401)
    point = solve(problem, on_failure="raise")
    return FreeEntropyCurves(
        beta=beta,
        rho=rho,
        alpha=alpha,
        error=error,
        free_entropy=free_entropy(along, 1.0 - error),
        mmse=point.mmse,
        maximum=-point.information,
    )


def draw_figure_8(data: FreeEntropyCurves) -> Picture:
    """Draw figure 8: a panel for each (beta, rho), a curve for each alpha.

    Parameters
    ----------
    data : FreeEntropyCurves
        What to draw.

    Returns
    -------
    Picture
        Each curve relative to its maximum, which a dot marks.
    """
    with _style():
        picture = _picture(data, height=4.6)
        picture.set_layout_engine("constrained", wspace=0.05)
        grid = picture.subplots(2, -(-data.beta.size // 2), sharex=True, sharey=True, squeeze=False)
        for i, axes in enumerate(grid.flat):
            for j, alpha in enumerate(data.alpha[i]):
                (line,) = axes.semilogx(
                    data.error,
                    data.free_entropy[i, j] - data.maximum[i, j],
                    label=rf"$\alpha={_number(alpha)}$",
                )
                axes.plot([data.mmse[i, j]], [0.0], "o", color=line.get_color(), zorder=4)
            beta, rho = _number(data.beta[i]), _number(data.rho[i])
            axes.set_title(rf"({'abcd'[i]})   ${_BETA}={beta}$,  ${_RHO}={rho}$")
            axes.legend(loc="lower left")
            axes.set(xlim=(data.error[0], 1.0), ylim=(-0.33, 0.03))
        for axes in grid[-1]:
            axes.set_xlabel(_ERROR)
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
# One curve, and every figure by its number
# --------------------------------------------------------------------------------------------


def draw_curve(
    alpha: Numeric, mmse: Numeric, ridge: Numeric, *, title: str = "", log: bool = False
) -> Picture:
    """Draw one curve of the error against the number of samples, one column wide.

    Parameters
    ----------
    alpha : array_like, shape (k,)
        Samples per entry.
    mmse : array_like, shape (k,)
        Bayes-optimal error.
    ridge : array_like, shape (k,)
        Error of ridge regression.
    title : str
        What to write above, mathtext allowed.
    log : bool
        Whether the axis of alpha is logarithmic.

    Returns
    -------
    Picture
        Both errors against alpha.

    Examples
    --------
    >>> from bsr_theory import figures
    >>> picture = figures.draw_curve([0.2, 0.4], [0.8, 0.4], [0.8, 0.6], title="two points")
    >>> picture.axes[0].get_title()
    'two points'
    """
    with _style():
        picture = _picture(None, height=2.8, width=0.5 * _WIDTH)
        axes = picture.subplots()
        marker = "o" if np.size(alpha) == 1 else ""
        axes.plot(alpha, ridge, marker=marker, label="ridge, best penalty", **_RIDGE)
        axes.plot(alpha, mmse, marker=marker, label="Bayes-optimal")
        axes.set(xlabel=_PER_ENTRY, ylabel=_ERROR, xscale="log" if log else "linear", title=title)
        axes.set_ylim(bottom=0.0)
        axes.margins(x=0.0 if np.size(alpha) > 1 else 0.05)
        handles, labels = axes.get_legend_handles_labels()
        picture.legend(handles[::-1], labels[::-1], loc="outside upper center", ncols=2)
    return picture


@dataclass(frozen=True)
class Recipe:
    """How to make a figure of the article.

    Attributes
    ----------
    title : str
        One line that says what it shows.
    data : callable
        Returns what is drawn; takes ``delta`` when ``noisy``.
    draw : callable
        Returns the `Picture` of it.
    noisy : bool
        Whether there is a version with noise in the labels.
    """

    title: str
    data: Callable[..., Any]
    draw: Callable[[Any], Picture]
    noisy: bool


FIGURES: dict[str, Recipe] = {
    "1": Recipe("error against samples for beta = 1, 5, inf", figure_1_data, draw_figure_1, True),
    "2": Recipe("error against samples: the aspect ratio", figure_2_data, draw_figure_2, True),
    "8": Recipe("free entropy against the error", figure_8_data, draw_figure_8, False),
}
"""Every figure that can be made, by its number in arXiv:2410.18858."""


def make(name: str, delta: float = 0.0) -> Picture:
    """Calculate and draw a figure of the article.

    Parameters
    ----------
    name : str
        Its number, a key of `FIGURES`.
    delta : float
        Noise variance of the labels, in [0, inf); 0 for a figure without a noisy version.

    Returns
    -------
    Picture
        The figure, with its data.

    Raises
    ------
    ValueError
        If there is no such figure, or delta is out of its range.

    Examples
    --------
    >>> from bsr_theory import figures
    >>> figures.make("8").data.mmse.shape
    (4, 3)
    """
    if name not in FIGURES:
        raise ValueError(f"figure must be one of {', '.join(FIGURES)}, got {name!r}")
    recipe = FIGURES[name]
    if recipe.noisy:
        return recipe.draw(recipe.data(delta))
    if delta != 0.0:
        raise ValueError(f"delta must be 0 for figure {name}, which is noiseless, got {delta:g}")
    return recipe.draw(recipe.data())


# --------------------------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------------------------

# Dates and versions of the writer would make equal pictures differ.
_METADATA: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    ".svg": {"Date": None, "Creator": None},
}


def check_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a picture, or say that its suffix is that of no format.

    Parameters
    ----------
    path : path
        Where a picture is to be saved.

    Returns
    -------
    Path
        The same.

    Raises
    ------
    ValueError
        If Matplotlib cannot write such a file.

    Examples
    --------
    >>> from bsr_theory import figures
    >>> figures.check_path("figure.doc")
    Traceback (most recent call last):
    ...
    ValueError: path must end in .png, .pdf, .svg or another format of Matplotlib, got 'figure.doc'
    """
    target = Path(path)
    if target.suffix.lower()[1:] not in Figure().canvas.get_supported_filetypes():
        raise ValueError(
            "path must end in .png, .pdf, .svg or another format of Matplotlib, "
            f"got {os.fspath(path)!r}"
        )
    return target


def save(
    figure: Figure,
    path: str | os.PathLike[str],
    data: Curves | None = None,
    *,
    dpi: float | None = None,
) -> tuple[Path, ...]:
    """Write a picture, and beside it what it shows and where that came from.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The picture.
    path : path
        File to write; the suffix chooses the format (.png, .pdf, .svg, ...).  Missing folders
        are made.
    data : ErrorCurves or FreeEntropyCurves, optional
        What is drawn; by default what a `Picture` carries.
    dpi : float, optional
        Resolution of a raster image; 300 by default.

    Returns
    -------
    tuple of Path
        The files written: the picture, then the data (same name, suffix .json) if there is any.

    Raises
    ------
    ValueError
        If the suffix is that of no format.
    OSError
        If a file cannot be written.

    Notes
    -----
    The data file is plain JSON, with infinity as the string "inf"; `load` reads it.  It records
    versions and the git state of the code.
    """
    target = check_path(path)
    suffix = target.suffix.lower()
    target.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"metadata": _METADATA[suffix]} if suffix in _METADATA else {}
    if suffix == ".png":
        options["pil_kwargs"] = {"optimize": True}
    figure.savefig(target, dpi="figure" if dpi is None else dpi, **options)
    data = getattr(figure, "data", None) if data is None else data
    if data is None:
        return (target,)
    origin = dataclasses.asdict(Provenance.collect())
    origin["versions"]["matplotlib"] = mpl.__version__
    parts = {"kind": type(data).__name__, "data": dataclasses.asdict(data), "provenance": origin}
    lines = (f'"{key}": {json.dumps(_plain(part))}' for key, part in parts.items())
    beside = target.with_suffix(".json")
    beside.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    return target, beside


def load(path: str | os.PathLike[str]) -> Curves:
    """Read the data that `save` wrote beside a picture.

    Parameters
    ----------
    path : path
        The .json file.

    Returns
    -------
    ErrorCurves or FreeEntropyCurves
        What the picture shows, for its ``draw`` function.

    Raises
    ------
    ValueError
        If the file holds something else.
    """
    stored = json.loads(Path(path).read_text(encoding="utf-8"))
    kind = stored.get("kind") if isinstance(stored, dict) else None
    if kind not in _KINDS:
        raise ValueError(f"path must name the data of a figure, got {os.fspath(path)!r}")
    fields = dict(stored["data"])
    points = [
        Points(**{**p, "beta": float(p["beta"]), "rho": float(p["rho"])})
        for p in fields.pop("points")
    ]
    values = {key: np.asarray(value, dtype=np.float64) for key, value in fields.items()}
    arrays: dict[str, Any] = {k: v if v.ndim else float(v) for k, v in values.items()}
    return _KINDS[kind](**arrays, points=tuple(points))


def _plain(value: Any) -> Any:
    """Return ``value`` in terms of JSON, which has neither arrays nor infinity."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value
