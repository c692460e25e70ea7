"""Transformers' own decoding loop, with nothing in it that a model's folder asks for behind one's back."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from plaudit.models.packed import bare, own_attention

__all__ = ["generate"]


@torch.no_grad()
def generate(
    model: Any,
    context_ST: Tensor,
    *,
    max_tokens: int,
    stop_ids: Collection[int],
    beams: int = 1,
    processors: Sequence[LogitsProcessor] = (),
) -> Tensor:
    """[S, T] contexts of one length with what comes after them: the likeliest tokens, or those of a beam search.

    The model runs with its own attention. Its generation config (a penalty for repetition, say) is put aside, so that
    every road that decodes draws from the same distribution.

    Args:
        model: a causal language model that knows its road.
        context_ST: [S, T] tokens.
        max_tokens: new tokens at most.
        stop_ids: tokens that end a text; the first of them also fills the rows that ended early.
        beams: width of the search; 1 is greedy.
        processors: change the logits before a token is taken.
    """
    inner = bare(model)
    kept, inner.generation_config = inner.generation_config, GenerationConfig()
    ends = sorted(stop_ids)
    try:
        with own_attention(model):
            found: Tensor = inner.generate(
                input_ids=context_ST,
                attention_mask=torch.ones_like(context_ST),
                do_sample=False,
                num_beams=beams,
                max_new_tokens=max_tokens,
                eos_token_id=ends,
                pad_token_id=ends[0],
                logits_processor=LogitsProcessorList(processors),
            )
    finally:
        inner.generation_config = kept
    return found
