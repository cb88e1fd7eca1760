"""Architectures, their parameters, and the forward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import scipy.special
from cases import NETWORKS, N, batch, network, on_device, parameters
from tolerances import assert_close, assert_mean_close, assert_trees_close

import lr_nn
from lr_nn import activations, losses
from lr_nn.network import Network
from lr_nn.types import Batch, Layer

LENGTH = 20
networks = pytest.mark.parametrize("case", NETWORKS.values(), ids=NETWORKS)


def test_a_logistic_regression_counts_its_weights_and_biases():
    assert lr_nn.n_parameters(lr_nn.logistic_regression(12288, 3)) == (12288 + 1) * 3


@networks
def test_the_number_of_parameters_is_the_number_of_entries_of_init(case):
    params = jax.eval_shape(lambda: lr_nn.init(case.net, jax.random.key(0)))
    assert lr_nn.n_parameters(case.net) == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert [layer.w.shape for layer in params] == list(case.net.shapes)
    assert all((layer.b is not None) == case.net.bias for layer in params)


def test_regression_is_the_network_with_no_hidden_layer():
    assert lr_nn.linear_regression(4) == Network((4, 1), (), losses.squared_error)
    assert lr_nn.poisson_regression(4, 2) == Network((4, 2), (), losses.poisson)
    assert lr_nn.logistic_regression(4, 2) == Network((4, 2), (), losses.bernoulli)
    assert lr_nn.softmax_regression(4, 3) == Network((4, 3), (), losses.categorical)
    assert lr_nn.mlp((4, 1)) == lr_nn.logistic_regression(4)
    assert lr_nn.mlp((4, 3, 1)).hidden == (activations.sigmoid,)


def test_equal_architectures_are_one_however_they_are_written():
    one = Network([4, np.int64(3), 3, 1], activations.relu, losses.bernoulli)
    other = Network((4, 3, 3, 1), [activations.relu, activations.relu], losses.bernoulli)
    assert one == other and hash(one) == hash(other)
    assert one != Network((4, 3, 3, 1), (activations.relu, activations.tanh), losses.bernoulli)
    assert one != Network((4, 3, 3, 1), activations.relu, losses.bernoulli, bias=False)


def test_a_model_of_one_layer_starts_at_zero():
    params = lr_nn.init(lr_nn.softmax_regression(5, 3), jax.random.key(0))
    assert_trees_close(params, jax.tree.map(jnp.zeros_like, params))


def test_deep_weights_are_drawn_by_the_rule_of_the_activation_that_follows():
    """He for the rectifier, 2 / d_in; Glorot for the sigmoid and for the linear output, 2 / (d_in + d_out)."""
    net = lr_nn.mlp((200, 300, 100, 40), (activations.relu, activations.sigmoid), losses.squared_error)
    params = lr_nn.init(net, jax.random.key(1))
    for (w, b), variance in zip(params, [2 / 200, 2 / (300 + 100), 2 / (100 + 40)]):
        draws = np.asarray(w, np.float64).reshape(-1, 1)
        assert_mean_close(draws, [0.0])
        assert_mean_close(draws**2, [variance])
        assert not b.any()


def test_layers_and_keys_draw_weights_of_their_own():
    net = lr_nn.mlp((4, 4, 4, 4))
    draws = [layer.w for key in (0, 1) for layer in lr_nn.init(net, jax.random.key(key))]
    assert len({w.tobytes() for w in map(np.asarray, draws)}) == 6
    assert_trees_close(lr_nn.init(net, jax.random.key(0)), lr_nn.init(net, jax.random.key(0)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_activations_have_the_dtype_of_the_parameters_and_eta_is_float32_at_least(dtype):
    net = lr_nn.mlp((4, 5, 3))
    params = lr_nn.init(net, jax.random.key(0), dtype)
    rows = Batch(np.ones((N, 4)), np.ones((N, 3), int))
    forward, bp = lr_nn.forward(net, params, rows.x), lr_nn.backprop(net, params, rows)
    gradient = lr_nn.value_and_gradient(net, params, rows)[1]
    for leaf in jax.tree.leaves((params, forward.activations, bp.activations, bp.deltas[0], gradient)):
        assert leaf.dtype == dtype
    for leaf in (forward.eta, bp.eta, bp.deltas[-1], lr_nn.predict(net, params, rows.x), lr_nn.cost(net, params, rows)):
        assert leaf.dtype == jnp.float32


def test_each_gradient_has_the_dtype_of_its_own_parameter_and_the_cost_keeps_its_digits():
    """A first layer in bfloat16, a bias in float16, a last layer in float32: all functions agree with autodiff."""
    net = lr_nn.mlp((4, 5, 3), activations.tanh)
    (w1, b1), (w2, b2) = on_device(parameters(net), jnp.float32)
    mixed = (Layer(w1.astype(jnp.bfloat16), b1.astype(jnp.float16)), Layer(w2, b2))
    rows = Batch(np.ones((N, 4)), np.eye(N, 3), np.arange(1.0, N + 1))
    value, gradient = lr_nn.value_and_gradient(net, mixed, rows)
    autodiff = jax.grad(lambda params: lr_nn.cost(net, params, rows))(mixed)
    for by_hand in (gradient, lr_nn.gradient(lr_nn.backprop(net, mixed, rows))):
        assert [g.dtype for g in jax.tree.leaves(by_hand)] == [p.dtype for p in jax.tree.leaves(mixed)]
        for hand, auto in zip(jax.tree.leaves(by_hand), jax.tree.leaves(autodiff)):
            assert_close(hand, auto, N, jnp.bfloat16)
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), mixed)
    assert_close(value, lr_nn.cost(net, wide, rows), N, jnp.float32)


def test_eta_of_half_precision_is_not_rounded_to_half():
    """Two hundred inputs of one: η = 201.5 needs more digits than bfloat16 has, and so does its cost."""
    net = lr_nn.linear_regression(200)
    params = (Layer(jnp.ones((200, 1), jnp.bfloat16), jnp.full(1, 1.5, jnp.bfloat16)),)
    rows = Batch(np.ones((1, 200)), np.full(1, 201.0))
    assert lr_nn.forward(net, params, rows.x).eta.item() == 201.5
    assert lr_nn.cost(net, params, rows) == 0.125
    value, (layer,) = lr_nn.value_and_gradient(net, params, rows)
    assert value == 0.125 and layer.b.dtype == jnp.bfloat16 and (layer.w == 0.5).all()


def test_float64_is_refused_while_jax_has_it_off_and_given_while_it_is_on():
    net = lr_nn.logistic_regression(3)
    with jax.enable_x64(False), pytest.raises(ValueError, match="enable_x64"):
        lr_nn.init(net, jax.random.key(0), np.float64)
    with jax.enable_x64(True):
        assert lr_nn.init(net, jax.random.key(0), np.float64)[0].w.dtype == np.float64


@networks
def test_the_forward_pass_is_that_of_the_twin(float64, case):
    params, x = parameters(case.net), batch(case).x
    outputs, kept, eta = lr_nn.forward(case.net, on_device(params), x)
    assert len(outputs) == len(kept) == len(case.net.shapes) and (outputs[0] == x).all()
    assert_trees_close((*outputs, eta), reference.outputs(case, params, x), 10)
    offset = np.random.default_rng(5).normal(size=eta.shape)
    shifted = lr_nn.forward(case.net, on_device(params), x, offset)
    assert_trees_close(shifted.eta, np.asarray(eta) + offset, 10)
    assert_close(lr_nn.predict(case.net, on_device(params), x, offset), case.net.loss.mean(shifted.eta), 10)


def test_one_neuron_is_logistic_regression_and_k_neurons_are_k_of_them(float64):
    net = lr_nn.logistic_regression(4, 3)
    params, x = on_device(parameters(net)), np.random.default_rng(0).normal(size=(N, 4))
    (w, b) = params[0]
    assert_close(lr_nn.predict(net, params, x), scipy.special.expit(x @ np.asarray(w) + np.asarray(b)), 3)
    together = np.asarray(lr_nn.predict(net, params, x))
    for j in range(3):
        neuron = on_device((lr_nn.Layer(np.asarray(w)[:, j : j + 1], np.asarray(b)[j : j + 1]),))
        alone = lr_nn.predict(lr_nn.logistic_regression(4), neuron, x)
        assert_close(alone, together[:, j : j + 1], 3)


def test_a_prediction_is_the_mean_of_the_response(float64):
    means = {
        "squared_error": lambda eta: eta,
        "absolute_error": lambda eta: eta,
        "bernoulli": scipy.special.expit,
        "categorical": lambda eta: scipy.special.softmax(eta, axis=1),
        "poisson": np.exp,
        "squared_error of sigmoid": scipy.special.expit,
    }
    for loss, mean in means.items():
        case = network(loss, "tanh", depth=2)
        params, x = parameters(case.net), batch(case).x
        prediction = lr_nn.predict(case.net, on_device(params), x)
        assert_close(prediction, mean(reference.outputs(case, params, x)[-1]), 10)


def test_inputs_of_any_real_dtype_are_cast_to_the_dtype_of_the_parameters():
    net = lr_nn.logistic_regression(4, 3)
    params = on_device(parameters(net), jnp.float32)
    whole = np.arange(4 * N).reshape(N, 4)
    expected = lr_nn.predict(net, params, whole.astype(np.float32))
    for x in (whole, whole.tolist(), whole.astype(np.float64), jnp.asarray(whole, jnp.bfloat16), whole.astype("u1")):
        prediction = lr_nn.predict(net, params, x)
        assert prediction.dtype == jnp.float32
        assert (prediction == expected).all()


def test_a_network_passes_through_every_transformation_as_an_argument_without_leaves():
    net = lr_nn.mlp((4, 5, 3), activations.tanh)
    params = lr_nn.init(net, jax.random.key(0))
    rows = Batch(jnp.ones((N, 4)), jnp.eye(N, 3))
    assert jax.tree.leaves(net) == [] and jax.tree.unflatten(jax.tree.structure(net), []) == net
    value, gradient = lr_nn.value_and_gradient(net, params, rows)
    assert_trees_close(jax.jit(lr_nn.value_and_gradient)(net, params, rows), (value, gradient), LENGTH)
    assert_trees_close(jax.grad(lr_nn.cost, argnums=1)(net, params, rows), gradient, LENGTH)
    lanes = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), params)
    both = jax.jit(jax.vmap(lr_nn.value_and_gradient, (None, 0, None)))(net, lanes, rows)
    assert_trees_close(jax.tree.map(lambda a: a[0], both), (value, gradient), LENGTH)

    def descend(carry, _):
        net, params = carry
        value, gradient = lr_nn.value_and_gradient(net, params, rows)
        return (net, jax.tree.map(lambda p, g: p - g, params, gradient)), value

    (same, _), costs = jax.lax.scan(descend, (net, params), length=2)
    assert same == net
    assert_close(costs[0], value, LENGTH)
