"""Laws that hold for every input, tried on inputs that hypothesis draws (the same ones every time)."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import reference
from cases import ACTIVATIONS, LOSSES, NETWORKS, N, batch, network, on_device, parameters
from hypothesis import given
from tolerances import assert_close, assert_trees_close, tolerance

import lr_nn
from lr_nn import penalties, probability
from lr_nn.types import Batch

LENGTH = 20

compiled = jax.jit(lr_nn.value_and_gradient, static_argnums=(0, 4))
seeds = st.integers(0, 2**31)
strengths = st.floats(0, 10)
probabilities = st.lists(st.floats(1e-6, 1 - 1e-6), min_size=4, max_size=4).map(np.array)
logits = st.lists(st.floats(-1e4, 1e4), min_size=4, max_size=4).map(np.array)
masses = st.lists(st.floats(1e-3, 1), min_size=4, max_size=4).map(lambda m: np.array(m) / sum(m))
networks = st.builds(
    network,
    st.sampled_from(sorted(LOSSES)),
    st.sampled_from(sorted(ACTIVATIONS)),
    st.sampled_from([1, 2, 3]),
    st.booleans(),
)


def drawn(case, seed):
    rows = batch(case, weighted=seed % 2 == 0, offset=seed % 3 == 0, seed=seed)
    return on_device(parameters(case.net, seed=seed + 1)), rows


@given(networks, seeds, strengths, strengths)
def test_the_gradient_by_hand_is_that_of_autodiff(case, seed, l1, l2):
    with jax.enable_x64(True):
        params, rows = drawn(case, seed)
        got = lr_nn.value_and_gradient(case.net, params, rows, lr_nn.Penalty(l1, l2))
        assert_trees_close(got, reference.value_and_gradient(case, params, rows, l1, l2), LENGTH)


@given(networks, seeds, st.lists(st.integers(0, N - 1), min_size=N, max_size=N))
def test_a_bootstrap_sample_is_integer_weights(case, seed, sample):
    with jax.enable_x64(True):
        params, rows = drawn(case, seed)
        counts = np.bincount(sample, minlength=N)
        repeated = jax.tree.map(lambda a: a[np.array(sample)], rows._replace(weight=None))
        assert_trees_close(
            lr_nn.value_and_gradient(case.net, params, rows._replace(weight=counts)),
            reference.value_and_gradient(case, params, repeated),
            LENGTH,
        )


@given(st.sampled_from(sorted(NETWORKS)), seeds, st.sampled_from([2, 4]))
def test_blocks_of_any_size_give_the_same_gradient(name, seed, block_size):
    with jax.enable_x64(True):
        case = NETWORKS[name]
        params, rows = drawn(case, seed)
        got = compiled(case.net, params, rows, None, block_size)
        assert_trees_close(got, reference.value_and_gradient(case, params, rows), LENGTH)


@given(networks, seeds, st.permutations(range(N)))
def test_permuting_examples_permutes_deltas(case, seed, order):
    with jax.enable_x64(True):
        params, rows = drawn(case, seed)
        moved = Batch(*(None if a is None else a[np.array(order)] for a in rows))
        deltas = lr_nn.backprop(case.net, params, rows).deltas
        permuted = lr_nn.backprop(case.net, params, moved).deltas
        assert_trees_close(permuted, jax.tree.map(lambda delta: np.asarray(delta)[np.array(order)], deltas), LENGTH)


@given(networks, seeds, strengths, strengths, st.floats(1e-3, 10))
def test_the_prox_is_a_minimum(case, seed, l1, l2, step):
    """½‖u - w‖² + step · penalty(u) at the prox is no larger than on the way to w or to zero."""
    with jax.enable_x64(True):
        params, penalty = drawn(case, seed)[0], lr_nn.Penalty(l1, l2)
        prox = penalty.prox(params, step)

        def objective(u):
            distance = sum(np.square(np.asarray(a.w) - np.asarray(b.w)).sum() for a, b in zip(u, params))
            return distance / 2 + step * float(penalty.value(on_device(u)))

        least = objective(prox)
        for target in (params, jax.tree.map(np.zeros_like, params)):
            for t in (0.01, 0.3, 1.0):
                other = jax.tree.map(
                    lambda u, v, t=t: np.asarray(u) + t * (np.asarray(v) - np.asarray(u)), prox, target
                )
                assert objective(other) >= least * (1 - tolerance(np.float64, LENGTH))


@given(strengths, st.floats(0, 1))
def test_the_elastic_net_splits_its_strength(strength, ratio):
    penalty = penalties.elastic_net(strength, ratio)
    assert_close(penalty.l1 + penalty.l2, strength, dtype=np.float64)
    assert_close(penalty.l1, penalties.l1(strength * ratio).l1, dtype=np.float64)


@given(probabilities)
def test_expit_undoes_log_odds(p):
    with jax.enable_x64(True):
        z = probability.log_odds(p)
        assert_close(probability.expit(z), p)
        assert_close(jnp.exp(z), probability.odds(p), condition=np.log(1e6))


@given(logits)
def test_an_outcome_and_its_opposite_have_probability_one(z):
    with jax.enable_x64(True):
        assert_close(probability.expit(z) + probability.expit(-z), np.ones(4))
        surprise = [probability.bernoulli_negative_log_likelihood(z, y) for y in (np.zeros(4), np.ones(4))]
        assert_close(surprise[0] - surprise[1], z)
        assert_close(surprise[1], -probability.log_expit(z))


@given(masses, masses)
def test_gibbs_inequality(p, q):
    """H(p, q) = H(p) + KL(p ‖ q), KL ≥ 0, and 0 ≤ H(p) ≤ log k."""
    with jax.enable_x64(True):
        entropy, divergence = probability.entropy(p), probability.kl_divergence(p, q)
        assert_close(probability.cross_entropy(p, q), entropy + divergence, LENGTH)
        slack = tolerance(np.float64)
        assert divergence >= -slack and -slack <= entropy <= np.log(4) + slack
