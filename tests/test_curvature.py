"""Gauss-Newton, Hessian, empirical Fisher and tangent kernel against Jacobians and Hessians made by autodiff."""

from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from cases import ACTIVATIONS, LOSSES, NETWORKS, K, N, batch, network, on_device, parameters
from jax.flatten_util import ravel_pytree
from tolerances import assert_close, assert_mean_close, assert_trees_close, tolerance

import lr_nn
from lr_nn import curvature, per_example
from lr_nn.curvature import empirical_fisher, ggn, hessian
from lr_nn.tangents import inner_products

LENGTH = 30
FEW = (
    "categorical, 1 layer, no bias",
    "bernoulli, sigmoid, 2 layers",
    "squared_error of sigmoid, softplus, 3 layers",
)
networks = pytest.mark.parametrize("case", [NETWORKS[name] for name in FEW], ids=FEW)
CANONICAL = [name for name, row in LOSSES.items() if row.canonical]


def covering():
    """Every loss and every activation, with and without a bias and weights, in three layers."""
    for i, loss in enumerate(LOSSES):
        activation = list(ACTIVATIONS)[(i + 2) % len(ACTIVATIONS)]
        yield pytest.param(network(loss, activation, depth=3, bias=i % 3 != 0), i % 2 == 0, id=f"{loss}, {activation}")


every_row = pytest.mark.parametrize(("case", "weighted"), list(covering()))


@reference.in_float64
@reference.compiled
def jacobian(case, params, x):
    """J_i = ∂η_i/∂θ, (n, k, p), in the order of ravel_pytree."""
    flat, unravel = ravel_pytree(params)
    return jax.jacobian(lambda flat: reference._outputs(case, unravel(flat), x)[-1])(flat)


@reference.in_float64
@reference.compiled
def hessian_by_autodiff(case, params, rows):
    flat, unravel = ravel_pytree(params)
    return jax.hessian(lambda flat: reference._cost(unravel(flat), case, rows, 0.0, 0.0))(flat)


@reference.in_float64
@reference.compiled
def hessian_product(case, params, rows, v):
    """Forward over reverse."""
    return jax.jvp(jax.grad(lambda p: reference._cost(p, case, rows, 0.0, 0.0)), (params,), (v,))[1]


def setting(case, weighted=True, n=N, seed=1):
    """Parameters, rows, the pass over them, and the three together as the arguments of every function."""
    params, rows = on_device(parameters(case.net)), batch(case, n, weighted=weighted, offset=True, seed=seed)
    bp = lr_nn.backprop(case.net, params, rows.x, rows.y, rows.offset)
    return params, rows, bp, (case.net, params, bp)


def output_fisher(case, bp, rows):
    """F_i (n, k, k): by autodiff where it is the Hessian in η, else by the loss, whose Fisher has tests of its own."""
    if case.loss.canonical:
        return reference.loss_hessian(case.loss, np.asarray(bp.eta), rows.y)
    units = np.broadcast_to(np.eye(K)[:, None], (K, *bp.eta.shape))
    return np.einsum("cnd->ndc", np.asarray(bp.loss.fisher_multiply(bp.eta, jnp.asarray(units))))


def gauss_newton(case, bp, rows):
    """J_iᵀ F_i J_i for every example, (n, p, p)."""
    j = jacobian(case, parameters(case.net), rows.x)
    return np.einsum("nkp,nkl,nlq->npq", j, output_fisher(case, bp, rows), j)


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0])


def direction(case):
    return parameters(case.net, seed=7)


@networks
def test_the_ggn_is_jacobian_transposed_times_fisher_times_jacobian(float64, case):
    params, rows, bp, at = setting(case)
    blocks, v = gauss_newton(case, bp, rows), direction(case)
    expected = np.average(blocks, axis=0, weights=rows.weight)
    assert_close(ggn.dense(*at, rows.weight), expected, LENGTH)
    assert_close(flat(ggn.multiply(*at, on_device(v), rows.weight)), expected @ flat(v), LENGTH)
    assert_close(flat(ggn.diagonal(*at, rows.weight)), np.diagonal(expected), LENGTH)
    assert_close(flat(ggn.diagonal(*at)), np.diagonal(blocks.mean(axis=0)), LENGTH)
    assert_close(ggn.trace(*at), np.trace(blocks, axis1=1, axis2=2), LENGTH)
    assert jax.tree.structure(ggn.diagonal(*at)) == jax.tree.structure(params)


@every_row
def test_ggn_and_hessian_products_are_those_of_autodiff_for_every_loss_and_activation(float64, case, weighted):
    _, rows, bp, at = setting(case, weighted)
    expected, v = np.average(gauss_newton(case, bp, rows), axis=0, weights=rows.weight), direction(case)
    assert_close(flat(ggn.multiply(*at, on_device(v), rows.weight)), expected @ flat(v), LENGTH)
    assert_close(flat(ggn.diagonal(*at, rows.weight)), np.diagonal(expected), LENGTH)
    product = hessian.multiply(*at, on_device(v), rows.weight)
    assert_trees_close(product, hessian_product(case, parameters(case.net), rows, v), LENGTH)


@pytest.mark.parametrize("name", ["categorical, 1 layer, no bias", "bernoulli, sigmoid, 2 layers"])
def test_the_dense_hessian_is_that_of_autodiff_and_symmetric(float64, name):
    case = NETWORKS[name]
    params, rows, _, at = setting(case)
    got = hessian.dense(*at, rows.weight)
    assert_close(got, hessian_by_autodiff(case, jax.tree.map(np.asarray, params), rows), LENGTH)
    assert_close(got, np.asarray(got).T, LENGTH)


@pytest.mark.parametrize("loss", CANONICAL)
def test_the_ggn_of_a_canonical_one_layer_model_is_its_hessian(float64, loss):
    _, rows, _, at = setting(network(loss, depth=1))
    assert_close(ggn.dense(*at, rows.weight), hessian.dense(*at, rows.weight), LENGTH)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_hessian_diagonal_of_one_layer_is_that_of_autodiff(float64, loss):
    case = network(loss, depth=1)
    params, rows, _, at = setting(case)
    expected = np.diagonal(hessian_by_autodiff(case, jax.tree.map(np.asarray, params), rows))
    assert_close(flat(hessian.diagonal(*at, rows.weight)), expected, LENGTH)


def test_behind_a_sigmoid_the_squared_error_has_an_indefinite_hessian_and_a_semidefinite_ggn(float64):
    case = network("squared_error of sigmoid", depth=1)
    _, rows, _, at = setting(case)
    ggn_matrix, hessian_matrix = (np.asarray(m.dense(*at, rows.weight)) for m in (ggn, hessian))
    lowest, highest = np.linalg.eigvalsh(hessian_matrix)[[0, -1]]
    assert lowest < -highest / 100 < 0, "a direction of truly negative curvature"
    assert np.linalg.eigvalsh(ggn_matrix)[0] >= -tolerance(np.float64, LENGTH) * np.abs(ggn_matrix).max()


@networks
def test_ggn_and_empirical_fisher_are_symmetric_and_positive_semidefinite(float64, case):
    _, rows, _, at = setting(case)
    for matrix in (ggn.dense(*at, rows.weight), empirical_fisher.dense(*at, rows.weight)):
        assert_close(matrix, np.asarray(matrix).T, LENGTH)
        lowest, highest = np.linalg.eigvalsh(np.asarray(matrix))[[0, -1]]
        assert highest > 0 and lowest >= -tolerance(np.float64, LENGTH) * highest


@networks
def test_the_empirical_fisher_is_the_mean_outer_product_of_gradients(float64, case):
    _, rows, bp, at = setting(case)
    g = np.stack([flat(jax.tree.map(lambda a, i=i: a[i], per_example.gradients(bp))) for i in range(N)])
    v = direction(case)
    for s in (None, rows.weight):
        expected = np.average(np.einsum("np,nq->npq", g, g), axis=0, weights=s)
        assert_close(empirical_fisher.dense(*at, s), expected, LENGTH)
        assert_close(flat(empirical_fisher.multiply(*at, on_device(v), s)), expected @ flat(v), LENGTH)
        assert_close(flat(empirical_fisher.diagonal(*at, s)), np.diagonal(expected), LENGTH)


SAMPLED = ["absolute_error", "categorical", "poisson", "squared_error of sigmoid"]


@pytest.mark.parametrize("loss", SAMPLED)
def test_the_sampled_diagonal_is_unbiased_for_the_exact_one(loss):
    case = network(loss, "tanh", depth=2)
    params, rows = on_device(parameters(case.net), jnp.float32), batch(case, weighted=True)
    at = (case.net, params, lr_nn.backprop(case.net, params, rows.x, rows.y))

    def draw(key):
        return ravel_pytree(ggn.sampled_diagonal(*at, rows.weight, key=key, samples=2))[0]

    samples = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 2000))
    assert_mean_close(samples, flat(ggn.diagonal(*at, rows.weight)))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32], ids=["bfloat16", "float16", "float32"])
@pytest.mark.parametrize(("loss", "eta"), [("bernoulli", -6.0), ("absolute_error", 200.0), ("poisson", 5.0)])
def test_sampled_diagonals_are_unbiased_in_half_precision_too(dtype, loss, eta):
    """At an η where events are rare, or large beside their noise."""
    net = lr_nn.Network((1, 1), (), getattr(lr_nn.losses, loss))
    params = (lr_nn.types.Layer(jnp.full((1, 1), eta, dtype), jnp.zeros(1, dtype)),)
    bp = lr_nn.backprop(net, params, np.ones((4000, 1)), np.zeros(4000))
    drawn, exact = (
        ggn.sampled_diagonal(net, params, bp, key=jax.random.key(0), samples=10),
        ggn.diagonal(net, params, bp),
    )
    np.testing.assert_allclose(float(drawn[0].b[0]), float(exact[0].b[0]), rtol=0.3)


def test_poisson_counts_beyond_the_integers_are_drawn_by_their_normal_limit():
    eta = jnp.full((4000, 1), 25.0)
    drawn = np.asarray(lr_nn.losses.poisson.sample(eta, jax.random.key(0)), np.float64)
    np.testing.assert_allclose(drawn.mean(), np.exp(25.0), rtol=1e-5)
    assert_mean_close((drawn - np.exp(25.0)) ** 2 / np.exp(25.0), np.ones(1))


def test_more_samples_bring_the_sampled_diagonal_nearer_as_the_root_of_their_number():
    case = NETWORKS["bernoulli, sigmoid, 2 layers"]
    params, rows = on_device(parameters(case.net), jnp.float32), batch(case)
    at = (case.net, params, lr_nn.backprop(case.net, params, rows.x, rows.y))
    exact, keys = flat(ggn.diagonal(*at)), jax.random.split(jax.random.key(1), 200)

    def error(samples):
        draw = jax.vmap(lambda key: ravel_pytree(ggn.sampled_diagonal(*at, key=key, samples=samples))[0])
        return np.square(np.asarray(jax.jit(draw)(keys)) - exact[None]).sum(axis=1).mean()

    assert 16 / 2 < error(1) / error(16) < 16 * 2


def test_sampled_quantities_weigh_examples_and_are_drawn_by_the_key(float64):
    case = NETWORKS["categorical, relu, 3 layers"]
    _, rows, _, at = setting(case)
    key = jax.random.key(3)
    for sampled in (ggn.sampled_diagonal, curvature.kfac.sampled_factors):

        def draw(s=None, key=key, sampled=sampled):
            return flat(sampled(*at, s, key=key, samples=3))

        singles = np.stack([draw(s) for s in np.eye(N)])
        assert_close(draw(rows.weight), np.average(singles, axis=0, weights=rows.weight), LENGTH)
        assert_close(draw(), singles.mean(axis=0), LENGTH)
        assert (draw() != draw(key=jax.random.key(4))).any()


@pytest.mark.parametrize("matrix", [ggn, hessian, empirical_fisher], ids=lambda m: m.__name__.split(".")[-1])
def test_a_dense_matrix_is_refused_above_its_limit_by_a_message_that_names_the_product(monkeypatch, matrix):
    case = network("bernoulli", depth=1)
    params, rows = on_device(parameters(case.net), jnp.float32), batch(case)
    at = (case.net, params, lr_nn.backprop(case.net, params, rows.x, rows.y))
    p = lr_nn.n_parameters(case.net)
    monkeypatch.setattr(import_module("lr_nn.curvature.dense"), "MOST_PARAMETERS", p)
    assert matrix.dense(*at).shape == (p, p)
    monkeypatch.setattr(import_module("lr_nn.curvature.dense"), "MOST_PARAMETERS", p - 1)
    name = matrix.__name__.split(".")[-1]
    with pytest.raises(ValueError, match=rf"{p} parameters exceeds the limit of {p - 1}; use {name}\.multiply"):
        matrix.dense(*at)


@networks
def test_the_tangent_kernel_is_the_product_of_jacobians_within_a_batch_and_between_two(float64, case):
    params, rows, bp, _ = setting(case)
    _, others, other, _ = setting(case, n=4, seed=2)
    j, h = (jacobian(case, parameters(case.net), r.x) for r in (rows, others))
    kernel = curvature.ntk(case.net, params, bp.activations)
    assert_close(kernel, np.einsum("ncp,mep->nmce", j, j), LENGTH)
    between = curvature.ntk(case.net, params, bp.activations, other.activations)
    assert_close(between, np.einsum("ncp,mep->nmce", j, h), LENGTH)
    swapped = curvature.ntk(case.net, params, other.activations, bp.activations)
    assert_close(swapped, np.einsum("nmce->mnec", np.asarray(between)), LENGTH)
    for got, full in (
        (curvature.ntk_trace(case.net, params, bp.activations), kernel),
        (curvature.ntk_trace(case.net, params, bp.activations, other.activations), between),
    ):
        assert_close(got, np.einsum("nmcc->nm", np.asarray(full)), LENGTH)


@networks
def test_the_gram_matrix_of_gradients_is_the_tangent_kernel_between_residuals(float64, case):
    params, _, bp, _ = setting(case)
    r, kernel = np.asarray(bp.deltas[-1]), np.asarray(curvature.ntk(case.net, params, bp.activations))
    assert_close(per_example.gram(bp), np.einsum("nc,nmce,me->nm", r, kernel, r), LENGTH)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bfloat16", "float16"])
def test_half_precision_keeps_diagonals_in_float32_and_products_in_its_own_dtype(dtype):
    case = NETWORKS["bernoulli, sigmoid, 2 layers"]
    params, rows = on_device(parameters(case.net, np.float16), dtype), batch(case, dtype=np.float16, weighted=True)
    at = (case.net, params, lr_nn.backprop(case.net, params, rows.x, rows.y))
    exact = (case.net, wide := on_device(params, jnp.float32), lr_nn.backprop(case.net, wide, rows.x, rows.y))

    @jax.jit
    def moments_and_products(params, bp):
        at = (case.net, params, bp)
        moments = ggn.diagonal(*at, rows.weight), empirical_fisher.diagonal(*at, rows.weight), ggn.trace(*at)
        return moments, tuple(m.multiply(*at, params, rows.weight) for m in (ggn, hessian, empirical_fisher))

    got, halves = moments_and_products(*at[1:])
    expected = moments_and_products(*exact[1:])
    assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype(jnp.float32)}
    assert {leaf.dtype for leaf in jax.tree.leaves(halves)} == {jnp.dtype(dtype)}
    assert_trees_close((got, halves), expected, LENGTH, dtype)


def test_what_overflows_in_half_precision_is_finite_where_it_is_kept_in_float32():
    case = network("squared_error", "relu", depth=2)
    params, rows = on_device(parameters(case.net), jnp.float16), batch(case)
    bp = lr_nn.backprop(case.net, params, 200 * rows.x, 200 * rows.y)
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), (params, bp))
    v = jax.tree.map(jnp.ones_like, params)
    got = curvature.ntk_trace(case.net, params, bp.activations), per_example.gram(bp)
    assert max(float(kernel.max()) for kernel in got) > float(jnp.finfo(jnp.float16).max)
    assert_trees_close(
        got, (curvature.ntk_trace(case.net, wide[0], wide[1].activations), per_example.gram(wide[1])), 300, jnp.float16
    )
    along = inner_products(bp.activations, bp.deltas, v)
    assert along.dtype == jnp.float32
    assert_close(
        along, inner_products(wide[1].activations, wide[1].deltas, jax.tree.map(jnp.ones_like, wide[0])), LENGTH
    )


def mixed(other=None):
    """The arguments of a function, whose pass may come from another network than the one that is named."""
    case = network("bernoulli", depth=2)
    other = other or case
    params, theirs = (on_device(parameters(c.net), jnp.float32) for c in (case, other))
    rows = batch(other)
    return case.net, params, lr_nn.backprop(other.net, theirs, rows.x, rows.y)


SHALLOW, DEEP = network("bernoulli", depth=1), network("bernoulli", depth=3)
NO_BIAS, OTHER_LOSS = network("bernoulli", depth=2, bias=False), network("squared_error", depth=2)
STRANGERS = {
    "shallower": SHALLOW,
    "deeper": DEEP,
    "without a bias": NO_BIAS,
    "of another loss": OTHER_LOSS,
    "of another activation": network("bernoulli", "tanh", depth=2),
}
SIDES = tuple(
    curvature.kfac.Factors(np.eye(a, dtype=np.float32), np.eye(g, dtype=np.float32)) for a, g in ((5, 5), (6, 3))
)
V = on_device(parameters(network("bernoulli", depth=2).net), np.float32)
FUNCTIONS = {
    "ggn.multiply": lambda *at: ggn.multiply(*at, V),
    "ggn.diagonal": ggn.diagonal,
    "ggn.sampled_diagonal": lambda *at: ggn.sampled_diagonal(*at, key=jax.random.key(0)),
    "ggn.trace": ggn.trace,
    "hessian.multiply": lambda *at: hessian.multiply(*at, V),
    "empirical_fisher.multiply": lambda *at: empirical_fisher.multiply(*at, V),
    "empirical_fisher.diagonal": empirical_fisher.diagonal,
    "kfac.factors": curvature.kfac.factors,
    "kfac.sampled_factors": lambda *at: curvature.kfac.sampled_factors(*at, key=jax.random.key(0)),
    "kfac.eigenbasis": lambda *at: curvature.kfac.eigenbasis(*at, SIDES),
    "kfac.sampled_eigenbasis": lambda *at: curvature.kfac.sampled_eigenbasis(*at, SIDES, key=jax.random.key(0)),
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_pass_of_another_network_is_refused(function):
    assert jax.tree.leaves(FUNCTIONS[function](*mixed()))
    for stranger in STRANGERS.values():
        with pytest.raises(ValueError, match=r"network|widths"):
            FUNCTIONS[function](*mixed(stranger))


REFUSALS = {
    "v of another network": (
        lambda: ggn.multiply(*mixed(), on_device(parameters(SHALLOW.net), np.float32)),
        ValueError,
        "expected shapes",
    ),
    "v of another network to the Hessian": (
        lambda: hessian.multiply(*mixed(), on_device(parameters(DEEP.net), np.float32)),
        ValueError,
        "expected shapes",
    ),
    "v a flat vector": (lambda: ggn.multiply(*mixed(), jnp.ones(43)), TypeError, r"tuple of Layer\(w, b\)"),
    "Hessian diagonal of a deep network": (lambda: hessian.diagonal(*mixed()), ValueError, "one layer; use hessian.d"),
    "no samples": (
        lambda: ggn.sampled_diagonal(*mixed(), key=jax.random.key(0), samples=0),
        ValueError,
        "samples must be at least 1; got 0",
    ),
    "half a sample": (
        lambda: ggn.sampled_diagonal(*mixed(), key=jax.random.key(0), samples=0.5),
        TypeError,
        "samples must be an integer; got 0.5",
    ),
    "no key": (lambda: ggn.sampled_diagonal(*mixed()), TypeError, "'key'"),
    "weight too short": (lambda: ggn.diagonal(*mixed(), np.ones(3)), ValueError, r"weight.*\(7,\).*got \(3,\)"),
}


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS.values(), ids=REFUSALS)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
