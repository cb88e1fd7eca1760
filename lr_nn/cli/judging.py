"""How good predictions are: scores by the task, and what the pictures of a report show."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import jax
import numpy as np

from lr_nn import data
from lr_nn.admission import admit
from lr_nn.data import Rows
from lr_nn.network import Network, propagate
from lr_nn.types import Batch, Params

# Numbers of x at a time.
BLOCK = 2**20
TENTHS, POINTS = 10, 1001
# Deviations of the normal law that 95% lie between.
Z95 = 1.959963984540054


def judge(net: Network, params: Params, rows: Rows) -> dict[str, Any]:
    """Scores of a model on rows, by task, weighted as the rows are; `curves` holds what is drawn of them.

    Values: rmse, r2 = 1 - squared errors over those of the mean. Labels: log_loss, accuracy, and for one label auc and
    Brier's mean squared error of p. Classes: log_loss and accuracy.
    """
    y, mean, loss, weight = (np.concatenate(parts) for parts in zip(*_judged(net, params, rows)))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # what has no value, as of one class, is NaN
        return {"rows": len(y), **_scores(net, y, mean, loss, weight)}


def _scores(net: Network, y: np.ndarray, mean: np.ndarray, loss: np.ndarray, weight: np.ndarray) -> dict[str, Any]:
    share = weight / weight.sum()
    if net.loss.task == "values":
        error, spread = share @ (y - mean) ** 2, share @ (y - share @ y) ** 2
        scores = {"rmse": float(np.sqrt(error.mean())), "r2": float(1 - error.sum() / spread.sum())}
        return {**scores, "curves": calibration(mean[:, 0], y[:, 0], weight)}
    scores = {"log_loss": float(share @ loss)}
    if net.loss.task == "classes":
        k = net.sizes[-1]
        table = np.zeros((k, k))
        np.add.at(table, (y.astype(int), mean.astype(int)), weight)
        return {**scores, "accuracy": float(share @ (mean == y)), "curves": {"confusion": table}}
    scores["accuracy"] = float(share @ ((mean > 0.5) == (y > 0.5)).mean(axis=1))
    if y.shape[1] > 1:
        return {**scores, "curves": {}}
    p, y = mean[:, 0], y[:, 0]
    false, true = roc(p, y, weight)
    scores |= {"auc": float(np.trapezoid(true, false)), "brier": float(share @ (p - y) ** 2)}
    drawn = np.unique(np.linspace(0, len(false) - 1, POINTS).astype(int))
    return {**scores, "curves": {"roc": (false[drawn], true[drawn]), **calibration(p, y, weight)}}


def roc(p: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The shares of zeros and of ones above every threshold, from the highest: ties move together.

    The area below is P(p of a one > p of a zero) + P(equal) / 2. Hanley & McNeil (1982).
    """
    order = np.argsort(-p, kind="stable")
    last = np.append(np.flatnonzero(np.diff(p[order])), len(p) - 1)
    ones = np.append(0, np.cumsum((weight * y)[order])[last])
    zeros = np.append(0, np.cumsum((weight * (1 - y))[order])[last])
    return zeros / zeros[-1], ones / ones[-1]


def calibration(mean: np.ndarray, y: np.ndarray, weight: np.ndarray) -> dict[str, Any]:
    """Means of predictions and of targets in tenths of the rows by prediction, with intervals of the latter.

    For shares Wilson's (1927), for other values ± 1.96 standard errors.
    """
    rows = []
    for tenth in np.array_split(np.argsort(mean, kind="stable"), min(TENTHS, len(mean))):
        w = weight[tenth]
        n = w.sum()
        if not n > 0:
            continue
        m, at = w @ mean[tenth] / n, w @ y[tenth] / n
        if y.min() >= 0 and y.max() <= 1:
            middle, half = at + Z95**2 / (2 * n), Z95 * np.sqrt(at * (1 - at) / n + Z95**2 / (4 * n**2))
            low, high = (middle - half) / (1 + Z95**2 / n), (middle + half) / (1 + Z95**2 / n)
        else:
            half = Z95 * np.sqrt(w @ (y[tenth] - at) ** 2 / n / n)
            low, high = at - half, at + half
        rows.append((m, at, low, high))
    return {"calibration": np.array(rows)}


def _judged(net: Network, params: Params, rows: Rows) -> Iterator[tuple[np.ndarray, ...]]:
    """Targets, predictions (their classes, where the task is classes), losses and weights, block by block."""
    wide = any(leaf.dtype == np.float64 for leaf in jax.tree.leaves(params))
    for batch in data.blocks(rows, max(1, BLOCK // len(rows.features))):
        with jax.enable_x64(True) if wide else nullcontext():
            weight = np.ones(len(batch.x)) if batch.weight is None else np.asarray(batch.weight, np.float64)
            # The weights of a block may all be zero; the model does not use them.
            admitted = admit(net, params, Batch(batch.x, batch.y, None, batch.offset))
            found = [np.asarray(each, np.float64) for each in _measured(net, params, admitted)]
        yield (*found, weight)


@jax.jit
def _measured(net: Network, params: Params, batch: Batch) -> tuple[jax.Array, ...]:
    eta = propagate(net, params, batch).eta
    y, mean = net.loss.encode(batch.y, eta), net.loss.mean(eta)
    if net.loss.task == "classes":
        y, mean = y.argmax(axis=1), mean.argmax(axis=1)
    return y, mean, net.loss.value(eta, batch.y)
