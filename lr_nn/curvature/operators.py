"""Symmetric matrices over the parameters of a network, given by their products with vectors.

A vector is a tree like the parameters, or flat, (p,) in the order of `ravel_pytree(params)`; the result is of the same
kind. Every operator is a pytree: it passes through `jit`, `vmap`, `scan` and `while_loop`. For many vectors use
`jax.vmap(op.multiply)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from lr_nn import check
from lr_nn.admission import admit
from lr_nn.backward import contract, relative_weights, sweep
from lr_nn.network import Network, check_params, n_parameters
from lr_nn.penalties import Penalty, check_penalty
from lr_nn.row_sums import weighted
from lr_nn.trees import accumulator, add, cast, common_dtype, compiled, divide, dtypes_of, widened
from lr_nn.types import Backprop, Batch, Layer, Params

# A dense matrix of this size takes 256 MiB in float32.
MOST_PARAMETERS = 8192


@dataclass(frozen=True)
class Operator(ABC):
    """A symmetric (p, p) matrix over the parameters of `net`."""

    net: Network
    params: Params

    def multiply(self, v: Params | ArrayLike) -> Any:
        """The matrix times `v`, in the dtypes of the parameters; also written `op @ v`.

        `v`: like the parameters, or flat (p,). Raises TypeError or ValueError for a `v` of another shape.
        """
        return self._apply(type(self)._product, v)

    def __matmul__(self, v: Params | ArrayLike) -> Any:
        """`multiply`."""
        return self.multiply(v)

    def dense(self) -> jax.Array:
        """The matrix itself, (p, p) in the order of `ravel_pytree(params)`, in float32 for half precision.

        Raises ValueError above 8,192 parameters.
        """
        p = n_parameters(self.net)
        if p > MOST_PARAMETERS:
            raise ValueError(f"a dense matrix of {p} parameters exceeds the limit of {MOST_PARAMETERS}; use op @ v")
        return _dense(self)

    @abstractmethod
    def diagonal(self) -> Params:
        """The diagonal, like the parameters, in float32 for half precision."""

    @abstractmethod
    def trace(self) -> jax.Array:
        """The trace, a scalar."""

    @abstractmethod
    def _product(self, v: Params) -> Params:
        """`multiply` of an admitted tree, in the dtype of sums; for use inside a compiled function."""

    def _apply(self, function: Callable[..., Params], v: Params | ArrayLike, *args: Any) -> Any:
        """`function(self, tree, *args)`, a tree, as one compiled program: `v` of either kind, the result of the same.

        `function` must be one object for all calls, such as a method of a class.
        """
        if isinstance(v, tuple):
            check_params(self.net, v, "v")
            return _applied(function, self, v, *args)
        p = n_parameters(self.net)
        flat = check.numeric("v", v)
        if flat.shape != (p,):
            many = ": use jax.vmap for many vectors" if flat.ndim > 1 else ""
            raise ValueError(
                f"v must be like params, or flat with shape ({p},), in the order of ravel_pytree(params); "
                f"got shape {flat.shape}{many}"
            )
        if not jnp.issubdtype(flat.dtype, jnp.floating):
            flat = check.cast(flat, common_dtype(*jax.tree.leaves(dtypes_of(self.params))))
        return _applied(function, self, flat, *args)


@partial(compiled, static_argnums=0)
def _applied(function: Callable[..., Params], op: Operator, v: Params | jax.Array, *args: Any) -> Any:
    dtypes = dtypes_of(op.params)
    if isinstance(v, tuple):
        return cast(function(op, v, *args), dtypes)
    return flatten(function(op, unflatten(op.net, v), *args), common_dtype(*jax.tree.leaves(dtypes)))


@compiled
def _dense(op: Operator) -> jax.Array:
    p, dtype = n_parameters(op.net), accumulator(common_dtype(*jax.tree.leaves(dtypes_of(op.params))))
    basis = jnp.eye(p, dtype=dtype)
    return jax.lax.map(lambda v: flatten(op._product(unflatten(op.net, v)), dtype), basis, batch_size=64)


def flatten(tree: Params, dtype: DTypeLike) -> jax.Array:
    """All leaves as one vector (p,) of `dtype`. (`ravel_pytree` takes no mixed dtypes under strict promotion.)"""
    return jnp.concatenate([leaf.reshape(-1).astype(dtype) for leaf in jax.tree.leaves(tree)])


def unflatten(net: Network, flat: jax.Array) -> Params:
    """The inverse of `flatten`, in the dtype of `flat`."""
    layers, start = [], 0
    for d_in, d_out in net.shapes:
        stop = start + d_in * d_out
        w = flat[start:stop].reshape(d_in, d_out)
        layers.append(Layer(w, flat[stop : stop + d_out] if net.bias else None))
        start = stop + net.bias * d_out
    return tuple(layers)


@dataclass(frozen=True)
class MeanCurvature(Operator):
    """Σ_i s_i C_i / Σ_i s_i + P: C_i a curvature of ℓ_i, P the diagonal matrix of the penalty's l2.

    `bp`, the pass over the batch, belongs to `params`.
    """

    bp: Backprop
    penalty: Penalty | None

    def diagonal(self) -> Params:
        """The diagonal, like the parameters, in float32 for half precision."""
        return _diagonal(self)

    def trace(self) -> jax.Array:
        """The trace, a scalar: the mean of `traces`, and the trace of P."""
        return _trace(self)

    def traces(self) -> jax.Array:
        """tr C_i of every example, (n,), unweighted and without the penalty."""
        return _traces(self)

    def _product(self, v: Params) -> Params:
        """The matrix times an admitted tree, in the dtype of sums."""
        found = self._mean_product(v)
        if self.penalty is None:
            return found
        v = widened(v)
        return add(found, jax.tree.map(jnp.multiply, self.penalty.hessian_diagonal(v), v))

    def _with_penalty(self, diagonal: Params) -> Params:
        """A diagonal of the mean, and that of P."""
        return diagonal if self.penalty is None else add(diagonal, self.penalty.hessian_diagonal(widened(self.params)))

    @abstractmethod
    def _mean_product(self, v: Params) -> Params:
        """(Σ_i s_i C_i / Σ_i s_i) v, in the dtype of sums."""

    @abstractmethod
    def _squares(self) -> Backprop:
        """The pass with a² and, for δ, the c for which the diagonal of C_i is a_i² c_iᵀ in every layer."""


def keep(net: Network, params: Params, batch: Batch, penalty: Penalty | None) -> tuple[Params, Backprop, Any]:
    """Parameters as JAX arrays, their pass over the batch, and the penalty: what a `MeanCurvature` keeps."""
    batch = admit(net, params, batch)
    check_penalty(penalty, net)
    return _keep(net, params, batch, penalty)


@compiled
def _keep(net: Network, params: Params, batch: Batch, penalty: Penalty | None) -> tuple[Params, Backprop, Any]:
    return params, sweep(net, params, batch), penalty


def mean_diagonal(squares: Backprop, samples: int = 1) -> Params:
    """Σ_i s_i a_i² c_iᵀ / Σ_i s_i, divided by `samples`."""
    weight, total = relative_weights(squares)
    return divide(contract(squares, weight), samples * total)


@compiled
def _diagonal(op: MeanCurvature) -> Params:
    return op._with_penalty(mean_diagonal(op._squares()))


def traces_of(squares: Backprop) -> jax.Array:
    """Σ_l (‖a_{l-1}‖² + 1) Σ_j c_lj of every example, (n,), without the 1 where there is no bias."""
    layers = [(a.sum(axis=1) + float(squares.bias), c.sum(axis=1)) for a, c in zip(squares.activations, squares.deltas)]
    dtype = common_dtype(*(side.dtype for layer in layers for side in layer))
    return jnp.stack([a.astype(dtype) * c.astype(dtype) for a, c in layers]).sum(axis=0)


@compiled
def _traces(op: MeanCurvature) -> jax.Array:
    return traces_of(op._squares())


@compiled
def _trace(op: MeanCurvature) -> jax.Array:
    weight, total = relative_weights(op.bp)
    mean = divide(weighted(traces_of(op._squares())[:, None], weight).sum(), total)
    if op.penalty is None:
        return mean
    ridge = [leaf.sum(dtype=mean.dtype) for leaf in jax.tree.leaves(op.penalty.hessian_diagonal(widened(op.params)))]
    return mean + jnp.stack(ridge).sum()
