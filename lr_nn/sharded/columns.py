"""Columns over devices: a first layer too wide for one of them, η by one `psum`, each gradient where its weights are.

    z_1 = Σ_j x_j w_j + b_1 over devices j,   ∂ℓ/∂w_j = x_jᵀ δ_1 on device j

The layers after the first are the same on all devices, and so are their gradients: they need no sum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lr_nn import check
from lr_nn.admission import admit as admit_batch
from lr_nn.admission import columns
from lr_nn.backward import mean_gradient, sweep
from lr_nn.network import Network, affine, check_params
from lr_nn.objective import weighted_mean
from lr_nn.penalties import Penalty, check_penalty
from lr_nn.sharded import mesh as meshes
from lr_nn.trees import accumulator, add, cast, widened, without_context_mesh
from lr_nn.types import Batch, Layer, Params

__all__ = ["ColumnParallel", "feature_parallel"]


@dataclass(frozen=True)
class ColumnParallel:
    """The library over the devices of a mesh, each of which holds some columns of x and their rows of w_1.

    Columns are padded with zeros to as many on each device; their weights are zero, and stay so. In a world of
    processes every one of them gives all rows and columns.
    """

    mesh: Mesh

    @property
    def axes(self) -> tuple[str, ...]:
        """All axes of the mesh: the columns lie over all of them."""
        return tuple(self.mesh.axis_names)

    @property
    def specs(self) -> tuple[Any, Batch]:
        """How the first layer and a batch lie over the mesh."""
        everywhere: Any = P()
        return Layer(P(self.axes), everywhere), Batch(P(None, self.axes), everywhere, everywhere, everywhere)  # type: ignore[arg-type]

    def widened(self, net: Network) -> Network:
        """The network with the columns of padding."""
        return replace(net, sizes=(self._whole(net.sizes[0]), *net.sizes[1:]))

    @without_context_mesh
    def place_params(self, net: Network, params: Params) -> Params:
        """The parameters of `widened(net)`: w_1 over the devices, the rest on all of them."""
        if self._has(params):
            return params
        check_params(net, params)
        (first, *rest), missing = params, self._whole(net.sizes[0]) - net.sizes[0]
        w = self._laid(P(self.axes), np.pad(np.asarray(first.w), ((0, missing), (0, 0))))
        return (Layer(w, meshes.replicated(self.mesh, first.b)), *meshes.replicated(self.mesh, tuple(rest)))

    @without_context_mesh
    def whole(self, net: Network, params: Params) -> Params:
        """Parameters, or anything of their shape, without padding and on all devices."""
        (first, *rest) = params
        w = jax.jit(lambda w: w[: net.sizes[0]], out_shardings=NamedSharding(self.mesh, P()))(first.w)
        return (Layer(w, first.b), *rest)

    @without_context_mesh
    def place(self, batch: Batch) -> Batch:
        """A batch with the columns of x over the devices, and the rest on all of them."""
        over = NamedSharding(self.mesh, P(None, self.axes))
        if isinstance(batch, Batch) and isinstance(batch.x, jax.Array) and batch.x.sharding == over:
            return batch
        batch = columns(batch)
        d = batch.x.shape[1]
        x = self._laid(over.spec, np.pad(batch.x, ((0, 0), (0, self._whole(d) - d))))
        return Batch(x, *meshes.replicated(self.mesh, tuple(batch[1:])))

    @without_context_mesh
    def value_and_gradient(
        self, net: Network, params: Params, batch: Batch, penalty: Penalty | None = None
    ) -> tuple[jax.Array, Params]:
        """`lr_nn.value_and_gradient`: one all-reduce, of z_1 (n, d_1). The gradient lies as the parameters do."""
        value, gradient = _value_and_gradient(self, net, *self._admit(net, params, batch), self._penalty(penalty))
        return value, gradient if self._has(params) else self.whole(net, gradient)

    @without_context_mesh
    def step(
        self,
        net: Network,
        params: Params,
        opt_state: Any,
        batch: Batch,
        *,
        optimizer: optax.GradientTransformation,
        penalty: Penalty | None = None,
    ) -> tuple[Params, Any, jax.Array]:
        """`lr_nn.training.step` on placed parameters, with `opt_state = optimizer.init(params)` of them."""
        if not self._has(params):
            raise ValueError("a step is taken with parameters that lie over the devices: call place_params first")
        params, batch = self._admit(net, params, batch)
        return _step(self, net, params, opt_state, batch, optimizer, self._penalty(penalty))

    def _admit(self, net: Network, params: Params, batch: Batch) -> tuple[Params, Batch]:
        if isinstance(batch, Batch) and not isinstance(batch.x, jax.Array):
            check.table("x", batch.x, net.sizes[0])
        params = self.place_params(net, params)
        return params, admit_batch(self.widened(net), params, self.place(batch))

    def _penalty(self, penalty: Penalty | None) -> Penalty:
        check_penalty(penalty)
        return Penalty() if penalty is None else penalty

    def _has(self, params: Params) -> bool:
        w = params[0].w if isinstance(params, tuple) and params and isinstance(params[0], Layer) else None
        over = NamedSharding(self.mesh, P(self.axes))
        return isinstance(w, jax.Array) and (isinstance(w, jax.core.Tracer) or w.sharding.is_equivalent_to(over, 2))

    def _whole(self, d: int) -> int:
        """d and the columns of padding."""
        return -(-d // self.mesh.size) * self.mesh.size

    def _laid(self, spec: P, array: np.ndarray) -> jax.Array:
        """An array over the mesh, of which every process has all."""
        return jax.make_array_from_callback(array.shape, NamedSharding(self.mesh, spec), array.__getitem__)


def feature_parallel(mesh: Mesh | None = None) -> ColumnParallel:
    """The library over the devices of `mesh` (None: all there are), each with some of the columns of x.

    For models so wide that their weights do not fit on one device. Raises as `data_parallel` does.
    """
    return ColumnParallel(meshes.admit(mesh))


@partial(jax.jit, static_argnames="parallel")
def _value_and_gradient(parallel, net, params, batch, penalty):
    def local(params, batch, penalty):
        (first, *rest), own = params, replace(net, sizes=(batch.x.shape[1], *net.sizes[1:]))
        own_part = affine(first._replace(b=None), batch.x, accumulator(first.w.dtype))
        penalty_value, z = lax.psum((penalty.value((first,)), own_part), parallel.axes)
        z = z if first.b is None else z + first.b.astype(z.dtype)[None]
        bp = sweep(own, params, batch, z=z.astype(first.w.dtype) if rest else z)
        value = weighted_mean(net.loss.value(bp.eta, bp.y), batch.weight)
        value = value + penalty_value.astype(value.dtype)
        value = value + penalty.value(tuple(rest)).astype(value.dtype) if rest else value
        return value, cast(add(mean_gradient(bp), penalty.gradient(widened(params))), bp.dtypes)

    layer, data = parallel.specs
    layers = (layer, *(P() for _ in params[1:]))
    run = jax.shard_map(local, mesh=parallel.mesh, in_specs=(layers, data, P()), out_specs=(P(), layers))
    return run(params, batch, penalty)


@partial(jax.jit, static_argnames=("parallel", "optimizer"))
def _step(parallel, net, params, opt_state, batch, optimizer, penalty):
    def value(params):
        return _value_and_gradient(parallel, net, params, batch, penalty)[0]

    cost, gradient = _value_and_gradient(parallel, net, params, batch, penalty)
    update = optax.with_extra_args_support(optimizer).update
    updates, opt_state = update(gradient, opt_state, params, value=cost, grad=gradient, value_fn=value)
    return optax.apply_updates(params, updates), opt_state, cost
