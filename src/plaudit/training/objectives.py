"""What each stage minimises: batches of tensors, and losses over them as small picklable functions.

Shape letters:  B answers   T tokens   P prompts
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from plaudit.batch import LossSum, Needs, Outputs, TokenTree
from plaudit.kl import k3
from plaudit.losses.pairwise import pairs_of_ranks, pairwise_ranking_loss
from plaudit.losses.pointwise import thumb_loss
from plaudit.losses.policy import clipped_surrogate
from plaudit.losses.reduction import masked_sum, token_portion
from plaudit.losses.value import value_loss

__all__ = ["JudgedBatch", "JudgementLoss", "LanguageLoss", "PolicyBatch", "PolicyLoss", "TextBatch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextBatch:
    """Texts to become likelier: documents, demonstrations."""

    tree: TokenTree


@dataclass(frozen=True, slots=True)
class LanguageLoss:
    """Negative log-likelihood of the answers' tokens, in nats; every token weighs the same."""

    needs: Needs = field(default_factory=lambda: Needs(logp=True))

    def __call__(self, outputs: Outputs, batch: TextBatch) -> LossSum:
        """Sum over tokens, and their number."""
        loss = token_portion(-outputs.logp_BT, batch.tree.mask_BT())
        return LossSum(loss.total, loss.denominator, {"loss": (loss.total.detach(), loss.denominator)})


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedBatch:
    """Judged answers, one prompt of the tree for each judgement."""

    tree: TokenTree
    rank_B: Tensor
    """int64 [B]: 1 is best, ties share a number; 0 where the judgement is a thumb."""
    thumb_B: Tensor
    """bool [B]: thumb up; read only where `rank_B` is 0."""


@dataclass(frozen=True, slots=True)
class JudgementLoss:
    """Each judgement by the loss that fits it, each weighing 1.

    A ranking: the mean over its ordered pairs of -log sigmoid(score difference). A thumb: -log sigmoid(+-score).
    """

    needs: Needs = field(default_factory=lambda: Needs(score=True))

    def __call__(self, outputs: Outputs, batch: JudgedBatch) -> LossSum:
        """Sum over judgements that say something, and their number."""
        score_B = outputs.score_B
        thumbed_B = batch.rank_B == 0
        ranked_B = ~thumbed_B
        ranks, first = [], 0
        for lengths in batch.tree.answer_lengths:
            given = batch.rank_B[first : first + len(lengths)].tolist()
            if given[0] > 0:
                ranks.append(given)
            first += len(lengths)
        total = score_B.new_zeros(())
        count, right, pairs_seen = 0.0, 0.0, 0
        if ranks:
            pairs = pairs_of_ranks(ranks)
            scores = score_B[ranked_B]
            total = total + pairwise_ranking_loss(scores, pairs).sum()
            gap_M = scores.detach()[pairs.better_M] - scores.detach()[pairs.worse_M]
            right, pairs_seen = float((gap_M > 0).sum()) + 0.5 * float((gap_M == 0).sum()), len(gap_M)
            count += pairs.paired
        thumbs = int(thumbed_B.sum())
        if thumbs:
            up_B = batch.thumb_B[thumbed_B]
            total = total + thumb_loss(score_B[thumbed_B], up_B).sum()
            right += float(((score_B[thumbed_B] > 0) == up_B).sum())
            pairs_seen += thumbs
            count += thumbs
        return LossSum(total, count, {"loss": (total.detach(), count), "accuracy": (right, float(pairs_seen))})


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyBatch:
    """Sampled answers with everything the policy learns from; all but the tree is without gradient."""

    tree: TokenTree
    old_logp_BT: Tensor
    """[B, T] log-probabilities under the policy that sampled them, in nats."""
    advantage_BT: Tensor
    """[B, T] how much better than expected, in units of reward."""
    return_BT: Tensor
    """[B, T] what a critic should guess; zeros where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLoss:
    """PPO's clipped objective, a critic's squared error and an entropy bonus; every token weighs the same.

    On the first minibatch after sampling the ratio is 1 and the gradient is REINFORCE's.
    """

    clip: float
    """The ratio of new to old probability is held inside [1 - clip, 1 + clip]."""
    value_weight: float | None = None
    """Weight of the critic's loss; None where there is no critic."""
    entropy: float = 0.0
    """Reward for a nat of entropy per token."""

    @property
    def needs(self) -> Needs:
        """Values with a critic; the entropy always, because people watch it."""
        return Needs(logp=True, entropy=True, value=self.value_weight is not None)

    def __call__(self, outputs: Outputs, batch: PolicyBatch) -> LossSum:
        """Sum over tokens, and their number."""
        mask_BT = batch.tree.mask_BT()
        surrogate = clipped_surrogate(
            outputs.logp_BT, batch.old_logp_BT, batch.advantage_BT, low=self.clip, high=self.clip
        )
        policy = token_portion(surrogate.loss_BT, mask_BT)
        tokens = policy.denominator
        total = policy.total
        moved_BT = k3(batch.old_logp_BT, outputs.logp_BT)
        entropy = masked_sum(outputs.entropy_BT, mask_BT).sum()
        if self.entropy:
            total = total - self.entropy * entropy
        metrics: dict[str, tuple[Tensor | float, float]] = {
            "policy_loss": (policy.total.detach(), tokens),
            "clip_share": (masked_sum(surrogate.held_BT.float(), mask_BT).sum(), tokens),
            "kl_to_old": (masked_sum(moved_BT.detach(), mask_BT).sum(), tokens),
            "entropy": (entropy.detach(), tokens),
        }
        if self.value_weight is not None:
            value = token_portion(value_loss(outputs.value_BT, batch.return_BT), mask_BT)
            total = total + self.value_weight * value.total
            metrics["value_loss"] = (value.total.detach(), tokens)
        return LossSum(total, tokens, metrics)
