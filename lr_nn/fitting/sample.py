"""Rows that stand for all: an optimum to begin from, and the curvature there as the first guess of L-BFGS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lr_nn.fitting.directions import factored, solve, with_shifts
from lr_nn.fitting.linear import Linear, Point
from lr_nn.fitting.problem import Problem
from lr_nn.fitting.settings import Settings
from lr_nn.fitting.source import Source

__all__ = ["diagonal", "guess", "is_tall", "of_some_rows"]

Guess = Callable[[np.ndarray], np.ndarray]
# Added to a diagonal of ones before a factor is made of products in float32.
LIFT = 1e-6


def is_tall(rows: int, q: int, settings: Settings) -> bool:
    """Are there so many rows that a sample of them is worth its cost?"""
    return rows >= 2 * settings.sample_least * q and rows * q > settings.sample_from


def of_some_rows(problem: Problem, source: Source, settings: Settings) -> Linear:
    """The cost of the rows of `source` alone, in the same coordinates.

    A column that few of them know may have none of its curvature in them, and its coefficient might go anywhere: it
    gets a ridge of about the curvature of one row.
    """
    objective = problem.objective
    chunks = source.chunks()
    total = float(sum(chunk.weight.sum() for chunk in chunks)) or 1.0
    extent = np.stack([chunk.extent for chunk in chunks]).max(axis=0)
    rare = source.length * problem.objective.deviation < settings.known_rows * extent**2
    extra = np.where(rare, extent**2 / source.length, 0)[:, None] * problem.curvature[None]
    return replace(objective, source=source, total=total, ridge=objective.ridge + extra)


def guess(sample: Linear, objective: Linear, point: Point, settings: Settings) -> Guess | None:
    """H⁻¹ at a point from the rows of the sample, with the ridge of the objective; None where it has no factor.

    Of many parameters of coupled outputs the same factor serves every output: that of the mean of their curvatures.
    """
    coupled = objective.loss.couples_outputs
    if coupled and objective.size > settings.newton_parameters:
        hessian = sample.diagonal_blocks(point, mean=True)
        factor = factored(hessian, LIFT)
        if factor is None:
            return None
        (scale, lower), k = factor[0], objective.shape[1]
        return lambda v: np.stack([solve([(scale, lower)], v[:, c][None])[0] for c in range(k)], axis=1)
    factor = factored(with_shifts(sample, sample.hessian(point, np.float32)), LIFT)
    if factor is None:
        return None
    return lambda v: objective.unblocked(solve(factor, objective.blocks(v)))


def diagonal(problem: Problem) -> Guess:
    """The inverse of about the diagonal of the Hessian: the unit of every coefficient."""
    curvature = (
        problem.objective.deviation[:, None] * np.maximum(problem.curvature, 1e-6)[None] + problem.objective.ridge
    )
    inverse = np.where(curvature > 0, 1 / np.where(curvature > 0, curvature, 1), 0)
    return lambda v: inverse * v
