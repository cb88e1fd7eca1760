"""A fit of rows that are larger than memory: what memory allows, the sample it begins on, and what it tells."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from lr_nn.data import Arrays, Rows, blocks
from lr_nn.network import Network, n_parameters
from lr_nn.penalties import Penalty
from lr_nn.solvers import passes, preconditioner, problem, run, sample, separation, stream, verdict
from lr_nn.solvers.one_layer import OneLayer
from lr_nn.solvers.passes import Ask, Source
from lr_nn.solvers.proximal import WHOLE
from lr_nn.types import Batch, Params, Solution

__all__ = ["fits", "n_products", "solve"]

# The share of memory of the rows that are read, of the sample, and of matrices; what a fit in memory takes of its rows.
READ, SAMPLED, MATRICES, IN_MEMORY = 8, 8, 4, 4
# Matrices at once of the size of the Hessian; rows of the least block; products a number for the Hessian, blocks of it.
SPECTRA, LEAST, PRODUCTS, SOME = 8, 64, 2, 8
# A sample has pieces of so many places. Few parameters of a sample are found by Newton's method.
PIECES, FEW, STEPS, NEAR = 256, 100, 100, 1e-7
# A step that shortens the decrement less asks for a new Hessian, by solver.
WORN = {"auto": 0.05, "newton": 0.0, "lbfgs": np.inf}


def fits(rows: Rows, net: Network, memory: int) -> bool:
    """Is there room for all rows, and a fit of them?"""
    return IN_MEMORY * 8 * len(rows) * (sum(net.sizes) + 2) <= memory


def solve(
    rows: Rows,
    net: Network,
    penalty: Penalty,
    start: Params | None,
    tol: float,
    max_steps: int,
    solver: str,
    dtype: np.dtype,
    memory: int,
) -> Solution:
    """A certified fit in a working set of `memory` bytes."""
    p, every = n_parameters(net), 1
    source = passes.source(rows, net, memory / READ)
    dense = p <= WHOLE and 8 * SPECTRA * p * p <= memory / MATRICES
    _check_room(source, dense, memory)
    if dense:
        products = n_products(net)
        every = max(1, min(round(products / PRODUCTS), len(rows) // source.size // SOME))
    few, unit = _sample(source, int(memory / SAMPLED))
    source = Source(rows, net, source.size, source.part, source.length, unit)
    with np.errstate(over="ignore"):
        narrow = bool(np.isfinite(np.asarray(few.x, np.float32)).all())
    admitted = problem.admit(net, few, penalty, np.dtype(np.float32 if narrow else np.float64))
    shell = admitted.objective
    exact = replace(shell, l2=jnp.asarray(penalty.l2, jnp.float64), l1=jnp.zeros(()))
    cost = stream.Cost(source, exact, dtype, every if dense else 0, WORN[solver], narrow)
    if start is None and not narrow:
        begun, met = admitted.constant, False
    elif start is None:
        begun, met = _begun(shell, admitted.constant, admitted.excess)
    else:
        begun, met = shell.join(jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), start[0])), narrow
    theta = np.asarray(shell.centred(begun), np.float64)
    unknown = not met or not bool(sample.known(shell).all())
    name = "newton" if solver == "newton" else "lbfgs"

    def recession(free: np.ndarray) -> np.ndarray | None:
        return _recession(source, shell, free)

    point, model = stream.begin(cost, theta, unknown)
    begin = _model(shell, point.theta, dense, cost) if model is None else model
    found = stream.search(cost, point, begin, tol, max_steps)
    why = f"{p} parameters and {len(rows)} rows, {cost.passes} passes of blocks of {source.size}"
    return verdict.solution(found, penalty, name, why, cost.ceiling, dtype, max_steps, recession)


def n_products(net: Network) -> float:
    """Products for the Hessian a number of x."""
    d, k = net.sizes
    return (d + 1) ** 2 * k * k / d


def _check_room(source: Source, dense: bool, memory: int) -> None:
    d, k = source.net.sizes
    p, q = n_parameters(source.net), d + 1
    block = 8 * (d + k + 2) * min(LEAST, source.length)
    factors = 8 * SPECTRA * p * p if dense else 16 * min(k * q * q, max(q * q, preconditioner.MOST))
    needed = READ * block + MATRICES * factors + 8 * 4 * stream.MEMORY * p
    if needed > memory:
        raise ValueError(
            f"memory must hold two blocks of rows and the factors of {p} parameters; got {memory} bytes, "
            f"allow at least {needed}"
        )


def _sample(source: Source, most: int) -> tuple[Batch, float]:
    """Rows of so many bytes from places all over the source, their weights in units of the largest, and that."""
    n, (d, k) = source.length, source.net.sizes
    count = min(n, max(LEAST, most // (4 * (d + k + 2))))
    pieces = max(1, min(PIECES, count // 16))
    each = count // pieces
    found = []
    for start in np.linspace(0, n - each, pieces).astype(int).tolist():
        block = source.rows.read(start, start + each)
        passes.admit(source, block, start)
        found.append(block)
    few = Batch(*(None if a[0] is None else np.concatenate(a) for a in zip(*found)))
    unit = 0.0 if few.weight is None else float(np.max(few.weight))
    if unit == 0:  # of none of them is anything known; they still are rows
        return few._replace(weight=None), 1.0
    return few._replace(weight=np.asarray(few.weight, np.float64) / unit), unit


def _begun(shell: OneLayer, theta: jax.Array, excess: float) -> tuple[jax.Array, bool]:
    """The optimum of the sample, if it has one, else its best constant model."""
    held, near = sample.guarded(shell, shell, theta), NEAR * excess
    if theta.size <= FEW:
        state = run._newton(held, theta, jnp.asarray(near, theta.dtype), jnp.asarray(STEPS))
    else:
        none = preconditioner.identity(held)
        state = run._search(held, held, none, jnp.zeros((), bool), theta, near, near, STEPS)
    met = bool(state.met) and bool(jnp.isfinite(state.point.theta).all())
    return (state.point.theta if met else theta).astype(jnp.float64), met


def _model(shell: OneLayer, theta: np.ndarray, dense: bool, cost: stream.Cost) -> stream.Model:
    """The curvature of the sample at θ."""
    if not dense:
        return run._build(shell, jnp.asarray(theta, jnp.float32), cost.source.length)
    x, y, share = map(np.asarray, (shell.x, shell.y, shell.share))
    rows = Arrays(x, y, share, None if shell.offset is None else np.asarray(shell.offset))
    few = passes.source(rows, shell.net, passes.BLOCK)
    return cost.spectrum({"curvature": few.over(Ask(passes.curvature, (theta,)))[0]}, likely=True)


def _recession(source: Source, shell: OneLayer, free: np.ndarray) -> np.ndarray | None:
    """A direction (q, k), of `free` rows alone, along which no example of the source grows less likely."""
    loss, k = source.net.loss, source.net.sizes[1]

    def prepared(block: Batch) -> tuple[np.ndarray, np.ndarray]:
        counted = np.ones(len(block.x), bool) if block.weight is None else np.asarray(block.weight) > 0
        x = np.asarray(block.x, np.float64)[counted]
        inputs = np.concatenate([x, np.ones((len(x), int(source.net.bias)))], axis=1)[:, free]
        y = loss.encode(np.asarray(block.y)[counted], jnp.zeros((len(x), k)))
        return inputs, np.asarray(y)

    def over() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        with closing(blocks(source.rows, source.size)) as stream:
            yield from map(prepared, stream)

    few = prepared(Batch(np.asarray(shell.x), np.asarray(shell.y)))
    return verdict.spread(separation.over(loss, *few, over), free)
