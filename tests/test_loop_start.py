"""What a policy stage starts from on the whole road: a standard reward, a reference at its temperature, a critic."""

from __future__ import annotations

import json
import math
import statistics

import pytest
import torch
from safetensors.torch import load_file

from plaudit import loop
from plaudit.errors import PlauditError
from plaudit.models.load import Machine
from plaudit.recipe import Text, recipe_from
from plaudit.records import Group
from plaudit.scorers import ModelScorer, load_scorer
from plaudit.testing.tiny import tiny_model, tiny_tokenizer
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
    road = own_road(**SMALL, policy={"steps": 1, "sampling": {"max_tokens": 8, "temperature": 0.7}}, precision="fp32")
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


def test_the_reward_stage_alone_brings_its_model_to_the_same_scale(own_road, tmp_path):
    """With the policy's own sampling at its defaults, to the bit; without prompts it is left out, and said so."""
    road = own_road(**SMALL, text={"max_answer_tokens": 8}, policy={"steps": 1, "sampling": {"max_tokens": 8}})
    loop.run(recipe_from(road), tmp_path / "whole")
    loop.run(recipe_from(road), tmp_path / "alone", only="reward")
    whole, alone = (_scale(tmp_path / name) for name in ("whole", "alone"))
    assert alone == whole
    assert alone[0] != 1.0


def test_without_prompts_a_reward_model_keeps_its_scale_and_the_run_says_so(own_road, tmp_path, capsys):
    road = own_road(**SMALL)
    loop.run(recipe_from({**road, "data": {**road["data"], "prompts": []}, "policy": None}), tmp_path / "run")
    assert _scale(tmp_path / "run") == (1.0, 0.0)
    assert "no prompts to normalise it on (data.prompts)" in capsys.readouterr().err


def _scale(folder):
    config = json.loads((folder / "reward-model" / "config.json").read_text(encoding="utf-8"))
    return config["reward_gain"], config["reward_bias"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "encoder"}, r"is an encoder \(bert\), which writes nothing: reward.normalise_on needs the policy's"),
        ({"text": {"max_prompt_tokens": 3}}, "more than text.max_prompt_tokens 3"),
    ],
)
def test_what_would_stop_normalising_is_found_before_training(own_road, tmp_path, change, says):
    road = own_road(**SMALL, policy=None)
    if "model" in change:
        tiny_model("bert", max_position_embeddings=64).save_pretrained(tmp_path / "encoder")
        tiny_tokenizer().save_pretrained(tmp_path / "encoder")
        road["model"] = {"path": str(tmp_path / "encoder")}
    else:  # judgements are short enough, prompts are not
        short = tmp_path / "short.jsonl"
        short.write_text('{"prompt": "", "chosen": "a", "rejected": "b"}\n', encoding="utf-8")
        road["text"] = {**road["text"], **change["text"]}
        road["data"]["judgements"] = [{"path": str(short)}]
        road["data"]["held_out"] = 0.01
    with pytest.raises(PlauditError, match=says):
        loop.run(recipe_from(road), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert not (tmp_path / "run" / "reward-model").exists()


def test_judgements_that_teach_a_policy_nothing_are_found_before_anything_is_trained(own_road, tmp_path):
    thumbs = tmp_path / "thumbs.jsonl"
    thumbs.write_text('{"prompt": "a", "completion": "b", "label": true}\n' * 4, encoding="utf-8")
    road = own_road() | {"reward": None, "policy": {"algorithm": "dpo"}}
    road["data"]["judgements"] = [{"path": str(thumbs)}]
    with pytest.raises(PlauditError, match=r"policy: none of \d judgements is for dpo, which needs one answer above"):
        loop.run(recipe_from(road), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert not (tmp_path / "run" / "language").exists()


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_a_language_loss_beside_an_encoder_is_refused_before_training(own_road, tmp_path, kind):
    """As it is published: the encoder alone, without what a masked language model has above it."""
    tiny_model(kind, reward=True, dim=32, n_layers=1, n_heads=4, hidden_dim=48).base_model.save_pretrained(
        tmp_path / "trunk"
    )
    tiny_tokenizer().save_pretrained(tmp_path / "trunk")
    road = own_road(**SMALL | {"reward": {"start": str(tmp_path / "trunk"), "language": 0.5}}, policy=None)
    with pytest.raises(PlauditError, match=rf"is an encoder \({kind}\), which writes nothing: reward.language is for"):
        loop.run(recipe_from(road), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


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
