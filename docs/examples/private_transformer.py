"""DP-SGD on a transformer: a budget of privacy spent on a model that is not a Network (Abadi et al., 2016).

The function of the model calls taps where its layers meet their parameters. One backward pass then gives the norms of
the examples' gradients without the gradients themselves (Li et al., 2022), so a private step costs about as much as
an ordinary one. The data are sequences that repeat a random pattern; attention has to find where it began.
"""

import jax
import jax.numpy as jnp
import optax

from lr_nn import private, taps

VOCABULARY, POSITIONS, WIDTH, HEADS = 8, 16, 64, 4
DELTA, MAX_NORM = 1e-5, 1.0


def sequences(key, n):
    """n sequences (n, POSITIONS + 1) of period 3."""
    patterns = jax.random.randint(key, (n, 3), 0, VOCABULARY)
    return patterns[:, jnp.arange(POSITIONS + 1) % 3]


def init(key):
    """One block of attention and dense layers."""
    shapes = {
        "tokens": (VOCABULARY, WIDTH),
        "positions": (POSITIONS, WIDTH),
        "qkv": (WIDTH, 3 * WIDTH),
        "mix": (WIDTH, WIDTH),
        "up": (WIDTH, 2 * WIDTH),
        "down": (2 * WIDTH, WIDTH),
        "out": (WIDTH, VOCABULARY),
    }
    keys = jax.random.split(key, len(shapes))
    return {name: jax.random.normal(k, shape) / shape[0] ** 0.5 for k, (name, shape) in zip(keys, shapes.items())}


def logits(tap, params, ids):
    """Scores of the next token at every position, (n, T, VOCABULARY)."""
    n, positions = ids.shape
    h = tap.embedding(ids, params["tokens"])
    h = h + tap.embedding(jnp.broadcast_to(jnp.arange(positions), ids.shape), params["positions"])
    qkv = tap.dense(jax.nn.standardize(h), params["qkv"]).reshape(n, positions, 3, HEADS, -1)
    mixed = jax.nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], is_causal=True)
    h = h + tap.dense(mixed.reshape(n, positions, WIDTH), params["mix"])
    h = h + tap.dense(jax.nn.gelu(tap.dense(jax.nn.standardize(h), params["up"])), params["down"])
    return tap.dense(jax.nn.standardize(h), params["out"])


def losses(tap, params, tokens):
    """The mean cross-entropy of the tokens of each sequence that its pattern decides, (n,)."""
    found = optax.softmax_cross_entropy_with_integer_labels(logits(tap, params, tokens[:, :-1]), tokens[:, 1:])
    return found[:, 2:].mean(axis=1)


def accuracy(params, tokens):
    """The share of decided tokens that are predicted."""
    return (logits(taps.plain, params, tokens[:, :-1]).argmax(axis=2) == tokens[:, 1:])[:, 2:].mean()


def main(n=10_000, batch=250, steps=200, noise=0.65):
    """Accuracy on new sequences after `steps` of noise multiplier `noise`, and without noise or clipping."""
    rate = batch / n
    epsilon = private.epsilon(noise_multiplier=noise, sampling_rate=rate, steps=steps, delta=DELTA)
    data, new = sequences(jax.random.key(0), n), sequences(jax.random.key(1), 1000)
    capacity, optimizer = private.poisson_capacity(n, rate), optax.adam(3e-3)

    def step(carry, key, max_norm, multiplier):
        params, state = carry
        drawn = private.poisson_batch(key, n, rate, capacity)
        bp = taps.backprop(losses, params, data[drawn.rows], weight=drawn.weight)
        of_noise = jax.random.fold_in(key, 1)
        gradient = private.private_gradient(
            bp, of_noise, max_norm=max_norm, noise_multiplier=multiplier, expected_batch_size=batch
        )
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def train(max_norm, multiplier):
        start = init(jax.random.key(2))
        keys = jax.random.split(jax.random.key(3), steps)
        carry = start, optimizer.init(start)
        return jax.lax.scan(lambda carry, key: step(carry, key, max_norm, multiplier), carry, keys)[0][0]

    result = {
        f"private, epsilon = {epsilon:.1f}": float(accuracy(train(MAX_NORM, noise), new)),
        "not private": float(accuracy(train(1e6, 0.0), new)),
        "guessing": 1 / VOCABULARY,
    }
    print(f"accuracy after {steps} steps:", result)
    return result


def check(result):
    """The private model predicts most of the decided tokens, the other one nearly all."""
    private_accuracy, open_accuracy, _ = result.values()
    assert private_accuracy > 0.5 and open_accuracy > 0.95


SMALL = {"n": 2000, "batch": 100, "steps": 50, "noise": 0.4}

if __name__ == "__main__":
    main()
