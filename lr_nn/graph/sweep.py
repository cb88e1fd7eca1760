"""The reverse sweep: every operation, last first, hands the adjoint of its value on to its operands.

    v̄ = ∂J/∂v,    x̄ += v̄ ∂v/∂x    for every operand x of v

An adjoint is complete when all that used its node have been visited, which the order sees to. Baur & Strassen (1983);
Griewank & Walther, Evaluating Derivatives (2008), section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lr_nn.graph.node import Tape


def sweep(tape: Tape, seeds: Sequence[np.ndarray | None]) -> dict[int, np.ndarray]:
    """The adjoint of every node between an active input and an output, from one seed an output (None for zero)."""
    adjoints: dict[int, np.ndarray] = {}

    def gain(index: int, amount: np.ndarray) -> None:
        with np.errstate(all="ignore"):
            adjoints[index] = adjoints[index] + amount if index in adjoints else amount

    for index, seed in zip(tape.outputs, seeds):
        if seed is not None and index in tape.between:
            gain(index, seed)
    for operation in reversed(tape.operations):
        if not any(index in adjoints for index in operation.results):
            continue
        given = [
            adjoints[index] if index in adjoints else np.zeros_like(value)
            for index, value in zip(operation.results, operation.values)
        ]
        operands = [tape.nodes[index].value for index in operation.operands]
        amounts = operation.rule.pull(given, operation.values, operands, operation.params)
        for index, carried, amount in zip(operation.operands, operation.carries, amounts):
            if carried and amount is not None:
                gain(index, amount)
    for index in tape.between:
        if index not in adjoints:
            adjoints[index] = np.zeros_like(tape.nodes[index].value)
    return adjoints
