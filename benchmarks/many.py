"""Thousands of models in one call: `lr_nn.fit_many` and its kin beside one model a call on all cores.

Every competitor minimises the same costs, and its tolerance is the loosest of a grid at which a referee in float64
finds every model (of a part of them, where they are many) within the gap, or the gradient, that is asked for.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import Any

import jax
import numpy as np

import lr_nn
from benchmarks import first_many, harness, many_paths, many_peers
from benchmarks.fit_data import census
from benchmarks.harness import relative
from benchmarks.many_measure import Rows, Runs, costs, loosest, measured
from lr_nn import Batch, penalties

GAP, GRADIENT = 1e-10, 1e-6
# Those of scikit-learn with the same optimum; lbfgs takes three to five times as long.
SOLVERS = ("newton-cholesky",)
# Models on which the tolerance of a competitor is tuned.
TUNED_ON = 200
OURS, FROM_NUMPY = "lr_nn.fit_many", "lr_nn.fit_many, from NumPy"


def groups(difficult: bool, rounds: int, small: bool) -> Rows:
    """Independent fits of 500 x 20: alike, or with signals of 0.1 to 10 and strengths of 1e-1 to 1e-6."""
    m, n, d = (40 if small else 2000), 500, 20
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((m, n, d)), rng.standard_normal((m, d)) / d**0.5
    signal = np.exp(rng.uniform(np.log(0.1), np.log(10), m)) if difficult else np.ones(m)
    strengths = np.exp(rng.uniform(np.log(1e-6), np.log(1e-1), m)) if difficult else np.full(m, 1e-3)
    eta = signal[:, None] * np.einsum("mnd,md->mn", x, w)
    y = (rng.random((m, n)) < 1 / (1 + np.exp(-eta))).astype(float)
    case = f"{m:,} fits of {n} x {d}" + (", of mixed difficulty" if difficult else "")
    return _lanes(case, x, y, None, strengths, rounds)


def bootstrap(rounds: int, small: bool) -> Rows:
    """Resamples of scikit-learn's breast-cancer data, ridge."""
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    m = 40 if small else 1000
    weights = np.random.default_rng(0).multinomial(len(y), np.full(len(y), 1 / len(y)), size=m).astype(float)
    return _lanes(f"{m:,} bootstrap fits of 569 x 30", x, y.astype(float), weights, np.full(m, 1e-3), rounds)


def _lanes(case: str, x: np.ndarray, y: np.ndarray, weights: Any, strengths: np.ndarray, rounds: int) -> Rows:
    net, few = lr_nn.logistic_regression(x.shape[-1]), slice(TUNED_ON)
    share = np.full(y.shape[-1], 1 / y.shape[-1]) if weights is None else weights / weights.sum(axis=1, keepdims=True)
    constants = costs(x, y, share, strengths, _constants(y, share, len(strengths), x.shape[-1]))

    def ours(x: Any, gap: float = GAP, **settings: Any) -> np.ndarray:
        penalty, tol = penalties.l2(strengths), gap / constants.max()
        found = lr_nn.fit_many(net, Batch(x, y, weights), penalty=penalty, tol=tol, **settings)
        if not np.all(found.certificate <= gap):
            raise SystemExit(f"not certified: {found}")
        return found.coefficients[:, :, 0]

    with jax.enable_x64(True):
        placed = jax.device_put(x)
    best = costs(x, y, share, strengths, ours(x, GAP / 100))
    part: tuple[Any, ...] = (x if x.ndim == 2 else x[few], y if y.ndim == 1 else y[few])
    some_weights = None if weights is None else weights[few]
    some: tuple[Any, ...] = (*part, share if share.ndim == 1 else share[few], strengths[few])
    runs: Runs = {
        OURS: partial(ours, placed),
        FROM_NUMPY: partial(ours, x),
    }
    tolerances = {}
    for solver in SOLVERS:

        def enough(found: np.ndarray) -> bool:
            return bool((costs(some[0], some[1], some[2], some[3], found) - best[few] <= GAP).all())

        tried = partial(many_peers.scikit_learn, solver, part[0], part[1], some_weights, strengths[few])
        tolerance = loosest(tried, enough)
        if tolerance is not None:
            tolerances[solver] = tolerance
            name = f"scikit-learn {solver}, joblib"
            runs[name] = partial(many_peers.scikit_learn, solver, x, y, weights, strengths, tolerance)
    return measured(case, runs, OURS, max(3, rounds // 4), lanes=len(strengths), gap=GAP, tolerances=tolerances)


def _constants(y: np.ndarray, share: np.ndarray, m: int, d: int) -> np.ndarray:
    mean = np.broadcast_to((share * y).sum(axis=-1), m)
    return np.concatenate([np.zeros((m, d)), np.log(mean / (1 - mean))[:, None]], axis=1)


def folds(rounds: int, small: bool) -> Rows:
    """5 folds x 100 penalties on the census data, scored, all gradients within 1e-6."""
    x, y = census()
    n = 2000 if small else len(y) // 5 * 5  # folds of one size, for a peer's strengths depend on it
    x, y = x[:n], y[:n]
    strengths = np.geomspace(1e-1, 1e-6, 10 if small else 100)
    net, data, penalty = lr_nn.logistic_regression(x.shape[1]), Batch(x, y), penalties.l2(strengths)
    rows = lr_nn.cross_validate(net, data, penalty=penalties.l2(strengths[:1]), tol=1e-3).rows
    inside = rows[None] != np.arange(5)[:, None]

    def ours(tolerance: float) -> tuple[np.ndarray, np.ndarray]:
        found = lr_nn.cross_validate(net, data, penalty=penalty, folds=rows, tol=tolerance)
        return found.solutions.coefficients[:, :, 0].reshape(5, len(strengths), -1), found.scores

    def enough(found: tuple[np.ndarray, np.ndarray]) -> bool:
        for fold, mask in zip(found[0], inside):
            w, b = fold[:, :-1], fold[:, -1]
            residual = 1 / (1 + np.exp(-(x[mask] @ w.T + b))) - y[mask][:, None]
            gradient = x[mask].T @ residual / mask.sum() + strengths * w.T
            if max(np.abs(gradient).max(), np.abs(residual.mean(axis=0)).max()) > GRADIENT:
                return False
        return True

    own = loosest(ours, enough)
    assert own is not None, "the gradient asked for was not reached"
    tolerances: dict[str, float | None] = {"lr_nn": own}
    runs: Runs = {"lr_nn.cross_validate": partial(ours, own)}
    for solver in SOLVERS:
        solve = partial(many_peers.scikit_learn_folds, solver, x, y, rows, strengths)
        tolerances[solver] = loosest(solve, enough, first=1e-5)  # looser ones are known to fail
        if tolerances[solver] is not None:
            runs[f"LogisticRegressionCV {solver}, {many_peers.CORES} processes"] = partial(solve, tolerances[solver])
    assert len(runs) > 1, f"no peer came to the gradient: {tolerances}"
    case = f"adult {len(x):,} x {x.shape[1]}, 5 folds x {len(strengths)} penalties"
    return measured(case, runs, "lr_nn.cross_validate", max(3, rounds // 7), gradient=GRADIENT, tolerances=tolerances)


def errors(rounds: int, small: bool) -> Rows:
    """Standard errors of all models, on top of their fits."""
    m, n, d = (40 if small else 2000), 500, 20
    rng = np.random.default_rng(0)
    x = rng.standard_normal((m, n, d))
    y = (rng.random((m, n)) < 1 / (1 + np.exp(-x.sum(axis=2) / d**0.5))).astype(float)
    net, penalty = lr_nn.logistic_regression(d), penalties.l2(1e-3)
    with jax.enable_x64(True):
        batch = Batch(jax.device_put(x), y)

    def fits() -> Any:
        return lr_nn.fit_many(net, batch, penalty=penalty, tol=GAP)

    def both() -> np.ndarray:
        return lr_nn.inference.summary(net, fits(), batch).standard_errors

    runs = {"fits alone": fits, "fits and standard errors": both}
    return measured(f"{m:,} fits of {n} x {d}", runs, "fits alone", max(5, rounds // 2))


LABELS = """
import resource, sys, time
import numpy as np
n, d, m = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
x = rng.standard_normal((n, d), dtype=np.float32)
y = np.empty((m, n), np.uint8)
for i in range(m):
    eta = x @ rng.standard_normal(d, dtype=np.float32) / d**0.5 - rng.uniform(0, 4)
    y[i] = rng.random(n, dtype=np.float32) < 1 / (1 + np.exp(-eta))
import lr_nn
began = time.perf_counter()
found = lr_nn.fit_many(lr_nn.logistic_regression(d), lr_nn.Batch(x, y), penalty=lr_nn.penalties.l2(1e-4), tol=1e-10)
taken = time.perf_counter() - began
assert (found.status == 0).all(), found
print(taken, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, found.steps.mean())
"""


def labels(rounds: int, small: bool) -> Rows:
    """1,000 labels on one table, in a process of its own: seconds with compilation, and its largest memory."""
    n, d, m = (2000, 20, 30) if small else (100_000, 200, 1000)
    done = subprocess.run(
        [sys.executable, "-c", LABELS, *map(str, (n, d, m))], capture_output=True, text=True, check=True
    )
    seconds, memory, steps = map(float, done.stdout.split())
    return [
        {
            "case": f"{m:,} labels on {n:,} x {d}",
            "competitor": OURS,
            **relative(np.array([seconds]), np.array([40.0])),
            "ratios": [round(seconds / 40, 4)],
            "seconds": round(seconds, 1),
            "bar_seconds": 40,
            "gigabytes": round(memory, 2),
            "bar_gigabytes": 1.3,
            "mean_steps": round(steps, 2),
        }
    ]


SECTIONS: dict[str, harness.Section] = {
    "first": (first_many.rows, "The first call of a fresh process"),
    "independent": (partial(groups, False), "Independent fits, gap of 1e-10; time relative to lr_nn.fit_many"),
    "mixed": (partial(groups, True), "The same, of very different difficulty"),
    "bootstrap": (bootstrap, "Bootstrap fits, ridge, gap of 1e-10"),
    "folds": (folds, "Cross-validation, all gradients within 1e-6"),
    "paths": (many_paths.paths, "L1 paths of 50 penalties, gap of 1e-8"),
    "wide_paths": (partial(many_paths.wide_paths, True), "L1 paths, more columns than rows"),
    "no_intercept": (partial(many_paths.wide_paths, False), "L1 paths without an intercept"),
    "errors": (errors, "Standard errors of all models; time relative to the fits alone"),
    "labels": (labels, "A thousand labels on one table; time relative to 40 seconds"),
}
main = harness.command("many", SECTIONS)
