"""Dense layers of flax as layers of a network."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lr_nn.network import Network, check_params
from lr_nn.types import Layer, Params

Function = Callable[[jax.Array], Any]


def dense(name: str, layer: Any) -> tuple[str, Layer]:
    """A name and the layer of {"kernel": w, "bias": b}; ValueError for other entries or shapes."""
    if not isinstance(layer, Mapping) or "kernel" not in layer or not set(layer) <= {"kernel", "bias"}:
        raise ValueError(f"expected {name} to be a dense layer with kernel and bias; got {layer!r:.80}")
    if jnp.ndim(layer["kernel"]) != 2:
        raise ValueError(f"expected {name} to have a kernel (d_in, d_out); got shape {jnp.shape(layer['kernel'])}")
    return name, Layer(layer["kernel"], layer.get("bias"))


def joined(layers: list[tuple[str, Layer]], net: Network | None) -> Params:
    """Layers of matching widths, all of them with a bias if one has it, or the network has."""
    for (name, layer), (following, other) in itertools.pairwise(layers):
        if layer.w.shape[1] != other.w.shape[0]:
            raise ValueError(
                f"{following} has {other.w.shape[0]} inputs, but {name} before it {layer.w.shape[1]} outputs: they are "
                "not one after the other"
            )
    if net is not None and len(layers) != len(net.shapes):
        names = ", ".join(name for name, _ in layers)
        raise ValueError(f"net has {len(net.shapes)} layers, the model {len(layers)}: {names}")
    if net is not None and not net.bias:
        for name, layer in layers:
            if layer.b is not None:
                raise ValueError(f"{name} has a bias, and net has none")
    biased = any(layer.b is not None for _, layer in layers) if net is None else net.bias
    params = tuple(
        Layer(w, jnp.zeros(w.shape[1], w.dtype)) if biased and b is None else Layer(w, b) for _, (w, b) in layers
    )
    if net is not None:
        check_params(net, params)
    return params


def functions(net: Network) -> tuple[list[Function], list[Function]]:
    """The activations of a network, and what its outputs may be: η or the mean of the response."""
    return [activation.value for activation in net.hidden], [lambda eta: eta, net.loss.mean]
