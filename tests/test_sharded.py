"""Rows and columns over devices give what one device gives, with one all-reduce where the total is one."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh
from tolerances import assert_close, assert_trees_close

import lr_nn
from lr_nn import penalties, per_example, sharded
from lr_nn.data import Arrays
from lr_nn.sharded import sums, training
from lr_nn.sharded.columns import _value_and_gradient as by_columns
from lr_nn.types import Batch, Status

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")

N, D = 21, 5
DEEP, SHALLOW, ONE = lr_nn.mlp((D, 4, 2)), lr_nn.softmax_regression(D, 3), lr_nn.logistic_regression(D)
MESHES = {
    "1": Mesh(jax.devices()[:1], ("rows",)),
    "2": Mesh(jax.devices()[:2], ("rows",)),
    "8": Mesh(jax.devices(), ("rows",)),
    "2 x 4": Mesh(np.array(jax.devices()).reshape(2, 4), ("hosts", "devices")),
}
OPTIMIZER = optax.sgd(0.1, momentum=0.9)
nets = pytest.mark.parametrize("net", [DEEP, SHALLOW], ids=["deep", "shallow"])


def rows(net, n=N, weighted=True, offset=True):
    rng = np.random.default_rng(n)
    k = net.sizes[-1]
    y = rng.integers(0, 3, n) if net.loss.name == "categorical" else rng.integers(0, 2, (n, k))
    return Batch(
        rng.normal(size=(n, net.sizes[0])).astype(np.float32),
        y,
        rng.integers(0, 3, n).astype(np.float32) if weighted else None,
        rng.normal(size=(n, k)).astype(np.float32) if offset else None,
    )


def parameters(net):
    params = lr_nn.init(net, jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(1)
    return tree.unflatten([jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype) for leaf in leaves])


def collectives(compiled):
    """The collectives of a compiled program, by name."""
    found = re.findall(r" (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\(", compiled)
    return sorted(found)


# A program is compiled for each mesh and each network: every mesh, every network and every kind of rows has its turn.
@pytest.mark.parametrize(
    ("mesh", "net", "n", "weighted"),
    [
        *(("1", DEEP, N, True), ("2", SHALLOW, N, True), ("2 x 4", DEEP, N, True)),
        *(("8", DEEP, N, False), ("8", SHALLOW, 16, False), ("8", DEEP, 3, True)),
    ],
)
def test_the_cost_and_its_gradient_are_those_of_one_device(mesh, net, n, weighted):
    batch, params, penalty = rows(net, n, weighted), parameters(net), penalties.elastic_net(0.1, 0.3)
    parallel = sharded.data_parallel(MESHES[mesh])
    expected = lr_nn.value_and_gradient(net, params, batch, penalty)
    assert_trees_close(parallel.value_and_gradient(net, params, batch, penalty), expected, length=4 * N)
    assert_close(parallel.cost(net, params, batch, penalty), expected[0], length=4 * N)


def test_blocks_on_each_device_add_up_to_the_same():
    parallel = sharded.data_parallel(MESHES["2"])
    args = DEEP, parameters(DEEP), rows(DEEP), penalties.l2(0.1)
    assert_trees_close(parallel.value_and_gradient(*args, block_size=3), lr_nn.value_and_gradient(*args), length=4 * N)


@pytest.mark.parametrize(("mesh", "net"), [("1", DEEP), ("2 x 4", DEEP), ("8", SHALLOW)])
def test_per_example_quantities_are_those_of_one_device(mesh, net):
    batch, params, parallel = rows(net), parameters(net), sharded.data_parallel(MESHES[mesh])
    bp = lr_nn.backprop(net, params, batch)
    pairs = [
        (parallel.layer_squared_norms, per_example.layer_squared_norms(bp)),
        (parallel.squared_norms, per_example.squared_norms(bp)),
        (lambda *args: parallel.clipped_gradient(*args, 0.5), per_example.clipped_gradient(bp, 0.5)),
        (parallel.second_moment, per_example.second_moment(bp)),
    ]
    for of, expected in pairs:
        assert_trees_close(of(net, params, batch), expected, length=4 * N)


def test_norms_stay_with_their_rows():
    parallel = sharded.data_parallel(MESHES["8"])
    placed = parallel.place(rows(DEEP, 24))
    norms = parallel.layer_squared_norms(DEEP, parameters(DEEP), placed)
    assert norms.sharding.is_equivalent_to(placed.x.sharding, 2) and len(norms.addressable_shards) == 8


def test_a_placed_batch_is_padded_with_rows_of_weight_zero_and_placed_once():
    parallel, batch = sharded.data_parallel(MESHES["8"]), rows(DEEP, weighted=False)
    placed = parallel.place(batch)
    assert len(placed.x) == 24 and float(placed.weight.sum()) == N
    assert parallel.place(placed) is placed
    assert parallel.place(rows(DEEP, 16, weighted=False)).weight is None
    real = np.asarray(placed.weight) > 0
    np.testing.assert_array_equal(np.asarray(placed.x)[real], batch.x)
    from_rows = parallel.place(Arrays(*batch))
    np.testing.assert_array_equal(from_rows.x, placed.x)


@pytest.mark.parametrize(("mesh", "net"), [("1", ONE), ("2 x 4", SHALLOW), ("8", ONE)])
def test_a_newton_system_is_the_cost_its_gradient_and_its_hessian(mesh, net):
    batch, params, penalty = rows(net), parameters(net), penalties.l2(0.1)
    system = sharded.data_parallel(MESHES[mesh]).newton_system(net, params, batch, penalty)
    value, gradient = lr_nn.value_and_gradient(net, params, batch, penalty)
    flat, unravel = ravel_pytree(params)
    assert_close(system.value, value, length=4 * N)
    assert_close(system.gradient, ravel_pytree(gradient)[0], length=4 * N)
    hessian = jax.hessian(lambda flat: lr_nn.cost(net, unravel(flat), batch, penalty))(flat)
    assert_close(system.hessian, hessian, length=4 * N)


def test_training_sees_the_same_mini_batches_on_any_mesh():
    batch, params = rows(DEEP), parameters(DEEP)
    common = {"optimizer": OPTIMIZER, "epochs": 3, "penalty": penalties.l2(0.01), "validation": batch}
    one, *others = (
        sharded.data_parallel(mesh, 8).train(DEEP, params, batch, batch_size=8, key=jax.random.key(1), **common)
        for mesh in MESHES.values()
    )
    for found in others:
        assert_trees_close(found.params, one.params, length=100 * N)
        assert_trees_close(found.history, one.history, length=100 * N, dtype=np.float32)
        assert found.status == "completed" and found.steps == one.steps


@pytest.mark.parametrize("settings", [{}, {"batch_size": 6, "key": jax.random.key(1)}], ids=["full", "mini"])
def test_training_with_one_shard_is_training(settings):
    batch, params = rows(DEEP), parameters(DEEP)
    common = {"optimizer": optax.sgd(0.1), "epochs": 3, "validation": rows(DEEP, 9), "patience": 2, **settings}
    one = lr_nn.train(DEEP, params, batch, **common)
    found = sharded.data_parallel(MESHES["1"]).train(DEEP, params, batch, **common)
    assert_trees_close(found.params, one.params, length=100 * N)
    assert_trees_close(found.history, one.history, length=100 * N, dtype=np.float32)


def test_a_full_batch_on_eight_devices_trains_as_on_one():
    batch, params = rows(DEEP), parameters(DEEP)
    common = {"optimizer": OPTIMIZER, "epochs": 5, "penalty": penalties.l2(0.01), "validation": batch}
    one = lr_nn.train(DEEP, params, batch, **common)
    for mesh in ("8", "2 x 4"):
        found = sharded.data_parallel(MESHES[mesh]).train(DEEP, params, batch, **common)
        assert_trees_close(found.params, one.params, length=100 * N)
        assert_trees_close(found.history, one.history, length=100 * N, dtype=np.float32)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_mini_batch_takes_as_many_rows_from_each_shard_and_divides_by_all_of_them(weighted):
    """Every shard holds one row twice: each mini-batch is these eight rows, whatever the orders."""
    few, params = rows(DEEP, 8, weighted), parameters(DEEP)
    twice = jax.tree.map(lambda a: np.repeat(a, 2, axis=0), few)
    one = lr_nn.train(DEEP, params, few, optimizer=optax.sgd(0.1), epochs=6)
    found = sharded.data_parallel(MESHES["2"], shards=8).train(
        DEEP, params, twice, optimizer=optax.sgd(0.1), epochs=3, batch_size=8, key=jax.random.key(1)
    )
    assert found.steps == 6
    assert_trees_close(found.params, one.params, length=100 * N)


def test_training_that_leaves_the_floats_steps_back():
    net = lr_nn.linear_regression(D, 2)
    found = sharded.data_parallel(MESHES["8"]).train(
        net, parameters(net), rows(net), optimizer=optax.sgd(1e9), epochs=50
    )
    assert found.status == "non_finite"
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found.params))


@pytest.mark.parametrize("batch_size", [16, 32])
def test_a_step_of_training_is_one_all_reduce(batch_size):
    parallel, params, optimizer = sharded.data_parallel(MESHES["8"]), parameters(DEEP), optax.sgd(0.1)
    params, batch = parallel.admit(DEEP, params, rows(DEEP, 32))
    task = training.Task(batch, jnp.ones(()), penalties.l2(0.1), jax.random.key(0))
    feed = training.Spread(parallel, DEEP, optimizer, task, batch_size)
    state = training.State(params, optimizer.init(params), feed.order(0), jnp.zeros((), jnp.int32))
    sizes = {"batch_size": batch_size, "room": 16}
    program = training._advance.lower(parallel, DEEP, optimizer, state, feed.task, np.int32(9), **sizes)
    # Σ s of a full batch is the same in every step: the compiler takes it once, before the loop.
    loop, before_it = program.compile().as_text().split("\nENTRY ")
    assert collectives(loop) == ["all-reduce"]
    assert collectives(before_it) == ["all-reduce"] * (batch_size == 32)


@pytest.mark.parametrize("mesh", [MESHES["8"], MESHES["2"]], ids=["8", "2"])
def test_a_training_cut_in_two_goes_on_from_its_checkpoint(tmp_path, mesh):
    common = {"optimizer": OPTIMIZER, "batch_size": 8, "key": jax.random.key(1), "validation": rows(DEEP, 9)}
    eight, batch, params = sharded.data_parallel(MESHES["8"]), rows(DEEP), parameters(DEEP)
    whole = eight.train(DEEP, params, batch, epochs=5, **common)
    kept = lr_nn.training.Checkpoints(tmp_path / "kept", every=0)
    eight.train(DEEP, params, batch, epochs=2, checkpoints=kept, **common)
    parallel = sharded.data_parallel(mesh, shards=8)
    found = parallel.train(DEEP, params, batch, epochs=5, checkpoints=kept, resume=True, **common)
    assert found.steps == whole.steps
    if mesh.size == 8:
        assert all((a == b).all() for a, b in zip(jax.tree.leaves(found.params), jax.tree.leaves(whole.params)))
    assert_trees_close(found.params, whole.params, length=100 * N)
    with pytest.raises(lr_nn.training.ForeignError, match="its data is another one"):
        parallel.train(DEEP, params, rows(DEEP, 22), epochs=5, checkpoints=kept, resume=True, **common)


@pytest.mark.parametrize(
    ("program", "rest", "expected"),
    [
        (sums.value_and_gradient, (penalties.l2(0.1), None), ["all-reduce"]),
        (sums.layer_squared_norms, (), []),
        (sums.clipped_gradient, (jnp.asarray(0.5),), ["all-reduce"]),
        (sums.second_moment, (), ["all-reduce"]),
        (sums.newton_system, (penalties.l2(0.1),), ["all-reduce"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_total_is_one_all_reduce(program, rest, expected):
    parallel = sharded.data_parallel(MESHES["2 x 4"])
    params, batch = parallel.admit(SHALLOW, parameters(SHALLOW), rows(SHALLOW, 16))
    assert collectives(program.lower(parallel, SHALLOW, params, batch, *rest).compile().as_text()) == expected


@pytest.mark.parametrize("mesh", [MESHES["8"]], ids=["8"])
@pytest.mark.parametrize("penalty", [None, penalties.l2(1e-2)], ids=["none", "l2"])
def test_a_fit_is_that_of_one_device_to_its_certificate(mesh, penalty):
    batch = rows(ONE, 103)
    found = sharded.data_parallel(mesh).fit(ONE, batch, penalty=penalty)
    one = lr_nn.fit(ONE, batch, penalty=penalty)
    assert found.status == one.status == Status.converged
    np.testing.assert_allclose(found.coefficients, one.coefficients, atol=1e-8)
    assert_close(found.cost, one.cost, 103)


def test_least_squares_over_devices_are_those_of_one():
    net, rng = lr_nn.linear_regression(3), np.random.default_rng(0)
    x, y = rng.normal(size=(30, 3)), rng.normal(size=30)
    found = sharded.data_parallel(MESHES["8"]).fit(net, Arrays(x, y))
    assert found.solver == "closed_form" and found.status == Status.converged
    np.testing.assert_allclose(found.coefficients, lr_nn.fit(net, Batch(x, y)).coefficients, atol=1e-9)


def test_separated_data_are_told_over_devices_too():
    x = np.arange(-8.0, 8.0)[:, None] + 0.5
    found = sharded.data_parallel(MESHES["8"]).fit(lr_nn.logistic_regression(1), Batch(x, (x[:, 0] > 0).astype(int)))
    assert found.status == Status.separated and found.direction is not None


def test_lanes_over_devices_are_those_of_one():
    batch, strengths = rows(ONE, 40, offset=False), penalties.l2(np.geomspace(1e-3, 1, 5))
    found = sharded.data_parallel(MESHES["2"]).fit_many(ONE, Batch(batch.x, batch.y, batch.weight), penalty=strengths)
    one = lr_nn.fit_many(ONE, Batch(batch.x, batch.y, batch.weight), penalty=strengths)
    np.testing.assert_allclose(found.coefficients, one.coefficients, atol=1e-8)


@pytest.mark.parametrize(
    ("mesh", "net", "weighted"),
    [("1", SHALLOW, True), ("2", DEEP, True), ("2 x 4", DEEP, True), ("8", SHALLOW, True), ("8", DEEP, False)],
)
def test_columns_over_devices_give_the_cost_and_its_gradient(mesh, net, weighted):
    batch, params, penalty = rows(net, weighted=weighted), parameters(net), penalties.elastic_net(0.1, 0.5)
    parallel = sharded.feature_parallel(MESHES[mesh])
    expected = lr_nn.value_and_gradient(net, params, batch, penalty)
    assert_trees_close(parallel.value_and_gradient(net, params, batch, penalty), expected, length=4 * N)


@nets
def test_steps_by_columns_are_steps_and_padding_stays_zero(net):
    batch, params, optimizer = rows(net), parameters(net), OPTIMIZER
    parallel = sharded.feature_parallel(MESHES["8"])
    placed, at = parallel.place(batch), parallel.place_params(net, params)
    state, one = optimizer.init(at), optimizer.init(params)
    options = {"optimizer": optimizer, "penalty": penalties.l2(0.1)}
    for _ in range(3):
        at, state, value = parallel.step(net, at, state, placed, **options)
        params, one, expected = lr_nn.training.step(net, params, one, batch, **options)
        assert_close(value, expected, length=4 * N)
    assert_trees_close(parallel.whole(net, at), params, length=12 * N)
    assert not np.asarray(at[0].w)[D:].any() and len(at[0].w) == 8


def test_columns_take_one_all_reduce():
    parallel = sharded.feature_parallel(MESHES["8"])
    params, batch = parallel._admit(DEEP, parameters(DEEP), rows(DEEP))
    program = by_columns.lower(parallel, DEEP, params, batch, penalties.l2(0.1))
    assert collectives(program.compile().as_text()) == ["all-reduce"]


def test_what_is_no_mesh_or_does_not_fit_one_is_refused():
    with pytest.raises(TypeError, match=r"mesh must be a jax.sharding.Mesh"):
        sharded.data_parallel(jax.devices())
    with pytest.raises(TypeError, match=r"mesh must be a jax.sharding.Mesh"):
        sharded.feature_parallel(MESHES["2"].abstract_mesh)
    with pytest.raises(ValueError, match="shards must be a multiple of the 8 devices; got 12"):
        sharded.data_parallel(MESHES["8"], shards=12)
    parallel, params = sharded.data_parallel(MESHES["8"]), parameters(DEEP)
    with pytest.raises(ValueError, match="batch_size must be a multiple of the 8 shards; got 12"):
        parallel.train(DEEP, params, rows(DEEP), optimizer=optax.sgd(1), epochs=1, batch_size=12, key=jax.random.key(0))
    with pytest.raises(ValueError, match="weight is zero for every example"):
        parallel.cost(DEEP, params, rows(DEEP)._replace(weight=np.zeros(N)))
    with pytest.raises(ValueError, match="targets must have 21 rows"):
        parallel.place(rows(DEEP)._replace(y=np.zeros(4)))
    with pytest.raises(TypeError, match=r"data must be a Batch\(x, y\) or Rows"):
        parallel.place(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="one-layer networks"):
        parallel.newton_system(DEEP, params, rows(DEEP))
    with pytest.raises(ValueError, match="call place_params first"):
        sharded.feature_parallel().step(DEEP, params, None, rows(DEEP), optimizer=optax.sgd(1))


def test_a_mesh_of_explicit_axes_is_taken_as_one_of_automatic():
    explicit = jax.make_mesh((8,), ("rows",))
    args = DEEP, parameters(DEEP), rows(DEEP)
    assert_trees_close(
        sharded.data_parallel(explicit).value_and_gradient(*args), lr_nn.value_and_gradient(*args), 4 * N
    )


def test_methods_trace_with_a_placed_batch():
    parallel, params = sharded.data_parallel(), parameters(DEEP)
    placed = parallel.place(rows(DEEP))
    traced = jax.jit(lambda params, batch: parallel.value_and_gradient(DEEP, params, batch))(params, placed)
    assert_trees_close(traced, parallel.value_and_gradient(DEEP, params, placed), length=N)
    with pytest.raises(ValueError, match="a batch must have been placed"):
        jax.jit(lambda batch: parallel.cost(DEEP, params, batch))(rows(DEEP))


@pytest.mark.parametrize("penalty", [penalties.l2(1e-2), penalties.l1(1e-2)], ids=["l2", "l1"])
def test_rows_of_a_file_that_no_process_can_hold_are_read_in_blocks(penalty):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3000, 3)), (rng.random(3000) < 0.4).astype(float)
    found = sharded.data_parallel(MESHES["8"]).fit(
        lr_nn.logistic_regression(3), Arrays(x, y), penalty=penalty, memory=2**16
    )
    one = lr_nn.fit(lr_nn.logistic_regression(3), Batch(x, y), penalty=penalty)
    assert found.status == Status.converged and "passes of blocks" in found.message
    np.testing.assert_allclose(found.coefficients, one.coefficients, atol=1e-6)
