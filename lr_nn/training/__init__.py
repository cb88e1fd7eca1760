"""First-order training: epochs of optax steps on the hand-written gradient, compiled as one loop."""

from lr_nn.training.metrics import metrics
from lr_nn.training.progress import Progress, bar
from lr_nn.training.run import Training, train, train_many
from lr_nn.training.steps import step

__all__ = ["Progress", "Training", "bar", "metrics", "step", "train", "train_many"]
