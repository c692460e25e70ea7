"""A row's columns, asked for by name and type; each refusal says which column, what it needs and what it found."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from plaudit.errors import RecordError
from plaudit.records import Message

__all__ = ["Fields"]

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}
_FLAGS = {"1": True, "true": True, "0": False, "false": False}


@dataclass(frozen=True, slots=True)
class Fields:
    """A row whose columns are read by type. A bare text is a row with the one column `text`.

    Every method raises a `RecordError` that begins with the column's name.
    """

    values: Mapping[str, Any]

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def __getitem__(self, name: str) -> Any:
        if name not in self.values:
            raise RecordError(f"{name}: missing (the row has {', '.join(map(str, self.values)) or 'nothing'})")
        return self.values[name]

    def has(self, name: str, *kinds: type) -> bool:
        """Whether the column is there and of one of these types."""
        return isinstance(self.values.get(name), kinds)

    def text(self, name: str) -> str:
        """A text, perhaps empty."""
        return _text(name, self[name])

    def words(self, name: str) -> str:
        """A text that is not empty."""
        text = self.text(name)
        if not text:
            raise RecordError(f"{name}: is empty")
        return text

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(_text(f"{name}.{place}", value) for place, value in self.items(name))

    def number(self, name: str) -> float:
        """A finite number, or a text that spells one (CSV knows only texts)."""
        return _number(name, self[name])

    def numbers(self, name: str) -> tuple[float, ...]:
        """A list of finite numbers."""
        return tuple(_number(f"{name}.{place}", value) for place, value in self.items(name))

    def count(self, name: str) -> int:
        """A whole number, 0 or more, or a text that spells one."""
        return _count(name, self[name])

    def counts(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers, 0 or more."""
        return tuple(_count(f"{name}.{place}", value) for place, value in self.items(name))

    def flag(self, name: str) -> bool:
        """True or false, 1 or 0, or a text that spells one of these."""
        value = self[name]
        flag = _FLAGS.get(str(value).lower()) if isinstance(value, bool | int | str) else None
        if flag is None:
            raise RecordError(f"{name}: needs true or false, 1 or 0 ({_found(value)})")
        return flag

    def one_of(self, name: str, *choices: int) -> int:
        """One of these whole numbers, or a text that spells it."""
        value = self[name]
        allowed = {str(choice): choice for choice in choices}
        if not isinstance(value, int | str) or str(value) not in allowed:  # str(True) is none
            raise RecordError(f"{name}: needs one of {', '.join(allowed)} ({_found(value)})")
        return allowed[str(value)]

    def messages(self, name: str) -> tuple[Message, ...]:
        """The turns of a chat: `{role, content}`, or ShareGPT's `{from, value}`."""
        return tuple(_message(f"{name}.{place}", value) for place, value in self.items(name))

    def message(self, name: str) -> Message:
        """One turn of a chat."""
        return _message(name, self[name])

    def items(self, name: str) -> Iterator[tuple[int, Any]]:
        """A list's elements, numbered."""
        value = self[name]
        if not isinstance(value, list | tuple):
            raise RecordError(f"{name}: needs a list ({_found(value)})")
        return enumerate(value)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise RecordError(f"{name}: needs a text ({_found(value)})")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        half = value[error.start]
        raise RecordError(f"{name}: holds half a character, which no file can keep (found {half!a})") from error
    return value


def _number(name: str, value: object) -> float:
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise RecordError(f"{name}: needs a finite number ({_found(value)})")
    return number


def _count(name: str, value: object) -> int:
    number = _number(name, value)
    if number < 0 or not number.is_integer():
        raise RecordError(f"{name}: needs a whole number, 0 or more ({_found(value)})")
    return int(number)


def _message(name: str, value: object) -> Message:
    if not isinstance(value, Mapping):
        raise RecordError(f"{name}: needs a message with role and content ({_found(value)})")
    who, what = ("from", "value") if "from" in value else ("role", "content")
    turn = Fields(value)
    try:
        role = _ROLES.get(turn.text(who))
        if role is None:
            raise RecordError(f"{who}: unknown; known are {', '.join(_ROLES)} ({_found(value[who])})")
        return Message.model_validate({"role": role, "content": turn.text(what)})
    except RecordError as error:
        raise RecordError(f"{name}.{error}") from error


def _found(value: object) -> str:
    try:
        shown = json.dumps(value, ensure_ascii=True, allow_nan=True)
    except (TypeError, ValueError):
        shown = repr(value)
    return f"found {shown if len(shown) <= 60 else shown[:57] + '...'}"
