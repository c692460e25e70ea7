"""What came from what, as a picture that fits a phone: layers from top to bottom, arrows from used to made."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from plaudit.report.folder import Row, number

__all__ = ["Box", "Graph", "Made", "layout", "read_lineage"]

_BOX_WIDTH, _BOX_HEIGHT = 132, 44
_GAP_X, _GAP_Y = 14, 34
_LANE = 18  # width that a passing arrow needs
_INWARD = 0.4  # pull of every name to the middle of the picture, against 1 of a neighbour
_LETTERS = 17  # that fit on one line of a box


@dataclass(frozen=True, slots=True)
class Made:
    """One line of the lineage: an artifact, the stage that made it, what it was made from, and the seconds."""

    artifact: str
    stage: str
    sources: tuple[str, ...]
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Box:
    """An artifact's place in the picture; `outside` is what no stage of this run made."""

    name: str
    lines: tuple[str, ...]
    """The name in one or two lines that fit."""
    x: float
    y: float
    outside: bool


@dataclass(frozen=True, slots=True)
class Graph:
    """A picture: boxes, the paths of the arrows, and its size in pixels."""

    width: float
    height: float
    box_width: float
    box_height: float
    boxes: tuple[Box, ...]
    arrows: tuple[str, ...]


def read_lineage(rows: Sequence[Row]) -> tuple[Made, ...]:
    """The lines that name an artifact."""
    found = []
    for row in rows:
        artifact = _name(row.get("artifact"))
        if not artifact:
            continue
        given = row.get("from")
        sources = [_name(source) for source in (given if isinstance(given, list) else [given])]
        found.append(
            Made(
                artifact=artifact,
                stage=str(row.get("stage") or ""),
                sources=tuple(dict.fromkeys(source for source in sources if source)),
                seconds=number(row.get("seconds")),
            )
        )
    return tuple(found)


def _name(value: object) -> str:
    """A name on one line; what is no text names nothing."""
    return " ".join(value.split()) if isinstance(value, str) else ""


def layout(made: Sequence[Made]) -> Graph:
    """Place every artifact below all that it was made from; an arrow over several layers gets a lane in each."""
    sources = _sources(made)
    if not sources:
        return Graph(0, 0, _BOX_WIDTH, _BOX_HEIGHT, (), ())
    depth = _depths(sources)
    layers: dict[int, list[str]] = defaultdict(list)
    for name in sources:
        layers[depth[name]].append(name)
    chains = []
    for name, above in sources.items():
        for source in above:
            lanes = [f"{source}\n{name}\n{level}" for level in range(depth[source] + 1, depth[name])]
            for level, lane in enumerate(lanes, start=depth[source] + 1):
                layers[level].append(lane)
            chains.append([source, *lanes, name])
    rows = [layers[level] for level in range(max(layers) + 1)]
    _untangle(rows, chains)
    return _place(rows, chains, {name for name, above in sources.items() if not above and name not in _artifacts(made)})


def _artifacts(made: Sequence[Made]) -> set[str]:
    return {line.artifact for line in made}


def _sources(made: Sequence[Made]) -> dict[str, list[str]]:
    """Each name with what it was made from; an arrow that would close a circle is left out."""
    found: dict[str, list[str]] = {}
    for line in made:
        for source in line.sources:
            found.setdefault(source, [])
        mine = found.setdefault(line.artifact, [])
        for source in line.sources:
            if source not in mine and not _reaches(found, source, line.artifact):
                mine.append(source)
    return found


def _reaches(sources: Mapping[str, list[str]], start: str, goal: str) -> bool:
    """Whether `goal` is `start` or among what `start` was made from."""
    seen, left = {start}, [start]
    while left:
        name = left.pop()
        if name == goal:
            return True
        new = [source for source in sources.get(name, []) if source not in seen]
        seen.update(new)
        left.extend(new)
    return False


def _depths(sources: Mapping[str, list[str]]) -> dict[str, int]:
    """The layer of each name: below its sources; what has none stands just above what uses it first."""
    depth: dict[str, int] = {}
    left = dict(sources)
    while left:
        ready = [name for name, above in left.items() if all(source in depth for source in above)]
        for name in ready:
            depth[name] = max((depth[source] + 1 for source in left.pop(name)), default=0)
    users: dict[str, list[str]] = defaultdict(list)
    for name, above in sources.items():
        for source in above:
            users[source].append(name)
    for name, above in sources.items():
        if not above and users[name]:
            depth[name] = max(0, min(depth[user] for user in users[name]) - 1)
    return depth


def _untangle(rows: list[list[str]], chains: Sequence[Sequence[str]]) -> None:
    """Order each layer by the mean place of its neighbours, down and up a few times."""
    above: dict[str, list[str]] = defaultdict(list)
    below: dict[str, list[str]] = defaultdict(list)
    for chain in chains:
        for upper, lower in pairwise(chain):
            below[upper].append(lower)
            above[lower].append(upper)
    for _ in range(4):
        for neighbours, order in ((above, rows), (below, rows[::-1])):
            for fixed, moving in pairwise(order):
                place = {name: (index + 0.5) / len(fixed) for index, name in enumerate(fixed)}
                mean = {}
                for index, name in enumerate(moving):
                    near = [place[other] for other in neighbours[name] if other in place]
                    mean[name] = sum(near) / len(near) if near else (index + 0.5) / len(moving)
                moving.sort(key=lambda name: mean[name])


def _place(rows: Sequence[Sequence[str]], chains: Sequence[Sequence[str]], outside: set[str]) -> Graph:
    centre = _straighten(rows, chains)
    left = min(centre[name] - _breadth(name) / 2 for row in rows for name in row) - 2
    centre = {name: x - left for name, x in centre.items()}
    width = max(centre[name] + _breadth(name) / 2 for row in rows for name in row) + 2
    top = {name: 2.0 + level * (_BOX_HEIGHT + _GAP_Y) for level, row in enumerate(rows) for name in row}
    boxes = tuple(
        Box(name, _fit(name), round(centre[name] - _BOX_WIDTH / 2, 1), top[name], name in outside)
        for row in rows
        for name in row
        if "\n" not in name
    )
    ports = _ports(chains, centre)
    arrows = tuple(_arrow(chain, *ports[index], centre, top) for index, chain in enumerate(chains))
    height = 4 + len(rows) * (_BOX_HEIGHT + _GAP_Y) - _GAP_Y
    return Graph(round(width, 1), height, _BOX_WIDTH, _BOX_HEIGHT, boxes, arrows)


def _breadth(name: str) -> float:
    return _LANE if "\n" in name else _BOX_WIDTH


def _straighten(rows: Sequence[Sequence[str]], chains: Sequence[Sequence[str]]) -> dict[str, float]:
    """The middle of each name: as near to that of its neighbours as its row allows, lanes before boxes."""
    pull: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for chain in chains:
        for upper, lower in pairwise(chain):
            weight = 30.0 if "\n" in upper and "\n" in lower else 1.0
            pull[upper].append((lower, weight))
            pull[lower].append((upper, weight))
    centre: dict[str, float] = {}
    for row in rows:
        x = -(sum(_breadth(name) for name in row) + _GAP_X * (len(row) - 1)) / 2
        for name in row:
            centre[name] = x + _breadth(name) / 2
            x += _breadth(name) + _GAP_X
    for turn in range(80):
        for row in rows if turn % 2 else rows[::-1]:
            wish = [
                sum(centre[other] * weight for other, weight in pull[name])
                / (sum(weight for _, weight in pull[name]) + _INWARD)
                for name in row
            ]
            centre.update(zip(row, _apart(row, wish), strict=True))
    return centre


def _apart(row: Sequence[str], wish: Sequence[float]) -> list[float]:
    """The wished places, moved as little as keeps the row's order without overlaps: neighbours that clash share."""
    offsets = [0.0]
    for before, after in pairwise(row):
        offsets.append(offsets[-1] + (_breadth(before) + _breadth(after)) / 2 + _GAP_X)
    blocks: list[tuple[float, int]] = []  # mean wish less offset, and how many names share it
    for place, offset in zip(wish, offsets, strict=True):
        mean, size = place - offset, 1
        while blocks and blocks[-1][0] > mean:
            other, many = blocks.pop()
            mean, size = (mean * size + other * many) / (size + many), size + many
        blocks.append((mean, size))
    starts = [mean for mean, size in blocks for _ in range(size)]
    return [start + offset for start, offset in zip(starts, offsets, strict=True)]


def _ports(chains: Sequence[Sequence[str]], centre: Mapping[str, float]) -> list[tuple[float, float]]:
    """Where each arrow leaves and enters: side by side along a box, in the order of where it goes."""
    ports = [(0.0, 0.0)] * len(chains)
    for end in (0, 1):
        by_box: dict[str, list[int]] = defaultdict(list)
        for index, chain in enumerate(chains):
            by_box[chain[-end]].append(index)
        for box, indices in by_box.items():
            indices.sort(key=lambda index: centre[chains[index][-2 if end else 1]])
            gap = min(26.0, (_BOX_WIDTH - 30) / len(indices))
            for place, index in enumerate(indices):
                x = centre[box] + gap * (place - (len(indices) - 1) / 2)
                ports[index] = (ports[index][0], x) if end else (x, 0.0)
    return ports


def _arrow(
    chain: Sequence[str], leaves: float, enters: float, centre: Mapping[str, float], top: Mapping[str, float]
) -> str:
    """The path of an arrow: down through its lanes, with a soft curve between two layers."""
    x = leaves
    path = [f"M{x:.1f} {top[chain[0]] + _BOX_HEIGHT:.1f}"]
    for upper, lower in pairwise(chain):
        last = lower == chain[-1]
        start, end = top[upper] + _BOX_HEIGHT, top[lower] - (5 if last else 0)
        to, middle = (enters if last else centre[lower]), (start + end) / 2
        path.append(f"C{x:.1f} {middle:.1f} {to:.1f} {middle:.1f} {to:.1f} {end:.1f}")
        if not last:
            path.append(f"V{top[lower] + _BOX_HEIGHT:.1f}")
        x = to
    return "".join(path)


def _fit(name: str) -> tuple[str, ...]:
    """The name in one line, or broken near its middle; the middle of a line that is still too long is left out."""
    if _wide(name) <= _LETTERS:
        return (name,)
    breaks = [found.end() for found in re.finditer(r"[\s/_.:-]+", name) if found.end() < len(name)]
    if not breaks:
        return (_shorten(name),)
    middle = min(breaks, key=lambda place: abs(place - len(name) / 2))
    return _shorten(name[:middle].strip()), _shorten(name[middle:])


def _wide(text: str) -> int:
    """Letters of a text; those of Chinese, Japanese and Korean count for two."""
    return sum(2 if ord(letter) > 0x2E80 else 1 for letter in text)


def _shorten(text: str) -> str:
    if _wide(text) <= _LETTERS:
        return text
    half = (_LETTERS - 1) // (2 if _wide(text) == len(text) else 4)
    return f"{text[:half]}…{text[-half:]}"
