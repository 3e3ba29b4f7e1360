"""The command line ``bsr``: solve, list and draw from the shell.

Numbers go to standard output, everything said about them to standard error, so that output can be
piped.  Exit codes: 0, 1 when a point was not solved (it is printed all the same), 2 on bad input,
130 on Ctrl-C.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

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


def _read_range(name: str, text: str) -> _Range:
    """Return the positive numbers that ``text`` stands for."""
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
        if not 0.0 < value < math.inf:
            raise ValueError(f"{name} must be > 0 and finite, got {value!r} in {text!r}")
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
        "bsr figure 2 --delta 0.1 --output figure_2_noisy.pdf",
        "bsr figure all --output pictures/ --dpi 150",
    )
)
@click.argument("names", nargs=-1, metavar="[NUMBER]...")
@click.option(
    "--delta",
    type=float,
    default=0.0,
    show_default=True,
    help="Noise variance of the labels >= 0, for the figures that have a noisy version.",
)
@click.option(
    "--output",
    default=".",
    metavar="PATH",
    help="A folder, or a file whose suffix says the format (.png, .pdf, .svg). Default: here.",
)
@click.option("--dpi", type=click.IntRange(20, 1200), help="Resolution of a .png; 300 by default.")
def figure(names: tuple[str, ...], delta: float, output: str, dpi: int | None) -> None:
    """Draw figures of the article.

    The figures of arXiv:2410.18858 from their parameters alone. Give their numbers, or "all";
    without one, the figures that there are get listed. The data goes beside the picture, in a .json
    file of the same name.
    """
    known = bsr.figures.FIGURES
    if not names:
        for name, recipe in known.items():
            noisy = " (with noise: --delta)" if recipe.noisy else ""
            click.echo(f"{name:>3}  {recipe.title}{noisy}")
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
        # among all figures, those that have no noisy version are drawn as they are
        noise = 0.0 if "all" in names and not known[name].noisy else delta
        with _bad_input():
            picture = bsr.figures.make(name, noise)
        stem = f"figure_{name}" + (f"_delta_{noise:g}" if noise else "")
        path = place if is_file else place / f"{stem}.png"
        with _writing(path):
            for written in bsr.figures.save(picture, path, dpi=dpi):
                click.echo(str(written))


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
