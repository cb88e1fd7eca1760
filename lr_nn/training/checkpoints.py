"""Checkpoints on disk: written whole or not at all, and read only if every byte is the one that was written.

A checkpoint is a folder `step_000000001200` of `arrays`, which orbax writes, and `record.json`: a line with the
SHA-256 of what follows, then JSON with the digest of every other file and of every array. It gets its name when it
is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn import check
from lr_nn.training.background import reported_once

__all__ = ["Checkpoints", "DamagedError", "ForeignError"]

FORMAT = 1
RECORD, ARRAYS = "record.json", "arrays"


@dataclass(frozen=True)
class Checkpoints:
    """Where a training leaves checkpoints, and how often.

    folder: of this training alone. every: at least so many seconds from one to the next; 0 is after every call of
    compiled steps. keep: the newest so many are kept; each of them has in it the best state so far by validation
    cost. fall_back: where the newest is damaged, go on from the last good one. schema: anything that JSON can say,
    kept along (how columns became features, say), the same when training goes on.
    """

    folder: str | os.PathLike[str]
    every: float = 60.0
    keep: int = 3
    fall_back: bool = False
    schema: Any = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        check.positive_integer("keep", self.keep)
        if not isinstance(self.every, (int, float)) or not self.every >= 0:
            raise ValueError(f"every must be a number of seconds, 0 or more; got {self.every!r}")
        try:
            json.dumps(self.schema)
        except (TypeError, ValueError) as error:
            raise TypeError(f"schema must be what JSON can say: {error}") from error


class DamagedError(ValueError):
    """A checkpoint that is not, byte for byte, what was written."""


class ForeignError(ValueError):
    """A checkpoint of another training, or of another format."""


class Saved(NamedTuple):
    """What a checkpoint holds: its arrays by name, and the rest."""

    path: Path
    arrays: dict[str, np.ndarray]
    record: dict[str, Any]


def steps(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the newest first."""
    return sorted(folder.glob("step_" + "[0-9]" * 12), reverse=True)


def newest(folder: Path, fall_back: bool = False) -> Saved | None:
    """The newest checkpoint, None if there is none; the last good one if it is damaged and `fall_back` is set."""
    good, wrong = None, []
    for path in steps(folder):
        try:
            good = read(path)
            break
        except DamagedError as error:
            wrong.append(str(error))
    if not wrong or (good is not None and fall_back):
        return good
    if good is None:
        raise DamagedError(f"no checkpoint is left whole in {folder}: {'; '.join(wrong)}; start anew in another folder")
    raise DamagedError(
        f"{wrong[0]}. The last good checkpoint is {good.path.name}: Checkpoints(..., fall_back=True) goes on from it"
    )


def read(path: Path) -> Saved:
    """A checkpoint, every file and every array of it as it was written; DamagedError or ForeignError otherwise."""
    record = _record(path)
    _compare_files(path, record["files"])
    try:
        arrays = _restore(path / ARRAYS, record["arrays"])
    except ImportError:
        raise
    except Exception as error:  # whatever orbax makes of it
        raise DamagedError(f"checkpoint {path} is damaged: {error}") from error
    for name, array in arrays.items():
        if _digest(array.tobytes()) != record["arrays"][name]["sha256"]:
            raise DamagedError(f"checkpoint {path} is damaged: {name} is not what was written")
    return Saved(path, arrays, record)


def _record(path: Path) -> dict[str, Any]:
    try:
        digest, _, body = (path / RECORD).read_bytes().partition(b"\n")
    except OSError as error:
        raise DamagedError(f"checkpoint {path} is damaged: {RECORD} cannot be read ({error.strerror})") from error
    if digest.decode("ascii", "replace") != _digest(body):
        raise DamagedError(f"checkpoint {path} is damaged: {RECORD} is not what was written")
    record = json.loads(body)
    if record["format"] != FORMAT:
        age, do = ("an older", "train anew") if record["format"] < FORMAT else ("a newer", "update lr_nn")
        raise ForeignError(f"checkpoint {path} is of {age} format, {record['format']}, this lr_nn reads {FORMAT}: {do}")
    if path.name != _name(record["step"]):
        raise DamagedError(f"checkpoint {path} is damaged: {RECORD} is of step {record['step']}")
    return record


def _compare_files(path: Path, expected: dict[str, str]) -> None:
    found = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()} - {RECORD}
    for file in sorted(found ^ set(expected)):
        what = "is missing" if file in expected else "was not written with it"
        raise DamagedError(f"checkpoint {path} is damaged: {file} {what}")
    for file, digest in expected.items():
        try:
            content = (path / file).read_bytes()
        except OSError as error:
            raise DamagedError(f"checkpoint {path} is damaged: {file} cannot be read ({error.strerror})") from error
        if _digest(content) != digest:
            raise DamagedError(f"checkpoint {path} is damaged: {file} is not what was written")


def write(folder: Path, step: int, arrays: dict[str, np.ndarray], record: dict[str, Any]) -> Path:
    """A checkpoint, there at once when it is complete; nothing is left of one that could not be written.

    One of this step that is there already stays as it is.
    """
    path, staging = folder / _name(step), folder / f".writing_{step:012d}"
    if path.exists():
        return path
    _remove(staging)
    try:
        staging.mkdir()
        _save(staging / ARRAYS, arrays)
        told = {
            name: {"dtype": a.dtype.name, "shape": list(a.shape), "sha256": _digest(a.tobytes())}
            for name, a in arrays.items()
        }
        files = {str(file.relative_to(staging)): _sealed(file) for file in staging.rglob("*") if file.is_file()}
        body = json.dumps({"format": FORMAT, "step": step, **record, "arrays": told, "files": files}).encode()
        with (staging / RECORD).open("wb") as file:
            file.write(_digest(body).encode() + b"\n" + body)
            file.flush()
            os.fsync(file.fileno())
        staging.rename(path)
    except BaseException:
        _remove(staging)
        raise
    return path


def prune(folder: Path, keep: int) -> None:
    """Leave the newest `keep` checkpoints."""
    for path in steps(folder)[keep:]:
        gone = path.with_name(f".old_{path.name}")
        path.rename(gone)
        _remove(gone)


def set_aside(path: Path) -> None:
    """Give a damaged checkpoint a name by which it is not looked for."""
    aside = path.with_name(f"damaged_{path.name}")
    _remove(aside)
    path.rename(aside)


def claim(folder: Path) -> IO[str]:
    """Make the folder ready to be written to by this process alone, until what is returned is closed.

    What a killed process left half-written is removed. Raises OSError where nothing can be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial = folder / ".writing_trial"
        trial.write_bytes(b"0")
        trial.unlink()
        lock = (folder / ".lock").open("a")
    except OSError as error:
        raise OSError(f"checkpoints cannot be written to {folder}: {error.strerror}") from error
    if not _locked(lock):
        lock.close()
        raise OSError(f"another training writes its checkpoints to {folder}; give each a folder of its own")
    for leftover in (*folder.glob(".writing_*"), *folder.glob(".old_*")):
        _remove(leftover)
    return lock


def _locked(lock: IO[str]) -> bool:
    """Hold an open file alone, until it is closed or the process ends, where the system can."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def orbax() -> Any:
    """The library that writes arrays."""
    try:
        import orbax.checkpoint
    except ImportError as missing:
        raise ImportError('checkpoints need orbax-checkpoint: pip install "lr-nn[checkpoints]"') from missing
    return orbax.checkpoint


def _handler() -> Any:
    """A writer of arrays that waits until all is written, and for no other process."""
    ocp, here = orbax(), jax.process_index()
    alone = ocp.options.MultiprocessingOptions(primary_host=here, active_processes={here})
    return ocp.Checkpointer(ocp.StandardCheckpointHandler(multiprocessing_options=alone), multiprocessing_options=alone)


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Arrays under their numbers, for names have signs that files must not; what has no entries is in the record."""
    numbered = {str(i): np.asarray(array) for i, array in enumerate(arrays.values()) if array.size}
    with reported_once(), _handler() as writer:
        writer.save(path.absolute(), args=orbax().args.StandardSave(numbered))


def _restore(path: Path, told: dict[str, dict[str, Any]]) -> dict[str, np.ndarray]:
    empty = {name: np.empty(each["shape"], jnp.dtype(each["dtype"])) for name, each in told.items()}
    like = {str(i): array for i, array in enumerate(empty.values()) if array.size}
    with reported_once(), _handler() as reader:
        found = reader.restore(path.absolute(), args=orbax().args.StandardRestore(like))
    return {name: found.get(str(i), array) for i, (name, array) in enumerate(empty.items())}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sealed(file: Path) -> str:
    """The digest of a file that the disk now has."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _name(step: int) -> str:
    return f"step_{step:012d}"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
