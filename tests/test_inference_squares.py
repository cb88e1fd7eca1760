"""R², F and clustered Student's t of least squares, against statsmodels and scipy."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from test_inference import close, covariances, each_covariance, peer, table, wide

import lr_nn
from lr_nn import Batch, Status, inference, losses, penalties


def summarised(x, y, *rest, bias=True, penalty=None, **options):
    net = lr_nn.Network((x.shape[1], np.shape(y)[1] if np.ndim(y) > 1 else 1), (), losses.squared_error, bias=bias)
    data = Batch(x, y, *rest)
    return inference.summary(net, lr_nn.fit(net, data, penalty=penalty), data, **options)


def agree(found, known):
    close(found.r_squared, known.rsquared)
    close(found.adjusted_r_squared, known.rsquared_adj)
    close(found.f_statistic, known.fvalue)
    close(found.f_p_value, known.f_pvalue, rtol=1e-6)


@each_covariance
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_r_squared_and_f_are_those_of_ols(bias, covariance):
    x, y = (a[:, :3] if a.ndim > 1 else a for a in table("scotland"))
    ours, theirs = covariances(len(x))[covariance]
    agree(summarised(x, y, bias=bias, **ours), peer(sm.OLS(y, wide(x) if bias else x), **theirs))


@pytest.mark.parametrize("mean", [0.0, 100.0, -1e6])
def test_the_constant_model_of_least_squares_is_the_mean_wherever_it_is(mean):
    x, y, _, offset = draw()
    y = y[:, 0] - y[:, 0].mean() + mean
    for shift in (None, offset[:, 0]):
        known = peer(sm.OLS(y if shift is None else y - shift, np.ones(50)))
        close(summarised(x, y, None, shift).null_log_likelihood, known.llf)


def draw(n=50):
    rng = np.random.default_rng(4)
    x, offset, counts = rng.standard_normal((n, 2)), rng.standard_normal((n, 2)), rng.integers(0, 4, n)
    return x, x @ [[1.0, 0.1], [0.5, 0.0]] + 100 + rng.standard_normal((n, 2)), counts, offset


def test_every_output_with_weights_and_offset_is_ols_of_repeated_rows():
    x, y, counts, offset = draw()
    found = summarised(x, y, counts, offset)
    text = str(found)
    for j in range(2):
        known = peer(sm.OLS(np.repeat(y[:, j] - offset[:, j], counts), wide(np.repeat(x, counts, axis=0))))
        close(found.r_squared[j], known.rsquared)
        close(found.f_statistic[j], known.fvalue)
        assert f"R2 of y{j}:" in text and f"{known.rsquared:.4g}" in text and f"{known.fvalue:.4g}" in text
    assert "McFadden" not in text and "Pearson" not in text


def test_a_clustered_t_has_a_degree_of_freedom_less_than_clusters_that_count():
    x, y, _, _ = draw()
    y, groups, weight = y[:, 0], np.arange(50) % 6, np.where(np.arange(50) % 6 == 5, 0.0, 1.0)
    found = summarised(x, y, weight, covariance="cluster", groups=groups, use_t=True)
    kept = groups < 5
    known = peer(sm.OLS(y[kept], wide(x[kept])), cov_type="cluster", cov_kwds={"groups": groups[kept]}, use_t=True)
    assert found.clusters == 5 and found.residual_degrees_of_freedom == 4
    close(found.p_values, known.pvalues)
    close(found.intervals, known.conf_int())
    close(found.p_values, 2 * stats.t.sf(np.abs(found.z), 4))
    restriction = np.eye(3)[:2] - np.eye(3)[1:]
    test = inference.wald_test(found, restriction)
    close(test.statistic / 2, known.f_test(restriction).fvalue)
    close(test.p_value, known.f_test(restriction).pvalue)
    normal = summarised(x, y, weight, covariance="cluster", groups=groups)
    close(normal.p_values, 2 * stats.norm.sf(np.abs(found.z)))


def test_a_logistic_fit_has_the_clustered_t_too():
    x, y = table("spector")
    net, groups = lr_nn.logistic_regression(3), np.arange(len(x)) % 7
    found = inference.summary(
        net, lr_nn.fit(net, Batch(x, y)), Batch(x, y), covariance="cluster", groups=groups, use_t=True
    )
    close(found.p_values, 2 * stats.t.sf(np.abs(found.z), 6))
    half = stats.t.ppf(0.975, 6) * found.standard_errors
    close(found.intervals, np.stack([found.coefficients - half, found.coefficients + half], axis=-1))


def test_few_clusters_test_few_hypotheses():
    x, y, _, _ = draw()
    found = summarised(x, y[:, 0], covariance="cluster", groups=np.arange(50) % 2, use_t=True)
    assert np.isnan(found.f_statistic).all() and np.isnan(found.f_p_value).all()
    with pytest.raises(ValueError, match="2 clusters can test fewer restrictions"):
        inference.wald_test(found, np.eye(3)[:2])


def test_a_penalised_fit_has_r_squared_and_no_f():
    x, y, _, _ = draw()
    found = summarised(x, y[:, 0], penalty=penalties.l2(0.2))
    residual = y[:, 0] - wide(x) @ found.coefficients[:, 0]
    r_squared = 1 - (residual**2).sum() / ((y[:, 0] - y[:, 0].mean()) ** 2).sum()
    close(found.r_squared, r_squared)
    close(found.adjusted_r_squared, 1 - (1 - r_squared) * 49 / (50 - found.degrees_of_freedom))
    assert np.isnan(found.f_statistic).all() and np.isnan(found.f_p_value).all()


def test_r_squared_is_not_defined_without_variance():
    with np.errstate(divide="ignore", invalid="ignore"):
        assert np.isnan(summarised(draw()[0], np.zeros(50)).r_squared).all()


def test_lanes_of_least_squares_have_f_where_they_have_no_penalty():
    x, y, _, _ = draw()
    net = lr_nn.linear_regression(2)
    many = lr_nn.fit_many(net, Batch(x, y[:, 0]), penalty=penalties.l2([0.0, 0.1]))
    found = inference.summary(net, many, Batch(x, y[:, 0]), covariance="cluster", groups=np.arange(50) % 7, use_t=True)
    assert (many.status == Status.converged).all() and found.r_squared.shape == found.f_statistic.shape == (2, 1)
    alone = summarised(x, y[:, 0], covariance="cluster", groups=np.arange(50) % 7, use_t=True)
    close(found.f_statistic[0], alone.f_statistic)
    close(found.p_values[0], alone.p_values)
    assert np.isnan(found.f_statistic[1]).all()


def test_a_statistic_of_another_loss_names_what_to_read():
    x, y, _, _ = draw()
    squares = summarised(x, y[:, 0])
    net = lr_nn.logistic_regression(2)
    data = Batch(x, (y[:, 0] > 100).astype(int))
    logistic = inference.summary(net, lr_nn.fit(net, data), data)
    for found, name, instead in (
        (squares, "mcfadden_r2", "read r_squared"),
        (squares, "pearson_chi2", "read dispersion"),
        (squares, "odds_ratios", "read coefficients"),
        (logistic, "r_squared", "read mcfadden_r2"),
        (logistic, "adjusted_r_squared", "read mcfadden_r2"),
        (logistic, "f_statistic", "read wald_test"),
        (logistic, "f_p_value", "read wald_test"),
    ):
        with pytest.raises(ValueError, match=instead):
            getattr(found, name)
