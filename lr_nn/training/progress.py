"""What a running training tells: a record handed to a callback a few times a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np


class Progress(NamedTuple):
    """Steps done of `steps`, epochs done of `epochs`, and the cost of the last mini-batch (per lane)."""

    step: int
    steps: int
    epoch: int
    epochs: int
    cost: np.ndarray


@contextmanager
def bar(description: str = "training") -> Iterator[Callable[[Progress], None]]:
    """A progress bar on the terminal: `with bar() as progress: train(..., progress=progress)`. Needs rich."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Display

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("cost {task.fields[cost]}"),
        TimeRemainingColumn(),
    )
    with Display(*columns, transient=True) as display:
        task = display.add_task(description, total=None, cost="-")

        def show(progress: Progress) -> None:
            costs = np.atleast_1d(progress.cost)
            text = f"{costs[0]:.6f}" if costs.size == 1 else f"{costs.min():.4f} to {costs.max():.4f}"
            display.update(task, total=progress.epochs, completed=progress.epoch, cost=text)

        yield show
