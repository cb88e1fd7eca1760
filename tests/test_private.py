"""Private gradients: every scaling, the sensitivity, the sampling that the accountant assumes, and its ε."""

import dataclasses
from fractions import Fraction

import dp_accounting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from cases import NETWORKS, N, batch, network, on_device, parameters
from jax.flatten_util import ravel_pytree
from scipy.stats import binom, norm
from tolerances import assert_close, assert_mean_close, assert_trees_close, tolerance

import lr_nn
from lr_nn import Batch, per_example
from lr_nn.private import (
    LEAST_NOISE,
    _below,
    _threshold,
    epsilon,
    noise_multiplier,
    poisson_batch,
    poisson_capacity,
    private_gradient,
)

LENGTH = 20
KEY = jax.random.key(0)
CASE = NETWORKS["bernoulli, sigmoid, 2 layers"]


def swept(case=CASE, dtype=jnp.float32, seed=1):
    rows = batch(case, seed=seed)
    return lr_nn.backprop(case.net, on_device(parameters(case.net), dtype), rows)


def private(bp, key=KEY, *, max_norm=0.5, noise_multiplier=0.0, expected_batch_size=5.0, weight=None):
    return private_gradient(
        dataclasses.replace(bp, weight=weight),
        key,
        max_norm=max_norm,
        noise_multiplier=noise_multiplier,
        expected_batch_size=expected_batch_size,
    )


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0])


def middle_norm(bp):
    return float(np.median(np.sqrt(per_example.squared_norms(bp))))


def test_without_noise_it_is_the_clipped_sum_over_the_expected_size(float64):
    bp = swept(dtype=jnp.float64)
    bound, mask = middle_norm(bp), np.array([1, 1, 0, 1, 0, 0, 1])
    g = np.stack([flat(jax.tree.map(lambda a, i=i: a[i], per_example.gradients(bp))) for i in range(N)])
    clipped = g * np.minimum(1, bound / np.linalg.norm(g, axis=1, keepdims=True))
    assert_close(flat(private(bp, max_norm=bound)), clipped.sum(axis=0) / 5, LENGTH)
    assert_close(flat(private(bp, max_norm=bound, weight=mask)), mask @ clipped / 5, LENGTH)
    assert_close(flat(private(bp, max_norm=bound, weight=mask / 2)), mask @ clipped / 10, LENGTH)
    assert jax.tree.structure(private(bp)) == jax.tree.structure(lr_nn.gradient(bp))


def test_the_noise_is_independent_with_a_deviation_of_multiplier_times_max_norm_over_the_expected_size():
    bp = swept(network("bernoulli", depth=1))
    mean = flat(private(bp))

    def noise(key):
        return ravel_pytree(private(bp, key, noise_multiplier=3.0))[0] - mean

    draws = np.asarray(jax.jit(jax.vmap(noise))(jax.random.split(KEY, 4000)), np.float64)
    assert_mean_close(np.concatenate([draws, 1 + draws], axis=1), np.repeat([0.0, 1.0], len(mean)))
    expected = (3.0 * 0.5 / 5.0) ** 2 * np.eye(len(mean))
    assert_mean_close(np.einsum("np,nq->npq", draws, draws), expected)


def test_the_noise_owes_nothing_to_the_data(float64):
    one, other = (swept(dtype=jnp.float64, seed=seed) for seed in (1, 2))
    noises = [flat(private(bp, noise_multiplier=2.0)) - flat(private(bp)) for bp in (one, other)]
    assert_close(noises[0], noises[1], LENGTH)
    assert np.abs(noises[0]).min() > 0
    assert (
        flat(private(one, jax.random.key(1), noise_multiplier=2.0)) != flat(private(one, noise_multiplier=2.0))
    ).all()


def test_an_empty_batch_is_noise_alone():
    bp = swept()
    nothing = private(bp, weight=np.zeros(N), noise_multiplier=2.0)
    whole = jax.tree.map(jnp.subtract, private(bp, noise_multiplier=2.0), private(bp))
    assert_trees_close(nothing, whole, LENGTH)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bfloat16", "float16"])
def test_in_half_precision_no_example_moves_the_sum_by_more_than_max_norm(dtype):
    bp = swept(dtype=dtype)
    bound = middle_norm(bp) / 2
    sums = jax.vmap(lambda mask: ravel_pytree(per_example.clipped_sum(bp, jnp.asarray(bound), mask))[0])(jnp.eye(N))
    norms = np.linalg.norm(np.asarray(sums, np.float64), axis=1)
    assert norms.max() <= bound * (1 + tolerance(np.float32, LENGTH)) and norms.max() > 0.99 * bound


def test_adding_an_example_moves_the_sum_by_its_clipped_norm_and_never_by_more_than_max_norm(float64):
    bp = swept(dtype=jnp.float64)
    norms, bound = np.sqrt(per_example.squared_norms(bp)), middle_norm(bp)

    def total(mask):
        return ravel_pytree(private(bp, max_norm=bound, expected_batch_size=1.0, weight=mask))[0]

    masks = jax.random.bernoulli(KEY, 0.5, (N, N)).astype(float) * (1 - jnp.eye(N))
    moved = jax.vmap(total)(masks + jnp.eye(N)) - jax.vmap(total)(masks)
    moved = np.linalg.norm(moved, axis=1)
    assert_close(moved, np.minimum(norms, bound), LENGTH)
    assert (norms > bound).sum() >= N // 2, "clipping is at work"


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bfloat16", "float16"])
def test_half_precision_comes_back_in_half(dtype):
    got = private(swept(dtype=dtype), noise_multiplier=1.0)
    assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype(dtype)}
    assert_trees_close(private(swept(dtype=dtype)), private(swept()), LENGTH, dtype)


def test_each_row_is_drawn_on_its_own_at_the_rate():
    n, rate = 6, 0.3

    def indicator(key):
        drawn = poisson_batch(key, n, rate, n)
        return jnp.zeros(n).at[drawn.rows].add(drawn.weight), drawn.drawn

    taken, drawn = map(np.asarray, jax.jit(jax.vmap(indicator))(jax.random.split(KEY, 4000)))
    assert set(np.unique(taken)) == {0.0, 1.0}
    assert (taken.sum(axis=1) == drawn).all()
    assert_mean_close(taken, np.full(n, rate))
    pairs = np.full((n, n), rate**2) + rate * (1 - rate) * np.eye(n)
    assert_mean_close(np.einsum("ni,nj->nij", taken, taken), pairs)


RATES = [2e-8, 1e-3, 0.1, 0.3, 0.5, 2 / 3, 1 - 2**-24, 1 - 2**-53, 2.0**-31, 2.0**-32, 2.0**-33, 2.0**-63, 2.0**-64]
RATES += [3e-20, 1e-30, 256 / 60_000, *np.random.default_rng(0).random(50), *10.0 ** -np.arange(1.0, 25.0)]


def exact(rate):
    return int(Fraction(float(rate)) * 2**64)  # the floor


def as_integer(threshold):
    high, low, always = threshold
    assert high.dtype == low.dtype == jnp.uint32
    return 2**64 if always else int(high) * 2**32 + int(low)


def test_a_rate_is_a_threshold_of_64_bits_that_is_exact():
    for rate in RATES:
        assert as_integer(_threshold(rate)) == exact(rate)
        assert 0 <= Fraction(rate) - Fraction(as_integer(_threshold(rate)), 2**64) < Fraction(1, 2**64)
    assert as_integer(_threshold(np.float32(0.1))) == exact(np.float32(0.1)) != exact(0.1)
    assert as_integer(_threshold(1)) == as_integer(_threshold(1.0)) == 2**64


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16, jnp.float16])
def test_a_traced_rate_has_the_threshold_of_its_own_dtype(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        rates = jnp.asarray(np.array([rate for rate in RATES if rate > 1e-4] if dtype == jnp.float16 else RATES), dtype)
        found = zip(*jax.jit(jax.vmap(_threshold))(rates))
        for rate, threshold in zip(np.asarray(rates), found, strict=True):
            assert as_integer(threshold) == exact(rate)
        off = jnp.array([0, -0.5, jnp.nan], dtype)
        assert [as_integer(each) for each in zip(*jax.jit(jax.vmap(_threshold))(off))] == [0, 0, 0]


@pytest.mark.parametrize("rate", [2e-8, 2.0**-33, 0.3, 1 - 2**-24, 2.0**-64])
def test_rows_are_taken_exactly_where_their_64_bits_are_below_the_threshold(rate):
    edge = exact(rate)
    integers = [0, edge - 2, edge - 1, edge, edge + 1, edge + 2**32, edge ^ 2**33, edge >> 1, edge << 1, 2**64 - 1]
    integers = [min(max(value, 0), 2**64 - 1) for value in integers]
    bits = jnp.asarray(np.array([[value >> 32, value & 0xFFFFFFFF] for value in integers], np.uint32))
    assert np.asarray(_below(bits, *_threshold(rate))).tolist() == [value < edge for value in integers]
    assert _below(bits, *_threshold(1.0)).all()


def test_a_batch_compares_the_random_bits_of_its_key(monkeypatch):
    words = jnp.asarray(np.array([[85, 0], [85, 3864361055], [85, 2**32 - 1], [86, 0], [2**32 - 1, 0]], np.uint32))
    monkeypatch.setattr(jax.random, "bits", lambda key, shape, dtype: words[: shape[0]])
    assert exact(2e-8) >> 32 == 85
    for rate, expected in ((2e-8, 1), (85 / 2**32, 0), (86 / 2**32, 3), (1.0, 5), (1 - 2**-53, 5), (1 - 2**-31, 4)):
        assert int(poisson_batch(KEY, 5, rate, 5).drawn) == expected
        if rate == float(np.float32(rate)):
            assert int(jax.jit(lambda rate: poisson_batch(KEY, 5, rate, 5).drawn)(jnp.float32(rate))) == expected


def test_a_batch_is_padded_with_weight_zero_and_cut_at_its_capacity():
    drawn = poisson_batch(KEY, 50, 0.2, 30)
    count = int(drawn.drawn)
    assert 0 < count < 30 and drawn.rows.shape == drawn.weight.shape == (30,)
    assert np.asarray(drawn.weight).tolist() == [1.0] * count + [0.0] * (30 - count)
    assert (np.diff(drawn.rows[:count]) > 0).all() and ((drawn.rows >= 0) & (drawn.rows < 50)).all()
    cut = poisson_batch(KEY, 50, 0.2, count - 2)
    assert cut.drawn == count and np.asarray(cut.rows).tolist() == np.asarray(drawn.rows)[: count - 2].tolist()
    assert (cut.weight == 1).all()
    everything = poisson_batch(KEY, 5, 1.0, 5)
    assert np.asarray(everything.rows).tolist() == [0, 1, 2, 3, 4] and everything.drawn == 5


def test_batches_of_every_size_share_one_compiled_step_that_sees_only_the_rows_drawn(float64):
    rows, params = on_device(batch(CASE, n=20)), on_device(parameters(CASE.net))

    @jax.jit
    def step(key, rate):
        drawn = poisson_batch(key, 20, rate, 20)
        bp = lr_nn.backprop(CASE.net, params, Batch(rows.x[drawn.rows], rows.y[drawn.rows]))
        return private(bp, weight=drawn.weight), drawn

    sizes = set()
    for i, rate in enumerate((0.1, 0.3, 0.6, 0.9)):
        got, drawn = step(jax.random.key(i), rate)
        sizes.add(int(drawn.drawn))
        real = np.asarray(drawn.rows)[: int(drawn.drawn)]
        alone = lr_nn.backprop(CASE.net, params, Batch(rows.x[real], rows.y[real]))
        assert_trees_close(got, private(alone), LENGTH)
    assert len(sizes) > 2 and step._cache_size() == 1


@pytest.mark.parametrize(("n", "rate", "overflow"), [(60_000, 256 / 60_000, 1e-9), (100, 0.5, 1e-3), (3, 1.0, 1e-9)])
def test_the_capacity_is_the_smallest_that_is_rarely_exceeded(n, rate, overflow):
    capacity = poisson_capacity(n, rate, overflow)
    assert binom.sf(capacity, n, rate) <= overflow < binom.sf(capacity - 1, n, rate)


def gaussian_epsilon(s, delta):
    """δ(ε) = Φ(1/2s - εs) - e^ε Φ(-1/2s - εs), solved for ε: Balle & Wang (2018), theorem 8."""

    def excess(e):
        return norm.cdf(1 / (2 * s) - e * s) - np.exp(e) * norm.cdf(-1 / (2 * s) - e * s) - delta

    return scipy.optimize.brentq(excess, 1e-3, 50, xtol=1e-9)


def test_no_noise_is_no_privacy_and_more_noise_fewer_steps_or_a_smaller_rate_is_more():
    def spent(noise=2.0, rate=0.5, steps=2, delta=1e-3):
        return epsilon(noise_multiplier=noise, sampling_rate=rate, steps=steps, delta=delta)

    assert spent(noise=0.0) == np.inf
    assert spent() > max(spent(noise=4.0), spent(rate=0.1), spent(steps=1), spent(delta=1e-2)) > 0


@pytest.mark.parametrize(("noise", "steps"), [(2.0, 1), (5.0, 4)])
def test_epsilon_of_whole_batches_is_that_of_the_gaussian_mechanism(noise, steps):
    exact = gaussian_epsilon(noise / steps**0.5, 1e-5)
    got = epsilon(noise_multiplier=noise, sampling_rate=1.0, steps=steps, delta=1e-5)
    grid = 1e-4  # the accountant rounds privacy losses up to this grid, at every step
    assert exact <= got <= exact + steps * grid


def test_epsilon_of_the_published_mnist_run_is_between_the_central_limit_and_renyi_accounting():
    """TensorFlow Privacy's tutorial has 3.01 by Rényi divergence, an upper bound; the limit of Bu et al. (2020),
    a Gaussian mechanism of μ = q √(T (e^{1/σ²} - 1)), falls a little short.
    """
    noise, rate, steps, delta = 1.1, 256 / 60_000, 60 * 60_000 // 256, 1e-5
    limit = gaussian_epsilon(1 / (rate * (steps * np.expm1(noise**-2)) ** 0.5), delta)
    assert limit < epsilon(noise_multiplier=noise, sampling_rate=rate, steps=steps, delta=delta) < 3.01


def test_epsilon_is_that_of_its_arguments_in_float64():
    for steps, given in (
        (3, {"rate": 0.1, "noise": 1.7, "delta": 1e-3}),
        (1, {"rate": 0.3, "noise": 2.1, "delta": 0.1}),
    ):
        event = dp_accounting.PoissonSampledDpEvent(given["rate"], dp_accounting.GaussianDpEvent(given["noise"]))
        accountant = dp_accounting.pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
        expected = accountant.compose(event, steps).get_epsilon(given["delta"])
        kinds = (float, np.float64, np.asarray)
        for kind in kinds:
            got = epsilon(
                noise_multiplier=kind(given["noise"]),
                sampling_rate=kind(given["rate"]),
                steps=steps,
                delta=kind(given["delta"]),
            )
            assert got == expected


@pytest.mark.parametrize(
    ("target", "settings"),
    [
        (1.0, {"delta": 1e-5, "sampling_rate": 1.0, "steps": 1}),
        (0.5, {"delta": 1e-5, "sampling_rate": 0.01, "steps": 200}),
    ],
)
def test_the_noise_multiplier_is_the_least_that_keeps_to_epsilon(target, settings):
    multiplier = noise_multiplier(epsilon=target, **settings)
    assert target * (1 - 1e-4) < epsilon(noise_multiplier=multiplier, **settings) <= target
    assert epsilon(noise_multiplier=multiplier - 3e-6, **settings) > target - 1e-9
    if settings["sampling_rate"] == 1:
        assert gaussian_epsilon(multiplier, settings["delta"]) <= target


def test_the_noise_multiplier_stays_in_what_can_be_accounted_for():
    assert noise_multiplier(epsilon=1e6, delta=1e-5, sampling_rate=0.5, steps=2) == LEAST_NOISE
    with pytest.raises(ValueError, match="epsilon=1e-09 is below what the accountant can resolve"):
        noise_multiplier(epsilon=1e-9, delta=1e-20, sampling_rate=1.0, steps=1000)


REFUSALS = {
    "max_norm zero": (lambda: private(swept(), max_norm=0), ValueError, "max_norm must be positive; got 0"),
    "max_norm negative": (lambda: private(swept(), max_norm=-1.0), ValueError, "max_norm must be positive; got -1"),
    "max_norm infinite": (lambda: private(swept(), max_norm=np.inf), ValueError, "max_norm must be.*finite.*got inf"),
    "noise negative": (lambda: private(swept(), noise_multiplier=-1), ValueError, "noise_multiplier.*not negative"),
    "noise infinite": (lambda: private(swept(), noise_multiplier=np.inf), ValueError, "noise_multiplier.*finite"),
    "no expected size": (
        lambda: private(swept(), expected_batch_size=0),
        ValueError,
        "expected_batch_size must be positive; got 0",
    ),
    "weight above one": (
        lambda: private(swept(), weight=np.array([1, 1, 2, 0, 1, 1, 1.0])),
        ValueError,
        "weight must be at most 1, a mask; got 2 at row 2",
    ),
    "weight negative": (lambda: private(swept(), weight=-np.ones(N)), ValueError, "weight must be.*not negative"),
    "no key": (
        lambda: private_gradient(swept(), max_norm=1.0, noise_multiplier=1.0, expected_batch_size=1.0),
        TypeError,
        "'key'",
    ),
    "key None": (lambda: private(swept(), None), TypeError, "key must be a random key.*got None"),
    "a multiplier for each": (
        lambda: private(swept(), noise_multiplier=np.ones(6)),
        ValueError,
        r"noise_multiplier must be a single number.*\(6,\)",
    ),
    "a max_norm for each": (lambda: private(swept(), max_norm=np.ones(N)), ValueError, "max_norm must be a single"),
    "expected size infinite": (lambda: private(swept(), expected_batch_size=np.inf), ValueError, "expected_batch_size"),
    "overflow certain": (lambda: poisson_capacity(10, 0.5, 2), ValueError, r"overflow in \(0, 1\); got 0.5 and 2"),
    "noise NaN to the accountant": (
        lambda: epsilon(noise_multiplier=np.nan, sampling_rate=1, steps=1, delta=0.1),
        ValueError,
        "noise_multiplier 0, or finite from 0.05 on",
    ),
    "rate zero": (lambda: poisson_batch(KEY, 5, 0.0, 5), ValueError, r"rate must be in \(0, 1\]; got 0"),
    "rate above one": (lambda: poisson_batch(KEY, 5, 1.5, 5), ValueError, r"rate must be in \(0, 1\]; got 1.5"),
    "rate NaN": (lambda: poisson_batch(KEY, 5, np.nan, 5), ValueError, r"rate must be in \(0, 1\]; got nan"),
    "capacity zero": (lambda: poisson_batch(KEY, 5, 0.5, 0), ValueError, "capacity must be at least 1; got 0"),
    "no rows": (lambda: poisson_batch(KEY, 0, 0.5, 5), ValueError, "n must be at least 1; got 0"),
    "rate of a capacity": (lambda: poisson_capacity(10, 1.5), ValueError, r"rate must be in \(0, 1\].*got 1.5"),
    "sampling rate zero": (
        lambda: epsilon(noise_multiplier=1, sampling_rate=0.0, steps=1, delta=0.1),
        ValueError,
        "sampling_rate <= 1",
    ),
    "sampling rate above one": (
        lambda: epsilon(noise_multiplier=1, sampling_rate=1.1, steps=1, delta=0.1),
        ValueError,
        "sampling_rate <= 1.*got 1.1",
    ),
    "delta one": (lambda: epsilon(noise_multiplier=1, sampling_rate=1, steps=1, delta=1), ValueError, "delta < 1"),
    "noise negative to the accountant": (
        lambda: epsilon(noise_multiplier=-1, sampling_rate=1, steps=1, delta=0.1),
        ValueError,
        "noise_multiplier 0, or finite from 0.05 on",
    ),
    **{
        f"{what} as {name}": (
            lambda name=name, value=value: epsilon(
                **({"noise_multiplier": 1.0, "sampling_rate": 0.5, "steps": 1, "delta": 0.1} | {name: value})
            ),
            error,
            f"{name} must be {message}",
        )
        for name in ("noise_multiplier", "sampling_rate", "delta")
        for what, value, error, message in (
            ("text", "0.5", TypeError, "an array of real numbers"),
            ("a complex number", 0.5j, TypeError, "an array of real numbers"),
            ("an array", np.array([0.5, 0.5]), ValueError, r"a single number; got shape \(2,\)"),
        )
    },
    "delta NaN": (
        lambda: epsilon(noise_multiplier=1, sampling_rate=1, steps=1, delta=np.nan),
        ValueError,
        "delta < 1; got 1.0 and nan",
    ),
    "a traced delta": (
        lambda: jax.jit(lambda d: epsilon(noise_multiplier=1, sampling_rate=1, steps=1, delta=d))(0.1),
        TypeError,
        "delta is traced",
    ),
    "many rates": (
        lambda: poisson_batch(KEY, 5, np.full(5, 0.5), 5),
        ValueError,
        r"rate must be a single number.*\(5,\)",
    ),
    "rate as text": (lambda: poisson_batch(KEY, 5, "0.5", 5), TypeError, "rate must be an array of real numbers"),
    "epsilon zero": (
        lambda: noise_multiplier(epsilon=0.0, delta=0.1, sampling_rate=1, steps=1),
        ValueError,
        "epsilon must be positive and finite; got 0.0",
    ),
    "epsilon NaN": (
        lambda: noise_multiplier(epsilon=np.nan, delta=0.1, sampling_rate=1, steps=1),
        ValueError,
        "epsilon must be positive and finite; got nan",
    ),
    "sampling rate above one for a multiplier": (
        lambda: noise_multiplier(epsilon=1, delta=0.1, sampling_rate=1.1, steps=1),
        ValueError,
        "sampling_rate <= 1.*got 1.1",
    ),
    "no steps": (
        lambda: epsilon(noise_multiplier=1, sampling_rate=1, steps=0, delta=0.1),
        ValueError,
        "steps must be at least 1; got 0",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS.values(), ids=REFUSALS)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
