"""The architecture, its parameters, and the forward pass z_l = a_{l-1} w_l + b_l, a_l = σ(z_l)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from lr_nn import activations, check, losses
from lr_nn.activations import Activation
from lr_nn.losses import Loss
from lr_nn.trees import accumulator
from lr_nn.types import Batch, Layer, Params


@dataclass(frozen=True, init=False)
class Network:
    """An architecture: hashable, compared by value, static under `jit`. Parameters live outside, in a pytree.

    sizes: (d_0, d_1, ..., d_L), input features, hidden widths, outputs. hidden: one activation for all L-1
    hidden layers, or a tuple of L-1; kept as a tuple. loss: on the linear predictor η = z_L. bias: False leaves
    out every b. Regression is the network with no hidden layer.

    Raises ValueError for sizes below one, too few outputs for the loss, or a wrong number of activations.
    """

    sizes: tuple[int, ...]
    hidden: tuple[Activation, ...]
    loss: Loss
    bias: bool

    def __init__(
        self, sizes: Sequence[int], hidden: Activation | Sequence[Activation], loss: Loss, bias: bool = True
    ) -> None:
        """Check and keep; a single activation becomes a tuple."""
        sizes = tuple(check.positive_integer("a size", size) for size in sizes)
        if len(sizes) < 2:
            raise ValueError(f"sizes must hold at least inputs and outputs, (d, k); got {sizes}")
        depth = len(sizes) - 2
        hidden = (hidden,) * depth if isinstance(hidden, Activation) else hidden
        if not isinstance(hidden, Sequence) or not all(isinstance(a, Activation) for a in hidden):
            raise TypeError(f"hidden must be activations such as lr_nn.activations.sigmoid; got {hidden!r}")
        if len(hidden) != depth:
            raise ValueError(f"{depth} hidden layers need {depth} activations (or one for all); got {len(hidden)}")
        if not isinstance(loss, Loss):
            raise TypeError(f"loss must be a loss such as lr_nn.losses.bernoulli; got {loss!r}")
        if sizes[-1] < loss.least_outputs:
            raise ValueError(f"a {loss.name} loss needs at least {loss.least_outputs} outputs; got {sizes[-1]}")
        object.__setattr__(self, "sizes", sizes)
        object.__setattr__(self, "hidden", tuple(hidden))
        object.__setattr__(self, "loss", loss)
        object.__setattr__(self, "bias", bool(bias))

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """The shape (d_{l-1}, d_l) of every weight."""
        return tuple(zip(self.sizes, self.sizes[1:]))


def linear_regression(d: int, k: int = 1) -> Network:
    """η = x w + b with the squared error."""
    return Network((d, k), (), losses.squared_error)


def logistic_regression(d: int, k: int = 1) -> Network:
    """k neurons that share the input, each a binary logistic regression: P(y_j = 1) = sigmoid(η_j)."""
    return Network((d, k), (), losses.bernoulli)


def softmax_regression(d: int, k: int) -> Network:
    """Exactly one of k classes: P(y = c) = softmax(η)_c."""
    return Network((d, k), (), losses.categorical)


def mlp(
    sizes: Sequence[int],
    hidden: Activation | Sequence[Activation] = activations.sigmoid,
    loss: Loss = losses.bernoulli,
) -> Network:
    """A feed-forward network of the given `sizes`, one hidden activation for all layers or a tuple of them."""
    return Network(sizes, hidden, loss)


def n_parameters(net: Network) -> int:
    """Σ_l (d_{l-1} + 1) d_l, without the ones where the network has no bias."""
    return sum((d_in + net.bias) * d_out for d_in, d_out in net.shapes)


def init(net: Network, key: jax.Array, dtype: DTypeLike = jnp.float32) -> Params:
    """Initial parameters: a tuple of L layers (w, b) of `dtype`.

    A one-layer model starts at zero (its cost is convex, or near enough). A deep one draws weights layer by
    layer by the rule of the activation that follows, Glorot or He, and starts biases at zero: from all zeros its
    neurons would never differ. Raises ValueError for float64 while JAX has it off, TypeError for an integer dtype
    or a key that is none.
    """
    check.key(key)
    dtype = jnp.dtype(dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"parameters must be of a floating dtype; got {dtype}")
    if dtype.itemsize == 8 and jnp.result_type(float) != dtype:
        raise ValueError(f"{dtype} needs jax.config.update('jax_enable_x64', True), or a call inside jax.enable_x64()")
    if len(net.shapes) == 1:
        rules = [jax.nn.initializers.zeros]
    else:
        rules = [activation.initializer() for activation in (*net.hidden, activations.identity)]
    keys = jax.random.split(key, len(net.shapes))
    return tuple(
        Layer(rule(k, shape, dtype), jnp.zeros(shape[1], dtype) if net.bias else None)
        for rule, k, shape in zip(rules, keys, net.shapes)
    )


def forward(net: Network, params: Params, x: ArrayLike) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """(a_0, ..., a_{L-1}) and η = z_L for inputs `x` (n, d); `x` is cast to the dtype of the parameters.

    Raises ValueError for a wrong width, an empty batch, or NaN and infinity in concrete inputs.
    """
    return propagate(net, params, admit_inputs(net, params, x))


def predict(net: Network, params: Params, x: ArrayLike) -> jax.Array:
    """The mean of the response, (n, k): probabilities, or values."""
    return net.loss.mean(forward(net, params, x)[1])


def propagate(net: Network, params: Params, x: jax.Array) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """`forward` on admitted inputs."""
    outputs = [x]
    for layer, activation in zip(params, net.hidden):
        outputs.append(activation.value(affine(layer, outputs[-1])))
    return tuple(outputs), affine(params[-1], outputs[-1])


def linear_predictor(net: Network, params: Params, batch: Batch) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """Activations and η of an admitted batch, its offset added."""
    outputs, eta = propagate(net, params, batch.x)
    return outputs, eta if batch.offset is None else eta + batch.offset


def affine(layer: Layer, a: jax.Array) -> jax.Array:
    """z = a w + b, the bias added once to every row."""
    z = a @ layer.w
    return z if layer.b is None else z + layer.b[None]


def admit_inputs(net: Network, params: Params, x: ArrayLike) -> jax.Array:
    """`x` checked against the network, in the dtype of the parameters."""
    check_params(net, params)
    return check.matrix("x", x, net.sizes[0], jnp.result_type(params[0].w))


def admit(net: Network, params: Params, batch: Batch) -> Batch:
    """Where data enter: a batch checked against the network, cast to the dtype of the parameters, values checked.

    Targets keep their own shape and dtype (labels stay integers) until the loss encodes them, block by block.
    """
    if not isinstance(batch, Batch):
        raise TypeError(f"data must be a Batch(x, y); got {type(batch).__name__}")
    x = admit_inputs(net, params, batch.x)
    n, k = x.shape[0], net.sizes[-1]
    weight, offset = batch.weight, batch.offset
    if weight is not None:
        weight = check.weights(weight, n, accumulator(x.dtype))
    if offset is not None:
        offset = admit_offset(offset, n, k, x)
    return Batch(x, net.loss.targets(batch.y, n, k, x.dtype), weight, offset)


def admit_offset(offset: ArrayLike, n: int, k: int, x: jax.Array) -> jax.Array:
    """An offset of the shape of η, (n, k), in the dtype of `x`; (n,) will do for one output."""
    offset = check.numeric("offset", offset)
    if offset.shape != (n, k) and not (k == 1 and offset.shape == (n,)):
        raise ValueError(f"offset must have the shape of eta, ({n}, {k}); got {offset.shape}")
    offset = jnp.asarray(offset, x.dtype).reshape(n, k)
    check.finite("offset", offset)
    return offset


def check_activations(net: Network, activations: tuple[jax.Array, ...]) -> None:
    """Raise ValueError if `activations` are not (a_0, ..., a_{L-1}) of the network."""
    if not isinstance(activations, tuple) or not all(hasattr(a, "shape") for a in activations):
        raise TypeError(f"activations must be a tuple of arrays, as forward returns it; got {activations!r:.100}")
    got = [a.shape for a in activations]
    n = got[0][:1] if got else ()
    if got != [(*n, width) for width in net.sizes[:-1]]:
        raise ValueError(f"activations must be of this network, (n, width) for widths {net.sizes[:-1]}; got {got}")


def check_params(net: Network, params: Any) -> None:
    """Raise if `params` is not a tuple of layers of the network's shapes."""
    if not isinstance(net, Network):
        raise TypeError(f"net must be a Network, such as lr_nn.mlp((4, 8, 1)); got {net!r:.100}")
    expected = [(shape, (shape[1],) if net.bias else None) for shape in net.shapes]
    if not isinstance(params, tuple) or not all(isinstance(layer, Layer) for layer in params):
        raise TypeError(f"params must be a tuple of Layer(w, b), as lr_nn.init returns; got {type(params).__name__}")
    for leaf in jax.tree.leaves(params):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(f"params must be of a floating dtype; got {jnp.result_type(leaf)}")
    got = [(jnp.shape(w), None if b is None else jnp.shape(b)) for w, b in params]
    if got != expected:
        raise ValueError(f"params do not fit the network: expected shapes (w, b) {expected}, got {got}")
