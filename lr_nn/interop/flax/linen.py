"""Networks to and from flax.linen: `kernel` is w, `bias` is b."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import linen

from lr_nn.interop.flax import comparison
from lr_nn.interop.flax.layers import dense, functions, joined
from lr_nn.network import Network
from lr_nn.types import Params


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


def from_linen(
    variables: Mapping[str, Any],
    model: linen.Module | Callable[[Any, jax.Array], jax.Array] | None = None,
    net: Network | None = None,
) -> Params:
    """Parameters from the variables of a linen module of dense layers.

    With `model` and `net` the layers are those that the model calls, in that order (a layer called twice comes twice),
    and the outputs of the model on random inputs are compared with those of the network, η or the mean of the
    response: what has no counterpart is refused. model: the module, or a function (variables, x) of more arguments,
    such as `lambda variables, x: module.apply(variables, x, train=False)`.

    Without them all layers have to be dense, numbered (Dense_0, layers_2, ...) and of matching widths, and are taken in
    the order of their numbers. Variables do not show activations, residual connections, scalings and dropout: nothing
    is compared then. Where only some layers have a bias (or `net` has one) the others get one of zeros.

    Raises ValueError, by name, for a layer that is not dense, dropout that is on, and outputs that differ.
    """
    variables = linen.meta.unbox(variables)
    layers = variables.get("params", variables)
    if layers is not variables:
        for name, collection in variables.items():
            if name != "params" and jax.tree.leaves(collection):
                raise ValueError(f"variables hold {name} ({', '.join(collection)}), which a Network has no place for")
    if model is None:
        names = sorted(layers, key=_number)
        numbers = [_number(name) for name in names]
        for name, other, number, following in zip(names, names[1:], numbers, numbers[1:]):
            if number == following:
                raise ValueError(f"{name} and {other} have one number: their order is unknown; pass model= and net=")
        return joined([dense(name, layers[name]) for name in names], net)
    if net is None:
        raise TypeError("a model is compared with a network; pass net= as well")
    called: list[str] = []
    wide = comparison.widened({"params": layers})

    def apply(x: jax.Array) -> Any:
        return model.apply(wide, x) if isinstance(model, linen.Module) else model(wide, x)

    def note(following: Callable, args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name == "__call__" and _is_dense(context.module, args, kwargs):
            called.append("/".join(context.module.path))
        return following(*args, **kwargs)

    with linen.intercept_methods(note):
        try:
            widest = max((leaf.dtype for leaf in jax.tree.leaves(wide)), key=lambda kind: kind.itemsize)
            apply(comparison.inputs(net.sizes[0], widest))
        except _NoCounterpartError as error:
            raise ValueError(str(error)) from None
        except Exception as error:
            raise ValueError(f"the model cannot be called on inputs (n, {net.sizes[0]}): {error}") from error
    found = [dense(path, _at(layers, path)) for path in called]
    params = joined(found, net)
    comparison.require_same_outputs("the model", apply, params, *functions(net))
    return params


class _NoCounterpartError(Exception):
    """A layer that no Network has, met while a model is called."""


def _is_dense(module: linen.Module, args: Any, kwargs: Any) -> bool:
    """True for a dense layer; raises for flax's other layers, but not for dropout that is off and containers."""
    name = f"{'/'.join(module.path) or 'the model'} is a {type(module).__name__}"
    if isinstance(module, linen.Dense):
        return True
    if isinstance(module, linen.Dropout):
        off = args[1] if len(args) > 1 else kwargs.get("deterministic", module.deterministic)
        if module.rate > 0 and not (off or module.deterministic):
            raise _NoCounterpartError(
                f"{name} of rate {module.rate} that is on; call the model with deterministic=True"
            )
    elif type(module).__module__.startswith("flax.linen") and not isinstance(module, linen.Sequential):
        raise _NoCounterpartError(f"{name}, which a Network has no counterpart for")
    return False


def _at(layers: Mapping[str, Any], path: str) -> Any:
    for name in path.split("/") if path else ():
        layers = layers[name]
    return layers


def _number(name: str) -> int:
    match = re.search(r"_(\d+)$", name)
    if match is None:
        raise ValueError(f"expected numbered layers such as Dense_0; got {name!r}")
    return int(match.group(1))
