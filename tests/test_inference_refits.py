"""Refits of inference: columns far from zero, rows of weight zero, far offsets, and what is refused."""

import numpy as np
import pytest

import lr_nn
from lr_nn import Batch, inference, losses, penalties
from lr_nn.penalties import Penalty

NETS = {
    "logistic": lr_nn.logistic_regression(2),
    "softmax": lr_nn.softmax_regression(2, 3),
    "poisson": lr_nn.poisson_regression(2),
}


def rows(name, n=60, seed=0):
    """x (n, 2) and y (n,)."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 2)), rng.integers(0, {"logistic": 2, "softmax": 3, "poisson": 4}[name], n)


@pytest.mark.parametrize("name", NETS)
def test_refits_of_columns_far_from_zero_are_those_of_centred_columns(name):
    net, (x, y) = NETS[name], rows(name)
    far = x + np.array([1e6, 0.0])
    found = []
    for data in (Batch(far - np.array([1e6, 0.0]), y), Batch(far, y)):
        solution = lr_nn.fit(net, data, tol=1e-14)
        weights = range(2 * max(1, net.sizes[1] - 1))
        intervals = inference.profile_intervals(net, solution, data, coefficients=weights)
        found.append((intervals[:2], inference.leave_one_out(net, solution, data)[:, :2]))
    for centred, other in zip(*found):
        assert np.isfinite(centred).all()
        np.testing.assert_allclose(other, centred, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", NETS)
def test_a_bias_far_from_the_rows_has_an_interval(name):
    net, (x, y) = NETS[name], rows(name)
    data = Batch(x + np.array([700.0, 0.0]), y)
    assert np.isfinite(inference.profile_intervals(net, lr_nn.fit(net, data, tol=1e-14), data)).all()


def test_firth_of_columns_and_offsets_far_from_zero_is_that_of_centred_ones():
    net, (x, y) = NETS["logistic"], rows("logistic")
    far = x + 1e5
    near = inference.firth(net, Batch(far - 1e5, y))
    other = inference.firth(net, Batch(far, y, None, np.full(60, 1e3)))
    assert near.status == other.status == lr_nn.Status.converged
    np.testing.assert_allclose(other.coefficients[:2], near.coefficients[:2], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", NETS)
def test_what_a_row_of_little_weight_takes_away_is_itself(name):
    net, (x, y) = NETS[name], rows(name)
    weight, penalty = np.resize([0.0, 2.0, 0.5, 1.0], 60), penalties.l2(0.05)
    data = Batch(x, y, weight)
    solution = lr_nn.fit(net, data, penalty=penalty, tol=1e-14)
    found = inference.leave_one_out(net, solution, data)
    np.testing.assert_allclose(inference.influence(net, solution, data).one_step, found, rtol=0.2, atol=0.05)
    for row in range(8):
        less = weight.copy()
        less[row] -= min(less[row], 1)
        expected = lr_nn.fit(net, Batch(x, y, less), penalty=penalty, tol=1e-14).coefficients
        expected = expected if name != "softmax" else (expected - expected[:, :1])[:, 1:]
        np.testing.assert_allclose(found[row], expected, rtol=1e-6, atol=1e-7)


def test_least_squares_without_a_row_of_little_weight():
    net, (x, y) = lr_nn.linear_regression(2), rows("poisson")
    weight, penalty = np.resize([0.0, 2.0, 0.5, 1.0], 60), penalties.l2(0.05)
    data = Batch(x, y, weight)
    found = inference.leave_one_out(net, lr_nn.fit(net, data, penalty=penalty), data)
    for row in range(4):
        less = weight.copy()
        less[row] -= min(less[row], 1)
        np.testing.assert_allclose(
            found[row], lr_nn.fit(net, Batch(x, y, less), penalty=penalty).coefficients, rtol=1e-8, atol=1e-9
        )


@pytest.mark.parametrize("lanes", (False, True))
def test_the_constant_model_of_a_fit_without_a_bias_keeps_the_offset(lanes):
    net, (x, y) = lr_nn.Network((2, 1), (), losses.bernoulli, bias=False), rows("logistic")
    offset = np.linspace(-1, 1, 60)
    constant = lr_nn.fit(
        lr_nn.Network((1, 1), (), losses.bernoulli),
        Batch(np.zeros((60, 1)), y, None, offset),
        penalty=penalties.l2(1.0),
    )
    data = Batch(x, np.stack([y, y]) if lanes else y, None, offset)
    found = inference.summary(net, (lr_nn.fit_many if lanes else lr_nn.fit)(net, data), data)
    np.testing.assert_allclose(np.unique(found.null_log_likelihood), -60 * constant.cost, rtol=1e-9)


def test_a_table_of_lanes_with_a_penalty_shows_one_that_failed():
    net, (x, y) = NETS["logistic"], rows("logistic")
    data = Batch(x, np.stack([y, np.ones(60)]))
    found = lr_nn.fit_many(net, data, penalty=Penalty(0.0, 0.1))
    assert found.status.tolist() == [lr_nn.Status.converged, lr_nn.Status.separated]
    assert "nan" in str(inference.summary(net, found, data))


REFUSED = {
    "NaN in x": (
        lambda net, fit, data: inference.profile_intervals(net, fit, data._replace(x=data.x * np.nan)),
        "x must",
    ),
    "no column": (
        lambda net, fit, data: inference.score_test(net, fit, data, np.ones((60, 0))),
        "extra must have shape",
    ),
    "a number": (lambda net, fit, data: inference.score_test(net, fit, data, 1.0), "extra must have shape"),
    "no row": (
        lambda net, fit, data: inference.wald_test(inference.summary(net, fit, data), np.ones((0, 3))),
        "restric",
    ),
    "no summary": (lambda net, fit, data: inference.wald_test(fit, np.ones(3)), "what inference.summary returns"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused(name):
    net, data = NETS["logistic"], Batch(*rows("logistic"))
    call, message = REFUSED[name]
    with pytest.raises((ValueError, TypeError), match=message):
        call(net, lr_nn.fit(net, data), data)


def test_no_coefficients_have_no_intervals():
    net, data = NETS["logistic"], Batch(*rows("logistic"))
    assert np.isnan(inference.profile_intervals(net, lr_nn.fit(net, data), data, coefficients=())).all()
