"""What per-example norms and clipped gradients of a transformer cost beside its gradient, and beside peers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import harness
from benchmarks.harness import compare, compiled
from lr_nn import per_example, taps

MAX_NORM = 1.0
VOCABULARY, WIDTH, LAYERS, HEADS, POSITIONS, EXAMPLES = 512, 256, 4, 4, 64, 32


def init(key: jax.Array, width: int = WIDTH, layers: int = LAYERS, positions: int = POSITIONS) -> dict[str, Any]:
    """Parameters of a transformer, by name; normal with variance 1 / inputs."""
    keys = iter(jax.random.split(key, 2 + 4 * layers))

    def dense(d_in: int, d_out: int) -> dict[str, jax.Array]:
        return {"w": jax.random.normal(next(keys), (d_in, d_out)) / d_in**0.5, "b": jnp.zeros(d_out)}

    def norm() -> dict[str, jax.Array]:
        return {"scale": jnp.ones(width), "shift": jnp.zeros(width)}

    def block() -> dict[str, Any]:
        return {
            "before": norm(),
            "qkv": dense(width, 3 * width),
            "out": dense(width, width),
            "between": norm(),
            "up": dense(width, 4 * width),
            "down": dense(4 * width, width),
        }

    return {
        "tokens": jax.random.normal(next(keys), (VOCABULARY, width)),
        "positions": jax.random.normal(next(keys), (positions, width)) * 0.1,
        "blocks": [block() for _ in range(layers)],
        "last": norm(),
    }


def losses(tap: taps.Tap, params: dict[str, Any], tokens: jax.Array) -> jax.Array:
    """The mean cross-entropy (n,) of the next token in `tokens` (n, T + 1); the output layer shares the table."""
    ids, targets = tokens[:, :-1], tokens[:, 1:]
    h = tap.embedding(ids, params["tokens"])
    h = h + tap.embedding(jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape), params["positions"])
    for block in params["blocks"]:
        h = h + _attention(tap, block, _normalised(tap, block["before"], h))
        up = jax.nn.gelu(tap.dense(_normalised(tap, block["between"], h), **block["up"]))
        h = h + tap.dense(up, **block["down"])
    logits = tap.dense(_normalised(tap, params["last"], h), params["tokens"].T)
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=2)[..., 0].mean(axis=1)


def _normalised(tap: taps.Tap, norm: dict[str, jax.Array], h: jax.Array) -> jax.Array:
    centred = h - h.mean(axis=-1, keepdims=True)
    return tap.scale_shift(centred * jax.lax.rsqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6), **norm)


def _attention(tap: taps.Tap, block: dict[str, Any], h: jax.Array) -> jax.Array:
    n, positions, width = h.shape
    qkv = tap.dense(h, **block["qkv"]).reshape(n, positions, 3, HEADS, width // HEADS)
    q, k, v = (qkv[:, :, part] for part in range(3))
    scores = jnp.einsum("nthd,nshd->nhts", q, k) / (width // HEADS) ** 0.5
    scores = jnp.where(jnp.tril(jnp.ones((positions, positions), bool)), scores, -1e9)
    mixed = jnp.einsum("nhts,nshd->nthd", jax.nn.softmax(scores), v).reshape(n, positions, width)
    return tap.dense(mixed, **block["out"])


def mean_loss(params: Any, tokens: jax.Array) -> jax.Array:
    """The cost whose gradient is the yardstick."""
    return losses(taps.plain, params, tokens).mean()
