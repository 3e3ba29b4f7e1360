r"""Solvers of the attention regressions.

The optimisers see neither X nor its scales.  With singular values :math:`A_1 = U_1 S_1 V_1^T`
and :math:`A_2 = U_2 S_2 V_2^T` (columns of :math:`A_2` centred first, unless the loss is rescaled:
a constant added to a row of scores changes no attention) they work on
:math:`Z = S_1 V_1^T X V_2 S_2`, for which the scores are :math:`U_1 Z U_2^T`.  Conditioning of the
data is gone, what the data leave open is gone too, and the Hessian is close to a multiple of the
identity.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from scipy.optimize import least_squares, minimize
from scipy.sparse.linalg import LinearOperator, cg, lsmr

from .._arrays import Array, check, check_integer
from ..results import Status
from .regression import AttentionRegression, Point, centred, forward, kronecker_operator

__all__ = ["AttentionFit", "Init", "Method", "closed_form", "fit"]

Method = Literal["trust-ncg", "L-BFGS-B", "trf"]
Init = Literal["auto", "closed_form", "cross_entropy", "zero"]

_CONSISTENT = 1e-9  # relative misfit of log B up to which B counts as an attention matrix
_EXPLAINED = 1e-6  # and up to which weights found by an optimiser count as the teacher's
_ROW_SUM = 1e-8
_DEAD = 1e-6  # 1 - max F of a row whose gradient says nothing any more
_SURE = 1e-6  # a longer Newton step at a vanishing gradient: the loss is flat around
_PLATEAU = 1e-3  # entry of F - B in such a row that proves it stuck
_ESCAPED = -50.0  # log of the largest row sum of exp(P)
_LARGEST_LOG_WEIGHT = 350.0
_ROUNDS = 30
_STALL = 40  # evaluations without progress that end a round
_POLISH = 12  # Newton steps after the optimiser


@dataclass(frozen=True, eq=False)
class AttentionFit:
    """The weights found for an `AttentionRegression`.

    Attributes
    ----------
    X : ndarray, shape (d1, d2)
        Weights.  Where the data leave directions open, one choice: that of smallest norm, unless
        the loss is rescaled.
    loss : float
        Loss at X; inf with `Status.OVERFLOW`.
    status : Status
        CONVERGED; NOT_IDENTIFIABLE: a minimum, one of many; SATURATED, ESCAPED, OVERFLOW and
        NOT_CONVERGED are failures.
    gradient_norm : float
        Frobenius norm of the gradient at X.
    iterations : int
        Iterations of all optimisers together, the start included; 0 if none was needed.
    seconds : float
        Wall-clock time.
    init : str
        The start that was used: "closed_form", "cross_entropy", "zero" or "given".
    """

    X: Array
    loss: float
    status: Status
    gradient_norm: float
    iterations: int
    seconds: float
    init: str


# --------------------------------------------------------------------------------------------
# Coordinates
# --------------------------------------------------------------------------------------------


class _Factor(NamedTuple):
    """Thin singular value decomposition ``A = U S V^T`` of all samples stacked, zeros left out."""

    U: Array
    S: Array
    V: Array


def _decompose(A: Array) -> _Factor:
    rows = A.reshape(-1, A.shape[-1])
    U, S, Vt = np.linalg.svd(rows, full_matrices=False)
    rank = int(np.sum(np.max(rows.shape) * np.finfo(np.float64).eps * S[0] < S))
    return _Factor(U[:, :rank].reshape(*A.shape[:-1], rank), S[:rank], Vt[:rank].T)


def _plain(A: Array) -> _Factor:
    """Leave A as it is."""
    return _Factor(A, np.ones(A.shape[-1]), np.eye(A.shape[-1]))


def _identifiable(regression: AttentionRegression) -> bool:
    """Whether no direction ``V`` has ``A1 V A2^T`` constant along every row of every sample."""
    A1, A2 = regression.A1, centred(regression.A2)
    d1, d2 = regression.shape
    if _decompose(A1).S.size < d1 or _decompose(A2).S.size < d2:
        return False
    if regression.samples == 1:
        return True
    n1, n2 = regression.B.shape[-2:]
    if regression.samples * n1 * (n2 - 1) < d1 * d2:
        return False
    # The least-squares preimage of a random direction's scores is that direction, less its part
    # in the null space.
    K = kronecker_operator(_decompose(A1).U, _decompose(A2).U)
    direction = np.random.default_rng(0).standard_normal(K.shape[1])
    tight = 1e-12
    back = lsmr(K, K @ direction, atol=tight, btol=tight, conlim=0, maxiter=20 * K.shape[1])[0]
    return bool(np.linalg.norm(direction - back) <= 1e-5 * np.linalg.norm(direction))


class _Coordinates:
    """The change of variables ``X = V1 (scale Z) V2^T``."""

    def __init__(self, regression: AttentionRegression, whiten: bool) -> None:
        A1, A2 = regression.A1, regression.A2
        if regression.kind != "rescaled":
            A2 = centred(A2)
        prepare = _decompose if whiten else _plain
        self.left, self.right = prepare(A1), prepare(A2)
        self.stretch = np.outer(self.left.S, self.right.S)
        self.scale = 1.0 / self.stretch
        self.inner = regression.altered(A1=self.left.U, A2=self.right.U, regularization=0.0)

    def temper(self, ratio: float) -> None:
        """Shorten directions in which the penalty dominates; ratio: penalty over curvature."""
        self.scale = 1.0 / np.sqrt(self.stretch**2 + ratio)

    def to_X(self, Z: Array) -> Array:
        return np.asarray(self.left.V @ (self.scale * Z) @ self.right.V.T)

    def to_Z(self, X: Array) -> Array:
        return np.asarray((self.left.V.T @ X @ self.right.V) / self.scale)


# --------------------------------------------------------------------------------------------
# Starts
# --------------------------------------------------------------------------------------------


def _log_labels(regression: AttentionRegression) -> Array:
    """Return log B less its row means, shape (m, n1, n2)."""
    L = np.log(regression.stacked[2])
    return np.asarray(L - L.mean(axis=-1, keepdims=True))


def _invertible(regression: AttentionRegression) -> str:
    """Return why log B is of no use, "" if it is."""
    B = regression.B
    if not (B > 0.0).all():
        return f"B must be > 0 for the closed form, got {float(B.min())!r}"
    sums = B.sum(axis=-1)
    worst = float(sums.flat[np.abs(sums - 1.0).argmax()])
    if abs(worst - 1.0) > _ROW_SUM:
        return f"rows of B must sum to 1 for the closed form, got {worst!r}"
    return ""


def closed_form(regression: AttentionRegression) -> Array:
    r"""Return the weights whose scores are closest to log B, row constants aside.

    Parameters
    ----------
    regression : AttentionRegression
        With positive B whose rows sum to 1.

    Returns
    -------
    ndarray, shape (d1, d2)
        The teacher's weights if B is an attention matrix and the data identify X; otherwise the
        least-squares fit of the logarithms, of smallest norm.

    Raises
    ------
    ValueError
        If an entry of B is not positive or a row does not sum to 1.

    Notes
    -----
    With :math:`\bar L` = log B less its row means and :math:`\bar A_2` = A2 less its column means,

    .. math:: X = A_1^+ \bar L\, (\bar A_2^{\mathsf T})^+ ,

    which is unique if A1 and the centred A2 have full column rank.  Several samples are solved
    together, by LSMR.

    Examples
    --------
    >>> import numpy as np
    >>> from bsr_theory.attention import AttentionRegression, closed_form
    >>> regression = AttentionRegression([[1.0]], [[0.0], [1.0]], [[0.25, 0.75]])
    >>> bool(abs(closed_form(regression)[0, 0] - np.log(3)) < 1e-15)
    True
    """
    why = _invertible(regression)
    if why:
        raise ValueError(why)
    return _from_logarithms(regression, _identifiable(regression))


def _from_logarithms(regression: AttentionRegression, identifiable: bool) -> Array:
    L = _log_labels(regression)
    whiten = identifiable or regression.samples == 1
    at = _Coordinates(regression.altered(A2=centred(regression.A2)), whiten)
    A1, A2, _ = at.inner.stacked
    if regression.samples == 1:
        return at.to_X(A1[0].T @ L[0] @ A2[0])
    K = kronecker_operator(A1, A2)
    z = lsmr(K, L.ravel(), atol=1e-15, btol=1e-15, conlim=0, maxiter=20 * K.shape[1])[0]
    return at.to_X(z.reshape(at.scale.shape))


def _explains(regression: AttentionRegression, X: Array, tolerance: float) -> bool:
    """Whether the scores of X are log B, constants of rows aside."""
    A1, A2, _ = regression.stacked
    L, P = _log_labels(regression), forward(A1, X, centred(A2))
    return bool(np.abs(L - P).max() <= tolerance * (1.0 + np.abs(L).max()))


# --------------------------------------------------------------------------------------------
# Optimisation from a start
# --------------------------------------------------------------------------------------------


class _Stalled(StopIteration):
    """The loss no longer changes."""


def _size(regression: AttentionRegression, point: Point) -> float:
    """Return how much the gradient by the scores moves when all scores move by 1."""
    F = point.F if regression.kind == "cross_entropy" else point.F**2
    return float(np.linalg.norm(point.weight * F))


class _Objective:
    """A loss as the optimisers see it: of a vector z, in units that make gradients of order 1."""

    def __init__(self, at: _Coordinates, regularization: float, X: Array) -> None:
        self.at, self.inner = at, at.inner
        rescaled = self.inner.kind == "rescaled"
        start = self.inner.at(at.stretch * (at.left.V.T @ X @ at.right.V))
        self.log_unit = float(start.log_a.max()) if rescaled else 0.0
        start = self.inner.at(start.X, self.log_unit)
        self.unit = _size(self.inner, start) or 1.0
        penalty = regularization * float(np.exp(-2.0 * self.log_unit)) if regularization else 0.0
        at.temper(penalty / (self.unit / np.sqrt(self.inner.B.size)))
        self.warp = at.stretch * at.scale
        self.penalty = penalty * at.scale**2
        self.start = at.to_Z(X).ravel()
        self.best, self.waited = np.inf, 0
        self._z: Array | None = None
        self._point: Point | None = None

    def point(self, z: Array) -> Point | None:
        """Return the attention at z, None where scores overflow."""
        if self._z is None or not np.array_equal(z, self._z):
            self._z = z.copy()
            try:
                Y = self.warp * z.reshape(self.warp.shape)
                self._point = self.inner.at(Y, self.log_unit)
            except OverflowError:
                self._point = None
        return self._point

    def value(self, z: Array) -> float:
        point = self.point(z)
        if point is None:
            return np.inf
        with np.errstate(over="ignore", invalid="ignore"):
            value = (point.value + 0.5 * self._penalty(z, z)) / self.unit
        value = value if np.isfinite(value) else np.inf
        tiny = 8.0 * np.finfo(np.float64).eps
        self.waited = 0 if value < self.best * (1.0 - tiny) else self.waited + 1
        self.best = min(self.best, value)
        return value

    def _penalty(self, z: Array, w: Array) -> float:
        return float(np.sum(self.penalty.ravel() * z * w))

    def gradient(self, z: Array) -> Array:
        point = self._existing(z)
        G = self.warp * self.inner.slope_at(point)
        return np.asarray((G.ravel() + self.penalty.ravel() * z) / self.unit)

    def product(self, z: Array, v: Array) -> Array:
        point = self._existing(z)
        V = self.warp * v.reshape(self.warp.shape)
        G = self.warp * self.inner.curvature_at(point, V)
        return np.asarray((G.ravel() + self.penalty.ravel() * v.ravel()) / self.unit)

    def hessian(self, z: Array) -> LinearOperator:
        """Return the Hessian at z."""
        shape = (z.size, z.size)
        return LinearOperator(dtype=np.float64, shape=shape, matvec=lambda v: self.product(z, v))

    def _existing(self, z: Array) -> Point:
        point = self.point(z)
        if point is None:
            raise OverflowError("the scores A1 X A2^T overflow")
        return point

    def residual(self, z: Array) -> Array:
        """Return the vector whose squares, halved and summed, are the value."""
        point = self.point(z)
        if point is None:
            return np.full(self.inner.B.size + z.size, np.inf)
        with np.errstate(over="ignore"):
            data = np.sqrt(point.weight) * (point.F - self.inner.stacked[2])
        rows = np.append(data.ravel(), np.sqrt(self.penalty).ravel() * z)
        return np.asarray(rows / np.sqrt(self.unit))

    def jacobian(self, z: Array) -> LinearOperator:
        """Return the derivative of the residual."""
        point, unit, shape = self._existing(z), np.sqrt(self.unit), self.warp.shape
        damp, samples = np.sqrt(self.penalty).ravel(), point.F.shape

        def forwards(v: Array) -> Array:
            dR = self.inner.jacobian_at(point, self.warp * v.reshape(shape))
            return np.asarray(np.append(dR.ravel(), damp * v.ravel()) / unit)

        def backwards(r: Array) -> Array:
            data, own = r.ravel()[: point.F.size], r.ravel()[point.F.size :]
            G = self.warp * self.inner.jacobian_transposed_at(point, data.reshape(samples))
            return np.asarray((G.ravel() + damp * own) / unit)

        return LinearOperator(
            dtype=np.float64,
            shape=(point.F.size + z.size, z.size),
            matvec=forwards,
            rmatvec=backwards,
        )

    def watch(self, _: Array) -> None:
        """End a round that makes no progress (callback of the optimisers)."""
        if self.waited >= _STALL:
            raise _Stalled

    def relative_gradient(self, z: Array) -> float:
        """Return the norm of the gradient in units of the curvature at z itself."""
        point = self._existing(z)
        size = _size(self.inner, point)
        return float(np.linalg.norm(self.gradient(z))) * self.unit / size if size else 0.0


def _trust_region(goal: _Objective, z: Array, tolerance: float, steps: int) -> tuple[Array, int]:
    natural = np.sqrt(goal.inner.B.size)  # norm of a change of all scores by 1
    run = minimize(
        goal.value,
        z,
        jac=goal.gradient,
        hessp=goal.product,
        method="trust-ncg",
        callback=goal.watch,
        options={
            "gtol": tolerance,
            "maxiter": steps,
            "initial_trust_radius": natural,
            "max_trust_radius": 1e4 * natural,
        },
    )
    return run.x, int(run.nit)


def _quasi_newton(goal: _Objective, z: Array, tolerance: float, steps: int) -> tuple[Array, int]:
    run = minimize(
        goal.value,
        z,
        jac=goal.gradient,
        method="L-BFGS-B",
        callback=goal.watch,
        options={
            "maxcor": 20,
            "ftol": 0.0,
            "gtol": tolerance / np.sqrt(z.size),
            "maxiter": steps,
            "maxfun": 2 * steps,
        },
    )
    return run.x, int(run.nit)


def _least_squares(goal: _Objective, z: Array, tolerance: float, steps: int) -> tuple[Array, int]:
    # scipy's LSMR variant wants two unknowns at least
    solver = "lsmr" if z.size > 1 else "exact"
    run = least_squares(
        goal.residual,
        z,
        jac=goal.jacobian if z.size > 1 else lambda x: goal.jacobian(x) @ np.eye(1),
        method="trf",
        tr_solver=solver,
        ftol=1e-15,
        xtol=1e-15,
        gtol=tolerance / np.sqrt(z.size),
        max_nfev=steps,
    )
    return run.x, int(run.njev) - 1


_OPTIMISERS: dict[str, Callable[[_Objective, Array, float, int], tuple[Array, int]]] = {
    "trust-ncg": _trust_region,
    "L-BFGS-B": _quasi_newton,
    "trf": _least_squares,
}


class _Polished(NamedTuple):
    """Where Newton's method ended, and the step that it would take next."""

    z: Array
    steps: int
    doubt: float  # norm of that step, over that of z (of a change of all scores by 1 if larger)


def _polish(goal: _Objective, z: Array) -> _Polished:
    """Take Newton steps as long as they halve the gradient.

    Losses agree to all digits when gradients still agree to half of them only, so comparing
    losses, as the optimisers do, cannot reach this far.
    """
    norm, value = float(np.linalg.norm(goal.gradient(z))), goal.value(z)
    natural, doubt = np.sqrt(goal.inner.B.size), 0.0
    for step in range(_POLISH):
        if norm == 0.0:
            return _Polished(z, step, 0.0)
        with np.errstate(all="ignore"):  # the Hessian may vanish or be indefinite
            move, _ = cg(goal.hessian(z), -goal.gradient(z), rtol=1e-8, maxiter=min(z.size, 300))
        if not np.isfinite(move).all():
            return _Polished(z, step, np.inf)
        doubt = float(np.linalg.norm(move)) / max(float(np.linalg.norm(z)), natural)
        new = z + move
        lower = goal.value(new)
        if not lower <= value + 1e-12 * abs(value):
            return _Polished(z, step, doubt)
        new_norm = float(np.linalg.norm(goal.gradient(new)))
        if not new_norm < 0.5 * norm:
            return _Polished(z, step, doubt)
        z, norm, value = new, new_norm, lower
    return _Polished(z, _POLISH, doubt)


class _Found(NamedTuple):
    """Where an optimisation ended."""

    X: Array
    converged: bool
    iterations: int
    doubt: float


def _minimise(
    regression: AttentionRegression,
    X: Array,
    method: Method,
    tolerance: float,
    steps: int,
    whiten: bool,
    certain: bool = False,
) -> _Found:
    """Minimise from X, in rounds, each in units that fit its own start.

    ``certain``: X is known to be the minimum, up to what its gradient may say.
    """
    at = _Coordinates(regression, whiten)
    if at.scale.size == 0:  # one column, or no data: nothing depends on X
        return _Found(np.zeros(regression.shape), True, 0, 0.0)
    done, converged, doubt = 0, False, 0.0
    for _ in range(_ROUNDS):
        goal = _Objective(at, regression.regularization, X)
        z = goal.start
        first, before = goal.value(z), goal.relative_gradient(z)
        if certain and before <= tolerance:
            return _Found(at.to_X(z.reshape(at.scale.shape)), True, done, 0.0)
        count = 0
        if before > tolerance:
            z, count = _OPTIMISERS[method](goal, z, tolerance, steps - done)
        z, newton, doubt = _polish(goal, z)
        done += count + newton
        converged = goal.relative_gradient(z) <= tolerance
        X = at.to_X(z.reshape(at.scale.shape))
        gone = goal.inner.kind == "rescaled" and goal._existing(z).log_a.max() < 2 * _ESCAPED
        if converged or gone or done >= steps or not goal.value(z) < first * (1.0 - 1e-3):
            break
    return _Found(X, converged, done, doubt)


# --------------------------------------------------------------------------------------------
# What kind of end
# --------------------------------------------------------------------------------------------


def _saturated(regression: AttentionRegression, point: Point) -> bool:
    """Whether gradients are blind: a wrong row is one-hot, or the other rows leave X open."""
    F = point.F
    rest = F.copy()
    np.put_along_axis(rest, F.argmax(axis=-1, keepdims=True), 0.0, axis=-1)
    dead = rest.sum(axis=-1) <= _DEAD
    if not dead.any() or regression.B.shape[-1] == 1:
        return False
    wrong = np.abs(F - regression.stacked[2]).max(axis=-1) > _PLATEAU
    if regression.kind != "cross_entropy" and (dead & wrong).any():
        return True
    A1, A2, _ = regression.stacked
    live = A1[~dead]
    if live.size == 0 or _decompose(live).S.size < _decompose(regression.A1).S.size:
        return True
    seen = ((F > _DEAD) & ~dead[..., np.newaxis]).any(axis=-2)
    columns = np.concatenate([centred(A[keep]) for A, keep in zip(A2, seen, strict=True)])
    return _decompose(columns).S.size < _decompose(centred(regression.A2)).S.size


def _ending(regression: AttentionRegression, found: _Found, identifiable: bool) -> Status:
    point = regression.at(found.X)
    if regression.kind == "rescaled":
        top = float(point.log_a.max())
        if top > _LARGEST_LOG_WEIGHT:
            return Status.OVERFLOW
        misfit = np.abs(point.F - regression.stacked[2]).max()
        if top < _ESCAPED and misfit > _PLATEAU:
            return Status.ESCAPED
    open_ended = regression.regularization == 0.0
    blind = found.converged and identifiable and not found.doubt <= _SURE
    if open_ended and (blind or _saturated(regression, point)):
        # logarithms see what the losses do not
        if _invertible(regression) or not _explains(regression, found.X, _EXPLAINED):
            return Status.SATURATED
    if not found.converged:
        return Status.NOT_CONVERGED
    return Status.NOT_IDENTIFIABLE if open_ended and not identifiable else Status.CONVERGED


def _norm(array: Array) -> float:
    """Return the Frobenius norm, of entries whose squares may overflow."""
    largest = float(np.abs(array).max())
    return largest * float(np.linalg.norm(array / largest)) if largest else 0.0


def fit(
    regression: AttentionRegression,
    *,
    method: Method = "trust-ncg",
    init: Init | Any = "auto",
    tolerance: float = 1e-10,
    steps: int = 2000,
) -> AttentionFit:
    r"""Minimise the loss of an attention regression.

    Parameters
    ----------
    regression : AttentionRegression
        The data and the loss.
    method : {"trust-ncg", "L-BFGS-B", "trf"}
        Optimiser of scipy: trust-region Newton with Hessian products, a quasi-Newton method that
        needs gradients only, or trust-region Gauss-Newton with LSMR (the two squares only).  A
        few Newton steps at the end take the gradient to rounding.
    init : {"auto", "closed_form", "cross_entropy", "zero"} or array_like, shape (d1, d2)
        The start.  "auto": the closed form if it explains B, else the minimum of the
        cross-entropy, which is convex; 0 where B has negative entries, and for the cross-entropy
        itself.
    tolerance : float
        Largest norm of the gradient by the scores, over its change when all scores change by 1;
        in (0, 1e-2].
    steps : int
        Largest number of iterations, at least 1.

    Returns
    -------
    AttentionFit
        X, the loss, the status and what it took.

    Raises
    ------
    ValueError
        If an argument is out of its range, or ``init`` needs another B.
    OverflowError
        If a score at a given start overflows.

    Notes
    -----
    X is identified by an exact B if and only if A1 and A2 with centred columns have full column
    rank; otherwise X may move along :math:`A_1 V A_2^{\mathsf T} = c \mathbf 1^{\mathsf T}`
    without a change of F, and the status is NOT_IDENTIFIABLE.  With ``regularization > 0`` the
    minimum is unique and this does not apply.

    Both squares are not convex and flat where a row of attention is one-hot: SATURATED says
    that such a row is wrong, or that the rows which are not one-hot leave X open (one-hot labels
    have their minimum at infinity).  The rescaled loss has infimum 0 at infinity when some V has
    :math:`A_1 V A_2^{\mathsf T} < 0` in every entry: all weights :math:`a_i^2` vanish; that is
    ESCAPED.

    The optimisers work in coordinates in which the data are orthonormal, see the module.

    Examples
    --------
    >>> import numpy as np
    >>> from bsr_theory.attention import AttentionRegression, fit
    >>> A1, A2 = np.eye(2), np.array([[1.0], [0.0], [-1.0]])
    >>> B = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    >>> found = fit(AttentionRegression(A1, A2, B))
    >>> found.status.name, found.X.round(6).tolist(), found.init
    ('CONVERGED', [[0.473813], [-1.13394]], 'cross_entropy')
    """
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {', '.join(get_args(Method))}, got {method!r}")
    if method == "trf" and regression.kind == "cross_entropy":
        raise ValueError("method must be 'trust-ncg' or 'L-BFGS-B' for cross_entropy, got 'trf'")
    steps = check_integer("steps", steps)
    tolerance = check("tolerance", tolerance, low=0.0, high=1e-2, open_low=True)
    if np.ndim(tolerance):
        raise ValueError("tolerance must be a scalar, got an array")
    began = time.perf_counter()
    identifiable = _identifiable(regression)
    whiten = identifiable or regression.samples == 1
    steps = int(steps)

    def entropy_start() -> _Found:
        kin = regression.altered(kind="cross_entropy")
        zero = np.zeros(regression.shape)
        return _minimise(kin, zero, "trust-ncg", max(tolerance, 1e-6), steps, whiten)

    used, explained, begun = init, False, 0
    if not isinstance(init, str):
        X, used = regression.weights(init, "init"), "given"
    elif init not in get_args(Init):
        raise ValueError(f"init must be an array or one of {', '.join(get_args(Init))}: {init!r}")
    else:
        X = np.zeros(regression.shape)
        why = _invertible(regression)
        if init == "closed_form" and why:
            raise ValueError(why)
        if init in ("auto", "closed_form") and not why:
            logarithms = _from_logarithms(regression, identifiable)
            explained = _explains(regression, logarithms, _CONSISTENT)
            if explained or init == "closed_form":
                X, used = logarithms, "closed_form"
        negative = bool((regression.B < 0.0).any())
        if init == "cross_entropy" and negative:
            raise ValueError(f"init='cross_entropy' needs B >= 0, got {float(regression.B.min())}")
        if init == "auto" and not explained:
            used = "zero" if negative or regression.kind == "cross_entropy" else "cross_entropy"
        if used == "cross_entropy":
            start = entropy_start()
            X, begun = start.X, start.iterations

    certain = explained and regression.regularization == 0.0
    found = _minimise(regression, X, method, tolerance, steps, whiten, certain)
    status = _ending(regression, found, identifiable)
    overflow = status is Status.OVERFLOW
    return AttentionFit(
        X=found.X,
        loss=np.inf if overflow else regression.loss(found.X),
        status=status,
        gradient_norm=np.inf if overflow else _norm(regression.gradient(found.X)),
        iterations=begun + found.iterations,
        seconds=time.perf_counter() - began,
        init=str(used),
    )
