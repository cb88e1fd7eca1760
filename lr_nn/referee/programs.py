"""The compiled programs of one audit: the value, both gradients, and their expected rounding errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn.referee import finite_differences
from lr_nn.referee.jaxprs import compiled, eps, longest_sum, narrowest, on_copies, on_its_own, program_of
from lr_nn.referee.monte_carlo_arithmetic import expected_error
from lr_nn.referee.points import Point
from lr_nn.referee.subject import Subject
from lr_nn.referee.verdicts import rounding_bound


def traced_value(subject: Subject, place: Point) -> Any:
    """The program of the value.

    Raises:
        TypeError: JAX cannot trace it.
        ValueError: its result is complex.
    """
    try:
        program = on_its_own(jax.make_jaxpr(subject.value)(place.params, place.arrays))
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError) as error:
        raise TypeError(
            "value_fn must be a function that JAX can trace: written with jax.numpy, without `if` on values, masks by "
            "values or NumPy's functions on its arguments (gradient_fn may be of NumPy)"
        ) from error
    result: Any = program.outvars[0].aval
    if jnp.issubdtype(result.dtype, jnp.complexfloating):
        raise ValueError(f"value_fn must return a real number; got {result.dtype}: take its real part, say")
    return program


def traced_reference(gradient: Callable, place: Point) -> Any:
    """The program of `jax.grad` of the value.

    Raises:
        ValueError: JAX cannot differentiate the value.
    """
    try:
        return jax.make_jaxpr(gradient)(place.params, place.arrays).jaxpr
    except Exception as error:  # whatever the derivative of an operation says
        reason = str(error).splitlines()[0]
        raise ValueError(f"jax.grad, beside which a gradient is audited, fails on value_fn: {reason}") from error


class Programs:
    """The programs of one audit, each compiled once.

    Attributes:
        hand, autodiff: (params, arrays) -> the gradient under audit, and `jax.grad` of the value.
        line, complex_slope: values along a line, and slopes by the complex step (`finite_differences`).
        hessian: (params, arrays, v) -> H v under audit, or None.
        roundings: the expected rounding error of the gradients "by hand" and by "autodiff".
        length: terms of the longest sum in a gradient.
        coarsest, coarsest_by_hand: the narrowest type that the value rounds to, and the gradient under audit.
    """

    def __init__(self, subject: Subject, given: Point, hessian: Callable | None):
        """Trace value and gradients at the given point, and compile what runs more than once."""
        self.subject = subject
        place, autodiff = given.cast(np.float64), jax.grad(subject.value)
        with jax.enable_x64(True):
            value = traced_value(subject, place)
            twin = traced_reference(autodiff, place)
            hand = program_of(subject.gradient, place.params, place.arrays)
            if hessian is not None:
                hessian = compiled(subject.product(hessian), place.params, place.arrays, place.params)
            self.complex_slope = finite_differences.complex_steps(subject, place)
        self.hessian = hessian
        self.autodiff, self.line = jax.jit(autodiff), finite_differences.lines(subject)
        self.hand = on_copies(subject.gradient) if hand is None else jax.jit(subject.gradient)
        self.length = max(longest_sum(program) for program in (twin, hand) if program is not None)
        self.coarsest = narrowest(value)
        self.coarsest_by_hand = self.coarsest if hand is None else narrowest(hand)
        self._roundings_of_value = expected_error(subject.value)
        self.roundings = {"autodiff": expected_error(autodiff)}
        self.roundings["by hand"] = self.roundings["autodiff"] if hand is None else expected_error(subject.gradient)

    def noise(self, place: Point) -> float:
        """The expected rounding error of the value, in the narrowest type that it rounds to."""
        return float(self._roundings_of_value(eps(self.coarsest), place.params, place.arrays)[0])

    def resolved(self, place: Point) -> list[bool]:
        """For each leaf, whether the rounding errors of `jax.grad` in float64 are within its largest entry."""
        leaves = leaves_of(self.autodiff, place)
        bounds = [rounding_bound(error, self.length) for error in self.expected("autodiff", np.float64, place)]
        return [not np.max(bound, initial=0) > np.abs(leaf).max(initial=0) for bound, leaf in zip(bounds, leaves)]

    def expected(self, whose: str, dtype: Any, place: Point) -> list[np.ndarray]:
        """The expected rounding error of each leaf of a gradient, in a type or in the coarser one of the value."""
        unit = max(eps(dtype), eps(self.coarsest))
        return self.roundings[whose](unit, place.params, place.arrays)

    def curvature(self, place: Point, index: int, ray: np.ndarray) -> float:
        """vᵀ H v along a ray within one leaf, from the Hessian product under audit or differences of the gradient."""
        if self.hessian is None:
            return finite_differences.curvature(self.hand, place, index, ray)
        still = jax.tree.map(lambda leaf: np.zeros(np.shape(leaf)), place.params)
        product = self.hessian(place.params, place.arrays, finite_differences.moved(still, index, ray, 1.0))
        leaves = jax.tree.leaves(self.subject.like_params(product, "hessian"))
        return float(np.sum(np.asarray(leaves[index], np.float64) * ray))


def leaves_of(gradient: Callable, point: Point) -> list[np.ndarray]:
    """The leaves of a gradient at a point, as NumPy arrays."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(gradient(point.params, point.arrays))]
