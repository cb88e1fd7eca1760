"""Rows that are larger than memory: what memory allows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lr_nn.data import Rows
from lr_nn.fitting.opening import of_rows
from lr_nn.fitting.processes import of_all
from lr_nn.fitting.settings import Settings
from lr_nn.fitting.source import Source, chunk_rows, threads
from lr_nn.fitting.terms import bucket
from lr_nn.network import Network, n_parameters

__all__ = ["admit_rows", "fits"]

# What a fit in memory takes of its rows; the shares of memory of the blocks that are read, and of matrices.
IN_MEMORY, READ, MATRICES, LEAST, SPECTRA = 2, 8, 4, 32, 6


def fits(rows: Rows, net: Network, memory: int) -> bool:
    """Is there room for all rows, and a fit of them?"""
    return IN_MEMORY * 8 * len(rows) * (sum(net.sizes) + 2) <= memory


def admit_rows(net: Network, rows: Rows, memory: int, settings: Settings, shared: bool = False) -> Source:
    """A source of blocks that memory holds: several are in use at once, beside the matrices of the search.

    `shared`: each process has rows of its own.
    """
    d, k = net.sizes
    p, n = n_parameters(net), len(rows)
    width = d + (3 * k * k if net.loss.couples_outputs else 0)
    each = 8 * (width + k + 2)
    blocks = max(READ, 2 * (threads() + 2))
    needed = blocks * each * min(LEAST, n) + MATRICES * 8 * SPECTRA * min(p, d + 1) ** 2 + 8 * 40 * p
    if needed > memory:
        raise ValueError(
            f"memory must hold two blocks of rows and the factors of {p} parameters; got {memory} bytes, "
            f"allow at least {needed}"
        )
    most = min(chunk_rows(n, width, settings), int(memory / blocks / each))
    weight = rows.read(0, min(n, most)).weight
    unit = 1.0 if weight is None else float(np.max(weight, initial=0.0)) or 1.0
    source = of_rows(net, rows, bucket(max(1, most)), unit, memory / 2, settings)
    if not shared:
        return source
    log = {"rows": int(of_all(np.int64(n), np.add))}
    return replace(source, shared=True, unit=float(of_all(np.float64(unit), np.maximum)), log=log)
