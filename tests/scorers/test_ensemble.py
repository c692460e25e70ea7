"""Several reward models as one scorer."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from plaudit.errors import ModelError, RecipeError
from plaudit.models.load import Machine, adapted, new_reward
from plaudit.models.network import RewardNetwork
from plaudit.models.save import save_adapter, save_model
from plaudit.recipe import Adapter, Text
from plaudit.records import Answer, Ended, Group, Prompt
from plaudit.scorers import EnsembleScorer, ModelScorer, check_reward, load_scorer, member_folders
from plaudit.scorers.ensemble import combined, save_ensemble
from plaudit.testing.tiny import tiny_model, tiny_tokenizer
from plaudit.text import Words

CPU = Machine(device=torch.device("cpu"), bf16=False)
SHAPES: dict[str, dict[str, int]] = {"llama": {}, "bert": {"max_position_embeddings": 64}}
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


def test_members_with_several_qualities_say_each_of_them():
    def two(seed, **kwargs):
        model = tiny_model(reward=True, seed=seed, num_labels=2)
        model.config.id2label = {0: "few", 1: "short"}
        model.config.reward_weights = [1.0, 0.5]
        return ModelScorer(RewardNetwork(model), WORDS, CPU, **kwargs)

    alone = [two(seed).score(GROUPS) for seed in range(2)]
    for found in (
        EnsembleScorer([two(0), two(1, gain=2.0)]).score(GROUPS),
        EnsembleScorer([two(0), two(1)]).raw().score(GROUPS),
    ):
        for name in ("few", "short"):
            said = [one.parts[name] for one in alone]
            assert found.member_parts[name] == tuple(said)
            for row, *own in zip(found.parts[name], *said, strict=True):
                assert row == pytest.approx([(a + b) / 2 for a, b in zip(*own, strict=True)])
    same = EnsembleScorer([two(0), two(0)]).score(GROUPS).parts
    assert same["few"] == alone[0].parts["few"]


def test_tested_by_log_odds_beside_the_reward_as_it_is_used():
    members = [member(0, gain=2.0, bias=0.5), member(1), member(2)]
    whole = EnsembleScorer(members, combine="minimum", gain=3.0, bias=-1.0)
    tested = whole.raw().score(GROUPS)
    assert tested.value_PG == EnsembleScorer([member(seed) for seed in range(3)]).score(GROUPS).value_PG
    assert tested.members == tuple(member(seed).score(GROUPS).value_PG for seed in range(3))
    used = [value for row in tested.used_PG for value in row]
    assert used == pytest.approx(whole.score(GROUPS).flat())


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_adapters_of_one_trunk_share_it(family, tmp_path):
    """One trunk on disk and in memory; each member alone, merged into it, says the same; the folder can be moved."""
    made = tmp_path / "made"
    save_model(tiny_model(family, reward=True, **SHAPES[family]), made / "trunk", tiny_tokenizer())
    for m in range(3):
        model = adapted(new_reward(str(made / "trunk"), CPU, seed=m), Adapter(rank=2), seed=m, task="SEQ_CLS")
        generator = torch.Generator().manual_seed(m)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        save_adapter(
            model, made / f"member-{m}", tiny_tokenizer(), trunk="../trunk", reward_gain=1.0 + m, reward_bias=0.5
        )
        targets = json.loads((made / f"member-{m}" / "adapter_config.json").read_text())["target_modules"]
        assert targets == sorted(targets)  # PEFT has them in a set's order, another in each process
    names = [f"member-{m}" for m in range(3)]
    save_ensemble(made, names, combine="mean", caution=1.0, reward_gain=1.0, reward_bias=0.0)
    made.rename(tmp_path / "moved")
    check_reward(tmp_path / "moved")
    trunk = (tmp_path / "moved" / "trunk" / "model.safetensors").stat().st_size
    for name in names:
        stored = load_file(tmp_path / "moved" / name / "adapter_model.safetensors")
        assert all("lora" in key or key.split(".")[2] in ("score", "classifier") for key in stored)
        assert (tmp_path / "moved" / name / "adapter_model.safetensors").stat().st_size < trunk / 2
    together = load_scorer(tmp_path / "moved", CPU, Text())
    assert isinstance(together, EnsembleScorer)
    assert len({id(one.network.model) for one in together.members}) == 1
    said = together.score(GROUPS)
    for name, own in zip(names, said.members, strict=True):
        alone = load_scorer(tmp_path / "moved" / name, CPU, Text()).score(GROUPS).flat()
        assert [value for row in own for value in row] == pytest.approx(alone, abs=1e-5)
    assert len(set(said.members)) == 3
    assert together.score(GROUPS) == said  # whichever was active before


def test_an_adapter_without_a_head_is_refused(tmp_path):
    save_model(tiny_model(reward=True), tmp_path / "trunk", tiny_tokenizer())
    model = adapted(
        new_reward(str(tmp_path / "trunk"), CPU, seed=0), Adapter(rank=2), seed=0, task="FEATURE_EXTRACTION"
    )
    save_adapter(model, tmp_path / "member", tiny_tokenizer(), trunk="../trunk")
    with pytest.raises(ModelError, match="member' has no trained score head"):
        load_scorer(tmp_path / "member", CPU, Text())


def test_an_adapter_whose_trunk_is_gone_is_refused(tmp_path):
    save_model(tiny_model(reward=True), tmp_path / "trunk", tiny_tokenizer())
    model = adapted(new_reward(str(tmp_path / "trunk"), CPU, seed=0), Adapter(rank=2), seed=0, task="SEQ_CLS")
    save_adapter(model, tmp_path / "member", tiny_tokenizer(), trunk="../trunk")
    shutil.rmtree(tmp_path / "trunk")
    with pytest.raises(ModelError, match="trunk"):
        load_scorer(tmp_path / "member", CPU, Text())


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
