"""A model is a folder: `model.json` says everything but the parameters, which lie in a file of arrays beside it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from lr_nn import backward, check
from lr_nn.model_files import arrays, record
from lr_nn.model_files.architecture import build, describe
from lr_nn.model_files.replacing import new_folder, replacing
from lr_nn.network import Network, check_params
from lr_nn.types import Params

__all__ = ["Model", "load_model", "save_model"]

JSON = "model.json"
FILES = ("safetensors", "npz")
NAME = r"parameters-[0-9a-f]{12}\.(safetensors|npz)"


@dataclass(frozen=True, eq=False)
class Model:
    """A network with its parameters, in NumPy; the schema that turns tables into its inputs, if there is one; facts."""

    net: Network
    params: Params
    schema: Any
    facts: Mapping[str, Any]

    def predict(self, x: ArrayLike, offset: ArrayLike | None = None) -> np.ndarray:
        """The mean of the response for inputs x (n, d): (n, k), computed in the dtype of the parameters.

        offset (n,) or (n, k) is added to η. Raises as `lr_nn.predict` does.
        """
        wide = arrays.DTYPES["float64"] in {leaf.dtype for leaf in jax.tree.leaves(self.params)}
        with jax.enable_x64(True) if wide else nullcontext():
            return np.asarray(backward.predict(self.net, self.params, x, offset))


def save_model(
    folder: str | os.PathLike[str],
    net: Network,
    params: Params,
    *,
    schema: Any = None,
    facts: Mapping[str, Any] | None = None,
    beside: Mapping[str, bytes] | None = None,
    overwrite: bool = False,
) -> None:
    """Save a model as a folder, whole or not at all; the same model gives the same bytes.

    `model.json` holds the architecture by name, `schema` (a `lr_nn.data.Schema`), `facts`, anything of JSON that is
    worth keeping, versions, and digests of itself and of the file of parameters: safetensors, or npz where that
    library is not installed. An existing model is replaced where `overwrite` says so, in one step: whoever loads
    meanwhile finds the old one or the new one. Other files in its folder stay. beside: files to write along, such as
    a report, by their names.

    Raises FileExistsError for a folder that holds a model (or, overwriting, anything but one), TypeError for an
    activation or a loss of your own, and ValueError for facts that are not JSON.

    >>> import jax, lr_nn, tempfile
    >>> net = lr_nn.logistic_regression(2)
    >>> with tempfile.TemporaryDirectory() as home:
    ...     lr_nn.save_model(f"{home}/model", net, lr_nn.init(net, jax.random.key(0)), facts={"rows": 100})
    ...     model = lr_nn.load_model(f"{home}/model")
    >>> model.net == net, model.facts, model.predict([[1.0, 2.0]]).tolist()
    (True, {'rows': 100}, [[0.5]])
    """
    check.on_host("save_model", params, "a function that returns them")
    check_params(net, params)
    folder = Path(os.path.realpath(folder))
    named = arrays.named(params)
    kind, packed = arrays.pack(named)
    if schema is not None and len(schema.features) != net.sizes[0]:
        raise ValueError(f"the schema has {len(schema.features)} features, and the network {net.sizes[0]} inputs")
    parameters = {
        "file": kind,
        "sha256": hashlib.sha256(packed).hexdigest(),
        "dtypes": {name: array.dtype.name for name, array in named.items()},
    }
    content = {
        "network": describe(net),
        "parameters": parameters,
        "schema": None if schema is None else json.loads(schema.to_json()),
        "facts": dict(facts or {}),
        "versions": {name: version(name) for name in ("lr-nn", "jax", "numpy")},
    }
    name = _file_name(parameters)
    for other in beside or {}:
        if Path(other).name != other or other == JSON or re.fullmatch(NAME, other):
            raise ValueError(f"a file beside a model must have a plain name of its own; got {other!r}")
    files = {name: packed, **(beside or {}), JSON: record.render(content)}
    if _is_new(folder, overwrite):
        with new_folder(folder) as draft:
            _write(draft, files)
    else:
        _write(folder, files)
        for path in folder.iterdir():
            if path.name != name and re.fullmatch(NAME, path.name):
                path.unlink()


def load_model(folder: str | os.PathLike[str]) -> Model:
    """The model that `save_model` saved, every bit of it verified.

    Raises FileNotFoundError where there is none, and ValueError, naming the file and the reason, for one that is
    damaged, not whole, of two models, of a newer format or of another program.
    """
    folder = Path(folder)
    path = folder / JSON
    content = record.parse(path, _read(path))
    try:
        net = build(content["network"])
        dtypes, schema, facts = dict(content["parameters"]["dtypes"]), content["schema"], dict(content["facts"])
        packed_path = folder / _file_name(content["parameters"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} describes no model: {error}") from error
    packed = _read(packed_path)
    if hashlib.sha256(packed).hexdigest() != content["parameters"]["sha256"]:
        raise ValueError(f"{packed_path} is damaged, or of another model: its digest is not the one in {JSON}")
    try:
        params = arrays.layers(net, arrays.unpack(packed_path.suffix[1:], packed, dtypes))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{packed_path} does not hold the parameters of the model in {JSON}: {error}") from error
    return Model(net, params, _schema(path, schema, net), facts)


def _is_new(folder: Path, overwrite: bool) -> bool:
    """Is nothing there yet? Refuse what must not be replaced."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        if not folder.parent.is_dir():
            raise FileNotFoundError(f"{folder.parent} is not a folder: make it first")
        return True
    if not (folder / JSON).is_file():
        raise FileExistsError(f"{folder} exists and is no model: name another folder")
    if not overwrite:
        raise FileExistsError(f"{folder} holds a model: name another folder, or ask to overwrite it")
    return False


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """The parameters, under a name of their own, and what is beside them; `model.json`, the last, makes it a model."""
    fresh = [folder / name for name in files if not (folder / name).exists()]
    try:
        for name, content in files.items():
            with replacing(folder / name, overwrite=True) as draft:
                draft.write_bytes(content)
    except BaseException:
        if not (folder / JSON).exists() or (folder / JSON).read_bytes() != files[JSON]:
            for path in fresh:
                path.unlink(missing_ok=True)
        raise


def _file_name(parameters: Mapping[str, Any]) -> str:
    kind, digest = parameters["file"], parameters["sha256"]
    if kind not in FILES or not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise ValueError(f"expected a file of {' or '.join(FILES)} and its sha256; got {dict(parameters)}")
    return f"parameters-{digest[:12]}.{kind}"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing: a model is a folder with {JSON} and parameters") from error
    except OSError as error:
        raise OSError(f"{path} cannot be read: {error.strerror}") from error


def _schema(path: Path, content: Any, net: Network) -> Any:
    if content is None:
        return None
    from lr_nn.data import Schema

    try:
        schema = Schema.from_json(json.dumps(content))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds a schema that cannot be read: {error}") from error
    if len(schema.features) != net.sizes[0]:
        raise ValueError(f"{path}: the schema has {len(schema.features)} features, and the network {net.sizes[0]}")
    return schema
