"""Fits of real data against the libraries that people use, each at its own tightest."""

import os
from pathlib import Path

import numpy as np
import pytest
import scipy.special
import statsmodels.api as sm

import lr_nn
from lr_nn import Batch, Status, penalties

DIGITS = 1e-6


def standardised(x):
    return (x - x.mean(axis=0)) / x.std(axis=0)


def with_constant(x):
    """A constant last, where this package has its bias."""
    return np.column_stack([x, np.ones(len(x))])


def log_likelihood(loss, solution, x, y):
    """Σ log p(y) from the coefficients, by scipy's distributions."""
    eta = with_constant(x) @ solution.coefficients[:, 0]
    if loss == "poisson":
        return scipy.stats.poisson.logpmf(y, np.exp(eta)).sum()
    return scipy.stats.bernoulli.logpmf(y, scipy.special.expit(eta)).sum()


def test_spector_and_mazzeo_is_the_published_table():
    """Greene, Econometric Analysis: the logit of grades on grade point average, score and method of teaching."""
    data = sm.datasets.spector.load_pandas()
    x, y = data.exog.to_numpy(), data.endog.to_numpy()
    found = lr_nn.fit(lr_nn.logistic_regression(3), Batch(x, y))
    np.testing.assert_allclose(found.coefficients[:, 0], [2.826113, 0.095158, 2.378688, -13.021347], rtol=0, atol=6e-7)
    assert -found.cost * len(y) == pytest.approx(-12.88963, abs=5e-6)
    assert log_likelihood("bernoulli", found, x, y) == pytest.approx(-12.88963, abs=5e-6)


def test_a_logistic_fit_is_that_of_statsmodels():
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    x = standardised(x[:, :5])
    peer = sm.Logit(y, with_constant(x)).fit(method="newton", tol=1e-14, maxiter=100, disp=False)
    found = lr_nn.fit(lr_nn.logistic_regression(5), Batch(x, y))
    np.testing.assert_allclose(found.coefficients[:, 0], peer.params, rtol=DIGITS)
    assert -found.cost * len(y) == pytest.approx(peer.llf, rel=1e-9)


def test_counts_are_fitted_as_by_statsmodels():
    data = sm.datasets.randhie.load_pandas()
    x, y = data.exog.to_numpy()[:5000], data.endog.to_numpy()[:5000]
    peer = sm.GLM(y, with_constant(x), family=sm.families.Poisson()).fit(tol=1e-14)
    net = lr_nn.Network((x.shape[1], 1), (), lr_nn.losses.poisson)
    found = lr_nn.fit(net, Batch(x, y))
    assert found.status is Status.converged, found.message
    np.testing.assert_allclose(found.coefficients[:, 0], peer.params, rtol=DIGITS)
    assert log_likelihood("poisson", found, x, y) == pytest.approx(peer.llf, rel=1e-9)


def test_classes_are_fitted_as_by_statsmodels_but_for_a_shift():
    data = sm.datasets.anes96.load_pandas()
    x, y = data.exog.to_numpy(), data.endog.to_numpy().astype(int)
    peer = sm.MNLogit(y, with_constant(x)).fit(method="newton", tol=1e-14, maxiter=100, disp=False)
    found = lr_nn.fit(lr_nn.softmax_regression(x.shape[1], 7), Batch(x, y))
    contrasts = found.coefficients[:, 1:] - found.coefficients[:, :1]
    np.testing.assert_allclose(contrasts, np.asarray(peer.params), rtol=DIGITS, atol=1e-8)
    np.testing.assert_allclose(found.coefficients.sum(axis=1), 0, atol=1e-9)
    assert -found.cost * len(y) == pytest.approx(peer.llf, rel=1e-9)


def test_least_squares_of_the_diabetes_data_are_those_of_statsmodels():
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    peer = sm.OLS(y, with_constant(x)).fit()
    found = lr_nn.fit(lr_nn.linear_regression(10), Batch(x, y))
    np.testing.assert_allclose(found.coefficients[:, 0], peer.params, rtol=1e-9)


def test_softmax_of_the_wine_data_is_that_of_scikit_learn():
    from sklearn.datasets import load_wine
    from sklearn.linear_model import LogisticRegression

    x, y = load_wine(return_X_y=True)
    x = standardised(x)
    peer = LogisticRegression(C=1 / (1e-2 * len(x)), tol=1e-13, max_iter=1000, solver="newton-cholesky").fit(x, y)
    found = lr_nn.fit(lr_nn.softmax_regression(13, 3), Batch(x, y), penalty=penalties.l2(1e-2))
    np.testing.assert_allclose(found.params[0].w, peer.coef_.T, rtol=DIGITS, atol=1e-8)


def test_weights_and_an_elastic_net_are_those_of_glum():
    from glum import GeneralizedLinearRegressor
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    x, weight = standardised(x), np.random.default_rng(0).random(len(y)) + 0.5
    peer = GeneralizedLinearRegressor(family="binomial", alpha=0.02, l1_ratio=0.5, gradient_tol=1e-10, max_iter=1000)
    peer.fit(x, y, sample_weight=weight)
    found = lr_nn.fit(lr_nn.logistic_regression(30), Batch(x, y, weight), penalty=penalties.elastic_net(0.02, 0.5))
    np.testing.assert_allclose(found.params[0].w[:, 0], peer.coef_, rtol=1e-5, atol=1e-7)
    assert ((found.params[0].w[:, 0] == 0) == (peer.coef_ == 0)).all()


needs_data = pytest.mark.skipif(not os.environ.get("LR_NN_DATA"), reason="LR_NN_DATA is not set; CI sets it")


@needs_data
def test_the_census_data_are_fitted_as_by_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    from benchmarks.fit_data import census

    x, y = census()
    peer = LogisticRegression(C=1 / (1e-4 * len(x)), tol=1e-12, max_iter=1000, solver="newton-cholesky").fit(x, y)
    found = lr_nn.fit(lr_nn.logistic_regression(x.shape[1]), Batch(x, y), penalty=penalties.l2(1e-4))
    assert found.solver == "lbfgs" and found.status is Status.converged, found.message
    np.testing.assert_allclose(found.params[0].w[:, 0], peer.coef_[0], rtol=DIGITS, atol=DIGITS)


@needs_data
def test_the_housing_data_are_fitted_as_by_scikit_learn():
    from sklearn.linear_model import Ridge

    table = np.genfromtxt(Path(os.environ["LR_NN_DATA"]) / "housing.csv.gz", delimiter=",", skip_header=1)
    table = table[np.isfinite(table[:, :9]).all(axis=1), :9]
    x, y = standardised(table[:, :8]), table[:, 8] / 1e5
    peer = Ridge(alpha=1e-2 * len(x), solver="cholesky").fit(x, y)
    found = lr_nn.fit(lr_nn.linear_regression(8), Batch(x, y), penalty=penalties.l2(1e-2))
    np.testing.assert_allclose(found.params[0].w[:, 0], peer.coef_, rtol=1e-9)
