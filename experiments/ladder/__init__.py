"""From one neuron to a deep network: what does each rung of the ladder learn?

Every rung is trained on real images by the hand-written gradient of lr_nn, which is then compared with jax.grad:
in float32, against float64, and in time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from experiments import runner

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    import lr_nn


@dataclass(frozen=True)
class Options(runner.Options):
    """The options of the ladder."""

    data: Literal["digits", "cat", "mnist"] = "digits"
    """digits: scikit-learn's, with its diabetes patients for rung 4; cat: photographs (rungs 1, 5, 6); mnist: IDX
    files (all rungs but 4)."""
    rungs: tuple[Literal[1, 2, 3, 4, 5, 6], ...] = (1, 2, 3, 4, 5, 6)
    """Which rungs to climb."""
    steps: int | None = None
    """At most so many optimiser steps a rung, in whole epochs; None: as many as its protocol says."""
    repeats: int = 30
    """Pairs of measurements of the step time."""


def main(options: Options, run: runner.Run) -> None:
    """Climb the rungs; show and write what was found."""
    for name, value in (("steps", options.steps), ("repeats", options.repeats)):
        if value is not None and value < 1:
            raise runner.UserError(f"--{name} must be at least 1; got {value}")

    from experiments.ladder import rungs, story
    from experiments.ladder.climb import climb

    tasks = rungs.load(options.data, options.data_dir, options.seed)
    chosen = [rung for rung in rungs.RUNGS if rung.number in options.rungs and rung.number in tasks]
    if not chosen:
        raise runner.UserError(
            f"--rungs must name some of {', '.join(map(str, tasks))}, which --data {options.data} has; "
            f"got {' '.join(map(str, options.rungs)) or 'none'}"
        )
    with run.progress() as display:
        bars = [display.add_task(rung.title, total=None, start=False, note="") for rung in chosen]
        results = []
        for rung, bar in zip(chosen, bars):
            display.start_task(bar)
            task, protocol = tasks[rung.number], rungs.PROTOCOLS[options.data][rung.number]
            if options.steps is not None:
                protocol = protocol.shortened(options.steps, len(task.train.x))
            result = climb(rung, task, protocol, options.seed, options.repeats, _show(display, bar))
            display.update(bar, note=f"test {result.score('test')}")
            display.stop_task(bar)
            for line in result.lines():
                run.record(**line)
            results.append(result)
    story.tell(options, run, results)
    if run.console.is_terminal:
        run.console.print(f"[bold]{run.folder / 'report.html'}[/] has the figures", soft_wrap=True)


def _show(display: Progress, bar: TaskID) -> Callable[[lr_nn.training.Progress], None]:
    """A callback for `lr_nn.train` that moves a bar."""

    def show(progress: lr_nn.training.Progress) -> None:
        display.update(bar, total=progress.steps, completed=progress.step, note=f"cost {progress.cost:.4f}")

    return show
