"""From what people said to what a reward model is trained on: which loss fits each judgement, and its tokens.

| what was said | loss (`Reward` says which, where there are two) |
|---|---|
| ranking | pairs of K, or Plackett-Luce |
| choice of the best | softmax over K, or pairs |
| comparison | a pair, or a tie |
| scores of several answers | pairs by their order, grades, or squared error |
| score of one answer | a grade, or squared error |
| thumb | binary log loss |
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from plaudit.batch import pack
from plaudit.errors import RecordError
from plaudit.recipe import Reward
from plaudit.records import Choice, Comment, Comparison, Judgement, Ranking, Scores, Thumb
from plaudit.text import Words
from plaudit.training.objectives import JudgedBatch, Said

__all__ = ["Judged", "JudgedTokens", "Mix", "gathered", "judged_batch", "judged_tokens", "said_by"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedTokens:
    """One judgement as tokens."""

    name: str
    """The prompt's id."""
    prompt: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    said: Said
    ranks: tuple[int, ...]
    """1 is best, ties share a number; zeros where the judgement orders nothing."""
    target: tuple[float, ...]
    """Of each answer: 1 or 0 for a thumb, the grade from 0 on, the rating; 0 elsewhere."""
    weight: float = 1.0
    margin: float = 0.0
    sure: float = 1.0
    quality: int = 0
    """Which head, in the order of `reward.qualities`."""
    clearness: float = 0.0
    """How far apart the answers are, in standard deviations of what was said; for the curriculum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A judgement and the loss that fits it; not yet tokens."""

    judgement: Judgement
    said: Said
    ranks: tuple[int, ...]
    target: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """What a set of judgements holds, for people and for the starting values of what is learned beside the scores."""

    counts: dict[str, int]
    """Judgements by the loss that they take."""
    left_out: dict[str, int]
    """Judgements that say nothing, by the reason."""
    tie_share: float
    """Share of pairs that are tied, where ties are learned from."""
    grade_counts: tuple[int, ...]
    """Answers with each grade; empty where there are none."""

    def describe(self) -> str:
        """One line."""
        kept = ", ".join(f"{count} by {name}" for name, count in self.counts.items())
        out = "".join(f"; {count} left out: {why}" for why, count in self.left_out.items())
        return f"{kept or 'none'}{out}"


def said_by(judgements: Iterable[Judgement], settings: Reward) -> tuple[list[Judged], Mix]:
    """The judgements that say something about order or worth, each with its loss; and what they are.

    Lone scores of one prompt by one annotator are put together, so that the prompt is computed once.

    Raises:
        RecordError: scores shall be read as numbers, but nobody said on which scale.
    """
    together = gathered(judgements)
    spread = _spread_of(together)
    found: list[Judged] = []
    left_out: Counter[str] = Counter()
    for judgement in together:
        if settings.qualities and judgement.quality not in settings.qualities:
            left_out[f"about {judgement.quality or 'no quality'}, which is not in reward.qualities"] += 1
            continue
        one = _fitted(judgement, settings, spread)
        if isinstance(one, str):
            left_out[one] += 1
        else:
            found.append(one)
    paired = [one.ranks for one in found if one.said is Said.PAIRS]
    has_ties = any(len(set(ranks)) < len(ranks) for ranks in paired)
    if settings.ties and has_ties and any(len(set(ranks)) > 1 for ranks in paired):
        found = [_with_ties(one) for one in found]
    else:
        before = len(found)
        found = [one for one in found if one.said is not Said.PAIRS or len(set(one.ranks)) > 1]
        if before > len(found):
            left_out["a full tie"] += before - len(found)
    return found, _mix(found, dict(left_out), settings.grades)


def _mix(found: Sequence[Judged], left_out: dict[str, int], steps: int) -> Mix:
    tied = pairs = 0
    grades: Counter[int] = Counter()
    for one in found:
        if one.said is Said.TIED_PAIRS:
            k = len(one.ranks)
            pairs += k * (k - 1) // 2
            tied += sum(count * (count - 1) // 2 for count in Counter(one.ranks).values())
        if one.said is Said.GRADE:
            grades.update(int(grade) for grade in one.target)
    return Mix(
        counts=dict(Counter(one.said.words for one in found)),
        left_out=left_out,
        tie_share=tied / pairs if pairs else 0.0,
        grade_counts=tuple(grades[grade] for grade in range(steps)) if grades else (),
    )


def _fitted(judgement: Judgement, settings: Reward, spread: tuple[float, float]) -> Judged | str:
    """The judgement with its loss, or why it says nothing."""
    verdict, k = judgement.verdict, len(judgement.answers)
    ranks, target, said = judgement.ranks() or (0,) * k, (0.0,) * k, Said.PAIRS
    match verdict:
        case Comment():
            return "a comment"
        case Thumb(up=up):
            return Judged(judgement=judgement, said=Said.THUMB, ranks=ranks, target=(float(up),))
        case Scores() if _read_as_numbers(verdict, k, settings):
            said, target = _numbers(judgement, verdict, settings, spread)
            return Judged(judgement=judgement, said=said, ranks=ranks, target=target)
        case Choice():
            said = Said.CHOICE if settings.choices == "softmax" else Said.BEST_PAIRS
        case Ranking():
            said = Said.WHOLE if settings.rankings == "whole" else Said.PAIRS
    if k < 2:
        return "one answer alone"
    if _contradicts(judgement.answers, ranks):
        return "the same answer at two ranks"
    if said is Said.WHOLE and len(set(ranks)) == 1:
        return "a full tie"
    return Judged(judgement=judgement, said=said, ranks=ranks, target=target)


def _with_ties(one: Judged) -> Judged:
    """Equal ranks are ties; but those who were not chosen are not said to be equal."""
    if one.said is not Said.PAIRS:
        return one
    return Judged(judgement=one.judgement, said=Said.TIED_PAIRS, ranks=one.ranks, target=one.target)


def _contradicts(answers: Sequence[str], ranks: Sequence[int]) -> bool:
    return len(set(zip(answers, ranks, strict=True))) > len(set(answers))


def _read_as_numbers(verdict: Scores, k: int, settings: Reward) -> bool:
    if settings.ratings == "auto":
        return k == 1
    return settings.ratings != "pairs"


def _numbers(
    judgement: Judgement, verdict: Scores, settings: Reward, spread: tuple[float, float]
) -> tuple[Said, tuple[float, ...]]:
    if settings.ratings == "squared":
        mean, sd = spread
        return Said.RATING, tuple((score - mean) / sd for score in _in_scale(judgement, verdict))
    last = settings.grades - 1
    return Said.GRADE, tuple(float(round(last * score)) for score in _in_scale(judgement, verdict))


def _in_scale(judgement: Judgement, verdict: Scores) -> list[float]:
    """The scores from 0 (the lowest there is) to 1."""
    if verdict.scale is None:
        asked, first = judgement.prompt.plain()[:60], judgement.answers[0][:60]
        raise RecordError(
            f"{f'prompt {asked!r}, ' if asked else ''}answer {first!r}: its score {verdict.scores[0]:g} has no scale, "
            "so scores say only which answer is better: name the lowest and the highest score with `scale: [1, 5]` "
            "beside the file in data.judgements, or set reward.ratings to pairs and give several answers of a prompt"
        )
    low, high = verdict.scale
    return [(score - low) / (high - low) for score in verdict.scores]


def _spread_of(judgements: Sequence[Judgement]) -> tuple[float, float]:
    """Mean and standard deviation of all scores, each on its own scale from 0 to 1."""
    scores = [
        score
        for one in judgements
        if isinstance(one.verdict, Scores) and one.verdict.scale is not None
        for score in _in_scale(one, one.verdict)
    ]
    sd = statistics.pstdev(scores) if len(scores) > 1 else 0.0
    return (statistics.fmean(scores) if scores else 0.0), (sd if sd > 0 else 1.0)


def gathered(judgements: Iterable[Judgement]) -> list[Judgement]:
    """Scores of single answers to one prompt, by one annotator on one scale, as one, where the first was."""
    kept: list[Judgement | list[Judgement]] = []
    places: dict[tuple[Any, ...], list[Judgement]] = {}
    for judgement in judgements:
        verdict = judgement.verdict
        if not isinstance(verdict, Scores) or len(judgement.answers) > 1:
            kept.append(judgement)
            continue
        key = (judgement.prompt.id, judgement.annotator, judgement.quality, verdict.scale)
        if key not in places:
            places[key] = []
            kept.append(places[key])
        places[key].append(judgement)
    return [one if isinstance(one, Judgement) else _joined(one) for one in kept]


def _joined(parts: Sequence[Judgement]) -> Judgement:
    first = parts[0].verdict
    assert isinstance(first, Scores)
    if len(parts) == 1:
        return parts[0]
    scores = tuple(one.verdict.scores[0] for one in parts if isinstance(one.verdict, Scores))
    return Judgement(
        prompt=parts[0].prompt,
        answers=tuple(one.answers[0] for one in parts),
        verdict=Scores(scores=scores, scale=first.scale),
        annotator=parts[0].annotator,
        quality=parts[0].quality,
    )


def judged_tokens(judgements: Iterable[Judgement], words: Words, settings: Reward) -> tuple[list[JudgedTokens], Mix]:
    """The judgements that say something as tokens, with their losses, weights, margins and doubts; and what they are.

    Raises:
        RecordError: scores shall be read as numbers, but nobody said on which scale.
        TextError: a prompt is too long.
    """
    found, mix = said_by(judgements, settings)
    return [_tokens(one, words, settings) for one in found], mix


def _tokens(one: Judged, words: Words, settings: Reward) -> JudgedTokens:
    judgement = one.judgement
    prompt = words.prompt_ids(judgement.prompt)
    verdict = judgement.verdict
    strength = verdict.strength if isinstance(verdict, Comparison) else None
    stated = verdict.sure if isinstance(verdict, Comparison) and verdict.sure is not None else 1.0
    slip = settings.label_smoothing
    return JudgedTokens(
        name=judgement.prompt.id,
        prompt=prompt,
        answers=tuple(words.answer_ids(answer, context_ids=prompt) for answer in judgement.answers),
        said=one.said,
        ranks=one.ranks,
        target=one.target,
        weight=settings.annotators.get(judgement.annotator or "", 1.0),
        margin=settings.margin * (strength or 0.0),
        sure=stated * (1 - slip) + (1 - stated) * slip,
        quality=list(settings.qualities).index(judgement.quality) if settings.qualities and judgement.quality else 0,
        clearness=strength or (max(verdict.scores) - min(verdict.scores) if isinstance(verdict, Scores) else 0.0),
    )


def judged_batch(chosen: Sequence[JudgedTokens], offset: float = 0.0) -> JudgedBatch:
    """Judgements as one packed batch; K may differ from one to the next.

    Args:
        chosen: the judgements.
        offset: what a unit of log length is known to be worth beforehand, in log-odds (see `Reward.length_debias`).
    """
    return JudgedBatch(
        tree=pack([(item.prompt, item.answers) for item in chosen], names=[item.name for item in chosen]),
        said_P=torch.tensor([int(item.said) for item in chosen]),
        rank_B=torch.tensor([rank for item in chosen for rank in item.ranks]),
        target_B=torch.tensor([target for item in chosen for target in item.target]),
        weight_P=torch.tensor([item.weight for item in chosen]),
        margin_P=torch.tensor([item.margin for item in chosen]),
        sure_P=torch.tensor([item.sure for item in chosen]),
        quality_P=torch.tensor([item.quality for item in chosen]),
        offset_B=torch.tensor([offset * math.log(max(1, len(a))) for item in chosen for a in item.answers]),
    )
