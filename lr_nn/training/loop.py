"""The loop of a training on the host: calls of compiled steps, history, early stopping, interruption, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np

from lr_nn.data.rows import Rows
from lr_nn.network import Network
from lr_nn.training.early_stopping import Best, chosen
from lr_nn.training.feeds import Feed, InMemory
from lr_nn.training.hooks import HookCalls
from lr_nn.training.keeper import Keeper, Mark, NotSavedError
from lr_nn.training.progress import Progress
from lr_nn.training.signals import Asked, noted
from lr_nn.training.steps import State
from lr_nn.training.validation import judge
from lr_nn.trees import accumulator, all_finite
from lr_nn.types import Batch, Params

__all__ = ["Training"]

Ending = Literal["completed", "early_stopped", "budget_spent", "interrupted", "non_finite"]


@dataclass(frozen=True)
class Training:
    """What a training leaves: `params` and `opt_state`, ready to go on from, and its record.

    history: NumPy arrays with one row an epoch (and a column a lane): `cost`, the mean over the epoch of the cost
    before each step; with validation data also `validation_cost` (without penalty) and the metrics of the task; in
    private training `epsilon`, spent at the end of the epoch; and what a `Hook` returned, one row a call.
    status: completed, early_stopped, budget_spent, interrupted or non_finite, in lanes an array (m,) of these; message
    says it in words. steps: optimiser steps taken. signal: SIGINT (Ctrl-C) or SIGTERM, if one came while it ran.
    """

    params: Params
    opt_state: Any
    history: dict[str, np.ndarray]
    status: Ending | np.ndarray
    message: str
    steps: int
    signal: str | None = None


_finite = jax.jit(all_finite)


class Run:
    """One training in progress: the only mutable thing here, and it does not outlive the call."""

    chunk_seconds = 0.25

    def __init__(
        self,
        net: Network,
        feed: Feed,
        state: State,
        epochs: int,
        *,
        lanes: bool = False,
        validation: Batch | Rows | None = None,
        validation_axes: Batch | None = None,
        patience: int | None = None,
        progress: Callable[[Progress], None] | None = None,
        keeper: Keeper | None = None,
        hook: HookCalls | None = None,
        budget: int | None = None,
    ) -> None:
        """At the first step, or where the keeper's newest checkpoint was. budget: steps that may be taken."""
        self.net, self.feed, self.epochs, self.progress, self.keeper = net, feed, epochs, progress, keeper
        self.validation, self.axes, self.patience, self.hook = validation, validation_axes, patience, hook
        self.lanes = state.params[0].w.shape[:1] if lanes else ()
        self.signal: str | None = None
        self.scores: list[dict[str, np.ndarray]] = []
        self.best = Best(state, patience, self.lanes)
        self.costs: list[np.ndarray] = []
        found = None if keeper is None else keeper.found()
        if found is not None:
            self.costs, self.scores = found.costs, found.scores
            for scores in found.scores:
                self.best.judge(scores["validation_cost"], found.best)
            state = found.state._replace(order=feed.order(int(found.state.step)))
        self.state, self.kept, self.good = state, (state, state), found
        self.steps, self.limit = int(state.step), epochs * feed.per_epoch
        self.limit = self.limit if budget is None else min(self.limit, budget)

    def to_the_end(self) -> Training:
        """Steps until the epochs are done, patience is out, a signal came or the floats were left."""
        with noted(self.keeper is not None) as asked:
            try:
                ending = self._ending(asked)
                self.signal = asked.signal or self.signal
                return self._result(*ending)
            except NotSavedError as error:
                error.training = self._result("interrupted", str(error))
                raise
            finally:
                self.feed.close()

    def _ending(self, asked: Asked) -> tuple[Ending, str]:
        """What ends the loop from outside, and leaves a checkpoint."""
        try:
            return self._loop(asked)
        except KeyboardInterrupt:
            if asked.signal is not None:  # the second one: at once
                raise
            self.signal = "SIGINT"
            return "interrupted", f"interrupted after step {self.steps}{self._keep(self.good)}"
        except NotSavedError:
            raise
        except Exception:
            self._keep(self.good)
            raise

    def _loop(self, asked: Asked) -> tuple[Ending, str]:
        count, per_epoch = 1, self.feed.per_epoch
        while self.steps < self.limit and not self.best.stopped.all():
            if self.hook is not None:
                self.hook.call(self.steps, self.state.params)
            self.signal = self.feed.asked(asked.signal)
            if self.signal is not None:
                kept = self._keep(self.good)
                return "interrupted", f"interrupted by {self.signal} after step {self.steps}{kept}"
            count = min(count, self._steps_ahead())
            began, before = time.perf_counter(), self._mark()
            failed = self._advance(count)
            seconds = time.perf_counter() - began
            if failed:
                return ("non_finite", f"no lane left at step {self.steps}") if self.lanes else self._step_back()
            # The cost of the parameters that this call began with is finite: those can be gone on from.
            self.good = before
            if self.validation is not None and self.steps % per_epoch == 0:
                self._judge(self.validation)
            if self.progress is not None:
                self.progress(self._report())
            if self.keeper is not None and self.keeper.due():
                self.keeper.save(self.good)
            count = int(np.clip(count * self.chunk_seconds / seconds, 1, min(16 * count, InMemory.room)))
        stopped = self.best.stopped.all()
        if not stopped and not self.lanes and not bool(_finite(self.state.params)):
            return self._step_back()
        if self.hook is not None:
            self.hook.call(self.steps, self.state.params)
        self._keep_last()
        if stopped:
            return "early_stopped", self._early_stop_message()
        if self.steps < self.epochs * per_epoch:
            return "budget_spent", f"the privacy budget is spent after step {self.steps}"
        return "completed", f"{self.epochs} epochs of {per_epoch} steps"

    def _early_stop_message(self) -> str:
        if self.lanes:
            return f"no better validation cost for {self.patience} epochs in any lane; each keeps its best parameters"
        best = self.best
        return f"no better validation cost since epoch {best.epoch} ({best.cost:.6g}); its parameters kept"

    def _steps_ahead(self) -> int:
        """Steps that one call may take: to the end of the epoch if it is judged, to a hook, or to the last step."""
        ends = [self.limit - self.steps]
        if self.validation is not None:
            ends.append(self.feed.per_epoch - self.steps % self.feed.per_epoch)
        if self.hook is not None:
            ends.append(self.hook.hook.every - self.steps % self.hook.hook.every)
        return min(ends)

    def _advance(self, count: int) -> bool:
        """Take `count` steps; True if the cost of the last one was not finite (in any lane left)."""
        state, costs = self.feed.advance(self.state, count)
        self.kept, self.state = (self.kept[1], self.state), state
        self.costs.append(costs)
        self.steps += len(costs)
        return not np.isfinite(costs[-1]).any()

    def _step_back(self) -> tuple[Ending, str]:
        """Run again from a kept state to the last parameters whose cost was finite."""
        costs, per_epoch = np.concatenate(self.costs), self.feed.per_epoch
        bad = self.steps - 1 if not np.isfinite(costs[-1]).any() else self.steps
        self.costs, self.steps = [costs[:bad]], max(bad - 1, 0)
        older, newer = self.kept
        start = newer if int(newer.step) <= self.steps else older
        self.state, _ = self.feed.advance(start, self.steps - int(start.step))
        what = "the cost" if bad < len(costs) else "a parameter"
        hint = "lower the learning rate, scale the inputs, or clip the gradient (optax.clip_by_global_norm)"
        return "non_finite", f"{what} was not finite at step {bad} (epoch {bad // per_epoch}): {hint}"

    def _judge(self, validation: Batch | Rows) -> None:
        scores = judge(self.net, self.state.params, validation, int(self.feed.rows(0).max()), self.axes)
        if self.best.stopped.any():
            scores = {name: np.where(self.best.stopped, np.nan, score) for name, score in scores.items()}
        self.scores.append(scores)
        self.best.judge(scores["validation_cost"], self.state)

    def _report(self) -> Progress:
        per_epoch = self.feed.per_epoch
        return Progress(self.steps, self.limit, self.steps // per_epoch, self.epochs, self.costs[-1][-1])

    def _mark(self) -> Mark:
        """Where the training is; nothing of it changes as it goes on but the lists, which grow."""
        return Mark(self.state, self.best.state, self.costs, self.scores, len(self.scores))

    def _keep(self, mark: Mark | None) -> str:
        """Write a checkpoint, if any are kept and there is something to keep; in words."""
        if self.keeper is None or mark is None:
            return ""
        self.keeper.save(mark)
        return f"; resume=True goes on from step {int(mark.state.step)}"

    def _keep_last(self) -> None:
        """Write a checkpoint of the end, of the state before it if the next step from there is lost."""
        if self.keeper is None or self.keeper.newest == self.steps:
            return
        _, costs = self.feed.advance(self.state, 1)
        self._keep(self._mark() if np.isfinite(costs[-1]).any() else self.good)

    def _result(self, status: Ending, message: str) -> Training:
        """The result. With `patience` its state is the best one, except in lanes that an interruption cut short."""
        state = self.state
        if self.patience is not None and self.scores:
            state = chosen(self.best.stopped | (status != "interrupted"), self.best.state, state)
        history = {"cost": self._epoch_costs()}
        if self.scores:
            history |= {name: np.array([scores[name] for scores in self.scores]) for name in self.scores[0]}
        if self.hook is not None:
            history |= self.hook.columns()
        each, words = self._lane_statuses(status) if self.lanes else (status, "")
        return Training(state.params, state.opt_state, history, each, message + words, self.steps, self.signal)

    def _lane_statuses(self, status: Ending) -> tuple[np.ndarray, str]:
        """The status of each lane, and in words how many differ from that of the training."""
        stopped, failed = self.best.stopped, np.zeros(self.lanes, bool)
        if self.costs:
            costs = np.concatenate(self.costs)
            last = np.minimum(self.best.end * self.feed.per_epoch, len(costs)).astype(int) - 1
            failed = ~np.isfinite(costs[last, np.arange(costs.shape[1])])
        others = "completed" if status == "non_finite" else status
        each = np.where(failed, "non_finite", np.where(stopped, "early_stopped", others))
        words = f"; {failed.sum()} of {failed.size} lanes not finite" if failed.any() else ""
        if status != "early_stopped" and stopped.any():
            words += f"; {stopped.sum()} of {stopped.size} lanes stopped early"
        return each, words

    def _epoch_costs(self) -> np.ndarray:
        """Mean over the rows of each epoch of the cost before each step; a last epoch may be incomplete.

        NaN in lanes that had stopped before.
        """
        costs = np.concatenate([np.zeros((0, *self.lanes), accumulator(self.state.params[0].w.dtype)), *self.costs])
        means, end = [], self.best.end
        for epoch, start in enumerate(range(0, len(costs), self.feed.per_epoch)):
            each = costs[start : start + self.feed.per_epoch]
            mean = np.average(each, axis=0, weights=self.feed.rows(epoch)[: len(each)].astype(float))
            means.append(np.where(epoch < end, mean, np.nan))
        return np.array(means).reshape(-1, *self.lanes)
