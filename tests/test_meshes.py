"""Rows over the devices of a mesh, its axes automatic or explicit: every function gives what one device gives."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from tolerances import assert_trees_close

import lr_nn
from lr_nn import activations, losses, objective, per_example, private, tangents, training
from lr_nn.penalties import elastic_net
from lr_nn.sharded import data_parallel
from lr_nn.types import Batch

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")

N, D = 24, 5
SGD, PENALTY = optax.sgd(0.1, momentum=0.5), elastic_net(0.1, 0.3)
LOSSES = {
    "squared_error": (losses.squared_error, 3),
    "bernoulli": (losses.bernoulli, 1),
    "bernoulli of labels": (losses.bernoulli, 3),
    "categorical": (losses.categorical, 3),
    "poisson": (losses.poisson, 1),
    "poisson of counts": (losses.poisson, 3),
}
NETWORKS = {
    f"{name}, depth {depth}": lr_nn.Network((D, *(4,) * (depth - 1), k), activations.tanh, loss)
    for name, (loss, k) in LOSSES.items()
    for depth in (1, 2)
}
KINDS = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}


def mesh(kind):
    return jax.make_mesh((8,), ("rows",), axis_types=(KINDS[kind],))


def rows(net, n=N):
    """Weighted rows with an offset; the targets of one output are (n,)."""
    rng, k = np.random.default_rng(0), net.sizes[-1]
    shape = (n,) if k == 1 else (n, k)
    y = rng.integers(0, k, n) if net.loss.name == "categorical" else rng.integers(0, 2, shape).astype(np.float32)
    x, weight, offset = rng.normal(size=(n, D)), rng.uniform(0, 1, n), rng.normal(size=(n, k))
    return Batch(*(jnp.asarray(a, y.dtype if a is y else jnp.float32) for a in (x, y, weight, offset)))


def parameters(net, seed=0):
    params = lr_nn.init(net, jax.random.key(0))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(0.5 * rng.normal(size=a.shape), a.dtype), params)


def place(tree, kind):
    """Every array over the mesh, by its first axis."""
    return jax.device_put(tree, NamedSharding(mesh(kind), P("rows")))


def _of_pass(function, *args):
    return lambda net, params, batch: function(lr_nn.backprop(net, params, batch), *args)


def _of_forward(function):
    return lambda net, params, batch: function(net, params, lr_nn.forward(net, params, batch.x, batch.offset), batch)


FUNCTIONS = {
    "forward": lambda net, params, batch: lr_nn.forward(net, params, batch.x, batch.offset),
    "predict": lambda net, params, batch: lr_nn.predict(net, params, batch.x, batch.offset),
    "backprop": lr_nn.backprop,
    "cost": lr_nn.cost,
    "cost with a penalty": partial(lr_nn.cost, penalty=PENALTY),
    "value_and_gradient": lr_nn.value_and_gradient,
    "value_and_gradient with a penalty": partial(lr_nn.value_and_gradient, penalty=PENALTY),
    "value_and_gradient in blocks": partial(lr_nn.value_and_gradient, block_size=16),
    "totals": objective.totals,
    "gradient": _of_pass(lr_nn.gradient),
    "input_gradient": lambda net, params, batch: lr_nn.input_gradient(net, params, lr_nn.backprop(net, params, batch)),
    "pullback": _of_forward(lambda net, params, forward, batch: lr_nn.pullback(net, params, forward, forward.eta)),
    "pullback of many seeds": _of_forward(
        lambda net, params, forward, batch: lr_nn.pullback(net, params, forward, net.loss.fisher_factor(forward.eta))
    ),
    "pushforward": _of_forward(
        lambda net, params, forward, batch: tangents.pushforward(net, params, forward, parameters(net, 1))
    ),
    **{
        name: _of_pass(getattr(per_example, name))
        for name in (
            *("gradients", "squared_norms", "layer_squared_norms", "second_moment", "variance", "signal_to_noise"),
            *("noise_scale", "gram"),
        )
    },
    "clipped_gradient": _of_pass(per_example.clipped_gradient, 0.5),
    "layer_clipped_gradient": _of_pass(per_example.layer_clipped_gradient, 0.5),
    "gram with another batch": lambda net, params, batch: per_example.gram(
        lr_nn.backprop(net, params, batch), lr_nn.backprop(net, parameters(net, 1), batch)
    ),
    "inner_products": lambda net, params, batch: per_example.inner_products(
        lr_nn.backprop(net, params, batch), parameters(net, 1)
    ),
    "private_gradient": lambda net, params, batch: private.private_gradient(
        lr_nn.backprop(net, params, batch),
        jax.random.key(3),
        max_norm=1.0,
        noise_multiplier=0.5,
        expected_batch_size=20,
    ),
    "step": lambda net, params, batch: training.step(
        net, params, SGD.init(params), batch, optimizer=SGD, penalty=PENALTY
    ),
    "metrics": training.metrics,
}


@jax.jit
def everything(net, params, batch):
    """What every function returns, in one program."""
    return {name: function(net, params, batch) for name, function in FUNCTIONS.items()}


@cache
def on_one_device(name):
    net = NETWORKS[name]
    return everything(net, parameters(net), rows(net))


def assert_all_close(found, expected):
    for name, value in expected.items():
        leaves, structure = jax.tree.flatten(found[name])
        assert structure == jax.tree.structure(value), name
        assert_trees_close(tuple(leaves), tuple(jax.tree.leaves(value)), length=4 * N)
