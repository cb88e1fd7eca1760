"""Wrong sums over examples: their average, their weights, their rows, and the gradient of a bias."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from benchmarks.mutants.backward import Pass, mutant


def _without(p: Pass, row: int | jax.Array) -> jax.Array:
    return Pass.shares(p).at[row].set(0)


def _without_smallest(p: Pass) -> jax.Array:
    return _without(p, jnp.abs(Pass.residual(p, p.eta)).sum(axis=1).argmin())


def _of_the_rest(p: Pass) -> jax.Array:
    return _without(p, 0) / _without(p, 0).sum()


def _unweighted(p: Pass, i: int) -> jax.Array:
    return (p.delta[i] / Pass.shares(p)[:, None]).mean(axis=0)


MUTANTS = (
    mutant("no 1/n", "a sum for a mean", "sigmoid", shares=lambda p: p.weights()),
    mutant("1/n twice", "the mean is divided by n again", "sigmoid", shares=lambda p: Pass.shares(p) / p.rows),
    mutant("1/(n - 1)", "n - 1 for n", "softplus, far left", shares=lambda p: p.weights() / (p.rows - 1)),
    mutant("1/2n", "the ½ of a squared error, where the cost has none", "labels", shares=lambda p: Pass.shares(p) / 2),
    mutant("1/n for 1/Σs", "weighted, but divided by n", "sigmoid, weighted", shares=lambda p: p.weights() / p.rows),
    mutant(
        "weights ignored", "a plain mean", "sigmoid, weighted", shares=lambda p: jnp.full_like(p.weights(), 1 / p.rows)
    ),
    mutant("weights squared", "s² for s", "logistic", shares=lambda p: Pass.shares(p) * p.weights()),
    mutant(
        "weights under a root",
        "√s for s",
        "poisson",
        shares=lambda p: jnp.sqrt(p.weights()) / jnp.sqrt(p.weights()).sum(),
    ),
    mutant("weights not normalised", "s for s / Σs", "linear", shares=lambda p: p.weights()),
    mutant("weights of other rows", "weights in the order reversed", "softplus", shares=lambda p: Pass.shares(p)[::-1]),
    mutant(
        "weights by their largest", "s / max s for s / Σs", "softplus", shares=lambda p: p.weights() / p.weights().max()
    ),
    mutant("first example dropped", "row 0 counts for nothing", "relu", shares=lambda p: _without(p, 0)),
    mutant("last example dropped", "the last row counts for nothing", "softmax", shares=lambda p: _without(p, -1)),
    mutant(
        "smallest error dropped", "the row whose δ is smallest counts for nothing", "labels", shares=_without_smallest
    ),
    mutant(
        "ragged block dropped",
        "rows after the last whole block of 10 count for nothing",
        "elu",
        shares=lambda p: Pass.shares(p).at[p.rows // 10 * 10 :].set(0),
    ),
    mutant("mean of the others", "the mean over all rows but the first", "leaky relu", shares=_of_the_rest),
    mutant(
        "one example twice", "row 3 counts twice", "tanh, no bias", shares=lambda p: Pass.shares(p).at[3].multiply(2)
    ),
    mutant(
        "half a batch", "the first half for all", "large", shares=lambda p: 2 * Pass.shares(p).at[p.rows // 2 :].set(0)
    ),
    mutant(
        "no bias gradient",
        "the gradient of every bias is zero",
        "sigmoid",
        bias_gradient=lambda p, i: jnp.zeros_like(p.layer(i).b),
    ),
    mutant(
        "bias averaged twice",
        "the gradient of every bias is divided by n again",
        "relu",
        bias_gradient=lambda p, i: p.delta[i].mean(axis=0),
    ),
    mutant(
        "bias not averaged",
        "the gradient of every bias is a sum",
        "tanh",
        bias_gradient=lambda p, i: p.delta[i].sum(axis=0) * p.rows,
    ),
    mutant(
        "bias over the wrong axis",
        "δ is summed over neurons",
        "tanh, square",
        bias_gradient=lambda p, i: p.delta[i].sum(axis=1),
    ),
    mutant(
        "bias of one example",
        "n times the first row, for the sum",
        "elu",
        bias_gradient=lambda p, i: p.delta[i][0] * p.rows,
    ),
    mutant("bias without weights", "the gradient of the bias is a plain mean", "logistic", bias_gradient=_unweighted),
    mutant(
        "bias of the layer above",
        "Σ δ_{l+1}",
        "leaky relu",
        bias_gradient=lambda p, i: p.delta[i + 1 if i < p.depth - 1 else i].sum(axis=0),
    ),
    mutant(
        "bias shared",
        "every bias of a layer gets their mean",
        "softplus",
        bias_gradient=lambda p, i: jnp.full_like(p.layer(i).b, p.delta[i].sum(axis=0).mean()),
    ),
    mutant(
        "last bias wrong",
        "the last bias alone is wrong, beside 10,000 weights",
        "large",
        bias_gradient=lambda p, i: (1 if i < p.depth else 1.01) * p.delta[i].sum(axis=0),
    ),
)
