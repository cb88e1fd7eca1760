"""Gauss-Newton, Hessian, empirical Fisher and tangent kernel against Jacobians and Hessians made by autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from cases import ACTIVATIONS, LOSSES, NETWORKS, K, N, NetworkCase, batch, network, on_device, parameters
from jax.flatten_util import ravel_pytree
from tolerances import assert_close, assert_mean_close, assert_trees_close, tolerance

import lr_nn
from lr_nn import curvature, per_example
from lr_nn.curvature import empirical_fisher, ggn, hessian, loss_hessian
from lr_nn.types import Batch, Layer

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
    """Parameters, rows, the pass over them, and network, parameters and rows as the arguments of every function."""
    params, rows = on_device(parameters(case.net)), batch(case, n, weighted=weighted, offset=True, seed=seed)
    at = (case.net, params, rows)
    return params, rows, lr_nn.backprop(*at), at


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


def unweighted(rows):
    return rows._replace(weight=None)


@networks
def test_the_ggn_is_jacobian_transposed_times_fisher_times_jacobian(float64, case):
    params, rows, bp, at = setting(case)
    blocks, v = gauss_newton(case, bp, rows), direction(case)
    expected = np.average(blocks, axis=0, weights=rows.weight)
    op, plain = ggn(*at), ggn(*at[:2], unweighted(rows))
    assert_close(op.dense(), expected, LENGTH)
    assert_close(flat(op @ on_device(v)), expected @ flat(v), LENGTH)
    assert_close(flat(op.diagonal()), np.diagonal(expected), LENGTH)
    assert_close(op.trace(), np.trace(expected), LENGTH)
    assert_close(flat(plain.diagonal()), np.diagonal(blocks.mean(axis=0)), LENGTH)
    for traces in (op.traces(), plain.traces()):
        assert_close(traces, np.trace(blocks, axis1=1, axis2=2), LENGTH)
    assert jax.tree.structure(op.diagonal()) == jax.tree.structure(params)


@every_row
def test_ggn_and_hessian_products_are_those_of_autodiff_for_every_loss_and_activation(float64, case, weighted):
    _, rows, bp, at = setting(case, weighted)
    expected, v = np.average(gauss_newton(case, bp, rows), axis=0, weights=rows.weight), direction(case)
    op = ggn(*at)
    assert_close(flat(op @ on_device(v)), expected @ flat(v), LENGTH)
    assert_close(flat(op.diagonal()), np.diagonal(expected), LENGTH)
    product = hessian(*at) @ on_device(v)
    assert_trees_close(product, hessian_product(case, parameters(case.net), rows, v), LENGTH)


@pytest.mark.parametrize("name", ["categorical, 1 layer, no bias", "bernoulli, sigmoid, 2 layers"])
def test_the_dense_hessian_is_that_of_autodiff_and_symmetric(float64, name):
    case = NETWORKS[name]
    params, rows, _, at = setting(case)
    got = hessian(*at).dense()
    assert_close(got, hessian_by_autodiff(case, jax.tree.map(np.asarray, params), rows), LENGTH)
    assert_close(got, np.asarray(got).T, LENGTH)


@pytest.mark.parametrize("loss", CANONICAL)
def test_the_ggn_of_a_canonical_one_layer_model_is_its_hessian(float64, loss):
    *_, at = setting(network(loss, depth=1))
    assert_close(ggn(*at).dense(), hessian(*at).dense(), LENGTH)


def deep(loss, hidden, bias=True):
    """A network of widths that differ, the activations of `hidden` between its layers."""
    rows = [ACTIVATIONS[name] for name in hidden]
    net = lr_nn.Network((*(4, 5, 2, 6, 4)[: len(rows) + 1], K), [a.activation for a in rows], LOSSES[loss].loss, bias)
    return NetworkCase(net, tuple(row.twin for row in rows), LOSSES[loss])


def every_loss_and_depth():
    """Every loss without a hidden layer, and with 1 to 4 of them; every activation among those."""
    names = list(ACTIVATIONS)[1:]
    for i, loss in enumerate(LOSSES):
        yield pytest.param(deep(loss, ()), id=f"{loss}, no hidden layer")
        hidden = [names[(2 * i + j) % len(names)] for j in range(1 + i % 4)]
        yield pytest.param(deep(loss, hidden, bias=i % 3 != 0), id=f"{loss}, {len(hidden)} hidden")


@pytest.mark.parametrize("case", list(every_loss_and_depth()))
def test_diagonal_and_trace_of_the_hessian_are_those_of_autodiff_at_every_depth(float64, case):
    params, rows, _, at = setting(case)
    expected = np.diagonal(hessian_by_autodiff(case, jax.tree.map(np.asarray, params), rows))
    assert_close(flat(hessian(*at).diagonal()), expected, LENGTH)
    scale = np.abs(expected).sum()
    assert_close(jnp.stack([hessian(*at).trace(), scale]), [expected.sum(), scale], LENGTH)


def test_the_traces_of_the_hessian_are_those_of_each_example(float64):
    _, rows, _, at = setting(NETWORKS["categorical, relu, 3 layers"])
    singles = [hessian(*at[:2], rows._replace(weight=unit)).trace() for unit in np.eye(N)]
    assert_close(hessian(*at).traces(), singles, LENGTH)


@pytest.mark.parametrize("rows_of_a_block", [1, 3, N], ids="blocks of {}".format)
def test_the_diagonal_of_the_hessian_is_the_same_in_blocks_of_rows(float64, monkeypatch, rows_of_a_block):
    *_, at = setting(NETWORKS["squared_error of sigmoid, softplus, 3 layers"])
    expected = np.diagonal(hessian(*at).dense())
    monkeypatch.setattr(loss_hessian, "BLOCK_SIZE", rows_of_a_block * 20)
    assert loss_hessian.rows_per_block(at[0].sizes) == rows_of_a_block, "20 numbers: w_2 H_2, (5, 4)"
    assert_close(flat(jax.jit(lambda op: op.diagonal())(hessian(*at))), expected, LENGTH)


def test_behind_a_sigmoid_the_squared_error_has_an_indefinite_hessian_and_a_semidefinite_ggn(float64):
    *_, at = setting(network("squared_error of sigmoid", depth=1))
    ggn_matrix, hessian_matrix = (np.asarray(make(*at).dense()) for make in (ggn, hessian))
    lowest, highest = np.linalg.eigvalsh(hessian_matrix)[[0, -1]]
    assert lowest < -highest / 100 < 0, "a direction of truly negative curvature"
    assert np.linalg.eigvalsh(ggn_matrix)[0] >= -tolerance(np.float64, LENGTH) * np.abs(ggn_matrix).max()


@networks
def test_ggn_and_empirical_fisher_are_symmetric_and_positive_semidefinite(float64, case):
    *_, at = setting(case)
    for matrix in (ggn(*at).dense(), empirical_fisher(*at).dense()):
        assert_close(matrix, np.asarray(matrix).T, LENGTH)
        lowest, highest = np.linalg.eigvalsh(np.asarray(matrix))[[0, -1]]
        assert highest > 0 and lowest >= -tolerance(np.float64, LENGTH) * highest


@networks
def test_the_empirical_fisher_is_the_mean_outer_product_of_gradients(float64, case):
    _, rows, bp, at = setting(case)
    g = np.stack([flat(jax.tree.map(lambda a, i=i: a[i], per_example.gradients(bp))) for i in range(N)])
    v = direction(case)
    for some in (unweighted(rows), rows):
        expected = np.average(np.einsum("np,nq->npq", g, g), axis=0, weights=some.weight)
        op = empirical_fisher(*at[:2], some)
        assert_close(op.dense(), expected, LENGTH)
        assert_close(flat(op @ on_device(v)), expected @ flat(v), LENGTH)
        assert_close(flat(op.diagonal()), np.diagonal(expected), LENGTH)
        assert_close(op.trace(), np.trace(expected), LENGTH)
        assert_close(op.traces(), np.square(g).sum(axis=1), LENGTH)


SAMPLED = ["absolute_error", "categorical", "poisson", "squared_error of sigmoid"]


@pytest.mark.parametrize("loss", SAMPLED)
def test_the_sampled_diagonal_is_unbiased_for_the_exact_one(loss):
    case = network(loss, "tanh", depth=2)
    op = ggn(case.net, on_device(parameters(case.net), jnp.float32), batch(case, weighted=True))
    draw = jax.jit(jax.vmap(lambda key: ravel_pytree(op.sampled_diagonal(key, samples=2))[0]))
    assert_mean_close(draw(jax.random.split(jax.random.key(0), 2000)), flat(op.diagonal()))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32], ids=["bfloat16", "float16", "float32"])
@pytest.mark.parametrize(("loss", "eta"), [("bernoulli", -6.0), ("absolute_error", 200.0), ("poisson", 5.0)])
def test_sampled_diagonals_are_unbiased_in_half_precision_too(dtype, loss, eta):
    """At an η where events are rare, or large beside their noise."""
    net = lr_nn.Network((1, 1), (), getattr(lr_nn.losses, loss))
    params = (Layer(jnp.full((1, 1), eta, dtype), jnp.zeros(1, dtype)),)
    op = ggn(net, params, Batch(np.ones((4000, 1)), np.zeros(4000)))
    drawn, exact = op.sampled_diagonal(jax.random.key(0), samples=10), op.diagonal()
    np.testing.assert_allclose(float(drawn[0].b[0]), float(exact[0].b[0]), rtol=0.3)


def test_poisson_counts_beyond_the_integers_are_drawn_by_their_normal_limit():
    eta = jnp.full((4000, 1), 25.0)
    drawn = np.asarray(lr_nn.losses.poisson.sample(eta, jax.random.key(0)), np.float64)
    np.testing.assert_allclose(drawn.mean(), np.exp(25.0), rtol=1e-5)
    assert_mean_close((drawn - np.exp(25.0)) ** 2 / np.exp(25.0), np.ones(1))


def test_more_samples_bring_the_sampled_diagonal_nearer_as_the_root_of_their_number():
    case = NETWORKS["bernoulli, sigmoid, 2 layers"]
    op = ggn(case.net, on_device(parameters(case.net), jnp.float32), batch(case))
    exact, keys = flat(op.diagonal()), jax.random.split(jax.random.key(1), 200)

    def error(samples):
        draw = jax.vmap(lambda key: ravel_pytree(op.sampled_diagonal(key, samples=samples))[0])
        return np.square(np.asarray(jax.jit(draw)(keys)) - exact[None]).sum(axis=1).mean()

    assert 16 / 2 < error(1) / error(16) < 16 * 2


def test_sampled_quantities_weigh_examples_and_are_drawn_by_the_key(float64):
    case = NETWORKS["categorical, relu, 3 layers"]
    _, rows, _, at = setting(case)
    sampled = {
        "diagonal": lambda key, batch: ggn(*at[:2], batch).sampled_diagonal(key, samples=3),
        "factors": lambda key, batch: curvature.kfac(*at[:2], batch, kind="sampled", key=key, samples=3).factors,
    }
    for function in sampled.values():

        def draw(weight=rows.weight, key=3, function=function):
            return flat(function(jax.random.key(key), rows._replace(weight=weight)))

        singles = np.stack([draw(weight) for weight in np.eye(N)])
        assert_close(draw(), np.average(singles, axis=0, weights=rows.weight), LENGTH)
        assert_close(draw(None), singles.mean(axis=0), LENGTH)
        assert (draw() != draw(key=4)).any()


@networks
def test_the_tangent_kernel_is_the_product_of_jacobians_within_a_batch_and_between_two(float64, case):
    params, rows, _, _ = setting(case)
    others = setting(case, n=4, seed=2)[1]
    j, h = (jacobian(case, parameters(case.net), r.x) for r in (rows, others))
    kernel = curvature.ntk(case.net, params, rows.x)
    assert_close(kernel, np.einsum("ncp,mep->nmce", j, j), LENGTH)
    between = curvature.ntk(case.net, params, rows.x, others.x)
    assert_close(between, np.einsum("ncp,mep->nmce", j, h), LENGTH)
    swapped = curvature.ntk(case.net, params, others.x, rows.x)
    assert_close(swapped, np.einsum("nmce->mnec", np.asarray(between)), LENGTH)
    for got, full in (
        (curvature.ntk_trace(case.net, params, rows.x), kernel),
        (curvature.ntk_trace(case.net, params, rows.x, others.x), between),
    ):
        assert_close(got, np.einsum("nmcc->nm", np.asarray(full)), LENGTH)


@networks
def test_the_gram_matrix_of_gradients_is_the_tangent_kernel_between_residuals(float64, case):
    params, rows, bp, _ = setting(case)
    r, kernel = np.asarray(bp.deltas[-1]), np.asarray(curvature.ntk(case.net, params, rows.x))
    assert_close(per_example.gram(bp), np.einsum("nc,nmce,me->nm", r, kernel, r), LENGTH)
