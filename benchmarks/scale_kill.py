"""Trainings killed at random moments, in the middle of writing a checkpoint too, and resumed: equal to the last bit.

`python -m benchmarks.scale_kill FOLDER KIND` is one such training: a checkpoint after every step, the digest of what
it found at the end, beside that of the same training without checkpoints.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

KINDS = ("arrays in memory", "rows read block by block")
KILLS, LIMIT = 20, 120.0
# A training of so many steps, each with a checkpoint.
EPOCHS, ROWS, BATCH = 4, 103, 10


def train(folder: Path | None, kind: str) -> str:
    """The digest of parameters, optimiser state and history of the training, told of when its first step is done."""
    import jax
    import optax

    import lr_nn
    from lr_nn.data import Arrays
    from lr_nn.training import Checkpoints, loop

    loop.Run.chunk_seconds = 0.0  # one step a call
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(ROWS, 5)).astype(np.float32), rng.integers(0, 3, ROWS)
    net = lr_nn.mlp((5, 4, 3), loss=lr_nn.losses.categorical)
    found = lr_nn.train(
        net,
        lr_nn.init(net, jax.random.key(0)),
        Arrays(x, y) if kind == KINDS[1] else lr_nn.Batch(x, y),
        optimizer=optax.adam(optax.cosine_decay_schedule(0.1, 60)),
        epochs=EPOCHS,
        batch_size=BATCH,
        key=jax.random.key(1),
        validation=lr_nn.Batch(x[:20], y[:20]),
        progress=lambda progress: print("step", progress.step, flush=True),
        checkpoints=None if folder is None else Checkpoints(folder, every=0),
        resume=folder is not None,
    )
    leaves = jax.tree.leaves((found.params, found.opt_state, found.history))
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in leaves)).hexdigest()


def started(folder: Path, kind: str) -> subprocess.Popen[str]:
    """The training in a process of its own, its first step done; it ends with its time limit at the latest."""
    command = [sys.executable, "-m", "benchmarks.scale_kill", str(folder), kind]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    limit = threading.Timer(LIMIT, process.kill)
    limit.daemon = True
    limit.start()
    assert process.stdout is not None
    process.stdout.readline()
    return process


def killed(folder: Path, kind: str, delay: float) -> bool:
    """Start the training, kill it `delay` seconds after its first step; True if it was writing a checkpoint."""
    process = started(folder, kind)
    try:
        time.sleep(delay)
    finally:
        process.kill()
        process.communicate()
    return any(folder.glob(".writing_*"))


def ended(folder: Path, kind: str) -> tuple[str, str]:
    """Digests of the training, resumed and gone on with to its end, and of one that nobody disturbed."""
    process = started(folder, kind)
    try:
        told = process.communicate(timeout=LIMIT)[0].split()
    finally:
        process.kill()
        process.communicate()
    return told[-2], told[-1]


def rows(rounds: int, small: bool) -> list[dict[str, Any]]:
    """For each kind of data so many kills, each followed by a training to the end."""
    rng, found = np.random.default_rng(0), []
    kills = 2 if small else KILLS // len(KINDS)
    for kind in KINDS:
        equal, writing, left = 0, 0, []
        for _ in range(kills):
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place)
                writing += killed(folder, kind, float(rng.uniform(0, 2)))
                left.append(max((int(path.name[5:]) for path in folder.glob("step_*")), default=0))
                resumed, undisturbed = ended(folder, kind)
                equal += resumed == undisturbed
        found.append(
            {
                "case": kind,
                "kills": kills,
                "while_writing": writing,
                "equal_to_the_last_bit": equal,
                "steps": EPOCHS * -(-ROWS // BATCH),
                "resumed_from_steps": left,
            }
        )
    return found


if __name__ == "__main__":
    print(train(Path(sys.argv[1]), sys.argv[2]), train(None, sys.argv[2]))
