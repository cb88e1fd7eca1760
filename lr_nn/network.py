"""The architecture, its parameters, and the forward pass z_l = a_{l-1} w_l + b_l, a_l = σ(z_l) on admitted data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike

from lr_nn import activations, check, losses
from lr_nn.activations import Activation
from lr_nn.losses import Loss
from lr_nn.trees import accumulator, common_dtype, compiled
from lr_nn.types import Batch, Forward, Layer, Params

__all__ = [
    "Network",
    "init",
    "linear_regression",
    "logistic_regression",
    "mlp",
    "n_parameters",
    "poisson_regression",
    "softmax_regression",
]


@jax.tree_util.register_static
@dataclass(frozen=True, init=False)
class Network:
    """An architecture: hashable, compared by value, a pytree without leaves. Parameters live outside, in a pytree.

    It passes through `jit`, `vmap`, `grad` and `scan` like any argument: `jax.jit(lr_nn.cost)(net, params, batch)`.

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
        for activation in hidden:
            activation.check()
        loss.check()
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


def poisson_regression(d: int, k: int = 1) -> Network:
    """Counts with a log link: E[y_j] = e^{η_j}."""
    return Network((d, k), (), losses.poisson)


def mlp(
    sizes: Sequence[int],
    hidden: Activation | Sequence[Activation] = activations.sigmoid,
    loss: Loss = losses.bernoulli,
) -> Network:
    """A feed-forward network of the given `sizes`, one hidden activation for all layers or a tuple of them."""
    return Network(sizes, hidden, loss)


def n_parameters(net: Network) -> int:
    """Σ_l (d_{l-1} + 1) d_l, without the ones where the network has no bias."""
    check_network(net)
    return sum((d_in + net.bias) * d_out for d_in, d_out in net.shapes)


def init(net: Network, key: jax.Array, dtype: DTypeLike = jnp.float32) -> Params:
    """Initial parameters: a tuple of L layers (w, b) of `dtype`.

    A one-layer model starts at zero. A deep network draws
    the weights of a layer by the initializer of the activation that follows it (Glorot or He) and starts biases at
    zero; from all zeros its neurons would never differ. Raises ValueError for float64 while JAX has it off, TypeError
    for an integer dtype or for a `key` that is no random key.
    """
    check_network(net)
    check.key(key)
    dtype = jnp.dtype(dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"parameters must be of a floating dtype; got {dtype}")
    if dtype.itemsize == 8 and jnp.result_type(float) != dtype:
        raise ValueError(f"{dtype} needs jax.config.update('jax_enable_x64', True), or a call inside jax.enable_x64()")
    return _init(net, key, dtype)


@partial(compiled, static_argnames="dtype")
def _init(net: Network, key: jax.Array, dtype: np.dtype) -> Params:
    if len(net.shapes) == 1:
        rules = [jax.nn.initializers.zeros]
    else:
        rules = [activation.initializer() for activation in (*net.hidden, activations.identity)]
    keys = jax.random.split(key, len(net.shapes))
    return tuple(
        Layer(rule(k, shape, dtype), jnp.zeros(shape[1], dtype) if net.bias else None)
        for rule, k, shape in zip(rules, keys, net.shapes)
    )


def propagate(net: Network, params: Params, batch: Batch, z: jax.Array | None = None) -> Forward:
    """The forward pass of an admitted batch, its offset added to η; η is of float32 at least.

    z: z_1 (n, d_1), where it has been computed already. Every z_l and a_l has that name for `jax.checkpoint` and for
    `lr_nn.graph`, η the name z_L.
    """
    outputs = [batch.x]
    preactivations: list[jax.Array | None] = [None]
    for number, (layer, activation) in enumerate(zip(params, net.hidden), start=1):
        z = checkpoint_name(affine(layer, outputs[-1]) if z is None else z, f"z{number}")
        a = check.of_shape(f"value of {activation.name}", activation.value(z), z.shape)
        outputs.append(checkpoint_name(a, f"a{number}"))
        # Behind a barrier, so that intermediate results of σ are computed again for σ' instead of being kept beside z.
        preactivations.append(jax.lax.optimization_barrier(z) if activation.keeps == "z" else None)
        z = None
    last = outputs[-1]
    eta = affine(params[-1], last, accumulator(common_dtype(last.dtype, params[-1].w.dtype))) if z is None else z
    if batch.offset is not None:
        eta = eta + batch.offset.reshape(eta.shape).astype(eta.dtype)
    return Forward(tuple(outputs), tuple(preactivations), checkpoint_name(eta, f"z{len(params)}"))


def affine(layer: Layer, a: jax.Array, dtype: DTypeLike | None = None) -> jax.Array:
    """z = a w + b in the widest dtype of its operands, or in `dtype`; the bias is added once to every row."""
    operands = common_dtype(a.dtype, layer.w.dtype)
    dtype = dtype or common_dtype(operands, *(() if layer.b is None else (layer.b.dtype,)))
    z = jnp.matmul(a.astype(operands), layer.w.astype(operands), preferred_element_type=dtype)
    return z if layer.b is None else z + layer.b.astype(dtype)[None]


def check_network(net: Any) -> None:
    """Raise TypeError if `net` is no Network."""
    if not isinstance(net, Network):
        raise TypeError(f"net must be a Network, such as lr_nn.mlp((4, 8, 1)); got {net!r:.100}")


def check_params(net: Network, params: Any, name: str = "params") -> None:
    """Raise if `params`, the argument `name`, is not a tuple of layers of the network's shapes."""
    check_network(net)
    expected = [(shape, (shape[1],) if net.bias else None) for shape in net.shapes]
    if not isinstance(params, tuple) or not all(isinstance(layer, Layer) for layer in params):
        flat = (
            "; a flat vector becomes one by the second result of ravel_pytree(params)"
            if hasattr(params, "ndim")
            else ""
        )
        raise TypeError(
            f"{name} must be a tuple of Layer(w, b), as lr_nn.init returns; got {type(params).__name__}{flat}"
        )
    for leaf in jax.tree.leaves(params):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(f"{name} must be of a floating dtype; got {jnp.result_type(leaf)}")
    got = [(jnp.shape(w), None if b is None else jnp.shape(b)) for w, b in params]
    if got != expected:
        verb = "do" if name == "params" else "does"
        raise ValueError(f"{name} {verb} not fit the network: expected shapes (w, b) {expected}, got {got}")
