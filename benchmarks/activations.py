"""Activations that keep z, and relu beside them: gradient and Hessian product by hand against autodiff."""

from __future__ import annotations

from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import optax

import lr_nn
from benchmarks.harness import compare, compiled
from benchmarks.thin import by_hand
from lr_nn import activations, curvature, losses

# The rows of the other benchmarks of products and of gradients. With 1,024 some products need temporaries above 32 MB,
# for which the C library maps fresh pages at every call, whoever calls it.
SIZES, ROWS = (784, 512, 512, 10), (512, 1024)
# Each with its twin, as a user of jax.nn writes it.
PAIRS = {
    "relu": (activations.relu, jax.nn.relu),
    "silu": (activations.silu, jax.nn.silu),
    "gelu": (activations.gelu, lambda z: jax.nn.gelu(z, approximate=False)),
    "gelu_tanh": (activations.gelu_tanh, jax.nn.gelu),
    "sine": (activations.sine, jnp.sin),
    "softsign": (activations.softsign, jax.nn.soft_sign),
}


def rows(rounds: int, small: bool) -> list[dict[str, Any]]:
    """Time relative to one gradient by autodiff."""
    found = []
    for (name, (activation, twin)), n in product(list(PAIRS.items())[: 2 if small else None], ROWS):
        net = lr_nn.mlp(SIZES, activation, losses.categorical)
        key = jax.random.key(0)
        params, v = lr_nn.init(net, key), lr_nn.init(net, jax.random.key(1))
        x, y = jax.random.uniform(key, (n, SIZES[0])), jax.random.randint(key, (n,), 0, SIZES[-1])
        peer = _cost(twin)
        competitors = {
            "jax.value_and_grad": compiled(jax.value_and_grad(peer), params, x, y),
            "by hand": compiled(by_hand(net), params, x, y),
            "Hessian product by jvp of grad": compiled(_jvp_of_grad(peer), params, x, y, v),
            "Hessian product": compiled(_product(net), params, x, y, v),
        }
        found += compare(f"{name}, 784-512-512-10, {n:,} rows", competitors, "jax.value_and_grad", rounds, n=n)
    return found


def _cost(twin):
    def cost(params, x, y):
        for layer in params[:-1]:
            x = twin(x @ layer.w + layer.b)
        return optax.softmax_cross_entropy_with_integer_labels(x @ params[-1].w + params[-1].b, y).mean()

    return cost


def _jvp_of_grad(cost):
    return lambda params, x, y, v: jax.jvp(lambda params: jax.grad(cost)(params, x, y), (params,), (v,))[1]


def _product(net):
    return lambda params, x, y, v: curvature.hessian(net, params, lr_nn.Batch(x, y)) @ v
