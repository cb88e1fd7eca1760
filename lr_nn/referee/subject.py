"""The function under audit: its arguments apart into arrays and the rest, at points of any precision."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn.referee.jaxprs import is_float, is_known

# What the parameters are multiplied by: nearly linear, saturated, and beyond what a naive exponential bears.
EXTREMES = {"parameters x 1e-3": 1e-3, "parameters x 30": 30.0, "parameters x 1e4": 1e4}
FAR_INPUTS, FAR = "inputs x 100", 100.0
AS_GIVEN = "as given"
FAR_OUT = (*EXTREMES, FAR_INPUTS)
MOVE = 0.1

ARRAYS = (np.ndarray, np.generic, jax.Array)
HOST = "audit runs on the host and takes concrete arrays; call it outside jit, grad and vmap"


class Point(NamedTuple):
    """Where a gradient is audited: parameters and the arrays among the further arguments."""

    name: str
    params: Any
    arrays: tuple[Any, ...]

    def cast(self, dtype: Any) -> Point:
        """The same point with every floating-point array of type `dtype`."""

        def to(leaf: Any) -> Any:
            return np.asarray(leaf).astype(dtype) if is_float(leaf) else leaf

        with np.errstate(over="ignore"):
            return Point(self.name, *jax.tree.map(to, (self.params, self.arrays)))


def is_array(leaf: Any) -> bool:
    """Whether an argument is data; Python's own numbers, strings and objects are settings and stay as they are."""
    return isinstance(leaf, ARRAYS) and is_known(leaf)


def is_number(leaf: Any) -> bool:
    """Whether something holds numbers that JAX knows."""
    return isinstance(leaf, (bool, int, float, complex)) or is_array(leaf)


def is_real(leaf: Any) -> bool:
    """Whether something holds real numbers."""
    kinds = (jnp.floating, jnp.integer, jnp.bool_)
    return is_number(leaf) and any(jnp.issubdtype(jnp.result_type(leaf), kind) for kind in kinds)


def kind(leaf: Any) -> str:
    """The type of an array's entries, or of what is no array."""
    return str(getattr(leaf, "dtype", type(leaf).__name__))


def admit(name: str, leaf: Any) -> None:
    """Refuse parameters that are not finite arrays of real floating-point numbers."""
    if isinstance(leaf, jax.core.Tracer):
        raise TypeError(HOST)
    if isinstance(leaf, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, and would lose its mask: pass {name}.filled(0.0), say")
    if not isinstance(leaf, (float, *ARRAYS)) or not is_float(leaf):
        numeric = isinstance(leaf, (np.ndarray, np.generic)) and leaf.dtype.kind in "iuf"
        hint = ": pass it .astype(np.float64)" if numeric else ""
        raise TypeError(f"{name} must hold real floating-point numbers; got {kind(leaf)}{hint}")
    if not np.isfinite(np.asarray(leaf, np.float64)).all():
        raise ValueError(f"{name} holds NaN or infinity: audit at a finite point")


def held(function: Callable) -> list[str]:
    """The float64 arrays of NumPy that a function takes from around it, by name."""
    try:
        around = inspect.getclosurevars(function)
    except TypeError:  # a builtin, a partial, an object that is called
        return []
    found = {**around.globals, **around.nonlocals}
    return [name for name, item in found.items() if isinstance(item, np.ndarray) and item.dtype == np.float64]


def size(leaf: Any) -> float:
    """The root mean square of a leaf's entries; 1 where all are zero."""
    return float(np.sqrt(np.mean(np.square(leaf, dtype=np.float64)))) or 1.0 if np.size(leaf) else 1.0


def off_zero(params: Any, seed: int) -> Any:
    """Parameters with small random numbers for every leaf that is all zero.

    At zero a missing factor or penalty does not show, and no multiple of it saturates.
    """
    rng = np.random.default_rng(seed)

    def moved(leaf: Any) -> Any:
        leaf = np.asarray(leaf)
        return leaf if leaf.any() else np.asarray(MOVE * rng.standard_normal(leaf.shape)).astype(leaf.dtype)

    return jax.tree.map(moved, params)


def is_input(array: Any) -> bool:
    """Whether an array holds numbers that may be of any size; what lies in [0, 1] may be labels or probabilities."""
    return is_float(array) and not bool(np.all((np.asarray(array) >= 0) & (np.asarray(array) <= 1)))


def scale(params: Any, by: float) -> Any:
    """Parameters times a number, in their own types."""
    with np.errstate(over="ignore"):
        return jax.tree.map(lambda leaf: np.asarray(leaf) * np.asarray(by, np.asarray(leaf).dtype), params)


@dataclass(frozen=True)
class Subject:
    """A value and its gradient, as functions of (params, arrays)."""

    value_fn: Callable
    gradient_fn: Callable
    tree: Any
    leaves: tuple[Any, ...]
    names: tuple[str, ...]
    structure: Any
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, value_fn: Callable, gradient_fn: Callable, params: Any, args: tuple[Any, ...]) -> Subject:
        """Check the parameters, and part the arrays of `args` from its settings."""
        for name, function in (("value_fn", value_fn), ("gradient_fn", gradient_fn)):
            if not callable(function):
                raise TypeError(f"{name} must be a function of (params, *args); got {type(function).__name__}")
        paths, structure = jax.tree_util.tree_flatten_with_path(params)
        names = tuple(f"params{jax.tree_util.keystr(path)}" for path, _ in paths)
        if not paths:
            raise ValueError("params has no leaves: there is no gradient to audit")
        for name, (_, leaf) in zip(names, paths):
            admit(name, leaf)
        leaves, tree = jax.tree.flatten(args)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            raise TypeError(HOST)
        for leaf in leaves:
            if isinstance(leaf, (np.ndarray, np.generic)) and leaf.dtype.kind in "iufc" and not is_known(leaf):
                raise TypeError(f"args hold an array of {leaf.dtype}, which JAX has not: pass it .astype(np.float64)")
        shapes = tuple(np.shape(leaf) for _, leaf in paths)
        return cls(value_fn, gradient_fn, tree, tuple(leaves), names, structure, shapes)

    def point(self, name: str, params: Any, args: tuple[Any, ...]) -> Point:
        """A further point, of the structure, the shapes and the settings of the audit's own."""
        leaves, tree = jax.tree.flatten(args)
        found: tuple[Any, Any] = (tree, jax.tree.structure(params))
        if found != (self.tree, self.structure):
            raise ValueError(f"point {name!r} must be (params, *args) of the structure that the audit was called with")
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            raise TypeError(HOST)
        for own, leaf in zip(self.leaves, leaves):
            if is_array(own) != is_array(leaf) or not (is_array(own) or own is leaf or own == leaf):
                raise ValueError(
                    f"point {name!r} must keep the settings that the audit was called with, {own!r:.60}; got "
                    f"{leaf!r:.60}: arrays are data and may change, numbers of Python and strings may not"
                )
        for leaf_name, shape, leaf in zip(self.names, self.shapes, jax.tree.leaves(params)):
            admit(f"point {name!r}: {leaf_name}", leaf)
            if np.shape(leaf) != shape:
                raise ValueError(f"point {name!r} must have shape {shape} at {leaf_name}; got {np.shape(leaf)}")
        return Point(str(name), params, tuple(leaf for leaf in leaves if is_array(leaf)))

    def points(self, params: Any, further: Mapping[str, tuple[Any, ...]], seed: int) -> list[Point]:
        """The given point, the extremes and the user's further points."""
        if not isinstance(further, Mapping):
            raise TypeError(f"points must be a dict from names to tuples (params, *args); got {kind(further)}")
        for name, at in further.items():
            if not isinstance(at, tuple) or not at:
                raise ValueError(f"point {name!r} must be a tuple (params, *args); got {kind(at)}")
            if name in (AS_GIVEN, *FAR_OUT):
                raise ValueError(f"point {name!r} is one of the audit's own: give yours another name")
        given = Point(AS_GIVEN, params, tuple(leaf for leaf in self.leaves if is_array(leaf)))
        moved = off_zero(given.params, seed)
        scaled = [Point(name, scale(moved, by), given.arrays) for name, by in EXTREMES.items()]
        if any(map(is_input, given.arrays)):
            inputs = tuple(scale(array, FAR) if is_input(array) else array for array in given.arrays)
            scaled.append(Point(FAR_INPUTS, given.params, inputs))
        return [given, *scaled, *(self.point(name, at[0], at[1:]) for name, at in further.items())]

    def bind(self, function: Callable) -> Callable:
        """`function(params, *args)` as a function of (params, arrays)."""

        def bound(params: Any, arrays: tuple[Any, ...]) -> Any:
            rest = iter(arrays)
            args = jax.tree.unflatten(self.tree, [next(rest) if is_array(leaf) else leaf for leaf in self.leaves])
            return function(params, *args)

        return bound

    def product(self, function: Callable) -> Callable:
        """`function(params, v, *args)` as a function of (params, arrays, v)."""
        return lambda params, arrays, v: self.bind(lambda params, *args: function(params, v, *args))(params, arrays)

    def value(self, params: Any, arrays: tuple[Any, ...]) -> Any:
        """The value, which must be one real number."""
        result = self.bind(self.value_fn)(params, arrays)
        if not is_number(result) or jnp.shape(result) != ():
            got = jax.tree.map(lambda leaf: jnp.shape(leaf) if is_number(leaf) else kind(leaf), result)
            raise ValueError(f"value_fn must return one number, of shape (); got {got}")
        if not jnp.issubdtype(jnp.result_type(result), jnp.inexact):
            raise ValueError(f"value_fn must return a floating-point number; got {jnp.result_type(result)}")
        return result

    def gradient(self, params: Any, arrays: tuple[Any, ...]) -> Any:
        """The gradient under audit, which must look like the parameters."""
        result = self.bind(self.gradient_fn)(params, arrays)
        return self.like_params(result, "gradient_fn")

    def unravel(self, flat: np.ndarray) -> Any:
        """One long vector in the structure of the parameters."""
        parts = np.split(flat, np.cumsum([prod(shape) for shape in self.shapes])[:-1])
        leaves = [part.reshape(shape) for part, shape in zip(parts, self.shapes)]
        return jax.tree.unflatten(self.structure, leaves)

    def like_params(self, tree: Any, name: str) -> Any:
        """`tree`, if it has the structure and the shapes of the parameters."""
        if jax.tree.structure(tree) != self.structure:
            hint = "; a function of (value, gradient)? pass lambda *a: f(*a)[1]" if isinstance(tree, tuple) else ""
            raise ValueError(
                f"{name} must return the structure of params, {self.structure}; got {jax.tree.structure(tree)}{hint}"
            )
        for leaf_name, shape, leaf in zip(self.names, self.shapes, jax.tree.leaves(tree)):
            if jnp.shape(leaf) != shape:
                raise ValueError(f"{name} must return shape {shape} at {leaf_name}; got {jnp.shape(leaf)}")
            if not is_real(leaf):
                raise TypeError(f"{name} must return real numbers at {leaf_name}; got {kind(leaf)}")
        return tree
