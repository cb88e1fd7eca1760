"""What is said of a fitted classifier: its coefficients as a table, and how good its probabilities are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from experiments.report import Table

if TYPE_CHECKING:
    import numpy as np

    from lr_nn.inference import Summary

NOTE = "intervals of the penalised estimate, without the bias of its shrinkage"


def coefficients(summary: Summary, which: Iterable[int], title: str, notes: tuple[str, ...]) -> Table:
    """Some coefficients of one output with their tests, and their odds ratios with intervals."""
    rows = []
    for i in which:
        coefficient, error, z = (float(v[i, 0]) for v in (summary.coefficients, summary.standard_errors, summary.z))
        odds = (summary.odds_ratios[i, 0], *summary.odds_ratio_intervals[i, 0])
        tested = (f"{coefficient:.2f}", f"{error:.3f}", f"{z:.1f}")
        rows.append((summary.names[i], *tested, *(f"{ratio:.2g}" for ratio in odds)))
    columns = ("feature", "coef", "std\nerr", "z", "odds\nratio", f"{summary.level:.0%}\nfrom", "\nto")
    return Table(title, columns, rows, notes)


def held_out(p: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Of probabilities `p` (n,) that `y` (n,) is 1: calibration by tenths of the rows with Wilson's intervals, the ROC
    curve over 201 shares of false positives and its area, and the accuracy at one half.
    """
    import numpy as np
    from scipy.stats import binomtest
    from sklearn.metrics import roc_auc_score, roc_curve

    tenths = np.array_split(np.argsort(p), 10)
    tests = [binomtest(int(y[rows].sum()), len(rows)).proportion_ci(method="wilson") for rows in tenths]
    predicted, measured = (np.array([of[rows].mean() for rows in tenths]) for of in (p, y))
    return {
        "predicted": predicted.tolist(),
        "measured": measured.tolist(),
        "largest_gap": float(np.abs(predicted - measured).max()),
        "intervals": [[float(test.low), float(test.high)] for test in tests],
        "auc": float(roc_auc_score(y, p)),
        "accuracy": float(((p > 0.5) == y).mean()),
        "majority": float(max(y.mean(), 1 - y.mean())),
        "roc": np.interp(np.linspace(0, 1, 201), *roc_curve(y, p)[:2]).tolist(),
    }
