"""The arbitrary-precision reference against tables, against itself, and against identities."""

from __future__ import annotations

import csv
from pathlib import Path

import highprec
import naive
import numpy as np
import pytest
from mpmath import mp, mpf

DATA = Path(__file__).parent / "data"


def read(name: str) -> list[tuple]:
    """Rows of a table; the parameters of mmse.csv are decimals, of mmse_extreme.csv doubles."""
    number = str if name == "mmse.csv" else float
    with open(DATA / name, newline="") as file:
        return [
            (*(number(row[key]) for key in ("beta", "rho", "s")), row["M"], row["I_S"])
            for row in csv.DictReader(file)
        ]


TABLE, EXTREME = read("mmse.csv"), read("mmse_extreme.csv")


def assert_agrees(row: tuple, tolerance: str = "1e-24") -> None:
    beta, rho, s, mmse, information = row
    value = highprec.evaluate(beta, rho, s, digits=27)
    with mp.workdps(40):
        assert abs(value.mmse / mpf(mmse) - 1) < mpf(tolerance)
        assert abs(value.information / mpf(information) - 1) < mpf(tolerance)
        assert value.mass_error < mpf("1e-28")
        # M from the denoiser is 1 - (1 - M), M from the density s - (s - M)
        assert value.mmse_error < mpf("1e-28") * (1 + 1 / value.mmse + mpf(s))


def test_tables_are_complete():
    assert len(TABLE) == 90 and len(EXTREME) == 121
    assert len({row[:3] for row in EXTREME}) == 121


@pytest.mark.parametrize("row", TABLE[::23], ids=lambda row: "-".join(map(str, row[:3])))
def test_a_few_rows_of_the_table(row):
    assert_agrees(row)


@pytest.mark.parametrize(
    "point",
    [(1.0, 1.0, 1e-8), (1e4, 1e-3, 1e-8), (1.0, 100.0, 1e6), (1 + 1e-12, 1 - 1e-12, 1e6)],
    ids=str,
)
def test_corners(point):
    (row,) = [row for row in EXTREME if row[:3] == point]
    assert_agrees(row)


@pytest.mark.slow
def test_every_row_of_the_table():
    for row in TABLE:
        assert_agrees(row)


@pytest.mark.slow
def test_every_extreme_row():
    for row in EXTREME:
        assert_agrees(row)


def derivative_of_information(beta: str, rho: str, qhat: mpf) -> mpf:
    """Sixth-order central difference of I_S in qhat = 1/s."""
    step = qhat * mpf("2e-3")
    weights = {1: mpf(3) / 4, 2: -mpf(3) / 20, 3: mpf(1) / 60}
    return (
        sum(
            weight * sign * highprec.information(beta, rho, 1 / (qhat + sign * k * step), digits=26)
            for k, weight in weights.items()
            for sign in (1, -1)
        )
        / step
    )


@pytest.mark.parametrize(
    ("beta", "rho", "s"),
    [
        ("2", "0.5", "0.05"),
        pytest.param("2", "0.5", "0.3", marks=pytest.mark.slow),
        pytest.param("1", "1", "0.001", marks=pytest.mark.slow),
        pytest.param("1.0001", "0.2", "0.05", marks=pytest.mark.slow),
        pytest.param("1000", "3", "20", marks=pytest.mark.slow),
    ],
)
def test_error_is_the_derivative_of_information(beta, rho, s):
    # d I_S / d qhat = M/2: the log potential and the Haar constant enter only the left side.
    with mp.workdps(40):
        slope = derivative_of_information(beta, rho, 1 / mpf(s))
        assert abs(2 * slope / highprec.mmse(beta, rho, s) - 1) < mpf("1e-14")


def test_digits_are_delivered():
    # The pair of complex critical points makes this the slowest case of the trapezoidal rule.
    point = ("2", "1", "0.5")
    fine = highprec.evaluate(*point, digits=32)
    for digits in (8, 16, 24):
        coarse = highprec.evaluate(*point, digits=digits)
        assert coarse.nodes < fine.nodes
        with mp.workdps(50):
            assert abs(coarse.mmse / fine.mmse - 1) < mpf(10) ** -(digits - 1)
            assert abs(coarse.information / fine.information - 1) < mpf(10) ** -(digits - 1)


def test_strings_are_decimal_and_floats_are_binary():
    with mp.workdps(30):
        decimal, binary = (highprec.mmse(2, "0.5", s, digits=22) for s in ("0.1", 0.1))
        difference = decimal / binary - 1
        assert mpf("1e-19") < abs(difference) < mpf("1e-16")


@pytest.mark.parametrize("row", TABLE[5::17], ids=lambda row: "-".join(map(str, row[:3])))
def test_naive_oracle(row):
    beta, rho, s, mmse, _ = map(float, row)
    assert naive.mmse(beta, rho, s) == pytest.approx(mmse, rel=1e-11)
    mass = naive.average(lambda w, g: 1.0, beta, rho, s)
    second = naive.average(lambda w, g: w, beta, rho, s)
    assert mass == pytest.approx(1, rel=1e-11)
    assert second == pytest.approx(1 + s, rel=1e-11)  # E w = E ||Y||^2/(d1 d2)


def test_naive_law_is_the_spectrum_of_matrices():
    rng = np.random.default_rng(0)
    d1, d2, r, s = 300, 600, 60, 0.1
    signal = rng.normal(size=(d1, r)) @ rng.normal(size=(r, d2)) / np.sqrt(r)
    matrix = signal + np.sqrt(s) * rng.normal(size=(d1, d2))
    spectrum = np.linalg.eigvalsh(matrix @ matrix.T / d2)
    (low, gap_low), (gap_high, high) = naive.edges(d2 / d1, r / d1, s)
    assert low * 0.9 < spectrum[0] and spectrum[-1] < high * 1.1
    assert np.sum(spectrum < (gap_low + gap_high) / 2) == d1 - r
    log_determinant = np.mean(np.log(spectrum))
    expected = naive.average(lambda w, g: np.log(w), d2 / d1, r / d1, s)
    assert log_determinant == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    ("alpha", "beta", "rho", "delta", "mmse", "digits"),
    [
        (0.7, 1.0, 0.5, 0.0, 1 - 0.91562, 5e-6),
        (0.95, 2.0, 1.0, 0.0, 1 - 0.99107, 5e-6),
        (0.5, 1.0, 0.2, 0.1, 0.1974013, 1e-8),
        (2.0, 2.0, 0.2, 0.5, 0.07809746, 1e-8),
        (0.8, 1.0, 0.5, 0.0, 0.0, 0.0),
    ],
)
def test_naive_state_evolution(alpha, beta, rho, delta, mmse, digits):
    assert naive.solve(alpha, beta, rho, delta) == pytest.approx(mmse, rel=0, abs=digits)
