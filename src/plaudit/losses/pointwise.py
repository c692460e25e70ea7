"""Learning a reward from one answer at a time: thumbs, ratings, grades; and where a reward's zero is.

    B answers   C cuts between grades   J judgements

Unlike comparisons, these fix the score itself, and not only differences.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from plaudit.errors import ShapeError
from plaudit.shapes import check_same_shape

__all__ = ["centring_penalty", "cuts_of", "ordinal_loss", "rating_loss", "thumb_loss"]


def thumb_loss(score_B: Tensor, thumb_B: Tensor, *, sure_B: Tensor | None = None) -> Tensor:
    """How surprised a reward model is by a thumb, in nats, per answer: the binary log loss.

        loss_b = -log sigmoid(score_b)     thumb up
        loss_b = -log sigmoid(-score_b)    thumb down

    Logistic regression (Cox 1958, https://doi.org/10.1111/j.2517-6161.1958.tb00292.x). The score is the log-odds of
    a thumb up.

    Args:
        score_B: [B] scores, in log-odds.
        thumb_B: [B] bool, True for a thumb up.
        sure_B: [B] P(the thumb is right): 1 less the label smoothing; 1 when not given.

    Returns:
        [B] losses, log 2 at score 0. Gradient flows into `score_B`.

    Raises:
        ShapeError: the shapes differ, or the thumbs are not booleans.
    """
    check_same_shape(score_B=score_B, thumb_B=thumb_B)
    if thumb_B.dtype != torch.bool:
        raise ShapeError(f"thumb_B must hold booleans, True for a thumb up; found {thumb_B.dtype}")
    agreed_B = torch.where(thumb_B, score_B, -score_B)
    if sure_B is None:
        return -F.logsigmoid(agreed_B)
    sure_B = sure_B.to(score_B)
    return -sure_B * F.logsigmoid(agreed_B) - (1 - sure_B) * F.logsigmoid(-agreed_B)


def rating_loss(score_B: Tensor, rating_B: Tensor) -> Tensor:
    """Half the squared distance of a score from a rating, per answer: least squares.

        loss_b = (score_b - rating_b)^2 / 2

    Its optimum is the mean rating. The unit of the score becomes that of the rating, so ratings on the scales of
    several people must be brought to one scale first.

    Args:
        score_B: [B] scores.
        rating_B: [B] ratings.

    Returns:
        [B] losses. Gradient score - rating flows into `score_B`; none into `rating_B`.

    Raises:
        ShapeError: the shapes differ.
    """
    check_same_shape(score_B=score_B, rating_B=rating_B)
    return (score_B - rating_B.detach()) ** 2 / 2


def ordinal_loss(score_B: Tensor, grade_B: Tensor, cut_C: Tensor) -> Tensor:
    """How surprised a reward model is by a grade out of C + 1, in nats, per answer: the cumulative logit.

        P(grade > c) = sigmoid(score - cut_c)
        loss_b = -log(P(grade_b or more) - P(more than grade_b))

    McCullagh 1980, https://doi.org/10.1111/j.2517-6161.1980.tb01109.x. Grades need an order but no distances: the cuts
    are learned. With one cut at 0 it is `thumb_loss`, so grades and thumbs share one scale, log-odds.

    Args:
        score_B: [B] scores, in log-odds.
        grade_B: int64 [B] grades, 0 (worst) to C (best).
        cut_C: [C] the scores between grades, strictly rising; `cuts_of` makes such.

    Returns:
        [B] losses. Gradient flows into `score_B` and `cut_C`.

    Raises:
        ShapeError: the shapes differ, or a grade is not among 0 to C.
    """
    check_same_shape(score_B=score_B, grade_B=grade_B)
    if grade_B.numel() and not 0 <= int(grade_B.min()) <= int(grade_B.max()) <= len(cut_C):
        raise ShapeError(
            f"grades must be 0 to {len(cut_C)} for {len(cut_C)} cuts; found {int(grade_B.min())} to "
            f"{int(grade_B.max())}"
        )
    # log(sigmoid(a) - sigmoid(b)) = log sigmoid(a) + log sigmoid(-b) + log(1 - e^(b - a)), which does not cancel
    lowest, highest = grade_B == 0, grade_B == len(cut_C)
    under_B = cut_C[(grade_B - 1).clamp(min=0)]
    over_B = cut_C[grade_B.clamp(max=len(cut_C) - 1)]
    at_least_B = F.logsigmoid(score_B - under_B).masked_fill(lowest, 0.0)
    at_most_B = F.logsigmoid(over_B - score_B).masked_fill(highest, 0.0)
    width_B = (over_B - under_B).masked_fill(lowest | highest, 1.0)
    between_B = (-torch.expm1(-width_B)).log().masked_fill(lowest | highest, 0.0)
    return -(at_least_B + at_most_B + between_B)


def cuts_of(free_C: Tensor) -> Tensor:
    """[C] strictly rising cuts out of any C numbers: the first as it is, each other one softplus above the last.

    Args:
        free_C: [C] what is learned. Gradient flows into it.
    """
    return torch.cat([free_C[:1], F.softplus(free_C[1:])]).cumsum(0)


def centring_penalty(score_B: Tensor, sizes: Sequence[int]) -> Tensor:
    """The square of the mean score of each judgement's answers: it pulls the free constant of comparisons to 0.

        penalty_j = ((1 / K_j) sum over k of score_jk)^2

    Eisenstein et al. 2023, https://arxiv.org/abs/2312.09244, whose (score_1 + score_2)^2 for a pair is 4 times this.

    Args:
        score_B: [B] one score per answer, judgement after judgement.
        sizes: K of each judgement.

    Returns:
        [J] penalties. Gradient flows into `score_B`.

    Raises:
        ShapeError: the sizes do not add up to the scores.
    """
    if score_B.shape != (sum(sizes),):
        raise ShapeError(f"score_B {tuple(score_B.shape)} must hold one score for each of {sum(sizes)} answers")
    return torch.stack([scores_K.mean() for scores_K in score_B.split(list(sizes))]) ** 2
