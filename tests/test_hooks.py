"""A hook sees the parameters and the pass of the step that follows, and changes nothing."""

import chex
import jax
import numpy as np
import optax
import pytest
from tolerances import assert_trees_close

import lr_nn
from lr_nn import Batch, losses, per_example
from lr_nn.data import Arrays
from lr_nn.training import Hook

NET = lr_nn.mlp((5, 4, 3), loss=losses.categorical)
N, SIZE, PER_EPOCH = 23, 4, 6
RATE = 0.5
SGD = optax.sgd(RATE)
DATA = Batch(
    np.random.default_rng(0).normal(size=(N, 5)).astype(np.float32), np.random.default_rng(1).integers(0, 3, N)
)


def train(data=DATA, **changed):
    options = {"optimizer": SGD, "epochs": 3, "batch_size": SIZE, "key": jax.random.key(1)}
    return lr_nn.train(NET, lr_nn.init(NET, jax.random.key(0)), data, **(options | changed))


class Seen:
    """Keeps what a hook is called with."""

    def __init__(self):
        self.steps, self.params, self.gradients = [], [], []

    def __call__(self, step, params, bp):
        self.steps.append(step)
        self.params.append(params)
        self.gradients.append(lr_nn.gradient(bp))


@pytest.mark.parametrize("data", [DATA, Arrays(*DATA)], ids=["arrays", "rows"])
def test_the_pass_is_that_of_the_next_step(data):
    seen = Seen()
    result = train(data, hook=Hook(seen))
    assert seen.steps == list(range(19))
    for before, gradient, after in zip(seen.params, seen.gradients, seen.params[1:]):
        assert_trees_close(after, jax.tree.map(lambda p, g: p - RATE * g, before, gradient), SIZE)
    chex.assert_trees_all_equal(seen.params[-1], result.params)


def test_a_full_batch_is_all_rows():
    seen = Seen()
    train(batch_size=None, hook=Hook(seen, every=2))
    assert seen.steps == [0, 2]
    assert_trees_close(seen.gradients[0], lr_nn.value_and_gradient(NET, seen.params[0], DATA)[1], N)


@pytest.mark.parametrize("data", [DATA, Arrays(*DATA)], ids=["arrays", "rows"])
def test_a_hook_changes_nothing(data):
    plain, hooked = (train(data, validation=DATA, hook=hook) for hook in (None, Hook(Seen(), every=5)))
    chex.assert_trees_all_equal(plain.params, hooked.params)
    chex.assert_trees_all_equal(plain.history, hooked.history)


def test_what_it_returns_becomes_columns_of_the_history():
    def measured(step, params, bp):
        norms = per_example.squared_norms(bp)
        return {"noise_scale": per_example.noise_scale(bp).scale, "norms": norms, "some": np.zeros(step // 5)}

    history = train(hook=Hook(measured, every=5)).history
    assert history["hook_step"].tolist() == [0, 5, 10, 15]
    assert history["hook_noise_scale"].shape == (4,) and history["hook_norms"].shape == (4, SIZE)
    assert [len(each) for each in history["hook_some"]] == [0, 1, 2, 3], "shapes may differ"


def test_the_history_keeps_the_numbers_of_an_array_that_is_used_again():
    buffer = np.zeros(1)

    def counted(step, *rest):
        buffer[:] = step
        return {"step_again": buffer}

    history = train(hook=Hook(counted, every=9)).history
    assert history["hook_step_again"].ravel().tolist() == [0, 9, 18]


BAD = {
    "function": (lambda: Hook("print"), TypeError, "callable"),
    "every": (lambda: Hook(print, every=0), ValueError, "every must be at least 1"),
    "hook": (lambda: train(hook=print), TypeError, r"training\.Hook\(function"),
    "result": (lambda: train(hook=Hook(lambda *seen: 1.0)), TypeError, "a dict of numbers and arrays, .*; got 1.0"),
    "names": (lambda: train(hook=Hook(lambda step, *rest: {f"a{step}": 0})), TypeError, "a dict of a0, as before"),
    "step": (lambda: train(hook=Hook(lambda *seen: {"step": 0})), TypeError, "none of them named step"),
    "tree": (lambda: train(hook=Hook(lambda step, params, bp: {"p": params})), TypeError, "numbers and arrays; p is"),
}


@pytest.mark.parametrize("call, error, message", BAD.values(), ids=list(BAD))
def test_impossible_hooks_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
