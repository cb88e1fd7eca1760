"""One model, fitted to a certified optimum."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from threading import Lock
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from threadpoolctl import ThreadpoolController

from lr_nn import check, losses
from lr_nn.data import Rows
from lr_nn.network import Network, check_params, n_parameters
from lr_nn.penalties import Penalty, check_penalty
from lr_nn.solvers import out_of_core, passes, run, sample, verdict
from lr_nn.solvers.one_layer import OneLayer
from lr_nn.solvers.problem import admit
from lr_nn.solvers.stationary_points import stationary
from lr_nn.trees import on_automatic_mesh
from lr_nn.types import Batch, Layer, Params, Solution, Status

__all__ = ["check_arguments", "choose", "fit", "has_certificate", "one_thread", "solved", "started"]


def fit(
    net: Network,
    data: Batch | Rows,
    *,
    penalty: Penalty | None = None,
    start: Params | None = None,
    tol: float = 1e-12,
    max_steps: int = 100,
    solver: str = "auto",
    dtype: DTypeLike | None = None,
    memory: int = 2**28,
) -> Solution:
    """argmin J = Σ s_i ℓ_i / Σ s_i + penalty, with a bound on J - J*.

    net: a one-layer network with a squared-error, bernoulli, categorical or poisson loss; for others see below.
    data: Batch(x, y, weight, offset) with x (n, d), y as the loss asks, weight (n,), offset (n,) or (n, k); or `Rows`
    of files. start: the first parameters. solver: auto, newton, newton_cg, lbfgs, closed_form (least
    squares) or proximal (an L1 penalty). The work is done in float64 whatever JAX is set to, or in `dtype`; the
    certificate always in float64.

    Converged means certificate ≤ tol · J₀ for every solver alike, J₀ the cost of the best constant model (that ignores
    an offset), above the smallest that the targets allow: zero but for poisson, whose cost leaves out log y!. The last
    step of a smooth fit is a full one from where that was met already, by the certificate or by a decrement that the
    step itself showed to be the gap. Of softmax regression without a penalty the solution whose coefficients sum to
    zero over classes is returned.

    Rows of a file (`lr_nn.Rows`) are read in blocks, a dozen times or less, in a working set of `memory` bytes; if all
    of them have room there, they are read once. Solvers: auto, newton (the Hessian of every pass) or lbfgs (that of a
    sample); no l1 penalty.

    The cost of a deep network is not convex, and another loss promises too little for a bound. Such a fit goes from
    `start` (else `init` with a fixed key) to a stationary point, by lbfgs, or by newton_cg: Newton by conjugate
    gradients on the Gauss-Newton matrix. It is converged where no entry of ∇J is above √tol · J at the start; its
    certificate is ∞, and the message says so.

    Numerical failure is a `status`: max_steps, separated (the likelihood has no maximum; `direction` and the message
    name the coefficients concerned), rank_deficient (an optimum, but not the only one), non_finite. Raises ValueError
    or TypeError for data that do not fit the network, and TypeError under `jit`.

    >>> import lr_nn, numpy as np
    >>> x, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 1, 0, 1])
    >>> solution = lr_nn.fit(lr_nn.logistic_regression(1), lr_nn.Batch(x, y))
    >>> print(solution.status, solution.coefficients.round(6).ravel())
    converged [ 0.908184 -1.362276]
    """
    check.on_host("fit", (data, start, penalty, tol), "lr_nn.solvers.solve")
    check_arguments(net, penalty, solver, tol, dtype)
    max_steps = check.positive_integer("max_steps", max_steps)
    penalty = Penalty() if penalty is None else penalty
    with jax.enable_x64(True), one_thread():
        if isinstance(data, Rows):
            return _fit_rows(net, data, penalty, start, tol, max_steps, solver, dtype, memory)
        if not isinstance(data, Batch):
            raise TypeError(f"data must be a Batch(x, y) or Rows; got {type(data).__name__}")
        batch: Batch = on_automatic_mesh(data)
        if not has_certificate(net):
            return stationary(net, batch, penalty, start, tol, max_steps, solver, dtype)
        problem, constant, excess = admit(net, batch, penalty, np.dtype(dtype or np.float64))
        theta = constant if start is None else started(problem, start)
        solution = solved(problem, theta, penalty, tol * excess, max_steps, solver)
        if solution.status == Status.non_finite:
            check.finite("x", problem.x)
        return solution


def _fit_rows(
    net: Network,
    rows: Rows,
    penalty: Penalty,
    start: Params | None,
    tol: float,
    max_steps: int,
    solver: str,
    dtype: DTypeLike | None,
    memory: int,
) -> Solution:
    """A fit of rows, in memory where they fit there."""
    memory = check.positive_integer("memory", memory)
    if len(rows.features) != net.sizes[0]:
        raise ValueError(f"the network takes {net.sizes[0]} features; the rows have {len(rows.features)}")
    if not has_certificate(net):
        raise ValueError("fit of rows is for one layer and a convex cost; use lr_nn.train for deep networks")
    if out_of_core.fits(rows, net, memory):
        batch = rows.read(0, len(rows))
        passes.check_targets(batch)
        return fit(net, batch, penalty=penalty, start=start, tol=tol, max_steps=max_steps, solver=solver, dtype=dtype)
    if solver not in out_of_core.WORN or bool(np.any(np.asarray(penalty.l1) > 0)):
        raise ValueError(
            f"rows that are larger than memory={memory} are fitted by solver='auto', 'newton' or 'lbfgs' without an "
            f"l1 penalty; got {solver!r} and l1={float(penalty.l1):g}: allow more memory, or choose another"
        )
    work = np.dtype(dtype or np.float64)
    begun = None if start is None else _admitted(net, start)
    return out_of_core.solve(rows, net, penalty, begun, tol, max_steps, solver, work, memory)


def solved(
    problem: OneLayer, theta: jax.Array, penalty: Penalty, ceiling: float, max_steps: int, solver: str
) -> Solution:
    """An admitted problem, from θ to a bound on J - J* within `ceiling`: the part of `fit` that is the same for all."""
    name, why = choose(problem) if solver == "auto" else (solver, "asked for")
    if name == "closed_form":
        check.finite("x", problem.x)
    found = run.SOLVERS[name](problem, theta, ceiling, max_steps)
    return verdict.solution(
        found, penalty, name, why, ceiling, problem.x.dtype, max_steps, partial(verdict.recession, found.objective)
    )


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
    if least_squares(problem.net) and n * min(n, p) * p <= CHEAP:
        return "closed_form", "least squares of a size that is solved at once"
    if small:
        return "newton", f"{p} parameters and {n} rows: the whole Hessian costs little"
    if problem.net.loss.couples_outputs and not sample.is_tall(problem):
        return "newton_cg", f"{p} parameters of coupled outputs"
    return "lbfgs", f"{p} parameters and {n} rows: the whole Hessian would cost more than it saves"


# The whole Hessian is worth its cost up to so many parameters, and so many products of numbers.
FEW, CHEAP = 100, 2e8


def has_certificate(net: Network) -> bool:
    """True if a fit ends with a bound on J - J*: one layer, and a loss that promises what the bound rests on.

    The solvers of convex costs take the Fisher for the Hessian, bound its change by the concordance, begin at the best
    constant model, and centre the coefficients of outputs that are coupled.
    """
    loss = net.loss
    promised = loss.canonical and loss.concordance < np.inf and (loss.shift_invariant or not loss.couples_outputs)
    return (
        len(net.sizes) == 2
        and promised
        and all(map(loss.states, ("constant", "recession", "fisher_multiply", "fisher_factor")))
    )


def least_squares(net: Network) -> bool:
    """True for the squared error, whose optimum has a closed form."""
    return net.loss == losses.squared_error


def check_arguments(
    net: Network, penalty: Penalty | None, solver: str, tol: float, dtype: DTypeLike | None, lanes: bool = False
) -> None:
    """Refuse what no fit of the network can do."""
    if not isinstance(net, Network):
        raise TypeError(f"net must be a Network, such as lr_nn.logistic_regression(d); got {net!r}")
    check_penalty(penalty, lanes=lanes)
    sparse = penalty is not None and bool(np.any(np.asarray(penalty.l1) > 0))
    if not net.loss.smooth or (sparse and not has_certificate(net)):
        raise ValueError(
            f"fit takes smooth costs, and an l1 penalty on convex ones; use lr_nn.train for {net.loss.name}"
        )
    known = ("auto", *(run.SOLVERS if has_certificate(net) else run.DEEP))
    if solver not in known:
        raise ValueError(f"solver must be one of {', '.join(known)} for this network; got {solver!r}")
    if sparse and solver not in ("auto", "proximal"):
        raise ValueError(f"an l1 penalty needs solver='proximal'; got {solver!r}")
    if solver == "proximal" and not sparse:
        raise ValueError("solver='proximal' is for an l1 penalty; there is none")
    if solver == "closed_form" and not least_squares(net):
        raise ValueError(f"closed_form is for the squared error; got a {net.loss.name} loss")
    if dtype is not None and jnp.dtype(dtype) not in (jnp.float32, jnp.float64):
        raise TypeError(f"dtype must be float32 or float64; got {jnp.dtype(dtype)}")
    if not 0 < tol < 1:
        raise ValueError(f"tol must be between 0 and 1, a fraction of the cost of a constant model; got {tol}")


def started(problem: OneLayer, start: Params) -> jax.Array:
    """Parameters to begin with, as θ."""
    (layer,) = _admitted(problem.net, start)
    theta = problem.join(jax.tree.map(lambda a: jnp.asarray(a, problem.x.dtype), layer))
    return theta if float(problem.l1) > 0 else problem.centred(theta)


def _admitted(net: Network, start: Params) -> Params:
    if isinstance(start, tuple) and all(isinstance(layer, Layer) for layer in start):  # of lists, too
        start = tuple(Layer(*map(_leaf, ("start.w", "start.b"), layer)) for layer in start)
    check_params(net, start)
    return start


def _leaf(name: str, leaf: ArrayLike | None) -> Any:
    if leaf is None:
        return None
    leaf = check.numeric(name, leaf)
    check.finite(name, leaf)
    return leaf
