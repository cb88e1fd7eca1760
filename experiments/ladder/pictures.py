"""The pictures of a rung: cost curves, first-layer weights, and predictions beside the truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import lr_nn
from experiments import figures
from experiments.ladder.climb import Result
from experiments.ladder.rungs import ONE_QUESTION
from experiments.report import Figure
from experiments.runner import Run

SHOWN = 6


def depths(run: Run, results: Sequence[Result]) -> tuple[Figure, ...]:
    """The costs of the rungs that answer the same question, in one picture."""
    alike = [result for result in results if result.rung.number in ONE_QUESTION]
    if len(alike) < 2:
        return ()
    lines = [
        figures.Line(f"{result.rung.name}, {part}", *curve, colour, style)
        for colour, result in enumerate(alike)
        for style, (part, curve) in enumerate(result.curves.items())
    ]
    ends = "; ".join(
        " and ".join(f"{curve.costs[-1]:.3f} ({part})" for part, curve in result.curves.items())
        + f", {result.rung.name}"
        for result in alike
    )
    return (
        run.figure(
            "depths",
            figures.curves(lines, "steps", "cost", wide=True),
            alt=f"Cost curves of rungs that answer one question. At the end, {ends}.",
            caption=f"One question, “{alike[0].task.question}”, for networks of growing depth. Each is trained in its "
            "own way: see the table.",
            wide=True,
        ),
    )


def cost(run: Run, result: Result) -> Figure:
    """The cost on both parts along the training."""
    train, test = result.curves["training"], result.curves["test"]
    lines = [figures.Line("training", *train), figures.Line("test", *test, 1, 1)]
    wide = _many(result)
    return run.figure(
        f"rung{result.rung.number}_cost",
        figures.curves(lines, "steps", "cost", wide),
        alt=f"Cost over {result.training.steps:,} steps: training from {train.costs[0]:.3f} to {train.costs[-1]:.3f}, "
        f"test from {test.costs[0]:.3f} to {test.costs[-1]:.3f}.",
        caption="The cost on training and on test rows."
        + (" In training it is the mean over the steps of an epoch." if result.protocol.batch_size else ""),
        wide=wide,
    )


def weights(run: Run, result: Result) -> Figure:
    """The first layer: its columns as images, or as bars where the inputs are no image."""
    w, source, name = np.asarray(result.training.params[0].w), result.task.source, f"rung{result.rung.number}_weights"
    if source.image_shape is None:
        largest = source.features[int(np.abs(w[:, 0]).argmax())]
        return run.figure(
            name,
            figures.bars(w[:, 0], source.features, "weight (features and target standardised)"),
            alt=f"A bar for each of the {len(w)} weights. The largest in magnitude is that of {largest}.",
            caption="The weights, the largest magnitude on top.",
        )
    images = w.T.reshape(-1, *source.image_shape)
    yes = result.task.names[-1]
    if len(result.net.sizes) > 2:
        names = [f"neuron {j + 1}" for j in range(len(images))]
        caption = "First-layer weights as images: what each hidden neuron looks for."
    elif len(images) == 1:
        names, caption = [""], f"The weights as an image: what speaks for “{yes}” (positive) and against it (negative)."
    else:
        names, caption = list(result.task.names), "The weights as images: what speaks for each answer and against it."
    if len(source.image_shape) == 3:
        caption += " Grey is zero; each colour channel is brighter where its weight is positive."
    return run.figure(
        name,
        figures.weights(images, names),
        alt=f"Images of weights, {source.image_shape[0]} by {source.image_shape[1]}: {len(images)} in all.",
        caption=caption,
        wide=_many(result),
    )


def predictions(run: Run, seed: int, result: Result) -> Figure:
    """Test images with the network's answers, some drawn and some mistaken; or predicted against measured values."""
    task, name = result.task, f"rung{result.rung.number}_predictions"
    mean = np.asarray(lr_nn.predict(result.net, result.training.params, task.test.x))
    if task.source.image_shape is None:
        predicted, measured = (values * task.source.scale + task.source.mean for values in (mean[:, 0], task.test.y))
        return run.figure(
            name,
            figures.scatter(predicted, measured, task.source.unit),
            alt=f"Predicted against measured values of {len(measured)} test rows, spread around the line of "
            f"agreement: {result.long_score('test')}.",
            caption="Predictions for the test rows.",
            wide=True,
        )
    says, truth, confidence = _answers(result, mean)
    wrong = np.flatnonzero([a != b for a, b in zip(says, truth)])
    drawn = np.random.default_rng(seed).permutation(len(mean))[:SHOWN]
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")][:SHOWN]
    shares = task.test.y.ndim == 1

    def sample(i: int) -> figures.Sample:
        image = task.test.x[i].reshape(task.source.image_shape)
        return figures.Sample(image, says[i], truth[i], _percent(confidence[i]) if shares else "")

    rows = {"Drawn from the test rows": [sample(i) for i in drawn]}
    if len(surest):
        rows["The only mistake" if len(wrong) == 1 else f"The surest of {len(wrong)} mistakes"] = [
            sample(i) for i in surest
        ]
    spoken = "; ".join(f"{says[i]}" if says[i] == truth[i] else f"{says[i]} for {truth[i]}" for i in [*drawn, *surest])
    return run.figure(
        name,
        figures.samples(rows),
        alt=f"Test images with the answers of the network: {spoken}.",
        caption="Test images and the answers of the network" + (", with their probabilities." if shares else "."),
        wide=True,
    )


def _answers(result: Result, mean: np.ndarray) -> tuple[list[str], list[str], np.ndarray]:
    """What is said of each test row, what is true, and how sure the answer is (the surest wrong one of several)."""
    y, names = result.task.test.y, result.task.names
    if y.ndim == 2:

        def join(flags: np.ndarray) -> str:
            return ", ".join(name for name, flag in zip(names, flags) if flag) or "none"

        wrong = (mean > 0.5) != (y > 0.5)
        confidence = np.where(wrong, np.abs(mean - 0.5) + 0.5, 0).max(axis=1)
        return [join(row > 0.5) for row in mean], [join(row > 0.5) for row in y], confidence
    shares = np.hstack([1 - mean, mean]) if mean.shape[1] == 1 else mean
    said = (mean[:, 0] > 0.5).astype(int) if mean.shape[1] == 1 else shares.argmax(axis=1)
    return [names[c] for c in said], [names[c] for c in y], shares.max(axis=1)


def _percent(share: float) -> str:
    return "> 99 %" if share > 0.99 else f"{100 * share:.0f} %"


def _many(result: Result) -> bool:
    """More first-layer weight images than fit half the page: then the rung's pictures stand one below the other."""
    return result.net.sizes[1] > 4
