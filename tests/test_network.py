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
def test_parameters_and_all_that_follows_are_of_the_dtype_asked_for(dtype):
    net = lr_nn.mlp((4, 5, 3))
    params = lr_nn.init(net, jax.random.key(0), dtype)
    x = np.ones((N, 4))
    bp = lr_nn.backprop(net, params, x, np.ones((N, 3), int))
    for leaf in jax.tree.leaves((params, lr_nn.forward(net, params, x), lr_nn.predict(net, params, x), bp)):
        assert leaf.dtype == dtype


def test_float64_is_refused_while_jax_has_it_off_and_given_while_it_is_on():
    net = lr_nn.logistic_regression(3)
    with jax.enable_x64(False), pytest.raises(ValueError, match="enable_x64"):
        lr_nn.init(net, jax.random.key(0), np.float64)
    with jax.enable_x64(True):
        assert lr_nn.init(net, jax.random.key(0), np.float64)[0].w.dtype == np.float64


@networks
def test_the_forward_pass_is_that_of_the_twin(float64, case):
    params, x = parameters(case.net), batch(case).x
    outputs, eta = lr_nn.forward(case.net, on_device(params), x)
    assert len(outputs) == len(case.net.shapes) and (outputs[0] == x).all()
    assert_trees_close((*outputs, eta), reference.outputs(case, params, x), 10)


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
