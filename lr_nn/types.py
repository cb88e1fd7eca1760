"""The values that travel between the rooms of the package: all of them pytrees of arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

if TYPE_CHECKING:
    from lr_nn.activations import Activation
    from lr_nn.losses import Loss


class Layer(NamedTuple):
    """Weights `w` of shape (d_in, d_out) and bias `b` of shape (d_out,), or None without a bias."""

    w: jax.Array
    b: jax.Array | None


Params = tuple[Layer, ...]


class Batch(NamedTuple):
    """Examples, one a row.

    `x` (n, d); `y` the targets, (n,) or (n, k) as the loss asks; `weight` (n,) example weights,
    read as frequencies; `offset` (n,) or (n, k), added to the linear predictor.
    """

    x: Any
    y: Any
    weight: Any = None
    offset: Any = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Backprop:
    """What one forward and one backward pass leave behind: the interface of every further quantity.

    `activations` (a_0, ..., a_{L-1}), each (n, d_l); `deltas` (δ_1, ..., δ_L), δ_l = ∂ℓ_i/∂z_l, each
    (n, d_l), per example and unscaled; `eta` (n, k) the linear predictor; `y` (n, k) the encoded
    targets. `loss`, `bias` (does a layer have one) and the `hidden` activations are static.
    """

    activations: tuple[jax.Array, ...]
    deltas: tuple[jax.Array, ...]
    eta: jax.Array
    y: jax.Array
    loss: Loss = field(metadata={"static": True})
    bias: bool = field(default=True, metadata={"static": True})
    hidden: tuple[Activation, ...] = field(default=(), metadata={"static": True})
