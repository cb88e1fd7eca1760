"""lr-nn bench: what this machine does in a second, on data that are drawn."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

import lr_nn
from lr_nn import Batch
from lr_nn.cli.options import Bench
from lr_nn.cli.report import Table
from lr_nn.cli.terminal import Terminal
from lr_nn.penalties import l2

ROUNDS, BATCH = 3, 128


def run(options: Bench, terminal: Terminal) -> int:
    """Measure and tell; the exit code."""
    if min(options.rows, options.features) < 1:
        raise ValueError("--rows and --features must be at least 1")
    n, d = options.rows, options.features
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, d)).astype(np.float32)
    y = (rng.random(n) < 1 / (1 + np.exp(-x[:, 0]))).astype(np.float32)
    line, net = lr_nn.logistic_regression(d), lr_nn.mlp((d, 64, 1), lr_nn.activations.relu)
    params, optimizer = lr_nn.init(net, jax.random.key(0)), optax.sgd(1e-2)
    data, key = Batch(jax.numpy.asarray(x), jax.numpy.asarray(y)), jax.random.key(1)
    work: dict[str, Callable[[], Any]] = {
        "logistic fit": lambda: lr_nn.fit(line, Batch(x, y), penalty=l2(1e-4)),
        f"epoch of a {d}-64-1 network": lambda: (
            lr_nn.train(net, params, data, optimizer=optimizer, epochs=1, batch_size=min(BATCH, n), key=key).params
        ),
        "prediction": lambda: lr_nn.predict(net, params, data.x),
    }
    seconds = {name: _seconds(call) for name, call in work.items()}
    device = jax.devices()[0].device_kind
    terminal.record(device=device, jax=jax.__version__, rows=n, features=d, seconds=seconds)
    rows = [(name, f"{n / each:,.0f}", f"{each:.3g}") for name, each in seconds.items()]
    terminal.say(f"{device}, JAX {jax.__version__}, {n:,} rows of {d} features")
    terminal.say(Table("", ("", "rows per second", "seconds"), rows).text())
    return 0


def _seconds(call: Callable[[], Any]) -> float:
    """The least of a few, after one that compiles."""
    jax.block_until_ready(jax.tree.leaves(call()))
    best = np.inf
    for _ in range(ROUNDS):
        began = time.perf_counter()
        jax.block_until_ready(jax.tree.leaves(call()))
        best = min(best, time.perf_counter() - began)
    return float(best)
