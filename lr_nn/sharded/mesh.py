"""Meshes of devices, and arrays laid over them."""

from __future__ import annotations

from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lr_nn.sharded.world import agree

Args = ParamSpec("Args")
Result = TypeVar("Result")


def admit(mesh: Mesh | None) -> Mesh:
    """The mesh, all of its axes automatic; of all devices in one axis where there is none."""
    if mesh is None:
        return Mesh(np.array(jax.devices()), ("devices",))
    if not isinstance(mesh, Mesh):
        raise TypeError(f"mesh must be a jax.sharding.Mesh, such as Mesh(jax.devices(), ('rows',)); got {mesh!r:.100}")
    devices = list(mesh.devices.flat)
    if not devices:
        raise ValueError("the mesh has no devices")
    counts = dict.fromkeys(range(jax.process_count()), 0)
    for device in devices:
        counts[device.process_index] += 1
    if len(set(counts.values())) > 1:
        raise ValueError(f"every process must have as many devices in the mesh as any other; got {counts}")
    if [device.process_index for device in devices] != sorted(device.process_index for device in devices):
        raise ValueError(
            "the devices of a process must follow each other in the mesh; make it of jax.devices() in order"
        )
    agree("the mesh", shape=dict(mesh.shape), devices=[device.id for device in devices])
    return Mesh(mesh.devices, mesh.axis_names)


def replicated(mesh: Mesh, tree: Any) -> Any:
    """A copy of every leaf on every device; the leaves are the same in all processes."""
    everywhere = NamedSharding(mesh, P())

    def place(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.core.Tracer) or (isinstance(leaf, jax.Array) and leaf.sharding == everywhere):
            return leaf
        if jax.process_count() == 1:
            return jax.device_put(leaf, everywhere)
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(place(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        return jax.make_array_from_process_local_data(everywhere, np.asarray(leaf))

    return jax.tree.map(place, tree)


def laid(mesh: Mesh, spec: P, array: np.ndarray) -> jax.Array:
    """An array over the mesh, of which this process hands in its own part."""
    return jax.make_array_from_process_local_data(NamedSharding(mesh, spec), array)
