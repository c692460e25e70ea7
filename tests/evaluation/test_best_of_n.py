"""The best of n: by hand, against every subset, and its limits."""

from __future__ import annotations

import math
import statistics
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plaudit.errors import ShapeError
from plaudit.evaluation.best_of_n import best_answers, best_of_n, best_of_n_curve, best_of_n_kl
from plaudit.records import Prompt
from plaudit.scorers import FunctionScorer
from plaudit.scorers.seam import group_of_texts

SCORES = st.lists(st.integers(-3, 3), min_size=1, max_size=6)


def test_by_hand():
    # scores 1 < 2 < 3 worth 10, 0, 5. n = 2: subsets {1,2} {1,3} {2,3}: best 2, 3, 3
    assert best_of_n([2, 1, 3], [2, 1, 3], 2) == pytest.approx((2 + 3 + 3) / 3)
    assert best_of_n([2, 1, 3], [0, 10, 5], 2) == pytest.approx((0 + 5 + 5) / 3)
    assert best_of_n([2, 1, 3], [0, 10, 5], 1) == pytest.approx(5)
    assert best_of_n([2, 1, 3], [0, 10, 5], 3) == pytest.approx(5)


@given(SCORES, st.data())
def test_it_is_the_mean_over_every_subset(scores, data):
    values = data.draw(st.lists(st.floats(-5, 5), min_size=len(scores), max_size=len(scores)))
    n = data.draw(st.integers(1, len(scores)))

    def of_the_best(subset):
        top = max(scores[i] for i in subset)
        return statistics.fmean(values[i] for i in range(len(scores)) if scores[i] == top)

    every = [of_the_best(subset) for subset in combinations(range(len(scores)), n)]
    assert best_of_n(scores, values, n) == pytest.approx(statistics.fmean(every), abs=1e-9)


def test_the_order_of_equal_scores_does_not_matter():
    one, other = (best_of_n([1, 1, 2, 2], [*worth, 3.0, 1.0], 3) for worth in ((4.0, 0.0), (0.0, 4.0)))
    assert one == other == pytest.approx(2.0)  # any three of these hold a 2, worth 2 on average


@given(SCORES)
def test_more_answers_are_never_worse(scores):
    curve = [best_of_n(scores, scores, n) for n in range(1, len(scores) + 1)]
    assert all(low <= high + 1e-9 for low, high in pairwise(curve))
    assert curve[-1] == pytest.approx(max(scores))


@pytest.mark.parametrize("n", [0, 3])
def test_out_of_range(n):
    with pytest.raises(ShapeError, match=f"the best of {n}"):
        best_of_n([1, 2], [1, 2], n)


def test_kl_by_hand_and_by_enumeration():
    assert best_of_n_kl(1) == 0
    assert best_of_n_kl(4) == pytest.approx(math.log(4) - 0.75)
    many, n = 4000, 4  # the best of 4 of many equally likely answers, ranked: P(rank i) = (i^4 - (i-1)^4) / many^4
    chances = [(i**n - (i - 1) ** n) / many**n for i in range(1, many + 1)]
    assert best_of_n_kl(n) == pytest.approx(sum(p * math.log(p * many) for p in chances), abs=1e-3)


def test_the_curve():
    rows = best_of_n_curve([[1, 2, 3, 4], [0, 0, 0, 0, 8]], [[0, 0, 0, 1], [5, 5, 5, 5, 0]])
    assert [row["n"] for row in rows] == [1, 2, 4]
    assert rows[0]["score"] == pytest.approx((2.5 + 1.6) / 2)
    assert rows[2]["score"] == pytest.approx((4 + 8 * 4 / 5) / 2)  # four of five: the 8 is there in 4 of 5 subsets
    assert rows[2]["gold"] == pytest.approx((1 + 5 / 5) / 2)
    spread = abs(2.5 - 1.6) / math.sqrt(2)  # standard deviation of two
    assert rows[0]["interval"] == pytest.approx([2.05 - 1.96 * spread / 2**0.5, 2.05 + 1.96 * spread / 2**0.5])
    assert best_of_n_curve([[1.0], [1.0, 2.0]]) == []
    assert best_of_n_curve([]) == []
    assert "gold" not in best_of_n_curve([[1.0, 2.0]])[0]


def test_the_best_answer_of_each_group_is_kept():
    prompts = Prompt(text="a", id="a"), Prompt(text="b", id="b")
    groups = [
        group_of_texts(prompts[0], [("x", True), ("xxx", False), ("yyy", True)]),
        group_of_texts(prompts[1], [("z", True)]),
    ]
    best = best_answers(groups, FunctionScorer(lambda prompt, answer: len(answer)))
    assert [[answer.text for answer in group.answers] for group in best] == [["xxx"], ["z"]]  # the first of equals
    assert best[0].answers[0] is groups[0].answers[1]
    assert [group.prompt for group in best] == list(prompts)
