"""Thousands of fits in one call: penalties, folds, bootstraps, groups, targets and starting points as lanes."""

from lr_nn.many.compiled import Solved, solve
from lr_nn.many.cross_validation import CrossValidation, cross_validate
from lr_nn.many.groups import Groups, fit_groups
from lr_nn.many.paths import Path, largest_strength, regularization_path
from lr_nn.many.resample import Bootstrap, bootstrap
from lr_nn.many.settings import Progress
from lr_nn.many.solutions import Solutions, fit_many

__all__ = [
    "Bootstrap",
    "CrossValidation",
    "Groups",
    "Path",
    "Progress",
    "Solutions",
    "Solved",
    "bootstrap",
    "cross_validate",
    "fit_groups",
    "fit_many",
    "largest_strength",
    "regularization_path",
    "solve",
]


def __dir__() -> list[str]:
    return __all__
