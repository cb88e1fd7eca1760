"""The hand-written backward pass against autodiff, and the algebra of its deltas."""

import itertools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from cases import ACTIVATIONS, LOSSES, NETWORKS, K, N, batch, network, on_device, parameters
from tolerances import assert_close, assert_trees_close

import lr_nn
from lr_nn import row_sums
from lr_nn.trees import accumulator
from lr_nn.types import Batch

LENGTH = 20
networks = pytest.mark.parametrize("case", NETWORKS.values(), ids=NETWORKS)


def mixed_rows():
    """Every loss in every dtype at every depth, the rest drawn once for all."""
    rng = np.random.default_rng(0)
    for loss, dtype, depth in itertools.product(LOSSES, (np.float64, np.float32, jnp.bfloat16), (1, 2, 3)):
        activation = list(ACTIVATIONS)[rng.integers(len(ACTIVATIONS))]
        bias, weighted, offset = (bool(b) for b in rng.integers(2, size=3))
        words = [loss, jnp.dtype(dtype).name, f"{depth} layers", activation]
        words += [word for word, b in (("bias", bias), ("weight", weighted), ("offset", offset)) if b]
        yield pytest.param(loss, dtype, depth, activation, bias, weighted, offset, id=", ".join(words))


@jax.jit
def passes(net, params, rows):
    """J, its gradient, a pass and the gradient of the pass: one program where three calls would be three."""
    bp = lr_nn.backprop(net, params, rows)
    return *lr_nn.value_and_gradient(net, params, rows), bp, lr_nn.gradient(bp)


def check_against_autodiff(case, dtype, weighted, offset):
    params, rows = parameters(case.net, dtype), batch(case, dtype=dtype, weighted=weighted, offset=offset)
    value, gradient, bp, of_pass = passes(case.net, on_device(params, dtype), rows)
    assert {leaf.dtype for leaf in jax.tree.leaves((gradient, bp.activations))} == {jnp.dtype(dtype)}
    assert bp.eta.dtype == bp.deltas[-1].dtype == value.dtype == accumulator(dtype)
    expected_value, expected_gradient = reference.value_and_gradient(case, params, rows)
    assert_close(value, expected_value, LENGTH, dtype)
    assert_trees_close(gradient, expected_gradient, LENGTH)
    assert_trees_close(of_pass, expected_gradient, LENGTH)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_cost_and_gradient_are_those_of_autodiff_for_every_loss_on_every_activation(float64, loss, activation):
    check_against_autodiff(network(loss, activation, depth=3), np.float64, weighted=True, offset=True)


@pytest.mark.parametrize(("loss", "dtype", "depth", "activation", "bias", "weighted", "offset"), list(mixed_rows()))
def test_cost_and_gradient_are_those_of_autodiff_in_every_dtype(loss, dtype, depth, activation, bias, weighted, offset):
    with jax.enable_x64(dtype == np.float64):
        check_against_autodiff(network(loss, activation, depth, bias), dtype, weighted, offset)


@networks
def test_deltas_are_the_derivatives_of_each_loss_by_its_pre_activations(float64, case):
    params, rows = parameters(case.net), batch(case, offset=True)
    bp = lr_nn.backprop(case.net, on_device(params), rows)
    assert_trees_close(bp.deltas, reference.deltas(case, params, rows), LENGTH)
    outputs = reference.outputs(case, params, rows.x)
    assert_trees_close((*bp.activations, np.asarray(bp.eta) - rows.offset), outputs, LENGTH)
    assert bp.loss == case.net.loss and bp.bias == case.net.bias
    assert_close(bp.loss.value(bp.eta, bp.y), reference.losses(case, params, rows), LENGTH)


@networks
def test_the_input_gradient_is_that_of_autodiff(float64, case):
    params, rows = parameters(case.net), batch(case)
    bp = lr_nn.backprop(case.net, on_device(params), rows)
    got = lr_nn.input_gradient(case.net, on_device(params), bp)
    assert_close(got, reference.input_gradient(case, params, rows), LENGTH)


@networks
def test_pullback_of_the_unit_seeds_is_the_jacobian(float64, case):
    params, rows = parameters(case.net), batch(case)
    forward = lr_nn.forward(case.net, on_device(params), rows.x)
    units = np.broadcast_to(np.eye(K)[:, None], (K, *forward.eta.shape))
    got = lr_nn.pullback(case.net, on_device(params), forward, jnp.asarray(units))
    assert_trees_close(got, reference.jacobians(case, params, rows.x), LENGTH)


def test_pullback_is_linear_in_the_seed_and_carries_free_leading_axes(float64):
    case = NETWORKS["categorical, relu, 3 layers"]
    params, rows = on_device(parameters(case.net)), batch(case)
    forward = lr_nn.forward(case.net, params, rows.x)
    seeds = np.random.default_rng(2).normal(size=(2, 3, *forward.eta.shape))

    def pull(seed):
        return [np.asarray(d) for d in lr_nn.pullback(case.net, params, forward, jnp.asarray(seed))]

    together = pull(seeds)
    assert [delta.shape for delta in together] == [(2, 3, N, d) for d in case.net.sizes[1:]]
    for i, j in np.ndindex(2, 3):
        assert_trees_close([delta[i, j] for delta in together], pull(seeds[i, j]), LENGTH, np.float64)
    mixture = pull(2 * seeds[0, 0] - 3 * seeds[1, 2])
    assert_trees_close(mixture, [2 * delta[0, 0] - 3 * delta[1, 2] for delta in together], LENGTH, np.float64)


def test_pullback_of_the_residual_gives_the_deltas():
    case = NETWORKS["bernoulli, sigmoid, 2 layers"]
    params, rows = on_device(parameters(case.net), jnp.float32), batch(case)
    bp = lr_nn.backprop(case.net, params, rows)
    seed = case.net.loss.residual(bp.eta, bp.y)
    assert_trees_close(lr_nn.pullback(case.net, params, bp.forward, seed), bp.deltas)


def test_a_canonical_loss_starts_the_recursion_with_mean_minus_target(float64):
    """δ_L = a_L - y,  δ_1 = (δ_2 w_2ᵀ) a_1 (1 - a_1): the method as the textbook has it."""
    case = network("bernoulli", "sigmoid", depth=2)
    params, rows = on_device(parameters(case.net)), batch(case)
    bp = lr_nn.backprop(case.net, params, rows)
    last = np.asarray(lr_nn.predict(case.net, params, rows.x)) - rows.y
    a = np.asarray(bp.activations[1])
    first = (last @ np.asarray(params[1].w).T) * a * (1 - a)
    assert_trees_close(bp.deltas, (first, last), LENGTH)
    gradient = lr_nn.gradient(bp)
    assert_trees_close(tuple(gradient[0]), (rows.x.T @ first / N, first.sum(axis=0) / N), LENGTH)
    assert_trees_close(tuple(gradient[1]), (a.T @ last / N, last.sum(axis=0) / N), LENGTH)


def test_nothing_below_a_step_learns(float64):
    case = network("bernoulli", "step", depth=2)
    rows = batch(case)
    gradient = lr_nn.gradient(lr_nn.backprop(case.net, on_device(parameters(case.net)), rows))
    assert not gradient[0].w.any() and not gradient[0].b.any() and gradient[1].w.any()


@networks
def test_the_gradient_is_the_weighted_mean_of_the_gradients_of_single_examples(float64, case):
    params, rows = on_device(parameters(case.net)), batch(case, weighted=True)
    bp = lr_nn.backprop(case.net, params, rows)
    share = rows.weight / rows.weight.sum()

    def single(x, y):
        return lr_nn.gradient(lr_nn.backprop(case.net, params, Batch(x[None], y[None])))

    singles = jax.jit(jax.vmap(single))(rows.x, rows.y)
    mean = jax.tree.map(lambda g: np.tensordot(share, g, 1), singles)
    assert_trees_close(lr_nn.gradient(bp), mean, LENGTH)


@networks
def test_permuting_examples_permutes_deltas_and_keeps_the_gradient(float64, case):
    params, rows = on_device(parameters(case.net)), batch(case, weighted=True, offset=True)
    order = np.random.default_rng(3).permutation(N)
    moved = Batch(*(a[order] for a in rows))
    bp = lr_nn.backprop(case.net, params, rows)
    permuted = lr_nn.backprop(case.net, params, moved)
    assert_trees_close(permuted.deltas, tuple(np.asarray(delta)[order] for delta in bp.deltas), LENGTH)
    assert_trees_close(lr_nn.gradient(permuted), lr_nn.gradient(bp), LENGTH)


def test_examples_do_not_see_each_other(float64):
    case = NETWORKS["bernoulli, sigmoid, 2 layers"]
    params, rows = on_device(parameters(case.net)), batch(case)
    bp = lr_nn.backprop(case.net, params, rows)
    changed = lr_nn.backprop(case.net, params, rows._replace(x=np.concatenate([rows.x[:3], -rows.x[3:]])))
    for delta, before in zip(map(np.asarray, changed.deltas), map(np.asarray, bp.deltas)):
        assert_close(delta[:3], before[:3], LENGTH)
        assert (delta != before)[3:].any(axis=1).all()


def test_a_backprop_is_a_pytree_that_crosses_jit():
    case = NETWORKS["poisson, elu, 2 layers, no bias"]
    params, rows = on_device(parameters(case.net), jnp.float32), on_device(batch(case), jnp.float32)
    bp = jax.jit(lr_nn.backprop)(case.net, params, rows)
    assert_trees_close(bp, lr_nn.backprop(case.net, params, rows), LENGTH)
    assert_trees_close(jax.jit(lr_nn.gradient)(bp), lr_nn.gradient(bp), LENGTH)
    assert all(layer.b is None for layer in lr_nn.gradient(bp))


def test_a_single_example_and_a_single_feature_are_no_exception(float64):
    net = lr_nn.logistic_regression(1)
    params = on_device(parameters(net))
    gradient = lr_nn.gradient(lr_nn.backprop(net, params, Batch([[2.0]], [1])))
    slope = 1 / (1 + np.exp(-(2 * float(params[0].w[0, 0]) + float(params[0].b[0])))) - 1
    assert_close(gradient[0].w, [[2 * slope]])
    assert_close(gradient[0].b, [slope])


def test_the_weight_gradient_in_blocks_of_rows_is_the_same_product(float64, monkeypatch):
    rng = np.random.default_rng(4)
    a, delta = jnp.asarray(rng.normal(size=(12, 5))), jnp.asarray(rng.normal(size=(12, 3)))
    for rows in (None, 1, 4, 12):
        monkeypatch.setattr(row_sums, "rows_per_product", lambda a, delta, rows=rows: rows)
        assert_close(row_sums.weight_gradient((a, delta)), np.asarray(a).T @ np.asarray(delta), 12)


ONE_DEVICE = """
import jax, numpy as np
import lr_nn
from lr_nn.row_sums import weight_gradient
from tolerances import assert_close, assert_trees_close
assert jax.device_count() == 1
rng = np.random.default_rng(0)

product = jax.jit(lambda a, delta: weight_gradient((a, delta)))
a, delta = rng.normal(size=(2**14, 300)).astype("f"), rng.normal(size=(2**14, 2)).astype("f")
assert "reshape" in str(product.trace(a, delta).jaxpr), "one product"
assert_close(product(a, delta), a.astype(float).T @ delta.astype(float), len(a))

net = lr_nn.mlp((6, 3, 1))
params = lr_nn.init(net, jax.random.key(0))
rows = lr_nn.Batch(rng.normal(size=(150_001, 6)).astype("f"), rng.integers(0, 2, size=150_001))
gradient = jax.jit(lr_nn.value_and_gradient, static_argnums=4)
assert any(loop in str(gradient.trace(net, params, rows).jaxpr) for loop in ("scan", "while")), "one block"
assert_trees_close(gradient(net, params, rows), gradient(net, params, rows, None, len(rows.x)), len(rows.x))
"""


def test_on_a_cpu_with_one_device_large_batches_are_taken_in_blocks_with_the_same_result():
    path = os.pathsep.join(filter(None, sys.path))
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
    command = [sys.executable, "-W", "error", "-c", ONE_DEVICE]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
