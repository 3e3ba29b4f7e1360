"""Pictures on disk, with what they show beside them."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import matplotlib as mpl
import xarray as xr
from matplotlib.figure import Figure

from ..results import Provenance, read_dataset, write_dataset

__all__ = ["check_path", "load", "save"]

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
    data: xr.Dataset | None = None,
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
    data : xarray.Dataset, optional
        What is drawn; by default what a `Picture` carries.
    dpi : float, optional
        Resolution of a raster image; 300 by default.

    Returns
    -------
    tuple of Path
        The files written: the picture, then the data (same name, suffix .nc) if there is any.

    Raises
    ------
    ValueError
        If the suffix is that of no format.
    OSError
        If a file cannot be written.

    Notes
    -----
    The data file is netCDF 4; `load` and ``xarray.open_dataset(path, engine="h5netcdf")`` read it.
    Its attribute ``provenance`` records versions and the git state of the code.
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
    if "provenance" not in data.attrs:
        data = data.assign_attrs(provenance=json.dumps(origin()))
    beside = target.with_suffix(".nc")
    write_dataset(data, beside)
    return target, beside


def origin() -> dict[str, Any]:
    """Return versions and platform in terms of JSON."""
    found = dataclasses.asdict(Provenance.collect())
    found["versions"]["matplotlib"] = mpl.__version__
    return found


def load(path: str | os.PathLike[str]) -> xr.Dataset:
    """Read the data that `save` wrote beside a picture.

    Parameters
    ----------
    path : path
        The .nc file.

    Returns
    -------
    xarray.Dataset
        What the picture shows, for its ``draw`` function.

    Raises
    ------
    ValueError
        If the file is not netCDF.
    """
    try:
        return read_dataset(path)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise ValueError(
            f"path must name the data of a figure (.nc), got {os.fspath(path)!r}"
        ) from error
