"""Lanes to their optima: together by passes, or each by the solvers of `fit`; and what they found, in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import Any

import jax
import numpy as np

from lr_nn import check
from lr_nn.fitting.promises import has_certificate
from lr_nn.fitting.settings import DEFAULT
from lr_nn.fitting.source import threads
from lr_nn.many import mapped
from lr_nn.many.descent import Ends
from lr_nn.many.directions import FEW_PARAMETERS, PAIRS, has_own_hessians
from lr_nn.many.found import Found
from lr_nn.many.inputs import OwnInputs, SharedInputs
from lr_nn.many.lanes import Lanes
from lr_nn.many.objective import Objective
from lr_nn.many.problem import Problem, make_problem, shared_inputs, targets_of
from lr_nn.many.rows import pairs_at_once
from lr_nn.many.search import search
from lr_nn.many.settings import Progress, Settings
from lr_nn.many.single import solve_chain
from lr_nn.types import Status

__all__ = ["SCHEDULES", "run_lanes"]

SCHEDULES = ("together", "compiled", "each")
# Entries of a shared x below which groups of lanes go to the cores, and above which chunks of rows do.
SMALL_X = 2**20
# Entries of the own x of the lanes of a group: 200 lanes of 500 x 21, which takes the least time (measured).
GROUP_ENTRIES = 2**21
# Lanes of a shared x in one group: at most, and at least where groups go to the cores.
MOST_LANES, LEAST_LANES = 1_024, 32
# Entries of the own x of small lanes from which a second of compilation is worth it.
COMPILED_ENTRIES = 2**24


def run_lanes(lanes: Lanes, settings: Settings) -> tuple[Found, str]:
    """What all lanes found, and by which schedule."""
    found = Found.empty(lanes.net, lanes.m)
    schedule = _schedule(lanes, settings)
    done = np.zeros(lanes.m, bool)

    def report(ids: np.ndarray) -> None:
        done[ids] = True
        if settings.progress is not None:
            failed = int((found.status[done] != Status.converged).sum())
            settings.progress(Progress(int(done.sum()), lanes.m, failed))

    unsolved = np.arange(lanes.m)
    if schedule != "each":
        tasks, threaded = (_tasks if schedule == "together" else _blocks)(lanes, settings, found)
        for ids in _on_cores(tasks, 1 if threaded else threads()):
            good = found.status[ids] == Status.converged
            report(ids[good])
        unsolved = np.flatnonzero(~done)
    chains = [partial(solve_chain, lanes, settings, found, ids) for ids in _chains(lanes, unsolved)]
    for ids in _on_cores(chains, threads()):
        report(ids)
    return found, schedule


def _schedule(lanes: Lanes, settings: Settings) -> str:
    """The schedule that was asked for, or one by the number of columns, the kind of penalty and the number of lanes."""
    if not has_certificate(lanes.net) or settings.solver != "auto":
        if settings.schedule not in ("auto", "each"):
            what = "a network without a certificate" if settings.solver == "auto" else f"solver={settings.solver!r}"
            raise ValueError(f"{what} goes with schedule='each'; got {settings.schedule!r}")
        return "each"
    if settings.schedule != "auto":
        return settings.schedule
    q, k = lanes.net.sizes[0] + lanes.net.bias, lanes.net.sizes[1]
    sparse = bool((np.asarray(lanes.penalty.l1) > 0).any())
    small = has_own_hessians(q, k, lanes.net.loss.couples_outputs)
    many = lanes.m * lanes.n * q >= COMPILED_ENTRIES or mapped.is_on_accelerator(lanes.x)
    if small and many and not lanes.shares_x and lanes.start is None and np.dtype(settings.dtype or float) == float:
        return "compiled"
    return "together" if small or (q <= DEFAULT.dense and not sparse) else "each"


def _on_cores(tasks: Sequence[Callable[[], np.ndarray]], workers: int) -> Iterator[np.ndarray]:
    """What the tasks return, as they end."""
    with ThreadPoolExecutor(workers) as executor:
        waiting = [executor.submit(task) for task in tasks]
        try:
            for future in as_completed(waiting):
                yield future.result()
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise


def _tasks(lanes: Lanes, settings: Settings, found: Found) -> tuple[list[Callable[[], np.ndarray]], bool]:
    """Lanes that are solved at once, each group one task; and whether a task uses all cores."""
    net, m = lanes.net, lanes.m
    q, k = net.sizes[0] + net.bias, net.sizes[1]
    threaded = lanes.shares_x and lanes.n * q > SMALL_X
    s = q * k if net.loss.couples_outputs and q * k <= FEW_PARAMETERS else q
    blocks = 1 if net.loss.couples_outputs else k
    each = 8 * (q * k * (2 * PAIRS + 12) + 2 * blocks * s * s + (0 if lanes.shares_x else 2 * lanes.n * q))
    workers = 1 if threaded else threads()
    if settings.memory < workers * each:
        raise ValueError(
            f"a lane needs {each:,} bytes, and {workers} are solved at a time; "
            f"memory={settings.memory:,} does not hold them: give it at least {workers * each:,}"
        )
    most = min(settings.memory // (workers * each), MOST_LANES)
    if not lanes.shares_x:
        most = min(most, max(1, GROUP_ENTRIES // (lanes.n * q)))
    elif not threaded:
        most = min(most, max(LEAST_LANES, -(-m // threads())))
    tasks: list[Callable[[], np.ndarray]] = []
    shared = _shared_inputs(lanes) if lanes.shares_x else None
    for pattern in _patterns(lanes):
        parts = -(-len(pattern) // most)
        for ids in np.array_split(pattern, parts):
            tasks.append(partial(_together, lanes, settings, found, ids, shared, threaded))
    return tasks, threaded


def _blocks(lanes: Lanes, settings: Settings, found: Found) -> tuple[list[Callable[[], np.ndarray]], bool]:
    """Blocks of lanes with an x of their own for the compiled fit."""
    if lanes.shares_x or lanes.start is not None or np.dtype(settings.dtype or float) != np.float64:
        raise ValueError("schedule='compiled' is for lanes of an x of their own, without a start, in float64")

    def block(ids: np.ndarray) -> np.ndarray:
        with jax.enable_x64(True):
            found_here: Any = mapped.solve_block(lanes, settings, ids)
        ends, cost, gradient_norm = found_here
        good = ends.status == Status.converged
        own, (layer,) = ids[good], ends.params
        theta = layer.w if layer.b is None else np.concatenate([layer.w, layer.b[:, None]], axis=1)
        columns = {"steps": ends.steps, "certificate": ends.certificate, "cost": cost, "gradient_norm": gradient_norm}
        found.store_converged(own, theta[good], **{name: column[good] for name, column in columns.items()})
        return ids

    size = mapped.LANES
    return [partial(block, part[i : i + size]) for part in _patterns(lanes) for i in range(0, len(part), size)], False


def _patterns(lanes: Lanes) -> list[np.ndarray]:
    """The lanes whose coefficients have the same kinds of penalties."""
    l1, l2 = (np.broadcast_to(np.asarray(s) > 0, lanes.m) for s in lanes.take("penalty", np.arange(lanes.m)))
    kind = 2 * l1 + l2
    return [np.flatnonzero(kind == each) for each in np.unique(kind)]


def _shared_inputs(lanes: Lanes) -> tuple[SharedInputs, np.ndarray, np.ndarray | None]:
    """The x of all lanes, less the rows that count in none; about the mean of its squares; and which rows these are."""
    x, counted = np.asarray(lanes.x), None
    weight = None
    if lanes.weight is not None:
        weight = np.asarray(lanes.weight, float).max(axis=0)
        if not (weight > 0).all():
            counted = weight > 0
            x, weight = x[counted], weight[counted]
    check.finite("x", x)
    return *shared_inputs(lanes, x, weight), counted


def _together(
    lanes: Lanes,
    settings: Settings,
    found: Found,
    ids: np.ndarray,
    shared: tuple[SharedInputs, np.ndarray, np.ndarray | None] | None,
    threaded: bool,
) -> np.ndarray:
    """Solve the lanes `ids` by passes over all of them, and return them; certified ones are converged in `found`."""
    with jax.enable_x64(True), np.errstate(all="ignore"):
        problem = _problem(lanes, settings, ids, shared, threaded)
        objective = problem.objective
        start = None if lanes.start is None else _inward(lanes, ids, objective)
        ends = search(problem, start, settings.tol, settings.max_steps)
        theta, ends = _rounded(lanes, objective, ends, np.dtype(settings.dtype or np.float64))
    good = ends.bound <= objective.ceiling
    columns = {"steps": ends.steps, "certificate": ends.bound, "cost": ends.cost, "gradient_norm": ends.gradient_norm}
    found.store_converged(ids[good], theta[good], **{name: column[good] for name, column in columns.items()})
    return ids


def _problem(lanes: Lanes, settings: Settings, ids: np.ndarray, shared: Any, threaded: bool) -> Problem:
    if shared is not None:
        inputs, deviation, counted = shared
        targets = targets_of(lanes, ids, counted)
        return make_problem(lanes, ids, inputs, targets, deviation, settings.tol, threaded)
    targets = targets_of(lanes, ids)
    weight = targets.weight[targets.weight_of]
    contiguous = len(ids) == ids[-1] - ids[0] + 1
    x = np.asarray(lanes.x)[slice(ids[0], ids[-1] + 1) if contiguous else ids]
    pairs = pairs_at_once(lanes.net.loss, lanes.net.sizes[1])
    inputs = OwnInputs.of(x, weight, lanes.net.bias, lanes.net.bias, pairs)
    share = weight / weight.sum(axis=1, keepdims=True)
    deviation = (inputs.x**2 @ share[..., None])[..., 0]
    return make_problem(lanes, ids, inputs, targets, deviation, settings.tol, threaded)


def _outward(lanes: Lanes, objective: Objective, theta: np.ndarray) -> np.ndarray:
    """θ of columns as they came; coefficients of classes sum to zero where a number common to them changes nothing."""
    found = np.array(theta)
    if lanes.net.bias:
        found[:, -1] -= (np.atleast_2d(objective.rows.inputs.mean)[:, None] @ theta[:, :-1])[:, 0]
    return objective.centred(found)


def _inward(lanes: Lanes, ids: np.ndarray, objective: Objective) -> np.ndarray:
    """The start of lanes as θ of centred columns."""
    (layer,) = lanes.take("start", ids)
    w = np.broadcast_to(np.asarray(layer.w, float), (len(ids), *lanes.net.sizes))
    if layer.b is None:
        return w
    b = np.asarray(layer.b, float) + (np.atleast_2d(objective.rows.inputs.mean)[:, None] @ w)[:, 0]
    return np.concatenate([w, b[:, None]], axis=1)


def _rounded(lanes: Lanes, objective: Objective, ends: Ends, dtype: np.dtype) -> tuple[np.ndarray, Ends]:
    """θ of columns as they came, as `dtype` holds it, and the ends certified there."""
    raw = _outward(lanes, objective, ends.theta).astype(dtype).astype(float)
    if dtype == np.float64:
        return raw, ends
    theta = np.array(raw)
    if lanes.net.bias:
        theta[:, -1] += (np.atleast_2d(objective.rows.inputs.mean)[:, None] @ raw[:, :-1])[:, 0]
    point = objective.at(theta, closing=True)
    bound = np.where(np.isfinite(ends.bound), objective.certificate(point, DEFAULT), np.inf)
    gradient_norm = np.abs(objective.subgradient(point)).max(axis=(1, 2))
    return raw, Ends(theta, objective.composite(point), gradient_norm, bound, ends.steps)


def _chains(lanes: Lanes, ids: np.ndarray) -> list[np.ndarray]:
    """Lanes with the same data, from strong penalties to weak, so that each may begin where the one before ended."""
    if not len(ids) or not has_certificate(lanes.net):
        return [np.array([lane]) for lane in ids]
    l1, l2 = (np.broadcast_to(np.asarray(s, float), lanes.m) for s in lanes.take("penalty", np.arange(lanes.m)))
    names = [name for name in ("y", "weight", "offset") if getattr(lanes, name) is not None]
    which = np.stack([np.zeros(len(ids), int), *(lanes.entry(name, ids) for name in names)], axis=1)
    dataset = np.unique(which, axis=0, return_inverse=True)[1].reshape(-1) if lanes.shares_x else np.arange(len(ids))
    order = np.lexsort((-(l1 + l2)[ids], dataset))
    edges = np.flatnonzero(np.diff(dataset[order])) + 1
    return [ids[part] for part in np.split(order, edges)]
