"""The words of the house as frozen, validated records: plain JSON values, no tensors.

What people write or say (`Prompt`, `Demonstration`, `Judgement`) is checked field by field when it is made.
What the sampler makes (`Answer`, `Group`) is trusted and light.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from plaudit.errors import RecordError

__all__ = [
    "Answer",
    "Choice",
    "Comment",
    "Comparison",
    "Demonstration",
    "Document",
    "Ended",
    "Episode",
    "Group",
    "Judgement",
    "Message",
    "Preferred",
    "Prompt",
    "Ranking",
    "Record",
    "Scores",
    "Thumb",
    "Verdict",
]


class Record(BaseModel):
    """A frozen value with named fields; an unknown or missing field is an error where it is written."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Self:
        """Make the record from plain JSON values.

        Raises:
            RecordError: lists every field that is wrong, with what was found there.
        """
        try:
            text = json.dumps(value, ensure_ascii=False)
        except (TypeError, ValueError) as error:
            raise RecordError(f"{cls.__name__}: not plain JSON values: {error}") from error
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise RecordError(f"{cls.__name__}: {describe(error)}") from error

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values, fields that say nothing left out."""
        return self.model_dump(mode="json", exclude_none=True, exclude_defaults=False)


def describe(error: ValidationError) -> str:
    """Pydantic's findings in one line: `field: what is wrong (found ...)`."""
    found = []
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"]) or "record"
        message = problem["msg"].removeprefix("Value error, ")
        value = "" if problem["type"] in {"missing", "value_error"} else f" (found {problem['input']!r:.60})"
        found.append(f"{place}: {message}{value}")
    return "; ".join(found)


class Message(Record):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


class Document(Record):
    """A raw text to learn the language from."""

    text: str = Field(min_length=1)


class Prompt(Record):
    """What the model is asked: a text, or the messages of a chat so far; maybe with a reference answer."""

    text: str | None = None
    messages: tuple[Message, ...] | None = None
    reference: str | None = None
    id: str = ""
    """Two prompts with one id are one prompt; made from the words when empty, so splits by prompt are stable."""
    about: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Facts a task's own scorer may want (the book a review is about); never shown to the model."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.text is None) == (self.messages is None):
            raise ValueError("give exactly one of text and messages")
        if self.messages is not None:
            if not self.messages:
                raise ValueError("messages is empty")
            if self.messages[-1].role == "assistant":
                raise ValueError("the last message is the assistant's: put it into the answer")
        if not self.id:
            words = self.text if self.messages is None else [[m.role, m.content] for m in self.messages]
            digest = hashlib.sha256(json.dumps(words, ensure_ascii=False).encode("utf-8", "surrogatepass"))
            object.__setattr__(self, "id", digest.hexdigest()[:16])
        return self

    def plain(self) -> str:
        """The prompt as one text for people to read (not what the model sees: see `plaudit.text`)."""
        if self.messages is None:
            return self.text or ""
        return "\n\n".join(f"{message.role}: {message.content}" for message in self.messages)


class Demonstration(Record):
    """A prompt with a good answer, for supervised fine-tuning."""

    prompt: Prompt
    answer: str = Field(min_length=1)


class Ranking(Record):
    """All answers in order; equal ranks are ties."""

    kind: Literal["ranking"] = "ranking"
    ranks: tuple[int, ...]
    """The rank of each answer, in the order of `Judgement.answers`: 1 is best, ties share a number."""

    @field_validator("ranks")
    @classmethod
    def _count_from_one(cls, ranks: tuple[int, ...]) -> tuple[int, ...]:
        if not ranks or min(ranks) != 1:
            raise ValueError(f"the best rank must be 1, found {list(ranks)}")
        return ranks


class Choice(Record):
    """The best of K."""

    kind: Literal["choice"] = "choice"
    best: int = Field(ge=0)
    """Index into `Judgement.answers`."""


class Preferred(StrEnum):
    """Which of two answers somebody liked better."""

    FIRST = "first"
    SECOND = "second"
    TIE = "tie"


class Comparison(Record):
    """One of two, or a tie."""

    kind: Literal["comparison"] = "comparison"
    preferred: Preferred
    strength: float | None = Field(default=None, ge=0)
    """How much better, on the annotator's own scale; without a unit."""
    sure: float | None = Field(default=None, ge=0.5, le=1)
    """P(this is right): the annotator's own, or the share of several people who said so."""


class Scores(Record):
    """A number for each answer, higher is better."""

    kind: Literal["scores"] = "scores"
    scores: tuple[float, ...]
    scale: tuple[float, float] | None = None
    """The lowest and the highest score that could be given; without it, only their order says something."""

    @model_validator(mode="after")
    def _on_the_scale(self) -> Self:
        if self.scale is None:
            return self
        low, high = self.scale
        if not low < high:
            raise ValueError(f"scale must rise from the lowest to the highest score, found {list(self.scale)}")
        strange = [score for score in self.scores if not low <= score <= high]
        if strange:
            raise ValueError(f"the score {strange[0]:g} is not on the scale from {low:g} to {high:g}")
        return self


class Thumb(Record):
    """Good or bad, for one answer."""

    kind: Literal["thumb"] = "thumb"
    up: bool


class Comment(Record):
    """Free text about one or more answers."""

    kind: Literal["comment"] = "comment"
    text: str = Field(min_length=1)


Verdict = Annotated[Ranking | Choice | Comparison | Scores | Thumb | Comment, Field(discriminator="kind")]


class Judgement(Record):
    """What somebody said about a prompt's answers: who, when, in which order shown, how long it took."""

    prompt: Prompt
    answers: tuple[str, ...] = Field(min_length=1)
    verdict: Verdict
    quality: str | None = None
    """What was judged, where people judge several things apart, such as `helpful` and `harmless`."""
    annotator: str | None = None
    shown: tuple[int, ...] | None = None
    """The order on the page: `shown[0]` is the index of the answer shown first."""
    seconds: float | None = Field(default=None, ge=0)
    at: str | None = None
    """When, in ISO 8601."""

    @model_validator(mode="after")
    def _fits_answers(self) -> Self:
        k = len(self.answers)
        wrong = _misfit(self.verdict, k)
        if wrong:
            raise ValueError(wrong)
        if self.shown is not None and sorted(self.shown) != list(range(k)):
            raise ValueError(f"shown must order the {k} answers 0 to {k - 1}, found {list(self.shown)}")
        return self

    def ranks(self) -> tuple[int, ...] | None:
        """The rank of each answer (1 best, ties share), or None where the verdict orders nothing."""
        match self.verdict:
            case Ranking(ranks=ranks):
                return ranks
            case Choice(best=best):
                return tuple(1 if k == best else 2 for k in range(len(self.answers)))
            case Comparison(preferred=preferred):
                return {Preferred.FIRST: (1, 2), Preferred.SECOND: (2, 1), Preferred.TIE: (1, 1)}[preferred]
            case Scores(scores=scores):
                best_first = sorted(set(scores), reverse=True)
                return tuple(best_first.index(score) + 1 for score in scores)
            case Thumb() | Comment():
                return None


def _misfit(verdict: Ranking | Choice | Comparison | Scores | Thumb | Comment, k: int) -> str:
    match verdict:
        case Ranking(ranks=given) | Scores(scores=given):
            return f"{len(given)} {verdict.kind} values for {k} answers" if len(given) != k else ""
        case Choice(best=best):
            return f"best is {best}, but the answers are 0 to {k - 1}" if best >= k else ""
        case Comparison():
            return f"a comparison needs 2 answers, found {k}" if k != 2 else ""
        case Thumb():
            return f"a thumb is about 1 answer, found {k}" if k != 1 else ""
        case Comment():
            return ""


class Ended(StrEnum):
    """Why an answer ended. Compare with `is`: every member is true."""

    STOPPED = "stopped"  # the model emitted an end token
    CUT = "cut"  # the token budget ran out; the scorer sees an unfinished answer
    FAILED = "failed"  # the sampler failed; never trained on


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One completion of a prompt, as sampled."""

    text: str
    token_ids: tuple[int, ...]
    """With the end token, if it stopped."""
    logps: tuple[float, ...]
    """Log-probability in nats of each token under the policy and temperature that sampled it."""
    ended: Ended
    seed: int
    support: tuple[tuple[int, ...], ...] | None = None
    """The tokens that could have come in place of each, itself included, where top-p left others out and something is
    to be learned from the answer."""

    def __post_init__(self) -> None:
        if len(self.token_ids) != len(self.logps):
            raise RecordError(f"Answer: {len(self.token_ids)} tokens but {len(self.logps)} log-probabilities")
        if not all(math.isfinite(logp) for logp in self.logps):
            raise RecordError(f"Answer: log-probabilities hold a NaN or an infinity: {self.logps}")
        if self.support is not None and len(self.support) != len(self.token_ids):
            raise RecordError(f"Answer: {len(self.token_ids)} tokens but {len(self.support)} supports")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """All answers sampled for one prompt: the unit of work in sampling, scoring and advantages."""

    prompt: Prompt
    context_ids: tuple[int, ...]
    """The prompt's tokens, exactly as the sampler saw them."""
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """A conversation so far: answers of the policy, and what was said to it between them."""

    prompt: Prompt
    """What the last answer answers: the first prompt and all that was said since."""
    context_ids: tuple[int, ...]
    """Its tokens: those of the turns before as they were sampled, never made again from words."""
    answers: tuple[Answer, ...]
    """At least one."""
    replies: tuple[str, ...] = ()
    """What was said between the answers: one less than these."""
    seed: int
    """Whatever an environment draws for this episode, it draws from this."""
