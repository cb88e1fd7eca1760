"""The sums over examples of a Laplace approximation, for arrays or for rows read in blocks."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn import check, losses
from lr_nn.admission import admit
from lr_nn.backward import sum_over_seeds
from lr_nn.curvature import ggn, kfac
from lr_nn.curvature.blocks import homogeneous, join, matmul
from lr_nn.data import Rows, blocks
from lr_nn.losses import Loss
from lr_nn.losses.through import Through
from lr_nn.network import Network, propagate
from lr_nn.objective import fold, totals
from lr_nn.row_sums import counted, weighted
from lr_nn.trees import compiled
from lr_nn.types import Batch, Params

Structure = Literal["kfac", "diagonal", "last_layer", "full"]

# Numbers in the largest array made for a block of rows, 16 MiB in float32.
BLOCK_SIZE = 2**22


class Sums(NamedTuple):
    """Σ s_i, Σ s_i ℓ_i, the log normaliser Σ s_i log y_i! of counts (else 0), and the curvature.

    `curvature` by the structure: "kfac" a pair (Σ s ã ãᵀ, Σ s Σ_c δ_c δ_cᵀ) a layer; "diagonal" the diagonal of the
    GGN, (d_{l-1} + 1, d_l) a layer; else the GGN (P, P), of all parameters or those of the last layer.
    """

    weight: Any
    loss: Any
    log_normaliser: Any
    curvature: tuple[Any, ...]


def likelihood(loss: Loss) -> Loss:
    """The loss on the activated output, where `through` wraps one: the targets are distributed by it."""
    while isinstance(loss, Through):
        loss = loss.inner
    return loss


def curvature_sums(net: Network, params: Params, data: Batch | Rows, structure: Structure) -> Sums:
    """The sums in float64 NumPy; rows of a file are read once, in blocks, and added in float64."""
    if not isinstance(data, Rows):
        return _on_host(_sums(net, params, admit(net, params, data), structure))
    size = max(1, BLOCK_SIZE // sum(net.sizes))
    total = None
    with closing(blocks(data, size)) as parts:
        for number, part in enumerate(parts):
            with check.numbered(range(number * size, len(data))):
                batch = admit(net, params, part, allow_no_weight=True)
            found = _on_host(_sums(net, params, batch, structure))
            total = found if total is None else jax.tree.map(np.add, total, found)
    if total is None or not total.weight > 0:
        raise ValueError("weight is zero for every example; at least one must be positive")
    return total


def _on_host(sums: Sums) -> Sums:
    return jax.tree.map(lambda a: np.asarray(a, np.float64), sums)


@partial(compiled, static_argnames="structure")
def _sums(net: Network, params: Params, batch: Batch, structure: Structure) -> Sums:
    dense = structure in ("full", "last_layer")
    each = n_in_scope(net, structure) if dense else sum(net.sizes)
    return fold(partial(_block_sums, net, params, structure), batch, max(1, BLOCK_SIZE // each))


def n_in_scope(net: Network, structure: Structure) -> int:
    """P, the number of random parameters: all of them, or those of the last layer."""
    shapes = net.shapes[-1:] if structure == "last_layer" else net.shapes
    return sum((d_in + net.bias) * d_out for d_in, d_out in shapes)


def _block_sums(net: Network, params: Params, structure: Structure, batch: Batch) -> Sums:
    weight, loss, _ = totals(net, params, batch)
    if structure == "kfac":
        factors = kfac(net, params, batch).factors
        curvature: tuple[Any, ...] = tuple((weight * a, weight * g) for a, g in factors)
    elif structure == "diagonal":
        curvature = tuple(weight * join(layer) for layer in ggn(net, params, batch).diagonal())
    else:
        curvature = (_dense(net, params, batch, structure),)
    return Sums(weight, loss, _log_normaliser(net, batch, loss), curvature)


def _log_normaliser(net: Network, batch: Batch, loss: jax.Array) -> jax.Array:
    """Σ s_i log y_i!, which the Poisson loss leaves out."""
    if likelihood(net.loss) != losses.poisson:
        return jnp.zeros_like(loss)
    y = batch.y.reshape(len(batch.x), -1).astype(loss.dtype)
    return weighted(jax.scipy.special.gammaln(y + 1).sum(axis=1, keepdims=True), batch.weight).sum()


def _dense(net: Network, params: Params, batch: Batch, structure: Structure) -> jax.Array:
    """Σ_i s_i J_iᵀ F_i J_i = Σ_c V_cᵀ diag(s) V_c with rows ã_i ⊗ δ_ic of V_c, seeded by the Fisher factor."""
    found = propagate(net, params, batch)
    inputs = [homogeneous(a, net.bias) for a in found.activations]

    def gram(deltas: tuple[jax.Array, ...]) -> jax.Array:
        rows = flat_rows(in_scope(inputs, structure), in_scope(deltas, structure))
        if batch.weight is None:
            return matmul(rows.T, rows)
        return matmul(weighted(rows, batch.weight).T, counted(rows, batch.weight[:, None]))

    return sum_over_seeds(net, params, found, net.loss.fisher_factor(found.eta), gram)


def in_scope(layers: Any, structure: Structure) -> Any:
    """The layers whose parameters are random."""
    return layers[-1:] if structure == "last_layer" else layers


def flat_rows(inputs: Any, deltas: Any) -> jax.Array:
    """ã_i ⊗ δ_i of all layers, (..., n, P) in the order of `ravel_pytree(params)`; δ (..., n, d_l)."""
    products = [jnp.einsum("ni,...nj->...nij", a, delta.astype(a.dtype)) for a, delta in zip(inputs, deltas)]
    return jnp.concatenate([rows.reshape(*rows.shape[:-2], -1) for rows in products], axis=-1)
