"""Where a prompt ends when nobody says so: two transcripts, texts or chats that begin alike."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from plaudit.errors import RecordError
from plaudit.records import Message

__all__ = ["answer_of", "is_transcript", "shared_chat", "shared_text", "shared_transcript"]

_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_SPEAKER = {"Human": "user", "Assistant": "assistant"}


class _Turn(NamedTuple):
    role: str
    content: str
    start: int
    """Where the content begins in the transcript."""


def is_transcript(text: str) -> bool:
    """Whether a text is a dialogue as in hh-rlhf: `\\n\\nHuman: ...\\n\\nAssistant: ...`."""
    return text.lstrip("\n").startswith("Human:") and "\n\nAssistant:" in text


def shared_transcript(chosen: str, rejected: str) -> tuple[tuple[Message, ...], str, str]:
    """The turns that two transcripts share, up to a human one that the assistant answers in both, and what follows.

    Nearly always what follows is the last turn. Where the dialogues part earlier, the answers keep the later turns
    as text, `\\n\\nHuman:` and all: that is what people compared.

    Raises:
        RecordError: there is no such turn.
    """
    first, second = _turns("chosen", chosen), _turns("rejected", rejected)
    alike = 0
    for one, other in zip(first, second, strict=False):
        if (one.role, one.content) != (other.role, other.content):
            break
        alike += 1
    for end in range(min(alike, len(first) - 1, len(second) - 1), 0, -1):
        if first[end - 1].role == "user" and first[end].role == second[end].role == "assistant":
            prompt = tuple(Message.model_validate({"role": t.role, "content": t.content}) for t in first[:end])
            return prompt, _after_colon(chosen[first[end].start :]), _after_colon(rejected[second[end].start :])
    raise RecordError("rejected: shares no human turn with chosen that the assistant answers in both")


def _turns(name: str, transcript: str) -> list[_Turn]:
    marks = list(_TURN.finditer(transcript))
    if not marks or transcript[: marks[0].start()].strip():
        raise RecordError(f"{name}: needs a transcript that begins with Human: (found {transcript[:40]!r})")
    ends = [mark.start() for mark in marks[1:]] + [len(transcript)]
    return [
        _Turn(_SPEAKER[mark[1]], _after_colon(transcript[mark.end() : end]), mark.end())
        for mark, end in zip(marks, ends, strict=True)
    ]


def _after_colon(said: str) -> str:
    return said.removeprefix(" ")


def shared_chat(chosen: Sequence[Message], rejected: Sequence[Message]) -> tuple[tuple[Message, ...], str, str]:
    """The messages that two chats share, and the one assistant message after them in each.

    Raises:
        RecordError: they share none, or more than one message follows.
    """
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    if not shared:
        raise RecordError("rejected: shares no message with chosen, and the row has no prompt")
    return tuple(chosen[:shared]), answer_of("chosen", chosen[shared:]), answer_of("rejected", rejected[shared:])


def answer_of(name: str, messages: Sequence[Message]) -> str:
    """The text of the one assistant message that is the answer."""
    if len(messages) != 1 or messages[0].role != "assistant":
        found = ", ".join(message.role for message in messages) or "none"
        raise RecordError(f"{name}: needs one message of the assistant after the prompt (found {found})")
    return messages[0].content


def shared_text(chosen: str, rejected: str) -> tuple[str, str, str]:
    """The beginning that two texts share, and the rest of each; never cut inside a word of letters.

    Chinese and Japanese, which have no spaces, are cut between any two characters.

    Raises:
        RecordError: they share no beginning, or everything.
    """
    if chosen == rejected:
        raise RecordError("rejected: is chosen word for word, and the row has no prompt to say where they begin")
    pairs = enumerate(zip(chosen, rejected, strict=False))
    end = next((place for place, (one, other) in pairs if one != other), min(len(chosen), len(rejected)))
    while end and any(_inside_word(text, end) for text in (chosen, rejected)):
        end -= 1
    if end and chosen[end - 1] == " ":  # the space belongs to the answer, as tokenizers have it
        end -= 1
    if not chosen[:end].strip():
        raise RecordError("rejected: shares no beginning with chosen, and the row has no prompt")
    return chosen[:end], chosen[end:], rejected[end:]


def _inside_word(text: str, place: int) -> bool:
    if place >= len(text):
        return False
    before, after = text[place - 1], text[place]
    if unicodedata.combining(after) or after in "\u200d\ufe0f" or before == "\u200d":
        return True
    return _spaced(before) and _spaced(after)


def _spaced(character: str) -> bool:
    """A letter or digit of a script that puts spaces between words."""
    return character.isalnum() and (ord(character) < 0x2E80 or "가" <= character <= "힣")
