"""The recipe that `plaudit init` writes: it loads, says everything, and switches on what the files allow."""

from __future__ import annotations

import re

import pytest
import yaml
from typer.testing import CliRunner

from plaudit.cli import app
from plaudit.cli.starter import commented, starter
from plaudit.demo import demo_recipe
from plaudit.errors import RecipeError
from plaudit.playing import Playing
from plaudit.recipe import Recipe, load_recipe, recipe_from, settings


def init(*words: object):
    return CliRunner().invoke(app, ["init", *(str(word) for word in words)])


def test_init_writes_the_recipe_of_the_demo(tmp_path):
    path = tmp_path / "new" / "mine.yaml"
    result = init(path)
    assert result.exit_code == 0
    assert f"plaudit run {path}" in result.stdout.replace("\n", "")
    assert load_recipe(path) == demo_recipe()


def test_a_given_value_counts_even_where_another_section_has_it_by_default():
    given = {"world": {}, "language": {}, "collect": {}, "reward": {}, "policy": {"optimiser": {"decay": "cosine"}}}
    assert recipe_from(yaml.safe_load(commented(given))) == recipe_from(given)


def test_sections_without_a_value_of_their_own_are_the_defaults():
    assert recipe_from(yaml.safe_load(commented({"world": {}}))) == recipe_from({"world": {}})


def test_every_setting_stands_there_with_its_meaning():
    text = starter()
    lines = [re.sub(r"^[ #]*", "", line) for line in text.splitlines()]
    for name, _, meaning in settings(Recipe):
        assert any(line.startswith(f"{name.rsplit('.', 1)[-1]}:") for line in lines), name
        assert any(meaning in line for line in lines), name


def test_what_is_behind_a_hash_can_be_switched_on():
    text = commented({"world": {}})
    blocks = re.findall(r"^( *)# (\w+):\n((?:\1#   .*\n)+)", text, re.MULTILINE)
    given = {name: yaml.safe_load(re.sub(r"^ *#   ", "", lines, flags=re.MULTILINE)) for _, name, lines in blocks}
    assert list(given) == ["adapter", "language", "sft", "collect", "reward", "environment", "policy"]
    assert Playing.model_validate(given.pop("environment")) == Playing()  # in place of a reward
    recipe = recipe_from({"world": {}, "model": {"adapter": given.pop("adapter")}} | given)
    assert recipe == recipe_from({"world": {}, "model": {"adapter": {}}} | {stage: {} for stage in given})


@pytest.mark.parametrize(
    ("sources", "stages"),
    [
        (["documents"], ["language"]),
        (["demonstrations"], ["sft"]),
        (["judgements"], ["reward"]),
        (["judgements", "prompts"], ["reward", "policy"]),
        (["documents", "demonstrations", "judgements", "prompts"], ["language", "sft", "reward", "policy"]),
    ],
)
def test_the_files_decide_which_stages_run(sources, stages):
    text = starter(model="path/to/model", sources={name: f"{name}.jsonl" for name in sources})
    recipe = recipe_from(yaml.safe_load(text))
    assert recipe.model.path == "path/to/model"
    assert [name for name in ("language", "sft", "reward", "policy") if getattr(recipe, name)] == stages
    assert [getattr(recipe.data, name)[0].path for name in sources] == [f"{name}.jsonl" for name in sources]


@pytest.mark.parametrize("path", ["評論 #1: x.jsonl", "- a", "null", "C:\\data\\x.csv", 'it\'s "so"'])
def test_any_path_can_be_written(path):
    recipe = recipe_from(yaml.safe_load(starter(model=path, sources={"documents": path})))
    assert (recipe.model.path, recipe.data.documents[0].path) == (path, path)


def test_a_model_needs_files(tmp_path):
    with pytest.raises(RecipeError, match="give --model and at least one of --documents"):
        starter(model="m")
    result = init(tmp_path / "r.yaml", "--documents", "d.txt")
    assert result.exit_code == 1
    assert not (tmp_path / "r.yaml").exists()


def test_init_keeps_what_is_there_unless_forced(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("mine")
    result = init(path)
    assert result.exit_code == 1
    assert "--force" in result.stderr
    assert path.read_text() == "mine"
    assert init(path, "--force").exit_code == 0
    assert path.read_text() != "mine"
