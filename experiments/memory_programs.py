"""Programs whose memory is predicted by formula and read off after compilation: training steps, and ways to a gradient.

Bytes are of float32. A network keeps n Σ_l d_l activations for the way back, and works on one δ at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import lr_nn
from benchmarks.harness import interleave, relative
from experiments.compare import finished
from lr_nn import Batch, Network, activations, losses
from lr_nn.network import affine

FLOAT, WIDTH, BLOCKS = 4, 64, 8
# Each with the copies of the parameters that its state is.
OPTIMIZERS = {
    "SGD": (optax.sgd(1e-2), 0),
    "momentum": (optax.sgd(1e-2, momentum=0.9), 1),
    "Adagrad": (optax.adagrad(1e-2), 1),
    "Adam": (optax.adam(1e-3), 2),
    "AdamW": (optax.adamw(1e-3), 2),
}
KEEP, IN_A_ROW, IN_A_LOOP = "keep all", "checkpoint, layers in a row", "checkpoint, segments in a loop"


def step_bytes(name: str, n: int) -> dict[str, Any]:
    """What one training step at n rows keeps: predicted part by part, and in the compiled program.

    The new parameters and the new state are written over the old ones (`donate_argnames`).
    """
    optimizer, copies = OPTIMIZERS[name]
    net = lr_nn.mlp((64, 256, 256, 256, 256, 10), activations.tanh, losses.categorical)
    params, batch = lr_nn.init(net, jax.random.key(0)), data(net, n)
    state = optimizer.init(params)
    step = jax.jit(lr_nn.training.step, static_argnames="optimizer", donate_argnames=("params", "opt_state"))
    stats: Any = step.lower(net, params, state, batch, optimizer=optimizer).compile().memory_analysis()
    parameters, hidden = FLOAT * lr_nn.n_parameters(net), net.sizes[1:-1]
    results = stats.output_size_in_bytes - stats.alias_size_in_bytes
    return {
        "optimizer": name,
        "rows": n,
        "predicted": {
            "parameters": parameters,
            "optimiser's state": copies * parameters,
            "gradient": parameters,
            "batch": FLOAT * n * (net.sizes[0] + 1),
            "activations and a δ": FLOAT * n * (sum(hidden) + max(hidden)),
        },
        "state": sum(leaf.nbytes for leaf in jax.tree.leaves(state)),
        "arguments": stats.argument_size_in_bytes,
        "compiled": stats.argument_size_in_bytes + results + stats.temp_size_in_bytes,
    }


def data(net: Network, n: int) -> Batch:
    """n random rows and labels."""
    return Batch(jax.random.normal(jax.random.key(n), (n, net.sizes[0])), jnp.arange(n) % net.sizes[-1])


def ways_to_a_gradient(
    segments: int, n: int, rounds: int, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, float]]]:
    """One gradient of a network of 1 + segments² hidden layers, in four ways.

    Of each the memory between arguments and result, with its distance from the first, and the time as a multiple of
    the first's.
    """
    depth = 1 + segments**2
    net = lr_nn.mlp((WIDTH, *(WIDTH,) * depth, 10), activations.tanh, losses.categorical)
    arguments = lr_nn.init(net, jax.random.key(seed)), data(net, n)

    def by_hand(block_size: int) -> Callable[..., Any]:
        return lambda params, batch: lr_nn.value_and_gradient(net, params, batch, block_size=block_size)

    # Each with the layers of n rows that it should keep: activations for the way back, and a δ.
    ways = {
        KEEP: (by_hand(n), depth + 1),
        IN_A_ROW: (recomputed(net, segments, looped=False), 2 * segments + 1),
        IN_A_LOOP: (recomputed(net, segments, looped=True), 2 * segments + 1),
        f"blocks of {n // BLOCKS:,} rows": (by_hand(n // BLOCKS), (depth + 1) / BLOCKS),
    }
    programs: Mapping[str, Any] = {name: jax.jit(way).lower(*arguments).compile() for name, (way, _) in ways.items()}
    gradients = {name: jax.tree.leaves(program(*arguments)[1]) for name, program in programs.items()}
    seconds = interleave({name: partial(finished, p, *arguments) for name, p in programs.items()}, rounds)
    rows = [
        {
            "way": name,
            "predicted": ways[name][1] * FLOAT * n * WIDTH,
            "compiled": program.memory_analysis().temp_size_in_bytes,
            # Of a loop XLA counts one turn: no number to compare.
            "flops": program.cost_analysis()["flops"] if name in (KEEP, IN_A_ROW) else None,
            "difference": max(
                float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(gradients[name], gradients[KEEP])
            ),
        }
        for name, program in programs.items()
    ]
    return rows, [relative(seconds[name], seconds[KEEP]) for name in programs]


def recomputed(net: Network, segments: int, looped: bool) -> Callable[..., Any]:
    """J and its gradient by autodiff, activations kept only where a segment begins, and computed again from there.

    The first layer and the last stand alone. looped: the segments are turns of one `lax.scan`, or else written out.
    """

    def segment(a: jax.Array, layers: Any) -> tuple[jax.Array, None]:
        for layer in layers:
            a = net.hidden[0].value(affine(layer, a))
        return a, None

    def cost(params: lr_nn.types.Params, batch: Batch) -> jax.Array:
        a, _ = segment(batch.x, params[:1])
        inner = params[1:-1]
        groups = [inner[i : i + segments] for i in range(0, len(inner), segments)]
        if looped:
            a, _ = jax.lax.scan(jax.checkpoint(segment), a, jax.tree.map(lambda *leaves: jnp.stack(leaves), *groups))
        else:
            for group in groups:
                a, _ = jax.checkpoint(segment)(a, group)
        eta = affine(params[-1], a)
        return net.loss.value(eta, net.loss.encode(batch.y, eta)).mean()

    return jax.value_and_grad(cost)
