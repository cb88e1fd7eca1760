"""Rows that stand for all: an optimum to begin from, and the curvature there as the first guess of L-BFGS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lr_nn.fitting.chunks import Chunk
from lr_nn.fitting.directions import factored, solve, with_shifts
from lr_nn.fitting.linear import Linear
from lr_nn.fitting.settings import Settings
from lr_nn.fitting.source import Source

__all__ = ["diagonal", "guess", "is_tall", "of_some_rows"]

Guess = Callable[[np.ndarray], np.ndarray]
LIFT = 1e-10


def is_tall(rows: int, q: int, settings: Settings) -> bool:
    """Are there so many rows that a sample of them is worth its cost?"""
    return rows >= 2 * settings.sample_least * q and rows * q > settings.sample_from


def of_some_rows(objective: Linear, source: Source, settings: Settings) -> Linear:
    """The cost of the rows of `source` alone, in the same coordinates.

    A column that few of them know may have none of its curvature in them, and its coefficient might go anywhere: it
    gets a ridge of about the curvature that it may have in all rows.
    """

    def sums(chunk: Chunk):
        squares = chunk.inputs**2
        return chunk.weight.sum(), chunk.weight @ squares, chunk.weight**2 @ squares**2

    total, squares, fourth = source.fold(sums)
    known = squares**2 > settings.known_rows * fourth
    ridge = objective.ridge.copy()
    d = len(known)
    ridge[:d] += np.where(known, 0, objective.extent[:d] ** 2 / source.length)[:, None]
    return replace(objective, source=source, total=float(total), ridge=ridge)


def guess(sample: Linear, objective: Linear, theta: np.ndarray, settings: Settings) -> Guess | None:
    """H⁻¹ at θ from the rows of the sample, with the ridge of the objective; None where it has no factor.

    Of many parameters of coupled outputs the same factor serves every output: that of the mean of their curvatures.
    """
    coupled = objective.loss.couples_outputs
    if coupled and objective.size > settings.newton_parameters:
        hessian = sample.diagonal_blocks(theta, 1.0).mean(axis=0, keepdims=True)
        factor = factored(hessian, LIFT)
        if factor is None:
            return None
        (scale, lower), k = factor[0], objective.shape[1]
        return lambda v: np.stack([solve([(scale, lower)], v[:, c][None])[0] for c in range(k)], axis=1)
    factor = factored(with_shifts(sample, sample.hessian(theta)), LIFT)
    if factor is None:
        return None
    return lambda v: objective.unblocked(solve(factor, objective.blocks(v)))


def diagonal(sample: Linear, theta: np.ndarray) -> Guess:
    """The inverse of the diagonal of the Hessian at θ: the unit of every coefficient."""
    coupled = sample.loss.couples_outputs

    def sums(chunk: Chunk) -> np.ndarray:
        eta = chunk.eta(theta)
        found = np.einsum("aan->na", chunk.curvatures(eta)) if coupled else chunk.terms(eta).curvature
        if found is None:
            found = chunk.weight[:, None] * np.ones((1, chunk.outputs))
        squares = (found.T @ chunk.inputs**2).T
        return np.concatenate([squares, found.sum(axis=0)[None]]) if chunk.frame.bias else squares

    curvature = sample.source.fold(sums) / sample.total + sample.ridge
    inverse = 1 / np.maximum(curvature, np.finfo(float).tiny)
    inverse = np.where(curvature > 1e-12 * curvature.max(), inverse, 0)
    return lambda v: inverse * v
