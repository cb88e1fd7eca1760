"""Cumulative sums and products, each in two forms that are equal."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.right_cases.case import Case, half_square, sizes, weights


def _of_features(reduce: Any, same: Any) -> Any:
    """A function of tanh(x w) ∘ s, (n, k), along its first axis."""

    def case(rng: np.random.Generator) -> Case:
        n, d, k = sizes(rng, 3)
        params, batch = {"w": weights(rng, d, k), "s": weights(rng, k)}, {"x": rng.normal(size=(n, d))}

        def value(of: Any) -> Any:
            return lambda p, batch: of(jnp.tanh(batch["x"] @ p["w"]) * p["s"][None])

        return Case(value(reduce), value(same), params, batch)

    return case


def _stacked(step: Any) -> Any:
    """A cumulative operation as a loop."""

    def cumulative(z: jax.Array) -> jax.Array:
        rows = [z[0]]
        for row in z[1:]:
            rows.append(step(rows[-1], row))
        return jnp.stack(rows)

    return cumulative


def products(rng: np.random.Generator) -> Case:
    """The cumulative product of the parameters themselves, some of which may be zero."""
    n = int(rng.integers(2, 12))
    params = rng.normal(size=n) * (rng.random(n) < 0.9)

    def value(p: Any, batch: Any) -> jax.Array:
        return half_square(jnp.cumprod(p) - batch["y"])

    def rewritten(p: Any, batch: Any) -> jax.Array:
        return half_square(jax.lax.scan(lambda c, a: (c * a, c * a), jnp.ones_like(p[0]), p)[1] - batch["y"])

    return Case(value, rewritten, params, {"y": rng.normal(size=n)})


def survival(rng: np.random.Generator) -> Case:
    """A discrete hazard at each time, and the likelihood of the times seen."""
    n, d, times = sizes(rng, 3)
    params, seen = {"w": weights(rng, d), "b": weights(rng, times)}, np.arange(n)

    def value(p: Any, batch: Any) -> jax.Array:
        hazard = (batch["x"] @ p["w"])[:, None] + p["b"][None]
        alive = jnp.cumsum(jax.nn.log_sigmoid(-hazard), axis=1)
        dead = jax.nn.log_sigmoid(hazard) + alive - jax.nn.log_sigmoid(-hazard)
        return -jnp.mean(dead[seen, batch["time"]])

    def rewritten(p: Any, batch: Any) -> jax.Array:
        hazard = (batch["x"] @ p["w"])[:, None] + p["b"][None]
        before = np.arange(times)[None] < batch["time"][:, None]
        lost = jnp.where(before, jax.nn.softplus(hazard), 0).sum(axis=1)
        return (lost + jax.nn.softplus(-hazard[seen, batch["time"]])).sum() / n

    return Case(value, rewritten, params, {"x": rng.normal(size=(n, d)), "time": rng.integers(0, times, n)})


def stick_breaking(rng: np.random.Generator) -> Case:
    """Shares β_i Π_{j<i} (1 - β_j), β the sigmoids of the parameters."""
    n, k = sizes(rng, 2)
    params = {"p": weights(rng, k), "heights": weights(rng, n, k)}

    def value(p: Any, batch: Any) -> jax.Array:
        left = jnp.cumprod(1 - jax.nn.sigmoid(p["p"]))
        share = jax.nn.sigmoid(p["p"]) * jnp.concatenate([jnp.ones_like(left[:1]), left[:-1]])
        return half_square(p["heights"] @ share - batch["y"])

    def rewritten(p: Any, batch: Any) -> jax.Array:
        log_left = jnp.cumsum(jax.nn.log_sigmoid(-p["p"]))
        share = jnp.exp(jax.nn.log_sigmoid(p["p"]) + log_left - jax.nn.log_sigmoid(-p["p"]))
        return half_square((p["heights"] * share[None]).sum(axis=1) - batch["y"])

    return Case(value, rewritten, params, {"y": rng.normal(size=n)})


CASES = {
    "cumulative product": products,
    "cumulative product of features": _of_features(
        lambda z: half_square(jnp.cumprod(z, axis=0)), lambda z: half_square(_stacked(jnp.multiply)(z))
    ),
    "cumulative sum": _of_features(
        lambda z: jnp.mean(jax.nn.softplus(jnp.cumsum(z, axis=0))),
        lambda z: jnp.mean(jax.nn.softplus(_stacked(jnp.add)(z))),
    ),
    "cumulative log-sum-exp": _of_features(
        lambda z: half_square(jax.lax.cumlogsumexp(z, axis=0)), lambda z: half_square(_stacked(jnp.logaddexp)(z))
    ),
    "cumulative maximum": _of_features(
        lambda z: half_square(jax.lax.cummax(z, axis=0)), lambda z: half_square(_stacked(jnp.maximum)(z))
    ),
    "survival": survival,
    "stick breaking": stick_breaking,
}
