"""Models on disk: a folder to save to and load from, and exports that need neither lr_nn nor Python to run."""

from lr_nn.model_files.folder import Model, load_model, save_model
from lr_nn.model_files.onnx import export_onnx
from lr_nn.model_files.replacing import replacing
from lr_nn.model_files.stablehlo import export_stablehlo

__all__ = ["Model", "export_onnx", "export_stablehlo", "load_model", "replacing", "save_model"]
