"""What all figures share: the style, the pictures, and how errors and points are drawn."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .._arrays import Array

__all__ = ["STYLE", "Picture", "Points"]

STYLE = Path(__file__).with_name("bsr.mplstyle")
"""The style sheet, for pictures of one's own."""

WIDTH = 6.8  # inches: two columns
BETA, RHO = r"\beta", r"\rho"
PER_ENTRY = r"samples per entry,  $\alpha=n/(d_1d_2)$"
PER_UNKNOWN = r"samples per unknown,  $\alpha_{LR}=n/(r(d_1+d_2))$"
ERROR = r"error per entry,  $1-q$"
RIDGE: dict[str, Any] = {"color": "0.45", "ls": (0, (1, 1.3)), "lw": 1.4}
LIMIT: dict[str, Any] = {"color": "black", "ls": (0, (4, 1.6)), "lw": 1.0}
PERFECT: dict[str, Any] = {
    **{"ls": "", "marker": "o", "ms": 3.2, "mfc": "white", "mew": 0.9},
    **{"clip_on": False, "zorder": 4},
}
POINT: dict[str, Any] = {"ls": "", "marker": "s", "ms": 2.8, "mfc": "white", "mew": 0.8}


# --------------------------------------------------------------------------------------------
# Pictures
# --------------------------------------------------------------------------------------------


def style() -> contextlib.AbstractContextManager[None]:
    """Return a context in which Matplotlib draws in the style of the package."""
    return mpl.rc_context(fname=STYLE)


class Picture(Figure):
    """A Matplotlib figure that knows its data and keeps its style wherever it is drawn.

    Attributes
    ----------
    data : xarray.Dataset or None
        What is drawn.
    """

    data: xr.Dataset | None = None

    def draw(self, renderer: Any) -> None:
        """Draw in the style of the package.

        Parameters
        ----------
        renderer : matplotlib.backend_bases.RendererBase
            Where to.
        """
        with style():  # ticks are made when they are first drawn
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
        with style():
            super().savefig(fname, transparent=transparent, **kwargs)

    def _repr_png_(self) -> bytes:
        """Return the picture that a notebook shows."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=150)
        return buffer.getvalue()


def new_picture(data: xr.Dataset | None, height: float, width: float = WIDTH) -> Picture:
    """Return an empty picture, sizes in inches."""
    picture = Picture(figsize=(width, height))
    picture.data = data
    return picture


def number(value: float) -> str:
    """Return a number as TeX."""
    return r"\infty" if np.isinf(value) else f"{float(value):g}"


def shades(count: int) -> list[Any]:
    """Return colours for an ordered parameter: lightness falls with it, so grey print works."""
    return [mpl.colormaps["viridis"](x) for x in np.linspace(0.88, 0.0, count)]


def title_in(axes: Axes, text: str) -> None:
    """Write the title of a panel into its upper right corner, where errors are small."""
    axes.text(0.97, 0.93, text, transform=axes.transAxes, ha="right", va="top")


def plot_error(
    axes: Axes, x: Array, error: Array, end: float, start: float = 1.0, **line: Any
) -> None:
    """Plot an error that is ``start`` without samples and 0 from ``end`` on, up to there."""
    before = x < end
    stop = ([end], [0.0]) if end <= x[-1] else ([], [])
    axes.plot(np.r_[0.0, x[before], stop[0]], np.r_[start, error[before], stop[1]], **line)


# --------------------------------------------------------------------------------------------
# Points laid over curves
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

    @classmethod
    def from_runs(cls, runs: xr.Dataset, label: str = "GAMP-RIE") -> tuple[Points, ...]:
        """Return the means of `bsr_theory.simulations.compare`, one `Points` a curve.

        Parameters
        ----------
        runs : xarray.Dataset
            With ``mse_mean`` and ``mse_error`` over alpha and, perhaps, beta and rho.
        label : str
            What they are, for the legend.

        Returns
        -------
        tuple of Points
            Ready for the ``points`` of a figure.
        """
        means = runs[["mse_mean", "mse_error"]]
        for name in ("alpha", "rho", "beta"):
            if name not in means.dims:
                means = means.expand_dims(name)
        found = []
        for beta in means.beta.values:
            for rho in means.rho.values:
                line = means.sel(beta=beta, rho=rho)
                alpha, mse, error = (line[x].values for x in ("alpha", "mse_mean", "mse_error"))
                found.append(cls(float(beta), float(rho), alpha, mse, error, label))
        return tuple(found)


_COLUMNS = ("beta", "rho", "alpha", "mse", "error", "label")


def with_points(data: xr.Dataset, points: Iterable[Points]) -> xr.Dataset:
    """Return the data of a figure with points added: a table, one row a point."""
    rows: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    points = tuple(points)
    betas, rhos = (np.atleast_1d(data[name].values) for name in ("beta", "rho"))
    for item in points:
        if item.beta not in betas or item.rho not in rhos:
            has = (", ".join(f"{x:g}" for x in values) for values in (betas, rhos))
            raise ValueError(
                "points must lie on a curve of the figure (beta {}; rho {}), ".format(*has)
                + f"got beta {item.beta:g}, rho {item.rho:g}"
            )
        count = item.alpha.size
        error = np.full(count, np.nan) if item.error is None else item.error
        rows["alpha"] += item.alpha.tolist()
        rows["mse"] += item.mse.tolist()
        rows["error"] += error.tolist()
        for name in ("beta", "rho", "label"):
            rows[name] += [getattr(item, name)] * count
    if not points:
        return data
    table = xr.Dataset({f"point_{name}": ("point", values) for name, values in rows.items()})
    if "point" in data.dims:
        old = data[[f"point_{name}" for name in _COLUMNS]]
        table = xr.concat([old, table], dim="point")
        data = data.drop_dims("point")
    return data.merge(table)


def points_of(data: xr.Dataset) -> list[Points]:
    """Return the points of a figure, one `Points` a curve and label."""
    if "point" not in data.dims:
        return []
    table = {name: data[f"point_{name}"].values for name in _COLUMNS}
    groups: dict[tuple[float, float, str], list[int]] = {}
    for i, key in enumerate(zip(table["beta"], table["rho"], table["label"], strict=True)):
        groups.setdefault((float(key[0]), float(key[1]), str(key[2])), []).append(i)
    found = []
    for (beta, rho, label), at in groups.items():
        error = table["error"][at]
        known = None if np.isnan(error).all() else error
        found.append(Points(beta, rho, table["alpha"][at], table["mse"][at], known, label))
    return found


def draw_points(axes: Axes, x: Array, points: Points, end: float, colour: Any) -> None:
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
        **POINT,
    )


def point_handles(labels: Sequence[str]) -> list[Line2D]:
    """Return an entry of the legend for each kind of points."""
    return [Line2D([], [], color="black", label=label, **POINT) for label in labels]
