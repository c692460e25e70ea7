"""Baselines for answers that each have one score: what is subtracted before an answer is called good.

B answers, those of all groups in any order   P groups   T tokens
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor

from plaudit.errors import NumberError, RecipeError, ShapeError
from plaudit.shapes import check_mask, check_same_shape

__all__ = [
    "RunningMean",
    "batch_mean",
    "group_deviation",
    "group_mean",
    "group_normalised",
    "leave_one_out",
    "minus_baseline",
    "whiten",
]


def minus_baseline(score_B: Tensor, baseline_B: Tensor | float, keep_B: Tensor | None = None) -> Tensor:
    """Each answer's score minus what was expected before the answer was there.

        A_b = r_b - baseline_b

    Unbiased for every baseline that does not depend on answer b itself (Williams 1992, section 3,
    https://doi.org/10.1007/BF00992696): a constant; the mean of past rounds (`RunningMean`); the score of the prompt
    alone; the score of the greedy answer to it (self-critical training, Rennie et al. 2017,
    https://arxiv.org/abs/1612.00563); the mean score of fresh answers that are not trained on; a critic's value of the
    prompt.

    Args:
        score_B: [B] scores.
        baseline_B: [B] baselines, or one number for all.
        keep_B: [B] bool, False for an answer that failed or could not be scored; its numbers may be NaN.

    Returns:
        [B] advantages without gradient, 0 for answers left out.

    Raises:
        ShapeError: the shapes differ, or `keep_B` is not boolean.
    """
    baseline_B = baseline_B if isinstance(baseline_B, Tensor) else torch.full_like(score_B, baseline_B)
    keep_B = torch.ones_like(score_B, dtype=torch.bool) if keep_B is None else keep_B
    check_same_shape(score_B=score_B, baseline_B=baseline_B, keep_B=keep_B)
    check_mask("keep_B", keep_B)
    return (score_B.detach() - baseline_B.detach()).masked_fill(~keep_B, 0.0)


@dataclass(frozen=True, slots=True)
class RunningMean:
    """The mean score of past rounds, as a baseline for the next one.

        total  <- decay total  + sum of the round's scores
        weight <- decay weight + number of them
        baseline = total / weight        `start` before the first round

    A plain frozen value, as the controllers of `plaudit.kl` are. Update it *after* the round's advantages are made: a
    baseline that holds the answer's own score shrinks the gradient and no longer stands before the answer.
    """

    decay: float = 0.9
    """What a score weighs one round later; 1 is the mean over all rounds, 0 that of the last one."""
    start: float = 0.0
    """Baseline of the first round, in units of reward."""
    total: float = 0.0
    """Sum of past scores, older ones weighing less."""
    weight: float = 0.0
    """Sum of their weights."""

    def __post_init__(self) -> None:
        if not 0 <= self.decay <= 1:
            raise RecipeError(f"decay must lie in [0, 1], got {self.decay}")

    @property
    def baseline(self) -> float:
        """What to subtract in this round, in units of reward."""
        return self.total / self.weight if self.weight else self.start

    def update(self, score_B: Tensor, keep_B: Tensor | None = None) -> Self:
        """The mean after a round; a round in which nothing was kept changes nothing.

        Raises:
            ShapeError: the shapes differ, or `keep_B` is not boolean.
            NumberError: a kept score is not finite.
        """
        keep_B = torch.ones_like(score_B, dtype=torch.bool) if keep_B is None else keep_B
        check_same_shape(score_B=score_B, keep_B=keep_B)
        check_mask("keep_B", keep_B)
        kept_N = score_B.detach()[keep_B].double()
        total = float(kept_N.sum())
        if not math.isfinite(total):
            raise NumberError(f"the scores of the round add up to {total}: the running mean cannot follow them")
        if not len(kept_N):
            return self
        return replace(self, total=self.decay * self.total + total, weight=self.decay * self.weight + len(kept_N))

    def state(self) -> dict[str, float]:
        """What changes from round to round, as JSON values."""
        return {"total": self.total, "weight": self.weight}

    def restored(self, state: Mapping[str, float]) -> Self:
        """This baseline with the `state()` of another moment."""
        return replace(self, total=state["total"], weight=state["weight"])


def batch_mean(score_B: Tensor, keep_B: Tensor | None = None) -> Tensor:
    """Each answer's score minus the mean of the batch, itself included.

        A_i = r_i - (1 / N) sum over j of r_j

    Whichever prompts the others answer, the own score in the mean is what matters: the expected gradient is (N - 1) / N
    of the true one, for N answers kept.

    Args:
        score_B: [B] scores; those that `keep_B` leaves out may be NaN.
        keep_B: [B] bool, False for an answer that failed or could not be scored.

    Returns:
        [B] advantages without gradient, 0 for answers left out; they add up to 0.

    Raises:
        ShapeError: the shapes differ, `keep_B` is not boolean, or exactly one answer is kept.
    """
    return group_mean(score_B, torch.zeros_like(score_B, dtype=torch.long), keep_B)


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


def group_normalised(
    score_B: Tensor,
    group_B: Tensor,
    keep_B: Tensor | None = None,
    *,
    deviation: Literal["population", "sample"] = "sample",
    epsilon: float = 1e-4,
) -> Tensor:
    """Each answer's score minus the mean of its group, divided by the group's standard deviation.

        A_i = (r_i - mean) / (sd + epsilon)        sd^2 = (1 / n) sum over j of (r_j - mean)^2

    Shao et al. 2024 (GRPO), section 4.1.2, https://arxiv.org/abs/2402.03300; DAPO, eq. 9,
    https://arxiv.org/abs/2503.14476. Neither says what n is. `population` is n = G: NumPy's default, and so
    open-instruct's (epsilon 1e-8). `sample` is n = G - 1: torch's default, and so TRL's (epsilon 1e-4) and verl's
    (1e-6). They differ by the factor sqrt((G - 1) / G), which is 0.71 at G = 2. Biased: a prompt on which all answers
    are nearly as good weighs as much as one on which much is to be gained. `group_mean` is the same without the
    division (Dr. GRPO).

    Args:
        score_B: [B] scores; those that `keep_B` leaves out may be NaN.
        group_B: [B] which group each answer belongs to, any integers; sizes may differ, order does not matter.
        keep_B: [B] bool, False for an answer that failed or could not be scored.
        deviation: which standard deviation.
        epsilon: added to it, in units of reward: with it, scores that hardly differ count for little.

    Returns:
        [B] advantages without gradient; 0 for answers left out, and for those of a group whose scores are all equal.

    Raises:
        ShapeError: the shapes differ, `keep_B` is not boolean, or a group keeps exactly one answer.
        RecipeError: there is no such deviation.
    """
    deviation_B = group_deviation(score_B, group_B, keep_B, deviation=deviation)
    return torch.where(deviation_B > 0, group_mean(score_B, group_B, keep_B) / (deviation_B + epsilon), 0.0)


def group_deviation(
    score_B: Tensor,
    group_B: Tensor,
    keep_B: Tensor | None = None,
    *,
    deviation: Literal["population", "sample"] = "sample",
) -> Tensor:
    """The standard deviation of the scores of each answer's group, in units of reward.

    Takes and raises what `group_normalised` does.

    Returns:
        [B] without gradient; exactly 0 for answers left out, and for those of a group whose scores are all equal.
    """
    if deviation not in ("population", "sample"):
        raise RecipeError(f"deviation must be population or sample, got {deviation!r}")
    group = _groups(score_B, group_B, keep_B)
    apart_B = (group.score_B - group.total_B / group.size_B).masked_fill(~group.keep_B, 0.0)
    count_B = group.size_B - 1 if deviation == "sample" else group.size_B
    deviation_B = (_of_group(apart_B.square(), group) / count_B).sqrt()
    # equal scores rarely have a mean that is exactly theirs: ask whether they differ, not whether the deviation is 0
    lowest_P = group.score_B.new_full((len(group.size_B),), torch.inf).scatter_reduce(
        0, group.index_B, group.score_B.masked_fill(~group.keep_B, torch.inf), "amin"
    )
    varies_B = _of_group((group.score_B > lowest_P[group.index_B]).to(apart_B.dtype), group) > 0
    return torch.where(varies_B & group.keep_B, deviation_B, 0.0)


class _Groups(NamedTuple):
    score_B: Tensor  # 0 where left out
    keep_B: Tensor
    total_B: Tensor  # sum over the kept answers of the own group
    size_B: Tensor  # number of them
    index_B: Tensor  # the own group, counted from 0


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
    return _Groups(kept_B, keep_B, total_P[index_B], size_P[index_B], index_B)


def _of_group(x_B: Tensor, group: _Groups) -> Tensor:
    """[B] the sum of the own group."""
    return x_B.new_zeros(len(x_B)).index_add(0, group.index_B, x_B)[group.index_B]


def whiten(x_BT: Tensor, mask_BT: Tensor, *, shift_mean: bool = True, epsilon: float = 1e-8) -> Tensor:
    """Give the selected entries standard deviation 1, and mean 0 unless told to keep it.

        w = (x - mean) / sqrt(variance + epsilon)      (+ mean if not shift_mean)

    Mean and variance go over all selected entries together; the variance is that of the population (divided by n, not
    n - 1). `shift_mean` takes the mean away, as in Ziegler et al. 2019's code (`utils/core.py`,
    https://github.com/openai/lm-human-preferences). Whitening is biased: the factor depends on the batch.

    Args:
        x_BT: [B, T] advantages (shift the mean) or rewards (keep it); or [B], one score per answer.
        mask_BT: the same shape, bool, over the whole batch that is to be whitened, not over a micro-batch.
        shift_mean: take the mean away; False puts it back after scaling.
        epsilon: added to the variance, so that equal entries give 0 (or their mean) and not NaN.

    Returns:
        The same shape, without gradient, 0 where not selected.

    Raises:
        ShapeError: the shapes differ, the mask is not boolean or selects nothing.
    """
    check_same_shape(x_BT=x_BT, mask_BT=mask_BT)
    check_mask("mask_BT", mask_BT)
    if not mask_BT.any():
        raise ShapeError("mask_BT selects no token: there is nothing to whiten")
    wide_BT = x_BT.detach().double()  # where all are equal, an fp32 mean's rounding would be blown up
    selected_N = wide_BT[mask_BT]
    mean = selected_N.mean()
    white_BT = (wide_BT - mean) / (selected_N.var(correction=0) + epsilon).sqrt()
    return (white_BT if shift_mean else white_BT + mean).masked_fill(~mask_BT, 0.0).to(x_BT.dtype)
