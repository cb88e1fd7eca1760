"""Outputs of a converted model and of the one it was made from, compared on random inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from lr_nn.interop.flax.layers import Function
from lr_nn.network import affine
from lr_nn.trees import accumulator
from lr_nn.types import Params

# Rows of inputs: enough for scales that are a third apart, so that activations that differ only far out are seen.
ROWS = 32
# Multiple of the rounding error that is expected of a product; both sides compute the same products.
SLACK = 8


def inputs(d: int, dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Normal rows at scales from 0.01 to 100, the first one zero, (32, d), the same at every call."""
    x = np.random.default_rng(0).normal(size=(ROWS, d)) * np.logspace(-2, 2, ROWS)[:, None]
    x[0] = 0
    return jnp.asarray(x, dtype)


def widened(tree: Any) -> Any:
    """Leaves of half precision in float32, so that a comparison sees more than their rounding."""
    return jax.tree.map(_widened, tree)


def _widened(leaf: Any) -> Any:
    dtype = jnp.result_type(leaf)
    return jnp.asarray(leaf, accumulator(dtype)) if jnp.issubdtype(dtype, jnp.floating) else leaf


def require_same_outputs(
    name: str, model: Function, params: Params, hidden: Sequence[Function], final: Sequence[Function]
) -> None:
    """Refuse with ValueError if `model` gives other outputs than the network of `params`.

    hidden: the activations between layers. final: functions of η, of which one has to give the outputs of the model.
    Products are of the highest precision, of half-precision parameters in float32; an error of 8 rounding errors, each
    of √d eps of a product over d, eps of the dtype of the outputs, is taken for rounding.
    """
    params = widened(params)
    with jax.default_matmul_precision("highest"):
        x = inputs(len(params[0].w), params[0].w.dtype)
        found = _called(name, model, x)
        eta, error = _eta(params, hidden, x, found.dtype)
        expected = [np.asarray(function(eta), np.float64) for function in final]
    outputs = np.asarray(found, np.float64)
    if outputs.shape != eta.shape:
        raise ValueError(f"{name} returns {outputs.shape} for inputs {x.shape}, its layers give {eta.shape}")
    misses = [_miss(outputs, each, SLACK * np.asarray(error)) for each in expected]
    if all(miss.any() for miss in misses):
        row, column = np.argwhere(misses[0])[-1]
        raise ValueError(
            f"{name} gives {outputs[row, column]:.6g}, the network of its layers {expected[0][row, column]:.6g} "
            f"(output {column} at a random input): a residual connection, a scaling, dropout that is on, another "
            "activation or another order of the layers has no counterpart in the network"
        )


def _called(name: str, model: Function, x: jax.Array) -> jax.Array:
    try:
        found = model(x)
    except Exception as error:
        raise ValueError(f"{name} cannot be called on inputs {x.shape}: {error}") from error
    if not isinstance(found, jax.Array) or not jnp.issubdtype(found.dtype, jnp.floating):
        raise ValueError(f"{name} must return one array of real numbers; got {type(found).__name__}")
    return found


def _eta(params: Params, hidden: Sequence[Function], x: jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """η, and the deviation of its rounding error, if errors of products are independent and activations pass them."""
    a, variance = x, jnp.zeros_like(x)
    output_eps = float(jnp.finfo(dtype).eps)
    for i, layer in enumerate(params):
        squares = layer.w * layer.w
        eps = len(layer.w) ** 0.5 * float(jnp.finfo(accumulator(dtype)).eps)
        eps = max(eps, output_eps)
        offset = jnp.zeros_like(layer.w[:1]) if layer.b is None else layer.b[None]
        variance = variance @ squares + eps**2 * ((a * a) @ squares + offset * offset)
        z = affine(layer, a)
        a = jnp.asarray(hidden[i](z)).astype(z.dtype) if i < len(params) - 1 else z
    return a, jnp.sqrt(variance)


def _miss(outputs: np.ndarray, expected: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Which outputs are further from what is expected than rounding: NaN is, an infinity of the same sign is not."""
    if expected.shape != outputs.shape:
        return np.ones(outputs.shape, bool)
    with np.errstate(invalid="ignore"):
        near = np.abs(outputs - expected) <= error * np.maximum(1, np.abs(expected)) + np.finfo(np.float32).tiny
    return ~(near | (outputs == expected))
