"""The scripts of examples/tutorials, each run whole: they print what their first lines promise."""

from __future__ import annotations

import json
import math
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "examples" / "tutorials"
Say = Callable[..., str]


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """`say(name, *words)`: what a script prints when it is called with these words."""

    def run(name: str, *words: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *words])
        threads = torch.get_num_threads()
        with torch.random.fork_rng():
            runpy.run_path(str(SCRIPTS / name), run_name="__main__")
        torch.set_num_threads(threads)
        return capsys.readouterr().out

    return run


def numbers(pattern: str, text: str) -> list[float]:
    """The numbers that the groups of a pattern hold, where it stands in a text for the first time."""
    found = re.search(pattern, text)
    assert found, text
    return [float(group) for group in found.groups()]


def test_advantages(say):
    """4.8 - 4.0, 3.5 - 4.0; against each other 4.8 - 3.5. Of 6 equal logits, one step of 0.1 A: see below."""
    said = say("advantages.py").splitlines()
    assert said[1] == "advantages: +0.8 and -0.5"
    assert said[2].endswith(": +0.8 and -0.5")
    assert said[3].endswith(": +1.3 and -1.3")
    for line, weights in ((said[4], (0.8, -0.5)), (said[5], (4.8, 3.5))):
        # a token's logit gains 0.1 A 5/6 and the five others -0.1 A 1/6, 0.1 A apart; 3 tokens and 2
        moved = [n * (0.1 * a - math.log((math.exp(0.1 * a) + 5) / 6)) for n, a in zip((3, 2), weights, strict=True)]
        assert numbers(r": ([+-][\d.]+) and ([+-][\d.]+)$", line) == pytest.approx(moved, abs=0.051)


def test_rankings(say):
    """K answers take K (r + s) seconds: 9 x 25 = 225 for 36 comparisons, 4 x 25 = 100 for 6."""
    said = say("rankings.py")
    assert "9 answers: 36 comparisons in 225 s, 9.60 a minute; at most 18.5 bits, 4.93 a minute" in said
    assert "4 answers: 6 comparisons in 100 s, 3.60 a minute; at most 4.6 bits, 2.75 a minute" in said
    assert "9 against 4: 2.67 times the comparisons, 1.79 times the bits" in said  # (9 - 1) / (4 - 1)
    for k, pair_by_pair, fewer in ((9, 72, 8), (4, 12, 3)):
        line = rf"{k} answers: {pair_by_pair} readings pair by pair, {k} once each: {fewer} times fewer; "
        slow, fast, apart = numbers(line + r"loss ([\d.]+) and ([\d.]+), gradients ([\de.-]+) apart", said)
        assert slow == pytest.approx(fast, abs=1.1e-4)
        assert apart < 1e-5


@pytest.mark.parametrize(
    ("ordering", "nine", "four"),
    [("bisect", 30 + 9 * 45 + 21 * 10, 30 + 4 * 45 + 5 * 10), ("every", 30 + 9 * 45 + 36 * 10, 30 + 4 * 45 + 6 * 10)],
)
def test_rankings_under_other_assumptions(say, ordering, nine, four):
    """By halves, placing the 2nd to 9th takes 1 + 2 + 2 + 3 + 3 + 3 + 3 + 4 looks at most; down the list, 1 to 8."""
    said = say("rankings.py", "--prompt", "30", "--read", "45", "--order", "10", "--ordering", ordering)
    assert numbers(r"36 comparisons in (\d+) s, ([\d.]+) a", said) == pytest.approx([nine, 2160 / nine], abs=0.0051)
    assert numbers(r" 6 comparisons in (\d+) s, ([\d.]+) a", said) == pytest.approx([four, 360 / four], abs=0.0051)


def test_lstm_length(say):
    said = say("lstm_length.py")
    (before,), (after,) = (numbers(rf"{when}: ([\d.]+) words on average", said) for when in ("before", "after"))
    assert 8 < before < 12  # 1.5 sentences of 2 (2 + 2/3) + 1 words on average, half an "and": 10
    assert 30 < after <= 40
    start, *rest = (float(kl) for kl in re.findall(r"words, +([\d.]+) nats", said))
    assert start == 0  # before the first step it is where it started
    assert all(1 < kl < 20 for kl in rest)
    written = said.splitlines()[-1].split()
    assert written.count("and") > 2


def test_gpt2_reward_policy(say, tmp_path):
    said = say("gpt2_reward_policy.py", str(tmp_path))
    (right,) = numbers(r"right on (\d+)%", said)
    assert 75 <= right <= 95  # people are right on 90
    before, after = numbers(r"reward: (-?[\d.]+) before, (-?[\d.]+) after", said)
    assert abs(before) < 0.5  # rewards are set to mean 0 on the answers before
    assert after > before + 1
    few, many = (numbers(rf"{when}: (\d+)% of the letters", said)[0] for when in ("before", "after"))
    assert few < 20  # 5 of 44 letters
    assert many > 45
    stages = [entry["stage"] for entry in json.loads((tmp_path / "run" / "lineage.json").read_text("utf-8"))]
    assert stages == ["reward", "policy", "evaluate"]
    assert (tmp_path / "run" / "report.html").exists()
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "policy").config.model_type == "gpt2"


def test_every_script_is_listed_and_tested():
    names = {path.name for path in SCRIPTS.glob("*.py")}
    listed = set(re.findall(r"\]\(tutorials/(\w+\.py)\)", (ROOT / "examples" / "README.md").read_text("utf-8")))
    assert listed == names
    assert names <= {f"{name.removeprefix('test_')}.py" for name in globals() if name.startswith("test_")}
    for path in SCRIPTS.glob("*.py"):
        assert f"python examples/tutorials/{path.name}" in path.read_text("utf-8")
