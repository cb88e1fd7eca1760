"""From a file to rows: which reader, what a schema learns, which rows are held out, and which network fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

import lr_nn
from lr_nn import data, losses
from lr_nn.cli.options import Learning, Reading
from lr_nn.cli.wording import in_options
from lr_nn.data.opening import READERS
from lr_nn.data.tables import Table
from lr_nn.network import Network
from lr_nn.sharded.world import of_first

if TYPE_CHECKING:
    from lr_nn.activations import Activation
    from lr_nn.data import Rows, Schema

LOSSES = {
    "linear": losses.squared_error,
    "logistic": losses.bernoulli,
    "softmax": losses.categorical,
    "poisson": losses.poisson,
}
TASKS = {"auto": "auto", "linear": "values", "poisson": "values", "logistic": "labels", "softmax": "labels"}
MODELS = {"values": ("linear", "poisson"), "binary": ("logistic",), "classes": ("softmax",)}
MOST_CLASSES = 1000
# Options that are those of `data.csv`.
TEXT = ("delimiter", "header", "names", "missing", "quote", "decimal", "strip")
# Numbers of x at a time.
BLOCK = 2**22
# Rows of one column at a time.
ROWS = 2**18


@dataclass(frozen=True, eq=False)
class Source:
    """Rows to learn from and rows to judge by, the model that suits their target, and how it all is called."""

    rows: Rows
    held_out: Rows | None
    schema: Schema | None
    model: str
    outputs: tuple[str, ...]
    notes: tuple[str, ...]

    def network(self, widths: Sequence[int] = (), hidden: Sequence[Activation] = ()) -> Network:
        """The network for these rows."""
        return Network((len(self.rows.features), *widths, len(self.outputs)), hidden, LOSSES[self.model])


def source(options: Learning, model: str) -> Source:
    """What the options say to learn from; `model` a name, or auto."""
    if is_arrays(options.data, options):
        return _of_arrays(options, model)
    if options.target is None:
        table = open_table(options.data, options)
        raise ValueError(f"--target must name the column to be predicted, one of {', '.join(table.schema.names)}")
    return _of_table(options, model, options.target)


def is_arrays(path: Path, options: Reading) -> bool:
    """Is this a file of arrays or a folder of pictures, and not a table?"""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.is_dir():
        return any(each.is_dir() for each in path.iterdir())
    return not options.csv and path.name.lower().endswith(tuple(READERS))


def open_table(path: Path, options: Reading) -> Table:
    """The table of a file, its texts read as the options say."""
    said = {name: getattr(options, name) for name in TEXT}
    given = {name: value for name, value in said.items() if value != getattr(Reading, name)}
    try:
        return data.csv(path, **given) if options.csv else data.open_table(path, **given)
    except TypeError as error:  # of options that this kind of file does not take
        raise ValueError(str(error)) from error


def open_arrays(path: Path, options: Reading) -> Rows:
    """The rows of a file of arrays."""
    names = {name: getattr(options, name, None) for name in ("x", "y", "labels", "weight", "offset")}
    return data.open_rows(path, **names)


def _of_table(options: Learning, model: str, target: str) -> Source:
    whole = open_table(options.data, options)
    schema = data.Schema.from_json(of_first(lambda: _learned(options, whole, target, model).to_json()))
    model = MODELS[schema.target.kind][0] if model == "auto" else model
    classes = tuple(map(str, schema.target.classes))
    outputs = classes if model == "softmax" else (f"{target}={classes[1]}",) if classes else (target,)
    rows = schema.rows(whole, unknown="ignore")
    notes = tuple(map(in_options, schema.notes))
    if any(isinstance(column, data.Numeric) and column.scale != 1 for column in schema.columns):
        notes += ("columns of numbers are standardised: a coefficient is for one standard deviation more",)
    if not options.held_out:
        return Source(rows, None, schema, model, outputs, notes)
    return Source(*data.split(rows, options.held_out, key=jax.random.key(options.seed)), schema, model, outputs, notes)


def _learned(options: Learning, whole: Table, target: str, model: str) -> Schema:
    """The schema of the rows that are not held out, when it and the target of all rows have been found to suit."""
    seen, unseen = (
        data.split(whole, options.held_out, key=jax.random.key(options.seed)) if options.held_out else (whole, None)
    )
    schema = learn(options, seen, target, model)
    suited = MODELS[schema.target.kind]
    if model != "auto" and model not in suited:
        raise ValueError(
            f"the target {target!r} holds {schema.target.kind}: --model {' or '.join(suited)} suits; got {model}"
        )
    if model == "poisson":
        _check_counts(whole, target)
    if unseen is not None and schema.target.classes:
        _check_classes(unseen, schema)
    return schema


def learn(options: Learning, table: Table, target: str, model: str) -> Schema:
    """The schema of a table for a model."""
    return data.learn(
        table,
        target,
        weight=options.weight,
        offset=options.offset,
        ignore=options.ignore,
        categorical=options.categorical,
        reference=options.reference,
        missing=options.impute,
        standardise=options.standardise,
        task=TASKS[model],
    )


def _check_counts(table: Table, target: str) -> None:
    """Refuse a count below zero by its place in the file."""
    for start in range(0, len(table), ROWS):
        column = table.read(start, min(len(table), start + ROWS), [target]).column(target).to_numpy()
        if (column < 0).any():
            row = int((column < 0).argmax())
            raise ValueError(
                f"--model poisson needs counts; the target {target!r} is {column[row]} at row {start + row}"
            )


def _check_classes(unseen: Table, schema: Schema) -> None:
    """Refuse a class that only rows held out have: the model could not know of it."""
    target = schema.target.name
    unseen, known = unseen.typed(schema.types()), set(schema.target.classes)
    for start in range(0, len(unseen), ROWS):
        column = unseen.read(start, min(len(unseen), start + ROWS), [target]).column(target)
        for value in column.unique().to_pylist():
            if value not in known:
                raise ValueError(
                    f"the rows of the class {value!r} of {target!r} are all held out, it is so rare: take another "
                    "--seed, or --held-out 0"
                )


def _of_arrays(options: Learning, model: str) -> Source:
    if options.target is not None:
        raise ValueError(f"--target names a column of a table; {options.data} holds arrays, and its target is y")
    rows = open_arrays(options.data, options)
    model, k = of_first(lambda: _suited(rows, model))
    classes = getattr(rows, "classes", None)
    outputs = tuple(map(str, classes if classes is not None and model == "softmax" else range(k)))
    outputs = ("y",) if k == 1 else outputs
    seen, unseen = (
        data.split(rows, options.held_out, key=jax.random.key(options.seed)) if options.held_out else (rows, None)
    )
    return Source(seen, unseen, None, model, outputs, rows.notes)


def _suited(rows: Rows, model: str) -> tuple[str, int]:
    """The model that suits the targets of rows, and its number of outputs; a target that will not do is refused."""
    largest, whole, width = -np.inf, True, 1
    loss, size = LOSSES["linear" if model == "auto" else model], max(1, BLOCK // len(rows.features))
    for number, batch in enumerate(data.blocks(rows, size)):
        if batch.y is None:
            raise ValueError("the rows have no targets: name them by --y (or --labels, of IDX)")
        y = np.asarray(batch.y)
        good = np.asarray(loss.valid(y))
        if not good.all():
            row = int(np.argwhere(~good)[0, 0])
            raise ValueError(f"targets must be {loss.target}; got {y[row]} at row {number * size + row}")
        width = 1 if y.ndim == 1 else y.shape[1]
        whole &= bool((y == np.floor(y)).all() and (y >= 0).all())
        largest = max(largest, float(y.max()))
    if model == "auto":
        model = "linear" if not whole or largest >= MOST_CLASSES else "logistic" if largest <= 1 else "softmax"
    if model == "softmax" and width == 1:
        if not whole or largest >= MOST_CLASSES:
            raise ValueError(f"--model softmax needs classes counted from 0, fewer than {MOST_CLASSES}; y is not such")
        return model, int(largest) + 1
    return model, width


def held_in_memory(rows: Rows, memory: int) -> lr_nn.Batch | None:
    """All rows at once where they fit into `memory` mebibytes with room to work, else None."""
    if len(rows) * len(rows.features) * 8 * 3 > memory * 2**20:
        return None
    blocks = zip(*data.blocks(rows, max(1, BLOCK // len(rows.features))))
    return lr_nn.Batch(*(None if parts[0] is None else np.concatenate(parts) for parts in blocks))


class Watched(data.Rows):
    """Rows that tell how far they are read."""

    def __init__(self, rows: Rows, show: Any) -> None:
        """show: called with the rows read of all."""
        self.rows, self.show = rows, show

    @property
    def features(self) -> tuple[str, ...]:
        return self.rows.features

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, start: int, stop: int) -> lr_nn.Batch:
        batch = self.rows.read(start, stop)
        self.show(stop, len(self))
        return batch
