"""Learning a reward from K answers at once: the choice of the best, and whole rankings.

    B answers, those of all judgements after one another   J judgements   K answers of the largest judgement

Both are the model of Luce 1959 (https://doi.org/10.1037/14396-000): out of what is left, an answer is picked with
a probability proportional to e^score. As in `losses.pairwise`, a reward is known up to a constant per prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations

import torch
from torch import Tensor

from plaudit.errors import ShapeError

__all__ = ["LARGEST_TIE", "choice_loss", "plackett_luce_loss"]

LARGEST_TIE = 10
"""Answers that may share one rank (other than the last) in `plackett_luce_loss`, whose work doubles with each."""


def choice_loss(score_B: Tensor, best: Sequence[int], sizes: Sequence[int], *, sure_J: Tensor | None = None) -> Tensor:
    """How surprised a reward model is by which of K answers was chosen, in nats, per judgement.

        loss_j = -log softmax(score_j)[best_j]

    the loss of Ziegler et al. 2019, eq. 1, https://arxiv.org/abs/1909.08593, for which K may differ by judgement; its
    gradient is -(grad score_best - sum over k of softmax(score)_k grad score_k). At K = 2 it is `bradley_terry_loss`.

    Args:
        score_B: [B] one score per answer, judgement after judgement.
        best: for each judgement, which of its answers was chosen, counted from 0.
        sizes: K of each judgement.
        sure_J: [J] P(the choice is right): 1 less the label smoothing, which is spread evenly over the other K - 1
            answers; 1 when not given.

    Returns:
        [J] losses, log K at equal scores. Gradient flows into `score_B`.

    Raises:
        ShapeError: the sizes do not add up to the scores, or a choice is not among its answers.
    """
    wrong = [f"{b} of {k}" for b, k in zip(best, sizes, strict=True) if not 0 <= b < k]
    if wrong:
        raise ShapeError(f"the best answer must be one of the K answers, counted from 0; found {', '.join(wrong[:3])}")
    score_JK, there_JK = _rows(score_B, sizes)
    logp_JK = score_JK.masked_fill(~there_JK, -torch.inf).log_softmax(1).masked_fill(~there_JK, 0.0)
    best_J = torch.tensor(list(best), device=score_B.device)
    chosen_J = logp_JK.gather(1, best_J[:, None]).squeeze(1)
    if sure_J is None:
        return -chosen_J
    others_J = (torch.tensor(list(sizes), device=score_B.device) - 1).clamp(min=1)
    sure_J = sure_J.to(score_B)
    return -sure_J * chosen_J - (1 - sure_J) * (logp_JK.sum(1) - chosen_J) / others_J


def plackett_luce_loss(score_B: Tensor, ranks: Sequence[Sequence[int]]) -> Tensor:
    """How surprised a reward model is by a whole ranking, in nats, per judgement.

        P(ranking) = product over places k of e^score_k / sum over those not yet placed of e^score

    Plackett 1975, https://doi.org/10.2307/2346567; ListMLE (Xia et al. 2008, https://doi.org/10.1145/1390156.1390306).
    The first factor is `choice_loss`'s, the last is 1.

    Tied answers are taken as answers whose order nobody stated: their probability is the sum over all their orders.
    So ranks 1, 2, 2, 2 are `choice_loss` exactly, and a judgement in which everything is tied has loss 0.

    Args:
        score_B: [B] one score per answer, judgement after judgement.
        ranks: for each judgement the rank of each of its answers; 1 is best, equal ranks tie.

    Returns:
        [J] losses. Gradient flows into `score_B`; the gradients of the answers of one judgement add up to 0.

    Raises:
        ShapeError: the ranks are not one for each score, or more than `LARGEST_TIE` answers share a rank above the
            last one (`pairwise_ranking_loss` takes such rankings).
    """
    sizes = [len(given) for given in ranks]
    score_JK, there_JK = _rows(score_B, sizes)
    rank_JK = torch.zeros(there_JK.shape, dtype=torch.long)
    rank_JK[there_JK.cpu()] = torch.tensor([rank for given in ranks for rank in given], dtype=torch.long)
    rank_JK = rank_JK.to(score_B.device)
    same_JKK = (rank_JK[:, :, None] == rank_JK[:, None, :]) & there_JK[:, None, :]
    left_JKK = (rank_JK[:, None, :] >= rank_JK[:, :, None]) & there_JK[:, None, :]
    left_JKK = left_JKK | torch.eye(score_JK.shape[1], dtype=torch.bool, device=score_B.device)  # padding sees itself
    left_JK = score_JK[:, None, :].expand(left_JKK.shape).masked_fill(~left_JKK, -torch.inf).logsumexp(2)
    alone_JK = there_JK & (same_JKK.sum(2) == 1)
    loss_J = (left_JK - score_JK).masked_fill(~alone_JK, 0.0).sum(1)
    for size, tied in _tied(ranks).items():
        at_J = torch.tensor([j for j, _, _ in tied], device=score_B.device)
        members_JG = torch.tensor([members for _, _, members in tied], device=score_B.device)
        rank_J1 = torch.tensor([[rank] for _, rank, _ in tied], device=score_B.device)
        behind_JK = there_JK[at_J] & (rank_JK[at_J] > rank_J1)
        rest_J = score_JK[at_J].masked_fill(~behind_JK, -torch.inf).logsumexp(1)
        first_J = _log_picked_first(score_JK[at_J].gather(1, members_JG), rest_J, size)
        loss_J = loss_J.index_add(0, at_J, -first_J)
    return loss_J


def _rows(score_B: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """[J, K] scores, 0 behind a judgement's end, and which places hold an answer."""
    if score_B.shape != (sum(sizes),) or not all(sizes):
        raise ShapeError(
            f"score_B {tuple(score_B.shape)} must hold one score for each of {sum(sizes)} answers, and every "
            f"judgement one answer or more; found the sizes {list(sizes)[:20]}"
        )
    size_J = torch.tensor(list(sizes), dtype=torch.long, device=score_B.device)
    there_JK = torch.arange(max(sizes, default=0), device=score_B.device) < size_J[:, None]
    return score_B.new_zeros(there_JK.shape).masked_scatter(there_JK, score_B), there_JK


def _tied(ranks: Sequence[Sequence[int]]) -> dict[int, list[tuple[int, int, list[int]]]]:
    """By how many they are: the answers that share a rank, as (judgement, rank, answers).

    Not those who share the last one: what is left at the end comes in any order, with probability 1.
    """
    found: dict[int, list[tuple[int, int, list[int]]]] = {}
    for j, given in enumerate(ranks):
        for rank in sorted(set(given) - {max(given)}):
            members = [k for k, own in enumerate(given) if own == rank]
            if len(members) > LARGEST_TIE:
                raise ShapeError(
                    f"judgement {j}: {len(members)} answers share the rank {rank}; up to {LARGEST_TIE} can. Take the "
                    "pairwise loss for such rankings"
                )
            if len(members) > 1:
                found.setdefault(len(members), []).append((j, rank, members))
    return found


def _log_picked_first(score_JG: Tensor, rest_J: Tensor, size: int) -> Tensor:
    """[J] log-probability that, one by one, exactly these answers are picked before any of the rest, in any order.

    By how the set fills up: P(S) = sum over the answer i of S that came last of P(S without i) e^score_i / what was
    left then.
    """
    filled_JS = score_JG.new_zeros(len(score_JG), 1)  # log P of every set of one size; the first one is empty
    for member_SN, before_SN, out_SG in _fillings(size):
        out_SG = out_SG.to(score_JG.device)
        # what was left before the last pick: the rest, and all of the group that was not in the smaller set
        inside_JS = score_JG[:, None, :].expand(-1, *out_SG.shape).masked_fill(~out_SG, -torch.inf).logsumexp(2)
        open_JS = filled_JS - torch.logaddexp(inside_JS, rest_J[:, None])
        member_SN, before_SN = member_SN.to(score_JG.device), before_SN.to(score_JG.device)
        filled_JS = (open_JS[:, before_SN] + score_JG[:, member_SN]).logsumexp(2)
    return filled_JS.squeeze(1)


@lru_cache(maxsize=16)
def _fillings(count: int) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
    """For each size n of a set out of `count`: its members, the sets of size n - 1 without each, who is out of those.

    [sets of size n, n], [sets of size n, n] and [sets of size n - 1, count] (bool).
    """
    steps = []
    for size in range(1, count + 1):
        smaller = list(combinations(range(count), size - 1))
        place = {members: i for i, members in enumerate(smaller)}
        larger = list(combinations(range(count), size))
        without = [[place[tuple(m for m in members if m != gone)] for gone in members] for members in larger]
        out = [[i not in members for i in range(count)] for members in smaller]
        steps.append((torch.tensor(larger), torch.tensor(without), torch.tensor(out)))
    return tuple(steps)
