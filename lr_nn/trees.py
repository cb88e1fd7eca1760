"""Operations on arrays and pytrees that several modules share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from math import prod
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.tree_util import GetAttrKey, register_pytree_with_keys
from jax.typing import DTypeLike

T = TypeVar("T")
Args = ParamSpec("Args")
Result = TypeVar("Result")


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`jax.jit(function, **options)`, also inside a traced function that holds 64-bit arrays of NumPy.

    JAX (0.10 to 0.12) keeps the dtype of such a constant from its first trace, and fails to compile a later one under
    another setting of `jax_enable_x64`. So it is cast first, to the dtype that the setting gives it.
    """
    program = jax.jit(function, **options)

    @wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        return program(*jax.tree.map(_canonical, args), **keywords)

    return call


def _canonical(leaf: Any) -> Any:
    if isinstance(leaf, (np.ndarray, np.generic)):
        return leaf.astype(jax.dtypes.canonicalize_dtype(leaf.dtype), copy=False)
    return leaf


def without_context_mesh(function: Callable[Args, Result]) -> Callable[Args, Result]:
    """A decorator: `function` runs with no mesh of `jax.set_mesh` in effect, because it names its own mesh."""

    @wraps(function)
    def decorated(*args: Args.args, **kwargs: Args.kwargs) -> Result:
        if jax.sharding.get_abstract_mesh().empty:  # a context is part of what a program is compiled for
            return function(*args, **kwargs)
        try:
            context: Any = jax.set_mesh(None)
        except ValueError:  # inside a trace only the abstract mesh can be set
            context = jax.sharding.use_abstract_mesh(AbstractMesh((), ()))
        with context:
            return function(*args, **kwargs)

    return decorated


def accumulator(dtype: DTypeLike) -> np.dtype:
    """The dtype of sums over examples: float32 for half precision, else `dtype` itself."""
    dtype = jnp.dtype(dtype)
    return jnp.dtype(jnp.float32) if dtype.itemsize < 4 else dtype


def common_dtype(*dtypes: DTypeLike) -> np.dtype:
    """The widest of floating `dtypes`; float32 for bfloat16 beside float16. Independent of JAX's promotion mode."""
    distinct = {jnp.dtype(dtype) for dtype in dtypes}
    size = max(dtype.itemsize for dtype in distinct)
    widest = [dtype for dtype in distinct if dtype.itemsize == size]
    return widest[0] if len(widest) == 1 else jnp.dtype(jnp.float32)


def dtypes_of(tree: Any) -> Any:
    """The name of every leaf's dtype, in a tree of the same structure.

    Names, because they are static fields: NumPy takes the dtype float64 and None, an absent bias, for equal.
    """
    return jax.tree.map(lambda leaf: jnp.result_type(leaf).name, tree)


def cast(tree: Any, dtypes: Any) -> Any:
    """Every leaf of `tree` in its own dtype of `dtypes`, a tree of the same structure."""
    return jax.tree.map(lambda leaf, dtype: leaf.astype(dtype), tree, dtypes)


def widened(tree: Any) -> Any:
    """Every floating leaf in the dtype of its sums: half precision in float32."""
    return jax.tree.map(lambda leaf: leaf.astype(accumulator(leaf.dtype)), tree)


def lift(array: jax.Array, ndim: int) -> jax.Array:
    """`array` with axes of length one in front, `ndim` in all, to be broadcast over free leading axes."""
    return array.reshape((1,) * (ndim - array.ndim) + array.shape)


def unit_seeds(eta: jax.Array) -> jax.Array:
    """The unit vectors of η (n, k) for every example, (k, n, k), which lie over a mesh as η does."""
    ones = (jnp.isnan(eta) | True).astype(eta.dtype)  # from JAX 0.12 on `ones_like` lies over no explicit mesh
    return jnp.eye(eta.shape[1], dtype=eta.dtype)[:, None, :] * ones[None]


def add(a: Any, b: Any) -> Any:
    """a + b leaf by leaf, in the dtype of `a`."""
    return jax.tree.map(lambda a, b: a + b.astype(a.dtype), a, b)


def divide(a: Any, total: jax.Array) -> Any:
    """a / total leaf by leaf; a total of zero, the sum of weights that are all zero, counts as one."""
    total = jnp.where(total > 0, total, jnp.ones_like(total))
    return jax.tree.map(lambda a: a / total.astype(a.dtype), a)


def all_finite(tree: Any) -> jax.Array:
    """True if no leaf of floats holds a NaN or an infinity."""
    leaves = [a for a in jax.tree.leaves(tree) if jnp.issubdtype(a.dtype, jnp.inexact)]
    return jnp.array([jnp.isfinite(a).all() for a in leaves]).all()


def squared_norm(tree: Any) -> jax.Array:
    """Σ of squares over all leaves: a scalar."""
    return jnp.stack([(a * a).sum() for a in jax.tree.leaves(tree)]).sum()


def row_shards(array: jax.Array) -> int:
    """The number of parts that the rows of `array` are in on an *explicit* mesh (JAX's term); 1 for every other one."""
    sharding = jax.typeof(array).sharding
    axes = sharding.spec[0]
    return prod(
        sharding.mesh.shape[axis] for axis in (axes if isinstance(axes, tuple) else (axes,)) if axis is not None
    )


def rows_sharding(array: jax.Array, n: int) -> NamedSharding | None:
    """The sharding of `n` rows gathered from `array`, which JAX requires where its rows lie over an explicit mesh.

    They lie over it as the rows of `array` do if n can be divided evenly, else every device has all of them.
    """
    shards, sharding = row_shards(array), jax.typeof(array).sharding
    if shards == 1:
        return None
    return NamedSharding(sharding.mesh, sharding.spec if n % shards == 0 else P(None, *sharding.spec[1:]))


def on_automatic_mesh(tree: Any) -> Any:
    """Concrete arrays over an *explicit* mesh, laid in the same way over the same devices with automatic axes.

    For functions of the host, whose programs do not state the sharding of every product.
    """

    def lay(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or isinstance(leaf, jax.core.Tracer):
            return leaf
        sharding = leaf.sharding
        if not isinstance(sharding, NamedSharding) or AxisType.Explicit not in sharding.mesh.axis_types:
            return leaf
        return jax.device_put(leaf, NamedSharding(Mesh(sharding.mesh.devices, sharding.mesh.axis_names), sharding.spec))

    return jax.tree.map(lay, tree)


def product_sharding(left: jax.Array, right: jax.Array, rows: int, columns: int) -> NamedSharding | None:
    """The sharding of a product whose rows are axis `rows` of `left` and whose columns are axis `columns` of `right`.

    JAX requires it where an axis that is summed over lies over an *explicit* mesh (JAX's term): the sum is then
    replicated along it. None where no operand lies over such a mesh, and for every other mesh.
    """
    shardings = [jax.typeof(operand).sharding for operand in (left, right)]
    explicit = [s.mesh for s in shardings if AxisType.Explicit in s.mesh.axis_types]
    if not explicit:
        return None
    row, column = shardings[0].spec[rows], shardings[1].spec[columns]
    return NamedSharding(explicit[0], P(row, None if row == column else column))


def register_class(cls: type[T]) -> type[T]:
    """Register a frozen dataclass as a pytree; fields with the metadata `static` belong to its structure.

    For classes that share their fields. `jax.tree_util.register_dataclass` compares only fields, not the class (JAX
    0.10 to 0.12): `jit` may then run the program of one class for another, depending on the hashes of the process.
    """
    static = [f.name for f in fields(cls) if f.metadata.get("static")]  # type: ignore[arg-type]
    data = [f.name for f in fields(cls) if f.name not in static]  # type: ignore[arg-type]

    def flatten(value: T) -> tuple[list[Any], tuple[Any, ...]]:
        return [getattr(value, name) for name in data], tuple(getattr(value, name) for name in static)

    def flatten_with_keys(value: T) -> tuple[list[Any], tuple[Any, ...]]:
        return [(GetAttrKey(name), getattr(value, name)) for name in data], flatten(value)[1]

    def unflatten(structure: tuple[Any, ...], children: Any) -> T:
        return cls(**dict(zip(data, children)), **dict(zip(static, structure)))

    register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls
