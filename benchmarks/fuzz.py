"""Damaged files, and what readers make of them: the one engine of tests and of the benchmark.

A case is (format, seed): the seed writes a valid file and damages it. A reader may read it or refuse it by
ValueError or OSError; anything else is a fault of the reader, and goes through to the caller.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# What stands in files for numbers and is none, or none that fits.
TOKENS = (
    *(b"1e999", b"-1e999", b"nan", b"99999999999999999999", b"-1", b"0x1f", b"1_0"),
    *(b"\xff\xfe", b"\n\n", b",", b'"'),
)
# A file of a fuzzed format is small.
MEMORY = 2**26
EXTREMES = (0x00, 0x01, 0x7F, 0x80, 0xFF)


@dataclass(frozen=True)
class Format:
    """A kind of file: `write` makes a valid one in an empty folder and returns the path that `read` reads whole."""

    write: Callable[[Path, np.random.Generator], Path]
    read: Callable[[Path], Any]


def fuzz(form: Format, seed: int, folder: Path) -> str:
    """Damage a valid file in `folder`, which must be empty, and read it: "read", or "refused: " and the message."""
    rng = np.random.default_rng(seed)
    path = form.write(folder, rng)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    damaged = files[rng.integers(len(files))]
    damaged.write_bytes(mutations(damaged.read_bytes(), rng))
    return outcome(form, path)


def outcome(form: Format, path: Path) -> str:
    """What the reader of a format makes of a path. Raises MemoryError where it takes more than `MEMORY` bytes."""
    tracemalloc.start()
    try:
        form.read(path)
        return "read"
    except (ValueError, OSError) as refusal:
        return f"refused: {refusal}"
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        if peak > MEMORY:
            raise MemoryError(f"{peak} bytes were taken for a file of a few thousand")


def mutations(valid: bytes, rng: np.random.Generator) -> bytes:
    """One to four damages: bits flipped, bytes overwritten, cut, duplicated, spliced, tokens and noise put in."""
    for _ in range(rng.integers(1, 5)):
        valid = DAMAGES[rng.integers(len(DAMAGES))](valid, rng)
    return valid


def _place(data: bytes, rng: np.random.Generator) -> int:
    """Anywhere, but half the time in the first 128 bytes, where headers are."""
    return int(rng.integers(0, (min(len(data), 128) if rng.random() < 0.5 else len(data)) + 1))


def _piece(data: bytes, rng: np.random.Generator) -> bytes:
    start = _place(data, rng)
    return data[start : start + int(2 ** rng.uniform(0, 12))]


def _flip(data: bytes, rng: np.random.Generator) -> bytes:
    at = _place(data, rng)
    return data[:at] + bytes(byte ^ (1 << int(rng.integers(8))) for byte in data[at : at + 1]) + data[at + 1 :]


def _overwrite(data: bytes, rng: np.random.Generator) -> bytes:
    at, count = _place(data, rng), int(rng.integers(1, 9))
    count = len(data[at : at + count])
    return data[:at] + bytes([EXTREMES[rng.integers(len(EXTREMES))]]) * count + data[at + count :]


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: _place(data, rng)]


def _drop(data: bytes, rng: np.random.Generator) -> bytes:
    at = _place(data, rng)
    return data[:at] + data[at + len(_piece(data, rng)) :]


def _duplicate(data: bytes, rng: np.random.Generator) -> bytes:
    at = _place(data, rng)
    return data[:at] + data[at : at + int(2 ** rng.uniform(0, 12))] * int(rng.integers(2, 4)) + data[at:]


def _splice(data: bytes, rng: np.random.Generator) -> bytes:
    at, piece = _place(data, rng), _piece(data, rng)
    return data[:at] + piece + data[at + (len(piece) if rng.random() < 0.5 else 0) :]


def _token(data: bytes, rng: np.random.Generator) -> bytes:
    at = _place(data, rng)
    return data[:at] + TOKENS[rng.integers(len(TOKENS))] + data[at + int(rng.integers(0, 4)) :]


def _noise(data: bytes, rng: np.random.Generator) -> bytes:
    at = _place(data, rng)
    return data[:at] + rng.bytes(int(rng.integers(1, 64))) + data[at:]


DAMAGES = (_flip, _overwrite, _cut, _drop, _duplicate, _splice, _token, _noise)
