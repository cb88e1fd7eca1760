"""Training on rows that are read block by block is the step of the textbook on those blocks."""

import threading

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lr_nn
from lr_nn import Batch, losses, penalties, training
from lr_nn.admission import admit
from lr_nn.data import Arrays, Rows, mini_batches
from lr_nn.data.stream import count, order
from lr_nn.training import loop
from lr_nn.training.validation import judge
from tests.tolerances import assert_close, assert_trees_close

NET = lr_nn.mlp((5, 4, 3), loss=losses.categorical)
SGD = optax.sgd(0.5)
N, SIZE = 23, 4
KEY = jax.random.key(5)


def arrays(weighted=False, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(N, 5)).astype(np.float32), rng.integers(0, 3, N)
    return Batch(x, y, rng.uniform(0.5, 2, N) if weighted else None)


def start(net=NET, dtype=np.float32):
    return lr_nn.init(net, jax.random.key(0), dtype)


class Watched(Rows):
    """Rows that note what is read of them, and fail where they are told to."""

    def __init__(self, batch, fails_after=None):
        self.rows, self.reads, self.fails_after = Arrays(*batch), [], fails_after

    @property
    def features(self):
        return self.rows.features

    def __len__(self):
        return len(self.rows)

    def read(self, start, stop):
        if self.fails_after is not None and len(self.reads) >= self.fails_after:
            raise OSError("the disk is gone")
        self.reads.append((start, stop))
        return self.rows.read(start, stop)


def test_training_takes_the_steps_of_its_mini_batches():
    data, params, state, costs = arrays(), start(), SGD.init(start()), []
    result = lr_nn.train(NET, params, Arrays(*data), optimizer=SGD, epochs=3, batch_size=SIZE, key=KEY)
    for epoch in range(3):
        each = []
        for batch in mini_batches(Arrays(*data), SIZE, key=KEY, epoch=epoch):
            params, state, cost = training.step(NET, params, state, batch, optimizer=SGD)
            each.append((len(batch.x), float(cost)))
        costs.append(sum(n * cost for n, cost in each) / N)
    assert_trees_close(result.params, params, 18 * N)
    assert_close(result.history["cost"], np.array(costs), 18 * N, np.float32)
    assert result.status == "completed" and result.steps == 18


def test_every_epoch_reads_every_row_once_in_an_order_of_its_own():
    rows = Watched(arrays())
    lr_nn.train(NET, start(), rows, optimizer=SGD, epochs=3, batch_size=SIZE, key=KEY)
    reads = [read for read in rows.reads if read != (0, 1)]
    for epoch in range(3):
        expected = [(SIZE * b, min(N, SIZE * (b + 1))) for b in order(KEY, epoch, count(rows, SIZE))]
        assert reads[6 * epoch : 6 * (epoch + 1)] == expected
    assert len(reads) <= 3 * 6 + 2, "at most two blocks are read ahead"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lr_nn")]


@pytest.mark.parametrize("weighted", [False, True])
def test_all_rows_in_one_block_is_training_in_memory(weighted):
    data = arrays(weighted)
    options = {"optimizer": optax.sgd(0.1, momentum=0.9), "epochs": 8, "penalty": penalties.l2(0.1)}
    streamed = lr_nn.train(NET, start(), Arrays(*data), batch_size=N, **options)
    whole = lr_nn.train(NET, start(), data, **options)
    assert_trees_close(streamed.params, whole.params, 8 * N)
    assert_close(streamed.history["cost"], whole.history["cost"], 8 * N, np.float32)


@pytest.mark.parametrize("weighted", [False, True])
def test_mini_batch_gradients_average_to_the_gradient(weighted):
    """A step of rate 1 on each block alone: Σ_blocks rows · step / n is the step on all rows, whatever the weights."""
    data, params, rate = arrays(weighted), start(), optax.sgd(1.0)
    rows = Arrays(*data)
    moved = jax.tree.map(jnp.zeros_like, params)
    feed = training.feeds.Streamed(NET, rate, params, rows, SIZE, KEY, None)
    for step, size in enumerate(feed.rows(0)):
        state = training.steps.State(params, rate.init(params), None, jnp.asarray(step, jnp.int32))
        new = feed.advance(state, 1)[0].params
        moved = jax.tree.map(lambda m, a, b, share=size / N: m + share * (a - b), moved, new, params)
    feed.close()
    expected = jax.tree.map(jnp.negative, lr_nn.value_and_gradient(NET, params, data)[1])
    assert_trees_close(moved, expected, N * N)


def test_a_block_of_weight_zero_moves_nothing():
    data = arrays()._replace(weight=np.r_[np.zeros(SIZE), np.ones(N - SIZE)])
    feed = training.feeds.Streamed(NET, SGD, start(), Arrays(*data), SIZE, KEY, None)
    step = int(np.flatnonzero(np.asarray(order(KEY, 0, 6)) == 0)[0])
    state = training.steps.State(start(), SGD.init(start()), None, jnp.asarray(step, jnp.int32))
    chex.assert_trees_all_equal(feed.advance(state, 1)[0].params, start())
    feed.close()


def test_how_many_steps_run_in_one_call_changes_nothing(monkeypatch):
    options = {"optimizer": SGD, "epochs": 3, "batch_size": SIZE, "key": KEY}
    whole = lr_nn.train(NET, start(), Arrays(*arrays()), **options)
    monkeypatch.setattr(loop.Run, "chunk_seconds", 0.0)
    single = lr_nn.train(NET, start(), Arrays(*arrays()), **options)
    chex.assert_trees_all_equal((whole.params, whole.history), (single.params, single.history))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("task", ["classes", "values"])
def test_validation_rows_are_judged_as_a_validation_batch(task, weighted):
    data = arrays(weighted, seed=7)
    net = NET if task == "classes" else lr_nn.linear_regression(5)
    data = data if task == "classes" else data._replace(y=data.x.sum(axis=1) + 1)
    params = jax.tree.map(lambda a: a + 0.1, start(net))
    streamed = judge(net, params, Arrays(*data), SIZE)
    whole = judge(net, params, admit(net, params, data), SIZE)
    assert (
        set(streamed) == set(whole) == {"validation_cost", "validation_accuracy" if net is NET else "validation_rmse"}
    )
    for name in whole:
        assert_close(streamed[name], whole[name], N, np.float32)


def test_validation_rows_stop_a_training_early():
    held_out = arrays(seed=7)
    options = {"optimizer": optax.sgd(2.0), "epochs": 60, "batch_size": SIZE, "key": KEY, "patience": 4}
    result = lr_nn.train(NET, start(), Arrays(*arrays()), validation=Arrays(*held_out), **options)
    costs = result.history["validation_cost"]
    assert result.status == "early_stopped" and len(costs) == costs.argmin() + 5
    assert_close(lr_nn.cost(NET, result.params, held_out), costs.min(), N)


@pytest.mark.parametrize("chunk", [0.0, 0.25])
def test_a_cost_that_leaves_the_floats_ends_with_the_last_finite_parameters(chunk, monkeypatch):
    monkeypatch.setattr(loop.Run, "chunk_seconds", chunk)
    net, data = lr_nn.linear_regression(5), arrays()
    rows = Arrays(data.x, data.x.sum(axis=1))
    options = {"optimizer": optax.sgd(50.0), "batch_size": SIZE, "key": KEY}
    result = lr_nn.train(net, start(net), rows, epochs=200, **options)
    assert result.status == "non_finite" and "learning rate" in result.message
    assert np.isfinite(result.history["cost"]).all() and 0 < result.steps < 1200
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(result.params))
    epochs = result.steps // 6
    stopped = _stopped(net, rows, result.steps, epochs=epochs + 1, **options)
    chex.assert_trees_all_equal(stopped.params, result.params)


def _stopped(net, rows, step, **options):
    """The training, interrupted after `step` steps."""

    def stop(progress):
        if progress.step == step:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Run, "chunk_seconds", 0.0)
        return lr_nn.train(net, start(net), rows, progress=stop, **options)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_the_dtype_is_that_of_the_parameters(dtype):
    with jax.enable_x64(dtype == "float64"):
        params, data = start(dtype=jnp.dtype(dtype)), arrays()
        result = lr_nn.train(NET, params, Arrays(*data), optimizer=SGD, epochs=2, batch_size=N)
        whole = lr_nn.train(NET, params, data, optimizer=SGD, epochs=2)
        assert {leaf.dtype for leaf in jax.tree.leaves(result.params)} == {jnp.dtype(dtype)}
        assert_trees_close(result.params, whole.params, 2 * N)


def test_adam_descends_too():
    with jax.numpy_dtype_promotion("standard"):
        optimizer = optax.adam(0.05)
        result = lr_nn.train(NET, start(), Arrays(*arrays()), optimizer=optimizer, epochs=20, batch_size=8, key=KEY)
    assert result.history["cost"][-1] < result.history["cost"][0]


def test_an_error_of_the_disk_comes_through_and_leaves_no_thread():
    with pytest.raises(OSError, match="the disk is gone"):
        lr_nn.train(NET, start(), Watched(arrays(), 9), optimizer=SGD, epochs=9, batch_size=SIZE, key=KEY)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lr_nn")]


def broken(**changed):
    data = arrays()
    x, y = data.x.copy(), data.y.copy()
    if "nan" in changed:
        x[changed["nan"]] = np.nan
    if "label" in changed:
        y[changed["label"]] = 3
    weight = changed.get("weight")
    return Arrays(x[:, : changed.get("d", 5)], y, weight)


BAD = {
    "NaN": (broken(nan=17), {}, r"x must be finite; got .* at row 17"),
    "a label": (broken(label=22), {}, r"targets .* at row 22"),
    "columns": (broken(d=4), {}, r"x must have shape \(n, 5\)"),
    "no batch size": (broken(), {"batch_size": None}, "need a batch_size"),
    "no key": (broken(), {"key": None}, "need a key"),
    "a negative weight": (broken(weight=np.r_[np.ones(N - 1), -1.0]), {}, r"weight must be .* at row 22"),
    "no weight": (broken(weight=np.zeros(N)), {}, "zero for every example"),
    "resume": (broken(), {"resume": True}, "pass checkpoints"),
}


@pytest.mark.parametrize("rows, change, message", BAD.values(), ids=list(BAD))
def test_what_cannot_be_is_refused_by_its_place(rows, change, message):
    options = {"optimizer": SGD, "epochs": 1, "batch_size": SIZE, "key": KEY} | change
    with pytest.raises(ValueError, match=message) as raised:
        lr_nn.train(NET, start(), rows, **options)
    assert raised.value and not [thread for thread in threading.enumerate() if thread.name.startswith("lr_nn")]
