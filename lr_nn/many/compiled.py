"""A certified fit of a small one-layer network as one traceable function, for use inside `jit`, `vmap` and `scan`.

Coefficients are θ (k, q): the weights, and in the last column the bias c = b + mean·w of centred features, so that
features far from zero do not spoil the condition of the Hessian. Newton's method, proximal where there is an l1
penalty, takes the exact Hessian at every step.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from lr_nn import check
from lr_nn.admission import admit_rows, check_batch
from lr_nn.fitting.promises import has_certificate
from lr_nn.many.local_model import (
    Factor,
    Problem,
    bias_gap,
    bound_by_hessian,
    bound_by_penalty,
    centred,
    cost_at,
    eta_at,
    factored,
    gradient_at,
    hessian_at,
    lasso_target,
    make_problem,
    newton_step,
    params_at,
)
from lr_nn.network import Network, check_network
from lr_nn.penalties import Penalty, check_penalty
from lr_nn.trees import accumulator, compiled, on_automatic_mesh
from lr_nn.types import Batch, Params, Status

__all__ = ["End", "Solved", "admitted", "run", "solve"]

# A best constant model that is infinite, because a target never varies, is replaced by one this far out.
FARTHEST = 30.0
# The Armijo condition, the factor of a shorter step, and the step below which the search gives up.
ARMIJO, SHORTER, SHORTEST = 1e-4, 0.25, 1e-9
# A step moves η by at most this many times the distance 1/c on which the Hessian stays about constant.
TRUSTED = 100.0


class Solved(NamedTuple):
    """The parameters, a `Status` as int8, the Newton steps tried (int32), and a bound on J - J*, ∞ where none."""

    params: Params
    status: jax.Array
    steps: jax.Array
    certificate: jax.Array


class End(NamedTuple):
    """What `solve` returns, J at its parameters, and the largest entry of the subgradient there."""

    solved: Solved
    cost: jax.Array
    gradient_norm: jax.Array


class State(NamedTuple):
    """The best θ so far and the next trial's `target`, (2, k, q), and `numbers` (7,), together for few kernels:

    J less `low`, the decrease predicted at the target, the part of the way to it that is tried next, the bound on
    J - J*, the largest entry of the subgradient, J₀, and the number of trials.
    """

    points: jax.Array
    numbers: jax.Array


def solve(
    net: Network, batch: Batch, penalty: Penalty | None = None, *, tol: ArrayLike | None = None, max_steps: int = 100
) -> Solved:
    """Fit a one-layer network to a certified optimum of J = Σ s_i ℓ_i / Σ s_i + l1 Σ|w| + (l2/2) Σ w².

    Traceable: for small fits under `jit`, `vmap`, `scan`. On the host, and for large data, `lr_nn.fit` does more.
    For thousands of fits on a CPU use `jax.lax.map`, not `vmap`: it takes half the time, and with two threads XLA (JAX
    0.10.2) hangs in a `vmap` of 2,000 fits of 500 by 20. With NPROC=4 in the environment it does not.

    net: one layer with a canonical loss of known concordance. batch: x (n, d), y, weight, offset, arrays or tracers;
    rows of weight zero count for nothing, whatever their numbers. penalty: scalar strengths, which may be traced; an
    l1 of None or a concrete zero compiles a smaller program. tol: `converged` means certificate ≤ tol · J₀, J₀ the
    cost of the best constant model given the offset, above the least that the targets allow. It is 1e-12 unless
    stated, and 1e-6 in float32. All is computed in the dtype of x, float32 or float64 (float32 for half precision).

    Returns the parameters, w (d, k) and b (k,); a status; the steps; and the certificate, J - J* ≤ certificate up to
    the precision, ∞ where there is none. The status is `converged`, `non_finite` where the cost has no finite value or
    a traced strength is negative, else `max_steps`: also for data that are separated or whose columns depend on one
    another, which `lr_nn.fit` tells apart. Softmax regression without a penalty: the optimum whose coefficients sum to
    zero over classes.

    Raises ValueError or TypeError for a network without a certificate, or data that do not fit the network.

    >>> import jax, jax.numpy as jnp, lr_nn
    >>> net = lr_nn.logistic_regression(1)
    >>> batch = lr_nn.Batch(x=jnp.array([[-1.0], [0.0], [1.0], [2.0]]), y=jnp.array([0.0, 1.0, 0.0, 1.0]))
    >>> fit = jax.jit(jax.vmap(lambda l2: lr_nn.many.solve(net, batch, lr_nn.penalties.l2(l2))))
    >>> found = fit(jnp.array([0.1, 1.0]))
    >>> found.status.tolist(), found.params[0].w.shape, bool((found.certificate < 1e-6).all())
    ([0, 0], (2, 1, 1), True)
    """
    return _solve(net, *admitted("many.solve", net, batch, penalty, tol, max_steps)).solved


def admitted(
    name: str, net: Network, batch: Batch, penalty: Penalty | None, tol: ArrayLike | None, max_steps: int
) -> tuple[Batch, jax.Array | None, jax.Array, jax.Array, int]:
    """The arguments of `run` after the network, checked; messages call the function `name`."""
    check_network(net)
    if not has_certificate(net):
        raise ValueError(
            f"{name} needs one layer and a canonical loss that states its concordance, constant, recession and "
            f"Fisher; got sizes {net.sizes} with the loss {net.loss.name}: use lr_nn.fit or lr_nn.train"
        )
    check_penalty(penalty)
    check_batch(batch)
    batch = on_automatic_mesh(batch)
    max_steps = check.positive_integer("max_steps", max_steps)
    x = check.table("x", batch.x, net.sizes[0])
    dtype = jax.dtypes.canonicalize_dtype(x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else float)
    dtype = accumulator(dtype)
    batch = admit_rows(net, batch._replace(x=x), dtype)._replace(x=check.cast(x, dtype))
    tol = check.scalar("tol", _default_tol(dtype) if tol is None else tol).astype(dtype)
    check.require("tol", tol, lambda tol: (tol > 0) & (tol < 1), "between 0 and 1, a fraction of J₀")
    l1, l2 = Penalty() if penalty is None else penalty
    sparse = not check.is_concrete(l1) or bool(np.asarray(l1) > 0)
    strengths = [check.cast(check.numeric("strength", each), dtype) for each in (l1, l2)]
    return batch, strengths[0] if sparse else None, strengths[1], tol, max_steps


def _default_tol(dtype: np.dtype) -> float:
    return 1e-6 if dtype.itemsize == 4 else 1e-12


def run(net: Network, batch: Batch, l1: jax.Array | None, l2: jax.Array, tol: jax.Array, max_steps: jax.Array) -> End:
    """`solve` of admitted arguments, with the cost and the largest entry of the subgradient."""
    problem = make_problem(net, batch, None if l1 is None else _strength(l1), _strength(l2))
    start, bounded = _constant(problem)
    state = _newton(problem, start, tol, max_steps)
    cost, _, _, bound, largest, excess, steps = state.numbers
    status = jnp.where((bound <= tol * excess) & bounded, int(Status.converged), int(Status.max_steps))
    status = jnp.where(jnp.isfinite(cost), status, int(Status.non_finite)).astype(jnp.int8)
    solved = Solved(params_at(problem, state.points[0]), status, steps.astype(jnp.int32), bound)
    return End(solved, cost + problem.low, largest)


_solve = compiled(run)


def _strength(strength: jax.Array) -> jax.Array:
    """A strength, NaN where it is negative: no bound on J - J* holds there."""
    allowed = (strength >= 0).astype(strength.dtype)
    return strength * (allowed / allowed)


def _constant(problem: Problem) -> tuple[jax.Array, jax.Array]:
    """The best constant model (k, q), in closed form or, with an offset, by Newton's method; False if it is infinite.

    An infinite one is replaced by a finite one. J then has no minimum, as the bias is free.
    """
    y, loss, share, offset, q = problem.y, problem.loss, problem.share, problem.offset, problem.x.shape[1]
    if not problem.bias:
        return jnp.zeros((y.shape[1], q), y.dtype), jnp.array(True)
    least, most = jnp.where(share > 0, y, y.max()).min(axis=0), jnp.where(share > 0, y, y.min()).max(axis=0)
    bias = loss.constant(jnp.clip((share * y).sum(axis=0), least, most))  # rounding may pass them
    bounded = jnp.isfinite(bias).all()
    bias = jnp.where(jnp.isfinite(bias), bias, jnp.clip(bias, -FARTHEST, FARTHEST))[:, None]
    bias = bias - bias.mean() if loss.couples_outputs else bias
    if offset is not None:
        last = {name: getattr(problem, name)[-1:] for name in ("penalised", "mean", "extent")}
        alone = problem._replace(x=problem.x[:, -1:], l1=None, **last)
        bias = bias - (share * offset).sum(axis=0)[:, None]
        bias = _newton(alone, bias, jnp.zeros((), y.dtype), jnp.asarray(50)).points[0]
    return bias * (1 - problem.penalised)[None], bounded


def _achievable(problem: Problem, excess: jax.Array) -> jax.Array:
    """J₀, or, where a constant model is perfect, what the rounding of η allows."""
    eps, squares = float(jnp.finfo(excess.dtype).eps), jnp.square(problem.y).max()
    reach = 1.0 if problem.offset is None else 1 + jnp.abs(problem.offset).max()
    rounding = 100 / _default_tol(excess.dtype) * eps**2 * (1 + squares) * reach**2
    return jnp.where(excess <= 4 * eps * (squares + jnp.abs(problem.low)), rounding, excess)


def _newton(problem: Problem, start: jax.Array, tol: jax.Array, max_steps: jax.Array) -> State:
    """Steps until the bound is at most tol · J₀, or rounding or max_steps ends them.

    One evaluation a trial, that of the start included, so that its program is compiled once.
    """

    def trial(state: State) -> State:
        theta, target = state.points
        cost, slope, length, _, _, excess, steps = state.numbers
        along = target - theta
        theta = jnp.where(length < 1, theta + length * along, target)
        points, numbers, subgradient = _at(problem, theta)
        new = numbers[0]
        slack = 16 * float(jnp.finfo(theta.dtype).eps) * (1 + jnp.abs(new) + jnp.abs(problem.low))
        lower = new <= cost + ARMIJO * length * slope + slack
        # The barrier keeps XLA from a copy of this arithmetic in the program of everything that is selected.
        gains = lax.optimization_barrier(jnp.isfinite(new) & lower & ((along * subgradient).sum() <= -slope))
        excess = jnp.where(steps < 0, _achievable(problem, new), excess)
        numbers = jnp.where(gains, numbers, state.numbers * np.array([1, 1, SHORTER, 1, 1, 1, 1], theta.dtype))
        return State(jnp.where(gains, points, state.points), jnp.append(numbers[:5], jnp.stack([excess, steps + 1])))

    def goes_on(state: State) -> jax.Array:
        _, _, length, bound, _, excess, steps = state.numbers
        return (bound > tol * excess) & (length > SHORTEST) & (steps < max_steps)

    numbers = np.array([np.inf, 0, 1, np.inf, 0, 0, -1], start.dtype)
    return lax.while_loop(goes_on, trial, State(jnp.stack([start, start]), jnp.asarray(numbers)))


def _at(problem: Problem, theta: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The state at θ, of which J₀ and steps are left open, and the smallest subgradient (k, q)."""
    loss, l1, l2, penalised = problem.loss, problem.l1, problem.l2, problem.penalised[None]
    eta = eta_at(problem, theta)
    residual = loss.residual(eta, problem.y)
    gradient = gradient_at(problem, theta, residual)
    cost = cost_at(problem, eta) + l2 / 2 * (penalised * theta * theta).sum()
    subgradient, size = gradient, jnp.zeros((), cost.dtype)
    if l1 is not None:
        thresholds, size = l1 * penalised, (penalised * jnp.abs(theta)).sum()
        at_zero = jnp.sign(gradient) * jnp.maximum(jnp.abs(gradient) - thresholds, 0)
        subgradient = jnp.where(theta == 0, at_zero, gradient + thresholds * jnp.sign(theta))
        cost = cost + l1 * size
    hessian = hessian_at(problem, eta)
    factor = factored(
        hessian, l2, np.tile(problem.penalised, hessian.shape[1] // theta.shape[1]), subgradient, len(eta)
    )
    if l1 is None:
        target = theta + newton_step(factor).reshape(theta.shape)
        slope = -factor.decrement * factor.decrement
    else:
        target = lasso_target(factor, theta, gradient, thresholds)
        along = (gradient + thresholds * jnp.sign(jnp.where(theta == 0, target, theta))) * (target - theta)
        slope = (along + jnp.where(theta * target < 0, 2 * thresholds * jnp.abs(target), 0)).sum()
    target = centred(problem, target)
    moved = loss.concordance * (jnp.abs(target - theta) * problem.extent[None]).sum()
    part = TRUSTED / jnp.maximum(moved, TRUSTED)
    target, slope = jnp.where(part < 1, theta + part * (target - theta), target), part * slope
    noise, rounding = _rounding(problem, theta, residual, factor)
    bound = bound_by_hessian(factor, factor.decrement + rounding, problem.extent, loss.concordance)
    bound = jnp.fmin(bound, _bound_by_penalty(problem, size, cost, jnp.abs(subgradient) + noise, hessian))
    stalled = (jnp.abs(subgradient) <= noise).all() | ((factor.decrement <= rounding) & (factor.slack < 0.5))
    length = jnp.where(stalled, 0, jnp.ones_like(cost))
    numbers = jnp.stack([cost, slope, length, bound, jnp.abs(subgradient).max(), cost, cost])
    return jnp.stack([theta, target]), numbers, subgradient


def _rounding(problem: Problem, theta: jax.Array, residual: jax.Array, factor: Factor) -> tuple[jax.Array, jax.Array]:
    """What the entries of the gradient (k, q), and the decrement, may be wrong by."""
    (n, q), eps = problem.x.shape, float(jnp.finfo(theta.dtype).eps)
    error = n**0.5 * (problem.share * jnp.abs(residual)).sum(axis=0)
    error = error + (n**-0.5 if problem.loss.couples_outputs else 0)  # p - y cancels
    noise = eps * error[:, None] * problem.extent[None]
    root = (1 / factor.scale).reshape(theta.shape)
    of_eta = theta * (root + jnp.abs(problem.mean)[None] * root[:, -1:])
    of_sums = noise * factor.scale.reshape(theta.shape)
    total = eps * (1 + q**0.5) * jnp.sqrt((of_eta * of_eta).sum())
    return noise, total + jnp.sqrt(factor.size * (of_sums * of_sums).sum())


def _bound_by_penalty(
    problem: Problem, size: jax.Array, cost: jax.Array, slope: jax.Array, hessian: jax.Array
) -> jax.Array:
    """The bound of the penalty on the weights, of absolute subgradients `slope` (k, q)."""
    k, q = slope.shape
    if not problem.bias:
        return bound_by_penalty(slope, size, cost, problem.l1, problem.l2)
    coupled = problem.loss.couples_outputs
    curvature = hessian.reshape(k, q, k, q)[:, -1, :, -1] if coupled else hessian[:, -1, -1]
    gap, change = bias_gap(slope[:, -1], curvature, problem.loss.concordance)
    slope = slope[:, :-1] + change[:, None] * problem.extent[None, :-1]
    return gap + bound_by_penalty(slope, size, cost, problem.l1, problem.l2)
