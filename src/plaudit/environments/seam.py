"""What the policy stage knows of an environment, and a scorer as one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from plaudit.errors import NumberError
from plaudit.records import Episode, Group
from plaudit.scorers import Scorer

__all__ = ["Environment", "OneTurn", "Step"]


class Step(NamedTuple):
    """What came of an answer."""

    reward: float
    """For this turn alone."""
    reply: str | None = None
    """What is said to the policy next; None ends the episode."""
    parts: Mapping[str, float] = {}
    """What the reward is made of, for people."""


class Environment(Protocol):
    """Rewards the last answer of each episode, and says what comes next.

    An episode holds all that was said, so an environment has nothing to remember and nothing to reset: the next state
    follows from prompt and answers. What it draws, it draws from the episode's seed.
    """

    def step(self, episodes: Sequence[Episode]) -> list[Step]:
        """What came of the last answer of each of them, in their order."""
        ...


class OneTurn:
    """A scorer as an environment: every answer is graded, and nothing is said to it."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    def step(self, episodes: Sequence[Episode]) -> list[Step]:
        """Grade the answers, those to one prompt together.

        Raises:
            NumberError: the scorer failed on an answer, or a score is not finite.
        """
        together = itertools.groupby(episodes, lambda episode: (episode.prompt.id, episode.context_ids))
        groups = [
            Group(prompt=own[0].prompt, context_ids=own[0].context_ids, answers=tuple(one.answers[-1] for one in own))
            for own in (list(some) for _, some in together)
        ]
        scores = self.scorer.score(groups)
        scores.check(groups)
        if scores.failed:
            why = next(iter(scores.failed.values()))
            raise NumberError(f"the scorer failed on {len(scores.failed)} answers: {why}")
        parts = {name: [value for values in part for value in values] for name, part in scores.parts.items()}
        return [
            Step(value, None, {name: part[i] for name, part in parts.items()}) for i, value in enumerate(scores.flat())
        ]
