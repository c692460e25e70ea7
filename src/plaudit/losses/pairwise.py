"""Learning a reward from what people prefer: Bradley-Terry over pairs, and over K ranked answers.

    B answers, those of all judgements after one another   M ordered pairs   J judgements

Each answer is scored once; all pairs of a judgement are made from its K scores. Only differences of scores within one
judgement matter, so a reward is known up to a constant per prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from plaudit.errors import ShapeError
from plaudit.shapes import check_same_shape

__all__ = ["PairIndex", "bradley_terry_loss", "pairs_of_ranks", "pairwise_ranking_loss"]


class PairIndex(NamedTuple):
    """Which answer beats which, for a batch of judgements."""

    better_M: Tensor
    """[M] position in the flat batch of the answer that won."""
    worse_M: Tensor
    """[M] position of the answer that lost."""
    weight_M: Tensor
    """[M] float64: 1 / number of ordered pairs of the same judgement, so that each judgement weighs 1."""
    judgement_M: Tensor
    """[M] which judgement said so, counted from 0."""
    answers: int
    """B: answers of all judgements."""
    judgements: int
    """J: judgements, those in which everything is tied included."""
    ordered: int
    """Judgements with at least one ordered pair: the denominator of the mean loss."""


def bradley_terry_loss(better_M: Tensor, worse_M: Tensor) -> Tensor:
    """How surprised a reward model is that `better` won, in nats, per comparison.

        loss_m = -log sigmoid(better_m - worse_m)

    Ouyang et al. 2022, eq. 1, https://arxiv.org/abs/2203.02155 (their weight 1 / (K choose 2) is
    `pairwise_ranking_loss`'s); Bradley and Terry 1952, https://doi.org/10.2307/2334029.

    Args:
        better_M: [M] scores of the preferred answers, in log-odds.
        worse_M: [M] scores of the other answers to the same prompts.

    Returns:
        [M] losses, log 2 at equal scores. Gradient flows into both arguments, -sigmoid(worse - better) into `better_M`
        and the opposite into `worse_M`.

    Raises:
        ShapeError: the two shapes differ.
    """
    check_same_shape(better_M=better_M, worse_M=worse_M)
    return -F.logsigmoid(better_M - worse_M)


def pairs_of_ranks(ranks: Sequence[Sequence[int]]) -> PairIndex:
    """All ordered pairs of a batch of rankings, as positions in one flat batch of answers.

    The answers of judgement 0 come first, then those of judgement 1, and so on; K may differ. A pair of tied answers
    is left out and the mean goes over the ordered pairs that remain; a judgement in which everything is tied (or
    only one answer was judged) has no pair and adds nothing to the loss nor to its denominator.

    Args:
        ranks: for each judgement the rank of each of its answers, in the answers' order. 1 is best, equal ranks tie.

    Returns:
        Indices on the CPU. `[[2, 1, 2]]` gives the pairs (1 beats 0) and (1 beats 2), each of weight 1/2.

    Raises:
        ShapeError: a judgement has no answer.
    """
    better: list[int] = []
    worse: list[int] = []
    weight: list[float] = []
    judgement: list[int] = []
    start = ordered = 0
    for j, given in enumerate(ranks):
        if not given:
            raise ShapeError(f"judgement {j} ranks no answer")
        pairs = [
            (a, b) if given[a] < given[b] else (b, a)
            for a, b in combinations(range(len(given)), 2)
            if given[a] != given[b]
        ]
        better += [start + a for a, _ in pairs]
        worse += [start + b for _, b in pairs]
        weight += [1 / len(pairs)] * len(pairs) if pairs else []
        judgement += [j] * len(pairs)
        start += len(given)
        ordered += bool(pairs)
    return PairIndex(
        better_M=torch.tensor(better, dtype=torch.long),
        worse_M=torch.tensor(worse, dtype=torch.long),
        weight_M=torch.tensor(weight, dtype=torch.float64),
        judgement_M=torch.tensor(judgement, dtype=torch.long),
        answers=start,
        judgements=len(ranks),
        ordered=ordered,
    )


def pairwise_ranking_loss(score_B: Tensor, pairs: PairIndex) -> Tensor:
    """The mean Bradley-Terry loss over the ordered pairs of each judgement, in nats, from one score per answer.

        loss_j = (1 / |pairs_j|) sum over pairs (w, l) of j of -log sigmoid(score_w - score_l)

    Without ties |pairs_j| = K_j (K_j - 1) / 2, which is eq. 1 of Ouyang et al. 2022, https://arxiv.org/abs/2203.02155.
    The mean over a batch is `loss_J.sum() / pairs.ordered`; over micro-batches, sum both first.

    Args:
        score_B: [B] one score per answer, in the order in which `pairs_of_ranks` got the ranks.
        pairs: from `pairs_of_ranks`; moved to the scores' device.

    Returns:
        [J] losses, 0 for a judgement without an ordered pair. Gradient flows into `score_B`; the gradients of the
        answers of one judgement add up to 0.

    Raises:
        ShapeError: `score_B` is not one score for each of the pairs' answers.
    """
    if score_B.shape != (pairs.answers,):
        raise ShapeError(
            f"score_B {tuple(score_B.shape)} must hold one score for each of {pairs.answers} judged answers"
        )
    device = score_B.device
    loss_M = bradley_terry_loss(score_B[pairs.better_M.to(device)], score_B[pairs.worse_M.to(device)])
    weight_M = pairs.weight_M.to(score_B.dtype).to(device)
    return score_B.new_zeros(pairs.judgements).index_add(0, pairs.judgement_M.to(device), loss_M * weight_M)
