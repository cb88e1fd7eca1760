"""Rows in batches, from memory or from files: readers, the schema that turns tables into numbers, and streams."""

from lr_nn.data.rows import Arrays, Rows
from lr_nn.data.stream import blocks, mini_batches

__all__ = ["Arrays", "Rows", "blocks", "mini_batches"]
