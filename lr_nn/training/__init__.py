"""First-order training: epochs of optax steps on the hand-written gradient, compiled as one loop."""

from lr_nn.training.checkpoints import Checkpoints, DamagedError, ForeignError
from lr_nn.training.hooks import Hook
from lr_nn.training.keeper import NotSavedError
from lr_nn.training.loop import Training
from lr_nn.training.metrics import metrics
from lr_nn.training.privacy import Private
from lr_nn.training.progress import Progress, bar
from lr_nn.training.run import train, train_many
from lr_nn.training.steps import step

__all__ = [
    "Checkpoints",
    "DamagedError",
    "ForeignError",
    "Hook",
    "NotSavedError",
    "Private",
    "Progress",
    "Training",
    "bar",
    "metrics",
    "step",
    "train",
    "train_many",
]


def __dir__() -> list[str]:
    return __all__
