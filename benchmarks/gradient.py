"""The hand-written gradient: against autodiff, in four formulations, in many lanes, and over whole epochs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import epoch, formulations, harness, lanes, mlp, thin
from benchmarks.figure import bars

SECTIONS = {
    "mlp": (mlp.rows, "One gradient of a deep network; time relative to jax.value_and_grad"),
    "thin": (thin.rows, "One gradient of a thin logistic model; time relative to whole-batch jax.value_and_grad"),
    "formulations": (formulations.rows, "Four ways to write one gradient; time relative to vectorised and jitted"),
    "lanes": (lanes.rows, "Training m networks 784-30-10; time relative to one after the other"),
    "epoch": (epoch.rows, "One epoch, 60,000 rows, batch 128; time relative to flax + optax in one scan"),
}


def main(
    sections: tuple[str, ...] = tuple(SECTIONS), rounds: int = 21, small: bool = False, out: Path = harness.RESULTS
) -> None:
    """Measure the sections named and write gradient.json and gradient.png.

    Args:
        sections: which of mlp, thin, formulations, lanes, epoch.
        rounds: interleaved rounds of the fast sections; the slow ones take fewer.
        small: shrink every size, to see that it runs.
        out: folder of the record. Sections not measured are kept from a record that is there.
    """
    unknown = set(sections) - set(SECTIONS)
    if unknown:
        raise SystemExit(f"unknown section {sorted(unknown)[0]!r}; known: {', '.join(SECTIONS)}")
    chosen = {name: SECTIONS[name] for name in SECTIONS if name in sections}
    harness.measure("gradient", chosen, rounds, small, out, draw)


def draw(record: Mapping[str, Any], titles: Mapping[str, str], path: Path) -> None:
    """All sections of the record, those kept from before too."""
    bars(record, {name: title for name, (_, title) in SECTIONS.items()}, path)
