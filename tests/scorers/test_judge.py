"""A judge model: what it is asked, how its replies are read, and that both orders must agree."""

from __future__ import annotations

import re
from typing import Any

import pytest

from plaudit.errors import ScorerError
from plaudit.records import Preferred, Prompt
from plaudit.scorers import Service
from plaudit.scorers.judge import ChatJudge, Opinion, chat_address, question, verdict_in

PROMPT = Prompt(text="Why is the sky {first}?", id="p")


def judge(serve, verdict: Any, seen: list[Any] | None = None) -> ChatJudge:
    """A chat server that gives `verdict(answer A, answer B)` as its reply."""

    def reply(request: Any) -> tuple[int, Any]:
        if seen is not None:
            seen.append(request)
        text = request["messages"][0]["content"]
        first, second = (re.search(rf"\[(?:Answer|回答) {x}\]\n(.*)\n", text)[1] for x in "AB")  # type: ignore[index]
        return 200, {"choices": [{"message": {"role": "assistant", "content": verdict(first, second)}}]}

    return ChatJudge(Service(serve(reply), retries=0), "wise")


def longer(first: str, second: str) -> str:
    return "I like length.\n[[C]]" if len(first) == len(second) else f"[[{'A' if len(first) > len(second) else 'B'}]]"


@pytest.mark.parametrize(
    ("answers", "preferred"),
    [(("because", "so"), Preferred.FIRST), (("so", "because"), Preferred.SECOND), (("so", "no"), Preferred.TIE)],
)
def test_what_it_says_in_both_orders_counts(serve, answers, preferred):
    opinion = judge(serve, longer).compare(PROMPT, *answers)
    assert isinstance(opinion, Opinion)
    assert (opinion.preferred, opinion.steady) == (preferred, True)


@pytest.mark.parametrize("habit", ["[[A]]", "[[B]]"])
def test_one_that_always_prefers_a_place_finds_ties_only(serve, habit):
    opinion = judge(serve, lambda first, second: habit).compare(PROMPT, "because", "so")
    assert isinstance(opinion, Opinion)
    assert (opinion.preferred, opinion.steady) == (Preferred.TIE, False)


def test_a_tie_one_way_and_a_winner_the_other_is_a_tie(serve):
    opinion = judge(serve, lambda first, second: "[[A]]" if first == "so" else "[[C]]").compare(PROMPT, "so", "no")
    assert isinstance(opinion, Opinion)
    assert (opinion.preferred, opinion.steady) == (Preferred.TIE, False)


def test_a_reply_without_a_verdict_says_nothing(serve):
    said = judge(serve, lambda first, second: "Both are fine, A or B.").compare(PROMPT, "because", "so")
    assert said == "Both are fine, A or B."
    assert judge(serve, lambda first, second: None).compare(PROMPT, "because", "so") == "null"
    half = judge(serve, lambda first, second: "[[A]]" if first == "so" else "hm").compare(PROMPT, "because", "so")
    assert half == "hm"


def test_it_is_asked_twice_with_the_answers_exchanged(serve):
    seen: list[Any] = []
    judge(serve, longer, seen).compare(PROMPT, "because", "so")
    assert [request["model"] for request in seen] == ["wise", "wise"]
    assert [request["temperature"] for request in seen] == [0, 0]
    texts = [request["messages"][0]["content"] for request in seen]
    assert texts == [question(PROMPT, "because", "so"), question(PROMPT, "so", "because")]


def test_words_in_braces_stay_words():
    text = question(PROMPT, "{second}", "{prompt}")
    assert "[Request]\nWhy is the sky {first}?\n" in text
    assert "[Answer A]\n{second}\n" in text
    assert "[Answer B]\n{prompt}\n" in text


def test_a_reference_is_shown_where_there_is_one():
    assert "good answer, to compare" not in question(PROMPT, "a", "b")
    text = question(PROMPT.model_copy(update={"reference": "It scatters."}), "a", "b")
    assert "[A good answer, to compare with]\nIt scatters.\n" in text


def test_chinese_is_asked_in_chinese():
    text = question(Prompt(text="天为什么是蓝的?", reference="散射。"), "甲", "乙")
    assert text.startswith("两个助手")
    assert "[回答 A]\n甲\n" in text
    assert "散射。" in text
    assert "Request" not in text


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("[[A]]", "A"),
        ("Not [[A]], no: [[B]].", "B"),
        ("<think>[[A]]?</think>\n[[C]]", "C"),
        (" **B**\n", "B"),
        ("A.", "A"),
        ("A cat sat", None),
        ("[[D]]", None),
        ("", None),
    ],
)
def test_the_verdict_in_a_reply(reply, verdict):
    assert verdict_in(reply) == verdict


@pytest.mark.parametrize("body", [{}, {"choices": []}, [], {"choices": [{"text": "A"}]}])
def test_what_is_no_chat_completion(serve, body):
    url = serve(lambda request: (200, body))
    with pytest.raises(ScorerError, match=r"two answers to prompt p: the reply is no chat completion"):
        ChatJudge(Service(url), "wise").compare(PROMPT, "a", "b")


def test_the_address_of_a_server_or_of_its_chat():
    for url in ("http://h:1/v1", "http://h:1/v1/", "http://h:1/v1/chat/completions"):
        assert chat_address(url) == "http://h:1/v1/chat/completions"
