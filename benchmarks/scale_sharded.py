"""Devices and processes: their results beside one device's, collectives counted in the programs, losses noticed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HEARTBEAT, PATIENCE = 5.0, 600
Rows = list[dict[str, Any]]


def rows(rounds: int, small: bool) -> Rows:
    """Eight virtual devices, and two and four processes, beside one device; and the time until a loss is noticed.

    Each world runs in processes of its own: the number of devices is settled when JAX starts.
    """
    n = 2_000 if small else 200_000
    one = _world(1, 1, n)[0]
    found: Rows = []
    for processes, devices in ((1, 8), (2, 4), (4, 2)):
        result = _world(processes, devices, n)[0]
        found += [
            {
                "case": f"{processes} processes of {devices} devices against one device, {n:,} rows",
                "competitor": name,
                "largest_difference": _difference(result["found"][name], one["found"][name]),
                "collectives_per_step": result["collectives"] if name == "train" else None,
                "rounds": 1,
            }
            for name in one["found"]
        ]
    return found + [_lost(rounds, which) for which in (0, 1)]


def _difference(ours: list[float], theirs: list[float]) -> float:
    """The largest, relative to the largest entry."""
    return max(abs(a - b) for a, b in zip(ours, theirs)) / max(abs(b) for b in theirs)


def _lost(rounds: int, which: int) -> dict[str, Any]:
    """Seconds from the kill of one of two processes to the end of the other."""
    seconds, codes = [], []
    for _ in range(rounds):
        with _processes(2, 1, "endless", 1000) as started:
            lines = started[1 - which].stdout
            assert lines is not None
            for line in lines:
                if line.startswith("begun"):
                    break
            os.kill(started[which].pid, signal.SIGKILL)
            began = time.perf_counter()
            started[1 - which].communicate(timeout=PATIENCE)
            seconds.append(time.perf_counter() - began)
            codes.append(started[1 - which].returncode)
    return {
        "case": f"process {which} of 2 killed, heartbeat_seconds={HEARTBEAT:g}",
        "competitor": "the other ends",
        "seconds": seconds,
        "exit_codes": codes,
        "rounds": rounds,
    }


def _world(processes: int, devices: int, n: int) -> Rows:
    """The result of each process, which it prints as JSON."""
    with _processes(processes, devices, "results", n) as started:
        outputs = [process.communicate(timeout=PATIENCE)[0] for process in started]
    return [json.loads(re.findall(r"^result (.*)$", text, re.M)[0]) for text in outputs]


@contextmanager
def _processes(processes: int, devices: int, what: str, n: int) -> Iterator[list[subprocess.Popen[str]]]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    env = {
        **os.environ,
        "JAX_NUM_CPU_DEVICES": str(devices),
        "NPROC": "16",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-u", "-m", "benchmarks.scale_sharded", what, str(processes), str(port), str(n)]
    started: list[subprocess.Popen[str]] = []
    with tempfile.TemporaryFile() as log:
        try:
            for process in range(processes):
                each = [*command, str(process)]
                started.append(subprocess.Popen(each, env=env, stdout=subprocess.PIPE, stderr=log, text=True))
            yield started
        finally:
            for one in started:
                one.kill()
                one.communicate()


def _one(what: str, of: int, port: int, n: int, process: int) -> None:
    """One process of a world."""
    import jax
    import numpy as np
    import optax

    import lr_nn
    from lr_nn import penalties, sharded
    from lr_nn.sharded import training
    from lr_nn.training.steps import State, Task

    if of > 1:
        sharded.initialize(f"127.0.0.1:{port}", of, process, heartbeat_seconds=HEARTBEAT)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, 10)), rng.integers(0, 2, n)
    data = lr_nn.data.Arrays(x, y, rng.uniform(0, 2, n))
    net, one, key = lr_nn.mlp((10, 8, 1)), lr_nn.logistic_regression(10), jax.random.key(0)
    parallel, optimizer, params = sharded.data_parallel(shards=8), optax.sgd(0.1), lr_nn.init(net, key)

    def train(epochs: int, **settings: Any) -> Any:
        return parallel.train(
            net, params, data, optimizer=optimizer, epochs=epochs, batch_size=n // 10 // 8 * 8, key=key, **settings
        )

    if what == "endless":
        train(10**9, progress=lambda progress: print("begun", progress.step))
    part = data.part(process, of).read(0, len(data.part(process, of)))
    norms = parallel.squared_norms(net, params, parallel.place(part))
    strengths = penalties.l2(np.geomspace(1e-4, 1e-1, 8))
    found = {
        "train": train(3).params,
        "fit": parallel.fit(one, data, penalty=penalties.l2(1e-3)).params,
        "fit_many": parallel.fit_many(one, lr_nn.Batch(x[:2000], y[:2000]), penalty=strengths).params,
        "per-example norms, summed": norms.sum(),
    }
    placed = parallel.admit(net, params, data)
    feed = training.Spread(parallel, net, optimizer, Task(placed[1], np.float32(1), None, key), n // 10 // 8 * 8)
    state = State(placed[0], optimizer.init(placed[0]), feed.order(0), jax.numpy.zeros((), jax.numpy.int32))
    program = training._advance.lower(
        parallel, net, optimizer, state, feed.task, np.int32(1), batch_size=feed.batch_size, room=16
    )
    loop = str(program.compile().as_text()).split("\nENTRY ")[0]
    result = {
        "found": {name: [float(a) for leaf in jax.tree.leaves(t) for a in np.ravel(leaf)] for name, t in found.items()},
        "collectives": re.findall(r" (all-\w+|reduce-scatter|collective-permute)(?:-start)?\(", loop),
    }
    print("result", json.dumps(result))


if __name__ == "__main__":
    _one(sys.argv[1], *map(int, sys.argv[2:]))
