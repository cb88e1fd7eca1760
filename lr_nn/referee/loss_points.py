"""Points (η, y) at which a loss is audited, in one array of rows, so that one compiled program sees them all."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lr_nn.referee.loss_targets import Targets
from lr_nn.referee.slopes import STEPS

# The far field: beyond e^η in float32, and where the losses of this library promise to be finite.
FAR = (100.0, 300.0, 1e4)
FAR_TARGETS = 6
# Pairs of points for each target whose midpoint tests convexity, and the shifts that test invariance.
SEGMENTS, SHIFTS = 4, (1.7, -20.0)


class LossPoints(NamedTuple):
    """Rows η (n, k), and which `target` (n,) each has, as an index of `Targets`.

    In this order: `base` points; those moved along each coordinate by + and - each step of `slopes`; ends and
    midpoints of segments; base points shifted; the far field. `tie` (base,): where η = y.
    """

    eta: np.ndarray
    target: np.ndarray
    base: int
    tie: np.ndarray
    steps: np.ndarray
    segments: int
    shifts: np.ndarray
    far: int

    @property
    def k(self) -> int:
        """The number of outputs."""
        return self.eta.shape[1]

    def moved(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values at base points moved ahead and behind, each (3, base, k, ...): step, point, coordinate."""
        tail = values.shape[1:]
        count = 2 * len(STEPS) * self.k * self.base
        parts = values[self.base : self.base + count].reshape(2, len(STEPS), self.k, self.base, *tail)
        return parts[0].swapaxes(1, 2), parts[1].swapaxes(1, 2)

    def of_segments(self, values: np.ndarray) -> np.ndarray:
        """Values (3, segments): at one end, the other, and the midpoint."""
        first = self.base * (1 + 2 * len(STEPS) * self.k)
        return values[first : first + 3 * self.segments].reshape(3, self.segments)

    def shifted(self, values: np.ndarray) -> np.ndarray:
        """Values (shifts, base) at base points shifted."""
        first = self.base * (1 + 2 * len(STEPS) * self.k) + 3 * self.segments
        return values[first : first + len(SHIFTS) * self.base].reshape(len(SHIFTS), self.base)


def make_points(targets: Targets, rng: np.random.Generator) -> LossPoints:
    """Base points for every target, and what is made of them."""
    t, k = targets.rows.shape
    rows, every = targets.rows, np.arange(t)

    def signs() -> np.ndarray:
        return rng.choice([-1.0, 1.0], size=(t, k))

    shared = rng.normal(size=(2, 1, k)) * [[[1.0]], [[2.5]]]  # one η for all targets: a canonical Hessian is the same
    moderate = [*np.broadcast_to(shared, (2, t, k)), *(rng.normal(size=(t, k)) * scale for scale in (0.7, 2.0, 8.0))]
    near = [rows + 1e-3 * signs(), np.zeros((t, k)), 1e-3 * signs(), 30.0 * signs()]
    kinds = [*moderate, rows, *near]
    base = np.concatenate(kinds)
    index = np.tile(every, len(kinds))
    steps = np.asarray(STEPS)[:, None, None] * np.maximum(1, np.abs(base))
    moves = np.eye(k)[None, :, None, :] * steps.swapaxes(1, 2)[..., None]  # step, coordinate, point, output
    around = np.concatenate([base + moves, base - moves]).reshape(-1, k)

    spread = rng.normal(size=(2, SEGMENTS, t, k)) * np.array([3.0, 3.0, 0.5, 8.0])[:SEGMENTS, None, None]
    centre = np.where(np.arange(SEGMENTS)[:, None, None] == 2, rows, 0.0)
    ends = (centre + spread).reshape(2, -1, k)
    segments = np.concatenate([ends, ends.mean(axis=0, keepdims=True)])

    far = [size * pattern for size in FAR for pattern in (np.ones((t, k)), -np.ones((t, k)), signs())]
    few = rng.permutation(t)[:FAR_TARGETS]
    far_eta = np.stack(far)[:, few].reshape(-1, k)
    shifts = np.asarray(SHIFTS)
    eta = [base, around, segments.reshape(-1, k), *(base + shift for shift in shifts), far_eta]
    indices = [
        *(index, np.tile(index, 2 * len(STEPS) * k), np.tile(every, 3 * SEGMENTS)),
        *(index for _ in shifts),
        np.tile(few, len(far)),
    ]
    tie = np.repeat(np.arange(len(kinds)) == len(moderate), t)
    return LossPoints(
        np.concatenate(eta), np.concatenate(indices), len(base), tie, steps, SEGMENTS * t, shifts, len(far_eta)
    )
