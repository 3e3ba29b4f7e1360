"""Races: a task of the package and other ways to do it, timed by turns in one run.

Whatever else the machine does slows down both sides of a race, and a ratio is the median over
rounds of ratios within a round; it hardly changes when the absolute times double.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

SHORTEST = 0.01  # seconds that a measurement takes at least: quicker work is repeated


@dataclass(frozen=True)
class Peer:
    """Another way to do the task."""

    name: str
    work: Callable[[], Any]
    count: int = 1  # units of the task that one call of ``work`` does
    error: float | Callable[[Any], float] | None = None  # relative, or a function of the result
    every: bool = True  # False: too slow for each round, timed in the first alone


def machine() -> dict[str, Any]:
    """Return what ratios may depend on: the processor, versions and threads, no names."""
    import platform
    from importlib import metadata

    import threadpoolctl

    from bsr_theory._arrays import threads

    versions = {}
    for name in ("bsr_theory", "numpy", "scipy", "numba", "mpmath", "scikit-learn", "freealg"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    pools = threadpoolctl.threadpool_info()
    blas = [pool for pool in pools if pool["user_api"] == "blas"]
    kept = os.environ.pop("BSR_THREADS", None)
    available = threads()
    if kept is not None:
        os.environ["BSR_THREADS"] = kept
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": versions,
        "threads": available,
        "blas": sorted({str(pool["internal_api"]) for pool in blas}),
        "blas_threads": max((pool["num_threads"] for pool in blas), default=1),
    }


def on_threads(count: int | str, work: Callable[[], Any]) -> Callable[[], Any]:
    """Return ``work`` with the package on ``count`` threads, or on "all" cores."""

    def run() -> Any:
        before = os.environ.pop("BSR_THREADS", None)
        if count != "all":
            os.environ["BSR_THREADS"] = str(count)
        try:
            return work()
        finally:
            os.environ.pop("BSR_THREADS", None)
            if before is not None:
                os.environ["BSR_THREADS"] = before

    return run


def relative_error(values: Any, exact: Any) -> float:
    """Return the largest relative deviation; the difference is taken in the type of ``exact``."""
    pairs = zip(np.ravel(values).tolist(), np.ravel(np.asarray(exact, dtype=object)), strict=True)
    # unlike max, np.max never overlooks a NaN
    return float(np.max([float(abs(value - truth) / abs(truth)) for value, truth in pairs]))


def _clock(work: Callable[[], Any], repeat: int) -> tuple[float, Any]:
    start = time.perf_counter()
    for _ in range(repeat):
        result = work()
    return (time.perf_counter() - start) / repeat, result


def _repetitions(work: Callable[[], Any]) -> int:
    """Return how often to call for a measurable time; the first call compiles, reads or plans."""
    work()
    once = max(_clock(work, 1)[0], 1e-7)
    return max(1, math.ceil(SHORTEST / once))


class Race:
    """Time a task, and its peers between the rounds; keep the numbers with the benchmark."""

    def __init__(self, benchmark: Any, most_rounds: int | None) -> None:
        self.benchmark = benchmark
        self.most_rounds = most_rounds

    def __call__(
        self,
        task: str,
        work: Callable[[], Any],
        *,
        unit: str = "call",
        count: int = 1,
        peers: Iterable[Peer] = (),
        error: float | None = None,
        rounds: int = 5,
        threads: int | str = 1,
        warm: bool = True,
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> None:
        """Run the race.

        ``count`` units are done by a call of ``work``; ``at_most`` seconds a unit and ``at_least``
        times faster than the first peer are promises: missed, they fail the benchmark, after its
        numbers have been kept.  ``warm=False`` leaves out the first call, of work that takes long
        and has been prepared.
        """
        rounds = min(rounds, self.most_rounds or rounds)
        work, peers = on_threads(threads, work), list(peers)
        repeat = _repetitions(work) if warm else 1
        repeats = [_repetitions(peer.work) if peer.every else 1 for peer in peers]
        seconds: list[list[float]] = [[] for _ in peers]
        results: list[Any] = [None] * len(peers)

        def turn_of_the_peers() -> None:
            for k, (peer, often) in enumerate(zip(peers, repeats, strict=True)):
                if peer.every or not seconds[k]:
                    once, results[k] = _clock(peer.work, often)
                    seconds[k].append(once / peer.count)

        def ours() -> None:
            for _ in range(repeat):
                work()

        self.benchmark.pedantic(ours, setup=turn_of_the_peers, rounds=rounds)
        own = [x / (repeat * count) for x in self.benchmark.stats.stats.data]
        rows = []
        for peer, times, result in zip(peers, seconds, results, strict=True):
            ratios = [a / b for a, b in zip(times, own, strict=False)]
            rows.append(
                {
                    "name": peer.name,
                    "seconds": statistics.median(times),
                    "ratio": statistics.median(ratios),
                    "error": peer.error(result) if callable(peer.error) else peer.error,
                }
            )
        each = statistics.median(own)
        promises = []
        if at_most is not None:
            promises.append(asdict(Promise("seconds", at_most, each, each <= at_most)))
        if at_least is not None:
            ratio = rows[0]["ratio"]
            promises.append(asdict(Promise("ratio", at_least, ratio, ratio >= at_least)))
        self.benchmark.extra_info.update(
            task=task, unit=unit, count=count, seconds=each, error=error, threads=threads,
            rounds=rounds, peers=rows, promises=promises,
        )  # fmt: skip
        for promise in promises:
            assert promise["kept"], promise


@dataclass(frozen=True)
class Promise:
    """A bound that the task is held to."""

    kind: str  # "seconds" a unit at most, or "ratio" to the first peer at least
    bound: float
    measured: float
    kept: bool
