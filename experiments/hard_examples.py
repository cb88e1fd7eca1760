"""Which images are hard? Those with the largest gradients after training.

The norm of an example's gradient says how much it still pulls at the parameters: ‖g_i‖² is a sum over layers of
(‖a‖² + 1) ‖δ‖², one line after the backward pass (Goodfellow, 2015). The images of the largest and of the smallest
norms are drawn with what the network says of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from experiments import runner
from experiments.report import Section, Table

if TYPE_CHECKING:
    import numpy as np

    from experiments import figures
    from experiments.data import Dataset

SHOWN = 6


@dataclass(frozen=True)
class Options(runner.Options):
    """The options of hard_examples."""

    data: Literal["digits", "mnist"] = "digits"
    """digits: scikit-learn's; mnist: IDX files from the data directory."""
    hidden: int = 32
    """Width of the hidden layer, of tanh neurons."""
    epochs: int = 30
    """Epochs of Adam with mini-batches of 64 rows."""
    hardest: float = 0.05
    """The share of images that are called the hardest."""


class Judged(NamedTuple):
    """The rows of a part from the largest gradient norm to the smallest: which, how large, and the answers."""

    rows: np.ndarray
    norms: np.ndarray
    says: np.ndarray
    truth: np.ndarray
    confidence: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """Where the network errs."""
        return self.says != self.truth


def main(options: Options, run: runner.Run) -> None:
    """Train, sort both parts by gradient norm, and tell what was found."""
    if min(options.hidden, options.epochs) < 1 or not 0 < options.hardest < 1:
        raise runner.UserError("--hidden and --epochs must be at least 1, --hardest between 0 and 1")

    import jax
    import optax

    import lr_nn
    from experiments import data

    if options.data == "mnist":
        source = data.mnist(data.directory(options.data_dir, "mnist"), options.seed)
    else:
        source = data.digits(options.seed)
    net = lr_nn.mlp((source.train.x.shape[1], options.hidden, 10), lr_nn.activations.tanh, lr_nn.losses.categorical)
    initial, order = jax.random.split(jax.random.key(options.seed))
    settings = {"optimizer": optax.adam(3e-3), "epochs": options.epochs, "batch_size": 64, "key": order}
    params = lr_nn.train(net, lr_nn.init(net, initial), lr_nn.Batch(*source.train), **settings).params
    judged = {name: judge(net, params, *part) for name, part in (("training", source.train), ("test", source.test))}
    found = {name: summary(part, options.hardest) for name, part in judged.items()}
    for name, numbers in found.items():
        run.record(kind="part", part=name, **numbers)
        part = judged[name]
        for end, places in (("hardest", range(SHOWN)), ("easiest", range(-1, -SHOWN - 1, -1))):
            for i in places:
                row = {"row": part.rows[i], "norm": part.norms[i], "says": part.says[i], "truth": part.truth[i]}
                run.record(kind=end, part=name, **row)
    tell(options, run, source, judged, found)


def judge(net: Any, params: Any, x: np.ndarray, y: np.ndarray) -> Judged:
    """Gradient norms and answers from one pass."""
    import numpy as np

    import lr_nn
    from lr_nn import per_example

    bp = lr_nn.backprop(net, params, lr_nn.Batch(x, y))
    norms = np.sqrt(np.asarray(per_example.squared_norms(bp), np.float64))
    shares = np.asarray(net.loss.mean(bp.eta))
    rows = np.argsort(-norms, kind="stable")
    return Judged(rows, norms[rows], shares.argmax(axis=1)[rows], y[rows], shares.max(axis=1)[rows])


def summary(part: Judged, share: float) -> dict[str, Any]:
    """Errors among the hardest and in all, and how unequal the norms are.

    error_rank: the chance that an error drawn at random has a larger norm than a right answer drawn at random; None
    without errors.
    """
    import numpy as np
    from sklearn.metrics import roc_auc_score

    n, wrong = len(part.rows), part.wrong
    hardest = max(1, round(share * n))
    return {
        "images": n,
        "errors": int(wrong.sum()),
        "hardest": hardest,
        "hardest_errors": int(wrong[:hardest].sum()),
        "hardest_share_of_norms": float(part.norms[:hardest].sum() / part.norms.sum()),
        "error_rank": float(roc_auc_score(wrong, part.norms)) if wrong.any() else None,
        "share_below_a_hundredth": float((part.norms < part.norms[0] / 100).mean()),
        "largest_norm": float(part.norms[0]),
        "median_norm": float(np.median(part.norms)),
        "smallest_norm": float(part.norms[-1]),
    }


def tell(
    options: Options, run: runner.Run, source: Dataset, judged: Mapping[str, Judged], found: Mapping[str, Any]
) -> None:
    """The finding, the table and the figure."""
    from experiments import figures

    train, test = found["training"], found["test"]
    finding = (
        f"Of the {test['hardest']} test images with the largest gradients ({options.hardest:.0%}), "
        f"{test['hardest_errors']} are errors of the network, of the other {test['images'] - test['hardest']} "
        f"{test['errors'] - test['hardest_errors']}. "
        f"Of the {train['hardest']} hardest of {train['images']:,} training images {train['hardest_errors']} are "
        f"errors, {train['errors'] - train['hardest_errors']} of the others; these {options.hardest:.0%} hold "
        f"{train['hardest_share_of_norms']:.0%} of the sum of all gradient norms. "
        f"The norms of the test images go from {test['smallest_norm']:.1g} to {test['largest_norm']:.3g}; "
        f"{test['share_below_a_hundredth']:.0%} of them are below a hundredth of the largest."
    )
    names = {
        "images": "images",
        "errors": "errors",
        "hardest": f"the hardest {options.hardest:.0%}",
        "hardest_errors": "errors among them",
        "hardest_share_of_norms": "their share of the sum of norms",
        "error_rank": "chance that an error has the larger norm",
        "share_below_a_hundredth": "norms below a hundredth of the largest",
        "largest_norm": "largest norm",
        "median_norm": "median norm",
        "smallest_norm": "smallest norm",
    }
    rows = [(text, *(_number(part[name]) for part in found.values())) for name, text in names.items()]
    table = Table(f"Gradient norms at the end of training on {source.name}", ("", "training", "test"), rows)
    drawn = {}
    for name, part in judged.items():
        drawn[f"The largest gradients of the {name} images"] = [sample(source, name, part, i) for i in range(SHOWN)]
    easiest = [sample(source, "test", judged["test"], -1 - i) for i in range(SHOWN)]
    drawn["The smallest gradients of the test images"] = easiest
    picture = run.figure(
        "images",
        figures.samples(drawn),
        alt=". ".join(f"{heading}: {spoken(row)}" for heading, row in drawn.items()) + ".",
        caption="What the network says of an image (✗: and what it is), and the norm of its gradient.",
        wide=True,
    )
    run.conclude("The hardest images", finding, [Section("By gradient norm", tables=(table,), figures=(picture,))])


def sample(source: Dataset, name: str, part: Judged, i: int) -> figures.Sample:
    """The image at place i, with the norm of its gradient."""
    from experiments import figures

    image = {"training": source.train, "test": source.test}[name].x[part.rows[i]].reshape(source.image_shape)
    return figures.Sample(image, str(part.says[i]), str(part.truth[i]), f"‖g‖ {part.norms[i]:.2g}")


def spoken(row: Sequence[figures.Sample]) -> str:
    """The answers in words."""
    return ", ".join(s.says if s.says == s.truth else f"{s.says} for {s.truth}" for s in row)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
