"""Whatever draws random numbers checks its key first, and says what to pass."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

import lr_nn
from lr_nn import Batch, curvature, losses, private, sharded
from lr_nn.data import Arrays, mini_batches

KEY = jax.random.key(0)
NET = lr_nn.logistic_regression(2)
X, Y = np.ones((4, 2), np.float32), np.array([0, 1, 1, 0])
DATA, ETA = Batch(X, Y), jnp.zeros((4, 3))
SGD = {"optimizer": optax.sgd(0.1), "epochs": 1, "batch_size": 2}
L2, NOISE = lr_nn.penalties.l2(np.array([0.1])), {"max_norm": 1.0, "noise_multiplier": 1.0, "expected_batch_size": 4}


@pytest.fixture(scope="module")
def model():
    params = lr_nn.init(NET, KEY)
    return NET, params, lr_nn.backprop(NET, params, DATA)


def across(net, params, data, **settings):
    return sharded.data_parallel(Mesh(jax.devices()[:2], "rows")).train(net, params, data, **settings)


CALLS = {
    "init": lambda net, params, bp, key: lr_nn.init(net, key),
    "train": lambda net, params, bp, key: lr_nn.train(net, params, DATA, key=key, **SGD),
    "train without mini-batches": lambda net, params, bp, key: lr_nn.train(
        net, params, DATA, key=key, **(SGD | {"batch_size": None})
    ),
    "train on rows of a file": lambda net, params, bp, key: lr_nn.train(net, params, Arrays(X, Y), key=key, **SGD),
    "train over devices": lambda net, params, bp, key: across(net, params, DATA, key=key, **SGD),
    "mini_batches": lambda net, params, bp, key: list(mini_batches(Arrays(X, Y), 2, key=key, epoch=0)),
    "sampled_diagonal": lambda net, params, bp, key: curvature.ggn(net, params, DATA).sampled_diagonal(key),
    "kfac, sampled": lambda net, params, bp, key: curvature.kfac(net, params, DATA, kind="sampled", key=key).factors,
    "sample of kfac": lambda net, params, bp, key: curvature.kfac(net, params, DATA).sample(key, 0.1),
    "lanczos": lambda net, params, bp, key: curvature.lanczos(curvature.ggn(net, params, DATA), key, 2).values,
    "largest": lambda net, params, bp, key: curvature.largest(curvature.ggn(net, params, DATA), key).value,
    "hutchinson_trace": lambda net, params, bp, key: curvature.hutchinson_trace(
        curvature.ggn(net, params, DATA), key, 2
    ),
    "hutchinson_diagonal": lambda net, params, bp, key: curvature.hutchinson_diagonal(
        curvature.ggn(net, params, DATA), key, 2
    ),
    "cross_validate": lambda net, params, bp, key: lr_nn.cross_validate(net, DATA, penalty=L2, folds=2, key=key).scores,
    "bootstrap": lambda net, params, bp, key: (
        lr_nn.bootstrap(net, DATA, samples=2, penalty=lr_nn.penalties.l2(0.1), key=key).solutions.coefficients
    ),
    "private_gradient": lambda net, params, bp, key: private.private_gradient(bp, key, **NOISE),
    "poisson_batch": lambda net, params, bp, key: private.poisson_batch(key, 4, 0.5, 4),
    **{
        f"sample of {loss.name}": lambda net, params, bp, key, loss=loss: loss.sample(ETA, key)
        for loss in (
            *(losses.squared_error, losses.absolute_error, losses.bernoulli),
            losses.categorical,
            losses.poisson,
        )
    },
}
LANES = {
    "train_many": lambda net, params, bp, key: lr_nn.train_many(
        net, jax.tree.map(lambda a: jnp.stack([a, a]), params), DATA, key=key, **SGD
    )
}
WRONG = {
    "a number": (0, TypeError, "key must be a random key, such as jax.random.key\\(0\\); got 0$"),
    "a word": ("0", TypeError, "key must be a random key, such as jax.random.key\\(0\\); got '0'$"),
    "floats": (np.zeros(2), TypeError, "key must be a random key, such as jax.random.key\\(0\\); got array"),
    "words of another length": (np.zeros(3, np.uint32), ValueError, r"jax.random.key\(0\); got uint32 of shape \(3,\)"),
    "one word": (np.uint32(0), TypeError, "key must be a random key"),
}
BATCHES = {
    "keys": (jax.random.split(KEY, 3), r"key must be one key; got keys of shape \(3,\)"),
    "a batch of one": (KEY[None], r"key must be one key; got keys of shape \(1,\)"),
    "old keys": (np.zeros((3, 2), np.uint32), r"key must be one key; got keys of shape \(3,\)"),
}


@pytest.mark.parametrize(("key", "error", "message"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("call", (CALLS | LANES).values(), ids=CALLS | LANES)
def test_what_is_no_key_is_refused(model, call, key, error, message):
    with pytest.raises(error, match=message):
        call(*model, key)


@pytest.mark.parametrize(("keys", "message"), BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_many_keys_are_refused_where_one_is_meant(model, call, keys, message):
    with pytest.raises(ValueError, match=message):
        call(*model, keys)


@pytest.mark.parametrize("name", CALLS | LANES)
def test_a_key_of_the_old_style_draws_what_the_new_one_does(model, name):
    def drawn(key):
        result = (CALLS | LANES)[name](*model, key)
        result = getattr(result, "params", result)
        return [np.asarray(leaf) for leaf in jax.tree.leaves(result)]

    for one, other in zip(drawn(KEY), drawn(jax.random.PRNGKey(0)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("keys", [jax.random.split(KEY, 2), jax.random.split(jax.random.PRNGKey(0), 2)])
def test_lanes_take_a_key_each(model, keys):
    result = LANES["train_many"](*model, keys)
    assert result.status.tolist() == ["completed", "completed"]


def test_lanes_of_lanes_of_keys_are_refused(model):
    with pytest.raises(ValueError, match=r"key must be one key, or one key a lane; got keys of shape \(2, 2\)"):
        LANES["train_many"](*model, jax.random.split(KEY, (2, 2)))
    with pytest.raises(ValueError, match="2 lanes"):
        LANES["train_many"](*model, jax.random.split(KEY, 3))


def test_traced_keys_are_checked_by_their_shape():
    draw = jax.jit(lambda key: lr_nn.init(NET, key))
    assert draw(KEY)[0].w.shape == draw(jax.random.PRNGKey(0))[0].w.shape == (2, 1)
    with pytest.raises(ValueError, match="one key; got keys of shape"):
        draw(jax.random.split(KEY, 2))
    assert jax.vmap(draw)(jax.random.split(KEY, 2))[0].w.shape == (2, 2, 1)
