"""Where data enter: a `Batch` checked against a network, with or without lane axes.

A *lane* is one of m models that are fitted or trained in one call. An argument with one axis more than usual has a
value for each lane, the lane axis first; every other argument is shared by all lanes. Shapes and dtypes are checked
always, values where the array is concrete.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from lr_nn import check
from lr_nn.data.rows import Rows
from lr_nn.network import Network, check_params
from lr_nn.trees import accumulator
from lr_nn.types import Batch, Layer, Params

__all__ = ["admit", "admit_inputs", "admit_lanes", "admit_offset", "admit_rows", "columns", "lane_axes", "lane_axis"]

# Targets that are only checked are checked this many numbers at a time, which bounds the memory of their copies.
CHECKED_AT_ONCE = 2**24


def admit(net: Network, params: Params, batch: Batch, allow_no_weight: bool = False) -> Batch:
    """The batch as JAX arrays: x in the dtype of the first weight, weight and offset in that of sums.

    Targets keep their own shape, and labels stay integers, until the loss encodes them. `allow_no_weight` admits
    weights that are all zero. Raises ValueError or TypeError for data that do not fit the network.
    """
    check_params(net, params)
    check_batch(batch)
    dtype = jnp.result_type(params[0].w)
    x = check.matrix("x", batch.x, net.sizes[0], dtype)
    return admit_rows(net, batch._replace(x=x), dtype, allow_no_weight)


def admit_inputs(net: Network, params: Params, x: Any, offset: Any = None, name: str = "x") -> Batch:
    """Inputs (n, d), called `name`, in the dtype of the first weight, and their offset, as a Batch without targets."""
    check_params(net, params)
    x = check.matrix(name, x, net.sizes[0], jnp.result_type(params[0].w))
    if offset is not None:
        offset = admit_offset(offset, x.shape[0], net.sizes[-1], accumulator(x.dtype))
    return Batch(x, None, None, offset)


def admit_rows(net: Network, batch: Batch, dtype: DTypeLike | None, allow_no_weight: bool = False) -> Batch:
    """The batch with all shapes and the values of targets, weights and offset checked, for one model.

    Targets are cast to `dtype`, weights and offset to that of its sums; None leaves every array in its own dtype. `x`
    is neither cast nor are its values checked: to look at a large table costs a pass over it.
    """
    check_batch(batch)
    x = check.table("x", batch.x, net.sizes[0])
    n, k = x.shape[0], net.sizes[-1]
    sums = None if dtype is None else accumulator(dtype)
    weight, offset = batch.weight, batch.offset
    if weight is not None:
        weight = check.multipliers(weight, n, sums) if allow_no_weight else check.weights(weight, n, sums)
    if offset is not None:
        offset = admit_offset(offset, n, k, sums)
    return Batch(x, _targets(net, batch.y, n, k, dtype, weight), weight, offset)


def check_batch(batch: Any) -> None:
    """Raise TypeError if `batch` is no Batch, or one without targets."""
    if not isinstance(batch, Batch):
        hint = ": read them into memory first, rows.read(0, len(rows))" if isinstance(batch, Rows) else ""
        raise TypeError(f"data must be a Batch(x, y); got {type(batch).__name__}{hint}")
    if batch.y is None:
        raise TypeError("data need targets: pass Batch(x, y)")


def _targets(net: Network, y: Any, n: int, k: int, dtype: DTypeLike | None, weight: Any = None) -> Any:
    """Checked targets of n examples; where the weight is zero they may be anything, and become a valid target."""
    y = check.numeric("targets", y)
    if weight is not None and y.shape[:1] == (n,) and _has_zero(weight):
        counted = check.host_view(weight) != 0
        y = net.loss.masked_targets(check.host_view(y), counted, k)
    if dtype is not None:
        return net.loss.targets(y, n, k, dtype)
    if y.shape[:1] != (n,):
        net.loss.targets(y, n, k)
    some = max(1, CHECKED_AT_ONCE // max(1, y[:1].size))
    for first in range(0, n, some):
        part = y[first : first + some]
        with check.numbered(range(first, first + len(part))):
            net.loss.targets(part, len(part), k)
    return y


def _has_zero(weight: Any) -> bool:
    """True if some weight is zero or, in a traced array, may be."""
    with jax.ensure_compile_time_eval():  # a concrete array may be a constant of a function under jit
        return not check.is_concrete(weight) or bool((check.host_view(weight) == 0).any())


def admit_offset(offset: Any, n: int, k: int, dtype: DTypeLike | None) -> Any:
    """An offset (n, k), or (n,) for one output."""
    offset = check.numeric("offset", offset)
    if offset.shape != (n, k) and not (k == 1 and offset.shape == (n,)):
        raise ValueError(f"offset must have the shape of eta, ({n}, {k}); got {offset.shape}")
    offset = offset if dtype is None else check.cast(offset, dtype)
    check.finite("offset", offset)
    return offset


def lane_axes(net: Network, batch: Batch, m: int | None = None) -> tuple[Batch, Batch]:
    """The arguments as arrays of numbers, and for each its lane axis: 0, or None where it is shared.

    `m`: the number of lanes, 0 for none; None leaves it open. Targets with two axes are shared if their shape is
    (n, k), else lanes of (n,). ValueError where both readings fit, where ranks do not fit, and where an argument has
    another number of lanes than `m`.
    """
    check_batch(batch)
    x, y = _numeric("x", batch.x), _numeric("targets", batch.y)
    weight = None if batch.weight is None else _numeric("weight", batch.weight)
    offset = None if batch.offset is None else _numeric("offset", batch.offset)
    x_axis = lane_axis("x", x, 2, m)
    n, k = x.shape[-2], net.sizes[-1]
    y_axis = lane_axis("targets", y, _target_rank(net, y, n, m), m)
    weight_axis = None if weight is None else lane_axis("weight", weight, 1, m)
    offset_axis = None
    if offset is not None:
        flat = k == 1 and offset.shape[-1:] == (n,) and offset.ndim < 3 and offset.shape != (n, k)
        offset_axis = lane_axis("offset", offset, 1 if flat else 2, m)
    return Batch(x, y, weight, offset), Batch(x_axis, y_axis, weight_axis, offset_axis)


def lane_axis(name: str, array: Any, rank: int, m: int | None = None) -> int | None:
    """0 if `array` has one axis more than `rank`, of length m where that is given; None if it has `rank` axes."""
    shape = np.shape(array)
    if len(shape) == rank:
        return None
    if m == 0:
        raise ValueError(f"{name} must have {rank} axes, without lanes; got shape {shape}")
    if len(shape) != rank + 1:
        raise ValueError(f"{name} must have {rank} axes, or {rank + 1} with lanes first; got shape {shape}")
    if shape[0] != (m or shape[0]) or shape[0] == 0:
        raise ValueError(f"{name} must have {rank} axes, or {m or 'at least 1'} lanes of them; got shape {shape}")
    return 0


def _target_rank(net: Network, y: Any, n: int, m: int | None) -> int:
    """The rank of the targets of one lane: 1 for a number a row, 2 for k of them."""
    k = net.sizes[-1]
    if y.ndim != 2:
        return 1 if y.ndim < 2 else 2
    numbers = k == 1 or net.loss.task == "classes"
    lanes = numbers and y.shape[1] == n and m in (None, len(y))
    if y.shape != (n, k):
        return 1 if numbers and m != 0 else 2
    if lanes:
        raise ValueError(
            f"targets of shape {y.shape} may be one table (n, k) or lanes of (n,): pass them with three axes, "
            "y[None] for one table, y[:, :, None] or one-hot rows for lanes"
        )
    return 2


def _numeric(name: str, array: Any) -> Any:
    """`array` as numbers; a list of lanes must hold arrays of one shape and dtype."""
    if isinstance(array, Sequence):
        if len({np.shape(lane) for lane in array}) > 1:
            raise ValueError(f"{name} has lanes of unequal shape; lr_nn.fit_groups takes groups of any size")
        dtypes = sorted({str(lane.dtype) for lane in array if hasattr(lane, "dtype")})
        if len(dtypes) > 1:
            raise TypeError(f"{name} has lanes of unequal data types, {' and '.join(dtypes)}: convert them to one")
    return check.numeric(name, array)


def admit_lanes(
    net: Network, batch: Batch, axes: Batch, dtype: DTypeLike | None, x_dtype: DTypeLike | None = None
) -> Batch:
    """`admit_rows` of arguments with lane axes: the same checks on the rows of all lanes, one lane after another.

    x_dtype: cast `x` to it, and check its values too.
    """
    n = batch.x.shape[-2]

    def rows(array: Any, axis: int | None) -> Any:
        return array if axis is None else array.reshape(-1, *array.shape[2:])

    def unfold(array: Any, axis: int | None) -> Any:
        return array if axis is None else array.reshape(-1, n, *array.shape[1:])

    def lanes_of(name: str) -> int:
        return 1 if getattr(axes, name) is None else len(getattr(batch, name))

    for name in ("y", "weight"):
        array = getattr(batch, name)
        got = None if array is None else array.shape[0 if getattr(axes, name) is None else 1]
        if got not in (None, n):
            of = "y has" if name == "y" else "weight has"
            raise ValueError(f"x has {n} rows but {of} {got}; they must be the same examples")
    d, k, sums = net.sizes[0], net.sizes[-1], None if dtype is None else accumulator(dtype)
    flat = rows(batch.x, axes.x)
    x = unfold(check.table("x", flat, d) if x_dtype is None else check.matrix("x", flat, d, x_dtype), axes.x)
    weight = batch.weight
    if weight is not None:
        weight = unfold(check.multipliers(rows(weight, axes.weight), n * lanes_of("weight"), sums), axes.weight)
        _check_some_weight(weight, axes.weight)
    own_weight = rows(weight, axes.weight) if axes.weight == axes.y and weight is not None else None
    y = unfold(_targets(net, rows(batch.y, axes.y), n * lanes_of("y"), k, dtype, own_weight), axes.y)
    offset = batch.offset
    if offset is not None:
        offset = unfold(admit_offset(rows(offset, axes.offset), n * lanes_of("offset"), k, sums), axes.offset)
    return Batch(x, y, weight, offset)


def _check_some_weight(weight: Any, axis: int | None) -> None:
    """Refuse weights that are all zero, of any lane."""
    if not check.is_concrete(weight):
        return
    empty = np.flatnonzero(~np.atleast_1d((np.asarray(weight) > 0).any(axis=-1)))
    if len(empty):
        where = "" if axis is None else f" of lane {empty[0]}"
        raise ValueError(f"weight is zero for every example{where}; at least one must be positive")


def lane_params(net: Network, params: Any, name: str, m: int | None = None) -> tuple[Params, Params]:
    """Parameters with or without lane axes: arrays of finite numbers, and the axis of each leaf."""
    layers, axes = lane_shapes(net, params, name, m)
    for leaf in jax.tree.leaves(layers):
        check.finite(name, leaf)
    return layers, axes


def lane_shapes(net: Network, params: Any, name: str, m: int | None = None) -> tuple[Params, Any]:
    """`lane_params` without a look at the values."""
    if not isinstance(params, tuple) or not all(isinstance(layer, Layer) for layer in params):
        check_params(net, params, name)
    layers: list[Any] = []
    axes: list[Any] = []
    for layer in params:
        w: Any = check.numeric(f"{name}.w", layer.w)
        b: Any = None if layer.b is None else check.numeric(f"{name}.b", layer.b)
        w_axis: Any = lane_axis(f"{name}.w", w, 2, m)
        b_axis: Any = None if b is None else lane_axis(f"{name}.b", b, 1, m)
        layers.append(Layer(w, b))
        axes.append(Layer(w_axis, b_axis))
    first = tuple(
        Layer(w if a.w is None else w[0], None if b is None else b if a.b is None else b[0])
        for (w, b), a in zip(layers, axes)
    )
    check_params(net, first, name)
    return tuple(layers), tuple(axes)


def columns(batch: Batch) -> Batch:
    """The arguments as NumPy arrays with a row for each row of `x` (n, d), checked as far as that needs no network."""
    check_batch(batch)
    x = check.numeric("x", batch.x)
    if x.ndim != 2 or len(x) == 0:
        raise ValueError(f"x must have shape (n, d) with n > 0; got {x.shape}")
    check.finite("x", x)
    y = np.asarray(check.numeric("targets", batch.y))
    weight = None if batch.weight is None else np.asarray(check.multipliers(batch.weight, len(x), None))
    weight = weight if weight is None or weight.dtype.kind == "f" else weight.astype(np.float32)
    offset = None if batch.offset is None else np.asarray(check.numeric("offset", batch.offset))
    if offset is not None:
        check.finite("offset", offset)
    for name, array in (("targets", y), ("offset", offset)):
        if array is not None and (array.ndim == 0 or len(array) != len(x)):
            raise ValueError(f"{name} must have {len(x)} rows, as x has; got shape {array.shape}")
    return Batch(np.asarray(x), y, weight, offset)
