"""lr-nn export: a model as one file for serving."""

from __future__ import annotations

from lr_nn.cli.options import Export
from lr_nn.cli.terminal import Terminal
from lr_nn.model_files import export_onnx, export_stablehlo, load_model

FORMATS = {"onnx": export_onnx, "stablehlo": export_stablehlo}


def run(options: Export, terminal: Terminal) -> int:
    """Write the file; the exit code."""
    model = load_model(options.model)
    FORMATS[options.format](options.out, model.net, model.params, schema=model.schema, overwrite=options.overwrite)
    terminal.record(out=options.out, format=options.format, bytes=options.out.stat().st_size)
    terminal.say(f"{options.format} in {options.out}")
    return 0
