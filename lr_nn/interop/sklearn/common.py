"""What every estimator shares: where data enter, and what a classifier makes of its linear predictor η."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from lr_nn import check, losses
from lr_nn.losses import Loss
from lr_nn.types import Batch

# Tables of at most this many numbers are filled up: larger ones take longer to fit than to compile for.
SMALL = 2**18
# Rows are filled up to a multiple of at least this many, so that folds of a small table share a program.
STEP = 32


def filled(batch: Batch) -> Batch:
    """The same weighted means over a rounder number of rows, so that folds of unlike lengths run one program.

    The last row is repeated, and its weight shared among its copies. Large tables are left as they are.
    """
    n = len(batch.x)
    if batch.x.size > SMALL:
        return batch
    step = max(STEP, 1 << (n - 1).bit_length() >> 3)
    copies = -n % step + 1
    which = np.minimum(np.arange(n + copies - 1), n - 1)
    weight = np.ones(n) if batch.weight is None else batch.weight
    shared = np.where(which == n - 1, weight[-1] / copies, weight[which])
    return Batch(batch.x[which], batch.y[which], shared)


class Estimator(BaseEstimator):
    """Tables of numbers in, with scikit-learn's checks of them."""

    dtypes: Any = (np.float64, np.float32)

    def _admit(self, X: Any, y: Any, sample_weight: Any, **checks: Any) -> Batch:
        """The arguments of `fit` as a Batch, without the rows of weight zero."""
        x, y = validate_data(self, X, y, dtype=self.dtypes, **checks)
        if sample_weight is None:
            return Batch(x, y, None)
        with jax.enable_x64(True):
            weight = np.asarray(check.weights(sample_weight, len(x), np.float64))
        kept = weight > 0
        return Batch(x, y, weight) if kept.all() else Batch(x[kept], y[kept], weight[kept])

    def _inputs(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return validate_data(self, X, dtype=self.dtypes, reset=False)

    def _eta(self, X: Any) -> np.ndarray:
        """The linear predictor η, (n, k)."""
        raise NotImplementedError


class Regressor(RegressorMixin, Estimator):
    """Values of one output (n,) or of several (n, k)."""

    def __sklearn_tags__(self) -> Any:
        """Several outputs are welcome."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class Classifier(ClassifierMixin, Estimator):
    """Two classes by one output η, the log-odds of the second; more by one output a class."""

    def _admit_classes(self, X: Any, y: Any, sample_weight: Any) -> Batch:
        """The same, with the place of every label in `classes_` for y."""
        rows = self._admit(X, y, sample_weight)
        check_classification_targets(rows.y)
        self.classes_, places = np.unique(rows.y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"{type(self).__name__} needs at least two classes among the rows of positive weight; "
                f"got one class, {self.classes_[0]!r}"
            )
        return rows._replace(y=places)

    def _response(self) -> tuple[Loss, int]:
        """The loss, and the number of outputs."""
        k = len(self.classes_)
        return (losses.bernoulli, 1) if k == 2 else (losses.categorical, k)

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
