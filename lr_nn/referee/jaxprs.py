"""What a program of JAX is made of: its operations, nested ones included, and how long its longest sum is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

SUMS = ("reduce_sum", "reduce_window_sum")
RUNNING_SUMS = ("cumsum", "cumlogsumexp", "conv_general_dilated")
# Operations that round nothing; a conversion rounds if it is to a narrower type.
EXACT = {
    *("neg", "abs", "sign", "max", "min", "reduce_max", "reduce_min", "clamp", "select_n", "copy", "stop_gradient"),
    *("reshape", "transpose", "broadcast_in_dim", "squeeze", "expand_dims", "slice", "dynamic_slice", "gather"),
    *("concatenate", "pad", "rev", "split", "convert_element_type", "iota", "floor", "ceil", "round", "sort"),
}
# Not complex-differentiable, or ordered by a rule that complex numbers have not.
NOT_HOLOMORPHIC = {
    *("abs", "sign", "real", "imag", "conj", "max", "min", "clamp", "sort", "floor", "ceil", "round"),
    *("reduce_max", "reduce_min", "argmax", "argmin", "cummax", "cummin", "gt", "ge", "lt", "le"),
}


def nested(equation: Any) -> Iterator[Jaxpr]:
    """The programs that an operation holds: the body of a jit, of a scan, the branches of a cond."""
    for parameter in equation.params.values():
        for value in parameter if isinstance(parameter, (tuple, list)) else (parameter,):
            if isinstance(value, ClosedJaxpr):
                yield value.jaxpr
            elif isinstance(value, Jaxpr):
                yield value


def equations(program: Jaxpr) -> Iterator[Any]:
    """Every operation of a program, depth first."""
    for equation in program.eqns:
        yield equation
        for inner in nested(equation):
            yield from equations(inner)


def eps(dtype: Any) -> float:
    """Twice the unit roundoff of a type."""
    return float(jnp.finfo(dtype).eps)


def is_float(value: Any) -> bool:
    """Whether an array, a scalar or an abstract value holds real floating-point numbers of a type that JAX knows."""
    return is_known(value) and jnp.issubdtype(jnp.result_type(value), jnp.floating)


def is_known(value: Any) -> bool:
    """Whether JAX has the type of an array; it has no strings, no objects and no foreign byte order."""
    try:
        jnp.result_type(value)
    except TypeError:
        return False
    return True


def _terms(equation: Any) -> int:
    """Terms that one number of a sum's result is made of; 1 for what is no sum."""
    name, operands = equation.primitive.name, [variable.aval for variable in equation.invars]
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return prod(operands[0].shape[axis] for axis in contracted)
    if name == "scan":
        return equation.params["length"] * longest_sum(next(nested(equation)))
    if name in SUMS:
        return max(1, operands[0].size // max(1, equation.outvars[0].aval.size))
    return operands[0].size if name in RUNNING_SUMS else 1


def longest_sum(program: Jaxpr) -> int:
    """Terms of the longest sum in a program: what its rounding bound grows with."""
    return max((_terms(equation) for equation in equations(program)), default=1)


def _rounds(equation: Any) -> bool:
    """Whether an operation rounds itself: a call does not, nor does a mask of zeros and ones in a narrow type."""
    if equation.primitive.name != "convert_element_type":
        return equation.primitive.name not in EXACT and not any(nested(equation))
    before, after = equation.invars[0].aval, equation.outvars[0].aval
    return is_float(before) and is_float(after) and eps(after.dtype) > eps(before.dtype)


def narrowest(program: Jaxpr) -> np.dtype:
    """The narrowest floating-point type that a program rounds to; float64 if to none."""
    kinds = [
        np.dtype(variable.aval.dtype)
        for equation in filter(_rounds, equations(program))
        for variable in equation.outvars
        if hasattr(variable.aval, "dtype") and is_float(variable.aval)
    ]
    return max(kinds, key=eps, default=np.dtype(np.float64))


def not_holomorphic(program: Jaxpr) -> str | None:
    """The first operation on complex numbers that has no complex derivative."""
    for equation in equations(program):
        kinds = [variable.aval.dtype for variable in equation.invars if hasattr(variable.aval, "dtype")]
        on_complex = any(jnp.issubdtype(kind, jnp.complexfloating) for kind in kinds)
        if on_complex and equation.primitive.name in NOT_HOLOMORPHIC:
            return equation.primitive.name
    return None


def compiled(function: Callable, *examples: Any) -> Callable:
    """`function` compiled, or on copies where JAX cannot trace it."""
    return on_copies(function) if program_of(function, *examples) is None else jax.jit(function)


def on_copies(function: Callable) -> Callable:
    """A function of NumPy that may write on what it is given, and hand back the same array again and again."""

    def called(*arguments: Any) -> Any:
        own = jax.tree.map(lambda leaf: leaf.copy() if isinstance(leaf, np.ndarray) else leaf, arguments)
        return jax.tree.map(lambda leaf: leaf if isinstance(leaf, jax.Array) else np.array(leaf), function(*own))

    return called


def program_of(function: Any, *arguments: Any) -> Jaxpr | None:
    """The program that JAX traces from a function, or None if it cannot be traced (one of NumPy, say)."""
    try:
        return on_its_own(jax.make_jaxpr(function)(*arguments))
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError, TypeError):
        return None


def on_its_own(program: ClosedJaxpr) -> Jaxpr:
    """A program that uses no value of a trace around it.

    Raises:
        ValueError: it uses one.
    """
    if any(isinstance(constant, jax.core.Tracer) for constant in program.consts):
        raise ValueError(
            "value_fn or gradient_fn uses an array of a trace around the audit, or one left behind; audit runs on the "
            "host: call it outside jit, grad and vmap"
        )
    return program.jaxpr
