"""Takes the evidence at every point and in every type, and finds the verdict on each leaf."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn.referee import finite_differences
from lr_nn.referee.jaxprs import compiled, eps, longest_sum, narrowest, on_copies, on_its_own, program_of
from lr_nn.referee.monte_carlo_arithmetic import expected_error
from lr_nn.referee.report import Evidence, Finding, Verdict
from lr_nn.referee.subject import FAR_OUT, Point, Subject
from lr_nn.referee.taylor import taylor
from lr_nn.referee.verdicts import errors, judge, ratio

RAYS = 8


def precision_of(dtype: Any) -> Any:
    """float64 is switched on where it is asked for; any other type runs under the user's own setting."""
    return jax.enable_x64(True) if dtype == np.float64 else nullcontext()


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


class Referee:
    """The programs of one audit, compiled once, and what they share."""

    def __init__(self, subject: Subject, points: Sequence[Point], hessian: Callable | None, seed: int):
        """Trace value and gradients at the first of `points`, and compile what runs more than once."""
        self.subject, self.points, self.seed = subject, points, seed
        place, autodiff = points[0].cast(np.float64), jax.grad(subject.value)
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
        self.roundings_of_value = expected_error(subject.value)
        self.roundings = {"autodiff": expected_error(autodiff)}
        self.roundings["by hand"] = self.roundings["autodiff"] if hand is None else expected_error(subject.gradient)

    def findings(self, types: Sequence[Any]) -> dict[Any, list[list[Finding]]]:
        """For each type and point, a finding for each leaf."""
        with np.errstate(all="ignore"):  # at extreme points numbers overflow, and a finding says so
            found = [self.evidence_at(point.cast(np.float64)) for point in self.points]
            suspects = [any(evidence.autodiff_wrong for evidence in leaf) for leaf in zip(*found)]
            return {
                dtype: [self.examine(point, dtype, found[row], suspects) for row, point in enumerate(self.points)]
                for dtype in types
            }

    def leaves(self, gradient: Callable, point: Point) -> list[np.ndarray]:
        """The leaves of a gradient at a point, as NumPy arrays."""
        return [np.asarray(leaf) for leaf in jax.tree.leaves(gradient(point.params, point.arrays))]

    def evidence_at(self, place: Point) -> list[Evidence]:
        """What the values say at a point, leaf by leaf."""
        with jax.enable_x64(True):
            by_hand, by_autodiff = self.leaves(self.hand, place), self.leaves(self.autodiff, place)
            return [
                self.evidence_of_leaf(place, index, *slopes) for index, slopes in enumerate(zip(by_hand, by_autodiff))
            ]

    def evidence_of_leaf(self, place: Point, index: int, hand: np.ndarray, autodiff: np.ndarray) -> Evidence:
        """What the values say of one leaf at a point."""
        rays = [finite_differences.directions(place.params, self.seed + turn)[index] for turn in range(RAYS)]
        noise = 0.0 if self.coarsest == np.float64 else self.noise(place)
        evidence = self.along(place, index, noise, rays[0], hand, autodiff)
        if evidence.by_autodiff.refuted and not noise:
            # Saturated values move in steps, coarser than the last place of the value: to refute takes more than those.
            noise = self.noise(place)
            evidence = self.along(place, index, noise, rays[0], hand, autodiff)
        for ray in rays[1:]:  # at a kink one ray may pass between the sides by chance
            if not (evidence.by_hand.kink and evidence.by_hand.between):
                break
            evidence = self.along(place, index, noise, ray, hand, autodiff)
        return evidence

    def noise(self, place: Point) -> float:
        """The rounding error that the value must expect, in the coarsest type that it rounds to."""
        return float(self.roundings_of_value(eps(self.coarsest), place.params, place.arrays)[0])

    def along(
        self, place: Point, index: int, noise: float, ray: np.ndarray, hand: np.ndarray, autodiff: np.ndarray
    ) -> Evidence:
        """What the values say along a ray within one leaf of the slopes by hand and by `jax.grad`."""
        line, bend = self.line(place, index, ray), self.curvature(place, index, ray)
        slopes = [float(np.sum(leaf.astype(np.float64) * ray)) for leaf in (hand, autodiff)]
        scale = max(abs(slopes[1]), float(np.linalg.norm(autodiff) * np.linalg.norm(ray)) / max(1, ray.size) ** 0.5)

        def off(slope: float) -> float:
            return abs(slopes[0] - slope) / scale if scale else abs(slopes[0] - slope)

        step = self.complex_slope
        by_hand, by_autodiff = (taylor(line.ahead, line.here, line.behind, slope, bend, noise) for slope in slopes)
        return Evidence(
            line.here,
            by_hand,
            by_autodiff,
            complex_step=step if isinstance(step, str) else off(step(place, index, ray)),
            central_difference=off(line.central),
        )

    def curvature(self, place: Point, index: int, ray: np.ndarray) -> float:
        """vᵀ H v, of the Hessian product under audit if there is one, else of the gradient's own differences."""
        if self.hessian is None:
            return finite_differences.curvature(self.hand, place, index, ray)
        still = jax.tree.map(lambda leaf: np.zeros(np.shape(leaf)), place.params)
        product = self.hessian(place.params, place.arrays, finite_differences.moved(still, index, ray, 1.0))
        leaves = jax.tree.leaves(self.subject.like_params(product, "hessian"))
        return float(np.sum(np.asarray(leaves[index], np.float64) * ray))

    def examine(
        self, point: Point, dtype: Any, at_point: Sequence[Evidence], suspects: Sequence[bool]
    ) -> list[Finding]:
        """A finding for each leaf at a point, in one type."""
        place = point.cast(dtype)
        wide, unit = place.cast(np.float64), max(eps(dtype), eps(self.coarsest))
        with precision_of(dtype):
            hand, twin = self.leaves(self.hand, place), self.leaves(self.autodiff, place)
        with jax.enable_x64(True):
            reference, vindicated = self.leaves(self.autodiff, wide), self.leaves(self.hand, wide)

        @cache
        def expected(whose: str) -> list[Any]:
            if whose == "scale":
                return [0.0] * len(reference)
            with jax.enable_x64(True):
                return self.roundings[whose](unit, wide.params, wide.arrays)

        # At the user's points half of the digits must stay; far out, where nobody has asked, fewer.
        bearable = math.inf if point.name in FAR_OUT else unit**0.5

        def finding(index: int) -> Finding:
            leaf, evidence = hand[index], at_point[index]
            truth = (vindicated if evidence.autodiff_wrong else reference)[index]

            def over(whose: str, goal: np.ndarray) -> float:
                return ratio(leaf, goal, expected(whose)[index], dtype, unit, self.length)

            verdict, reason, here = judge(leaf, twin[index], truth, over, evidence, suspects[index], bearable)
            if verdict == Verdict.wrong and eps(self.coarsest_by_hand) > unit:
                reason = "; ".join(filter(None, [f"computed in {self.coarsest_by_hand}", reason]))
            return Finding(
                point.name,
                verdict,
                reason,
                hand=errors(leaf, truth, dtype),
                autodiff=errors(twin[index], truth, dtype),
                bound_ratio=here,
                length=self.length,
                evidence=evidence if dtype == np.float64 else None,
            )

        return [finding(index) for index in range(len(hand))]
