"""Hyper-parameters by gradient: a strength for each feature, and a weight for each row, from a validation cost.

`lr_nn.implicit.fit` is a differentiable function of its data and of its penalty. So the cost of the fitted model on
held-out rows has a gradient by both, and gradient descent chooses as many hyper-parameters as there are features, or
rows, where a grid search would choose one.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import lr_nn

N, D = 120, 20
NET = lr_nn.logistic_regression(D)


def descend(cost, start, rate, steps=100):
    """The hyper-parameters after `steps` of Adam on `cost`, compiled once."""
    optimizer, slope = optax.adam(rate), jax.grad(cost)

    def step(_, state):
        at, moments = state
        updates, moments = optimizer.update(slope(at), moments)
        return optax.apply_updates(at, updates), moments

    return jax.jit(lambda at: jax.lax.fori_loop(0, steps, step, (at, optimizer.init(at)))[0])(start)


def data(key):
    """Rows of which 3 features of 20 matter: 120 to fit, of which the first 36 have a wrong label, and 120 held out."""
    of_x, of_y = jax.random.split(key)
    x = jax.random.normal(of_x, (2 * N, D))
    y = jax.random.bernoulli(of_y, jax.nn.sigmoid(4 * x[:, :3].sum(axis=1))).astype(x.dtype)
    noisy = jnp.where(jnp.arange(N) < 36, 1 - y[:N], y[:N])
    return lr_nn.Batch(x[:N], noisy), lr_nn.Batch(x[N:], y[N:])


def main():
    """The strengths that matter and those of the others, and the weights of wrong and of right labels."""
    noisy, held_out = data(jax.random.key(0))

    def by_strength(log_strength):
        # l2_j w_j² is u_j² of the feature x_j / √l2_j, with u_j = √l2_j w_j.
        root = jnp.exp(log_strength / 2)
        [(u, b)] = lr_nn.implicit.fit(NET, noisy._replace(x=noisy.x / root[None]), lr_nn.penalties.l2(1.0))
        return lr_nn.cost(NET, (lr_nn.Layer(u / root[:, None], b),), held_out)

    def by_weight(logit):
        rows = noisy._replace(weight=jax.nn.sigmoid(logit))
        return lr_nn.cost(NET, lr_nn.implicit.fit(NET, rows, lr_nn.penalties.l2(0.1)), held_out)

    strength = np.exp(descend(by_strength, jnp.full(D, -2.0), rate=0.2))
    weight = np.asarray(jax.nn.sigmoid(descend(by_weight, jnp.zeros(N), rate=0.2)))
    found = {
        "strength, features that matter": float(np.median(strength[:3])),
        "strength, other features": float(np.median(strength[3:])),
        "weight, wrong labels": float(weight[:36].mean()),
        "weight, right labels": float(weight[36:].mean()),
    }
    for name, value in found.items():
        print(f"{name:32s} {value:.3g}")
    return found


def check(found):
    """Features that matter are penalised less than the others, and wrong labels weigh less than right ones."""
    assert found["strength, features that matter"] < 0.1 * found["strength, other features"]
    assert found["weight, wrong labels"] < 0.5 * found["weight, right labels"]


if __name__ == "__main__":
    main()
