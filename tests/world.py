"""One process of a world, started by test_distributed.py: `python world.py WHAT PROCESS OF PORT OUT`."""

import sys
from pathlib import Path

import jax
import numpy as np
import optax

import lr_nn
from lr_nn import penalties, sharded
from lr_nn.data import Arrays

HEARTBEAT = 2.0
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


def results(parallel):
    """What a training and two kinds of fit find."""
    rows = data()
    whole, strengths = rows.read(0, N), penalties.l2(np.array([1e-3, 1e-2, 1e-1]))
    trained = train(parallel, 3)
    fitted = parallel.fit(ONE, rows, penalty=penalties.l2(1e-2))
    many = parallel.fit_many(ONE, whole.x, whole.y, weight=whole.weight, penalty=strengths)
    history = {name: column.astype(np.float32) for name, column in trained.history.items()}
    return [np.asarray(leaf) for leaf in jax.tree.leaves((trained.params, history, fitted.params, many.params))]


def endless(process, out):
    """A training that only a signal, or the end of its process, ends."""
    kept = lr_nn.training.Checkpoints(out, every=0)

    def progress(told):
        Path(f"{out}.{process}").write_text(str(told.step), encoding="utf-8")

    found = train(sharded.data_parallel(), 10**8, progress=progress, checkpoints=kept)
    print(found.message)
    sys.exit(143 if found.signal == "SIGTERM" else 1)


def resumed(process, out):
    """The training of the last checkpoint, somewhat longer, and the parameters that it ends with."""
    epochs = max(int(path.name.removeprefix("step_")) for path in Path(out).glob("step_*")) // 8 + 10
    kept = lr_nn.training.Checkpoints(out, every=1000)
    found = train(sharded.data_parallel(), epochs, checkpoints=kept, resume=True)
    if process == 0:
        np.savez(f"{out}.npz", *(np.asarray(leaf) for leaf in jax.tree.leaves(found.params)), epochs=epochs)


def main(what, process, of, port, out):
    """Join, and do `what`."""
    sharded.initialize(f"127.0.0.1:{port}", int(of), int(process), heartbeat_seconds=HEARTBEAT)
    sharded.initialize(f"127.0.0.1:{port}", int(of), int(process))
    if what == "results":
        found = results(sharded.data_parallel())
        if process == "0":
            np.savez(out, *found)
    elif what == "differ":
        train(sharded.data_parallel(), 1 + int(process))
    elif what == "raise" and process == "1":
        raise ValueError("this one has had enough")
    elif what == "resumed":
        resumed(int(process), out)
    else:
        endless(process, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
