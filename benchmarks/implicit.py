"""Derivatives of a fit by its data: time and accuracy beside glmax and an unrolled Newton's method, cold and warm.

The quantity is the gradient of Σ_j w_j, of the fitted weights w, by x, y and the offset of every row, in float64.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness
from benchmarks.cold import ROOT
from benchmarks.first_fits import in_a_process, summed_up, timed
from benchmarks.harness import compare, compiled

# Rows, columns, and whether targets are counts.
CASES = {
    "logistic, 1,000 x 20": (1000, 20, False),
    "poisson, 1,000 x 20": (1000, 20, True),
    "logistic, 10,000 x 50": (10_000, 50, False),
}
OURS, UNROLLED = "lr_nn", "Newton unrolled, jax.grad"
NEWTON, IRLS = "glmax, NewtonFitter", "glmax, IRLSFitter"
PEERS = (NEWTON, IRLS, UNROLLED)
TOL, UNROLLED_STEPS = 1e-12, 8
ALONE = "lr_nn, the fit alone"


def data(case: str, small: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x (n, d), y (n,) and offset (n,)."""
    n, d, counts = CASES[case]
    n = 100 if small else n
    rng = np.random.default_rng(0)
    x, offset = rng.standard_normal((n, d)), rng.standard_normal(n) / 4
    eta = x @ (rng.standard_normal(d) / d**0.5) + offset
    y = rng.poisson(np.exp(eta)) if counts else rng.random(n) < 1 / (1 + np.exp(-eta))
    return x, y.astype(float), offset


def weights(case: str, competitor: str) -> Callable[..., jax.Array]:
    """The function of x, y and offset to the fitted weights (d,), without a penalty and with a free bias."""
    _, d, counts = CASES[case]
    if competitor in (OURS, ALONE):
        lr_nn: Any = import_module("lr_nn")
        net = lr_nn.poisson_regression(d) if counts else lr_nn.logistic_regression(d)
        if competitor == ALONE:
            return lambda x, y, offset: lr_nn.many.solve(net, lr_nn.Batch(x, y, None, offset)).params[0].w[:, 0]
        return lambda x, y, offset: lr_nn.implicit.fit(net, lr_nn.Batch(x, y, None, offset))[0].w[:, 0]
    if competitor == UNROLLED:
        return lambda x, y, offset: _newton(_with_ones(x), y, offset, counts)[:-1]
    glmax: Any = import_module("glmax")
    family = glmax.Poisson() if counts else glmax.Binomial()
    fitter = (glmax.NewtonFitter if competitor == NEWTON else glmax.IRLSFitter)(tol=TOL)

    def by_glmax(x: jax.Array, y: jax.Array, offset: jax.Array) -> jax.Array:
        return glmax.fit(family, _with_ones(x), y, offset=offset, fitter=fitter).result.params.beta[:-1]

    return by_glmax


def _with_ones(x: Any) -> jax.Array:
    return jnp.concatenate([x, jnp.ones((len(x), 1), x.dtype)], axis=1)


def _score(
    theta: jax.Array, x: jax.Array, y: jax.Array, offset: jax.Array, counts: bool
) -> tuple[jax.Array, jax.Array]:
    """The mean gradient of the negative log-likelihood, and the variance of every row."""
    eta = x @ theta + offset
    mean = jnp.exp(eta) if counts else jax.nn.sigmoid(eta)
    return x.T @ (mean - y) / len(y), mean if counts else mean * (1 - mean)


def _newton(x: jax.Array, y: jax.Array, offset: jax.Array, counts: bool) -> jax.Array:
    """Newton's method as a user of `jax.numpy` writes it, with a fixed number of steps."""
    theta = jnp.zeros(x.shape[1], x.dtype)
    for _ in range(UNROLLED_STEPS):
        gradient, variance = _score(theta, x, y, offset, counts)
        theta = theta - jnp.linalg.solve(x.T @ (variance[:, None] * x) / len(y), gradient)
    return theta


def gradient(case: str, competitor: str) -> Callable[..., Any]:
    """The gradient of Σ_j w_j by x, y and offset, not compiled."""
    found = weights(case, competitor)
    return found if competitor == ALONE else jax.grad(lambda *at: found(*at).sum(), argnums=(0, 1, 2))


def reference(case: str, at: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """The same gradient by the implicit function theorem, dense: that of -λ·F at θ*, with H λ = e."""
    lr_nn: Any = import_module("lr_nn")
    (x, y, offset), counts = map(jnp.asarray, at), CASES[case][2]
    net = lr_nn.poisson_regression(x.shape[1]) if counts else lr_nn.logistic_regression(x.shape[1])
    [(w, b)] = lr_nn.fit(net, lr_nn.Batch(x, y, None, offset), tol=1e-15).params
    theta = jnp.concatenate([w[:, 0], b])
    for _ in range(2):
        score, variance = _score(theta, _with_ones(x), y, offset, counts)
        hessian = _with_ones(x).T @ (variance[:, None] * _with_ones(x)) / len(y)
        theta = theta - jnp.linalg.solve(hessian, score)
    seed = jnp.linalg.solve(hessian, jnp.ones(len(theta)).at[-1].set(0))
    by_data = jax.grad(lambda x, y, o: -seed @ _score(theta, _with_ones(x), y, o, counts)[0], argnums=(0, 1, 2))
    return jax.tree.map(np.asarray, by_data(*map(jnp.asarray, at)))


def error(found: Any, wanted: Any) -> float:
    """The largest error of an entry, relative to the largest entry of its array."""
    return max(float(np.abs(np.asarray(a) - b).max() / np.abs(b).max()) for a, b in zip(found, wanted))


def rows(rounds: int, small: bool) -> list[dict[str, Any]]:
    """Time relative to ours of compiled programs, and the error of each gradient."""
    found = []
    with jax.enable_x64(True):
        for case in tuple(CASES)[: 1 if small else None]:
            at = tuple(map(jnp.asarray, data(case, small)))
            names = [OURS, ALONE, *filter(can, PEERS)]
            competitors = {name: compiled(gradient(case, name), *at) for name in names}
            wanted = reference(case, data(case, small))
            taken = compare(case, competitors, OURS, rounds if len(at[0]) < 5000 else max(3, rounds // 3))
            found += [
                row if name == ALONE else {**row, "error": float(f"{error(competitors[name].run(), wanted):.2g}")}
                for name, row in zip(names, taken)
            ]
    return found


def first_rows(rounds: int, small: bool) -> list[dict[str, Any]]:
    """The gradient as the first call of a fresh process, without a compilation cache; the competitors take turns."""
    found, rounds = [], 1 if small else max(3, rounds // 4)
    for case in tuple(CASES)[: 1 if small else 2]:
        names = [OURS, *filter(can, PEERS)]
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for turn in range(rounds):
            for name in np.random.default_rng(turn).permutation(names):
                runs[name].append(in_a_process(case, name, ROOT, "benchmarks.implicit"))
        found += [summed_up(case, name, runs[name], runs[OURS]) for name in names]
    return found


def can(competitor: str) -> bool:
    """Is the peer installed?"""
    return competitor == UNROLLED or find_spec("glmax") is not None


def measure(case: str, competitor: str) -> dict[str, Any]:
    """Seconds and programs of the first gradient, of a second one, and of one with a row less."""
    jax.config.update("jax_enable_x64", True)
    run, at = jax.jit(gradient(case, competitor)), data(case)
    less = tuple(each[:-1] for each in at)
    jax.devices()
    return timed(
        {
            "first": lambda: jax.block_until_ready(run(*at)),
            "warm": lambda: jax.block_until_ready(run(*at)),
            "one row less": lambda: jax.block_until_ready(run(*less)),
        }
    )


SECTIONS: dict[str, harness.Section] = {
    "gradient": (rows, "The gradient of a fit by its data, compiled; time relative to lr_nn"),
    "first": (first_rows, "The first gradient of a fit in a fresh process; time relative to lr_nn"),
}
main = harness.command("implicit", SECTIONS)


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
