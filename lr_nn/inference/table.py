"""The summary as a table of text, in the layout that statisticians know, and as a pandas DataFrame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lr_nn import losses

if TYPE_CHECKING:
    from lr_nn.inference.estimates import Summary

__all__ = ["frame", "text"]

TITLES = {
    "squared_error": "Least squares",
    "bernoulli": "Logistic regression",
    "categorical": "Softmax regression",
    "poisson": "Poisson regression",
}
WIDTH, COLUMN, MOST = 78, 10, 5
LONGEST = 40  # of a name that the table grows wider for


def text(summary: Summary) -> str:
    """The table; of many lanes that of the first few."""
    lanes = summary.fitted.lanes
    if not lanes:
        return _one(summary, ())
    shown = [f"lane {i} of {lanes[0]}\n{_one(summary, (i,))}" for i in range(min(lanes[0], MOST))]
    return "\n".join(shown + ([f"... and {lanes[0] - MOST} lanes more"] if lanes[0] > MOST else []))


def _one(summary: Summary, lane: tuple[int, ...]) -> str:
    rows = _rows(summary, lane)
    column = max(COLUMN, 1 + max(len(cell) for row in rows for cell in row))
    wide = max(WIDTH, 6 * column + min(LONGEST, max(map(len, (*summary.names, *summary.outputs)))))
    rule = "=" * wide
    heading = _heading(summary, lane)
    half = -(-len(heading) // 2)
    width = wide // 2 - 1
    pairs = [f"{name[:19] + ':':<20}{value:>{width - 20}}" for name, value in heading]
    pairs += [" " * width] * (2 * half - len(pairs))
    head = [f"{left}  {right}" for left, right in zip(pairs[:half], pairs[half:])]
    title = TITLES[summary.fitted.loss.name].center(wide).rstrip()
    return "\n".join([title, rule, *head, rule, *_body(summary, rows, wide, column), rule])


def _heading(summary: Summary, lane: tuple[int, ...]) -> list[tuple[str, str]]:
    """What is said of the fit as a whole, a name and a value."""

    def number(values: Any, digits: int = 3) -> str:
        return f"{float(np.asarray(values)[lane]):.{digits}f}"

    freedom = float(summary.degrees_of_freedom[lane])
    heading = [
        ("Observations", f"{float(summary.n[lane]):g}"),
        ("Parameters", f"{freedom:g}" if freedom.is_integer() else f"{freedom:.2f}"),
        ("Covariance", summary.covariance_type),
        ("Deviance", number(summary.deviance)),
        ("Log-likelihood", number(summary.log_likelihood)),
        ("LL of constant", number(summary.null_log_likelihood)),
        ("AIC", number(summary.aic)),
        ("BIC", number(summary.bic)),
    ]
    if summary.fitted.loss != losses.squared_error:
        heading += [("Pearson chi2", number(summary.pearson_chi2)), ("McFadden R2", number(summary.mcfadden_r2, 4))]
    else:
        statistics = {
            "R2": summary.r_squared,
            "Adjusted R2": summary.adjusted_r_squared,
            "F": summary.f_statistic,
            "P(F)": summary.f_p_value,
        }
        for j, output in enumerate(summary.outputs):
            of = f" of {output}" if len(summary.outputs) > 1 else ""
            heading += [(title + of, f"{values[lane][j]:.4g}") for title, values in statistics.items()]
    if strength := float(summary.fitted.strength[lane]):
        heading.append(("L2 penalty", f"{strength:g}"))
    return heading


def _rows(summary: Summary, lane: tuple[int, ...]) -> list[list[str]]:
    """The numbers of every coefficient, output by output."""
    rows = []
    for j in range(len(summary.outputs)):
        for a in range(len(summary.names)):
            at = (*lane, a, j)
            numbers = (summary.coefficients[at], summary.standard_errors[at], summary.z[at])
            low, high = summary.intervals[at]
            rows.append([*(f"{v:.4g}" for v in numbers), f"{summary.p_values[at]:.3f}", f"{low:.4g}", f"{high:.4g}"])
    return rows


def _body(summary: Summary, rows: list[list[str]], wide: int, column: int) -> list[str]:
    """A block of rows for every output."""
    letter = "t" if summary.use_t else "z"
    low, high = (1 - summary.level) / 2, (1 + summary.level) / 2
    titles = ["coef", "std err", letter, f"P>|{letter}|", f"[{low:.4g}", f"{high:.4g}]"]
    name_width, count = wide - len(titles) * column, len(summary.names)

    def line(name: str, cells: list[str]) -> str:
        return f"{name[:name_width]:<{name_width}}" + "".join(f"{cell:>{column}}" for cell in cells)

    lines = []
    for j, output in enumerate(summary.outputs):
        label = output if len(summary.outputs) > 1 or summary.fitted.reference is not None else ""
        lines += ["-" * wide] * (j > 0)
        lines += [line(label, titles), "-" * wide]
        lines += [line(name, row) for name, row in zip(summary.names, rows[j * count : (j + 1) * count])]
    return lines


def frame(summary: Summary) -> Any:
    """A DataFrame with a row for each coefficient; its index has levels lane and output where there are many."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError("to_pandas needs pandas: pip install pandas, or read the fields as arrays") from error
    low, high = (1 - summary.level) / 2, (1 + summary.level) / 2
    letter = "t" if summary.use_t else "z"
    columns = {
        "coefficient": summary.coefficients,
        "standard_error": summary.standard_errors,
        letter: summary.z,
        "p_value": summary.p_values,
        f"{low:.4g}": summary.intervals[..., 0],
        f"{high:.4g}": summary.intervals[..., 1],
    }
    levels: dict[str, Any] = {}
    if summary.fitted.lanes:
        levels["lane"] = range(summary.fitted.lanes[0])
    if len(summary.outputs) > 1 or summary.fitted.reference is not None:
        levels["output"] = summary.outputs
    levels["name"] = summary.names
    if len(levels) == 1:
        index = pandas.Index(summary.names, name="name")
    else:
        index = pandas.MultiIndex.from_product(list(levels.values()), names=list(levels))
    values = {title: np.swapaxes(array, -1, -2).reshape(-1) for title, array in columns.items()}
    return pandas.DataFrame(values, index=index)
