"""Table look-ups: rows of a table chosen by whole numbers, each in two forms that are equal."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.right_cases.case import Case, half_square, sizes, weights


def _one_hot(rows: jax.Array, table: jax.Array) -> jax.Array:
    """table[rows] as a product."""
    return jax.nn.one_hot(rows, table.shape[0], dtype=table.dtype) @ table


def embedding(rng: np.random.Generator) -> Case:
    """Embeddings, some chosen more than once and some never, through a hidden layer."""
    n, words, d, k = sizes(rng, 4)
    params = {"table": weights(rng, words, d), "w": weights(rng, d, k)}

    def value(look_up: Any) -> Any:
        return lambda p, batch: half_square(jnp.tanh(look_up(batch["words"], p["table"]) @ p["w"]) - batch["y"])

    batch = {"words": rng.integers(0, words, n), "y": rng.normal(size=(n, k))}
    return Case(value(lambda rows, table: table[rows]), value(_one_hot), params, batch)


def bag_of_words(rng: np.random.Generator) -> Case:
    """The mean embedding of each text, and a softmax over classes."""
    n, length, words, d, k = sizes(rng, 5)
    params = {"table": weights(rng, words, d), "w": weights(rng, d, k)}

    def value(p: Any, batch: Any) -> jax.Array:
        logits = p["table"][batch["words"]].mean(axis=1) @ p["w"]
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), batch["label"][:, None], axis=1))

    def rewritten(p: Any, batch: Any) -> jax.Array:
        logits = _one_hot(batch["words"], p["table"] @ p["w"]).sum(axis=1) / length
        chosen = (logits * jax.nn.one_hot(batch["label"], k, dtype=logits.dtype)).sum(axis=1)
        return (jax.nn.logsumexp(logits, axis=1) - chosen).sum() / n

    return Case(
        value, rewritten, params, {"words": rng.integers(0, words, (n, length)), "label": rng.integers(0, k, n)}
    )


def factorisation(rng: np.random.Generator) -> Case:
    """Ratings as products of rows of two tables."""
    n, users, items, d = sizes(rng, 4)
    params = {"users": weights(rng, users, d), "items": weights(rng, items, d), "bias": np.zeros(items)}

    def value(p: Any, batch: Any) -> jax.Array:
        rating = (p["users"][batch["user"]] * p["items"][batch["item"]]).sum(axis=1) + p["bias"][batch["item"]]
        return half_square(rating - batch["y"])

    def rewritten(p: Any, batch: Any) -> jax.Array:
        ratings = p["users"] @ p["items"].T + p["bias"][None]
        return half_square(ratings[batch["user"], batch["item"]] - batch["y"])

    batch = {"user": rng.integers(0, users, n), "item": rng.integers(0, items, n), "y": rng.normal(size=n)}
    return Case(value, rewritten, params, batch)


def interpolation(rng: np.random.Generator) -> Case:
    """A table of heights, linear between the whole numbers."""
    n, knots = sizes(rng, 2, low=3)
    at = rng.uniform(0, knots - 1, n)

    def value(p: Any, batch: Any) -> jax.Array:
        low = p[batch["low"]]
        return half_square(low + batch["part"] * (p[batch["low"] + 1] - low) - batch["y"])

    def rewritten(p: Any, batch: Any) -> jax.Array:
        below, above = (_one_hot(batch["low"] + one, p) for one in (0, 1))
        return half_square((1 - batch["part"]) * below + batch["part"] * above - batch["y"])

    batch = {"low": at.astype(int), "part": at % 1, "y": rng.normal(size=n)}
    return Case(value, rewritten, weights(rng, knots), batch)


def segments(rng: np.random.Generator) -> Case:
    """Rows summed by group, and the groups' log-sum-exp."""
    n, groups, d = sizes(rng, 3)
    params = {"w": weights(rng, d), "shift": weights(rng, groups)}

    def value(p: Any, batch: Any) -> jax.Array:
        sums = jax.ops.segment_sum(jnp.tanh(batch["x"] @ p["w"]), batch["group"], groups)
        return jax.nn.logsumexp(sums + p["shift"])

    def rewritten(p: Any, batch: Any) -> jax.Array:
        member = jax.nn.one_hot(batch["group"], groups, dtype=batch["x"].dtype)
        sums = jnp.tanh(batch["x"] @ p["w"]) @ member + p["shift"]
        return sums.max() + jnp.log(jnp.exp(sums - sums.max()).sum())

    return Case(value, rewritten, params, {"x": rng.normal(size=(n, d)), "group": rng.integers(0, groups, n)})


CASES = {
    "embedding": embedding,
    "bag of words": bag_of_words,
    "matrix factorisation": factorisation,
    "linear interpolation": interpolation,
    "sums by group": segments,
}
