"""A network crosses to flax and back without losing a bit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import lr_nn
from lr_nn import Batch, activations, losses
from lr_nn.interop import flax as interop

NETWORKS = [
    lr_nn.softmax_regression(5, 3),
    lr_nn.mlp((5, 4, 3), loss=losses.categorical),
    lr_nn.mlp((5, 6, 4, 3), (activations.relu, activations.tanh), losses.squared_error),
    lr_nn.Network((5, 4, 3), activations.elu, losses.bernoulli, bias=False),
]


def trained(net):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 5)).astype(np.float32)
    y = rng.integers(0, 3, 40) if net.loss is losses.categorical else rng.integers(0, 2, (40, 3)).astype(np.float32)
    params = lr_nn.init(net, jax.random.key(0))
    params = lr_nn.train(net, params, Batch(x, y), optimizer=optax.sgd(0.1), epochs=3).params
    return params, jnp.asarray(x)


def equal(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        bool((x == y).all()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b))
    )


@pytest.mark.parametrize("net", NETWORKS, ids=lambda net: str(net.sizes))
def test_linen_gives_the_same_bits_and_gives_the_parameters_back(net):
    params, x = trained(net)
    eta = interop.LinenNetwork(net).apply(interop.to_linen(params), x)
    np.testing.assert_array_equal(eta, lr_nn.forward(net, params, x)[1])
    assert equal(interop.from_linen(interop.to_linen(params)), params)


@pytest.mark.parametrize("net", NETWORKS, ids=lambda net: str(net.sizes))
def test_nnx_gives_the_same_bits_and_gives_the_parameters_back(net):
    params, x = trained(net)
    model = interop.to_nnx(net, params)
    np.testing.assert_array_equal(model(x), lr_nn.forward(net, params, x)[1])
    assert equal(interop.from_nnx(model), params)


def test_a_module_of_the_users_own_brings_its_layers_in_order():
    model = linen.Sequential([linen.Dense(4), linen.sigmoid, linen.Dense(3)])
    x = jnp.ones((2, 5))
    variables = model.init(jax.random.key(0), x)
    net = lr_nn.mlp((5, 4, 3), loss=losses.categorical)
    np.testing.assert_array_equal(lr_nn.forward(net, interop.from_linen(variables), x)[1], model.apply(variables, x))
    first, second = nnx.Linear(5, 4, rngs=nnx.Rngs(0)), nnx.Linear(4, 3, rngs=nnx.Rngs(1))
    np.testing.assert_array_equal(
        lr_nn.forward(net, interop.from_nnx((first, second)), x)[1], second(nnx.sigmoid(first(x)))
    )


def test_layers_that_are_not_dense_are_refused_by_name():
    with pytest.raises(ValueError, match="Conv_0"):
        interop.from_linen({"params": {"Conv_0": {"kernel": jnp.ones((3, 3, 1, 1))}}})
    with pytest.raises(ValueError, match="numbered"):
        interop.from_linen({"params": {"head": {"kernel": jnp.ones((3, 1))}}})
    with pytest.raises(ValueError, match="Linear"):
        interop.from_nnx([nnx.relu])
