"""Many devices, many processes: the library with its rows, or its columns, over a mesh."""

from lr_nn.sharded.columns import ColumnParallel, feature_parallel
from lr_nn.sharded.rows import RowParallel, data_parallel
from lr_nn.sharded.sums import NewtonSystem
from lr_nn.sharded.world import agree, initialize

__all__ = [
    "ColumnParallel",
    "NewtonSystem",
    "RowParallel",
    "agree",
    "data_parallel",
    "feature_parallel",
    "initialize",
]


def __dir__() -> list[str]:
    return __all__
