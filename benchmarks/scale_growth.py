"""How time and memory grow with rows, features, outputs, lanes and devices: each point in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

LEAST_SECONDS, REPEATS, LIMIT = 0.5, 5, 600
Work = Callable[[], Any]


class Axis(NamedTuple):
    """What grows, over which values, and the work at one of them.

    `devices`: it is their number, virtual ones on the cores there are; bytes are those that one of them holds.
    """

    title: str
    grows: str
    values: tuple[int, ...]
    work: Callable[[int], Work]
    devices: bool = False


def gradient(n: int, d: int, k: int) -> Work:
    """The gradient of a softmax regression on n rows, compiled."""
    import jax
    import jax.numpy as jnp

    import lr_nn

    net = lr_nn.softmax_regression(d, k)
    keys = jax.random.split(jax.random.key(0))
    data = lr_nn.Batch(jax.random.normal(keys[0], (n, d)), jax.random.randint(keys[1], (n,), 0, k))
    program = jax.jit(lr_nn.value_and_gradient)
    params = jax.tree.map(lambda a: a + jnp.float32(0.01), lr_nn.init(net, jax.random.key(1)))
    return lambda: jax.block_until_ready(program(net, params, data))


def newton(n: int, d: int) -> Work:
    """A logistic fit by Newton with the whole Hessian."""
    import lr_nn

    data = lr_nn.Batch(*logistic(n, d))
    net, penalty = lr_nn.logistic_regression(d), lr_nn.penalties.l2(1e-3)
    return lambda: lr_nn.fit(net, data, penalty=penalty, solver="newton")


def lanes(m: int) -> Work:
    """m logistic fits of 200 rows and 8 features, each on weights of its own."""
    import lr_nn

    data = lr_nn.Batch(*logistic(200, 8), weight=np.random.default_rng(1).exponential(size=(m, 200)))
    net, penalty = lr_nn.logistic_regression(8), lr_nn.penalties.l2(1e-2)
    return lambda: lr_nn.fit_many(net, data, penalty=penalty)


def spread(devices: int) -> Work:
    """The gradient of a network on rows that are spread over `devices` devices, together with the data."""
    import jax

    import lr_nn
    from lr_nn import sharded

    net, parallel = lr_nn.mlp((64, 64, 1)), sharded.data_parallel()
    params = lr_nn.init(net, jax.random.key(0))
    placed = parallel.place(lr_nn.Batch(*logistic(2**15, 64)))
    return lambda: jax.block_until_ready((placed, parallel.value_and_gradient(net, params, placed)))


def logistic(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Normal rows and labels drawn from a logistic model."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d))
    eta = x @ rng.normal(size=d) / d**0.5
    return x, (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float)


def decades(low: int, high: int) -> tuple[int, ...]:
    """Two values a decade, 10^(low/2) to 10^(high/2)."""
    return tuple(round(10 ** (half / 2)) for half in range(low, high + 1))


AXES = {
    "rows": Axis("gradient, d = 32, k = 2", "rows n", decades(6, 13), lambda n: gradient(n, 32, 2)),
    "rows of a fit": Axis("Newton fit, d = 20", "rows n", decades(6, 12), lambda n: newton(n, 20)),
    "features": Axis("gradient, n = 20,000, k = 2", "features d", decades(2, 7), lambda d: gradient(20_000, d, 2)),
    "features of a fit": Axis("Newton fit, n = 3,000", "features d", decades(2, 6), lambda d: newton(3_000, d)),
    "outputs": Axis("gradient, n = 20,000, d = 64", "outputs k", decades(1, 6), lambda k: gradient(20_000, 64, k)),
    "lanes": Axis("fit_many, 200 × 8 each", "lanes m", decades(2, 8), lanes),
    "devices": Axis("gradient, 32,768 rows over all", "devices", (1, 2, 4, 8, 16, 32, 64, 128), spread, devices=True),
}


def rows(rounds: int, small: bool) -> list[dict[str, Any]]:
    """Every axis: a row for each point, its memory above that of the first, and the exponents over the last decade."""
    found = []
    for name, axis in AXES.items():
        values = axis.values[:2] if small else axis.values
        points = [_in_a_process(name, value) for value in values]
        least = 0 if axis.devices else points[0]["bytes"]  # what any value takes, the compiler above all
        points = [each | {"bytes": each["bytes"] - least} for each in points]
        exponents = {"time_exponent": _exponent(points, "seconds"), "memory_exponent": _exponent(points, "bytes")}
        found += [{"axis": name, "case": axis.title, "grows": axis.grows, **point, **exponents} for point in points]
        print(f"{name}: {exponents}", flush=True)
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """The exponents as the Markdown table of docs/scaling.md."""
    lines = ["| what grows | work | over | time | memory |", "|---|---|---|---:|---:|"]
    for _, points in groupby(rows, key=lambda row: row["axis"]):
        first, *_, last = points
        exponents = " | ".join(
            "-" if e is None else f"{e:.2f}" for e in (last["time_exponent"], last["memory_exponent"])
        )
        lines.append(f"| {last['grows']} | {last['case']} | {first['value']:,} to {last['value']:,} | {exponents} |")
    return "\n".join(lines)


def _exponent(points: list[dict[str, Any]], what: str) -> float | None:
    """The slope of log y against log x over the last decade; None where nothing grew that could be seen."""
    last = [(each["value"], each[what]) for each in points if 10.5 * each["value"] >= points[-1]["value"]]
    seen = np.log([pair for pair in last if pair[1] > 0])
    if len(seen) < 2:
        return None
    x, y = seen.T
    return round(float(np.polyfit(x, y, 1)[0]), 2)


def _in_a_process(name: str, value: int) -> dict[str, Any]:
    environment = dict(os.environ)
    if AXES[name].devices:
        environment |= {"JAX_NUM_CPU_DEVICES": str(value), "NPROC": str(2 * value)}
    command = [sys.executable, "-m", "benchmarks.scale_growth", name, str(value)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} = {value} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def point(name: str, value: int) -> dict[str, Any]:
    """Seconds of the work, warmed, and the most memory resident above what the process had taken before, data too."""
    import lr_nn

    lr_nn.fit(lr_nn.logistic_regression(1), lr_nn.Batch(*logistic(8, 1)), max_steps=1)
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak: proc_pid_clear_refs(5)
    work = AXES[name].work(value)
    found = work()
    seconds = float(np.median(list(_timed(work))))
    taken = _held_by_a_device(found) if AXES[name].devices else _resident("VmHWM") - before
    return {"value": value, "seconds": seconds, "bytes": taken}


def _held_by_a_device(tree: Any) -> int:
    import jax

    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))


def _timed(work: Work) -> Iterator[float]:
    began = time.perf_counter()
    for repeat in range(1000):
        if repeat >= REPEATS and time.perf_counter() - began > LEAST_SECONDS:
            return
        start = time.perf_counter()
        work()
        yield time.perf_counter() - start


def _resident(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    print(json.dumps(point(sys.argv[1], int(sys.argv[2]))))
