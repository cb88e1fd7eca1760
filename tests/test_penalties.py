"""Penalties: value, gradient, prox, and what they mean as a prior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from cases import batch, network, on_device, parameters
from tolerances import assert_close, assert_trees_close

import lr_nn
from lr_nn import penalties
from lr_nn.types import Layer

MENU = {
    "l1": penalties.l1(0.3),
    "l2": penalties.l2(0.7),
    "elastic_net": penalties.elastic_net(0.8, 0.25),
    "none": penalties.l2(0),
}

menu = pytest.mark.parametrize("penalty", MENU.values(), ids=MENU)


def weights(bias=True):
    return on_device(parameters(network("categorical", depth=3, bias=bias).net), np.float64)


@menu
@pytest.mark.parametrize("bias", [True, False])
def test_the_value_is_l1_sum_abs_plus_half_l2_sum_of_squares(float64, penalty, bias):
    params = weights(bias)
    flat = np.concatenate([np.ravel(w) for w, _ in params])
    expected = penalty.l1 * np.abs(flat).sum() + penalty.l2 / 2 * (flat**2).sum()
    assert penalty.value(params).shape == ()
    assert_close(penalty.value(params), expected, flat.size)


@menu
@pytest.mark.parametrize("bias", [True, False])
def test_the_gradient_is_that_of_autodiff_away_from_zero(float64, penalty, bias):
    params = weights(bias)
    assert_trees_close(penalty.gradient(params), jax.jit(jax.grad(penalty.value))(params))


def test_the_gradient_at_zero_is_the_subgradient_of_smallest_norm():
    zero = (Layer(jnp.zeros((2, 1)), jnp.ones(1)),)
    assert_trees_close(penalties.elastic_net(1.0, 0.5).gradient(zero), (Layer(np.zeros((2, 1)), np.zeros(1)),))


@menu
def test_biases_are_free(float64, penalty):
    params = weights()
    moved = tuple(Layer(w, b + 3) for w, b in params)
    assert penalty.value(moved) == penalty.value(params)
    for before, layer, shrunk in zip(moved, penalty.gradient(moved), penalty.prox(moved, 0.5)):
        assert not layer.b.any()
        assert (shrunk.b == before.b).all()


@menu
@pytest.mark.parametrize("step", [0.1, 2.0])
def test_zero_is_a_subgradient_of_the_prox_objective_at_the_prox(float64, penalty, step):
    """0 ∈ u - w + step ∂penalty(u)."""
    params = weights()
    w = np.concatenate([np.ravel(layer.w) for layer in params])
    u = np.concatenate([np.ravel(layer.w) for layer in penalty.prox(params, step)])
    smooth = u - w + step * float(penalty.l2) * u
    moved = u != 0
    assert_close(smooth[moved] + w[moved], w[moved] - step * float(penalty.l1) * np.sign(u[moved]), dtype=np.float64)
    assert (np.abs(smooth[~moved]) <= step * float(penalty.l1)).all()
    assert moved.any() and (~moved).any() == (penalty.l1 > 0)


def test_the_prox_without_a_penalty_is_the_identity_and_keeps_the_dtype():
    params = on_device(parameters(network("bernoulli").net), jnp.float32)
    prox = penalties.l2(0.0).prox(params, 1.0)
    assert_trees_close(prox, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(prox)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("ratio", [0, 0.3, 1])
def test_the_elastic_net_is_a_mixture_of_both_penalties(float64, ratio):
    params = weights()
    mixture = ratio * penalties.l1(0.8).value(params) + (1 - ratio) * penalties.l2(0.8).value(params)
    assert_close(penalties.elastic_net(0.8, ratio).value(params), mixture, 50)


def test_the_penalised_cost_is_the_negative_log_posterior_up_to_a_constant(float64):
    """n J = -log p(y | params) - log p(params) + const: Gaussian noise, Gaussian and Laplace priors on weights."""
    case = network("squared_error", depth=2)
    rows = batch(case, weighted=True)
    s, n = rows.weight, rows.weight.sum()
    penalty = penalties.elastic_net(0.6, 0.4)
    sums = []
    for seed in range(3):
        params = on_device(parameters(case.net, seed=seed), np.float64)
        flat = np.concatenate([np.ravel(w) for w, _ in params])
        eta = np.asarray(lr_nn.forward(case.net, params, rows.x).eta)
        log_likelihood = (s[:, None] * scipy.stats.norm.logpdf(rows.y, eta)).sum()
        log_prior = scipy.stats.norm.logpdf(flat, scale=1 / np.sqrt(n * penalty.l2)).sum()
        log_prior += scipy.stats.laplace.logpdf(flat, scale=1 / (n * penalty.l1)).sum()
        sums.append([n * lr_nn.cost(case.net, params, rows, penalty), log_likelihood + log_prior])
    minus_log_posterior, log_posterior = np.array(sums).T
    assert_close(np.diff(minus_log_posterior), -np.diff(log_posterior), 50, dtype=np.float64)
    assert (np.diff(log_posterior) != 0).all()


def test_strengths_may_be_lanes_under_vmap(float64):
    params, strengths = weights(), np.array([0.0, 0.5, 2.0])
    values = jax.jit(jax.vmap(lambda penalty: penalty.value(params)))(penalties.elastic_net(strengths, 0.5))
    assert_close(values, [penalties.elastic_net(s, 0.5).value(params) for s in strengths], 50)


def test_strengths_are_cast_to_the_dtype_of_the_weights():
    params = on_device(parameters(network("bernoulli").net), jnp.bfloat16)
    penalty = penalties.elastic_net(np.float64(0.5), 0.5)
    assert {leaf.dtype for leaf in jax.tree.leaves(penalty.gradient(params))} == {jnp.dtype(jnp.bfloat16)}
    assert penalty.value(params).dtype == jnp.float32, "a sum over weights"
