"""Summaries against statsmodels on the data that come with it, to six digits and more."""

import warnings

import numpy as np
import pytest
import statsmodels.api as sm

import lr_nn
from lr_nn import Batch, inference, losses, penalties

DIGITS = 1e-7


def close(actual, desired, rtol=DIGITS):
    np.testing.assert_allclose(np.squeeze(actual), np.squeeze(desired), rtol=rtol, atol=1e-12)


def peer(model, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(**more)


def wide(x):
    """The constant last, as here."""
    return np.column_stack([x, np.ones(len(x))])


def table(name):
    """x in units of its columns' spread, and y, as statsmodels bundles them."""
    data = getattr(sm.datasets, name).load_pandas()
    x, y = data.exog.to_numpy(float), data.endog.to_numpy(float)
    return (x - x.mean(axis=0)) / x.std(axis=0), y


LOGIT = {"disp": 0, "method": "newton", "maxiter": 100, "tol": 1e-12}
GLM = {"tol": 1e-14, "maxiter": 200}
CLUSTERS = 7


def covariances(n):
    groups = np.arange(n) % CLUSTERS
    return {
        "fisher": ({}, {}),
        "hc0": ({"covariance": "hc0"}, {"cov_type": "HC0"}),
        "hc1": ({"covariance": "hc1"}, {"cov_type": "HC1"}),
        "cluster": (
            {"covariance": "cluster", "groups": groups},
            {"cov_type": "cluster", "cov_kwds": {"groups": groups}},
        ),
    }


each_covariance = pytest.mark.parametrize("covariance", covariances(1))


@each_covariance
@pytest.mark.parametrize("name", ["spector", "fair"])
def test_logistic_regression_is_that_of_logit(name, covariance):
    x, y = table(name)
    y = (y > 0).astype(float)
    ours, theirs = covariances(len(x))[covariance]
    net = lr_nn.logistic_regression(x.shape[1])
    found = inference.summary(net, lr_nn.fit(net, Batch(x, y)), Batch(x, y), **ours)
    known = peer(sm.Logit(y, wide(x)), **LOGIT, **theirs)
    close(found.coefficients, known.params)
    close(found.standard_errors, known.bse)
    close(found.z, known.tvalues)
    close(found.p_values, known.pvalues)
    close(found.intervals, known.conf_int())
    close(found.covariance, known.cov_params())
    close(found.odds_ratios, np.exp(known.params))
    close(found.odds_ratio_intervals, np.exp(known.conf_int()))
    for ours, theirs in (
        (found.log_likelihood, known.llf),
        (found.null_log_likelihood, known.llnull),
        (found.aic, known.aic),
        (found.bic, known.bic),
        (found.mcfadden_r2, known.prsquared),
        (found.n, known.nobs),
    ):
        close(ours, theirs)


@pytest.mark.parametrize("covariance", ["fisher", "hc0", "cluster"])
def test_softmax_regression_is_that_of_mnlogit(covariance):
    x, y = table("anes96")
    y = y.astype(int)
    ours, theirs = covariances(len(x))[covariance]
    net = lr_nn.softmax_regression(x.shape[1], 7)
    found = inference.summary(net, lr_nn.fit(net, Batch(x, y)), Batch(x, y), **ours)
    known = peer(sm.MNLogit(y, wide(x)), **LOGIT, **theirs)
    close(found.coefficients, known.params)
    close(found.standard_errors, known.bse)
    close(found.p_values, known.pvalues)
    close(found.intervals, np.swapaxes(known.conf_int().reshape(6, -1, 2), 0, 1))
    close(found.log_likelihood, known.llf)
    close(found.null_log_likelihood, known.llnull)
    close(found.aic, known.aic)
    close(found.bic, known.bic)


FAMILIES = {
    "poisson": (losses.poisson, sm.families.Poisson(), "cpunish"),
    "gaussian": (losses.squared_error, sm.families.Gaussian(), "scotland"),
}


@pytest.mark.parametrize("covariance", ["fisher", "hc0", "cluster"])
@pytest.mark.parametrize("family", FAMILIES)
def test_generalised_linear_models_are_those_of_glm(family, covariance):
    loss, law, name = FAMILIES[family]
    x, y = table(name)
    ours, theirs = covariances(len(x))[covariance]
    net = lr_nn.Network((x.shape[1], 1), (), loss)
    found = inference.summary(net, lr_nn.fit(net, Batch(x, y)), Batch(x, y), **ours, use_t=False)
    known = peer(sm.GLM(y, wide(x), family=law), **GLM, **theirs)
    for ours, theirs in (
        (found.standard_errors, known.bse),
        (found.p_values, known.pvalues),
        (found.log_likelihood, known.llf),
        (found.deviance, known.deviance),
    ):
        close(ours, theirs)
    if family == "poisson":
        close(found.pearson_chi2, known.pearson_chi2)


@each_covariance
def test_least_squares_are_those_of_ols(covariance):
    x, y = table("scotland")
    ours, theirs = covariances(len(x))[covariance]
    net = lr_nn.linear_regression(x.shape[1])
    found = inference.summary(net, lr_nn.fit(net, Batch(x, y)), Batch(x, y), **ours)
    known = peer(sm.OLS(y, wide(x)), **theirs)
    assert found.use_t == known.use_t == (covariance == "fisher")
    for ours, theirs in (
        (found.standard_errors, known.bse),
        (found.p_values, known.pvalues),
        (found.intervals, known.conf_int()),
        (found.log_likelihood, known.llf),
        (found.aic, known.aic),
        (found.bic, known.bic),
        (found.dispersion, known.scale),
    ):
        close(ours, theirs)


def test_shares_of_trials_are_binomial_counts():
    x, counts = table("star98")
    trials = counts.sum(axis=1)
    net = lr_nn.logistic_regression(x.shape[1])
    share = counts[:, 0] / trials
    solution = lr_nn.fit(net, Batch(x, share, trials))
    found = inference.summary(net, solution, Batch(x, share, trials))
    known = peer(sm.GLM(counts, wide(x), family=sm.families.Binomial()), **GLM)
    close(found.standard_errors, known.bse)
    close(found.deviance, known.deviance)
    close(found.pearson_chi2, known.pearson_chi2)


def proportions():
    """Proportions of trials with the number of trials, a network and its fit."""
    rng = np.random.default_rng(2)
    x, trials = rng.standard_normal((30, 2)), rng.integers(2, 9, 30)
    successes = rng.binomial(trials, 1 / (1 + np.exp(-x @ [0.5, -1.0])))
    data = Batch(x, successes / trials, trials)
    net = lr_nn.logistic_regression(2)
    return net, lr_nn.fit(net, data), data, successes


@pytest.mark.parametrize("covariance", ["hc0", "hc1"])
def test_a_sandwich_of_proportions_warns_that_trials_are_no_copies(covariance):
    net, solution, data, successes = proportions()
    for estimate in (inference.summary, inference.marginal_effects):
        with pytest.warns(UserWarning, match="rows of 0 and 1 with weights failures and successes") as caught:
            estimate(net, solution, data, covariance=covariance)
        assert [each.filename for each in caught] == [__file__]
    with pytest.warns(UserWarning, match="trials"):
        grouped = inference.summary(net, solution, data, covariance=covariance)
    x, y, trials, _ = data
    rows = Batch(np.tile(x, (2, 1)), np.repeat([0, 1], 30), np.append(trials - successes, successes))
    apart = inference.summary(net, lr_nn.fit(net, rows), rows, covariance=covariance)
    within = np.einsum("n,na,nb->ab", trials * y * (1 - y), wide(x), wide(x))
    close(apart.covariance, grouped.covariance + grouped.bread @ within @ grouped.bread, rtol=1e-6)
    close(apart.coefficients, grouped.coefficients, rtol=1e-6)


def test_a_cluster_a_row_is_the_sandwich_of_grouped_trials():
    net, solution, data, successes = proportions()
    found = inference.summary(net, solution, data, covariance="cluster", groups=np.arange(30))
    counts = np.column_stack([successes, data.weight - successes])
    known = peer(sm.GLM(counts, wide(data.x), family=sm.families.Binomial()), **GLM, cov_type="HC0")
    n, g, p = data.weight.sum(), 30, 3
    close(found.covariance, known.cov_params() * g / (g - 1) * (n - 1) / (n - p))


def test_single_proportions_and_labels_are_rows_of_the_sandwich():
    net, _, data, _ = proportions()
    for y, weight in ((data.y, None), (data.y, np.arange(30) > 3), (np.round(data.y), data.weight)):
        batch = data._replace(y=y, weight=weight)
        inference.summary(net, lr_nn.fit(net, batch), batch, covariance="hc0")  # warnings are errors


@pytest.mark.parametrize("task", ["bernoulli", "poisson", "squared_error"])
def test_weights_and_offsets_are_those_of_glm(task):
    rng = np.random.default_rng(0)
    x, offset, counts = rng.standard_normal((60, 2)), rng.standard_normal(60) / 2, rng.integers(1, 4, 60)
    eta = x @ [0.5, -0.3] + offset
    law, y = {
        "bernoulli": (sm.families.Binomial(), (rng.random(60) < 1 / (1 + np.exp(-eta))).astype(float)),
        "poisson": (sm.families.Poisson(), rng.poisson(np.exp(eta)).astype(float)),
        "squared_error": (sm.families.Gaussian(), eta + rng.standard_normal(60)),
    }[task]
    net = lr_nn.Network((2, 1), (), getattr(losses, task))
    batch = Batch(x, y, counts, offset)
    solution = lr_nn.fit(net, Batch(x, y, counts, offset))
    found = inference.summary(net, solution, batch, covariance="hc0")
    known = peer(sm.GLM(y, wide(x), family=law, freq_weights=counts, offset=offset), **GLM)
    close(found.n, known.nobs if known.nobs == counts.sum() else counts.sum())
    close(inference.summary(net, solution, batch).standard_errors, known.bse)
    if task != "squared_error":
        close(found.log_likelihood, known.llf)
        close(found.null_log_likelihood, known.llnull)
    repeated = Batch(*(np.repeat(a, counts, axis=0) for a in (x, y)), None, np.repeat(offset, counts))
    again = inference.summary(net, lr_nn.fit(net, repeated), repeated, covariance="hc0")
    close(found.standard_errors, again.standard_errors)
    close(found.bic, again.bic)


@pytest.mark.parametrize("name", ["logistic", "linear", "softmax"])
def test_a_ridge_fit_has_the_covariance_that_its_estimating_equation_gives(name):
    """H⁻¹ F H⁻¹ and tr(H⁻¹ F) written out on the coefficients of all classes, the common shift left out."""
    rng = np.random.default_rng(1)
    x, strength = rng.standard_normal((50, 3)), 0.05
    k = 3 if name == "softmax" else 1
    net = {"logistic": lr_nn.logistic_regression, "linear": lr_nn.linear_regression}.get(
        name, lr_nn.softmax_regression
    )(3, k)
    y = {"logistic": rng.integers(0, 2, 50), "linear": rng.standard_normal(50)}.get(name, rng.integers(0, 3, 50))
    solution = lr_nn.fit(net, Batch(x, y), penalty=penalties.l2(strength))
    found = inference.summary(net, solution, Batch(x, y))
    inputs, eta = wide(x), wide(x) @ solution.coefficients
    if name == "softmax":
        p = np.exp(eta) / np.exp(eta).sum(axis=1, keepdims=True)
        blocks = np.einsum("nj,jl->njl", p, np.eye(k)) - p[:, :, None] * p[:, None, :]
    else:
        p = 1 / (1 + np.exp(-eta))
        blocks = (p * (1 - p) if name == "logistic" else np.ones_like(p))[..., None]
    f = np.einsum("na,njl,nb->ajbl", inputs, blocks, inputs).reshape(4 * k, 4 * k)
    h = f + 50 * strength * np.kron(np.diag([1, 1, 1, 0]), np.eye(k))
    bread = np.linalg.pinv(h, rcond=1e-10)
    freedom = np.trace(bread @ f)
    close(found.degrees_of_freedom, freedom)
    covariance = bread @ f @ bread
    if name == "linear":
        covariance = covariance * ((eta[:, 0] - y) ** 2).sum() / (50 - freedom)
    contrast = np.kron(np.eye(4), np.eye(k)[1:] - np.eye(k)[:1]) if k > 1 else np.eye(4)
    close(found.covariance, contrast @ covariance @ contrast.T, rtol=1e-6)
    close(found.aic, -2 * found.log_likelihood + 2 * freedom)


def test_without_a_penalty_contrasts_with_any_class_are_one_model():
    x, y = table("anes96")
    net = lr_nn.softmax_regression(x.shape[1], 7)
    y = y.astype(int)
    solution = lr_nn.fit(net, Batch(x, y))
    first, last = (inference.summary(net, solution, Batch(x, y), reference=c) for c in (0, 6))
    close(first.coefficients[:, -1], -last.coefficients[:, 0])
    close(first.standard_errors[:, -1], last.standard_errors[:, 0])
    close(first.aic, last.aic)
