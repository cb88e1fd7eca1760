"""Which arguments of `train_many` have a lane axis, and the checks of `train` on those that do."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from lr_nn import check
from lr_nn.admission import admit_inputs, admit_offset
from lr_nn.network import Network, check_params
from lr_nn.penalties import Penalty, check_penalty
from lr_nn.training.steps import Task
from lr_nn.trees import accumulator
from lr_nn.types import Batch, Layer, Params


def admit(
    net: Network, params: Params, data: Batch, penalty: Penalty | None, key: jax.Array | None
) -> tuple[Batch, Task]:
    """The checked data, and a `Task` of axes for vmap: 0 where a leaf has lanes, None where it is shared."""
    check_penalty(penalty, lanes=True)
    if not isinstance(data, Batch):
        raise TypeError(f"data must be a Batch(x, y); got {type(data).__name__}")
    m, first = _lanes(net, params)
    k = net.sizes[-1]

    def axis(name: str, array: Any, rank: int) -> int | None:
        """0 if `array` has one axis more than `rank`, the first of length m; None if it has `rank`."""
        if jnp.ndim(array) == rank:
            return None
        if jnp.ndim(array) != rank + 1 or array.shape[0] != m:
            raise ValueError(f"{name} must have {rank} axes, or {m} lanes of them; got shape {jnp.shape(array)}")
        return 0

    def rows(array: Any, lane_axis: int | None) -> Any:
        """The rows of all lanes one below the other."""
        return array if lane_axis is None else array.reshape(-1, *array.shape[2:])

    def unfold(array: jax.Array, lane_axis: int | None) -> jax.Array:
        return array if lane_axis is None else array.reshape(m, -1, *array.shape[1:])

    x, y = check.numeric("x", data.x), check.numeric("targets", data.y)
    x_axis = axis("x", x, 2)
    n = x.shape[-2]
    # One number a row where rows stand alone, (n,), or below each other in lanes, (m, n); else k numbers.
    one_number = y.ndim == 1 or (y.ndim == 2 and y.shape != (n, k) and (k == 1 or net.loss.task == "classes"))
    y_axis = axis("targets", y, 1 if one_number else 2)
    x = unfold(admit_inputs(net, first, rows(x, x_axis)), x_axis)
    y = unfold(net.loss.targets(rows(y, y_axis), n * (1 if y_axis is None else m), k, x.dtype), y_axis)

    weight, weight_axis = data.weight, None
    if weight is not None:
        weight = check.numeric("weight", weight)
        weight_axis = axis("weight", weight, 1)
        dtype = accumulator(x.dtype)
        if weight_axis is None:
            weight = check.weights(weight, n, dtype)
        else:
            weight = jnp.stack([check.weights(lane, n, dtype) for lane in weight])

    offset, offset_axis = data.offset, None
    if offset is not None:
        offset = check.numeric("offset", offset)
        offset_axis = axis("offset", offset, 2)
        offset = unfold(admit_offset(rows(offset, offset_axis), n * (m if offset_axis == 0 else 1), k, x), offset_axis)

    axes = Task(
        data=Batch(x_axis, y_axis, weight_axis, offset_axis),
        mean_weight=weight_axis,
        penalty=None
        if penalty is None
        else Penalty(*(axis(f"penalty {f}", s, 0) for f, s in penalty._asdict().items())),
        key=None if key is None else axis("key", jax.random.key_data(key), 1),
    )
    return Batch(x, y, weight, offset), axes


def _lanes(net: Network, params: Params) -> tuple[int, Params]:
    """The number of lanes, and the parameters of the first."""
    if not all(isinstance(layer, Layer) and jnp.ndim(layer.w) == 3 for layer in params):
        raise ValueError(
            "train_many needs parameters with a leading lane axis, w (m, d_in, d_out): "
            "e.g. jax.vmap(lambda key: init(net, key))(jax.random.split(key, m))"
        )
    first = tuple(Layer(w[0], None if b is None else b[0]) for w, b in params)
    check_params(net, first)
    lanes = {a.shape[0] for a in jax.tree.leaves(params)}
    if len(lanes) != 1:
        raise ValueError(f"every leaf of the parameters must have the same number of lanes; got {sorted(lanes)}")
    return lanes.pop(), first
