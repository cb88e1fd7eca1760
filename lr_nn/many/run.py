"""Lanes to their engine: which one, how many at a time, on which core or device; and what they found, in one place."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from queue import SimpleQueue
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn import check
from lr_nn.many import engines, products, schedule
from lr_nn.many.engines import Found, Table
from lr_nn.many.lanes import Lanes
from lr_nn.many.problem import placed
from lr_nn.many.settings import Progress, Settings
from lr_nn.network import n_parameters
from lr_nn.types import Status

__all__ = ["ENGINES", "choose", "run_lanes"]

ENGINES = (*schedule.ORDERS, "products", "each")
# Lanes are small up to so many parameters, and so many numbers.
FEW, NUMBERS = 100, 2**20
# Each worker has so many turns, if there are lanes enough: progress is seen, and nobody waits long for the last.
TURNS = 8


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
    shared = lanes.shares_x and engine != "each"
    tables = {device: _table(lanes, device) for device in dict.fromkeys(workers)} if shared else {}
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
    flat = ids.reshape(-1)
    if engine == "each":
        yield flat, engines.each(lanes, flat, settings, ids.shape[1] > 1)
        return
    if table is None:
        table = Table(jnp.asarray(lanes.take("x", flat), float), None)
    if engine == "products":
        yield from engines.together(lanes, ids, table, settings)
    else:
        yield flat, engines.small(lanes, flat, table, settings, engine)


def _blank(m: int, like: Found) -> Found:
    arrays: list[Any] = [np.zeros((m, *field.shape[1:]), field.dtype) for field in like[:7]]
    return Found._make([*arrays, {}, 0])


def _put(whole: Found, ids: np.ndarray, found: Found) -> Found:
    for there, here in zip(whole[:7], found[:7]):
        there[ids] = here
    whole.directions.update({int(ids[i]): direction for i, direction in found.directions.items()})
    return whole._replace(computed=whole.computed + found.computed)
