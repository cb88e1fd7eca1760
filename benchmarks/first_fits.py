"""The first fit of a fresh process: seconds, CPU seconds and compilations, beside the libraries people fit with.

Every number comes from a process of its own without a compilation cache. Clock and count start when everything is
imported, the devices are known, and the data are drawn.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.cold import BEFORE, ROOT, compilations, earlier
from benchmarks.fit_data import census, drawn, largest_l1
from benchmarks.harness import relative

OURS, EARLIER, SKLEARN, GLUM, GLMAX = "lr_nn.fit", f"lr_nn.fit at {BEFORE}", "scikit-learn", "glum", "glmax, no penalty"
GAP = 1e-10
# Seconds that a first fit may take.
BARS = {
    "569 x 30": 0.7,
    "census 32,561 x 108": 1.0,
    "100,000 x 100": 1.2,
    "20,000 x 1,000": 1.5,
    "L1, census 32,561 x 108": 1.0,
    "softmax, 1,024 x 20": 0.8,
    "fit and summary, 569 x 30": 1.0,
    "RFE, 100,000 x 12 to 6 columns": 3.0,
}
SMOOTH = tuple(BARS)[:4]


def data(case: str) -> tuple[np.ndarray, np.ndarray]:
    """x and y of a case."""
    if "census" in case:
        return census()
    if case == "softmax, 1,024 x 20":
        rng = np.random.default_rng(0)
        return rng.standard_normal((1024, 20)), rng.integers(0, 3, 1024)
    if case.startswith("RFE"):
        return drawn(100_000, 12)
    n, d = (int(word.replace(",", "")) for word in case.rsplit(", ", maxsplit=1)[-1].split(" x "))
    return drawn(n, d)


def solver(competitor: str, case: str) -> Callable[[np.ndarray, np.ndarray, float], Any]:
    """One fit of x and y with a strength, by a competitor, everything imported."""
    sparse, classes = case.startswith("L1"), case.startswith("softmax")
    if competitor in (OURS, EARLIER):
        import lr_nn
        from lr_nn import inference

        batch = lr_nn.Batch if hasattr(lr_nn, "Batch") else None
        late = competitor == OURS
        make = (lambda d: lr_nn.softmax_regression(d, 3)) if classes else lr_nn.logistic_regression
        penalty = lr_nn.penalties.l1 if sparse else lr_nn.penalties.l2

        def ours(x: np.ndarray, y: np.ndarray, strength: float) -> Any:
            net = make(x.shape[1])
            given = (batch(x, y),) if late and batch is not None else (x, y)
            if case.startswith("fit and summary"):
                found = lr_nn.fit(net, *given)
                return inference.summary(net, found, *given)
            return lr_nn.fit(net, *given, penalty=penalty(strength), tol=GAP)

        return ours
    if competitor == GLUM:
        from glum import GeneralizedLinearRegressor

        return lambda x, y, strength: GeneralizedLinearRegressor(
            family="binomial", alpha=strength, l1_ratio=float(sparse), gradient_tol=1e-7, max_iter=10_000
        ).fit(x, y)
    if competitor == GLMAX:
        import glmax

        jax.config.update("jax_enable_x64", True)
        fitter = glmax.NewtonFitter(tol=GAP)

        def newton(x: np.ndarray, y: np.ndarray, strength: float) -> Any:
            inputs = np.column_stack([x, np.ones(len(x))])
            return jax.block_until_ready(glmax.fit(glmax.Binomial(), inputs, y, fitter=fitter).result.params.beta)

        return newton
    from sklearn.linear_model import LogisticRegression

    def peer(x: np.ndarray, y: np.ndarray, strength: float) -> Any:
        method = "liblinear" if sparse else "lbfgs" if classes or x.shape[1] > 500 else "newton-cholesky"
        model = LogisticRegression(C=1 / (len(y) * strength), solver=method, tol=1e-7, max_iter=10_000)
        if sparse:
            model.set_params(l1_ratio=1.0, intercept_scaling=1e5, max_iter=1000)
        return model.fit(x, y)

    return peer


def measure(case: str, competitor: str) -> dict[str, Any]:
    """Seconds and programs of a first fit, of a second one, and of fits that differ in one thing."""
    x, y = data(case)
    solve = solver(competitor, case)
    strength = 0.1 * largest_l1(x, y) if case.startswith("L1") else 1e-4
    jax.devices()
    if case.startswith("RFE"):
        stages: dict[str, Callable[[], Any]] = {"first": lambda: _eliminated(solve, x, y)}
    else:
        stages = {
            "first": lambda: solve(x, y, strength),
            "warm": lambda: solve(x, y, strength),
            "one row less": lambda: solve(x[:-1], y[:-1], strength),
            "another strength": lambda: solve(x, y, 2 * strength),
            "one column less": lambda: solve(x[:, :-1], y, strength),
        }
    return timed(stages)


def timed(stages: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """Seconds, CPU seconds and programs of calls one after another."""
    found: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, run in stages.items():
            with compilations() as compiled:
                began, began_cpu = time.perf_counter(), time.process_time()
                run()
                seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
            found[name] = {"seconds": seconds, "cpu_seconds": cpu, "programs": len(compiled)}
    return found


def _eliminated(solve: Callable[..., Any], x: np.ndarray, y: np.ndarray) -> None:
    """Recursive feature elimination: fit, leave the column of the smallest weight, again."""
    left = list(range(x.shape[1]))
    while len(left) >= 6:
        found = solve(x[:, left], y, 1e-2)
        weights = found.coef_[0] if hasattr(found, "coef_") else found.params[0].w[:, 0]
        left.pop(int(np.argmin(np.abs(weights))))


def in_a_process(case: str, competitor: str, source: Path, module: str = "benchmarks.first_fits") -> dict[str, Any]:
    """`measure` of a module in a new process that imports the `lr_nn` of a folder."""
    outside = {key: value for key, value in os.environ.items() if not key.startswith("JAX_")}
    paths = {"PYTHONPATH": os.pathsep.join(map(str, (source, ROOT)))}
    command = [sys.executable, "-P", "-m", module, case, competitor]
    done = subprocess.run(command, env=outside | paths, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{case} by {competitor} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def competitors(case: str) -> list[str]:
    """Who can do the same work; glmax has no penalty, and no answer where columns depend on one another."""
    if case.startswith("RFE"):
        return [OURS, SKLEARN]
    if case.startswith("fit and summary"):
        return [OURS]
    glum = [] if case.startswith("softmax") else [GLUM]
    glmax = [GLMAX] if case in SMOOTH and "census" not in case else []
    return [OURS, EARLIER, SKLEARN, *glum, *glmax]


def rows(rounds: int, small: bool) -> list[dict[str, Any]]:
    """A row for each case and competitor, time relative to ours; competitors take turns, a process a call."""
    found, rounds = [], 1 if small else max(1, rounds // 4)
    with tempfile.TemporaryDirectory() as folder:
        has_earlier = earlier(Path(folder))
        for case in tuple(BARS)[:1] if small else BARS:
            names = [name for name in competitors(case) if _can(name) and (name != EARLIER or has_earlier)]
            runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
            for turn in range(rounds):
                for name in np.random.default_rng(turn).permutation(names):
                    runs[name].append(in_a_process(case, name, Path(folder) if name == EARLIER else ROOT))
            found += [{**summed_up(case, name, runs[name], runs[OURS]), "bar_seconds": BARS[case]} for name in names]
    return found


def _can(competitor: str) -> bool:
    from importlib.util import find_spec

    return find_spec({GLUM: "glum", GLMAX: "glmax", SKLEARN: "sklearn"}.get(competitor, "jax")) is not None


def summed_up(case: str, name: str, taken: list[dict[str, Any]], baseline: list[dict[str, Any]]) -> dict[str, Any]:
    """A row: medians over processes, and times relative to the baseline."""

    def of(runs: list[dict[str, Any]], stage: str, quantity: str) -> np.ndarray:
        return np.array([run[stage][quantity] for run in runs])

    quantity = "cpu_seconds" if case.startswith("RFE") else "seconds"
    ratios = of(taken, "first", quantity) / of(baseline, "first", quantity)
    row = {
        "case": case,
        "competitor": name,
        **relative(of(taken, "first", quantity), of(baseline, "first", quantity)),
        "ratios": [float(f"{ratio:.4g}") for ratio in ratios],
        "rounds": len(taken),
    }
    for stage in taken[0]:
        key = stage.replace(" ", "_")
        row[f"{key}_seconds"] = round(float(np.median(of(taken, stage, "seconds"))), 4)
        row[f"{key}_cpu_seconds"] = round(float(np.median(of(taken, stage, "cpu_seconds"))), 4)
        row[f"{key}_programs"] = int(np.median(of(taken, stage, "programs")))
    return row


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
