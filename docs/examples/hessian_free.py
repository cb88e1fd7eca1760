"""Hessian-free optimisation: Newton steps on the Gauss-Newton matrix, by conjugate gradients (Martens, 2010).

A step d solves (G + λI) d = -∇J, G never formed: `curvature.ggn` multiplies by it for the price of two passes. λ
follows the Levenberg-Marquardt rule: it falls by 2/3 where the quadratic model predicted the decrease of the cost,
ρ > 3/4, and rises by 3/2 where it did not, ρ < 1/4; a step that does not lower the cost is not taken.
"""

import jax
import numpy as np
import optax
from sklearn.datasets import load_digits

import lr_nn
from lr_nn import Batch, curvature


def hessian_free_step(net, params, batch, damping):
    """The next parameters, the next damping and the cost before the step."""
    cost, gradient = lr_nn.value_and_gradient(net, params, batch)
    matrix = curvature.ggn(net, params, batch)
    step = curvature.solve(matrix, optax.tree.scale(-1, gradient), damping, tol=0.1)
    predicted = optax.tree.vdot(gradient, step) + 0.5 * optax.tree.vdot(step, matrix @ step)
    moved = optax.apply_updates(params, step)
    ratio = (lr_nn.cost(net, moved, batch) - cost) / predicted
    damping = damping * jax.numpy.where(ratio > 0.75, 2 / 3, jax.numpy.where(ratio < 0.25, 3 / 2, 1.0))
    return jax.tree.map(lambda new, old: jax.numpy.where(ratio > 0, new, old), moved, params), damping, cost


def main(steps=40, rows=1000, hidden=(64, 32, 8, 32, 64), adam_steps=50, rates=(0.01, 0.03, 0.1)):
    """The cost of an autoencoder of digits after Hessian-free steps, and with `adam_steps` of Adam for each of them."""
    x = (load_digits().data[:rows] / 16).astype(np.float32)
    net, batch = lr_nn.mlp((64, *hidden, 64), lr_nn.activations.tanh), Batch(x, x)
    start = lr_nn.init(net, jax.random.key(0))
    step = jax.jit(hessian_free_step)
    params, damping = start, 1.0
    for _ in range(steps):
        params, damping, _ = step(net, params, batch, damping)
    adam = [
        lr_nn.train(net, start, batch, optimizer=optax.adam(rate), epochs=steps * adam_steps).params for rate in rates
    ]
    costs = [float(lr_nn.cost(net, each, batch)) for each in (params, *adam)]
    result = {"Hessian-free": costs[0], "Adam": min(costs[1:]), "damping": float(damping)}
    print(f"cross-entropy of an image after {steps} steps, {adam_steps} times as many of Adam:", result)
    return result


def check(result):
    """The cost is lower, and λ has fallen because the quadratic model is trusted."""
    assert result["Hessian-free"] < result["Adam"] and result["damping"] < 1


SMALL = {"steps": 20, "rows": 300, "hidden": (32, 8, 32), "adam_steps": 1}

if __name__ == "__main__":
    main()
