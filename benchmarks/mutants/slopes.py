"""Wrong derivatives of activations."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from benchmarks.mutants.backward import Pass, mutant
from lr_nn import activations

SIGMA = activations.sigmoid


def _saturated(p: Pass, i: int) -> jax.Array:
    a = p.a[i]
    return jnp.where((a == 0) | (a == 1), jnp.ones_like(a), a * (1 - a))


def _by_difference(p: Pass, i: int) -> jax.Array:
    return (p.sigma(i).value(p.z[i] + 1e-2) - p.sigma(i).value(p.z[i])) / 1e-2


def _naive_sigmoid(p: Pass, i: int) -> jax.Array:
    return jnp.exp(p.z[i]) / (1 + jnp.exp(p.z[i]))


MUTANTS = (
    mutant("no σ'", "σ' is dropped in every layer", "sigmoid", derivative=lambda p, i: jnp.ones_like(p.a[i])),
    mutant(
        "no σ' in one layer",
        "σ' is dropped in the first layer",
        "sigmoid",
        derivative=lambda p, i: Pass.derivative(p, i) if i > 1 else jnp.ones_like(p.a[i]),
    ),
    mutant("z for a", "σ' = z (1 - z)", "sigmoid", derivative=lambda p, i: p.z[i] * (1 - p.z[i])),
    mutant(
        "a for z",
        "σ' is taken at a, not at z",
        "sigmoid",
        derivative=lambda p, i: SIGMA.derivative(SIGMA.value(p.a[i])),
    ),
    mutant("σ' squared", "σ' is multiplied twice", "sigmoid", derivative=lambda p, i: (p.a[i] * (1 - p.a[i])) ** 2),
    mutant("half of σ'", "σ' = a, without 1 - a", "sigmoid", derivative=lambda p, i: p.a[i]),
    mutant("other half of σ'", "σ' = 1 - a, without a", "sigmoid", derivative=lambda p, i: 1 - p.a[i]),
    mutant("sign in σ'", "σ' = a (1 + a)", "sigmoid", derivative=lambda p, i: p.a[i] * (1 + p.a[i])),
    mutant("σ' at its peak", "σ' = 1/4 everywhere", "sigmoid", derivative=lambda p, i: jnp.full_like(p.a[i], 0.25)),
    mutant(
        "σ' of another layer",
        "σ' is that of the last hidden layer",
        "sigmoid",
        derivative=lambda p, i: Pass.derivative(p, p.depth - 1),
    ),
    mutant(
        "σ' of the mean",
        "σ' of the mean activation of each neuron",
        "sigmoid",
        derivative=lambda p, i: SIGMA.derivative(p.a[i].mean(axis=0))[None],
    ),
    mutant(
        "σ' by a coarse difference",
        "σ' is a forward difference with a step of 0.01",
        "sigmoid",
        derivative=_by_difference,
    ),
    mutant(
        "σ' with a floor",
        "σ' is kept above 0.001",
        "sigmoid",
        derivative=lambda p, i: jnp.maximum(Pass.derivative(p, i), 1e-3),
        far=100,
    ),
    mutant("saturation left out", "σ' = 1 where a is exactly 0 or 1", "sigmoid", derivative=_saturated, far=1000),
    mutant(
        "naive hidden sigmoid", "a = e^z / (1 + e^z), which overflows", "sigmoid", activation=_naive_sigmoid, far=1000
    ),
    mutant("tanh' is 1 - a", "σ' = 1 - a", "tanh", derivative=lambda p, i: 1 - p.a[i]),
    mutant("tanh' is 1 - z²", "σ' = 1 - z²", "tanh", derivative=lambda p, i: 1 - p.z[i] ** 2),
    mutant("tanh' is 1 + a²", "σ' = 1 + a²", "tanh", derivative=lambda p, i: 1 + p.a[i] ** 2),
    mutant("tanh' is (1 - a)²", "σ' = (1 - a)²", "tanh", derivative=lambda p, i: (1 - p.a[i]) ** 2),
    mutant("sigmoid' for tanh'", "σ' = a (1 - a)", "tanh, no bias", derivative=lambda p, i: p.a[i] * (1 - p.a[i])),
    mutant("no mask", "relu' = 1", "relu", derivative=lambda p, i: jnp.ones_like(p.a[i])),
    mutant("inverse mask", "relu' = [z < 0]", "relu", derivative=lambda p, i: (p.z[i] < 0).astype(p.a[i].dtype)),
    mutant(
        "mask of another layer",
        "relu' of the layer above",
        "relu",
        derivative=lambda p, i: Pass.derivative(p, min(i + 1, p.depth - 1)),
    ),
    mutant("mask shifted", "relu' = [z > 0.1]", "relu", derivative=lambda p, i: (p.z[i] > 0.1).astype(p.a[i].dtype)),
    mutant(
        "mask of the delta", "relu' = [δ > 0]", "relu", derivative=lambda p, i: (p.back(i) > 0).astype(p.a[i].dtype)
    ),
    mutant(
        "mask of one example",
        "relu' of the first example for all",
        "relu",
        derivative=lambda p, i: Pass.derivative(p, i)[:1],
    ),
    mutant("a for the mask", "relu' = a", "relu", derivative=lambda p, i: p.a[i]),
    mutant(
        "relu' for leaky relu'",
        "σ' = 0 below zero, not the slope",
        "leaky relu",
        derivative=lambda p, i: activations.relu.derivative(p.a[i]),
    ),
    mutant(
        "another slope",
        "σ' = 0.01 below zero, where the slope is 0.1",
        "leaky relu",
        derivative=lambda p, i: activations.leaky_relu().derivative(p.a[i]),
    ),
    mutant(
        "sides of the kink swapped",
        "σ' = the slope above zero, 1 below",
        "leaky relu",
        derivative=lambda p, i: p.sigma(i).derivative(-p.a[i]),
    ),
    mutant(
        "elu' is a",
        "σ' = a below zero, without + 1",
        "elu",
        derivative=lambda p, i: jnp.where(p.a[i] > 0, jnp.ones_like(p.a[i]), p.a[i]),
    ),
    mutant(
        "elu' is e^a",
        "σ' = e^a below zero, not e^z",
        "elu",
        derivative=lambda p, i: jnp.where(p.a[i] > 0, jnp.ones_like(p.a[i]), jnp.exp(p.a[i])),
    ),
    mutant("softplus' is σ(a)", "σ' = sigmoid(a), not of z", "softplus", derivative=lambda p, i: SIGMA.value(p.a[i])),
    mutant(
        "relu' for softplus'", "σ' = [z > 0]", "softplus", derivative=lambda p, i: (p.z[i] > 0).astype(p.z[i].dtype)
    ),
    mutant(
        "softplus' cancels",
        "σ' = 1 - e^{-a}, all digits lost where a is small",
        "softplus, far left",
        derivative=lambda p, i: 1 - jnp.exp(-p.a[i]),
    ),
)
