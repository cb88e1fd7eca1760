"""Four ways to write the prediction and the gradient of logistic regression, eager and jitted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.harness import compare, compiled


def predict_features(w, b, x):
    """A Python loop over features, each a column times a weight."""
    z = b
    for j in range(x.shape[1]):
        z = z + x[:, j] * w[j]
    return jax.nn.sigmoid(z)


def gradient_features(w, b, x, y):
    """∂J/∂w_j one feature after the other."""
    r = predict_features(w, b, x) - y
    return jnp.stack([(r * x[:, j]).mean() for j in range(x.shape[1])]), r.mean()


def predict_examples(w, b, x):
    """A Python loop over examples, each a scalar product."""
    return jnp.stack([jax.nn.sigmoid(x[i] @ w + b) for i in range(x.shape[0])])


def gradient_examples(w, b, x, y):
    """The gradients of single examples, added up one after the other."""
    gw, gb = jnp.zeros_like(w), jnp.zeros_like(b)
    for i in range(x.shape[0]):
        r = jax.nn.sigmoid(x[i] @ w + b) - y[i]
        gw, gb = gw + r * x[i], gb + r
    return gw / x.shape[0], gb / x.shape[0]


def predict_vectorised(w, b, x):
    """One matrix product; the bias is broadcast."""
    return jax.nn.sigmoid(x @ w + b)


def gradient_vectorised(w, b, x, y):
    """rᵀ x: the sum over examples is a matrix product too."""
    r = predict_vectorised(w, b, x) - y
    return (r @ x) / x.shape[0], r.mean()


def predict_vmap(w, b, x):
    """The function of one example, mapped."""
    return jax.vmap(lambda x: jax.nn.sigmoid(x @ w + b))(x)


def gradient_vmap(w, b, x, y):
    """The gradient of one example, mapped, then averaged."""

    def one(x, y):
        r = jax.nn.sigmoid(x @ w + b) - y
        return r * x, r

    return jax.tree.map(lambda g: g.mean(axis=0), jax.vmap(one)(x, y))


FORMULATIONS: dict[str, tuple[Callable, Callable]] = {
    "loop over features": (predict_features, gradient_features),
    "loop over examples": (predict_examples, gradient_examples),
    "vectorised": (predict_vectorised, gradient_vectorised),
    "vmap of one example": (predict_vmap, gradient_vmap),
}


def rows(rounds: int, small: bool) -> list[dict[str, Any]]:
    """Eager and jitted, for predictions and for gradients."""
    n, d = (20, 5) if small else (256, 64)
    key = jax.random.key(0)
    x = jax.random.normal(key, (n, d))
    y = jax.random.bernoulli(key, 0.5, (n,)).astype(jnp.float32)
    w, b = 0.1 * jax.random.normal(key, (d,)), jnp.zeros(())
    found = []
    for case, which, args in (("predictions", 0, (w, b, x)), ("gradients", 1, (w, b, x, y))):
        competitors: dict[str, Any] = {}
        for name, functions in FORMULATIONS.items():
            function = functions[which]
            competitors[f"{name}, eager"] = lambda f=function, a=args: jax.block_until_ready(f(*a))
            competitors[f"{name}, jitted"] = compiled(function, *args)
        found += compare(f"{case}, {n} x {d}", competitors, "vectorised, jitted", max(3, rounds // 4), n=n, d=d)
    return found
