"""Rows in batches, from memory or from files: readers, the schema that turns tables into numbers, and streams."""

from lr_nn.data.arrays import npy, npz
from lr_nn.data.checks import problems
from lr_nn.data.hdf5 import hdf5
from lr_nn.data.idx import idx
from lr_nn.data.images import image_folder
from lr_nn.data.libsvm import libsvm
from lr_nn.data.opening import open_rows
from lr_nn.data.rows import Arrays, Rows
from lr_nn.data.stream import blocks, mini_batches

__all__ = [
    "Arrays",
    "Rows",
    "blocks",
    "hdf5",
    "idx",
    "image_folder",
    "libsvm",
    "mini_batches",
    "npy",
    "npz",
    "open_rows",
    "problems",
]
