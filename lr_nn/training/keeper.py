"""A training into checkpoints, and back: what is kept of it, and by what it is known again."""

from __future__ import annotations

import shutil
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn.training import checkpoints
from lr_nn.training.checkpoints import Checkpoints, ForeignError
from lr_nn.training.identity import compare, is_key, key_data, versions
from lr_nn.training.steps import State

if TYPE_CHECKING:
    from lr_nn.training.loop import Training

__all__ = ["NotSavedError"]


class Mark(NamedTuple):
    """A place in a training: its state, the best so far, costs of all steps (or more) and scores of `judged` epochs."""

    state: State
    best: State
    costs: list[np.ndarray]
    scores: list[dict[str, np.ndarray]]
    judged: int


class NotSavedError(OSError):
    """A checkpoint could not be written: `training` is what there is, and the checkpoints before are as they were."""

    training: Training


class Keeper:
    """Writes the checkpoints of one training, by the clock, and finds the one to go on from.

    Of several processes that train together the first writes, and all read.
    """

    def __init__(
        self, settings: Checkpoints, config: dict[str, Any], start: State, per_epoch: int, epochs: int, resume: bool
    ) -> None:
        """Raises OSError if nothing can be written to the folder, ValueError if what is in it is not to go on from."""
        checkpoints.orbax()
        self.settings, self.config, self.per_epoch, self.start = settings, config, per_epoch, start
        self.folder, self.newest = Path(settings.folder), 0
        self.writes = jax.process_index() == 0
        self.lock: AbstractContextManager = checkpoints.claim(self.folder) if self.writes else nullcontext()
        try:
            self.saved = self._resumed(epochs) if resume else None
            if not resume:
                self._nothing_there()
            self._room()
        except BaseException:
            self.close()
            raise
        self.written = time.monotonic()

    def _nothing_there(self) -> None:
        there = checkpoints.steps(self.folder)
        if there:
            raise ValueError(
                f"{self.folder} holds checkpoints already, the newest {there[0].name}: "
                "go on from it with resume=True, or name another folder"
            )

    def _resumed(self, epochs: int) -> checkpoints.Saved | None:
        saved = checkpoints.newest(self.folder, self.settings.fall_back)
        if saved is None:
            return None
        compare(saved, self.config)
        self.newest = saved.record["step"]
        if self.newest > epochs * self.per_epoch:
            raise ValueError(
                f"{saved.path} is at step {self.newest}, beyond {epochs} epochs of {self.per_epoch} steps: ask for more"
            )
        for path in checkpoints.steps(self.folder):
            if self.writes and path.name > saved.path.name:
                checkpoints.set_aside(path)
        return saved

    def close(self) -> None:
        """Others may write to the folder."""
        with self.lock:
            pass

    def due(self) -> bool:
        """Has it been long enough since the last checkpoint?"""
        return time.monotonic() - self.written >= self.settings.every

    def save(self, mark: Mark) -> None:
        """Write a checkpoint, unless there is a newer one or nothing to keep. Raises NotSavedError if it fails."""
        step = int(mark.state.step)
        if step <= self.newest or not self.writes:
            return
        epoch, position = divmod(step, self.per_epoch)
        record = {
            "config": self.config,
            "epoch": epoch,
            "position": position,
            "versions": versions(),
            "device": jax.devices()[0].device_kind,
        }
        try:
            checkpoints.write(self.folder, step, _arrays(mark), record)
            checkpoints.prune(self.folder, self.settings.keep)
        except Exception as error:
            raise NotSavedError(
                f"the checkpoint of step {step} could not be written to {self.folder}: {error}. "
                f"Training stopped; make room, and resume=True goes on from step {self.newest}"
            ) from error
        self.newest, self.written = step, time.monotonic()

    def _room(self) -> None:
        """Raise OSError if the disk has no room for the checkpoints that are to be kept."""
        each = sum(leaf.nbytes for leaf in jax.tree.leaves(self.start[:2]) if hasattr(leaf, "nbytes"))
        missing = max(1, self.settings.keep + 1 - len(checkpoints.steps(self.folder)))
        free = shutil.disk_usage(self.folder).free
        if free < missing * each:
            raise OSError(
                f"{missing} checkpoints of {each / 1e6:,.1f} MB need more room than there is in {self.folder}, "
                f"{free / 1e6:,.1f} MB"
            )

    def found(self) -> Mark | None:
        """Where the checkpoint to go on from left the training, None if there is none."""
        if self.saved is None:
            return None
        _, arrays, record = self.saved
        state = _state(self.saved, "", self.start)
        scores = {name.removeprefix(SCORES): array for name, array in arrays.items() if name.startswith(SCORES)}
        judged = record["epoch"] if scores else 0
        each = [{name: array[epoch] for name, array in scores.items()} for epoch in range(judged)]
        best = _state(self.saved, BEST, self.start) if scores else state
        return Mark(state, best, [arrays["costs"]], each, judged)


BEST, SCORES = "best/", "scores/"


def _named(prefix: str, state: State) -> dict[str, Any]:
    """The leaves of parameters and optimiser state by name, in the order of the tree."""
    found = {}
    for part, tree in (("params", state.params), ("opt_state", state.opt_state)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            found[f"{prefix}{part}{jax.tree_util.keystr(path)}"] = leaf
    return found


def _state(saved: checkpoints.Saved, prefix: str, like: State) -> State:
    """A state of a checkpoint, its leaves where those of `like` are."""
    path, arrays, record = saved
    mine = _named(prefix, like)
    theirs = {name for name in arrays if name.startswith((f"{prefix}params", f"{prefix}opt_state"))}
    for name in sorted(theirs ^ set(mine)):
        there, here = ("has", "has not") if name in theirs else ("has not", "has")
        raise ForeignError(f"{path} is of another optimiser: it {there} {name}, this training {here}")
    leaves = [_placed(path, name, arrays[name], leaf) for name, leaf in mine.items()]
    params, opt_state = jax.tree.unflatten(jax.tree.structure(like[:2]), leaves)
    return State(params, opt_state, None, jnp.asarray(record["step"], jnp.int32))


def _arrays(mark: Mark) -> dict[str, np.ndarray]:
    """All arrays of a checkpoint by name."""
    step = int(mark.state.step)
    leaves = _named("", mark.state) | (_named(BEST, mark.best) if mark.judged else {})
    scores = mark.scores[: mark.judged]
    return (
        {name: np.asarray(key_data(leaf)) for name, leaf in leaves.items()}
        | {"costs": np.concatenate(mark.costs)[:step]}
        | {f"{SCORES}{name}": np.array([each[name] for each in scores]) for name in (scores[0] if scores else {})}
    )


def _placed(path: Path, name: str, array: np.ndarray, like: Any) -> jax.Array:
    """An array of a checkpoint in place of a leaf."""
    plain = np.asarray(key_data(like))
    if (array.dtype, array.shape) != (jnp.result_type(plain), plain.shape):
        there, here = (f"{each.dtype}{each.shape}" for each in (array, plain))
        raise ForeignError(f"{path} is of another training: {name} is {there} there, {here} here")
    placed = jax.device_put(array, like.sharding) if getattr(like, "committed", False) else jnp.asarray(array)
    return jax.random.wrap_key_data(placed, impl=jax.random.key_impl(like)) if is_key(like) else placed
