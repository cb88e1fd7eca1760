"""Every file of a checkpoint and of a model damaged in turn: refused by name, never loaded as something else."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

# Places in a file at which a bit is flipped.
PLACES = 200


def rows(rounds: int, small: bool) -> list[dict[str, Any]]:
    """A row for a checkpoint and one for a model: damages tried, and how they ended."""
    return [_tried(case, make, load, 8 if small else PLACES) for case, make, load in SUBJECTS]


def _tried(case: str, make: Callable[[Path, int], Path], load: Callable[[Path], Any], places: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        subject, other = (make(Path(folder) / str(seed), seed) for seed in range(2))
        files, others = ([path for path in sorted(each.rglob("*")) if path.is_file()] for each in (subject, other))
        count, refused, named = 0, 0, 0
        load(subject)
        for i, file in enumerate(files):
            whole = file.read_bytes()
            for damaged in damages(whole, others[i % len(others)].read_bytes(), places):
                file.unlink() if damaged is None else file.write_bytes(damaged)
                count += 1
                try:
                    load(subject)
                except (ValueError, OSError) as refusal:
                    refused += 1
                    named += file.name in str(refusal) or subject.name in str(refusal)
            file.write_bytes(whole)
        load(subject)
        return {"case": case, "files": len(files), "damages": count, "refused": refused, "named": named}


def damages(whole: bytes, other: bytes, places: int) -> Iterator[bytes | None]:
    """A file with a bit flipped at so many places, cut at a few, longer, of another, empty, and gone."""
    for number, at in enumerate(np.unique(np.linspace(0, len(whole) - 1, places).astype(int))):
        yield whole[:at] + bytes([whole[at] ^ 1 << number % 8]) + whole[at + 1 :]
    for part in (0.0, 0.25, 0.5, 0.75):
        yield whole[: int(part * len(whole))]
    yield whole[:-1]
    yield whole + b"\0"
    if other != whole:
        yield other
    yield None


def checkpoint(folder: Path, seed: int) -> Path:
    """That of a short training."""
    import jax
    import optax

    import lr_nn
    from lr_nn.training import Checkpoints

    rng = np.random.default_rng(seed)
    data = lr_nn.Batch(rng.normal(size=(50, 4)).astype(np.float32), rng.integers(0, 3, 50))
    net = lr_nn.mlp((4, 5, 3), loss=lr_nn.losses.categorical)
    params = lr_nn.init(net, jax.random.key(seed))
    lr_nn.train(*(net, params, data), optimizer=optax.sgd(0.1, 0.9), epochs=2, checkpoints=Checkpoints(folder, keep=1))
    (path,) = folder.glob("step_*")
    return path


def model(folder: Path, seed: int) -> Path:
    """A small network."""
    import jax

    import lr_nn

    net = lr_nn.mlp((4, 5, 3), loss=lr_nn.losses.categorical)
    lr_nn.save_model(folder, net, lr_nn.init(net, jax.random.key(seed)))
    return folder


def load_checkpoint(path: Path) -> Any:
    """As a training that goes on does."""
    from lr_nn.training import checkpoints

    return checkpoints.read(path)


def load_model(path: Path) -> Any:
    """As whoever predicts does."""
    import lr_nn

    return lr_nn.load_model(path)


SUBJECTS = (("checkpoint", checkpoint, load_checkpoint), ("model", model, load_model))
