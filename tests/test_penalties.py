"""Penalties: value, gradient, prox, and what they mean as a prior."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
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


def strengths_like(params, seed=3, bias=True):
    """One strength a coefficient, some of them zero; None for free biases."""
    rng = np.random.default_rng(seed)

    def draw(leaf):
        return rng.uniform(0, 1, leaf.shape) * (rng.uniform(size=leaf.shape) > 0.25)

    return tuple(Layer(draw(w), draw(b) if bias else None) for w, b in params)


def one_a_coefficient(params, bias=True):
    return penalties.Penalty(strengths_like(params, 3, bias), strengths_like(params, 4, bias))


def as_vector(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@pytest.mark.parametrize("bias", [True, False], ids=["biases penalised", "biases free"])
def test_strengths_one_a_coefficient_weigh_each_coefficient(float64, bias):
    params = weights()
    penalty = one_a_coefficient(params, bias)
    filled = [tuple(Layer(w, np.zeros(w.shape[1]) if b is None else b) for w, b in strength) for strength in penalty]
    l1, l2, flat = as_vector(filled[0]), as_vector(filled[1]), as_vector(params)
    assert_close(penalty.value(params), (l1 * np.abs(flat) + l2 / 2 * flat**2).sum(), flat.size)
    assert_close(as_vector(penalty.gradient(params)), l1 * np.sign(flat) + l2 * flat)
    assert_trees_close(penalty.gradient(params), jax.jit(jax.grad(penalty.value))(params))
    assert_close(as_vector(penalty.hessian_diagonal(params)), l2)
    shrunk = np.sign(flat) * np.maximum(np.abs(flat) - 0.5 * l1, 0) / (1 + 0.5 * l2)
    assert_close(as_vector(penalty.prox(params, 0.5)), shrunk)
    assert (shrunk == 0).any()


def test_equal_strengths_in_a_tree_are_one_number(float64):
    params = weights()
    numbers = tuple(Layer(0.7, None) for _ in params)
    arrays = tuple(Layer(np.full(w.shape, 0.7), np.zeros(b.shape)) for w, b in params)
    for make in (penalties.l1, penalties.l2, lambda s: penalties.elastic_net(s, 0.25)):
        for tree in (numbers, arrays):
            assert_close(make(tree).value(params), make(0.7).value(params), 50)
            assert_trees_close(make(tree).gradient(params), make(0.7).gradient(params))
            assert_trees_close(make(tree).prox(params, 0.5), make(0.7).prox(params, 0.5))


def test_cost_gradient_and_curvature_take_strengths_one_a_coefficient(float64):
    case = network("bernoulli", depth=2)
    params, rows = on_device(parameters(case.net), np.float64), batch(case)
    penalty = penalties.Penalty(0.0, strengths_like(params))
    start, unravel = jax.flatten_util.ravel_pytree(params)
    value, gradient = lr_nn.value_and_gradient(case.net, params, rows, penalty)
    plain, plain_gradient = lr_nn.value_and_gradient(case.net, params, rows)
    ridge = as_vector(penalty.l2)
    assert_close(value - plain, (ridge / 2 * as_vector(params) ** 2).sum(), 50)
    assert_close(as_vector(gradient) - as_vector(plain_gradient), ridge * as_vector(params), 50)
    expected = jax.jit(jax.hessian(lambda p: lr_nn.cost(case.net, unravel(p), rows, penalty)))(start)
    op = lr_nn.curvature.hessian(case.net, params, rows, penalty)
    assert_close(op.dense(), expected, 50)
    op, without = (lr_nn.curvature.ggn(case.net, params, rows, p) for p in (penalty, None))
    assert_close(as_vector(op.diagonal()) - as_vector(without.diagonal()), ridge, 50)
    assert_close(op.trace() - without.trace(), ridge.sum(), 50)


def test_training_takes_strengths_one_a_coefficient(float64):
    """A step of gradient descent; lanes with strengths of their own are trainings one by one."""
    case = network("squared_error", depth=2)
    params, rows = on_device(parameters(case.net), np.float64), batch(case)
    each = [penalties.l2(strengths_like(params, seed)) for seed in (3, 4)]
    options = {"optimizer": optax.sgd(0.1), "epochs": 2}
    single = [lr_nn.train(case.net, params, rows, penalty=penalty, **options).params for penalty in each]
    descended = params
    for _ in range(2):
        gradient = lr_nn.value_and_gradient(case.net, descended, rows, each[0])[1]
        descended = jax.tree.map(lambda p, g: p - 0.1 * g, descended, gradient)
    assert_trees_close(single[0], descended, 50)
    twice = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), params)
    both = jax.tree.map(lambda a, b: np.stack([a, b]), *each)
    lanes = lr_nn.train_many(case.net, twice, rows, penalty=both, **options).params
    for lane in range(2):
        assert_trees_close(jax.tree.map(lambda leaf, lane=lane: leaf[lane], lanes), single[lane], 50)


TWO_LAYERS = network("squared_error", depth=2).net


@pytest.mark.parametrize(
    ("strength", "message"),
    [
        ((Layer(1.0, None),), "2 layers"),
        ((0.1, 0.2), "a single number here"),
        ((Layer(np.ones((5, 4)), None), Layer(1.0, None)), r"l2 of w_1 must be a number or of shape \(4, 5\)"),
        ((Layer(1.0, np.ones(4)), Layer(1.0, None)), r"l2 of b_1 must be a number or of shape \(5,\)"),
        ((Layer(None, 1.0), Layer(1.0, None)), "a w in every layer"),
        ((Layer(-1.0, None), Layer(1.0, None)), "l2 of w_1 must be finite and not negative; got -1"),
        ((Layer(1.0, np.array([0, 0, np.nan, 0, 0])), Layer(1.0, None)), "l2 of b_1 must be finite .* at index 2"),
    ],
)
def test_strengths_that_do_not_fit_the_parameters_are_refused(strength, message):
    case = network("squared_error", depth=2)
    with pytest.raises((TypeError, ValueError), match=message):
        lr_nn.cost(TWO_LAYERS, parameters(TWO_LAYERS), batch(case), penalties.Penalty(0.0, strength))


@pytest.mark.parametrize(
    "strength", [(Layer(0.1, None),), (Layer(np.ones((5, 1, 1)), None), Layer(0.0, None)), (), (Layer(0.1, None), 0.2)]
)
def test_a_tree_that_is_not_like_the_parameters_is_refused_by_every_method(strength):
    params = on_device(parameters(TWO_LAYERS), jnp.float32)
    penalty = penalties.Penalty(l2=strength)
    for method in (penalty.value, penalty.gradient, penalty.hessian_diagonal, lambda params: penalty.prox(params, 0.1)):
        with pytest.raises(ValueError, match="strength"):
            method(params)


def test_a_tuple_of_numbers_has_one_strength_per_lane():
    net, rows = lr_nn.logistic_regression(1), lr_nn.Batch(np.arange(4.0)[:, None], np.array([0, 1, 0, 1]))
    found = [
        lr_nn.fit_many(net, rows, penalty=penalties.l2(s)).coefficients for s in ((0.1, 0.2), np.array([0.1, 0.2]))
    ]
    assert_close(found[0], found[1])


@pytest.mark.parametrize("function", [lr_nn.cross_validate, lr_nn.regularization_path])
def test_paths_take_one_strength_for_all_weights(function):
    rows = lr_nn.Batch(np.arange(4.0)[:, None], np.array([0, 1, 0, 1]))
    with pytest.raises(ValueError, match="one number for all weights here"):
        function(lr_nn.logistic_regression(1), rows, penalty=penalties.l2((Layer(1.0, None),)))
