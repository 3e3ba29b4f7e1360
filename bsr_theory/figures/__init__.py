"""The figures of arXiv:2410.18858, and others, from their parameters alone.

A figure is made in two steps.  ``figure_1_data(...)`` calculates: it returns an
`xarray.Dataset`.  ``draw_figure_1(data)`` draws that and nothing else.  ``figure_1(...)`` does
both, and `save` writes the picture with its data and their origin beside it.  No figure touches
the state of ``matplotlib.pyplot``.

`FIGURES` lists what ``bsr figure`` can draw, `make` makes it or finds it made.

Examples
--------
>>> from bsr_theory import figures
>>> picture = figures.figure_1(delta=0.1)
>>> [axes.get_xlabel().split(",")[0] for axes in picture.axes[-2:]]
['samples per entry', 'samples per unknown']
"""

from __future__ import annotations

from .attention import (
    bridge,
    bridge_data,
    collapse,
    collapse_data,
    draw_bridge,
    draw_collapse,
)
from .channels import draw_outputs, outputs, outputs_data
from .drawing import STYLE, Picture, Points
from .estimators import draw_learning_curves, learning_curves, learning_curves_data
from .files import check_path, load, save
from .finite_size import (
    draw_figure_3,
    draw_figure_4,
    draw_figure_5,
    draw_figure_6,
    draw_figure_7,
    figure_3,
    figure_3_data,
    figure_4,
    figure_4_data,
    figure_5,
    figure_5_data,
    figure_6,
    figure_6_data,
    figure_7,
    figure_7_data,
)
from .phase_diagrams import draw_phase_diagram, phase_diagram_data
from .priors import any_prior, any_prior_data, draw_any_prior, example_priors
from .registry import FIGURES, Recipe, make
from .theory import (
    draw_curve,
    draw_figure_1,
    draw_figure_2,
    draw_figure_8,
    figure_1,
    figure_1_data,
    figure_2,
    figure_2_data,
    figure_8,
    figure_8_data,
)

__all__ = [
    "FIGURES",
    "STYLE",
    "Picture",
    "Points",
    "Recipe",
    "any_prior",
    "any_prior_data",
    "bridge",
    "bridge_data",
    "check_path",
    "collapse",
    "collapse_data",
    "draw_any_prior",
    "draw_bridge",
    "draw_collapse",
    "draw_curve",
    "draw_figure_1",
    "draw_figure_2",
    "draw_figure_3",
    "draw_figure_4",
    "draw_figure_5",
    "draw_figure_6",
    "draw_figure_7",
    "draw_figure_8",
    "draw_learning_curves",
    "draw_outputs",
    "draw_phase_diagram",
    "example_priors",
    "figure_1",
    "figure_1_data",
    "figure_2",
    "figure_2_data",
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
    "figure_8",
    "figure_8_data",
    "learning_curves",
    "learning_curves_data",
    "load",
    "make",
    "outputs",
    "outputs_data",
    "phase_diagram_data",
    "save",
]
