"""Priors that know the singular values of the signal, whatever they are, and nothing else."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ._arrays import (
    UNIT,
    Array,
    Numeric,
    check,
    check_integer,
    numbers,
    rounding,
    run_blocks,
    scalar_or_array,
)
from ._kernels import subordination
from .priors import Prior, SymmetricSignal
from .spectra import SpectralLaw
from .spectra.numerical import Measure, RectangularConvolution, SymmetricConvolution

__all__ = ["RotationallyInvariantPrior", "SymmetricPrior", "without_symmetry"]

_TINY = 1e-40  # noise, relative to the variance of S, below which mmse is its limit
_LEAST = 1e-30  # the same for the information: edges of smaller bulks are not found
_VAST = 1e8  # the same, relative to the largest value, above which the overlap is a series
_MANY = 1e50  # aspect ratio beyond which either the signal or the noise counts as infinite
_MET = 1e-8  # s, in units of sqrt(beta), below which it is the number of columns
_HIDDEN = 1e18  # the same, above which the estimate is a share of what is seen
_SPLIT = 3e-4  # of the noise at which two bulks meet: below it the deficit is a parabola
_MIXED = 1e-7  # noise below which the deficit of a law with atoms and a density is a power


def _haar(n: int, k: int, rng: np.random.Generator) -> Array:
    """Return an n x k matrix of orthonormal columns, uniformly distributed."""
    q, r = np.linalg.qr(rng.standard_normal((n, k)))
    return np.asarray(q * np.sign(np.diag(r)))


def _as_measure(name: str, value: Any) -> Measure:
    if isinstance(value, Measure):
        return value
    if isinstance(value, SpectralLaw):
        return Measure.from_law(value)
    try:
        return Measure.from_samples(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


class _Invariant(Prior):
    """What both priors share: everything follows from a `Measure` and compiled loops."""

    @property
    @abstractmethod
    def measure(self) -> Measure:
        """Law of the singular values of ``S/sqrt(d2)``, or of eigenvalues."""

    @property
    @abstractmethod
    def _symmetric(self) -> bool:
        """Whether it is one of eigenvalues."""

    @property
    @abstractmethod
    def _ratio(self) -> float:
        """Aspect ratio ``c = 1/beta``."""

    @abstractmethod
    def _splitting_noise(self, source: Any) -> float:
        """Return the noise below which all bulks of a discrete law are apart, roughly."""

    @cached_property
    def _source(self) -> Any:
        return self.measure.source(symmetric=self._symmetric)

    @cached_property
    def _moment(self) -> float:
        moment = float(self._source.variance + self._source.mean**2)
        return 1.0 if abs(moment - 1.0) <= UNIT else moment

    @property
    def second_moment(self) -> float:
        """``||S||^2/(d1 d2)``, the variance of h."""
        return self._moment

    @property
    def prior_overlap(self) -> float:
        """What is known without data: 0 for singular values, the squared mean of eigenvalues."""
        return float(self._source.mean**2)

    def _exact(self, s: Array) -> Array:
        """Return (mmse, variance - mmse, 1 - mmse/s) for 0 < s < inf from the curve."""
        out = np.empty((s.size, 3))
        source, ratio = self._source, self._ratio
        run_blocks(lambda b: subordination.mmse_array(source, ratio, s[b], out[b]), s.size)
        return out

    @cached_property
    def _small(self) -> tuple[float, float, tuple[float, float, float]]:
        """How deficit behaves at small noise: (below which s, exponent, coefficients)."""
        source, lack = self._source, 1.0 - float(self.strong_recovery)
        if not self.measure.is_discrete and lack == 0.0:
            return 0.0, 1.0, (0.0, 0.0, 0.0)
        if not self.measure.is_discrete:
            step = _MIXED * source.variance
            first, second = self._exact(np.array([step, 2.0 * step]))[:, 2] - lack
            return step, float(np.log2(second / first)), (float(first), 0.0, 0.0)
        step = max(_SPLIT * min(self._splitting_noise(source), source.variance), 1e-200)
        noise = step * np.array([1.0, 2.0, 3.0])
        a, b, c = (self._exact(noise)[:, 2] - lack) / noise * step
        # deficit/s through the three noises
        second = 0.5 * (c - 2.0 * b + a)
        first = b - a - 3.0 * second
        return step, 1.0, (float(a - first - second), float(first), float(second))

    @cached_property
    def _drowned(self) -> tuple[float, float]:
        """How the overlap falls at large noise: (above which s, first correction to V^2/s there).

        V is the variance.  The sums of the curve lose digits beyond.
        """
        if self._ratio == 0.0:
            return np.inf, 0.0
        largest = max(abs(end) for end in self.measure.support)
        start = min(_VAST * largest**2 / np.sqrt(self._ratio), 1e200)
        return start, start * float(self._exact(np.array([start]))[0, 1]) - self._source.variance**2

    def _evaluate(self, s: Numeric) -> Array:
        """Return (mmse, variance - mmse, strong recovery - mmse/s) along the last axis."""
        given = np.asarray(check("s", s, low=0.0))
        flat = given.ravel()
        strong, variance = float(self.strong_recovery), float(self._source.variance)
        out = np.full((flat.size, 3), np.nan)
        limit, power, (c0, c1, c2) = self._small
        deep = max(limit, _TINY * variance)
        start, correction = self._drowned
        low, high = flat < deep, (flat > start) & (flat < np.inf)
        exact = (flat >= deep) & (flat <= start) & (flat < np.inf)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            x = np.where(low, flat, 0.0) / limit if limit > 0.0 else np.zeros_like(flat)
            rise = np.where(x > 0.0, x**power, 0.0) * (c0 + x * (c1 + x * c2))
        mmse = flat * (strong - rise)
        out[low] = np.stack([mmse, variance - mmse, rise], axis=1)[low]
        if exact.any():
            table = self._exact(np.ascontiguousarray(flat[exact]))
            table[:, 2] -= 1.0 - strong
            out[exact] = table
        if high.any():
            noise = flat[high]
            learned = (variance**2 + correction * (start / noise)) / noise
            mmse = variance - learned
            out[high] = np.stack([mmse, learned, strong - mmse / noise], axis=1)
        out[flat == np.inf] = [variance, 0.0, strong]
        # a moment that is 1 but for rounding is called 1
        np.minimum(out[:, :2], self._moment - self.prior_overlap, out=out[:, :2])
        return out.reshape((*given.shape, 3))

    def mmse(self, s: Numeric) -> Any:
        """Return the minimal error per entry at noise variance ``s``.

        Parameters
        ----------
        s : float or array_like
            Noise variance per entry, in [0, inf].

        Returns
        -------
        float or ndarray
            At most ``min(s, second_moment - prior_overlap)``.
        """
        return scalar_or_array(self._evaluate(s)[..., 0])

    def overlap(self, s: Numeric) -> Any:
        """Return ``second_moment - mmse(s)``: overlap of the Bayes estimate with S per entry.

        Parameters
        ----------
        s : float or array_like
            Noise variance per entry, in [0, inf].

        Returns
        -------
        float or ndarray
            To relative precision also where it is small.
        """
        return scalar_or_array(self._evaluate(s)[..., 1] + self.prior_overlap)

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
        return both[..., 0], both[..., 1] + self.prior_overlap

    def deficit(self, s: Numeric) -> Any:
        """Return ``strong_recovery - mmse(s)/s``.

        Parameters
        ----------
        s : float or array_like
            Noise variance per entry, in [0, inf].

        Returns
        -------
        float or ndarray
            To relative precision where the law is discrete or has no atoms.  With atoms and a
            density the power law of its value at small noise is continued.
        """
        return scalar_or_array(self._evaluate(s)[..., 2])

    def information(self, snr: Numeric) -> Any:
        """Return the mutual information per independent entry, in nats.

        Parameters
        ----------
        snr : float or array_like
            Signal-to-noise ratio ``1/s``, in [0, inf].

        Returns
        -------
        float or ndarray
            With ``d information/d snr = mmse(1/snr)/2``.
        """
        value = np.asarray(check("snr", snr, low=0.0))
        flat = value.ravel()
        out = np.where(np.isnan(flat), np.nan, np.where(flat == 0.0, 0.0, np.inf))
        good = (flat > 0.0) & (flat < np.inf)
        if good.any():
            with np.errstate(over="ignore"):
                s = 1.0 / np.ascontiguousarray(flat[good])
            variance = float(self._source.variance)
            least, most = _LEAST * variance, self._drowned[0]
            # mmse is strong_recovery s below, and V - V^2/s above
            further = -0.5 * float(self.strong_recovery) * np.log(np.minimum(s, least) / least)
            learned = self._information(np.clip(s, least, most)) + further
            x = np.minimum(variance * flat[good], 1.0)
            out[good] = np.where(s > most, 0.5 * x * (1.0 - 0.5 * x), learned)
        return scalar_or_array(out.reshape(value.shape))

    def _information(self, s: Array) -> Array:
        out = np.empty(s.size)
        source, ratio = self._source, self._ratio
        run_blocks(lambda b: subordination.information_array(source, ratio, s[b], out[b]), s.size)
        return out

    def _noise(self, s: float) -> float:
        noise = check("s", s, low=0.0)
        if np.ndim(noise):
            raise ValueError(f"s must be a scalar here, got shape {np.shape(noise)}")
        return float(noise)

    def _drawn(self, d1: int) -> Array:
        """Return the d1 singular values (or eigenvalues) that a sample has."""
        return self.measure.quantiles(check_integer("d1", d1))


@dataclass(frozen=True)
class RotationallyInvariantPrior(_Invariant):
    r"""Any singular values, uniformly random singular vectors: ``S = U diag V^T``.

    Parameters
    ----------
    singular_values : array_like, Measure or SpectralLaw
        Law of the singular values of ``S/sqrt(d2)``: samples (an atom at each), or a
        `bsr_theory.spectra.numerical.Measure` of atoms, histogram or density, or a law of the
        package.  `from_matrix` takes those of a given matrix.
    beta : float
        Aspect ratio ``d2/d1`` in [1, inf].
    normalize : bool
        Whether singular values are divided by the root of their second moment.  Otherwise that is
        the variance of ``h = <X, S>/sqrt(d1 d2)``, which the Gaussian channel takes as it is;
        the others want it to be 1.

    Raises
    ------
    ValueError
        If a singular value is negative, all are 0, or beta is out of its range.

    Notes
    -----
    With mu the law of ``l = sigma^2`` and ``c = 1/beta``, the law of ``W = Y Y^T/d2`` follows from
    the equation of Dozier and Silverstein (see `RectangularConvolution`), and

    .. math:: M(s) = s - s^2\Big[(1-c)^2\int\frac{\rho_W}{w}\,dw
                     + \frac{4\pi^2c^2}{3}\int w\,\rho_W^3\,dw\Big],
              \qquad \hat\sigma = \sqrt w\,\frac{1-p}{p},\quad
              p = 1 - s c\int\frac{l\,\mu(dl)}{|\zeta-l|^2},

    with the denoiser of arXiv:2410.18858 and arXiv:2203.07752 at the subordination variable zeta
    of w.  Agrees with `GaussianFactorPrior` where that applies, to 1e-13 from its density (1e-11
    at rho = 1).

    The law is taken literally: from samples, singular values are known exactly, and at noise so
    small that it resolves single ones the error is that of a discrete law,
    ``strong_recovery < 1``.  One mmse takes about 0.2 ms with 100 atoms and 0.6 ms with 1000 while
    the noise blurs them, but up to 10 ms and 0.3 s where it resolves single ones; with the
    density of two Gaussian factors 5 ms.  Convex estimators (`bsr_theory.erm`) need some 20
    noises a point.

    Examples
    --------
    >>> from bsr_theory.rotational import RotationallyInvariantPrior
    >>> prior = RotationallyInvariantPrior([0.5, 1.5], beta=2.0, normalize=True)
    >>> round(prior.mmse(0.1), 10), prior.strong_recovery
    (0.0800671107, 0.875)
    """

    singular_values: Any
    beta: float
    normalize: bool = False
    _measure: Measure = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the parameters and build the measure."""
        if np.ndim(self.beta):
            raise ValueError(f"beta must be a scalar, got an array of shape {np.shape(self.beta)}")
        object.__setattr__(self, "beta", check("beta", self.beta, low=1.0))
        measure = _as_measure("singular_values", self.singular_values)
        if measure.support[0] < 0.0 or not measure.moment(2) > 0.0:
            raise ValueError(
                f"singular_values must be >= 0 and not all 0, got support {measure.support}"
            )
        if not isinstance(self.singular_values, SpectralLaw):
            # an array among the fields would count as an array of problems
            object.__setattr__(self, "singular_values", measure)
        if self.normalize:
            measure = measure.scaled(measure.moment(2) ** -0.5)
        object.__setattr__(self, "_measure", measure)

    @classmethod
    def from_matrix(
        cls, S: npt.ArrayLike, *, normalize: bool = False
    ) -> RotationallyInvariantPrior:
        """Return the prior of all matrices with the singular values of a given one.

        Parameters
        ----------
        S : array_like, shape (d1, d2) or (d2, d1)
            A finite matrix, say trained weights ``W_Q W_K^T``.  Singular values that are no
            larger than what rounding the entries in the precision of S makes of 0 are 0: a
            product that was stored in single precision keeps its rank.
        normalize : bool
            Whether to scale it to entries of mean square 1.

        Returns
        -------
        RotationallyInvariantPrior
            With ``beta = max(d1, d2)/min(d1, d2)``.

        Raises
        ------
        ValueError
            If S is not a finite matrix.

        Examples
        --------
        >>> import numpy as np
        >>> from bsr_theory.rotational import RotationallyInvariantPrior
        >>> prior = RotationallyInvariantPrior.from_matrix(np.eye(3, 6) * 4.0)
        >>> prior.beta, round(prior.second_moment, 12)
        (2.0, 2.666666666667)
        """
        matrix = numbers("S", S)
        if matrix.ndim != 2 or not matrix.size or not np.isfinite(matrix).all():
            raise ValueError(f"S must be a finite matrix, got shape {matrix.shape}")
        d1, d2 = sorted(matrix.shape)
        values = np.linalg.svd(matrix, compute_uv=False) / np.sqrt(d2)
        # singular values of the rounding errors of all entries, and of the decomposition
        spread = rounding(S) * np.sqrt(np.mean(matrix**2)) * (1.0 + np.sqrt(d1 / d2))
        own = d2 * rounding(matrix) * values[0]
        values[values < max(4.0 * spread, own)] = 0.0
        return cls(values, d2 / d1, normalize)

    @classmethod
    def from_density(
        cls,
        density: Callable[[Array], npt.ArrayLike],
        intervals: Iterable[tuple[float, float]],
        beta: float,
        *,
        atoms: npt.ArrayLike = (),
        normalize: bool = False,
    ) -> RotationallyInvariantPrior:
        """Return the prior with a density of singular values; see `Measure.from_density`.

        Parameters
        ----------
        density : callable
            Density of the singular values of ``S/sqrt(d2)``.
        intervals : iterable of (float, float)
            Where it lives.
        beta : float
            Aspect ratio.
        atoms : array_like, shape (k, 2)
            Rows (place, mass).
        normalize : bool
            Whether to scale to second moment 1.

        Returns
        -------
        RotationallyInvariantPrior
            The prior.
        """
        return cls(Measure.from_density(density, intervals, atoms), beta, normalize)

    @property
    def measure(self) -> Measure:
        """Law of the singular values of ``S/sqrt(d2)``, after normalisation."""
        return self._measure

    @property
    def _symmetric(self) -> bool:
        return False

    @property
    def _ratio(self) -> float:
        return 1.0 / self.beta

    @property
    def rank(self) -> float:
        """Share of singular values that are not 0: the rank of S over d1."""
        atoms = self.measure.atoms
        return 1.0 - float(atoms[atoms[:, 0] == 0.0, 1].sum())

    def unit_source(self) -> Any:
        """Return the law, scaled to second moment 1, as the compiled loops read it.

        Returns
        -------
        namedtuple
            ``subordination.Source``; what `bsr_theory.erm` asks a prior for.
        """
        return self._unit_source

    @cached_property
    def _unit_source(self) -> Any:
        if self._moment == 1.0:
            return self._source
        return self.measure.scaled(self._moment**-0.5).source(symmetric=False)

    @property
    def strong_recovery(self) -> float:
        """Degrees of freedom per entry: 1, less what stays free within equal singular values."""
        c, atoms = self._ratio, self.measure.atoms
        zero = float(atoms[atoms[:, 0] == 0.0, 1].sum())
        others = float(np.sum(atoms[atoms[:, 0] > 0.0, 1] ** 2))
        return 1.0 - 0.5 * c * others - zero * (c * zero + 1.0 - c)

    def _splitting_noise(self, source: Any) -> float:
        c, noise = self._ratio, np.inf
        if source.left[0] > 0.0:
            m = source.single[0]
            noise = source.left[0] ** 2 / (c * m + np.sqrt(c * (1.0 - c) * m))
        if source.left.size > 1:
            width = np.diff(source.left)
            cubes = (source.single[1:] ** (1 / 3) + source.single[:-1] ** (1 / 3)) ** 3
            noise = min(noise, float(np.min(2.0 * width**2 / (c * cubes))))
        return noise

    def _exact(self, s: Array) -> Array:
        if self.beta < _MANY:
            return super()._exact(s)
        out = np.empty((s.size, 3))
        # s is far above the eigenvalues of S S^T: s overlap depends on s/sqrt(beta) alone
        met = s / math.sqrt(self.beta) > _MET * self._moment
        if met.any():
            ratio = math.sqrt(_MANY) / math.sqrt(self.beta)
            rows = np.empty((int(met.sum()), 3))
            subordination.mmse_array(self._source, 1.0 / _MANY, ratio * s[met], rows)
            learned = ratio * rows[:, 1]
            rest = self._moment - learned
            out[met] = np.stack([rest, learned, 1.0 - rest / s[met]], axis=1)
        # columns of S are Gaussian with a covariance that is learned for free
        points, masses = self.measure.rule()
        square = points**2
        for i in np.flatnonzero(~met):
            noise = s[i]
            g, _, _ = subordination.transforms(self._source, complex(0.0, np.sqrt(noise)))
            lack = -noise * g.real
            overlap = float(np.dot(masses, square * square / (square + noise)))
            mmse = noise * (1.0 - lack) if noise < self._moment else self._moment - overlap
            out[i] = mmse, self._moment - mmse if noise < self._moment else overlap, lack
        return out

    def _information(self, s: Array) -> Array:
        if self.beta < _MANY:
            return super()._information(s)
        points, masses = self.measure.rule()
        return np.array([0.5 * np.dot(masses, np.log1p(points**2 / noise)) for noise in s])

    @cached_property
    def _small(self) -> tuple[float, float, tuple[float, float, float]]:
        if self.beta < _MANY:
            return super()._small
        return 0.0, 1.0, (0.0, 0.0, 0.0)

    def law(self, s: float) -> RectangularConvolution:
        """Return the law of the singular values of ``Y/sqrt(d2)``.

        Parameters
        ----------
        s : float
            Noise variance per entry, in [0, inf).

        Returns
        -------
        RectangularConvolution
            Its `mass_error` and `moment_error` tell how well it is resolved.

        Raises
        ------
        ValueError
            If beta is 1e50 or more.
        """
        if self.beta >= _MANY:
            raise ValueError(
                f"beta must be less than {_MANY:g} for a law, got {self.beta!r}: "
                "there w = sigma^2 + s"
            )
        return RectangularConvolution(self.measure, self._noise(s), self.beta)

    def shrink(self, y: Numeric, s: float) -> Any:
        """Return the optimally denoised singular value.

        Parameters
        ----------
        y : float or array_like
            Singular values of ``Y/sqrt(d2)``, ``y >= 0``.
        s : float
            Noise variance per entry, in [0, inf].

        Returns
        -------
        float or ndarray
            From 0 to the largest singular value of the law; it can exceed y.  Off the limiting
            bulks the analytic continuation from the edge.
        """
        noise = self._noise(s)
        value = check("y", y, low=0.0)
        array, top = np.asarray(value), self.measure.support[1]
        if noise == 0.0:
            return scalar_or_array(np.minimum(array, top))
        if noise > _HIDDEN * self._moment:  # all singular values are those of the noise
            return scalar_or_array(np.minimum(array * (self._moment / noise), top))
        if self.beta >= _MANY or noise < _LEAST * self._moment * max(1.0, 0.1 * self.beta**0.5):
            with np.errstate(divide="ignore", over="ignore"):
                shrunk = array - noise / array
        else:
            shrunk = array * np.asarray(self.law(noise).shrink_factor(value))
        return scalar_or_array(np.clip(shrunk, 0.0, top))

    def sample(self, d1: int, *, rng: Any = None) -> Array:
        """Return one S: singular values at the quantiles ``(i + 1/2)/d1``, random vectors.

        Parameters
        ----------
        d1 : int
            Number of rows; there are ``round(beta d1)`` columns.
        rng : None, int or numpy.random.Generator
            Source of randomness.

        Returns
        -------
        ndarray, shape (d1, round(beta d1))
            ``U diag V^T``, U and V uniform.

        Raises
        ------
        ValueError
            If d1 is not a positive integer or beta is infinite.
        """
        values = self._drawn(d1)
        if self.beta == np.inf:
            raise ValueError("beta must be finite to sample a matrix, got inf")
        columns = round(self.beta * values.size)
        generator = np.random.default_rng(rng)
        left = _haar(values.size, values.size, generator)
        right = _haar(columns, values.size, generator)
        return np.asarray((left * (np.sqrt(columns) * values)) @ right.T)

    def at_size(self, d1: int) -> RotationallyInvariantPrior:
        """Return the prior whose beta, and masses of atoms, are those of `sample`.

        Parameters
        ----------
        d1 : int
            Number of rows of S.

        Returns
        -------
        RotationallyInvariantPrior
            Discrete laws get the atoms of the sample, densities stay.
        """
        values = self._drawn(d1)
        if self.beta == np.inf:
            raise ValueError("beta must be finite to sample a matrix, got inf")
        law: Any = values if self.measure.is_discrete else self.measure
        return RotationallyInvariantPrior(law, round(self.beta * values.size) / values.size)


@dataclass(frozen=True)
class SymmetricPrior(SymmetricSignal, _Invariant):
    r"""Symmetric S with any eigenvalues and uniformly random eigenvectors.

    Its denoising problem has symmetric noise: ``Y = S + sqrt(s) Z``, where Z is symmetric with
    independent entries, ``N(0, 1)`` off the diagonal and ``N(0, 2)`` on it (GOE).

    Parameters
    ----------
    eigenvalues : array_like, Measure or SpectralLaw
        Law of the eigenvalues of ``S/sqrt(d)``: samples, or a measure.
    normalize : bool
        Whether eigenvalues are divided by the root of their second moment.

    Raises
    ------
    ValueError
        If all eigenvalues are equal: S is then known.

    Notes
    -----
    Errors are per entry of the d x d matrix, information is per independent entry, of which there
    are ``d^2/2``; without data ``E S``, the mean of the eigenvalues times the unit matrix, is
    known.  With the density and the subordination variable of `SymmetricConvolution`

    .. math:: M(s) = s - \frac{4\pi^2}{3}s^2\int\rho_Y^3\,dy, \qquad
              \hat\lambda = s\int\frac{l\,\mu(dl)}{|\zeta-l|^2}

    (arXiv:1502.06736).  Agrees with `SymmetricFactorPrior`, which has the law of
    ``W W^T``.

    Examples
    --------
    >>> from bsr_theory.rotational import SymmetricPrior
    >>> prior = SymmetricPrior([-1.0, 1.0])
    >>> prior.strong_recovery, round(prior.mmse(0.2), 10)
    (0.5, 0.0974341166)
    """

    eigenvalues: Any
    normalize: bool = False
    beta: float = field(default=1.0, init=False, repr=False)
    _measure: Measure = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the parameters and build the measure."""
        measure = _as_measure("eigenvalues", self.eigenvalues)
        if measure.support[0] == measure.support[1]:
            raise ValueError(f"eigenvalues must not all be equal, got {measure.support[0]:g}")
        if not isinstance(self.eigenvalues, SpectralLaw):
            object.__setattr__(self, "eigenvalues", measure)
        if self.normalize:
            measure = measure.scaled(measure.moment(2) ** -0.5)
        object.__setattr__(self, "_measure", measure)

    @property
    def measure(self) -> Measure:
        """Law of the eigenvalues of ``S/sqrt(d)``, after normalisation."""
        return self._measure

    @property
    def _symmetric(self) -> bool:
        return True

    @property
    def _ratio(self) -> float:
        return 1.0

    @property
    def snr_per_alpha(self) -> float:
        """2: a symmetric matrix has half as many entries."""
        return 2.0

    @property
    def strong_recovery(self) -> float:
        """Degrees of freedom over ``d^2/2``: 1 less the squares of the masses of atoms."""
        return 1.0 - float(np.sum(self.measure.atoms[:, 1] ** 2))

    def _splitting_noise(self, source: Any) -> float:
        width = np.diff(source.left)
        cubes = (source.single[1:] ** (1 / 3) + source.single[:-1] ** (1 / 3)) ** 3
        return float(np.min(width**2 / cubes))

    def law(self, s: float) -> SymmetricConvolution:
        """Return the law of the eigenvalues of ``Y/sqrt(d)``.

        Parameters
        ----------
        s : float
            Noise variance per entry, in [0, inf).

        Returns
        -------
        SymmetricConvolution
            On the real line.
        """
        return SymmetricConvolution(self.measure, self._noise(s))

    def shrink(self, y: Numeric, s: float) -> Any:
        """Return the optimally denoised eigenvalue ``y - 2 s Re g(y)``.

        Parameters
        ----------
        y : float or array_like
            Eigenvalues of ``Y/sqrt(d)``, any real numbers.
        s : float
            Noise variance per entry, in [0, inf].

        Returns
        -------
        float or ndarray
            Clipped to the range of the eigenvalues of S, which matters off the bulks only.
        """
        noise = self._noise(s)
        value = check("y", y)
        low, high = self.measure.support
        if noise == 0.0:
            return scalar_or_array(np.clip(value, low, high))
        if noise > _HIDDEN * self._moment:  # all eigenvalues are those of the noise
            mean, share = self._source.mean, self._source.variance / noise
            return scalar_or_array(np.clip(mean + share * (value - mean), low, high))
        return scalar_or_array(np.clip(self.law(noise).denoised(value), low, high))

    def sample(self, d1: int, *, rng: Any = None) -> Array:
        """Return one S: eigenvalues at the quantiles ``(i + 1/2)/d1``, random eigenvectors.

        Parameters
        ----------
        d1 : int
            Number of rows and of columns.
        rng : None, int or numpy.random.Generator
            Source of randomness.

        Returns
        -------
        ndarray, shape (d1, d1)
            Symmetric.

        Raises
        ------
        ValueError
            If d1 is not a positive integer.
        """
        values = self._drawn(d1)
        vectors = _haar(values.size, values.size, np.random.default_rng(rng))
        matrix = (vectors * (np.sqrt(values.size) * values)) @ vectors.T
        return np.asarray(0.5 * (matrix + matrix.T))

    def at_size(self, d1: int) -> SymmetricPrior:
        """Return the prior whose masses of atoms are those of `sample`.

        Parameters
        ----------
        d1 : int
            Number of rows of S.

        Returns
        -------
        SymmetricPrior
            Discrete laws get the atoms of the sample, densities stay.
        """
        values = self._drawn(d1)
        return SymmetricPrior(values) if self.measure.is_discrete else SymmetricPrior(self.measure)


def without_symmetry(prior: SymmetricSignal) -> RotationallyInvariantPrior:
    """Return the prior of all matrices with the singular values of a symmetric S.

    This is what estimators see that minimise over all matrices (`bsr_theory.erm`).

    Parameters
    ----------
    prior : SymmetricSignal
        Of scalar parameters.

    Returns
    -------
    RotationallyInvariantPrior
        Of the absolute eigenvalues, with ``beta = 1``.

    Raises
    ------
    ValueError
        If parameters are arrays.

    Examples
    --------
    >>> from bsr_theory.rotational import SymmetricPrior, without_symmetry
    >>> signs = SymmetricPrior([-1.0, 1.0])
    >>> signs.mmse(0.2) < 0.2 * without_symmetry(signs).strong_recovery
    True
    """
    if prior.shape:
        raise ValueError(f"parameters of the prior must be scalars here, got shape {prior.shape}")
    return _without_symmetry(prior)


@lru_cache(maxsize=64)  # its law is read at every call of an estimator
def _without_symmetry(prior: SymmetricSignal) -> RotationallyInvariantPrior:
    if isinstance(prior, SymmetricPrior):
        return RotationallyInvariantPrior(prior.measure.folded(), 1.0)
    return RotationallyInvariantPrior(Measure.from_law(prior.law(0.0)).folded(), 1.0)
