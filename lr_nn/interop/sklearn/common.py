"""What every estimator shares: where data enter, and what a classifier makes of its linear predictor η."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from lr_nn import check


class Estimator(BaseEstimator):
    """Tables of numbers in, with scikit-learn's checks of them."""

    dtypes: Any = (np.float64, np.float32)

    def _admit(self, X: Any, y: Any, sample_weight: Any, **checks: Any) -> tuple[np.ndarray, ...]:
        """x (n, d), y and the weights (n,) or None, without rows of weight zero: they count for nothing."""
        x, y = validate_data(self, X, y, dtype=self.dtypes, **checks)
        if sample_weight is None:
            return x, y, None
        with jax.enable_x64(True):
            weight = np.asarray(check.weights(sample_weight, len(x), np.float64))
        kept = weight > 0
        return (x, y, weight) if kept.all() else (x[kept], y[kept], weight[kept])

    def _inputs(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return validate_data(self, X, dtype=self.dtypes, reset=False)

    def _eta(self, X: Any) -> np.ndarray:
        """The linear predictor η, (n, k)."""
        raise NotImplementedError


class Regressor(RegressorMixin, Estimator):
    """Values of one output (n,) or of several (n, k)."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class Classifier(ClassifierMixin, Estimator):
    """Two classes by one output η, the log-odds of the second; more by one output a class."""

    def _admit_classes(self, X: Any, y: Any, sample_weight: Any) -> tuple[np.ndarray, ...]:
        """x, the numbers of the classes in `classes_`, and the weights."""
        x, y, weight = self._admit(X, y, sample_weight)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"{type(self).__name__} needs at least two classes among the rows of positive weight; "
                f"got one class, {self.classes_[0]!r}"
            )
        return x, labels, weight

    def decision_function(self, X: Any) -> np.ndarray:
        """The linear predictor η: (n,) for two classes, positive where the second is likelier; else (n, k)."""
        eta = self._eta(X)
        return eta[:, 0] if len(self.classes_) == 2 else eta

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class, (n,)."""
        best = self._scores(X).argmax(axis=1)
        return self.classes_[best]

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of every class, (n, k), in the order of `classes_`."""
        return softmax(self._scores(X), axis=1)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """log of `predict_proba`, finite where that is rounded to zero."""
        return log_softmax(self._scores(X), axis=1)

    def _scores(self, X: Any) -> np.ndarray:
        """Logits (n, k) of a softmax: those of two classes are (0, η)."""
        eta = self._eta(X)
        return np.insert(eta, 0, 0, axis=1) if eta.shape[1] == 1 else eta
