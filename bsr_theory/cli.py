"""The command line ``bsr``: solve, simulate, list and draw from the shell.

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
import itertools
import json
import math
import re
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, cast

import click
import numpy as np
from tqdm import tqdm

import bsr_theory as bsr  # each name is imported when it is first used: --help stays quick

from ._arrays import Array, rounding, threads

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
    """Values of a parameter, and whether they are spaced evenly in the logarithm."""

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
    if not 0.0 < value < math.inf:
        raise _BadInput(f"tolerance must be > 0 and finite, got {value!r}")
    return value


def _numbers(
    ctx: click.Context, param: click.Parameter, text: str | None
) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        values = tuple(float(word) for word in text.split(","))
    except ValueError:
        values = ()
    finite = all(map(math.isfinite, values))
    if not (values and finite and all(a < b for a, b in itertools.pairwise(values))):
        raise _BadInput(f"{param.name} must be increasing numbers such as -1,0,1, got {text!r}")
    return values


def _penalty(
    ctx: click.Context, param: click.Parameter, text: str | None
) -> float | Literal["optimal"] | None:
    if text is None or text == "optimal":
        return cast("Literal['optimal'] | None", text)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value < math.inf:
        raise _BadInput(f'lam must be "optimal" or a number >= 0, got {text!r}')
    return value


def _dataset_file(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and Path(value).suffix.lower() != ".nc":
        raise _BadInput(f"{param.name} must be a netCDF file, ending in .nc, got {value!r}")
    return _folder(ctx, param, value)


_alpha = click.option(
    "--alpha", type=float, required=True, help="Samples per entry, n/(d1 d2) > 0."
)
_alpha_range = click.option(
    "--alpha",
    callback=_range,
    metavar="RANGE",
    required=True,
    help="Samples per entry: START:STOP:COUNT (ends included), START:STOP:COUNT:log, or a list "
    "separated by commas.",
)
_solver_tolerance = click.option(
    "--tolerance",
    type=float,
    default=1e-11,
    show_default=True,
    callback=_tolerance,
    help="Largest residual of a solution.",
)
_lam = click.option(
    "--lam",
    callback=_penalty,
    metavar="NUMBER",
    help='Penalty >= 0 of ridge and nuclear-norm, or "optimal", the default: the one of least '
    "error.",
)

_BETA, _RHO = "Aspect ratio d2/d1 >= 1, or inf.", "Width ratio r/d1 > 0, or inf."
_DELTA = "Noise variance of the labels >= 0."

_FACTORS, _LOW_RANK, _SYMMETRIC = "factors", "low-rank-factors", "symmetric-factors"
_PRIORS = {  # what the prior of each name is told by, besides files
    _FACTORS: ("beta", "rho"),
    _LOW_RANK: ("beta",),
    _SYMMETRIC: ("rho",),
}
_FILES = {  # and the priors that are read from a file
    "singular_values": ("beta",),
    "weights": (),
    "eigenvalues": (),
}
_file = functools.partial(
    click.option, type=click.Path(exists=True, dir_okay=False, readable=True), metavar="FILE"
)
_prior_options = (
    click.option(
        "--prior",
        type=click.Choice(list(_PRIORS)),
        help="What S is: a product of two Gaussian factors, the default; its limit rho -> 0, where "
        "alpha stands for n/(r (d1 + d2)); or W W^T/sqrt(r), W of shape d x r with rho = r/d.",
    ),
    _file(
        "--weights",
        help="Instead of a product: any S with the singular values of this matrix (.npy, .npz or "
        "text), such as trained weights W_Q W_K^T; its shape gives beta.",
    ),
    _file(
        "--singular-values",
        help="Instead of a product: any S with singular values of this law, those of S/sqrt(d2). "
        "One number a line (text, .npy), zeros too; or rows of value and mass; or .npz with values "
        "and masses, or counts and edges of a histogram. Takes --beta.",
    ),
    _file(
        "--eigenvalues",
        help="The same for a symmetric S of shape d x d: the law of the eigenvalues of S/sqrt(d).",
    ),
    click.option(
        "--scale",
        type=click.Choice(["unit", "none"]),
        help="What is read from a file is divided by its root mean square per entry (unit, the "
        "default: errors and delta are relative to the signal) or taken as it is (none).",
    ),
)

_CHANNELS = {
    "linear": "GaussianChannel",
    "sign": "SignChannel",
    "abs": "AbsChannel",
    "relu": "ReLUChannel",
    "logistic": "LogisticChannel",
    "quantized": "QuantizedChannel",
}
_channel_options = (
    click.option(
        "--channel",
        type=click.Choice(list(_CHANNELS)),
        default="linear",
        show_default=True,
        help="What the labels show of h = <X, S>/sqrt(d1 d2): h, its sign, |h|, max(h, 0) with "
        "noise of variance delta, or classes.",
    ),
    click.option(
        "--gain", type=float, help="Slope >= 0 of the log odds, --channel logistic; by default 1."
    ),
    click.option(
        "--levels",
        callback=_numbers,
        metavar="LIST",
        help="Where the label changes, --channel quantized; by default -1,0,1.",
    ),
)


class _Signal(NamedTuple):
    """A prior, and what the options say of it."""

    prior: bsr.Prior
    parameters: dict[str, Any]

    @property
    def factors(self) -> bool:
        """Whether S is a product of Gaussian factors of a width."""
        return "rho" in self.parameters and "beta" in self.parameters


class _Model(NamedTuple):
    """A signal and a channel, as the options name them."""

    kind: str
    signal: _Signal
    of_channel: dict[str, Any]

    @property
    def parameters(self) -> dict[str, Any]:
        """What the model is, other than the kind of its channel."""
        return {**self.signal.parameters, **self.of_channel}

    def problem(self, alpha: Any = None) -> bsr.Problem:
        """Return the model at alpha."""
        names = {"levels": "thresholds"}
        given = {names.get(name, name): value for name, value in self.of_channel.items()}
        return bsr.Problem(self.signal.prior, getattr(bsr, _CHANNELS[self.kind])(**given), alpha)

    @property
    def linear(self) -> bool:
        """Whether labels are h plus noise."""
        return self.kind == "linear"

    @property
    def title(self) -> str:
        """What S is when it is no product of factors, for a picture."""
        told = self.signal.parameters
        return Path(told["file"]).name if "file" in told else told.get("prior", "")

    def alpha_low_rank(self, alpha: Any) -> Any:
        """Return alpha_LR of a product of factors; 0 with infinitely many unknowns per entry."""
        if not self.signal.factors:
            return None
        beta, rho = self.signal.parameters["beta"], self.signal.parameters["rho"]
        return 0.0 * alpha if rho == math.inf else bsr.limits.alpha_low_rank(alpha, beta, rho)

    def ridge(self, alpha: Any) -> Any:
        """Return the error of the best ridge regression, None where there is no such theory."""
        prior = self.signal.prior
        if not self.linear or prior.snr_per_alpha != 1.0:
            return None
        scale = prior.second_moment
        return scale * bsr.limits.ridge_mse(alpha, self.of_channel["delta"] / scale)

    @property
    def strong_recovery(self) -> float | None:
        """From which alpha on noiseless linear labels determine S."""
        if not self.linear:
            return None
        prior = self.signal.prior
        return float(prior.strong_recovery / prior.snr_per_alpha)


def _numbers_in(name: str, path: str) -> dict[str, Array]:
    """Return the arrays of numbers in a file; one that has no name of its own is called ""."""
    suffix = Path(path).suffix.lower()
    try:
        if suffix in (".npy", ".npz"):
            with open(path, "rb") as file:
                held = np.load(file, allow_pickle=False)
                arrays = {"": held} if suffix == ".npy" else dict(held)
        else:
            arrays = {"": _table_in(Path(path).read_text(encoding="utf-8"))}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{name} must be numbers in text, .npy or .npz: {path}: {said}") from error
    for key, array in arrays.items():
        if array.dtype.kind not in "fiu" or not array.size:
            what = f"{key} in {path}" if key else path
            raise ValueError(
                f"{name} must be real numbers, got {what} of {array.dtype}, shape {array.shape}"
            )
    return arrays


def _table_in(text: str) -> Array:
    """Return the numbers of a text as rows; a line of names at the top is passed over."""
    lines = (line.partition("#")[0].strip().strip(",;") for line in text.splitlines())
    rows = [re.split(r"[\s,;]+", line) for line in lines if line]
    try:
        np.array(rows[:1], dtype=np.float64)
    except ValueError:
        rows = rows[1:]
    return np.array(rows, dtype=np.float64)


def _law_in(name: str, path: str) -> Any:
    """Return the law of singular values (or eigenvalues) that a file holds."""
    measure = bsr.spectra.numerical.Measure
    arrays = _numbers_in(name, path)
    for pair, make in (
        (("values", "masses"), measure.from_atoms),
        (("counts", "edges"), measure.from_histogram),
    ):
        if set(arrays) == set(pair):
            return make(*(arrays[key] for key in pair))
    shapes = ", ".join(f"{key} {array.shape}".strip() for key, array in arrays.items())
    array = next(iter(arrays.values()))
    if len(arrays) > 1:
        raise ValueError(
            f"{name} must hold one array, values and masses, or counts and edges, got {shapes}"
        )
    if array.ndim == 2 and array.shape[1] == 2 and array.shape[0] > 1:
        return measure.from_atoms(*array.T)
    if array.ndim == 0 or max(array.shape) < array.size:
        raise ValueError(f"{name} must be numbers or rows of value and mass, got shape {shapes}")
    values = np.asarray(array.ravel(), dtype=np.float64)
    # what rounding leaves of a singular matrix would count as information
    lost = np.abs(values) < np.sqrt(values.size) * rounding(array) * np.abs(values).max()
    return measure.from_samples(np.where(lost, 0.0, values))


def _matrix_in(name: str, path: str) -> Array:
    """Return the matrix that a file holds, in the precision that it is stored in."""
    arrays = _numbers_in(name, path)
    if len(arrays) > 1:
        raise ValueError(f"{name} must be one matrix, got {', '.join(arrays)} in {path}")
    (matrix,) = arrays.values()
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise ValueError(f"{name} must be a finite matrix, got shape {matrix.shape} in {path}")
    return matrix


def _read_signal(
    *,
    beta: float | None = None,
    rho: float | None = None,
    prior: str | None = None,
    weights: str | None = None,
    singular_values: str | None = None,
    eigenvalues: str | None = None,
    scale: str | None = None,
) -> _Signal:
    """Return the signal that options name, checked."""
    read = {"weights": weights, "singular_values": singular_values, "eigenvalues": eigenvalues}
    files = {name: path for name, path in read.items() if path is not None}
    kind = _kind_of_signal(prior, files)
    path = files.get(kind, "")
    if scale is not None and not path:
        raise ValueError(f"scale belongs to a signal from a file, got {scale!r} for {kind}")
    given = {"beta": beta, "rho": rho}
    wanted = _wanted(kind)
    for name, value in given.items():
        if value is None and name in wanted:
            others = ", ".join(map(_option, _FILES)) if kind == _FACTORS and name == "rho" else ""
            more = f" (or one of {others}, --prior)" if others else ""
            context = click.get_current_context(silent=True)
            raise click.UsageError(f"Missing option '--{name}'{more}.", context)
        if value is not None and name not in wanted:
            raise ValueError(f"{name} must be left out beside {_option(kind)}, got {value!r}")
    numbers = {name: value for name, value in given.items() if value is not None}
    if kind == _FACTORS:
        return _Signal(bsr.GaussianFactorPrior(**numbers), numbers)
    if not path:
        makers: dict[str, Any] = {
            _LOW_RANK: bsr.LowRankFactorPrior,
            _SYMMETRIC: bsr.SymmetricFactorPrior,
        }
        return _Signal(makers[kind](**numbers), {"prior": kind, **numbers})
    scale = scale or "unit"
    unit = scale == "unit"
    words = {"prior": kind.replace("_", "-"), "file": path, "scale": scale}
    found: bsr.RotationallyInvariantPrior | bsr.SymmetricPrior
    if kind == "weights":
        matrix = _matrix_in(kind, path)
        found = bsr.RotationallyInvariantPrior.from_matrix(matrix, normalize=unit)
        numbers |= {"beta": found.beta, "rank": round(found.rank * min(matrix.shape))}
        square = float(np.mean(np.square(matrix, dtype=np.float64)))
        return _Signal(found, {**words, **numbers, "mean_square": square})
    law = _law_in(kind, path)
    if kind == "eigenvalues":
        found = bsr.SymmetricPrior(law, normalize=unit)
    else:
        found = bsr.RotationallyInvariantPrior(law, numbers["beta"], normalize=unit)
    return _Signal(found, {**words, **numbers, "mean_square": law.moment(2)})


def _option(kind: str) -> str:
    """Return the option that names a kind of signal."""
    return f"--{kind.replace('_', '-')}" if kind in _FILES else f"--prior {kind}"


def _wanted(kind: str) -> tuple[str, ...]:
    """Return which of beta and rho a kind of signal takes."""
    return {**_PRIORS, **_FILES}[kind]


def _kind_of_signal(prior: str | None, files: Iterable[str]) -> str:
    """Return which prior is meant, of those that are named."""
    named = [*files, *([] if prior is None else [prior])]
    if len(named) > 1:
        raise ValueError(f"one prior must be given, got {' and '.join(map(_option, named))}")
    return named[0] if named else _FACTORS


def _read_model(
    *,
    delta: float,
    channel: str = "linear",
    gain: float | None = None,
    levels: tuple[float, ...] | None = None,
    **signal: Any,
) -> _Model:
    """Return the model that options name, checked; ``signal`` is for `_read_signal`."""
    own: dict[str, Any] = {"delta": delta}
    if channel == "logistic":
        if delta != 0.0:
            raise ValueError(f"delta must be 0 for the logistic channel, got {delta!r}")
        own = {"gain": 1.0 if gain is None else gain}
    elif gain is not None:
        raise ValueError(f"gain belongs to the logistic channel, got {gain!r} for {channel}")
    if channel == "quantized":
        own["levels"] = (-1.0, 0.0, 1.0) if levels is None else levels
    elif levels is not None:
        raise ValueError(f"levels belong to the quantized channel, got them for {channel}")
    model = _Model(channel, _read_signal(**signal), own)
    square = model.signal.prior.second_moment
    if not model.linear and square != 1.0:
        raise ValueError(
            f"channel must be linear for a signal of mean square {square:g} (others take 1), "
            f"got {channel!r}"
        )
    model.problem()
    return model


def _names(function: Callable[..., Any]) -> list[str]:
    """Return the names of the parameters of a function."""
    return list(inspect.signature(function).parameters)


def _with_options(command: _F, options: Iterable[Callable[[Any], Any]]) -> _F:
    for option in reversed(tuple(options)):
        command = option(command)
    return command


def _model(*, channels: bool = True) -> Callable[[_F], _F]:
    """Add the options other than alpha, and hand them over as one ``model``."""
    options = (
        click.option("--beta", type=float, help=_BETA),
        click.option("--rho", type=float, help=_RHO),
        click.option("--delta", type=float, default=0.0, show_default=True, help=_DELTA),
        *(_channel_options if channels else ()),
        *_prior_options,
    )
    names = [*_names(_read_signal), *_names(_read_model)]

    def decorate(command: _F) -> _F:
        @functools.wraps(command)
        def run(*args: Any, **given: Any) -> Any:
            with _bad_input():
                model = _read_model(**{name: given.pop(name) for name in names if name in given})
            return command(*args, model=model, **given)

        return _with_options(cast("_F", run), options)

    return decorate


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


def _formats(*names: str, by_suffix: bool = False) -> Callable[[_F], _F]:
    default = f"that of --output, or {names[0]}" if by_suffix else names[0]
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
    header, line = "", ""
    for name, column in columns.items():
        number = column.dtype.kind == "f"
        place = f">{max(13, len(name))}" if number else f"<{max(10, len(name))}"
        header += f"{{:{place}}}  "
        line += f"{{:{place}.8g}}  " if number else f"{{:{place}}}  "
    yield header.format(*columns).rstrip() + "\n"
    for row in rows:
        yield line.format(*(x if isinstance(x, float) else _cell(x) for x in row)).rstrip() + "\n"


def _write(
    columns: Mapping[str, Array],
    parameters: Mapping[str, Any],
    style: str | None,
    output: str = "-",
    *,
    repeated: bool = True,
) -> None:
    """Write columns to a file or "-", standard output.

    CSV has the parameters as columns too, unless they are not to be ``repeated``.
    """
    if style is None:
        suffix = Path(output).suffix.lower()
        style = {".csv": "csv", ".json": "json"}.get(suffix, "table")
    if style == "json":
        text: Iterable[str] = [_as_json({**_parts(parameters), "columns": dict(columns)})]
    else:
        if style == "csv" and repeated:
            size = len(next(iter(columns.values())))
            values = {key: _word_of(value) for key, value in parameters.items()}
            constant = {key: np.full(size, x, dtype=object) for key, x in values.items()}
            columns = {**constant, **columns}
        text = _lines(columns, style)
    if output == "-":
        sys.stdout.writelines(text)
        return
    with _writing(output), click.open_file(output, "w", encoding="utf-8", atomic=True) as file:
        file.writelines(text)
    click.echo(f"wrote {output}", err=True)


def _parts(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a JSON object that say what was calculated: words, then numbers."""
    words = {key: value for key, value in parameters.items() if isinstance(value, str)}
    return {**words, "parameters": {k: v for k, v in parameters.items() if k not in words}}


def _word_of(value: Any) -> Any:
    """Return a value as one cell."""
    if not isinstance(value, tuple):
        return value
    return " ".join(str(x).removesuffix(".0") for x in value)


def _title(parameters: Mapping[str, Any]) -> str:
    """Return "name = value" for each parameter, in one line."""
    words = {
        key: f"{value:g}" if isinstance(value, float) else _word_of(value)
        for key, value in parameters.items()
    }
    return ", ".join(f"{key} = {word}" for key, word in words.items())


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
        "bsr solve --alpha 0.5 --beta 1 --rho 0.2 --channel abs",
        "bsr solve --alpha 0.4 --beta 2 --rho 0.5 --format json",
        "bsr solve --alpha 0.8 --prior low-rank-factors --beta 2 --delta 0.1",
    )
)
@_alpha
@_model()
@_solver_tolerance
@_formats("text", "json")
@click.pass_context
def solve(
    ctx: click.Context, alpha: float, model: _Model, tolerance: float, style: str | None
) -> None:
    """Solve one problem.

    Prints the Bayes-optimal error and what goes with it.
    """
    parameters = {"channel": model.kind, "alpha": alpha, **model.parameters}
    with _bad_input():
        problem = model.problem(alpha)
        _prepare()
    point = bsr.solve(problem, tolerance=tolerance, on_failure="return")
    status = bsr.Status(point.status)
    phase, reached = _phase(problem, status) if status.ok else (None, None)
    values: dict[str, Any] = {
        "mmse": point.mmse,
        "mmse_algorithm": reached,
        "generalization_error": point.generalization_error,
        "q": point.q,
        "qhat": point.qhat,
        "information": point.information,
        "ridge": model.ridge(alpha),
        "alpha_LR": model.alpha_low_rank(alpha),
        "strong_recovery": model.strong_recovery,
        "residual": point.residual,
        "iterations": point.iterations,
        "phase": phase,
        "status": status.name.lower(),
    }
    values = {name: value for name, value in values.items() if value is not None}
    if style == "json":
        click.echo(_as_json({**_parts(parameters), "solution": values}), nl=False)
    else:
        said = {**_meanings(problem.prior), "phase": _PHASES.get(phase or "")}
        said["status"] = status.advice
        click.echo(_title(parameters) + "\n")
        for name, value in values.items():
            shown = value if isinstance(value, str) else f"{value:.10g}"
            click.echo(f"{name:<20} {shown:<16} {said[name]}")
    _finish(ctx, status, said=style != "json")


_MEANINGS = {
    "mmse": "error per entry of the Bayes-optimal estimator, 1 - q",
    "mmse_algorithm": "error per entry of message passing",
    "generalization_error": "error of the best prediction of a new label",
    "q": "overlap of that estimator with the signal",
    "qhat": "signal-to-noise ratio of the effective denoising problem",
    "information": "mutual information in nats per entry (delta = 0: up to a constant)",
    "ridge": "error per entry of ridge regression with the best penalty",
    "alpha_LR": "samples per unknown, n/(r (d1 + d2))",
    "strong_recovery": "alpha from which on the error is 0 when delta = 0",
    "residual": "how well the equations hold, |alpha(s)/alpha - 1|",
    "iterations": "evaluations of the prior's mmse",
}
_PHASES = {
    "easy": "message passing reaches the Bayes-optimal error",
    "hard": "message passing has a larger error than the Bayes-optimal one",
    "impossible": "no estimator recovers the signal (delta = 0), or learns anything (delta > 0)",
}


def _meanings(prior: bsr.Prior) -> dict[str, Any]:
    """Return what the numbers of a solution are."""
    square, said = float(prior.second_moment), dict(_MEANINGS)
    if square != 1.0:
        said["mmse"] = f"error per entry of the Bayes-optimal estimator, {square:g} - q"
    if isinstance(prior, bsr.LowRankFactorPrior):
        said["information"] += ", in units of rho"
        said["strong_recovery"] = f"alpha_LR {said['strong_recovery'].partition(' ')[2]}"
    elif isinstance(prior, bsr.priors.SymmetricSignal):
        said["information"] += ", of which there are d^2/2"
    return said


def _phase(problem: bsr.Problem, status: bsr.Status) -> tuple[str | None, float | None]:
    """Return the phase that one problem is in, and the error of message passing if it differs."""
    if problem.channel.single_fixed_point:
        strong = bsr.thresholds(problem.prior, problem.channel).strong_recovery
        lost = problem.alpha < strong < math.inf or status == bsr.Status.NO_RECOVERY
        return ("impossible" if lost else "easy"), None
    delta = cast("Any", problem.channel).delta
    place = bsr.phase_diagram(problem, alpha=[problem.alpha], delta=[delta])  # a plane of one pixel
    name = dict(enumerate(_PHASES)).get(place.phase.item())
    return name, place.mmse_algorithm.item()


@main.command(
    "fixed-points",
    epilog=_examples(
        "bsr fixed-points --alpha 0.3 --beta 2 --rho 0.5",
        "bsr fixed-points --alpha 0.4 --beta 2 --rho 0.5 --delta 0.1 --format csv",
        "bsr fixed-points --alpha 0.55 --beta 1 --rho 0.2 --channel abs",
    ),
)
@_alpha
@_model()
@_solver_tolerance
@_formats("table", "csv", "json", by_suffix=True)
@_output
@click.pass_context
def fixed_points(
    ctx: click.Context,
    alpha: float,
    model: _Model,
    tolerance: float,
    style: str | None,
    output: str,
) -> None:
    """List every fixed point of state evolution.

    A fixed point is stable when |slope| < 1, slope being the derivative of q -> q' there.
    """
    with _bad_input():
        problem = model.problem(alpha)
        _prepare()
    every = bsr.fixed_points(problem, tolerance=tolerance)
    present = every.status != bsr.Status.ABSENT
    names = ("mmse", "q", "qhat", "slope", "residual", "stable")
    columns = {name: getattr(every, name)[present] for name in names}
    columns["status"] = _status_names(every.status[present])
    parameters = {"channel": model.kind, "alpha": alpha, **model.parameters}
    _write(columns, parameters, style, output, repeated=False)
    _finish(ctx, every.status[present])


@main.command(
    epilog=_examples(
        "bsr curve --alpha 0.05:0.6:12 --beta 2 --rho 0.5",
        "bsr curve --alpha 0.01:10:50:log --beta 2 --rho 0.5 --delta 0.1 --output curve.csv",
        "bsr curve --alpha 0.2,0.4,0.6 --beta inf --rho 0.5 --format json",
        "bsr curve --alpha 0.3:0.7:9 --beta 1 --rho 0.2 --channel abs",
        "bsr curve --alpha 0.005:1:200 --beta 1 --rho 0.2 --output curve.json --plot curve.png",
    )
)
@_alpha_range
@_model()
@_solver_tolerance
@_formats("table", "csv", "json", by_suffix=True)
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
    model: _Model,
    tolerance: float,
    style: str | None,
    output: str,
    plot: str | None,
) -> None:
    """Follow the Bayes-optimal error along alpha.

    Columns: alpha, alpha_LR = n/(r (d1 + d2)), mmse, overlap q and its conjugate qhat, and the
    status of the point. Linear labels: the error of ridge regression with the best penalty. Others:
    the generalization error, and mmse_algorithm, the error of message passing, where it can differ.
    A CSV file has the parameters as columns too; JSON names them once and adds versions.
    """
    with _bad_input():
        if plot is not None:
            bsr.figures.check_path(plot)
        _prepare()
    columns, status = _follow(alpha.values, model, tolerance)
    _write(columns, {"channel": model.kind, **model.parameters}, style, output)
    if plot is not None:
        names = [] if model.linear else [model.kind]
        names += [model.title] if model.title else []
        names += [
            rf"$\{key}={value:g}$".replace("inf", r"\infty")
            for key, value in model.parameters.items()
            if key in ("beta", "rho", "delta")
        ]
        picture = bsr.figures.draw_curve(
            columns["alpha"],
            columns["mmse"],
            columns.get("ridge"),
            columns.get("mmse_algorithm"),
            title=",  ".join(names),
            log=alpha.log,
            **_labels(model.signal.prior),
        )
        with _writing(plot):
            bsr.figures.save(picture, plot)
        click.echo(f"wrote {plot}", err=True)
    _finish(ctx, status)


def _labels(prior: bsr.Prior) -> dict[str, str]:
    """Return the labels of axes that are not the usual ones."""
    labels = {}
    if isinstance(prior, bsr.LowRankFactorPrior):
        labels["xlabel"] = bsr.figures.drawing.PER_UNKNOWN
    if prior.second_moment != 1.0:
        labels["ylabel"] = "error per entry"
    return labels


def _follow(alpha: Array, model: _Model, tolerance: float) -> tuple[dict[str, Array], Array]:
    """Return the columns of a curve and the statuses, solved in parts when it is long."""
    size = alpha.size
    part = size if size < _LONG else _PART
    fields = ["mmse", "q", "qhat", "status"]
    if not model.linear:
        fields.insert(3, "generalization_error")
    several = not model.problem().channel.single_fixed_point
    if several:
        fields.insert(1, "mmse_algorithm")
    parts: dict[str, list[Array]] = {name: [] for name in fields}
    off = None if size >= _LONG else True  # None: shown on a terminal only
    with tqdm(total=size, unit="point", unit_scale=True, disable=off, file=sys.stderr) as bar:
        for start in range(0, size, part):
            some = alpha[start : start + part]
            point = bsr.solve(model.problem(some), tolerance=tolerance, on_failure="return")
            found: dict[str, Array] = {name: getattr(point, name, some) for name in fields}
            if several:
                plane = bsr.phase_diagram(
                    model.problem(), alpha=some, delta=[model.of_channel["delta"]], progress=False
                )
                found["mmse_algorithm"] = plane.mmse_algorithm.values.ravel()
            for name, values in found.items():
                parts[name].append(values)
            bar.update(some.size)
    whole = {name: np.concatenate(pieces) for name, pieces in parts.items()}
    status = whole.pop("status")
    columns = {"alpha": alpha, "alpha_LR": model.alpha_low_rank(alpha), **whole}
    columns["ridge"] = model.ridge(alpha)
    known = {name: values for name, values in columns.items() if values is not None}
    return {**known, "status": _status_names(status)}, status


# --------------------------------------------------------------------------------------------
# Thresholds and phase diagrams
# --------------------------------------------------------------------------------------------


_THRESHOLDS = {  # what each threshold is, and what the values that stand for none mean
    "weak_recovery": (
        "from here on message passing learns something",
        {0.0: "the first labels teach something", math.inf: "message passing learns nothing"},
    ),
    "algorithmic": ("from here on message passing is Bayes-optimal", {}),
    "information_theoretic": ("the Bayes-optimal error jumps here", {}),
    "strong_recovery": (
        "from here on the Bayes-optimal error is 0",
        {math.inf: "no number of labels brings the Bayes-optimal error to 0"},
    ),
    "strong_recovery_algorithmic": (
        "from here on the error of message passing is 0",
        {math.inf: "no number of labels brings the error of message passing to 0"},
    ),
    "informed_spinodal": ("from here on an iteration that starts at the signal stays near it", {}),
}
_NO_TRANSITION = "does not exist: there is no first-order transition"


def _meaning(name: str, value: float) -> str:
    text, special = _THRESHOLDS[name]
    return _NO_TRANSITION if math.isnan(value) else special.get(value, text)


@main.command(
    epilog=_examples(
        "bsr thresholds --channel abs --beta 1 --rho 0.2",
        "bsr thresholds --channel abs --beta 1 --rho 0.2 --delta 0.02 --format json",
        "bsr thresholds --beta inf --rho 0.5",
        "bsr thresholds --channel quantized --levels -1,0,1 --beta 2 --rho 0.5 --format csv",
    )
)
@_model()
@_formats("text", "csv", "json")
def thresholds(model: _Model, style: str | None) -> None:
    """Find the sampling ratios at which learning changes.

    In CSV and JSON a threshold is nan where there is no such transition, and inf where no finite
    alpha suffices.
    """
    problem = model.problem()
    with _bad_input():
        _prepare()
    found = bsr.thresholds(problem.prior, problem.channel)
    values = {name: float(getattr(found, name)) for name in _THRESHOLDS}
    parameters = {"channel": model.kind, **model.parameters}
    if style == "json":
        click.echo(_as_json({**_parts(parameters), "thresholds": values}), nl=False)
    elif style == "csv":
        _write({name: np.array([value]) for name, value in values.items()}, parameters, "csv")
    else:
        click.echo(_title(parameters) + "; alpha = n/(d1 d2)\n")
        for name, value in values.items():
            shown = "-" if math.isnan(value) else f"{value:.10g}"
            click.echo(f"{name:<28} {shown:<16} {_meaning(name, value)}")


_AXES = {
    "alpha": "0.005:1.5:200",
    "beta": "1:5:200",
    "rho": "0.005:1.5:200",
    "delta": "0:0.5:200",
}
_ERRORS = (
    "mmse_algorithm",
    "mmse_bayes",
    "generalization_error_algorithm",
    "generalization_error_bayes",
)


def _plane_axis(option: str, text: str, known: Sequence[str] = tuple(_AXES)) -> tuple[str, Array]:
    """Return the name and the increasing values that ``NAME`` or ``NAME=RANGE`` stand for."""
    name, equals, values = text.partition("=")
    if name not in known:
        raise ValueError(f"{option} must be one of {', '.join(known)}, or NAME=RANGE, got {text!r}")
    written = values if equals else _AXES[name]
    least = {"beta": 1.0, "delta": 0.0}.get(name)
    found = _read_range(name, written, low=0.0 if least is None else -math.inf).values
    if least is not None and found.min() < least:
        raise ValueError(f"{name} must be >= {least:g}, got {found.min():g} in {written!r}")
    return name, np.unique(found)


@main.command(
    "phase-diagram",
    epilog=_examples(
        "bsr phase-diagram --channel abs --x alpha=0.05:1.2:40 --y rho=0.02:1.2:40 --beta 1",
        "bsr phase-diagram --x alpha --y beta=1:3:20 --rho 0.5 --plot linear.png",
        "bsr phase-diagram --channel sign --x rho --y alpha=0.1:6:30 --beta 1 --output sign.nc",
    ),
)
@click.option(
    "--x",
    "horizontal",
    required=True,
    metavar="NAME[=RANGE]",
    help="Horizontal axis: alpha, beta, rho or delta, with its values as in bsr curve.",
)
@click.option(
    "--y", "vertical", required=True, metavar="NAME[=RANGE]", help="Vertical axis, likewise."
)
@click.option("--alpha", type=float, help="Samples per entry > 0, unless it is an axis.")
@click.option("--beta", type=float, help="Aspect ratio >= 1, or inf, unless it is an axis.")
@click.option("--rho", type=float, help="Width ratio > 0, or inf, unless it is an axis.")
@click.option("--delta", type=float, help="Noise variance >= 0; by default 0.")
@functools.partial(_with_options, options=(*_channel_options, *_prior_options))
@click.option(
    "--output",
    type=click.Path(dir_okay=False, writable=True),
    metavar="FILE",
    callback=_dataset_file,
    help="netCDF file (.nc) for phases, errors and thresholds.",
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, writable=True),
    metavar="FILE",
    callback=_folder,
    help="Picture to draw (.png, .pdf, .svg); the data goes beside it, in a .nc file.",
)
@click.option(
    "--quantity",
    type=click.Choice(_ERRORS),
    default=_ERRORS[0],
    show_default=True,
    help="The error that --plot shows.",
)
@_formats("text", "json")
@click.pass_context
def phase_diagram(
    ctx: click.Context,
    horizontal: str,
    vertical: str,
    alpha: float | None,
    beta: float | None,
    rho: float | None,
    delta: float | None,
    channel: str,
    gain: float | None,
    levels: tuple[float, ...] | None,
    prior: str | None,
    weights: str | None,
    singular_values: str | None,
    eigenvalues: str | None,
    scale: str | None,
    output: str | None,
    plot: str | None,
    quantity: str,
    style: str | None,
) -> None:
    """Map where learning is easy, hard or impossible.

    Without --output and --plot, prints how much of the plane each phase takes, and the range of
    each threshold. An axis that is named alone has 200 values: alpha and rho from 0.005 to 1.5,
    beta from 1 to 5, delta from 0 to 0.5. A signal from a file leaves alpha and delta.
    """
    given = {"alpha": alpha, "beta": beta, "rho": rho, "delta": delta}
    files = {"weights": weights, "singular_values": singular_values, "eigenvalues": eigenvalues}
    signal: dict[str, Any] = {"prior": prior, **files, "scale": scale}
    with _bad_input():
        kind = _kind_of_signal(prior, [name for name, path in files.items() if path is not None])
        known = ["alpha", *_PRIORS.get(kind, ()), *(["delta"] if channel != "logistic" else [])]
        pair = _plane_axis("x", horizontal, known), _plane_axis("y", vertical, known)
        axes: dict[str, Any] = dict(pair)
        if len(axes) < 2:
            raise ValueError(f"x and y must be different axes, got {next(iter(axes))} twice")
        for name, value in given.items():
            if name in axes and value is not None:
                raise ValueError(f"{name} is an axis: it must have no value of its own")
            needed = name in ("alpha", *_wanted(kind))
            if name not in axes and value is None and needed:
                raise click.UsageError(f"Missing option '--{name}', or an axis of that name.", ctx)
        if plot is not None:
            bsr.figures.check_path(plot)
            for option, values in zip("xy", axes.values(), strict=True):
                if values.size < 2:
                    raise ValueError(f"{option} must have at least 2 values to be drawn")
        fixed = {name: value for name, value in given.items() if value is not None}
        of_model = {"delta": 0.0, **dict.fromkeys(axes, 1.0), **fixed}
        sampling = of_model.pop("alpha")
        if channel == "logistic":
            of_model["delta"] = fixed.get("delta", 0.0)
        model = _read_model(channel=channel, gain=gain, levels=levels, **signal, **of_model)
        problem = model.problem(sampling)
        _prepare()
        x, y = axes
        data = bsr.phase_diagram(problem, **axes).transpose(y, x)
        told = {k: v for k, v in model.signal.parameters.items() if k not in axes}
        data.attrs = {**told, **data.attrs}
    if output is not None and output != (plot and str(Path(plot).with_suffix(".nc"))):
        with _writing(output):
            bsr.results.write_dataset(data, output)
        click.echo(f"wrote {output}", err=True)
    if plot is not None:
        with _bad_input(), _writing(plot):
            picture = bsr.figures.draw_phase_diagram(data, quantity)
            for path in bsr.figures.save(picture, plot):
                click.echo(f"wrote {path}", err=True)
    if output is None and plot is None:
        rest = {**fixed, **model.parameters}
        parameters = {k: v for k, v in rest.items() if k not in axes}
        _summarise(data, axes, {"channel": channel, **parameters}, style)
    _finish(ctx, data.status.values)


def _summarise(
    data: Any, axes: Mapping[str, Array], parameters: Mapping[str, Any], style: str | None
) -> None:
    """Print the share of each phase and the range of each threshold."""
    codes = data.phase.values
    shares = {name: float(np.mean(codes == code)) for code, name in enumerate(_PHASES)}
    ranges: dict[str, dict[str, float]] = {}
    for name in _THRESHOLDS:
        values = data[name].values
        there = values[~np.isnan(values)]
        low, high = (there.min(), there.max()) if there.size else (math.nan, math.nan)
        exists = there.size / values.size
        ranges[name] = {"smallest": float(low), "largest": float(high), "exists": exists}
    if style == "json":
        planes = {k: {"start": v[0], "stop": v[-1], "count": v.size} for k, v in axes.items()}
        parts = {"axes": planes, "phases": shares, "thresholds": ranges}
        click.echo(_as_json({**_parts(parameters), **parts}), nl=False)
        return
    click.echo(_title(parameters))
    for letter, (name, values) in zip("xy", axes.items(), strict=True):
        click.echo(f"{letter}: {name} from {values[0]:g} to {values[-1]:g}, {values.size} values")
    click.echo()
    for name, share in shares.items():
        click.echo(f"{name:<28} {100.0 * share:5.1f} %   {_PHASES[name]}")
    click.echo(f"\n{'':<28} {'smallest':<12} {'largest':<12}")
    for name, found in ranges.items():
        if found["exists"] == 0.0:
            click.echo(f"{name:<28} {_NO_TRANSITION}")
            continue
        note = "" if found["exists"] == 1.0 else f"exists on {100.0 * found['exists']:.3g} %"
        line = f"{name:<28} {found['smallest']:<12.6g} {found['largest']:<12.6g} {note}"
        click.echo(line.rstrip())


# --------------------------------------------------------------------------------------------
# Estimators, in theory and at finite size
# --------------------------------------------------------------------------------------------


@main.command(
    epilog=_examples(
        "bsr estimate nuclear-norm --alpha 0.1:0.7:7 --beta 1 --rho 0.2 --delta 0.1",
        "bsr estimate ridge --alpha 0.2,0.5,2 --beta 2 --rho 0.5 --delta 0.1 --lam 0.05",
        "bsr estimate nuclear-norm --alpha 0.2:0.6:9 --beta 1 --rho 0.2 --lam 0 --output mnne.csv",
    )
)
@click.argument("estimator", type=click.Choice(["ridge", "nuclear-norm"]))
@_alpha_range
@_model(channels=False)
@_lam
@_formats("table", "csv", "json", by_suffix=True)
@_output
@click.pass_context
def estimate(
    ctx: click.Context,
    estimator: str,
    alpha: _Range,
    model: _Model,
    lam: float | Literal["optimal"] | None,
    style: str | None,
    output: str,
) -> None:
    """Follow the error of ridge or nuclear norm.

    In the limit of large size. The estimators minimise half the squared residuals plus
    lam ||S||_F^2/2, or lam sqrt(d2) ||S||_*; lam = 0 is the limit of lam -> 0, the interpolator of
    least norm. Columns: alpha, error mse per entry, the Bayes-optimal error bayes, lam, rank over
    d1, nuclear norm over d1 sqrt(d2), mean squared residual train_loss, overlap and status.
    """
    problem = model.problem(alpha.values)
    with _bad_input():
        _prepare()
    solution = {"ridge": bsr.erm.ridge, "nuclear-norm": bsr.erm.nuclear_norm}[estimator]
    with _bad_input():
        point = solution(problem, lam="optimal" if lam is None else lam, on_failure="return")
    columns = {
        "alpha": alpha.values,
        "mse": point.mse,
        "bayes": bsr.solve(problem, on_failure="return").mmse,
        **{name: getattr(point, name) for name in ("lam", "rank", "nuclear_norm", "train_loss")},
        "overlap": point.overlap,
        "status": _status_names(point.status),
    }
    _write(columns, {"estimator": estimator, **model.parameters}, style, output)
    _finish(ctx, point.status)


@main.command(
    epilog=_examples(
        "bsr simulate amp --alpha 0.2,0.5 --beta 1 --rho 0.5 --delta 0.1 --d1 20 --workers 1",
        "bsr simulate nuclear-norm --alpha 0.3 --beta 1 --rho 0.2 --d1 9 --workers 1 --output n.nc",
        "bsr simulate amp --channel sign --alpha 2 --beta 1 --rho 0.2 --d1 16 --workers 1",
    )
)
@click.argument(
    "estimator",
    type=click.Choice(
        ["amp", "nuclear-norm", "ridge", "gradient-descent", "averaged-gradient-descent"]
    ),
)
@_alpha_range
@_model()
@click.option(
    "--d1",
    type=click.IntRange(1),
    default=40,
    show_default=True,
    help="Rows of S; there are beta d1 columns and alpha d1 d2 labels.",
)
@click.option(
    "--samples", type=click.IntRange(1), default=8, show_default=True, help="Instances per alpha."
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="The same seed gives the same instances.",
)
@_lam
@click.option(
    "--steps",
    type=click.IntRange(1),
    help="Most iterations of a run; each algorithm has a default. Not for ridge.",
)
@click.option(
    "--start",
    type=float,
    help="Overlap with S that amp starts at, in (0, 1); by default it starts at 0, and with "
    "--channel abs stays there.",
)
@click.option(
    "--workers", type=click.IntRange(1), help="Number of processes; by default one for each core."
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, writable=True),
    metavar="FILE",
    callback=_dataset_file,
    help="netCDF file (.nc) for every run; an interrupted calculation goes on from it.",
)
@_formats("table", "csv", "json")
def simulate(
    estimator: str,
    alpha: _Range,
    model: _Model,
    d1: int,
    samples: int,
    seed: int,
    lam: float | Literal["optimal"] | None,
    steps: int | None,
    start: float | None,
    workers: int | None,
    output: str | None,
    style: str | None,
) -> None:
    """Run an algorithm on instances, beside the theory.

    Columns: alpha, mean error per entry mse_mean with its standard error mse_error, the theory of
    the algorithm at the ratios that size d1 has after rounding (not for gradient descent), the
    Bayes-optimal error bayes, and failures, the runs that did not converge.
    """
    convex = estimator in ("ridge", "nuclear-norm")
    options = {k: v for k, v in (("steps", steps), ("start", start)) if v is not None}
    with _bad_input():
        if estimator != "amp" and not model.linear:
            raise ValueError(f"channel must be linear for {estimator}, got {model.kind!r}")
        if lam is not None and not convex:
            raise ValueError(f"lam belongs to ridge and nuclear-norm, got {lam!r} for {estimator}")
        if steps is not None and estimator == "ridge":
            raise ValueError(f"steps must be left out for ridge, which takes none, got {steps}")
        if start is not None and estimator != "amp":
            raise ValueError(f"start belongs to amp, got {start!r} for {estimator}")
        if start is not None and not 0.0 < start < 1.0:
            raise ValueError(f"start must be in (0, 1), got {start!r}")
        if np.unique(alpha.values).size < alpha.values.size:
            raise ValueError("alpha must hold every value once")
        _check_simulated(estimator, model.signal)
        _prepare()
    with _bad_input(), _writing(output or "the results"), _warnings_said():
        try:
            data = bsr.simulations.compare(
                model.problem(alpha.values),
                estimator.replace("-", "_"),
                d1=d1,
                samples=samples,
                rng=seed,
                executor=cast("Any", "serial" if workers == 1 else workers),
                path=output,
                lam=(lam if lam is not None else "optimal") if convex else None,
                **cast("dict[str, Any]", options),
            )
        except RuntimeError as error:
            raise click.ClickException(str(error)) from error
    failed = data.status.values >= int(bsr.Status.NOT_CONVERGED)
    columns = {"alpha": data.alpha.values}
    for name in ("lam", "mse_mean", "mse_error", "theory", "bayes"):
        if name in data:
            columns[name] = data[name].values
    columns["failures"] = failed.sum(axis=data.status.get_axis_num("sample"))
    parameters = {"estimator": estimator, "channel": model.kind, **model.parameters}
    _write(columns, {**parameters, "d1": d1, "samples": samples, "seed": seed, **options}, style)
    if output is not None:
        click.echo(f"wrote {output}", err=True)
    if failed.any():
        more = "" if estimator == "ridge" else "; --steps allows more iterations"
        click.echo(f"{failed.sum()} of {failed.size} runs did not converge{more}", err=True)


def _check_simulated(estimator: str, signal: _Signal) -> None:
    """Say which signals an algorithm does not take."""
    name = signal.parameters.get("prior", _FACTORS)
    if "gradient" in estimator and name != _LOW_RANK and not signal.factors:
        raise ValueError(f"prior must be one of factors for {estimator}, got {name}")


@contextlib.contextmanager
def _warnings_said() -> Iterator[None]:
    """Say what the library warns of in one line each, when the work is done."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for text in dict.fromkeys(str(warning.message) for warning in caught):
        click.echo(text, err=True)


@main.command(
    epilog=_examples(
        "bsr figure",
        "bsr figure 1",
        "bsr figure 3 --fast",
        "bsr figure 5 --beta 2 --delta 0.1 --output figure_5_noisy.pdf",
        "bsr figure priors --fast",
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
@_file(
    "--weights",
    multiple=True,
    help="A matrix as for bsr solve in place of the signals of the figures priors and "
    "learning-curves. Repeat it to compare several of one shape, such as layers.",
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
    weights: tuple[str, ...],
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
        width = max(map(len, known))
        for name, recipe in known.items():
            options = "".join(f" --{option}" for option in recipe.parameters)
            options += " --weights" if recipe.any_prior else ""
            options += " --fast" if recipe.simulated else ""
            click.echo(
                f"{name:<{width}}  {recipe.title}" + (f" ({options[1:]})" if options else "")
            )
        return
    chosen = tuple(known) if "all" in names else tuple(dict.fromkeys(names))
    place = Path(output)
    is_file = bool(place.suffix) and not output.endswith("/") and not place.is_dir()
    if is_file and len(chosen) > 1:
        raise _BadInput(f"output must be a folder for {len(chosen)} figures, got {output!r}")
    stems = [Path(file).stem for file in weights]
    with _bad_input():
        if is_file:
            bsr.figures.check_path(place)
        if len(set(stems)) < len(stems):
            raise ValueError(f"weights must be files of different names, got {', '.join(stems)}")
        read = [_read_signal(weights=file).prior for file in weights]
        priors = dict(zip(stems, read, strict=True)) if weights else None
        _prepare()
    for name in chosen:
        given: dict[str, Any] = {"delta": delta, "beta": beta}
        if "all" in names:  # a figure that lacks a parameter is drawn as it is
            given = {key: value for key, value in given.items() if key in known[name].parameters}
        parts = [f"{key}_{value:g}" for key, value in given.items() if value is not None]
        parts += stems
        small = ["fast"] if fast and name in known and known[name].simulated else []
        path = place if is_file else place / f"{'_'.join(['figure', name, *parts, *small])}.png"
        with _bad_input(), _writing(path):
            picture = bsr.figures.make(name, priors=priors, fast=fast, path=path, **given)
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


# --------------------------------------------------------------------------------------------
# Explorer
# --------------------------------------------------------------------------------------------


@main.command(
    epilog=_examples(
        "bsr explore",
        "bsr explore --channel abs --alpha 0.45 --beta 1 --rho 0.2 --delta 0",
        "bsr explore --no-browser --port 5010",
    )
)
@click.option("--alpha", type=float, default=0.4, show_default=True, help="Samples per entry > 0.")
@click.option("--beta", type=float, default=2.0, show_default=True, help=_BETA)
@click.option("--rho", type=float, default=0.5, show_default=True, help=_RHO)
@click.option("--delta", type=float, default=0.1, show_default=True, help=_DELTA)
@functools.partial(_with_options, options=_channel_options)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Port at 127.0.0.1; by default 5006 or the next free one.",
)
@click.option("--no-browser", is_flag=True, help="Print the address and open nothing.")
def explore(port: int | None, no_browser: bool, **given: Any) -> None:
    """Open a page with a slider for each parameter.

    It shows the error against alpha, the spectrum with its denoiser, and the free entropy, live;
    the options say where it starts. Only this machine can reach it, and it needs no internet.
    """
    try:
        server = importlib.import_module("bsr_theory.explore.server")  # slow, and Bokeh is an extra
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("bsr_theory"):
            raise
        raise _BadInput("the explorer needs Bokeh: pip install 'bsr_theory[explore]'") from error
    with _bad_input():
        view = server.View(**{name: value for name, value in given.items() if value is not None})
        _prepare()
    try:
        server.serve(
            view,
            port,
            browser=not no_browser,
            ready=lambda address: click.echo(f"{address}  (Ctrl-C stops it)"),
        )
    except OSError as error:
        place = "a port" if port is None else f"port {port}"
        reason = error.strerror or error
        raise _BadInput(f"cannot listen at {place} of 127.0.0.1: {reason}") from error
