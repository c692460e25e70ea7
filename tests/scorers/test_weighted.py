"""A weighted sum of clipped scores: by hand, and what becomes of parts and failures."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plaudit.errors import NumberError
from plaudit.records import Prompt
from plaudit.scorers import FunctionScorer, Part, Scores, WeightedScorer
from plaudit.scorers.seam import group_of_texts
from plaudit.scorers.weighted import clipped

GROUPS = [
    group_of_texts(Prompt(text="p", id="p"), [("abcd", True), ("", True)]),
    group_of_texts(Prompt(text="q"), [("ab", True)]),
]
LENGTH = FunctionScorer(lambda prompt, answer: len(answer))


class Fixed:
    """Scores that were written down."""

    def __init__(self, scores):
        self.scores = scores

    def score(self, groups):
        return self.scores


def test_the_sum_by_hand():
    less = FunctionScorer(lambda prompt, answer: -len(answer) / 4)
    scorer = WeightedScorer({"long": Part(scorer=LENGTH, weight=2.0, clip=(1, 3)), "less": Part(scorer=less)})
    scores = scorer.score(GROUPS)
    assert scores.parts == {
        "long": ((3.0, 1.0), (2.0,)),
        "long/clipped": ((1.0, 1.0), (0.0,)),  # 4 and 0 lie outside, 2 does not
        "less": ((-1.0, 0.0), (-0.5,)),
    }
    assert scores.value_PG == ((2 * 3 - 1.0, 2 * 1.0), (2 * 2 - 0.5,))


@given(st.floats(-9, 9), st.floats(-3, 0), st.floats(0.1, 3))
def test_clipping_keeps_what_lies_inside(value, low, high):
    assert low <= clipped(value, (low, high)) <= high
    assert clipped(clipped(value, (low, high)), (low, high)) == clipped(value, (low, high))
    assert clipped(value, None) == value
    assert math.isnan(clipped(math.nan, (low, high)))


def test_parts_of_parts_keep_their_names():
    inner = Fixed(Scores(value_PG=((1.0, 2.0), (3.0,)), parts={"apart": ((0.1, 0.2), (0.3,))}))
    assert set(WeightedScorer({"mine": Part(scorer=inner)}).score(GROUPS).parts) == {"mine", "mine/apart"}


def test_an_answer_that_one_failed_on_has_failed():
    lame = Fixed(Scores(value_PG=((1.0, math.nan), (3.0,)), failed={(0, 1): "no reply"}))
    scores = WeightedScorer({"long": Part(scorer=LENGTH), "lame": Part(scorer=lame, clip=(0, 1))}).score(GROUPS)
    assert scores.failed == {(0, 1): "lame: no reply"}
    assert math.isnan(scores.value_PG[0][1])
    assert scores.value_PG[0][0] == 5.0
    scores.check(GROUPS)


def test_a_number_that_is_none_is_found_before_a_clip_hides_it():
    infinite = Fixed(Scores(value_PG=((1.0, math.inf), (3.0,))))
    with pytest.raises(NumberError, match="the reward of answer 1 to prompt p is inf"):
        WeightedScorer({"wild": Part(scorer=infinite, clip=(0, 1))}).score(GROUPS)
