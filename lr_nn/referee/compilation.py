"""Compile programs that run for less time than they take to compile."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import jax

# XLA's debug options for the least effort. A release may drop any of them, so `known_options` asks for each.
FAST_OPTIONS = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}


def fast_compile(function: Callable[..., Any], options: dict[str, Any] = FAST_OPTIONS) -> Callable[..., Any]:
    """`jax.jit(function)`, compiled with little effort: with those of the options that this release of XLA knows."""

    @cache
    def program() -> Callable[..., Any]:
        return jax.jit(function, compiler_options=known_options(tuple(options.items())))

    @wraps(function)
    def run(*args: Any) -> Any:
        return program()(*args)

    return run


@cache
def known_options(options: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    """Those of the options with which XLA compiles an empty program; a process asks once.

    An option that XLA refuses fails before compilation, in 2 ms; one that it knows costs a compilation of 6 ms.
    """
    empty = jax.jit(lambda: None).lower()

    def compiles(options: tuple[tuple[str, Any], ...]) -> bool:
        try:
            empty.compile(compiler_options=dict(options))
        except jax.errors.JaxRuntimeError:
            return False
        return True

    return dict(options if compiles(options) else [option for option in options if compiles((option,))])
