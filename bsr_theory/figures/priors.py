"""Any prior: what the singular values of the signal alone decide."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from .._arrays import Array, check
from ..channels import GaussianChannel
from ..limits import ridge_mse
from ..priors import GaussianFactorPrior, LowRankFactorPrior, Prior, SymmetricSignal
from ..problem import Problem
from ..rotational import RotationallyInvariantPrior, SymmetricPrior
from ..spectra.numerical import Measure
from ..state_evolution import solve
from .drawing import (
    ERROR,
    PER_ENTRY,
    PERFECT,
    POINT,
    RIDGE,
    Picture,
    new_picture,
    number,
    plot_error,
    style,
)
from .finite_size import Executors, laboratory, measured, rows_of

__all__ = ["any_prior", "any_prior_data", "draw_any_prior", "example_priors"]

_NODES = 400  # points of a density on each interval
_NARROW = 1e-9  # distance from an end at which a density is first evaluated, relative
_MARKERS = "so^Dv<>"
_END = {"clean": 1.05, "noisy": 1.5}  # largest alpha without and with noise in the labels


def example_priors(beta: float = 1.0) -> dict[str, Prior]:
    """Return four priors of one second moment and very different singular values.

    Parameters
    ----------
    beta : float
        Aspect ratio, in [1, inf).

    Returns
    -------
    dict of str to Prior
        Gaussian factors of width 1/4, Gaussian entries, two atoms (four of five singular values at
        0.5, the others at 2), and a density that falls as ``1/sigma^2`` from 0.29 to 3.46.

    Examples
    --------
    >>> from bsr_theory import figures
    >>> priors = figures.example_priors(beta=2.0)
    >>> [round(prior.second_moment, 12) for prior in priors.values()]
    [1.0, 1.0, 1.0, 1.0]
    """
    low, high = 0.25, 3.0
    return {
        r"Gaussian factors, $\rho=1/4$": GaussianFactorPrior(beta, 0.25),
        "Gaussian entries": GaussianFactorPrior(beta, np.inf),
        "two values": RotationallyInvariantPrior(Measure.from_atoms([0.5, 2.0], [0.8, 0.2]), beta),
        "power law": RotationallyInvariantPrior.from_density(
            lambda x: x**-2.0 / (1.0 / low - 1.0 / high), [(low, high)], beta, normalize=True
        ),
    }


# --------------------------------------------------------------------------------------------
# Data
# --------------------------------------------------------------------------------------------


def checked_priors(priors: Mapping[str, Prior]) -> dict[str, Prior]:
    """Return the priors if they fit in one picture: of one alpha, one beta, second moment 1."""
    for name, prior in priors.items():
        if prior.shape or isinstance(prior, LowRankFactorPrior):
            raise ValueError(f"priors must be of one S, of extensive rank, got {name!r}")
        if abs(prior.second_moment - 1.0) > 1e-9:
            raise ValueError(
                f"priors must have second moment 1 (normalize=True), got {prior.second_moment:g} "
                f"for {name!r}"
            )
    betas = {float(prior.beta) for prior in priors.values()}
    if len(betas) != 1 or np.inf in betas:
        raise ValueError(f"priors must share one finite beta, got {sorted(betas)}")
    symmetric = [name for name, prior in priors.items() if isinstance(prior, SymmetricSignal)]
    if symmetric and len(symmetric) < len(priors):
        raise ValueError(f"priors must all be of a symmetric S or none, got {symmetric}")
    return dict(priors)


def _intervals(ends: Array) -> Array:
    """Return points on each interval, dense at its ends, with NaN between intervals."""
    angle = np.linspace(0.0, np.pi, _NODES)
    place = np.clip(0.5 - 0.5 * np.cos(angle), _NARROW, 1.0 - _NARROW)
    rows = [low + (high - low) * place for low, high in ends]
    return np.concatenate([part for row in rows for part in (row, [np.nan])] or [np.zeros(0)])


def _spectrum(prior: Prior, s: float) -> dict[str, Array]:
    """Return the law of S, that of ``S + sqrt(s) Z`` and the denoiser on it."""
    if isinstance(prior, RotationallyInvariantPrior | SymmetricPrior):
        law: Any = prior.measure
        ends, atoms = law.intervals, law.atoms
    else:
        law = prior.law(0.0)
        ends, atoms = law.edges, law.atoms
    noisy = prior.law(s)
    value, y = _intervals(ends), _intervals(noisy.edges)
    denoised = np.full(y.shape, np.nan)
    there = np.isfinite(y)
    denoised[there] = prior.shrink(y[there], s)
    return {
        "value": value,
        "density": np.asarray(law.density(value)),
        "atom_value": atoms[:, 0],
        "atom_mass": atoms[:, 1],
        "noisy_value": y,
        "noisy_density": np.asarray(noisy.density(y)),
        "denoised": denoised,
    }


_DIMENSIONS = {
    "value": "node",
    "density": "node",
    "atom_value": "atom",
    "atom_mass": "atom",
    "noisy_value": "noisy_node",
    "noisy_density": "noisy_node",
    "denoised": "noisy_node",
}
_LONG_NAMES = {
    "value": "{word} of S/sqrt({size})",
    "density": "density of the {word}s of S/sqrt({size})",
    "atom_value": "{word} that a share of all takes",
    "atom_mass": "that share",
    "noisy_value": "{word} of (S + sqrt(s) Z)/sqrt({size})",
    "noisy_density": "density of the {word}s of (S + sqrt(s) Z)/sqrt({size})",
    "denoised": "what the Bayes estimate of S makes of it",
    "clean": "Bayes-optimal error per entry without noise in the labels",
    "noisy": "Bayes-optimal error per entry with noise in the labels",
    "ridge_clean": "error per entry of the best ridge regression, the same for every prior",
    "ridge_noisy": "error per entry of the best ridge regression, the same for every prior",
    "strong": "alpha from which on the error is 0 without noise",
    "unknown": "error per entry without samples",
}


def _stacked(rows: list[Array]) -> Array:
    """Return arrays of several lengths as rows, NaN behind the short ones."""
    out = np.full((len(rows), max(row.size for row in rows)), np.nan)
    for k, row in enumerate(rows):
        out[k, : row.size] = row
    return out


def any_prior_data(
    delta: float = 0.1,
    beta: float = 1.0,
    *,
    priors: Mapping[str, Prior] | None = None,
    s: float = 0.25,
    fast: bool = False,
    executor: Executors = None,
    progress: bool | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> xr.Dataset:
    """Calculate spectra, denoisers, Bayes-optimal errors and runs of GAMP-RIE for several priors.

    Parameters
    ----------
    delta : float
        Noise variance of the labels in the noisy half, in (0, inf).
    beta : float
        Aspect ratio of `example_priors`, in [1, inf).
    priors : mapping of str to Prior, optional
        Others, by the names that the legend gives them.  They need second moment 1 and one beta,
        which takes the place of ``beta``; all of them or none are of a symmetric S.
    s : float
        Noise variance per entry of the matrix that the denoiser sees, in (0, inf); symmetric
        noise for a symmetric S.
    fast : bool
        d1 near 20 instead of 50 (at beta = 1; the size of S is kept), and fewer instances.
    executor, progress
        As in `bsr_theory.simulations.compare`.
    folder : path-like, optional
        Where unfinished runs are kept.

    Returns
    -------
    xarray.Dataset
        Over ``prior``: the law ``density`` at ``value`` and the atoms, ``noisy_density`` and
        ``denoised`` at ``noisy_value``, errors ``clean`` and ``noisy`` over ``clean_alpha`` and
        ``noisy_alpha``, ``strong``, ``unknown``, and runs ``clean_runs_mse`` and
        ``noisy_runs_mse``.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or the priors do not fit together.

    Examples
    --------
    A trained layer against Gaussian factors, by theory and runs:

    >>> import numpy as np, bsr_theory as bsr
    >>> weights = np.random.default_rng(0).standard_normal((20, 40))
    >>> mine = bsr.RotationallyInvariantPrior.from_matrix(weights, normalize=True)
    >>> priors = {"mine": mine, "factors": bsr.GaussianFactorPrior(2.0, 0.5)}
    >>> picture = bsr.figures.any_prior(priors=priors, fast=True)  # doctest: +SKIP
    """
    noise = check("delta", delta, low=0.0, open_low=True, allow_inf=False)
    spread = check("s", s, low=0.0, open_low=True, allow_inf=False)
    for name, value in (("delta", noise), ("s", spread)):
        if np.ndim(value):
            raise ValueError(f"{name} must be a scalar here, got shape {np.shape(value)}")
    every = checked_priors(example_priors(beta) if priors is None else priors)
    names, beta = list(every), float(next(iter(every.values())).beta)
    lab = laboratory(noise, beta, fast, executor, progress, folder)
    spectra = [_spectrum(prior, float(spread)) for prior in every.values()]
    data = xr.Dataset(
        {
            key: (("prior", of), _stacked([row[key] for row in spectra]))
            for key, of in _DIMENSIONS.items()
        },
        {"prior": names, "beta": beta, "delta": float(noise), "s": float(spread)},
    )
    data["strong"] = (
        "prior",
        [float(prior.strong_recovery / prior.snr_per_alpha) for prior in every.values()],
    )
    data["unknown"] = ("prior", [1.0 - float(prior.prior_overlap) for prior in every.values()])
    symmetric = all(isinstance(prior, SymmetricSignal) for prior in every.values())
    words = {"word": "eigenvalue" if symmetric else "singular value"}
    words["size"] = "d" if symmetric else "d2"
    data.attrs["spectrum"] = words["word"]
    for half, variance in (("clean", 0.0), ("noisy", float(noise))):
        channel = GaussianChannel(variance)
        alpha = np.linspace(0.0, _END[half], 106)[1:]
        errors = [
            solve(Problem(prior, channel, alpha), on_failure="raise").mmse
            for prior in every.values()
        ]
        data[f"{half}_alpha"] = alpha
        data[half] = (("prior", f"{half}_alpha"), np.array(errors))
        data[f"ridge_{half}"] = (f"{half}_alpha", ridge_mse(alpha, variance))
        few = np.linspace(0.0, _END[half], 7 if fast else 10)[1:-1]
        runs = [
            lab.compare(
                *(f"{half}_runs", "amp", Problem(prior, channel, few)),
                file=f"{half}_{k}",
                d1=lab.size(20 if fast else 50),
                samples=3 if fast else 6,
                steps=100,
            )
            for k, prior in enumerate(every.values())
        ]
        together = xr.concat(
            [run.drop_vars("rho", errors="ignore") for run in runs], dim=data.prior
        )
        size = together[f"{half}_runs_d1"].values[0]
        data = data.merge(together.assign({f"{half}_runs_d1": size}), compat="no_conflicts")
    for key, meaning in _LONG_NAMES.items():
        data[key].attrs["long_name"] = meaning.format(**words)
    return data


# --------------------------------------------------------------------------------------------
# Picture
# --------------------------------------------------------------------------------------------


def draw_any_prior(data: xr.Dataset) -> Picture:
    """Draw spectra, denoisers and errors of several priors.

    Parameters
    ----------
    data : xarray.Dataset
        What to draw.

    Returns
    -------
    Picture
        Above, the laws of singular values (eigenvalues of a symmetric S) and the denoisers; below,
        the errors without and with noise in the labels.
    """
    with style():
        picture = new_picture(data, height=5.7)
        (laws, denoisers), (clean, noisy) = picture.subplots(2, 2)
        rows = rows_of(data, "prior")
        colours = [f"C{k % 7}" for k in range(len(rows))]
        spectrum = data.attrs["spectrum"]
        root = r"\sqrt{d}" if spectrum == "eigenvalue" else r"\sqrt{d_2}"
        _draw_laws(laws, rows, colours, spectrum, root)
        _draw_denoisers(denoisers, rows, colours, spectrum, root)
        for letter, axes, half in (("c", clean, "clean"), ("d", noisy, "noisy")):
            x, ridge = data[f"{half}_alpha"].values, data[f"ridge_{half}"].values
            exact = half == "clean"
            for k, (row, colour) in enumerate(zip(rows, colours, strict=True)):
                end = float(row.strong) if exact else np.inf
                plot_error(axes, x, row[half].values, end, float(row.unknown), color=colour)
                measured(axes, row, f"{half}_runs", colour, marker=_MARKERS[k % 7])
                if exact:
                    axes.plot([end], [0.0], mec=colour, **PERFECT)
            plot_error(axes, x, ridge, 1.0 if exact else np.inf, **RIDGE, zorder=3)
            axes.set(xlabel=PER_ENTRY, ylabel=ERROR, xlim=(0.0, x[-1]), ylim=(0.0, 1.04))
            variance = "0" if exact else number(float(data.delta))
            _panel(axes, letter, rf"$\Delta={variance}$,  $\beta={number(float(data.beta))}$")
        handles = [
            Line2D([], [], label=name, **{**POINT, "marker": _MARKERS[k % 7]}, color=colour)
            for k, (name, colour) in enumerate(zip(data.prior.values, colours, strict=True))
        ]
        for handle in handles:
            handle.set_linestyle("-")
        handles += [
            Line2D([], [], label="ridge regression", **RIDGE),
            Line2D([], [], mec="black", label="perfect recovery", **PERFECT),
            Line2D(
                [], [], label=f"GAMP-RIE, $d_1={int(data.clean_runs_d1)}$", color="0.3", **POINT
            ),
        ]
        picture.legend(handles=handles, loc="outside upper center", ncols=4)
    return picture


def _panel(axes: Axes, letter: str, text: str) -> None:
    axes.set_title(f"({letter})", loc="left")
    axes.set_title(text, loc="right")


def _range(rows: list[xr.Dataset]) -> tuple[float, float]:
    """Return where the noisy spectra are, 0 included, with a margin."""
    low = min(0.0, *(float(row.noisy_value.min()) for row in rows))
    high = max(float(row.noisy_value.max()) for row in rows)
    return (1.03 * low if low < 0.0 else 0.0), 1.03 * high


def _draw_laws(
    axes: Axes, rows: list[xr.Dataset], colours: list[str], spectrum: str, root: str
) -> None:
    """Draw a strip for each law: filled without noise, a line with noise."""
    left, right = _range(rows)
    for k, (row, colour) in enumerate(zip(rows, colours, strict=True)):
        floor = float(len(rows) - 1 - k)
        peak = max(float(x.max()) for x in (row.density, row.noisy_density) if x.notnull().any())
        scale = 0.82 / peak
        axes.axhline(floor, color="0.6", lw=0.5, zorder=0)
        value, density = row.value.values, row.density.values
        axes.fill_between(value, floor, floor + scale * density, color=colour, alpha=0.25, lw=0)
        there = row.atom_mass.values > 0.0
        place, mass = row.atom_value.values[there], row.atom_mass.values[there]
        # many small atoms, as a matrix of weights has, are a rug
        tallest = mass.max(initial=0.1)
        height = np.maximum(0.82 * mass / tallest, 0.12)
        width = 3.0 if mass.size < 10 else 0.5
        axes.vlines(place, floor, floor + height, color=colour, alpha=0.55, lw=width)
        axes.plot(row.noisy_value, floor + scale * row.noisy_density, color=colour)
        end = right - 0.03 * (right - left)
        axes.text(end, floor + 0.62, str(row.prior.values), ha="right", color=colour)
    axes.set(
        xlabel=rf"{spectrum} of $S/{root}$ (filled), $(S+\sqrt{{s}}\,Z)/{root}$ (line)",
        ylabel="density",
        xlim=(left - 0.04 * (right - left), right),
        ylim=(0.0, len(rows)),
        yticks=[],
    )
    _panel(axes, "a", rf"$s={number(float(rows[0].s))}$")


def _draw_denoisers(
    axes: Axes, rows: list[xr.Dataset], colours: list[str], spectrum: str, root: str
) -> None:
    """Draw what the estimate makes of each noisy value of each law."""
    ends = _range(rows)
    axes.plot(ends, ends, color="0.6", lw=0.7, zorder=0)
    for row, colour in zip(rows, colours, strict=True):
        axes.plot(row.noisy_value, row.denoised, color=colour)
    axes.set(
        xlabel=rf"{spectrum} of $(S+\sqrt{{s}}\,Z)/{root}$",
        ylabel=f"denoised {spectrum}",
        xlim=ends,
        ylim=ends,
    )
    _panel(axes, "b", rf"$s={number(float(rows[0].s))}$")


def any_prior(
    delta: float = 0.1,
    beta: float = 1.0,
    *,
    priors: Mapping[str, Prior] | None = None,
    s: float = 0.25,
    fast: bool = False,
) -> Picture:
    """Draw what the singular values of S decide: denoisers, and errors against samples.

    Parameters
    ----------
    delta : float
        Noise variance of the labels in the noisy half, in (0, inf).
    beta : float
        Aspect ratio of `example_priors`, in [1, inf).
    priors : mapping of str to Prior, optional
        Others, by name, of second moment 1 and one beta.
    s : float
        Noise variance per entry of the matrix that the denoiser sees, in (0, inf).
    fast : bool
        Whether instances are small.

    Returns
    -------
    Picture
        Four panels.  Ridge regression knows the second moment alone, so that its error is the same
        for all; it is the Bayes-optimal one for Gaussian entries.
    """
    return draw_any_prior(any_prior_data(delta, beta, priors=priors, s=s, fast=fast))
