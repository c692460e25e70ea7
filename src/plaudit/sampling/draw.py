"""Drawing tokens from logits: the same function for every road that decodes.

Shape letters:  S answers in flight   V vocabulary
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Drawn", "draw", "keep_top", "passed", "uniforms"]


class Drawn(NamedTuple):
    """One token for each row."""

    token_S: Tensor
    """int64 [S] its id."""
    logp_S: Tensor
    """[S] its log-probability in nats under the distribution drawn from."""
    support_SV: Tensor | None
    """bool [S, V] which tokens could have come; None where none was left out."""


def uniforms(seed: int, count: int) -> Tensor:
    """[count] numbers in [0, 1) that belong to one answer: a counter-based stream keyed by its seed."""
    stream = np.random.Generator(np.random.Philox(key=seed))
    return torch.from_numpy(stream.random(count, dtype=np.float32))


def draw(logits_SV: Tensor, uniform_S: Tensor, *, temperature: float, top_p: float = 1.0) -> Drawn:
    """One token for each row, by inverting the cumulative distribution at the row's own uniform number.

    Args:
        logits_SV: [S, V].
        uniform_S: [S] in [0, 1).
        temperature: divides the logits; 0 takes the likeliest token.
        top_p: draw from the likeliest tokens that hold this much probability.

    Returns:
        Token ids, their log-probabilities under the distribution drawn from (for temperature 0, under the model's
        own at temperature 1), and what top-p left to draw from.
    """
    logits_SV = logits_SV.float()
    if temperature == 0:
        token_S = logits_SV.argmax(-1)
        return Drawn(token_S, logits_SV.log_softmax(-1).gather(1, token_S[:, None]).squeeze(1), None)
    logp_SV = (logits_SV / temperature).log_softmax(-1)
    if top_p < 1:
        logp_SV = keep_top(logp_SV, top_p)
    chance_SV = logp_SV.exp()
    reach_SV = chance_SV.cumsum(-1)
    token_S = passed(uniform_S * reach_SV[:, -1], reach_SV, chance_SV)
    support_SV = logp_SV > float("-inf") if top_p < 1 else None
    return Drawn(token_S, logp_SV.gather(1, token_S[:, None]).squeeze(1), support_SV)


def passed(level_S: Tensor, reach_SV: Tensor, chance_SV: Tensor) -> Tensor:
    """The token at which a cumulative sum passes a level, always one that can come.

    Sums that are made side by side, as on a GPU, may rise or fall by rounding at a token without probability; then it
    is the next one that has some.

    Args:
        level_S: [S] between 0 and the last sum.
        reach_SV: [S, V] cumulative sums of the probabilities.
        chance_SV: [S, V] the probabilities.

    Returns:
        int64 [S].
    """
    token_S1 = torch.searchsorted(reach_SV, level_S[:, None], right=True).clamp(max=reach_SV.shape[1] - 1)
    lost_S1 = chance_SV.gather(1, token_S1) == 0
    if lost_S1.any():
        count_SV = (chance_SV > 0).cumsum(-1)
        next_S1 = torch.minimum(count_SV.gather(1, token_S1) + 1, count_SV[:, -1:])
        token_S1 = torch.where(lost_S1, torch.searchsorted(count_SV, next_S1), token_S1)
    return token_S1.squeeze(1)


def keep_top(logp_SV: Tensor, top_p: float) -> Tensor:
    """Log-probabilities on the smallest set of likeliest tokens that holds `top_p`, renormalised; -inf elsewhere."""
    ordered_SV, index_SV = logp_SV.sort(dim=-1, descending=True)
    before_SV = ordered_SV.exp().cumsum(-1) - ordered_SV.exp()
    dropped_SV = torch.zeros_like(before_SV, dtype=torch.bool).scatter(1, index_SV, before_SV >= top_p)
    return logp_SV.masked_fill(dropped_SV, float("-inf")).log_softmax(-1)
