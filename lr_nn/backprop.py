"""The backward pass, written once.

    δ_L     = ∂ℓ/∂η
    δ_l     = (δ_{l+1} w_{l+1}ᵀ) ∘ σ'(z_l)
    ∂ℓ/∂w_l = a_{l-1}ᵀ δ_l,   ∂ℓ/∂b_l = Σ_i δ_l

Rumelhart, Hinton & Williams (1986). The recursion is `pullback`; what seeds it decides what comes out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lr_nn import check
from lr_nn.network import Network, admit, check_activations, check_params, linear_predictor
from lr_nn.trees import accumulator, add, divide, lift
from lr_nn.types import Backprop, Batch, Layer, Params


def backprop(net: Network, params: Params, x: ArrayLike, y: ArrayLike, offset: ArrayLike | None = None) -> Backprop:
    """One forward and one backward pass over `x` (n, d) with targets `y`.

    Activations, deltas δ_l = ∂ℓ_i/∂z_l (n, d_l) and η per example, unscaled: nothing is summed or averaged.
    `offset` is added to η. Raises ValueError or TypeError for data that do not fit the network.

    >>> import jax, lr_nn
    >>> net = lr_nn.mlp((3, 5, 2))
    >>> params = lr_nn.init(net, jax.random.key(0))
    >>> bp = lr_nn.backprop(net, params, x=jax.numpy.ones((4, 3)), y=jax.numpy.ones((4, 2)))
    >>> [delta.shape for delta in bp.deltas]
    [(4, 5), (4, 2)]
    """
    return sweep(net, params, admit(net, params, Batch(x, y, offset=offset)))


def sweep(net: Network, params: Params, batch: Batch) -> Backprop:
    """`backprop` on an admitted batch."""
    activations, eta = linear_predictor(net, params, batch)
    y = net.loss.encode(batch.y, eta)
    deltas = pullback(net, params, activations, net.loss.residual(eta, y))
    return Backprop(activations, deltas, eta, y, net.loss, net.bias, net.hidden)


def pullback(
    net: Network, params: Params, activations: tuple[jax.Array, ...], seed: jax.Array
) -> tuple[jax.Array, ...]:
    """The δ-recursion from `seed` (..., n, k) at η: (δ_1, ..., δ_L), each (..., n, d_l).

    Linear in the seed. The residual gives the errors of the loss; columns of the Fisher factor, on a leading
    axis, those of the Gauss-Newton matrix. Raises ValueError for activations or a seed of another shape.
    """
    check_params(net, params)
    check_activations(net, activations)
    n, seed = activations[0].shape[0], check.cast(check.numeric("seed", seed), params[0].w.dtype)
    if seed.shape[-2:] != (n, net.sizes[-1]):
        raise ValueError(f"seed must have shape (..., {n}, {net.sizes[-1]}); got {seed.shape}")
    deltas = [seed]
    for layer, activation, a in zip(params[:0:-1], net.hidden[::-1], activations[:0:-1]):
        back = deltas[-1] @ layer.w.T
        deltas.append(back * lift(activation.derivative(a), back.ndim))
    return tuple(deltas[::-1])


def gradient(bp: Backprop, weight: ArrayLike | None = None) -> Params:
    """Σ_i s_i g_i / Σ_i s_i, the weighted mean of per-example gradients, shaped like the parameters.

    `weight` s (n,) defaults to ones; integer weights are duplicated rows. No penalty is added.
    """
    weight, total = example_weights(bp, weight)
    return divide(contract(bp, weight), total, bp.eta.dtype)


def sum_over_seeds(
    net: Network,
    params: Params,
    activations: tuple[jax.Array, ...],
    seeds: jax.Array,
    function: Callable[[tuple[jax.Array, ...]], Any],
) -> Any:
    """Σ_c function(deltas of `seeds[c]`), seed by seed.

    All at once take as many times the memory, and XLA:CPU adds up along a leading axis three times slower than it
    makes the deltas.
    """

    def of(seed: jax.Array) -> Any:
        return function(pullback(net, params, activations, seed))

    return jax.lax.scan(lambda total, seed: (add(total, of(seed)), None), of(seeds[0]), seeds[1:])[0]


def example_weights(bp: Backprop, weight: ArrayLike | None) -> tuple[jax.Array | None, jax.Array]:
    """Checked weights s (n,) relative to the largest, or None for ones, and their sum (of padding only, one).

    For means, which do not see a common factor: half precision would lose it, and a sum of large weights overflow.
    """
    check_pass(bp)
    n, dtype = bp.eta.shape[0], accumulator(bp.eta.dtype)
    if weight is None:
        return None, jnp.asarray(n, dtype)
    weight = check.weights(weight, n, dtype)
    largest = weight.max()
    weight = weight / jnp.where(largest > 0, largest, jnp.ones_like(largest))
    total = weight.sum()
    return weight, jnp.where(total > 0, total, jnp.ones_like(total))


def widened(bp: Backprop) -> Backprop:
    """The pass in float32 if it was of half precision: for what cancels, and for bounds that must hold."""
    return jax.tree.map(lambda a: a.astype(accumulator(a.dtype)), bp)


def contract(bp: Backprop, weight: jax.Array | None = None) -> Params:
    """Σ_i s_i g_i: a_{l-1}ᵀ (s δ_l) and Σ_i s_i δ_l for every layer, in float32 for half precision."""
    deltas = (weighted(delta, weight) for delta in bp.deltas)
    return tuple(
        Layer(weight_gradient((a, delta)), bias_gradient(delta) if bp.bias else None)
        for a, delta in zip(bp.activations, deltas)
    )


def weighted(rows: jax.Array, weight: jax.Array | None) -> jax.Array:
    """s_i times row i of `rows` (n, k), in its dtype; a row of weight zero is zero, even if it was not finite."""
    if weight is None:
        return rows
    return jnp.where((weight != 0)[:, None], weight[:, None].astype(rows.dtype) * rows, jnp.zeros_like(rows))


def weight_gradient(*pairs: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Σ aᵀ δ, (d_{l-1}, d_l), over pairs of `a` (n, d_{l-1}) and `delta` (n, d_l), in float32 for half precision.

    Written (Σ δᵀ a)ᵀ, for which XLA:CPU makes no transposed copy of `a`. Of a thin δ a barrier keeps the compiler
    from turning that back into aᵀ δ: 2 to 4 times faster.
    """
    first, *rest = (_product(a, delta) for a, delta in pairs)
    total = sum(rest, first)
    return (jax.lax.optimization_barrier(total) if NARROW * len(total) <= total.shape[1] else total).T


def bias_gradient(delta: jax.Array) -> jax.Array:
    """Σ_i δ_i, (d_l,), in float32 for half precision."""
    return delta.sum(axis=0, dtype=accumulator(delta.dtype))


def _product(a: jax.Array, delta: jax.Array) -> jax.Array:
    """δᵀ a, (d_l, d_{l-1}).

    Where `a` is large and δ thin, as a batch of products over blocks of rows, each read by one core: 1.5 to 2 times
    faster there.
    """
    rows, dtype = rows_per_product(a, delta.shape[1]), accumulator(a.dtype)
    if rows is None:
        return jnp.matmul(delta.T, a, preferred_element_type=dtype)
    a, delta = a.reshape(-1, rows, a.shape[1]), delta.reshape(-1, rows, delta.shape[1])
    return jnp.einsum("pnk,pnd->pkd", delta, a, preferred_element_type=dtype).sum(axis=0)


def squared(bp: Backprop) -> Backprop:
    """The pass with a² and δ² in place of a and δ: contracted, it gives sums of squared gradients.

    In float32 if the pass was of half precision.
    """

    def square(arrays: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return tuple(jnp.square(a.astype(accumulator(a.dtype))) for a in arrays)

    return replace(bp, activations=square(bp.activations), deltas=square(bp.deltas))


def input_gradient(net: Network, params: Params, bp: Backprop) -> jax.Array:
    """∂ℓ_i/∂x_i = δ_1 w_1ᵀ, (n, d): how each example's loss answers to its own input."""
    check_backprop(net, params, bp)
    return bp.deltas[0] @ params[0].w.T


def check_backprop(net: Network, params: Params, bp: Backprop) -> None:
    """Raise ValueError if `bp` is not a pass of this network with parameters of this shape."""
    check_pass(bp)
    check_params(net, params)
    check_activations(net, bp.activations)
    widths = tuple(delta.shape[-1] for delta in bp.deltas)
    if (widths, bp.loss, bp.bias, bp.hidden) != (net.sizes[1:], net.loss, net.bias, net.hidden):
        raise ValueError(
            f"expected a Backprop of this network, {_described(net.sizes[1:], net)}; got {_described(widths, bp)}"
        )


def check_pass(bp: Backprop) -> None:
    """Raise TypeError if `bp` is no pass, ValueError if it is not one of a single network over one batch of rows."""
    if not isinstance(bp, Backprop):
        raise TypeError(f"expected a Backprop, as lr_nn.backprop returns it; got {type(bp).__name__}")
    shapes = [a.shape for a in (*bp.activations, *bp.deltas, bp.eta)]
    if len(bp.activations) != len(bp.deltas) or any(len(s) != 2 or s[0] != shapes[0][0] for s in shapes):
        raise ValueError(
            "expected as many activations as deltas, each (n, width) over the same n rows (lanes go through vmap); "
            f"got {[a.shape for a in bp.activations]} and {[d.shape for d in bp.deltas]}"
        )


def _described(widths: tuple[int, ...], of: Network | Backprop) -> str:
    return f"layers {widths}, {[a.name for a in of.hidden]}, {of.loss.name} loss, bias={of.bias}"


def wants_blocks(a: jax.Array, width: int) -> bool:
    """Is `a` so large, and a δ of so many columns so thin, that aᵀ δ gains by blocks of rows?

    Only on a CPU with one device: elsewhere `a` may be spread over devices, which a tracer does not tell.
    """
    one_cpu = jax.default_backend() == "cpu" and jax.device_count() == 1
    return one_cpu and width <= THIN and a.size * a.dtype.itemsize >= LARGE


def rows_per_product(a: jax.Array, width: int) -> int | None:
    """Rows of a block of a few megabytes that divides n, or None where one product is as good.

    Where no block divides n (a prime, say) the remainder would have to be sliced off, and XLA:CPU copies what it
    slices: one product is faster than that.
    """
    if not wants_blocks(a, width):
        return None
    target = max(1, BLOCK // (a.shape[1] * a.dtype.itemsize))
    candidates = (*range(target, target // 4, -1), *range(target + 1, 4 * target))
    return next((rows for rows in candidates if a.shape[0] % rows == 0), None)


THIN, LARGE, BLOCK = 4, 2**24, 2**21
NARROW = 8
