"""The built-in tiny model: a byte-level BPE tokenizer and a small Llama, both made on the spot from a world's texts.

About one million parameters: small enough to learn to write reviews on a laptop in a minute or two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

__all__ = ["CONTEXT", "new_model", "new_tokenizer"]

CONTEXT = 192
"""Tokens that the built-in model reads, prompt and answer together."""


def new_tokenizer(texts: Sequence[str], alphabet: str, *, vocabulary: int = 2048) -> Any:
    """A byte-level BPE tokenizer with start, end and pad tokens of their own.

    Args:
        texts: what the merges are learned from.
        alphabet: characters that must never fall apart into bytes, such as Chinese ones.
        vocabulary: number of tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|start|>", "<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # every character of the alphabet stands often enough by itself to win a merge before rare words do
    tokenizer.train_from_iterator([*texts, *([" ".join(sorted(set(alphabet)))] * 200)], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|start|> $A", special_tokens=[("<|start|>", special.index("<|start|>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        bos_token="<|start|>",
        eos_token="<|end|>",
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=CONTEXT,
    )


def new_model(tokenizer: Any, *, seed: int, hidden: int = 128, layers: int = 4, init: float = 0.08) -> Any:
    """A Llama drawn at random, for the tokenizer.

    Args:
        tokenizer: from `new_tokenizer`.
        seed: of its weights.
        hidden: size D; heads are 32 wide.
        layers: their number.
        init: standard deviation of the weights; about 1 / sqrt(D), so that a narrow model attends from the start.
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 32,
        intermediate_size=hidden * 13 // 4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        initializer_range=init,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)
