"""What does minimising cross-entropy minimise? KL; the rest, entropy, stays.

Of one distribution p, a model q goes down the cross-entropy H(p, q) = H(p) + KL(p ‖ q), and then down the divergence
KL(p ‖ q) itself, from the same start. H(p) does not know of q, so both ways are one. It is not so for p: there the two
have other minima. Both are in nats or, divided by log 2, in bits.
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


@dataclass(frozen=True)
class Options(runner.Options):
    """The options of entropy."""

    p: tuple[float, ...] = (0.5, 0.25, 0.125, 0.125)
    """The distribution that q is fitted to."""
    share: float = 0.3
    """The chance of one of two outcomes, for the picture over all q."""
    rate: float = 0.5
    """Learning rate of the descent in the logits of q."""
    steps: int = 60
    """Steps of the descent."""


def main(options: Options, run: runner.Run) -> None:
    """Go down both, look at every q and every p of two outcomes, and tell."""
    if len(options.p) < 2 or min(options.p) <= 0 or abs(sum(options.p) - 1) > 1e-9:
        raise runner.UserError(f"--p must be at least two positive chances that sum to one; got {options.p}")
    if not 0 < options.share < 1 or options.steps < 1 or not 0 < options.rate < 4:
        # The curvature of the cross-entropy in the logits is at most ½: descent falls at every rate below 4.
        raise runner.UserError("--share must lie between 0 and 1, --steps be at least 1 and --rate between 0 and 4")

    import jax
    import numpy as np

    from lr_nn import probability

    with jax.enable_x64(True):
        p = np.array(options.p)
        start = 2 * np.random.default_rng(options.seed).standard_normal(len(p))
        by_cross_entropy, by_divergence = descents(p, start, options.rate, options.steps)
        q = by_cross_entropy
        measured: dict[str, Any] = {
            "entropy": float(probability.entropy(p)),
            "cross_entropy": np.asarray(probability.cross_entropy(p[None], q)),
            "divergence": np.asarray(probability.kl_divergence(p[None], q)),
            "reverse": np.asarray(probability.kl_divergence(q, p[None])),
        }
        gaps = measured["cross_entropy"] - measured["divergence"]
        least = minima(options.share)
        bits = float(probability.entropy(p, base=2))
    run.record(kind="descent", **measured, bits=bits, end=q[-1])
    apart, moved = (float(np.abs(a).max()) for a in (by_cross_entropy - by_divergence, gaps - measured["entropy"]))
    run.record(kind="agreement", paths_apart=apart, gap_moves_by=moved)
    run.record(kind="minima", **least)
    tell(options, run, measured, bits, (apart, moved), least)


def descents(p: np.ndarray, start: np.ndarray, rate: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Every q (steps + 1, k) of gradient descent in its logits, on H(p, q) by hand and on KL(p ‖ q) by autodiff.

    The cross-entropy is the cost of softmax regression with one input that is always 1 and no bias, on every outcome
    once, with p as weights.
    """
    import jax
    import numpy as np

    import lr_nn
    from lr_nn import Batch, Layer, losses, probability

    k = len(p)
    net = lr_nn.Network((1, k), (), losses.categorical, bias=False)
    outcomes = Batch(np.ones((k, 1)), np.arange(k), weight=p)

    def of_cross_entropy(logits: jax.Array) -> jax.Array:
        _, (layer,) = lr_nn.value_and_gradient(net, (Layer(logits[None], None),), outcomes)
        return layer.w[0]

    of_divergence = jax.grad(lambda logits: probability.kl_divergence(p, jax.nn.softmax(logits)))

    def path(gradient: Any) -> np.ndarray:
        def step(logits: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            return logits - rate * gradient(logits), logits

        logits, before = jax.lax.scan(step, jax.numpy.asarray(start), length=steps)
        return np.asarray(jax.nn.softmax(np.concatenate([before, logits[None]])))

    return path(of_cross_entropy), path(of_divergence)


def minima(share: float) -> dict[str, Any]:
    """Of two outcomes: where on a grid the cross-entropy and the divergence are least, over q and over p."""
    import numpy as np

    from lr_nn import probability

    chances = np.linspace(0, 1, 1001)
    moving, fixed = (np.stack([c, 1 - c], axis=-1) for c in (chances, np.array([share])))
    functions = {"cross_entropy": probability.cross_entropy, "divergence": probability.kl_divergence}
    over_q = {f"{name}_over_q": chances[np.argmin(of(fixed, moving))] for name, of in functions.items()}
    over_p = {f"{name}_over_p": chances[np.argmin(of(moving, fixed))] for name, of in functions.items()}
    return {name: float(at) for name, at in (over_q | over_p).items()}


def tell(
    options: Options, run: runner.Run, measured: dict[str, Any], bits: float, same: tuple[float, float], least: Any
) -> None:
    """The finding, the table and the figures."""
    import math

    entropy, cross, divergence, reverse = measured.values()
    apart, moved = same
    finding = (
        f"Descent takes the cross-entropy from {cross[0]:.4f} to {cross[-1]:.4f} nats and the KL divergence from "
        f"{divergence[0]:.4f} to {divergence[-1]:.1e}; between them stays, to within {moved:.0e}, the entropy of p, "
        f"{entropy:.4f} nats or {bits:.4f} bits, so that the best cross-entropy is not zero. "
        f"Descent on the divergence itself passes the same q to within {apart:.0e}. "
        f"With p fixed at {options.share:g} the divergence is least at q = {least['divergence_over_q']:g} and the "
        f"cross-entropy at q = {least['cross_entropy_over_q']:g}, but with q fixed there, at p = "
        f"{least['divergence_over_p']:g} and at p = {least['cross_entropy_over_p']:g}: the entropy is constant for q "
        f"alone; nor are the two sides alike, for at the start KL(p ‖ q) is {divergence[0]:.4f} and KL(q ‖ p) "
        f"{reverse[0]:.4f}."
    )
    named = {"H(p), entropy": entropy}
    for i, when in ((0, "at the start"), (-1, "at the end")):
        named |= {f"{name}, {when}": of[i] for name, of in (("H(p, q)", cross), ("KL(p ‖ q)", divergence))}
        named[f"KL(q ‖ p), {when}"] = reverse[i]
    rows = [(name, f"{nats:.5g}", f"{nats / math.log(2):.5g}") for name, nats in named.items()]
    table = Table("Entropies and divergences", ("quantity", "nats", "bits"), rows)
    pictures = tuple(draw(options, run, measured))
    run.conclude("Entropy, cross-entropy, divergence", finding, [Section("One gap", tables=(table,), figures=pictures)])


def draw(options: Options, run: runner.Run, measured: dict[str, Any]) -> Iterator[Figure]:
    """Both over all q of two outcomes, and on the way of the descent."""
    import math

    import numpy as np

    from experiments import teaching_figures
    from lr_nn import probability

    grid = np.linspace(0, 1, 1001)[1:-1]
    p, q = (np.stack([c, 1 - c], axis=-1) for c in (np.array([options.share]), grid))
    curves = {
        "H(p, q), cross-entropy": np.asarray(probability.cross_entropy(p, q, base=2)),
        "KL(p ‖ q), divergence": np.asarray(probability.kl_divergence(p, q, base=2)),
    }
    floor = float(probability.entropy(p[0], base=2))
    yield run.figure(
        "every_q",
        teaching_figures.two_valleys(grid, curves, floor, options.share),
        alt=f"Over q, the cross-entropy and the KL divergence are the same valley, lowest at q = {options.share:g}; "
        f"the cross-entropy lies {floor:.3f} bits higher everywhere, which is the entropy of p.",
        caption=f"Two outcomes, p = {options.share:g}. The two curves are one, a constant apart.",
    )
    parts = np.array([np.full(len(measured["divergence"]), measured["entropy"]), measured["divergence"]]) / math.log(2)
    yield run.figure(
        "descent",
        teaching_figures.layers(parts, ("H(p), entropy of p", "KL(p ‖ q)"), "H(p, q)", "step of gradient descent"),
        alt=f"The cross-entropy falls to {parts[0][0]:.3f} bits, the entropy of p, as its other part, the divergence, "
        "falls to zero.",
        caption="What descent can take away is the divergence. The entropy is the noise in the data.",
    )
