"""The hidden taste of the book-review world: the gold reward, made of things that anyone can check.

Gold is a weighted sum of six properties, less the cost of broken sentences. Only sentences that parse count towards a
property, and a sentence said twice counts once: a broken text has nothing, and a good beginning saves no bad end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from plaudit.errors import RecordError
from plaudit.records import Prompt
from plaudit.worlds.chinese import CHINESE
from plaudit.worlds.english import ENGLISH
from plaudit.worlds.grammar import Grammar, Said

__all__ = ["BROKEN", "GRAMMARS", "SPREAD", "WEIGHTS", "gold", "grammar_of", "parse_share", "parses", "properties"]

GRAMMARS: Mapping[str, Grammar] = MappingProxyType({"en": ENGLISH, "zh": CHINESE})
"""The languages of the world."""

WEIGHTS: Mapping[str, float] = MappingProxyType(
    {"book": 1.0, "balanced": 1.05, "specific": 1.2, "advice": 1.1, "varied": 0.85, "brief": 0.95}
)
"""Points for each property: near-equal, so that none carries the taste alone; unequal, so that ties are few."""

BROKEN = 2.0
"""Points lost by a text of which no sentence parses; a part of them, if a part does not."""

SPREAD = 1.0
"""Standard deviation of gold among demonstrations, in points, about; annotators' noise is in units of it."""


def gold(prompt: Prompt, answer: str) -> float:
    """How good the answer is by the hidden taste, in points: at most 6.15; an empty answer has -2.95.

    Raises:
        RecordError: the prompt is not one of this world's.
    """
    found, broken = _look(prompt, answer)
    return sum(weight * found[name] for name, weight in WEIGHTS.items()) - BROKEN * broken


def properties(prompt: Prompt, answer: str) -> dict[str, float]:
    """What the taste looks for: 1 is there, 0 is not; a fault can make the first and the last two -1.

    - book: names the title, 0.5 if only the author; -1 if it names a title, author or hero of another book.
    - balanced: at least one praise and at least one criticism.
    - specific: tells a scene with the book's hero.
    - advice: says who it is for.
    - varied: no word of praise or blame and no part of a book twice, in 2 sentences or more; -1 if one stands twice.
    - brief: 2 or 3 different sentences, 0.5 with 4, 0 with 5; -1 if fewer or more.

    Raises:
        RecordError: the prompt is not one of this world's.
    """
    return _look(prompt, answer)[0]


def _look(prompt: Prompt, answer: str) -> tuple[dict[str, float], float]:
    """The properties, and the share of sentences that are broken."""
    grammar = grammar_of(prompt)
    sentences = grammar.sentences(answer)
    said = {sentence: what for sentence in sentences if (what := grammar.parse(sentence))}
    parsed = sum(sentence in said for sentence in sentences)
    kinds = {what.kind for what in said.values()}
    judging = [word for sentence in said for word in grammar.judging(sentence)]
    found = {
        "book": _book(prompt, said.values()),
        "balanced": float("contrast" in kinds or kinds >= {"praise", "blame"}),
        "specific": float(any(what.names.get("hero") == prompt.about["hero"] for what in said.values())),
        "advice": float("advice" in kinds),
        "varied": -1.0 if parsed > len(said) else float(len(said) > 1 and len(set(judging)) == len(judging)),
        "brief": {2: 1.0, 3: 1.0, 4: 0.5, 5: 0.0}.get(len(said), -1.0),
    }
    return found, 1.0 - parsed / len(sentences) if sentences else 1.0


def _book(prompt: Prompt, said: Iterable[Said]) -> float:
    names = [(slot, name) for what in said for slot, name in what.names.items()]
    if any(name != prompt.about[slot] for slot, name in names):
        return -1.0
    slots = {slot for slot, _ in names}
    return 1.0 if "title" in slots else 0.5 if "author" in slots else 0.0


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
