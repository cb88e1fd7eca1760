"""What runs for long tells: a record handed to a callback a few times a second, and a bar that shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import numpy as np

__all__ = ["Progress", "bar"]


class Progress(NamedTuple):
    """Steps done of `steps`, epochs done of `epochs`, and the cost of the last mini-batch (per lane)."""

    step: int
    steps: int
    epoch: int
    epochs: int
    cost: np.ndarray

    @property
    def share(self) -> tuple[int, int]:
        """Epochs done, and of how many."""
        return self.epoch, self.epochs

    @property
    def told(self) -> str:
        """The cost, or its range over lanes."""
        costs = np.atleast_1d(self.cost)
        text = f"{costs[0]:.6f}" if costs.size == 1 else f"{costs.min():.4f} to {costs.max():.4f}"
        return f"cost {text}"


class Telling(Protocol):
    """What a bar can show."""

    @property
    def share(self) -> tuple[int, int]:
        """How much is done, and of how much."""

    @property
    def told(self) -> str:
        """How it goes."""


@contextmanager
def bar(description: str = "training") -> Iterator[Callable[[Telling], None]]:
    """A progress bar on the terminal: `with bar() as progress: train(..., progress=progress)`. Needs rich.

    It serves `fit_many` as well.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Display

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(),
    )
    with Display(*columns, transient=True) as display:
        task = display.add_task(description, total=None, told="")

        def show(progress: Telling) -> None:
            done, total = progress.share
            display.update(task, total=total, completed=done, told=progress.told)

        yield show
