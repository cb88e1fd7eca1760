"""Carries out a jaxpr, one equation at a time, on NumPy arrays, and keeps what it did."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, DropVar, Jaxpr, JaxprEqn, Literal

from lr_nn.graph import calls, control_flow, keys, linear_solves, refusals
from lr_nn.graph.node import Node, Operation, Tape
from lr_nn.graph.rules import TABLE, Rule, complex_numbers
from lr_nn.graph.rules.base import is_float, kind_of
from lr_nn.graph.rules.complex_numbers import parts
from lr_nn.graph.wording import adjoint_equations, equation

SUMMARY = re.compile(r"(?P<file>.*?):(?P<line>\d+)(:\d+)? \((?P<function>.*)\)$")
JAX = str(Path(jax.__file__).parent)
# Operations that hold programs, each with the function that makes its rule.
KEPT = {linear_solves.NAME: linear_solves.kept, **dict.fromkeys(control_flow.KINDS, control_flow.kept)}


class Constant:
    """A constant that becomes a node when it is first used."""

    def __init__(self, value: Any) -> None:
        """Keep the value, which must be there: no array of another trace."""
        if isinstance(value, jax.core.Tracer):
            raise TypeError(
                "the function uses an array of a trace around graph.trace, or one left behind: trace outside jit, grad "
                "and vmap, and pass the array as an argument"
            )
        self.value = np.array(parts(keys.data_of(value)))
        self.index: int | None = None


class Recorder:
    """Nodes and operations as they come. `opened` and `rules` are those of `graph.trace`."""

    def __init__(self, opened: frozenset[str], rules: Mapping[str, Rule]) -> None:
        """Begin with nothing."""
        self.opened, self.rules = opened, rules
        self.nodes: list[Node] = []
        self.operations: list[Operation] = []
        self.inputs: list[int] = []
        self.given: set[str] = set()
        self.named: set[int] = set()
        self.active: set[int] = set()

    def input(self, name: str, value: Any, dtype: Any, active: bool) -> int:
        """A node for an argument; `active` if it is one to differentiate by."""
        with np.errstate(over="ignore"):
            index = self._node("input", name, (), np.array(value, dtype=dtype))
        self.inputs.append(index)
        self.given.add(name)
        self.named.add(index)
        if active and is_float(dtype):
            self.active.add(index)
        return index

    def run(
        self, program: ClosedJaxpr, arguments: Sequence[int | Constant], source: str | None = None
    ) -> list[int | Constant]:
        """Carry out every equation of a program; `source` is where all of it was called, else each equation knows."""
        jaxpr: Jaxpr = program.jaxpr
        known: dict[Any, int | Constant] = {v: Constant(c) for v, c in zip(jaxpr.constvars, program.consts)}
        known.update(zip(jaxpr.invars, arguments))

        def read(atom: Any) -> int | Constant:
            return Constant(np.asarray(atom.val, atom.aval.dtype)) if isinstance(atom, Literal) else known[atom]  # type: ignore[attr-defined]

        for eqn in jaxpr.eqns:
            results = self._equation(eqn, [read(atom) for atom in eqn.invars], source or source_of(eqn))
            known.update(zip(eqn.outvars, results))
        return [read(atom) for atom in jaxpr.outvars]

    def place(self, value: int | Constant) -> int:
        """The index of a value's node, made now if it is a constant not used before."""
        if not isinstance(value, Constant):
            return value
        if value.index is None:
            name = str(value.value[()]) if value.value.ndim == 0 else self._fresh("c")
            value.index = self._node("constant", name, (), value.value)
        return value.index

    def finish(self, results: Sequence[int | Constant]) -> Tape:
        """The tape of a program that gave `results`: only now is it known where adjoints go."""
        outputs = tuple(map(self.place, results))
        between = {i for i in outputs if i in self.active}
        for operation in reversed(self.operations):
            if between.intersection(operation.results):
                between.update(i for i, carried in zip(operation.operands, operation.carries) if carried)
        for operation in self.operations:
            operands = [self.nodes[i] for i in operation.operands]
            for i in operation.results:
                if i is not None:
                    carries = operation.carries if i in between else (False,) * len(operands)
                    self.nodes[i].adjoint_equations = adjoint_equations(
                        operation.rule, self.nodes[i], operands, operation.params, carries
                    )
        return Tape(tuple(self.nodes), tuple(self.operations), tuple(self.inputs), outputs, frozenset(between))

    def _nested(
        self,
        source: str,
        program: ClosedJaxpr,
        operands: Sequence[np.ndarray],
        active: Sequence[bool],
        opened: frozenset[str] | None = None,
    ) -> Tape:
        """The tape of a program of its own, all of it called at `source`."""
        inner = Recorder(self.opened if opened is None else opened, self.rules)
        dtypes = [kind_of(variable).dtype for variable in program.jaxpr.invars]
        arguments = [inner.input(f"x{k}", *argument) for k, argument in enumerate(zip(operands, dtypes, active))]
        return inner.finish(inner.run(program, arguments, source))

    def _equation(self, eqn: JaxprEqn, operands: list[int | Constant], source: str) -> list[int | Constant]:
        branch = calls.of_this_platform(eqn)
        if branch is not None:
            return self.run(branch, operands[1:], source)
        if eqn.primitive.name == "name":
            return self._named(eqn, operands, source)
        call = calls.of(eqn)
        name = call.name if call else eqn.primitive.name
        rule = self.rules.get(name)
        draws = calls.takes_keys(eqn) and not any(map(self._is_active, operands))
        if call and rule is None and draws and call.is_internal(JAX):
            rule = calls.by_jax(eqn, name.lstrip("_"))
        elif call and rule is None:
            if call.kind in self.opened:
                return self.run(call.program, operands, source if call.is_internal(JAX) else None)
            refusals.check(eqn, source)
            rule = calls.kept(call, eqn, [self._is_active(i) for i in operands], partial(self._nested, source))
        refusals.check(eqn, source)
        if rule is None and name in self.opened:
            return control_flow.opened(eqn, operands, source, self.run, self._value, partial(self._nested, source))
        if rule is None and name in KEPT and any(map(self._is_active, operands)):
            rule = KEPT[name](eqn, [self._is_active(i) for i in operands], partial(self._nested, source))
        if rule is None and not draws:
            rule = complex_numbers.rule_of(eqn, TABLE) if calls.takes_complex(eqn) else TABLE.get(name)
        if rule is None:
            if any(map(self._is_active, operands)) and any(is_float(kind_of(v).dtype) for v in eqn.outvars):
                raise refusals.missing(eqn, source)
            rule = calls.by_jax(eqn)
        return self._apply(rule, eqn, [self.place(i) for i in operands], source)

    def _value(self, value: int | Constant) -> np.ndarray:
        return value.value if isinstance(value, Constant) else self.nodes[value].value

    def _apply(self, rule: Rule, eqn: JaxprEqn, operands: list[int], source: str) -> list[int | Constant]:
        nodes = [self.nodes[i] for i in operands]
        kinds = [kind_of(variable) for variable in eqn.outvars]
        values = rule.values([node.value for node in nodes], eqn.params, kinds)
        carries = tuple(i in self.active and rule.gives_adjoint(k) for k, i in enumerate(operands))
        results: list[Any] = []
        for k, (variable, value) in enumerate(zip(eqn.outvars, values)):
            if isinstance(variable, DropVar):
                results.append(None)
                continue
            index = self._node(rule.operation, self._fresh("v"), tuple(operands), value, source)
            part = f"[{k}]" if len(values) > 1 else ""
            self.nodes[index].equation = equation(rule, self.nodes[index].name, nodes, eqn.params, part)
            if any(carries) and is_float(value.dtype):
                self.active.add(index)
            results.append(index)
        used = tuple(operands), tuple(results), tuple(values)
        self.operations.append(Operation(rule, eqn.params, *used, carries, source))
        return results

    def _node(self, op: str, name: str, operands: tuple[int, ...], value: np.ndarray, source: str = "") -> int:
        value = value.view()
        value.setflags(write=False)
        self.nodes.append(Node(len(self.nodes), op, name, operands, value, source=source))
        return len(self.nodes) - 1

    def _fresh(self, letter: str) -> str:
        """A name for the next node that no argument has."""
        name = f"{letter}{len(self.nodes)}"
        return letter + name if name in self.given else name

    def _named(self, eqn: JaxprEqn, operands: list[int | Constant], source: str) -> list[int | Constant]:
        """The node of a `checkpoint_name`: the last one takes the name, and v4 = x · w becomes z1 = x · w.

        Any other node keeps its name, which an equation may have used or `checkpoint_name` has given, and the new name
        gets a node of its own.
        """
        [value] = operands
        own = eqn.primitive.name in self.rules
        if own or isinstance(value, Constant) or value != len(self.nodes) - 1 or value in self.named:
            rule = self.rules.get("name", TABLE["name"])
            [value] = self._apply(rule, eqn, [self.place(value)], source)
        node, name = self.nodes[self.place(value)], eqn.params["name"]
        while name in self.given:
            name += "′"
        self.given.add(name)
        self.named.add(node.index)
        node.equation = name + node.equation.removeprefix(node.name)
        node.name = name
        return [node.index]

    def _is_active(self, value: int | Constant) -> bool:
        return value in self.active


def source_of(eqn: JaxprEqn) -> str:
    """Where the user's code called an operation: "model.py:12 in loss"."""
    found = SUMMARY.match(source_info_util.summarize(eqn.source_info))
    if not found:
        return ""
    function = found["function"].rsplit("<locals>.", 1)[-1]
    return f"{Path(found['file']).name}:{found['line']} in {function}"
