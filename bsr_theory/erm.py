r"""Convex estimators of S: ridge, nuclear norm, and thresholding of singular values.

In the limit a convex spectral penalty estimates S as if it saw :math:`Y=S+\sqrt s\,Z` and applied
one scalar function f to the singular values :math:`y` of :math:`Y/\sqrt{d_2}`.  The noise s and
the strength of f solve

.. math:: \alpha s = \Delta + E(s), \qquad
          E(s) = \int\rho\,(f-y)^2 - s + 2 s D, \qquad D = \int\rho\,f\,h,

with :math:`\rho` the law of y and :math:`y-s\,h(y)` the optimal denoiser: only the function of the
Bayes estimator of arXiv:2410.18858 has been replaced.  The theory page of the documentation on
convex estimators derives this and gives all conventions; the equations are exact predictions for
the convex problem, not for an algorithm.

All that is asked of the law of S is a table of rho and h at a noise s.  Two Gaussian factors have
them in closed form; a prior that knows the singular values of S (`SingularValues`) has them from
the subordination curve, at nodes that serve every threshold.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from ._arrays import Array, Numeric, broadcast, check, replace, run_blocks, scalar_or_array
from ._kernels import estimators
from .channels import GaussianChannel, SignChannel
from .priors import GaussianFactorPrior, Prior, SymmetricSignal
from .problem import Problem
from .results import OnFailure, Status, report_failures
from .rotational import without_symmetry

__all__ = [
    "ClassifierEstimate",
    "ConvexEstimate",
    "SingularValues",
    "ThresholdEstimate",
    "hard_threshold",
    "nuclear_norm",
    "nuclear_norm_threshold",
    "ridge",
    "soft_threshold",
]

_NEAR = 1e-2  # relative distance to perfect recovery inside which differences are extrapolated
_MANY = 1e40  # aspect ratio that counts as infinite
_SQUARE = 1e-13  # beta - 1 that counts as 0
_CLOSE = 1e-6  # distance inside which the threshold is needed beyond double precision
_DIGITS = 34
_FAINT = 1e-290  # penalty per label that counts as 0
_SEEN = 1e290  # noise from which on that of its square root is a matter of units
_DROWNED = 1e30  # noise, in units of S, in which it is not seen any more

_Estimate = TypeVar("_Estimate")
Loss = Literal["squared", "logistic", "hinge"]
_LOSSES = {
    "squared": estimators.SQUARED,
    "logistic": estimators.LOGISTIC,
    "hinge": estimators.HINGE,
}


@dataclass(frozen=True)
class ConvexEstimate:
    """What a convex estimator achieves, or an array of such points.

    Attributes
    ----------
    mse : float or ndarray
        Error per entry, ``||S_hat - S||^2/(d1 d2)``; plus ``delta`` it is the error on new labels.
    overlap : float or ndarray
        ``<S, S_hat>/(d1 d2)``.
    norm : float or ndarray
        ``||S_hat||^2/(d1 d2)``.
    rank : float or ndarray
        Rank of S_hat over d1.
    nuclear_norm : float or ndarray
        Sum of the singular values of S_hat over ``d1 sqrt(d2)``.
    train_loss : float or ndarray
        ``(1/n) sum_mu (y_mu - <X_mu, S_hat>/sqrt(d1 d2))^2``.
    effective_noise : float or ndarray
        Noise s per entry of the matrix that the estimator thresholds in effect.
    threshold : float or ndarray
        Strength of the proximal map on the singular values y: tau of ``(y - tau)_+`` for the
        nuclear norm, theta of ``y/(1 + theta)`` for ridge.
    lam : float or ndarray
        Penalty, also when it was asked for as "optimal".
    residual : float or ndarray
        ``|alpha s/(delta + mse) - 1|``: how well the equations hold.
    iterations : int or ndarray
        Noises s at which the equations were evaluated.
    status : Status or ndarray
        One `Status` a point.
    """

    mse: Any
    overlap: Any
    norm: Any
    rank: Any
    nuclear_norm: Any
    train_loss: Any
    effective_noise: Any
    threshold: Any
    lam: Any
    residual: Any
    iterations: Any
    status: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the fields, () for a scalar problem."""
        return np.shape(self.mse)


@dataclass(frozen=True)
class ClassifierEstimate(ConvexEstimate):
    """What a convex estimator achieves on labels -1 and 1, or an array of such points.

    The fields of `ConvexEstimate`, with S_hat as it comes out of the minimisation: its scale is
    that of the loss, and ``mse`` counts a wrong scale as an error.  ``train_loss`` is the mean
    loss of a label, and S_hat is a multiple of what thresholding at ``threshold`` makes of
    ``S + sqrt(effective_noise) Z``.

    Attributes
    ----------
    cosine : float or ndarray
        ``<S, S_hat>/(||S|| ||S_hat||)``; NaN where the estimate is 0.
    label_error : float or ndarray
        Probability that ``sign(<X, S_hat>)`` is not a new label; 1/2 where the estimate is 0.
    """

    cosine: Any
    label_error: Any


@dataclass(frozen=True)
class ThresholdEstimate:
    """What thresholding the singular values of ``S + sqrt(s) Z`` achieves.

    Attributes
    ----------
    mse : float or ndarray
        Error per entry, ``||S_hat - S||^2/(d1 d2)``.
    overlap : float or ndarray
        ``<S, S_hat>/(d1 d2)``.
    norm : float or ndarray
        ``||S_hat||^2/(d1 d2)``.
    rank : float or ndarray
        Rank of S_hat over d1.
    nuclear_norm : float or ndarray
        Sum of the singular values of S_hat over ``d1 sqrt(d2)``.
    divergence : float or ndarray
        ``sum_ij d S_hat_ij/d Y_ij`` over ``d1 d2``.
    threshold : float or ndarray
        The threshold on the singular values y of ``Y/sqrt(d2)``.
    """

    mse: Any
    overlap: Any
    norm: Any
    rank: Any
    nuclear_norm: Any
    divergence: Any
    threshold: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the fields, () for scalar parameters."""
        return np.shape(self.mse)


# --------------------------------------------------------------------------------------------
# What is asked of a prior
# --------------------------------------------------------------------------------------------


@runtime_checkable
class SingularValues(Protocol):
    """A prior that knows the singular values of S and nothing else, of one law for all points."""

    @property
    def rank(self) -> float:
        """Share of singular values that are not 0: the rank of S over d1."""

    @property
    def second_moment(self) -> float:
        """``||S||^2/(d1 d2)``."""

    def unit_source(self) -> Any:
        """Return the law, scaled to second moment 1, as the compiled loops read it."""


@dataclass(frozen=True)
class _Signal:
    """What the compiled loops are told about S; see ``Signal`` there."""

    beta: Any
    rho: Any
    source: Any = None
    variance: float = 1.0  # of the entries of S; the loops are about variance 1


def _rectangular(problem: Problem) -> Prior:
    """Return the prior as estimators see it that are over all matrices."""
    prior = problem.prior
    return without_symmetry(prior) if isinstance(prior, SymmetricSignal) else prior


def _columns(beta: Any) -> Any:
    """Return the aspect ratio, infinite or 1 where numbers would not tell the difference."""
    ratio = np.asarray(beta)
    ratio = np.where((ratio >= 1.0) & (ratio < 1.0 + _SQUARE), 1.0, ratio)
    return scalar_or_array(np.where(ratio > _MANY, np.inf, ratio))


def _read_prior(prior: Prior, what: str) -> _Signal:
    if isinstance(prior, GaussianFactorPrior):
        return _Signal(_columns(prior.beta), prior.rho)
    if isinstance(prior, SingularValues):
        return _Signal(_columns(prior.beta), prior.rank, prior.unit_source(), prior.second_moment)
    raise ValueError(
        f"prior must be a GaussianFactorPrior or a RotationallyInvariantPrior for {what}, "
        f"got {prior!r}"
    )


# --------------------------------------------------------------------------------------------
# What the two regressions share
# --------------------------------------------------------------------------------------------


def _read_penalty(lam: Any) -> tuple[Any, bool]:
    """Return (penalty, whether it is to be optimised)."""
    if isinstance(lam, str):
        if lam != "optimal":
            raise ValueError(f'lam must be a number >= 0 or "optimal", got {lam!r}')
        return 0.0, True
    return check("lam", lam, low=0.0, allow_inf=False), False


def _read_problem(problem: Problem) -> GaussianChannel:
    _require_alpha(problem)
    if not isinstance(problem.channel, GaussianChannel):
        raise ValueError(
            f"channel must be a GaussianChannel for the squared loss, got {problem.channel!r}"
        )
    return problem.channel


def _require_alpha(problem: Problem) -> None:
    if problem.alpha is None:
        raise ValueError("alpha must be given (a number or an array), got None")


def _flat(value: Any, shape: tuple[int, ...]) -> Array:
    array = np.broadcast_to(np.asarray(value, dtype=np.float64), shape)
    return np.ascontiguousarray(array).ravel()


# The power of the variance of the entries by which a field scales.
_POWERS = {"mse": 1.0, "overlap": 1.0, "norm": 1.0, "nuclear_norm": 0.5, "train_loss": 1.0,
           "effective_noise": 1.0, "threshold": 0.5, "lam": 0.5}  # fmt: skip


def _rescaled(estimate: _Estimate, variance: float, **powers: float) -> _Estimate:
    """Return the estimate of an S with entries of another variance."""
    if variance == 1.0:
        return estimate
    changes = {
        name: getattr(estimate, name) * variance**power
        for name, power in (_POWERS | powers).items()
        if hasattr(estimate, name)
    }
    return replace(estimate, **changes)


def _estimate(
    columns: list[Array], calls: Array, status: npt.NDArray[np.int64], shape: tuple[int, ...]
) -> ConvexEstimate:
    """Return the result whose float fields are ``columns``, in their order."""
    names = [field.name for field in dataclasses.fields(ConvexEstimate)]
    values = [scalar_or_array(column.reshape(shape)) for column in columns]
    codes = status.reshape(shape)
    values.append(scalar_or_array(calls.astype(np.int64).reshape(shape)))
    values.append(codes if codes.ndim else Status(codes.item()))
    return ConvexEstimate(**dict(zip(names, values, strict=True)))


# --------------------------------------------------------------------------------------------
# Ridge
# --------------------------------------------------------------------------------------------


def ridge(
    problem: Problem,
    *,
    lam: Numeric | Literal["optimal"] = 0.0,
    on_failure: OnFailure = "warn",
) -> ConvexEstimate:
    r"""Return what ridge regression achieves.

    The estimator minimises
    ``(1/2) sum_mu (y_mu - <X_mu, S>/sqrt(d1 d2))^2 + (lam/2) ||S||_F^2``.

    Parameters
    ----------
    problem : Problem
        Any prior, with a `GaussianChannel`; ``alpha`` must be given.  The minimum is over all
        matrices, also when S is symmetric.
    lam : float, array_like or "optimal"
        Penalty in [0, inf).  0 is its limit, the least-squares solution of minimal norm;
        "optimal" the penalty of least error, ``lam = delta`` over the variance of the entries.
    on_failure : {"warn", "raise", "return"}
        What to do about invalid elements.

    Returns
    -------
    ConvexEstimate
        ``nuclear_norm`` is NaN for a prior that does not know its singular values.

    Raises
    ------
    ValueError
        If ``problem.alpha`` is None, the channel is not Gaussian, alpha is not ``n/(d1 d2)`` for
        the prior, or lam is out of its range.

    Notes
    -----
    The proximal map divides every singular value by ``1 + theta = 1/D``; the divergence D is the
    smaller root of :math:`D^2-(1+\alpha+\lambda)D+\alpha=0`, and

    .. math:: E = \frac{\alpha(1-D)^2+\Delta D^2}{\alpha-D^2} .

    The structure of S does not enter.  At ``alpha = 1, lam = 0`` and with noise the error is
    infinite.

    References
    ----------
    T. Hastie, A. Montanari, S. Rosset, R. J. Tibshirani, arXiv:1903.08560.

    Examples
    --------
    >>> import bsr_theory as bsr
    >>> from bsr_theory import erm
    >>> problem = bsr.bilinear_regression(alpha=0.5, beta=2.0, rho=0.5, delta=0.1)
    >>> round(erm.ridge(problem, lam="optimal").mse, 10)
    0.5741657387
    """
    channel, prior = _read_problem(problem), _rectangular(problem)
    if np.any(np.asarray(prior.snr_per_alpha) != 1.0) or np.any(prior.prior_overlap):
        raise ValueError(f"prior must be one with alpha = n/(d1 d2) and mean 0, got {prior!r}")
    known = isinstance(prior, GaussianFactorPrior | SingularValues)
    variance = float(prior.second_moment)
    penalty, best = _read_penalty(lam)
    if best:
        penalty = np.asarray(channel.delta) / variance
    shape = broadcast(problem=np.empty(problem.shape), lam=penalty)
    alpha, delta, penalties = (
        _flat(x, shape) for x in (problem.alpha, np.asarray(channel.delta) / variance, penalty)
    )
    with np.errstate(all="ignore"):
        # in units of the largest of 1, alpha and lam: D total/2 = a, alpha - D^2 = D root;
        # (1 - D)(alpha - D) = lam D gives the smaller of 1 - D and 1 - D/alpha from the larger
        unit = np.maximum(np.maximum(alpha, penalties), 1.0)
        a, strength, noise = alpha / unit, penalties / unit, delta / unit
        both, apart = 1.0 / unit + a, np.abs(1.0 - alpha) / unit
        root = np.hypot(apart, np.sqrt(strength) * np.sqrt(2.0 * both + strength))
        total = both + strength + root
        D, D_per_alpha = 2.0 * a / total, 2.0 / total / unit
        larger = (apart + strength + root) / total
        smaller = np.where(strength > 0.0, 2.0 * strength / total / larger, 0.0 * strength)
        lost, free = np.where(alpha < 1.0, (larger, smaller), (smaller, larger))
        mse = (lost**2 * (0.5 * total) + noise * D) / root
        mse = np.where((root == 0.0) & (delta == 0.0), 0.0, mse)
        s = (delta + mse) / alpha
        spread = np.sqrt(alpha) * np.sqrt(delta + mse) * D_per_alpha  # D sqrt(s)
        train = np.where(np.isinf(mse) | (free == 0.0), 0.0, (np.sqrt(delta + mse) * free) ** 2)
    rank = np.where(np.isnan(mse), np.nan, 1.0)
    nuclear = np.full(mse.shape, np.nan)
    perfect = (mse == 0.0) & (delta == 0.0) & (penalties == 0.0) & (alpha >= 1.0)
    bad = np.isnan(mse)
    if known:
        signal = _read_prior(prior, "ridge")
        beta, rho = _flat(signal.beta, shape), _flat(signal.rho, shape)
        mean = np.empty(mse.shape)
        kernel = estimators.mean_singular_value_array
        # beyond, the mean of y grows like sqrt(s)
        seen = np.minimum(s, _SEEN)
        run_blocks(lambda b: kernel(signal.source, beta[b], rho[b], seen[b], mean[b]), mse.size)
        with np.errstate(invalid="ignore"):
            nuclear = np.where(s > _SEEN, spread * (mean / math.sqrt(_SEEN)), D * mean)
        rank = np.where(perfect, np.minimum(rho, 1.0), rank)
        bad |= np.isnan(mean)
    status = np.where(perfect, int(Status.PERFECT_RECOVERY), int(Status.CONVERGED))
    status = np.where(bad, int(Status.INVALID_INPUT), status)
    with np.errstate(all="ignore"):
        threshold, norm = lost / D, D**2 + spread**2
    columns = [mse, D, norm, rank, nuclear, train, s, threshold, penalties, np.zeros_like(mse)]
    columns = [np.where(bad, np.nan, x) for x in columns]
    report_failures(status, on_failure)
    found = _estimate(columns, np.zeros(status.size), status, shape)
    return _rescaled(found, variance, threshold=0.0, lam=0.0)


# --------------------------------------------------------------------------------------------
# Nuclear norm
# --------------------------------------------------------------------------------------------


def _recovery(beta: Array, rho: Array) -> Array:
    """Return (alpha_star, 1 - alpha_star, scaled singular-value threshold) along the last axis."""
    out = np.empty((rho.size, 3))
    run_blocks(lambda b: estimators.recovery_array(beta[b], rho[b], out[b]), rho.size)
    return out


@functools.lru_cache(maxsize=4096)
def _threshold_tail(beta: float, rho: float) -> tuple[float, float]:
    """Return the perfect-recovery threshold as a sum of two doubles, for rho < 1.

    The risk of soft thresholding at small noise, integrated to 30 digits at the threshold found
    in double precision: it is least there, so that the error of that threshold does not show.
    """
    import mpmath

    with mpmath.mp.workdps(_DIGITS):
        r, b = mpmath.mpf(rho), mpmath.mpf(beta)
        if beta == np.inf:
            value = r * (2 - r)
        else:
            ratio, K = (1 - r) / (b - r), (1 - r) * (1 - r / b)
            cut = mpmath.mpf(float(_recovery(np.array([beta]), np.array([rho]))[0, 2]))
            # sigma^2 = 1 + ratio - 2 sqrt(ratio) cos(angle) of a Marchenko-Pastur law
            root = mpmath.sqrt(ratio)
            cosine = (1 + ratio - cut * cut) / (2 * root)
            angle = mpmath.acos(max(min(cosine, mpmath.mpf(1)), mpmath.mpf(-1)))

            def moment(k: int, low: Any, high: Any) -> Any:
                def weight(x: Any) -> Any:
                    square = (1 - root) ** 2 + 4 * root * mpmath.sin(x / 2) ** 2
                    return mpmath.sin(x) ** 2 * square ** (mpmath.mpf(k - 2) / 2)

                return 2 / mpmath.pi * mpmath.quad(weight, [low, high]) if high > low else 0

            above = [moment(k, angle, mpmath.pi) for k in (0, 1, 2)]
            square = above[2] - 2 * cut * above[1] + cut**2 * above[0]
            value = r * (1 + (1 - r) / b + (1 - r / b) * cut**2) + K * square
        head = float(value)
        return head, float(value - head)


def _gap(alpha: Array, beta: Array, rho: Array, close: npt.NDArray[np.bool_]) -> Array:
    """Return alpha minus the perfect-recovery threshold, exactly rounded where ``close``."""
    # rho >= 1: the threshold is 1
    star, lack, _ = _recovery(beta, rho).T
    gap: Array = np.where(star < 0.5, alpha - star, (alpha - 1.0) + lack)
    with np.errstate(invalid="ignore"):
        near = np.flatnonzero(close & (rho < 1.0) & (np.abs(gap) < _CLOSE * star))
    for i in near:
        head, tail = _threshold_tail(float(beta[i]), float(rho[i]))
        gap[i] = float(Fraction(float(alpha[i])) - Fraction(head) - Fraction(tail))
    return gap


def nuclear_norm(
    problem: Problem,
    *,
    lam: Numeric | Literal["optimal"] = 0.0,
    loss: Loss = "squared",
    tolerance: float = 1e-10,
    on_failure: OnFailure = "warn",
) -> ConvexEstimate:
    r"""Return what regression with a nuclear-norm penalty achieves.

    The estimator minimises ``sum_mu loss(y_mu, <X_mu, S>/sqrt(d1 d2)) + lam sqrt(d2) ||S||_*``.

    Parameters
    ----------
    problem : Problem
        A `GaussianFactorPrior`, a `RotationallyInvariantPrior` or a symmetric prior with a
        `GaussianChannel`, or a `SignChannel` (entries of variance 1); ``alpha`` must be given.
    lam : float, array_like or "optimal"
        Penalty in [0, inf).  0 is its limit: of all least-squares solutions the one of minimal
        nuclear norm, which interpolates for ``alpha <= 1``.  "optimal" is the penalty of least
        error.  For labels -1 and 1 a penalty > 0.
    loss : {"squared", "logistic", "hinge"}
        ``(y - h)^2/2``; for labels -1 and 1 also ``log(1 + exp(-y h))`` or ``max(0, 1 - y h)``.
    tolerance : float
        Largest residual ``|alpha s/(delta + mse) - 1|`` of a solution.
    on_failure : {"warn", "raise", "return"}
        What to do about points that were not solved.

    Returns
    -------
    ConvexEstimate
        A `ClassifierEstimate` for labels -1 and 1.  Relative error of ``mse`` at most 1e-8, and
        1e-10 except within a few 1e-3 of perfect recovery (and there if singular values reach
        down to zeros that have an atom: double precision then ends in front of it).  At and above
        `nuclear_norm_threshold` without noise, with lam = 0 or the optimal one, ``mse`` is
        exactly 0 and the status PERFECT_RECOVERY.  At ``alpha = 1``, ``lam = 0`` and with noise
        it is infinite.  For alpha between 1e-12 and 1e100, ``delta``, ``lam`` and
        ``(1 + delta)/alpha`` below 1e200 and ``rho`` above 1e-290 there is an answer, if its error
        is above 1e-290; beyond, the status may be NOT_CONVERGED.

    Raises
    ------
    ValueError
        If ``problem.alpha`` is None, the channel and the loss do not fit each other, the prior is
        none of those above or lam is out of its range.

    Notes
    -----
    With soft thresholding at tau, :math:`f(y)=(y-\tau)_+`,

    .. math:: \alpha s=\Delta+E(s,\tau),\qquad \lambda=\tau\,(\alpha-D(s,\tau)).

    For a given s the threshold is the root of the second equation and is found between the
    panels of the spectral law; the first is then solved for s between brackets.  A point takes
    0.4 ms for Gaussian factors; for other laws each s costs one or two ``mmse(s)``, which makes
    10 ms with a few singular values and 0.1 s with the density of Gaussian factors.  The best
    penalty is the one whose threshold minimises E at the s of the solution,
    :math:`\tau=s\int_{y>\tau}\rho h\big/\int_{y>\tau}\rho`, for which
    :math:`\alpha-D=(\Delta+\int_{y<\tau}\rho\,y(y-sh))/s`.
    Training loss :math:`(\Delta+E)(1-D/\alpha)^2`.

    The minimum is over all matrices and depends on the singular values of S alone, also when S is
    symmetric: these are then the absolute eigenvalues, at ``beta = 1``.

    Other losses act through the outputs :math:`\omega` of the estimate without the label at hand,
    of variance q, and :math:`f=(\mathrm{prox}_{V\ell(y,\cdot)}(\omega)-\omega)/V`.  With
    :math:`Z=P(y\mid w_*,v_*)` the probability of the label for an h of mean
    :math:`w_*=m\omega/q` and variance :math:`v_*=1-m^2/q`,

    .. math:: \hat q=\alpha\,\mathbb E f^2,\quad
              \hat m=\alpha\,\mathbb E f\,\partial_{w_*}\!\log Z,\quad
              \hat V=-\alpha\,\mathbb E\,\partial_\omega f,\qquad
              s=\frac{\hat q}{\hat m^2},\quad \tau=\frac\lambda{\hat m},\quad V=\frac{D}{\hat V},

    and S_hat is :math:`\hat m/\hat V` times the thresholded matrix.

    References
    ----------
    arXiv:2410.18858 (problem, numerical experiments with this estimator); D. Donoho, M. Gavish,
    A. Montanari, arXiv:1302.2331 (phase transition of perfect recovery); E. Candes,
    C. Sing-Long, J. Trzasko, arXiv:1210.4139 (divergence of thresholding).

    Examples
    --------
    >>> import bsr_theory as bsr
    >>> from bsr_theory import erm
    >>> problem = bsr.bilinear_regression(alpha=[0.3, 0.6], beta=1.0, rho=0.2)
    >>> erm.nuclear_norm(problem).mse.round(10)
    array([0.41169056, 0.        ])
    >>> noisy = bsr.bilinear_regression(alpha=0.3, beta=1.0, rho=0.2, delta=0.1)
    >>> best = erm.nuclear_norm(noisy, lam="optimal")
    >>> round(best.mse, 10), round(best.lam, 10)
    (0.5350463018, 0.1141038527)
    """
    signal = _read_prior(_rectangular(problem), "the nuclear norm")
    if loss not in _LOSSES:
        raise ValueError(f"loss must be one of {', '.join(_LOSSES)}, got {loss!r}")
    if isinstance(problem.channel, SignChannel):
        return _classifier(problem, signal, problem.channel, lam, loss, tolerance, on_failure)
    if loss != "squared":
        raise ValueError(
            f"channel must be a SignChannel for loss={loss!r}, got {problem.channel!r}"
        )
    channel = _read_problem(problem)
    penalty, best = _read_penalty(lam)
    limit = check("tolerance", tolerance, low=0.0)
    shape = broadcast(problem=np.empty(problem.shape), lam=penalty)
    # in units in which entries of S have variance 1
    unit = signal.variance
    delta, penalties = (
        _flat(channel.delta, shape) / unit, _flat(penalty, shape) / np.sqrt(unit)
    )  # fmt: skip
    alpha, beta, rho = (_flat(x, shape) for x in (problem.alpha, signal.beta, signal.rho))
    with np.errstate(invalid="ignore"):
        seen = penalties > _FAINT * np.maximum(alpha, 1.0)
    mode = np.where(seen, estimators.PENALTY, estimators.INTERPOLATE)
    if best:
        mode[:] = estimators.BEST
    free = mode != estimators.PENALTY
    with np.errstate(invalid="ignore"):
        gap = _gap(alpha, beta, rho, free & (delta < _CLOSE * alpha))
    with np.errstate(invalid="ignore"):
        refine = free & (rho < 1.0) & (np.abs(gap) < _NEAR * alpha) & (delta < _NEAR * alpha)
    out = np.empty((alpha.size, 12))
    kernel = estimators.nuclear_norm_array
    run_blocks(
        lambda b: kernel(
            signal.source, beta[b], rho[b], alpha[b], delta[b], penalties[b], mode[b], gap[b],
            refine[b], limit, out[b],
        ),
        alpha.size,
    )  # fmt: skip
    status = out[:, estimators.STATUS].astype(np.int64)
    report_failures(status, on_failure)
    columns = [out[:, k] for k in range(estimators.CALLS)]
    return _rescaled(_estimate(columns, out[:, estimators.CALLS], status, shape), unit)


def _classifier(
    problem: Problem,
    signal: _Signal,
    channel: SignChannel,
    lam: Any,
    loss: Loss,
    tolerance: float,
    on_failure: OnFailure,
) -> ClassifierEstimate:
    """Return what a nuclear-norm penalty achieves on labels -1 and 1."""
    _require_alpha(problem)
    if isinstance(lam, str):
        raise ValueError(f"lam must be a number > 0 for labels -1 and 1, got {lam!r}")
    penalty = check("lam", lam, low=0.0, open_low=True, allow_inf=False)
    limit = check("tolerance", tolerance, low=0.0)
    shape = broadcast(problem=np.empty(problem.shape), lam=penalty)
    alpha, delta, penalties, beta, rho = (
        _flat(x, shape) for x in (problem.alpha, channel.delta, penalty, signal.beta, signal.rho)
    )
    out = np.empty((alpha.size, 12))
    kernel, code = estimators.classifier_array, _LOSSES[loss]
    run_blocks(
        lambda b: kernel(
            signal.source, beta[b], rho[b], alpha[b], delta[b], penalties[b], code, limit, out[b]
        ),
        alpha.size,
    )  # fmt: skip
    status = out[:, estimators.STATUS].astype(np.int64)
    report_failures(status, on_failure)
    base = _estimate(
        [out[:, k] for k in range(estimators.CALLS)], out[:, estimators.CALLS], status, shape
    )
    with np.errstate(invalid="ignore"):
        cosine = np.minimum(np.asarray(base.overlap) / np.sqrt(base.norm), 1.0)
        noise = delta.reshape(shape)
        angle = np.arctan2(np.sqrt(1.0 - cosine**2 + noise), cosine)
        angle = np.where(np.asarray(base.norm) == 0.0, 0.5 * np.pi, angle)
    return ClassifierEstimate(
        **vars(base),
        cosine=scalar_or_array(cosine),
        label_error=scalar_or_array(angle / np.pi),
    )


def nuclear_norm_threshold(rho: Numeric, beta: Numeric = 1.0) -> Any:
    r"""Return the alpha from which nuclear-norm minimisation recovers S without noise.

    Parameters
    ----------
    rho : float or array_like
        Width ``r/d1`` in (0, inf]; of any S its rank over d1, as the other singular values do not
        matter (`RotationallyInvariantPrior.rank`).
    beta : float or array_like
        Aspect ratio ``d2/d1`` in [1, inf].

    Returns
    -------
    float or ndarray
        In [0, 1]; 1 for ``rho >= 1``.  Relative error below 1e-14.

    Raises
    ------
    ValueError
        If a scalar is out of its range; a bad element of an array gives NaN there.

    Notes
    -----
    It is :math:`\lim_{s\to0}\min_\tau E(s,\tau)/s`, the minimax risk of soft thresholding per unit
    noise.  As s -> 0 the singular values of the noise follow a Marchenko-Pastur law of ratio
    :math:`(1-\rho)/(\beta-\rho)` and those of S are shrunk by tau.  With
    :math:`P_k(l)=\int_{\sigma>l}\sigma^{2k}` over that law in the unit in which
    :math:`\int\sigma^2=1`,

    .. math:: \rho l=(1-\rho)\bigl(P_{1/2}-l\,P_0\bigr),\qquad
              \alpha_\star=1-(1-\rho)\Bigl(1-\frac\rho\beta\Bigr)\bigl[1-P_1+l\,P_{1/2}\bigr].

    Closed forms: `bsr_theory.limits.nuclear_norm_recovery_square` at ``beta = 1`` and
    `bsr_theory.limits.nuclear_norm_recovery_infinite_beta`.

    References
    ----------
    arXiv:2410.18858; D. Donoho, M. Gavish, A. Montanari, arXiv:1302.2331.

    Examples
    --------
    >>> from bsr_theory import erm
    >>> round(erm.nuclear_norm_threshold(0.2, beta=2.0), 10)
    0.4752778039
    """
    rho = check("rho", rho, low=0.0, open_low=True)
    beta = _columns(check("beta", beta, low=1.0))
    shape = broadcast(rho=rho, beta=beta)
    return scalar_or_array(_recovery(_flat(beta, shape), _flat(rho, shape))[:, 0].reshape(shape))


# --------------------------------------------------------------------------------------------
# Thresholding a noisy matrix
# --------------------------------------------------------------------------------------------


def _threshold(prior: Prior, s: Numeric, tau: Any, *, hard: bool) -> ThresholdEstimate:
    signal = _read_prior(prior, "thresholding")
    best = isinstance(tau, str)
    if best and tau != "optimal":
        raise ValueError(f'tau must be a number >= 0 or "optimal", got {tau!r}')
    cut = 0.0 if best else check("tau", tau, low=0.0)
    noise = check("s", s, low=0.0)
    shape = broadcast(prior=np.empty(prior.shape), s=noise, tau=cut)
    unit = signal.variance
    with np.errstate(over="ignore"):
        noise, cut = _flat(noise, shape) / unit, _flat(cut, shape) / np.sqrt(unit)
    beta, rho = _flat(signal.beta, shape), _flat(signal.rho, shape)
    out = np.empty((noise.size, 7))
    kernel = estimators.threshold_array
    # beyond some noise all is that of noise alone, in its units
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        thin = np.minimum(rho, 1.0) if signal.source is None else 1.0
        drowned = np.minimum(_DROWNED / thin, 1e300)
        scale = np.maximum(noise / drowned, 1.0)
        noise = np.minimum(noise, drowned)
        level = np.where(np.isinf(cut), cut, cut / np.sqrt(scale))
    run_blocks(
        lambda b: kernel(signal.source, beta[b], rho[b], noise[b], level[b], best, hard, out[b]),
        noise.size,
    )
    far = scale > 1.0
    if best:  # is to drop everything then: what is left above the edge is rounding
        out[far, :-1] = np.where(np.isnan(out[far, :1]), np.nan, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    with np.errstate(invalid="ignore", over="ignore"):
        for name, power in (("norm", 1.0), ("nuclear_norm", 0.5), ("threshold", 0.5)):
            column = out[:, _COLUMNS.index(name)]
            column[far] = np.where(column[far] > 0.0, column[far] * scale[far] ** power, 0.0)
        mse, overlap, norm = out[far, :3].T
        out[far, 0] = np.where(np.isnan(mse), mse, 1.0 - 2.0 * overlap + norm)
    if not best:
        out[:, -1] = np.where(np.isnan(out[:, -1]), np.nan, cut)
    found = ThresholdEstimate(*(scalar_or_array(x.reshape(shape)) for x in out.T))
    return _rescaled(found, unit)


_COLUMNS = [field.name for field in dataclasses.fields(ThresholdEstimate)]


def soft_threshold(
    prior: Prior, s: Numeric, tau: Numeric | Literal["optimal"] = "optimal"
) -> ThresholdEstimate:
    r"""Return what soft thresholding the singular values of ``S + sqrt(s) Z`` achieves.

    Parameters
    ----------
    prior : GaussianFactorPrior or RotationallyInvariantPrior
        Law of S.
    s : float or array_like
        Noise variance per entry, in [0, inf].
    tau : float, array_like or "optimal"
        Threshold on the singular values y of ``Y/sqrt(d2)``, in [0, inf], or the one of least
        error.

    Returns
    -------
    ThresholdEstimate
        To be compared with ``prior.mmse(s)``, the error of the optimal shrinkage.  At ``s = 0``
        the divergence is its limit, for laws with atoms to 1e-7; noise above 1e300 counts as 1e300
        in units of its own.

    Raises
    ------
    ValueError
        If the prior is none of those or a parameter is out of its range.

    Notes
    -----
    With :math:`f=(y-\tau)_+`, the law :math:`\rho` of y and :math:`y-sh` the optimal shrinkage,

    .. math:: E=M(s)+\int\rho\,(f-y+sh)^2=\int\rho\,\min(y,\tau)^2-s+2sD,\qquad
              D=\int\rho\,f\,h .

    The best threshold equates the means of f and of the optimal shrinkage over :math:`y>\tau`.

    References
    ----------
    E. Candes, C. Sing-Long, J. Trzasko, arXiv:1210.4139.

    Examples
    --------
    >>> from bsr_theory import GaussianFactorPrior, erm
    >>> prior = GaussianFactorPrior(beta=2.0, rho=0.2)
    >>> best = erm.soft_threshold(prior, 0.5)
    >>> round(prior.mmse(0.5), 6), round(best.mse, 6), round(best.threshold, 6)
    (0.131712, 0.168297, 0.65172)
    """
    return _threshold(prior, s, tau, hard=False)


def hard_threshold(
    prior: Prior, s: Numeric, tau: Numeric | Literal["optimal"] = "optimal"
) -> ThresholdEstimate:
    r"""Return what keeping the large singular values of ``S + sqrt(s) Z`` achieves.

    Parameters
    ----------
    prior : GaussianFactorPrior or RotationallyInvariantPrior
        Law of S.
    s : float or array_like
        Noise variance per entry, in [0, inf].
    tau : float, array_like or "optimal"
        Singular values of ``Y/sqrt(d2)`` above it are kept as they are, those below dropped; in
        [0, inf], or the threshold of least error (the middle of a gap of the spectrum where any
        threshold in it is best).

    Returns
    -------
    ThresholdEstimate
        To be compared with ``prior.mmse(s)``, the error of the optimal shrinkage.  At ``s = 0``
        the divergence is its limit, for laws with atoms to 1e-7.

    Raises
    ------
    ValueError
        If the prior is none of those or a parameter is out of its range.

    Notes
    -----
    Only bounded functions of y enter :math:`E=1+\int\rho f^2-2\int\rho\,f\,(y-sh)`, so that the
    jump of f does no harm.  In :math:`E=\int\rho(f-y)^2-s+2sD` the divergence is
    :math:`D=\int\rho\,f\,h` as well: the derivative of f at the jump is multiplied by the share
    1/d of the singular values that it concerns, and of the difference quotients of
    neighbours across the jump the principal value in h already takes account.  The best
    threshold is where the optimal shrinkage passes y/2.

    References
    ----------
    M. Gavish, D. Donoho, arXiv:1305.5870 (low rank).

    Examples
    --------
    >>> from bsr_theory import GaussianFactorPrior, erm
    >>> best = erm.hard_threshold(GaussianFactorPrior(beta=2.0, rho=0.2), 0.1)
    >>> round(best.mse, 6), round(best.rank, 6)
    (0.0286, 0.2)
    """
    return _threshold(prior, s, tau, hard=True)
