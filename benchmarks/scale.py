"""Larger than memory and than one machine, and nothing lost when it breaks: every claim of scale, a section each."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import harness

Rows = list[dict[str, Any]]

SECTIONS = {
    "fit": ("scale_fit", "a logistic fit of a file larger than its memory"),
    "sharded": ("scale_sharded", "devices and processes beside one device, and losses noticed"),
    "fuzz": ("scale_fuzz", "damaged files of every format, and what readers made of them"),
    "damage": ("scale_damage", "every file of a checkpoint and of a model damaged in turn"),
    "kill": ("scale_kill", "trainings ended by kill -9 at random moments, saving included, and resumed"),
    "growth": ("scale_growth", "time and memory against what grows, exponents over the last decade"),
}


# What a row is called by.
NAMES = ("case", "competitor", "grows")


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
    """On the terminal: a line for what was measured, and under it what was found."""
    print(f"\n{title}")
    for row in rows:
        print("  " + ", ".join(str(row[name]) for name in NAMES if name in row))
        print("    " + ", ".join(f"{key.replace('_', ' ')} {_told(row[key])}" for key in row if key not in NAMES))


def _told(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
