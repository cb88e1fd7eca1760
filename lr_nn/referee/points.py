"""The points of an audit: the given one, far ones that are multiples of it, and those between the two."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from lr_nn.referee.jaxprs import is_float

AS_GIVEN = "as given"


class Multiple(NamedTuple):
    """A far point: the parameters or the inputs of the given one, multiplied."""

    what: str
    by: float


# Nearly linear, saturated, beyond what a naive exponential bears, and saturated by the data.
FAR_OUT = {
    "parameters x 1e-3": Multiple("parameters", 1e-3),
    "parameters x 30": Multiple("parameters", 30.0),
    "parameters x 1e4": Multiple("parameters", 1e4),
    "inputs x 100": Multiple("inputs", 100.0),
}
# Powers of a far point's multiple at which to look where it is undecided, the farthest first.
POWERS = (0.75, 0.5, 0.25, 0.125)
# Standard deviation of what a leaf of zeros is replaced by before it is multiplied.
MOVE = 0.1


class Point(NamedTuple):
    """Where a gradient is audited: parameters and the arrays among the further arguments.

    `is_far`: whether the audit has multiplied them itself.
    """

    name: str
    params: Any
    arrays: tuple[Any, ...]
    is_far: bool = False

    def cast(self, dtype: Any) -> Point:
        """The same point with every floating-point array of type `dtype`."""

        def to(leaf: Any) -> Any:
            return np.asarray(leaf).astype(dtype) if is_float(leaf) else leaf

        with np.errstate(over="ignore"):
            params, arrays = jax.tree.map(to, (self.params, self.arrays))
            return Point(self.name, params, arrays, self.is_far)


def size(leaf: Any) -> float:
    """The root mean square of a leaf's entries; 1 where all are zero."""
    return float(np.sqrt(np.mean(np.square(leaf, dtype=np.float64)))) or 1.0 if np.size(leaf) else 1.0


def off_zero(params: Any, seed: int) -> Any:
    """Parameters with small random numbers for every leaf that is all zero.

    At zero a missing factor or penalty does not show, and no multiple of it saturates.
    """
    rng = np.random.default_rng(seed)

    def moved(leaf: Any) -> Any:
        leaf = np.asarray(leaf)
        return leaf if leaf.any() else np.asarray(MOVE * rng.standard_normal(leaf.shape)).astype(leaf.dtype)

    return jax.tree.map(moved, params)


def is_input(array: Any) -> bool:
    """Whether an array holds numbers that may be of any size; what lies in [0, 1] may be labels or probabilities."""
    return is_float(array) and not bool(np.all((np.asarray(array) >= 0) & (np.asarray(array) <= 1)))


def scale(params: Any, by: float) -> Any:
    """Parameters times a number, in their own types."""
    with np.errstate(over="ignore"):
        return jax.tree.map(lambda leaf: np.asarray(leaf) * np.asarray(by, np.asarray(leaf).dtype), params)


def multiplied(given: Point, name: str, multiple: Multiple, seed: int) -> Point:
    """The given point with its parameters or its inputs multiplied."""
    if multiple.what == "parameters":
        return Point(name, scale(off_zero(given.params, seed), multiple.by), given.arrays, is_far=True)
    inputs = tuple(scale(array, multiple.by) if is_input(array) else array for array in given.arrays)
    return Point(name, given.params, inputs, is_far=True)


def closer(given: Point, far: Point, seed: int) -> list[Point]:
    """Points between the given one and a far one, the farthest first; none for a point of the user's."""
    if not far.is_far:
        return []
    what, by = FAR_OUT[far.name]
    nearer = [Multiple(what, by**power) for power in POWERS]
    return [multiplied(given, f"{what} x {multiple.by:.4g}", multiple, seed) for multiple in nearer]


def far_points(given: Point, seed: int) -> list[Point]:
    """The multiples of the given point that every audit looks at."""
    has_inputs = any(map(is_input, given.arrays))
    return [
        multiplied(given, name, multiple, seed)
        for name, multiple in FAR_OUT.items()
        if has_inputs or multiple.what != "inputs"
    ]
