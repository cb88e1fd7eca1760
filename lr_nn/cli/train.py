"""lr-nn train: a network by mini-batches, with checkpoints from which it goes on bit for bit."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import jax
import optax

import lr_nn
from lr_nn import activations, check
from lr_nn.cli import leaving
from lr_nn.cli.again import words
from lr_nn.cli.judging import judge
from lr_nn.cli.options import Train
from lr_nn.cli.report import Table
from lr_nn.cli.sources import Source, Watched, held_in_memory, source
from lr_nn.cli.terminal import Terminal
from lr_nn.cli.world import joined
from lr_nn.data import Rows
from lr_nn.network import Network
from lr_nn.penalties import Penalty
from lr_nn.sharded import RowParallel
from lr_nn.training import Checkpoints, Progress, Training
from lr_nn.types import Batch

SHOWN = 10
OPTIMIZERS = {"adam": optax.adam, "sgd": optax.sgd}


def run(options: Train, terminal: Terminal) -> int:
    """Train, tell, and leave the model; the exit code."""
    with joined(options, terminal) as (own, parallel):
        return _run(own, terminal, parallel)


def _run(options: Train, terminal: Terminal, parallel: RowParallel | None) -> int:
    leaving.admit(options)
    for name in ("epochs", "batch_size"):
        check.positive_integer(f"--{name.replace('_', '-')}", getattr(options, name))
    widths = _widths(options.hidden)
    if options.resume and options.checkpoints is None:
        raise ValueError("--resume needs --checkpoints, the folder to go on from")
    if options.patience is not None and not options.held_out:
        raise ValueError("--patience judges by rows held out: give --held-out a share above 0")
    if not options.learning_rate > 0:
        raise ValueError(f"--learning-rate must be positive; got {options.learning_rate:g}")
    learned = source(options, options.model)
    for note in learned.notes:
        terminal.warn(f"note: {note}")
    net = learned.network(widths, [_activation(options.activation)] * len(widths))
    began = time.perf_counter()
    trained = _trained(options, terminal, net, learned, parallel)
    seconds = time.perf_counter() - began
    if trained.status == "interrupted":
        return _interrupted(options, terminal, trained)
    table = _history(trained)
    terminal.say(table.text())
    terminal.say(f"{trained.status}: {trained.message}")
    facts = {
        "model": learned.model,
        "rows": len(learned.rows),
        "features": len(learned.rows.features),
        "hidden": list(widths),
        "status": str(trained.status),
        "message": trained.message,
        "steps": trained.steps,
        "penalty": {"l1": options.l1, "l2": options.l2},
        "devices": 1 if parallel is None else parallel.mesh.size,
        "seconds": seconds,
    }
    terminal.record(history=dict(trained.history))
    if terminal.speaks:
        params = jax.device_get(trained.params)
        scores = judge(net, params, learned.rows if learned.held_out is None else learned.held_out)
        leaving.leave(options, terminal, net, params, learned, facts, scores, [table], words("train", options))
    return 1 if trained.status == "non_finite" else 0


def _trained(
    options: Train, terminal: Terminal, net: Network, learned: Source, parallel: RowParallel | None
) -> Training:
    data: Batch | Rows = learned.rows
    validation: Batch | Rows | None = learned.held_out
    if parallel is None:
        with terminal.bar("reading") as show:
            data = _held(learned.rows, options.memory, show)
        validation = None if learned.held_out is None else _held(learned.held_out, options.memory, lambda *_: None)
    train = lr_nn.train if parallel is None else parallel.train
    saving = None
    if options.checkpoints is not None:
        schema = None if learned.schema is None else json.loads(learned.schema.to_json())
        saving = Checkpoints(options.checkpoints, schema=schema)
    with terminal.bar("training", "steps") as show:

        def progress(now: Progress) -> None:
            show(now.step, now.steps, f"epoch {min(now.epoch + 1, now.epochs)} of {now.epochs}, {now.told}")

        return train(
            net,
            lr_nn.init(net, jax.random.key(options.seed)),
            data,
            optimizer=OPTIMIZERS[options.optimizer](options.learning_rate),
            epochs=options.epochs,
            batch_size=options.batch_size,
            key=jax.random.key(options.seed + 1),
            penalty=Penalty(options.l1, options.l2),
            validation=validation,
            patience=options.patience,
            progress=progress,
            checkpoints=saving,
            resume=options.resume,
        )


def _held(rows: Rows, memory: int, show: Any) -> Batch | Rows:
    """The rows in memory, where they fit there."""
    batch = held_in_memory(Watched(rows, show), memory)
    return rows if batch is None else batch


def _interrupted(options: Train, terminal: Terminal, trained: Training) -> int:
    code = 128 + (signal.SIGTERM if trained.signal == "SIGTERM" else signal.SIGINT)
    kept = (
        "nothing was written: --checkpoints FOLDER would have kept it"
        if options.checkpoints is None
        else f"a checkpoint is in {options.checkpoints}: the same command with --resume goes on from it"
    )
    terminal.explain(f"{trained.message}; {kept}")
    return code


def _history(trained: Training) -> Table:
    """The last epochs."""
    names = tuple(trained.history)
    count = len(trained.history["cost"])
    last = range(max(0, count - SHOWN), count)
    rows = [
        (str(epoch + 1), *(float(column[epoch]) if epoch < len(column) else "" for column in trained.history.values()))
        for epoch in last
    ]
    return Table("Epochs", ("epoch", *(name.replace("_", " ") for name in names)), rows)


def _widths(text: str) -> tuple[int, ...]:
    try:
        widths = tuple(int(width) for width in text.split(",") if text)
    except ValueError as error:
        raise ValueError(f"--hidden must be widths such as 64,64; got {text!r}") from error
    if any(width < 1 for width in widths):
        raise ValueError(f"--hidden must be widths of at least 1; got {text!r}")
    return widths


def _activation(name: str) -> activations.Activation:
    return activations.leaky_relu() if name == "leaky_relu" else getattr(activations, name)
