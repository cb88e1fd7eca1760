"""Taps where following goes wrong most easily: axes of equal length, carries of scans, layouts, rows that do not count.

Against `vmap(grad)` in float64, on as many positions as examples, so that no size says which axis is which.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from tolerances import assert_close, assert_trees_close

from lr_nn import curvature, per_example, taps

N, D = 3, 4
pytestmark = pytest.mark.usefixtures("float64")


def normal(*shape):
    return np.random.default_rng([*shape]).standard_normal(shape)


SQUARE = (normal(N, N, D), normal(N))  # T = n


def examples_first(tap, params, x, y):
    return jnp.square(jnp.tanh(tap.dense(x, params["w"])).sum((1, 2)) - y)


def examples_second(tap, params, x, y):
    return jnp.square(jnp.tanh(tap.dense(x.swapaxes(0, 1), params["w"])).sum((0, 2)) - y)


def one_after_another(tap, params, x, y):
    def loss(row):
        return jnp.square(jnp.tanh(tap.dense(row[0], params["w"])).sum() - row[1])

    return jax.lax.map(loss, (x, y))


def mapped_twice(tap, params, x, y):
    def loss(x, y):
        return jnp.square(jax.vmap(lambda row: jnp.tanh(tap.dense(row, params["w"])))(x).sum() - y)

    return jax.vmap(loss)(x, y)


def over_heads(tap, params, x, y):
    heads = jax.vmap(lambda head: tap.dense(head, params["w"]), in_axes=1, out_axes=1)(x)
    return jnp.square(jnp.tanh(heads).sum((1, 2)) - y)


def attention(tap, params, x, y):
    """Time first, a scan over time, and operations that are not elementwise between the taps and the losses."""
    x = x.swapaxes(0, 1)
    h, _ = jax.lax.scan(lambda h, at: (jnp.tanh(tap.dense(h, params["w"]) + at),) * 2, jnp.zeros_like(x[0]), x)
    h = jnp.concatenate([h[None], tap.dense(x, params["w"])[1:]])
    weights = jax.nn.softmax(jnp.where(jnp.tri(N, dtype=bool), jnp.einsum("tnd,snd->nts", h, h), -1e9))
    mixed = jnp.einsum("nts,snd->tnd", weights, h).reshape(N, N, 2, 2).swapaxes(0, 1)
    logp = jax.nn.log_softmax(tap.dense(mixed.reshape(N, N, D), params["w"].T))
    return y * jnp.take_along_axis(logp, jnp.arange(N)[None, :, None], 2)[..., 0].sum(1)


@pytest.mark.parametrize(
    "function",
    [examples_first, examples_second, one_after_another, mapped_twice, over_heads, attention],
    ids=lambda f: f.__name__,
)
def test_the_axis_of_the_examples_is_followed_where_sizes_do_not_tell_it(function):
    params = {"w": normal(D, D)}
    gradients = jax.jit(lambda p: per_example.gradients(taps.backprop(function, p, *SQUARE)))(params)
    expected = jax.jit(jax.jacrev(lambda p: function(taps.plain, p, *SQUARE)))(params)
    assert_trees_close(gradients, expected, 1000)


def test_a_slice_of_a_leaf_for_each_example_is_refused():
    def function(tap, params, x):
        return jax.lax.map(lambda row: tap.dense(row[0], row[1]).sum(), (x, params["w"]))

    with pytest.raises(NotImplementedError, match="takes a slice of a leaf for each of them"):
        taps.backprop(function, {"w": normal(N, D, 1)}, SQUARE[0])


def test_a_stack_may_be_iterated_over_and_reversed():
    def function(tap, params, x, y):
        for w in params["w"]:
            x = x + tap.dense(x, w)
        x, _ = jax.lax.scan(lambda h, w: (jnp.tanh(tap.dense(h, w)), None), x, params["w"][::-1])
        return jnp.square(x.sum(axis=1) - y)

    params, rows = {"w": normal(2, D, D)}, (normal(N, D), normal(N))
    found = jax.jit(lambda p: per_example.gradients(taps.backprop(function, p, *rows)))(params)
    assert_trees_close(found, jax.jit(jax.jacrev(lambda p: function(taps.plain, p, *rows)))(params), 1000)


def test_a_pass_inside_of_shard_map_is_that_of_its_shard():
    """Norms of the shards are the norms, and the mean of their clipped gradients is the clipped gradient."""
    params, rows = {"w": normal(D, D)}, (normal(8, 2, D), normal(8))
    mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])

    def quantities(params, x, y):
        bp = taps.backprop(examples_first, params, x, y)
        return per_example.squared_norms(bp), per_example.clipped_gradient(bp, 0.1)

    def of_shard(params, x, y):
        norms, clipped = quantities(params, x, y)
        return norms, jax.tree.map(lambda leaf: jax.lax.pmean(leaf, "i"), clipped)

    sharded = jax.shard_map(of_shard, mesh=mesh, in_specs=(P(), P("i"), P("i")), out_specs=(P("i"), P()))
    assert_trees_close(jax.jit(sharded)(params, *rows), jax.jit(quantities)(params, *rows), 100)


def from_the_carry(tap, params, x, y):
    def step(carry, w):
        h, previous = carry
        return (jnp.tanh(tap.dense(h, previous)), w), None

    (h, _), _ = jax.lax.scan(step, (x, jnp.eye(D)), params["w"])
    return jnp.square(h.sum(axis=1) - y)


def test_a_leaf_that_a_scan_carries_to_its_next_step_is_named():
    with pytest.raises(ValueError, match=r"params\['w'\] is used without a tap, by scan"):
        taps.backprop(from_the_carry, {"w": normal(3, D, D)}, normal(N, D), normal(N))


@pytest.mark.parametrize("ids", [np.array([0, -1, 100], np.int8), np.array([0, 2**32 + 1, 299])])
def test_ids_of_every_width_are_rows_of_the_table(ids):
    """An int8 cannot hold the length of the table, an int32 not an id beyond 2³²."""

    def function(tap, params, ids):
        return jnp.nan_to_num(tap.embedding(ids, params["table"])).sum(axis=1)

    found = per_example.gradients(taps.backprop(function, {"table": normal(300, 2)}, ids))["table"]
    wide = ids.astype(np.int64)
    expected = (np.where(wide < 0, wide + 300, wide)[:, None] == np.arange(300)).astype(float)
    assert_close(found, np.stack([expected, expected], axis=2))


def biased(tap, params, x, y):
    """A bias whose layers lie along its last axis, and one that is half of a leaf."""

    def layer(h, at):
        return jnp.tanh(tap.dense(h, *at)), None

    h, _ = jax.lax.scan(layer, x, (params["w"], params["b"].T))
    return jnp.square(tap.dense(h, params["out"], params["half"][:2]).sum(axis=1) - y)


def test_kronecker_factors_do_not_depend_on_the_layout_of_a_bias():
    rows = (normal(N, D), normal(N))
    params = {"w": normal(2, D, D), "b": normal(D, 2), "out": normal(D, 2), "half": normal(4)}

    def one_by_one(tap, params, x, y):
        for layer in params["layers"]:
            x = jnp.tanh(tap.dense(x, *layer))
        return jnp.square(
            (tap.dense(x, params["out"]) + tap.scale_shift(jnp.zeros((N, 2)), None, params["half"])).sum(1) - y
        )

    def separate(tree):
        layers = [(tree["w"][i], tree["b"][:, i]) for i in range(2)]
        return {"layers": layers, "out": tree["out"], "half": tree["half"][:2]}

    v = jax.tree.map(np.cos, params)
    stacked = curvature.kfac(taps.backprop(biased, params, *rows)).solve(v, 0.1)
    alone = curvature.kfac(taps.backprop(one_by_one, separate(params), *rows)).solve(separate(v), 0.1)
    assert_trees_close(separate(stacked), alone, 1000)


def test_a_row_that_is_not_finite_adds_nothing_where_it_does_not_count():
    def function(tap, params, x, y):
        return jnp.square(tap.dense(x, params["w"], params["b"]).sum((1, 2)) - y)

    params, (x, y) = {"w": normal(D, 2), "b": normal(2)}, SQUARE
    lost = np.where(np.arange(N) == 1, np.nan, 1.0)[:, None, None] * x
    for inputs in ((lost, x[::2]), (lost[:, :1], x[::2, :1])):
        bp = taps.backprop(function, params, inputs[0], y, weight=[1.0, 0.0, 1.0])
        alone = taps.backprop(function, params, inputs[1], y[::2])
        assert_trees_close(*(per_example.clipped_gradient(each, 0.1) for each in (bp, alone)), 50)
        assert_trees_close(*(per_example.noise_scale(each) for each in (bp, alone)), 500)
        assert_trees_close(*(curvature.kfac(each).solve(params, 0.1) for each in (bp, alone)), 500)
        unweighted = taps.backprop(function, params, inputs[0], y)
        clipped = jax.tree.map(lambda leaf: leaf * 2 / 3, per_example.clipped_gradient(alone, 0.1))
        assert_trees_close(per_example.clipped_gradient(unweighted, 0.1), clipped, 50)
        assert np.isnan(per_example.variance(unweighted)["w"]).all()


def test_axes_of_arguments_may_be_a_tree_beside_one_that_is_none():
    def function(tap, params, rows, idle, scale):
        return jnp.square(tap.dense(rows["x"] * params["gate"][None], params["w"]).sum(1) - rows["y"]) * scale[0]

    params, rows = {"w": normal(D, 2), "gate": normal(D)}, {"x": normal(D, N).T, "y": normal(N)}
    axes = ({"x": 0, "y": 0}, None, [None])
    found = taps.backprop(function, params, rows, None, [2.0], untapped="vmap", in_axes=axes)
    expected = jax.jit(jax.jacrev(lambda p: function(taps.plain, p, rows, None, [2.0])))(params)
    assert_trees_close(per_example.gradients(found), expected, 50)
    with pytest.raises(ValueError, match="in_axes must be one axis, or one for each of the 3 args"):
        taps.backprop(function, params, rows, None, [2.0], untapped="vmap", in_axes=(0,))


def test_a_use_inside_of_a_function_of_jax_is_named_by_the_line_that_calls_it():
    def function(tap, params, x):
        return tap.dense(x, jnp.take(params["w"], 1, axis=0)).sum(axis=1)

    with pytest.raises(ValueError, match=r"params\['w'\] is used without a tap, by gather at .*test_taps_edges.py"):
        taps.backprop(function, {"w": normal(2, D, D)}, normal(N, D))


class Unhashable:
    __hash__ = None

    def __call__(self, tap, params, x, y):
        return examples_first(tap, params, x, y)


@pytest.mark.parametrize(
    ("function", "params", "error", "message"),
    [
        (Unhashable(), {"w": normal(D, D)}, TypeError, "hashable and callable.* got Unhashable"),
        (examples_first, {}, ValueError, "params has no leaves"),
        (lambda tap, params, x, y: jnp.ones(N, jnp.int32), {"w": normal(D, D)}, ValueError, r"floats; got int32\[3\]"),
        (
            lambda tap, params, x, y: tap.conv(x, params["w"], padding=1),
            {"w": normal(1, D, D)},
            ValueError,
            "padding must",
        ),
    ],
    ids=["hash", "leaves", "dtype", "padding"],
)
def test_bad_calls_say_what_to_do(function, params, error, message):
    with pytest.raises(error, match=message):
        taps.backprop(function, params, *SQUARE)


@pytest.mark.parametrize(("entry", "factor"), [(1e12, 1e10), (1.0, 1e25), (1e10, 1e12)])
def test_norms_of_large_gradients_do_not_overflow(entry, factor):
    """As those of a Backprop: ‖g_i‖² is not a number of float32 here, ‖g_i‖ is."""
    with jax.enable_x64(False):
        params = {"w": jnp.full((2, 1), entry, jnp.float32), "table": jnp.full((3, 2), entry, jnp.float32)}

        def losses(tap, params, ids):
            return factor * tap.dense(tap.embedding(ids, params["table"]), params["w"]).sum(axis=(1, 2))

        bp = taps.backprop(losses, params, np.array([[0, 1], [2, 2]]))
        assert np.isinf(per_example.squared_norms(bp)).all()
        clipped = per_example.clipped_gradient(bp, 1.0)
    norm = np.sqrt(sum(np.square(np.asarray(leaf, float)).sum() for leaf in jax.tree.leaves(clipped)))
    assert 0.8 < norm <= 1.0 + 1e-6
