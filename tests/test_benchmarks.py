"""Every competitor of a benchmark computes what ours does, so that a ratio compares the same work."""

import jax
import jax.numpy as jnp
import pytest
from tolerances import assert_trees_close

import lr_nn
from benchmarks import curvature, per_example
from lr_nn import losses

NET, N = lr_nn.mlp((6, 5, 4, 3), loss=losses.categorical), 9
LENGTH = 300


@pytest.fixture(autouse=True)
def as_users_write():
    """Peers are written as their users write them, not in our strict style."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def data():
    keys = jax.random.split(jax.random.key(0), 4)
    x, y = jax.random.normal(keys[0], (N, 6)), jax.random.randint(keys[1], (N,), 0, 3)
    return lr_nn.init(NET, keys[2]), x, y, lr_nn.init(NET, keys[3])


def test_peers_of_per_example_quantities(data):
    *at, _ = data
    ours = {name: function(*at) for name, function in per_example.quantities(NET).items()}
    gradient, norms = ours["gradient + all norms"]
    assert_trees_close(gradient, ours["gradient"], LENGTH)
    for peer in (per_example.norms_by_vmap, per_example.norms_by_perturbation):
        assert_trees_close(peer(*at), (gradient, norms), LENGTH)
    assert (jnp.sqrt(norms) > per_example.MAX_NORM).any(), "clipping is at work"
    for peer in (per_example.clipped_by_vmap, per_example.clipped_by_optax):
        assert_trees_close(peer(*at), ours["clipped gradient"], LENGTH)


def test_peers_of_curvature(data):
    ours, peers = curvature.by_hand(NET, jax.random.key(0)), curvature.by_autodiff()
    for name, of in (
        ("Hessian product by jvp of grad", "Hessian product"),
        ("GGN product by linearize", "GGN product"),
        ("GGN product by jvp and vjp", "GGN product"),
    ):
        assert_trees_close(peers[name](*data), ours[of](*data), LENGTH)
