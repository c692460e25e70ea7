"""Where the built-in model is kept: one place for each way of making it, whole or not at all."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from plaudit import cache
from plaudit.cache import builtin_folder, cache_folder, keep_builtin, take_builtin
from plaudit.models.load import Machine
from plaudit.recipe import Recipe, recipe_from
from plaudit.worlds import ReviewWorld

MACHINE = Machine(device=torch.device("cpu"), bf16=False)


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {"PLAUDIT_CACHE": "/c", "XDG_CACHE_HOME": "/x"}, "/c"),
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/plaudit"),
        ("linux", {"HOME": "/me"}, "/me/.cache/plaudit"),
        ("darwin", {"HOME": "/me"}, "/me/Library/Caches/plaudit"),
    ],
)
def test_the_cache_is_where_the_platform_keeps_such_things(platform, variables, folder, monkeypatch):
    monkeypatch.setattr("sys.platform", platform)
    for name in ("PLAUDIT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder)


def changed(recipe: Recipe, **sections: Any) -> Recipe:
    given = recipe.model_dump(mode="json")
    return recipe_from({**given, **{name: {**given[name], **values} for name, values in sections.items()}})


def test_what_does_not_train_the_model_does_not_matter(tiny_road):
    place = builtin_folder(tiny_road, MACHINE)
    assert place.parent == cache_folder()
    other = changed(tiny_road, policy={"steps": 2}, world={"prompts": 12}).model_copy(update={"seed": 5})
    assert builtin_folder(other, MACHINE) == place


def test_what_trains_the_model_has_a_place_of_its_own(tiny_road, monkeypatch):
    places = [
        builtin_folder(tiny_road, MACHINE),
        builtin_folder(changed(tiny_road, language={"steps": 5}), MACHINE),
        builtin_folder(changed(tiny_road, world={"documents": 65}), MACHINE),
        builtin_folder(tiny_road.model_copy(update={"micro_tokens": 512}), MACHINE),
        builtin_folder(tiny_road, dataclasses.replace(MACHINE, bf16=True)),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(ReviewWorld, "corpus", lambda self, count, seed: ["another grammar"] * count)
        places.append(builtin_folder(tiny_road, MACHINE))
    with monkeypatch.context() as patch:
        patch.setattr(cache, "__version__", "99")
        places.append(builtin_folder(tiny_road, MACHINE))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 64)
        places.append(builtin_folder(tiny_road, MACHINE))
    assert len(set(places)) == len(places)


def model(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(text)
    return folder


def test_a_model_is_kept_and_taken(tmp_path):
    place = tmp_path / "new" / "cache" / "reviews"
    keep_builtin(model(tmp_path / "language", "one"), place)
    take_builtin(place, tmp_path / "run-language")
    assert (tmp_path / "run-language" / "config.json").read_text() == "one"
    assert [path.name for path in place.parent.iterdir()] == ["reviews"]


def test_a_model_that_is_there_stays(tmp_path):
    """Two runs may train it side by side; the first to end is kept, and neither fails."""
    place = tmp_path / "cache" / "reviews"
    keep_builtin(model(tmp_path / "one", "one"), place)
    keep_builtin(model(tmp_path / "two", "two"), place)
    assert (place / "config.json").read_text() == "one"
    assert [path.name for path in place.parent.iterdir()] == ["reviews"]


def test_half_a_copy_is_never_taken_for_a_model(tmp_path):
    place = model(tmp_path / "kept", "whole")
    target = model(tmp_path / "language", "old")
    model(tmp_path / "language.writing", "half")  # left by a process that was killed
    (target / "more").write_text("old")
    take_builtin(place, target)
    assert {path.name for path in target.iterdir()} == {"config.json"}
    assert (target / "config.json").read_text() == "whole"
    assert not (tmp_path / "language.writing").exists()


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    keep_builtin(model(tmp_path / "language", "one"), tmp_path / "file" / "reviews")
    assert (tmp_path / "file").read_text() == ""
