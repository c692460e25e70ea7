"""The hidden taste of the book-review world: the gold reward, a weighted sum of seven properties that anyone can check.

Only sentences that parse count, and a sentence said twice counts once. So a broken text has none of the properties, and no
length of good beginning makes up for a bad end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from plaudit.errors import RecordError
from plaudit.records import Prompt
from plaudit.worlds.chinese import CHINESE
from plaudit.worlds.english import ENGLISH
from plaudit.worlds.grammar import Grammar, Said

__all__ = ["GRAMMARS", "SPREAD", "WEIGHTS", "gold", "grammar_of", "parse_share", "parses", "properties"]

GRAMMARS: Mapping[str, Grammar] = MappingProxyType({"en": ENGLISH, "zh": CHINESE})
"""The languages of the world."""

WEIGHTS: Mapping[str, float] = MappingProxyType(
    {"book": 1.0, "balanced": 1.05, "specific": 1.1, "advice": 0.95, "varied": 0.95, "length": 0.9, "grammar": 2.0}
)
"""What a full point of each property is worth. Near-equal, so that no property carries the taste alone."""

SPREAD = 1.2
"""Standard deviation of gold among demonstrations, in points; annotators' noise is in units of it."""


def gold(prompt: Prompt, answer: str) -> float:
    """How good the answer is by the hidden taste, in points: -1.95 (nothing said) to 7.95."""
    found = properties(prompt, answer)
    return sum(weight * found[name] for name, weight in WEIGHTS.items())


def properties(prompt: Prompt, answer: str) -> dict[str, float]:
    """What the taste looks at, each 1 (has it) or 0; a fault can make the first, fifth and sixth -1.

    - book: names the title or the author; -1 if it names a title, author or hero of another book.
    - balanced: at least one praise and at least one criticism.
    - specific: tells a scene with the book's hero.
    - advice: says who it is for.
    - varied: two sentences or more, all with different openings; -1 if a sentence stands there twice.
    - length: 3 or 4 different sentences; -1 if under 2 or over 5.
    - grammar: the share of sentences that parse, between 0 and 1.

    Raises:
        RecordError: the prompt is not one of this world's.
    """
    grammar = grammar_of(prompt)
    sentences = grammar.sentences(answer)
    said = {sentence: what for sentence in sentences if (what := grammar.parse(sentence))}
    parsed = sum(sentence in said for sentence in sentences)
    kinds = {what.kind for what in said.values()}
    openings = {grammar.opening(sentence) for sentence in said}
    return {
        "book": _book(prompt, said.values()),
        "balanced": float("contrast" in kinds or kinds >= {"praise", "blame"}),
        "specific": float(any(what.names.get("hero") == prompt.about["hero"] for what in said.values())),
        "advice": float("advice" in kinds),
        "varied": -1.0 if parsed > len(said) else float(len(openings) == len(said) > 1),
        "length": 1.0 if 3 <= len(said) <= 4 else 0.0 if len(said) in (2, 5) else -1.0,
        "grammar": parsed / len(sentences) if sentences else 0.0,
    }


def _book(prompt: Prompt, said: Iterable[Said]) -> float:
    names = [(slot, name) for what in said for slot, name in what.names.items()]
    if any(name != prompt.about[slot] for slot, name in names):
        return -1.0
    return float(any(slot in ("title", "author") for slot, _ in names))


def parses(sentence: str, language: str) -> bool:
    """Whether the grammar of the language could have written the sentence."""
    return GRAMMARS[language].parse(sentence) is not None


def parse_share(text: str) -> float:
    """The share of a text's sentences that parse, in the language that understands more of them; 0 for no text."""
    shares = [0.0]
    for grammar in GRAMMARS.values():
        sentences = grammar.sentences(text)
        if sentences:
            shares.append(sum(grammar.parse(sentence) is not None for sentence in sentences) / len(sentences))
    return max(shares)


def grammar_of(prompt: Prompt) -> Grammar:
    """The grammar of the prompt's language.

    Raises:
        RecordError: the prompt is not one of this world's.
    """
    language = prompt.about.get("language")
    if not isinstance(language, str) or language not in GRAMMARS:
        raise RecordError(f"prompt {prompt.id}: about.language must be one of {list(GRAMMARS)}, found {language!r}")
    return GRAMMARS[language]
