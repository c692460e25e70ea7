"""A tokenizer and models small enough to test with: two layers, about fifty tokens, made on the spot in milliseconds.

Not imported by `plaudit.testing` itself, because it loads Transformers:

    from plaudit.testing.tiny import tiny_model, tiny_tokenizer
"""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
)

from plaudit.models.lstm import LstmConfig

__all__ = ["FAMILIES", "LETTERS", "tiny_model", "tiny_tokenizer"]

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 .,:?!'\n"
"""What the tiny tokenizer can say, one token each."""

_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
_PLAIN = {name: value for name, value in _SIZES.items() if name != "num_key_value_heads"}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": _SIZES,
    "qwen3": {**_SIZES, "head_dim": 8},
    "mistral": {**_SIZES, "sliding_window": 16},
    "cohere": {**_SIZES, "logit_scale": 0.25},
    "granite": {**_SIZES, "logits_scaling": 4.0, "attention_multiplier": 0.3, "residual_multiplier": 0.5},
    "gemma2": {**_SIZES, "head_dim": 8, "sliding_window": 64, "final_logit_softcapping": 3.0},
    "gpt_neox": _PLAIN,
    "falcon": {name: value for name, value in _PLAIN.items() if name != "intermediate_size"},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.2},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.2},
    "opt": {
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 48,
        "max_position_embeddings": 64,
        "init_std": 0.2,
    },
    LstmConfig.model_type: {"hidden_size": 32, "num_hidden_layers": 2, "initializer_range": 1.0},
}
"""Kinds of model with sizes that suit a test; other kinds that Transformers knows need their own."""


def tiny_tokenizer() -> Any:
    """One token for each of `LETTERS`; pad, start and end tokens of their own; a text begins with the start token."""
    special = ["<pad>", "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*special, *LETTERS])}, merges=[]))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def tiny_model(kind: str = "llama", *, seed: int = 0, reward: bool = False, **changes: Any) -> Any:
    """A model with weights drawn at random, in evaluation mode; without dropout where its kind has it by default.

    Args:
        kind: one of `FAMILIES`, or another kind that Transformers knows if `changes` gives its sizes.
        seed: of the weights.
        reward: a sequence classifier with one label, in place of a causal language model.
        changes: values for its config.
    """
    common = {"vocab_size": 3 + len(LETTERS), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    values = {**common, **FAMILIES.get(kind, {}), **({"num_labels": 1} if reward else {}), **changes}
    config = AutoConfig.for_model(kind, **values)
    for name, value in vars(config).items():
        if "drop" in name and isinstance(value, float) and name not in changes:
            setattr(config, name, 0.0)
    auto = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return auto.from_config(config, dtype=torch.float32).eval()
