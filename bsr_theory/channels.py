"""Output channels: the law of a label y given the noiseless output h."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ._arrays import Array, Numeric, broadcast, check, scalar_or_array

__all__ = ["Channel", "GaussianChannel"]


class Channel(ABC):
    """Law ``P_out(y | h)`` of a label given ``h = <X, S>/sqrt(d1 d2)``, with ``E h^2 = 1``.

    A subclass is a frozen dataclass whose parameters may be arrays.
    """

    single_fixed_point: ClassVar[bool] = False
    """Whether ``alpha(s)`` is known to be monotone, so that state evolution has one solution."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Common shape of the parameters, () when they are all scalars."""
        return ()

    @property
    @abstractmethod
    def resolves(self) -> Any:
        """Return ``lim (1 - q) precision(q)`` for q -> 1: the share of noiseless equations.

        0 for a noisy channel, whose precision stays finite; 1 for ``y = h``.
        """

    @abstractmethod
    def precision(self, q: Numeric, v: Numeric | None = None) -> Any:
        """Return the information about h that one label gives at overlap ``q``.

        ``qhat = alpha precision(q)`` with ``precision(q) = E g_out^2``.

        Parameters
        ----------
        q : float or array_like
            Overlap, in [0, 1].
        v : float or array_like, optional
            ``1 - q``, when it is known more accurately than by subtraction.
        """

    @abstractmethod
    def information(self, q: Numeric, v: Numeric | None = None) -> Any:
        """Return the information per sample at overlap q: ``d/dq = -precision(q)/2``."""

    @abstractmethod
    def score(self, y: Numeric, omega: Numeric, V: Numeric) -> tuple[Any, Any]:
        """Return ``g_out = d log Z/d omega`` and its derivative, Z = E P_out(y | N(omega, V))."""

    @abstractmethod
    def sample(self, h: Numeric, *, rng: Any = None) -> Array:
        """Return labels drawn from ``P_out(. | h)``."""


@dataclass(frozen=True)
class GaussianChannel(Channel):
    r"""Linear output with Gaussian noise, ``y = h + sqrt(delta) xi``.

    Parameters
    ----------
    delta : float or array_like
        Noise variance, in [0, inf).  0 is the noiseless linear output.

    Raises
    ------
    ValueError
        If a scalar delta is negative or NaN; a bad element of an array gives NaN there.

    Notes
    -----
    ``precision(q) = 1/(delta + 1 - q)`` (arXiv:2410.18858).  With any prior of unit variance for
    which ``mmse(s)/s`` decreases, state evolution has a single fixed point.

    Examples
    --------
    >>> from bsr_theory import GaussianChannel
    >>> GaussianChannel(delta=0.5).precision(0.5)
    1.0
    """

    delta: Any = 0.0

    single_fixed_point: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the parameter."""
        object.__setattr__(self, "delta", check("delta", self.delta, low=0.0, allow_inf=False))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of delta."""
        return np.shape(self.delta)

    @property
    def resolves(self) -> Any:
        """1 without noise, 0 with noise."""
        return scalar_or_array(np.where(np.asarray(self.delta) == 0.0, 1.0, 0.0))

    def _variance(self, q: Numeric, v: Numeric | None) -> Any:
        overlap = check("q", q, low=0.0, high=1.0)
        rest = 1.0 - np.asarray(overlap) if v is None else check("v", v, low=0.0, high=1.0)
        broadcast(q=overlap, v=rest, delta=self.delta)
        return np.asarray(rest)

    def precision(self, q: Numeric, v: Numeric | None = None) -> Any:
        """Return ``1/(delta + 1 - q)``.

        Parameters
        ----------
        q : float or array_like
            Overlap, in [0, 1].
        v : float or array_like, optional
            ``1 - q``, when it is known more accurately than by subtraction.

        Returns
        -------
        float or ndarray
            inf at ``q = 1`` without noise.
        """
        rest = self._variance(q, v)
        with np.errstate(divide="ignore"):
            return scalar_or_array(1.0 / (np.asarray(self.delta) + rest))

    def information(self, q: Numeric, v: Numeric | None = None) -> Any:
        """Return ``log(1 + (1 - q)/delta)/2`` in nats, for delta = 0 without its infinite part.

        Parameters
        ----------
        q : float or array_like
            Overlap, in [0, 1].
        v : float or array_like, optional
            ``1 - q``, when it is known more accurately than by subtraction.

        Returns
        -------
        float or ndarray
            What one more label tells about h.  For ``delta = 0`` that is infinite and
            ``log(1 - q)/2`` is returned: its limit after ``log(1/delta)/2`` is taken off, a
            constant that no comparison of overlaps depends on.
        """
        rest = self._variance(q, v)
        delta = np.asarray(self.delta)
        with np.errstate(divide="ignore", invalid="ignore"):
            noisy = 0.5 * np.log1p(rest / delta)
            return scalar_or_array(np.where(delta == 0.0, 0.5 * np.log(rest), noisy))

    def score(self, y: Numeric, omega: Numeric, V: Numeric) -> tuple[Any, Any]:
        """Return ``g_out = (y - omega)/(delta + V)`` and ``dg_out/domega = -1/(delta + V)``.

        Parameters
        ----------
        y, omega : float or array_like
            Labels and the means of h.
        V : float or array_like
            Variance of h around omega, ``V >= 0``; ``delta + V > 0``.

        Returns
        -------
        tuple
            g_out and its derivative, of the common shape.
        """
        spread = np.asarray(check("V", V, low=0.0)) + np.asarray(self.delta)
        g = (np.asarray(y) - np.asarray(omega)) / spread
        return scalar_or_array(g), scalar_or_array(np.broadcast_to(-1.0 / spread, g.shape))

    def sample(self, h: Numeric, *, rng: Any = None) -> Array:
        """Return ``h + sqrt(delta) xi``.

        Parameters
        ----------
        h : array_like
            Noiseless outputs.
        rng : None, int or numpy.random.Generator
            Source of randomness.

        Returns
        -------
        ndarray
            Labels, of the shape of h.
        """
        output = np.asarray(h, dtype=np.float64)
        noise = np.random.default_rng(rng).standard_normal(output.shape)
        return np.asarray(output + np.sqrt(np.asarray(self.delta)) * noise)
