"""The page of a computation graph, in a browser: it tells each step as the graph has it, to eye, ear and keyboard."""

import re
import sys
import time
from contextlib import ExitStack
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from browser import chromium, needs_chromium, opened

import lr_nn
from lr_nn import Batch, activations, graph, losses
from lr_nn.graph.summary import brief
from lr_nn.graph.wording import bar

SHOWN = 1e-3  # numbers are shown with four digits
OPENS, STEPS = 20, 2  # seconds on a machine that is slow and busy: 400 nodes open, and take one step


def textbook():
    """J = 3(a + bc)."""
    return graph.trace(lambda a, b, c: 3.0 * (a + b * c), 5.0, 3.0, 2.0)


def fan_out():
    """x goes three ways."""
    return graph.trace(lambda x, y: x * y + x * x, 3.0, -2.0)


def neuron():
    """Logistic regression on one example."""

    def loss(w, b, x, y):
        a = 1 / (1 + jnp.exp(-(w @ x + b)))
        return -(y * jnp.log(a) + (1 - y) * jnp.log(1 - a))

    return graph.trace(loss, np.array([0.5, -0.3]), 0.1, np.array([1.0, 2.0]), 1.0)


def network():
    """A network of the package, three layers deep."""
    net = lr_nn.mlp((4, 6, 5, 3), activations.tanh, losses.categorical)
    x = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    y = x[:, :3].argmax(axis=1)
    return graph.trace(lambda params, x: lr_nn.cost(net, params, Batch(x, y)), lr_nn.init(net, jax.random.key(0)), x)


def large(operations=388):
    """Operations on numbers, each of values that came shortly before."""
    draws = np.random.default_rng(0).integers(30, size=(operations - 1, 3))

    def fn(values):
        values = list(values)
        for which, i, j in draws:
            a, b = values[-1 - i % len(values)], values[-1 - j % len(values)]
            values.append([lambda a, b: jnp.tanh(a), jnp.multiply, jnp.add][which % 3](a, b))
        return jnp.sin(values[-1])

    return graph.trace(fn, [float(x) for x in np.linspace(-1, 1, 12)])


def not_finite():
    """log 0 on the way."""
    return graph.trace(lambda x: jnp.sum(jnp.log(x) * jnp.asarray([1.0, 2.0, 3.0])), np.array([1.0, 0.0, 2.0]))


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture
def show(browser, tmp_path):
    """Opens the page of a graph; in the end it must have asked for nothing and complained of nothing."""
    with ExitStack() as stack:

        def show(traced, title=None, **context):
            file = tmp_path / "graph.html"
            file.write_text(traced.html(title), encoding="utf-8")
            context = {"viewport": {"width": 1300, "height": 800}, **context}
            return stack.enter_context(opened(browser, file, **context))

        yield show


def swept(traced):
    """The graph, its reverse sweep done."""
    traced.backward()
    return traced


def text(page, selector):
    return page.locator(selector).inner_text().strip()


def texts(page, selector):
    return [found.strip() for found in page.locator(selector).all_inner_texts()]


def box(page, node, part):
    """What stands in a node's box: its `.value`, `.adjoint`, `.mark`."""
    return page.locator(f"#node-{node.index} {part}").text_content()


def current(page):
    return [
        int(id.removeprefix("node-")) for id in page.locator(".node.current").evaluate_all("all => all.map(e => e.id)")
    ]


def lit(page):
    """The edges along which something flows backward, by number."""
    found = "all => all.flatMap((e, i) => e.classList.contains('backward') ? [i] : [])"
    return page.locator(".edge").evaluate_all(found)


def assert_tells(page, node, label, array):
    """The node's box has `array` in short; the panel, which shows this node, has it in numbers."""
    assert box(page, node, f".{label}").removeprefix("= ").removeprefix("∂ ") == brief(array)
    if array.ndim == 0:
        assert texts(page, "#node .number")[label == "adjoint"] == str(array[()])
        return
    told = page.locator("#node .facts", has_text="min ").all_inner_texts()
    numbers = re.findall(r"(?:min|mean|max) ([^,]+)", told[-1 if label == "adjoint" else 0])
    expected = [array.min(), array.mean(dtype=float), array.max()]
    np.testing.assert_allclose([float(number) for number in numbers], expected, rtol=SHOWN, atol=1e-12)


def edges_of(traced):
    return [(source, node.index, place) for node in traced.nodes for place, source in enumerate(node.operands)]


# The whole sweep


@needs_chromium
@pytest.mark.parametrize("make", [textbook, fan_out, neuron, network])
def test_the_steps_are_the_operations_forward_and_then_backward_with_their_equations(show, make):
    traced = swept(make())
    page = show(traced).page
    computed = [node for node in traced.nodes if node.op not in ("input", "constant")]
    for node in computed:
        assert box(page, node, ".value") == ""
        page.click("#forth")
        assert current(page) == [node.index]
        assert text(page, "#step .equation") == node.equation
        assert_tells(page, node, "value", node.value)
        assert node.equation in text(page, "#live")
    page.click("#forth")
    assert current(page) == list(traced.outputs)
    assert box(page, traced.nodes[traced.outputs[0]], ".adjoint") == "∂ 1"
    passing = [node for node in reversed(computed) if any(node.adjoint_equations) and node.adjoint is not None]
    edges = edges_of(traced)
    for node in passing:
        page.click("#forth")
        assert current(page) == [node.index]
        assert texts(page, "#step .branch .equation") == [equation for equation in node.adjoint_equations if equation]
        assert [edges[k][1] for k in lit(page)] == [node.index] * sum(map(bool, node.adjoint_equations))
        assert_tells(page, node, "adjoint", node.adjoint)
    page.click("#forth")
    assert text(page, "#step h2") == "The gradient"
    inputs = [node for node in traced.nodes if node.op == "input" and node.adjoint is not None]
    assert len(texts(page, "#step .list li")) == len(inputs)
    for node in inputs:
        page.focus(f"#node-{node.index}")
        assert_tells(page, node, "adjoint", node.adjoint)
    assert page.get_attribute("#forth", "aria-disabled") == "true"


@needs_chromium
def test_the_textbook_case_ends_with_its_gradient(show):
    page = show(swept(textbook()), "J = 3(a + bc)").page
    assert text(page, "h1") == page.title() == "J = 3(a + bc)"
    page.click("#last")
    assert [line[-3:] for line in texts(page, "#step .list li")] == ["= 3", "= 6", "= 9"]


@needs_chromium
def test_the_equation_stands_there_in_numbers_too(show):
    traced = swept(textbook())
    page = show(traced).page
    product = next(node for node in traced.nodes if node.equation.endswith("b · c"))
    page.click(f"#node-{product.index}")
    page.click("#forth")
    assert text(page, "#step .worked") == "3 · 2 = 6"
    page.click("#last")
    page.click("#back")
    assert texts(page, "#step .worked") == ["3 · 2 = 6", "3 · 3 = 9"]


@needs_chromium
def test_branches_of_a_fan_out_add_up_one_by_one(show):
    traced = swept(fan_out())
    page = show(traced).page
    x = next(node for node in traced.nodes if node.name == "x")
    uses = sum(node.operands.count(x.index) for node in traced.nodes)
    seen = []
    while page.get_attribute("#forth", "aria-disabled") != "true":
        page.click("#forth")
        if page.locator(f"#node-{x.index}.receiving").count():
            seen.append((box(page, x, ".adjoint"), texts(page, "#step .branch .muted")))
    assert uses == 3 and len(seen) == 2
    assert seen[0][0].endswith("+ …") and not seen[1][0].endswith("…")
    assert seen[1][0] == "∂ 4"
    said = [line for _, lines in seen for line in lines if line.startswith("Branch") and bar("x") in line]
    assert [line[:13] for line in said] == ["Branch 1 of 3", "Branch 2 of 3", "Branch 3 of 3"]
    *parts, last = re.search(r"= (.*), complete", said[-1])[1].replace(" = ", " + ").split(" + ")
    assert sum(map(float, parts)) == float(last) == x.adjoint == 4.0


@needs_chromium
def test_back_the_slider_and_play_tell_the_same_story(show):
    traced = swept(fan_out())
    page = show(traced, reduced_motion="reduce").page
    steps = int(page.get_attribute("#slider", "max"))

    def picture():
        return page.locator("#scene").text_content(), text(page, "#step"), current(page), lit(page)

    forth = [picture()]
    for _ in range(steps):
        page.click("#forth")
        forth.append(picture())
    back = [picture()]
    for _ in range(steps):
        page.click("#back")
        back.append(picture())
    assert back[::-1] == forth
    jumps = []
    for step in range(steps + 1):
        page.locator("#slider").fill(str(step))
        jumps.append(picture())
    assert jumps == forth
    page.locator("#slider").fill(str(steps - 2))
    page.click("#play")
    assert text(page, "#play") == "Pause"
    page.wait_for_selector("#play[aria-pressed=false]")
    assert picture() == forth[-1]


@needs_chromium
def test_without_adjoints_only_the_forward_sweep_is_told(show):
    traced = textbook()
    page = show(traced).page
    assert "graph.backward()" in text(page, "#step")
    page.click("#last")
    assert text(page, "#step h2") == "Forward 3 of 3"


@needs_chromium
@pytest.mark.parametrize(
    "fn", [lambda x: x, lambda x: 2.0, lambda x: (x, jnp.sin(x))], ids=["input", "constant", "two"]
)
def test_small_graphs_have_a_page(show, fn):
    traced = graph.trace(fn, 1.5)
    page = show(traced).page
    page.keyboard.press("End")
    assert [box(page, node, ".value") for node in traced.nodes] == [f"= {brief(node.value)}" for node in traced.nodes]


# Numbers of a node


@needs_chromium
def test_hover_shows_value_and_adjoint_and_focus_does(show):
    traced = swept(network())
    page = show(traced).page
    weight = next(node for node in traced.nodes if node.name == "params[1].w")
    locator = page.locator(f"#node-{weight.index}")
    page.click("#fit")
    for look in (locator.hover, locator.focus):
        page.mouse.move(2, 2)
        look()
        assert text(page, "#node h2") == "params[1].w"
        for label, array in (("value", weight.value), ("adjoint", weight.adjoint)):
            cells = page.get_by_role("group", name=f"Entries of the {label}").locator("td").all_inner_texts()
            np.testing.assert_allclose([float(cell) for cell in cells], array[:6, :5].ravel(), rtol=SHOWN)
            assert page.get_by_role("img", name=f"Heat map of the {label}").count() == 1
    page.mouse.move(2, 2)
    page.keyboard.press("Escape")
    assert text(page, "#node h2") != "params[1].w"


@needs_chromium
def test_a_number_is_shown_in_full(show):
    traced = swept(neuron())
    page = show(traced).page
    output = traced.nodes[traced.outputs[0]]
    page.click("#fit")
    page.hover(f"#node-{output.index}")
    assert texts(page, "#node .number") == [str(output.value[()]), str(output.adjoint[()])]


@needs_chromium
def test_an_adjoint_that_is_not_finite_is_named_and_marked_when_the_sweep_comes_to_it(show):
    traced = swept(graph.trace(lambda x: jnp.sum(jnp.sqrt(x)), np.array([1.0, 0.0])))
    page = show(traced).page
    assert traced.non_finite.name == "x" and text(page, "#banner").startswith(f"⚠ {bar('x')}: the first adjoint")
    assert page.locator(".node.bad").count() == 0
    page.click("#show-warning")
    assert text(page, "#node h2") == "x" and page.locator(".node.bad").count() == 1


@needs_chromium
def test_the_first_number_that_is_not_finite_is_named_and_shown(show):
    traced = swept(not_finite())
    bad = traced.non_finite
    page = show(traced).page
    assert bad.equation in text(page, "#banner") and bad.source in text(page, "#banner")
    page.click("#show-warning")
    assert text(page, "#node h2") == bad.name and current(page) == [bad.index]
    page.click("#last")
    marked = page.locator(".node.bad").evaluate_all("all => all.map(e => Number(e.id.slice(5)))")
    arrays = {n.index: [n.value, *([] if n.adjoint is None else [n.adjoint])] for n in traced.nodes}
    assert marked == [i for i, pair in arrays.items() if not all(np.isfinite(array).all() for array in pair)]
    assert all("⚠" in box(page, traced.nodes[i], ".mark") for i in marked)


# Keyboard, ear, eye


@needs_chromium
def test_the_keyboard_alone_does_it_all(show):
    traced = swept(textbook())
    page = show(traced).page
    press = page.keyboard.press

    def focused():
        return page.evaluate("document.activeElement.id")

    for _ in range(3):
        press("Space")
    press("Enter")
    assert text(page, "#step h2") == "Backward starts"
    press("Backspace")
    assert text(page, "#step h2") == "Forward 3 of 3"
    press("Home")
    assert text(page, "#step h2") == "Start"
    press("End")
    assert text(page, "#step h2") == "The gradient"
    press("ArrowRight")
    at = [focused()]
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft"):
        press(key)
        at.append(focused())
    index = [int(id.removeprefix("node-")) for id in at]
    for here, there in pairwise(index[:-1]):
        assert here in traced.nodes[there].operands or here == there == traced.outputs[0]
    assert index[-2] == traced.outputs[0] and index[-1] in traced.nodes[index[-2]].operands
    assert text(page, "#node h2") == traced.nodes[index[-1]].name
    press("ArrowUp")
    press("ArrowDown")
    assert focused().startswith("node-")
    before = page.locator("#scene").get_attribute("style")
    press("+")
    assert page.locator("#scene").get_attribute("style") != before
    press("?")
    assert page.locator("#keys").is_visible()
    press("Escape")
    assert not page.locator("#keys").is_visible()


@needs_chromium
def test_tab_comes_to_the_graph_once_and_to_every_control(show):
    page = show(swept(textbook())).page
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    reached = reached[: reached.index("slider") + 1]
    assert sum(id.startswith("node-") for id in reached) == 1
    assert {"closer", "fit", "show-keys", "first", "back", "forth", "play", "last", "slider"} <= set(reached)


@needs_chromium
@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(show, color_scheme):
    opened_page = show(swept(not_finite()), color_scheme=color_scheme)
    page = opened_page.page
    steps = int(page.get_attribute("#slider", "max"))
    for step in range(0, steps + 1, 2):
        page.locator("#slider").fill(str(step))
        assert opened_page.accessibility_violations() == {}
    page.hover("#node-0")
    assert opened_page.accessibility_violations() == {}
    page.click("#show-keys")
    assert opened_page.accessibility_violations() == {}


def luminance(colour):
    """WCAG 2.2's relative luminance of an sRGB colour (r, g, b)."""
    parts = np.asarray(colour) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


@needs_chromium
@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_every_text_in_the_drawing_stands_out_from_its_box(show, color_scheme):
    """axe does not look at text in SVG."""
    page = show(swept(fan_out()), color_scheme=color_scheme).page
    look = """all => all.map(text => [getComputedStyle(text).fill,
                                     getComputedStyle(text.parentNode.querySelector('.box')).fill])"""
    for step in range(int(page.get_attribute("#slider", "max")) + 1):
        page.locator("#slider").fill(str(step))
        for pair in page.locator(".node text").evaluate_all(look):
            ink, paper = (luminance([int(part) for part in re.findall(r"\d+", colour)[:3]]) for colour in pair)
            assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5, (step, pair)


@needs_chromium
def test_nothing_moves_for_those_who_asked_for_that(show):
    look = "[...document.querySelectorAll('.edge.backward path, #scene')].map(e => getComputedStyle(e))"
    moves = f"{look}.map(s => [s.animationName, parseFloat(s.transitionDuration)])"
    for reduced_motion, still in (("reduce", True), ("no-preference", False)):
        page = show(swept(textbook()), reduced_motion=reduced_motion).page
        page.click("#last")
        page.click("#back")
        page.click("#fit")
        assert all(motion == ["none", 0] for motion in page.evaluate(moves)) == still


@needs_chromium
def test_a_phone_shows_graph_panel_and_controls(show):
    page = show(swept(network()), viewport={"width": 360, "height": 740}, has_touch=True, reduced_motion="reduce").page
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for id in ("forth", "back", "play", "slider"):
        at = page.locator(f"#{id}").bounding_box()
        assert at["x"] >= 0 and at["x"] + at["width"] <= 360 and at["y"] + at["height"] <= 740
    page.locator("#forth").tap()
    node = page.locator(".node.current").bounding_box()
    assert node["x"] >= 0 and node["x"] + node["width"] <= 360
    page.locator(".node.current").tap()
    assert text(page, "#node h2").startswith("v")


@needs_chromium
def test_wheel_zooms_where_it_points_and_a_drag_moves(show):
    page = show(swept(textbook())).page
    box = page.locator("#node-0")
    before = box.bounding_box()
    page.mouse.move(before["x"], before["y"])
    page.mouse.wheel(0, -300)
    zoomed = box.bounding_box()
    assert zoomed["width"] > 1.2 * before["width"]
    assert abs(zoomed["x"] - before["x"]) < 12 and abs(zoomed["y"] - before["y"]) < 12
    page.mouse.down()
    page.mouse.move(before["x"] + 40, before["y"] + 30, steps=4)
    page.mouse.up()
    moved = box.bounding_box()
    assert (round(moved["x"] - zoomed["x"]), round(moved["y"] - zoomed["y"])) == (40, 30)
    page.click("#fit")
    page.wait_for_timeout(400)
    assert box.bounding_box() == pytest.approx(before, abs=1)


# Size, and names that mean harm


@needs_chromium
def test_four_hundred_nodes_open_and_step(show):
    traced = swept(large())
    assert len(traced.nodes) >= 400
    started = time.perf_counter()
    page = show(traced).page
    assert text(page, "#step h2") == "Start"
    assert time.perf_counter() - started < OPENS
    step = """async () => {
        document.getElementById("forth").click();
        await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
    }"""
    last = int(page.get_attribute("#slider", "max"))
    assert last > 500
    for first in (0, last // 3, last - 12):
        page.locator("#slider").fill(str(first))
        started = time.perf_counter()
        for _ in range(10):
            page.evaluate(step)
        assert time.perf_counter() - started < 10 * STEPS
        assert page.input_value("#slider") == str(first + 10)
    page.click("#last")
    for node in traced.nodes[:12]:
        page.focus(f"#node-{node.index}")
        assert_tells(page, node, "adjoint", node.adjoint)


@needs_chromium
@pytest.mark.parametrize(
    "name",
    ["</script><script>alert(1)</script>", "<img src=http://x.invalid/>", "\"quoted\" & 'so'", "β₁ \u2028 {{ 7 }}"],
)
def test_odd_names_are_shown_as_they_are(show, name):
    traced = swept(graph.trace(lambda given: given[name] * 2.0, {name: 3.0}))
    page = show(traced, title=name).page
    page.on("dialog", lambda dialog: pytest.fail("a name was run as a script"))
    given = traced.nodes[0]
    page.hover("#node-0")
    assert page.locator("#node h2").text_content() == given.name
    assert page.locator("h1").text_content() == name
    page.click("#last")
    assert page.locator("#step .list").text_content().endswith("= 2")


@needs_chromium
@pytest.mark.parametrize(
    ("body", "complaint"),
    [("<img src=http://x.invalid/a.png>", "asked for.*x.invalid"), ("<script>undefined.x</script>", "complained")],
)
def test_a_page_that_asks_or_complains_would_be_noticed(browser, tmp_path, body, complaint):
    file = tmp_path / "other.html"
    file.write_text(f"<!doctype html><title>other</title>{body}", encoding="utf-8")
    with pytest.raises(AssertionError, match=complaint), opened(browser, file):
        pass


def test_the_file_holds_no_address_of_another():
    html = swept(network()).html()
    assert not re.search(r"https?:|//\w|url\((?!&#34;#|\"#)|@import|<link(?! rel=\"icon\" href=\"data:,\")|src=", html)
    assert "default-src 'none'" in html


def test_a_graph_too_large_for_a_page_is_refused_with_what_to_do():
    traced = graph.trace(lambda x: sum((x * float(i) for i in range(1001)), 0.0), 1.0)
    with pytest.raises(ValueError, match=r"at most 1,000 nodes.*print\(graph\).*opened=\(\)"):
        traced.html()


@pytest.mark.parametrize("library", ["igraph", "jinja2"])
def test_a_missing_library_is_named_with_how_to_get_it(monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=r'pip install "lr-nn\[graph\]"'):
        textbook().html()
