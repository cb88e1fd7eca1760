"""Formats of tables, for the engine that damages files."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzz import Format
from lr_nn import data

ROWS = 40
COLOURS = ("red", "green, dark", 'the "blue"', "two\nlines", "ß→∞")


def example(rng: np.random.Generator) -> dict[str, Any]:
    """Columns of every kind that a schema takes, some of their values missing."""
    sizes = [None if rng.random() < 0.2 else float(value) for value in rng.normal(size=ROWS).round(3)]
    return {
        "size": sizes,
        "count": rng.integers(-5, 1000, ROWS),
        "colour": [COLOURS[i] for i in rng.integers(0, len(COLOURS), ROWS)],
        "new": rng.random(ROWS) < 0.5,
        "sold": np.where(np.arange(ROWS) % 3 == 0, "yes", "no"),
    }


def write_csv(folder: Path, rng: np.random.Generator, pack: Callable[[bytes], bytes], suffix: str) -> Path:
    """With quotes where they are needed, as pandas writes it."""
    import pandas

    path = folder / f"a{suffix}"
    path.write_bytes(pack(pandas.DataFrame(example(rng)).to_csv(index=False).encode()))
    return path


def write_parquet(folder: Path, rng: np.random.Generator, **how: Any) -> Path:
    """In several groups of rows."""
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table(example(rng)), folder / "a.parquet", row_group_size=16, **how)
    return folder / "a.parquet"


def write_arrow(folder: Path, rng: np.random.Generator, compression: str) -> Path:
    """In several groups of rows."""
    import pyarrow as pa
    from pyarrow import feather

    feather.write_feather(pa.table(example(rng)), str(folder / "a.feather"), compression, chunksize=16)
    return folder / "a.feather"


def read(path: Path) -> None:
    """As the command line does."""
    table = data.open_table(path)
    table.read(0, len(table))
    data.learn(table, "sold", missing="indicator").rows(table).read(0, len(table))


PARQUET: dict[str, dict[str, Any]] = {
    "plain": {"compression": "none", "use_dictionary": False},
    "snappy": {},
    "zstd": {"compression": "zstd"},
}
FORMATS: dict[str, Format] = {
    "CSV": Format(partial(write_csv, pack=bytes, suffix=".csv"), read),
    "CSV, gzip": Format(partial(write_csv, pack=gzip.compress, suffix=".csv.gz"), read),
    **{f"Parquet, {name}": Format(partial(write_parquet, **how), read) for name, how in PARQUET.items()},
    **{f"Arrow, {kind}": Format(partial(write_arrow, compression=kind), read) for kind in ("uncompressed", "lz4")},
}
