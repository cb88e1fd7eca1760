"""What was fitted, as inference sees it: one-layer models whose likelihood is of the exponential family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import jax
import numpy as np

from lr_nn.losses import Loss
from lr_nn.network import Network

__all__ = ["Fitted", "design", "marked", "of_rows", "without"]


@dataclass(frozen=True)
class Fitted:
    """A solution with its data, checked, in NumPy and float64. Arrays may have a leading lane axis m, or be shared.

    `x` (n, d); `y` (n,) class labels or (n, k); `weight` (n,); `offset` None or (n, k); `theta` (q, k), the
    coefficients, q = d + 1 with a bias and d without; `strength` () the l2 of the penalty.

    Of a categorical loss only contrasts with the class `reference` are determined by the likelihood: `free` are the
    classes that are left, or all outputs of another loss, and inference is about the coefficients (q, len(free)).
    """

    net: Network
    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    offset: np.ndarray | None
    theta: np.ndarray
    strength: np.ndarray
    reference: int | None
    jeffreys: bool

    @property
    def loss(self) -> Loss:
        """The loss, which is a negative log-likelihood."""
        return self.net.loss

    @property
    def lanes(self) -> tuple[int, ...]:
        """(m,), or () for a single fit."""
        return self.theta.shape[:-2]

    @property
    def free(self) -> list[int]:
        """The outputs that coefficients are reported of."""
        return [j for j in range(self.net.sizes[1]) if j != self.reference]

    @property
    def n(self) -> np.ndarray:
        """Σ s_i: weights are frequencies."""
        return np.broadcast_to(self.weight.sum(axis=-1), self.lanes)

    @property
    def coefficients(self) -> np.ndarray:
        """(q, len(free)): the coefficients, less those of the reference class."""
        base = 0 if self.reference is None else self.theta[..., [self.reference]]
        return (self.theta - base)[..., self.free]

    @property
    def inputs(self) -> np.ndarray:
        """x with the constant 1 of the bias last, (n, q)."""
        return design(self.net, self.x)

    @cached_property
    def eta(self) -> np.ndarray:
        """x w + b + offset, (n, k)."""
        d = self.net.sizes[0]
        eta = self.x @ self.theta[..., :d, :] + self.theta[..., d:, :].sum(axis=-2, keepdims=True)
        return eta if self.offset is None else eta + self.offset

    @cached_property
    def targets(self) -> np.ndarray:
        """The targets encoded, (n, k)."""
        return np.eye(self.net.sizes[1])[self.y] if self.y.dtype.kind in "iu" else self.y

    @cached_property
    def mean(self) -> np.ndarray:
        """The fitted mean of the response, (n, k)."""
        return of_rows(self.loss.mean, self.eta)

    @cached_property
    def residual(self) -> np.ndarray:
        """∂ℓ_i/∂η, (n, k): the fitted mean less the target."""
        return self.mean - self.targets

    @property
    def ridge(self) -> np.ndarray:
        """The curvature P of n · penalty in the coefficients as reported, (p, p).

        n l2 for each weight and 0 for biases. Of contrasts, n l2 (I - 11ᵀ/k) between classes: the penalty at the
        common shift that makes it least.
        """
        d, k = self.net.sizes
        outputs = np.eye(len(self.free)) - (0 if self.reference is None else 1 / k)
        rows = np.diag(np.append(np.ones(d), np.zeros(int(self.net.bias))))
        return (self.n * self.strength)[..., None, None] * np.kron(rows, outputs)


def design(net: Network, x: np.ndarray) -> np.ndarray:
    """x with the constant 1 of the bias last, (n, q)."""
    return np.concatenate([x, np.ones((*x.shape[:-1], 1))], axis=-1) if net.bias else x


def of_rows(function: Callable[..., jax.Array], *arrays: np.ndarray) -> np.ndarray:
    """A function of rows (n, k) in float64, whatever axes lead them; NaN for a row that holds NaN."""
    arrays = np.broadcast_arrays(*arrays)
    lead = arrays[0].shape[:-1]
    rows = [array.reshape(-1, array.shape[-1]) for array in arrays]
    bad = np.any([np.isnan(array).any(axis=1) for array in rows], axis=0)
    with jax.enable_x64(True):
        found = np.asarray(_compiled(function, *(without(bad, array) for array in rows)))
    return marked(bad, found).reshape(lead + found.shape[1:])


def without(bad: np.ndarray, array: np.ndarray) -> np.ndarray:
    """`array` with zeros where `bad`: no NaN goes into a compiled program, so none comes out."""
    return np.where(bad.reshape(-1, *(1,) * (array.ndim - 1)), 0, array) if bad.any() else array


def marked(bad: np.ndarray, found: np.ndarray) -> np.ndarray:
    """`found` with NaN where `bad`."""
    return np.where(bad.reshape(-1, *(1,) * (found.ndim - 1)), np.nan, found) if bad.any() else found


@partial(jax.jit, static_argnums=0)
def _compiled(function: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    return function(*arrays)
