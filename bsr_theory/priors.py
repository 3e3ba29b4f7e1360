"""Priors: the law of the signal matrix S and everything its denoising problem answers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np

from ._arrays import (
    Array,
    Numeric,
    broadcast,
    check,
    check_integer,
    check_number,
    numbers,
    run_blocks,
    scalar_or_array,
)
from ._kernels import rectangular, symmetric
from .spectra import GaussianFactorLaw, MarchenkoPasturLaw, SpectralLaw, SymmetricFactorLaw
from .spectra.symmetric import is_semicircle

__all__ = [
    "GaussianFactorPrior",
    "LowRankFactorPrior",
    "Prior",
    "SymmetricFactorPrior",
    "SymmetricSignal",
]


_MANY = 1e40  # aspect ratio of a law that counts as infinite: the noise adds nothing but s
_THIN = 1e-16  # width of a law that counts as zero
_ALIKE = 1e-11  # fourth cumulant of a law that cannot be told from that of Gaussian entries
_HIDDEN = 1e8  # s rho, in units of sqrt(beta), from which on noise hides all of thin factors
# An overlap that is known by subtraction is continued from some multiple of the variance on: a
# cubic in 1/s through the first four nodes.
_FAR = 10.0 ** np.arange(3, 10)
_NODES = np.array([1.0, 2.0, 4.0, 8.0, 0.5])
_CUBIC = np.linalg.inv(np.vander(1.0 / _NODES[:-1]))


def _polynomial(coefficients: Array, x: Any) -> Any:
    """Return the polynomial with the highest power first."""
    value = 0.0
    for coefficient in coefficients:
        value = value * x + coefficient
    return value


class Prior(ABC):
    """Law of a signal S of shape (d1, d2) with ``d2 = beta d1`` and entries of variance 1.

    A prior answers for the denoising problem ``Y = S + sqrt(s) Z``, Z of unit Gaussian entries.
    A subclass is a frozen dataclass whose parameters may be arrays; it supplies `mmse`, `law`,
    `shrink` and `sample`, and `overlap` and `deficit` when it can do better than subtract.
    """

    beta: Any
    """Aspect ratio ``d2/d1 >= 1``."""

    has_transition: ClassVar[bool] = False
    """Whether ``mmse(s)`` is that of no data from a finite noise on (weak recovery)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Common shape of the parameters, () when they are all scalars."""
        return ()

    @property
    def second_moment(self) -> float:
        """Return ``E S^2`` per entry."""
        return 1.0

    @property
    def prior_overlap(self) -> float:
        """Overlap that is known without data, per entry: that of the prior's mean."""
        return 0.0

    @property
    def snr_per_alpha(self) -> Any:
        """Factor k in ``qhat = k alpha precision(q)``: 1 unless the prior rescales alpha."""
        return 1.0

    @property
    @abstractmethod
    def strong_recovery(self) -> Any:
        """Return ``lim mmse(s)/s`` for s -> 0, the degrees of freedom per observation."""

    @abstractmethod
    def mmse(self, s: Numeric) -> Any:
        """Return the error per entry of the Bayes estimate at noise variance ``s``."""

    def overlap(self, s: Numeric) -> Any:
        """Return ``second_moment - mmse(s)``.

        Where the difference loses digits, at large s, this is `prior_overlap` and a polynomial in
        1/s through smaller s (unless `has_transition`).  Relative error: 1e-8, or less; more where
        the error begins to fall at noises above 1e4 times the variance.
        """
        noise = np.asarray(check("s", s, low=0.0))
        known, most = np.asarray(self.prior_overlap), np.asarray(self.second_moment)
        plain = most - np.asarray(self.mmse(noise))
        if self.has_transition or not np.any(noise > _FAR[0] * np.min(most - known)):
            return scalar_or_array(plain)
        # s (overlap - known) at nodes that begin at each s of _FAR
        rank = max(np.ndim(known), np.ndim(most), len(self.shape))
        nodes = (_FAR[:, None] * _NODES).reshape(_FAR.size, _NODES.size, *[1] * rank)
        nodes = nodes * (most - known)
        values = nodes * (most - np.asarray(self.mmse(nodes)) - known)
        nodes = np.broadcast_to(nodes, values.shape)
        # the last node tells how good the polynomial through the others is
        cubic = np.tensordot(_CUBIC, values[:, :-1], (1, 1))
        error = np.abs(_polynomial(cubic, 1.0 / _NODES[-1]) - values[:, -1])
        best = np.argmin(np.where(np.isnan(error), np.inf, error), axis=0)[None]
        first = np.take_along_axis(nodes[:, 0], best, 0)[0]
        cubic = np.take_along_axis(cubic, best[None], 1)[:, 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            x = first / noise
            learned = np.where(x > 0.0, x * _polynomial(cubic, x) / first, 0.0)
        return scalar_or_array(np.where(x < 1.0, known + learned, plain))

    def mmse_and_overlap(self, s: Numeric) -> tuple[Array, Array]:
        """Return both as arrays, from one evaluation when the prior can."""
        return np.asarray(self.mmse(s)), np.asarray(self.overlap(s))

    @abstractmethod
    def information(self, snr: Numeric) -> Any:
        """Return the mutual information per entry; ``d information/d snr = mmse(1/snr)/2``."""

    def strong_recovery_gap(self, alpha: Numeric) -> Any:
        """Return ``strong_recovery - alpha`` as accurately as the prior can."""
        value = check("alpha", alpha, low=0.0, allow_inf=False)
        broadcast(prior=self.strong_recovery, alpha=value)
        return scalar_or_array(np.asarray(self.strong_recovery) - value)

    def deficit(self, s: Numeric) -> Any:
        """Return ``strong_recovery - mmse(s)/s``, which vanishes with s."""
        value = np.asarray(check("s", s, low=0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(value > 0.0, self.mmse(s) / value, self.strong_recovery)
        return scalar_or_array(self.strong_recovery - ratio)

    @abstractmethod
    def law(self, s: float) -> SpectralLaw:
        """Return the law of the singular values of ``Y/sqrt(d2)``."""

    @abstractmethod
    def shrink(self, y: Numeric, s: float) -> Any:
        """Return the denoised value of a singular value ``y`` of ``Y/sqrt(d2)``."""

    def denoise(self, Y: Array, s: float) -> Array:
        """Return the Bayes estimate of S from ``Y = S + sqrt(s) Z``.

        Parameters
        ----------
        Y : ndarray, shape (d1, d2)
            Noisy matrix; ``d2/d1`` should be ``beta`` (it is transposed when d1 > d2).
        s : float
            Noise variance per entry.

        Returns
        -------
        ndarray, shape (d1, d2)
            Same singular vectors, each singular value through `shrink`.

        Raises
        ------
        ValueError
            If Y is not a finite matrix.
        """
        matrix = numbers("Y", Y)
        if matrix.ndim != 2 or not matrix.size or not np.isfinite(matrix).all():
            raise ValueError(
                f"Y must be a finite matrix of shape (d1, d2), got shape {matrix.shape}"
            )
        left, sigma, right = np.linalg.svd(matrix, full_matrices=False)
        root = np.sqrt(max(matrix.shape))
        shrunk = np.asarray(self.shrink(sigma / root, s)) * root
        return np.asarray((left * shrunk) @ right)

    @abstractmethod
    def sample(self, d1: int, *, rng: Any = None) -> Array:
        """Return one S of shape (d1, round(beta d1))."""

    def at_size(self, d1: int) -> Prior:
        """Return the prior whose ratios are those of ``sample(d1)``, after rounding.

        Parameters
        ----------
        d1 : int
            Number of rows of S.

        Returns
        -------
        Prior
            This one, unless a subclass knows better.
        """
        return self


def _exact_gap(alpha: float, beta: float, rho: float) -> float:
    """Return ``rho (1 + beta - rho)/beta - alpha`` (1 - alpha for rho >= 1) rounded once."""
    if not np.isfinite(alpha) or np.isnan(beta) or np.isnan(rho):
        return float("nan")
    if rho >= 1.0:
        return float(1 - Fraction(alpha))
    r = Fraction(rho)
    tail = r * (1 - r) / Fraction(beta) if beta != np.inf else Fraction(0)
    return float(r + tail - Fraction(alpha))


@dataclass(frozen=True)
class GaussianFactorPrior(Prior):
    r"""Product of two Gaussian matrices, ``S = A B/sqrt(r)``.

    Parameters
    ----------
    beta : float or array_like
        Aspect ratio ``d2/d1`` in [1, inf].
    rho : float or array_like
        Width ``r/d1`` in (0, inf].  ``rho = inf`` is a prior of independent Gaussian entries.

    Raises
    ------
    ValueError
        If a scalar parameter is out of its range or shapes do not broadcast.  A bad element of
        an array gives NaN there and nowhere else.

    Notes
    -----
    A is (d1, r), B is (r, d2), with independent standard Gaussian entries: bilinear sequence
    regression, arXiv:2410.18858.  The minimal error of the denoising problem is

    .. math:: M(s) = s - s^2\Big[\big(1-\tfrac1\beta\big) m(s)
              + \frac{4\pi^2}{3\beta^2}\int \rho_W(w)^3 w\,dw\Big],

    with :math:`\rho_W` the density of eigenvalues of ``Y Y^T/d2`` and m(s) the Stieltjes
    transform of ``A A^T/r`` at ``-s``; see docs/theory.

    Examples
    --------
    >>> from bsr_theory import GaussianFactorPrior
    >>> prior = GaussianFactorPrior(beta=2.0, rho=0.5)
    >>> round(prior.mmse(0.1), 10)
    0.0595985195
    >>> GaussianFactorPrior(beta=2.0, rho=float("inf")).mmse(1.0)
    0.5
    """

    beta: Any
    rho: Any

    def __post_init__(self) -> None:
        """Check the parameters."""
        object.__setattr__(self, "beta", check("beta", self.beta, low=1.0))
        object.__setattr__(self, "rho", check("rho", self.rho, low=0.0, open_low=True))
        broadcast(beta=self.beta, rho=self.rho)

    @property
    def shape(self) -> tuple[int, ...]:
        """Common shape of the parameters."""
        return broadcast(beta=self.beta, rho=self.rho)

    @property
    def strong_recovery(self) -> Any:
        """Degrees of freedom per entry: ``rho (1 + beta - rho)/beta`` for rho < 1, else 1."""
        rho = np.minimum(self.rho, 1.0)
        return scalar_or_array(rho + rho * (1.0 - rho) / np.asarray(self.beta, dtype=float))

    def _run(self, kernel: Any, columns: tuple[int, ...] = (), **named: Any) -> Any:
        """Run a compiled array loop over (beta, rho, s) in threads; ``named`` is the noise."""
        (noise,) = named.values()
        shape = broadcast(beta=self.beta, rho=self.rho, **named)
        beta, rho, s = (
            np.ascontiguousarray(np.broadcast_to(x, shape), dtype=np.float64).ravel()
            for x in (self.beta, self.rho, noise)
        )
        out = np.empty((s.size, *columns))
        run_blocks(
            lambda b: kernel(beta[b], rho[b], s[b], rectangular.NODES, rectangular.WEIGHTS, out[b]),
            s.size,
        )
        return scalar_or_array(out.reshape(shape + columns))

    def _evaluate(self, s: Numeric) -> Array:
        """Return (mmse, overlap) along the last axis."""
        return np.asarray(self._run(rectangular.mmse_array, (2,), s=check("s", s, low=0.0)))

    def mmse(self, s: Numeric) -> Any:
        """Return the minimal error per entry at noise variance ``s``.

        Parameters
        ----------
        s : float or array_like
            Noise variance per entry, in [0, inf].

        Returns
        -------
        float or ndarray
            ``min(1, s)`` at most; relative error at most 1e-10.

        Examples
        --------
        >>> from bsr_theory import GaussianFactorPrior
        >>> GaussianFactorPrior(beta=1.0, rho=1.0).mmse([0.0, 1.0, float("inf")])
        array([0.        , 0.47924635, 1.        ])
        """
        return scalar_or_array(self._evaluate(s)[..., 0])

    def overlap(self, s: Numeric) -> Any:
        """Return ``1 - mmse(s)``, to relative precision also where it is small.

        Parameters
        ----------
        s : float or array_like
            Noise variance per entry, in [0, inf].

        Returns
        -------
        float or ndarray
            Overlap of the Bayes estimate with S, per entry.
        """
        return scalar_or_array(self._evaluate(s)[..., 1])

    def mmse_and_overlap(self, s: Numeric) -> tuple[Array, Array]:
        """Return `mmse` and `overlap` from one evaluation.

        Parameters
        ----------
        s : float or array_like
            Noise variance per entry, in [0, inf].

        Returns
        -------
        tuple of ndarray
            Error and overlap per entry.
        """
        both = self._evaluate(s)
        return both[..., 0], both[..., 1]

    def deficit(self, s: Numeric) -> Any:
        """Return ``strong_recovery - mmse(s)/s`` to relative precision.

        Parameters
        ----------
        s : float or array_like
            Noise variance per entry, in [0, inf].

        Returns
        -------
        float or ndarray
            Linear in s for small s when rho < 1: its slope there is extrapolated from noises at
            which the difference still has its digits.
        """
        value = check("s", s, low=0.0)
        return self._run(rectangular.deficit_array, s=value)

    def strong_recovery_gap(self, alpha: Numeric) -> Any:
        """Return ``strong_recovery - alpha``, rounded once.

        Parameters
        ----------
        alpha : float or array_like
            Sampling ratio.

        Returns
        -------
        float or ndarray
            The exact difference of the given doubles: just below the threshold, rounding the
            threshold itself first would dominate the error of mmse.
        """
        value = check("alpha", alpha, low=0.0, allow_inf=False)
        broadcast(beta=self.beta, rho=self.rho, alpha=value)
        arrays = np.broadcast_arrays(np.asarray(value), self.beta, self.rho)
        out = np.array([_exact_gap(*row) for row in zip(*(a.ravel() for a in arrays), strict=True)])
        return scalar_or_array(out.reshape(arrays[0].shape))

    def information(self, snr: Numeric) -> Any:
        """Return ``lim I(S; sqrt(snr) S + Z)/(d1 d2)`` in nats per entry.

        Parameters
        ----------
        snr : float or array_like
            Signal-to-noise ratio ``1/s``, in [0, inf].

        Returns
        -------
        float or ndarray
            Mutual information, with ``d information/d snr = mmse(1/snr)/2``.
        """
        value = check("snr", snr, low=0.0)
        with np.errstate(divide="ignore", over="ignore"):
            return self._run(rectangular.information_array, snr=1.0 / np.asarray(value))

    def _scalars(self) -> tuple[float, float]:
        if self.shape:
            raise ValueError(f"beta and rho must be scalars here, got shape {self.shape}")
        return float(self.beta), float(self.rho)

    def _has_free_entries(self, noise: float) -> bool:
        """Tell whether Y cannot be told from a matrix of independent entries of variance 1 + s."""
        beta, rho = self._scalars()
        if rho == np.inf:
            return True
        if beta == np.inf:
            return False
        if rho < 1.0:
            return noise * rho > _HIDDEN * math.sqrt(beta)
        return beta / max(1.0, noise) / max(1.0, noise) < _ALIKE * rho

    def law(self, s: float) -> SpectralLaw:
        """Return the law of the singular values of ``Y/sqrt(d2)``.

        Parameters
        ----------
        s : float
            Noise variance per entry, in [0, 1e100].

        Returns
        -------
        SpectralLaw
            A `GaussianFactorLaw`, or a `MarchenkoPasturLaw` where beta or rho are infinite or as
            good as that.

        Raises
        ------
        ValueError
            If parameters are arrays or out of their ranges, which end where no number tells two
            parts of the law apart; see `GaussianFactorLaw`.
        """
        beta, rho = self._scalars()
        noise = check_number("s", s, high=1e100)
        if self._has_free_entries(noise):
            return MarchenkoPasturLaw(beta=beta, ratio=1.0 / beta, scale=1.0 + noise)
        if beta > _MANY:
            ratio = 1.0 / check_number("rho", rho, low=1e-150)
            return MarchenkoPasturLaw(beta=np.inf, ratio=ratio, shift=noise)
        return GaussianFactorLaw(beta=beta, rho=rho, s=noise)

    def shrink(self, y: Numeric, s: float) -> Any:
        """Return the optimally denoised singular value ``y - s h(y)``.

        Parameters
        ----------
        y : float or array_like
            Singular values of ``Y/sqrt(d2)``, ``y >= 0``.
        s : float
            Noise variance per entry, in [0, inf].

        Returns
        -------
        float or ndarray
            On the spectrum, the rotationally invariant estimator of arXiv:2410.18858.

        Notes
        -----
        At finite size a singular value can lie off the limiting bulks.  There ``g`` is the
        analytic continuation from outside, the root that is monotone between the edge and
        infinity (or the other edge of the gap, or zero), which is what the exact posterior mean
        (Tweedie's formula for the joint density of singular values) gives for one value apart
        from the others.  It is then clipped to [0, y]: a signal has no negative singular value.

        Examples
        --------
        >>> from bsr_theory import GaussianFactorPrior
        >>> GaussianFactorPrior(beta=2.0, rho=float("inf")).shrink(1.0, 3.0)
        0.25
        """
        noise = check("s", s, low=0.0)
        if np.ndim(noise):
            raise ValueError(f"s must be a scalar here, got shape {np.shape(noise)}")
        value = check("y", y, low=0.0)
        if noise == 0.0:
            return value
        if noise == np.inf:
            return scalar_or_array(0.0 * np.asarray(value))
        beta, rho = self._scalars()
        y = np.asarray(value)
        if self._has_free_entries(noise) or (rho < _THIN and noise * rho > beta**0.5):
            return scalar_or_array(y / (1.0 + noise))
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            if beta > _MANY:
                shrunk = y - noise / y
            elif rho < _THIN:  # outliers apart from each other, around 1/root
                root = math.sqrt(rho)
                shrunk = np.asarray(LowRankFactorPrior(beta).shrink(y * root, noise * rho)) / root
            else:
                shrunk = y - noise * np.asarray(self.law(noise).hilbert(value))
        return scalar_or_array(np.clip(shrunk, 0.0, value))

    def sample(self, d1: int, *, rng: Any = None) -> Array:
        """Return one ``S = A B/sqrt(r)``, with r = max(1, round(rho d1)).

        Parameters
        ----------
        d1 : int
            Number of rows; there are ``round(beta d1)`` columns.
        rng : None, int or numpy.random.Generator
            Source of randomness.

        Returns
        -------
        ndarray, shape (d1, round(beta d1))
            Entries of variance 1.

        Raises
        ------
        ValueError
            If d1 is not a positive integer or beta is infinite.
        """
        rows, columns, rank = self._sizes(d1)
        generator = np.random.default_rng(rng)
        if rank is None:
            return generator.standard_normal((rows, columns))
        left = generator.standard_normal((rows, rank))
        right = generator.standard_normal((rank, columns))
        return np.asarray(left @ right / np.sqrt(rank))

    def at_size(self, d1: int) -> GaussianFactorPrior:
        """Return the prior with beta = d2/d1 and rho = r/d1 of the matrices of `sample`.

        Parameters
        ----------
        d1 : int
            Number of rows of S.

        Returns
        -------
        GaussianFactorPrior
            With scalar parameters.

        Raises
        ------
        ValueError
            As `sample` does.
        """
        rows, columns, rank = self._sizes(d1)
        return GaussianFactorPrior(columns / rows, np.inf if rank is None else rank / rows)

    def _sizes(self, d1: int) -> tuple[int, int, int | None]:
        """Return the rows and columns of S and its rank, None for independent entries."""
        beta, rho = self._scalars()
        rows = check_integer("d1", d1)
        if beta == np.inf:
            raise ValueError("beta must be finite to sample a matrix, got inf")
        return rows, round(beta * rows), None if rho == np.inf else max(1, round(rho * rows))


@dataclass(frozen=True)
class LowRankFactorPrior(Prior):
    r"""Limit ``rho -> 0`` of `GaussianFactorPrior` at fixed ``alpha_LR = n/(r (d1 + d2))``.

    Parameters
    ----------
    beta : float or array_like
        Aspect ratio ``d2/d1`` in [1, inf].

    Notes
    -----
    Noise variances are in units of ``1/rho`` and ``alpha`` of a `Problem` is ``alpha_LR``:
    ``s = rho s_entry``, ``alpha = alpha_LR (1 + beta) rho/beta``.  With ``x = beta/s`` the overlap
    is ``(x^2 - beta)^2/(x^2 (x + 1)(x + beta))`` above the transition ``x = sqrt(beta)``, else 0.

    Examples
    --------
    >>> from bsr_theory import LowRankFactorPrior
    >>> LowRankFactorPrior(beta=1.0).mmse([0.5, 1.0, 2.0])
    array([0.75, 1.  , 1.  ])
    """

    beta: Any

    has_transition: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the parameter."""
        object.__setattr__(self, "beta", check("beta", self.beta, low=1.0))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of beta."""
        return np.shape(self.beta)

    @property
    def snr_per_alpha(self) -> Any:
        """Return ``(1 + beta)/beta``, which turns alpha_LR into samples per rho d1 d2."""
        return 1.0 + 1.0 / np.asarray(self.beta)

    @property
    def strong_recovery(self) -> Any:
        """``(1 + beta)/beta``: alpha_LR = 1 counts the degrees of freedom."""
        return scalar_or_array(1.0 + 1.0 / np.asarray(self.beta))

    def _inverse(self, s: Numeric) -> tuple[Array, Array]:
        """Return s and 1/beta as arrays of the common shape."""
        value = check("s", s, low=0.0)
        shape = broadcast(beta=self.beta, s=value)
        inverse = 1.0 / np.broadcast_to(np.asarray(self.beta, dtype=float), shape)
        return np.broadcast_to(np.asarray(value), shape), inverse

    def mmse(self, s: Numeric) -> Any:
        """Return the minimal error per entry at noise variance ``s`` (in units of 1/rho).

        Parameters
        ----------
        s : float or array_like
            In [0, inf].

        Returns
        -------
        float or ndarray
            1 at and above ``s = sqrt(beta)``.
        """
        noise, inverse = self._inverse(s)
        # 1 - q over the common denominator, free of cancellation as s -> 0
        with np.errstate(invalid="ignore", over="ignore"):
            below = noise * inverse * noise < 1.0
            small = noise * inverse
            top = 1.0 + inverse + 3.0 * small - small * (noise * small)
            error = np.where(below, noise / (1.0 + noise) * (top / (1.0 + small)), 1.0)
        return scalar_or_array(np.where(np.isnan(noise + inverse), np.nan, error))

    def overlap(self, s: Numeric) -> Any:
        """Return ``1 - mmse(s)``, exactly 0 at and above the transition.

        Parameters
        ----------
        s : float or array_like
            In [0, inf].

        Returns
        -------
        float or ndarray
            Overlap per entry.
        """
        noise, inverse = self._inverse(s)
        with np.errstate(invalid="ignore", over="ignore"):
            gap = 1.0 - noise * inverse * noise
            q = np.where(gap > 0.0, gap**2 / ((1.0 + noise * inverse) * (1.0 + noise)), 0.0)
        return scalar_or_array(np.where(np.isnan(noise + inverse), np.nan, q))

    def deficit(self, s: Numeric) -> Any:
        """Return ``strong_recovery - mmse(s)/s``, free of cancellation below the transition.

        Parameters
        ----------
        s : float or array_like
            In [0, inf].

        Returns
        -------
        float or ndarray
            Linear in s for small s.
        """
        noise, i = self._inverse(s)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            x = noise * i
            below = noise / (1.0 + noise) * ((1.0 - i + i**2 + (1.0 + i) * x + x**2) / (1.0 + x))
            value = np.where(x * noise < 1.0, below, 1.0 + i - 1.0 / noise)
        return scalar_or_array(value)

    def information(self, snr: Numeric) -> Any:
        """Return the mutual information in units of rho nats per entry.

        Parameters
        ----------
        snr : float or array_like
            ``1/s``, in [0, inf].

        Returns
        -------
        float or ndarray
            ``snr/2`` up to the transition ``snr = 1/sqrt(beta)``; d/d snr is ``mmse/2``.
        """
        q = np.asarray(check("snr", snr, low=0.0))
        i = 1.0 / np.asarray(self.beta, dtype=float)
        broadcast(beta=self.beta, snr=q)
        # x = beta snr; all terms of (1+beta) log x + beta/x + (beta-1) log((x+beta)/(x+1)) -
        # beta log beta, over 2 beta, with beta -> inf finite
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            above = (
                i / q + (1.0 - i) * np.log1p(q) + 2.0 * i * np.log(q) - (1.0 - i) * np.log1p(i / q)
            ) - np.where(i > 0.0, i * np.log(i), 0.0)
            value = 0.5 * np.where(q * q > i, above, q)
        return scalar_or_array(np.where(np.isinf(q), np.inf, value) + 0.0 * i)

    def law(self, s: float) -> SpectralLaw:
        """Return the law of singular values: that of pure noise, the spikes have no mass.

        Parameters
        ----------
        s : float
            Noise variance, in [1e-150, 1e150].

        Returns
        -------
        MarchenkoPasturLaw
            The spikes sit at `outlier`.
        """
        noise = check("s", s, low=1e-150, high=1e150)
        if self.shape or np.ndim(noise):
            raise ValueError("beta and s must be scalars here")
        beta = float(self.beta)
        return MarchenkoPasturLaw(beta=beta, ratio=1.0 / beta, scale=noise)

    def outlier(self, s: Numeric) -> Any:
        """Return where the spikes appear, ``sqrt((1 + s)(1 + s/beta))``, NaN below the transition.

        Parameters
        ----------
        s : float or array_like
            Noise variance, in [0, inf].

        Returns
        -------
        float or ndarray
            Singular values of ``Y/sqrt(d2)`` in units of ``1/sqrt(rho)``.
        """
        noise, inverse = self._inverse(s)
        with np.errstate(invalid="ignore", over="ignore"):
            place = np.sqrt((1.0 + noise) * (1.0 + noise * inverse))
            below = noise * inverse * noise < 1.0
        return scalar_or_array(np.where(below, place, np.nan))

    def shrink(self, y: Numeric, s: float) -> Any:
        """Return the optimal shrinkage of a spike among noise of variance ``s``.

        Parameters
        ----------
        y : float or array_like
            Singular values of ``Y/sqrt(d2)``; y and ``sqrt(s)`` may be in any common unit.
        s : float
            Noise variance, in [0, inf].

        Returns
        -------
        float or ndarray
            ``sqrt((y^2 - s - s/beta)^2 - 4 s^2/beta)/y`` beyond the bulk edge, else 0
            (Gavish and Donoho, arXiv:1405.7511).
        """
        noise = check("s", s, low=0.0)
        value = np.asarray(check("y", y, low=0.0))
        root, inverse = np.sqrt(noise), np.asarray(self.beta, dtype=float) ** -0.5
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            low, high = root * (1.0 - inverse) / value, root * (1.0 + inverse) / value
            square = (1.0 - low) * (1.0 + low) * (1.0 - high) * (1.0 + high)
            shrunk = np.where(high < 1.0, value * np.sqrt(np.maximum(square, 0.0)), 0.0)
        return scalar_or_array(np.where(np.isnan(value), np.nan, shrunk))

    def sample(self, d1: int, *, rank: int = 1, rng: Any = None) -> Array:
        """Return one ``S = A B/sqrt(rank)``.

        Parameters
        ----------
        d1 : int
            Number of rows; there are ``round(beta d1)`` columns.
        rank : int
            Number of columns of A; ``rank << d1`` for the limit to apply.
        rng : None, int or numpy.random.Generator
            Source of randomness.

        Returns
        -------
        ndarray, shape (d1, round(beta d1))
            Entries of variance 1.

        Raises
        ------
        ValueError
            If d1 or rank is not a positive integer, or beta is infinite or an array.
        """
        rows = check_integer("d1", d1)
        rank = check_integer("rank", rank)
        if self.shape or self.beta == np.inf:
            raise ValueError(f"beta must be a finite scalar to sample a matrix, got {self.beta!r}")
        generator = np.random.default_rng(rng)
        left = generator.standard_normal((rows, rank))
        right = generator.standard_normal((rank, round(float(self.beta) * rows)))
        return np.asarray(left @ right / np.sqrt(rank))


class SymmetricSignal(Prior):
    """Prior of a symmetric S, seen through symmetric noise: eigenvalues are what is shrunk."""

    def denoise(self, Y: Array, s: float) -> Array:
        """Return the Bayes estimate of S from ``Y = S + sqrt(s) Z``.

        Parameters
        ----------
        Y : ndarray, shape (d, d)
            Noisy symmetric matrix.
        s : float
            Noise variance per entry off the diagonal; twice that on it.

        Returns
        -------
        ndarray, shape (d, d)
            Same eigenvectors, each eigenvalue through `shrink`.

        Raises
        ------
        ValueError
            If Y is not a finite symmetric matrix.
        """
        matrix = numbers("Y", Y)
        if (
            matrix.ndim != 2
            or not matrix.size
            or matrix.shape[0] != matrix.shape[1]
            or not np.isfinite(matrix).all()
            or not np.allclose(matrix, matrix.T, rtol=0.0, atol=1e-10 * np.abs(matrix).max())
        ):
            raise ValueError(
                f"Y must be a finite symmetric matrix of shape (d, d), got shape {matrix.shape}"
            )
        values, vectors = np.linalg.eigh(matrix)
        root = np.sqrt(matrix.shape[0])
        shrunk = np.asarray(self.shrink(values / root, s)) * root
        return np.asarray((vectors * shrunk) @ vectors.T)


@dataclass(frozen=True)
class SymmetricFactorPrior(SymmetricSignal):
    r"""Gaussian matrix times its transpose, ``S = W W^T/sqrt(r)``, W of shape (d, r).

    The signal of tied attention and of quadratic networks.  Its denoising problem has symmetric
    noise: ``Y = S + sqrt(s) Z``, where Z is symmetric with independent entries, ``N(0, 1)`` off the
    diagonal and ``N(0, 2)`` on it (GOE).

    Parameters
    ----------
    rho : float or array_like
        Width ``r/d`` in (0, inf).

    Raises
    ------
    ValueError
        If a scalar rho is out of its range.  A bad element of an array gives NaN there.

    Notes
    -----
    Entries off the diagonal have variance 1, diagonal ones mean ``sqrt(r)``, so that
    ``||S||^2/d^2`` tends to ``1 + rho`` and without data rho of it is known: ``E S = sqrt(r) I``.
    Errors are per entry of the d x d matrix, information is per independent entry, of which there
    are ``d^2/2``; n labels are therefore ``2 alpha`` of them, ``alpha = n/d^2``.

    The law of the eigenvalues of ``Y/sqrt(d)`` has the rational curve of `SymmetricFactorLaw`; with
    its density :math:`\rho_Y` and Stieltjes transform g

    .. math:: M(s) = s - \frac{4\pi^2}{3} s^2\int\rho_Y^3\,dy
              = 1 - \int\rho_Y\,(\xi-\sqrt\rho)^2\,dy, \qquad
              \xi = y - 2 s\,\mathrm{Re}\,g = \frac{\rho^{3/2}}{|\sqrt\rho-g|^2} .

    Small and large noise are dual, ``M(s; rho) = s M(1/s; s rho)``.  The denoiser is that of
    arXiv:1502.06736.  The model is that of arXiv:2408.03733 and arXiv:2506.01582, with a matrix
    there that is this S over ``sqrt(d)``, and over ``sqrt(rho)`` too in the former.

    Examples
    --------
    >>> from bsr_theory.priors import SymmetricFactorPrior
    >>> prior = SymmetricFactorPrior(rho=0.5)
    >>> round(prior.mmse(0.3), 8), prior.second_moment
    (0.16888922, 1.5)
    """

    rho: Any

    beta: Any = field(default=1.0, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the parameter."""
        rho = check("rho", self.rho, low=0.0, open_low=True, allow_inf=False)
        object.__setattr__(self, "rho", rho)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of rho."""
        return np.shape(self.rho)

    @property
    def second_moment(self) -> Any:
        """``||S||^2/d^2``, which is ``1 + rho``."""
        return 1.0 + self.rho

    @property
    def prior_overlap(self) -> Any:
        """``||E S||^2/d^2``, which is rho."""
        return self.rho

    @property
    def snr_per_alpha(self) -> Any:
        """2: a symmetric matrix has half as many entries."""
        return 2.0

    @property
    def strong_recovery(self) -> Any:
        """Degrees of freedom over ``d^2/2``: ``rho (2 - rho)`` for rho < 1, else 1."""
        rho = np.minimum(self.rho, 1.0)
        return scalar_or_array(rho * (2.0 - rho))

    def strong_recovery_gap(self, alpha: Numeric) -> Any:
        """Return ``strong_recovery - alpha``, rounded once.

        Parameters
        ----------
        alpha : float or array_like
            Labels over ``d^2/2``.

        Returns
        -------
        float or ndarray
            The exact difference of the given doubles.
        """
        value = check("alpha", alpha, low=0.0, allow_inf=False)
        broadcast(rho=self.rho, alpha=value)
        arrays = np.broadcast_arrays(np.asarray(value), self.rho)
        # rho (2 - rho) is that of a square product of two factors
        out = np.array(
            [_exact_gap(x, 1.0, r) for x, r in zip(*(a.flat for a in arrays), strict=True)]
        )
        return scalar_or_array(out.reshape(arrays[0].shape))

    def _run(self, kernel: Any, columns: tuple[int, ...] = (), **named: Any) -> Any:
        """Run a compiled array loop over (rho, s) in threads; ``named`` is the noise."""
        (noise,) = named.values()
        shape = broadcast(rho=self.rho, **named)
        rho, s = (
            np.ascontiguousarray(np.broadcast_to(x, shape), dtype=np.float64).ravel()
            for x in (self.rho, noise)
        )
        out = np.empty((s.size, *columns))
        run_blocks(
            lambda b: kernel(rho[b], s[b], rectangular.NODES, rectangular.WEIGHTS, out[b]), s.size
        )
        return scalar_or_array(out.reshape(shape + columns))

    def _evaluate(self, s: Numeric) -> Array:
        """Return (mmse, 1 - mmse) along the last axis."""
        return np.asarray(self._run(symmetric.mmse_array, (2,), s=check("s", s, low=0.0)))

    def mmse(self, s: Numeric) -> Any:
        """Return the minimal error per entry at noise variance ``s``.

        Parameters
        ----------
        s : float or array_like
            Noise variance per entry off the diagonal, in [0, inf].

        Returns
        -------
        float or ndarray
            ``min(1, s)`` at most; relative error at most 1e-11 for rho from 1e-3 to 1e2.
        """
        return scalar_or_array(self._evaluate(s)[..., 0])

    def overlap(self, s: Numeric) -> Any:
        """Return ``1 + rho - mmse(s)``: the overlap of the Bayes estimate with S per entry.

        Parameters
        ----------
        s : float or array_like
            Noise variance per entry, in [0, inf].

        Returns
        -------
        float or ndarray
            From rho without data to ``1 + rho``.
        """
        return scalar_or_array(self._evaluate(s)[..., 1] + self.rho)

    def mmse_and_overlap(self, s: Numeric) -> tuple[Array, Array]:
        """Return `mmse` and `overlap` from one evaluation.

        Parameters
        ----------
        s : float or array_like
            Noise variance per entry, in [0, inf].

        Returns
        -------
        tuple of ndarray
            Error and overlap per entry.
        """
        both = self._evaluate(s)
        return both[..., 0], both[..., 1] + self.rho

    def explained_variance(self, s: Numeric) -> Any:
        """Return ``1 - mmse(s) = overlap(s) - rho``, to relative precision where it is small.

        Parameters
        ----------
        s : float or array_like
            Noise variance per entry, in [0, inf].

        Returns
        -------
        float or ndarray
            Variance of the denoised eigenvalues, in [0, 1].
        """
        return scalar_or_array(self._evaluate(s)[..., 1])

    def deficit(self, s: Numeric) -> Any:
        """Return ``strong_recovery - mmse(s)/s`` to relative precision.

        Parameters
        ----------
        s : float or array_like
            Noise variance per entry, in [0, inf].

        Returns
        -------
        float or ndarray
            Linear in s for small s when rho < 1: its slope there is extrapolated from noises at
            which the difference still has its digits.
        """
        return self._run(symmetric.deficit_array, s=check("s", s, low=0.0))

    def information(self, snr: Numeric) -> Any:
        """Return ``lim I(S; sqrt(snr) S + Z)/(d^2/2)`` in nats per independent entry.

        Parameters
        ----------
        snr : float or array_like
            Signal-to-noise ratio ``1/s``, in [0, inf].

        Returns
        -------
        float or ndarray
            Mutual information, with ``d information/d snr = mmse(1/snr)/2``.

        Examples
        --------
        >>> from bsr_theory.priors import SymmetricFactorPrior
        >>> round(SymmetricFactorPrior(rho=0.5).information(2.0) / 2, 7)  # per d^2
        0.2323118
        """
        value = check("snr", snr, low=0.0)
        with np.errstate(divide="ignore", over="ignore"):
            return self._run(symmetric.information_array, snr=1.0 / np.asarray(value))

    def _noise(self, s: float) -> float:
        """Return the checked noise of a scalar call."""
        if self.shape:
            raise ValueError(f"rho must be a scalar here, got shape {self.shape}")
        noise = check("s", s, low=0.0)
        if np.ndim(noise):
            raise ValueError(f"s must be a scalar here, got shape {np.shape(noise)}")
        return float(noise)

    def law(self, s: float) -> SymmetricFactorLaw:
        """Return the law of the eigenvalues of ``Y/sqrt(d)``.

        Parameters
        ----------
        s : float
            Noise variance per entry, in [0, inf).

        Returns
        -------
        SymmetricFactorLaw
            On the real line.

        Raises
        ------
        ValueError
            If rho is an array or a parameter is out of its range; see `SymmetricFactorLaw`.
        """
        noise = self._noise(s)
        return SymmetricFactorLaw(rho=float(self.rho), s=noise)

    def shrink(self, y: Numeric, s: float) -> Any:
        r"""Return the optimally denoised eigenvalue ``y - 2 s Re g(y)``.

        Parameters
        ----------
        y : float or array_like
            Eigenvalues of ``Y/sqrt(d)``, any real numbers.
        s : float
            Noise variance per entry, in [0, inf].

        Returns
        -------
        float or ndarray
            Not negative.

        Notes
        -----
        At finite size an eigenvalue can lie off the limiting bulks.  There g is the real root that
        continues the edge, monotone up to infinity, zero or the other edge of the gap, and the
        result is clipped at 0: a signal has no negative eigenvalue.

        Examples
        --------
        >>> from bsr_theory.priors import SymmetricFactorPrior
        >>> SymmetricFactorPrior(rho=4.0).shrink([-1.0, 5.0], float("inf"))
        array([2., 2.])
        """
        noise = self._noise(s)
        value = check("y", y)
        if noise == 0.0:
            return scalar_or_array(np.maximum(value, 0.0))
        if noise == np.inf:
            return scalar_or_array(0.0 * np.asarray(value) + np.sqrt(self.rho))
        rho, y = float(self.rho), np.asarray(value)
        if is_semicircle(rho, noise) or (rho < _THIN and noise * rho > 1.0):
            # independent entries around a mean
            mean = math.sqrt(rho)
            return scalar_or_array(np.maximum(mean + (y - mean) / (1.0 + noise), 0.0))
        if rho < _THIN:  # outliers apart from each other
            edge = 2.0 * math.sqrt(noise)
            above = np.where(y < edge, 0.0, y)  # NaN stays
            return scalar_or_array(np.sqrt(np.maximum(above - edge, 0.0)) * np.sqrt(above + edge))
        return scalar_or_array(np.maximum(self.law(noise).denoised(value), 0.0))

    def sample(self, d1: int, *, rng: Any = None) -> Array:
        """Return one ``S = W W^T/sqrt(r)``, with r = max(1, round(rho d1)).

        Parameters
        ----------
        d1 : int
            Number of rows and of columns.
        rng : None, int or numpy.random.Generator
            Source of randomness.

        Returns
        -------
        ndarray, shape (d1, d1)
            Entries of variance 1 off the diagonal.

        Raises
        ------
        ValueError
            If d1 is not a positive integer or rho is an array.
        """
        rank = self._rank(d1)
        factor = np.random.default_rng(rng).standard_normal((int(d1), rank))
        return np.asarray(factor @ factor.T / np.sqrt(rank))

    def at_size(self, d1: int) -> SymmetricFactorPrior:
        """Return the prior with rho = r/d1 of the matrices of `sample`.

        Parameters
        ----------
        d1 : int
            Number of rows of S.

        Returns
        -------
        SymmetricFactorPrior
            With a scalar parameter.

        Raises
        ------
        ValueError
            As `sample` does.
        """
        return SymmetricFactorPrior(self._rank(d1) / int(d1))

    def _rank(self, d1: int) -> int:
        rows = check_integer("d1", d1)
        if self.shape:
            raise ValueError(f"rho must be a scalar here, got shape {self.shape}")
        return max(1, round(float(self.rho) * rows))
