"""Learning a reward from one answer at a time: thumbs up and down.

B answers
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from plaudit.errors import ShapeError
from plaudit.shapes import check_same_shape

__all__ = ["thumb_loss"]


def thumb_loss(score_B: Tensor, thumb_B: Tensor) -> Tensor:
    """How surprised a reward model is by a thumb, in nats, per answer: the binary log loss.

        loss_b = -log sigmoid(score_b)     thumb up
        loss_b = -log sigmoid(-score_b)    thumb down

    Logistic regression (Cox 1958, https://doi.org/10.1111/j.2517-6161.1958.tb00292.x). Unlike a comparison, a thumb
    fixes the score itself, in log-odds of a thumb up, and not only differences.

    Args:
        score_B: [B] scores, in log-odds.
        thumb_B: [B] bool, True for a thumb up.

    Returns:
        [B] losses, log 2 at score 0. Gradient flows into `score_B`.

    Raises:
        ShapeError: the shapes differ, or the thumbs are not booleans.
    """
    check_same_shape(score_B=score_B, thumb_B=thumb_B)
    if thumb_B.dtype != torch.bool:
        raise ShapeError(f"thumb_B must hold booleans, True for a thumb up; found {thumb_B.dtype}")
    return -F.logsigmoid(torch.where(thumb_B, score_B, -score_B))
