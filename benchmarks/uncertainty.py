"""Laplace approximations beside laplace-torch and laplax, and influence functions beside gradients of every example."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import lr_nn
from benchmarks import harness, laplace_peers
from benchmarks.harness import compare, compiled
from lr_nn import activations, curvature, influence, laplace, losses, penalties, per_example

# Without biases: laplace-torch gives them a block of their own in "kfac".
SIZES, SMALL, N, NEW, PRIOR = (784, 100, 10), (20, 16, 3), 4096, 64, 10.0
DAMPING = 1e-2


def _setting(sizes: tuple[int, ...], n: int):
    net = lr_nn.Network(sizes, activations.tanh, losses.categorical, bias=False)
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(n + NEW, sizes[0])).astype(np.float32)
    y = rng.integers(0, sizes[-1], size=n)
    return f"{'-'.join(map(str, sizes))}, {n} rows", net, lr_nn.init(net, jax.random.key(0)), x[:n], y, x[n:]


def _agree(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(np.asarray(ours), theirs, rtol=1e-2, atol=1e-3 * np.abs(theirs).max())


def torch_rows(rounds: int, small: bool) -> list[dict[str, Any]]:
    """Posterior, predictive covariance and prior of "kfac", the same numbers on both sides."""
    if not laplace_peers.torch_installed():
        return []
    case, net, params, x, y, new = _setting(SMALL if small else SIZES, 128 if small else N)
    batch, at = lr_nn.Batch(x, y), (params, x, y, "kfac", PRIOR)
    law = laplace.posterior(net, params, batch, prior=PRIOR)
    predictions, tuning = laplace_peers.torch_predictions(*at, new), laplace_peers.torch_tuning(*at)
    _agree(law.covariance(new), next(iter(predictions.values()))())

    def fit():
        return laplace.posterior(net, params, batch, prior=PRIOR).spectrum.eigenvalues()

    ours = "lr_nn"
    slow = max(3, rounds // 4)
    return [
        *compare(f"posterior, {case}", {ours: fit, **laplace_peers.torch_fits(*at)}, ours, slow, n=len(x)),
        *compare(
            f"predictive covariance of {NEW} rows, {case}",
            {ours: lambda: jax.block_until_ready(law.covariance(new)), **predictions},
            ours,
            slow,
            n=NEW,
        ),
        *compare(
            f"prior by the evidence, {case}", {ours: lambda: laplace.maximize_evidence(law).prior, **tuning}, ours, slow
        ),
    ]


def laplax_rows(rounds: int, small: bool) -> list[dict[str, Any]]:
    """Posterior, and predictive variance, on a network that laplax can hold."""
    if not laplace_peers.laplax_installed():
        return []
    case, net, params, x, y, new = _setting(SMALL, 128 if small else 512)
    found = []
    for structure in ("diagonal", "full"):
        law = laplace.posterior(net, params, lr_nn.Batch(x, y), structure, PRIOR)
        fit, predict = laplace_peers.laplax_peers(params, x, y, structure, PRIOR, new)
        _agree(law.predictive(new).variance, predict())
        fits = {"lr_nn": partial(laplace.posterior, net, params, lr_nn.Batch(x, y), structure, PRIOR), "laplax": fit}
        found += compare(f"posterior, {structure}, {case}", fits, "lr_nn", max(3, rounds // 4), n=len(x))
        program = compiled(lambda law, rows: law.predictive(rows).variance, law, new)
        what = f"predictive variance of {NEW} rows, {structure}, {case}"
        found += compare(what, {"lr_nn": program, "laplax": predict}, "lr_nn", rounds, n=NEW)
    return found


def influence_rows(rounds: int, small: bool) -> list[dict[str, Any]]:
    """Self-influence of all examples beside one gradient, and beside solves for every example's gradient."""
    case, net, params, x, y, _ = _setting(SMALL if small else SIZES, 64 if small else 1024)

    def gradient(params, x, y):
        return lr_nn.gradient(lr_nn.backprop(net, params, lr_nn.Batch(x, y)))

    def ours(params, x, y):
        return influence.self_influence(net, params, lr_nn.Batch(x, y), damping=DAMPING)

    def solved(params, x, y):
        """The same by the gradient of every example and its own solve, in the same eigenbasis."""
        batch = lr_nn.Batch(x, y)
        gradients = per_example.gradients(lr_nn.backprop(net, params, batch))
        total = jnp.zeros(len(x))
        for (a, g), layer in zip(curvature.kfac(net, params, batch).factors, gradients):
            (alpha, u_a), (gamma, u_g) = jnp.linalg.eigh(a), jnp.linalg.eigh(g)
            scale = 1 / (alpha[:, None] * gamma[None] + DAMPING)
            rotated = jax.vmap(lambda v, u_a=u_a, u_g=u_g: u_a.T @ v @ u_g)(layer.w)
            solutions = jax.vmap(lambda v, u_a=u_a, u_g=u_g, s=scale: u_a @ (s * v) @ u_g.T)(rotated)
            total = total + jnp.einsum("nij,nij->n", layer.w, solutions)
        return total

    _agree(ours(params, x, y), np.asarray(solved(params, x, y)))
    competitors = {
        "self-influence, kfac": compiled(ours, params, x, y),
        "a solve for each gradient": compiled(solved, params, x, y),
        "gradient": compiled(gradient, params, x, y),
    }
    return compare(case, competitors, "self-influence, kfac", rounds, n=len(x), retraining=_retraining(small))


def _retraining(small: bool) -> dict[str, float]:
    """The correlation of predicted and actual changes of test losses, rows left out one by one, by curvature."""
    rng = np.random.default_rng(1)
    n, some, net = 80, 4 if small else 30, lr_nn.mlp((4, 6, 1), activations.tanh)
    x = rng.normal(size=(n + 10, 4))
    y = (np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] + 0.5 * rng.normal(size=n + 10) > 0).astype(float)
    train, test, penalty = lr_nn.Batch(x[:n], y[:n]), lr_nn.Batch(x[n:], y[n:]), penalties.l2(1e-2)
    with jax.enable_x64(True):
        start = lr_nn.init(net, jax.random.key(0), jnp.float64)

        def refit(weight, start):
            return lr_nn.fit(net, train._replace(weight=weight), penalty=penalty, start=start, max_steps=2000).params

        def test_losses(params):
            eta = lr_nn.forward(net, params, test.x).eta
            return np.asarray(net.loss.value(eta, jnp.asarray(test.y)))

        params = refit(np.ones(n), start)
        actual = [test_losses(refit(np.arange(n) != i, params)) - test_losses(params) for i in range(some)]
        found = {}
        for name in ("kfac", "ekfac", "ggn", "hessian"):
            predicted = influence.deletion(net, params, train, test, curvature=name, damping=1e-3, penalty=penalty)
            pair = np.asarray(predicted)[:, :some].T.ravel(), np.array(actual).ravel()
            found[name] = float(np.corrcoef(*pair)[0, 1])
    return found


SECTIONS = {
    "torch": (torch_rows, "K-FAC Laplace approximation of classes beside laplace-torch; time relative to ours"),
    "laplax": (laplax_rows, "Posterior and predictive variance beside laplax; time relative to ours"),
    "influence": (influence_rows, "Self-influence of all examples; time relative to ours"),
}

main = harness.command("uncertainty", SECTIONS)
