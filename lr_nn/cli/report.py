"""report.html of a model: one page that needs no other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lr_nn.inference import Summary
from lr_nn.types import Solution

if TYPE_CHECKING:
    from lr_nn.cli.sources import Source

LONGEST = 60  # rows on a terminal
SHOWN = 25  # coefficients in the picture


@dataclass(frozen=True)
class Table:
    """Rows of a name and numbers."""

    title: str
    columns: tuple[str, ...]
    values: Sequence[tuple[Any, ...]]

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """As text."""
        return [tuple(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row) for row in self.values]

    def text(self) -> str:
        """For a terminal."""
        rows = [self.columns, *self.rows[:LONGEST]]
        wide = [max(len(row[j]) for row in rows) for j in range(len(self.columns))]
        lines = [
            "  ".join(cell.ljust(wide[j]) if j == 0 else cell.rjust(wide[j]) for j, cell in enumerate(row)).rstrip()
            for row in rows
        ]
        more = [f"and {len(self.values) - LONGEST:,} more"] if len(self.values) > LONGEST else []
        return "\n".join([self.title, *lines, *more])


@dataclass(frozen=True)
class Picture:
    """A drawing as a data URI, with words for those who cannot see it."""

    data: str
    alt: str
    caption: str


def coefficients(solution: Solution, summary: Summary | None, source: Source) -> Table:
    """The coefficients, with standard errors, tests and intervals where a summary has them."""
    many = len(source.outputs) > 1
    if summary is None:
        (layer,) = solution.params
        names = (*source.rows.features, *(("bias",) if layer.b is not None else ()))
        found = solution.coefficients
        rows = [
            (*((output,) if many else ()), name, float(found[a, j]))
            for j, output in enumerate(source.outputs)
            for a, name in enumerate(names)
        ]
        return Table("Coefficients", (*(("output",) if many else ()), "name", "coefficient"), rows)
    letter = "t" if summary.use_t else "z"
    columns = ("name", "coefficient", "standard error", letter, "p", "low", "high")
    arrays = (summary.coefficients, summary.standard_errors, summary.z, summary.p_values)
    rows = [
        (
            *((output,) if many else ()),
            name,
            *(float(array[a, j]) for array in arrays),
            *map(float, summary.intervals[a, j]),
        )
        for j, output in enumerate(summary.outputs)
        for a, name in enumerate(summary.names)
    ]
    title = f"Coefficients, with intervals of {summary.level:.0%}"
    return Table(title, (*(("output",) if many else ()), *columns), rows)


def render(
    source: Source,
    facts: Mapping[str, Any],
    scores: Mapping[str, str],
    whose: str,
    curves: Mapping[str, Any],
    tables: Sequence[Table],
    command: str,
) -> str:
    """The page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lr_nn.cli"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pictures = [draw(curves[name], whose, source.outputs) for name, draw in DRAWINGS.items() if name in curves]
    pictures += [intervals(table) for table in tables if "low" in table.columns and "output" not in table.columns]
    return environment.get_template("report.html.jinja").render(
        title=f"{facts['model']} model of {source.outputs[0] if len(source.outputs) == 1 else 'classes'}",
        facts=facts,
        scores=scores,
        whose=whose,
        pictures=pictures,
        tables=tables,
        command=command,
        notes=source.notes,
    )


def _roc(curve: tuple[np.ndarray, np.ndarray], whose: str, outputs: Sequence[str]) -> Picture:
    figure, axes = _figure("share of zeros above the threshold", "share of ones above it")
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    axes.plot(*curve, color="C0")
    axes.set_aspect("equal")
    middle = np.interp(0.1, *curve)
    alt = f"ROC curve: at 10% of the zeros above the threshold, {middle:.0%} of the ones are"
    return Picture(_data(figure), alt, f"ROC curve on the {whose}")


def _calibration(rows: np.ndarray, whose: str, outputs: Sequence[str]) -> Picture:
    figure, axes = _figure("mean prediction", "mean of what was observed")
    predicted, observed, low, high = rows.T
    ends = [min(predicted.min(), low.min()), max(predicted.max(), high.max())]
    axes.plot(ends, ends, color="0.7", linewidth=1)
    bars = np.maximum([observed - low, high - observed], 0)
    axes.errorbar(predicted, observed, bars, fmt="o", color="C0", markersize=4, capsize=2)
    gap = np.abs(observed - predicted).max()
    alt = f"Calibration in tenths of the rows: the largest gap between prediction and observation is {gap:.3g}"
    return Picture(_data(figure), alt, f"Calibration on the {whose}, tenths of the rows with intervals of 95%")


def _confusion(table: np.ndarray, whose: str, outputs: Sequence[str]) -> Picture:
    figure, axes = _figure("predicted class", "observed class")
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1e-300)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(outputs) <= 20:
        axes.set_xticks(range(len(outputs)), outputs, rotation=90)
        axes.set_yticks(range(len(outputs)), outputs)
    axes.grid(False)
    alt = f"Shares of predicted classes in every observed one; the least that is right is {shares.diagonal().min():.0%}"
    return Picture(_data(figure), alt, f"Which class is taken for which, on the {whose}")


DRAWINGS: dict[str, Callable[[Any, str, Sequence[str]], Picture]] = {
    "roc": _roc,
    "calibration": _calibration,
    "confusion": _confusion,
}


def intervals(table: Table) -> Picture:
    """The coefficients of the largest z or t, with their intervals."""
    at = {name: j for j, name in enumerate(table.columns)}
    rows = [row for row in table.values if row[0] != "bias"]
    rows = sorted(rows, key=lambda row: -abs(row[at["z" if "z" in at else "t"]]))[:SHOWN][::-1]
    figure, axes = _figure("coefficient", "", tall=1 + 0.24 * len(rows))
    middle = np.array([row[at["coefficient"]] for row in rows])
    ends = np.array([[row[at["low"]], row[at["high"]]] for row in rows]).T
    axes.axvline(0, color="0.7", linewidth=1)
    axes.errorbar(
        middle, range(len(rows)), xerr=np.abs(ends - middle[None]), fmt="o", color="C0", markersize=4, capsize=2
    )
    axes.set_yticks(range(len(rows)), [str(row[0])[:40] for row in rows])
    first = rows[-1]
    alt = f"Coefficients with intervals; the clearest is {first[0]} at {first[at['coefficient']]:.3g}"
    return Picture(_data(figure), alt, f"The {len(rows)} coefficients that are clearest, with their intervals")


def _figure(x: str, y: str, tall: float = 4.2) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, tall), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(True, color="0.92")
    axes.set_axisbelow(True)
    return figure, axes


def _data(figure: Any) -> str:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=140)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"
