"""Where the boxes and lines of a drawn ancestry go: in layers, the model below, every parent above its children.

The steps are those of layered drawing (Sugiyama, Tagawa and Toda, https://doi.org/10.1109/TSMC.1981.4308636): layers by
longest path, long lines led through every layer between, an order with few crossings, then positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from hubmerge.lineage.graph import Lineage

FAN = 4
"""From so many parents on that have no parents and no other child, one box lists them all."""
SWEEPS = 24
GAP = 26.0
ROW_GAP = 46.0
LANE = 14.0
"""Width of a line that passes a layer."""


@dataclass(frozen=True)
class Size:
    """Of a box, in pixels."""

    width: float
    height: float


@dataclass(frozen=True)
class Box:
    """One model, or several alike that one box lists; `x` and `y` are its centre."""

    members: tuple[str, ...]
    x: float
    y: float
    size: Size


@dataclass(frozen=True)
class Line:
    """From a parent down to a child: points between which curves leave and arrive vertically."""

    points: tuple[tuple[float, float], ...]
    is_base: bool


@dataclass(frozen=True)
class Drawing:
    """Boxes and lines from (0, 0) to (width, height)."""

    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    width: float
    height: float


@dataclass
class _Grid:
    """Vertices in layers, layer 0 the root's; a vertex is a box's members, or a lane that leads a line through.

    Attributes:
        up: Each vertex with its neighbours one layer above.
    """

    layers: list[list[str]]
    up: dict[str, list[str]]
    members: dict[str, tuple[str, ...]]
    routes: list[tuple[tuple[str, ...], bool]] = field(default_factory=list)

    def down(self) -> dict[str, list[str]]:
        """Returns each vertex with its neighbours one layer below."""
        below: dict[str, list[str]] = {vertex: [] for layer in self.layers for vertex in layer}
        for vertex, above in self.up.items():
            for neighbour in above:
                below[neighbour].append(vertex)
        return below


def layout(lineage: Lineage, size_of: Callable[[tuple[str, ...]], Size]) -> Drawing:
    """Returns where everything goes; edges that would close a circle are left out.

    Args:
        lineage: The ancestry.
        size_of: The size of the box that shows these nodes.
    """
    grid = _grid(lineage.forward)
    _reduce_crossings(grid)
    sizes = {vertex: size_of(members) for vertex, members in grid.members.items()}
    lane = Size(LANE, 0.0)
    sizes |= {vertex: lane for layer in grid.layers for vertex in layer if vertex not in sizes}
    return _placed(grid, sizes)


def _grid(lineage: Lineage) -> _Grid:
    members = _members(lineage)
    vertex_of = {node: vertex for vertex, nodes in members.items() for node in nodes}
    depth = lineage.generations
    layers: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    for vertex, nodes in members.items():
        layers[depth[nodes[0]]].append(vertex)
    grid = _Grid(layers, {vertex: [] for vertex in members}, members)
    for child, parent, is_base in _vertex_edges(lineage, vertex_of):
        grid.routes.append((_route(grid, parent, child, depth[members[parent][0]], depth[members[child][0]]), is_base))
    return grid


def _members(lineage: Lineage) -> dict[str, tuple[str, ...]]:
    """Returns the nodes of each box by the id of the first."""
    fans: dict[str, list[str]] = {}
    for edge in lineage.edges:
        is_leaf = not lineage.parents(edge.parent) and len(lineage.children(edge.parent)) == 1
        if is_leaf and not edge.is_base:
            fans.setdefault(edge.child, []).append(edge.parent)
    listed = {nodes[0]: tuple(nodes) for nodes in fans.values() if len(nodes) >= FAN}
    hidden = {node for nodes in listed.values() for node in nodes[1:]}
    return {node: listed.get(node, (node,)) for node in lineage.nodes if node not in hidden}


def _vertex_edges(lineage: Lineage, vertex_of: Mapping[str, str]) -> list[tuple[str, str, bool]]:
    edges = {(vertex_of[edge.child], vertex_of[edge.parent]): edge.is_base for edge in lineage.edges}
    return [(child, parent, is_base) for (child, parent), is_base in edges.items()]


def _route(grid: _Grid, parent: str, child: str, above: int, below: int) -> tuple[str, ...]:
    """Returns the vertices from parent to child; the lines of one parent share their lanes."""
    route = [parent]
    for layer in range(above - 1, below, -1):
        lane = f"{parent} {layer}"  # no node's id has a space in it before a number alone
        if lane not in grid.up:
            grid.up[lane] = []
            grid.layers[layer].append(lane)
        route.append(lane)
    route.append(child)
    for upper, lower in pairwise(route):
        if upper not in grid.up[lower]:
            grid.up[lower].append(upper)
    return tuple(route)


def _reduce_crossings(grid: _Grid) -> None:
    """Orders every layer by the mean place of the neighbours, up and down in turn; the best order seen stays."""
    down = grid.down()
    best, fewest = [list(layer) for layer in grid.layers], _crossings(grid)
    for sweep in range(SWEEPS):
        upwards = sweep % 2 == 0
        order = range(1, len(grid.layers)) if upwards else range(len(grid.layers) - 2, -1, -1)
        for index in order:
            fixed = grid.layers[index - 1 if upwards else index + 1]
            _sort_by_neighbours(grid.layers[index], fixed, down if upwards else grid.up)
        crossings = _crossings(grid)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in grid.layers], crossings
    grid.layers = best


def _sort_by_neighbours(layer: list[str], fixed: Sequence[str], neighbours: Mapping[str, Sequence[str]]) -> None:
    place = {vertex: float(index) for index, vertex in enumerate(fixed)}
    own = {vertex: index * (len(fixed) / len(layer)) for index, vertex in enumerate(layer)}
    layer.sort(key=lambda vertex: _mean([place[each] for each in neighbours[vertex]], default=own[vertex]))


def _crossings(grid: _Grid) -> int:
    return sum(_crossings_below(upper, lower, grid.up) for lower, upper in pairwise(grid.layers))


def _crossings_below(upper: Sequence[str], lower: Sequence[str], up: Mapping[str, Sequence[str]]) -> int:
    place = {vertex: index for index, vertex in enumerate(upper)}
    ends = [sorted(place[each] for each in up[vertex]) for vertex in lower]
    flat = [end for each in ends for end in each]
    return sum(a > b for index, a in enumerate(flat) for b in flat[index + 1 :])


def _placed(grid: _Grid, sizes: Mapping[str, Size]) -> Drawing:
    x = _columns(grid, sizes)
    heights = [max(sizes[vertex].height for vertex in layer) for layer in grid.layers]
    tops = [sum(heights[index + 1 :]) + ROW_GAP * (len(heights) - index - 1) for index in range(len(heights))]
    middle = {vertex: tops[i] + heights[i] / 2 for i, layer in enumerate(grid.layers) for vertex in layer}
    boxes = [Box(nodes, x[vertex], middle[vertex], sizes[vertex]) for vertex, nodes in grid.members.items()]
    row = {vertex: (tops[i], tops[i] + heights[i]) for i, layer in enumerate(grid.layers) for vertex in layer}
    lines = [Line(_points(route, x, middle, row, sizes), is_base) for route, is_base in grid.routes]
    width = max(box.x + box.size.width / 2 for box in boxes)
    return Drawing(tuple(boxes), tuple(lines), max(width, *x.values()), heights[0] + tops[0])


def _points(
    route: Sequence[str],
    x: Mapping[str, float],
    middle: Mapping[str, float],
    row: Mapping[str, tuple[float, float]],
    sizes: Mapping[str, Size],
) -> tuple[tuple[float, float], ...]:
    parent, *lanes, child = route
    start = (x[parent], middle[parent] + sizes[parent].height / 2)
    passed = [(x[lane], y) for lane in lanes for y in row[lane]]
    end = (x[child], middle[child] - sizes[child].height / 2)
    # Out of the row before turning: its neighbours may be taller.
    return (start, (x[parent], row[parent][1]), *passed, (x[child], row[child][0]), end)


def _columns(grid: _Grid, sizes: Mapping[str, Size]) -> dict[str, float]:
    """Returns the centre of every vertex: near the mean of its neighbours, in the order of its layer."""
    down = grid.down()
    x = {vertex: float(index) for layer in grid.layers for index, vertex in enumerate(layer)}
    for layer in grid.layers:
        x |= _spread(layer, [x[vertex] for vertex in layer], sizes)
    for sweep in range(SWEEPS):
        neighbours = down if sweep % 2 == 0 else grid.up
        for layer in grid.layers if sweep % 2 == 0 else reversed(grid.layers):
            wished = [_mean([x[each] for each in neighbours[vertex]], default=x[vertex]) for vertex in layer]
            x |= _spread(layer, wished, sizes)
    left = min(x[vertex] - sizes[vertex].width / 2 for vertex in x)
    return {vertex: place - left for vertex, place in x.items()}


def _spread(layer: Sequence[str], wished: Sequence[float], sizes: Mapping[str, Size]) -> dict[str, float]:
    """Returns places in order and apart from each other that are together as near as can be to those wished for.

    With the widths taken off this is the regression of an ever-growing sequence, solved by pooling neighbours that are
    in the wrong order.
    """
    offsets = [0.0]
    for left, right in pairwise(layer):
        offsets.append(offsets[-1] + (sizes[left].width + sizes[right].width) / 2 + GAP)
    pools: list[tuple[float, int]] = []
    for wish, offset in zip(wished, offsets, strict=True):
        total, count = wish - offset, 1
        while pools and pools[-1][0] / pools[-1][1] >= total / count:
            total, count = total + pools[-1][0], count + pools.pop()[1]
        pools.append((total, count))
    places = [total / count for total, count in pools for _ in range(count)]
    return {vertex: place + offset for vertex, place, offset in zip(layer, places, offsets, strict=True)}


def _mean(values: Iterable[float], *, default: float) -> float:
    found = list(values)
    return sum(found) / len(found) if found else default
