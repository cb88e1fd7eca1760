"""Many models by the libraries people use: one model a call on all cores, or by their own paths and folds."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

CORES = 2
# Models that a process fits in one turn, so that handing them over costs little beside the fits.
AT_ONCE = 50
MOST = 10_000


def _logistic(solver: str, strength: float, n: float, tolerance: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=1 / (n * strength), solver=solver, tol=tolerance, max_iter=MOST)


def _some(solver: str, x: Any, y: Any, weights: Any, strengths: Any, tolerance: float) -> np.ndarray:
    """Coefficients of some models, the intercept last."""
    from threadpoolctl import threadpool_limits

    found = []
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i, strength in enumerate(strengths):
            weight = None if weights is None else weights[i]
            n = y.shape[-1] if weight is None else weight.sum()
            model = _logistic(solver, strength, n, tolerance)
            model.fit(x if x.ndim == 2 else x[i], y if y.ndim == 1 else y[i], sample_weight=weight)
            found.append(np.append(model.coef_[0], model.intercept_))
    return np.array(found)


def scikit_learn(
    solver: str, x: np.ndarray, y: np.ndarray, weights: np.ndarray | None, strengths: np.ndarray, tolerance: float
) -> np.ndarray:
    """LogisticRegression for every lane, processes by joblib, each with one thread."""
    from joblib import Parallel, delayed

    parts = [slice(begin, begin + AT_ONCE) for begin in range(0, len(strengths), AT_ONCE)]

    def of(array: np.ndarray | None, part: slice, shared: int) -> np.ndarray | None:
        return array if array is None or array.ndim == shared else array[part]

    found = Parallel(n_jobs=CORES)(
        delayed(_some)(solver, of(x, part, 2), of(y, part, 1), of(weights, part, 1), strengths[part], tolerance)
        for part in parts
    )
    return np.concatenate(found)


def scikit_learn_folds(
    solver: str, x: np.ndarray, y: np.ndarray, rows: np.ndarray, strengths: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """LogisticRegressionCV, from strong to weak: coefficients (f, t, d + 1) and held-out scores (f, t)."""
    from sklearn.linear_model import LogisticRegressionCV

    folds = [(np.flatnonzero(rows != f), np.flatnonzero(rows == f)) for f in range(rows.max() + 1)]
    inside = len(folds[0][0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegressionCV(
            Cs=1 / (inside * strengths),
            cv=folds,
            solver=solver,
            scoring="neg_log_loss",
            tol=tolerance,
            max_iter=MOST,
            n_jobs=CORES,
            refit=False,
            l1_ratios=(0.0,),
            use_legacy_attributes=False,
        ).fit(x, y)
    shape = (len(folds), len(strengths), x.shape[1] + 1)
    return np.asarray(model.coefs_paths_).reshape(shape), -np.asarray(model.scores_).reshape(shape[:2])


def skglm(x: np.ndarray, y: np.ndarray, strengths: np.ndarray, tolerance: float) -> np.ndarray:
    """SparseLogisticRegression, each from where the one before it ended."""
    from skglm import SparseLogisticRegression

    model = SparseLogisticRegression(tol=tolerance, max_iter=MOST, max_epochs=MOST, warm_start=True)
    x, found = np.asfortranarray(x), []
    for strength in strengths:
        model.alpha = strength
        model.fit(x, y)
        found.append(np.append(model.coef_, model.intercept_))
    return np.array(found)


def glum(x: np.ndarray, y: np.ndarray, strengths: np.ndarray, tolerance: float) -> np.ndarray:
    """GeneralizedLinearRegressor's own path."""
    from glum import GeneralizedLinearRegressor

    model = GeneralizedLinearRegressor(
        family="binomial", alpha=list(strengths), alpha_search=True, l1_ratio=1.0, gradient_tol=tolerance, max_iter=MOST
    ).fit(x, y)
    return np.concatenate([model.coef_path_, np.reshape(model.intercept_path_, (-1, 1))], axis=1)


def celer(x: np.ndarray, y: np.ndarray, strengths: np.ndarray, tolerance: float) -> np.ndarray:
    """celer's own path, which has no intercept."""
    from celer.homotopy import celer_path

    n = len(y)
    found = celer_path(np.asfortranarray(x), 2 * y - 1, pb="logreg", alphas=n * strengths, tol=tolerance, max_iter=MOST)
    return np.concatenate([found[1].T, np.zeros((len(strengths), 1))], axis=1)


Path = Callable[[np.ndarray, np.ndarray, np.ndarray, float], np.ndarray]
