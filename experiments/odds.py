"""Why is it the logit that is linear? A line for the chance leaves [0, 1].

One feature, and the share of ones at each of its values, seen as a probability in [0, 1], as odds in [0, ∞) and as
log-odds in (-∞, ∞). A line that is not level leaves the first range at both ends and the second at one; only the third
holds it. A coefficient of the logit is then the logarithm of an odds ratio: it multiplies odds, not chances.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from experiments import runner
from experiments.report import Section, Table

if TYPE_CHECKING:
    import numpy as np

    from experiments.report import Figure

    Rows = Sequence[dict[str, Any]]
    Levels = tuple[np.ndarray, np.ndarray, np.ndarray]

CHANCES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
INFINITY = float("inf")
RANGES = {"probability": (0, 1), "odds": (0, INFINITY), "log-odds": (-INFINITY, INFINITY)}


@dataclass(frozen=True)
class Options(runner.Options):
    """The options of odds."""

    data: Literal["census", "simulated"] | None = None
    """Who earns more than 50,000 dollars, or simulated students; None: the census where a data directory is set."""
    rows: int = 4000
    """Students that are simulated."""


class People(NamedTuple):
    """Features x (n, d), the first of them with few whole values; labels y (n,); `truth` the odds ratios, if known."""

    name: str
    label: str
    features: tuple[str, ...]
    x: np.ndarray
    y: np.ndarray
    truth: np.ndarray | None = None


def main(options: Options, run: runner.Run) -> None:
    """Fit a line on each scale and a logit of all features, and tell."""
    if options.rows < 500:
        raise runner.UserError("--rows must be at least 500, so that every value of the feature has some")

    import jax

    people = gathered(options)
    with jax.enable_x64(True):
        levels, lines = straight(people)
        ratios = multiplied(people)
        steps = [step(lines["log-odds"], at) for at in levels[0][[0, -2]]]
        places = [place(p) for p in CHANCES]
    run.record(kind="levels", **dict(zip(("values", "shares", "people"), levels)))
    for kind, rows in (("chance", places), ("line", lines.values()), ("coefficient", ratios), ("step", steps)):
        for row in rows:
            run.record(kind=kind, **row)
    tell(run, people, levels, places, lines, ratios, steps)


def gathered(options: Options) -> People:
    """Those that are asked for; else the census where a data directory is set, and students where none is."""
    from experiments import data

    known = options.data_dir or os.environ.get(data.VARIABLE)
    return census(options) if (options.data or ("census" if known else "simulated")) == "census" else simulated(options)


def census(options: Options) -> People:
    """The training rows of the census of 1994, with four features in their own units."""
    import numpy as np

    from experiments import data

    rows = data.census_rows(data.find(data.directory(options.data_dir, "census"), "adult.data"))
    numbers = [np.array(rows[name], float) for name in ("years of education", "age", "hours a week")]
    x = np.column_stack([*numbers, np.array(rows["sex"]) == "Male"])
    features = ("years of education", "age in years", "hours of work a week", "man, against woman")
    return People("census of 1994", "earn more than 50,000 dollars", features, x, np.array(rows["income"]) == ">50K")


def simulated(options: Options) -> People:
    """Students whose log-odds of passing are -5 + ½ hours + log 2 if they sat it before."""
    import numpy as np

    rng = np.random.default_rng(options.seed)
    x = np.column_stack([rng.integers(0, 21, options.rows), rng.integers(0, 2, options.rows)]).astype(float)
    slopes = np.array([0.5, np.log(2)])
    y = rng.random(options.rows) < 1 / (1 + np.exp(5 - x @ slopes))
    return People("simulated students", "pass", ("hours of study", "sat it before"), x, y, np.exp(slopes))


def straight(people: People) -> tuple[Levels, dict[str, dict[str, Any]]]:
    """The values of the first feature, their shares of ones and counts; and on each scale the line that fits best.

    By least squares for the labels, by least squares weighted by people for the odds of each value (where they are
    finite), by maximum likelihood for the logit. `impossible` counts the people for whom it says what cannot be.
    """
    import numpy as np

    import lr_nn
    from lr_nn import probability

    x, y = people.x[:, :1], people.y.astype(float)
    values, which, counts = np.unique(x, return_inverse=True, return_counts=True)
    shares = np.bincount(which.ravel(), y) / counts
    finite, line = shares < 1, lr_nn.linear_regression(1)
    odds = np.asarray(probability.odds(shares[finite]))
    fits = {
        "probability": lr_nn.fit(line, lr_nn.Batch(x, y)),
        "odds": lr_nn.fit(line, lr_nn.Batch(values[finite, None], odds, weight=counts[finite].astype(float))),
        "log-odds": lr_nn.fit(lr_nn.logistic_regression(1), lr_nn.Batch(x, y)),
    }
    found = {}
    for scale, fit in fits.items():
        slope, start = fit.coefficients[:, 0]
        z = slope * values + start
        low, high = RANGES[scale]
        kept = np.clip(z, low, high)
        chance = {"probability": kept, "odds": kept / (1 + kept), "log-odds": probability.expit(z)}[scale]
        found[scale] = {
            "scale": scale,
            "slope": float(slope),
            "start": float(start),
            "impossible": int(counts[(z < low) | (z > high)].sum()),
            "off": float(np.sqrt(np.average((np.asarray(chance) - shares) ** 2, weights=counts))),
        }
    return (values, shares, counts), found


def multiplied(people: People) -> list[dict[str, Any]]:
    """By what one unit more of each feature multiplies the odds, with intervals, in a logit of all features."""
    import lr_nn
    from lr_nn import inference

    data, net = lr_nn.Batch(people.x, people.y.astype(float)), lr_nn.logistic_regression(people.x.shape[1])
    found = inference.summary(net, lr_nn.fit(net, data), data, names=people.features)
    return [
        {
            "feature": name,
            "ratio": float(found.odds_ratios[i, 0]),
            "interval": found.odds_ratio_intervals[i, 0],
            "truth": None if people.truth is None else float(people.truth[i]),
        }
        for i, name in enumerate(people.features)
    ]


def place(p: float) -> dict[str, Any]:
    """A chance on the three scales."""
    from lr_nn import probability

    return {"probability": p, "odds": float(probability.odds(p)), "log_odds": float(probability.log_odds(p))}


def step(line: dict[str, Any], at: float) -> dict[str, Any]:
    """One unit more from `at`, as the line of the logit has it: what happens to the chance and to the odds."""
    from lr_nn import probability

    before, after = (float(probability.expit(line["slope"] * x + line["start"])) for x in (at, at + 1))
    odds = [float(probability.odds(p)) for p in (before, after)]
    return {"at": float(at), "chances": [before, after], "of_chance": after / before, "of_odds": odds[1] / odds[0]}


def tell(
    run: runner.Run, people: People, levels: Levels, places: Rows, lines: dict[str, Any], ratios: Rows, steps: Rows
) -> None:
    """The finding, the tables and the figures."""
    n, (low, high), first = len(people.y), steps, ratios[0]
    flat, odds, logit = lines.values()
    finding = (
        f"A straight line in the {people.features[0]} gives {flat['impossible']:,} of {n:,} people ({people.name}) a "
        f"probability outside [0, 1], one for the odds gives {odds['impossible']:,} odds below 0, and one for the "
        f"log-odds gives {logit['impossible'] or 'none'} of them what cannot be. "
        f"The last is off the measured shares by {100 * logit['off']:.1f} points in the root mean square, the first by "
        f"{100 * flat['off']:.1f} and the second by {100 * odds['off']:.1f}. "
        f"One unit more multiplies the odds by {low['of_odds']:.3f} at {low['at']:g} as by {high['of_odds']:.3f} at "
        f"{high['at']:g} (beside the other features by {first['ratio']:.3f}), but the chance by "
        f"{low['of_chance']:.2f} and by {high['of_chance']:.2f}: an odds ratio is not how much likelier a thing is."
    )
    note = "the odds of the contrary are the inverse, its log-odds the negative"
    same = Table(
        "The same chances on three scales",
        ("probability", "odds", "log-odds"),
        [(f"{at['probability']:g}", f"{at['odds']:.3g}", f"{at['log_odds']:+.3f}") for at in places],
        (note,),
    )
    columns: tuple[str, ...] = ("scale", "range", "slope", "impossible\nfor", "off by\n(points)")
    rows: list[tuple[str, ...]] = [
        (name, ends, f"{line['slope']:.4f}", f"{line['impossible']:,}", f"{100 * line['off']:.1f}")
        for (name, line), ends in zip(lines.items(), ("[0, 1]", "[0, ∞)", "(−∞, ∞)"))
    ]
    scales = Table("A straight line on each scale", columns, rows)
    rows = [
        (row["feature"], *(f"{value:.3f}" for value in (row["ratio"], *row["interval"], row["truth"]) if value))
        for row in ratios
    ]
    columns = ("feature", "odds ratio\nof one unit", "95 %\nfrom", "\nto", *(["\ntrue"] if first["truth"] else []))
    coefficients = Table(f"The odds to {people.label}, by all features together", columns, rows)
    rulers, panels = draw(run, people, levels, lines)
    sections = [
        Section("Three scales", tables=(same,), figures=(rulers,)),
        Section("A line on each", tables=(scales,), figures=(panels,)),
        Section("Coefficients are odds ratios", tables=(coefficients,)),
    ]
    run.conclude("Probability, odds and log-odds", finding, sections)


def draw(run: runner.Run, people: People, levels: Levels, lines: dict[str, Any]) -> Iterator[Figure]:
    """The three scales side by side, and the straight line on each."""
    from experiments import teaching_figures

    yield run.figure(
        "scales",
        teaching_figures.rulers(CHANCES),
        alt="Three rulers, joined where they show the same chance: probability from 0 to 1, odds from 0 upwards, "
        "log-odds in both directions without end. Odds crowd the chances below one half; log-odds are symmetric.",
        caption="A line joins what is the same chance. Even odds, 1, are log-odds of 0.",
        wide=True,
    )
    slopes = [(line["slope"], line["start"]) for line in lines.values()]
    told = ", ".join(f"{name}: impossible for {line['impossible']:,} people" for name, line in lines.items())
    yield run.figure(
        "lines",
        teaching_figures.three_lines(levels, slopes, people.features[0]),
        alt=f"Shares at {len(levels[0])} values of the {people.features[0]} on three scales, each with a line; {told}.",
        caption=f"Who will {people.label}? A dot is the share at one value, larger for more people; the hatched region "
        "holds no chance. A share of 0 or 1 has no finite log-odds: a triangle. Only the third scale has room for a "
        "line; whether a line is right, the data say.",
        wide=True,
    )
