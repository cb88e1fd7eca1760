"""What per-example quantities cost beside one gradient, and beside `jax.vmap(jax.grad)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import lr_nn
from benchmarks import harness, torch_peers
from benchmarks.harness import compare, compiled
from benchmarks.mlp import peer_cost
from lr_nn import Batch, losses, per_example

SHAPES = (((784, 100, 10), 512), ((784, 512, 512, 10), 512), ((5120, 2560, 1280), 32), ((5120, 2560, 1280), 512))
MAX_NORM = 0.5
# Forms that materialise n gradients are left out where they would take more memory than this.
MOST_BYTES = 6e9


def quantities(net: lr_nn.Network) -> dict[str, Callable]:
    """The gradient, and with it each quantity, from one backward pass."""

    def with_pass(function: Callable) -> Callable:
        return lambda params, x, y: function(lr_nn.backprop(net, params, Batch(x, y)))

    return {
        "gradient": with_pass(lr_nn.gradient),
        "gradient + all norms": with_pass(lambda bp: (lr_nn.gradient(bp), per_example.squared_norms(bp))),
        "clipped gradient": with_pass(lambda bp: per_example.clipped_gradient(bp, MAX_NORM)),
        "gradient + second moment": with_pass(lambda bp: (lr_nn.gradient(bp), per_example.second_moment(bp))),
    }


def one_gradient(params: Any, x: jax.Array, y: jax.Array) -> Any:
    """The gradient of one example by autodiff."""
    return jax.grad(peer_cost)(params, x[None], y[None])


def squared_norms(gradients: Any) -> jax.Array:
    """‖g_i‖² of materialised gradients."""
    return jnp.stack([(g.reshape(g.shape[0], -1) ** 2).sum(axis=1) for g in jax.tree.leaves(gradients)]).sum(axis=0)


def norms_by_vmap(params, x, y):
    """The mean gradient by `jax.grad`, and the norms through n gradients."""
    return jax.grad(peer_cost)(params, x, y), squared_norms(jax.vmap(one_gradient, (None, 0, 0))(params, x, y))


def norms_by_perturbation(params, x, y):
    """Zero perturbations added to every z_l: one `jax.grad` in both gives the gradient and δ; then the identity."""

    def cost(params, zeros):
        inputs, a = [], x
        for layer, zero in zip(params[:-1], zeros):
            inputs.append(a)
            a = jax.nn.sigmoid(a @ layer.w + layer.b + zero)
        inputs.append(a)
        eta = a @ params[-1].w + params[-1].b + zeros[-1]
        return optax.softmax_cross_entropy_with_integer_labels(eta, y).mean(), inputs

    zeros = [jnp.zeros((x.shape[0], layer.b.shape[0])) for layer in params]
    (gradient, deltas), inputs = jax.grad(cost, argnums=(0, 1), has_aux=True)(params, zeros)
    n = x.shape[0]
    return gradient, sum(((a**2).sum(1) + 1) * ((n * d) ** 2).sum(1) for a, d in zip(inputs, deltas))


def clipped_by_vmap(params, x, y):
    """n gradients, clipped and averaged."""
    gradients = jax.vmap(one_gradient, (None, 0, 0))(params, x, y)
    factors = jnp.minimum(1, MAX_NORM / jnp.sqrt(squared_norms(gradients)))
    return jax.tree.map(lambda g: jnp.tensordot(factors, g, 1) / x.shape[0], gradients)


def clipped_by_optax(params, x, y):
    """`optax.contrib.differentially_private_aggregate` without noise, on n gradients."""
    gradients = jax.vmap(one_gradient, (None, 0, 0))(params, x, y)
    private = optax.contrib.differentially_private_aggregate(MAX_NORM, 0.0, 0)
    return private.update(gradients, private.init(params))[0]


def _setting(sizes: tuple[int, ...], n: int):
    """Network and data of one case."""
    net = lr_nn.mlp(sizes, loss=losses.categorical)
    key = jax.random.key(0)
    x, y = jax.random.uniform(key, (n, sizes[0])), jax.random.randint(key, (n,), 0, sizes[-1])
    return f"{'-'.join(map(str, sizes))}, {n} rows", net, (lr_nn.init(net, key), x, y)


def rows(rounds: int, small: bool) -> list[dict[str, Any]]:
    """Time and temporary memory relative to our gradient."""
    found = []
    for sizes, n in SHAPES[: 1 if small else None]:
        case, net, data = _setting(sizes, n)
        functions = quantities(net) | {"norms by zero perturbations": norms_by_perturbation}
        if 4.0 * n * lr_nn.n_parameters(net) < MOST_BYTES:
            functions |= {
                "norms by grad + vmap(grad)": norms_by_vmap,
                "clipped by vmap(grad)": clipped_by_vmap,
                "clipped by optax's private aggregate": clipped_by_optax,
            }
        competitors = {name: compiled(function, *data) for name, function in functions.items()}
        found += compare(case, competitors, "gradient", _rounds(rounds, sizes, n), n=n)
    return found


def torch_rows(rounds: int, small: bool) -> list[dict[str, Any]]:
    """The same beside BackPACK and Opacus; nothing where they are not installed."""
    found = []
    for sizes, n in SHAPES[: 1 if small else None] if torch_peers.installed() else ():
        case, net, data = _setting(sizes, n)
        ours, peers = quantities(net), torch_peers.per_example_peers(*data, max_norm=MAX_NORM)
        torch_peers.agree(
            ours["clipped gradient"](*data), peers["clipped gradient by Opacus, ghost clipping, 1 thread"]()
        )
        moments = peers["gradient + second moment by BackPACK, 1 thread"]()
        torch_peers.agree(ours["gradient + second moment"](*data)[1], [n * moment for moment in moments])
        competitors = {name: compiled(function, *data) for name, function in ours.items()}
        found += compare(case, {**competitors, **peers}, "gradient", _rounds(rounds, sizes, n), n=n)
    return found


def _rounds(rounds: int, sizes: tuple[int, ...], n: int) -> int:
    return rounds if n * max(sizes) < 10**6 else max(3, rounds // 3)


SECTIONS = {
    "per_example": (rows, "Per-example quantities; time relative to our own gradient"),
    "torch": (torch_rows, "Per-example quantities beside BackPACK and Opacus; time relative to our own gradient"),
}

main = harness.command("per_example", SECTIONS)
