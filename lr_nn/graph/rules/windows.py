"""Reductions over sliding windows, as pooling has them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lr_nn.graph.rules.base import Rule, is_float
from lr_nn.graph.rules.structure import padded, unpadded


class Sliding:
    """The windows of an array padded with `neutral`: one array of them for each place in a window, in order."""

    def __init__(
        self, x, neutral, *, window_dimensions, window_strides, padding, base_dilation, window_dilation
    ) -> None:
        """Pad, and count the windows."""
        self.shape = x.shape
        self.padding = tuple((low, high, step - 1) for (low, high), step in zip(padding, base_dilation))
        self.wide = padded(x, neutral, self.padding)
        self.window, self.strides, self.dilation = window_dimensions, window_strides, window_dilation
        self.counts = tuple(
            max((size - (w - 1) * d - 1) // s + 1, 0)
            for size, w, d, s in zip(self.wide.shape, self.window, self.dilation, self.strides)
        )

    def __iter__(self) -> Iterator[tuple[slice, ...]]:
        """Where the entries at one place of every window are."""
        for place in np.ndindex(*self.window):
            starts = [p * d for p, d in zip(place, self.dilation)]
            yield tuple(slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(starts, self.counts, self.strides))

    def back(self, wide):
        """An adjoint of the padded array, in the array."""
        return unpadded(wide, self.shape, self.padding)


def _sum(x, **params):
    windows = Sliding(x, 0, **params)
    return sum((windows.wide[place] for place in windows), np.zeros(windows.counts, x.dtype))


def _summed(g, v, x, **params):
    windows = Sliding(x, 0, **params)
    wide = np.zeros(windows.wide.shape, g.dtype)
    for place in windows:
        wide[place] += g
    return windows.back(wide)


def _extreme(operation: str, choose: np.ufunc, equation: str, adjoint: str) -> Rule:
    """The rule for the largest or the least of a window; the first of equal ones has the adjoint."""

    def worst(dtype):
        if is_float(dtype):
            return -np.inf if choose is np.maximum else np.inf
        return np.iinfo(dtype).min if choose is np.maximum else np.iinfo(dtype).max

    def forward(x, **params):
        windows = Sliding(x, worst(x.dtype), **params)
        return choose.reduce([windows.wide[place] for place in windows])

    def derivative(g, v, x, **params):
        windows = Sliding(x, worst(x.dtype), **params)
        wide, sought = np.zeros(windows.wide.shape, g.dtype), np.ones(v.shape, bool)
        for place in windows:
            found = sought & (windows.wide[place] == v)
            wide[place] += np.where(found, g, 0)
            sought &= ~found
        return windows.back(wide)

    return Rule(operation, forward, derivative, equation, adjoint, cost=_work)


def _work(v, x, *, window_dimensions):
    return v.size * int(np.prod(window_dimensions))


RULES: tuple[Rule, ...] = (
    Rule(
        "reduce_window_sum", _sum, _summed, "Σ {0} over windows {window_dimensions}", "{bar} to every term", cost=_work
    ),
    _extreme("reduce_window_max", np.maximum, "max {0} over windows {window_dimensions}", "{bar} to the first largest"),
    _extreme("reduce_window_min", np.minimum, "min {0} over windows {window_dimensions}", "{bar} to the first least"),
)
