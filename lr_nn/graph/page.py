"""A computation graph as one HTML file that plays its sweeps: layout and words from here, no request to anywhere."""

from __future__ import annotations

from dataclasses import asdict
from importlib import resources
from typing import TYPE_CHECKING, Any

from lr_nn.graph.layout import BOX, Layout, layout
from lr_nn.graph.story import Story, forward_worked, tell
from lr_nn.graph.summary import brief, finite, shape, summary
from lr_nn.graph.wording import bar

if TYPE_CHECKING:
    from lr_nn.graph import Graph, Node

LIMIT = 1000
NAME, LINE = 13, 19
SCRIPTS = ("drawing.js", "panel.js", "sweep.js")


def html(graph: Graph, title: str | None = None) -> str:
    """The page of `graph`, self-contained: open the file in a browser and step through the sweeps.

    `title` is its heading, "Computation graph" if None. Without adjoints (before `graph.backward()`) it plays the
    forward sweep alone.

    Raises ValueError above 1,000 nodes, ImportError where igraph or Jinja2 is missing.
    """
    if not isinstance(title, (str, type(None))):
        raise TypeError(f"title must be a text; got {title!r:.60}")
    if len(graph.nodes) > LIMIT:
        raise ValueError(
            f"a page shows at most {LIMIT:,} nodes; this graph has {len(graph.nodes):,}: use print(graph), or trace "
            "with opened=() to keep each nested call as one node"
        )
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup

        placed = layout([node.operands for node in graph.nodes])
    except ImportError as error:
        raise ImportError('the page of a graph needs igraph and Jinja2: pip install "lr-nn[graph]"') from error
    story = tell(graph)
    environment = Environment(
        loader=PackageLoader("lr_nn.graph"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja").render(
        title=title or "Computation graph",
        about=_about(graph),
        warning=_warning(graph),
        size=placed.size,
        box=BOX,
        nodes=[_drawn(node, kind(graph, node), corner) for node, corner in zip(graph.nodes, placed.corners)],
        edges=_lines(story, placed),
        data=_data(graph, story),
        has_backward=story.has_backward,
        style=Markup(_file("page.css")),
        script=Markup("\n".join(map(_file, SCRIPTS))),
    )


def kind(graph: Graph, node: Node) -> str:
    """`input` for an argument, `constant`, `output` for what the function returns, else `operation`."""
    if node.op in ("input", "constant"):
        return node.op
    return "output" if node.index in graph.outputs else "operation"


def _about(graph: Graph) -> str:
    """How large the graph is, and what it comes to."""
    kinds = [kind(graph, node) for node in graph.nodes]
    given = kinds.count("input")
    ends = ", ".join(f"{node.name} = {brief(node.value)}" for node in (graph.nodes[i] for i in graph.outputs[:3]))
    computed = len(kinds) - given - kinds.count("constant")
    return f"{_counted(computed, 'operation')} on {_counted(given, 'input')}; result {ends}"


def _warning(graph: Graph) -> dict[str, Any] | None:
    """What the banner says of the first number that is not finite, and at which node."""
    node = graph.non_finite
    if node is None:
        return None
    where = f" ({node.source})" if node.source else ""
    if finite(node.value).all():
        what, text = "adjoint", f"{bar(node.name)}{where}: the first adjoint that is not finite; every value is."
    else:
        what, text = "value", f"{node.equation or node.name}{where}: the first value that is not finite."
    return {"node": node.index, "what": what, "text": text}


def _drawn(node: Node, kind: str, corner: tuple[float, float]) -> dict[str, Any]:
    """The box of a node, before any sweep."""
    operands = f" of {_counted(len(node.operands), 'operand')}" if node.operands else ""
    sized = f" {shape(node.value)}" if node.value.ndim else ""
    return {
        "index": node.index,
        "kind": kind,
        "corner": corner,
        "name": _shortened(node.name, NAME),
        "operation": f"{_shortened(node.op, LINE - len(sized))}{sized}",
        "label": f"{node.name}, {kind}{operands}",
    }


def _shortened(text: str, most: int) -> str:
    """At most so many letters, of which the last tell more than those in the middle."""
    most = max(most, 5)
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[len(text) - most + most // 2 :]}"


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _lines(story: Story, placed: Layout) -> list[dict[str, Any]]:
    """The line of each edge, and where its contribution is written."""
    return [
        {"path": path, "x": x - 12, "y": y - 6, "label": edge.amount}
        for edge, path, (x, y) in zip(story.edges, placed.paths, placed.ends)
    ]


def _data(graph: Graph, story: Story) -> dict[str, Any]:
    """All that the script needs, fit for JSON."""
    return {
        "nodes": [_described(graph, node) for node in graph.nodes],
        "edges": [
            {
                "source": edge.source,
                "target": edge.target,
                "equation": edge.equation,
                "worked": edge.worked,
                "contribution": None if edge.contribution is None else summary(edge.contribution),
                "total": None if edge.total is None else brief(edge.total),
                "branch": edge.branch,
                "branches": edge.branches,
                "step": edge.step,
            }
            for edge in story.edges
        ],
        "steps": [asdict(step) for step in story.steps],
    }


def _described(graph: Graph, node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "bar": bar(node.name),
        "op": node.op,
        "kind": kind(graph, node),
        "equation": node.equation,
        "worked": forward_worked(graph, node),
        "source": node.source,
        "value": summary(node.value),
        "adjoint": None if node.adjoint is None else summary(node.adjoint),
        "finite": bool(finite(node.value).all()),
        "adjoint_finite": node.adjoint is None or bool(finite(node.adjoint).all()),
    }


def _file(name: str) -> str:
    return (resources.files("lr_nn.graph") / "templates" / name).read_text(encoding="utf-8")
