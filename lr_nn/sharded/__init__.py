"""Many devices, many processes: the library with its rows, or its columns, over a mesh."""

from lr_nn.sharded.rows import NewtonSystem, RowParallel, data_parallel
from lr_nn.sharded.world import agree, initialize

__all__ = ["NewtonSystem", "RowParallel", "agree", "data_parallel", "initialize"]
