"""Soft actor-critic over tokens: values of every next token, and the policy that is best for them near the reference.

The state is the prefix, the action the next token; beta is the cost of a nat. See `plaudit.losses.soft` for the
equations and their sources. Rounds are kept and learned from again: nothing here asks which policy sampled them.

Shape letters:  B answers   T tokens   V vocabulary   Q the twins
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from plaudit.batch import LossSum, Needs, Outputs, TokenTree, select
from plaudit.errors import RecipeError
from plaudit.losses.reduction import token_portion
from plaudit.losses.soft import q_loss, q_of, soft_policy_loss, soft_target, soft_value, twin_minimum
from plaudit.seeds import derive
from plaudit.training.auxiliary import Kept
from plaudit.training.learner import Follower, Learner, Part
from plaudit.training.objectives import TextBatch
from plaudit.training.rollouts import Reference
from plaudit.training.stage import group_order
from plaudit.tuning import Soft

__all__ = ["SoftBatch", "SoftLoss", "soft_steps"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Replayed:
    """Answers that are learned from once more."""

    tree: TokenTree
    reward_BT: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftBatch:
    """Answers with what their tokens should have been worth."""

    tree: TokenTree
    target_BT: Tensor
    """[B, T] reward and what is still to come, by the slow critics; units of reward."""
    ref_logp_BTV: Tensor
    """[B, T, V] nats, by the reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftLoss:
    """Squared errors of both critics at the tokens that came, and KL of the policy from the best one for them."""

    alpha: float
    """Cost of a nat, in units of reward."""
    needs: Needs = field(default_factory=lambda: Needs(distribution=True, q=True))

    def __call__(self, outputs: Outputs, batch: SoftBatch) -> LossSum:
        """Sum over tokens, and their number."""
        mask_BT, token_BT = batch.tree.mask_BT, batch.tree.token_BT
        first_BTV, second_BTV = outputs.q_BTVQ.unbind(-1)
        error_BT = q_loss(first_BTV, token_BT, batch.target_BT) + q_loss(second_BTV, token_BT, batch.target_BT)
        least_BTV = twin_minimum(first_BTV, second_BTV)  # nothing flows through it: see soft_policy_loss
        away_BT = soft_policy_loss(outputs.distribution_BTV, least_BTV, batch.ref_logp_BTV, alpha=self.alpha)
        error, away = token_portion(error_BT, mask_BT), token_portion(away_BT, mask_BT)
        tokens = error.denominator
        return LossSum(
            error.total + away.total,
            tokens,
            {"q_loss": (error.total.detach(), tokens), "policy_loss": (away.total.detach(), tokens)},
        )


def soft_steps(
    learner: Learner,
    reference: Reference,
    kept: Sequence[Kept],
    settings: Soft,
    *,
    answers: int,
    alpha: float,
    discount: float,
    lambda_: float,
    seed: int,
) -> dict[str, float]:
    """The steps after a round, each on answers of one of the rounds that are kept; metrics are means over them.

    Args:
        learner: holds policy and twins; it must be a `Follower`.
        reference: where the policy started.
        kept: rounds with the reward of each token in place of returns.
        settings: how many steps, and how fast the slow copies follow.
        answers: of a round, in one step: those of prompts drawn at random; all where there are no more.
        alpha: cost of a nat, in units of reward.
        discount: weight of what comes one token later.
        lambda_: trust in what an answer earned (1) against the value of the next prefix (0).
        seed: says which rounds, and which of their prompts.

    Raises:
        RecipeError: the learner has no slow copies.
    """
    if not isinstance(learner, Follower):
        raise RecipeError(
            f"policy.algorithm sac needs slow copies of its critics, which {type(learner).__name__} lacks"
        )
    loss = SoftLoss(alpha=alpha)
    found: list[dict[str, float]] = []
    for step in range(settings.updates):
        drawn = _drawn(kept[derive(seed, step) % len(kept)], answers, derive(seed, step, "answers"))
        batch = _batch(learner, reference, drawn, alpha=alpha, discount=discount, lambda_=lambda_)
        found.append(learner.step(Part(batch, loss)))
        learner.follow(settings.follow)
    return {name: statistics.fmean(metrics[name] for metrics in found) for name in found[0]}


def _drawn(kept: Kept, answers: int, seed: int) -> _Replayed:
    tree, reward_BT = kept.tensors()
    whole = _Replayed(tree=tree, reward_BT=reward_BT)
    return whole if answers >= tree.answers else select(whole, group_order(tree, seed)[:answers])


def _batch(
    learner: Learner, reference: Reference, drawn: _Replayed, *, alpha: float, discount: float, lambda_: float
) -> SoftBatch:
    tree, reward_BT = drawn.tree, drawn.reward_BT
    texts = TextBatch(tree=tree)
    slow_BTVQ = learner.forward(texts, Needs(slow_q=True)).slow_q_BTVQ.cpu()
    ref_BTV = reference.logp_BTV(texts).cpu()
    least_BTV = twin_minimum(*slow_BTVQ.unbind(-1))
    value_BT = soft_value(least_BTV, ref_BTV.to(least_BTV.dtype), alpha=alpha)
    target_BT = soft_target(
        reward_BT.to(value_BT.dtype),
        value_BT,
        q_of(least_BTV, tree.token_BT),
        tree.mask_BT,
        discount=discount,
        lambda_=lambda_,
    )
    return SoftBatch(tree=tree, target_BT=target_BT, ref_logp_BTV=torch.as_tensor(ref_BTV))
