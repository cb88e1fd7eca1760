"""Networks to and from flax.nnx: `kernel` is w, `bias` is b."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from lr_nn.interop.flax import comparison
from lr_nn.interop.flax.layers import Function, dense, functions, joined
from lr_nn.network import Network, check_params
from lr_nn.types import Params


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


def from_nnx(model: nnx.Module | Iterable[Any], net: Network | None = None) -> Params:
    """Parameters from an nnx model of `Linear` layers, or from layers in order, e.g. (model.first, model.second).

    The outputs of the model on random inputs are compared with those of the converted network, and a difference is
    refused. An `nnx.Sequential` (or layers in order) brings its activations along: functions of each entry by itself,
    after the last layer also a softmax, as the loss has it. Any other module is compared with `net`, its layers in the
    order in which they were assigned: its outputs are η, or the mean of the response. Give `net` to a Sequential, too,
    if its activations are to be those of the network. Dropout that is off, or of rate 0, is passed over. Where only
    some layers have a bias (or `net` has one) the others get one of zeros.

    Raises ValueError, by name, for any other layer or variable (normalisation, convolution, ...), dropout that is on,
    and outputs that differ.
    """
    if not isinstance(model, nnx.Module):
        if not isinstance(model, Iterable):
            raise TypeError(f"expected an nnx module, or layers in order; got {type(model).__name__}")
        model = nnx.Sequential(*model)
    _refuse_others(model)
    steps = list(_steps(model)) if type(model) is nnx.Sequential else []
    plain = bool(steps) and not any(isinstance(step, nnx.Module) and _holds_layers(step) for _, step in steps)
    linears = [step for _, step in steps if isinstance(step, nnx.Linear)] if plain else list(_linears(model))
    if not linears:
        raise ValueError("expected at least one nnx.Linear layer; got none")
    layers = [dense(f"Linear {i}", _variables(linear)) for i, linear in enumerate(linears)]
    if net is not None:
        hidden, final = functions(net)
    elif plain:
        hidden, final = _functions_between(steps)
    else:
        own = next((f"{path} is a" for path, step in steps if isinstance(step, nnx.Module) and _holds_layers(step)), "")
        raise ValueError(
            f"{own} {type(model).__name__}".strip() + ": a module that calls its layers itself does not show its "
            "activations; pass net=, the network that it is, or its layers in order"
        )
    params = joined(layers, net)
    graph, state = nnx.split(model)
    wide = nnx.merge(graph, comparison.widened(state))
    comparison.require_same_outputs(type(model).__name__, wide, params, hidden, final)
    return params


def _refuse_others(model: nnx.Module) -> None:
    """Raise for every layer of flax's that has no counterpart, then for every variable outside of dense layers."""
    nodes = list(nnx.iter_graph(model))
    dense = {path for path, node in nodes if isinstance(node, nnx.Linear)}
    for path, node in nodes:
        if isinstance(node, nnx.Dropout):
            if node.rate > 0 and not node.deterministic:
                raise ValueError(f"{_shown(path)} is a Dropout of rate {node.rate} that is on; call model.eval() first")
        elif type(node).__module__.startswith("flax.nnx.nn") and isinstance(node, nnx.Module) and path not in dense:
            raise ValueError(f"{_shown(path)} is a {type(node).__name__}, which a Network has no counterpart for")
    for path, node in nodes:
        if isinstance(node, nnx.Variable) and not isinstance(node, nnx.RngState) and path[:-1] not in dense:
            raise ValueError(f"{_shown(path)} is a {type(node).__name__}, which a Network has no counterpart for")


def _shown(path: tuple[Any, ...]) -> str:
    """layers[1].scale"""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".") or "the model"


def _steps(model: nnx.Sequential, path: str = "") -> Iterator[tuple[str, Any]]:
    """What a Sequential applies, with paths; a Sequential in it as its own steps."""
    for i, step in enumerate(model.layers):
        if type(step) is nnx.Sequential:
            yield from _steps(step, f"{path}layers[{i}].")
        else:
            yield f"{path}layers[{i}]", step


def _holds_layers(step: nnx.Module) -> bool:
    return not isinstance(step, nnx.Linear) and any(isinstance(node, nnx.Linear) for _, node in nnx.iter_graph(step))


def _linears(node: Any) -> Iterator[nnx.Linear]:
    """Dense layers in the order of attributes and of lists."""
    if isinstance(node, nnx.Linear):
        yield node
    elif isinstance(node, (list, tuple, nnx.List)):
        for each in node:
            yield from _linears(each)
    elif isinstance(node, (Mapping, nnx.Module, nnx.Dict)):
        items = node if isinstance(node, Mapping) else vars(node)
        for name, each in items.items():
            if not str(name).startswith("_pytree"):
                yield from _linears(each)


def _variables(linear: nnx.Linear) -> dict[str, Any]:
    bias = {} if linear.bias is None else {"bias": linear.bias[...]}
    return {"kernel": linear.kernel[...], **bias}


def _functions_between(steps: list[tuple[str, Any]]) -> tuple[list[Function], list[Function]]:
    """The functions between the dense layers of a Sequential, and the one after them."""
    between: list[list[Function]] = [[]]
    last = max(i for i, (_, step) in enumerate(steps) if isinstance(step, nnx.Linear))
    for i, (path, step) in enumerate(steps):
        if isinstance(step, nnx.Linear):
            between.append([])
        elif not isinstance(step, nnx.Dropout):
            if not (_is_elementwise(step) or (i > last and _is_softmax(step))):
                raise ValueError(f"{path}, {step!r:.80}, is not a function of each entry by itself, as activations are")
            between[-1].append(step)
    before, *hidden, final = [_composed(group) for group in between]
    x = comparison.inputs(3)
    if not (before(x) == x).all():
        raise ValueError(f"{steps[0][0]} changes the inputs before the first layer, which a Network does not")
    return hidden, [final]


def _composed(group: list[Function]) -> Function:
    def apply(z: jax.Array) -> jax.Array:
        for function in group:
            z = function(z)
        return z

    return apply


def _is_elementwise(function: Function) -> bool:
    """True if each entry of the outputs on random inputs is the one that its own input gives alone."""
    z = comparison.inputs(3)
    try:
        whole, alone = function(z), jax.vmap(function)(z.reshape(-1, 1, 1)).reshape(z.shape)
    except Exception:  # whatever a function of other shapes raises
        return False
    return whole.shape == z.shape and bool(jnp.allclose(whole, alone, rtol=1e-5, atol=1e-30, equal_nan=True))


def _is_softmax(function: Function) -> bool:
    z = comparison.inputs(3)
    try:
        return bool(jnp.allclose(function(z), jax.nn.softmax(z, axis=1), rtol=1e-5, atol=1e-30))
    except Exception:  # whatever a function of other shapes raises
        return False
