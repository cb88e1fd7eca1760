"""K-FAC as an optax transformation, on the deep autoencoder of Martens & Grosse (2015).

The Fisher block of a layer is nearly A ⊗ G, A = E[aaᵀ] and G = E[δδᵀ]. So the natural gradient is A⁻¹ V G⁻¹ layer by
layer, from running means of the factors. The step along it and the momentum minimise the quadratic model of the cost
with the exact Gauss-Newton matrix, their section 7. Networks are shallower and data smaller than theirs; MNIST is read
from the folder LR_NN_DATA, if it is set.
"""

import os
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import lr_nn
from lr_nn import Batch, curvature


class State(NamedTuple):
    """The number of steps, running means of the factors, the last update and a key."""

    step: Any
    factors: Any
    update: Any
    key: Any


def kfac(net, damping, key, decay=0.95):
    """An optimiser whose `update` needs the mini-batch as `batch=`."""

    def init(params):
        one = Batch(jnp.zeros((1, net.sizes[0])), jnp.zeros((1, net.sizes[-1])))
        factors = jax.eval_shape(lambda: curvature.kfac(net, params, one, kind="empirical").factors)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (factors, params))
        return State(jnp.zeros(()), *zeros, key)

    def update(gradient, state, params, *, batch):
        key, sampling = jax.random.split(state.key)
        op = curvature.kfac(net, params, batch, kind="sampled", key=sampling)
        keep = jnp.minimum(decay, 1 - 1 / (state.step + 1))
        factors = jax.tree.map(lambda old, new: keep * old + (1 - keep) * new, state.factors, op.factors)
        directions = replace(op, factors=factors).solve(gradient, damping), state.update
        scales = quadratic_minimum(curvature.ggn(net, params, batch).damped(damping), gradient, directions)
        step = jax.tree.map(lambda a, b: scales[0] * a + scales[1] * b, *directions)
        return step, State(state.step + 1, factors, step, key)

    return optax.GradientTransformationExtraArgs(init, update)


def quadratic_minimum(matrix, gradient, directions):
    """The scales s of the directions D that minimise ½ sᵀ (Dᵀ A D) s + gᵀ D s."""
    products = [matrix @ direction for direction in directions]
    inner = jnp.array([[optax.tree.vdot(a, b) for b in products] for a in directions])
    return -jnp.linalg.pinv(inner, rtol=1e-5) @ jnp.array([optax.tree.vdot(gradient, each) for each in directions])


def images(rows):
    """MNIST from the folder LR_NN_DATA, or the digits of scikit-learn."""
    folder = os.environ.get("LR_NN_DATA")
    if not folder:
        return (load_digits().data[:rows] / 16).astype(np.float32)
    files = [f"{folder}/t10k-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")]
    return np.asarray(lr_nn.data.idx(*files).read(0, rows).x)


def main(steps=60, rows=500, hidden=(256, 64, 16, 64, 256), damping=0.05, rates=(0.003, 0.01, 0.03)):
    """The cost after as many steps of K-FAC and of gradient descent with momentum, at the best of the rates."""
    x = images(rows)
    net, batch = lr_nn.mlp((x.shape[1], *hidden, x.shape[1]), lr_nn.activations.tanh), Batch(x, x)
    start, optimizer = lr_nn.init(net, jax.random.key(0)), kfac(net, damping, jax.random.key(1))

    @jax.jit
    def step(params, state, batch):
        value, gradient = lr_nn.value_and_gradient(net, params, batch)
        updates, state = optimizer.update(gradient, state, params, batch=batch)
        return optax.apply_updates(params, updates), state, value

    params, state = start, optimizer.init(start)
    for _ in range(steps):
        params, state, _ = step(params, state, batch)
    sgd = [optax.sgd(rate, momentum=0.9, nesterov=True) for rate in rates]
    others = [lr_nn.train(net, start, batch, optimizer=each, epochs=steps).params for each in sgd]
    costs = [float(lr_nn.cost(net, each, batch)) for each in (params, *others)]
    result = {"K-FAC": costs[0], "SGD with momentum": min(costs[1:])}
    print(f"cross-entropy of an image after {steps} steps:", result)
    return result


def check(result):
    """K-FAC is ahead after the same number of steps."""
    assert result["K-FAC"] < 0.95 * result["SGD with momentum"]


SMALL = {"steps": 30, "rows": 300, "hidden": (32, 8, 32), "rates": (0.03, 0.1)}

if __name__ == "__main__":
    main()
