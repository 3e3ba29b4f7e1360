"""Functions for tests of sweeps, in a module of their own so that other processes can import them.

A call leaves a trace: a line in a file, which a killed process leaves behind, too.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import bsr_theory as bsr


def smooth(x: float, k: int) -> float:
    """Return a number whose every bit counts."""
    return math.exp(math.sin(x * (k + 1)))


def mixed(x: float, k: int, kind: str = "a") -> dict[str, Any]:
    """Return every kind of value, with histories of different length."""
    steps = k + 2
    return {
        "number": math.sin(x) / (k + 1),
        "count": k,
        "flag": x > 1,
        "word": f"{kind}{k}",
        "history": ("step", x ** np.arange(steps)),
        "visits": ("step", np.arange(steps)),
        "matrix": (("row", "column"), np.full((2, 3), x + k)),
        "unnamed": np.array([x, k]),
        "sometimes": k if k > 0 else None,
    }


def traced(trace: str, x: int, seconds: float = 0.0) -> float:
    """Write down that the point was computed, at its start and at its end."""
    _note(trace, f"start {x} {os.getpid()}")
    time.sleep(seconds)
    _note(trace, f"end {x} {os.getpid()}")
    return math.sqrt(2.0) ** x


def failing(trace: str, x: int) -> int:
    """Raise at x = 2 and 5, as long as there is no file "mended"."""
    _note(trace, f"start {x} {os.getpid()}")
    if x in (2, 5) and not Path(trace).with_name("mended").exists():
        raise ArithmeticError(f"{x} is not for me")
    return 10 * x


def interrupted(trace: str, x: int) -> float:
    """Be stopped by Ctrl-C at x = 6, as long as there is no file "mended"."""
    if x == 6 and not Path(trace).with_name("mended").exists():
        raise KeyboardInterrupt
    return traced(trace, x)


def dying(x: int) -> int:
    """End the process at x = 3, as the system does when memory runs out."""
    if x == 3:
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def threads_here(x: int) -> dict[str, Any]:
    """Return how many threads the linear algebra and the package have in this process."""
    import threadpoolctl

    from bsr_theory._arrays import threads

    pools = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]
    return {"blas": max(pools), "package": threads(), "process": os.getpid()}


def _note(trace: str, line: str) -> None:
    with open(trace, "a", encoding="utf-8") as file:
        file.write(line + "\n")


if __name__ == "__main__":  # python grid_functions.py TRACE PATH: a sweep to be killed
    import functools

    run = functools.partial(traced, sys.argv[1], seconds=0.15)
    bsr.sweep(run, executor=2, path=sys.argv[2], x=range(20))
