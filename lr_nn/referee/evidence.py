"""What the values of a function say about its gradient at a point, leaf by leaf, in float64.

The values refute a slope where its Taylor remainder falls like h. That is proof only where they resolve the
derivative: by the mean value theorem a secant over [0, h] is the derivative at a point between, so that it must equal
the slope at 0 if the derivative hardly changes over [0, h] and is known to better than the difference. Where a
function saturates, or repeats within the smallest step, neither holds.

Values that are constant along a leaf confirm nothing either, where `jax.grad` is rounding noise: a saturated softmax.
That is a result at a point that was given (the gradient is zero), and a wasted one at a point of the audit's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import numpy as np

from lr_nn.referee import finite_differences
from lr_nn.referee.points import Point
from lr_nn.referee.programs import Programs, leaves_of
from lr_nn.referee.report import Evidence
from lr_nn.referee.taylor import STANDING, STEPS, Taylor, taylor
from lr_nn.referee.verdicts import rounding_bound

# Random directions within a leaf that are tried at a kink.
RAYS = 8
NOISE = "jax.grad is rounding noise, even in float64, and the values do not resolve the derivative"
# The derivative is compared at these multiples of the smallest step at which the remainder is above the noise.
NEARBY = (-1.0, 0.5, 1.0, 2.0)


def evidence_at(programs: Programs, place: Point, seed: int) -> list[Evidence]:
    """What the values say at a point in float64, one for each leaf."""
    with jax.enable_x64(True):
        by_hand, by_autodiff = leaves_of(programs.hand, place), leaves_of(programs.autodiff, place)
        rays = [finite_differences.directions(place.params, seed + turn) for turn in range(RAYS)]
        found = [
            _of_leaf(programs, place, index, [ray[index] for ray in rays], (hand, autodiff))
            for index, (hand, autodiff) in enumerate(zip(by_hand, by_autodiff))
        ]
        if not place.is_far or not any(map(_is_idle, found)):
            return found
        resolved = programs.resolved(place)
        return [
            each._replace(unresolved=NOISE) if _is_idle(each) and not clear else each
            for each, clear in zip(found, resolved)
        ]


def _is_idle(evidence: Evidence) -> bool:
    """Whether finite values are constant along a leaf."""
    return evidence.by_autodiff.flat and not evidence.unresolved and math.isfinite(evidence.value)


def _of_leaf(
    programs: Programs, place: Point, index: int, rays: Sequence[np.ndarray], gradients: tuple[np.ndarray, np.ndarray]
) -> Evidence:
    """What the values say of one leaf at a point."""
    noise = 0.0 if programs.coarsest == np.float64 else programs.noise(place)
    evidence = _along(programs, place, index, rays[0], gradients, noise)
    if evidence.by_autodiff.refuted and not noise:
        # Saturated values move in steps, coarser than the last place of the value: to refute takes more than those.
        noise = programs.noise(place)
        evidence = _along(programs, place, index, rays[0], gradients, noise)
    for ray in rays[1:]:  # at a kink one ray may pass between the sides by chance
        if not (evidence.by_hand.kink and evidence.by_hand.between):
            break
        evidence = _along(programs, place, index, ray, gradients, noise)
    return evidence


def _along(
    programs: Programs,
    place: Point,
    index: int,
    ray: np.ndarray,
    gradients: tuple[np.ndarray, np.ndarray],
    noise: float,
) -> Evidence:
    """What the values say along a ray within one leaf of the slopes by hand and by `jax.grad`."""
    line, bend = programs.line(place, index, ray), programs.curvature(place, index, ray)
    slopes = [float(np.sum(leaf.astype(np.float64) * ray)) for leaf in gradients]
    lengths = float(np.linalg.norm(gradients[1]) * np.linalg.norm(ray))
    scale = max(abs(slopes[1]), lengths / max(1, ray.size) ** 0.5)

    def off(slope: float) -> float:
        return abs(slopes[0] - slope) / scale if scale else abs(slopes[0] - slope)

    step = programs.complex_slope
    by_hand, by_autodiff = (taylor(line.ahead, line.here, line.behind, slope, bend, noise) for slope in slopes)
    doubtful = by_autodiff.refuted and not by_autodiff.kink
    return Evidence(
        line.here,
        by_hand,
        by_autodiff,
        complex_step=step if isinstance(step, str) else off(step(place, index, ray)),
        central_difference=off(line.central),
        unresolved=_unresolved(programs, place, index, ray, gradients[1], by_autodiff) if doubtful else "",
    )


def _unresolved(
    programs: Programs, place: Point, index: int, ray: np.ndarray, autodiff: np.ndarray, found: Taylor
) -> str:
    """Why values that refute `jax.grad` along a ray prove nothing; empty where they prove it wrong."""
    window = found.windows[1]
    if window is None:
        return ""
    step = window[0]
    gap = float(found.remainders[1][step == STEPS][0] / step)
    expected = programs.expected("autodiff", np.float64, place)[index]
    roundings = rounding_bound(float(np.sum(expected * np.abs(ray))), programs.length)
    if not roundings < gap:
        return NOISE

    def slope(multiple: float) -> float:
        there = finite_differences.moved(place.params, index, ray, multiple * step)
        leaf = jax.tree.leaves(programs.autodiff(there, place.arrays))[index]
        return float(np.sum(np.asarray(leaf, np.float64) * ray))

    here = float(np.sum(autodiff.astype(np.float64) * ray))
    if not max(abs(slope(multiple) - here) for multiple in NEARBY) <= STANDING * gap:
        return "the derivative changes within the smallest step that the values resolve"
    return ""
