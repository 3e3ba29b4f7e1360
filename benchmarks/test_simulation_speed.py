r"""Algorithms on instances of finite size, and the theory that stands for them.

The promise: at d1 = 100 an iteration of GAMP-RIE, with its singular value decomposition, costs at
most 1.3 times the two BLAS products with X alone, from n = 4000 samples on.  With fewer the
denoiser, 2 milliseconds whatever n is, weighs more.
"""

from __future__ import annotations

import numpy as np
import pytest
from harness import Peer, on_threads
from scipy import linalg

import bsr_theory as bsr
from bsr_theory import erm
from bsr_theory.simulations import amp, nuclear_norm, ridge

pytestmark = [pytest.mark.bench, pytest.mark.benchmark(group="simulations")]

STEPS = 4
LAM = 0.1


def matrix(data):
    """Return A, whose rows are those of X over sqrt(d1 d2)."""
    X = np.asarray(data.X)
    return X.reshape(X.shape[0], -1) / np.sqrt(data.S.size)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("alpha", "beta"), [(0.1, 1.0), (0.4, 1.0), (0.2, 2.0)])
def test_iteration_over_two_products(race, alpha, beta, dtype):
    problem = bsr.bilinear_regression(alpha, beta, 0.5, 0.1)
    data = problem.sample(100, rng=0, dtype=dtype)
    X = np.asarray(data.X).reshape(data.X.n, -1)
    vector, weights = data.S.ravel().astype(dtype), data.y.astype(dtype)
    race(
        f"iteration of GAMP-RIE, d1 = 100, d2 = {data.S.shape[1]}, n = {data.X.n}, "
        f"{np.dtype(dtype).name}",
        lambda: amp(data, steps=STEPS, tolerance=0.0),
        unit="iteration",
        count=STEPS,
        rounds=7,
        threads="all",
        peers=[Peer("its two products with X, NumPy", lambda: (X @ vector, weights @ X))],
        at_least=1 / 1.3 if data.X.n >= 4000 else None,
    )


def test_streamed_pass(race):
    """An entry is made, used for both products and forgotten."""
    data = bsr.bilinear_regression(0.1, 1.0, 0.5).sample(100, rng=0, design="stream")
    rng, n = np.random.default_rng(0), 100_000
    race(
        "pass over a streamed design",
        lambda: data.X.sweep(data.S, lambda h, rows: h),
        unit="entry",
        count=int(np.prod(data.X.shape)),
        rounds=3,
        peers=[Peer("drawing the entries alone, NumPy", lambda: rng.standard_normal(n), n)],
    )


@pytest.mark.parametrize("alpha", [0.25, 1.0])
def test_ridge(race, alpha):
    linear_model = pytest.importorskip("sklearn.linear_model")
    data = bsr.bilinear_regression(alpha, 2.0, 0.5, 0.1).sample(32, rng=0)
    A, y = matrix(data), data.y

    def scikit_learn():
        return linear_model.Ridge(alpha=LAM, fit_intercept=False).fit(A, y).coef_

    def scipy():
        if A.shape[0] < A.shape[1]:
            gram = A @ A.T
            gram[np.diag_indices_from(gram)] += LAM
            return A.T @ linalg.solve(gram, y, assume_a="pos")
        gram = A.T @ A
        gram[np.diag_indices_from(gram)] += LAM
        return linalg.solve(gram, A.T @ y, assume_a="pos")

    def misfit(estimate):
        S = np.ravel(estimate)
        gradient = A.T @ (y - A @ S) - LAM * S
        return float(np.linalg.norm(gradient) / np.linalg.norm(A.T @ y))

    race(
        f"ridge regression, n = {A.shape[0]}, {A.shape[1]} unknowns",
        lambda: ridge(data, LAM),
        unit="fit",
        error=misfit(ridge(data, LAM).estimate),
        rounds=3,
        threads="all",
        peers=[
            Peer("scikit-learn's Ridge", scikit_learn, error=misfit),
            Peer("normal equations, SciPy's solve", scipy, error=misfit),
        ],
    )


def test_nuclear_norm(race):
    cvxpy = pytest.importorskip("cvxpy")
    pytest.importorskip("clarabel")
    data = bsr.bilinear_regression(0.5, 1.5, 0.3, 0.1).sample(12, rng=0)
    A = matrix(data)

    def objective(S):
        misfit = data.y - A @ np.ravel(S)
        return 0.5 * misfit @ misfit + LAM * np.sqrt(S.shape[1]) * np.linalg.norm(S, "nuc")

    def interior_point():
        S = cvxpy.Variable(data.S.shape)
        loss = 0.5 * cvxpy.sum_squares(data.y - A @ cvxpy.vec(S, order="C"))
        penalty = LAM * np.sqrt(data.S.shape[1]) * cvxpy.normNuc(S)
        cvxpy.Problem(cvxpy.Minimize(loss + penalty)).solve(solver=cvxpy.CLARABEL)
        return S.value

    best = objective(nuclear_norm(data, LAM, tolerance=1e-13).estimate)

    def excess(estimate):
        return abs(objective(estimate) / best - 1)

    race(
        f"nuclear norm, n = {data.X.n}, {A.shape[1]} unknowns",
        lambda: nuclear_norm(data, LAM),
        unit="fit",
        error=excess(nuclear_norm(data, LAM).estimate),
        threads="all",
        peers=[Peer("CVXPY with Clarabel", interior_point, error=excess)],
    )


THEORY = {
    "Bayes-optimal error": (bsr.solve, amp, "GAMP-RIE"),
    "ridge regression": (
        lambda problem: erm.ridge(problem, lam=LAM),
        lambda data: ridge(data, LAM),
        "ridge regression",
    ),
    "nuclear norm": (
        lambda problem: erm.nuclear_norm(problem, lam=LAM),
        lambda data: nuclear_norm(data, LAM),
        "nuclear norm",
    ),
}


@pytest.mark.benchmark(group="theory")
@pytest.mark.parametrize("case", THEORY)
def test_theory_against_one_run(race, case):
    theory, simulation, name = THEORY[case]
    problem = bsr.bilinear_regression(0.4, 1.5, 0.5, 0.1)
    data = problem.sample(40, rng=0)
    exact = theory(problem).mmse if case == "Bayes-optimal error" else theory(problem).mse
    race(
        f"{case}, one point",
        lambda: theory(problem),
        unit="point",
        rounds=3,
        peers=[
            Peer(
                f"one run of {name}, d1 = 40",
                on_threads("all", lambda: simulation(data)),
                error=abs(float(simulation(data).mse[-1]) / exact - 1),
            )
        ],
    )
