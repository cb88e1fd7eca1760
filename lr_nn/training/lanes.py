"""Which arguments of `train_many` have a lane axis, and the checks of `train` on those that do."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn.admission import admit_lanes, lane_axes, lane_axis, lane_shapes
from lr_nn.data.rows import Rows
from lr_nn.network import Network
from lr_nn.penalties import Penalty, check_penalty, is_tree
from lr_nn.training.settings import admit_data
from lr_nn.training.steps import Task
from lr_nn.types import Batch, Params


def admit(
    net: Network, params: Params, data: Batch, penalty: Penalty | None, key: jax.Array | None
) -> tuple[Batch, Task]:
    """The checked data, and a `Task` of axes for vmap: 0 where a leaf has lanes, None where it is shared."""
    check_penalty(penalty, net, lanes=True)
    m = _lanes(net, params)
    data, axes = admit_batch(net, params, data)
    return data, Task(
        data=axes,
        mean_weight=axes.weight,
        penalty=None if penalty is None else _penalty_axes(net, penalty, m),
        key=None if key is None else lane_axis("key", jax.random.key_data(key), 1, m),
    )


def admit_batch(net: Network, params: Params, data: Batch) -> tuple[Batch, Batch]:
    """The checked data, and the lane axis of each of its arrays."""
    arrays, axes = lane_axes(net, data, len(params[0].w))
    dtype = jnp.result_type(params[0].w)
    return admit_lanes(net, arrays, axes, dtype, x_dtype=dtype), axes


def admit_validation(net: Network, params: Params, data: Batch | Rows) -> tuple[Batch | Rows, Batch]:
    """The checked validation data and their lane axes; `Rows` have none."""
    if not isinstance(data, Rows):
        return admit_batch(net, params, data)
    return admit_data(net, one_lane(params), data), Batch(None, None)


def one_lane(params: Params) -> Params:
    """Zeros of the shape of one lane's parameters."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape[1:], leaf.dtype), params)


def _penalty_axes(net: Network, penalty: Penalty, m: int) -> Penalty:
    """The lane axis of every strength."""

    def axes(name: str, strength: Any) -> Any:
        if not is_tree(strength):
            return lane_axis(name, strength, 0, m)
        return tuple(type(layer)(leaf_axis(name, layer.w, 2), leaf_axis(name, layer.b, 1)) for layer in strength)

    def leaf_axis(name: str, leaf: Any, rank: int) -> Any:
        return None if jnp.ndim(leaf) == 0 else lane_axis(name, leaf, rank, m)

    return Penalty(*(axes(f"penalty {field}", strength) for field, strength in penalty._asdict().items()))


def _lanes(net: Network, params: Params) -> int:
    """The number of lanes of parameters that all have them."""
    axes = lane_shapes(net, params, "params")[1]
    if len(jax.tree.leaves(axes)) < len(jax.tree.leaves(params)):
        raise ValueError(
            "train_many needs parameters with a leading lane axis, w (m, d_in, d_out): "
            "e.g. jax.vmap(lambda key: init(net, key))(jax.random.split(key, m))"
        )
    lanes = {a.shape[0] for a in jax.tree.leaves(params)}
    if len(lanes) != 1:
        raise ValueError(f"every leaf of the parameters must have the same number of lanes; got {sorted(lanes)}")
    return lanes.pop()
