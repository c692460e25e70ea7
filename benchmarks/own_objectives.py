"""What the algorithms climb that do not climb E[r] - beta KL, and how far they come there, for `algorithms.py`.

Every yardstick is computed by enumeration and says how far a policy has come: 0 at the reference, 1 at its own aim. For
k3 in the loss, whose steps are no gradient of anything, the aim is the policy at which the expected step is zero.

Shape letters:  P prompts   A answers   T tokens   S prefixes   V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from plaudit.testing import Laboratory, Table

__all__ = [
    "Aim",
    "fixed_point",
    "largest_reward",
    "pretraining_optimum",
    "steps_at_rest",
    "text_policy",
    "with_text",
]


@dataclass(frozen=True, kw_only=True)
class Aim:
    """What an algorithm is held to."""

    says: str
    """The objective, in words."""
    share: Callable[[Laboratory, Tensor], float]
    """How much of the way a policy ([P, S, V] log-probabilities) has gone; for a fixed point, 1 - its distance."""


def largest_reward() -> Aim:
    """E[r] alone, whose optimum says the best answer always."""

    def share(lab: Laboratory, logp_PSV: Tensor) -> float:
        mean_P, start_P = ((lab.answer_logp(x_PSV).exp() * lab.reward_PA).sum(-1) for x_PSV in (logp_PSV, lab.ref_PSV))
        return float((mean_P - start_P).sum() / (lab.reward_PA.max(-1).values - start_P).sum())

    return Aim(says="E[r]", share=share)


def with_text(weight: float) -> Aim:
    """E[r] - beta KL + weight E_D[log pi], with D the answers of some other policy (`text_policy`)."""

    def value(lab: Laboratory, answer_PA: Tensor, text_PA: Tensor) -> Tensor:
        """Of whole answers' log-probabilities."""
        cost_PA = lab.beta * (answer_PA - lab.answer_logp(lab.ref_PSV))
        return (answer_PA.exp() * (lab.reward_PA - cost_PA)).sum() + weight * (text_PA * answer_PA).sum()

    def share(lab: Laboratory, logp_PSV: Tensor) -> float:
        text_PA = lab.answer_logp(text_policy(lab)).exp()
        best_PA = pretraining_optimum(lab, text_PA, weight)
        start, here, best = (
            value(lab, x_PA, text_PA) for x_PA in (lab.answer_logp(lab.ref_PSV), lab.answer_logp(logp_PSV), best_PA)
        )
        return float((here - start) / (best - start))

    return Aim(says=f"E[r] - beta KL + {weight:g} E_D[log pi]", share=share)


def text_policy(lab: Laboratory) -> Tensor:
    """[P, S, V] the policy that wrote the text: one far from the reference, as random as this."""
    logp_PSV: Tensor = Table(lab, seed=1000)()
    return logp_PSV.detach()


def pretraining_optimum(lab: Laboratory, text_PA: Tensor, weight: float) -> Tensor:
    """[P, A] log-probabilities of the answers where E[r] - beta KL + weight E_D[log pi] is largest.

    There r - beta log(pi / ref) + weight D / pi is the same number for all answers of a prompt. For a given number each
    answer's log pi is the root of a falling function; the number is that for which they add up to 1.

    Args:
        text_PA: [P, A] D.
        weight: above 0.
    """
    ref_PA = lab.answer_logp(lab.ref_PSV)

    def answers(level_P1: Tensor) -> Tensor:
        low_PA, high_PA = torch.full_like(ref_PA, -60.0), torch.full_like(ref_PA, 60.0)
        for _ in range(80):
            middle_PA = (low_PA + high_PA) / 2
            slope_PA = lab.reward_PA - lab.beta * (middle_PA - ref_PA) + weight * text_PA * (-middle_PA).exp()
            above_PA = slope_PA > level_P1  # its probability must grow
            low_PA, high_PA = torch.where(above_PA, middle_PA, low_PA), torch.where(above_PA, high_PA, middle_PA)
        return (low_PA + high_PA) / 2

    low_P1 = lab.reward_PA.min(-1, keepdim=True).values - 60
    high_P1 = lab.reward_PA.max(-1, keepdim=True).values + 60
    for _ in range(80):
        middle_P1 = (low_P1 + high_P1) / 2
        too_much_P1 = answers(middle_P1).exp().sum(-1, keepdim=True) > 1
        low_P1, high_P1 = torch.where(too_much_P1, middle_P1, low_P1), torch.where(too_much_P1, high_P1, middle_P1)
    return answers((low_P1 + high_P1) / 2)


def steps_at_rest(*, over_answers: bool, normalised: bool, group: int) -> Aim:
    """Where k3 in the loss of each token and the advantages of a group are in balance."""

    def share(lab: Laboratory, logp_PSV: Tensor) -> float:
        aim_PSV = fixed_point(lab, over_answers=over_answers, normalised=normalised, group=group)
        here_PA, start_PA, aim_PA = (lab.answer_logp(x_PSV).exp() for x_PSV in (logp_PSV, lab.ref_PSV, aim_PSV))
        return 1 - float((here_PA - aim_PA).abs().sum() / (start_PA - aim_PA).abs().sum())

    return Aim(says="the policy at which its expected step is 0; total variation", share=share)


def fixed_point(lab: Laboratory, *, over_answers: bool, normalised: bool, group: int, steps: int = 3000) -> Tensor:
    """[P, S, V] the policy at which the expected step of GRPO with k3 in the loss is zero.

        sum over answers of pi(y) w(y) (A(y) grad log pi(y) - beta sum over t of grad k3_t) = 0

    A(y) is what the answer's advantage is on average over the others of its group: (G - 1) / G of how much better than
    the mean it is; over the group's standard deviation, an average over drawn groups, afresh in each step.

    Args:
        lab: the task.
        over_answers: w(y) is one over the answer's length (the mean over its tokens), else 1.
        normalised: advantages are divided by the group's standard deviation.
        group: G.
        steps: of Adam, on a table of logits from the reference on.
    """
    policy, generator = Table(lab), torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(policy.parameters(), lr=0.05)
    falling = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, total_iters=steps)
    ref_PAT = _chosen(lab, lab.ref_PSV)
    weight_A = 1 / lab.mask_AT.sum(1) if over_answers else torch.ones(lab.answers)
    for _ in range(steps):
        logp_PAT = _chosen(lab, policy())
        chance_PA = logp_PAT.sum(-1).exp().detach()
        if normalised:
            better_PA = _normalised(lab, chance_PA, group, generator)
        else:
            better_PA = (group - 1) / group * (lab.reward_PA - (chance_PA * lab.reward_PA).sum(-1, keepdim=True))
        k3_PAT = ((ref_PAT - logp_PAT).exp() - 1 - (ref_PAT - logp_PAT)) * lab.mask_AT
        gain_PA = better_PA * logp_PAT.sum(-1) - lab.beta * k3_PAT.sum(-1)
        optimiser.zero_grad()
        (-(chance_PA * weight_A * gain_PA).sum()).backward()
        optimiser.step()
        falling.step()
    logp_PSV: Tensor = policy()
    return logp_PSV.detach()


def _normalised(lab: Laboratory, chance_PA: Tensor, group: int, generator: torch.Generator, draws: int = 300) -> Tensor:
    """[P, A] each answer's advantage over its group's deviation, the mean over drawn companies of G - 1 others."""
    other_PN = torch.multinomial(chance_PA, draws * (group - 1), replacement=True, generator=generator)
    other_PNG = lab.reward_PA.gather(1, other_PN).view(-1, draws, group - 1)
    reward_PA1 = lab.reward_PA[..., None]
    mean_PAN = (reward_PA1 + other_PNG.sum(-1)[:, None]) / group
    square_PAN = reward_PA1.square() + other_PNG.square().sum(-1)[:, None] - group * mean_PAN.square()
    return ((reward_PA1 - mean_PAN) / ((square_PAN.clamp(min=0) / (group - 1)).sqrt() + 1e-4)).mean(-1)


def _chosen(lab: Laboratory, logp_PSV: Tensor) -> Tensor:
    """[P, A, T] log-probability of each answer's tokens, 0 behind its end."""
    return logp_PSV[:, lab.state_AT, lab.token_AT] * lab.mask_AT
