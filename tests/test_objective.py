"""The cost and its gradient: weights, offsets, blocks, penalties, and the transformations of JAX around them."""

from functools import partial
from itertools import cycle, islice

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from cases import ACTIVATIONS, LOSSES, NETWORKS, N, batch, network, on_device, parameters
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from tolerances import assert_close, assert_trees_close

import lr_nn
from lr_nn import activations, losses, objective, penalties, per_example
from lr_nn.types import Batch, Layer

LENGTH = 20
compiled = jax.jit(lr_nn.value_and_gradient, static_argnums=4)
eight_devices = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
# Every activation, and every loss.
PAIRS = max(len(LOSSES), len(ACTIVATIONS))
LOSSES_AND_ACTIVATIONS = list(zip(islice(cycle(LOSSES), PAIRS), islice(cycle(ACTIVATIONS), PAIRS)))
networks = pytest.mark.parametrize("case", NETWORKS.values(), ids=NETWORKS)

shallow_and_deep = pytest.mark.parametrize(
    "case", [NETWORKS["squared_error, 1 layer"], NETWORKS["categorical, relu, 3 layers"]], ids=["shallow", "deep"]
)


def cut(rows, index):
    return Batch(*(None if a is None else a[index] for a in rows))


def inputs(case, dtype=np.float64, **keywords):
    return on_device(parameters(case.net), dtype), batch(case, dtype=dtype, **keywords)


@networks
def test_the_penalised_cost_and_its_gradient_are_those_of_autodiff(float64, case):
    params, rows = inputs(case, weighted=True, offset=True)
    value, gradient = lr_nn.value_and_gradient(case.net, params, rows, lr_nn.Penalty(l1=0.3, l2=0.2))
    expected, expected_gradient = reference.value_and_gradient(case, params, rows, 0.3, 0.2)
    assert value.shape == ()
    assert_close(value, expected, LENGTH)
    assert_close(lr_nn.cost(case.net, params, rows, lr_nn.Penalty(l1=0.3, l2=0.2)), expected, LENGTH)
    assert_trees_close(gradient, expected_gradient, LENGTH)


@pytest.mark.parametrize(("loss", "activation"), LOSSES_AND_ACTIVATIONS)
def test_autodiff_of_the_cost_agrees_with_the_gradient_by_hand(float64, loss, activation):
    case = network(loss, activation, depth=2)
    params, rows = inputs(case, weighted=True)
    autodiff = jax.grad(lambda p: lr_nn.cost(case.net, p, rows, penalties.l2(0.1)))(params)
    by_hand = lr_nn.value_and_gradient(case.net, params, rows, penalties.l2(0.1))[1]
    assert_trees_close(autodiff, by_hand, LENGTH)


@networks
def test_integer_weights_are_duplicated_rows(float64, case):
    params, rows = inputs(case, offset=True)
    counts = np.array([2, 1, 0, 3, 1, 0, 0])
    weighted = lr_nn.value_and_gradient(case.net, params, rows._replace(weight=counts))
    duplicated = lr_nn.value_and_gradient(case.net, params, cut(rows, np.repeat(np.arange(N), counts)))
    assert_trees_close(weighted, duplicated, LENGTH)


@networks
def test_rows_of_weight_zero_change_nothing(float64, case):
    params, rows = inputs(case, weighted=True)
    rows = rows._replace(weight=np.where(np.arange(N) < 4, rows.weight, 0))
    other = rows._replace(x=np.where(np.arange(N)[:, None] < 4, rows.x, 2.0))
    assert_trees_close(
        lr_nn.value_and_gradient(case.net, params, other), lr_nn.value_and_gradient(case.net, params, rows), LENGTH
    )


def test_the_cost_knows_weights_up_to_a_factor_only(float64):
    case = NETWORKS["bernoulli, sigmoid, 2 layers"]
    params, rows = inputs(case, weighted=True)
    scaled = rows._replace(weight=1000 * rows.weight)
    mask = rows._replace(weight=np.ones(N, bool))
    for one, other in ((rows, scaled), (mask, rows._replace(weight=None))):
        assert_trees_close(
            lr_nn.value_and_gradient(case.net, params, one), lr_nn.value_and_gradient(case.net, params, other), LENGTH
        )


def test_a_bias_shared_by_all_rows_is_an_offset(float64):
    net = lr_nn.logistic_regression(4)
    params, x, y = on_device(parameters(net)), np.random.default_rng(0).normal(size=(N, 4)), np.arange(N) % 2
    free = (lr_nn.Layer(params[0].w, jnp.zeros(1)),)
    offset = np.full(N, float(params[0].b[0]))
    assert_close(lr_nn.cost(net, free, Batch(x, y, offset=offset)), lr_nn.cost(net, params, Batch(x, y)), LENGTH)
    flat, column = (lr_nn.cost(net, free, Batch(x, y, offset=o)) for o in (offset, offset[:, None]))
    assert flat == column


@pytest.mark.parametrize("block_size", [1, 3, N, 100])
@shallow_and_deep
def test_blocks_of_rows_give_the_same_totals(float64, case, block_size):
    params, rows = inputs(case, weighted=True, offset=True)
    penalty = penalties.elastic_net(0.3, 0.5)
    blocked = compiled(case.net, params, rows, penalty, block_size)
    assert_trees_close(blocked, lr_nn.value_and_gradient(case.net, params, rows, penalty), LENGTH)


def test_blocks_of_half_precision_add_up_in_float32():
    """Six hundred blocks of one row: bfloat16 alone stops counting at 256."""
    net = lr_nn.linear_regression(1)
    params = lr_nn.init(net, jax.random.key(0), jnp.bfloat16)
    rows = Batch(jnp.ones((600, 1)), -jnp.ones(600))
    value, gradient = compiled(net, params, rows, None, 1)
    assert value.dtype == jnp.float32 and gradient[0].w.dtype == jnp.bfloat16
    assert_close(value, 0.5)
    assert_close(gradient[0].w, [[1.0]])


@shallow_and_deep
def test_totals_add_up_over_a_split_of_the_rows(float64, case):
    params, rows = inputs(case, weighted=True, offset=True)
    totals = jax.jit(objective.totals)
    parts = [totals(case.net, params, cut(rows, index)) for index in (slice(0, 2), slice(2, N))]
    whole = objective.totals(case.net, params, rows)
    assert_trees_close(whole, jax.tree.map(np.add, *parts), LENGTH)
    assert_close(whole.weight, rows.weight.sum(), N)
    value, gradient = lr_nn.value_and_gradient(case.net, params, rows)
    mean = jax.tree.map(lambda a: np.asarray(a) / np.asarray(whole.weight), (whole.loss, whole.gradient))
    assert_trees_close((value, gradient), mean, LENGTH)


def test_totals_without_weights_count_the_rows(float64):
    case = NETWORKS["squared_error, 1 layer"]
    params, rows = inputs(case)
    assert objective.totals(case.net, params, rows).weight == N


def test_penalty_strengths_may_be_lanes(float64):
    case = NETWORKS["bernoulli, sigmoid, 2 layers"]
    params, rows = inputs(case)
    strengths = jnp.array([0.0, 0.1, 2.0])
    lanes = jax.jit(
        jax.vmap(lambda s: lr_nn.value_and_gradient(case.net, params, rows, penalties.elastic_net(s, 0.5)))
    )(strengths)
    for i, strength in enumerate(strengths):
        alone = lr_nn.value_and_gradient(case.net, params, rows, penalties.elastic_net(strength, 0.5))
        assert_trees_close(jax.tree.map(lambda a, i=i: np.asarray(a)[i], lanes), alone, LENGTH)


def test_parameters_may_be_lanes():
    case = NETWORKS["categorical, relu, 3 layers"]
    many = [on_device(parameters(case.net, seed=seed), jnp.float32) for seed in range(3)]
    rows = batch(case, weighted=True)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *many)
    lanes = jax.jit(jax.vmap(lambda p: lr_nn.value_and_gradient(case.net, p, rows, block_size=3)))(stacked)
    for i, params in enumerate(many):
        alone = lr_nn.value_and_gradient(case.net, params, rows)
        assert_trees_close(jax.tree.map(lambda a, i=i: np.asarray(a)[i], lanes), alone, LENGTH)


@pytest.mark.parametrize("block_size", [None, 3])
def test_jit_with_the_network_static_changes_nothing(block_size):
    case = NETWORKS["categorical, relu, 3 layers"]
    params, rows = inputs(case, jnp.float32, weighted=True, offset=True)
    jitted = compiled(case.net, params, on_device(rows, jnp.float32), penalties.l2(0.1), block_size)
    assert_trees_close(jitted, lr_nn.value_and_gradient(case.net, params, rows, penalties.l2(0.1)), LENGTH)
    cost = jax.jit(lr_nn.cost, static_argnums=0)(case.net, params, on_device(rows, jnp.float32))
    assert_close(cost, lr_nn.cost(case.net, params, rows), LENGTH)


def test_descent_by_scan_is_descent_by_a_loop_and_goes_down():
    case = NETWORKS["bernoulli, sigmoid, 2 layers"]
    params, rows = inputs(case, jnp.float32)

    def step(params, _):
        value, gradient = lr_nn.value_and_gradient(case.net, params, rows)
        return jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient), value

    last, values = jax.lax.scan(step, params, length=5)
    for _ in range(5):
        params, _ = step(params, None)
    assert_trees_close(last, params, LENGTH)
    assert (jnp.diff(values) < 0).all()


def test_one_trace_serves_equal_networks_and_all_values_of_one_shape():
    chex.clear_trace_counter()
    function = jax.jit(chex.assert_max_traces(lr_nn.value_and_gradient, n=1), static_argnums=0)
    for seed in range(3):
        net = lr_nn.mlp((4, 5, 3), activations.leaky_relu(0.1), losses.through(activations.tanh, losses.squared_error))
        rng = np.random.default_rng(seed)
        params = on_device(parameters(net, seed=seed), jnp.float32)
        rows = Batch(rng.normal(size=(N, 4)).astype("f"), rng.normal(size=(N, 3)).astype("f"))
        function(net, params, rows, penalties.l2(0.1 * seed))


def test_numpy_float64_is_cast_to_the_dtype_of_the_parameters():
    case = NETWORKS["squared_error of sigmoid, softplus, 3 layers"]
    params, rows = inputs(case, jnp.float32, weighted=True, offset=True)
    result = lr_nn.value_and_gradient(case.net, params, rows)
    assert {leaf.dtype for leaf in jax.tree.leaves(result)} == {jnp.dtype(jnp.float32)}
    narrow = lr_nn.value_and_gradient(case.net, params, on_device(rows, jnp.float32))
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(narrow)))


def test_a_traced_batch_without_weight_has_cost_zero():
    case = NETWORKS["squared_error, 1 layer"]
    params, rows = inputs(case, jnp.float32)
    rows = on_device(rows, jnp.float32)._replace(weight=jnp.zeros(N))
    value, gradient = jax.jit(lr_nn.value_and_gradient)(case.net, params, rows)
    assert value == 0 and not any(leaf.any() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("name", [name for name, row in LOSSES.items() if not row.overflows])
def test_wrong_predictions_at_huge_inputs_leave_cost_and_gradient_finite(name):
    case = network(name, depth=1)
    params, rows = inputs(case, jnp.float32)
    value, gradient = lr_nn.value_and_gradient(case.net, params, rows._replace(x=1e4 * rows.x))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((value, gradient)))
    assert value > 0


def spread_over_devices(case):
    """Two rows on each of eight devices: the parameters, the rows, and their mesh."""
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    params, rows = inputs(case, jnp.float32, n=16, weighted=True)
    return params, jax.device_put(on_device(rows, jnp.float32), NamedSharding(mesh, P("rows"))), mesh


@eight_devices
def test_rows_spread_over_devices_give_the_same_gradient():
    case = NETWORKS["categorical, relu, 3 layers"]
    params, spread, _ = spread_over_devices(case)
    together = jax.device_get(spread)
    assert_trees_close(compiled(case.net, params, spread), compiled(case.net, params, together), LENGTH)


@eight_devices
@pytest.mark.parametrize("block_size", [None, 1])
def test_totals_of_each_device_add_up_by_psum(block_size):
    case = NETWORKS["categorical, relu, 3 layers"]
    params, spread, mesh = spread_over_devices(case)

    def local(rows):
        value, gradient = lr_nn.value_and_gradient(case.net, params, rows, block_size=block_size)
        weight = objective.totals(case.net, params, rows).weight
        return jax.lax.psum(jax.tree.map(lambda a: weight * a, (1.0, value, gradient)), "rows")

    sums = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=P("rows"), out_specs=P()))(spread)
    totals = jax.jit(objective.totals)(case.net, params, jax.device_get(spread))
    assert_trees_close(sums, tuple(totals), LENGTH)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_derivative_by_a_weight_is_the_loss_less_the_cost_also_where_the_weight_is_zero(float64, loss):
    """∂J/∂s_i = (ℓ_i - J) / Σ s, and ∂²J/∂s_i∂θ = (g_i - ∇J) / Σ s, of every function that averages."""
    case = network(loss, depth=2)
    params, rows = inputs(case)
    s = jnp.asarray([0.0, 2.0, 0.0, 1.0, 0.5, 0.0, 1.0])
    losses_of_rows = reference.losses(case, jax.tree.map(np.asarray, params), rows)
    cost = float(lr_nn.cost(case.net, params, rows._replace(weight=s)))

    def by_weight(function):
        return jax.grad(lambda s: function(case.net, params, rows._replace(weight=s)))(s)

    for function in (lr_nn.cost, lambda *at: lr_nn.value_and_gradient(*at)[0]):
        assert_close(by_weight(function), (losses_of_rows - cost) / s.sum(), LENGTH)

    v = jax.tree.map(lambda a: jnp.cos(7 * a), params)
    bp = lr_nn.backprop(case.net, params, rows._replace(weight=s))
    products = np.asarray(per_example.inner_products(bp, v))
    expected = (products - np.average(products, weights=s)) / s.sum()

    def along(gradient):
        return sum((g * d).sum() for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(v)))

    for gradient in (
        lambda *at: lr_nn.value_and_gradient(*at)[1],
        lambda *at: lr_nn.gradient(lr_nn.backprop(*at)),
        lambda *at: per_example.clipped_gradient(lr_nn.backprop(*at), np.inf),
    ):
        assert_close(by_weight(lambda *at, gradient=gradient: along(gradient(*at))), expected, LENGTH)


def test_the_published_derivative_by_a_weight_of_zero():
    """w = 2, b = 0, x = 1, 2, 3, y = 0: losses 2, 8, 18 of weights 0, 1, 1."""
    net, params = lr_nn.linear_regression(1), (Layer(jnp.full((1, 1), 2.0), jnp.zeros(1)),)
    batch_of = partial(Batch, jnp.array([[1.0], [2.0], [3.0]]), jnp.zeros(3))
    by_weight = jax.grad(lambda s: lr_nn.cost(net, params, batch_of(s)))(jnp.array([0.0, 1.0, 1.0]))
    assert by_weight.tolist() == [-5.5, -2.5, 2.5]


@pytest.mark.parametrize("jitted", [False, True])
def test_a_row_of_weight_zero_may_have_any_target(jitted):
    """A label outside the classes, a missing value, a count that is negative: padding as users write it."""
    cost, both = lr_nn.cost, lr_nn.value_and_gradient
    if jitted:
        cost, both = jax.jit(cost), jax.jit(both)
    x, s = np.ones((3, 2)), np.array([1.0, 0, 1])
    for net, good, bad in (
        (lr_nn.softmax_regression(2, 3), 1, -1),
        (lr_nn.logistic_regression(2), 1.0, np.nan),
        (lr_nn.poisson_regression(2), 2.0, -5.0),
        (lr_nn.linear_regression(2), 2.0, np.inf),
    ):
        params = lr_nn.init(net, jax.random.key(0))
        ours, theirs = (Batch(x, np.array([1, y, 0]), s) for y in (bad, good))
        assert cost(net, params, ours) == cost(net, params, theirs)
        assert_trees_close(both(net, params, ours), both(net, params, theirs))
        assert_trees_close(jax.grad(cost, argnums=1)(net, params, ours), both(net, params, theirs)[1], 3)


def test_under_jit_a_label_outside_the_classes_makes_the_cost_nan():
    net = lr_nn.softmax_regression(2, 3)
    params = lr_nn.init(net, jax.random.key(0))
    for label in (-1, 3, 1000):
        rows = Batch(np.ones((2, 2)), np.array([0, label]))
        value, gradient = jax.jit(lr_nn.value_and_gradient)(net, params, rows)
        assert np.isnan(value) and all(np.isnan(leaf).all() for leaf in jax.tree.leaves(gradient))
        assert np.isnan(jax.jit(lr_nn.backprop)(net, params, rows).deltas[0]).tolist() == [[False] * 3, [True] * 3]


CURVATURE_AT_ZERO = {
    "bernoulli": (lr_nn.logistic_regression(1), [0.0, 1.0, 1.0], 0.25),
    "categorical": (lr_nn.softmax_regression(1, 2), [0, 1, 1], 0.25),
    "poisson": (lr_nn.poisson_regression(1), [0.0, 1.0, 2.0], 1.0),
    "squared_error": (lr_nn.linear_regression(1), [0.0, 1.0, 2.0], 1.0),
}


@pytest.mark.parametrize(("net", "y", "expected"), CURVATURE_AT_ZERO.values(), ids=CURVATURE_AT_ZERO)
def test_the_hessian_of_the_cost_at_initial_parameters_has_the_curvature_of_the_bias(net, y, expected):
    """Where `init` starts, η = 0 is a tie of the stable forms."""
    params, x = lr_nn.init(net, jax.random.key(0)), jnp.array([[1.0], [2.0], [3.0]])

    def cost(b):
        return lr_nn.cost(net, (params[0]._replace(b=b),), Batch(x, np.asarray(y)))

    hessian = jax.hessian(cost)(params[0].b)
    assert_close(np.diagonal(hessian), np.full(net.sizes[-1], expected))
    by_hand = jax.jacobian(
        lambda b: lr_nn.value_and_gradient(net, (params[0]._replace(b=b),), Batch(x, np.asarray(y)))[1][0].b
    )
    assert_close(np.diagonal(by_hand(params[0].b)), np.full(net.sizes[-1], expected))


def test_a_row_of_weight_zero_may_overflow_and_leaves_autodiff_finite():
    """exp(1000) overflows: the hand gradient and `jax.grad`, of first and second order, ignore the row."""
    net = lr_nn.poisson_regression(1)
    params = (Layer(jnp.ones((1, 1)), jnp.zeros(1)),)
    three = Batch(jnp.array([[1.0], [0.5], [1000.0]]), jnp.array([1.0, 0.0, 1.0]), jnp.array([1.0, 2.0, 0.0]))
    two = Batch(*(a[:2] for a in three[:3]))
    gradients = [jax.grad(lr_nn.cost, argnums=1), lambda *at: lr_nn.value_and_gradient(*at)[1]]
    for gradient in (*gradients, jax.hessian(lr_nn.cost, argnums=1), jax.jacobian(gradients[1], argnums=1)):
        found, expected = (jax.tree.leaves(jax.jit(gradient)(net, params, rows)) for rows in (three, two))
        for a, b in zip(found, expected, strict=True):
            assert_close(a, b, 3)


def test_autodiff_of_an_l1_penalty_at_zero_has_the_subgradient_of_smallest_norm():
    net = lr_nn.logistic_regression(2)
    params, rows = lr_nn.init(net, jax.random.key(0)), Batch(np.eye(2), np.array([0, 1]))
    penalty = penalties.l1(0.1)
    autodiff = jax.grad(lambda params: lr_nn.cost(net, params, rows, penalty))(params)
    assert_trees_close(autodiff, lr_nn.value_and_gradient(net, params, rows, penalty)[1])
    assert_trees_close(autodiff, jax.grad(lambda params: lr_nn.cost(net, params, rows))(params))


@eight_devices
def test_a_weighted_batch_over_devices_may_be_a_constant_of_a_function_under_jit():
    case = NETWORKS["bernoulli, sigmoid, 2 layers"]
    params, spread, _ = spread_over_devices(case)
    found = jax.jit(lambda params: lr_nn.value_and_gradient(case.net, params, spread))(params)
    assert_trees_close(found, lr_nn.value_and_gradient(case.net, params, jax.device_get(spread)), LENGTH)


def test_constants_of_a_function_under_jit_are_checked_as_other_arrays_are():
    net, params = lr_nn.logistic_regression(2), lr_nn.init(lr_nn.logistic_regression(2), jax.random.key(0))
    for bad, message in ((Batch(np.eye(2), [0, 2]), "got 2 at row 1"), (Batch(np.eye(2), [0, 1], [0, 0]), "zero")):
        with pytest.raises(ValueError, match=message):
            jax.jit(lambda params, bad=bad: lr_nn.cost(net, params, bad))(params)


def test_64_bit_arrays_of_numpy_may_be_constants_under_both_settings_of_x64():
    net, penalty = lr_nn.logistic_regression(2), penalties.l2(np.float64(0.1))
    rows = Batch(np.eye(2), np.array([0, 1]), np.ones(2), np.zeros(2))

    def cost(params):
        return lr_nn.cost(net, params, rows, penalty)

    with jax.enable_x64(True):
        wide = jax.jit(cost)(lr_nn.init(net, jax.random.key(0), np.float64))
    narrow = jax.jit(cost)(lr_nn.init(net, jax.random.key(0)))
    assert narrow.dtype == jnp.float32 and wide.dtype == jnp.float64
    assert_close(narrow, wide)
