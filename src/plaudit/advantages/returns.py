"""From rewards to what is still to be earned at each token or turn, and how much of it a critic did not expect.

B sequences   T tokens   U turns of a conversation
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
    "last_token",
    "next_selected",
    "per_token",
    "per_turn",
    "reward_to_go",
    "token_rewards",
    "turn_returns",
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
    delta_BT = reward_BT.detach() + discount * next_selected(value_BT, mask_BT) - value_BT
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


def next_selected(x_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """What stands at the next selected position of the row: the value of the state that a token leads to.

        y_t = x_u        u the first selected position after t; 0 where there is none

    Args:
        x_BT: [B, T] any values; what is not selected is never read.
        mask_BT: [B, T] bool.

    Returns:
        [B, T]. Gradient flows into `x_BT` where selected.

    Raises:
        ShapeError: the shapes differ, or the mask is not boolean.
    """
    check_same_shape(x_BT=x_BT, mask_BT=mask_BT)
    check_mask("mask_BT", mask_BT)
    next_BT = []
    ahead_B = torch.zeros_like(x_BT[..., 0])
    for t in reversed(range(x_BT.shape[-1])):
        next_BT.append(ahead_B)
        ahead_B = torch.where(mask_BT[..., t], x_BT[..., t], ahead_B)
    return torch.stack(next_BT[::-1], -1)


def turn_returns(reward_BU: Tensor, mask_BU: Tensor, *, discount: float = 1.0) -> Tensor:
    """What each turn of a conversation is still to earn, its own reward included.

        R_k = r_k + discount R_{k+1}        over the turns of a row

    The policy's turns are the actions here, whole answers: a turn that is a question of somebody else is none, and
    takes no discount. `per_turn` gives each token the return of its turn. Within a turn nothing is discounted, so that
    for one turn this is the reward itself.

    Args:
        reward_BU: [B, U] one reward for each turn of each conversation.
        mask_BU: [B, U] bool, False behind the last turn of a shorter conversation.
        discount: weight of the reward one turn later (gamma).

    Returns:
        [B, U] returns without gradient, 0 where not selected.

    Raises:
        ShapeError: the shapes differ, or the mask is not boolean.
    """
    check_same_shape(reward_BU=reward_BU, mask_BU=mask_BU)
    check_mask("mask_BU", mask_BU)
    return _discounted_sum(reward_BU.detach(), mask_BU, discount)


def per_turn(x_BU: Tensor, turn_BT: Tensor) -> Tensor:
    """Give every token the number of its turn.

        y_bt = x_b,turn_bt

    Args:
        x_BU: [B, U] one number for each turn, such as a return less a baseline.
        turn_BT: [B, T] int64, which turn of the policy each token belongs to, counted from 0; -1 for tokens that the
            policy did not choose.

    Returns:
        [B, T] without gradient, 0 at -1.

    Raises:
        ShapeError: the rows differ in number, or a token names a turn that is not there.
    """
    turns = x_BU.shape[-1]
    if x_BU.shape[:-1] != turn_BT.shape[:-1]:
        raise ShapeError(f"x_BU {tuple(x_BU.shape)} and turn_BT {tuple(turn_BT.shape)} must have the same rows")
    if turn_BT.numel() and not -1 <= int(turn_BT.min()) <= int(turn_BT.max()) < turns:
        raise ShapeError(
            f"turn_BT names turns {int(turn_BT.min())} to {int(turn_BT.max())}; x_BU {tuple(x_BU.shape)} has 0 to "
            f"{turns - 1}, and -1 stands for tokens of nobody's turn"
        )
    return x_BU.detach().gather(-1, turn_BT.clamp(min=0)).masked_fill(turn_BT < 0, 0.0)


def per_token(advantage_B: Tensor, mask_BT: Tensor) -> Tensor:
    """Give every token of an answer the answer's advantage.

        A_bt = A_b on the selected tokens

    Args:
        advantage_B: [B] one advantage per answer.
        mask_BT: [B, T] bool, the tokens of the answer.

    Returns:
        [B, T] without gradient, 0 where not selected.

    Raises:
        ShapeError: there is not one advantage for each row of the mask, or the mask is not boolean.
    """
    check_mask("mask_BT", mask_BT)
    if advantage_B.shape != mask_BT.shape[:-1]:
        raise ShapeError(
            f"advantage_B {tuple(advantage_B.shape)} must hold one for each row of mask_BT {tuple(mask_BT.shape)}"
        )
    return advantage_B.detach().unsqueeze(-1).expand(mask_BT.shape).masked_fill(~mask_BT, 0.0)
