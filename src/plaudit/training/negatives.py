"""Answers that nobody should like, made from those that somebody did, to find what a reward model can be fooled by.

An answer is spoiled in ways that keep its tokens or its fluency and lose its sense: a part said again and again, words
in no order, what answers another prompt, half a sentence. Of these the reward model picks the one that it likes best
itself; that one is added to the judgement as its worst answer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from plaudit.batch import Needs
from plaudit.seeds import derive
from plaudit.text import Words
from plaudit.training.judged import JudgedTokens, judged_batch
from plaudit.training.learner import ModelLearner, on_device
from plaudit.training.objectives import COMPARED, own_score

__all__ = ["spoiled", "with_negatives"]


def spoiled(answer: Sequence[int], other: Sequence[int], seed: int) -> list[tuple[int, ...]]:
    """An answer's tokens in four ways that nobody should like; those that would change nothing are left out.

    Args:
        answer: tokens, the end token among them where there is one.
        other: the answer to another prompt; empty if there is none.
        seed: draws the order of the words.
    """
    answer = tuple(answer)
    body, end = answer[:-1], answer[-1:]
    half = len(body) // 2
    shuffled = np.random.Generator(np.random.Philox(key=seed)).permutation(len(body))
    ways = [
        (*body[:half], *body[:half], *end),  # the first half twice, at the length of the whole
        (*(body[i] for i in shuffled), *end),
        tuple(other),
        body[:half],  # cut off, without an end
    ]
    return [way for way in dict.fromkeys(ways) if way and way != answer]


def with_negatives(
    items: Sequence[JudgedTokens], learner: ModelLearner, words: Words, share: float, seed: int
) -> list[JudgedTokens]:
    """Some of the judgements with one answer more, the worst: a spoiled one that the model likes best now.

    Args:
        items: a minibatch.
        learner: the reward model as it is.
        words: its tokenizer, which says how much it reads.
        share: of the comparisons to which one is added, drawn by the seed.
        seed: of this step.
    """
    draws = np.random.Generator(np.random.Philox(key=seed)).random(len(items))
    chosen = [
        i for i, item in enumerate(items) if draws[i] < share and item.said in COMPARED and len(set(item.ranks)) > 1
    ]
    ways: list[list[tuple[int, ...]]] = []
    for i in chosen:
        best = items[i].answers[items[i].ranks.index(1)]
        others = [one.answers[0] for k, one in enumerate(items) if k != i and one.name != items[i].name]
        other = others[i % len(others)][: words.room_behind(items[i].prompt)] if others else ()
        found = [way for way in spoiled(best, other, derive(seed, "order", i)) if way not in items[i].answers]
        ways.append(found)
    chosen = [i for i, found in zip(chosen, ways, strict=True) if found]
    ways = [found for found in ways if found]
    if not chosen:
        return list(items)
    tried = [
        dataclasses.replace(items[i], answers=tuple(found), ranks=(0,) * len(found), target=(0.0,) * len(found))
        for i, found in zip(chosen, ways, strict=True)
    ]
    batch = judged_batch(tried)
    outputs = learner.forward(batch, Needs(score=True))
    scores = iter(own_score(outputs, on_device(batch, learner.machine.device)).tolist())
    extended = list(items)
    for i, found in zip(chosen, ways, strict=True):
        liked = max(zip([next(scores) for _ in found], found, strict=True))[1]
        item = items[i]
        extended[i] = dataclasses.replace(
            item,
            answers=(*item.answers, liked),
            ranks=(*item.ranks, max(item.ranks) + 1),
            target=(*item.target, 0.0),
        )
    return extended
