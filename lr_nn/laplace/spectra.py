"""The curvature of the likelihood by eigenvalues and eigenvectors: covariances and draws for any prior and noise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from lr_nn import check
from lr_nn.backward import recursion
from lr_nn.curvature.blocks import homogeneous, join, matmul, split
from lr_nn.curvature.vectors import unflatten
from lr_nn.fitting.threads import one_thread
from lr_nn.laplace.curvature_sums import BLOCK_SIZE, Structure, Sums, flat_rows, in_scope
from lr_nn.network import Network, propagate
from lr_nn.row_sums import map_row_blocks
from lr_nn.trees import register_class, unit_seeds
from lr_nn.types import Batch, Params

# The largest matrix whose eigenvectors are left to one thread of LAPACK: for 784 rows two threads, which wait busily
# for each other, took 1.5 to 3 times as long.
ONE_THREAD_ROWS = 1024
# The Jacobian in factors: ã_{l-1} (n, d_{l-1} + 1) and δ_l (k, n, d_l) of every layer, seeded by unit vectors of η.
Jacobian = tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]


class Spectrum(ABC):
    """The matrix U diag(λ) Uᵀ, λ the eigenvalues of Σ_i s_i J_iᵀ F_i J_i; `variances` are 1 / (λ / σ² + τ)."""

    @abstractmethod
    def eigenvalues(self) -> Any:
        """λ, an array or a tuple of arrays, one a layer; float64 NumPy, none negative."""

    def variances(self, prior: Any, noise: Any, dtype: DTypeLike) -> Any:
        """1 / (λ / σ² + τ), shaped as `eigenvalues`, in `dtype`."""
        tau, sigma2 = (jnp.asarray(value).astype(dtype) for value in (prior, noise))
        return jax.tree.map(lambda value: 1 / (jnp.asarray(value).astype(dtype) / sigma2 + tau), self.eigenvalues())

    @abstractmethod
    def covariance(self, jacobian: Jacobian, variances: Any, full: bool) -> jax.Array:
        """J_i U diag(variances) Uᵀ J_iᵀ of every row, (n, k, k), or only its diagonal, (n, k)."""

    @abstractmethod
    def draw(self, key: jax.Array, variances: Any, net: Network, params: Params) -> Params:
        """A draw from N(params, U diag(variances) Uᵀ); parameters out of scope stay."""

    @abstractmethod
    def numbers_per_row(self, net: Network) -> int:
        """The size of the largest array of `covariance` for one row."""


class Axes(NamedTuple):
    """One layer, q = d_{l-1} + 1: eigenvectors `a` (q, q) and `g` (d_l, d_l), None for an identity, and λ (q, d_l)."""

    a: jax.Array | None
    g: jax.Array | None
    eigenvalues: Any


@register_class
@dataclass(frozen=True, eq=False)
class Factored(Spectrum):
    """A block a layer, with eigenvectors U_A ⊗ U_G: those of Kronecker factors, or the identity for a diagonal."""

    layers: tuple[Axes, ...]

    def eigenvalues(self):
        return tuple(layer.eigenvalues for layer in self.layers)

    def covariance(self, jacobian, variances, full):
        """Σ_lm (δ_ic U_G)_m (δ_ie U_G)_m R_im with R = (ã U_A)² variances: nothing of size n × parameters."""
        found = []
        for layer, a, delta, variance in zip(self.layers, *jacobian, variances):
            along_a = jnp.square(_rotated(a, layer.a))
            along_g = _rotated(delta, layer.g)
            scaled = along_g * matmul(along_a, variance)[None]
            found.append(jnp.einsum("cnm,enm->nce" if full else "cnm,cnm->nc", along_g, scaled, precision="highest"))
        return jnp.stack(found).sum(axis=0)

    def draw(self, key, variances, net, params):
        moved = []
        for axes, like, variance, own in zip(self.layers, params, variances, jax.random.split(key, len(params))):
            z = jnp.sqrt(variance) * jax.random.normal(own, variance.shape, variance.dtype)
            z = z if axes.g is None else matmul(z, axes.g.T)
            moved.append(split(z if axes.a is None else matmul(axes.a, z), like))
        return _added(params, tuple(moved))

    def numbers_per_row(self, net):
        return net.sizes[-1] * sum(net.sizes[1:]) + sum(net.sizes)


@register_class
@dataclass(frozen=True, eq=False)
class Dense(Spectrum):
    """Eigenvectors `vectors` (P, P) in columns, for all parameters or those of the last layer."""

    vectors: jax.Array
    values: Any
    structure: Structure = field(metadata={"static": True})

    def eigenvalues(self):
        return self.values

    def covariance(self, jacobian, variances, full):
        rows = flat_rows(*(in_scope(side, self.structure) for side in jacobian))
        along = _rotated(rows, self.vectors)
        if not full:
            return (jnp.square(along) * variances[None, None]).sum(axis=-1).T
        return jnp.einsum("cnp,enp->nce", along, along * variances[None, None], precision="highest")

    def draw(self, key, variances, net, params):
        z = jnp.sqrt(variances) * jax.random.normal(key, variances.shape, variances.dtype)
        moved = matmul(self.vectors, z[:, None])[:, 0]
        last = params[-1]
        if self.structure == "last_layer":
            return (*params[:-1], *_added((last,), (split(moved.reshape(join(last).shape), last),)))
        return _added(params, unflatten(net, moved))

    def numbers_per_row(self, net):
        return net.sizes[-1] * len(self.values)


def _rotated(rows: jax.Array, vectors: jax.Array | None) -> jax.Array:
    """`rows` (..., n, q) along the columns of `vectors`."""
    if vectors is None:
        return rows
    return jnp.einsum("...nq,qr->...nr", rows.astype(vectors.dtype), vectors, precision="highest")


def _added(params: Params, moved: Params) -> Params:
    """params + moved, in the dtype of each parameter."""
    return jax.tree.map(lambda w, v: (w.astype(v.dtype) + v).astype(w.dtype), params, moved)


def spectrum_of(sums: Sums, structure: Structure, dtype: DTypeLike) -> Spectrum:
    """The spectrum of the curvature, computed in float64 by LAPACK; eigenvectors are stored in `dtype`."""
    if structure == "diagonal":
        return Factored(tuple(Axes(None, None, np.maximum(layer, 0)) for layer in sums.curvature))
    if structure == "kfac":
        layers = []
        for a, g in sums.curvature:
            (alpha, u_a), (gamma, u_g) = _eigh(a), _eigh(g / sums.weight)
            layers.append(Axes(check.cast(u_a, dtype), check.cast(u_g, dtype), alpha[:, None] * gamma[None]))
        return Factored(tuple(layers))
    values, vectors = _eigh(sums.curvature[0])
    return Dense(check.cast(vectors, dtype), values, structure)


def _eigh(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, at least zero, and eigenvectors of a positive semidefinite matrix; NaN where it is not finite."""
    if not np.isfinite(matrix).all():
        return np.full(len(matrix), np.nan), np.full_like(matrix, np.nan)
    with one_thread() if len(matrix) <= ONE_THREAD_ROWS else nullcontext():
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.maximum(values, 0), vectors


def moments(
    net: Network, params: Params, spectrum: Spectrum, prior: Any, noise: Any, inputs: Batch, full: bool
) -> tuple[jax.Array, jax.Array]:
    """The mean of η, (n, k), and its covariance (n, k, k) or variance (n, k), for a block of rows at a time."""

    def of_block(inputs: Batch) -> tuple[jax.Array, jax.Array]:
        found = propagate(net, params, inputs)
        dtype = found.eta.dtype
        deltas = tuple(delta.astype(dtype) for delta in recursion(net, params, found, unit_seeds(found.eta)))
        activations = tuple(homogeneous(a, net.bias).astype(dtype) for a in found.activations)
        variances = spectrum.variances(prior, noise, dtype)
        return found.eta, spectrum.covariance((activations, deltas), variances, full)

    return map_row_blocks(of_block, inputs, max(1, BLOCK_SIZE // spectrum.numbers_per_row(net)))
