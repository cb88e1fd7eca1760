"""Penalties as other libraries state them, as strengths on a mean loss: J = Σ s_i ℓ_i / Σ s_i + l1 Σ|w| + l2/2 Σ w².

Each returns a `Penalty`, for `lr_nn.fit` as it is, and for an estimator by its fields, `Ridge(l2=penalty.l2)`. `n` is
Σ s_i, the number of rows where there are no weights.

>>> scikit_learn_logistic(C=1.0, n=1000)
Penalty(l1=0.0, l2=0.001)
"""

from __future__ import annotations

from lr_nn import check
from lr_nn.penalties import Penalty

__all__ = [
    "glmnet",
    "scikit_learn_elastic_net",
    "scikit_learn_logistic",
    "scikit_learn_mlp",
    "scikit_learn_ridge",
    "statsmodels_discrete",
    "statsmodels_elastic_net",
]


def scikit_learn_logistic(C: float, n: float, l1_ratio: float = 0.0) -> Penalty:
    """`LogisticRegression(C, l1_ratio)` minimises C Σ s_i ℓ_i + l1_ratio Σ|w| + (1 - l1_ratio)/2 Σ w².

    Divided by C n. The solver liblinear penalises the intercept as well: it has no twin here.
    """
    return _elastic_net(1 / (_positive("C", C) * _positive("n", n)), l1_ratio)


def scikit_learn_ridge(alpha: float, n: float) -> Penalty:
    """`Ridge(alpha)` minimises Σ s_i ‖y_i - η_i‖² + alpha Σ w². Divided by 2 n, as ℓ = ½‖y - η‖²."""
    return Penalty(0.0, _not_negative("alpha", alpha) / _positive("n", n))


def scikit_learn_elastic_net(alpha: float, l1_ratio: float = 0.5) -> Penalty:
    """`ElasticNet(alpha, l1_ratio)` minimises Σ s_i ½(y_i - η_i)² / n + alpha (l1_ratio Σ|w| + (1 - l1_ratio)/2 Σ w²).

    `Lasso(alpha)` is l1_ratio = 1.
    """
    return _elastic_net(_not_negative("alpha", alpha), l1_ratio)


def scikit_learn_mlp(alpha: float, batch: float, outputs: int = 1) -> Penalty:
    """`MLPClassifier(alpha)` and `MLPRegressor(alpha)` minimise the mean loss of a batch + alpha / (2 batch) Σ w².

    batch: Σ s_i of a mini-batch, or of all rows for the solver lbfgs. The regressor's loss is a mean over its outputs
    too, of which ours is the sum: give it `outputs`, and its cost times that number is ours.
    """
    return Penalty(0.0, _not_negative("alpha", alpha) * outputs / _positive("batch", batch))


def glmnet(lambda_: float, alpha: float = 1.0, sd_y: float = 1.0) -> Penalty:
    """`glmnet(lambda, alpha, standardize = FALSE)` minimises Σ s_i ℓ_i / n + λ (alpha Σ|w| + (1 - alpha)/2 Σ w²).

    The gaussian family is fitted to y / sd_y, at λ / sd_y, and its coefficients are multiplied by sd_y. On the scale of
    y that leaves λ alpha Σ|w|, but divides the other term by sd_y: for that family give sd_y = √(Σ s_i (y_i - ȳ)² / n).

    Not translated: with standardize = TRUE, the default, the w that is penalised belongs to x divided by its standard
    deviation (by n). Divide x yourself, and the coefficients afterwards. Friedman, Hastie & Tibshirani (2010).
    """
    penalty = _elastic_net(_not_negative("lambda_", lambda_), alpha, "alpha")
    return Penalty(penalty.l1, penalty.l2 / _positive("sd_y", sd_y))


def statsmodels_discrete(alpha: float, n: float) -> Penalty:
    """`Logit`, `MNLogit` or `Poisson(...).fit_regularized(alpha=alpha)` minimises Σ ℓ_i + alpha Σ|w|. Divided by n.

    It penalises the constant, too: to leave it free give it an alpha of zero, in an array of one alpha a column.
    """
    return Penalty(_not_negative("alpha", alpha) / _positive("n", n), 0.0)


def statsmodels_elastic_net(alpha: float, L1_wt: float) -> Penalty:
    """`OLS` or `GLM(...).fit_regularized` minimises Σ ℓ_i / n + alpha (L1_wt Σ|w| + (1 - L1_wt)/2 Σ w²).

    The constant is penalised, as in `statsmodels_discrete`. Not translated: `GLM` of the gaussian family at L1_wt = 0,
    which estimates the variance of y along with the coefficients and so changes the strength.
    """
    return _elastic_net(_not_negative("alpha", alpha), L1_wt, "L1_wt")


def _elastic_net(strength: float, ratio: float, name: str = "l1_ratio") -> Penalty:
    if not 0 <= ratio <= 1:
        raise ValueError(f"{name} must be between 0 (L2 alone) and 1 (L1 alone); got {ratio}")
    return Penalty(strength * ratio, strength * (1 - ratio))


def _positive(name: str, value: float) -> float:
    check.require(name, check.numeric(name, value), lambda v: (v > 0) & check.is_finite(v), "positive and finite")
    return value


def _not_negative(name: str, value: float) -> float:
    check.require(name, check.numeric(name, value), check.is_not_negative, "finite and not negative")
    return value
