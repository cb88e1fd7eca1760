"""Odds, logits, likelihoods and entropies, against scipy, against each other, and at the edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from tolerances import assert_close

from lr_nn import losses, probability

# One shape for most, so that tests share their compiled operations.
P = np.linspace(0, 1, 34)[1:-1].reshape(8, 4)
Z = np.linspace(-30, 30, 32).reshape(8, 4)
HUGE = np.array([-1e4, -100.0, 0.0, 100.0, 1e4])


def simplex(*shape):
    return np.random.default_rng(0).dirichlet(np.ones(shape[-1]), size=shape[:-1])


def test_log_odds_and_expit_are_inverses(float64):
    z = Z / 6
    assert_close(probability.expit(probability.log_odds(P)), P)
    assert_close(probability.log_odds(probability.expit(z)), z, condition=np.exp(5))


def test_odds_are_the_exponential_of_log_odds(float64):
    assert_close(probability.odds(P), P / (1 - P))
    assert_close(np.exp(probability.log_odds(P)), probability.odds(P))


def test_logit_and_expit_are_those_of_scipy(float64):
    assert_close(probability.log_odds(P), scipy.special.logit(P))
    assert_close(probability.expit(Z), scipy.special.expit(Z))
    assert_close(probability.log_expit(Z), scipy.special.log_expit(Z))


def test_certain_events_have_infinite_odds():
    certain = np.array([0.0, 1.0])
    assert probability.odds(certain).tolist() == [0, np.inf]
    assert probability.log_odds(certain).tolist() == [-np.inf, np.inf]


def test_autodiff_is_right_at_even_odds():
    assert jax.grad(probability.log_expit)(0.0) == 0.5
    assert jax.grad(probability.bernoulli_negative_log_likelihood)(0.0, 1.0) == -0.5


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_log_expit_is_linear_where_expit_vanishes(dtype):
    z = jnp.asarray(HUGE, dtype)
    assert_close(probability.log_expit(z), np.minimum(np.asarray(z, np.float64), 0) - np.log(2) * (HUGE == 0))
    assert probability.expit(z)[0] == 0 and probability.expit(z)[-1] == 1


def test_bernoulli_likelihoods_are_those_of_scipy(float64):
    for y in (0, 1):
        outcome = np.full(P.shape, y)
        assert_close(probability.bernoulli_likelihood(P, outcome), scipy.stats.bernoulli.pmf(y, P))
        assert_close(probability.bernoulli_log_likelihood(P, outcome), scipy.stats.bernoulli.logpmf(y, P))
        assert_close(
            probability.bernoulli_negative_log_likelihood(Z, outcome), -scipy.special.log_expit((2 * y - 1) * Z)
        )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float64], ids=["float32", "bfloat16", "float64"])
def test_outcomes_may_be_integers_beside_probabilities_of_any_dtype(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        p = jnp.asarray([0.25, 0.75], dtype)
        likelihood = probability.bernoulli_likelihood(p, np.array([1, 0]))
        assert likelihood.dtype == dtype and likelihood.tolist() == [0.25, 0.25]


def test_a_certain_outcome_has_likelihood_one_and_an_impossible_one_zero():
    p, y = np.array([0.0, 1.0, 0.0, 1.0]), np.array([0, 1, 1, 0])
    assert probability.bernoulli_likelihood(p, y).tolist() == [1, 1, 0, 0]
    assert probability.bernoulli_log_likelihood(p, y).tolist() == [0, 0, -np.inf, -np.inf]
    classes = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert probability.categorical_likelihood(classes, np.array([0, 1])).tolist() == [1, 0]
    assert probability.categorical_log_likelihood(classes, np.array([0, 1])).tolist() == [0, -np.inf]


def test_categorical_likelihoods_read_off_the_class(float64):
    p, y = simplex(8, 4), np.random.default_rng(1).integers(0, 4, 8)
    expected = np.array([p[i, y[i]] for i in range(8)])
    assert_close(probability.categorical_likelihood(p, y), expected)
    assert_close(probability.categorical_log_likelihood(p, y), np.log(expected))
    assert_close(probability.categorical_negative_log_likelihood(np.log(p) + 7, y), -np.log(expected))


def test_two_classes_are_a_bernoulli_with_the_difference_of_logits(float64):
    eta = np.stack([np.zeros_like(Z), Z], axis=-1)
    for y in (0, 1):
        labels = np.full(Z.shape, y)
        assert_close(
            probability.categorical_negative_log_likelihood(eta, labels),
            probability.bernoulli_negative_log_likelihood(Z, labels),
        )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_negative_log_likelihoods_on_logits_are_finite_where_those_on_probabilities_are_not(dtype):
    eta = jnp.asarray(HUGE, dtype)
    wrong = jnp.asarray(HUGE < 0, dtype)
    value = probability.bernoulli_negative_log_likelihood(eta, wrong)
    assert_close(value, np.abs(np.asarray(eta, np.float64)) + np.log(2) * (HUGE == 0))
    assert not jnp.isfinite(probability.bernoulli_log_likelihood(probability.expit(eta), wrong)).all()
    pair, right = jnp.stack([eta, -eta], axis=1), (HUGE < 0).astype(int)
    surprise = probability.categorical_negative_log_likelihood(pair, 1 - right)
    assert_close(surprise[jnp.abs(eta) > 0], 2 * np.abs(np.asarray(eta, np.float64))[HUGE != 0])
    assert (probability.categorical_negative_log_likelihood(pair, right)[jnp.abs(eta) > 0] == 0).all()


def test_the_likelihood_of_many_tosses_underflows_where_its_logarithm_does_not():
    p, y = np.full(2000, 0.3), np.arange(2000) % 2
    assert np.prod(probability.bernoulli_likelihood(p, y)) == 0
    log_likelihood = np.sum(probability.bernoulli_log_likelihood(p, y))
    assert_close(log_likelihood, 1000 * np.log(0.3) + 1000 * np.log(0.7), length=2000)


def test_the_average_weighs_rows_by_their_frequency(float64):
    values, weight = Z[:4], np.array([1, 0, 3, 2])
    assert_close(probability.average(values), values.mean(axis=0))
    assert_close(probability.average(values, weight), np.repeat(values, weight, axis=0).mean(axis=0))


def test_the_averaged_negative_log_likelihood_is_the_bernoulli_loss(float64):
    eta, y = np.random.default_rng(3).normal(size=(6, 1)), np.array([0.0, 1, 1, 0, 1, 0])
    nll = probability.average(probability.bernoulli_negative_log_likelihood(eta[:, 0], y))
    assert_close(nll, losses.bernoulli.value(jnp.asarray(eta), y).mean())
    assert_close(nll, -np.log(np.prod(probability.bernoulli_likelihood(probability.expit(eta[:, 0]), y))) / 6)


def test_a_coin_is_estimated_by_the_share_of_heads():
    heads, tosses = np.array([0, 7, 3]), np.array([5, 10, 3])
    assert_close(probability.coin_toss_estimate(heads, tosses), heads / tosses)


@pytest.mark.parametrize(("start", "learning_rate"), [(0.0, 1.0), (3.0, 4.0)])
def test_descent_arrives_at_the_share_of_heads_and_never_ascends(float64, start, learning_rate):
    path = probability.coin_toss_descent(7, 10, learning_rate=learning_rate, steps=300, start=start)
    assert path.p.shape == path.cost.shape == (301,)
    assert_close(path.p[0], scipy.special.expit(start), dtype=jnp.float32)
    assert_close(path.p[-1], probability.coin_toss_estimate(7, 10), dtype=jnp.float32)
    assert_close(path.cost[-1], scipy.stats.bernoulli(0.7).entropy(), dtype=jnp.float32)
    assert (jnp.diff(path.cost) <= jnp.finfo(jnp.float32).eps).all() and path.cost[0] > path.cost[-1]


def test_one_step_of_descent_is_the_learning_rate_times_share_less_probability(float64):
    path = probability.coin_toss_descent(3, 4, learning_rate=0.5, steps=1)
    assert_close(probability.log_odds(path.p[1]), 0.5 * (0.75 - 0.5), dtype=jnp.float32)


def test_cross_entropy_is_entropy_plus_divergence(float64):
    p, q = simplex(8, 4), simplex(2, 8, 4)[1]
    total = probability.entropy(p) + probability.kl_divergence(p, q)
    assert_close(probability.cross_entropy(p, q), total, length=4)


@pytest.mark.parametrize("base", [np.e, 2.0, 10.0])
def test_entropies_are_those_of_scipy_in_any_base(float64, base):
    p, q = simplex(8, 4), simplex(2, 8, 4)[1]
    assert_close(probability.entropy(p, base=base), scipy.stats.entropy(p, axis=1, base=base), length=4)
    assert_close(probability.kl_divergence(p, q, base=base), scipy.stats.entropy(p, q, axis=1, base=base), length=4)
    assert_close(probability.cross_entropy(p, q, base=base), -(p * np.log(q)).sum(axis=1) / np.log(base), length=4)


def test_a_fair_choice_among_eight_holds_three_bits():
    assert_close(probability.entropy(np.full(8, 1 / 8), base=2), 3)


def test_entropies_at_the_corners_of_the_simplex():
    corner, other, middle = np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.array([0.5, 0.5])
    assert probability.entropy(corner) == 0
    assert probability.kl_divergence(corner, corner) == 0
    assert probability.cross_entropy(corner, corner) == 0
    assert_close(probability.kl_divergence(corner, middle), np.log(2))
    assert probability.kl_divergence(middle, corner) == np.inf
    assert probability.cross_entropy(corner, other) == np.inf


def test_the_divergence_is_positive_off_the_diagonal(float64):
    p = simplex(8, 4)
    assert (probability.kl_divergence(p, p[::-1]) > 0).all()
    assert not probability.kl_divergence(p, p).any()


def test_all_of_it_runs_under_jit_and_vmap():
    p, y = jnp.asarray(simplex(8, 4), jnp.float32), jnp.arange(8) % 4
    row = jax.jit(jax.vmap(lambda p, y: (probability.entropy(p), probability.categorical_log_likelihood(p, y))))
    entropy, log_likelihood = row(p, y)
    assert_close(entropy, probability.entropy(p))
    assert_close(log_likelihood, probability.categorical_log_likelihood(p, y))
    tosses = jax.jit(jax.vmap(lambda n: probability.coin_toss_descent(n, 10).p[-1]))(jnp.arange(2.0, 8.0))
    assert_close(tosses, np.arange(2, 8) / 10)
