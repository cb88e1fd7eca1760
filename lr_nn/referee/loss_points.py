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

    `blocks` names five ranges of rows: the `base` points; `moved`, these points plus and minus each step of `slopes`
    along each coordinate; `segments`, the ends and midpoints of random segments; `shifted`, base points with a constant
    added to all outputs; and the `far` field. `tie` (base,) marks the base points with η = y.
    """

    eta: np.ndarray
    target: np.ndarray
    blocks: dict[str, slice]
    tie: np.ndarray
    steps: np.ndarray

    @property
    def base(self) -> int:
        """The number of base points, which come first."""
        return int(self.blocks["base"].stop)

    @property
    def k(self) -> int:
        """The number of outputs."""
        return self.eta.shape[1]

    def moved(self, values: np.ndarray) -> np.ndarray:
        """Values at base points moved ahead and behind, (2, 3, base, k, ...): side, step, point, coordinate."""
        shape = (2, len(STEPS), self.k, self.base, *values.shape[1:])
        return values[self.blocks["moved"]].reshape(shape).swapaxes(2, 3)

    def of_segments(self, values: np.ndarray) -> np.ndarray:
        """Values (3, segments): at one end, the other, and the midpoint."""
        return values[self.blocks["segments"]].reshape(3, -1)

    def shifted(self, values: np.ndarray) -> np.ndarray:
        """Values (shifts, base) at base points shifted."""
        return values[self.blocks["shifted"]].reshape(len(SHIFTS), self.base)


def make_points(targets: Targets, rng: np.random.Generator) -> LossPoints:
    """Base points for each target, with moved, segment, shifted and far points."""
    t, k = targets.rows.shape
    rows, every = targets.rows, np.arange(t)

    def signs() -> np.ndarray:
        return rng.choice([-1.0, 1.0], size=(t, k))

    shared = rng.normal(size=(2, 1, k)) * [[[1.0]], [[2.5]]]  # one η for all targets: a canonical Hessian is the same
    moderate = [*np.broadcast_to(shared, (2, t, k)), *(rng.normal(size=(t, k)) * scale for scale in (0.7, 2.0, 8.0))]
    near = [rows + 1e-3 * signs(), np.zeros((t, k)), 1e-3 * signs(), 30.0 * signs()]
    kinds = [*moderate, rows, *near]
    base = np.concatenate(kinds)
    steps = np.asarray(STEPS)[:, None, None] * np.maximum(1, np.abs(base))
    moves = np.eye(k)[None, :, None, :] * steps.swapaxes(1, 2)[..., None]  # step, coordinate, point, output

    spread = rng.normal(size=(2, SEGMENTS, t, k)) * np.array([3.0, 3.0, 0.5, 8.0])[:SEGMENTS, None, None]
    centre = np.where(np.arange(SEGMENTS)[:, None, None] == 2, rows, 0.0)
    ends = (centre + spread).reshape(2, -1, k)

    far = [size * pattern for size in FAR for pattern in (np.ones((t, k)), -np.ones((t, k)), signs())]
    few = rng.permutation(t)[:FAR_TARGETS]
    eta = {
        "base": base,
        "moved": np.concatenate([base + moves, base - moves]),
        "segments": np.concatenate([ends, ends.mean(axis=0, keepdims=True)]),
        "shifted": np.stack([base + shift for shift in SHIFTS]),
        "far": np.stack(far)[:, few],
    }
    rows_of = {name: block.reshape(-1, k) for name, block in eta.items()}
    target = [np.resize(few if name == "far" else every, len(block)) for name, block in rows_of.items()]
    stops = np.cumsum([len(block) for block in rows_of.values()]).tolist()
    blocks = {name: slice(start, stop) for name, start, stop in zip(eta, [0, *stops], stops)}
    tie = np.repeat(np.arange(len(kinds)) == len(moderate), t)
    return LossPoints(np.concatenate(list(rows_of.values())), np.concatenate(target), blocks, tie, steps)
