"""One gradient of a model with many rows and one output, where reading `x` is most of the work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

import lr_nn
from benchmarks.harness import compare, compiled
from lr_nn import Batch, Network

# The last number of rows is a prime: no block divides it.
SHAPES = ((2**20, 128), (2**18, 512), (2**16, 2048), (262_139, 512))
BLOCK_BYTES = 2**22


def peer_cost(params, x, y):
    """The cost as a user of optax writes it."""
    (layer,) = params
    return optax.sigmoid_binary_cross_entropy((x @ layer.w + layer.b)[:, 0], y).mean()


def blocked_autodiff(cost: Callable, rows: int) -> Callable:
    """Autodiff of a mean cost, accumulated block by block in a loop (rows that fill no block are left out)."""

    def value_and_grad(params, x, y):
        def block(i, total):
            part = jax.value_and_grad(cost)(
                params, lax.dynamic_slice_in_dim(x, i * rows, rows), lax.dynamic_slice_in_dim(y, i * rows, rows)
            )
            return jax.tree.map(jnp.add, total, part)

        blocks = x.shape[0] // rows
        zero = jax.tree.map(jnp.zeros_like, (jnp.zeros(()), params))
        return jax.tree.map(lambda a: a / blocks, lax.fori_loop(0, blocks, block, zero))

    return value_and_grad


def our_cost(net: Network) -> Callable:
    """The cost of this package, for autodiff."""
    return lambda params, x, y: lr_nn.cost(net, params, Batch(x, y))


def by_hand(net: Network, block_size: int | None = None) -> Callable:
    """The hand-written gradient."""
    return lambda params, x, y: lr_nn.value_and_gradient(net, params, Batch(x, y), block_size=block_size)


def rows(rounds: int, small: bool) -> list[dict[str, Any]]:
    """By hand, with the automatic and with an explicit block, against autodiff whole and blocked, and x.sum()."""
    found = []
    for full, d in SHAPES:
        n = full // 64 if small else full
        key = jax.random.key(0)
        net = lr_nn.logistic_regression(d)
        x = jax.random.normal(key, (n, d))
        y = jax.random.bernoulli(key, 0.5, (n,)).astype(jnp.float32)
        params = (lr_nn.Layer(0.05 * jax.random.normal(key, (d, 1)), jnp.zeros(1)),)
        block = BLOCK_BYTES // (4 * d) if not small else n // 4

        competitors = {
            "jax.value_and_grad": compiled(jax.value_and_grad(peer_cost), params, x, y),
            "jax.value_and_grad of our cost": compiled(jax.value_and_grad(our_cost(net)), params, x, y),
            "jax.value_and_grad in blocks": compiled(blocked_autodiff(peer_cost, block), params, x, y),
            "by hand": compiled(by_hand(net, None), params, x, y),
            "by hand, block_size=4 MB": compiled(by_hand(net, block), params, x, y),
            "x.sum()": compiled(lambda p, x, y: x.sum(), params, x, y),
        }
        found += compare(f"{n:,} x {d:,}", competitors, "jax.value_and_grad", rounds, floor="x.sum()", n=n, d=d)
    return found
