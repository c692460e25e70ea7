"""From rewards to advantages: how much better than expected each token did.

    B sequences   T tokens

Nothing here carries gradient: an advantage is a number that a loss multiplies by. Masks say which tokens of a row the
policy chose. What they leave out (a prompt in front, padding behind, another speaker's turn between) is not a step: it
is skipped, its rewards and values are never read, and it gets 0.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from plaudit.errors import ShapeError
from plaudit.shapes import check_mask, check_rows, check_same_shape

__all__ = [
    "Advantages",
    "gae",
    "group_mean",
    "last_token",
    "leave_one_out",
    "reward_to_go",
    "token_rewards",
    "whiten",
]


class Advantages(NamedTuple):
    """What GAE finds."""

    advantage_BT: Tensor
    """[B, T] how much better than the critic's guess, in units of reward; 0 where not selected."""
    return_BT: Tensor
    """[B, T] advantage + value: what the critic should have guessed; 0 where not selected."""


def last_token(mask_BT: Tensor) -> Tensor:
    """The position of the last selected token of each row: where an answer's score belongs.

    Args:
        mask_BT: [B, T] bool.

    Returns:
        [B] positions.

    Raises:
        ShapeError: the mask is not boolean, or selects nothing in some row.
    """
    check_mask("mask_BT", mask_BT)
    check_rows("mask_BT", mask_BT)
    position_T = torch.arange(mask_BT.shape[-1], device=mask_BT.device)
    return position_T.expand_as(mask_BT).masked_fill(~mask_BT, -1).max(-1).values


def token_rewards(score_B: Tensor, kl_BT: Tensor, mask_BT: Tensor, *, beta: float) -> Tensor:
    """Rewards per token: the cost of leaving the reference on each, the answer's score on the last real one.

        r_bt = -beta kl_bt + score_b [t is the last selected token of b]

    Ziegler et al. 2019, eq. 2, https://arxiv.org/abs/1909.08593. The score sits *on* the token that ends the answer,
    not behind it, so no discount and no lambda comes between the two.

    Args:
        score_B: [B] one score per answer, in units of reward.
        kl_BT: [B, T] an estimate of the KL divergence at each token in nats, such as `kl.k1`.
        mask_BT: [B, T] bool, the tokens of the answer.
        beta: cost of a nat, in units of reward.

    Returns:
        [B, T] rewards without gradient, 0 where not selected.

    Raises:
        ShapeError: the shapes do not fit, the mask is not boolean, or a row of it selects nothing.
    """
    check_same_shape(kl_BT=kl_BT, mask_BT=mask_BT)
    if score_B.shape != mask_BT.shape[:-1]:
        raise ShapeError(
            f"score_B {tuple(score_B.shape)} must hold one score for each row of mask_BT {tuple(mask_BT.shape)}"
        )
    last_B1 = last_token(mask_BT).unsqueeze(-1)
    cost_BT = (-beta * kl_BT.detach()).masked_fill(~mask_BT, 0.0)
    return cost_BT.scatter_add(-1, last_B1, score_B.detach().to(cost_BT.dtype).unsqueeze(-1))


def reward_to_go(reward_BT: Tensor, mask_BT: Tensor, *, discount: float = 1.0) -> Tensor:
    """What is still to be earned from each token on, its own reward included.

        R_t = r_t + discount R_{t+1}        over the selected tokens of a row

    Args:
        reward_BT: [B, T] rewards.
        mask_BT: [B, T] bool.
        discount: weight of the reward one selected token later (gamma).

    Returns:
        [B, T] returns without gradient, 0 where not selected.

    Raises:
        ShapeError: the shapes differ, or the mask is not boolean.
    """
    check_same_shape(reward_BT=reward_BT, mask_BT=mask_BT)
    check_mask("mask_BT", mask_BT)
    return _discounted_sum(reward_BT.detach(), mask_BT, discount)


def gae(
    reward_BT: Tensor, value_BT: Tensor, mask_BT: Tensor, *, discount: float = 1.0, lambda_: float = 0.95
) -> Advantages:
    """Generalised advantage estimates of finished episodes.

        delta_t = r_t + discount V_{t+1} - V_t        V is 0 after the last selected token
        A_t     = delta_t + discount lambda A_{t+1}

    Schulman et al. 2016, eq. 16, https://arxiv.org/abs/1506.02438. With lambda = 1, A_t = reward_to_go_t - V_t; with
    lambda = 0, A_t = delta_t. An answer that was cut counts as finished too: its score was given for what is there.

    Args:
        reward_BT: [B, T] rewards.
        value_BT: [B, T] the critic's guess *before* each token is chosen.
        mask_BT: [B, T] bool, the tokens that the policy chose.
        discount: weight of the reward one selected token later (gamma).
        lambda_: trust in sampled returns (1) against the critic's guess of them (0).

    Returns:
        Advantages and returns, without gradient.

    Raises:
        ShapeError: the shapes differ, or the mask is not boolean.
    """
    check_same_shape(reward_BT=reward_BT, value_BT=value_BT, mask_BT=mask_BT)
    check_mask("mask_BT", mask_BT)
    value_BT = value_BT.detach().masked_fill(~mask_BT, 0.0)
    delta_BT = reward_BT.detach() + discount * _next_selected(value_BT, mask_BT) - value_BT
    advantage_BT = _discounted_sum(delta_BT, mask_BT, discount * lambda_)
    return Advantages(advantage_BT, advantage_BT + value_BT)


def _discounted_sum(x_BT: Tensor, mask_BT: Tensor, factor: float) -> Tensor:
    """s_t = x_t + factor s_{t+1} over the selected entries of each row, 0 elsewhere."""
    sum_BT = torch.zeros_like(x_BT)
    ahead_B = torch.zeros_like(x_BT[..., 0])
    for t in reversed(range(x_BT.shape[-1])):
        ahead_B = torch.where(mask_BT[..., t], x_BT[..., t] + factor * ahead_B, ahead_B)
        sum_BT[..., t] = ahead_B
    return sum_BT.masked_fill(~mask_BT, 0.0)


def _next_selected(x_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The entry at the next selected position to the right, 0 after the last."""
    next_BT = torch.zeros_like(x_BT)
    ahead_B = torch.zeros_like(x_BT[..., 0])
    for t in reversed(range(x_BT.shape[-1])):
        next_BT[..., t] = ahead_B
        ahead_B = torch.where(mask_BT[..., t], x_BT[..., t], ahead_B)
    return next_BT


def leave_one_out(score_B: Tensor, group_B: Tensor, keep_B: Tensor | None = None) -> Tensor:
    """Each answer's score minus the mean of the *other* answers of its group.

        A_i = r_i - (1 / (G - 1)) sum over j in the group, j != i, of r_j

    Kool et al. 2019, https://openreview.net/forum?id=r1lgTGL5DE; Ahmadian et al. 2024 (RLOO), eq. 6,
    https://arxiv.org/abs/2402.14740. Unbiased, because the baseline does not know the answer itself.

    Args:
        score_B: [B] scores; those that `keep_B` leaves out may be NaN.
        group_B: [B] which group each answer belongs to, any integers; sizes may differ, order does not matter.
        keep_B: [B] bool, False for an answer that failed or could not be scored: it is in nobody's baseline.

    Returns:
        [B] advantages without gradient, 0 for answers left out; those of one group add up to 0.

    Raises:
        ShapeError: the shapes differ, `keep_B` is not boolean, or a group keeps exactly one answer.
    """
    group = _groups(score_B, group_B, keep_B)
    return (group.score_B - (group.total_B - group.score_B) / (group.size_B - 1)).masked_fill(~group.keep_B, 0.0)


def group_mean(score_B: Tensor, group_B: Tensor, keep_B: Tensor | None = None) -> Tensor:
    """Each answer's score minus the mean of its group, itself included.

        A_i = r_i - (1 / G) sum over j in the group of r_j = (G - 1) / G times `leave_one_out`

    Liu et al. 2025 (Dr. GRPO), https://arxiv.org/abs/2503.20783. Its expected gradient is (G - 1) / G of the true one.
    Takes, returns and raises what `leave_one_out` does.
    """
    group = _groups(score_B, group_B, keep_B)
    return (group.score_B - group.total_B / group.size_B).masked_fill(~group.keep_B, 0.0)


class _Groups(NamedTuple):
    score_B: Tensor  # 0 where left out
    keep_B: Tensor
    total_B: Tensor  # sum over the kept answers of the own group
    size_B: Tensor  # number of them


def _groups(score_B: Tensor, group_B: Tensor, keep_B: Tensor | None) -> _Groups:
    keep_B = torch.ones_like(group_B, dtype=torch.bool) if keep_B is None else keep_B
    check_same_shape(score_B=score_B, group_B=group_B, keep_B=keep_B)
    check_mask("keep_B", keep_B)
    name_P, index_B = group_B.unique(return_inverse=True)
    kept_B = score_B.detach().masked_fill(~keep_B, 0.0)
    total_P = kept_B.new_zeros(len(name_P)).index_add(0, index_B, kept_B)
    size_P = kept_B.new_zeros(len(name_P)).index_add(0, index_B, keep_B.to(kept_B.dtype))
    alone = name_P[size_P == 1].tolist()
    if alone:
        raise ShapeError(
            f"a baseline from the group needs 2 or more scored answers in each; groups {alone} of group_B keep 1: "
            "sample more, or leave these answers out (keep_B False)"
        )
    return _Groups(kept_B, keep_B, total_P[index_B], size_P[index_B])


def whiten(x_BT: Tensor, mask_BT: Tensor, *, shift_mean: bool = True, epsilon: float = 1e-8) -> Tensor:
    """Give the selected entries standard deviation 1, and mean 0 unless told to keep it.

        w = (x - mean) / sqrt(variance + epsilon)      (+ mean if not shift_mean)

    Mean and variance go over all selected entries together; the variance is that of the population (divided by n, not
    n - 1). `shift_mean` takes the mean away, as in Ziegler et al. 2019's code (`utils/core.py`,
    https://github.com/openai/lm-human-preferences). Whitening is biased: the factor depends on the batch.

    Args:
        x_BT: [B, T] advantages (shift the mean) or rewards (keep it).
        mask_BT: [B, T] bool, over the whole batch that is to be whitened, not over a micro-batch.
        shift_mean: take the mean away; False puts it back after scaling.
        epsilon: added to the variance, so that equal entries give 0 (or their mean) and not NaN.

    Returns:
        [B, T] without gradient, 0 where not selected.

    Raises:
        ShapeError: the shapes differ, the mask is not boolean or selects nothing.
    """
    check_same_shape(x_BT=x_BT, mask_BT=mask_BT)
    check_mask("mask_BT", mask_BT)
    if not mask_BT.any():
        raise ShapeError("mask_BT selects no token: there is nothing to whiten")
    x_BT = x_BT.detach()
    selected_N = x_BT[mask_BT]
    mean = selected_N.mean()
    white_BT = (x_BT - mean) / (selected_N.var(correction=0) + epsilon).sqrt()
    return (white_BT if shift_mean else white_BT + mean).masked_fill(~mask_BT, 0.0)
