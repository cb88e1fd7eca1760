"""`fit`: data enter, and a solution leaves."""

from __future__ import annotations

import jax
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from lr_nn import check
from lr_nn.admission import check_batch
from lr_nn.data import Rows
from lr_nn.fitting.batches import check_targets
from lr_nn.fitting.deep import stationary
from lr_nn.fitting.files import admit_rows, fits
from lr_nn.fitting.opening import of_arrays
from lr_nn.fitting.problem import posed
from lr_nn.fitting.promises import check_arguments, has_bound
from lr_nn.fitting.search import solved
from lr_nn.fitting.settings import DEFAULT, Settings
from lr_nn.fitting.shards import parts_of
from lr_nn.fitting.source import Source
from lr_nn.fitting.threads import one_thread
from lr_nn.network import Network, check_params
from lr_nn.penalties import Penalty
from lr_nn.trees import on_automatic_mesh, without_context_mesh
from lr_nn.types import Batch, Layer, Params, Solution

__all__ = ["fit", "fit_own_rows"]


@without_context_mesh
def fit(
    net: Network,
    data: Batch | Rows,
    *,
    penalty: Penalty | None = None,
    start: Params | None = None,
    tol: float = 1e-12,
    max_steps: int = 100,
    solver: str = "auto",
    dtype: DTypeLike | None = None,
    memory: int = 2**28,
    settings: Settings = DEFAULT,
) -> Solution:
    """argmin J = Σ s_i ℓ_i / Σ s_i + penalty, with a bound on J - J*.

    net: a one-layer network with a squared-error, bernoulli, categorical or poisson loss; for others see below.
    data: Batch(x, y, weight, offset) with x (n, d), y as the loss asks, weight (n,), offset (n,) or (n, k); or `Rows`
    of files. Arrays in memory are read where they are; of arrays that lie over the devices of a mesh each process
    reads its own part. penalty: strengths for all weights, or for each coefficient. start: parameters to begin from,
    where their cost is below that of the best constant model. solver: auto, newton, newton_cg, lbfgs, closed_form
    (least squares) or proximal (an L1 penalty). The work is done in float64, whatever JAX is set to; parameters are
    returned in `dtype`, and the certificate holds for them.

    Converged means certificate ≤ tol · J₀ for every solver alike, J₀ the cost of the best constant model given the
    offset, above the smallest that the targets allow: zero but for poisson, whose cost leaves out log y!, and soft
    labels. The last step of a smooth fit is a full one from where that was met already. Of softmax regression without
    a penalty the solution whose coefficients sum to zero over classes is returned; of least squares with more columns
    than rows the one of least norm where columns are centred.

    Rows of a file (`lr_nn.Rows`) are read in blocks, a dozen times or less, in a working set of `memory` bytes; if all
    of them have room there, they are read once.

    The cost of a deep network is not convex, and another loss may promise too little for a bound: it must be convex
    and either bound its `concordance` or have an l2 penalty. Other fits go from `start` (else `init` with a fixed key)
    to a stationary point, by lbfgs, or by newton_cg: Newton by conjugate gradients on the Gauss-Newton matrix. Such a
    fit is converged where no entry of ∇J is above √tol · J at the start; its certificate is ∞, and the message says
    so.

    Numerical failure is a `status`: max_steps, separated (the likelihood has no maximum; `direction` and the message
    name the coefficients concerned), rank_deficient (an optimum, but not the only one), non_finite. Raises ValueError
    or TypeError for data that do not fit the network, and TypeError under `jit`.

    >>> import lr_nn, numpy as np
    >>> x, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 1, 0, 1])
    >>> solution = lr_nn.fit(lr_nn.logistic_regression(1), lr_nn.Batch(x, y))
    >>> print(solution.status, solution.coefficients.round(6).ravel())
    converged [ 0.908184 -1.362276]
    """
    check.on_host("fit", (data, start, penalty, tol), "lr_nn.many.solve, and for derivatives lr_nn.implicit.fit")
    check_arguments(net, penalty, solver, tol, dtype)
    max_steps = check.positive_integer("max_steps", max_steps)
    penalty = Penalty() if penalty is None else penalty
    start = None if start is None else _admitted(net, start)
    bounded = has_bound(net, penalty)
    with jax.enable_x64(True), one_thread():
        if isinstance(data, Rows):
            memory = check.positive_integer("memory", memory)
            if not _holds(net, data, bounded, memory):
                source = admit_rows(net, data, memory, settings)
                return _solved(net, source, penalty, start, tol, max_steps, solver, dtype, settings)
            data = data.read(0, len(data))
            check_targets(data)
        if not isinstance(data, Batch):
            raise TypeError(f"data must be a Batch(x, y) or Rows; got {type(data).__name__}")
        check_batch(data)
        if not bounded:
            return stationary(net, on_automatic_mesh(data), penalty, start, tol, max_steps, solver, dtype, settings)
        parts, shared = parts_of(data)
        source = of_arrays(net, parts, settings, shared)
        return _solved(net, source, penalty, start, tol, max_steps, solver, dtype, settings)


def fit_own_rows(
    net: Network,
    rows: Rows,
    penalty: Penalty | None,
    start: Params | None,
    tol: float,
    max_steps: int,
    solver: str,
    dtype: DTypeLike | None,
    memory: int,
) -> Solution | None:
    """`fit` of the rows of all processes, each of which reads its own from files; None where memory holds them."""
    check_arguments(net, penalty, solver, tol, dtype)
    penalty = Penalty() if penalty is None else penalty
    if _holds(net, rows, has_bound(net, penalty), memory):
        return None
    start = None if start is None else _admitted(net, start)
    with jax.enable_x64(True), one_thread():
        source = admit_rows(net, rows, memory, DEFAULT, shared=jax.process_count() > 1)
        return _solved(net, source, penalty, start, tol, max_steps, solver, dtype, DEFAULT)


def _holds(net: Network, rows: Rows, bounded: bool, memory: int) -> bool:
    """Does memory hold the rows? ValueError for rows that the network cannot be fitted to."""
    if len(rows.features) != net.sizes[0]:
        raise ValueError(f"the network takes {net.sizes[0]} features; the rows have {len(rows.features)}")
    if not bounded:
        raise ValueError("fit of rows is for one layer and a convex cost; use lr_nn.train for deep networks")
    return fits(rows, net, memory)


def _solved(
    net: Network,
    source: Source,
    penalty: Penalty,
    start: Params | None,
    tol: float,
    max_steps: int,
    solver: str,
    dtype: DTypeLike | None,
    settings: Settings,
) -> Solution:
    problem = posed(net, source, penalty, settings)
    return solved(problem, penalty, start, tol, max_steps, solver, np.dtype(dtype or np.float64), settings)


def _admitted(net: Network, start: Params) -> Params:
    if isinstance(start, tuple) and all(isinstance(layer, Layer) for layer in start):  # of lists, too
        start = tuple(Layer(*map(_leaf, ("start.w", "start.b"), layer)) for layer in start)
    check_params(net, start)
    return start


def _leaf(name: str, leaf: ArrayLike | None):
    if leaf is None:
        return None
    leaf = check.numeric(name, leaf)
    check.finite(name, leaf)
    return leaf
