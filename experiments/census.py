"""Who earns more than 50,000 dollars? A whole analysis of the census data.

A logistic regression with named coefficients on the adult data: why there is no maximum likelihood, odds ratios with
intervals, calibration and ROC curve on the published test file, and the bootstrap beside Wald's standard errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from experiments import judging, runner
from experiments.report import Figure, Section

if TYPE_CHECKING:
    import numpy as np

    from experiments.data import Dataset
    from lr_nn.inference import Summary
    from lr_nn.penalties import Penalty

FEW, SHOWN = 10, 20


@dataclass(frozen=True)
class Options(runner.Options):
    """The options of census."""

    rows: int | None = None
    """Training rows that are fitted, drawn by the seed; None: all."""
    prior: float = 3.0
    """Standard deviation of the Gaussian prior on the weights: an L2 penalty of strength 1 / (n · prior²)."""
    resamples: int = 300
    """Resamples of the bootstrap."""
    resampled_rows: int = 5000
    """Rows that the bootstrap draws from: some of those fitted, drawn by the seed."""


def main(options: Options, run: runner.Run) -> None:
    """Fit, judge on the test file, draw again, and tell."""
    if options.resamples < 2 or min(options.resampled_rows, options.rows or 500) < 500 or not options.prior > 0:
        raise runner.UserError("--rows and --resampled-rows must be at least 500, --resamples 2, and --prior positive")

    import numpy as np

    import lr_nn
    from experiments import data

    source = drawn(data.census(data.directory(options.data_dir, "census")), options.rows, options.seed)
    free = lr_nn.fit(lr_nn.logistic_regression(len(source.features)), lr_nn.Batch(*source.train))
    along = np.array(source.features)[free.direction[0].w[:, 0] != 0].tolist() if free.direction else []
    run.record(kind="unpenalised", status=str(free.status), along=along, steps=free.steps)
    summary = fitted(source, options.prior)
    for name, row in zip(summary.names, summary.to_pandas().to_dict("records")):
        run.record(kind="coefficient", name=name, **row)
    beta, (x, y) = summary.coefficients[:, 0], source.test
    judged = judging.held_out(1 / (1 + np.exp(-(x @ beta[:-1] + beta[-1]))), y)
    run.record(kind="test", **judged)
    errors = resampled(drawn(source, options.resampled_rows, options.seed), options)
    run.record(kind="bootstrap", **errors)
    tell(run, source, str(free.status), along, summary, judged, errors)


def drawn(source: Dataset, rows: int | None, seed: int) -> Dataset:
    """`rows` of the training rows, and the columns that vary in them."""
    import numpy as np

    x, y = source.train
    some = np.random.default_rng(seed).permutation(len(x))[:rows]
    vary = np.ptp(x[some], axis=0) > 0
    features = tuple(np.array(source.features)[vary].tolist())
    train, test = source.train._replace(x=x[some][:, vary], y=y[some]), source.test._replace(x=source.test.x[:, vary])
    return replace(source, train=train, test=test, features=features)


def fitted(source: Dataset, prior: float) -> Summary:
    """The fit under the prior, and inference about its named coefficients."""
    import lr_nn
    from lr_nn import inference

    net, train = lr_nn.logistic_regression(len(source.features)), lr_nn.Batch(*source.train)
    solution = lr_nn.fit(net, train, penalty=penalty(source, prior))
    return inference.summary(net, solution, train, names=source.features)


def penalty(source: Dataset, prior: float) -> Penalty:
    """The Gaussian prior as a penalty of the mean loss."""
    import lr_nn

    return lr_nn.penalties.l2(1 / (len(source.train.x) * prior**2))


def resampled(source: Dataset, options: Options) -> dict[str, Any]:
    """Standard errors of Wald and of the bootstrap, and how many people each level has of its rarer income."""
    import jax
    import numpy as np

    import lr_nn

    (x, y), net = source.train, lr_nn.logistic_regression(len(source.features))
    found = lr_nn.bootstrap(
        net,
        lr_nn.Batch(x, y),
        samples=options.resamples,
        key=jax.random.key(options.seed),
        penalty=penalty(source, options.prior),
    )
    people = np.where(np.isin(x, (0, 1)).all(axis=0), np.minimum(y @ x, (1 - y) @ x), len(x))
    return {
        "rows": len(x),
        "names": list(source.features),
        "wald": fitted(source, options.prior).standard_errors[:-1, 0].tolist(),
        "bootstrap": found.standard_errors[:-1, 0].tolist(),
        "people": people.astype(int).tolist(),
    }


def tell(
    run: runner.Run, source: Dataset, status: str, along: list[str], summary: Summary, judged: Any, errors: Any
) -> None:
    """The finding, the tables and the figures."""
    import numpy as np

    people, ratio = np.array(errors["people"]), np.divide(errors["bootstrap"], errors["wald"])
    groups = {
        f"at least {FEW} people of each income": people >= FEW,
        f"1 to {FEW - 1} of the rarer income": (people > 0) & (people < FEW),
        "all of one income": people == 0,
    }
    groups = {name: those for name, those in groups.items() if those.any()}
    medians = ", ".join(f"{np.median(ratio[those]):.2f} ({name})" for name, those in groups.items())
    order = np.argsort(-abs(summary.z[:-1, 0]))
    ratios, ends = summary.odds_ratios[:, 0], summary.odds_ratio_intervals[:, 0]
    odds = [f"{said(summary.names[i])}, by {ratios[i]:.3g} ({ends[i, 0]:.3g} to {ends[i, 1]:.3g})" for i in order[:3]]
    finding = (
        f"Without a penalty the fit ends as {status}"
        + (f", along {', '.join(along)}" if along else "")
        + f"; with a Gaussian prior the surest of the features multiply the odds: {odds[0]}, {odds[1]}, {odds[2]}. "
        f"On {len(source.test.y):,} people held out the area under the ROC curve is {judged['auc']:.3f}, the accuracy "
        f"{judged['accuracy']:.1%} ({judged['majority']:.1%} without features), and the share predicted for a tenth of "
        f"them is off by at most {100 * judged['largest_gap']:.1f} points. "
        f"The bootstrap's standard errors are at the median {medians} times Wald's."
    )
    notes = (judging.NOTE, "numbers: for one standard deviation; levels: against " + ", ".join(source.references))
    table = judging.coefficients(summary, [*order, -1], "In the order of |z|", notes)
    pairs = np.array([errors["wald"], errors["bootstrap"]])
    pictures = tuple(draw(run, summary, order[:SHOWN], judged, {name: pairs[:, of] for name, of in groups.items()}))
    sections = [
        Section("Odds", figures=pictures[:1]),
        Section("On people held out", figures=pictures[1:3]),
        Section("Two standard errors", figures=pictures[3:]),
        Section("All coefficients", tables=(table,)),
    ]
    run.conclude("Who earns more than 50,000 dollars?", finding, sections)


def draw(run: runner.Run, summary: Summary, shown: np.ndarray, judged: dict[str, Any], pairs: Any) -> Iterator[Figure]:
    """Odds ratios, calibration, ROC curve, standard errors."""
    import numpy as np

    from experiments import fit_figures

    names, ratios = [said(summary.names[i]) for i in shown], summary.odds_ratios[shown, 0]
    yield run.figure(
        "odds",
        fit_figures.forest(names, ratios, summary.odds_ratio_intervals[shown, 0], "odds ratio and its 95 % interval"),
        alt=f"{len(names)} odds ratios with intervals, from {ratios.min():.2g}, {names[ratios.argmin()]}, to "
        f"{ratios.max():.2g}, {names[ratios.argmax()]}.",
        caption=f"The {len(names)} of the largest |z|. Right of 1 the odds of a high income grow.",
        wide=True,
    )
    yield run.figure(
        "calibration",
        fit_figures.calibration(*(np.array(judged[name]) for name in ("predicted", "measured", "intervals"))),
        alt="Ten points on the diagonal, measured at " + ", ".join(f"{m:.0%}" for m in judged["measured"]) + ".",
        caption="A point is a tenth of the people held out, with the 95 % interval of its share of high incomes.",
    )
    yield run.figure(
        "roc",
        fit_figures.roc(np.linspace(0, 1, len(judged["roc"])), np.array(judged["roc"]), judged["auc"]),
        alt=f"A ROC curve that encloses an area of {judged['auc']:.3f}.",
        caption="High incomes that are found, against low ones taken for them, over all thresholds.",
    )
    yield run.figure(
        "errors",
        fit_figures.agreement(pairs, "standard error by Wald", "standard error by the bootstrap"),
        alt="Pairs of standard errors: near the diagonal, but far below it for levels whose people have one income.",
        caption="A point is a coefficient. A level whose people all have one income has it in every resample: the "
        "bootstrap sees no doubt where the shape of the likelihood leaves much.",
        wide=True,
    )


def said(name: str) -> str:
    """A feature with what its odds ratio compares."""
    return name if ":" in name else f"{name}, + 1 s.d."
