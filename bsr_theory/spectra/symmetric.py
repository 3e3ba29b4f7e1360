"""The law of the eigenvalues of a noisy Wishart matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import Array, Numeric, check, check_number, run_blocks, scalar_or_array
from .._kernels import symmetric
from .law import _NONE, Quadrature, SpectralLaw, _rule

__all__ = ["SymmetricFactorLaw"]

_THIN = 1e-24  # width below which the law cannot be told from that of the noise
_HIDDEN = 1e8  # s rho from which on noise hides all of thin factors
_ALIKE = 1e-11  # third cumulant of a law that cannot be told from a semicircle


def is_semicircle(rho: float, s: float) -> bool:
    """Tell whether Y cannot be told from a matrix of independent entries around a mean."""
    if rho < 1.0:
        return s * rho > _HIDDEN
    return 1.0 / math.sqrt(rho) / (1.0 + s) / math.sqrt(1.0 + s) < _ALIKE


@dataclass(frozen=True)
class SymmetricFactorLaw(SpectralLaw):
    r"""Eigenvalues of ``Y/sqrt(d)``, ``Y = W W^T/sqrt(r) + sqrt(s) Z``, W (d, r) Gaussian.

    Z is symmetric with independent entries, ``N(0, 1)`` off the diagonal and ``N(0, 2)`` on it
    (GOE).  Eigenvalues are real and may be negative: where the methods of `SpectralLaw` speak of
    singular values ``y >= 0`` and of ``w = y^2``, here ``y`` is any real number and takes the
    place of w.

    Parameters
    ----------
    rho, s : float
        ``r/d``, at least 1e-24, and the noise variance per entry, at least 0.  Without noise and
        with ``rho < 1`` there is an atom of mass ``1 - rho`` at 0; other noise below 1e-30 counts
        as 1e-30.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or the law is that of the noise around the mean of S
        to 1e-11: the third cumulant of Y is ``rho**-0.5 (1 + s)**-1.5``, and thin factors are
        hidden by ``s rho > 1e8``.

    Notes
    -----
    The Stieltjes transform g is the parameter of a rational curve, the sum of the inverse of g,
    the R-transform of the Marchenko-Pastur law and that of the semicircle:

    .. math:: y(g) = \frac1g + \frac{\rho}{\sqrt\rho - g} + s\,g .

    The pairs of conjugate roots inside a bulk are rational functions of
    :math:`|\sqrt\rho-g|^2`, along which every integral is evaluated.  There are two bulks when
    :math:`\rho^{1/3}+(s\rho)^{1/3}<1`.  Mean :math:`\sqrt\rho`, variance :math:`1+s`; the matrix
    is that of arXiv:2408.03733 and arXiv:2506.01582.

    Examples
    --------
    >>> from bsr_theory.spectra import SymmetricFactorLaw
    >>> law = SymmetricFactorLaw(rho=0.25, s=0.01)
    >>> law.edges.shape
    (2, 2)
    >>> law.moments([0, 1, 2]).round(12)
    array([1.  , 0.5 , 1.26])
    """

    rho: float
    s: float
    _edges: Array = field(init=False, repr=False, compare=False)

    beta = 1.0

    def __post_init__(self) -> None:
        """Check the parameters and find the edges."""
        for name, is_open in (("rho", True), ("s", False)):
            object.__setattr__(
                self, name, check_number(name, getattr(self, name), open_low=is_open)
            )
        if not self.rho >= _THIN or is_semicircle(self.rho, self.s):
            raise ValueError(
                f"rho must be at least {_THIN:g}, and the third cumulant of S at least {_ALIKE:g} "
                f"of that of Y, got rho={self.rho!r}, s={self.s!r}"
            )
        edges = symmetric.curve_edges(symmetric.make_curve(self.rho, self._noise))
        if self.s == 0.0 and self.rho >= 1.0:
            edges = np.maximum(edges, 0.0)  # the hard edge of rho = 1
        object.__setattr__(self, "_edges", edges)

    @property
    def _noise(self) -> float:
        """Noise that the kernels see: the curve degenerates at 0, this much is below rounding."""
        return max(self.s, _NONE)

    @property
    def _has_atom(self) -> bool:
        return self.s == 0.0 and self.rho < 1.0

    @property
    def edges(self) -> Array:
        """Edges of the one or two bulks, shape (bulks, 2), eigenvalues in increasing order."""
        return np.array(self._edges[1:] if self._has_atom else self._edges)

    @property
    def atoms(self) -> Array:
        """The atom (0, 1 - rho) of a singular signal without noise, else none."""
        return np.array([[0.0, 1.0 - self.rho]]) if self._has_atom else np.empty((0, 2))

    @cached_property
    def _table(self) -> Array:
        """Default nodes as rows (y, weight, bulk)."""
        return self._rows(*_rule(16))

    def _rows(self, x: Array, w: Array) -> Array:
        return np.asarray(symmetric.quadrature(self.rho, self._noise, x, w))

    def quadrature(self, nodes: int = 16) -> Quadrature:
        """Return the rule with ``nodes`` Gauss-Legendre points on each panel of a bulk.

        Parameters
        ----------
        nodes : int
            Points a panel, from 1 to 512.  16 give 1e-13 for smooth functions.

        Returns
        -------
        Quadrature
            Nodes in eigenvalues, weights including the density.
        """
        rows = self._table if nodes == 16 else self._rows(*_rule(nodes))
        if self._has_atom:  # it stands for the bulk of noise
            rows = rows[rows[:, 2] == 1]
        atom = self.atoms
        return Quadrature(np.append(rows[:, 0], atom[:, 0]), np.append(rows[:, 1], atom[:, 1]))

    def _all_values(self, y: Array) -> Array:
        """Return (density, Re g, log potential, denoised) along the last axis."""
        out = np.empty((y.size, 4))
        run_blocks(
            lambda block: symmetric.spectral_values(
                self.rho, self._noise, y[block], self._edges, out[block]
            ),
            y.size,
        )
        if self._has_atom:
            out[y < self._edges[1, 0], 0] = 0.0
        return out

    def _values(self, y: Array) -> tuple[Array, Array, Array]:
        out = self._all_values(y)
        return out[:, 0], out[:, 1], out[:, 2]

    def _column(self, y: Numeric, column: int) -> Any:
        value = check("y", y)
        flat = np.ascontiguousarray(np.ravel(value), dtype=np.float64)
        return scalar_or_array(self._all_values(flat)[:, column].reshape(np.shape(value)))

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
        r"""Return ``y - s h(y)`` without cancellation.

        Parameters
        ----------
        y : float or array_like
            Eigenvalues of ``Y/sqrt(d)``, on the bulks or off them.

        Returns
        -------
        float or ndarray
            On a bulk it is :math:`\rho^{3/2}/|\sqrt\rho - g|^2`, positive; off the bulks the
            analytic continuation, which far below the spectrum turns negative.
        """
        return self._column(y, 3)

    def moments(self, order: int | npt.ArrayLike) -> Any:
        """Return ``int y^k`` over the law.

        Parameters
        ----------
        order : int or array_like of int
            The exponents ``k >= 0``.

        Returns
        -------
        float or ndarray
            Moments; the first is ``sqrt(rho)``, the second ``1 + rho + s``.
        """
        k = np.asarray(check("order", order, low=0.0, allow_inf=False))
        if np.any(k % 1):
            raise ValueError(f"order must be an integer or integers, got {order!r}")
        rule = self.quadrature(32)
        return scalar_or_array(np.tensordot(rule.weights, np.power.outer(rule.y, k), axes=1))

    def stieltjes(self, z: complex | npt.ArrayLike) -> Any:
        """Return ``g(z) = (1/d) tr (z - Y/sqrt(d))^{-1}``.

        Parameters
        ----------
        z : complex or array_like
            Points of the plane of eigenvalues.

        Returns
        -------
        complex or ndarray
            On the support, the boundary value from above.

        Notes
        -----
        For ``Im z > 0`` exactly one root of the cubic has ``Im g < 0``: y(g) maps the lower half
        plane near ``g = 0`` to the upper one, and near its other poles to the lower one.
        """
        points = np.asarray(z, dtype=np.complex128)
        flat = points.ravel()
        out = np.full(flat.shape, np.nan + 0j)
        real = (flat.imag == 0) & ~np.isnan(flat.real)
        if real.any():
            density, g, _ = self._values(np.ascontiguousarray(flat.real[real]))
            out[real] = g - 1j * np.pi * density
        for i in np.flatnonzero((flat.imag != 0) & np.isfinite(flat)):
            out[i] = self._root(complex(flat[i]))
        return scalar_or_array(out.reshape(points.shape))

    def _root(self, z: complex) -> complex:
        """Return g at a point off the real axis."""
        unit = np.sqrt(self._noise)
        y, a = complex(z.real, abs(z.imag)) / unit, float(np.sqrt(self.rho) * unit)
        cubic = np.array([1.0, -(a + y), y * a + 1.0 - self.rho, -a])
        roots = np.roots(cubic)
        slope = np.polyder(cubic)
        for _ in range(3):
            step = np.polyval(cubic, roots) / np.polyval(slope, roots)
            roots = np.where(np.abs(step) < 0.1 * np.abs(roots), roots - step, roots)
        g = complex(roots[int(np.argmin(roots.imag))] / unit)
        return g if z.imag > 0 else g.conjugate()
