"""What a policy step minimises: the surrogate of an algorithm, its critic's error, KL and entropy terms.

Shape letters:  B answers   T tokens   V vocabulary
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from plaudit.batch import LossSum, Needs, Outputs, TokenTree
from plaudit.errors import NumberError
from plaudit.kl import full_kl, k3
from plaudit.losses.divergence import KlEstimator, token_kl_loss
from plaudit.losses.policy import (
    Surrogate,
    clipped_surrogate,
    dual_clipped_surrogate,
    reinforce_loss,
    sequence_clipped_surrogate,
    token_weights,
    weighted_reinforce_loss,
)
from plaudit.losses.reduction import Portion, constant_portion, masked_sum, sequence_portion, token_portion
from plaudit.losses.value import ClippedValue, clipped_value_loss, value_loss
from plaudit.tuning import Estimator, Objective, Reduction

__all__ = ["PolicyBatch", "PolicyLoss", "apart", "check_agreement"]

_IN_LOSS: dict[str, KlEstimator] = {"k2": "k2", "k3": "k3", "ratio-k3": "ratio_k3"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyBatch:
    """Sampled answers with everything the policy learns from; all but the tree is without gradient."""

    tree: TokenTree
    old_logp_BT: Tensor
    """[B, T] log-probabilities under the policy that sampled them, in nats."""
    ref_logp_BT: Tensor
    """[B, T] the same under the reference."""
    advantage_BT: Tensor
    """[B, T] how much better than expected, in units of reward."""
    return_BT: Tensor
    """[B, T] what a critic should guess; zeros where there is none."""
    value_BT: Tensor
    """[B, T] what it guessed when the answers were sampled; zeros where there is none."""
    ref_logp_BTV: Tensor | None = None
    """[B, T, V] the reference's log-probabilities of all tokens, where the loss reads them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLoss:
    """A surrogate objective with its extra terms, all reduced over tokens in one way.

    On the first minibatch after sampling every ratio is 1 and the surrogate's gradient is REINFORCE's.
    """

    objective: Objective = "clip"
    clip: float = 0.2
    """The ratio of new to old probability is held inside [1 - clip, 1 + clip]."""
    clip_high: float | None = None
    """And inside [1 - clip, 1 + clip_high] where this is set."""
    reduction: Reduction = "tokens"
    longest: float = 1.0
    """Tokens of the longest answer there may be; divides the sums over answers where the reduction is `constant`.
    In episodes of several turns, by the number of turns, so that all tokens of an episode are divided by one number."""
    dual_clip: float | None = None
    truncate: float = 2.0
    beta: float = 0.0
    """Cost of a nat in the loss; 0 where KL is in the reward."""
    estimator: Estimator = "k3"
    against: str = "reference"
    value_weight: float | None = None
    """Weight of the critic's loss; None where there is no critic."""
    value_clip: float | None = None
    entropy: float = 0.0
    """Reward for a nat of entropy per token."""

    @property
    def needs(self) -> Needs:
        """Values with a critic; the entropy always, because people watch it."""
        full = self.beta > 0 and self.estimator == "full"
        return Needs(logp=True, entropy=True, value=self.value_weight is not None, distribution=full)

    def __call__(self, outputs: Outputs, batch: PolicyBatch) -> LossSum:
        """Sum over tokens, or over answers, and what it is to be divided by."""
        mask_BT = batch.tree.mask_BT
        surrogate = self._surrogate(outputs.logp_BT, batch)
        policy = self._reduced(surrogate.loss_BT, mask_BT)
        total, tokens = policy.total, int(mask_BT.sum())

        def mean(x_BT: Tensor) -> tuple[Tensor, float]:
            return masked_sum(x_BT.detach(), mask_BT).sum(), tokens

        metrics: dict[str, tuple[Tensor | float, float]] = {
            "policy_loss": (policy.total.detach(), policy.denominator),
            "clip_share": mean(surrogate.held_BT.float()),
            **apart(outputs.logp_BT, batch.old_logp_BT, mask_BT),
            "entropy": mean(outputs.entropy_BT),
        }
        if self.entropy:
            total = total - self.entropy * self._reduced(outputs.entropy_BT, mask_BT).total
        if self.beta:
            cost_BT = self._kl(outputs, batch)
            total = total + self.beta * self._reduced(cost_BT, mask_BT).total
            metrics["kl_loss"] = mean(cost_BT)
        if self.value_weight is not None:
            value = self._value_loss(outputs.value_BT, batch)
            total = total + self.value_weight * self._reduced(value.loss_BT, mask_BT).total
            metrics["value_loss"] = mean(value.loss_BT)
            if self.value_clip is not None:
                metrics["value_clip_share"] = mean(value.held_BT.float())
        return LossSum(total, policy.denominator, metrics)

    def _surrogate(self, logp_BT: Tensor, batch: PolicyBatch) -> Surrogate:
        old_BT, advantage_BT = batch.old_logp_BT, batch.advantage_BT
        low, high = self.clip, self.clip_high or self.clip
        match self.objective:
            case "clip":
                bound = self.dual_clip
                if bound is None:
                    return clipped_surrogate(logp_BT, old_BT, advantage_BT, low=low, high=high)
                return dual_clipped_surrogate(logp_BT, old_BT, advantage_BT, low=low, high=high, bound=bound)
            case "sequence" | "answer":
                mask_BT = batch.tree.mask_BT
                # every token of an answer has its advantage, so the first one's will do
                rooted = self.objective == "sequence"
                found = sequence_clipped_surrogate(
                    logp_BT, old_BT, advantage_BT[:, 0], mask_BT, low=low, high=high, rooted=rooted
                )
                return Surrogate(*(x_B[:, None].expand(mask_BT.shape) for x_B in found))
        weight_BT = token_weights(logp_BT, old_BT, truncate=self.truncate)
        never_BT = torch.zeros_like(weight_BT, dtype=torch.bool)
        if self.objective == "reinforce":
            return Surrogate(reinforce_loss(logp_BT, advantage_BT), weight_BT, never_BT)
        return Surrogate(weighted_reinforce_loss(logp_BT, advantage_BT, weight_BT), weight_BT, never_BT)

    def _reduced(self, x_BT: Tensor, mask_BT: Tensor) -> Portion:
        match self.reduction:
            case "tokens":
                return token_portion(x_BT, mask_BT)
            case "answers":
                return sequence_portion(x_BT, mask_BT)
        return constant_portion(x_BT, mask_BT, budget=self.longest)

    def _kl(self, outputs: Outputs, batch: PolicyBatch) -> Tensor:
        """[B, T] how far the policy is from what it must stay near, with gradient."""
        if self.estimator == "full":
            assert batch.ref_logp_BTV is not None, "the batch lacks the reference's distribution"
            return full_kl(outputs.distribution_BTV, batch.ref_logp_BTV)
        from_BT = batch.ref_logp_BT if self.against == "reference" else batch.old_logp_BT
        return token_kl_loss(
            outputs.logp_BT, from_BT, estimator=_IN_LOSS[self.estimator], old_logp_BT=batch.old_logp_BT
        )

    def _value_loss(self, value_BT: Tensor, batch: PolicyBatch) -> ClippedValue:
        if self.value_clip is None:
            loss_BT = value_loss(value_BT, batch.return_BT)
            return ClippedValue(loss_BT, torch.zeros_like(loss_BT, dtype=torch.bool))
        return clipped_value_loss(value_BT, batch.value_BT, batch.return_BT, clip=self.value_clip)


def apart(logp_BT: Tensor, old_logp_BT: Tensor, mask_BT: Tensor) -> dict[str, tuple[Tensor, float]]:
    """How far a policy is from the one that sampled, as sums and numbers of tokens.

    `kl_to_old` is k3 in nats, about half the square of a log-ratio; `ratio_moved` the ratio's distance from 1.
    """
    kl_BT = k3(old_logp_BT, logp_BT.detach())
    moved_BT = (logp_BT.detach() - old_logp_BT).expm1().abs()
    tokens = int(mask_BT.sum())
    return {
        "kl_to_old": (masked_sum(kl_BT, mask_BT).sum(), tokens),
        "ratio_moved": (masked_sum(moved_BT, mask_BT).sum(), tokens),
    }


def check_agreement(metrics: Mapping[str, float], *, full_precision: bool) -> None:
    """Sampler and learner must agree before a round's first step, where the policy has not moved: ratios of 1 to 1e-4.

    The mean of squares is watched too, so that one wrong token is not lost among thousands of right ones. In bfloat16
    the two round differently; there the KL alone must be next to nothing.

    Raises:
        NumberError: they do not.
    """
    kl, moved = metrics["kl_to_old"], metrics["ratio_moved"]
    if not ((kl < 1e-7 and moved < 1e-4) if full_precision else kl < 1e-3):
        raise NumberError(
            f"before the first step the learner's log-probabilities differ from the sampler's (KL {kl:.2g} nats per "
            f"token, ratios {moved:.2g} away from 1): their temperature, weights or masks disagree"
        )
