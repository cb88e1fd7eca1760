"""lr_nn: logistic regression to deep feed-forward networks, with a backward pass written by hand, in JAX."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lr_nn import (
        activations,
        curvature,
        data,
        fitting,
        graph,
        implicit,
        inference,
        influence,
        interop,
        laplace,
        losses,
        many,
        objective,
        penalties,
        per_example,
        private,
        probability,
        sharded,
        tangents,
        taps,
        training,
    )
    from lr_nn.backward import backprop, forward, gradient, input_gradient, predict, pullback
    from lr_nn.data import Rows
    from lr_nn.fitting import fit
    from lr_nn.many import Solutions, bootstrap, cross_validate, fit_groups, fit_many, regularization_path
    from lr_nn.model_files import export_onnx, export_stablehlo, load_model, save_model
    from lr_nn.network import (
        Network,
        init,
        linear_regression,
        logistic_regression,
        mlp,
        n_parameters,
        poisson_regression,
        softmax_regression,
    )
    from lr_nn.objective import cost, value_and_gradient
    from lr_nn.penalties import Penalty
    from lr_nn.referee import audit, audit_activation, audit_loss
    from lr_nn.training import train, train_many
    from lr_nn.types import Backprop, Batch, Forward, Layer, Solution, Status

# The module of each public name. Importing lr_nn imports none of them: a module is imported at the first use of one
# of its names.
_NAMES = {
    "backward": ("backprop", "forward", "gradient", "input_gradient", "predict", "pullback"),
    "data": ("Rows",),
    "fitting": ("fit",),
    "many": ("Solutions", "bootstrap", "cross_validate", "fit_groups", "fit_many", "regularization_path"),
    "model_files": ("export_onnx", "export_stablehlo", "load_model", "save_model"),
    "network": (
        "Network",
        "init",
        "linear_regression",
        "logistic_regression",
        "mlp",
        "n_parameters",
        "poisson_regression",
        "softmax_regression",
    ),
    "objective": ("cost", "value_and_gradient"),
    "penalties": ("Penalty",),
    "referee": ("audit", "audit_activation", "audit_loss"),
    "training": ("train", "train_many"),
    "types": ("Backprop", "Batch", "Forward", "Layer", "Solution", "Status"),
}
_MODULES = (
    "activations",
    "curvature",
    "data",
    "fitting",
    "graph",
    "implicit",
    "inference",
    "influence",
    "interop",
    "laplace",
    "losses",
    "many",
    "objective",
    "penalties",
    "per_example",
    "private",
    "probability",
    "sharded",
    "tangents",
    "taps",
    "training",
)
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted([*_MODULES, *_MODULE_OF])  # noqa: PLE0605
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        value = getattr(import_module(f"lr_nn.{_MODULE_OF[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"lr_nn.{name}")
    else:
        raise AttributeError(f"module 'lr_nn' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
