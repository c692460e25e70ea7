"""Episodes, turn by turn: the policy answers, the environment replies, and the tokens go on from where they were."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from plaudit.environments.seam import Environment, Step
from plaudit.errors import NumberError, ShapeError
from plaudit.recipe import Sampling
from plaudit.records import Ended, Episode, Group
from plaudit.sampling import Request, Sampler
from plaudit.seeds import derive
from plaudit.text import Words

__all__ = ["Played", "play"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """Episodes as rows, a row for every answer: those of the first turn, then those of the second, and so on."""

    groups: tuple[Group, ...]
    """The answers; from the second turn on, each has a context of its own and so a group of its own."""
    rewards: tuple[float, ...]
    """Of each answer, group by group."""
    episode: tuple[int, ...]
    """Which episode each answer belongs to; the first turns are those of episodes 0, 1, 2, ..."""
    turn: tuple[int, ...]
    """Which turn of it, from 0."""
    texts: tuple[str, ...]
    """Of each episode: all that was said after its prompt."""
    parts: dict[str, float]
    """Mean over the answers of what the rewards are made of, for people."""

    def totals(self) -> list[float]:
        """What each episode earned, nothing discounted."""
        sums = [0.0] * len(self.texts)
        for episode, reward in zip(self.episode, self.rewards, strict=True):
            sums[episode] += reward
        return sums

    def with_cut(self, reward: float | None) -> Played:
        """The same with that reward for each answer which never ended; None leaves all rewards."""
        if reward is None:
            return self
        answers = [answer for group in self.groups for answer in group.answers]
        rewards = [
            reward if answer.ended is Ended.CUT else own for answer, own in zip(answers, self.rewards, strict=True)
        ]
        return replace(self, rewards=tuple(rewards))


def play(
    sampler: Sampler,
    environment: Environment,
    words: Words,
    groups: Sequence[Group],
    sampling: Sampling,
    *,
    turns: int,
) -> Played:
    """Play on from the first answers of some episodes.

    Args:
        sampler: answers from the second turn on.
        environment: rewards and replies.
        words: puts replies into tokens.
        groups: the first turns.
        sampling: how the later answers are drawn.
        turns: answers of an episode at most; one whose tokens fill the model's context ends there too.

    Raises:
        NumberError: a reward is not finite; names the prompt.
        ShapeError: the environment did not reply to every episode.
    """
    live = [
        (i, Episode(prompt=group.prompt, context_ids=group.context_ids, answers=(answer,), seed=answer.seed))
        for i, (group, answer) in enumerate((group, answer) for group in groups for answer in group.answers)
    ]
    all_groups, rows, texts = list(groups), [], [episode.answers[0].text for _, episode in live]
    for turn in range(turns):
        steps = _stepped(environment, [episode for _, episode in live])
        rows += [(i, turn, step) for (i, _), step in zip(live, steps, strict=True)]
        asked = []
        for (i, episode), step in zip(live, steps, strict=True):
            if step.reply is not None and turn + 1 < turns:
                request = _next_request(episode, step.reply, words)
                if words.context is None or len(request.context_ids) < words.context:
                    asked.append((i, episode, step.reply, request))
        if not asked:
            break
        answered = sampler.sample([request for *_, request in asked], sampling)
        all_groups += answered
        live = []
        for (i, episode, reply, _), group in zip(asked, answered, strict=True):
            (answer,) = group.answers
            live.append((i, _gone_on(episode, reply, group)))
            texts[i] += words.reply_text(reply) + answer.text
    names = rows[0][2].parts if rows else {}
    return Played(
        groups=tuple(all_groups),
        rewards=tuple(step.reward for *_, step in rows),
        episode=tuple(i for i, *_ in rows),
        turn=tuple(turn for _, turn, _ in rows),
        texts=tuple(texts),
        parts={name: statistics.fmean(step.parts.get(name, 0.0) for *_, step in rows) for name in names},
    )


def _stepped(environment: Environment, episodes: Sequence[Episode]) -> list[Step]:
    steps = environment.step(episodes)
    if len(steps) != len(episodes):
        raise ShapeError(f"the environment replied to {len(steps)} of {len(episodes)} episodes")
    for episode, step in zip(episodes, steps, strict=True):
        if not math.isfinite(step.reward):
            raise NumberError(
                f"the reward of turn {len(episode.answers)} of an episode of prompt {episode.prompt.id} is "
                f"{step.reward}: {episode.answers[-1].text[:60]!r}"
            )
    return steps


def _next_request(episode: Episode, reply: str, words: Words) -> Request:
    answer = episode.answers[-1]
    return Request(
        prompt=words.gone_on(episode.prompt, answer.text, reply),
        context_ids=words.reply_ids(episode.context_ids, answer.token_ids, reply),
        seeds=(derive(episode.seed, "turn", len(episode.answers)),),
        support=answer.support is not None,
    )


def _gone_on(episode: Episode, reply: str, group: Group) -> Episode:
    return replace(
        episode,
        prompt=group.prompt,
        context_ids=group.context_ids,
        answers=(*episode.answers, *group.answers),
        replies=(*episode.replies, reply),
    )
