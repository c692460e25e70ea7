"""What the stages know of a scorer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from plaudit.errors import NumberError, RecordError, ShapeError
from plaudit.records import Answer, Ended, Group, Prompt

__all__ = ["FunctionScorer", "Scorer", "Scores", "arranged", "group_of_texts", "pairs", "reference_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What a scorer says of a batch of groups."""

    value_PG: tuple[tuple[float, ...], ...]
    """A number for each answer of each group, higher is better; NaN where it failed."""
    parts: Mapping[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict)
    """Named components, in the same shape; their means are metrics of the policy stage."""
    members: tuple[tuple[tuple[float, ...], ...], ...] = ()
    """Of an ensemble: what each member says, in the same shape."""
    member_parts: Mapping[str, tuple[tuple[tuple[float, ...], ...], ...]] = field(default_factory=dict)
    """Of an ensemble with named components: what each member says of each."""
    used_PG: tuple[tuple[float, ...], ...] = ()
    """Of an ensemble that is tested by its members' log-odds: the reward that they give together, as it is used."""
    failed: Mapping[tuple[int, int], str] = field(default_factory=dict)
    """(group, answer) -> why it has no score."""

    def about(self, group: int, quality: str | None) -> tuple[float, ...]:
        """What a group's answers are worth by a quality that the scorer gives apart; by any other, their value."""
        return self.parts.get(quality or "", self.value_PG)[group]

    def flat(self) -> list[float]:
        """All values, group by group."""
        return [value for values in self.value_PG for value in values]

    def check(self, groups: Sequence[Group]) -> None:
        """Refuse a value that is not finite and not declared as failed, and too few values or too many.

        Raises:
            NumberError: names the prompt and the answer.
            ShapeError: there is not one value for each answer.
        """
        shape, wanted = [len(values) for values in self.value_PG], [len(group.answers) for group in groups]
        if shape != wanted:
            raise ShapeError(f"the scorer gave {shape} values for {wanted} answers, prompt by prompt")
        for g, (group, values) in enumerate(zip(groups, self.value_PG, strict=True)):
            for k, (answer, value) in enumerate(zip(group.answers, values, strict=True)):
                if not math.isfinite(value) and (g, k) not in self.failed:
                    raise NumberError(
                        f"the reward of answer {k} to prompt {group.prompt.id} is {value}: {answer.text[:60]!r}"
                    )


class Scorer(Protocol):
    """Anything that grades answers: it sees text, reference and why an answer ended. An empty answer is legal."""

    def score(self, groups: Sequence[Group]) -> Scores:
        """A number for each answer."""
        ...


@dataclass(frozen=True, slots=True)
class FunctionScorer:
    """A Python function `(prompt, answer text) -> number` as a scorer."""

    function: Callable[[Prompt, str], float]

    def score(self, groups: Sequence[Group]) -> Scores:
        """Call the function on every answer."""
        return Scores(
            value_PG=tuple(
                tuple(float(self.function(group.prompt, answer.text)) for answer in group.answers) for group in groups
            )
        )


def group_of_texts(prompt: Prompt, answers: Sequence[tuple[str, bool]]) -> Group:
    """A group of answers that are words alone, each with whether it ended by itself; it has no tokens."""
    return Group(
        prompt=prompt,
        context_ids=(),
        answers=tuple(
            Answer(text=text, token_ids=(), logps=(), ended=Ended.STOPPED if stopped else Ended.CUT, seed=0)
            for text, stopped in answers
        ),
    )


def pairs(groups: Sequence[Group]) -> list[tuple[Prompt, Answer]]:
    """Each answer with its prompt, group by group."""
    return [(group.prompt, answer) for group in groups for answer in group.answers]


def arranged(values: Iterable[float], groups: Sequence[Group]) -> tuple[tuple[float, ...], ...]:
    """One value for each of `pairs(groups)`, in the shape of the groups."""
    rest = iter(values)
    return tuple(tuple(float(next(rest)) for _ in group.answers) for group in groups)


def reference_of(prompt: Prompt) -> str:
    """The prompt's reference.

    Raises:
        RecordError: it has none.
    """
    if not prompt.reference:
        raise RecordError(
            f"prompt {prompt.id} has no reference, to which its answers could be compared: {prompt.plain()[:60]!r}; "
            "give one, or score by other means"
        )
    return prompt.reference
