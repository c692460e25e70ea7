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
from typing import Any, NamedTuple

import torch

from plaudit.batch import pack
from plaudit.errors import RecordError
from plaudit.losses.listwise import LARGEST_TIE
from plaudit.recipe import Reward
from plaudit.records import Choice, Comment, Comparison, Judgement, Ranking, Scores, Thumb
from plaudit.text import Words
from plaudit.training.objectives import COMPARED, JudgedBatch, Said

__all__ = [
    "Judged",
    "JudgedTokens",
    "LengthWorth",
    "Mix",
    "check_read",
    "check_watched",
    "gathered",
    "joined",
    "judged_batch",
    "judged_tokens",
    "log_length",
    "said_by",
    "together",
]


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
    """How far apart the answers are, against the root mean square of all distances of its kind; for the curriculum."""


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
    spread: tuple[float, float]
    """Mean and standard deviation of all scores, on scales from 0 to 1, by which ratings are standardised."""
    about: dict[str, int]
    """Judgements by what they are about, `no quality` for those that do not say."""
    pooled: dict[str, int]
    """The same where several things go into one score; else nothing."""

    def has(self, *kinds: Said) -> bool:
        """Whether a judgement takes one of these losses."""
        return any(kind.words in self.counts for kind in kinds)

    def describe(self) -> str:
        """One line."""
        kept = ", ".join(f"{count} by {name}" for name, count in self.counts.items())
        out = "".join(f"; {count} left out: {why}" for why, count in self.left_out.items())
        about = ", ".join(f"{count} about {name}" for name, count in self.pooled.items())
        return f"{kept or 'none'}{out}{f'; {about} in one score: reward.qualities tells them apart' if about else ''}"


def said_by(judgements: Iterable[Judgement], settings: Reward, learned: Mix | None = None) -> tuple[list[Judged], Mix]:
    """The judgements that say something about order or worth, each with its loss; and what they are.

    Lone scores of one prompt by one annotator are put together, so that the prompt is computed once.

    Args:
        judgements: what people said.
        settings: the stage's.
        learned: of the judgements that were trained on, where these are held out: whether ties count, the mean and
            spread of ratings and whether there are grades at all are decided there.

    Raises:
        RecordError: scores shall be read as numbers, but nobody said on which scale; or more answers are tied than the
            loss of whole rankings takes.
    """
    left_out: Counter[str] = Counter()
    heard: list[Judgement] = []
    for judgement in gathered(judgements):
        if settings.qualities and judgement.quality not in settings.qualities:
            left_out[f"about {judgement.quality or 'no quality'}, which is not in reward.qualities"] += 1
        elif not _weight(judgement, settings):
            left_out["by annotators who weigh 0 in reward.annotators"] += 1
        else:
            heard.append(judgement)
    spread = _spread_of(heard) if learned is None else learned.spread
    found: list[Judged] = []
    for judgement in heard:
        one = _fitted(judgement, settings, spread)
        if isinstance(one, str):
            left_out[one] += 1
        elif learned is not None and one.said in (Said.GRADE, Said.RATING) and not learned.has(one.said):
            left_out[f"by {one.said.words}, as none of those to train on"] += 1
        else:
            found.append(one)
    if learned.has(Said.TIED_PAIRS) if learned is not None else settings.ties and _teach_ties(found):
        found = [_with_ties(one) for one in found]
    else:
        before = len(found)
        found = [one for one in found if one.said is not Said.PAIRS or len(set(one.ranks)) > 1]
        if before > len(found):
            left_out["a full tie"] += before - len(found)
    return found, _mix(found, dict(left_out), settings, spread)


def _teach_ties(found: Sequence[Judged]) -> bool:
    """Whether something is tied, and something is not."""
    paired = [one.ranks for one in found if one.said is Said.PAIRS]
    return any(len(set(ranks)) < len(ranks) for ranks in paired) and any(len(set(ranks)) > 1 for ranks in paired)


def check_read(mix: Mix, settings: Reward, everything: Iterable[Judgement]) -> None:
    """Refuse settings that would do nothing with what people said.

    Args:
        mix: of the judgements to train on, as `said_by` gives it.
        settings: the stage's.
        everything: all judgements, those held out too, whose annotators may be named.

    Raises:
        RecordError: nothing that a setting is for was said.
    """
    if settings.length_debias and not mix.has(*COMPARED, Said.THUMB):
        raise RecordError(
            "reward.length_debias learns from comparisons and thumbs what length is worth, and the judgements to train "
            f"on hold neither ({mix.describe()}): leave it out, or set reward.ratings to pairs"
        )
    if settings.label_smoothing and not mix.has(*(COMPARED - {Said.WHOLE}), Said.THUMB):
        raise RecordError(
            "reward.label_smoothing is for pairs, choices of the best and thumbs, and the judgements to train on are "
            f"others ({mix.describe()}): leave it out, or set reward.rankings or reward.ratings to pairs"
        )
    everything = list(everything)
    if settings.margin and not any(isinstance(one.verdict, Comparison) and one.verdict.strength for one in everything):
        raise RecordError(
            f"reward.margin {settings.margin:g} is times the strength that a comparison states, and none states one: "
            "leave it out"
        )
    for name, read, where in (
        ("centring", mix.has(*COMPARED), "comparisons, rankings and choices"),
        ("negatives", mix.has(*COMPARED), "comparisons, rankings and choices"),
        ("curriculum", any(_clearness(everything)), "judgements that differ in stated strength or distance of scores"),
    ):
        if not read and getattr(settings, name):
            raise RecordError(
                f"reward.{name} is for {where}, and there are none such to train on ({mix.describe()}): leave it out"
            )
    unjudged = [name for name, weight in settings.qualities.items() if weight and not mix.about.get(name)]
    if unjudged:
        raise RecordError(
            f"reward.qualities gives {', '.join(unjudged)} a weight in the reward, but no judgement to train on is "
            f"about that ({mix.describe()}), so that its head would stay random: leave it out, or say in `quality` of "
            "a judgement or of its source what it is about"
        )
    names = {judgement.annotator or "" for judgement in everything}
    if unknown := settings.annotators.keys() - names:
        raise RecordError(
            f"reward.annotators weighs {_people(unknown)}, of whom there is no judgement; there are judgements of "
            f"{_people(names)}"
        )


def check_watched(watched: Sequence[object], held_out: Sequence[Judgement], settings: Reward) -> None:
    """Refuse patience that has nothing to look at.

    Args:
        watched: those of the held-out judgements that say something.
        held_out: all of them.
        settings: the stage's.

    Raises:
        RecordError: there is patience, and none says something.
    """
    if settings.patience is not None and not watched:
        raise RecordError(
            f"reward.patience {settings.patience} looks at held-out judgements, and none of {len(held_out)} says "
            "which answer is better: raise data.held_out"
        )


def _people(names: Iterable[str]) -> str:
    first, rest = sorted(names)[:10], sorted(names)[10:]
    return ", ".join(name or "nobody by name" for name in first) + (f" and {len(rest)} more" if rest else "")


def _mix(found: Sequence[Judged], left_out: dict[str, int], settings: Reward, spread: tuple[float, float]) -> Mix:
    tied = pairs = 0
    grades: Counter[int] = Counter()
    for one in found:
        if one.said is Said.TIED_PAIRS:
            k = len(one.ranks)
            pairs += k * (k - 1) // 2
            tied += sum(count * (count - 1) // 2 for count in Counter(one.ranks).values())
        if one.said is Said.GRADE:
            grades.update(int(grade) for grade in one.target)
    about = Counter(one.judgement.quality or "no quality" for one in found)
    return Mix(
        counts=dict(Counter(one.said.words for one in found)),
        left_out=left_out,
        tie_share=tied / pairs if pairs else 0.0,
        grade_counts=tuple(grades[grade] for grade in range(settings.grades)) if grades else (),
        spread=spread,
        about=dict(about),
        pooled=dict(about) if len(about) > 1 and not settings.qualities else {},
    )


def _weight(judgement: Judgement, settings: Reward) -> float:
    return settings.annotators.get(judgement.annotator or "", 1.0)


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
    if said is Said.WHOLE:
        _check_ties(judgement, ranks, settings)
    return Judged(judgement=judgement, said=said, ranks=ranks, target=target)


def _check_ties(judgement: Judgement, ranks: Sequence[int], settings: Reward) -> None:
    above_last = [rank for rank in ranks if rank < max(ranks) or settings.negatives]  # a negative is ranked behind all
    rank, count = Counter(above_last).most_common(1)[0]
    if count > LARGEST_TIE:
        where = "any rank where reward.negatives adds a last one" if rank == max(ranks) else "a rank above the last"
        raise RecordError(
            f"prompt {judgement.prompt.id}: {count} of its answers share the rank {rank}, and a whole ranking takes up "
            f"to {LARGEST_TIE} at {where}: set reward.rankings to pairs"
        )


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
    return Said.GRADE, tuple(float(math.floor(last * score + 0.5)) for score in _in_scale(judgement, verdict))


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
    given = list(judgements)
    return [joined([given[place] for place in places]) for places in together(given)]


def together(judgements: Iterable[Judgement]) -> list[list[int]]:
    """The places of the judgements that are one: scores of single answers to one prompt, by one annotator."""
    found: list[list[int]] = []
    alike: dict[tuple[Any, ...], list[int]] = {}
    for place, judgement in enumerate(judgements):
        verdict = judgement.verdict
        if isinstance(verdict, Scores) and len(judgement.answers) == 1:
            key = (judgement.prompt.id, judgement.annotator, judgement.quality, verdict.scale)
            if key in alike:
                alike[key].append(place)
                continue
            alike[key] = [place]
            found.append(alike[key])
        else:
            found.append([place])
    return found


def joined(parts: Sequence[Judgement]) -> Judgement:
    """The judgement that several are which are `together`.

    What nobody by name said of one answer again and again may be several people's, and is averaged.
    """
    first = parts[0].verdict
    if len(parts) == 1:
        return parts[0]
    assert isinstance(first, Scores)
    said = [(one.answers[0], one.verdict.scores[0]) for one in parts if isinstance(one.verdict, Scores)]
    if parts[0].annotator is None:
        heard: dict[str, list[float]] = {}
        for answer, score in said:
            heard.setdefault(answer, []).append(score)
        said = [(answer, statistics.fmean(scores)) for answer, scores in heard.items()]
    return Judgement(
        prompt=parts[0].prompt,
        answers=tuple(answer for answer, _ in said),
        verdict=Scores(scores=tuple(score for _, score in said), scale=first.scale),
        annotator=parts[0].annotator,
        quality=parts[0].quality,
    )


def judged_tokens(
    judgements: Iterable[Judgement], words: Words, settings: Reward, learned: Mix | None = None
) -> tuple[list[JudgedTokens], Mix]:
    """The judgements that say something as tokens, with their losses, weights, margins and doubts; and what they are.

    Takes what `said_by` takes.

    Raises:
        RecordError: scores shall be read as numbers, but nobody said on which scale; or more answers are tied than the
            loss of whole rankings takes.
        TextError: a prompt is too long.
    """
    found, mix = said_by(judgements, settings, learned)
    clear = _clearness([one.judgement for one in found])
    return [_tokens(one, words, settings, clearness) for one, clearness in zip(found, clear, strict=True)], mix


def _clearness(judgements: Sequence[Judgement]) -> list[float]:
    """How far apart the answers of each are, so that strengths, and scores on any scale, can be put in one order."""
    kinds, distances = zip(*map(_distance, judgements), strict=True) if judgements else ((), ())
    squares: dict[str, list[float]] = {kind: [] for kind in kinds}
    for kind, distance in zip(kinds, distances, strict=True):
        squares[kind] += [distance**2] * (distance > 0)
    unit = {kind: math.sqrt(statistics.fmean(found)) if found else 1.0 for kind, found in squares.items()}
    return [distance / unit[kind] for kind, distance in zip(kinds, distances, strict=True)]


def _distance(judgement: Judgement) -> tuple[str, float]:
    """In the unit of its kind; 0 where nobody said how far."""
    match judgement.verdict:
        case Comparison(strength=float(strength)):
            return "strength", strength
        case Scores(scale=None, scores=scores):
            return "scores", max(scores) - min(scores)
        case Scores() as verdict:
            on_scale = _in_scale(judgement, verdict)
            return "scores on a scale", max(on_scale) - min(on_scale)
    return "order alone", 0.0


def _tokens(one: Judged, words: Words, settings: Reward, clearness: float) -> JudgedTokens:
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
        weight=_weight(judgement, settings),
        margin=settings.margin * (strength or 0.0),
        sure=stated * (1 - slip) + (1 - stated) * slip,
        quality=list(settings.qualities).index(judgement.quality) if settings.qualities and judgement.quality else 0,
        clearness=clearness,
    )


class LengthWorth(NamedTuple):
    """What the length of an answer is known to be worth beforehand, in log-odds (see `Reward.length_debias`)."""

    slope: float = 0.0
    """Of each unit of log length."""
    centre: float = 0.0
    """The log length that is worth 0."""

    def offsets(self, item: JudgedTokens) -> list[float]:
        """Of each answer; 0 where a score is not in log-odds of one answer against another, or of a thumb."""
        if item.said in (Said.GRADE, Said.RATING):
            return [0.0] * len(item.answers)
        return [self.slope * (log_length(answer) - self.centre) for answer in item.answers]


def log_length(answer: Sequence[int]) -> float:
    """Of an answer's tokens; an empty answer counts as one."""
    return math.log(max(1, len(answer)))


def judged_batch(chosen: Sequence[JudgedTokens], length: LengthWorth | None = None) -> JudgedBatch:
    """Judgements as one packed batch; K may differ from one to the next.

    Args:
        chosen: the judgements.
        length: what the length of an answer is known to be worth; nothing when not given.
    """
    length = length or LengthWorth()
    return JudgedBatch(
        tree=pack([(item.prompt, item.answers) for item in chosen], names=[item.name for item in chosen]),
        said_P=torch.tensor([int(item.said) for item in chosen]),
        rank_B=torch.tensor([rank for item in chosen for rank in item.ranks]),
        target_B=torch.tensor([target for item in chosen for target in item.target]),
        weight_P=torch.tensor([item.weight for item in chosen]),
        margin_P=torch.tensor([item.margin for item in chosen]),
        sure_P=torch.tensor([item.sure for item in chosen]),
        quality_P=torch.tensor([item.quality for item in chosen]),
        offset_B=torch.tensor([offset for item in chosen for offset in length.offsets(item)]),
    )
