"""One rung: train it, score it, and compare its gradient with autodiff."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import lr_nn
from experiments.compare import Difference, StepTimes, gradient_difference, random_point, step_times
from experiments.ladder.rungs import Protocol, Rung, Task
from lr_nn import Batch, Network
from lr_nn.training import Progress, Training, metrics
from lr_nn.types import Params

POINTS = 100

judge = jax.jit(metrics)


class Curve(NamedTuple):
    """Costs, each with the number of optimiser steps taken before it."""

    steps: np.ndarray
    costs: np.ndarray


@dataclass(frozen=True)
class Result:
    """What was found on a rung. `curves` and `scores` have an entry for each part, training and test.

    Scores are accuracy and log_loss (for labels auc too), or rmse and r2.
    """

    rung: Rung
    task: Task
    protocol: Protocol
    net: Network
    training: Training
    curves: dict[str, Curve]
    scores: dict[str, dict[str, float]]
    difference: Difference
    times: StepTimes

    @property
    def holds(self) -> bool:
        """Is the difference from `jax.grad` one of rounding? In a sum over n rows: below 8 eps (1 + √n)."""
        return self.difference.relative < 8 * float(np.finfo(np.float32).eps) * (1 + len(self.task.train.x) ** 0.5)

    def rmse(self, part: str) -> float:
        """The root mean squared error in the unit of the data."""
        return self.scores[part]["rmse"] * self.task.source.scale

    def score(self, part: str) -> str:
        """Accuracy or R², in a few letters."""
        scores = self.scores[part]
        return f"R² {scores['r2']:.2f}" if "r2" in scores else f"{100 * scores['accuracy']:.1f} %"

    def long_score(self, part: str) -> str:
        """The score in words."""
        if "r2" in self.scores[part]:
            return f"RMSE {self.rmse(part):.1f} {self.task.source.unit}, {self.score(part)}"
        return f"{self.score(part)} of {'labels' if self.task.test.y.ndim == 2 else 'rows'} right"

    def lines(self) -> Iterator[dict[str, Any]]:
        """The record: about a hundred points of the cost curves, then a summary."""
        name = {"rung": self.rung.number}
        for part, curve in self.curves.items():
            stride = max(1, len(curve.steps) // POINTS)
            for step, value in zip(curve.steps[::stride], curve.costs[::stride]):
                yield {"kind": "cost", **name, "part": part, "step": step, "cost": value}
        yield {
            "kind": "rung",
            **name,
            "name": self.rung.name,
            "question": self.task.question,
            "sizes": self.net.sizes,
            "parameters": lr_nn.n_parameters(self.net),
            "loss": self.net.loss.name,
            "protocol": self.protocol._asdict(),
            "status": self.training.status,
            "steps": self.training.steps,
            "cost": dict(zip(("start", "end"), self.curves["training"].costs[[0, -1]])),
            "scores": self.scores,
            "gradient": self.difference._asdict(),
            "step_seconds": self.times._asdict(),
        }


def climb(
    rung: Rung, task: Task, protocol: Protocol, seed: int, repeats: int, progress: Callable[[Progress], None]
) -> Result:
    """Train the network of a rung by the protocol and judge it on both parts.

    The test rows are only looked at: nothing is chosen by them. Raises KeyboardInterrupt if it was interrupted.
    """
    train, test = (jax.tree.map(jnp.asarray, part) for part in (task.train, task.test))
    net = rung.build(train.x.shape[1], len(task.names))
    initial, order = jax.random.split(jax.random.fold_in(jax.random.key(seed), rung.number))
    start = lr_nn.init(net, initial)
    training = lr_nn.train(
        net,
        start,
        train,
        optimizer=protocol.build(),
        epochs=protocol.epochs,
        batch_size=protocol.batch_size,
        key=order,
        validation=test,
        progress=progress,
    )
    if training.status == "interrupted":
        raise KeyboardInterrupt
    point = random_point(net, seed)
    return Result(
        rung,
        task,
        protocol,
        net,
        training,
        _curves(net, start, training, protocol, train, test),
        {name: _scores(net, training.params, part) for name, part in (("training", train), ("test", test))},
        gradient_difference(net, point, train),
        step_times(net, point, train, repeats),
    )


def _curves(
    net: Network, start: Params, training: Training, protocol: Protocol, train: Batch, test: Batch
) -> dict[str, Curve]:
    """Costs from before the first step to after the last one.

    With mini-batches the training cost of an epoch is a mean over its steps, and stands at the middle of it.
    """
    costs, test_costs = training.history["cost"], training.history["validation_cost"]
    epoch = protocol.steps_per_epoch(len(train.x))
    first, last, first_test = (
        np.asarray(lr_nn.cost(net, params, part))[None]
        for params, part in ((start, train), (training.params, train), (start, test))
    )
    if protocol.batch_size is None:
        steps, costs = np.arange(len(costs)), np.concatenate([costs, last])
    else:
        steps = np.append(0, (np.arange(len(costs)) + 0.5) * epoch)
        costs = np.concatenate([first, costs, last])
    return {
        "training": Curve(np.append(steps, training.steps), costs),
        "test": Curve(epoch * np.arange(len(test_costs) + 1), np.concatenate([first_test, test_costs])),
    }


def _scores(net: Network, params: Params, part: Batch) -> dict[str, float]:
    """The metrics of the task, and scikit-learn's R² where values are predicted, its AUC where labels are."""
    from sklearn.metrics import r2_score, roc_auc_score

    scores = {name: float(score) for name, score in judge(net, params, part).items()}
    y, mean = np.asarray(part.y), np.asarray(lr_nn.predict(net, params, part.x))
    if net.loss.task == "values":
        scores["r2"] = float(r2_score(y, mean))
    if net.loss.task == "labels":
        scores["auc"] = float(roc_auc_score(y, mean))
    return scores
