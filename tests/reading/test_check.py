"""`plaudit data check`: every number of the report on a file small enough to count by hand."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from plaudit.errors import RecordError
from plaudit.reading.check import Lengths, LongerWins, Report, check_file, longer_wins, render
from plaudit.records import Choice, Comparison, Judgement, Preferred, Prompt, Ranking, Scores, Thumb, Verdict

Write = Callable[[Sequence[Any]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def lines(rows: Sequence[Any]) -> Path:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return lines


def shown(report: Report) -> str:
    console = Console(file=io.StringIO(), width=100)
    render(report, console)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def pair(prompt: str, first: Any, second: Any, label: int) -> dict[str, Any]:
    return {"prompt": prompt, "response 1": first, "response 2": second, "label": label}


def test_a_report_by_hand(write: Write):
    report = check_file(
        write(
            [
                pair("ab", "long one", "short", 0),  # the longer one wins
                pair("ab", "long one", "short", 0),  # said twice
                pair("abcd", "a &amp; b", "AT&T & co", 2),  # a tie; equally long
                pair("abcd", "same", "same", 1),  # chosen equals rejected: half a win
                pair("a", " ", "[b] &bogus;", 1),  # an answer without a visible character
                pair("a", "x", True, 1),
            ]
        ),
        count_tokens=lambda text: len(text.split()),
    )
    assert (report.format, report.kind, report.rows, report.records) == ("labelled-pair-tie", "judgements", 6, 5)
    assert [str(problem).rsplit("/", 1)[1] for problem in report.problems] == [
        "rows.jsonl:6: response 2: needs a text (found true)"
    ]
    assert not report.ok
    assert (report.prompts, report.answers, report.verdicts) == (3, {2: 5}, {"comparison": 5})
    assert (report.duplicates, report.ties, report.same_answers, report.empty_answers) == (1, 1, 1, 1)
    assert (report.annotators, report.html_entities) == (0, 1)  # &bogus; is no entity, & alone neither
    assert report.longer_wins == LongerWins(4, (1 + 1 + 0.5 + 1) / 4)
    # prompts of 1, 2, 4 characters; answers of 1, 4, 4, 5, 8, 9, 9, 11: the 50th percentile is the 4th of 8
    assert report.lengths["prompt, characters"] == Lengths(texts=3, min=1, p10=1, p50=2, p90=4, p99=4, max=4)
    assert report.lengths["answer, characters"] == Lengths(texts=8, min=1, p10=1, p50=5, p90=11, p99=11, max=11)
    assert report.lengths["answer, tokens"].max == 3
    page = shown(report)
    for words in ("labelled-pair-tie", "0.875 of 4", "rows.jsonl:6: response 2", "1 problem in 6 rows"):
        assert words in page


def test_ties_and_equal_answers_of_many(write: Write):
    def judged(answers: list[str], verdict: dict[str, Any]) -> dict[str, Any]:
        return {"prompt": {"text": "p"}, "answers": answers, "verdict": verdict}

    report = check_file(
        write(
            [
                judged(["a", "b", "c"], {"kind": "choice", "best": 0}),  # says nothing about b and c: no tie
                judged(["a", "b", "a"], {"kind": "ranking", "ranks": [1, 2, 1]}),  # equal answers, equal rank
                judged(["a", "b", "a"], {"kind": "ranking", "ranks": [1, 2, 3]}),  # equal answers, one preferred
            ]
        )
    )
    assert report.ok
    assert (report.ties, report.same_answers, report.verdicts) == (1, 1, {"ranking": 2, "choice": 1})


def test_demonstrations_prompts_and_documents(write: Write):
    chat = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    report = check_file(write([chat, chat]))
    assert (report.kind, report.duplicates, report.ok, report.longer_wins) == ("demonstrations", 1, True, None)
    assert report.lengths["answer, characters"].p50 == 5
    assert shown(report).rstrip().endswith("ok")
    prompts = check_file(write([{"prompt": "Hi", "reference": "Hello &lt;"}, {"prompt": "Ho"}]))
    assert (prompts.kind, prompts.records, prompts.html_entities) == ("prompts", 2, 1)
    assert set(prompts.lengths) == {"prompt, characters", "reference, characters"}
    documents = check_file(write(["one", "three"]))
    assert (documents.kind, documents.prompts) == ("documents", 0)
    assert documents.lengths == {"text, characters": Lengths(2, 3, 3, 3, 5, 5, 5)}
    assert check_file(write(["one", "three"]), kind="prompts").prompts == 2


def test_rows_of_another_kind_than_most_are_named(write: Write):
    user, assistant = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
    report = check_file(write([{"messages": [user, assistant]}] * 2 + [{"messages": [user]}]))
    assert [problem.text for problem in report.problems] == ["row: is of prompts, where most are demonstrations"]


def test_a_file_that_no_format_fits(write: Write):
    path = write([{"review": "Good", "stars": {"all": 5}}])
    report = check_file(path)
    assert (report.format, report.kind, report.records, report.ok) == ("", None, 0, False)
    assert "no format has the columns review, stars" in shown(report)
    named = check_file(path, columns={"text": "review", "score": "stars.all"})
    assert (named.format, named.kind, named.ok, named.prompts) == ("scored-text", "judgements", True, 0)
    assert not check_file(write([])).ok
    with pytest.raises(RecordError, match="no such file"):
        check_file(path.with_name("gone.jsonl"))


def test_a_long_list_of_problems_is_cut(write: Write):
    report = check_file(write([{"prompt": "a", "chosen": 1, "rejected": "b"}] * 25))
    page = shown(report)
    assert page.count("chosen: needs a text") == 20
    assert "... and 5 more" in page


def judged(answers: Sequence[str], verdict: Verdict, who: str | None = None) -> Judgement:
    return Judgement(prompt=Prompt(text="p"), answers=tuple(answers), verdict=verdict, annotator=who)


@pytest.mark.parametrize(
    ("answers", "verdict", "value"),
    [
        (["aa", "a", "aaa"], Ranking(ranks=(1, 2, 3)), 0.0),  # best against worst: 2 < 3
        (["aa", "a", "aaa"], Ranking(ranks=(2, 3, 1)), 1.0),
        (["aa", "a", "aaa"], Choice(best=0), 0.5),  # longer than one of the two others
        (["aa", "aa"], Comparison(preferred=Preferred.FIRST), 0.5),
        (["aa", "a", "aa"], Scores(scores=(3.0, 1.0, 3.0)), 1.0),
    ],
)
def test_longer_wins_by_hand(answers: Sequence[str], verdict: Verdict, value: float):
    assert longer_wins([judged(answers, verdict)]) == LongerWins(1, value)


def test_longer_wins_follows_the_majority_of_annotators():
    first, second, tie = (Comparison(preferred=preferred) for preferred in Preferred)

    def item(*verdicts: Verdict) -> list[Judgement]:
        return [judged(["aa", "a"], verdict, f"annotator{k}") for k, verdict in enumerate(verdicts)]

    assert longer_wins(item(second, first, first)) == LongerWins(1, 1.0)
    assert longer_wins(item(tie, first, second)) is None  # no majority
    assert longer_wins(item(tie, tie, second)) is None  # the majority orders nothing
    assert longer_wins(item(first, second)) is None
    assert longer_wins(item(second, first, first) + item(second, second, tie)) == LongerWins(2, 0.5)
    assert longer_wins([judged(["a"], Thumb(up=True))]) is None
    nameless = [judged(["aa", "a"], first), judged(["aa", "a"], second), judged(["aa", "a"], second)]
    share = longer_wins(nameless)
    assert share is not None
    assert share.items == 3
    assert share.share == pytest.approx(1 / 3)
