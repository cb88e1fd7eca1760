"""Model-agnostic meta-learning: initial parameters from which one gradient step learns a new task (Finn et al., 2017).

    min_θ E_task [ J_query(θ - α ∇J_support(θ)) ]

∇J_support is the hand-written gradient of lr_nn; `jax.grad` differentiates through it, second derivatives included.
A task is a sine wave of random amplitude and phase, of which ten points are seen. The rival starts from the parameters
that fit all tasks on average, and takes the same step.
"""

import jax
import jax.numpy as jnp
import optax

import lr_nn
from lr_nn import Batch

NET = lr_nn.mlp((1, 40, 40, 1), lr_nn.activations.tanh, lr_nn.losses.squared_error)
ALPHA = 0.05


def task(key, points=10):
    """Support and query points of one sine wave."""
    keys = jax.random.split(key, 3)
    amplitude, phase = jax.random.uniform(keys[0], (2,), minval=jnp.array([0.5, 0.0]), maxval=jnp.array([3.0, 3.14]))
    x = jax.random.uniform(keys[1], (2, points, 1), minval=-3.0, maxval=3.0)
    y = amplitude * jnp.sin(x - phase)
    return Batch(x[0], y[0]), Batch(x[1], y[1])


def adapted(params, support):
    """One step of gradient descent on the support points."""
    gradient = lr_nn.gradient(lr_nn.backprop(NET, params, support))
    return jax.tree.map(lambda p, g: p - ALPHA * g, params, gradient)


def query_cost(params, key, adapt):
    """The cost on the query points of one task, after adaptation or without."""
    support, query = task(key)
    return lr_nn.cost(NET, adapted(params, support) if adapt else params, query)


def meta_train(steps, tasks, adapt):
    """Adam on the mean query cost of `tasks` new tasks a step."""
    optimizer = optax.adam(3e-3)

    def objective(params, keys):
        return jax.vmap(lambda key: query_cost(params, key, adapt))(keys).mean()

    def step(carry, key):
        params, state = carry
        updates, state = optimizer.update(jax.grad(objective)(params, jax.random.split(key, tasks)), state)
        return (optax.apply_updates(params, updates), state), None

    start = lr_nn.init(NET, jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), steps)
    return jax.jit(lambda: jax.lax.scan(step, (start, optimizer.init(start)), keys)[0][0])()


def main(steps=3000, tasks=25, tests=500):
    """The mean cost on new tasks after one step from both starts."""
    keys = jax.random.split(jax.random.key(2), tests)
    starts = {"MAML": meta_train(steps, tasks, True), "fitted to all tasks": meta_train(steps, tasks, False)}
    costs = jax.vmap(query_cost, (None, 0, None))
    result = {name: float(costs(params, keys, True).mean()) for name, params in starts.items()}
    print("cost of a new task after one gradient step:", result)
    return result


def check(result):
    """The step from MAML's start learns more."""
    assert result["MAML"] < 0.8 * result["fitted to all tasks"]


SMALL = {"steps": 300, "tasks": 10, "tests": 200}

if __name__ == "__main__":
    main()
