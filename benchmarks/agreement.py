"""Of scores and what people said: how often they agree, with an interval, against length alone and against a peer.

A judgement's share of right pairs is averaged over the seeds, and the 95 % interval covers both what these judgements
and what these seeds happened to be; `tests/test_agreement.py` simulates how often.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from plaudit.records import Judgement, Thumb

Scored = Sequence[float]
"""The scores of one judgement's answers."""


def pairs(judgement: Judgement) -> list[tuple[int, int]]:
    """The pairs (better, worse) that a judgement orders."""
    ranks = judgement.ranks() or ()
    return [(i, j) for i, here in enumerate(ranks) for j, there in enumerate(ranks) if here < there]


def right(judgement: Judgement, scores: Scored) -> tuple[float, int]:
    """Cases that the scores have as the judgement does, a draw one half; and all of its cases."""
    if isinstance(judgement.verdict, Thumb):
        return (0.5 if scores[0] == 0 else float((scores[0] > 0) == judgement.verdict.up)), 1
    ordered = pairs(judgement)
    return sum(0.5 if scores[i] == scores[j] else float(scores[i] > scores[j]) for i, j in ordered), len(ordered)


def summary(judgements: Sequence[Judgement], scores: Sequence[Sequence[Scored]]) -> dict[str, Any]:
    """Accuracy with its interval, and what length alone reaches."""
    won = [[right(one, own)[0] for one, own in zip(judgements, seed, strict=True)] for seed in scores]
    accuracy, error, by_seed = mean_of(judgements, won)
    length = length_alone(judgements)
    return {
        "cases": sum(right(one, [0.0] * len(one.answers))[1] for one in judgements),
        "accuracy": round(accuracy, 4),
        "interval": [round(accuracy - error, 4), round(accuracy + error, 4)],
        "accuracy_by_seed": [round(share, 4) for share in by_seed],
        "length_alone": round(length, 4),
        "beats_length": accuracy - error > length,
    }


def difference(
    judgements: Sequence[Judgement], ours: Sequence[Sequence[Scored]], theirs: Sequence[Sequence[Scored]]
) -> dict[str, Any]:
    """How much more accurate ours are, judgement by judgement and seed by seed, with its interval; in points."""
    more = [
        [right(one, own)[0] - right(one, other)[0] for one, own, other in zip(judgements, mine, yours, strict=True)]
        for mine, yours in zip(ours, theirs, strict=True)
    ]
    mean, error, by_seed = mean_of(judgements, more)
    return {
        "points": round(100 * mean, 2),
        "interval": [round(100 * (mean - error), 2), round(100 * (mean + error), 2)],
        "points_by_seed": [round(100 * share, 2) for share in by_seed],
    }


def mean_of(judgements: Sequence[Judgement], won: Sequence[Sequence[float]]) -> tuple[float, float, list[float]]:
    """What was won per case: the mean, half the width of its 95 % interval, and the mean of each seed.

    Judgements and seeds are crossed: each seed scores every judgement. With M judgements and S seeds, the variance of
    the mean over judgements holds that of the judgements and an S-th of what is of both together, the variance over
    seeds that of the seeds and an M-th of it; that last part stands in both and counts once. Two-way random effects,
    as in Owen 2007, https://doi.org/10.1214/07-AOAS122. One seed says nothing about seeds.
    """
    counts = [right(one, [0.0] * len(one.answers))[1] for one in judgements]
    total, seeds = sum(counts), len(won)
    by_seed = [sum(seed) / total for seed in won]
    mean = statistics.fmean(by_seed)
    own = [statistics.fmean(seed[i] for seed in won) - mean * count for i, count in enumerate(counts)]
    of_judgements = sum(one**2 for one in own) / total**2
    if seeds == 1:
        return mean, 1.96 * math.sqrt(of_judgements), by_seed
    of_seeds = statistics.variance(by_seed) / seeds
    left = [
        seed[i] - share * count - own[i]
        for seed, share in zip(won, by_seed, strict=True)
        for i, count in enumerate(counts)
    ]
    of_both = sum(one**2 for one in left) / ((seeds - 1) * seeds * total**2)
    return mean, 1.96 * math.sqrt(max(of_judgements + of_seeds - of_both, of_judgements, of_seeds)), by_seed


def length_alone(judgements: Sequence[Judgement]) -> float:
    """The better of "longer wins" and "shorter wins"; for thumbs, the best cut by characters, the better way round."""
    thumbs = sorted((len(one.answers[0]), one.verdict.up) for one in judgements if isinstance(one.verdict, Thumb))
    if len(thumbs) < len(judgements):
        shares = [right(one, [float(len(answer)) for answer in one.answers]) for one in judgements if pairs(one)]
        longer = sum(won for won, _ in shares) / sum(count for _, count in shares)
        return max(longer, 1 - longer)
    ups = [up for _, up in thumbs]
    below = [sum(ups[:cut]) + (len(ups) - cut) - sum(ups[cut:]) for cut in range(len(ups) + 1)]  # short ones are up
    return max(max(below), len(ups) - min(below)) / len(ups)


def quarters(judgements: Sequence[Judgement], scores: Sequence[Sequence[Scored]]) -> list[dict[str, Any]]:
    """Inside each quarter of the answers by length: accuracy, that of always saying the same, and the AUC."""
    found = []
    order = sorted(range(len(judgements)), key=lambda i: len(judgements[i].answers[0]))
    for q in range(4):
        mine = order[q * len(order) // 4 : (q + 1) * len(order) // 4]
        ups = [thumb_of(judgements[i]) for i in mine]
        shares = [[right(judgements[i], seed[i])[0] for i in mine] for seed in scores]
        aucs = [auc([(seed[i][0], up) for i, up in zip(mine, ups, strict=True)]) for seed in scores]
        area = statistics.fmean(aucs)
        error = 1.96 * auc_error(area, sum(ups), len(ups) - sum(ups))
        found.append(
            {
                "characters": [len(judgements[mine[0]].answers[0]), len(judgements[mine[-1]].answers[0])],
                "judgements": len(mine),
                "accuracy": round(statistics.fmean(statistics.fmean(seed) for seed in shares), 4),
                "always_the_same": round(max(sum(ups), len(ups) - sum(ups)) / len(ups), 4),
                "auc": round(area, 4),
                "auc_interval": [round(area - error, 4), round(area + error, 4)],
            }
        )
    return found


def thumb_of(judgement: Judgement) -> bool:
    assert isinstance(judgement.verdict, Thumb)
    return judgement.verdict.up


def auc(scored: Sequence[tuple[float, bool]]) -> float:
    """How often an up scores above a down."""
    ups, downs = ([score for score, up in scored if up is side] for side in (True, False))
    return statistics.fmean(0.5 if u == d else float(u > d) for u in ups for d in downs)


def auc_error(area: float, ups: int, downs: int) -> float:
    """Its standard error: Hanley and McNeil 1982, https://doi.org/10.1148/radiology.143.1.7063747."""
    above, below = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (ups - 1) * (above - area**2) + (downs - 1) * (below - area**2)
    return math.sqrt(spread / (ups * downs))
