"""Lanes to their engine: which one, how many at a time, on which core or device; and what they found, in one place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from lr_nn import check
from lr_nn.many import engines
from lr_nn.many.engines import Found, Table
from lr_nn.many.lanes import Lanes
from lr_nn.network import n_parameters
from lr_nn.solvers import products, schedule
from lr_nn.solvers.problem import placed
from lr_nn.types import Status

__all__ = ["Progress", "Settings", "choose", "run_lanes"]

ENGINES = (*schedule.ORDERS, "products", "each")
# Lanes are small up to so many parameters, and so many numbers.
FEW, NUMBERS = 100, 2**20
# Each worker has so many turns, if there are lanes enough: progress is seen, and nobody waits long for the last.
TURNS = 8


class Progress(NamedTuple):
    """Lanes done, of how many, and how many of those done did not converge."""

    done: int
    lanes: int
    failed: int

    @property
    def share(self) -> tuple[int, int]:
        """Lanes done, and of how many."""
        return self.done, self.lanes

    @property
    def told(self) -> str:
        """How many did not converge."""
        return f"{self.failed:,} did not converge" if self.failed else ""


@dataclass(frozen=True)
class Settings:
    """The keywords of `fit_many` and its kin that say how lanes are run."""

    tol: float
    max_steps: int
    solver: str
    dtype: DTypeLike | None
    schedule: str
    memory: int
    devices: Sequence[jax.Device] | None
    progress: Callable[[Progress], None] | None


def run_lanes(lanes: Lanes, settings: Settings, chains: np.ndarray | None = None) -> tuple[Found, str]:
    """What all lanes found, and by which engine.

    `chains` (c, t) are ids of lanes with one `x`, in rows that lead from large penalties to small.
    """
    engine = choose(lanes, settings)
    if chains is None:
        chains = np.arange(lanes.m)[:, None]
    workers = _workers(settings.devices)
    tasks = list(_tasks(lanes, settings, engine, chains, len(workers)))
    free: SimpleQueue = SimpleQueue()
    tables = {device: _table(lanes, device) for device in dict.fromkeys(workers)} if lanes.shares_x else {}
    for worker in workers:
        free.put(worker)

    def turn(ids: np.ndarray) -> list[tuple[np.ndarray, Found]]:
        device = free.get()
        try:
            with jax.enable_x64(True), jax.default_device(device):
                return list(_solve(lanes, settings, engine, ids, tables.get(device)))
        finally:
            free.put(device)

    whole: Found | None = None
    done = np.zeros(lanes.m, bool)
    with ThreadPoolExecutor(len(workers)) as pool:
        waiting = [pool.submit(turn, ids) for ids in tasks]
        try:
            for future in as_completed(waiting):
                for ids, found in future.result():
                    whole = _put(_blank(lanes.m, found) if whole is None else whole, ids, found)
                    done[ids] = True
                if settings.progress is not None and whole is not None:
                    failed = int((whole.status[done] != Status.converged).sum())
                    settings.progress(Progress(int(done.sum()), lanes.m, failed))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    assert whole is not None
    return whole, engine


def choose(lanes: Lanes, settings: Settings) -> str:
    """An engine by shape; ValueError if the one that was asked for cannot serve."""
    n, d = lanes.x.shape[-2:]
    products_can = lanes.shares_x and lanes.net.sizes[1] == 1 and not np.any(lanes.penalty.l1)
    if settings.schedule == "products" and not products_can:
        raise ValueError("schedule='products' is for one output, one x that all lanes share, and no l1 penalty")
    if settings.solver != "auto" and settings.schedule not in ("auto", "each"):
        raise ValueError(f"solver={settings.solver!r} goes with schedule='each'; got {settings.schedule!r}")
    if settings.schedule != "auto":
        return settings.schedule
    if settings.solver != "auto":
        return "each"
    if n_parameters(lanes.net) <= FEW and n * d <= NUMBERS:
        return "one_by_one" if jax.default_backend() == "cpu" else "queue"
    return "products" if products_can else "each"


def _workers(devices: Sequence[jax.Device] | None) -> list[jax.Device]:
    """A device for each thread: on a CPU, one thread a core."""
    if devices is not None:
        if not devices:
            raise ValueError("devices is empty: name at least one, such as jax.devices()[:1], or leave it out")
        return list(devices)
    local = jax.local_devices()
    return [local[0]] * (os.cpu_count() or 1) if local[0].platform == "cpu" else local


def _tasks(lanes: Lanes, settings: Settings, engine: str, chains: np.ndarray, workers: int) -> Iterator[np.ndarray]:
    """Lanes that are solved at once: chains one under another, all of one shape, so that one program serves."""
    chains = chains if engine in ("products", "each") else chains.reshape(-1, 1)
    workers, length = min(workers, len(chains)), min(chains.shape[1], products.TOGETHER)
    needed = _bytes(lanes, engine, length if engine == "products" else chains.shape[1])
    if settings.memory < workers * needed:
        raise ValueError(
            f"a lane needs {needed:,} bytes, and {workers} are solved at a time; "
            f"memory={settings.memory:,} does not hold them: give it at least {workers * needed:,}"
        )
    most = min(settings.memory // (workers * needed), -(-len(chains) // workers))
    if engine == "products":
        most = min(most, max(1, products.LANES // length))
    elif engine in ("one_by_one", "each"):
        most = min(most, max(1, -(-len(chains) // (TURNS * workers))))
    parts = -(-len(chains) // most)
    size = -(-len(chains) // parts)
    for part in range(parts):
        yield chains[np.minimum(np.arange(part * size, (part + 1) * size), len(chains) - 1)]


def _bytes(lanes: Lanes, engine: str, length: int) -> int:
    """What a chain of so many lanes takes, roughly, beside a table that all share."""
    (n, d), k, p = lanes.x.shape[-2:], lanes.net.sizes[1], n_parameters(lanes.net)
    if engine == "products":
        return 8 * (6 * n + length * (8 * products.ROWS + p * (p + 30)))
    lane = (0 if lanes.shares_x else 2 * n * d) + 4 * n * k + 4 * p
    if engine in ("queue", "side_by_side"):  # a lane's own products with its weights
        lane += n * (d * k + k * k) + 3 * p * p
    return 8 * length * lane


def _table(lanes: Lanes, device: jax.Device) -> Table:
    """The shared `x` on a device, in float64 and in float32."""
    with jax.enable_x64(True), jax.default_device(device):
        x = np.asarray(lanes.x)
        check.finite("x", x)
        return Table(placed(x, np.dtype(np.float64)), placed(x, np.dtype(np.float32)))


def _solve(
    lanes: Lanes, settings: Settings, engine: str, ids: np.ndarray, table: Table | None
) -> Iterator[tuple[np.ndarray, Found]]:
    flat, tol, most = ids.reshape(-1), settings.tol, settings.max_steps
    if table is None:
        table = Table(jnp.asarray(lanes.take("x", flat), float), None)
    if engine == "products":
        yield from engines.together(lanes, ids, table, tol, most)
    elif engine == "each":
        yield flat, engines.each(engines.stacked(lanes, flat, table, tol), most, settings.solver, ids.shape[1] > 1)
    else:
        yield flat, engines.small(engines.stacked(lanes, flat, table, tol), most, engine)


def _blank(m: int, like: Found) -> Found:
    arrays: list[Any] = [np.zeros((m, *field.shape[1:]), field.dtype) for field in like[:7]]
    return Found._make([*arrays, {}, 0])


def _put(whole: Found, ids: np.ndarray, found: Found) -> Found:
    for there, here in zip(whole[:7], found[:7]):
        there[ids] = here
    whole.directions.update({int(ids[i]): direction for i, direction in found.directions.items()})
    return whole._replace(computed=whole.computed + found.computed)
