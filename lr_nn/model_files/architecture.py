"""Networks to JSON and back: a file holds names and numbers, never code."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from lr_nn import activations, losses
from lr_nn.activations import Activation
from lr_nn.losses import Loss
from lr_nn.losses.through import Through
from lr_nn.network import Network

ACTIVATIONS: dict[str, type[Activation]] = {
    activation.name: type(activation)
    for activation in (
        activations.identity,
        activations.step,
        activations.sigmoid,
        activations.tanh,
        activations.relu,
        activations.leaky_relu(),
        activations.elu,
        activations.softplus,
        activations.silu,
        activations.gelu,
        activations.gelu_tanh,
        activations.sine,
        activations.softsign,
    )
}
LOSSES: dict[str, type[Loss]] = {
    loss.name: type(loss)
    for loss in (
        losses.squared_error,
        losses.absolute_error,
        losses.bernoulli,
        losses.categorical,
        losses.poisson,
        losses.huber(1),
    )
}


def describe(net: Network) -> dict[str, Any]:
    """The network as a tree of names and numbers, fit for JSON.

    Raises TypeError for an activation or a loss that is not of this library: a file cannot hold its code.
    """
    return {
        "sizes": list(net.sizes),
        "hidden": [_describe_activation(activation) for activation in net.hidden],
        "loss": _describe_loss(net.loss),
        "bias": net.bias,
    }


def build(description: Any) -> Network:
    """The network that `describe` described; ValueError or TypeError for anything else."""
    sizes, hidden, loss, bias = _entries(description, "sizes", "hidden", "loss", "bias")
    if not isinstance(bias, bool) or not isinstance(sizes, list) or not isinstance(hidden, list):
        raise ValueError(f"expected lists of sizes and hidden activations, and a bias true or false; got {description}")
    return Network(sizes, [_build_activation(each) for each in hidden], _build_loss(loss), bias)


def _describe_activation(activation: Activation) -> dict[str, Any]:
    return _describe("activation", activation, ACTIVATIONS)


def _describe_loss(loss: Loss) -> dict[str, Any]:
    if type(loss) is Through:
        return {
            "name": "through",
            "activation": _describe_activation(loss.activation),
            "loss": _describe_loss(loss.inner),
        }
    return _describe("loss", loss, LOSSES)


def _describe(kind: str, value: Any, known: dict[str, Any]) -> dict[str, Any]:
    if known.get(value.name) is not type(value):
        raise _not_ours(kind, value, known)
    return {"name": value.name} | {field.name: getattr(value, field.name) for field in fields(value)}


def _build_activation(description: Any) -> Activation:
    return _build("an activation", description, ACTIVATIONS)


def _build_loss(description: Any) -> Loss:
    if isinstance(description, dict) and description.get("name") == "through":
        _, activation, inner = _entries(description, "name", "activation", "loss")
        return losses.through(_build_activation(activation), _build_loss(inner))
    return _build("a loss", description, LOSSES)


def _build(kind: str, description: Any, known: dict[str, Any]) -> Any:
    made = _named(description, known)
    values = _entries(description, "name", *(field.name for field in fields(made)))[1:]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"expected numbers as parameters of {kind}; got {description}")
    return made(*map(float, values))


def _named(description: Any, known: dict[str, Any]) -> Any:
    name = description.get("name") if isinstance(description, dict) else None
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"expected one of {', '.join(known)}; got {description}")
    return known[name]


def _entries(description: Any, *names: str) -> list[Any]:
    """The values of exactly these entries."""
    if not isinstance(description, dict) or set(description) != set(names):
        raise ValueError(f"expected the entries {', '.join(names)}; got {description}")
    return [description[name] for name in names]


def _not_ours(kind: str, value: Any, known: dict[str, Any]) -> TypeError:
    return TypeError(
        f"a model file names its {kind}, one of {', '.join(known)}, and holds no code; got {value!r}, which is of your "
        "own: save the parameters alone (numpy.savez), and build the network in your code"
    )
