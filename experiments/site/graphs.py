"""The two graphs of the site: a neuron and a network of three layers, to be stepped through."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import lr_nn
from lr_nn import graph
from lr_nn.graph.layout import BOX, layout
from lr_nn.graph.page import kind

if TYPE_CHECKING:
    from lr_nn.graph import Graph

SIGNS = {"dot_general": "·", "add": "+", "sub": "−", "mul": "×", "neg": "−", "logistic": "σ", "reduce_sum": "Σ"}
LONGEST = 6


class Played(NamedTuple):
    """A graph on a page of its own: the file, its text, and a small drawing of it."""

    name: str
    title: str
    text: str
    page: str
    drawing: dict[str, Any]


def neuron(w: jax.Array, b: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """The cross-entropy of one neuron at one example: x, w (d,); b, y numbers."""
    return cross_entropy(jax.nn.sigmoid(x @ w + b), y)


def network(
    w1: jax.Array,
    b1: jax.Array,
    w2: jax.Array,
    b2: jax.Array,
    w3: jax.Array,
    b3: jax.Array,
    x: jax.Array,
    y: jax.Array,
) -> jax.Array:
    """The cross-entropy of three layers of sigmoids at one example x (d,) with the label y (1,)."""
    a1 = jax.nn.sigmoid(x @ w1 + b1)
    a2 = jax.nn.sigmoid(a1 @ w2 + b2)
    a3 = jax.nn.sigmoid(a2 @ w3 + b3)
    return jnp.sum(cross_entropy(a3, y))


def cross_entropy(a: jax.Array, y: jax.Array) -> jax.Array:
    """As textbooks write it, so that its graph can be read; `losses.bernoulli` is the one that does not overflow."""
    return -(y * jnp.log(a) + (1 - y) * jnp.log(1 - a))


def traced() -> dict[str, Graph]:
    """Both graphs, their sweeps done."""
    x, y = np.array([1.0, 2.0], np.float32), np.array([1.0], np.float32)
    one = graph.trace(neuron, np.array([0.5, -0.3], np.float32), np.float32(0.1), x, y[0])
    net = lr_nn.mlp((2, 3, 2, 1), lr_nn.activations.sigmoid, lr_nn.losses.bernoulli)
    deep = graph.trace(network, *jax.tree.leaves(lr_nn.init(net, jax.random.key(0))), x, y)
    one.backward()
    deep.backward()
    return {"neuron": one, "network": deep}


def write(folder: Path, both: Mapping[str, Graph]) -> list[Played]:
    """Both pages, `folder`/graphs/NAME.html."""
    titles = {"neuron": "One neuron", "network": "A network of three layers"}
    (folder / "graphs").mkdir(parents=True, exist_ok=True)
    played = []
    for name, opened in both.items():
        page = opened.html(titles[name])
        (folder / "graphs" / f"{name}.html").write_text(page, encoding="utf-8")
        played.append(Played(name, titles[name], _about(opened), page, _drawing(opened)))
    return played


def _about(opened: Graph) -> str:
    """What the reverse sweep of this graph came to."""
    computed = sum(node.op not in ("input", "constant") for node in opened.nodes)
    result = opened.nodes[opened.outputs[0]]
    numbers = sum(node.value.size for node in opened.nodes if node.op == "input")
    return (
        f"{computed} operations lead from {numbers} numbers to a cost of {float(result.value):.4f}; one sweep back "
        "through the same operations gives the derivative by every one of them."
    )


def _drawing(opened: Graph) -> dict[str, Any]:
    """Boxes and lines where the page has them, with one sign in each box."""
    placed = layout([node.operands for node in opened.nodes])
    boxes = []
    for node, corner in zip(opened.nodes, placed.corners):
        given = node.op in ("input", "constant")
        sign = node.name.removesuffix(".0") if given else SIGNS.get(node.op, node.op)
        boxes.append({"kind": kind(opened, node), "corner": corner, "sign": sign[:LONGEST]})
    return {"size": placed.size, "box": BOX, "boxes": boxes, "paths": placed.paths}
