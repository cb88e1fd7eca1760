"""m networks trained in one program of batched matrix products, against one after the other."""

from __future__ import annotations

from typing import Any

import jax
import optax

import lr_nn
from benchmarks.harness import compare
from lr_nn import Batch, losses


def rows(rounds: int, small: bool) -> list[dict[str, Any]]:
    """m = 1, 4, 16, 64 nets 784-30-10, one epoch of 4,096 rows in batches of 128, by `train` and `train_many`."""
    key = jax.random.key(0)
    net = lr_nn.mlp((784, 30, 10), loss=losses.categorical)
    n = 256 if small else 4096
    data = Batch(jax.random.uniform(key, (n, 784)), jax.random.randint(key, (n,), 0, 10))
    options: dict[str, Any] = {"optimizer": optax.sgd(0.1), "epochs": 1, "batch_size": 128}
    found = []
    for m in (1, 4) if small else (1, 4, 16, 64):
        keys = jax.random.split(key, m)
        params = jax.vmap(lambda key: lr_nn.init(net, key))(keys)
        lanes = [jax.tree.map(lambda a, i=i: a[i], params) for i in range(m)]

        def one_by_one(lanes=lanes):
            return [jax.block_until_ready(lr_nn.train(net, p, data, key=key, **options).params) for p in lanes]

        def shared_batches(params=params):
            return jax.block_until_ready(lr_nn.train_many(net, params, data, key=key, **options).params)

        def own_batches(params=params, keys=keys):
            return jax.block_until_ready(lr_nn.train_many(net, params, data, key=keys, **options).params)

        competitors = {
            "one after the other": one_by_one,
            "train_many, one order of rows": shared_batches,
            "train_many, an order per net": own_batches,
        }
        found += compare(f"{m} nets", competitors, "one after the other", max(3, rounds // 4), lanes=m)
    return found
