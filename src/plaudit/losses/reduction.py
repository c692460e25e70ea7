"""From one number per token to one number: sums that know what to be divided by.

    B sequences   T tokens

"Mean over tokens" and "mean over answers" are different algorithms, so each is a function of its own. Each gives
a `Portion`, a sum and its denominator, because a mean over a batch that is computed in pieces is the sum of the
sums over the sum of the denominators, not a mean of means:

    portions = [token_portion(loss_BT, mask_BT) for ...]        # one per micro-batch
    loss = mean_of(portions)                                    # the same for every split

When the pieces go backward one by one, divide each `portion.total` by the denominator of the whole minibatch, which the
masks alone tell: `token_count` or the number of sequences.

A mask selects, it never multiplies (NaN x 0 is NaN): what it leaves out does not reach the sum and gets gradient 0.
A NaN that was made from an unselected token still meets that 0 on the way back, and 0 x NaN is NaN: give padding
finite log-probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from plaudit.errors import RecipeError, ShapeError
from plaudit.shapes import check_mask, check_rows, check_same_shape

__all__ = [
    "Portion",
    "constant_portion",
    "masked_sum",
    "mean_of",
    "sequence_portion",
    "token_count",
    "token_portion",
]


class Portion(NamedTuple):
    """A part of a mean."""

    total: Tensor
    """Scalar: the weighted sum, which carries the gradient."""
    denominator: float
    """What the sums of all parts together are divided by: the sum of this over the parts."""


def masked_sum(x_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The sum of the selected entries along the last axis.

        s_b = sum over t with mask_bt of x_bt

    Args:
        x_BT: [..., T] any values; what is not selected may even be NaN.
        mask_BT: [..., T] bool, True where an entry counts.

    Returns:
        [...] sums, 0 where nothing is selected. Gradient flows into `x_BT` where selected.

    Raises:
        ShapeError: the shapes differ, or the mask is not boolean.
    """
    check_same_shape(x_BT=x_BT, mask_BT=mask_BT)
    check_mask("mask_BT", mask_BT)
    return x_BT.masked_fill(~mask_BT, 0.0).sum(-1)


def token_count(mask_BT: Tensor) -> int:
    """How many tokens are selected: the denominator of `token_portion`."""
    check_mask("mask_BT", mask_BT)
    return int(mask_BT.sum())


def token_portion(x_BT: Tensor, mask_BT: Tensor) -> Portion:
    """Every token weighs the same; a long answer weighs more.

        total = sum over selected b, t of x_bt        denominator = number of selected tokens

    This is the mean of PPO for language models and of DAPO (https://arxiv.org/abs/2503.14476, eq. 8).

    Args:
        x_BT: [B, T] or any other shape, such as one packed row [N].
        mask_BT: the same shape, bool.

    Raises:
        ShapeError: the shapes differ, or the mask is not boolean.
    """
    return Portion(masked_sum(x_BT, mask_BT).sum(), token_count(mask_BT))


def sequence_portion(x_BT: Tensor, mask_BT: Tensor) -> Portion:
    """Every answer weighs the same; a token of a long answer weighs less.

        total = sum over b of (1 / |mask_b|) sum over selected t of x_bt        denominator = B

    This is the mean of GRPO (https://arxiv.org/abs/2402.03300, eq. 3).

    Args:
        x_BT: [B, T].
        mask_BT: [B, T] bool.

    Raises:
        ShapeError: the shapes differ, the mask is not boolean, or a row of it selects nothing.
    """
    sum_B = masked_sum(x_BT, mask_BT)
    check_rows("mask_BT", mask_BT)
    return Portion((sum_B / mask_BT.sum(-1)).sum(), sum_B.numel())


def constant_portion(x_BT: Tensor, mask_BT: Tensor, *, budget: float) -> Portion:
    """Every token weighs the same in every batch, however long the others are.

        total = sum over selected b, t of x_bt        denominator = B budget

    This is the mean of Liu et al. 2025 (Dr. GRPO), appendix, https://arxiv.org/abs/2503.20783. It is the sum over each
    answer's tokens, averaged over answers and scaled by a constant: the only one of the three that keeps the direction
    of the policy gradient. The other two divide by lengths, which the policy itself chooses.

    Args:
        x_BT: [B, T].
        mask_BT: [B, T] bool; a row that selects nothing adds 0, and still counts as an answer.
        budget: tokens per answer to divide by, such as the longest answer allowed; a constant of the run.

    Raises:
        ShapeError: the shapes differ, or the mask is not boolean.
        RecipeError: the budget is not above 0.
    """
    if budget <= 0:
        raise RecipeError(f"budget must be above 0 tokens, got {budget}")
    sum_B = masked_sum(x_BT, mask_BT)
    return Portion(sum_B.sum(), sum_B.numel() * budget)


def mean_of(portions: Sequence[Portion]) -> Tensor:
    """The mean that the portions are parts of: sum of totals over sum of denominators.

    Returns:
        A scalar; gradient flows into every total.

    Raises:
        ShapeError: the denominators add up to 0, so there is nothing to take a mean of.
    """
    denominator = sum(portion.denominator for portion in portions)
    if denominator == 0:
        raise ShapeError(f"no token is selected in any of the {len(portions)} portions: there is no mean")
    return torch.stack([portion.total for portion in portions]).sum() / denominator
