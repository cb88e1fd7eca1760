"""Where the nodes of a graph stand on the page: in layers from left to right, by the method of Sugiyama.

K. Sugiyama, S. Tagawa, M. Toda: Methods for visual understanding of hierarchical system structures. IEEE Transactions
on Systems, Man, and Cybernetics 11 (1981) 109-125. The order within the layers, which keeps crossings few, and the
coordinates are igraph's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

BOX = (156, 82)
PITCH = (284, 104)
MARGIN = 28
GAP = 22
PORTS = 18
SLACK = 2

Point = tuple[float, float]


@dataclass(frozen=True)
class Layout:
    """Corners (left, top) of the boxes, the path of each edge in SVG's terms, and the point where it arrives."""

    size: Point
    corners: tuple[Point, ...]
    paths: tuple[str, ...]
    ends: tuple[Point, ...]


def layout(operands: Sequence[Sequence[int]]) -> Layout:
    """Place nodes in topological order, given the operands of each; edges come node by node, operand by operand.

    Raises ImportError where igraph is not installed.
    """
    import igraph

    edges = [(source, target) for target, sources in enumerate(operands) for source in sources]
    chains, layer = _chains(edges, layers(operands))
    steps = sorted({step for chain in chains for step in pairwise(chain)})
    points = igraph.Graph(n=len(layer), edges=steps, directed=True).layout_sugiyama(layers=layer).coords
    heights = _heights([point[0] for point in points], layer, len(operands))
    centres = [(MARGIN + BOX[0] / 2 + PITCH[0] * column, height) for column, height in zip(layer, heights)]
    ends = _ends(chains, centres)
    right = max((x for x, _ in centres), default=0) + BOX[0] / 2
    bottom = max((y for _, y in centres), default=0) + BOX[1] / 2
    return Layout(
        size=(right + MARGIN, bottom + MARGIN),
        corners=tuple((x - BOX[0] / 2, y - BOX[1] / 2) for x, y in centres[: len(operands)]),
        paths=tuple(_path([centres[i] for i in chain], end) for chain, end in zip(chains, ends)),
        ends=ends,
    )


def layers(operands: Sequence[Sequence[int]]) -> list[int]:
    """The layer of each node: the longest path to it; what makes no line longer by it then moves up to its uses.

    That is a node with no more operands than uses, and a tree that is used in one place alone.
    """
    uses: list[set[int]] = [set() for _ in operands]
    layer: list[int] = []
    for target, sources in enumerate(operands):
        layer.append(1 + max((layer[source] for source in sources), default=-1))
        for source in sources:
            uses[source].add(target)
    is_tree: list[bool] = []
    for sources in operands:
        is_tree.append(all(is_tree[source] and len(uses[source]) == 1 for source in sources))
    for node in reversed(range(len(operands))):
        if uses[node] and (is_tree[node] or len(set(operands[node])) <= len(uses[node])):
            layer[node] = min(layer[use] for use in uses[node]) - 1
    return layer


def _chains(edges: list[tuple[int, int]], layer: list[int]) -> tuple[list[list[int]], list[int]]:
    """Each edge as a chain with one stop a layer, and the layer of every node and stop.

    Edges out of one node share their stops, so that a value with many uses travels on one line.
    """
    layer, stops, chains = list(layer), dict[tuple[int, int], int](), []
    for source, target in edges:
        chain = [source]
        for column in range(layer[source] + 1, layer[target]):
            if (source, column) not in stops:
                stops[source, column] = len(layer)
                layer.append(column)
            chain.append(stops[source, column])
        chains.append([*chain, target])
    return chains, layer


def _heights(rows: list[float], layer: list[int], nodes: int) -> list[float]:
    """Rows in pixels: as far apart as boxes and lines need, and otherwise as close as may be to where igraph put them.

    A page of many lines is drawn in closer rows, at most `SLACK` times as high as its fullest layer needs.
    """
    columns: dict[int, list[int]] = {}
    for point in sorted(range(len(rows)), key=rows.__getitem__):
        columns.setdefault(layer[point], []).append(point)
    depth = [BOX[1] / 2 if point < nodes else 0.0 for point in range(len(rows))]
    offsets = {
        column: list(accumulate((depth[a] + depth[b] + GAP for a, b in pairwise(points)), initial=0.0))
        for column, points in columns.items()
    }
    extent = max(rows, default=0) - min(rows, default=0)
    needed = max((offset[-1] for offset in offsets.values()), default=0)
    unit = min(PITCH[1], SLACK * needed / extent) if extent else PITCH[1]
    heights = [0.0] * len(rows)
    for column, points in columns.items():
        free = _increasing([unit * rows[point] - offset for point, offset in zip(points, offsets[column])])
        for point, height, offset in zip(points, free, offsets[column]):
            heights[point] = height + offset
    top = min((height - depth[point] for point, height in enumerate(heights)), default=0)
    return [height - top + MARGIN for height in heights]


def _increasing(wished: list[float]) -> list[float]:
    """The numbers that never fall and are closest to those wished, by squares: runs that fall become their mean."""
    runs: list[tuple[float, int]] = []
    for wish in wished:
        mean, count = wish, 1
        while runs and runs[-1][0] > mean:
            before, length = runs.pop()
            mean, count = (mean * count + before * length) / (count + length), count + length
        runs.append((mean, count))
    return [mean for mean, count in runs for _ in range(count)]


def _ends(chains: list[list[int]], centres: list[Point]) -> tuple[Point, ...]:
    """Where each edge enters its box: on the left, in the order in which they come, so that none cross."""
    arriving: dict[int, list[int]] = {}
    for edge, chain in enumerate(chains):
        arriving.setdefault(chain[-1], []).append(edge)
    ends: dict[int, Point] = {}
    for target, group in arriving.items():
        group.sort(key=lambda edge: centres[chains[edge][-2]][1])
        gap = min(PORTS, (BOX[1] - PORTS) / len(group))
        x, y = centres[target]
        for rank, edge in enumerate(group):
            ends[edge] = x - BOX[0] / 2, y + gap * (rank - (len(group) - 1) / 2)
    return tuple(ends[edge] for edge in range(len(chains)))


def _path(chain: list[Point], end: Point) -> str:
    """From box to box, level past each stop and bent in the gaps between the layers."""
    half = BOX[0] / 2
    (x, y), *stops, _ = chain
    x += half
    drawn = [f"M{x:.0f} {y:.0f}"]
    for left, level, right in [*((stop[0] - half, stop[1], stop[0] + half) for stop in stops), (*end, None)]:
        middle = (x + left) / 2
        drawn.append(f"C{middle:.0f} {y:.0f} {middle:.0f} {level:.0f} {left:.0f} {level:.0f}")
        if right is not None:
            drawn.append(f"H{right:.0f}")
            x, y = right, level
    return "".join(drawn)
