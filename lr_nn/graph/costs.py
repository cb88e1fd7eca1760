"""What a reverse sweep costs, what a forward sweep would, and what the chain rule would path by path."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lr_nn.graph.node import Operation, Tape
from lr_nn.graph.rules.base import is_float

__all__ = ["Savings"]


@dataclass(frozen=True)
class Savings:
    """Counts of arithmetic operations: one for each entry of a value, 2mnk for a product of (m, k) by (k, n).

    inputs, outputs: numbers (not arrays) to differentiate by, and differentiated. edges: pairs of an operation and an
    operand that an adjoint goes through. value: operations of the function itself. sweep: those of one sweep over all
    edges, forward or reverse, an edge at the price of its operation. forward_mode = inputs · sweep, a sweep for each
    input; reverse_mode = outputs · sweep. paths: ways from an input node to an output node, a product of derivatives
    each; the sweep uses every edge once. reused: the nodes whose adjoint more than one operand uses, with how often.

    Griewank & Walther, Evaluating Derivatives (2008), sections 3.1 and 3.2.
    """

    inputs: int
    outputs: int
    edges: int
    value: int
    sweep: int
    forward_mode: int
    reverse_mode: int
    paths: int
    reused: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        """What reverse mode saves, in words."""
        shown = ", ".join(f"{name} {times}x" for name, times in self.reused[:8]) or "none"
        more = f", and {len(self.reused) - 8} more" if len(self.reused) > 8 else ""
        return "\n".join(
            [
                f"the function       {self.value:>16,} operations",
                f"one sweep          {self.sweep:>16,} operations over {self.edges:,} edges",
                f"forward mode       {self.forward_mode:>16,} operations, sweeps: {self.inputs:,}, one an input",
                f"reverse mode       {self.reverse_mode:>16,} operations, sweeps: {self.outputs:,}, one an output",
                f"paths              {_count(self.paths):>16} from inputs to outputs, against {self.edges:,} edges",
                f"adjoints reused    {shown}{more}",
            ]
        )


def savings(tape: Tape) -> Savings:
    """The counts of a tape."""
    sweep = value = 0
    uses = dict.fromkeys(tape.between, 0)
    paths = dict.fromkeys(tape.between, 0) | dict.fromkeys(tape.between.intersection(tape.inputs), 1)
    for operation in tape.operations:
        work = work_of(tape, operation)
        value += work
        reached = [index for index in operation.results if index in tape.between]
        carried = [index for index, carries in zip(operation.operands, operation.carries) if carries]
        for index in reached:
            uses[index] += len(carried)
            paths[index] += sum(paths[operand] for operand in carried)
        sweep += work * len(carried) if reached else 0
    inputs = sum(tape.nodes[index].value.size for index in tape.inputs if is_float(tape.nodes[index].dtype))
    outputs = [index for index in tape.outputs if is_float(tape.nodes[index].dtype)]
    return Savings(
        inputs=inputs,
        outputs=(sizes := sum(tape.nodes[index].value.size for index in outputs)),
        edges=sum(uses.values()),
        value=value,
        sweep=sweep,
        forward_mode=inputs * sweep,
        reverse_mode=sizes * sweep,
        paths=sum(paths.get(index, 0) for index in outputs),
        reused=tuple((tape.nodes[index].name, times) for index, times in sorted(uses.items()) if times > 1),
    )


def work_of(tape: Tape, operation: Operation) -> int:
    """The number of arithmetic operations of one operation of a tape."""
    operands: list[np.ndarray] = [tape.nodes[index].value for index in operation.operands]
    return operation.rule.work(operation.values, operands, operation.params)


def _count(number: int) -> str:
    return f"{number:,}" if number < 10**12 else f"{float(number):.3e}" if number < 10**300 else "over 10^300"
