"""Private training takes the steps of DP-SGD and spends what it says."""

import sys
from itertools import pairwise

import chex
import jax
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from tolerances import assert_close, assert_trees_close

import lr_nn
from lr_nn import Batch, losses, penalties, per_example, private
from lr_nn.data import Arrays
from lr_nn.training import Checkpoints, ForeignError, Hook, Private, loop, privacy
from lr_nn.training.steps import OVERFLOW

NET = lr_nn.mlp((5, 4, 3), loss=losses.categorical)
N, SIZE, PER_EPOCH = 23, 4, 6
RATE, BOUND = 0.5, 0.3
SGD = optax.sgd(RATE)
DATA = Batch(
    np.random.default_rng(0).normal(size=(N, 5)).astype(np.float32), np.random.default_rng(1).integers(0, 3, N)
)
QUIET = Private(max_norm=BOUND, noise_multiplier=0.0)
LOUD = Private(max_norm=BOUND, noise_multiplier=8.0, delta=1e-3)


def train(settings, data=DATA, **changed):
    options = {"optimizer": SGD, "epochs": 3, "batch_size": SIZE, "key": jax.random.key(1)}
    return lr_nn.train(NET, lr_nn.init(NET, jax.random.key(0)), data, private=settings, **(options | changed))


def passes(settings, **changed):
    """The parameters and the pass of every step."""
    seen = []
    train(settings, hook=Hook(lambda *at: seen.append(at)), **changed)
    return [(params, bp) for _, params, bp in seen]


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0])


def clipped_sum(bp):
    """Σ s_i min(1, C / ‖g_i‖) g_i of per-example gradients that are there one by one."""
    gradients = np.hstack([np.asarray(g).reshape(len(g), -1) for g in jax.tree.leaves(per_example.gradients(bp))])
    return (np.asarray(bp.weight) * np.minimum(1, BOUND / np.linalg.norm(gradients, axis=1))) @ gradients


def test_with_every_row_no_noise_and_a_wide_bound_it_is_training():
    found = train(Private(max_norm=1e3, noise_multiplier=0.0), batch_size=None)
    expected = lr_nn.train(NET, lr_nn.init(NET, jax.random.key(0)), DATA, optimizer=SGD, epochs=3)
    assert_trees_close(found.params, expected.params, 3 * N)
    assert_close(found.history["cost"], expected.history["cost"], 3 * N, np.float32)


def test_a_step_subtracts_the_clipped_sum_over_the_expected_size_and_the_penalty():
    seen = passes(QUIET, penalty=penalties.l2(0.1))
    assert len(seen) == 3 * PER_EPOCH + 1
    for (params, bp), (after, _) in pairwise(seen):
        w = flat(tuple(lr_nn.Layer(layer.w, 0 * layer.b) for layer in params))
        expected = flat(params) - RATE * (clipped_sum(bp) / SIZE + 0.1 * w)
        assert_close(flat(after), expected, N, np.float32)


def test_rows_are_drawn_alone_with_the_sampling_rate():
    """Counts of each row are binomial: within five standard deviations; so is the size of a batch, which varies."""
    seen = passes(QUIET, epochs=40)
    drawn = np.zeros((len(seen), N))
    for step, (_, bp) in enumerate(seen):
        rows = np.asarray(bp.activations[0])[np.asarray(bp.weight) == 1]
        drawn[step] = (rows[:, None] == DATA.x).all(axis=2).sum(axis=0)
    rate = SIZE / N
    assert drawn.max() == 1
    deviation = np.sqrt(rate * (1 - rate) / len(drawn))
    assert (np.abs(drawn.mean(axis=0) - rate) < 5 * deviation).all()
    assert np.abs(drawn.sum(axis=1).var() / (N * rate * (1 - rate)) - 1) < 5 * np.sqrt(2 / len(drawn))


def test_the_noise_is_normal_with_the_deviation_of_the_mechanism():
    seen = passes(LOUD, epochs=10)
    noise = np.concatenate(
        [(flat(params) - flat(after)) * SIZE / RATE - clipped_sum(bp) for (params, bp), (after, _) in pairwise(seen)]
    ) / (BOUND * LOUD.noise_multiplier)
    n = len(noise)
    assert abs(noise.mean()) < 5 / n**0.5 and abs(noise.var() - 1) < 5 * (2 / n) ** 0.5
    assert abs((noise**4).mean() - 3) < 5 * (96 / n) ** 0.5
    assert len(np.unique(noise.round(4))) > 0.5 * n, "no noise is used twice"


def test_a_row_whose_cost_overflows_ends_nothing_but_parameters_that_do_end_it():
    """Whether the training ends early is private too."""
    net = lr_nn.linear_regression(5)
    data = Batch(np.where(np.arange(N)[:, None] == 3, np.float32(1e25), DATA.x), np.zeros(N, np.float32))
    options = {"epochs": 2, "batch_size": SIZE, "key": jax.random.key(1), "private": QUIET}
    found = lr_nn.train(net, lr_nn.init(net, jax.random.key(0)), data, optimizer=SGD, **options)
    assert found.status == "completed" and np.isfinite(found.history["cost"]).all()
    failed = lr_nn.train(net, lr_nn.init(net, jax.random.key(0)), data, optimizer=optax.sgd(np.inf), **options)
    assert failed.status == "non_finite" and np.isfinite(failed.params[0].w).all()


def test_the_history_has_the_epsilon_of_its_steps():
    found = train(LOUD)
    options = {"noise_multiplier": 8.0, "sampling_rate": SIZE / N, "delta": 1e-3}
    expected = [private.epsilon(steps=PER_EPOCH * epoch, **options) for epoch in (1, 2, 3)]
    np.testing.assert_allclose(found.history["epsilon"], expected, rtol=1e-6)
    assert "epsilon" not in train(QUIET).history


def test_of_many_epochs_some_are_accounted_and_bound_those_before(monkeypatch):
    asked = []
    monkeypatch.setattr(privacy, "epsilon_of_steps", lambda *at: lambda steps, delta: asked.append(steps) or steps**0.5)
    found = privacy.Accountant(LOUD, 0.1, 5000).column(500, 10, 4997)["epsilon"]
    exact = np.minimum(10.0 * np.arange(1, 501), 4997) ** 0.5
    assert len(found) == 500 and len(asked) == privacy.ACCOUNTED_EPOCHS
    assert (found >= exact).all() and (np.diff(found) >= 0).all() and (found[[0, -1]] == exact[[0, -1]]).all()


def test_delta_also_pays_for_batches_above_their_capacity(monkeypatch):
    monkeypatch.setattr(privacy, "epsilon_of_steps", lambda *at: lambda steps, delta: delta)
    assert privacy.Accountant(LOUD, 0.1, 5000).epsilon(5000) == LOUD.delta - 5000 * OVERFLOW < LOUD.delta


def test_a_budget_finds_the_noise_that_all_epochs_need(monkeypatch):
    """The search for the multiplier takes seconds, so this test replaces it and checks what it is asked for."""
    asked = []
    monkeypatch.setattr(privacy, "noise_multiplier", lambda **question: asked.append(question) or 6.2235)
    found = train(Private(max_norm=BOUND, epsilon=0.05, delta=1e-2), epochs=1)
    (question,) = asked
    assert question == {"epsilon": 0.05, "delta": pytest.approx(1e-2), "sampling_rate": SIZE / N, "steps": PER_EPOCH}
    assert question["delta"] == 1e-2 - PER_EPOCH * OVERFLOW, "a batch may be larger than its room"
    assert found.status == "completed" and found.steps == PER_EPOCH
    assert 0.0499 < found.history["epsilon"][-1] <= 0.05


def test_with_noise_and_a_budget_the_last_step_within_it_is_the_last():
    found = train(Private(max_norm=BOUND, noise_multiplier=8.0, epsilon=0.2, delta=1e-3), epochs=20)
    options = {"noise_multiplier": 8.0, "sampling_rate": SIZE / N, "delta": 1e-3}
    assert found.status == "budget_spent" and f"step {found.steps}" in found.message
    assert private.epsilon(steps=found.steps, **options) <= 0.2 < private.epsilon(steps=found.steps + 1, **options)
    assert len(found.history["epsilon"]) == len(found.history["cost"]) and found.history["epsilon"][-1] <= 0.2


def test_cut_and_resumed_it_is_the_uninterrupted_training(tmp_path, monkeypatch):
    monkeypatch.setattr(loop.Run, "chunk_seconds", 0.0)

    def progress(now):
        if now.step == 9:
            raise KeyboardInterrupt

    kept = {"checkpoints": Checkpoints(tmp_path, every=1e9)}
    assert train(LOUD, progress=progress, **kept).status == "interrupted"
    found, expected = train(LOUD, resume=True, **kept), train(LOUD)
    chex.assert_trees_all_equal(found.params, expected.params)
    chex.assert_trees_all_equal(found.history, expected.history)
    with pytest.raises(ForeignError, match=r"its privacy is another one: .*8\.0.* there, .*2\.0"):
        train(Private(max_norm=BOUND, noise_multiplier=2.0), epochs=4, resume=True, **kept)
    with pytest.raises(ForeignError, match=r"its privacy is another one: .* there, None here"):
        train(None, epochs=4, resume=True, **kept)
    poor = Private(max_norm=BOUND, noise_multiplier=8.0, epsilon=0.5 * expected.history["epsilon"][-1], delta=1e-3)
    with pytest.raises(ValueError, match="18 steps before the resumption cost an epsilon of"):
        train(poor, resume=True, **kept)


def test_without_a_delta_nothing_is_accounted_and_with_one_dp_accounting_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    assert train(QUIET).status == "completed"
    with pytest.raises(ImportError, match=r"lr-nn\[private\]"):
        train(LOUD)


BAD = {
    "bound": (lambda: Private(max_norm=0.0, noise_multiplier=1.0), ValueError, "max_norm must be positive"),
    "no bound": (lambda: Private(max_norm=None, noise_multiplier=1.0), TypeError, "max_norm must be a number"),
    "a bound whose noise vanishes": (lambda: Private(1e-38, noise_multiplier=0.1), ValueError, "from 1e-30 to 1e30"),
    "text": (lambda: Private(max_norm="1", noise_multiplier=1.0), TypeError, "max_norm must be a number"),
    "negative noise": (lambda: Private(max_norm=1.0, noise_multiplier=-1.0), ValueError, "noise_multiplier must be"),
    "delta": (lambda: Private(max_norm=1.0, noise_multiplier=1.0, delta=1.0), ValueError, "delta must be between"),
    "nothing": (lambda: Private(max_norm=1.0), ValueError, "needs a noise_multiplier, or a budget"),
    "no delta": (lambda: Private(max_norm=1.0, epsilon=1.0), ValueError, "needs a delta"),
    "settings": (lambda: train({"max_norm": 1.0}), TypeError, r"training\.Private\(max_norm"),
    "rows": (lambda: train(QUIET, Arrays(*DATA)), TypeError, "needs a Batch of arrays"),
    "weights": (lambda: train(QUIET, DATA._replace(weight=np.ones(N))), ValueError, "leave out the weights"),
    "key": (lambda: train(QUIET, key=None, batch_size=None), ValueError, "pass key="),
    "a small budget": (
        lambda: train(Private(max_norm=1.0, noise_multiplier=3.0, epsilon=1e-3, delta=1e-9)),
        ValueError,
        "one step costs an epsilon of",
    ),
}


@pytest.mark.parametrize("call, error, message", BAD.values(), ids=list(BAD))
def test_impossible_settings_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_an_optimiser_that_looks_at_the_cost_is_refused():
    """The value of the cost is not private."""
    with jax.numpy_dtype_promotion("standard"), pytest.raises(TypeError, match="value"):
        train(QUIET, optimizer=optax.lbfgs())
