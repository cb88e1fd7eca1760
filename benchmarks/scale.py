"""Larger than memory and than one machine, and nothing lost when it breaks: every claim of scale, a section each."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import harness

Rows = list[dict[str, Any]]

SECTIONS = {
    "fuzz": ("scale_fuzz", "damaged files of every format, and what readers made of them"),
    "damage": ("scale_damage", "every file of a checkpoint and of a model damaged in turn"),
    "kill": ("scale_kill", "trainings ended by kill -9 at random moments, saving included, and resumed"),
    "growth": ("scale_growth", "time and memory against what grows, exponents over the last decade"),
}


def main(
    names: tuple[str, ...] = tuple(SECTIONS), rounds: int = 5, small: bool = False, out: Path = harness.RESULTS
) -> None:
    """Measure sections, show them, and write their record as JSON and the growth as a picture.

    Args:
        names: which sections; those not measured are kept from a record that is there.
        rounds: repetitions of what is repeated.
        small: shrink every size, to see that it runs.
        out: folder of the record.
    """
    if unknown := set(names) - set(SECTIONS):
        raise SystemExit(f"unknown section {sorted(unknown)[0]!r}; known: {', '.join(SECTIONS)}")
    if small and out.resolve() == harness.RESULTS.resolve():
        raise SystemExit("--small is no measurement: give it an --out of its own")
    from benchmarks.scale_figure import growth

    for name in names:
        module, title = SECTIONS[name]
        rows: Callable[[int, bool], Rows] = import_module(f"benchmarks.{module}").rows
        found = rows(rounds, small)
        show(title, found)
        harness.write("scale", name, found, out)
    record = harness.read("scale", out)
    if "growth" in record:
        growth(record["growth"]["rows"], out / "scale.png")
    print(f"written to {out}")


def show(title: str, rows: Rows) -> None:
    """A table on the terminal: a column for every number and word that the rows have."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    columns = [
        name for name in dict.fromkeys(key for row in rows for key in row) if not isinstance(rows[0].get(name), list)
    ]
    for column in columns:
        table.add_column(column.replace("_", " "), justify="left" if isinstance(rows[0].get(column), str) else "right")
    for row in rows:
        table.add_row(*(_told(row.get(column)) for column in columns))
    Console(width=160).print(table)


def _told(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
