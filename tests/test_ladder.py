"""The ladder of exactness: every quantity of a pass against autodiff, for 0 to 4 hidden layers of the whole menu.

Each network mixes activations, so that the six of them have all. The references differentiate the twins of the losses
and activations, in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from cases import ACTIVATIONS, LOSSES, NetworkCase, batch, on_device, parameters
from jax.flatten_util import ravel_pytree
from tolerances import assert_close, assert_trees_close

import lr_nn
from lr_nn import activations, curvature, per_example
from lr_nn.network import Network

WIDTHS = (4, 5, 4, 3, 5)
LADDER = {
    "categorical": (),
    "huber": ("silu",),
    "bernoulli": ("gelu", "softsign"),
    "squared_error of sigmoid": ("sine", "leaky_relu", "sigmoid"),
    "poisson": ("gelu_tanh", "tanh", "identity"),
    "squared_error": ("relu", "softplus", "elu", "step"),
}
LENGTH = 60


def rung(loss):
    hidden = [ACTIVATIONS[name] for name in LADDER[loss]]
    sizes = (*WIDTHS[: len(hidden) + 1], 3)
    net = Network(sizes, [row.activation for row in hidden], LOSSES[loss].loss, bias=loss != "poisson")
    return NetworkCase(net, tuple(row.twin for row in hidden), LOSSES[loss])


ladder = pytest.mark.parametrize("loss", LADDER)
weighting = pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])


def test_the_ladder_has_every_activation():
    assert {name for hidden in LADDER.values() for name in hidden} == set(ACTIVATIONS)
    assert {len(hidden) for hidden in LADDER.values()} == set(range(5))


@jax.jit(static_argnums=0)
def by_autodiff(case, params, rows, v):
    """J, ∇J, per-example gradients, H v, G v, E v and the tangent kernel, from whole Jacobians."""
    flat, unravel = ravel_pytree(params)
    s = rows.weight / rows.weight.sum()

    def eta(flat):
        return reference._outputs(case, unravel(flat), rows.x)[-1]

    def losses(flat):
        return case.loss.twin(eta(flat), rows.y)

    jacobian, each = jax.jacobian(eta)(flat), jax.jacobian(losses)(flat)
    units = jnp.eye(3)[:, None, :] * jnp.ones((1, len(rows.x), 1))
    fisher = case.net.loss.fisher_multiply(eta(flat), units)
    moved = jacobian @ v
    return {
        "cost": s @ losses(flat),
        "gradient": s @ each,
        "gradients": each,
        "hessian": jax.jvp(jax.grad(lambda flat: s @ losses(flat)), (flat,), (v,))[1],
        "ggn": jnp.einsum("n,ncp,enc,ne->p", s, jacobian, fisher, moved),
        "empirical_fisher": (s * (each @ v)) @ each,
        "ntk": jnp.einsum("ncp,mep->nmce", jacobian, jacobian),
    }


@ladder
@weighting
def test_every_quantity_of_a_pass_is_that_of_autodiff(float64, loss, weighted):
    case = rung(loss)
    params, rows = on_device(parameters(case.net)), on_device(batch(case, weighted=weighted))
    v = ravel_pytree(on_device(parameters(case.net, seed=7)))[0]

    @jax.jit
    def by_hand(params, rows, v):
        bp = lr_nn.backprop(case.net, params, rows)
        at = (case.net, params, rows)
        operators = {name: getattr(curvature, name)(*at) @ v for name in ("hessian", "ggn", "empirical_fisher")}
        each = jax.vmap(lambda tree: ravel_pytree(tree)[0])(per_example.gradients(bp))
        cost, gradient = lr_nn.value_and_gradient(*at)
        found = {"cost": cost, "gradient": ravel_pytree(gradient)[0], "gradients": each, **operators}
        return {**found, "ntk": curvature.ntk(case.net, params, rows.x)}

    weight = jnp.ones(len(rows.x)) if rows.weight is None else rows.weight
    found, expected = by_hand(params, rows, v), by_autodiff(case, params, rows._replace(weight=weight), v)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(found[name], value, LENGTH, condition=4)


@ladder
def test_derivatives_through_a_gradient_by_hand_are_those_through_autodiff(float64, loss):
    """A step of descent (MAML): the derivative of the cost after it by parameters, weights, strength and rate."""
    case = rung(loss)
    params, rows = on_device(parameters(case.net)), on_device(batch(case, weighted=True))

    def after(gradient):
        def cost(params, weight, strength, rate):
            train, penalty = rows._replace(weight=weight), lr_nn.penalties.l2(strength)
            moved = jax.tree.map(lambda p, g: p - rate * g, params, gradient(params, train, penalty))
            return lr_nn.cost(case.net, moved, rows)

        return jax.jit(jax.grad(cost, argnums=(0, 1, 2, 3)))(params, rows.weight, 0.3, 0.1)

    by_hand = after(lambda *at: lr_nn.value_and_gradient(case.net, *at)[1])
    autodiff = after(jax.grad(lambda *at: lr_nn.cost(case.net, *at)))
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(autodiff))
    for one, other in zip(jax.tree.leaves(by_hand), jax.tree.leaves(autodiff), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12 * scale)


def test_only_an_activation_that_asks_for_z_pays_memory_for_it():
    """Activations of two layers and a delta at a time take 3 · 131,072 bytes; where z is kept, two layers more."""

    def memory(hidden):
        net = lr_nn.mlp((20, 64, 64, 3), hidden)
        params = jax.eval_shape(lambda: lr_nn.init(net, jax.random.key(0)))
        rows = lr_nn.Batch(*(jax.ShapeDtypeStruct((512, width), jnp.float32) for width in (20, 3)))
        bp = jax.eval_shape(lr_nn.backprop, net, params, rows)
        assert [z is not None for z in bp.preactivations[1:]] == [hidden.keeps == "z"] * 2
        program = jax.jit(lambda *at: lr_nn.value_and_gradient(net, *at)).lower(params, rows).compile()
        return program.memory_analysis().temp_size_in_bytes

    sigmoid, relu = memory(activations.sigmoid), memory(activations.relu)
    layer = 512 * 64 * 4
    assert sigmoid == relu <= 3.1 * layer
    for hidden in (activations.silu, activations.gelu):
        assert sigmoid + 2 * layer <= memory(hidden) <= sigmoid + 2.1 * layer


def test_a_pass_of_another_activation_is_refused():
    net, other = lr_nn.mlp((4, 5, 3), activations.sigmoid), lr_nn.mlp((4, 5, 3), activations.gelu)
    params, x = on_device(parameters(net), jnp.float32), np.ones((2, 4))
    seed = np.ones((2, 3))
    for one, two in ((net, other), (other, net)):
        forward = lr_nn.forward(one, params, x)
        assert_trees_close(forward.kept[0], forward.preactivations[1] if one is other else forward.activations[1])
        with pytest.raises(ValueError, match="pre-activations where the derivative of the activation needs them"):
            lr_nn.pullback(two, params, forward, seed)
