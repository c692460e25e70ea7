"""The whole road with an LSTM for a policy, made from people's own texts: what it learns, equal bits, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from plaudit import loop, tasks
from plaudit.cli import app
from plaudit.errors import ModelError
from plaudit.loop import road
from plaudit.models.load import Machine, load_language, new_lstm_language
from plaudit.models.lstm import LstmForCausalLM
from plaudit.models.save import save_model
from plaudit.recipe import Sampling, recipe_from
from plaudit.runs import Run
from plaudit.testing.tiny import tiny_tokenizer

CPU = Machine(device=torch.device("cpu"), bf16=False)
LSTM = {"path": "lstm", "vocabulary": 512}


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes as long as a tiny road."""
    monkeypatch.setattr(road, "write_report", lambda folder: (folder / "report.html").touch())


def numbers(folder: Path, stage: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [
        {name: value for name, value in line.items() if name != "seconds"} for line in lines if line["stage"] == stage
    ]


@pytest.mark.parametrize(
    "how",
    [{"algorithm": "rloo"}, {"algorithm": "ppo", "critic": "shared"}, {"algorithm": "ppo", "critic": "separate"}],
    ids=["rloo", "ppo with a shared critic", "ppo with a critic of its own"],
)
def test_an_lstm_made_from_texts_learns_a_rule(own_road, tmp_path, how, no_report):
    """`plaudit run`: answers of four characters; each missing or too many costs a quarter."""
    tokens = {"sampling": {"max_tokens": 8}}
    road = own_road(
        model=LSTM,
        sft=None,
        reward=None,
        language={"steps": 20, "optimiser": {"learning_rate": 0.01}},
        scorers={"four": {"kind": "length", "target": 4}},
        evaluate={"prompts": 8, **tokens},
    )
    size = {"steps": 28, "prompts_per_round": 8, "answers_per_prompt": 4, "kl": {"beta": 0.01}, **tokens}
    road["policy"] = {**size, **how, "optimiser": {"learning_rate": 0.004}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(road), encoding="utf-8")
    said = CliRunner().invoke(app, ["run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run")])
    assert said.exit_code == 0, said.output
    rewards = [line["policy/reward"] for line in numbers(tmp_path / "run", "policy")]
    assert rewards[0] < -2.5  # the texts go on to the end of their eight tokens
    assert sum(rewards[-4:]) / 4 > -0.7  # an empty answer, or one of eight characters, has -1
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert summary["reward_after"] > -0.7 > -2.5 > summary["reward_before"]
    first = numbers(tmp_path / "run", "policy")[0]
    assert first["policy/kl"] == pytest.approx(0, abs=1e-4)  # what was sampled is what the learner computes


def test_the_whole_road_ends_with_the_same_bits_after_interruptions(own_road, tmp_path, no_report, monkeypatch):
    """The reward model starts from the fine-tuned LSTM, the critic from the reward model."""
    recipe = recipe_from(own_road(model=LSTM, save_every=1, evaluate={"prompts": 4, "decoding": "beam"}))
    loop.run(recipe, tmp_path / "straight")
    grader = json.loads((tmp_path / "straight" / "reward-model" / "config.json").read_text(encoding="utf-8"))
    assert grader["architectures"] == ["LstmForSequenceClassification"]

    save, stopped = Run.save, set()

    def falls(self, stage, *args, **kwargs):
        save(self, stage, *args, **kwargs)
        if stage not in stopped:
            stopped.add(stage)
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "save", falls)
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            loop.run(recipe, tmp_path / "cut")
    loop.run(recipe, tmp_path / "cut")
    assert stopped == {"language", "sft", "reward", "policy"}
    for name in ("language", "sft", "reward-model", "policy"):
        one, other = (load_file(tmp_path / run / name / "model.safetensors") for run in ("straight", "cut"))
        assert one.keys() == other.keys()
        assert all(one[key].equal(other[key]) for key in one), name
    for name in ("evaluation.jsonl", "samples.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_its_run_has_a_report_and_can_be_talked_to(own_road, tmp_path):
    road = own_road(model=LSTM, reward=None, scorers={"four": {"kind": "length", "target": 4}})
    loop.run(recipe_from(road), tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "say" in page
    before, after = tasks.Chat(tmp_path / "run").answer("say 3")
    assert (before, after) == tasks.Chat(tmp_path / "run").answer("say 3")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": "say 4"}) + "\n", encoding="utf-8")
    assert tasks.sample_file(tmp_path / "run" / "policy", prompts, tmp_path / "answers.jsonl",
                             sampling=Sampling(max_tokens=6), answers=3, seed=0) == 3  # fmt: skip


def test_a_world_is_learned_by_one_too(tiny_road, tmp_path, no_report):
    """Its own weights, not the built-in model that is kept between runs."""
    given = tiny_road.model_dump(mode="json")
    recipe = recipe_from({**given, "model": {"path": "lstm"}, "policy": {**given["policy"], "algorithm": "rloo"}})
    summary = loop.run(recipe, tmp_path / "run")
    assert {"gold_win_rate", "reward_accuracy", "kl_nats"} <= summary.keys()
    assert isinstance(load_language(str(tmp_path / "run" / "policy"), CPU), LstmForCausalLM)


def test_a_critic_that_starts_from_an_lstm_is_trained_whole(own_road, tmp_path, no_report):
    """Beside a Llama under LoRA that recomputes activations, neither of which an LSTM could."""
    model = {"adapter": {"rank": 2}, "checkpointing": True}
    road = own_road(model=model, sft=None, language=None, reward={"start": "lstm"}, policy={"critic": "separate"})
    loop.run(recipe_from(road), tmp_path / "run")
    norms = [line["policy/gradient_norm/critic"] for line in numbers(tmp_path / "run", "policy")]
    assert all(norm > 0 for norm in norms)


@pytest.mark.parametrize(
    ("model", "reward", "says"),
    [
        (
            {"path": "FOLDER", "adapter": {}},
            {},
            r"lstm': an LSTM has no layer that LoRA knows: take model\.adapter away",
        ),
        (
            {"path": "FOLDER", "checkpointing": True},
            {},
            r"lstm': an LSTM cannot recompute activations: set model\.check",
        ),
        ({"adapter": {}, "checkpointing": True}, {"start": "FOLDER"}, r"lstm': .*model\.adapter away; .* to false"),
    ],
)
def test_what_a_folder_of_one_cannot_do_stops_before_any_stage(own_road, tmp_path, model, reward, says):
    save_model(new_lstm_language(tiny_tokenizer(), CPU, seed=0, hidden=16), tmp_path / "lstm", tiny_tokenizer())
    given = json.dumps([model, reward]).replace("FOLDER", str(tmp_path / "lstm"))
    model, reward = json.loads(given)
    with pytest.raises(ModelError, match=says):
        loop.run(recipe_from(own_road(model=model, reward=reward)), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
