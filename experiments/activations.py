"""How far down does an error reach? By a factor a layer, of weights and of σ'.

In every layer the backward pass multiplies the error by weights and by σ'(z): δ_l = (δ_{l+1} w_{l+1}ᵀ) ∘ σ'(z_l). For
independent weights of variance v, d neurons a layer and z from N(0, q), its length changes by √(d v E[σ'(z)²]), and q
follows the forward pass, q_{l+1} = d v E[σ(z_l)²] (Poole et al., 2016; Schoenholz et al., 2017). That is held against
lr_nn.backprop at random parameters: as lr_nn.init draws them, smaller, and larger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from experiments import runner
from experiments.report import Section, Table

if TYPE_CHECKING:
    import numpy as np

    from lr_nn.activations import Activation
    from lr_nn.types import Params

NAMES = ("sigmoid", "tanh", "elu", "leaky_relu", "relu")
OUTPUTS, ROWS = 10, 32


@dataclass(frozen=True)
class Options(runner.Options):
    """The options of activations."""

    depths: tuple[int, ...] = (2, 5, 10, 20, 30)
    """Weight layers of the networks, growing."""
    scales: tuple[float, ...] = (0.5, 1.0, 2.0)
    """What the weights of lr_nn.init are multiplied by, growing; 1 is among them."""
    width: int = 128
    """Inputs, and neurons of every hidden layer."""
    draws: int = 16
    """Networks drawn of every kind."""


def main(options: Options, run: runner.Run) -> None:
    """Send errors down random networks, and tell how they fare."""
    if not runner.growing(options.depths, above=1):
        raise runner.UserError(f"--depths must be growing numbers of layers from 2 on; got {options.depths}")
    if options.depths[-1] < 3:
        raise runner.UserError(f"--depths must end at 3 layers or more, to have a factor; got {options.depths}")
    scales = options.scales
    if not runner.growing(scales, above=0) or 1 not in scales or not 1 < len(scales) <= 3:
        raise runner.UserError(f"--scales must be two or three growing positive numbers, 1 among them; got {scales}")
    if min(options.width, options.draws) < 1:
        raise runner.UserError("--width and --draws must be at least 1")

    from lr_nn import activations

    menu = {name: getattr(activations, name) for name in ("identity", "step", *NAMES, "softplus")}
    menu["leaky_relu"] = activations.leaky_relu(0.1)
    found = [row for name in NAMES for row in errors(menu[name], options)]
    for row in found:
        run.record(kind="errors", **row)
    tell(run, menu, found)


def errors(activation: Activation, options: Options) -> list[dict[str, Any]]:
    """For every depth and scale: ‖δ_l‖ / ‖δ_L‖ from layer 1 to L, the root of the mean square over networks and
    examples, as measured and as predicted; and their factor a hidden layer, a geometric mean.
    """
    import jax
    import jax.numpy as jnp

    import lr_nn

    net = lr_nn.mlp((*[options.width] * options.depths[-1], OUTPUTS), activation, lr_nn.losses.categorical)
    keys = jax.random.split(jax.random.key(options.seed), options.draws)
    drawn = jax.vmap(lambda key: lr_nn.init(net, key))(keys)
    scaled = jax.tree.map(lambda a: jnp.tensordot(jnp.asarray(options.scales), a, axes=0), drawn)
    # A network of fewer layers is the first of them and the last.
    return [row for depth in options.depths for row in reach(activation, (*scaled[: depth - 1], scaled[-1]), options)]


def reach(activation: Activation, scaled: Params, options: Options) -> list[dict[str, Any]]:
    """`errors` of one depth, of parameters with two leading axes: scales and networks."""
    import jax
    import numpy as np

    import lr_nn

    depth = len(scaled)
    net = lr_nn.mlp((*[options.width] * depth, OUTPUTS), activation, lr_nn.losses.categorical)
    x = jax.random.normal(jax.random.key(options.seed), (ROWS, options.width))
    batch = lr_nn.Batch(x, np.arange(ROWS) % OUTPUTS)
    deltas = jax.vmap(jax.vmap(lambda params: lr_nn.backprop(net, params, batch).deltas))(scaled)
    # In float64: the square of an error that has vanished is none of float32.
    squares = np.array([np.square(np.asarray(delta, float)).sum(axis=-1).mean(axis=(1, 2)) for delta in deltas]).T
    found = []
    for i, scale in enumerate(options.scales):
        row: dict[str, Any] = {"name": activation.name, "depth": depth, "scale": scale}
        expected = predicted(activation, jax.tree.map(itemgetter(i), scaled))
        for how, lengths in (("measured", np.sqrt(squares[i] / squares[i, -1])), ("predicted", expected)):
            row[how] = lengths.tolist()
            row[f"{how}_factor"] = float((lengths[0] / lengths[-2]) ** (1 / (depth - 2))) if depth > 2 else None
        found.append(row)
    return found


def predicted(activation: Activation, params: Params) -> np.ndarray:
    """‖δ_l‖ / ‖δ_L‖ from layer 1 to L for inputs from N(0, 1), by the variances of the weights alone."""
    import jax.numpy as jnp
    import numpy as np

    # An even number of nodes: none at zero, where some have a kink.
    nodes, shares = np.polynomial.hermite_e.hermegauss(100)
    variances = [float(np.square(np.asarray(w, float)).mean()) for w, _ in params]
    signal, factors = 1.0, []
    for (w, _), variance, above in zip(params, variances, variances[1:]):
        d_in, d_out = w.shape[-2:]
        a = activation.value(jnp.asarray(np.sqrt(d_in * variance * signal) * nodes, jnp.float32))
        signal, slope = (
            float(np.square(np.asarray(of, float)) @ shares / shares.sum()) for of in (a, activation.derivative(a))
        )
        factors.append(np.sqrt(d_out * above * slope))
    return np.append(np.cumprod(factors[::-1])[::-1], 1.0)


def tell(run: runner.Run, menu: Mapping[str, Activation], found: Sequence[dict[str, Any]]) -> None:
    """The finding, the tables and the figures."""
    from experiments import network_figures

    deepest = max(row["depth"] for row in found)
    scales = sorted({row["scale"] for row in found})
    at = {(row["name"], row["scale"], row["depth"]): row for row in found}

    def end(name: str, scale: float = 1.0, depth: int = deepest) -> float:
        return at[name, scale, depth]["measured"][0]

    def factor(name: str, scale: float = 1.0, how: str = "measured") -> float:
        return at[name, scale, deepest][f"{how}_factor"]

    worst = max(abs(factor(*of) / factor(*of, "predicted") - 1) for of in ((n, s) for n in NAMES for s in scales))
    others = [f"{end('relu', s):.0e} of its length with weights {s:g} times as large" for s in scales if s != 1]
    finding = (
        f"With the weights of lr_nn.init an error that goes down {deepest} layers is left with {end('sigmoid'):.0e} of "
        f"its length by the sigmoid, a factor of {factor('sigmoid'):.3f} a layer, with {end('tanh'):.2g} by tanh, "
        f"{factor('tanh'):.3f} a layer, and with {end('relu'):.2g} by relu, {factor('relu'):.3f} a layer. "
        f"√(d v E[σ'²]) says so before anything is run: all {len(NAMES) * len(scales)} measured factors are within "
        f"{worst:.1%} of it. "
        f"The activation alone does not tell: relu leaves {' and '.join(others)}."
    )
    depths = sorted({row["depth"] for row in found})
    rows = [(name, *(f"{end(name, depth=depth):.2g}" for depth in depths)) for name in NAMES]
    lengths = Table(
        "Length of the first layer's error, relative to the last's", ("", *(f"{d}\nlayers" for d in depths)), rows
    )
    rows = [
        (name, *(f"{factor(name, s, how):.3f}" for s in scales for how in ("measured", "predicted"))) for name in NAMES
    ]
    columns = ("", *(text for s in scales for text in (f"× {s:g}", "pre-\ndicted")))
    factors = Table(f"Factor a layer in {deepest} layers, by the scale of the weights", columns, rows)
    pictures = (
        run.figure(
            "errors",
            network_figures.errors([row for row in found if row["depth"] == deepest], NAMES),
            alt=f"For each scale of the weights, the length of δ_l against the layer l, from 1 to {deepest}. {finding}",
            caption=f"Lengths of δ_l in networks of {deepest} layers, output right, input left. Dots are "
            "measured, lines predicted by √(d v E[σ'²]). The leaky relu has the slope 0.1.",
            wide=True,
        ),
        run.figure(
            "menu",
            network_figures.menu(menu),
            alt=f"{len(menu)} small plots of activations, each with its derivative: {', '.join(menu)}.",
            caption="The activations of lr_nn and their derivatives, which are functions of the output.",
            wide=True,
        ),
    )
    # The card of the site shows the first figure: what was found, before the menu that it was found with.
    sections = [
        Section("Down the layers", tables=(lengths, factors), figures=pictures[:1]),
        Section("The menu", figures=pictures[1:]),
    ]
    run.conclude("Activations, and how far an error reaches", finding, sections)
