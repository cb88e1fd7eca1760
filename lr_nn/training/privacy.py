"""The settings of private training and the accounting of its budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lr_nn.private import epsilon_of_steps, noise_multiplier
from lr_nn.training.steps import OVERFLOW

__all__ = ["Private"]

# Epochs for which ε is computed, at up to half a second each; the epochs between them get the next, larger, ε.
ACCOUNTED_EPOCHS = 30


@dataclass(frozen=True)
class Private:
    """The settings of DP-SGD (Abadi et al., 2016), (ε, δ)-private for adding or removing one example.

    max_norm: the norm to which the gradient of each example is clipped, from 1e-30 to 1e30. noise_multiplier: the
    standard deviation of the noise in units of max_norm. epsilon: the budget, which training does not exceed. With a
    noise multiplier training ends at the last step within the budget; without one the least multiplier that allows all
    epochs is found. delta: the δ of the budget, at most about 1/n; without it ε is not computed. The accounting needs
    dp-accounting, the extra `private`, and a noise multiplier of 0 or at least 0.05.

    Raises ValueError or TypeError for numbers out of range, and for a budget without δ.

    >>> private = Private(max_norm=1.0, epsilon=3.0, delta=1e-5)
    """

    max_norm: float
    noise_multiplier: float | None = None
    epsilon: float | None = None
    delta: float | None = None

    def __post_init__(self) -> None:
        """Validate the settings."""
        # Beyond, in float32, the deviation of the noise may be zero or infinite.
        _require("max_norm", self.max_norm, lambda number: 1e-30 <= number <= 1e30, "positive, from 1e-30 to 1e30")
        _optional("noise_multiplier", self.noise_multiplier, lambda number: 0 <= number < np.inf, "finite, at least 0")
        _optional("epsilon", self.epsilon, lambda number: 0 < number < np.inf, "positive and finite")
        _optional("delta", self.delta, lambda number: 0 < number < 1, "between 0 and 1")
        if self.noise_multiplier is None and self.epsilon is None:
            raise ValueError("private training needs a noise_multiplier, or a budget: epsilon and delta")
        if self.epsilon is not None and self.delta is None:
            raise ValueError("a budget epsilon needs a delta, at most about 1/n, such as delta=1e-5")


def _optional(name, number, test, expected):
    if number is not None:
        _require(name, number, test, expected)


def _require(name, number, test, expected):
    if isinstance(number, bool) or not isinstance(number, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number; got {number!r}")
    if not test(number):
        raise ValueError(f"{name} must be {expected}; got {number}")


class Accountant:
    """The noise multiplier of a private training, the number of steps within its budget, and the ε that steps spend.

    A Poisson batch exceeds its capacity with probability at most `OVERFLOW` in each step, which δ includes.
    """

    def __init__(self, private: Private, sampling_rate: float, steps: int) -> None:
        """Find the noise multiplier for `steps` steps, if it is not given, and how many of them the budget allows."""
        self.delta, multiplier = private.delta, private.noise_multiplier
        if multiplier is None:
            delta, epsilon = self._delta(steps), private.epsilon
            options = {"sampling_rate": sampling_rate, "steps": steps}
            multiplier = noise_multiplier(epsilon=epsilon, delta=delta, **options)  # type: ignore[arg-type]
        self.multiplier, self.steps = float(multiplier), steps
        if self.delta is not None:
            self._epsilon = epsilon_of_steps(self.multiplier, sampling_rate)
        if private.epsilon is not None and private.noise_multiplier is not None:
            self.steps = self._steps_within(private.epsilon, steps)

    def _delta(self, steps: int) -> float:
        assert self.delta is not None
        if not steps * OVERFLOW < self.delta:
            raise ValueError(f"delta must be above {steps * OVERFLOW:g} for {steps} steps; got {self.delta:g}")
        return self.delta - steps * OVERFLOW

    def epsilon(self, steps: int) -> float:
        """The ε of the first `steps` steps."""
        return self._epsilon(steps, self._delta(steps))

    def check_spent(self, steps: int) -> None:
        """Raise ValueError if the first `steps` steps, those before a resumption, cost more than the budget."""
        if steps > self.steps:
            spent = self.epsilon(steps)
            raise ValueError(f"{steps} steps before the resumption cost an epsilon of {spent:.3g}: raise the budget")

    def _steps_within(self, budget: float, steps: int) -> int:
        """The largest number of steps, up to `steps`, that the budget allows."""
        if self.epsilon(steps) <= budget:
            return steps
        least = self.epsilon(1)
        if least > budget:
            raise ValueError(f"one step costs an epsilon of {least:.3g}, above the budget of {budget:g}: add noise")
        low, high = 1, steps
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.epsilon(middle) <= budget else (low, middle)
        return low

    def column(self, epochs: int, per_epoch: int, steps: int) -> dict[str, np.ndarray]:
        """The ε spent at the end of each epoch, the last one after `steps` steps; nothing without a δ."""
        if self.delta is None:
            return {}
        ends = per_epoch * np.arange(1, epochs + 1)
        ends[-1:] = steps
        marks = np.unique(np.linspace(1, len(ends), min(len(ends), ACCOUNTED_EPOCHS)).round().astype(int)) - 1
        spent = np.array([self.epsilon(int(end)) for end in ends[marks]])
        return {"epsilon": spent[np.searchsorted(marks, np.arange(len(ends)))]}
