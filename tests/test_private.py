"""Private gradients: every scaling, the sensitivity, the sampling that the accountant assumes, and its ε."""

import dataclasses

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
from lr_nn.private import epsilon, poisson_batch, poisson_capacity, private_gradient

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
