"""Sorted values: orders, largest ones, medians and pools, each in two forms that are equal."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.right_cases.case import Case, half_square, sizes, weights


def _of_outputs(reduce: Any, same: Any) -> Any:
    """A function of the outputs x w of a linear layer, (n, k)."""

    def case(rng: np.random.Generator) -> Case:
        n, d, k = sizes(rng, 3, low=3)
        params, batch = {"w": weights(rng, d, k), "b": weights(rng, k)}, {"x": rng.normal(size=(n, d))}

        def value(of: Any) -> Any:
            return lambda p, batch: of(batch["x"] @ p["w"] + p["b"][None])

        return Case(value(reduce), value(same), params, batch)

    return case


def _ranks(z: jax.Array) -> jax.Array:
    """For each column, the number of entries below each, which are all different."""
    return (z[None] < z[:, None]).sum(axis=1)


def _weighted_by_rank(z: jax.Array) -> jax.Array:
    return half_square(jnp.sort(z, axis=0) * jnp.arange(1, len(z) + 1, dtype=z.dtype)[:, None])


def _weighted_by_rank_again(z: jax.Array) -> jax.Array:
    return half_square(z * (1 + _ranks(z)).astype(z.dtype))


def _largest_two(z: jax.Array) -> jax.Array:
    return half_square(jax.lax.top_k(z, 2)[0])


def _largest_two_by_argsort(z: jax.Array) -> jax.Array:
    return half_square(jnp.take_along_axis(z, jnp.argsort(z, axis=1)[:, -2:], axis=1))


def _median(z: jax.Array) -> jax.Array:
    return jnp.sum(jnp.median(z, axis=0) ** 2) + jnp.sum(jnp.abs(z))


def _median_of_sorted(z: jax.Array) -> jax.Array:
    ordered, n = jnp.sort(z, axis=0), len(z)
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return middle @ middle + jnp.sum(jnp.where(z < 0, -z, z))


def _max_pool(z: jax.Array) -> jax.Array:
    return jnp.sum(jax.nn.softplus(z.max(axis=0)))


def _max_pool_by_argmax(z: jax.Array) -> jax.Array:
    return jnp.sum(jnp.logaddexp(0.0, jnp.take_along_axis(z, z.argmax(axis=0)[None], axis=0)))


def windows(rng: np.random.Generator) -> Case:
    """The largest of each pair of neighbours, after a convolution."""
    length, width = 2 * int(rng.integers(3, 9)), int(rng.integers(1, 4))
    params = {"filter": weights(rng, width), "b": weights(rng)}

    def value(p: Any, batch: Any) -> jax.Array:
        z = jnp.convolve(batch["x"], p["filter"], mode="valid") + p["b"]
        return half_square(jnp.max(z.reshape(-1, 2), axis=1))

    def rewritten(p: Any, batch: Any) -> jax.Array:
        z = sum(p["filter"][width - 1 - i] * batch["x"][i : i + length] for i in range(width)) + p["b"]
        return half_square(jnp.where(z[::2] > z[1::2], z[::2], z[1::2]))

    return Case(value, rewritten, params, {"x": rng.normal(size=length + width - 1)})


def quantile_loss(rng: np.random.Generator) -> Case:
    """A linear model of a quantile."""
    n, d = sizes(rng, 2)
    params, tau = {"w": weights(rng, d), "b": weights(rng)}, float(rng.uniform(0.1, 0.9))

    def value(p: Any, batch: Any) -> jax.Array:
        residual = batch["y"] - batch["x"] @ p["w"] - p["b"]
        return jnp.mean(jnp.maximum(tau * residual, (tau - 1) * residual))

    def rewritten(p: Any, batch: Any) -> jax.Array:
        residual = batch["y"] - batch["x"] @ p["w"] - p["b"]
        return (residual * (tau - (residual < 0).astype(residual.dtype))).sum() / n

    return Case(value, rewritten, params, {"x": rng.normal(size=(n, d)), "y": rng.normal(size=n)})


CASES = {
    "sort": _of_outputs(_weighted_by_rank, _weighted_by_rank_again),
    "largest two": _of_outputs(_largest_two, _largest_two_by_argsort),
    "median": _of_outputs(_median, _median_of_sorted),
    "max pooling": _of_outputs(_max_pool, _max_pool_by_argmax),
    "max pooling over windows": windows,
    "quantile loss": quantile_loss,
}
