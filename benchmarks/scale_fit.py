"""A logistic fit of a file that is larger than what it may take of memory: passes, time beside reading, memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROWS, COLUMNS, SMALL, MEMORY = 20_000_000, 50, 200_000, 2**28
BLOCK = 2**18

# A process of its own, so that what is resident is that of this fit: reading alone, and then the fit, passes timed.
MEASURED = """
import json, os, sys, threading, time
import numpy as np
import jax, lr_nn
from lr_nn.data import Arrays, blocks
from lr_nn.fitting.files import admit_rows
from lr_nn.fitting.settings import DEFAULT
from lr_nn.fitting.source import Source

folder, memory, cold = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "cold"
files = [os.path.join(folder, name) for name in ("x.npy", "y.npy")]
rows = Arrays(*(np.load(file, mmap_mode="r") for file in files))
net = lr_nn.logistic_regression(len(rows.features))

def forget():
    for file in files if cold else ():
        with open(file, "rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

def resident():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))

def seconds(run):
    forget()
    began = time.perf_counter()
    found = run()
    return time.perf_counter() - began, found

def read():
    for _ in blocks(rows, admit_rows(net, rows, memory, DEFAULT).block):
        pass

begun, highest, done, each = resident(), [0], threading.Event(), []
each_of = Source._each

def watch():
    while not done.wait(0.01):
        highest[0] = max(highest[0], resident())

def timed(source, function):
    whole = source.rows is not None
    if whole:
        forget()
    began = time.perf_counter()
    yield from each_of(source, function)
    if whole:
        each.append(time.perf_counter() - began)

watcher = threading.Thread(target=watch)
watcher.start()
try:
    read()
    reading = [seconds(read)[0] for _ in range(3)]
    Source._each = timed
    first, found = seconds(lambda: lr_nn.fit(net, rows, memory=memory))
    made = len(each)
    again, found = seconds(lambda: lr_nn.fit(net, rows, memory=memory))
finally:
    done.set()
    watcher.join()
print(json.dumps({
    "status": str(found.status), "certificate": found.certificate, "passes": made, "reading": sorted(reading)[1],
    "each": each[made:], "first": first, "fit": again, "resident": highest[0] - begun,
    "coefficients": found.coefficients.ravel().tolist(),
}))
"""


def rows(rounds: int, small: bool) -> list[dict[str, Any]]:
    """A row for the file in the cache of the system, one for each pass from the disk, and one beside memory."""
    n = SMALL if small else ROWS
    memory = 2**22 if small else MEMORY
    found = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("LR_NN_SCRATCH")) as folder:
        write(Path(folder), n)
        for cache in ("warm", "cold"):
            measured = _measured(folder, memory, cache)
            once = measured["reading"] * measured["passes"]
            found.append(
                {
                    "case": f"{n:,} × {COLUMNS}, float32, {4 * n * (COLUMNS + 1) / 1e9:.1f} GB",
                    "competitor": f"{cache} cache",
                    "status": measured["status"],
                    "certificate": measured["certificate"],
                    "passes": measured["passes"],
                    "seconds_reading_a_pass": measured["reading"],
                    "seconds_a_pass": float(np.median(measured["each"])),
                    "times_reading": measured["fit"] / once,
                    "first_call_times_reading": measured["first"] / once,
                    "resident_megabytes": measured["resident"] / 1e6,
                    "memory_megabytes": memory / 1e6,
                    "coefficients_from_the_optimum": _newton_step(Path(folder), np.array(measured["coefficients"])),
                }
            )
        found.append(_beside_memory(Path(folder), memory))
    return found


def _newton_step(folder: Path, theta: np.ndarray) -> float:
    """The largest entry of H⁻¹ ∇J at the coefficients, in NumPy and float64: how far the optimum is."""
    x, y = (np.load(folder / name, mmap_mode="r") for name in ("x.npy", "y.npy"))
    gradient, hessian = np.zeros(len(theta)), np.zeros((len(theta), len(theta)))
    for start in range(0, len(x), BLOCK):
        block = np.ones((len(x[start : start + BLOCK]), len(theta)))
        block[:, :-1] = x[start : start + BLOCK]
        mean = 1 / (1 + np.exp(-block @ theta))
        gradient += (mean - y[start : start + BLOCK]) @ block
        hessian += (block * (mean * (1 - mean))[:, None]).T @ block
    return float(np.abs(np.linalg.solve(hessian, gradient)).max())


def _beside_memory(folder: Path, memory: int) -> dict[str, Any]:
    """The first quarter of the rows, fitted from the file and in memory: the most that coefficients differ by."""
    import lr_nn

    x, y = (np.load(folder / name, mmap_mode="r") for name in ("x.npy", "y.npy"))
    net, n = lr_nn.logistic_regression(COLUMNS), len(x) // 4
    streamed = lr_nn.fit(net, lr_nn.data.Arrays(x[:n], y[:n]), memory=memory // 4)
    held = lr_nn.fit(net, lr_nn.Batch(np.array(x[:n]), np.array(y[:n])))
    return {
        "case": f"{n:,} × {COLUMNS}, from the file and in memory",
        "competitor": "largest difference",
        "status": str(streamed.status),
        "certificate": streamed.certificate,
        "coefficients_from_memory": float(np.abs(streamed.coefficients - held.coefficients).max()),
    }


def write(folder: Path, n: int) -> None:
    """Rows of a logistic model with correlated columns, as x.npy and y.npy."""
    rng = np.random.default_rng(0)
    w = (rng.standard_normal(COLUMNS) / COLUMNS**0.5).astype(np.float32)
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (n, COLUMNS))
    y = np.lib.format.open_memmap(folder / "y.npy", "w+", np.float32, (n,))
    for start in range(0, n, BLOCK):
        stop = min(n, start + BLOCK)
        block = rng.standard_normal((stop - start, COLUMNS), np.float32)
        block += block[:, :1] / 2
        x[start:stop] = block
        y[start:stop] = rng.random(stop - start) < 1 / (1 + np.exp(-block @ w - np.float32(0.3)))
    x.flush()
    y.flush()


def _measured(folder: str, memory: int, cache: str) -> dict[str, Any]:
    """The record that the process prints."""
    measured = subprocess.run(
        [sys.executable, "-c", MEASURED, folder, str(memory), cache], capture_output=True, text=True, check=True
    )
    return json.loads(measured.stdout.splitlines()[-1])
