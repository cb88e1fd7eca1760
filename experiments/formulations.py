"""The gradient of k logistic neurons on a batch, written in four ways, for NumPy and JAX alike (`xp`).

Each takes w (d, k), b (k,), x (n, d), y (n, k) and returns the means over examples of ∂ℓ/∂w and ∂ℓ/∂b.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

Formulation = Callable[[Any, Any, Any, Any, Any], tuple[Any, Any]]


def of_one(xp: Any, w: Any, b: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """x δᵀ and δ of one example x (d,), y (k,): δ = a - y, a = sigmoid(x w + b)."""
    delta = 1 / (1 + xp.exp(-(x @ w + b))) - y
    return x[:, None] * delta[None], delta


def loop(xp: Any, w: Any, b: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """One example after another."""
    dw, db = xp.zeros_like(w), xp.zeros_like(b)
    for i in range(len(x)):
        more_w, more_b = of_one(xp, w, b, x[i], y[i])
        dw, db = dw + more_w, db + more_b
    return dw / len(x), db / len(x)


def broadcast(xp: Any, w: Any, b: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """Every product of a feature and a weight, or an error, in one array (n, d, k), summed up after."""
    delta = 1 / (1 + xp.exp(-((x[:, :, None] * w[None]).sum(axis=1) + b[None]))) - y
    return (x[:, :, None] * delta[:, None]).mean(axis=0), delta.mean(axis=0)


def vmap(xp: Any, w: Any, b: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """`of_one`, mapped over the rows by JAX."""
    dw, db = jax.vmap(partial(of_one, xp), in_axes=(None, None, 0, 0))(w, b, x, y)
    return dw.mean(axis=0), db.mean(axis=0)


def product(xp: Any, w: Any, b: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """xᵀ δ / n: the whole batch in two products, the bias added once per neuron and broadcast over the rows."""
    delta = 1 / (1 + xp.exp(-(x @ w + b[None]))) - y
    return x.T @ delta / len(x), delta.mean(axis=0)


FORMULATIONS: dict[str, Formulation] = {
    "loop": loop,
    "broadcast": broadcast,
    "vmap of one": vmap,
    "one product": product,
}
