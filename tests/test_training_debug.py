"""Training makes no NaN and no infinity of its own: good data pass under JAX's debugging flags."""

from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lr_nn
from lr_nn import Batch, losses
from lr_nn.data import Arrays
from lr_nn.training import Checkpoints, steps

N = 5
NET = lr_nn.mlp((2, 2, 3), loss=losses.categorical)
KEY = jax.random.key(0)
PARAMS = lr_nn.init(NET, KEY)
LANES = jax.tree.map(lambda a: jnp.stack([a, a]), PARAMS)
X = np.random.default_rng(0).normal(size=(N, 2)).astype(np.float32)
DATA = Batch(X, np.arange(N) % 3)
OPTIMIZER = optax.sgd(1e-2, momentum=0.9)
MINI = {"batch_size": 2, "key": KEY}


@contextmanager
def enable_checks():
    jax.config.update("jax_enable_checks", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_checks", False)


FLAGS = {
    "debug_nans": lambda: jax.debug_nans(True),
    "debug_infs": lambda: jax.debug_infs(True),
    "disable_jit": lambda: jax.disable_jit(True),
    "enable_checks": enable_checks,
}
SETTINGS = {
    "all rows": {},
    "mini-batches": MINI,
    "validation and patience": {**MINI, "validation": DATA, "patience": 1},
    "rows of a file": {**MINI, "data": Arrays(X, DATA.y)},
}


def train(data=DATA, **settings):
    return lr_nn.train(NET, PARAMS, data, optimizer=OPTIMIZER, epochs=2, **settings)


def train_many(params=LANES, **settings):
    return lr_nn.train_many(NET, params, DATA, optimizer=OPTIMIZER, epochs=2, **settings)


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("name", SETTINGS)
def test_a_training_on_good_data_passes(flag, name):
    with FLAGS[flag]():
        result = train(**SETTINGS[name])
    assert result.status == "completed" and result.history["cost"].shape == (2,)
    assert all(np.isfinite(column).all() for column in result.history.values())


@pytest.mark.parametrize("flag", FLAGS)
def test_checkpoints_pass(flag, tmp_path):
    with FLAGS[flag]():
        train(**MINI, checkpoints=Checkpoints(tmp_path, every=0))
        again = train(**MINI, checkpoints=Checkpoints(tmp_path, every=0), resume=True)
    assert np.isfinite(again.history["cost"]).all() and again.steps == 6


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("key", [None, KEY, jax.random.split(KEY, 2)], ids=["all rows", "one key", "a key a lane"])
def test_lanes_pass(flag, key):
    with FLAGS[flag]():
        result = train_many(key=key, batch_size=None if key is None else 2)
    assert np.isfinite(result.history["cost"]).all() and result.history["cost"].shape == (2, 2)


def test_steps_that_were_not_taken_cost_nothing():
    task = steps.Task(DATA._replace(x=jnp.asarray(X), y=jnp.asarray(DATA.y)), None, None, None)
    state = steps.State(PARAMS, OPTIMIZER.init(PARAMS), None, jnp.zeros((), jnp.int32))
    _, costs, taken = steps.advance(
        NET, OPTIMIZER, state, task, jnp.asarray(2, jnp.int32), batch_size=N, axes=None, room=4
    )
    assert int(taken) == 2 and (np.asarray(costs) > 0).tolist() == [True, True, False, False]


@pytest.mark.parametrize("where", ["cost", "parameters"])
def test_a_lane_that_fails_has_costs_of_nan_alone_and_the_status_non_finite(where):
    # With an infinite learning rate the first cost is finite, and the parameters after it are not.
    bad = jnp.nan if where == "cost" else 1.0
    lanes = jax.tree.map(lambda a: jnp.stack([a, a * bad]), PARAMS)
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=1e-2)
    opt_state = jax.vmap(optimizer.init)(lanes)
    opt_state.hyperparams["learning_rate"] = jnp.array([1e-2, jnp.inf if where == "parameters" else 1e-2])
    result = lr_nn.train_many(NET, lanes, DATA, optimizer=optimizer, epochs=2, opt_state=opt_state)
    assert np.isfinite(result.history["cost"][:, 0]).all() and np.isnan(result.history["cost"][:, 1]).all()
    assert result.status.tolist() == ["completed", "non_finite"]
