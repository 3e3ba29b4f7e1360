"""Every public function over its whole domain, and beyond it.

What is asked of each: finite numbers (infinite only where the formula is) for allowed values, NaN
at a bad element and nowhere else, the other elements bit for bit as if the bad ones were not
there, a ValueError that names the parameter for a bad scalar or what is no number at all, and no
warning.  The last test holds the list of public functions against the tests here.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import math
import pkgutil
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bsr_theory as bsr
from bsr_theory import attention, erm, limits, results, simulations, verify
from bsr_theory.spectra import (
    GaussianFactorLaw,
    MarchenkoPasturLaw,
    Measure,
    SymmetricFactorLaw,
    spherical,
)

INF, NAN = math.inf, math.nan
TINY = 5e-324
OPTIONS: dict[str, Any] = {}

# What is no real number, or no array of them.
NO_NUMBERS = [
    "text",
    "1.5",
    b"1",
    1.0 + 2.0j,
    np.array([1.0j, 2.0]),
    np.array(["1.0", "2.0"]),
    np.array(["1.0", 2.0], dtype=object),
    np.array("2024-01-01", dtype="datetime64[D]"),
    [[1.0], [1.0, 2.0]],
    {"a": 1.0},
    object(),
    10**400,
    [10**400, 1.0],
]


@dataclass(frozen=True)
class Real:
    """A real parameter: which numbers it allows, and the decades where it is of interest."""

    low: float = 0.0
    high: float = INF
    open_low: bool = False
    inf: bool = True
    decades: tuple[float, float] = (-4.0, 4.0)

    def allows(self, x: Any) -> Any:
        """Tell which numbers are allowed."""
        with np.errstate(invalid="ignore"):
            good = (np.greater if self.open_low else np.greater_equal)(x, self.low)
            good &= np.less_equal(x, self.high)
        return good if self.inf else good & np.isfinite(x)

    @property
    def corners(self) -> np.ndarray:
        """Allowed numbers where something may go wrong."""
        edges = [self.low, np.nextafter(self.low, INF), self.high, np.nextafter(self.high, -INF)]
        scale = 10.0 ** np.array(
            [-310, -200, -100, -45, -30, -17, -12, -8, -3, -1, 1, 3, 8, 17, 30]
        )
        huge = [1e60, 1e100, 1e154, 1e200, 1e308]
        ones = [0.0, TINY, 0.5, 1.0 - 2**-53, 1.0, 1.0 + 2**-52, 1.0 + 1e-9, 2.0]
        points = np.unique(np.concatenate([edges, scale, huge, ones]))
        if self.low < 0.0:
            points = np.unique(np.concatenate([-points, points]))
        return points[self.allows(points)] + 0.0

    def draw(self, rng: np.random.Generator, size: int, *, bad: bool) -> np.ndarray:
        """Return numbers: usual ones, extreme ones, and bad ones on demand."""
        start = self.low if np.isfinite(self.low) else 0.0
        with np.errstate(over="ignore"):
            usual = start + 10.0 ** rng.uniform(*self.decades, size)
            extreme = start + 10.0 ** rng.uniform(-320.0, 308.0, size)
        if self.low < 0.0:
            usual, extreme = (x * rng.choice([-1.0, 1.0], size) for x in (usual, extreme))
        corner = rng.choice(self.corners, size)
        values = np.choose(rng.integers(0, 4, size), [usual, usual, extreme, corner])
        values = np.where(self.allows(values), values, corner)
        if bad:
            wrong = [NAN, INF, -INF, -0.0, -TINY, -1.0, self.low - 1.0, self.high + 1.0]
            odd = np.where(
                rng.random(size) < 0.5, rng.choice(wrong, size), 1e3 * rng.normal(size=size)
            )
            values = np.where(rng.random(size) < 0.3, odd, values)
        return values


@dataclass(frozen=True)
class Case:
    """A function that acts on each element of its arguments."""

    call: Callable[..., Any]
    arguments: dict[str, Real]
    infinite: bool = False
    """Whether allowed arguments may give an infinite number."""
    check: Callable[..., None] | None = None
    """Called with the result(s) and the arguments, all flat and good."""
    columns: int = 1
    undefined: Callable[..., Any] | None = None
    """Tells where allowed arguments have no answer: NaN there is documented."""
    rtol: float = 0.0
    """Largest difference between elements alone and together."""


SHAPES = [(), (), (0,), (1,), (3,), (2, 3), (14,)]


def dressed(array: np.ndarray, how: str) -> Any:
    """Return the same numbers in another dress."""
    if how == "list":
        return array.tolist()
    if how == "object":
        return array.astype(object)
    if how == "reversed":
        return array[..., ::-1].copy()[..., ::-1] if array.ndim else array
    if how == "strided":
        return np.repeat(array, 2, axis=-1)[..., ::2] if array.ndim else array
    if how == "fortran":
        return np.asfortranarray(array)
    if how == "frozen":
        array = array.copy()
        array.flags.writeable = False
        return array
    if how == "scalar":
        return array.item() if array.ndim == 0 else array
    return array


DRESSES = ["plain", "list", "object", "reversed", "strided", "fortran", "frozen", "scalar"]


@st.composite
def calls(draw: Any, arguments: dict[str, Real]) -> dict[str, Any]:
    """Draw the arguments of a call: scalars and arrays that broadcast, good and bad."""
    shape = draw(st.sampled_from(SHAPES))
    bad = draw(st.sampled_from([False, False, True]))
    dress = draw(st.sampled_from(DRESSES))
    rng = np.random.default_rng(draw(st.integers(0, 2**63)))
    found = {}
    for name, real in arguments.items():
        own = shape if rng.random() < 0.6 else ()
        if len(own) == 2 and rng.random() < 0.5:
            own = (own[0], 1)
        array = np.reshape(real.draw(rng, math.prod(own), bad=bad), own)
        found[name] = dressed(array, dress if rng.random() < 0.7 else "plain")
    return found


def parts(result: Any) -> tuple[Any, ...]:
    return tuple(result) if isinstance(result, tuple) else (result,)


def examine(case: Case, call: dict[str, Any]) -> None:
    """Hold one call against what is asked of every function."""
    values = {name: np.asarray(value, dtype=np.float64) for name, value in call.items()}
    good = {name: case.arguments[name].allows(value) for name, value in values.items()}
    wrong = [name for name, value in values.items() if value.ndim == 0 and not good[name]]
    if wrong:
        with pytest.raises(ValueError) as caught:
            case.call(**call)
        assert any(name in str(caught.value) for name in wrong), caught.value
        return
    results = parts(case.call(**call))
    assert len(results) == case.columns
    shape = np.broadcast_shapes(*(value.shape for value in values.values()))
    fine = np.broadcast_to(np.logical_and.reduce(list(np.broadcast_arrays(*good.values()))), shape)
    rest = {name: np.broadcast_to(value, shape)[fine] for name, value in values.items()}
    hole = np.zeros(fine.sum(), dtype=bool)
    if case.undefined is not None:
        hole = np.broadcast_to(case.undefined(**rest), hole.shape)
    flat = []
    for result in results:
        assert np.shape(result) == shape
        assert shape or isinstance(result, float), type(result)
        array = np.asarray(result)
        assert array.dtype == np.float64
        assert np.isnan(array[~fine]).all()
        flat.append(array[fine])
        wild = np.isnan(array[fine]) if case.infinite else ~np.isfinite(array[fine])
        lost = wild & ~hole
        assert not lost.any(), (
            lost.sum(),
            *({k: x[lost][:5] for k, x in rest.items()}, array[fine][lost][:5]),
        )
    if case.check is not None:
        case.check(*(x[~hole] for x in flat), **{k: x[~hole] for k, x in rest.items()})
    # bad elements change nothing for the others
    if fine.any() and not fine.all():
        # a scalar stays one: NumPy takes its powers by another routine than those of an array
        own = {name: call[name] if values[name].ndim == 0 else x for name, x in rest.items()}
        for alone, together in zip(parts(case.call(**own)), flat, strict=True):
            if case.rtol:
                np.testing.assert_allclose(together, alone, rtol=case.rtol, atol=0.0)
            else:
                np.testing.assert_array_equal(together, alone)


def fuzz(strategy: st.SearchStrategy[Any], examples: int, test: Callable[[Any], None]) -> None:
    """Run a test on examples of a strategy."""
    settings(
        max_examples=examples,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        **OPTIONS,
    )(given(strategy)(test))()


def in_parts(few: int) -> list[Any]:
    """Return (examples, part): a few for every day, and ten parts of 1000 for what takes hours.

    A part is the first word of the seeds of its examples, so that no two draw the same ones.
    """
    parts = [pytest.param(1000, part, marks=pytest.mark.slow) for part in range(1, 11)]
    return [(few, 0), *parts]


# --------------------------------------------------------------------------------------------
# Functions of numbers
# --------------------------------------------------------------------------------------------

BETA = Real(1.0, decades=(-9.0, 4.0))
RHO = Real(open_low=True)
NOISE = Real(decades=(-12.0, 8.0))
DELTA = Real(inf=False, decades=(-10.0, 3.0))
ALPHA = Real(open_low=True, inf=False, decades=(-3.0, 1.0))
UNIT = Real(high=1.0, decades=(-9.0, -0.01))


def between(low: float, high: float, slack: float = 1e-12) -> Callable[..., None]:
    def check(value: np.ndarray, **_: np.ndarray) -> None:
        assert np.all(value >= low - slack), value
        assert np.all(value <= high + slack), value

    return check


CASES: dict[str, Case] = {}


def limit(name: str, infinite: bool = False, **options: Any) -> None:
    """Add a function of `limits`; parameters have the meaning of their names."""
    meaning = {
        "alpha": ALPHA, "alpha_lr": ALPHA, "beta": BETA, "rho": RHO, "delta": DELTA, "lam": DELTA,
        "s": NOISE, "snr": NOISE,
    }  # fmt: skip
    function = getattr(limits, name)
    changed = options.pop("changed", {})
    arguments = {k: changed.get(k, meaning[k]) for k in inspect.signature(function).parameters}
    CASES[f"limits.{name}"] = Case(function, arguments, infinite, **options)


FINITE = Real(open_low=True, inf=False)
PART = Real(high=1.0, open_low=True, decades=(-4.0, -0.001))
limit("ridge_mse", infinite=True)  # the interpolation peak
limit("ridge_train_loss", infinite=True)
limit("mmse_infinite_beta", check=between(0.0, 1.0))
limit("information_infinite_beta", infinite=True, check=between(0.0, INF))
limit("solve_infinite_beta", check=between(0.0, 1.0))
limit("mmse_infinite_rho", check=between(0.0, 1.0))
limit("information_infinite_rho", infinite=True, check=between(0.0, INF))
limit("solve_infinite_rho", check=between(0.0, 1.0))
limit("alpha_low_rank", infinite=True, changed={"alpha": Real(inf=False), "rho": FINITE})
limit("alpha_from_low_rank", infinite=True, changed={"alpha_lr": Real(inf=False), "rho": FINITE})
limit("low_rank_overlap", check=between(0.0, 1.0))
limit("low_rank_information", infinite=True, check=between(0.0, INF))
limit("low_rank_mmse", check=between(0.0, 1.0))
limit("weak_recovery_low_rank", infinite=True, check=between(0.0, INF))
limit("strong_recovery", check=between(0.0, 1.0))
limit("small_s_coefficients", infinite=True, columns=2)
limit("mmse_small_s", infinite=True, changed={"s": Real(inf=False)})
limit("information_small_s", infinite=True, changed={"s": FINITE})
limit(
    "mmse_near_strong_recovery",
    infinite=True,
    undefined=lambda beta, rho, **_: (beta == 1.0) & (rho == 1.0),  # "no solution, far from there"
)
limit("nuclear_norm_recovery_infinite_beta", check=between(0.0, 1.0))
limit("nuclear_norm_recovery_square", check=between(0.0, 1.0))
limit("bulk_merging_square", infinite=True, changed={"rho": PART})
limit(
    "mmse_large_s", infinite=True, changed={"beta": Real(1.0, inf=False), "s": Real(open_low=True)}
)
limit(
    "information_large_s",
    infinite=True,
    changed={"beta": Real(1.0, inf=False), "s": Real(open_low=True)},
)


# -- priors ----------------------------------------------------------------------------------


def mmse_in_bounds(value: np.ndarray, s: np.ndarray, **_: np.ndarray) -> None:
    # what the best linear estimate achieves is not exceeded
    with np.errstate(invalid="ignore"):
        linear = np.where(np.isinf(s), 1.0, s / (1.0 + s))
    assert np.all(value >= 0.0)
    assert np.all(value <= linear * (1.0 + 1e-10)), value
    assert np.all(value[np.isinf(s)] == 1.0)
    assert np.all(value[s == 0.0] == 0.0)


def both_in_bounds(mmse: np.ndarray, overlap: np.ndarray, **rest: np.ndarray) -> None:
    mmse_in_bounds(mmse, rest["s"])
    np.testing.assert_allclose(overlap, 1.0 + rest.get("shift", 0.0) - mmse, rtol=0, atol=1e-9)


def prior_cases(
    prior: type, parameters: dict[str, Real], names: dict[str, Callable[..., None] | None]
) -> None:
    def calling(name: str) -> Callable[..., Any]:
        def call(**given: Any) -> Any:
            last = list(given)[-1]
            argument = given.pop(last)
            return getattr(prior(**given), name)(argument)

        return call

    for name, check in names.items():
        argument = {
            "information": {"snr": NOISE},
            "strong_recovery_gap": {"alpha": Real(inf=False)},
        }.get(name, {"s": NOISE})
        CASES[f"{prior.__name__}.{name}"] = Case(
            calling(name), parameters | argument, infinite=name == "information", check=check
        )


positive = between(0.0, INF, 1e-300)
answers = {
    "mmse": mmse_in_bounds,
    "overlap": between(0.0, 1.0, 0.0),
    "deficit": between(0.0, 2.0, 1e-9),
    "information": positive,
    "strong_recovery_gap": None,
}
prior_cases(bsr.GaussianFactorPrior, {"beta": BETA, "rho": RHO}, answers)
prior_cases(bsr.SymmetricFactorPrior, {"rho": FINITE}, answers | {
    "overlap": positive, "explained_variance": between(0.0, 1.0, 0.0)})  # fmt: skip


def low_rank_bounds(value: np.ndarray, **_: np.ndarray) -> None:
    between(0.0, 1.0)(value)


prior_cases(
    bsr.LowRankFactorPrior,
    {"beta": BETA},
    answers | {"mmse": low_rank_bounds},
)
CASES["LowRankFactorPrior.outlier"] = Case(
    lambda beta, s: bsr.LowRankFactorPrior(beta).outlier(s),
    {"beta": BETA, "s": NOISE},
    infinite=True,
    undefined=lambda beta, s: ~(s < 0.999 * np.sqrt(beta)) | (s > 1e150),
)


# -- channels --------------------------------------------------------------------------------


def channel_cases(name: str, channel: Callable[..., Any], parameters: dict[str, Real]) -> None:
    def calling(method: str) -> Callable[..., Any]:
        def call(q: Any, **given: Any) -> Any:
            return getattr(channel(**given), method)(q)

        return call

    for method in ("precision", "information", "generalization_error"):
        CASES[f"{name}.{method}"] = Case(
            calling(method),
            parameters | {"q": UNIT},
            infinite=method != "generalization_error",
            check=None if method == "information" else positive,
            # found between nodes in log q, of up to 700, whose last digit depends on its place
            rtol=0.0 if name in ("GaussianChannel", "SignChannel") else 3e-13,
        )


channel_cases("GaussianChannel", bsr.GaussianChannel, {"delta": DELTA})
channel_cases("SignChannel", bsr.SignChannel, {"delta": DELTA})
channel_cases("AbsChannel", bsr.AbsChannel, {"delta": DELTA})
channel_cases("ReLUChannel", bsr.ReLUChannel, {"delta": DELTA})
channel_cases("LogisticChannel", bsr.LogisticChannel, {"gain": DELTA})
channel_cases(
    "QuantizedChannel",
    lambda delta: bsr.QuantizedChannel((-0.5, 1.0), delta),
    {"delta": DELTA},
)


def at_corners(case: Case, most: int) -> None:
    """Examine all combinations of corners, or so many of them."""
    grid = np.meshgrid(*(real.corners for real in case.arguments.values()), indexing="ij")
    columns = np.stack([x.ravel() for x in grid])
    if columns.shape[1] > most:
        columns = np.random.default_rng(0).permuted(columns, axis=1)[:, :most]
    examine(case, dict(zip(case.arguments, columns, strict=True)))


@pytest.mark.parametrize("most", [1000, pytest.param(40_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CASES)
def test_corners(name: str, most: int) -> None:
    at_corners(CASES[name], most)


CASES["erm.nuclear_norm_threshold"] = Case(
    erm.nuclear_norm_threshold,
    {"rho": RHO, "beta": BETA},
    check=between(0.0, 1.0),
)
EXAMPLES = [10, pytest.param(10_000, marks=pytest.mark.slow)]


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("name", CASES)
def test_function_of_numbers(name: str, examples: int) -> None:
    case = CASES[name]
    fuzz(calls(case.arguments), examples, lambda call: examine(case, call))


@pytest.mark.parametrize("name", CASES)
def test_what_is_no_number_is_named(name: str) -> None:
    case = CASES[name]
    usual = {k: 0.5 if real.high == 1.0 else 1.5 for k, real in case.arguments.items()}
    for parameter in usual:
        for nonsense in NO_NUMBERS:
            with pytest.raises(ValueError, match=parameter):
                case.call(**usual | {parameter: nonsense})
    if len(usual) > 1:
        first, second = list(usual)[:2]
        with pytest.raises(ValueError, match=r"broadcast|shape"):
            case.call(**usual | {first: np.ones(2), second: np.ones(3)})


# --------------------------------------------------------------------------------------------
# Scores: labels and means are any numbers
# --------------------------------------------------------------------------------------------

BINARY, REALS, COUNTS = (-1.0, 1.0), (-30.0, -0.5, 0.0, 1e-9, 2.0, 500.0), (0.0, 1.0, 2.0)
SCORES: dict[str, tuple[Callable[[Any], Any], tuple[float, ...]]] = {
    "GaussianChannel": (bsr.GaussianChannel, REALS),
    "SignChannel": (bsr.SignChannel, BINARY),
    "AbsChannel": (bsr.AbsChannel, REALS),
    "ReLUChannel": (bsr.ReLUChannel, REALS),
    "LogisticChannel": (bsr.LogisticChannel, BINARY),
    "QuantizedChannel": (lambda delta: bsr.QuantizedChannel((-0.5, 1.0), delta), COUNTS),
}


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("name", SCORES)
def test_scores(name: str, examples: int) -> None:
    make, labels = SCORES[name]
    noisy = name not in ("SignChannel", "LogisticChannel", "QuantizedChannel")

    def test(seed: int) -> None:
        rng = np.random.default_rng(seed)
        y, omega = rng.choice(labels, 12), rng.choice([-1, 1], 12) * 10 ** rng.uniform(-6, 3, 12)
        V, delta = 10 ** rng.uniform(-8, 4, 12), 10 ** rng.uniform(-6, 3, 12)
        delta[rng.random(12) < 0.3] = 0.0
        g, slope = make(delta).score(y, omega, V)
        fine = np.ones(12, bool) if not noisy else (y > 0) | (delta > 0)
        assert np.isfinite(g[fine]).all() and np.isfinite(slope[fine]).all(), (y, omega, V, delta)
        bad = rng.integers(4)
        columns = [y.copy(), omega.copy(), V.copy(), delta.copy()]
        columns[bad][3] = NAN
        again = make(columns[3]).score(*columns[:3])
        for old, new in zip((g, slope), again, strict=True):
            assert np.isnan(new[3])
            np.testing.assert_array_equal(np.delete(new, 3), np.delete(old, 3))

    fuzz(st.integers(0, 2**63), examples, test)
    for at in range(3):
        for nonsense in NO_NUMBERS:
            given = [1.0, 1.0, 1.0]
            given[at] = nonsense
            with pytest.raises(ValueError, match=("y", "omega", "V")[at]):
                make(0.5).score(*given)


# --------------------------------------------------------------------------------------------
# State evolution
# --------------------------------------------------------------------------------------------

PROBLEMS: dict[str, tuple[Callable[..., bsr.Problem], dict[str, Real]]] = {
    "gaussian": (bsr.bilinear_regression, {"beta": BETA, "rho": RHO, "delta": DELTA}),
    "symmetric": (
        lambda alpha, rho, delta: bsr.Problem(
            bsr.SymmetricFactorPrior(rho), bsr.GaussianChannel(delta), alpha
        ),
        {"rho": FINITE, "delta": DELTA},
    ),
    "low rank": (
        lambda alpha, beta, delta: bsr.Problem(
            bsr.LowRankFactorPrior(beta), bsr.GaussianChannel(delta), alpha
        ),
        {"beta": BETA, "delta": DELTA},
    ),
    "sign": (
        lambda alpha, beta, rho, delta: bsr.Problem(
            bsr.GaussianFactorPrior(beta, rho), bsr.SignChannel(delta), alpha
        ),
        {"beta": BETA, "rho": RHO, "delta": DELTA},
    ),
    "absolute": (
        lambda alpha, rho: bsr.Problem(
            bsr.GaussianFactorPrior(2.0, rho), bsr.AbsChannel(0.0), alpha
        ),
        {"rho": RHO},
    ),
}
# Where every point is solved: outside, a Status may say that it is not.
REAL_RANGE = {"alpha": (1e-3, 1e3), "beta": (1.0, 1e8), "rho": (1e-3, 1e8), "delta": (1e-12, 1e6)}


def in_real_range(name: str, x: np.ndarray) -> np.ndarray:
    low, high = REAL_RANGE[name]
    ends = {"alpha": (), "beta": (INF,), "rho": (INF,), "delta": (0.0,)}[name]
    return (x >= low) & (x <= high) | np.isin(x, ends)


def solved(name: str, call: dict[str, Any]) -> None:
    make, parameters = PROBLEMS[name]
    arguments = parameters | {"alpha": ALPHA}
    values = {k: np.asarray(x, dtype=np.float64) for k, x in call.items()}
    good = {k: arguments[k].allows(x) for k, x in values.items()}
    wrong = [k for k, x in values.items() if x.ndim == 0 and not good[k]]
    if wrong:
        with pytest.raises(ValueError) as caught:
            make(**call)
        assert any(k in str(caught.value) for k in wrong)
        return
    problem = make(**call)
    point = bsr.solve(problem, on_failure="return")
    shape = np.broadcast_shapes(*(x.shape for x in values.values()))
    assert point.shape == shape
    fine = np.broadcast_to(np.logical_and.reduce(list(np.broadcast_arrays(*good.values()))), shape)
    rest = {k: np.broadcast_to(x, shape)[fine] for k, x in values.items()}
    status, mmse = np.asarray(point.status), np.asarray(point.mmse)
    assert np.all(status[~fine] == bsr.Status.INVALID_INPUT)
    ok = status < bsr.Status.NOT_CONVERGED
    for field_name in ("mmse", "q", "qhat", "information"):
        array = np.asarray(getattr(point, field_name))
        assert np.array_equal(np.isnan(array), ~ok), field_name
    assert np.all((mmse[ok] >= 0.0) & (mmse[ok] <= 1.0 + 1e-12))
    usual = np.logical_and.reduce([in_real_range(k, x) for k, x in rest.items()])
    assert ok[fine][usual].all(), {k: x[usual & ~ok[fine]] for k, x in rest.items()}
    if fine.any() and not fine.all():
        alone = bsr.solve(make(**rest), on_failure="return")
        np.testing.assert_array_equal(mmse[fine], alone.mmse)
        np.testing.assert_array_equal(status[fine], alone.status)
    if usual.any():
        some = {k: x[usual] for k, x in rest.items()}
        more = bsr.solve(make(**some | {"alpha": 1.1 * some["alpha"]}), on_failure="return")
        known = more.status < bsr.Status.NOT_CONVERGED
        assert np.all(more.mmse[known] <= mmse[fine][usual][known] * (1.0 + 1e-9))
        if "delta" in some:
            noisier = bsr.solve(make(**some | {"delta": 1.1 * some["delta"]}), on_failure="return")
            known = noisier.status < bsr.Status.NOT_CONVERGED
            assert np.all(noisier.mmse[known] >= mmse[fine][usual][known] * (1.0 - 1e-9))
        useless = bsr.solve(make(**some | {"alpha": np.full(usual.sum(), 1e-12)}))
        if name != "sign":
            np.testing.assert_allclose(useless.mmse, 1.0, atol=1e-6)
    # the other ways to look at it
    steps = bsr.iterate(problem, 2)
    assert not np.isnan(steps.mmse[fine]).any()
    assert np.isnan(steps.mmse[~fine][..., 1:]).all()
    entropy = bsr.free_entropy(problem, problem.prior.prior_overlap + 0.5)
    assert np.array_equal(np.isnan(entropy), ~fine)


@pytest.mark.parametrize("examples", [5, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", PROBLEMS)
def test_state_evolution(name: str, examples: int) -> None:
    _, parameters = PROBLEMS[name]
    fuzz(calls({"alpha": ALPHA} | parameters), examples, lambda call: solved(name, call))


def test_options_of_state_evolution() -> None:
    problem = bsr.bilinear_regression(0.4, 2.0, 0.5, 0.1)
    for steps in (0, -1, 1.5, "3", None, True, NAN):
        with pytest.raises(ValueError, match="steps"):
            bsr.iterate(problem, steps)
    for q in (-0.1, 1.1, NAN, "q", 1j):
        with pytest.raises(ValueError, match="q"):
            bsr.iterate(problem, 2, q=q)
        with pytest.raises(ValueError, match="q"):
            bsr.free_entropy(problem, q)
    for tolerance in (-1.0, NAN, "x", [1e-9, 1e-8], None, 1j):
        with pytest.raises(ValueError, match="tolerance"):
            bsr.solve(problem, tolerance=tolerance)
        with pytest.raises(ValueError, match="tolerance"):
            bsr.fixed_points(problem, tolerance=tolerance)
    with pytest.raises(ValueError, match="on_failure"):
        bsr.solve(problem, on_failure="ignore")
    unset = bsr.Problem(problem.prior, problem.channel)
    for call in (bsr.solve, bsr.fixed_points, lambda p: bsr.iterate(p, 1)):
        with pytest.raises(ValueError, match="alpha"):
            call(unset)


@pytest.mark.parametrize("examples", [5, pytest.param(10_000, marks=pytest.mark.slow)])
def test_fixed_points(examples: int) -> None:
    def test(call: dict[str, Any]) -> None:
        values = {k: np.asarray(x, dtype=np.float64) for k, x in call.items()}
        meaning = {"alpha": ALPHA, "beta": BETA, "rho": RHO, "delta": DELTA}
        good = {k: meaning[k].allows(x) for k, x in values.items()}
        if any(x.ndim == 0 and not good[k] for k, x in values.items()):
            return
        every = bsr.fixed_points(bsr.bilinear_regression(**call))
        fine = np.logical_and.reduce(list(np.broadcast_arrays(*good.values())))
        shape = every.mmse.shape[:-1]
        fine = np.broadcast_to(fine, shape)
        assert np.all(every.status[~fine][..., :1] == bsr.Status.INVALID_INPUT)
        ok = every.status < bsr.Status.NOT_CONVERGED
        for name in ("mmse", "q", "slope"):
            assert np.isnan(getattr(every, name)[~ok]).all()
            assert not np.isnan(getattr(every, name)[ok]).any(), (name, call)
        count = np.asarray(every.count)
        assert np.all(count[~fine] == 0) and np.all(count <= len(every))

    arguments = {"alpha": ALPHA, "beta": BETA, "rho": RHO, "delta": DELTA}
    fuzz(calls(arguments), examples, test)


# --------------------------------------------------------------------------------------------
# Laws of singular values and eigenvalues
# --------------------------------------------------------------------------------------------

LAWS: dict[str, tuple[Callable[..., Any], dict[str, Real], float]] = {
    "GaussianFactorLaw": (
        GaussianFactorLaw,
        {
            "beta": Real(1.0, inf=False, decades=(-6.0, 3.0)),
            "rho": Real(open_low=True, inf=False, decades=(-3.0, 2.0)),
            "s": Real(inf=False, decades=(-6.0, 3.0)),
        },
        0.0,
    ),
    "SymmetricFactorLaw": (
        SymmetricFactorLaw,
        {
            "rho": Real(open_low=True, inf=False, decades=(-3.0, 2.0)),
            "s": Real(inf=False, decades=(-6.0, 3.0)),
        },
        -INF,
    ),
    "MarchenkoPasturLaw": (
        MarchenkoPasturLaw,
        {
            "beta": BETA,
            "ratio": Real(inf=False, decades=(-6.0, 3.0)),
            "scale": Real(open_low=True, inf=False, decades=(-3.0, 3.0)),
            "shift": Real(inf=False, decades=(-3.0, 3.0)),
        },
        0.0,
    ),
}


@pytest.mark.parametrize("examples", [4, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", LAWS)
def test_laws(name: str, examples: int) -> None:
    make, parameters, lowest = LAWS[name]

    def test(seed: int) -> None:
        rng = np.random.default_rng(seed)
        usual = {
            k: real.low + 10.0 ** rng.uniform(*real.decades) if rng.random() < 0.9 else real.low
            for k, real in parameters.items()
        }
        usual = {k: v if parameters[k].allows(v) else 1.0 for k, v in usual.items()}
        law = make(**usual)
        edges = law.edges
        assert edges.ndim == 2 and edges.shape[1] == 2 and np.isfinite(edges).all()
        assert np.all(np.diff(edges.ravel()) >= 0.0), usual
        rule = law.quadrature()
        assert np.isfinite(rule.y).all() and np.all(rule.weights >= 0.0), usual
        assert abs(rule.weights.sum() - 1.0) < 1e-6, usual
        assert abs(law.integrate(lambda y: 0.0 * y + 1.0, nodes=8).value - 1.0) < 1e-6
        assert np.isfinite(law.moments([0, 1, 2])).all()
        top = float(max(np.max(edges, initial=0.0), np.max(law.atoms[:, 0], initial=0.0)))
        inner = np.concatenate([edges.mean(axis=1), edges.ravel()])
        outer = np.array([0.0, 1e-300, 0.3 * top, 2.0 * top, 1e3 * top, 1e150, INF])
        y = np.concatenate([inner, outer, -outer if lowest < 0.0 else []])
        density = law.density(y)
        assert np.all(density >= 0.0), usual  # inf at hard edges
        for method in ("hilbert", "log_potential", "denoised", "shrink_factor"):
            if hasattr(law, method):
                value = getattr(law, method)(y)
                # at an atom and at y = 0 there are poles
                atoms = np.isin(y, law.atoms[:, 0]) | (np.abs(y) < 1e-100) | np.isinf(y)
                assert np.isfinite(value[~atoms]).all(), (method, usual, y[~np.isfinite(value)])
                with_bad = np.append(y, [NAN, -1.0 if lowest == 0.0 else NAN])
                again = getattr(law, method)(with_bad)
                np.testing.assert_array_equal(again[:-2], value)
                assert np.isnan(again[-2:]).all()
        z = np.concatenate([rng.normal(size=4) + 1j * rng.normal(size=4), [2.0 * top**2 + 1.0]])
        assert np.isfinite(law.stieltjes(z)).all(), (usual, z)
        for bad in (NAN, "y", 1j, {}):
            for method in ("density", "hilbert", "log_potential"):
                with pytest.raises(ValueError, match="y"):
                    getattr(law, method)(bad)
        for nodes in (0, -1, 1.5, "4", 10**6, True):
            with pytest.raises(ValueError, match="nodes"):
                law.quadrature(nodes)

    fuzz(st.integers(0, 2**63), examples, test)
    usual = dict.fromkeys(parameters, 1.0)
    for parameter, real in parameters.items():
        wrong = [real.low - 1.0, NAN, -INF, *([] if real.inf else [INF]), [1.0, 2.0], *NO_NUMBERS]
        for value in wrong:
            with pytest.raises(ValueError, match=parameter):
                make(**usual | {parameter: value})


def is_refused(prior: Any, s: float) -> bool:
    """Tell where a prior may refuse a law: where no number tells its parts apart."""
    rho, beta = getattr(prior, "rho", 1.0), getattr(prior, "beta", 1.0)
    if isinstance(prior, bsr.GaussianFactorPrior):
        return not 1e-16 <= rho <= 1e14 or s > 1e100
    if isinstance(prior, bsr.SymmetricFactorPrior):
        alike = rho**-0.5 * (1.0 + s) ** -1.5 < 1e-11 if rho >= 1.0 else s * rho > 1e8
        return alike or rho < 1e-24
    if isinstance(prior, bsr.LowRankFactorPrior):
        return not 1e-150 <= s <= 1e150
    if isinstance(prior, bsr.RotationallyInvariantPrior) and beta >= 1e50:
        return True
    return s > 0.99e60 or 0.0 < s < 1.1e-31 * beta**0.5


@pytest.mark.parametrize("examples", [30, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "kind", ["factors", "symmetric factors", "low rank", "singular values", "eigenvalues"]
)
def test_laws_and_denoisers(kind: str, examples: int) -> None:
    """At all parameters: a law that is one or a ValueError, and a denoiser that is a number."""

    def test(seed: int) -> None:
        rng = np.random.default_rng(seed)
        beta, rho, s = (float(x.draw(rng, 1, bad=False)[0]) for x in (BETA, RHO, NOISE))
        values = rng.exponential(size=3) + np.array([0.1, 0.0, 0.0])
        prior: Any = {
            "factors": lambda: bsr.GaussianFactorPrior(beta, rho),
            "symmetric factors": lambda: bsr.SymmetricFactorPrior(min(rho, 1e300)),
            "low rank": lambda: bsr.LowRankFactorPrior(beta),
            "singular values": lambda: bsr.RotationallyInvariantPrior(values, beta, normalize=True),
            "eigenvalues": lambda: bsr.SymmetricPrior(values - 0.5, normalize=True),
        }[kind]()
        positive = kind not in ("symmetric factors", "eigenvalues")
        y = 1.5 * np.abs(rng.normal(size=5)) * np.sqrt(1.0 + min(s, 1e300))
        y = np.concatenate([y, [0.0, 1e-200, 1e150], [] if positive else -y])
        where = (prior, s, values)
        try:
            shrunk = prior.shrink(y, s)
        except ValueError as error:
            # between Gaussian factors and entries the parts of the law are too unlike
            assert kind == "factors" and rho > 1e14 and beta > 1e-11 * rho, where
            assert "rho" in str(error), where
        else:
            assert np.isfinite(shrunk).all(), where
            assert kind == "eigenvalues" or np.all(shrunk >= 0.0), where
            assert kind not in ("factors", "low rank") or np.all(shrunk <= y), where
            bad = prior.shrink(np.append(y, NAN), s)
            np.testing.assert_array_equal(bad[:-1], shrunk)
            assert np.isnan(bad[-1])
        try:
            law = prior.law(s)
        except ValueError as error:
            assert is_refused(prior, s), where
            assert re.search("rho must|s must|beta must", str(error)), error
            return
        edges, rule = law.edges, law.quadrature()
        assert np.isfinite(edges).all() and np.all(np.diff(edges.ravel()) >= 0.0), where
        assert np.isfinite(rule.y).all() and np.all(rule.weights >= 0.0), where
        assert abs(rule.weights.sum() - 1.0) < 1e-6, where
        assert np.all(law.density(y) >= 0.0), where

    fuzz(st.integers(0, 2**63), examples, test)


THETA = Real(inf=False, decades=(-6.0, 6.0))
SNR = Real(inf=False, decades=(-8.0, 8.0))


@pytest.mark.parametrize("examples", [20, pytest.param(10_000, marks=pytest.mark.slow)])
def test_spherical_integrals(examples: int) -> None:
    """Between 0 and the largest exponent, for all strengths; a law that is no help is named."""

    def test(seed: int) -> None:
        rng = np.random.default_rng(seed)
        kind = str(rng.choice(["GaussianFactorLaw", "MarchenkoPasturLaw"]))
        make, parameters, _ = LAWS[kind]
        usual = rng.random() < 0.7
        given = {
            k: real.low + 10.0 ** rng.uniform(*real.decades)
            if usual or rng.random() < 0.7
            else float(real.draw(rng, 1, bad=False)[0])
            for k, real in parameters.items()
        }
        theta, dyson = THETA.draw(rng, 3, bad=False), int(rng.integers(1, 3))
        try:
            law = make(**given)
            edge = max(np.max(law.edges, initial=0.0), np.max(law.atoms[:, 0], initial=0.0))
            top = float(edge * (1.0 + (rng.random() < 0.5) * 10.0 ** rng.uniform(-12.0, 3.0)))
            value = spherical.rank_one_limit(theta, law, dyson=dyson, largest=top)
            threshold = spherical.rank_one_threshold(law, largest=top)
            every = spherical.finite_rank_limit(theta, law, dyson=dyson, outliers=[top] * 3)
        except ValueError as error:
            assert not usual, (kind, given, theta)
            assert re.search("law|beta|rho|s rho|largest|must", str(error)), error
        else:
            with np.errstate(over="ignore"):
                most = dyson * theta * top
                assert np.all(value >= -1e-11), (kind, given, theta, top)
                assert np.all(value <= most * (1.0 + 1e-9) + 1e-11), (kind, given, theta, top)
                assert threshold >= 0.0
                np.testing.assert_allclose(every, value.sum(), rtol=1e-12, atol=1e-300)
            bad = spherical.rank_one_limit(np.append(theta, NAN), law, dyson=dyson, largest=top)
            np.testing.assert_array_equal(bad[:-1], value)
            assert np.isnan(bad[-1])
        beta, rho = (float(x.draw(rng, 1, bad=False)[0]) for x in (BETA, RHO))
        prior: Any = bsr.GaussianFactorPrior(beta, rho)
        if rng.random() < 0.5:
            prior = bsr.SymmetricFactorPrior(min(rho, 1e300))
        snr = SNR.draw(rng, 4, bad=False)
        limit = spherical.asymptotic_limit(prior, snr, dyson=dyson)
        with np.errstate(over="ignore"):
            energy = dyson * snr * prior.second_moment
            assert np.all(limit >= -1e-12 * energy), (prior, snr)
            assert np.all(limit <= energy * (1.0 + 1e-12) + 1e-300), (prior, snr)
        a, b = rng.exponential(size=(2, int(rng.integers(1, 4))))
        a[rng.random(a.size) < 0.3], strength = 0.0, 10.0 ** rng.uniform(-320.0, 2.0)
        d2 = a.size + int(rng.integers(0, 4))
        exact = spherical.exact_log_integral(a, b, snr=strength, d2=d2)
        most = 2.0 * strength * np.sort(a) @ np.sort(b) + 1e-300
        assert 0.0 <= exact <= most, (a, b, strength, d2)
        with pytest.raises(ValueError, match="snr"):
            spherical.exact_log_integral(a + 1.0, b + 1.0, snr=10.0 ** rng.uniform(8.0, 308.0))

    fuzz(st.integers(0, 2**63), examples, test)


# --------------------------------------------------------------------------------------------
# Matrices
# --------------------------------------------------------------------------------------------


def some_matrix(rng: np.random.Generator) -> np.ndarray:
    """Return a matrix of any size, scale and rank."""
    shape = rng.integers(1, 9, 2)
    kind = rng.integers(5)
    if kind == 0:
        matrix = np.zeros(shape)
    elif kind == 1:
        matrix = np.outer(rng.normal(size=shape[0]), rng.normal(size=shape[1]))
    elif kind == 2:
        matrix = np.ones(shape)
    else:
        matrix = rng.normal(size=shape)
    return matrix * 10.0 ** rng.uniform(-30, 30)


BAD_MATRICES = [
    np.empty((0, 3)),
    np.ones(3),
    np.ones((2, 2, 2)),
    1.0,
    [[1.0, NAN], [0.0, 1.0]],
    [[1.0, INF], [0.0, 1.0]],
    [[1.0, 1j], [0.0, 1.0]],
    [["a", "b"], ["c", "d"]],
    [[1.0, 2.0], [3.0]],
    None,
    "matrix",
]


@pytest.mark.parametrize("examples", [20, pytest.param(10_000, marks=pytest.mark.slow)])
def test_matrices(examples: int) -> None:
    def test(seed: int) -> None:
        rng = np.random.default_rng(seed)
        Y = some_matrix(rng)
        noise = 10.0 ** rng.uniform(-6, 6)
        for prior in (bsr.GaussianFactorPrior(2.0, 0.5), bsr.LowRankFactorPrior(2.0)):
            estimate = prior.denoise(Y, noise)
            assert estimate.shape == Y.shape and np.isfinite(estimate).all()
            assert np.linalg.norm(estimate) <= np.linalg.norm(Y) * (1.0 + 1e-9)
        square = Y @ Y.T / np.linalg.norm(Y) if Y.any() else np.zeros((len(Y), len(Y)))
        estimate = bsr.SymmetricFactorPrior(0.5).denoise(square, noise)
        assert np.isfinite(estimate).all()
        assert np.linalg.eigvalsh(estimate).min() >= -1e-12 * np.abs(estimate).max()
        if min(Y.shape) < 2:
            with pytest.raises(ValueError, match="Y"):
                bsr.denoise_matrix(Y, noise)
            return
        result = bsr.denoise_matrix(Y, noise)
        assert np.isfinite(result.estimate).all() and np.isfinite(result.mse)
        assert np.all(result.shrunk >= 0.0)
        assert bsr.estimate_noise(Y) >= 0.0
        result = bsr.denoise_matrix(Y)
        assert np.isfinite(result.estimate).all() and np.isfinite(result.mse), Y

    fuzz(st.integers(0, 2**63), examples, test)


@pytest.mark.parametrize("Y", BAD_MATRICES, ids=lambda Y: repr(Y)[:30])
def test_what_is_no_matrix_is_named(Y: Any) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: bsr.denoise_matrix(Y, 1.0),
        lambda: bsr.denoise_matrix(Y),
        lambda: bsr.estimate_noise(Y),
        lambda: bsr.GaussianFactorPrior(2.0, 0.5).denoise(Y, 0.1),
        lambda: bsr.LowRankFactorPrior(2.0).denoise(Y, 0.1),
        lambda: bsr.SymmetricFactorPrior(0.5).denoise(Y, 0.1),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="Y"):
            call()
    for noise in (0.0, -1.0, NAN, INF, "a", [1.0], 1j):
        with pytest.raises(ValueError, match="noise"):
            bsr.denoise_matrix(np.eye(3), noise)
    for bandwidth in (0.0, -1.0, NAN, INF, "a", [1.0]):
        with pytest.raises(ValueError, match="bandwidth"):
            bsr.denoise_matrix(np.eye(3), 1.0, bandwidth=bandwidth)


# --------------------------------------------------------------------------------------------
# Arguments that are refused: each call works as it stands, and not with one of these values
# --------------------------------------------------------------------------------------------

POSITIVE_INTEGER = [0, -1, 1.5, 2.0, "3", True, NAN, [1, 2], 1j]
NOT_NEGATIVE = [-1.0, -TINY, NAN, INF, "x", "1.0", [1.0, 2.0], 1j]
POSITIVE = [0.0, *NOT_NEGATIVE]
NAMES = ["no such name", 1.5, ["a"]]


@functools.cache
def instance() -> bsr.Instance:
    return bsr.bilinear_regression(1.5, 1.0, 0.5, 0.1).sample(4, rng=0)


@functools.cache
def tokens() -> Any:
    return attention.sample(attention.softmax_attention(2.0, 0.5, 2, 0.1), 4, rng=0)


@functools.cache
def regression(kind: str = "normalised") -> attention.AttentionRegression:
    rng = np.random.default_rng(0)
    A1, A2 = rng.normal(size=(2, 3, 3, 2))
    B = rng.dirichlet(np.ones(3), size=(3, 3))
    return attention.AttentionRegression(A1, A2, B, kind)


# Arguments that are parameters of another class, which names them.
ALIASES = {"b": ("B",)}


class Refusal(NamedTuple):
    """A call that works, and values of its arguments that it refuses by name."""

    call: Callable[..., Any]
    given: dict[str, Any]
    refused: dict[str, list[Any]]


PROBLEM = bsr.bilinear_regression(0.5, 2.0, 0.5, 0.1)
REFUSALS: dict[str, Refusal] = {
    "Problem": Refusal(
        lambda alpha: bsr.Problem(PROBLEM.prior, PROBLEM.channel, alpha),
        {"alpha": 0.5},
        {"alpha": [0.0, -1.0, NAN, INF, *NO_NUMBERS]},
    ),
    "Problem.sample": Refusal(
        PROBLEM.sample,
        {"d1": 4, "rng": 0},
        {
            "d1": POSITIVE_INTEGER,
            "design": NAMES,
            "path": ["file.npy"],
            "rank": [2],
            "dtype": ["int8", "complex128", "no such type"],
        },
    ),
    "Problem.at_size": Refusal(PROBLEM.at_size, {"d1": 4}, {"d1": POSITIVE_INTEGER}),
    "QuantizedChannel": Refusal(
        bsr.QuantizedChannel,
        {"thresholds": [0.0, 1.0]},
        {"thresholds": [[], [1.0, 0.0], [0.0, 0.0], [NAN], [INF], 1.0, "x", ["a"], [1j], None]},
    ),
    "OutputChannel": Refusal(
        bsr.OutputChannel,
        {"likelihood": lambda y, h: 0.5 + 0.0 * y * h, "outputs": (-1.0, 1.0)},
        {
            "likelihood": [None, 1.0, lambda y, h: 1.0 + 0.0 * y * h, lambda y, h: NAN * y * h],
            "outputs": [[], [1.0, 0.0], [NAN], "x", [1j]],
            "support": [(1.0, 0.0), (0.0,), "x", (NAN, 1.0)],
            "points": [[NAN], [1.0, 0.0], "x"],
            "breaks": [[NAN], [1.0, 0.0], "x"],
            "noiseless_share": [-0.1, 1.1, NAN, "x"],
        },
    ),
    "simulations.amp": Refusal(
        lambda **given: simulations.amp(instance(), rng=0, **given),
        {"steps": 3},
        {
            "steps": POSITIVE_INTEGER,
            "tolerance": NOT_NEGATIVE,
            "start": [0.0, -0.5, 2.0, NAN, "x", np.ones((2, 2)), np.full((4, 4), NAN), 1j],
            "damping": [-0.1, 1.0, NAN, "x", [0.1, 0.2], 1j],
        },
    ),
    "simulations.gradient_descent": Refusal(
        lambda **given: simulations.gradient_descent(instance(), rng=0, **given),
        {"steps": 3},
        {
            "steps": POSITIVE_INTEGER,
            "patience": POSITIVE_INTEGER,
            "record": POSITIVE_INTEGER,
            "rank": POSITIVE_INTEGER,
            "initialisations": POSITIVE_INTEGER,
            "learning_rate": POSITIVE,
            "init_scale": POSITIVE,
            "weight_decay": NOT_NEGATIVE,
            "tolerance": NOT_NEGATIVE,
            "init": ["x", (1.0, 2.0), (np.ones((2, 2)), np.ones((2, 2)))],
        },
    ),
    "simulations.averaged_gradient_descent": Refusal(
        lambda **given: simulations.averaged_gradient_descent(instance(), rng=0, **given),
        {"steps": 3, "initialisations": 2},
        {"steps": POSITIVE_INTEGER, "initialisations": [1, *POSITIVE_INTEGER]},
    ),
    "simulations.ridge": Refusal(
        lambda lam: simulations.ridge(instance(), lam), {"lam": 0.1}, {"lam": NOT_NEGATIVE}
    ),
    "simulations.nuclear_norm": Refusal(
        lambda lam, **given: simulations.nuclear_norm(instance(), lam, **given),
        {"lam": 0.1, "steps": 5},
        {"lam": NOT_NEGATIVE, "steps": POSITIVE_INTEGER, "tolerance": NOT_NEGATIVE},
    ),
    "simulations.compare": Refusal(
        lambda **given: simulations.compare(PROBLEM, progress=False, **given),
        {
            "estimator": "ridge",
            "d1": 4,
            "samples": 2,
            "rng": 0,
            "lam": 0.1,
            "executor": "serial",
        },
        {
            "estimator": ["no such", 1.0, None],
            "d1": POSITIVE_INTEGER,
            "samples": POSITIVE_INTEGER,
            "rng": [-1, "x", 1.5],
            "theory": ["no such"],
            "design": NAMES,
        },
    ),
    "attention.AttentionRegression": Refusal(
        lambda **given: attention.AttentionRegression(**given),
        {"A1": np.ones((2, 3, 2)), "A2": np.ones((2, 3, 2)), "B": np.full((2, 3, 3), 1 / 3)},
        {
            "A1": [
                None,
                "x",
                1.0,
                np.ones((2, 3, 2)) * NAN,
                np.ones((0, 3, 2)),
                1j * np.ones((2, 3, 2)),
            ],
            "A2": [None, "x", 1.0, np.ones((2, 3, 2)) * INF, np.ones((2, 0, 2))],
            "B": [None, "x", 1.0, np.full((2, 3, 3), NAN), np.ones((3, 3, 3))],
            "kind": NAMES,
            "regularization": NOT_NEGATIVE,
        },
    ),
    "attention.softmax_regression": Refusal(
        lambda **given: attention.softmax_regression(**given),
        {"A": np.eye(3), "b": np.full(3, 1 / 3)},
        {
            "A": [None, "x", 1.0, np.eye(3) * NAN],
            "b": [None, "x", np.full(3, NAN), np.ones(2)],
            "kind": NAMES,
            "regularization": NOT_NEGATIVE,
        },
    ),
    "attention.fit": Refusal(
        lambda **given: attention.fit(regression(), **given),
        {"steps": 20},
        {
            "method": NAMES,
            "init": ["no such", np.ones((7, 7)), np.full((3, 3), NAN)],
            "tolerance": [0.0, -1.0, NAN, 1.0, "x", [1e-3, 1e-4]],
            "steps": POSITIVE_INTEGER,
        },
    ),
    "attention.lipschitz_constants": Refusal(
        lambda radius: attention.lipschitz_constants(regression(), radius),
        {"radius": 1.0},
        {"radius": NOT_NEGATIVE},
    ),
    "attention.paper_lipschitz_constants": Refusal(
        attention.paper_lipschitz_constants,
        {"radius": 4.0, "n": 3},
        {"radius": NOT_NEGATIVE, "n": POSITIVE_INTEGER, "beta": POSITIVE},
    ),
    "attention.kronecker_operator": Refusal(
        attention.kronecker_operator,
        {"A1": np.eye(2), "A2": np.eye(3)},
        {"A1": [None, "x", 1.0, np.diag([1.0, NAN])], "A2": [None, "x", 1.0, np.diag([1.0, INF])]},
    ),
    "spherical.exact_log_integral": Refusal(
        spherical.exact_log_integral,
        {"a": [1.0, 0.5], "b": [1.0, 2.0]},
        {
            "a": [[], [NAN, 1.0], [-1.0, 1.0], "x", [[1.0]], [1.0], [1j, 1.0]],
            "b": [[], [INF, 1.0], [-1.0, 1.0], "x", [[1.0]], [1.0]],
            "snr": NOT_NEGATIVE,
            "d2": [1, *POSITIVE_INTEGER],
        },
    ),
    "spherical.asymptotic_limit": Refusal(
        lambda **given: spherical.asymptotic_limit(PROBLEM.prior, **given),
        {"snr": 0.5},
        {"snr": [-1.0, NAN, INF, *NO_NUMBERS], "dyson": [0, 3, 1.5, "x", None, True]},
    ),
    "spherical.rank_one_limit": Refusal(
        lambda **given: spherical.rank_one_limit(law=PROBLEM.prior.law(0.1), **given),
        {"theta": 0.5},
        {
            "theta": [-1.0, NAN, INF, *NO_NUMBERS],
            "dyson": [0, 3, 1.5, "x", None, True],
            "largest": [0.1, NAN, INF, "x", [9.0, 9.0]],
        },
    ),
    "spherical.rank_one_threshold": Refusal(
        lambda **given: spherical.rank_one_threshold(PROBLEM.prior.law(0.1), **given),
        {},
        {"largest": [0.1, NAN, INF, "x", [9.0, 9.0]]},
    ),
    "spherical.finite_rank_limit": Refusal(
        lambda **given: spherical.finite_rank_limit(law=PROBLEM.prior.law(0.1), **given),
        {"thetas": [0.5, 0.2]},
        {
            "thetas": [[-1.0], [NAN], [[1.0]], "x"],
            "dyson": [0, 3, "x"],
            "outliers": [[0.1], [NAN], "x"],
        },
    ),
    "spherical.quantile_means": Refusal(
        lambda n: spherical.quantile_means(PROBLEM.prior.law(0.1), n),
        {"n": 3},
        {"n": POSITIVE_INTEGER},
    ),
    "spherical.finite_size_extrapolation": Refusal(
        lambda **given: spherical.finite_size_extrapolation(
            PROBLEM.prior.law(0.1), PROBLEM.prior.law(0.2), **given
        ),
        {"snr": 0.1, "sizes": (2, 3, 4, 5, 6)},
        {
            "snr": NOT_NEGATIVE,
            "sizes": [(), (3, 2, 4, 5, 6), (2.5, 3, 4, 5, 6), (0, 1, 2, 3, 4), "sizes"],
            "exponents": [(), ((-1.0,),), ((NAN,),)],
        },
    ),
    "Measure.from_samples": Refusal(
        Measure.from_samples,
        {"values": [1.0, 2.0]},
        {"values": [[], [NAN], [INF], "x", [1j], None]},
    ),
    "Measure.from_atoms": Refusal(
        Measure.from_atoms,
        {"values": [1.0, 2.0], "masses": [0.5, 0.5]},
        {
            "values": [[], [NAN, 1.0], "x", [1j, 2.0]],
            "masses": [[], [0.5], [0.7, 0.7], [-0.5, 1.5], [NAN, 1.0], "x"],
        },
    ),
    "Measure.from_histogram": Refusal(
        Measure.from_histogram,
        {"counts": [1.0, 2.0], "edges": [0.0, 1.0, 2.0]},
        {
            "counts": [[], [0.0, 0.0], [-1.0, 2.0], [NAN, 1.0], "x"],
            "edges": [[0.0, 1.0], [2.0, 1.0, 0.0], [0.0, NAN, 1.0], "x"],
        },
    ),
    "Measure.from_density": Refusal(
        Measure.from_density,
        {"density": lambda x: 0.0 * x + 1.0, "intervals": [(0.0, 1.0)]},
        {
            "density": [lambda x: 2.0 + 0.0 * x, lambda x: NAN * x, lambda x: -1.0 + 0.0 * x],
            "intervals": [[(1.0, 0.0)], [(0.0, INF)], [(0.0, 1.0), (0.5, 1.5)], [(NAN, 1.0)]],
            "atoms": [[(0.0, -0.5)], [(NAN, 0.5)]],
        },
    ),
    "Measure.scaled": Refusal(
        Measure.from_samples([1.0]).scaled, {"factor": 2.0}, {"factor": POSITIVE}
    ),
    "RotationallyInvariantPrior": Refusal(
        bsr.RotationallyInvariantPrior,
        {"singular_values": [0.5, 1.5], "beta": 2.0},
        {
            "singular_values": [[], [0.0], [-1.0, 1.0], [NAN], "x", None],
            "beta": [0.5, NAN, "x", [1.0, 2.0], 1j],
        },
    ),
    "SymmetricPrior": Refusal(
        bsr.SymmetricPrior, {"eigenvalues": [-1.0, 1.0]}, {"eigenvalues": [[], [NAN], "x", None]}
    ),
    "sweep": Refusal(
        lambda **given: bsr.sweep(lambda x: x, progress=False, **given),
        {"x": [1.0, 2.0], "executor": "serial"},
        {
            "executor": ["no such"],
            "shard": [(2, 2), (-1, 2), (0, 0), (0.5, 2)],
            "on_failure": ["ignore"],
        },
    ),
    "verify.run": Refusal(verify.run, {"only": []}, {"only": ["no such certificate"]}),
    "results.report_failures": Refusal(
        lambda on_failure: results.report_failures(np.array([0]), on_failure),
        {"on_failure": "warn"},
        {"on_failure": ["ignore", None, 1]},
    ),
}
for _name in ("hardmax", "quadratic", "linear", "self", "softmax", "cross"):
    _call = {
        "hardmax": attention.hardmax_attention,
        "quadratic": attention.quadratic_network,
        "linear": attention.linear_attention,
        "self": attention.self_attention,
        "softmax": attention.softmax_attention,
        "cross": attention.cross_attention,
    }[_name]
    _given: dict[str, Any] = {"alpha": 0.5, "rho": 0.5}
    _refused: dict[str, list[Any]] = {"alpha": POSITIVE[:], "rho": POSITIVE[:]}
    for _parameter in inspect.signature(_call).parameters:
        if "tokens" in _parameter:
            _given[_parameter], _refused[_parameter] = 3, POSITIVE_INTEGER[:]
        elif _parameter == "beta":
            _given["beta"], _refused["beta"] = 2.0, [0.5, NAN, "x", 1j]
        elif _parameter == "masked":
            _given["masked"] = True
        elif _parameter == "delta":
            _given["delta"], _refused["delta"] = 0.1, NOT_NEGATIVE[:]
        elif _parameter == "sharpness":
            _refused["sharpness"] = POSITIVE[:]
        elif _parameter in ("noise", "output"):
            _refused[_parameter] = NAMES[:]
    for _values in _refused.values():  # arrays of these are allowed
        if [1.0, 2.0] in _values:
            _values[:] = [x for x in _values if x != [1.0, 2.0]]
    if _name in ("self", "cross"):  # of a `GaussianFactorPrior`
        _refused["rho"].remove(INF)
    REFUSALS[f"attention.{_call.__name__}"] = Refusal(_call, _given, _refused)


@pytest.mark.parametrize("name", REFUSALS)
def test_refused_by_name(name: str) -> None:
    call, given, refused = REFUSALS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bsr.ConvergenceWarning)
        call(**given)
    for parameter, values in refused.items():
        for value in values:
            with pytest.raises(ValueError) as caught:
                call(**given | {parameter: value})
            names = (parameter, *ALIASES.get(parameter, ()))
            assert any(n in str(caught.value) for n in names), (parameter, value, caught.value)


# --------------------------------------------------------------------------------------------
# Estimators, priors of any singular values, thresholds
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("examples", [3, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("estimator", [erm.ridge, erm.nuclear_norm])
def test_convex_estimators(estimator: Callable[..., Any], examples: int) -> None:
    def test(seed: int) -> None:
        rng = np.random.default_rng(seed)
        alpha, beta, rho, delta, lam = (
            x.draw(rng, 5, bad=False) for x in (ALPHA, BETA, RHO, DELTA, DELTA)
        )
        penalty: Any = "optimal" if rng.random() < 0.3 else lam
        problem = bsr.bilinear_regression(alpha, beta, rho, delta)
        point = estimator(problem, lam=penalty, on_failure="return")
        ok = point.status < bsr.Status.NOT_CONVERGED
        assert np.all(ok | (point.status == bsr.Status.NOT_CONVERGED)), (problem, penalty)
        # beyond, the effective noise is no number or the estimate has no digits
        with np.errstate(over="ignore"):
            seen = (alpha > 1e-12) & (alpha < 1e100) & ((1.0 + delta) / alpha < 1e290)
        seen &= (delta < 1e200) & (lam < 1e200) & (rho > 1e-290)
        seen &= (alpha != 1.0) | (lam > 1e-200)  # the peak of interpolation
        with np.errstate(over="ignore"):
            least = delta + np.minimum(rho, 1.0) * np.minimum(lam / alpha, 1.0) ** 2
        seen &= (lam == 0.0) | (least > 1e-290)
        assert np.all(ok | (~seen & (estimator is erm.nuclear_norm))), (problem, penalty)
        for name in ("mse", "overlap", "norm", "train_loss", "rank", "nuclear_norm"):
            value = getattr(point, name)
            assert np.isnan(value[~ok]).all()
            assert not np.isnan(value[ok]).any(), (name, problem, penalty)
            assert np.all(value[ok] >= 0.0), (name, problem, penalty)
        best = bsr.solve(problem, on_failure="return")
        good = ok & (best.status < bsr.Status.NOT_CONVERGED) & (point.effective_noise < 1e290)
        assert np.all(point.mse[good] >= best.mmse[good] * (1.0 - 1e-6) - 1e-12), (problem, penalty)
        bad = int(rng.integers(5))
        columns = [alpha.copy(), beta.copy(), rho.copy(), delta.copy(), lam.copy()]
        columns[int(rng.integers(4 if penalty is not lam else 5))][bad] = NAN
        again = estimator(
            bsr.bilinear_regression(*columns[:4]),
            lam=columns[4] if penalty is lam else penalty,
            on_failure="return",
        )
        assert np.isnan(again.mse[bad]) and again.status[bad] == bsr.Status.INVALID_INPUT
        np.testing.assert_array_equal(np.delete(again.mse, bad), np.delete(point.mse, bad))

    fuzz(st.integers(0, 2**63), examples, test)
    for value in [-1.0, NAN, "x", 1j]:
        with pytest.raises(ValueError, match="lam"):
            estimator(PROBLEM, lam=value)
    with pytest.raises(ValueError, match="on_failure"):
        estimator(PROBLEM, on_failure="x")


@pytest.mark.parametrize("examples", [3, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("rule", [erm.soft_threshold, erm.hard_threshold])
def test_rules_for_singular_values(rule: Callable[..., Any], examples: int) -> None:
    def test(seed: int) -> None:
        rng = np.random.default_rng(seed)
        s, tau = NOISE.draw(rng, 5, bad=False), Real().draw(rng, 5, bad=False)
        s[:2], tau[:2] = 10.0 ** rng.uniform(-3, 2, 2), 10.0 ** rng.uniform(-2, 1, 2)
        beta, rho = (float(x.draw(rng, 1, bad=False)[0]) for x in (BETA, RHO))
        prior: Any = bsr.GaussianFactorPrior(beta, rho)
        if rng.random() < 0.3:
            prior = bsr.RotationallyInvariantPrior([0.0, 0.5, 1.0, rng.random()], beta)
        threshold: Any = "optimal" if rng.random() < 0.3 else tau
        found = rule(prior, s, threshold)
        where = (prior, s, threshold)
        for name in ("mse", "overlap", "norm", "rank", "nuclear_norm"):
            values = getattr(found, name)
            assert not np.isnan(values).any(), (name, where, values)
            assert np.isfinite(values[s < 1e300]).all(), (name, where)
            assert np.all(values >= 0.0), (name, where, values)
        assert np.all(found.mse >= prior.mmse(s) * (1.0 - 1e-9) - 1e-12), where
        s[2] = NAN
        again = rule(prior, s, threshold)
        assert np.isnan(again.mse[2])
        np.testing.assert_array_equal(np.delete(again.mse, 2), np.delete(found.mse, 2))

    fuzz(st.integers(0, 2**63), examples, test)
    for nonsense in NO_NUMBERS:
        with pytest.raises(ValueError, match="s"):
            rule(PROBLEM.prior, nonsense, 1.0)
        with pytest.raises(ValueError, match="tau"):
            rule(PROBLEM.prior, 0.3, nonsense)


@pytest.mark.parametrize("examples", [4, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("symmetric", [False, True])
def test_priors_of_any_singular_values(symmetric: bool, examples: int) -> None:
    def test(seed: int) -> None:
        rng = np.random.default_rng(seed)
        values = rng.choice([0.5, 1.0, 3.0], int(rng.integers(1, 6))) + 0.2 * rng.random()
        values *= 10.0 ** rng.uniform(-3, 3)
        many, most = 10.0 ** rng.uniform([1.0, 50.1], [49.0, 308.0])
        beta = [1.0, 1.0 + rng.random(), many, most, INF][int(rng.integers(5))]
        if symmetric:  # all equal, S would be known
            values = np.append(values, -0.5 * values[0])
        prior: Any = (
            bsr.SymmetricPrior(values * rng.choice([-1.0, 1.0], values.size), normalize=True)
            if symmetric
            else bsr.RotationallyInvariantPrior(values, beta, normalize=True)
        )
        s = np.array([0.0, 1e-60, 1e-9, 1e-3, 0.3, 1.0, 30.0, 1e6, 1e100, INF])
        known = 1.0 - prior.prior_overlap
        if symmetric:
            every = bsr.rotational.without_symmetry(prior)
            assert abs(every.second_moment - 1.0) < 1e-9
            assert every.measure.support[0] >= 0.0
        mmse, overlap = prior.mmse_and_overlap(s)
        assert np.isfinite(mmse).all() and np.isfinite(overlap).all(), (values, beta)
        assert np.all(mmse >= 0.0) and np.all(mmse <= np.minimum(s, known) * (1.0 + 1e-9) + 1e-12)
        assert np.all(np.diff(mmse) >= -1e-9)
        assert abs(mmse[-1] - known) < 1e-9
        information = prior.information(1.0 / s[1:])
        assert not np.isnan(information).any() and np.all(np.diff(information) <= 1e-9)
        assert np.isfinite(prior.deficit(s)).all()
        bad = prior.mmse(np.append(s, [NAN, -1.0]))
        np.testing.assert_array_equal(bad[:-2], mmse)
        assert np.isnan(bad[-2:]).all()
        y = np.abs(rng.normal(size=5)) * 3.0
        for noise in (1e-3, 0.3, 30.0):
            shrunk = prior.shrink(y, noise)
            assert np.isfinite(shrunk).all()
            if beta > 1e50 and not symmetric:
                with pytest.raises(ValueError, match="beta"):
                    prior.law(noise)
                continue
            law = prior.law(noise)
            rule = law.quadrature()
            assert abs(rule.weights.sum() - 1.0) < 1e-6
            assert np.all(law.density(y) >= 0.0)

    fuzz(st.integers(0, 2**63), examples, test)


CASES_OF_THRESHOLDS = [
    (bsr.GaussianFactorPrior, {"beta": 2.0, "rho": 0.5}, bsr.GaussianChannel(0.0)),
    (bsr.GaussianFactorPrior, {"beta": 1.0, "rho": INF}, bsr.GaussianChannel(0.1)),
    (bsr.LowRankFactorPrior, {"beta": 3.0}, bsr.SignChannel(0.0)),
    (bsr.SymmetricFactorPrior, {"rho": 0.3}, bsr.GaussianChannel(0.0)),
]


@pytest.mark.parametrize(("prior", "given", "channel"), CASES_OF_THRESHOLDS)
def test_thresholds(prior: Any, given: dict[str, float], channel: bsr.Channel) -> None:
    found = bsr.thresholds(prior(**given), channel)
    for name in ("weak_recovery", "algorithmic", "information_theoretic", "strong_recovery"):
        value = getattr(found, name)
        assert math.isnan(value) or value >= 0.0
    with_bad = bsr.thresholds(prior(**{k: [v, NAN] for k, v in given.items()}), channel)
    first, second = np.asarray(with_bad.status)
    assert first == found.status and second == bsr.Status.INVALID_INPUT
    assert np.isnan(with_bad.strong_recovery[1])
    np.testing.assert_array_equal(with_bad.strong_recovery[0], found.strong_recovery)


# --------------------------------------------------------------------------------------------
# Instances and algorithms, of a few rows
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("examples", [10, pytest.param(10_000, marks=pytest.mark.slow)])
def test_instances_and_algorithms(examples: int) -> None:
    def test(seed: int) -> None:
        rng = np.random.default_rng(seed)
        beta, rho = 1.0 + rng.integers(3) * rng.random(), 10.0 ** rng.uniform(-2, 1)
        delta = [0.0, 1e-6, 0.1, 1e6][int(rng.integers(4))]
        alpha = 10.0 ** rng.uniform(-1, 0.7)
        kind = int(rng.integers(4))
        channel = [bsr.GaussianChannel, bsr.SignChannel, bsr.AbsChannel, bsr.ReLUChannel][kind]
        problem = bsr.Problem(bsr.GaussianFactorPrior(beta, rho), channel(delta), alpha)
        d1 = int(rng.integers(1, 6))
        d2 = round(beta * d1)
        if round(alpha * d1 * d2) < 1:
            with pytest.raises(ValueError, match="alpha"):
                problem.sample(d1, rng=seed)
            return
        data = problem.sample(d1, rng=seed)
        again = problem.sample(d1, rng=seed, design="stream")
        np.testing.assert_array_equal(data.S, again.S)
        np.testing.assert_allclose(data.y, again.y, atol=1e-9 * np.abs(data.y).max())
        assert data.S.shape == (d1, d2) and np.isfinite(data.y).all()
        run = simulations.amp(data, steps=5, rng=0)
        assert np.isfinite(run.mse).all() or not run.status.ok, (seed, run.status)
        assert np.isfinite(run.estimate).all() or not run.status.ok
        if kind == 0:
            ridge = simulations.ridge(data, 0.1)
            assert np.isfinite(ridge.estimate).all() and ridge.train_loss >= 0.0
            convex = simulations.nuclear_norm(data, 0.1, steps=20)
            assert np.isfinite(convex.estimate).all()
            descent = simulations.gradient_descent(data, steps=5, rng=0)
            assert np.isfinite(descent.mse).all() or not descent.status.ok

    fuzz(st.integers(0, 2**63), examples, test)


@pytest.mark.parametrize("examples", [5, pytest.param(10_000, marks=pytest.mark.slow)])
def test_attention_regression(examples: int) -> None:
    def test(seed: int) -> None:
        rng = np.random.default_rng(seed)
        samples, rows, d = (int(x) for x in rng.integers(1, 4, 3))
        scale = 10.0 ** rng.uniform(-3, 2)
        A1, A2 = scale * rng.normal(size=(2, samples, rows, d))
        B = rng.dirichlet(np.ones(rows), size=(samples, rows))
        kind = ["normalised", "rescaled", "cross_entropy"][int(rng.integers(3))]
        model = attention.AttentionRegression(A1, A2, B, kind, regularization=rng.random())
        X = rng.normal(size=model.shape)
        weights = model.attention(X)
        np.testing.assert_allclose(np.asarray(weights).sum(axis=-1), 1.0, atol=1e-12)
        V = rng.normal(size=model.shape)
        try:
            loss, gradient = model.loss(X), model.gradient(X)
            product = model.hessian_product(X, V)
        except OverflowError:  # documented: exp of the scores is part of this loss
            assert kind == "rescaled"
        else:
            assert np.isfinite(loss), seed
            assert np.isfinite(gradient).all() and np.isfinite(product).all(), seed
        fitted = attention.fit(model, steps=10)
        assert isinstance(fitted.status, bsr.Status)
        assert np.isfinite(fitted.X).all() or not fitted.status.ok
        attention.closed_form(attention.AttentionRegression(A1, A2, B))
        for bad in (X[:, :0], X * NAN, "x", None, 1.0, np.ones((9, 9))):
            for call in (model.loss, model.gradient, model.attention, model.residual):
                with pytest.raises(ValueError, match="X"):
                    call(bad)
            with pytest.raises(ValueError, match="V"):
                model.hessian_product(X, bad)

    fuzz(st.integers(0, 2**63), examples, test)
    one = regression()
    X = np.random.default_rng(0).normal(size=one.shape)
    for shift in (attention.icl_data_shift, attention.icl_label_shift):
        found = shift(one, X, 1.1 * X)  # an arbitrary X1 need not have a solution
        assert np.isfinite(found.shift) and found.shift <= found.bound * (1.0 + 1e-9)
        for bad in (None, "x", X * NAN, X[:, :0]):
            with pytest.raises(ValueError, match="X"):
                shift(one, bad, X)
            with pytest.raises(ValueError, match="X1"):
                shift(one, X, bad)


@pytest.mark.parametrize("steps", [1, 3])
def test_message_passing_of_tokens(steps: int) -> None:
    run = attention.amp(tokens(), steps=steps)
    assert np.isfinite(run.mse).all() and run.mse.size == steps + 1
    for name, values in {
        "steps": POSITIVE_INTEGER,
        "tolerance": NOT_NEGATIVE,
        "damping": [-0.1, 1.0, NAN, "x"],
    }.items():
        for value in values:
            with pytest.raises(ValueError, match=name):
                attention.amp(tokens(), **{name: value})
    for d1 in POSITIVE_INTEGER:
        with pytest.raises(ValueError, match="d1"):
            attention.sample(tokens().problem, d1)


# --------------------------------------------------------------------------------------------
# Files, sweeps, certificates
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("examples", [5, pytest.param(10_000, marks=pytest.mark.slow)])
def test_files_and_sweeps(examples: int, tmp_path: Path) -> None:
    def test(seed: int) -> None:
        rng = np.random.default_rng(seed)
        values = rng.choice([0.0, -0.0, TINY, 1.0, 1e308, INF, -INF, NAN], int(rng.integers(1, 7)))
        axis = np.arange(values.size)
        done = bsr.sweep(
            lambda i: {"value": values[i], "word": "a b"},
            executor="serial",
            progress=False,
            i=axis,
        )
        np.testing.assert_array_equal(done.value.values, values)
        # files take milliseconds: of some
        if (kind := rng.integers(0, 4)) > 1:
            return
        path = tmp_path / f"{seed}" / "file.nc"
        if kind == 0:
            results.write_dataset(done, path)
            again = results.read_dataset(path)
            np.testing.assert_array_equal(again.value.values, values)
            assert again.word.values.tolist() == ["a b"] * values.size
            return
        parts = int(rng.integers(1, values.size + 1))
        shards = [
            bsr.sweep(
                lambda i: float(values[i]),
                executor="serial",
                progress=False,
                path=path.with_name("part.nc"),
                shard=(k, parts),
                i=axis,
            )
            for k in range(parts)
        ]
        assert len(shards) == parts
        merged = bsr.merge(str(path.with_name("part.shard-*.nc")))
        np.testing.assert_array_equal(merged.value.values, values)

    fuzz(st.integers(0, 2**63), examples, test)
    with pytest.raises(FileNotFoundError):
        results.read_dataset(tmp_path / "nothing.nc")
    (tmp_path / "text.nc").write_text("no data set")
    with pytest.raises((OSError, ValueError)):
        results.read_dataset(tmp_path / "text.nc")
    with pytest.raises(ValueError, match="paths"):
        bsr.merge(tmp_path / "nothing-*.nc")


@pytest.mark.parametrize("examples", [30, pytest.param(10_000, marks=pytest.mark.slow)])
def test_fingerprints(examples: int) -> None:
    def test(text: str) -> None:
        try:
            ast.parse(text)  # "*0" is a tree that does not compile
        except (SyntaxError, ValueError):
            with pytest.raises((SyntaxError, ValueError)):
                results.source_fingerprint(text)
            return
        assert len(results.source_fingerprint(text)) == 12

    fuzz(
        st.one_of(st.text(max_size=20), st.sampled_from(["x = 1", "", "def f(): 'a'"])),
        examples,
        test,
    )
    assert len(results.code_fingerprint()) == 12


def test_certificates_are_whole() -> None:
    every = verify.certificates()
    assert len({c.name for c in every}) == len(every)
    outcome = verify.examine(every[0])
    assert outcome.passed and verify.as_dicts([outcome]) and verify.table([outcome])
    assert verify.table([]) is not None and verify.as_dicts([]) == []


# --------------------------------------------------------------------------------------------
# The list of public functions
# --------------------------------------------------------------------------------------------

# What is examined by the tests above, besides what the tables name, and in the files
# test_fuzz_planes.py and test_fuzz_commands.py.
EXAMINED = {
    "rotational.without_symmetry", "phases.phase_diagram", "phases.critical_point",
    "design.DenseDesign", "design.StreamedDesign",
    "design.write_design", "design.require_memory", "sweeps.shard_path", "cli.main",
    "explore.model.View", "explore.model.explore", "figures.registry.make",
    "problem.bilinear_regression", "problem.Problem", "state_evolution.solve",
    "state_evolution.iterate", "state_evolution.fixed_points", "state_evolution.free_entropy",
    "denoising.denoise_matrix", "denoising.estimate_noise", "phases.thresholds",
    "erm.ridge", "erm.nuclear_norm", "erm.soft_threshold", "erm.hard_threshold",
    "attention.stability.icl_data_shift",
    "attention.stability.icl_label_shift", "attention.fitting.closed_form", "attention.amp.amp",
    "attention.amp.sample", "results.read_dataset", "results.write_dataset",
    "results.code_fingerprint", "results.source_fingerprint", "sweeps.sweep", "sweeps.merge",
    "verify.certificates", "verify.examine", "verify.table", "verify.as_dicts",
    "spectra.numerical.RectangularConvolution", "spectra.numerical.SymmetricConvolution",
    "attention.indexed.HardmaxChannel", "attention.indexed.LinearTokenChannel",
    "attention.indexed.NoisySoftmaxChannel", "attention.indexed.SoftmaxChannel",
}  # fmt: skip
FILLED = "a record that functions of the package fill"
BASE = "an abstract class"
EXCUSED = {
    "results.Branches": FILLED, "results.FixedPoint": FILLED, "results.Provenance": FILLED,
    "results.SimulationRun": FILLED, "results.Status": FILLED, "results.Trajectory": FILLED,
    "phases.CriticalPoint": FILLED, "phases.Thresholds": FILLED, "problem.Instance": FILLED,
    "denoising.DenoisedMatrix": FILLED, "attention.fitting.AttentionFit": FILLED,
    "attention.amp.AttentionInstance": FILLED, "attention.stability.DataShift": FILLED,
    "attention.stability.LabelShift": FILLED, "attention.stability.LipschitzConstants": FILLED,
    "erm.ClassifierEstimate": FILLED, "erm.ConvexEstimate": FILLED, "erm.ThresholdEstimate": FILLED,
    "erm.SingularValues": FILLED, "simulations.gradient.AveragedGradientRun": FILLED,
    "simulations.convex.ConvexRun": FILLED, "simulations.gradient.GradientRun": FILLED,
    "simulations.gradient.GradientOptions": FILLED, "spectra.law.Integral": FILLED,
    "spectra.law.Quadrature": FILLED, "spectra.spherical.Extrapolation": FILLED,
    "verify.Certificate": FILLED, "verify.Outcome": FILLED,
    "channels.Channel": BASE, "priors.Prior": BASE, "priors.SymmetricSignal": BASE,
    "spectra.law.SpectralLaw": BASE, "design.Design": BASE,
    "attention.indexed.TokenChannel": BASE,
    "spectra.curve.RectangularCurve": "formulas that take symbols, too: they check nothing",
    "design.available_memory": "takes nothing that could be wrong",
}  # fmt: skip
# Packages that draw, or serve what is drawn: seconds a call, the numbers come from above, and
# their entrances are in test_fuzz_commands.py.
EXCUSED_PACKAGES = ("figures.", "explore.")


def public_callables() -> dict[str, Any]:
    """Return every public function and class by its home, exceptions apart."""
    found = {}
    walk = pkgutil.walk_packages(bsr.__path__, "bsr_theory.")
    names = [m.name for m in walk if "._" not in m.name]
    for module in ["bsr_theory", *names]:
        loaded = importlib.import_module(module)
        for name in loaded.__all__:
            value = getattr(loaded, name, None)
            home = str(getattr(value, "__module__", ""))
            if inspect.ismodule(value) or not callable(value) or not home.startswith("bsr_theory."):
                continue
            if not (isinstance(value, type) and issubclass(value, BaseException)):
                found[f"{home.removeprefix('bsr_theory.')}.{name}"] = value
    return found


def test_every_public_function_is_examined_or_excused() -> None:
    tables = {name.split(" ")[0] for name in (*CASES, *REFUSALS, *LAWS, *SCORES)}
    # "GaussianFactorPrior.mmse" speaks of the class, "spherical.rank_one_limit" of the function
    parts = {part for name in tables for part in name.split(".")}
    public = public_callables()
    examined = {name for name in public if name.rpartition(".")[2] in parts} | EXAMINED
    assert EXAMINED <= set(public)
    assert not examined & set(EXCUSED)
    missing = {
        name
        for name in set(public) - examined - set(EXCUSED)
        if not name.startswith(EXCUSED_PACKAGES)
    }
    assert not missing, "write a strategy for it above, or the reason why there is none"
    stale = set(EXCUSED) - set(public)
    assert not stale


PRIORS = [bsr.GaussianFactorPrior, bsr.SymmetricFactorPrior, bsr.LowRankFactorPrior]


@pytest.mark.parametrize("prior", PRIORS)
def test_every_answer_of_a_prior_is_examined(prior: type) -> None:
    takes = {
        name
        for name, value in inspect.getmembers(prior, inspect.isfunction)
        if not name.startswith("_")
        and list(inspect.signature(value).parameters)[1:] in (["s"], ["snr"], ["alpha"])
    }
    named = {key.split(".")[1] for key in CASES if key.startswith(f"{prior.__name__}.")}
    assert takes - named <= {"law", "mmse_and_overlap"}
