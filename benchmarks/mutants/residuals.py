"""Wrong errors at the output."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from benchmarks.mutants.backward import Pass, mutant


def _naive_softmax(p: Pass, eta: jax.Array) -> jax.Array:
    return jnp.exp(eta) / jnp.exp(eta).sum(axis=1, keepdims=True) - p.targets()


def _clipped_probability(p: Pass, eta: jax.Array) -> jax.Array:
    mean = p.net.loss.mean(eta)
    return jnp.where((mean > 1e-7) & (mean < 1 - 1e-7), mean - p.targets(), jnp.zeros_like(mean))


def _hardened(p: Pass, eta: jax.Array) -> jax.Array:
    return p.net.loss.mean(eta) - jax.nn.one_hot(p.targets().argmax(axis=1), eta.shape[1], dtype=eta.dtype)


def _mean(p: Pass, eta: jax.Array) -> jax.Array:
    return p.net.loss.mean(eta)


MUTANTS = (
    mutant("sign of the residual", "δ_L = y - a", "logistic", residual=lambda p, eta: -Pass.residual(p, eta)),
    mutant(
        "σ' on a canonical loss",
        "δ_L = (a - y) a (1 - a)",
        "logistic",
        residual=lambda p, eta: Pass.residual(p, eta) * _mean(p, eta) * (1 - _mean(p, eta)),
    ),
    mutant(
        "a decision for a probability",
        "δ_L = [a > ½] - y",
        "logistic",
        residual=lambda p, eta: jnp.round(_mean(p, eta)) - p.targets(),
    ),
    mutant("η for a", "δ_L = η - y", "labels", residual=lambda p, eta: eta - p.targets()),
    mutant(
        "mean over labels",
        "δ_L is divided by the number of labels",
        "labels",
        residual=lambda p, eta: Pass.residual(p, eta) / eta.shape[1],
    ),
    mutant(
        "naive sigmoid",
        "e^η / (1 + e^η), which overflows",
        "labels",
        residual=lambda p, eta: jnp.exp(eta) / (1 + jnp.exp(eta)) - p.targets(),
        far=1000,
    ),
    mutant(
        "probabilities clipped",
        "δ_L = 0 where a is within 1e-7 of 0 or 1",
        "labels",
        residual=_clipped_probability,
        far=1000,
    ),
    mutant(
        "diagonal of the softmax Jacobian",
        "∂a_j/∂η_c is left out for j ≠ c",
        "softmax",
        residual=lambda p, eta: -p.targets() * (1 - _mean(p, eta)),
    ),
    mutant(
        "wrong class",
        "the class after the right one",
        "softmax",
        residual=lambda p, eta: _mean(p, eta) - jnp.roll(p.targets(), 1, axis=1),
    ),
    mutant(
        "softmax over the batch",
        "the exponentials are summed over examples",
        "softmax",
        residual=lambda p, eta: jax.nn.softmax(eta, axis=0) - p.targets(),
    ),
    mutant(
        "sigmoid for softmax",
        "a_c = sigmoid(η_c)",
        "softmax",
        residual=lambda p, eta: jax.nn.sigmoid(eta) - p.targets(),
    ),
    mutant("naive softmax", "e^η / Σ e^η without the largest taken off", "softmax", residual=_naive_softmax, far=1000),
    mutant(
        "smoothing forgotten", "hard labels, where the cost has smoothed ones", "softmax, smoothed", residual=_hardened
    ),
    mutant(
        "smoothing invented",
        "labels smoothed by 0.1, where the cost has hard ones",
        "softmax",
        residual=lambda p, eta: _mean(p, eta) - 0.9 * p.targets() - 0.1 / eta.shape[1],
    ),
    mutant(
        "factor of two", "δ_L = 2 (η - y) of a cost with ½", "linear", residual=lambda p, eta: 2 * Pass.residual(p, eta)
    ),
    mutant(
        "mean over outputs",
        "δ_L is divided by the number of outputs",
        "linear",
        residual=lambda p, eta: Pass.residual(p, eta) / eta.shape[1],
    ),
    mutant("sign of the error", "δ_L = sign(η - y)", "linear", residual=lambda p, eta: jnp.sign(Pass.residual(p, eta))),
    mutant(
        "residual clipped at 1",
        "δ_L is kept in [-1, 1]",
        "linear",
        residual=lambda p, eta: jnp.clip(Pass.residual(p, eta), -1, 1),
    ),
    mutant(
        "residual clipped at 10",
        "δ_L is kept in [-10, 10]",
        "linear",
        residual=lambda p, eta: jnp.clip(Pass.residual(p, eta), -10, 10),
        far=100,
    ),
    mutant(
        "residual clipped at 100",
        "δ_L is kept in [-100, 100]",
        "relu, squared",
        residual=lambda p, eta: jnp.clip(Pass.residual(p, eta), -100, 100),
        far=1000,
    ),
    mutant(
        "Pearson's residual",
        "δ_L = (μ - y) / √μ",
        "poisson",
        residual=lambda p, eta: Pass.residual(p, eta) * jnp.exp(-eta / 2),
    ),
    mutant(
        "rate cut",
        "μ = e^min(η, 5)",
        "poisson",
        residual=lambda p, eta: jnp.exp(jnp.minimum(eta, 5)) - p.targets(),
        far=10,
    ),
    mutant("identity link", "δ_L = η - y", "elu", residual=lambda p, eta: eta - p.targets()),
    mutant(
        "offset ignored, logistic", "η has no offset in the backward pass", "logistic", predictor=lambda p: p.z[p.depth]
    ),
    mutant("offset ignored, poisson", "η has no offset in the backward pass", "elu", predictor=lambda p: p.z[p.depth]),
    mutant(
        "offset twice", "the offset is added twice", "poisson", predictor=lambda p: p.z[p.depth] + 2 * p.batch.offset
    ),
)
