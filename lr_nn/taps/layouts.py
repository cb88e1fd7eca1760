"""Where an operand of a tap lies in a leaf of the parameters: transposed, reshaped, sliced, or one slice of a scan."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np


class Step(NamedTuple):
    """One rearrangement of an array of `shape`, behind `depth` axes of slices by a scan.

    `kind` and `argument`: "transpose" and a permutation, "reshape" and a shape, "slice" and a slice of each axis as
    (start, stop, stride).
    """

    kind: str
    argument: tuple
    shape: tuple[int, ...]
    depth: int


class Operand(NamedTuple):
    """Leaf number `leaf` of the parameters, rearranged by `steps`; `scans` are the scans that take a slice of it.

    Outside of the scans it is an array (*lengths of the scans, *shape of the operand). No entry is there twice.
    """

    leaf: int
    steps: tuple[Step, ...] = ()
    scans: tuple[int, ...] = ()


def rearranged(operand: Operand, kind: str, argument: tuple, shape: tuple[int, ...]) -> Operand:
    """The operand, of `shape`, after one more step."""
    step = Step(kind, tuple(argument), tuple(shape), len(operand.scans))
    return operand._replace(steps=(*operand.steps, step))


def untransposed(operand: Operand) -> Operand | None:
    """The operand whose transpose this is, or None where its last step does not swap two axes."""
    if operand.steps and operand.steps[-1][:2] == ("transpose", (1, 0)):
        return operand._replace(steps=operand.steps[:-1])
    return None


def to_operand(operand: Operand, leaf: Any) -> Any:
    """The entries of `leaf` as the operand has them; `leaf` is an array of NumPy or JAX."""
    for kind, argument, _, depth in operand.steps:
        lead = leaf.shape[:depth]
        if kind == "transpose":
            leaf = leaf.transpose(*range(depth), *(depth + axis for axis in argument))
        elif kind == "reshape":
            leaf = leaf.reshape(*lead, *argument)
        else:
            leaf = leaf[(slice(None),) * depth + tuple(slice(*bounds) for bounds in argument)]
    return leaf


def to_leaf(operand: Operand, array: Any, shape: tuple[int, ...]) -> Any:
    """The adjoint of `to_operand`: `array` (n, *operand) back in the leaf's `shape`, (n, *shape), zero elsewhere."""
    shapes = [shape]  # of the leaf before each step, with the axes of scans
    for step in operand.steps:
        shapes.append((*shapes[-1][: step.depth], *_shape_after(step)))
    array = array.reshape(len(array), *shapes[-1])
    for step, before in zip(operand.steps[::-1], shapes[-2::-1]):
        kind, argument, _, depth = step
        if kind == "transpose":
            inverse = np.argsort(argument)
            array = array.transpose(*range(depth + 1), *(int(depth + 1 + axis) for axis in inverse))
        elif kind == "reshape":
            array = array.reshape(len(array), *before)
        else:
            where = (slice(None),) * (depth + 1) + tuple(slice(*bounds) for bounds in argument)
            array = jnp.zeros((len(array), *before), array.dtype).at[where].set(array)
    return array


def _shape_after(step: Step) -> tuple[int, ...]:
    if step.kind == "transpose":
        return tuple(step.shape[axis] for axis in step.argument)
    if step.kind == "reshape":
        return step.argument
    return tuple(len(range(*slice(*bounds).indices(size))) for bounds, size in zip(step.argument, step.shape))


def overlap(operands: list[Operand], shape: tuple[int, ...]) -> bool:
    """True if two of the operands share an entry of the leaf, which has `shape`."""
    entries = np.arange(prod(shape)).reshape(shape)
    found = np.concatenate([to_operand(operand, entries).reshape(-1) for operand in operands])
    return len(np.unique(found)) < len(found)
