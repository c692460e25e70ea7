"""The whole road with every policy algorithm, from people's own files, in CI size: a policy and a table at the end."""

from __future__ import annotations

import json
import math

import pytest

from plaudit import loop
from plaudit.recipe import recipe_from
from plaudit.tuning import PARTS


@pytest.mark.parametrize(("name", "top_p"), [*((name, 1.0) for name in PARTS), ("ppo", 0.9), ("rloo", 0.9)])
def test_every_algorithm_goes_the_whole_road(own_road, tmp_path, monkeypatch, name, top_p):
    monkeypatch.setattr(loop, "write_report", lambda folder: (folder / "report.html").touch())
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
    if name in extra:
        assert math.isfinite(mine[-1][extra[name]])
