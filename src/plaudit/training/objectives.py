"""What each stage minimises: batches of tensors, and losses over them as small picklable functions.

Shape letters:  B answers   T tokens   P prompts
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from plaudit.batch import LossSum, Needs, Outputs, TokenTree
from plaudit.losses.listwise import choice_loss, plackett_luce_loss
from plaudit.losses.pairwise import pairs_of_ranks, pairwise_ranking_loss
from plaudit.losses.pointwise import centring_penalty, ordinal_loss, rating_loss, thumb_loss
from plaudit.losses.reduction import masked_sum, token_portion

__all__ = [
    "COMPARED",
    "JudgedBatch",
    "JudgementLoss",
    "LanguageLoss",
    "Said",
    "TextBatch",
    "own_score",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextBatch:
    """Texts to become likelier: documents, demonstrations."""

    tree: TokenTree


@dataclass(frozen=True, slots=True)
class LanguageLoss:
    """Negative log-likelihood of the answers' tokens, in nats; every token weighs the same."""

    needs: Needs = field(default_factory=lambda: Needs(logp=True))
    name: str = "loss"
    """Of its metric."""

    def __call__(self, outputs: Outputs, batch: TextBatch) -> LossSum:
        """Sum over tokens, and their number."""
        loss = token_portion(-outputs.logp_BT, batch.tree.mask_BT)
        return LossSum(loss.total, loss.denominator, {self.name: (loss.total.detach(), loss.denominator)})


class Said(IntEnum):
    """What a judgement said, by the loss that it takes."""

    PAIRS = 0
    """Which answer of each pair is better; tied pairs say nothing."""
    TIED_PAIRS = 1
    """Which answer of each pair is better, or that neither is."""
    BEST_PAIRS = 2
    """That one answer is better than each of the others."""
    CHOICE = 3
    """Which one of K is the best."""
    WHOLE = 4
    """The order of all K."""
    THUMB = 5
    """Good or bad."""
    GRADE = 6
    """One of a few steps from bad to good."""
    RATING = 7
    """A number."""

    @property
    def words(self) -> str:
        """For people."""
        return _WORDS[self]


_WORDS = {
    Said.PAIRS: "pairs",
    Said.TIED_PAIRS: "pairs and ties",
    Said.BEST_PAIRS: "pairs with the best",
    Said.CHOICE: "choice of the best",
    Said.WHOLE: "whole ranking",
    Said.THUMB: "thumb",
    Said.GRADE: "grade",
    Said.RATING: "squared error",
}
COMPARED = frozenset({Said.PAIRS, Said.TIED_PAIRS, Said.BEST_PAIRS, Said.CHOICE, Said.WHOLE})
"""What says of one answer against another, and not of one by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedBatch:
    """Judged answers, one prompt of the tree for each judgement."""

    tree: TokenTree
    said_P: Tensor
    """int64 [P]: which loss, a `Said`."""
    rank_B: Tensor
    """int64 [B]: 1 is best, ties share a number; 0 where the judgement orders nothing."""
    target_B: Tensor
    """[B]: thumb (1 up, 0 down), grade (0 the worst) or rating; 0 elsewhere."""
    weight_P: Tensor
    """[P] how much the judgement counts."""
    margin_P: Tensor
    """[P] log-odds demanded of the better answer of each pair."""
    sure_P: Tensor
    """[P] probability that the judgement is the right way round."""
    quality_P: Tensor
    """int64 [P] which of the scores the judgement is about, where an answer has several."""
    offset_B: Tensor
    """[B] log-odds that are known of each answer beforehand, so that its score need not say them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgementLoss:
    """Each judgement by the loss that fits it, each weighing 1 (times its annotator's weight)."""

    centring: float = 0.0
    """Weight of the squared mean score of the answers that were compared."""
    language: float = 0.0
    """Weight of the mean negative log-likelihood of a better answer's tokens."""
    apart: bool = False
    """Give the loss of each kind of judgement as a metric of its own, where there are several."""

    @property
    def needs(self) -> Needs:
        """Scores, and what is learned beside them: how frequent ties are, where grades begin."""
        return Needs(score=True, scales=True, logp=self.language > 0)

    def __call__(self, outputs: Outputs, batch: JudgedBatch) -> LossSum:
        """Sum over judgements that say something, and their weights."""
        sizes = [len(lengths) for lengths in batch.tree.answer_lengths]
        own_B = own_score(outputs, batch)
        score_B = own_B + batch.offset_B
        loss_P = score_B.new_zeros(len(sizes))
        metrics: dict[str, tuple[Tensor | float, float]] = {}
        said = batch.said_P.tolist()
        for kind in sorted(set(said)):
            mine = [p for p, own in enumerate(said) if own == kind]
            part = _part(batch, score_B, sizes, mine)
            own_P = _loss_of(Said(kind), part, outputs)
            loss_P = loss_P.index_put((part.place_P,), own_P)
            if self.apart:
                metrics[f"loss/{Said(kind).words}"] = (own_P.detach().sum(), len(mine))
        if self.centring:
            compared_P = torch.tensor([Said(kind) in COMPARED for kind in said], device=score_B.device)
            pull_P = centring_penalty(own_B, sizes).masked_fill(~compared_P, 0.0)
            metrics["centring"] = (pull_P.detach().sum(), len(said))
            loss_P = loss_P + self.centring * pull_P
        if self.language:
            surprise_P = _surprise(outputs.logp_BT, batch, sizes)
            metrics["language_loss"] = (surprise_P.detach().sum(), float((surprise_P > 0).sum()))
            loss_P = loss_P + self.language * surprise_P
        total, denominator = (batch.weight_P * loss_P).sum(), float(batch.weight_P.sum())
        metrics["loss"] = (total.detach(), denominator)
        metrics["accuracy"] = _agreement(own_B.detach(), batch, sizes)
        return LossSum(total, denominator, metrics)


def own_score(outputs: Outputs, batch: JudgedBatch) -> Tensor:
    """[B] the score that each judgement is about, out of one for each quality."""
    if outputs.score is None or outputs.score.dim() == 1:
        return outputs.score_B
    size_P = torch.tensor([len(lengths) for lengths in batch.tree.answer_lengths], device=outputs.score.device)
    return outputs.score.gather(1, batch.quality_P.repeat_interleave(size_P)[:, None]).squeeze(1)


def _surprise(logp_BT: Tensor, batch: JudgedBatch, sizes: Sequence[int]) -> Tensor:
    """[P] mean nats per token of each judgement's best answers; 0 where it praises none."""
    mask_BT = batch.tree.mask_BT
    length_B = mask_BT.sum(1)
    size_P = torch.tensor(sizes, device=logp_BT.device)
    owner_B = torch.arange(len(sizes), device=logp_BT.device).repeat_interleave(size_P)
    thumbed_B = (batch.said_P == Said.THUMB)[owner_B] & (batch.target_B > 0.5)
    praised_B = (thumbed_B | ((batch.rank_B == 1) & (size_P[owner_B] > 1))) & (length_B > 0)
    nats_B = -masked_sum(logp_BT, mask_BT) / length_B.clamp(min=1)
    sum_P = nats_B.new_zeros(len(sizes)).index_add(0, owner_B, nats_B.masked_fill(~praised_B, 0.0))
    return sum_P / sum_P.new_zeros(len(sizes)).index_add(0, owner_B, praised_B.to(sum_P.dtype)).clamp(min=1)


class _Part(NamedTuple):
    """The judgements of a batch that take one loss."""

    place_P: Tensor
    score_B: Tensor
    ranks: list[list[int]]
    target_B: Tensor
    margin_P: Tensor
    sure_P: Tensor
    sizes: list[int]


def _part(batch: JudgedBatch, score_B: Tensor, sizes: Sequence[int], mine: Sequence[int]) -> _Part:
    starts = list(accumulate(sizes, initial=0))
    rows = [row for p in mine for row in range(starts[p], starts[p + 1])]
    place_P = torch.tensor(mine, device=score_B.device)
    row_B = torch.tensor(rows, device=score_B.device)
    ranks = iter(batch.rank_B[row_B].tolist())
    return _Part(
        place_P=place_P,
        score_B=score_B[row_B],
        ranks=[[next(ranks) for _ in range(sizes[p])] for p in mine],
        target_B=batch.target_B[row_B],
        margin_P=batch.margin_P[place_P],
        sure_P=batch.sure_P[place_P],
        sizes=[sizes[p] for p in mine],
    )


def _loss_of(said: Said, part: _Part, outputs: Outputs) -> Tensor:
    """[P] loss of each judgement of one kind."""
    match said:
        case Said.PAIRS | Said.BEST_PAIRS | Said.TIED_PAIRS:
            tied = said is Said.TIED_PAIRS
            return pairwise_ranking_loss(
                part.score_B,
                pairs_of_ranks(part.ranks, ties=tied),
                tie=outputs.tie_parameter if tied else None,
                margin_J=part.margin_P,
                sure_J=part.sure_P,
            )
        case Said.CHOICE:
            return choice_loss(part.score_B, [ranks.index(1) for ranks in part.ranks], part.sizes, sure_J=part.sure_P)
        case Said.WHOLE:
            return plackett_luce_loss(part.score_B, part.ranks)
    owner_B = torch.arange(len(part.sizes), device=part.score_B.device).repeat_interleave(
        torch.tensor(part.sizes, device=part.score_B.device)
    )
    match said:
        case Said.THUMB:
            loss_B = thumb_loss(part.score_B, part.target_B > 0.5, sure_B=part.sure_P[owner_B])
        case Said.GRADE:
            loss_B = ordinal_loss(part.score_B, part.target_B.long(), outputs.cut_C)
        case Said.RATING:
            loss_B = rating_loss(part.score_B, part.target_B.to(part.score_B.dtype))
    mean_P = part.score_B.new_zeros(len(part.sizes)).index_add(0, owner_B, loss_B)
    return mean_P / torch.tensor(part.sizes, device=mean_P.device)


def _agreement(score_B: Tensor, batch: JudgedBatch, sizes: Sequence[int]) -> tuple[float, float]:
    """Ordered pairs, and thumbs, that the scores have the right way round (half of those they cannot tell), and all."""
    ranks = iter(batch.rank_B.tolist())
    pairs = pairs_of_ranks([[next(ranks) for _ in range(size)] for size in sizes])
    gap_M = score_B[pairs.better_M.to(score_B.device)] - score_B[pairs.worse_M.to(score_B.device)]
    right, seen = float((gap_M > 0).sum()) + 0.5 * float((gap_M == 0).sum()), len(gap_M)
    thumb_B = (batch.said_P == Said.THUMB).repeat_interleave(torch.tensor(sizes, device=batch.said_P.device))
    if bool(thumb_B.any()):
        up_B = batch.target_B[thumb_B] > 0.5
        right += float(((score_B[thumb_B] > 0) == up_B).sum())
        seen += len(up_B)
    return right, float(seen)
