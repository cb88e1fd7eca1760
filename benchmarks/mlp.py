"""One gradient of a deep network: the hand-written backward pass against `jax.value_and_grad`."""

from __future__ import annotations

from typing import Any

import jax
import optax

import lr_nn
from benchmarks.harness import compare, compiled
from benchmarks.thin import blocked_autodiff, by_hand, our_cost
from lr_nn import losses

# Architectures and rows. The hand-written pass takes the rows of the last two in blocks.
CASES = (
    ((784, 100, 10), 1024),
    ((784, 512, 512, 10), 1024),
    ((784, 1024, 1024, 1024, 10), 1024),
    ((784, 512, 512, 10), 16384),
    ((100, 50, 10), 262144),
)


BLOCK_ROWS = 4096


def peer_cost(params, x, y):
    """The cost as a user of jax.nn and optax writes it."""
    for layer in params[:-1]:
        x = jax.nn.sigmoid(x @ layer.w + layer.b)
    return optax.softmax_cross_entropy_with_integer_labels(x @ params[-1].w + params[-1].b, y).mean()


def rows(rounds: int, small: bool) -> list[dict[str, Any]]:
    """Time, compile time and temporary memory, by hand and by autodiff of the peer's and of our own cost."""
    key = jax.random.key(0)
    found = []
    for sizes, n in CASES[: 1 if small else None]:
        net = lr_nn.mlp(sizes, loss=losses.categorical)
        params = lr_nn.init(net, key)
        x = jax.random.uniform(key, (n, sizes[0]))
        y = jax.random.randint(key, (n,), 0, sizes[-1])
        competitors = {
            "jax.value_and_grad": compiled(jax.value_and_grad(peer_cost), params, x, y),
            "jax.value_and_grad of our cost": compiled(jax.value_and_grad(our_cost(net)), params, x, y),
            "jax.value_and_grad in blocks": compiled(blocked_autodiff(peer_cost, min(n, BLOCK_ROWS)), params, x, y),
            "by hand": compiled(by_hand(net), params, x, y),
        }
        case = f"{'-'.join(map(str, sizes))}, {n:,} rows"
        found += compare(case, competitors, "jax.value_and_grad", rounds if n == 1024 else rounds // 3, n=n)
    return found
