"""Several reward models as one scorer."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.errors import ModelError, RecipeError
from plaudit.models.load import Machine, save_model
from plaudit.models.network import RewardNetwork
from plaudit.recipe import Text
from plaudit.records import Answer, Ended, Group, Prompt
from plaudit.scorers import EnsembleScorer, ModelScorer, check_reward, load_scorer, member_folders
from plaudit.scorers.ensemble import combined, save_ensemble
from plaudit.testing.tiny import tiny_model, tiny_tokenizer
from plaudit.text import Words

CPU = Machine(device=torch.device("cpu"), bf16=False)
WORDS = Words(tiny_tokenizer(), Text(), context=64)


def group(name, *texts):
    answers = tuple(Answer(text=t, token_ids=(), logps=(), ended=Ended.STOPPED, seed=0) for t in texts)
    return Group(prompt=Prompt(text=name, id=name), context_ids=(1,), answers=answers)


GROUPS = [group("why", "so", "", "because"), group("who", "me")]


def member(seed, **kwargs):
    return ModelScorer(RewardNetwork(tiny_model(reward=True, seed=seed)), WORDS, CPU, **kwargs)


def test_combined_by_hand():
    scores = (1.0, 2.0, 6.0)  # mean 3; squares 4 + 1 + 9 = 14, sd sqrt(14 / 3)
    assert combined(scores, "mean") == 3.0
    assert combined(scores, "minimum") == 1.0
    assert combined(scores, "lower", 0.5) == pytest.approx(3 - 0.5 * (14 / 3) ** 0.5)
    with pytest.raises(RecipeError, match="by mean, minimum or lower, not by 'median'"):
        combined(scores, "median")  # type: ignore[arg-type]


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=5), st.floats(-9, 9), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=40, derandomize=True)
def test_where_members_agree_they_are_one_and_their_order_is_nothing(scores, shift, order):
    mixed = order.sample(scores, len(scores))
    for how in ("mean", "minimum", "lower"):
        assert combined([scores[0]] * 4, how, 2.0) == pytest.approx(scores[0])
        assert combined(mixed, how) == pytest.approx(combined(scores, how))
        moved = combined([score + shift for score in scores], how)
        assert moved == pytest.approx(combined(scores, how) + shift, abs=1e-9)
        assert min(scores) - 1e-9 <= combined(scores, how, 0.0) <= sum(scores) / len(scores) + 1e-9


def test_an_ensemble_says_what_its_members_say_and_how_far_apart_they_are():
    members = [member(0), member(1, gain=2.0, bias=0.5), member(2)]
    by_hand = [one.score(GROUPS).flat() for one in members]
    found = EnsembleScorer(members, combine="lower", caution=0.5, gain=3.0, bias=-1.0).score(GROUPS)
    found.check(GROUPS)
    spread = [torch.tensor(said).std(correction=0).item() for said in zip(*by_hand, strict=True)]
    mean = [sum(said) / 3 for said in zip(*by_hand, strict=True)]
    assert found.flat() == pytest.approx([3 * (m - 0.5 * s) - 1 for m, s in zip(mean, spread, strict=True)])
    apart = [value for values in found.parts["disagreement"] for value in values]
    assert apart == pytest.approx([3 * s for s in spread])
    assert [[value for values in one for value in values] for one in found.members] == by_hand


def test_one_member_is_a_reward_model():
    assert EnsembleScorer([member(0)]).score(GROUPS).flat() == member(0).score(GROUPS).flat()


def test_an_ensemble_survives_its_folder(tmp_path):
    for m in range(2):
        model = tiny_model(reward=True, seed=m)
        save_model(model, tmp_path / f"member-{m}", tiny_tokenizer(), reward_gain=1.0 + m, reward_bias=0.25)
    how = {"combine": "minimum", "caution": 1.0, "reward_gain": 2.0, "reward_bias": -1.0}
    save_ensemble(tmp_path, ["member-0", "member-1"], **how)
    check_reward(tmp_path)
    assert member_folders(tmp_path) == [tmp_path / "member-0", tmp_path / "member-1"]
    found = load_scorer(tmp_path, CPU, Text())
    assert isinstance(found, EnsembleScorer)
    members = [member(0, gain=1.0, bias=0.25), member(1, gain=2.0, bias=0.25)]
    expected = EnsembleScorer(members, combine="minimum", gain=2.0, bias=-1.0).score(GROUPS).flat()
    assert found.score(GROUPS).flat() == pytest.approx(expected, abs=1e-6)
    assert isinstance(load_scorer(tmp_path / "member-0", CPU, Text()), ModelScorer)


def test_what_is_refused(tmp_path):
    (tmp_path / "ensemble.json").write_text(json.dumps({"members": ["gone"]}))
    with pytest.raises(ModelError, match="gone"):
        check_reward(tmp_path)
    (tmp_path / "ensemble.json").write_text(json.dumps({"members": []}))
    with pytest.raises(ModelError, match="names no member"):
        check_reward(tmp_path)
