"""Why the logarithm of a likelihood? A thousand tosses multiply to zero.

A coin is tossed, and the likelihood of its tosses is multiplied up in float32 and float64, by NumPy and by XLA, until
nothing is left; the sum of logarithms goes on. Its maximum is found by formula, by gradient descent in the logit and
by `fit`. It is n/N, heads over tosses. What is sometimes told, n/(N − n), is heads over tails: the odds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments import runner
from experiments.report import Section, Table

if TYPE_CHECKING:
    import numpy as np

    from experiments.report import Figure

GRID = 999
NEAR = 1e-6


@dataclass(frozen=True)
class Options(runner.Options):
    """The options of coin_toss."""

    probability: float = 0.3
    """The chance of heads that the tosses are drawn with."""
    tosses: int = 2000
    """How often the coin is tossed."""
    steps: int = 200
    """Steps of gradient descent."""


def main(options: Options, run: runner.Run) -> None:
    """Toss, multiply, add logarithms, climb, and tell."""
    if not 0 < options.probability < 1 or options.tosses < 10 or options.steps < 1:
        raise runner.UserError("--probability must lie between 0 and 1, --tosses be at least 10 and --steps at least 1")

    import jax
    import numpy as np

    y = (np.random.default_rng(options.seed).random(options.tosses) < options.probability).astype(float)
    if y.min() == y.max():
        raise runner.UserError("every toss fell alike, so no maximum lies inside (0, 1): take more --tosses")
    with jax.enable_x64(True):
        lost = [vanished(y, arithmetic, bits) for bits in (32, 64) for arithmetic in ("XLA", "NumPy")]
        logs, best = logarithms(y), maximum(y, options.steps)
    for row in lost:
        run.record(kind="underflow", **row)
    run.record(kind="logarithms", **logs)
    run.record(kind="maximum", **best)
    tell(run, y, lost, logs, best)


def vanished(y: np.ndarray, arithmetic: str, bits: int) -> dict[str, Any]:
    """After how many tosses the product is zero: of a fair coin, and of `y` at its best p (None: not within them)."""
    import jax.numpy as jnp
    import numpy as np

    from lr_nn import probability

    namespace: Any = np if arithmetic == "NumPy" else jnp
    found: dict[str, Any] = {"arithmetic": arithmetic, "bits": bits}
    for name, p, outcomes in (("fair", 0.5, np.ones(2000)), ("this", y.mean(), y)):
        factors = probability.bernoulli_likelihood(*(jnp.asarray(a, f"float{bits}") for a in (p, outcomes)))
        products = np.asarray(namespace.cumprod(namespace.asarray(factors)))
        found[name] = int((products > 0).sum()) + 1 if products[-1] == 0 else None
        if name == "fair":
            found["least"] = float(products[products > 0].min())
    return found


def logarithms(y: np.ndarray) -> dict[str, Any]:
    """The log-likelihood at the best p, and what is left, on a grid of p, of the product and of the sum."""
    import numpy as np

    from lr_nn import probability

    grid, share = np.linspace(0, 1, GRID + 2)[1:-1], y.mean()
    products = np.asarray(probability.bernoulli_likelihood(grid[:, None], y[None]).prod(axis=1))
    sums = np.asarray(probability.bernoulli_log_likelihood(grid[:, None], y[None]).sum(axis=1))
    return {
        "log_likelihood": float(probability.bernoulli_log_likelihood(share, y).sum()),
        "bits": float(probability.entropy(np.array([share, 1 - share]), base=2)),
        "grid": GRID,
        "positive_products": int((products > 0).sum()),
        "best_by_sum": float(grid[sums.argmax()]),
    }


def maximum(y: np.ndarray, steps: int) -> dict[str, Any]:
    """Where the likelihood is largest, found in three ways, and what n/(N − n) is instead."""
    import numpy as np

    import lr_nn
    from lr_nn import losses, probability

    heads, tosses = float(y.sum()), float(len(y))
    formula = probability.coin_toss_estimate(heads, tosses)
    path = np.asarray(probability.coin_toss_descent(heads, tosses, steps=steps).p)
    away = np.abs(path - float(formula)) > NEAR
    # One input that is always 1 and no bias: the only coefficient is the logit of the coin. A face is a row.
    coin = lr_nn.Network((1, 1), (), losses.bernoulli, bias=False)
    faces = lr_nn.Batch(np.ones((2, 1)), np.array([1, 0]), weight=np.array([heads, tosses - heads]))
    fitted = lr_nn.fit(coin, faces)
    odds = float(probability.odds(formula))
    points = [p for p in (float(formula), odds) if p < 1]
    return {
        "heads": int(heads),
        "tosses": int(tosses),
        "formula": float(formula),
        "descent": float(path[-1]),
        "path": path,
        "steps": int(np.flatnonzero(away)[-1]) + 1 if not away[-1] else None,
        "logit": float(fitted.coefficients[0, 0]),
        "fit": float(probability.expit(fitted.coefficients[0, 0])),
        "odds": odds,
        "log_likelihoods": [float(probability.bernoulli_log_likelihood(p, y).mean()) for p in points],
    }


def tell(
    run: runner.Run, y: np.ndarray, lost: list[dict[str, Any]], logs: dict[str, Any], best: dict[str, Any]
) -> None:
    """The finding, the table and the figures."""
    names = [f"float{row['bits']}, {row['arithmetic']}" for row in lost]
    share, odds, rates = best["formula"], best["odds"], best["log_likelihoods"]
    fair = {(row["arithmetic"], row["bits"]): f"{row['fair']:,}" for row in lost}
    loss = f"is less likely by {rates[0] - rates[1]:.3g} nats a toss" if odds < 1 else "is impossible"
    finding = (
        f"The likelihood of a fair coin is zero after {fair['NumPy', 32]} tosses in float32 and {fair['NumPy', 64]} in "
        f"float64, under XLA after {fair['XLA', 32]} and {fair['XLA', 64]}; of {best['tosses']:,} tosses with "
        f"{best['heads']:,} heads the product in float64 is positive at {logs['positive_products']} of {logs['grid']} "
        f"chances, and the sum of logarithms, {logs['log_likelihood']:,.1f}, is largest at {logs['best_by_sum']:.3f}. "
        f"The maximum is n/N = {share:.4f} by formula, {best['fit']:.4f} by fit, and {best['descent']:.4f} by descent, "
        f"{reached(best['steps'])}. "
        f"The often-told n/(N − n) = {odds:.4f} is the odds, and its logarithm {best['logit']:.4f} is the logit "
        f"that fit finds; as a chance it {loss}."
    )
    rows = [(name, f"{row['least']:.2g}", after(row["fair"]), after(row["this"])) for name, row in zip(names, lost)]
    columns = ("product in", "least that\nis left", "zero after\n(fair coin)", "zero after\n(this coin)")
    note = f"a toss of this coin takes {logs['bits']:.3f} bits, its entropy; of a fair one a whole bit"
    table = Table("Tosses until the likelihood is zero", columns, rows, (note,))
    product, top = draw(run, y, lost, best)
    sections = [
        Section("The product", tables=(table,), figures=(product,)),
        Section("The maximum", figures=(top,)),
    ]
    run.conclude("Tossing a coin", finding, sections)


def draw(run: runner.Run, y: np.ndarray, lost: list[dict[str, Any]], best: dict[str, Any]) -> Iterator[Figure]:
    """The running product, and the log-likelihood over the chance of heads."""
    import numpy as np

    from experiments import teaching_figures
    from lr_nn import probability

    share, odds = best["formula"], best["odds"]
    logs = np.append(0, np.cumsum(probability.bernoulli_log_likelihood(np.float64(share), y))) / np.log(10)
    ends = {
        f"float{bits}: zero after\n" + ", ".join(f"{row['this']:,} ({row['arithmetic']})" for row in rows): [
            row["this"] for row in rows
        ]
        for bits in (32, 64)
        if (rows := [row for row in lost if row["bits"] == bits and row["this"]])
    }
    yield run.figure(
        "product",
        teaching_figures.vanishing(logs, ends),
        alt=f"The likelihood falls as a straight line on a logarithmic axis, to 10 to the {logs[-1]:.0f} after "
        f"{len(y):,} tosses; {'; '.join(ends).replace(chr(10), ' ') or 'no product ends'}.",
        caption="Multiplied up, the likelihood ends where the numbers of the computer do. Its logarithm does not.",
    )
    grid = np.linspace(0, 1, 1001)[1:-1]
    height = share * np.log(grid) + (1 - share) * np.log1p(-grid)
    tops = {f"n/N = {share:.3f}": share} | ({f"n/(N − n) = {odds:.3f}": odds} if odds < 1 else {})
    yield run.figure(
        "maximum",
        teaching_figures.hill(grid, height, best["path"], tops),
        alt=f"The log-likelihood is a hill over the chance of heads with its top at {share:.3f}, where descent ends; "
        f"n/(N − n) = {odds:.3f} is " + ("beside it." if odds < 1 else "no probability."),
        caption="Descent in the logit ends at n/N, heads over tosses. Heads over tails are the odds.",
    )


def after(tosses: int | None) -> str:
    """A number of tosses, or that there were not enough."""
    return "never here" if tosses is None else f"{tosses:,}"


def reached(steps: int | None) -> str:
    """How long the descent took."""
    return "which has not arrived yet" if steps is None else f"which is within {NEAR:g} after {steps} steps"
