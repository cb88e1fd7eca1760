"""One process of a world, started by test_distributed.py: `python world.py WHAT PROCESS OF PORT OUT`."""

import sys
from pathlib import Path

import jax
import numpy as np
import optax

import lr_nn
from lr_nn import penalties, sharded
from lr_nn.data import Arrays

WHAT, PROCESS, OF, PORT, OUT = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
HEARTBEAT = 2.0
N, D = 61, 3
OPTIMIZER = optax.sgd(0.1, momentum=0.5)


def data():
    """Weighted rows of a logistic model, their number no multiple of any of devices."""
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(N, D)), rng.integers(0, 3, N).astype(float)
    return Arrays(x, rng.integers(0, 2, N), weight)


def results(parallel):
    """What a training and two fits find."""
    rows, net, deep = data(), lr_nn.logistic_regression(D), lr_nn.mlp((D, 4, 1))
    key = jax.random.key(0)
    trained = parallel.train(
        deep, lr_nn.init(deep, key), rows, optimizer=optax.sgd(0.1), epochs=3, batch_size=8, key=key, validation=rows
    )
    fitted = parallel.fit(net, rows, penalty=penalties.l2(1e-2))
    whole = rows.read(0, N)
    many = parallel.fit_many(
        net, whole.x, whole.y, weight=whole.weight, penalty=penalties.l2(np.array([1e-3, 1e-2, 1e-1]))
    )
    history = {name: column.astype(np.float32) for name, column in trained.history.items()}
    return [np.asarray(leaf) for leaf in jax.tree.leaves((trained.params, history, fitted.params, many.params))]


def differ():
    """Processes that do not ask for the same."""
    net = lr_nn.logistic_regression(D)
    params = lr_nn.init(net, jax.random.key(0))
    sharded.data_parallel().train(net, params, data(), optimizer=optax.sgd(0.1), epochs=1 + PROCESS)


def train(epochs, **settings):
    """Mini-batches of two shards, with checkpoints in OUT."""
    net, key = lr_nn.mlp((D, 4, 1)), jax.random.key(0)
    kept = lr_nn.training.Checkpoints(OUT, every=0)
    return sharded.data_parallel(shards=2).train(
        net,
        lr_nn.init(net, key),
        data(),
        optimizer=OPTIMIZER,
        epochs=epochs,
        batch_size=8,
        key=key,
        checkpoints=kept,
        **settings,
    )


def endless():
    """A training that only a signal, or the end of its process, ends."""

    def progress(told):
        Path(f"{OUT}.{PROCESS}").write_text(str(told.step), encoding="utf-8")

    found = train(10**8, progress=progress)
    print(found.message)
    sys.exit(143 if found.signal == "SIGTERM" else 1)


def resumed():
    """The last checkpoint's training, somewhat longer, and the parameters that it ends with."""
    steps = max(int(path.name.removeprefix("step_")) for path in Path(OUT).glob("step_*"))
    found = train(steps // 8 + 10, resume=True)
    if PROCESS == 0:
        np.savez(f"{OUT}.npz", *(np.asarray(leaf) for leaf in jax.tree.leaves(found.params)), epochs=steps // 8 + 10)


def main():
    """Join, and do WHAT."""
    if OF > 1:
        sharded.initialize(f"127.0.0.1:{PORT}", OF, PROCESS, heartbeat_seconds=HEARTBEAT)
        sharded.initialize(f"127.0.0.1:{PORT}", OF, PROCESS)
    if WHAT == "results":
        found = results(sharded.data_parallel(shards=4))
        if PROCESS == 0:
            np.savez(OUT, *found)
    elif WHAT == "raise":
        if PROCESS == 1:
            raise ValueError("this one has had enough")
        endless()
    else:
        {"differ": differ, "endless": endless, "resumed": resumed}[WHAT]()


if __name__ == "__main__":
    main()
