"""Networks to and from flax, linen and nnx: `kernel` is w, `bias` is b, and outputs agree bit for bit.

Needs the extra `flax`: pip install "lr-nn[flax]".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, nnx

from lr_nn.network import Network, check_params
from lr_nn.types import Layer, Params


class LinenNetwork(linen.Module):
    """The network as a linen module: `apply(to_linen(params), x)` is η, (n, k)."""

    net: Network

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """η for inputs `x` (n, d)."""
        for width, activation in zip(self.net.sizes[1:-1], self.net.hidden):
            x = activation.value(linen.Dense(width, use_bias=self.net.bias)(x))
        return linen.Dense(self.net.sizes[-1], use_bias=self.net.bias)(x)


def to_linen(params: Params) -> dict[str, Any]:
    """Variables of a linen module whose layers are Dense_0, Dense_1, ...: {"params": {"Dense_0": {...}, ...}}."""
    layers = {}
    for i, (w, b) in enumerate(params):
        layers[f"Dense_{i}"] = {"kernel": w} if b is None else {"kernel": w, "bias": b}
    return {"params": layers}


def from_linen(variables: Mapping[str, Any]) -> Params:
    """Parameters from linen variables whose layers are dense and numbered (Dense_0, layers_2, ...), in that order.

    Raises ValueError for a layer that is not dense or has no number.
    """
    layers = variables.get("params", variables)
    return tuple(_dense(name, layers[name]) for name in sorted(layers, key=_number))


def to_nnx(net: Network, params: Params) -> nnx.Sequential:
    """The network as an nnx module with these parameters: linear layers and activations, ending in η."""
    check_params(net, params)
    steps: list[Any] = []
    for i, ((d_in, d_out), (w, b)) in enumerate(zip(net.shapes, params)):
        linear = nnx.Linear(d_in, d_out, use_bias=net.bias, param_dtype=w.dtype, rngs=nnx.Rngs(0))
        linear.kernel[...] = w
        if linear.bias is not None:
            linear.bias[...] = b
        steps += [linear, net.hidden[i].value] if i < len(net.hidden) else [linear]
    return nnx.Sequential(*steps)


def from_nnx(layers: nnx.Sequential | Iterable[Any]) -> Params:
    """Parameters from an `nnx.Sequential`, or from any layers in order, e.g. (model.first, model.second).

    Everything that is not an `nnx.Linear` is passed over: activations have no parameters.
    """
    if isinstance(layers, nnx.Sequential):
        layers = layers.layers
    linears = [layer for layer in layers if isinstance(layer, nnx.Linear)]
    if not linears:
        raise ValueError("expected at least one nnx.Linear layer; got none")
    return tuple(Layer(linear.kernel[...], None if linear.bias is None else linear.bias[...]) for linear in linears)


def _number(name: str) -> int:
    match = re.search(r"_(\d+)$", name)
    if match is None:
        raise ValueError(f"expected numbered layers such as Dense_0; got {name!r}")
    return int(match.group(1))


def _dense(name: str, layer: Any) -> Layer:
    if not isinstance(layer, Mapping) or "kernel" not in layer or not set(layer) <= {"kernel", "bias"}:
        raise ValueError(f"expected {name} to be a dense layer with kernel and bias; got {layer!r:.80}")
    if jnp.ndim(layer["kernel"]) != 2:
        raise ValueError(f"expected {name} to have a kernel (d_in, d_out); got shape {jnp.shape(layer['kernel'])}")
    return Layer(layer["kernel"], layer.get("bias"))
