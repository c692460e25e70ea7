"""The row formats that people already have, each a small function from a row to records.

To add one: write the function, and add its line to `FORMATS`. A format is recognised by its columns (`needs`) and,
where columns do not tell, by `when`; the first line of the table that fits a row wins. Extra columns are ignored.

A row of two answers may say besides how much better the better one is (`strength`, or TRL's `margin`; 0 or more, of no
unit) and how likely the label is right (`sure`, from 0.5 to 1); any row with a prompt, who judged (`annotator`).

The prompt of a row is the column `prompt` (a text, messages, or one of our records), else `question`, else
`instruction` followed by `input`, else `input`. A `history` of [prompt, answer] pairs or a `system` text makes it a
chat. `reference` is kept as the prompt's reference. Texts are kept to the character; hh-rlhf transcripts lose
the space after each colon.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from plaudit.errors import RecordError
from plaudit.reading.fields import Fields
from plaudit.reading.kinds import AnyRecord
from plaudit.reading.transcripts import answer_of, is_transcript, shared_chat, shared_text, shared_transcript
from plaudit.records import (
    Choice,
    Comparison,
    Demonstration,
    Document,
    Ended,
    Judgement,
    Message,
    Preferred,
    Prompt,
    Ranking,
    Scores,
    Thumb,
    Verdict,
)

__all__ = ["COLUMNS", "FORMATS", "Format", "find_format", "recognise", "renamed"]

_ASKED = ("prompt", "question", "instruction", "input")
_BESIDES = ("strength", "margin", "sure", "annotator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How rows of one shape become records."""

    name: str
    needs: tuple[str, ...]
    """Columns that must be there; `prompt` may go by its other names."""
    read: Callable[[Fields], list[AnyRecord]]
    """Records of one row; raises RecordError or pydantic's ValidationError. Its docstring describes the format."""
    when: Callable[[Fields], bool] = lambda row: True
    """What else must hold for the row to be recognised."""

    def lacks(self, row: Fields) -> list[str]:
        """The needed columns that the row does not have."""
        asked = any(name in row for name in _ASKED)
        return [name for name in self.needs if name not in row and not (name == "prompt" and asked)]

    def fits(self, row: Fields) -> bool:
        """Whether the row looks like this format."""
        return not self.lacks(row) and self.when(row)


# The prompt of a row


def _prompt(row: Fields) -> Prompt:
    reference = row.text("reference") if "reference" in row else None
    if _has_prompt_record(row):
        return Prompt.parse(row["prompt"])
    if row.has("prompt", list, tuple):
        return Prompt(messages=row.messages("prompt"), reference=reference)
    name = next((name for name in _ASKED if name in row), "prompt")
    text = row.text(name)
    if name == "instruction" and "input" in row and row.text("input"):
        text = f"{text}\n{row.text('input')}"
    turns = _system(row) + _history(row)
    if turns or "history" in row:
        return Prompt(messages=(*turns, Message(role="user", content=text)), reference=reference)
    return Prompt(text=text, reference=reference)


def _has_prompt_record(row: Fields) -> bool:
    return row.has("prompt", Mapping) and set(row["prompt"]) <= set(Prompt.model_fields)


def _system(row: Fields) -> tuple[Message, ...]:
    text = row.text("system") if "system" in row else ""
    return (Message(role="system", content=text),) if text else ()


def _history(row: Fields) -> tuple[Message, ...]:
    turns: list[Message] = []
    for place, pair in row.items("history") if "history" in row else ():
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise RecordError(f"history.{place}: needs a prompt and its answer (found {pair!r:.60})")
        said = Fields({f"history.{place}.{side}": text for side, text in enumerate(pair)})
        turns.append(Message(role="user", content=said.text(f"history.{place}.0")))
        turns.append(Message(role="assistant", content=said.text(f"history.{place}.1")))
    return tuple(turns)


def _chat(messages: Sequence[Message], name: str = "messages") -> tuple[Prompt, str]:
    if len(messages) < 2:
        raise RecordError(f"{name}: needs a prompt and the assistant's answer (found {len(messages)} messages)")
    return Prompt(messages=tuple(messages[:-1])), answer_of(name, messages[-1:])


def _answer(row: Fields, name: str) -> str:
    """An answer given as a text, as one message, or as a list of one message."""
    if row.has(name, list, tuple):
        return answer_of(name, row.messages(name))
    if row.has(name, Mapping):
        return answer_of(name, [row.message(name)])
    return row.text(name)


def _said(name: str, answer: str) -> str:
    if not answer:
        raise RecordError(f"{name}: the answer is empty")
    return answer


def _of_two(
    row: Fields, prompt: Prompt, first: str, second: str, preferred: Preferred, who: str | None = None
) -> Judgement:
    strength = _within(row, "strength" if "strength" in row else "margin", 0.0, math.inf)
    verdict = Comparison(preferred=preferred, strength=strength, sure=_within(row, "sure", 0.5, 1.0))
    return Judgement(prompt=prompt, answers=(first, second), verdict=verdict, annotator=who or _who(row))


def _who(row: Fields) -> str | None:
    named = row.has("annotator", str, int) and row["annotator"] != ""
    return str(row["annotator"]) if named else None


def _within(row: Fields, name: str, low: float, high: float) -> float | None:
    """A number that may be missing, or left empty as in CSV."""
    if name not in row or row[name] == "":
        return None
    number = row.number(name)
    if not low <= number <= high:
        bounds = f"from {low:g} to {high:g}" if math.isfinite(high) else f"not below {low:g}"
        raise RecordError(f"{name}: needs a number {bounds} (found {number:g})")
    return number


def _nameless(text: str, verdict: Verdict) -> list[AnyRecord]:
    """A judged text that answers no prompt. Its id is the text's, or all such rows would be one prompt."""
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]
    return [Judgement(prompt=Prompt(text="", id=digest), answers=(text,), verdict=verdict)]


# The formats


def _is_record(row: Fields) -> bool:
    whole = "id" in row and "about" in row and ("text" in row or "messages" in row)
    return whole or (_has_prompt_record(row) and ("verdict" in row or row.has("answer", str)))


def _records(row: Fields) -> list[AnyRecord]:
    """Plaudit's own records, as `to_json` writes them."""
    if "verdict" in row:
        return [Judgement.parse(row.values)]
    if "prompt" in row:
        return [Demonstration.parse(row.values)]
    if set(row.values) == {"text"}:
        return [Document.parse(row.values)]
    return [Prompt.parse(row.values)]


def _hh(row: Fields) -> list[AnyRecord]:
    """hh-rlhf: two transcripts of one dialogue, `\\n\\nHuman: ...\\n\\nAssistant: ...`."""
    messages, chosen, rejected = shared_transcript(row.text("chosen"), row.text("rejected"))
    return [_of_two(row, Prompt(messages=messages), chosen, rejected, Preferred.FIRST)]


def _sharegpt_pair(row: Fields) -> list[AnyRecord]:
    """ShareGPT: conversations `[{from, value}]`, and the chosen and rejected next turn."""
    prompt = Prompt(messages=_system(row) + row.messages("conversations"))
    return [_of_two(row, prompt, _answer(row, "chosen"), _answer(row, "rejected"), Preferred.FIRST)]


def _sharegpt(row: Fields) -> list[AnyRecord]:
    """ShareGPT: conversations `[{from, value}]`; the last turn is the answer."""
    prompt, answer = _chat(_system(row) + row.messages("conversations"), "conversations")
    return [Demonstration(prompt=prompt, answer=_said("conversations", answer))]


def _preference(row: Fields) -> list[AnyRecord]:
    """TRL: chosen and rejected, texts or messages; the prompt beside them or as their shared beginning."""
    if row.has("chosen", list, tuple) and row.has("rejected", list, tuple):
        chosen, rejected = row.messages("chosen"), row.messages("rejected")
        if chosen and chosen[0].role != "assistant":  # whole chats, prompt and all
            messages, first, second = shared_chat(chosen, rejected)
            return [_of_two(row, Prompt(messages=messages), first, second, Preferred.FIRST)]
    elif _unprompted(row):
        text, first, second = shared_text(row.text("chosen"), row.text("rejected"))
        return [_of_two(row, Prompt(text=text), first, second, Preferred.FIRST)]
    return [_of_two(row, _prompt(row), _answer(row, "chosen"), _answer(row, "rejected"), Preferred.FIRST)]


def _best_first(row: Fields) -> list[AnyRecord]:
    """A prompt and `output`, a list of answers from best to worst."""
    answers = row.texts("output")
    if len(answers) < 2:
        raise RecordError(f"output: needs 2 or more answers, best first (found {len(answers)})")
    return [Judgement(prompt=_prompt(row), answers=answers, verdict=Ranking(ranks=tuple(range(1, len(answers) + 1))))]


_ONE_TWO: Final = {1: Preferred.FIRST, 2: Preferred.SECOND}
_TIE_ONE_TWO: Final = {0: Preferred.TIE, 1: Preferred.FIRST, 2: Preferred.SECOND}
_ZERO_ONE_TIE: Final = {0: Preferred.FIRST, 1: Preferred.SECOND, 2: Preferred.TIE}


def _labelled_pair(row: Fields) -> list[AnyRecord]:
    """Two answers, output_1 and output_2, and the label of the better one: 1 or 2."""
    preferred = _ONE_TWO[row.one_of("label", *_ONE_TWO)]
    return [_of_two(row, _prompt(row), row.text("output_1"), row.text("output_2"), preferred)]


def _labelled_pair_tie(row: Fields) -> list[AnyRecord]:
    """Two answers, `response 1` and `response 2`, and a label: 0 the first is better, 1 the second, 2 a tie."""
    preferred = _ZERO_ONE_TIE[row.one_of("label", *_ZERO_ONE_TIE)]
    return [_of_two(row, _prompt(row), row.text("response 1"), row.text("response 2"), preferred)]


_ANNOTATOR = re.compile(r"annotator\d+")


def _annotated_pair(row: Fields) -> list[AnyRecord]:
    """Two answers, response1 and response2, and what each of annotator1, annotator2, ... says: 0 a tie, 1 or 2."""
    prompt, first, second = _prompt(row), row.text("response1"), row.text("response2")
    people = [name for name in row.values if _ANNOTATOR.fullmatch(name) and name in row]
    said = [_TIE_ONE_TWO[row.one_of(name, *_TIE_ONE_TWO)] for name in people]
    return [_of_two(row, prompt, first, second, own, who=name) for name, own in zip(people, said, strict=True)]


def _scored_answers(row: Fields) -> list[AnyRecord]:
    """A prompt, its answers, and a score for each, higher is better."""
    return _of_many(row, Scores(scores=row.numbers("scores")))


def _ranked_answers(row: Fields) -> list[AnyRecord]:
    """A prompt, its answers, and a rank for each: 1 is best, ties share a number."""
    return _of_many(row, Ranking(ranks=row.counts("ranks")))


def _chosen_answer(row: Fields) -> list[AnyRecord]:
    """A prompt, its answers, and which is best, counted from 0."""
    return _of_many(row, Choice(best=row.count("best")))


def _of_many(row: Fields, verdict: Scores | Ranking | Choice) -> list[AnyRecord]:
    return [Judgement(prompt=_prompt(row), answers=row.texts("answers"), verdict=verdict, annotator=_who(row))]


def _scored_answer(row: Fields) -> list[AnyRecord]:
    """A prompt, an answer and its score, higher is better."""
    answers, verdict = (_answer(row, "answer"),), Scores(scores=(row.number("score"),))
    return [Judgement(prompt=_prompt(row), answers=answers, verdict=verdict, annotator=_who(row))]


def _thumb(row: Fields) -> list[AnyRecord]:
    """TRL, unpaired: prompt, completion, and a label, true for good."""
    answers, verdict = (_answer(row, "completion"),), Thumb(up=row.flag("label"))
    return [Judgement(prompt=_prompt(row), answers=answers, verdict=verdict, annotator=_who(row))]


def _thumb_messages(row: Fields) -> list[AnyRecord]:
    """A chat whose last message is the answer, and a label, true for good."""
    prompt, answer = _chat(row.messages("messages"))
    return [Judgement(prompt=prompt, answers=(answer,), verdict=Thumb(up=row.flag("label")))]


def _messages(row: Fields) -> list[AnyRecord]:
    """A chat: a demonstration where the assistant has the last word, else a prompt."""
    messages = row.messages("messages")
    if messages and messages[-1].role != "assistant":
        return [Prompt(messages=messages)]
    prompt, answer = _chat(messages)
    return [Demonstration(prompt=prompt, answer=_said("messages", answer))]


def _demonstration(name: str) -> Callable[[Fields], list[AnyRecord]]:
    def read(row: Fields) -> list[AnyRecord]:
        return [Demonstration(prompt=_prompt(row), answer=_said(name, _answer(row, name)))]

    read.__doc__ = f"A prompt and its answer in {name}."
    return read


def _sampled_answer(row: Fields) -> list[AnyRecord]:
    """What `plaudit sample` writes: a prompt, an answer, and why it ended. One that was cut is no demonstration."""
    if row["ended"] != Ended.STOPPED:
        raise RecordError(f"ended: the answer was {row['ended']}, so that it shows nobody where to end")
    return _demonstration("answer")(row)


def _tells_its_end(row: Fields) -> bool:
    return row["ended"] in list(Ended)


def _labelled_text(row: Fields) -> list[AnyRecord]:
    """A text without a prompt, and a label, 1 for good and 0 for bad."""
    return _nameless(row.words("text"), Thumb(up=row.flag("label")))


def _scored_text(row: Fields) -> list[AnyRecord]:
    """A text without a prompt, and a score, higher is better."""
    return _nameless(row.words("text"), Scores(scores=(row.number("score"),)))


def _text(row: Fields) -> list[AnyRecord]:
    """A text: a document, or a whole prompt."""
    return [Document(text=row.words("text"))]


def _only_prompt(row: Fields) -> list[AnyRecord]:
    """A prompt, perhaps with a reference."""
    return [_prompt(row)]


def _list_of(name: str) -> Callable[[Fields], bool]:
    return lambda row: row.has(name, list, tuple)


def _unprompted(row: Fields) -> bool:
    return not any(name in row for name in _ASKED)


def _asks(row: Fields) -> bool:
    return not row.has("prompt", Mapping) or _has_prompt_record(row)


def _transcripts(row: Fields) -> bool:
    return "prompt" not in row and all(is_transcript(str(row[name])) for name in ("chosen", "rejected"))


FORMATS: Final = {
    entry.name: entry
    for entry in (
        Format(name="sampled-answer", needs=("prompt", "answer", "ended"), read=_sampled_answer, when=_tells_its_end),
        Format(name="records", needs=(), read=_records, when=_is_record),
        Format(name="hh", needs=("chosen", "rejected"), read=_hh, when=_transcripts),
        Format(name="sharegpt-preference", needs=("conversations", "chosen", "rejected"), read=_sharegpt_pair),
        Format(name="sharegpt", needs=("conversations",), read=_sharegpt),
        Format(name="preference", needs=("chosen", "rejected"), read=_preference),
        Format(name="labelled-pair", needs=("prompt", "output_1", "output_2", "label"), read=_labelled_pair),
        Format(
            name="labelled-pair-tie", needs=("prompt", "response 1", "response 2", "label"), read=_labelled_pair_tie
        ),
        Format(name="annotated-pair", needs=("prompt", "response1", "response2", "annotator1"), read=_annotated_pair),
        Format(name="scored-answers", needs=("prompt", "answers", "scores"), read=_scored_answers),
        Format(name="ranked-answers", needs=("prompt", "answers", "ranks"), read=_ranked_answers),
        Format(name="chosen-answer", needs=("prompt", "answers", "best"), read=_chosen_answer),
        Format(name="scored-answer", needs=("prompt", "answer", "score"), read=_scored_answer),
        Format(name="thumb", needs=("prompt", "completion", "label"), read=_thumb),
        Format(name="thumb-messages", needs=("messages", "label"), read=_thumb_messages),
        Format(name="messages", needs=("messages",), read=_messages),
        Format(name="completion", needs=("prompt", "completion"), read=_demonstration("completion")),
        Format(name="best-first", needs=("prompt", "output"), read=_best_first, when=_list_of("output")),
        Format(name="instruction", needs=("prompt", "output"), read=_demonstration("output")),
        Format(name="answer", needs=("prompt", "answer"), read=_demonstration("answer")),
        Format(name="labelled-text", needs=("text", "label"), read=_labelled_text, when=_unprompted),
        Format(name="scored-text", needs=("text", "score"), read=_scored_text, when=_unprompted),
        Format(name="text", needs=("text",), read=_text, when=_unprompted),
        Format(name="prompt", needs=("prompt",), read=_only_prompt, when=_asks),
    )
}
"""Every format by name, in the order in which they are tried."""

COLUMNS: Final = frozenset(
    {*_ASKED, "history", "system", "reference", *_BESIDES}.union(*(entry.needs for entry in FORMATS.values()))
)
"""Every column that some format knows; `annotator2`, `annotator3`, ... besides."""


def find_format(name: str) -> Format:
    """The format of that name.

    Raises:
        RecordError: there is none; the nearest is named.
    """
    if name not in FORMATS:
        near = difflib.get_close_matches(name, FORMATS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise RecordError(f"unknown format {name!r}{hint}; known are auto, {', '.join(FORMATS)}")
    return FORMATS[name]


def recognise(rows: Sequence[Fields]) -> Format:
    """The format that fits most of these rows.

    Raises:
        RecordError: none fits any; says what the nearest would need.
    """
    votes: Counter[str] = Counter()
    for row in rows:
        votes.update([next((name for name, entry in FORMATS.items() if entry.fits(row)), "")])
    del votes[""]
    if votes:
        return FORMATS[max(votes, key=lambda name: votes[name])]
    raise RecordError(_unknown(rows[0]))


def _unknown(row: Fields) -> str:
    """What to say of a row that no format fits: the formats that have some of its columns and lack the fewest."""
    columns = ", ".join(map(str, row.values)) or "(none)"
    lacking = {entry.name: entry.lacks(row) for entry in FORMATS.values() if len(entry.lacks(row)) < len(entry.needs)}
    fewest = min(map(len, lacking.values()), default=0)
    nearest = [f"{name} lacks {', '.join(lacks)}" for name, lacks in lacking.items() if lacks and len(lacks) == fewest]
    hint = f"the nearest: {'; '.join(nearest[:4])}" if nearest else f"known are {', '.join(FORMATS)}"
    only = str(next(iter(row.values), "body"))
    separator = next((mark for mark in (";", "\t", "|") if len(row.values) == 1 and mark in only), None)
    if separator is not None:
        return f"row: no format has the one column {only!r}: if {separator!r} separates columns, save them with commas"
    example = f"as in text: {only} (`--column text={only}` of plaudit data check and plaudit evaluate reward)"
    return f"row: no format has the columns {columns}; {hint}; say which is which with columns, {example}"


def renamed(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The row with each known name in place of the column it goes by; `scores.overall` is `overall` inside `scores`.

    A column that this row does not have is left out.
    """
    taken = {known: _inside(row, yours) for known, yours in columns.items()}
    rest = {name: value for name, value in row.items() if name not in columns.values()}
    return rest | {known: found[0] for known, found in taken.items() if found}


def _inside(row: Mapping[str, Any], name: str) -> tuple[Any, ...]:
    if name in row:
        return (row[name],)
    outer, dot, inner = name.partition(".")
    value = row.get(outer)
    return _inside(value, inner) if dot and isinstance(value, Mapping) else ()
