"""How lanes are run: the keywords of `fit_many` and its kin, and what they tell of their progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from jax.typing import DTypeLike

__all__ = ["Progress", "Settings"]


class Progress(NamedTuple):
    """Lanes done, of how many, and how many of those done did not converge."""

    done: int
    lanes: int
    failed: int

    @property
    def share(self) -> tuple[int, int]:
        """Lanes done, and of how many."""
        return self.done, self.lanes

    @property
    def told(self) -> str:
        """How many did not converge."""
        return f"{self.failed:,} did not converge" if self.failed else ""


@dataclass(frozen=True)
class Settings:
    """The keywords of `fit_many` and its kin that say how lanes are run."""

    tol: float
    max_steps: int
    solver: str
    dtype: DTypeLike | None
    schedule: str
    memory: int
    progress: Callable[[Progress], None] | None
