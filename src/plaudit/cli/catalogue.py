"""Every setting below a section with what people need to choose it: the table of `--help` and the recipe of `init`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import yaml

from plaudit.recipe import Section
from plaudit.scoring import KINDS, ScoringBy

__all__ = ["Setting", "as_yaml", "below", "kinds_of_scorers", "leaves"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One line of a section: a value, or the name of an inner section."""

    name: str
    default: Any
    """None for an inner section that is absent unless the recipe gives it."""
    meaning: str
    inner: type[Section] | None
    needed: bool = False
    """Whether it has no default."""

    def shown(self) -> str:
        """The default as one line of YAML, for people."""
        return "needed" if self.needed else as_yaml(self.default)

    @property
    def optional(self) -> bool:
        """Whether this is an inner section that is absent by default."""
        return self.inner is not None and self.default is None


def below(section: type[Section], at: Section | None = None) -> Iterator[Setting]:
    """The lines of a section, in the order in which they were written.

    Args:
        section: The kind of section.
        at: The section that holds the defaults, where they differ from the kind's own (an optimiser for each stage).
    """
    for name, field in section.model_fields.items():
        if at is not None:
            default = getattr(at, name)
        else:
            default = None if field.is_required() else field.get_default(call_default_factory=True)
        inner = _inner(field.annotation)
        meaning = " ".join((field.description or (inner.__doc__ or "" if inner is not None else "")).split())
        choices = _choices(field.annotation)
        if not all(choice in meaning for choice in choices):
            meaning = f"{meaning} May be: {', '.join(choices)}."
        yield Setting(name=name, default=default, meaning=meaning, inner=inner, needed=field.is_required())


def leaves(section: type[Section], prefix: str = "", at: Section | None = None) -> Iterator[tuple[str, Setting]]:
    """Every single value below a section, with its full name as `--set` takes it."""
    for setting in below(section, at):
        if setting.inner is None:
            yield prefix + setting.name, setting
        else:
            yield from leaves(setting.inner, f"{prefix}{setting.name}.", setting.default)


def kinds_of_scorers() -> Iterator[tuple[Setting, list[Setting]]]:
    """Every kind of scorer with the settings that it has by itself; those that all have come first, under no kind."""
    common = list(below(ScoringBy))
    yield Setting(name="", default=None, meaning=ScoringBy.__doc__ or "", inner=ScoringBy), common
    for name, section in KINDS.items():
        own = [setting for setting in below(section) if setting.name not in {"kind", *ScoringBy.model_fields}]
        yield Setting(name=name, default=None, meaning=section.__doc__ or "", inner=section), own


def as_yaml(value: Any) -> str:
    """A plain value in one line of YAML."""
    if isinstance(value, tuple):
        value = [list(item) if isinstance(item, tuple) else item for item in value]
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")


def _inner(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    if get_origin(annotation) in (tuple, dict):
        return None  # a list of sections, such as sources, is a value; so is a table of them, such as scorers
    return next((inner for option in get_args(annotation) if (inner := _inner(option)) is not None), None)


def _choices(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return [choice for option in get_args(annotation) for choice in _choices(option)]
