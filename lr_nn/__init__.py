"""lr_nn: logistic regression to deep feed-forward networks, with a backward pass written by hand, in JAX."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lr_nn import (
        activations,
        curvature,
        data,
        graph,
        inference,
        interop,
        losses,
        many,
        objective,
        penalties,
        per_example,
        private,
        probability,
        sharded,
        solvers,
        tangent,
        training,
    )
    from lr_nn.backprop import backprop, gradient, input_gradient, pullback
    from lr_nn.fit import fit
    from lr_nn.many import Solutions, bootstrap, cross_validate, fit_groups, fit_many, regularization_path
    from lr_nn.model_files import export_onnx, export_stablehlo, load_model, save_model
    from lr_nn.network import (
        Network,
        forward,
        init,
        linear_regression,
        logistic_regression,
        mlp,
        n_parameters,
        predict,
        softmax_regression,
    )
    from lr_nn.objective import cost, value_and_gradient
    from lr_nn.penalties import Penalty
    from lr_nn.referee import audit
    from lr_nn.training import train, train_many
    from lr_nn.types import Backprop, Batch, Layer, Solution, Status

# Where each public name lives; importing lr_nn imports none of it.
_HOMES = {
    "referee": ("audit",),
    "backprop": ("backprop", "gradient", "input_gradient", "pullback"),
    "fit": ("fit",),
    "many": ("Solutions", "bootstrap", "cross_validate", "fit_groups", "fit_many", "regularization_path"),
    "model_files": ("export_onnx", "export_stablehlo", "load_model", "save_model"),
    "network": (
        "Network",
        "forward",
        "init",
        "linear_regression",
        "logistic_regression",
        "mlp",
        "n_parameters",
        "predict",
        "softmax_regression",
    ),
    "objective": ("cost", "value_and_gradient"),
    "penalties": ("Penalty",),
    "training": ("train", "train_many"),
    "types": ("Backprop", "Batch", "Layer", "Solution", "Status"),
}
_ROOMS = (
    "activations",
    "curvature",
    "data",
    "graph",
    "inference",
    "interop",
    "losses",
    "many",
    "objective",
    "penalties",
    "per_example",
    "private",
    "probability",
    "sharded",
    "solvers",
    "tangent",
    "training",
)
_HOME = {name: room for room, names in _HOMES.items() for name in names}

__all__ = sorted([*_ROOMS, *_HOME])  # noqa: PLE0605
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(f"lr_nn.{_HOME[name]}"), name)
    elif name in _ROOMS:
        value = import_module(f"lr_nn.{name}")
    else:
        raise AttributeError(f"module 'lr_nn' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """Importing the submodule `lr_nn.backprop` must not hide the function of that name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by name, as every module is."""
        return import_module, (self.__name__,)


sys.modules[__name__].__class__ = _Package
