"""Every figure by its name: made, or taken from the file where it was made before."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from .._arrays import check_number
from ..priors import Prior
from ..results import code_fingerprint, write_dataset
from .attention import bridge_data, collapse_data, draw_bridge, draw_collapse
from .channels import draw_outputs, outputs_data
from .drawing import Picture
from .estimators import draw_learning_curves, learning_curves_data
from .files import check_path, load, origin
from .finite_size import (
    draw_figure_3,
    draw_figure_4,
    draw_figure_5,
    draw_figure_6,
    draw_figure_7,
    figure_3_data,
    figure_4_data,
    figure_5_data,
    figure_6_data,
    figure_7_data,
)
from .phase_diagrams import draw_phase_diagram, phase_diagram_data
from .priors import any_prior_data, draw_any_prior
from .theory import (
    draw_figure_1,
    draw_figure_2,
    draw_figure_8,
    figure_1_data,
    figure_2_data,
    figure_8_data,
)

__all__ = ["FIGURES", "Recipe", "make"]


@dataclass(frozen=True)
class Recipe:
    """How to make a figure.

    Attributes
    ----------
    title : str
        One line that says what it shows.
    data : callable
        Returns what is drawn; takes ``parameters`` and, when ``simulated``, what `make` passes on.
    draw : callable
        Returns the `Picture` of it.
    parameters : tuple of str
        Which of "delta" and "beta" may be chosen.
    simulated : bool
        Whether it takes simulations, which have a fast and a full size.
    any_prior : bool
        Whether it can be drawn for priors of one's own.
    """

    title: str
    data: Callable[..., xr.Dataset]
    draw: Callable[[xr.Dataset], Picture]
    parameters: tuple[str, ...] = ()
    simulated: bool = False
    any_prior: bool = False


FIGURES: dict[str, Recipe] = {
    "1": Recipe(
        "error against samples for beta = 1, 5, inf", figure_1_data, draw_figure_1, ("delta",)
    ),
    "2": Recipe(
        "error against samples: the aspect ratio", figure_2_data, draw_figure_2, ("delta",)
    ),
    "3": Recipe(
        "message passing of finite size against the theory",
        *(figure_3_data, draw_figure_3, ("delta", "beta"), True),
    ),
    "4": Recipe(
        "perfect recovery: Bayes-optimal and of least nuclear norm", figure_4_data, draw_figure_4
    ),
    "5": Recipe(
        "the least nuclear norm against the Bayes-optimal error",
        *(figure_5_data, draw_figure_5, ("delta", "beta"), True),
    ),
    "6": Recipe(
        "gradient descent from the prior, and its average over starts",
        *(figure_6_data, draw_figure_6, ("delta", "beta"), True),
    ),
    "7": Recipe(
        "gradient descent from small starts against the least nuclear norm",
        *(figure_7_data, draw_figure_7, ("delta", "beta"), True),
    ),
    "8": Recipe("free entropy against the error", figure_8_data, draw_figure_8),
    "learning-curves": Recipe(
        "learning curves of everything: Bayes, nuclear norm, ridge, least squares",
        *(learning_curves_data, draw_learning_curves, ("delta", "beta"), True, True),
    ),
    "outputs": Recipe(
        "message passing for sign, ReLU and magnitude labels against the theory",
        *(outputs_data, draw_outputs, (), True),
    ),
    "priors": Recipe(
        "any prior: spectra, denoisers and errors of four laws of singular values",
        *(any_prior_data, draw_any_prior, ("delta", "beta"), True, True),
    ),
    "attention": Recipe(
        "attention weights: regression against the Bayes-optimal estimate",
        *(bridge_data, draw_bridge, ("delta", "beta"), True),
    ),
    "attention-collapse": Recipe(
        "tied attention: one curve for any number of tokens",
        *(collapse_data, draw_collapse, (), True),
    ),
    "phases-abs": Recipe(
        "phases of |h| labels: samples and width, beta = 1",
        *(partial(phase_diagram_data, "abs"), draw_phase_diagram),
    ),
    "phases-abs-beta-2": Recipe(
        "the same for beta = 2",
        *(partial(phase_diagram_data, "abs-beta-2"), draw_phase_diagram),
    ),
    "phases-abs-noise": Recipe(
        "phases of noisy |h| labels: samples and noise",
        *(partial(phase_diagram_data, "abs-noise"), draw_phase_diagram),
    ),
    "phases-sign": Recipe(
        "test error of sign labels: samples and width",
        partial(phase_diagram_data, "sign"),
        partial(draw_phase_diagram, quantity="generalization_error_bayes"),
    ),
    "phases-linear": Recipe(
        "phases of linear labels: samples and aspect ratio",
        *(partial(phase_diagram_data, "linear"), draw_phase_diagram),
    ),
}
"""Every figure that can be made; numbers are those of arXiv:2410.18858."""


def make(
    name: str,
    delta: float | None = None,
    beta: float | None = None,
    *,
    priors: Mapping[str, Prior] | None = None,
    fast: bool = False,
    path: str | os.PathLike[str] | None = None,
    executor: Executor | Literal["serial", "threads"] | None = None,
    progress: bool | None = None,
) -> Picture:
    """Calculate and draw a figure.

    Parameters
    ----------
    name : str
        A key of `FIGURES`.
    delta : float, optional
        Noise variance of the labels, in [0, inf), for figures with a noisy version.
    beta : float, optional
        Aspect ratio, in [1, inf), for figures of one aspect ratio.
    priors : mapping of str to Prior, optional
        Others, by name, for "priors" and "learning-curves"; their aspect ratio is that of the
        figure.
    fast : bool
        Whether simulations are small: seconds instead of up to hours.
    path : path-like, optional
        The picture that is going to be saved.  Data that `save` left beside it is drawn again when
        it was made with the same parameters by the same code; simulations in progress are kept
        there too, so that an interrupted figure goes on.
    executor : concurrent.futures.Executor, "serial", "threads" or None
        Where simulations run, as in `bsr_theory.sweep`.
    progress : bool, optional
        Whether to show progress bars; by default on a terminal.

    Returns
    -------
    Picture
        The figure, with its data.

    Raises
    ------
    ValueError
        If there is no such figure, or a parameter is out of its range or not one of the figure.

    Examples
    --------
    >>> from bsr_theory import figures
    >>> figures.make("8").data.mmse.shape
    (4, 3)
    """
    if name not in FIGURES:
        raise ValueError(f"figure must be one of {', '.join(FIGURES)}, got {name!r}")
    recipe = FIGURES[name]
    given = {"delta": (delta, 0.0), "beta": (beta, 1.0)}
    chosen = {
        key: check_number(key, value, low=low)
        for key, (value, low) in given.items()
        if value is not None
    }
    for key, value in chosen.items():
        if key not in recipe.parameters:
            raise ValueError(f"{key} cannot be chosen for figure {name}, got {value:g}")
    told: dict[str, Any] = {**chosen, "fast": fast and recipe.simulated}
    others: dict[str, Any] = {}
    if priors is not None:
        if not recipe.any_prior:
            raise ValueError(f"priors cannot be chosen for figure {name}, got {', '.join(priors)}")
        if "beta" in chosen:
            raise ValueError(f"beta must be left out beside priors, got {chosen['beta']:g}")
        others["priors"] = dict(priors)
        told["priors"] = {key: _fingerprint(prior) for key, prior in priors.items()}
    label = {
        "figure": name,
        "parameters": json.dumps(told, sort_keys=True),
        "code": code_fingerprint(),
    }
    beside = None if path is None else check_path(path).with_suffix(".nc")
    if beside is not None and beside.exists():
        stored = _stored(beside, label)
        if stored is not None:
            return recipe.draw(stored)
    if not recipe.simulated:
        data = recipe.data(**chosen)
    else:
        folder = None if beside is None else _parts(beside.with_suffix(".parts"), label)
        data = recipe.data(
            **chosen, **others, fast=fast, executor=executor, progress=progress, folder=folder
        )
        if beside is not None and folder is not None:
            write_dataset(_labelled(data, label), beside)
            shutil.rmtree(folder, ignore_errors=True)
    return recipe.draw(_labelled(data, label))


def _fingerprint(prior: Prior) -> str:
    """Return what tells priors apart: their parameters, and the law of those that have one."""
    found = hashlib.sha256(repr(prior).encode())
    measure = getattr(prior, "measure", None)
    for array in () if measure is None else measure.rule():
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def _parts(folder: Path, label: dict[str, str]) -> Path:
    """Return the folder of unfinished runs, empty if it was that of another figure or code."""
    note = folder / "figure.json"
    if not (note.exists() and json.loads(note.read_text(encoding="utf-8")) == label):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        note.write_text(json.dumps(label), encoding="utf-8")
    return folder


def _labelled(data: xr.Dataset, label: dict[str, str]) -> xr.Dataset:
    return data.assign_attrs(label, provenance=json.dumps(origin()))


def _stored(path: Path, label: dict[str, str]) -> xr.Dataset | None:
    """Return the data of the same figure made before, None if this is another."""
    try:
        data = load(path)
    except (OSError, ValueError):
        return None
    same = all(data.attrs.get(key) == value for key, value in label.items())
    return data if same else None
