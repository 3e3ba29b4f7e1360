"""Nuclear norm and ridge estimators against convex solvers, closed forms and asymptotics."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest

import bsr_theory as bsr
from bsr_theory.design import DenseDesign
from bsr_theory.problem import Instance
from bsr_theory.results import SimulationRun, Status
from bsr_theory.simulations.convex import ConvexRun, nuclear_norm, ridge

MODULE = sys.modules["bsr_theory.simulations.convex"]


def sample(d1, alpha, beta=1.0, rho=0.5, delta=0.0, rng=1, **keywords):
    return bsr.bilinear_regression(alpha, beta, rho, delta).sample(d1, rng=rng, **keywords)


def matrix(data):
    """Return the n by d1 d2 matrix of the map."""
    return np.asarray(data.X, dtype=np.float64).reshape(data.X.n, -1) / np.sqrt(data.S.size)


def instance(A, y, shape, S=None):
    """Return an instance whose map is A."""
    X = DenseDesign(np.ascontiguousarray(A.reshape(-1, *shape)) * np.sqrt(A.shape[1]))
    problem = bsr.bilinear_regression(1.0, shape[1] / shape[0], 0.5)
    return Instance(X, y, np.zeros(shape) if S is None else S, problem)


def soft_threshold(Y, by):
    left, sigma, right = np.linalg.svd(Y, full_matrices=False)
    return (left * np.maximum(sigma - by, 0.0)) @ right


def objective(data, S, lam):
    """Return what is minimised, per d1 d2, and for lam = 0 the norm per d1 sqrt(d2)."""
    d1, d2 = S.shape
    norm = np.linalg.norm(S, "nuc") / (d1 * np.sqrt(d2))
    if lam == 0.0:
        return norm
    return np.sum((data.y - matrix(data) @ S.ravel()) ** 2) / (2 * d1 * d2) + lam * norm


# --------------------------------------------------------------------------------------------
# Nuclear norm against other solvers and closed forms
# --------------------------------------------------------------------------------------------

CASES = [
    # d1, alpha, beta, rho, delta, lam
    (6, 0.4, 1.0, 0.34, 0.0, 0.0),
    (5, 0.7, 1.4, 0.4, 0.2, 0.0),
    (5, 0.1, 2.0, 0.4, 0.0, 0.0),
    (6, 0.4, 1.0, 0.34, 0.1, 0.1),
    (6, 0.9, 1.0, 0.34, 0.1, 0.6),
    (4, 0.5, 2.5, 0.5, 0.0, 1e-3),
    (5, 1.6, 1.2, 0.4, 0.3, 0.2),
    (5, 1.0, 1.2, 0.4, 0.3, 0.02),
]


class TestAgainstOtherSolvers:
    @pytest.mark.parametrize("case", CASES)
    def test_interior_point(self, case):
        cvxpy = pytest.importorskip("cvxpy")
        pytest.importorskip("clarabel")
        *size, lam = case
        data = sample(*size)
        A, (d1, d2) = matrix(data), data.S.shape
        S = cvxpy.Variable((d1, d2))
        norm, fit = cvxpy.normNuc(S), A @ cvxpy.vec(S, order="C")
        if lam == 0.0:
            problem = cvxpy.Problem(cvxpy.Minimize(norm), [fit == data.y])
        else:
            loss = 0.5 * cvxpy.sum_squares(data.y - fit) + lam * np.sqrt(d2) * norm
            problem = cvxpy.Problem(cvxpy.Minimize(loss))
        exact = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-10)
        problem.solve(solver=cvxpy.CLARABEL, **exact)
        run = nuclear_norm(data, lam, tolerance=1e-11)
        assert run.status is Status.CONVERGED
        unit = d1 * np.sqrt(d2) if lam == 0.0 else d1 * d2
        assert run.objective == pytest.approx(problem.value / unit, rel=1e-8)
        np.testing.assert_allclose(run.estimate, S.value, atol=2e-5)

    @pytest.mark.parametrize("case", [c for c in CASES if c[-1] > 0.0])
    def test_optimality_conditions(self, case):
        """A^T(y - A S) = Lambda (U V^T + W): the W of norm <= 1 lives beside U and V."""
        *size, lam = case
        data = sample(*size)
        run = nuclear_norm(data, lam, tolerance=1e-12)
        A, S = matrix(data), run.estimate
        gradient = (A.T @ (data.y - A @ S.ravel())).reshape(S.shape)
        gradient /= lam * np.sqrt(S.shape[1])
        left, sigma, right = np.linalg.svd(S)
        rank = int(np.sum(sigma > 1e-10))
        assert run.rank == rank / S.shape[0]
        inside = left.T @ gradient @ right.T
        np.testing.assert_allclose(inside[:rank, :rank], np.eye(rank), atol=1e-5)
        np.testing.assert_allclose(inside[:rank, rank:], 0.0, atol=1e-5)
        np.testing.assert_allclose(inside[rank:, :rank], 0.0, atol=1e-5)
        if rank < S.shape[0]:
            assert np.linalg.norm(inside[rank:, rank:], 2) < 1.0 + 1e-5


class TestClosedForms:
    @pytest.mark.parametrize("lam", [0.0, 0.3, 1.5])
    def test_orthogonal_map(self, lam):
        rng = np.random.default_rng(0)
        A = np.linalg.qr(rng.standard_normal((40, 40)))[0]
        y = rng.standard_normal(40)
        run = nuclear_norm(instance(A, y, (5, 8)), lam, tolerance=1e-13)
        Y = (A.T @ y).reshape(5, 8)
        exact = soft_threshold(Y, lam * np.sqrt(8))
        np.testing.assert_allclose(run.estimate, exact, atol=1e-7)
        assert run.rank == np.linalg.matrix_rank(exact) / 5

    @pytest.mark.parametrize("alpha", [0.3, 1.5])
    def test_where_the_penalty_leaves_nothing(self, alpha):
        data = sample(8, alpha, 1.5, 0.4, 0.1)
        first = np.linalg.norm(data.X.rmatvec(data.y), 2) / np.sqrt(12)
        for lam in (first * (1 + 1e-12), 10 * first, 1e300, 1.7e308):
            run = nuclear_norm(data, lam)
            assert run.status is Status.CONVERGED and run.gap == 0.0
            assert not run.estimate.any() and run.rank == 0.0 and run.nuclear_norm == 0.0
            assert run.train_loss == pytest.approx(np.mean(data.y**2), rel=1e-14)
            assert run.objective == pytest.approx(np.sum(data.y**2) / 2 / 96, rel=1e-14)
        below = nuclear_norm(data, 0.98 * first, tolerance=1e-10)
        assert below.rank == 1 / 8 and below.status is Status.CONVERGED

    @pytest.mark.parametrize("alpha", [0.5, 1.0, 1.7])
    def test_one_row(self, alpha):
        """The nuclear norm of a vector is its Euclidean norm: ridge regression."""
        rng = np.random.default_rng(3)
        A, y = rng.standard_normal((round(12 * alpha), 12)) / np.sqrt(12), None
        y = A @ rng.standard_normal(12) + 0.3 * rng.standard_normal(len(A))
        data = instance(A, y, (1, 12))
        run = nuclear_norm(data, 0.0, tolerance=1e-12)
        np.testing.assert_allclose(run.estimate, ridge(data).estimate, atol=1e-6)
        run = nuclear_norm(data, 0.1, tolerance=1e-13)
        # stationarity: (A^T A + Lambda/|S|) S = A^T y
        shift = 0.1 * np.sqrt(12) / np.linalg.norm(run.estimate)
        exact = np.linalg.solve(A.T @ A + shift * np.eye(12), A.T @ y)
        np.testing.assert_allclose(run.estimate[0], exact, atol=1e-6)

    def test_recovery_without_noise(self):
        for alpha, rho in ((0.8, 0.2), (0.65, 0.1), (1.0, 0.5), (1.4, 0.5)):
            data = sample(20, alpha, 1.0, rho)
            run = nuclear_norm(data)
            assert run.status is Status.CONVERGED
            assert run.mse[-1] < 1e-8 and run.rank == rho

    def test_least_squares_where_labels_suffice(self):
        data = sample(8, 1.5, 1.25, 0.5, 0.2)
        run = nuclear_norm(data)
        exact = np.linalg.lstsq(matrix(data), data.y, rcond=None)[0]
        np.testing.assert_allclose(run.estimate.ravel(), exact, atol=1e-12)
        assert run.iterations == 1 and run.infeasibility < 1e-13 < run.train_loss
        assert abs(run.gap) < 1e-12
        near = nuclear_norm(data, 1e-9)
        np.testing.assert_allclose(near.estimate, run.estimate, atol=1e-7)

    def test_as_many_labels_as_entries(self):
        for seed in range(10):
            data = sample(12, 1.0, 1.0, 0.5, 0.1, rng=seed)
            run = nuclear_norm(data)
            exact = np.linalg.solve(matrix(data), data.y)
            np.testing.assert_allclose(run.estimate.ravel(), exact, rtol=1e-7, atol=1e-7)
            assert run.status is Status.CONVERGED

    @pytest.mark.parametrize("alpha", [0.4, 1.3])
    def test_the_limit_of_weak_penalties(self, alpha):
        data = sample(10, alpha, 1.5, 0.3, 0.1)
        limit = nuclear_norm(data, 0.0, tolerance=1e-10)
        gaps = []
        for lam in (1e-2, 1e-4, 1e-6):
            run = nuclear_norm(data, lam, tolerance=1e-9)
            gaps.append(np.sqrt(np.mean((run.estimate - limit.estimate) ** 2)))
        assert gaps[0] > 20 * gaps[1] > 20 * 10 * gaps[2]
        assert gaps[2] < 1e-3

    def test_repeated_rows(self):
        """Two labels of one X_mu: their mean is what can be explained."""
        data = sample(8, 0.4, 1.0, 0.25, 0.1)
        A, noise = matrix(data), np.random.default_rng(0).standard_normal(data.X.n)
        twice = instance(
            np.vstack([A, A]), np.concatenate([data.y + noise, data.y - noise]), (8, 8)
        )
        for lam in (0.0, 0.1):
            once = nuclear_norm(data, lam / 2, tolerance=1e-10)
            run = nuclear_norm(twice, lam, tolerance=1e-10)
            assert run.status is Status.CONVERGED
            np.testing.assert_allclose(run.estimate, once.estimate, atol=1e-4)
        np.testing.assert_allclose(ridge(twice).estimate, ridge(data).estimate, atol=1e-10)

    def test_nothing_to_explain(self):
        data = sample(5, 0.4)
        for method in (nuclear_norm, ridge):
            for lam in (0.0, 0.1):
                run = method(dataclasses.replace(data, y=np.zeros(data.X.n)), lam)
                assert not run.estimate.any() and run.gap == 0.0 and run.objective == 0.0
                assert run.status is Status.CONVERGED
        blind = Instance(DenseDesign(np.zeros(data.X.shape)), data.y, data.S, data.problem)
        for method in (nuclear_norm, ridge):
            run = method(blind)
            assert not run.estimate.any() and run.status is Status.CONVERGED

    def test_scale_of_the_labels(self):
        data = sample(10, 0.4, 1.0, 0.3, 0.1)
        for lam in (0.0, 0.05):
            run = nuclear_norm(data, lam)
            for c in (1e-12, 1e9):
                other = nuclear_norm(dataclasses.replace(data, y=c * data.y), c * lam)
                assert other.status is Status.CONVERGED
                assert other.objective == pytest.approx(
                    run.objective * (c * c if lam else c), rel=2e-6
                )


# --------------------------------------------------------------------------------------------
# The certificate
# --------------------------------------------------------------------------------------------


class TestCertificate:
    @pytest.mark.parametrize("lam", [0.0, 0.1])
    def test_reported_numbers_are_those_of_the_estimate(self, lam):
        data = sample(12, 0.5, 1.5, 0.25, 0.1)
        run = nuclear_norm(data, lam)
        S, misfit = run.estimate, data.y - matrix(data) @ run.estimate.ravel()
        assert run.train_loss == pytest.approx(np.mean(misfit**2), rel=1e-10, abs=1e-28)
        assert run.objective == pytest.approx(objective(data, S, lam), rel=1e-12)
        nuclear = np.linalg.norm(S, "nuc") / (12 * np.sqrt(18))
        assert run.nuclear_norm == pytest.approx(nuclear, rel=1e-12)
        assert run.mse[-1] == pytest.approx(np.mean((S - data.S) ** 2), rel=1e-12)
        assert run.overlap[-1] == pytest.approx(np.mean(S * data.S), rel=1e-12)
        assert run.mse.shape == run.overlap.shape == (run.iterations + 1,)
        if lam == 0.0:
            assert run.infeasibility == pytest.approx(
                np.linalg.norm(misfit) / np.linalg.norm(data.y), abs=1e-15
            )
            assert run.infeasibility < 1e-14
        else:
            assert run.infeasibility == 0.0
            assert run.rank == np.linalg.matrix_rank(S, tol=1e-9) / 12

    @pytest.mark.parametrize("lam", [0.0, 1e-4, 0.1, 1.0])
    @pytest.mark.parametrize("alpha", [0.3, 1.4])
    def test_encloses_the_optimum(self, alpha, lam):
        data = sample(10, alpha, 1.5, 0.3, 0.1)
        best = nuclear_norm(data, lam, tolerance=1e-11).objective
        for steps in (1, 3, 10, 30, 100):
            run = nuclear_norm(data, lam, steps=steps, tolerance=0.0)
            bound = run.objective * (1.0 - run.gap)
            assert bound <= best * (1 + 1e-10) and best <= run.objective * (1 + 1e-10)

    @pytest.mark.parametrize("lam", [0.0, 0.1])
    def test_any_dual_vector_gives_a_bound(self, lam):
        data = sample(8, 0.5, 1.25, 0.25, 0.1)
        run = nuclear_norm(data, lam, tolerance=1e-11)
        penalty, unit = lam * np.sqrt(10), (8 * np.sqrt(10) if lam == 0.0 else 80)
        rng = np.random.default_rng(0)
        for k in range(50):
            u = data.y + 10.0 ** (k / 10 - 3) * rng.standard_normal(data.X.n)
            found = MODULE._certify(data.X, data.y, run.estimate, penalty, 10.0 ** (k - 25) * u)
            assert found.gap > 0.0
            assert found.objective / unit == pytest.approx(run.objective, rel=1e-12)

    def test_a_worse_estimate_has_a_larger_gap(self):
        data = sample(10, 0.5, 1.0, 0.3, 0.1)
        run = nuclear_norm(data, 0.1, tolerance=1e-12)
        u = data.y - matrix(data) @ run.estimate.ravel()
        noise = np.random.default_rng(0).standard_normal((10, 10))
        penalty, last = 0.1 * np.sqrt(10), run.gap
        for size in (1e-4, 1e-3, 1e-2, 1e-1):
            worse = run.estimate + size * noise
            found = MODULE._certify(data.X, data.y, worse, penalty, u)
            excess = 1.0 - run.objective / objective(data, worse, 0.1)
            assert found.gap == pytest.approx(excess, rel=1e-2, abs=1e-7)
            assert found.gap > 2 * last
            last = found.gap

    def test_an_interrupted_run_says_so(self):
        data = sample(15, 0.4, 1.0, 0.2)
        run = nuclear_norm(data, steps=4)
        assert run.status is Status.NOT_CONVERGED and run.gap > 1e-3
        assert run.iterations == 4 and run.infeasibility < 1e-13
        assert nuclear_norm(data, steps=40, tolerance=0.0).iterations == 40

    def test_tolerance(self):
        data = sample(12, 0.4, 1.0, 0.25, 0.1)
        for lam in (0.0, 0.05):
            runs = [nuclear_norm(data, lam, tolerance=t) for t in (1e-3, 1e-6, 1e-9)]
            assert [run.status for run in runs] == 3 * [Status.CONVERGED]
            assert runs[0].iterations < runs[1].iterations < runs[2].iterations
            for run, tolerance in zip(runs, (1e-3, 1e-6, 1e-9), strict=True):
                assert -1e-12 < run.gap <= tolerance


# --------------------------------------------------------------------------------------------
# The iteration
# --------------------------------------------------------------------------------------------


def random_problem(rng, entries):
    while True:
        alpha, rho = np.exp(rng.uniform(np.log([0.05, 0.05]), np.log([2.0, 1.0])))
        beta, d1 = rng.choice([1.0, rng.uniform(1, 4)]), int(rng.integers(3, 31))
        lam = rng.choice([0.0, rng.uniform(0, 2), 10 ** rng.uniform(-8, 0)])
        delta = rng.choice([0.0, 1e-3, 0.1, 1.0])
        size = d1 * round(beta * d1)
        if 1 <= round(alpha * size) and alpha * size**2 <= entries:
            return (d1, alpha, beta, rho, delta), lam


class TestConvergence:
    def test_80_problems(self):
        rng = np.random.default_rng(0)
        for k in range(80):
            size, lam = random_problem(rng, 1e5)
            run = nuclear_norm(sample(*size, rng=k), lam)
            assert run.status is Status.CONVERGED, (size, lam)
            assert -1e-9 < run.gap <= 1e-6 and run.iterations < 2000

    @pytest.mark.slow
    def test_400_problems(self):
        rng = np.random.default_rng(1)
        for k in range(400):
            size, lam = random_problem(rng, 3e6)
            run = nuclear_norm(sample(*size, rng=k), lam)
            assert run.status is Status.CONVERGED, (size, lam)

    def test_hard_problems(self):
        """At the threshold of recovery, and where the fit fixes S and the penalty is weak."""
        for size, lam in (
            ((25, 0.57, 1.0, 0.2, 0.0), 0.0),
            ((25, 0.3, 2.0, 0.1, 0.0), 1e-6),
            ((18, 1.8, 1.0, 0.13, 1e-3), 3.5e-8),
            ((12, 1.02, 1.0, 0.5, 0.1), 1e-7),
            ((12, 0.99, 1.0, 0.5, 1.0), 0.0),
        ):
            run = nuclear_norm(sample(*size), lam)
            assert run.status is Status.CONVERGED and run.iterations < 800

    def test_from_any_start(self):
        data = sample(12, 0.5, 1.25, 0.25, 0.1)
        rng = np.random.default_rng(0)
        for lam in (0.0, 0.1):
            cold = nuclear_norm(data, lam, tolerance=1e-10)
            for start in (np.zeros((12, 15)).tolist(), data.S, 1e6 * rng.standard_normal((12, 15))):
                run = nuclear_norm(data, lam, start=start, tolerance=1e-10)
                assert run.mse[0] == pytest.approx(np.mean((start - data.S) ** 2))
                assert run.status is Status.CONVERGED
                np.testing.assert_allclose(run.estimate, cold.estimate, atol=1e-4)

    def test_a_start_close_by_saves_iterations(self):
        data = sample(20, 0.5, 1.0, 0.2, 0.1)
        cold = nuclear_norm(data, 0.1)
        assert nuclear_norm(data, 0.1, start=cold.estimate).iterations < cold.iterations / 3
        near = nuclear_norm(data, 0.103)
        assert nuclear_norm(data, 0.1, start=near.estimate).iterations < cold.iterations

    def test_extrapolation_solves_a_linear_equation(self):
        """As many steps as dimensions: Anderson's method is then GMRES, which is exact."""
        rng = np.random.default_rng(0)
        M = np.eye(5) - 0.3 * np.diag(np.arange(1, 6)) / 5
        b, Z, anderson = rng.standard_normal((1, 5)), np.zeros((1, 5)), MODULE._Extrapolation()
        for _ in range(9):
            Z = anderson.next(Z, Z @ M + b - Z)
        exact = np.linalg.solve(np.eye(5) - M, b[0])
        np.testing.assert_allclose(Z[0], exact, rtol=1e-6)
        plain = np.zeros((1, 5))
        for _ in range(9):
            plain = plain @ M + b
        assert np.abs(plain[0] - exact).max() > 0.1

    def test_an_extrapolation_that_does_not_help_is_taken_back(self):
        rng = np.random.default_rng(0)
        Z, F = rng.standard_normal((2, 3, 1, 4))
        F[1] *= 0.5 * np.linalg.norm(F[0]) / np.linalg.norm(F[1])
        for size, back in ((0.99, False), (1.0, True), (7.0, True), (np.nan, True)):
            anderson = MODULE._Extrapolation()
            np.testing.assert_array_equal(anderson.next(Z[0], F[0]), Z[0] + F[0])
            tried = anderson.next(Z[1], F[1])
            assert not np.allclose(tried, Z[1] + F[1])
            after = anderson.next(tried, size * np.linalg.norm(F[1]) * F[2] / np.linalg.norm(F[2]))
            assert np.array_equal(after, Z[1] + F[1]) == back
            assert (anderson.points == []) == back


# --------------------------------------------------------------------------------------------
# Ridge
# --------------------------------------------------------------------------------------------


class TestRidge:
    @pytest.mark.parametrize("alpha", [0.1, 0.6, 1.0, 1.7])
    @pytest.mark.parametrize("lam", [0.0, 1e-6, 0.1, 3.0, 1e8])
    def test_normal_equations(self, alpha, lam):
        data = sample(8, alpha, 1.5, 0.4, 0.2)
        A = matrix(data)
        exact = (
            np.linalg.lstsq(A, data.y, rcond=None)[0]
            if lam == 0.0
            else np.linalg.solve(A.T @ A + lam * np.eye(96), A.T @ data.y)
        )
        run = ridge(data, lam)
        np.testing.assert_allclose(run.estimate.ravel(), exact, rtol=1e-7, atol=1e-9)
        assert run.status is Status.CONVERGED and 0.0 <= run.gap < 1e-12
        assert run.iterations == 1 and run.lam == lam
        misfit = np.sum((data.y - A @ exact) ** 2)
        assert run.train_loss == pytest.approx(misfit / data.X.n, rel=1e-6, abs=1e-20)
        loss = (misfit if lam else 0.0) + (lam or 1.0) * np.sum(exact**2)
        assert run.objective == pytest.approx(loss / 2 / 96, rel=1e-6)
        if lam == 0.0:
            assert run.infeasibility < 1e-12

    @pytest.mark.parametrize("alpha", [0.5, 1.5])
    def test_weak_penalties(self, alpha):
        """Below 1e-8 of the diagonal of the Gram matrix another factorisation takes over."""
        data = bsr.bilinear_regression(alpha, 2.0, 0.5, 0.1).sample(8, rng=3)
        diagonal = np.diag(
            matrix(data) @ matrix(data).T if alpha < 1 else matrix(data).T @ matrix(data)
        ).max()
        least, *weak = (ridge(data, x * diagonal).estimate for x in (0.0, 0.5e-8, 2e-8))
        for estimate in weak:
            np.testing.assert_allclose(estimate, least, atol=1e-5 * np.abs(least).max())
        np.testing.assert_allclose(4.0 * (weak[0] - least), weak[1] - least, rtol=1e-3, atol=1e-11)

    @pytest.mark.parametrize(
        ("d1", "beta", "alpha", "delta", "lam", "error"),
        [
            (15, 2.0, 0.5, 0.1, 0.0, 0.6),
            (15, 2.0, 0.5, 0.1, 0.02, 0.587697405654),
            (15, 2.0, 0.5, 0.1, 0.5, 0.624264068712),
            (20, 1.0, 1.5, 0.5, 0.0, 1.0),
            (20, 1.0, 1.5, 0.5, 0.1, 0.532370802418),
            (20, 1.0, 1.5, 0.5, 2.0, 0.493399267799),
            (20, 1.0, 0.8, 0.0, 0.1, 0.271791138077),
            (20, 1.0, 1.0, 0.1, 0.1, 0.270156211872),
        ],
    )
    def test_asymptotic_error(self, d1, beta, alpha, delta, lam, error):
        # of any S: one without structure, whose norm fluctuates least
        data = [sample(d1, alpha, beta, np.inf, delta, rng=(1, k)) for k in range(10)]
        errors = [ridge(x, lam).mse[-1] for x in data]
        spread = np.std(errors, ddof=1) / np.sqrt(10)
        assert abs(np.mean(errors) - error) < 4 * spread < 0.2 * error

    def test_gap_is_the_duality_gap(self):
        data = sample(8, 0.6, 1.0, 0.4, 0.2)
        A = matrix(data)
        run = ridge(data, 0.1)
        # with the residual as dual vector, by definition
        u = data.y - A @ run.estimate.ravel()
        bound = data.y @ u - u @ u / 2 - np.sum((A.T @ u) ** 2) / 0.2
        assert run.objective == pytest.approx(bound / 64, rel=1e-12)


# --------------------------------------------------------------------------------------------
# Asymptotics
# --------------------------------------------------------------------------------------------

# d1, beta, rho, alpha, delta, lam: error, training loss, rank/d1, norm/(d1 sqrt(d2)) of the limit
SMALL = {
    (20, 1.0, 0.5, 0.5, 0.0, 0.0): (0.3646069266, 0.0, 0.58247482, 0.49266997),
    (20, 2.0, 0.5, 0.4, 0.0, 0.0): (0.4295173033, 0.0, 0.67535291, 0.49331336),
    (20, 1.0, 0.5, 0.6, 0.1, 0.05): (0.4139039604, 0.00722300, 0.61218292, 0.53639210),
    (20, 1.0, 0.5, 0.6, 0.1, 1.0): (0.7100751780, 0.54379754, 0.20576946, 0.11840446),
}
LARGE = {
    (30, 2.0, 0.2, 0.4, 0.0, 0.0): (0.0535855899, 0.0, 0.61426326, 0.42218363),
    (30, 2.0, 0.2, 0.4, 0.0, 0.05): (0.0847131795, 0.00559687, 0.46080582, 0.37293489),
    (30, 2.0, 0.2, 0.4, 0.0, 0.5): (0.4519837972, 0.25075359, 0.19889367, 0.17066590),
    (40, 1.0, 0.2, 0.3, 0.0, 0.0): (0.4116905614, 0.0, 0.40236490, 0.34959392),
    (40, 1.0, 0.5, 0.5, 0.0, 0.0): (0.3646069266, 0.0, 0.58247482, 0.49266997),
    (40, 1.0, 0.5, 0.6, 0.1, 0.05): (0.4139039604, 0.00722300, 0.61218292, 0.53639210),
    (40, 1.0, 0.5, 0.6, 0.1, 1.0): (0.7100751780, 0.54379754, 0.20576946, 0.11840446),
    (40, 1.0, 0.2, 0.3, 0.1, 0.1): (0.5354270050, 0.02404623, 0.35386390, 0.30802853),
    (40, 2.0, 1.0, 0.2, 0.0, 0.0): (0.8920566933, 0.0, 0.45842861, 0.34349713),
    (50, 1.0, 0.2, 0.4, 0.0, 0.0): (0.1826045051, 0.0, 0.47030440, 0.39385048),
    (60, 1.0, 2.0, 0.6, 0.25, 0.3): (0.6516614178, 0.13920683, 0.49013526, 0.39126300),
}


def check_limit(case, limit, samples, resolution):
    d1, beta, rho, alpha, delta, lam = case
    rows = []
    for k in range(samples):
        data = sample(d1, alpha, beta, rho, delta, rng=(2, k))
        run = nuclear_norm(data, lam)
        assert run.status is Status.CONVERGED
        # the norm of S fluctuates most; without noise and penalty the error is homogeneous in it
        scale = np.mean(data.S**2) if delta == 0.0 else 1.0
        rows.append([run.mse[-1] / scale, run.train_loss, run.rank, run.nuclear_norm])
    mean = np.mean(rows, axis=0)
    spread = np.std(rows, axis=0, ddof=1) / np.sqrt(samples)
    # at finite size the training loss and the rank are known to lie O(1/d1) below
    bias = 0.5 / d1 * np.array([0.0, limit[1], 1.0, 0.0])
    assert np.all(np.abs(mean - limit) < 4 * spread + bias + 1e-25)
    assert spread[0] < resolution * limit[0]  # or the comparison would mean nothing


class TestAsymptotics:
    @pytest.mark.parametrize("case", SMALL)
    def test_small(self, case):
        check_limit(case, SMALL[case], 10, 0.06)

    @pytest.mark.slow
    @pytest.mark.parametrize("case", LARGE)
    def test_large(self, case):
        check_limit(case, LARGE[case], 12, 0.1)


# --------------------------------------------------------------------------------------------
# Where X lives, what is given
# --------------------------------------------------------------------------------------------


class TestInterface:
    DATA = sample(10, 0.4, 1.5, 0.3, 0.1)

    @pytest.mark.parametrize("alpha", [0.5, 1.5])
    def test_streamed_and_mapped_are_dense(self, alpha, tmp_path):
        kinds = (("dense", None), ("stream", None), ("memmap", tmp_path / "X.npy"))
        data = [sample(12, alpha, 1.5, 0.25, 0.1, design=d, path=p) for d, p in kinds]
        for method, lam in ((nuclear_norm, 0.0), (nuclear_norm, 0.1), (ridge, 0.1)):
            runs = [method(x, lam) for x in data]
            for run in runs[1:]:
                assert run.iterations == runs[0].iterations
                np.testing.assert_allclose(run.estimate, runs[0].estimate, atol=1e-9)

    def test_single_precision_is_exact_in_its_own_entries(self):
        data = sample(12, 0.8, 1.0, 0.25, dtype=np.float32)
        run = nuclear_norm(data)
        misfit = data.y - matrix(data) @ run.estimate.ravel()
        assert np.linalg.norm(misfit) < 1e-13 * np.linalg.norm(data.y)
        assert run.infeasibility < 1e-13 and run.mse[-1] < 1e-8

    def test_other_labels(self):
        data = self.DATA
        signs = dataclasses.replace(data, y=np.sign(data.y))
        for method in (nuclear_norm, ridge):
            for lam in (0.0, 0.1):
                assert method(signs, lam).status is Status.CONVERGED

    def test_same_data_same_run_and_the_signal_is_not_looked_at(self):
        blind = dataclasses.replace(self.DATA, S=np.zeros_like(self.DATA.S))
        for method in (nuclear_norm, ridge):
            first, second = method(self.DATA, 0.05), method(blind, 0.05)
            np.testing.assert_array_equal(first.estimate, second.estimate)

    def test_the_labels_and_the_design_are_left_alone(self):
        before = self.DATA.y.copy(), np.asarray(self.DATA.X).copy()
        start = np.ones((10, 15))
        nuclear_norm(self.DATA, 0.05, start=start)
        ridge(self.DATA, 0.05)
        np.testing.assert_array_equal(self.DATA.y, before[0])
        np.testing.assert_array_equal(np.asarray(self.DATA.X), before[1])
        np.testing.assert_array_equal(start, 1.0)

    def test_what_is_returned(self):
        run = nuclear_norm(self.DATA, 0.05)
        assert isinstance(run, ConvexRun) and isinstance(run, SimulationRun)
        assert run.lam == 0.05 and 0.0 < run.seconds < 60.0
        assert run.estimated_mse is None and run.damping is None
        start = ridge(self.DATA, 0.05)
        assert run.mse[0] == pytest.approx(start.mse[-1], rel=1e-10)
        with pytest.raises(dataclasses.FrozenInstanceError):
            run.gap = 0.0

    def test_progress(self, capsys):
        nuclear_norm(self.DATA, 0.05)
        assert capsys.readouterr().err == ""
        nuclear_norm(self.DATA, 0.05, progress=True)
        assert "nuclear norm" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("keywords", "message"),
        [
            ({"lam": -0.1}, "lam must be >= 0 and finite, got -0.1"),
            ({"lam": float("nan")}, "lam must be >= 0 and finite, got nan"),
            ({"lam": float("inf")}, "lam"),
            ({"lam": [0.1, 0.2]}, r"lam must be a scalar, got an array of shape \(2,\)"),
            ({"lam": "optimal"}, "lam must be a number"),
            ({"steps": 0}, "steps must be a positive integer, got 0"),
            ({"steps": 2.0}, "steps must be a positive integer, got 2.0"),
            ({"steps": True}, "steps"),
            ({"tolerance": -1e-3}, "tolerance must be >= 0 and finite, got -0.001"),
            ({"start": np.zeros((10, 10))}, r"start must be None or finite of shape \(10, 15\)"),
            ({"start": np.full((10, 15), np.nan)}, "start must be None or finite"),
        ],
    )
    def test_bad_input(self, keywords, message):
        with pytest.raises(ValueError, match=message):
            nuclear_norm(self.DATA, **keywords)
        if "lam" in keywords:
            with pytest.raises(ValueError, match=message):
                ridge(self.DATA, **keywords)

    @pytest.mark.parametrize("alpha", [0.4, 1.5])
    def test_a_design_that_is_not_finite(self, alpha):
        data = sample(4, alpha)
        broken = np.asarray(data.X).copy()
        broken[1, 2, 1] = np.inf
        bad = Instance(DenseDesign(broken), data.y, data.S, data.problem)
        for method in (nuclear_norm, ridge):
            with pytest.raises(ValueError, match="X of the instance must be finite"):
                method(bad)

    @pytest.mark.parametrize("alpha", [0.4, 1.5])
    def test_memory(self, monkeypatch, alpha):
        data = sample(10, alpha, design="stream")
        small = min(data.X.n, 100)
        monkeypatch.setattr(MODULE, "available_memory", lambda: 8.0 * small**2)
        for method in (nuclear_norm, ridge):
            with pytest.raises(MemoryError, match=r"needs .* GB, of which .* take a smaller d1"):
                method(data)
        monkeypatch.setattr(MODULE, "available_memory", lambda: 1e7)
        assert nuclear_norm(data, 0.1).status is Status.CONVERGED
