"""Kronecker factors against blocks of the Gauss-Newton matrix, where they are exact, and their solves."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from cases import NETWORKS, N, batch, network, on_device, parameters
from jax.flatten_util import ravel_pytree
from tolerances import assert_close, assert_mean_close, assert_trees_close

import lr_nn
from lr_nn import per_example
from lr_nn.curvature import empirical_fisher, ggn, kfac

LENGTH = 30
FEW = (
    "categorical, 1 layer, no bias",
    "bernoulli, sigmoid, 2 layers",
    "squared_error of sigmoid, softplus, 3 layers",
)
networks = pytest.mark.parametrize("case", [NETWORKS[name] for name in FEW], ids=FEW)
LINEAR = NETWORKS["squared_error, 1 layer"]
DEEP_LINEAR = network("squared_error", "identity", depth=2)


def setting(case, n=N, dtype=None):
    """Rows with weights, and the arguments (net, params, bp) of every function."""
    params, rows = on_device(parameters(case.net), dtype), batch(case, n, weighted=True)
    return rows, (case.net, params, lr_nn.backprop(case.net, params, rows.x, rows.y))


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0])


def blocks(net, matrix):
    """The diagonal blocks of a (p, p) matrix, one a layer: rows of w, then b, the weight of the constant 1."""
    ends = np.cumsum([0, *((d_in + net.bias) * d_out for d_in, d_out in net.shapes)])
    return [np.asarray(matrix)[i:j, i:j] for i, j in itertools.pairwise(ends)]


def on_host(tree):
    return jax.tree.map(np.asarray, tree)


def kron(a, g):
    return np.kron(np.asarray(a), np.asarray(g))


def assert_blocks_close(factors, expected):
    for (a, g), block in zip(factors, expected, strict=True):
        assert_close(kron(a, g), block, LENGTH)


@networks
def test_factors_are_second_moments_with_the_constant_last(float64, case):
    rows, at = setting(case)
    _, params, bp = at
    constant = np.ones((N, int(case.net.bias)))
    share = rows.weight / rows.weight.sum()
    jacobians = reference.jacobians(case, jax.tree.map(np.asarray, params), rows.x)
    if case.loss.canonical:
        fisher = reference.loss_hessian(case.loss, np.asarray(bp.eta), rows.y)
    else:
        columns = np.asarray(bp.loss.fisher_factor(bp.eta))
        fisher = np.einsum("cna,cnb->nab", columns, columns)
    got = kfac.factors(*at, rows.weight)
    inputs = [np.concatenate([a, constant], axis=1) for a in bp.activations]
    for (a, g), x, j, (d_in, d_out) in zip(got, inputs, jacobians, case.net.shapes, strict=True):
        assert a.shape == (d_in + case.net.bias,) * 2 and g.shape == (d_out,) * 2
        assert_close(a, np.einsum("n,ni,nj->ij", share, x, x), LENGTH)
        assert_close(g, np.einsum("n,kni,nkl,lnj->ij", share, j, fisher, j), LENGTH)
        if case.net.bias:
            assert_close(a[-1], np.average(x, axis=0, weights=share), LENGTH)


@networks
def test_of_one_example_the_factors_are_the_blocks_exactly(float64, case):
    _, at = setting(case, n=1)
    assert_blocks_close(kfac.factors(*at), blocks(case.net, ggn.dense(*at)))
    assert_blocks_close(kfac.empirical_factors(at[-1]), blocks(case.net, empirical_fisher.dense(*at)))


@pytest.mark.parametrize("case", [NETWORKS["squared_error, 1 layer"], DEEP_LINEAR], ids=["one layer", "two layers"])
def test_of_a_linear_network_with_squared_error_the_factors_are_the_blocks_exactly(float64, case):
    """Its errors' second moments do not depend on the inputs: the one assumption of K-FAC holds."""
    rows, at = setting(case)
    assert_blocks_close(kfac.factors(*at, rows.weight), blocks(case.net, ggn.dense(*at, rows.weight)))


def test_sampled_factors_and_moments_are_unbiased_for_the_exact_ones():
    case = network("categorical", "tanh", depth=2)
    rows, at = setting(case, dtype=jnp.float32)
    factors = kfac.factors(*at, rows.weight)
    moments = [basis.moments for basis in kfac.eigenbasis(*at, factors, rows.weight)]

    def draw(key):
        few = kfac.sampled_factors(*at, rows.weight, key=key, samples=3)
        along = kfac.sampled_eigenbasis(*at, factors, rows.weight, key=key, samples=3)
        return ravel_pytree([f.g for f in few])[0], ravel_pytree([basis.moments for basis in along])[0]

    drawn = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 2000))
    for samples, expected in zip(drawn, ([f.g for f in factors], moments), strict=True):
        assert_mean_close(samples, flat(expected))
    few = kfac.sampled_factors(*at, rows.weight, key=jax.random.key(1), samples=2)
    assert_trees_close([f.a for f in few], [f.a for f in factors], LENGTH)


@networks
def test_the_exact_moments_are_the_diagonals_of_the_ggn_blocks_in_the_eigenbasis(float64, case):
    rows, at = setting(case)
    basis = on_host(kfac.eigenbasis(*at, kfac.factors(*at, rows.weight), rows.weight))
    exact = blocks(case.net, ggn.dense(*at, rows.weight))
    for (u_a, u_g, moments), block in zip(basis, exact, strict=True):
        u = kron(u_a, u_g)
        assert_close(moments.ravel(), np.diagonal(u.T @ block @ u), LENGTH)


@pytest.mark.parametrize("damping", [1e-2, 1.0])
@networks
def test_solve_is_the_dense_kronecker_solve_with_the_damping_split_by_the_traces(float64, case, damping):
    rows, at = setting(case)
    factors, gradient = kfac.factors(*at, rows.weight), lr_nn.gradient(at[-1], rows.weight)
    got = kfac.solve(factors, gradient, damping)
    assert jax.tree.structure(got) == jax.tree.structure(gradient)
    for (a, g), layer, solved in zip(on_host(factors), gradient, got, strict=True):
        pi = np.sqrt((np.trace(a) / len(a)) / (np.trace(g) / len(g)))
        left, right = a + pi * damping**0.5 * np.eye(len(a)), g + damping**0.5 / pi * np.eye(len(g))
        condition = np.linalg.cond(left) * np.linalg.cond(right)
        assert_close(flat(solved), np.linalg.solve(kron(left, right), flat(layer)), LENGTH, condition=condition)


def test_solve_does_not_see_how_a_scale_is_shared_between_the_factors(float64):
    rows, at = setting(NETWORKS["bernoulli, sigmoid, 2 layers"])
    factors, gradient = kfac.factors(*at, rows.weight), lr_nn.gradient(at[-1])
    shared = tuple(kfac.Factors(1024 * a, g / 1024) for a, g in factors)
    assert_trees_close(kfac.solve(shared, gradient, 0.1), kfac.solve(factors, gradient, 0.1), LENGTH)


def test_a_layer_whose_errors_vanish_is_solved_by_the_damping_alone(float64):
    _, at = setting(NETWORKS["squared_error, 1 layer"])
    gradient = lr_nn.gradient(at[-1])
    identity, nothing = jnp.eye(5), jnp.zeros((3, 3))
    got = kfac.solve((kfac.Factors(identity, nothing),), gradient, 0.25)
    assert_trees_close(got, jax.tree.map(lambda g: np.asarray(g) / (1.5 * 0.5), gradient), LENGTH)


@networks
def test_the_eigenbasis_is_orthogonal_and_holds_second_moments_of_gradients_along_itself(float64, case):
    rows, at = setting(case)
    bp = at[-1]
    factors = kfac.empirical_factors(bp, rows.weight)
    found = on_host((factors, kfac.empirical_eigenbasis(bp, factors, rows.weight), per_example.gradients(bp)))
    for (a, g), basis, layer in zip(*found, strict=True):
        for factor, u in ((a, basis.a), (g, basis.g)):
            assert_close(u.T @ u, np.eye(len(u)), LENGTH)
            assert_close(u @ np.diag(np.diagonal(u.T @ factor @ u)) @ u.T, factor, LENGTH)
        joined = layer.w if layer.b is None else np.concatenate([layer.w, np.asarray(layer.b)[:, None]], axis=1)
        along = np.einsum("ia,nij,jb->nab", basis.a, joined, basis.g)
        assert_close(basis.moments, np.average(along**2, axis=0, weights=rows.weight), LENGTH)


def with_moments(basis, factors):
    """The basis with the products of eigenvalues for moments, as K-FAC has them."""
    return tuple(
        b._replace(moments=jnp.outer(jnp.linalg.eigvalsh(f.a), jnp.linalg.eigvalsh(f.g)))
        for b, f in zip(basis, factors)
    )


@networks
def test_with_products_of_eigenvalues_for_moments_eigen_solve_inverts_the_damped_kronecker_product(float64, case):
    rows, at = setting(case)
    factors, gradient = kfac.factors(*at, rows.weight), lr_nn.gradient(at[-1])
    basis = with_moments(kfac.empirical_eigenbasis(at[-1], factors), factors)
    for (a, g), layer, solved in zip(factors, gradient, kfac.eigen_solve(basis, gradient, 0.1), strict=True):
        damped = kron(a, g) + 0.1 * np.eye(a.shape[0] * g.shape[0])
        expected = np.linalg.solve(damped, flat(layer))
        assert_close(flat(solved), expected, LENGTH, condition=np.linalg.cond(damped))


@networks
def test_of_one_example_the_moments_are_the_products_of_eigenvalues_and_eigen_solve_is_exact(float64, case):
    _, at = setting(case, n=1)
    bp, factors = at[-1], kfac.empirical_factors(at[-1])
    basis, gradient = kfac.empirical_eigenbasis(bp, factors), lr_nn.gradient(bp)
    for got, expected in zip(basis, with_moments(basis, factors), strict=True):
        assert_close(got.moments, expected.moments, LENGTH)
    exact = blocks(case.net, empirical_fisher.dense(*at))
    for block, layer, solved in zip(exact, gradient, kfac.eigen_solve(basis, gradient, 0.1), strict=True):
        damped = block + 0.1 * np.eye(len(block))
        assert_close(flat(solved), np.linalg.solve(damped, flat(layer)), LENGTH, condition=np.linalg.cond(damped))


@networks
def test_in_frobenius_norm_the_eigenbasis_comes_nearer_to_each_block_than_the_factors(float64, case):
    rows, at = setting(case)
    factors = kfac.empirical_factors(at[-1], rows.weight)
    basis = kfac.empirical_eigenbasis(at[-1], factors, rows.weight)
    exact = blocks(case.net, empirical_fisher.dense(*at, rows.weight))
    for (a, g), (u_a, u_g, moments), block in zip(factors, basis, exact, strict=True):
        u = kron(u_a, u_g)
        near = np.linalg.norm(u * np.ravel(moments)[None] @ u.T - block)
        assert 0 < near < np.linalg.norm(kron(a, g) - block)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bfloat16", "float16"])
def test_factors_of_half_precision_are_kept_in_float32_and_solves_come_back_in_half(dtype):
    rows, at = setting(NETWORKS["bernoulli, sigmoid, 2 layers"], dtype=dtype)
    _, exact = setting(NETWORKS["bernoulli, sigmoid, 2 layers"], dtype=jnp.float32)
    factors = kfac.factors(*at, rows.weight)
    basis = kfac.empirical_eigenbasis(at[-1], factors, rows.weight)
    assert {leaf.dtype for leaf in jax.tree.leaves((factors, basis))} == {jnp.dtype(jnp.float32)}
    assert_trees_close(factors, kfac.factors(*exact, rows.weight), LENGTH, dtype)
    gradient = lr_nn.gradient(at[-1], rows.weight)
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), gradient)
    for solve, by in ((kfac.solve, factors), (kfac.eigen_solve, basis)):
        got = solve(by, gradient, 0.1)
        assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype(dtype)}
        assert_trees_close(got, solve(by, wide, 0.1), LENGTH)


def solved(damping, solve=kfac.solve):
    _, at = setting(NETWORKS["squared_error, 1 layer"], dtype=jnp.float32)
    factors = kfac.factors(*at)
    by = factors if solve is kfac.solve else kfac.empirical_eigenbasis(at[-1], factors)
    return solve(by, lr_nn.gradient(at[-1]), damping)


def other_layers(solve):
    _, at = setting(LINEAR, dtype=jnp.float32)
    return solve((), lr_nn.gradient(at[-1]), 0.1)


def sampled(**keywords):
    _, at = setting(NETWORKS["squared_error, 1 layer"], dtype=jnp.float32)
    return kfac.sampled_factors(*at, **keywords)


REFUSALS = {
    "damping zero": (lambda: solved(0.0), ValueError, "damping must be positive; got 0"),
    "damping negative": (lambda: solved(-1e-3), ValueError, "damping must be positive; got -0.001"),
    "damping NaN": (lambda: solved(np.nan), ValueError, "damping must be positive; got nan"),
    "damping zero in the eigenbasis": (lambda: solved(0, kfac.eigen_solve), ValueError, "damping must be positive"),
    "no samples": (lambda: sampled(key=jax.random.key(0), samples=0), ValueError, "samples must be at least 1; got 0"),
    "no key": (sampled, TypeError, "'key'"),
    "key None": (lambda: sampled(key=None), TypeError, r"key must be a random key, such as .*; got None"),
    "key a seed": (lambda: sampled(key=0), TypeError, "key must be a random key.*; got 0"),
    "damping for each": (lambda: solved(np.ones(3)), ValueError, r"damping must be a single number.*\(3,\)"),
    "a layer missing": (lambda: other_layers(kfac.solve), ValueError, r"sides \[\(5, 3\)\].*got \[\]"),
    "a layer missing in the eigenbasis": (lambda: other_layers(kfac.eigen_solve), ValueError, "one pair a layer"),
    "factors of another pass": (
        lambda: kfac.empirical_eigenbasis(setting(DEEP_LINEAR)[1][-1], kfac.empirical_factors(setting(LINEAR)[1][-1])),
        ValueError,
        "one pair a layer",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS.values(), ids=REFUSALS)
def test_bad_input_is_refused(call, error, message):
    assert solved(0.1) and solved(0.1, kfac.eigen_solve) and sampled(key=jax.random.key(0))
    with pytest.raises(error, match=message):
        call()
