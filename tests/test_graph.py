"""lr_nn.graph on the cases of the textbooks, on networks, and on random programs."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import ACTIVATIONS, NETWORKS, N, batch, network, on_device, parameters
from hypothesis import given
from hypothesis import strategies as st
from tolerances import assert_close, assert_trees_close

import lr_nn
from lr_nn import graph
from lr_nn.graph.wording import bar

LENGTH = 20


def adjoints(function, *args, **options):
    return graph.trace(function, *args, **options).backward()


def node_of(traced, op, **fields):
    """The one node of an operation."""
    [found] = [node for node in traced.nodes if node.op == op and all(getattr(node, k) == v for k, v in fields.items())]
    return found


def test_the_textbook_graph_of_3_times_a_plus_bc():
    """J = 3(a + bc) at a = 5, b = 3, c = 2: u = bc = 6, v = a + u = 11, J = 33."""
    traced = graph.trace(lambda a, b, c: 3 * (a + b * c), 5.0, 3.0, 2.0)
    a, b, c, u, v, three, j = traced.nodes
    assert [node.op for node in traced.nodes] == ["input"] * 3 + ["mul", "add", "constant", "mul"]
    assert [node.name for node in traced.nodes] == ["a", "b", "c", "v3", "v4", "3.0", "v6"]
    assert (u.value, v.value, j.value) == (6, 11, 33) and traced.outputs == (6,)
    assert (u.operands, v.operands, j.operands) == ((1, 2), (0, 3), (5, 4))
    assert all(node.adjoint is None for node in traced.nodes)
    assert traced.backward() == (3, 6, 9)
    assert [node.adjoint for node in (a, b, c, u, v, j)] == [3, 6, 9, 3, 3, 1]
    assert three.adjoint is None
    assert u.equation == "v3 = b · c" and j.equation == "v6 = 3.0 · v4" and a.equation == ""
    assert u.adjoint_equations == (f"{bar('b')} += {bar('v3')} · c", f"{bar('c')} += {bar('v3')} · b")
    assert v.adjoint_equations == (f"{bar('a')} += {bar('v4')}", f"{bar('v3')} += {bar('v4')}")
    assert j.adjoint_equations == ("", f"{bar('v4')} += {bar('v6')} · 3.0")
    assert {node.source.split(":")[0] for node in (u, v, j)} == {"test_graph.py"}


def test_a_second_sweep_gives_the_same_and_nothing_adds_up():
    traced = graph.trace(lambda a, b: a * b + a, 5.0, 3.0)
    assert traced.backward() == traced.backward() == (4, 5)
    traced.backward()[0][...] = 7
    assert traced.nodes[0].adjoint == 4


def test_a_fan_out_adds_the_gradients_of_its_branches():
    assert adjoints(lambda x: x * x, 3.0) == (6,)
    [total] = adjoints(lambda x: jnp.sin(x) + 2 * x + x**3, 3.0)
    assert_close(total, np.float32(np.cos(3) + 2 + 27))


def test_add_distributes_copy_adds_up_max_routes_and_multiply_switches():
    assert adjoints(lambda x, y: 7 * (x + y), 2.0, 5.0) == (7, 7)
    [copied] = adjoints(lambda x: (jnp.arange(4.0) * jnp.broadcast_to(x, (4,))).sum(), 2.0)
    assert copied == 0 + 1 + 2 + 3
    assert adjoints(lambda x, y: 7 * jnp.maximum(x, y), 2.0, 5.0) == (0, 7)
    assert adjoints(lambda x, y: 7 * jnp.maximum(x, y), 5.0, 5.0) == (3.5, 3.5)
    assert adjoints(lambda x, y: x * y, 2.0, 5.0) == (5, 2)


@pytest.mark.parametrize("y", [0.0, 1.0])
def test_the_logistic_graph_gives_a_minus_y(float64, y):
    """ℓ = -y log a - (1 - y) log(1 - a): ∂ℓ/∂a = -y/a + (1 - y)/(1 - a), ∂ℓ/∂z = a - y."""

    def loss(w1, x1, w2, x2, b):
        a = jax.lax.logistic(w1 * x1 + w2 * x2 + b)
        return -(y * jnp.log(a) + (1 - y) * jnp.log(1 - a))

    at = {"w1": 0.5, "x1": -2.0, "w2": 0.75, "x2": 1.5, "b": 0.25}
    traced = graph.trace(loss, *at.values())
    w1, x1, w2, x2, b = traced.backward()
    node = node_of(traced, "logistic")
    a, z = node.value, traced.nodes[node.operands[0]]
    assert_close(node.adjoint, -y / a + (1 - y) / (1 - a))
    assert_close(z.adjoint, a - y, LENGTH)
    for got, factor in [(w1, "x1"), (x1, "w1"), (w2, "x2"), (x2, "w2"), (b, None)]:
        assert_close(got, (a - y) * at.get(factor, 1.0), LENGTH)


def forward_by_hand(case, params, rows):
    """The mean loss of a network without the package."""
    a = jnp.asarray(rows.x)
    for (w, b), twin in zip(params, [*case.hidden, lambda z: z]):
        z = a @ w if b is None else a @ w + b[None]
        a = twin(z)
    return case.loss.twin(a, rows.y).mean()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_adjoints_of_every_activation_are_those_by_hand(float64, activation):
    case = network("huber", activation)
    params, rows = parameters(case.net), batch(case)
    [gradient] = graph.trace(lambda params: lr_nn.cost(case.net, params, rows), params).backward()
    assert_trees_close(gradient, lr_nn.gradient(lr_nn.backprop(case.net, on_device(params), rows)), LENGTH)


@pytest.mark.parametrize("case", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("of", ["cost", "by hand"])
def test_a_network_is_backprop_node_by_node(float64, case, of):
    """Every pre-activation z_l has the adjoint δ_l / n, every w_l and b_l that of the gradient."""
    params, rows = parameters(case.net), batch(case)

    def cost(params):
        return lr_nn.cost(case.net, params, rows) if of == "cost" else forward_by_hand(case, params, rows)

    traced = graph.trace(cost, params)
    [gradient] = traced.backward()
    bp = lr_nn.backprop(case.net, on_device(params), rows)
    assert_trees_close(gradient, lr_nn.gradient(bp), LENGTH)
    [*products] = [node for node in traced.nodes if node.op == "dot_general"]
    assert len(products) == len(params)
    for layer, (product, delta) in enumerate(zip(products, bp.deltas)):
        weights, bias = f"params[{layer}].w", f"params[{layer}].b"
        assert traced.nodes[product.operands[1]].name == weights
        z = product
        if params[layer].b is not None:
            [z] = [node for node in traced.nodes if node.op == "add" and product.index in node.operands]
            assert traced.nodes[traced.nodes[z.operands[1]].operands[0]].name == bias
        assert_close(z.adjoint, np.asarray(delta) / N, LENGTH)
        named = {node.name: node for node in traced.nodes}
        assert_close(named[weights].adjoint, gradient[layer].w)
        if layer:
            assert_close(traced.nodes[product.operands[0]].value, bp.activations[layer], LENGTH)


def test_whole_numbers_in_arrays_are_data():
    labels = np.array([2, 0])
    traced = graph.trace(lambda x, labels: -jax.nn.log_softmax(x)[jnp.arange(2), labels].sum(), np.eye(2, 3), labels)
    gradient, nothing = traced.backward()
    assert nothing is None
    expected = np.asarray(jax.nn.softmax(np.eye(2, 3, dtype=np.float32))) - np.eye(3, dtype=np.float32)[labels]
    assert_close(gradient, expected, LENGTH)


def test_adjoints_have_the_structure_shape_and_dtype_of_the_arguments():
    params = {"w": np.ones((2, 3), np.float32), "more": [jnp.ones(3, jnp.bfloat16), None, np.arange(2)]}
    traced = graph.trace(lambda p, unused: (p["w"] * p["more"][0].astype(np.float32)[None]).sum(), params, np.ones(2))
    gradient, unused = traced.backward()
    assert gradient["more"][1:] == [None, None]
    assert gradient["w"].dtype == np.float32 and gradient["more"][0].dtype == jnp.bfloat16
    np.testing.assert_array_equal(gradient["more"][0].astype(np.float32), [2, 2, 2])
    np.testing.assert_array_equal(unused, [0, 0])
    assert [node.name for node in traced.nodes[:3]] == ["p['more'][0]", "p['more'][2]", "p['w']"]


def test_a_seed_gives_its_product_with_the_jacobian(float64):
    x, w = np.arange(3.0), np.arange(6.0).reshape(3, 2) / 9

    def function(x, w):
        return {"y": jnp.tanh(x @ w), "sum": x.sum(), "top": x.argmax()}

    _, pullback = jax.vjp(lambda x, w: {k: v for k, v in function(x, w).items() if k != "top"}, x, w)
    seed = {"y": np.array([2.0, -1.0]), "sum": np.array(3.0)}
    traced = graph.trace(function, x, w)
    assert_trees_close(list(map(jnp.asarray, traced.backward(seed | {"top": None}))), list(pullback(seed)), LENGTH)
    assert traced.backward({"y": None, "sum": 1.0, "top": None})[0].tolist() == [1, 1, 1]


def test_an_argument_may_be_returned_as_it_is_twice_or_not_at_all():
    assert adjoints(lambda x: x, 3.0) == (1,)
    assert graph.trace(lambda x: (x, x), 3.0).backward((2.0, 5.0)) == (7,)
    assert adjoints(lambda x, y: y, 3.0, 2.0) == (0, 1)
    assert adjoints(lambda x: 2.0, 3.0) == (0,)


def test_half_precision_is_rounded_once_an_operation():
    x = jnp.arange(1, 400, dtype=jnp.bfloat16) / 64
    traced = graph.trace(lambda x: jnp.sum(jnp.exp(x) * x), x)
    assert all(node.dtype == jnp.bfloat16 for node in traced.nodes if node.op in ("exp", "mul"))
    expected = jax.grad(lambda x: jnp.sum(jnp.exp(x) * x))(x)
    assert_close(traced.backward()[0], np.asarray(expected).astype(np.float32), LENGTH, jnp.bfloat16)


UNARY = [jnp.sin, jnp.tanh, jnp.exp, jax.nn.softplus, jax.nn.silu, jax.nn.relu, jnp.square, jnp.abs, jax.nn.softmax]
BINARY = [jnp.add, jnp.subtract, jnp.multiply, jnp.maximum, jnp.minimum, lambda x, y: x @ y.T @ y, jnp.logaddexp]
SHAPED = [
    lambda x: x[::-1],
    lambda x: x.T.reshape(x.shape),
    lambda x: jnp.roll(x, 1, axis=1),
    lambda x: x - x.mean(axis=0, keepdims=True),
    lambda x: x / (1 + jnp.linalg.norm(x)),
    lambda x: jnp.cumsum(x, axis=1) / 4,
    lambda x: jnp.sort(x, axis=0),
    lambda x: x.at[1].add(x[0]),
    lambda x: jnp.concatenate([x[1:], x[:1]]),
    lambda x: jnp.where(x > 0, x, x.max()),
    lambda x: jnp.broadcast_to(x.prod(axis=1, keepdims=True), x.shape) * 0.1,
]


@given(st.lists(st.tuples(st.integers(0, 26), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=12))
def test_random_programs_have_the_gradients_of_autodiff(steps):
    """Every step makes a matrix from earlier ones."""
    functions = [*UNARY, *SHAPED, *BINARY]

    def program(x, y):
        values = [x, y]
        for which, left, right in steps:
            function = functions[which % len(functions)]
            operands = [values[left % len(values)]]
            if which % len(functions) >= len(functions) - len(BINARY):
                operands.append(values[right % len(values)])
            values.append(0.5 * jnp.tanh(function(*operands)))
        return sum(value.sum() for value in values)

    rng = np.random.default_rng(len(steps))
    with jax.enable_x64(True):
        args = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
        expected = [np.asarray(g) for g in jax.jit(jax.grad(program, argnums=(0, 1)))(*args)]
        for opened in ((), ("jit",), ("jit", "custom_jvp")):
            for got, wanted in zip(graph.trace(program, *args, opened=opened).backward(), expected):
                assert_close(got, wanted, LENGTH, condition=2 ** len(steps))


def test_thousands_of_nodes_are_traced_and_swept_in_well_under_a_second_each():
    def long(x):
        for step in range(1000):
            x = jnp.sin(x) + x * (step / 1000)
        return x

    start = time.process_time()
    traced = graph.trace(long, 0.1)
    traced.backward()
    assert len(traced.nodes) > 3000
    assert time.process_time() - start < 5  # on a slow machine; mostly less than one
