"""One model, fitted to a certified optimum."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike, DTypeLike
from threadpoolctl import ThreadpoolController

from lr_nn import check
from lr_nn.network import Network, check_params, init, n_parameters
from lr_nn.network import admit as admit_batch
from lr_nn.penalties import Penalty, check_penalty
from lr_nn.solvers import run, sample, separation
from lr_nn.solvers.deep import Deep
from lr_nn.solvers.one_layer import OneLayer
from lr_nn.solvers.problem import admit
from lr_nn.solvers.proximal import WHOLE
from lr_nn.types import Batch, Layer, Params, Solution, Status


def fit(
    net: Network,
    x: ArrayLike,
    y: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    offset: ArrayLike | None = None,
    penalty: Penalty | None = None,
    start: Params | None = None,
    tol: float = 1e-12,
    max_steps: int = 100,
    solver: str = "auto",
    dtype: DTypeLike | None = None,
) -> Solution:
    """argmin J = Σ s_i ℓ_i / Σ s_i + penalty, with a bound on J - J*.

    net: a one-layer network with a squared-error, bernoulli, categorical or poisson loss; for others see below.
    x (n, d), y as the loss asks, weight (n,), offset (n,) or (n, k). start: where to begin. solver: auto, newton,
    newton_cg, lbfgs, closed_form (least squares) or proximal (an L1 penalty). The work is done in float64 whatever JAX
    is set to, or in `dtype`; the certificate always in float64.

    Converged means certificate ≤ tol · J₀ for every solver alike, J₀ the cost of the best constant model (that ignores
    an offset), above the smallest that the targets allow: zero but for poisson, whose cost leaves out log y!. The last
    step of a smooth fit is a full one from where that was met already, by the certificate or by a decrement that the
    step itself showed to be the gap. Of softmax regression without a penalty the solution whose coefficients sum to
    zero over classes is returned.

    A deep network, or another loss, has no convex cost: from `start` (else `init` with a fixed key) lbfgs, or
    newton_cg, Newton by conjugate gradients on the Gauss-Newton matrix, goes to a stationary point, where no entry of
    ∇J is above √tol · J at the start. It is converged, with a certificate of ∞, and the message says so.

    Numerical failure is a `status`: max_steps, separated (the likelihood has no maximum; `direction` and the message
    name the coefficients concerned), rank_deficient (an optimum, but not the only one), non_finite. Raises ValueError
    or TypeError for data that do not fit the network, and TypeError under `jit`.

    >>> import lr_nn, numpy as np
    >>> x, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 1, 0, 1])
    >>> solution = lr_nn.fit(lr_nn.logistic_regression(1), x, y)
    >>> print(solution.status, solution.coefficients.round(6).ravel())
    converged [ 0.908184 -1.362276]
    """
    check.on_host("fit", (x, y, weight, offset, start, penalty, tol), "lr_nn.solvers.solve")
    check_arguments(net, penalty, solver, tol, dtype)
    max_steps = check.positive_integer("max_steps", max_steps)
    penalty = Penalty() if penalty is None else penalty
    with jax.enable_x64(True), one_thread():
        if not convex(net):
            return _stationary(net, Batch(x, y, weight, offset), penalty, start, tol, max_steps, solver, dtype)
        problem, constant, excess = admit(net, Batch(x, y, weight, offset), penalty, np.dtype(dtype or np.float64))
        theta = constant if start is None else _started(problem, start)
        solution = solved(problem, theta, penalty, tol * excess, max_steps, solver)
        if solution.status == Status.non_finite:
            check.finite("x", problem.x)
        return solution


def solved(
    problem: OneLayer, theta: jax.Array, penalty: Penalty, ceiling: float, max_steps: int, solver: str
) -> Solution:
    """An admitted problem, from θ to a bound on J - J* within `ceiling`: the part of `fit` that is the same for all."""
    name, why = choose(problem) if solver == "auto" else (solver, "asked for")
    if name == "closed_form":
        check.finite("x", problem.x)
    found = run.SOLVERS[name](problem, theta, ceiling, max_steps)
    return _solution(found, penalty, name, why, ceiling, problem.x.dtype, max_steps)


@contextmanager
def one_thread() -> Iterator[None]:
    """LAPACK's threads wait busily after a factorisation, and halve the speed of XLA's: fits keep them to one.

    The first of those that run at once takes them, and the last gives them back.
    """
    with _LOCK:
        if not _FITS:
            _FITS.append(_threads().limit(limits=1, user_api="blas"))
        _FITS.append(None)
    try:
        yield
    finally:
        with _LOCK:
            _FITS.pop()
            if len(_FITS) == 1:
                _FITS.pop().restore_original_limits()


_LOCK = Lock()
_FITS: list[Any] = []


@cache
def _threads() -> ThreadpoolController:
    import scipy.linalg  # noqa: F401, so that its BLAS is there to be found

    return ThreadpoolController()


def choose(problem: OneLayer) -> tuple[str, str]:
    """A solver by shape, and why."""
    n, p = problem.x.shape[0], n_parameters(problem.net)
    if float(problem.l1) > 0:
        return "proximal", "an L1 penalty"
    small = p <= FEW and n * p**2 * problem.y.shape[1] <= CHEAP
    if problem.net.loss.concordance == 0 and n * min(n, p) * p <= CHEAP:
        return "closed_form", "least squares of a size that is solved at once"
    if small:
        return "newton", f"{p} parameters and {n} rows: the whole Hessian costs little"
    if problem.net.loss.couples_outputs and not sample.is_tall(problem):
        return "newton_cg", f"{p} parameters of coupled outputs"
    return "lbfgs", f"{p} parameters and {n} rows: the whole Hessian would cost more than it saves"


# The whole Hessian is worth its cost up to so many parameters, and so many products of numbers.
FEW, CHEAP = 100, 2e8


def convex(net: Network) -> bool:
    """Is the cost of the network convex in its parameters?"""
    return len(net.sizes) == 2 and net.loss.concordance < np.inf


def check_arguments(
    net: Network, penalty: Penalty | None, solver: str, tol: float, dtype: DTypeLike | None, lanes: bool = False
) -> None:
    """Refuse what no fit of the network can do."""
    if not isinstance(net, Network):
        raise TypeError(f"net must be a Network, such as lr_nn.logistic_regression(d); got {net!r}")
    check_penalty(penalty, lanes)
    sparse = penalty is not None and bool(np.any(np.asarray(penalty.l1) > 0))
    if not net.loss.smooth or (sparse and not convex(net)):
        raise ValueError(
            f"fit takes smooth costs, and an l1 penalty on convex ones; use lr_nn.train for {net.loss.name}"
        )
    known = ("auto", *(run.SOLVERS if convex(net) else run.DEEP))
    if solver not in known:
        raise ValueError(f"solver must be one of {', '.join(known)} for this network; got {solver!r}")
    if sparse and solver not in ("auto", "proximal"):
        raise ValueError(f"an l1 penalty needs solver='proximal'; got {solver!r}")
    if solver == "proximal" and not sparse:
        raise ValueError("solver='proximal' is for an l1 penalty; there is none")
    if solver == "closed_form" and net.loss.concordance != 0:
        raise ValueError(f"closed_form is for the squared error; got a {net.loss.name} loss")
    if dtype is not None and jnp.dtype(dtype) not in (jnp.float32, jnp.float64):
        raise TypeError(f"dtype must be float32 or float64; got {jnp.dtype(dtype)}")
    if not 0 < tol < 1:
        raise ValueError(f"tol must be between 0 and 1, a fraction of the cost of a constant model; got {tol}")


def _stationary(
    net: Network,
    batch: Batch,
    penalty: Penalty,
    start: Params | None,
    tol: float,
    max_steps: int,
    solver: str,
    dtype: DTypeLike | None,
) -> Solution:
    """A fit without convexity."""
    work = jnp.dtype(dtype or jnp.float64)
    params = init(net, jax.random.key(0), work) if start is None else start
    check_params(net, params)
    params = jax.tree.map(lambda a: jnp.asarray(a, work), params)
    problem = Deep(admit_batch(net, params, batch), Penalty(jnp.zeros((), work), jnp.asarray(penalty.l2, work)), net)
    theta, unravel = ravel_pytree(params)
    name = "lbfgs" if solver == "auto" else solver
    ceiling = tol**0.5 * abs(float(run.at(problem, theta).cost))
    # The step after the bound is met lowers the cost, and may lengthen the gradient: leave it room.
    found = run.stationary(problem, theta, ceiling / 10, max_steps, solver=name)
    slope = float(jnp.abs(found.point.gradient).max())
    status, told = Status.converged, "a stationary point; there is no bound on J - J*, and other starts may end lower"
    if not np.isfinite(float(found.point.cost)):
        status, told = Status.non_finite, "the cost is not finite: look for huge features or a start too far out"
    elif slope > ceiling:
        status, told = (
            Status.max_steps,
            f"an entry of the gradient, {slope:.1e}, is above {ceiling:.1e}: allow more steps",
        )
    return Solution(
        params=jax.tree.map(np.asarray, unravel(found.point.theta)),
        status=status,
        steps=int(found.steps),
        cost=float(found.point.cost),
        gradient_norm=slope,
        certificate=float("inf"),
        penalty=penalty,
        solver=name,
        message=f"{name}: {told}",
    )


def _started(problem: OneLayer, start: Params) -> jax.Array:
    if isinstance(start, tuple) and all(isinstance(layer, Layer) for layer in start):  # of lists, too
        start = tuple(Layer(*map(_leaf, ("start.w", "start.b"), layer)) for layer in start)
    check_params(problem.net, start)
    theta = problem.join(jax.tree.map(lambda a: jnp.asarray(a, problem.x.dtype), start[0]))
    return theta if float(problem.l1) > 0 else problem.centred(theta)


def _leaf(name: str, leaf: ArrayLike | None) -> Any:
    if leaf is None:
        return None
    leaf = check.numeric(name, leaf)
    check.finite(name, leaf)
    return leaf


def _solution(
    found: run.Found, penalty: Penalty, name: str, why: str, ceiling: float, dtype: np.dtype, most: int
) -> Solution:
    problem, point = found.objective, found.point
    unpenalised = float(problem.l1) == 0 == float(problem.l2)
    direction = None
    if not np.isfinite(found.cost):
        status, advice = Status.non_finite, "the cost is not finite: look for huge features, offsets or counts"
    elif not found.bound <= ceiling:
        direction = _recession(problem, unpenalised)
        what = "allow more steps" if found.steps >= most else "rounding allows no more, raise tol"
        status, advice = Status.max_steps, f"the bound {found.bound:.1e} is above {ceiling:.1e}: {what}"
        if found.flat and unpenalised:
            status = Status.rank_deficient
            advice = f"{found.flat} directions change predictions too little to be told: drop columns, or add a penalty"
        elif np.isinf(found.bound) and unpenalised and point.theta.size > WHOLE:
            advice = "without a penalty there is no bound on what is missing for so many parameters"
        if direction is not None:
            status, advice = Status.separated, f"the likelihood has no maximum: it grows along {_named(direction)}"
    elif found.flat and unpenalised:
        status = Status.rank_deficient
        advice = f"{found.flat} directions change no prediction: drop columns, or add a penalty"
    else:
        status, advice = Status.converged, ""
    return Solution(
        params=_host(problem, point.theta, dtype),
        status=status,
        steps=found.steps,
        cost=found.cost,
        gradient_norm=found.gradient_norm,
        certificate=found.bound,
        penalty=penalty,
        solver=name,
        message=f"{name}: {why}" + (f"; {advice}" if advice else ""),
        direction=None if direction is None else _host(problem, direction.reshape(-1), dtype),
    )


def _recession(problem: OneLayer, unpenalised: bool) -> np.ndarray | None:
    """A direction (q, k) of the coefficients without a penalty along which no example grows less likely."""
    counted = np.asarray(problem.share) > 0
    inputs, y = np.asarray(problem.inputs())[counted], np.asarray(problem.y)[counted]
    free = np.ones(inputs.shape[1], bool)
    if not unpenalised:
        free[: problem.net.sizes[0]] = False
    if not free.any():
        return None
    found = separation.recession_direction(problem.net.loss, inputs[:, free], y)
    if found is None:
        return None
    direction = np.zeros((len(free), y.shape[1]))
    direction[free] = found
    return direction


def _named(direction: np.ndarray) -> str:
    """The coefficients that a direction moves."""
    moved = np.argwhere(np.abs(direction) > 1e-6 * np.abs(direction).max())[:10]
    return ", ".join(f"coefficient {row} of output {column}" for row, column in moved)


def _host(problem: OneLayer, theta: ArrayLike, dtype: np.dtype) -> Params:
    """θ as parameters, in NumPy."""
    return (problem.split(np.asarray(theta, dtype)),)
