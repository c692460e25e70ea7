"""RewardBench's numbers, by hand."""

from __future__ import annotations

import math

import pytest

from plaudit.errors import RecordError
from plaudit.evaluation.rewardbench import (
    SECTIONS,
    Row2,
    is_row_2,
    judgement_of_2,
    rewardbench,
    rewardbench_2,
    ties_score,
)
from plaudit.reading.fields import Fields
from plaudit.records import Choice, Ranking


def rows(**shares):
    """Ten rows of each subset, as many right."""
    return [(name.replace("_", "-"), 1.0 if i < right else -1.0) for name, right in shares.items() for i in range(10)]


def test_the_published_set():
    """23 subsets, and code weighs as much as mathematics."""
    core = {name: weights for name, weights in SECTIONS.items() if name != "Prior Sets"}
    assert [len(weights) for weights in core.values()] == [5, 6, 5, 7]
    assert sum(weight for subset, weight in SECTIONS["Reasoning"].items() if subset != "math-prm") == 984
    assert sum(sum(weights.values()) for weights in core.values()) - 984 + 447 == 2985  # rows of the filtered split


def test_sections_by_hand():
    found = rewardbench(
        [
            *rows(alpacaeval_easy=9, mt_bench_easy=5),
            *rows(donotanswer=4),
            *rows(math_prm=8, hep_cpp=2),
            *rows(my_own=0),
        ]
    )
    assert found["subsets"]["alpacaeval-easy"] == 0.9
    assert found["sections"] == {
        "Chat": pytest.approx((100 * 0.9 + 28 * 0.5) / 128),
        "Safety": pytest.approx(0.4),
        "Reasoning": pytest.approx((984 * 0.8 + 164 * 0.2) / 1148),
    }
    assert found["score"] == pytest.approx(sum(found["sections"].values()) / 3)
    assert "mt-bench-hard" in found["missing"]
    assert "shp" not in found["missing"]
    assert len(found["missing"]) == 23 - 5


def test_prior_sets_weigh_half():
    prior = [(name, gap) for name, gap in (("shp", 1.0), ("summarize", -1.0))]
    found = rewardbench([*rows(donotanswer=4), *prior])
    assert found["score"] == pytest.approx((0.4 + 0.5 * 0.5) / 1.5)
    assert {"anthropic_helpful", "anthropic_hhh"} < set(found["missing"])


def test_equal_scores_are_wrong():
    assert rewardbench([("donotanswer", 0.0)])["score"] == 0.0


def test_other_files_have_no_score():
    assert rewardbench([("mine", 1.0)]) == {}
    assert rewardbench_2([]) == {}


def row2(scores, subset="Math", id="1", correct=1):
    return Row2(id, subset, correct, tuple(scores))


def test_best_of_four():
    found = rewardbench_2(
        [row2([4, 1, 2, 3]), row2([1, 4, 2, 3]), row2([4, 4, 1, 1]), row2([1, 1, 1, 1]), row2([2, 1], "Focus")]
    )
    assert found["subsets"] == {"Focus": 1.0, "Math": pytest.approx((1 + 0 + 1 / 2 + 1 / 4) / 4)}
    assert found["score"] == pytest.approx((1 + 1.75 / 4) / 2)
    assert found["missing"] == ["Factuality", "Precise IF", "Safety", "Ties"]


def test_ties_by_hand():
    ties = [
        row2([5, 4, 1], "Ties", "tied:0", 2),  # within 1, apart 3
        row2([5, 3], "Ties", "ref:0"),  # apart 2
        row2([9, 5, 3], "Ties", "tied:1", 2),  # within 4, apart 2
        row2([1, 2], "Ties", "ref:1"),  # apart -1: wrong
        row2([5, 3, 2], "Ties", "tied:2", 2),  # within 2, apart 1
        row2([12, 2], "Ties", "ref:2"),  # apart 10
        row2([3, 0, 2], "Ties", "tied:3", 2),  # within 3, apart -2: wrong; no like prompt
    ]
    # tied accuracy 3/4, ref accuracy 2/3. Of the three: apart_tied > within: 3 > 1, not 2 > 4, not 1 > 2;
    # the smaller apart > within: 2 > 1, not -1 > 4, not 1 > 2
    margin = (math.tanh(2 / 1 - 1) + math.tanh(-1 / 4 - 1) + math.tanh(1 / 2 - 1)) / 3
    assert ties_score(ties) == pytest.approx(0.3 * 3 / 4 + 0.3 * 2 / 3 + 0.2 / 3 + 0.2 / 3 + 0.01 * margin)
    assert rewardbench_2(ties)["subsets"]["Ties"] == ties_score(ties)


@pytest.mark.parametrize(("wrong", "margin"), [(1.0, 1.0), (3.0, 0.0), (4.0, -1.0)])
def test_ties_without_spread_follow_the_limit(wrong, margin):
    ties = [row2([3, 3, wrong], "Ties", "tied:0", 2), row2([3, wrong], "Ties", "ref:0")]
    assert ties_score(ties) == pytest.approx((1.0 if wrong < 3 else 0.0) + 0.01 * margin)


def test_ties_need_their_ids():
    with pytest.raises(RecordError, match="must begin with ref: or tied:, found '7'"):
        ties_score([row2([1, 0], "Ties", "7")])


def test_rows_of_the_second_benchmark():
    given = {"prompt": "p", "chosen": ["a"], "rejected": ["b", "c", "d"], "subset": "Math"}
    assert is_row_2(Fields(given))
    judgement = judgement_of_2(Fields(given))
    assert judgement.answers == ("a", "b", "c", "d")
    assert judgement.verdict == Choice(best=0)
    several = judgement_of_2(Fields(given | {"chosen": ["a", "e"]}))
    assert several.verdict == Ranking(ranks=(1, 1, 2, 2, 2))
    assert not is_row_2(Fields({"prompt": "p", "chosen": "a", "rejected": "b"}))
    assert not is_row_2(Fields({"chosen": [{"role": "user", "content": "p"}], "rejected": ["b"]}))
