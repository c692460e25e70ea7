"""Learning a policy from what people prefer, without a reward model and without sampling.

    B answers   M pairs of answers to one prompt each

All read log-probabilities of whole answers, *summed* over their tokens, under the policy and under the reference. What
they rest on: in the optimum of E[r] - beta KL(pi, ref) a reward can be read off the policy, up to a constant per
prompt, as beta log(pi / ref). Put in the place of the reward, it makes a loss on rewards a loss on policies.
"""

from __future__ import annotations

import torch
from torch import Tensor

from plaudit.errors import RecipeError
from plaudit.losses.pairwise import bradley_terry_loss
from plaudit.shapes import check_mask, check_same_shape

__all__ = ["dpo_loss", "implicit_reward", "ipo_loss", "kto_loss", "kto_reference"]


def implicit_reward(logp_B: Tensor, ref_logp_B: Tensor, *, beta: float) -> Tensor:
    """The reward for which a policy is already the best one, up to a constant per prompt.

        r_b = beta (log pi(answer_b) - log ref(answer_b))

    Rafailov et al. 2023 (DPO), eq. 5, https://arxiv.org/abs/2305.18290.

    Args:
        logp_B: [B] log-probabilities of whole answers under the policy, in nats.
        ref_logp_B: [B] the same under the reference.
        beta: cost of a nat, in units of reward.

    Returns:
        [B] rewards. Gradient flows into `logp_B` only.

    Raises:
        ShapeError: the shapes differ.
        RecipeError: `beta` is not above 0.
    """
    check_same_shape(logp_B=logp_B, ref_logp_B=ref_logp_B)
    if not beta > 0:
        raise RecipeError(f"beta must be above 0, got {beta}")
    return beta * (logp_B - ref_logp_B.detach())


def dpo_loss(
    better_logp_M: Tensor,
    worse_logp_M: Tensor,
    ref_better_logp_M: Tensor,
    ref_worse_logp_M: Tensor,
    *,
    beta: float,
    smoothing: float = 0.0,
) -> Tensor:
    """How surprised the policy's implicit reward is that `better` won, in nats, per pair.

        loss_m = -(1 - smoothing) log sigmoid(h_m) - smoothing log sigmoid(-h_m)        h = r_better - r_worse

    Rafailov et al. 2023, eq. 7, https://arxiv.org/abs/2305.18290: `bradley_terry_loss` of `implicit_reward`. The
    smoothing, P(the label is wrong), is their conservative form (Mitchell 2023, https://ericmitchell.ai/cdpo.pdf): with
    it h has an optimum, log((1 - smoothing) / smoothing), in place of growing for ever.

    Args:
        better_logp_M: [M] log-probabilities of the preferred answers under the policy, in nats.
        worse_logp_M: [M] those of the other answers to the same prompts.
        ref_better_logp_M: [M] the preferred answers under the reference.
        ref_worse_logp_M: [M] the others under the reference.
        beta: cost of a nat, in log-odds of winning.
        smoothing: share of labels taken to be wrong, below 1/2.

    Returns:
        [M] losses, log 2 at the reference. Gradient flows into the policy's log-probabilities only: without smoothing
        -beta sigmoid(r_worse - r_better) into `better_logp_M`, and the opposite into `worse_logp_M`.

    Raises:
        ShapeError: the shapes differ.
        RecipeError: `beta` is not above 0, or `smoothing` is not in [0, 1/2).
    """
    if not 0 <= smoothing < 0.5:
        raise RecipeError(f"smoothing must lie in [0, 0.5), got {smoothing}")
    better_M = implicit_reward(better_logp_M, ref_better_logp_M, beta=beta)
    worse_M = implicit_reward(worse_logp_M, ref_worse_logp_M, beta=beta)
    loss_M = bradley_terry_loss(better_M, worse_M)
    if smoothing:
        loss_M = (1 - smoothing) * loss_M + smoothing * bradley_terry_loss(worse_M, better_M)
    return loss_M


def ipo_loss(
    better_logp_M: Tensor,
    worse_logp_M: Tensor,
    ref_better_logp_M: Tensor,
    ref_worse_logp_M: Tensor,
    *,
    beta: float,
) -> Tensor:
    """The squared distance of a pair's log-ratio gap from the one where its preference is worth its KL.

        loss_m = (g_m - 1 / (2 beta))^2        g = log(pi / ref)(better) - log(pi / ref)(worse), in nats

    Azar et al. 2023, eq. 17, https://arxiv.org/abs/2310.12036, with their tau as beta. Where DPO pushes a pair that is
    always judged the same way for ever, this stops at a gap of 1 / (2 beta) nats.

    Takes and raises what `dpo_loss` does, without smoothing.

    Returns:
        [M] losses, in nats squared. Gradient 2 (g - 1 / (2 beta)) flows into `better_logp_M`, the opposite into
        `worse_logp_M`.
    """
    better_M = implicit_reward(better_logp_M, ref_better_logp_M, beta=beta)
    worse_M = implicit_reward(worse_logp_M, ref_worse_logp_M, beta=beta)
    check_same_shape(better_logp_M=better_M, worse_logp_M=worse_M)
    return ((better_M - worse_M) / beta - 1 / (2 * beta)).square()


def kto_reference(mismatched_logp_B: Tensor, ref_mismatched_logp_B: Tensor) -> Tensor:
    """The point from which a gain or a loss is felt: an estimate of KL(pi, ref), in nats.

        z0 = max(0, mean over b of log pi(answer_b) - log ref(answer_b))

    Ethayarajh et al. 2024 (KTO), section 4.1, https://arxiv.org/abs/2402.01306. The answers are those of *other*
    prompts of the batch, so that no answer is measured against itself.

    Args:
        mismatched_logp_B: [B] log-probabilities of answers after somebody else's prompt, under the policy.
        ref_mismatched_logp_B: [B] the same under the reference.

    Returns:
        A scalar without gradient, >= 0.

    Raises:
        ShapeError: the shapes differ.
    """
    check_same_shape(mismatched_logp_B=mismatched_logp_B, ref_mismatched_logp_B=ref_mismatched_logp_B)
    return (mismatched_logp_B - ref_mismatched_logp_B).detach().mean().clamp(min=0.0)


def kto_loss(
    logp_B: Tensor,
    ref_logp_B: Tensor,
    desirable_B: Tensor,
    reference: Tensor,
    *,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Prospect theory's value of answers with a thumb each, as a loss: no pairs are needed.

        loss_b = weight (1 - sigmoid(s beta (g_b - z0)))        g = log(pi / ref), s = 1 for a thumb up, -1 for down

    Ethayarajh et al. 2024 (KTO), section 4.1, https://arxiv.org/abs/2402.01306, with their lambda_y - v as the loss. An
    answer far above or far below z0 hardly moves: a wrong thumb does little harm.

    Args:
        logp_B: [B] log-probabilities of whole answers under the policy, in nats.
        ref_logp_B: [B] the same under the reference.
        desirable_B: [B] bool, True for a thumb up.
        reference: scalar, z0 from `kto_reference`.
        beta: how fast a gain or a loss saturates, per nat.
        desirable_weight: lambda_D; with as many thumbs up as down, 1.
        undesirable_weight: lambda_U; raise the weight of the rarer kind until both kinds weigh about the same in all.

    Returns:
        [B] losses, between 0 and the weight. Gradient flows into `logp_B` only.

    Raises:
        ShapeError: the shapes differ, or `desirable_B` is not boolean.
        RecipeError: `beta` is not above 0, or a weight is below 0.
    """
    check_same_shape(logp_B=logp_B, ref_logp_B=ref_logp_B, desirable_B=desirable_B)
    check_mask("desirable_B", desirable_B)
    if min(desirable_weight, undesirable_weight) < 0:
        raise RecipeError(
            f"weights must be 0 or more, got desirable_weight {desirable_weight}, "
            f"undesirable_weight {undesirable_weight}"
        )
    gain_B = implicit_reward(logp_B, ref_logp_B, beta=beta) - beta * reference.detach()
    return torch.where(
        desirable_B, desirable_weight * torch.sigmoid(-gain_B), undesirable_weight * torch.sigmoid(gain_B)
    )
