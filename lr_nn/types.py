"""The values that pass between the modules of the package: pytrees of arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jax
import numpy as np

if TYPE_CHECKING:
    from lr_nn.activations import Activation
    from lr_nn.losses import Loss
    from lr_nn.penalties import Penalty

__all__ = ["Backprop", "Batch", "Forward", "Layer", "Params", "Pass", "Solution", "Status"]


class Layer(NamedTuple):
    """Weights `w` of shape (d_in, d_out) and bias `b` of shape (d_out,), or None without a bias."""

    w: jax.Array
    b: jax.Array | None


Params = tuple[Layer, ...]


class Batch(NamedTuple):
    """Examples, one a row.

    `x` (n, d); `y` the targets, (n,) or (n, k) as the loss requires, None where there are none; `weight` (n,) example
    weights, read as frequencies; `offset` (n,) or (n, k), added to the linear predictor η. A row of weight zero adds
    nothing to any sum, provided that its `x` is finite.
    """

    x: Any
    y: Any
    weight: Any = None
    offset: Any = None


class Forward(NamedTuple):
    """One forward pass: a_l = σ(z_l) with z_l = a_{l-1} w_l + b_l.

    `activations` (a_0, ..., a_{L-1}), each (n, d_l), a_0 = x; `preactivations` of the same length, z_l where the
    derivative of the activation is a function of z and None elsewhere; `eta` (n, k) the linear predictor, its offset
    added.
    """

    activations: tuple[jax.Array, ...]
    preactivations: tuple[jax.Array | None, ...]
    eta: jax.Array

    @property
    def kept(self) -> tuple[jax.Array, ...]:
        """The arguments of σ'_1, ..., σ'_{L-1}: z_l where it was kept, else a_l."""
        pairs = zip(self.preactivations[1:], self.activations[1:])
        return tuple(a if z is None else z for z, a in pairs)


class Pass(Protocol):
    """One forward and one backward pass, of a `Network` (`Backprop`) or of another function (`taps.TapPass`)."""

    @property
    def weight(self) -> jax.Array | None:
        """Example weights (n,), or None for ones."""

    @property
    def n(self) -> int:
        """The number of examples."""

    @property
    def layer_count(self) -> int:
        """The number of parts of a gradient that have norms of their own: layers, or leaves of the parameters."""

    @property
    def dtype(self) -> np.dtype:
        """The dtype of sums over examples."""

    @property
    def dtypes(self) -> Any:
        """The name of every parameter's dtype, in a tree like the parameters."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Backprop:
    """One forward and one backward pass: the interface of every further quantity.

    `activations`, `preactivations` and `eta` as in `Forward`; `deltas` (δ_1, ..., δ_L), δ_l = ∂ℓ_i/∂z_l, each
    (n, d_l), per example, unscaled and unweighted; `y` (n, k) the encoded targets; `weight` (n,) the example weights,
    or None for ones. `loss`, the `hidden` activations and the names of the parameters' `dtypes` are static.
    """

    activations: tuple[jax.Array, ...]
    preactivations: tuple[jax.Array | None, ...]
    deltas: tuple[jax.Array, ...]
    eta: jax.Array
    y: jax.Array
    weight: jax.Array | None
    loss: Loss = field(metadata={"static": True})
    hidden: tuple[Activation, ...] = field(metadata={"static": True})
    dtypes: tuple[Layer, ...] = field(metadata={"static": True})

    @property
    def bias(self) -> bool:
        """True if the layers have biases."""
        return self.dtypes[0].b is not None

    @property
    def n(self) -> int:
        """The number of examples."""
        return self.eta.shape[0]

    @property
    def layer_count(self) -> int:
        """The number of layers."""
        return len(self.deltas)

    @property
    def dtype(self) -> np.dtype:
        """The dtype of sums over examples."""
        return self.eta.dtype

    @property
    def forward(self) -> Forward:
        """The forward pass of this pass."""
        return Forward(self.activations, self.preactivations, self.eta)


class Status(IntEnum):
    """How a fit ended; its `str` is its name. Lanes hold an int8 array of them."""

    converged = 0
    max_steps = 1
    separated = 2
    rank_deficient = 3
    non_finite = 4

    def __str__(self) -> str:
        """The name alone."""
        return self.name


@dataclass(frozen=True)
class Solution:
    """What a fit found, on the host.

    `params` NumPy arrays; `status` how it ended; `steps` taken over all rows; `cost` J with its penalty;
    `gradient_norm` the largest entry of the minimum-norm subgradient; `certificate` an upper bound on J - J*, ∞
    where there is none; `penalty` and `solver` as they were used; `message` says why the solver was chosen and, where
    the fit did not converge, what to do; `direction` along which a separated likelihood grows for ever, else None.
    """

    params: Params
    status: Status
    steps: int
    cost: float
    gradient_norm: float
    certificate: float
    penalty: Penalty
    solver: str
    message: str
    direction: Params | None = None

    @property
    def coefficients(self) -> np.ndarray:
        """Weights and bias of a one-layer model, (d + 1, k), the bias last; (d, k) without one; lanes come first."""
        (layer,) = self.params
        if layer.b is None:
            return np.asarray(layer.w)
        return np.concatenate([layer.w, np.asarray(layer.b)[..., None, :]], axis=-2)
