"""One model to a certified gap: `lr_nn.fit` beside the libraries people use, each as loose as the gap allows.

Every competitor minimises the same J = mean loss + penalty. Its cost is recomputed in float64 by one referee, and
its tolerance is the loosest of a grid at which J - J* ≤ 1e-10; one that reaches it at none is left out, by name.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from threadpoolctl import threadpool_limits

import lr_nn
from benchmarks import fit_peers, harness
from benchmarks.fit_data import Problem, adult, correlated, dense, digits, sparse, wide
from benchmarks.harness import interleave, relative
from lr_nn import penalties

GAP = 1e-10
TOLERANCES = tuple(10.0**-k for k in range(3, 14))
THREADS = (1, 2)
OURS, FROM_NUMPY = "lr_nn.fit", "lr_nn.fit, from NumPy"


class Tuned(NamedTuple):
    """A competitor at the loosest tolerance that reaches the gap."""

    run: Callable[[], Any]
    tolerance: float


def ours(problem: Problem, x: Any) -> Callable[[], Any]:
    """`fit` with a tolerance that certifies the gap."""
    k = int(problem.y.max()) + 1 if problem.classes else 1
    net = lr_nn.softmax_regression(x.shape[1], k) if problem.classes else lr_nn.logistic_regression(x.shape[1])
    penalty = penalties.Penalty(l1=problem.l1, l2=problem.l2)
    share = np.bincount(problem.y.astype(int)) / len(problem.y)
    constant = -(share * np.log(share)).sum()
    y = problem.y.astype(int) if problem.classes else problem.y

    def run() -> np.ndarray:
        found = lr_nn.fit(net, x, y, penalty=penalty, tol=GAP / constant)
        if found.certificate > GAP:
            raise SystemExit(f"not certified on {problem.name}: {found.message}")
        return found.coefficients

    return run


def tuned(problem: Problem, solve: fit_peers.Solve, best: float, patience: float) -> tuple[float, int] | None:
    """The loosest tolerance of the grid at which the referee finds the gap, and the better number of threads.

    None if one try takes more than `patience` seconds before the gap is found, or none finds it.
    """
    for tolerance in TOLERANCES:
        seconds = {}
        for threads in THREADS:
            began = time.perf_counter()
            gap = problem.cost(_quietly(problem, solve, tolerance, threads)) - best
            seconds[threads] = time.perf_counter() - began
            if gap > GAP:
                break
        else:
            return tolerance, min(seconds, key=lambda threads: seconds[threads])
        if max(seconds.values()) > patience:
            return None
    return None


def _quietly(problem: Problem, solve: fit_peers.Solve, tolerance: float, threads: int) -> np.ndarray:
    with threadpool_limits(threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return solve(problem, tolerance)


def compared(problem: Problem, peers: dict[str, fit_peers.Solve], rounds: int) -> Iterator[dict[str, Any]]:
    """A row for each competitor: seconds relative to `lr_nn.fit`, the gap it reached and at what tolerance."""
    with jax.enable_x64(True):
        x = jax.device_put(problem.x)
    run = ours(problem, x)
    best = problem.cost(run())
    began = time.perf_counter()
    run()
    patience = max(LEAST, PATIENCE * (time.perf_counter() - began))
    found = {OURS: Tuned(run, GAP), FROM_NUMPY: Tuned(ours(problem, problem.x), GAP)}
    missed = []
    for name, solve in peers.items():
        one = tuned(problem, solve, best, patience)
        if one is None:
            missed.append(name)
        else:
            tolerance, threads = one
            what = f"{name}, {threads} thread{'s' * (threads > 1)}"
            found[what] = Tuned(partial(_quietly, problem, solve, tolerance, threads), tolerance)
    seconds = interleave({name: each.run for name, each in found.items()}, rounds)
    for name, each in found.items():
        yield {
            "case": problem.name,
            "competitor": name,
            **relative(seconds[name], seconds[OURS]),
            "ratios": [float(f"{ratio:.4g}") for ratio in seconds[name] / seconds[OURS]],
            "rounds": rounds,
            "tolerance": each.tolerance,
            "gap": float(problem.cost(each.run()) - best),
            "not_reached_by": missed,
        }


# A peer may take so many times as long as we do, or so many seconds, and go on to the next tolerance.
PATIENCE, LEAST = 20, 2.0


def rows(cases: Callable[[bool], list[Problem]], peers: dict[str, fit_peers.Solve], rounds: int, small: bool):
    """All cases of a section; few rounds, for every one is long."""
    return [row for problem in cases(small) for row in compared(problem, peers, max(3, rounds // 4))]


def first_call(rounds: int, small: bool) -> list[dict[str, Any]]:
    """Seconds of a first fit in a new process, above those of `import jax`: without a compilation cache, and with."""
    with tempfile.TemporaryDirectory() as cache:
        ways = {"cold": {}, "with the persistent cache": {"JAX_COMPILATION_CACHE_DIR": cache, **EVERYTHING}}
        _first(ways["with the persistent cache"])
        seconds = {name: np.array([_first(way) for _ in range(max(3, rounds // 4))]) for name, way in ways.items()}
    return [
        {
            "case": "569 x 30",
            "competitor": name,
            **relative(taken, seconds["cold"]),
            "ratios": [float(f"{ratio:.4g}") for ratio in taken / seconds["cold"]],
            "seconds": [round(float(each), 3) for each in taken],
            "bar_seconds": bar,
        }
        for (name, taken), bar in zip(seconds.items(), (2.0, 0.7), strict=True)
    ]


EVERYTHING = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
FIRST = """
import time
import jax
import numpy as np
x = np.random.default_rng(0).standard_normal((569, 30))
y = (x[:, 0] + np.random.default_rng(1).standard_normal(569) > 0).astype(float)
began = time.perf_counter()
import lr_nn
assert lr_nn.fit(lr_nn.logistic_regression(30), x, y).status == 0
print(time.perf_counter() - began)
"""


def _first(settings: dict[str, str]) -> float:
    told = subprocess.run(
        [sys.executable, "-c", FIRST], env={**os.environ, **settings}, capture_output=True, text=True, check=True
    )
    return float(told.stdout)


SMOOTH, SPARSE, SOFTMAX = fit_peers.SMOOTH, fit_peers.SPARSE, fit_peers.SOFTMAX
SECTIONS: dict[str, harness.Section] = {
    "adult": (
        partial(rows, adult, SMOOTH),
        "Logistic regression with an L2 penalty, census data; time relative to lr_nn.fit",
    ),
    "dense": (partial(rows, dense, SMOOTH), "The same, independent columns"),
    "correlated": (partial(rows, correlated, SMOOTH), "The same, columns of condition number 1e6"),
    "softmax": (partial(rows, digits, SOFTMAX), "Softmax regression with an L2 penalty, MNIST"),
    "sparse": (partial(rows, sparse, SPARSE), "Logistic regression with an L1 penalty"),
    "first_call": (first_call, "The first fit of a process, 569 x 30, with compilation"),
    "wide": (partial(rows, wide, SPARSE), "Logistic regression with an L1 penalty, more columns than rows"),
}

main = harness.command("fit", SECTIONS)
