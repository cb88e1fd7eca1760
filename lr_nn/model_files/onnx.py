"""Models as ONNX, layer by layer and operation by operation: they run wherever ONNX does, without JAX.

Needs the extra `onnx`: pip install "lr-nn[onnx]".
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from lr_nn.activations import Activation, LeakyRelu
from lr_nn.activations.of_preactivation import CUBIC, TWICE
from lr_nn.losses import Loss
from lr_nn.losses.through import Through
from lr_nn.model_files.architecture import describe
from lr_nn.model_files.replacing import admit, replacing
from lr_nn.model_files.served import single, size
from lr_nn.network import Network
from lr_nn.types import Params

__all__ = ["export_onnx"]

# Old enough for every engine of these years, new enough for all that is said here.
OPSET, IR_VERSION = 17, 8
LARGEST = 2**31 - 2**20
OPERATIONS = {
    "identity": "Identity",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "relu": "Relu",
    "leaky_relu": "LeakyRelu",
    "elu": "Elu",
    "softplus": "Softplus",
    "sine": "Sin",
    "softsign": "Softsign",
}
MEANS = {
    "squared_error": "Identity",
    "absolute_error": "Identity",
    "bernoulli": "Sigmoid",
    "categorical": "Softmax",
    "poisson": "Exp",
    "huber": "Identity",
}


def export_onnx(
    path: str | os.PathLike[str], net: Network, params: Params, *, schema: Any = None, overwrite: bool = False
) -> None:
    """`predict` of this model as an ONNX graph: `x`, float32 (n, d), in, any n, and `mean`, float32 (n, k), out.

    The parameters go in as float32; the network and the `schema` of the inputs as metadata, in JSON. The graph is
    checked by ONNX's own checker before it is written.

    Raises FileExistsError where a file is there and `overwrite` is not asked for, TypeError for an activation or a
    loss of your own, ImportError without onnx, and ValueError for parameters that are not finite in float32 or
    exceed the two gigabytes of such a file.
    """
    try:
        import onnx
        from onnx import TensorProto, helper
    except ImportError as error:
        raise ImportError('export_onnx needs onnx: pip install "lr-nn[onnx]"') from error
    path = Path(path)
    admit(path, overwrite)
    described = describe(net)
    params = single(net, params)
    if size(params) > LARGEST:
        raise ValueError(f"an ONNX file holds less than 2 GiB, and the parameters take {size(params):,} bytes")
    graph = _Graph()
    mean = graph.network(net, params)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "lr_nn",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", net.sizes[0]])],
            [helper.make_tensor_value_info(mean, TensorProto.FLOAT, ["n", net.sizes[-1]])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="lr_nn",
    )
    helper.set_model_props(model, {"network": json.dumps(described)} | _said(schema))
    onnx.checker.check_model(model, full_check=True)
    with replacing(path, overwrite=overwrite) as draft:
        draft.write_bytes(model.SerializeToString())


def _said(schema: Any) -> dict[str, str]:
    return {} if schema is None else {"schema": schema.to_json()}


class _Graph:
    """Nodes and constants in the order they are added; a node's output is what the next one reads."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def network(self, net: Network, params: Params) -> str:
        """z_l = a_{l-1} w_l + b_l, a_l = σ(z_l), and the mean of the loss."""
        a = "x"
        for number, (layer, activation) in enumerate(zip(params, (*net.hidden, None)), start=1):
            w = self.constant(f"w_{number}", layer.w)
            if layer.b is None:
                z = self.node("MatMul", a, w, to=f"z_{number}")
            else:
                z = self.node("Gemm", a, w, self.constant(f"b_{number}", layer.b), to=f"z_{number}")
            a = z if activation is None else self.activation(activation, z, to=f"a_{number}")
        return self.mean(net.loss, a)

    def activation(self, activation: Activation, z: str, to: str) -> str:
        """σ(z), composed of several operations where this version of ONNX has none of its own."""
        composed = {"step": self._step, "silu": self._silu, "gelu": self._gelu, "gelu_tanh": self._gelu_tanh}
        if activation.name in composed:
            return composed[activation.name](z, to)
        options: dict[str, Any] = {"alpha": activation.slope} if isinstance(activation, LeakyRelu) else {}
        return self.node(OPERATIONS[activation.name], z, to=to, attributes=options)

    def _step(self, z: str, to: str) -> str:
        above = self.node("Greater", z, self.number(f"{to}_zero", 0), to=f"{to}_above")
        return self.node("Cast", above, to=to, attributes={"to": 1})  # 1: float32

    def _silu(self, z: str, to: str) -> str:
        return self.node("Mul", z, self.node("Sigmoid", z, to=f"{to}_gate"), to=to)

    def _gelu(self, z: str, to: str) -> str:
        """z (1 + erf(z / √2)) / 2."""
        scaled = self.node("Mul", z, self.number(f"{to}_root", 0.5**0.5), to=f"{to}_scaled")
        error = self.node("Erf", scaled, to=f"{to}_erf")
        doubled = self.node("Add", error, self.number(f"{to}_one", 1), to=f"{to}_doubled")
        half = self.node("Mul", z, self.number(f"{to}_half", 0.5), to=f"{to}_z_half")
        return self.node("Mul", half, doubled, to=to)

    def _gelu_tanh(self, z: str, to: str) -> str:
        """z sigmoid(2u), 2u = (√(8/π) (1 + 0.044715 z²)) z."""
        square = self.node("Mul", z, z, to=f"{to}_square")
        cubic = self.node("Mul", square, self.number(f"{to}_cubic", TWICE * CUBIC), to=f"{to}_curved")
        factor = self.node("Add", cubic, self.number(f"{to}_twice", TWICE), to=f"{to}_factor")
        gate = self.node("Sigmoid", self.node("Mul", factor, z, to=f"{to}_2u"), to=f"{to}_gate")
        return self.node("Mul", z, gate, to=to)

    def mean(self, loss: Loss, eta: str) -> str:
        """The mean of the response at η."""
        if isinstance(loss, Through):
            return self.mean(loss.inner, self.activation(loss.activation, eta, to=f"{eta}_through"))
        options = {"axis": -1} if loss.name == "categorical" else {}
        return self.node(MEANS[loss.name], eta, to="mean", attributes=options)

    def node(self, operation: str, *inputs: str, to: str, attributes: dict[str, Any] | None = None) -> str:
        """Add an operation, and return the name of its output."""
        from onnx import helper

        self.nodes.append(helper.make_node(operation, list(inputs), [to], name=to, **attributes or {}))
        return to

    def number(self, name: str, value: float) -> str:
        """Add a constant float32 scalar, and return its name."""
        return self.constant(name, np.float32(value))

    def constant(self, name: str, value: ArrayLike) -> str:
        """Add a constant, and return its name."""
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name
