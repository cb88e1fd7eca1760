"""Least squares at once: by singular values, or, with an l2 penalty and few rows, in their dual."""

from __future__ import annotations

import numpy as np

from lr_nn.fitting.linear import Linear

__all__ = ["closed_form"]


def closed_form(objective: Linear) -> np.ndarray:
    """θ (q, k); of all that are as good, the one of the least norm of the weights where columns are centred."""
    frame, k = objective.source.frame, objective.shape[1]
    chunks = list(objective.source.each(lambda chunk: chunk.fetched()))
    rows = ((chunk.inputs, _targets(chunk), chunk.weight) for chunk in chunks)
    x, y, weight = (np.concatenate(each) for each in zip(*rows))
    x = x if frame.shift is None else x - frame.shift
    share = weight / objective.total
    held = bool(objective.ridge[-1].any()) if frame.bias else False
    free_bias = frame.bias and not held
    y_mean = share @ y if free_bias else np.zeros(k)
    x_mean = share @ x if free_bias else np.zeros(x.shape[1])  # zero but for rounding
    a, b = np.sqrt(share)[:, None] * (x - x_mean), np.sqrt(share)[:, None] * (y - y_mean)
    if held:
        a = np.concatenate([a, np.sqrt(share)[:, None]], axis=1)
    ridge = objective.ridge[: a.shape[1]]
    if (ridge == ridge[:, :1]).all():
        w = _solved(a, b, ridge[:, 0])
    else:
        w = np.concatenate([_solved(a, b[:, [c]], ridge[:, c]) for c in range(k)], axis=1)
    return np.concatenate([w, (y_mean - x_mean @ w)[None]]) if free_bias else w


def _targets(chunk) -> np.ndarray:
    y = np.asarray(chunk.y, np.float64).reshape(len(chunk.x), -1)
    return y if chunk.offset is None else y - (chunk.offset - chunk.frame.offset)


def _solved(a: np.ndarray, b: np.ndarray, ridge: np.ndarray) -> np.ndarray:
    """argmin ½ ‖a w - b‖² + ½ Σ ridge w²."""
    if (ridge > 0).all():
        half = 1 / np.sqrt(ridge)
        u, values, v = np.linalg.svd(a * half, full_matrices=False)
        return half[:, None] * (v.T @ ((values / (values**2 + 1))[:, None] * (u.T @ b)))
    if ridge.any():
        a = np.concatenate([a, np.diag(np.sqrt(ridge))])
        b = np.concatenate([b, np.zeros((len(ridge), b.shape[1]))])
    units = np.linalg.norm(a, axis=0)
    units[units == 0] = 1
    scaled = a / units
    u, values, v = np.linalg.svd(scaled, full_matrices=False)
    keep = values > values[:1].max(initial=0) * max(a.shape) * np.finfo(float).eps
    w = v[keep].T @ ((u[:, keep].T @ b) / values[keep][:, None]) / units[:, None]
    if keep.sum() < a.shape[1]:  # of least norm in the units of the columns: in the span of the rows
        span = np.linalg.qr(units[:, None] * v[keep].T)[0]
        w = span @ (span.T @ w)
    return w
