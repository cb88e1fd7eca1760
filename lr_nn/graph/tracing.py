"""`trace`: from a function and its arguments to its graph."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn.graph import calls, control_flow, keys
from lr_nn.graph.graph import Graph
from lr_nn.graph.record import Recorder
from lr_nn.graph.rules import Rule
from lr_nn.graph.rules.base import is_float, kind_of

__all__ = ["trace"]

OPENABLE = (*calls.OPENABLE, *control_flow.KINDS)


def trace(fn: Callable[..., Any], *args: Any, opened: Iterable[str] = ("jit",), rules: Iterable[Rule] = ()) -> Graph:
    """The computation graph of `fn(*args)`: every operation with its value, ready for `backward`.

        v_i = φ_i(operands of v_i),    v̄_i = Σ_{j uses i} v̄_j ∂φ_j/∂v_i

    fn: an ordinary JAX function of arrays in pytrees. args: its arguments; arrays of integers and booleans, and random
    keys, are data, by which nothing is differentiated. NumPy carries out each operation by a rule of this package, in
    the dtype that JAX would give it; JAX carries out an operation that has no rule and needs no derivative, such as a
    random draw. `jax.ad_checkpoint.checkpoint_name` names a node; this package's networks name z_l, a_l and δ_l.

    opened: the kinds to open, of "jit" (`checkpoint` among them), "custom_jvp", "custom_vjp", "scan", "while" and
    "cond"; a `fori_loop` is a scan or a while. An opened loop becomes the nodes of all its steps, an opened "cond"
    those of its chosen branch. The other kinds are kept as one node each. A `custom_jvp` or `custom_vjp` that is kept
    obeys the derivative of its author; opened, its body is differentiated and that derivative passed over.
    rules: rules of your own, by `graph.rule`, before the built-in ones.

    Raises TypeError for arguments without a derivative (whole numbers of Python, complex numbers, text), tracers, and
    functions that JAX cannot trace; NotImplementedError for an operation without a rule, by name, with the line to
    add one.

    >>> from lr_nn import graph
    >>> g = graph.trace(lambda a, b, c: 3 * (a + b * c), 5.0, 3.0, 2.0)
    >>> [float(adjoint) for adjoint in g.backward()]
    [3.0, 6.0, 9.0]
    >>> [(node.name, float(node.value), float(node.adjoint)) for node in g.nodes if node.op == "mul"]
    [('v3', 6.0, 3.0), ('v6', 33.0, 1.0)]
    """
    if not callable(fn):
        raise TypeError(f"fn must be a function; got {fn!r:.100}")
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(args)):
        raise TypeError("graph.trace runs on the host and cannot be traced; call it outside jit, grad and vmap")
    kinds = _kinds(opened)
    table = _table(rules)
    paths = _admit(fn, args)
    program, results = _program(fn, args)
    recorder = Recorder(kinds, table)
    leaves = [
        recorder.input(name, leaf, kind_of(variable).dtype, active=True)
        for (name, leaf), variable in zip(paths, program.jaxpr.invars)
    ]
    tape = recorder.finish(recorder.run(program, leaves))
    return Graph(tape, tuple(jax.tree.structure(argument) for argument in args), results)


def _program(fn: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, Any]:
    """The jaxpr of fn at args, and the structure of what it returns."""
    try:
        program, shapes = jax.make_jaxpr(fn, return_shape=True)(*args)
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError) as error:
        raise TypeError(f"{_called(fn)} cannot be traced: it {_reason(error)}") from error
    return program, jax.tree.structure(shapes)


def _reason(error: Exception) -> str:
    if isinstance(error, jax.errors.TracerArrayConversionError):
        return "hands an argument, or what came of it, to NumPy: call the function of that name in jax.numpy"
    if isinstance(error, jax.errors.TracerBoolConversionError):
        return "chooses by the value of an array (if, while, and, or): choose by jnp.where, or by something static"
    if isinstance(error, (jax.errors.TracerIntegerConversionError, jax.errors.NonConcreteBooleanIndexError)):
        return "needs the value of an array for an index, a shape or a mask: pass that as a constant, fixed in fn"
    if isinstance(error, jax.errors.UnexpectedTracerError):
        return "uses an array that another trace left behind: let fn return what it computes, and keep nothing"
    return "needs the value of an array in Python (float(x), int(x), math.sin(x)): use jax.numpy on arrays"


def _admit(fn: Callable[..., Any], args: tuple[Any, ...]) -> list[tuple[str, Any]]:
    """The leaves of the arguments with their names, all of them arrays or floats, one a float at least."""
    leaves = []
    for name, argument in zip(_names(fn, args), args):
        for path, leaf in jax.tree_util.tree_leaves_with_path(argument):
            leaves.append((name + jax.tree_util.keystr(path), keys.data_of(leaf)))
    for name, leaf in leaves:
        _admit_leaf(name, leaf)
    if not any(is_float(jnp.result_type(leaf)) for _, leaf in leaves):
        given = ", ".join(f"{name} {jnp.result_type(leaf)}" for name, leaf in leaves) or "no arrays"
        raise TypeError(f"nothing to differentiate by: {_called(fn)} was given {given}; pass an argument of floats")
    return leaves


def _admit_leaf(name: str, leaf: Any) -> None:
    if isinstance(leaf, bool):
        raise TypeError(f"argument {name!r} is {leaf}, which has no derivative: fix it, `lambda *a: fn(*a, {leaf})`")
    if isinstance(leaf, int):
        raise TypeError(f"argument {name!r} is the integer {leaf}, which has no derivative: pass {leaf}.0")
    if not isinstance(leaf, (float, complex, np.ndarray, np.generic, jax.Array)):
        raise TypeError(f"argument {name!r} must be an array of real numbers; got {leaf!r:.60}: fix it by a lambda")
    if isinstance(leaf, np.ma.MaskedArray):
        raise TypeError(f"argument {name!r} is a masked array, and would lose its mask: pass its .filled(0.0), say")
    dtype = jnp.result_type(leaf) if isinstance(leaf, (float, complex)) else leaf.dtype
    if dtype.kind == "c":
        raise TypeError(f"argument {name!r} is complex, and a graph is of real numbers: pass its parts as two arrays")
    if dtype.kind not in "biuf" and not is_float(dtype):
        raise TypeError(f"argument {name!r} must be an array of real numbers; got dtype {dtype}")
    if dtype.itemsize > 8 or not dtype.isnative:
        raise TypeError(f"argument {name!r} has dtype {dtype}, which JAX has not: pass it .astype(np.float64)")


def _names(fn: Callable[..., Any], args: tuple[Any, ...]) -> list[str]:
    """What the function calls its arguments; x0, x1, ... where that cannot be found out."""
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        return [f"x{k}" for k in range(len(args))]
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    names = names[: len(args)]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "x")
    return names + [f"{rest}[{k}]" for k in range(len(args) - len(names))]


def _called(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__name__", None) or type(fn).__name__


def _kinds(opened: Iterable[str]) -> frozenset[str]:
    if not isinstance(opened, Iterable):
        raise TypeError(f"opened must hold kinds of calls and of control flow, of {OPENABLE}; got {opened!r:.60}")
    kinds = (opened,) if isinstance(opened, str) else tuple(opened)
    unknown = [kind for kind in kinds if kind not in OPENABLE]
    if unknown:
        raise ValueError(f"opened must hold kinds of calls and of control flow, of {OPENABLE}; got {unknown[0]!r}")
    return frozenset(kinds)


def _table(rules: Iterable[Rule]) -> dict[str, Rule]:
    rules = tuple(rules) if isinstance(rules, Iterable) else (rules,)
    for row in rules:
        if not isinstance(row, Rule):
            raise TypeError(f"rules must be made by graph.rule(operation, forward, derivative); got {row!r:.100}")
    return {row.operation: row for row in rules}
