"""Data pruning: which half of the images is worth training on? GraNd and EL2N scores (Paul et al., 2021).

Early in training, averaged over several starts, an example's gradient norm ‖g_i‖ (GraNd) and its error ‖p - y‖ (EL2N)
say how much it will teach. Both come from one backward pass, `per_example.squared_norms` and the deltas of the last
layer, without a gradient per example. MNIST is read from the folder LR_NN_DATA, if it is set.
"""

import os

import jax
import numpy as np
import optax
from sklearn.datasets import load_digits

import lr_nn
from lr_nn import Batch, activations, losses, per_example

ADAM = optax.adam(1e-3)


def images():
    """Half of MNIST's 10,000 test images from the folder LR_NN_DATA, or of the digits of scikit-learn, and the rest."""
    folder = os.environ.get("LR_NN_DATA")
    if folder:
        rows = lr_nn.data.idx(*(f"{folder}/t10k-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")))
        x, y = rows.read(0, len(rows))[:2]
    else:
        digits = load_digits()
        x, y = digits.data / 16, digits.target
    order = np.random.default_rng(0).permutation(len(x))
    return [Batch(np.asarray(x)[half].astype(np.float32), np.asarray(y)[half]) for half in np.array_split(order, 2)]


def trained(net, data, epochs, starts, key):
    """Lanes of `starts` networks after `epochs`."""
    params = jax.vmap(lambda key: lr_nn.init(net, key))(jax.random.split(key, starts))
    return lr_nn.train_many(net, params, data, optimizer=ADAM, epochs=epochs, batch_size=64, key=key).params


@jax.jit
def scores(net, params, data):
    """The mean over lanes of ‖g_i‖ and of ‖p - y‖, (n,) each."""

    def of_lane(params):
        bp = lr_nn.backprop(net, params, data)
        return per_example.squared_norms(bp) ** 0.5, (bp.deltas[-1] ** 2).sum(axis=1) ** 0.5

    return dict(zip(("GraNd", "EL2N"), (each.mean(axis=0) for each in jax.vmap(of_lane)(params))))


def main(epochs=30, early=3, starts=8, keep=0.5, hidden=(128,)):
    """Test accuracy of networks that saw the images of highest scores, of lowest EL2N, random ones, and all."""
    train, test = images()
    net = lr_nn.mlp((train.x.shape[1], *hidden, 10), activations.relu, losses.categorical)
    found = jax.device_get(scores(net, trained(net, train, early, starts, jax.random.key(0)), train))
    n, size = len(train.x), int(keep * len(train.x))
    kept = {name: np.argsort(-each)[:size] for name, each in found.items()}
    kept |= {"lowest EL2N": np.argsort(found["EL2N"])[:size], "random": np.arange(size), "all": np.arange(n)}
    result = {}
    for name, rows in kept.items():
        longer = round(epochs * n / len(rows))  # as many steps for all
        params = trained(net, Batch(train.x[rows], train.y[rows]), longer, starts, jax.random.key(1))
        accuracy = jax.vmap(lambda params: lr_nn.training.metrics(net, params, test)["accuracy"])(params)
        result[name] = float(accuracy.mean())
    print(f"test accuracy with {keep:.0%} of {n} images:", result)
    return result


def check(result):
    """The images of high scores teach what those of low scores don't, and as much as random ones at least."""
    high = (result["GraNd"] + result["EL2N"]) / 2
    assert high > result["lowest EL2N"] + 0.01 and high > result["random"] - 0.003


SMALL = {"epochs": 60, "early": 10, "starts": 3, "keep": 0.7, "hidden": (64,)}

if __name__ == "__main__":
    main()
