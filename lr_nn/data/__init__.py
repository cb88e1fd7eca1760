"""Rows in batches, from memory or from files: readers, the schema that turns tables into numbers, and streams."""

from lr_nn.data.arrays import npy, npz
from lr_nn.data.checks import problems
from lr_nn.data.csv_files import csv
from lr_nn.data.encodings import Categorical, Numeric, Target
from lr_nn.data.hdf5 import hdf5
from lr_nn.data.idx import idx
from lr_nn.data.images import image_folder
from lr_nn.data.learning import Learner, learn
from lr_nn.data.libsvm import libsvm
from lr_nn.data.opening import open_rows
from lr_nn.data.rows import Arrays, Rows
from lr_nn.data.schema import Schema
from lr_nn.data.splitting import split
from lr_nn.data.stream import blocks, mini_batches
from lr_nn.data.table_files import arrow, open_table, parquet
from lr_nn.data.tables import Table, frame

__all__ = [
    "Arrays",
    "Categorical",
    "Learner",
    "Numeric",
    "Rows",
    "Schema",
    "Table",
    "Target",
    "arrow",
    "blocks",
    "csv",
    "frame",
    "hdf5",
    "idx",
    "image_folder",
    "learn",
    "libsvm",
    "mini_batches",
    "npy",
    "npz",
    "open_rows",
    "open_table",
    "parquet",
    "problems",
    "split",
]


def __dir__() -> list[str]:
    return __all__
