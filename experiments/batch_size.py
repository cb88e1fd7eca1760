"""One example, a few, or all at a time? It depends on what is counted.

The same network learns digits by gradients of one row, of mini-batches and of all rows, each with the best of a few
learning rates. How soon the training cost is low is counted in updates, in passes over the data and in seconds. The
gradients' noise is measured beside √(tr Σ (n - m) / (m (n - 1))) / ‖G‖, of m of n rows drawn without replacement; and
the test accuracy at the same training cost, over random starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments import runner
from experiments.report import Section, Table

if TYPE_CHECKING:
    import numpy as np

    from experiments.data import Dataset
    from lr_nn import Network

RATES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


@dataclass(frozen=True)
class Options(runner.Options):
    """The options of batch_size."""

    batch_sizes: tuple[int, ...] = (1, 16, 128)
    """Rows of a mini-batch, growing; all rows at once come last of themselves."""
    passes: int = 600
    """Passes over the data at most."""
    updates: int = 15000
    """Updates at most, but one pass at least."""
    target: float = 0.1
    """The training cost to be reached."""
    hidden: int = 32
    """Width of the hidden layer, of tanh neurons."""
    starts: int = 6
    """Random starts of every batch size, for the test accuracy; and so many learning rates are tried."""


def main(options: Options, run: runner.Run) -> None:
    """Train with every batch size, and tell what each costs and leads to."""
    if list(options.batch_sizes) != sorted(set(options.batch_sizes)) or not 0 < len(options.batch_sizes) <= 3:
        raise runner.UserError(f"--batch-sizes must be one to three growing numbers; got {options.batch_sizes}")
    if min(*options.batch_sizes, options.passes, options.updates, options.hidden) < 1 or options.target <= 0:
        raise runner.UserError("--batch-sizes, --passes, --updates, --hidden must be at least 1, --target positive")
    if options.starts < len(RATES):
        raise runner.UserError(f"--starts must be at least {len(RATES)}, the number of learning rates")
