"""A flax.nnx module as a function with taps, for `lr_nn.taps`: per-example quantities of the whole model."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from lr_nn.taps import Tap


def tapped(module: nnx.Module) -> tuple[Callable[..., Any], nnx.State]:
    """A function `apply(tap, params, *args, **kwargs)` that returns `module(*args, **kwargs)`, and the parameters.

    Linear, LinearGeneral, Conv, Embed (also its `attend`), LoRA, LayerNorm, RMSNorm and GroupNorm become taps wherever
    they are in the module, in flax's attention and recurrent cells too. All other code of the module runs as it is.
    `params` is the `nnx.State` of its `nnx.Param`. Every call starts from the other state, such as random streams, of
    `module` now.

        apply, params = lr_nn.interop.flax.tapped(model)
        def losses(tap, params, x, y):
            return optax.softmax_cross_entropy_with_integer_labels(apply(tap, params, x), y)
        bp = lr_nn.taps.backprop(losses, params, x, y)

    Raises TypeError for what is no nnx module. Raises ValueError, with the path in the module, for batch normalisation
    that computes statistics of the batch, dropout that is on, and settings of a layer that a tap does not have.
    """
    if not isinstance(module, nnx.Module):
        raise TypeError(f"tapped expects a flax.nnx module; got {type(module).__name__}")
    for path, node in nnx.iter_graph(module):
        _check(".".join(map(str, path)) or "the module", node)
    split: Any = nnx.split(module, nnx.Param, ...)
    graph, params, rest = split

    def apply(tap: Tap, params: nnx.State, *args: Any, **kwargs: Any) -> Any:
        merged = nnx.merge(graph, params, rest, copy=True)  # a call may change the state of streams, as cells do
        for _, node in list(nnx.iter_graph(merged)):
            if type(node) in TAPPED:
                # The merged module is of this call alone, and flax would refuse an attribute that is not its own.
                node.__class__ = TAPPED[type(node)]
                object.__setattr__(node, "tap", tap)
        return merged(*args, **kwargs)

    return apply, params


def _check(where: str, node: Any) -> None:
    """Raise ValueError for a layer that mixes examples, draws random numbers, or differs from its tap."""
    if isinstance(node, nnx.BatchNorm) and not node.use_running_average:
        raise ValueError(f"{where} is a BatchNorm in training mode: the loss of an example depends on all others")
    if isinstance(node, nnx.Dropout) and node.rate > 0 and not node.deterministic:
        raise ValueError(f"{where} is a Dropout of rate {node.rate} that is on; call module.eval() first")
    dense, conv = isinstance(node, (nnx.Linear, nnx.LinearGeneral)), isinstance(node, nnx.Conv)
    problems = {
        "precision": (dense or conv) and node.precision is not None,
        "preferred_element_type": (dense or conv) and getattr(node, "preferred_element_type", None) is not None,
        "dot_general": dense and node.dot_general not in (None, jax.lax.dot_general),
        "dot_general_cls": isinstance(node, nnx.LinearGeneral) and node.dot_general_cls is not None,
        "conv_general_dilated": conv and node.conv_general_dilated is not jax.lax.conv_general_dilated,
        "batch_axis": isinstance(node, nnx.LinearGeneral) and bool(node.batch_axis),
        "feature_group_count": conv and node.feature_group_count != 1,
        "mask": conv and node.mask is not None,
        "input_dilation": conv and set(_each(node.input_dilation, node)) != {1},
        "padding": conv and str(node.padding) in {"CIRCULAR", "REFLECT", "CAUSAL"},
        "feature_axes": isinstance(node, nnx.LayerNorm | nnx.RMSNorm) and node.feature_axes not in {-1, (-1,)},
    }
    for name in (name for name, differs in problems.items() if differs):
        raise ValueError(f"{where} is a {type(node).__name__} with {name}={getattr(node, name)}, which has no tap")


class _Linear(nnx.Linear):
    tap: Tap

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        return self.tap.dense(*_promoted(self, inputs))


class _LinearGeneral(nnx.LinearGeneral):
    tap: Tap

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        x, w, b = _promoted(self, inputs)
        axes = sorted(axis % x.ndim for axis in ((self.axis,) if isinstance(self.axis, int) else self.axis))
        x = jnp.moveaxis(x, axes, range(x.ndim - len(axes), x.ndim))
        lead = x.shape[: x.ndim - len(axes)]
        rows = prod(x.shape[len(lead) :])
        z = self.tap.dense(x.reshape(*lead, rows), w.reshape(rows, -1), None if b is None else b.reshape(-1))
        return z.reshape(*lead, *w.shape[len(axes) :])


class _Conv(nnx.Conv):
    tap: Tap

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        padding = self.padding if isinstance(self.padding, str) else _pairs(self.padding, self)
        strides, dilation = _each(self.strides, self), _each(self.kernel_dilation, self)
        return self.tap.conv(*_promoted(self, inputs), strides=strides, padding=padding, dilation=dilation)


class _Embed(nnx.Embed):
    tap: Tap

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        return self.tap.embedding(inputs, *self.promote_dtype((self.embedding[...],), dtype=self.dtype, inexact=False))

    def attend(self, query: jax.Array, out_sharding: Any = None) -> jax.Array:
        query, table = self.promote_dtype((query, self.embedding[...]), dtype=self.dtype)
        return self.tap.dense(query, table.T)


class _LoRA(nnx.LoRA):
    tap: Tap

    def __call__(self, x: jax.Array, **kwargs: Any) -> jax.Array:
        x, a, b = self.promote_dtype((x, self.lora_a[...], self.lora_b[...]), dtype=self.dtype)
        z = self.tap.dense(self.tap.dense(x, a), b)
        return z if self.base_module is None else z + self.base_module(x, **kwargs)


class _LoRALinear(nnx.LoRALinear):
    tap: Tap

    def __call__(self, x: jax.Array, out_sharding: Any = None) -> jax.Array:
        return self.tap.dense(*_promoted(self, x)) + self.lora(x)


class _LayerNorm(nnx.LayerNorm):
    def __call__(self, x: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
        return _normalised(self, nnx.LayerNorm, x, mask=mask)


class _RMSNorm(nnx.RMSNorm):
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        return _normalised(self, nnx.RMSNorm, x, mask=mask)


class _GroupNorm(nnx.GroupNorm):
    def __call__(self, x: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
        return _normalised(self, nnx.GroupNorm, x, mask=mask)


def _normalised(layer: Any, kind: Any, x: jax.Array, **options: Any) -> jax.Array:
    """The normalisation without its parameters, then a tap with them."""
    variables = {name: getattr(layer, name) for name in ("scale", "bias") if getattr(layer, name, None) is not None}
    for name in variables:
        object.__setattr__(layer, name, None)
    z = kind.__call__(layer, x, **options)
    for name, variable in variables.items():
        object.__setattr__(layer, name, variable)
    given = [variables[name][...] if name in variables else None for name in ("scale", "bias")]
    return layer.tap.scale_shift(*layer.promote_dtype((z, *given), dtype=layer.dtype)) if variables else z


TAPPED: dict[type, type] = {
    nnx.Linear: _Linear,
    nnx.LinearGeneral: _LinearGeneral,
    nnx.Conv: _Conv,
    nnx.Embed: _Embed,
    nnx.LoRA: _LoRA,
    nnx.LoRALinear: _LoRALinear,
    nnx.LayerNorm: _LayerNorm,
    nnx.RMSNorm: _RMSNorm,
    nnx.GroupNorm: _GroupNorm,
}


def _promoted(layer: Any, inputs: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Inputs, kernel and bias in the dtype in which the layer computes."""
    bias = None if layer.bias is None else layer.bias[...]
    return layer.promote_dtype((inputs, layer.kernel[...], bias), dtype=layer.dtype)


def _each(value: Any, layer: nnx.Conv) -> tuple[int, ...]:
    """One number for each axis of space."""
    value = 1 if value is None else value
    return (value,) * (layer.kernel.ndim - 2) if isinstance(value, int) else tuple(value)


def _pairs(padding: Any, layer: nnx.Conv) -> list[tuple[int, int]]:
    each = (padding,) * (layer.kernel.ndim - 2) if isinstance(padding, int) else padding
    return [(one, one) if isinstance(one, int) else tuple(one) for one in each]
