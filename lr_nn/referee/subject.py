"""The function under audit: its arguments apart into arrays and the rest, at points of any precision."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn.referee.jaxprs import is_float, is_known
from lr_nn.referee.points import AS_GIVEN, FAR_OUT, Point, far_points

# Bytes of a number that JAX narrows where float64 is off.
WIDE = np.dtype(np.float64).itemsize
ARRAYS = (np.ndarray, np.generic, jax.Array)
HOST = "audit runs on the host and takes concrete arrays; call it outside jit, grad and vmap"


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


def is_of_two_types(error: Exception) -> bool:
    """Whether an error of JAX is that of an array traced in two types."""
    return any(words in str(error) for words in ("same dtypes", "verifier errors"))


def held(function: Callable, kinds: str) -> list[str]:
    """Names of the 64-bit arrays of NumPy, of the `kinds` of dtype given, that a function takes from around it.

    JAX keeps such an array in the type in which it was first traced, float64 on or off.
    """
    return sorted(_held(function, kinds, set()))


def _held(function: Callable, kinds: str, visited: set[int]) -> set[str]:
    function = inspect.unwrap(function.func if isinstance(function, partial) else function)
    if not inspect.isfunction(function) or id(function) in visited:
        return set()
    if (function.__module__ or "").split(".")[0] in ("jax", "numpy"):
        return set()
    visited.add(id(function))
    around = inspect.getclosurevars(function)
    found = {**around.globals, **around.nonlocals}
    names = {
        name
        for name, item in found.items()
        if isinstance(item, np.ndarray) and item.dtype.itemsize == WIDE and item.dtype.kind in kinds
    }
    return names.union(*(_held(item, kinds, visited) for item in found.values() if callable(item)))


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
        return [given, *far_points(given, seed), *(self.point(name, at[0], at[1:]) for name, at in further.items())]

    def bind(self, function: Callable) -> Callable:
        """`function(params, *args)` as a function of (params, arrays)."""

        def bound(params: Any, arrays: tuple[Any, ...]) -> Any:
            rest = iter(arrays)
            args = jax.tree.unflatten(self.tree, [next(rest) if is_array(leaf) else leaf for leaf in self.leaves])
            return function(params, *args)

        return bound

    def held(self, kinds: str) -> list[str]:
        """Names of the 64-bit arrays of NumPy that the two functions take from around them."""
        return [*held(self.value_fn, kinds), *held(self.gradient_fn, kinds)]

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
