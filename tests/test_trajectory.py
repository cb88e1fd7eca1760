"""The published exercise, held to the digit: logistic regression on the cat photographs."""

import os
from pathlib import Path

import jax
import pytest

import lr_nn
from experiments.ladder.rungs import PROTOCOLS, PUBLISHED_ACCURACIES, PUBLISHED_COSTS, RUNGS, load
from lr_nn.training import metrics

pytestmark = pytest.mark.skipif(not os.environ.get("LR_NN_DATA"), reason="LR_NN_DATA is not set; CI sets it")


@pytest.fixture(scope="module")
def task():
    return load("cat", Path(os.environ["LR_NN_DATA"]), seed=0)[1]


@pytest.fixture(scope="module")
def net(task):
    return RUNGS[0].build(task.train.x.shape[1], len(task.names))


@pytest.fixture(scope="module")
def training(task, net):
    protocol = PROTOCOLS["cat"][1]
    assert (protocol.optimizer, protocol.rate, protocol.epochs, protocol.batch_size) == ("sgd", 0.005, 2000, None)
    start = lr_nn.init(net, jax.random.key(0))
    assert not any(leaf.any() for leaf in jax.tree.leaves(start))
    return lr_nn.train(net, start, task.train, optimizer=protocol.build(), epochs=protocol.epochs)


def test_the_photographs_are_those_of_the_exercise(task):
    assert (task.train.x.shape, task.test.x.shape) == ((209, 64 * 64 * 3), (50, 64 * 64 * 3))
    assert task.train.x.min() >= 0 and task.train.x.max() <= 1


def test_the_cost_prints_the_published_six_digits(training):
    printed = {step: f"{training.history['cost'][step]:.6f}" for step in PUBLISHED_COSTS}
    assert printed == PUBLISHED_COSTS == {0: "0.693147", 100: "0.584508", 1900: "0.140872"}


def test_the_accuracies_are_the_published_ones(training, task, net):
    parts = {"training": task.train, "test": task.test}
    printed = {name: f"{100 * metrics(net, training.params, part)['accuracy']:.2f}" for name, part in parts.items()}
    assert printed == PUBLISHED_ACCURACIES == {"training": "99.04", "test": "70.00"}
