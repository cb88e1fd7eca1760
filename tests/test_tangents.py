"""The R-operator against jax.jvp, and as the adjoint of the pullback."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from cases import ACTIVATIONS, NETWORKS, K, N, batch, network, on_device, parameters
from tolerances import assert_close, assert_trees_close

import lr_nn
from lr_nn import tangents
from lr_nn.types import Layer

LENGTH = 20
# All activations below two losses, for the R-pass does not see the loss; and the networks without a bias.
CASES = {f"{name}, 3 layers": network("squared_error", name, depth=3) for name in ACTIVATIONS} | NETWORKS
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
networks = pytest.mark.parametrize("case", NETWORKS.values(), ids=NETWORKS)


@reference.in_float64
@reference.compiled
def pushed(case, params, x, v):
    """(ż_1, ..., ż_L) by jax.jvp."""

    def pre_activations(params):
        outputs = reference._outputs(case, params, x)
        zs = (jnp.einsum("ni,io->no", a, w) for a, (w, _) in zip(outputs, params))
        return tuple(z if b is None else z + b[None] for z, (_, b) in zip(zs, params))

    return jax.jvp(pre_activations, (params,), (v,))[1]


def setting(case, seed=1):
    params, v, rows = parameters(case.net), parameters(case.net, seed=7), batch(case, seed=seed)
    return params, v, rows, lr_nn.backprop(case.net, on_device(params), rows)


def dot(a, b):
    return sum((np.asarray(p) * np.asarray(q)).sum() for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


@every_case
def test_pushforward_is_the_jvp_of_every_pre_activation(float64, case):
    params, v, rows, bp = setting(case)
    got = tangents.pushforward(case.net, on_device(params), bp.forward, on_device(v))
    assert_trees_close(got, pushed(case, params, rows.x, v), LENGTH)


@networks
def test_pushforward_is_the_adjoint_of_the_pullback(float64, case):
    """⟨seed, ż_L⟩ = ⟨Σ_i a_i δ_iᵀ of that seed, v⟩."""
    params, v, _, bp = setting(case)
    seed = np.random.default_rng(2).normal(size=(N, K))
    z_dot = tangents.pushforward(case.net, on_device(params), bp.forward, on_device(v))[-1]
    deltas = lr_nn.pullback(case.net, on_device(params), bp.forward, jnp.asarray(seed))
    pulled = tuple(
        Layer(np.asarray(a).T @ np.asarray(d), np.asarray(d).sum(axis=0) if case.net.bias else None)
        for a, d in zip(bp.activations, deltas)
    )
    size = np.linalg.norm(seed) * np.linalg.norm(z_dot)
    assert_close([(seed * z_dot).sum(), size], [dot(pulled, v), size], LENGTH, np.float64)


@networks
def test_the_inner_product_with_every_gradient_needs_no_gradient(float64, case):
    _, v, _, bp = setting(case)
    gradients = lr_nn.per_example.gradients(bp)
    expected = sum(
        (np.asarray(g) * p[None]).reshape(N, -1).sum(axis=1)
        for g, p in zip(jax.tree.leaves(gradients), jax.tree.leaves(v))
    )
    assert_close(lr_nn.per_example.inner_products(bp, on_device(v)), expected, LENGTH)


def test_pushforward_is_linear_in_the_tangents_under_jit(float64):
    case = NETWORKS["categorical, relu, 3 layers"]
    params, v, _, bp = setting(case)
    u = parameters(case.net, seed=8)
    push = jax.jit(lambda v: tangents.pushforward(case.net, on_device(params), bp.forward, v))
    first, second = push(on_device(u)), push(on_device(v))
    mixture = push(on_device(jax.tree.map(lambda a, b: 2 * a - 3 * b, u, v)))
    assert_trees_close(mixture, jax.tree.map(lambda a, b: 2 * np.asarray(a) - 3 * np.asarray(b), first, second), LENGTH)


NET = lr_nn.mlp((4, 5, 3))


def push(tangents_of=NET, pass_of=NET):
    params, v, theirs = (on_device(parameters(net), jnp.float32) for net in (NET, tangents_of, pass_of))
    return tangents.pushforward(NET, params, lr_nn.forward(pass_of, theirs, jnp.ones((N, 4))), v)


REFUSALS = {
    "tangents of another network": (
        lambda: push(lr_nn.mlp((4, 4, 3))),
        ValueError,
        r"^tangents do(es)? not fit.*expected shapes.*got.*\(4, 4\)",
    ),
    "tangents too few": (lambda: push(lr_nn.logistic_regression(4, 3)), ValueError, "^tangents .*expected shapes"),
    "a pass of other widths": (lambda: push(pass_of=lr_nn.mlp((4, 6, 3))), ValueError, "widths"),
    "a pass of another depth": (lambda: push(pass_of=lr_nn.logistic_regression(4, 3)), ValueError, "widths"),
}


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS.values(), ids=REFUSALS)
def test_bad_input_is_refused(call, error, message):
    assert push()
    with pytest.raises(error, match=message):
        call()
