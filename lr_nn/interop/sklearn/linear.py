"""Linear, ridge and logistic regression at their certified optimum, in float64: `lr_nn.fit` behind each of them."""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from lr_nn import losses
from lr_nn.fitting import fit
from lr_nn.interop.sklearn.common import Classifier, Estimator, Regressor
from lr_nn.losses import Loss
from lr_nn.network import Network
from lr_nn.penalties import Penalty
from lr_nn.types import Batch, Solution, Status


class Linear(Estimator):
    """One layer, η = x coef_ᵀ + intercept_."""

    fit_intercept: bool
    tol: float
    max_steps: int
    solver: str

    def _penalty(self) -> Penalty:
        raise NotImplementedError

    def _solve(self, rows: Batch, loss: Loss, k: int) -> None:
        self.net_ = Network((rows.x.shape[1], k), (), loss, bias=self.fit_intercept)
        self.solution_ = fit(
            self.net_,
            rows,
            penalty=self._penalty(),
            tol=self.tol,
            max_steps=self.max_steps,
            solver=self.solver,
        )
        self.n_iter_ = self.solution_.steps
        if not _attained(self.solution_, self.max_steps):
            warnings.warn(f"{self.solution_.status}: {self.solution_.message}", ConvergenceWarning, stacklevel=3)
        (layer,) = self.solution_.params
        self.coef_ = np.asarray(layer.w).T
        self.intercept_ = np.zeros(k) if layer.b is None else np.asarray(layer.b)

    def _eta(self, X: Any) -> np.ndarray:
        x = self._inputs(X)
        return x @ self.coef_.T + self.intercept_


def _attained(solution: Solution, max_steps: int) -> bool:
    """Is the cost at its optimum? That of dependent columns may be, although its coefficients are not the only ones."""
    if solution.status is Status.rank_deficient:
        return np.isfinite(solution.certificate) and (solution.solver == "closed_form" or solution.steps < max_steps)
    return solution.status is Status.converged


class LinearRegressor(Linear, Regressor):
    """The squared error, ½ Σ_j (η_j - y_j)², for one output or several."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to X (n, d), y (n,) or (n, k) and weights (n,), read as frequencies."""
        rows = self._admit(X, y, sample_weight, multi_output=True, y_numeric=True)
        k = 1 if rows.y.ndim == 1 else rows.y.shape[1]
        self._solve(rows, losses.squared_error, k)
        if rows.y.ndim == 1:
            self.coef_, self.intercept_ = self.coef_[0], self.intercept_[0]
        return self

    def predict(self, X: Any) -> np.ndarray:
        """η: (n,) or (n, k), as y was."""
        return self._eta(X)


class LinearRegression(LinearRegressor):
    """Least squares: argmin Σ s_i ½‖y_i - η_i‖² / Σ s_i.

    fit_intercept: with a bias? tol, max_steps, solver: as in `lr_nn.fit`. After `fit`: `coef_` (d,) or (k, d),
    `intercept_`, `n_iter_`, `n_features_in_`, `feature_names_in_`, the network `net_` and the `solution_`, whose
    `certificate` bounds what is missing to the optimum. Of columns that depend on one another it says so by its
    `status` alone; where the optimum is not reached, a ConvergenceWarning says what to do.
    """

    def __init__(
        self, *, fit_intercept: bool = True, tol: float = 1e-12, max_steps: int = 100, solver: str = "auto"
    ) -> None:
        """Keep the parameters, unseen."""
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_steps = max_steps
        self.solver = solver

    def _penalty(self) -> Penalty:
        return Penalty()


class Ridge(LinearRegressor):
    """Least squares with an L2 penalty: argmin Σ s_i ½‖y_i - η_i‖² / Σ s_i + l2/2 Σ w².

    l2: scikit-learn's alpha / Σ s_i; at the default, its default at a thousand rows. The rest is that of
    `LinearRegression`.
    """

    def __init__(
        self,
        *,
        l2: float = 1e-3,
        fit_intercept: bool = True,
        tol: float = 1e-12,
        max_steps: int = 100,
        solver: str = "auto",
    ) -> None:
        """Keep the parameters, unseen."""
        self.l2 = l2
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_steps = max_steps
        self.solver = solver

    def _penalty(self) -> Penalty:
        return Penalty(l2=self.l2)


class LogisticRegression(Linear, Classifier):
    """Logistic regression of two classes, softmax regression of more: argmin Σ s_i ℓ_i / Σ s_i + l1 Σ|w| + l2/2 Σ w².

    l2: scikit-learn's 1 / (C Σ s_i); at the default, its default at a thousand rows. Without a penalty classes may be
    separated, and a ConvergenceWarning names the columns. fit_intercept, tol, max_steps, solver: as in
    `LinearRegression`. After `fit`: `classes_`, `coef_` (1, d) or (k, d), `intercept_` (1,) or (k,), and the rest.
    """

    def __init__(
        self,
        *,
        l2: float = 1e-3,
        l1: float = 0.0,
        fit_intercept: bool = True,
        tol: float = 1e-12,
        max_steps: int = 100,
        solver: str = "auto",
    ) -> None:
        """Keep the parameters, unseen."""
        self.l2 = l2
        self.l1 = l1
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_steps = max_steps
        self.solver = solver

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to X (n, d), labels y (n,) of any kind and weights (n,), read as frequencies."""
        rows = self._admit_classes(X, y, sample_weight)
        self._solve(rows, *self._response())
        return self

    def _penalty(self) -> Penalty:
        return Penalty(self.l1, self.l2)
