"""Logistic regression with Jeffreys' prior: finite where classes separate, and of less bias elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np

from lr_nn import check, losses
from lr_nn.inference import admission
from lr_nn.inference.fitted import Fitted
from lr_nn.inference.refits import likelihood, refit
from lr_nn.network import Network
from lr_nn.penalties import Penalty
from lr_nn.types import Batch, Layer, Solution, Status

__all__ = ["firth"]


def firth(
    net: Network,
    data: Batch,
    *,
    tol: float = 1e-8,
    max_steps: int = 100,
) -> Solution:
    """argmax of log-likelihood + ½ log |F|, F the Fisher information: Firth's bias-reduced logistic regression.

    It solves x̃ᵀ (y - p + h (½ - p)) = 0, h the leverages, and has a finite solution for separated data, too.

    net: one layer, a bernoulli loss and one output. data: Batch(x, y, weight, offset) with x (n, d), and y, weight and
    offset (n,). tol: a bound on the distance of the last iterate but one from the solution, in standard errors. The
    `cost` is that of the penalised likelihood, a mean over examples, and there is no certificate. `summary` takes
    standard errors from F at the solution, and `profile_intervals` profiles the penalised likelihood; for separated
    data trust the latter.

    >>> import lr_nn, numpy as np
    >>> data = lr_nn.Batch(np.array([[0.0], [0.0], [1.0], [1.0]]), np.array([0, 0, 1, 1]))
    >>> print(firth(lr_nn.logistic_regression(1), data).coefficients.round(6).ravel())
    [ 3.218876 -1.609438]

    Raises ValueError for other networks and for data that do not fit. Sources: Firth (1993); Heinze & Schemper (2002).
    """
    admission.check_model(net)
    if net.loss != losses.bernoulli or net.sizes[1] != 1:
        raise ValueError(
            f"firth is for one output with a bernoulli loss; got {net.sizes[1]} outputs and {net.loss.name}"
        )
    if not 0 < tol < 1:
        raise ValueError(f"tol must be between 0 and 1, in standard errors; got {tol}")
    max_steps = check.positive_integer("max_steps", max_steps)
    rows, targets, counts, shift = admission.admit_data(net, data)
    theta: Any = np.zeros((net.sizes[0] + net.bias, 1))
    if net.bias and shift is not None:
        theta[-1] = -(counts @ shift) / counts.sum()
    fitted = Fitted(net, rows, targets, counts, shift, theta, np.zeros(()), None, jeffreys=True)
    problem = likelihood(fitted, counts[None], None)
    found = refit(problem, theta[None], tol, max_steps)
    status, advice = Status.converged, "Jeffreys' prior"
    if not np.isfinite(found.cost[0]):
        status, advice = Status.rank_deficient, "columns say the same, and the information has no inverse: drop some"
    elif not found.bound[0] <= tol**2:
        status = Status.max_steps
        advice = f"the last step is above {tol:.1e} standard errors: allow more steps, or raise tol"
    theta = problem.centre(found.theta, -1)[0]
    layer = Layer(theta[:-1], theta[-1]) if net.bias else Layer(theta, None)
    return Solution(
        params=(layer,),
        status=status,
        steps=int(found.steps[0]),
        cost=float(found.cost[0]),
        gradient_norm=float(found.gradient_norm[0]),
        certificate=float("inf"),
        penalty=Penalty(),
        solver="firth",
        message=f"firth: {advice}",
    )
