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
    return lr_nn.backprop(case.net, on_device(parameters(case.net), dtype), rows)


def reweighted(bp, weight):
    return dataclasses.replace(bp, weight=weight)


def setting(case, seed=1, n=N):
    """Weighted rows, their pass with and without the weights, and their gradients by autodiff."""
    rows = batch(case, n, weighted=True, offset=True, seed=seed)
    bp = swept(case, rows)
    gradients = materialised(case, parameters(case.net), rows._replace(weight=None))
    return rows.weight, bp, reweighted(bp, None), gradients


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
    s, bp, plain, g = setting(case)
    mine = jax.tree.map(np.asarray, per_example.gradients(bp))
    assert_trees_close(mine, g, LENGTH, np.float64)
    assert_trees_close(lr_nn.gradient(plain), average(mine), LENGTH)
    assert_trees_close(lr_nn.gradient(bp), average(mine, s), LENGTH)


@networks
def test_norms_are_those_of_the_materialised_gradients_in_all_and_layer_by_layer(float64, case):
    _, bp, _, g = setting(case)
    layers = np.stack([np.square(matrix(layer)).sum(axis=1) for layer in g], axis=1)
    assert_close(per_example.layer_squared_norms(bp), layers, LENGTH)
    assert_close(per_example.squared_norms(bp), np.square(matrix(g)).sum(axis=1), LENGTH)


@networks
def test_the_clipped_gradient_is_the_mean_of_clipped_gradients(float64, case):
    s, bp, plain, g = setting(case)
    middle = np.median(np.linalg.norm(matrix(g), axis=1))
    clipped = scaled(g, clip_factors(g, middle))
    assert_trees_close(per_example.clipped_gradient(plain, middle), average(clipped), LENGTH)
    assert_trees_close(per_example.clipped_gradient(bp, middle), average(clipped, s), LENGTH)
    assert_trees_close(per_example.clipped_gradient(plain, np.inf), average(g), LENGTH)
    assert_trees_close(per_example.clipped_gradient(bp, np.inf), average(g, s), LENGTH)


@networks
def test_layerwise_clipping_gives_every_layer_a_norm_of_its_own(float64, case):
    s, bp, plain, g = setting(case)
    bounds = [np.median(np.linalg.norm(matrix(layer), axis=1)) * (1 + i / 4) for i, layer in enumerate(g)]
    clipped = tuple(scaled(layer, clip_factors(layer, bound)) for layer, bound in zip(g, bounds))
    assert_trees_close(per_example.layer_clipped_gradient(bp, jnp.asarray(bounds)), average(clipped, s), LENGTH)
    one_bound = tuple(scaled(layer, clip_factors(layer, bounds[0])) for layer in g)
    assert_trees_close(per_example.layer_clipped_gradient(plain, bounds[0]), average(one_bound), LENGTH)
    assert_trees_close(per_example.layer_clipped_gradient(bp, np.inf), average(g, s), LENGTH)


def test_no_clipped_gradient_is_longer_than_max_norm_and_shorter_ones_are_kept(float64):
    _, bp, _, g = setting(NETWORKS["categorical, relu, 3 layers"])
    norms = np.linalg.norm(matrix(g), axis=1)
    middle = np.median(norms)
    alone = jax.vmap(lambda s: per_example.clipped_gradient(reweighted(bp, s), middle))(jnp.eye(N))
    assert_close(np.linalg.norm(matrix(jax.tree.map(np.asarray, alone)), axis=1), np.minimum(norms, middle), LENGTH)


def test_a_gradient_of_zero_is_clipped_to_zero(float64):
    case = NETWORKS["squared_error, 1 layer"]
    rows, params = batch(case), on_device(parameters(case.net))
    bp = lr_nn.backprop(case.net, params, Batch(rows.x, lr_nn.predict(case.net, params, rows.x)))
    for clip in (per_example.clipped_gradient, per_example.layer_clipped_gradient):
        assert not any(leaf.any() for leaf in jax.tree.leaves(clip(bp, 1.0)))


@networks
def test_moments_and_signal_to_noise_are_those_of_the_materialised_gradients(float64, case):
    weight, weighted, plain, g = setting(case)
    for s, bp in ((None, plain), (weight, weighted)):
        mean, moment = average(g, s), average(jax.tree.map(np.square, g), s)
        spread = average(jax.tree.map(lambda a, m: np.square(a - m[None]), g, mean), s)
        assert_trees_close(per_example.second_moment(bp), moment, LENGTH)
        assert_trees_close(per_example.variance(bp), spread, LENGTH)
        for ratio, *parts in zip(*map(jax.tree.leaves, (per_example.signal_to_noise(bp), mean, moment, spread))):
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
    (_, bp, _, g), (_, other, _, h) = setting(case), setting(case, seed=2, n=4)
    assert_close(per_example.gram(bp), matrix(g) @ matrix(g).T, LENGTH)
    assert_close(per_example.gram(bp, other), matrix(g) @ matrix(h).T, LENGTH)
    assert_close(np.diagonal(per_example.gram(bp)), per_example.squared_norms(bp), LENGTH)


@networks
def test_the_noise_scale_is_the_unbiased_variance_over_the_unbiased_signal(float64, case):
    _, _, bp, g = setting(case)
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
        drawn = jax.tree.map(lambda a: a[jax.random.randint(key, (8,), 0, size)], rows)
        bp = lr_nn.backprop(case.net, params, drawn)
        firsts = (lr_nn.gradient(reweighted(bp, (jnp.arange(8) < b).astype(float))) for b in (2, 8))
        small, big = (sum((leaf * leaf).sum() for leaf in jax.tree.leaves(first)) for first in firsts)
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
    bp = swept(case, rows._replace(x=30 * rows.x), dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves(bp.activations)} == {jnp.dtype(dtype)}

    @jax.jit
    def quantities(bp):
        shares = jax.tree.map(lambda ratio: ratio / (1 + ratio), per_example.signal_to_noise(bp))
        return (
            *(per_example.squared_norms(bp), per_example.layer_squared_norms(bp), per_example.gram(bp)),
            *(per_example.second_moment(bp), per_example.variance(bp), shares),
            per_example.noise_scale(bp)[:2],
        )

    got, clipped = quantities(bp), per_example.clipped_gradient(bp, 2.0)
    assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype(jnp.float32)}
    assert {leaf.dtype for leaf in jax.tree.leaves(clipped)} == {jnp.dtype(dtype)}
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(np.asarray(a).astype(np.float64)), bp)
        assert_trees_close(got, quantities(wide), 300)
        assert_trees_close(clipped, per_example.clipped_gradient(wide, 2.0), LENGTH, dtype)


def direction(params):
    """Some v, shaped like the parameters and made of them."""
    return jax.tree.map(lambda a: jnp.cos(7 * a), params)


def means(net, params, rows):
    """Everything that is a weighted mean over examples, but for the noise scale, which knows n = Σ s."""
    bp, v = lr_nn.backprop(net, params, rows), direction(params)
    operators = {name: getattr(curvature, name)(net, params, rows) for name in ("ggn", "hessian", "empirical_fisher")}
    found = {
        "gradient": lr_nn.gradient(bp),
        "clipped_gradient": per_example.clipped_gradient(bp, 0.5),
        "layer_clipped_gradient": per_example.layer_clipped_gradient(bp, 0.5),
        "second_moment": per_example.second_moment(bp),
        "variance": per_example.variance(bp),
        "signal_to_noise": jax.tree.map(lambda r: r / (1 + r), per_example.signal_to_noise(bp)),
        "noise_scale": jnp.stack(per_example.noise_scale(bp)[:2]),
        "ggn diagonal": operators["ggn"].diagonal(),
        "empirical Fisher diagonal": operators["empirical_fisher"].diagonal(),
        "kfac": curvature.kfac(net, params, rows).factors,
        "kfac, empirical": curvature.kfac(net, params, rows, kind="empirical").factors,
    }
    return found | {f"{name} times v": operator @ v for name, operator in operators.items()}


def drawn(net, params, rows):
    """Everything that takes a key."""
    key, noise = jax.random.key(0), {"max_norm": 0.5, "noise_multiplier": 1.0, "expected_batch_size": 5.0}
    mask = rows._replace(weight=rows.weight / rows.weight.max())
    return {
        "kfac, sampled": curvature.kfac(net, params, rows, kind="sampled", key=key).factors,
        "private_gradient": private.private_gradient(lr_nn.backprop(net, params, mask), key, **noise),
    }


def each(net, params, rows):
    """Everything with an axis of examples, and the number of such axes."""
    bp = lr_nn.backprop(net, params, rows)
    return {
        "gradients": (per_example.gradients(bp), 1),
        "squared_norms": (per_example.squared_norms(bp), 1),
        "layer_squared_norms": (per_example.layer_squared_norms(bp), 1),
        "inner_products": (per_example.inner_products(bp, direction(params)), 1),
        "gram": (per_example.gram(bp), 2),
        "ntk": (curvature.ntk(net, params, rows.x), 2),
        "ntk_trace": (curvature.ntk_trace(net, params, rows.x), 2),
    }


compiled_means = jax.jit(means)


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
    weighted = compiled_means(case.net, params, rows._replace(weight=counts))
    duplicated = taken(rows, np.repeat(range(N), counts.astype(int)))
    assert_same(weighted, compiled_means(case.net, params, duplicated))


@lawful
def test_weights_of_one_are_no_weights_and_only_their_ratios_matter(float64, case):
    params, rows = on_device(parameters(case.net)), batch(case, weighted=True)
    ones, none = (compiled_means(case.net, params, rows._replace(weight=s)) for s in (np.ones(N), None))
    assert_same(ones, none)
    once, thrice = (compiled_means(case.net, params, rows._replace(weight=f * rows.weight)) for f in (1, 3))
    assert_same(once, thrice, without=["noise_scale"])


@lawful
def test_padding_rows_of_weight_zero_change_nothing(float64, case):
    rows, params = batch(case, weighted=True), on_device(parameters(case.net))
    real = np.arange(N) < N - 2
    masked = rows._replace(weight=rows.weight * real)
    padded = Batch(*(np.einsum("n,n...->n...", real, a).astype(a.dtype) for a in masked[:3]))
    before, after = (compiled_means(case.net, params, r) for r in (masked, padded))
    assert_same(after, before)


@lawful
def test_permuting_examples_permutes_what_is_per_example_and_keeps_what_is_a_mean(float64, case):
    rows, params = batch(case, weighted=True), on_device(parameters(case.net))
    order = np.random.default_rng(3).permutation(N)
    moved = taken(rows, order)
    assert_same(compiled_means(case.net, params, moved), compiled_means(case.net, params, rows))
    before, after = (each(case.net, params, r) for r in (rows, moved))
    for name, (value, axes) in before.items():
        picked = jax.tree.map(lambda a, axes=axes: np.asarray(a)[np.ix_(*[order] * axes)], value)
        assert_trees_close(after[name][0], picked, LENGTH)


def test_a_batch_axis_goes_through_jit_vmap_and_scan(float64):
    case = NETWORKS["bernoulli, sigmoid, 2 layers"]
    params = on_device(parameters(case.net))
    two = [on_device(batch(case, weighted=True, seed=seed)) for seed in (1, 2)]

    def all_of(rows):
        per_row = {name: value for name, (value, _) in each(case.net, params, rows).items()}
        return {**means(case.net, params, rows), **drawn(case.net, params, rows), **per_row}

    alone = [jax.jit(all_of)(rows) for rows in two]
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *two)
    together = jax.tree.map(lambda *a: np.stack(a), *alone)

    @jax.jit
    def both_ways(stacked):
        return jax.vmap(all_of)(stacked), jax.lax.scan(lambda carry, rows: (carry, all_of(rows)), 0, stacked)[1]

    for got in both_ways(stacked):
        assert_same(got, together)


def test_a_sharded_batch_axis_gives_the_same_and_is_never_gathered():
    case = NETWORKS["bernoulli, sigmoid, 2 layers"]
    params, rows = on_device(parameters(case.net), jnp.float32), batch(case, n=16, dtype=np.float32, weighted=True)
    rows = on_device(rows, jnp.float32)
    split = jax.sharding.NamedSharding(
        jax.sharding.Mesh(np.array(jax.devices()), ("batch",)), jax.sharding.PartitionSpec("batch")
    )

    @jax.jit
    def quantities(params, rows):
        at = (case.net, params, rows)
        return per_example.squared_norms(lr_nn.backprop(*at)), (means(*at), drawn(*at))

    spread = jax.device_put(rows, split)
    assert len(spread.x.addressable_shards) == 8 == len(jax.devices())
    norms, others = quantities(params, spread)
    assert norms.sharding.is_equivalent_to(split, 1)
    assert_trees_close((norms, others), quantities(params, rows), LENGTH)
    program = quantities.lower(params, spread).compile().as_text()
    assert not [moved for moved in ("all-gather", "all-to-all", "collective-permute") if moved in program]


@lawful
def test_a_batch_of_nothing_but_padding_has_finite_means(float64, case):
    params, rows = on_device(parameters(case.net)), batch(case)
    found = compiled_means(case.net, params, rows._replace(weight=np.zeros(N)))
    found.pop("noise_scale")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def one_layer(x, y, w=(1.0, 1.0), loss=lr_nn.losses.squared_error):
    """A network of one output, its parameters and a batch of rows of two features, in float32."""
    net = lr_nn.Network((2, 1), (), loss)
    params = (lr_nn.types.Layer(jnp.asarray(w, jnp.float32)[:, None], jnp.zeros(1)),)
    return net, params, Batch(np.asarray(x, float), np.asarray(y, float))


@pytest.mark.parametrize("jitted", [False, True])
def test_a_row_of_weight_zero_counts_for_nothing_even_where_its_loss_is_infinite(jitted):
    """exp(1000) overflows: the loss, the error and every curvature of the last row are infinite."""
    rows = [[1.0, 0.0], [0.5, 1.0], [1000.0, 0.0]]
    net, params, three = one_layer(rows, [1, 0, 1], loss=lr_nn.losses.poisson)
    two = one_layer(rows[:2], [1, 0], loss=lr_nn.losses.poisson)[2]
    masked = three._replace(weight=jnp.array([1.0, 1.0, 0.0]))
    assert np.isinf(lr_nn.backprop(net, params, masked).deltas[0][2, 0])

    quantities = compiled_means if jitted else means
    found, expected = quantities(net, params, masked), quantities(net, params, two)
    found["noise_scale"], expected["noise_scale"] = found["noise_scale"][:1], expected["noise_scale"][:1]
    assert_same(found, expected)
    assert_trees_close(*(lr_nn.value_and_gradient(net, params, each) for each in (masked, two)), LENGTH)


@pytest.mark.parametrize("size", [1e-12, 1e-24, 1e12, 1e18])
def test_clipping_does_not_square_what_would_overflow_or_vanish(size):
    bp = lr_nn.backprop(*one_layer([[size, 0.0]], [0.0], w=(0.0, 1.0)))
    bp = dataclasses.replace(bp, deltas=(jnp.full((1, 1), size, jnp.float32),))
    bound = size / 100
    clipped = jax.tree.leaves(per_example.clipped_gradient(bp, bound))
    length = float(np.sqrt(sum(np.square(np.asarray(leaf, np.float64)).sum() for leaf in clipped)))
    np.testing.assert_allclose(length, bound, rtol=1e-5)


def test_clipping_bounds_what_is_as_large_as_numbers_are():
    bp = lr_nn.backprop(*one_layer([[1e38, -1e38]], [0.0], loss=lr_nn.losses.bernoulli))
    clipped = per_example.clipped_gradient(bp, 1.0)
    assert np.linalg.norm(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(clipped)])) <= 1 + 1e-6


def test_an_example_whose_gradient_is_not_finite_keeps_the_bound_and_infinity_clips_nothing():
    bp = lr_nn.backprop(*one_layer([[1.0, 0.0], [1000.0, 0.0]], [1, 1], loss=lr_nn.losses.poisson))
    first = lr_nn.backprop(*one_layer([[1.0, 0.0]], [1], loss=lr_nn.losses.poisson))
    got = per_example.clipped_gradient(bp, 1.0)
    assert_trees_close(got, jax.tree.map(lambda g: g / 2, per_example.clipped_gradient(first, 1.0)), LENGTH)
    assert not np.isfinite(per_example.clipped_gradient(bp, np.inf)[0].w).all()


def test_a_gradient_of_zero_has_norm_zero_and_clipping_it_has_a_derivative():
    bp = lr_nn.backprop(*one_layer([[1e20, 0.0], [1.0, 1.0]], [1.0, 0.0], loss=lr_nn.losses.bernoulli))
    assert bp.deltas[0][0, 0] == 0 == per_example.squared_norms(bp)[0]
    net, params, _ = one_layer([[1.0, 1.0], [1.0, 1.0]], [0.0, 1.0], w=(0.0, 0.0))

    def length(params):
        bp = lr_nn.backprop(net, params, Batch(jnp.ones((2, 2)), jnp.array([0.0, 1.0])))
        return sum((leaf**2).sum() for leaf in jax.tree.leaves(per_example.clipped_gradient(bp, 1.0)))

    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.grad(length)(params)))


@pytest.mark.parametrize("size", [1e-38, 1e-25, 1e-20, 1e-10, 0.0])
def test_the_clipped_gradient_has_a_derivative_where_a_gradient_is_tiny(size):
    """Below the bound it is the gradient: x (w x - y), whose derivative by w is x² = 1."""
    net, rows = lr_nn.linear_regression(1), Batch(jnp.ones((1, 1)), jnp.zeros(1))

    def clipped(w):
        params = (lr_nn.types.Layer(w.reshape(1, 1), jnp.zeros(1)),)
        return per_example.clipped_gradient(lr_nn.backprop(net, params, rows), 10.0)[0].w.sum()

    assert jax.jit(jax.grad(clipped))(jnp.float32(size)) == 1


def test_a_dead_unit_has_a_ratio_of_zero_without_a_division_by_zero():
    net, params, rows = one_layer([[0.0, 1.0], [0.0, 2.0]], [1, 0])
    bp = lr_nn.backprop(net, params, rows)
    with jax.disable_jit(), jax.debug_nans(True):
        assert per_example.signal_to_noise(bp)[0].w[0] == 0


@pytest.mark.parametrize("size", [1e-9, 1e5, 1e30])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.float32])
def test_a_common_factor_of_the_weights_changes_nothing_in_any_precision(dtype, size):
    case = NETWORKS["bernoulli, sigmoid, 2 layers"]
    bp = swept(case, batch(case), dtype)
    s = batch(case, weighted=True).weight.astype(np.float32)
    assert_trees_close(*(lr_nn.gradient(reweighted(bp, factor * s)) for factor in (size, 1)), LENGTH, dtype)


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
    "weight negative": (
        lambda: CLIP(reweighted(one_pass(), -np.ones(N)), 1),
        ValueError,
        "weight must be.*not negative",
    ),
    "weight too short": (
        lambda: per_example.variance(reweighted(one_pass(), np.ones(3))),
        ValueError,
        r"shape \(7,\).*got \(3,\)",
    ),
    "weights all zero": (
        lambda: lr_nn.gradient(reweighted(one_pass(), np.zeros(N))),
        ValueError,
        "weight is zero for every example",
    ),
    "a flat vector as v": (
        lambda: per_example.inner_products(one_pass(), jnp.ones(15)),
        TypeError,
        "v must be a tuple of Layer.*flat vector",
    ),
    "too few layers as v": (
        lambda: per_example.inner_products(one_pass(NETWORKS["bernoulli, sigmoid, 2 layers"]), one_pass().dtypes[:0]),
        ValueError,
        "v does not fit the network",
    ),
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
