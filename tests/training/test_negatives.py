"""Answers that are spoiled on purpose, and a reward model that learns not to be fooled by them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.batch import Needs
from plaudit.models.load import Machine
from plaudit.models.network import RewardNetwork
from plaudit.recipe import Optimiser, Text
from plaudit.testing.tiny import tiny_model, tiny_tokenizer
from plaudit.text import Words
from plaudit.training.judged import JudgedTokens, judged_batch
from plaudit.training.learner import ModelLearner
from plaudit.training.negatives import spoiled, with_negatives
from plaudit.training.objectives import Said

WORDS = Words(tiny_tokenizer(), Text(), context=64)
CPU = Machine(device=torch.device("cpu"), bf16=False)


def item(name, *answers, said=Said.PAIRS, ranks=None):
    k = len(answers)
    return JudgedTokens(
        name=name, prompt=(1, 5), answers=answers, said=said, ranks=ranks or tuple(range(1, k + 1)), target=(0.0,) * k
    )


def learner():
    settings = Optimiser(learning_rate=1e-3)
    network = RewardNetwork(tiny_model(reward=True))
    return ModelLearner(network, settings, steps=9, machine=CPU, micro_tokens=8192)


def test_spoiled_by_hand():
    first_twice, shuffled, other, cut = spoiled((3, 4, 5, 6, 2), (9, 2), seed=4)
    assert first_twice == (3, 4, 3, 4, 2)
    assert sorted(shuffled[:-1]) == [3, 4, 5, 6]
    assert shuffled[-1] == 2
    assert shuffled != (3, 4, 5, 6, 2)
    assert (other, cut) == ((9, 2), (3, 4))


@given(st.lists(st.integers(3, 9), max_size=6), st.integers(0, 99))
@settings(deadline=None, max_examples=60, derandomize=True)
def test_what_is_spoiled_is_another_answer(body, seed):
    answer = (*body, 2)
    for way in spoiled(answer, (), seed):
        assert way
        assert way != answer
        assert set(way) <= set(answer)
    assert spoiled(answer, (), seed) == spoiled(answer, (), seed)


def test_the_one_that_the_model_likes_best_is_added_as_the_worst():
    items = [item("p", (3, 4, 5, 6, 2), (7, 2)), item("q", (8, 9, 2), (10, 2), (11, 2), ranks=(2, 1, 2))]
    model = learner()
    found = with_negatives(items, model, WORDS, 1.0, seed=0)
    assert [one.ranks for one in found] == [(1, 2, 3), (2, 1, 2, 3)]
    for before, after, best in zip(items, found, (0, 1), strict=True):
        assert after.answers[:-1] == before.answers
        others = {one.answers[0] for one in items if one.name != before.name}
        ways = {way for s in range(200) for o in others for way in spoiled(before.answers[best], o, s)}
        assert after.answers[-1] in ways - set(before.answers)
        tried = dataclasses.replace(
            before, answers=tuple(sorted(ways)), ranks=(0,) * len(ways), target=(0.0,) * len(ways)
        )
        score_B = model.forward(judged_batch([tried]), Needs(score=True)).score_B
        likes = dict(zip(tried.answers, score_B.tolist(), strict=True))
        # at least as liked as the ways that depend on no draw
        half = len(before.answers[best][:-1]) // 2
        fixed = [way for way in (before.answers[best][:half], *others) if way and way not in before.answers]
        assert all(likes[after.answers[-1]] >= likes[way] - 1e-6 for way in fixed)


def test_an_answer_to_another_prompt_is_cut_to_what_the_model_reads():
    items = [item("p", (3,), (7, 2)), item("q", tuple(range(4, 20)), (10, 2))]
    found = with_negatives(items, learner(), Words(tiny_tokenizer(), Text(), context=7), 1.0, seed=0)
    assert found[0].answers[-1] == (4, 5, 6, 7, 8)  # nothing else can be done to one token


@pytest.mark.parametrize("said", [Said.THUMB, Said.GRADE, Said.RATING])
def test_only_comparisons_get_one(said):
    items = [item("p", (3, 4, 5, 2), said=said, ranks=(1,))]
    assert with_negatives(items, learner(), WORDS, 1.0, seed=0) == items


def test_the_share_is_drawn_and_the_same_twice():
    items = [item(f"p{n}", (3 + n % 9, 4, 5, 2), (9, 2)) for n in range(60)]
    once, twice = (with_negatives(items, learner(), WORDS, 0.3, seed=4) for _ in range(2))
    assert once == twice
    assert 8 <= sum(len(one.answers) == 3 for one in once) <= 30
    assert with_negatives(items, learner(), WORDS, 0.0, seed=4) == items
