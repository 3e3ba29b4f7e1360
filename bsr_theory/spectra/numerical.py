"""Laws of noisy matrices whose signal has any singular values, by subordination."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import Array, Numeric, check, check_number, numbers, run_blocks, scalar_or_array
from .._kernels import subordination
from .law import Quadrature, SpectralLaw, _rule

__all__ = ["Measure", "RectangularConvolution", "SymmetricConvolution"]

_MOST_NOISE = 1e60  # relative to the second moment
_LEAST_NOISE = 1e-30  # the same, that smaller noise but 0 counts as
_TAIL = 1e-14  # mass in the last two Legendre coefficients below which a panel is resolved
_SHORTEST = 1e-13  # panels are not cut shorter, relative to their interval
_DEEPEST = 1e-30  # nor at 0, where numbers are dense
_MASS = 1e-6  # largest error of the mass of a density
_NODES, _WEIGHTS = subordination.NODES, subordination.WEIGHTS
_ANALYSIS = (
    np.polynomial.legendre.legvander(_NODES, 15) * _WEIGHTS[:, None] * (np.arange(16) + 0.5)
).T


class Measure:
    """A probability law on the line: atoms and densities on intervals.

    Made by `from_samples`, `from_atoms`, `from_histogram`, `from_density` and `from_law`.
    For a signal S of shape (d1, d2) it is the law of the singular values of ``S/sqrt(d2)``; for a
    symmetric S of shape (d, d), that of the eigenvalues of ``S/sqrt(d)``.

    Parameters
    ----------
    atoms : ndarray, shape (k, 2)
        Rows (place, mass).
    panels : ndarray, shape (m, 2)
        Intervals, disjoint, on each of which the density is a polynomial of degree 15.
    coefficients : ndarray, shape (m, 16)
        Legendre coefficients of the density times half the length of the panel.
    mass_error : float
        Distance of the total mass from 1 before it was divided out.

    Notes
    -----
    A density is cut into panels until the last Legendre coefficients of each are below rounding;
    towards an end where it is not smooth (a square root, say) panels shrink geometrically.  The
    Cauchy transform is then exact also next to the support.

    Examples
    --------
    >>> import numpy as np
    >>> from bsr_theory.spectra.numerical import Measure
    >>> two = Measure.from_atoms([0.5, 1.5], [0.75, 0.25])
    >>> two.moment(2)
    0.75
    >>> half = Measure.from_density(lambda x: np.sqrt(4 - x**2) / (2 * np.pi), [(-2, 2)])
    >>> bool(abs(half.moment(2) - 1) < 1e-12)
    True
    """

    def __init__(
        self, atoms: Array, panels: Array, coefficients: Array, mass_error: float = 0.0
    ) -> None:
        order = np.argsort(panels[:, 0])
        self._atoms, self._panels, self._coefficients = atoms, panels[order], coefficients[order]
        self.mass_error = mass_error

    def __repr__(self) -> str:
        """Tell the number of atoms, the support of the density and the second moment."""
        return (
            f"Measure({len(self._atoms)} atoms, {len(self._panels)} panels, "
            f"second moment {self.moment(2):.6g})"
        )

    def __eq__(self, other: object) -> bool:
        """Tell whether both are the same numbers."""
        return (
            isinstance(other, Measure)
            and np.array_equal(self._atoms, other._atoms)
            and np.array_equal(self._panels, other._panels)
            and np.array_equal(self._coefficients, other._coefficients)
        )

    def __hash__(self) -> int:
        """Return a hash of the numbers."""
        parts = (self._atoms, self._panels, self._coefficients)
        return hash(tuple(x.tobytes() for x in parts))

    # -- makers ------------------------------------------------------------------------------

    @classmethod
    def from_samples(cls, values: npt.ArrayLike) -> Measure:
        """Return the empirical law: an atom at every value, of mass 1/n (equal ones together).

        Parameters
        ----------
        values : array_like, shape (n,)
            Finite numbers.

        Returns
        -------
        Measure
            With at most n atoms.

        Raises
        ------
        ValueError
            If values is empty or not finite.
        """
        array = _finite("values", values)
        places, counts = np.unique(array, return_counts=True)
        return cls._pure(places, np.asarray(counts / array.size, dtype=np.float64))

    @classmethod
    def from_atoms(cls, values: npt.ArrayLike, masses: npt.ArrayLike) -> Measure:
        """Return the law with an atom of each mass at each value.

        Parameters
        ----------
        values, masses : array_like, shape (n,)
            Finite numbers; masses are positive and sum to 1.

        Returns
        -------
        Measure
            Masses at equal values are added.

        Raises
        ------
        ValueError
            If shapes differ, a mass is negative, or they do not sum to 1.
        """
        array, weights = _finite("values", values), _finite("masses", masses)
        if array.shape != weights.shape:
            raise ValueError(
                f"masses must have the shape of values {array.shape}, got {weights.shape}"
            )
        total = _total("masses", weights)
        places, inverse = np.unique(array[weights > 0.0], return_inverse=True)
        merged = np.bincount(inverse.ravel(), weights[weights > 0.0] / total)
        return cls._pure(places, np.asarray(merged, dtype=np.float64), abs(total - 1.0))

    @classmethod
    def from_histogram(cls, counts: npt.ArrayLike, edges: npt.ArrayLike) -> Measure:
        """Return the law that is uniform on each bin, as ``numpy.histogram`` gives it.

        Parameters
        ----------
        counts : array_like, shape (n,)
            Not negative; only their ratios matter.
        edges : array_like, shape (n + 1,)
            Increasing.

        Returns
        -------
        Measure
            Of mass 1.

        Raises
        ------
        ValueError
            If shapes do not fit, edges do not increase, or counts are negative or all 0.
        """
        heights, ends = _finite("counts", counts), _finite("edges", edges)
        if ends.size != heights.size + 1 or np.any(np.diff(ends) <= 0.0):
            raise ValueError(
                f"edges must be {heights.size + 1} increasing numbers, got {ends.size}"
            )
        if np.any(heights < 0.0) or not heights.sum() > 0.0:
            raise ValueError("counts must be >= 0 and not all 0")
        panels, coefficients = [], []
        for low, high, count in zip(ends[:-1], ends[1:], heights / heights.sum(), strict=True):
            if count > 0.0:
                for a, b in _cut(float(low), float(high)):
                    panels.append((a, b))
                    coefficients.append(np.eye(16)[0] * 0.5 * count * (b - a) / (high - low))
        return cls(np.empty((0, 2)), np.array(panels), np.array(coefficients))

    @classmethod
    def from_density(
        cls,
        density: Callable[[Array], npt.ArrayLike],
        intervals: Iterable[tuple[float, float]],
        atoms: npt.ArrayLike = (),
    ) -> Measure:
        """Return the law with a density on intervals and atoms.

        Parameters
        ----------
        density : callable
            Takes an array of numbers inside an interval, returns the density there.
        intervals : iterable of (float, float)
            Disjoint; the density should be smooth inside each, whatever it does at their ends.
        atoms : array_like, shape (k, 2)
            Rows (place, mass).

        Returns
        -------
        Measure
            Its `mass_error` says how far the given mass was from 1.

        Raises
        ------
        ValueError
            If an interval is empty, the density is negative or not finite, or the mass is not 1
            to 1e-6.
        """
        bounds = sorted((float(a), float(b)) for a, b in intervals)
        for i, (low, high) in enumerate(bounds):
            overlap = i + 1 < len(bounds) and bounds[i + 1][0] < high
            if not (np.isfinite(low) and np.isfinite(high) and low < high) or overlap:
                raise ValueError(f"intervals must be finite and disjoint, got {bounds!r}")
        panels: list[tuple[float, float]] = []
        coefficients: list[Array] = []
        for low, high in bounds:
            _resolve(density, low, high, panels, coefficients)
        points = np.reshape(numbers("atoms", atoms), (-1, 2))
        points = points[points[:, 1] != 0.0]
        if points.size and (np.any(points[:, 1] < 0.0) or not np.isfinite(points).all()):
            raise ValueError(f"atoms must be finite rows (place, mass > 0), got {atoms!r}")
        table = np.reshape(np.array(coefficients), (-1, 16))
        total = float(points[:, 1].sum() + 2.0 * table[:, 0].sum())
        if not abs(total - 1.0) <= _MASS:
            raise ValueError(f"density must have mass 1 with the atoms, got {total!r}")
        points = points[np.argsort(points[:, 0])] / [1.0, total]
        ends = np.reshape(np.array(panels), (-1, 2))
        return cls(points, ends, table / total, abs(total - 1.0))

    @classmethod
    def from_law(cls, law: SpectralLaw) -> Measure:
        """Return a `SpectralLaw` as a measure of its singular values (or eigenvalues).

        Parameters
        ----------
        law : SpectralLaw
            Its density on its bulks, and its atoms.

        Returns
        -------
        Measure
            Accurate to about 1e-12.
        """
        return cls.from_density(law.density, [tuple(row) for row in law.edges], law.atoms)

    @classmethod
    def _pure(cls, places: Array, masses: Array, error: float = 0.0) -> Measure:
        atoms = np.stack([places, masses], axis=1)
        return cls(atoms, np.empty((0, 2)), np.empty((0, 16)), error)

    # -- what it knows -----------------------------------------------------------------------

    @property
    def atoms(self) -> Array:
        """Atoms as rows (place, mass), shape (k, 2)."""
        return self._atoms.copy()

    @property
    def is_discrete(self) -> bool:
        """Whether there are atoms only."""
        return not len(self._panels)

    @cached_property
    def intervals(self) -> Array:
        """Intervals on which there is a density, shape (k, 2)."""
        merged: list[list[float]] = []
        for low, high in self._panels:
            if merged and low == merged[-1][1]:
                merged[-1][1] = high
            else:
                merged.append([low, high])
        return np.reshape(np.array(merged), (-1, 2))

    @property
    def support(self) -> tuple[float, float]:
        """Smallest and largest point of the support."""
        points = np.concatenate([self._atoms[:, 0], self._panels.ravel()])
        return float(points.min()), float(points.max())

    def rule(self, nodes: int = 16) -> tuple[Array, Array]:
        """Return points and masses that integrate smooth functions, atoms last.

        Parameters
        ----------
        nodes : int
            Gauss-Legendre points a panel.

        Returns
        -------
        points, masses : ndarray
            Of one length.
        """
        x, w = _rule(nodes)
        half = 0.5 * np.diff(self._panels, axis=1)
        points = (self._panels.mean(axis=1, keepdims=True) + half * x).ravel()
        masses = np.polynomial.legendre.legval(x, self._coefficients.T).reshape(-1, x.size) * w
        return (
            np.append(points, self._atoms[:, 0]),
            np.append(masses.ravel(), self._atoms[:, 1]),
        )

    def moment(self, order: int) -> float:
        """Return ``int x^order``."""
        points, masses = self.rule()
        return float(np.dot(masses, points**order))

    def density(self, x: Numeric) -> Any:
        """Return the density at ``x``, atoms apart."""
        flat = np.ravel(numbers("x", x))
        out = np.where(np.isnan(flat), np.nan, 0.0)
        if len(self._panels):
            k = np.searchsorted(self._panels[:, 0], flat, side="right") - 1
            low, high = self._panels[np.maximum(k, 0)].T
            inside = (k >= 0) & (flat <= high)
            t = np.clip((2.0 * flat - low - high) / (high - low), -1.0, 1.0)
            table = self._coefficients[np.maximum(k, 0)].T
            value = np.polynomial.legendre.legval(t, table, tensor=False) * 2.0 / (high - low)
            out = np.where(inside, value, out)
        return scalar_or_array(out.reshape(np.shape(x)))

    def quantiles(self, n: int) -> Array:
        """Return the values below which lies the mass ``(i + 1/2)/n``, ``i < n``.

        Parameters
        ----------
        n : int
            How many.

        Returns
        -------
        ndarray, shape (n,)
            Increasing.
        """
        starts = np.append(self._panels[:, 0], self._atoms[:, 0])
        masses = np.append(2.0 * self._coefficients[:, 0], self._atoms[:, 1])
        order = np.argsort(starts, kind="stable")
        total = np.cumsum(masses[order])
        target = (np.arange(n) + 0.5) / n * total[-1]
        at = order[np.minimum(np.searchsorted(total, target), order.size - 1)]
        rest = target - (np.append(0.0, total)[np.argsort(order)])[at]
        m = len(self._panels)
        out = np.where(at >= m, starts[at], 0.0)
        for i in np.flatnonzero(at < m):
            out[i] = self._inverse(int(at[i]), float(rest[i]))
        return np.asarray(out)

    def _inverse(self, k: int, mass: float) -> float:
        """Return the point of panel k below which the panel has that mass."""
        integral = np.polynomial.legendre.legint(self._coefficients[k], lbnd=-1.0)
        low, high = -1.0, 1.0
        for _ in range(60):
            middle = 0.5 * (low + high)
            if np.polynomial.legendre.legval(middle, integral) < mass:
                low = middle
            else:
                high = middle
        a, b = self._panels[k]
        return float(0.5 * (a + b) + 0.25 * (b - a) * (low + high))

    def scaled(self, factor: float) -> Measure:
        """Return the law of ``factor x``, ``factor > 0``.

        Parameters
        ----------
        factor : float
            A positive number.

        Returns
        -------
        Measure
            With the same masses.
        """
        number = check_number("factor", factor, open_low=True)
        atoms, panels = self._atoms * [number, 1.0], self._panels * number
        return Measure(atoms, panels, self._coefficients, self.mass_error)

    def folded(self) -> Measure:
        """Return the law of ``|x|``: of singular values, from eigenvalues.

        Returns
        -------
        Measure
            With the same even moments.

        Examples
        --------
        >>> from bsr_theory.spectra.numerical import Measure
        >>> Measure.from_atoms([-1.0, 0.5, 1.0], [0.25, 0.5, 0.25]).folded().atoms
        array([[0.5, 0.5],
               [1. , 0.5]])
        """
        atoms = np.empty((0, 2))
        if len(self._atoms):
            places, inverse = np.unique(np.abs(self._atoms[:, 0]), return_inverse=True)
            atoms = np.stack([places, np.bincount(inverse.ravel(), self._atoms[:, 1])], axis=1)
        if not len(self._panels) or self._panels.min() >= 0.0:
            return Measure(atoms, self._panels, self._coefficients, self.mass_error)
        # between the ends of panels of both signs both densities are polynomials of degree 15
        ends = np.unique(np.append(np.abs(self._panels), 0.0))
        middle = 0.5 * (ends[1:] + ends[:-1])
        covered = np.logical_or(*(self.density(x) > 0.0 for x in (middle, -middle)))
        panels = np.stack([ends[:-1], ends[1:]], axis=1)[covered & (middle > ends[:-1])]
        x, w = _rule(16)
        half = 0.5 * np.diff(panels, axis=1)
        points = panels.mean(axis=1, keepdims=True) + half * x
        values = half * (np.asarray(self.density(points)) + np.asarray(self.density(-points)))
        legendre = np.polynomial.legendre.legvander(x, 15) * (np.arange(16) + 0.5)
        return Measure(atoms, panels, (values * w) @ legendre, self.mass_error)

    def source(self, *, symmetric: bool) -> Any:
        """Return the arrays that the compiled loops read.

        Parameters
        ----------
        symmetric : bool
            Whether the law is one of eigenvalues.

        Returns
        -------
        namedtuple
            ``subordination.Source``.
        """
        parts = [(x, x, m) for x, m in self._atoms]
        parts += [(a, b, 0.0) for a, b in self.intervals]
        merged: list[list[float]] = []
        for low, high, mass in sorted(parts):
            if merged and low <= merged[-1][1]:
                merged[-1] = [merged[-1][0], max(high, merged[-1][1]), 0.0]
            else:
                merged.append([low, high, mass])
        left, right, single = (np.array(column) for column in zip(*merged, strict=True))
        length = np.diff(self._panels, axis=1)
        nodes = (self._panels[:, :1] + 0.5 * length * (1.0 + _NODES)).ravel()
        values = np.polynomial.legendre.legval(_NODES, self._coefficients.T)
        # the highest coefficient that matters: noise in those above would be amplified
        large = np.abs(self._coefficients) > 1e-17
        degree = 15 - np.argmax(large[:, ::-1], axis=1)
        mean = self.moment(1) if symmetric else 0.0
        points, masses = self.rule()
        return subordination.Source(
            symmetric,
            np.ascontiguousarray(self._atoms[:, 0]),
            np.ascontiguousarray(self._atoms[:, 0]) ** 2,
            np.ascontiguousarray(self._atoms[:, 1]),
            np.ascontiguousarray(self._panels[:, 0]),
            np.ascontiguousarray(self._panels[:, 1]),
            np.ascontiguousarray(self._coefficients),
            degree.astype(np.int64),
            nodes,
            nodes**2,
            (values.reshape(-1, 16) * _WEIGHTS).ravel(),
            left,
            right,
            single,
            mean,
            float(np.dot(masses, (points - mean) ** 2)),
        )


def _finite(name: str, values: npt.ArrayLike) -> Array:
    array = np.ravel(numbers(name, values))
    if not array.size or not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite numbers, at least one, got {values!r}")
    return array


def _total(name: str, weights: Array) -> float:
    total = float(weights.sum())
    if np.any(weights < 0.0) or not abs(total - 1.0) <= _MASS:
        raise ValueError(f"{name} must be >= 0 and sum to 1, got sum {total!r}")
    return total


def _cut(low: float, high: float) -> list[tuple[float, float]]:
    """Return pieces of an interval none of which is long compared to its distance from 0."""
    if low < 0.0 < high:
        return _cut(low, 0.0) + _cut(0.0, high)
    near, far = min(abs(low), abs(high)), max(abs(low), abs(high))
    if near == 0.0 or far <= 3.0 * near:
        return [(low, high)]
    ends = np.geomspace(near, far, 2 + int(np.log(far / near) / np.log(3.0)))
    ends[0], ends[-1] = near, far
    pieces = [(float(a), float(b)) for a, b in itertools.pairwise(ends)]
    return [(-b, -a) for a, b in reversed(pieces)] if high <= 0.0 else pieces


def _resolve(
    density: Callable[[Array], npt.ArrayLike],
    low: float,
    high: float,
    panels: list[tuple[float, float]],
    coefficients: list[Array],
) -> None:
    """Append the panels of one interval."""
    todo = _cut(low, high)[::-1]
    shortest = _SHORTEST * max(high - low, 1e-3 * max(abs(low), abs(high)))
    while todo:
        a, b = todo.pop()
        points = 0.5 * (a + b) + 0.5 * (b - a) * _NODES
        values = np.asarray(density(points), dtype=np.float64)
        if values.shape != points.shape or not (np.isfinite(values) & (values >= -1e-12)).all():
            raise ValueError(f"density must be finite and >= 0 inside ({low:g}, {high:g})")
        row = _ANALYSIS @ (0.5 * (b - a) * values)
        middle = 0.5 * (a + b)
        short = b - a <= (shortest if a != 0.0 != b else _DEEPEST * (high - low))
        if np.abs(row[-2:]).sum() <= _TAIL or short or not a < middle < b:
            panels.append((a, b))
            coefficients.append(row)
        else:
            todo += [(middle, b), (a, middle)]


# --------------------------------------------------------------------------------------------
# The laws of noisy matrices
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Convolution(SpectralLaw):
    """What rectangular and symmetric noise share."""

    measure: Measure
    s: float
    _source: Any = field(init=False, repr=False, compare=False)
    _bulks: Any = field(init=False, repr=False, compare=False)
    _ends: Any = field(init=False, repr=False, compare=False)

    _symmetric = False

    def _prepare(self) -> None:
        if not isinstance(self.measure, Measure):
            raise ValueError(f"measure must be a Measure, got {self.measure!r}")
        noise, most = check_number("s", self.s), _MOST_NOISE * self.measure.moment(2)
        if noise > most > 0.0:
            raise ValueError(f"s must be at most {most:g} to leave a trace of S, got {noise!r}")
        if noise > 0.0:
            least = _LEAST_NOISE * self.measure.moment(2)
            noise = max(noise, least)  # less is below rounding
            least *= 0.1 * self._ratio**-0.5
            if noise < least:  # bulks are too narrow
                raise ValueError(f"s must be 0 or at least {least:g}, got {self.s!r}")
        source = self.measure.source(symmetric=self._symmetric)
        object.__setattr__(self, "s", noise)
        object.__setattr__(self, "_source", source)
        if noise > 0.0:
            bulks = subordination.make_bulks(source, noise, self._ratio)
            ends = subordination.edges(source, noise, self._ratio, bulks)
        else:
            bulks, ends = np.empty((0, 4)), self._eigenvalues(self.measure.intervals)
        object.__setattr__(self, "_bulks", bulks)
        object.__setattr__(self, "_ends", ends)

    @property
    @abstractmethod
    def _ratio(self) -> float:
        """Aspect ratio c = 1/beta, 1 for symmetric noise."""

    @abstractmethod
    def _eigenvalues(self, y: Array) -> Array:
        """Return the variable of the kernels."""

    @abstractmethod
    def _places(self, w: Array) -> Array:
        """Return singular values, or eigenvalues of a symmetric matrix."""

    @property
    def edges(self) -> Array:
        """Edges of the bulks, shape (bulks, 2), increasing."""
        return self._places(np.array(self._ends))

    @property
    def atoms(self) -> Array:
        """Atoms as rows (y, mass): those of the signal without noise, else none."""
        return self.measure.atoms if self.s == 0.0 else np.empty((0, 2))

    @cached_property
    def _panels(self) -> Array:
        sums = np.empty(4)
        return np.asarray(
            subordination.trace(self._source, self.s, self._ratio, self._bulks, False, sums)
        )

    def _rows(self, nodes: int) -> Array:
        x, w = _rule(nodes)
        return np.asarray(
            subordination.quadrature(
                self._source, self.s, self._ratio, self._bulks, self._panels, x, w
            )
        )

    def quadrature(self, nodes: int = 16) -> Quadrature:
        """Return the rule with ``nodes`` Gauss-Legendre points on each panel of the curve.

        Parameters
        ----------
        nodes : int
            Points a panel, from 1 to 512; 16 resolve the mass to 1e-13 or so.

        Returns
        -------
        Quadrature
            Nodes and weights, the latter including the density.
        """
        if self.s == 0.0:
            points, masses = self.measure.rule(nodes)
            return Quadrature(points, masses)
        rows = self._rows(nodes)
        return Quadrature(self._places(rows[:, 0]), rows[:, 1])

    @cached_property
    def mass_error(self) -> float:
        """Distance of the mass of the default rule from 1."""
        return abs(float(self.quadrature().weights.sum()) - 1.0)

    @cached_property
    def moment_error(self) -> float:
        """Relative error of the second moment of the default rule, which is known exactly."""
        rule, exact = self.quadrature(), self.measure.moment(2) + self.s
        return abs(float(np.dot(rule.weights, rule.y**2)) / exact - 1.0)

    def _all_values(self, w: Array, with_potential: bool) -> Array:
        """Return (density of w, Re g, log potential, denoised) along the last axis."""
        out = np.zeros((w.size, 4))
        if self.s > 0.0:
            run_blocks(
                lambda block: subordination.values(
                    self._source, self.s, self._ratio, self._bulks, self._ends, w[block],
                    with_potential, out[block],
                ),
                w.size,
            )  # fmt: skip
            return out
        y = self._places(w)
        # the principal value: half the jump on each side of a density
        for i, place in enumerate(y):
            point = complex(place, 1e-300) if self._symmetric else complex(abs(place), 1e-300)
            g, _, potential = subordination.transforms(self._source, point)
            out[i, 1], out[i, 2] = g.real, potential.real
        out[:, 0] = self._density_of_w(y, np.asarray(self.measure.density(y)))
        out[:, 3] = w
        return out

    @abstractmethod
    def _density_of_w(self, y: Array, density: Array) -> Array:
        """Return the density in the kernels' variable from that in y."""

    def _values(self, y: Array) -> tuple[Array, Array, Array]:
        out = self._all_values(self._eigenvalues(y), True)
        return out[:, 0], out[:, 1], out[:, 2]

    def _upper(self, z: Array) -> Array:
        """Return g at points of the open upper half plane."""
        out = np.full(z.shape, np.nan + 0j)
        if self.s > 0.0:
            subordination.stieltjes(self._source, self.s, self._ratio, z, out)
        else:
            for i, point in enumerate(z):
                omega = point if self._symmetric else np.sqrt(point)
                out[i] = subordination.transforms(self._source, complex(omega))[0]
        return out

    def stieltjes(self, z: complex | npt.ArrayLike) -> Any:
        """Return ``g(z)``, the Stieltjes transform of the law of eigenvalues.

        Parameters
        ----------
        z : complex or array_like
            Points of the plane of eigenvalues: ``w = y^2`` for rectangular matrices.

        Returns
        -------
        complex or ndarray
            On the support, the boundary value from above.

        Notes
        -----
        Off the real axis Newton's method for the subordination variable, continued from far above
        in steps that are halved until it follows.
        """
        points = np.asarray(z, dtype=np.complex128)
        flat = points.ravel()
        out = np.full(flat.shape, np.nan + 0j)
        real = (flat.imag == 0.0) & ~np.isnan(flat.real)
        if real.any():
            table = self._all_values(np.ascontiguousarray(flat.real[real]), False)
            out[real] = table[:, 1] - 1j * np.pi * table[:, 0]
        rest = (flat.imag != 0.0) & np.isfinite(flat)
        upper = np.where(flat.imag > 0.0, flat, flat.conj())[rest]
        g = self._upper(np.ascontiguousarray(upper))
        out[rest] = np.where(flat.imag[rest] > 0.0, g, g.conj())
        return scalar_or_array(out.reshape(points.shape))


@dataclass(frozen=True)
class RectangularConvolution(_Convolution):
    r"""Singular values of ``Y/sqrt(d2)``, ``Y = S + sqrt(s) Z``, S of any singular values.

    Parameters
    ----------
    measure : Measure
        Law of the singular values of ``S/sqrt(d2)``.
    s : float
        Noise variance per entry, 0 or from 1e-30 (``1e-31 sqrt(beta)`` with many columns) to 1e60
        times the second moment; less counts as 1e-30.
    beta : float
        Aspect ratio ``d2/d1`` in [1, 1e50].

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Notes
    -----
    The equation of Dozier and Silverstein (J. Multivariate Anal. 98, 678): with the transform
    ``g0`` of the eigenvalues of ``S S^T/d2`` and ``c = 1/beta``

    .. math:: w = \zeta A^2 + s(1-c) A, \qquad A = 1 + s c\, g_0(\zeta), \qquad g = g_0/A .

    A bulk is a curve ``Im w = 0`` above the real axis.  With ``zeta = (a + i b)^2`` it is a graph
    over a, and the eigenvalue, the density and the denoiser are explicit positive expressions
    on it.  Bulks are found exactly (there is at most one gap between two atoms), and quadrature
    along the curve converges exponentially, since edges are regular points in the angle x of
    ``a = a1 + (a2 - a1) sin^2(x/2)``; panels are cut until each is resolved.

    Examples
    --------
    >>> from bsr_theory.spectra.numerical import Measure, RectangularConvolution
    >>> two = Measure.from_atoms([0.5, 1.5], [0.5, 0.5])
    >>> law = RectangularConvolution(two, s=0.05, beta=2.0)
    >>> law.edges.shape, law.mass_error < 1e-12
    ((2, 2), True)
    >>> round(law.moments(1), 10)
    1.3
    """

    beta: float

    def __post_init__(self) -> None:
        """Check the parameters and find the bulks."""
        # beyond, bulks are too narrow for numbers
        object.__setattr__(self, "beta", check_number("beta", self.beta, low=1.0, high=1e50))
        if isinstance(self.measure, Measure) and self.measure.support[0] < 0.0:
            raise ValueError(f"measure must be on [0, inf), got support {self.measure.support}")
        self._prepare()

    @property
    def _ratio(self) -> float:
        return 1.0 / self.beta

    def _eigenvalues(self, y: Array) -> Array:
        return np.asarray(y * y)

    def _places(self, w: Array) -> Array:
        return np.sqrt(w)

    def _density_of_w(self, y: Array, density: Array) -> Array:
        return np.asarray(density / (2.0 * y))

    def shrink_factor(self, y: Numeric) -> Any:
        """Return the denoised singular value over y, ``1 - s h(y)/y``, not below 0.

        Parameters
        ----------
        y : float or array_like
            Singular values of ``Y/sqrt(d2)``.

        Returns
        -------
        float or ndarray
            On a bulk a ratio of positive numbers, off them continued analytically.  It can exceed
            1: noise pushes singular values down, too.
        """
        value, flat = self._checked(y)
        finite = np.where(np.isinf(flat), 1.0, flat)
        w = finite * finite
        ratio = self._all_values(w, False)[:, 3] / w
        ratio = np.maximum(np.where(np.isinf(flat), 1.0, ratio), 0.0)
        return scalar_or_array(ratio.reshape(np.shape(value)))


@dataclass(frozen=True)
class SymmetricConvolution(_Convolution):
    r"""Eigenvalues of ``Y/sqrt(d)``, ``Y = S + sqrt(s) Z``, S symmetric of any eigenvalues.

    Z is symmetric with independent entries, ``N(0, 1)`` off the diagonal and ``N(0, 2)`` on it
    (GOE).  As in `SymmetricFactorLaw`, y is any real number and takes the place of w.

    Parameters
    ----------
    measure : Measure
        Law of the eigenvalues of ``S/sqrt(d)``.
    s : float
        Noise variance per entry, from 0 to 1e60 times the second moment.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Notes
    -----
    The equation of Pastur, ``y = zeta + s g0(zeta)``, ``g = g0(zeta)``: free convolution with a
    semicircle.  On a bulk ``zeta = a + i b`` with ``s int mu(dl)/|zeta - l|^2 = 1``, the density
    is ``b/(pi s)`` (P. Biane, Indiana Univ. Math. J. 46, 705) and the denoised eigenvalue the
    mean of ``l`` with weights ``1/|zeta - l|^2``.

    Examples
    --------
    >>> import numpy as np
    >>> from bsr_theory.spectra.numerical import Measure, SymmetricConvolution
    >>> law = SymmetricConvolution(Measure.from_atoms([-1.0, 1.0], [0.5, 0.5]), s=0.5)
    >>> law.edges.shape, np.abs(law.moments([0, 1, 2])).round(10)
    ((2, 2), array([1. , 0. , 1.5]))
    """

    beta = 1.0
    _symmetric = True

    def __post_init__(self) -> None:
        """Check the parameters and find the bulks."""
        self._prepare()

    @property
    def _ratio(self) -> float:
        return 1.0

    def _eigenvalues(self, y: Array) -> Array:
        return np.array(y)

    def _places(self, w: Array) -> Array:
        return w

    def _density_of_w(self, y: Array, density: Array) -> Array:
        return density

    def _column(self, y: Numeric, column: int) -> Any:
        value = check("y", y)
        flat = np.ascontiguousarray(np.ravel(value), dtype=np.float64)
        return scalar_or_array(self._all_values(flat, column == 2)[:, column].reshape(np.shape(y)))

    def density(self, y: Numeric) -> Any:
        """Return the density of eigenvalues at ``y`` (atoms apart).

        Parameters
        ----------
        y : float or array_like
            Eigenvalues of ``Y/sqrt(d)``, any real numbers.

        Returns
        -------
        float or ndarray
            ``-Im g(y)/pi``; 0 off the bulks.
        """
        return self._column(y, 0)

    def hilbert(self, y: Numeric) -> Any:
        """Return ``h(y) = 2 Re g(y)``, with which ``y - s h(y)`` is the optimal denoiser.

        Parameters
        ----------
        y : float or array_like
            Eigenvalues of ``Y/sqrt(d)``, on the bulks or off them.

        Returns
        -------
        float or ndarray
            Off the bulks, the analytic continuation from the nearest edge.
        """
        return scalar_or_array(2.0 * np.asarray(self._column(y, 1)))

    def log_potential(self, y: Numeric) -> Any:
        """Return ``int log|y - y'|`` over the law, on the bulks or off them.

        Parameters
        ----------
        y : float or array_like
            Eigenvalues of ``Y/sqrt(d)``.

        Returns
        -------
        float or ndarray
            In nats.
        """
        return self._column(y, 2)

    def denoised(self, y: Numeric) -> Any:
        """Return ``y - s h(y)``, on a bulk a mean of eigenvalues of the signal.

        Parameters
        ----------
        y : float or array_like
            Eigenvalues of ``Y/sqrt(d)``, on the bulks or off them.

        Returns
        -------
        float or ndarray
            Off the bulks, the analytic continuation from the nearest edge.
        """
        mean = self._source.mean if self.s > 0.0 else 0.0
        return scalar_or_array(np.asarray(self._column(y, 3)) + mean)

    def moments(self, order: int | npt.ArrayLike) -> Any:
        """Return ``int y^k`` over the law.

        Parameters
        ----------
        order : int or array_like of int
            The exponents ``k >= 0``.

        Returns
        -------
        float or ndarray
            Moments; the second is that of S plus s.
        """
        k = np.asarray(check("order", order, low=0.0, allow_inf=False))
        if np.any(k % 1):
            raise ValueError(f"order must be an integer or integers, got {order!r}")
        rule = self.quadrature(32)
        return scalar_or_array(np.tensordot(rule.weights, np.power.outer(rule.y, k), axes=1))
