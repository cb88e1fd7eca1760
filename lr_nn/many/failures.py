"""Which fits have an optimum, and what to do about those that have none."""

from __future__ import annotations

import numpy as np
from jax.typing import ArrayLike

from lr_nn.types import Status

__all__ = ["advice", "has_optimum"]

REMEDY = {
    Status.max_steps: "raise max_steps or tol",
    Status.separated: "add an l2 penalty, and see that the rows of every fit hold every class",
    Status.non_finite: "rescale x and the offset, or add a penalty",
}


def has_optimum(status: ArrayLike) -> np.ndarray:
    """Which fits ended at an optimum, booleans of the shape of `status`: converged, or rank_deficient.

    The numbers of every other fit depend on where its search stopped.
    """
    return np.isin(status, (Status.converged, Status.rank_deficient))


def advice(status: ArrayLike) -> str:
    """A remedy for every way to fail in `status`, an array of any shape."""
    return "; ".join(f"{word}: {remedy}" for word, remedy in REMEDY.items() if word in np.asarray(status))
