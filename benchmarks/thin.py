"""One gradient of a model with many rows and one output, where reading `x` is most of the work."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

import lr_nn
from benchmarks.harness import compare, compiled
from lr_nn import Batch

SHAPES = ((2**20, 128), (2**18, 512), (2**16, 2048))
BLOCK_BYTES = 2**22


def peer_cost(params, x, y):
    """The cost as a user of optax writes it."""
    (layer,) = params
    return optax.sigmoid_binary_cross_entropy((x @ layer.w + layer.b)[:, 0], y).mean()


def blocked_autodiff(rows: int):
    """Autodiff accumulated block by block in a loop."""

    def value_and_grad(params, x, y):
        def block(i, total):
            xs, ys = (lax.dynamic_slice_in_dim(a, i * rows, rows) for a in (x, y))
            return jax.tree.map(jnp.add, total, jax.value_and_grad(peer_cost)(params, xs, ys))

        blocks = x.shape[0] // rows
        zero = jax.tree.map(jnp.zeros_like, (jnp.zeros(()), params))
        return jax.tree.map(lambda a: a / blocks, lax.fori_loop(0, blocks, block, zero))

    return value_and_grad


def rows(rounds: int, small: bool) -> list[dict[str, Any]]:
    """By hand, with the automatic and with an explicit block, against autodiff whole and blocked, and x.sum()."""
    found = []
    for n, d in SHAPES:
        n = n // 64 if small else n
        key = jax.random.key(0)
        net = lr_nn.logistic_regression(d)
        x = jax.random.normal(key, (n, d))
        y = jax.random.bernoulli(key, 0.5, (n,)).astype(jnp.float32)
        params = (lr_nn.Layer(0.05 * jax.random.normal(key, (d, 1)), jnp.zeros(1)),)
        block = BLOCK_BYTES // (4 * d) if not small else n // 4

        def hand(block_size, net=net):
            return lambda p, x, y: lr_nn.value_and_gradient(net, p, Batch(x, y), block_size=block_size)

        competitors = {
            "jax.value_and_grad": compiled(jax.value_and_grad(peer_cost), params, x, y),
            "jax.value_and_grad of our cost": compiled(
                lambda p, x, y, net=net: jax.value_and_grad(lambda p: lr_nn.cost(net, p, Batch(x, y)))(p), params, x, y
            ),
            "jax.value_and_grad in blocks": compiled(blocked_autodiff(block), params, x, y),
            "by hand": compiled(hand(None), params, x, y),
            "by hand, block_size=4 MB": compiled(hand(block), params, x, y),
            "x.sum()": compiled(lambda p, x, y: x.sum(), params, x, y),
        }
        found += compare(f"{n:,} x {d:,}", competitors, "jax.value_and_grad", rounds, n=n, d=d)
    return found
