"""Tests of hypotheses, influence and marginal effects, against statsmodels and against fits made anew."""

import warnings

import numpy as np
import pytest
import statsmodels.api as sm
from test_inference import GLM, LOGIT, close, peer, table, wide

import lr_nn
from lr_nn import Batch, inference, losses, penalties

LAWS = {
    "bernoulli": ("spector", sm.families.Binomial()),
    "poisson": ("cpunish", sm.families.Poisson()),
    "squared_error": ("scotland", sm.families.Gaussian()),
}
each_law = pytest.mark.parametrize("task", LAWS)


def fitted(task, columns=None):
    name, law = LAWS[task]
    x, y = table(name)
    x = x[:, :columns]
    net = lr_nn.Network((x.shape[1], 1), (), getattr(losses, task))
    return net, lr_nn.fit(net, Batch(x, y)), Batch(x, y), law


@each_law
def test_influence_is_that_of_glm(task):
    net, solution, batch, law = fitted(task)
    found = inference.influence(net, solution, batch)
    known = peer(sm.GLM(batch.y, wide(batch.x), family=law), **GLM).get_influence()
    close(found.leverage, known.hat_matrix_diag)
    close(found.cooks_distance, known.cooks_distance[0])
    close(found.pearson_residuals, known.resid_studentized)
    close(solution.coefficients[None] - found.one_step, known.d_params, rtol=1e-6)
    deviance = known.results.resid_deviance / np.sqrt(known.results.scale * (1 - known.hat_matrix_diag))
    close(found.deviance_residuals, deviance)


NETS = {
    "logistic": (lr_nn.logistic_regression(2), "bernoulli"),
    "2 labels": (lr_nn.logistic_regression(2, 2), "bernoulli"),
    "linear": (lr_nn.linear_regression(2), "squared_error"),
    "softmax": (lr_nn.softmax_regression(2, 3), "categorical"),
    "no bias": (lr_nn.Network((2, 1), (), losses.poisson, bias=False), "poisson"),
}


def rows(name, n=40):
    net, task = NETS[name]
    rng, k = np.random.default_rng(7), net.sizes[1]
    y = {
        "bernoulli": rng.integers(0, 2, (n, k)),
        "squared_error": rng.standard_normal((n, k)),
        "categorical": rng.integers(0, k, n),
        "poisson": rng.poisson(2, (n, k)),
    }[task]
    return net, rng.standard_normal((n, 2)), y, rng.integers(1, 3, n)


@pytest.mark.parametrize("penalty", [None, penalties.l2(0.05)], ids=["none", "l2"])
@pytest.mark.parametrize("name", NETS)
def test_leaving_one_out_is_a_fit_without_it(name, penalty):
    net, x, y, counts = rows(name)
    solution = lr_nn.fit(net, Batch(x, y, counts), penalty=penalty)
    found = inference.leave_one_out(net, solution, Batch(x, y, counts))
    near = inference.influence(net, solution, Batch(x, y, counts))
    for i in (0, 5):
        less = counts - (np.arange(len(x)) == i)
        again = lr_nn.fit(net, Batch(x, y, less), penalty=penalty).coefficients
        again = (again - again[:, :1])[:, 1:] if name == "softmax" else again
        whole = inference.summary(net, solution, Batch(x, y, counts)).coefficients
        np.testing.assert_allclose(found[i], again, atol=1e-6)
        assert np.abs(near.one_step[i] - again).max() <= 0.2 * np.abs(whole - again).max()
    freedom = inference.summary(net, solution, Batch(x, y, counts)).degrees_of_freedom
    np.testing.assert_allclose((counts * near.leverage).sum(), freedom, rtol=1e-9)


@each_law
def test_the_score_test_is_that_of_glm(task):
    net, solution, batch, law = fitted(task, columns=2)
    extra = table(LAWS[task][0])[0][:, 2:]
    found = inference.score_test(net, solution, batch, extra)
    known = peer(sm.GLM(batch.y, wide(batch.x), family=law), **GLM).score_test(exog_extra=extra)
    close(found.statistic, known.statistic)
    close(found.p_value, known.pvalue)
    assert found.degrees_of_freedom == extra.shape[1]


def test_the_likelihood_ratio_of_nested_models():
    larger, smaller = fitted("bernoulli"), fitted("bernoulli", columns=1)
    found = inference.likelihood_ratio_test(*(inference.summary(*each[:3]) for each in (larger, smaller)))
    known = [peer(sm.Logit(each[2].y, wide(each[2].x)), **LOGIT) for each in (larger, smaller)]
    statistic = 2 * (known[0].llf - known[1].llf)
    close(found.statistic, statistic)
    close(found.p_value, sm.stats.stattools.stats.chi2.sf(statistic, 2))
    with pytest.raises(ValueError, match="larger, then smaller"):
        inference.likelihood_ratio_test(*(inference.summary(*each[:3]) for each in (smaller, larger)))


@pytest.mark.parametrize("task", ["bernoulli", "squared_error"])
def test_wald_tests_are_those_of_statsmodels(task):
    net, solution, batch, _ = fitted(task)
    p = batch.x.shape[1] + 1
    restriction, value = np.eye(p)[:2] - np.eye(p)[1:3] / 2, np.array([0.1, -0.2])
    found = inference.wald_test(inference.summary(net, solution, batch), restriction, value)
    if task == "bernoulli":
        known = peer(sm.Logit(batch.y, wide(batch.x)), **LOGIT).wald_test((restriction, value), scalar=True)
        close(found.statistic, known.statistic)
    else:
        known = peer(sm.OLS(batch.y, wide(batch.x))).f_test((restriction, value))
        close(found.statistic / 2, known.statistic)
    close(found.p_value, known.pvalue)


@pytest.mark.parametrize("name", ["spector", "cpunish", "anes96"])
def test_marginal_effects_are_those_of_statsmodels(name):
    x, y = table(name)
    model, net = {
        "spector": (sm.Logit, lr_nn.logistic_regression(x.shape[1])),
        "cpunish": (sm.Poisson, lr_nn.Network((x.shape[1], 1), (), losses.poisson)),
        "anes96": (sm.MNLogit, lr_nn.softmax_regression(x.shape[1], 7)),
    }[name]
    y = y.astype(int)
    found = inference.marginal_effects(net, lr_nn.fit(net, Batch(x, y)), Batch(x, y))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = peer(model(y, wide(x)), **LOGIT).get_margeff()
    close(found.effects, known.margeff, rtol=1e-6)
    close(found.standard_errors, known.margeff_se, rtol=1e-6)


def test_marginal_effects_of_least_squares_are_the_coefficients():
    net, solution, batch, _ = fitted("squared_error")
    found, plain = inference.marginal_effects(net, solution, batch), inference.summary(net, solution, batch)
    close(found.effects, plain.coefficients[:-1])
    close(found.standard_errors, plain.standard_errors[:-1])


def test_a_summary_of_a_fit_without_a_bias_and_with_an_offset_has_a_constant_model():
    rng = np.random.default_rng(5)
    net = lr_nn.Network((2, 1), (), losses.bernoulli, bias=False)
    data = lr_nn.Batch(
        rng.standard_normal((60, 2)), (rng.random(60) < 0.4).astype(float), None, rng.standard_normal(60)
    )
    found = inference.summary(net, lr_nn.fit(net, data), data)
    alone = lr_nn.fit(lr_nn.logistic_regression(1), data._replace(x=np.zeros((60, 1))))
    np.testing.assert_allclose(found.null_log_likelihood, -60 * alone.cost, rtol=1e-10)
    assert "McFadden" in str(found)
