"""Per-example quantities against gradients made by vmap(grad), and the laws of every function of a Backprop."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from cases import NETWORKS, N, NetworkCase, batch, network, on_device, parameters
from tolerances import assert_close, assert_mean_close, assert_trees_close

import lr_nn
from lr_nn import curvature, per_example, private
from lr_nn.network import Network
from lr_nn.types import Batch

LENGTH = 20
networks = pytest.mark.parametrize("case", NETWORKS.values(), ids=NETWORKS)
LAWFUL = ("categorical, 1 layer, no bias", "bernoulli, sigmoid, 2 layers")
lawful = pytest.mark.parametrize("case", [NETWORKS[name] for name in LAWFUL], ids=LAWFUL)


@reference.in_float64
@reference.compiled
def materialised(case, params, rows):
    """vmap(grad): the gradient of every example, with a leading n."""

    def single(params, row):
        return reference._losses(case, params, jax.tree.map(lambda a: a[None], row)).sum()

    return jax.vmap(jax.grad(single), (None, 0))(params, rows)


def swept(case, rows, dtype=None):
    return lr_nn.backprop(case.net, on_device(parameters(case.net), dtype), rows.x, rows.y, rows.offset)


def setting(case, seed=1, n=N):
    """Weighted rows, their pass, and their gradients by autodiff."""
    rows = batch(case, n, weighted=True, offset=True, seed=seed)
    return rows, swept(case, rows), materialised(case, parameters(case.net), rows._replace(weight=None))


def average(gradients, weight=None):
    return jax.tree.map(lambda g: np.average(g, axis=0, weights=weight), gradients)


def matrix(gradients):
    """(n, parameters)."""
    return np.concatenate([g.reshape(len(g), -1) for g in jax.tree.leaves(gradients)], axis=1)


def scaled(gradients, factors):
    return jax.tree.map(lambda g: np.einsum("n,n...->n...", factors, g), gradients)


def clip_factors(gradients, max_norm):
    return np.minimum(1, max_norm / np.maximum(np.linalg.norm(matrix(gradients), axis=1), 1e-300))


@networks
def test_gradients_are_those_of_vmap_grad_and_average_to_the_gradient(float64, case):
    rows, bp, g = setting(case)
    mine = jax.tree.map(np.asarray, per_example.gradients(bp))
    assert_trees_close(mine, g, LENGTH, np.float64)
    assert_trees_close(lr_nn.gradient(bp), average(mine), LENGTH)
    assert_trees_close(lr_nn.gradient(bp, rows.weight), average(mine, rows.weight), LENGTH)


@networks
def test_norms_are_those_of_the_materialised_gradients_in_all_and_layer_by_layer(float64, case):
    _, bp, g = setting(case)
    layers = np.stack([np.square(matrix(layer)).sum(axis=1) for layer in g], axis=1)
    assert_close(per_example.layer_squared_norms(bp), layers, LENGTH)
    assert_close(per_example.squared_norms(bp), np.square(matrix(g)).sum(axis=1), LENGTH)


@networks
def test_the_clipped_gradient_is_the_mean_of_clipped_gradients(float64, case):
    rows, bp, g = setting(case)
    middle = np.median(np.linalg.norm(matrix(g), axis=1))
    clipped = scaled(g, clip_factors(g, middle))
    assert_trees_close(per_example.clipped_gradient(bp, middle), average(clipped), LENGTH)
    assert_trees_close(per_example.clipped_gradient(bp, middle, rows.weight), average(clipped, rows.weight), LENGTH)
    assert_trees_close(per_example.clipped_gradient(bp, np.inf), average(g), LENGTH)
    assert_trees_close(per_example.clipped_gradient(bp, np.inf, rows.weight), average(g, rows.weight), LENGTH)


@networks
def test_layerwise_clipping_gives_every_layer_a_norm_of_its_own(float64, case):
    rows, bp, g = setting(case)
    bounds = [np.median(np.linalg.norm(matrix(layer), axis=1)) * (1 + i / 4) for i, layer in enumerate(g)]
    clipped = tuple(scaled(layer, clip_factors(layer, bound)) for layer, bound in zip(g, bounds))
    got = per_example.layer_clipped_gradient(bp, jnp.asarray(bounds), rows.weight)
    assert_trees_close(got, average(clipped, rows.weight), LENGTH)
    one_bound = tuple(scaled(layer, clip_factors(layer, bounds[0])) for layer in g)
    assert_trees_close(per_example.layer_clipped_gradient(bp, bounds[0]), average(one_bound), LENGTH)
    assert_trees_close(per_example.layer_clipped_gradient(bp, np.inf, rows.weight), average(g, rows.weight), LENGTH)


def test_no_clipped_gradient_is_longer_than_max_norm_and_shorter_ones_are_kept(float64):
    _, bp, g = setting(NETWORKS["categorical, relu, 3 layers"])
    norms = np.linalg.norm(matrix(g), axis=1)
    middle = np.median(norms)
    alone = jax.vmap(lambda s: per_example.clipped_gradient(bp, middle, s))(jnp.eye(N))
    assert_close(np.linalg.norm(matrix(jax.tree.map(np.asarray, alone)), axis=1), np.minimum(norms, middle), LENGTH)


def test_a_gradient_of_zero_is_clipped_to_zero(float64):
    case = NETWORKS["squared_error, 1 layer"]
    rows, params = batch(case), on_device(parameters(case.net))
    bp = lr_nn.backprop(case.net, params, rows.x, lr_nn.predict(case.net, params, rows.x))
    for clip in (per_example.clipped_gradient, per_example.layer_clipped_gradient):
        assert not any(leaf.any() for leaf in jax.tree.leaves(clip(bp, 1.0)))


@networks
def test_moments_and_signal_to_noise_are_those_of_the_materialised_gradients(float64, case):
    rows, bp, g = setting(case)
    for s in (None, rows.weight):
        mean, moment = average(g, s), average(jax.tree.map(np.square, g), s)
        spread = average(jax.tree.map(lambda a, m: np.square(a - m[None]), g, mean), s)
        assert_trees_close(per_example.second_moment(bp, s), moment, LENGTH)
        assert_trees_close(per_example.variance(bp, s), spread, LENGTH)
        for ratio, *parts in zip(*map(jax.tree.leaves, (per_example.signal_to_noise(bp, s), mean, moment, spread))):
            m, m2, v = (part[parts[0] != 0] for part in parts)
            assert_close(np.asarray(ratio)[parts[0] != 0], m * m / v, LENGTH, condition=(m2 / v).max(initial=1))
            assert not ratio[parts[0] == 0].any()


def test_the_signal_of_one_example_is_free_of_noise_and_a_dead_unit_has_none(float64):
    case = network("squared_error", "relu", depth=2)
    rows = batch(case, n=1)
    bp = swept(case, rows)
    alive = np.asarray(bp.activations[1][0]) > 0
    assert alive.any() and not alive.all(), "the test needs units of both kinds"
    assert np.asarray(per_example.signal_to_noise(bp)[0].b).tolist() == np.where(alive, np.inf, 0).tolist()
    assert all((leaf >= 0).all() for leaf in jax.tree.leaves(per_example.variance(bp)))


@networks
def test_the_gram_matrix_holds_all_inner_products_within_a_batch_and_between_two(float64, case):
    (_, bp, g), (_, other, h) = setting(case), setting(case, seed=2, n=4)
    assert_close(per_example.gram(bp), matrix(g) @ matrix(g).T, LENGTH)
    assert_close(per_example.gram(bp, other), matrix(g) @ matrix(h).T, LENGTH)
    assert_close(np.diagonal(per_example.gram(bp)), per_example.squared_norms(bp), LENGTH)


@networks
def test_the_noise_scale_is_the_unbiased_variance_over_the_unbiased_signal(float64, case):
    _, bp, g = setting(case)
    rows = matrix(g)
    products = rows @ rows.T
    trace = rows.var(axis=0, ddof=1).sum()
    signal = products[~np.eye(N, dtype=bool)].mean()
    got = per_example.noise_scale(bp)
    condition = np.diagonal(products).mean() / min(abs(signal), trace)
    for value, expected in zip(got, (trace, signal, trace / signal)):
        assert_close(value, expected, LENGTH, condition=condition)


def test_the_noise_scale_solves_the_equations_of_two_batch_sizes(float64):
    """E‖G_B‖² = ‖G‖² + tr Σ / B, at both sizes."""
    signal, trace, sizes = 3.0, 5.0, np.array([4.0, 64.0])
    small, big = signal + trace / sizes
    got = per_example.noise_scale_of_norms(small, sizes[0], big, sizes[1])
    for value, expected in zip(got, (trace, signal, trace / signal)):
        assert_close(value, expected, condition=10)


def test_the_noise_scale_is_unbiased_over_draws_of_a_population():
    case, size = NETWORKS["bernoulli, sigmoid, 2 layers"], 32
    rows = on_device(batch(case, size), jnp.float32)
    params = on_device(parameters(case.net), jnp.float32)
    g = matrix(materialised(case, parameters(case.net), batch(case, size)))
    signal = np.square(g.mean(axis=0)).sum()
    expected = (g.var(axis=0).sum(), signal)

    @jax.jit
    @jax.vmap
    def draw(key):
        bp = lr_nn.backprop(case.net, params, *(a[jax.random.randint(key, (8,), 0, size)] for a in rows[:2]))
        small, big = (
            sum((leaf * leaf).sum() for leaf in jax.tree.leaves(lr_nn.gradient(bp, jnp.arange(8) < b))) for b in (2, 8)
        )
        return per_example.noise_scale(bp)[:2], per_example.noise_scale_of_norms(small, 2, big, 8)[:2]

    one_batch, two_batches = draw(jax.random.split(jax.random.key(0), 2000))
    assert_mean_close(np.stack(one_batch, axis=1), expected)
    assert_mean_close(np.stack(two_batches, axis=1), expected)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bfloat16", "float16"])
def test_half_precision_accumulates_norms_and_moments_in_float32(dtype):
    """Rows long enough that a norm leaves float16, and that a sum kept in either half is seen."""
    like = network("squared_error", "relu", depth=2)
    case = NetworkCase(Network((300, 5, 3), like.net.hidden, like.net.loss), like.hidden, like.loss)
    rows = batch(case, weighted=True)
    bp = lr_nn.backprop(case.net, on_device(parameters(case.net), dtype), 30 * rows.x, rows.y)
    assert {leaf.dtype for leaf in jax.tree.leaves(bp)} == {jnp.dtype(dtype)}

    @jax.jit
    def quantities(bp, s):
        shares = jax.tree.map(lambda ratio: ratio / (1 + ratio), per_example.signal_to_noise(bp, s))
        return (
            *(per_example.squared_norms(bp), per_example.layer_squared_norms(bp), per_example.gram(bp)),
            *(per_example.second_moment(bp, s), per_example.variance(bp, s), shares),
            *(per_example.noise_scale(bp, s)[:2], curvature.kfac.empirical_factors(bp, s)),
        )

    got, clipped = quantities(bp, rows.weight), per_example.clipped_gradient(bp, 2.0, rows.weight)
    assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype(jnp.float32)}
    assert {leaf.dtype for leaf in jax.tree.leaves(clipped)} == {jnp.dtype(dtype)}
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(np.asarray(a).astype(np.float64)), bp)
        assert_trees_close(got, quantities(wide, rows.weight), 300)
        assert_trees_close(clipped, per_example.clipped_gradient(wide, 2.0, rows.weight), LENGTH)


def direction(params):
    """Some v, shaped like the parameters and made of them."""
    return jax.tree.map(lambda a: jnp.cos(7 * a), params)


def fixed_factors(net, dtype=float):
    """Kronecker factors that owe nothing to the data, so that an eigenbasis of them is the same for every batch."""
    rng = np.random.default_rng(5)
    for d_in, d_out in net.shapes:
        a, g = (rng.normal(size=(size, size)) for size in (d_in + net.bias, d_out))
        yield curvature.kfac.Factors(jnp.asarray(a + a.T, dtype), jnp.asarray(g + g.T, dtype))


def means(net, params, bp, s):
    """Everything that takes example weights: each a mean over examples, but for the noise scale."""
    at, v = (net, params, bp), direction(params)
    ratio = per_example.signal_to_noise(bp, s)
    found = {
        "gradient": lr_nn.gradient(bp, s),
        "clipped_gradient": per_example.clipped_gradient(bp, 0.5, s),
        "layer_clipped_gradient": per_example.layer_clipped_gradient(bp, 0.5, s),
        "second_moment": per_example.second_moment(bp, s),
        "variance": per_example.variance(bp, s),
        "signal_to_noise": jax.tree.map(lambda r: r / (1 + r), ratio),
        "noise_scale": jnp.stack(per_example.noise_scale(bp, s)[:2]),
        "ggn.multiply": curvature.ggn.multiply(*at, v, s),
        "hessian.multiply": curvature.hessian.multiply(*at, v, s),
        "empirical_fisher.multiply": curvature.empirical_fisher.multiply(*at, v, s),
        "ggn.diagonal": curvature.ggn.diagonal(*at, s),
        "empirical_fisher.diagonal": curvature.empirical_fisher.diagonal(*at, s),
        "kfac.factors": curvature.kfac.factors(*at, s),
        "kfac.empirical_factors": curvature.kfac.empirical_factors(bp, s),
        "kfac.eigenbasis": [
            b.moments for b in curvature.kfac.eigenbasis(*at, tuple(fixed_factors(net, bp.eta.dtype)), s)
        ],
        "kfac.empirical_eigenbasis": [
            b.moments for b in curvature.kfac.empirical_eigenbasis(bp, tuple(fixed_factors(net, bp.eta.dtype)), s)
        ],
    }
    return found | ({"hessian.diagonal": curvature.hessian.diagonal(*at, s)} if len(params) == 1 else {})


def drawn(net, params, bp, s):
    """Everything that takes a key."""
    at, key, factors = (net, params, bp), jax.random.key(0), tuple(fixed_factors(net, bp.eta.dtype))
    noise = {"max_norm": 0.5, "noise_multiplier": 1.0, "expected_batch_size": 5.0}
    return {
        "ggn.sampled_diagonal": curvature.ggn.sampled_diagonal(*at, s, key=key),
        "kfac.sampled_factors": curvature.kfac.sampled_factors(*at, s, key=key, samples=2),
        "kfac.sampled_eigenbasis": [
            b.moments for b in curvature.kfac.sampled_eigenbasis(*at, factors, s, key=key, samples=2)
        ],
        "private_gradient": private.private_gradient(bp, key, weight=s / s.max(), **noise),
    }


def each(net, params, bp):
    """Everything with an axis of examples, and the number of such axes."""
    return {
        "gradients": (per_example.gradients(bp), 1),
        "squared_norms": (per_example.squared_norms(bp), 1),
        "layer_squared_norms": (per_example.layer_squared_norms(bp), 1),
        "ggn.trace": (curvature.ggn.trace(net, params, bp), 1),
        "gram": (per_example.gram(bp), 2),
        "ntk": (curvature.ntk(net, params, bp.activations), 2),
        "ntk_trace": (curvature.ntk_trace(net, params, bp.activations), 2),
    }


compiled_means = jax.jit(means, static_argnums=0)


def assert_same(actual, desired, without=()):
    assert actual.keys() == desired.keys()
    for name in actual.keys() - set(without):
        assert_trees_close(actual[name], desired[name], LENGTH)


def taken(rows, order):
    return jax.tree.map(lambda a: a[order], rows)


@lawful
def test_integer_weights_are_duplicated_rows(float64, case):
    rows, params = batch(case), on_device(parameters(case.net))
    counts = np.array([2.0, 0, 1, 3, 0, 1, 0])
    assert counts.sum() == N, "as many rows as before: one compiled shape"
    weighted = compiled_means(case.net, params, swept(case, rows), counts)
    assert_same(
        weighted,
        compiled_means(case.net, params, swept(case, taken(rows, np.repeat(range(N), counts.astype(int)))), None),
    )


@lawful
def test_weights_of_one_are_no_weights_and_only_their_ratios_matter(float64, case):
    params, bp = on_device(parameters(case.net)), swept(case, batch(case))
    assert_same(compiled_means(case.net, params, bp, np.ones(N)), compiled_means(case.net, params, bp, None))
    s = batch(case, weighted=True).weight
    once, thrice = (compiled_means(case.net, params, bp, factor * s) for factor in (1, 3))
    assert_same(once, thrice, without=["noise_scale"])


@lawful
def test_padding_rows_of_weight_zero_change_nothing(float64, case):
    rows, params = batch(case, weighted=True), on_device(parameters(case.net))
    real = np.arange(N) < N - 2
    padded = Batch(*(np.einsum("n,n...->n...", real, a).astype(a.dtype) for a in rows[:2]))
    before, after = (compiled_means(case.net, params, swept(case, r), rows.weight * real) for r in (rows, padded))
    assert_same(after, before)


@lawful
def test_permuting_examples_permutes_what_is_per_example_and_keeps_what_is_a_mean(float64, case):
    rows, params = batch(case, weighted=True), on_device(parameters(case.net))
    order = np.random.default_rng(3).permutation(N)
    bp, moved = swept(case, rows), swept(case, taken(rows, order))
    assert_same(
        compiled_means(case.net, params, moved, rows.weight[order]), compiled_means(case.net, params, bp, rows.weight)
    )
    before, after = (each(case.net, params, b) for b in (bp, moved))
    for name, (value, axes) in before.items():
        picked = jax.tree.map(lambda a, axes=axes: np.asarray(a)[np.ix_(*[order] * axes)], value)
        assert_trees_close(after[name][0], picked, LENGTH)


def test_a_batch_axis_goes_through_jit_vmap_and_scan(float64):
    case = NETWORKS["bernoulli, sigmoid, 2 layers"]
    params, two = on_device(parameters(case.net)), [batch(case, weighted=True, seed=seed) for seed in (1, 2)]

    def each_alone(bp):
        return {name: value for name, (value, _) in each(case.net, params, bp).items()}

    def all_of(bp, s):
        return {**means(case.net, params, bp, s), **drawn(case.net, params, bp, s), **each_alone(bp)}

    passes = [swept(case, rows) for rows in two]
    alone = [jax.jit(all_of)(bp, jnp.asarray(rows.weight)) for bp, rows in zip(passes, two)]
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *((bp, jnp.asarray(rows.weight)) for bp, rows in zip(passes, two)))
    together = jax.tree.map(lambda *a: np.stack(a), *alone)

    @jax.jit
    def both_ways(*stacked):
        return jax.vmap(all_of)(*stacked), jax.lax.scan(lambda carry, a: (carry, all_of(*a)), 0, stacked)[1]

    for got in both_ways(*stacked):
        assert_same(got, together)


def test_a_sharded_batch_axis_gives_the_same_and_is_never_gathered():
    case = NETWORKS["bernoulli, sigmoid, 2 layers"]
    params, rows = on_device(parameters(case.net), jnp.float32), batch(case, n=16, dtype=np.float32, weighted=True)
    rows = on_device(rows, jnp.float32)
    split = jax.sharding.NamedSharding(
        jax.sharding.Mesh(np.array(jax.devices()), ("batch",)), jax.sharding.PartitionSpec("batch")
    )

    @jax.jit
    def quantities(params, x, y, s):
        bp = lr_nn.backprop(case.net, params, x, y)
        at = (case.net, params, bp)
        return per_example.squared_norms(bp), (means(*at, s), drawn(*at, s), curvature.ggn.trace(*at))

    spread = jax.device_put(rows[:3], split)
    assert len(spread[0].addressable_shards) == 8 == len(jax.devices())
    norms, others = quantities(params, *spread)
    assert norms.sharding.is_equivalent_to(split, 1)
    assert_trees_close((norms, others), quantities(params, *rows[:3]), LENGTH)
    program = quantities.lower(params, *spread).compile().as_text()
    assert not [moved for moved in ("all-gather", "all-to-all", "collective-permute") if moved in program]


@lawful
def test_a_batch_of_nothing_but_padding_has_finite_means(float64, case):
    params, rows = on_device(parameters(case.net)), batch(case)
    found = compiled_means(case.net, params, swept(case, rows), np.zeros(N))
    found.pop("noise_scale")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def one_layer(x, y, w=(1.0, 1.0), loss=lr_nn.losses.squared_error):
    """A pass of one output over rows of two features, in float32."""
    net = lr_nn.Network((2, 1), (), loss)
    params = (lr_nn.types.Layer(jnp.asarray(w, jnp.float32)[:, None], jnp.zeros(1)),)
    return net, params, lr_nn.backprop(net, params, np.asarray(x, float), np.asarray(y, float))


@pytest.mark.parametrize("jitted", [False, True])
def test_a_row_of_weight_zero_counts_for_nothing_even_where_its_loss_is_infinite(jitted):
    """exp(1000) overflows: the loss, the error and every curvature of the last row are infinite."""
    rows = [[1.0, 0.0], [0.5, 1.0], [1000.0, 0.0]]
    net, params, bp = one_layer(rows, [1, 0, 1], loss=lr_nn.losses.poisson)
    _, _, few = one_layer(rows[:2], [1, 0], loss=lr_nn.losses.poisson)

    quantities = compiled_means if jitted else means
    found, expected = quantities(net, params, bp, jnp.array([1.0, 1.0, 0.0])), quantities(net, params, few, None)
    assert np.isinf(bp.deltas[0][2, 0])
    found["noise_scale"], expected["noise_scale"] = found["noise_scale"][:1], expected["noise_scale"][:1]
    assert_same(found, expected)
    batches = [
        lr_nn.Batch(np.asarray(rows), np.array([1.0, 0, 1]), np.array([1.0, 1, 0])),
        lr_nn.Batch(rows[:2], [1.0, 0]),
    ]
    assert_trees_close(*(lr_nn.value_and_gradient(net, params, each) for each in batches), LENGTH)


@pytest.mark.parametrize("size", [1e-12, 1e-24, 1e12, 1e18])
def test_clipping_does_not_square_what_would_overflow_or_vanish(size):
    _, _, bp = one_layer([[size, 0.0]], [0.0], w=(0.0, 1.0))
    bp = dataclasses.replace(bp, deltas=(jnp.full((1, 1), size, jnp.float32),))
    bound = size / 100
    clipped = jax.tree.leaves(per_example.clipped_gradient(bp, bound))
    length = float(np.sqrt(sum(np.square(np.asarray(leaf, np.float64)).sum() for leaf in clipped)))
    np.testing.assert_allclose(length, bound, rtol=1e-5)


def test_an_example_whose_gradient_is_not_finite_keeps_the_bound_and_infinity_clips_nothing():
    _, _, bp = one_layer([[1.0, 0.0], [1000.0, 0.0]], [1, 1], loss=lr_nn.losses.poisson)
    _, _, first = one_layer([[1.0, 0.0]], [1], loss=lr_nn.losses.poisson)
    got = per_example.clipped_gradient(bp, 1.0)
    assert_trees_close(got, jax.tree.map(lambda g: g / 2, per_example.clipped_gradient(first, 1.0)), LENGTH)
    assert not np.isfinite(per_example.clipped_gradient(bp, np.inf)[0].w).all()


def test_a_gradient_of_zero_has_norm_zero_and_clipping_it_has_a_derivative():
    _, _, bp = one_layer([[1e20, 0.0], [1.0, 1.0]], [1.0, 0.0], loss=lr_nn.losses.bernoulli)
    assert bp.deltas[0][0, 0] == 0 == per_example.squared_norms(bp)[0]
    net, params, _ = one_layer([[1.0, 1.0], [1.0, 1.0]], [0.0, 1.0], w=(0.0, 0.0))

    def length(params):
        bp = lr_nn.backprop(net, params, jnp.ones((2, 2)), jnp.array([0.0, 1.0]))
        return sum((leaf**2).sum() for leaf in jax.tree.leaves(per_example.clipped_gradient(bp, 1.0)))

    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.grad(length)(params)))


@pytest.mark.parametrize("size", [1e-9, 1e5, 1e30])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.float32])
def test_a_common_factor_of_the_weights_changes_nothing_in_any_precision(dtype, size):
    case = NETWORKS["bernoulli, sigmoid, 2 layers"]
    bp = swept(case, batch(case), dtype)
    s = batch(case, weighted=True).weight.astype(np.float32)
    assert_trees_close(lr_nn.gradient(bp, size * s), lr_nn.gradient(bp, s), LENGTH, dtype)


def one_pass(case=NETWORKS["squared_error, 1 layer"]):
    return swept(case, batch(case), jnp.float32)


CLIP, LAYER_CLIP = per_example.clipped_gradient, per_example.layer_clipped_gradient
REFUSALS = {
    "max_norm zero": (lambda: CLIP(one_pass(), 0), ValueError, "max_norm must be positive; got 0"),
    "max_norm negative": (lambda: CLIP(one_pass(), -1.0), ValueError, "max_norm must be positive; got -1"),
    "max_norm NaN": (lambda: CLIP(one_pass(), np.nan), ValueError, "max_norm must be positive; got nan"),
    "a max_norm for each example": (lambda: CLIP(one_pass(), np.ones(N)), ValueError, r"single number.*\(7,\)"),
    "max_norm text": (lambda: CLIP(one_pass(), "1"), TypeError, "max_norm must be.*real numbers"),
    "a layer's max_norm negative": (
        lambda: LAYER_CLIP(one_pass(), [-1.0]),
        ValueError,
        "max_norms must be positive.*row 0",
    ),
    "weight negative": (lambda: CLIP(one_pass(), 1, -np.ones(N)), ValueError, "weight must be.*not negative"),
    "weight too short": (lambda: per_example.variance(one_pass(), np.ones(3)), ValueError, r"shape \(7,\).*got \(3,\)"),
    "lanes without vmap": (
        lambda: per_example.squared_norms(jax.tree.map(lambda a: jnp.stack([a, a]), one_pass())),
        ValueError,
        "lanes go through vmap",
    ),
    "deltas of other rows": (
        lambda: per_example.squared_norms(
            dataclasses.replace(one_pass(), deltas=tuple(d[:1] for d in one_pass().deltas))
        ),
        ValueError,
        "over the same n rows",
    ),
    "a layer short": (
        lambda: CLIP(dataclasses.replace(one_pass(), activations=()), 1.0),
        ValueError,
        "as many activations as deltas",
    ),
    "no pass at all": (lambda: per_example.gradients(()), TypeError, "expected a Backprop.*got tuple"),
    "batches of one size": (
        lambda: per_example.noise_scale_of_norms(1.0, 4, 1.0, 4),
        ValueError,
        "big_size - small_size must be positive",
    ),
    "a batch of no rows": (lambda: per_example.noise_scale_of_norms(1.0, 0, 1.0, 4), ValueError, "small_size must be"),
    "gram of two networks": (
        lambda: per_example.gram(one_pass(), one_pass(network("squared_error"))),
        ValueError,
        "from one network",
    ),
    "gram with and without bias": (
        lambda: per_example.gram(one_pass(), one_pass(network("squared_error", depth=1, bias=False))),
        ValueError,
        "from one network",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS.values(), ids=REFUSALS)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
