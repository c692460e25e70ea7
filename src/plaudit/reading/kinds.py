"""The four kinds of records, and what can be made of one kind where another is wanted."""

from __future__ import annotations

from typing import Literal

from plaudit.errors import RecordError
from plaudit.records import Choice, Demonstration, Document, Judgement, Prompt, Thumb

__all__ = ["AnyRecord", "Kind", "as_kind", "kind_of", "prompt_of", "raw_text"]

Kind = Literal["documents", "prompts", "demonstrations", "judgements"]
"""What records are for; the names are those of the recipe's `data` section."""

AnyRecord = Document | Prompt | Demonstration | Judgement
"""What a row can become."""


def kind_of(record: AnyRecord) -> Kind:
    """The kind that a record is by itself."""
    match record:
        case Document():
            return "documents"
        case Prompt():
            return "prompts"
        case Demonstration():
            return "demonstrations"
        case Judgement():
            return "judgements"


def as_kind(record: AnyRecord, kind: Kind) -> AnyRecord | None:
    """The record as another kind, or None where it says nothing of that kind.

    | from | to | how |
    |---|---|---|
    | document | prompt | the whole text asks |
    | prompt | demonstration | its reference is the answer |
    | demonstration | prompt | the answer becomes the reference |
    | judgement | prompt | its prompt |
    | judgement | demonstration | the one best answer, or the one with thumb up; None where there is none |
    | judgement of a text without a prompt | document, prompt | the text, as if nobody had judged it |

    Raises:
        RecordError: nothing of that kind can be made of it.
    """
    own = kind_of(record)
    if own == kind:
        return record
    raw = raw_text(record)
    match record, kind:
        case (Document() | Judgement(), "prompts") if raw is not None:
            return Prompt(text=raw)
        case Judgement(), "documents" if raw is not None:
            return Document(text=raw)
        case Prompt(reference=str() as reference), "demonstrations" if reference:
            return Demonstration(prompt=record.model_copy(update={"reference": None}), answer=reference)
        case Demonstration(prompt=prompt, answer=answer), "prompts":
            return prompt if prompt.reference is not None else prompt.model_copy(update={"reference": answer})
        case Judgement(prompt=prompt), "prompts":
            return prompt
        case Judgement(prompt=prompt), "demonstrations" if raw is None:
            best = _best(record)
            return Demonstration(prompt=prompt, answer=best) if best else None
    raise RecordError(f"row: gives {own}, of which no {kind} can be made")


def raw_text(record: AnyRecord) -> str | None:
    """The text of a document, or of a judged text without a prompt; None for anything else."""
    match record:
        case Document(text=text):
            return text
        case Judgement(prompt=Prompt(text=""), answers=(text,)):
            return text
    return None


def prompt_of(record: AnyRecord) -> Prompt | None:
    """The prompt that a record is about; a document has none."""
    match record:
        case Document():
            return None
        case Prompt():
            return record
        case Demonstration() | Judgement():
            return record.prompt


def _best(judgement: Judgement) -> str | None:
    if isinstance(judgement.verdict, Thumb):
        return judgement.answers[0] if judgement.verdict.up else None
    if isinstance(judgement.verdict, Choice):
        return judgement.answers[judgement.verdict.best]
    ranks = judgement.ranks() or ()
    if len(ranks) < 2 or ranks.count(1) != 1:
        return None
    return judgement.answers[ranks.index(1)]
