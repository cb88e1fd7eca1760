"""Wrong layers: transposed, shifted, swapped, stale, or computed in part; and wrong penalties."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from benchmarks.mutants.backward import Pass, mutant
from lr_nn.types import Layer, Params


def _stale(p: Pass, params: Params) -> None:
    Pass.forward(p, jax.tree.map(lambda w: 0.95 * w, params))


def _updated(p: Pass, i: int) -> jax.Array:
    return p.delta[i + 1] @ (p.layer(i + 1).w - 0.1 * p.weight_gradient(i + 1)).T


def _swapped(p: Pass, layers: list[Layer]) -> Params:
    return (layers[0], layers[2], layers[1], *layers[3:])


def _dropout(p: Pass, i: int) -> jax.Array:
    keep = jax.random.bernoulli(jax.random.key(0), 0.8, p.delta[i + 1].shape)
    return jnp.where(keep, p.delta[i + 1] / 0.8, jnp.zeros_like(p.delta[i + 1])) @ p.layer(i + 1).w.T


def _signs(signs: dict[int, int]):
    """A step that gives the gradients of weights other signs."""
    return lambda p, i: signs.get(i, 1) * Pass.weight_gradient(p, i)


MUTANTS = (
    mutant(
        "w for wᵀ",
        "δ goes back through w, not wᵀ, where w is square",
        "sigmoid",
        back=lambda p, i: p.delta[i + 1] @ p.layer(i + 1).w if i + 1 < p.depth else Pass.back(p, i),
    ),
    mutant(
        "w for wᵀ, all square",
        "δ goes back through w, not wᵀ",
        "tanh, square",
        back=lambda p, i: p.delta[i + 1] @ p.layer(i + 1).w,
    ),
    mutant(
        "w of another layer",
        "δ goes back through w_l",
        "tanh, square",
        back=lambda p, i: p.delta[i + 1] @ p.layer(i).w.T,
    ),
    mutant("w already updated", "δ goes back through the weights of the next step", "tanh", back=_updated),
    mutant("|w|", "δ goes back through |w|", "relu", back=lambda p, i: p.delta[i + 1] @ jnp.abs(p.layer(i + 1).w).T),
    mutant(
        "a path left out",
        "δ does not come back from the first neuron above",
        "elu",
        back=lambda p, i: p.delta[i + 1][:, 1:] @ p.layer(i + 1).w[:, 1:].T,
    ),
    mutant("dropout in the backward pass", "a mask of dropout is left on δ", "softplus", back=_dropout),
    mutant(
        "δ of the mean example",
        "δ goes back averaged over examples",
        "leaky relu",
        back=lambda p, i: p.delta[i + 1].mean(axis=0, keepdims=True) @ p.layer(i + 1).w.T,
    ),
    mutant(
        "a layer too high",
        "a_lᵀ δ_l for a_{l-1}ᵀ δ_l",
        "sigmoid",
        weight_gradient=lambda p, i: p.a[i if 1 < i < p.depth else i - 1].T @ p.delta[i],
    ),
    mutant(
        "a layer too low",
        "a_{l-2}ᵀ δ_l for a_{l-1}ᵀ δ_l",
        "tanh",
        weight_gradient=lambda p, i: p.a[max(i - 2, 1) if i > 1 else 0].T @ p.delta[i],
    ),
    mutant(
        "δ of the layer above",
        "a_{l-1}ᵀ δ_{l+1}",
        "relu",
        weight_gradient=lambda p, i: p.a[i - 1].T @ p.delta[i + 1 if i < p.depth - 1 else i],
    ),
    mutant(
        "z for a in the product",
        "z_{l-1}ᵀ δ_l",
        "leaky relu",
        weight_gradient=lambda p, i: p.z.get(i - 1, p.a[0]).T @ p.delta[i],
    ),
    mutant(
        "gradient transposed", "δ_lᵀ a_{l-1}", "tanh, square", weight_gradient=lambda p, i: p.delta[i].T @ p.a[i - 1]
    ),
    mutant(
        "rows paired wrongly",
        "activations in the order reversed",
        "softplus",
        weight_gradient=lambda p, i: p.a[i - 1][::-1].T @ p.delta[i],
    ),
    mutant(
        "products of means",
        "mean a times mean δ",
        "tanh, no bias",
        weight_gradient=lambda p, i: jnp.outer(p.a[i - 1].mean(axis=0), p.delta[i].sum(axis=0)),
    ),
    mutant(
        "sign of the first layer", "the gradient of w_1 has the other sign", "relu", weight_gradient=_signs({1: -1})
    ),
    mutant(
        "sign of the last layer",
        "the gradient of w_L has the other sign",
        "tanh, no bias",
        weight_gradient=_signs({4: -1}),
    ),
    mutant("first layer frozen", "the gradient of w_1 is zero", "sigmoid", weight_gradient=_signs({1: 0})),
    mutant("one layer doubled", "the gradient of w_2 is added twice", "elu", weight_gradient=_signs({2: 2})),
    mutant(
        "one column left out",
        "column 2 of w_2 gets no gradient",
        "leaky relu",
        weight_gradient=lambda p, i: Pass.weight_gradient(p, i).at[:, 2].multiply(1 if i != 2 else 0),
    ),
    mutant(
        "one row left out",
        "the last feature gets no gradient",
        "poisson",
        weight_gradient=lambda p, i: Pass.weight_gradient(p, i).at[-1].set(0),
    ),
    mutant(
        "one entry of 10,000",
        "an entry of w_1 gets no gradient",
        "large",
        weight_gradient=lambda p, i: Pass.weight_gradient(p, i).at[70, 0].multiply(1 if i > 1 else 0),
    ),
    mutant("stale activations", "the forward pass of the step before", "sigmoid, weighted", forward=_stale),
    mutant("layers swapped", "the gradients of two layers of one shape are swapped", "softplus", finish=_swapped),
    mutant(
        "penalty left out",
        "the penalty adds nothing",
        "logistic",
        shrink=lambda p, i: jax.tree.map(jnp.zeros_like, p.layer(i)),
    ),
    mutant(
        "penalty twice",
        "the penalty is added twice",
        "softmax",
        shrink=lambda p, i: jax.tree.map(lambda g: 2 * g, Pass.shrink(p, i)),
    ),
    mutant(
        "half a penalty",
        "l2 w / 2, as if the ½ of the cost were left",
        "sigmoid",
        shrink=lambda p, i: jax.tree.map(lambda g: g / 2, Pass.shrink(p, i)),
    ),
    mutant(
        "sign of the penalty",
        "the penalty is taken off",
        "tanh",
        shrink=lambda p, i: jax.tree.map(jnp.negative, Pass.shrink(p, i)),
    ),
    mutant(
        "penalty over n",
        "the penalty is averaged too",
        "labels",
        shrink=lambda p, i: jax.tree.map(lambda g: g / p.rows, Pass.shrink(p, i)),
    ),
    mutant(
        "penalty on the bias",
        "l2 b is added to the gradient of b",
        "softmax",
        shrink=lambda p, i: Pass.shrink(p, i)._replace(b=p.strengths.l2 * p.layer(i).b),
    ),
    mutant(
        "penalty on one layer",
        "all but the first layer are left free",
        "sigmoid",
        shrink=lambda p, i: jax.tree.map(lambda g: g * (i == 1), Pass.shrink(p, i)),
    ),
    mutant(
        "l1 without its sign",
        "l1 is added to the gradient of every weight",
        "linear",
        shrink=lambda p, i: Layer(jnp.full_like(p.layer(i).w, p.strengths.l1), jnp.zeros_like(p.layer(i).b)),
    ),
    mutant(
        "l1 as l2",
        "l1 w for l1 sign(w)",
        "linear",
        shrink=lambda p, i: Layer(p.strengths.l1 * p.layer(i).w, jnp.zeros_like(p.layer(i).b)),
    ),
    mutant(
        "sign of the wrong thing",
        "l1 sign of the gradient, not of w",
        "tanh",
        shrink=lambda p, i: Pass.shrink(p, i)._replace(
            w=p.strengths.l1 * jnp.sign(Pass.weight_gradient(p, i)) + p.strengths.l2 * p.layer(i).w
        ),
    ),
)
