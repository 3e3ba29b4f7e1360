"""Phase diagrams: easy, hard and impossible, with the error of message passing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..channels import AbsChannel, GaussianChannel, SignChannel
from ..phases import critical_point, phase_diagram
from ..priors import GaussianFactorPrior
from ..problem import Problem
from .drawing import BETA, PER_ENTRY, PER_UNKNOWN, RHO, Picture, new_picture, number, style

__all__ = ["draw_phase_diagram", "phase_diagram_data"]

_SYMBOLS = {"alpha": r"\alpha", "beta": BETA, "rho": RHO, "delta": r"\Delta"}
_AXES = {
    "alpha": PER_ENTRY,
    "beta": rf"aspect ratio,  ${BETA}=d_2/d_1$",
    "rho": rf"width,  ${RHO}=r/d_1$",
    "delta": r"noise variance,  $\Delta$",
}
_PHASES = {0: ("easy", "#dff0e6"), 1: ("hard", "#f6b26b"), 2: ("impossible", "#d5d8e0")}
_LINES: dict[str, tuple[str, dict[str, Any]]] = {
    "weak_recovery": ("weak recovery", {"color": "C0", "ls": (0, (1, 1.3)), "lw": 1.5}),
    "informed_spinodal": ("informed spinodal", {"color": "0.45", "ls": (0, (4, 1.5, 1, 1.5))}),
    "information_theoretic": ("information-theoretic", {"color": "C1", "lw": 1.5}),
    "algorithmic": ("algorithmic", {"color": "#b2182b", "ls": (0, (4, 1.4)), "lw": 1.5}),
    "strong_recovery": ("perfect recovery", {"color": "black", "lw": 1.0}),
}
_QUANTITIES = {
    "mmse_algorithm": "error per entry of message passing",
    "mmse_bayes": "Bayes-optimal error per entry",
    "generalization_error_algorithm": "test error of message passing",
    "generalization_error_bayes": "Bayes-optimal test error",
}


def phase_diagram_data(name: str, size: int = 300) -> xr.Dataset:
    """Calculate a phase diagram that ships with the package.

    Parameters
    ----------
    name : str
        "abs" and "abs-beta-2" (alpha, rho), "abs-noise" (alpha, delta), "sign" (alpha, rho) or
        "linear" (alpha, beta).
    size : int
        Number of values of either parameter.

    Returns
    -------
    xarray.Dataset
        As `bsr_theory.phase_diagram` returns it.

    Raises
    ------
    ValueError
        If there is no such diagram.
    """
    alpha, rho = np.linspace(0.005, 1.5, size), np.linspace(0.005, 1.5, size)
    if name in ("abs", "abs-beta-2"):
        prior = GaussianFactorPrior(2.0 if name.endswith("2") else 1.0, 1.0)
        return phase_diagram(Problem(prior, AbsChannel()), alpha=alpha, rho=rho, progress=False)
    if name == "abs-noise":
        problem = Problem(GaussianFactorPrior(1.0, 0.25), AbsChannel())
        plane = phase_diagram(
            problem,
            alpha=np.linspace(0.4, 0.8, size),
            delta=np.linspace(0.0, 0.07, size),
            progress=False,
        )
        point = critical_point(problem.prior, problem.channel, low=1e-3, high=0.2)
        return plane.assign_attrs(critical_alpha=point.alpha, critical_delta=point.value)
    if name == "sign":
        problem = Problem(GaussianFactorPrior(1.0, 1.0), SignChannel())
        return phase_diagram(problem, alpha=np.linspace(0.02, 6.0, size), rho=rho, progress=False)
    if name == "linear":
        problem = Problem(GaussianFactorPrior(1.0, 0.3), GaussianChannel())
        return phase_diagram(
            problem,
            alpha=np.linspace(0.005, 0.8, size),
            beta=np.linspace(1.0, 5.0, size),
            progress=False,
        )
    known = "abs, abs-beta-2, abs-noise, sign, linear"
    raise ValueError(f"name must be one of {known}, got {name!r}")


def draw_phase_diagram(data: xr.Dataset, quantity: str = "mmse_algorithm") -> Picture:
    """Draw the phases of a plane of parameters, and an error on it.

    Parameters
    ----------
    data : xarray.Dataset
        What `bsr_theory.phase_diagram` returned.
    quantity : str
        Which error to draw: "mmse_algorithm", "mmse_bayes", or with ``generalization_error`` in
        place of ``mmse``.

    Returns
    -------
    Picture
        Left, the phases; right, the error.  Lines are the thresholds, exact curves rather than
        borders of pixels.

    Raises
    ------
    ValueError
        If the data has no such quantity.

    Examples
    --------
    >>> import numpy as np, bsr_theory as bsr
    >>> problem = bsr.Problem(bsr.GaussianFactorPrior(2.0, 0.5), bsr.GaussianChannel())
    >>> plane = bsr.phase_diagram(problem, alpha=np.linspace(0.1, 1, 4), beta=[1.0, 2.0])
    >>> picture = bsr.figures.draw_phase_diagram(plane)
    >>> picture.axes[0].get_xlabel()[:17]
    'samples per entry'
    """
    if quantity not in _QUANTITIES or quantity not in data:
        known = ", ".join(name for name in _QUANTITIES if name in data)
        raise ValueError(f"quantity must be one of {known}, got {quantity!r}")
    vertical, horizontal = (str(name) for name in data[quantity].dims)
    x, y = data[horizontal].values, data[vertical].values
    with style():
        picture = new_picture(data, height=3.3)
        left, right = picture.subplots(1, 2, sharex=True, sharey=True)
        codes = data.phase.values
        colours = ListedColormap([colour for _, colour in _PHASES.values()])
        norm = BoundaryNorm([-0.5, 0.5, 1.5, 2.5], 3)
        left.pcolormesh(x, y, np.ma.masked_less(codes, 0), cmap=colours, norm=norm, rasterized=True)
        values = np.ma.masked_invalid(data[quantity].values)
        top = max(1e-12, float(values.max()))
        shown = right.pcolormesh(x, y, values, cmap="viridis", vmin=0.0, vmax=top, rasterized=True)
        levels = np.linspace(0.0, top, 11)[1:-1]
        if values.count() == values.size and float(values.min()) < levels[0]:
            right.contour(x, y, values, levels=levels, colors="white", linewidths=0.5)
        bar = picture.colorbar(shown, ax=right, pad=0.02)
        bar.set_label(_QUANTITIES[quantity])
        handles: list[Any] = [
            Patch(facecolor=colour, edgecolor="0.4", linewidth=0.5, label=label)
            for code, (label, colour) in _PHASES.items()
            if (codes == code).any()
        ]
        for name, (label, line) in _LINES.items():
            drawn = [_line(axes, data, name, line) for axes in (left, right)]
            if any(drawn):
                handles.append(Line2D([], [], label=label, **line))
        if "critical_alpha" in data.attrs:
            at = [data.attrs["critical_alpha"]], [data.attrs["critical_delta"]]
            for axes in (left, right):
                axes.plot(*at, "o", color="black", ms=4)
            handles.append(Line2D([], [], ls="", marker="o", color="black", label="critical"))
        for letter, axes in zip("ab", (left, right), strict=True):
            axes.set_xlabel(_label(data, horizontal))
            axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
            axes.set_title(f"({letter})", loc="left")
        left.set_ylabel(_label(data, vertical))
        left.set_title(_fixed(data), loc="right")
        picture.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 4))
    return picture


def _label(data: xr.Dataset, name: str) -> str:
    """Return what an axis shows."""
    if name == "alpha" and data.attrs.get("prior") == "LowRankFactorPrior":
        return PER_UNKNOWN
    return _AXES.get(name, name)


def _line(axes: Axes, data: xr.Dataset, name: str, line: dict[str, Any]) -> bool:
    """Draw a threshold and tell whether any of it is in view."""
    if name not in data:
        return False
    threshold = data[name]
    vertical, horizontal = (str(x) for x in data.phase.dims)
    if threshold.ndim == 1:  # alpha at each value of the other axis
        other = str(threshold.dims[0])
        at, alpha = data[other].values, threshold.values.copy()
        alpha[~np.isfinite(alpha)] = np.nan
        span = data["alpha"].values
        if not ((alpha > span[0]) & (alpha < span[-1])).any():
            return False
        axes.plot(*((alpha, at) if horizontal == "alpha" else (at, alpha)), **line)
        return True
    level, field = float(data.attrs["alpha"]), np.ma.masked_invalid(threshold.values)
    if not field.count() or not field.min() < level < field.max():
        return False
    contour = axes.contour(data[horizontal], data[vertical], field, levels=[level])
    contour.set(**{"edgecolor": line["color"], "linestyle": line.get("ls", "-")})
    return True


def _fixed(data: xr.Dataset) -> str:
    """Return what does not vary as a title."""
    channel = str(data.attrs.get("channel", "")).removesuffix("Channel")
    channel = {"Gaussian": "linear", "ReLU": "ReLU"}.get(channel, channel.lower())
    values = [
        f"${symbol}={number(float(data.attrs[name]))}$"
        for name, symbol in _SYMBOLS.items()
        if name in data.attrs and not (name == "delta" and float(data.attrs[name]) == 0.0)
    ]
    signal = [Path(data.attrs["file"]).name] if "file" in data.attrs else []
    return ",  ".join([channel, *signal, *values])
