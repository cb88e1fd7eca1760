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
from lr_nn.solvers import passes

folder, memory, cold = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "cold"
files = [os.path.join(folder, name) for name in ("x.npy", "y.npy")]
rows = Arrays(*(np.load(file, mmap_mode="r") for file in files))
net = lr_nn.logistic_regression(len(rows.features))

def forget():
    for file in files if cold else ():
        with open(file, "rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

def resident():
    with open("/proc/self/status") as told:
        return next(int(line.split()[1]) * 1024 for line in told if line.startswith("VmRSS"))

def seconds(run):
    forget()
    began = time.perf_counter()
    found = run()
    return time.perf_counter() - began, found

def read():
    for _ in blocks(rows, passes.source(rows, net, memory / 8).size):
        pass

begun, highest, done, each = resident(), [0], threading.Event(), []
over = passes.Source.over

def watch():
    while not done.wait(0.01):
        highest[0] = max(highest[0], resident())

def timed(source, *asks, **settings):
    whole = source.length == len(rows)
    if whole:
        forget()
    began = time.perf_counter()
    found = over(source, *asks, **settings)
    if whole:
        each.append(time.perf_counter() - began)
    return found

watcher = threading.Thread(target=watch)
watcher.start()
try:
    read()
    reading = [seconds(read)[0] for _ in range(3)]
    passes.Source.over = timed
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
    """A row for the file in the cache of the system, and one for each pass from the disk."""
    n = SMALL if small else ROWS
    memory = 2**22 if small else MEMORY
    found = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("LR_NN_SCRATCH")) as folder:
        write(Path(folder), n)
        whole = _in_memory(Path(folder)) if small or _room() >= IN_MEMORY * 8 * n * COLUMNS else None
        for cache in ("warm", "cold"):
            told = _measured(folder, memory, cache)
            each = told["each"]
            row = {
                "case": f"{n} x {COLUMNS}, float32",
                "competitor": f"{cache} cache",
                "status": told["status"],
                "certificate": told["certificate"],
                "passes": told["passes"],
                "seconds_reading_a_pass": told["reading"],
                "seconds_a_pass": float(np.median(each)),
                "times_reading": told["fit"] / (told["reading"] * told["passes"]),
                "first_call_times_reading": told["first"] / (told["reading"] * told["passes"]),
                "resident_megabytes": told["resident"] / 1e6,
                "file_megabytes": 4 * n * (COLUMNS + 1) / 1e6,
                "memory_megabytes": memory / 1e6,
            }
            if whole is not None:
                row["difference_from_memory"] = float(np.abs(whole - np.array(told["coefficients"])).max())
            found.append(row)
    return found


# Bytes that must be free for a fit in memory (20 million rows took more than 2.2), relative to its rows in float64.
IN_MEMORY = 3


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
    """What the process told."""
    told = subprocess.run(
        [sys.executable, "-c", MEASURED, folder, str(memory), cache], capture_output=True, text=True, check=True
    )
    return json.loads(told.stdout.splitlines()[-1])


def _in_memory(folder: Path) -> np.ndarray:
    """The coefficients of the same fit in memory."""
    import lr_nn

    x, y = (np.load(folder / name) for name in ("x.npy", "y.npy"))
    return lr_nn.fit(lr_nn.logistic_regression(x.shape[1]), x, y).coefficients.ravel()


def _room() -> float:
    """Bytes of memory that are free, where Linux tells it."""
    info = Path("/proc/meminfo")
    if not info.exists():
        return 0.0
    line = next(line for line in info.read_text().splitlines() if line.startswith("MemAvailable"))
    return 1024.0 * int(line.split()[1])
