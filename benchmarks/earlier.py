"""Fits by the library of an earlier commit, in a process of its own that answers one call at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cold import ROOT, earlier
from benchmarks.fit_data import Problem

SERVER = """
import sys
import numpy as np
import lr_nn
x, y = np.load(sys.argv[1]), np.load(sys.argv[2])
l1, l2, tol, k = float(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5]), int(sys.argv[6])
net = lr_nn.softmax_regression(x.shape[1], k) if k > 1 else lr_nn.logistic_regression(x.shape[1])
penalty = lr_nn.penalties.Penalty(l1=l1, l2=l2)
for line in sys.stdin:
    found = lr_nn.fit(net, x, y, penalty=penalty, tol=tol)
    np.save(line.strip(), found.coefficients)
    print("done", found.certificate, flush=True)
"""


@contextmanager
def earlier_fit(problem: Problem, tol: float) -> Iterator[Any]:
    """A function that fits as the commit `cold.BEFORE` did; None where that commit isn't known."""
    with tempfile.TemporaryDirectory() as folder:
        if not earlier(Path(folder)):
            yield None
            return
        k = int(problem.y.max()) + 1 if problem.classes else 1
        paths = [os.path.join(folder, name) for name in ("x.npy", "y.npy", "found.npy")]
        np.save(paths[0], problem.x)
        np.save(paths[1], problem.y.astype(int) if problem.classes else problem.y)
        command = [sys.executable, "-P", "-c", SERVER, *paths[:2], *map(str, (problem.l1, problem.l2, tol, k))]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((folder, str(ROOT)))}
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        ) as process:
            asked, answers = process.stdin, process.stdout
            assert asked is not None and answers is not None

            def run() -> np.ndarray:
                asked.write(paths[2] + "\n")
                asked.flush()
                if not answers.readline().startswith("done"):
                    raise RuntimeError(f"the earlier fit of {problem.name} failed")
                return np.load(paths[2])

            yield run
            asked.close()
