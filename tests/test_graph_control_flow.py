"""Loops, choices, linear systems, random keys and names in lr_nn.graph, opened or as one node, against autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from tolerances import assert_close

import lr_nn
from lr_nn import Batch, graph, losses

LENGTH = 60
ALL = ("jit", "scan", "while", "cond")
X, W, H = np.array([0.3, 0.5, -0.2, 0.9]), np.array([[0.5, 0.2], [0.1, -0.3]]), np.array([0.1, -0.4])


def recurrent(w, x, h):
    """Carries, rows in and out, the last row first, integers beside."""

    def step(h, row):
        h = jnp.tanh(h @ w + row[0])
        return h, (h.sum(), h * row[0], row[1])

    h, (a, b, number) = lax.scan(step, h, (x, jnp.arange(4)), reverse=True)
    return h.sum() + (a * number.astype(a.dtype)).sum() + (b**2).sum()


def grown(w, x, h):
    """A carry that only the second step makes depend on an argument."""
    zero, one = jnp.zeros(()), jnp.ones(())
    (_, last, _), rows = lax.scan(lambda c, t: ((c[1], c[0] * t + c[2], c[2] + t), c[0]), (zero, one, zero), x)
    return last * rows.sum() + h.sum()


def known_trips(w, x, h):
    return lax.fori_loop(0, 3, lambda i, h: h @ w + x[i], h).sum()


def until(w, x, h):
    """As many steps as the values ask for: five."""
    found = lax.while_loop(
        lambda c: c[1].sum() < x[0] + 3, lambda c: (c[0] + 1, c[1] * 1.5 + jnp.sin(c[1] @ w)), (0, h)
    )
    return (found[1] ** 2).sum()


def chosen(w, x, h):
    first = lax.cond(x[0] > 0, lambda h, w: jnp.sin(h) @ w, lambda h, w: h @ w, h, w)
    return first.sum() + lax.switch(jnp.array(5), [jnp.sin, jnp.cos], x).sum()


def nested(w, x, h):
    def step(h, t):
        return lax.cond(t > 0, lambda h: lax.fori_loop(0, 2, lambda _, h: jnp.sin(h @ w), h), jnp.cos, h), None

    return lax.scan(step, h, x)[0].sum()


def no_steps(w, x, h):
    last, rows = lax.scan(lambda c, t: (c * t, c), h[0], x[:0])
    return last + rows.sum()


FUNCTIONS = [recurrent, grown, known_trips, until, chosen, nested, no_steps]


@pytest.mark.parametrize("opened", [(), ALL], ids=["kept", "opened"])
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_loops_and_choices_have_the_adjoints_of_autodiff(float64, function, opened):
    at = [jnp.asarray(each) for each in (W, X, H)]
    by = jax.jacfwd if function is until else jax.grad  # autodiff has no reverse mode through `while`
    expected = jax.jit(by(function, argnums=(0, 1, 2)))(*at)
    traced = graph.trace(function, *at, opened=opened)
    kinds = {node.op for node in traced.nodes} & set(ALL)
    assert bool(kinds) == (opened == ())
    assert_close(traced.nodes[traced.outputs[0]].value, function(*at), LENGTH)
    for got, wanted in zip(traced.backward(), expected, strict=True):
        assert_close(got, wanted, LENGTH)


def test_an_opened_loop_shows_its_steps_and_a_kept_one_costs_as_much(float64):
    steps = graph.trace(known_trips, W, X, H, opened=ALL)
    kept = graph.trace(known_trips, W, X, H)
    assert sum(node.op == "dot_general" for node in steps.nodes) == 3
    scan = next(node for node in kept.nodes if node.op == "scan")
    assert scan.equation.startswith(f"{scan.name} = scan(") and "in known_trips" in scan.source
    [source] = {node.source for node in steps.nodes if node.op == "dot_general"}
    assert source.startswith("test_graph_control_flow.py") and source.endswith("in <lambda>")
    assert kept.savings().value >= 3 * 2 * 4


def test_an_operation_without_a_rule_is_named_inside_a_loop():
    with pytest.raises(NotImplementedError, match="'eigh'"):
        graph.trace(lambda x: lax.fori_loop(0, 2, lambda _, x: jnp.linalg.eigh(x)[1], x).sum(), np.eye(2))
    with pytest.raises(NotImplementedError, match="calls back to Python"):
        graph.trace(lambda x: lax.fori_loop(0, 2, lambda _, x: jax.debug.print("{x}", x=x) or x, x), 1.0)


SYSTEM = np.random.default_rng(0).normal(size=(2, 4, 4)) + 4 * np.eye(4)
RIGHT = np.random.default_rng(1).normal(size=(2, 4, 3))


@pytest.mark.parametrize("opened", [(), ("jit",)], ids=["kept", "opened"])
@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: jnp.sin(jnp.linalg.solve(a, b)).sum(),
        lambda a, b: (jnp.linalg.solve(a[0].T, b[0, :, 0]) * b[1, :, 1]).sum(),
        lambda a, b: jnp.square(jnp.linalg.inv(a) @ b).sum(),
        lambda a, b: (jax.scipy.linalg.solve(a[0] @ a[0].T, b[0], assume_a="pos") ** 2).sum() + a.sum(),
        lambda a, b: lax.custom_linear_solve(
            lambda x: a[0] @ a[0].T @ x, b[0], lambda f, y: y / 3, symmetric=True
        ).sum(),
    ],
    ids=["batch", "vector", "inverse", "positive definite", "the user's solver"],
)
def test_linear_systems_are_one_node_with_the_adjoint_of_the_transposed_system(float64, function, opened):
    expected = jax.grad(function, argnums=(0, 1))(jnp.asarray(SYSTEM), jnp.asarray(RIGHT))
    traced = graph.trace(function, SYSTEM, RIGHT, opened=opened)
    for got, wanted in zip(traced.backward(), expected, strict=True):
        assert_close(got, wanted, LENGTH, condition=10)
    if opened:
        assert sum(node.op == "linear_solve" for node in traced.nodes) == 1


def test_a_matrix_that_has_no_factor_gives_what_jax_gives():
    with np.errstate(all="raise"):
        indefinite = graph.trace(lambda a: jnp.linalg.cholesky(a).sum(), -np.eye(2, dtype=np.float32))
        singular = graph.trace(lambda a: jax.scipy.linalg.solve_triangular(a, a[0]).sum(), np.zeros((2, 2), np.float32))
    assert np.isnan(indefinite.nodes[-1].value) and np.isnan(singular.nodes[-1].value)
    assert indefinite.non_finite.op == "cholesky" and singular.non_finite.op == "triangular_solve"


def dropout(x, key):
    first, second = jax.random.split(key)
    kept = jnp.where(jax.random.bernoulli(first, 0.5, x.shape), x / 0.5, 0)
    noisy, _ = lax.scan(
        lambda c, k: (c + jax.random.normal(k, c.shape) * jnp.sin(c), None), kept, jax.random.split(second, 3)
    )
    return (noisy**2).sum() * jax.random.uniform(jax.random.fold_in(key, 3))


@pytest.mark.parametrize("opened", [(), ("jit",), ALL], ids=["kept", "jit", "opened"])
@pytest.mark.parametrize("make", [jax.random.key, lambda _: jax.random.key(4, impl="rbg"), jax.random.PRNGKey])
def test_random_numbers_are_those_of_jax_with_keys_made_inside_or_outside(float64, make, opened):
    expected = jax.jit(jax.grad(lambda x: dropout(x, make(7))))(X)
    [inside] = graph.trace(lambda x: dropout(x, make(7)), X, opened=opened).backward()
    outside, nothing = graph.trace(dropout, X, make(7), opened=opened).backward()
    assert_close(inside, expected, LENGTH)
    assert_close(outside, expected, LENGTH)
    assert nothing is None


def test_a_draw_is_one_node():
    traced = graph.trace(lambda x: x * jax.random.normal(jax.random.key(0), (3,)), np.ones(3, np.float32))
    assert [node.op for node in traced.nodes] == ["input", "constant", "random_seed", "normal", "mul"]
    assert traced.nodes[3].equation == "v3 = normal(v2)"
    assert traced.nodes[2].shape == (2,) and traced.nodes[2].dtype == np.uint32


def test_a_checkpoint_name_names_the_node_it_is_of():
    def function(x):
        hidden = checkpoint_name(jnp.sin(x), "hidden")
        again = checkpoint_name(hidden, "again")  # has a name already: a node of its own
        return again + checkpoint_name(x * hidden, "hidden")

    traced = graph.trace(function, 2.0)
    assert [node.name for node in traced.nodes] == ["x", "hidden", "again", "hidden′", "v4"]
    assert traced.nodes[1].equation == "hidden = sin x" and traced.nodes[3].equation == "hidden′ = x · hidden"
    assert_close(traced.backward()[0], jax.grad(function)(2.0), LENGTH)


def test_the_layers_of_a_network_have_the_names_of_the_field():
    net = lr_nn.mlp((3, 4, 2), lr_nn.activations.tanh, losses.categorical)
    params, batch = lr_nn.init(net, jax.random.key(0)), Batch(np.ones((5, 3), np.float32), np.array([0, 1, 0, 1, 1]))
    traced = graph.trace(lambda params: lr_nn.cost(net, params, batch), params)
    named = {node.name: node for node in traced.nodes}
    assert named["a1"].equation == "a1 = tanh z1" and named["a1"].adjoint_equations[0].startswith("δ1 += ")
    assert named["z2"].shape == (5, 2) and named["z2"].adjoint_equations[0].endswith("+= δ2")
    traced.backward()
    bp = lr_nn.backprop(net, params, batch)
    for name, delta in zip(("z1", "z2"), bp.deltas, strict=True):
        assert_close(named[name].adjoint * 5, delta, LENGTH)
    by_hand = graph.trace(lambda params: lr_nn.value_and_gradient(net, params, batch), params)
    deltas = {node.name: node.value for node in by_hand.nodes}
    assert_close(deltas["δ1"], bp.deltas[0], LENGTH)
    assert_close(deltas["δ2"], bp.deltas[1], LENGTH)
