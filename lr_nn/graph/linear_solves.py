"""`jax.lax.custom_linear_solve`, of which `jnp.linalg.solve` and `inv` are made, as one node.

A(p) x = b,    b̄ = A⁻ᵀ x̄,    p̄ = -the adjoint of p in A(p) x, from b̄
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.extend.core import JaxprEqn

from lr_nn.graph.node import Tape
from lr_nn.graph.rules.base import Rule
from lr_nn.graph.rules.complex_numbers import conjugate, is_complex
from lr_nn.graph.sweep import sweep

NAME = "custom_linear_solve"


def kept(eqn: JaxprEqn, active: Sequence[bool], record: Callable[..., Tape]) -> Rule:
    """The rule of a system whose operands are `active` or not; `record` carries out a program."""
    programs, lengths = eqn.params["jaxprs"], eqn.params["const_lengths"]
    ends = np.cumsum(lengths)
    of_product, of_solve, of_transposed = slice(0, ends[0]), slice(ends[1], ends[2]), slice(ends[2], ends[3])

    complex_out = [is_complex(getattr(variable.aval, "dtype", None)) for variable in eqn.outvars]

    def carried_out(program: Any, operands: Sequence[np.ndarray]) -> list[np.ndarray]:
        tape = record(program, operands, [False] * len(operands))
        return [tape.nodes[i].value for i in tape.outputs]

    def forward(*operands):
        return tuple(carried_out(programs.solve, [*operands[of_solve], *operands[ends[3] :]]))

    def derivative(g, value, *operands):
        seeds, solution = (list(each) if isinstance(each, tuple) else [each] for each in (g, value))
        found = carried_out(programs.transpose_solve, [*operands[of_transposed], *map(conjugate, seeds, complex_out)])
        by_right = list(map(conjugate, found, complex_out))
        gains: list[Any] = [None] * len(operands)
        gains[ends[3] :] = by_right
        parameters = list(operands[of_product])
        moving = [*active[of_product], *[False] * len(solution)]
        tape = record(programs.matvec, [*parameters, *solution], moving)
        adjoints = sweep(tape, [-gain for gain in by_right])
        gains[of_product] = [adjoints.get(i) for i in tape.inputs[: len(parameters)]]
        return gains

    texts = tuple(f"{{bar}} ∂{{out}}/∂{{{k}}}" if a else "" for k, a in enumerate(active))
    return Rule("linear_solve", forward, derivative, "A⁻¹ b of ({operands})", texts)
