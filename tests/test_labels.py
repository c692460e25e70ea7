"""Judgements by machines: ranks by hand, files of every kind, and work that was cut goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plaudit.errors import NumberError, RecordError, ScorerError
from plaudit.labels import Journal, compare_answers, journal, ranks_of, score_answers
from plaudit.reading import load
from plaudit.recipe import Source
from plaudit.records import Comparison, Judgement, Preferred, Prompt, Ranking
from plaudit.records import Scores as ScoresVerdict
from plaudit.scorers import FunctionScorer, Scores, Service
from plaudit.scorers.judge import ChatJudge
from plaudit.scorers.seam import group_of_texts

GROUPS = [
    group_of_texts(Prompt(text=f"say {n}", id=f"p{n}"), [("a" * n, True), ("b" * (2 * n), True), ("c", False)])
    for n in range(1, 4)
]
LENGTH = FunctionScorer(lambda prompt, answer: len(answer))


def read(path: Path) -> list[Judgement]:
    return load([Source(path=str(path))], "judgements", seed=0)


@pytest.mark.parametrize(
    ("scores", "tolerance", "ranks"),
    [
        ([3.0, 1.0, 2.0], 0.0, (1, 3, 2)),
        ([1.0, 1.0, 0.5], 0.0, (1, 1, 2)),
        ([1.0, 0.9, 0.8], 0.15, (1, 1, 2)),  # 0.8 is near 0.9, but not near the best of its rank
        ([-2.0], 0.0, (1,)),
        ([0.0, 5.0, 0.0, 5.0], 9.0, (1, 1, 1, 1)),
    ],
)
def test_ranks_by_hand(scores, tolerance, ranks):
    assert ranks_of(scores, tolerance) == ranks


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=8), st.integers(0, 4))
def test_ranks_never_go_against_the_scores(scores, tolerance):
    ranks = ranks_of(scores, tolerance)
    for one, its in zip(scores, ranks, strict=True):
        for other, rank in zip(scores, ranks, strict=True):
            if one == other:
                assert its == rank
            if its < rank:
                assert one > other
            if its == rank:
                assert abs(one - other) <= tolerance
    assert set(ranks) == set(range(1, max(ranks) + 1))


def test_a_ranking_for_each_prompt(tmp_path):
    with journal(tmp_path / "j.jsonl") as into:
        score_answers(GROUPS, LENGTH, into, annotator="length", tolerance=1)
    found = read(tmp_path / "j.jsonl")
    assert [one.verdict for one in found] == [Ranking(ranks=r) for r in ((1, 1, 1), (2, 1, 2), (2, 1, 3))]
    assert {one.annotator for one in found} == {"length"}
    assert found[2].answers == ("aaa", "bbbbbb", "c")


def test_or_the_scores(tmp_path):
    groups = [*GROUPS[:1], group_of_texts(Prompt(text="alone"), [("one", True)])]
    with journal(tmp_path / "j.jsonl") as into:
        score_answers(groups, LENGTH, into, annotator="length", gives="scores")
    assert [one.verdict for one in read(tmp_path / "j.jsonl")] == [
        ScoresVerdict(scores=(1.0, 2.0, 1.0)),
        ScoresVerdict(scores=(3.0,)),
    ]


def test_one_answer_cannot_be_ranked(tmp_path):
    group = group_of_texts(Prompt(text="alone"), [("one", True)])
    with journal(tmp_path / "j.jsonl") as into:
        score_answers([group, *GROUPS], LENGTH, into, annotator="length")
        assert into.lines == 3
    with journal(tmp_path / "k.jsonl") as into, pytest.raises(RecordError, match="none of 1 prompts has 2 different"):
        score_answers([group], LENGTH, into, annotator="length")


def test_a_failure_is_no_judgement(tmp_path):
    class Lame:
        def score(self, groups: Any) -> Scores:
            nan = float("nan")
            return Scores(
                value_PG=tuple((nan, nan, nan) for _ in groups), failed={(0, 0): "x", (0, 1): "x", (0, 2): "x"}
            )

    with pytest.raises(NumberError, match="the scorer failed on 3 answers: x"), journal(tmp_path / "j.jsonl") as into:
        score_answers(GROUPS[:1], Lame(), into, annotator="lame")
    assert list(tmp_path.iterdir()) == []  # and there is nothing to go on with


class Falling:
    """Scores by length, and falls at the given group of one call."""

    def __init__(self, at: str) -> None:
        self.at = at
        self.seen: list[str] = []

    def score(self, groups: Any) -> Scores:
        self.seen += [group.prompt.id for group in groups]
        if self.at in self.seen:
            raise ScorerError("gone")
        return LENGTH.score(groups)


def test_work_that_was_cut_goes_on_behind_the_last_whole_line(tmp_path):
    many = [group_of_texts(Prompt(text=str(n), id=f"q{n}"), [("a", True), ("b" * n, True)]) for n in range(2, 80)]
    with journal(tmp_path / "straight.jsonl", "x") as into:
        score_answers(many, LENGTH, into, annotator="length")
    out = tmp_path / "j.jsonl"
    out.write_text("the old file")
    with pytest.raises(ScorerError), journal(out, "x") as into:
        score_answers(many, Falling("q50"), into, annotator="length")
    assert out.read_text() == "the old file"
    (aside,) = tmp_path.glob(".j.jsonl.*.writing")
    whole = aside.read_bytes()
    aside.write_bytes(whole[:-7])  # the last line broke off too
    again = Falling("none")
    with journal(out, "x") as into:
        score_answers(many, again, into, annotator="length")
    assert out.read_bytes() == (tmp_path / "straight.jsonl").read_bytes()
    assert again.seen[0] == f"q{len(whole.splitlines()) + 1}"  # ids begin at 2, and one line is made again
    assert not list(tmp_path.glob(".*.writing"))


def test_work_for_another_purpose_begins_anew(tmp_path):
    many = [group_of_texts(Prompt(text=str(n), id=f"q{n}"), [("a", True), ("b", True)]) for n in range(60)]
    with pytest.raises(ScorerError), journal(tmp_path / "j.jsonl", 40) as into:
        score_answers(many, Falling("q50"), into, annotator="length")
    with journal(tmp_path / "j.jsonl", 50) as into:
        assert into.lines == 0


def test_a_journal_knows_what_it_holds(tmp_path):
    into = Journal(tmp_path / "j")
    into.add([Judgement(prompt=Prompt(text="a", id="p"), answers=("b",), verdict=ScoresVerdict(scores=(1.0,)))])
    into.close()
    again = Journal(tmp_path / "j")
    again.close()
    assert again.lines == 1
    assert again.has(Prompt(text="a", id="p"), ["b"])
    assert not again.has(Prompt(text="a", id="p"), ["c"])


def chat(serve, verdict: Any, asked: list[str] | None = None) -> ChatJudge:
    def reply(request: Any) -> tuple[int, Any]:
        text = request["messages"][0]["content"]
        if asked is not None:
            asked.append(text)
        return 200, {"choices": [{"message": {"content": verdict(text)}}]}

    return ChatJudge(Service(serve(reply), retries=0), "wise")


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_judge_compares_all_pairs(tmp_path, serve, concurrency):
    judge = chat(
        serve, lambda text: "[[A]]" if "[Answer A]\nb" in text else "[[B]]" if "[Answer B]\nb" in text else "[[A]]"
    )
    with journal(tmp_path / "j.jsonl") as into:
        how = compare_answers(GROUPS[1:], judge, into, annotator="wise", concurrency=concurrency)
    assert (how.pairs, how.unsteady, how.unclear) == (6, 2, 0)
    found = read(tmp_path / "j.jsonl")
    assert [(one.prompt.id, one.answers) for one in found[:3]] == [
        ("p2", ("aa", "bbbb")), ("p2", ("aa", "c")), ("p2", ("bbbb", "c")),
    ]  # fmt: skip
    preferred = [one.verdict.preferred for one in found if isinstance(one.verdict, Comparison)]
    assert preferred == [Preferred.SECOND, Preferred.TIE, Preferred.FIRST] * 2


def test_a_judge_that_was_cut_is_not_asked_again(tmp_path, serve):
    asked: list[str] = []

    def verdict(text: str) -> Any:
        if len(asked) > 4:
            return ["gone"]
        return "[[C]]"

    with journal(tmp_path / "j.jsonl") as into:
        how = compare_answers(GROUPS[:1], chat(serve, verdict, asked), into, annotator="wise", concurrency=1)
        assert (how.pairs, how.unclear, into.lines) == (3, 1, 2)
        assert how.example == '["gone"]'
        asked.clear()
        how = compare_answers(GROUPS[:1], chat(serve, verdict, asked), into, annotator="wise")
        assert (how.pairs, len(asked), into.lines) == (1, 2, 3)


def test_a_judge_without_any_verdict_leaves_the_file_as_it_was(tmp_path, serve):
    out = tmp_path / "j.jsonl"
    out.write_text("good labels\n")
    with (
        pytest.raises(ScorerError, match=r"no reply of wise held a verdict, .*, on any of 3 pairs.*'hm'"),
        journal(out) as into,
    ):
        compare_answers(GROUPS[:1], chat(serve, lambda text: "hm"), into, annotator="wise")
    assert [path.name for path in tmp_path.iterdir()] == ["j.jsonl"]
    assert out.read_text() == "good labels\n"


def test_small_scores_keep_their_order(tmp_path):
    groups = [group_of_texts(Prompt(text="p"), [("a", True), ("bb", True)])]
    tiny = FunctionScorer(lambda prompt, answer: 1e-9 * len(answer) / 3)
    with journal(tmp_path / "s.jsonl") as into:
        score_answers(groups, tiny, into, annotator="me", gives="scores")
    (found,) = read(tmp_path / "s.jsonl")
    assert isinstance(found.verdict, ScoresVerdict)
    assert found.verdict.scores == (3.33333333e-10, 6.66666667e-10)


def test_nothing_to_compare(tmp_path, serve):
    group = group_of_texts(Prompt(text="alone"), [("one", True)])
    with journal(tmp_path / "j.jsonl") as into, pytest.raises(RecordError, match="nothing to compare"):
        compare_answers([group], chat(serve, lambda text: "[[A]]"), into, annotator="wise")


def test_the_records_are_whole(tmp_path):
    with journal(tmp_path / "j.jsonl") as into:
        score_answers(GROUPS, LENGTH, into, annotator="length")
    first = json.loads((tmp_path / "j.jsonl").read_text().splitlines()[0])
    assert first["prompt"]["id"] == "p1"
    assert first["verdict"]["kind"] == "ranking"
