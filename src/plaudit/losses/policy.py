"""What moves a policy: REINFORCE, PPO's clipped surrogate, entropy.

    B sequences   T tokens   V vocabulary

All are to be *minimised*, all are per token, and which tokens count is for the reduction to say (`losses.reduction`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from plaudit.shapes import check_same_shape

__all__ = ["Surrogate", "clipped_surrogate", "entropy", "reinforce_loss"]


class Surrogate(NamedTuple):
    """PPO's loss and what happened inside."""

    loss_BT: Tensor
    """[B, T] loss; the only field with a gradient."""
    ratio_BT: Tensor
    """[B, T] new over old probability; exactly 1 before the first optimiser step."""
    held_BT: Tensor
    """[B, T] bool: the clip decided this token, which then has no gradient."""


def reinforce_loss(logp_BT: Tensor, advantage_BT: Tensor) -> Tensor:
    """The score-function estimator, negated, per token.

        loss_bt = -advantage_bt log pi(token_bt)

    Its gradient is an unbiased estimate of the negative gradient of the expected reward if the advantage is what is
    earned from this token on, less a baseline that does not depend on this token. The value of the loss means nothing.
    Williams 1992, https://doi.org/10.1007/BF00992696.

    Args:
        logp_BT: [B, T] log-probabilities of the tokens that were sampled, in nats.
        advantage_BT: [B, T] advantages, in units of reward.

    Returns:
        [B, T] losses. Gradient flows into `logp_BT` only.

    Raises:
        ShapeError: the shapes differ.
    """
    check_same_shape(logp_BT=logp_BT, advantage_BT=advantage_BT)
    return -advantage_BT.detach() * logp_BT


def clipped_surrogate(
    logp_BT: Tensor, old_logp_BT: Tensor, advantage_BT: Tensor, *, low: float = 0.2, high: float = 0.2
) -> Surrogate:
    """PPO's clipped objective, negated, per token.

        ratio_bt = pi(token_bt) / pi_old(token_bt)
        loss_bt  = -min(ratio_bt advantage_bt, clip(ratio_bt, 1 - low, 1 + high) advantage_bt)

    Schulman et al. 2017, eq. 7, https://arxiv.org/abs/1707.06347. `high` above `low` is the "clip-higher" of DAPO,
    https://arxiv.org/abs/2503.14476. At ratio 1 its gradient is that of `reinforce_loss`. The ratio is not clamped:
    one that overflows gives an infinite loss, which the caller must refuse.

    Args:
        logp_BT: [B, T] log-probabilities of the sampled tokens under the policy being tuned, in nats.
        old_logp_BT: [B, T] the same under the policy that sampled them.
        advantage_BT: [B, T] advantages.
        low: how far below 1 the ratio may fall before a negative advantage stops pushing it down.
        high: how far above 1 it may rise before a positive advantage stops pushing it up.

    Returns:
        Loss, ratio and where the clip held. Gradient flows into `logp_BT` only, and nowhere that the clip holds.

    Raises:
        ShapeError: the shapes differ.
    """
    check_same_shape(logp_BT=logp_BT, old_logp_BT=old_logp_BT, advantage_BT=advantage_BT)
    advantage_BT = advantage_BT.detach()
    ratio_BT = (logp_BT - old_logp_BT.detach()).exp()
    free_BT = ratio_BT * advantage_BT
    clipped_BT = ratio_BT.clamp(1 - low, 1 + high) * advantage_BT
    return Surrogate(
        loss_BT=-torch.minimum(free_BT, clipped_BT),
        ratio_BT=ratio_BT.detach(),
        held_BT=clipped_BT.detach() < free_BT.detach(),
    )


def entropy(logp_BTV: Tensor) -> Tensor:
    """The entropy of the next token, in nats, per position; add `-weight * entropy` to a loss to reward it.

        H_bt = -sum over v of p_btv log p_btv

    Args:
        logp_BTV: [..., V] log-softmax of the logits; -inf is a token that cannot come.

    Returns:
        [...] entropies, between 0 and log V. Gradient flows into `logp_BTV`.
    """
    finite_BTV = logp_BTV.masked_fill(logp_BTV == -torch.inf, 0.0)  # 0 log 0 = 0
    return -(logp_BTV.exp() * finite_BTV).sum(-1)
