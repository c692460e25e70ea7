"""Simulated people who rank answers by the hidden taste, each with a leaning and a hand that is not quite steady."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from plaudit.records import Judgement, Prompt, Ranking
from plaudit.worlds.taste import SPREAD, WEIGHTS, gold, properties

__all__ = ["Annotator", "annotators", "turned"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotator:
    """One person: how reliable, what they lean to, how fast they read."""

    name: str
    noise: float
    """Scale of the Gumbel noise on each answer's worth, in points of gold."""
    leaning: Mapping[str, float]
    """Points of a property on top of `WEIGHTS`, or under it."""
    indifference: float
    """Answers whose worth differs by less are ranked the same, in points of gold."""
    pace: float
    """Characters read in a second."""

    def judge(self, prompt: Prompt, answers: Sequence[str], seed: int) -> Judgement:
        """The answers ranked, shown in an order drawn for this judgement.

        The same annotator, prompt and seed give the same noise, whatever the answers say.
        """
        rng = Random(f"reviews/judge/{self.name}/{seed}/{prompt.id}")
        shown = list(range(len(answers)))
        rng.shuffle(shown)
        worth = [0.0] * len(answers)
        for k in shown:
            worth[k] = self._worth(prompt, answers[k]) + self.noise * _gumbel(rng)
        reading = sum(map(len, answers)) / self.pace
        return Judgement(
            prompt=prompt,
            answers=tuple(answers),
            verdict=Ranking(ranks=_ranks(worth, self.indifference)),
            annotator=self.name,
            shown=tuple(shown),
            seconds=round(reading * rng.uniform(0.8, 1.4) + 2.0 * len(answers), 1),
        )

    def _worth(self, prompt: Prompt, answer: str) -> float:
        found = properties(prompt, answer)
        return gold(prompt, answer) + sum(points * found[name] for name, points in self.leaning.items())


def turned(judgement: Judgement) -> Judgement:
    """A ranking upside down: the best is the worst, ties stay ties."""
    ranks = judgement.ranks()
    assert ranks is not None
    return judgement.model_copy(update={"verdict": Ranking(ranks=tuple(max(ranks) + 1 - rank for rank in ranks))})


def annotators(count: int, seed: int, noise: float = 0.3) -> list[Annotator]:
    """People of varying reliability: their noise is `noise` of gold's spread on average, half as much to half more.

    Args:
        count: how many.
        seed: decides who they are.
        noise: scale of the Gumbel noise in standard deviations of gold; 0 makes everybody exact, leaning included.
    """
    return [_annotator(k, seed, noise) for k in range(count)]


def _annotator(k: int, seed: int, noise: float) -> Annotator:
    rng = Random(f"reviews/annotator/{seed}/{k}")
    steadiness, favourite = rng.uniform(0.5, 1.5), rng.choice(list(WEIGHTS))
    return Annotator(
        name=f"annotator-{k + 1}",
        noise=noise * SPREAD * steadiness,
        leaning={favourite: noise * SPREAD * rng.gauss(0, 1)},
        indifference=0.4 * noise * SPREAD,
        pace=rng.uniform(15, 30),
    )


def _gumbel(rng: Random) -> float:
    return -math.log(-math.log(rng.uniform(1e-12, 1 - 1e-12)))


def _ranks(worth: Sequence[float], indifference: float) -> tuple[int, ...]:
    """Best first; an answer shares a rank if it is within `indifference` of the best one there."""
    ranks, rank, top = [0] * len(worth), 0, math.inf
    for k in sorted(range(len(worth)), key=lambda k: -worth[k]):
        if rank == 0 or top - worth[k] > indifference:
            rank, top = rank + 1, worth[k]
        ranks[k] = rank
    return tuple(ranks)
