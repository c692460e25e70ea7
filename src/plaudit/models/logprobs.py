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

from plaudit.batch import Support
from plaudit.errors import ModelError
from plaudit.losses.policy import entropy as entropy_of
from plaudit.models.packed import bare, body_of, choose_road, own_attention

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

    if not _right(model, logits):
        raise ModelError(f"{type(bare(model)).__name__} changes its logits in a way that is not known here")
    return logits


@torch.no_grad()
def _right(model: Any, logits: Callable[[Tensor], Tensor]) -> bool:
    """Try the function on three tokens; a model whose weights are broken is not blamed here."""
    tokens = torch.tensor([[1, 2, 3]], device=next(model.parameters()).device)
    choose_road(model)
    with own_attention(model):
        expected_MV = bare(model)(input_ids=tokens, use_cache=False).logits[0].float()
        got_MV = logits(body_of(model)(input_ids=tokens, use_cache=False).last_hidden_state[0]).float()
    if not bool(torch.isfinite(expected_MV).all()):
        return True
    return bool((got_MV - expected_MV).abs().max() <= 1e-3 * expected_MV.abs().mean() + 1e-5)


def token_logps(
    logits: Callable[[Tensor], Tensor],
    hidden_MD: Tensor,
    token_M: Tensor,
    *,
    temperature: float,
    vocabulary: int,
    entropy: bool = False,
    support: Support | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Log-probability of each token under softmax(logits / temperature), and the entropy of that distribution.

    Args:
        logits: from hidden states to logits.
        hidden_MD: [M, D] the states that say the tokens.
        token_M: int64 [M].
        temperature: divides the logits.
        vocabulary: V, by which the work is cut into chunks.
        entropy: whether it is asked for.
        support: the tokens that each softmax goes over; all when not given.

    Returns:
        [M] nats and, if asked for, [M] nats; gradient flows into both.
    """
    size = max(1, CHUNK // vocabulary)
    hidden, token = hidden_MD.split(size), token_M.split(size)
    supports = [None] * len(hidden) if support is None else support.split(size)
    pieces = list(zip(hidden, token, supports, strict=True))

    def piece(hidden: Tensor, token: Tensor, support: Support | None) -> tuple[Tensor, Tensor]:
        scaled_MV = logits(hidden).float() / temperature
        if support is not None:
            scaled_MV = support.limit(scaled_MV)
        if not entropy:
            logp_M = -F.cross_entropy(scaled_MV, token, reduction="none")
            return logp_M, logp_M
        logp_MV = scaled_MV.log_softmax(-1)
        return logp_MV.gather(1, token[:, None]).squeeze(1), entropy_of(logp_MV)

    recompute = torch.is_grad_enabled() and len(pieces) > 1
    done = [checkpoint(piece, *one, use_reentrant=False) if recompute else piece(*one) for one in pieces]
    if not done:
        return hidden_MD.new_zeros(0), hidden_MD.new_zeros(0) if entropy else None
    return torch.cat([logp for logp, _ in done]), torch.cat([ent for _, ent in done]) if entropy else None
