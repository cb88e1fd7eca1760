"""What per-example norms and clipped gradients of a transformer cost beside its gradient, and beside peers."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness, torch_peers
from benchmarks.harness import compare, compiled
from benchmarks.per_example import squared_norms
from lr_nn import per_example, taps

MAX_NORM = 1.0
VOCABULARY, WIDTH, LAYERS, HEADS, POSITIONS, EXAMPLES = 512, 256, 4, 4, 64, 32


def init(key: jax.Array, width: int = WIDTH, layers: int = LAYERS, positions: int = POSITIONS) -> dict[str, Any]:
    """Parameters of a transformer, by name; normal with variance 1 / inputs."""
    keys = iter(jax.random.split(key, 3 + 4 * layers))

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
        "head": dense(width, VOCABULARY),
    }


def losses(tap: taps.Tap, params: dict[str, Any], tokens: jax.Array) -> jax.Array:
    """The mean cross-entropy (n,) of the next token in `tokens` (n, T + 1)."""
    ids, targets = tokens[:, :-1], tokens[:, 1:]
    h = tap.embedding(ids, params["tokens"])
    h = h + tap.embedding(jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape), params["positions"])
    for block in params["blocks"]:
        h = h + _attention(tap, block, _normalised(tap, block["before"], h))
        up = jax.nn.gelu(tap.dense(_normalised(tap, block["between"], h), **block["up"]))
        h = h + tap.dense(up, **block["down"])
    logits = tap.dense(_normalised(tap, params["last"], h), **params["head"])
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


def by_taps(function: Callable) -> Callable:
    """A quantity of the pass of the transformer."""
    return lambda params, tokens: function(taps.backprop(losses, params, tokens))


def one_gradient(params: Any, row: jax.Array) -> Any:
    """The gradient of one example by autodiff."""
    return jax.grad(mean_loss)(params, row[None])


def norms_by_vmap(params: Any, tokens: jax.Array) -> jax.Array:
    """The norms of n gradients."""
    return squared_norms(jax.vmap(one_gradient, (None, 0))(params, tokens))


def clipped_by_vmap(params: Any, tokens: jax.Array) -> Any:
    """n gradients, clipped and averaged."""
    gradients = jax.vmap(one_gradient, (None, 0))(params, tokens)
    factors = jnp.minimum(1, MAX_NORM / jnp.sqrt(squared_norms(gradients)))
    return jax.tree.map(lambda g: jnp.tensordot(factors, g, 1) / len(tokens), gradients)


def clipped_by_jax_privacy(microbatch: int | None) -> Callable:
    """`jax_privacy.clipped_grad`, all examples at once or some at a time."""
    from jax_privacy import clipped_grad

    return clipped_grad(mean_loss, l2_clip_norm=MAX_NORM, normalize_by=EXAMPLES, microbatch_size=microbatch)


def rows(rounds: int, small: bool) -> list[dict[str, Any]]:
    """Time and temporary memory relative to the gradient by `jax.grad`."""
    sizes = {"width": 32, "layers": 1, "positions": 8} if small else {}
    params = init(jax.random.key(0), **sizes)
    positions = params["positions"].shape[0]
    tokens = jax.random.randint(jax.random.key(1), (EXAMPLES, positions + 1), 0, VOCABULARY)
    functions: dict[str, Callable] = {
        "gradient by jax.grad": jax.grad(mean_loss),
        "norms": by_taps(per_example.squared_norms),
        "clipped gradient": by_taps(lambda bp: per_example.clipped_gradient(bp, MAX_NORM)),
        "norms by vmap(grad)": norms_by_vmap,
        "clipped by vmap(grad)": clipped_by_vmap,
    }
    if find_spec("jax_privacy"):
        functions |= {
            "clipped by jax-privacy": clipped_by_jax_privacy(None),
            "clipped by jax-privacy, 8 at a time": clipped_by_jax_privacy(8),
        }
    competitors: dict[str, Any] = {name: compiled(function, params, tokens) for name, function in functions.items()}
    if torch_peers.installed():
        peers = torch_peers.transformer_peers(params, tokens, heads=HEADS, max_norm=MAX_NORM)
        _agree(functions["clipped gradient"](params, tokens), peers)
        competitors |= peers
    width, layers = params["tokens"].shape[1], len(params["blocks"])
    case = f"transformer, {layers} layers of width {width}, T = {positions}, {EXAMPLES} examples"
    return compare(case, competitors, "gradient by jax.grad", max(3, rounds // 3), n=EXAMPLES)


def _agree(clipped: Any, peers: torch_peers.Peers) -> None:
    """Raise AssertionError unless Opacus' clipped gradient of the head is ours."""
    found = peers["clipped gradient by Opacus, ghost clipping, 1 thread"]()
    *_, weight, bias = (leaf.detach().numpy() for leaf in found)
    for own, other in ((clipped["head"]["w"].T, weight), (clipped["head"]["b"], bias)):
        np.testing.assert_allclose(np.asarray(own), other, rtol=1e-2, atol=1e-3 * np.abs(other).max())


SECTIONS = {"transformer": (rows, "Per-example quantities of a transformer; time relative to jax.grad")}

main = harness.command("taps", SECTIONS)
