"""Write docs/benchmarks.md from what ``make bench`` measured.

    python benchmarks/report.py MEASURED.json PAGE.md

Numbers are rounded to two digits, tasks stand in the order of the benchmarks, and nothing says when
or on which host they ran: a second run on the same machine changes few lines.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

MICRO = "\u00b5"
QUANTITY = re.compile(f"(?<=[0-9]) (?=(?:s|ms|{MICRO}s|ns|MB)\\b)|(?<=<) (?=1e)")

OPENING = """\
# Benchmarks

`make bench` runs the benchmarks of `benchmarks/` and writes this page. Each task of the package
is timed by turns with other ways to do it, in one process, so that both see the same machine.
**Ratio** is the time of the other way over ours, for the same amount of work: the median over
rounds of the ratio within a round. Absolute times depend on the machine, ratios hardly.
**Each** is the time of one unit of the task: a value, a point, a pixel, a label. Calls are
repeated until a measurement takes 10 ms; the first call, which may compile, is not counted
except where it is the task.
"""

# What a group of benchmarks is called here, and what is compared in it.
THEMES: dict[str, tuple[str, str]] = {
    "denoising": (
        "Denoising: error and information",
        """\
The error $M(s)$ and the information $I_S(1/s)$ of a noisy product of Gaussian matrices. The
other ways find the spectrum from the roots of the quartic equation of its Stieltjes transform:
in `scipy.integrate.quad` over each bulk, to a given tolerance, or at all nodes of a
Gauss-Legendre rule with one call of `numpy.linalg.eigvals`. They are used where they work, at
beta = 2, rho = 0.2 and s from 0.05 to 0.2. The information is the integral of $M$. Errors are
relative, against 20 digits from mpmath. The rows without another way show what the parameters
cost.""",
    ),
    "curves": (
        "Fixed points and learning curves",
        """\
`solve` at beta = 2, rho = 0.5. The other ways: `scipy.optimize.brentq` over adaptive quadrature
for each alpha, and a call of `solve` for each alpha instead of one for all. Errors are
relative, against Newton's method over 25 digits of $M(s)$.""",
    ),
    "phases": (
        "Phase diagrams",
        """\
Planes of 300 x 300 pixels with their boundaries; every pixel has the Bayes-optimal error and
that of message passing. The other way solves every pixel on its own.""",
    ),
    "channels": (
        "Output channels",
        """\
The score of a label and its derivative, which message passing takes in every iteration, and the
precision of an overlap, which state evolution takes. Errors are relative, of scores, against 25
digits from mpmath.""",
    ),
    "estimators": (
        "Theory of convex estimators",
        """\
One point is the solution of two equations in the functionals of a thresholded spectrum. The
other way takes these from `scipy.integrate.quad_vec` over the roots of the quartic, and solves
with `scipy.optimize.root`. Errors are relative, of the error per entry, against 16 digits from
mpmath.""",
    ),
    "simulations": (
        "Algorithms on instances",
        """\
An iteration of GAMP-RIE, its singular value decomposition included, beside the two products
with X that it cannot do without. It forms both in one pass over X, so that the ratio may exceed
1. Ridge regression and the nuclear norm beside other solvers, which are given the matrix in
their own layout. The error of ridge regression is the norm of the gradient at the estimate over
that at 0, of the nuclear norm the relative excess of the objective.""",
    ),
    "theory": (
        "Theory beside one run",
        """\
What a number costs from theory, and from one run on an instance with d1 = 40, beta = 1.5, alpha
= 0.4. The error of the other way is how far that one run lies from the limit.""",
    ),
    "free probability": (
        "Free probability",
        """\
Laws that the package [freealg](https://ameli.github.io/freealg) has too. Its `FreeLevy` with
one jump is the law of a noisy symmetric signal, its `FussCatalan` of order 2 that of the
squared singular values of a product of two square matrices. It evaluates the density a distance
eta above the real axis: 2e-4 is its default, 1e-12 its best. The optimal error of a symmetric
signal follows from the third power of the density. freealg is general where these laws are
explicit here: it takes any number of jumps, and has no law of rectangular noisy products.
Errors are relative, against 30 digits from mpmath.""",
    ),
    "threads": (
        "Threads",
        """\
Arrays are solved in blocks by threads whose compiled loops hold no lock; `BSR_THREADS` says how
many, and all cores are the default.""",
    ),
    "starting": (
        "Starting",
        """\
Processes of their own, from start to end. Cold: nothing compiled is in the cache, as after an
installation.""",
    ),
    "memory": (
        "Memory",
        """\
How much the peak memory of a process grows during one call.""",
    ),
}


def rounded(x: float, digits: int = 2) -> str:
    """Return ``x`` to so many digits, without an exponent and with commas."""
    if x == 0 or not math.isfinite(x):
        return f"{x:g}"
    places = digits - 1 - math.floor(math.log10(abs(x)))
    x = round(x, places)
    places = digits - 1 - math.floor(math.log10(abs(x)))  # 9.96 has become 10.0
    return f"{x:,.{max(places, 0)}f}"


def duration(seconds: float) -> str:
    """Return seconds with a fitting unit."""
    for unit, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, f"{MICRO}s")):
        if seconds >= 0.9995 * unit:
            return f"{rounded(seconds / unit)} {name}"
    return f"{rounded(seconds / 1e-9)} ns"


def error(value: float | None) -> str:
    """Return a relative error to one digit; below 1e-15 it says nothing."""
    if value is None:
        return ""
    return "< 1e-15" if value < 1e-15 else f"{value:.0e}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table; columns with nothing in them are left out."""
    head, rows = list(head), [list(row) for row in rows]
    kept = [k for k in range(len(head)) if any(row[k] for row in rows)]
    lines = [[head[k] for k in kept], ["---"] * len(kept)]
    # narrow columns must not part a number from its unit
    lines += [[QUANTITY.sub("\u00a0", row[k].replace("|", "\\|")) for k in kept] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine(measured: Mapping[str, Any]) -> str:
    """Return what the ratios may depend on."""
    info = measured["machine_info"]
    own = info["bsr_theory"]
    versions = ", ".join(f"{name} {version}" for name, version in own["versions"].items())
    cores = "core" if own["threads"] == 1 else "cores"
    return "\n".join(
        [
            f"- Processor: {info.get('cpu', {}).get('brand_raw', 'unknown')}, {own['threads']} "
            f"{cores}; {own['system']}",
            f"- {own['python']}; {versions}",
            f"- Threads: 1 of the package unless the table says otherwise; linear algebra "
            f"({', '.join(own['blas']) or 'unknown'}) has {own['blas_threads']}",
        ]
    )


def theme(entries: Iterable[Mapping[str, Any]], cores: int) -> str:
    """Return the table of one theme: a line for each task and each other way to do it."""
    rows = []
    for entry in entries:
        article = "an" if entry["unit"][0] in "aeio" else "a"
        each = f"{duration(entry['seconds'])} {article} {entry['unit']}"
        threads = str(cores if entry["threads"] == "all" else entry["threads"])
        whole = duration(entry["seconds"] * entry["count"])
        each = each if entry["count"] > 1 else ""
        own = [entry["task"], threads, whole, each, error(entry["error"])]
        if not entry["peers"]:
            rows.append([*own, "", "", "", ""])
        for peer in entry["peers"]:
            other = [peer["name"], duration(peer["seconds"]), error(peer["error"])]
            rows.append([*own, *other, f"**{rounded(peer['ratio'])}**"])
            own = [""] * len(own)
    return table(
        [
            "Task", "Threads", "Time", "Each", "Error",
            "Other way", "Each of its", "Its error", "Ratio",
        ],
        rows,
    )  # fmt: skip


def memory(entries: Iterable[Mapping[str, Any]]) -> str:
    """Return the table of memory."""
    return table(
        ["Task", "Memory", "Each"],
        [
            [
                entry["task"],
                f"{rounded(entry['bytes'] / 1e6)} MB",
                f"{rounded(entry['bytes'] / entry['count'])} bytes",
            ]
            for entry in entries
        ],
    )


def promises(entries: Iterable[Mapping[str, Any]]) -> str:
    """Return the table of the bounds that the benchmarks hold the package to."""
    rows = []
    for entry in entries:
        for promise in entry.get("promises", ()):
            if promise["kind"] == "seconds":
                bound, measured = (
                    f"{duration(promise[k] * entry['count'])}" for k in ("bound", "measured")
                )
                bound = f"at most {bound}"
            else:
                bound = f"ratio at least {rounded(promise['bound'])}"
                measured = rounded(promise["measured"])
            rows.append([entry["task"], bound, measured, "yes" if promise["kept"] else "**no**"])
    return table(["Task", "Promise", "Measured", "Kept"], rows)


def report(measured: Mapping[str, Any]) -> str:
    """Return the page.

    Parameters
    ----------
    measured : mapping
        What pytest-benchmark wrote.

    Raises
    ------
    ValueError
        If there is no benchmark in it, or one of a group that the page does not know.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for benchmark in measured["benchmarks"]:
        groups.setdefault(benchmark["group"], []).append(benchmark["extra_info"])
    if not groups:
        raise ValueError("nothing was measured")
    if unknown := sorted(map(str, groups.keys() - THEMES.keys())):
        raise ValueError(f"group must be one of {', '.join(THEMES)}, got {', '.join(unknown)}")
    cores = measured["machine_info"]["bsr_theory"]["threads"]
    parts = [OPENING + "\n" + machine(measured)]
    for group, (title, text) in THEMES.items():
        if group in groups:
            lines = memory(groups[group]) if group == "memory" else theme(groups[group], cores)
            parts.append(f"## {title}\n\n{text}\n\n{lines}")
    everything = [entry for group in THEMES for entry in groups.get(group, ())]
    if any(entry.get("promises") for entry in everything):
        text = "Bounds on this machine that fail `make bench` when they are missed."
        parts.append(f"## Promises\n\n{text}\n\n{promises(everything)}")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    source, page = map(Path, sys.argv[1:])
    page.write_text(report(json.loads(source.read_text(encoding="utf-8"))), encoding="utf-8")
