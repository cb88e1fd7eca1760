"""Kronecker factors against blocks of the Gauss-Newton matrix, where they are exact, and their solves."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import scipy.linalg
from cases import NETWORKS, N, batch, network, on_device, parameters
from jax.flatten_util import ravel_pytree
from tolerances import assert_close, assert_mean_close, assert_trees_close

import lr_nn
from lr_nn import per_example
from lr_nn.curvature import empirical_fisher, ggn, kfac
from lr_nn.curvature.kronecker import Factors

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
    """Rows with weights, their pass, and the arguments (net, params, batch) of every function."""
    params, rows = on_device(parameters(case.net), dtype), batch(case, n, weighted=True)
    at = (case.net, params, rows)
    return rows, lr_nn.backprop(*at), at


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
    rows, bp, at = setting(case)
    constant = np.ones((N, int(case.net.bias)))
    share = rows.weight / rows.weight.sum()
    jacobians = reference.jacobians(case, parameters(case.net), rows.x)
    if case.loss.canonical:
        fisher = reference.loss_hessian(case.loss, np.asarray(bp.eta), rows.y)
    else:
        columns = np.asarray(bp.loss.fisher_factor(bp.eta))
        fisher = np.einsum("cna,cnb->nab", columns, columns)
    inputs = [np.concatenate([a, constant], axis=1) for a in bp.activations]
    for (a, g), x, j, (d_in, d_out) in zip(kfac(*at).factors, inputs, jacobians, case.net.shapes, strict=True):
        assert a.shape == (d_in + case.net.bias,) * 2 and g.shape == (d_out,) * 2
        assert_close(a, np.einsum("n,ni,nj->ij", share, x, x), LENGTH)
        assert_close(g, np.einsum("n,kni,nkl,lnj->ij", share, j, fisher, j), LENGTH)
        if case.net.bias:
            assert_close(a[-1], np.average(x, axis=0, weights=share), LENGTH)


@networks
def test_of_one_example_the_factors_are_the_blocks_exactly(float64, case):
    *_, at = setting(case, n=1)
    assert_blocks_close(kfac(*at).factors, blocks(case.net, ggn(*at).dense()))
    assert_blocks_close(kfac(*at, kind="empirical").factors, blocks(case.net, empirical_fisher(*at).dense()))


@pytest.mark.parametrize("case", [LINEAR, DEEP_LINEAR], ids=["one layer", "two layers"])
def test_of_a_linear_network_with_squared_error_the_factors_are_the_blocks_exactly(float64, case):
    """Its errors' second moments do not depend on the inputs: the one assumption of K-FAC holds."""
    *_, at = setting(case)
    assert_blocks_close(kfac(*at).factors, blocks(case.net, ggn(*at).dense()))


@networks
def test_as_an_operator_it_is_the_block_diagonal_matrix_of_kronecker_products(float64, case):
    *_, at = setting(case)
    made, v = kfac(*at), parameters(case.net, seed=7)
    for op, each in (
        (made, [kron(*factors) for factors in made.factors]),
        (basis := made.eigenbasis(), in_basis(basis)),
    ):
        expected = scipy.linalg.block_diag(*each)
        assert_close(op.dense(), expected, LENGTH)
        assert_close(flat(op @ on_device(v)), expected @ flat(v), LENGTH)
        assert_close(op @ flat(v), expected @ flat(v), LENGTH)
        assert_close(flat(op.diagonal()), np.diagonal(expected), LENGTH)
        assert_close(op.trace(), np.trace(expected), LENGTH)


def in_basis(basis):
    """The block U diag(moments) Uᵀ of every layer."""
    for u_a, u_g, moments in on_host(basis.layers):
        u = kron(u_a, u_g)
        yield u * moments.reshape(1, -1) @ u.T


def test_sampled_factors_and_moments_are_unbiased_for_the_exact_ones():
    case = network("categorical", "tanh", depth=2)
    *_, at = setting(case, dtype=jnp.float32)
    exact = kfac(*at)
    moments = [layer.moments for layer in exact.eigenbasis().layers]

    def draw(key):
        few = kfac(*at, kind="sampled", key=key, samples=3)
        along = replace(few, factors=exact.factors).eigenbasis()
        return ravel_pytree([f.g for f in few.factors])[0], ravel_pytree([layer.moments for layer in along.layers])[0]

    drawn = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 2000))
    for samples, expected in zip(drawn, ([f.g for f in exact.factors], moments), strict=True):
        assert_mean_close(samples, flat(expected))
    few = kfac(*at, kind="sampled", key=jax.random.key(1), samples=2)
    assert_trees_close([f.a for f in few.factors], [f.a for f in exact.factors], LENGTH)


@networks
def test_the_exact_moments_are_the_diagonals_of_the_ggn_blocks_in_the_eigenbasis(float64, case):
    *_, at = setting(case)
    basis, exact = on_host(kfac(*at).eigenbasis().layers), blocks(case.net, ggn(*at).dense())
    for (u_a, u_g, moments), block in zip(basis, exact, strict=True):
        u = kron(u_a, u_g)
        assert_close(moments.ravel(), np.diagonal(u.T @ block @ u), LENGTH)


def damped(factors, damping):
    """A + π√λ I and G + √λ/π I in NumPy, layer by layer."""
    for a, g in on_host(factors):
        pi = np.sqrt((np.trace(a) / len(a)) / (np.trace(g) / len(g)))
        yield a + pi * damping**0.5 * np.eye(len(a)), g + damping**0.5 / pi * np.eye(len(g))


@pytest.mark.parametrize("damping", [1e-2, 1.0])
@networks
def test_solve_and_logdet_are_those_of_the_dense_product_with_the_damping_split_by_the_traces(float64, case, damping):
    _, bp, at = setting(case)
    made, gradient = kfac(*at), lr_nn.gradient(bp)
    got, logdet = made.solve(gradient, damping), 0.0
    assert jax.tree.structure(got) == jax.tree.structure(gradient)
    for (left, right), layer, solved in zip(damped(made.factors, damping), gradient, got, strict=True):
        condition = np.linalg.cond(left) * np.linalg.cond(right)
        assert_close(flat(solved), np.linalg.solve(kron(left, right), flat(layer)), LENGTH, condition=condition)
        logdet += np.linalg.slogdet(kron(left, right))[1]
    assert_close(made.logdet(damping), logdet, LENGTH, condition=condition)
    assert_close(made.solve(flat(gradient), damping), flat(got), LENGTH, condition=condition)


def test_samples_have_mean_zero_and_the_inverse_of_the_damped_matrix_for_covariance():
    """Whitened by the dense Cholesky factors every second moment is that of the identity."""
    *_, at = setting(NETWORKS["bernoulli, sigmoid, 2 layers"], dtype=jnp.float32)
    made = kfac(*at)
    draw = jax.jit(jax.vmap(lambda key: ravel_pytree(made.sample(key, 0.5))[0]))
    drawn = np.asarray(draw(jax.random.split(jax.random.key(0), 4000)), np.float64)
    expected = scipy.linalg.block_diag(*(kron(*sides) for sides in damped(made.factors, 0.5)))
    white = drawn @ np.linalg.cholesky(expected)
    assert_mean_close(white, np.zeros(len(expected)))
    assert_mean_close(np.einsum("sp,sq->spq", white, white), np.eye(len(expected)))


def test_solve_does_not_see_how_a_scale_is_shared_between_the_factors(float64):
    _, bp, at = setting(NETWORKS["bernoulli, sigmoid, 2 layers"])
    made, gradient = kfac(*at), lr_nn.gradient(bp)
    shared = replace(made, factors=tuple(Factors(1024 * a, g / 1024) for a, g in made.factors))
    assert_trees_close(shared.solve(gradient, 0.1), made.solve(gradient, 0.1), LENGTH)


def test_a_layer_whose_errors_vanish_is_solved_by_the_damping_alone(float64):
    _, bp, at = setting(LINEAR)
    gradient = lr_nn.gradient(bp)
    got = replace(kfac(*at), factors=(Factors(jnp.eye(5), jnp.zeros((3, 3))),)).solve(gradient, 0.25)
    assert_trees_close(got, jax.tree.map(lambda g: np.asarray(g) / (1.5 * 0.5), gradient), LENGTH)


@networks
def test_the_eigenbasis_is_orthogonal_and_holds_second_moments_of_gradients_along_itself(float64, case):
    rows, bp, at = setting(case)
    made = kfac(*at, kind="empirical")
    found = on_host((made.factors, made.eigenbasis().layers, per_example.gradients(bp)))
    for (a, g), basis, layer in zip(*found, strict=True):
        for factor, u in ((a, basis.a), (g, basis.g)):
            assert_close(u.T @ u, np.eye(len(u)), LENGTH)
            assert_close(u @ np.diag(np.diagonal(u.T @ factor @ u)) @ u.T, factor, LENGTH)
        joined = layer.w if layer.b is None else np.concatenate([layer.w, np.asarray(layer.b)[:, None]], axis=1)
        along = np.einsum("ia,nij,jb->nab", basis.a, joined, basis.g)
        assert_close(basis.moments, np.average(along**2, axis=0, weights=rows.weight), LENGTH)


def with_moments(basis, factors):
    """The basis with the products of eigenvalues for moments, as K-FAC has them."""
    layers = tuple(
        layer._replace(moments=jnp.outer(jnp.linalg.eigvalsh(f.a), jnp.linalg.eigvalsh(f.g)))
        for layer, f in zip(basis.layers, factors)
    )
    return replace(basis, layers=layers)


@networks
def test_with_products_of_eigenvalues_for_moments_the_eigenbasis_inverts_the_damped_kronecker_product(float64, case):
    _, bp, at = setting(case)
    made, gradient = kfac(*at), lr_nn.gradient(bp)
    solved_layers = with_moments(made.eigenbasis(), made.factors).solve(gradient, 0.1)
    for (a, g), layer, solved in zip(made.factors, gradient, solved_layers, strict=True):
        matrix = kron(a, g) + 0.1 * np.eye(a.shape[0] * g.shape[0])
        expected = np.linalg.solve(matrix, flat(layer))
        assert_close(flat(solved), expected, LENGTH, condition=np.linalg.cond(matrix))


@networks
def test_of_one_example_the_moments_are_the_products_of_eigenvalues_and_the_eigenbasis_is_exact(float64, case):
    _, bp, at = setting(case, n=1)
    made, gradient = kfac(*at, kind="empirical"), lr_nn.gradient(bp)
    basis = made.eigenbasis()
    for got, expected in zip(basis.layers, with_moments(basis, made.factors).layers, strict=True):
        assert_close(got.moments, expected.moments, LENGTH)
    exact = blocks(case.net, empirical_fisher(*at).dense())
    for block, layer, solved in zip(exact, gradient, basis.solve(gradient, 0.1), strict=True):
        matrix = block + 0.1 * np.eye(len(block))
        assert_close(flat(solved), np.linalg.solve(matrix, flat(layer)), LENGTH, condition=np.linalg.cond(matrix))


@networks
def test_in_frobenius_norm_the_eigenbasis_comes_nearer_to_each_block_than_the_factors(float64, case):
    *_, at = setting(case)
    made = kfac(*at, kind="empirical")
    exact = blocks(case.net, empirical_fisher(*at).dense())
    for (a, g), near, block in zip(made.factors, in_basis(made.eigenbasis()), exact, strict=True):
        assert 0 < np.linalg.norm(near - block) < np.linalg.norm(kron(a, g) - block)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bfloat16", "float16"])
def test_factors_of_half_precision_are_kept_in_float32_and_solves_come_back_in_half(dtype):
    case = NETWORKS["bernoulli, sigmoid, 2 layers"]
    _, bp, at = setting(case, dtype=dtype)
    made, exact = kfac(*at), kfac(*setting(case, dtype=jnp.float32)[-1])
    basis, gradient = made.eigenbasis(), lr_nn.gradient(bp)
    assert {leaf.dtype for leaf in jax.tree.leaves((made.factors, basis.layers))} == {jnp.dtype(jnp.float32)}
    assert_trees_close(made.factors, exact.factors, LENGTH, dtype)
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), (gradient, at[1]))
    for op in (made, basis):
        got = op.solve(gradient, 0.1)
        assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype(dtype)}
        assert_trees_close(got, replace(op, params=wide[1]).solve(wide[0], 0.1), LENGTH)
    assert {leaf.dtype for leaf in jax.tree.leaves(made.sample(jax.random.key(0), 0.1))} == {jnp.dtype(dtype)}


def test_the_object_and_its_eigenbasis_are_pytrees_under_jit_vmap_and_scan(float64):
    case = NETWORKS["bernoulli, sigmoid, 2 layers"]
    _, bp, at = setting(case)
    made, gradient = kfac(*at, kind="sampled", key=jax.random.key(0)), lr_nn.gradient(bp)
    dampings = jnp.asarray([0.1, 1.0])

    @jax.jit
    def in_every_way(made, gradient):
        basis = made.eigenbasis()
        return [
            (
                jax.vmap(lambda damping, op=op: op.solve(gradient, damping))(dampings),
                jax.lax.scan(lambda op, damping: (op, op.solve(gradient, damping)), op, dampings)[1],
            )
            for op in (made, basis)
        ]

    for op, ways in zip((made, made.eigenbasis()), in_every_way(made, gradient)):
        expected = jax.tree.map(lambda *a: np.stack(a), *(op.solve(gradient, damping) for damping in (0.1, 1.0)))
        for got in ways:
            assert_trees_close(got, expected, 10 * LENGTH)


def small(**keywords):
    return kfac(*setting(LINEAR, dtype=jnp.float32)[-1], **keywords)


V, KEY = on_device(parameters(LINEAR.net), np.float32), jax.random.key(0)
REFUSALS = {
    "damping zero": (lambda: small().solve(V, 0.0), ValueError, "damping must be positive; got 0"),
    "damping negative": (lambda: small().solve(V, -1e-3), ValueError, "damping must be positive; got -0.001"),
    "damping NaN": (lambda: small().logdet(np.nan), ValueError, "damping must be positive; got nan"),
    "damping zero of a sample": (lambda: small().sample(KEY, 0.0), ValueError, "damping must be positive; got 0"),
    "damping zero in the eigenbasis": (
        lambda: small().eigenbasis().solve(V, 0),
        ValueError,
        "damping must be positive; got 0",
    ),
    "damping for each": (
        lambda: small().solve(V, np.ones(3)),
        ValueError,
        r"damping must be a single number.*\(3,\)",
    ),
    "another kind": (
        lambda: small(kind="mc"),
        ValueError,
        r"kind must be one of \('exact', 'sampled', 'empirical'\); got 'mc'",
    ),
    "no samples": (
        lambda: small(kind="sampled", key=KEY, samples=0),
        ValueError,
        "samples must be at least 1; got 0",
    ),
    "no key": (lambda: small(kind="sampled"), TypeError, r"key must be a random key, such as .*; got None"),
    "key a seed": (lambda: small(kind="sampled", key=0), TypeError, "key must be a random key.*; got 0"),
    "a sample of a seed": (lambda: small().sample(0, 0.1), TypeError, "key must be a random key.*; got 0"),
    "v with no layers": (lambda: small().solve((), 0.1), ValueError, "^v does not fit the network"),
    "v of another length": (
        lambda: small().eigenbasis().solve(np.ones(3), 0.1),
        ValueError,
        r"^v must be like params, or flat with shape \(15,\)",
    ),
    "v of another network": (
        lambda: small() @ on_device(parameters(DEEP_LINEAR.net), np.float32),
        ValueError,
        "^v does not fit the network",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS.values(), ids=REFUSALS)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
