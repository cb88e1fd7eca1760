"""The six rungs of the ladder: what each adds, the question it answers on each data set, how it is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import optax

import lr_nn
from experiments import data
from lr_nn import Batch, Network


@dataclass(frozen=True)
class Rung:
    """One step up. `build` makes the network from the numbers of features and of classes or labels."""

    number: int
    name: str
    build: Callable[[int, int], Network]
    lesson: str

    @property
    def title(self) -> str:
        """The number and the name."""
        return f"{self.number} {self.name}"


class Task(NamedTuple):
    """A question, its data, and the words for the answers: `names` of the outputs, or (no, yes) for one output."""

    question: str
    train: Batch
    test: Batch
    names: tuple[str, ...]
    source: data.Dataset


class Protocol(NamedTuple):
    """How a rung is trained: an optax optimiser by name, its learning rate, epochs, rows of a batch (None: all)."""

    optimizer: str
    rate: float
    epochs: int
    batch_size: int | None = None

    def build(self) -> optax.GradientTransformation:
        """The optimiser."""
        return getattr(optax, self.optimizer)(self.rate)

    def shortened(self, steps: int, n: int) -> Protocol:
        """The same, but at most `steps` steps on `n` rows, rounded up to whole epochs."""
        return self._replace(epochs=min(self.epochs, -(-steps // self.steps_per_epoch(n))))

    def steps_per_epoch(self, n: int) -> int:
        """Optimiser steps of an epoch of `n` rows."""
        return -(-n // (self.batch_size or n))

    @property
    def label(self) -> str:
        """The optimiser and its rate in a few letters; GD is plain gradient descent on all rows."""
        name = {"sgd": "SGD" if self.batch_size else "GD", "adam": "Adam"}[self.optimizer]
        rate = f"{self.rate:g}" if self.rate >= 1e-3 else np.format_float_scientific(self.rate, trim="-", exp_digits=1)
        return f"{name} {rate}"


RUNGS = (
    Rung(
        1,
        "one neuron",
        lambda d, k: lr_nn.logistic_regression(d),
        "Binary logistic regression: η = x w + b, and the probability of yes is sigmoid(η). With the cross-entropy "
        "as its loss the error of an example is δ = sigmoid(η) − y, and the gradient is the mean of x δ.",
    ),
    Rung(
        2,
        "multi-label",
        lr_nn.logistic_regression,
        "Several neurons that share the input, each with its own yes-or-no question: w has one column a question, "
        "δ too, and the backward pass does not change by a letter. The cost adds up over the questions.",
    ),
    Rung(
        3,
        "softmax",
        lr_nn.softmax_regression,
        "Exactly one class: the outputs compete, their probabilities add up to one. The loss is again the "
        "cross-entropy, and the error is again δ = probability − y.",
    ),
    Rung(
        4,
        "regression",
        lambda d, k: lr_nn.linear_regression(d),
        "A number instead of a class: only the output activation (now the identity) and the loss (now half the "
        "squared error) change. The error keeps its form: δ = η − y.",
    ),
    Rung(
        5,
        "hidden layer",
        lambda d, k: lr_nn.mlp((d, 4, 1)),
        "The question of rung 1 for a network with one hidden layer of 4 sigmoid neurons. The error travels back "
        "through it: δ₁ = (δ₂ w₂ᵀ) ⊙ a₁ (1 − a₁).",
    ),
    Rung(
        6,
        "deep network",
        lambda d, k: lr_nn.mlp((d, 20, 7, 5, 1)),
        "The same question for three hidden layers of 20, 7 and 5 sigmoid neurons: the same line of the backward "
        "pass, taken three times. As σ′ ≤ ¼, errors shrink on the way back and plain gradient descent waits long "
        "on a plateau, hence Adam.",
    ),
)

ONE_QUESTION = (1, 5, 6)  # the rungs that answer the same question, at growing depth

NAMES = {"digits": "handwritten digits", "cat": "photographs of cats", "mnist": "MNIST"}

PROTOCOLS = {
    "digits": {
        1: Protocol("sgd", 1.0, 1000),
        2: Protocol("sgd", 1.0, 1000),
        3: Protocol("sgd", 1.0, 1000),
        4: Protocol("sgd", 0.1, 300),
        5: Protocol("sgd", 1.0, 2000),
        6: Protocol("adam", 0.01, 1000),
    },
    "cat": {
        1: Protocol("sgd", 0.005, 2000),
        5: Protocol("adam", 3e-4, 1000),
        6: Protocol("adam", 3e-4, 1000),
    },
    "mnist": {
        1: Protocol("sgd", 0.2, 20, 64),
        2: Protocol("sgd", 0.2, 20, 64),
        3: Protocol("sgd", 0.2, 20, 64),
        5: Protocol("adam", 0.003, 20, 64),
        6: Protocol("adam", 0.003, 20, 64),
    },
}

# Rung 1 on the photographs, as the exercise prints it: the cost before step 0, 100, ..., and accuracies in percent.
PUBLISHED_COSTS = {0: "0.693147", 100: "0.584508", 1900: "0.140872"}
PUBLISHED_ACCURACIES = {"training": "99.04", "test": "70.00"}

WHY_NOT = {
    "cat": "a photograph has one label, cat or not",
    "mnist": "the images come with a class and no value to predict",
}


def load(name: str, folder: Path | None, seed: int) -> dict[int, Task]:
    """The tasks of the rungs that the data set has an answer for, by number. Raises UserError for missing data."""
    if name == "cat":
        photographs = data.cat(data.directory(folder, name))
        question = _task("Is there a cat?", photographs, lambda y: y, photographs.classes)
        return dict.fromkeys(PROTOCOLS[name], question)
    if name == "mnist":
        return _of_digits(data.mnist(data.directory(folder, name), seed))
    patients = data.diabetes(seed)
    progression = _task("How far has the disease come after a year?", patients, lambda y: y, (patients.unit,))
    return {**_of_digits(data.digits(seed)), 4: progression}


def _of_digits(digits: data.Dataset) -> dict[int, Task]:
    def labels(y: np.ndarray) -> np.ndarray:
        return np.stack([y % 2 == 0, np.isin(y, (2, 3, 5, 7)), np.isin(y, (0, 6, 8, 9))], axis=1).astype(np.int32)

    parity = _task("Is the digit even?", digits, lambda y: 1 - y % 2, ("odd", "even"))
    three = _task("Is the digit even? A prime? Does it hold a closed loop?", digits, labels, ("even", "prime", "loop"))
    ten = _task("Which digit is it?", digits, lambda y: y, digits.classes)
    return {1: parity, 2: three, 3: ten, 5: parity, 6: parity}


def _task(
    question: str, source: data.Dataset, targets: Callable[[np.ndarray], np.ndarray], names: tuple[str, ...]
) -> Task:
    train, test = (Batch(part.x, targets(part.y)) for part in (source.train, source.test))
    return Task(question, train, test, names, source)
