"""Each certificate holds, and fails when the formula that it certifies is wrong."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sympy import Rational

from bsr_theory import verify
from bsr_theory.channels import GaussianChannel
from bsr_theory.priors import GaussianFactorPrior, LowRankFactorPrior
from bsr_theory.spectra import GaussianFactorLaw, RectangularCurve

CERTIFICATES = {c.name: c for c in verify.certificates()}


# --- wrong formulas -----------------------------------------------------------------------------


def scaled(factor: Any) -> Callable[[Any], Any]:
    """Turn a formula into the same one with another factor in front."""
    return lambda formula: lambda *args, **kwargs: factor * formula(*args, **kwargs)


def with_method(base: type, method: str, change: Callable[..., Any]) -> Callable[[Any], Any]:
    """Turn a class into a subclass, one method of which returns ``change(value, *arguments)``."""

    def wrong(self, *args, **kwargs):
        return change(getattr(base, method)(self, *args, **kwargs), *args)

    return lambda _: type(f"Wrong{base.__name__}", (base,), {method: wrong})


def times(factor: Any) -> Callable[..., Any]:
    return lambda value, *_: factor * value


def curve(method: str, change: Callable[..., Any] | None = None) -> Callable[[Any], Any]:
    return with_method(RectangularCurve, method, change or times(Rational(101, 100)))


def prior(method: str, factor: float) -> Callable[[Any], Any]:
    return with_method(GaussianFactorPrior, method, times(factor))


def component(index: int, factor: Any) -> Callable[[Any], Any]:
    """Turn a formula for several numbers into one that is wrong in one of them."""

    def perturb(formula):
        def wrong(*args, **kwargs):
            values = list(formula(*args, **kwargs))
            values[index] = factor * values[index]
            return tuple(values)

        return wrong

    return perturb


def field(name: str, factor: float) -> Callable[[Any], Any]:
    """Turn a function that returns a dataclass or named tuple into one wrong in a field."""

    def perturb(function):
        def wrong(*args):
            point = function(*args)
            value = {name: factor * getattr(point, name)}
            replace = getattr(point, "_replace", None)
            return replace(**value) if replace else dataclasses.replace(point, **value)

        return wrong

    return perturb


def law(beta: float = 1.0, rho: float = 1.0, s: float = 1.0) -> Callable[[Any], Any]:
    """Turn a law into the law for other parameters, by these factors."""
    return lambda right: lambda b, r, noise: right(beta * b, rho * r, s * noise)


def other_edges(_: Any) -> Any:
    class Wrong(GaussianFactorLaw):
        @property
        def edges(self):
            return GaussianFactorLaw.edges.fget(self) * (1 + 1e-11)

    return Wrong


def other_threshold(_: Any) -> Any:
    class Wrong(GaussianFactorPrior):
        @property
        def strong_recovery(self):
            return GaussianFactorPrior.strong_recovery.fget(self) * (1 + 1e-11)

    return Wrong


def single_bulk(right: Any) -> Any:
    """Give the noise bulk of two bulks away: its edges are missing."""

    class Wrong(GaussianFactorLaw):
        @property
        def edges(self):
            return GaussianFactorLaw.edges.fget(self)[-1:]

    return Wrong


def no_transition(_: Any) -> Any:
    """Continue the overlap below the transition, where it is 0."""

    def overlap(snr, beta):
        v, b = 1 / snr, 1 / beta
        return (1 - b * v * v) ** 2 / ((1 + b * v) * (1 + v))

    return overlap


def tilted(potential: Any) -> Any:
    """Keep the values at q = 1/4 and 3/4, which are compared, and change the slope elsewhere."""
    return lambda problem, q: potential(problem, q) + 1e-6 * (q - 0.25) * (q - 0.75)


def one_ahead(trajectory: Any) -> Any:
    def wrong(problem, steps):
        longer = trajectory(problem, steps + 1)
        return dataclasses.replace(longer, mmse=longer.mmse[1:])

    return wrong


def barely(name: str) -> Callable[[Any], Any]:
    """Scale a formula by so little that only a certificate as sharp as its bar can see it."""
    return scaled(1 + 3 * CERTIFICATES[name].bar)


PERTURBED: dict[str, list[Callable[[Any], Any]]] = {
    "free-product": [curve("a"), curve("b"), curve("w"), curve("g"), curve("wg")],
    "rectangular-cumulants": [curve("w"), curve("g"), curve("wg")],
    "wick-moments": [
        curve("a", lambda value, t: value + t**2 / 100),
        curve("b", lambda value, t: value + t**4),
        curve("g"),
    ],
    "stieltjes-polynomial": [
        curve("w"),
        curve("g"),
        curve("quartic", lambda value, w: [*value[:2], value[2] + w, *value[3:]]),
        curve("quartic", lambda value, w: [*value[:4], 2 * value[4]]),
    ],
    "edges-discriminant": [
        curve("quartic", lambda value, w: [*value[:4], 2 * value[4]]),
        curve("dlogw", lambda value, t: value + Rational(1, 100)),
    ],
    "conjugate-pairs": [component(index, Rational(101, 100)) for index in range(4)],
    "denoiser": [
        scaled(Rational(101, 100)),
        lambda kernel: lambda c, z: kernel(c, z) + c.kappa * z.x,
    ],
    "denoiser-thin": [
        scaled(Rational(101, 100)),
        lambda kernel: lambda c, z: kernel(c, z) + c.kappa * z.xu,
    ],
    "density": [
        scaled(Rational(101, 100)),
        lambda kernel: lambda c, z: kernel(c, z) + z.y * c.kappa,
    ],
    "mmse": [prior("mmse", 1 + 3e-12), prior("mmse", 1 - 3e-12)],
    "information": [prior("information", 1 + 3e-12)],
    "i-mmse": [prior("information", 1 + 3e-12), prior("mmse", 1 - 3e-12)],
    "law-moments": [
        with_method(GaussianFactorLaw, "moments", lambda value, k: value * (1 + 1e-11 * k)),
        law(rho=1 + 1e-10),
    ],
    "edges": [other_edges, single_bulk, law(s=1 + 1e-10)],
    "arc-points": [field(name, 1 + 1e-10) for name in ("x", "y", "pt", "pu", "iqa", "w")],
    "log-potential": [
        with_method(GaussianFactorLaw, "log_potential", times(1 + 3e-12)),
        law(beta=1 + 1e-10),
    ],
    "denoised-error": [
        with_method(GaussianFactorPrior, "shrink", lambda value, y, s: value + 1e-11 * s * y),
        with_method(GaussianFactorPrior, "shrink", lambda value, y, s: np.clip(y - s / y, 0, y)),
    ],
    "infinite-beta-mmse": [barely("infinite-beta-mmse")],
    "infinite-beta-information": [barely("infinite-beta-information")],
    "infinite-rho-mmse": [barely("infinite-rho-mmse")],
    "infinite-rho-information": [barely("infinite-rho-information")],
    "low-rank-overlap": [scaled(1 + 1e-12), no_transition],
    "low-rank-information": [barely("low-rank-information")],
    "weak-recovery": [barely("weak-recovery"), scaled(2.0)],
    "strong-recovery": [
        barely("strong-recovery"),
        lambda formula: lambda beta, rho: rho * (1 + beta - rho) / beta,  # beyond rho = 1 too
    ],
    "small-noise-mmse": [component(1, 1 + 3e-8), component(0, 1 + 1e-10)],
    "small-noise-information": [barely("small-noise-information")],
    "square-full-rank": [
        lambda formula: lambda beta, rho, s: formula(beta, rho, s) + 1e-4 * s**2,
        lambda formula: lambda beta, rho, s: formula(beta, rho, s) + 1e-5 * s**2 * math.log(s),
    ],
    "large-noise-information": [
        lambda formula: lambda beta, rho, s: formula(beta, rho, s) + 0.02 * s**-7.0,
    ],
    "large-noise-mmse": [
        lambda formula: lambda beta, rho, s: formula(beta, rho, s) + 0.2 * s**-6.0,
    ],
    "bulk-merging": [barely("bulk-merging")],
    "ridge": [
        barely("ridge"),
        lambda formula: lambda alpha, delta, lam: formula(alpha, delta, delta),  # always optimal
    ],
    "ridge-train-loss": [barely("ridge-train-loss")],
    "gaussian-channel": [
        with_method(GaussianChannel, "precision", times(1 + 3e-14)),
        with_method(GaussianChannel, "information", times(1 + 3e-14)),
        with_method(GaussianChannel, "score", lambda value, *_: (1.01 * value[0], value[1])),
        with_method(GaussianChannel, "score", lambda value, *_: (value[0], 1.01 * value[1])),
    ],
    "infinite-beta-solution": [scaled(1 + 1e-12)],
    "infinite-rho-solution": [barely("infinite-rho-solution")],
    "low-rank-solution": [barely("low-rank-solution")],
    "prior-limits": [
        prior("mmse", 1 + 3e-12),
        prior("information", 1 + 3e-12),
        other_threshold,
    ],
    "low-rank-prior": [
        with_method(LowRankFactorPrior, "mmse", times(1 + 3e-13)),
        with_method(LowRankFactorPrior, "information", times(1 + 3e-13)),
    ],
    "state-evolution": [field(name, 1 + 1e-10) for name in ("mmse", "q", "qhat")],
    "free-entropy": [barely("free-entropy"), tilted],
    "area-theorem": [field("information", 1 + 3e-10), field("mmse", 1 + 1e-9)],
    "spherical-determinant": [barely("spherical-determinant")],
    "spherical-haar": [
        lambda formula: lambda a, b, snr, d2: formula(a, b, snr=snr, d2=d2) + 0.02,
        lambda formula: lambda a, b, snr, d2: formula(a, b, snr=1.02 * snr, d2=d2),
    ],
    "spherical-limit": [
        scaled(1 + 3e-4),
        lambda formula: lambda prior, snr, dyson: formula(prior, snr, dyson=1),
    ],
    "spherical-rank-one": [
        scaled(1 + 1e-3),
        lambda formula: lambda theta, law, dyson, largest: formula(theta, law, dyson=dyson),
    ],
    "monte-carlo-denoiser": [
        with_method(GaussianFactorPrior, "denoise", lambda value, Y, s: Y / (1 + s)),
        prior("mmse", 1.02),
    ],
    "monte-carlo-spectrum": [law(s=1.2), law(rho=1.05), law(beta=1.2)],
    "monte-carlo-edges": [law(s=1.2)],
    "monte-carlo-ridge": [
        scaled(1.06),
        lambda formula: lambda alpha, delta, lam: formula(alpha, delta, "optimal"),
    ],
    "monte-carlo-message-passing": [one_ahead],
}


def test_every_certificate_has_a_perturbation() -> None:
    assert set(PERTURBED) == set(CERTIFICATES)
    assert all(PERTURBED.values())


CASES = [(name, k) for name, wrong in PERTURBED.items() for k in range(len(wrong))]


@pytest.mark.parametrize(("name", "k"), CASES)
def test_a_wrong_formula_fails(name: str, k: int) -> None:
    right = CERTIFICATES[name]
    outcome = verify.examine(dataclasses.replace(right, subject=PERTURBED[name][k](right.subject)))
    assert not outcome.passed
    # by its error: a check that breaks down would tell nothing about the formula
    assert outcome.error > right.bar
    assert outcome.message == f"error {outcome.error:.3g} exceeds {right.bar:.3g}"


# --- the certificates hold ----------------------------------------------------------------------


@pytest.mark.parametrize("name", CERTIFICATES)
def test_certificate_holds(name: str) -> None:
    outcome = verify.examine(CERTIFICATES[name])
    assert outcome.passed, outcome.message
    assert 0.0 <= outcome.error <= outcome.certificate.bar
    assert outcome.message == ""
    assert outcome.seconds > 0.0


def test_names() -> None:
    assert len(CERTIFICATES) == len(verify.certificates())
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in CERTIFICATES)


@pytest.mark.parametrize("name", CERTIFICATES)
def test_descriptions(name: str) -> None:
    certificate = CERTIFICATES[name]
    for text in (certificate.formula, certificate.source, certificate.means):
        assert text.strip() == text
        assert 0 < len(text) <= 100
        assert "\n" not in text
    assert certificate.bar >= 0.0
    assert certificate.means.startswith("sympy") or certificate.bar > 0.0


# --- running and showing them -------------------------------------------------------------------


def test_only() -> None:
    (one,) = verify.run("weak-recovery")
    assert one.certificate.name == "weak-recovery"
    seen: list[verify.Outcome] = []
    two = verify.run(["weak-recovery", "conjugate-pairs"], progress=seen.append)
    assert [o.certificate.name for o in two] == ["conjugate-pairs", "weak-recovery"]
    assert seen == two
    assert verify.run([]) == []


def test_all_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    few = [example(lambda _: 0.0, "one"), example(lambda _: 1.0, "two")]
    monkeypatch.setattr(verify, "_CERTIFICATES", few)
    assert verify.certificates() == tuple(few)
    assert [o.passed for o in verify.run()] == [True, False]


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(ValueError, match="only must name") as caught:
        verify.run(["weak-recovery", "no-such-thing"])
    assert "['no-such-thing']" in str(caught.value)
    assert all(name in str(caught.value) for name in CERTIFICATES)
    with pytest.raises(ValueError, match="no-such-thing"):
        verify.run("no-such-thing")


def example(check: Callable[[Any], float], name: str = "example") -> verify.Certificate:
    return verify.Certificate(name, "a = b", "source", "means", 1e-6, None, check)


def test_an_exception_is_a_failure() -> None:
    def broken(_: Any) -> float:
        raise ArithmeticError("no root")

    outcome = verify.examine(example(broken))
    assert not outcome.passed
    assert math.isnan(outcome.error)
    assert outcome.message == "ArithmeticError: no root"


def test_nan_is_a_failure() -> None:
    outcome = verify.examine(example(lambda _: math.nan))
    assert not outcome.passed
    assert outcome.message == "error nan exceeds 1e-06"


def test_an_interrupt_is_not_swallowed() -> None:
    def interrupted(_: Any) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify.examine(example(interrupted))


def three_outcomes() -> list[verify.Outcome]:
    return [
        verify.Outcome(example(lambda _: 0.0, "first"), 0.0, True, 0.25, ""),
        verify.Outcome(example(lambda _: 0.0, "the-second"), 1e-8, True, 12.0, ""),
        verify.Outcome(example(lambda _: 0.0, "third"), math.nan, False, 1.0, "KeyError: x"),
    ]


def test_table() -> None:
    assert verify.table(three_outcomes()).splitlines() == [
        "        certificate    error      bar    time  formula",
        "ok      first              0  1.0e-06   0.2 s  a = b",
        "ok      the-second   1.0e-08  1.0e-06  12.0 s  a = b",
        "FAILED  third            nan  1.0e-06   1.0 s  a = b",
        "        KeyError: x",
        "2 of 3 certificates hold (13 s)",
    ]
    assert verify.table([]).splitlines()[-1] == "0 of 0 certificates hold (0 s)"


def test_dictionaries_are_json() -> None:
    rows = json.loads(json.dumps(verify.as_dicts(three_outcomes()), allow_nan=False))
    assert [row["name"] for row in rows] == ["first", "the-second", "third"]
    assert [row["error"] for row in rows] == [0.0, 1e-8, None]
    assert [row["passed"] for row in rows] == [True, True, False]
    assert rows[2] == {
        "name": "third",
        "formula": "a = b",
        "source": "source",
        "means": "means",
        "bar": 1e-6,
        "error": None,
        "passed": False,
        "seconds": 1.0,
        "message": "KeyError: x",
    }


# --- the means themselves -----------------------------------------------------------------------

TABLE = Path(__file__).parent / "data" / "mmse.csv"
ROWS = list(csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines()))


@pytest.mark.parametrize("row", ROWS[::6], ids=lambda row: f"{row['beta']},{row['rho']},{row['s']}")
def test_reference_against_the_table(row: dict[str, str]) -> None:
    mp = verify._mpmath()
    found = verify._reference(*(mp.mpf(row[name]) for name in ("beta", "rho", "s")))
    assert found.defect < 1e-24
    assert abs(found.mmse / mp.mpf(row["M"]) - 1) < 1e-24
    assert abs(found.information / mp.mpf(row["I_S"]) - 1) < 1e-23


def test_the_defect_tells_a_wrong_spectrum(monkeypatch: pytest.MonkeyPatch) -> None:
    stieltjes = verify._Spectrum.stieltjes
    monkeypatch.setattr(verify._Spectrum, "stieltjes", lambda *args: 1.001 * stieltjes(*args))
    assert verify._reference.__wrapped__(2.0, 0.5, 0.1).defect > 1e-4


def test_the_identity_of_the_references_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    assert verify._identity_of_the_references() < 1e-15
    reference = verify._reference

    def wrong(*point: Any) -> Any:
        right = reference(*point)
        return dataclasses.replace(right, information=right.information * (1 + 1e-9))

    monkeypatch.setattr(verify, "_reference", wrong)
    assert verify._identity_of_the_references() > 1e-10


def test_planar_moments_by_hand() -> None:
    # pure Wishart (rho = inf would be signal and noise alike): 1, 1 + 1/beta, ... scaled by 1 + s
    beta, rho, s = Rational(3), Rational(1, 2), Rational(1, 5)
    assert verify._planar_moment(0, beta, rho, s) == 1
    assert verify._planar_moment(1, beta, rho, s) == 1 + s
    assert verify._planar_moment(2, beta, rho, s) == (1 + s) ** 2 * (1 + 1 / beta) + 1 / rho
    # noise alone: the Narayana numbers 1, 3, 1 of a Marchenko-Pastur law of ratio 1/beta
    leading = verify._planar_moment(3, beta, rho, Rational(10) ** 40) / Rational(10) ** 120
    assert abs(leading - (1 + 3 / beta + 1 / beta**2)) < Rational(1, 10**30)


def test_average_over_the_marchenko_pastur_law() -> None:
    for ratio in (0.25, 1.0, 4.0):
        for power, moment in ((0, 1), (1, 1), (2, 1 + ratio), (3, 1 + 3 * ratio + ratio**2)):
            found = verify._marchenko_pastur_mean(lambda x, k=power: x**k, ratio)
            assert abs(found / moment - 1) < 1e-30
