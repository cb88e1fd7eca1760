"""Taylor remainders along a line, and the slopes at which they vanish.

With J along p + h v, slope s and curvature c:

    r₀ = |J(h) - J(0)| = O(h),   r₁ = |J(h) - J(0) - h s| = O(h²),   r₂ = |J(h) - J(0) - h s - h²/2 c| = O(h³)

A wrong slope leaves r₁ = O(h), whatever the step; no single step shows it as clearly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Steps h from 1 down to 6e-14, below which float64 leaves nothing of a difference.
STEPS = 2.0 ** -np.arange(45)
# A remainder is used where it is this many times the noise floor, so that noise moves its logarithm by 3 % at most.
ABOVE_THE_FLOOR = 30
# A window ends where the local slope has moved by half an order.
STEADY = 0.5
# Remainders in the smallest window.
FEWEST = 4
# Halvings of h over which r₁ or the even part must fall like h before a slope is refuted, or a kink found.
PERSISTENT = 6
# The largest step at which a function must be constant to be flat: steps of a saturated softmax are further apart.
LOCAL = 2.0**-15
HALF_OF_THE_DIGITS = float(np.finfo(float).eps) ** 0.5
# Secants, or slopes nearby, stand still if they move by less than this part of their distance to the slope.
STANDING = 0.25


class Taylor(NamedTuple):
    """Remainders of orders 0, 1, 2 at `steps`, the slope of each in its window, and the noise floor.

    A slope is NaN where fewer than four remainders in a row stand clear of the floor: a remainder that vanishes.
    `kink`: J(h) + J(-h) - 2 J(0) falls like h. `between`: the slope lies between those of the two sides of a kink.
    `settled`: the secants of J stand still where the window of r₁ begins. `flat`: J is constant near 0, to half of the
    digits of float64 and to the noise floor.
    """

    steps: np.ndarray
    remainders: np.ndarray
    slopes: tuple[float, float, float]
    windows: tuple[tuple[float, float] | None, ...]
    floor: float
    kink: bool
    between: bool
    settled: bool
    flat: bool

    @property
    def refuted(self) -> bool:
        """Whether the values refute the slope: r₁ falls like h over many halvings, and the values' own stands still."""
        if self.windows[1] is None or not self.settled:
            return False
        smallest, largest = self.windows[1]
        return 0.8 < self.slopes[1] < 1.2 and largest >= 2**PERSISTENT * smallest


def fitted(steps: np.ndarray, remainder: np.ndarray, floor: float) -> tuple[float, tuple[float, float] | None]:
    """Slope of log r against log h over the window of the smallest steps that stand clear of the floor.

    The window grows from its smallest step for as long as the local slope stays what it was.
    """
    clear = np.isfinite(remainder) & (remainder > ABOVE_THE_FLOOR * floor)
    if not clear.any():
        return float("nan"), None
    smallest = int(np.flatnonzero(clear)[-1])
    blocked = np.flatnonzero(~clear[:smallest])
    largest = blocked[-1] + 1 if len(blocked) else 0
    h, r = (np.log2(values[largest : smallest + 1][::-1]) for values in (steps, remainder))
    local = np.diff(r) / np.diff(h)
    steady = np.abs(local - np.median(local[: FEWEST - 1])) < STEADY if len(local) else np.array([False])
    length = len(h) if steady.all() else int(np.argmin(steady)) + 1
    if length < FEWEST:
        return float("nan"), None
    slope = np.polyfit(h[:length], r[:length], 1)[0]
    return float(slope), (float(2 ** h[0]), float(2 ** h[length - 1]))


def taylor(
    ahead: np.ndarray, here: float, behind: np.ndarray, slope: float, curvature: float, noise: float = 0.0
) -> Taylor:
    """The remainders of values at +h and -h (`ahead`, `behind`) and `here`, against a slope and a curvature.

    `noise` is the rounding error that the values are known to have.
    """
    h = STEPS
    with np.errstate(invalid="ignore", over="ignore"):
        rise = ahead - here
        remainders = np.abs([rise, rise - h * slope, rise - h * slope - h**2 / 2 * curvature])
        even = np.abs(ahead - 2 * here + behind)
    # At the smallest steps nothing but rounding is left of the remainders.
    rest = [float(np.median(r[-5:])) for r in (remainders[1], even)]
    floor = max(noise, float(np.finfo(float).eps * abs(here)), *rest)
    fits = [fitted(h, remainder, floor) for remainder in remainders]
    bend, window = fitted(h, even, floor)
    kink = window is not None and 0.8 < bend < 1.2 and window[1] >= 2**PERSISTENT * window[0]
    between = True
    if kink and window is not None:
        near = (h >= window[0]) & (h <= window[1])
        sides = np.median(rise[near] / h[near]), np.median((here - behind[near]) / h[near])
        slack = 0.01 * abs(sides[0] - sides[1])
        between = min(sides) - slack <= slope <= max(sides) + slack
    settled = fits[1][1] is not None and _settled(rise / h, slope, fits[1][1])
    constant = bool((remainders[0][h <= LOCAL] <= ABOVE_THE_FLOOR * floor).all())
    flat = constant and floor <= HALF_OF_THE_DIGITS * abs(here)
    slopes = (fits[0][0], fits[1][0], fits[2][0])
    return Taylor(h, remainders, slopes, tuple(window for _, window in fits), floor, kink, between, settled, flat)


def _settled(secants: np.ndarray, slope: float, window: tuple[float, float]) -> bool:
    """Whether the secants (J(h) - J(0)) / h stand still, beside their distance to a slope, where the window begins.

    Where a function saturates within the window they do not, and r₁ = O(h) says nothing of the slope at zero.
    """
    first = secants[np.flatnonzero(window[0] <= STEPS)[-FEWEST:]]
    return bool((np.abs(np.diff(first)) <= STANDING * np.abs(first[:-1] - slope)).all())
