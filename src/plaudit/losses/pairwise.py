"""Learning a reward from what people prefer: Bradley-Terry over pairs, with ties, and over K ranked answers.

    B answers, those of all judgements after one another   M pairs   J judgements

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

__all__ = ["PairIndex", "bradley_terry_loss", "davidson_loss", "pairs_of_ranks", "pairwise_ranking_loss", "tie_loss"]


class PairIndex(NamedTuple):
    """Which answer beats which, and which are tied, for a batch of judgements."""

    better_M: Tensor
    """[M] position in the flat batch of the answer that won, or of the first of two that are tied."""
    worse_M: Tensor
    """[M] position of the answer that lost, or of the second of two that are tied."""
    tie_M: Tensor
    """[M] bool: nobody won; all False where ties are left out."""
    weight_M: Tensor
    """[M] float64: 1 / number of pairs of the same judgement, so that each judgement weighs 1."""
    judgement_M: Tensor
    """[M] which judgement said so, counted from 0."""
    answers: int
    """B: answers of all judgements."""
    judgements: int
    """J: judgements, those without a pair included."""
    paired: int
    """Judgements with at least one pair: the denominator of the mean loss."""


def bradley_terry_loss(better_M: Tensor, worse_M: Tensor) -> Tensor:
    """How surprised a reward model is that `better` won, in nats, per comparison.

        loss_m = -log sigmoid(better_m - worse_m)

    Ouyang et al. 2022, eq. 1, https://arxiv.org/abs/2203.02155 (their weight 1 / (K choose 2) is
    `pairwise_ranking_loss`'s); Bradley and Terry 1952, https://doi.org/10.2307/2334029. A margin, the difference of
    scores that is demanded of the winner (Touvron et al. 2023, eq. 2, https://arxiv.org/abs/2307.09288), is subtracted
    from `better_M` by the caller.

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


def davidson_loss(better_M: Tensor, worse_M: Tensor, tie: Tensor) -> Tensor:
    """How surprised a reward model that knows of ties is that `better` won, in nats, per comparison.

        P(better wins) = e^(d/2) / (e^(d/2) + e^(-d/2) + e^tie),   d = better - worse
        P(tied)        = e^tie   / (e^(d/2) + e^(-d/2) + e^tie)

    Davidson 1970, https://doi.org/10.1080/01621459.1970.10481082, with his nu = e^tie and worths e^score. Given that
    somebody won, it is Bradley-Terry; as `tie` falls to -inf it is `bradley_terry_loss`.

    Args:
        better_M: [M] scores of the preferred answers, in log-odds.
        worse_M: [M] scores of the other answers to the same prompts.
        tie: scalar, learned: between equal answers, ties are e^tie times as frequent as wins of one of them.

    Returns:
        [M] losses. Gradient flows into all three.

    Raises:
        ShapeError: the two shapes differ, or `tie` is not a scalar.
    """
    half_M = _half_gap(better_M, worse_M, tie)
    return _log_outcomes(half_M, tie) - half_M


def tie_loss(first_M: Tensor, second_M: Tensor, tie: Tensor) -> Tensor:
    """How surprised the model of `davidson_loss` is that nobody won, in nats, per comparison.

        loss_m = -log P(tied) = log(e^(d/2) + e^(-d/2) + e^tie) - tie

    Takes and raises what `davidson_loss` does; which of the two answers comes first makes no difference.
    """
    return _log_outcomes(_half_gap(first_M, second_M, tie), tie) - tie


def _half_gap(first_M: Tensor, second_M: Tensor, tie: Tensor) -> Tensor:
    check_same_shape(better_M=first_M, worse_M=second_M)
    if tie.dim():
        raise ShapeError(f"tie must be a scalar, found the shape {tuple(tie.shape)}")
    return (first_M - second_M) / 2


def _log_outcomes(half_M: Tensor, tie: Tensor) -> Tensor:
    """[M] log of the sum that turns the three outcomes into probabilities."""
    return torch.stack([half_M, -half_M, tie.to(half_M.dtype).expand_as(half_M)]).logsumexp(0)


def pairs_of_ranks(ranks: Sequence[Sequence[int]], *, ties: bool = False) -> PairIndex:
    """All pairs of a batch of rankings, as positions in one flat batch of answers.

    The answers of judgement 0 come first, then those of judgement 1, and so on; K may differ. Where ties are left out,
    the mean goes over the ordered pairs that remain, and a judgement in which everything is tied has no pair: it adds
    nothing to the loss nor to its denominator. Nor does a judgement of one answer.

    Args:
        ranks: for each judgement the rank of each of its answers, in the answers' order. 1 is best, equal ranks tie.
        ties: keep the tied pairs, for a loss that knows of ties.

    Returns:
        Indices on the CPU. `[[2, 1, 2]]` gives the pairs (1 beats 0) and (1 beats 2), each of weight 1/2; with ties
        also (0, 2), and each weighs 1/3.

    Raises:
        ShapeError: a judgement has no answer.
    """
    found: list[tuple[int, int, bool, float, int]] = []
    start = paired = 0
    for j, given in enumerate(ranks):
        if not given:
            raise ShapeError(f"judgement {j} ranks no answer")
        pairs = [
            (a, b) if given[a] <= given[b] else (b, a)
            for a, b in combinations(range(len(given)), 2)
            if ties or given[a] != given[b]
        ]
        found += [(start + a, start + b, given[a] == given[b], 1 / len(pairs), j) for a, b in pairs]
        start += len(given)
        paired += bool(pairs)
    better, worse, tied, weight, judgement = zip(*found, strict=True) if found else ((), (), (), (), ())
    return PairIndex(
        better_M=torch.tensor(better, dtype=torch.long),
        worse_M=torch.tensor(worse, dtype=torch.long),
        tie_M=torch.tensor(tied, dtype=torch.bool),
        weight_M=torch.tensor(weight, dtype=torch.float64),
        judgement_M=torch.tensor(judgement, dtype=torch.long),
        answers=start,
        judgements=len(ranks),
        paired=paired,
    )


def pairwise_ranking_loss(
    score_B: Tensor,
    pairs: PairIndex,
    *,
    tie: Tensor | None = None,
    margin_J: Tensor | None = None,
    sure_J: Tensor | None = None,
) -> Tensor:
    """The mean loss over the pairs of each judgement, in nats, from one score per answer.

        loss_j = (1 / |pairs_j|) sum over pairs (w, l) of j of
                 sure_j * loss(score_w - margin_j, score_l) + (1 - sure_j) * loss(score_l - margin_j, score_w)

    where `loss` is Bradley-Terry's, or Davidson's where a tie parameter is given; a tied pair has `tie_loss`, without
    margin or doubt. With neither margin nor doubt nor ties, |pairs_j| = K_j (K_j - 1) / 2, and this is eq. 1 of Ouyang
    et al. 2022, https://arxiv.org/abs/2203.02155. The mean over a batch is `loss_J.sum() / pairs.paired`; over
    micro-batches, sum both first.

    Args:
        score_B: [B] one score per answer, in the order in which `pairs_of_ranks` got the ranks.
        pairs: from `pairs_of_ranks`; moved to the scores' device.
        tie: scalar, for pairs made with ties.
        margin_J: [J] how much higher the winner's score must be before the loss falls under log 2; 0 when not given.
        sure_J: [J] P(the stated order is right): 1 less the label smoothing, or the share of people who said so; 1
            when not given.

    Returns:
        [J] losses, 0 for a judgement without a pair. Gradient flows into `score_B` and `tie`; the gradients of the
        answers of one judgement add up to 0.

    Raises:
        ShapeError: `score_B` is not one score for each of the pairs' answers, there are tied pairs but no `tie`, or
            another argument is not one number per judgement.
    """
    if score_B.shape != (pairs.answers,):
        raise ShapeError(
            f"score_B {tuple(score_B.shape)} must hold one score for each of {pairs.answers} judged answers"
        )
    if tie is None and bool(pairs.tie_M.any()):
        raise ShapeError("these pairs hold ties: give the tie parameter, or make them without ties")
    device = score_B.device
    judgement_M = pairs.judgement_M.to(device)
    better_M, worse_M = score_B[pairs.better_M.to(device)], score_B[pairs.worse_M.to(device)]

    def of_pairs(name: str, value_J: Tensor | None) -> Tensor | None:
        if value_J is None:
            return None
        if value_J.shape != (pairs.judgements,):
            raise ShapeError(f"{name} {tuple(value_J.shape)} must hold one number per judgement ({pairs.judgements})")
        return value_J.to(device, score_B.dtype)[judgement_M]

    margin_M, sure_M = of_pairs("margin_J", margin_J), of_pairs("sure_J", sure_J)

    def won(one_M: Tensor, other_M: Tensor) -> Tensor:
        one_M = one_M if margin_M is None else one_M - margin_M
        return bradley_terry_loss(one_M, other_M) if tie is None else davidson_loss(one_M, other_M, tie)

    loss_M = won(better_M, worse_M)
    if sure_M is not None:
        loss_M = sure_M * loss_M + (1 - sure_M) * won(worse_M, better_M)
    if tie is not None:
        loss_M = torch.where(pairs.tie_M.to(device), tie_loss(better_M, worse_M, tie), loss_M)
    weight_M = pairs.weight_M.to(device, score_B.dtype)
    return score_B.new_zeros(pairs.judgements).index_add(0, judgement_M, loss_M * weight_M)
