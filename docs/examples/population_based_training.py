"""Population-based training: learning rates that are found while the networks train (Jaderberg et al., 2017).

Twelve networks are lanes of one program. After every round the worse quarter takes parameters, optimiser state and
learning rate of the better quarter (exploit), the rate times 0.8 or 1.25 (explore). Rates are a leaf of the state of
`optax.inject_hyperparams`, with the lane axis, so nothing is compiled again.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import lr_nn
from lr_nn import Batch

OPTIMIZER = optax.inject_hyperparams(optax.sgd)(learning_rate=0.1, momentum=0.9)


def evolved(rng, params, state, costs):
    """Parameters and state in which the worse quarter of the lanes are changed copies of the better quarter."""
    order, quarter = np.argsort(np.where(np.isfinite(costs), costs, np.inf)), len(costs) // 4
    source = np.arange(len(costs))
    source[order[-quarter:]] = order[:quarter]
    params, state = jax.tree.map(lambda leaf: leaf[source], (params, state))
    factors = np.where(source == np.arange(len(costs)), 1.0, rng.choice([0.8, 1.25], len(costs)))
    state.hyperparams["learning_rate"] *= factors.astype(np.float32)
    return params, state


def population(net, train, validation, lanes, rounds, epochs, exploit):
    """Validation costs (rounds, lanes) and the last rates of lanes that begin with rates of four decades."""
    rng, keys = np.random.default_rng(0), jax.random.split(jax.random.key(0), lanes)
    params = jax.vmap(lambda key: lr_nn.init(net, key))(keys)
    state = jax.vmap(OPTIMIZER.init)(params)
    state.hyperparams["learning_rate"] = jnp.logspace(-4, 0, lanes)
    costs = []
    for key in jax.random.split(jax.random.key(1), rounds):
        options = {"batch_size": 64, "key": key, "validation": validation, "opt_state": state}
        trained = lr_nn.train_many(net, params, train, optimizer=OPTIMIZER, epochs=epochs, **options)
        params, state = trained.params, trained.opt_state
        costs.append(trained.history["validation_cost"][-1])
        if exploit:
            params, state = evolved(rng, params, state, costs[-1])
    return np.array(costs), np.asarray(state.hyperparams["learning_rate"])


def main(lanes=12, rounds=12, epochs=2, rows=1797):
    """The median validation cost of the population with and without exploitation, and the rates it ended with."""
    digits = load_digits()
    x, y = (digits.data[:rows] / 16).astype(np.float32), digits.target[:rows]
    train, validation = Batch(x[::2], y[::2]), Batch(x[1::2], y[1::2])
    net = lr_nn.mlp((64, 32, 10), lr_nn.activations.relu, lr_nn.losses.categorical)
    evolving, rates = population(net, train, validation, lanes, rounds, epochs, exploit=True)
    fixed, _ = population(net, train, validation, lanes, rounds, epochs, exploit=False)
    result = {"population": float(np.median(evolving[-1])), "fixed rates": float(np.median(fixed[-1]))}
    result |= {"best of the population": float(evolving.min()), "rates": [float(f"{rate:.2g}") for rate in rates]}
    print("median validation cost:", result)
    return result


def check(result):
    """Half of the population is better than half of the fixed rates, and its rates are within two decades."""
    assert result["population"] < 0.7 * result["fixed rates"]
    assert max(result["rates"]) < 100 * min(result["rates"])


SMALL = {"lanes": 8, "rounds": 8, "epochs": 1, "rows": 600}

if __name__ == "__main__":
    main()
