"""A problem is a prior times a channel at a sampling ratio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._arrays import Numeric, broadcast, check
from .channels import Channel, GaussianChannel
from .priors import GaussianFactorPrior, Prior

__all__ = ["Problem", "bilinear_regression"]


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
        If alpha is a bad scalar, or shapes do not broadcast.  A bad element of an array gives
        NaN and `Status.INVALID_INPUT` there and nowhere else.

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

    @property
    def shape(self) -> tuple[int, ...]:
        """Common shape of all parameters, () for a single problem."""
        return broadcast(
            prior=_Shaped(self.prior.shape),
            channel=_Shaped(self.channel.shape),
            alpha=0.0 if self.alpha is None else self.alpha,
        )


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
