"""The order of the site for a reader. An experiment that no group names comes at the end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Group(NamedTuple):
    """Experiments that belong together, in the order of reading, under a heading with a line of introduction.

    line: which of the three lines of backpropagation they are about; 0 for none.
    """

    title: str
    line: int
    text: str
    names: tuple[str, ...]

    @property
    def anchor(self) -> str:
        """Its heading's id on the page."""
        return self.title.lower().replace(" ", "-")


GROUPS = (
    Group(
        "Probability and loss",
        1,
        "Before the first line: what a model of a probability may say, and by which number it is judged.",
        ("odds", "coin_toss", "entropy"),
    ),
    Group(
        "One neuron",
        1,
        "A network of one layer has the first and the third line alone. What the choice of the loss does to it.",
        ("saturation", "outliers"),
    ),
    Group(
        "Networks",
        2,
        "The second line carries δ back, layer by layer: what hidden layers learn, and where the signal fades.",
        ("hidden_layer", "init_and_symmetry", "activations", "ladder", "architecture_search"),
    ),
    Group(
        "Gradients and what they cost",
        3,
        "The three lines together are one gradient: whether it is right, and what it takes in time and memory.",
        ("audit", "reverse_vs_forward", "vectorization", "memory"),
    ),
    Group(
        "Batches and single examples",
        3,
        "The third line sums over examples: how many the sum needs, and what it hides.",
        ("batch_size", "noise_scale", "hard_examples", "private_training"),
    ),
    Group(
        "Fits to the optimum",
        3,
        "Where the gradient is zero. With one layer the cost is convex, and a fit can say how far it is from the best.",
        ("solvers", "regularization", "paths", "census"),
    ),
)
OTHERS = Group("More questions", 0, "What else was asked.", ())


def grouped(names: Iterable[str]) -> list[tuple[Group, tuple[str, ...]]]:
    """Every one of `names` once, under its group; groups without any are left out."""
    names = tuple(names)
    placed = {name for group in GROUPS for name in group.names}
    found = [(group, tuple(name for name in group.names if name in names)) for group in GROUPS]
    found.append((OTHERS, tuple(name for name in names if name not in placed)))
    return [(group, members) for group, members in found if members]
