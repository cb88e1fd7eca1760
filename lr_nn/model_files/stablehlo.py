"""Models as StableHLO, the portable programs of XLA: they run wherever JAX does, without lr_nn."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn.backward import predict
from lr_nn.model_files.replacing import admit, replacing
from lr_nn.model_files.served import single
from lr_nn.network import Network
from lr_nn.types import Params

__all__ = ["export_stablehlo"]

PLATFORMS = ("cpu", "cuda", "tpu")


def export_stablehlo(
    path: str | os.PathLike[str], net: Network, params: Params, *, schema: Any = None, overwrite: bool = False
) -> None:
    """`predict` of this model as one StableHLO program: float32 (n, d) in, any n ≥ 1, float32 (n, k) out.

    The parameters, in float32, are constants of the program, which runs on CPU, CUDA and TPU; activations and losses
    of your own go in as any other. `path`.json says beside it what it takes and gives, and keeps the `schema` of the
    inputs. To run it, JAX is enough:

        jax.export.deserialize(bytearray(Path(path).read_bytes())).call(x)

    Raises FileExistsError where a file is there and `overwrite` is not asked for, and ValueError for parameters that
    are not finite in float32.
    """
    path = Path(path)
    described = path.with_name(f"{path.name}.json")
    admit(path, overwrite)
    admit(described, overwrite)
    program = _program(net, single(net, params))
    about = {
        "kind": "lr_nn StableHLO",
        "input": ["n", net.sizes[0]],
        "output": ["n", net.sizes[-1]],
        "dtype": "float32",
        "platforms": list(PLATFORMS),
        "schema": None if schema is None else json.loads(schema.to_json()),
    }
    with replacing(path, overwrite=overwrite) as draft, replacing(described, overwrite=overwrite) as note:
        draft.write_bytes(program)
        note.write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _program(net: Network, params: Params) -> bytes:
    """The serialised program, its first axis symbolic."""
    from jax import export

    n, *_ = export.symbolic_shape("n")
    x = jax.ShapeDtypeStruct((n, net.sizes[0]), np.float32)
    constants = jax.tree.map(jnp.asarray, params)
    served = jax.jit(lambda x: predict(net, constants, x))
    return bytes(export.export(served, platforms=PLATFORMS)(x).serialize())
