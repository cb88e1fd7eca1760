"""Kronecker factors of the empirical Fisher for the matrices of a function with taps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lr_nn import check
from lr_nn.backward import check_mean, checked_by, relative_weights
from lr_nn.curvature.blocks import homogeneous
from lr_nn.curvature.kronecker import (
    Factors,
    damped_roots,
    draw_by_roots,
    kfac,
    logdet_by_roots,
    solve_by_roots,
)
from lr_nn.per_example import second_moment
from lr_nn.taps.layouts import Operand, to_leaf, to_operand
from lr_nn.taps.passes import TapPass
from lr_nn.taps.quantities import groups
from lr_nn.taps.uses import Outer, kept, scaled
from lr_nn.trees import cast, compiled, register_class, widened


class Block(NamedTuple):
    """Where a matrix of the model, and its bias or None, lie in their leaves."""

    matrix: Operand
    bias: Operand | None


@register_class
@dataclass(frozen=True, eq=False)
class TapKfac:
    """The empirical Fisher of a model: A ⊗ G for its matrices, their biases as last rows, and a diagonal elsewhere.

    A leaf has factors if it is a matrix or a kernel and its taps use all of it, always in the same layout. Every other
    leaf, such as an embedding or a tied one, has the diagonal.

    factors: `a` (S, p + 1, p + 1) and `g` (S, q, q) of each matrix (p, q), without the + 1 where there is no bias of
    its own. S is the number of slices that a scan takes of the leaf, else 1. For T positions they are the factors of
    KFAC-expand (Eschenhagen et al., 2023): A is the mean of a aᵀ over examples and positions, and G the mean over
    examples of Σ_t δ_t δ_tᵀ. squares: the second moments of per-example gradients, like the parameters.
    """

    factors: tuple[Factors, ...]
    squares: Any
    blocks: tuple[Block, ...] = field(metadata={"static": True})
    leaf_dtypes: tuple[str, ...] = field(metadata={"static": True})

    def multiply(self, v: Any) -> Any:
        """The matrix times `v`, like the parameters; also written `op @ v`. Raises ValueError for another shape."""
        return _multiply(self, self._admitted(v))

    def __matmul__(self, v: Any) -> Any:
        """`multiply`."""
        return self.multiply(v)

    def solve(self, v: Any, damping: ArrayLike) -> Any:
        """(A + π√λ I)⁻¹ V (G + √λ/π I)⁻¹ matrix by matrix, v / (diagonal + λ) elsewhere; λ = `damping` > 0.

        Raises ValueError for a damping that is not positive, or a `v` that is not like the parameters.
        """
        return _solve(self, self._admitted(v), check.positive("damping", damping))

    def logdet(self, damping: ArrayLike) -> jax.Array:
        """The logarithm of the determinant of the damped matrix. Raises ValueError as `solve` does."""
        return _logdet(self, check.positive("damping", damping))

    def sample(self, key: jax.Array, damping: ArrayLike) -> Any:
        """A draw from the normal distribution with mean 0 and the inverse of the damped matrix as covariance.

        It is like the parameters. Raises ValueError as `solve` does, TypeError for a `key` that is no random key.
        """
        check.key(key)
        return _sample(self, key, check.positive("damping", damping))

    def _admitted(self, v: Any) -> Any:
        like: Any = jax.tree.structure(self.squares)
        shapes = [leaf.shape for leaf in jax.tree.leaves(self.squares)]
        if jax.tree.structure(v) != like or [jnp.shape(leaf) for leaf in jax.tree.leaves(v)] != shapes:
            raise ValueError(f"v must be like the parameters, {like} with leaves of shapes {shapes}")
        return v

    def _map(self, blockwise: Callable[[int, jax.Array], jax.Array], diagonal: Callable, v: Any) -> Any:
        """`blockwise(number, V)` for every matrix, V (S, p + 1, q), and `diagonal(squares, v)` for every other leaf."""
        leaves, structure = jax.tree.flatten(v)
        squares = jax.tree.leaves(self.squares)
        found = [diagonal(square, leaf) for square, leaf in zip(squares, leaves)]
        for number, block in enumerate(self.blocks):
            product = blockwise(number, _join(block, leaves))
            parts = [(block.matrix, product)]
            if block.bias is not None:
                parts = [(block.matrix, product[:, :-1]), (block.bias, product[:, -1])]
            for operand, part in parts:
                found[operand.leaf] = to_leaf(operand, part[None], squares[operand.leaf].shape)[0]
        return cast(jax.tree.unflatten(structure, found), jax.tree.unflatten(structure, self.leaf_dtypes))


@kfac.register  # type: ignore[arg-type]
def _(bp: TapPass, kind: str = "empirical") -> TapKfac:
    if kind != "empirical":
        raise ValueError(f"kfac of a pass of taps has kind 'empirical', its errors at the targets; got {kind!r:.100}")
    return _kfac(bp)


@checked_by(check_mean)
def _kfac(bp: TapPass) -> TapKfac:
    blocks = tuple(_blocks(bp))
    weight, total = relative_weights(bp)
    factors = tuple(_factors(bp, block, weight, total) for block in blocks)
    return TapKfac(factors, second_moment(bp), blocks, bp.leaf_dtypes)


def _blocks(bp: TapPass) -> list[Block]:
    """The matrices that have factors: their taps use all of the leaf, always as the same operand."""
    found = []
    for leaf, shape in enumerate(bp.shapes):
        each = groups(bp, leaf)
        outer = [use for use in bp.uses[leaf] if isinstance(use, Outer)]
        if len(each) == 1 and len(outer) == len(bp.uses[leaf]):
            slices, rows, columns = outer[0].left.shape[1], outer[0].left.shape[-1], outer[0].right.shape[-1]
            if slices * rows * columns == prod(shape):
                found.append(Block(each[0].operand, _bias(bp, leaf, slices * columns)))
    return found


def _bias(bp: TapPass, leaf: int, size: int) -> Operand | None:
    """The bias of a matrix, if its tap uses all of the leaf of the bias."""
    bias = bp.biases[leaf]
    return bp.operands[bias][0] if bias is not None and prod(bp.shapes[bias]) == size else None


def _factors(bp: TapPass, block: Block, weight: jax.Array | None, total: jax.Array) -> Factors:
    uses = [use for use in bp.uses[block.matrix.leaf] if isinstance(use, Outer)]
    positions = sum(use.left.shape[2] for use in uses)
    lefts = [homogeneous(use.left, block.bias is not None) for use in uses]

    def moment(rows: jax.Array) -> jax.Array:
        rows = kept(widened(rows), weight)
        return jnp.einsum("nstp,nstq->spq", scaled(rows, weight), rows, precision="highest") / total.astype(rows.dtype)

    a = jnp.stack([moment(left) for left in lefts]).sum(axis=0) / positions
    return Factors(a, jnp.stack([moment(use.right) for use in uses]).sum(axis=0))


def _join(block: Block, leaves: list[Any]) -> jax.Array:
    """The matrix with its bias as last row, (S, p + 1, q), in the dtype of sums."""
    w = _operand(block.matrix, leaves)
    w = w.reshape(-1, *w.shape[-2:])
    if block.bias is None:
        return w
    return jnp.concatenate([w, _operand(block.bias, leaves).astype(w.dtype).reshape(len(w), 1, -1)], axis=1)


def _operand(operand: Operand, leaves: list[Any]) -> jax.Array:
    return to_operand(operand, widened(jnp.asarray(leaves[operand.leaf])))


def _roots(op: TapKfac, damping: jax.Array) -> list[Factors]:
    """The lower Cholesky factors of the damped factors, (S, ...) each."""
    return [jax.vmap(damped_roots, (0, None))(factors, damping) for factors in op.factors]


@compiled
def _multiply(op: TapKfac, v: Any) -> Any:
    def blockwise(number: int, v: jax.Array) -> jax.Array:
        a, g = op.factors[number]
        return jnp.matmul(jnp.matmul(a, v.astype(a.dtype), precision="highest"), g, precision="highest")

    return op._map(blockwise, lambda square, leaf: square * widened(leaf).astype(square.dtype), v)


@compiled
def _solve(op: TapKfac, v: Any, damping: jax.Array) -> Any:
    roots = _roots(op, damping)

    def blockwise(number: int, v: jax.Array) -> jax.Array:
        return jax.vmap(solve_by_roots)(roots[number], v.astype(roots[number].a.dtype))

    def diagonal(square: jax.Array, leaf: jax.Array) -> jax.Array:
        return widened(leaf).astype(square.dtype) / (square + damping.astype(square.dtype))

    return op._map(blockwise, diagonal, v)


@compiled
def _logdet(op: TapKfac, damping: jax.Array) -> jax.Array:
    joined = {operand.leaf for block in op.blocks for operand in block if operand is not None}
    squares = jax.tree.leaves(op.squares)
    terms = [jnp.log(each + damping.astype(each.dtype)).sum() for i, each in enumerate(squares) if i not in joined]
    terms += [jax.vmap(logdet_by_roots)(roots).sum() for roots in _roots(op, damping)]
    return jnp.stack(terms).sum()


@compiled
def _sample(op: TapKfac, key: jax.Array, damping: jax.Array) -> Any:
    roots = _roots(op, damping)
    squares, structure = jax.tree.flatten(op.squares)
    keys = jax.random.split(key, len(squares))
    normal = [jax.random.normal(k, each.shape, each.dtype) for k, each in zip(keys, squares)]

    def blockwise(number: int, z: jax.Array) -> jax.Array:
        return jax.vmap(draw_by_roots)(roots[number], z)

    def diagonal(square: jax.Array, z: jax.Array) -> jax.Array:
        return z / jnp.sqrt(square + damping.astype(square.dtype))

    return op._map(blockwise, diagonal, jax.tree.unflatten(structure, normal))
