"""Monte-Carlo arithmetic: the rounding error that a program must expect, entry by entry.

Each operation of the program is run in float64 and its result multiplied by 1 + ε ξ with ξ uniform in [-1, 1]; so are
the terms of every sum. The spread of the results is the error that the same program has in arithmetic of unit
roundoff ε, cancellation and amplification included (Parker, Monte Carlo Arithmetic, 1997; Higham, Accuracy and
Stability of Numerical Algorithms, section 2.8 on the model).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from lr_nn.referee.jaxprs import EXACT, is_float

# Random roundings of a program; the root mean square of six is within a factor of two of its limit.
DRAWS = 6
# Random numbers that all operations share, and the step, a prime, between the places where two of them start.
POOL = 1 << 14
STRIDE = 7919
# Operations whose program is opened and rounded inside.
CALLS = ("jit", "closed_call", "core_call", "checkpoint", "remat2", "custom_jvp_call", "custom_vjp_call")
# Sums, whose terms are rounded each.
TERMS = ("dot_general", "reduce_sum", "cumsum", "conv_general_dilated")


@dataclass
class Roundings:
    """Multiplies each number by 1 + ε ξ, with other ξ at every turn, cut from one pool of random numbers."""

    epsilon: jax.Array
    pool: jax.Array
    turn: int = 0

    def __call__(self, value: Any) -> Any:
        """The number rounded, or what is no floating-point number as it is."""
        if not is_float(value):
            return value
        self.turn += 1
        start, size = self.turn * STRIDE % POOL, min(jnp.size(value), POOL)
        draws = jnp.resize(self.pool[start : start + size], jnp.shape(value))
        return value * (1 + self.epsilon * draws).astype(jnp.result_type(value))


def run(program: Jaxpr, constants: Any, rounded: Roundings, *arguments: Any) -> list[Any]:
    """The results of a program whose every operation is `rounded`."""
    values = dict(zip([*program.constvars, *program.invars], [*constants, *arguments]))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in program.eqns:
        name, operands = equation.primitive.name, [read(atom) for atom in equation.invars]
        inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
        if name in CALLS and inner is not None:
            results = run(*_opened(inner), rounded, *operands)
        elif name == "scan":
            results = _scan(equation.params, rounded, operands)
        else:
            if name in TERMS:
                operands = [rounded(operand) for operand in operands]
            bound = equation.primitive.bind(*operands, **equation.params)
            results = bound if equation.primitive.multiple_results else [bound]
            if name not in EXACT:
                results = [rounded(result) for result in results]
        values.update(zip(equation.outvars, results))
    return [read(atom) for atom in program.outvars]


def _opened(program: ClosedJaxpr | Jaxpr) -> tuple[Jaxpr, Any]:
    return (program.jaxpr, program.consts) if isinstance(program, ClosedJaxpr) else (program, ())


def _scan(parameters: Any, rounded: Roundings, operands: list[Any]) -> list[Any]:
    """A scan whose body is rounded, alike in each of its turns."""
    constants, carried = parameters["num_consts"], parameters["num_carry"]
    shared, carry, rows = (
        operands[:constants],
        operands[constants : constants + carried],
        operands[constants + carried :],
    )

    def body(carry: Any, row: Any) -> Any:
        results = run(*_opened(parameters["jaxpr"]), rounded, *shared, *carry, *row)
        return results[:carried], results[carried:]

    last, stacked = jax.lax.scan(body, carry, rows, length=parameters["length"], reverse=parameters["reverse"])
    return [*last, *stacked]


def expected_error(function: Callable) -> Callable[..., list[np.ndarray]]:
    """A function of (ε, *arguments): the root mean square rounding error of each leaf of `function`'s result."""

    @jax.jit
    def spread(epsilon: jax.Array, pools: jax.Array, *arguments: Any) -> list[jax.Array]:
        program = jax.make_jaxpr(function)(*arguments)

        def drawn(pool: jax.Array) -> list[jax.Array]:
            return run(program.jaxpr, program.consts, Roundings(epsilon, pool), *jax.tree.leaves(arguments))

        draws = [leaf.astype(jnp.float64) for leaf in jax.lax.map(drawn, pools)]
        return [jnp.sqrt(jnp.mean((leaf[1:] - leaf[:1]) ** 2, axis=0)) for leaf in draws]

    # The first draw rounds nothing.
    pools = np.random.default_rng(0).uniform(-1, 1, (1 + DRAWS, 2 * POOL)) * (np.arange(1 + DRAWS) > 0)[:, None]
    return lambda epsilon, *arguments: [np.asarray(leaf) for leaf in spread(float(epsilon), pools, *arguments)]
