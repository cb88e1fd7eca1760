"""Compile in little time what runs for little time."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import jax

# Debug options of XLA, which may go with any of its releases.
OPTIONS = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}


def quickly(function: Callable[..., Any], options: dict[str, Any] = OPTIONS) -> Callable[..., Any]:
    """`jax.jit(function)`, compiled with little effort; as usual where XLA does not know the options."""
    quick, usual = jax.jit(function, compiler_options=options), jax.jit(function)

    @wraps(function)
    def run(*args: Any) -> Any:
        try:
            return quick(*args)
        except jax.errors.JaxRuntimeError as error:
            if "No such compile option" not in str(error):
                raise
            return usual(*args)

    return run
