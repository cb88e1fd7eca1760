"""Sources of arrays and of files, a first look at their columns, and the row to blame where a number is none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import jax
import numpy as np

from lr_nn import check
from lr_nn.admission import admit_rows
from lr_nn.data import Rows, blocks
from lr_nn.fitting.batches import counted, joined
from lr_nn.fitting.chunks import Frame
from lr_nn.fitting.processes import of_all
from lr_nn.fitting.settings import Settings
from lr_nn.fitting.source import Source
from lr_nn.network import Network
from lr_nn.types import Batch

# All rows are looked at where x has so few numbers.
SMALL = 2**17

__all__ = ["Look", "looked", "of_arrays", "of_rows", "refuse_what_is_not_finite"]


def of_arrays(net: Network, batches: Iterable[Batch], settings: Settings, shared: bool = False) -> Source:
    """A source of batches in memory, checked; rows of weight zero are left out, for their numbers may be anything.

    An x that lies on an accelerator stays there. Values of x are not looked at: what is not a number is found when the
    cost is none.
    """
    parts, numbers, seen = [], [], 0
    for batch in batches:
        with jax.enable_x64(True):
            x, *others = admit_rows(net, batch, np.float64, allow_no_weight=True)
        others = [None if a is None else np.asarray(a) for a in others]
        if isinstance(x, jax.Array) and settings.is_accelerator(x):
            parts.append(Batch(x, *others))
        else:
            parts.append(counted(Batch(np.asarray(x), *others)))
            if shared and not len(parts[-1].x):  # no process is without rows
                parts[-1] = _nothing(Batch(np.asarray(x), *others))
        all_rows, weight = np.arange(seen, seen + x.shape[0]), others[1]
        numbers.append(all_rows if weight is None or len(parts[-1].x) == len(all_rows) else all_rows[weight > 0])
        seen += len(all_rows)
    unit = max((float(part.weight.max()) for part in parts if part.weight is not None and len(part.x)), default=1.0)
    unit = float(of_all(np.float64(unit), np.maximum)) if shared else unit
    length = sum(len(part.x) for part in parts)
    if not length:
        raise ValueError("weight is zero for every example; at least one must be positive")
    frame = Frame(np.zeros(net.sizes[0]), False, np.zeros(net.sizes[1]), net.bias)
    kept = {"numbers": [of for of, part in zip(numbers, parts) if len(part.x)]}
    parts = [part for part in parts if len(part.x)]
    total = int(of_all(np.int64(length), np.add)) if shared else length
    log = kept | {"rows": total}
    return Source(net, frame, settings, tuple(parts), unit=unit or 1.0, length=length, shared=shared, log=log)


def _nothing(batch: Batch) -> Batch:
    """The first row, of zeros and without weight."""
    first = Batch(*(None if a is None else a[:1] for a in batch))
    offset = None if first.offset is None else 0 * first.offset
    return Batch(np.zeros_like(first.x), first.y, np.zeros(1), offset)


def of_rows(net: Network, rows: Rows, block: int, unit: float, room: float, settings: Settings) -> Source:
    """A source of files, read in blocks."""
    frame = Frame(np.zeros(net.sizes[0]), False, np.zeros(net.sizes[1]), net.bias)
    return Source(net, frame, settings, rows=rows, block=block, unit=unit, length=len(rows), room=room)


class Look(NamedTuple):
    """What some rows say of the columns: `pivot`, one of them; of z = x - pivot the mean, that of z², and the largest
    of z and -z. So are means and deviations exact, however far from zero the columns are.
    """

    pivot: np.ndarray
    mean: np.ndarray
    squares: np.ndarray
    most: np.ndarray
    least: np.ndarray


def looked(source: Source) -> Look:
    """A look at the columns of some rows, or of all where they are few."""
    here = source.rows is None and not source.shared
    few = source if here and source.length * source.features <= SMALL else source.some(source.settings.scouted)
    batch = few.parts[0] if len(few.parts) == 1 else joined(list(few.parts))
    batch = counted(batch) if len(counted(batch).x) else batch._replace(weight=None)
    x = np.asarray(batch.x, np.float64)
    weight = np.ones(len(x)) if batch.weight is None else batch.weight / batch.weight.max()
    weight = weight / weight.sum()
    finite = np.isfinite(x)
    x = x if finite.all() else np.where(finite, x, 0)
    with np.errstate(over="ignore", invalid="ignore"):
        z = x - x[0]
        return Look(x[0], weight @ z, weight @ (z * z), z.max(axis=0), -z.min(axis=0))


def refuse_what_is_not_finite(source: Source) -> None:
    """Refuse the first row that counts with an x that is not finite."""
    seen, numbers = 0, iter(source.log.get("numbers", ()))
    for batch in source.parts if source.rows is None else blocks(source.rows, source.block):
        n = batch.x.shape[0]
        has_weight = np.ones(n, bool) if batch.weight is None else np.asarray(batch.weight) > 0
        with check.numbered(next(numbers, range(seen, seen + n))):
            check.finite("x", np.where(has_weight[:, None], batch.x, 0))
        seen += n
