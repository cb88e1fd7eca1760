"""Every rule of lr_nn.graph against autodiff in float64, from one table of cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph_cases import CASES
from tolerances import assert_close

from lr_nn import graph
from lr_nn.graph.rules import ROOMS, TABLE

LENGTH = 60
cases = pytest.mark.parametrize("case", CASES, ids=str)


def is_float(array):
    return jnp.issubdtype(array.dtype, jnp.floating)


def seeds_of(outputs):
    rng = np.random.default_rng(11)
    return jax.tree.map(lambda v: rng.normal(size=v.shape) if is_float(v) else None, outputs)


def cotangents(outputs, seeds):
    """Seeds as JAX wants them: integers have cotangents of a dtype of their own."""
    leaves, tree = jax.tree.flatten(outputs)
    given = jax.tree.leaves(seeds, is_leaf=lambda leaf: leaf is None)
    return tree.unflatten(
        [np.zeros(v.shape, jax.dtypes.float0) if s is None else jnp.asarray(s, v.dtype) for v, s in zip(leaves, given)]
    )


@cases
def test_value_and_adjoints_of_every_rule_are_those_of_jax(float64, case):
    args = [jnp.asarray(arg) for arg in case.args]
    with jax.numpy_dtype_promotion("standard"):  # JAX's own derivative of pow needs it
        outputs, pullback = jax.vjp(case.twin, *args)
        seeds = seeds_of(outputs)
        expected = pullback(cotangents(outputs, seeds))
    traced = graph.trace(case.function, *args)
    assert case.operation in {step.rule.operation for step in traced.tape.operations}
    for index, output in zip(traced.outputs, jax.tree.leaves(outputs), strict=True):
        node = traced.nodes[index]
        assert (node.shape, node.dtype) == (output.shape, output.dtype)
        compare(node.value, output, case.condition)
    for got, wanted, arg in zip(traced.backward(seeds), expected, args, strict=True):
        if not is_float(arg):
            assert got is None
            continue
        assert (got.shape, got.dtype) == (arg.shape, arg.dtype)
        compare(got, wanted, case.condition)


def compare(actual, desired, condition):
    desired = np.asarray(desired, np.float64)
    assert np.array_equal(np.isfinite(actual), np.isfinite(desired))
    known = np.isfinite(desired)
    assert_close(
        np.asarray(actual, np.float64)[known],
        desired[known],
        LENGTH,
        actual.dtype if is_float(actual) else np.float64,
        condition,
    )


def test_every_rule_has_a_case_and_one_entry():
    rows = [row.operation for room in ROOMS for row in room.RULES]
    assert sorted(rows) == sorted(set(rows))
    assert set(TABLE) - {case.operation for case in CASES} == UNSEEN


# Operations that no public function of JAX makes outside of transformations.
UNSEEN = {"add_any", "copy_p", "sharding_constraint"}


@pytest.mark.parametrize("name", sorted(UNSEEN))
def test_the_rules_that_no_case_reaches_pass_on_what_they_get(name):
    x, g = np.array([1.0, -2.0]), np.array([3.0, 5.0])
    operands = [x, 2 * x] if name == "add_any" else [x]
    rule = TABLE[name]
    np.testing.assert_array_equal(rule.forward(*operands), sum(operands))
    gains = rule.derivative(g, None, *operands)
    for gain in gains if isinstance(gains, tuple) else [gains]:
        np.testing.assert_array_equal(gain, g)


def test_every_rule_is_named_after_a_primitive_of_jax():
    from jax.extend.core import primitives

    names = {value.name for key, value in vars(primitives).items() if key.endswith("_p")}
    assert set(TABLE) - names <= {"name", "optimization_barrier", "copy_p", "split", "stack", "unstack"}
