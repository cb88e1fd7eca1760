"""One epoch of mini-batch training against the libraries people use, and against the matrix products in it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

import lr_nn
from benchmarks.harness import compare
from lr_nn import Batch, losses

SIZES = ((784, 100, 10), (784, 512, 512, 10))
BATCH = 128
RATE = 0.1
FLAX, CEILING = "flax + optax, autodiff, one scan", "matrix products alone"


def by_train(net, params, data, key) -> Callable:
    """`lr_nn.train`, with its checks, from the call to the parameters."""
    optimizer = optax.sgd(RATE)
    return lambda: jax.block_until_ready(
        lr_nn.train(net, params, data, optimizer=optimizer, epochs=1, batch_size=BATCH, key=key).params
    )


def by_python_loop(net, params, data, key) -> Callable:
    """The same step, jitted alone and called from a Python loop over shuffled rows."""
    optimizer = optax.sgd(RATE)
    step = jax.jit(partial(lr_nn.training.step, net, optimizer=optimizer))
    rng = np.random.default_rng(0)
    x, y = np.asarray(data.x), np.asarray(data.y)

    def epoch():
        p, state = params, optimizer.init(params)
        order = rng.permutation(len(x))
        for start in range(0, len(x), BATCH):
            rows = order[start : start + BATCH]
            p, state, _ = step(p, state, Batch(x[rows], y[rows]))
        return jax.block_until_ready(p)

    return epoch


class Flax(nn.Module):
    """The same network as a flax module."""

    sizes: tuple[int, ...]

    @nn.compact
    def __call__(self, x):
        """Logits of a batch."""
        for width in self.sizes[1:-1]:
            x = nn.sigmoid(nn.Dense(width)(x))
        return nn.Dense(self.sizes[-1])(x)


def by_flax(sizes, data, key) -> Callable:
    """Flax + optax with autodiff: the whole shuffled epoch in one jitted scan, a last ragged step after it."""
    model, optimizer = Flax(sizes), optax.sgd(RATE)
    params = model.init(key, data.x[:1])
    n = data.x.shape[0]

    def step(carry, batch):
        params, state = carry
        x, y = batch

        def cost(params):
            return optax.softmax_cross_entropy_with_integer_labels(model.apply(params, x), y).mean()

        value, gradient = jax.value_and_grad(cost)(params)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), value

    @jax.jit
    def epoch(params, state, x, y, key):
        order = jax.random.permutation(key, n)
        whole = n // BATCH
        blocks = order[: whole * BATCH].reshape(whole, BATCH)
        carry, costs = lax.scan(lambda c, rows: step(c, (x[rows], y[rows])), (params, state), blocks)
        if n % BATCH:
            rows = order[whole * BATCH :]
            carry, _ = step(carry, (x[rows], y[rows]))
        return carry, costs

    state = optimizer.init(params)
    return lambda: jax.block_until_ready(epoch(params, state, data.x, data.y, key))


def by_sklearn(sizes, data, threads: int) -> Callable:
    """scikit-learn's MLPClassifier with plain SGD on the same batches, with this number of BLAS threads."""
    x, y = np.asarray(data.x), np.asarray(data.y)
    model = MLPClassifier(
        sizes[1:-1],
        activation="logistic",
        solver="sgd",
        alpha=0.0,
        batch_size=BATCH,
        learning_rate_init=RATE,
        momentum=0.0,
        nesterovs_momentum=False,
        max_iter=1,
        random_state=0,
    )

    def epoch():
        with threadpool_limits(threads), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x, y)

    return epoch


def matrix_products(net, params, data) -> Callable:
    """Only the matrix products of an epoch, on one resident mini-batch: the ceiling."""
    x = data.x[:BATCH]
    steps = -(-data.x.shape[0] // BATCH)

    @jax.jit
    def epoch(params, x):
        def step(carry, _):
            outputs = [x + carry]
            for layer in params:
                outputs.append(outputs[-1] @ layer.w)
            delta, used = outputs[-1], carry
            for layer, a in zip(params[:0:-1], outputs[-2:0:-1]):
                used, delta = used + (delta.T @ a)[0, 0], delta @ layer.w.T
            used = used + (delta.T @ outputs[0])[0, 0]
            return 1e-30 * used, None

        return lax.scan(step, jnp.zeros(()), length=steps)[0]

    return lambda: jax.block_until_ready(epoch(params, x))


def rows(rounds: int, small: bool) -> list[dict[str, Any]]:
    """An epoch of 60,000 rows by each; scikit-learn at one and two BLAS threads."""
    n = 2000 if small else 60000
    key = jax.random.key(0)
    data = Batch(jax.random.uniform(key, (n, 784)), jax.random.randint(key, (n,), 0, 10))
    found = []
    for sizes in SIZES[: 1 if small else None]:
        net = lr_nn.mlp(sizes, loss=losses.categorical)
        params = lr_nn.init(net, key)
        competitors = {
            FLAX: by_flax(sizes, data, key),
            "lr_nn.train": by_train(net, params, data, key),
            "our step in a Python loop": by_python_loop(net, params, data, key),
            "scikit-learn, 1 thread": by_sklearn(sizes, data, 1),
            "scikit-learn, 2 threads": by_sklearn(sizes, data, 2),
            CEILING: matrix_products(net, params, data),
        }
        case = "-".join(map(str, sizes))
        found += compare(case, competitors, FLAX, max(3, rounds // 4), floor=CEILING, n=n)
    return found
