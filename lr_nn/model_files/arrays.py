"""Parameters as the bytes of one file, safetensors or npz, and back, bit for bit."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import jax.numpy as jnp
import numpy as np

from lr_nn.network import Network
from lr_nn.types import Layer, Params

DTYPES = {np.dtype(dtype).name: np.dtype(dtype) for dtype in (jnp.bfloat16, np.float16, np.float32, np.float64)}
# How safetensors calls them.
TAGS = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}


def named(params: Params) -> dict[str, np.ndarray]:
    """{"w_1": ..., "b_1": ..., "w_2": ...} in NumPy; TypeError for a dtype that no file here holds."""
    arrays = {}
    for number, layer in enumerate(params, start=1):
        for name, leaf in (("w", layer.w), ("b", layer.b)):
            if leaf is not None:
                arrays[f"{name}_{number}"] = np.ascontiguousarray(leaf)
    for name, array in arrays.items():
        if array.dtype.name not in DTYPES:
            raise TypeError(f"parameters must be {', '.join(DTYPES)}; {name} is {array.dtype}")
    return arrays


def layers(net: Network, arrays: Mapping[str, Any]) -> Params:
    """The parameters of `net` among named arrays; ValueError where they are not exactly those of the network."""
    numbers = range(1, len(net.shapes) + 1)
    expected: dict[str, tuple[int, ...]] = {f"w_{number}": shape for number, shape in zip(numbers, net.shapes)}
    if net.bias:
        expected |= {f"b_{number}": shape[1:] for number, shape in zip(numbers, net.shapes)}
    got = {name: array.shape for name, array in arrays.items()}
    if got != expected:
        raise ValueError(f"expected arrays {expected}; got {got}")
    return tuple(Layer(arrays[f"w_{number}"], arrays.get(f"b_{number}")) for number in numbers)


def pack(arrays: dict[str, np.ndarray]) -> tuple[str, bytes]:
    """The kind of the file, and its bytes: safetensors, or npz where that library is not installed."""
    if find_spec("safetensors") is not None:
        from safetensors.numpy import save

        return "safetensors", save(arrays)
    stream = io.BytesIO()
    # NumPy writes no bfloat16: its bits go in, and model.json keeps the dtype.
    plain: dict[str, Any] = {name: a.view(np.uint16) if a.dtype.kind == "V" else a for name, a in arrays.items()}
    np.savez(stream, **plain)
    return "npz", stream.getvalue()


def unpack(kind: str, content: bytes, dtypes: dict[str, str]) -> dict[str, np.ndarray]:
    """The arrays of `pack`, of these dtypes; ValueError where the bytes hold anything else."""
    arrays = _from_safetensors(content) if kind == "safetensors" else _from_npz(content)
    if set(arrays) != set(dtypes):
        raise ValueError(f"expected arrays {', '.join(dtypes)}; got {', '.join(arrays)}")
    return {name: _typed(name, array, dtypes[name]) for name, array in arrays.items()}


def _typed(name: str, array: np.ndarray, dtype: str) -> np.ndarray:
    if array.dtype == np.uint16 and dtype == "bfloat16":
        array = array.view(DTYPES[dtype])
    if array.dtype.name != dtype or dtype not in DTYPES:
        raise ValueError(f"expected {name} to be {dtype}; got {array.dtype}")
    return array


def _from_safetensors(content: bytes) -> dict[str, np.ndarray]:
    try:
        from safetensors import SafetensorError, deserialize
    except ImportError as error:
        raise ImportError('a .safetensors file needs safetensors: pip install "lr-nn[files]"') from error
    try:
        return {name: _array(entry) for name, entry in deserialize(content)}
    except SafetensorError as error:
        raise ValueError(f"not a safetensors file: {error}") from error


def _array(entry: dict[str, Any]) -> np.ndarray:
    if entry["dtype"] not in TAGS:
        raise ValueError(f"expected arrays of {', '.join(TAGS)}; got {entry['dtype']}")
    # A copy: what NumPy reads from bytes cannot be written to, and is not aligned.
    return np.frombuffer(bytearray(entry["data"]), DTYPES[TAGS[entry["dtype"]]]).reshape(entry["shape"])


def _from_npz(content: bytes) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, EOFError, zipfile.BadZipFile, MemoryError) as error:
        raise ValueError(f"not an npz file: {error}") from error
