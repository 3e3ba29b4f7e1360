r"""Convex estimators: nuclear norm, regularised or interpolating, and ridge regression.

With :math:`(\mathcal A S)_\mu = \langle X_\mu, S\rangle/\sqrt{d_1 d_2}` and
:math:`\Lambda = \lambda\sqrt{d_2}`

.. math::
   \hat S = \arg\min_S\; \tfrac12 |y - \mathcal A S|^2 + \Lambda \|S\|_*, \qquad
   \max_u\; y\cdot u - \tfrac12 |u|^2 \;\;\text{s.t.}\;\; \|\mathcal A^T u\|_\mathrm{op} \le \Lambda

are a convex problem and its dual; for :math:`\lambda \to 0` they become

.. math::
   \min_S \|S\|_* \;\;\text{s.t.}\;\; \mathcal A S = y, \qquad
   \max_u\; y\cdot u \;\;\text{s.t.}\;\; \|\mathcal A^T u\|_\mathrm{op} \le 1 .

Any S and any admissible u enclose the optimum: their distance certifies an estimate, whatever
found it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh
from tqdm import tqdm

from .._arrays import Array, check_integer, check_number
from ..design import Design, available_memory
from ..problem import Instance
from ..results import SimulationRun, Status

__all__ = ["ConvexRun", "nuclear_norm", "ridge"]

_EPS = float(np.finfo(np.float64).eps)
_MEMORY = 10  # steps that the extrapolation combines
_RIDGE = 1e-10  # of its least squares, relative
_LESS = 0.999  # an extrapolated step has to shrink the residual that much
_BALANCED = 2.0  # ratio of primal to dual that is left alone
_EVERY = 5  # iterations between two looks at the gap
_EXACT = 1e-9  # gap and infeasibility of a solution without iterations
_WEAK = 1e-8  # penalty over the diagonal of a Gram matrix below which digits are lost
_SHARE = 0.9  # of the free memory that may be asked for


@dataclass(frozen=True, eq=False, kw_only=True)
class ConvexRun(SimulationRun):
    """A convex estimator on one instance, with a certificate that it is the one asked for.

    The fields of `SimulationRun`, and those below.  A direct solution counts as one iteration.

    Attributes
    ----------
    lam : float
        Strength of the penalty.
    objective : float
        What is minimised, at the estimate, per ``d1 d2``; for ``lam = 0`` the norm alone:
        ``||S_hat||_*/(d1 sqrt(d2))``, for ridge regression ``||S_hat||_F^2/(2 d1 d2)``.
    gap : float
        ``objective`` minus a lower bound on its minimum, relative to ``objective``.  The bound is
        the dual objective of a vector u that is admissible, checked with X itself.
    infeasibility : float
        ``|A S_hat - y|/|y|`` for ``lam = 0``, without the part of y that no S explains; 0 for
        ``lam > 0``, where every S is admissible.
    train_loss : float
        ``mean((y - A S_hat)^2)``.
    rank : float
        Rank of the estimate over d1.  That of the last iterate of the singular-value threshold,
        whose other singular values are exactly 0; without any iterate, the share of singular
        values above 1.5e-8 of the largest.
    nuclear_norm : float
        ``||S_hat||_*/(d1 sqrt(d2))``.
    """

    lam: float
    objective: float
    gap: float
    infeasibility: float
    train_loss: float
    rank: float
    nuclear_norm: float


def _error(estimate: Array, S: Array) -> float:
    return float(np.mean((estimate - S) ** 2))


def _overlap(estimate: Array, S: Array) -> float:
    return float(np.mean(estimate * S))


# --------------------------------------------------------------------------------------------
# The linear map
# --------------------------------------------------------------------------------------------


def _blocks(X: Design) -> Iterator[tuple[slice, Array]]:
    """Iterate over the rows of the map A as matrices, in float64 whatever the design holds."""
    scale = 1.0 / np.sqrt(X.shape[1] * X.shape[2])
    for rows, block in X.blocks():
        yield rows, block.reshape(block.shape[0], -1) * np.float64(scale)


def _outputs(X: Design, S: Array) -> Array:
    """Return ``A S``."""
    h = np.empty(X.n)
    for rows, A in _blocks(X):
        h[rows] = A @ S.ravel()
    return h


def _adjoint(X: Design, u: Array) -> Array:
    """Return ``A^T u``, a matrix."""
    total = np.zeros(X.shape[1] * X.shape[2])
    for rows, A in _blocks(X):
        total += u[rows] @ A
    return total.reshape(X.shape[1:])


class _Factors(NamedTuple):
    """``A = U diag(sigma) Q`` without zeros in sigma; U is not kept."""

    Q: Array  # (k, d1 d2), orthonormal rows
    sigma: Array  # (k,)
    labels: Array  # (k,), U^T y
    rest: float  # |y|^2 - |U^T y|^2, what no S explains

    def __call__(self, S: Array) -> Array:
        """Return the coordinates ``Q S``."""
        return self.Q @ S.ravel()

    def lift(self, coordinates: Array, shape: tuple[int, ...]) -> Array:
        """Return ``Q^T coordinates`` as a matrix."""
        return (coordinates @ self.Q).reshape(shape)

    @property
    def interpolation(self) -> Array:
        """Coordinates of every S that fits the labels as well as possible."""
        return self.labels / self.sigma


def _require(n: int, entries: int) -> None:
    """Raise MemoryError when the factors and what forms them do not fit."""
    small = min(n, entries)
    # LAPACK's divide and conquer works with twice the matrix of eigenvectors
    needed = 8.0 * (5.0 * small**2 + (float(n) * entries if n <= entries else small**2))
    free = available_memory()
    if needed > _SHARE * free:
        raise MemoryError(
            f"the singular value decomposition of {n} labels by {entries} entries needs "
            f"{needed / 1e9:.3g} GB, of which {free / 1e9:.3g} GB are free; take a smaller d1"
        )


def _gram(X: Design) -> tuple[Array, Array]:
    """Return A and ``A A^T``, or nothing and ``A^T A`` if that is smaller."""
    n, entries = X.n, X.shape[1] * X.shape[2]
    _require(n, entries)
    if n <= entries:
        A = np.empty((n, entries))
        for rows, block in _blocks(X):
            A[rows] = block
        gram = A @ A.T
    else:
        A = np.empty((0, entries))
        gram = np.zeros((entries, entries))
        for _, block in _blocks(X):
            gram += block.T @ block
    if not np.isfinite(gram).all():
        raise ValueError("X of the instance must be finite")
    return A, gram


def _factor(X: Design, y: Array) -> _Factors:
    """Return the singular value decomposition of A, from the smaller of its Gram matrices."""
    n, entries = X.n, X.shape[1] * X.shape[2]
    A, gram = _gram(X)
    square, vectors = eigh(gram, driver="evd", overwrite_a=True, check_finite=False)
    del gram
    known = square > 32.0 * _EPS * max(square[-1], 0.0)
    sigma = np.sqrt(square[known])
    if n > entries:
        Q = np.ascontiguousarray(vectors.T[known])
        labels = Q @ _adjoint(X, y).ravel() / sigma
        return _Factors(Q, sigma, labels, max(float(y @ y - labels @ labels), 0.0))
    U = vectors[:, known]
    Q = A[: sigma.size]  # in place, some columns at a time
    for start in range(0, entries, 256):
        part = slice(start, start + 256)
        Q[:, part] = (U.T @ A[:, part]) / sigma[:, None]
    labels = U.T @ y
    rest = y - U @ labels if sigma.size < n else np.zeros(n)
    return _Factors(Q, sigma, labels, float(rest @ rest))


# --------------------------------------------------------------------------------------------
# The certificate
# --------------------------------------------------------------------------------------------


def _norms(S: Array) -> tuple[float, float]:
    """Return the operator norm and the nuclear norm."""
    sigma = np.linalg.svd(S, compute_uv=False)
    return float(sigma[0]), float(sigma.sum())


def _dual(product: float, square: float, norm: float, penalty: float) -> float:
    """Return the best value of the dual problem on the ray of u.

    From ``product = y.u``, ``square = |u|^2``, ``norm = ||A^T u||_op`` and the penalty Lambda.
    """
    if product <= 0.0:
        return 0.0
    if penalty == 0.0:
        return product / norm if norm > 0.0 else 0.0
    scale = min(product / square, penalty / norm if norm > 0.0 else np.inf)
    return scale * product - 0.5 * scale**2 * square


def _primal(square: float, nuclear: float, penalty: float) -> float:
    """Return the objective from ``square = |y - A S|^2`` and the nuclear norm of S."""
    if penalty == 0.0:
        return nuclear
    return 0.5 * square + (penalty * nuclear if nuclear > 0.0 else 0.0)


def _relative(value: float, reference: float) -> float:
    """Return value/reference, where 0/0 is 0."""
    return value / reference if value != 0.0 else 0.0


class _Certificate(NamedTuple):
    """What an estimate is worth, from X, y, the estimate and a dual vector alone."""

    objective: float
    gap: float
    residual: Array  # y - A S


def _certify(X: Design, y: Array, S: Array, penalty: float, u: Array) -> _Certificate:
    """Return objective and gap of S, in the unit of the head of the module.

    Scaling makes u admissible.
    """
    residual = y - _outputs(X, S)
    norm = _norms(_adjoint(X, u))[0]
    bound = _dual(float(y @ u), float(u @ u), norm, penalty)
    objective = _primal(float(residual @ residual), _norms(S)[1], penalty)
    return _Certificate(objective, _relative(objective - bound, objective), residual)


def _infeasibility(X: Design, y: Array, residual: Array, factors: _Factors) -> float:
    """Return the norm of the part of the residual that some S explains, relative to y."""
    if factors.sigma.size < X.n:
        residual = factors(_adjoint(X, residual)) / factors.sigma
    return _relative(float(np.linalg.norm(residual)), float(np.linalg.norm(y)))


def _refine(X: Design, y: Array, S: Array, factors: _Factors, shift: float = 0.0) -> Array:
    """Take the last digits of ``(A^T A + shift) S = A^T y`` from X itself, on the range of A^T."""
    for _ in range(2):
        gradient = _adjoint(X, y - _outputs(X, S)) - shift * S
        S = S + factors.lift(factors(gradient) / (factors.sigma**2 + shift), S.shape)
    return S


def _preimage(X: Design, W: Array, factors: _Factors) -> Array:
    """Return the u in the range of A for which ``A^T u = W``, W in the range of A^T."""
    u = np.zeros(X.n)
    for _ in range(3):
        missing = factors(W - _adjoint(X, u)) / factors.sigma**2
        u = u + _outputs(X, factors.lift(missing, W.shape))
    return u


# --------------------------------------------------------------------------------------------
# Splitting
# --------------------------------------------------------------------------------------------


def _threshold(Z: Array, by: float) -> tuple[Array, Array]:
    """Return ``U (sigma - by)_+ V^T``, what minimises ``|S - Z|^2/2 + by ||S||_*``, and (..)_+."""
    left, sigma, right = np.linalg.svd(Z, full_matrices=False)
    kept = np.maximum(sigma - by, 0.0)
    return (left * kept) @ right, kept


def _fit(factors: _Factors, V: Array, step: float, penalty: float) -> Array:
    """Return the coordinates of what is added to V by the fit to the labels.

    ``S = V + Q^T(..)`` minimises ``|S - V|^2/2 + step |y - A S|^2/2``, without a penalty
    ``|S - V|^2/2`` among the S that interpolate.
    """
    here, sigma = factors(V), factors.sigma
    if penalty == 0.0:
        return factors.interpolation - here
    slack = factors.labels - sigma * here
    moved: Array = slack * (step * sigma / (1.0 + step * sigma**2))
    return moved


@dataclass
class _Extrapolation:
    """Anderson's combination of the last steps of an iteration ``Z -> Z + F(Z)``, with a guard.

    An extrapolated point is kept if it shrinks F; if not, the plain step is taken from where the
    extrapolation began, which never lets F grow, and the memory starts afresh.  So F tends to 0.
    """

    points: list[Array] = field(default_factory=list)
    moves: list[Array] = field(default_factory=list)
    plain: Array | None = None
    size: float = np.inf

    def forget(self) -> None:
        """Start afresh."""
        self.points, self.moves, self.plain, self.size = [], [], None, np.inf

    def next(self, Z: Array, F: Array) -> Array:
        """Return where to go from Z."""
        size = float(np.linalg.norm(F))
        if self.plain is not None and not size <= _LESS * self.size:
            back = self.plain
            self.forget()
            return back
        self.size = size
        self.points = [*self.points[-_MEMORY:], Z.ravel()]
        self.moves = [*self.moves[-_MEMORY:], F.ravel()]
        self.plain = None
        if len(self.moves) == 1:
            return Z + F
        dF, dZ = np.diff(self.moves, axis=0), np.diff(self.points, axis=0)
        normal = dF @ dF.T
        normal[np.diag_indices_from(normal)] += _RIDGE * np.trace(normal)
        if normal[0, 0] == 0.0:
            return Z + F
        weights = np.linalg.solve(normal, dF @ self.moves[-1])
        self.plain = Z + F
        extrapolated: Array = self.plain - (weights @ (dZ + dF)).reshape(Z.shape)
        return extrapolated


class _Solution(NamedTuple):
    """Where an iteration ended."""

    estimate: Array
    rank: float
    errors: list[float]
    overlaps: list[float]
    subgradient: Array  # A^T u of the dual vector u


def _direct(estimate: Array, truth: Array, start: Array | None) -> _Solution:
    """Return a solution that took one step."""
    pair = (np.zeros(truth.shape) if start is None else start, estimate)
    left, sigma, right = np.linalg.svd(estimate, full_matrices=False)
    rank = float(np.mean(sigma > np.sqrt(_EPS) * sigma[0]))
    errors, overlaps = [_error(S, truth) for S in pair], [_overlap(S, truth) for S in pair]
    return _Solution(estimate, rank, errors, overlaps, left @ right)


def _begin(factors: _Factors, S: Array, penalty: float, longest: float) -> tuple[Array, float]:
    """Return ``Z = S + step G`` and the step, with G near the subgradient of the norm at S."""
    radius = penalty or 1.0
    if penalty == 0.0:
        left, _, right = np.linalg.svd(S, full_matrices=False)
        G = left @ right
    else:
        sigma = factors.sigma
        G = factors.lift(sigma * (factors.labels - sigma * factors(S)), S.shape)
        norm = _norms(G)[0]
        G *= radius / max(norm, radius)
    size = float(np.linalg.norm(S)) or float(np.linalg.norm(factors.interpolation))
    step = min(2.0 * size / (radius * float(np.sqrt(min(S.shape)))), longest)
    return S + step * G, step


def _split(
    factors: _Factors,
    truth: Array,
    start: Array,
    penalty: float,
    steps: int,
    tolerance: float,
    progress: bool,
) -> _Solution:
    r"""Solve by Douglas and Rachford's splitting between the norm and the fit.

    .. math::
       S = T_{\theta\Lambda}(Z), \qquad
       R = \arg\min_R \tfrac12 |R - 2S + Z|^2 + \tfrac{\theta}{2} |y - \mathcal A R|^2, \qquad
       Z \leftarrow Z + R - S

    with the step theta that balances S and theta times its subgradient ``(Z - S)/theta``.
    """
    radius = penalty or 1.0
    # where the fit alone determines S it also bounds the step, however weak the penalty is
    determined = factors.sigma.size == start.size
    longest = 1.0 / (factors.sigma[0] * factors.sigma[-1]) if determined else np.inf
    Z, step = _begin(factors, start, penalty, longest)
    errors, overlaps = [_error(start, truth)], [_overlap(start, truth)]
    anderson, look = _Extrapolation(), 1
    for k in tqdm(range(1, steps + 1), desc="nuclear norm", disable=not progress):
        S, kept = _threshold(Z, step * radius)
        V = 2.0 * S - Z
        moved = _fit(factors, V, step, penalty)
        correction = factors.lift(moved, S.shape)
        R = V + correction
        estimate = R if penalty == 0.0 else S
        errors.append(_error(estimate, truth))
        overlaps.append(_overlap(estimate, truth))
        if tolerance > 0.0 and (k % _EVERY == 0 or k == 1):
            if penalty == 0.0:
                objective = _norms(R)[1]
                product = float(factors.interpolation @ moved)
                bound = _dual(product, 1.0, _norms(correction)[0], 0.0)
            else:
                left = factors.labels - factors.sigma * factors(S)
                objective = _primal(float(left @ left) + factors.rest, float(kept.sum()), penalty)
                u = moved / (step * factors.sigma)  # y - A R
                product = float(factors.labels @ u) + factors.rest
                square = float(u @ u) + factors.rest
                bound = _dual(product, square, _norms(correction)[0] / step, penalty)
            # half of the tolerance: what is reported is calculated again from X
            if objective - bound <= 0.5 * tolerance * objective:
                break
        F = R - S
        if k >= look:
            look = max(k + 2, 3 * k // 2)
            primal, dual = float(np.linalg.norm(S)), float(np.linalg.norm(Z - S))
            ratio = primal / dual if dual > 0.0 else 1.0
            ratio = min(max(ratio, 0.1), 10.0, longest / step)
            if not 1.0 / _BALANCED <= ratio <= _BALANCED:
                Z = S + ratio * (Z - S + F)
                step *= ratio
                anderson.forget()
                continue
        Z = anderson.next(Z, F)
    rank = float(np.mean(kept > 0.0))
    return _Solution(estimate, rank, errors, overlaps, correction / step)


# --------------------------------------------------------------------------------------------
# The estimators
# --------------------------------------------------------------------------------------------


def _solve_ridge(factors: _Factors, lam: float, shape: tuple[int, ...]) -> Array:
    """Return ``(A^T A + lam)^-1 A^T y``, for lam = 0 with the pseudo-inverse."""
    sigma = factors.sigma
    return factors.lift(factors.labels / (sigma + lam / sigma), shape)


def _solve_well_conditioned_ridge(X: Design, y: Array, lam: float) -> Array | None:
    """Return ``(A^T A + lam)^-1 A^T y`` from a Cholesky factor, or None if lam is too weak."""
    A, gram = _gram(X)
    if lam < _WEAK * float(np.max(np.diagonal(gram))):
        return None
    gram[np.diag_indices_from(gram)] += lam
    factor = cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)
    shape = X.shape[1:]
    if X.n <= A.shape[1]:
        u = cho_solve(factor, y, check_finite=False)
        for _ in range(2):  # digits that the Gram matrix has lost
            missing = y - A @ (u @ A) - lam * u
            u = u + cho_solve(factor, missing, check_finite=False)
        return np.asarray((u @ A).reshape(shape))
    S = np.zeros(shape)
    for _ in range(3):
        gradient = _adjoint(X, y - _outputs(X, S)) - lam * S
        S = S + cho_solve(factor, gradient.ravel(), check_finite=False).reshape(shape)
    return S


def _first(instance: Instance, start: Any) -> Array | None:
    """Return the start as a matrix."""
    if start is None:
        return None
    estimate = np.array(start, dtype=np.float64)
    if estimate.shape != instance.S.shape or not np.isfinite(estimate).all():
        raise ValueError(
            f"start must be None or finite of shape {instance.S.shape}, got shape {estimate.shape}"
        )
    return estimate


def _report(
    instance: Instance,
    solution: _Solution,
    factors: _Factors | None,
    certificate: _Certificate,
    lam: float,
    tolerance: float,
    began: float,
) -> ConvexRun:
    """Return the run; the objective of the certificate is in its final unit."""
    X, y, truth, estimate = instance.X, instance.y, instance.S, solution.estimate
    residual = certificate.residual
    distance = 0.0 if factors is None or lam > 0.0 else _infeasibility(X, y, residual, factors)
    good = max(abs(certificate.gap), distance) <= tolerance
    return ConvexRun(
        mse=np.array([*solution.errors[:-1], _error(estimate, truth)]),
        overlap=np.array([*solution.overlaps[:-1], _overlap(estimate, truth)]),
        estimate=estimate,
        status=Status.CONVERGED if good else Status.NOT_CONVERGED,
        lam=lam,
        objective=certificate.objective,
        gap=certificate.gap,
        infeasibility=distance,
        train_loss=float(np.mean(residual**2)),
        rank=solution.rank,
        nuclear_norm=_norms(estimate)[1] / (truth.shape[0] * float(np.sqrt(truth.shape[1]))),
        seconds=time.perf_counter() - began,
    )


def nuclear_norm(
    instance: Instance,
    lam: float = 0.0,
    *,
    steps: int = 5000,
    tolerance: float = 1e-6,
    start: Any = None,
    progress: bool = False,
) -> ConvexRun:
    r"""Estimate S by least squares with a nuclear norm penalty.

    .. math:: \hat S = \arg\min_S \frac12 \sum_\mu
              \Big(y_\mu - \frac{\langle X_\mu, S\rangle}{\sqrt{d_1 d_2}}\Big)^2
              + \lambda \sqrt{d_2}\, \|S\|_*

    Parameters
    ----------
    instance : Instance
        X, y and the problem; S is used to report errors, not to find the estimate.  The law of
        the labels is not used either: whatever y is, the loss is the squared one.
    lam : float
        Strength of the penalty, in [0, inf).  0 is the limit ``lam -> 0``: among the S that fit
        the labels as well as possible, which for ``alpha <= 1`` is exactly, the one of smallest
        nuclear norm; for ``alpha >= 1`` there is but one, that of least squares.
    steps : int
        Largest number of iterations, at least 1.
    tolerance : float
        The run has converged when the certified `ConvexRun.gap` and the `ConvexRun.infeasibility`
        are at most that.  0 runs all the steps.
    start : None or array_like, shape (d1, d2)
        First estimate, for instance that of a neighbouring lam; None starts from ridge regression
        with the same lam.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    ConvexRun
        With `Status.CONVERGED` or NOT_CONVERGED.

    Raises
    ------
    ValueError
        If an argument is out of its range or X is not finite.
    MemoryError
        If the factors of X do not fit; nothing has been allocated then.

    Notes
    -----
    A is factored once, ``A = U diag(sigma) Q``, from its smaller Gram matrix: 2 s at
    ``d1 = d2 = 60, alpha = 0.5``, growing with the sixth power of d1, in ``8 n d1 d2`` bytes
    (streamed and memory-mapped designs too).  Then every step of Douglas and Rachford's splitting
    [1]_, for any lam and any length of the step, costs two products with Q and a singular value
    decomposition.  Steps are extrapolated by Anderson's method, guarded so that the residual never
    grows.

    The estimate for ``lam = 0`` satisfies the labels to rounding; for ``lam > 0`` it is an exact
    output of the singular-value threshold, of exact rank.  The gap is recalculated from X, the
    estimate and a dual vector, in float64 whatever the dtype of X.

    References
    ----------
    .. [1] J. Eckstein and D. P. Bertsekas, "On the Douglas-Rachford splitting method and the
       proximal point algorithm for maximal monotone operators", Math. Program. 55 (1992) 293.

    Examples
    --------
    >>> import bsr_theory as bsr
    >>> from bsr_theory.simulations import nuclear_norm
    >>> problem = bsr.bilinear_regression(alpha=0.8, beta=1.0, rho=0.2)
    >>> run = nuclear_norm(problem.sample(d1=20, rng=1))
    >>> run.status.name, run.rank, bool(run.gap <= 1e-6), bool(run.mse[-1] < 1e-8)
    ('CONVERGED', 0.2, True, True)
    """
    steps = check_integer("steps", steps)
    lam, tolerance = check_number("lam", lam), check_number("tolerance", tolerance)
    first = _first(instance, start)
    began = time.perf_counter()
    X, y, truth = instance.X, instance.y, instance.S
    shape = truth.shape
    with np.errstate(over="ignore"):
        penalty = float(np.sqrt(shape[1]) * lam)
    factors = _factor(X, y)
    if _norms(_adjoint(X, y))[0] <= penalty:
        solution, u = _direct(np.zeros(shape), truth, first), y
    else:
        if penalty == 0.0 and factors.sigma.size == truth.size:
            solution = _direct(factors.lift(factors.interpolation, shape), truth, first)
        else:
            first = _solve_ridge(factors, lam, shape) if first is None else first
            solution = _split(factors, truth, first, penalty, int(steps), tolerance, progress)
        u = _preimage(X, solution.subgradient, factors)
        if penalty == 0.0:
            solution = solution._replace(estimate=_refine(X, y, solution.estimate, factors))
        elif factors.sigma.size < X.n:
            # what no S explains belongs to the residual, hence to u, and A^T does not see it
            u = u + y - _outputs(X, _refine(X, y, _solve_ridge(factors, 0.0, shape), factors))
    certificate = _certify(X, y, solution.estimate, penalty, u)
    unit = truth.size if penalty > 0.0 else shape[0] * float(np.sqrt(shape[1]))
    certificate = certificate._replace(objective=certificate.objective / unit)
    return _report(instance, solution, factors, certificate, lam, tolerance, began)


def ridge(instance: Instance, lam: float = 0.0) -> ConvexRun:
    r"""Estimate S by ridge regression.

    .. math:: \hat S = \arg\min_S \frac12 \sum_\mu
              \Big(y_\mu - \frac{\langle X_\mu, S\rangle}{\sqrt{d_1 d_2}}\Big)^2
              + \frac{\lambda}{2} \|S\|_F^2

    Parameters
    ----------
    instance : Instance
        X, y and the problem; S is used to report errors, not to find the estimate.
    lam : float
        Strength of the penalty, in [0, inf).  0 is the limit ``lam -> 0``: the S of smallest
        Frobenius norm among those that fit the labels as well as possible (pseudo-inverse).

    Returns
    -------
    ConvexRun
        With `Status.CONVERGED`, or NOT_CONVERGED when the equations are so badly conditioned that
        the gap or the infeasibility exceeds 1e-9.

    Raises
    ------
    ValueError
        If lam is out of its range or X is not finite.
    MemoryError
        If the factors of X do not fit; nothing has been allocated then.

    Notes
    -----
    The smaller Gram matrix of A takes a Cholesky factorisation, or, for ``lam = 0`` and a lam below
    1e-8 of its diagonal, a spectral decomposition, as for `nuclear_norm`; memory is that of the
    latter.  The estimate is refined with X itself; with the residual as dual vector the gap is
    ``|A^T(y - A S_hat) - lam S_hat|^2/(2 lam)``.

    Examples
    --------
    >>> import bsr_theory as bsr
    >>> from bsr_theory.simulations import ridge
    >>> problem = bsr.bilinear_regression(alpha=0.5, beta=2.0, rho=0.5, delta=0.1)
    >>> run = ridge(problem.sample(d1=20, rng=0), lam=0.1)
    >>> run.status.name, bool(abs(run.mse[-1] - 0.5742) < 0.1)
    ('CONVERGED', True)
    """
    lam = check_number("lam", lam)
    began = time.perf_counter()
    X, y, truth = instance.X, instance.y, instance.S
    shape = truth.shape
    solved = _solve_well_conditioned_ridge(X, y, lam) if lam > 0.0 else None
    factors = None
    if solved is None:
        factors = _factor(X, y)
        solved = _refine(X, y, _solve_ridge(factors, lam, shape), factors, lam)
    estimate = solved
    residual = y - _outputs(X, estimate)
    if lam > 0.0 or factors is None:
        objective = 0.5 * float(residual @ residual + lam * np.sum(estimate**2))
        slack = float(np.sum((_adjoint(X, residual) - lam * estimate) ** 2)) / (2.0 * lam)
    else:
        objective = 0.5 * float(np.sum(estimate**2))
        u = _preimage(X, estimate, factors)
        slack = 0.5 * float(np.sum((_adjoint(X, u) - estimate) ** 2))
    certificate = _Certificate(objective / truth.size, _relative(slack, objective), residual)
    solution = _direct(estimate, truth, None)
    return _report(instance, solution, factors, certificate, lam, _EXACT, began)
