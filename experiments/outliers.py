"""Can a line fitted to 0 and 1 classify? A far point of its class moves it.

Twenty points on a line with labels 0 and 1 get one more, far out on the right and rightly labelled 1. The least-squares
line must bend towards it, and its crossing of one half moves among the ones; the logistic curve already says 1 there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from experiments import runner
from experiments.report import Section, Table


@dataclass(frozen=True)
class Options(runner.Options):
    """The options of outliers."""

    distances: tuple[float, ...] = (0.0, 10.0, 30.0, 100.0)
    """Where the further point stands; 0 leaves it out."""


def main(options: Options, run: runner.Run) -> None:
    """Fit a line and a logistic curve with every outlier, and tell where each crosses one half."""
    if not options.distances or min(options.distances) < 0:
        raise runner.UserError(f"--distances must not be negative; got {options.distances}")

    import numpy as np

    import lr_nn

    rng = np.random.default_rng(options.seed)
    x = np.concatenate([rng.normal(-1.5, 1, 10), rng.normal(1.5, 1, 10)])
    y = np.repeat([0.0, 1.0], 10)
    nets = {"line": lr_nn.linear_regression(1), "logistic": lr_nn.logistic_regression(1)}
    penalty = lr_nn.penalties.l2(1e-3)  # the points may be separable
    found: list[dict[str, Any]] = []
    for distance in options.distances:
        far = [distance] if distance else []
        at, labels = np.append(x, far)[:, None], np.append(y, np.ones(len(far)))
        row: dict[str, Any] = {"distance": distance}
        for name, net in nets.items():
            w, b = lr_nn.fit(net, lr_nn.Batch(at, labels), penalty=penalty).coefficients[:, 0]
            row[name] = float(((0.5 if name == "line" else 0.0) - b) / w)
            row[f"{name}_coefficients"] = [float(w), float(b)]
            row[f"{name}_errors"] = int(((x > row[name]) != y).sum())
        found.append(row)
        run.record(kind="fit", **row)
    tell(run, x, y, found)


def tell(run: runner.Run, x: Any, y: Any, found: list[dict[str, Any]]) -> None:
    """The finding, the table and the figure."""
    import numpy as np

    from experiments import figures

    first, last = found[0], found[-1]
    finding = (
        f"A point at {last['distance']:g} moves the place where the line crosses one half from {first['line']:.2f} to "
        f"{last['line']:.2f}, and its errors on the 20 points from {first['line_errors']} to {last['line_errors']}. "
        f"The logistic curve crosses at {first['logistic']:.2f} without it and at {last['logistic']:.2f} with it, with "
        f"{first['logistic_errors']} and {last['logistic_errors']} errors. "
        "Squared error punishes a prediction for being too right; the log-likelihood does not."
    )
    columns = ("outlier at", "line crosses\n½ at", "errors", "curve crosses\n½ at", "errors")
    rows = [
        (
            f"{row['distance']:g}" if row["distance"] else "none",
            f"{row['line']:.2f}",
            f"{row['line_errors']}",
            f"{row['logistic']:.2f}",
            f"{row['logistic_errors']}",
        )
        for row in found
    ]
    table = Table("Where each says that both labels are as likely", columns, rows)
    grid = np.linspace(x.min() - 1, x.max() + 4, 200)
    lines = []
    for style, row in enumerate((first, last)):
        (slope, start), (w, b) = row["line_coefficients"], row["logistic_coefficients"]
        which = f"outlier at {row['distance']:g}" if row["distance"] else "no outlier"
        lines.append(figures.Line(f"line, {which}", grid, slope * grid + start, 0, style))
        lines.append(figures.Line(f"logistic, {which}", grid, 1 / (1 + np.exp(-(w * grid + b))), 1, style))
    picture = run.figure(
        "fits",
        figures.fits(lines, x, y, "x", "label"),
        alt=f"Twenty points with labels 0 and 1; {finding}",
        caption="Line and logistic curve, without the far point and with the farthest.",
        wide=True,
    )
    run.conclude("A line fitted to labels", finding, [Section("One far point", tables=(table,), figures=(picture,))])
