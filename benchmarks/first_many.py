"""Many fits as the first call of a fresh process: seconds and compilations, beside scikit-learn and an earlier commit.

Every number comes from a process of its own without a compilation cache. Clock and count start when everything is
imported, the devices are known, and the data are drawn.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import many_peers
from benchmarks.cold import BEFORE, ROOT, earlier
from benchmarks.first_fits import in_a_process, summed_up, timed
from benchmarks.fit_data import census

OURS, EARLIER, SKLEARN = "lr_nn", f"lr_nn at {BEFORE}", "scikit-learn"
FOLDS, ADULT = "5 folds x 20 penalties, 1,024 x 20", "5 folds x 100 penalties, adult 32,560 x 108"
FITS, BOOTSTRAP = "2,000 fits of 500 x 20", "1,000 bootstrap fits of 569 x 30"
CASES = (FOLDS, FITS, BOOTSTRAP, ADULT)
TOLERANCE, GAP = 1e-6, 1e-10


def data(case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]:
    """x, y, weights of lanes, and strengths."""
    rng = np.random.default_rng(0)
    if case == ADULT:
        x, y = census()
        n = len(y) // 5 * 5
        return x[:n], y[:n], None, np.geomspace(1e-1, 1e-6, 100)
    if case == BOOTSTRAP:
        from sklearn.datasets import load_breast_cancer

        x, y = load_breast_cancer(return_X_y=True)
        weights = rng.multinomial(len(y), np.full(len(y), 1 / len(y)), size=1000).astype(float)
        return (x - x.mean(axis=0)) / x.std(axis=0), y.astype(float), weights, np.full(1000, 1e-3)
    lead = (2000,) if case == FITS else ()
    n, d = (500, 20) if case == FITS else (1024, 20)
    x, w = rng.standard_normal((*lead, n, d)), rng.standard_normal((*lead, d, 1)) / d**0.5
    y = (rng.random((*lead, n)) < 1 / (1 + np.exp(-(x @ w)[..., 0]))).astype(float)
    return x, y, None, np.full(2000, 1e-3) if case == FITS else np.geomspace(1, 1e-4, 20)


def solver(case: str, competitor: str) -> Callable[..., Any]:
    """All fits of x, y, weights and strengths, by a competitor, everything imported."""
    folds = case in (FOLDS, ADULT)
    if competitor == SKLEARN:
        if not folds:
            return lambda x, y, weights, strengths: many_peers.scikit_learn(
                "newton-cholesky", x, y, weights, strengths, TOLERANCE
            )
        return lambda x, y, weights, strengths: many_peers.scikit_learn_folds(
            "newton-cholesky", x, y, np.arange(len(y)) % 5, strengths, TOLERANCE
        )
    lr_nn: Any = import_module("lr_nn")
    late = competitor == OURS

    def ours(x: np.ndarray, y: np.ndarray, weights: Any, strengths: np.ndarray) -> Any:
        net, penalty = lr_nn.logistic_regression(x.shape[-1]), lr_nn.penalties.l2(strengths)
        if folds:
            given = (lr_nn.Batch(x, y),) if late else (x, y)
            tol = {"tol": GAP} if late else {"settings": lr_nn.many.Settings(tol=GAP)}
            return lr_nn.cross_validate(net, *given, penalty=penalty, folds=np.arange(len(y)) % 5, **tol)
        if late:
            return lr_nn.fit_many(net, lr_nn.Batch(x, y, weights), penalty=penalty, tol=GAP)
        return lr_nn.fit_many(net, x, y, weight=weights, penalty=penalty, tol=GAP)

    return ours


def measure(case: str, competitor: str) -> dict[str, Any]:
    """Seconds and programs of the first call, of a second one, and of calls with other rows and other lanes."""
    x, y, weights, strengths = data(case)
    solve = solver(case, competitor)
    jax.devices()
    less = slice(None, -5) if case in (FOLDS, ADULT) else slice(None, -1)
    fewer = None if weights is None else weights[:, less]
    rows = x[:, less] if x.ndim == 3 else x[less]
    stages: dict[str, Callable[[], Any]] = {
        "first": lambda: solve(x, y, weights, strengths),
        "warm": lambda: solve(x, y, weights, strengths),
        "fewer rows": lambda: solve(rows, y[..., less], fewer, strengths),
    }
    if competitor != SKLEARN:
        lanes = slice(None, -1)
        own_x, own_y = (x[lanes], y[lanes]) if x.ndim == 3 else (x, y)
        own = None if weights is None else weights[lanes]
        stages["one lane less"] = lambda: solve(own_x, own_y, own, strengths[lanes])
    return timed(stages)


def rows(rounds: int, small: bool) -> list[dict[str, Any]]:
    """A row for each case and competitor, time relative to ours; competitors take turns, a process a call."""
    found, rounds = [], 1 if small else max(1, rounds // 7)
    with tempfile.TemporaryDirectory() as folder:
        has_earlier = earlier(Path(folder))
        for case in CASES[:1] if small else CASES:
            names = [OURS, SKLEARN, *([EARLIER] if has_earlier else [])]
            runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
            for turn in range(rounds):
                for name in np.random.default_rng(turn).permutation(names):
                    source = Path(folder) if name == EARLIER else ROOT
                    runs[name].append(in_a_process(case, name, source, "benchmarks.first_many"))
            found += [summed_up(case, name, runs[name], runs[OURS]) for name in names]
    return found


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
