"""How good a fit is, by task. AUC and the rest are scikit-learn's."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lr_nn.admission import admit
from lr_nn.backward import example_losses
from lr_nn.network import Network, propagate
from lr_nn.objective import weighted_mean
from lr_nn.types import Batch, Params

__all__ = ["metrics"]


def metrics(net: Network, params: Params, batch: Batch) -> dict[str, jax.Array]:
    """Weighted means over examples, by the task of the loss.

    Labels and classes: `accuracy`, the share of labels (of classes) whose likelier side is the target, and
    `log_loss`, the cost without penalty. Values: `rmse`, the root mean squared error over examples and outputs; nothing
    for a loss that states no mean.
    """
    return _metrics(net, params, admit(net, params, batch))


@jax.jit
def _metrics(net: Network, params: Params, batch: Batch) -> dict[str, jax.Array]:
    eta = propagate(net, params, batch).eta
    if not net.loss.states("mean"):
        return {}
    y, mean = net.loss.encode(batch.y, eta), net.loss.mean(eta)
    if net.loss.task == "values":
        return {"rmse": jnp.sqrt(weighted_mean(((mean - y) ** 2).mean(axis=1), batch.weight))}
    if net.loss.task == "labels":
        hits = ((mean > 0.5) == (y > 0.5)).mean(axis=1)
    else:
        hits = (mean.argmax(axis=1) == y.argmax(axis=1)).astype(mean.dtype)
    return {
        "accuracy": weighted_mean(hits, batch.weight),
        "log_loss": weighted_mean(example_losses(net, eta, y), batch.weight),
    }
