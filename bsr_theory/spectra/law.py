"""Spectral laws of singular values: edges, density, transforms, quadrature."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .._arrays import Array, Numeric, check, check_number, run_blocks, scalar_or_array
from .._kernels import rectangular
from .curve import RectangularCurve

__all__ = ["GaussianFactorLaw", "Integral", "MarchenkoPasturLaw", "Quadrature", "SpectralLaw"]

_LARGEST_RULE = 256
_NONE = 1e-30  # noise variance that stands for none
_HIDDEN = 1e13  # s rho, in units of sqrt(beta), from which on the law is that of the noise


class Quadrature(NamedTuple):
    """Nodes and weights with ``sum(weights * f(y)) -> int f(y) density(y) dy``.

    Attributes
    ----------
    y : ndarray, shape (n,)
        Singular values of ``Y/sqrt(d2)``, increasing.
    weights : ndarray, shape (n,)
        They sum to the mass of the law, 1; atoms come last.

    Examples
    --------
    >>> import numpy as np
    >>> from bsr_theory.spectra import GaussianFactorLaw
    >>> rule = GaussianFactorLaw(beta=2.0, rho=0.5, s=0.3).quadrature()
    >>> round(float(np.dot(rule.weights, rule.y**2)), 12)  # E ||Y||^2/(d1 d2) = 1 + s
    1.3
    """

    y: Array
    weights: Array


class Integral(NamedTuple):
    """A value and the change it made when the number of nodes was doubled.

    Examples
    --------
    >>> from bsr_theory.spectra import GaussianFactorLaw
    >>> integral = GaussianFactorLaw(beta=2.0, rho=0.5, s=0.3).integrate(lambda y: y**4)
    >>> round(integral.value, 10), integral.error < 1e-12
    (4.535, True)
    """

    value: float
    error: float


class SpectralLaw(ABC):
    """Limiting law of the singular values ``y`` of ``Y/sqrt(d2)``, ``Y`` of shape (d1, d2).

    Eigenvalues of ``W = Y Y^T/d2`` are ``w = y^2``.  A subclass supplies `beta`, `edges`,
    `atoms`, `quadrature`, `stieltjes` and `_values`; all else follows.
    """

    beta: float
    """Aspect ratio ``d2/d1 >= 1``."""

    @property
    @abstractmethod
    def edges(self) -> Array:
        """Edges of the bulks, shape (bulks, 2), singular values in increasing order."""

    @property
    def atoms(self) -> Array:
        """Atoms as rows (y, mass), shape (k, 2)."""
        return np.empty((0, 2))

    @abstractmethod
    def quadrature(self, nodes: int = 16) -> Quadrature:
        """Return a rule with ``nodes`` points a panel; it converges exponentially in ``nodes``."""

    @abstractmethod
    def stieltjes(self, z: complex | npt.ArrayLike) -> Any:
        """Return ``g(z) = (1/d1) tr (z - W)^{-1}``.

        Parameters
        ----------
        z : complex or array_like
            Points of the plane of eigenvalues ``w = y^2``.

        Returns
        -------
        complex or ndarray
            On the support, the boundary value from above, ``Im g = -pi density of W``.
        """

    @abstractmethod
    def _values(self, y: Array) -> tuple[Array, Array, Array]:
        """Return density of W, Re g(y^2) and the log potential at singular values y > 0."""

    def _checked(self, y: Numeric) -> tuple[Any, Array]:
        value = check("y", y, low=0.0)
        flat = np.ascontiguousarray(np.ravel(value), dtype=np.float64)
        # densities of singular values are even: at y = 0 any y this small gives the limit
        return value, np.maximum(flat, 1e-20 * self._scale)

    @property
    def _scale(self) -> float:
        return float(np.max(self.edges)) if self.edges.size else float(np.max(self.atoms[:, 0]))

    def density(self, y: Numeric) -> Any:
        """Return the density of singular values at ``y`` (atoms apart).

        Parameters
        ----------
        y : float or array_like
            Singular values, ``y >= 0``.

        Returns
        -------
        float or ndarray
            ``2 y`` times the density of W at ``y^2``; 0 off the bulks.
        """
        value, flat = self._checked(y)
        density = self._values(flat)[0]
        out = np.where(np.isinf(flat), 0.0, 2.0 * np.where(np.isinf(flat), 0.0, flat) * density)
        return scalar_or_array(out.reshape(np.shape(value)))

    def hilbert(self, y: Numeric) -> Any:
        r"""Return the rectangular Hilbert transform ``h(y)`` of the law.

        .. math:: h(y) = \frac{1 - 1/\beta}{y} + \frac{2 y}{\beta}\,\mathrm{Re}\, g(y^2)

        The optimal rotationally invariant denoiser at noise ``s`` is ``y - s h(y)``
        (arXiv:2410.18858); the divergence of a spectral function f is ``int f h``.

        Parameters
        ----------
        y : float or array_like
            Singular values, ``y > 0``, on the bulks or off them.

        Returns
        -------
        float or ndarray
            Off the bulks, the analytic continuation from the nearest edge.
        """
        value, flat = self._checked(y)
        with np.errstate(invalid="ignore"):
            # g ~ 1/y^2 at infinity, where the product is 0
            smooth = np.where(np.isinf(flat), 0.0, 2.0 * flat * self._values(flat)[1] / self.beta)
        return scalar_or_array(((1.0 - 1.0 / self.beta) / flat + smooth).reshape(np.shape(value)))

    def log_potential(self, y: Numeric) -> Any:
        """Return ``int log|y^2 - w'|`` over the law of W, on the bulks or off them.

        Parameters
        ----------
        y : float or array_like
            Singular values, ``y > 0``.

        Returns
        -------
        float or ndarray
            In nats.
        """
        value, flat = self._checked(y)
        return scalar_or_array(self._values(flat)[2].reshape(np.shape(value)))

    def integrate(self, f: Callable[[Array], Array], *, nodes: int = 16) -> Integral:
        """Return ``int f(y) density(y) dy`` and how much doubling the nodes changed it.

        Parameters
        ----------
        f : callable
            Takes an array of singular values, returns an array of the same shape.
        nodes : int
            Points a panel of the coarser rule, from 1 to 256.

        Returns
        -------
        Integral
            Value of the finer rule, and the difference as an error estimate.
        """
        coarse, fine = (
            float(np.dot(rule.weights, f(rule.y)))
            for rule in (self.quadrature(nodes), self.quadrature(min(2 * nodes, 2 * _LARGEST_RULE)))
        )
        return Integral(fine, abs(fine - coarse))

    def moments(self, order: int | npt.ArrayLike) -> Any:
        """Return ``int w^k`` over the law of W, ``w = y^2``.

        Parameters
        ----------
        order : int or array_like of int
            The exponents ``k >= 0``.

        Returns
        -------
        float or ndarray
            Moments; the first is ``1 + s`` for a prior of unit variance.
        """
        k = check("order", order, low=0.0, allow_inf=False)
        rule = self.quadrature(32)  # high powers grow fast along the arc
        powers = np.power.outer(rule.y, 2.0 * np.asarray(k))
        return scalar_or_array(np.tensordot(rule.weights, powers, axes=1))


def _rule(nodes: int) -> tuple[Array, Array]:
    integer = isinstance(nodes, int | np.integer) and not isinstance(nodes, bool)
    if not (integer and 1 <= nodes <= 2 * _LARGEST_RULE):
        raise ValueError(f"nodes must be an integer in [1, {2 * _LARGEST_RULE}], got {nodes!r}")
    if nodes == rectangular.NODES.size:
        return rectangular.NODES, rectangular.WEIGHTS
    x, w = np.polynomial.legendre.leggauss(int(nodes))
    return x, w


@dataclass(frozen=True)
class GaussianFactorLaw(SpectralLaw):
    """Singular values of ``Y/sqrt(d2)``, ``Y = A B/sqrt(r) + sqrt(s) Z``, everything Gaussian.

    Parameters
    ----------
    beta, rho, s : float
        ``d2/d1`` in [1, 1e50], ``r/d1`` in [1e-16, 1e14], noise variance per entry, at least 0 and
        with ``s rho <= 1e13 sqrt(beta)``; what is beyond has the limits of `MarchenkoPasturLaw`.
        Without noise and with ``rho < 1`` there is an atom of mass ``1 - rho`` at 0; other noise
        below 1e-30 counts as 1e-30.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Notes
    -----
    Everything is evaluated on the rational curve of `RectangularCurve`, along the conjugate
    pairs ``(t, conj(t))`` of each bulk, which are explicit (docs/theory): quadrature converges
    exponentially, through hard edges (beta = 1) and bulks about to split.

    Examples
    --------
    >>> from bsr_theory.spectra import GaussianFactorLaw
    >>> law = GaussianFactorLaw(beta=2.0, rho=0.5, s=0.1)
    >>> law.edges.shape
    (2, 2)
    >>> mass = law.integrate(lambda y: y**0)
    >>> bool(abs(mass.value - 1) < 1e-12)
    True
    >>> round(law.moments(1), 10)
    1.1
    """

    beta: float
    rho: float
    s: float
    _edges: Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the parameters and find the edges."""
        # beyond, bulks are too narrow, or the parts of the law too unlike, for numbers
        ranges = {"beta": (1.0, 1e50), "rho": (1e-16, 1e14), "s": (0.0, np.inf)}
        for name, (low, high) in ranges.items():
            number = check_number(name, getattr(self, name), low=low, high=high)
            object.__setattr__(self, name, number)
        if self.s * self.rho > _HIDDEN * self.beta**0.5:
            raise ValueError(
                f"s rho must be at most {_HIDDEN:g} sqrt(beta) to leave a trace of S, "
                f"got s={self.s!r}, rho={self.rho!r}, beta={self.beta!r}"
            )
        curve = rectangular.make_curve(self.beta, self.rho, self._noise)
        object.__setattr__(self, "_edges", rectangular.curve_edges(curve))

    @property
    def _noise(self) -> float:
        """Noise that the kernels see: the curve degenerates at 0, this much is below rounding."""
        return max(self.s, _NONE)

    @property
    def _has_atom(self) -> bool:
        return self.s == 0.0 and self.rho < 1.0

    @property
    def curve(self) -> RectangularCurve:
        """The rational curve ``w(t), g(t)``."""
        return RectangularCurve(self.beta, self.rho, self.s)

    @property
    def edges(self) -> Array:
        """Edges of the one or two bulks, shape (bulks, 2), singular values."""
        return np.sqrt(self._edges[1:] if self._has_atom else self._edges)

    @property
    def atoms(self) -> Array:
        """The atom (0, 1 - rho) of a singular signal without noise, else none."""
        return np.array([[0.0, 1.0 - self.rho]]) if self._has_atom else np.empty((0, 2))

    @cached_property
    def _table(self) -> Array:
        """Default nodes as rows (w, weight, bulk, chi - chi_a, Re g, potential)."""
        return np.asarray(
            rectangular.quadrature(
                self.beta, self.rho, self._noise, rectangular.NODES, rectangular.WEIGHTS
            )
        )

    def quadrature(self, nodes: int = 16) -> Quadrature:
        """Return the rule with ``nodes`` Gauss-Legendre points on each panel of the arc.

        Parameters
        ----------
        nodes : int
            Points a panel, from 1 to 512.  16 give 1e-12 for smooth functions.

        Returns
        -------
        Quadrature
            Nodes in singular values, weights including the density.
        """
        x, w = _rule(nodes)
        rows = (
            self._table
            if nodes == rectangular.NODES.size
            else rectangular.quadrature(self.beta, self.rho, self._noise, x, w)
        )
        if self._has_atom:  # it stands for the bulk of noise
            rows = rows[rows[:, 2] == 1]
        (y, weights), atom = (np.sqrt(rows[:, 0]), rows[:, 1]), self.atoms
        return Quadrature(np.append(y, atom[:, 0]), np.append(weights, atom[:, 1]))

    def _values(self, y: Array) -> tuple[Array, Array, Array]:
        w = y * y
        grid = np.ascontiguousarray(self._table[:, [2, 0, 3]])
        out = np.empty((w.size, 3))
        run_blocks(
            lambda block: rectangular.spectral_values(
                self.beta, self.rho, self._noise, w[block], grid, self._edges, out[block]
            ),
            w.size,
        )
        if self._has_atom:
            out[w < self._edges[1, 0], 0] = 0.0
        return out[:, 0], out[:, 1], out[:, 2]

    def stieltjes(self, z: complex | npt.ArrayLike) -> Any:
        """Return ``g(z)``: the physical one of the four sheets of the curve.

        Parameters
        ----------
        z : complex or array_like
            Points of the plane of eigenvalues ``w = y^2``.

        Returns
        -------
        complex or ndarray
            On the support, the boundary value from above.
        """
        points = np.asarray(z, dtype=np.complex128)
        flat = points.ravel()
        out = np.full(flat.shape, np.nan + 0j)
        positive = (flat.imag == 0) & (flat.real > 0)
        if positive.any():
            density, real, _ = self._values(np.sqrt(flat.real[positive]))
            out[positive] = real - 1j * np.pi * density
        for i in np.flatnonzero(~positive & np.isfinite(flat)):
            out[i] = self._sheet(complex(flat[i]))
        return scalar_or_array(out.reshape(points.shape))

    def _sheet(self, z: complex) -> complex:
        """Return g off the positive axis: Im g < 0 and Im w g < 0 where Im w > 0."""
        if z == 0:
            t0, _ = rectangular._marchenko_pastur_root(self.rho, self._noise)
            return complex(self.curve.g(t0)) if self.beta > 1 else complex(-np.inf)
        upper = z if z.imag >= 0 else z.conjugate()
        g, t = self._sheets(upper)
        if z.imag == 0:  # the negative axis: g is real and negative, -1/t in (0, 1/rho)
            g, t = g.real + 0j, t.real + 0j
            good = (t.real < 0) & (g.real < 0)
        else:
            good = (g.imag < 0) & ((upper * g).imag < 0)
        rule = self._table
        estimate = complex(np.sum(rule[:, 1] / (upper - rule[:, 0])))
        distance = np.where(good, np.abs(g - estimate), np.inf)
        if not np.isfinite(distance).any():
            distance = np.abs(g - estimate)
        best = complex(g[int(np.argmin(distance))])
        return best if z.imag >= 0 else best.conjugate()

    def _sheets(self, z: complex) -> tuple[Any, Any]:
        """Return g and t of the four sheets, roots taken in the gauge that resolves them."""
        rho, kappa, c = self.rho, self._noise * self.rho, self.beta * self.rho
        shift = rho if self.s < 1 else 0.0  # polynomial in u = t + rho, or in t
        a = np.array([1.0, self.beta + kappa + (rho if not shift else -rho),
                      c if not shift else -kappa * rho])  # fmt: skip
        b = np.array([1.0, 1.0 + kappa + (rho if not shift else -rho),
                      rho if not shift else -kappa * rho])  # fmt: skip
        d = np.array([1.0, rho if not shift else -rho, 0.0])
        poly = np.polysub(np.polymul(a, b).astype(complex), z * c * d)
        x = np.roots(poly)
        slope = np.polyder(poly)
        for _ in range(4):
            step = np.polyval(poly, x) / np.polyval(slope, x)
            x = np.where(np.abs(step) < 0.1 * np.abs(x), x - step, x)
        t = x - shift
        return c * t / np.polyval(a, x), t


@dataclass(frozen=True)
class MarchenkoPasturLaw(SpectralLaw):
    r"""Law with ``w = y^2 = shift + scale x``, ``x`` Marchenko-Pastur of mean 1.

    The limits of `GaussianFactorLaw`: ``rho = inf`` is ``ratio = 1/beta, scale = 1 + s``;
    ``beta = inf`` is ``ratio = 1/rho, scale = 1, shift = s``.

    Parameters
    ----------
    beta : float
        Aspect ratio ``d2/d1`` in [1, inf] of the matrix whose singular values these are.
    ratio : float
        ``c >= 0`` of the Marchenko-Pastur law: edges ``(1 -+ sqrt(c))^2``, atom of mass
        ``1 - 1/c`` at ``x = 0`` when ``c > 1``, a single atom at ``x = 1`` when ``c = 0``.
    scale, shift : float
        ``scale > 0`` and ``shift >= 0``; no parameter but beta may exceed 1e150.

    Examples
    --------
    >>> from bsr_theory.spectra import MarchenkoPasturLaw
    >>> noise = MarchenkoPasturLaw(beta=4.0, ratio=0.25, scale=1.0)
    >>> noise.edges
    array([[0.5, 1.5]])
    >>> round(noise.moments(2), 12)
    1.25
    """

    beta: float
    ratio: float
    scale: float = 1.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        beta = check("beta", self.beta, low=1.0)
        if np.ndim(beta):
            raise ValueError(f"beta must be a scalar, got an array of shape {np.shape(beta)}")
        object.__setattr__(self, "beta", beta)
        for name in ("ratio", "scale", "shift"):
            number = check_number(name, getattr(self, name), high=1e150, open_low=name == "scale")
            object.__setattr__(self, name, number)

    @property
    def _x_edges(self) -> tuple[float, float]:
        root = float(np.sqrt(self.ratio))
        return (1.0 - root) ** 2, (1.0 + root) ** 2

    @property
    def edges(self) -> Array:
        """Edges of the bulk in singular values, shape (1, 2), or (0, 2) for ``ratio = 0``."""
        if self.ratio == 0.0:
            return np.empty((0, 2))
        return np.sqrt(self.shift + self.scale * np.array([self._x_edges]))

    @property
    def atoms(self) -> Array:
        """Atoms as rows (y, mass)."""
        if self.ratio == 0.0:
            return np.array([[np.sqrt(self.shift + self.scale), 1.0]])
        if self.ratio > 1.0:
            return np.array([[np.sqrt(self.shift), 1.0 - 1.0 / self.ratio]])
        return np.empty((0, 2))

    def quadrature(self, nodes: int = 16) -> Quadrature:
        """Return a rule in the angle of ``x = |1 + sqrt(c) e^{i theta}|^2``.

        Parameters
        ----------
        nodes : int
            Points a panel; panels are graded towards the hard edge as ``c -> 1``.

        Returns
        -------
        Quadrature
            Nodes and weights, the atom (if any) as the last node.
        """
        gauss, gauss_weights = _rule(nodes)
        y, weights = [], []
        if self.ratio > 0.0:
            # x = 0 is reached at theta = pi + i log sqrt(c): grade towards pi
            first = max(0.25 * abs(np.log(self.ratio)), 1e-9)
            first = min(first, 1.0)
            ends = [0.0, *np.geomspace(first, np.pi, 2 + int(np.log(np.pi / first) / 1.2))]
            for left, right in itertools.pairwise(ends):
                phi = 0.5 * (left + right) + 0.5 * (right - left) * gauss  # pi - theta
                root = np.sqrt(self.ratio)
                x = (1.0 - root) ** 2 + 4.0 * root * np.sin(0.5 * phi) ** 2
                y.append(np.sqrt(self.shift + self.scale * x))
                step = 0.5 * (right - left) * gauss_weights
                weights.append(step * 2.0 * np.sin(phi) ** 2 / (np.pi * x))
        for at, mass in self.atoms:
            y.append(np.array([at]))
            weights.append(np.array([mass]))
        return Quadrature(np.concatenate(y), np.concatenate(weights))

    def _g(self, x: Any) -> Any:
        """Return the Stieltjes transform of x, boundary value from above."""
        c = self.ratio
        if c == 0.0:
            return 1.0 / (x - 1.0)
        low, high = self._x_edges
        # g = 2/(x + c - 1 + root) decays like 1/x with the branch root ~ x
        root = np.sqrt(x - low + 0j) * np.sqrt(x - high + 0j)
        return 2.0 / (x + c - 1.0 + root)

    def stieltjes(self, z: complex | npt.ArrayLike) -> Any:
        """Return ``g(z)`` in closed form.

        Parameters
        ----------
        z : complex or array_like
            Points of the plane of eigenvalues ``w = y^2``.

        Returns
        -------
        complex or ndarray
            On the support, the boundary value from above.
        """
        points = np.asarray(z, dtype=np.complex128)
        lower = points.imag < 0
        x = (np.where(lower, points.conj(), points) - self.shift) / self.scale
        with np.errstate(divide="ignore", invalid="ignore"):
            g = self._g(x) / self.scale
        return scalar_or_array(np.where(lower, np.conj(g), g))

    def _values(self, y: Array) -> tuple[Array, Array, Array]:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            x = (y * y - self.shift) / self.scale
            g = self._g(x + 0j)
            low, high = self._x_edges
            # off the bulk also where an atom makes g infinite
            density = np.where((x > low) & (x < high), np.maximum(-g.imag, 0.0) / np.pi, 0.0)
            density = np.where(np.isnan(x), np.nan, density)
            if self.ratio == 0.0:
                potential = np.log(np.abs(x - 1.0))
            else:
                # x = (1 + m)(1 + c m)/m and g = m/(1 + c m): int g dx is elementary
                root = np.sqrt(x - low + 0j) * np.sqrt(x - high + 0j)
                c, m = self.ratio, 2.0 / (x - 1.0 - self.ratio + root)
                log = 0.5 * np.log1p(c * (2.0 * m.real + c * np.abs(m) ** 2))
                potential = m.real + (1.0 - 1.0 / c) * log - np.log(np.abs(m))
        return density / self.scale, g.real / self.scale, potential + np.log(self.scale)
