"""The libraries people fit with, each set up as its documentation says, on the same cost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import numpy as np

from benchmarks.fit_data import Problem

# Coefficients (d + 1, k), the intercept last, at a tolerance.
Solve = Callable[[Problem, float], np.ndarray]
MOST = 10_000


def _stacked(weights: np.ndarray, intercept: np.ndarray) -> np.ndarray:
    return np.concatenate([np.atleast_2d(weights).T, np.atleast_1d(intercept)[None]])


def sklearn(solver: str, problem: Problem, tolerance: float) -> np.ndarray:
    """scikit-learn's LogisticRegression; C = 1 / (n λ)."""
    from sklearn.linear_model import LogisticRegression

    n = len(problem.y)
    strength, ratio = (problem.l1, 1.0) if problem.l1 else (problem.l2, 0.0)
    model = LogisticRegression(C=1 / (n * strength), l1_ratio=ratio, solver=solver, tol=tolerance, max_iter=MOST)
    if solver == "liblinear":  # it penalises the intercept, less the more it is scaled
        model.set_params(intercept_scaling=1e5, max_iter=1000)
    model.fit(problem.x, problem.y)
    return _stacked(model.coef_, model.intercept_)


def glum(problem: Problem, tolerance: float) -> np.ndarray:
    """glum's GeneralizedLinearRegressor, binomial."""
    from glum import GeneralizedLinearRegressor

    strength = problem.l1 + problem.l2
    model = GeneralizedLinearRegressor(
        family="binomial", alpha=strength, l1_ratio=problem.l1 / strength, gradient_tol=tolerance, max_iter=MOST
    )
    model.fit(problem.x, problem.y)
    return _stacked(model.coef_, model.intercept_)


def skglm(problem: Problem, tolerance: float) -> np.ndarray:
    """skglm's SparseLogisticRegression: working sets and coordinate descent."""
    from skglm import SparseLogisticRegression

    model = SparseLogisticRegression(alpha=problem.l1, tol=tolerance, max_iter=MOST, max_epochs=MOST)
    model.fit(np.asfortranarray(problem.x), problem.y)
    return _stacked(model.coef_, model.intercept_)


def optax_lbfgs(problem: Problem, tolerance: float) -> np.ndarray:
    """optax.lbfgs with its own line search on autodiff, in float64, one jitted loop."""
    import jax

    with jax.enable_x64(True):
        return np.asarray(_optax_loop()(problem.x, problem.y, problem.l2, tolerance))


def _optax_loop():
    global _compiled  # noqa: PLW0603
    if _compiled is None:
        import jax
        import jax.numpy as jnp
        import optax

        @jax.jit
        def loop(x, y, l2, tolerance):
            def cost(theta):
                eta = x @ theta[:-1] + theta[-1]
                return (jax.nn.softplus(eta) - y * eta).mean() + l2 / 2 * (theta[:-1] ** 2).sum()

            solver = optax.lbfgs()
            value_and_grad = optax.value_and_grad_from_state(cost)

            def step(carry):
                theta, state, count, _ = carry
                value, grad = value_and_grad(theta, state=state)
                updates, state = solver.update(grad, state, theta, value=value, grad=grad, value_fn=cost)
                return optax.apply_updates(theta, updates), state, count + 1, jnp.abs(grad).max()

            theta = jnp.zeros(x.shape[1] + 1, x.dtype)
            first = (theta, solver.init(theta), 0, jnp.inf * theta[0].astype(x.dtype) + jnp.inf)
            return jax.lax.while_loop(lambda c: ~(c[3] <= tolerance) & (c[2] < MOST), step, first)[0][:, None]

        _compiled = loop
    return _compiled


_compiled: Callable | None = None


def _installed(peers: dict[str, tuple[str, Solve]]) -> dict[str, Solve]:
    return {name: solve for name, (package, solve) in peers.items() if find_spec(package)}


def _sklearn(*solvers: str) -> dict[str, tuple[str, Solve]]:
    return {f"scikit-learn {solver}": ("sklearn", partial(sklearn, solver)) for solver in solvers}


SMOOTH = _installed(
    {
        **_sklearn("lbfgs", "newton-cholesky", "newton-cg"),
        "glum": ("glum", glum),
        "optax.lbfgs, autodiff": ("optax", optax_lbfgs),
    }
)
# newton-cholesky is not for thousands of coefficients, as its documentation says.
SOFTMAX = _installed(_sklearn("lbfgs", "newton-cg"))
_COORDINATES: dict[str, tuple[str, Solve]] = {"glum": ("glum", glum), "skglm": ("skglm", skglm)}
# Not saga: it takes minutes where these take a second; nor liblinear on wide data.
SPARSE = _installed({**_sklearn("liblinear"), **_COORDINATES})
WIDE = _installed(_COORDINATES)
