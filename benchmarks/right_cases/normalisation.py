"""Normalisation: functions whose scale or mean is divided or taken out, each in two forms that are equal."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.right_cases.case import Case, half_square, sizes, weights

EPSILON = 1e-5


def _standardised(x: jax.Array, axis: int) -> jax.Array:
    return (x - x.mean(axis, keepdims=True)) * jax.lax.rsqrt(x.var(axis, keepdims=True) + EPSILON)


def _standardised_by_sums(x: jax.Array, axis: int) -> jax.Array:
    centred = x - x.sum(axis, keepdims=True) / x.shape[axis]
    return centred / jnp.sqrt((centred**2).sum(axis, keepdims=True) / x.shape[axis] + EPSILON)


def _over(axis: int) -> Any:
    """A layer normalised over its features (axis 1, layer norm) or over the rows (axis 0, batch norm)."""

    def case(rng: np.random.Generator) -> Case:
        n, d, k = sizes(rng, 3)
        params = {"w": weights(rng, d, k), "b": weights(rng, k), "scale": 1 + weights(rng, k), "shift": weights(rng, k)}

        def value(standardise: Any) -> Any:
            # Over the rows, the normalisation takes out b: its gradient is zero but for roundings.
            def of(p: Any, batch: Any) -> jax.Array:
                z = standardise(batch["x"] @ p["w"] + p["b"][None], axis)
                return half_square(p["scale"][None] * z + p["shift"][None] - batch["y"])

            return of

        batch = {"x": rng.normal(size=(n, d)), "y": rng.normal(size=(n, k))}
        return Case(value(_standardised), value(_standardised_by_sums), params, batch)

    return case


def rms_norm(rng: np.random.Generator) -> Case:
    """A hidden layer divided by its root mean square."""
    n, d, k = sizes(rng, 3)
    params = {"w": weights(rng, d, k), "scale": 1 + weights(rng, k), "out": weights(rng, k)}

    def value(p: Any, batch: Any) -> jax.Array:
        z = jnp.tanh(batch["x"] @ p["w"])
        z = z * jax.lax.rsqrt((z**2).mean(axis=1, keepdims=True) + EPSILON) * p["scale"][None]
        return jnp.mean(jax.nn.softplus(z @ p["out"]))

    def rewritten(p: Any, batch: Any) -> jax.Array:
        z = jnp.tanh(batch["x"] @ p["w"])
        norm = jnp.sqrt((z * z).sum(axis=1) / k + EPSILON)
        return jnp.logaddexp((z @ (p["scale"] * p["out"])) / norm, 0.0).sum() / n

    return Case(value, rewritten, params, {"x": rng.normal(size=(n, d))})


def cosine(rng: np.random.Generator) -> Case:
    """A softmax of cosines between rows and columns."""
    n, d, k = sizes(rng, 3)
    params = {"w": weights(rng, d, k), "temperature": np.array(rng.uniform(1, 10))}

    def value(p: Any, batch: Any) -> jax.Array:
        x = batch["x"] / jnp.linalg.norm(batch["x"], axis=1, keepdims=True)
        w = p["w"] / jnp.linalg.norm(p["w"], axis=0, keepdims=True)
        return -jnp.mean(jax.nn.log_softmax(p["temperature"] * x @ w)[:, 0])

    def rewritten(p: Any, batch: Any) -> jax.Array:
        lengths = jnp.sqrt((batch["x"] ** 2).sum(1)[:, None] * (p["w"] ** 2).sum(0)[None])
        logits = p["temperature"] * (batch["x"] @ p["w"]) / lengths
        return jnp.mean(jax.nn.logsumexp(logits, axis=1) - logits[:, 0])

    return Case(value, rewritten, params, {"x": rng.normal(size=(n, d))})


CASES = {"layer norm": _over(1), "batch norm": _over(0), "rms norm": rms_norm, "cosine similarity": cosine}
