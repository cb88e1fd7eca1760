"""How strong should a penalty be? Paths of coefficients, and folds that choose.

Regression on scikit-learn's breast-cancer or diabetes data along an L1 and an L2 penalty: every strength is fitted on
the training rows, and scored on the rows that each fold leaves out. Two choices are judged on the test rows: the
strength of the lowest mean loss, and the strongest penalty whose loss is within one standard error of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from experiments import runner
from experiments.report import Section, Table

if TYPE_CHECKING:
    from experiments.data import Dataset
    from experiments.report import Figure
    from lr_nn.many import CrossValidation, Path
    from lr_nn.network import Network

NAMED = 4


@dataclass(frozen=True)
class Options(runner.Options):
    """The options of paths."""

    data: Literal["breast_cancer", "diabetes"] = "breast_cancer"
    """Classes or values to be predicted."""
    strengths: int = 50
    """Strengths on each path."""
    folds: int = 10
    """Parts of the training rows, each of which is left out once."""


def main(options: Options, run: runner.Run) -> None:
    """Fit along both paths, choose by the folds, judge on the test rows, and tell."""
    if options.strengths < 3 or not 2 <= options.folds <= 100:
        raise runner.UserError("--strengths must be at least 3, and --folds between 2 and 100")

    import jax
    import numpy as np

    import lr_nn
    from experiments import data

    source: Dataset = getattr(data, options.data)(options.seed)
    train = lr_nn.Batch(*source.train)
    net = (lr_nn.linear_regression if source.unit else lr_nn.logistic_regression)(train.x.shape[1])
    found: dict[str, tuple[Path, CrossValidation]] = {}
    top = lr_nn.many.largest_strength(net, train)
    for name, penalty, ends in (("L1", lr_nn.penalties.l1, (1, 1e-3)), ("L2", lr_nn.penalties.l2, (10, 1e-4))):
        along = penalty(top * np.geomspace(*ends, options.strengths))
        path = lr_nn.regularization_path(net, train, penalty=along)
        folds = lr_nn.cross_validate(net, train, penalty=along, folds=options.folds, key=jax.random.key(options.seed))
        run.record(kind="path", penalty=name, strengths=path.strengths, coefficients=path.coefficients[:, :, 0])
        run.record(kind="folds", penalty=name, mean=folds.mean, standard_error=folds.standard_error)
        found[name] = path, folds
    chosen = [
        {"penalty": name, "choice": choice, "held_out": folds.mean[index], "error": folds.standard_error[index]}
        | judged(net, path, index, source)
        for name, (path, folds) in found.items()
        for choice, index in (("lowest", folds.best), ("strongest", folds.simplest))
    ]
    for row in chosen:
        run.record(kind="choice", **row)
    tell(run, source, found, chosen)


def judged(net: Network, path: Path, index: int, source: Dataset) -> dict[str, Any]:
    """One fit of a path: the weights that it keeps, their length, and its mean loss on the test rows."""
    import numpy as np

    import lr_nn

    fit = path.solutions.lane(index)
    weights = fit.coefficients[:-1, 0]
    return {
        "strength": float(path.strengths[index]),
        "kept": int((weights != 0).sum()),
        "length": float(np.linalg.norm(weights)),
        "test_loss": float(lr_nn.cost(net, fit.params, lr_nn.Batch(*source.test))),
    }


def tell(
    run: runner.Run,
    source: Dataset,
    found: dict[str, tuple[Path, CrossValidation]],
    chosen: list[dict[str, Any]],
) -> None:
    """The finding, the table and the figures."""
    l1, l1_strong, l2, l2_strong = chosen
    folds = found["L1"][1]
    finding = (
        f"Of {len(source.features)} weights an L1 penalty keeps {l1['kept']} at the lowest held-out loss, λ = "
        f"{l1['strength']:.2g}, and {l1_strong['kept']} at the strongest penalty within one standard error of it, λ = "
        f"{l1_strong['strength']:.2g}; an L2 penalty keeps {l2['kept']} at both, of lengths {l2['length']:.2f} and "
        f"{l2_strong['length']:.2f}. "
        f"With L1 the held-out loss is {folds.mean[folds.best]:.3f} ± {folds.standard_error[folds.best]:.3f} at the "
        f"first and {folds.mean[folds.simplest]:.3f} at the second. "
        f"On {len(source.test.y)} test rows the first and the second have a loss of {l1['test_loss']:.3f} and "
        f"{l1_strong['test_loss']:.3f} with L1, and of {l2['test_loss']:.3f} and {l2_strong['test_loss']:.3f} with L2."
    )
    rows = [
        (
            f"{row['penalty']}, {row['choice']}",
            f"{row['strength']:.2g}",
            f"{row['kept']}",
            f"{row['length']:.2f}",
            f"{row['held_out']:.3f} ± {row['error']:.3f}",
            f"{row['test_loss']:.3f}",
        )
        for row in chosen
    ]
    columns = ("choice", "strength λ", "weights\nkept", "their\nlength", "held-out\nloss", "test\nloss")
    notes = (
        "lowest: of all mean losses of the folds; strongest: within one standard error of it",
        "test: rows that were neither fitted nor folded",
    )
    table = Table(f"Choices on the {source.name} data", columns, rows, notes)
    pictures = tuple(draw(run, name, source, *pair) for name, pair in found.items())
    run.conclude("How strong a penalty?", finding, [Section("Paths and folds", tables=(table,), figures=pictures)])


def draw(run: runner.Run, name: str, source: Dataset, path: Path, folds: CrossValidation) -> Figure:
    """Weights beside held-out losses along one penalty."""
    import numpy as np

    from experiments import fit_figures

    weights = path.coefficients[:, :-1, 0]
    largest = np.argsort(-abs(weights[folds.simplest]))[:NAMED]
    named = {int(j): source.features[j] for j in largest}
    choices = fit_figures.Choices(*path.strengths[[folds.best, folds.simplest]])
    kept = (weights[[folds.best, folds.simplest]] != 0).sum(axis=1)
    return run.figure(
        f"path_{name}",
        fit_figures.path(path.strengths, weights, named, folds.mean, folds.standard_error, choices),
        alt=f"Left, {weights.shape[1]} weights that shrink to zero as the {name} penalty grows; right, a held-out loss "
        f"that falls, is lowest at {choices.best:.2g}, and rises.",
        caption=f"Along an {name} penalty. The lines mark {kept[0]} weights at the lowest loss and {kept[1]} at the "
        f"strongest penalty within one standard error; the {len(named)} largest of those are named.",
        wide=True,
    )
