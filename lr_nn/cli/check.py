"""lr-nn check: what a data file holds, and what is wrong with it, before anything runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lr_nn import data
from lr_nn.cli.options import Check
from lr_nn.cli.report import Table as Printed
from lr_nn.cli.sources import Watched, is_arrays, open_arrays, open_table
from lr_nn.cli.terminal import Terminal
from lr_nn.cli.wording import in_options
from lr_nn.data import Table

BLOCK = 2**16
DISTINCT = 1000


def run(options: Check, terminal: Terminal) -> int:
    """Say what there is and what is wrong; the exit code."""
    if is_arrays(options.data, options):
        if options.target is not None:
            raise ValueError(f"--target names a column of a table; {options.data} holds arrays")
        rows = open_arrays(options.data, options)
        terminal.say(f"{options.data}: {len(rows):,} rows of {len(rows.features)} features")
        with terminal.bar("checking") as show:
            said = data.problems(Watched(rows, show))
        terminal.record(rows=len(rows), features=len(rows.features))
        return _conclude(terminal, [*rows.notes, *said])
    table = open_table(options.data, options)
    for name in (options.target, options.weight, options.offset, *options.ignore, *options.categorical):
        if name is not None and name not in table.schema.names:
            raise ValueError(f"{options.data} has no column {name!r}; it has {', '.join(table.schema.names)}")
    with terminal.bar("checking") as show:
        columns = survey(table, show)
    terminal.say(f"{options.data}: {len(table):,} rows")
    terminal.say(Printed("", ("column", "type", "missing", "distinct"), [each.row for each in columns]).text())
    terminal.record(rows=len(table), columns=[each.record for each in columns])
    said = [sentence for each in columns for sentence in each.problems(len(table), options)]
    if options.target is not None:
        said += _of_a_fit(options, terminal, table)
    return _conclude(terminal, said)


def _conclude(terminal: Terminal, said: list[str]) -> int:
    said = [in_options(sentence) for sentence in said]
    terminal.record(problems=said)
    for sentence in said:
        terminal.say(f"- {sentence}")
    terminal.say(f"{len(said)} to look at" if said else "nothing wrong was found")
    return 1 if said else 0


def _of_a_fit(options: Check, terminal: Terminal, table: Table) -> list[str]:
    """What learning a schema and encoding every row brings to light."""
    assert options.target is not None
    try:
        schema = data.learn(
            table,
            options.target,
            weight=options.weight,
            offset=options.offset,
            ignore=options.ignore,
            categorical=options.categorical,
        )
        terminal.say(f"target {options.target}: {schema.target.kind}, and {len(schema.features)} features")
        terminal.record(target=schema.target.kind, features=list(schema.features))
        with terminal.bar("encoding") as show:
            return [*schema.notes, *data.problems(Watched(schema.rows(table), show))]
    except ValueError as error:
        return [str(error)]


@dataclass
class Column:
    """What is seen of a column, block by block."""

    name: str
    type: str
    missing: int = 0
    infinite: int = 0
    values: set[Any] | None = field(default_factory=set)

    @property
    def count(self) -> int | None:
        """Distinct values; None where they are more than are counted."""
        return None if self.values is None else len(self.values)

    @property
    def nested(self) -> bool:
        """Is it a column of lists or of structures?"""
        return self.type.endswith(">") and not self.type.startswith("dictionary")

    @property
    def row(self) -> tuple[str, ...]:
        """For the terminal."""
        distinct = "" if self.nested else f"over {DISTINCT:,}" if self.count is None else f"{self.count:,}"
        return self.name, self.type, f"{self.missing:,}", distinct

    @property
    def record(self) -> dict[str, Any]:
        """For machines."""
        return {"name": self.name, "type": self.type, "missing": self.missing, "distinct": self.count}

    def add(self, array: Any) -> None:
        """Another block."""
        import pyarrow as pa
        import pyarrow.compute as pc

        self.missing += array.null_count
        if pa.types.is_floating(array.type):
            self.missing += pc.sum(pc.is_nan(array)).as_py() or 0
            self.infinite += pc.sum(pc.is_inf(array)).as_py() or 0
        if pa.types.is_nested(array.type):
            self.values = None
        if self.values is not None:
            self.values |= set(pc.unique(array.drop_null()).to_pylist())
            self.values = self.values if len(self.values) <= DISTINCT else None

    def problems(self, rows: int, options: Check) -> list[str]:
        """What is wrong, in sentences."""
        if self.name in options.ignore:
            return []
        said = []
        if self.missing == rows:
            return [f"column {self.name!r} has no value in any row: ignore it"]
        if self.infinite:
            said.append(f"column {self.name!r} has {self.infinite:,} infinite values: mend them, or ignore the column")
        if 2 * self.missing > rows:
            said.append(f"column {self.name!r} lacks {self.missing / rows:.0%} of its values")
        if self.count == 1:
            said.append(f"column {self.name!r} has one value in every row: it tells nothing")
        if self.count is None and self.type in ("string", "large_string"):
            said.append(f"column {self.name!r} is text of over {DISTINCT:,} values: ignore it if it identifies rows")
        if self.nested or self.type.endswith("binary"):
            said.append(f"column {self.name!r} holds {self.type}: make it columns of numbers or texts, or ignore it")
        if self.type.startswith(("date", "time", "duration")):
            said.append(f"column {self.name!r} is a {self.type}: make it a number, such as days, or ignore it")
        return said


def survey(table: Table, show: Any) -> list[Column]:
    """One pass over a table."""
    columns = [Column(each.name, str(each.type)) for each in table.schema]
    for start in range(0, len(table), BLOCK):
        stop = min(len(table), start + BLOCK)
        block = table.read(start, stop)
        for column in columns:
            column.add(block.column(column.name))
        show(stop, len(table))
    return columns
