"""Training is the step of the textbook, done many times: loops, orders, lanes and endings change nothing of it."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lr_nn
from lr_nn import Batch, losses, penalties, training
from lr_nn.training import loop, steps
from tests.tolerances import assert_close, assert_trees_close

NET = lr_nn.mlp((5, 4, 3), loss=losses.categorical)
SGD = optax.sgd(0.5)
N = 23


def rows(n=N, weighted=False, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 5)).astype(np.float32), rng.integers(0, 3, n)
    return Batch(x, y, rng.uniform(0.5, 2, n).astype(np.float32) if weighted else None)


def start(seed=0, net=NET):
    return lr_nn.init(net, jax.random.key(seed))


def test_a_step_is_gradient_descent_on_the_cost():
    params, data, penalty = start(), rows(weighted=True), penalties.l2(0.1)
    value, gradient = lr_nn.value_and_gradient(NET, params, data, penalty)
    stepped, _, cost = training.step(NET, params, SGD.init(params), data, optimizer=SGD, penalty=penalty)
    assert_trees_close(stepped, jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient), N)
    assert_close(cost, value, N)


def test_full_batch_training_is_steps_in_a_loop():
    params, data, optimizer = start(), rows(), optax.sgd(0.1, momentum=0.9)
    result = lr_nn.train(NET, params, data, optimizer=optimizer, epochs=20)
    state, costs = optimizer.init(params), []
    for _ in range(20):
        params, state, cost = training.step(NET, params, state, data, optimizer=optimizer)
        costs.append(cost)
    assert_trees_close(result.params, params, 20 * N)
    assert_close(result.history["cost"], np.array(costs), 20 * N, np.float32)
    assert result.status == "completed" and result.steps == 20


@pytest.mark.parametrize("batch_size", [1, 4, 23])
def test_an_epoch_visits_every_row_once(batch_size):
    order = np.asarray(steps.order(jax.random.key(3), jnp.asarray(2), N, batch_size))
    assert len(order) == steps.steps_per_epoch(N, batch_size) * batch_size
    assert sorted(order[:N]) == list(range(N))


def test_the_order_of_rows_is_a_function_of_key_and_epoch():
    draw = partial(steps.order, n=N, batch_size=4)
    np.testing.assert_array_equal(draw(jax.random.key(0), 1), draw(jax.random.key(0), 1))
    assert (draw(jax.random.key(0), 1) != draw(jax.random.key(0), 2)).any()
    assert (draw(jax.random.key(0), 1) != draw(jax.random.key(1), 1)).any()


@pytest.mark.parametrize("weighted", [False, True])
def test_mini_batch_gradients_average_to_the_gradient(weighted):
    """Unbiased, weights or none, the ragged last batch included: Σ_batches rows·g / n is the full gradient."""
    params, data = start(), rows(weighted=weighted)
    mean_weight = None if data.weight is None else jnp.asarray(data.weight.mean())
    task = steps.Task(jax.tree.map(jnp.asarray, data), mean_weight, None, None)
    order = steps.order(jax.random.key(0), 0, N, 4)
    total = jax.tree.map(jnp.zeros_like, params)
    for position in range(6):
        batch, divisor = steps.take(task, order, jnp.asarray(position), N, 4)
        _, gradient = lr_nn.objective.evaluate(NET, params, batch, total=divisor)
        share = min(4, N - 4 * position) / N
        total = jax.tree.map(lambda t, g, share=share: t + share * g, total, gradient)
    assert_trees_close(total, lr_nn.value_and_gradient(NET, params, data)[1], N)


def test_one_training_takes_the_steps_of_its_mini_batches():
    params, data, key = start(), rows(), jax.random.key(5)
    result = lr_nn.train(NET, params, data, optimizer=SGD, epochs=2, batch_size=4, key=key)
    for epoch in range(2):
        order = np.asarray(steps.order(key, epoch, N, 4))[:N]
        for i in range(0, N, 4):
            batch = Batch(data.x[order[i : i + 4]], data.y[order[i : i + 4]])
            params, _, _ = training.step(NET, params, SGD.init(params), batch, optimizer=SGD)
    assert_trees_close(result.params, params, 12 * N)


def test_how_many_steps_run_in_one_call_changes_nothing(monkeypatch):
    whole = lr_nn.train(NET, start(), rows(), optimizer=SGD, epochs=3, batch_size=4, key=jax.random.key(0))
    monkeypatch.setattr(loop.Run, "chunk_seconds", 0.0)
    single = lr_nn.train(NET, start(), rows(), optimizer=SGD, epochs=3, batch_size=4, key=jax.random.key(0))
    chex.assert_trees_all_equal(whole.params, single.params)
    np.testing.assert_array_equal(whole.history["cost"], single.history["cost"])


def test_a_training_can_be_gone_on_with():
    first = lr_nn.train(NET, start(), rows(), optimizer=optax.sgd(0.1, momentum=0.9), epochs=5)
    second = lr_nn.train(
        NET, first.params, rows(), optimizer=optax.sgd(0.1, momentum=0.9), epochs=5, opt_state=first.opt_state
    )
    whole = lr_nn.train(NET, start(), rows(), optimizer=optax.sgd(0.1, momentum=0.9), epochs=10)
    assert_trees_close(second.params, whole.params, 10 * N)


@pytest.mark.parametrize("shared", [True, False])
def test_lanes_are_trainings_one_by_one(shared):
    keys = jax.random.split(jax.random.key(1), 3)
    params = jax.vmap(lambda key: lr_nn.init(NET, key))(keys)
    data = [rows(weighted=True, seed=0 if shared else i) for i in range(3)]
    strengths = jnp.array([0.0, 0.01, 0.1])
    together = lr_nn.train_many(
        NET,
        params,
        data[0] if shared else Batch(*(np.stack(field) for field in zip(*(d[:3] for d in data)))),
        optimizer=SGD,
        epochs=2,
        batch_size=4,
        key=keys[0] if shared else keys,
        penalty=penalties.l2(strengths),
    )
    for i in range(3):
        alone = lr_nn.train(
            NET,
            jax.tree.map(lambda a, i=i: a[i], params),
            data[i],
            optimizer=SGD,
            epochs=2,
            batch_size=4,
            key=keys[0 if shared else i],
            penalty=penalties.l2(strengths[i]),
        )
        assert_trees_close(jax.tree.map(lambda a, i=i: a[i], together.params), alone.params, 12 * N)
        assert_close(together.history["cost"][:, i], alone.history["cost"], 12 * N, np.float32)


def test_learning_rates_can_be_lanes():
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)
    params = jax.tree.map(lambda a: jnp.stack([a, a]), start())
    state = jax.vmap(optimizer.init)(params)
    state.hyperparams["learning_rate"] = jnp.array([0.1, 0.5])
    together = lr_nn.train_many(NET, params, rows(), optimizer=optimizer, epochs=3, opt_state=state)
    alone = lr_nn.train(NET, start(), rows(), optimizer=SGD, epochs=3)
    assert_trees_close(jax.tree.map(lambda a: a[1], together.params), alone.params, 3 * N)


def test_a_step_is_vmapped_by_its_user_over_learning_rates():
    params, data = start(), rows()

    def one(rate):
        return training.step(NET, params, optax.sgd(rate).init(params), data, optimizer=optax.sgd(rate))[0]

    stepped = jax.vmap(one)(jnp.array([0.1, 0.5]))
    assert_trees_close(jax.tree.map(lambda a: a[1], stepped), one(0.5), N)


def test_a_lane_that_fails_leaves_the_others_alone():
    params = jax.tree.map(lambda a: jnp.stack([a, jnp.full_like(a, jnp.nan)]), start())
    together = lr_nn.train_many(NET, params, rows(), optimizer=SGD, epochs=3)
    alone = lr_nn.train(NET, start(), rows(), optimizer=SGD, epochs=3)
    assert_trees_close(jax.tree.map(lambda a: a[0], together.params), alone.params, 3 * N)
    assert together.status.tolist() == ["completed", "non_finite"] and "1 of 2" in together.message
    assert np.isnan(together.history["cost"][:, 1]).all()


def test_a_lane_that_fails_keeps_its_last_finite_parameters():
    data = rows()
    xs, net = np.stack([data.x, 1e6 * data.x]), lr_nn.linear_regression(5)
    params = jax.tree.map(lambda a: jnp.stack([a, a]), start(net=net))
    ys = data.x.sum(axis=1)
    together = lr_nn.train_many(net, params, Batch(xs, ys), optimizer=optax.sgd(0.1), epochs=50)
    assert together.status.tolist() == ["completed", "non_finite"]
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(together.params))


@pytest.mark.parametrize("batch_size", [None, 4])
def test_a_cost_that_leaves_the_floats_ends_with_the_last_finite_parameters(batch_size):
    net, data = lr_nn.linear_regression(5), rows()
    data = Batch(data.x, data.x.sum(axis=1))
    result = lr_nn.train(
        net, start(net=net), data, optimizer=optax.sgd(50.0), epochs=200, batch_size=batch_size, key=jax.random.key(0)
    )
    assert result.status == "non_finite" and "step" in result.message and "learning rate" in result.message
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(result.params))
    assert np.isfinite(result.history["cost"]).all() and 0 < result.steps < 1200
    if batch_size is None:
        assert np.isfinite(lr_nn.cost(net, result.params, data))
        replay = lr_nn.train(net, start(net=net), data, optimizer=optax.sgd(50.0), epochs=result.steps)
        chex.assert_trees_all_equal(replay.params, result.params)


def test_early_stopping_returns_the_parameters_of_the_lowest_validation_cost():
    held_out = rows(seed=7)
    options = {"optimizer": optax.sgd(2.0), "batch_size": 4, "key": jax.random.key(0), "validation": held_out}
    result = lr_nn.train(NET, start(), rows(), epochs=60, patience=5, **options)
    costs = result.history["validation_cost"]
    assert result.status == "early_stopped"
    assert len(costs) == costs.argmin() + 6
    assert_close(lr_nn.cost(NET, result.params, held_out), costs.min(), N)
    last = lr_nn.train(NET, start(), rows(), epochs=len(costs), **options)
    assert_close(lr_nn.cost(NET, last.params, held_out), costs[-1], N)


def test_an_interruption_returns_what_there_is():
    def stop(progress):
        if progress.step >= 3:
            raise KeyboardInterrupt

    result = lr_nn.train(NET, start(), rows(), optimizer=SGD, epochs=1000, progress=stop)
    assert result.status == "interrupted" and 3 <= result.steps < 1000
    again = lr_nn.train(NET, start(), rows(), optimizer=SGD, epochs=result.steps)
    chex.assert_trees_all_equal(result.params, again.params)


def test_progress_tells_of_every_step_once():
    seen = []
    lr_nn.train(
        NET, start(), rows(), optimizer=SGD, epochs=3, batch_size=4, key=jax.random.key(0), progress=seen.append
    )
    assert [p.step for p in seen] == sorted({p.step for p in seen}) and seen[-1].step == seen[-1].steps == 18
    assert seen[-1].epoch == seen[-1].epochs == 3


def test_two_trainings_of_one_shape_compile_once():
    optimizer = optax.sgd(0.25)
    data, starts = [rows(seed=seed) for seed in range(3)], [start(seed) for seed in range(3)]
    batches = {"batch_size": 4, "key": jax.random.key(0)}
    lr_nn.train(NET, starts[0], data[0], optimizer=optimizer, epochs=4, **batches)
    traced = []
    with pytest.MonkeyPatch.context() as patch:
        advance = steps.take
        patch.setattr(steps, "take", lambda *args, **more: traced.append(1) or advance(*args, **more))
        for seed in (1, 2):
            lr_nn.train(NET, starts[seed], data[seed], optimizer=optimizer, epochs=4 + seed, **batches)
        assert not traced
        lr_nn.train(NET, starts[0], data[0], optimizer=optax.sgd(0.5), epochs=4, **batches)
        assert traced, "another optimiser is traced anew, and seen"


@pytest.mark.parametrize("make", [optax.sgd, partial(optax.sgd, momentum=0.9), optax.adagrad])
def test_optimisers_descend(make):
    result = lr_nn.train(NET, start(), rows(), optimizer=make(0.1), epochs=30)
    assert result.history["cost"][-1] < result.history["cost"][0]


@pytest.mark.parametrize("name", ["adam", "adamw", "lbfgs"])
def test_optimisers_that_fail_the_strict_rules_descend_too(name):
    with jax.numpy_dtype_promotion("standard"):
        optimizer = optax.lbfgs() if name == "lbfgs" else getattr(optax, name)(0.05)
        result = lr_nn.train(NET, start(), rows(), optimizer=optimizer, epochs=30)
    assert result.history["cost"][-1] < result.history["cost"][0]


def test_metrics_are_those_of_scikit_learn():
    from sklearn.metrics import accuracy_score, log_loss, root_mean_squared_error

    data, params = rows(weighted=True), start()
    p = np.asarray(lr_nn.predict(NET, params, data.x), np.float64)
    found = training.metrics(NET, params, data)
    assert_close(found["accuracy"], accuracy_score(data.y, p.argmax(1), sample_weight=data.weight), N)
    expected = log_loss(data.y, p / p.sum(1, keepdims=True), sample_weight=data.weight)
    assert_close(found["log_loss"], expected, N)
    net = lr_nn.linear_regression(5, 2)
    params = jax.tree.map(lambda a: a + 1, start(net=net))
    y = np.random.default_rng(0).normal(size=(N, 2))
    found = training.metrics(net, params, Batch(data.x, y))
    errors = np.asarray(lr_nn.predict(net, params, data.x)) - y
    assert_close(found["rmse"], root_mean_squared_error(np.zeros(2 * N), errors.ravel()), N)


BAD = {
    "epochs": ({"epochs": 0}, ValueError, "epochs must be at least 1"),
    "batch size": ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
    "batch size of text": ({"batch_size": "all"}, TypeError, "batch_size must be an integer"),
    "no key": ({"batch_size": 4}, ValueError, "need a key"),
    "no validation": ({"patience": 3}, ValueError, "validation"),
    "optimizer": ({"optimizer": "adam"}, TypeError, "optax"),
    "penalty": ({"penalty": lr_nn.Penalty(0.0, -1.0)}, ValueError, "not negative"),
}


@pytest.mark.parametrize("change, error, message", BAD.values(), ids=list(BAD))
def test_impossible_options_are_refused(change, error, message):
    with pytest.raises(error, match=message):
        lr_nn.train(NET, start(), rows(), **({"optimizer": SGD, "epochs": 1} | change))


def test_training_is_not_traced():
    with pytest.raises(TypeError, match=r"training\.step"):
        jax.jit(lambda params: lr_nn.train(NET, params, rows(), optimizer=SGD, epochs=1).params)(start())


def test_lanes_that_do_not_match_are_refused():
    params = jax.tree.map(lambda a: jnp.stack([a, a]), start())
    with pytest.raises(ValueError, match="leading lane axis"):
        lr_nn.train_many(NET, start(), rows(), optimizer=SGD, epochs=1)
    with pytest.raises(ValueError, match="2 lanes"):
        lr_nn.train_many(NET, params, Batch(np.ones((3, N, 5)), rows().y), optimizer=SGD, epochs=1)
    with pytest.raises(ValueError, match="row 24"):
        x = np.ones((2, N, 5))
        x[1, 1, 0] = np.nan
        lr_nn.train_many(NET, params, Batch(x, rows().y), optimizer=SGD, epochs=1)
    with pytest.raises(ValueError, match="zero for every example"):
        lr_nn.train_many(NET, params, rows()._replace(weight=np.eye(2)[:, [0] * N]), optimizer=SGD, epochs=1)
