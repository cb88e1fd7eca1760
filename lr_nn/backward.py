"""The forward pass and the backward pass, written once.

    δ_L     = ∂ℓ/∂η
    δ_l     = (δ_{l+1} w_{l+1}ᵀ) ∘ σ'(z_l)
    ∂ℓ/∂w_l = a_{l-1}ᵀ δ_l,   ∂ℓ/∂b_l = Σ_i δ_l

Rumelhart, Hinton & Williams (1986). The recursion is `pullback`; its seed decides what it computes. Every public
function checks its arguments on the host and then runs one compiled program for each batch size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import singledispatch, wraps
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import ArrayLike

from lr_nn import check
from lr_nn.admission import admit, admit_inputs
from lr_nn.network import Network, check_params, propagate
from lr_nn.row_sums import bias_gradient, weight_gradient, weighted
from lr_nn.trees import add, cast, common_dtype, compiled, divide, dtypes_of, lift, widened
from lr_nn.types import Backprop, Batch, Forward, Layer, Params, Pass

__all__ = ["backprop", "forward", "gradient", "input_gradient", "predict", "pullback"]


def forward(net: Network, params: Params, x: ArrayLike, offset: ArrayLike | None = None) -> Forward:
    """Activations a_0, ..., a_{L-1}, kept pre-activations, and η = z_L + offset for inputs `x` (n, d).

    `x` is cast to the dtype of the first weight; η is of float32 at least. Raises ValueError or TypeError for inputs
    that do not fit the network, an empty batch, or NaN and infinity in concrete arrays.
    """
    inputs = admit_inputs(net, params, x, offset)
    found = _forward(net, params, inputs)
    return found._replace(activations=(inputs.x, *found.activations))


def predict(net: Network, params: Params, x: ArrayLike, offset: ArrayLike | None = None) -> jax.Array:
    """The mean of the response, (n, k): probabilities for labels and classes, else values. Raises as `forward` does."""
    return _predict(net, params, admit_inputs(net, params, x, offset))


@compiled
def _forward(net: Network, params: Params, inputs: Batch) -> Forward:
    """`propagate` without a_0, of which a compiled program would return a copy."""
    found = propagate(net, params, inputs)
    return found._replace(activations=found.activations[1:])


@compiled
def _predict(net: Network, params: Params, inputs: Batch) -> jax.Array:
    return loss_part(net, "mean", (inputs.x.shape[0], net.sizes[-1]), propagate(net, params, inputs).eta)


def backprop(net: Network, params: Params, batch: Batch) -> Backprop:
    """One forward and one backward pass: activations, deltas δ_l = ∂ℓ_i/∂z_l (n, d_l) and η, for each example.

    Deltas are unscaled and unweighted: nothing is summed or averaged. The weight of the batch is kept for the
    quantities that are weighted means. Raises ValueError or TypeError for data that do not fit the network.

    >>> import jax, lr_nn
    >>> net = lr_nn.mlp((3, 5, 2))
    >>> params = lr_nn.init(net, jax.random.key(0))
    >>> bp = lr_nn.backprop(net, params, lr_nn.Batch(x=jax.numpy.ones((4, 3)), y=jax.numpy.ones((4, 2))))
    >>> [delta.shape for delta in bp.deltas]
    [(4, 5), (4, 2)]
    """
    batch = admit(net, params, batch, allow_no_weight=True)
    bp = _sweep(net, params, batch)
    return replace(bp, activations=(batch.x, *bp.activations))


def sweep(net: Network, params: Params, batch: Batch, weigh: bool = False, z: jax.Array | None = None) -> Backprop:
    """`backprop` on an admitted batch; with `weigh` the weights multiply the deltas, from the residual down.

    z: z_1 (n, d_1), where it has been computed already.
    """
    found = propagate(net, params, batch, z)
    y = net.loss.target_rows(batch.y, found.eta)
    if weigh:
        found = found._replace(eta=without_overflow(net, found.eta, y, batch.weight))
    seed = loss_part(net, "residual", found.eta.shape, found.eta, y)
    deltas = recursion(net, params, found, weighted(seed, batch.weight) if weigh else seed)
    dtypes = tuple(Layer(*layer) for layer in dtypes_of(params))
    y = net.loss.encode(batch.y, found.eta)
    return Backprop(*found[:2], deltas, found.eta, y, batch.weight, net.loss, net.hidden, dtypes)


@compiled
def _sweep(net: Network, params: Params, batch: Batch) -> Backprop:
    """`sweep` without a_0, of which a compiled program would return a copy."""
    bp = sweep(net, params, batch)
    return replace(bp, activations=bp.activations[1:])


def example_losses(net: Network, eta: jax.Array, y: jax.Array) -> jax.Array:
    """ℓ_i (n,) of target rows; ValueError where `value` of the loss returns another shape."""
    return loss_part(net, "value", eta.shape[:1], eta, y)


def loss_part(net: Network, part: str, shape: tuple[int, ...], *args: Any) -> jax.Array:
    """The method `part` of the loss at `args`; ValueError where it returns no array of this shape."""
    return check.of_shape(f"{part} of the loss {net.loss.name}", getattr(net.loss, part)(*args), shape)


def without_overflow(net: Network, eta: jax.Array, y: jax.Array, weight: jax.Array | None) -> jax.Array:
    """η with zeros in the rows of weight zero whose loss is not finite.

    Such a row adds nothing to a weighted sum; autodiff would multiply its infinite derivative by zero, which is NaN.
    """
    if weight is None:
        return eta
    lost = (weight == 0) & ~jnp.isfinite(example_losses(net, jax.lax.stop_gradient(eta), y))
    return jnp.where(lost[:, None], jnp.zeros_like(eta), eta)


def pullback(net: Network, params: Params, forward: Forward, seed: ArrayLike) -> tuple[jax.Array, ...]:
    """The δ-recursion from `seed` (..., n, k) at η: (δ_1, ..., δ_L), each (..., n, d_l). It is linear in the seed.

    Seeds: the residual gives the deltas of the loss, the columns of the Fisher factor on a leading axis those of the
    Gauss-Newton matrix. Raises ValueError or TypeError for a forward pass or a seed of another shape.
    """
    check_params(net, params)
    check_forward(net, forward)
    seed, n = check.numeric("seed", seed), forward.eta.shape[0]
    if seed.shape[-2:] != (n, net.sizes[-1]):
        raise ValueError(f"seed must have shape (..., {n}, {net.sizes[-1]}); got {seed.shape}")
    return _recursion(net, params, forward, check.cast(seed, forward.eta.dtype))


def recursion(net: Network, params: Params, forward: Forward, seed: jax.Array) -> tuple[jax.Array, ...]:
    """`pullback` of checked arguments. Every δ_l has that name for `jax.checkpoint` and for `lr_nn.graph`."""
    deltas = [checkpoint_name(seed, f"δ{len(params)}")]
    for layer, activation, kept in zip(params[:0:-1], net.hidden[::-1], forward.kept[::-1]):
        dtype = common_dtype(kept.dtype, layer.w.dtype)
        back = (deltas[-1].astype(dtype) @ layer.w.astype(dtype).T).astype(kept.dtype)
        slope = check.of_shape(f"derivative of {activation.name}", activation.derivative(kept), kept.shape)
        deltas.append(checkpoint_name(back * lift(slope, back.ndim), f"δ{len(params) - len(deltas)}"))
    return tuple(deltas[::-1])


_recursion = compiled(recursion)


def checked_by(validate: Callable[[Any], None]) -> Callable[[Callable], Callable]:
    """A decorator of `function(bp, ...)`: `validate(bp)` on the host, then one compiled program."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        program = compiled(function)

        @wraps(function)
        def checked(bp: Pass, *args: Any) -> Any:
            validate(bp)
            return program(bp, *args)

        return checked

    return decorate


@singledispatch
def check_pass(bp: Any) -> None:
    """Raise TypeError if `bp` is no pass, ValueError if it is not one of a single model over one batch of rows."""
    if not isinstance(bp, Backprop):
        raise TypeError(f"expected a Backprop, as lr_nn.backprop returns it, or a TapPass; got {type(bp).__name__}")
    shapes = [a.shape for a in (*bp.activations, *bp.deltas, bp.eta)]
    if len(bp.activations) != len(bp.deltas) or any(len(s) != 2 or s[0] != shapes[0][0] for s in shapes):
        raise ValueError(
            "expected as many activations as deltas, each (n, width) over the same n rows (lanes go through vmap); "
            f"got {[a.shape for a in bp.activations]} and {[d.shape for d in bp.deltas]}"
        )
    if bp.weight is not None:
        check.multipliers(bp.weight, len(bp.eta), None)


def check_mean(bp: Any) -> None:
    """`check_pass` for a weighted mean: weights that are all zero are refused."""
    check_pass(bp)
    if bp.weight is not None:
        check.weights(bp.weight, bp.n, None)


@checked_by(check_mean)
def gradient(bp: Pass) -> Params:
    """Σ_i s_i g_i / Σ_i s_i: the weighted mean of per-example gradients, each leaf in the dtype of its parameter.

    Integer weights are duplicated rows. No penalty is added. Raises ValueError for weights that are all zero.
    """
    return cast(mean_gradient(bp), bp.dtypes)


def mean_gradient(bp: Pass) -> Params:
    """`gradient` in the dtype of the sums."""
    weight, total = relative_weights(bp)
    return divide(contract(bp, weight), total)


def sum_over_seeds(
    net: Network, params: Params, forward: Forward, seeds: jax.Array, function: Callable[[tuple[jax.Array, ...]], Any]
) -> Any:
    """Σ_c function(deltas of `seeds[c]`), one seed after another.

    All seeds at once take c times the memory, and XLA:CPU sums along a leading axis three times slower than it makes
    the deltas.
    """

    def of(seed: jax.Array) -> Any:
        return function(recursion(net, params, forward, seed))

    first = of(seeds[0])
    if len(seeds) == 1:
        return first
    return jax.lax.scan(lambda total, seed: (add(total, of(seed)), None), first, seeds[1:])[0]


def relative_weights(bp: Pass) -> tuple[jax.Array | None, jax.Array]:
    """Weights s (n,) divided by the largest, or None for ones, and their sum (one where all are zero).

    For means, which a common factor leaves unchanged: half precision would lose it, and a sum of large weights could
    overflow.
    """
    n, dtype = bp.n, bp.dtype
    if bp.weight is None:
        return None, jnp.asarray(n, dtype)
    largest = jax.lax.stop_gradient(bp.weight.max())  # a common factor has no derivative in a mean
    weight = bp.weight.astype(dtype) / jnp.where(largest > 0, largest, jnp.ones_like(largest)).astype(dtype)
    total = weight.sum()
    return weight, jnp.where(total > 0, total, jnp.ones_like(total))


@singledispatch
def contract(bp: Any, weight: jax.Array | None = None) -> Params:
    """Σ_i s_i g_i with s (n,), or (n, L): a_{l-1}ᵀ (s δ_l) and Σ_i s_i δ_l, in float32 for half precision."""
    weights = [weight] * len(bp.deltas) if weight is None or weight.ndim == 1 else list(weight.T)
    deltas = [weighted(delta, s) for delta, s in zip(bp.deltas, weights)]
    pairs = zip(bp.activations, deltas)
    return tuple(Layer(weight_gradient(pair), bias_gradient(pair[1]) if bp.bias else None) for pair in pairs)


def squared(bp: Backprop) -> Backprop:
    """The pass with a² and δ² in place of a and δ, in float32 for half precision: it contracts to Σ_i s_i g_i²."""
    wide = widened(bp)
    activations, deltas = (tuple(map(jnp.square, rows)) for rows in (wide.activations, wide.deltas))
    return replace(wide, activations=activations, deltas=deltas)


def input_gradient(net: Network, params: Params, bp: Backprop) -> jax.Array:
    """∂ℓ_i/∂x_i = δ_1 w_1ᵀ, (n, d): the derivative of each example's loss by its own input."""
    check_backprop(net, params, bp)
    return _input_gradient(params[0].w, bp.deltas[0])


@compiled
def _input_gradient(w: jax.Array, delta: jax.Array) -> jax.Array:
    dtype = common_dtype(w.dtype, delta.dtype)
    return (delta.astype(dtype) @ w.astype(dtype).T).astype(delta.dtype)


def check_forward(net: Network, forward: Forward) -> None:
    """Raise TypeError or ValueError if `forward` is not a forward pass of the network."""
    if not isinstance(forward, Forward):
        raise TypeError(f"forward must be what lr_nn.forward returns; got {type(forward).__name__:.100}")
    got = [jnp.shape(a) for a in (*forward.activations, forward.eta)]
    n = got[-1][:1]
    if got != [(*n, width) for width in net.sizes]:
        raise ValueError(
            f"forward must be a pass of this network, activations and eta (n, width) of widths {net.sizes}; got {got}"
        )
    expected = [shape if hidden.keeps == "z" else None for shape, hidden in zip(got[1:], net.hidden)]
    kept = [None if z is None else jnp.shape(z) for z in forward.preactivations]
    if kept != [None, *expected]:
        raise ValueError(
            "forward must be a pass of this network, with pre-activations where the derivative of the activation needs "
            f"them, of shapes {[None, *expected]}; got {kept}"
        )


def check_backprop(net: Network, params: Params, bp: Backprop) -> None:
    """Raise ValueError if `bp` is not a pass of this network with parameters of this shape."""
    check_pass(bp)
    check_params(net, params)
    check_forward(net, bp.forward)
    widths = tuple(delta.shape[-1] for delta in bp.deltas)
    if (widths, bp.loss, bp.bias, bp.hidden) != (net.sizes[1:], net.loss, net.bias, net.hidden):
        raise ValueError(
            f"expected a Backprop of this network, {_described(net.sizes[1:], net)}; got {_described(widths, bp)}"
        )


def _described(widths: tuple[int, ...], of: Network | Backprop) -> str:
    return f"layers {widths}, {[a.name for a in of.hidden]}, {of.loss.name} loss, bias={of.bias}"
