"""One process of a world, started by test_distributed.py: `python world.py WHAT PROCESS OF PORT OUT`."""

import os
import sys
from pathlib import Path

import jax
import numpy as np
import optax

import lr_nn
from lr_nn import Batch, penalties, sharded
from lr_nn.cli import main as command
from lr_nn.data import Arrays

# Seconds without a sign of life after which a process is lost: few where one is killed; elsewhere a busy machine may
# keep a process from its heartbeat for longer.
HEARTBEAT, PATIENT_HEARTBEAT = 2.0, 20.0
# What is asked of the command line, and of the training that the library is to find the same.
TABLE, FIT = "table.csv", ["--target", "y", "--weight", "count", "--l2", "0.01", "--json"]
TRAIN = [*FIT, "--hidden", "4", "--activation", "tanh", "--optimizer", "sgd", "--batch-size", "8"]
N, D = 61, 3
DEEP, ONE = lr_nn.mlp((D, 4, 1)), lr_nn.logistic_regression(D)
KEY, OPTIMIZER = 0, optax.sgd(0.1, momentum=0.5)


def data():
    """Weighted rows of a logistic model, their number no multiple of any of devices."""
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(N, D)), rng.integers(0, 3, N).astype(float)
    return Arrays(x, rng.integers(0, 2, N), weight)


def train(parallel, epochs, **settings):
    """Mini-batches of weighted rows."""
    key = jax.random.key(KEY)
    params = lr_nn.init(DEEP, key)
    return parallel.train(
        DEEP, params, data(), optimizer=OPTIMIZER, epochs=epochs, batch_size=8, key=key, validation=data(), **settings
    )


def many(parallel):
    """What fits of many strengths find."""
    whole, strengths = data().read(0, N), penalties.l2(np.array([1e-3, 1e-2, 1e-1]))
    return parallel.fit_many(ONE, Batch(whole.x, whole.y, whole.weight), penalty=strengths)


def commands(process, of, port, folder):
    """A fit, and a training in two halves, by the command line in a folder of each process; what it says in `said`."""
    own = Path(folder) / process
    own.mkdir()
    os.chdir(own)
    os.dup2(os.open("said", os.O_WRONLY | os.O_CREAT), 1)
    train = ["train", *TRAIN, "--checkpoints", f"{folder}/kept", "--epochs"]
    joined(process, of, port, f"{folder}/{TABLE}", "fit", *FIT, "--no-report", "--out", "fitted")
    joined(process, of, port, f"{folder}/{TABLE}", *train, "2")
    joined(process, of, port, f"{folder}/{TABLE}", *train, "3", "--resume", "--no-report", "--out", "trained")
    os.dup2(2, 1)


def joined(process, of, port, path, name, *options):
    """A command by many processes, which is to end well."""
    world = ["--coordinator", f"127.0.0.1:{port}", "--processes", of, "--process-id", process]
    code = command([name, path, *options, "--distributed", *world, "--heartbeat-seconds", str(PATIENT_HEARTBEAT)])
    if code:
        sys.exit(code)


def endless(process, out):
    """A training that only a signal, or the end of its process, ends."""
    kept = lr_nn.training.Checkpoints(out, every=0)

    def progress(told):
        Path(f"{out}.{process}").write_text(str(told.step), encoding="utf-8")

    found = train(sharded.data_parallel(), 10**8, progress=progress, checkpoints=kept)
    print(found.message)


def resumed(process, out):
    """The training of the last checkpoint, somewhat longer, and the parameters that it ends with."""
    epochs = max(int(path.name.removeprefix("step_")) for path in Path(out).glob("step_*")) // 8 + 10
    kept = lr_nn.training.Checkpoints(out, every=1000)
    found = train(sharded.data_parallel(), epochs, checkpoints=kept, resume=True)
    if process == 0:
        np.savez(f"{out}.npz", *(np.asarray(leaf) for leaf in jax.tree.leaves(found.params)), epochs=epochs)


def main(what, process, of, port, out):
    """Join, and do `what`."""
    if what == "command":
        joined(process, of, port, out, "fit", *FIT)
    heartbeat = HEARTBEAT if what in ("endless", "resumed") else PATIENT_HEARTBEAT
    sharded.initialize(f"127.0.0.1:{port}", int(of), int(process), heartbeat_seconds=heartbeat)
    sharded.initialize(f"127.0.0.1:{port}", int(of), int(process))
    if what == "results":
        commands(process, of, port, out)
        found = many(sharded.data_parallel())
        if process == "0":
            np.save(f"{out}/many.npy", found.coefficients)
        joined(process, of, port, f"{out}/{TABLE}", "fit", *FIT, "--l1", process)
    if what == "resumed":
        resumed(int(process), out)
        out = f"{out}.again"
    endless(int(process), out)
    if what == "signal":
        try:
            train(sharded.data_parallel(), 1 + int(process))
        except ValueError as error:
            print(error, flush=True)
        if process == "1":
            raise ValueError("this one has had enough")
        train(sharded.data_parallel(), 10**8)


if __name__ == "__main__":
    main(*sys.argv[1:])
