"""Estimators for scikit-learn: its names, its habits and its checks, on this package's fits and trainings.

The cost is a mean loss and a penalty, J = Σ s_i ℓ_i / Σ s_i + l1 Σ|w| + l2/2 Σ w², s the sample weights, biases free.
So a strength means the same whatever the number of rows; `lr_nn.interop.conventions` translates those of others.

Needs the extra `sklearn`: pip install "lr-nn[sklearn]".

>>> import numpy as np
>>> from lr_nn.interop.sklearn import LogisticRegression
>>> x, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array(["no", "yes", "no", "yes"])
>>> model = LogisticRegression(l2=0.0).fit(x, y)
>>> print(model.predict([[5.0]]), model.coef_.round(6), model.solution_.status)
['yes'] [[0.908184]] converged
"""

try:
    import sklearn  # noqa: F401
except ImportError as error:
    raise ImportError('lr_nn.interop.sklearn needs scikit-learn: pip install "lr-nn[sklearn]"') from error

from lr_nn.interop.sklearn.linear import LinearRegression, LogisticRegression, Ridge
from lr_nn.interop.sklearn.mlp import MLPClassifier, MLPRegressor

__all__ = ["LinearRegression", "LogisticRegression", "MLPClassifier", "MLPRegressor", "Ridge"]
