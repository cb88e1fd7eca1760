"""One model to a certified gap: `lr_nn.fit` beside the libraries people use, each as loose as the gap allows.

Every competitor minimises the same J = mean loss + penalty. Its cost is recomputed in float64 by one referee, and
its tolerance is the loosest of a grid at which J - J* ≤ 1e-10; one that reaches it at none is left out, by name.
"""

from __future__ import annotations

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
TOLERANCES = tuple(10.0**-k for k in range(3, 15))
THREADS = (1, 2)
OURS, FROM_NUMPY = "lr_nn.fit", "lr_nn.fit, from NumPy"


class Tuned(NamedTuple):
    """A competitor at the loosest tolerance that reaches the gap."""

    run: Callable[[], Any]
    tolerance: float
    gap: float


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


def tuned(problem: Problem, solve: fit_peers.Solve, threads: int, best: float, patience: float) -> Tuned | None:
    """The loosest tolerance of the grid at which the referee finds the gap; None if none does in time."""
    for tolerance in TOLERANCES:

        def run(tolerance: float = tolerance) -> np.ndarray:
            with threadpool_limits(threads), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return solve(problem, tolerance)

        began = time.perf_counter()
        gap = problem.cost(run()) - best
        if gap <= GAP:
            return Tuned(run, tolerance, gap)
        if time.perf_counter() - began > patience:
            return None
    return None


def compared(problem: Problem, peers: dict[str, fit_peers.Solve], rounds: int) -> Iterator[dict[str, Any]]:
    """A row for each competitor: seconds relative to `lr_nn.fit`, the gap it reached and at what tolerance."""
    with jax.enable_x64(True):
        x = jax.device_put(problem.x)
    run = ours(problem, x)
    best = problem.cost(run())
    began = time.perf_counter()
    run()
    patience = max(5.0, PATIENCE * (time.perf_counter() - began))
    found = {OURS: Tuned(run, GAP, 0.0), FROM_NUMPY: Tuned(ours(problem, problem.x), GAP, 0.0)}
    missed = []
    for name, solve in peers.items():
        for threads in THREADS:
            what = f"{name}, {threads} thread{'s' * (threads > 1)}"
            one = tuned(problem, solve, threads, best, patience)
            if one is None:
                missed.append(what)
            else:
                found[what] = one
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


PATIENCE = 60


def rows(cases: Callable[[bool], list[Problem]], peers: dict[str, fit_peers.Solve], rounds: int, small: bool):
    """All cases of a section; few rounds, for every one is long."""
    return [row for problem in cases(small) for row in compared(problem, peers, max(3, rounds // 4))]


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
    "wide": (partial(rows, wide, SPARSE), "Logistic regression with an L1 penalty, more columns than rows"),
}

main = harness.command("fit", SECTIONS)
