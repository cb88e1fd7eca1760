"""What lr_nn.graph refuses, and what it shows: tables, DOT, counts, the first number that is not finite."""

import copy
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import NETWORKS, batch, parameters

import lr_nn
from lr_nn import graph

J = (lambda a, b, c: 3 * (a + b * c)), 5.0, 3.0, 2.0


@pytest.mark.parametrize(
    ("function", "args", "error", "says"),
    [
        (lambda a, b: a * b, (5, 2.0), TypeError, "argument 'a' is the integer 5, which has no derivative: pass 5.0"),
        (lambda p: p["w"], ({"w": 1},), TypeError, "argument \"p['w']\" is the integer 1"),
        (lambda *xs: xs[0], (1.0, True), TypeError, "argument 'xs[1]' is True"),
        (lambda x, mode: x, (1.0, "mean"), TypeError, "argument 'mode' must be an array of real numbers; got 'mean'"),
        (lambda x: x, (1j,), TypeError, "argument 'x' is complex"),
        (lambda x: x, (np.array(["a"]),), TypeError, "got dtype <U1"),
        (lambda x, n: x, (np.arange(3), np.ones(2, bool)), TypeError, "was given x int32, n bool; pass an argument of"),
        (lambda: jnp.ones(()), (), TypeError, "was given no arrays"),
        (lambda x: np.sin(x).sum(), (np.ones(2),), TypeError, "hands an argument, or what came of it, to NumPy"),
        (lambda x: x if x > 0 else -x, (1.0,), TypeError, "chooses by the value of an array"),
        (lambda x: x[x > 0], (np.ones(2),), TypeError, "for an index, a shape or a mask"),
        (lambda x: float(x) * 2.0, (1.0,), TypeError, "needs the value of an array in Python"),
        (lambda x: "text", (1.0,), TypeError, "not a valid JAX type"),
        (
            lambda x: jax.lax.linalg.cholesky(jax.lax.complex(x, x), symmetrize_input=False).real.sum(),
            (np.eye(2),),
            NotImplementedError,
            "has no rule for complex numbers, which it would get as pairs (..., 2); add one",
        ),
        (
            lambda x: jax.debug.print("{x}", x=x) or x,
            (1.0,),
            NotImplementedError,
            "calls back to Python or has another effect",
        ),
        (
            lambda x: jax.pure_callback(np.sin, jax.ShapeDtypeStruct((), np.float32), x),
            (1.0,),
            NotImplementedError,
            "'pure_callback' (test_graph_views.py",
        ),
        (
            lambda x: jnp.linalg.qr(x)[1].sum(),
            (np.eye(2),),
            NotImplementedError,
            "rule = graph.rule('qr', lambda x: ..., lambda adjoint, value, x: ...)",
        ),
        ("f", (1.0,), TypeError, "fn must be a function; got 'f'"),
        (lambda x: x, (np.ones(2, ">f8"),), TypeError, "has dtype >f8, which JAX has not: pass it .astype"),
        (lambda x: x, (np.ones(2, np.longdouble),), TypeError, "has dtype float128, which JAX has not"),
        (lambda x: x, (np.ma.masked_array([1.0, 2.0], [1, 0]),), TypeError, "is a masked array"),
    ],
)
def test_what_is_refused_is_named_with_what_to_do(function, args, error, says):
    with pytest.raises(error, match=re.escape(says).replace(r"\*", ".*")):
        graph.trace(function, *args)


def test_refusals_of_tracing_are_chained_from_those_of_jax():
    with pytest.raises(TypeError) as caught:
        graph.trace(lambda x: x if x > 0 else -x, 1.0)
    assert isinstance(caught.value.__cause__, jax.errors.TracerBoolConversionError)
    with pytest.raises(TypeError, match="runs on the host"):
        jax.grad(lambda x: graph.trace(jnp.sin, x).nodes[1].value)(1.0)


def test_an_array_of_another_trace_is_refused_wherever_the_function_uses_it():
    uses = (lambda x, y: x * y, jax.jit(lambda x, y: jnp.sin(x * y)), lambda x, y: y)
    for use in uses:
        for around in (jax.jit, jax.grad):
            with pytest.raises(TypeError, match="trace outside jit, grad and vmap"):
                around(lambda y: graph.trace(lambda x: use(x, y), 2.0).nodes[-1].value.sum())(3.0)  # noqa: B023


def test_an_effect_within_a_jit_is_named_itself():
    @jax.jit
    def printed(x):
        jax.debug.print("{x}", x=x)
        return x * x

    with pytest.raises(NotImplementedError, match=r"'debug_print' \(test_graph_views.py:\d+ in printed\)"):
        graph.trace(printed, 1.0)


def test_a_graph_is_neither_copied_nor_pickled_and_its_adjoints_are_not_written_on():
    traced = graph.trace(lambda a, b: a + b, np.ones(2), np.ones(2))
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be copied or pickled: trace again"):
            attempt(traced)
    traced.backward(np.ones(2))
    with pytest.raises(ValueError, match="read-only"):
        traced.nodes[0].adjoint[0] = 7


def test_no_node_has_the_name_of_an_argument():
    traced = graph.trace(lambda v2, c4: (jnp.sin(v2) * np.float32([2, 3])).sum() * c4, np.float32(3), np.float32(2))
    names = [node.name for node in traced.nodes]
    assert len(set(names)) == len(names) and traced.nodes[2].name == "vv2"


@pytest.mark.parametrize("title", [3, b"x", ["a"]])
def test_a_title_is_a_text(title):
    with pytest.raises(TypeError, match="title must be a text"):
        graph.trace(*J).html(title)


def test_a_function_without_a_signature_serves_in_a_rule():
    largest = graph.rule("max", max, lambda g, value, x, y: (g if x >= y else 0, g if y > x else 0))
    assert graph.trace(jnp.maximum, 2.0, 1.0, rules=[largest]).backward() == (1, 0)


def test_choices_that_do_not_exist_are_refused():
    with pytest.raises(TypeError, match=r"opened must hold kinds of calls.*got None"):
        graph.trace(jnp.sin, 1.0, opened=None)
    with pytest.raises(TypeError, match=r"rules must be made by graph\.rule.*got None"):
        graph.trace(jnp.sin, 1.0, rules=None)
    with pytest.raises(TypeError, match="equation of the rule for 'sin' must be a text"):
        graph.rule("sin", np.sin, None, equation=3)
    for adjoints in (3, [1]):
        with pytest.raises(TypeError, match="adjoints of the rule for 'sin' must be a text"):
            graph.rule("sin", np.sin, None, adjoints=adjoints)
    with pytest.raises(ValueError, match=r"opened must hold kinds of calls.*got 'pmap'"):
        graph.trace(jnp.sin, 1.0, opened=("jit", "pmap"))
    with pytest.raises(TypeError, match=r"rules must be made by graph\.rule"):
        graph.trace(jnp.sin, 1.0, rules=[np.sin])
    with pytest.raises(TypeError, match="must be functions"):
        graph.rule("sin", np.sin, "cos")
    with pytest.raises(TypeError, match="operation must be the name"):
        graph.rule(np.sin, np.sin, np.cos)


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (
            graph.rule("sin", lambda x: x[None], None),
            r"forward of the rule for 'sin' must give shape \(2,\); got \(1, 2\)",
        ),
        (graph.rule("sin", lambda x: (x, x), None), "gave 2 values; 1 due"),
        (graph.rule("sin", np.sin, lambda g, v, x: (g, g)), "gave 2 adjoints for 1 operands"),
        (graph.rule("sin", np.sin, lambda g, v, x: g[:1]), r"derivative of the rule for 'sin' must give shape \(2,\)"),
        (
            graph.rule("sin", lambda x: 1j * x, None),
            "'sin' must give real numbers; got complex",
        ),
        (graph.rule("sin", lambda x: np.array([None, None]), None), "must give real numbers; got object"),
        (graph.rule("sin", np.sin, np.cos, adjoints=["a", "b"]), "has 2 texts for 1 operands"),
        (graph.rule("sin", np.sin, np.cos, equation="sin {1}"), "an equation of the rule for 'sin'.*1 operands"),
    ],
)
def test_a_rule_that_does_not_fit_says_so(rule, says):
    with pytest.raises(ValueError, match=says):
        graph.trace(lambda x: jnp.sin(x).sum(), np.ones(2), rules=[rule]).backward()


@pytest.mark.parametrize(
    ("function", "seed", "says"),
    [
        (lambda x: x, None, r"the function returned \(2,\): sum it up in the function, or pass backward\(seed"),
        (lambda x: (x.sum(), x[0]), None, r"the function returned \(\), \(\):"),
        (lambda x: (), None, "the function returned nothing"),
        (lambda x: x.argmax(), None, "the function returned int32"),
        (lambda x: x, (1.0, 2.0), "seed must have the structure"),
        (lambda x: x, np.ones(3), r"a seed must have the shape of its result, \(2,\); got \(3,\)"),
    ],
)
def test_a_sweep_without_a_fitting_seed_is_refused(function, seed, says):
    with pytest.raises(ValueError, match=says):
        graph.trace(function, np.ones(2)).backward(seed)


@pytest.mark.parametrize("seed", [np.array(["a", "b"]), np.ones(2) * 1j, np.ones(2, object), np.ones(2, "M8[Y]")])
def test_a_seed_that_is_no_real_number_is_refused(seed):
    with pytest.raises(TypeError, match="a seed must be a concrete array of real numbers"):
        graph.trace(lambda x: x, np.ones(2)).backward(seed)


def test_a_seed_may_overflow_and_has_none_where_the_result_has():
    assert graph.trace(lambda x: (x, None, 2 * x), 1.0).backward((1.0, None, None)) == (1,)
    assert graph.trace(lambda x: 2 * x, 1.0).backward(1e300) == (np.inf,)


def test_the_first_node_that_is_not_finite_is_named():
    def loss(x):
        shifted = x - 1
        logs = jnp.log(shifted)
        return jnp.where(x > 1, logs, 0.0).sum()

    traced = graph.trace(loss, np.array([1.0, 2.0], np.float32))
    bad = traced.non_finite
    assert bad.op == "log" and bad.source.endswith("in loss")
    assert str(traced).splitlines()[-1] == f"first value that is not finite: {bad.name} (log, {bad.source})"


def test_an_adjoint_that_is_not_finite_is_named_after_the_sweep():
    traced = graph.trace(lambda x: jnp.sqrt(x * x), 0.0)
    assert traced.non_finite is None
    traced.backward()
    assert traced.non_finite.equation == "v1 = x · x"
    assert "first adjoint that is not finite: v1" in str(traced)
    assert graph.trace(*J).non_finite is None


def test_infinities_that_harm_nothing_are_no_finding_and_those_that_do_are():
    traced = graph.trace(jax.nn.logsumexp, np.ones(3, np.float32))
    traced.backward()
    assert traced.non_finite is None
    assert graph.trace(lambda x: x * jnp.inf, 0.0).non_finite.op == "constant"
    assert graph.trace(lambda mask, x: mask + x, np.nan, 1.0).non_finite.name == "mask"
    assert graph.trace(lambda x: 2 * x, 1e300).non_finite.name == "x"  # in float32


def test_the_table_shows_every_node_with_its_value_and_adjoint():
    traced = graph.trace(*J)
    before = str(traced)
    traced.backward()
    lines = str(traced).splitlines()
    assert len(lines) == 2 + 7 and before != str(traced)
    assert lines[0].split() == ["node", "operation", "shape", "value", "adjoint", "equation"]
    assert [line.split() for line in lines[2:]] == [
        ["a", "input", "5", "3"],
        ["b", "input", "3", "6"],
        ["c", "input", "2", "9"],
        ["v3", "mul", "6", "3", "b", "·", "c"],
        ["v4", "add", "11", "3", "a", "+", "v3"],
        ["3.0", "constant", "3"],
        ["→", "v6", "mul", "33", "1", "3.0", "·", "v4"],
    ]


def test_the_table_marks_every_result():
    lines = str(graph.trace(lambda x: (jnp.sin(x), jnp.cos(x) * x), 1.0)).splitlines()
    assert [line.split()[2] for line in lines if line.startswith("→")] == ["sin", "mul"]


def network_graph():
    case = NETWORKS["categorical, relu, 3 layers"]
    return graph.trace(lambda params: lr_nn.cost(case.net, params, batch(case)), parameters(case.net, np.float32))


def test_the_table_of_a_network_keeps_within_its_width():
    traced = network_graph()
    for _ in range(2):
        assert max(map(len, str(traced).splitlines())) <= 120
        traced.backward()
    assert "0.125 … " not in str(traced)
    odd = graph.trace(lambda p: p['a\n"long" name ' * 9].sum(), {'a\n"long" name ' * 9: np.ones((2, 0))})
    assert max(map(len, str(odd).splitlines())) <= 120 and "empty" in str(odd)


def quoted(text):
    """Strings of DOT, taken out; what is left has no quote in it."""
    return re.sub(r'"(?:[^"\\]|\\.)*"', "S", text)


def test_dot_is_a_digraph_with_every_edge():
    traced = network_graph()
    traced.backward()
    text = traced.dot()
    lines = quoted(text).splitlines()
    assert lines[0] == "digraph {" and lines[-1] == "}" and '"' not in quoted(text)
    nodes = [line for line in lines if "label=S" in line]
    edges = [line for line in lines if "->" in line]
    assert len(nodes) == len(traced.nodes) and len(edges) == sum(len(node.operands) for node in traced.nodes)
    assert all(re.fullmatch(r"  n\d+ \[label=S, shape=\w+(, peripheries=2)?\];", line) for line in nodes)
    assert all(re.fullmatch(r"  n\d+ -> n\d+;", line) for line in edges)


def test_odd_names_do_no_harm_to_dot():
    name = 'a"] -> \\ {<b>}\n'
    text = graph.trace(lambda p: p[name] * 2, {name: 1.0}).dot()
    assert '"' not in quoted(text) and len(text.splitlines()) == 3 + 3 + 2 + 1


def test_savings_of_the_textbook_graph():
    """Three operations over five edges; forward mode sweeps them for each of a, b and c."""
    saved = graph.trace(*J).savings()
    assert (saved.inputs, saved.outputs, saved.edges, saved.value, saved.sweep) == (3, 1, 5, 3, 5)
    assert (saved.forward_mode, saved.reverse_mode, saved.paths) == (15, 5, 3)
    assert saved.reused == (("v3", 2), ("v4", 2))
    assert "15 operations, sweeps: 3" in str(saved) and "v3 2x, v4 2x" in str(saved)


def test_savings_of_a_chain_and_of_a_ladder_of_diamonds():
    def chain(x):
        for _ in range(10):
            x = jnp.sin(x)
        return x

    def ladder(x):
        for _ in range(50):
            x = jnp.sin(x) * jnp.cos(x)
        return x

    saved = graph.trace(chain, 1.0).savings()
    assert (saved.edges, saved.paths, saved.forward_mode, saved.reverse_mode, saved.reused) == (10, 1, 10, 10, ())
    saved = graph.trace(ladder, 1.0).savings()
    assert (saved.edges, saved.paths) == (4 * 50, 2**50)
    assert len(saved.reused) == 50 and "and 42 more" in str(saved)


def test_no_sweep_goes_through_what_passes_nothing_back():
    saved = graph.trace(lambda x: jax.lax.stop_gradient(jnp.sin(x)) * x, 1.0).savings()
    assert (saved.edges, saved.sweep) == (1, 1)


def test_savings_of_a_network_count_its_products():
    """z = x w + b and a mean: 2 n d k for the product and as much for w̄, none for x̄, which nobody asks for."""
    n, d, k = 7, 4, 3
    x = np.ones((n, d), np.float32)
    saved = graph.trace(
        lambda w, b: (x @ w + b[None]).sum(), np.ones((d, k), np.float32), np.ones(k, np.float32)
    ).savings()
    assert saved.inputs == d * k + k
    assert saved.value == 2 * n * d * k + n * k + n * k
    assert saved.sweep == 2 * n * d * k + 2 * n * k + n * k
    assert saved.forward_mode == (d * k + k) * saved.sweep and saved.reverse_mode == saved.sweep
    assert saved.paths == 2
    deep = network_graph().savings()
    assert deep.forward_mode == deep.inputs * deep.sweep > 50 * deep.reverse_mode


def test_a_node_shows_what_it_is():
    node = network_graph().nodes[7]
    assert repr(node) == "Node(v7: dot_general, shape (7, 5), float32)"
    with pytest.raises(ValueError, match="read-only"):
        node.value[...] = 0
