"""The quantities of a `TapPass`, registered with the functions that take passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lr_nn import check
from lr_nn.backward import check_pass, contract
from lr_nn.pass_quantities import (
    check_direction,
    check_same_model,
    contract_squares,
    example_gradients,
    inner_products_with,
    layer_norms,
    layer_squares,
    products,
)
from lr_nn.taps.layouts import Operand, overlap, to_leaf, to_operand
from lr_nn.taps.passes import TapPass
from lr_nn.taps.uses import Outer, Rows, Use, squared_norms, sum_of_gradients
from lr_nn.trees import accumulator


class Group(NamedTuple):
    """The uses of one leaf that share an operand, and the leaf's shape."""

    operand: Operand
    uses: list[Use]
    shape: tuple[int, ...]

    def to_leaf(self, array: jax.Array) -> jax.Array:
        """(n, S, ...) of the operand as (n, *shape) of the leaf, summed over the uses already."""
        return to_leaf(self.operand, array, self.shape)


def groups(bp: TapPass, leaf: int) -> list[Group]:
    """The uses of a leaf by the operand that they share."""
    found: dict[Operand, list[Use]] = {}
    for operand, use in zip(bp.operands[leaf], bp.uses[leaf]):
        found.setdefault(_without_numbers(operand), []).append(use)
    return [Group(operand, uses, bp.shapes[leaf]) for operand, uses in found.items()]


def _without_numbers(operand: Operand) -> Operand:
    """The operand without the numbers of its scans: two scans over one leaf take the same slices."""
    return operand._replace(scans=(0,) * len(operand.scans))


@check_pass.register
def _(bp: TapPass) -> None:
    if bp.losses.ndim != 1:
        raise ValueError(
            f"expected a pass over one batch; its losses have shape {bp.losses.shape} (lanes go through vmap)"
        )
    if bp.weight is not None:
        check.multipliers(bp.weight, len(bp.losses), None)


@contract.register
def _(bp: TapPass, weight: jax.Array | None = None) -> Any:
    def of(leaf: int) -> jax.Array:
        factors = weight[:, leaf] if weight is not None and weight.ndim == 2 else weight
        return _sum(bp, leaf, lambda group: sum_of(use.contract(factors) for use in group.uses)[None])[0]

    return bp.tree([of(leaf) for leaf in range(len(bp.uses))])


@example_gradients.register
def _(bp: TapPass) -> Any:
    return bp.tree([_leaf_gradients(bp, leaf) for leaf in range(len(bp.uses))])


@layer_squares.register
def _(bp: TapPass) -> jax.Array:
    return jnp.stack([_leaf_squares(bp, leaf) for leaf in range(len(bp.uses))], axis=1)


@contract_squares.register
def _(bp: TapPass, weight: jax.Array | None) -> Any:
    return bp.tree([_square_sum(bp, leaf, weight) for leaf in range(len(bp.uses))])


@layer_norms.register
def _(bp: TapPass) -> jax.Array:
    return jnp.stack([_leaf_norms(bp, leaf) for leaf in range(len(bp.uses))], axis=1)


@check_direction.register
def _(bp: TapPass, v: Any) -> None:
    if jax.tree.structure(v) != bp.structure or [jnp.shape(leaf) for leaf in jax.tree.leaves(v)] != [*bp.shapes]:
        raise ValueError(
            f"v must be like the parameters, leaves of shapes {[*bp.shapes]}; got {jax.tree.map(jnp.shape, v)}"
        )


@inner_products_with.register
def _(bp: TapPass, v: Any) -> jax.Array:
    total = jnp.zeros(len(bp.losses), accumulator(bp.losses.dtype))
    for leaf, uses, operands in zip(jax.tree.leaves(v), bp.uses, bp.operands):
        for use, operand in zip(uses, operands):
            along = to_operand(operand, leaf)
            along = along.reshape(-1, *along.shape[len(operand.scans) :])
            total = total + use.inner_products(along).astype(total.dtype)
    return total


@check_same_model.register
def _(bp: TapPass, other: TapPass) -> None:
    check_pass(other)
    if not isinstance(other, TapPass) or (bp.structure, bp.shapes) != (other.structure, other.shapes):
        raise ValueError("both passes must be of parameters with the same structure and shapes")


@products.register
def _(bp: TapPass, other: TapPass) -> jax.Array:
    total = jnp.zeros((len(bp.losses), len(other.losses)), accumulator(bp.losses.dtype))
    for leaf in range(len(bp.uses)):
        total = total + _leaf_products(bp, other, leaf).astype(total.dtype)
    return total


def sum_of(arrays: Any) -> Any:
    """The sum of one or more arrays."""
    first, *rest = arrays
    return sum(rest, first)


def _sum(bp: TapPass, leaf: int, of: Callable[[Group], jax.Array]) -> jax.Array:
    """Σ over the groups of a leaf of `of(group)` (n, S, ...), placed in the leaf: (n, *shape)."""
    found = groups(bp, leaf)
    if not found:
        return jnp.zeros((1, *bp.shapes[leaf]), accumulator(bp.leaf_dtypes[leaf]))
    return sum_of(group.to_leaf(of(group)) for group in found)


def _leaf_gradients(bp: TapPass, leaf: int) -> jax.Array:
    """(n, *shape)."""
    gradients = _sum(bp, leaf, lambda group: sum_of_gradients(group.uses))
    return jnp.broadcast_to(gradients, (len(bp.losses), *bp.shapes[leaf]))


def _leaf_squares(bp: TapPass, leaf: int) -> jax.Array:
    """‖g_i‖² of a leaf, (n,)."""
    found = groups(bp, leaf)
    if not found:
        return jnp.zeros(len(bp.losses), accumulator(bp.losses.dtype))
    if len(found) > 1 and overlap([group.operand for group in found], found[0].shape):
        gradients = _leaf_gradients(bp, leaf)
        return jnp.square(gradients.reshape(len(gradients), -1)).sum(axis=1)
    return sum_of(squared_norms(group.uses) for group in found)


def _leaf_norms(bp: TapPass, leaf: int) -> jax.Array:
    """‖g_i‖ of a leaf, (n,), its entries scaled so that no square overflows."""
    uses = bp.uses[leaf]
    if not uses:
        return _leaf_squares(bp, leaf)
    scale = jnp.stack([use.bound() for use in uses]).max(axis=0)
    one = jnp.ones_like(scale)
    divided = tuple(use.divided(jnp.where(scale > 0, scale, one)) for use in uses)
    squares = _leaf_squares(_with_uses(bp, leaf, divided), leaf)
    some = squares > 0
    roots = jnp.sqrt(jnp.where(some, squares, jnp.ones_like(squares)))  # a root whose derivative is finite at zero
    return scale * jnp.where(some, roots, squares)


def _simple(bp: TapPass, leaf: int) -> Outer | Rows | None:
    """The only use of a leaf, if the squares of its factors give g_i², else None."""
    if len(bp.uses[leaf]) == 1:
        (use,) = bp.uses[leaf]
        if isinstance(use, Rows) or (isinstance(use, Outer) and use.left.shape[2] == 1):
            return use
    return None


def _square_sum(bp: TapPass, leaf: int, weight: jax.Array | None) -> jax.Array:
    """Σ_i s_i g_i² of a leaf, its shape."""
    use = _simple(bp, leaf)
    if use is not None:
        return to_leaf(bp.operands[leaf][0], use.squared().contract(weight)[None], bp.shapes[leaf])[0]
    if not bp.uses[leaf]:
        return _leaf_gradients(bp, leaf)[0]
    # One example after another: all of their gradients would take memory n × leaf.
    factors = jnp.ones_like(bp.losses) if weight is None else weight
    one = jax.tree.map(lambda array: array[:, None], bp.uses[leaf])

    def add(total: jax.Array, row: tuple[Any, jax.Array]) -> tuple[jax.Array, None]:
        uses, factor = row
        gradient = _leaf_gradients(_with_uses(bp, leaf, uses), leaf)[0]
        square = jnp.square(gradient) * factor.astype(gradient.dtype)
        return total + jnp.where(factor == 0, jnp.zeros_like(square), square), None

    start = jnp.zeros(bp.shapes[leaf], accumulator(bp.leaf_dtypes[leaf]))
    return jax.lax.scan(add, start, (one, factors))[0]


def _with_uses(bp: TapPass, leaf: int, uses: tuple[Use, ...]) -> TapPass:
    """The pass with these uses of one leaf, which may be of fewer examples, and none of the others."""
    every = tuple(uses if i == leaf else () for i in range(len(bp.uses)))
    return replace(bp, losses=bp.losses[: len(jax.tree.leaves(uses)[0])], uses=every)


def _leaf_products(bp: TapPass, other: TapPass, leaf: int) -> jax.Array:
    """⟨g_i, g_j⟩ of a leaf, (n, m)."""
    a, b = _simple(bp, leaf), _simple(other, leaf)
    if isinstance(a, Outer) and isinstance(b, Outer) and bp.operands[leaf] == other.operands[leaf]:
        left, right = (
            jnp.einsum("nstp,mstp->snm", *pair, precision="highest") for pair in ((a.left, b.left), (a.right, b.right))
        )
        return (left * right).sum(axis=0)
    rows, columns = (g.reshape(len(g), -1) for g in (_leaf_gradients(bp, leaf), _leaf_gradients(other, leaf)))
    return jnp.matmul(rows, columns.T, precision="highest")
