"""Simulated annotators: reliable on average, each in their own way, and the same every time."""

from __future__ import annotations

import statistics
from itertools import combinations

import pytest

from plaudit.records import Judgement, Prompt, Ranking
from plaudit.worlds import world
from plaudit.worlds.annotators import Annotator, turned
from plaudit.worlds.taste import SPREAD, WEIGHTS

WORLD = world("reviews")
PROMPTS = WORLD.prompts(500, seed=11)
ANSWERS = [WORLD.answers(prompt, 4, seed=0) for prompt in PROMPTS]
GOLD = [[WORLD.gold(prompt, answer) for answer in four] for prompt, four in zip(PROMPTS, ANSWERS, strict=True)]
EXACT = Annotator(name="exact", noise=0.0, leaning={}, indifference=0.0, pace=20.0)


def judged(people: list[Annotator]) -> list[Judgement]:
    return [people[i % len(people)].judge(prompt, ANSWERS[i], seed=0) for i, prompt in enumerate(PROMPTS)]


def accuracy(judgements: list[Judgement]) -> float:
    """Share of the pairs ordered by gold and by the annotator that both order alike."""
    agree = []
    for golds, judgement in zip(GOLD, judgements, strict=True):
        ranks = judgement.ranks() or ()
        for a, b in combinations(range(len(golds)), 2):
            if golds[a] != golds[b] and ranks[a] != ranks[b]:
                agree.append((golds[a] > golds[b]) == (ranks[a] < ranks[b]))
    return statistics.fmean(agree)


def test_at_noise_03_annotators_order_about_nine_of_ten_pairs_right():
    assert 0.85 < accuracy(judged(WORLD.annotators(8, 0, noise=0.3))) < 0.92


def test_more_noise_is_less_reliable():
    exact, some, much = (accuracy(judged(WORLD.annotators(8, 0, noise=noise))) for noise in (0.0, 0.3, 1.0))
    assert exact == 1.0
    assert some > much + 0.1
    assert much > 0.6


def test_people_differ_and_stay_themselves():
    people = WORLD.annotators(30, seed=2, noise=0.3)
    assert people[:3] == WORLD.annotators(3, seed=2, noise=0.3)
    assert people != WORLD.annotators(30, seed=3, noise=0.3)
    assert len({one.name for one in people}) == 30
    assert max(one.noise for one in people) > 2 * min(one.noise for one in people)
    assert statistics.fmean(one.noise for one in people) == pytest.approx(0.3 * SPREAD, rel=0.2)
    assert all(set(one.leaning) <= set(WEIGHTS) for one in people)


def test_a_judgement_is_whole_and_repeatable():
    prompt, answers = PROMPTS[0], ANSWERS[0]
    one = WORLD.annotators(1, seed=0)[0]
    first = one.judge(prompt, answers, seed=5)
    assert first == one.judge(prompt, answers, seed=5)
    assert Judgement.parse(first.to_json()) == first
    assert (first.prompt, first.answers, first.annotator) == (prompt, tuple(answers), one.name)
    assert sorted(first.shown or ()) == [0, 1, 2, 3]
    assert (first.seconds or 0) > 2 * len(answers)
    assert len({one.judge(prompt, answers, seed=seed).shown for seed in range(50)}) > 10
    assert len({one.judge(prompt, answers, seed=5).shown for prompt in PROMPTS[:50]}) > 10


def test_the_exact_annotator_ranks_by_gold_and_ties_what_is_equal():
    prompt, (a, b, *_) = PROMPTS[0], sorted(ANSWERS[0], key=lambda text: -WORLD.gold(PROMPTS[0], text))
    assert EXACT.judge(prompt, [b, a, "", b], seed=0).ranks() == (2, 1, 3, 2)


def test_near_answers_tie_for_the_indifferent():
    lazy = Annotator(name="lazy", noise=0.0, leaning={}, indifference=100.0, pace=20.0)
    assert lazy.judge(PROMPTS[0], ANSWERS[0], seed=0).ranks() == (1, 1, 1, 1)
    ties = [len(set(judgement.ranks() or ())) < 4 for judgement in judged(WORLD.annotators(8, 0))]
    assert 0.02 < statistics.fmean(ties) < 0.5


def test_a_leaning_overrules_the_taste():
    """Without advice but brief (0.85 + 0.95), or with it (1.1 + 0.85 + 0.95 / 2), by one who dislikes advice."""
    prompt = next(prompt for prompt in PROMPTS if prompt.about["language"] == "en")
    plain = "The plot is clever. It is a mystery."
    advice = "The plot is clever. I loved the ending. Read it if you like a good mystery. My copy came from Rome."
    grump = Annotator(name="grump", noise=0.0, leaning={"advice": -1.0}, indifference=0.0, pace=20.0)
    assert EXACT.judge(prompt, [plain, advice], seed=0).ranks() == (2, 1)
    assert grump.judge(prompt, [plain, advice], seed=0).ranks() == (1, 2)


def test_broken_text_ranks_last_for_everybody():
    for i, one in enumerate(WORLD.annotators(20, seed=0)):
        ranks = one.judge(PROMPTS[i], [*ANSWERS[i], "clever the is plot"], seed=0).ranks() or ()
        assert ranks[-1] == max(ranks)
        assert ranks.count(max(ranks)) == 1


def test_a_ranking_upside_down():
    judgement = Judgement(prompt=Prompt(text="p"), answers=("a", "b", "c"), verdict=Ranking(ranks=(2, 1, 2)))
    assert turned(judgement).ranks() == (1, 2, 1)
    assert turned(turned(judgement)) == judgement
