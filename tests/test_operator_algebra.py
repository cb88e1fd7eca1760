"""Sums and multiples of operators, many vectors at once, spectra, linear systems and traces, against dense matrices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg
from cases import NETWORKS, batch, on_device, parameters
from jax.flatten_util import ravel_pytree
from tolerances import assert_close, assert_mean_close, tolerance

import lr_nn
from lr_nn.curvature import (
    empirical_fisher,
    ggn,
    hessian,
    hutchinson_diagonal,
    hutchinson_trace,
    kfac,
    lanczos,
    largest,
    solve,
    vectors,
)
from lr_nn.types import Batch, Layer

LENGTH = 30
CASE, OTHER = NETWORKS["bernoulli, sigmoid, 2 layers"], NETWORKS["squared_error, 1 layer"]
NET, P = CASE.net, lr_nn.n_parameters(CASE.net)
KEY, STEPS = jax.random.key(0), 12
MANY = np.random.default_rng(3).normal(size=(P, vectors.BLOCK + 3))


def at(dtype=None, case=CASE):
    """Network, parameters and rows: the arguments of every operator."""
    return case.net, on_device(parameters(case.net), dtype), batch(case, weighted=True, offset=True)


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0])


def direction():
    return on_device(parameters(NET, seed=7))


def columns_of(trees):
    """Trees with a leading axis m as the columns of (p, m)."""
    return np.stack([flat(jax.tree.map(lambda a, i=i: a[i], trees)) for i in range(len(trees[0].w))], axis=1)


def dense(op):
    return np.asarray(op.dense())


def mixture(factor, identities):
    """A multiple of the empirical Fisher, of rank 7, and of the identity: one structure, one program for each test."""
    return (factor * empirical_fisher(*at())).damped(identities)


def of_penalty(strength):
    """The diagonal matrix of a penalty, its GGN less the one without."""
    return ggn(*at(), lr_nn.penalties.l2(strength)) - ggn(*at())


@pytest.mark.parametrize("make", [ggn, hessian, empirical_fisher, kfac], ids=lambda make: make.__name__)
def test_a_product_with_many_vectors_is_that_with_each(float64, make):
    op = make(*at())
    trees = jax.tree.map(lambda a: jnp.stack([a, 2 * a, a - 1]), direction())
    assert_close(op @ MANY, dense(op) @ MANY, LENGTH)
    assert_close(columns_of(op @ trees), dense(op) @ columns_of(trees), LENGTH)
    assert_close(op.multiply(MANY[:, :1]), (op @ MANY[:, 0])[:, None], LENGTH)


def test_damped_solves_take_many_vectors_too(float64):
    made = kfac(*at())
    trees = jax.tree.map(lambda a: jnp.stack([a, 2 * a, a - 1]), direction())
    for op in (made, made.eigenbasis()):
        found = op.solve(MANY, 0.5)
        for i in (0, -1):
            assert_close(found[:, i], op.solve(MANY[:, i], 0.5), LENGTH)
        assert_close(columns_of(op.solve(trees, 0.5)), op.solve(columns_of(trees), 0.5), LENGTH)


def with_identity(a, scale):
    return a + scale * np.eye(P) if isinstance(a, np.ndarray) else a.damped(scale)


EXPRESSIONS = (
    lambda a, b: a + b,
    lambda a, b: -a,
    lambda a, b: np.float64(0.5) * a - 2 * with_identity(b, 0.1) * jnp.asarray(3.0) + a,
)


@jax.jit
def all_of(operators, v):
    return [(op.dense(), flatten(op.diagonal()), op.trace(), flatten(op @ v)) for op in operators]


def flatten(tree):
    return ravel_pytree(tree)[0]


@pytest.mark.parametrize("made", ["hessian and kfac", "eigenbasis and empirical Fisher"])
def test_the_algebra_of_operators_is_that_of_matrices(float64, made):
    factors = kfac(*at())
    a, b = (hessian(*at()), factors) if made == "hessian and kfac" else (factors.eigenbasis(), empirical_fisher(*at()))
    v = direction()
    found = all_of([make(a, b) for make in EXPRESSIONS], v)
    for make, (matrix, diagonal, trace, product) in zip(EXPRESSIONS, found):
        expected = make(dense(a), dense(b))
        assert_close(matrix, expected, LENGTH)
        assert_close(diagonal, np.diagonal(expected), LENGTH)
        size = np.abs(np.diagonal(expected)).sum()
        assert_close(jnp.stack([trace, size]), [np.trace(expected), size], LENGTH)
        assert_close(product, expected @ flat(v), LENGTH)


def test_a_combination_is_a_pytree_under_jit_vmap_scan_and_while_loop(float64):
    net, params, rows = at()
    combine = EXPRESSIONS[-1]
    op = combine(hessian(net, params, rows), kfac(net, params, rows))
    matrix, few = dense(op), MANY.T[:3]
    leaves, structure = jax.tree.flatten(op)
    assert_close(jax.tree.unflatten(structure, leaves) @ few[0], matrix @ few[0], LENGTH)
    assert structure != jax.tree.structure(combine(ggn(net, params, rows), kfac(net, params, rows)))

    @jax.jit
    def in_every_way(op, few, scales):
        powers = jax.lax.while_loop(
            lambda state: state[2] < 3, lambda state: (state[0], state[0] @ state[1], state[2] + 1), (op, few[0], 0)
        )
        return (
            jax.vmap(op.multiply)(few),
            jax.lax.scan(lambda op, v: (op, op @ v), op, few)[1],
            powers[1],
            jax.vmap(lambda scale: (scale * op).damped(scale) @ few[0])(scales),
            jax.vmap(lambda op, v: op @ v)(jax.tree.map(lambda a: jnp.stack([a, a]), op), few[:2]),
        )

    scales = np.array([0.5, 2.0])
    each, scanned, power, scaled, lanes = in_every_way(op, few, scales)
    assert_close(each, few @ matrix.T, LENGTH)
    assert_close(scanned, few @ matrix.T, LENGTH)
    assert_close(power, np.linalg.matrix_power(matrix, 3) @ few[0], 4 * LENGTH)
    assert_close(scaled, scales[:, None] * (matrix @ few[0] + few[0])[None], LENGTH)
    assert_close(lanes, few[:2] @ matrix.T, LENGTH)


def test_half_precision_is_summed_in_float32():
    half = at(jnp.bfloat16)
    op, v = ggn(*half) + 2 * kfac(*half).damped(0.1), on_device(direction(), jnp.bfloat16)

    def results(op, v):
        sums = (op.diagonal(), op.trace(), op.dense(), lanczos(op, KEY, 2), largest(op, KEY).value)
        return (*sums, hutchinson_trace(op, KEY, 2), hutchinson_diagonal(op, KEY, 2)), (op @ v, solve(op, v, 0.1))

    sums, products = jax.eval_shape(results, op, v)
    assert {leaf.dtype for leaf in jax.tree.leaves(sums)} == {jnp.dtype(jnp.float32)}
    assert {leaf.dtype for leaf in jax.tree.leaves(products)} == {op.dtype} == {jnp.dtype(jnp.bfloat16)}
    assert op.to_scipy().dtype == np.float32


def test_derivatives_pass_through_the_algebra(float64):
    net, params, rows = at()
    v, u = MANY[:, 0], MANY[:, 1]

    @jax.jit
    @partial(jax.grad, argnums=(0, 1))
    def slope(scale, damping):
        return u @ ((scale * hessian(net, params, rows)).damped(damping) @ v)

    assert_close(jnp.stack(slope(2.0, 3.0)), [u @ dense(hessian(net, params, rows)) @ v, u @ v], LENGTH)


def test_an_operator_is_one_of_scipy(float64):
    op = hessian(*at())
    matrix, linear = dense(op), op.to_scipy()
    assert linear.shape == op.shape == (P, P) and linear.dtype == op.dtype == np.float64
    assert_close(linear @ MANY[:, 0], matrix @ MANY[:, 0], LENGTH)
    assert_close(linear @ MANY, matrix @ MANY, LENGTH)
    assert_close(linear.T @ MANY[:, :1], matrix @ MANY[:, :1], LENGTH)
    values, found = scipy.sparse.linalg.eigsh(linear, k=2, which="LA", v0=MANY[:, 0])
    assert_close(values, np.linalg.eigvalsh(matrix)[-2:], LENGTH)
    assert_close(matrix @ found, found * values[None], 100 * LENGTH)


SPECTRA = {
    "a matrix of low rank": (1, 0),
    "an indefinite matrix": (1, -0.1),
    "a negative definite matrix": (-1, -0.1),
    "a multiple of the identity": (0, 2),
    "zero": (0, 0),
}
spectra = pytest.mark.parametrize("weights", SPECTRA.values(), ids=SPECTRA)


@spectra
def test_as_many_steps_as_parameters_give_every_eigenvalue_as_often_as_it_occurs(float64, weights):
    op = mixture(*weights)
    matrix, found = dense(op), lanczos(op, KEY, P)
    size, exact = np.abs(matrix).max(), np.linalg.eigvalsh(matrix)
    small = size * tolerance(np.float64, P)
    np.testing.assert_allclose(found.values, exact, rtol=0, atol=small)
    np.testing.assert_allclose(matrix @ found.vectors, found.vectors * found.values[None], rtol=0, atol=small)
    assert_close(found.vectors.T @ found.vectors, np.eye(P), LENGTH)
    assert (np.abs(found.errors) <= small).all()


@spectra
def test_every_ritz_value_is_the_quotient_of_its_vector_and_as_far_from_an_eigenvalue_as_its_error(float64, weights):
    op, steps = mixture(*weights), STEPS
    matrix, found = dense(op), lanczos(op, KEY, steps)
    v, small = np.asarray(found.vectors), np.abs(matrix).max() * tolerance(np.float64, P)
    assert_close(v.T @ v, np.eye(steps), LENGTH)
    np.testing.assert_allclose(v.T @ matrix @ v, np.diag(found.values), rtol=0, atol=small)
    residuals = np.linalg.norm(matrix @ v - v * found.values[None], axis=0)
    np.testing.assert_allclose(found.errors, residuals, rtol=0, atol=small)
    assert_close(found.weights.sum(), 1.0, steps)


def test_ritz_values_and_weights_are_a_gauss_quadrature_of_the_spectrum(float64):
    """Exact for polynomials of degree 2 steps - 1; the start vector depends on the key alone."""
    op = mixture(1, -0.1)
    exact, few = lanczos(op, KEY, P), lanczos(op, KEY, 3)
    moments = [[float(found.weights @ found.values**degree) for degree in range(7)] for found in (exact, few)]
    np.testing.assert_allclose(moments[1][:6], moments[0][:6], rtol=1e-12)
    assert abs(moments[1][6] / moments[0][6] - 1) > 1e-6, "degree 6 is beyond 3 steps"


def test_spectra_are_found_under_jit_and_vmap_over_keys_and_operators(float64):
    """Where the space of one operator is exhausted, and that of another is not; a NaN stays in its lane."""
    keys, factors = jax.random.split(KEY, 4), np.array([1.0, 0.0, -2.0, np.nan])
    identities = np.array([0.0, 1.0, 0.5, 0.0])

    @jax.jit
    @jax.vmap
    def each(key, factor, identity):
        op = mixture(factor, identity)
        return lanczos(op, key, STEPS).values, largest(op, key, tol=1e-9)

    values, highest = each(keys, factors, identities)
    for i in range(3):
        op = mixture(factors[i], identities[i])
        assert_close(values[i], lanczos(op, keys[i], STEPS).values, P, condition=10)
        assert_close(highest.value[i], np.linalg.eigvalsh(dense(op))[-1], P, condition=10)
    assert np.isnan(values[3]).all() and np.isnan(highest.value[3])
    assert highest.converged.tolist() == [True, True, True, False]


@spectra
def test_the_largest_eigenvalue_is_that_of_the_dense_matrix(float64, weights):
    op = mixture(*weights)
    matrix, exact, found = dense(op), np.linalg.eigvalsh(dense(op)), largest(op, KEY, tol=1e-10)
    size = np.abs(exact).max()
    small = size * tolerance(np.float64, P)
    residual = np.linalg.norm(matrix @ flat(found.vector) - found.value * flat(found.vector))
    np.testing.assert_allclose(found.error, residual, rtol=0, atol=small)
    assert found.converged and found.error <= 1e-10 * size
    np.testing.assert_allclose(found.value, exact[-1], rtol=0, atol=1e-10 * size + small)
    assert jax.tree.structure(found.vector) == jax.tree.structure(direction())
    assert_close(np.linalg.norm(flat(found.vector)), 1.0, P)


def test_a_search_that_restarts_often_finds_the_largest_eigenvalue_and_one_cut_short_says_so(float64):
    """Eigenvalues 1, 1 + 1/239, ..., 2: the gap below the largest is a small part of their range."""
    exact = np.linspace(1, 2, 240)
    net = lr_nn.Network((240, 1), (), lr_nn.losses.squared_error, bias=False)
    op = ggn(net, lr_nn.init(net, KEY, jnp.float64), Batch(np.diag(np.sqrt(240 * exact)), np.zeros(240)))
    found = largest(op, KEY, tol=1e-9)
    assert found.converged and found.steps > 60, "several restarts"
    np.testing.assert_allclose(found.value, 2, rtol=1e-9)
    short = largest(op, KEY, tol=1e-9, max_steps=7)
    assert not short.converged and short.steps == 7
    assert np.abs(exact - float(short.value)).min() <= short.error


@pytest.mark.parametrize("curve", [3.0, 0.0, -2.0])
def test_a_single_parameter_is_its_own_eigenvector(float64, curve):
    net = lr_nn.Network((1, 1), (), lr_nn.losses.squared_error, bias=False)
    op = curve * ggn(net, (Layer(jnp.ones((1, 1)), None),), Batch(np.ones((2, 1)), np.zeros(2)))
    found = largest(op, KEY)
    assert found.value == curve and abs(found.vector[0].w[0, 0]) == 1 and found.error == 0 and found.converged
    assert_close(lanczos(op, KEY, 1).values, [curve])
    assert_close(solve(op.damped(3.0), np.ones(1)), [1 / (curve + 3)])


def test_a_linear_system_is_solved_for_a_tree_a_vector_and_many(float64):
    op, damping = ggn(*at()), 0.25
    matrix = dense(op) + damping * np.eye(P)
    condition = np.linalg.cond(matrix)
    v = direction()
    expected = np.linalg.solve(matrix, MANY)
    found = solve(op, MANY, damping, tol=1e-14)
    assert_close(found, expected, LENGTH, condition=condition)
    assert_close(flat(solve(op, v, damping, tol=1e-14)), np.linalg.solve(matrix, flat(v)), LENGTH, condition=condition)
    assert not np.asarray(solve(op, np.zeros(P), damping)).any()


def test_systems_are_solved_inside_scan_and_while_loop(float64):
    op, strengths, v = ggn(*at()), np.array([0.5, 1.0, 2.0]), MANY[:, 0]
    matrix = np.asarray(op.dense())

    @jax.jit
    def inside(op, v):
        _, each = jax.lax.scan(lambda op, damping: (op, solve(op, v, damping, tol=1e-14)), op, strengths)
        # Inverse iteration, three steps.
        start = (v, 0)
        power, _ = jax.lax.while_loop(
            lambda state: state[1] < 3, lambda state: (solve(op, state[0], 0.5, tol=1e-14), state[1] + 1), start
        )
        return each, power

    each, power = inside(op, v)
    inverses = [np.linalg.inv(matrix + damping * np.eye(P)) for damping in strengths]
    condition = np.linalg.cond(matrix + strengths[0] * np.eye(P))
    assert_close(each, np.stack([inverse @ v for inverse in inverses]), LENGTH, condition=condition)
    assert_close(power, np.linalg.matrix_power(inverses[0], 3) @ v, LENGTH, condition=3 * condition)


def test_a_residual_is_as_small_as_asked_for_at_any_scale_of_the_right_hand_side():
    op = ggn(*at(jnp.float32))
    matrix, v = dense(op) + 0.01 * np.eye(P), MANY[:, 0].astype(np.float32)
    for scale in (1e-30, 1.0, 1e30):
        found = np.asarray(solve(op, np.float32(scale) * v, 0.01, tol=1e-3), np.float64) / scale
        assert 0 < np.linalg.norm(v - matrix @ found) <= 1.1e-3 * np.linalg.norm(v)


def test_kronecker_factors_precondition(float64):
    """On badly scaled inputs; the eigenbasis is the GGN itself for linear regression, so that one step is enough."""
    rng, net, damping = np.random.default_rng(0), lr_nn.linear_regression(30, 2), 1e-3
    params = lr_nn.init(net, KEY, jnp.float64)
    rows = Batch(rng.normal(size=(60, 30)) * np.logspace(0, 3, 30)[None], rng.normal(size=(60, 2)))
    op, made = ggn(net, params, rows), kfac(net, params, rows)
    many = rng.normal(size=(op.shape[0], 2))
    expected = np.linalg.solve(dense(op) + damping * np.eye(op.shape[0]), many)
    size = np.abs(expected).max()
    for precondition, steps in ((made, 20), (made.eigenbasis(), 1)):
        found = solve(op, many, damping, max_steps=steps, precondition=precondition)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * size)
    assert np.isnan(solve(op, many, damping, max_steps=100)).all()


def test_a_system_that_is_not_solved_is_nan(float64):
    indefinite, singular = hessian(*at()), ggn(*at())
    assert np.linalg.eigvalsh(dense(indefinite))[0] < -0.01
    assert np.isnan(solve(indefinite, MANY[:, 0])).all(), "a direction of negative curvature"
    assert np.isnan(solve(singular, MANY[:, 0], max_steps=50)).all(), "v is not in the range"
    assert np.isnan(solve(singular, MANY[:, 0], 0.1, tol=1e-12, max_steps=3)).all(), "too few steps"
    inside = np.asarray(singular @ MANY[:, 0])
    assert_close(singular @ solve(singular, inside, tol=1e-12), inside, LENGTH, condition=1e4)
    both = solve(singular, np.stack([inside, MANY[:, 0], np.full(P, np.nan)], axis=1), tol=1e-12)
    assert np.isfinite(both).all(axis=0).tolist() == [True, False, False], "each vector by itself"


def implicit(params, strength, damping, v, precondition=None):
    op = ggn(NET, params, batch(CASE, weighted=True), lr_nn.Penalty(0.0, strength))
    found = solve(op, v, damping, tol=1e-15, precondition=precondition)
    return jnp.sin(found).sum()


def direct(params, strength, damping, v):
    op = ggn(NET, params, batch(CASE, weighted=True), lr_nn.Penalty(0.0, strength))
    return jnp.sin(jnp.linalg.solve(op.dense() + damping * jnp.eye(P), v)).sum()


POINT = (0.5, 0.5, MANY[:, 0])
ALL = (0, 1, 2, 3)


def test_the_derivative_of_a_solution_is_that_of_the_dense_matrix(float64):
    """Hyper-gradients by implicit differentiation: by the parameters of A, a penalty's strength, λ and v."""
    params = at()[1]
    values, reference = jax.jit(jax.grad(implicit, ALL))(params, *POINT), jax.jit(jax.grad(direct, ALL))(params, *POINT)
    for got, expected in zip(jax.tree.leaves(values), jax.tree.leaves(reference)):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())
    preconditioned = jax.jit(jax.grad(implicit, ALL))(params, *POINT, kfac(*at()))
    for got, expected in zip(jax.tree.leaves(preconditioned), jax.tree.leaves(reference)):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())


def test_second_and_forward_derivatives_of_a_solution_are_right_too(float64):
    params = at()[1]

    def both(function):
        along = partial(function, params)
        bend = jax.grad(jax.grad(along, argnums=1), argnums=(0, 1))(*POINT)
        return (*bend, jax.jvp(along, POINT, (1.0, 2.0, MANY[:, 1]))[1])

    got, expected = jax.jit(lambda: both(implicit))(), jax.jit(lambda: both(direct))()
    np.testing.assert_allclose(got, expected, rtol=1e-11)


def test_random_signs_give_trace_and_diagonal_of_a_diagonal_matrix_exactly(float64):
    op = of_penalty(3.0)
    assert_close(hutchinson_trace(op, KEY, 1), 3 * sum(w.size for w, _ in direction()), P)
    assert_close(flat(hutchinson_diagonal(op, KEY, 1)), np.diagonal(dense(op)), P)


@pytest.mark.parametrize("samples", [2, vectors.BLOCK + 1])
def test_estimates_of_trace_and_diagonal_are_unbiased_with_the_stated_variance(float64, samples):
    op, keys = ggn(*at()), jax.random.split(KEY, 400)
    matrix = dense(op)

    @jax.jit
    @jax.vmap
    def draw(key):
        return hutchinson_trace(op, key, samples), flatten(hutchinson_diagonal(op, key, samples))

    traces, diagonals = draw(keys)
    assert_mean_close(traces[:, None], [np.trace(matrix)])
    assert_mean_close(diagonals, np.diagonal(matrix))
    off = np.square(matrix - np.diag(np.diagonal(matrix)))
    np.testing.assert_allclose(traces.var(), 2 * off.sum() / samples, rtol=0.4)
    np.testing.assert_allclose(diagonals.var(axis=0).sum(), off.sum() / samples, rtol=0.4)


OP, FACTORS = (make(*at(jnp.float32)) for make in (ggn, kfac))
V32 = np.ones(P, np.float32)
REFUSALS = {
    "operators of two networks": (
        lambda: OP + ggn(*at(jnp.float32, OTHER)),
        ValueError,
        r"same layers; got sizes \(4, 5, 3\) with bias=True and sizes \(4, 3\) with bias=True",
    ),
    "a number added": (lambda: OP + 1.0, TypeError, "unsupported operand"),
    "an array subtracted": (lambda: OP - np.eye(P), TypeError, "does not support ufuncs"),
    "a product of operators": (
        lambda: OP * OP,
        TypeError,
        "the factor of an operator must be an array of real numbers",
    ),
    "an operator as a vector": (lambda: OP @ OP, TypeError, "^v must be an array of real numbers; got a GaussNewton"),
    "an array of factors": (lambda: np.ones(3) * OP, ValueError, "the factor of an operator must be a single number"),
    "an infinite factor": (lambda: OP * np.inf, ValueError, "the factor of an operator must be finite"),
    "a damping that is NaN": (lambda: OP.damped(np.nan), ValueError, "damping must be finite"),
    "a traced operator for SciPy": (
        lambda: jax.jit(lambda op: op.to_scipy() and 0)(OP),
        TypeError,
        "to_scipy runs on the host and cannot be traced; under jit or vmap call op @ v",
    ),
    "lanczos of a matrix": (lambda: lanczos(np.eye(P), KEY, 3), TypeError, "op must be an operator, such as.*ndarray"),
    "too many steps": (
        lambda: lanczos(OP, KEY, P + 1),
        ValueError,
        "steps must be at most the number of param",
    ),
    "no steps": (lambda: lanczos(OP, KEY, 0), ValueError, "steps must be at least 1"),
    "largest of a matrix": (lambda: largest(np.eye(P), KEY), TypeError, "op must be an operator"),
    "a tolerance of zero": (lambda: largest(OP, KEY, tol=0), ValueError, "tol must be positive"),
    "half a step": (lambda: largest(OP, KEY, max_steps=0.5), TypeError, "max_steps must be an integer"),
    "a system with a matrix": (lambda: solve(np.eye(P), V32), TypeError, "op must be an operator"),
    "a right-hand side of another length": (lambda: solve(OP, V32[1:]), ValueError, "^v must be like params, or flat"),
    "a negative damping": (lambda: solve(OP, V32, -1.0), ValueError, "damping must be finite and not negative"),
    "no damping of a preconditioner": (
        lambda: solve(OP, V32, precondition=FACTORS),
        ValueError,
        "damping must be positive where there is a precondition",
    ),
    "a preconditioner without a solve": (
        lambda: solve(OP, V32, 0.1, precondition=OP),
        TypeError,
        "precondition must be an operator with a solve, such as.*got GaussNewton",
    ),
    "a preconditioner of another network": (
        lambda: solve(OP, V32, 0.1, precondition=kfac(*at(jnp.float32, OTHER))),
        ValueError,
        "same layers",
    ),
    "the trace of a matrix": (lambda: hutchinson_trace(np.eye(P), KEY, 3), TypeError, "op must be an operator"),
    "the diagonal without samples": (lambda: hutchinson_diagonal(OP, KEY, 0), ValueError, "samples must be at least 1"),
}


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS.values(), ids=REFUSALS)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_numbers_of_numpy_and_jax_multiply_from_both_sides(float64):
    op = ggn(*at())
    for factor in (2, 2.0, np.float32(2), np.float64(2), np.array(2.0), jnp.asarray(2.0), np.int64(2)):
        for product in (factor * op, op * factor):
            assert isinstance(product, type(2 * op)) and product.factor == 2
        assert (op / factor).factor == 0.5
