"""Where the nodes of a graph stand on its page, and the numbers and equations that it shows, without a browser."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from lr_nn import graph
from lr_nn.graph import page
from lr_nn.graph.layout import BOX, layers, layout
from lr_nn.graph.story import tell, worked
from lr_nn.graph.summary import brief, summary


def random_operands(seed, size=60):
    draw = np.random.default_rng(seed)
    return [tuple(int(i) for i in draw.integers(k, size=min(k, draw.integers(4)))) for k in range(size)]


@pytest.mark.parametrize("seed", range(5))
def test_edges_go_right_and_boxes_stand_apart(seed):
    operands = random_operands(seed)
    layer, placed = layers(operands), layout(operands)
    for node, sources in enumerate(operands):
        assert all(layer[source] < layer[node] for source in sources)
    for i, (x, y) in enumerate(placed.corners):
        assert x >= 0 and y >= 0 and x + BOX[0] <= placed.size[0] and y + BOX[1] <= placed.size[1]
        for other_x, other_y in placed.corners[:i]:
            assert abs(x - other_x) > BOX[0] or abs(y - other_y) > BOX[1]


@pytest.mark.parametrize("seed", range(5))
def test_lines_begin_and_end_at_their_boxes_and_pass_no_other(seed):
    operands = random_operands(seed)
    placed = layout(operands)
    edges = [(source, target) for target, sources in enumerate(operands) for source in sources]
    assert len(placed.paths) == len(placed.ends) == len(edges)
    for (source, target), path, (end_x, end_y) in zip(edges, placed.paths, placed.ends):
        left, top = placed.corners[source]
        start = [float(number) for number in re.match(r"M([-\d]+) ([-\d]+)", path).groups()]
        assert start == pytest.approx([left + BOX[0], top + BOX[1] / 2], abs=1)
        left, top = placed.corners[target]
        assert end_x == left and top < end_y < top + BOX[1]
        levels = [float(level) for level in re.findall(r"([-\d]+)H", path)]
        rights = [float(right) for right in re.findall(r"H([-\d]+)", path)]
        for level, right in zip(levels, rights):
            beside = [y for x, y in placed.corners if abs(x + BOX[0] - right) < 2]
            assert all(level < y or level > y + BOX[1] for y in beside)


def test_what_is_used_late_stands_late():
    chain = [(), (0,), (1,), (2,)]
    assert layers([*chain, (), (3, 4)]) == [0, 1, 2, 3, 3, 4]
    assert layers([*chain, (), (4,), (3, 5)]) == [0, 1, 2, 3, 2, 3, 4]


@pytest.mark.parametrize(
    ("equation", "numbers", "result", "expected"),
    [
        ("u = b · c", {"b": "3", "c": "-2"}, "-6", "3 · (-2) = -6"),
        ("v4 = σ(v3)", {"v3": "-1"}, "0.2689", "σ(-1) = 0.2689"),
        ("v̄3 += v̄4 · v4 · (1 - v4)", {"v4": "0.5", "v3": "0", "v̄4": "2"}, "0.5", "2 · 0.5 · (1 - 0.5) = 0.5"),
        ("v2 = x²", {"x": "3", "x2": ""}, "9", "3² = 9"),
        ("v2 = x1 · x", {"x": "3", "x1": "4"}, "12", "4 · 3 = 12"),
        ("v2 = sum x", {"x": ""}, "9", ""),
        ("ā += v̄2", {"v̄2": "3"}, "3", ""),
        ("", {}, "3", ""),
    ],
)
def test_equations_with_numbers_for_names(equation, numbers, result, expected):
    assert worked(equation, numbers, result) == expected


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (33.0, "33"),
        (True, "True"),
        ([1, -2, 0.5], "[1, -2, 0.5]"),
        (np.ones((4, 3)), "all 1"),
        (np.arange(12.0), "0 … 11"),
        ([[0.0, np.nan], [1, -np.inf]], "-inf … 1, nan"),
        ([[np.nan]], "all nan"),
        (np.zeros((0, 3)), "empty"),
        (jnp.arange(5, dtype=jnp.bfloat16), "0 … 4"),
    ],
)
def test_arrays_in_short(array, expected):
    assert brief(np.asarray(array)) == expected


def test_a_heat_map_keeps_small_matrices_and_averages_large_ones():
    assert summary(np.array([[1.0, -1.0], [0.0, np.inf]]))["heat"] == ["sa", "j!"]
    large = np.repeat(np.arange(16.0), 10)[:, None] * np.ones((1, 240))
    assert summary(large)["heat"] == summary(large[::10, ::10])["heat"]
    assert summary(large)["more"] == "first 6 × 5 of 160 × 240"


def test_branches_add_up_to_the_adjoint_on_top_of_the_seed():
    """y = sin x is returned and used: ȳ begins as its seed."""
    traced = graph.trace(lambda x: (y := jnp.sin(x), y * y + y), 1.0)
    traced.backward((4.0, 1.0))
    totals = {edge.source: edge.total for edge in sorted(tell(traced).edges, key=lambda edge: edge.branch)}
    x, y = (node for node in traced.nodes if node.name in ("x", "v1"))
    for node in (x, y):
        np.testing.assert_allclose(totals[node.index], node.adjoint, rtol=1e-6)


def test_the_kinds_of_nodes():
    traced = graph.trace(lambda a, b, c: 3.0 * (a + b * c), 5.0, 3.0, 2.0)
    kinds = {node.name: page.kind(traced, node) for node in traced.nodes}
    assert {kinds["a"], kinds["3.0"], kinds[traced.nodes[-1].name]} == {"input", "constant", "output"}
