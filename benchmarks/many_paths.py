"""L1 paths of 50 penalties beside the paths of other libraries."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec

import numpy as np

import lr_nn
from benchmarks import many_peers
from benchmarks.fit_data import census, drawn, largest_l1
from benchmarks.many_measure import Rows, Runs, costs, fastest, loosest, measured
from lr_nn import Batch, penalties

PATH_GAP = 1e-8


def paths(rounds: int, small: bool) -> Rows:
    """L1 paths of 50 penalties on the census data, from what leaves nothing to a hundredth of it."""
    x, y = census()
    x, y = (x[:2000], y[:2000]) if small else (x, y)
    return _path(f"adult {len(x):,} x {x.shape[1]}", x, y, True, rounds, {"skglm": 1e-5, "glum": 1e-4})


def wide_paths(bias: bool, rounds: int, small: bool) -> Rows:
    """The same on more columns than rows; celer has no intercept."""
    n, d = (200, 500) if small else (2_000, 5_000)
    case = f"{n:,} x {d:,}" + ("" if bias else ", no intercept")
    return _path(case, *drawn(n, d, active=30), bias, rounds, {"skglm": 1e-6, "glum": 1e-4, "celer": 1e-5})


def _path(case: str, x: np.ndarray, y: np.ndarray, bias: bool, rounds: int, first: dict[str, float]) -> Rows:
    top = largest_l1(x, y) if bias else float(np.abs(x.T @ (y - 0.5)).max() / len(y))
    strengths = top * np.geomspace(1, 1e-2, 50)
    net = lr_nn.Network((x.shape[1], 1), (), lr_nn.losses.bernoulli, bias=bias)

    def cost(found: np.ndarray) -> np.ndarray:
        share = np.full(len(y), 1 / len(y))
        return costs(x, y, share, 0 * strengths, found) + strengths * np.abs(found[:, :-1]).sum(axis=1)

    def ours(tolerance: float) -> np.ndarray:
        path = lr_nn.regularization_path(net, Batch(x, y), penalty=penalties.l1(strengths), tol=tolerance)
        found = path.coefficients[:, :, 0]
        return found if bias else np.concatenate([found, np.zeros((len(found), 1))], axis=1)

    best = cost(ours(1e-12))
    tolerance = PATH_GAP / np.log(2)
    assert (cost(ours(tolerance)) - best <= PATH_GAP).all(), "ours misses the gap"
    runs: Runs = {"lr_nn.regularization_path": partial(ours, tolerance)}
    tolerances: dict[str, float | None] = {}
    peers: dict[str, many_peers.Path] = (
        {"skglm": many_peers.skglm, "glum": many_peers.glum} if bias else {"celer": many_peers.celer}
    )
    for name, peer in peers.items():
        if not find_spec(name):
            continue

        def enough(found: np.ndarray) -> bool:
            return bool((cost(found) - best <= PATH_GAP).all())

        tolerance = loosest(partial(peer, x, y, strengths), enough, first[name])  # looser ones are known to fail
        tolerances[name] = tolerance
        if tolerance is not None:
            solve, threads = fastest(partial(peer, x, y, strengths, tolerance))
            runs[f"{name}, warm starts, {threads} thread{'s' * (threads > 1)}"] = solve
    rounds = max(3, rounds // 7)
    return measured(case, runs, "lr_nn.regularization_path", rounds, gap=PATH_GAP, tolerances=tolerances)
