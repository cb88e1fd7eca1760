"""The operations of a tap: what each computes, what it keeps of its input, and the gradients of its parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from lr_nn.taps.layouts import Operand, rearranged
from lr_nn.taps.uses import Lookup, Outer, Rows, Use
from lr_nn.trees import widened


@dataclass(frozen=True)
class Operation(ABC):
    """z as a function of an input and of the parameters named in `slots`, with any number of axes before its own.

    `own_axes`: how many trailing axes of the input the operation reads; the axes before them are examples, positions
    and the like, for each of which it does the same. `features`: how many trailing axes of what it keeps of the input
    are no positions.
    """

    slots: tuple[str, ...]
    name: ClassVar[str]
    own_axes: ClassVar[int]
    features: ClassVar[int] = 1

    @abstractmethod
    def apply(self, x: jax.Array, *parameters: jax.Array) -> jax.Array:
        """The output z."""

    def input_kept(self, x: jax.Array, *parameters: jax.Array) -> jax.Array:
        """What the gradients of the parameters need of the input."""
        return x

    def layout(self, slot: str, operand: Operand, shape: tuple[int, ...]) -> Operand:
        """The operand, of this `shape`, as the matrix or vector of which `use` is the gradient."""
        return operand

    @abstractmethod
    def use(self, slot: str, kept: jax.Array, delta: jax.Array, shape: tuple[int, ...]) -> Use:
        """The per-example gradient of the parameter in `slot`, whose shape is `shape`.

        `kept` and `delta` (n, S, T, ...): examples, slices of the parameter (S = 1 outside of a scan), and positions,
        over which gradients are sums.
        """


@dataclass(frozen=True)
class Dense(Operation):
    """z = x w + b."""

    name: ClassVar[str] = "dense"
    own_axes: ClassVar[int] = 1

    def apply(self, x: jax.Array, *parameters: jax.Array) -> jax.Array:
        w, *bias = parameters
        z = jnp.matmul(x, w)
        return z + _along_last(bias[0], z) if bias else z

    def use(self, slot: str, kept: jax.Array, delta: jax.Array, shape: tuple[int, ...]) -> Use:
        return Outer(kept, delta) if slot == "w" else Rows(delta.sum(axis=2))


@dataclass(frozen=True)
class Embedding(Operation):
    """z = table[ids]; NaN for an id outside of the table, whose row has no gradient."""

    name: ClassVar[str] = "embedding"
    own_axes: ClassVar[int] = 0
    features: ClassVar[int] = 0

    def apply(self, x: jax.Array, *parameters: jax.Array) -> jax.Array:
        rows = self.input_kept(x, *parameters)
        return jnp.take(parameters[0], rows, axis=0, mode="fill", fill_value=jnp.nan)

    def input_kept(self, x: jax.Array, *parameters: jax.Array) -> jax.Array:
        """The numbers of the rows, `len(table)` for ids outside of it."""
        rows = len(parameters[0])
        ids = x if x.dtype.itemsize > 2 else x.astype(jnp.int32)  # a narrow integer cannot hold `rows`
        ids = jnp.where(ids < 0, ids + rows, ids)
        return jnp.where((ids < 0) | (ids >= rows), rows, ids).astype(jnp.int32)

    def use(self, slot: str, kept: jax.Array, delta: jax.Array, shape: tuple[int, ...]) -> Use:
        return Lookup(kept, delta, shape[0])


@dataclass(frozen=True)
class ScaleShift(Operation):
    """z = x ∘ scale + shift, both vectors along the last axis."""

    name: ClassVar[str] = "scale_shift"
    own_axes: ClassVar[int] = 1

    def apply(self, x: jax.Array, *parameters: jax.Array) -> jax.Array:
        given = dict(zip(self.slots, parameters))
        z = x * _along_last(given["scale"], x) if "scale" in given else x
        return z + _along_last(given["shift"], z) if "shift" in given else z

    def use(self, slot: str, kept: jax.Array, delta: jax.Array, shape: tuple[int, ...]) -> Use:
        return Rows((jnp.multiply(*widened((kept, delta))) if slot == "scale" else delta).sum(axis=2))


@dataclass(frozen=True)
class Conv(Operation):
    """The convolution of x (..., *space, c) with a kernel (*window, c, channels), plus b (channels,)."""

    strides: tuple[int, ...]
    padding: str | tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    name: ClassVar[str] = "conv"

    @property
    def own_axes(self) -> int:  # type: ignore[override]
        """Space and channels."""
        return len(self.strides) + 1

    def apply(self, x: jax.Array, *parameters: jax.Array) -> jax.Array:
        kernel, *bias = parameters
        rows, lead = self._rows(x)
        z = jax.lax.conv_general_dilated(
            rows, kernel, self.strides, self.padding, rhs_dilation=self.dilation, dimension_numbers=self._axes
        )
        z = z.reshape(*lead, *z.shape[1:])
        return z + _along_last(bias[0], z) if bias else z

    def input_kept(self, x: jax.Array, *parameters: jax.Array) -> jax.Array:
        """The patches (..., *space, c · window) whose product with the kernel is z."""
        rows, lead = self._rows(x)
        patches = jax.lax.conv_general_dilated_patches(
            rows,
            parameters[0].shape[: len(self.strides)],
            self.strides,
            self.padding,
            rhs_dilation=self.dilation,
            dimension_numbers=self._axes,
        )
        return patches.reshape(*lead, *patches.shape[1:])

    def layout(self, slot: str, operand: Operand, shape: tuple[int, ...]) -> Operand:
        """The kernel as a matrix (c · window, channels), in the order of the patches."""
        if slot == "b":
            return operand
        space = len(self.strides)
        order = (space, *range(space), space + 1)
        moved = rearranged(operand, "transpose", order, shape)
        return rearranged(moved, "reshape", (prod(shape[:-1]), shape[-1]), tuple(shape[axis] for axis in order))

    def use(self, slot: str, kept: jax.Array, delta: jax.Array, shape: tuple[int, ...]) -> Use:
        return Outer(kept, delta) if slot == "w" else Rows(delta.sum(axis=2))

    @property
    def _axes(self) -> tuple[str, str, str]:
        space = "XYZ"[: len(self.strides)]
        return f"N{space}C", f"{space}IO", f"N{space}C"

    def _rows(self, x: jax.Array) -> tuple[jax.Array, tuple[int, ...]]:
        lead = x.shape[: x.ndim - self.own_axes]
        return x.reshape(-1, *x.shape[len(lead) :]), lead


def _along_last(vector: jax.Array, like: Any) -> jax.Array:
    return vector.reshape((1,) * (like.ndim - 1) + vector.shape)
