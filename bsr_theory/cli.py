"""The command line ``bsr``: solve, list and draw from the shell.

Numbers go to standard output, everything said about them to standard error, so that output can be
piped.  Exit codes: 0, 1 when a point was not solved (it is printed all the same), 2 on bad input,
130 on Ctrl-C.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import inspect
import json
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, cast

import click
import numpy as np
from tqdm import tqdm

import bsr_theory as bsr  # each name is imported when it is first used: --help stays quick

from ._arrays import Array, threads

__all__ = ["main"]

_F = TypeVar("_F", bound=Callable[..., Any])

_LONG = 100_000  # points from which on a curve is solved in parts, with a progress bar
_PART = 20_000  # points in a part: about half a second
_MOST = 10_000_000  # points that a curve may have


# --------------------------------------------------------------------------------------------
# Errors
# --------------------------------------------------------------------------------------------


class _BadInput(click.ClickException):
    """One line on standard error and exit code 2."""

    exit_code = 2


@contextlib.contextmanager
def _bad_input() -> Iterator[None]:
    """Say what the library says of a bad parameter, without a traceback."""
    try:
        yield
    except ValueError as error:
        raise _BadInput(str(error)) from error


@contextlib.contextmanager
def _writing(path: str | Path) -> Iterator[None]:
    """Say which file cannot be written."""
    try:
        yield
    except OSError as error:
        raise _BadInput(f"cannot write {path}: {error.strerror or error}") from error


class _Commands(click.Group):
    """A group whose commands end in one clear line when something is wrong."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else ctx.command_path
            message = " ".join(error.format_message().split())
            raise _BadInput(f"{message} See '{command} --help'.") from error
        except bsr.ConvergenceError as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            click.echo("\nInterrupted.", err=True)
            ctx.exit(130)


# --------------------------------------------------------------------------------------------
# Options
# --------------------------------------------------------------------------------------------


class _Range(NamedTuple):
    """Values of alpha, and whether they are spaced evenly in the logarithm."""

    values: Array
    log: bool


def _read_range(name: str, text: str, *, low: float = 0.0) -> _Range:
    """Return the finite numbers > ``low`` that ``text`` stands for."""
    parts = text.split(":")
    log, spaced = parts[3:] == ["log"], len(parts) > 1
    try:
        if len(parts) not in (1, 3) and not log:
            raise ValueError
        values = [float(x) for x in (parts[:2] if spaced else text.split(","))]
        count = int(parts[2]) if spaced else len(values)
    except ValueError as error:
        raise ValueError(
            f"{name} must be START:STOP:COUNT, START:STOP:COUNT:log or a list such as "
            f"0.1,0.2,0.5, got {text!r}"
        ) from error
    if not 1 <= count <= _MOST:
        raise ValueError(f"COUNT in {name} must be in [1, {_MOST}], got {count}")
    for value in values:
        if not max(low, 0.0 if log else low) < value < math.inf:
            wanted = "> 0 and finite" if log or low == 0.0 else "finite"
            raise ValueError(f"{name} must be {wanted}, got {value!r} in {text!r}")
    if spaced:
        start, stop = values
        return _Range((np.geomspace if log else np.linspace)(start, stop, count), log)
    return _Range(np.array(values), log)


def _range(ctx: click.Context, param: click.Parameter, value: str) -> _Range:
    with _bad_input():
        return _read_range(str(param.name), value)


def _tolerance(ctx: click.Context, param: click.Parameter, value: float) -> float:
    if not value > 0.0:
        raise _BadInput(f"tolerance must be > 0, got {value!r}")
    return value


_alpha = click.option(
    "--alpha", type=float, required=True, help="Samples per entry, n/(d1 d2) > 0."
)


def _model(command: _F) -> _F:
    """Add the options of bilinear sequence regression other than alpha."""
    options = (
        click.option("--beta", type=float, required=True, help="Aspect ratio d2/d1 >= 1, or inf."),
        click.option("--rho", type=float, required=True, help="Width ratio r/d1 > 0, or inf."),
        click.option(
            "--delta",
            type=float,
            default=0.0,
            show_default=True,
            help="Noise variance of the labels >= 0.",
        ),
        click.option(
            "--tolerance",
            type=float,
            default=1e-11,
            show_default=True,
            callback=_tolerance,
            help="Largest residual of a solution.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _folder(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Make the folder of a file before the work that fills it."""
    if value is not None and value != "-":
        with _writing(value):
            Path(value).parent.mkdir(parents=True, exist_ok=True)
    return value


_output = click.option(
    "--output",
    type=click.Path(dir_okay=False, writable=True, allow_dash=True),
    default="-",
    metavar="FILE",
    callback=_folder,
    help="File to write instead of the screen.",
)


def _formats(*names: str) -> Callable[[_F], _F]:
    default = f"that of --output, or {names[0]}" if "csv" in names else names[0]
    return click.option(
        "--format",
        "style",
        type=click.Choice(names),
        help=f"How to write numbers; by default {default}.",
    )


def _examples(*lines: str) -> str:
    """Return an epilog that click leaves as it is."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


# --------------------------------------------------------------------------------------------
# Output
# --------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """Return ``value`` in terms of JSON, which has no infinity: "inf" stands for it."""
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _as_json(parts: Mapping[str, Any]) -> str:
    """Return a JSON object with one line a part, and where it came from."""
    parts = {**parts, "provenance": dataclasses.asdict(bsr.Provenance.collect())}
    lines = (f"{json.dumps(key)}: {json.dumps(_plain(part))}" for key, part in parts.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _cell(value: Any) -> str:
    """Return a number so that it reads back as the same number."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _lines(columns: Mapping[str, Array], style: str) -> Iterator[str]:
    """Yield the lines of a CSV file or of an aligned table, with a header."""
    rows: Iterable[Any] = zip(*(column.tolist() for column in columns.values()), strict=True)
    if style == "csv":
        yield ",".join(columns) + "\n"
        for row in rows:
            yield ",".join(map(_cell, row)) + "\n"
        return
    numeric = [column.dtype.kind == "f" for column in columns.values()]
    header = ("{:>13}" if number else "{:<10}" for number in numeric)
    yield "  ".join(header).format(*columns).rstrip() + "\n"
    line = "  ".join("{:>13.8g}" if number else "{:<10}" for number in numeric)
    for row in rows:
        yield line.format(*(x if isinstance(x, float) else _cell(x) for x in row)).rstrip() + "\n"


def _write(
    columns: Mapping[str, Array], parameters: Mapping[str, Any], style: str | None, output: str
) -> None:
    """Write columns to a file or "-", standard output."""
    if style is None:
        suffix = Path(output).suffix.lower()
        style = {".csv": "csv", ".json": "json"}.get(suffix, "table")
    if style == "json":
        text: Iterable[str] = [_as_json({"parameters": parameters, "columns": dict(columns)})]
    else:
        text = _lines(columns, style)
    if output == "-":
        sys.stdout.writelines(text)
        return
    with _writing(output), click.open_file(output, "w", encoding="utf-8", atomic=True) as file:
        file.writelines(text)
    click.echo(f"wrote {output}", err=True)


def _alpha_low_rank(alpha: Any, beta: float, rho: float) -> Any:
    """Return alpha_LR, which is 0 when there are infinitely many unknowns per entry."""
    return 0.0 * alpha if rho == math.inf else bsr.limits.alpha_low_rank(alpha, beta, rho)


def _status_names(status: Any) -> Array:
    """Return the names of statuses, in lower case."""
    names = {value: bsr.Status(value).name.lower() for value in np.unique(status).tolist()}
    return np.array([names[value] for value in np.asarray(status).tolist()], dtype=object)


def _finish(ctx: click.Context, status: Any, *, said: bool = False) -> None:
    """End with exit code 1, and say why unless that was said, when a point was not solved."""
    values, counts = np.unique(status, return_counts=True)
    failures = [
        f"{count} of {np.size(status)} points {value.name.lower()}: {value.advice}"
        for value, count in zip(map(bsr.Status, values), counts, strict=True)
        if not value.ok
    ]
    if failures:
        if not said:
            click.echo("\n".join(failures), err=True)
        ctx.exit(1)


# --------------------------------------------------------------------------------------------
# Commands
# --------------------------------------------------------------------------------------------


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_examples(
        "bsr solve --alpha 0.4 --beta 2 --rho 0.5 --delta 0.1",
        "bsr curve --alpha 0.05:0.6:12 --beta 2 --rho 0.5",
        "bsr figure 1",
    ),
)
@click.version_option(package_name="bsr_theory", prog_name="bsr")
def main() -> None:
    """Exact theory of bilinear sequence regression (arXiv:2410.18858).

    A label y = <X, S>/sqrt(d1 d2) + noise depends on a sequence X of shape d1 x d2 through S, a
    product of two Gaussian matrices of width r. Parameters: alpha = n/(d1 d2) samples per entry,
    beta = d2/d1, rho = r/d1, and delta, the noise variance.
    """


@main.command(
    epilog=_examples(
        "bsr solve --alpha 0.4 --beta 2 --rho 0.5 --delta 0.1",
        "bsr solve --alpha 0.7 --beta inf --rho 0.5",
        "bsr solve --alpha 0.4 --beta 2 --rho 0.5 --format json",
    )
)
@_alpha
@_model
@_formats("text", "json")
@click.pass_context
def solve(
    ctx: click.Context,
    alpha: float,
    beta: float,
    rho: float,
    delta: float,
    tolerance: float,
    style: str | None,
) -> None:
    """Solve one problem.

    Prints the Bayes-optimal error and what goes with it.
    """
    parameters = {"alpha": alpha, "beta": beta, "rho": rho, "delta": delta}
    with _bad_input():
        problem = bsr.bilinear_regression(**parameters)
        _prepare()
    point = bsr.solve(problem, tolerance=tolerance, on_failure="return")
    status = bsr.Status(point.status)
    values = {
        "mmse": point.mmse,
        "q": point.q,
        "qhat": point.qhat,
        "information": point.information,
        "ridge": bsr.limits.ridge_mse(alpha, delta),
        "alpha_LR": _alpha_low_rank(alpha, beta, rho),
        "strong_recovery": bsr.limits.strong_recovery(beta, rho),
        "residual": point.residual,
        "iterations": point.iterations,
        "status": status.name.lower(),
    }
    if style == "json":
        click.echo(_as_json({"parameters": parameters, "solution": values}), nl=False)
    else:
        click.echo(", ".join(f"{key} = {value:g}" for key, value in parameters.items()) + "\n")
        for key, meaning in _MEANINGS.items():
            click.echo(f"{key:<16} {values[key]:<16.10g} {meaning}")
        click.echo(f"{'status':<16} {values['status']:<16} {status.advice}")
    _finish(ctx, status, said=style != "json")


_MEANINGS = {
    "mmse": "error per entry of the Bayes-optimal estimator, 1 - q",
    "q": "overlap of that estimator with the signal",
    "qhat": "signal-to-noise ratio of the effective denoising problem",
    "information": "mutual information in nats per entry (delta = 0: up to a constant)",
    "ridge": "error per entry of ridge regression with the best penalty",
    "alpha_LR": "samples per unknown, n/(r (d1 + d2))",
    "strong_recovery": "alpha from which on the error is 0 when delta = 0",
    "residual": "how well the equations hold, |alpha(s)/alpha - 1|",
    "iterations": "evaluations of the prior's mmse",
}


@main.command(
    "fixed-points",
    epilog=_examples(
        "bsr fixed-points --alpha 0.3 --beta 2 --rho 0.5",
        "bsr fixed-points --alpha 0.4 --beta 2 --rho 0.5 --delta 0.1 --format csv",
    ),
)
@_alpha
@_model
@_formats("table", "csv", "json")
@_output
@click.pass_context
def fixed_points(
    ctx: click.Context,
    alpha: float,
    beta: float,
    rho: float,
    delta: float,
    tolerance: float,
    style: str | None,
    output: str,
) -> None:
    """List every fixed point of state evolution.

    A fixed point is stable when |slope| < 1, slope being the derivative of q -> q' there.
    """
    parameters = {"alpha": alpha, "beta": beta, "rho": rho, "delta": delta}
    with _bad_input():
        problem = bsr.bilinear_regression(**parameters)
        _prepare()
    every = bsr.fixed_points(problem, tolerance=tolerance)
    present = every.status != bsr.Status.ABSENT
    names = ("mmse", "q", "qhat", "slope", "residual", "stable")
    columns = {name: getattr(every, name)[present] for name in names}
    columns["status"] = _status_names(every.status[present])
    _write(columns, parameters, style, output)
    _finish(ctx, every.status[present])


@main.command(
    epilog=_examples(
        "bsr curve --alpha 0.05:0.6:12 --beta 2 --rho 0.5",
        "bsr curve --alpha 0.01:10:50:log --beta 2 --rho 0.5 --delta 0.1 --output curve.csv",
        "bsr curve --alpha 0.2,0.4,0.6 --beta inf --rho 0.5 --format json",
        "bsr curve --alpha 0.005:1:200 --beta 1 --rho 0.2 --output curve.json --plot curve.png",
    )
)
@click.option(
    "--alpha",
    callback=_range,
    metavar="RANGE",
    required=True,
    help="Samples per entry: START:STOP:COUNT (ends included), START:STOP:COUNT:log, or a list "
    "separated by commas.",
)
@_model
@_formats("table", "csv", "json")
@_output
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, writable=True),
    metavar="FILE",
    callback=_folder,
    help="Picture to draw (.png, .pdf, .svg).",
)
@click.pass_context
def curve(
    ctx: click.Context,
    alpha: _Range,
    beta: float,
    rho: float,
    delta: float,
    tolerance: float,
    style: str | None,
    output: str,
    plot: str | None,
) -> None:
    """Follow the Bayes-optimal error along alpha.

    Columns: alpha, alpha_LR = n/(r (d1 + d2)), mmse, overlap q and its conjugate qhat, the error
    of ridge regression with the best penalty, and the status of the point. A CSV file has the
    parameters as columns too; JSON names them once and adds versions.
    """
    parameters = {"beta": beta, "rho": rho, "delta": delta}
    with _bad_input():
        bsr.bilinear_regression(alpha=1.0, **parameters)
        if plot is not None:
            bsr.figures.check_path(plot)
        _prepare()
    columns, status = _follow(alpha.values, parameters, tolerance)
    shown = columns
    if style == "csv" or (style is None and Path(output).suffix.lower() == ".csv"):
        constant = {key: np.full(status.size, value) for key, value in parameters.items()}
        shown = {**constant, **columns}
    _write(shown, parameters, style, output)
    if plot is not None:
        title = ",  ".join(
            rf"$\{key}={value:g}$".replace("inf", r"\infty") for key, value in parameters.items()
        )
        picture = bsr.figures.draw_curve(
            columns["alpha"], columns["mmse"], columns["ridge"], title=title, log=alpha.log
        )
        with _writing(plot):
            bsr.figures.save(picture, plot)
        click.echo(f"wrote {plot}", err=True)
    _finish(ctx, status)


def _follow(
    alpha: Array, parameters: Mapping[str, float], tolerance: float
) -> tuple[dict[str, Array], Array]:
    """Return the columns of a curve and the statuses, solved in parts when it is long."""
    size = alpha.size
    part = size if size < _LONG else _PART
    fields = ("mmse", "q", "qhat", "status")
    parts: dict[str, list[Array]] = {name: [] for name in fields}
    off = None if size >= _LONG else True  # None: shown on a terminal only
    with tqdm(total=size, unit="point", unit_scale=True, disable=off, file=sys.stderr) as bar:
        for start in range(0, size, part):
            some = alpha[start : start + part]
            problem = bsr.bilinear_regression(alpha=some, **parameters)
            point = bsr.solve(problem, tolerance=tolerance, on_failure="return")
            for name in fields:
                parts[name].append(getattr(point, name))
            bar.update(some.size)
    whole = {name: np.concatenate(pieces) for name, pieces in parts.items()}
    columns = {
        "alpha": alpha,
        "alpha_LR": _alpha_low_rank(alpha, parameters["beta"], parameters["rho"]),
        "mmse": whole["mmse"],
        "q": whole["q"],
        "qhat": whole["qhat"],
        "ridge": bsr.limits.ridge_mse(alpha, parameters["delta"]),
        "status": _status_names(whole["status"]),
    }
    return columns, whole["status"]


@main.command(
    epilog=_examples(
        "bsr figure",
        "bsr figure 1",
        "bsr figure 3 --fast",
        "bsr figure 5 --beta 2 --delta 0.1 --output figure_5_noisy.pdf",
        "bsr figure all --fast --output pictures/ --dpi 150",
    )
)
@click.argument("names", nargs=-1, metavar="[NUMBER]...")
@click.option(
    "--delta",
    type=float,
    help="Noise variance of the labels >= 0, for the figures that have a noisy version; by "
    "default 0.",
)
@click.option(
    "--beta",
    type=float,
    help="Aspect ratio d2/d1 >= 1, for the figures of one aspect ratio; by default 1.",
)
@click.option(
    "--fast", is_flag=True, help="Small simulations: under a minute a figure instead of hours."
)
@click.option(
    "--output",
    default=".",
    metavar="PATH",
    help="A folder, or a file whose suffix says the format (.png, .pdf, .svg). Default: here.",
)
@click.option("--dpi", type=click.IntRange(20, 1200), help="Resolution of a .png; 300 by default.")
def figure(
    names: tuple[str, ...],
    delta: float | None,
    beta: float | None,
    fast: bool,
    output: str,
    dpi: int | None,
) -> None:
    """Draw figures of the article.

    The figures of arXiv:2410.18858 from their parameters alone. Give their numbers, or "all";
    without one, the figures that there are get listed. The data goes beside the picture, in a .nc
    file (netCDF) of the same name: it is drawn again when it fits, and simulations that were
    interrupted go on.
    """
    known = bsr.figures.FIGURES
    if not names:
        for name, recipe in known.items():
            options = "".join(f" --{option}" for option in recipe.parameters)
            options += " --fast" if recipe.simulated else ""
            click.echo(f"{name:>3}  {recipe.title}" + (f" ({options.strip()})" if options else ""))
        return
    chosen = tuple(known) if "all" in names else tuple(dict.fromkeys(names))
    place = Path(output)
    is_file = bool(place.suffix) and not output.endswith("/") and not place.is_dir()
    if is_file and len(chosen) > 1:
        raise _BadInput(f"output must be a folder for {len(chosen)} figures, got {output!r}")
    with _bad_input():
        if is_file:
            bsr.figures.check_path(place)
        _prepare()
    for name in chosen:
        given: dict[str, Any] = {"delta": delta, "beta": beta}
        if "all" in names:  # a figure that lacks a parameter is drawn as it is
            given = {key: value for key, value in given.items() if key in known[name].parameters}
        parts = [f"{key}_{value:g}" for key, value in given.items() if value is not None]
        small = ["fast"] if fast and name in known and known[name].simulated else []
        path = place if is_file else place / f"{'_'.join(['figure', name, *parts, *small])}.png"
        with _bad_input(), _writing(path):
            picture = bsr.figures.make(name, fast=fast, path=path, **given)
            for written in bsr.figures.save(picture, path, dpi=dpi):
                click.echo(str(written))


# --------------------------------------------------------------------------------------------
# Sweeps
# --------------------------------------------------------------------------------------------


def _solve_point(alpha: float, beta: float, rho: float, delta: float = 0.0) -> dict[str, Any]:
    """Return the Bayes-optimal point: the quantity "solve" of ``bsr sweep``."""
    problem = bsr.bilinear_regression(alpha, beta, rho, delta)
    point = bsr.solve(problem, on_failure="return")
    values = {name: getattr(point, name) for name in ("mmse", "q", "qhat", "information")}
    return {**values, "status": bsr.Status(point.status).name.lower()}


_QUANTITIES: dict[str, Callable[..., Any]] = {"solve": _solve_point}


def _find(quantity: str) -> Callable[..., Any]:
    """Return the function that a quantity, ``module:function`` or ``file.py:function``, names."""
    if quantity in _QUANTITIES:
        return _QUANTITIES[quantity]
    place, _, name = quantity.rpartition(":")
    if not place:
        known = ", ".join(_QUANTITIES)
        raise ValueError(
            f"quantity must be one of {known}, or MODULE:FUNCTION or FILE.py:FUNCTION, "
            f"got {quantity!r}"
        )
    module, folder = place, Path.cwd()
    if place.endswith(".py"):
        if not Path(place).is_file():
            raise ValueError(f"there is no file {place}")
        module, folder = Path(place).stem, Path(place).resolve().parent
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))  # the processes that compute look there, too
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"cannot import {module}: {error}") from error
    origin = Path(getattr(found, "__file__", None) or "built-in")
    if place.endswith(".py") and origin.resolve() != Path(place).resolve():
        raise ValueError(f"{place} has the name of another module, {origin}: rename it")
    function = getattr(found, name, None)
    if not callable(function):
        raise ValueError(f"there is no function {name} in {place}")
    return cast("Callable[..., Any]", function)


def _word(text: str) -> Any:
    """Return a number, True or False if that is what is written, else the text."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return {"true": True, "false": False}.get(text.lower(), text)


def _named(option: str, texts: Iterable[str], form: str) -> dict[str, str]:
    """Return the parts of options such as ``--axis alpha=0.1,0.2`` by name."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.isidentifier() and equals and value):
            raise ValueError(f"{option} must be {form}, got {text!r}")
        if name in found:
            raise ValueError(f"{option} must name {name} once, got it twice")
        found[name] = value
    return found


def _values(name: str, text: str) -> list[Any]:
    """Return the values of an axis: a range of numbers, or a list of anything."""
    if ":" not in text:
        words = [_word(word.strip()) for word in text.split(",")]
        if all(isinstance(word, str) for word in words):
            return words
        if any(isinstance(word, str | bool) for word in words) != all(
            isinstance(word, bool) for word in words
        ):
            raise ValueError(f"axis {name} must hold values of one kind, got {text!r}")
        return words
    values: list[float] = _read_range(name, text, low=-math.inf).values.tolist()
    whole = all(isinstance(_word(end), int) for end in text.split(":")[:2])
    return list(map(int, values)) if whole and all(x.is_integer() for x in values) else values


def _part(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    first, slash, count = text.partition("/")
    if not (slash and first.isdigit() and count.isdigit()):
        raise _BadInput(f"shard must be I/N, such as 0/16, got {text!r}")
    if int(first) >= int(count):
        raise _BadInput(
            f"shard I/N counts from 0/{count} to {max(int(count) - 1, 0)}/{count}, got {text!r}"
        )
    return int(first), int(count)


@main.command(
    epilog=_examples(
        "bsr sweep solve --axis alpha=0.1:1:10 --axis rho=0.2,0.5 --set beta=2 --output mmse.nc",
        "bsr sweep solve --axis alpha=0.01:10:30:log --axis beta=1,2,inf --set rho=1 --output a.nc",
    )
)
@click.argument("quantity")
@click.option(
    "--axis",
    multiple=True,
    required=True,
    metavar="NAME=RANGE",
    help="An argument and its values: START:STOP:COUNT (ends included), START:STOP:COUNT:log, or "
    "a list separated by commas. Repeat it for more axes.",
)
@click.option(
    "--set",
    "constants",
    multiple=True,
    metavar="NAME=VALUE",
    help="An argument that is the same everywhere.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, writable=True),
    required=True,
    metavar="FILE",
    callback=_folder,
    help="netCDF file (.nc); what it holds already is not computed again.",
)
@click.option(
    "--shard",
    callback=_part,
    metavar="I/N",
    help="Compute only part I of N, I from 0 to N-1; for job arrays.",
)
@click.option(
    "--workers", type=click.IntRange(1), help="Number of processes; by default one for each core."
)
@click.option(
    "--on-failure",
    type=click.Choice(["raise", "warn"]),
    default="raise",
    show_default=True,
    help="When the function raised at some points: no file until they are done, or a file with "
    "NaN there.",
)
@click.pass_context
def sweep(
    ctx: click.Context,
    quantity: str,
    axis: tuple[str, ...],
    constants: tuple[str, ...],
    output: str,
    shard: tuple[int, int] | None,
    workers: int | None,
    on_failure: Literal["raise", "warn"],
) -> None:
    """Compute a quantity on a grid, in parallel.

    QUANTITY is solve (alpha, beta, rho, delta) or a function of yours, MODULE:FUNCTION or
    FILE.py:FUNCTION, which takes the axes as keywords and returns a number or a dictionary. A run
    that was interrupted or killed goes on where it was when it is started again.
    """
    with _bad_input(), _writing(output):
        function = _find(quantity)
        ranges = _named("axis", axis, "NAME=RANGE")
        axes: dict[str, Any] = {name: _values(name, text) for name, text in ranges.items()}
        fixed = {name: _word(x) for name, x in _named("set", constants, "NAME=VALUE").items()}
        both = sorted(set(fixed) & set(axes))
        if both:
            raise ValueError(f"set must name other arguments than the axes, got {', '.join(both)}")
        for name, parameter in inspect.signature(bsr.sweep).parameters.items():
            if name in axes and parameter.kind is parameter.KEYWORD_ONLY:
                raise ValueError(f"axis must have another name, {name} is taken")
        if quantity in _QUANTITIES:
            _prepare()
        if fixed:
            function = functools.partial(function, **fixed)
        path = Path(output) if shard is None else bsr.sweeps.shard_path(output, shard)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                data = bsr.sweep(
                    function,
                    executor=workers,
                    path=output,
                    shard=shard,
                    on_failure=on_failure,
                    **axes,
                )
            except RuntimeError as error:
                raise click.ClickException(str(error)) from error
    _finish_sweep(ctx, path, data, caught)


@main.command(epilog=_examples("bsr merge 'run.shard-*.nc' --output run.nc"))
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, writable=True),
    required=True,
    metavar="FILE",
    callback=_folder,
    help="netCDF file (.nc) to write.",
)
@click.option("--allow-missing", is_flag=True, help="Leave NaN where a shard is missing.")
@click.pass_context
def merge(ctx: click.Context, files: tuple[str, ...], output: str, allow_missing: bool) -> None:
    """Put the shards of a sweep together.

    Exit code 2 when they are of different sweeps, overlap, or do not cover the grid.
    """
    with (
        _bad_input(),
        _writing(output),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        data = bsr.merge(files, output, allow_missing=allow_missing)
    _finish_sweep(ctx, output, data, caught)


def _finish_sweep(
    ctx: click.Context,
    path: str | Path,
    data: Any,
    caught: Iterable[warnings.WarningMessage],
) -> None:
    """Say what the file holds, and end with exit code 1 when points are not solved."""
    for warning in caught:
        click.echo(str(warning.message), err=True)
    dims = data["index"].dims if "index" in data.coords else json.loads(data.attrs["axes"])
    sizes = ", ".join(f"{data.sizes[dim]} {dim}" for dim in dims)
    click.echo(f"{path}: {sizes}", err=True)
    if "error" in data:
        ctx.exit(1)


@main.command(
    epilog=_examples(
        "bsr verify --list",
        "bsr verify --only denoiser",
        "bsr verify --only conjugate-pairs --only ridge --json",
    )
)
@click.option("--only", multiple=True, metavar="NAME", help="Examine this one; may be repeated.")
@click.option(
    "--list", "listed", is_flag=True, help="List the certificates and how each is checked."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
@click.pass_context
def verify(ctx: click.Context, only: tuple[str, ...], listed: bool, as_json: bool) -> None:
    """Certify the formulas by independent means.

    Symbolic derivations, arithmetic with 30 digits, exact integrals of finite size and Monte Carlo,
    about a minute for all. Exit code 1 when a certificate does not hold.
    """
    every = bsr.verify.certificates()
    if listed:
        for certificate in every:
            click.echo(f"{certificate.name}\n    {certificate.formula}\n    by {certificate.means}")
        return
    with (
        _bad_input(),
        tqdm(total=len(only) or len(every), unit="certificate", disable=None, leave=False) as bar,
    ):
        outcomes = bsr.verify.run(only or None, progress=lambda _: bar.update())
    if as_json:
        click.echo(json.dumps(bsr.verify.as_dicts(outcomes), indent=2))
    else:
        click.echo(bsr.verify.table(outcomes))
    if not all(outcome.passed for outcome in outcomes):
        ctx.exit(1)


@main.command(epilog=_examples("bsr info", "bsr info --format json"))
@_formats("text", "json")
def info(style: str | None) -> None:
    """Show versions and settings.

    Among them the number of threads and where compiled code is kept.
    """
    origin = dataclasses.asdict(bsr.Provenance.collect())
    with _bad_input():
        count = threads()
    folder = _cache()
    if style == "json":
        cache = None if folder is None else str(folder)
        click.echo(_as_json({"threads": count, "kernel_cache": cache}), nl=False)
        return
    rows = {
        "bsr_theory": origin["package"],
        "git": origin["git"] or "not a source checkout",
        "python": f"{origin['python']} ({sys.executable})",
        "platform": origin["platform"],
        **origin["versions"],
        "threads": f"{count} (BSR_THREADS sets another number)",
        "kernel cache": "off (BSR_NUMBA_CACHE=0, or no writable folder; NUMBA_CACHE_DIR names one)"
        if folder is None
        else f"on, {folder}",
    }
    for key, value in rows.items():
        click.echo(f"{key:<13} {value}")


def _cache() -> Path | None:
    """Return the folder that Numba keeps the compiled kernels in, None when it keeps none."""
    kernels = importlib.import_module("bsr_theory._kernels.rectangular")  # slow: not for --help
    stats = getattr(kernels.mmse_array, "stats", None)  # a plain function under NUMBA_DISABLE_JIT
    return Path(stats.cache_path) if stats is not None and stats.cache_path else None


def _prepare() -> None:
    """Check the environment, and tell a user at a terminal why the very first run takes long."""
    threads()
    folder = _cache()
    compiled = folder is not None and any(folder.glob("*mmse_array*.nbc"))
    if not compiled and sys.stderr.isatty():
        click.echo("Compiling the numerical loops, this takes a few seconds ...", err=True)
