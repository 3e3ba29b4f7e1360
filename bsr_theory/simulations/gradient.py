r"""Gradient descent on the factors of S, from many initialisations at once.

The signal is sought as :math:`S = U V/\sqrt k`, U of shape (d1, k) and V of shape (k, d2).  With
:math:`a_\mu = X_\mu/\sqrt{d_1 d_2}` the loss and its gradient in S are

.. math::
   L(U, V) &= \frac12 \sum_\mu \Big(y_\mu - \big\langle a_\mu, \tfrac{U V}{\sqrt k}\big\rangle
              \Big)^2 + \frac w2 \big(\|U\|^2 + \|V\|^2\big), \\
   G &= \sum_\mu \Big(\big\langle a_\mu, \tfrac{U V}{\sqrt k}\big\rangle - y_\mu\Big)\, a_\mu,

and one step of rate :math:`\eta` is

.. math::
   U \leftarrow U - \eta\,\Big(\frac{G V^T}{\sqrt k} + w U\Big), \qquad
   V \leftarrow V - \eta\,\Big(\frac{U^T G}{\sqrt k} + w V\Big).

The loss is a sum over samples, not a mean: then its curvature stays of order 1 when d1 grows at
fixed alpha, beta and k/d1, and a rate means the same at every size.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from .._arrays import Array, check, check_integer, check_number
from ..channels import GaussianChannel
from ..design import DenseDesign, Design, available_memory
from ..priors import GaussianFactorPrior, LowRankFactorPrior
from ..problem import Instance
from ..results import SimulationRun, Status

__all__ = [
    "AveragedGradientRun",
    "GradientOptions",
    "GradientRun",
    "averaged_gradient_descent",
    "gradient_descent",
]

_POWER_STEPS = 20  # of the power iteration for the curvature
_LEAST_RATE = 2.0**-40  # of the first one: no smaller step lowers the loss but by rounding
_BLOWN_UP = 1e6  # times the first loss, or that of zero: a run of fixed rate has diverged
_FLAT = 1e-3  # a smaller relative decrease within ``patience`` steps ends a run
_PANEL = 512  # rows that are gathered for one update of the Gram matrix
_MADE_AGAIN = 100.0  # cost of an entry of a streamed design, in multiplications
_RUNNING = -1  # stands among values of Status


# --------------------------------------------------------------------------------------------
# Where the arrays live
# --------------------------------------------------------------------------------------------


class _Backend:
    """A namespace of arrays and a device, and the way there and back.

    What is asked of the namespace (asarray, reshape, stack, sum, where, @ and .mT) is common to
    the array API standard, NumPy, CuPy and PyTorch.
    """

    def __init__(self, backend: str | ModuleType | None, device: Any) -> None:
        if backend is None:
            self.xp: Any = np
        elif isinstance(backend, ModuleType):
            self.xp = backend
        elif isinstance(backend, str):
            self.xp = _import(backend)
        else:
            raise ValueError(
                "backend must be None, the name of a module or a namespace of arrays, "
                f"got {backend!r}"
            )
        missing = [x for x in ("asarray", "reshape", "stack", "where") if not hasattr(self.xp, x)]
        if missing:
            raise ValueError(f"backend must be a namespace of arrays, got {self.xp.__name__!r}")
        if device is not None and self.is_numpy and device != "cpu":
            raise ValueError(f"device must be None or 'cpu' without a backend, got {device!r}")
        self._place = {} if device is None or self.is_numpy else {"device": device}

    @property
    def is_numpy(self) -> bool:
        return self.xp is np

    def put(self, array: npt.NDArray[Any]) -> Any:
        """Return a NumPy array as one of the backend, of the same dtype."""
        if self.is_numpy:
            return array
        # PyTorch shares memory with NumPy and warns when it is read-only
        return self.xp.asarray(array if array.flags.writeable else array.copy(), **self._place)

    def cast(self, array: Any, dtype: np.dtype[Any]) -> Any:
        """Return an array of the backend in another dtype."""
        return self.xp.asarray(array, dtype=getattr(self.xp, dtype.name))

    def get(self, array: Any) -> npt.NDArray[Any]:
        """Return an array of the backend as one of NumPy."""
        if isinstance(array, np.ndarray):
            return array
        if hasattr(array, "get"):  # CuPy
            return np.asarray(array.get())
        if hasattr(array, "cpu"):  # PyTorch
            array = array.cpu()
        try:
            return np.asarray(array, dtype=np.float64)
        except (TypeError, ValueError):
            return np.from_dlpack(array)

    def dots(self, a: Any, b: Any) -> Array:
        """Return ``<a_i, b_i>`` of two stacks."""
        product = a * b
        return self.get(self.xp.sum(self.xp.reshape(product, (product.shape[0], -1)), axis=1))

    def choose(self, mask: npt.NDArray[np.bool_], new: Any, old: Any) -> Any:
        """Return the members of ``new`` where the mask is set, of ``old`` elsewhere."""
        if mask.all():
            return new
        shape = (mask.size,) + (1,) * (len(new.shape) - 1)
        return self.xp.where(self.put(mask.reshape(shape)), new, old)

    def scaled(self, factors: Array, stack: Any) -> Any:
        """Return a stack whose member i is multiplied by ``factors[i]``."""
        return self.put(factors.reshape((-1,) + (1,) * (len(stack.shape) - 1))) * stack


def _import(name: str) -> ModuleType:
    """Return a namespace by its name, made to follow the standard when array_api_compat is here."""
    for module in (f"array_api_compat.{name}", name):
        try:
            return importlib.import_module(module)
        except ImportError:
            continue
    raise ValueError(f"backend must be a module that can be imported, got {name!r}")


# --------------------------------------------------------------------------------------------
# The loss as a function of S
# --------------------------------------------------------------------------------------------

# A stack P of m products (m, d1, d2) -> their losses (m,), their gradients G (m, d1, d2)
_Loss = Callable[[Any], tuple[Array, Any]]


def _loss_of_design(X: Design, y: Array) -> _Loss:
    """One pass over X in NumPy, whatever kind of design it is."""

    def evaluate(P: Array) -> tuple[Array, Array]:
        parts: dict[int, Array] = {}

        def respond(h: Array, rows: slice) -> Array:
            g = h - y[rows]
            parts[rows.start] = np.sum(g * g, axis=-1)
            return g

        G = X.sweep(P, respond)
        total = np.zeros(P.shape[0])
        for start in sorted(parts):  # threads finish in any order
            total += parts[start]
        return 0.5 * total, G

    return evaluate


def _loss_elsewhere(X: Design, y: Array, backend: _Backend) -> _Loss:
    """Return the same with the arrays of a backend: X moves there at once if it is in memory."""
    size = X.shape[1] * X.shape[2]
    scale = 1.0 / float(np.sqrt(size))
    double = np.dtype(np.float64)
    xp = backend.xp
    resident: list[tuple[slice, Any]] = []
    if isinstance(X, DenseDesign) and not isinstance(X.array, np.memmap):
        resident = [(slice(0, X.n), backend.put(X.array.reshape(X.n, size)))]
    labels = backend.put(y)

    def moved() -> Any:
        for rows, block in X.blocks():
            yield rows, backend.put(np.ascontiguousarray(block).reshape(-1, size))

    def evaluate(P: Any) -> tuple[Array, Any]:
        m = P.shape[0]
        signals = backend.cast(xp.reshape(P, (m, size)), X.dtype)
        total, G = np.zeros(m), backend.put(np.zeros((m, size)))
        for rows, block in resident or moved():
            g = backend.cast(signals @ block.mT, double) * scale - labels[rows]
            total = total + backend.dots(g, g)
            G = G + backend.cast(backend.cast(g, X.dtype) @ block, double)
        return 0.5 * total, xp.reshape(G * scale, P.shape)

    return evaluate


def _loss_of_gram(X: Design, y: Array, backend: _Backend) -> _Loss | None:
    """Return the loss by its Hessian in S, ``K = A^T A``, or None if K is not invertible.

    Around the least-squares solution, ``L = L_min + <S - S_LS, K (S - S_LS)>/2``: unlike the
    expansion around 0 this loses no digits when L is close to its minimum.
    """
    size = X.shape[1] * X.shape[2]
    xp = backend.xp
    K = backend.put(np.zeros((size, size)))
    panel: list[npt.NDArray[Any]] = []
    with np.errstate(invalid="ignore", over="ignore"):  # X may not be finite
        for rows, block in X.blocks():
            panel.append(np.asarray(block, dtype=np.float64).reshape(-1, size))
            if sum(len(x) for x in panel) >= _PANEL or rows.stop == X.n:
                part = backend.put(np.concatenate(panel))
                K = K + part.mT @ part
                panel = []
        K = K * (1.0 / size)
        b = backend.put(X.rmatvec(y).reshape(size, 1))
        try:
            solution = xp.linalg.solve(K, b)
        except (np.linalg.LinAlgError, RuntimeError):  # PyTorch has an error of its own
            return None
        least = backend.get(solution).reshape(X.shape[1:])
        rest = y - X.matvec(least)
        # a singular K may not have been noticed: the residual is then not orthogonal to the range
        slope = np.linalg.norm(X.rmatvec(rest))
    accuracy = 1e-8 + 64.0 * float(np.finfo(X.dtype).eps)
    if not slope <= accuracy * np.linalg.norm(backend.get(b)) + np.finfo(np.float64).tiny:
        return None
    minimum = 0.5 * float(rest @ rest)
    centre = backend.put(least.reshape(1, size))

    def evaluate(P: Any) -> tuple[Array, Any]:
        D = xp.reshape(P, (P.shape[0], size)) - centre
        G = D @ K
        return minimum + 0.5 * backend.dots(D, G), xp.reshape(G, P.shape)

    return evaluate


def _gram_pays(X: Design, steps: int, runs: int, free: float) -> bool:
    """Return whether K is cheaper than passes over X, by operations, and fits."""
    n, size = X.n, X.shape[1] * X.shape[2]
    if n < size or 4.0 * 8.0 * size**2 > free:  # K, its factors and what makes them
        return False
    passes = steps * n * size * (4.0 * runs + (0.0 if isinstance(X, DenseDesign) else _MADE_AGAIN))
    return 2.0 * n * size**2 + size**3 + steps * 2.0 * runs * size**2 < passes


def _bounded(evaluate: _Loss, backend: _Backend, dtype: np.dtype[Any]) -> _Loss:
    """Return the loss with inf in place of what would overflow on the way."""
    bound = 1e60 if dtype == np.float64 else 1e30

    def careful(P: Any) -> tuple[Array, Any]:
        sizes = backend.dots(P, P)
        fits = sizes <= bound  # False for NaN
        if not fits.all():
            P = backend.choose(fits, P, backend.put(np.zeros(P.shape)))
        losses, G = evaluate(P)
        return np.where(fits, losses, np.inf), G

    return careful


def _curvature(
    U: Any, V: Any, G: Any, evaluate: _Loss, backend: _Backend, weight_decay: float
) -> Array:
    """Return the largest |eigenvalue| of the Hessian of L at each (U, V), by power iteration.

    The Hessian maps ``(u, v)`` to ``((K D V^T + G v^T)/sqrt k + w u, ...)``, D the first-order
    change of the product; ``K D`` is the change of its gradient.
    """
    m, d1, k = U.shape
    root = float(np.sqrt(k))
    d2 = V.shape[2]
    rng = np.random.default_rng(0)  # the same direction for each member of any stack
    u = backend.put(np.tile(rng.standard_normal((1, d1, k)), (m, 1, 1)))
    v = backend.put(np.tile(rng.standard_normal((1, k, d2)), (m, 1, 1)))
    _, origin = evaluate(backend.put(np.zeros((1, d1, d2))))
    value = np.zeros(m)
    for _ in range(_POWER_STEPS):
        norm = np.sqrt(backend.dots(u, u) + backend.dots(v, v))
        inverse = np.sqrt(d1 * d2) / np.where(norm > 0.0, norm, 1.0)
        u, v = backend.scaled(inverse, u), backend.scaled(inverse, v)
        _, shifted = evaluate((u @ V + U @ v) / root)
        change = shifted - origin
        u, v = (
            (change @ V.mT + G @ v.mT) / root + weight_decay * u,
            (U.mT @ change + u.mT @ G) / root + weight_decay * v,
        )
        value = np.sqrt((backend.dots(u, u) + backend.dots(v, v)) / (d1 * d2))
    return value


# --------------------------------------------------------------------------------------------
# Results
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, kw_only=True)
class GradientRun(SimulationRun):
    """Gradient descent from one initialisation, or from m at once.

    Attributes
    ----------
    mse : ndarray, shape (records,) or (records, m)
        ``||S_hat - S||^2/(d1 d2)`` after the steps that `iteration` lists.
    overlap : ndarray, shape (records,) or (records, m)
        ``<S_hat, S>/(d1 d2)``.
    train_loss : ndarray, shape (records,) or (records, m)
        ``sum_mu (y_mu - h_mu)^2/n``; that of ``S_hat = 0`` is the mean square of the labels.
    iteration : ndarray of int, shape (records,)
        Steps taken before each record; a member that has ended stays as it is.
    estimate : ndarray, shape (d1, d2) or (m, d1, d2)
        ``U V/sqrt(k)`` at the end.
    factors : tuple of ndarray
        U of shape (d1, k) or (m, d1, k), V of shape (k, d2) or (m, k, d2).
    learning_rate : float or ndarray, shape (m,)
        The rate at the end, which "auto" may have lowered.
    status : Status
        CONVERGED when every member is: the labels are fitted to the tolerance or the loss no
        longer falls.  NOT_CONVERGED after all the steps, or when a member has diverged.
    statuses : ndarray of Status, shape () or (m,)
        That of each member.
    seconds : float
        Wall-clock time, that before an interruption included.
    """

    train_loss: Array
    iteration: npt.NDArray[np.int64]
    factors: tuple[Array, Array]
    learning_rate: Any
    statuses: npt.NDArray[np.int64]

    @property
    def iterations(self) -> int:
        """Number of steps."""
        return int(self.iteration[-1])


@dataclass(frozen=True, eq=False, kw_only=True)
class AveragedGradientRun(SimulationRun):
    """The average of what gradient descent finds from m initialisations.

    Attributes
    ----------
    mse, overlap, train_loss : ndarray, shape (records,)
        As in `GradientRun`, of the average of the m products.
    iteration : ndarray of int, shape (records,)
        Steps taken before each record.
    estimate : ndarray, shape (d1, d2)
        The average of the products at the end.
    runs : GradientRun
        The members: ``runs.mse[-1]`` has the error of each.
    """

    train_loss: Array
    iteration: npt.NDArray[np.int64]
    runs: GradientRun

    @property
    def iterations(self) -> int:
        """Number of steps."""
        return int(self.iteration[-1])

    def expected_mse(self, count: npt.ArrayLike) -> Any:
        """Return the expected error at the end of an average over ``count`` initialisations.

        Parameters
        ----------
        count : int or array_like of int
            Number of initialisations, from 1 on; inf is allowed.

        Returns
        -------
        float or ndarray
            ``c + (e - c)/count``, with e the mean error of a member and c the mean over pairs of
            ``<S_i - S, S_j - S>/(d1 d2)``.  Unbiased at every count, beyond m too, for this
            instance; up to m it is the mean over all choices of ``count`` of the m members.

        Raises
        ------
        ValueError
            If a count is below 1.
        """
        number = np.asarray(check("count", count, low=1.0))
        m = self.runs.mse.shape[1]
        single = float(np.mean(self.runs.mse[-1]))
        pairs = (m * float(self.mse[-1]) - single) / (m - 1)
        value = pairs + (single - pairs) / number
        return value.item() if value.ndim == 0 else value


class GradientOptions(TypedDict, total=False):
    """What `gradient_descent` and `averaged_gradient_descent` both take by keyword."""

    rank: int | None
    learning_rate: float | Literal["auto"]
    init: Literal["prior", "small"] | tuple[npt.ArrayLike, npt.ArrayLike]
    init_scale: float
    weight_decay: float
    steps: int
    tolerance: float
    patience: int
    record: int
    rng: Any
    checkpoint: str | os.PathLike[str] | None
    checkpoint_seconds: float
    callback: Callable[[int, Array], bool | None] | None
    progress: bool
    backend: str | ModuleType | None
    device: Any


# --------------------------------------------------------------------------------------------
# What is asked for
# --------------------------------------------------------------------------------------------


def _width(instance: Instance) -> int:
    """Return the width of the signal's factors."""
    d1 = instance.S.shape[0]
    prior = instance.problem.prior
    if isinstance(prior, GaussianFactorPrior) and np.isfinite(prior.rho):
        width: int = round(float(prior.rho) * d1)
    elif isinstance(prior, LowRankFactorPrior):
        width = round(instance.noise_unit * d1)
    else:
        raise ValueError(f"rank must be given: {prior} has no finite width")
    return max(1, width)


def _start(
    init: Any, scale: float, shape: tuple[int, int], rank: int | None, count: int, rng: Any
) -> tuple[Array, Array]:
    """Return the factors of ``count`` initialisations, (m, d1, k) and (m, k, d2)."""
    d1, d2 = shape
    if isinstance(init, str):
        if init not in ("prior", "small"):
            raise ValueError(f"init must be 'prior', 'small' or a pair of arrays, got {init!r}")
        assert rank is not None
        factor = scale if init == "small" else 1.0
        generator = np.random.default_rng(rng)
        # one after the other, so that the first of many is that of one
        drawn = [
            (generator.standard_normal((d1, rank)), generator.standard_normal((rank, d2)))
            for _ in range(count)
        ]
        U, V = (factor * np.stack(x) for x in zip(*drawn, strict=True))
        return U, V
    try:
        left, right = (np.asarray(x, dtype=np.float64) for x in init)
    except (TypeError, ValueError) as error:
        raise ValueError(f"init must be 'prior', 'small' or a pair of arrays, got {init!r}") from (
            error
        )
    if left.ndim == 2 == right.ndim:
        left, right = left[None], right[None]
    k = left.shape[-1] if left.ndim == 3 else 0
    if rank is not None and k != rank:
        raise ValueError(f"rank must be that of init, {k}, or None, got {rank}")
    wanted = ((count, d1, k), (count, k, d2))
    good = (left.shape, right.shape) == wanted and k > 0
    if not good or not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise ValueError(
            f"init must be finite of shapes ({count}, {d1}, k) and ({count}, k, {d2}), "
            f"got {left.shape} and {right.shape}"
        )
    return np.array(left), np.array(right)


# --------------------------------------------------------------------------------------------
# Checkpoints
# --------------------------------------------------------------------------------------------


def _digest(*parts: Any) -> str:
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            total.update(f"{part.shape}{part.dtype}".encode())
            total.update(np.ascontiguousarray(part).tobytes())
        else:
            total.update(repr(part).encode())
    return total.hexdigest()


def _fingerprint(instance: Instance, **arguments: Any) -> str:
    """Return what tells this calculation from others.

    The labels depend on every X_mu, so that a part of X is enough.
    """
    X = instance.X
    ends = (np.ascontiguousarray(X.block(0)[0]), np.ascontiguousarray(X.block(X.block_count - 1)))
    return _digest(instance.y, instance.S, X.shape, str(X.dtype), *ends, sorted(arguments.items()))


@dataclass
class _State:
    """Everything a run needs to go on; all arrays are NumPy's, the first axis is the member's."""

    iteration: int
    U: Array
    V: Array
    G: Array
    loss: Array
    objective: Array
    rate: Array
    first_rate: Array
    ceiling: Array
    mark: Array
    mark_norm: Array
    status: npt.NDArray[np.int64]
    recorded: npt.NDArray[np.int64]
    history: Array
    seconds: float
    origin: str


def _save(path: Path, state: _State, fingerprint: str) -> None:
    """Write to a file of another name, then rename: a file of that name is always whole."""
    arrays = {x.name: getattr(state, x.name) for x in fields(_State)}
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, fingerprint=fingerprint, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _load(path: Path, fingerprint: str, origin: str | None) -> _State:
    """Read a checkpoint, if it is of this calculation."""
    try:
        with np.load(path, allow_pickle=False) as data:
            stored = {name: data[name] for name in data.files}
        state = _State(**{x.name: stored[x.name] for x in fields(_State)})
        state.iteration, state.seconds = int(state.iteration), float(state.seconds)
        state.origin, theirs = str(state.origin), str(stored["fingerprint"])
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"checkpoint must be a file that this function wrote, got {str(path)!r}"
        ) from error
    if theirs != fingerprint or origin not in (None, state.origin):
        what = "instance or with other arguments" if theirs != fingerprint else "initialisation"
        raise ValueError(f"checkpoint {str(path)!r} is of another {what}; remove it to begin anew")
    return state


# --------------------------------------------------------------------------------------------
# The descent
# --------------------------------------------------------------------------------------------


class _Descent:
    """Gradient descent of m members; those that have ended leave the stack that is worked on."""

    def __init__(
        self,
        state: _State,
        evaluate: _Loss,
        backend: _Backend,
        instance: Instance,
        weight_decay: float,
        eps: float,
        *,
        automatic: bool,
    ) -> None:
        self.state, self.evaluate, self.backend = state, evaluate, backend
        self.decay, self.automatic = weight_decay, automatic
        self.root = float(np.sqrt(state.U.shape[2]))
        self.S = backend.put(instance.S[None])
        self.n = instance.X.n
        self.zero = 0.5 * float(instance.y @ instance.y)
        self.eps = eps
        self.active = np.empty(0, dtype=np.intp)
        self.U: Any = None
        self.V: Any = None
        self.G: Any = None
        self.gather()

    def gather(self) -> None:
        """Take those that still run to the backend."""
        self.active = np.flatnonzero(self.state.status == _RUNNING)
        if self.active.size:
            take = (x[self.active] for x in (self.state.U, self.state.V, self.state.G))
            self.U, self.V, self.G = (self.backend.put(x) for x in take)

    def scatter(self) -> None:
        """Bring them back into the state."""
        if self.active.size:
            pairs = ((self.state.U, self.U), (self.state.V, self.V), (self.state.G, self.G))
            for whole, part in pairs:
                whole[self.active] = self.backend.get(part)

    def step(self) -> None:
        """Move each member that runs, unless its step fails."""
        state, backend, on = self.state, self.backend, self.active
        with np.errstate(over="ignore", invalid="ignore"):
            left = self.G @ self.V.mT / self.root + self.decay * self.U
            right = self.U.mT @ self.G / self.root + self.decay * self.V
            U = self.U - backend.scaled(state.rate[on], left)
            V = self.V - backend.scaled(state.rate[on], right)
            loss, G = self.evaluate(U @ V / self.root)
            objective = loss
            if self.decay:
                norm = backend.dots(U, U) + backend.dots(V, V)
                objective = loss + 0.5 * self.decay * norm
        rounding = 1.0 + 16.0 * self.eps
        limit = rounding * state.objective[on] if self.automatic else state.ceiling[on]
        good = objective <= limit
        self.U = backend.choose(good, U, self.U)
        self.V = backend.choose(good, V, self.V)
        self.G = backend.choose(good, G, self.G)
        state.loss[on[good]] = loss[good]
        state.objective[on[good]] = objective[good]
        bad = on[~good]
        if self.automatic:
            state.rate[bad] *= 0.5
            least = state.rate[bad] < _LEAST_RATE * state.first_rate[bad]
            state.status[bad[least]] = Status.CONVERGED
        else:
            state.status[bad] = Status.NOT_CONVERGED

    def judge(self, tolerance: float, patience: int) -> None:
        """End the members that fit the labels or no longer improve."""
        state, on = self.state, self.active
        fitted = state.loss[on] <= tolerance * self.zero
        state.status[on[fitted & (state.status[on] == _RUNNING)]] = Status.CONVERGED
        if state.iteration and state.iteration % patience == 0:
            norm = self.backend.dots(self.U, self.U) + self.backend.dots(self.V, self.V)
            # small factors that grow leave a saddle: the loss will fall later
            flat = state.objective[on] >= (1.0 - _FLAT) * state.mark[on]
            flat &= norm <= (1.0 + _FLAT) * state.mark_norm[on]
            flat &= state.status[on] == _RUNNING
            state.status[on[flat]] = Status.CONVERGED
            state.mark[on], state.mark_norm[on] = state.objective[on], norm
        if np.any(state.status[on] != _RUNNING):
            self.scatter()
            self.gather()

    def products(self) -> tuple[Any, Any]:
        """Return the products of all members and their gradients."""
        self.scatter()
        U, V = self.backend.put(self.state.U), self.backend.put(self.state.V)
        return U @ V / self.root, self.backend.put(self.state.G)

    def measure(self) -> tuple[Array, Any]:
        """Return error, overlap and loss of the members and of their average, and all products."""
        backend, m = self.backend, self.state.loss.size
        P, G = self.products()
        mean = backend.xp.reshape(backend.xp.sum(P, axis=0), (1, *P.shape[1:])) / m
        size = self.state.U.shape[1] * self.state.V.shape[2]
        measures = np.empty((3, m + 1))
        for part, chosen in ((P, slice(0, m)), (mean, slice(m, m + 1))):
            gap = part - self.S
            measures[0, chosen] = backend.dots(gap, gap) / size
            measures[1, chosen] = backend.dots(part, self.S) / size
        # L is quadratic in S: L(mean) = mean L - mean <S_i - mean, G_i>/2
        spread = float(np.mean(backend.dots(P - mean, G)))
        measures[2, :m] = self.state.loss
        measures[2, m] = max(float(np.mean(self.state.loss)) - 0.5 * spread, 0.0)
        measures[2] *= 2.0 / self.n
        return measures, P


def _finite_or_raise(y: Array, evaluate: _Loss, shape: tuple[int, ...], backend: _Backend) -> None:
    with np.errstate(invalid="ignore", over="ignore"):
        loss, G = evaluate(backend.put(np.zeros((1, *shape))))
        if not np.isfinite(backend.dots(G, G)).all() or not np.isfinite(loss).all():
            raise ValueError("X of the instance must be finite")


def _descend(
    instance: Instance,
    members: int,
    *,
    estimate: Callable[[Array], Array],
    rank: int | None = None,
    learning_rate: float | Literal["auto"] = "auto",
    init: Literal["prior", "small"] | tuple[npt.ArrayLike, npt.ArrayLike] = "prior",
    init_scale: float = 1e-3,
    weight_decay: float = 0.0,
    steps: int = 10_000,
    tolerance: float = 1e-10,
    patience: int = 1000,
    record: int = 10,
    rng: Any = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 60.0,
    callback: Callable[[int, Array], bool | None] | None = None,
    progress: bool = False,
    backend: str | ModuleType | None = None,
    device: Any = None,
) -> tuple[_State, Array]:
    """Run, and return the final state and the final products (m, d1, d2).

    ``estimate`` makes of the products what the callback is shown.
    """
    began = time.perf_counter()
    channel = instance.problem.channel
    if not isinstance(channel, GaussianChannel):
        raise ValueError(
            "channel must be a GaussianChannel: the squared loss compares labels with "
            f"<X, S>/sqrt(d1 d2), got {channel!r}"
        )
    steps, patience = check_integer("steps", steps), check_integer("patience", patience)
    record = check_integer("record", record)
    if rank is not None:
        rank = check_integer("rank", rank)
    elif isinstance(init, str):
        rank = _width(instance)
    if isinstance(learning_rate, str):
        if learning_rate != "auto":
            raise ValueError(f"learning_rate must be 'auto' or a number, got {learning_rate!r}")
    else:
        learning_rate = check_number("learning_rate", learning_rate, open_low=True)
    automatic = isinstance(learning_rate, str)
    init_scale = check_number("init_scale", init_scale, open_low=True)
    weight_decay = check_number("weight_decay", weight_decay)
    tolerance = check_number("tolerance", tolerance)
    checkpoint_seconds = check_number("checkpoint_seconds", checkpoint_seconds)
    space = _Backend(backend, device)
    X, y = instance.X, instance.y
    shape = (X.shape[1], X.shape[2])
    U, V = _start(init, init_scale, shape, rank, members, rng)

    loss: _Loss | None = None
    if _gram_pays(X, steps, members, available_memory()):
        loss = _loss_of_gram(X, y, space)
    exact = np.dtype(np.float64) if loss is not None else X.dtype
    if loss is None:
        loss = _loss_of_design(X, y) if space.is_numpy else _loss_elsewhere(X, y, space)
    evaluate = _bounded(loss, space, exact)

    path = None if checkpoint is None else Path(checkpoint)
    fingerprint = ""
    if path is not None:
        if not path.parent.is_dir():
            raise ValueError(f"checkpoint must be in an existing folder, got {str(path)!r}")
        fingerprint = _fingerprint(
            instance,
            rank=U.shape[2],
            learning_rate=learning_rate,
            init=init if isinstance(init, str) else "given",
            init_scale=init_scale,
            weight_decay=weight_decay,
            members=members,
            tolerance=tolerance,
            patience=patience,
            record=record,
        )
    if path is not None and path.exists():
        repeatable = rng is not None or not isinstance(init, str)
        state = _load(path, fingerprint, _digest(U, V) if repeatable else None)
        if state.iteration > steps:
            raise ValueError(
                f"steps must be >= {state.iteration}, where the checkpoint stands, got {steps}"
            )
    else:
        _finite_or_raise(y, evaluate, shape, space)
        state = _first_state(U, V, evaluate, space, weight_decay, learning_rate, 0.5 * float(y @ y))

    eps = float(np.finfo(exact).eps)
    descent = _Descent(state, evaluate, space, instance, weight_decay, eps, automatic=automatic)
    before, saved = state.seconds, time.perf_counter()

    def note() -> bool:
        """Record where the members stand; return whether the callback ends the run."""
        measures, P = descent.measure()
        state.recorded = np.append(state.recorded, state.iteration)
        state.history = np.concatenate([state.history, measures[None]])
        return callback is not None and bool(callback(state.iteration, estimate(space.get(P))))

    def write() -> None:
        assert path is not None
        descent.scatter()
        state.seconds = before + time.perf_counter() - began
        _save(path, state, fingerprint)

    stop = False
    if state.iteration == 0 and not state.recorded.size:
        descent.judge(tolerance, patience)  # labels may be fitted from the start
        stop = note()
    bar = tqdm(total=steps, initial=state.iteration, desc="gradient", disable=not progress)
    with bar:
        while descent.active.size and state.iteration < steps and not stop:
            descent.step()
            state.iteration += 1
            bar.update()
            descent.judge(tolerance, patience)
            if state.iteration % record == 0:
                stop = note()
            if path is not None and time.perf_counter() - saved >= checkpoint_seconds:
                write()
                saved = time.perf_counter()
    if path is not None:
        write()
    if state.recorded[-1] != state.iteration:
        note()
    P, _ = descent.products()
    state.seconds = before + time.perf_counter() - began
    state.status[state.status == _RUNNING] = Status.NOT_CONVERGED
    return state, space.get(P)


def _first_state(
    U: Array,
    V: Array,
    evaluate: _Loss,
    backend: _Backend,
    weight_decay: float,
    learning_rate: float | str,
    zero: float,
) -> _State:
    """Return the state before the first step."""
    m, _, k = U.shape
    u, v = backend.put(U), backend.put(V)
    with np.errstate(over="ignore", invalid="ignore"):
        loss, G = evaluate(u @ v / float(np.sqrt(k)))
        norm = backend.dots(u, u) + backend.dots(v, v)
        objective = loss + 0.5 * weight_decay * norm
    if not np.isfinite(objective).all():
        raise ValueError("init must have a finite loss")
    if isinstance(learning_rate, str):
        curvature = _curvature(u, v, G, evaluate, backend, weight_decay)
        rate = 1.0 / np.where(curvature > 0.0, curvature, 1.0)
    else:
        rate = np.full(m, learning_rate)
    return _State(
        iteration=0,
        U=U,
        V=V,
        G=np.array(backend.get(G)),
        loss=loss,
        objective=np.array(objective),
        rate=rate,
        first_rate=rate.copy(),
        ceiling=_BLOWN_UP * np.maximum(objective, zero),
        mark=np.array(objective),
        mark_norm=norm,
        status=np.full(m, _RUNNING, dtype=np.int64),
        recorded=np.empty(0, dtype=np.int64),
        history=np.empty((0, 3, m + 1)),
        seconds=0.0,
        origin=_digest(U, V),
    )


def _all_of(status: npt.NDArray[np.int64]) -> Status:
    return Status.CONVERGED if np.all(status == Status.CONVERGED) else Status.NOT_CONVERGED


def _members(state: _State, products: Array, *, single: bool) -> GradientRun:
    """Return the runs of the members, without their axis for a single one."""
    pick: Any = 0 if single else slice(None)
    series = state.history[:, :, :-1]
    return GradientRun(
        mse=series[:, 0][:, pick],
        overlap=series[:, 1][:, pick],
        estimate=products[pick],
        status=_all_of(state.status),
        seconds=state.seconds,
        train_loss=series[:, 2][:, pick],
        iteration=state.recorded,
        factors=(state.U[pick], state.V[pick]),
        learning_rate=float(state.rate[0]) if single else state.rate,
        statuses=np.asarray(state.status[pick]),
    )


def gradient_descent(
    instance: Instance,
    *,
    initialisations: int | None = None,
    **options: Unpack[GradientOptions],
) -> GradientRun:
    r"""Fit the labels by gradient descent on the factors of ``S = U V/sqrt(k)``.

    Parameters
    ----------
    instance : Instance
        Design, labels and signal; the signal is used to report errors.  Its channel must be a
        `GaussianChannel`.
    initialisations : int, optional
        Run from that many initialisations at once, which is cheaper than one after the other:
        each pass over X is then a product of matrices.  Fields of the result have an axis for
        them.  None is one run without that axis.
    rank : int, optional
        Width k of the factors, by default that of the signal; more than ``min(d1, d2)`` is
        allowed.
    learning_rate : float or "auto"
        Rate of the steps, fixed, > 0.  "auto" takes for each initialisation the inverse of the
        curvature it starts at (half the largest stable rate), halves it when a step would raise
        the loss, and takes that step again.
    init : {"prior", "small"} or tuple of array_like
        Factors of standard normal entries, as those of the signal; these times ``init_scale``;
        or U and V, of shapes (d1, k) and (k, d2), (m, d1, k) and (m, k, d2) for m of them.
    init_scale : float
        Standard deviation of the entries for ``init="small"``, > 0.
    weight_decay : float
        Coefficient w of the penalty, >= 0.
    steps : int
        Most steps.
    tolerance : float
        A run has converged when its train loss is at most that times the train loss of 0.
    patience : int
        It has converged too when within that many steps its loss has fallen by less than 0.1%
        and its factors have not grown by more.
    record : int
        Errors are recorded every so many steps, and at the start and the end.
    rng : None, int or numpy.random.Generator
        Source of the initial factors, the only randomness.
    checkpoint : path-like, optional
        File (in the format of `numpy.savez`) that the state is written to, at the end too, and
        read from if it exists.  A run that goes on from it ends as an uninterrupted one would,
        bit for bit on the same machine and backend.  One that has used up its steps goes on when
        it is called with more of them.
    checkpoint_seconds : float
        Time between two checkpoints.
    callback : callable, optional
        Called as ``callback(iteration, estimate)`` at each record; returning True ends the run.
    progress : bool
        Whether to show a progress bar.
    backend : str or module, optional
        Namespace of arrays to calculate with: "torch", "cupy", or a module that follows the
        array API standard.  A design in memory moves to the device as a whole, another one block
        by block at each step.  What is returned are NumPy arrays.  None is NumPy.
    device : optional
        Device of the backend, such as "cuda"; its default one when None.

    Returns
    -------
    GradientRun
        Errors, train losses and factors.

    Raises
    ------
    ValueError
        If an argument is out of its range, the channel is not Gaussian, X is not finite, or the
        checkpoint is of another calculation.

    Notes
    -----
    The loss stands at the head of the module.  At w > 0 and k no less than the rank of the
    solution its minimum is the nuclear-norm regularised least squares
    ``sum (y - h)^2/2 + lam sqrt(d2) ||S||_*`` with ``lam = w sqrt(k/d2)``.  Without penalty, when
    labels are fewer than parameters, the end depends on the start and on the rate.

    With noiseless labels and ``init="prior"`` the runs sample interpolators roughly as the
    posterior does: each has about twice the Bayes-optimal error and their average about the
    Bayes-optimal one (arXiv:2410.18858).  This is close for few labels and near the largest stable
    rate.  At ``beta = 1, rho = 0.5`` a rate of 0.3 gives 2.0 and 1.0 times the minimal error at
    alpha = 0.2, 2.2 and 1.1 times at alpha = 0.4; smaller rates, "auto" among them, approach the
    gradient flow, which gives 2.1 and 1.0, 2.6 and 1.1 times.  A small start has a smaller error
    than one from the prior, but its end is not the interpolator of minimal nuclear norm, whose
    error is smaller still, and does not approach it as ``init_scale`` goes to 0.

    When labels outnumber the entries of S, and it saves time and fits into memory, the gradient
    is taken from the Gram matrix of the design, ``(d1 d2)^2`` entries.

    A run of fixed rate whose loss exceeds a million times the first one has diverged; it ends
    where it last was below, NOT_CONVERGED.

    References
    ----------
    Erba, Troiani, Biggio, Maillard, Zdeborova, Bilinear sequence regression, arXiv:2410.18858.

    Examples
    --------
    >>> import bsr_theory as bsr
    >>> from bsr_theory.simulations.gradient import gradient_descent
    >>> data = bsr.bilinear_regression(alpha=0.9, beta=1.0, rho=0.2).sample(d1=20, rng=1)
    >>> run = gradient_descent(data, rng=0)
    >>> run.status.name, bool(run.mse[-1] < 1e-6)
    ('CONVERGED', True)
    """
    single = initialisations is None
    members = 1 if initialisations is None else check_integer("initialisations", initialisations)

    def shown(products: Array) -> Array:
        return products[0] if single else products

    state, products = _descend(instance, members, estimate=shown, **options)
    return _members(state, products, single=single)


def averaged_gradient_descent(
    instance: Instance,
    *,
    initialisations: int = 16,
    **options: Unpack[GradientOptions],
) -> AveragedGradientRun:
    """Average what `gradient_descent` finds from many initialisations.

    Parameters
    ----------
    instance : Instance
        Design, labels and signal.
    initialisations : int
        Number m of initialisations, at least 2.
    **options
        Those of `gradient_descent`; a callback is shown the average.

    Returns
    -------
    AveragedGradientRun
        Errors of the average and of its members; ``expected_mse(count)`` extrapolates to other
        numbers of them.

    Raises
    ------
    ValueError
        As `gradient_descent` does.

    Notes
    -----
    The average is over the products ``U V/sqrt(k)``: the labels are linear in these, so that the
    average of interpolators is one.  If members were independent samples of the posterior, each
    would have twice the minimal error and the average of m would have ``1 + 1/m`` times it
    (arXiv:2410.18858).

    Examples
    --------
    >>> import bsr_theory as bsr
    >>> from bsr_theory.simulations.gradient import averaged_gradient_descent
    >>> data = bsr.bilinear_regression(alpha=0.4, beta=1.0, rho=0.5).sample(d1=20, rng=1)
    >>> run = averaged_gradient_descent(data, initialisations=8, rng=0)
    >>> bool(run.expected_mse(float("inf")) < run.mse[-1] < 0.7 * run.runs.mse[-1].mean())
    True
    """
    members = check_integer("initialisations", initialisations, low=2)
    state, products = _descend(
        instance, members, estimate=lambda each: np.mean(each, axis=0), **options
    )
    series = state.history[:, :, -1]
    return AveragedGradientRun(
        mse=series[:, 0],
        overlap=series[:, 1],
        estimate=np.mean(products, axis=0),
        status=_all_of(state.status),
        seconds=state.seconds,
        train_loss=series[:, 2],
        iteration=state.recorded,
        runs=_members(state, products, single=False),
    )
