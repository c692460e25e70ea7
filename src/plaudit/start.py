"""The settings of the model that a recipe starts from. Nothing here loads torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pydantic import Field

from plaudit.section import Section

__all__ = ["MADE", "Adapter", "Model"]

MADE: Final = ("builtin", "lstm")
"""What `model.path` may name that the language stage makes from nothing, tokenizer and all."""


class Adapter(Section):
    """LoRA: train small matrices beside the frozen weights (https://arxiv.org/abs/2106.09685)."""

    rank: int = Field(default=8, ge=1)
    """Inner size of the added matrices."""
    alpha: float = Field(default=16.0, gt=0)
    """The added product is scaled by alpha / rank."""
    targets: str | tuple[str, ...] = "all-linear"
    """Names of the layers that get one."""


class Model(Section):
    """The language model to start from."""

    path: str = "builtin"
    """A Transformers folder or name; or `builtin` or `lstm`, a tiny Llama or an LSTM made from nothing."""
    vocabulary: int = Field(default=2048, ge=512)
    """Tokens of a model made from nothing, learned from the documents."""
    tokenizer: str | None = None
    """Folder or name of the tokenizer, where it is not beside the model."""
    adapter: Adapter | None = None
    """LoRA settings; nothing trains the whole model."""
    random: bool = False
    """Draw the weights anew, for a model of this shape."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    def contradictions(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """What is wrong between these settings, each with the names of those that it was found from."""
        if self.path in MADE and self.tokenizer is not None:
            yield (
                f"model.tokenizer is not read where model.path is {self.path!r}, whose tokenizer is learned from the "
                "documents: take it away",
                ("model.tokenizer", "model.path"),
            )
        if self.path == "lstm" and self.adapter is not None:
            yield (
                "model.adapter: an LSTM has no layer that LoRA knows: take it away",
                ("model.adapter", "model.path"),
            )
        if self.path == "lstm" and self.checkpointing:
            yield (
                "model.checkpointing: an LSTM cannot recompute activations: set it to false",
                ("model.checkpointing", "model.path"),
            )
