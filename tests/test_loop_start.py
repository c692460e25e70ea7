"""What a policy stage starts from on the whole road: a standard reward, a reference at its temperature, a critic."""

from __future__ import annotations

import json
import math
import statistics

import pytest
import torch
from safetensors.torch import load_file

from plaudit import loop
from plaudit.models.load import Machine
from plaudit.recipe import Text, recipe_from
from plaudit.records import Group
from plaudit.scorers import ModelScorer, load_scorer
from plaudit.training.policy_stage import PolicyStage

SMALL = {"language": None, "sft": None, "reward": {"start": "model", "minibatch": 8, "normalise_on": 8}}


def first_weights(monkeypatch):
    """The learner's weights as they are when the first round begins."""
    found: dict[str, torch.Tensor] = {}
    turn = PolicyStage.round

    def watching(self, step, memory):
        if step == 0:
            found.update({name: tensor.clone() for name, tensor in self.learner.weights().items()})
        return turn(self, step, memory)

    monkeypatch.setattr(PolicyStage, "round", watching)
    return found


def test_the_reward_is_standard_on_the_references_answers(own_road, tmp_path, monkeypatch):
    seen: list[tuple[float, float, list[Group]]] = []
    score = ModelScorer.score

    def watching(self, groups):
        sampled = all(answer.token_ids for group in groups for answer in group.answers)
        if (
            sampled and not seen
        ):  # the first sampled answers that it scores are those, before them it scores judged ones
            seen.append((self.gain, self.bias, groups))
        return score(self, groups)

    monkeypatch.setattr(ModelScorer, "score", watching)
    road = own_road(**SMALL, policy={"steps": 1, "sampling": {"max_tokens": 8, "temperature": 0.7}})
    loop.run(recipe_from(road), tmp_path / "run")
    gain, bias, groups = seen[0]
    assert (gain, bias) == (1.0, 0.0)  # they are measured on what the network says
    assert [len(group.answers) for group in groups] == [2] * 8
    machine = Machine(device=torch.device("cpu"), bf16=False)
    text = Text.model_validate(road["text"])
    pairs = load_scorer(tmp_path / "run" / "reward-model", machine, text).score(groups).value_PG
    assert statistics.fmean(value for pair in pairs for value in pair) == pytest.approx(0, abs=1e-4)
    within = math.sqrt(statistics.fmean((one - other) ** 2 / 2 for one, other in pairs))  # n - 1 = 1
    assert within == pytest.approx(1, abs=1e-4)
    # and the policy, which samples at that temperature too, is at first where its reference is
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    (kl,) = [line["policy/kl"] for line in lines if line["stage"] == "policy"]
    assert kl == pytest.approx(0, abs=1e-4)


def test_a_critic_of_its_own_starts_from_the_reward_model(own_road, tmp_path, monkeypatch):
    found = first_weights(monkeypatch)
    loop.run(recipe_from(own_road(**SMALL, policy={"steps": 1})), tmp_path / "run")
    folder = tmp_path / "run" / "reward-model"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    trained = load_file(folder / "model.safetensors")
    torch.testing.assert_close(found["critic.head.weight"], trained.pop("score.weight") * config["reward_gain"])
    assert float(found["critic.head.bias"]) == pytest.approx(config["reward_bias"])
    for name, tensor in trained.items():
        assert torch.equal(found[name.replace("model.", "critic.model.", 1)], tensor), name


def test_a_critic_on_the_policys_trunk_starts_at_0(own_road, tmp_path, monkeypatch):
    found = first_weights(monkeypatch)
    loop.run(recipe_from(own_road(**SMALL, policy={"steps": 1, "critic": "shared"})), tmp_path / "run")
    assert {name for name in found if name.startswith("critic")} == {"critic.head.weight", "critic.head.bias"}
    assert not found["critic.head.weight"].any()
    assert not found["critic.head.bias"].any()
