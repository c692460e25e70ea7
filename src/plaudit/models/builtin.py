"""The built-in tiny model: a byte-level BPE tokenizer and a small Llama, both made on the spot from a world's texts.

About one million parameters: small enough to learn to write reviews on a laptop in a minute or two.

A review must repeat names from its prompt. What does that in a language model is a pair of attention heads, one that
looks at the token before and one that finds where the current token stood earlier and reads what came next (Olsson et
al. 2022, https://arxiv.org/abs/2209.11895). Left to chance a model this small finds the pair late, after ten times the
training that a demo can spend; so its weights are drawn with the pair in place, and training shapes the rest around it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

__all__ = ["CONTEXT", "frequent_characters", "new_model", "new_tokenizer", "wire_copying"]

CONTEXT = 192
"""Tokens that the built-in model reads at least, prompt and answer together."""


def new_tokenizer(texts: Sequence[str], alphabet: str, *, vocabulary: int = 2048, context: int | None = CONTEXT) -> Any:
    """A byte-level BPE tokenizer with start, end and pad tokens of their own.

    Args:
        texts: what the merges are learned from.
        alphabet: characters that must never fall apart into bytes, such as Chinese ones.
        vocabulary: number of tokens; enough that a name is one token.
        context: tokens that its model can read; None if it sets no limit.
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
    tokenizer.train_from_iterator([*texts, *(sorted(set(alphabet)) * 60)], trainer)
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
        **({} if context is None else {"model_max_length": context}),
    )


def frequent_characters(texts: Sequence[str], *, most: int = 1000) -> str:
    """The characters beyond ASCII that stand in one text of a thousand or more, the most frequent first."""
    count = Counter(character for text in texts for character in set(text) if not character.isascii())
    return "".join(character for character, seen in count.most_common(most) if seen * 1000 >= len(texts))


def new_model(tokenizer: Any, *, seed: int, hidden: int = 128, layers: int = 4, context: int = CONTEXT) -> Any:
    """A Llama drawn at random for the tokenizer, with the heads that copy in place.

    Args:
        tokenizer: from `new_tokenizer`.
        seed: of its weights.
        hidden: size D; heads are 32 wide.
        layers: their number, 2 or more.
        context: tokens that it can read.
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 32,
        intermediate_size=hidden * 13 // 4,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        torch.nn.init.normal_(model.model.embed_tokens.weight, std=1 / math.sqrt(hidden))
    wire_copying(model, seed=seed)
    return model


@torch.no_grad()
def wire_copying(
    model: Any, *, seed: int, constant: float = 0.9, back: float = 6.0, match: float = 8.0, written: float = 0.7
) -> None:
    """Put an induction circuit into the first heads of a fresh Llama with tied embeddings.

    Head 0 of layer 0 looks one token back and writes what stands there into a subspace of its own. Head 0 of layers 1
    and 2 looks for places whose token *before* is the current one, and writes the token found there, which the tied
    output layer then reads.

    Args:
        model: a `LlamaForCausalLM`; its embeddings get a constant first coordinate for the heads to hold on to.
        seed: of the subspaces.
        constant: that coordinate; embeddings are about 1 long.
        back: sharpness of the look one token back, in units of attention logits for each frequency used.
        match: sharpness of the match, in attention logits between a token and itself.
        written: length of what the first head writes, against a token's own embedding.
    """
    generator = torch.Generator().manual_seed(seed)
    hidden = model.config.hidden_size
    size = hidden // model.config.num_attention_heads
    half = size // 2

    def directions(count: int) -> Tensor:
        """[count, D] orthonormal rows that leave the constant coordinate alone."""
        basis, _ = torch.linalg.qr(torch.randn(hidden - 1, count, generator=generator))
        return torch.cat([torch.zeros(1, count), basis]).T

    embedding = model.model.embed_tokens.weight
    embedding[:, 0] = constant
    token = float(embedding[:, 1:].norm(dim=1).mean())
    scaled = math.sqrt(hidden / (constant**2 + token**2))  # what a norm before layer 0 multiplies by
    # rotary embeddings turn pair f by frequency f per token: keys turned on by one step meet the query one back
    frequency = model.config.rope_parameters["rope_theta"] ** (-torch.arange(half) / half)
    first = model.model.layers[0].self_attn
    strength = math.sqrt(back * math.sqrt(size)) / (constant * scaled)
    first.q_proj.weight[:size] = 0
    first.k_proj.weight[:size] = 0
    for f in range(4):
        first.q_proj.weight[f, 0] = strength
        first.k_proj.weight[f, 0] = strength * torch.cos(frequency[f])
        first.k_proj.weight[f + half, 0] = strength * torch.sin(frequency[f])
    # the slow half of the pairs hardly turns within a text: what is matched by content goes there
    slow = [*range(half // 2, half), *range(half + half // 2, size)]
    read, write = directions(len(slow)), directions(len(slow)).T
    seen = token * scaled * math.sqrt(len(slow) / (hidden - 1))
    first.v_proj.weight[:size] = 0
    first.v_proj.weight[: len(slow)] = read
    first.o_proj.weight[:, :size] = 0
    first.o_proj.weight[:, : len(slow)] = write * (written * token / seen)
    scaled = math.sqrt(hidden / (constant**2 + token**2 * (1 + written**2)))
    asked, kept = token * scaled * math.sqrt(len(slow) / (hidden - 1)), written * token * scaled
    for layer in model.model.layers[1:3]:
        attention = layer.self_attn
        strength = math.sqrt(match * math.sqrt(size) / (asked * kept))
        attention.q_proj.weight[:size] = 0
        attention.k_proj.weight[:size] = 0
        attention.q_proj.weight[slow] = read * strength
        attention.k_proj.weight[slow] = write.T * strength
        copied = directions(size)
        attention.v_proj.weight[:size] = copied
        attention.o_proj.weight[:, :size] = copied.T / (scaled * math.sqrt(size / (hidden - 1)))
