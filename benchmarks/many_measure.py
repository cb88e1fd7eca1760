"""What the sections of the benchmark of many models share: a referee, tuning, and rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.harness import interleave, relative

TOLERANCES = tuple(10.0**-k for k in range(3, 14))

Rows = list[dict[str, Any]]
Runs = dict[str, Callable[[], Any]]


def costs(x: Any, y: Any, share: Any, strengths: Any, found: np.ndarray) -> Any:
    """J of every model (m, d + 1) in float64: x (m, n, d) or (n, d), share (m, n) or (n,)."""
    w, b = found[:, :-1], found[:, -1:]
    eta = np.einsum("mnd,md->mn" if x.ndim == 3 else "nd,md->mn", x, w) + b
    loss = np.logaddexp(0, eta) - y * eta
    return (share * loss).sum(axis=1) + strengths / 2 * (w * w).sum(axis=1)


def loosest(solve: Callable[[float], Any], enough: Callable[[Any], bool], first: float = 1e-3) -> float | None:
    """The loosest tolerance of the grid, from `first` on, at which what is found is enough."""
    grid = (tolerance for tolerance in TOLERANCES if tolerance <= 1.1 * first)
    return next((tolerance for tolerance in grid if enough(solve(tolerance))), None)


def measured(case: str, runs: Runs, baseline: str, rounds: int, **facts: Any) -> Rows:
    """A row for each competitor, times relative to `baseline`; the first call of that with its compilation apart."""
    jax.clear_caches()
    began = time.perf_counter()
    runs[baseline]()
    first = time.perf_counter() - began
    seconds = interleave(runs, rounds)
    unit = float(np.median(seconds[baseline]))
    return [
        {
            "case": case,
            "competitor": name,
            **relative(seconds[name], seconds[baseline]),
            "ratios": [float(f"{ratio:.4g}") for ratio in seconds[name] / seconds[baseline]],
            "rounds": rounds,
            **({"first_call": round(first / unit, 2)} if name == baseline else {}),
            **facts,
        }
        for name in runs
    ]


def fastest(solve: Callable[[], Any]) -> tuple[Callable[[], Any], int]:
    """The better of one thread and two."""

    def limited(threads: int) -> Any:
        with threadpool_limits(threads):
            return solve()

    seconds = {}
    for threads in (1, 2):
        began = time.perf_counter()
        limited(threads)
        seconds[threads] = time.perf_counter() - began
    best = min(seconds, key=lambda threads: seconds[threads])
    return partial(limited, best), best
