"""Feed-forward networks trained by Adam: `lr_nn.train` behind each of them."""

from __future__ import annotations

import warnings
from functools import cache
from numbers import Integral
from typing import Any, Self

import jax
import numpy as np
import optax
from jax.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state

from lr_nn import activations, check, losses
from lr_nn.activations import Activation
from lr_nn.backward import forward
from lr_nn.interop.sklearn.common import Classifier, Estimator, Regressor, filled
from lr_nn.losses import Loss
from lr_nn.network import Network, init
from lr_nn.penalties import Penalty
from lr_nn.training import train
from lr_nn.types import Batch, Params

__all__ = ["MLPClassifier", "MLPRegressor"]


class MLP(Estimator):
    """A network trained by Adam on J = Σ s_i ℓ_i / Σ s_i + l1 Σ|w| + l2/2 Σ w²."""

    def __init__(
        self,
        *,
        hidden_layer_sizes: Any = (100,),
        activation: str | Activation = "relu",
        l2: float = 0.0,
        l1: float = 0.0,
        learning_rate: float = 1e-3,
        batch_size: int | None = 200,
        epochs: int = 200,
        patience: int | None = None,
        validation_fraction: float = 0.1,
        random_state: Any = None,
    ) -> None:
        """Keep the parameters, unseen.

        hidden_layer_sizes: widths of the hidden layers. activation: the name of one of `lr_nn.activations`, or one of
        your own. batch_size: rows of a mini-batch, None for all. patience: stop after so many epochs without a lower
        cost on the `validation_fraction` of the rows that is put aside, and keep the parameters of the lowest; None
        trains for all `epochs` on all rows. random_state: draws the initial weights, the orders of the rows, and the
        rows put aside.

        As in scikit-learn the work is done in the precision of X: float32 if X is, and float64 otherwise. After `fit`:
        the network `net_` and its parameters `params_`, for all that this package does with them; `history_`, costs
        and scores by epoch; `n_iter_`, epochs run. Whether they sufficed is for the costs to show: a
        ConvergenceWarning comes only where one is not finite.
        """
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.l2 = l2
        self.l1 = l1
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.epochs = epochs
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def _train(self, rows: Batch, loss: Loss, k: int) -> Self:
        widths = [self.hidden_layer_sizes] if isinstance(self.hidden_layer_sizes, Integral) else self.hidden_layer_sizes
        self.net_ = Network((rows.x.shape[1], *widths, k), _activation(self.activation), loss)
        random = check_random_state(self.random_state)
        rows, validation = (rows, None) if self.patience is None else self._split(rows, random)
        rows, batch_size = self._batches(rows)
        dtype = rows.x.dtype
        with jax.enable_x64(dtype == np.float64):
            first, orders = jax.random.split(jax.random.key(random.randint(2**31 - 1)))
            params = init(self.net_, first, dtype)
            training = train(
                self.net_,
                params,
                Batch(*rows),
                optimizer=_adam(),
                opt_state=_begin(params, self.learning_rate),
                epochs=self.epochs,
                batch_size=batch_size,
                key=orders,
                penalty=Penalty(self.l1, self.l2),
                validation=validation,
                patience=self.patience,
            )
            self.params_ = jax.tree.map(np.asarray, training.params)
        if training.status == "non_finite":
            warnings.warn(f"{training.status}: {training.message}", ConvergenceWarning, stacklevel=3)
        self.history_ = training.history
        self.n_iter_ = len(training.history["cost"])
        return self

    def _split(self, rows: Batch, random: np.random.RandomState) -> tuple[Batch, Batch]:
        """Training and validation rows, the split stratified by class."""
        stratify = None if self.net_.loss.task == "values" else rows.y
        kept, judged = train_test_split(
            np.arange(len(rows.x)), test_size=self.validation_fraction, random_state=random, stratify=stratify
        )
        return jax.tree.map(lambda a: a[kept], rows), Batch(*jax.tree.map(lambda a: a[judged], rows))

    def _batches(self, rows: Batch) -> tuple[Batch, int | None]:
        """Rows, and how many make a mini-batch: None where one holds them all."""
        if self.batch_size is None or check.positive_integer("batch_size", self.batch_size) >= len(rows.x):
            return filled(rows), None
        return rows, self.batch_size

    def _eta(self, X: Any) -> np.ndarray:
        x = self._inputs(X)
        dtype = self.params_[0].w.dtype
        with jax.enable_x64(dtype == np.float64):
            return np.asarray(forward(self.net_, self.params_, x.astype(dtype, copy=False)).eta)


class MLPClassifier(MLP, Classifier):
    """Classes by a network: a Bernoulli loss for two, a categorical one for more."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on X (n, d), labels y (n,) of any kind and weights (n,), read as frequencies."""
        rows = self._admit_classes(X, y, sample_weight)
        return self._train(rows, *self._response())


class MLPRegressor(MLP, Regressor):
    """Values of one output or of several by a network, with the squared error."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on X (n, d), y (n,) or (n, k) and weights (n,), read as frequencies."""
        rows = self._admit(X, y, sample_weight, multi_output=True, y_numeric=True)
        self._one_column = rows.y.ndim == 1
        return self._train(rows, losses.squared_error, 1 if rows.y.ndim == 1 else rows.y.shape[1])

    def predict(self, X: Any) -> np.ndarray:
        """η: (n,) or (n, k), as y was."""
        eta = self._eta(X)
        return eta[:, 0] if self._one_column else eta


def _activation(name: str | Activation) -> Activation:
    if isinstance(name, Activation):
        return name
    found = getattr(activations, name, None) if isinstance(name, str) else None
    if not isinstance(found, Activation):
        known = sorted(each for each, value in vars(activations).items() if isinstance(value, Activation))
        raise ValueError(f"activation must be one of {', '.join(known)}, or an lr_nn activation; got {name!r}")
    return found


@cache
def _adam() -> optax.GradientTransformation:
    """One optimiser for all learning rates, which are part of its state: so that all run one compiled program."""
    return optax.inject_hyperparams(optax.adam)(learning_rate=0.0)


def _begin(params: Params, learning_rate: ArrayLike) -> Any:
    """The first state of the optimiser."""
    state = _adam().init(params)
    rate = check.positive("learning_rate", learning_rate).astype(params[0].w.dtype)
    return state._replace(hyperparams=state.hyperparams | {"learning_rate": rate})
