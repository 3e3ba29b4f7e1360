"""The attention regressions against slow formulas that share no code with them."""

from __future__ import annotations

import time
import tracemalloc

import mpmath
import numpy as np
import pytest
from scipy.optimize import minimize

import bsr_theory as bsr
from bsr_theory import attention
from bsr_theory.attention import AttentionRegression, closed_form, fit, softmax_regression
from bsr_theory.results import Status

KINDS = ["normalised", "rescaled", "cross_entropy"]
SQUARES = KINDS[:2]

pytestmark = pytest.mark.filterwarnings("ignore:.*no attention matrix equals B:UserWarning")


# --------------------------------------------------------------------------------------------
# Slow and plain: the definitions, one row after the other, for real and complex X
# --------------------------------------------------------------------------------------------


def plain_loss(A1, A2, B, X, kind):
    """Return the loss of one sample from its definition, analytic in X."""
    total = 0.0
    for a, b in zip(A1, B, strict=True):
        u = np.exp(A2 @ (X.T @ a))
        if kind == "normalised":
            c = u / u.sum() - b
            total = total + (c * c).sum()
        elif kind == "rescaled":
            c = u - u.sum() * b
            total = total + (c * c).sum()
        else:
            total = total - (b * np.log(u / u.sum())).sum()
    return total


def plain_gradient(A1, A2, B, X, kind):
    """Differentiate `plain_loss` by complex steps, which cancel nothing."""
    gradient = np.empty(X.shape)
    for index in np.ndindex(X.shape):
        Z = X.astype(complex)
        Z[index] += 1e-30j
        gradient[index] = plain_loss(A1, A2, B, Z, kind).imag / 1e-30
    return gradient


def softmax(P):
    U = np.exp(P - P.max(axis=-1, keepdims=True))
    return U / U.sum(axis=-1, keepdims=True)


def kronecker_hessian(A1, A2, B, X, kind):
    """Return the d1 d2 x d1 d2 Hessian from the vector formulas of each row and its block.

    Row i of the problem is a regression with the n2 x d1 d2 matrix ``a_i^T (x) A2``.
    """
    total = np.zeros((X.size, X.size))
    for a, b in zip(A1, B, strict=True):
        A = np.kron(a[np.newaxis, :], A2)
        p = A @ X.ravel()
        f, u, n = softmax(p), np.exp(p), len(b)
        J = np.diag(f) - np.outer(f, f)
        if kind == "normalised":
            g = J @ (f - b)
            M = 2 * (J @ J + np.diag(g) - np.outer(g, f) - np.outer(f, g))
        elif kind == "rescaled":
            Q = np.eye(n) - np.outer(b, np.ones(n))
            M = 2 * (np.diag(u) @ Q.T @ Q @ np.diag(u) + np.diag(u * (Q.T @ Q @ u)))
        else:
            M = b.sum() * J
        total += A.T @ M @ A
    return total


def teacher(n, d, seed=0, *, gain=1.0, n2=None, d2=None, samples=None):
    """Return A1, A2, X and the attention matrices of X; scores of size ``gain``."""
    rng = np.random.default_rng(seed)
    n2, d2 = n2 or n, d2 or d
    lead = () if samples is None else (samples,)
    A1, A2 = rng.normal(size=(*lead, n, d)), rng.normal(size=(*lead, n2, d2))
    X = gain * rng.normal(size=(d, d2)) / np.sqrt(d * d2)
    return A1, A2, X, softmax(A1 @ X @ A2.swapaxes(-1, -2))


def random_case(seed=0, n1=5, n2=4, d1=3, d2=2):
    """Return data, labels that no weights explain, weights and a direction."""
    rng = np.random.default_rng(seed)
    A1, A2 = rng.normal(size=(n1, d1)), rng.normal(size=(n2, d2))
    B = rng.dirichlet(np.ones(n2), size=n1)
    return A1, A2, B, rng.normal(size=(d1, d2)), rng.normal(size=(d1, d2))


def error(found, truth):
    return np.linalg.norm(found - truth) / np.linalg.norm(truth)


# --------------------------------------------------------------------------------------------
# Losses and derivatives
# --------------------------------------------------------------------------------------------


class TestDerivatives:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("sizes", [(5, 4, 3, 2), (2, 7, 1, 4), (1, 3, 1, 3), (6, 1, 2, 2)])
    def test_loss_and_gradient(self, kind, sizes):
        A1, A2, B, X, _ = random_case(1, *sizes)
        regression = AttentionRegression(A1, A2, B, kind)
        np.testing.assert_allclose(regression.loss(X), plain_loss(A1, A2, B, X, kind), 1e-13, 1e-29)
        expected = plain_gradient(A1, A2, B, X, kind)
        np.testing.assert_allclose(
            regression.gradient(X), expected, rtol=1e-12, atol=1e-13 * (1 + np.abs(expected).max())
        )

    @pytest.mark.parametrize("kind", KINDS)
    def test_labels_that_are_no_probabilities(self, kind):
        A1, A2, B, X, V = random_case(2)
        B = B + (0.3 if kind == "cross_entropy" else -0.3)
        regression = AttentionRegression(A1, A2, B, kind)
        np.testing.assert_allclose(regression.loss(X), plain_loss(A1, A2, B, X, kind), rtol=1e-13)
        np.testing.assert_allclose(
            regression.gradient(X), plain_gradient(A1, A2, B, X, kind), rtol=1e-11
        )
        H = kronecker_hessian(A1, A2, B, X, kind)
        np.testing.assert_allclose(
            regression.hessian_product(X, V).ravel(), H @ V.ravel(), rtol=1e-11
        )

    @pytest.mark.parametrize("kind", KINDS)
    def test_hessian_is_that_of_the_kronecker_formula(self, kind):
        A1, A2, B, X, _ = random_case(3)
        regression = AttentionRegression(A1, A2, B, kind)
        expected = kronecker_hessian(A1, A2, B, X, kind)
        found = regression.hessian_operator(X) @ np.eye(X.size)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14 * scale)
        np.testing.assert_allclose(found, found.T, rtol=0, atol=1e-14 * scale)
        for column in range(X.size):
            V = np.eye(X.size)[column].reshape(X.shape)
            np.testing.assert_array_equal(
                regression.hessian_product(X, V).ravel(), found[:, column]
            )

    @pytest.mark.parametrize("kind", KINDS)
    def test_hessian_differentiates_the_gradient(self, kind):
        A1, A2, B, X, V = random_case(4, 9, 9, 4, 4)
        h = 1e-5

        def gradient(t):
            return plain_gradient(A1, A2, B, X + t * V, kind)

        # central differences, their h^2 removed
        slope = (8 * (gradient(h) - gradient(-h)) - (gradient(2 * h) - gradient(-2 * h))) / (12 * h)
        product = AttentionRegression(A1, A2, B, kind).hessian_product(X, V)
        np.testing.assert_allclose(product, slope, rtol=0, atol=2e-10 * np.abs(slope).max())

    @pytest.mark.parametrize("kind", KINDS)
    def test_second_derivative_with_many_digits(self, kind):
        A1, A2, B, X, V = random_case(5, 2, 3, 2, 2)
        with mpmath.workdps(40):

            def loss(t):
                total = mpmath.mpf(0)
                for i in range(2):
                    u = []
                    for j in range(3):
                        p = mpmath.mpf(0)
                        for k in range(2):
                            for m in range(2):
                                entry = mpmath.mpf(float(X[k, m])) + t * float(V[k, m])
                                p += mpmath.mpf(float(A1[i, k])) * entry * float(A2[j, m])
                        u.append(mpmath.exp(p))
                    a, b = sum(u), [mpmath.mpf(float(x)) for x in B[i]]
                    if kind == "normalised":
                        total += sum((x / a - y) ** 2 for x, y in zip(u, b, strict=True))
                    elif kind == "rescaled":
                        total += sum((x - a * y) ** 2 for x, y in zip(u, b, strict=True))
                    else:
                        total -= sum(y * mpmath.log(x / a) for x, y in zip(u, b, strict=True))
                return total

            first, second = float(mpmath.diff(loss, 0)), float(mpmath.diff(loss, 0, 2))
        regression = AttentionRegression(A1, A2, B, kind)
        np.testing.assert_allclose(np.sum(V * regression.gradient(X)), first, rtol=1e-13)
        product = regression.hessian_product(X, V)
        np.testing.assert_allclose(np.sum(V * product), second, rtol=1e-13)

    @pytest.mark.parametrize("kind", KINDS)
    def test_gauss_newton(self, kind):
        A1, A2, B, X, _ = random_case(6)
        regression = AttentionRegression(A1, A2, B, kind)
        matrix = regression.hessian_operator(X, gauss_newton=True) @ np.eye(X.size)
        np.testing.assert_allclose(matrix, matrix.T, rtol=0, atol=1e-13 * np.abs(matrix).max())
        assert np.linalg.eigvalsh(matrix).min() > 0.0
        # the derivative of the residual, squared
        steps = np.eye(X.size).reshape(-1, *X.shape) * 1e-6
        D = np.array(
            [
                (regression.residual(X + s) - regression.residual(X - s)).ravel() / 2e-6
                for s in steps
            ]
        )
        if kind != "cross_entropy":
            np.testing.assert_allclose(matrix, 2 * D @ D.T, rtol=1e-7, atol=1e-7)
        # the Hessian wherever residuals vanish
        exact = AttentionRegression(A1, A2, regression.attention(X), kind)
        H = exact.hessian_operator(X) @ np.eye(X.size)
        G = exact.hessian_operator(X, gauss_newton=True) @ np.eye(X.size)
        np.testing.assert_allclose(H, G, rtol=0, atol=1e-13 * np.abs(G).max())
        V = np.ones(X.shape)
        np.testing.assert_array_equal(
            regression.gauss_newton_product(X, V),
            (regression.hessian_operator(X, gauss_newton=True) @ V.ravel()).reshape(X.shape),
        )

    def test_the_hessian_is_indefinite_where_gauss_newton_is_not(self):
        A1, A2, B, X, _ = random_case(7, 3, 4)
        H = AttentionRegression(A1, A2, B).hessian_operator(4 * X) @ np.eye(X.size)
        assert np.linalg.eigvalsh(H).min() < 0.0

    @pytest.mark.parametrize("kind", KINDS)
    def test_samples_add_up(self, kind):
        rng = np.random.default_rng(8)
        A1, A2, X, _ = teacher(4, 3, 8, n2=5, d2=2, samples=6)
        B, V = rng.dirichlet(np.ones(5), size=(6, 4)), rng.normal(size=X.shape)
        together = AttentionRegression(A1, A2, B, kind)
        parts = [AttentionRegression(*data, kind) for data in zip(A1, A2, B, strict=True)]
        assert together.samples == 6
        for name, arguments in (
            ("loss", ()),
            ("gradient", ()),
            ("hessian_product", (V,)),
            ("gauss_newton_product", (V,)),
        ):
            expected = sum(getattr(part, name)(X, *arguments) for part in parts)
            np.testing.assert_allclose(getattr(together, name)(X, *arguments), expected, rtol=1e-12)
        for name in ("scores", "attention", "residual"):
            expected = np.array([getattr(part, name)(X) for part in parts])
            np.testing.assert_allclose(getattr(together, name)(X), expected, rtol=1e-13)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("sizes", [(1, 401, 333), (2, 211, 190), (700, 9, 11)])
    def test_large_matrices_are_treated_in_blocks(self, kind, sizes):
        # against whole matrices: the gradient is A1^T G A2, and its change along V by differences
        samples, n1, n2 = sizes
        A1, A2, X, _ = teacher(n1, 3, 31, n2=n2, d2=2, samples=samples)
        B = np.random.default_rng(31).dirichlet(np.ones(n2), size=(samples, n1))
        regression = AttentionRegression(A1, A2, B, kind)

        def whole(X):
            P = A1 @ X @ A2.swapaxes(-1, -2)
            U, F = np.exp(P), softmax(P)
            if kind == "cross_entropy":
                return -np.sum(B * np.log(F)), F - B
            if kind == "normalised":
                C = F - B
                return np.sum(C**2), 2 * F * (C - np.sum(C * F, axis=-1, keepdims=True))
            R = U - U.sum(axis=-1, keepdims=True) * B
            return np.sum(R**2), 2 * U * (R - np.sum(R * B, axis=-1, keepdims=True))

        def gradient(X):
            return np.einsum("mia,mij,mjb->ab", A1, whole(X)[1], A2)

        assert regression.loss(X) == pytest.approx(whole(X)[0], rel=1e-12)
        np.testing.assert_allclose(regression.attention(X), softmax(regression.scores(X)), 1e-12)
        expected = gradient(X)
        np.testing.assert_allclose(
            regression.gradient(X), expected, rtol=0, atol=1e-12 * np.abs(expected).max()
        )
        V, h = np.array([[1.0, -1.0], [0.5, 0.2], [-0.3, 1.0]]), 1e-4
        slope = (8 * (gradient(X + h * V) - gradient(X - h * V))) / (12 * h)
        slope -= (gradient(X + 2 * h * V) - gradient(X - 2 * h * V)) / (12 * h)
        np.testing.assert_allclose(
            regression.hessian_product(X, V), slope, rtol=0, atol=1e-8 * np.abs(slope).max()
        )

    @pytest.mark.parametrize("kind", KINDS)
    def test_samples_may_share_data(self, kind):
        A1, A2, X, _ = teacher(4, 3, 9, n2=5, d2=2)
        B = np.random.default_rng(0).dirichlet(np.ones(5), size=(3, 4))
        shared = AttentionRegression(A1, A2, B, kind)
        repeated = AttentionRegression(np.tile(A1, (3, 1, 1)), np.tile(A2, (3, 1, 1)), B, kind)
        assert shared.loss(X) == repeated.loss(X)
        np.testing.assert_allclose(shared.gradient(X), repeated.gradient(X), rtol=1e-14)

    @pytest.mark.parametrize("kind", KINDS)
    def test_regularization(self, kind):
        A1, A2, B, X, V = random_case(10)
        free = AttentionRegression(A1, A2, B, kind)
        held = AttentionRegression(A1, A2, B, kind, regularization=0.6)
        assert held.loss(X) == pytest.approx(free.loss(X) + 0.3 * np.sum(X**2), rel=1e-14)
        np.testing.assert_allclose(held.gradient(X), free.gradient(X) + 0.6 * X, rtol=1e-13)
        for name in ("hessian_product", "gauss_newton_product"):
            expected = getattr(free, name)(X, V) + 0.6 * V
            np.testing.assert_allclose(getattr(held, name)(X, V), expected, rtol=1e-13)
        operator = held.hessian_operator(X)
        np.testing.assert_array_equal(
            (operator @ V.ravel()).reshape(X.shape), held.hessian_product(X, V)
        )

    def test_half(self):
        A1, A2, B, X, V = random_case(11)
        for kind, ratio in (("normalised", 0.5), ("rescaled", 0.5), ("cross_entropy", 1.0)):
            full = AttentionRegression(A1, A2, B, kind)
            half = AttentionRegression(A1, A2, B, kind, half=True)
            assert half.loss(X) == pytest.approx(ratio * full.loss(X), rel=1e-15)
            np.testing.assert_allclose(half.gradient(X), ratio * full.gradient(X), rtol=1e-14)
            np.testing.assert_allclose(
                half.hessian_product(X, V), ratio * full.hessian_product(X, V), rtol=1e-14
            )

    def test_the_rescaled_loss_is_the_normalised_one_with_weights(self):
        A1, A2, B, X, _ = random_case(12)
        a = np.exp(A1 @ X @ A2.T).sum(axis=1)
        C = AttentionRegression(A1, A2, B).residual(X)
        rescaled = AttentionRegression(A1, A2, B, "rescaled")
        np.testing.assert_allclose(rescaled.residual(X), a[:, np.newaxis] * C, rtol=1e-13)
        assert rescaled.loss(X) == pytest.approx(np.sum(a**2 * np.sum(C**2, axis=1)), rel=1e-13)

    def test_cross_entropy_is_convex(self):
        rng = np.random.default_rng(13)
        A1, A2, B, X, _ = random_case(13)
        regression = AttentionRegression(A1, A2, B, "cross_entropy")
        for _ in range(20):
            Y = 3 * rng.normal(size=X.shape)
            middle = regression.loss(0.5 * (X + Y))
            assert middle < 0.5 * (regression.loss(X) + regression.loss(Y))
            X = Y


class TestTensorTrick:
    @pytest.mark.parametrize("samples", [None, 3])
    def test_identity(self, samples):
        A1, A2, X, _ = teacher(5, 3, 0, n2=4, d2=2, samples=samples)
        operator = attention.kronecker_operator(A1, A2)
        if samples is None:
            dense = np.kron(A1, A2)
        else:
            dense = np.concatenate([np.kron(a, b) for a, b in zip(A1, A2, strict=True)])
        assert operator.shape == dense.shape
        np.testing.assert_allclose(operator @ X.ravel(), dense @ X.ravel(), rtol=0, atol=1e-14)
        P = A1 @ X @ A2.swapaxes(-1, -2)
        np.testing.assert_allclose(operator @ X.ravel(), P.ravel(), rtol=0, atol=1e-14)
        G = np.random.default_rng(1).normal(size=dense.shape[0])
        np.testing.assert_allclose(operator.T @ G, dense.T @ G, rtol=0, atol=1e-13)

    def test_columns_first_the_factors_change_places(self):
        A1, A2, X, _ = teacher(5, 3, 0, n2=4, d2=2)
        P = A1 @ X @ A2.T
        np.testing.assert_allclose(
            attention.kronecker_operator(A2, A1) @ X.ravel(order="F"),
            P.ravel(order="F"),
            rtol=0,
            atol=1e-14,
        )

    @pytest.mark.parametrize("kind", KINDS)
    def test_one_softmax_after_the_other_makes_the_matrix_problem(self, kind):
        A1, A2, B, X, V = random_case(14)
        matrix = AttentionRegression(A1, A2, B, kind)
        rows = [
            softmax_regression(np.kron(a[np.newaxis, :], A2), b, kind)
            for a, b in zip(A1, B, strict=True)
        ]
        x, v = X.reshape(1, -1), V.reshape(1, -1)
        assert sum(row.loss(x) for row in rows) == pytest.approx(matrix.loss(X), rel=1e-13)
        gradient = sum(row.gradient(x) for row in rows)
        np.testing.assert_allclose(gradient.reshape(X.shape), matrix.gradient(X), rtol=1e-12)
        product = sum(row.hessian_product(x, v) for row in rows)
        np.testing.assert_allclose(product.reshape(X.shape), matrix.hessian_product(X, V), 1e-12)

    def test_vector_regressions(self):
        rng = np.random.default_rng(15)
        A, x, b = rng.normal(size=(6, 3)), rng.normal(size=3), rng.dirichlet(np.ones(6))
        u = np.exp(A @ x)
        assert softmax_regression(A, b).loss(x[np.newaxis]) == pytest.approx(
            np.sum((u / u.sum() - b) ** 2), rel=1e-13
        )
        assert softmax_regression(A, b, "rescaled").loss(x[np.newaxis]) == pytest.approx(
            np.sum((u - u.sum() * b) ** 2), rel=1e-13
        )
        half = softmax_regression(A, b, half=True, regularization=2.0)
        assert half.loss(x[np.newaxis]) == pytest.approx(
            0.5 * np.sum((u / u.sum() - b) ** 2) + np.sum(x**2), rel=1e-13
        )
        found = fit(softmax_regression(A, u / u.sum()))
        np.testing.assert_allclose(found.X[0], x, rtol=0, atol=1e-13)


class TestCost:
    def test_no_kronecker_matrix_is_built(self):
        n, d = 200, 20
        A1, A2, X, B = teacher(n, d)
        regressions = [AttentionRegression(A1, A2, B, kind) for kind in KINDS]
        tracemalloc.start()
        try:
            for regression in regressions:
                regression.loss(X)
                regression.gradient(X)
                regression.hessian_product(X, X)
                regression.gauss_newton_product(X, X)
                fit(regression, init="zero")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        # a few matrices of the size of B; the Kronecker matrix has d^2 = 400 times that size
        assert peak < 20 * n * n * 8

    @pytest.mark.parametrize("kind", KINDS)
    def test_work_grows_like_n_squared_times_d(self, kind):
        def seconds(n, d):
            A1, A2, X, B = teacher(n, d)
            regression = AttentionRegression(A1, A2, B, kind)
            best = np.inf
            for _ in range(5):
                began = time.perf_counter()
                regression.gradient(X)
                regression.hessian_product(X, X)
                best = min(best, time.perf_counter() - began)
            return best

        base = seconds(120, 8)
        assert seconds(120, 64) < 2.5 * 8 * base  # d^2: 64 times
        assert seconds(720, 8) < 2.5 * 36 * base  # n^3: 216 times


class TestExtremes:
    @pytest.mark.parametrize("kind", ["normalised", "cross_entropy"])
    @pytest.mark.parametrize("size", [1e3, 1e4, 1e150])
    def test_huge_scores(self, kind, size):
        # one-hot attention: losses and gradients by hand
        A1, A2 = np.eye(2), np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
        X = size * np.array([[3.0, 1.0], [-1.0, 2.0]])
        B = np.array([[0.2, 0.3, 0.5], [0.1, 0.8, 0.1]])
        regression = AttentionRegression(A1, A2, B, kind)
        F = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
        np.testing.assert_allclose(regression.attention(X), F, atol=1e-300)
        if kind == "normalised":
            expected, G = np.sum((F - B) ** 2), np.zeros((2, 3))
        else:
            P = A1 @ X @ A2.T
            expected, G = np.sum(B * (P.max(axis=1, keepdims=True) - P)), F - B
        assert regression.loss(X) == pytest.approx(expected, rel=1e-14)
        np.testing.assert_allclose(regression.gradient(X), A1.T @ G @ A2, rtol=1e-14, atol=1e-300)
        assert np.isfinite(regression.hessian_product(X, np.ones((2, 2)))).all()

    def test_tiny_probabilities_keep_their_digits(self):
        with mpmath.workdps(50):
            u = [mpmath.exp(p) for p in (0, -100, -600)]
            expected = [float(x / sum(u)) for x in u]
        A2 = np.array([[0.0], [-100.0], [-600.0]])
        regression = softmax_regression(A2, [1.0, 0.0, 0.0])
        np.testing.assert_allclose(regression.attention([[1.0]])[0], expected, rtol=1e-13)

    def test_rescaled_overflow_is_an_error(self):
        regression = softmax_regression([[1.0], [0.0]], [0.5, 0.5], "rescaled")
        assert np.isfinite(regression.loss([[349.0]]))
        for method in (regression.loss, regression.gradient, regression.residual):
            with pytest.raises(OverflowError, match=r"sums to exp\(351\); use kind='normalised'"):
                method([[351.0]])
        with pytest.raises(OverflowError):
            regression.hessian_product([[351.0]], [[1.0]])
        # towards zero weights there is no such limit
        down = softmax_regression([[-1.0], [-1.5]], [0.5, 0.5], "rescaled")
        assert down.loss([[1e5]]) == 0.0

    def test_scores_beyond_the_range_of_doubles(self):
        regression = AttentionRegression([[1e200]], [[1.0], [1e150]], [[0.5, 0.5]])
        with pytest.raises(OverflowError, match="scores"):
            regression.loss([[1e10]])


class TestBadInput:
    good = (np.ones((3, 2)), np.arange(4.0).reshape(2, 2), np.full((3, 2), 0.5))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"A1": np.ones(3)}, "A1 must have 2 or 3 axes"),
            ({"A1": np.ones((0, 2))}, "A1 must have 2 or 3 axes and no empty one"),
            ({"A1": [[np.nan, 1.0]] * 3}, "A1 must be finite, got nan"),
            ({"A2": [[np.inf, 1.0]] * 2}, "A2 must be finite, got inf"),
            ({"A2": [["a", "b"]] * 2}, "A2 must be a real array"),
            ({"A2": np.ones((2, 2)) * 1j}, "A2 must be a real array"),
            ({"B": np.full((2, 3), 1 / 3)}, r"B must have the shape .* \(3, 2\), got \(2, 3\)"),
            ({"B": np.full((3, 2), np.nan)}, "B must be finite"),
            ({"A1": np.ones((4, 3, 2))}, "agree on the number of samples"),
            (
                {"A1": np.ones((4, 3, 2)), "B": np.full((5, 3, 2), 0.5)},
                "agree on the number of samples",
            ),
            ({"kind": "rescale"}, "kind must be one of normalised, rescaled, cross_entropy"),
            ({"regularization": -1.0}, "regularization must be >= 0 and finite, got -1.0"),
            ({"regularization": [1.0]}, "regularization must be a scalar"),
            ({"B": [[1.5, -0.5]] * 3, "kind": "cross_entropy"}, "B must be >= 0, got -0.5"),
        ],
    )
    def test_of_a_regression(self, change, message):
        arguments = dict(zip(("A1", "A2", "B"), self.good, strict=True)) | change
        with pytest.raises(ValueError, match=message):
            AttentionRegression(**arguments)

    @pytest.mark.parametrize(
        ("B", "message"),
        [
            ([[0.5, 0.6]] * 3, "rows of B must sum to 1, got 1.1"),
            ([[1.5, -0.5]] * 3, "B must be >= 0, got -0.5"),
        ],
    )
    def test_labels_out_of_reach_are_warned_about_once(self, B, message):
        with pytest.warns(UserWarning, match=message) as record:
            regression = AttentionRegression(*self.good[:2], B)
            fit(regression)
        assert len(record) == 1
        assert record[0].filename == __file__

    def test_of_weights(self):
        regression = AttentionRegression(*self.good)
        for X, message in (
            (np.ones((2, 3)), r"X must have the shape \(2, 2\), got \(2, 3\)"),
            (np.full((2, 2), np.nan), "X must be finite"),
            (np.ones(4), "X must have 2 axes"),
        ):
            with pytest.raises(ValueError, match=message):
                regression.loss(X)
        with pytest.raises(ValueError, match="V must have the shape"):
            regression.hessian_product(np.ones((2, 2)), np.ones((1, 2)))

    def test_of_the_tensor_trick(self):
        with pytest.raises(ValueError, match="number of samples"):
            attention.kronecker_operator(np.ones((2, 3, 2)), np.ones((3, 3, 2)))
        with pytest.raises(ValueError, match="b must have 1 axes"):
            softmax_regression(np.ones((3, 2)), np.ones((3, 1)))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"method": "newton"}, "method must be one of trust-ncg, L-BFGS-B, trf"),
            ({"init": "guess"}, "init must be an array or one of auto, closed_form"),
            ({"init": np.ones((3, 3))}, "init must have the shape"),
            ({"tolerance": 0.0}, "tolerance must be"),
            ({"tolerance": [1e-8]}, "tolerance must be a scalar"),
            ({"steps": 0}, "steps must be a positive integer, got 0"),
            ({"steps": True}, "steps must be a positive integer, got True"),
        ],
    )
    def test_of_fit(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            fit(AttentionRegression(*self.good), **arguments)

    def test_starts_that_need_other_labels(self):
        zeros = AttentionRegression(*self.good[:2], [[1.0, 0.0]] * 3)
        negative = AttentionRegression(*self.good[:2], [[1.5, -0.5]] * 3)
        unequal = AttentionRegression(*self.good[:2], [[0.5, 0.6]] * 3)
        with pytest.raises(ValueError, match=r"B must be > 0 for the closed form, got 0.0"):
            fit(zeros, init="closed_form")
        with pytest.raises(
            ValueError, match=r"rows of B must sum to 1 for the closed form, got 1\.1"
        ):
            closed_form(unequal)
        with pytest.raises(ValueError, match=r"B >= 0, got -0\.5"):
            fit(negative, init="cross_entropy")
        with pytest.raises(ValueError, match="got 'trf'"):
            fit(AttentionRegression(*self.good, "cross_entropy"), method="trf")


# --------------------------------------------------------------------------------------------
# Solvers
# --------------------------------------------------------------------------------------------


class TestRecovery:
    @pytest.mark.parametrize(("n", "d"), [(9, 4), (30, 8), (60, 16), (100, 30)])
    def test_closed_form(self, n, d):
        for seed in range(3):
            A1, A2, X, B = teacher(n, d, seed)
            assert error(closed_form(AttentionRegression(A1, A2, B)), X) < 1e-13

    def test_closed_form_through_many_decades(self):
        A1, A2, X, B = teacher(30, 8, 0, gain=30.0)
        assert B.min() < 1e-90
        assert error(closed_form(AttentionRegression(A1, A2, B)), X) < 1e-13

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("method", ["trust-ncg", "L-BFGS-B", "trf"])
    @pytest.mark.parametrize("init", ["auto", "closed_form", "cross_entropy", "zero"])
    def test_every_way_leads_to_the_teacher(self, kind, method, init):
        if (kind, method) == ("cross_entropy", "trf"):
            return
        A1, A2, X, B = teacher(30, 8, 1, n2=25, d2=6)
        found = fit(AttentionRegression(A1, A2, B, kind), method=method, init=init)
        assert found.status is Status.CONVERGED
        assert error(found.X, X) < 1e-12
        assert found.init == ("closed_form" if init == "auto" else init)
        assert found.iterations >= (4 if init in ("cross_entropy", "zero") else 0)
        assert found.seconds > 0.0

    @pytest.mark.parametrize("kind", KINDS)
    def test_hundred_tokens(self, kind):
        A1, A2, X, B = teacher(100, 30)
        regression = AttentionRegression(A1, A2, B, kind)
        for init in ("auto", "zero"):
            found = fit(regression, init=init)
            assert found.status is Status.CONVERGED
            assert error(found.X, X) < 1e-12
            assert found.loss == regression.loss(found.X)
            gradient = np.linalg.norm(regression.gradient(found.X))
            assert found.gradient_norm == pytest.approx(gradient, rel=1e-12)

    def test_badly_conditioned_data(self):
        rng = np.random.default_rng(3)
        A1, A2, X, _ = teacher(40, 6, 3)
        A1 = A1 * np.logspace(0, 4, 6)
        A2 = A2 @ np.linalg.qr(rng.normal(size=(6, 6)))[0] * np.logspace(-3, 3, 6)
        X = X / np.outer(np.logspace(0, 4, 6), np.logspace(-3, 3, 6))
        regression = AttentionRegression(A1, A2, softmax(A1 @ X @ A2.T))
        found = fit(regression, init="zero")
        assert found.status is Status.CONVERGED
        np.testing.assert_allclose(found.X, X, rtol=1e-9)

    @pytest.mark.parametrize("kind", KINDS)
    def test_given_start(self, kind):
        A1, A2, X, B = teacher(20, 4, 4)
        found = fit(AttentionRegression(A1, A2, B, kind), init=X + 0.1)
        assert (found.init, found.status) == ("given", Status.CONVERGED)
        assert error(found.X, X) < 1e-12

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_thousand_tokens(self, kind):
        A1, A2, X, B = teacher(1000, 64)
        noise = np.random.default_rng(1).normal(size=B.shape)
        noisy = B * np.exp(0.3 * noise)
        noisy /= noisy.sum(axis=1, keepdims=True)
        for labels, init in ((B, "auto"), (B, "zero"), (noisy, "auto")):
            found = fit(AttentionRegression(A1, A2, labels, kind), init=init)
            assert found.status is Status.CONVERGED
            assert found.seconds < 120.0
            assert error(found.X, X) < (1e-12 if labels is B else 0.2)


class TestMinima:
    """Labels that no weights explain: against a quasi-Newton method on the plain loss."""

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("penalty", [0.0, 0.3])
    @pytest.mark.parametrize("method", ["trust-ncg", "L-BFGS-B"])
    def test_plain_descent_ends_there_too(self, kind, penalty, method):
        A1, A2, _, B = teacher(8, 2, 5, n2=6, d2=3)
        B = B * np.exp(0.5 * np.random.default_rng(5).normal(size=B.shape))
        B /= B.sum(axis=1, keepdims=True)
        found = fit(AttentionRegression(A1, A2, B, kind, regularization=penalty), method=method)
        assert found.status is Status.CONVERGED

        def loss(x):
            return plain_loss(A1, A2, B, x.reshape(2, 3), kind) + 0.5 * penalty * np.sum(x**2)

        def gradient(x):
            return plain_gradient(A1, A2, B, x.reshape(2, 3), kind).ravel() + penalty * x

        start = found.X.ravel() + 0.05
        plain = minimize(loss, start, jac=gradient, method="BFGS", options={"gtol": 1e-9})
        np.testing.assert_allclose(found.X.ravel(), plain.x, rtol=0, atol=1e-7)
        assert found.loss <= plain.fun * (1 + 1e-12)
        assert np.abs(gradient(found.X.ravel())).max() < 1e-11 * (1 + found.loss)

    def test_gauss_newton_method(self):
        A1, A2, B, _, _ = random_case(16, 9, 8)
        for kind in SQUARES:
            regression = AttentionRegression(A1, A2, B, kind, regularization=0.1)
            one, other = fit(regression, method="trf"), fit(regression)
            assert one.status is other.status is Status.CONVERGED
            np.testing.assert_allclose(one.X, other.X, rtol=0, atol=1e-10)

    def test_negative_labels(self):
        A1, A2, X, B = teacher(40, 5, 6)
        noisy = B + 1e-3 * np.random.default_rng(6).normal(size=B.shape)
        assert noisy.min() < 0.0
        found = fit(AttentionRegression(A1, A2, noisy))
        assert (found.status, found.init) == (Status.CONVERGED, "zero")
        assert error(found.X, X) < 0.05

    def test_strong_penalty(self):
        A1, A2, B, _, _ = random_case(17)
        for kind in KINDS:
            regression = AttentionRegression(A1, A2, B, kind, regularization=1e9)
            found = fit(regression)
            assert found.status is Status.CONVERGED
            # one step from 0
            expected = -regression.gradient(np.zeros((3, 2))) / 1e9
            np.testing.assert_allclose(found.X, expected, rtol=1e-6)

    @pytest.mark.parametrize("penalty", [1e-6, 1e-2, 1e2])
    def test_a_penalty_on_badly_conditioned_data(self, penalty):
        A1, A2, _, B = teacher(30, 6, 7)
        spread = np.logspace(0, -4, 6)
        regression = AttentionRegression(A1 * spread, A2, B, regularization=penalty)
        found = fit(regression)
        assert found.status is Status.CONVERGED
        assert found.iterations < 25
        scale = np.linalg.norm(penalty * found.X)
        assert found.gradient_norm < 1e-9 * scale


class TestManySamples:
    def test_enough_of_them_identify_the_weights(self):
        A1, A2, X, B = teacher(2, 8, 0, n2=3, samples=40)
        for kind in KINDS:
            for init in ("auto", "zero"):
                found = fit(AttentionRegression(A1, A2, B, kind), init=init)
                assert found.status is Status.CONVERGED
                assert error(found.X, X) < 1e-11

    @pytest.mark.parametrize("kind", ["normalised", "cross_entropy"])
    def test_below_the_threshold_the_fit_has_the_smallest_norm(self, kind):
        # m n1 (n2 - 1) = 40 equations for 64 unknowns
        A1, A2, X, B = teacher(2, 8, 1, n2=3, samples=10)
        K = np.concatenate([np.kron(a, b - b.mean(axis=0)) for a, b in zip(A1, A2, strict=True)])
        L = np.log(B)
        L = (L - L.mean(axis=-1, keepdims=True)).ravel()
        least = np.linalg.lstsq(K, L, rcond=1e-10)[0].reshape(X.shape)
        regression = AttentionRegression(A1, A2, B, kind)
        np.testing.assert_allclose(closed_form(regression), least, rtol=0, atol=1e-13)
        for init in ("auto", "zero"):
            found = fit(regression, init=init)
            assert found.status is Status.NOT_IDENTIFIABLE
            assert found.status.ok
            np.testing.assert_allclose(found.X, least, rtol=0, atol=1e-9)

    def test_the_same_samples_again_identify_nothing_more(self):
        # two samples make 8 equations for 16 unknowns, however often they come back
        A1, A2, X, B = teacher(2, 4, 2, n2=3, samples=2)
        A1, A2, B = (np.tile(x, (20, 1, 1)) for x in (A1, A2, B))
        found = fit(AttentionRegression(A1, A2, B))
        assert found.status is Status.NOT_IDENTIFIABLE
        assert error(found.X, X) > 0.1

    def test_gaussian_weights_are_recovered_in_proportion_to_the_equations(self):
        # posterior mean of a Gaussian prior: a fraction 1 - 40/64 of the norm is missing
        missing = []
        for seed in range(60):
            A1, A2, X, B = teacher(2, 8, seed, n2=3, samples=10)
            found = closed_form(AttentionRegression(A1, A2, B))
            missing.append(np.sum((found - X) ** 2) * 64 / np.sum(X**2) / 64)
        deviation = np.std(missing) / np.sqrt(len(missing))
        assert deviation < 0.02
        assert abs(np.mean(missing) - (1 - 40 / 64)) < 4 * deviation


class TestStatus:
    def test_order_and_advice(self):
        assert Status.NOT_IDENTIFIABLE.ok
        for status in (Status.SATURATED, Status.OVERFLOW, Status.ESCAPED):
            assert not status.ok
            assert "Use" in status.advice

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("init", ["auto", "zero"])
    def test_row_shifts(self, kind, init):
        # a constant column of A2, and two equal columns of A1
        A1, A2, X, _ = teacher(20, 4, 0)
        A1[:, 3] = A1[:, 0]
        A2[:, 2] = 1.0
        B = softmax(A1 @ X @ A2.T)
        regression = AttentionRegression(A1, A2, B, kind)
        found = fit(regression, init=init)
        assert found.status is Status.NOT_IDENTIFIABLE
        np.testing.assert_allclose(regression.attention(found.X), B, rtol=1e-9)
        if kind != "rescaled":
            assert np.abs(found.X[:, 2]).max() < 1e-13
            np.testing.assert_allclose(found.X[0], found.X[3], rtol=0, atol=1e-13)
            assert np.linalg.norm(found.X) < np.linalg.norm(X)
        held = AttentionRegression(A1, A2, B, kind, regularization=1e-3)
        assert fit(held, init=init).status is Status.CONVERGED

    def test_one_column(self):
        for kind in KINDS:
            found = fit(
                AttentionRegression(np.ones((3, 2)), np.ones((1, 2)), np.ones((3, 1)), kind)
            )
            assert found.status is Status.NOT_IDENTIFIABLE
            assert found.loss == 0.0
            np.testing.assert_array_equal(found.X, np.zeros((2, 2)))

    @pytest.mark.parametrize("kind", KINDS)
    def test_one_hot_labels(self, kind):
        # separable: the minimum is at infinity
        A1, A2, _, B = teacher(60, 20, 0, n2=6, d2=5)
        B = (B == B.max(axis=1, keepdims=True)).astype(float)
        found = fit(AttentionRegression(A1, A2, B, kind))
        assert found.status is Status.SATURATED
        held = fit(AttentionRegression(A1, A2, B, kind, regularization=1e-3))
        assert held.status is Status.CONVERGED

    @pytest.mark.parametrize("kind", ["normalised", "cross_entropy"])
    def test_saturated_teacher(self, kind):
        A1, A2, X, B = teacher(30, 8, 0, gain=30.0)
        regression = AttentionRegression(A1, A2, B, kind)
        found = fit(regression)
        assert (found.status, found.init) == (Status.CONVERGED, "closed_form")
        assert error(found.X, X) < 1e-9
        # without the logarithms the weights are out of reach although the loss is fitted
        blind = fit(regression, init="zero")
        assert blind.status is Status.SATURATED
        assert blind.loss - found.loss < 1e-8
        assert error(blind.X, X) > 1e-3

    def test_a_row_on_a_plateau(self):
        # the start has the first row one-hot at the wrong place: no gradient leads away
        A1, A2 = np.eye(2), np.array([[1.0], [0.0], [-1.0]])
        B = np.array([[0.1, 0.2, 0.7], [0.3, 0.3, 0.4]])
        found = fit(AttentionRegression(A1, A2, B), init=[[50.0], [0.0]])
        assert found.status is Status.SATURATED
        assert fit(AttentionRegression(A1, A2, B)).status is Status.CONVERGED

    def test_a_wrong_row_that_the_others_do_not_need(self):
        # the first row determines X = 1, and there the second is one-hot, where its label is not
        A2 = np.array([[1.0], [0.0], [-1.0]])
        first = softmax(A2.T)
        B = np.concatenate([first, [[0.0, 0.0, 1.0]]])
        found = fit(AttentionRegression([[1.0], [100.0]], A2, B), init=[[1.1]])
        assert found.X[0, 0] == pytest.approx(1.0, abs=1e-9)
        assert found.status is Status.SATURATED

    def test_logarithms_see_what_losses_do_not(self):
        A2 = np.array([[100.0], [0.0], [-50.0]])
        regression = AttentionRegression([[1.0]], A2, softmax(A2.T))
        found = fit(regression)
        assert (found.status, found.init) == (Status.CONVERGED, "closed_form")
        assert found.X[0, 0] == pytest.approx(1.0, rel=1e-14)
        assert fit(regression, init=[[1.5]]).status is Status.SATURATED
        assert fit(regression, init=found.X).status is Status.CONVERGED

    @pytest.mark.parametrize("method", ["trust-ncg", "L-BFGS-B", "trf"])
    def test_escape(self, method):
        # with A1 and A2 positive every score can go to minus infinity
        A1, A2, B, _, _ = random_case(18, 8, 7)
        for data in ((np.abs(A1), np.abs(A2), B), (np.ones((1, 1)), np.ones((3, 1)), B[:1, :3])):
            found = fit(AttentionRegression(*data, "rescaled"), method=method)
            assert found.status is Status.ESCAPED
            assert found.loss < 1e-80
            assert fit(AttentionRegression(*data), method=method).status.ok
            held = AttentionRegression(*data, "rescaled", regularization=1e-3)
            assert fit(held, method=method).status is Status.CONVERGED

    def test_small_weights_alone_are_no_escape(self):
        A1, A2, X, _ = teacher(20, 3, 1)
        A1[:, 0], A2[:, 0] = 1.0, 1.0 + 0.01 * A2[:, 0]
        X[0, 0] = -100.0
        B = softmax(A1 @ X @ A2.T)
        regression = AttentionRegression(A1, A2, B, "rescaled")
        assert np.log(np.exp(regression.scores(X)).sum(axis=1)).max() < -50.0
        found = fit(regression)
        assert found.status is Status.CONVERGED
        assert error(found.X, X) < 1e-10

    def test_overflow(self):
        A2 = np.array([[400.0], [400.5], [401.0]])
        B = softmax(A2.T)
        found = fit(AttentionRegression([[1.0]], A2, B, "rescaled"))
        assert found.status is Status.OVERFLOW
        assert found.loss == found.gradient_norm == np.inf
        assert found.X[0, 0] == pytest.approx(1.0, rel=1e-10)
        assert fit(AttentionRegression([[1.0]], A2, B)).status is Status.CONVERGED

    def test_too_few_steps(self):
        A1, A2, _, B = teacher(30, 8)
        found = fit(AttentionRegression(A1, A2, B), init="zero", method="L-BFGS-B", steps=1)
        assert found.status is Status.NOT_CONVERGED


# --------------------------------------------------------------------------------------------
# Lipschitz constants and in-context learning
# --------------------------------------------------------------------------------------------


def row_curvature(f, b):
    """Return ||J^2 + N||, the norm of the Hessian of ||softmax - b||^2/2 by the scores."""
    J = np.diag(f) - np.outer(f, f)
    g = J @ (f - b)
    return np.abs(np.linalg.eigvalsh(J @ J + np.diag(g) - np.outer(g, f) - np.outer(f, g))).max()


class TestLipschitz:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("samples", [None, 3])
    def test_random_pairs(self, kind, samples):
        rng = np.random.default_rng(19)
        worst = dict.fromkeys(("attention", "residual", "gradient", "gradient_sharp"), 0.0)
        for seed in range(150):
            A1, A2, _, F = teacher(4, 3, seed, n2=3, d2=2, samples=samples)
            B = rng.dirichlet(np.full(3, 0.3), size=F.shape[:-1])
            penalty = 0.1 * (seed % 2)
            regression = AttentionRegression(
                A1, A2, B, kind, half=seed % 3 == 0, regularization=penalty
            )
            X = rng.normal(size=(3, 2)) * rng.choice([0.1, 1.0, 5.0])
            Y = X + rng.normal(size=(3, 2)) * rng.choice([1e-3, 0.1, 3.0])
            radius = max(np.linalg.norm(X, 2), np.linalg.norm(Y, 2))
            L = attention.lipschitz_constants(regression, radius)
            distance = np.linalg.norm(X - Y)
            pairs = {
                "attention": (regression.attention(X), regression.attention(Y)),
                "residual": (regression.residual(X), regression.residual(Y)),
                "gradient": (regression.gradient(X), regression.gradient(Y)),
                "gradient_sharp": (regression.gradient(X), regression.gradient(Y)),
            }
            for name, (one, other) in pairs.items():
                ratio = np.linalg.norm(one - other) / distance / getattr(L, name)
                if np.isfinite(ratio):
                    worst[name] = max(worst[name], ratio)
        assert max(worst.values()) <= 1.0
        assert worst["attention"] > 0.05
        assert (worst["gradient_sharp"] > 0.0) == (kind != "rescaled")

    def test_the_attention_constant_is_attained(self):
        # two tokens and even odds
        regression = softmax_regression([[3.0], [-1.0]], [0.5, 0.5])
        L = attention.lipschitz_constants(regression)
        X, h = np.array([[0.0]]), 1e-4
        slope = np.linalg.norm(regression.attention(X + h) - regression.attention(X - h)) / (2 * h)
        assert 1 - 1e-6 < slope / L.attention <= 1.0
        entropy = softmax_regression([[3.0], [-1.0]], [0.5, 0.5], "cross_entropy")
        curvature = float(entropy.hessian_product(X, [[1.0]])[0, 0])
        L = attention.lipschitz_constants(entropy)
        assert curvature == pytest.approx(L.gradient, rel=1e-14)
        assert L.gradient == L.gradient_sharp

    def test_a_penalty_adds_its_own_curvature(self):
        A1, A2, B, _, _ = random_case(32)
        for kind in KINDS:
            free, held = (
                attention.lipschitz_constants(
                    AttentionRegression(A1, A2, B, kind, regularization=x), 1.0
                )
                for x in (0.0, 7.0)
            )
            assert held.gradient == pytest.approx(free.gradient + 7.0, rel=1e-14)
            if kind != "rescaled":
                assert held.gradient_sharp == pytest.approx(free.gradient_sharp + 7.0, rel=1e-14)
            assert held.attention == free.attention

    def test_the_sharp_gradient_constant_is_attained(self):
        p = (15 - np.sqrt(33)) / 24
        regression = softmax_regression([[1.0], [-1.0]], [0.0, 1.0], half=True)
        L = attention.lipschitz_constants(regression)
        assert L.gradient_sharp / 2 == pytest.approx(0.3081171402, abs=1e-10)
        assert L.gradient / 2 == pytest.approx(1.25, rel=1e-14)
        x = [[0.5 * np.log(p / (1 - p))]]
        curvature = float(regression.hessian_product(x, [[1.0]])[0, 0])
        assert curvature == pytest.approx(L.gradient_sharp, rel=1e-13)

    @pytest.mark.parametrize("n", [2, 3, 4])
    def test_adversarial_rows(self, n):
        # search for the row and labels with the largest curvature
        rng = np.random.default_rng(n)

        def lower(z):
            return -row_curvature(softmax(z[:n]), softmax(z[n:]))

        best = 0.0
        for _ in range(12):
            start = 3 * rng.normal(size=2 * n)
            run = minimize(lower, start, method="Nelder-Mead", options={"maxiter": 4000})
            best = max(best, -run.fun)
        assert 0.30 < best <= 0.3081171402 + 1e-9

    def test_adversarial_pairs(self):
        # the direction and the weights that stretch most, by search
        rng = np.random.default_rng(20)
        A1, A2, B, _, _ = random_case(20, 2, 2, 2, 2)
        regression = AttentionRegression(A1, A2, np.round(B), half=True)
        L = attention.lipschitz_constants(regression)
        names = ("attention", "gradient")

        def ratio(z, name):
            X, V = z[:4].reshape(2, 2), z[4:].reshape(2, 2)
            V = 1e-4 * V / np.linalg.norm(V)
            f = getattr(regression, name)
            return -float(np.linalg.norm(f(X + V) - f(X - V)) / 2e-4)

        for name, limit in zip(names, (L.attention, L.gradient_sharp), strict=True):
            runs = [
                minimize(ratio, rng.normal(size=8), (name,), method="Nelder-Mead") for _ in range(4)
            ]
            best = -min(run.fun for run in runs)
            assert 0.1 * limit < best <= limit

    def test_data(self):
        rng = np.random.default_rng(21)
        worst = 0.0
        for seed in range(100):
            A1, A2, X, B = teacher(4, 3, seed, n2=3, d2=2, gain=3.0)
            regression = AttentionRegression(A1, A2, B)
            L = attention.lipschitz_constants(regression, np.linalg.norm(X, 2))
            F = regression.attention(X)
            step = rng.normal(size=A1.shape) * rng.choice([1e-3, 1.0])
            moved = AttentionRegression(A1 + step, A2, B).attention(X)
            worst = max(worst, np.linalg.norm(moved - F) / np.linalg.norm(step) / L.queries)
            step = rng.normal(size=A2.shape) * rng.choice([1e-3, 1.0])
            moved = AttentionRegression(A1, A2 + step, B).attention(X)
            worst = max(worst, np.linalg.norm(moved - F) / np.linalg.norm(step) / L.keys)
        assert 0.1 < worst <= 1.0

    def test_rescaled_residual_constant_is_nearly_attained(self):
        # short data, one row: exp is linear, and the constant is the norm of I - b 1^T
        for b in ([0.2, 0.3, 0.5], [0.0, 0.0, 1.0], [0.4, 0.4, 0.4], [1.5, -0.5, 0.1]):
            regression = softmax_regression(1e-4 * np.eye(3), b, "rescaled")
            L = attention.lipschitz_constants(regression, 1.0).residual
            Q = np.eye(3) - np.outer(b, np.ones(3))
            assert L == pytest.approx(1e-4 * np.linalg.norm(Q, 2), rel=2e-4)
            V = np.linalg.svd(Q)[2][0][np.newaxis]
            ratio = np.linalg.norm(regression.residual(V) - regression.residual(-V)) / 2
            assert 1 - 2e-4 < ratio / L <= 1.0

    def test_one_column(self):
        for b in (1.0, 0.3):
            regression = AttentionRegression([[1.0]], [[0.7]], [[b]], "rescaled")
            L = attention.lipschitz_constants(regression, 0.0)
            assert L.residual == pytest.approx(0.7 * (1 - b), abs=1e-15)
            assert (L.attention, L.queries) == (0.0, 0.0)

    def test_constants_of_the_literature(self):
        rng = np.random.default_rng(22)
        worst = np.zeros(2)
        for _ in range(200):
            n, R = int(rng.integers(2, 7)), rng.uniform(0.5, 2.0)
            A, x, y = rng.normal(size=(n, 3)), rng.normal(size=3), rng.normal(size=3)
            A *= R / np.linalg.norm(A, 2)
            x, y = (v * R * rng.uniform() / np.linalg.norm(v) for v in (x, y))
            u, v = np.exp(A @ x), np.exp(A @ y)
            limits = np.array(attention.paper_lipschitz_constants(R, n))
            moved = [np.linalg.norm(u - v), np.linalg.norm(u / u.sum() - v / v.sum())]
            worst = np.maximum(worst, moved / np.linalg.norm(x - y) / limits)
            ours = attention.lipschitz_constants(softmax_regression(A, np.full(n, 1 / n)))
            assert ours.attention < limits[1]
        assert worst.max() <= 1.0
        assert attention.paper_lipschitz_constants(1.0, 4, 0.5) == pytest.approx(
            (4 * np.e, 32 * np.exp(3)), rel=1e-14
        )

    def test_bad_arguments(self):
        regression = softmax_regression([[1.0], [-1.0]], [0.5, 0.5], "rescaled")
        with pytest.raises(ValueError, match="radius must be given for the rescaled loss"):
            attention.lipschitz_constants(regression)
        with pytest.raises(ValueError, match="radius must be >= 0"):
            attention.lipschitz_constants(regression, -1.0)
        with pytest.raises(ValueError, match="radius must be a scalar"):
            attention.lipschitz_constants(regression, np.ones(2))
        with pytest.raises(ValueError, match="n must be a positive integer, got 0"):
            attention.paper_lipschitz_constants(1.0, 0)
        with pytest.raises(ValueError, match="beta must be > 0"):
            attention.paper_lipschitz_constants(1.0, 2, 0.0)


class TestInContext:
    @pytest.mark.parametrize("kind", SQUARES)
    @pytest.mark.parametrize("samples", [None, 3])
    def test_a_step_is_a_change_of_the_labels(self, kind, samples):
        rng = np.random.default_rng(23)
        A1, A2, X, F = teacher(5, 3, 23, n2=4, d2=2, samples=samples)
        B = rng.dirichlet(np.ones(4), size=F.shape[:-1])
        regression = AttentionRegression(A1, A2, B, kind)
        X1 = X + 0.3 * rng.normal(size=X.shape)
        shift = attention.icl_label_shift(regression, X, X1)
        relabelled = AttentionRegression(A1, A2, shift.B, kind)
        np.testing.assert_allclose(
            relabelled.residual(X), regression.residual(X1), rtol=1e-12, atol=1e-13
        )
        assert relabelled.loss(X) == pytest.approx(regression.loss(X1), rel=1e-13)
        assert shift.shift == pytest.approx(np.linalg.norm(shift.B - B), rel=1e-12)
        assert 0.0 < shift.shift <= shift.bound
        if kind == "normalised":
            expected = B - (regression.attention(X1) - regression.attention(X))
            np.testing.assert_allclose(shift.B, expected, rtol=0, atol=1e-15)

    @pytest.mark.parametrize("kind", SQUARES)
    def test_first_order_in_the_step(self, kind):
        A1, A2, B, X, _ = random_case(24)
        regression = AttentionRegression(A1, A2, B, kind)
        step = regression.gradient(X)
        misses = []
        for eta in (1e-2, 1e-3, 1e-4):
            X1 = X - eta / np.linalg.norm(step) * step
            shift = attention.icl_label_shift(regression, X, X1)
            misses.append(np.linalg.norm(shift.B - B - shift.first_order) / shift.shift)
        np.testing.assert_allclose(np.divide(misses[:-1], misses[1:]), 10.0, rtol=0.1)
        assert misses[-1] < 1e-3

    def test_gradient_steps_move_labels_towards_the_prediction(self):
        # B_new - B is eta times the kernel J A1 A1^T ... applied to the residual: positive
        A1, A2, B, X, _ = random_case(25)
        regression = AttentionRegression(A1, A2, B)
        shift = attention.icl_label_shift(regression, X, X - 1e-3 * regression.gradient(X))
        assert np.sum((shift.B - B) * (regression.attention(X) - B)) > 0.0

    def test_bounds_over_random_steps(self):
        rng = np.random.default_rng(26)
        worst = 0.0
        for seed in range(100):
            A1, A2, B, X, V = random_case(seed, 3, 3, 2, 2)
            X1 = X + rng.choice([1e-3, 0.1, 2.0]) * V
            for kind in SQUARES:
                regression = AttentionRegression(A1, A2, B, kind)
                label = attention.icl_label_shift(regression, X, X1)
                data = attention.icl_data_shift(regression, X, X1)
                assert label.shift <= label.bound
                assert data.shift <= data.bound * (1 + 1e-12)
                assert data.label_shift <= data.label_bound
            worst = max(worst, label.shift / label.bound, data.shift / data.bound)
        assert worst > 0.5

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("samples", [None, 3])
    def test_a_step_is_a_change_of_the_data(self, kind, samples):
        rng = np.random.default_rng(27)
        A1, A2, X, F = teacher(5, 3, 27, n2=4, d2=3, samples=samples)
        regression = AttentionRegression(A1, A2, F, kind)
        X1 = X + 0.3 * rng.normal(size=X.shape)
        shift = attention.icl_data_shift(regression, X, X1)
        moved = AttentionRegression(shift.A1, A2, F, kind)
        np.testing.assert_allclose(moved.scores(X), regression.scores(X1), rtol=0, atol=1e-12)
        np.testing.assert_allclose(shift.A1, A1 @ X1 @ np.linalg.inv(X), rtol=0, atol=1e-11)
        assert shift.shift == pytest.approx(np.linalg.norm(shift.A1 - A1), rel=1e-12)
        distance = np.linalg.norm(regression.attention(X1) - regression.attention(X))
        assert shift.label_shift == pytest.approx(distance, rel=1e-14)
        assert shift.shift <= shift.bound
        assert shift.label_shift <= shift.label_bound

    def test_the_bounds_of_a_change_of_the_data_are_attained(self):
        # a small step at even odds between two tokens
        regression = AttentionRegression([[1.0]], [[3.0], [1.0]], [[0.5, 0.5]])
        shift = attention.icl_data_shift(regression, [[1e-9]], [[1e-5]])
        assert shift.shift == pytest.approx(shift.bound, rel=1e-12)
        assert shift.label_shift == pytest.approx(shift.label_bound, rel=1e-6)

    def test_rows_of_rank_one(self):
        A1, A2, B, _, _ = random_case(28)
        row = np.array([[1.0, 2.0]])
        X, X1 = np.array([[1.0], [0.0], [2.0]]) @ row, np.array([[0.5], [3.0], [-1.0]]) @ row
        regression = AttentionRegression(A1, A2, B)
        shift = attention.icl_data_shift(regression, X, X1)
        np.testing.assert_allclose(shift.A1 @ X, A1 @ X1, rtol=0, atol=1e-13)
        assert shift.shift <= shift.bound
        with pytest.raises(ValueError, match="X1 must have its rows in the span of those of X"):
            attention.icl_data_shift(regression, X, X1 + np.array([[0.0, 1e-3]]))

    def test_no_step(self):
        A1, A2, B, X, _ = random_case(29)
        regression = AttentionRegression(A1, A2, B)
        label = attention.icl_label_shift(regression, X, X)
        np.testing.assert_array_equal(label.B, B)
        assert label.shift == label.bound == 0.0
        zero = np.zeros(X.shape)
        assert attention.icl_data_shift(regression, zero, zero).bound == 0.0

    def test_cross_entropy_has_no_label_shift(self):
        A1, A2, B, X, _ = random_case(30)
        with pytest.raises(ValueError, match="got 'cross_entropy'"):
            attention.icl_label_shift(AttentionRegression(A1, A2, B, "cross_entropy"), X, X)


# --------------------------------------------------------------------------------------------
# A transformer layer with a skip connection contains bilinear sequence regression
# --------------------------------------------------------------------------------------------


def transformer(X, Q, K, V, W1, W2, U, *, skip=True, activation=lambda h: h, positions=None):
    """Return the label that one layer gives a sequence: token by token, as it is usually written.

    X: d1 tokens of dimension d2.  Attention with queries Q, keys K and values V, the skip
    connection, a token-wise network W1, W2, and a linear readout U of all positions.  With
    ``positions`` queries and keys are taken from these instead of the tokens.
    """
    length = X.shape[0]
    keyed = X if positions is None else positions
    output = 0.0
    for i in range(length):
        scores = np.array([keyed[i] @ Q @ (K.T @ keyed[j]) for j in range(length)])
        weights = np.exp(scores - scores.max())
        weights /= weights.sum()
        token = sum(w * (x @ V) for w, x in zip(weights, X, strict=True))
        if skip:
            token = X[i] + token
        output += U[i] @ (activation(token @ W1) @ W2)
    return output


@pytest.fixture(scope="module")
def layer():
    """Return an instance without noise, the factors of its signal, and weights of a layer."""
    data = bsr.bilinear_regression(alpha=0.4, beta=1.5, rho=0.5).sample(d1=8, rng=0)
    d1, d2 = data.S.shape
    left, sigma, right = np.linalg.svd(data.S)
    rank = int(np.sum(sigma > 1e-10))
    assert rank == 4
    U = left[:, :rank] * sigma[:rank] / np.sqrt(d1 * d2)
    W = right[:rank].T
    rng = np.random.default_rng(1)
    Q, K = rng.normal(size=(2, d2, 3)) / np.sqrt(d2)
    V = rng.normal(size=(d2, d2)) / np.sqrt(d2)
    return data, U, W, Q, K, V


class TestTransformer:
    def test_without_values_the_layer_is_the_model(self, layer):
        data, U, W, Q, K, V = layer
        X = np.asarray(data.X)
        labels = [transformer(x, Q, K, 0 * V, W, np.eye(4), U) for x in X]
        np.testing.assert_allclose(labels, data.y, rtol=0, atol=1e-13)
        # and is not once they are there
        labels = [transformer(x, Q, K, V, W, np.eye(4), U) for x in X]
        assert np.std(labels - data.y) > 0.1

    def test_a_network_of_rectifiers(self, layer):
        data, U, W, Q, K, V = layer
        W1, W2 = np.hstack([W, -W]), np.vstack([np.eye(4), -np.eye(4)])
        labels = [
            transformer(x, Q, K, 0 * V, W1, W2, U, activation=lambda h: np.maximum(h, 0.0))
            for x in np.asarray(data.X)
        ]
        np.testing.assert_allclose(labels, data.y, rtol=0, atol=1e-13)

    def test_attention_by_position_is_the_model_with_another_signal(self, layer):
        data, U, W, Q, K, V = layer
        X = np.asarray(data.X)
        d1, d2 = data.S.shape
        positions = np.random.default_rng(2).normal(size=(d1, d2))
        F = softmax(positions @ Q @ K.T @ positions.T)
        signal = data.S + F.T @ data.S @ V.T
        assert np.linalg.matrix_rank(signal) == 8
        labels = [transformer(x, Q, K, V, W, np.eye(4), U, positions=positions) for x in X]
        np.testing.assert_allclose(labels, data.X.matvec(signal), rtol=0, atol=1e-12)

    def test_uniform_attention_adds_rank_one(self, layer):
        data, U, W, Q, K, V = layer
        X = np.asarray(data.X)
        mean = np.full((8, 8), 1 / 8)
        added = mean @ data.S @ V.T
        assert np.linalg.matrix_rank(added) == 1
        for skip, signal in ((True, data.S + added), (False, added)):
            labels = [transformer(x, 0 * Q, K, V, W, np.eye(4), U, skip=skip) for x in X]
            np.testing.assert_allclose(labels, data.X.matvec(signal), rtol=0, atol=1e-12)

    def test_without_the_skip_connection_attention_has_to_saturate(self, layer):
        # every position attends to itself with weight e^s/(e^s + d1 - 1)
        data, U, W, _, _, _ = layer
        X = np.asarray(data.X)
        positions, eye = np.eye(8, 12), np.eye(12)
        for s in (1.0, 5.0, 25.0):
            labels = [
                transformer(x, s * eye, eye, eye, W, np.eye(4), U, skip=False, positions=positions)
                for x in X
            ]
            leak = (np.ones((8, 8)) - 8 * np.eye(8)) / (np.exp(s) + 7)
            missed = data.X.matvec(leak @ data.S)
            np.testing.assert_allclose(labels, data.y + missed, rtol=0, atol=1e-12)
            assert 0.1 * np.exp(-s) < np.std(missed) < 10 * np.exp(-s)
