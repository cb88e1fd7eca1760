"""One compiled program a function and batch size: the first call compiles it, further ones of its shapes nothing."""

import jax
import numpy as np
import pytest

import lr_nn
from benchmarks import cold
from lr_nn import Batch, Layer, per_example

NET = lr_nn.mlp((7, 6, 3), loss=lr_nn.losses.categorical)
SIZES = (11, 13)


def drawn(n, place):
    """Parameters and a full batch of NumPy's dtypes, float64 and int64, or as JAX arrays if `place` puts them there."""
    rng = np.random.default_rng(n)
    params = tuple(
        Layer(rng.normal(size=shape).astype(np.float32), np.zeros(shape[1], np.float32)) for shape in NET.shapes
    )
    x, y, weight = rng.normal(size=(n, 7)), rng.integers(0, 3, n), rng.uniform(0.5, 2, n)
    return jax.device_put(params), place(Batch(x, y, weight, rng.normal(size=(n, 3))))


SOURCES = {"NumPy": lambda batch: batch, "JAX": jax.device_put}
OF_A_BATCH = {
    "value_and_gradient": lr_nn.value_and_gradient,
    "cost": lr_nn.cost,
    "backprop": lr_nn.backprop,
    "forward": lambda net, params, batch: lr_nn.forward(net, params, batch.x, batch.offset),
    "predict": lambda net, params, batch: lr_nn.predict(net, params, batch.x, batch.offset),
}
OF_A_PASS = {
    "gradient": lambda net, params, bp: lr_nn.gradient(bp),
    "input_gradient": lr_nn.input_gradient,
    "squared_norms": lambda net, params, bp: per_example.squared_norms(bp),
    "clipped_gradient": lambda net, params, bp: per_example.clipped_gradient(bp, 0.5),
}


def programs(call):
    with cold.compilations() as compiled:
        jax.block_until_ready(jax.tree.leaves(call()))
    return len(compiled)


def first_second_and_another(function, arguments):
    """Programs of the first call, of a second one, and of the first with another number of rows."""
    jax.clear_caches()
    return tuple(programs(lambda at=at: function(NET, *at)) for at in (arguments[0], *arguments))


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", OF_A_BATCH)
def test_a_batch_size_is_one_program(name, source):
    at = [drawn(n, SOURCES[source]) for n in SIZES]
    assert first_second_and_another(OF_A_BATCH[name], at) == (1, 0, 1)


@pytest.mark.parametrize("name", OF_A_PASS)
def test_a_quantity_of_a_pass_is_one_program(name):
    at = [(params, lr_nn.backprop(NET, params, batch)) for params, batch in (drawn(n, jax.device_put) for n in SIZES)]
    assert first_second_and_another(OF_A_PASS[name], at) == (1, 0, 1)


def test_initial_parameters_are_one_program():
    key = jax.random.key(0)
    assert first_second_and_another(lr_nn.init, [(key,), (key,)]) == (1, 0, 0)


def test_the_count_sees_every_program():
    """Three operations outside `jit` are three programs: a count of one isn't the blindness of the listener."""
    x = jax.device_put(np.ones((17, 3), np.float32))
    jax.clear_caches()
    assert programs(lambda: jax.numpy.cos(jax.numpy.sin(x)) @ x.T) >= 3


def test_a_fresh_process_compiles_what_the_bar_allows():
    """The benchmark on a single process, as it's run for the record."""
    found = cold.in_a_process("predict", cold.OURS, cold.ROOT)
    kinds = ("programs", "programs_of_the_second_call", "programs_of_another_batch_size")
    assert [found[kind] for kind in kinds] == [1, 0, 1] and found["cpu_seconds"] > 0
