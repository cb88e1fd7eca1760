"""Nested calls: which there are, and the rules of those that are kept as one node.

A `jit` kept as one node is swept by its own graph. A `custom_jvp` gives the pushforward of its author, which is linear
in the tangents, so that a reverse sweep over it is the pullback. A `custom_vjp` gives the pullback itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from lr_nn.graph import keys
from lr_nn.graph.costs import work_of
from lr_nn.graph.node import Tape
from lr_nn.graph.rules.base import Rule, is_float, kind_of
from lr_nn.graph.rules.complex_numbers import is_complex, joined, parts
from lr_nn.graph.sweep import sweep

KINDS = {
    **dict.fromkeys(["jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"], "jit"),
    "custom_jvp_call": "custom_jvp",
    "custom_vjp_call": "custom_vjp",
}
OPENABLE = tuple(dict.fromkeys(KINDS.values()))
# Inside a rule for derivatives of the user's, calls keep to theirs.
WITHIN = frozenset({"jit"})
# record(program, operands, active, opened=as around it) -> Tape
Record = Callable[..., Tape]


@dataclass(frozen=True, eq=False)
class Call:
    """A nested call: its kind, one of those that `opened` knows, its name and its body."""

    kind: str
    name: str
    program: ClosedJaxpr

    def is_internal(self, folder: str) -> bool:
        """Is its body written in `folder`?"""
        return folder in (self.program.jaxpr.debug_info.func_src_info or "")


def of(eqn: JaxprEqn) -> Call | None:
    """The call that an equation makes, if it makes one."""
    kind = KINDS.get(eqn.primitive.name)
    if kind is None:
        return None
    program: Any = eqn.params["jaxpr" if "jaxpr" in eqn.params else "call_jaxpr"]
    program = ClosedJaxpr(program, ()) if isinstance(program, Jaxpr) else program
    return Call(kind, eqn.params.get("name") or program.jaxpr.debug_info.func_name, program)


def of_this_platform(eqn: JaxprEqn) -> ClosedJaxpr | None:
    """The branch for a CPU of a `cond` by which functions of JAX tell platforms apart; it begins with their index."""
    platforms = eqn.params.get("branches_platforms")
    if platforms is None:
        return None
    chosen = [k for k, names in enumerate(platforms) if names is None or "cpu" in names]
    return eqn.params["branches"][chosen[0]]


def kept(call: Call, eqn: JaxprEqn, active: Sequence[bool], record: Record) -> Rule:
    """The rule of a call kept as one node, whose operands are `active` or not; `record` carries out a program."""

    def tape(*operands: np.ndarray) -> Tape:
        return record(call.program, operands, active)

    def forward(*operands):
        return _results(tape(*operands))

    def cost(value, *operands):
        body = tape(*operands)
        return sum(work_of(body, operation) for operation in body.operations)

    derivative: Callable[..., Any] | None = None
    if any(active):
        derivative = {"jit": _of_jit, "custom_jvp": _of_custom_jvp, "custom_vjp": _of_custom_vjp}[call.kind](
            call, eqn, active, record
        )
    texts = tuple(f"{{bar}} ∂{{out}}/∂{{{k}}}" if a else "" for k, a in enumerate(active))
    return Rule(call.name, forward, derivative, f"{call.name}({{operands}})", texts, cost=cost)


def by_jax(eqn: JaxprEqn, name: str | None = None) -> Rule:
    """The rule of an operation that needs no derivative: JAX carries it out. `name`: that of its nodes."""
    dtypes = [getattr(variable.aval, "dtype", None) for variable in eqn.invars]

    def forward(*operands):
        with jax.enable_x64(True):
            given = [
                joined(operand) if is_complex(dtype) else keys.wrapped(operand, dtype)
                for operand, dtype in zip(operands, dtypes)
            ]
            found = eqn.primitive.bind(*given, **eqn.primitive.get_bind_params(eqn.params))
            found = found if eqn.primitive.multiple_results else [found]
            return tuple(parts(keys.data_of(result)) for result in found)

    name = name or eqn.primitive.name
    return Rule(name, forward, None, f"{name}({{operands}})", "")


def takes_keys(eqn: JaxprEqn) -> bool:
    """True if random keys are among the operands or results."""
    return any(map(keys.is_key, _dtypes(eqn)))


def takes_complex(eqn: JaxprEqn) -> bool:
    """True if complex numbers are among the operands or results."""
    return any(map(is_complex, _dtypes(eqn)))


def _dtypes(eqn: JaxprEqn) -> list[Any]:
    return [getattr(atom.aval, "dtype", None) for atom in (*eqn.invars, *eqn.outvars)]


def _of_jit(call: Call, eqn: JaxprEqn, active: Sequence[bool], record: Record) -> Callable[..., Any]:
    def derivative(g, value, *operands):
        return _gains(record(call.program, operands, active), _tuple(g))

    return derivative


def _of_custom_jvp(call: Call, eqn: JaxprEqn, active: Sequence[bool], record: Record) -> Callable[..., Any]:
    kinds = [kind_of(atom) for atom in eqn.invars]
    constants = eqn.params["num_consts"]
    still = [not (is_float(kind.dtype) and a) for kind, a in zip(kinds, active)]
    if not eqn.params["symbolic_zeros"]:
        still = [not is_float(kind.dtype) for kind in kinds]
    jaxpr, consts, zeros = eqn.params["jvp_jaxpr_fun"].call_wrapped(*still[constants:])
    pushforward = ClosedJaxpr(jaxpr, consts)
    moved = [k for k in range(constants, len(kinds)) if not still[k]]

    def derivative(g, value, *operands):
        primals = operands[constants:]
        tangents = [np.zeros_like(operands[k]) for k in moved]
        moving = [False] * len(primals) + [active[k] for k in moved]
        pushed = record(pushforward, [*primals, *tangents], moving, WITHIN)
        seeds = [None] * len(zeros) + [g_k for g_k, zero in zip(_tuple(g), zeros) if not zero]
        gains = dict(zip(moved, _gains(pushed, seeds)[len(primals) :]))
        return [gains.get(k) for k in range(len(operands))]

    return derivative


def _of_custom_vjp(call: Call, eqn: JaxprEqn, active: Sequence[bool], record: Record) -> Callable[..., Any]:
    if takes_complex(eqn):
        raise NotImplementedError(
            f"the custom_vjp {call.name!r} of complex numbers has no rule: open it, opened=('jit', 'custom_vjp'), or "
            f"add one, graph.rule({call.name!r}, forward, derivative)"
        )
    kinds = [kind_of(atom) for atom in eqn.invars]
    results = [kind_of(variable) for variable in eqn.outvars]
    constants = eqn.params["num_consts"]
    forth = ClosedJaxpr(*eqn.params["fwd_jaxpr_thunk"].call_wrapped(*active[constants:]))
    _, _, forwarded = eqn.params["out_trees"]()
    computed = sum(place is None for place in forwarded)
    returned: list[bool] = []

    def back(residuals, seeds):
        floats = iter(seeds)
        cotangents = [
            next(floats) if is_float(kind.dtype) else np.zeros(kind.shape, jax.dtypes.float0) for kind in results
        ]
        found = eqn.params["bwd"].call_wrapped(*residuals, *cotangents)
        returned[:] = [isinstance(gain, (jax.Array, np.ndarray, np.generic, float, int)) for gain in found]
        return [gain for gain, given in zip(found, returned) if given]

    saved = iter([kind_of(variable) for variable in forth.jaxpr.outvars[:computed]])
    passed = [next(saved) if place is None else kinds[constants + place] for place in forwarded]
    residuals, seeds = ([jax.ShapeDtypeStruct(*kind) for kind in group] for group in (passed, results))
    pullback = jax.make_jaxpr(back)(residuals, [seed for seed in seeds if is_float(seed.dtype)])
    given = tuple(returned)

    def carried_out(program, operands):
        return _results(record(program, operands, [False] * len(operands), frozenset(OPENABLE)))

    def derivative(g, value, *operands):
        primals = operands[constants:]
        saved = iter(carried_out(forth, primals)[:computed])
        residuals = [next(saved) if place is None else primals[place] for place in forwarded]
        seeds = [g_k for g_k, kind in zip(_tuple(g), results) if is_float(kind.dtype)]
        found = iter(carried_out(pullback, [*residuals, *seeds]))
        gains = [next(found) if there else None for there in given]
        return [None] * constants + gains

    return derivative


def _results(tape: Tape) -> tuple[np.ndarray, ...]:
    return tuple(tape.nodes[i].value for i in tape.outputs)


def _gains(tape: Tape, seeds: Sequence[np.ndarray | None]) -> list[np.ndarray | None]:
    adjoints = sweep(tape, seeds)
    return [adjoints.get(i) for i in tape.inputs]


def _tuple(g: Any) -> tuple[np.ndarray, ...]:
    return g if isinstance(g, tuple) else (g,)
