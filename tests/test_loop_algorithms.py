"""The whole road with every policy algorithm, from people's own files, in CI size: a policy and a table at the end."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from plaudit import loop
from plaudit.recipe import recipe_from
from plaudit.tuning import PARTS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "algorithms" / "metrics.md"


def explained() -> re.Pattern[str]:
    """What docs/algorithms/metrics.md has an entry for; a part of a name in capitals stands for any word."""
    names = re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert "reward" in names
    return re.compile("|".join(re.sub(r"[A-Z]+", r"[^/]+", name) for name in names))


@pytest.mark.parametrize("name", PARTS)
def test_every_algorithm_goes_the_whole_road(own_road, tmp_path, monkeypatch, name):
    monkeypatch.setattr(loop, "write_report", lambda folder: (folder / "report.html").touch())
    policy = {"algorithm": name, "auxiliary": {"every": 2}, "soft": {"updates": 2}}
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
