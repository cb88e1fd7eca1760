"""Lanes stop, are cut and are resumed as trainings one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tolerances import assert_close, assert_trees_close

import lr_nn
from lr_nn import Batch, Penalty, losses, penalties
from lr_nn.data import Arrays
from lr_nn.training import Checkpoints, ForeignError, checkpoints, loop

NET = lr_nn.mlp((5, 4, 3), loss=losses.categorical)
N, SIZE, PER_EPOCH, M = 23, 4, 6, 3
RATES = (3.0, 0.3, 8.0)
OPTIMIZER = optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)
KEYS = jax.random.split(jax.random.key(1), M)


def rows(seed=0):
    rng = np.random.default_rng(seed)
    return Batch(rng.normal(size=(N, 5)).astype(np.float32), rng.integers(0, 3, N))


def stacked(batches):
    return Batch(*(np.stack(field) for field in zip(*(batch[:2] for batch in batches))))


def lane(tree, i):
    return jax.tree.map(lambda leaf: leaf[i], tree)


STARTS = jax.vmap(lambda key: lr_nn.init(NET, key))(KEYS)
STRENGTHS = np.array([0.0, 0.01, 0.1], np.float32)
HELD_OUT = [rows(seed) for seed in (7, 8, 9)]


def together(**changed):
    state = jax.vmap(OPTIMIZER.init)(STARTS)
    state.hyperparams["learning_rate"] = jnp.array(RATES)
    options = {"epochs": 12, "batch_size": SIZE, "key": KEYS, "penalty": penalties.l2(STRENGTHS), "opt_state": state}
    return lr_nn.train_many(NET, STARTS, rows(), optimizer=OPTIMIZER, **(options | changed))


def alone(i, **changed):
    state = OPTIMIZER.init(lane(STARTS, i))
    state.hyperparams["learning_rate"] = jnp.array(RATES[i])
    penalty = Penalty(0.0, STRENGTHS[i])
    options = {"epochs": 12, "batch_size": SIZE, "key": KEYS[i], "penalty": penalty, "opt_state": state}
    return lr_nn.train(NET, lane(STARTS, i), rows(), optimizer=OPTIMIZER, **(options | changed))


@pytest.mark.parametrize("shared", [True, False])
def test_a_lane_stops_where_it_would_alone_and_keeps_its_best_parameters(shared):
    found = together(validation=HELD_OUT[0] if shared else stacked(HELD_OUT), patience=2)
    ends = []
    for i in range(M):
        expected = alone(i, validation=HELD_OUT[0 if shared else i], patience=2)
        assert found.status[i] == expected.status
        assert_trees_close(lane(found.params, i), expected.params, 72 * N)
        ends.append(len(expected.history["cost"]))
        assert found.history.keys() == expected.history.keys()
        for name, column in expected.history.items():
            assert_close(found.history[name][: ends[i], i], column, 72 * N, np.float32)
            assert np.isnan(found.history[name][ends[i] :, i]).all()
    assert len(set(ends)) > 1 and "early_stopped" in found.status, "lanes of one length would show nothing"
    assert len(found.history["cost"]) == max(ends)


def test_the_training_ends_when_every_lane_has_stopped():
    found = together(validation=rows(7), patience=1, epochs=200)
    assert found.status.tolist() == ["early_stopped"] * M and found.steps < 200 * PER_EPOCH
    assert "any lane" in found.message


def test_rows_judge_as_arrays_do():
    arrays, streamed = (together(validation=data, patience=2) for data in (rows(7), Arrays(*rows(7))))
    assert arrays.status.tolist() == streamed.status.tolist()
    for name, column in arrays.history.items():
        assert_close(np.nan_to_num(streamed.history[name]), np.nan_to_num(column), N, np.float32)


def test_a_lane_that_has_stopped_may_diverge_later():
    """A rate of 50 lets every cost rise from the first step and leave the floats within 40."""
    net, x = lr_nn.linear_regression(5), rows().x
    params = jax.tree.map(lambda leaf: jnp.zeros((2, *leaf.shape)), lr_nn.init(net, jax.random.key(0)))
    state = jax.vmap(OPTIMIZER.init)(params)
    state.hyperparams["learning_rate"] = jnp.array([50.0, 0.01])
    data = Batch(x, x.sum(axis=1))
    options = {"optimizer": OPTIMIZER, "epochs": 40, "opt_state": state, "validation": data}
    assert lr_nn.train_many(net, params, data, **options).status.tolist() == ["non_finite", "completed"]
    found = lr_nn.train_many(net, params, data, patience=3, **options)
    assert found.status.tolist() == ["early_stopped", "completed"] and "1 of 2 lanes stopped early" in found.message
    assert np.isfinite(found.history["cost"][:, 0]).tolist() == [True] * 4 + [False] * 36
    once = lr_nn.train_many(net, params, data, **(options | {"epochs": 1}))
    assert_trees_close(lane(found.params, 0), lane(once.params, 0), N)


@pytest.fixture
def single_steps(monkeypatch):
    monkeypatch.setattr(loop.Run, "chunk_seconds", 0.0)


def assert_equal(found, expected):
    """Equal to the last bit; NaN equals NaN."""
    assert (found.status.tolist(), found.message) == (expected.status.tolist(), expected.message)
    for part in ("params", "opt_state", "history"):
        mine, theirs = jax.tree.leaves(getattr(found, part)), jax.tree.leaves(getattr(expected, part))
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(a, b, strict=True)


def test_an_interruption_leaves_the_best_of_stopped_lanes_and_the_last_of_others():
    def progress(now):
        if now.step >= 24:
            raise KeyboardInterrupt

    found, last = (together(validation=HELD_OUT[0], progress=progress, patience=each) for each in (2, None))
    assert {*found.status} == {"interrupted", "early_stopped"} and found.steps == last.steps
    for i, status in enumerate(found.status):
        equal = bool((lane(found.params, i)[0].w == lane(last.params, i)[0].w).all())
        assert equal == (status == "interrupted")


@pytest.mark.parametrize("cut", [4, 13, 26])
def test_cut_and_resumed_lanes_are_the_uninterrupted_ones(tmp_path, single_steps, cut):
    def progress(now):
        if now.step == cut:
            raise KeyboardInterrupt

    way = {"validation": HELD_OUT[0], "patience": 2}
    interrupted = together(checkpoints=Checkpoints(tmp_path, every=1e9), progress=progress, **way)
    assert "interrupted" in interrupted.status and len(checkpoints.steps(tmp_path)) == 1
    expected = together(**way)
    assert_equal(together(checkpoints=Checkpoints(tmp_path, every=1e9), resume=True, **way), expected)
    assert_equal(together(checkpoints=Checkpoints(tmp_path, every=1e9), resume=True, **way), expected)


def test_checkpoints_of_other_lanes_are_refused(tmp_path):
    kept = {"checkpoints": Checkpoints(tmp_path, every=1e9)}
    together(epochs=1, **kept)
    with pytest.raises(ForeignError, match="its penalty is another one"):
        together(epochs=2, resume=True, penalty=penalties.l2(2 * STRENGTHS), **kept)
    with pytest.raises(ForeignError, match="its key is another one"):
        together(epochs=2, resume=True, key=KEYS[0], **kept)


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match="patience needs validation data"):
        together(patience=2)
    with pytest.raises(ValueError, match="resume needs to know where from"):
        together(resume=True)
    with pytest.raises(ValueError, match="3 lanes"):
        together(validation=stacked(HELD_OUT[:2]))
