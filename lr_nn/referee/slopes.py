"""Slopes of a function from its values alone, with the kinks and jumps that the values show; in NumPy float64."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

# Steps of the differences, times max(1, |x|). At the middle one a central difference has about ten digits; the largest
# tells its error, the smallest tells a kink from a large curvature.
STEPS = (1e-4, 1e-5, 1e-7)
# Between a smooth function's differences at the largest and smallest step lies a factor of 1000; at a kink (of the
# one-sided slopes) and at a jump (of the values) it is 1.
STEADY = 0.3
# Roundings of a value, in units of the type's epsilon.
ROUNDINGS = 8


class Slopes(NamedTuple):
    """Derivatives by differences, all of one shape.

    `central` has the estimated error `error`. Where `kink`, the one-sided slopes `low` ≤ `high` differ; where `jump`,
    the function itself jumps and has no slope.
    """

    central: np.ndarray
    error: np.ndarray
    low: np.ndarray
    high: np.ndarray
    kink: np.ndarray
    jump: np.ndarray

    @property
    def irregular(self) -> np.ndarray:
        """Where there is no derivative."""
        return self.kink | self.jump


def slopes(
    here: np.ndarray, ahead: np.ndarray, behind: np.ndarray, steps: np.ndarray, unit: float, terms: Any
) -> Slopes:
    """Slopes of f at x from here = f(x), ahead[j] = f(x + steps[j]) and behind[j] = f(x - steps[j]).

    Args:
        here: any shape.
        ahead: (3, *shape), at the three steps, the largest first.
        behind: the same on the other side.
        steps: (3, ...), broadcasts against `ahead`.
        unit: the epsilon of the type in which f was computed.
        terms: size of the terms that f is made of, which may cancel; broadcasts against `here`.
    """
    with np.errstate(all="ignore"):
        size = np.maximum(np.abs(here), np.maximum(np.abs(ahead).max(axis=0), np.abs(behind).max(axis=0)))
        rounding = ROUNDINGS * unit * (size + terms)
        forward, backward = (ahead - here) / steps, (here - behind) / steps
        central = (ahead - behind) / (2 * steps)
        steepness = np.maximum(np.abs(forward), np.abs(backward))
        gap, change = np.abs(forward - backward), steepness * steps
        jump = (change[2] > STEADY * change[0]) & (change[2] > 1e3 * rounding)
        kink = (gap[2] > STEADY * gap[0]) & (gap[2] > 4 * rounding / steps[2]) & (gap[2] > 1e-6 * steepness[2])
        error = 2 * np.abs(central[0] - central[1]) + rounding / steps[1] + 1e-8 * np.abs(central[1])
        slack = 2 * rounding / steps[2] + 1e-6 * steepness[2]
        low = np.minimum(forward[2], backward[2]) - slack
        high = np.maximum(forward[2], backward[2]) + slack
    return Slopes(central[1], error, low, high, kink & ~jump, jump)
