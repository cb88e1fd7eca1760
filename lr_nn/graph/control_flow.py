"""Control flow of `jax.lax`: `scan`, `while` and `cond`, opened step by step, or kept as one node each.

A graph is of a function at its arguments, so the steps of a loop and the branch of a choice are known. A loop kept as
one node is swept from its last step to its first, each step by the reverse sweep of its own graph:

    c_{t+1}, y_t = body(p, c_t, x_t),    (p̄_t, c̄_t, x̄_t) = the adjoints of body from (c̄_{t+1}, ȳ_t),    p̄ = Σ_t p̄_t
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from lr_nn.graph.costs import work_of
from lr_nn.graph.node import Tape
from lr_nn.graph.rules.base import Kind, Rule, is_float, kind_of
from lr_nn.graph.sweep import sweep

KINDS = ("scan", "while", "cond")
# record(program, operands, active) -> Tape
Record = Callable[..., Tape]


class Loop(NamedTuple):
    """A loop: its body, and how its operands divide into those of its test, those of the body, carries and rows.

    length, reverse: of a `scan`. test: the program that says whether a `while` goes on, None of a `scan`.
    """

    body: ClosedJaxpr
    test: ClosedJaxpr | None
    test_operands: int
    body_operands: int
    carries: int
    length: int
    reverse: bool

    def split(self, operands: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any], Sequence[Any]]:
        """Operands of the test, of the body, carries, rows."""
        ends = np.cumsum([self.test_operands, self.body_operands, self.carries])
        first, second, third = ends
        return operands[:first], operands[first:second], operands[second:third], operands[third:]

    def row(self, step: int) -> int:
        """The row that a step of a `scan` takes."""
        return self.length - 1 - step if self.reverse else step

    def goes_on(self, step: int, operands: Sequence[np.ndarray], carry: Sequence[np.ndarray], record: Record) -> bool:
        """True if a step of this number follows from these carries."""
        if self.test is None:
            return step < self.length
        tape = record(self.test, [*operands, *carry], [False] * (len(operands) + len(carry)))
        return bool(_values(tape)[0])


def loop_of(eqn: JaxprEqn) -> Loop:
    """The loop that an equation makes."""
    params = eqn.params
    if eqn.primitive.name == "scan":
        return Loop(_closed(params["jaxpr"]), None, 0, *scan_counts(eqn), params["length"], params["reverse"])
    body, test = _closed(params["body_jaxpr"]), _closed(params["cond_jaxpr"])
    return Loop(body, test, params["cond_nconsts"], params["body_nconsts"], len(eqn.outvars), 0, False)


def scan_counts(eqn: JaxprEqn) -> tuple[int, int]:
    """The numbers of constants and of carried values of a scan, its first operands."""
    if "num_consts" in eqn.params:
        return eqn.params["num_consts"], eqn.params["num_carry"]
    constants, carries, _ = (len(list(part)) for part in eqn.params["ft_in"].unpack())  # from JAX 0.11 on
    return constants, carries


def branch_of(eqn: JaxprEqn, index: np.ndarray) -> ClosedJaxpr:
    """The branch of a `cond` at its index."""
    branches = eqn.params["branches"]
    return _closed(branches[int(np.clip(index, 0, len(branches) - 1))])


def opened(
    eqn: JaxprEqn,
    operands: Sequence[Any],
    source: str,
    run: Callable[..., list[Any]],
    value: Callable[[Any], np.ndarray],
    record: Record,
) -> list[Any]:
    """The results of the chosen branch, or of every step of a loop, whose operations `run` adds to the outer graph.

    operands: places in the outer graph; `value` gives the array at a place. source: the line that calls the loop.
    """
    if eqn.primitive.name == "cond":
        return run(branch_of(eqn, value(operands[0])), operands[1:])
    loop = loop_of(eqn)
    of_test, of_body, carry, rows = loop.split(operands)
    steps: list[Sequence[Any]] = []
    while loop.goes_on(len(steps), list(map(value, of_test)), list(map(value, carry)), record):
        row = loop.row(len(steps))
        take_row = partial(jax.lax.index_in_dim, index=row, keepdims=False)
        taken = [run(_program(take_row, value(x)), [x], source)[0] for x in rows]
        results = run(loop.body, [*of_body, *carry, *taken])
        carry = results[: loop.carries]
        steps.append(results[loop.carries :])
    ordered = steps[::-1] if loop.reverse else steps
    columns = [[step[k] for step in ordered] for k in range(len(eqn.outvars) - loop.carries)]
    for variable, column in zip(eqn.outvars[loop.carries :], columns):
        program = _program(partial(_stack, kind_of(variable)), *map(value, column))
        carry = [*carry, *run(program, column, source)]
    return list(carry)


def _stack(kind: Kind, *rows: jax.Array) -> jax.Array:
    """Rows as one array; without rows an empty array of this kind."""
    return jnp.stack(rows) if rows else jnp.zeros(*kind)


def _program(function: Callable[..., Any], *arrays: np.ndarray) -> ClosedJaxpr:
    """The program of a function at arrays of these shapes and dtypes."""
    with jax.enable_x64(True):
        return jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(array.shape, array.dtype) for array in arrays))


def kept(eqn: JaxprEqn, active: Sequence[bool], record: Record) -> Rule:
    """The rule of a loop or choice kept as one node, whose operands are `active` or not."""
    name = eqn.primitive.name
    texts = tuple(f"{{bar}} ∂{{out}}/∂{{{k}}}" if a else "" for k, a in enumerate(active))
    forward, derivative, tapes = (_choice if name == "cond" else _loop)(eqn, active, record)

    def cost(value, *operands):
        return sum(work_of(tape, operation) for tape in tapes(operands) for operation in tape.operations)

    return Rule(name, forward, derivative, f"{name}({{operands}})", texts, cost=cost)


def _choice(eqn: JaxprEqn, active: Sequence[bool], record: Record) -> tuple[Callable, Callable, Callable]:
    def tapes(operands):
        index, *rest = operands
        return [record(branch_of(eqn, index), rest, active[1:])]

    def derivative(g, value, *operands):
        [tape] = tapes(operands)
        return [None, *_gains(tape, g if isinstance(g, tuple) else (g,))]

    return lambda *operands: _values(tapes(operands)[0]), derivative, tapes


def _loop(eqn: JaxprEqn, active: Sequence[bool], record: Record) -> tuple[Callable, Callable, Callable]:
    loop, kinds = loop_of(eqn), [kind_of(variable) for variable in eqn.outvars]

    def tapes(operands):
        return list(_steps(loop, operands, active, record))

    def forward(*operands):
        steps = tapes(operands)
        carry = _values(steps[-1])[: loop.carries] if steps else loop.split(operands)[2]
        rows = [np.zeros(kind.shape, kind.dtype) for kind in kinds[loop.carries :]]
        for step, tape in enumerate(steps):
            for stacked, row in zip(rows, _values(tape)[loop.carries :]):
                stacked[loop.row(step)] = row
        return (*carry, *rows)

    def derivative(g, value, *operands):
        return _pulled(loop, tapes(operands), g if isinstance(g, tuple) else (g,), operands)

    return forward, derivative, tapes


def _steps(loop: Loop, operands: Sequence[np.ndarray], active: Sequence[bool], record: Record) -> Iterator[Tape]:
    """The graph of every step; a carry is active if it is at the beginning, or if some step makes it so."""
    of_test, of_body, carry, rows = loop.split(operands)
    _, *flags = loop.split(active)
    moving = list(flags[1])

    def taken(step: int, carry: Sequence[np.ndarray]) -> Tape:
        arguments = [*of_body, *carry, *(row[loop.row(step)] for row in rows)]
        return record(loop.body, arguments, [*flags[0], *moving, *flags[2]])

    step = 0
    while loop.goes_on(step, of_test, carry, record):
        tape = taken(step, carry)
        while (grown := [a or i in tape.between for a, i in zip(moving, tape.outputs)]) != moving:
            moving[:] = grown
            tape = taken(step, carry)
        yield tape
        carry, step = _values(tape)[: loop.carries], step + 1


def _pulled(
    loop: Loop, steps: Sequence[Tape], seeds: Sequence[np.ndarray], operands: Sequence[np.ndarray]
) -> list[np.ndarray | None]:
    """The adjoint of every operand of a loop, from those of its results: carries, then rows."""
    of_test, of_body, _, rows = loop.split(operands)
    carry, given = list[Any](seeds[: loop.carries]), seeds[loop.carries :]
    shared: list[Any] = [_zeros(operand) for operand in of_body]
    by_row: list[Any] = [_zeros(row) for row in rows]
    for step in reversed(range(len(steps))):
        row = loop.row(step)
        gains = _gains(steps[step], [*carry, *(seed[row] for seed in given)])
        mine, rest = gains[: len(of_body)], gains[len(of_body) :]
        carry, own = rest[: loop.carries], rest[loop.carries :]
        shared = [total if gain is None else total + gain for total, gain in zip(shared, mine)]
        for total, gain in zip(by_row, own):
            if gain is not None:
                total[row] = gain
    return [*[None] * len(of_test), *shared, *carry, *by_row]


def _zeros(operand: np.ndarray) -> np.ndarray | None:
    return np.zeros(operand.shape, operand.dtype) if is_float(operand.dtype) else None


def _values(tape: Tape) -> tuple[np.ndarray, ...]:
    return tuple(tape.nodes[i].value for i in tape.outputs)


def _gains(tape: Tape, seeds: Sequence[np.ndarray | None]) -> list[np.ndarray | None]:
    adjoints = sweep(tape, seeds)
    return [adjoints.get(i) for i in tape.inputs]


def _closed(program: Any) -> ClosedJaxpr:
    return ClosedJaxpr(program, ()) if isinstance(program, Jaxpr) else program
