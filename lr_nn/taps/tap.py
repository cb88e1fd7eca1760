"""Taps: what one's own function calls where its layers meet their parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching
from jax.typing import ArrayLike

from lr_nn.taps.operations import Conv, Dense, Embedding, Operation, ScaleShift


class Tap:
    """Computes layers, as plain functions of JAX: `taps.plain` is one.

    `taps.backprop` passes a tap of its own, which also records the inputs and errors of each layer. Every operation
    takes any number of axes before its own; the first one is that of the examples.
    """

    def dense(self, x: ArrayLike, w: ArrayLike, b: ArrayLike | None = None) -> jax.Array:
        """x w + b for x (..., p), w (p, q) and b (q,): (..., q). Raises ValueError for other shapes."""
        x, w = jnp.asarray(x), jnp.asarray(w)
        if w.ndim != 2 or x.ndim < 1 or x.shape[-1] != w.shape[0]:
            raise ValueError(f"dense expects x (..., p) and w (p, q), a matrix; got {x.shape} and {w.shape}")
        _check_vector("dense", "b", b, w.shape[1])
        return self._apply(Dense(_given(w=w, b=b)), x, w, b)

    def embedding(self, ids: ArrayLike, table: ArrayLike) -> jax.Array:
        """table[ids] for integers `ids` (...) and table (rows, q): (..., q), NaN for ids outside of the table.

        Raises ValueError for a table that is no matrix, TypeError for ids that are no integers.
        """
        ids, table = jnp.asarray(ids), jnp.asarray(table)
        if table.ndim != 2:
            raise ValueError(f"embedding expects a table (rows, q); got shape {table.shape}")
        if not jnp.issubdtype(ids.dtype, jnp.integer):
            raise TypeError(f"embedding expects integer ids; got dtype {ids.dtype}")
        return self._apply(Embedding(("table",)), ids, table)

    def scale_shift(self, x: ArrayLike, scale: ArrayLike | None = None, shift: ArrayLike | None = None) -> jax.Array:
        """x ∘ scale + shift for x (..., q) and vectors (q,), as behind a normalisation. Raises ValueError otherwise."""
        x = jnp.asarray(x)
        if scale is None and shift is None:
            raise ValueError("scale_shift expects a scale or a shift; got neither")
        for name, vector in (("scale", scale), ("shift", shift)):
            _check_vector("scale_shift", name, vector, x.shape[-1] if x.ndim else 0)
        return self._apply(ScaleShift(_given(scale=scale, shift=shift)), x, scale, shift)

    def conv(
        self,
        x: ArrayLike,
        kernel: ArrayLike,
        b: ArrayLike | None = None,
        *,
        strides: int | Sequence[int] = 1,
        padding: str | Sequence[tuple[int, int]] = "SAME",
        dilation: int | Sequence[int] = 1,
    ) -> jax.Array:
        """The convolution of x (..., *space, c) with a kernel (*window, c, channels), plus b (channels,).

        One to three axes of space; `padding` is "SAME", "VALID" or a pair of numbers for each axis of space; `dilation`
        is the kernel's. Raises ValueError for other shapes; groups of channels have no tap.
        """
        x, kernel = jnp.asarray(x), jnp.asarray(kernel)
        space = kernel.ndim - 2
        if space not in {1, 2, 3} or x.ndim < space + 1 or x.shape[-1] != kernel.shape[-2]:
            raise ValueError(
                "conv expects x (..., *space, c) and a kernel (*window, c, channels) with one to three axes of space; "
                f"got {x.shape} and {kernel.shape}"
            )
        _check_vector("conv", "b", b, kernel.shape[-1])
        pads = padding if isinstance(padding, str) else _pairs(padding, space)
        steps, spread = (
            _per_axis(name, value, space) for name, value in (("strides", strides), ("dilation", dilation))
        )
        return self._apply(Conv(_given(w=kernel, b=b), steps, pads, spread), x, kernel, b)

    def _apply(self, operation: Operation, x: jax.Array, *parameters: ArrayLike | None) -> jax.Array:
        return operation.apply(x, *(jnp.asarray(each) for each in parameters if each is not None))


plain = Tap()


class Recorder(Tap):
    """Records each operation as one equation of the traced program."""

    def _apply(self, operation: Operation, x: jax.Array, *parameters: ArrayLike | None) -> jax.Array:
        given = [jnp.asarray(each) for each in parameters if each is not None]
        return tap_p.bind(x, *given, operation=operation, mapped=0)


def _given(**parameters: Any) -> tuple[str, ...]:
    return tuple(name for name, value in parameters.items() if value is not None)


def _check_vector(operation: str, name: str, vector: ArrayLike | None, width: int) -> None:
    if vector is not None and jnp.shape(vector) != (width,):
        raise ValueError(f"{operation} expects {name} of shape ({width},); got {jnp.shape(vector)}")


def _per_axis(name: str, value: int | Sequence[int], space: int) -> tuple[int, ...]:
    numbers = (value,) * space if isinstance(value, int) else tuple(int(each) for each in value)
    if len(numbers) != space or any(each < 1 for each in numbers):
        raise ValueError(f"{name} must be {space} positive integers; got {value!r:.100}")
    return numbers


def _pairs(padding: Any, space: int) -> tuple[tuple[int, int], ...]:
    pairs = np.asarray(padding)
    if pairs.shape != (space, 2) or not np.issubdtype(pairs.dtype, np.integer):
        raise ValueError(f"padding must be 'SAME', 'VALID' or {space} pairs of integers; got {padding!r:.100}")
    return tuple((int(low), int(high)) for low, high in pairs)


# An operation on its input and parameters. `mapped`: the number of axes that `vmap` has put before those of the input.
tap_p = Primitive("tap")


@tap_p.def_abstract_eval
def _abstract(*operands: Any, operation: Operation, mapped: int) -> Any:
    (z,) = jax.make_jaxpr(operation.apply)(*operands).out_avals
    return z


def _batch(operands: tuple[Any, ...], axes: tuple[Any, ...], *, operation: Operation, mapped: int) -> Any:
    x, *parameters = operands
    if any(axis is not None for axis in axes[1:]):
        raise NotImplementedError(
            f"the parameters of {operation.name} have an axis of vmap; a tap takes one parameter for all lanes"
        )
    return tap_p.bind(jnp.moveaxis(x, axes[0], 0), *parameters, operation=operation, mapped=mapped + 1), 0


def _differentiate(*_: Any, operation: Operation, mapped: int) -> NoReturn:
    raise NotImplementedError(
        f"{operation.name} is differentiated inside of a function given to taps.backprop, which differentiates it "
        "itself; call taps.plain there"
    )


batching.primitive_batchers[tap_p] = _batch
ad.primitive_jvps[tap_p] = _differentiate
