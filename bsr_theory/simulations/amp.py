r"""GAMP-RIE: message passing whose denoiser is the rotationally invariant estimator.

With :math:`a_\mu = X_\mu/\sqrt{d_1 d_2}` one iteration is

.. math::
   \omega_\mu &= \langle a_\mu, \hat S\rangle - b_\mu, \qquad
   g_\mu = g_\mathrm{out}(y_\mu, \omega_\mu, V), \\
   \chi &= -\alpha\, \overline{g'}, \qquad s = \alpha\, \overline{g^2}/\chi^2, \qquad
   R = \hat S + \chi^{-1} \textstyle\sum_\mu g_\mu a_\mu, \\
   \hat S &\leftarrow f(R; s), \qquad
   b_\mu \leftarrow \frac{\mathrm{div} f}{d_1 d_2\, \chi}\, g_\mu, \qquad V \leftarrow M(s),

where f acts on the singular values of R, the overlines are means over the n samples and
:math:`\alpha = n/(d_1 d_2)`.

Of a symmetric S, labels tell ``S_ij`` and ``S_ji`` together: the sum over samples is made
symmetric, which halves the variance s off the diagonal, f acts on eigenvalues, its divergence
is over the independent entries, and the start is E S.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.optimize import brentq
from tqdm import tqdm

from .._arrays import Array, check_integer, check_number
from ..priors import Prior, SymmetricSignal
from ..problem import Instance
from ..results import SimulationRun, Status
from ._message_passing import HOPELESS, Damping, denoise, prior_mean

__all__ = ["amp"]

_LEAST_MISFIT = 0.1  # scores that vanish by symmetry do not prove that there is no error
_EVEN = 1e-12  # scores of all labels at omega = 0 below which these are taken to be even in h


# --------------------------------------------------------------------------------------------
# The algorithm
# --------------------------------------------------------------------------------------------


def _hint(instance: Instance, q: float, rng: Any) -> tuple[Array, float]:
    """Return the Bayes estimate from a noisy S such that its overlap with S is q."""
    prior, unit = instance.problem.prior, instance.noise_unit
    most = float(prior.second_moment)
    if not 0.0 < q < most:
        raise ValueError(f"start must be an overlap in (0, {most:g}) or a matrix, got {q!r}")
    s = np.exp(brentq(lambda x: float(prior.overlap(unit * np.exp(x))) / q - 1.0, -60.0, 60.0))
    noise = np.random.default_rng(rng).standard_normal(instance.S.shape)
    if isinstance(prior, SymmetricSignal):
        noise = (noise + noise.T) / np.sqrt(2.0)
    return denoise(prior, instance.S + np.sqrt(s) * noise, s)[0], most - q


def _unknown(prior: Prior) -> float:
    """Return the error per entry of E S."""
    return float(prior.second_moment - prior.prior_overlap)


def _begin(instance: Instance, start: Any, rng: Any) -> tuple[Array, float]:
    """Return the first estimate and its error."""
    prior = instance.problem.prior
    if start is None:
        return prior_mean(prior, instance.S.shape), _unknown(prior)
    if np.ndim(start) == 0:
        return _hint(instance, check_number("start", start), rng)
    estimate = np.array(start, dtype=np.float64)
    if estimate.shape != instance.S.shape or not np.isfinite(estimate).all():
        raise ValueError(
            f"start must be None, an overlap or finite of shape {instance.S.shape}, "
            f"got shape {estimate.shape}"
        )
    return estimate, float(np.mean((estimate - instance.S) ** 2))


class _Measured(NamedTuple):
    """What the scores of all labels say about h."""

    gain: float  # 1/chi, what A^T g is multiplied by; 0 without any information
    noise: float  # variance s of gain A^T g around the signal
    misfit: float  # alpha mean(g^2)/chi, 1 on average where V is right


def _measure(g: Array, slope: Array, alpha: float) -> _Measured:
    """Return gain, noise and misfit; chi is ``-alpha mean(g')``.

    Unless the terms of that sum cancel, as they do without any information on h when labels are
    even in h: then its other expression ``alpha mean(g^2)`` is taken.
    """
    power, chi = alpha * float(np.mean(g * g)), -alpha * float(np.mean(slope))
    if chi <= 0.1 * alpha * float(np.mean(np.abs(slope))):
        chi = power
    if chi == 0.0:
        return _Measured(0.0, np.inf, 1.0)
    misfit = power / chi
    return _Measured(1.0 / chi, max(misfit, _LEAST_MISFIT) / chi, misfit)


def amp(
    instance: Instance,
    *,
    steps: int = 500,
    tolerance: float = 1e-4,
    start: Any = None,
    rng: Any = None,
    damping: float | Literal["auto"] = "auto",
    callback: Callable[[int, Array], Any] | None = None,
    progress: bool = False,
) -> SimulationRun:
    """Estimate S by message passing with the optimal rotationally invariant denoiser.

    Parameters
    ----------
    instance : Instance
        X, y and the problem; S is used to report errors, not to find the estimate.
    steps : int
        Largest number of iterations, at least 1.  One costs one pass over X, in which both
        products are formed, and one singular value decomposition.
    tolerance : float
        The run has converged when the estimate moves by less than ``tolerance`` times its own
        standard error, root mean square per entry.  0 runs all the steps.
    start : None, float or array_like, shape (d1, d2)
        First estimate; None starts from the mean of the prior, 0 unless S is symmetric.  A number
        is an overlap q: S is shown through so much noise that the Bayes estimate from it has this
        overlap, as ``bsr_theory.iterate(problem, q=q)`` has.  From a matrix the algorithm is told
        the error of the start, which makes it an experiment on fixed points.
    rng : None, int or numpy.random.Generator
        Source of the noise of such a start, the only randomness.
    damping : "auto" or float
        Share of the old estimate that is kept, in [0, 15/16].  "auto" begins at 0 and damps when
        the residual of the labels outgrows what it should be, or when for 15 iterations neither
        the noise nor the step reaches a new low.
    callback : callable, optional
        Called as ``callback(iteration, estimate)`` after each; returning True ends the run.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    SimulationRun
        With `Status.PERFECT_RECOVERY` when the error is at rounding (labels without noise),
        CONVERGED, or NOT_CONVERGED after all the steps.

    Raises
    ------
    ValueError
        If an argument is out of its range or X is not finite.

    Notes
    -----
    The equations stand at the head of the module; they are those of arXiv:2410.18858 with two
    choices made exact at finite size.  The term b is the divergence of the denoiser that was
    applied, from the singular values at hand, over the same chi that scales ``A^T g``: with
    the limit V in its place runs drift away from their fixed point.  And ``A^T g`` is scaled by the
    response of the scores, its noise s is measured from their size, so that neither relies on the
    algorithm's idea of its own error; that idea, ``V = M(s)``, is close to the true error and
    never exceeds the prior's variance, the finite-size divergence ``s div f/(d1 d2)`` fluctuates
    more.

    Damping keeps a share of the old estimate and the same share of the old b, which leaves the
    fixed points and the law of the iterates' noise intact.  An estimate that explains the labels
    4 times worse than 0 does is given up for 0, so that no run diverges whatever the denoiser
    does.

    Labels that are even in h, such as ``|h|``, leave the sign of S open: errors and overlaps are
    those of the better sign, and without a start the estimate stays at 0, which is a fixed point.

    Examples
    --------
    >>> import bsr_theory as bsr
    >>> from bsr_theory.simulations import amp
    >>> problem = bsr.bilinear_regression(alpha=0.9, beta=2.0, rho=0.2)
    >>> run = amp(problem.sample(d1=20, rng=1))
    >>> run.status.name, bool(run.mse[-1] < 1e-20)
    ('PERFECT_RECOVERY', True)
    """
    steps = check_integer("steps", steps)
    keep = Damping.chosen(damping)
    tolerance = check_number("tolerance", tolerance)
    began = time.perf_counter()

    X, y, S, alpha = instance.X, instance.y, instance.S, instance.alpha
    symmetric = isinstance(instance.problem.prior, SymmetricSignal)
    # of the noise off the diagonal, and of the entries
    half, independent = (0.5, 0.5 * (1.0 + 1.0 / len(S))) if symmetric else (1.0, 1.0)
    prior, channel, unit = instance.problem.prior, instance.problem.channel, instance.noise_unit
    eps = float(np.finfo(X.dtype).eps)
    floor, rounding = eps**2, (256.0 * eps) ** 2  # of an error per entry
    estimate, V = _begin(instance, start, rng)
    V = max(V, floor)
    b, g, slope = np.zeros(X.n), np.empty(X.n), np.empty(X.n)

    def respond(h: Array, rows: slice) -> Array:
        g[rows], slope[rows] = channel.score(y[rows], h - b[rows], V)
        return g[rows]

    mean, unknown = prior_mean(prior, S.shape), _unknown(prior)
    unseen = channel.score(y, X.matvec(mean) if mean.any() else np.zeros(X.n), unknown)
    even = not mean.any() and bool(np.max(np.abs(unseen[0])) <= _EVEN)
    # even labels say nothing at 0, which is a fixed point that a run must not be sent back to
    hopeless = np.inf if even else HOPELESS * half * _measure(*unseen, alpha).noise
    errors, overlaps, believed = [_error(estimate, S, even)], [_overlap(estimate, S, even)], [V]
    snrs, misfits, kept = [], [], []
    status = Status.NOT_CONVERGED
    for step in tqdm(range(1, steps + 1), desc="amp", disable=not progress):
        correlation = X.sweep(estimate, respond)
        gain, s, misfit = _measure(g, slope, alpha)
        if symmetric:
            correlation, s = 0.5 * (correlation + correlation.T), half * s
        if np.isnan(s) and step == 1:
            raise ValueError("X of the instance must be finite")
        if s <= hopeless:
            denoised, divergence = denoise(prior, estimate + gain * correlation, s)
            change = denoised - estimate
            moved = float(np.mean(change**2))
            keep.update(misfit, noise=s, step=moved)
            new = 1.0 - keep.value
            estimate = estimate + new * change
            b = keep.value * b + new * independent * divergence * gain * g
            V = max(keep.value * V + new * float(prior.mmse(unit * s)), floor)
        else:
            estimate, b, V, moved = mean, np.zeros(X.n), unknown, np.inf
            keep.strengthen()
        errors.append(_error(estimate, S, even))
        overlaps.append(_overlap(estimate, S, even))
        believed.append(V)
        snrs.append(1.0 / (unit * s) if s > 0.0 else np.inf)
        misfits.append(misfit)
        kept.append(keep.value)
        if V <= rounding:
            status = Status.PERFECT_RECOVERY
        elif moved <= tolerance**2 * V:
            status = Status.CONVERGED
        else:
            status = Status.NOT_CONVERGED
        if (callback is not None and callback(step, estimate)) or (tolerance > 0.0 and status.ok):
            break
    return SimulationRun(
        mse=np.array(errors),
        overlap=np.array(overlaps),
        estimate=estimate,
        status=status,
        seconds=time.perf_counter() - began,
        estimated_mse=np.array(believed),
        qhat=np.array(snrs),
        misfit=np.array(misfits),
        damping=np.array(kept),
    )


def _error(estimate: Array, S: Array, even: bool) -> float:
    """Return the error per entry, of the better sign where labels do not depend on it."""
    return min(float(np.mean((sign * estimate - S) ** 2)) for sign in ((1, -1) if even else (1,)))


def _overlap(estimate: Array, S: Array, even: bool) -> float:
    overlap = float(np.mean(estimate * S))
    return abs(overlap) if even else overlap
