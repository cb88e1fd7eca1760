"""Losses and their derivatives on the linear predictor, against autodiff, enumeration, sampling and scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import scipy.special
import scipy.stats
from cases import LOSSES, K, N, on_device
from tolerances import assert_close, assert_mean_close

from lr_nn import activations, losses

LOW = [jnp.float32, jnp.bfloat16]

rows = pytest.mark.parametrize("row", LOSSES.values(), ids=LOSSES)


def subset(test):
    chosen = {name: row for name, row in LOSSES.items() if test(row)}
    return pytest.mark.parametrize("row", chosen.values(), ids=chosen)


def points(row, dtype=np.float64, n=N, scale=2.0):
    """η (n, k) in `dtype` and targets as they come, some of every kind."""
    rng = np.random.default_rng(5)
    eta = (scale * rng.normal(size=(n, K))).astype(dtype)
    return eta, row.targets(rng, n, K)


def dense(multiply, eta):
    """The matrices (n, k, k) of a linear map given by its products with the unit vectors, on a leading axis."""
    n, k = eta.shape
    units = np.broadcast_to(np.eye(k)[:, None, :], (k, n, k))
    return np.moveaxis(np.asarray(multiply(jnp.asarray(units, eta.dtype))), 0, 2)


@rows
def test_value_and_residual_are_those_of_the_twin(float64, row):
    eta, y = points(row)
    value, residual = row.loss.value(jnp.asarray(eta), y), row.loss.residual(jnp.asarray(eta), y)
    assert value.shape == (N,) and residual.shape == eta.shape
    assert_close(value, reference.loss_value(row, eta, y), K)
    assert_close(residual, reference.loss_residual(row, eta, y), K)


@subset(lambda row: row.loss.name != "absolute_error")
def test_autodiff_of_the_value_is_right_at_zero_where_stable_formulas_have_a_tie(float64, row):
    eta, y = points(row)
    eta = jnp.zeros_like(eta)
    assert_close(jax.grad(lambda eta: row.loss.value(eta, y).sum())(eta), row.loss.residual(eta, y), K)


@rows
def test_the_hessian_is_that_of_autodiff_and_takes_free_leading_axes(float64, row):
    eta, y = points(row)
    v = np.random.default_rng(6).normal(size=(2, 3, *eta.shape))
    product = row.loss.hessian_multiply(jnp.asarray(eta), y, jnp.asarray(v))
    expected = np.einsum("iab,stib->stia", reference.loss_hessian(row, eta, y), v)
    assert_close(product, expected, K)


@rows
def test_the_fisher_is_its_factor_times_its_transpose_and_takes_free_leading_axes(float64, row):
    eta = jnp.asarray(points(row)[0])
    factor = row.loss.fisher_factor(eta)
    assert factor.shape == (K, *eta.shape)
    v = np.random.default_rng(6).normal(size=(2, 3, *eta.shape))
    expected = np.einsum("cia,cib,stib->stia", factor, factor, v)
    assert_close(row.loss.fisher_multiply(eta, jnp.asarray(v)), expected, K**2)


@rows
def test_the_fisher_is_positive_semidefinite(float64, row):
    eta = jnp.asarray(points(row)[0])
    fisher = np.asarray(dense(lambda v: row.loss.fisher_multiply(eta, v), eta))
    assert_close(fisher, fisher.swapaxes(1, 2))
    spectrum = np.linalg.eigvalsh(fisher)
    assert_close(np.minimum(spectrum, 0) + spectrum.max(), np.full(spectrum.shape, spectrum.max()))
    assert spectrum.max() > 0


@subset(lambda row: row.canonical)
def test_the_fisher_of_a_canonical_loss_is_its_hessian(float64, row):
    eta, y = points(row)
    fisher = dense(lambda v: row.loss.fisher_multiply(jnp.asarray(eta), v), eta)
    assert_close(fisher, reference.loss_hessian(row, eta, y), K)


@subset(lambda row: row.canonical)
def test_the_residual_of_a_canonical_loss_is_mean_minus_target(float64, row):
    eta, y = points(row)
    encoded = np.eye(K)[y] if y.ndim == 1 else y
    assert_close(row.loss.residual(jnp.asarray(eta), y), np.asarray(row.loss.mean(jnp.asarray(eta))) - encoded)


@subset(lambda row: row.outcomes)
def test_probabilities_sum_to_one_and_the_fisher_is_the_mean_outer_product_of_residuals(float64, row):
    eta = points(row)[0]
    total, fisher, mean = 0, 0, 0
    for outcome in row.outcomes(K):
        y = np.tile(outcome, (N, 1))
        p = np.exp(-np.asarray(row.loss.value(jnp.asarray(eta), y)))
        r = np.asarray(row.loss.residual(jnp.asarray(eta), y))
        total, mean = total + p, mean + p[:, None] * y
        fisher = fisher + np.einsum("i,ia,ib->iab", p, r, r)
    assert_close(total, np.ones(N), 8)
    assert_close(row.loss.mean(jnp.asarray(eta)), mean, 8)
    assert_close(dense(lambda v: row.loss.fisher_multiply(jnp.asarray(eta), v), eta), fisher, 8)


@rows
def test_sampled_targets_have_the_mean_and_their_residuals_mean_zero_and_covariance_fisher(row):
    eta = jnp.asarray([0.8, -0.5, 0.3], jnp.float32)[None]
    many = jnp.broadcast_to(eta, (20_000, K))
    y = row.loss.sample(many, jax.random.key(3))
    assert y.shape == many.shape and y.dtype == eta.dtype
    assert row.loss.targets(y, *many.shape).shape == many.shape
    r = np.asarray(row.loss.residual(many, y))
    few = many[:N]
    assert_mean_close(y, row.loss.mean(few)[0])
    assert_mean_close(r, np.zeros(K))
    assert_mean_close(np.einsum("ia,ib->iab", r, r), dense(lambda v: row.loss.fisher_multiply(few, v), few)[0])


def test_the_absolute_error_samples_laplace_noise_whose_mean_size_is_one():
    eta = jnp.zeros((20_000, K))
    assert_mean_close(np.abs(losses.absolute_error.sample(eta, jax.random.key(4))), np.ones(K))


@subset(lambda row: not row.overflows)
@pytest.mark.parametrize("dtype", LOW, ids=["float32", "bfloat16"])
def test_value_and_derivatives_are_right_at_logits_of_ten_thousand(row, dtype):
    signs = np.array([[1, -1, 1], [-1, 1, 1], [1, 1, 1], [-1, -1, -1], [0, 1, -1], [1, 0, 0], [0, 0, 0]])
    eta = jnp.asarray(1e4 * signs, dtype)
    y = row.targets(np.random.default_rng(7), len(signs), K)
    y = y.astype(dtype).astype(np.float64) if y.dtype.kind == "f" else y
    value, residual = row.loss.value(eta, y), row.loss.residual(eta, y)
    assert value.dtype == residual.dtype == dtype
    assert_close(value, reference.loss_value(row, eta, y), K)
    assert_close(residual, reference.loss_residual(row, eta, y), K)
    assert_close(dense(lambda v: row.loss.hessian_multiply(eta, y, v), eta), reference.loss_hessian(row, eta, y), K)
    for other in (row.loss.fisher_factor(eta), row.loss.mean(eta)):
        assert np.isfinite(np.asarray(other, float)).all()


LAWS = {
    "squared_error": scipy.stats.norm.logpdf,
    "absolute_error": scipy.stats.laplace.logpdf,
    "bernoulli": lambda y, eta: scipy.stats.bernoulli.logpmf(y, scipy.special.expit(eta)),
    "poisson": lambda y, eta: scipy.stats.poisson.logpmf(y, np.exp(eta)),
}


@pytest.mark.parametrize("name", LAWS)
def test_a_loss_is_a_negative_log_likelihood_up_to_a_term_free_of_eta(float64, name):
    row = LOSSES[name]
    eta, y = points(row)
    value, other = (np.asarray(row.loss.value(jnp.asarray(e), y)) for e in (eta, eta[::-1]))
    log_likelihood, of_other = (LAWS[name](y, e).sum(axis=1) for e in (eta, eta[::-1]))
    assert_close(value - other, of_other - log_likelihood, dtype=np.float64)


def test_the_squared_error_of_a_sigmoid_carries_its_slope(float64):
    row = LOSSES["squared_error of sigmoid"]
    eta, y = points(row)
    a = scipy.special.expit(eta)
    assert_close(row.loss.residual(jnp.asarray(eta), y), a * (1 - a) * (a - y))
    cross_entropy = losses.bernoulli.residual(jnp.asarray(eta), y)
    assert_close(row.loss.residual(jnp.asarray(eta), y), a * (1 - a) * np.asarray(cross_entropy))


def test_through_the_identity_changes_nothing(float64):
    row = LOSSES["categorical"]
    eta, y = points(row)
    eta, v = jnp.asarray(eta), jnp.ones((2, *eta.shape))
    same = losses.through(activations.identity, row.loss)
    assert_close(same.value(eta, y), row.loss.value(eta, y))
    assert_close(same.residual(eta, y), row.loss.residual(eta, y))
    assert_close(same.hessian_multiply(eta, y, v), row.loss.hessian_multiply(eta, y, v))
    assert_close(same.mean(eta), row.loss.mean(eta))


def test_the_absolute_error_has_no_slope_at_a_tie():
    eta = jnp.tile(jnp.array([1.0, 2.0, 0.0]), (N, 1))
    assert losses.absolute_error.residual(eta, np.ones((N, K)))[0].tolist() == [0, 1, -1]


def test_labels_are_one_hot_rows(float64):
    row = LOSSES["categorical"]
    eta, labels = points(row)
    one_hot = np.eye(K)[labels]
    for function in (row.loss.value, row.loss.residual, lambda eta, y: row.loss.encode(y, eta)):
        assert_close(function(jnp.asarray(eta), labels), function(jnp.asarray(eta), one_hot))


def test_softmax_is_blind_to_a_shift_common_to_all_classes(float64):
    eta, y = points(LOSSES["categorical"])
    assert_close(
        losses.categorical.value(jnp.asarray(eta + 100), y),
        losses.categorical.value(jnp.asarray(eta), y),
        condition=100,
    )
    assert_close(np.asarray(losses.categorical.residual(jnp.asarray(eta), y)).sum(axis=1) + 1, np.ones(N))


@subset(lambda row: row.loss.least_outputs == 1)
def test_one_output_takes_a_flat_vector_of_targets(row):
    eta = jnp.asarray(points(row)[0][:, :1], jnp.float32)
    y = row.targets(np.random.default_rng(8), N, 1)
    assert row.loss.targets(y[:, 0], N, 1).shape == (N,)
    assert_close(row.loss.value(eta, y[:, 0]), row.loss.value(eta, y))
    assert_close(row.loss.residual(eta, y[:, 0]), row.loss.residual(eta, y))


def test_a_probability_as_target_mixes_the_two_outcomes(float64):
    eta = jnp.asarray(points(LOSSES["bernoulli"])[0])
    one, zero, part = (np.full(eta.shape, p) for p in (1.0, 0.0, 0.3))

    def value(eta, y):
        return np.asarray(losses.bernoulli.value(eta, y))

    assert_close(value(eta, part), 0.3 * value(eta, one) + 0.7 * value(eta, zero), 4)


@rows
def test_equal_losses_are_one_and_unequal_ones_are_not(row):
    twin = type(row.loss)(**vars(row.loss))
    assert twin == row.loss and hash(twin) == hash(row.loss) and twin is not row.loss
    assert row.loss not in [other.loss for other in LOSSES.values() if other is not row]


def test_derivatives_run_under_jit_and_over_traced_targets():
    for row in (LOSSES["categorical"], LOSSES["poisson of softplus"]):
        eta, y = on_device(points(row), jnp.float32)
        assert_close(jax.jit(row.loss.residual)(eta, y), row.loss.residual(eta, y), 4)
