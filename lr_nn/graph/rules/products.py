"""Products of arrays: contractions and convolutions."""

from __future__ import annotations

import math
import string
from collections.abc import Iterator
from typing import Any

import numpy as np

from lr_nn.graph.rules.base import Rule, is_float
from lr_nn.graph.rules.structure import padded, unpadded


def _letters(ranks, dimension_numbers) -> tuple[str, str, str]:
    """Index letters of both operands and the result of a contraction."""
    (left, right), (left_batch, right_batch) = dimension_numbers
    supply = iter(string.ascii_letters)
    of_x, of_y = ([""] * rank for rank in ranks)
    for i, j in (*zip(left_batch, right_batch), *zip(left, right)):
        of_x[i] = of_y[j] = next(supply)
    of_x, of_y = ([letter or next(supply) for letter in letters] for letters in (of_x, of_y))
    batch = [of_x[i] for i in left_batch]
    free = [a for i, a in enumerate(of_x) if i not in (*left, *left_batch)]
    free += [a for j, a in enumerate(of_y) if j not in (*right, *right_batch)]
    return "".join(of_x), "".join(of_y), "".join(batch + free)


def _contract(x, y, *, dimension_numbers, preferred_element_type):
    if preferred_element_type is not None and not is_float(preferred_element_type):
        x, y = x.astype(preferred_element_type), y.astype(preferred_element_type)
    of_x, of_y, of_v = _letters((x.ndim, y.ndim), dimension_numbers)
    return np.einsum(f"{of_x},{of_y}->{of_v}", x, y, optimize=True)


def _contracted(g, v, x, y, *, dimension_numbers):
    of_x, of_y, of_v = _letters((x.ndim, y.ndim), dimension_numbers)
    by_x = np.einsum(f"{of_v},{of_y}->{of_x}", g, y, optimize=True)
    return by_x, np.einsum(f"{of_x},{of_v}->{of_y}", x, g, optimize=True)


def _contraction_work(v, x, y, *, dimension_numbers):
    (left, _), _ = dimension_numbers
    return 2 * v.size * math.prod(x.shape[i] for i in left)


def _is_plain(ranks, dimension_numbers) -> bool:
    """Is it a product of matrices or vectors as it is written, x · y?"""
    (left, right), (batch, _) = dimension_numbers
    return not batch and max(ranks) <= 2 and tuple(left) == (ranks[0] - 1,) and tuple(right) == (0,)


def _contraction_text(shapes, *, dimension_numbers) -> str:
    ranks = [len(shape) for shape in shapes]
    if _is_plain(ranks, dimension_numbers):
        return "{0} · {1}"
    of_x, of_y, of_v = map(",".join, _letters(ranks, dimension_numbers))
    return f"Σ {{0}}[{of_x}] {{1}}[{of_y}] → [{of_v}]"


PLAIN: dict[tuple[int, ...], tuple[str, str]] = {
    (2, 2): ("{bar} {1}ᵀ", "{0}ᵀ {bar}"),
    (1, 2): ("{1} {bar}", "{0} ⊗ {bar}"),
    (2, 1): ("{bar} ⊗ {1}", "{0}ᵀ {bar}"),
    (1, 1): ("{bar} {1}", "{bar} {0}"),
}


def _contraction_adjoints(shapes, *, dimension_numbers) -> tuple[str, ...]:
    ranks = tuple(len(shape) for shape in shapes)
    if _is_plain(ranks, dimension_numbers):
        return PLAIN[ranks]
    of_x, of_y, of_v = map(",".join, _letters(ranks, dimension_numbers))
    return f"Σ {{bar}}[{of_v}] {{1}}[{of_y}] → [{of_x}]", f"Σ {{0}}[{of_x}] {{bar}}[{of_v}] → [{of_y}]"


class _Windows:
    """A convolution as a sum over the entries κ of its kernel: v += x[windows of κ] w[κ].

    Inputs are (n, groups, channels, *space), kernels (groups, features, channels, *kernel).
    """

    def __init__(
        self,
        x,
        w,
        *,
        dimension_numbers: Any,
        window_strides,
        padding,
        lhs_dilation,
        rhs_dilation,
        feature_group_count,
        batch_group_count,
        **_,
    ) -> None:
        self.numbers, self.batches = dimension_numbers, batch_group_count
        self.groups = max(feature_group_count, batch_group_count)
        self.strides, self.dilation = window_strides, rhs_dilation
        still = ((0, 0, 0), (0, 0, 0))
        self.padding = (*still, *((low, high, step - 1) for (low, high), step in zip(padding, lhs_dilation)))
        straight = x.transpose(dimension_numbers.lhs_spec)
        self.shape = straight.shape
        wide = padded(straight, 0, self.padding)
        self.wide = wide.shape
        self.x = self.grouped(wide)
        w = w.transpose(dimension_numbers.rhs_spec)
        self.w = w.reshape(self.groups, -1, *w.shape[1:])
        self.space = tuple(
            max((size - (k - 1) * d - 1) // stride + 1, 0)
            for size, k, d, stride in zip(self.x.shape[3:], self.w.shape[3:], rhs_dilation, window_strides)
        )

    def grouped(self, wide):
        """(batch, channels, *space) as (n, groups, channels of a group, *space)."""
        if self.batches > 1:
            return wide.reshape(self.batches, -1, *wide.shape[1:]).swapaxes(0, 1)
        return wide.reshape(wide.shape[0], self.groups, -1, *wide.shape[2:])

    def ungrouped(self, x):
        """The inverse of `grouped`."""
        return (x.swapaxes(0, 1) if self.batches > 1 else x).reshape(self.wide)

    def __iter__(self) -> Iterator[tuple[tuple, tuple]]:
        """The entries κ, each with the place of its windows in the input."""
        for entry in np.ndindex(*self.w.shape[3:]):
            starts = [k * d for k, d in zip(entry, self.dilation)]
            windows = (slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(starts, self.space, self.strides))
            yield (..., *entry), (..., *windows)

    def value(self):
        """v, in the order of axes that JAX asks for."""
        (n, groups, _), features = self.x.shape[:3], self.w.shape[1]
        v = np.zeros((n, groups, features, math.prod(self.space)), np.result_type(self.x, self.w))
        for entry, windows in self:
            seen = self.x[windows].reshape(*self.x.shape[:3], -1)
            v += np.einsum("ngcs,goc->ngos", seen, self.w[entry], optimize=True)
        v = v.reshape(n, groups * features, *self.space)
        return v.transpose(np.argsort(self.numbers.out_spec))

    def adjoints(self, g):
        """x̄ and w̄, in the order of axes of x and w."""
        n, groups, channels = self.x.shape[:3]
        g = g.transpose(self.numbers.out_spec).reshape(n, groups, -1, math.prod(self.space))
        by_x, by_w = np.zeros(self.x.shape, g.dtype), np.zeros(self.w.shape, g.dtype)
        for entry, windows in self:
            seen = self.x[windows].reshape(n, groups, channels, -1)
            back = np.einsum("ngos,goc->ngcs", g, self.w[entry], optimize=True)
            by_x[windows] += back.reshape(n, groups, channels, *self.space)
            by_w[entry] = np.einsum("ngos,ngcs->goc", g, seen, optimize=True)
        by_x = unpadded(self.ungrouped(by_x), self.shape, self.padding)
        by_w = by_w.reshape(-1, *by_w.shape[2:])
        return by_x.transpose(np.argsort(self.numbers.lhs_spec)), by_w.transpose(np.argsort(self.numbers.rhs_spec))


def _convolution_work(v, x, w, *, dimension_numbers):
    return 2 * v.size * w.size // w.shape[dimension_numbers.rhs_spec[0]]


RULES: tuple[Rule, ...] = (
    Rule(
        "dot_general",
        _contract,
        _contracted,
        _contraction_text,
        _contraction_adjoints,
        cost=_contraction_work,
    ),
    Rule(
        "conv_general_dilated",
        lambda x, w, **params: _Windows(x, w, **params).value(),
        lambda g, v, x, w, **params: _Windows(x, w, **params).adjoints(g),
        "{0} * {1}",
        ("{bar} * {1} reversed", "{0} * {bar}"),
        cost=_convolution_work,
    ),
)
