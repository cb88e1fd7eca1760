"""The parts of a loss or an activation traced one by one, so that a part that raises leaves the others audited."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.extend.core import jaxpr_as_fun

from lr_nn.referee.compilation import fast_compile
from lr_nn.referee.jaxprs import eps, narrowest

Part = Callable[..., Any]


@dataclass
class Evaluation:
    """Results of the parts that ran, by name, and what the others raised."""

    results: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    units: dict[str, float] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.results

    def __getitem__(self, name: str) -> Any:
        return self.results[name]


def described(error: Exception) -> str:
    """The type of an exception and the first line of its message."""
    if isinstance(error, jax.errors.TracerBoolConversionError):
        return "an `if` on values cannot be traced by JAX: use jnp.where"
    lines = str(error).strip().splitlines()
    return f"raised {type(error).__name__}: {lines[0][:160] if lines else ''}".rstrip(": ")


def quiet(x64: bool | None = None) -> ExitStack:
    """A context in which JAX does not stop at NaN or infinity; with float64 on or off, or as it is where None."""
    stack = ExitStack()
    stack.enter_context(jax.debug_nans(False))
    stack.enter_context(jax.debug_infs(False))
    if x64 is not None:
        stack.enter_context(jax.enable_x64(x64))
    stack.enter_context(np.errstate(all="ignore"))
    return stack


def shape_problem(part: Part, args: tuple[Any, ...], shape: tuple[int, ...]) -> tuple[str, Any]:
    """Why a part returns no array of this shape, "" if it does; and the dtype of that array. Nothing is computed."""
    try:
        found = jax.eval_shape(part, *args)
    except Exception as error:  # whatever a user's function says
        return described(error), None
    if not hasattr(found, "shape"):
        return f"returns {type(found).__name__}, not an array", None
    if found.shape != shape:
        return f"returns shape {found.shape}; expected {shape}", None
    return "", found.dtype


def evaluate(parts: Mapping[str, Part], *args: Any) -> Evaluation:
    """Every part at the same arguments, in one compiled program, as NumPy arrays.

    `units` holds the epsilon of the narrowest type that a part rounds to. Where the program of all parts fails, each
    runs by itself.
    """
    found = Evaluation()
    programs: dict[str, tuple[Callable, Any]] = {}
    for name, part in parts.items():
        try:
            traced, shapes = jax.make_jaxpr(part, return_shape=True)(*args)
        except Exception as error:  # whatever a user's function says
            found.failures[name] = described(error)
            continue
        programs[name] = (jaxpr_as_fun(traced), jax.tree.structure(shapes))
        found.units[name] = eps(narrowest(traced.jaxpr))
    try:
        found.results |= _run(programs, args)
    except Exception:  # of one part, which is found below
        for name, program in programs.items():
            try:
                found.results |= _run({name: program}, args)
            except Exception as error:
                found.failures[name] = described(error)
    return found


def _run(programs: Mapping[str, tuple[Callable, Any]], args: Any) -> dict[str, Any]:
    def together(*leaves: Any) -> dict[str, Any]:
        return {name: jax.tree.unflatten(tree, run(*leaves)) for name, (run, tree) in programs.items()}

    results = fast_compile(together)(*jax.tree.leaves(args)) if programs else {}
    return jax.tree.map(_wide, results)


def _wide(array: Any) -> np.ndarray:
    """An array as float64; bfloat16 is no type of NumPy's own."""
    return np.asarray(array).astype(np.float64)
