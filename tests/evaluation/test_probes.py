"""Spoiled answers: what each probe makes of English and Chinese, and what known scorers show under it."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plaudit.errors import NumberError
from plaudit.evaluation.probes import PROBES, Case, cases_of, clustered_mean, order_swap, probe, sentences
from plaudit.records import Choice, Comparison, Judgement, Preferred, Prompt, Ranking, Thumb
from plaudit.scorers import FunctionScorer, Scores

ENGLISH = Case(Prompt(text="Why?"), "It rains. Take a coat!", "Cats purr.")
CHINESE = Case(Prompt(text="为什么?"), "因为下雨。带上伞吧！", "猫会打呼噜。")


def spoil(name, case, seed=0):
    return PROBES[name](case, Random(seed))


def judged(answers, verdict, prompt):
    return Judgement(prompt=Prompt(text=prompt), answers=tuple(answers), verdict=verdict)


@pytest.mark.parametrize(
    ("name", "english", "chinese"),
    [
        ("ending_repeated", "It rains. Take a coat! Take a coat!", "因为下雨。带上伞吧！带上伞吧！"),
        ("said_twice", "It rains. Take a coat! It rains. Take a coat!", "因为下雨。带上伞吧！因为下雨。带上伞吧！"),
        ("other_prompt", "Cats purr.", "猫会打呼噜。"),
        ("empty", "", ""),
    ],
)
def test_what_is_made(name, english, chinese):
    assert spoil(name, ENGLISH) == english
    assert spoil(name, CHINESE) == chinese


@pytest.mark.parametrize("name", ["filler", "polite_opening", "polite_closing"])
def test_what_is_added_is_in_the_answers_language(name):
    for case, chinese in ((ENGLISH, False), (CHINESE, True)):
        spoiled = spoil(name, case)
        assert case.answer in spoiled
        added = spoiled.replace(case.answer, "")
        assert any("\u4e00" <= letter <= "\u9fff" for letter in added) is chinese
        assert added.startswith(" ") or added.endswith(" ") or chinese


@pytest.mark.parametrize("case", [ENGLISH, CHINESE])
def test_shuffled_words_are_the_same_words(case):
    text = spoil("shuffled", case)
    assert text != case.answer
    assert sorted(text.replace(" ", "")) == sorted(case.answer.replace(" ", ""))
    assert spoil("shuffled", case) == text  # same seed
    assert sorted(spoil("shuffled", ENGLISH).split()) == sorted(ENGLISH.answer.split())


@given(st.text(alphabet="ab .!?。！\n“”", max_size=30))
def test_sentences_join_to_the_text(text):
    assert "".join(sentences(text)) == text


def test_sentences_by_hand():
    assert sentences("It costs 3.5 euros. “Fine!” he said.\nBye") == [
        "It costs 3.5 euros. ",
        "“Fine!” he said.\n",
        "Bye",
    ]
    assert sentences("他说：“好。”然后走了。") == ["他说：“好。”", "然后走了。"]


def test_cases_take_the_best_answer_of_each_prompt():
    found = cases_of(
        [
            judged(["bad", "good"], Ranking(ranks=(2, 1)), "one"),
            judged(["other", "words"], Choice(best=0), "one"),  # of a prompt that is there
            judged(["thumbed"], Thumb(up=True), "two"),
            judged([" ", "b"], Choice(best=0), "three"),  # empty
        ],
        most=10,
    )
    assert [(case.answer, case.stranger) for case in found] == [("good", "thumbed"), ("thumbed", "good")]
    many = [judged([f"answer {i}"], Thumb(up=True), f"prompt {i}") for i in range(10)]
    assert [case.answer for case in cases_of(many, most=4)] == ["answer 0", "answer 2", "answer 5", "answer 7"]
    assert [case.stranger for case in cases_of(many[:1], most=4)] == [""]  # nobody else's


def test_a_scorer_that_counts_characters():
    cases = [Case(Prompt(text=str(n)), "It rains." + " Yes." * n, "Cats.") for n in (0, 2)]  # 9 and 19 characters
    found = probe(FunctionScorer(lambda prompt, answer: len(answer)), cases)
    assert list(found) == list(PROBES)
    # the spread of 9 and 19 is 5; the last sentences, and the blank: "It rains." 9 + 1, "Yes." 4 + 1
    assert found["ending_repeated"]["change"] == pytest.approx((10 / 5 + 5 / 5) / 2)
    assert found["ending_repeated"]["wins"] == 1.0
    assert found["empty"] | {"interval": 0, "wins_interval": 0} == {
        "answers": 2,
        "change": pytest.approx(-(9 + 19) / 2 / 5),
        "interval": 0,
        "wins": 0.0,
        "wins_interval": 0,
        "unmoved": 0,
    }
    assert found["shuffled"]["unmoved"] == found["shuffled"]["answers"]
    assert found["shuffled"]["wins"] == 0.5


def test_a_scorer_that_reads_the_prompt_alone_never_moves():
    cases = [Case(Prompt(text="a" * n), f"answer {n}", "other") for n in (1, 2, 3)]
    found = probe(FunctionScorer(lambda prompt, answer: len(prompt.text or "")), cases)
    assert {part["change"] for part in found.values()} == {0.0}


def test_without_spread_or_cases_nothing_is_said():
    assert probe(FunctionScorer(lambda prompt, answer: 1.0), [ENGLISH, CHINESE]) == {}
    assert probe(FunctionScorer(lambda prompt, answer: 1.0), []) == {}


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(NumberError, match="is nan"):
        probe(FunctionScorer(lambda prompt, answer: float("nan")), [ENGLISH])


def test_clustered_mean_by_hand():
    # deviations from 3: a -2 - 1 = -3, b 3; 2/1 (9 + 9) / 9 = 4
    share = clustered_mean([1.0, 2.0, 6.0], ["a", "a", "b"])
    assert share.value == 3.0
    assert share.interval == pytest.approx((3 - 1.96 * 2, 3 + 1.96 * 2))


class FirstWins:
    """A judge that likes what it reads first."""

    def score(self, groups):
        return Scores(value_PG=tuple(tuple(float(-k) for k in range(len(group.answers))) for group in groups))


def test_order_swap():
    judgements = [judged(["aa", "b", "ccc"], Choice(best=0), "p"), judged(["x"], Thumb(up=True), "q")]
    steady = FunctionScorer(lambda prompt, answer: len(answer))
    assert order_swap(steady, judgements, [[2.0, 1.0, 3.0], [1.0]]) == {
        "pairs": 3,
        "consistent": 1.0,
        "first_wins": 0.0,
        "last_wins": 0.0,
        "moved": 0.0,
    }
    found = order_swap(FirstWins(), judgements, [[0.0, -1.0, -2.0], [0.0]])
    assert (found["consistent"], found["first_wins"], found["last_wins"]) == (0.0, 1.0, 0.0)
    assert found["moved"] == pytest.approx((2 + 0 + 2) / 3 / (2 / 3) ** 0.5)  # 0, -1, -2 against -2, -1, 0
    assert order_swap(steady, judgements[1:], [[1.0]]) == {}


def test_order_swap_is_by_the_quality_that_was_judged():
    """Their sum likes the longer answer, `brief` the shorter one; both read one answer at a time."""

    class Two:
        def score(self, groups):
            long_PG = tuple(tuple(float(len(answer.text)) for answer in group.answers) for group in groups)
            return Scores(value_PG=long_PG, parts={"brief": tuple(tuple(-n for n in values) for values in long_PG)})

    verdict = Comparison(preferred=Preferred.FIRST)
    judged = Judgement(prompt=Prompt(text="p"), answers=("a", "bbb"), verdict=verdict, quality="brief")
    assert order_swap(Two(), [judged], [[-1.0, -3.0]]) == {
        "pairs": 1,
        "consistent": 1.0,
        "first_wins": 0.0,
        "last_wins": 0.0,
        "moved": 0.0,
    }
