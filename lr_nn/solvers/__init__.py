"""Directions, steps and certificates: what `fit` is assembled from. `solve` is the loop of all that is smooth."""

from lr_nn.solvers.smooth import solve

__all__ = ["solve"]


def __dir__() -> list[str]:
    return __all__
