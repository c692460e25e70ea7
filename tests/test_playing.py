"""Environments in a recipe: what they take, and which algorithms cannot play them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plaudit.environments import BookDesk, FunctionEnvironment, environment_of
from plaudit.errors import RecipeError, ScorerError
from plaudit.playing import Playing
from plaudit.recipe import recipe_from
from plaudit.records import Answer, Ended, Episode, Prompt
from plaudit.tuning import PARTS

ROAD: dict[str, Any] = {
    "model": {"path": "folder"},
    "data": {"prompts": [{"path": "prompts.jsonl"}], "documents": [{"path": "texts.jsonl"}]},
    "environment": {},
    "policy": {"algorithm": "rloo"},
}


def problems(**changes: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        recipe_from(ROAD | changes)
    return str(caught.value)


def test_an_environment_is_a_reward():
    assert recipe_from(ROAD).environment == Playing(path="desk", turns=2)


@pytest.mark.parametrize("name", PARTS)
def test_which_algorithms_play(name):
    if PARTS[name].update in ("soft", "imitation", "judgements", "selection"):
        assert f"environment plays episodes, and {name} is an algorithm" in problems(policy={"algorithm": name})
    else:
        assert recipe_from(ROAD | {"policy": {"algorithm": name}}).environment is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": None}, "environment is for a policy: give a policy section"),
        ({"scorers": {"long": {"kind": "length", "target": 9}}}, "environment gives the reward itself"),
        ({"evaluate": {"decoding": "beam"}}, "evaluate.decoding beam finds one answer, not a conversation"),
        ({"environment": {"turns": 0}}, "environment.turns: input should be greater"),
    ],
)
def test_what_does_not_go_together(changes, message):
    found = problems(**changes)
    assert message in found
    assert "policy needs a reward" not in found


def test_a_function_of_ones_own(tmp_path: Path):
    assert isinstance(environment_of(Playing()), BookDesk)
    path = tmp_path / "mine.py"
    path.write_text("def reply(episode):\n    return len(episode.answers), 'more'\n", encoding="utf-8")
    environment = environment_of(Playing(path=f"{path}:reply"))
    assert isinstance(environment, FunctionEnvironment)
    answer = Answer(text="", token_ids=(), logps=(), ended=Ended.STOPPED, seed=0)
    episode = Episode(prompt=Prompt(text="so"), context_ids=(), answers=(answer,), seed=0)
    assert environment.step([episode]) == [(1.0, "more", {})]
    path.write_text("def reply(prompt, answer):\n    return 0, None\n", encoding="utf-8")
    with pytest.raises(ScorerError, match="is called with an episode, but takes other arguments"):
        environment_of(Playing(path=f"{path}:reply"))
