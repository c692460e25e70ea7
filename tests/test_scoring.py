"""Scorers in a recipe: each kind takes its own settings, mistakes are named, and no reward is left without a use."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from plaudit.cli.starter import commented
from plaudit.errors import RecipeError
from plaudit.recipe import load_recipe, override, recipe_from
from plaudit.scoring import KINDS, ByLength, ByModel

ROAD: dict[str, Any] = {"world": {}, "language": {}, "policy": {}}
TRAINED = ROAD | {"collect": {}, "reward": {}}
LENGTH = {"kind": "length", "target": 40}


def problems(scorers: Any, road: dict[str, Any] = ROAD) -> str:
    with pytest.raises(RecipeError) as caught:
        recipe_from(road | {"scorers": scorers})
    return str(caught.value)


def test_every_kind_of_the_issue_is_there():
    assert set(KINDS) == {
        "model", "similarity", "classifier", "bleu", "chrf", "rouge", "function", "http", "length", "repetition",
    }  # fmt: skip


def test_scorers_are_named_and_weighted():
    recipe = recipe_from(ROAD | {"scorers": {"brief": LENGTH | {"weight": 0.5, "clip": [-1, 0]}}})
    assert recipe.scorers == {"brief": ByLength(kind="length", target=40, weight=0.5, clip=(-1, 0))}


def test_set_reaches_a_setting_of_one_scorer_and_adds_another():
    given = override({"scorers": {"brief": LENGTH}}, ["scorers.brief.target=9", "scorers.again={kind: repetition}"])
    assert recipe_from(ROAD | given).scorers["brief"] == ByLength(kind="length", target=9)
    assert list(recipe_from(ROAD | given).scorers) == ["brief", "again"]


def test_a_recipe_with_scorers_is_written_and_read_again():
    given = ROAD | {"scorers": {"brief": LENGTH, "own": {"kind": "function", "path": "a.py:f"}}}
    assert recipe_from(yaml.safe_load(commented(given))) == recipe_from(given)
    whole = recipe_from(given).model_dump(mode="json")
    assert recipe_from(whole) == recipe_from(given)


def test_paths_and_addresses_may_name_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("HERE", "there")
    path = tmp_path / "r.yaml"
    scorers = {
        "like": {"kind": "similarity", "path": "$HERE/encoder"},
        "far": {"kind": "http", "url": "http://${HERE}:80/score"},
    }
    path.write_text(yaml.safe_dump(ROAD | {"scorers": scorers}))
    recipe = load_recipe(path)
    assert recipe.scorers["like"].path == "there/encoder"  # type: ignore[union-attr]
    assert recipe.scorers["far"].url == "http://there:80/score"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("scorers", "says"),
    [
        ({"a": {"kind": "lenght"}}, "scorers.a.kind: one of model, similarity,"),
        ({"a": {"kind": "lenght"}}, "found 'lenght' (did you mean length?)"),
        ({"a": {}}, "repetition, found None"),
        ({"a": LENGTH | {"targt": 3}}, "unknown setting scorers.a.targt (did you mean scorers.a.target?)"),
        ({"a": {"kind": "length"}}, "scorers.a.target: field required"),
        ({"a": LENGTH | {"target": 0}}, "scorers.a.target: input should be greater than or equal to 1, found 0"),
        ({"a": LENGTH | {"clip": [1, 0]}}, "scorers.a: clip takes the lowest score and then the highest"),
        ({"a": LENGTH | {"path": "m"}}, "unknown setting scorers.a.path"),
        ({"a": 3}, "scorers.a: input should be a valid dictionary"),
        ({"a b": LENGTH}, "scorers.a b: string should match pattern"),
        ({"a": {"kind": "function", "path": "a.py"}}, "scorers.a.path: string should match pattern"),
        ({"a": {"kind": "http", "url": "here"}}, "scorers.a.url: string should match pattern"),
        ([LENGTH], "scorers: input should be a valid dictionary"),
    ],
)
def test_a_mistake_is_named_where_it_stands(scorers, says):
    found = problems(scorers)
    assert says in found
    assert "policy needs a reward" not in found


def test_the_reward_stage_and_the_scorers_fit_together():
    assert "policy needs a reward" in problems({})
    assert "scorers.mine is the model that the reward stage trains" in problems({"mine": {"kind": "model"}})
    assert "reward trains a model that no scorer is" in problems({"brief": LENGTH}, TRAINED)
    both = recipe_from(TRAINED | {"scorers": {"mine": {"kind": "model"}, "brief": LENGTH}})
    assert both.scorers["mine"] == ByModel(kind="model")
