"""Who earns more than 50,000 dollars? A whole analysis of the census data.

A logistic regression with named coefficients on the adult data: why there is no maximum likelihood, odds ratios with
intervals, calibration and ROC curve on the published test file, and the bootstrap beside Wald's standard errors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from experiments import runner
from experiments.report import Figure, Section, Table

if TYPE_CHECKING:
    import numpy as np

    from experiments.data import Dataset
    from lr_nn.inference import Summary
    from lr_nn.types import Solution

FEW = 10
SHOWN = 20


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
    if options.resamples < 2 or options.resampled_rows < 500 or (options.rows or 500) < 500 or not options.prior > 0:
        raise runner.UserError(
            "--resamples must be at least 2, --rows and --resampled-rows at least 500, and --prior positive"
        )

    import numpy as np

    import lr_nn
    from experiments import data

    source = data.census(data.directory(options.data_dir, "census"))
    source = drawn(source, options.rows, options.seed)
    free = lr_nn.fit(lr_nn.logistic_regression(len(source.features)), *source.train)
    along = [] if free.direction is None else np.flatnonzero(free.direction[0].w)
    ending = {"status": str(free.status), "along": [source.features[i] for i in along]}
    run.record(kind="unpenalised", steps=free.steps, **ending)
    summary = fitted(source, options.prior)
    for i, name in enumerate(summary.names):
        numbers = {"coefficient": summary.coefficients, "standard_error": summary.standard_errors, "z": summary.z}
        run.record(kind="coefficient", name=name, **{key: float(value[i, 0]) for key, value in numbers.items()})
    judged = held_out(summary, source)
    run.record(kind="test", **judged)
    errors = resampled(drawn(source, options.resampled_rows, options.seed), options)
    run.record(kind="bootstrap", **errors)
    tell(run, source, ending, summary, judged, errors)


def drawn(source: Dataset, rows: int | None, seed: int) -> Dataset:
    """`rows` of the training rows, and the columns that vary in them."""
    import numpy as np

    x, y = source.train
    some = np.random.default_rng(seed).permutation(len(x))[:rows]
    vary = np.ptp(x[some], axis=0) > 0
    features = tuple(np.array(source.features)[vary].tolist())
    train, test = source.train._replace(x=x[some][:, vary], y=y[some]), source.test._replace(x=source.test.x[:, vary])
    return replace(source, train=train, test=test, features=features)


def penalty_of(source: Dataset, prior: float) -> Any:
    """The Gaussian prior as a penalty of the mean loss."""
    import lr_nn

    return lr_nn.penalties.l2(1 / (len(source.train.x) * prior**2))


def fitted(source: Dataset, prior: float) -> Summary:
    """The fit under the prior, and inference about its coefficients."""
    import lr_nn
    from lr_nn import inference

    net = lr_nn.logistic_regression(len(source.features))
    solution: Solution = lr_nn.fit(net, *source.train, penalty=penalty_of(source, prior))
    return inference.summary(solution, net, lr_nn.Batch(*source.train), names=source.features)


def held_out(summary: Summary, source: Dataset) -> dict[str, Any]:
    """Calibration by tenths of the test rows, with Wilson's intervals; ROC curve and its area; accuracy."""
    import numpy as np
    from scipy.stats import binomtest
    from sklearn.metrics import roc_auc_score, roc_curve

    (x, y), beta = source.test, summary.coefficients[:, 0]
    p = 1 / (1 + np.exp(-(x @ beta[:-1] + beta[-1])))
    tenths = np.array_split(np.argsort(p), 10)
    tests = [binomtest(int(y[rows].sum()), len(rows)).proportion_ci(method="wilson") for rows in tenths]
    false_positive, true_positive, _ = roc_curve(y, p)
    return {
        "predicted": [float(p[rows].mean()) for rows in tenths],
        "measured": [float(y[rows].mean()) for rows in tenths],
        "intervals": [[float(test.low), float(test.high)] for test in tests],
        "auc": float(roc_auc_score(y, p)),
        "accuracy": float(((p > 0.5) == y).mean()),
        "majority": float(max(y.mean(), 1 - y.mean())),
        "roc": np.interp(np.linspace(0, 1, 201), false_positive, true_positive).tolist(),
    }


def resampled(source: Dataset, options: Options) -> dict[str, Any]:
    """Standard errors of Wald and of the bootstrap, and how many people each level has of its rarer income."""
    import numpy as np

    import lr_nn
    from lr_nn import many

    # The columns are badly conditioned: whole Hessians for every lane are faster than a factor that lanes share.
    settings = many.Settings(schedule="one_by_one")
    net, penalty = lr_nn.logistic_regression(len(source.features)), penalty_of(source, options.prior)
    samples = {"samples": options.resamples, "seed": options.seed}
    bootstrap = lr_nn.bootstrap(net, *source.train, **samples, penalty=penalty, settings=settings)
    x, y = source.train
    people = np.where(np.isin(x, (0, 1)).all(axis=0), np.minimum(y @ x, (1 - y) @ x), len(x))
    return {
        "rows": len(x),
        "names": list(source.features),
        "wald": fitted(source, options.prior).standard_errors[:-1, 0].tolist(),
        "bootstrap": bootstrap.standard_errors[:-1, 0].tolist(),
        "people": people.astype(int).tolist(),
        "ended": int(bootstrap.ended.sum()),
    }


def tell(
    run: runner.Run,
    source: Dataset,
    ending: dict[str, Any],
    summary: Summary,
    judged: dict[str, Any],
    errors: dict[str, Any],
) -> None:
    """The finding, the tables and the figures."""
    import numpy as np

    gap = max(abs(p - m) for p, m in zip(judged["predicted"], judged["measured"]))
    ratio, people = np.array(errors["bootstrap"]) / errors["wald"], np.array(errors["people"])
    groups = {
        f"at least {FEW} people of each income": people >= FEW,
        f"1 to {FEW - 1} of the rarer income": (people > 0) & (people < FEW),
        "all of one income": people == 0,
    }
    groups = {name: those for name, those in groups.items() if those.any()}
    medians = ", ".join(f"{np.median(ratio[those]):.2f} ({name})" for name, those in groups.items())
    order = np.argsort(-abs(summary.z[:-1, 0]))
    strongest = order[:2]
    first, second = (
        f"{said(summary.names[i])} multiplies the odds by {summary.odds_ratios[i, 0]:.2f} "
        f"({' to '.join(f'{end:.3g}' for end in summary.odds_ratio_intervals[i, 0])})"
        for i in strongest
    )
    finding = (
        f"Without a penalty the fit ends as {ending['status']}"
        + (f", along {', '.join(ending['along'])}" if ending["along"] else "")
        + f"; under the prior {first} and {second}. "
        f"On {len(source.test.y):,} people held out the area under the ROC curve is {judged['auc']:.3f}, the accuracy "
        f"{judged['accuracy']:.1%} ({judged['majority']:.1%} without features), and in tenths of them the predicted "
        f"share is off by at most {100 * gap:.1f} points. "
        f"The bootstrap's standard errors are at the median {medians} times Wald's."
    )
    rows = [
        (
            summary.names[i],
            f"{summary.coefficients[i, 0]:.3f}",
            f"{summary.standard_errors[i, 0]:.3f}",
            f"{summary.z[i, 0]:.1f}",
            f"{summary.odds_ratios[i, 0]:.3g}",
            *(f"{end:.3g}" for end in summary.odds_ratio_intervals[i, 0]),
        )
        for i in (*order, -1)
    ]
    columns = ("feature", "coef", "std\nerr", "z", "odds\nratio", "95 %\nfrom", "\nto")
    notes = (
        "numbers: for one standard deviation; levels: against " + ", ".join(source.references),
        "sampling intervals of the penalised estimate, without the bias of its shrinkage",
    )
    table = Table(f"The {SHOWN} of the largest |z|", columns, rows[:SHOWN], notes)
    whole = Table(f"All {len(rows)} coefficients", columns, rows, notes)
    agreed = Table(
        "The bootstrap's standard error over Wald's",
        ("levels with", "coefficients", "least", "median", "largest"),
        [
            (name, f"{those.sum()}", *(f"{np.quantile(ratio[those], share):.2f}" for share in (0, 0.5, 1)))
            for name, those in groups.items()
        ],
        (f"{errors['ended']} resamples of {errors['rows']:,} rows",),
    )
    pictures = draw(run, summary, order, judged, errors, groups)
    run.record(kind="finding", text=finding)
    for each in (table, agreed):
        run.print(each)
    run.console.print(finding)
    sections = [
        Section("Odds", tables=(table,), figures=pictures[:1]),
        Section("On people held out", figures=pictures[1:3]),
        Section("Two standard errors", tables=(agreed,), figures=pictures[3:]),
        Section("The coefficients", tables=(whole,)),
    ]
    run.report("Who earns more than 50,000 dollars?", finding, sections)


def draw(
    run: runner.Run,
    summary: Summary,
    order: np.ndarray,
    judged: dict[str, Any],
    errors: dict[str, Any],
    groups: dict[str, np.ndarray],
) -> tuple[Figure, ...]:
    """Odds ratios, calibration, ROC curve, standard errors."""
    import numpy as np

    from experiments import fit_figures

    some, percent = order[:SHOWN], [f"{100 * share:.0f}" for share in judged["measured"]]
    ratios, intervals = summary.odds_ratios[some, 0], summary.odds_ratio_intervals[some, 0]
    names = [said(summary.names[i]) for i in some]
    lowest, highest = names[int(ratios.argmin())], names[int(ratios.argmax())]
    wald, bootstrap = np.array(errors["wald"]), np.array(errors["bootstrap"])
    return (
        run.figure(
            "odds",
            fit_figures.forest(names, ratios, intervals, "odds ratio and its 95 % interval"),
            alt=f"The odds ratios of {len(some)} features with intervals, from {ratios.min():.2g} for {lowest} to "
            f"{ratios.max():.2g} for {highest}.",
            caption=f"The {len(some)} coefficients furthest from zero in standard errors. Right of 1 the odds of a "
            "high income grow. Numbers: for one standard deviation; levels: against the most frequent one.",
            wide=True,
        ),
        run.figure(
            "calibration",
            fit_figures.calibration(*(np.array(judged[name]) for name in ("predicted", "measured", "intervals"))),
            alt=f"Measured against predicted shares of ten groups; measured are {', '.join(percent)} per cent.",
            caption="A tenth of the people held out a point, in the order of their predicted probability, with the "
            "95 % interval of the measured share. On the line prediction and measurement are equal.",
        ),
        run.figure(
            "roc",
            fit_figures.roc(np.linspace(0, 1, len(judged["roc"])), np.array(judged["roc"]), judged["auc"]),
            alt=f"The ROC curve on the people held out; the area below it is {judged['auc']:.3f}.",
            caption="What share of the high incomes is found, against the share of the low ones that is taken for "
            "them, over all thresholds. The diagonal is a guess.",
        ),
        run.figure(
            "errors",
            fit_figures.agreement(
                {name: (wald[those], bootstrap[those]) for name, those in groups.items()},
                "standard error by Wald",
                "standard error by the bootstrap",
            ),
            alt="Standard errors by the bootstrap against those of Wald: on the line where many people decide, far "
            "below it for levels whose people all have one income.",
            caption=f"A point a coefficient, on {errors['rows']:,} rows. A level whose people all have one income has "
            "it in every resample: the bootstrap sees no doubt where Wald, at the shape of the likelihood, sees much.",
            wide=True,
        ),
    )


def said(name: str) -> str:
    """A feature with what its odds ratio compares."""
    return name if ":" in name else f"{name}, + 1 s.d."
