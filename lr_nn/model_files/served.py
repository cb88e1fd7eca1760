"""What exports have in common: a model as serving takes it, in float32."""

from __future__ import annotations

import jax
import numpy as np

from lr_nn import check
from lr_nn.model_files import arrays
from lr_nn.network import Network, check_params
from lr_nn.types import Params


def single(net: Network, params: Params) -> Params:
    """The parameters as NumPy arrays of float32; ValueError where one is not finite in it."""
    check.on_host("an export", params, "a function that returns them")
    check_params(net, params)
    with np.errstate(over="ignore"):
        named = {name: array.astype(np.float32) for name, array in arrays.named(params).items()}
    for name, array in named.items():
        check.finite(f"{name}, in float32,", array)
    return arrays.layers(net, named)


def size(params: Params) -> int:
    """Bytes of all parameters."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(params))
