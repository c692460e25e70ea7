"""The whole road with every policy algorithm, from people's own files, in CI size: a policy and a table at the end."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from plaudit import loop
from plaudit.loop import road
from plaudit.recipe import recipe_from
from plaudit.tuning import PARTS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "algorithms" / "metrics.md"


def explained() -> re.Pattern[str]:
    """What docs/algorithms/metrics.md has an entry for; a part of a name in capitals stands for any word."""
    names = re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert "reward" in names
    return re.compile("|".join(re.sub(r"[A-Z]+", r"[^/]+", name) for name in names))


@pytest.mark.parametrize(("name", "top_p"), [*((name, 1.0) for name in PARTS), ("ppo", 0.9), ("rloo", 0.9)])
def test_every_algorithm_goes_the_whole_road(own_road, tmp_path, monkeypatch, name, top_p):
    monkeypatch.setattr(road, "write_report", lambda folder: (folder / "report.html").touch())
    policy = {"algorithm": name, "auxiliary": {"every": 2}, "soft": {"updates": 2}}
    policy["sampling"] = {"max_tokens": 8, "top_p": top_p}
    reward = None if PARTS[name].update == "judgements" else {"start": "model"}
    summary = loop.run(recipe_from(own_road(language=None, sft=None, policy=policy, reward=reward)), tmp_path / "run")
    assert summary["prompts"] == 4
    assert math.isfinite(summary["kl_nats"])
    assert (tmp_path / "run" / "policy" / "model.safetensors").exists()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    mine = [line for line in lines if line["stage"] == "policy"]
    extra = {"ppo-ptx": "policy/pretraining_loss", "ppg": "policy/auxiliary/kl", "sac": "policy/q_loss"}
    strangers = {key for line in mine for key in line if not explained().fullmatch(key.removeprefix("policy/"))}
    assert strangers == set(), "docs/algorithms/metrics.md does not say what these are"
    if name in extra:
        assert math.isfinite(mine[-1][extra[name]])


def test_best_of_n_leaves_the_model_as_it_is(own_road, own_files, tmp_path):
    """With its report, which has no curve of the policy to show."""
    policy = {"algorithm": "best-of-n", "answers_per_prompt": 8}
    scorers = {"short": {"kind": "length", "target": 2}}
    recipe = recipe_from(own_road(language=None, sft=None, reward=None, scorers=scorers, policy=policy))
    summary = loop.run(recipe, tmp_path / "run")
    before, after = (
        load_file(folder / "model.safetensors") for folder in (own_files / "model", tmp_path / "run/policy")
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert summary["best_of"] == 8
    assert summary["kl_nats"] == pytest.approx(math.log(8) - 7 / 8)
    assert summary["reward_after"] > summary["reward_before"]
    assert (tmp_path / "run" / "report.html").exists()
