"""The cost and the metrics of a network on validation data, arrays or rows, of one network or of lanes."""

from __future__ import annotations

from contextlib import closing
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn.data import stream
from lr_nn.data.rows import Rows
from lr_nn.network import Network
from lr_nn.objective import cost
from lr_nn.training.feeds import admission
from lr_nn.training.lanes import one_lane
from lr_nn.training.metrics import metrics
from lr_nn.types import Batch, Params

# Scores that are roots of means: over blocks the means are added, not the roots.
ROOTS = ("validation_rmse",)


def judge(
    net: Network, params: Params, validation: Batch | Rows, size: int, axes: Batch | None = None
) -> dict[str, np.ndarray]:
    """The cost (without penalty) and the metrics of the task on validation data, rows in blocks of `size`.

    axes: those of the lanes of `validation`, where the parameters have lanes; every score is then of shape (m,).
    """
    if isinstance(validation, Batch):
        return {name: np.asarray(score) for name, (_, score) in _scores(net, params, validation, axes).items()}
    admitted = admission(net, params if axes is None else one_lane(params))
    sums: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    with closing(stream.blocks(validation, size)) as blocks:
        for number, block in enumerate(blocks):
            for name, (weight, score) in _scores(net, params, admitted(number * size, block), axes).items():
                mean = np.asarray(score, np.float64) ** (2 if name in ROOTS else 1)
                total, summed = sums.get(name, (np.zeros(()), np.zeros(())))
                each = np.asarray(weight, np.float64)
                sums[name] = total + each, summed + each * mean
    means = {name: summed / np.where(total > 0, total, 1.0) for name, (total, summed) in sums.items()}
    return {name: np.asarray(mean ** (0.5 if name in ROOTS else 1)) for name, mean in means.items()}


@partial(jax.jit, static_argnames="axes")
def _scores(net: Network, params: Params, batch: Batch, axes: Batch | None) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Each score of a batch, and the sum of the weights that it is a mean over."""

    def scored(params: Params, batch: Batch) -> dict[str, tuple[jax.Array, jax.Array]]:
        scores = metrics(net, params, batch)
        scores.pop("log_loss", None)  # that is the cost
        scores = {"cost": cost(net, params, batch)} | scores
        weight = jnp.asarray(len(batch.x), jnp.float32) if batch.weight is None else batch.weight.sum()
        return {f"validation_{name}": (weight, score) for name, score in scores.items()}

    return scored(params, batch) if axes is None else jax.vmap(scored, in_axes=(0, axes))(params, batch)
