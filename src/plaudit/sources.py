"""Settings of what is read: files of people's words and judgements, a built-in world in their place, words as tokens.

Nothing here loads torch.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from plaudit.section import Section

__all__ = ["Data", "Source", "Text", "World"]


class Source(Section):
    """One file, folder or Hugging Face dataset to read."""

    path: str
    """A file (.json, .jsonl, .csv, .parquet, .txt, each also .gz), a dataset folder or name; may hold `$NAME`."""
    format: str = "auto"
    """What the rows are; `auto` recognises them (see `plaudit data check`)."""
    name: str | None = None
    """Which configuration of a Hugging Face dataset, where it has several."""
    split: str = "train"
    """Which split of a Hugging Face dataset."""
    columns: dict[str, str] = {}
    """Your column for a name that the format knows, such as `prompt: question`."""
    limit: int | None = Field(default=None, ge=1)
    """Rows to take, after shuffling."""
    shuffle: bool = False
    """Take the rows in an order drawn from the recipe's seed."""
    weight: float = Field(default=1.0, gt=0)
    """Share of this source in a mixture, against the weights of the others."""
    prompt_tokens: int | None = Field(default=None, ge=1)
    """For raw text: its first tokens become the prompt and the rest the reference."""
    end: str | None = None
    """For raw text: what to cut from the end of every text, such as a delimiter."""
    scale: tuple[float, float] | None = None
    """For scores: the lowest and the highest that could be given, such as [1, 5]."""
    quality: str | None = None
    """For judgements: what they are about, one of `reward.qualities`."""


class World(Section):
    """A built-in task: its texts, prompts, demonstrations, annotators and hidden taste."""

    name: Literal["reviews"] = "reviews"
    """Which one: `reviews` are book reviews in English and Chinese."""
    documents: int = Field(default=12000, ge=1)
    """Texts to learn the language from."""
    demonstrations: int = Field(default=800, ge=1)
    """Prompts with answers to start from."""
    prompts: int = Field(default=4000, ge=1)
    """Prompts to tune on; the first of them are those whose answers are ranked."""
    held_out: int = Field(default=400, ge=1)
    """Prompts for evaluation, about books that occur nowhere else."""


class Data(Section):
    """What people wrote and said."""

    documents: tuple[Source, ...] = ()
    """Raw text to learn the language from."""
    demonstrations: tuple[Source, ...] = ()
    """Prompts with good answers."""
    judgements: tuple[Source, ...] = ()
    """Rankings, choices, comparisons, scores, thumbs."""
    prompts: tuple[Source, ...] = ()
    """Prompts to answer while the policy is tuned."""
    held_out: float = Field(default=0.1, gt=0, lt=1)
    """Share of the prompts, drawn by prompt id, that no stage trains on."""


class Text(Section):
    """How words become tokens."""

    template: str | None = None
    """Plain prompt template holding `{prompt}`, for models without a chat template."""
    system: str | None = None
    """System text put before every prompt."""
    examples: tuple[tuple[str, str], ...] = ()
    """Few-shot examples, each a prompt and its answer, put before every prompt."""
    turn: str = "\n{reply}\n"
    """What stands between two answers of an episode, holding `{reply}`, for models without a chat template."""
    max_prompt_tokens: int = Field(default=512, ge=1)
    """Longest prompt, in tokens, template included; a longer one is an error."""
    cut_prompts: bool = False
    """Cut the front of a longer prompt, in place of an error, so that its end and `max_answer_tokens` have room."""
    max_answer_tokens: int = Field(default=512, ge=1)
    """Longest answer to train on and to score, in tokens, the end token included; a longer one is cut there."""
