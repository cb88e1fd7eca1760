"""Soft targets: label smoothing (Szegedy et al., 2016) and distillation (Hinton et al., 2015).

Targets of the categorical loss may be distributions, rows y (n, k): ℓ = Σ_c y_c (lse η - η_c), and the residual is
p - y. Smoothed labels are (1 - ε) y + ε / k. A student learns the probabilities of a teacher that has seen all labels,
softmax(η / T) at a temperature T, and its own logits are divided by T as well: a scaled output layer.
"""

import jax
import numpy as np
import optax
from sklearn.datasets import load_digits

import lr_nn
from lr_nn import Batch, activations, losses

ADAM = optax.adam(3e-3)


def trained(net, key, x, y, epochs):
    """Parameters after `epochs` of mini-batches."""
    options = {"optimizer": ADAM, "epochs": epochs, "batch_size": 32, "key": key}
    return lr_nn.train(net, lr_nn.init(net, key), Batch(x, y), **options).params


def distilled(student, key, x, logits, temperature, epochs):
    """A student of softmax(logits / T), whose logits are T times those it learned."""
    params = trained(student, key, x, jax.nn.softmax(logits / temperature), epochs)
    return (*params[:-1], jax.tree.map(lambda leaf: temperature * leaf, params[-1]))


def main(epochs=100, labelled=200, seeds=5, smoothing=0.1, temperature=4.0):
    """Test accuracy and cost of small networks taught by few labels, smoothed labels, and a teacher."""
    digits = load_digits()
    x, y = (digits.data / 16).astype(np.float32), digits.target
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    test = Batch(x[1000:], y[1000:])
    teacher = lr_nn.mlp((64, 128, 128, 10), activations.relu, losses.categorical)
    student = lr_nn.mlp((64, 16, 10), activations.relu, losses.categorical)
    taught = trained(teacher, jax.random.key(0), x[:1000], y[:1000], epochs)
    logits, few = lr_nn.forward(teacher, taught, x[:labelled]).eta, x[:labelled]
    hard = np.eye(10, dtype=np.float32)[y[:labelled]]
    scores = {"hard labels": [], "smoothed labels": [], "distilled": []}
    for key in jax.random.split(jax.random.key(1), seeds):
        each = {
            "hard labels": trained(student, key, few, hard, epochs),
            "smoothed labels": trained(student, key, few, (1 - smoothing) * hard + smoothing / 10, epochs),
            "distilled": distilled(student, key, few, logits, temperature, epochs),
        }
        for name, params in each.items():
            measured = lr_nn.training.metrics(student, params, test)
            scores[name].append((float(measured["accuracy"]), float(measured["log_loss"])))
    result = {name: tuple(np.mean(each, axis=0).tolist()) for name, each in scores.items()}
    print(f"accuracy and cost on {len(test.x)} images, from {labelled} labels:", result)
    return result


def check(result):
    """A teacher's targets say more than labels: the student is right more often."""
    assert result["distilled"][0] > result["hard labels"][0]


SMALL = {"seeds": 2}

if __name__ == "__main__":
    main()
