"""Reductions and running reductions along an axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lr_nn.graph.rules.base import Rule, is_float


def reduction(operation: str, forward: Any, derivative: Any, equation: str, adjoint: str = "") -> Rule:
    """A rule that reduces one operand over `axes`: one operation for each of its entries."""
    return Rule(operation, forward, derivative, equation, adjoint, cost=lambda v, x: x.size)


def _kept(array, shape, axes):
    """What a reduction over `axes` left, with axes of length one in their place."""
    return np.asarray(array).reshape([1 if i in axes else size for i, size in enumerate(shape)])


def _least(dtype):
    return -np.inf if is_float(dtype) else False if dtype.kind == "b" else np.iinfo(dtype).min


def _most(dtype):
    return np.inf if is_float(dtype) else True if dtype.kind == "b" else np.iinfo(dtype).max


def _spread(g, v, x, *, axes):
    return np.broadcast_to(_kept(g, x.shape, axes), x.shape)


def _shared(g, v, x, *, axes):
    """Ties share equally."""
    chosen = x == _kept(v, x.shape, axes)
    return np.where(chosen, _kept(g, x.shape, axes) / chosen.sum(axis=axes, keepdims=True), 0)


def _others(g, v, x, *, axes):
    """Each entry gains the product of the others, made without a division, so that zeros do no harm."""
    rest = [i for i in range(x.ndim) if i not in axes]
    rows = x.transpose(rest + list(axes)).reshape(*(x.shape[i] for i in rest), -1)
    ones = np.ones_like(rows[..., :1])
    before = np.concatenate([ones, np.cumprod(rows[..., :-1], axis=-1)], axis=-1)
    after = np.concatenate([ones, np.cumprod(rows[..., :0:-1], axis=-1)], axis=-1)[..., ::-1]
    moved = (before * after)[..., : rows.shape[-1]].reshape([x.shape[i] for i in rest + list(axes)])
    return _kept(g, x.shape, axes) * moved.transpose(np.argsort(rest + list(axes)))


def running(operation: str, total: np.ufunc, partials: Callable[..., Any], equation: str, adjoint: str) -> Rule:
    """A rule for v_i = total(v_{i-1}, x_i) along an axis, `partials` the derivatives of v_i in both.

    Its adjoints run backwards along the axis: exact where an entry is zero, and of ties the latest has half.
    """

    def forward(x, *, axis, reverse):
        order = slice(None, None, -1 if reverse else 1)
        return np.moveaxis(total.accumulate(np.moveaxis(x, axis, 0)[order], axis=0)[order], 0, axis)

    def derivative(g, v, x, *, axis, reverse):
        order = slice(None, None, -1 if reverse else 1)
        g, v, x = (np.moveaxis(array, axis, 0)[order] for array in (g, v, x))
        gains, carried = np.zeros_like(g), np.zeros_like(g[:1]).sum(axis=0)
        for i in range(len(x) - 1, 0, -1):
            by_before, by_entry = partials(v[i], v[i - 1], x[i])
            gains[i] = (g[i] + carried) * by_entry
            carried = (g[i] + carried) * by_before
        gains[:1] = g[:1] + carried
        return np.moveaxis(gains[order], 0, axis)

    return Rule(operation, forward, derivative, equation, adjoint)


def _of_choice(v, before, entry):
    share = np.where(entry == v, np.where(before == v, 0.5, 1.0), 0.0)
    return 1 - share, share


def _argument(choose):
    def forward(x, *, axes, index_dtype):
        return choose(x, axis=axes[0]).astype(index_dtype)

    return forward


BACK = "{bar} ∂{out}/∂{0}"
RULES: tuple[Rule, ...] = (
    reduction(
        "reduce_sum", lambda x, *, axes: x.sum(axis=axes), _spread, "Σ {0} over axes {axes}", "{bar} to every term"
    ),
    reduction(
        "reduce_max",
        lambda x, *, axes: x.max(axis=axes, initial=_least(x.dtype)),
        _shared,
        "max {0} over axes {axes}",
        "{bar} where {0} is {out}",
    ),
    reduction(
        "reduce_min",
        lambda x, *, axes: x.min(axis=axes, initial=_most(x.dtype)),
        _shared,
        "min {0} over axes {axes}",
        "{bar} where {0} is {out}",
    ),
    reduction(
        "reduce_prod",
        lambda x, *, axes: x.prod(axis=axes),
        _others,
        "Π {0} over axes {axes}",
        "{bar} · Π of the other factors",
    ),
    reduction("reduce_and", lambda x, *, axes: np.bitwise_and.reduce(x, axis=axes), None, "all {0} over axes {axes}"),
    reduction("reduce_or", lambda x, *, axes: np.bitwise_or.reduce(x, axis=axes), None, "any {0} over axes {axes}"),
    reduction("reduce_xor", lambda x, *, axes: np.bitwise_xor.reduce(x, axis=axes), None, "parity of {0} over {axes}"),
    reduction("argmax", _argument(np.argmax), None, "argmax {0} along axes {axes}"),
    reduction("argmin", _argument(np.argmin), None, "argmin {0} along axes {axes}"),
    running("cumsum", np.add, lambda v, before, x: (1, 1), "running Σ {0} along axis {axis}", "Σ {bar} from here on"),
    running("cumprod", np.multiply, lambda v, before, x: (x, before), "running Π {0} along axis {axis}", BACK),
    running("cummax", np.maximum, _of_choice, "running max {0} along axis {axis}", BACK),
    running("cummin", np.minimum, _of_choice, "running min {0} along axis {axis}", BACK),
    running(
        "cumlogsumexp",
        np.logaddexp,
        lambda v, before, x: (np.exp(before - v), np.exp(x - v)),
        "running log Σ exp {0} along axis {axis}",
        BACK,
    ),
)
