"""Thousands of fits in one call: penalties, folds, bootstraps, groups, targets and starting points as lanes."""

from lr_nn.many.run import Progress
from lr_nn.many.solutions import Solutions, fit_many

__all__ = ["Progress", "Solutions", "fit_many"]
