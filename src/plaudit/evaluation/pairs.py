"""How far scores order answers as people did: accuracy, ties, length, calibration, agreement, from plain numbers.

Everything here takes judgements and a score for each of their answers, whoever gave it, and computes no score itself.
A *pair* is two answers of one judgement of which the judge ranks one above the other. Pairs of one prompt are not
independent, so every interval is over prompts.
"""

from __future__ import annotations

import math
import re
import statistics
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, NamedTuple

from plaudit.errors import ShapeError
from plaudit.evaluation.measures import Share
from plaudit.records import Choice, Judgement, Thumb

__all__ = [
    "Pair",
    "Scored",
    "accuracy",
    "against_length",
    "against_themselves",
    "agreement",
    "calibration",
    "clustered_share",
    "disagreement",
    "grouped",
    "pairs_of",
    "temperature",
    "thumbs",
    "tied_gaps",
    "used",
    "wilson",
    "with_ties",
]

SIMILAR = 0.1
"""Two answers are of similar length if the shorter lacks at most this share of the longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A judgement with a score for each of its answers.

    Raises:
        ShapeError: there is not one score for each answer.
    """

    judgement: Judgement
    scores: tuple[float, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
    """What its row says besides, such as `subset`."""
    members: tuple[tuple[float, ...], ...] = ()
    """The scores of each member of an ensemble, where `scores` are their mean."""
    used: tuple[float, ...] = ()
    """The reward that an ensemble's members give together, where the judgement is about the whole of it."""

    def gap(self, up: int, down: int) -> float:
        """How much higher one answer is scored than another one, in log-odds.

        Several models give the mean of their chances, as a mixture does: sigmoid(gap) = mean of sigmoid(own gap). Where
        they disagree it is less sure than each of them: Lakshminarayanan et al. 2017, https://arxiv.org/abs/1612.01474.
        """
        if not self.members:
            return self.scores[up] - self.scores[down]
        chance = statistics.fmean(_sigmoid(own[up] - own[down]) for own in self.members)
        other = statistics.fmean(_sigmoid(own[down] - own[up]) for own in self.members)
        return math.log(max(chance, 1e-300)) - math.log(max(other, 1e-300))

    def apart(self, up: int, down: int) -> float | None:
        """How far apart the members are about a gap, their standard deviation in log-odds; None for one model."""
        return statistics.pstdev(own[up] - own[down] for own in self.members) if self.members else None

    def __post_init__(self) -> None:
        if len(self.scores) != len(self.judgement.answers):
            raise ShapeError(
                f"prompt {self.judgement.prompt.id}: {len(self.scores)} scores for "
                f"{len(self.judgement.answers)} answers"
            )


class Pair(NamedTuple):
    """An answer that was ranked above another one."""

    prompt: str
    gap: float
    """Score of the better answer minus that of the worse."""
    better: int
    """Characters of the better answer."""
    worse: int
    apart: float | None = None
    """Standard deviation of the gap between the members of an ensemble."""

    @property
    def won(self) -> float:
        """1 if the scores order the pair as the judge did, 0 if they do not, 0.5 if they are equal."""
        return _half(self.gap)


def pairs_of(scored: Iterable[Scored]) -> list[Pair]:
    """Every pair that the judgements order; thumbs, comments, ties and an answer beside itself give none."""
    found = []
    for item in scored:
        ranks, answers = item.judgement.ranks() or (), item.judgement.answers
        for i, j in combinations(range(len(ranks)), 2):
            if ranks[i] != ranks[j] and answers[i] != answers[j]:
                up, down = (i, j) if ranks[i] < ranks[j] else (j, i)
                lengths = len(answers[up]), len(answers[down])
                found.append(Pair(item.judgement.prompt.id, item.gap(up, down), *lengths, item.apart(up, down)))
    return found


def against_themselves(scored: Iterable[Scored]) -> int:
    """How many pairs are left out because an answer is ranked above the very same words."""
    return sum(
        item.judgement.answers[i] == item.judgement.answers[j] and ranks[i] != ranks[j]
        for item in scored
        for ranks in [item.judgement.ranks() or ()]
        for i, j in combinations(range(len(ranks)), 2)
    )


def tied_gaps(scored: Iterable[Scored]) -> list[float]:
    """Score gaps of the pairs that a judge called equal. A choice of the best says nothing about the others."""
    return [
        item.gap(i, j)
        for item in scored
        if not isinstance(item.judgement.verdict, Choice)
        for ranks in [item.judgement.ranks() or ()]
        for i, j in combinations(range(len(ranks)), 2)
        if ranks[i] == ranks[j]
    ]


def wilson(share: float, count: float) -> tuple[float, float]:
    """The 95 % interval of a share of `count` independent cases; it is inside [0, 1] and never empty.

    Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953.
    """
    z2 = 1.96**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = 1.96 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def clustered_share(values: Sequence[float], clusters: Sequence[str]) -> Share:
    """The mean of values in [0, 1] with its 95 % interval, where values of one cluster hang together.

    The variance is that of a ratio over C clusters, C / (C - 1) * sum_c (sum of its deviations)^2 / n^2. The interval
    is Wilson's for the number of independent cases that would have this variance, at most n; where the variance is 0
    (all right, all wrong), for the number of clusters. Dean and Pagano 2015, https://doi.org/10.1093/jssam/smv024.

    Raises:
        ShapeError: there are no values, or not as many as clusters.
    """
    if len(values) != len(clusters) or not values:
        raise ShapeError(f"a share needs a cluster for each value, found {len(values)} and {len(clusters)}")
    rate = statistics.fmean(values)
    deviations: dict[str, float] = defaultdict(float)
    for value, cluster in zip(values, clusters, strict=True):
        deviations[cluster] += value - rate
    many = len(deviations)
    if many == 1:
        return Share(rate, wilson(rate, 1))
    variance = many / (many - 1) * sum(deviation**2 for deviation in deviations.values()) / len(values) ** 2
    cases = rate * (1 - rate) / variance if variance > 1e-12 else many
    return Share(rate, wilson(rate, min(max(cases, 1.0), len(values))))


def accuracy(pairs: Sequence[Pair]) -> dict[str, Any]:
    """The share of pairs that the scores order as the judge did, equal scores counting half.

    Returns:
        `pairs`, and where there are any `accuracy`, its 95 % `interval` over prompts, and `prompts`.
    """
    if not pairs:
        return {"pairs": 0}
    share = clustered_share([pair.won for pair in pairs], [pair.prompt for pair in pairs])
    prompts = len({pair.prompt for pair in pairs})
    return {"pairs": len(pairs), "prompts": prompts, "accuracy": share.value, "interval": list(share.interval)}


def used(scored: Iterable[Scored]) -> dict[str, Any]:
    """The accuracy of an ensemble's reward as it is used: by its members' mean, minimum or lower bound.

    The accuracy of `pairs_of` an ensemble is that of its members' mean chance, which no `combine` need agree with.

    Returns:
        As `accuracy`; nothing where there is one model, or no pair.
    """
    found = pairs_of(replace(item, scores=item.used, members=()) for item in scored if item.used)
    return accuracy(found) if found else {}


def disagreement(pairs: Iterable[Pair]) -> dict[str, float]:
    """How far the members of an ensemble are apart, in log-odds, where they are right and where they are wrong.

    Members that know what they do not know are further apart where they are wrong.

    Returns:
        `right` and `wrong`: the mean over such pairs, each where there are any; nothing where there is one model.
    """
    sides: dict[str, list[float]] = {"right": [], "wrong": []}
    for pair in pairs:
        if pair.apart is not None and pair.gap:
            sides["right" if pair.gap > 0 else "wrong"].append(pair.apart)
    return {side: statistics.fmean(found) for side, found in sides.items() if found}


def with_ties(pairs: Sequence[Pair], tied: Sequence[float]) -> dict[str, Any]:
    """Accuracy where ties count too: the scores call a pair equal if they differ by `threshold` at most.

    A tie is right if the scores call it equal, a pair if the better answer leads by more. The threshold is the one at
    which most are right on these very pairs, so the accuracy is a little too good. Deutsch, Foster and Freitag 2023,
    https://arxiv.org/abs/2305.14324, section 4.

    Returns:
        `pairs` (ties among them), `ties`, `accuracy`, `threshold` (-1 where it is best to call nothing equal),
        `always_tie` (what calling everything equal would reach); nothing where nobody called a tie.
    """
    if not tied:
        return {}
    steps: dict[float, int] = defaultdict(int)  # what is gained when the threshold reaches this gap
    for gap in tied:
        steps[abs(gap)] += 1
    for pair in pairs:
        if pair.gap > 0:
            steps[pair.gap] -= 1
    right = best = sum(pair.gap > 0 for pair in pairs)
    threshold = -1.0
    for gap in sorted(steps):
        right += steps[gap]
        if right > best:
            best, threshold = right, gap
    total = len(pairs) + len(tied)
    return {
        "pairs": total,
        "ties": len(tied),
        "accuracy": best / total,
        "threshold": threshold,
        "always_tie": len(tied) / total,
    }


def thumbs(scored: Iterable[Scored]) -> dict[str, Any]:
    """How often an answer with thumb up scores above one with thumb down, over all such couples (the AUC).

    Returns:
        `up`, `down` (how many), `accuracy` where there are both, and `signed`: how often the score is above 0 for a
        thumb up and below it for a thumb down, with its interval; nothing without thumbs.
    """
    sides: dict[bool, list[float]] = {True: [], False: []}
    right: list[float] = []
    prompts: list[str] = []
    for item in scored:
        if isinstance(item.judgement.verdict, Thumb):
            up, score = item.judgement.verdict.up, item.scores[0]
            sides[up].append(score)
            right.append(_half(score if up else -score))
            prompts.append(item.judgement.prompt.id)
    if not right:
        return {}
    share = clustered_share(right, prompts)
    found: dict[str, Any] = {"up": len(sides[True]), "down": len(sides[False])}
    found["signed"] = {"accuracy": share.value, "interval": list(share.interval)}
    if all(sides.values()):
        found["accuracy"] = _above(sides[True], sides[False])
    return found


def against_length(pairs: Sequence[Pair]) -> dict[str, Any]:
    """What counting characters alone would reach, and how accurate the scores are where that fails.

    Returns:
        `longer_wins`: accuracy of "the longer answer is better", equal lengths counting half; `prefers_longer`: share
        of the pairs of unlike length in which the longer answer scores higher; and the accuracy of the scores where
        the better answer is `longer`, `shorter`, or of `similar` length (within 10 %).
    """
    if not pairs:
        return {}
    unlike = [pair for pair in pairs if pair.better != pair.worse]
    found: dict[str, Any] = {"longer_wins": statistics.fmean(_half(pair.better - pair.worse) for pair in pairs)}
    if unlike:
        toward = [pair.won if pair.better > pair.worse else 1 - pair.won for pair in unlike]
        share = clustered_share(toward, [pair.prompt for pair in unlike])
        found |= {"prefers_longer": share.value, "prefers_longer_interval": list(share.interval)}
    similar = [p for p in pairs if abs(p.better - p.worse) <= SIMILAR * max(p.better, p.worse)]
    return found | {
        "longer": accuracy([pair for pair in pairs if pair.better > pair.worse]),
        "shorter": accuracy([pair for pair in pairs if pair.better < pair.worse]),
        "similar": accuracy(similar),
    }


def calibration(gaps: Sequence[float], bins: int = 10) -> dict[str, Any]:
    """How often the answer that the scores prefer is the better one, by how sure they are of it.

    The chance that a gap stands for is sigmoid(gap), the Bradley-Terry model. Bins are of equal width from 0.5 to 1.
    The error is the mean distance of chance and truth, bins weighted by their pairs: Guo et al. 2017, eq. 3,
    https://arxiv.org/abs/1706.04599.

    Returns:
        `expected_calibration_error`, `calibration` (for each bin with pairs: `predicted`, `observed`, `count`), `nats`
        (mean surprise a pair; a coin's is 0.693), and from `temperature` that number and what it would make of `nats`.
    """
    if not gaps:
        return {}
    cells: list[list[tuple[float, float]]] = [[] for _ in range(bins)]
    for gap in gaps:
        sure = 1 / (1 + math.exp(-min(abs(gap), 60.0)))
        cells[min(bins - 1, int((sure - 0.5) * 2 * bins))].append((sure, _half(gap)))
    table = [
        {
            "predicted": statistics.fmean(sure for sure, _ in cell),
            "observed": statistics.fmean(won for _, won in cell),
            "count": len(cell),
        }
        for cell in cells
        if cell
    ]
    error = sum(row["count"] * abs(row["predicted"] - row["observed"]) for row in table) / len(gaps)
    found = {"expected_calibration_error": error, "calibration": table, "nats": _nats(gaps, 1.0)}
    best = temperature(gaps)
    return found if best is None else found | {"temperature": best, "nats_at_temperature": _nats(gaps, 1 / best)}


def temperature(gaps: Sequence[float]) -> float | None:
    """The number to divide scores by so that sigmoid(gap / temperature) is the likeliest: over 1, they are too sure.

    The mean of softplus(-a gap) is convex in a = 1 / temperature, so its slope, -mean(gap sigmoid(-a gap)), has one
    zero at most; it is found by bisection. Guo et al. 2017, section 4.2, https://arxiv.org/abs/1706.04599.

    Returns:
        None where there is no such number: no pair is wrong, or no more are right than wrong in sum.
    """

    def slope(a: float) -> float:
        return -statistics.fmean(gap * _sigmoid(-a * gap) for gap in gaps)

    low, high = 1e-6, 1e6
    if not gaps or slope(low) >= 0 or slope(high) <= 0:
        return None
    for _ in range(100):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / math.sqrt(low * high)


def grouped(scored: Iterable[Scored], name: str) -> dict[str, dict[str, Any]]:
    """The accuracy for each value of a fact, in the order of the values; judgements without the fact are left out.

    Args:
        name: a fact of the rows, or `annotator`, `quality`, or `answers` for the number of answers judged.
    """
    parts: dict[str, list[Scored]] = defaultdict(list)
    for item in scored:
        one = item.judgement
        own = {"annotator": one.annotator, "quality": one.quality, "answers": str(len(one.answers))}
        value = own.get(name, item.facts.get(name))
        if value is not None:
            parts[value].append(item)
    found = {value: accuracy(pairs_of(parts[value])) for value in sorted(parts, key=_by_number)}
    return {value: measures for value, measures in found.items() if measures["pairs"]}


def agreement(scored: Iterable[Scored]) -> dict[str, Any]:
    """Where several people judged the same two answers: how far they agree, and the scores with their majority.

    Returns:
        `between_annotators`: the share of couples of judgements of one pair, ties left out, that order it alike, with
        its `interval`: no score can be expected to do much better on single judgements. `levels`: the accuracy against
        the majority where `all` agree and where only `most` do, over half or not. `undecided`: pairs whose majority is
        a tie or none. Nothing where no pair was judged twice.
    """
    votes, gaps = _votes(scored)
    several = {key: said for key, said in votes.items() if len(said) > 1}
    if not several:
        return {}
    alike: list[float] = []
    prompts: list[str] = []
    levels: dict[str, list[Pair]] = defaultdict(list)
    undecided = 0
    for key, said in several.items():
        couples = [float(a == b) for a, b in combinations(said, 2) if a and b]
        alike += couples
        prompts += [key[0]] * len(couples)
        (top, most), *rest = Counter(said).most_common()
        if top == 0 or (rest and rest[0][1] == most):
            undecided += 1
        else:
            levels["all" if most == len(said) else "most"].append(
                Pair(key[0], top * gaps[key], len(key[1]), len(key[2]))
            )
    found: dict[str, Any] = {"pairs": len(several), "undecided": undecided}
    if alike:
        share = clustered_share(alike, prompts)
        found |= {"between_annotators": share.value, "interval": list(share.interval)}
    return found | {"levels": {level: accuracy(levels[level]) for level in sorted(levels)}}


def _by_number(text: str) -> tuple[object, ...]:
    """Sorts annotator-10 behind annotator-9."""
    return tuple((part.isdecimal(), int(part) if part.isdecimal() else part) for part in re.split(r"(\d+)", text))


_Key = tuple[str, str, str, str | None]
"""A prompt's id, two answers, sorted, and the quality that was judged."""


def _votes(scored: Iterable[Scored]) -> tuple[dict[_Key, list[int]], dict[_Key, float]]:
    """What was said of each two answers (1 the first is better, -1 the second, 0 a tie), and their score gap."""
    votes: dict[_Key, list[int]] = defaultdict(list)
    gaps: dict[_Key, float] = {}
    for item in scored:
        for i, j, said in _said(item.judgement):
            first, second = item.judgement.answers[i], item.judgement.answers[j]
            if first == second:
                continue
            turn = 1 if first < second else -1
            key = (item.judgement.prompt.id, min(first, second), max(first, second), item.judgement.quality)
            votes[key].append(turn * said)
            gaps[key] = turn * item.gap(i, j)
    return votes, gaps


def _said(judgement: Judgement) -> Iterator[tuple[int, int, int]]:
    ranks = judgement.ranks() or ()
    for i, j in combinations(range(len(ranks)), 2):
        if ranks[i] != ranks[j] or not isinstance(judgement.verdict, Choice):
            yield i, j, (ranks[i] < ranks[j]) - (ranks[i] > ranks[j])


def _above(ups: Sequence[float], downs: Sequence[float]) -> float:
    """How often a number of the one kind is above one of the other, of all couples; equal ones count half."""
    order = sorted(downs)
    below = sum(bisect_left(order, up) + bisect_right(order, up) for up in ups)
    return below / (2 * len(ups) * len(downs))


def _half(gap: float) -> float:
    return 0.5 if gap == 0 else float(gap > 0)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def _nats(gaps: Sequence[float], sharpness: float) -> float:
    """The mean of softplus(-sharpness gap)."""
    return statistics.fmean(max(0.0, -sharpness * gap) + math.log1p(math.exp(-abs(sharpness * gap))) for gap in gaps)
