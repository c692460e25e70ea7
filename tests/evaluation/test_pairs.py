"""What scores say of judgements, by hand: pairs, intervals, ties, length, calibration, agreement."""

from __future__ import annotations

import dataclasses
import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plaudit.errors import ShapeError
from plaudit.evaluation.pairs import (
    Pair,
    Scored,
    accuracy,
    against_length,
    against_themselves,
    agreement,
    calibration,
    clustered_share,
    disagreement,
    grouped,
    pairs_of,
    temperature,
    thumbs,
    tied_gaps,
    used,
    wilson,
    with_ties,
)
from plaudit.records import Choice, Comment, Comparison, Judgement, Preferred, Prompt, Ranking, Scores, Thumb

GAPS = st.lists(st.floats(-20, 20).map(lambda gap: round(gap, 3)), min_size=1, max_size=30)


def scored(answers, verdict, scores, prompt="q", who=None, **facts):
    judgement = Judgement(prompt=Prompt(text=prompt, id=prompt), answers=tuple(answers), verdict=verdict, annotator=who)
    return Scored(judgement=judgement, scores=tuple(scores), facts=facts)


def pair(gap, better=1, worse=1, prompt="q"):
    return Pair(prompt, gap, better, worse)


# --- which pairs there are ------------------------------------------------------------------------------------------


def test_a_ranking_gives_every_pair_that_it_orders():
    item = scored(["aaa", "b", "cc"], Ranking(ranks=(2, 1, 2)), [1.0, 4.0, 6.0])
    assert pairs_of([item]) == [pair(3.0, 1, 3), pair(-2.0, 1, 2)]  # b over aaa, b over cc
    assert tied_gaps([item]) == [-5.0]  # aaa beside cc


def test_several_models_give_the_mean_of_their_chances():
    """Chances 0.9 and 0.5 make 0.7; and 0.9 beside 0.1 says nothing, where the mean log-odds says nothing either."""
    item = scored("ab", Ranking(ranks=(1, 2)), [0.0, 0.0])
    sure, torn = math.log(9), 0.0
    both = dataclasses.replace(item, members=((sure, 0.0), (torn, 0.0)))
    assert both.gap(0, 1) == pytest.approx(math.log(0.7 / 0.3))
    assert both.gap(1, 0) == pytest.approx(-math.log(0.7 / 0.3))
    assert pairs_of([both])[0].gap == both.gap(0, 1)
    against = dataclasses.replace(item, members=((sure, 0.0), (-sure, 0.0)))
    assert against.gap(0, 1) == pytest.approx(0.0)
    far = dataclasses.replace(item, members=((900.0, 0.0), (800.0, 0.0)))
    assert math.isfinite(far.gap(0, 1))


def test_an_ensemble_is_also_measured_as_it_is_used():
    item = scored("ab", Ranking(ranks=(1, 2)), [1.0, 2.0])
    members = ((1.0, 0.0), (1.0, 0.0), (1.0, 7.0))
    torn = dataclasses.replace(item, members=members, used=(1.0, 0.0))
    (found,) = pairs_of([torn])
    assert found.gap < 0  # chances 0.731, 0.731 and 0.002
    assert found.apart == pytest.approx(math.sqrt((2 * (7 / 3) ** 2 + (14 / 3) ** 2) / 3))  # gaps 1, 1, -6 about -4/3
    assert used([torn])["accuracy"] == 1.0
    assert used([dataclasses.replace(torn, used=(0.0, 1.0))])["accuracy"] == 0.0
    assert used([item]) == {}
    assert pairs_of([item])[0].apart is None


def test_disagreement_by_hand():
    pairs = [
        Pair("p", 1.0, 1, 1, 0.5),
        Pair("p", 2.0, 1, 1, 1.5),
        Pair("p", -1.0, 1, 1, 3.0),
        Pair("p", 0.0, 1, 1, 9.0),
    ]
    assert disagreement(pairs) == {"right": 1.0, "wrong": 3.0}
    assert disagreement([pair(1.0)]) == {}


def test_a_majority_is_compared_with_the_very_gap_that_accuracy_takes():
    """The mean of the scores is for b, the mean of the chances for a."""
    verdict = Comparison(preferred=Preferred.FIRST)
    both = [scored("ab", verdict, [0.0, 1.0], who=who) for who in ("x", "y")]
    members = ((2.0, 0.0), (2.0, 0.0), (0.0, 7.0))
    both = [dataclasses.replace(one, members=members) for one in both]
    assert accuracy(pairs_of(both))["accuracy"] == 1.0
    assert agreement(both)["levels"]["all"]["accuracy"] == 1.0


def test_an_answer_preferred_to_itself_is_counted_apart():
    item = scored(["aa", "aa", "b"], Ranking(ranks=(1, 2, 3)), [1.0, 1.0, 0.0])
    assert pairs_of([item]) == [pair(1.0, 2, 1), pair(1.0, 2, 1)]
    assert against_themselves([item]) == 1
    assert against_themselves([scored("ab", Choice(best=0), [0, 1]), scored("a", Thumb(up=True), [1])]) == 0


def test_other_verdicts():
    assert pairs_of([scored("ab", Comparison(preferred=Preferred.SECOND), [1, 3])]) == [pair(2)]
    assert pairs_of([scored("ab", Scores(scores=(0.5, 0.1)), [1, 3])]) == [pair(-2)]
    best = scored("abc", Choice(best=1), [0, 2, 5])
    assert pairs_of([best]) == [pair(2), pair(-3)]
    assert tied_gaps([best]) == []  # nothing was said of a beside c
    assert tied_gaps([scored("ab", Comparison(preferred=Preferred.TIE), [1, 3])]) == [-2]
    silent = [scored("a", Thumb(up=True), [1]), scored("a", Comment(text="hm"), [1])]
    assert pairs_of(silent) == []
    assert tied_gaps(silent) == []


def test_a_score_for_each_answer():
    with pytest.raises(ShapeError, match="prompt q: 1 scores for 2 answers"):
        scored("ab", Choice(best=0), [1.0])


# --- accuracy and its interval --------------------------------------------------------------------------------------


def test_accuracy_by_hand():
    pairs = [pair(1, prompt="p"), pair(-1, prompt="p"), pair(2, prompt="q"), pair(0, prompt="r")]
    found = accuracy(pairs)
    assert (found["pairs"], found["prompts"]) == (4, 3)
    assert found["accuracy"] == (1 + 0 + 1 + 0.5) / 4
    # deviations by prompt from 5/8: p 1 - 2 * 5/8 = -1/4, q 3/8, r -1/8; 3/2 (1/16 + 9/64 + 1/64) / 16 = 21/1024
    # independent cases of that variance: (5/8 * 3/8) / (21/1024) = 240/21, more than there are: 4
    assert found["interval"] == pytest.approx(list(wilson(0.625, 4)))
    assert accuracy([]) == {"pairs": 0}


def test_wilson_by_hand():
    # half of 4: centre 1/2; 1.96 / (1 + z2/4) * sqrt(1/16 + z2/64), z2 = 3.8416
    half = 1.96 / 1.9604 * math.sqrt(1 / 16 + 3.8416 / 64)
    assert wilson(0.5, 4) == pytest.approx((0.5 - half, 0.5 + half))
    assert wilson(1.0, 10)[1] == 1.0
    assert 0.7 < wilson(1.0, 10)[0] < 0.75


@given(st.lists(st.booleans(), min_size=2, max_size=40))
def test_single_pairs_lose_one_case_to_the_unknown_mean(won):
    values = [float(one) for one in won]
    share = clustered_share(values, [str(i) for i in range(len(values))])
    cases = len(values) if share.value in (0, 1) else len(values) - 1
    assert share.interval == pytest.approx(wilson(share.value, cases))


@given(st.lists(st.booleans(), min_size=3, max_size=20), st.integers(2, 5))
def test_copies_of_a_prompts_pair_tell_nothing_new(won, copies):
    values, names = [float(one) for one in won], [str(i) for i in range(len(won))]
    once, often = clustered_share(values, names), clustered_share(values * copies, names * copies)
    assert often.value == pytest.approx(once.value)
    assert often.interval == pytest.approx(once.interval)


def test_the_interval_covers_the_truth():
    """4 pairs a prompt, of one difficulty: the truth lies in 95 of 100 intervals, give or take."""
    inside = 0
    for trial in range(400):
        random = Random(trial)
        ease = [random.betavariate(4, 2) for _ in range(60)]  # mean 2/3
        values = [float(random.random() < each) for each in ease for _ in range(4)]
        low, high = clustered_share(values, [str(i // 4) for i in range(240)]).interval
        inside += low <= 2 / 3 <= high
    assert 0.92 <= inside / 400 <= 0.98


def test_a_share_of_nothing_is_refused():
    with pytest.raises(ShapeError, match="found 0 and 0"):
        clustered_share([], [])


# --- ties and thumbs ------------------------------------------------------------------------------------------------


def test_with_ties_by_hand():
    # threshold below 0: 3 right (the pairs led by 3, 2, 0.4). At 0.1: the tie 0.1 too, 4. At 0.4: minus that pair, 3.
    # At 0.5: the tie 0.5, 4. At 2: minus a pair. At 5: the tie, 4.
    found = with_ties([pair(3), pair(0.4), pair(2), pair(-1)], [0.1, -0.5, 5])
    assert found == {"pairs": 7, "ties": 3, "accuracy": 4 / 7, "threshold": 0.1, "always_tie": 3 / 7}
    assert with_ties([pair(1)], []) == {}
    assert with_ties([pair(1)], [2])["threshold"] == -1.0  # better to call nothing equal


@given(GAPS, GAPS)
def test_the_threshold_is_the_best(gaps, tied):
    pairs = [pair(gap) for gap in gaps]
    found = with_ties(pairs, tied)

    def right(threshold):
        return sum(gap > max(threshold, 0.0) for gap in gaps) + sum(abs(gap) <= threshold for gap in tied)

    assert found["accuracy"] * found["pairs"] == pytest.approx(right(found["threshold"]))
    best = max(right(threshold) for threshold in (-1.0, *(abs(gap) for gap in (*gaps, *tied))))
    assert found["accuracy"] * found["pairs"] == pytest.approx(best)


def test_thumbs_by_hand():
    given_ = [(True, 3.0), (True, 1.0), (False, 1.0), (False, 0.0)]
    found = thumbs([scored("a", Thumb(up=up), [score]) for up, score in given_])
    signed = found.pop("signed")
    assert found == {"up": 2, "down": 2, "accuracy": (1 + 1 + 0.5 + 1) / 4}
    assert signed["accuracy"] == (1 + 1 + 0 + 0.5) / 4  # right, right, wrong, undecided
    low, high = signed["interval"]
    assert 0 <= low < 0.625 < high <= 1
    alone = thumbs([scored("a", Thumb(up=True), [1])])
    assert (alone["up"], alone["down"], alone["signed"]["accuracy"]) == (1, 0, 1.0)
    assert "accuracy" not in alone
    assert thumbs([scored("ab", Choice(best=0), [1, 0])]) == {}


# --- length ---------------------------------------------------------------------------------------------------------


def test_against_length_by_hand():
    pairs = [pair(1, 10, 5), pair(-1, 4, 8), pair(1, 100, 91), pair(-1, 91, 100), pair(2, 7, 7)]
    found = against_length(pairs)
    assert found["longer_wins"] == (1 + 0 + 1 + 0 + 0.5) / 5
    assert found["prefers_longer"] == 1.0  # right where the better is longer, wrong where it is shorter
    assert {side: (found[side]["pairs"], found[side]["accuracy"]) for side in ("longer", "shorter", "similar")} == {
        "longer": (2, 1.0),
        "shorter": (2, 0.0),
        "similar": (3, (1 + 0 + 1) / 3),
    }
    assert against_length([]) == {}


# --- calibration ----------------------------------------------------------------------------------------------------


def logit(chance):
    return math.log(chance / (1 - chance))


def test_calibration_by_hand():
    found = calibration([logit(0.72), -logit(0.74), logit(0.9), 0.0], bins=5)
    assert found["calibration"] == [
        {"predicted": 0.5, "observed": 0.5, "count": 1},
        {"predicted": pytest.approx(0.73), "observed": 0.5, "count": 2},
        {"predicted": pytest.approx(0.9), "observed": 1.0, "count": 1},
    ]
    assert found["expected_calibration_error"] == pytest.approx((0 + 2 * 0.23 + 0.1) / 4)
    nats = -(math.log(0.72) + math.log(0.26) + math.log(0.9) + math.log(0.5)) / 4
    assert found["nats"] == pytest.approx(nats)
    assert [row["count"] for row in calibration([logit(0.62), logit(0.78)], bins=5)["calibration"]] == [1, 1]
    assert calibration([]) == {}


def test_temperature_by_hand():
    # three of four pairs with a gap of 2 are right: the likeliest chance is 3/4, so 2 / T = log 3
    assert temperature([2.0, 2.0, 2.0, -2.0]) == pytest.approx(2 / math.log(3))
    found = calibration([2.0, 2.0, 2.0, -2.0])
    assert found["nats_at_temperature"] == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert temperature([1.0, 2.0]) is None  # the surer the better
    assert temperature([1.0, -2.0]) is None  # as often wrong as right, and more so
    assert temperature([]) is None


@given(GAPS, st.floats(0.25, 4))
def test_the_temperature_scales_with_the_scores_and_is_the_best(gaps, factor):
    best = temperature(gaps)
    if best is None or not 1e-3 < best < 1e3:
        return
    assert temperature([factor * gap for gap in gaps]) == pytest.approx(factor * best, rel=1e-4)
    nats = calibration(gaps)["nats_at_temperature"]
    for other in (0.9 * best, 1.1 * best):
        assert calibration([gap / other for gap in gaps])["nats"] >= nats - 1e-12


@given(GAPS, st.randoms(use_true_random=False))
def test_the_order_of_pairs_does_not_matter(gaps, random):
    mixed = random.sample(gaps, len(gaps))
    one, two = calibration(gaps), calibration(mixed)
    assert one["expected_calibration_error"] == pytest.approx(two["expected_calibration_error"])
    assert one["nats"] == pytest.approx(two["nats"])


@given(GAPS, st.floats(-9, 9))
def test_a_constant_for_each_prompt_changes_nothing(gaps, shift):
    items = [scored("ab", Choice(best=0), [gap + shift, shift], prompt=str(i)) for i, gap in enumerate(gaps)]
    assert [found.gap for found in pairs_of(items)] == pytest.approx(gaps)


# --- groups and agreement -------------------------------------------------------------------------------------------


def test_groups_by_fact_annotator_and_number():
    items = [
        scored("ab", Choice(best=0), [1, 0], who="kim", subset="easy"),
        scored("ab", Choice(best=1), [1, 0], who="lee", subset="hard"),
        scored("abc", Choice(best=0), [1, 0, 2], subset="hard"),
        scored("a", Thumb(up=True), [1], who="max", subset="thumbs"),
    ]

    def shares(name):
        return {value: (part["pairs"], part["accuracy"]) for value, part in grouped(items, name).items()}

    assert shares("subset") == {"easy": (1, 1.0), "hard": (3, 1 / 3)}
    assert shares("annotator") == {"kim": (1, 1.0), "lee": (1, 0.0)}
    assert shares("answers") == {"2": (2, 0.5), "3": (2, 0.5)}
    assert shares("nothing") == {}


def test_numbers_in_names_are_in_order():
    names = ["b", "10", "a-10", "9", "a-9", "a"]
    items = [scored("ab", Choice(best=0), [1, 0], topic=name) for name in names]
    assert list(grouped(items, "topic")) == ["9", "10", "a", "a-9", "a-10", "b"]


def test_agreement_by_hand():
    def said(preferred, prompt, first="a", second="b", scores=(2, 1)):
        return scored([first, second], Comparison(preferred=preferred), scores, prompt=prompt)

    one, two, tie = Preferred.FIRST, Preferred.SECOND, Preferred.TIE
    items = [
        *(said(verdict, "all") for verdict in (one, one, one)),  # the scores agree
        *(said(verdict, "most") for verdict in (two, two, one)),  # the scores do not
        *(said(verdict, "split") for verdict in (one, two)),
        *(said(verdict, "tied") for verdict in (tie, tie, one)),
        said(one, "alone"),
        said(one, "turned"),
        said(two, "turned", "b", "a", (1, 2)),  # the same answers the other way round: the same vote
    ]
    found = agreement(items)
    assert (found["pairs"], found["undecided"]) == (5, 2)
    levels = {level: (part["pairs"], part["accuracy"]) for level, part in found["levels"].items()}
    assert levels == {"all": (2, 1.0), "most": (1, 0.0)}
    # couples that order: 3 alike of 3, 1 of 3, 0 of 1, none, 1 of 1
    assert found["between_annotators"] == pytest.approx(5 / 8)
    assert agreement([said(one, "alone")]) == {}


def test_identical_answers_say_nothing_about_agreement():
    assert agreement([scored("aa", Comparison(preferred=Preferred.FIRST), [1, 1])] * 2) == {}


def test_one_person_on_two_qualities_is_no_quarrel():
    def said(quality, preferred, scores):
        item = scored("ab", Comparison(preferred=preferred), scores, who="kim")
        return dataclasses.replace(item, judgement=item.judgement.model_copy(update={"quality": quality}))

    items = [said("helpful", Preferred.FIRST, [1, 0]), said("harmless", Preferred.SECOND, [0, 1])]
    assert agreement(items) == {}
    assert {value: part["accuracy"] for value, part in grouped(items, "quality").items()} == {
        "harmless": 1.0,
        "helpful": 1.0,
    }


@given(
    ups=st.lists(st.integers(-3, 3), min_size=1, max_size=12),
    downs=st.lists(st.integers(-3, 3), min_size=1, max_size=12),
)
def test_thumbs_are_compared_couple_by_couple(ups, downs):
    items = [scored("a", Thumb(up=True), [up]) for up in ups] + [scored("a", Thumb(up=False), [down]) for down in downs]
    couples = [1.0 if up > down else 0.5 * (up == down) for up in ups for down in downs]
    assert thumbs(items)["accuracy"] == pytest.approx(sum(couples) / len(couples))
