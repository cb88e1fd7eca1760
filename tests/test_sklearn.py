"""The estimators are scikit-learn's in every habit, and their optima are those of its own."""

import jax
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from lr_nn.interop.sklearn import LinearRegression, LogisticRegression, MLPClassifier, MLPRegressor, Ridge


@pytest.fixture(autouse=True)
def _promotion_of_optax():
    with jax.numpy_dtype_promotion("standard"):
        yield


@parametrize_with_checks([LinearRegression(), Ridge(), LogisticRegression(), MLPClassifier(), MLPRegressor()])
def test_every_check_of_scikit_learn_passes(estimator, check):
    check(estimator)
