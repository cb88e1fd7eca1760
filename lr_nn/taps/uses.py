"""Per-example gradients of one operand of a tap, in the form that its operation gives them.

n examples, S slices of the operand (by scans; 1 where there is none), T positions over which a gradient is summed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from lr_nn.row_sums import weight_gradient, weighted
from lr_nn.trees import register_class, widened

HIGHEST = jax.lax.Precision.HIGHEST


@register_class
@dataclass(frozen=True)
class Outer:
    """G_i = Σ_t l_t r_tᵀ of `left` (n, S, T, p) and `right` (n, S, T, q): inputs and errors of a matrix."""

    left: jax.Array
    right: jax.Array

    def gradients(self) -> jax.Array:
        """G_i, (n, S, p, q)."""
        left, right = widened((self.left, self.right))
        return jnp.einsum("nstp,nstq->nspq", left, right)

    def contract(self, weight: jax.Array | None) -> jax.Array:
        """Σ_i s_i G_i, (S, p, q)."""
        left, right = kept(self.left, weight), scaled(self.right, weight)
        if left.shape[1] == 1:
            return weight_gradient((left.reshape(-1, left.shape[-1]), right.reshape(-1, right.shape[-1])))[None]
        return jnp.einsum("nstp,nstq->spq", *widened((left, right)))

    def inner_products(self, v: jax.Array) -> jax.Array:
        """⟨G_i, V⟩ = Σ_t l_tᵀ V r_t, (n,), for V (S, p, q)."""
        left, right, v = widened((self.left, self.right, v))
        return (jnp.einsum("nstp,spq->nstq", left, v) * right).sum(axis=(1, 2, 3))

    def bound(self) -> jax.Array:
        """A number (n,) of the size of the largest entry of G_i."""
        return _largest(self.left) * _largest(self.right)

    def divided(self, scale: jax.Array) -> Outer:
        """G_i / scale_i, its factors of a size whose squares do not overflow."""
        of_left = _largest(self.left)
        of_left = jnp.where(of_left > 0, of_left, jnp.ones_like(of_left))
        return Outer(_over(self.left, of_left), _over(self.right, scale / of_left))

    def transposed(self) -> Outer:
        """G_iᵀ."""
        return Outer(self.right, self.left)

    def squared(self) -> Outer:
        """The entries of G_i², where T = 1."""
        left, right = widened((self.left, self.right))
        return Outer(left * left, right * right)


@register_class
@dataclass(frozen=True)
class Lookup:
    """G_i = Σ_t e(id_t) r_tᵀ of `ids` (n, S, T) and `right` (n, S, T, q): the rows of a table (`rows`, q) looked up."""

    ids: jax.Array
    right: jax.Array
    rows: int = field(metadata={"static": True})

    def gradients(self) -> jax.Array:
        """G_i, (n, S, rows, q)."""
        n, slices, positions, width = self.right.shape
        each = jnp.zeros((n * slices, self.rows, width), widened(self.right).dtype)
        ids, right = self.ids.reshape(-1, positions), widened(self.right).reshape(-1, positions, width)
        found = each.at[jnp.arange(len(each))[:, None], ids].add(right, mode="drop")
        return found.reshape(n, slices, self.rows, width)

    def contract(self, weight: jax.Array | None) -> jax.Array:
        """Σ_i s_i G_i, (S, rows, q)."""
        _, slices, _, width = self.right.shape
        ids = self.ids.swapaxes(0, 1).reshape(slices, -1)
        right = widened(scaled(self.right, weight)).swapaxes(0, 1).reshape(slices, -1, width)
        total = jnp.zeros((slices, self.rows, width), right.dtype)
        return total.at[jnp.arange(slices)[:, None], ids].add(right, mode="drop")

    def bound(self) -> jax.Array:
        """A number (n,) of the size of the largest entry of G_i."""
        return _largest(self.right)

    def divided(self, scale: jax.Array) -> Lookup:
        """G_i / scale_i."""
        return Lookup(self.ids, _over(self.right, scale), self.rows)

    def inner_products(self, v: jax.Array) -> jax.Array:
        """⟨G_i, V⟩ = Σ_t V[id_t]·r_t, (n,), for V (S, rows, q)."""
        slices = jnp.arange(v.shape[0])[None, :, None]
        chosen = widened(v).at[slices, self.ids].get(mode="fill", fill_value=0)
        return (chosen * widened(self.right)).sum(axis=(1, 2, 3))


@register_class
@dataclass(frozen=True)
class Rows:
    """G_i = row i of `value` (n, S, ...): biases, scales, and leaves without a tap."""

    value: jax.Array

    def gradients(self) -> jax.Array:
        """G_i, (n, S, ...)."""
        return widened(self.value)

    def contract(self, weight: jax.Array | None) -> jax.Array:
        """Σ_i s_i G_i, (S, ...)."""
        return widened(scaled(self.value, weight)).sum(axis=0)

    def bound(self) -> jax.Array:
        """The size (n,) of the largest entry of G_i."""
        return _largest(self.value)

    def divided(self, scale: jax.Array) -> Rows:
        """G_i / scale_i."""
        return Rows(_over(self.value, scale))

    def inner_products(self, v: jax.Array) -> jax.Array:
        """⟨G_i, V⟩, (n,), for V (S, ...)."""
        value = self.value.reshape(len(self.value), -1)
        return (widened(value) * widened(v).reshape(1, -1)).sum(axis=1)

    def squared(self) -> Rows:
        """The entries of G_i²."""
        return Rows(jnp.square(widened(self.value)))


Use = Outer | Lookup | Rows


def scaled(array: jax.Array, weight: jax.Array | None) -> jax.Array:
    """s_i times row i of `array` (n, ...); a row of weight zero is zero, even where it is not finite."""
    return weighted(array.reshape(len(array), -1), weight).reshape(array.shape)


def kept(array: jax.Array, weight: jax.Array | None) -> jax.Array:
    """`array` (n, ...) with rows of zeros where the weight is zero: such a row may not be finite."""
    if weight is None:
        return array
    return jnp.where((weight == 0).reshape(-1, *[1] * (array.ndim - 1)), jnp.zeros_like(array), array)


def squared_norms(uses: list[Use]) -> jax.Array:
    """‖Σ_u G_iu‖², (n,), of the uses of one operand.

    By products between positions, Σ_tu (l_t·l_u)(r_t·r_u) (Li et al., 2022), where these are fewer operations than
    the gradients themselves. Then the gradients of all examples would also take more memory than their factors.
    """
    if isinstance(uses[0], Outer) and len(uses) == 1 and uses[0].left.shape[2] == 1:
        return (_squares(uses[0].left) * _squares(uses[0].right)).sum(axis=(1, 2))
    factored = [use for use in uses if not isinstance(use, Rows)]
    if len(factored) == len(uses) and _products_are_fewer(factored):
        pairs = [(a, b) for i, a in enumerate(factored) for b in factored[i:]]
        total = sum((1.0 if a is b else 2.0) * _inner(a, b) for a, b in pairs)
        return jnp.maximum(total, 0)  # rounding may leave a small norm negative
    gradients = sum_of_gradients(uses)
    return _squares(gradients.reshape(len(gradients), -1))


def sum_of_gradients(uses: list[Use]) -> jax.Array:
    """Σ_u G_iu, (n, S, ...), of the uses of one operand."""
    first, *rest = (use.gradients() for use in uses)
    return sum(rest, first)


def _products_are_fewer(uses: list[Outer | Lookup]) -> bool:
    """True if products between positions take fewer multiplications than outer products.

    A lookup has no products of its left factors, and its gradients would be as large as the table.
    """
    matrices = [use for use in uses if isinstance(use, Outer)]
    if len(matrices) < len(uses):
        return True
    left, right = matrices[0].left.shape[-1], matrices[0].right.shape[-1]
    positions = sum(use.right.shape[2] for use in uses)
    return positions * (left + right) <= left * right


def _inner(a: Outer | Lookup, b: Outer | Lookup) -> jax.Array:
    """⟨G_ia, G_ib⟩, (n,)."""
    return (_left_products(a, b) * _products(a.right, b.right)).sum(axis=(1, 2, 3))


def _left_products(a: Outer | Lookup, b: Outer | Lookup) -> jax.Array:
    """l_t·l_u, (n, S, T, U); the left factor of a lookup is the unit vector of its id."""
    if isinstance(a, Outer) and isinstance(b, Outer):
        return _products(a.left, b.left)
    if isinstance(a, Lookup) and isinstance(b, Lookup):
        same = (a.ids[..., :, None] == b.ids[..., None, :]) & (a.ids < a.rows)[..., None]
        return same.astype(widened(a.right).dtype)
    if isinstance(a, Lookup):
        return _left_products(b, a).swapaxes(2, 3)
    assert isinstance(b, Lookup)
    return jnp.take_along_axis(widened(a.left), b.ids[:, :, None, :], axis=3, mode="fill", fill_value=0)


def _products(a: jax.Array, b: jax.Array) -> jax.Array:
    a, b = widened((a, b))
    return jnp.einsum("nstp,nsup->nstu", a, b, precision=HIGHEST)


def _squares(rows: jax.Array) -> jax.Array:
    return jnp.square(widened(rows)).sum(axis=-1)


def _largest(array: jax.Array) -> jax.Array:
    """The largest magnitude of an entry of each row, (n,); norms do not depend on it, so it has no derivative."""
    rows = jnp.abs(widened(array)).reshape(len(array), -1)
    # The reciprocal of a larger number is subnormal in float32, and XLA takes it for zero.
    return jax.lax.stop_gradient(jnp.minimum(rows.max(axis=1), float(jnp.finfo(rows.dtype).max) ** 0.75))


def _over(array: jax.Array, scale: jax.Array) -> jax.Array:
    """Row i of `array` (n, ...) divided by scale_i."""
    return widened(array) / scale.reshape(-1, *[1] * (array.ndim - 1))
