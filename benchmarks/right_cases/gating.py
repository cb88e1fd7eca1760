"""Gating: linear units, highways and cells of recurrent networks, each in two forms that are equal."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.right_cases.case import Case, half_square, sizes, weights


def _gated_linear_unit(gate: Any, same: Any) -> Any:
    """(x u) · gate(x v), out."""

    def case(rng: np.random.Generator) -> Case:
        n, d, k = sizes(rng, 3)
        params = {"u": weights(rng, d, k), "v": weights(rng, d, k), "b": weights(rng, k), "out": weights(rng, k)}

        def value(p: Any, batch: Any) -> jax.Array:
            hidden = (batch["x"] @ p["u"]) * gate(batch["x"] @ p["v"] + p["b"][None])
            return half_square(hidden @ p["out"] - batch["y"])

        def rewritten(p: Any, batch: Any) -> jax.Array:
            z = batch["x"] @ jnp.concatenate([p["u"], p["v"]], axis=1)
            hidden = (z[:, :k] * p["out"][None]) * same(z[:, k:] + p["b"][None])
            return half_square(hidden.sum(axis=1) - batch["y"])

        return Case(value, rewritten, params, {"x": rng.normal(size=(n, d)), "y": rng.normal(size=n)})

    return case


def highway(rng: np.random.Generator) -> Case:
    """Two layers, each mixed with its input by a gate."""
    n, d = sizes(rng, 2)
    params = [{"w": weights(rng, d, d), "gate": weights(rng, d, d), "b": weights(rng, d)} for _ in range(2)]

    def value(p: Any, batch: Any) -> jax.Array:
        x = batch["x"]
        for layer in p:
            gate = jax.nn.sigmoid(x @ layer["gate"] + layer["b"][None])
            x = gate * jnp.tanh(x @ layer["w"]) + (1 - gate) * x
        return jnp.mean(x**2)

    def rewritten(p: Any, batch: Any) -> jax.Array:
        x = batch["x"]
        for layer in p:
            gate = 0.5 * (1 + jnp.tanh((x @ layer["gate"] + layer["b"][None]) / 2))
            x = x + gate * (jnp.tanh(x @ layer["w"]) - x)
        return (x * x).sum() / x.size

    return Case(value, rewritten, params, {"x": rng.normal(size=(n, d))})


def lstm(rng: np.random.Generator) -> Case:
    """A cell with four gates over a few steps, unrolled by a scan and by a loop."""
    steps, d, k = sizes(rng, 3, high=6)
    params = {"w": weights(rng, d, 4 * k), "u": weights(rng, k, 4 * k), "b": weights(rng, 4 * k)}

    def cell(p: Any, state: Any, x: jax.Array, sigmoid: Any) -> Any:
        h, c = state
        i, f, g, o = jnp.split(x @ p["w"] + h @ p["u"] + p["b"], 4)
        c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
        return sigmoid(o) * jnp.tanh(c), c

    def value(p: Any, batch: Any) -> jax.Array:
        start = 2 * (jnp.zeros_like(p["u"][:, 0]),)
        (h, _), _ = jax.lax.scan(lambda s, x: (cell(p, s, x, jax.nn.sigmoid), None), start, batch["x"])
        return half_square(h - batch["y"])

    def rewritten(p: Any, batch: Any) -> jax.Array:
        state = 2 * (jnp.zeros_like(p["u"][:, 0]),)
        for t in range(steps):
            state = cell(p, state, batch["x"][t], lambda z: 0.5 + 0.5 * jnp.tanh(z / 2))
        return half_square(state[0] - batch["y"])

    return Case(value, rewritten, params, {"x": rng.normal(size=(steps, d)), "y": rng.normal(size=k)})


def mixture_of_experts(rng: np.random.Generator) -> Case:
    """Linear experts, mixed by a softmax."""
    n, d, k = sizes(rng, 3)
    params = {"gate": weights(rng, d, k), "experts": weights(rng, d, k)}

    def value(p: Any, batch: Any) -> jax.Array:
        share = jax.nn.softmax(batch["x"] @ p["gate"])
        return half_square((share * (batch["x"] @ p["experts"])).sum(axis=1) - batch["y"])

    def rewritten(p: Any, batch: Any) -> jax.Array:
        scores = batch["x"] @ p["gate"]
        raised = jnp.exp(scores - scores.max(axis=1, keepdims=True))
        mixed = (raised * (batch["x"] @ p["experts"])).sum(axis=1) / raised.sum(axis=1)
        return half_square(mixed - batch["y"])

    return Case(value, rewritten, params, {"x": rng.normal(size=(n, d)), "y": rng.normal(size=n)})


CASES = {
    "gated linear unit": _gated_linear_unit(jax.nn.sigmoid, lambda z: jnp.exp(-jax.nn.softplus(-z))),
    "swish-gated unit": _gated_linear_unit(jax.nn.silu, lambda z: z * (0.5 + 0.5 * jnp.tanh(z / 2))),
    "relu-gated unit": _gated_linear_unit(jax.nn.relu, lambda z: z * (z > 0).astype(z.dtype)),
    "highway": highway,
    "LSTM": lstm,
    "mixture of experts": mixture_of_experts,
}
