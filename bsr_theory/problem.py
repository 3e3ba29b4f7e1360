"""A problem is a prior times a channel at a sampling ratio."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ._arrays import UNIT, Array, Numeric, broadcast, check, check_integer, scalar_or_array, select
from .channels import Channel, GaussianChannel
from .design import DenseDesign, Design, StreamedDesign, require_memory, write_design
from .priors import GaussianFactorPrior, LowRankFactorPrior, Prior

__all__ = ["Instance", "Problem", "bilinear_regression"]


@dataclass(frozen=True)
class Problem:
    """Learn S from ``n = alpha d1 d2`` labels ``y ~ P_out(. | <X, S>/sqrt(d1 d2))``, X Gaussian.

    Parameters
    ----------
    prior : Prior
        Law of S.
    channel : Channel
        Law of a label.
    alpha : float, array_like or None
        Sampling ratio ``n/(d1 d2)`` in (0, inf); ``alpha_LR`` for a `LowRankFactorPrior`.  None
        leaves it open, for what follows whole curves in alpha.

    Raises
    ------
    ValueError
        If alpha is a bad scalar, shapes do not broadcast, or entries of S have a second moment
        other than 1 while the labels take h of variance 1 (`Channel.any_variance`).  A bad element
        of an array gives NaN and `Status.INVALID_INPUT` there and nowhere else.

    Examples
    --------
    >>> import bsr_theory as bsr
    >>> prior, channel = bsr.GaussianFactorPrior(beta=2.0, rho=0.5), bsr.GaussianChannel(0.1)
    >>> bsr.Problem(prior, channel, alpha=[0.2, 0.4]).shape
    (2,)
    """

    prior: Prior
    channel: Channel
    alpha: Any = None

    def __post_init__(self) -> None:
        """Check alpha and the shapes."""
        if self.alpha is not None:
            checked = check("alpha", self.alpha, low=0.0, open_low=True, allow_inf=False)
            object.__setattr__(self, "alpha", checked)
        self.shape  # noqa: B018  (raises when shapes do not fit)
        variance = np.asarray(self.prior.second_moment)
        if not self.channel.any_variance and np.any(np.abs(variance - 1.0) > UNIT):
            raise ValueError(
                f"second_moment of the prior must be 1 for {type(self.channel).__name__}, "
                f"got {scalar_or_array(variance)!r} (a prior of given values has normalize=True)"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Common shape of all parameters, () for a single problem."""
        return broadcast(
            prior=_Shaped(self.prior.shape),
            channel=_Shaped(self.channel.shape),
            alpha=0.0 if self.alpha is None else self.alpha,
        )

    def __getitem__(self, index: Any) -> Problem:
        """Return the problems at ``index`` of the common shape, as numpy indexes an array.

        Parameters
        ----------
        index : int, slice, tuple or array_like
            Any index of an array of shape `shape`.

        Returns
        -------
        Problem
            With scalar parameters where the index names one point.

        Examples
        --------
        >>> import bsr_theory as bsr
        >>> bsr.bilinear_regression([0.2, 0.4], 2.0, 0.5)[1].alpha
        0.4
        """
        at = np.arange(math.prod(self.shape)).reshape(self.shape)[index]
        alpha = self.alpha
        if alpha is not None:
            alpha = np.broadcast_to(np.asarray(alpha), self.shape).reshape(-1)[at]
        prior = select(self.prior, self.shape, at)
        return Problem(prior, select(self.channel, self.shape, at), alpha)

    def at_size(self, d1: int) -> Problem:
        """Return the problem whose ratios are those of an instance, after rounding.

        Parameters
        ----------
        d1 : int
            Number of rows of S.

        Returns
        -------
        Problem
            Theory to compare with `sample(d1)`: at ``d1 = 21`` a width of 0.2 is ``4/21``, and such
            a difference can be larger than all other effects of finite size.

        Raises
        ------
        ValueError
            As `sample` does.

        Examples
        --------
        >>> import bsr_theory as bsr
        >>> bsr.bilinear_regression(0.4, 2.0, 0.2).at_size(21).prior.rho == 4 / 21
        True
        """
        (n, rows, columns), rank = self._sizes(check_integer("d1", d1), None)
        unknowns = rank * (rows + columns)
        count = unknowns if isinstance(self.prior, LowRankFactorPrior) else rows * columns
        return Problem(self.prior.at_size(rows), self.channel, n / count)

    def sample(
        self,
        d1: int,
        *,
        rng: Any = None,
        design: Literal["dense", "memmap", "stream"] = "dense",
        dtype: npt.DTypeLike = np.float64,
        path: str | os.PathLike[str] | None = None,
        rank: int | None = None,
    ) -> Instance:
        """Return one instance: a signal, sensing matrices and labels of finite size.

        Parameters
        ----------
        d1 : int
            Number of rows of S; there are ``d2 = round(beta d1)`` columns and
            ``n = round(alpha d1 d2)`` labels, ``round(alpha r (d1 + d2))`` for a
            `LowRankFactorPrior`.
        rng : None, int or numpy.random.Generator
            Source of randomness.  One seed gives one instance: its S, X and noise do not depend
            on ``design``, and in float32 X is that of float64, rounded.
        design : {"dense", "memmap", "stream"}
            Where X lives: in memory, in the file ``path``, or nowhere: made again, block by
            block, at every pass.
        dtype : dtype
            Of X, float64 or float32; see `Design` for what float32 costs in accuracy.
        path : path-like, optional
            A new ``.npy`` file for ``design="memmap"``.
        rank : int, optional
            Of S for a `LowRankFactorPrior`, whose alpha leaves it open; 1 by default.

        Returns
        -------
        Instance
            X, y, S and this problem.

        Raises
        ------
        ValueError
            If a parameter of the problem is an array, alpha is None, no label is left after
            rounding, or an argument is out of its range.
        MemoryError
            If it does not fit; nothing has been allocated then.

        Notes
        -----
        Memory: ``n d1 d2`` times 8 bytes (4 in float32) when dense, as much disk for a memmap.
        A stream needs ``n + d1 d2`` doubles a few times over and a block of at least one X_mu a
        thread: ``d1 = 300, beta = 1, alpha = 0.3`` has 2.4e9 entries, 19 GB when dense, and runs
        in 0.2 GB.

        Examples
        --------
        >>> import bsr_theory as bsr
        >>> problem = bsr.bilinear_regression(alpha=0.4, beta=2.0, rho=0.5, delta=0.1)
        >>> data = problem.sample(d1=10, rng=0)
        >>> data.X.shape, data.y.shape, data.S.shape
        ((80, 10, 20), (80,), (10, 20))
        """
        d1 = check_integer("d1", d1)
        if design not in ("dense", "memmap", "stream"):
            raise ValueError(f"design must be 'dense', 'memmap' or 'stream', got {design!r}")
        if (path is None) == (design == "memmap"):
            raise ValueError(f"path must be given for design='memmap' and only then, got {path!r}")
        shape, rank = self._sizes(d1, rank)
        kind = StreamedDesign(shape, (0, 0), dtype).dtype
        require_memory(shape, kind, held=design == "dense")

        generator = np.random.default_rng(rng)
        if isinstance(self.prior, LowRankFactorPrior):
            S = self.prior.sample(d1, rank=rank, rng=generator)
            unit = rank / d1
        else:
            S, unit = self.prior.sample(d1, rng=generator), 1.0
        key = generator.integers(0, 2**64, size=2, dtype=np.uint64)
        stream = StreamedDesign(shape, key, kind)
        X: Design = stream
        if design == "dense":
            X = DenseDesign(np.asarray(stream))
        elif path is not None:
            X = write_design(stream, path)
        y = self.channel.sample(X.matvec(S), rng=generator)
        return Instance(X, y, S, self, noise_unit=unit)

    def _sizes(self, d1: int, rank: int | None) -> tuple[tuple[int, int, int], int]:
        """Return (n, d1, d2) and the rank (1 if the prior knows it)."""
        if self.alpha is None:
            raise ValueError("alpha must be a number to sample an instance, got None")
        if self.shape:
            raise ValueError(f"an instance needs scalar parameters, got shape {self.shape}")
        beta = float(self.prior.beta)
        if beta == np.inf:
            raise ValueError("beta must be finite to sample an instance, got inf")
        d2 = round(beta * d1)
        if isinstance(self.prior, LowRankFactorPrior):
            rank = 1 if rank is None else check_integer("rank", rank)
            count = self.alpha * rank * (d1 + d2)
        elif rank is not None:
            raise ValueError(f"rank must be None: {self.prior} fixes it, got {rank!r}")
        else:
            count = self.alpha * d1 * d2
        if round(count) < 1:
            raise ValueError(
                f"alpha must leave at least one label, got {self.alpha!r}: n = {count:.3g} "
                f"at d1 = {d1}, d2 = {d2}"
            )
        return (round(count), d1, d2), 1 if rank is None else int(rank)


@dataclass(frozen=True, eq=False)
class Instance:
    """A problem of finite size: what an algorithm is given, and the signal it looks for.

    Attributes
    ----------
    X : Design
        The sensing matrices: ``X.matvec(S)`` is ``<X_mu, S>/sqrt(d1 d2)`` for every mu,
        ``X.rmatvec(g)`` is ``sum_mu g_mu X_mu/sqrt(d1 d2)``, ``X.blocks()`` runs over rows.
    y : ndarray, shape (n,)
        Labels.
    S : ndarray, shape (d1, d2)
        The signal; algorithms report their error against it.
    problem : Problem
        What X, y and S were drawn from.
    noise_unit : float
        Factor that turns a noise variance per entry into the unit of the prior: 1, and
        ``r/d1`` for a `LowRankFactorPrior`.

    Raises
    ------
    ValueError
        If shapes do not fit, or y or S is not finite.
    """

    X: Design
    y: Array
    S: Array
    problem: Problem
    noise_unit: float = 1.0

    def __post_init__(self) -> None:
        """Check the shapes."""
        n, *size = self.X.shape
        for name, value, shape in (("y", self.y, (n,)), ("S", self.S, tuple(size))):
            array = np.asarray(value, dtype=np.float64)
            if array.shape != shape or not np.isfinite(array).all():
                raise ValueError(f"{name} must be finite of shape {shape}, got {array.shape}")
            object.__setattr__(self, name, array)
        unit = check("noise_unit", self.noise_unit, low=0.0, open_low=True, allow_inf=False)
        object.__setattr__(self, "noise_unit", unit)

    @property
    def alpha(self) -> float:
        """Labels per entry, ``n/(d1 d2)``, after rounding."""
        return self.X.n / self.S.size


@dataclass(frozen=True)
class _Shaped:
    """Stands for a prior or channel where numpy asks for a shape."""

    shape: tuple[int, ...]


def bilinear_regression(
    alpha: Numeric, beta: Numeric, rho: Numeric, delta: Numeric = 0.0
) -> Problem:
    """Bilinear sequence regression (arXiv:2410.18858).

    Parameters
    ----------
    alpha : float or array_like
        Sampling ratio ``n/(d1 d2)`` in (0, inf).
    beta : float or array_like
        Aspect ratio ``d2/d1`` in [1, inf].
    rho : float or array_like
        Width ``r/d1`` in (0, inf].
    delta : float or array_like
        Noise variance of the labels in [0, inf).

    Returns
    -------
    Problem
        `GaussianFactorPrior` times `GaussianChannel`; parameters broadcast.

    Examples
    --------
    >>> import bsr_theory as bsr
    >>> point = bsr.solve(bsr.bilinear_regression(alpha=0.4, beta=2.0, rho=0.5, delta=0.1))
    >>> round(point.mmse, 8)
    0.52696565
    """
    return Problem(GaussianFactorPrior(beta, rho), GaussianChannel(delta), alpha)
