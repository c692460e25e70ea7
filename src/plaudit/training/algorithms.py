"""The policy-gradient algorithms, each a choice of parts: which advantage, which loss.

* `reinforce`: return from each token on, less any baseline that does not know the answer.
  Williams 1992, https://doi.org/10.1007/BF00992696.
* `a2c`: GAE on a critic, each answer used once, by one worker. Mnih et al. 2016, https://arxiv.org/abs/1602.01783.
* `ppo`: KL cost per token in the reward, GAE on a critic, whitened, clipped ratio. Schulman et al. 2017,
  https://arxiv.org/abs/1707.06347; for language, Ziegler et al. 2019, https://arxiv.org/abs/1909.08593.
* `ppo-ptx`: the same, not whitened (which would scale the new term), with the log-likelihood of pretraining text.
  Ouyang et al. 2022, https://arxiv.org/abs/2203.02155.
* `rloo`: KL of the whole answer in its reward, less the mean of the other answers. Kool et al. 2019,
  https://openreview.net/forum?id=r1lgTGL5DE; Ahmadian et al. 2024, https://arxiv.org/abs/2402.14740.
* `grpo`: less the group's mean, over its standard deviation, every answer of the same weight, k3 in the loss.
  Shao et al. 2024, https://arxiv.org/abs/2402.03300.
* `dr-grpo`: the same without the two divisions that bias it. Liu et al. 2025, https://arxiv.org/abs/2503.20783.
* `dapo`: `grpo` with every token of the same weight, a higher upper clip, groups without variance left out; its authors
  leave KL out too (`kl.beta: 0`). Yu et al. 2025, https://arxiv.org/abs/2503.14476.
* `gspo`: `grpo` with one ratio for each answer. Zheng et al. 2025, https://arxiv.org/abs/2507.18071.
* `ppg`: `ppo` with a critic of its own, and now and then a phase in which a second head on the policy's trunk learns
  the returns, the policy held in place (`plaudit.training.auxiliary`). Cobbe et al. 2020, https://arxiv.org/abs/2009.04416.
* `sac`: soft values of every next token, twins with slow copies, and the policy drawn to the best one for them;
  entropy measured from the reference, rounds learned from again (`plaudit.training.soft`). Haarnoja et al. 2018,
  https://arxiv.org/abs/1812.05905; discrete: Christodoulou 2019, https://arxiv.org/abs/1910.07207.
* `trpo`: advantages as in `ppo`, the step of `plaudit.training.trust_region`. Schulman et al. 2015,
  https://arxiv.org/abs/1502.05477.
* `reinforce++`: KL cost per token in the reward, return from each token on, whitened over the round, clipped ratio.
  Hu 2025, https://arxiv.org/abs/2501.03262.
* `rejection`: the best answer of each group becomes likelier, a step of supervised fine-tuning; a baseline to compare
  the others with. Dong et al. 2023 (RAFT), https://arxiv.org/abs/2304.06767.
* `best-of-n`: nothing is learned; of several answers the evaluation keeps the best by the reward
  (`plaudit.evaluation.best_of_n`). Another baseline. Stiennon et al. 2020, https://arxiv.org/abs/2009.01325.

`plaudit.tuning.PARTS` holds the choices, and a recipe may set each part by itself.

In an episode of several turns an answer earns what its own turn brings and what the later ones do, and every turn is
compared with one and the same number, what the *whole* episode was expected to earn: other episodes know nothing of
this one's answers, so the gradient stays unbiased. A critic guesses what an episode still brings; between two turns,
what it really brought stands in for its guess.

Shape letters:  B answers   T tokens   P prompts   E episodes
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from plaudit.advantages import (
    batch_mean,
    gae,
    group_deviation,
    group_mean,
    leave_one_out,
    per_token,
    reward_to_go,
    token_rewards,
    whiten,
)
from plaudit.losses.reduction import masked_sum
from plaudit.training.policy_loss import PolicyBatch, PolicyLoss
from plaudit.training.rollouts import Rollout
from plaudit.tuning import Parts, Policy

__all__ = ["Estimate", "batch_of", "best_of_groups", "estimated", "kept", "loss_of", "score_at_end"]

_EPSILON = 1e-4
"""Added to a group's standard deviation, in units of reward: scores that hardly differ count for little."""


class Estimate(NamedTuple):
    """Advantages per token, and what a critic should learn."""

    advantage_BT: Tensor
    return_BT: Tensor


def kept(rollout: Rollout, parts: Parts) -> Rollout:
    """The rollout without those answers from which nothing can be learned by comparing them with others."""
    if parts.baseline == "batch" and int(rollout.keep_B[: rollout.episodes].sum()) < 2:
        return dataclasses.replace(rollout, keep_B=torch.zeros_like(rollout.keep_B))
    if not (parts.groups or parts.drop_flat):
        return rollout
    episodes, group_E = rollout.episodes, rollout.group_E()
    keep_E, score_E = rollout.keep_B[:episodes], rollout.still_earned(rollout.score_B)[:episodes]
    size_P = torch.bincount(group_E[keep_E], minlength=rollout.tree.prompts)
    least_P, most_P = (
        score_E.new_zeros(rollout.tree.prompts).scatter_reduce(
            0, group_E[keep_E], score_E[keep_E], which, include_self=False
        )
        for which in ("amin", "amax")
    )
    alone_P = size_P < 2 if parts.groups else torch.zeros_like(size_P, dtype=torch.bool)
    flat_P = least_P == most_P if parts.drop_flat else torch.zeros_like(alone_P)
    return dataclasses.replace(rollout, keep_B=rollout.keep_B & ~(alone_P | flat_P)[group_E][rollout.episode_B])


def estimated(rollout: Rollout, policy: Policy, parts: Parts, *, beta: float, running: float = 0.0) -> Estimate:
    """How much better than expected each token did.

    Args:
        rollout: the round's answers; those that are not kept get 0 and are in nobody's baseline.
        policy: the recipe's section.
        parts: its parts.
        beta: cost of a nat.
        running: the mean return of the rounds before.
    """
    mask_BT = rollout.tree.mask_BT & rollout.keep_B[:, None]
    kl_BT = rollout.kl_BT
    cost = beta if parts.where == "reward" else 0.0
    own_B = rollout.score_B - cost * masked_sum(kl_BT, rollout.tree.mask_BT)
    return_B = rollout.still_earned(own_B, discount=policy.turn_discount)
    reward_BT = _token_rewards(rollout, cost, rollout.score_B + (return_B - own_B))
    return_E, episode_B = return_B[: rollout.episodes], rollout.episode_B
    if parts.baseline == "value":
        found = gae(reward_BT, rollout.value_BT, mask_BT, discount=policy.discount, lambda_=policy.lambda_)
        advantage_BT, return_BT = found.advantage_BT, found.return_BT
    else:
        better_E = _compared(rollout, policy, parts, return_E, running)
        whole_B = better_E[episode_B] + (return_B - return_E[episode_B])
        if parts.to_go:
            earned_BT = reward_to_go(reward_BT, mask_BT, discount=policy.discount)
            baseline_B = return_B - whole_B
            advantage_BT = (earned_BT - baseline_B[:, None]).masked_fill(~mask_BT, 0.0)
        else:
            advantage_BT = per_token(whole_B, mask_BT)
        return_BT = torch.zeros_like(advantage_BT)
    if parts.normalise == "group":
        keep_E = rollout.keep_B[: rollout.episodes]
        spread_B = group_deviation(return_E, rollout.group_E(), keep_E)[episode_B]
        # where all answers earn the same, what rounding left of their mean is not to be blown up
        advantage_BT = torch.where(spread_B[:, None] > 0, advantage_BT / (spread_B[:, None] + _EPSILON), 0.0)
    elif parts.normalise == "batch" and bool(mask_BT.any()):
        advantage_BT = whiten(advantage_BT, mask_BT)
    return Estimate(advantage_BT, return_BT)


def batch_of(rollout: Rollout, estimate: Estimate) -> PolicyBatch:
    """What a round's answers are learned from."""
    return PolicyBatch(
        tree=rollout.tree,
        old_logp_BT=rollout.old_logp_BT,
        ref_logp_BT=rollout.ref_logp_BT,
        advantage_BT=estimate.advantage_BT,
        return_BT=estimate.return_BT,
        value_BT=rollout.value_BT,
        ref_logp_BTV=rollout.ref_logp_BTV,
    )


def _token_rewards(rollout: Rollout, cost: float, score_B: Tensor) -> Tensor:
    """As `token_rewards`; an answer without a token has nowhere to put its score, and teaches nothing."""
    mask_BT = rollout.tree.mask_BT
    full_B = mask_BT.any(-1)
    reward_BT = torch.zeros_like(rollout.kl_BT)
    if bool(full_B.any()):
        reward_BT[full_B] = token_rewards(score_B[full_B], rollout.kl_BT[full_B], mask_BT[full_B], beta=cost)
    return reward_BT


def _compared(rollout: Rollout, policy: Policy, parts: Parts, return_E: Tensor, running: float) -> Tensor:
    """[E] each episode's return less what it is compared with."""
    keep_E = rollout.keep_B[: rollout.episodes]
    match parts.baseline:
        case "constant":
            return return_E - policy.constant
        case "running":
            return return_E - running
        case "batch":
            return batch_mean(return_E, keep_E)
        case "fresh" | "prompt" | "greedy":
            return return_E - rollout.baseline_E
        case "leave-one-out":
            return leave_one_out(return_E, rollout.group_E(), keep_E)
        case "group":
            return group_mean(return_E, rollout.group_E(), keep_E)
    return return_E


def score_at_end(rollout: Rollout) -> Tensor:
    """[B, T] the score on each answer's last token, 0 elsewhere; nothing of KL."""
    return _token_rewards(rollout, 0.0, rollout.score_B)


def best_of_groups(advantages: Sequence[float], groups: Sequence[int]) -> list[int]:
    """The row of the best answer of each group, the first of those that are equal, in the order of the rows."""
    best: dict[int, int] = {}
    for row, (advantage, group) in enumerate(zip(advantages, groups, strict=True)):
        if group not in best or advantage > advantages[best[group]]:
            best[group] = row
    return sorted(best.values())


def loss_of(policy: Policy, parts: Parts, *, beta: float, entropy: float, turns: float = 1.0) -> PolicyLoss:
    """What a round minimises.

    Args:
        policy: the recipe's section.
        parts: its parts.
        beta: cost of a nat, where KL is in the loss.
        entropy: reward for a nat of entropy per token.
        turns: answers in an episode, on the round's average: sums are to be divided by the number of episodes.
    """
    return PolicyLoss(
        objective=parts.objective,
        clip=parts.clip,
        clip_high=parts.clip_high,
        dual_clip=policy.dual_clip,
        truncate=policy.truncate,
        reduction=parts.reduction,
        longest=policy.sampling.max_tokens / turns,
        beta=beta if parts.where == "loss" else 0.0,
        estimator=parts.estimator,
        against=policy.kl.against,
        value_weight=(policy.value_weight if policy.critic == "shared" else 1.0) if parts.baseline == "value" else None,
        value_clip=policy.value_clip,
        entropy=entropy,
    )
