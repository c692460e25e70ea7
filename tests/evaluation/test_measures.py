"""Win rates, diversity and BLEU: by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.errors import ShapeError
from plaudit.evaluation.measures import bleu, distinct_2, gain_in_sd, win_rate

quick = settings(deadline=None, max_examples=60, derandomize=True)


def test_win_rate_by_hand():
    rate = win_rate([1.0, 2.0, 3.0, 0.0], [0.0, 2.0, 4.0, -1.0])
    assert rate.value == 0.625  # won, tied, lost, won: (1 + 0.5 + 0 + 1) / 4
    # deviations .375 -.125 -.625 .375: variance .171875; 1.96 sqrt(.171875 / 4) = .40629
    assert rate.interval[0] == pytest.approx(0.625 - 0.40629, abs=1e-5)
    assert rate.interval[1] == 1.0


def test_all_ties_are_one_half_without_doubt():
    assert win_rate([1.0, 1.0], [1.0, 1.0]) == (0.5, (0.5, 0.5))


@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), min_size=1, max_size=20))
@quick
def test_changing_sides_turns_the_rate_round(pairs):
    after, before = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    there, back = win_rate(after, before), win_rate(before, after)
    assert there.value == pytest.approx(1 - back.value)
    assert there.interval[0] == pytest.approx(1 - back.interval[1])
    assert 0 <= there.interval[0] <= there.value <= there.interval[1] <= 1


@pytest.mark.parametrize(("after", "before"), [([1.0], [1.0, 2.0]), ([], [])])
def test_what_cannot_be_compared(after, before):
    with pytest.raises(ShapeError, match=f"found {len(after)} and {len(before)}"):
        win_rate(after, before)


def test_gain_is_in_spreads_of_before():
    assert gain_in_sd([5.0, 5.0], [1.0, 3.0]) == 3.0  # from 2 to 5, spread 1
    assert gain_in_sd([0.0, 0.0], [1.0, 3.0]) == -2.0
    assert math.isnan(gain_in_sd([5.0, 5.0], [1.0, 1.0]))


def test_distinct_2_by_hand():
    # cut to 3 and 2: pairs (1 2) (2 1) and (1 2): two different of three
    assert distinct_2([[1, 2, 1, 9], [1, 2, 7]], [3, 2]) == pytest.approx(2 / 3)
    assert distinct_2([[1, 1, 1, 1]], [4]) == pytest.approx(1 / 3)
    assert distinct_2([[1, 2, 3], [4, 5]], [9, 9]) == 1.0
    assert math.isnan(distinct_2([[1], []], [1, 1]))


def test_bleu_counts_words_in_english_and_characters_in_chinese():
    english = "the cat sat on the mat today"
    assert bleu([english], [english]) == pytest.approx(100)
    # 6 of 7 words, 5 of 6 pairs, 4 of 5 triples, 3 of 4 fours: the geometric mean
    assert bleu(["the cat sat on the mat now"], [english]) == pytest.approx(
        100 * (6 / 7 * 5 / 6 * 4 / 5 * 3 / 4) ** 0.25, abs=0.01
    )
    chinese = "今天天气很好我们去公园"
    # 10 of 11 characters, 9 of 10, 8 of 9, 7 of 8; as words there would be one, and a wrong one
    assert bleu(["今天天气很好我们去公司"], [chinese]) == pytest.approx(
        100 * (10 / 11 * 9 / 10 * 8 / 9 * 7 / 8) ** 0.25, abs=0.01
    )
