"""What every group of settings is: frozen, typed, and closed to names that it does not know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, model_validator

__all__ = ["Section"]


class Section(BaseModel):
    """A frozen group of settings that refuses names it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _keep_defaults(cls, given: Any) -> Any:
        # An inner section that is given in part has its other values from this section's default, which may differ
        # from its kind's own: the policy's optimiser is not the reward model's.
        if not isinstance(given, Mapping):
            return given
        defaults = {name: field.default for name, field in cls.model_fields.items()}
        return {
            name: _filled(defaults[name].model_dump(), value)
            if isinstance(defaults.get(name), Section) and isinstance(value, Mapping)
            else value
            for name, value in given.items()
        }

    @model_validator(mode="before")
    @classmethod
    def _count_no_switches(cls, given: Any) -> Any:
        # pydantic takes true for 1, but the word "true" for no number
        if not isinstance(given, Mapping):
            return given
        fields = cls.model_fields
        return {
            name: _spelt(value) if name in fields and _is_numeric(fields[name].annotation) else value
            for name, value in given.items()
        }


def _is_numeric(annotation: Any) -> bool:
    kinds = list(_kinds(annotation))
    return bool not in kinds and (int in kinds or float in kinds)


def _kinds(annotation: Any) -> Iterator[Any]:
    """The plain kinds inside one like `dict[str, float] | None`."""
    inner = get_args(annotation)
    return (kind for part in inner for kind in _kinds(part)) if inner else iter((annotation,))


def _spelt(value: Any) -> Any:
    """A value with true and false as words, in what it holds too."""
    if isinstance(value, Mapping):
        return {name: _spelt(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_spelt(inner) for inner in value]
    return str(value).lower() if isinstance(value, bool) else value


def _filled(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        name: _filled(defaults[name], value)
        for name, value in given.items()
        if isinstance(value, Mapping) and isinstance(defaults.get(name), Mapping)
    }
    return {**defaults, **given, **both}
