"""One way to measure: every competitor compiled and warmed, interleaved A B A B, ratios with their spread."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

RESULTS = Path(__file__).parent / "results"
COMPILATIONS = 3
PACKAGES = (
    "jax",
    "jaxlib",
    "optax",
    "flax",
    "chex",
    "numpy",
    "scikit-learn",
    "torch",
    "backpack-for-pytorch",
    "opacus",
    "jax-privacy",
    "laplace-torch",
    "curvlinops-for-pytorch",
    "laplax",
    "glum",
    "glmax",
    "skglm",
    "celer",
    "joblib",
)


class Compiled(NamedTuple):
    """A compiled program on its arguments, with the seconds and the memory that its compilation reports."""

    run: Callable[[], Any]
    compile_seconds: float
    temporary_bytes: int


def compiled(function: Callable, *args: Any) -> Compiled:
    """`function` compiled for `args`; its run blocks until the result is there."""
    lowered = jax.jit(function).lower(*args)
    seconds = []
    for _ in range(COMPILATIONS):
        began = time.perf_counter()
        program = lowered.compile()
        seconds.append(time.perf_counter() - began)
    memory: Any = program.memory_analysis()
    return Compiled(lambda: jax.block_until_ready(program(*args)), min(seconds), memory.temp_size_in_bytes)


def interleave(competitors: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """Seconds of each competitor in each of `rounds` rounds, after one warming round.

    Each round has an order of its own, drawn by a fixed seed: in a rotation each would always follow the same one,
    and pay for the caches and pages that this one left.
    """
    names = list(competitors)
    for name in names:
        competitors[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        for name in rng.permutation(names):
            began = time.perf_counter()
            competitors[name]()
            seconds[name].append(time.perf_counter() - began)
    return {name: np.array(times) for name, times in seconds.items()}


def relative(seconds: np.ndarray, baseline: np.ndarray) -> dict[str, float]:
    """Median and quartiles of the pairwise ratios of time, competitor over baseline: below one is faster."""
    low, median, high = np.percentile(seconds / baseline, [25, 50, 75])
    return {"relative_time": float(median), "low": float(low), "high": float(high)}


def compare(
    case: str,
    competitors: Mapping[str, Callable[[], Any] | Compiled],
    baseline: str,
    rounds: int,
    floor: str | None = None,
    **facts: Any,
) -> list[dict[str, Any]]:
    """A row for each competitor: its time relative to `baseline`, and the memory and compile time of programs.

    `floor` names a competitor that does only the part of the work that nobody can avoid: times are also given as
    multiples of it.
    """
    runs = {name: c.run if isinstance(c, Compiled) else c for name, c in competitors.items()}
    seconds = interleave(runs, rounds)
    rows = []
    for name, competitor in competitors.items():
        row = {
            "case": case,
            "competitor": name,
            **relative(seconds[name], seconds[baseline]),
            "ratios": [float(f"{ratio:.4g}") for ratio in seconds[name] / seconds[baseline]],
            "rounds": rounds,
            **facts,
        }
        if floor is not None:
            row["times_floor"] = float(np.median(seconds[name] / seconds[floor]))
        if isinstance(competitor, Compiled):
            row["temporary_bytes"] = competitor.temporary_bytes
            base = competitors[baseline]
            if isinstance(base, Compiled):
                row["relative_compile_time"] = competitor.compile_seconds / base.compile_seconds
        rows.append(row)
    return rows


def device() -> dict[str, Any]:
    """Where and with what this was measured."""
    kind = jax.devices()[0].device_kind
    return {
        "device": _processor() if kind == "cpu" else kind,
        "cores": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES if _installed(name)},
    }


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def write(name: str, section: str, rows: list[dict[str, Any]], folder: Path) -> Path:
    """Put the rows of one section, and where they were measured, into the record NAME.json; others are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    record = read(name, folder) if path.exists() else {}
    record[section] = {"environment": device(), "rows": rows}
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


Section = tuple[Callable[[int, bool], list[dict[str, Any]]], str]


def command(record: str, sections: Mapping[str, Section]) -> Callable[..., None]:
    """The command line of a benchmark of sections, each a function of (rounds, small) with its title."""

    def main(
        names: tuple[str, ...] = tuple(sections), rounds: int = 21, small: bool = False, out: Path = RESULTS
    ) -> None:
        """Measure sections, show them, and write their record as JSON and as a picture.

        Args:
            names: which sections; those not measured are kept from a record that is there.
            rounds: interleaved rounds of the fast sections; the slow ones take fewer.
            small: shrink every size, to see that it runs.
            out: folder of the record.
        """
        unknown = set(names) - set(sections)
        if unknown:
            raise SystemExit(f"unknown section {sorted(unknown)[0]!r}; known: {', '.join(sections)}")
        if small and out.resolve() == RESULTS.resolve():
            raise SystemExit("--small is no measurement: give it an --out of its own")
        from benchmarks.figure import bars

        for name in names:
            rows, title = sections[name]
            found = rows(rounds, small)
            if not found:
                print(f"{name}: left out, its peers are not installed")
                continue
            show(title, found)
            write(record, name, found, out)
        bars(read(record, out), {name: title for name, (_, title) in sections.items()}, out / f"{record}.png")
        print(f"written to {out}")

    return main


def read(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """A record written by `write`."""
    return json.loads((folder / f"{name}.json").read_text())


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """A table on the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    memory = any("temporary_bytes" in row for row in rows)
    table.add_column("case")
    table.add_column("competitor")
    table.add_column("relative time", justify="right")
    table.add_column("quartiles", justify="right")
    floor = any("times_floor" in row for row in rows)
    if floor:
        table.add_column("× floor", justify="right")
    programs = any("programs" in row for row in rows)
    if programs:
        table.add_column("programs", justify="right")
        table.add_column("CPU seconds", justify="right")
    if memory:
        table.add_column("compile", justify="right")
        table.add_column("temporaries", justify="right")
    for row in rows:
        cells = [
            row["case"],
            row["competitor"],
            f"{row['relative_time']:.3f}",
            f"{row['low']:.3f} to {row['high']:.3f}",
        ]
        if floor:
            cells.append(f"{row['times_floor']:.2f}")
        if programs:
            cells += [str(row["programs"]), f"{row['cpu_seconds']:.2f}"]
        if memory:
            cells.append(f"{row['relative_compile_time']:.2f}" if "relative_compile_time" in row else "")
            cells.append(f"{row['temporary_bytes'] / 1e6:.2f} MB" if "temporary_bytes" in row else "")
        table.add_row(*cells)
    Console(width=110).print(table)


def _processor() -> str:
    """The processor's name where Linux reports it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()
