"""The recipe that `plaudit init` writes: every setting with its meaning and default, ready to run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from plaudit.cli.catalogue import Setting, as_yaml, below, kinds_of_scorers
from plaudit.demo import demo_recipe
from plaudit.errors import RecipeError
from plaudit.recipe import Data, Recipe, Section, Source, recipe_from

__all__ = ["commented", "starter"]

HEADER = """\
# A recipe of Plaudit: `plaudit run {name}` goes the whole road.
#
# Every setting stands here with its meaning. One that you delete takes its default: the value that stands here, or the
# one behind it where they differ.
# A stage runs when its section is there. A section behind `#` is absent: take the `#` away and it is there.
"""


def starter(*, model: str | None = None, sources: Mapping[str, str] | None = None, name: str = "recipe.yaml") -> str:
    """A recipe as text: that of the demo, or one for a model and files of the user's own.

    Args:
        model: A Transformers folder or name; None is the built-in model.
        sources: A file for each of `documents`, `demonstrations`, `judgements` and `prompts` that there is.
        name: The file's name, for the comment on top.

    Raises:
        RecipeError: Files are given without a model, or a model without files.
    """
    sources = sources or {}
    if (model is None) != (not sources):
        raise RecipeError(
            "a model of your own needs files of your own: give --model and at least one of "
            "--documents, --demonstrations, --judgements, --prompts, or none of them for the built-in world"
        )
    given = demo_recipe().model_dump(mode="json") if model is None else _own(model, sources)
    recipe_from(given)  # what is written must load
    return commented(given, name=name)


def _own(model: str, sources: Mapping[str, str]) -> dict[str, Any]:
    given: dict[str, Any] = {"model": {"path": model}}
    given["data"] = {name: [{"path": file}] for name, file in sources.items()}
    if "documents" in sources:
        given["language"] = {}
    if "demonstrations" in sources:
        given["sft"] = {}
    if "judgements" in sources:
        given["reward"] = {} if "sft" in given else {"start": "model"}
    if "prompts" in sources and "reward" in given:
        given["policy"] = {}
    return given


def commented(given: Mapping[str, Any], *, name: str = "recipe.yaml") -> str:
    """A recipe as YAML: every setting under a comment that says what it means.

    Args:
        given: Values that differ from the defaults, and optional sections that are to be there (`{}` is enough);
            of a source, only its path.
        name: The file's name, for the comment on top.
    """
    lines = [*HEADER.format(name=name).splitlines(), *_section(Recipe, None, given, depth=0)]
    return "\n".join(lines) + "\n"


def _section(section: type[Section], at: Section | None, given: Mapping[str, Any], depth: int) -> Iterator[str]:
    margin = "  " * depth
    if section is Data:
        yield from (f"{margin}# {line}" for line in _about_sources())
    for setting in below(section, at):
        if depth == 0:
            yield ""
        yield f"{margin}# {setting.meaning}"
        if section is Recipe and setting.name == "scorers":
            yield from (f"# {line}" for line in _about_scorers())
        lines = _lines(setting, given.get(setting.name), depth)
        if setting.optional and given.get(setting.name) is None:
            yield from (f"{margin}# {line.removeprefix(margin)}" for line in lines)
        else:
            yield from lines


def _about_sources() -> Iterator[str]:
    yield "Each of the first four is a list of sources. A source is a path and, below it, what you want to change:"
    for setting in below(Source):
        entry = "- path: reviews.jsonl" if setting.name == "path" else f"  {setting.name}: {as_yaml(setting.default)}"
        yield f"  {entry:24} {setting.meaning}"


def _about_scorers() -> Iterator[str]:
    yield "Each is a name of your choice, its kind, and what you want to change: `brief: {kind: length, target: 80}`."
    for kind, own in kinds_of_scorers():
        yield f"  {f'kind: {kind.name}' if kind.name else 'every kind':24} {kind.meaning}"
        yield from (f"    {f'{one.name}: {one.shown()}':22} {one.meaning}" for one in own)


def _lines(setting: Setting, value: Any, depth: int) -> Iterator[str]:
    margin = "  " * depth
    if setting.inner is not None:
        yield f"{margin}{setting.name}:"
        yield from _section(setting.inner, setting.default, value or {}, depth + 1)
    elif value and isinstance(value, list) and isinstance(value[0], dict):
        yield f"{margin}{setting.name}:"
        yield from (f"{margin}  - path: {as_yaml(source['path'])}" for source in value)
    else:
        shown, default = as_yaml(setting.default if value is None else value), as_yaml(setting.default)
        yield f"{margin}{setting.name}: {shown}" + (f"  # default: {default}" if shown != default else "")
