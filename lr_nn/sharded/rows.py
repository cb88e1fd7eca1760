"""Rows over devices: every sum over examples of the library, by one `psum`, and one division after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike, DTypeLike

from lr_nn import check
from lr_nn.admission import admit as admit_batch
from lr_nn.data.rows import Rows
from lr_nn.fitting.model import fit, fit_own_rows
from lr_nn.many import Progress as ManyProgress
from lr_nn.many import Solutions
from lr_nn.many.settings import Settings
from lr_nn.network import Network
from lr_nn.objective import automatic_block_size
from lr_nn.penalties import Penalty, check_penalty
from lr_nn.sharded import lanes, place, sums, training
from lr_nn.sharded import mesh as meshes
from lr_nn.sharded.sums import NewtonSystem
from lr_nn.sharded.world import agree, digest
from lr_nn.training import Progress, Training
from lr_nn.training.checkpoints import Checkpoints
from lr_nn.trees import without_context_mesh
from lr_nn.types import Batch, Params, Solution

__all__ = ["RowParallel", "data_parallel"]


@dataclass(frozen=True)
class RowParallel:
    """The library over the devices of a mesh, each of which holds a part of the rows, and all of the parameters.

    Its methods are the functions of the same name. A batch is one of the host, or has been laid out by `place`, which
    pays where it is used more than once; with many processes each of them gives its own part. What is returned per
    row stays with its row; everything else is on all devices. `shards`: the rows are dealt into so many shards, a
    multiple of the number of devices, and a mini-batch takes as many from each: with one number of shards, any number
    of devices sees the same mini-batches.
    """

    mesh: Mesh
    shards: int

    @property
    def axes(self) -> tuple[str, ...]:
        """All axes of the mesh: the rows lie over all of them."""
        return tuple(self.mesh.axis_names)

    @property
    def rows(self) -> P:
        """How rows lie over the mesh."""
        return P(self.axes)

    def add_up(self, sums: Any) -> Any:
        """Σ over devices, inside `shard_map`: one all-reduce, however many the leaves."""
        return lax.psum(sums, self.axes)

    def map(self, function: Callable, in_specs: Any, out_specs: Any) -> Callable:
        """`function` on each device, of its own rows."""
        return jax.shard_map(function, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs)

    @without_context_mesh
    def place(self, data: Batch | Rows) -> Batch:
        """A batch over the devices, in shards of as many rows: what is missing is copies of a row, of weight zero.

        A Batch is the part of this process, Rows are all rows, the same in every process, each of which reads its own
        part of them. Raises ValueError where parts differ in their columns.
        """
        return place.placed(self.mesh, self.axes, self.shards, data)

    @without_context_mesh
    def admit(self, net: Network, params: Params, batch: Batch | Rows) -> tuple[Params, Batch]:
        """Checked parameters on every device, and a checked batch over them."""
        batch = self.place(batch)
        place.look(net, batch)
        batch = admit_batch(net, params, batch)
        return meshes.replicated(self.mesh, jax.tree.map(jnp.asarray, params)), batch

    @without_context_mesh
    def cost(self, net: Network, params: Params, batch: Batch, penalty: Penalty | None = None) -> jax.Array:
        """`lr_nn.cost`."""
        check_penalty(penalty, net)
        return sums.cost(self, net, *self.admit(net, params, batch), penalty)

    @without_context_mesh
    def value_and_gradient(
        self, net: Network, params: Params, batch: Batch, penalty: Penalty | None = None, block_size: int | None = None
    ) -> tuple[jax.Array, Params]:
        """`lr_nn.value_and_gradient`: one all-reduce. `block_size` counts the rows of a device."""
        check_penalty(penalty, net)
        params, batch = self.admit(net, params, batch)
        if block_size is None:
            block_size = automatic_block_size(net, batch.x)
        else:
            block_size = check.positive_integer("block_size", block_size)
        return sums.value_and_gradient(self, net, params, batch, penalty, block_size)

    @without_context_mesh
    def squared_norms(self, net: Network, params: Params, batch: Batch) -> jax.Array:
        """‖g_i‖² of every row, (n,), by no collective. Of a placed batch the rows of padding have theirs, too."""
        return self.layer_squared_norms(net, params, batch).sum(axis=1)

    @without_context_mesh
    def layer_squared_norms(self, net: Network, params: Params, batch: Batch) -> jax.Array:
        """‖g_i‖² of every row layer by layer, (n, L), by no collective."""
        norms = sums.layer_squared_norms(self, net, *self.admit(net, params, batch))
        return norms[place.given(batch, self.shards)]

    @without_context_mesh
    def clipped_gradient(self, net: Network, params: Params, batch: Batch, max_norm: ArrayLike) -> Params:
        """Σ_i s_i c_i g_i / Σ_i s_i, c_i = min(1, max_norm / ‖g_i‖): one all-reduce."""
        max_norm = check.positive("max_norm", max_norm)
        return sums.clipped_gradient(self, net, *self.admit(net, params, batch), max_norm)

    @without_context_mesh
    def second_moment(self, net: Network, params: Params, batch: Batch) -> Params:
        """Σ_i s_i g_i² / Σ_i s_i, elementwise: one all-reduce."""
        return sums.second_moment(self, net, *self.admit(net, params, batch))

    @without_context_mesh
    def newton_system(self, net: Network, params: Params, batch: Batch, penalty: Penalty | None = None) -> NewtonSystem:
        """J, ∇J and ∇²J = Σ_i s_i x̃_i x̃_iᵀ ⊗ F_i / Σ_i s_i + l2 of a one-layer network: one all-reduce.

        F_i is the Fisher weight in η, which for a canonical loss is ∂²ℓ_i/∂η². Raises ValueError for a deep network.
        """
        check_penalty(penalty)
        if len(net.sizes) != 2:
            raise ValueError(
                "a Newton system is for one-layer networks; see lr_nn.curvature for products with deep ones"
            )
        return sums.newton_system(self, net, *self.admit(net, params, batch), penalty or Penalty())

    @without_context_mesh
    def train(
        self,
        net: Network,
        params: Params,
        data: Batch | Rows,
        *,
        optimizer: optax.GradientTransformation,
        epochs: int,
        batch_size: int | None = None,
        key: jax.Array | None = None,
        penalty: Penalty | None = None,
        validation: Batch | Rows | None = None,
        patience: int | None = None,
        opt_state: Any = None,
        progress: Callable[[Progress], None] | None = None,
        checkpoints: Checkpoints | None = None,
        resume: bool = False,
    ) -> Training:
        """`lr_nn.train`: one all-reduce a step, of the loss and all gradients.

        Full batches give what `lr_nn.train` gives, to rounding. A mini-batch takes as many rows from each shard,
        which has an order of its own in every epoch, a function of (key, epoch, shard); `batch_size` is that of all
        of them. Of many processes the first writes checkpoints, all read them, from one folder, and a signal to one
        is a signal to all; on another number of devices a training with as many shards goes on, equal to rounding.

        Raises as `lr_nn.train` does, and ValueError where `batch_size` is no multiple of `shards`, or where
        processes differ in what they ask for.
        """
        return training.train(
            self,
            net,
            params,
            data,
            optimizer,
            epochs,
            batch_size,
            key,
            penalty,
            validation,
            patience,
            opt_state,
            progress,
            checkpoints,
            resume,
        )

    @without_context_mesh
    def fit(
        self,
        net: Network,
        data: Batch | Rows,
        *,
        penalty: Penalty | None = None,
        start: Params | None = None,
        tol: float = 1e-12,
        max_steps: int = 100,
        solver: str = "auto",
        dtype: DTypeLike | None = None,
        memory: int = 2**28,
    ) -> Solution:
        """`lr_nn.fit`, to the same certificate: the data lie over the devices, by rows, and each process reads its own.

        Rows of files of which a process cannot hold its part in `memory` are read block by block.

        With many processes least squares go by newton or lbfgs, for closed_form needs all rows in one, and a direction
        of separation is not looked for: a fit without a maximum is one that has not converged.
        """
        strengths = jax.tree.map(lambda strength: digest(np.asarray(strength)), penalty)
        agree(
            "the fit",
            network=repr(net),
            penalty=jax.tree.leaves(strengths),
            settings=[tol, max_steps, solver, str(dtype)],
            start=None if start is None else digest(jax.tree.map(np.asarray, start)),
        )
        if isinstance(data, Rows):
            part = data.part(jax.process_index(), jax.process_count())
            found = fit_own_rows(net, part, penalty, start, tol, max_steps, solver, dtype, memory)
            if found is not None:
                return found
        with jax.enable_x64(True):
            batch = self.place(data)
        return fit(net, batch, penalty=penalty, start=start, tol=tol, max_steps=max_steps, solver=solver, dtype=dtype)

    @without_context_mesh
    def fit_many(
        self,
        net: Network,
        data: Batch,
        *,
        penalty: Penalty | None = None,
        start: Params | None = None,
        tol: float = 1e-12,
        max_steps: int = 100,
        solver: str = "auto",
        dtype: DTypeLike | None = None,
        schedule: str = "auto",
        memory: int = 2**30,
        progress: Callable[[ManyProgress], None] | None = None,
    ) -> Solutions:
        """`lr_nn.fit_many`: lanes over the processes, each with all rows of its lanes, and one collective in the end.

        The arguments are the same in every process, and so is what is returned.
        """
        settings = Settings(tol, max_steps, solver, dtype, schedule, memory, progress)
        return lanes.fit_many(net, data, penalty, start, settings)


def data_parallel(mesh: Mesh | None = None, shards: int | None = None) -> RowParallel:
    """The library over the devices of `mesh` (None: all there are), each with a part of the rows.

    `shards`: see `RowParallel`; None is one a device. In a world of processes every one of them makes the same
    mesh. Raises TypeError for what is no mesh, ValueError for one whose processes are unequal or mixed.
    """
    mesh = meshes.admit(mesh)
    shards = mesh.size if shards is None else check.positive_integer("shards", shards)
    if shards % mesh.size:
        raise ValueError(f"shards must be a multiple of the {mesh.size} devices; got {shards}")
    return RowParallel(mesh, shards)
