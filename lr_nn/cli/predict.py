"""lr-nn predict: a model on new rows, block by block, into a file that is whole or not there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from lr_nn.cli.options import Predict
from lr_nn.cli.sources import is_arrays, open_arrays, open_table
from lr_nn.cli.terminal import Terminal
from lr_nn.data import Rows, Table
from lr_nn.model_files import Model, load_model, replacing

SUFFIXES = (".csv", ".parquet")


def run(options: Predict, terminal: Terminal) -> int:
    """Write predictions; the exit code."""
    import pyarrow as pa

    if options.out is None and terminal.json:
        raise ValueError("--json needs --out: standard output has room for one of them")
    if options.out is not None and options.out.suffix.lower() not in SUFFIXES:
        raise ValueError(f"--out must end in {' or '.join(SUFFIXES)}; got {options.out}")
    if options.out is None and sys.stdout is None:
        raise ValueError("standard output is closed: name a file by --out")
    if options.rows < 1:
        raise ValueError(f"--rows must be at least 1; got {options.rows}")
    model = load_model(options.model)
    table, rows = _opened(options, model)
    with terminal.bar("predicting") as show, _writer(options.out, options.overwrite) as write:
        for start in range(0, len(rows), options.rows):
            stop = min(len(rows), start + options.rows)
            batch = rows.read(start, stop)
            columns = predictions(model, model.predict(batch.x, batch.offset))
            twice = [name for name in options.keep if name in columns]
            if twice:
                raise ValueError(
                    f"--keep {twice[0]}: the predictions have a column of that name; rename it in the data"
                )
            kept = table.read(start, stop, options.keep) if table is not None and options.keep else None
            write(pa.table({**({} if kept is None else dict(zip(kept.column_names, kept.columns))), **columns}))
            show(stop, len(rows))
    terminal.record(rows=len(rows), columns=list(columns), out=options.out)
    if options.out is not None:
        terminal.say(f"{len(rows):,} predictions in {options.out}")
    return 0


def predictions(model: Model, mean: np.ndarray) -> dict[str, Any]:
    """Columns of predictions: for numbers the mean; for classes the likeliest, and the probability of each.

    Of two classes the probability is that of the second, which is y = 1.
    """
    classes = () if model.schema is None else model.schema.target.classes
    task, k = model.net.loss.task, mean.shape[1]
    if task == "classes":
        named = np.array(classes if classes else range(k))
        probabilities = {f"probability {name}": mean[:, j] for j, name in enumerate(named)}
        return {"prediction": named[mean.argmax(axis=1)], **probabilities}
    if task == "labels" and k == 1:
        named = np.array(classes if classes else (0, 1))
        return {"prediction": named[(mean[:, 0] > 0.5).astype(int)], f"probability {named[1]}": mean[:, 0]}
    return {"prediction" if k == 1 else f"prediction {j}": mean[:, j] for j in range(k)}


def _opened(options: Predict, model: Model) -> tuple[Table | None, Rows]:
    """The table, if it is one, and its rows as the model takes them."""
    if is_arrays(options.data, options):
        if model.schema is not None:
            raise ValueError(f"{options.model} was learned from a table, and {options.data} holds arrays")
        if options.keep:
            raise ValueError("--keep names columns of a table, and this holds arrays")
        rows = open_arrays(options.data, options)
    else:
        table = open_table(options.data, options)
        if model.schema is None:
            raise ValueError(f"{options.model} was learned from arrays, and {options.data} is a table")
        lacking = [name for name in options.keep if name not in table.schema.names]
        if lacking:
            raise ValueError(f"--keep names the column {lacking[0]!r}, which {options.data} does not have")
        return table, model.schema.inputs(table, unknown=options.unknown, extra=options.extra)
    if len(rows.features) != model.net.sizes[0]:
        raise ValueError(f"the model takes {model.net.sizes[0]} features; {options.data} has {len(rows.features)}")
    return None, rows


@contextmanager
def _writer(out: Path | None, overwrite: bool) -> Iterator[Callable[[Any], None]]:
    """What writes blocks of one kind, one after the other."""
    if out is None:
        with _to(_csv, sys.stdout.buffer) as write:
            yield write
        return
    kind = _parquet if out.suffix.lower() == ".parquet" else _csv
    with replacing(out, overwrite=overwrite) as draft, draft.open("xb") as file, _to(kind, file) as write:
        yield write


@contextmanager
def _to(kind: Callable[[Any, Any], Any], file: IO[bytes]) -> Iterator[Callable[[Any], None]]:
    writer = None

    def write(block: Any) -> None:
        nonlocal writer
        writer = kind(file, block.schema) if writer is None else writer
        writer.write_table(block)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()


def _parquet(file: IO[bytes], schema: Any) -> Any:
    from pyarrow.parquet import ParquetWriter

    return ParquetWriter(file, schema)


def _csv(file: IO[bytes], schema: Any) -> Any:
    from pyarrow.csv import CSVWriter

    return CSVWriter(file, schema)
