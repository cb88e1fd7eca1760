"""Unbiased estimates of a trace and a diagonal from products with random signs (Hutchinson, 1990)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax

from lr_nn import check
from lr_nn.curvature.operators import Operator, check_operator, flat_product
from lr_nn.curvature.vectors import BLOCK, unflatten
from lr_nn.trees import accumulator, compiled
from lr_nn.types import Params


def hutchinson_trace(op: Operator, key: jax.Array, samples: int) -> jax.Array:
    """An unbiased estimate of tr A, a scalar: the mean of zᵀ A z over `samples` z of independent signs ±1.

    Its variance is 2 Σ_{i≠j} A_ij² / samples: zero for a diagonal matrix. In float32 for half precision. Raises
    TypeError or ValueError for what is no operator or no random key, or for less than one sample. Hutchinson (1990).
    """
    check_operator(op)
    check.key(key)
    return _trace(op, key, check.positive_integer("samples", samples))


def hutchinson_diagonal(op: Operator, key: jax.Array, samples: int) -> Params:
    """An unbiased estimate of the diagonal of A, like the parameters: the mean of z ∘ A z over z of random signs ±1.

    The variance of entry i is Σ_{j≠i} A_ij² / samples: zero for a diagonal matrix. In float32 for half precision.
    Raises as `hutchinson_trace` does. Bekas, Kokiopoulou & Saad (2007), with signs.
    """
    check_operator(op)
    check.key(key)
    return _diagonal(op, key, check.positive_integer("samples", samples))


@partial(compiled, static_argnames="samples")
def _trace(op: Operator, key: jax.Array, samples: int) -> jax.Array:
    return _mean(op, key, samples, lambda z, image: z @ image)


@partial(compiled, static_argnames="samples")
def _diagonal(op: Operator, key: jax.Array, samples: int) -> Params:
    return unflatten(op.net, _mean(op, key, samples, lambda z, image: z * image))


def _mean(
    op: Operator, key: jax.Array, samples: int, statistic: Callable[[jax.Array, jax.Array], jax.Array]
) -> jax.Array:
    """The mean of statistic(z, A z) over draws of z, in blocks of `BLOCK` draws."""
    multiply, dtype = flat_product(op), accumulator(op.dtype)

    def sum_of(keys: jax.Array) -> jax.Array:
        def one(key: jax.Array) -> jax.Array:
            z = jax.random.rademacher(key, op.shape[:1], dtype)
            return statistic(z, multiply(z))

        return jax.vmap(one)(keys).sum(axis=0)

    keys, blocks = jax.random.split(key, samples), samples // BLOCK
    rest = keys[blocks * BLOCK :]
    sums = [sum_of(rest)] if len(rest) else []
    if blocks:
        whole = keys[: blocks * BLOCK].reshape(blocks, BLOCK, *keys.shape[1:])
        sums.append(jax.lax.map(sum_of, whole).sum(axis=0))
    return sum(sums[1:], sums[0]) / samples
