"""Fits and inference on good data under JAX's debug flags: no program puts out NaN or ∞, none needs to be compiled."""

from contextlib import ExitStack

import jax
import numpy as np
import pytest

import lr_nn
from lr_nn import Batch, Status, inference, penalties
from lr_nn.data import Arrays

N, D = 40, 2
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, D))
LOGISTIC, SOFTMAX, LINEAR = lr_nn.logistic_regression(D), lr_nn.softmax_regression(D, 3), lr_nn.linear_regression(D)
BITS = (RNG.random(N) < 1 / (1 + np.exp(-X[:, 0]))).astype(float)
LABELS, VALUES = RNG.integers(0, 3, N), X[:, 0] + RNG.standard_normal(N)
COUNTS = RNG.poisson(np.exp(X[:, 0] / 2))
DATA = Batch(X, BITS)
LANES = penalties.l2(np.array([0.0, 1e-2]))
FITS = {
    "newton": lambda: lr_nn.fit(LOGISTIC, DATA, solver="newton"),
    "newton with l2 and an offset": lambda: lr_nn.fit(
        LOGISTIC, Batch(X, BITS, None, X[:, 1]), solver="newton", penalty=penalties.l2(1e-2)
    ),
    "newton of counts": lambda: lr_nn.fit(lr_nn.poisson_regression(D), Batch(X, COUNTS), solver="newton"),
    "lbfgs": lambda: lr_nn.fit(LOGISTIC, DATA, solver="lbfgs"),
    "newton_cg": lambda: lr_nn.fit(SOFTMAX, Batch(X, LABELS), solver="newton_cg"),
    "closed_form": lambda: lr_nn.fit(LINEAR, Batch(X, VALUES), solver="closed_form"),
    "proximal": lambda: lr_nn.fit(LOGISTIC, DATA, penalty=penalties.l1(1e-2)),
    "lbfgs of a deep network": lambda: lr_nn.fit(
        lr_nn.mlp((D, 2, 1)), DATA, penalty=penalties.l2(1e-2), solver="lbfgs", max_steps=1000
    ),
    "newton_cg of a deep network": lambda: lr_nn.fit(
        lr_nn.mlp((D, 2, 1)), DATA, penalty=penalties.l2(1e-2), solver="newton_cg", max_steps=1000
    ),
    "rows in blocks": lambda: lr_nn.fit(LOGISTIC, Arrays(np.tile(X, (50, 1)), np.tile(BITS, 50)), memory=2**16),
    "rows in blocks with l2": lambda: lr_nn.fit(
        LOGISTIC, Arrays(np.tile(X, (50, 1)), np.tile(BITS, 50)), memory=2**16, penalty=penalties.l2(1e-2)
    ),
}
MANY = {
    "one_by_one": lambda: lr_nn.fit_many(LOGISTIC, DATA, penalty=LANES),
    "one_by_one with l1": lambda: lr_nn.fit_many(LOGISTIC, DATA, penalty=penalties.l1(np.array([1e-2, 1e-3]))),
    "together": lambda: lr_nn.fit_many(LOGISTIC, DATA, penalty=LANES),
    "each": lambda: lr_nn.fit_many(LOGISTIC, DATA, penalty=LANES, schedule="each"),
    "cross_validate": lambda: lr_nn.cross_validate(SOFTMAX, Batch(X, LABELS), penalty=LANES).solutions,
    "bootstrap": lambda: lr_nn.bootstrap(LINEAR, Batch(X, VALUES), samples=4).solutions,
}


@pytest.fixture
def strict():
    """No output may be NaN or ∞, and JAX checks itself."""
    with ExitStack() as stack:
        for flag in (jax.debug_nans, jax.debug_infs, jax.enable_checks):
            stack.enter_context(flag(True))
        yield


def assert_optimum(found):
    status = np.atleast_1d(np.asarray(found.status))
    assert (status == Status.converged).all(), found.message


@pytest.mark.parametrize("call", FITS.values(), ids=FITS)
def test_fits_put_out_no_nan_and_no_infinity(strict, call):
    assert_optimum(call())


@pytest.mark.parametrize("call", MANY.values(), ids=MANY)
def test_many_fits_put_out_no_nan_and_no_infinity(strict, call):
    assert_optimum(call())


def test_what_has_no_optimum_says_so_and_no_error_is_raised(strict):
    apart = (X[:, 0] > 0).astype(float)
    found = lr_nn.fit(LOGISTIC, Batch(X, apart))
    assert found.status is Status.separated and found.certificate == np.inf
    many = lr_nn.fit_many(LOGISTIC, Batch(X, np.stack([BITS, apart])), penalty=None)
    assert list(many.status) == [Status.converged, Status.separated] and many.certificate[1] == np.inf
    twice = lr_nn.fit(LOGISTIC, Batch(X[:, [0, 0]], BITS))
    assert twice.status is Status.rank_deficient and twice.certificate < np.inf


def test_inference_puts_out_no_nan_and_no_infinity(strict):
    for net, y in ((LOGISTIC, BITS), (SOFTMAX, LABELS), (LINEAR, VALUES)):
        data = Batch(X, y)
        solution = lr_nn.fit(net, data)
        found = inference.summary(net, solution, data, covariance="hc0")
        assert np.isfinite(found.standard_errors).all() and str(found)
        assert np.isfinite(inference.influence(net, solution, data).cooks_distance).all()
        assert np.isfinite(inference.profile_intervals(net, solution, data, coefficients=[0])[0, 0]).all()
    assert inference.firth(LOGISTIC, DATA).status is Status.converged


def test_lanes_that_failed_are_nan_on_the_host_alone(strict):
    apart = (X[:, 0] > 0).astype(float)
    data = Batch(X, np.stack([BITS, apart]))
    found = inference.summary(LOGISTIC, lr_nn.fit_many(LOGISTIC, data), data)
    assert np.isfinite(found.standard_errors[0]).all() and np.isnan(found.standard_errors[1]).all()
    assert np.isfinite(found.log_likelihood[0]) and np.isnan(found.log_likelihood[1])


@pytest.mark.parametrize("name", ["newton", "closed_form"])
def test_a_small_fit_needs_no_compiler(name):
    with jax.disable_jit():
        found = FITS[name]()
    assert_optimum(found)
    assert abs(found.cost - FITS[name]().cost) <= 2 * found.certificate + 1e-12


def test_a_summary_and_small_lanes_need_no_compiler():
    plain = lr_nn.fit(LOGISTIC, DATA)
    with jax.disable_jit():
        found = lr_nn.fit_many(LOGISTIC, DATA, penalty=LANES)
        errors = inference.summary(LOGISTIC, plain, DATA).standard_errors
    assert_optimum(found)
    np.testing.assert_allclose(errors, inference.summary(LOGISTIC, plain, DATA).standard_errors, rtol=1e-12)
