"""How large a batch pays? The noise of the gradient along a training run.

At several points of a training on digits, batches of m rows are drawn (with replacement) and their mean gradient is
compared with that of all rows. Its error should fall as √(tr Σ / m), and reach the length of the gradient G at the
simple noise scale B = tr Σ / ‖G‖² (McCandlish et al., 2018, eq. 2.9). A step along it, of the best length for that m,
should make 1 / (1 + B / m) of the progress that the noiseless gradient makes (their eq. 2.7): half of it at m = B.
That takes the curvature H to be alike in all directions; where it is not, B = tr(HΣ) / GᵀHG (eq. 2.8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from experiments import runner
from experiments.report import Section, Table

if TYPE_CHECKING:
    import jax
    from matplotlib.figure import Figure

    from lr_nn import Batch, Network
    from lr_nn.types import Params

STEP_LENGTHS = [2 ** (i / 2) for i in range(-14, 10)]


@dataclass(frozen=True)
class Options(runner.Options):
    """The options of noise_scale."""

    epochs: tuple[int, ...] = (0, 2, 10, 50)
    """The points of the run, in epochs of mini-batches of 64 rows."""
    batch_sizes: tuple[int, ...] = (4, 16, 64, 256, 1024, 4096)
    """The batch sizes m whose gradients are measured."""
    draws: int = 64
    """Batches drawn of every size, at every point."""
    estimate_from: int = 256
    """Rows of the batches from which the noise scale is estimated, as one would do while training."""


def main(options: Options, run: runner.Run) -> None:
    """Train, stop at the points to measure, and tell what was found."""
    if not runner.growing(options.epochs, above=-1) or len(options.epochs) > 4:
        raise runner.UserError(f"--epochs must be one to four growing numbers from 0 on; got {options.epochs}")
    if len(options.batch_sizes) < 2 or min(options.batch_sizes) < 1 or options.draws < 2 or options.estimate_from < 2:
        raise runner.UserError("--batch-sizes must be two or more from 1 on, --draws and --estimate-from at least 2")

    import jax
    import jax.numpy as jnp
    import optax

    import lr_nn
    from experiments import data

    train = data.digits(options.seed).train
    batch = lr_nn.Batch(jnp.asarray(train.x), jnp.asarray(train.y))
    net = lr_nn.mlp((batch.x.shape[1], 32, 10), hidden=lr_nn.activations.tanh, loss=lr_nn.losses.categorical)
    key = jax.random.key(options.seed)
    params, epoch, points = lr_nn.init(net, key), 0, []
    compiled, room = jax.jit(measure, static_argnums=(5, 6)), max(options.estimate_from, *options.batch_sizes)
    for later in options.epochs:
        here = jax.random.fold_in(key, 1 + later)
        if later > epoch:
            more = {"optimizer": optax.sgd(0.1), "epochs": later - epoch, "batch_size": 64, "key": here}
            params, epoch = lr_nn.train(net, params, batch, **more).params, later
        sizes = [
            compiled(net, params, batch, jax.random.fold_in(here, i), m, room, options.draws)
            for i, m in enumerate((options.estimate_from, *options.batch_sizes))
        ]
        points.append(summary(later, options, sizes[1:], sizes[0]))
        run.record(kind="point", **points[-1])
    tell(options, run, points)


def measure(
    net: Network, params: Params, batch: Batch, key: jax.Array, m: int, room: int, draws: int
) -> dict[str, jax.Array]:
    """Noise and progress with `draws` batches of m ≤ room rows, from one backward pass over all rows.

    A row drawn twice counts twice: a batch is a weight on the rows, and its gradient a contraction of the pass.
    """
    import jax
    import jax.numpy as jnp
    from jax.flatten_util import ravel_pytree

    import lr_nn
    from lr_nn import curvature, per_example

    bp = lr_nn.backprop(net, params, batch)
    full, unravel = ravel_pytree(lr_nn.gradient(bp))
    flat, _ = ravel_pytree(params)
    n, hessian = len(batch.x), curvature.hessian(net, params, batch)

    def drawn(key: jax.Array) -> tuple[jax.Array, per_example.NoiseScale]:
        rows = jax.random.randint(key, (room,), 0, n)
        weight = jnp.zeros(n).at[rows].add((jnp.arange(room) < m).astype(jnp.float32))
        weighted = replace(bp, weight=weight)
        return ravel_pytree(lr_nn.gradient(weighted))[0], per_example.noise_scale(weighted)

    def bend(direction: jax.Array) -> jax.Array:
        return (hessian @ direction) @ direction

    def gain(direction: jax.Array, length: jax.Array) -> jax.Array:
        return lr_nn.cost(net, params, batch) - lr_nn.cost(net, unravel(flat - length * direction), batch)

    gradients, estimates = jax.vmap(drawn)(jax.random.split(key, draws))
    lengths = jnp.asarray(STEP_LENGTHS, jnp.float32)
    return {
        "cost": lr_nn.cost(net, params, batch),
        "error": jnp.sqrt(((gradients - full[None]) ** 2).sum(axis=1).mean()),
        "curved_trace": m * jax.lax.map(bend, gradients - full[None]).mean(),
        "curved_norm": bend(full),
        "gains": jax.lax.map(lambda length: jax.vmap(gain, (0, None))(gradients, length).mean(), lengths),
        "full_gains": jax.lax.map(lambda length: gain(full, length), lengths),
        "trace": ravel_pytree(per_example.variance(bp))[0].sum(),
        "squared_norm": (full * full).sum(),
        "estimate": estimates.trace.mean() / estimates.squared_norm.mean(),
    }


def summary(epoch: int, options: Options, sizes: Sequence[dict[str, Any]], seen: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a point of the run.

    errors are relative to ‖G‖; half_size is the batch size of half the noiseless progress, None outside the measured.
    """
    import numpy as np

    first, log_sizes = sizes[0], np.log(options.batch_sizes)
    norm = float(np.sqrt(first["squared_norm"]))
    errors = np.array([float(size["error"]) for size in sizes]) / norm
    noiseless = best(first["full_gains"])
    progress = np.array([best(size["gains"]) for size in sizes]) / noiseless
    inside = progress.min() < 0.5 < progress.max()
    return {
        "epoch": epoch,
        "cost": float(first["cost"]),
        "gradient_norm": norm,
        "noise_scale": float(first["trace"]) / norm**2,
        "estimate": float(seen["estimate"]),
        "curved_noise_scale": float(np.mean([size["curved_trace"] for size in sizes]) / first["curved_norm"]),
        "errors": errors.tolist(),
        "slope": float(np.polyfit(log_sizes, np.log(errors), 1)[0]),
        "noiseless_gain": noiseless,
        "progress": progress.tolist(),
        "half_size": float(np.exp(np.interp(0.5, np.maximum.accumulate(progress), log_sizes))) if inside else None,
    }


def best(gains: Any) -> float:
    """The largest gain over the step length: the top of a parabola through the largest and those beside it."""
    import numpy as np

    gains = np.asarray(gains, np.float64)
    i = int(np.clip(gains.argmax(), 1, len(gains) - 2))
    a, b, c = np.polyfit(STEP_LENGTHS[i - 1 : i + 2], gains[i - 1 : i + 2], 2)
    return float(c - b * b / (4 * a)) if a < 0 else float(gains.max())


def tell(options: Options, run: runner.Run, points: Sequence[dict[str, Any]]) -> None:
    """The finding, the table and the figures, from the numbers of the points."""
    from experiments import figures

    first, last = points[0], points[-1]
    halves = [point for point in points if point["half_size"]]
    if halves:
        half = (
            f"half of the noiseless progress at {span([p['half_size'] / p['noise_scale'] for p in halves], 2)} times "
            "that noise scale, which takes the curvature to be alike in all directions, and at "
            f"{span([p['half_size'] / p['curved_noise_scale'] for p in halves], 2)} times the one weighted by it"
        )
    else:
        half = "half of the noiseless progress at none of the batch sizes tried"
    finding = (
        f"The error of the averaged gradient falls as m to the power {span([p['slope'] for p in points], 3)}: 1/√m is "
        f"−0.5. The noise scale goes from {first['noise_scale']:,.1f} rows at epoch {first['epoch']} to "
        f"{last['noise_scale']:,.0f} at epoch {last['epoch']}, while ‖G‖ goes from {first['gradient_norm']:.2g} to "
        f"{last['gradient_norm']:.2g}. A step of the best length makes {half}."
    )
    rows = [
        (
            f"{point['epoch']}",
            f"{point['cost']:.3f}",
            f"{point['noise_scale']:,.1f}",
            f"{point['estimate']:,.1f}",
            f"{point['curved_noise_scale']:,.1f}",
            f"{point['half_size']:,.1f}" if point["half_size"] else "–",
            f"{point['slope']:.3f}".replace("-", "−"),
        )
        for point in points
    ]
    columns = (
        "epoch",
        "cost",
        "noise\nscale",
        "from\nbatches",
        "by the\ncurvature",
        "half of the\nprogress",
        "slope of\nthe error",
    )
    notes = (
        "noise scale: tr Σ / ‖G‖² over all rows",
        f"from batches: as estimated from {options.draws} batches of {options.estimate_from} rows",
        "by the curvature: tr(HΣ) / GᵀHG",
    )
    table = Table("Noise scale and useful batch size", columns, rows, notes)
    pictures = (
        run.figure(
            "noise",
            figures.styled(draw)(options.batch_sizes, points),
            alt="Two panels over the batch size. Left, the relative error of the gradient: lines of slope −1/2, one an "
            f"epoch, that cross 1 at {', '.join(row[2] for row in rows)} rows. Right, the progress of one step: curves "
            f"that rise from 0 to 100 % and measure one half at {', '.join(row[5] for row in rows)} rows.",
            caption="Dots are measured, lines predicted: √(B/m) on the left, with B the simple noise scale, marked "
            "by × in both panels; 1 / (1 + B/m) on the right, with B weighted by the curvature.",
            wide=True,
        ),
    )
    run.conclude("How large a batch pays?", finding, [Section("Noise and progress", (), None, (table,), pictures)])


def draw(sizes: Sequence[int], points: Sequence[dict[str, Any]]) -> Figure:
    """Relative errors and progress against the batch size, measured and predicted."""
    import numpy as np
    from matplotlib.figure import Figure

    from experiments.figures import COLOURS, INK, STYLES, WIDE

    figure = Figure(figsize=(WIDE, 4.6))
    errors, progress = figure.subplots(1, 2)
    fine = np.geomspace(min(sizes), max(sizes), 200)
    for point, colour, style in zip(points, COLOURS, STYLES):
        ratio = point["noise_scale"] / fine
        name = f"epoch {point['epoch']}: B = {point['noise_scale']:,.0f}"
        errors.plot(fine, np.sqrt(ratio), style, color=colour, label=name)
        for axes, level in ((errors, 1), (progress, 50)):
            axes.plot(point["noise_scale"], level, "x", color=colour, markersize=9, markeredgewidth=2.2)
        errors.plot(sizes, point["errors"], "o", color=colour)
        progress.plot(fine, 100 / (1 + point["curved_noise_scale"] / fine), style, color=colour)
        progress.plot(sizes, 100 * np.array(point["progress"]), "o", color=colour)
    errors.axhline(1, color=INK, linewidth=0.8)
    progress.axhline(50, color=INK, linewidth=0.8)
    errors.set_yscale("log")
    errors.set_title("error of the gradient / ‖G‖")
    progress.set_title("progress of one step (% of the noiseless)")
    for axes in (errors, progress):
        axes.set_xscale("log")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.set_xlabel("batch size m")
    figure.legend(loc="outside upper left", ncols=len(points))
    return figure


def span(values: Sequence[float], digits: int) -> str:
    """The least and the largest of the values, with a proper minus."""
    low, high = (f"{value:.{digits}f}".replace("-", "−") for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
