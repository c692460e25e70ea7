"""What the stages know of a sampler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from plaudit.recipe import Sampling
from plaudit.records import Group, Prompt

__all__ = ["Request", "Sampler"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Answers wanted for one context: a prompt's tokens, or a conversation's tokens so far."""

    prompt: Prompt
    context_ids: tuple[int, ...]
    seeds: tuple[int, ...]
    """One for each answer wanted; an answer depends on its own seed only, not on its neighbours."""
    support: bool = False
    """Keep which tokens could have come (`Answer.support`), where top-p leaves some out."""


class Sampler(Protocol):
    """Anything that answers prompts."""

    def sample(self, requests: Sequence[Request], sampling: Sampling) -> list[Group]:
        """A group for each request, in order."""
        ...

    def load(self, weights: Path | None, version: int) -> None:
        """Take newer weights; an embedded sampler shares the learner's and only notes the version."""
        ...
