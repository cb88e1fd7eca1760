"""Attention of one head and of several, masked and not, each in two forms that are equal."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.right_cases.case import Case, half_square, sizes, weights


def normalised_attention(rng: np.random.Generator, d: int = 6, n: int = 5) -> Case:
    """½ Σ of the squares of one head of attention on rows that are normalised and scaled."""
    params = {"s": rng.normal(size=d), **{name: rng.normal(size=(d, d)) for name in "qkv"}}

    def value(p: Any, batch: Any) -> jax.Array:
        x = batch["x"]
        x = (x - x.mean(axis=1, keepdims=True)) / jnp.sqrt(x.var(axis=1, keepdims=True) + 1e-5) * p["s"][None]
        scores = (x @ p["q"]) @ (x @ p["k"]).T / d**0.5
        return half_square(jax.nn.softmax(scores) @ (x @ p["v"]))

    def rewritten(p: Any, batch: Any) -> jax.Array:
        x = jax.nn.standardize(batch["x"], epsilon=1e-5) * p["s"][None]
        scores = x @ (p["q"] @ p["k"].T) @ x.T / d**0.5
        return half_square((jnp.exp(jax.nn.log_softmax(scores)) @ x) @ p["v"])

    return Case(value, rewritten, params, {"x": rng.normal(size=(n, d))})


def random_normalised_attention(rng: np.random.Generator) -> Case:
    """The same of random sizes."""
    return normalised_attention(rng, *sizes(rng, 2))


def _heads(rng: np.random.Generator, heads: int, causal: bool) -> Case:
    n, d = sizes(rng, 2)
    width = int(rng.integers(1, 5))
    params = {name: weights(rng, d, heads, width) for name in "qkv"} | {"out": weights(rng, heads, width, d)}
    mask = np.tril(np.ones((n, n), bool)) if causal else np.ones((n, n), bool)

    def value(p: Any, batch: Any) -> jax.Array:
        q, k, v = (jnp.einsum("nd,dhw->hnw", batch["x"], p[name]) for name in "qkv")
        scores = jnp.where(mask[None], jnp.einsum("hnw,hmw->hnm", q, k) / width**0.5, -1e30)
        mixed = jnp.einsum("hnm,hmw->nhw", jax.nn.softmax(scores), v)
        return half_square(jnp.einsum("nhw,hwd->nd", mixed, p["out"]) - batch["y"])

    def rewritten(p: Any, batch: Any) -> jax.Array:
        total = jnp.zeros_like(batch["x"])
        for h in range(heads):
            q, k, v = (batch["x"] @ p[name][:, h] for name in "qkv")
            scores = q @ k.T / width**0.5
            shifted = jnp.where(mask, scores - jnp.where(mask, scores, -jnp.inf).max(axis=1, keepdims=True), 0)
            raised = jnp.where(mask, jnp.exp(shifted), 0)
            total = total + (raised / raised.sum(axis=1, keepdims=True)) @ v @ p["out"][h]
        return half_square(total - batch["y"])

    return Case(value, rewritten, params, {"x": rng.normal(size=(n, d)), "y": rng.normal(size=(n, d))})


def pooled(rng: np.random.Generator) -> Case:
    """A learned query that weighs rows, and a logistic loss."""
    n, d = sizes(rng, 2)
    params = {"query": weights(rng, d), "w": weights(rng, d), "b": np.zeros(())}

    def value(p: Any, batch: Any) -> jax.Array:
        return jax.nn.softplus(jax.nn.softmax(batch["x"] @ p["query"]) @ batch["x"] @ p["w"] + p["b"])

    def rewritten(p: Any, batch: Any) -> jax.Array:
        scores = batch["x"] @ p["query"]
        share = jnp.exp(scores - jax.nn.logsumexp(scores))
        return jnp.logaddexp(0.0, share @ (batch["x"] @ p["w"]) + p["b"])

    return Case(value, rewritten, params, {"x": rng.normal(size=(n, d))})


CASES = {
    "normalised attention": random_normalised_attention,
    "attention": lambda rng: _heads(rng, 1, causal=False),
    "causal attention": lambda rng: _heads(rng, 1, causal=True),
    "attention of several heads": lambda rng: _heads(rng, int(rng.integers(2, 4)), causal=bool(rng.random() < 0.5)),
    "attention pooling": pooled,
}
