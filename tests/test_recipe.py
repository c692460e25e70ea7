"""The recipe: every problem at once, the nearest name for an unknown one, and no silent repair."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from plaudit.errors import RecipeError
from plaudit.recipe import (
    Evaluate,
    Kl,
    Language,
    Policy,
    Recipe,
    Reward,
    Sft,
    load_recipe,
    override,
    recipe_from,
    settings,
)

WORLD: dict[str, Any] = {"world": {}, "language": {}, "collect": {}}
OWN = {"model": {"path": "m"}}
NAMES = [name for name, _, _ in settings(Recipe)]


def problems(given: Mapping[str, object]) -> str:
    with pytest.raises(RecipeError) as caught:
        recipe_from(given)
    return str(caught.value)


def test_every_problem_is_reported_at_once():
    found = problems(WORLD | {"sed": 1, "sft": {"epochs": 0}, "policy": {"kl": {"beta": "high"}, "clip": 3}})
    assert found == (
        "recipe: sft.epochs: input should be greater than 0, found 0; "
        "policy.clip: input should be less than 1, found 3; "
        "policy.kl.beta: needs a number, found 'high'; "
        "unknown setting sed (did you mean seed?); "
        "policy needs a reward: give a reward section, or scorers, such as {mine: {kind: model, path: FOLDER}}"
    )


@pytest.mark.parametrize(
    ("given", "kept_quiet"),
    [
        ({"policy": {}, "scorers": {"a": 3}}, "policy needs a reward"),
        ({"policy": {}, "rewrd": {}}, "policy needs a reward"),  # it was meant to be there
        ({"reward": {}, "policy": {"minibatch": 7, "prompts_per_round": 0}}, "does not divide"),
        ({"reward": {}, "policy": {"minibatch": 7, "answers_per_prompt": [4]}}, "does not divide"),
        ({"collect": {"prompts": 9999}, "world": {"prompts": "many"}}, "is more than"),
        ({"world": [], "sft": {}}, "data.demonstrations"),
        (OWN | {"world": None, "sft": {}, "data": {"demonstrations": [{"pth": "a"}]}}, "sft needs data.demonstrations"),
    ],
)
def test_a_wrong_setting_is_not_reported_twice(given, kept_quiet):
    found = problems(WORLD | given)
    assert kept_quiet not in found
    assert "; " not in found or "pth" in found


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("seeed", "seed"),
        ("policy.kl.betta", "policy.kl.beta"),
        ("policy.lambda", "policy.lambda_"),
        ("polcy", "policy"),
        ("evaluate.sampling.temprature", "evaluate.sampling.temperature"),
        ("learning_rate", "sft.optimiser.learning_rate"),  # the right name, without its place
    ],
)
def test_an_unknown_setting_names_the_nearest_one(name, nearest):
    assert f"unknown setting {name} (did you mean {nearest}?)" in problems(override(WORLD, [f"{name}=1"]))


def test_an_unknown_setting_with_nothing_near():
    assert problems(WORLD | {"xyzzy": 1}).endswith("unknown setting xyzzy")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            WORLD | {"reward": {}, "policy": {"minibatch": 7}},
            "policy.minibatch 7 does not divide the 128 answers of a round (32 prompts x 4)",
        ),
        (
            WORLD | {"reward": {}, "policy": {"algorithm": "rloo", "answers_per_prompt": 1}},
            "policy.answers_per_prompt must be 2 or more for rloo",
        ),
        (
            WORLD | {"reward": {}, "policy": {"sampling": {"temperature": 0}}},
            "policy.sampling.temperature 0 draws the same answer again and again",
        ),
        (WORLD | {"policy": {}}, "policy needs a reward"),
        (WORLD | {"policy": {"algorithm": "best-of-n"}}, "policy needs a reward"),
        (
            WORLD | {"reward": {}, "policy": {"algorithm": "best-of-n"}, "evaluate": {"decoding": "greedy"}},
            "best-of-n chooses among different answers, and these are all alike: set evaluate.decoding to sample",
        ),
        (
            WORLD | {"reward": {}, "policy": {"algorithm": "best-of-n"}, "evaluate": {"sampling": {"temperature": 0}}},
            "evaluate.sampling.temperature above 0",
        ),
        (
            WORLD | {"text": {"max_answer_tokens": 32}, "reward": {}, "policy": {}},
            "policy.sampling.max_tokens 64 is more than the 32 of text.max_answer_tokens, behind which the reward",
        ),
        (
            WORLD | {"reward": {}, "policy": {}, "scorers": {"a": {"kind": "repetition"}}},
            "add {kind: model} to scorers",
        ),
        (OWN | {"reward": {}, "data": {"judgements": [{"path": "j"}]}}, "set reward.start to 'model'"),
        (OWN | {"collect": {}}, "collect asks the annotators of a built-in world"),
        (OWN | {"language": {}}, "language needs data.documents"),
        (OWN | {"sft": {}}, "sft needs data.demonstrations"),
        (OWN | {"reward": {"start": "model"}}, "reward needs data.judgements"),
        (OWN | {"scorers": {"a": {"kind": "model", "path": "r"}}, "policy": {}}, "policy needs data.prompts"),
        ({}, "model.path is 'builtin', a tiny model that the language stage makes from data.documents"),
        (
            {"model": {"path": "lstm"}},
            "model.path is 'lstm', a tiny model that the language stage makes from data.documents",
        ),
        (WORLD | {"model": {"path": "lstm"}, "language": None}, "collect starts from an LSTM made from nothing, which"),
        (WORLD | {"model": {"path": "lstm", "adapter": {}}}, "model.adapter: an LSTM has no layer that LoRA knows"),
        (WORLD | {"model": {"path": "lstm", "checkpointing": True}}, "model.checkpointing: an LSTM cannot recompute"),
        (
            WORLD | {"model": {"path": "lstm", "tokenizer": "t"}},
            "model.tokenizer is not read where model.path is 'lstm'",
        ),
        (WORLD | {"model": {"tokenizer": "t"}}, "model.tokenizer is not read where model.path is 'builtin'"),
        (OWN | {"model": {"path": "m", "random": True}}, "model.random draws weights that only the language stage"),
        (
            WORLD | {"reward": {}, "policy": {"optimiser": {"decay": "constant", "floor": 0.5}}},
            "policy.optimiser.floor is where a falling learning rate ends",
        ),
        (WORLD | {"reward": {"combine": "minimum"}}, "reward.combine is not read where reward.members is 1: leave it"),
        (WORLD | {"reward": {"members": 2, "caution": 3}}, "reward.caution is not read where reward.combine is mean"),
        (WORLD | {"reward": {"average": 0.5, "patience": 2}}, "reward.average and reward.patience each say which"),
        (
            OWN
            | {
                "data": {"judgements": [{"path": "j"}, {"path": "k", "quality": "kind"}]},
                "reward": {"qualities": {"helpful": 1}, "start": "model"},
            },
            "data.judgements.1.quality is 'kind', for which there is no head: reward.qualities names helpful; give",
        ),
        (WORLD | {"reward": {"look_every": 3}}, "reward.look_every is not read where reward.patience is None"),
        (
            WORLD | {"reward": {"optimiser": {"decay": "constant", "floor": 0}}},
            "reward.optimiser.floor is where a falling learning rate ends",
        ),
        (WORLD | {"data": {"prompts": [{"path": "p"}]}}, "data.prompts is not read where world is set"),
        (WORLD | {"collect": {"prompts": 4001}}, "collect.prompts 4001 is more than the 4000 of world.prompts"),
        (
            WORLD | {"world": {"prompts": 8}, "collect": {"prompts": 8}, "reward": {}, "policy": {}},
            "policy.prompts_per_round 32 is more than the 8 of world.prompts",
        ),
        (WORLD | {"collect": None, "reward": {}}, "reward needs the judgements of the world's annotators"),
        (WORLD | {"language": None}, "collect starts from the built-in model, which the language stage trains"),
    ],
)
def test_a_contradiction_is_named_and_not_repaired(given, says):
    assert says in problems(given)


def test_what_the_reward_reads_may_be_set():
    given = {"members": 2, "combine": "lower", "caution": 3, "patience": 2, "look_every": 3}
    assert recipe_from(WORLD | {"reward": given}).reward == Reward.model_validate(given)


def test_contradictions_come_together():
    wrong = {"path": "lstm", "adapter": {}, "checkpointing": True, "tokenizer": "t"}
    found = problems({"model": wrong, "policy": {}})
    for says in ("model.tokenizer", "model.adapter:", "model.checkpointing:", "model.path is", "policy needs a reward"):
        assert says in found
    found = problems(OWN | {"sft": {}, "language": {}, "policy": {}})
    for says in ("sft needs", "language needs", "policy needs data.prompts", "policy needs a reward"):
        assert says in found


def test_a_setting_that_stands_twice_is_no_recipe(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("world: {}\npolicy: {steps: 1}\nseed: 3\npolicy: {epochs: 2}\n")
    with pytest.raises(RecipeError, match=r"policy stands there twice, first in line 2, again in line 4: leave"):
        load_recipe(path)
    path.write_text("world: {}\nlanguage: {steps: 1, steps: 2}\n")
    with pytest.raises(RecipeError, match="steps stands there twice"):
        load_recipe(path)
    path.write_text("world: {}\n? [a]\n: 1\n")
    with pytest.raises(RecipeError, match="not a YAML file"):  # a list for a name
        load_recipe(path)
    with pytest.raises(RecipeError, match="beta stands there twice"):
        override({}, ["policy.kl={beta: 1, beta: 2}"])


def test_a_value_of_another_kind_is_told_in_the_words_of_a_recipe():
    found = problems({**OWN, "data": {"prompts": "p.jsonl", "judgements": [{"pat": "j.jsonl"}]}, "policy": 3})
    assert "data.prompts: needs a list, such as [{path: p.jsonl}], found 'p.jsonl'" in found
    assert "unknown setting data.judgements.0.pat (did you mean data.judgements.0.path?)" in found
    assert "policy: needs settings of its own, `setting: value`, found 3" in found
    found = problems(WORLD | {"reward": {"epochs": True, "members": "two"}})  # YAML reads `yes` as true
    assert "reward.epochs: needs a number, found 'true'; reward.members: needs a whole number, found 'two'" in found


def test_an_infinite_number_is_no_setting():
    assert "policy.kl.beta" in problems(WORLD | {"reward": {}, "policy": {"kl": {"beta": float("inf")}}})


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValidationError):
        Kl().beta = 1.0  # that is the point


def test_a_file_and_its_changes(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("world: {}\nlanguage: {}\ncollect: {}\nsft: {epochs: 2}\n", encoding="utf-8")
    recipe = load_recipe(path, ["sft.epochs=3.5", "threads=null", "tracking.to=[wandb]", "seed=7"])
    assert recipe == recipe_from(
        WORLD | {"sft": {"epochs": 3.5}, "threads": None, "tracking": {"to": ["wandb"]}, "seed": 7}
    )


def test_a_change_can_open_a_section_and_leaves_the_givenalone():
    given: dict[str, Any] = {"world": {}, "sft": None}
    assert override(given, ["sft.epochs=2"]) == {"world": {}, "sft": {"epochs": 2}}
    assert given == {"world": {}, "sft": None}


def test_a_path_may_name_an_environment_variable(tmp_path, monkeypatch):
    path = tmp_path / "r.yaml"
    path.write_text(
        "model: {path: $MINE/model, tokenizer: '${MINE}x'}\n"
        "text: {template: '$MINE {prompt}'}\n"
        "data: {documents: [{path: '${MINE}/a.txt'}, {path: b.txt}]}\n"
        "language: {}\n"
    )
    monkeypatch.setenv("MINE", "/there")
    recipe = load_recipe(path)
    assert (recipe.model.path, recipe.model.tokenizer) == ("/there/model", "/therex")
    assert [source.path for source in recipe.data.documents] == ["/there/a.txt", "b.txt"]
    assert recipe.text.template == "$MINE {prompt}"  # words, no path
    monkeypatch.delenv("MINE")
    with pytest.raises(RecipeError, match=r"r\.yaml: its paths name MINE, which the environment does not hold"):
        load_recipe(path)
    assert load_recipe(path, ["model.path=m", "model.tokenizer=null", "data.documents=[{path: a}]"]).model.path == "m"


@pytest.mark.parametrize("change", ["seed", "=3", "seed=[1"])
def test_a_change_that_cannot_be_read(change):
    with pytest.raises(RecipeError, match="--set"):
        override({}, [change])


@pytest.mark.parametrize("text", ["- a list", "seed: [1", "just words", "\x00"])
def test_a_file_that_is_no_recipe_is_named(text, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"r\.yaml: "):
        load_recipe(path)


def test_an_empty_file_is_a_recipe_without_settings(tmp_path):
    (tmp_path / "r.yaml").write_text("")
    assert load_recipe(tmp_path / "r.yaml", ["world={}"]) == recipe_from({"world": {}})


def test_a_resolved_recipe_reads_back_as_itself():
    recipe = recipe_from(WORLD | {"sft": {}, "reward": {}, "policy": {}, "model": {"adapter": {"targets": ["q", "v"]}}})
    assert recipe_from(yaml.safe_load(yaml.safe_dump(recipe.model_dump(mode="json")))) == recipe


def test_every_setting_says_what_it_is():
    assert [name for name, _, meaning in settings(Recipe) if not meaning.endswith(".")] == []


def test_the_settings_show_each_stages_own_defaults():
    rates = {name: default for name, default, _ in settings(Recipe) if name.endswith("optimiser.learning_rate")}
    assert rates == {
        f"{name}.optimiser.learning_rate": stage().optimiser.learning_rate
        for name, stage in (("language", Language), ("sft", Sft), ("reward", Reward), ("policy", Policy))
    }
    assert len(set(rates.values())) > 1


def test_a_section_given_in_part_keeps_its_stages_own_defaults():
    given = {"reward": {}, "policy": {"optimiser": {"warmup": 0.5}}, "evaluate": {"sampling": {"max_tokens": 7}}}
    recipe = recipe_from(WORLD | given)
    assert recipe.policy is not None
    assert recipe.policy.optimiser == Policy().optimiser.model_copy(update={"warmup": 0.5})
    assert recipe.evaluate.sampling == Evaluate().sampling.model_copy(update={"max_tokens": 7})


def test_an_unknown_name_in_a_section_given_in_part_is_still_refused():
    assert "unknown setting evaluate.sampling.beams" in problems(WORLD | {"evaluate": {"sampling": {"beams": 4}}})
