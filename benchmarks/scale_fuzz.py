"""Damaged files by the thousand: a reader reads them or refuses them by name; anything else is a fault."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks import fuzz, fuzz_arrays, fuzz_command_line, fuzz_tables

CASES = 2000


def rows(rounds: int, small: bool) -> list[dict[str, Any]]:
    """A row a format: files damaged, how many were refused, how many read, and faults, with the seed of the first."""
    formats = {**fuzz_arrays.FORMATS, **fuzz_tables.FORMATS, **fuzz_command_line.FORMATS}
    each = 2 if small else -(-CASES // len(formats))
    return [_fuzzed(name, form, each) for name, form in formats.items()]


def _fuzzed(name: str, form: fuzz.Format, cases: int) -> dict[str, Any]:
    ended: Counter[str] = Counter()
    first, slowest = None, 0.0
    for seed in range(cases):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            try:
                outcome = fuzz.fuzz(form, seed, Path(folder)).split(":")[0]
            except Exception as fault:  # what no reader may let through
                outcome = "fault"
                first = first or f"seed {seed}: {type(fault).__name__}: {fault}"[:200]
            slowest = max(slowest, time.perf_counter() - began)
            ended[outcome] += 1
    return {
        "case": name,
        "damaged": cases,
        "refused": ended["refused"],
        "read": ended["read"],
        "faults": ended["fault"],
        "first_fault": first,
        "slowest_seconds": round(slowest, 2),
    }
