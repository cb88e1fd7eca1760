"""What a function's values alone say about its slope: along a line within one leaf, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn.referee.jaxprs import not_holomorphic
from lr_nn.referee.points import Point, size
from lr_nn.referee.subject import Subject
from lr_nn.referee.taylor import STEPS

# The imaginary step: its square vanishes beside 1 in float64.
TINY = 1e-30
# Near ε^(1/3), where the two errors of a central difference of the gradient meet.
CURVATURE_STEP = 1e-5


def best_step(dtype: Any) -> float:
    """(3 u)^(1/3), u the unit roundoff: where a central difference's truncation h²/6 meets its rounding u/h."""
    return float((1.5 * float(jnp.finfo(dtype).eps)) ** (1 / 3))


def directions(params: Any, seed: int) -> list[np.ndarray]:
    """A random direction for each leaf, as long in each entry as the leaf's are on average (1 where it is zero)."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(np.shape(leaf)) * size(leaf) for leaf in jax.tree.leaves(params)]


class Line(NamedTuple):
    """Values on a line through a point: at +STEPS, at the point, at -STEPS, and a central difference."""

    ahead: np.ndarray
    here: float
    behind: np.ndarray
    central: float


def moved(params: Any, index: Any, direction: Any, step: Any) -> Any:
    """Parameters with `step` times `direction` added to the leaf of that index."""
    leaves, structure = jax.tree.flatten(params)
    leaves[index] = leaves[index] + step * direction
    return jax.tree.unflatten(structure, leaves)


def lines(subject: Subject) -> Callable[[Point, int, np.ndarray], Line]:
    """Values along a line within one leaf, all in one call of a compiled program."""

    @jax.jit
    def along(params: Any, arrays: Any, ray: Any, steps: Any) -> Any:
        def at(step: Any) -> Any:
            return subject.value(jax.tree.map(lambda leaf, v: leaf + step * v, params, ray), arrays)

        return jax.lax.map(at, steps)

    best = best_step(np.float64)
    steps = np.concatenate([[0.0], STEPS, -STEPS, [best, -best]])

    def line(point: Point, index: int, direction: np.ndarray) -> Line:
        still = jax.tree.map(lambda leaf: np.zeros(np.shape(leaf)), point.params)
        values = np.asarray(along(point.params, point.arrays, moved(still, index, direction, 1.0), steps), np.float64)
        n = len(STEPS)
        central = (values[-2] - values[-1]) / (2 * best)
        return Line(values[1 : n + 1], float(values[0]), values[n + 1 : 2 * n + 1], float(central))

    return line


def complex_steps(subject: Subject, point: Point) -> Callable[[Point, int, np.ndarray], float] | str:
    """The slope Im J(p + i h v) / h, exact to rounding; a sentence if the function does not allow it.

    Squire and Trapp, Using complex variables to estimate derivatives of real functions, SIAM Review, 1998.
    """
    lifted = jax.tree.map(lambda leaf: np.asarray(leaf, np.complex128), point.params)
    try:
        program = jax.make_jaxpr(subject.value)(lifted, point.arrays)
    except Exception as error:  # whatever a user's function says to complex numbers
        return f"no complex numbers: {str(error).splitlines()[0][:80]}"
    obstacle = not_holomorphic(program.jaxpr)
    if obstacle is not None:
        return f"not complex-differentiable: {obstacle}"
    if not any(jnp.issubdtype(out.aval.dtype, jnp.complexfloating) for out in program.jaxpr.outvars):
        return "complex numbers are dropped on the way"
    value = jax.jit(subject.value)

    def slope(point: Point, index: int, direction: np.ndarray) -> float:
        lifted = jax.tree.map(lambda leaf: np.asarray(leaf, np.complex128), point.params)
        return float(np.imag(value(moved(lifted, index, direction, 1j * TINY), point.arrays)) / TINY)

    return slope


def curvature(gradient: Callable, point: Point, index: int, direction: np.ndarray) -> float:
    """vᵀ H v as a central difference of the gradient under audit along v."""

    def slope(step: float) -> float:
        leaf = jax.tree.leaves(gradient(moved(point.params, index, direction, step), point.arrays))[index]
        return float(np.sum(np.asarray(leaf, np.float64) * direction))

    return (slope(CURVATURE_STEP) - slope(-CURVATURE_STEP)) / (2 * CURVATURE_STEP)
