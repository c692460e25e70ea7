"""What the best of n answers is worth: scores against the number of answers drawn, and how far that moves a policy."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any

from plaudit.errors import ShapeError
from plaudit.records import Group
from plaudit.scorers import Scorer

__all__ = ["best_answers", "best_of_n", "best_of_n_curve", "best_of_n_kl"]


def best_answers(groups: Sequence[Group], scorer: Scorer) -> list[Group]:
    """Each group with that answer alone which scores highest, the first of those that are equal.

    Raises:
        NumberError: a score is not finite.
    """
    scores = scorer.score(groups)
    scores.check(groups)
    best = [max(range(len(row)), key=row.__getitem__) for row in scores.value_PG]
    return [dataclasses.replace(group, answers=(group.answers[k],)) for group, k in zip(groups, best, strict=True)]


def best_of_n(scores: Sequence[float], values: Sequence[float], n: int) -> float:
    """The expected value of that answer which scores highest among n, drawn without replacement from all N.

        sum over ranks i = n..N, lowest score first, of  C(i - 1, n - 1) / C(N, n) * value_i

    It is unbiased for n fresh answers: every subset of n is as likely. Nakano et al. 2021, appendix I,
    https://arxiv.org/abs/2112.09332. Answers with equal scores share the mean of their values, so that their order
    does not matter.

    Args:
        scores: [N] what the answers are chosen by.
        values: [N] what they are worth: the same scores, or a gold score.
        n: answers drawn, 1 to N.

    Raises:
        ShapeError: n is out of range, or there is not one value for each score.
    """
    total = len(scores)
    if len(values) != total or not 1 <= n <= total:
        raise ShapeError(f"the best of {n} needs as many scores and a value for each, found {total} and {len(values)}")
    shared: dict[float, list[float]] = {}
    for score, value in zip(scores, values, strict=True):
        shared.setdefault(score, []).append(value)
    subsets = math.comb(total, n)
    return sum(
        math.comb(i, n - 1) / subsets * statistics.fmean(shared[score])
        for i, score in enumerate(sorted(scores))
        if i >= n - 1
    )


def best_of_n_kl(n: int) -> float:
    """KL in nats from the policy to its best of n: log n - (n - 1) / n.

    Stiennon et al. 2020, appendix G.3, https://arxiv.org/abs/2009.01325. It is exact for scores without ties, and
    otherwise an upper bound: Beirami et al. 2024, theorem 1, https://arxiv.org/abs/2401.01879.
    """
    return math.log(n) - (n - 1) / n


def best_of_n_curve(
    scores_PN: Sequence[Sequence[float]], values_PN: Sequence[Sequence[float]] | None = None
) -> list[dict[str, Any]]:
    """Mean over prompts of the best of n = 1, 2, 4, ... answers, as far as the prompt with fewest answers goes.

    Args:
        scores_PN: for each prompt the scores of its answers; N may differ.
        values_PN: what the answers are worth by another scale, such as a world's gold.

    Returns:
        For each n: `n`, `kl` (nats), `score` with its 95 % `interval` over prompts, and `gold`, `gold_interval` where
        there are values. Nothing where a prompt has fewer than two answers.
    """
    most = min((len(scores) for scores in scores_PN), default=0)
    rows = []
    for n in (2**power for power in range(most.bit_length())) if most > 1 else ():
        mean, interval = _mean([best_of_n(scores, scores, n) for scores in scores_PN])
        row: dict[str, Any] = {"n": n, "kl": best_of_n_kl(n), "score": mean, "interval": interval}
        if values_PN is not None:
            pairs = zip(scores_PN, values_PN, strict=True)
            row["gold"], row["gold_interval"] = _mean([best_of_n(scores, values, n) for scores, values in pairs])
        rows.append(row)
    return rows


def _mean(values: Sequence[float]) -> tuple[float, list[float]]:
    mean = statistics.fmean(values)
    error = 1.96 * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return mean, [mean - error, mean + error]
