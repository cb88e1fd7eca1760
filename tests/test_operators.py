"""Operators of curvature as values: pytrees, kinds of vectors, penalties, weights, precision, meshes, mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import NETWORKS, N, batch, network, on_device, parameters
from jax.flatten_util import ravel_pytree
from tolerances import assert_close, assert_trees_close

import lr_nn
from lr_nn import curvature, per_example
from lr_nn.curvature import empirical_fisher, ggn, hessian, operators
from lr_nn.penalties import elastic_net
from lr_nn.types import Batch, Layer

LENGTH = 30


def setting(case):
    """Parameters, weighted rows, and network, parameters and rows as the arguments of every function."""
    params, rows = on_device(parameters(case.net)), batch(case, weighted=True, offset=True)
    return params, rows, (case.net, params, rows)


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0])


def direction(case):
    return parameters(case.net, seed=7)


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
    params, rows, at = setting(TWO)
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
    params, rows, at = setting(TWO)
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


def test_operators_of_one_pass_have_distinct_structures():
    """Else `jit` may run the program of one for another: structures are the keys of its cache."""
    *_, at = setting(TWO)
    structures = [jax.tree.structure(make(*at)) for make in (ggn, hessian, empirical_fisher, ggn)]
    assert [one == other for one in structures[:1] for other in structures] == [True, False, False, True]
    assert structures[1] != structures[2]


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
    many = np.ones((len(v), 2), np.float32)
    counts["many vectors"], _ = programs(lambda: found @ many)
    combined = 2 * ggn(*at) - found.damped(0.1)
    counts["combination @"], _ = programs(lambda: combined @ v)
    counts["diagonal"], _ = programs(combined.diagonal)
    counts["lanczos"], _ = programs(lambda: curvature.lanczos(combined, key, 3))
    counts["largest"], _ = programs(lambda: curvature.largest(combined, key, tol=1e-3))
    counts["system"], _ = programs(lambda: curvature.solve(combined, v, 0.1, max_steps=10, precondition=found))
    counts["another system"], _ = programs(
        lambda: curvature.solve(combined, v, 0.2, tol=1e-3, max_steps=9, precondition=found)
    )
    counts["hutchinson"], _ = programs(lambda: curvature.hutchinson_trace(combined, key, 3))
    counts["ntk"], _ = programs(lambda: curvature.ntk(at[0], at[1], at[2].x))
    # The three operators share the program of their pass; settings of a solve are arguments of its program.
    shared = ("hessian", "empirical_fisher", "another system")
    assert counts == {name: int(name not in shared) for name in counts}


@MAKERS
def test_an_operator_holds_one_pass(make):
    """Its compiled memory is that of the pass and the parameters: nothing of size n × p, and no second pass."""
    net, n = lr_nn.mlp((20, 64, 64, 3)), 512
    params = jax.eval_shape(lambda: lr_nn.init(net, jax.random.key(0)))
    rows = Batch(*(jax.ShapeDtypeStruct((n, width), jnp.float32) for width in (20, 3)))

    def memory(function):
        found = jax.jit(function).lower(params, rows).compile().memory_analysis()
        return found.output_size_in_bytes, found.temp_size_in_bytes

    pass_size, pass_temporary = memory(lambda params, rows: (params, lr_nn.backprop(net, params, rows)))
    for combine in (lambda op: op, lambda op: (0.5 * op).damped(0.1)):
        size, temporary = memory(lambda params, rows, combine=combine: combine(make(net, params, rows)))
        assert pass_size <= size <= 1.001 * pass_size and temporary <= pass_temporary + 1024


@MAKERS
def test_a_dense_matrix_is_refused_above_its_limit(monkeypatch, make):
    op, p = make(ONE.net, on_device(parameters(ONE.net), jnp.float32), batch(ONE)), lr_nn.n_parameters(ONE.net)
    monkeypatch.setattr(operators, "MOST_PARAMETERS", p)
    assert op.dense().shape == (p, p)
    monkeypatch.setattr(operators, "MOST_PARAMETERS", p - 1)
    with pytest.raises(ValueError, match=rf"{p} parameters exceeds the limit of {p - 1}; use op @ v"):
        op.dense()


def moments_and_products(net, params, rows, v):
    """Diagonals and traces, which are kept in the dtype of sums, and products, in the dtypes of the parameters."""
    g, h, e = (make(net, params, rows, elastic_net(0.5, 0.25)) for make in (ggn, hessian, empirical_fisher))
    moments = *(op.diagonal() for op in (g, h, e)), g.trace(), h.trace(), g.traces()
    return moments, tuple(op @ v for op in (g, h, e))


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
    """All that is a mean over examples; no eigenvectors, whose signs are free."""
    found = {}
    for make in (ggn, hessian, empirical_fisher):
        op = make(net, params, batch, elastic_net(0.5, 0.25))
        found[make.__name__] = (op @ v, op.diagonal(), op.trace())
    for kind in ("exact", "empirical"):
        made = curvature.kfac(net, params, batch, kind=kind)
        found[kind] = (made.factors, made.eigenbasis() @ v)
    return found


compiled_everything = jax.jit(everything)


def test_integer_weights_are_duplicated_rows_and_a_common_factor_changes_nothing(float64):
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
    assert_trees_close(got, expected, 10 * LENGTH)


def test_a_row_of_weight_zero_adds_nothing_even_where_its_loss_is_infinite(float64):
    """exp(1000) overflows: the loss, the error and every curvature of the last row are infinite."""
    net = lr_nn.poisson_regression(2)
    params = (Layer(jnp.ones((2, 1)), jnp.zeros(1)),)
    rows = Batch(np.array([[1.0, 0.0], [0.5, 1.0], [1000.0, 0.0]]), np.array([1.0, 0, 1]), np.array([1.0, 1.0, 0.0]))
    assert np.isinf(lr_nn.backprop(net, params, rows).deltas[0][2, 0])
    finite = rows._replace(x=np.array([[1.0, 0.0], [0.5, 1.0], [0.0, 0.0]]))
    got, expected = (compiled_everything(net, params, some, params) for some in (rows, finite))
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
        """What `everything` leaves out, too: each form of a product over rows that lie on several devices."""
        op, made = ggn(net, params, batch), curvature.kfac(net, params, batch, kind="sampled", key=jax.random.key(0))
        kernels = [curvature.ntk(net, params, batch.x), curvature.ntk_trace(net, params, batch.x, batch.x[::2])]
        drawn = [op.sampled_diagonal(jax.random.key(0), samples=2)]
        solved = curvature.solve(op, params, 0.1, precondition=made)
        spectra = curvature.lanczos(op, jax.random.key(0), 4).values, curvature.largest(op, jax.random.key(0)).value
        traces = op.trace(), curvature.hutchinson_trace(op, jax.random.key(0), 3)
        drawn += [solved, spectra, traces]
        return everything(net, params, batch, params), op.dense(), drawn, made.factors, kernels

    assert_trees_close(all_of(params, spread), jax.device_get(all_of(params, rows)), 10 * LENGTH)


V = on_device(parameters(TWO.net), np.float32)


def small(make=ggn, case=TWO, **changes):
    rows = batch(case)._replace(**changes)
    return make(case.net, on_device(parameters(case.net), np.float32), rows)


def stacked(m):
    return jax.tree.map(lambda a: jnp.stack([a] * m), V)


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
    "vectors in rows": (lambda: small() @ jnp.ones((2, 43)), ValueError, r"must be its columns: pass v\.T, \(43, m\)"),
    "no vectors": (lambda: small() @ jnp.ones((43, 0)), ValueError, r"^v must be like params, or.*got shape \(43, 0\)"),
    "vectors of vectors": (lambda: small() @ jnp.ones((43, 2, 2)), ValueError, r"^v must be .*got shape \(43, 2, 2\)"),
    "trees of unequal numbers": (
        lambda: small() @ (stacked(2)[0], stacked(3)[1]),
        ValueError,
        r"^v must have one leading axis, of the same length m >= 1, on every leaf.*\(2, 4, 5\)",
    ),
    "trees of another network": (lambda: small() @ stacked(2)[:1], ValueError, "^each v does not fit the network"),
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
