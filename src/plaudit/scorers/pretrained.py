"""Transformers models that read whole texts: loading them, and running them over texts of many lengths.

Shape letters:  B texts   T tokens
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from plaudit.errors import ModelError
from plaudit.models.load import Machine, context_of, loading

__all__ = ["Reader", "load_reader"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A model with its tokenizer, in evaluation mode."""

    path: str
    model: Any
    tokenizer: Any
    machine: Machine
    max_tokens: int
    """Tokens of a text that are read, special tokens included."""
    micro_tokens: int
    """Tokens in one forward pass, padding included."""

    @torch.no_grad()
    def outputs(self, texts: Sequence[str]) -> Iterator[tuple[list[int], Any, Tensor]]:
        """Forward passes over texts of like lengths: the texts' places, the model's output, and the [B, T] mask.

        The mask comes from the lengths, so that any token may pad. An empty text is a start or end token; where
        the tokenizer has neither, it is in none of them.
        """
        ids = [self._ids(text) for text in texts]
        order = sorted((place for place in range(len(ids)) if ids[place]), key=lambda place: len(ids[place]))
        while order:
            places = [order.pop()]  # the longest first, so that a batch that is too large fails at once
            while order and (len(places) + 1) * len(ids[places[0]]) <= self.micro_tokens and self._pad() is not None:
                places.append(order.pop())
            length_B = torch.tensor([len(ids[place]) for place in places])
            mask_BT = torch.arange(int(length_B.max())) < length_B[:, None]
            ids_BT = torch.full(mask_BT.shape, self._pad() or 0)
            ids_BT[mask_BT] = torch.tensor([token for place in places for token in ids[place]])
            device = self.machine.device
            with self.machine.computing():
                output = self.model(input_ids=ids_BT.to(device), attention_mask=mask_BT.long().to(device))
            yield places, output, mask_BT.to(device)

    def _ids(self, text: str) -> list[int]:
        ids = list(self.tokenizer(text, truncation=True, max_length=self.max_tokens)["input_ids"])
        marks = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)
        return ids or [mark for mark in marks if mark is not None][:1]

    def _pad(self) -> int | None:
        """The token that fills up. A decoder that classifies finds a text's end by it, so without it texts go alone."""
        token = self.model.config.get_text_config().pad_token_id
        return None if token is None else int(token)


def load_reader(
    auto: Any, path: str, machine: Machine, *, max_tokens: int, micro_tokens: int, spare: tuple[str, ...] = ()
) -> Reader:
    """A model of a kind from a Transformers folder or by name, in fp32.

    Args:
        auto: `AutoModel`, or another of its family.
        path: folder or name.
        machine: device and precision.
        max_tokens: tokens of a text to read at most; fewer where the model or its tokenizer reads fewer.
        micro_tokens: tokens in one forward pass.
        spare: beginnings of the names of weights that may be missing, because nothing reads them.

    Raises:
        ModelError: there is none of that kind, or weights are missing, which would be random.
    """
    with loading(path):
        tokenizer = AutoTokenizer.from_pretrained(path)
        model, info = auto.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(spare))
    if missing:
        raise ModelError(f"{path!r} lacks weights, which would be random: {', '.join(missing[:3])}")
    limits = [max_tokens, tokenizer.model_max_length, context_of(model.config) or max_tokens]
    return Reader(
        path=path,
        model=model.to(machine.device).eval(),
        tokenizer=tokenizer,
        machine=machine,
        max_tokens=min(limits),
        micro_tokens=micro_tokens,
    )
