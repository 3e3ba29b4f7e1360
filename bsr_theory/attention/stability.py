r"""How far attention moves when its weights or its data move; in-context learning.

Everything rests on one row.  The Jacobian of a softmax f is :math:`J = \mathrm{diag} f - f f^T`,
and :math:`v^T J v` is the variance of v under f, at most :math:`\lVert v\rVert^2/2`; it does not
see constants, so that A2 may be centred.  The Hessian of :math:`\frac12\lVert f - b\rVert^2` by the
scores is :math:`J^2 + N` with

.. math:: v^T N v = \mathbb E_f\bigl[(c - \mathbb E_f c)(v - \mathbb E_f v)^2\bigr],\; c = f - b .
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._arrays import Array, check_integer, check_number
from .regression import AttentionRegression, centred, forward

__all__ = [
    "DataShift",
    "LabelShift",
    "LipschitzConstants",
    "icl_data_shift",
    "icl_label_shift",
    "lipschitz_constants",
    "paper_lipschitz_constants",
]

# Supremum of ||J^2 + N|| over probability vectors f, b of two entries, 4 p^2 (1 - p)(2 - 3 p).
_P = (15.0 - np.sqrt(33.0)) / 24.0
_SHARP = float(4.0 * _P**2 * (1.0 - _P) * (2.0 - 3.0 * _P))


@dataclass(frozen=True)
class LipschitzConstants:
    """Constants L with ``||f(X) - f(Y)||_F <= L ||X - Y||_F``.

    Attributes
    ----------
    attention : float
        Of the attention matrices F.
    residual : float
        Of what the loss squares: F - B, or ``exp(P) - D B`` in the ball.
    gradient : float
        Of the gradient of the loss, proven; ``1/gradient`` is a step of gradient descent that
        never increases the loss.
    gradient_sharp : float
        The same with the smallest possible constant for one row, ``0.3081...`` (halved loss), that
        is exact for rows of two entries and holds in every search for longer ones, without a
        proof; NaN for the rescaled loss and for rows of B that are no probabilities.
    queries, keys : float
        Of F as a function of A1 alone and of A2 alone, for X in the ball.
    radius : float
        Of the ball ``||X||_2 <= radius``; inf if none was asked for.
    """

    attention: float
    residual: float
    gradient: float
    gradient_sharp: float
    queries: float
    keys: float
    radius: float


def _spectral(A: Array) -> Array:
    """Return the largest singular value of each sample."""
    return np.asarray(np.linalg.norm(A, 2, axis=(-2, -1)))


def _projection_norm(B: Array) -> Array:
    """Return ``||I - b 1^T||_2`` of the worst row b of each sample.

    On span(b, 1) the squared singular values have sum T and product D^2; elsewhere they are 1.
    """
    n = B.shape[-1]
    if n == 1:
        return np.asarray(np.abs(1.0 - B).max(axis=(-2, -1)))
    defect = 1.0 - B.sum(axis=-1)
    # T^2 - 4 D^2 without the cancellation
    total = 2.0 * defect + n * np.sum(B**2, axis=-1)
    low, high = total - 2.0 * defect, total + 2.0 * defect
    root = np.sqrt(np.maximum(low * high, 0.0))
    return np.asarray(np.sqrt(0.5 * (total + root)).max(axis=-1))


def lipschitz_constants(
    regression: AttentionRegression, radius: float | None = None
) -> LipschitzConstants:
    r"""Return constants that bound how fast attention and its losses vary.

    Parameters
    ----------
    regression : AttentionRegression
        The data and the loss.
    radius : float, optional
        Bound R >= 0 on the spectral norm of X.  Needed by `queries`, by `keys` and by the rescaled
        loss, whose constants grow like ``exp(2 p)`` with the largest score p in the ball.

    Returns
    -------
    LipschitzConstants
        All in Frobenius norms.

    Raises
    ------
    ValueError
        If the radius is out of its range, or missing for the rescaled loss.

    Notes
    -----
    With :math:`\sigma = \lVert A_1\rVert_2 \lVert \bar A_2\rVert_2` (A2 with centred columns),

    .. math::
       \lVert F(X) - F(Y)\rVert_F &\le \tfrac12\, \sigma\, \lVert X - Y\rVert_F, \\
       \lVert \nabla L_N(X) - \nabla L_N(Y)\rVert_F &\le
           \bigl(\tfrac14 + \tfrac12(1 + \omega)\bigr)\, \sigma^2\, \lVert X - Y\rVert_F,

    for the halved loss, where :math:`\omega \le 1` is the largest spread of a row of B, because
    :math:`\lVert J\rVert \le 1/2` and :math:`\lVert N\rVert` is at most half the spread of c.
    Neither the number of tokens nor the norm of X enters.  In the ball, with
    :math:`p = R \max_i \lVert a_{1,i}\rVert \max_j \lVert a_{2,j}\rVert`,
    :math:`\sigma = \lVert A_1\rVert_2 \lVert A_2\rVert_2` and
    :math:`Q_i = I - B_i^T \mathbf 1^T`,

    .. math::
       \lVert \nabla L_R(X) - \nabla L_R(Y)\rVert_F \le
           (1 + \sqrt{n_2})\, e^{2p} \max_i \lVert Q_i\rVert^2\, \sigma^2\, \lVert X - Y\rVert_F .

    Several samples: squares of constants of matrices add up, constants of gradients add up.

    Examples
    --------
    >>> from bsr_theory.attention import lipschitz_constants, softmax_regression
    >>> L = lipschitz_constants(softmax_regression([[1.0], [-1.0]], [0.5, 0.5], half=True))
    >>> round(L.attention, 6), round(L.gradient_sharp, 6)
    (0.707107, 0.616234)
    """
    R = np.inf
    if radius is not None:
        R = check_number("radius", radius)
    elif regression.kind == "rescaled":
        raise ValueError("radius must be given for the rescaled loss, got None")
    A1, A2, B = regression.stacked
    s1, s2, s2c = _spectral(A1), _spectral(A2), _spectral(centred(A2))
    attention = 0.5 * float(np.linalg.norm(s1 * s2c))
    square = (s1 * s2c) ** 2
    factor = 1.0 if regression.half else 2.0
    residual, sharp = attention, np.nan
    if regression.kind == "rescaled":
        rows, columns = (np.linalg.norm(A, axis=-1).max(axis=-1) for A in (A1, A2))
        Q = _projection_norm(B)
        with np.errstate(over="ignore"):
            growth = np.exp(rows * columns * R) * Q * s1 * s2
            residual = float(np.linalg.norm(growth))
            gradient = factor * float(np.sum((1.0 + np.sqrt(B.shape[-1])) * growth**2))
    elif regression.kind == "normalised":
        spread = (B.max(axis=-1) - B.min(axis=-1)).max(axis=-1)
        gradient = factor * float(np.sum((0.25 + 0.5 * (1.0 + spread)) * square))
        if B.min() >= 0.0 and np.abs(B.sum(axis=-1) - 1.0).max() <= 1e-8:
            sharp = factor * _SHARP * float(np.sum(square))
    else:
        gradient = sharp = 0.5 * float(np.sum(B.sum(axis=-1).max(axis=-1) * square))
    penalty = regression.regularization
    return LipschitzConstants(
        attention=attention,
        residual=residual,
        gradient=gradient + penalty,
        gradient_sharp=sharp + penalty,
        queries=0.5 * R * float(s2c.max()) if s2c.any() else 0.0,
        keys=0.5 * R * float(s1.max()) if s1.any() else 0.0,
        radius=float(R),
    )


def paper_lipschitz_constants(
    radius: float, n: int, beta: float | None = None
) -> tuple[float, float]:
    r"""Return constants of the form that is usual in this literature, for comparison.

    Parameters
    ----------
    radius : float
        R >= 0 that bounds the spectral norm of A and the norm of x.
    n : int
        Number of rows of A.
    beta : float, optional
        Lower bound on ``<exp(A x), 1>`` in (0, inf); :math:`e^{-R^2}` if None.

    Returns
    -------
    exponential, softmax : float
        :math:`2 \sqrt n R e^{R^2}` for ``exp(A x)`` and :math:`\beta^{-2} n^{3/2} e^{3 R^2}` for
        ``softmax(A x)``.

    Raises
    ------
    ValueError
        If an argument is out of its range.

    Notes
    -----
    They hold, and exceed those of `lipschitz_constants` by many orders of magnitude.

    Examples
    --------
    >>> from bsr_theory.attention import paper_lipschitz_constants
    >>> [f"{value:.3g}" for value in paper_lipschitz_constants(2.0, 10)]
    ['691', '1.53e+10']
    """
    n = check_integer("n", n)
    R = check_number("radius", radius)
    low = float(np.exp(-(R**2)))
    if beta is not None:
        low = check_number("beta", beta, open_low=True)
    with np.errstate(over="ignore", divide="ignore"):
        growth = np.exp(np.float64(R) ** 2)
        return float(2.0 * np.sqrt(n) * R * growth), float(
            n**1.5 * growth**3 / np.float64(low) ** 2
        )


# --------------------------------------------------------------------------------------------
# In-context learning: a step of the weights is a change of the labels, or of the data
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LabelShift:
    """A step of the weights, written as a change of the labels.

    Attributes
    ----------
    B : ndarray, shape of B
        Labels for which the old weights have the residual of the new ones.
    shift : float
        ``||B_new - B||_F``.
    bound : float
        What the Lipschitz constant allows: ``shift <= bound``.
    first_order : ndarray, shape of B
        ``B_new - B`` up to terms of second order in the step.
    """

    B: Array
    shift: float
    bound: float
    first_order: Array


@dataclass(frozen=True, eq=False)
class DataShift:
    """A step of the weights, written as a change of the queries.

    Attributes
    ----------
    A1 : ndarray, shape of A1
        Queries with which the old weights give the attention of the new ones.
    shift, bound : float
        ``||A1_new - A1||_F`` and what it cannot exceed.
    label_shift, label_bound : float
        ``||F_new - F||_F``, and the bound on it that follows from ``shift``.
    """

    A1: Array
    shift: float
    bound: float
    label_shift: float
    label_bound: float


def icl_label_shift(regression: AttentionRegression, X: Any, X1: Any) -> LabelShift:
    r"""Return the labels that make a step ``X -> X1`` of the weights unnecessary.

    Parameters
    ----------
    regression : AttentionRegression
        Normalised or rescaled.
    X, X1 : array_like, shape (d1, d2)
        Weights before and after the step.

    Returns
    -------
    LabelShift
        The new labels, and both sides of the bound on their distance to B.

    Raises
    ------
    ValueError
        For the cross-entropy, whose residual is not a difference from B.
    OverflowError
        If the rescaled residual leaves the range of a double.

    Notes
    -----
    With :math:`\tilde B = B - (F(X_1) - F(X))` the residuals :math:`F(X_1) - B` and
    :math:`F(X) - \tilde B` are the same matrix, hence

    .. math::
       L_N(X_1; B) = L_N(X; \tilde B), \qquad
       \lVert \tilde B - B\rVert_F \le
           \tfrac12 \lVert A_1\rVert_2 \lVert \bar A_2\rVert_2\, \lVert X_1 - X\rVert_F .

    For the rescaled loss, with :math:`R = e^P - D B`, the matrix is
    :math:`\tilde B = B - D(X)^{-1}(R(X_1) - R(X))`.  This is the exact form of the statement that a
    step of the weights acts like a transformation of the context (arXiv:2304.13276,
    arXiv:2307.02419).

    Examples
    --------
    >>> import numpy as np
    >>> from bsr_theory.attention import AttentionRegression, icl_label_shift
    >>> regression = AttentionRegression(np.eye(2), [[1.0], [-1.0]], np.full((2, 2), 0.5))
    >>> X = np.array([[1.0], [2.0]])
    >>> shift = icl_label_shift(regression, X, X - 0.1 * regression.gradient(X))
    >>> shift.shift < shift.bound
    True
    """
    if regression.kind == "cross_entropy":
        raise ValueError("kind must be 'normalised' or 'rescaled', got 'cross_entropy'")
    X, X1 = regression.weights(X), regression.weights(X1, "X1")
    rescaled = regression.kind == "rescaled"
    A1, A2, B = regression.stacked
    change = (regression.residual(X1) - regression.residual(X)).reshape(B.shape)
    point, dP = regression.at(X), forward(A1, X1 - X, A2)
    mean = np.sum(point.F * dP, axis=-1, keepdims=True)
    first = mean * (B if rescaled else point.F) - point.F * dP
    weight = np.exp(-point.log_a) if rescaled else np.ones_like(point.log_a)
    shift = -weight * change
    radius = max(float(np.linalg.norm(x, 2)) for x in (X, X1))
    constant = lipschitz_constants(regression, radius).residual
    return LabelShift(
        B=regression.B + shift.reshape(regression.B.shape),
        shift=float(np.linalg.norm(shift)),
        bound=constant * float(np.linalg.norm(X1 - X)) * float(weight.max()),
        first_order=first.reshape(regression.B.shape),
    )


def icl_data_shift(regression: AttentionRegression, X: Any, X1: Any) -> DataShift:
    r"""Return the queries that make a step ``X -> X1`` of the weights unnecessary.

    Parameters
    ----------
    regression : AttentionRegression
        Of any kind; B plays no role.
    X, X1 : array_like, shape (d1, d2)
        Weights before and after the step.  Every row of X1 must lie in the span of the rows of X,
        as it always does if X has full column rank.

    Returns
    -------
    DataShift
        The new queries, and both sides of the bounds.

    Raises
    ------
    ValueError
        If X1 leaves the span of the rows of X.

    Notes
    -----
    :math:`\tilde A_1 = A_1 + A_1 (X_1 - X) X^+` has :math:`\tilde A_1 X = A_1 X_1`, so the scores,
    and with them either loss, agree exactly; and

    .. math::
       \lVert \tilde A_1 - A_1\rVert_F \le
           \frac{\lVert A_1\rVert_2\, \lVert X_1 - X\rVert_F}{\sigma_{\min}(X)}, \qquad
       \lVert F(X_1) - F(X)\rVert_F \le
           \tfrac12 \lVert X\rVert_2 \lVert \bar A_2\rVert_2\, \lVert \tilde A_1 - A_1\rVert_F ,

    where :math:`\sigma_{\min}` is the smallest singular value of X that is not zero.

    Examples
    --------
    >>> import numpy as np
    >>> from bsr_theory.attention import AttentionRegression, icl_data_shift
    >>> regression = AttentionRegression(np.eye(2), np.eye(2), np.full((2, 2), 0.5))
    >>> icl_data_shift(regression, np.eye(2), [[1.0, 2.0], [3.0, 4.0]]).A1.tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
    X, X1 = regression.weights(X), regression.weights(X1, "X1")
    U, S, Vt = np.linalg.svd(X, full_matrices=False)
    keep = max(X.shape) * np.finfo(np.float64).eps * S[0] < S
    U, S, Vt = U[:, keep], S[keep], Vt[keep]
    step = X1 - X
    left_over = float(np.linalg.norm(step - (step @ Vt.T) @ Vt))
    if left_over > 1e-10 * float(np.linalg.norm(X1)):
        raise ValueError(
            f"X1 must have its rows in the span of those of X, got a part of norm {left_over!r}"
        )
    A1, A2, _ = regression.stacked
    move = np.asarray(regression.A1 @ (((step @ Vt.T) / S) @ U.T))
    moved = float(np.linalg.norm(np.broadcast_to(move, A1.shape)))
    queries = 0.5 * float(_spectral(centred(A2)).max())
    distance = regression.attention(X1) - regression.attention(X)
    return DataShift(
        A1=regression.A1 + move,
        shift=float(np.linalg.norm(move)),
        bound=(
            float(np.linalg.norm(_spectral(regression.A1)))
            * float(np.linalg.norm(step))
            / float(S[-1])
            if S.size
            else 0.0
        ),
        label_shift=float(np.linalg.norm(distance)),
        label_bound=queries * float(S[0]) * moved if S.size else 0.0,
    )
