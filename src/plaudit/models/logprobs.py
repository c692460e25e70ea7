"""Log-probabilities at answer tokens only, in chunks, in fp32: B x T x V logits never exist.

Shape letters:  B answers   T tokens   M answer tokens of the batch, without padding   D hidden size   V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from plaudit.errors import ModelError

__all__ = ["CHUNK", "logits_of", "token_logps"]

CHUNK = 2**24
"""Logits kept at a time (64 MiB in fp32)."""


def logits_of(model: Any) -> Callable[[Tensor], Tensor]:
    """The function from last hidden states [M, D] to the logits [M, V] that the model itself would give.

    Raises:
        ModelError: the model does something to its logits that is not known here.
    """
    head = model.get_output_embeddings()
    if head is None:
        raise ModelError(f"{type(model).__name__} has no language-model head: use a causal language model")
    config = model.config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None)
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)

    def logits(hidden_MD: Tensor) -> Tensor:
        logits_MV: Tensor = head(hidden_MD) * scale if scale != 1.0 else head(hidden_MD)
        return torch.tanh(logits_MV / cap) * cap if cap else logits_MV

    return logits


def token_logps(
    logits: Callable[[Tensor], Tensor],
    hidden_MD: Tensor,
    token_M: Tensor,
    *,
    temperature: float,
    vocabulary: int,
    entropy: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Log-probability of each token under softmax(logits / temperature), and the entropy of that distribution.

    Returns:
        [M] nats and, if asked for, [M] nats; gradient flows into both.
    """
    size = max(1, CHUNK // vocabulary)
    pieces = list(zip(hidden_MD.split(size), token_M.split(size), strict=True))

    def piece(hidden: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        scaled_MV = logits(hidden).float() / temperature
        logp_M = -F.cross_entropy(scaled_MV, token, reduction="none")
        if not entropy:
            return logp_M, logp_M
        logp_MV = scaled_MV.log_softmax(-1)
        return logp_M, -(logp_MV.exp() * logp_MV).sum(-1)

    recompute = torch.is_grad_enabled() and len(pieces) > 1
    done = [
        checkpoint(piece, hidden, token, use_reentrant=False) if recompute else piece(hidden, token)
        for hidden, token in pieces
    ]
    if not done:
        return hidden_MD.new_zeros(0), hidden_MD.new_zeros(0) if entropy else None
    return torch.cat([logp for logp, _ in done]), torch.cat([ent for _, ent in done]) if entropy else None
