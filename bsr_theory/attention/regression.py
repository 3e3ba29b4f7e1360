r"""The attention regressions: which weights X explain given attention matrices B.

With scores :math:`P = A_1 X A_2^{\mathsf T}`, attention :math:`F = D^{-1} e^P` and
:math:`D = \mathrm{diag}(a)`, :math:`a = e^P \mathbf 1`, the losses of "In-Context Learning for
Attention Scheme" (Gao, Song and Xie, arXiv:2307.02419) are

.. math::
   \text{normalised: } \lVert F - B\rVert_F^2, \qquad
   \text{rescaled: } \lVert e^P - D B\rVert_F^2 = \sum_i a_i^2\, \lVert F_i - B_i\rVert^2,

and beside them stands the convex cross-entropy :math:`-\sum_{ij} B_{ij} \log F_{ij}`.  Every
derivative with respect to X is :math:`A_1^{\mathsf T} G A_2` with an :math:`n_1 \times n_2` matrix
G.  Nothing larger is ever formed.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from scipy.sparse.linalg import LinearOperator

from .._arrays import Array, check

__all__ = ["AttentionRegression", "Kind", "kronecker_operator", "softmax_regression"]

Kind = Literal["normalised", "rescaled", "cross_entropy"]

_LARGEST_SCORE = 1e300
# exp(2 * 350) = 1e304: beyond it the squares in the rescaled loss leave the range of a double
_LARGEST_LOG_WEIGHT = 350.0
_BLOCK = 2**15  # entries that are treated together
_ROW_SUM = 1e-8  # rows of B may miss 1 by that much before a warning


# --------------------------------------------------------------------------------------------
# Input
# --------------------------------------------------------------------------------------------


def finite_array(name: str, value: Any, ndim: tuple[int, ...]) -> Array:
    """Return ``value`` as a float array, or raise a ValueError that names it."""
    wanted = " or ".join(str(k) for k in ndim)
    try:
        if np.iscomplexobj(value):
            raise TypeError("complex")
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a real array with {wanted} axes") from error
    if array.ndim not in ndim or array.size == 0:
        raise ValueError(f"{name} must have {wanted} axes and no empty one, got {array.shape}")
    if not np.isfinite(array).all():
        bad = array[~np.isfinite(array)][0]
        raise ValueError(f"{name} must be finite, got {float(bad)!r}")
    return array


def _stack(array: Array, samples: int) -> Array:
    """Return a view of shape (samples, rows, columns)."""
    return np.broadcast_to(array, (samples, *array.shape[-2:]))


def _row_sum(array: Array) -> Array:
    return np.asarray(array.sum(axis=-1, keepdims=True))


def _in_range(P: Array) -> Array:
    """Return scores, or raise an OverflowError."""
    if not (P.max() <= _LARGEST_SCORE and P.min() >= -_LARGEST_SCORE):
        raise OverflowError("the scores A1 X A2^T overflow")
    return P


def centred(A2: Array) -> Array:
    """Return A2 less its column means: what a softmax sees of it."""
    return np.asarray(A2 - A2.mean(axis=-2, keepdims=True))


def _row_dot(one: Array, other: Array) -> Array:
    return np.asarray(np.einsum("...j,...j->...", one, other)[..., np.newaxis])


# --------------------------------------------------------------------------------------------
# The bilinear map X -> A1 X A2^T and its adjoint
# --------------------------------------------------------------------------------------------


def forward(A1: Array, X: Array, A2: Array) -> Array:
    """Return ``A1 X A2^T`` of every sample, shape (m, n1, n2)."""
    return (A1 @ X) @ A2.swapaxes(-1, -2)


def adjoint(A1: Array, G: Array, A2: Array) -> Array:
    """Return ``sum_mu A1^T G A2``, shape (d1, d2)."""
    return _gather(A1, G @ A2)


def _gather(A1: Array, Y: Array) -> Array:
    """Return ``sum_mu A1^T Y``."""
    if len(Y) == 1:
        return np.asarray(A1[0].T @ Y[0])
    return np.asarray(np.tensordot(A1, Y, axes=([0, 1], [0, 1])))


_Block = tuple[slice, slice]


def _blocks(shape: tuple[int, ...]) -> Iterator[_Block]:
    """Yield (samples, rows): rows of one sample, or several small samples at once.

    What a formula needs on the way then stays in cache, and only what is kept has the size of B.
    """
    samples, rows, columns = shape
    if rows * columns < _BLOCK:
        step = _BLOCK // (rows * columns)
        for start in range(0, samples, step):
            yield slice(start, start + step), slice(None)
        return
    step = max(1, _BLOCK // columns)
    for sample in range(samples):
        for start in range(0, rows, step):
            yield slice(sample, sample + 1), slice(start, start + step)


def kronecker_operator(A1: Any, A2: Any) -> LinearOperator:
    r"""Return ``vec(X) -> vec(A1 X A2^T)`` as a linear operator: the tensor trick, matrix-free.

    Parameters
    ----------
    A1 : array_like, shape (n1, d1) or (m, n1, d1)
        Left factor, one or one a sample.
    A2 : array_like, shape (n2, d2) or (m, n2, d2)
        Right factor.

    Returns
    -------
    scipy.sparse.linalg.LinearOperator
        Of shape (m n1 n2, d1 d2).  vec is row after row, numpy's ``ravel``.

    Raises
    ------
    ValueError
        If a factor is not finite, or the numbers of samples differ.

    Notes
    -----
    .. math:: \mathrm{vec}(A_1 X A_2^{\mathsf T}) = (A_1 \otimes A_2)\, \mathrm{vec}(X)

    turns the search for a matrix into the search for a vector of length :math:`d_1 d_2`; row
    block i of the Kronecker product, :math:`a_{1,i}^{\mathsf T} \otimes A_2`, makes row i of the
    attention matrix an ordinary softmax regression (arXiv:2307.02419).  A product costs
    :math:`O(n_1 d_1 d_2 + n_1 n_2 d_2)` instead of :math:`O(n_1 n_2 d_1 d_2)`.

    Examples
    --------
    >>> import numpy as np
    >>> from bsr_theory.attention import kronecker_operator
    >>> A1, A2 = np.arange(6.0).reshape(3, 2), np.arange(8.0).reshape(4, 2)
    >>> operator = kronecker_operator(A1, A2)
    >>> bool(np.all(operator @ np.eye(4) == np.kron(A1, A2)))
    True
    """
    left, right = finite_array("A1", A1, (2, 3)), finite_array("A2", A2, (2, 3))
    counts = {x.shape[0] for x in (left, right) if x.ndim == 3}
    if len(counts) > 1:
        raise ValueError(f"A1 and A2 must agree on the number of samples, got {sorted(counts)}")
    samples = counts.pop() if counts else 1
    left, right = _stack(left, samples), _stack(right, samples)
    size, out = (left.shape[2], right.shape[2]), (samples, left.shape[1], right.shape[1])
    return LinearOperator(
        dtype=np.float64,
        shape=(int(np.prod(out)), int(np.prod(size))),
        matvec=lambda x: forward(left, x.reshape(size), right).ravel(),
        rmatvec=lambda g: adjoint(left, g.reshape(out), right).ravel(),
    )


# --------------------------------------------------------------------------------------------
# The regression
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Point:
    """The attention matrices at one X, with what every derivative there needs.

    Attributes
    ----------
    X : ndarray, shape (d1, d2)
        The weights.
    F : ndarray, shape (m, n1, n2)
        Attention.
    log_a : ndarray, shape (m, n1, 1)
        Logarithm of the row sums of ``exp(P)``.
    weight : ndarray, shape (m, n1, 1)
        What a row counts: 1, ``a_i^2`` or ``sum_j B_ij``; doubled for a loss without 1/2.
    mean : ndarray, shape (m, n1, 1)
        ``rs(C F)``, for the rescaled loss ``rs(C B)``: the derivative of the squares by the scores
        is ``weight F (C - mean)``.
    value : float
        The loss without penalty.
    """

    X: Array
    F: Array
    log_a: Array
    weight: Array
    mean: Array
    value: float


@dataclass(frozen=True, eq=False)
class AttentionRegression:
    r"""Fit the weights X of softmax attention to given attention matrices.

    Parameters
    ----------
    A1 : array_like, shape (n1, d1) or (m, n1, d1)
        Left data (queries); one matrix, shared by all samples, or one a sample.
    A2 : array_like, shape (n2, d2) or (m, n2, d2)
        Right data (keys).
    B : array_like, shape (n1, n2) or (m, n1, n2)
        The attention matrices to explain.  Negative entries and rows whose sum is not 1 are
        allowed, with a warning, since no X reaches them.
    kind : {"normalised", "rescaled", "cross_entropy"}
        ``||F - B||_F^2``, ``||exp(P) - D B||_F^2``, or ``-sum_ij B_ij log F_ij``, which is convex
        and needs B without negative entries.
    regularization : float
        lambda >= 0 of the additional term ``lambda/2 ||X||_F^2``.
    half : bool
        Whether the two squares are halved.

    Attributes
    ----------
    shape : tuple
        (d1, d2), the shape of X.
    samples : int
        Number m of samples; losses are sums over them.

    Raises
    ------
    ValueError
        If shapes do not fit, a number is not finite, or an argument is out of its range.

    Notes
    -----
    With ``P = A1 X A2^T``, ``F = softmax(P)`` row by row, ``C = F - B``, ``rs`` the sum of a row
    and ``a = rs(exp P)``, the gradients are ``A1^T G A2`` with (losses halved)

    .. math::
       G_N &= F \circ (C - \mathrm{rs}(C \circ F)), \\
       G_R &= a^2 F \circ (C - \mathrm{rs}(C \circ B)), \\
       G_{CE} &= \mathrm{rs}(B)\, F - B ,

    and a Hessian product is the derivative of G along :math:`dP = A_1 V A_2^{\mathsf T}`.  One
    loss, gradient or product costs :math:`O(n_1 n_2 (d_1 + d_2))` operations and a few matrices of
    the size of B.  F is found through logarithms, so scores of any size are harmless; the rescaled
    loss itself grows like :math:`e^{2 \max P}` and raises OverflowError where it leaves the range
    of a double.

    The losses are those of arXiv:2307.02419, with rectangular data and several samples.

    Examples
    --------
    >>> import numpy as np
    >>> from bsr_theory.attention import AttentionRegression, fit
    >>> rng = np.random.default_rng(0)
    >>> A1, A2, teacher = rng.normal(size=(9, 4)), rng.normal(size=(8, 3)), rng.normal(size=(4, 3))
    >>> B = np.exp(A1 @ teacher @ A2.T)
    >>> B /= B.sum(axis=1, keepdims=True)
    >>> regression = AttentionRegression(A1, A2, B)
    >>> bool(np.allclose(fit(regression).X, teacher, rtol=0, atol=1e-12))
    True
    """

    A1: Any
    A2: Any
    B: Any
    kind: Kind = "normalised"
    regularization: float = 0.0
    half: bool = False
    samples: int = field(init=False)
    stacked: tuple[Array, Array, Array] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check everything and stack the samples."""
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        penalty = check("regularization", self.regularization, low=0.0, allow_inf=False)
        if np.ndim(penalty):
            raise ValueError("regularization must be a scalar, got an array")
        arrays = {k: finite_array(k, getattr(self, k), (2, 3)) for k in ("A1", "A2", "B")}
        A1, A2, B = arrays.values()
        counts = {k: x.shape[0] for k, x in arrays.items() if x.ndim == 3}
        if len(set(counts.values())) > 1 or (counts and B.ndim == 2):
            raise ValueError(
                "A1, A2 and B must agree on the number of samples, got shapes "
                + ", ".join(f"{k} {x.shape}" for k, x in arrays.items())
            )
        if B.shape[-2:] != (A1.shape[-2], A2.shape[-2]):
            raise ValueError(
                f"B must have the shape (rows of A1, rows of A2) = "
                f"{(A1.shape[-2], A2.shape[-2])}, got {B.shape[-2:]}"
            )
        self._check_labels(B)
        samples = B.shape[0] if B.ndim == 3 else 1
        values = {**arrays, "regularization": float(penalty), "samples": samples}
        values["stacked"] = tuple(_stack(x, samples) for x in (A1, A2, B))
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _check_labels(self, B: Array) -> None:
        """Refuse or warn about rows that are no probabilities."""
        if (B < 0.0).any():
            what = f"B must be >= 0, got {float(B.min())!r}"
            if self.kind == "cross_entropy":
                raise ValueError(f"{what}; the other kinds allow it")
        elif np.abs(_row_sum(B) - 1.0).max() > _ROW_SUM:
            sums = _row_sum(B)
            what = f"rows of B must sum to 1, got {float(sums.flat[np.abs(sums - 1.0).argmax()])!r}"
        else:
            return
        warnings.warn(f"{what}: no attention matrix equals B", UserWarning, stacklevel=4)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (d1, d2) of the weights."""
        return self.A1.shape[-1], self.A2.shape[-1]

    # ----------------------------------------------------------------------------------------
    # Values
    # ----------------------------------------------------------------------------------------

    def scores(self, X: Any) -> Array:
        """Return ``P = A1 X A2^T``.

        Parameters
        ----------
        X : array_like, shape (d1, d2)
            Weights.

        Returns
        -------
        ndarray, shape (n1, n2) or (m, n1, n2)
            In the shape of B.

        Raises
        ------
        ValueError
            If X is not finite or of another shape.
        OverflowError
            If a score leaves the range of a double.
        """
        A1, A2, _ = self.stacked
        with np.errstate(over="ignore", invalid="ignore"):
            P = forward(A1, self.weights(X), A2)
        return _in_range(P).reshape(self.B.shape)

    def attention(self, X: Any) -> Array:
        """Return the attention matrix ``F = softmax(A1 X A2^T)``, row by row.

        Parameters
        ----------
        X : array_like, shape (d1, d2)
            Weights.

        Returns
        -------
        ndarray, shape (n1, n2) or (m, n1, n2)
            Positive rows of sum 1, in the shape of B.
        """
        return self.at(self.weights(X)).F.reshape(self.B.shape)

    def residual(self, X: Any) -> Array:
        """Return what is squared: ``F - B``, or ``exp(P) - D B`` for the rescaled kind.

        Parameters
        ----------
        X : array_like, shape (d1, d2)
            Weights.

        Returns
        -------
        ndarray, shape (n1, n2) or (m, n1, n2)
            In the shape of B.

        Raises
        ------
        OverflowError
            If the rescaled residual leaves the range of a double.
        """
        point = self._point(X)
        C = point.F - self.stacked[2]
        if self.kind == "rescaled":
            C *= np.exp(point.log_a)
        return C.reshape(self.B.shape)

    def loss(self, X: Any) -> float:
        """Return the loss.

        Parameters
        ----------
        X : array_like, shape (d1, d2)
            Weights.

        Returns
        -------
        float
            Summed over entries and samples, with the penalty.

        Raises
        ------
        ValueError
            If X is not finite or of another shape.
        OverflowError
            If the rescaled loss, or a score, leaves the range of a double.
        """
        point = self._point(X)
        return point.value + 0.5 * self.regularization * float(np.sum(point.X**2))

    def gradient(self, X: Any) -> Array:
        """Return the gradient of the loss.

        Parameters
        ----------
        X : array_like, shape (d1, d2)
            Weights.

        Returns
        -------
        ndarray, shape (d1, d2)
            Derivative by each entry of X.

        Raises
        ------
        ValueError, OverflowError
            As `loss`.
        """
        point = self._point(X)
        return self.slope_at(point) + self.regularization * point.X

    def hessian_product(self, X: Any, V: Any) -> Array:
        """Return the derivative of the gradient along V: the Hessian times V.

        Parameters
        ----------
        X : array_like, shape (d1, d2)
            Weights.
        V : array_like, shape (d1, d2)
            Direction.

        Returns
        -------
        ndarray, shape (d1, d2)
            Linear in V, and symmetric: ``<W, H V> = <V, H W>``.

        Raises
        ------
        ValueError, OverflowError
            As `loss`.
        """
        V = self.weights(V, "V")
        curved = self.curvature_at(self._point(X), V)
        return np.asarray(curved + self.regularization * V)

    def gauss_newton_product(self, X: Any, V: Any) -> Array:
        """Return the Gauss-Newton matrix times V: the Hessian without second derivatives of F.

        Parameters
        ----------
        X : array_like, shape (d1, d2)
            Weights.
        V : array_like, shape (d1, d2)
            Direction.

        Returns
        -------
        ndarray, shape (d1, d2)
            A positive semidefinite map of V.  It is the Hessian where the residual vanishes, and
            everywhere for the cross-entropy.

        Raises
        ------
        ValueError, OverflowError
            As `loss`.
        """
        V = self.weights(V, "V")
        curved = self.curvature_at(self._point(X), V, gauss_newton=True)
        return np.asarray(curved + self.regularization * V)

    def hessian_operator(self, X: Any, *, gauss_newton: bool = False) -> LinearOperator:
        """Return the Hessian at X as a linear operator on ``vec(V)``; F is found once.

        Parameters
        ----------
        X : array_like, shape (d1, d2)
            Weights.
        gauss_newton : bool
            Whether to return the Gauss-Newton matrix instead.

        Returns
        -------
        scipy.sparse.linalg.LinearOperator
            Symmetric, of shape (d1 d2, d1 d2).

        Raises
        ------
        ValueError, OverflowError
            As `loss`.
        """
        point, size = self._point(X), int(np.prod(self.shape))

        def product(v: Array) -> Array:
            V = v.reshape(self.shape)
            curved = self.curvature_at(point, V, gauss_newton=gauss_newton)
            return (curved + self.regularization * V).ravel()

        return LinearOperator(dtype=np.float64, shape=(size, size), matvec=product, rmatvec=product)

    def altered(self, **changes: Any) -> AttentionRegression:
        """Return a copy with other data of the right form; B is not judged a second time."""
        other = copy.copy(self)
        for name, value in changes.items():
            object.__setattr__(other, name, value)
        stacked = tuple(_stack(x, self.samples) for x in (other.A1, other.A2, other.B))
        object.__setattr__(other, "stacked", stacked)
        return other

    # ----------------------------------------------------------------------------------------
    # One point, several derivatives: what the optimisers call
    # ----------------------------------------------------------------------------------------

    def weights(self, X: Any, name: str = "X") -> Array:
        """Return X as a finite array of shape (d1, d2)."""
        array = finite_array(name, X, (2,))
        if array.shape != self.shape:
            raise ValueError(f"{name} must have the shape {self.shape}, got {array.shape}")
        return array

    def _point(self, X: Any) -> Point:
        point = self.at(self.weights(X))
        if self.kind == "rescaled" and point.log_a.max() > _LARGEST_LOG_WEIGHT:
            raise OverflowError(
                f"the rescaled loss overflows: a row of exp(A1 X A2^T) sums to "
                f"exp({float(point.log_a.max()):.6g}); use kind='normalised'"
            )
        return point

    def at(self, X: Array, log_unit: float = 0.0) -> Point:
        """Return the attention at X; the rescaled loss is measured in units of exp(2 log_unit)."""
        A1, A2, B = self.stacked
        kind, rows = self.kind, (*B.shape[:-1], 1)
        F, log_a, loss, mean = np.empty(B.shape), np.empty(rows), np.empty(rows), np.zeros(rows)
        with np.errstate(over="ignore", invalid="ignore"):
            left = A1 @ X
        for block in _blocks(B.shape):
            b = B[block]
            with np.errstate(over="ignore", invalid="ignore"):
                p = _in_range(left[block] @ A2[block[0]].swapaxes(-1, -2))
            top = p.max(axis=-1, keepdims=True)
            p -= top
            f = np.exp(p)
            a = _row_sum(f)
            f /= a
            F[block], log_a[block] = f, top + np.log(a)
            if kind == "cross_entropy":
                loss[block] = _row_dot(b, np.log(a) - p)
            else:
                c = f - b
                loss[block], mean[block] = (
                    _row_dot(c, c),
                    _row_dot(c, b if kind == "rescaled" else f),
                )
        if kind == "cross_entropy":
            return Point(X, F, log_a, _row_sum(B), mean, float(loss.sum()))
        weight = np.full(rows, 1.0 if self.half else 2.0)
        with np.errstate(over="ignore", invalid="ignore"):  # infinite weights, vanishing residuals
            if kind == "rescaled":
                weight *= np.exp(2.0 * (log_a - log_unit))
            return Point(X, F, log_a, weight, mean, 0.5 * float(np.sum(weight * loss)))

    def _rows(self, point: Point) -> Iterator[tuple[_Block, _Rows]]:
        """Yield the point block by block."""
        B = self.stacked[2]
        for block in _blocks(B.shape):
            yield block, _Rows(point.F[block], B[block], point.weight[block], point.mean[block])

    def slope_at(self, point: Point) -> Array:
        """Return the gradient without penalty."""
        A1, A2, _ = self.stacked
        Y = np.empty((*point.F.shape[:-1], A2.shape[-1]))
        for block, rows in self._rows(point):
            F, b, weight, mean = rows
            G = weight * F - b if self.kind == "cross_entropy" else weight * (F * (F - b - mean))
            Y[block] = G @ A2[block[0]]
        return _gather(A1, Y)

    def curvature_at(self, point: Point, V: Array, *, gauss_newton: bool = False) -> Array:
        """Return the Hessian or Gauss-Newton product without penalty."""
        A1, A2, _ = self.stacked
        rule = (_GAUSS_NEWTON if gauss_newton else _HESSIAN)[self.kind]
        left, Y = A1 @ V, np.empty((*point.F.shape[:-1], A2.shape[-1]))
        for block, rows in self._rows(point):
            right = A2[block[0]]
            Y[block] = rule(left[block] @ right.swapaxes(-1, -2), rows) @ right
        return _gather(A1, Y)

    def jacobian_at(self, point: Point, V: Array) -> Array:
        """Return the derivative of the weighted residual, whose squares the loss sums."""
        A1, A2, _ = self.stacked
        left, out = A1 @ V, np.empty(point.F.shape)
        for block, (F, b, weight, _) in self._rows(point):
            dU = F * (left[block] @ A2[block[0]].swapaxes(-1, -2))
            out[block] = np.sqrt(weight) * (dU - _row_sum(dU) * self._onto(F, b))
        return out

    def jacobian_transposed_at(self, point: Point, R: Array) -> Array:
        """Return the adjoint of `jacobian_at`, applied to R."""
        A1, A2, _ = self.stacked
        Y = np.empty((*point.F.shape[:-1], A2.shape[-1]))
        for block, (F, b, weight, _) in self._rows(point):
            r = np.sqrt(weight) * R[block]
            Y[block] = (F * (r - _row_dot(r, self._onto(F, b)))) @ A2[block[0]]
        return _gather(A1, Y)

    def _onto(self, F: Array, b: Array) -> Array:
        return b if self.kind == "rescaled" else F


# --------------------------------------------------------------------------------------------
# Second derivatives by the scores, rows by themselves: dP is their direction
# --------------------------------------------------------------------------------------------


class _Rows(NamedTuple):
    """Some rows of a `Point`, and their labels b."""

    F: Array
    b: Array
    weight: Array
    mean: Array


def _softmax_move(dP: Array, F: Array) -> Array:
    """Return dF."""
    return F * (dP - _row_dot(F, dP))


def _hessian_normalised(dP: Array, rows: _Rows) -> Array:
    F, b, weight, mean = rows
    dF, C = _softmax_move(dP, F), F - b
    dmean = _row_dot(dF, F) + _row_dot(dF, C)
    return weight * (dF * (C - mean) + F * (dF - dmean))


def _gauss_newton_normalised(dP: Array, rows: _Rows) -> Array:
    dF = _softmax_move(dP, rows.F)
    return rows.weight * (rows.F * (dF - _row_dot(rows.F, dF)))


def _hessian_rescaled(dP: Array, rows: _Rows) -> Array:
    F, b, weight, mean = rows
    dU = F * dP
    da = _row_sum(dU)  # of log a
    dF = dU - da * F
    return weight * ((dU + da * F) * (F - b - mean) + F * (dF - _row_dot(dF, b)))


def _gauss_newton_rescaled(dP: Array, rows: _Rows) -> Array:
    F, b, weight, _ = rows
    dU = F * dP
    dR = dU - _row_sum(dU) * b  # of the residual, over a
    return weight * (F * (dR - _row_dot(dR, b)))


def _hessian_entropy(dP: Array, rows: _Rows) -> Array:
    return rows.weight * _softmax_move(dP, rows.F)


_HESSIAN: dict[str, Callable[[Array, _Rows], Array]] = {
    "normalised": _hessian_normalised,
    "rescaled": _hessian_rescaled,
    "cross_entropy": _hessian_entropy,
}
_GAUSS_NEWTON: dict[str, Callable[[Array, _Rows], Array]] = {
    "normalised": _gauss_newton_normalised,
    "rescaled": _gauss_newton_rescaled,
    "cross_entropy": _hessian_entropy,
}


def softmax_regression(
    A: Any,
    b: Any,
    kind: Kind = "normalised",
    *,
    regularization: float = 0.0,
    half: bool = False,
) -> AttentionRegression:
    r"""Return the regression of a single softmax, ``||softmax(A x) - b||^2`` or its relatives.

    Parameters
    ----------
    A : array_like, shape (n, d)
        Data.
    b : array_like, shape (n,)
        The probabilities to explain.
    kind : {"normalised", "rescaled", "cross_entropy"}
        As in `AttentionRegression`; rescaled is ``||exp(A x) - <exp(A x), 1> b||^2``.
    regularization : float
        lambda >= 0 of the additional term ``lambda/2 ||x||^2``.
    half : bool
        Whether the two squares are halved.

    Returns
    -------
    AttentionRegression
        The case n1 = d1 = 1 and A1 = 1: its weights are the row X = x^T of shape (1, d).

    Raises
    ------
    ValueError
        As `AttentionRegression`.

    References
    ----------
    Li, Song, Xia, Yu and Zhou, "The Closeness of In-Context Learning and Weight Shifting for
    Softmax Regression", arXiv:2304.13276.

    Examples
    --------
    >>> import numpy as np
    >>> from bsr_theory.attention import softmax_regression
    >>> softmax_regression(np.eye(2), [0.5, 0.5]).loss([[0.0, np.log(3.0)]])
    0.125
    """
    row = finite_array("b", b, (1,))
    return AttentionRegression(
        np.ones((1, 1)), finite_array("A", A, (2,)), row[np.newaxis, :], kind, regularization, half
    )
