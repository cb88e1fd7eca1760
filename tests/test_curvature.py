"""Gauss-Newton, Hessian, empirical Fisher and tangent kernel against Jacobians and Hessians made by autodiff."""

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
from lr_nn.curvature import empirical_fisher, ggn, hessian, operators
from lr_nn.penalties import elastic_net
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


@pytest.mark.parametrize("loss", LOSSES)
def test_diagonal_and_trace_of_the_hessian_of_one_layer_are_those_of_autodiff(float64, loss):
    case = network(loss, depth=1)
    params, rows, _, at = setting(case)
    expected = np.diagonal(hessian_by_autodiff(case, jax.tree.map(np.asarray, params), rows))
    assert_close(flat(hessian(*at).diagonal()), expected, LENGTH)
    scale = np.abs(expected).sum()
    assert_close(jnp.stack([hessian(*at).trace(), scale]), [expected.sum(), scale], LENGTH)


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


MAKERS = pytest.mark.parametrize("make", [ggn, hessian, empirical_fisher], ids=lambda make: make.__name__)
ONE, TWO = NETWORKS["squared_error, 1 layer"], NETWORKS["bernoulli, sigmoid, 2 layers"]


@MAKERS
def test_a_penalty_adds_its_l2_to_the_diagonal_of_the_weights(float64, make):
    *_, at = setting(ONE)
    plain, penalised = make(*at), make(*at, elastic_net(0.5, 0.25))
    ridge = flat((Layer(np.full((4, 3), 0.375), np.zeros(3)),))
    assert_close(penalised.dense(), np.asarray(plain.dense()) + np.diag(ridge), LENGTH)
    assert_close(flat(penalised.diagonal()), flat(plain.diagonal()) + ridge, LENGTH)
    assert_close(penalised.trace(), float(plain.trace()) + ridge.sum(), LENGTH)
    assert_close(penalised.traces(), plain.traces(), LENGTH)
    v = direction(ONE)
    assert_close(flat(penalised @ on_device(v)), flat(plain @ on_device(v)) + ridge * flat(v), LENGTH)


def test_the_hessian_with_a_penalty_is_that_of_the_cost(float64):
    params, rows, _, at = setting(TWO)
    penalty, (start, unravel) = lr_nn.penalties.l2(0.3), ravel_pytree(params)
    expected = jax.jit(jax.hessian(lambda p: lr_nn.cost(TWO.net, unravel(p), rows, penalty)))(start)
    assert_close(hessian(*at, penalty).dense(), expected, LENGTH)


@MAKERS
def test_a_flat_vector_has_the_order_of_ravel_pytree_and_gives_a_flat_one(float64, make):
    *_, at = setting(TWO)
    op, v = make(*at, elastic_net(0.5, 0.25)), direction(TWO)
    tree, vector = op @ on_device(v), op @ flat(v)
    assert vector.shape == (lr_nn.n_parameters(TWO.net),)
    assert_close(vector, flat(tree), LENGTH)
    assert_close(vector, np.asarray(op.dense()) @ flat(v), LENGTH)
    assert_close(op.multiply(flat(v)), vector)


@MAKERS
def test_an_operator_is_a_pytree_under_jit_vmap_scan_and_while_loop(float64, make):
    params, rows, _, at = setting(TWO)
    op, dense = make(*at), np.asarray(make(*at).dense())
    vectors = np.stack([flat(parameters(TWO.net, seed=seed)) for seed in (7, 8, 9)])
    leaves, structure = jax.tree.flatten(op)
    assert_close(jax.tree.unflatten(structure, leaves) @ vectors[0], dense @ vectors[0], LENGTH)

    @jax.jit
    def in_every_way(op, vectors):
        stacked = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), params)
        many = jax.vmap(lambda p: make(TWO.net, p, rows))(stacked)
        power = jax.lax.while_loop(
            lambda state: state[1] < 3, lambda state: (op @ state[0], state[1] + 1), (vectors[0], 0)
        )
        return (
            jax.vmap(op.multiply)(vectors),
            jax.lax.scan(lambda op, v: (op, op @ v), op, vectors)[1],
            power[0],
            jax.vmap(lambda op, v: op @ v)(many, vectors[:2]),
        )

    each, scanned, power, lanes = in_every_way(op, vectors)
    assert_close(each, vectors @ dense.T, LENGTH)
    assert_close(scanned, vectors @ dense.T, LENGTH)
    assert_close(power, np.linalg.matrix_power(dense, 3) @ vectors[0], 4 * LENGTH)
    assert_close(lanes[0], dense @ vectors[0], LENGTH)
    doubled = make(TWO.net, jax.tree.map(lambda a: 2 * a, params), rows)
    assert_close(lanes[1], doubled @ vectors[1], LENGTH)


def test_one_call_is_one_program():
    *_, at = setting(TWO)
    at = (at[0], on_device(at[1], jnp.float32), at[2])
    v, key, compiled = np.ones(lr_nn.n_parameters(TWO.net), np.float32), jax.random.key(0), []
    # An event of JAX for every program that is built, from the persistent cache or not.
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if event.endswith("backend_compile_duration") else None
    )
    jax.clear_caches()

    def programs(function):
        before = len(compiled)
        found = function()
        return len(compiled) - before, found

    counts = {}
    for make in (ggn, hessian, empirical_fisher):
        counts[make.__name__], op = programs(lambda make=make: make(*at))
        counts[make.__name__ + " @"], _ = programs(lambda op=op: op @ v)
    counts["kfac"], found = programs(lambda: curvature.kfac(*at, kind="sampled", key=key))
    counts["solve"], _ = programs(lambda: found.solve(v, 0.1))
    counts["ntk"], _ = programs(lambda: curvature.ntk(at[0], at[1], at[2].x))
    # The three operators share the program of their pass.
    shared = ("hessian", "empirical_fisher")
    assert counts == {name: int(name not in shared) for name in counts}


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
    op = ggn(TWO.net, on_device(parameters(TWO.net), jnp.float32), batch(TWO))
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


@MAKERS
def test_a_dense_matrix_is_refused_above_its_limit(monkeypatch, make):
    op, p = make(ONE.net, on_device(parameters(ONE.net), jnp.float32), batch(ONE)), lr_nn.n_parameters(ONE.net)
    monkeypatch.setattr(operators, "MOST_PARAMETERS", p)
    assert op.dense().shape == (p, p)
    monkeypatch.setattr(operators, "MOST_PARAMETERS", p - 1)
    with pytest.raises(ValueError, match=rf"{p} parameters exceeds the limit of {p - 1}; use op @ v"):
        op.dense()


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


def moments_and_products(net, params, rows, v):
    """Diagonals and traces, which are kept in the dtype of sums, and products, in the dtypes of the parameters."""
    g, h, e = (make(net, params, rows, elastic_net(0.5, 0.25)) for make in (ggn, hessian, empirical_fisher))
    return (g.diagonal(), e.diagonal(), g.trace(), g.traces()), tuple(op @ v for op in (g, h, e))


compiled_moments_and_products = jax.jit(moments_and_products)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bfloat16", "float16"])
def test_half_precision_keeps_diagonals_in_float32_and_products_in_its_own_dtype(dtype):
    params, rows = on_device(parameters(TWO.net, np.float16), dtype), batch(TWO, dtype=np.float16, weighted=True)
    wide = on_device(params, jnp.float32)
    got, halves = compiled_moments_and_products(TWO.net, params, rows, params)
    expected = compiled_moments_and_products(TWO.net, wide, rows, wide)
    assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype(jnp.float32)}
    assert {leaf.dtype for leaf in jax.tree.leaves(halves)} == {jnp.dtype(dtype)}
    assert_trees_close((got, halves), expected, LENGTH, dtype)


def test_layers_of_mixed_dtypes_give_products_in_the_dtype_of_each_parameter(float64):
    dtypes = [jnp.bfloat16, jnp.float32, jnp.float64]
    case = NETWORKS["squared_error of sigmoid, softplus, 3 layers"]
    exact = parameters(case.net, np.float16)
    params = tuple(on_device(layer, dtype) for layer, dtype in zip(exact, dtypes))
    rows = batch(case, dtype=np.float16, weighted=True)
    got = compiled_moments_and_products(case.net, params, rows, params)
    assert all([leaf.dtype for leaf in layer] == [dtype, dtype] for op in got[1] for layer, dtype in zip(op, dtypes))
    wide = on_device(exact, jnp.float64)
    assert_trees_close(got, compiled_moments_and_products(case.net, wide, rows, wide), LENGTH, jnp.bfloat16)
    op = ggn(case.net, params, rows)
    assert_close(op @ flat(exact), flat(jax.tree.map(lambda a: a.astype(jnp.float64), op @ params)), 1, jnp.bfloat16)
    assert op.dense().dtype == jnp.float64
    kernels = [curvature.ntk_trace(case.net, some, rows.x) for some in (params, wide)]
    assert_close(*kernels, LENGTH, jnp.bfloat16)
    made = curvature.kfac(case.net, params, rows, kind="empirical")
    solved = made.solve(params, 0.5)
    assert [layer.w.dtype for layer in solved] == dtypes
    expected = curvature.kfac(case.net, wide, rows, kind="empirical").solve(wide, 0.5)
    assert_trees_close(solved, expected, 100 * LENGTH, jnp.bfloat16)


def test_what_overflows_in_half_precision_is_finite_where_it_is_kept_in_float32():
    case = network("squared_error", "relu", depth=2)
    params, rows = on_device(parameters(case.net), jnp.float16), batch(case)
    rows = rows._replace(x=200 * rows.x, y=200 * rows.y)
    bp, v = lr_nn.backprop(case.net, params, rows), jax.tree.map(jnp.ones_like, params)
    wide, ones = (jax.tree.map(lambda a: a.astype(jnp.float32), tree) for tree in ((params, bp), v))
    got = curvature.ntk_trace(case.net, params, rows.x), per_example.gram(bp)
    assert max(float(kernel.max()) for kernel in got) > float(jnp.finfo(jnp.float16).max)
    expected = curvature.ntk_trace(case.net, wide[0], rows.x), per_example.gram(wide[1])
    assert_trees_close(got, expected, 300, jnp.float16)
    along = per_example.inner_products(bp, v)
    assert along.dtype == jnp.float32
    assert_close(along, per_example.inner_products(wide[1], ones), LENGTH)


def everything(net, params, batch, v):
    """All of the room; no eigenvectors, whose signs are free."""
    key, found = jax.random.key(0), {}
    for make in (ggn, hessian, empirical_fisher):
        op = make(net, params, batch, elastic_net(0.5, 0.25))
        found[make.__name__] = (op @ v, op @ ravel_pytree(v)[0], op.dense())
        if make is not hessian or len(params) == 1:
            found[make.__name__] += (op.diagonal(), op.trace())
    found["sampled diagonal"] = ggn(net, params, batch).sampled_diagonal(key, samples=2)
    for kind in ("exact", "sampled", "empirical"):
        made = curvature.kfac(net, params, batch, kind=kind, key=key, samples=2)
        basis = made.eigenbasis()
        found[kind] = (made.factors, made @ v, made.solve(v, 0.5), made.logdet(0.5), made.sample(key, 0.5))
        found[kind] += (made.diagonal(), made.trace(), basis @ v, basis.solve(v, 0.5), basis.diagonal(), basis.trace())
    return found


compiled_everything = jax.jit(everything)


def test_integer_weights_are_duplicated_rows_and_a_common_factor_changes_nothing(float64):
    """Of what is not drawn: other rows get other draws."""
    params, rows, v = on_device(parameters(TWO.net)), batch(TWO), on_device(direction(TWO))
    counts = np.array([2.0, 0, 1, 3, 0, 1, 0])
    assert counts.sum() == N, "as many rows as before: one compiled shape"
    order = np.repeat(range(N), counts.astype(int))
    repeated = Batch(rows.x[order], rows.y[order], np.ones(N))
    got, thrice, expected = (
        compiled_everything(TWO.net, params, some, v)
        for some in (rows._replace(weight=counts), rows._replace(weight=3 * counts), repeated)
    )
    assert_trees_close(thrice, got, LENGTH)
    for found in (got, expected):
        del found["sampled"], found["sampled diagonal"]
    assert_trees_close(got, expected, 10 * LENGTH)


def test_a_row_of_weight_zero_adds_nothing_even_where_its_loss_is_infinite(float64):
    """exp(1000) overflows: the loss, the error and every curvature of the last row are infinite."""
    net, v = lr_nn.poisson_regression(2), np.ones(3)
    params = (Layer(jnp.ones((2, 1)), jnp.zeros(1)),)
    rows = Batch(np.array([[1.0, 0.0], [0.5, 1.0], [1000.0, 0.0]]), np.array([1.0, 0, 1]), np.array([1.0, 1.0, 0.0]))
    assert np.isinf(lr_nn.backprop(net, params, rows).deltas[0][2, 0])
    v = (Layer(jnp.ones((2, 1)), jnp.ones(1)),)
    got, expected = (everything(net, params, some, v) for some in (rows, jax.tree.map(lambda a: a[:2], rows)))
    for found in (got, expected):
        del found["sampled"], found["sampled diagonal"]
    assert_trees_close(got, expected, LENGTH)


def test_weights_that_are_all_zero_are_refused_and_finite_where_they_are_traced(float64):
    params, rows, v = on_device(parameters(TWO.net)), batch(TWO), on_device(direction(TWO))
    nothing = rows._replace(weight=np.zeros(N))
    for make in (ggn, hessian, empirical_fisher, curvature.kfac):
        with pytest.raises(ValueError, match="weight is zero for every example"):
            make(TWO.net, params, nothing)
    found = compiled_everything(TWO.net, params, nothing, v)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_the_derivative_by_a_weight_that_is_zero_is_that_by_autodiff(float64):
    """∂/∂s_i of Σ s_i q_i / Σ s_i is (q_i - mean) / Σ s_i, at s_i = 0 too."""
    params, rows, v = on_device(parameters(TWO.net)), batch(TWO), flat(direction(TWO))
    weight = np.arange(N) * 1.0

    def quadratics(weight):
        some = rows._replace(weight=weight)
        forms = [v @ (make(TWO.net, params, some) @ v) for make in (ggn, hessian, empirical_fisher)]
        factor = curvature.kfac(TWO.net, params, some, kind="empirical").factors[-1]
        return jnp.stack([*forms, ggn(TWO.net, params, some).trace(), factor.g[0, 0], factor.a[1, 2]])

    both = jax.jit(lambda weight: (quadratics(weight), jax.jacrev(quadratics)(weight)))
    mean, got = both(weight)
    single = np.stack([both(unit)[0] for unit in np.eye(N)], axis=1)
    assert_close(got, (single - np.asarray(mean)[:, None]) / weight.sum(), LENGTH)


@pytest.mark.parametrize("axis", [jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit], ids=str)
def test_rows_over_a_mesh_give_the_same_under_jit(axis):
    net = lr_nn.mlp((4, 5, 3), loss=lr_nn.losses.categorical)
    params = on_device(parameters(net), jnp.float32)
    rows = on_device(batch(network("categorical", depth=2), n=16, weighted=True), jnp.float32)
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(axis,))
    spread = jax.device_put(rows, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows")))

    @jax.jit
    def all_of(params, batch):
        kernels = [curvature.ntk(net, params, batch.x), curvature.ntk_trace(net, params, batch.x, batch.x[::2])]
        return everything(net, params, batch, params), kernels

    assert_trees_close(all_of(params, spread), jax.device_get(all_of(params, rows)), 10 * LENGTH)


V = on_device(parameters(TWO.net), np.float32)


def small(make=ggn, case=TWO, **changes):
    rows = batch(case)._replace(**changes)
    return make(case.net, on_device(parameters(case.net), np.float32), rows)


def kernel(x, other=None):
    return curvature.ntk(TWO.net, V, x, other)


SHALLOW, DEEP = network("bernoulli", depth=1), network("bernoulli", depth=3)
REFUSALS = {
    "v with too few layers": (lambda: small() @ V[:1], ValueError, r"^v does not fit the network: expected shapes"),
    "v of another network": (
        lambda: small(hessian) @ on_device(parameters(DEEP.net), np.float32),
        ValueError,
        r"^v does not fit the network",
    ),
    "v a layer": (lambda: small() @ V[0], TypeError, r"^v must be a tuple of Layer\(w, b\)"),
    "v a batch": (lambda: small() @ batch(TWO), TypeError, r"^v must be a tuple of Layer\(w, b\).*got Batch"),
    "v of integers": (
        lambda: small() @ jax.tree.map(lambda a: a.astype(int), V),
        TypeError,
        "^v must be of a floating",
    ),
    "v too short": (lambda: small() @ jnp.ones(42), ValueError, r"^v must be like params, or flat.*\(43,\).*\(42,\)"),
    "many vectors": (lambda: small() @ jnp.ones((43, 2)), ValueError, "^v must be .*use jax.vmap for many vectors"),
    "v text": (lambda: small() @ np.array(["a"]), TypeError, "^v must be an array of real numbers"),
    "a pass in place of a batch": (
        lambda: ggn(TWO.net, V, lr_nn.backprop(TWO.net, V, batch(TWO))),
        TypeError,
        "data must be a Batch.*got Backprop",
    ),
    "a weight in place of the penalty": (
        lambda: ggn(TWO.net, V, batch(TWO), np.ones(N)),
        TypeError,
        "penalty must be a Penalty",
    ),
    "parameters of another network": (
        lambda: hessian(SHALLOW.net, V, batch(TWO)),
        ValueError,
        "^params do not fit the network",
    ),
    "the diagonal of the Hessian of a deep network": (
        lambda: small(hessian).diagonal(),
        ValueError,
        r"one layer; use \.dense\(\)",
    ),
    "no samples": (
        lambda: small().sampled_diagonal(jax.random.key(0), samples=0),
        ValueError,
        "samples must be at least 1; got 0",
    ),
    "half a sample": (
        lambda: small().sampled_diagonal(jax.random.key(0), samples=0.5),
        TypeError,
        "samples must be an integer; got 0.5",
    ),
    "a seed in place of the key": (lambda: small().sampled_diagonal(0), TypeError, "key must be a random key.*got 0"),
    "weight too short": (lambda: small(weight=np.ones(3)), ValueError, r"weight.*\(7,\).*got \(3,\)"),
    "a pass in place of x": (
        lambda: kernel(lr_nn.backprop(TWO.net, V, batch(TWO))),
        TypeError,
        r"^x must be an array.*got a Backprop.*bp\.activations\[0\]",
    ),
    "a batch in place of x": (lambda: kernel(batch(TWO)), TypeError, r"^x must be an array.*got a Batch.*batch\.x"),
    "a batch in place of the other x": (
        lambda: kernel(batch(TWO).x, batch(TWO)),
        TypeError,
        r"^other must be an array.*got a Batch",
    ),
    "other inputs of another width": (
        lambda: kernel(batch(TWO).x, np.ones((2, 3))),
        ValueError,
        r"^other must have shape \(n, 4\); got \(2, 3\)",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS.values(), ids=REFUSALS)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
