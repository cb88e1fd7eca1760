"""What does a penalty do? L2 shrinks, L1 makes zeros, separated data need one.

On scikit-learn's breast-cancer data a logistic regression is fitted along a path of strengths. An L2 penalty is a
Gaussian prior on the weights, of variance 1/(n λ), an L1 penalty a Laplace prior of scale 1/(n λ): the larger the
strength, the narrower the prior. On data that a plane separates the likelihood grows without end along its normal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments import runner
from experiments.report import Section, Table

if TYPE_CHECKING:
    import numpy as np

    from lr_nn.types import Solution


@dataclass(frozen=True)
class Options(runner.Options):
    """The options of regularization."""

    strengths: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    """Strengths λ of the penalties, growing."""


def main(options: Options, run: runner.Run) -> None:
    """Fit along both paths and on separated data, and tell what was found."""
    if not runner.growing(options.strengths, above=0):
        raise runner.UserError(f"--strengths must be positive and growing; got {options.strengths}")

    import numpy as np

    import lr_nn
    from experiments import data

    source = data.breast_cancer(options.seed)
    net, train = lr_nn.logistic_regression(source.train.x.shape[1]), lr_nn.Batch(*source.train)
    paths: dict[str, list[dict[str, Any]]] = {}
    for name, penalty in (("L2", lr_nn.penalties.l2), ("L1", lr_nn.penalties.l1)):
        paths[name] = []
        for strength in options.strengths:
            found = lr_nn.fit(net, train, penalty=penalty(strength))
            paths[name].append(numbers(found, strength, *source.test))
            run.record(kind="fit", penalty=name, **paths[name][-1])
    free = lr_nn.fit(net, train)
    run.record(kind="unpenalised", status=str(free.status), steps=free.steps, message=free.message)
    tell(options, run, paths, free, np.array(source.features))


def numbers(found: Solution, strength: float, x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """What a fit is like."""
    import numpy as np

    (layer,) = found.params
    eta = x @ found.coefficients[:-1, 0] + found.coefficients[-1, 0]
    return {
        "strength": strength,
        "status": str(found.status),
        "weights": layer.w[:, 0].tolist(),
        "length": float(np.linalg.norm(layer.w)),
        "zeros": int((layer.w == 0).sum()),
        "test_loss": float((np.logaddexp(0, eta) - y * eta).mean()),
        "test_accuracy": float(((eta > 0) == y).mean()),
    }


def tell(
    options: Options, run: runner.Run, paths: dict[str, list[dict[str, Any]]], free: Solution, names: np.ndarray
) -> None:
    """The finding, the table and the figures."""
    import numpy as np

    from experiments import figures

    l2, l1 = paths["L2"], paths["L1"]
    best = {name: min(path, key=lambda fit: fit["test_loss"]) for name, path in paths.items()}
    finding = (
        f"From λ = {l2[0]['strength']:g} to {l2[-1]['strength']:g} an L2 penalty shortens the weights from "
        f"{l2[0]['length']:.3g} to {l2[-1]['length']:.3g} and makes {l2[-1]['zeros']} of {len(names)} zero; "
        f"an L1 penalty makes {l1[0]['zeros']} to {l1[-1]['zeros']} of them zero. "
        f"The test loss is lowest at λ = {best['L2']['strength']:g} (L2, {best['L2']['test_loss']:.3f}) and at "
        f"{best['L1']['strength']:g} (L1, {best['L1']['test_loss']:.3f}). "
        f"Without a penalty the fit ends as: {free.status}."
    )
    rows = [
        (
            f"{name}, λ = {fit['strength']:g}",
            f"{fit['length']:.3g}",
            f"{fit['zeros']}",
            f"{fit['test_loss']:.3f}",
            f"{fit['test_accuracy']:.1%}",
        )
        for name, path in paths.items()
        for fit in path
    ]
    columns = ("penalty", "length of\nthe weights", "zeros", "test\nloss", "test\naccuracy")
    table = Table("Logistic regression on the breast-cancer data", columns, rows)
    pictures = []
    for name, path in paths.items():
        weights = np.array([fit["weights"] for fit in path]).T
        picture = run.figure(
            f"path_{name}",
            figures.path(np.array(options.strengths), weights, "strength λ", f"weights under an {name} penalty"),
            alt=f"The {len(names)} weights against the strength of the {name} penalty; {spoken(path)}.",
            caption="Every line is a weight. "
            + ("They shrink together." if name == "L2" else "They reach zero, one by one."),
        )
        pictures.append(picture)
    run.conclude("Regularisation", finding, [Section("Two penalties", tables=(table,), figures=tuple(pictures))])


def spoken(path: Sequence[dict[str, Any]]) -> str:
    """The ends of a path in words."""
    return (
        f"their length falls from {path[0]['length']:.3g} to {path[-1]['length']:.3g}, and {path[-1]['zeros']} are zero"
    )
