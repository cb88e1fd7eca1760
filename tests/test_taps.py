"""Taps: per-example quantities of functions that are not ours, against `vmap(grad)` in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close, assert_trees_close

import lr_nn
from lr_nn import Batch, curvature, losses, per_example, private, taps

N, T, D, V = 3, 4, 4, 7
pytestmark = pytest.mark.usefixtures("float64")


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def normalised(h):
    return (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + 1e-5)


def residual_mlp(tap, params, x, y):
    h = tap.dense(x, **params["in"])
    for block in params["blocks"]:
        h = h + jnp.tanh(tap.dense(tap.scale_shift(normalised(h), **block["norm"]), block["w"]))
    return jnp.square(tap.dense(h, params["out"])[:, 0] - y)


def transformer(tap, params, ids, mask):
    """A block with causal attention, a mask of padding, and a table that is also the output layer."""
    h = tap.embedding(ids, params["table"])
    q, k, v = jnp.split(tap.dense(tap.scale_shift(normalised(h), params["scale"]), params["qkv"]), 3, axis=-1)
    allowed = jnp.tril(jnp.ones((T, T), bool))[None] & mask[:, None]
    weights = jax.nn.softmax(jnp.where(allowed, jnp.einsum("ntd,nsd->nts", q, k), -1e9))
    h = h + tap.dense(jnp.einsum("nts,nsd->ntd", weights, v), **params["mix"])
    logp = jax.nn.log_softmax(tap.dense(h, params["table"].T))
    return -jnp.where(mask[:, 1:], jnp.take_along_axis(logp[:, :-1], ids[:, 1:, None], 2)[..., 0], 0).sum(axis=1)


def convolutional(tap, params, x, y):
    h = jax.nn.relu(tap.conv(x, params["first"], params["b"], strides=2))
    h = tap.conv(h, params["second"], padding="VALID", dilation=(1, 2))
    return jnp.square(tap.dense(h.reshape(len(x), -1), params["out"])[:, 0] - y)


def recurrent(tap, params, x, y):
    """One cell at every step: its leaves are used T times."""

    def cell(h, at):
        return jnp.tanh(tap.dense(h, params["u"]) + tap.dense(at, **params["w"])), None

    h, _ = jax.lax.scan(cell, jnp.zeros((len(x), 5), x.dtype), x.swapaxes(0, 1))
    return jnp.square(h.sum(axis=1) - y)


def stacked(tap, params, x, y):
    """Layers stacked in leaves, one a step of a scan, rematerialised; the weights transposed inside of it."""

    def layer(h, layer):
        return jnp.tanh(tap.dense(h, layer["w"].T, layer["b"])), None

    h, _ = jax.lax.scan(jax.checkpoint(layer), x, params)
    return jnp.square(h.sum(axis=-1) - y)


def one_by_one(tap, params, x, y):
    """A function of one example, mapped over examples."""

    def loss(x, y):
        return jnp.square(tap.dense(jnp.tanh(tap.dense(x, **params["in"])), params["out"]).sum() - y)

    return jax.jit(jax.vmap(loss))(x, y)


def rearranged(tap, params, x, y):
    """Halves of a leaf, indices into a stack, a transpose beside the original, heads flattened."""
    left, right = jnp.split(params["halves"], 2, axis=1)
    h = tap.dense(x, left) * tap.dense(x, right)
    h = h + tap.dense(h, params["stack"][0]) + tap.dense(h, params["stack"][-1].T) + tap.dense(h, params["stack"][0].T)
    return jnp.square(tap.dense(h, params["heads"].reshape(D, -1)).sum((1, 2)) - y)


IDS = np.random.default_rng(0).integers(0, V, (N, T))
MASK = np.arange(T) < np.array([[4], [3], [2]])
ROWS = (normal(N, D), normal(N))
SEQUENCES = (normal(N, T, D), normal(N))
MODELS = {
    residual_mlp: (
        {
            "in": {"w": normal(D, 5), "b": normal(5)},
            "blocks": [{"norm": {"scale": normal(5), "shift": normal(5, seed=s)}, "w": normal(5, 5)} for s in (1, 2)],
            "out": normal(5, 1),
        },
        ROWS,
    ),
    transformer: (
        {
            "table": normal(V, D),
            "scale": normal(D),
            "qkv": normal(D, 3 * D),
            "mix": {"w": normal(D, D), "b": normal(D)},
        },
        (IDS, MASK),
    ),
    convolutional: (
        {"first": normal(3, 2, 2, 3) / 3, "b": normal(3), "second": normal(2, 2, 3, 2) / 3, "out": normal(12, 1)},
        (normal(N, 7, 8, 2), normal(N)),
    ),
    recurrent: ({"u": normal(5, 5) / 2, "w": {"w": normal(D, 5), "b": normal(5)}}, SEQUENCES),
    stacked: ({"w": normal(3, D, D) / 2, "b": normal(3, D)}, ROWS),
    one_by_one: ({"in": {"w": normal(D, 5), "b": normal(5)}, "out": normal(5, 1)}, (normal(N, 2, D), normal(N))),
    rearranged: (
        {"halves": normal(D, 2 * D), "stack": normal(2, D, D), "heads": normal(D, 2, 3)},
        (normal(N, 2, D), normal(N)),
    ),
}


def reference(function, params, *args):
    def loss(params, rows):
        return function(taps.plain, params, *(row[None] for row in rows))[0]

    return jax.vmap(jax.grad(loss), (None, 0))(params, args)


def flat(gradients):
    return jnp.concatenate([leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(gradients)], axis=1)


WEIGHT = np.array([2.0, 0.0, 1.0])


@pytest.mark.parametrize("function", MODELS, ids=lambda f: f.__name__)
def test_quantities_are_those_of_vmap_of_grad(function):
    params, args = jax.tree.map(jnp.asarray, MODELS[function])
    v = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape), params)

    @jax.jit
    def found(params, args, v):
        bp = taps.backprop(function, params, *args, weight=WEIGHT)
        return {
            "losses": bp.losses,
            "gradients": per_example.gradients(bp),
            "layers": per_example.layer_squared_norms(bp),
            "gradient": lr_nn.gradient(bp),
            "second": per_example.second_moment(bp),
            "gram": per_example.gram(bp),
            "along": per_example.inner_products(bp, v),
            "clipped": per_example.clipped_gradient(bp, 0.1),
        }

    @jax.jit
    def expected(params, args, v):
        gradients = reference(function, params, *args)
        rows, s = flat(gradients), WEIGHT / WEIGHT.sum()
        layers = [jnp.square(leaf.reshape(N, -1)).sum(axis=1) for leaf in jax.tree.leaves(gradients)]
        clip = s * jnp.minimum(1, 0.1 / jnp.linalg.norm(rows, axis=1))
        return {
            "losses": function(taps.plain, params, *args),
            "gradients": gradients,
            "layers": jnp.stack(layers, axis=1),
            "gradient": jax.tree.map(lambda g: jnp.tensordot(s, g, 1), gradients),
            "second": jax.tree.map(lambda g: jnp.tensordot(s, g * g, 1), gradients),
            "gram": rows @ rows.T,
            "along": rows @ flat(jax.tree.map(lambda leaf: leaf[None], v))[0],
            "clipped": jax.tree.map(lambda g: jnp.tensordot(clip, g, 1), gradients),
        }

    assert_trees_close(found(params, args, v), expected(params, args, v), length=10_000)


def test_a_network_of_ours_as_a_function_with_taps_has_the_same_pass():
    net = lr_nn.mlp((D, 6, 3), loss=losses.categorical)
    params = lr_nn.init(net, jax.random.key(0), jnp.float64)
    x, y, weight = normal(N, D), np.array([0, 2, 1]), np.array([1.0, 2.0, 3.0])

    def function(tap, params, x, y):
        eta = tap.dense(jax.nn.sigmoid(tap.dense(x, *params[0])), *params[1])
        return -jnp.take_along_axis(jax.nn.log_softmax(eta), y[:, None], 1)[:, 0]

    ours, tapped = (
        lr_nn.backprop(net, params, Batch(x, y, weight)),
        taps.backprop(function, params, x, y, weight=weight),
    )
    for quantity in (per_example.squared_norms, per_example.variance, per_example.noise_scale):
        assert_trees_close(quantity(tapped), quantity(ours), 50)
    noise = {"max_norm": 0.3, "noise_multiplier": 0.0, "expected_batch_size": 3}
    masked = [bp.__class__(**{**vars(bp), "weight": jnp.ones(N)}) for bp in (ours, tapped)]
    key = jax.random.key(0)
    assert_trees_close(*(private.private_gradient(bp, key, **noise) for bp in masked), 50)
    a, b = curvature.kfac(net, params, Batch(x, y, weight), kind="empirical"), curvature.kfac(tapped)
    for factors, found in zip(a.factors, b.factors):
        assert_close(found.a[0], factors.a, 20)
        assert_close(found.g[0], factors.g, 20)
    v = lr_nn.init(net, jax.random.key(1), jnp.float64)
    assert_trees_close(b @ v, a @ v, 50)
    assert_trees_close(b.solve(v, 0.1), a.solve(v, 0.1), 500)
    assert_close(b.logdet(0.1), a.logdet(0.1), 50)


def test_factors_of_stacked_layers_are_those_of_each_layer():
    params, (x, y) = jax.tree.map(jnp.asarray, MODELS[stacked])

    def one_after_another(tap, layers, x, y):
        for layer in layers:
            x = jnp.tanh(tap.dense(x, layer["w"].T, layer["b"]))
        return jnp.square(x.sum(axis=-1) - y)

    layers = [jax.tree.map(lambda leaf, i=i: leaf[i], params) for i in range(3)]
    whole = curvature.kfac(taps.backprop(stacked, params, x, y)).solve(params, 0.5)
    each = curvature.kfac(taps.backprop(one_after_another, layers, x, y)).solve(layers, 0.5)
    assert_trees_close(whole, jax.tree.map(lambda *leaves: jnp.stack(leaves), *each), 500)


def test_samples_of_the_factors_have_the_variance_of_their_inverse():
    params, args = jax.tree.map(jnp.asarray, MODELS[one_by_one])
    op = curvature.kfac(taps.backprop(one_by_one, params, *args))
    keys = jax.random.split(jax.random.key(0), 4000)
    draws = jax.vmap(lambda key: op.sample(key, 0.5)["out"])(keys)
    unit = jax.tree.map(jnp.zeros_like, params) | {"out": jnp.zeros((5, 1)).at[2, 0].set(1.0)}
    variance = op.solve(unit, 0.5)["out"][2, 0]
    assert abs(draws[:, 2, 0].var() / variance - 1) < 5 * (2 / 4000) ** 0.5


def test_the_pass_can_be_differentiated_and_jitted():
    params, args = jax.tree.map(jnp.asarray, MODELS[one_by_one])

    def penalty(params):
        return per_example.squared_norms(taps.backprop(one_by_one, params, *args)).sum()

    def expected(params):
        return jnp.square(flat(reference(one_by_one, params, *args))).sum()

    assert_trees_close(jax.jit(jax.grad(penalty))(params), jax.jit(jax.grad(expected))(params), 1000)


def test_integer_weights_are_duplicated_rows_and_padding_does_not_count():
    params, (x, y) = jax.tree.map(jnp.asarray, MODELS[residual_mlp])
    twice = taps.backprop(residual_mlp, params, x[jnp.array([0, 0, 2])], y[jnp.array([0, 0, 2])])
    weighted = taps.backprop(residual_mlp, params, x, y.at[1].set(jnp.nan), weight=WEIGHT)
    for quantity in (lr_nn.gradient, per_example.second_moment, per_example.noise_scale):
        assert_trees_close(quantity(weighted), quantity(twice), 100)


def gated(tap, params, x, y):
    return jnp.square(tap.dense(x * params["gate"][None], params["w"])[:, 0] - y)


GATED = {"w": normal(D, 1), "gate": normal(D)}


def test_a_leaf_without_a_tap_is_named_or_taken_by_vmap():
    with pytest.raises(ValueError, match=r"params\['gate'\] is used without a tap, by mul at .*test_taps.py"):
        taps.backprop(gated, GATED, *ROWS)
    bp = taps.backprop(gated, GATED, *ROWS, untapped="vmap")
    assert_trees_close(per_example.gradients(bp), reference(gated, GATED, *ROWS), 20)


def test_leaves_taken_by_vmap_leave_shared_arguments_whole():
    def shared(tap, params, x, scale):
        return jnp.square(tap.dense(x * params["gate"][None], params["w"])[:, 0] * scale.sum())

    scale = normal(5)
    bp = taps.backprop(shared, GATED, ROWS[0], scale, untapped="vmap", in_axes=(0, None))
    expected = jax.jit(jax.jacrev(lambda p: shared(taps.plain, p, ROWS[0], scale)))(GATED)
    assert_trees_close(per_example.gradients(bp), expected, 50)


def test_a_tapped_leaf_that_is_also_used_elsewhere_is_named():
    def decayed(tap, params, x, y):
        return gated(tap, params, x, y) + jnp.square(params["w"]).sum()

    with pytest.raises(ValueError, match=r"params\['w'\] is also used without a tap"):
        taps.backprop(decayed, GATED, *ROWS)


def test_frozen_weights_and_unused_leaves_have_no_gradient():
    def adapted(tap, params, x, y, frozen):
        return jnp.square((tap.dense(x, frozen) + tap.dense(tap.dense(x, params["a"]), params["b"]))[:, 0] - y)

    params = {"a": normal(D, 2), "b": normal(2, 1), "idle": normal(3)}
    bp = taps.backprop(adapted, params, *ROWS, normal(D, 1))
    assert not per_example.gradients(bp)["idle"].any()
    assert_close(per_example.squared_norms(bp), jnp.diagonal(per_example.gram(bp)), 50)


def test_half_precision_inside_gives_gradients_in_the_dtype_of_the_parameters():
    def half(tap, params, x, y):
        w = params["w"].astype(jnp.bfloat16)
        return jnp.square(tap.dense(x.astype(jnp.bfloat16), w)[:, 0].astype(jnp.float64) - y)

    params = {"w": GATED["w"]}
    bp = taps.backprop(half, params, *ROWS)
    found = per_example.gradients(bp)["w"]
    assert found.dtype == jnp.float64
    assert_close(found, reference(half, params, *ROWS)["w"], 4, jnp.bfloat16)


def loop(tap, params, x, y):
    h = jax.lax.while_loop(lambda h: jnp.abs(h).max() > 1, lambda h: tap.dense(h, params["w"]), x)
    return h.sum(axis=1) - y


def over_heads(tap, params, x, y):
    return jax.vmap(lambda w: tap.dense(x, w)[:, 0])(params["w"]).sum(axis=0) - y


def summed(tap, params, x, y):
    return gated(tap, params, x, y).sum()


def mixed(tap, params, x, y):
    return tap.dense(x.T, params["w"])[:, 0][: len(y)] - y


W = {"w": normal(D, D)}


@pytest.mark.parametrize(
    ("function", "params", "error", "message"),
    [
        (loop, W, NotImplementedError, "a tap inside of while"),
        (over_heads, {"w": normal(2, D, 1)}, NotImplementedError, "have an axis of vmap"),
        (summed, GATED, ValueError, r"must return the losses \(n,\)"),
        (mixed, {"w": normal(N, 1)}, ValueError, "must be that of the 3 examples"),
        (gated, {"w": normal(D, 1), "gate": np.arange(D)}, TypeError, r"params\['gate'\] must be of floats"),
        (gated, {"w": normal(D + 1, 1), "gate": normal(D)}, ValueError, r"dense expects x \(..., p\) and w"),
    ],
)
def test_what_a_tap_cannot_do_is_refused_by_name(function, params, error, message):
    with pytest.raises(error, match=message):
        taps.backprop(function, params, *ROWS)


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"weight": [1.0, 2.0]}, ValueError, r"weight must have shape \(3,\)"),
        ({"weight": [0.0, 0.0, 0.0]}, ValueError, "weight"),
        ({"untapped": "ignore"}, ValueError, "untapped must be"),
    ],
)
def test_bad_settings_are_refused(keywords, error, message):
    with pytest.raises(error, match=message):
        taps.backprop(gated, GATED, *ROWS, **keywords)


def test_quantities_refuse_passes_and_vectors_of_another_model():
    params, args = MODELS[one_by_one]
    bp, other = taps.backprop(one_by_one, params, *args), taps.backprop(gated, GATED, *ROWS, untapped="vmap")
    with pytest.raises(ValueError, match="same structure"):
        per_example.gram(bp, other)
    with pytest.raises(ValueError, match="v must be like the parameters"):
        per_example.inner_products(bp, GATED)
    with pytest.raises(ValueError, match="kind 'empirical'"):
        curvature.kfac(bp, kind="exact")
