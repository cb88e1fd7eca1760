"""Has the likelihood a maximum? Not if some direction makes every example likelier for ever, or no less likely.

A linear program finds such a recession direction: Albert & Anderson (1984), Konis (2007).
"""

from __future__ import annotations

import numpy as np

from lr_nn.losses import Loss

# What counts as a gain, relative to the largest; rows to begin with; how often rows are added; seconds for each.
LEAST, ROWS, ROUNDS, PATIENCE = 1e-6, 20_000, 10, 30


def recession_direction(loss: Loss, inputs: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    """θ as (q, k), its largest entry one in units of the columns' spread, along which no ℓ_i grows and some shrink.

    `inputs` (n, q) with the constant of the bias, `y` (n, k) encoded. None if there is no such direction: then the
    likelihood has a maximum.
    """
    from scipy.optimize import linprog

    found = loss.recession(y)
    if found is None:
        return None
    rows, fixed = found
    scale = np.maximum(np.abs(inputs).max(axis=0), np.finfo(float).tiny)
    matrix = np.einsum("na,nck->ncak", inputs / scale, rows).reshape(-1, inputs.shape[1] * y.shape[1])
    equal = fixed.reshape(-1)
    gains = matrix[~equal]
    if not len(gains):
        return None
    # A direction for all rows is one for some: a few are enough to find that there is none.
    some = np.random.default_rng(0).permutation(len(gains))[:ROWS]
    for _ in range(ROUNDS):
        program = linprog(
            -gains[some].mean(axis=0),
            A_ub=-gains[some],
            b_ub=np.zeros(len(some)),
            A_eq=matrix[equal] if equal.any() else None,
            b_eq=np.zeros(equal.sum()) if equal.any() else None,
            bounds=(-1, 1),
            method="highs",
            options={"time_limit": PATIENCE},
        )
        if program.status != 0 or -program.fun * len(some) < LEAST:
            return None
        gained = gains @ program.x
        if gained.min() >= -LEAST * gained.max():
            return program.x.reshape(inputs.shape[1], -1) / scale[:, None]
        some = np.union1d(some, np.argsort(gained)[:ROWS])
    return None
