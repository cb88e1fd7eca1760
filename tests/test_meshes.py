"""Rows over the devices of a mesh, its axes automatic or explicit: every function gives what one device gives."""

from contextlib import nullcontext
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from tolerances import assert_close, assert_trees_close

import lr_nn
from lr_nn import activations, curvature, losses, objective, per_example, private, tangents, training
from lr_nn.penalties import elastic_net
from lr_nn.sharded import data_parallel
from lr_nn.types import Batch

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")

N, D = 24, 5
SGD, PENALTY = optax.sgd(0.1, momentum=0.5), elastic_net(0.1, 0.3)
HIDDEN = {losses.squared_error: activations.gelu}
NETWORKS = {
    f"{loss.name}, {k} outputs, depth {depth}": lr_nn.Network(
        (D, *(4,) * (depth - 1), k), HIDDEN.get(loss, activations.tanh), loss
    )
    for loss, k, depth in (
        *(
            (losses.squared_error, 1, 1),
            (losses.squared_error, 3, 2),
            (losses.bernoulli, 3, 1),
            (losses.bernoulli, 1, 2),
        ),
        *((losses.categorical, 3, 1), (losses.categorical, 3, 2), (losses.poisson, 1, 1), (losses.poisson, 3, 2)),
    )
}
DEEP = "categorical, 3 outputs, depth 2"
KINDS = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}
# Differences, whose error is relative to their terms: how much larger these are.
CONDITION = {"variance": 16, "signal_to_noise": 256, "noise_scale": 4096}
ROWS = P("rows")


def mesh(kind):
    return jax.make_mesh((8,), ("rows",), axis_types=(KINDS[kind],))


def square(*kinds):
    return jax.make_mesh((2, 4), ("hosts", "devices"), axis_types=tuple(KINDS[kind] for kind in kinds))


LAYOUTS = {
    "both axes": (square("explicit", "explicit"), P(("hosts", "devices"))),
    "one axis of two": (square("explicit", "explicit"), P("devices")),
    "an explicit axis beside an automatic one": (square("explicit", "auto"), P("hosts")),
}


def rows(net, n=N):
    """Weighted rows with an offset; the targets of one output are (n,)."""
    rng, k = np.random.default_rng(0), net.sizes[-1]
    shape = (n,) if k == 1 else (n, k)
    y = rng.integers(0, k, n) if net.loss.name == "categorical" else rng.integers(0, 2, shape).astype(np.float32)
    x, weight, offset = rng.normal(size=(n, D)), rng.uniform(0, 1, n), rng.normal(size=(n, k))
    return Batch(*(jnp.asarray(a, jnp.int32 if a.dtype.kind == "i" else jnp.float32) for a in (x, y, weight, offset)))


def parameters(net, seed=0):
    params = lr_nn.init(net, jax.random.key(0))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(0.5 * rng.normal(size=a.shape), a.dtype), params)


def place(tree, over, rows=ROWS):
    """Every array over the mesh, by its first axis."""
    return jax.device_put(tree, NamedSharding(over, rows))


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
    "diagonal of the Hessian": lambda net, params, batch: curvature.hessian(net, params, batch).diagonal(),
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
    assert sorted(found) == sorted(expected)
    for name, value in expected.items():
        assert jax.tree.structure(found[name]) == jax.tree.structure(value), name
        for leaf, right in zip(jax.tree.leaves(found[name]), jax.tree.leaves(value)):
            assert leaf.dtype == right.dtype, name
            assert_close(np.asarray(leaf), np.asarray(right), length=4 * N, condition=CONDITION.get(name, 1))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", KINDS)
def test_under_jit_every_function_gives_what_one_device_gives(name, kind):
    net = NETWORKS[name]
    assert_all_close(everything(net, parameters(net), place(rows(net), mesh(kind))), on_one_device(name))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_may_lie_over_some_axes_of_a_mesh_or_all_and_parameters_too(layout):
    over, rows_over = LAYOUTS[layout]
    net = NETWORKS[DEEP]
    params = jax.device_put(parameters(net), NamedSharding(over, P()))
    assert_all_close(everything(net, params, place(rows(net), over, rows_over)), on_one_device(DEEP))


@pytest.mark.parametrize("inside", [False, True], ids=["", "inside set_mesh"])
def test_without_jit_every_function_gives_what_one_device_gives(inside):
    net, over = NETWORKS[DEEP], mesh("explicit")
    params, batch = parameters(net), place(rows(net), over)
    with jax.set_mesh(over) if inside else nullcontext():
        found = {name: function(net, params, batch) for name, function in FUNCTIONS.items()}
    assert_all_close(found, on_one_device(DEEP))


def test_what_is_returned_for_each_row_stays_with_its_row_and_sums_are_everywhere():
    net, over = NETWORKS[DEEP], mesh("explicit")
    batch = place(rows(net), over)
    bp = jax.jit(lr_nn.backprop)(net, parameters(net), batch)
    per_row = (*bp.activations, *bp.deltas, bp.eta, per_example.squared_norms(bp))
    assert all(len(a.sharding.device_set) == 8 and a.sharding.spec[0] == "rows" for a in per_row)
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(lr_nn.gradient(bp)))


@pytest.mark.parametrize("block_size", [1, 7, 20])
def test_blocks_of_any_size_add_up_to_the_same(block_size):
    net = NETWORKS[DEEP]
    found = lr_nn.value_and_gradient(net, parameters(net), place(rows(net), mesh("explicit")), block_size=block_size)
    assert_trees_close(found, on_one_device(DEEP)["value_and_gradient"], length=4 * N)


@pytest.mark.parametrize("batch_size", [None, 8, 7], ids=["full", "even", "ragged"])
@pytest.mark.parametrize("inside", [False, True], ids=["", "inside set_mesh"])
def test_training_on_rows_over_devices_is_training(batch_size, inside):
    net, over = NETWORKS[DEEP], mesh("explicit")
    options = {"optimizer": SGD, "epochs": 2, "batch_size": batch_size, "key": jax.random.key(1), "penalty": PENALTY}
    one = lr_nn.train(net, parameters(net), rows(net), **options, validation=rows(net))
    batch = place(rows(net), over)
    with jax.set_mesh(over) if inside else nullcontext():
        found = lr_nn.train(net, parameters(net), batch, **options, validation=batch)
    assert_trees_close(found.params, one.params, length=16 * N)
    assert_trees_close(found.history, one.history, length=16 * N, dtype=np.float32)


def test_lanes_are_trained_on_shared_rows_over_devices():
    net = NETWORKS[DEEP]
    params = jax.tree.map(lambda a, b: jnp.stack([a, b]), parameters(net), parameters(net, 1))
    options = {"optimizer": SGD, "epochs": 2, "batch_size": 8, "key": jax.random.key(1)}
    one = lr_nn.train_many(net, params, rows(net), **options)
    found = lr_nn.train_many(net, params, place(rows(net), mesh("explicit")), **options)
    assert_trees_close(found.params, one.params, length=16 * N)


@pytest.mark.parametrize("inside", [False, True], ids=["", "inside set_mesh"])
def test_rows_that_lie_over_an_explicit_mesh_are_taken_as_they_are(inside):
    net, over = NETWORKS[DEEP], mesh("explicit")
    parallel, params, batch = data_parallel(over), parameters(net), place(rows(net), over)
    expected = on_one_device(DEEP)
    with jax.set_mesh(over) if inside else nullcontext():
        placed = parallel.place(batch)
        found = parallel.value_and_gradient(net, params, batch)
        traced = jax.jit(parallel.value_and_gradient)(net, params, batch)
        norms = parallel.squared_norms(net, params, batch)
        from_host = parallel.cost(net, params, rows(net))
    buffers = [[part.data.unsafe_buffer_pointer() for part in x.addressable_shards] for x in (placed.x, batch.x)]
    assert buffers[0] == buffers[1], "placing copies nothing"
    for each in (found, traced):
        assert_trees_close(each, expected["value_and_gradient"], length=4 * N)
    assert_trees_close(norms, expected["squared_norms"], length=4 * N)
    assert_trees_close(from_host, expected["cost"], length=4 * N)


@pytest.mark.parametrize(
    ("context", "name"),
    [
        (jax.disable_jit, "cost"),
        (partial(jax.debug_nans, True), "value_and_gradient"),
        (partial(jax.debug_infs, True), "value_and_gradient"),
        (partial(jax.enable_checks, True), "value_and_gradient"),
    ],
    ids=["disable_jit", "debug_nans", "debug_infs", "enable_checks"],
)
def test_sharded_functions_pass_the_checks_that_jax_can_make(context, name):
    net = NETWORKS["bernoulli, 3 outputs, depth 1"]
    parallel = data_parallel(jax.make_mesh((2,), ("rows",), devices=jax.devices()[:2], axis_types=(AxisType.Auto,)))
    args = net, parameters(net), rows(net)
    expected = getattr(lr_nn, name)(*args)
    with context():
        found = getattr(parallel, name)(*args)
    assert_trees_close(found, expected, length=4 * N)


@pytest.mark.parametrize("kind", KINDS)
def test_host_functions_take_rows_over_a_mesh_of_either_kind(kind):
    """Fits ask for no mesh: arrays that lie over one stay there, and those of explicit axes are laid over automatic."""
    net = lr_nn.logistic_regression(D)
    batch = rows(net)
    spread = jax.device_put(batch, NamedSharding(mesh(kind), ROWS))
    l2 = lr_nn.penalties.l2(0.1)

    def coefficients(data):
        solution = lr_nn.fit(net, data, penalty=l2)
        many = lr_nn.fit_many(net, data, penalty=lr_nn.penalties.l2(np.array([0.1, 1.0])))
        errors = lr_nn.inference.summary(net, solution, data).standard_errors
        return solution.coefficients, many.coefficients, errors

    for found, expected in zip(coefficients(spread), coefficients(batch), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
