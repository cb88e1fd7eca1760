"""The influence functions: derivatives by the weight of an example, deletion, self-influence, TracIn."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lr_nn import check
from lr_nn.backward import sweep
from lr_nn.curvature.blocks import homogeneous, matmul
from lr_nn.influence.systems import Curvature, Problem, admit_rows, factored, kronecker_axes, make_problem, make_solver
from lr_nn.network import Network, check_network, check_params
from lr_nn.penalties import Penalty
from lr_nn.per_example import gram
from lr_nn.tangents import inner_products
from lr_nn.trees import cast, compiled, dtypes_of, on_automatic_mesh, widened
from lr_nn.types import Backprop, Batch, Layer, Params

# Gradients that are solved for at once: each takes the memory of the parameters.
AT_ONCE = 16


def upweighting(
    net: Network,
    params: Params,
    train: Batch,
    test: Batch,
    *,
    damping: ArrayLike,
    curvature: Curvature = "kfac",
    penalty: Penalty | None = None,
    tol: ArrayLike | None = None,
    max_steps: int = 1000,
) -> jax.Array:
    """∂ℓ_t/∂s_i = -g_tᵀ (H + λI)⁻¹ g_i / Σ_j s_j, (n_test, n_train): the effect of up-weighting i on the loss of t.

    A solve for each test example, then ⟨u_t, g_i⟩ from the activations and deltas of the training examples.

    damping: λ, positive for "kfac" and "ekfac", else not negative. Raises ValueError or TypeError for data that do not
    fit, an unknown curvature, a damping out of range or an L1 penalty, and, for "kfac" and "ekfac", strengths of single
    coefficients.

    >>> import jax.numpy as jnp, lr_nn
    >>> from lr_nn import influence
    >>> net = lr_nn.Network((1, 1), (), lr_nn.losses.squared_error, bias=False)
    >>> batch = lr_nn.Batch(x=jnp.array([[1.0], [-1.0]]), y=jnp.array([1.0, 1.0]))
    >>> params = (lr_nn.Layer(jnp.array([[0.0]]), None),)  # H = 1, g = (-1, 1)
    >>> influence.upweighting(net, params, batch, batch, damping=1.0).round(4).tolist()
    [[-0.25, 0.25], [0.25, -0.25]]
    """
    problem = make_problem(net, params, train, curvature, damping, penalty, tol)
    test = admit_rows(net, params, test)
    return _upweighting(net, problem, test, curvature, check.positive_integer("max_steps", max_steps))


def deletion(
    net: Network,
    params: Params,
    train: Batch,
    test: Batch,
    *,
    damping: ArrayLike,
    curvature: Curvature = "kfac",
    penalty: Penalty | None = None,
    tol: ArrayLike | None = None,
    max_steps: int = 1000,
) -> jax.Array:
    """The predicted change of ℓ_t when row i is left out and the model fitted again, (n_test, n_train).

        g_tᵀ (H + λI)⁻¹ (g_i - ḡ) s_i / (n - s_i),     ḡ = Σ_j s_j g_j / n,  n = Σ_j s_j

    One Newton step with the curvature H of all rows on the cost of the others, which divides by n - s_i and keeps the
    strength of its penalty, as `lr_nn.fit` without the row would; hence ḡ, which is minus the gradient of the penalty
    at a minimum and zero without one. Row i is left out with its whole weight. NaN for a row that has all the weight.
    Arguments and errors as for `upweighting`.
    """
    problem = make_problem(net, params, train, curvature, damping, penalty, tol)
    test = admit_rows(net, params, test)
    return _deletion(net, problem, test, curvature, check.positive_integer("max_steps", max_steps))


def parameter_change(
    net: Network,
    params: Params,
    train: Batch,
    examples: Batch,
    *,
    damping: ArrayLike,
    curvature: Curvature = "kfac",
    penalty: Penalty | None = None,
    tol: ArrayLike | None = None,
    max_steps: int = 1000,
) -> Params:
    """∂θ/∂s_i = -(H + λI)⁻¹ g_i / Σ_j s_j for every row of `examples` (m, d): like the parameters with a leading m.

    H and Σ_j s_j are of `train`; `examples` may be among its rows or not. Memory m × parameters. Other arguments and
    errors as for `upweighting`.
    """
    problem = make_problem(net, params, train, curvature, damping, penalty, tol)
    examples = admit_rows(net, params, examples)
    return _parameter_change(net, problem, examples, curvature, check.positive_integer("max_steps", max_steps))


def self_influence(
    net: Network,
    params: Params,
    train: Batch,
    *,
    damping: ArrayLike,
    curvature: Curvature = "kfac",
    penalty: Penalty | None = None,
    tol: ArrayLike | None = None,
    max_steps: int = 1000,
) -> jax.Array:
    """g_iᵀ (H + λI)⁻¹ g_i of every training example, (n,): not negative, and not divided by Σ_j s_j.

    Large for examples that the model must memorise: Feldman & Zhang (2020). With "kfac" and "ekfac" all of them take
    a few passes, by their coordinates in the eigenbasis, here of "kfac" without a penalty:

        Σ_l Σ_jk (U_Aᵀ ã_i)_j² (U_Gᵀ δ_i)_k² / (α_j γ_k + λ),

    where nothing has size n × parameters; else a system by conjugate gradients for each example. Arguments and errors
    as for `upweighting`.
    """
    problem = make_problem(net, params, train, curvature, damping, penalty, tol)
    return _self_influence(net, problem, curvature, check.positive_integer("max_steps", max_steps))


def tracin(net: Network, checkpoints: Iterable[Params], step_sizes: ArrayLike, train: Batch, test: Batch) -> jax.Array:
    """TracIn, Σ_c step_c ⟨g_t, g_i⟩ at the parameters of checkpoint c, (n_test, n_train).

    By how much steps of gradient descent on example i lowered the loss of t, to first order: positive for proponents,
    unlike `upweighting`. Pruthi et al. (2020), eq. 1 of TracInCP. No curvature, no minimum, no n × parameters: a pass
    over both batches and a Gram matrix a checkpoint.

    checkpoints: parameters along the training, at least one. step_sizes: (c,), the step size at each of them.
    Raises ValueError or TypeError where they differ in number, and for data or parameters that do not fit.
    """
    check_network(net)
    points, steps = list(checkpoints), check.numeric("step_sizes", step_sizes)
    if not points or steps.shape != (len(points),):
        raise ValueError(
            f"step_sizes must have one number for each of {len(points)} checkpoints; got shape {steps.shape}"
        )
    for number, params in enumerate(points):
        check_params(net, params, f"checkpoints[{number}]")
    total: Any = None
    for params, step in zip(points, np.asarray(steps)):
        batches = [admit_rows(net, params, batch) for batch in (train, test)]
        total = _add_gram(net, on_automatic_mesh(params), *batches, check.scalar("a step size", step), total)
    return total


@partial(compiled, static_argnames=("curvature", "max_steps"))
def _upweighting(net: Network, problem: Problem, test: Batch, curvature: Curvature, max_steps: int) -> jax.Array:
    products = _products(net, problem, test, curvature, max_steps)
    return -products / _weights(problem.train, products.dtype).sum()


@partial(compiled, static_argnames=("curvature", "max_steps"))
def _deletion(net: Network, problem: Problem, test: Batch, curvature: Curvature, max_steps: int) -> jax.Array:
    products = _products(net, problem, test, curvature, max_steps)
    weight = _weights(problem.train, products.dtype)
    n = weight.sum()
    centred = products - matmul(products, weight[:, None]) / n
    return centred * (weight / (n - weight))[None]


@partial(compiled, static_argnames=("curvature", "max_steps"))
def _parameter_change(net: Network, problem: Problem, examples: Batch, curvature: Curvature, max_steps: int) -> Params:
    solver = make_solver(net, problem, curvature, max_steps)
    n = _weights(problem.train, jnp.result_type(float)).sum()

    def change(gradient: Params) -> Params:
        return jax.tree.map(lambda leaf: -leaf / n.astype(leaf.dtype), solver(gradient))

    return cast(_map_gradients(change, sweep(net, problem.params, examples)), dtypes_of(problem.params))


@partial(compiled, static_argnames=("curvature", "max_steps"))
def _self_influence(net: Network, problem: Problem, curvature: Curvature, max_steps: int) -> jax.Array:
    bp = widened(sweep(net, problem.params, problem.train))
    if factored(curvature):
        terms = []
        for axes, a, delta in zip(kronecker_axes(net, problem, curvature), bp.activations, bp.deltas):
            along_a = jnp.square(matmul(homogeneous(a, bp.bias), axes.a))
            along_g = jnp.square(matmul(delta, axes.g))
            terms.append((matmul(along_a, axes.scale) * along_g).sum(axis=1))
        return jnp.stack(terms).sum(axis=0)
    solver = make_solver(net, problem, curvature, max_steps)

    def quadratic(gradient: Params) -> jax.Array:
        pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(solver(gradient)))
        return jnp.stack([(g * u.astype(g.dtype)).sum() for g, u in pairs]).sum()

    return _map_gradients(quadratic, bp)


@compiled
def _add_gram(
    net: Network, params: Params, train: Batch, test: Batch, step: jax.Array, total: jax.Array | None
) -> jax.Array:
    products = gram(sweep(net, params, test), sweep(net, params, train))
    scaled = step.astype(products.dtype) * products
    return scaled if total is None else total + scaled


def _products(net: Network, problem: Problem, test: Batch, curvature: Curvature, max_steps: int) -> jax.Array:
    """g_tᵀ (H + λI)⁻¹ g_i, (n_test, n_train)."""
    solver = make_solver(net, problem, curvature, max_steps)
    bp = sweep(net, problem.params, problem.train)
    return _map_gradients(
        lambda gradient: inner_products(bp.activations, bp.deltas, solver(gradient)), sweep(net, problem.params, test)
    )


def _map_gradients(function: Callable[[Params], Any], bp: Backprop) -> Any:
    """`function(g_i)` of every example, with a leading axis n, for a few gradients at a time."""

    def of_row(row: tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]) -> Any:
        return function(tuple(Layer(jnp.outer(a, delta), delta if bp.bias else None) for a, delta in zip(*row)))

    wide = widened(bp)
    return jax.lax.map(of_row, (wide.activations, wide.deltas), batch_size=AT_ONCE)


def _weights(batch: Batch, dtype: Any) -> jax.Array:
    return jnp.ones(len(batch.x), dtype) if batch.weight is None else batch.weight.astype(dtype)
