"""Each format people have: recognised, read right, and its wrong rows named by field."""

from __future__ import annotations

from typing import Any

import pytest

from plaudit.errors import RecordError
from plaudit.reading.fields import Fields
from plaudit.reading.formats import FORMATS, find_format, recognise, renamed
from plaudit.reading.kinds import AnyRecord, Kind, as_kind, prompt_of
from plaudit.records import (
    Choice,
    Comment,
    Comparison,
    Demonstration,
    Document,
    Judgement,
    Message,
    Preferred,
    Prompt,
    Ranking,
    Scores,
    Thumb,
)

USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
OTHER = {"role": "assistant", "content": "Go away"}
HI = Prompt(text="Hi")
CHAT = Prompt(messages=(Message(role="user", content="Hi"),))
FIRST, SECOND, TIE = (Comparison(preferred=preferred) for preferred in Preferred)


def pair(prompt: Prompt, first: str, second: str, verdict: Comparison = FIRST, who: str | None = None) -> Judgement:
    return Judgement(prompt=prompt, answers=(first, second), verdict=verdict, annotator=who)


def stated(who: str | None, *, strength: float | None = None, sure: float | None = None) -> Judgement:
    return pair(HI, "a", "b", Comparison(preferred=Preferred.FIRST, strength=strength, sure=sure), who)


def rated(prompt: Prompt, answer: str, verdict: Thumb | Scores) -> Judgement:
    return Judgement(prompt=prompt, answers=(answer,), verdict=verdict)


def chat(*turns: str) -> Prompt:
    roles = ("user", "assistant")
    return Prompt.parse({"messages": [{"role": roles[k % 2], "content": turn} for k, turn in enumerate(turns)]})


HH = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Why?\n\nAssistant:"

CASES: list[tuple[str, dict[str, Any], list[AnyRecord]]] = [
    ("preference", {"prompt": "Hi", "chosen": " Hello", "rejected": ""}, [pair(HI, " Hello", "")]),
    ("preference", {"question": "Hi", "chosen": "a", "rejected": "b", "score": 3}, [pair(HI, "a", "b")]),
    ("preference", {"prompt": [USER], "chosen": [ANSWER], "rejected": [OTHER]}, [pair(CHAT, "Hello", "Go away")]),
    ("preference", {"chosen": [USER, ANSWER], "rejected": [USER, OTHER]}, [pair(CHAT, "Hello", "Go away")]),
    # as in UltraFeedback: the prompt is given twice
    ("preference", {"prompt": "Hi", "chosen": [USER, ANSWER], "rejected": [USER, OTHER]},
     [pair(CHAT, "Hello", "Go away")]),
    ("preference", {"chosen": [USER, ANSWER], "rejected": [USER, ANSWER]}, [pair(CHAT, "Hello", "Hello")]),
    ("preference", {"chosen": "The sky is blue.", "rejected": "The sky is black."},
     [pair(Prompt(text="The sky is"), " blue.", " black.")]),
    ("preference", {"chosen": "天空是蓝的", "rejected": "天空是绿的"}, [pair(Prompt(text="天空是"), "蓝的", "绿的")]),
    ("preference", {"chosen": "Hi you", "rejected": "Hi"}, [pair(HI, " you", "")]),
    ("hh", {"chosen": f"{HH} So.", "rejected": f"{HH}  No. "}, [pair(chat("Hi", "Yes?", "Why?"), "So.", " No. ")]),
    ("hh", {"chosen": f"{HH} So.", "rejected": f"{HH} So."}, [pair(chat("Hi", "Yes?", "Why?"), "So.", "So.")]),
    # the dialogues part before the last turn: the answers hold all that follows
    ("hh", {"chosen": f"{HH} So.", "rejected": "\n\nHuman: Hi\n\nAssistant: No."},
     [pair(chat("Hi"), "Yes?\n\nHuman: Why?\n\nAssistant: So.", "No.")]),
    ("hh",
     {"chosen": "Human: Hi\n\nAssistant: a\n\nAssistant: b", "rejected": "Human: Hi\n\nAssistant: a\n\nAssistant: c"},
     [pair(chat("Hi"), "a\n\nAssistant: b", "a\n\nAssistant: c")]),
    ("hh", {"chosen": HH.removesuffix("\n\nAssistant:"), "rejected": f"{HH} No."},  # nobody answers the second turn
     [pair(chat("Hi"), "Yes?\n\nHuman: Why?", "Yes?\n\nHuman: Why?\n\nAssistant: No.")]),
    ("preference", {"prompt": "Hi", "chosen": "a", "rejected": "b", "margin": 2, "sure": 0.75, "annotator": "ann"},
     [stated("ann", strength=2.0, sure=0.75)]),
    ("preference", {"prompt": "Hi", "chosen": "a", "rejected": "b", "margin": "2", "strength": "3", "annotator": 7},
     [stated("7", strength=3.0)]),
    ("preference", {"prompt": "Hi", "chosen": "a", "rejected": "b", "margin": "", "annotator": ""}, [stated(None)]),
    ("labelled-pair", {"input": "Hi", "output_1": "a", "output_2": "b", "label": 1, "strength": 1},
     [stated(None, strength=1.0)]),
    ("annotated-pair",
     {"prompt": "Hi", "response1": "a", "response2": "b", "annotator1": 1, "annotator": "x", "sure": 1.0},
     [stated("annotator1", sure=1.0)]),
    ("sharegpt-preference",
     {"system": "S", "conversations": [{"from": "human", "value": "Hi"}], "chosen": {"from": "gpt", "value": "a"},
      "rejected": {"from": "gpt", "value": "b"}},
     [pair(Prompt(messages=(Message(role="system", content="S"), *(CHAT.messages or ()))), "a", "b")]),
    ("sharegpt", {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "a"}]},
     [Demonstration(prompt=CHAT, answer="a")]),
    ("labelled-pair", {"input": "Hi", "output_1": "a", "output_2": "b", "label": 2}, [pair(HI, "a", "b", SECOND)]),
    ("labelled-pair", {"input": "Hi", "output_1": "a", "output_2": "b", "label": "1"}, [pair(HI, "a", "b", FIRST)]),
    ("labelled-pair-tie", {"prompt": "Hi", "response 1": "a", "response 2": "b", "label": 0}, [pair(HI, "a", "b")]),
    ("labelled-pair-tie", {"prompt": "Hi", "response 1": "a", "response 2": "b", "label": 1},
     [pair(HI, "a", "b", SECOND)]),
    ("labelled-pair-tie", {"prompt": "Hi", "response 1": "a", "response 2": "b", "label": 2},
     [pair(HI, "a", "b", TIE)]),
    ("annotated-pair",
     {"instruction": "Say", "input": "it", "response1": "a", "response2": "b", "annotator1": 0, "annotator2": 1,
      "annotator10": 2, "annotator3": None},
     [pair(Prompt(text="Say\nit"), "a", "b", verdict, who)
      for verdict, who in ((TIE, "annotator1"), (FIRST, "annotator2"), (SECOND, "annotator10"))]),
    ("scored-answers", {"prompt": "Hi", "answers": ["a", "b"], "scores": [1, -0.5]},
     [Judgement(prompt=HI, answers=("a", "b"), verdict=Scores(scores=(1.0, -0.5)))]),
    ("scored-answers", {"prompt": "Hi", "answers": ["a", "b"], "scores": [1, 2], "annotator": 7},
     [Judgement(prompt=HI, answers=("a", "b"), verdict=Scores(scores=(1.0, 2.0)), annotator="7")]),
    ("ranked-answers", {"question": "Hi", "answers": ["a", "b", "c"], "ranks": [2, 1, 2.0], "annotator": "ann"},
     [Judgement(prompt=HI, answers=("a", "b", "c"), verdict=Ranking(ranks=(2, 1, 2)), annotator="ann")]),
    ("chosen-answer", {"prompt": "Hi", "answers": ["a", "b", "c"], "best": "2"},
     [Judgement(prompt=HI, answers=("a", "b", "c"), verdict=Choice(best=2))]),
    ("scored-answer", {"prompt": "Hi", "answer": "a", "score": "2.5"}, [rated(HI, "a", Scores(scores=(2.5,)))]),
    ("thumb", {"prompt": "Hi", "completion": "a", "label": False}, [rated(HI, "a", Thumb(up=False))]),
    ("thumb", {"prompt": [USER], "completion": [ANSWER], "label": True}, [rated(CHAT, "Hello", Thumb(up=True))]),
    ("thumb-messages", {"messages": [USER, ANSWER], "label": 1}, [rated(CHAT, "Hello", Thumb(up=True))]),
    ("messages", {"messages": [USER, ANSWER]}, [Demonstration(prompt=CHAT, answer="Hello")]),
    ("messages", {"messages": [USER]}, [CHAT]),
    ("completion", {"prompt": "Hi", "completion": "a"}, [Demonstration(prompt=HI, answer="a")]),
    ("best-first", {"instruction": "Hi", "input": "", "output": ["a", "b", "c"], "history": []},
     [Judgement(prompt=CHAT, answers=("a", "b", "c"), verdict=Ranking(ranks=(1, 2, 3)))]),
    ("best-first", {"instruction": "Why?", "output": ["a", "b"], "history": [["Hi", "Yes?"]]},
     [Judgement(prompt=chat("Hi", "Yes?", "Why?"), answers=("a", "b"), verdict=Ranking(ranks=(1, 2)))]),
    ("instruction", {"instruction": "Say", "input": "it", "output": "it"},
     [Demonstration(prompt=Prompt(text="Say\nit"), answer="it")]),
    ("answer", {"question": "Hi", "answer": "a"}, [Demonstration(prompt=HI, answer="a")]),
    ("sampled-answer", {"prompt": HI.to_json(), "answer": "a", "ended": "stopped", "tokens": 2, "logp": -1.5},
     [Demonstration(prompt=HI, answer="a")]),
    ("text", {"text": "书", "title": "x"}, [Document(text="书")]),
    ("prompt", {"prompt": "Hi", "reference": "Hello"}, [Prompt(text="Hi", reference="Hello")]),
    ("prompt", {"question": "Hi"}, [HI]),
    ("prompt", {"prompt": [USER]}, [CHAT]),
    ("prompt", {"prompt": "Hi", "text": "a document about Hi"}, [HI]),
    ("prompt", {"prompt": {"text": "Hi", "about": {"book": "It"}}}, [Prompt(text="Hi", about={"book": "It"})]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "records"), CASES, ids=[f"{k}-{case[0]}" for k, case in enumerate(CASES)])
def test_a_row_is_recognised_and_read(name: str, row: dict[str, Any], records: list[AnyRecord]):
    assert recognise([Fields(row)]).name == name
    assert find_format(name).read(Fields(row)) == records


def test_every_format_has_a_case_and_a_description():
    elsewhere = {"records", "labelled-text", "scored-text"}
    assert {case[0] for case in CASES} | elsewhere == set(FORMATS)
    assert all(entry.read.__doc__ for entry in FORMATS.values())


@pytest.mark.parametrize(
    ("row", "verdict"),
    [({"text": "Good", "label": "1"}, Thumb(up=True)), ({"text": "Good", "score": 4}, Scores(scores=(4.0,)))],
)
def test_a_judged_text_has_an_empty_prompt_of_its_own(row: dict[str, Any], verdict: Thumb | Scores):
    (found,) = recognise([Fields(row)]).read(Fields(row))
    (other,) = recognise([Fields(row)]).read(Fields({**row, "text": "Other"}))
    assert isinstance(found, Judgement)
    assert isinstance(other, Judgement)
    assert (found.prompt.text, found.answers, found.verdict) == ("", ("Good",), verdict)
    assert found.prompt.id != other.prompt.id


OURS: list[AnyRecord] = [
    HI,
    chat("Hi", "Yes?", "Why?"),
    Demonstration(prompt=CHAT, answer="a"),
    Judgement(prompt=HI, answers=("a", "b"), verdict=Choice(best=1), annotator="kim", shown=(1, 0), seconds=2.5),
    Judgement(prompt=CHAT, answers=("a",), verdict=Comment(text="hm")),
    Document(text="a"),
]


@pytest.mark.parametrize("record", OURS)
def test_our_own_records_are_recognised(record: AnyRecord):
    row = Fields(record.to_json())
    assert recognise([row]).read(row) == [record]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"instruction": "i", "response1": True, "response2": "b", "annotator1": 1}, r"^response1: .*\(found true\)"),
        (
            {"instruction": "i", "response1": "a", "response2": "b", "annotator1": 3},
            r"^annotator1: .*0, 1, 2 \(found 3",
        ),
        ({"input": "i", "output_1": "a", "output_2": "b", "label": 0}, r"^label: needs one of 1, 2 \(found 0\)"),
        ({"input": "i", "output_1": "a", "output_2": "b", "label": True}, r"^label: needs one of 1, 2 \(found true\)"),
        ({"prompt": "p", "chosen": "a", "rejected": 5}, r"^rejected: needs a text \(found 5\)"),
        ({"prompt": 5, "chosen": "a", "rejected": "b"}, r"^prompt: needs a text \(found 5\)"),
        ({"chosen": "abc", "rejected": "xyz"}, "^rejected: shares no beginning with chosen"),
        ({"chosen": "abc", "rejected": "abc"}, "^rejected: is chosen word for word"),
        ({"chosen": [USER, ANSWER], "rejected": [ANSWER]}, "^rejected: shares no message with chosen"),
        (
            {"chosen": [USER, ANSWER, USER, ANSWER], "rejected": [USER, OTHER]},
            r"^chosen: needs one message .*assistant, ",
        ),
        ({"chosen": f"{HH} a", "rejected": "\n\nHuman: Else\n\nAssistant: b"}, "^rejected: shares no human turn"),
        ({"messages": [USER, {"role": "bot", "content": "a"}]}, r"^messages\.1\.role: unknown; .*\(found \"bot\"\)"),
        ({"messages": [USER, {"role": "user"}]}, r"^messages\.1\.content: missing \(the row has role\)"),
        ({"messages": [USER, {"role": "assistant", "content": ""}]}, "^messages: the answer is empty"),
        ({"messages": [ANSWER]}, r"^messages: needs a prompt and .*\(found 1 messages\)"),
        ({"messages": "Hi"}, r"^messages: needs a list \(found \"Hi\"\)"),
        ({"instruction": "i", "output": ["a"]}, r"^output: needs 2 or more answers, best first \(found 1\)"),
        ({"instruction": "i", "output": ["a", None]}, r"^output\.1: needs a text \(found null\)"),
        ({"instruction": "i", "output": ["a", "b"], "history": [["x"]]}, r"^history\.0: needs a prompt and its answer"),
        ({"instruction": "i", "output": ""}, "^output: the answer is empty"),
        (
            {"prompt": "p", "answers": ["a", "b"], "scores": [1, "x"]},
            r"^scores\.1: needs a finite number \(found \"x\"\)",
        ),
        ({"prompt": "p", "answers": ["a", "b"], "ranks": [1, 1.5]}, r"^ranks\.1: needs a whole number, 0 or more"),
        ({"prompt": "p", "answers": ["a", "b"], "best": -1}, r"^best: needs a whole number, 0 or more \(found -1\)"),
        (
            {"prompt": "p", "answer": "a", "ended": "cut"},
            "^ended: the answer was cut, so that it shows nobody where to",
        ),
        ({"prompt": "p", "answer": "a", "score": True}, r"^score: needs a finite number \(found true\)"),
        (
            {"prompt": "p", "chosen": "a", "rejected": "b", "margin": -1},
            r"^margin: needs a number not below 0 \(found -1\)",
        ),
        (
            {"prompt": "p", "chosen": "a", "rejected": "b", "sure": 3},
            r"^sure: needs a number from 0\.5 to 1 \(found 3\)",
        ),
        ({"text": "a", "label": 3}, r"^label: needs true or false, 1 or 0 \(found 3\)"),
        ({"text": "", "label": 1}, "^text: is empty"),
        ({"text": "half \ud83d", "label": 1}, r"^text: holds half a character.*\(found '\\ud83d'\)"),
        ({"prompt": {"text": "p"}, "answers": ["a"], "verdict": {"kind": "stars"}}, r"^Judgement: verdict: .*stars"),
    ],
)
def test_a_wrong_row_names_its_field(row: dict[str, Any], says: str):
    fields = Fields(row)
    with pytest.raises(RecordError, match=says):
        recognise([fields]).read(fields)


def test_most_rows_decide_the_format():
    bad = {"instruction": "i", "response1": "a"}
    rows = [bad] + 2 * [{"prompt": "p", "chosen": "a", "rejected": "b"}]
    assert recognise([Fields(row) for row in rows]).name == "preference"


def test_an_unknown_shape_says_what_is_near():
    with pytest.raises(RecordError, match=r"columns label, review; the nearest: .*labelled-text lacks text"):
        recognise([Fields({"label": 1, "review": "a"})])
    with pytest.raises(RecordError, match=r"columns tree; known are sampled-answer, records, hh"):
        recognise([Fields({"tree": {}})])
    with pytest.raises(RecordError, match=r"unknown format 'preferense' \(did you mean preference\?\)"):
        find_format("preferense")


def test_columns_go_by_other_names():
    row = {"q": "Hi", "prompt": "a number", "scores": {"overall": 3.0, "a.b": 1}, "x.y": 1}
    assert renamed(row, {"prompt": "q", "score": "scores.overall", "label": "scores.a.b"}) == {
        "prompt": "Hi",
        "score": 3.0,
        "label": 1,
        "scores": {"overall": 3.0, "a.b": 1},
        "x.y": 1,
    }
    assert renamed(row, {"text": "x.y", "answer": "gone", "score": "q.deep"})["text"] == 1


RANKED = Judgement(prompt=HI, answers=("a", "b", "c"), verdict=Ranking(ranks=(2, 1, 3)))
REVIEW = Judgement(prompt=Prompt(text="", id="r"), answers=("Good book",), verdict=Thumb(up=True))
TIED = pair(HI, "a", "b", TIE)


@pytest.mark.parametrize(
    ("record", "kind", "made"),
    [
        (Document(text="a"), "prompts", Prompt(text="a")),
        (Prompt(text="Hi", reference="a"), "demonstrations", Demonstration(prompt=HI, answer="a")),
        (Demonstration(prompt=HI, answer="a"), "prompts", Prompt(text="Hi", reference="a")),
        (RANKED, "prompts", HI),
        (RANKED, "demonstrations", Demonstration(prompt=HI, answer="b")),
        (TIED, "demonstrations", None),
        (rated(HI, "a", Thumb(up=True)), "demonstrations", Demonstration(prompt=HI, answer="a")),
        (rated(HI, "a", Thumb(up=False)), "demonstrations", None),
        (rated(HI, "a", Scores(scores=(1.0,))), "demonstrations", None),  # the best of one says nothing
        (REVIEW, "documents", Document(text="Good book")),
        (REVIEW, "prompts", Prompt(text="Good book")),
        (RANKED, "judgements", RANKED),
    ],
)
def test_one_kind_serves_as_another(record: AnyRecord, kind: Kind, made: AnyRecord | None):
    assert as_kind(record, kind) == made


@pytest.mark.parametrize(
    ("record", "kind"),
    [(Document(text="a"), "judgements"), (Document(text="a"), "demonstrations"), (HI, "demonstrations"),
     (HI, "documents"), (RANKED, "documents"), (Demonstration(prompt=HI, answer="a"), "judgements"),
     (REVIEW, "demonstrations")],
)  # fmt: skip
def test_but_not_where_meaning_would_be_made_up(record: AnyRecord, kind: Kind):
    with pytest.raises(RecordError, match=f"of which no {kind} can be made"):
        as_kind(record, kind)


def test_the_prompt_keeps_its_id_when_its_reference_moves():
    for record in (Demonstration(prompt=HI, answer="a"), RANKED):
        made = as_kind(record, "prompts")
        assert made is not None
        found = prompt_of(made)
        assert found is not None
        assert found.id == HI.id
