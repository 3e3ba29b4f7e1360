"""Closed forms of bilinear sequence regression, and the limits in which they hold.

Every function here is elementary, or one integral that converges exponentially, and shares no
code with the solver: this module is what the solver is checked against, and what to use when only
a limit is needed.

Notation.  ``S = A B / sqrt(r)`` is ``d1 x d2`` of rank ``r``, with entries of variance 1;
``beta = d2/d1 >= 1``, ``rho = r/d1``, ``alpha = n/(d1 d2)``, and ``delta`` is the variance of the
label noise.  ``M(s)`` is the Bayes-optimal error per entry of ``S`` observed as
``S + sqrt(s) Z``, and ``I_S(1/s)`` the mutual information per entry, in nats, so that
``d I_S / d qhat = M(1/qhat) / 2``.  With the Gaussian channel the Bayes-optimal error of the
regression, ``mmse = 1 - q``, is ``M(s)`` at the root of ``M(s) = alpha s - delta``.

========================  =====================================================================
limit                     functions
========================  =====================================================================
no structure (ridge)      `ridge_mse`, `ridge_train_loss`
beta -> infinity          `mmse_infinite_beta`, `information_infinite_beta`,
                          `solve_infinite_beta`
rho -> infinity           `mmse_infinite_rho`, `information_infinite_rho`, `solve_infinite_rho`
rho -> 0                  `alpha_low_rank`, `alpha_from_low_rank`, `low_rank_overlap`,
                          `low_rank_information`, `low_rank_mmse`, `weak_recovery_low_rank`
s -> 0                    `small_s_coefficients`, `mmse_small_s`, `information_small_s`,
                          `bulk_merging_square`
s -> infinity             `mmse_large_s`, `information_large_s`
delta -> 0                `strong_recovery`, `mmse_near_strong_recovery`,
                          `nuclear_norm_recovery_square`,
                          `nuclear_norm_recovery_infinite_beta`
========================  =====================================================================

All functions broadcast over arrays and return a float for scalars.  A scalar out of its range is
a ValueError; a bad element of an array gives NaN in its own place.  ``beta`` and ``rho`` may be
infinite wherever the limit exists.

References
----------
V. Erba, E. Troiani, L. Biggio, A. Maillard, L. Zdeborova, *Bilinear sequence regression: a model
for learning from long sequences of high-dimensional tokens*, arXiv:2410.18858.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, Literal, ParamSpec

import numpy as np
import numpy.typing as npt
from scipy.special import expit, lambertw, xlog1py, xlogy

__all__ = [
    "alpha_from_low_rank",
    "alpha_low_rank",
    "bulk_merging_square",
    "information_infinite_beta",
    "information_infinite_rho",
    "information_large_s",
    "information_small_s",
    "low_rank_information",
    "low_rank_mmse",
    "low_rank_overlap",
    "mmse_infinite_beta",
    "mmse_infinite_rho",
    "mmse_large_s",
    "mmse_near_strong_recovery",
    "mmse_small_s",
    "nuclear_norm_recovery_infinite_beta",
    "nuclear_norm_recovery_square",
    "ridge_mse",
    "ridge_train_loss",
    "small_s_coefficients",
    "solve_infinite_beta",
    "solve_infinite_rho",
    "strong_recovery",
    "weak_recovery_low_rank",
]

Array = npt.NDArray[np.float64]
Numeric = float | npt.ArrayLike

_quiet = np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore")

_P = ParamSpec("_P")


def _closed_form(formula: Callable[_P, Any]) -> Callable[_P, Any]:
    """Make a formula silent, and defined where numbers have hundreds of digits.

    Where a product overflows, or an infinite number meets a vanishing one, arguments are brought
    between 1e-75 and 1e75, where powers up to the fourth are finite, or closer to 1 still.
    """
    quiet = _quiet(formula)

    @functools.wraps(formula)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> Any:
        result = quiet(*args, **kwargs)
        for most in (1e75, 1e25, 1e12):
            if not np.isnan(result).any():
                break
            near = (_within(x, most) for x in args)
            again = quiet(*near, **{k: _within(x, most) for k, x in kwargs.items()})
            if isinstance(result, tuple):
                result = tuple(map(_merged, result, again))
            else:
                result = _merged(result, again)
        return result

    return call


def _within(value: Any, most: float) -> Any:
    """Return positive finite numbers brought between ``1/most`` and ``most``."""
    if isinstance(value, str):
        return value
    array = np.asarray(value, dtype=np.float64)
    ordinary = (array > 0) & np.isfinite(array)
    return np.where(ordinary, np.clip(array, 1 / most, most), array)


def _merged(result: Any, again: Any) -> Any:
    return _out(np.where(np.isnan(result), again, result))


# M(s) = s - s^2 [SLOPE log(1/s) + OFFSET] at rho = beta = 1; see mmse_small_s.
_SLOPE = 3.0 * np.sqrt(3.0) / (4.0 * np.pi)
_OFFSET = _SLOPE * (3.0 * np.log(3.0) - 0.5) - 0.75

# An infinite beta or rho, in formulas whose limit is reached to double precision long before.
_LARGE = 1e60

# Nodes of the rule in _ProductLaw: step, first and last.
_STEP, _FIRST, _LAST = 0.375, -224, 86
_BLOCK = 1024  # points that are evaluated at once, times 311 nodes: 2.5 MB per array


# --- ridge regression on the vectorised sequence ------------------------------------------------


@_closed_form
def ridge_mse(alpha: Numeric, delta: Numeric, lam: Numeric | Literal["optimal"] = "optimal") -> Any:
    r"""Return the error of ridge regression on the vectorised sequence.

    The estimator minimises ``sum_mu (y_mu - <X_mu, S>/sqrt(d1 d2))^2 + lam ||S||_F^2``.  It is
    blind to the rank, so its error depends on the second moment of the signal alone.

    Parameters
    ----------
    alpha : float or array_like
        Samples per entry of S, > 0.
    delta : float or array_like
        Variance of the label noise, >= 0.
    lam : float, array_like or "optimal"
        Penalty, >= 0.  ``"optimal"`` stands for ``lam = delta``, which minimises the error.
        ``lam = 0`` stands for the limit, the least-squares solution of minimal norm.

    Returns
    -------
    float or ndarray
        Error per entry, >= 0; infinite at the interpolation peak ``alpha = 1, lam = 0, delta > 0``.

    Raises
    ------
    ValueError
        If a scalar is out of its range.

    Notes
    -----
    With ``D``, the trace of the hat matrix per entry of S, the smaller root of
    ``D^2 - (1 + alpha + lam) D + alpha = 0``,

    .. math:: E = \frac{\alpha (1 - D)^2 + \delta D^2}{\alpha - D^2}.

    In ``R = sqrt((1 + alpha + lam)^2 - 4 alpha)`` and ``T = 1 + alpha + lam + R`` this is
    ``[(T (1 - D))^2 + 4 alpha delta] / (2 R T)``, which has no cancellation.  Special cases:
    ``lam = delta`` gives ``1 - D``; ``lam -> 0`` gives ``1 - alpha + delta alpha/(1 - alpha)`` for
    ``alpha < 1`` and ``delta/(alpha - 1)`` for ``alpha > 1``.

    References
    ----------
    arXiv:2410.18858, the ridge baseline; T. Hastie, A. Montanari, S. Rosset, R. J. Tibshirani,
    arXiv:1903.08560 (isotropic features).

    Examples
    --------
    >>> ridge_mse(0.5, 0.0)
    0.5
    >>> round(ridge_mse(0.5, 0.1, lam=0.5), 10)
    0.6242640687
    """
    alpha, delta, lam = _read_ridge(alpha, delta, lam)
    one_minus_d, _, root, total = _ridge(alpha, lam)
    peak = (alpha == 1) & (lam == 0)
    mse = ((total * one_minus_d) ** 2 + 4 * alpha * delta) / (2 * root * total)
    return _out(np.where(peak, np.where(delta > 0, np.inf, 0 * delta), mse))


@_closed_form
def ridge_train_loss(
    alpha: Numeric, delta: Numeric, lam: Numeric | Literal["optimal"] = "optimal"
) -> Any:
    r"""Return the training loss ``(1/n) sum_mu (y_mu - yhat_mu)^2`` of ridge regression.

    Parameters
    ----------
    alpha, delta, lam : float or array_like
        As in `ridge_mse`.

    Returns
    -------
    float or ndarray
        Training loss without the penalty, in ``[0, 1 + delta]``.

    Raises
    ------
    ValueError
        If a scalar is out of its range.

    Notes
    -----
    ``(delta + E) (1 - D/alpha)^2`` with ``E`` and ``D`` of `ridge_mse`: generalised
    cross-validation is exact in this limit.  For ``lam = 0`` it is 0 up to ``alpha = 1``
    (interpolation) and ``delta (1 - 1/alpha)`` beyond.

    Examples
    --------
    >>> ridge_train_loss(2.0, 0.5, lam=0.0)
    0.25
    """
    alpha, delta, lam = _read_ridge(alpha, delta, lam)
    one_minus_d, unused, root, total = _ridge(alpha, lam)
    mse = ((total * one_minus_d) ** 2 + 4 * alpha * delta) / (2 * root * total)
    loss = (delta + mse) * unused**2
    return _out(np.where((alpha == 1) & (lam == 0), 0 * delta, loss))


def _read_ridge(alpha: Any, delta: Any, lam: Any) -> tuple[Array, Array, Array]:
    alpha = _read("alpha", alpha, low=0, open_low=True)
    delta = _read("delta", delta, low=0)
    if isinstance(lam, str):
        if lam != "optimal":
            raise ValueError(f'lam must be a number >= 0 or "optimal", got {lam!r}')
        return alpha, delta, delta
    return alpha, delta, _read("lam", lam, low=0)


def _ridge(alpha: Array, lam: Array) -> tuple[Array, Array, Array, Array]:
    """Return 1 - D, 1 - D/alpha, R and T of `ridge_mse`, each to full relative precision."""
    root = np.hypot(1 - alpha, np.sqrt(lam * (2 + 2 * alpha + lam)))
    total = 1 + alpha + lam + root
    large = (root + lam + np.abs(1 - alpha)) / total
    small = np.where(lam > 0, 2 * lam / (large * total), 0 * lam)  # (1 - D)(1 - D/alpha) = 2 lam/T
    under = alpha < 1
    return np.where(under, large, small), np.where(under, small, large), root, total


# --- beta -> infinity ---------------------------------------------------------------------------


@_closed_form
def mmse_infinite_beta(rho: Numeric, s: Numeric) -> Any:
    r"""Return M(s) for infinitely long sequences, ``beta -> infinity``.

    Parameters
    ----------
    rho : float or array_like
        Rank ``r/d1``, > 0, may be infinite.
    s : float or array_like
        Noise variance per entry, >= 0, may be infinite.

    Returns
    -------
    float or ndarray
        Error per entry, in [0, min(1, s)].

    Raises
    ------
    ValueError
        If a scalar is out of its range.

    Notes
    -----
    The rows of A are learned from infinitely many columns, and each column of S is a Gaussian
    vector of covariance ``A A^T / r``, whose eigenvalues follow the Marchenko-Pastur law of mean 1:

    .. math:: M = \int \frac{l s}{l + s} dMP_\rho(l)
              = \frac{2 s \rho}{1 + \rho + \rho s + \sqrt{(1 - \rho)^2 + 2 \rho (1 + \rho) s
                + \rho^2 s^2}}.

    The code divides by ``rho s``, so that every term is positive and the limits are regular.

    References
    ----------
    arXiv:2410.18858, the limit of large aspect ratio.

    Examples
    --------
    >>> mmse_infinite_beta(1.0, 0.5)
    0.25
    """
    rho, s = _read_rho(rho), _read("s", s, low=0, finite=False)
    _, total = _marchenko_pastur(rho, 1 / s)
    return _out(np.where(s == 0, 0 * s / rho, 2 / total))


@_closed_form
def information_infinite_beta(rho: Numeric, s: Numeric) -> Any:
    r"""Return I_S(1/s) for infinitely long sequences, ``beta -> infinity``.

    Parameters
    ----------
    rho, s : float or array_like
        As in `mmse_infinite_beta`.

    Returns
    -------
    float or ndarray
        Mutual information per entry, in nats, >= 0.

    Raises
    ------
    ValueError
        If a scalar is out of its range.

    Notes
    -----
    The capacity formula of a Gaussian matrix channel; with ``y = M/s``,

    .. math:: I = \frac12 \int \log(1 + l/s) dMP_\rho(l)
              = -\frac12 [\log(1 - y) + \rho \log(1 - y/\rho) + y].

    The cost of learning A, about ``[m - m^2/2] log(beta)/(2 beta)`` with ``m = min(rho, 1)``,
    vanishes in the limit.

    References
    ----------
    E. Telatar, Eur. Trans. Telecomm. 10, 585 (1999); S. Verdu, S. Shamai, IEEE Trans. Inf.
    Theory 45, 622 (1999).

    Examples
    --------
    >>> round(information_infinite_beta(1.0, 0.5), 12)
    0.44314718056
    """
    rho, s = _read_rho(rho), _read("s", s, low=0, finite=False)
    qhat, c = 1 / s, 1 / rho
    root, total = _marchenko_pastur(rho, qhat)
    y = 2 * qhat / total
    # (1 - y)(1 - y/rho) = 2/total: compute the larger factor by sums, the other by division.
    large = (np.abs(1 - c) * qhat + 1 + root) / total
    small = 2 / (large * total)
    log_1 = np.where(y < 0.5, np.log1p(-y), np.log(np.where(c >= 1, large, small)))
    log_2 = np.where(c * y < 0.5, np.log1p(-c * y), np.log(np.where(c >= 1, small, large)))
    rank_term = np.where(c == 0, -y, rho * log_2)
    information = -(log_1 + rank_term + y) / 2
    return _out(np.where(s == 0, np.inf * rho, information))


@_closed_form
def solve_infinite_beta(alpha: Numeric, rho: Numeric, delta: Numeric) -> Any:
    r"""Return the Bayes-optimal error for ``beta -> infinity`` and the Gaussian channel.

    Parameters
    ----------
    alpha : float or array_like
        Samples per entry of S, > 0.
    rho : float or array_like
        Rank ``r/d1``, > 0, may be infinite.
    delta : float or array_like
        Variance of the label noise, >= 0.

    Returns
    -------
    float or ndarray
        ``mmse = 1 - q`` in [0, 1]; exactly 0 for ``delta = 0`` and ``alpha >= min(1, rho)``.

    Raises
    ------
    ValueError
        If a scalar is out of its range.

    Notes
    -----
    With ``y = M(s)/s``, `mmse_infinite_beta` says ``s = (1 - y)(rho - y)/(rho y)``, and the state
    evolution ``M(s) = alpha s - delta`` becomes the cubic

    .. math:: (\alpha - y)(1 - y)(1 - y/\rho) = \delta y, \qquad mmse = (1 - y)(1 - y/\rho),

    with one root below ``m = min(alpha, 1, rho)``.  In ``z = m - y`` all coefficients but the
    constant are positive: one positive root, found without cancellation.  For ``delta = 0``,
    ``mmse = (1 - alpha)(1 - alpha/rho)``.

    References
    ----------
    arXiv:2410.18858, the limit of large aspect ratio.

    Examples
    --------
    >>> solve_infinite_beta(0.25, 0.5, 0.0)
    0.375
    """
    alpha = _read("alpha", alpha, low=0, open_low=True)
    rho = _read_rho(rho)
    delta = _read("delta", delta, low=0)
    m = np.minimum(np.minimum(alpha, 1), rho)
    c = 1 / rho
    gap_alpha, gap_1 = alpha - m, 1 - m
    gap_rho = np.where(np.isinf(rho), 1.0, (rho - m) * c)
    z = _positive_root(
        -delta * m,
        gap_rho * (gap_alpha + gap_1) + c * gap_alpha * gap_1 + delta,
        gap_rho + c * (gap_alpha + gap_1),
        c,
    )
    return _out((gap_1 + z) * (gap_rho + c * z))


def _marchenko_pastur(rho: Array, qhat: Array) -> tuple[Array, Array]:
    """Return the square root and the denominator of `mmse_infinite_beta`, over ``rho s``."""
    c = 1 / rho
    root = np.hypot((1 - c) * qhat, np.sqrt(1 + 2 * (1 + c) * qhat))
    return root, 1 + (1 + c) * qhat + root


# --- rho -> infinity ----------------------------------------------------------------------------


@_closed_form
def mmse_infinite_rho(s: Numeric) -> Any:
    """Return M(s) for ``rho -> infinity``, where S has independent Gaussian entries.

    Parameters
    ----------
    s : float or array_like
        Noise variance per entry, >= 0, may be infinite.

    Returns
    -------
    float or ndarray
        ``s/(1 + s)``, for every beta.

    Raises
    ------
    ValueError
        If a scalar is out of its range.

    Examples
    --------
    >>> mmse_infinite_rho(1.0)
    0.5
    """
    s = _read("s", s, low=0, finite=False)
    return _out(1 / (1 + 1 / s))


@_closed_form
def information_infinite_rho(s: Numeric) -> Any:
    """Return I_S(1/s) for ``rho -> infinity``: the Gaussian channel capacity ``log(1 + 1/s)/2``.

    Parameters
    ----------
    s : float or array_like
        Noise variance per entry, >= 0, may be infinite.

    Returns
    -------
    float or ndarray
        Mutual information per entry, in nats.

    Raises
    ------
    ValueError
        If a scalar is out of its range.

    Examples
    --------
    >>> round(information_infinite_rho(1.0), 12)
    0.34657359028
    """
    s = _read("s", s, low=0, finite=False)
    return _out(np.log1p(1 / s) / 2)


@_closed_form
def solve_infinite_rho(alpha: Numeric, delta: Numeric) -> Any:
    """Return the Bayes-optimal error for ``rho -> infinity`` and the Gaussian channel.

    Parameters
    ----------
    alpha : float or array_like
        Samples per entry of S, > 0.
    delta : float or array_like
        Variance of the label noise, >= 0.

    Returns
    -------
    float or ndarray
        ``mmse = 1 - q`` in [0, 1]; the same number as ``ridge_mse(alpha, delta, "optimal")``.

    Raises
    ------
    ValueError
        If a scalar is out of its range.

    Notes
    -----
    ``M = s/(1 + s)`` in ``M = alpha s - delta`` gives ``M^2 + (alpha + delta - 1) M - delta = 0``.

    Examples
    --------
    >>> solve_infinite_rho(0.25, 0.0)
    0.75
    """
    alpha = _read("alpha", alpha, low=0, open_low=True)
    delta = _read("delta", delta, low=0)
    half = ((alpha - 1) + delta) / 2
    root = np.hypot(half, np.sqrt(delta))
    return _out(np.where(half > 0, delta / (half + root), root - half))


# --- rho -> 0: the low-rank scaling -------------------------------------------------------------


@_closed_form
def alpha_low_rank(alpha: Numeric, beta: Numeric, rho: Numeric) -> Any:
    """Convert ``alpha = n/(d1 d2)`` to samples per parameter, ``alpha_LR = n/(r (d1 + d2))``.

    Parameters
    ----------
    alpha : float or array_like
        Samples per entry of S, >= 0.
    beta : float or array_like
        Aspect ratio ``d2/d1``, >= 1, may be infinite.
    rho : float or array_like
        Rank ``r/d1``, > 0.

    Returns
    -------
    float or ndarray
        ``alpha beta/((1 + beta) rho)``.

    Raises
    ------
    ValueError
        If a scalar is out of its range.

    Examples
    --------
    >>> round(alpha_low_rank(0.3, 2.0, 0.5), 12)
    0.4
    """
    alpha, b = _read("alpha", alpha, low=0), 1 / _read_beta(beta)
    rho = _read("rho", rho, low=0, open_low=True)
    return _out(alpha / ((1 + b) * rho))


@_closed_form
def alpha_from_low_rank(alpha_lr: Numeric, beta: Numeric, rho: Numeric) -> Any:
    """Convert samples per parameter ``n/(r (d1 + d2))`` to ``alpha = n/(d1 d2)``.

    Parameters
    ----------
    alpha_lr : float or array_like
        Samples per parameter, >= 0.
    beta, rho : float or array_like
        As in `alpha_low_rank`.

    Returns
    -------
    float or ndarray
        ``alpha_LR (1 + beta) rho/beta``.

    Raises
    ------
    ValueError
        If a scalar is out of its range.

    Examples
    --------
    >>> round(alpha_from_low_rank(0.4, 2.0, 0.5), 12)
    0.3
    """
    alpha_lr, b = _read("alpha_lr", alpha_lr, low=0), 1 / _read_beta(beta)
    rho = _read("rho", rho, low=0, open_low=True)
    return _out(alpha_lr * (1 + b) * rho)


@_closed_form
def low_rank_overlap(snr: Numeric, beta: Numeric) -> Any:
    r"""Return the overlap of the optimal denoiser of a low-rank S.

    Parameters
    ----------
    snr : float or array_like
        ``qhat/rho = 1/(rho s)``, the signal-to-noise ratio per unit of rank, >= 0, may be infinite.
    beta : float or array_like
        Aspect ratio ``d2/d1``, >= 1, may be infinite.

    Returns
    -------
    float or ndarray
        ``q = 1 - M(s)`` in [0, 1] for ``rho -> 0``; exactly 0 for ``snr <= 1/sqrt(beta)``.

    Raises
    ------
    ValueError
        If a scalar is out of its range.

    Notes
    -----
    The two factors have overlaps ``m_a`` and ``m_b`` per component; with ``x = beta snr``,
    ``m_a = x m_b/(1 + x m_b)`` and ``m_b = x m_a/(beta + x m_a)``.  The product of the non-zero
    solution is

    .. math:: q = m_a m_b = \frac{(\lambda^2 - b)^2}{\lambda^2 (\lambda + b)(\lambda + 1)},
              \qquad \lambda = \mathrm{snr}, \quad b = 1/\beta.

    The threshold is the transition of Baik, Ben Arous and Peche for rectangular matrices.

    References
    ----------
    L. Miolane, arXiv:1702.00473 (the spiked non-symmetric problem); arXiv:2410.18858, the
    low-rank limit.

    Examples
    --------
    >>> low_rank_overlap([0.9, 2.0, 4.0], 1.0)
    array([0.    , 0.25  , 0.5625])
    """
    snr, b = _read("snr", snr, low=0, finite=False), 1 / _read_beta(beta)
    v = 1 / snr
    overlap = (1 - b * v * v) ** 2 / ((1 + b * v) * (1 + v))
    return _out(np.where((b * v * v >= 1) | (snr == 0), 0 * (1 / v + b), overlap))


@_closed_form
def low_rank_information(snr: Numeric, beta: Numeric) -> Any:
    r"""Return the mutual information of a low-rank S and its noisy observation, over rho.

    Parameters
    ----------
    snr, beta : float or array_like
        As in `low_rank_overlap`.

    Returns
    -------
    float or ndarray
        ``lim I_S(qhat)/rho`` for ``rho -> 0`` at fixed ``snr = qhat/rho``: nats per component and
        row, >= 0.

    Raises
    ------
    ValueError
        If a scalar is out of its range.

    Notes
    -----
    ``snr/2`` up to the threshold ``snr = 1/sqrt(beta)``, where the observation is as informative
    as that of a Gaussian matrix, and above it, with ``b = 1/beta``,

    .. math:: \frac12 \Big[(1 - b) \log\frac{1 + \lambda}{1 + b/\lambda}
              + b \log\frac{\lambda^2}{b} + \frac{b}{\lambda}\Big].

    Its derivative is ``(1 - q)/2`` with ``q`` of `low_rank_overlap`.

    Examples
    --------
    >>> low_rank_information(0.5, 1.0)
    0.25
    """
    snr = _read("snr", snr, low=0, finite=False)
    b = 1 / _read_beta(beta)
    above = (
        (xlog1py(1 - b, snr) - xlog1py(1 - b, b / snr))
        + (2 * xlogy(b, snr) - xlogy(b, b))
        + b / snr
    ) / 2
    return _out(np.where(snr * snr <= b, snr / 2, above))


@_closed_form
def low_rank_mmse(alpha_lr: Numeric, beta: Numeric, delta: Numeric) -> Any:
    r"""Return the Bayes-optimal error of the low-rank limit and the Gaussian channel.

    Parameters
    ----------
    alpha_lr : float or array_like
        Samples per parameter ``n/(r (d1 + d2))``, > 0.
    beta : float or array_like
        Aspect ratio ``d2/d1``, >= 1, may be infinite.
    delta : float or array_like
        Variance of the label noise, >= 0.

    Returns
    -------
    float or ndarray
        ``mmse = 1 - q`` in [0, 1]; exactly 1 up to `weak_recovery_low_rank`, exactly 0 for
        ``delta = 0`` and ``alpha_lr >= 1``.

    Raises
    ------
    ValueError
        If a scalar is out of its range.

    Notes
    -----
    State evolution reads ``snr (delta + 1 - q(snr)) = (1 + b) alpha_lr`` with ``b = 1/beta`` and
    ``q`` of `low_rank_overlap`.  In ``v = 1/snr`` and ``e = 1 - alpha_lr`` it is the quartic

    .. math:: \delta (1 + b v)(1 + v) + (1 + b) e v (1 + b v)(1 + v)
              = (1 - b + b^2) v^2 + b (1 + b) v^3 + b^2 v^4.

    Its coefficients change sign exactly once, whatever the parameters: by the rule of Descartes
    there is one positive root, hence one fixed point with ``q > 0``.  The error is then
    ``v [(1 + b) + 3 b v - b^2 v^3] / [(1 + b v)(1 + v)]``.

    For ``beta = 1`` this is ``q = (1 - 1/x)^2`` with ``delta x^2 + (2 - 2 alpha_lr) x - 1 = 0``
    (``q = (2 alpha_lr - 1)^2`` without noise); for ``beta = inf`` it is the optimal ridge
    regression at ``alpha_lr``.

    References
    ----------
    arXiv:2410.18858, the low-rank limit.

    Examples
    --------
    >>> low_rank_mmse([0.4, 0.75, 1.0], 1.0, 0.0)
    array([1.  , 0.75, 0.  ])
    """
    alpha_lr = _read("alpha_lr", alpha_lr, low=0, open_low=True)
    b = 1 / _read_beta(beta)
    delta = _read("delta", delta, low=0)
    e = 1 - alpha_lr
    v = _positive_root(
        -delta,
        -(1 + b) * (delta + e),
        (1 + b) ** 2 * alpha_lr - b * (3 + delta),
        b * (1 + b) * alpha_lr,
        b * b,
    )
    mmse = v * ((1 + b) + 3 * b * v - b * b * v**3) / ((1 + b * v) * (1 + v))
    weak = (1 + delta) * np.sqrt(b) / (1 + b)
    return _out(np.where(alpha_lr <= weak, 1.0, np.minimum(mmse, 1.0)))


@_closed_form
def weak_recovery_low_rank(beta: Numeric, delta: Numeric) -> Any:
    """Return the samples per parameter below which a low-rank S cannot be told from noise.

    Parameters
    ----------
    beta : float or array_like
        Aspect ratio ``d2/d1``, >= 1, may be infinite.
    delta : float or array_like
        Variance of the label noise, >= 0.

    Returns
    -------
    float or ndarray
        ``alpha_LR = (1 + delta) sqrt(beta)/(1 + beta)``.

    Raises
    ------
    ValueError
        If a scalar is out of its range.

    Notes
    -----
    It is the threshold ``snr = 1/sqrt(beta)`` of `low_rank_overlap` at ``q = 0``, where
    ``snr (1 + delta) = (1 + 1/beta) alpha_LR``.

    References
    ----------
    arXiv:2410.18858, the low-rank limit.

    Examples
    --------
    >>> weak_recovery_low_rank(1.0, 0.0), weak_recovery_low_rank(4.0, 0.5)
    (0.5, 0.6)
    """
    b = 1 / _read_beta(beta)
    delta = _read("delta", delta, low=0)
    return _out((1 + delta) * np.sqrt(b) / (1 + b))


# --- small noise --------------------------------------------------------------------------------


@_closed_form
def strong_recovery(beta: Numeric, rho: Numeric) -> Any:
    """Return the threshold of perfect recovery without noise.

    Parameters
    ----------
    beta : float or array_like
        Aspect ratio ``d2/d1``, >= 1, may be infinite.
    rho : float or array_like
        Rank ``r/d1``, > 0, may be infinite.

    Returns
    -------
    float or ndarray
        ``alpha = rho (1 + beta - rho)/beta`` for ``rho < 1`` and 1 otherwise.

    Raises
    ------
    ValueError
        If a scalar is out of its range.

    Notes
    -----
    It is the limit of ``M(s)/s`` for ``s -> 0``, and the number of degrees of freedom of a matrix
    of rank r, ``r (d1 + d2 - r)``, per entry: as many equations as unknowns suffice.

    References
    ----------
    arXiv:2410.18858, the strong-recovery threshold.

    Examples
    --------
    >>> strong_recovery(1.0, 0.5), strong_recovery(10.0, 0.5), strong_recovery(2.0, 3.0)
    (0.75, 0.525, 1.0)
    """
    b, rho = 1 / _read_beta(beta), _read_rho(rho)
    return _out(_degrees_of_freedom(b, rho))


@_closed_form
def small_s_coefficients(beta: Numeric, rho: Numeric) -> tuple[Any, Any]:
    r"""Return the first two coefficients of M(s) for weak noise, ``M = D s - c2 s^2 + O(s^3)``.

    Parameters
    ----------
    beta : float or array_like
        Aspect ratio ``d2/d1``, >= 1, may be infinite.
    rho : float or array_like
        Rank ``r/d1``, > 0, may be infinite.

    Returns
    -------
    degrees_of_freedom, c2 : float or ndarray
        ``D`` as in `strong_recovery`, and ``c2 > 0`` to a relative accuracy of about 1e-14;
        ``c2`` is infinite at ``rho = 1``, where M(s) is not analytic (see `mmse_small_s`).

    Raises
    ------
    ValueError
        If a scalar is out of its range.

    Notes
    -----
    Let ``rho_S(w)`` be the density of the non-zero eigenvalues of ``S S^T/d2`` (mass
    ``min(1, rho)``), ``b = 1/beta`` and

    .. math:: J = \frac{4 \pi^2}{3 \beta^2} \int \rho_S(w)^3 w \, dw .

    Then

    .. math:: c_2 = J + \rho^2 \Big[\frac{1 - b}{1 - \rho} + \frac{b^2 (1 - \rho)}{1 - b \rho}\Big]
              \quad (\rho < 1), \qquad
              c_2 = J + \frac{(1 - b) \rho}{\rho - 1} \quad (\rho > 1).

    The other terms are the inverse moment ``int dMP_rho(l)/(l + s)`` and, for ``rho < 1``, the
    bulk of pure noise, which repels the signal bulk.  ``J`` is an elliptic integral: at ``s = 0``
    the spectral curve is ``(t + beta)(t + 1)(t + rho) = w beta rho t``, and in terms of its real
    root ``t = -tau`` one has ``(Im t)^2 = beta rho/tau - (1 + beta + rho - tau)^2/4`` and
    ``rho_S = -Im t/(pi w)``.  It is evaluated by the trapezoidal rule in
    ``v = log[(tau - tau_2)/(tau_3 - tau)]`` between the roots of ``Im t``.  All singularities of
    the integrand lie at ``Im v = pi`` or beyond, for every ``beta`` and ``rho``, so the rule
    converges as ``exp(-2 pi^2/h)`` and no case is special.

    Validity: ``s`` much smaller than the square of the gap of the spectrum, about ``(1 - rho)^2``.

    References
    ----------
    arXiv:2410.18858; E. Troiani, V. Erba, F. Krzakala, A. Maillard, L. Zdeborova,
    arXiv:2203.07752 (the error of the denoiser by the third power of the density).

    Examples
    --------
    >>> d, c2 = small_s_coefficients(2.0, 0.2)
    >>> round(d, 12), round(c2, 10)
    (0.28, 0.0353419727)
    """
    beta, rho = np.broadcast_arrays(_read_beta(beta), _read_rho(rho))
    b = 1 / beta
    c2 = _cube_integral(beta, rho) + _repulsion(beta, rho)
    return _out(_degrees_of_freedom(b, rho)), _out(np.where(rho == 1, np.inf * beta, c2))


@_closed_form
def mmse_small_s(beta: Numeric, rho: Numeric, s: Numeric) -> Any:
    r"""Return the expansion of M(s) for weak noise.

    Parameters
    ----------
    beta : float or array_like
        Aspect ratio ``d2/d1``, >= 1, may be infinite.
    rho : float or array_like
        Rank ``r/d1``, > 0, may be infinite.
    s : float or array_like
        Noise variance per entry, >= 0.

    Returns
    -------
    float or ndarray
        The terms below; not an approximation unless ``s`` is small.

    Raises
    ------
    ValueError
        If a scalar is out of its range.

    Notes
    -----
    With ``D``, ``c2`` and ``J`` of `small_s_coefficients` and ``b = 1/beta``:

    * ``rho != 1``: ``D s - c2 s^2``, error ``O(s^3)``.
    * ``rho = 1 < beta``: ``s - (1 - b) s^{3/2} - [J - (1 - b)/2] s^2``, error ``O(s^{7/3})``, from
      the inverse moment of a Marchenko-Pastur law that touches zero.
    * ``rho = beta = 1``: ``s - s^2 [kappa log(1/s) + c]``, error ``O(s^{5/2})``, with
      ``kappa = 3 sqrt(3)/(4 pi)`` and ``c = kappa (3 log 3 - 1/2) - 3/4 = 0.4060692...``.
      The density ``w^{-2/3}`` at the hard edge makes the integral of its cube times ``w`` diverge
      logarithmically, cut off at ``w ~ s^{3/2}``.  The closed form of ``c`` was identified from 30
      digits of M(s) by an integer relation; it is not derived.

    Examples
    --------
    >>> round(mmse_small_s(2.0, 0.5, 1e-4) / 1e-4, 12)
    0.624968195913
    """
    s = _read("s", s, low=0)
    beta, rho, s = np.broadcast_arrays(_read_beta(beta), _read_rho(rho), s)
    b, a = 1 / beta, _one_minus_inverse(beta)
    cube = _cube_integral(beta, rho)
    analytic = s * (_degrees_of_freedom(b, rho) - (cube + _repulsion(beta, rho)) * s)
    square_root = s * (1 - a * np.sqrt(s) - (cube - a / 2) * s)
    logarithm = s * (1 + xlogy(_SLOPE * s, s) - _OFFSET * s)
    at_one = np.where(beta == 1, logarithm, square_root)
    return _out(np.where(rho == 1, at_one, analytic))


@_closed_form
def information_small_s(beta: Numeric, rho: Numeric, s: Numeric) -> Any:
    r"""Return the expansion of I_S(1/s) for weak noise.

    Parameters
    ----------
    beta : float or array_like
        Aspect ratio ``d2/d1``, >= 1, may be infinite.
    rho : float or array_like
        Rank ``r/d1``, > 0, may be infinite.
    s : float or array_like
        Noise variance per entry, > 0.

    Returns
    -------
    float or ndarray
        The terms below, in nats per entry; not an approximation unless ``s`` is small.

    Raises
    ------
    ValueError
        If a scalar is out of its range.

    Notes
    -----
    ``I_S = (D/2) log(1/s) + kappa0 + c2 s/2 + O(s^2)`` for ``rho != 1``: the derivative in
    ``1/s`` is half of `mmse_small_s`, and at ``rho = 1`` the last term is the integral of what
    stands there.  The constant is the entropy of the singular values of S.  With
    ``m = min(1, rho)``, and with the mean ``E = int rho_S(w) Phi(w) dw`` of the log potential

    .. math:: \Phi = \mathrm{Re} [2 t + (1 - \rho) \log(1 + t/\rho)
              - (\beta - 1) \log(1 + t/\beta) - \log t]

    of the spectrum of ``S S^T/d2`` (``t`` as in `small_s_coefficients`),

    .. math:: \kappa_0 = \frac{E + (\beta - m) m L}{2 \beta}
              + (1 - D) \Big[C_{\beta'} + \frac12 \log\big(1 - \frac{m}{\beta}\big)\Big] - C_\beta ,

    where ``L`` is the mean of ``log w`` over the non-zero eigenvalues,
    ``beta' = (beta - m)/(1 - m)`` is the aspect ratio of the bulk of pure noise, and
    ``4 C_beta = -1 - log(beta)/beta - [(beta - 1)^2/beta] log(1 - 1/beta)`` comes from the
    Laguerre-Selberg integral.

    References
    ----------
    arXiv:2410.18858, the free entropy; P. J. Forrester, *Log-gases and random matrices* (2010),
    section 4.7 (Selberg integrals).

    Examples
    --------
    >>> round(information_small_s(2.0, 0.5, 1e-3), 6)
    2.345492
    """
    s = _read("s", s, low=0, open_low=True)
    beta, rho, s = np.broadcast_arrays(_read_beta(beta), _read_rho(rho), s)
    b, a = 1 / beta, _one_minus_inverse(beta)
    d, log_q = _degrees_of_freedom(b, rho), -np.log(s)
    cube = _cube_integral(beta, rho)
    analytic = (cube + _repulsion(beta, rho)) * s / 2
    square_root = a * np.sqrt(s) + (cube - a / 2) * s / 2
    logarithm = s / 2 * (_SLOPE * (log_q + 1) + _OFFSET)
    last = np.where(rho == 1, np.where(beta == 1, logarithm, square_root), analytic)
    return _out(d / 2 * log_q + _entropy_constant(beta, rho) + last)


@_closed_form
def mmse_near_strong_recovery(
    alpha: Numeric, beta: Numeric, rho: Numeric, delta: Numeric = 0.0
) -> Any:
    r"""Return the leading Bayes-optimal error near perfect recovery, Gaussian channel.

    Parameters
    ----------
    alpha : float or array_like
        Samples per entry of S, > 0.
    beta : float or array_like
        Aspect ratio ``d2/d1``, >= 1, may be infinite.
    rho : float or array_like
        Rank ``r/d1``, > 0, may be infinite.
    delta : float or array_like
        Variance of the label noise, >= 0.

    Returns
    -------
    float or ndarray
        ``mmse = 1 - q`` to leading order where it is small: for ``delta -> 0`` at
        ``alpha >= D`` and for ``alpha -> D`` from below, ``D`` of `strong_recovery`.  NaN where the
        expansion has no solution, far from there.

    Raises
    ------
    ValueError
        If a scalar is out of its range.

    Notes
    -----
    The expansions of `mmse_small_s` in ``M(s) = alpha s - delta``.  For ``rho != 1`` this is
    ``c2 s^2 + (alpha - D) s = delta`` and contains

    * below threshold, ``delta = 0``: ``mmse = alpha (D - alpha)/c2``;
    * at threshold: ``mmse = D sqrt(delta/c2)``, up to ``O(delta)``;
    * above threshold: ``mmse = D delta/(alpha - D)``, up to ``O(delta^2)``.

    At ``rho = 1 < beta``, where ``D = 1``, the leading terms are
    ``(1 - b) s^{3/2} + (alpha - 1) s = delta``, which gives
    ``mmse = alpha [(1 - alpha)/(1 - b)]^2`` for ``delta = 0``; at ``rho = beta = 1`` they are
    ``s^2 [kappa log(1/s) + c] + (alpha - 1) s = delta``, solved for ``delta = 0`` by the branch
    ``W_{-1}`` of Lambert's function.

    Examples
    --------
    >>> round(mmse_near_strong_recovery(0.7498, 1.0, 0.5), 8)
    0.00043606
    """
    alpha = _read("alpha", alpha, low=0, open_low=True)
    beta, rho = _read_beta(beta), _read_rho(rho)
    delta = _read("delta", delta, low=0)
    alpha, beta, rho, delta = np.broadcast_arrays(alpha, beta, rho, delta)
    b, a = 1 / beta, _one_minus_inverse(beta)
    d = _degrees_of_freedom(b, rho)
    c2 = _cube_integral(beta, rho) + _repulsion(beta, rho)
    regular, rectangular = rho != 1, beta > 1
    s = np.select(
        [regular, rectangular],
        [
            _positive_root(-delta, alpha - d, c2),
            _positive_root(-delta, 0 * alpha, alpha - 1, a) ** 2,
        ],
        _log_law_root(alpha, delta),
    )
    deficit = np.select(  # D - M/s
        [regular, rectangular], [c2 * s, a * np.sqrt(s)], _OFFSET * s - xlogy(_SLOPE * s, s)
    )
    return _out(s * (d - deficit))


@_closed_form
def nuclear_norm_recovery_infinite_beta(rho: Numeric) -> Any:
    """Return the alpha from which nuclear-norm minimisation recovers S, ``beta -> infinity``.

    Parameters
    ----------
    rho : float or array_like
        Rank ``r/d1``, > 0; infinity is allowed.

    Returns
    -------
    float or ndarray
        ``rho (2 - rho)``, and 1 for ``rho >= 1``.

    Raises
    ------
    ValueError
        If a scalar is out of its range.

    Examples
    --------
    >>> nuclear_norm_recovery_infinite_beta(0.5)
    0.75
    """
    rho = np.minimum(_read("rho", rho, low=0, open_low=True, finite=False), 1.0)
    return _out(rho * (2 - rho))


@_closed_form
def nuclear_norm_recovery_square(rho: Numeric) -> Any:
    r"""Return the alpha from which nuclear-norm minimisation recovers S, for ``beta = 1``.

    Parameters
    ----------
    rho : float or array_like
        Rank ``r/d1``, > 0; infinity is allowed.

    Returns
    -------
    float or ndarray
        Threshold in ``[0, 1]``, 1 for ``rho >= 1``.

    Raises
    ------
    ValueError
        If a scalar is out of its range.

    Notes
    -----
    With a penalty tending to 0 and without noise the error vanishes from this alpha on, the
    minimax risk of soft thresholding for matrices of rank ``r``.  The noise has a quarter-circle
    law, and in ``l = 2 sin(phi)``, the threshold over the standard deviation of that noise,

    .. math:: \frac{1}{1-\rho} = \frac1\pi\Big[\frac{4\cos^3\phi}{3\sin\phi} + 2\phi
              + \sin 2\phi\Big], \qquad
              \alpha = 1 - (1-\rho)^2\Big[\frac{2\phi}{\pi} - \frac{\sin 4\phi}{2\pi}
              + \frac{16}{3\pi}\sin\phi\cos^3\phi\Big].

    References
    ----------
    D. Donoho, M. Gavish, A. Montanari, *The phase transition of matrix recovery from Gaussian
    measurements matches the minimax MSE of matrix denoising*, arXiv:1302.2331.

    Examples
    --------
    >>> round(nuclear_norm_recovery_square(0.2), 10)
    0.5716899213
    """
    rest = 1 - np.minimum(_read("rho", rho, low=0, open_low=True, finite=False), 1.0)
    low, high = np.zeros(rest.shape), np.full(rest.shape, np.pi / 2)
    for _ in range(60):
        phi = (low + high) / 2
        sin, cos = np.sin(phi), np.cos(phi)
        over = rest * (4 * cos**3 / (3 * sin) + 2 * phi + 2 * sin * cos) > np.pi
        low, high = np.where(over, phi, low), np.where(over, high, phi)
    risk = (2 * phi - np.sin(4 * phi) / 2 + 16 / 3 * sin * cos**3) / np.pi
    return _out(1 - rest**2 * risk)


@_closed_form
def bulk_merging_square(rho: Numeric) -> Any:
    r"""Return the noise at which the two bulks of the spectrum merge, for ``beta = 1``.

    Parameters
    ----------
    rho : float or array_like
        Rank ``r/d1``, in (0, 1].

    Returns
    -------
    float or ndarray
        ``s_c >= 0``: the spectrum of ``S + sqrt(s) Z`` has a gap if and only if ``s < s_c``.

    Raises
    ------
    ValueError
        If a scalar is out of its range.

    Notes
    -----
    Where two edges meet, the cubic equation of the critical points of the spectral curve has a
    double root, ``(2 + rho - 2 rho s)^3 = 27 rho (1 + rho s)^2``.  In
    ``z = (1 + rho s)^{1/3}`` and ``c = rho^{1/3}`` this is ``2 z^3 + 3 c z^2 = 4 + c^3``.

    Examples
    --------
    >>> round(bulk_merging_square(0.5), 12)
    0.066447113153
    """
    rho = _read("rho", rho, low=0, high=1, open_low=True)
    c = np.cbrt(rho)
    gap = (1 - rho) / (1 + c + c * c)  # 1 - c
    y = _positive_root(-(gap**2) * (2 + c), 6 * (1 + c), 6 + 3 * c, np.full_like(c, 2.0))
    return _out(y * (3 + y * (3 + y)) / rho)


def _degrees_of_freedom(b: Array, rho: Array) -> Array:
    m = np.minimum(rho, 1)
    out: Array = m * (1 + b * (1 - m))
    return out


def _one_minus_inverse(beta: Array) -> Array:
    return np.where(beta < 2, (beta - 1) / beta, 1 - 1 / beta)


def _repulsion(beta: Array, rho: Array) -> Array:
    """Return ``c2 - J`` of `small_s_coefficients`."""
    a, m = _one_minus_inverse(beta), np.minimum(rho, 1)
    below = rho**2 * (a / (1 - rho) + (1 - m) / ((1 - m) + m * a) / beta**2)
    above = a * (1 + 1 / (rho - 1))
    return np.where(rho < 1, below, above)


def _cube_integral(beta: Array, rho: Array) -> Array:
    """Return ``J`` of `small_s_coefficients`; infinite at ``rho = beta = 1``."""
    return _over_product_law(beta, rho, "cube")


def _entropy_constant(beta: Array, rho: Array) -> Array:
    """Return ``kappa0`` of `information_small_s`."""
    energy = _over_product_law(beta, rho, "energy")
    beta, rho = np.minimum(beta, _LARGE), np.minimum(rho, _LARGE)
    b, m = 1 / beta, np.minimum(rho, 1)
    log_mean = _log_mean(np.maximum(rho, 1 / rho)) + _log_mean(beta / m) - np.log(m)
    noise_beta = np.where(m < 1, np.minimum((beta - m) / (1 - m), _LARGE), _LARGE)
    noise = (1 - m) * (1 - b * m) * _laguerre_constant(noise_beta)
    noise += xlog1py((1 - m) * (1 - b * m) / 2, -b * m)
    signal = b * energy / 2 + (1 - m * b) * m * log_mean / 2
    return noise + signal - _laguerre_constant(beta)


def _log_mean(ratio: Array) -> Array:
    """Mean of ``log l`` over the Marchenko-Pastur law of mean 1 and aspect ratio >= 1."""
    deviation: Array = xlog1py(ratio - 1, -1 / ratio)
    return -1 - deviation


def _laguerre_constant(beta: Array) -> Array:
    """Constant of the volume of singular vectors, from the Laguerre-Selberg integral."""
    deviation: Array = xlog1py((beta - 1) * (1 - 1 / beta), -1 / beta)
    return -(1 + deviation + np.log(beta) / beta) / 4


@_quiet
def _over_product_law(beta: Array, rho: Array, integral: Literal["cube", "energy"]) -> Array:
    """Integrate over the spectrum of ``S S^T/d2``, block by block to bound the memory."""
    shape = np.shape(beta)
    beta, rho = (np.minimum(x, _LARGE).reshape(-1, 1) for x in (beta, rho))
    out = np.empty(beta.shape[0])
    for start in range(0, out.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        law = _ProductLaw(beta[block], rho[block])
        out[block] = law.cube() if integral == "cube" else law.energy()
    return out.reshape(shape)


class _ProductLaw:
    """The non-zero spectrum of ``S S^T/d2``, on the nodes of the rule that integrates over it.

    The curve ``(t + beta)(t + 1)(t + rho) = w beta rho t`` has one real root ``t = -tau`` on the
    bulk; sum and product of the roots give the complex pair.  ``tau`` runs between the two larger
    roots of ``tau (sigma - tau)^2 = 4 beta rho``, ``sigma = 1 + beta + rho``.  Distances between
    those and the zeros ``1, beta, rho`` of w are what matters at hard edges.  They are computed
    from products of roots, never by subtraction.
    """

    def __init__(self, beta: Array, rho: Array) -> None:
        e, f = beta - 1, rho - 1
        sigma = 1 + beta + rho
        # tau_3 = sigma + zeta
        zeta = _positive_root(-4 * beta * rho, 0 * sigma, sigma, np.ones_like(sigma))
        # tau_1 = 1 + z_1 and tau_2 = 1 + z_2, with z_1 <= 0 <= z_2
        z_3 = beta + rho + zeta
        product = -((beta - rho) ** 2) / z_3
        total = ((e + f) * (beta + rho) - product) / z_3
        gap = np.sqrt(total**2 - 4 * product)
        larger = (gap + np.abs(total)) / 2
        other = np.where(larger > 0, -product / larger, 0.0)
        z_1 = np.where(total > 0, other, larger)  # -z_1
        z_2 = np.where(total > 0, larger, other)
        # tau_2 - beta and tau_2 - rho: the cubic at beta is beta (1 - rho)^2, and so on
        to_beta = np.where(f == 0, 0.0, beta * f**2 / ((e + z_1) * (1 + rho + zeta)))
        to_rho = rho * e**2 / ((f + z_1) * (1 + beta + zeta))
        to_rho = np.where(f < 0, z_2 - f, np.where(e == 0, 0.0, to_rho))
        length = zeta * (1 + 2 / (1 + gap / (sigma + zeta)))  # tau_3 - tau_2

        v = _STEP * np.arange(_FIRST, _LAST + 1)
        down, up = length * expit(v), length * expit(-v)  # tau - tau_2, tau_3 - tau
        self.beta, self.rho = beta, rho
        self.tau = tau = 1 + z_2 + down
        self.above_sigma = zeta - up  # tau - sigma
        self.imag = np.sqrt(up * down * (down + gap) / tau) / 2
        to_1, to_beta, to_rho = down + z_2, down + to_beta, down + to_rho
        self.one_beta = to_1 * to_rho / (beta * tau)  # |1 + t/beta|^2
        self.one_rho = to_1 * to_beta / (rho * tau)  # |1 + t/rho|^2
        self.w = self.one_beta * to_beta / rho
        dlog_w = 1 / to_1 + 1 / to_beta + 1 / to_rho - 1 / tau
        self.weight = _STEP * (up * down / length) * dlog_w  # of dw/w

    def cube(self) -> Array:
        r"""Return ``4 pi^2/(3 beta^2) int rho_S^3 w dw``, infinite at ``rho = beta = 1``."""
        total = np.sum(self.weight * self.imag**3 / self.w, axis=-1, keepdims=True)
        cube = 4 / (3 * np.pi) * total / self.beta**2
        return np.where((self.rho == 1) & (self.beta == 1), np.inf, cube)[:, 0]

    def energy(self) -> Array:
        """Return the integral of ``rho_S`` times the log potential of the whole spectrum."""
        beta, rho, tau = self.beta, self.rho, self.tau
        near_beta = _log_near_one(self.above_sigma / beta + rho / (beta * tau), self.one_beta)
        near_rho = _log_near_one(self.above_sigma / rho + beta / (rho * tau), self.one_rho)
        potential = (
            self.above_sigma
            + (np.log(tau / (beta * rho)) + (1 - rho) * near_rho - (beta - 1) * near_beta) / 2
        )
        energy: Array = np.sum(self.weight * self.imag / np.pi * potential, axis=-1)
        return energy


def _log_near_one(excess: Array, value: Array) -> Array:
    """Return the logarithm of ``value = 1 + excess``, from the one that has not lost digits."""
    return np.where(np.abs(excess) < 0.5, np.log1p(excess), np.log(value))


def _log_law_root(alpha: Array, delta: Array) -> Array:
    """Solve ``s [kappa log(1/s) + c] = 1 - alpha + delta/s`` for s where the left side grows."""
    gap = (1 - alpha) / _SLOPE
    noiseless = np.where(gap > 0, -gap / lambertw(-gap * np.exp(-_OFFSET / _SLOPE), k=-1).real, 0.0)
    top = np.exp(_OFFSET / _SLOPE - 1)  # the left side grows up to here
    low, high = np.full_like(gap, np.log(np.finfo(float).tiny)), np.full_like(gap, np.log(top))

    def excess(log_s: Array) -> Array:
        s = np.exp(log_s)
        left: Array = s * (_OFFSET - _SLOPE * log_s)
        return left - (1 - alpha) - delta / s

    solvable = excess(high) >= 0
    for _ in range(64):
        middle = (low + high) / 2
        right = excess(middle) >= 0
        low, high = np.where(right, low, middle), np.where(right, middle, high)
    noisy = np.exp((low + high) / 2)
    return np.where(solvable, np.where(delta > 0, noisy, noiseless), np.nan)


# --- strong noise -------------------------------------------------------------------------------


@_closed_form
def mmse_large_s(beta: Numeric, rho: Numeric, s: Numeric) -> Any:
    r"""Return the expansion of M(s) for strong noise.

    Parameters
    ----------
    beta : float or array_like
        Aspect ratio ``d2/d1``, >= 1.
    rho : float or array_like
        Rank ``r/d1``, > 0, may be infinite.
    s : float or array_like
        Noise variance per entry, > 0, may be infinite.

    Returns
    -------
    float or ndarray
        The terms below; error ``O(s^{-7})``.

    Raises
    ------
    ValueError
        If a scalar is out of its range.

    Notes
    -----
    With ``y = 1/(1 + s)`` and ``k = beta/rho^2``,

    .. math:: M = (1 - y) + (1 - y)^2 [-k y^3 + (\beta (1 + \beta)/\rho^3 - k^2) y^5 + 7 k^2 y^6]
              + \dots
              = 1 - 1/s + 1/s^2 - (1 + k)/s^3 + \dots,

    twice the derivative of `information_large_s` in ``1/s``.  Useful for
    ``s >> sqrt(beta)/rho``; the expansion is also one in ``1/rho``.

    Examples
    --------
    >>> round(mmse_large_s(2.0, 0.5, 100.0), 10)
    0.9900913971
    """
    k, mixed, y, one_minus_y = _read_large_s(beta, rho, s)
    series = y**2 * y * (-k + y**2 * (mixed - k**2 + 7 * k**2 * y))
    return _out(one_minus_y * (1 + one_minus_y * series))


@_closed_form
def information_large_s(beta: Numeric, rho: Numeric, s: Numeric) -> Any:
    r"""Return the expansion of I_S(1/s) for strong noise.

    Parameters
    ----------
    beta, rho, s : float or array_like
        As in `mmse_large_s`.

    Returns
    -------
    float or ndarray
        The terms below, in nats per entry; error ``O(s^{-8})``.

    Raises
    ------
    ValueError
        If a scalar is out of its range.

    Notes
    -----
    With ``y = 1/(1 + s)`` and ``k = beta/rho^2``,

    .. math:: I_S = \frac12 \log(1 + 1/s) - \frac{k}{8} y^4
              + \Big[\frac{\beta (1 + \beta)}{12 \rho^3} - \frac{k^2}{12}\Big] y^6
              + \frac{k^2}{2} y^7 + \dots

    This is the Edgeworth expansion of the entropy of ``S + sqrt(s) Z`` about the Gaussian matrix of
    the same covariance.  Its cumulants live on the cycles of the complete bipartite graph of rows
    and columns: one of length 2 l is worth ``r^{1-l} y^l``.  The terms count, per entry, the
    4-cycles; three 4-cycles in a K_{2,3} and the 6-cycles; and the 6-cycles with one chord.

    Examples
    --------
    >>> round(information_large_s(2.0, 0.5, 100.0), 12)
    0.004975155816
    """
    k, mixed, y, one_minus_y = _read_large_s(beta, rho, s)
    series = (y**2) ** 2 * (-k / 8 + y**2 * ((mixed - k**2) / 12 + k**2 * y / 2))
    return _out(np.log1p(y / one_minus_y) / 2 + series)


def _read_large_s(beta: Any, rho: Any, s: Any) -> tuple[Array, Array, Array, Array]:
    # squares and products: powers of arrays depend, in the last digit, on an element's place
    beta = _read("beta", beta, low=1)
    rho = _read_rho(rho)
    s = _read("s", s, low=0, open_low=True, finite=False)
    return beta / rho**2, beta * (1 + beta) / (rho**2 * rho), 1 / (1 + s), 1 / (1 + 1 / s)


# --- tools --------------------------------------------------------------------------------------


def _read(
    name: str,
    value: Any,
    *,
    low: float,
    high: float = np.inf,
    open_low: bool = False,
    finite: bool = True,
) -> Array:
    """Return ``value`` as an array: ValueError for a bad scalar, NaN for a bad element."""
    try:
        given = np.asarray(value)
        # NumPy would read text as numbers, and drop imaginary parts
        if given.dtype.kind not in "biufO" or any(isinstance(x, str) for x in _objects(given)):
            raise TypeError("not real numbers")
        array = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{name} must be a number or an array of numbers, got {value!r}"
        ) from error
    good = (array > low if open_low else array >= low) & (array <= high)
    if finite:
        good &= np.isfinite(array)
    if array.ndim == 0 and not good:
        allowed = f"{'>' if open_low else '>='} {low:g}"
        if high < np.inf:
            allowed = f"in {'(' if open_low else '['}{low:g}, {high:g}]"
        raise ValueError(
            f"{name} must be {allowed}{' and finite' if finite else ''}, got {float(array)!r}"
        )
    return np.where(good, array, np.nan) + 0.0  # 1/-0.0 is -inf


def _objects(array: npt.NDArray[Any]) -> Any:
    return array.flat if array.dtype.kind == "O" else ()


def _read_beta(beta: Any) -> Array:
    return _read("beta", beta, low=1, finite=False)


def _read_rho(rho: Any) -> Array:
    return _read("rho", rho, low=0, open_low=True, finite=False)


def _out(values: npt.ArrayLike) -> Any:
    array = np.asarray(values)
    return array.item() if array.ndim == 0 else array


@_quiet
def _positive_root(*coefficients: npt.ArrayLike) -> Array:
    """Return the root x > 0 of ``sum_k c_k x^k`` whose coefficients change sign once, from - to +.

    By Descartes' rule it is the only one.  Without a negative coefficient the answer is 0, its
    limit; without a positive one it is infinity.  Newton steps on ``log(P/N)`` against ``log x``,
    where P and N are the sums of positive and negative terms, inside a bracket that they shrink.
    """
    c = np.array(np.broadcast_arrays(*coefficients), dtype=np.float64)
    k = np.arange(len(c), dtype=np.float64).reshape(-1, *(1,) * (c.ndim - 1))
    log_p = np.log(np.where(c > 0, c, 0.0))
    log_n = np.log(np.where(c < 0, -c, 0.0))
    # Below `low` one negative term outweighs all positive ones, above `high` the reverse.
    low, high = np.full(c.shape[1:], np.inf), np.full(c.shape[1:], -np.inf)
    for i, j in itertools.combinations(range(len(c)), 2):
        balance = np.where((c[i] < 0) & (c[j] > 0), (log_n[i] - log_p[j]) / (j - i), np.nan)
        low, high = np.fmin(low, balance), np.fmax(high, balance)
    low, high = low - np.log(len(c)), high + np.log(len(c))
    x, moving = (low + high) / 2, np.ones(low.shape, dtype=bool)
    for _ in range(100):
        p, n = log_p + k * x, log_n + k * x
        top_p, top_n = p.max(axis=0), n.max(axis=0)
        p, n = np.exp(p - top_p), np.exp(n - top_n)
        sum_p, sum_n = p.sum(axis=0), n.sum(axis=0)
        value = (top_p - top_n) + np.log(sum_p / sum_n)
        slope = (k * p).sum(axis=0) / sum_p - (k * n).sum(axis=0) / sum_n
        low, high = np.where(value < 0, x, low), np.where(value > 0, x, high)
        new = x - value / slope
        new = np.where((new >= low) & (new <= high), new, (low + high) / 2)
        x, step = np.where(moving, new, x), np.abs(new - x)
        moving = moving & (step > 1e-9)  # each for itself: its digits do not depend on the others
        if not moving.any():
            break
    root = np.exp(x)
    for _ in range(2):  # polish in x itself: log x carries the rounding of its size
        value, slope = np.zeros_like(root), np.zeros_like(root)
        for coefficient in c[::-1]:
            slope = slope * root + value
            value = value * root + coefficient
        step = np.where(np.isfinite(value / slope), value / slope, 0.0)
        root = np.where(np.abs(step) < 1e-6 * root, root - step, root)
    root = np.where(np.any(c < 0, axis=0), root, 0.0)
    root = np.where(np.any(c > 0, axis=0), root, np.inf)
    return np.where(np.isnan(c).any(axis=0), np.nan, root)
