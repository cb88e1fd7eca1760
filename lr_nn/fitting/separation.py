"""Has the likelihood a maximum? Not if some direction makes every example likelier for ever, or no less likely.

A linear program finds such a recession direction: Albert & Anderson (1984), Konis (2007).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import numpy as np

from lr_nn.losses import Loss

__all__ = ["UndecidedError", "gains", "groups", "over", "recession_direction", "sparsest"]

# What counts as a gain, and what as rounding, relative to the size of its terms; the rows to begin with, fewer where
# they hold so many numbers; how often rows are added; seconds in all.
LEAST, ROUNDING, ROWS, NUMBERS, ROUNDS, PATIENCE = 1e-6, 1e-9, 20_000, 2**24, 10, 30
# Rows of a block that join those from which a direction is found.
WORST = 100


class UndecidedError(Exception):
    """Time or rounds ran out."""


def recession_direction(loss: Loss, inputs: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    """θ as (q, k), its largest entry one in units of the columns' largest, along which no ℓ_i grows and some shrink.

    `inputs` (n, q) with the constant of the bias, `y` (n, k) encoded. None if there is no such direction: then the
    likelihood has a maximum. Raises UndecidedError if it could not be found out in time.
    """
    if loss.recession(y[:1]) is None:
        return None
    deadline = time.monotonic() + PATIENCE
    scale = np.abs(inputs).max(axis=0)
    scale[scale == 0] = 1  # of a column that none of these rows know
    inputs = inputs / scale
    (n, q), k = inputs.shape, y.shape[1]
    parts = np.array_split(np.arange(n), -(-n * k * k // NUMBERS))
    fixed = np.concatenate([_recession(loss, y[part])[1] for part in parts])
    free, equal = np.argwhere(~fixed), np.argwhere(fixed)
    most = max(1, min(ROWS, NUMBERS // (q * k)))

    def conditions(pairs: np.ndarray) -> np.ndarray:
        i, c = pairs.T
        rows = _recession(loss, y[i])[0][np.arange(len(i)), c]
        return np.einsum("ma,mk->mak", inputs[i], rows).reshape(len(pairs), q * k)

    def gained(theta: np.ndarray) -> np.ndarray:
        return np.concatenate([gains(loss, inputs[part], y[part], theta) for part in parts])

    same = np.zeros((0, q * k))
    for begin in range(0, len(equal) if len(free) else 0, most):
        same = np.asarray(np.linalg.qr(np.concatenate([same, conditions(equal[begin : begin + most])]), mode="r"))
        if time.monotonic() > deadline:
            raise UndecidedError
    # A direction for all rows is one for some: a few are enough to find that there is none.
    some = np.random.default_rng(0).permutation(len(free))[:most]
    for _ in range(ROUNDS):
        theta = _program(conditions(free[some]), same, deadline - time.monotonic()) if len(free) else None
        if theta is None:
            return None
        gain = gained(theta.reshape(q, k))
        if np.abs(gain[fixed]).max(initial=0) <= LEAST and gain[~fixed].min() >= -LEAST:
            return theta.reshape(q, k) / scale[:, None] if gain[~fixed].max() > LEAST else None
        some = np.union1d(some, np.argsort(gain[~fixed])[:most])
    raise UndecidedError


def gains(loss: Loss, inputs: np.ndarray, y: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """What every condition gains along θ (q, k), relative to the size of its terms: (n, c)."""
    rows = _recession(loss, y)[0]
    terms = np.einsum("nck,nk->nc", np.abs(rows), np.abs(inputs) @ np.abs(theta))
    return np.einsum("nck,nk->nc", rows, inputs @ theta) / np.maximum(terms, np.finfo(float).tiny)


def over(
    loss: Loss, inputs: np.ndarray, y: np.ndarray, blocks: Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]
) -> np.ndarray | None:
    """`recession_direction` of all rows, which `blocks` reads, found from some: those that it is not one for join."""
    for _ in range(ROUNDS):
        theta = recession_direction(loss, inputs, y)
        if theta is None:
            return None
        most, against = 0.0, []
        for some, targets in blocks():
            gain, (_, fixed) = gains(loss, some, targets, theta), _recession(loss, targets)
            short = np.where(fixed, -np.abs(gain), gain).min(axis=1)
            most = max(most, np.where(fixed, 0, gain).max())
            worst = np.argsort(short)[:WORST]
            worst = worst[short[worst] < -LEAST]
            against.append((some[worst], targets[worst]))
        if not sum(len(of) for of, _ in against):
            return theta if most > LEAST else None
        inputs, y = (np.concatenate([old, *new]) for old, new in zip((inputs, y), zip(*against)))
    raise UndecidedError


def sparsest(direction: np.ndarray, null: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Of the directions (q, k) that change predictions alike, that of the least Σ units |·|; `null` (q, m) changes
    none.
    """
    from scipy.optimize import linprog

    (q, m), found = null.shape, direction.copy()
    if m == 0:
        return found
    scaled, eye = units[:, None] * null, np.eye(q)
    for c in range(direction.shape[1]):
        d = units * direction[:, c]
        best = linprog(
            np.concatenate([np.zeros(m), np.ones(q)]),
            A_ub=np.block([[scaled, -eye], [-scaled, -eye]]),
            b_ub=np.concatenate([-d, d]),
            bounds=[(None, None)] * m + [(0, None)] * q,
            method="highs",
        )
        if best.status == 0:
            found[:, c] += null @ best.x[:m]
    return np.where(np.abs(found) * units[:, None] > LEAST * np.abs(found * units[:, None]).max(), found, 0)


def groups(null: np.ndarray, units: np.ndarray) -> list[list[int]]:
    """Rows of θ that are collinear, one group for each of the directions `null` (q, m), by elimination."""
    left, found, done = (units[:, None] * null).T.copy(), [], 0
    for column in range(left.shape[1]):
        if done == len(left):
            break
        pivot = done + int(np.abs(left[done:, column]).argmax())
        if np.abs(left[pivot, column]) <= LEAST * np.abs(left[done:]).max():
            continue
        left[[done, pivot]] = left[[pivot, done]]
        left[done] /= left[done, column]
        others = np.arange(len(left)) != done
        left[others] -= left[others, column][:, None] * left[done]
        done += 1
    for row in left[:done]:
        found.append([int(j) for j in np.flatnonzero(np.abs(row) > LEAST * np.abs(row).max())])
    return found


def _program(gains: np.ndarray, same: np.ndarray, seconds: float) -> np.ndarray | None:
    """θ of entries up to one, with the largest mean of gains θ ≥ 0, each in its own unit, and `same` θ = 0."""
    from scipy.optimize import linprog

    gains = gains / np.maximum(np.abs(gains).max(axis=1, keepdims=True), np.finfo(float).tiny)
    found = linprog(
        -gains.mean(axis=0),
        A_ub=-gains,
        b_ub=np.zeros(len(gains)),
        A_eq=same if len(same) else None,
        b_eq=np.zeros(len(same)) if len(same) else None,
        bounds=(-1, 1),
        method="highs",
        options={"time_limit": max(0.0, seconds)},
    )
    if found.status != 0:
        raise UndecidedError
    if -found.fun * len(gains) < LEAST:
        return None
    return np.where(np.abs(found.x) > ROUNDING, found.x, 0)


def _recession(loss: Loss, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = loss.recession(y)
    assert found is not None
    return found
