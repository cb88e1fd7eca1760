"""One model to a certified gap: `lr_nn.fit` beside the libraries people use, each as loose as the gap allows.

Every competitor minimises the same J = mean loss + penalty. Its cost is recomputed in float64 by one referee, and
its tolerance is the loosest of a grid at which J - J* ≤ 1e-10. One that takes longer than ten times as long as ours
(and two seconds) to come so far is left out of the table; its tries are in the record.
"""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from threadpoolctl import threadpool_limits

import lr_nn
from benchmarks import first_fits, fit_peers, harness
from benchmarks.cold import BEFORE
from benchmarks.earlier import earlier_fit
from benchmarks.figure import gaps
from benchmarks.fit_data import Problem, adult, correlated, dense, digits, sparse, wide
from benchmarks.harness import interleave, relative
from lr_nn import Batch, penalties

GAP = 1e-10
TOLERANCES = tuple(10.0**-k for k in range(3, 14))
THREADS = (1, 2)
OURS, FROM_NUMPY, EARLIER = "lr_nn.fit", "lr_nn.fit, from NumPy", f"lr_nn.fit at {BEFORE}"


class Tuned(NamedTuple):
    """A competitor at the loosest tolerance that reaches the gap, None if none did; seconds and gap of every try."""

    run: Callable[[], Any]
    tolerance: float | None
    threads: int
    tries: list[tuple[float, float]]


def ours(problem: Problem, x: Any, gap: float = GAP) -> Callable[[], Any]:
    """`fit` with a tolerance that certifies the gap."""
    k = int(problem.y.max()) + 1 if problem.classes else 1
    net = lr_nn.softmax_regression(x.shape[1], k) if problem.classes else lr_nn.logistic_regression(x.shape[1])
    penalty = penalties.Penalty(l1=problem.l1, l2=problem.l2)
    constant = _constant(problem)
    y = problem.y.astype(int) if problem.classes else problem.y

    def run() -> np.ndarray:
        found = lr_nn.fit(net, Batch(x, y), penalty=penalty, tol=gap / constant)
        if found.certificate > gap:
            raise SystemExit(f"not certified on {problem.name}: {found.message}")
        return found.coefficients

    return run


def _constant(problem: Problem) -> float:
    """The cost of the best constant model."""
    share = np.bincount(problem.y.astype(int)) / len(problem.y)
    return float(-(share * np.log(share)).sum())


def tuned(problem: Problem, solve: fit_peers.Solve, best: float, patience: float) -> Tuned:
    """The loosest tolerance of the grid at which the referee finds the gap, at the better number of threads.

    No further than a try of more than `patience` seconds. What compiles is run once before.
    """
    tries: list[tuple[float, float]] = []
    _quietly(problem, solve, TOLERANCES[0], 1)
    for tolerance in TOLERANCES:
        seconds = {}
        for threads in THREADS:
            began = time.perf_counter()
            found = _quietly(problem, solve, tolerance, threads)
            seconds[threads] = time.perf_counter() - began
            gap = problem.cost(found) - best
            if gap > GAP:
                break
        threads = min(seconds, key=lambda each: seconds[each])
        tries.append((seconds[threads], gap))
        if gap <= GAP or seconds[threads] > patience:
            break
    run = partial(_quietly, problem, solve, tolerance, threads)
    return Tuned(run, tolerance if gap <= GAP else None, threads, tries)


def _quietly(problem: Problem, solve: fit_peers.Solve, tolerance: float, threads: int) -> np.ndarray:
    with threadpool_limits(threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return solve(problem, tolerance)


def compared(problem: Problem, peers: dict[str, fit_peers.Solve], rounds: int) -> Iterator[dict[str, Any]]:
    """A row for each competitor: seconds relative to `lr_nn.fit`, the gap it reached and at what tolerance."""
    with jax.enable_x64(True):
        x = jax.device_put(problem.x)
    run = ours(problem, x)
    best = problem.cost(ours(problem, x, GAP / 1000)())
    run()
    began = time.perf_counter()
    run()
    patience = max(LEAST, PATIENCE * (time.perf_counter() - began))
    found = {
        OURS: Tuned(run, GAP, 0, _path(problem, x, best)),
        FROM_NUMPY: Tuned(ours(problem, problem.x), GAP, 0, []),
    }
    missed = {}
    for name, solve in peers.items():
        one = tuned(problem, solve, best, patience)
        if one.tolerance is None or one.tries[-1][0] > patience:
            missed[name] = one.tries
        else:
            found[f"{name}, {one.threads} thread{'s' * (one.threads > 1)}"] = one
    with earlier_fit(problem, GAP / _constant(problem)) as run_earlier:
        if run_earlier is not None:
            found[EARLIER] = Tuned(run_earlier, GAP, 0, [])
        seconds = interleave({name: each.run for name, each in found.items()}, rounds)
        gaps_found = {name: float(problem.cost(each.run()) - best) for name, each in found.items()}
    unit = float(np.median(seconds[OURS]))
    for name, each in found.items():
        yield {
            "case": problem.name,
            "competitor": name,
            **relative(seconds[name], seconds[OURS]),
            "ratios": [float(f"{ratio:.4g}") for ratio in seconds[name] / seconds[OURS]],
            "rounds": rounds,
            "tolerance": each.tolerance,
            "gap": gaps_found[name],
            "tries": _relative(each.tries, unit),
            "not_reached_by": {name: _relative(tries, unit) for name, tries in missed.items()},
        }


def _relative(tries: list[tuple[float, float]], unit: float) -> list[list[float]]:
    return [[float(f"{seconds / unit:.4g}"), float(f"{max(gap, 0.0):.3g}")] for seconds, gap in tries]


def _path(problem: Problem, x: Any, best: float) -> list[tuple[float, float]]:
    """Seconds and gap of ours at certificates from loose to tight."""
    tries = []
    for certificate in (1e-2, 1e-4, 1e-6, 1e-8, GAP):
        run = ours(problem, x, certificate)
        began = time.perf_counter()
        found = run()
        tries.append((time.perf_counter() - began, problem.cost(found) - best))
    return tries


# A peer that took at most PATIENCE times our time, or LEAST seconds, goes on to the next tolerance.
PATIENCE, LEAST = 10, 2.0


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
    "first": (first_fits.rows, "The first fit of a fresh process, no compilation cache; time relative to lr_nn.fit"),
    "wide": (partial(rows, wide, fit_peers.WIDE), "Logistic regression with an L1 penalty, more columns than rows"),
}

_main = harness.command("fit", SECTIONS)


@functools.wraps(_main)
def main(*args: Any, **settings: Any) -> None:
    """Measure, and draw the time to every gap as well."""
    _main(*args, **settings)
    out = settings.get("out", harness.RESULTS)
    gaps(harness.read("fit", out), tuple(SECTIONS), out / "fit_gaps.png")
