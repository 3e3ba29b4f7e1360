"""The page of the explorer: a Bokeh document for one browser, redrawn when a control moves."""

# ruff: noqa: RUF001  (readers see Greek letters and minus signs)

from __future__ import annotations

import html
import json
import logging
import math
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from bokeh.core.properties import value as constant
from bokeh.core.templates import get_env
from bokeh.document import Document
from bokeh.events import ConnectionLost, DocumentReady, Tap
from bokeh.layouts import column, row
from bokeh.models import (
    Button,
    CheckboxGroup,
    ColumnDataSource,
    CustomJS,
    Div,
    HoverTool,
    LinearAxis,
    RadioButtonGroup,
    Range1d,
    Select,
    Slider,
    TextInput,
)
from bokeh.plotting import figure
from bokeh.themes import Theme

from .._arrays import Array
from .model import Exploration, Spectrum, View, explore

__all__ = ["add_page"]

_log = logging.getLogger(__name__)

BAYES, ALGORITHM, NUCLEAR, RIDGE = "#0072b2", "#d55e00", "#009e73", "#737373"
INK, FAINT, SHADE = "#1d2733", "#8b96a3", "#e69f00"
_FONT = 'system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif'
_SPINODAL = "informed spinodal"
_DELAY = 15  # milliseconds in which movements of a slider are gathered
_TEMPLATE = Path(__file__).with_name("page.html")

_THEME = Theme(
    json={
        "attrs": {
            "Plot": {
                "background_fill_color": "white",
                "border_fill_color": None,
                "outline_line_color": "#aab3bd",
                "min_border_left": 58,
                "min_border_bottom": 42,
                "min_border_top": 6,
                "min_border_right": 10,
            },
            "Grid": {"grid_line_color": "#eef1f4"},
            "Axis": {
                "axis_line_color": None,
                "major_tick_in": 5,
                "major_tick_out": 0,
                "minor_tick_in": 3,
                "minor_tick_out": 0,
                "major_tick_line_color": "#aab3bd",
                "minor_tick_line_color": "#ccd3da",
                "axis_label_text_font": _FONT,
                "axis_label_text_font_size": "13px",
                "axis_label_text_font_style": "normal",
                "axis_label_text_color": INK,
                "axis_label_standoff": 6,
                "major_label_text_font": _FONT,
                "major_label_text_font_size": "12px",
                "major_label_text_color": "#3d4a57",
            },
        }
    }
)


# --------------------------------------------------------------------------------------------
# Controls
# --------------------------------------------------------------------------------------------


def _stops(low: float, high: float, per_decade: int, *ends: float) -> list[float]:
    """Return the places of a slider: evenly in the logarithm, three digits, special ones apart."""
    count = round(math.log10(high / low) * per_decade) + 1
    inner = dict.fromkeys(float(f"{x:.3g}") for x in np.geomspace(low, high, count))
    return sorted([*inner, *ends])


_STOPS = {
    "alpha": _stops(1e-3, 10.0, 80),
    "beta": _stops(1.0, 100.0, 50, math.inf),
    "rho": _stops(1e-3, 10.0, 50, math.inf),
    "delta": _stops(1e-4, 10.0, 40, 0.0),
    "gain": _stops(0.1, 100.0, 40),
}
_TITLES = {
    "alpha": "α = n/(d₁d₂)  samples per entry",
    "beta": "β = d₂/d₁  aspect ratio, up to ∞",
    "rho": "ρ = r/d₁  width, up to ∞",
    "delta": "Δ  noise variance, from 0",
    "gain": "slope of the log odds",
}
_LABELS = {
    "linear": "linear:  y = h + √Δ ξ",
    "sign": "sign:  y = sign(h + √Δ ξ)",
    "abs": "abs:  y = |h| + √Δ ξ",
    "relu": "relu:  y = max(h, 0) + √Δ ξ",
    "logistic": "logistic:  P(y = ±1) = 1/(1 + exp(∓ gain h))",
    "quantized": "quantized:  the bin of h + √Δ ξ",
}
_ENTRY_STYLE = """
:host(.bad) input { border-color: #d55e00; background: #fff0ea; }
input { padding: 0 6px; height: 27px; font-variant-numeric: tabular-nums; }
"""
_SLIDER_STYLE = """
.noUi-handle:focus-visible { outline: 2px solid #0072b2; outline-offset: 1px; }
"""


# Handles have no name of their own that a screen reader could say.
_NAME_HANDLES = """
for (const [name, slider] of Object.entries({alpha, beta, rho, delta, gain})) {
  const view = Bokeh.index.find_one(slider)
  view?.shadow_el.querySelector(".noUi-handle")?.setAttribute("aria-label", name)
}
"""


class _Control:
    """A slider with an entry beside it, for one parameter."""

    def __init__(self, name: str, change: Callable[[str, str], None]) -> None:
        self.name, self.stops, self.change = name, np.array(_STOPS[name]), change
        self.slider = Slider(
            start=0,
            end=self.stops.size - 1,
            step=1,
            value=0,
            title=None,
            show_value=False,
            tooltips=False,
            bar_color="#9cc5de",
            name=f"{name}_slider",
            stylesheets=[_SLIDER_STYLE],
            sizing_mode="stretch_width",
            margin=(0, 16, 0, 8),
        )
        self.entry = TextInput(
            placeholder=name,
            name=name,
            width=76,
            margin=(8, 0, 0, 0),
            stylesheets=[_ENTRY_STYLE],
        )
        label = Div(text=_TITLES[name], margin=(0, 0, 1, 0), sizing_mode="stretch_width")
        handle = column(label, self.slider, sizing_mode="stretch_width")
        self.layout = row(handle, self.entry, sizing_mode="stretch_width", margin=(0, 0, 2, 0))
        self.silent = False
        self.slider.on_change("value", self._slid)
        self.entry.on_change("value", self._typed)

    def _slid(self, attr: str, old: float, new: float) -> None:
        if not self.silent:
            self.change(self.name, f"{self.stops[round(new)]:g}")

    def _typed(self, attr: str, old: str, new: str) -> None:
        if not self.silent:
            self.change(self.name, new)

    def show(self, value: float, *, move: bool) -> None:
        """Write the value, and ``move`` the slider to it."""
        self.silent = True
        self.entry.value = f"{value:.10g}"
        self.entry.css_classes = []
        if move:
            with np.errstate(divide="ignore", invalid="ignore"):
                distance = np.where(self.stops == value, 0.0, np.abs(np.log(self.stops / value)))
            self.slider.value = int(np.nanargmin(distance))
        self.silent = False


# --------------------------------------------------------------------------------------------
# Plots
# --------------------------------------------------------------------------------------------


def _figure(x: str, y: str, *, log_x: bool = False, log_y: bool = False, **options: Any) -> Any:
    """Return an empty plot that fills its place."""
    plot = figure(
        x_axis_label=x,
        y_axis_label=y,
        x_axis_type="log" if log_x else "linear",
        y_axis_type="log" if log_y else "linear",
        x_range=Range1d(0.1, 1.0),
        y_range=Range1d(0.1, 1.0),
        tools="pan,box_zoom,wheel_zoom,reset,save",
        active_drag=None,
        active_scroll=None,
        toolbar_location="above",
        sizing_mode="stretch_both",
        min_width=200,
        **options,
    )
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    return plot


class _ErrorPlot:
    """Errors against alpha, once with linear and once with logarithmic axes."""

    _COLUMNS = ("alpha", "bayes", "algorithm", "ridge", "nuclear")

    def __init__(self, choose: Callable[[float], None]) -> None:
        self.lines = ColumnDataSource({name: [] for name in self._COLUMNS})
        self.every = ColumnDataSource({"alpha": [], "stable": [], "unstable": []})
        self.hard = ColumnDataSource({"low": [], "high": []})
        self.marks = ColumnDataSource({"alpha": [], "name": [], "foot": []})
        self.legend: list[tuple[str, str]] = []
        self.here = ColumnDataSource({"alpha": []})
        self.points = ColumnDataSource({name: [] for name in _POINT_COLUMNS})
        self.plots = [self._draw(log, choose) for log in (False, True)]
        self.layout = column(*self.plots, sizing_mode="stretch_both", name="error")

    def _draw(self, log: bool, choose: Callable[[float], None]) -> Any:
        plot = _figure(
            "samples per entry,  α = n/(d₁d₂)", "error per entry,  1 − q", log_x=log, log_y=log
        )
        plot.vstrip(
            "low", "high", source=self.hard, fill_color=SHADE, fill_alpha=0.16, line_color=None
        )
        plot.vspan("alpha", source=self.marks, line_color=FAINT, line_dash=[2, 3])
        plot.line(
            "alpha", "ridge", source=self.lines, color=RIDGE, line_width=1.6, line_dash=[2, 3]
        )
        plot.line(
            "alpha", "nuclear", source=self.lines, color=NUCLEAR, line_width=1.8, line_dash=[8, 3]
        )
        plot.line("alpha", "stable", source=self.every, color="#6f9fbd", line_width=1.2)
        plot.line(
            "alpha", "unstable", source=self.every, color=INK, line_width=1.2, line_dash=[2, 2]
        )
        bayes = plot.line("alpha", "bayes", source=self.lines, color=BAYES, line_width=2.6)
        plot.line(
            "alpha",
            "algorithm",
            source=self.lines,
            color=ALGORITHM,
            line_width=2.4,
            line_dash=[7, 4],
        )
        plot.vspan("alpha", source=self.here, line_color=INK, line_width=1.2, line_alpha=0.75)
        plot.scatter(
            "alpha",
            "mmse",
            source=self.points,
            size=9,
            fill_color="fill",
            line_color="edge",
            line_width=2,
        )
        plot.text(
            "alpha",
            "foot",
            "name",
            source=self.marks,
            angle=math.pi / 2,
            x_offset=13,
            text_font=constant(_FONT),
            text_font_size="11px",
            text_color="#4d5965",
        )
        plot.add_tools(
            HoverTool(
                renderers=[bayes],
                mode="vline",
                tooltips=[
                    ("α", "@alpha{0.[0000]}"),
                    ("Bayes-optimal", "@bayes{0.[00000]}"),
                ],
            )
        )
        plot.on_event(Tap, lambda event: choose(event.x))
        return plot

    def show(self, shown: Exploration) -> None:
        """Draw an exploration."""
        curve, view = shown.curve, shown.view
        # without samples nothing is known
        alpha, bayes = np.r_[0.0, curve.alpha], np.r_[1.0, curve.mmse_bayes]
        differs = np.abs(curve.mmse_algorithm - curve.mmse_bayes) > 1e-9
        # the ends of its run belong to a line that rejoins the other
        near = differs | np.r_[differs[1:], False] | np.r_[False, differs[:-1]]
        nothing = np.full(alpha.size, np.nan)
        columns = {
            "alpha": alpha,
            "bayes": bayes,
            "algorithm": np.r_[np.nan, np.where(near, curve.mmse_algorithm, np.nan)],
            "ridge": nothing if curve.ridge is None else np.r_[1.0, curve.ridge],
            "nuclear": nothing if curve.nuclear_norm is None else np.r_[1.0, curve.nuclear_norm],
        }
        self.lines.data = columns
        every = curve.every
        several = bool(curve.hard.size) or bool(np.any(~every.stable & (every.mmse < 0.999)))
        self.every.data = {
            "alpha": every.alpha if several else [],
            "stable": np.where(every.stable, every.mmse, np.nan) if several else [],
            "unstable": np.where(every.stable, np.nan, every.mmse) if several else [],
        }
        self.hard.data = {"low": curve.hard[:, 0], "high": curve.hard[:, 1]}
        self.here.data = {"alpha": [view.alpha]}
        self.points.data = _point_columns(shown, -1.0, 1.0)
        positive = bayes[(bayes > 0.0) & np.isfinite(bayes)]
        low = max(1e-6, 0.5 * float(positive.min())) if view.log else 0.0
        self.marks.data = _mark_columns(_merged(curve.marks, curve.alpha[-1]), curve.alpha, low)
        for i, plot in enumerate(self.plots):
            plot.visible = bool(i) == view.log
            if bool(i) != view.log:
                continue
            plot.x_range.update(start=float(curve.alpha[0]) if i else 0.0, end=curve.alpha[-1])
            plot.x_range.update(reset_start=plot.x_range.start, reset_end=plot.x_range.end)
            # below 0, so that circles there are whole
            plot.y_range.update(start=low if i else -0.03, end=1.3 if i else 1.04)
            plot.y_range.update(reset_start=plot.y_range.start, reset_end=plot.y_range.end)
        self.legend = [("Bayes-optimal", "bayes")]
        if differs.any():
            self.legend.append(("message passing, uninformed", "algorithm"))
        if several:
            self.legend += [("other fixed points: stable", "stable"), ("unstable", "unstable")]
        if curve.hard.size:
            self.legend.append(("hard phase", "shade"))
        if curve.nuclear_norm is not None:
            self.legend.append(("nuclear norm, best penalty", "nuclear"))
        if curve.ridge is not None:
            self.legend.append(("ridge, best penalty", "ridge"))


_POINT_COLUMNS = ("rank", "alpha", "mmse", "height", "fill", "edge", "marker")


def _point_columns(shown: Exploration, low: float, high: float) -> dict[str, list[Any]]:
    """Return the fixed points at alpha as circles, filled when stable, the important ones last.

    Free entropies beyond ``low`` or ``high`` become triangles there.
    """
    rows = []
    for i in np.flatnonzero(np.isfinite(shown.points.mmse)):
        rank, fill, edge = 0, FAINT if shown.points.stable[i] else "white", INK
        if i == shown.bayes:
            rank, fill, edge = 2, BAYES, BAYES
        elif i == shown.algorithm:
            rank, fill, edge = 1, ALGORITHM, ALGORITHM
        height = float(shown.free_entropies[i])
        marker = "circle"
        if math.isinf(height):
            marker = "triangle" if height > 0.0 else "inverted_triangle"
        height = min(max(height, low), high)
        mmse = float(shown.points.mmse[i])
        rows.append((rank, shown.view.alpha, mmse, height, fill, edge, marker))
    rows.sort()
    return {name: [row[k] for row in rows] for k, name in enumerate(_POINT_COLUMNS)}


def _merged(marks: Mapping[str, float], end: float) -> dict[str, float]:
    """Return the marks on the axis, those at one place under a common name."""
    found: dict[float, list[str]] = {}
    for name, place in sorted(marks.items(), key=lambda item: item[1]):
        if place <= end:
            same = [x for x in found if abs(x - place) < 1e-9 * place]
            found.setdefault(same[0] if same else place, []).append(name)
    # without noise the informed branch begins where recovery is perfect: no news
    shown = ([x for x in names if x != _SPINODAL] or names for names in found.values())
    return {" = ".join(names): place for names, place in zip(shown, found, strict=True)}


def _mark_columns(marks: Mapping[str, float], alpha: Array, low: float) -> dict[str, list[Any]]:
    """Return names of thresholds with the places of their text, apart when lines are close.

    ``low`` is where the axis of the error ends when it is logarithmic, else 0.
    """
    columns: dict[str, list[Any]] = {"alpha": [], "name": [], "foot": []}
    before, height = -math.inf, 0.02
    for name, place in marks.items():
        if name == _SPINODAL:  # where the curve of fixed points turns: it is seen
            continue
        if low > 0.0:
            where = math.log(place / alpha[0]) / math.log(alpha[-1] / alpha[0])
        else:
            where = place / alpha[-1]
        height = 0.52 - height if where - before < 0.03 else 0.02
        columns["alpha"].append(place)
        columns["name"].append(name)
        columns["foot"].append(low * (1.3 / low) ** height if low > 0.0 else height)
        before = where
    return columns


class _SpectrumPlot:
    """Density of the singular values, and the denoiser on a second axis."""

    def __init__(self) -> None:
        self.bulk = ColumnDataSource({"y": [], "density": [], "denoised": []})
        self.atoms = ColumnDataSource({"y": [], "top": []})
        self.notes = ColumnDataSource({"y": [], "at": [], "text": []})
        self.diagonal = ColumnDataSource({"x": [], "y": []})
        plot = _figure("singular value y of (S + √s Z)/√d₂", "density")
        plot.extra_y_ranges = {"denoised": Range1d(0.0, 1.0)}
        plot.add_layout(LinearAxis(y_range_name="denoised", axis_label="denoised, f(y)"), "right")
        plot.yaxis[0].axis_label_text_color = BAYES
        plot.yaxis[1].axis_label_text_color = ALGORITHM
        plot.varea("y", 0, "density", source=self.bulk, fill_color=BAYES, fill_alpha=0.22)
        plot.line("y", "density", source=self.bulk, color=BAYES, line_width=1.6)
        plot.segment("y", 0, "y", "top", source=self.atoms, color=BAYES, line_width=4)
        plot.line(
            "x",
            "y",
            source=self.diagonal,
            color=FAINT,
            line_dash=[2, 3],
            y_range_name="denoised",
        )
        plot.line(
            "y",
            "denoised",
            source=self.bulk,
            color=ALGORITHM,
            line_width=2.2,
            y_range_name="denoised",
        )
        plot.text(
            "y",
            "at",
            "text",
            source=self.notes,
            text_font=constant(_FONT),
            text_font_size="12px",
            text_color="#3d4a57",
            x_offset=6,
            text_baseline="top",
        )
        self.plot = plot
        self.layout = column(plot, sizing_mode="stretch_both", name="spectrum")

    def show(self, law: Spectrum | None) -> None:
        """Draw a spectrum, or say that there is none."""
        if law is None:
            self.bulk.data = {"y": [], "density": [], "denoised": []}
            self.atoms.data, self.diagonal.data = {"y": [], "top": []}, {"x": [], "y": []}
            self.notes.data = {"y": [0.1], "at": [0.6], "text": ["nothing is learned: s = ∞"]}
            self._ranges(1.0, 1.0)
            return
        end = float(law.y[-1])
        heights = [_height(law, low, high) for low, high in law.edges]
        top = min(max(heights), 4.0 * min(heights)) if heights else 1.0
        top = top if math.isfinite(top) and top > 0.0 else 1.0
        finite = np.where(np.isfinite(law.density), law.density, 10.0 * top)
        self.bulk.data = {"y": law.y, "density": finite, "denoised": law.denoised}
        self.atoms.data = {"y": law.atoms[:, 0], "top": [1.1 * top] * len(law.atoms)}
        self.diagonal.data = {"x": [0.0, end], "y": [0.0, end]}
        notes = [(float(y), f"{mass:.1%} of the values") for y, mass in law.atoms]
        for (_, high), mass, height in zip(law.edges, law.masses, heights, strict=True):
            if height > 1.001 * top:
                notes.append((float(high), f"{mass:.1%} of the values"))
        self.notes.data = {
            "y": [y for y, _ in notes],
            "at": [0.55 * top] * len(notes),
            "text": [text for _, text in notes],
        }
        self._ranges(end, 1.12 * top)

    def _ranges(self, end: float, top: float) -> None:
        ranges = (self.plot.x_range, self.plot.y_range, self.plot.extra_y_ranges["denoised"])
        for axis, high in zip(ranges, (end, top, end), strict=True):
            axis.update(start=0.0, end=high)
            axis.update(reset_start=0.0, reset_end=high)


def _height(law: Spectrum, low: float, high: float) -> float:
    """Return the largest density on a bulk, a divergence at an edge apart."""
    width = high - low
    inner = (law.y > low + 0.01 * width) & (law.y < high - 0.01 * width)
    return float(np.max(law.density[inner], initial=0.0))


class _LandscapePlot:
    """Free entropy against the error, with the fixed points."""

    def __init__(self) -> None:
        self.line = ColumnDataSource({"error": [], "value": []})
        self.points = ColumnDataSource({name: [] for name in _POINT_COLUMNS})
        self.plots = [self._draw(log) for log in (False, True)]
        self.layout = column(*self.plots, sizing_mode="stretch_both", name="landscape")

    def _draw(self, log: bool) -> Any:
        plot = _figure("error per entry,  1 − q", "free entropy per d₁d₂  (nats)", log_x=log)
        plot.line("error", "value", source=self.line, color=INK, line_width=2)
        plot.scatter(
            "mmse",
            "height",
            source=self.points,
            size=11,
            marker="marker",
            fill_color="fill",
            line_color="edge",
            line_width=2,
        )
        return plot

    def show(self, shown: Exploration) -> None:
        """Draw the landscape of an exploration."""
        view = shown.view
        error, value = shown.error, shown.free_entropy
        low, high = _window(shown)
        self.line.data = {"error": error, "value": np.where(np.isfinite(value), value, np.nan)}
        inset = 0.04 * (high - low)
        self.points.data = _point_columns(shown, low + inset, high - inset)
        for i, plot in enumerate(self.plots):
            plot.visible = bool(i) == view.log
            if bool(i) != view.log:
                continue
            plot.x_range.update(start=float(error[0]) if i else -0.02, end=1.3 if i else 1.02)
            plot.x_range.update(reset_start=plot.x_range.start, reset_end=plot.x_range.end)
            plot.y_range.update(start=low, end=high)
            plot.y_range.update(reset_start=low, reset_end=high)


def _window(shown: Exploration) -> tuple[float, float]:
    """Return the free entropies to show: the fixed points with what lies between them."""
    value = shown.free_entropy[np.isfinite(shown.free_entropy)]
    heights = shown.free_entropies[np.isfinite(shown.free_entropies)]
    if not value.size:
        return -1.0, 1.0
    start = float(value[-1])  # nothing known
    seen = [start, *heights.tolist()]
    if heights.size > 1:
        seen = heights.tolist()
    span = max(seen) - min(seen)
    if span < 1e-9 * max(1.0, abs(start)):
        span = float(np.quantile(value, 0.9) - np.quantile(value, 0.1)) or 1.0
    below = 0.6 if heights.size > 1 else 0.25
    return min(seen) - below * span, max(seen) + 0.35 * span


# --------------------------------------------------------------------------------------------
# The page
# --------------------------------------------------------------------------------------------


def _number(value: float) -> str:
    """Return a number with five digits, for readers."""
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:.5g}".replace("-", "−")


def _legend(items: list[tuple[str, str]]) -> str:
    """Return the legend of the errors, as HTML; the style sheet of the page draws the samples."""
    samples = (f'<i class="{kind}"></i>{html.escape(label)}' for label, kind in items)
    return "".join(f"<span>{sample}</span>" for sample in samples)


def _readout(shown: Exploration) -> str:
    """Return the numbers of the point at alpha, as HTML."""
    values = shown.summary
    phase = shown.phase
    rows = [("Bayes-optimal error 1 − q", values["mmse"], "")]
    if values["mmse_algorithm"] > values["mmse"]:
        rows.append(("error of message passing", values["mmse_algorithm"], ""))
    rows += [
        ("error of a new label", values["generalization_error"], ""),
        ("effective noise s = 1/q̂", values["s"], ""),
        ("free entropy (nats)", values["free_entropy"], ""),
        ("α<sub>LR</sub>, samples per unknown", values["alpha_LR"], ""),
    ]
    rule = "rule"
    for name, place in _merged(shown.curve.marks, math.inf).items():
        rows.append((f"α: {name}", place, rule))
        rule = ""
    kind = "phase hard" if phase.startswith("hard") else "phase"
    lines = [f'<p class="{kind}">{html.escape(phase[:1].upper() + phase[1:])}.</p>', "<dl>"]
    for name, value, style in rows:
        mark = f' class="{style}"' if style else ""
        lines.append(f"<dt{mark}>{name}</dt><dd{mark}>{_number(value)}</dd>")
    return "".join([*lines, "</dl>"])


class _Page:
    """The state of one browser: the view, its controls and its plots."""

    def __init__(self, document: Document, start: View, view: View, problems: list[str]) -> None:
        self.document, self.start, self.view = document, start, view
        self.problems = {str(i): text for i, text in enumerate(problems)}
        self.waiting, self.count = False, 0
        self.state = ColumnDataSource({"json": [""]}, name="state")

        self.controls = {name: _Control(name, self.change) for name in _STOPS}
        self.channel = Select(
            title="labels,  h = ⟨X, S⟩/√(d₁d₂)",
            options=list(_LABELS.items()),
            name="channel",
            sizing_mode="stretch_width",
            margin=(0, 0, 6, 0),
        )
        self.levels = TextInput(
            title="the label changes where h passes",
            placeholder="levels",
            name="levels",
            stylesheets=[_ENTRY_STYLE],
            sizing_mode="stretch_width",
            margin=(0, 0, 6, 0),
        )
        self.axes = RadioButtonGroup(
            labels=["linear axes", "logarithmic"], name="axes", margin=(2, 8, 4, 0)
        )
        self.reset = Button(label="reset", name="reset", width=58, margin=(2, 0, 4, 0))
        self.extras = CheckboxGroup(
            labels=["ridge", "nuclear norm"], inline=True, name="extras", margin=(0, 0, 0, 0)
        )
        self.silent = False
        self.channel.on_change("value", lambda a, o, new: self._chosen("channel", new))
        self.levels.on_change("value", lambda a, o, new: self._chosen("levels", new))
        self.axes.on_change("active", lambda a, o, new: self._chosen("log", str(new)))
        self.extras.on_change("active", self._ticked)
        self.reset.on_click(self._reset)

        self.error = _ErrorPlot(self._tapped)
        self.spectrum = _SpectrumPlot()
        self.landscape = _LandscapePlot()
        controls = column(
            self.channel,
            self.levels,
            *(control.layout for control in self.controls.values()),
            self.extras,
            row(self.axes, self.reset, sizing_mode="stretch_width"),
            sizing_mode="stretch_width",
            name="controls",
        )
        busy = CustomJS(args={"state": self.state}, code='document.body.classList.add("busy")')
        for control in self.controls.values():
            control.slider.js_on_change("value", busy)
        apply = CustomJS(args={"state": self.state}, code="showState(state.data.json[0])")
        self.state.js_on_change("data", apply)
        named = {name: control.slider for name, control in self.controls.items()}
        document.js_on_event(DocumentReady, apply, CustomJS(args=named, code=_NAME_HANDLES))
        # the address is the view: a page that was cut off from its server begins anew
        document.config.update(notify_connection_status=False, reconnect_session=False)
        document.js_on_event(ConnectionLost, CustomJS(code="waitForServer()"))
        self._write_controls()
        self.draw()
        for root in (controls, self.error.layout, self.spectrum.layout, self.landscape.layout):
            document.add_root(root)

    # ------------------------------------------------------------------------------ events

    def change(self, name: str, word: str) -> None:
        """Take a new value of a parameter, or say what is wrong with it."""
        try:
            view = self.view.with_word(name, word)
        except ValueError as error:
            self.problems = {**self.problems, name: str(error)}
            entry = self.levels if name == "levels" else self.controls[name].entry
            entry.css_classes = ["bad"]
        else:
            # those of the address are said once
            self.problems = {
                k: x for k, x in self.problems.items() if k != name and not k.isdigit()
            }
            self.view = view
            if name in self.controls:
                control = self.controls[name]
                # a handle that is being dragged must not be moved by the answer
                shown = f"{control.stops[round(control.slider.value)]:g}"
                control.show(getattr(view, name), move=word != shown)
            elif name == "levels":
                self.levels.css_classes = []
        self._schedule()

    def _chosen(self, name: str, word: str) -> None:
        if not self.silent:
            self.change(name, word)
            if name == "channel":
                self._write_controls()

    def _ticked(self, attr: str, old: list[int], new: list[int]) -> None:
        if not self.silent:
            for i, name in enumerate(("ridge", "nuclear_norm")):
                self.view = self.view.with_word(name, str(int(i in new)))
            self._schedule()

    def _tapped(self, x: float | None) -> None:
        if x is not None and x > 0.0:
            self.change("alpha", f"{x:.4g}")

    def _reset(self) -> None:
        self.view, self.problems = self.start, {}
        self._write_controls()
        self._schedule()

    def _write_controls(self) -> None:
        """Let the controls show the view."""
        self.silent = True
        view = self.view
        for name, control in self.controls.items():
            control.show(getattr(view, name), move=True)
            control.layout.visible = name in view.active
        self.channel.value = view.channel
        self.levels.value = ", ".join(f"{x:g}" for x in view.levels)
        self.levels.css_classes = []
        self.levels.visible = "levels" in view.active
        self.axes.active = int(view.log)
        shown = [i for i, name in enumerate(("ridge", "nuclear_norm")) if getattr(view, name)]
        self.extras.active = shown
        self.extras.visible = view.channel == "linear"
        self.silent = False

    # ------------------------------------------------------------------------------ drawing

    def _schedule(self) -> None:
        """Draw soon, once for all that happens until then."""
        if not self.waiting:
            self.waiting = True
            self.document.add_timeout_callback(self._draw_scheduled, _DELAY)

    def _draw_scheduled(self) -> None:
        self.waiting = False
        self.document.hold("combine")
        try:
            self.draw()
        finally:
            self.document.unhold()

    def draw(self) -> None:
        """Calculate and draw the view; whatever fails becomes a message."""
        messages = list(self.problems.values())
        parts = {}
        try:
            shown = explore(self.view)
        except (ArithmeticError, RuntimeError, ValueError) as error:
            _log.exception("the view %s could not be calculated", self.view.query)
            messages.append(f"This view could not be calculated: {error}")
        else:
            self.error.show(shown)
            self.spectrum.show(shown.spectrum)
            self.landscape.show(shown)
            messages += shown.failures
            parts["legend"] = _legend(self.error.legend)
            parts["readout"] = _readout(shown)
        parts["message"] = html.escape("\n".join(messages))
        self.count += 1
        state = {"parts": parts, "query": self.view.query, "count": self.count}
        self.state.data = {"json": [json.dumps(state)]}


def add_page(document: Document, view: View | None = None) -> None:
    """Fill a document with the explorer.

    Parameters
    ----------
    document : bokeh.document.Document
        A new document; the query string of its address overrides ``view``.
    view : View, optional
        What is shown first.
    """
    view = View() if view is None else view
    context = document.session_context
    arguments = context.request.arguments if context and context.request else {}
    words = {name: values[-1].decode(errors="replace") for name, values in arguments.items()}
    first, problems = View.read(words, view)
    document.title = "bsr explore"
    document.theme = _THEME
    document.template = get_env().from_string(_TEMPLATE.read_text(encoding="utf-8"))
    document.template_variables["version"] = metadata.version("bsr_theory")
    _Page(document, view, first, problems)
