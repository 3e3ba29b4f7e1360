r"""The rectangular spherical integral, from finite size to its three limits.

For ``S`` and ``Y`` of shape (d1, d2), ``d1 <= d2``, and Haar matrices ``U`` (d1 x d1) and ``V``
(d2 x d2), orthogonal (``dyson = 1``) or unitary (``dyson = 2``), everything here is about

.. math:: \mathcal{I} = \int dU\, dV\, \exp\left(\mathrm{dyson} \cdot \mathrm{snr} \;
          \mathrm{Re}\,\mathrm{Tr}\left[Y^\dagger U S V\right]\right),

the partition function of ``S`` given ``Y = U S V + noise`` when only the singular values of ``S``
are known.  It depends on the singular values of the two matrices alone:

* `exact_log_integral`: ``log I`` at finite size, complex matrices;
* `asymptotic_limit`: ``log I/(d1 d2)`` when ``S`` has extensive rank and ``Y`` is ``S`` plus noise;
* `rank_one_limit`, `finite_rank_limit`: ``log I/d2`` when ``S`` has finite rank;
* `finite_size_extrapolation`: the limit of `exact_log_integral` for two given laws.

No closed form is known for real matrices of finite size: the determinant formula rests on the
unitary characters, which the orthogonal groups replace by zonal polynomials.  In the limits, the
real and the complex integral differ by the factor ``dyson`` and by nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from numpy.polynomial import legendre
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import gammaln

from .._arrays import Array, Numeric, check, check_integer, check_number, scalar_or_array

__all__ = [
    "Extrapolation",
    "asymptotic_limit",
    "exact_log_integral",
    "finite_rank_limit",
    "finite_size_extrapolation",
    "quantile_means",
    "rank_one_limit",
    "rank_one_threshold",
]


class Transform(Protocol):
    """What the finite-rank limits ask of a law: its upper edge and its Stieltjes transform."""

    @property
    def beta(self) -> float:
        """Aspect ratio ``d2/d1``."""

    @property
    def edges(self) -> Array:
        """Edges of the bulks in singular values, shape (bulks, 2)."""

    @property
    def atoms(self) -> Array:
        """Atoms as rows (singular value, mass)."""

    def stieltjes(self, z: float) -> Any:
        """Return ``(1/d1) tr (z - W)^{-1}``."""


class Density(Protocol):
    """What the quantile discretisation asks of a law."""

    @property
    def beta(self) -> float:
        """Aspect ratio ``d2/d1``."""

    @property
    def edges(self) -> Array:
        """Edges of the bulks in singular values, shape (bulks, 2)."""

    @property
    def atoms(self) -> Array:
        """Atoms as rows (singular value, mass)."""

    def density(self, y: Array) -> Any:
        """Return the density of singular values, atoms apart."""


class Information(Protocol):
    """What the extensive-rank limit asks of a prior."""

    @property
    def second_moment(self) -> float:
        """``E||S||^2/(d1 d2)``."""

    def information(self, snr: Any) -> Any:
        """Return the mutual information per entry, in nats."""


# --------------------------------------------------------------------------------------------
# Finite size
# --------------------------------------------------------------------------------------------

_MOST_BITS = 1 << 16
_MOST_ENTRIES = 5e6  # in a table of divided differences: beyond, hours and gigabytes


def exact_log_integral(
    a: npt.ArrayLike, b: npt.ArrayLike, *, snr: float = 1.0, d2: int | None = None
) -> float:
    r"""Return the logarithm of the spherical integral of complex matrices of finite size.

    Parameters
    ----------
    a, b : array_like, shape (d1,)
        Singular values of ``S`` and of ``Y`` (of the matrices themselves, not divided by
        ``sqrt(d2)``), in any order, ``>= 0``; any of them may vanish or coincide.
    snr : float
        Factor in the exponent, ``>= 0``.
    d2 : int, optional
        Number of columns, ``d2 >= d1``.  The default is ``d1``: square matrices.

    Returns
    -------
    float
        ``log int dU dV exp(2 snr Re Tr[Y^dagger U S V])`` over the Haar measures of U(d1) and
        U(d2), in nats, correct to the last digits of a double.

    Raises
    ------
    ValueError
        If a parameter is out of its range, ``a`` and ``b`` differ in length, or they are too large
        for the exact formula (two precisions in succession still differ beyond 65536 bits).

    Notes
    -----
    With ``N = d1``, ``nu = d2 - d1``, ``x = snr a^2``, ``y = snr b^2``, ``c_k = 1/(k! (k+nu)!)``
    and the Vandermonde product ``Delta(x) = prod_{i<j} (x_j - x_i)``,

    .. math:: \mathcal{I} = \prod_{k<N} \frac{1}{c_k}\;
              \frac{\det\left[f(x_i y_j)\right]}{\Delta(x)\,\Delta(y)}, \qquad
              f(z) = \sum_{k \ge 0} c_k z^k = z^{-\nu/2} I_\nu(2\sqrt{z})

    (Berezin and Karpelevich; Guhr and Wettig).  The Vandermonde products are divided out before
    anything is evaluated, by Newton's divided differences in ``x`` and in ``y``.  Those of
    ``z^k`` are complete homogeneous symmetric polynomials, hence

    .. math:: \mathcal{I} = \prod_{k<N} \frac{1}{c_k}\; \det D, \qquad
              D_{ij} = \sum_k c_k\, h_{k-i}(x_0, \ldots, x_i)\, h_{k-j}(y_0, \ldots, y_j).

    It has no denominators: coinciding and vanishing singular values, for which the first formula
    needs derivatives, are no special case, and nearly coinciding ones lose nothing.  Every term is
    positive and every leading minor of ``D`` is a positive integral of smaller size, so that
    elimination needs no pivoting and the smallest nodes come first.  The precision starts from
    the size and doubles until two values agree; the last, at twice the precision, is returned.

    The cost grows like ``d1`` times the length of the series, a few times
    ``snr max(a) max(b) + d1``.  With singular values of order ``sqrt(d2)`` and ``snr = 1``:
    0.05 s at ``d1 = 8``, half a second at 32, three seconds at 64; in proportion to ``snr``.

    References
    ----------
    .. [1] F. A. Berezin and F. I. Karpelevich, Zonal spherical functions and Laplace operators
       on some symmetric spaces, Dokl. Akad. Nauk SSSR 118 (1958) 9.
    .. [2] T. Guhr and T. Wettig, An Itzykson-Zuber-like integral and diffusion for complex
       ordinary and supermatrices, J. Math. Phys. 37 (1996) 6395, arXiv:hep-th/9605110.

    Examples
    --------
    One row: the integral is a Bessel function, ``Gamma(d2) z^{1-d2} I_{d2-1}(2 z)``.

    >>> import math
    >>> from scipy.special import iv
    >>> from bsr_theory.spectra.spherical import exact_log_integral
    >>> value = exact_log_integral([0.5], [3.0], d2=3)
    >>> math.isclose(value, math.log(2 * iv(2, 3.0) / 1.5**2), rel_tol=1e-14)
    True

    Rank one against the identity, a matrix element of a Haar unitary matrix:

    >>> round(exact_log_integral([0, 0, 2], [1, 1, 1]), 12)
    1.166611903194
    """
    x, y = _vector("a", a), _vector("b", b)
    if x.size != y.size:
        raise ValueError(f"a and b must have the same length, got {x.size} and {y.size}")
    snr = check_number("snr", snr)
    d1 = x.size
    nu = (d1 if d2 is None else check_integer("d2", d2, d1)) - d1
    if float(snr) * float(x[-1]) * float(y[-1]) == 0.0:
        return 0.0
    bits = 64 + 4 * d1
    previous = _log_integral(x, y, snr, nu, bits)
    while bits < _MOST_BITS:
        bits *= 2
        value = _log_integral(x, y, snr, nu, bits)
        if value is not None and previous is not None:
            if abs(value - previous) <= 2.0**-54 * abs(previous):
                return float(value)
        previous = value
    raise ValueError(
        f"snr max(a) max(b) is too large for the exact formula: no agreement at {bits} bits"
    )


def _log_integral(a: Array, b: Array, snr: float, nu: int, bits: int) -> Any:
    """Return ``log I`` in arithmetic of so many bits, None when they are visibly too few."""
    import mpmath

    mp = mpmath.mp.clone()  # the precision of the default context is the user's
    mp.prec = bits + 20
    size = a.size
    x, y = ([snr * mp.mpf(value) ** 2 for value in nodes.tolist()] for nodes in (a, b))
    length = _series_length(float(x[-1] * y[-1]), size, nu, bits)
    h, log_h = _divided_differences(mp, x, nu, length, bits)
    g, log_g = _divided_differences(mp, y, nu, length, bits)
    matrix = [[mp.mpf(int(entry)) for entry in row] for row in h @ g.T]
    # the weights in h and g are relative to c_0 = 1/nu!
    total = log_h + log_g - size * mp.loggamma(nu + 1)
    total += sum(mp.loggamma(k + 1) + mp.loggamma(k + nu + 1) for k in range(size))
    for k, pivot_row in enumerate(matrix):
        pivot = pivot_row[k]
        if pivot <= 0:
            return None
        total += mp.log(pivot)
        for row in matrix[k + 1 :]:
            factor = row[k] / pivot
            for j in range(k + 1, size):
                row[j] -= factor * pivot_row[j]
    return total


def _divided_differences(
    mp: Any, x: Sequence[Any], nu: int, length: int, bits: int
) -> tuple[npt.NDArray[np.object_], Any]:
    """Return ``H[i, k] = sqrt(c_k/c_0) h_{k-i}(x_0..x_i)`` and the log of its scale.

    Each row is divided by its largest entry and rounded to a multiple of ``2^-bits``: products of
    integers are cheap, those that do not count are products with zero.
    """
    weight = [mp.one, *(1 / mp.sqrt(mp.mpf(k) * (k + nu)) for k in range(1, length))]
    above = [mp.one] + [mp.zero] * (length - 1)  # row i - 1, shifted by one column
    rows, log_scale = [], mp.zero
    for node in x:
        row, entry = [], mp.zero
        for w, corner in zip(weight, above, strict=True):
            # h_m(x_0..x_i) = h_m(x_0..x_{i-1}) + x_i h_{m-1}(x_0..x_i)
            entry = (corner + node * entry) * w
            row.append(entry)
        scale = mp.ldexp(1 / max(row), bits)
        rows.append([int(entry * scale) for entry in row])
        log_scale -= mp.log(scale)
        above = [mp.zero, *row[:-1]]
    return np.array(rows, dtype=object), log_scale


def _series_length(z: float, size: int, nu: int, bits: int) -> int:
    """Return how many powers of ``z = max(x) max(y)`` the entries of D need.

    ``x^m <= h_m(x_0..x_i) <= binomial(m + i, i) x^m`` at the largest node x: the series stops
    where the upper bound of a term falls below ``2^-bits`` of the lower bound of the largest.
    """
    log_z = math.log(min(max(z, 1e-300), 1e300))
    peak = math.exp(0.5 * log_z)  # sqrt(z) = snr max(a) max(b): the largest term of f(z)
    if size * (size + peak) > _MOST_ENTRIES:
        raise ValueError(f"snr max(a) max(b) is too large for the exact formula: {peak:.3g}")
    end = size + int(2.0 * peak) + bits
    while True:
        k = np.arange(size - 1, end)
        smallest = (k - size + 1) * log_z - gammaln(k + 1) - gammaln(k + nu + 1)
        paths = gammaln(k + 1) - gammaln(k - size + 2) - gammaln(size)
        counts = smallest + 2.0 * paths > smallest.max() - (bits + 8) * math.log(2.0)
        needed = int(k[counts][-1]) + 2
        if needed < end:
            return needed
        end *= 2


# --------------------------------------------------------------------------------------------
# Extensive rank
# --------------------------------------------------------------------------------------------


def asymptotic_limit(prior: Information, snr: Numeric, *, dyson: int = 1) -> Any:
    r"""Return the limit of the integral when ``Y`` is ``S`` plus Gaussian noise.

    Parameters
    ----------
    prior : object
        Law of ``S``: any prior of the package, or what has ``second_moment``
        (``E||S||^2/(d1 d2)``) and ``information(snr)`` (nats per entry).
    snr : float or array_like
        Factor in the exponent and inverse of the noise variance, ``>= 0`` and finite.
    dyson : {1, 2}
        1 for real matrices and orthogonal groups, 2 for complex matrices and unitary groups.

    Returns
    -------
    float or ndarray
        ``lim (1/(d1 d2)) log int dU dV exp(dyson snr Re Tr[Y^dagger U S V])``, in nats.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Notes
    -----
    ``Y = S + Z/sqrt(snr)``, the entries of ``Z`` with ``E|Z_ij|^2 = 1``, so that ``d2^{-1/2}``
    times the singular values of ``S`` and of ``Y`` follow two limiting laws tied by additive
    noise.  The integral is the evidence of ``Y``, the likelihood averaged over the rotations of
    ``S``, without its Gaussian prefactors.  The average of its logarithm is, up to them, the
    mutual information ``I`` of ``S`` and ``Y`` (per entry, for the real problem), and so

    .. math:: \lim \frac{\log \mathcal{I}}{d_1 d_2}
              = \mathrm{dyson} \left[\mathrm{snr}\, m_2 - I(\mathrm{snr})\right],
              \qquad m_2 = \lim \frac{E\|S\|^2}{d_1 d_2}.

    For a rotationally invariant ``S`` the information depends on nothing but the law of the
    singular values of ``Y`` (arXiv:2410.18858), and so does the limit.

    References
    ----------
    .. [1] V. Erba, E. Troiani, L. Biggio, A. Maillard and L. Zdeborova, Bilinear Sequence
       Regression: A Model for Learning from Long Sequences of High-dimensional Tokens,
       arXiv:2410.18858.

    Examples
    --------
    A matrix with independent Gaussian entries, whose information is ``log(1 + snr)/2``:

    >>> import math
    >>> from types import SimpleNamespace
    >>> from bsr_theory.spectra.spherical import asymptotic_limit
    >>> prior = SimpleNamespace(second_moment=1.0, information=lambda snr: 0.5 * math.log1p(snr))
    >>> round(asymptotic_limit(prior, 2.0, dyson=2), 12)
    2.901387711332
    """
    dyson = _dyson(dyson)
    snr = check("snr", snr, low=0.0, allow_inf=False)
    with np.errstate(over="ignore", invalid="ignore"):
        energy = np.multiply(snr, prior.second_moment)
        limit = dyson * (energy - np.asarray(prior.information(snr)))
    return scalar_or_array(np.where(np.isinf(energy), np.inf, limit))


# --------------------------------------------------------------------------------------------
# Finite rank
# --------------------------------------------------------------------------------------------


def rank_one_threshold(law: Transform, *, largest: float | None = None) -> float:
    """Return the strength beyond which the rank-one integral sticks to the top singular value.

    Parameters
    ----------
    law : SpectralLaw
        Law of the singular values of ``Y/sqrt(d2)``; used are `beta`, `edges`, `atoms` and
        `stieltjes`.
    largest : float, optional
        Largest singular value of ``Y/sqrt(d2)`` when it is an outlier.  The default is the upper
        edge of the law.

    Returns
    -------
    float
        The critical ``theta`` of `rank_one_limit`; infinite when the law has an atom there.

    Raises
    ------
    ValueError
        If `largest` lies below the upper edge.

    Notes
    -----
    It is ``sqrt(T(largest^2))`` with the ``T`` of `rank_one_limit`.  Without an outlier, it is
    dual to the detection of a spike: a perturbation of ``Y/sqrt(d2)`` by one singular value
    leaves the bulk when that exceeds ``1/(sqrt(beta) theta)`` (arXiv:1103.2221).

    Examples
    --------
    Pure noise: ``theta = beta^{-1/4}``.

    >>> from bsr_theory.spectra import MarchenkoPasturLaw
    >>> from bsr_theory.spectra.spherical import rank_one_threshold
    >>> round(rank_one_threshold(MarchenkoPasturLaw(beta=16.0, ratio=1 / 16)), 12)
    0.5
    """
    beta, edge = _support(law)
    return math.sqrt(_strength(law, beta, edge, _top("largest", largest, edge) ** 2))


def rank_one_limit(
    theta: Numeric, law: Transform, *, dyson: int = 1, largest: float | None = None
) -> Any:
    r"""Return the limit of the spherical integral when ``S`` has rank one.

    Parameters
    ----------
    theta : float or array_like
        ``snr`` times the singular value of ``S/sqrt(d2)``, ``>= 0`` and finite.
    law : SpectralLaw
        Law of the singular values of ``Y/sqrt(d2)``; used are `beta`, `edges`, `atoms` and
        `stieltjes` beyond the upper edge.
    dyson : {1, 2}
        1 for real matrices and orthogonal groups, 2 for complex matrices and unitary groups.
    largest : float, optional
        Largest singular value of ``Y/sqrt(d2)`` when it is an outlier.  The default is the upper
        edge of the law.

    Returns
    -------
    float or ndarray
        ``lim (1/d2) log int du dv exp(dyson d2 theta Re[u^dagger (Y/sqrt(d2)) v])``, the vectors
        uniform on the unit spheres of dimensions d1 and d2, in nats.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or the Stieltjes transform of the law has too few
        digits beyond its edge (a bulk that is far narrower than its distance from 0).

    Notes
    -----
    Let ``W = Y Y^dagger/d2``, ``g(z) = (1/d1) tr (z - W)^{-1}`` and

    .. math:: T(z) = \frac{g(z)}{\beta} \left[1 - \frac{1}{\beta} + \frac{z g(z)}{\beta}\right],

    which decreases beyond the spectrum.  Two Lagrange multipliers for the norms of ``u`` and
    ``v`` make the integral Gaussian; its saddle point is ``T(z) = theta^2``.  When
    ``theta^2 > T(largest^2)`` there is none, and ``z`` sticks to ``largest^2``: the vectors align
    with the top singular vectors and the limit grows like ``theta largest``.  In both regimes

    .. math:: J(\theta) = \frac{1}{\beta} \left[C + \tfrac12 K(z) - \tfrac12 \log(1 + C)\right]
              - \tfrac12 \log\left(1 + \frac{C}{\beta}\right), \qquad
              (1 + C)\left(1 + \frac{C}{\beta}\right) = \beta \theta^2 z,

    ``K(z) = int_z^inf (g(x) - 1/x) dx``, and the value returned is ``dyson J``.  At the saddle
    point ``C = z g(z) - 1``; as a function of ``theta^2`` that is the rectangular R-transform of
    the law, up to the scale of its argument, and ``dJ/dtheta = C/(beta theta)`` is the theorem
    of Benaych-Georges.  Small ``theta``: ``J = theta^2 m1/2``, ``m1`` the mean of W.  The
    absolute error is about 1e-12.

    References
    ----------
    .. [1] F. Benaych-Georges, Rectangular R-transform as the limit of rectangular spherical
       integrals, arXiv:0909.0178.
    .. [2] A. Guionnet and M. Maida, A Fourier view on the R-transform and related asymptotics of
       spherical integrals, arXiv:math/0406121 (the regime beyond the threshold).

    Examples
    --------
    Pure noise, ``J = theta^2/2`` up to ``beta^{-1/4}``; growth is slower beyond.

    >>> from bsr_theory.spectra import MarchenkoPasturLaw
    >>> from bsr_theory.spectra.spherical import rank_one_limit
    >>> noise = MarchenkoPasturLaw(beta=4.0, ratio=0.25)
    >>> rank_one_limit([0.3, 0.6, 1.2], noise).round(8)
    array([0.045     , 0.18      , 0.68548261])
    """
    dyson = _dyson(dyson)
    theta = check("theta", theta, low=0.0, allow_inf=False)
    beta, edge = _support(law)
    top = _top("largest", largest, edge)
    values = [_rank_one(float(value), law, beta, edge, top) for value in np.ravel(theta)]
    with np.errstate(over="ignore"):
        return scalar_or_array(dyson * np.reshape(values, np.shape(theta)))


def finite_rank_limit(
    thetas: npt.ArrayLike, law: Transform, *, dyson: int = 1, outliers: npt.ArrayLike = ()
) -> float:
    r"""Return the limit of the spherical integral when ``S`` has a finite number of ranks.

    Parameters
    ----------
    thetas : array_like, shape (k,)
        ``snr`` times the nonzero singular values of ``S/sqrt(d2)``, in any order.
    law : SpectralLaw
        Law of the singular values of ``Y/sqrt(d2)``, as in `rank_one_limit`.
    dyson : {1, 2}
        1 for real matrices and orthogonal groups, 2 for complex matrices and unitary groups.
    outliers : array_like, shape (l,)
        Singular values of ``Y/sqrt(d2)`` beyond the upper edge of the law, in any order.

    Returns
    -------
    float
        ``lim (1/d2) log int dU dV exp(dyson snr Re Tr[Y^dagger U S V])``, in nats.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Notes
    -----
    The integral factorises: the i-th largest ``theta`` meets the i-th largest outlier, or the
    upper edge when there are fewer outliers than ranks,

    .. math:: \lim \frac{\log \mathcal{I}}{d_2} = \sum_{i=1}^k
              \mathrm{dyson}\; J(\theta_i; y_i),

    with the ``J`` of `rank_one_limit`.  Guionnet and Husson proved it for square Hermitian
    matrices; below the thresholds the outliers do not count.

    References
    ----------
    .. [1] A. Guionnet and J. Husson, Asymptotics of k dimensional spherical integrals and
       applications, arXiv:2101.01983.

    Examples
    --------
    >>> from bsr_theory.spectra import MarchenkoPasturLaw
    >>> from bsr_theory.spectra.spherical import finite_rank_limit
    >>> noise = MarchenkoPasturLaw(beta=4.0, ratio=0.25)
    >>> round(finite_rank_limit([0.3, 0.6], noise), 12)
    0.225
    """
    dyson = _dyson(dyson)
    beta, edge = _support(law)
    ranks = _vector("thetas", thetas)
    above = _vector("outliers", outliers) if np.size(outliers) else np.empty(0)
    tops = [_top("outliers", top, edge) for top in above[::-1].tolist()]
    tops += [edge] * (ranks.size - len(tops))
    pairs = zip(ranks[::-1].tolist(), tops, strict=False)
    return dyson * sum(_rank_one(theta, law, beta, edge, top) for theta, top in pairs)


# theta times the largest singular value
_WEAK = 1e-7
_STRONG = 1e20


def _support(law: Transform) -> tuple[float, float]:
    """Return the aspect ratio and the largest singular value of the law."""
    beta = float(check("beta", law.beta, low=1.0, allow_inf=False))
    return beta, float(np.max(np.concatenate([np.ravel(law.edges), law.atoms[:, 0]])))


def _top(name: str, value: float | None, edge: float) -> float:
    if value is None:
        return edge
    try:
        return check_number(name, value, low=edge)
    except ValueError as error:
        raise ValueError(
            f"{name} must be finite and >= the upper edge {edge!r}, got {value!r}"
        ) from error


def _strength(law: Transform, beta: float, edge: float, z: float) -> float:
    """Return ``T(z)``, the square of the theta whose saddle point is at z."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        g = complex(law.stieltjes(z)).real
    if 0.0 < g < math.inf:
        return g / beta * (1.0 - 1.0 / beta + z * g / beta)
    if z > edge * edge:
        raise ValueError(
            f"law must have a positive Stieltjes transform beyond its edge, got {g!r} at {z!r}"
        )
    return math.inf  # an atom, or an edge where the density diverges


def _rank_one(theta: float, law: Transform, beta: float, edge: float, top: float) -> float:
    """Return ``J(theta)`` of one real rank, the spectrum ending at ``top >= edge``."""
    if math.isnan(theta) or theta == 0.0:
        return theta
    start = top * top
    if theta * top > _STRONG:
        return theta * top  # the rest grows like a logarithm
    if theta * top < _WEAK:
        # the next term is smaller by (theta top)^2
        return 0.5 * theta * theta * _mean(law, edge)
    if theta * theta < _strength(law, beta, edge, start):
        # g has a square root at an edge: smooth in v = sqrt(z - start)
        def excess(v: float) -> float:
            return 1.0 - theta * theta / _strength(law, beta, edge, start + v * v)

        v = 1.0 / theta
        while excess(v) > 0.0:
            v *= 2.0
        # J is stationary in z: what is left of the error of v counts twice
        v, result = brentq(
            excess, 0.0, v, xtol=1e-12 * (edge or 1.0), rtol=1e-14, full_output=True, disp=False
        )
        if not result.converged:
            raise ValueError(f"law must have a smooth Stieltjes transform beyond {edge!r}")
        z = start + v * v
    else:
        z = start
    # with gamma = C/beta, (1/beta + gamma)(1 + gamma) = theta^2 z: without cancellation
    pull, half = theta * math.sqrt(z), 0.5 + 0.5 / beta
    root = math.hypot(0.5 - 0.5 / beta, pull)
    gamma = root - half if root > 2.0 * half else (pull * pull - 1.0 / beta) / (half + root)
    c = beta * gamma
    log_c = math.log1p(c) if c < math.inf else math.log(beta) + math.log(gamma)
    per_row = 0.5 * _tail(law, z, edge) - 0.5 * log_c
    return gamma + per_row / beta - 0.5 * math.log1p(gamma)


def _mean(law: Transform, edge: float) -> float:
    """Return the mean of W: that of the law, or the leading term of its Stieltjes transform."""
    moments = getattr(law, "moments", None)
    if moments is not None:
        return float(moments(1))
    # z (z g(z) - 1) = m1 + m2/z + ..., extrapolated
    z = 1e5 * edge * edge
    near, far = (x * (x * complex(law.stieltjes(x)).real - 1.0) for x in (z, 2.0 * z))
    return 2.0 * far - near


def _tail(law: Transform, z: float, edge: float) -> float:
    """Return ``int_z^inf (g(x) - 1/x) dx``."""
    start = edge * edge
    first = math.sqrt(max(z - start, 0.0))
    scale = max(edge, first)

    def integrand(ratio: float) -> float:
        # x = edge^2 + v^2 undoes the square root at the edge, v = first + scale ratio/(1 - ratio)
        v = first + scale * ratio / (1.0 - ratio)
        x = start + v * v
        slope = 2.0 * v * scale / (1.0 - ratio) ** 2
        with np.errstate(over="ignore"):
            return slope * (complex(law.stieltjes(x)).real - 1.0 / x)

    # full_output: the error estimate is looked at here, a warning adds nothing
    value, error, *_ = quad(integrand, 0, 1, epsabs=1e-13, epsrel=1e-13, limit=200, full_output=1)
    if not error < 1e-9:
        raise ValueError(
            f"law must have a smooth Stieltjes transform beyond {edge!r}; "
            f"its quadrature has the error {error!r}"
        )
    return float(value)


# --------------------------------------------------------------------------------------------
# From finite size to the limit
# --------------------------------------------------------------------------------------------

_POINTS, _WEIGHTS = legendre.leggauss(16)
# Legendre coefficients of a function from its values at the 16 points
_TO_LEGENDRE = (legendre.legvander(_POINTS, 15) * _WEIGHTS[:, None]).T
_TO_LEGENDRE *= np.arange(16)[:, None] + 0.5
_DEPTH = 40  # bisections: down to panels of 1e-12

# Cell means of a smooth law err by N^-2.  The last cell before a square-root edge is N^-2/3 wide,
# so powers in steps of 1/3 are to be expected; fits up to N = 96 favour the first set, by two
# digits where the noise is strong.  The other sets are there to disagree with it.
_EXPONENTS = (
    (2.0, 7 / 3, 8 / 3, 3.0),
    (2.0, 7 / 3, 8 / 3),
    (2.0, 8 / 3, 10 / 3),
    (5 / 3, 2.0, 7 / 3),
)


def quantile_means(law: Density, n: int) -> Array:
    """Return ``n`` singular values that stand for a law: root mean squares of its quantile cells.

    Parameters
    ----------
    law : SpectralLaw
        Used are `edges`, `atoms` and `density`, of singular values.
    n : int
        Number of values, ``n >= 1``.

    Returns
    -------
    ndarray, shape (n,)
        Increasing.  The j-th is ``sqrt(n int y^2 density dy)`` over the j-th cell of mass 1/n.

    Raises
    ------
    ValueError
        If `n` is out of its range, or the mass of the law is not 1 within 1e-6.

    Notes
    -----
    Their mean square is that of the law, without discretisation error.  A cell may take in a part
    of an atom; where the mass of an atom is a multiple of 1/n, none does.

    Examples
    --------
    >>> from bsr_theory.spectra import MarchenkoPasturLaw
    >>> from bsr_theory.spectra.spherical import quantile_means
    >>> y = quantile_means(MarchenkoPasturLaw(beta=2.0, ratio=0.5, scale=3.0), 4)
    >>> y.round(4)
    array([0.8501, 1.3419, 1.8441, 2.465 ])
    >>> round(float((y**2).mean()), 12)
    3.0
    """
    n = check_integer("n", n)
    masses, squares = _cumulative(law)
    mass = np.concatenate([[0.0], np.cumsum(legendre.legval(1.0, masses.T))])
    square = np.concatenate([[0.0], np.cumsum(legendre.legval(1.0, squares.T))])
    if not abs(mass[-1] - 1.0) < 1e-6:
        raise ValueError(f"law must have mass 1, density and atoms together, got {mass[-1]!r}")
    levels = mass[-1] * np.arange(1, n) / n
    panel = np.clip(np.searchsorted(mass, levels, side="right") - 1, 0, len(masses) - 1)
    low, high = np.full(n - 1, -1.0), np.full(n - 1, 1.0)
    for _ in range(55):
        middle = 0.5 * (low + high)
        reached = mass[panel] + legendre.legval(middle, masses[panel].T, tensor=False)
        short = reached < levels
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    cuts = square[panel] + legendre.legval(low, squares[panel].T, tensor=False)
    cells = np.diff(np.concatenate([[0.0], cuts, square[-1:]]))
    means: Array = np.sqrt(n * np.maximum(cells, 0.0))
    return means


def _cumulative(law: Density) -> tuple[Array, Array]:
    """Return mass and second moment accumulated on panels, as Legendre series on [-1, 1].

    The panels run through the support in increasing order; an atom is a panel of its own.
    """
    start, mass, square = [], [], []
    for low, high in law.edges:
        # y = low + (high - low) sin^2 phi undoes square roots at the edges; bisect for the rest
        left, half = np.array([[0.0], [0.25 * np.pi]]), 0.125 * np.pi
        for depth in range(_DEPTH):
            phi = left + half * (1.0 + _POINTS)
            y = low + (high - low) * np.sin(phi) ** 2
            density = np.reshape(law.density(y.ravel()), y.shape)
            values = density * (high - low) * np.sin(2.0 * phi) * half
            series = values @ _TO_LEGENDRE.T
            good = np.abs(series[:, -2:]).max(axis=1) < 1e-13
            good |= depth == _DEPTH - 1
            start.append(low + (high - low) * np.sin(left[good, 0]) ** 2)
            mass.append(series[good])
            square.append((values * y * y)[good] @ _TO_LEGENDRE.T)
            left = np.concatenate([left[~good], left[~good] + half])
            half *= 0.5
            if not left.size:
                break
    for at, weight in law.atoms:
        start.append(np.array([at]))
        mass.append(np.eye(1, 16) * 0.5 * weight)
        square.append(np.eye(1, 16) * 0.5 * weight * at * at)
    order = np.argsort(np.concatenate(start), kind="stable")
    antiderivatives = (
        legendre.legint(np.concatenate(series)[order], lbnd=-1, axis=1) for series in (mass, square)
    )
    first, second = antiderivatives
    return first, second


@dataclass(frozen=True)
class Extrapolation:
    """A limit ``N -> infinity`` with an error bar.

    Attributes
    ----------
    value : float
        Extrapolation with the first set of exponents.
    error : float
        Largest distance between `value` and the extrapolations with the other sets.
    sizes : tuple of int
        The sizes d1, increasing.
    raw : tuple of float
        ``log I/(d1 d2)`` at each size.
    exponents : tuple of tuple of float
        The sets; each fits ``value + sum_e c_e N^-e`` through its ``1 + len(set)`` largest sizes.
    estimates : tuple of float
        What each set gives.

    Examples
    --------
    >>> from bsr_theory.spectra.spherical import Extrapolation
    >>> data = [2.0 + 3.0 * n**-2.0 for n in (4, 8, 16)]
    >>> limit = Extrapolation.from_values((4, 8, 16), data, ((2.0,), (2.0, 3.0)))
    >>> round(limit.value, 12), limit.error < 1e-12
    (2.0, True)
    """

    value: float
    error: float
    sizes: tuple[int, ...]
    raw: tuple[float, ...]
    exponents: tuple[tuple[float, ...], ...]
    estimates: tuple[float, ...]

    @classmethod
    def from_values(
        cls, sizes: Sequence[int], raw: Sequence[float], exponents: Sequence[Sequence[float]]
    ) -> Extrapolation:
        """Extrapolate values that are known at several sizes.

        Parameters
        ----------
        sizes : sequence of int
            Increasing sizes ``N``.
        raw : sequence of float
            The value at each size.
        exponents : sequence of sequences of float
            At least two different sets, each shorter than `sizes`.

        Returns
        -------
        Extrapolation
            The value of the first set, and the spread over the sets as its error.

        Raises
        ------
        ValueError
            If a parameter is out of its range.
        """
        n, values = np.asarray(sizes, dtype=float), np.asarray(raw, dtype=float)
        if n.ndim != 1 or values.shape != n.shape or not (np.diff(n, prepend=0.0) > 0).all():
            raise ValueError(f"sizes must increase, one for each value, got {tuple(sizes)!r}")
        sets = tuple(tuple(float(e) for e in powers) for powers in exponents)
        if len(set(sets)) < 2 or not all(0 < len(p) == len(set(p)) < n.size for p in sets):
            raise ValueError(
                "exponents must be two or more sets of distinct powers, each shorter than sizes "
                f"({n.size}), got {exponents!r}"
            )
        if not all(0.0 < e < math.inf for powers in sets for e in powers):
            raise ValueError(f"exponents must be > 0 and finite, got {exponents!r}")
        estimates = []
        for powers in sets:
            m = 1 + len(powers)
            columns = (n[-m:, None] / n[-1]) ** -np.array([0.0, *powers])
            estimates.append(float(np.linalg.solve(columns, values[-m:])[0]))
        return cls(
            value=estimates[0],
            error=max(abs(estimates[0] - other) for other in estimates[1:]),
            sizes=tuple(int(k) for k in sizes),
            raw=tuple(values.tolist()),
            exponents=sets,
            estimates=tuple(estimates),
        )


def finite_size_extrapolation(
    signal: Density,
    observed: Density,
    snr: float,
    *,
    sizes: Sequence[int] = (8, 12, 16, 24, 32),
    exponents: Sequence[Sequence[float]] = _EXPONENTS,
) -> Extrapolation:
    r"""Return the limit of the integral for two laws, from its exact values at finite size.

    Parameters
    ----------
    signal, observed : SpectralLaw
        Laws of the singular values of ``S/sqrt(d2)`` and of ``Y/sqrt(d2)``, any two of the same
        aspect ratio; used are `beta`, `edges`, `atoms` and `density`.
    snr : float
        Factor in the exponent, ``>= 0`` and finite.
    sizes : sequence of int
        Sizes ``d1``, increasing, with integer ``d2 = beta d1``.  Where a law has an atom, sizes at
        which its mass is a multiple of ``1/d1`` converge more smoothly.
    exponents : sequence of sequences of float
        Sets of powers of ``1/d1`` that the extrapolation removes, each shorter than `sizes`.  The
        first gives the value; the spread over all, the error.

    Returns
    -------
    Extrapolation
        Of ``(1/(d1 d2)) log int dU dV exp(2 snr Re Tr[Y^dagger U S V])``, complex matrices: to be
        compared with `asymptotic_limit` at ``dyson=2``.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or the aspect ratios differ.

    Notes
    -----
    `quantile_means` replaces each law by ``d1`` singular values, and `exact_log_integral`
    evaluates their integral.  The difference from the limit is seen to start with ``d1^-2`` and
    to go on in steps of ``d1^{-1/3}``, natural where square-root edges have cells ``d1^{-2/3}``
    wide; no proof of these powers is known to us.  How many of them matter at given sizes is not
    known beforehand: the spread over several sets is the error bar.  It grows with ``snr``.

    Examples
    --------
    Independent Gaussian entries with and without noise: ``2 snr - log(1 + snr)`` in the limit.

    >>> import math
    >>> from bsr_theory.spectra import MarchenkoPasturLaw
    >>> from bsr_theory.spectra.spherical import finite_size_extrapolation
    >>> clean, noisy = (MarchenkoPasturLaw(beta=2.0, ratio=0.5, scale=v) for v in (1.0, 2.0))
    >>> limit = finite_size_extrapolation(clean, noisy, 1.0, sizes=(4, 6, 8, 10, 12))
    >>> abs(limit.value - (2 - math.log(2))) < limit.error < 1e-4
    True
    """
    beta = float(check("beta", signal.beta, low=1.0, allow_inf=False))
    if observed.beta != beta:
        raise ValueError(f"signal and observed must have one beta, got {beta} and {observed.beta}")
    rows = [check_integer("sizes", d1) for d1 in sizes]
    columns = [round(beta * d1) for d1 in rows]
    for d1, d2 in zip(rows, columns, strict=True):
        if abs(d2 - beta * d1) > 1e-9 * d2:
            raise ValueError(f"sizes must make beta d1 an integer, got {d1} at beta = {beta}")
    Extrapolation.from_values(rows, rows, exponents)  # complain before the work
    raw = [
        exact_log_integral(
            math.sqrt(d2) * quantile_means(signal, d1),
            math.sqrt(d2) * quantile_means(observed, d1),
            snr=snr,
            d2=d2,
        )
        / (d1 * d2)
        for d1, d2 in zip(rows, columns, strict=True)
    ]
    return Extrapolation.from_values(rows, raw, exponents)


# --------------------------------------------------------------------------------------------
# Input
# --------------------------------------------------------------------------------------------


def _dyson(value: int) -> int:
    if isinstance(value, bool) or value not in (1, 2):
        raise ValueError(f"dyson must be 1 (real) or 2 (complex), got {value!r}")
    return int(value)


def _vector(name: str, value: npt.ArrayLike) -> Array:
    """Return sorted singular values: a vector of finite numbers >= 0."""
    array = np.asarray(check(name, value, low=0.0, allow_inf=False))
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must be a vector, not empty, got shape {array.shape}")
    if np.isnan(array).any():
        raise ValueError(f"{name} must be >= 0 and finite, got {np.asarray(value)!r}")
    return np.sort(array)
