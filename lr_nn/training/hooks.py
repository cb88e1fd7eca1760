"""A user's function that is called at regular steps of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lr_nn import check
from lr_nn.backward import backprop
from lr_nn.network import Network
from lr_nn.types import Backprop, Batch, Params

__all__ = ["Hook"]


@dataclass(frozen=True)
class Hook:
    """Call `function(step, params, bp)` after every `every` steps: spectra, noise scales, kernels along a training.

    step: the number of steps taken, from 0 to the last one. params: the parameters after them. bp: the pass of the next
    step's mini-batch at these parameters, which do not depend on it; padding rows of a ragged or Poisson batch have
    weight zero. The function runs on the host between compiled calls of steps. It returns None, or a dict of numbers
    and arrays: `history` gets a column `hook_NAME` for each, with one row a call, and the steps as `hook_step`. A
    resumed training has the rows from where it was resumed.

    >>> from lr_nn import per_example
    >>> hook = Hook(lambda step, params, bp: {"noise_scale": per_example.noise_scale(bp).scale}, every=100)
    """

    function: Callable[[int, Params, Backprop], Mapping[str, Any] | None]
    every: int = 1

    def __post_init__(self) -> None:
        """Validate the settings."""
        if not callable(self.function):
            raise TypeError(f"the function of a hook must be callable; got {self.function!r}")
        check.positive_integer("every", self.every)


class HookCalls:
    """The calls of a hook and what they returned."""

    def __init__(self, hook: Hook, net: Network, batch: Callable[[int], Batch]) -> None:
        """`batch` gives the mini-batch of a step."""
        if not isinstance(hook, Hook):
            raise TypeError(f"hook must be a training.Hook(function, every=100); got {hook!r}")
        self.hook, self.net, self.batch = hook, net, batch
        self.values: list[dict[str, np.ndarray]] = []

    def call(self, step: int, params: Params) -> None:
        """Call the hook if `every` divides `step`, and keep what it returns as NumPy arrays."""
        if step % self.hook.every:
            return
        found = self.hook.function(step, params, backprop(self.net, params, self.batch(step)))
        if found is None:
            return
        expected = " of numbers and arrays, none of them named step"
        wrong = not isinstance(found, Mapping) or "step" in found
        if self.values and not wrong:
            names = [name for name in self.values[0] if name != "step"]
            expected, wrong = f" of {', '.join(names)}, as before", set(found) != set(names)
        if wrong:
            raise TypeError(f"a hook must return None or a dict{expected}; got {found!r:.200} at step {step}")
        self.values.append({"step": np.asarray(step)} | {name: _copied(name, each) for name, each in found.items()})

    def columns(self) -> dict[str, np.ndarray]:
        """A column of every returned value, one row a call; of objects where shapes differ."""
        names = self.values[0] if self.values else {}
        return {f"hook_{name}": _stacked([each[name] for each in self.values]) for name in names}


def _copied(name: str, value: Any) -> np.ndarray:
    try:
        return np.array(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"a hook must return numbers and arrays; {name} is {value!r:.200}: {error}") from error


def _stacked(arrays: list[np.ndarray]) -> np.ndarray:
    if len({array.shape for array in arrays}) == 1:
        return np.stack(arrays)
    column = np.empty(len(arrays), object)
    column[:] = arrays
    return column
