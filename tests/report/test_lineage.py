"""The picture of what came from what: above is earlier, and nothing overlaps."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from plaudit.report.lineage import Graph, Made, layout, read_lineage

NAMES = st.sampled_from(["language", "sft", "judgements.jsonl", "reward-model", "policy", "prompts", "书评"])
LINES = st.lists(st.builds(Made, NAMES, st.just("s"), st.lists(NAMES, max_size=4).map(tuple), st.none()), max_size=8)


def check(graph: Graph) -> None:
    for one, other in combinations(graph.boxes, 2):
        apart = abs(one.x - other.x) >= graph.box_width or abs(one.y - other.y) >= graph.box_height
        assert apart, (one, other)
    for box in graph.boxes:
        assert box.x >= 0
        assert box.x + graph.box_width <= graph.width
        assert box.y + graph.box_height <= graph.height


def test_a_run_by_hand():
    made = [
        Made("sft", "sft", ("language", "demonstrations"), 2.0),
        Made("reward-model", "reward", ("sft", "judgements.jsonl"), 3.0),
        Made("policy", "policy", ("sft", "reward-model"), 4.0),
    ]
    graph = layout(made)
    check(graph)
    y = {box.name: box.y for box in graph.boxes}
    assert y["language"] == y["demonstrations"] < y["sft"] == y["judgements.jsonl"] < y["reward-model"] < y["policy"]
    assert {box.name for box in graph.boxes if box.outside} == {"language", "demonstrations", "judgements.jsonl"}
    assert len(graph.arrows) == 6


@given(LINES)
def test_any_lineage_is_drawn_whole_even_in_circles(made):
    graph = layout(made)
    check(graph)
    assert {box.name for box in graph.boxes} == {n for line in made for n in (line.artifact, *line.sources)}


def test_no_lineage_no_picture():
    assert layout([]).boxes == ()


def test_a_long_name_is_broken_and_shortened():
    names = ("/home/somebody/models/a-very-long-name-of-a-model", "x" * 40, "short")
    boxes = {box.name: box.lines for box in layout([Made("policy", "policy", names, None)]).boxes}
    assert boxes["short"] == ("short",)
    assert boxes["x" * 40] == ("x" * 8 + "…" + "x" * 8,)
    assert len(boxes[names[0]]) == 2


def test_odd_lines_are_read_as_far_as_they_go():
    rows: list[dict[str, Any]] = [
        {"artifact": "a\n b", "from": "c", "seconds": "3"},
        {"artifact": 3},
        {"artifact": "d", "stage": "sft", "from": ["e", None, "e"], "seconds": 2},
    ]
    assert read_lineage(rows) == (Made("a b", "", ("c",), None), Made("d", "sft", ("e",), 2.0))
