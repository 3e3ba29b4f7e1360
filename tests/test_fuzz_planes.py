"""Thresholds, phase diagrams, critical points and designs over their whole domains.

As in test_fuzz.py: NaN with a status at a bad element and nowhere else, a ValueError for a bad
scalar or what is no number, no other exception and no warning.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from test_fuzz import ALPHA, BETA, DELTA, NAN, NO_NUMBERS, RHO, Real, fuzz, in_parts

import bsr_theory as bsr
from bsr_theory import Status
from bsr_theory.design import DenseDesign, StreamedDesign, require_memory, write_design
from bsr_theory.sweeps import shard_path

GAIN = Real(inf=False, decades=(-2.0, 2.0))
DOMAINS = {"alpha": ALPHA, "beta": BETA, "rho": RHO, "delta": DELTA, "gain": GAIN}


def parameters(model: Any) -> list[Any]:
    return [getattr(model, field.name) for field in dataclasses.fields(model) if field.init]


def moderate(value: Any) -> bool:
    """Tell whether numbers are far from the ends of doubles, where a status may say so."""
    if isinstance(value, bool) or not isinstance(value, float | np.ndarray):
        return True
    size = np.abs(value)
    size = size[np.isfinite(size) & (size > 0.0)] if np.ndim(size) else size
    return bool(np.all((size > 1e-100) & (size < 1e100) | (size == 0.0) | np.isinf(size)))


def any_prior(rng: np.random.Generator) -> Any:
    """Draw a prior with good parameters."""
    number = {name: float(real.draw(rng, 1, bad=False)[0]) for name, real in DOMAINS.items()}
    kind = rng.choice(6, p=[0.27, 0.25, 0.15, 0.15, 0.15, 0.03])  # the last takes long
    if kind < 3:
        return bsr.GaussianFactorPrior(number["beta"], number["rho"])
    if kind == 3:
        return bsr.LowRankFactorPrior(number["beta"])
    if kind == 4:
        return bsr.SymmetricFactorPrior(min(number["rho"], 1e300))
    values = rng.exponential(size=3) * rng.choice([0.0, 1.0], 3, p=[0.3, 0.7])
    values[0] += 0.1
    return bsr.RotationallyInvariantPrior(values, number["beta"], normalize=True)


def any_channel(rng: np.random.Generator, prior: Any) -> Any:
    """Draw a channel that takes the prior."""
    delta, gain = (float(DOMAINS[name].draw(rng, 1, bad=False)[0]) for name in ("delta", "gain"))
    channels = [
        bsr.GaussianChannel(delta), bsr.AbsChannel(delta), bsr.SignChannel(delta),
        bsr.ReLUChannel(delta), bsr.LogisticChannel(gain),
        bsr.QuantizedChannel([-0.5, 0.5], min(delta, 1e3)),
    ]  # fmt: skip
    linear = isinstance(prior, bsr.SymmetricFactorPrior)  # of second moment 1 + rho
    return channels[0 if linear else rng.integers(0, len(channels))]


def check_thresholds(found: Any, valid: np.ndarray, *, told: bool) -> None:
    """Hold thresholds against what they promise; ``told``: nothing they need underflows."""
    status = np.asarray(found.status)
    first_order = status == Status.CONVERGED
    allowed = [Status.CONVERGED, Status.ABSENT] + ([] if told else [Status.NOT_CONVERGED])
    assert np.isin(status[valid], allowed).all(), status[valid]
    assert (status[~valid] == Status.INVALID_INPUT).all()
    for name in ("algorithmic", "information_theoretic", "informed_spinodal"):
        values = np.asarray(getattr(found, name))
        assert np.isnan(values[~first_order]).all()
        assert (values[first_order] > 0.0).all(), name
    for name in ("weak_recovery", "strong_recovery", "strong_recovery_algorithmic"):
        values = np.asarray(getattr(found, name))
        assert np.isnan(values[~valid]).all()
        assert (values[valid] >= 0.0).all(), (name, values[valid])
    last, bayes, first = (
        np.asarray(getattr(found, name))[first_order]
        for name in ("algorithmic", "information_theoretic", "informed_spinodal")
    )
    assert np.all(first <= bayes * (1 + 1e-9)) and np.all(bayes <= last * (1 + 1e-9))


@pytest.mark.parametrize("examples", [15, pytest.param(10_000, marks=pytest.mark.slow)])
def test_thresholds(examples: int) -> None:
    def test(seed: int) -> None:
        rng = np.random.default_rng(seed)
        prior = any_prior(rng)
        channel = any_channel(rng, prior)
        found = bsr.thresholds(prior, channel)
        # thin factors are seen from s = 1/rho on, and labels have the precision q/delta
        told = getattr(prior, "rho", 1.0) > 1e-284 and getattr(channel, "delta", 0.0) < 1e100
        check_thresholds(found, np.array(True), told=told)
        name = "gain" if isinstance(channel, bsr.LogisticChannel) else "delta"
        several = [getattr(channel, name), NAN, -1.0]
        rows = bsr.thresholds(prior, dataclasses.replace(channel, **{name: several}))
        check_thresholds(rows, np.array([True, False, False]), told=told)
        for field in dataclasses.fields(found):
            one, row = getattr(found, field.name), getattr(rows, field.name)[0]
            np.testing.assert_allclose(row, one, rtol=1e-9, err_msg=field.name)

    fuzz(st.integers(0, 2**63), examples, test)


@pytest.mark.parametrize(("examples", "part"), in_parts(15))
def test_phase_diagrams(examples: int, part: int) -> None:
    def test(seed: int) -> None:
        rng = np.random.default_rng([part, seed])
        prior = any_prior(rng)
        channel = any_channel(rng, prior)
        own = [
            x for x in ("beta", "rho") if x in {f.name for f in dataclasses.fields(prior) if f.init}
        ]
        if isinstance(prior, bsr.RotationallyInvariantPrior):
            own = []
        if isinstance(channel, bsr.GaussianChannel | bsr.AbsChannel | bsr.ReLUChannel):
            own.append("delta")
        if not own:
            return
        names = sorted(rng.choice(["alpha", *own], 2, replace=False))
        axes = {x: DOMAINS[x].draw(rng, int(rng.integers(1, 4)), bad=True) for x in names}
        alpha = float(ALPHA.draw(rng, 1, bad=False)[0])
        plane = bsr.phase_diagram(bsr.Problem(prior, channel, alpha), **axes)
        x, y = reversed(plane.phase.dims)
        assert {x, y} == set(names)
        good = np.logical_and.outer(
            DOMAINS[y].allows(plane[y].values), DOMAINS[x].allows(plane[x].values)
        )
        if isinstance(prior, bsr.SymmetricFactorPrior) and "rho" in names:
            good &= (
                np.isfinite(np.broadcast_to(plane.rho, plane.phase.shape))
                if x == "rho"
                else (np.isfinite(plane.rho.values)[:, None])
            )
        status, phase = plane.status.values, plane.phase.values
        assert (status[~good] == Status.INVALID_INPUT).all()
        given = [*axes.values(), alpha, *parameters(prior), *parameters(channel)]
        # 1 + rho, the second moment of symmetric factors, has to be told from rho
        symmetric = isinstance(prior, bsr.SymmetricFactorPrior)
        told = not symmetric or not np.any(axes.get("rho", prior.rho) >= 1e12)
        # errors of noiseless classes fall like (rho/alpha)^2, and have to be doubles
        widths = np.ravel(axes.get("rho", getattr(prior, "rho", 1.0)))
        samples = np.ravel(axes.get("alpha", alpha))
        least = np.min(widths[widths > 0.0], initial=1.0)
        told &= least > 1e-145 * np.max(samples[np.isfinite(samples)], initial=1.0)
        if told and all(moderate(x) for x in given):
            assert (status[good] < Status.NOT_CONVERGED).all(), (status, axes, prior, channel)
        assert np.isin(status[good], [0, 1, 2, 10]).all()
        good &= status != Status.NOT_CONVERGED
        assert ((phase == -1) == ~good).all()
        most = np.asarray(prior.second_moment)
        for name in ("mmse_bayes", "mmse_algorithm"):
            values = plane[name].values
            assert np.isnan(values[~good]).all()
            assert (values[good] >= 0.0).all()
            if "rho" not in names:
                assert (values[good] <= most * (1 + 1e-9)).all()
        bayes, reached = plane.mmse_bayes.values[good], plane.mmse_algorithm.values[good]
        assert (bayes <= reached * (1 + 1e-7)).all()
        assert (phase[good][reached > bayes * (1 + 1e-6)] == 1).all()

    fuzz(st.integers(0, 2**63), examples, test)


@pytest.mark.parametrize("name", ["alpha", "beta", "rho", "delta"])
def test_axes_that_are_none(name: str) -> None:
    problem = bsr.Problem(bsr.GaussianFactorPrior(2.0, 0.5), bsr.GaussianChannel(0.1), 0.5)
    other = "alpha" if name != "alpha" else "delta"
    for wrong in (*NO_NUMBERS, [], 0.5, [[0.5]]):
        with pytest.raises(ValueError, match=name):
            bsr.phase_diagram(problem, **{name: wrong, other: [0.5]})


@pytest.mark.parametrize(("examples", "part"), in_parts(5))
def test_critical_points(examples: int, part: int) -> None:
    def test(seed: int) -> None:
        rng = np.random.default_rng([part, seed])
        prior = any_prior(rng)
        channel = any_channel(rng, prior)
        names = [f.name for f in dataclasses.fields(channel)]
        names += [f.name for f in dataclasses.fields(prior) if f.init]
        name = str(rng.choice([x for x in names if x in DOMAINS] or ["delta"]))
        low, high = (float(x) for x in DOMAINS[name].draw(rng, 2, bad=rng.random() < 0.3))
        try:
            found = bsr.critical_point(prior, channel, low=low, high=high, parameter=name)
        except ValueError:
            return
        assert min(low, high) <= found.value <= max(low, high)
        assert found.parameter == name
        for value in (found.alpha, found.s, found.mmse):
            assert math.isfinite(value) and value > 0.0
        assert 0.0 <= found.q

    fuzz(st.integers(0, 2**63), examples, test)


def test_a_critical_point_wants_scalars_and_a_parameter() -> None:
    prior, channel = bsr.GaussianFactorPrior(1.0, 0.2), bsr.AbsChannel()
    for given, message in (
        *(({"low": x, "high": 0.1}, "low") for x in (*NO_NUMBERS, NAN, None, [0.1])),
        *(({"low": 0.0, "high": x}, "high") for x in (*NO_NUMBERS, NAN, None, [0.1])),
        *(({"low": 0.0, "high": 0.1, "tolerance": x}, "tolerance") for x in ("x", NAN, 0.0, -1.0)),
        *(({"low": 0.0, "high": 0.1, "parameter": x}, "parameter") for x in ("sigma", 3, None)),
    ):
        with pytest.raises(ValueError, match=message):
            bsr.critical_point(prior, channel, **given)


# --------------------------------------------------------------------------------------------
# Designs
# --------------------------------------------------------------------------------------------

SHAPES_OF_NONE: list[Any] = [
    (), (2, 2), (0, 2, 2), (2, 0, 2), (-1, 2, 2), (2.0, 2, 2), (NAN, 2, 2), "222", None, 3,
    (2, 2, 2, 2), ("2", 2, 2), (True, 2, 2),
]  # fmt: skip


@pytest.mark.parametrize("examples", [20, pytest.param(10_000, marks=pytest.mark.slow)])
def test_designs(examples: int, tmp_path: Path) -> None:
    def test(seed: int) -> None:
        rng = np.random.default_rng(seed)
        shape = tuple(int(x) for x in rng.integers(1, 6, 3))
        dtype = rng.choice([np.float64, np.float32])
        streamed = StreamedDesign(shape, key=rng.integers(0, 2**63, 2), dtype=dtype)
        dense = DenseDesign(np.array(streamed))
        path = tmp_path / "X.npy"
        path.unlink(missing_ok=True)
        mapped = write_design(streamed, path)
        stack = (int(rng.integers(1, 4)),) if rng.random() < 0.5 else ()
        S, g = rng.standard_normal((*stack, *shape[1:])), rng.standard_normal((*stack, shape[0]))
        outputs = [X.matvec(S) for X in (streamed, dense, mapped)]
        sums = [X.rmatvec(g) for X in (streamed, dense, mapped)]
        for values in (outputs, sums):
            np.testing.assert_array_equal(values[0], values[1])
            np.testing.assert_array_equal(values[0], values[2])
        rtol = 1e-12 if dtype == np.float64 else 1e-4
        both = np.sum(outputs[0] * g), np.sum(sums[0] * S)  # adjoint
        scale = np.linalg.norm(outputs[0]) * np.linalg.norm(g) + 1e-300
        assert abs(both[0] - both[1]) <= rtol * scale
        for wrong in (None, "x", S[..., :0], S[0] if S.ndim == 2 else S[0, 0], 1.0j * S):
            with pytest.raises(ValueError, match="S"):
                dense.matvec(wrong)
        for wrong in (None, "x", g[..., :-1], 1.0j * g):
            with pytest.raises(ValueError, match="g"):
                dense.rmatvec(wrong)

    fuzz(st.integers(0, 2**63), examples, test)


def test_what_is_no_design(tmp_path: Path) -> None:
    for shape in SHAPES_OF_NONE:
        with pytest.raises(ValueError, match="shape"):
            StreamedDesign(shape, key=[1, 2])
        with pytest.raises(ValueError, match="shape"):
            require_memory(shape, np.dtype(float), held=True)
    for key in ([1], [1, 2, 3], [-1, 2], [0.5, 1.0], "ab", None, [2**64, 0], [NAN, 1.0]):
        with pytest.raises(ValueError, match="key"):
            StreamedDesign((2, 2, 2), key=key)
    for dtype in (int, complex, "U3", object, np.float16, "nothing"):
        with pytest.raises(ValueError, match="dtype"):
            StreamedDesign((2, 2, 2), key=[1, 2], dtype=dtype)
    ones = np.ones((2, 3, 4))
    for array in (
        *NO_NUMBERS, None, ones.tolist(), ones[0], ones.T, ones.astype(int), ones * 1.0j, ones[:0],
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"array|dtype|shape"):
            DenseDesign(array)
    with pytest.raises(ValueError, match="path"):
        write_design(DenseDesign(ones), tmp_path)
    for shard in ((-1, 2), (2, 2), (0, 0), (0.0, 2), ("a", 2), None, (1,), 3):
        with pytest.raises(ValueError, match="shard"):
            # no pair of integers, which is what is tested
            shard_path("run.nc", shard)  # type: ignore[arg-type]
    with pytest.raises(MemoryError, match="GB"):
        require_memory((10**12, 10**6, 10**6), np.dtype(float), held=True)
