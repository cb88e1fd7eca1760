"""Has the likelihood a maximum? Not if some direction makes every example likelier for ever, or no less likely.

A linear program finds such a recession direction: Albert & Anderson (1984), Konis (2007).
"""

from __future__ import annotations

import time

import numpy as np

from lr_nn.losses import Loss

# What counts as a gain, and what as rounding, relative to the size of its terms; the rows to begin with, fewer where
# they hold so many numbers; how often rows are added; seconds in all.
LEAST, ROUNDING, ROWS, NUMBERS, ROUNDS, PATIENCE = 1e-6, 1e-9, 20_000, 2**24, 10, 30


def recession_direction(loss: Loss, inputs: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    """θ as (q, k), its largest entry one in units of the columns' spread, along which no ℓ_i grows and some shrink.

    `inputs` (n, q) with the constant of the bias, `y` (n, k) encoded. None if there is no such direction: then the
    likelihood has a maximum; or if none was found in time.
    """
    from scipy.optimize import linprog

    found = loss.recession(y)
    if found is None or found[1].all():
        return None
    rows, fixed = found
    scale = np.maximum(np.abs(inputs).max(axis=0), np.finfo(float).tiny)
    inputs = inputs / scale
    q, k = inputs.shape[1], y.shape[1]
    free, equal = np.argwhere(~fixed), np.argwhere(fixed)
    most = max(1, min(ROWS, NUMBERS // (q * k)))

    def conditions(pairs: np.ndarray) -> np.ndarray:
        i, c = pairs.T
        return np.einsum("ma,mk->mak", inputs[i], rows[i, c]).reshape(len(pairs), q * k)

    same = np.zeros((0, q * k))
    for begin in range(0, len(equal), most):
        same = np.linalg.qr(np.concatenate([same, conditions(equal[begin : begin + most])]), mode="r")
    # A direction for all rows is one for some: a few are enough to find that there is none.
    some = np.random.default_rng(0).permutation(len(free))[:most]
    deadline = time.monotonic() + PATIENCE
    for _ in range(ROUNDS):
        chosen = conditions(free[some])
        chosen = chosen / np.maximum(np.abs(chosen).max(axis=1, keepdims=True), np.finfo(float).tiny)
        program = linprog(
            -chosen.mean(axis=0),
            A_ub=-chosen,
            b_ub=np.zeros(len(some)),
            A_eq=same if len(same) else None,
            b_eq=np.zeros(len(same)) if len(same) else None,
            bounds=(-1, 1),
            method="highs",
            options={"time_limit": max(0.0, deadline - time.monotonic())},
        )
        if program.status != 0 or -program.fun * len(some) < LEAST:
            return None
        theta = np.where(np.abs(program.x) > ROUNDING, program.x, 0).reshape(q, k)
        gained = np.einsum("nck,nk->nc", rows, inputs @ theta)[~fixed]
        terms = np.einsum("nck,nk->nc", np.abs(rows), np.abs(inputs) @ np.abs(theta))[~fixed]
        if (gained >= -LEAST * terms).all():
            return theta / scale[:, None] if (gained > LEAST * terms).any() else None
        some = np.union1d(some, np.argsort(gained / np.maximum(terms, np.finfo(float).tiny))[:most])
    return None
