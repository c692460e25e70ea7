"""What moves a critic: squared error, with or without a clip, and how much it explains.

B sequences   T tokens
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from plaudit.errors import ShapeError
from plaudit.shapes import check_mask, check_same_shape

__all__ = ["ClippedValue", "clipped_value_loss", "explained_variance", "value_loss"]


class ClippedValue(NamedTuple):
    """The critic's loss and where its clip decided."""

    loss_BT: Tensor
    """[B, T] loss; the only field with a gradient."""
    held_BT: Tensor
    """[B, T] bool: the clip decided this token, which then has no gradient."""


def value_loss(value_BT: Tensor, return_BT: Tensor) -> Tensor:
    """Half the squared error of a critic, per token, in reward squared.

        loss_bt = (value_bt - return_bt)^2 / 2

    Args:
        value_BT: [B, T] the critic's guess of what is still to be earned.
        return_BT: [B, T] what was earned, or an estimate of it.

    Returns:
        [B, T] losses. Gradient (value - return) flows into `value_BT` only.

    Raises:
        ShapeError: the shapes differ.
    """
    check_same_shape(value_BT=value_BT, return_BT=return_BT)
    return (value_BT - return_BT.detach()).square() / 2


def clipped_value_loss(value_BT: Tensor, old_value_BT: Tensor, return_BT: Tensor, *, clip: float = 0.2) -> ClippedValue:
    """The larger of a critic's loss and of its loss when it may move only `clip` away from its old value.

        near_bt = old_bt + clip(value_bt - old_bt, -clip, clip)
        loss_bt = max((value_bt - return_bt)^2, (near_bt - return_bt)^2) / 2

    Ziegler et al. 2019's code, https://github.com/openai/lm-human-preferences (`train_policy.py`). The clip is in units
    of reward: 0.2 presumes rewards of standard deviation 1.

    Args:
        value_BT: [B, T] the critic's guess.
        old_value_BT: [B, T] its guess when the answers were sampled.
        return_BT: [B, T] what was earned, or an estimate of it.
        clip: how far the value may move, in units of reward.

    Returns:
        Loss and where the clip held. Gradient flows into `value_BT` only, and nowhere that the clip holds.

    Raises:
        ShapeError: the shapes differ.
    """
    check_same_shape(value_BT=value_BT, old_value_BT=old_value_BT, return_BT=return_BT)
    old_BT = old_value_BT.detach()
    near_BT = old_BT + (value_BT - old_BT).clamp(-clip, clip)
    free_BT, clipped_BT = value_loss(value_BT, return_BT), value_loss(near_BT, return_BT)
    return ClippedValue(torch.maximum(free_BT, clipped_BT), clipped_BT.detach() > free_BT.detach())


def explained_variance(value_BT: Tensor, return_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """How much of the returns' variance a critic explains, over the selected tokens.

        1 - Var(return - value) / Var(return)

    1 is a critic that is right up to a constant, 0 one that knows nothing, below 0 one that is worse than a constant.

    Args:
        value_BT: [B, T] the critic's guess.
        return_BT: [B, T] what was earned.
        mask_BT: [B, T] bool.

    Returns:
        A scalar without gradient; NaN where the returns do not vary, so that there is nothing to explain.

    Raises:
        ShapeError: the shapes differ, the mask is not boolean or selects nothing.
    """
    check_same_shape(value_BT=value_BT, return_BT=return_BT, mask_BT=mask_BT)
    check_mask("mask_BT", mask_BT)
    if not mask_BT.any():
        raise ShapeError("mask_BT selects no token: there is no variance")
    return_N = return_BT.detach()[mask_BT]
    spread = return_N.var(correction=0)
    unexplained = (return_N - value_BT.detach()[mask_BT]).var(correction=0)
    return torch.where(spread > 0, 1 - unexplained / spread, torch.nan)
