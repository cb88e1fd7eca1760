"""Nested calls in lr_nn.graph: opened, or kept as one node with the derivative of their author."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from tolerances import assert_close, tolerance

from lr_nn import graph

LENGTH = 20
CHOICES = [(), ("jit",), ("jit", "custom_jvp"), ("custom_jvp", "custom_vjp"), ("jit", "custom_jvp", "custom_vjp")]
choices = pytest.mark.parametrize("opened", CHOICES, ids=lambda opened: "+".join(opened) or "none")
X = np.array([[-1.5, 0.25, 2.0], [0.5, -0.75, 1.0]])


@jax.custom_vjp
def odd(x, y):
    """x y, with a derivative that is deliberately wrong."""
    return x * y


def _odd_forward(x, y):
    return x * y, (x, jnp.cos(y))


def _odd_backward(saved, g):
    x, cosine = saved
    return 7 * g * cosine, g * x


odd.defvjp(_odd_forward, _odd_backward)


@jax.custom_jvp
def pair(x, y):
    """x y and x + y, with derivatives of its own."""
    return x * y, x + y


@pair.defjvp
def _pair_jvp(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    return pair(x, y), (3 * dx * y + jnp.sin(x) * dy, dx - dy)


def ops(traced):
    return {node.op for node in traced.nodes}


@choices
@pytest.mark.parametrize(
    "function",
    [
        jax.nn.relu,
        jax.nn.silu,
        jax.nn.gelu,
        jax.nn.softmax,
        jax.nn.logsumexp,
        jax.nn.log_softmax,
        jax.nn.elu,
        jax.nn.selu,
    ],
    ids=lambda function: function.__name__,
)
def test_functions_of_jax_nn_have_their_derivatives_opened_or_kept(float64, function, opened):
    expected = jax.grad(lambda x: (function(x) * 1.5).sum())(jnp.asarray(X))
    [got] = graph.trace(lambda x: (function(x) * 1.5).sum(), X, opened=opened).backward()
    assert_close(got, expected, LENGTH)


def test_relu_at_zero_obeys_its_author_unless_it_is_opened():
    kept = graph.trace(jax.nn.relu, 0.0)
    opened = graph.trace(jax.nn.relu, 0.0, opened=("jit", "custom_jvp"))
    assert kept.backward() == (jax.grad(jax.nn.relu)(0.0),) == (0,)
    assert opened.backward() == (0.5,)  # max(x, 0) is at a tie
    assert [node.op for node in kept.nodes] == ["input", "relu"]
    assert [node.op for node in opened.nodes] == ["input", "constant", "max"]
    assert kept.nodes[1].equation == "v1 = relu(x)"


def test_a_custom_vjp_that_is_kept_is_obeyed_and_opened_is_passed_over(float64):
    def function(x, y):
        return (odd(x, y) * 2).sum()

    expected = jax.grad(function, argnums=(0, 1))(X, 2 * X)
    for got, wanted in zip(graph.trace(function, X, 2 * X).backward(), expected):
        assert_close(got, wanted, LENGTH)
    by_x, by_y = graph.trace(function, X, 2 * X, opened=("custom_vjp",)).backward()
    assert_close(by_x, 4 * X)
    assert_close(by_y, 2 * X)


def test_a_custom_jvp_of_several_results_is_swept_through_its_own_pushforward(float64):
    def function(x, y):
        product, total = pair(x, jnp.exp(y))
        return (product * 1.5 + total**2).sum()

    expected = jax.grad(function, argnums=(0, 1))(X, X)
    traced = graph.trace(function, X, X)
    for got, wanted in zip(traced.backward(), expected):
        assert_close(got, wanted, LENGTH)
    first, second = (node for node in traced.nodes if node.op == "pair")
    assert first.equation == f"{first.name} = pair(x, v2)[0]" and second.equation == f"{second.name} = pair(x, v2)[1]"


def test_a_custom_jvp_with_static_arguments_and_symbolic_zeros(float64):
    @jax.custom_jvp
    def scaled(x, labels):
        return x * labels[None]

    def jvp(primals, tangents):
        x, labels = primals
        return scaled(x, labels), 5 * tangents[0] * labels[None]

    scaled.defjvp(jvp, symbolic_zeros=True)
    labels = np.array([0.0, 1.0, 2.0])
    [got] = graph.trace(lambda x: scaled(x, labels).sum(), X).backward()
    assert_close(got, np.broadcast_to(5 * labels, X.shape))


def test_a_custom_vjp_that_saves_closes_over_and_hands_back_none(float64):
    @jax.custom_vjp
    def picked(x, index, unused):
        return x[index]

    def forward(x, index, unused):
        return x[index], (index, jnp.zeros_like(x))

    def backward(saved, g):
        index, zeros = saved
        return zeros.at[index].add(11 * g), None, None

    picked.defvjp(forward, backward)

    def function(x, unused):
        return picked(jnp.sin(x), jnp.array(2), unused)

    expected = jax.grad(function)(X[0], 1.0)
    got, unused = graph.trace(function, X[0], 1.0).backward()
    assert_close(got, expected, LENGTH)
    assert unused == 0


@choices
def test_calls_in_calls_and_checkpoint_are_calls_like_others(float64, opened):
    @jax.jit
    def inner(x, w):
        return jnp.tanh(x @ w), w.sum()

    @jax.checkpoint
    def middle(x, w):
        a, total = inner(x, w)
        return jax.nn.relu(a) * total

    def function(x, w):
        return jax.jit(middle)(x, w).sum() + inner(x, w)[1]

    w = np.linspace(-1, 1, 6).reshape(3, 2)
    expected = jax.grad(function, argnums=(0, 1))(X, w)
    traced = graph.trace(function, X, w, opened=opened)
    for got, wanted in zip(traced.backward(), expected):
        assert_close(got, wanted, LENGTH)
    assert ("middle" in ops(traced)) == ("jit" not in opened)


def test_a_kept_call_costs_what_its_body_costs():
    square = jax.jit(lambda x: x @ x)
    x = np.ones((4, 4), np.float32)
    kept, opened = (graph.trace(lambda x: square(x).sum(), x, opened=o).savings() for o in ((), ("jit",)))
    assert kept.value == opened.value == 2 * 4**3 + 16


def test_a_rule_of_the_user_goes_first_by_primitive_or_by_call():
    loud = graph.rule("sin", np.sin, lambda g, value, x: 100 * g, equation="SIN {0}", adjoints=["100 {bar}"])
    traced = graph.trace(jnp.sin, 2.0, rules=[loud])
    assert traced.backward() == (100,)
    assert traced.nodes[1].equation == "v1 = SIN x"
    own = graph.rule("relu", lambda x: np.maximum(x, 0), lambda g, value, x: g * 0.25)
    traced = graph.trace(lambda x: jax.nn.relu(x) * 2, -3.0, rules=[own], opened=("jit", "custom_jvp"))
    assert traced.backward() == (0.5,)
    assert traced.nodes[1].equation == "v1 = relu(x)"


def test_a_rule_of_the_user_fills_a_gap():
    bessel = graph.rule(
        "bessel_i0e",
        scipy.special.i0e,
        lambda g, value, x: g * (scipy.special.i1e(x) - np.sign(x) * value),
        equation="I₀({0}) exp -|{0}|",
    )

    def function(x):
        return jax.scipy.special.i0e(x).sum()

    with pytest.raises(NotImplementedError, match=r"'bessel_i0e' \(test_graph_calls\.py"):
        graph.trace(function, X)
    [got] = graph.trace(function, X, rules=[bessel]).backward()
    assert_close(got, jax.grad(function)(X), LENGTH, np.float32)


def test_what_needs_no_derivative_needs_no_rule():
    def function(x, bits):
        shifted = jax.lax.shift_left(bits, jnp.array([1, 2, 3]))
        total = jax.lax.fori_loop(0, 3, lambda i, t: t + bits[i], 0)
        place = jnp.searchsorted(jnp.arange(3.0), x)  # a loop, whose result is of whole numbers
        return (x * (shifted + total + place - 1).astype(x.dtype)).sum()

    x, bits = np.ones(3, np.float32), np.array([1, 2, 3], np.int32)
    got, nothing = graph.trace(function, x, bits).backward()
    assert nothing is None
    np.testing.assert_array_equal(got, [2 + 6, 8 + 6, 24 + 6])


def test_the_source_is_the_line_of_the_user_even_inside_functions_of_jax():
    def first(x):
        return jnp.where(x > 0, x, 0.0).sum()

    def second(x):
        return jnp.where(x > 0, x, 0.0).sum()

    x = np.ones(5, np.float32)
    for function in (first, second):
        [chosen] = [node for node in graph.trace(function, x).nodes if node.op == "select_n"]
        line = function.__code__.co_firstlineno + 1
        assert chosen.source == f"test_graph_calls.py:{line} in {function.__name__}"
    inner = jax.jit(lambda x: jnp.sin(x))  # noqa: PLW0108
    [sine] = [node for node in graph.trace(lambda x: inner(x) * 2, 1.0).nodes if node.op == "sin"]
    assert sine.source == f"test_graph_calls.py:{inner.__wrapped__.__code__.co_firstlineno} in <lambda>"


def test_the_gradient_of_a_graph_is_the_same_with_and_without_x64():
    def function(x):
        return jax.nn.logsumexp(jax.nn.silu(x) * 3).sum()

    with jax.enable_x64(True):
        wide = graph.trace(function, X)
    [narrow], [exact] = graph.trace(function, X).backward(), wide.backward()
    assert (narrow.dtype, exact.dtype) == (np.float32, np.float64)
    assert abs(narrow - exact).max() < tolerance(np.float32, LENGTH)
