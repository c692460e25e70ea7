"""A run folder made up for reading: every file of the contract, with the curves of a run that went well."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

TITLES = ["The Salt Road", "Winter Almanac", "A Map of Small Hours", "The Glass Orchard", "Ninefold", "Harbour Lights"]
TITLES_ZH = ["《盐路》", "《冬日年历》", "《小时地图》", "《玻璃果园》", "《九重》", "《港口灯火》"]
PLAIN = ["The story moves slowly.", "I liked the cover.", "The plot is fine.", "The plot is fine.", "It is a book."]
FULL = [
    "The chapter at the lighthouse is built with great patience.",
    "Its dialogue is sharp, though the ending arrives too soon.",
    "I kept thinking about the ferryman and his two daughters.",
    "The middle drags a little, but every scene earns its place.",
    "Readers who enjoy quiet mysteries will feel at home here.",
]
PLAIN_ZH = ["故事进展缓慢。", "封面我很喜欢。", "情节还可以。", "情节还可以。"]
FULL_ZH = [
    "灯塔那一章写得极有耐心。",
    "对白犀利，只是结尾来得太快。",
    "我一直惦记着摆渡人和他的两个女儿。",
    "中段略显拖沓，但每一幕都不可或缺。",
]


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2), encoding="utf-8")


def answer(draw: random.Random, better: float, chinese: bool, gold: bool) -> dict[str, Any]:
    full = [draw.random() < better for _ in range(draw.randint(3, 5))]
    pools = (PLAIN_ZH, FULL_ZH) if chinese else (PLAIN, FULL)
    text = ("" if chinese else " ").join(draw.choice(pools[wanted]) for wanted in full)
    quality = sum(full) / len(full) * 2.2 - 1 + draw.gauss(0, 0.5)
    found: dict[str, Any] = {
        "text": text,
        "reward": round(quality + draw.gauss(0, 0.4), 4),
        "tokens": len(text) // 4 + 1,
    }
    if gold:
        found["gold"] = round(quality, 4)
    found["ended"] = "stopped" if draw.random() < 0.97 else "cut"
    return found


def prompt(draw: random.Random, index: int) -> tuple[str, str, bool]:
    chinese = index % 4 == 3
    title = draw.choice(TITLES_ZH if chinese else TITLES)
    text = (
        f"请为{title}写一篇书评。这本书讲一位摆渡人。" if chinese else f"Review of “{title}”, a novel about a ferryman:"
    )
    return f"p{index:04d}", text, chinese


def metrics(draw: random.Random, steps: int) -> Iterable[dict[str, Any]]:
    for step in range(600):
        loss = 1.2 + 4.6 * math.exp(-step / 90) + draw.gauss(0, 0.06)
        row = {
            "stage": "language",
            "step": step,
            "seconds": 0.2,
            "language/loss": loss,
            "language/learning_rate": 2e-3 * min(1, (step + 1) / 30),
        }
        yield row | (
            {"language/held_out_loss": loss + 0.05, "language/held_out_perplexity": math.exp(loss)}
            if step % 60 == 0
            else {}
        )
    for step in range(120):
        yield {
            "stage": "sft",
            "step": step,
            "seconds": 0.1,
            "sft/loss": 1.1 + 0.8 * math.exp(-step / 20) + draw.gauss(0, 0.05),
        }
    for step in range(50):
        yield {
            "stage": "reward",
            "step": step,
            "seconds": 0.4,
            "reward/loss": 0.42 + 0.28 * math.exp(-step / 9) + draw.gauss(0, 0.03),
            "reward/accuracy": 0.76 - 0.24 * math.exp(-step / 9) + draw.gauss(0, 0.02),
            "reward/margin": 1.1 - math.exp(-step / 9),
        }
    for step in range(steps):
        share = step / 50
        yield {
            "stage": "policy",
            "step": step,
            "seconds": 2.1 + draw.random() * 0.3,
            "policy/reward": 1.9 * (1 - math.exp(-2.2 * share)) + draw.gauss(0, 0.12),
            "policy/gold": 1.3 * (1 - math.exp(-2.6 * share)) - 0.1 * share + draw.gauss(0, 0.12),
            "policy/kl": 7.4 * share**0.8 + abs(draw.gauss(0, 0.25)),
            "policy/answer_tokens": 58 + 9 * share + draw.gauss(0, 1.2),
            "policy/entropy": 1.6 - 0.5 * share + draw.gauss(0, 0.03),
            "policy/beta": 0.05 * (1 + 0.4 * math.sin(share * 3)),
            "policy/explained_variance": 0.72 - 0.7 * math.exp(-share * 6) + draw.gauss(0, 0.04) if step else math.nan,
            "policy/clip_share": 0.06 + 0.05 * share + abs(draw.gauss(0, 0.01)),
            "policy/cut_share": max(0.0, 0.05 - 0.03 * share + draw.gauss(0, 0.01)),
            "policy/policy_loss": -0.02 + draw.gauss(0, 0.01),
            "policy/kl_to_old": 0.002 + abs(draw.gauss(0, 0.0004)),
            "policy/reward_sd": 1.0 + draw.gauss(0, 0.05),
            "policy/groups_without_variance": 0.0,
            "policy/value_loss": 0.9 * math.exp(-share * 3) + 0.2 + draw.gauss(0, 0.03),
            "policy/gradient_norm/policy": 0.8 + draw.gauss(0, 0.1),
            "policy/learning_rate": 2e-4,
        }


CONFIG = """\
# the built-in world, resolved
seed: 0
device: cpu
precision: fp32
world:
  name: reviews
  held_out: 400
model:
  path: builtin
language:
  steps: 600
  minibatch: 16
sft:
  epochs: 1.0
collect:
  prompts: 800
  answers_per_prompt: 4
reward:
  start: sft
  epochs: 1.0
policy:
  algorithm: ppo
  steps: 50
  prompts_per_round: 32
  kl:
    beta: 0.05
    target: 6.0
evaluate:
  prompts: 400
  decoding: sample
"""

LINEAGE = [
    {"artifact": "language", "stage": "language", "from": ["world: reviews"], "seconds": 128.4},
    {"artifact": "sft", "stage": "sft", "from": ["language", "demonstrations"], "seconds": 22.9},
    {"artifact": "judgements.jsonl", "stage": "collect", "from": ["sft", "simulated annotators"], "seconds": 31.0},
    {"artifact": "reward-model", "stage": "reward", "from": ["sft", "judgements.jsonl"], "seconds": 44.2},
    {"artifact": "policy", "stage": "policy", "from": ["sft", "reward-model"], "seconds": 141.7},
    {"artifact": "evaluation.jsonl", "stage": "evaluate", "from": ["sft", "policy"], "seconds": 19.3},
]

SUMMARY = {
    "gold_win_rate": 0.7925,
    "gold_win_rate_interval": [0.7512, 0.8301],
    "gold_win_rate_of_before_against_itself": 0.5063,
    "reward_win_rate": 0.861,
    "reward_win_rate_interval": [0.824, 0.892],
    "reward_win_rate_of_before_against_itself": 0.4912,
    "prompts": 400,
    "kl_nats": 7.31,
    "gold_gain_sd": 1.12,
    "gold_before": -0.48,
    "gold_after": 0.57,
    "reward_gain_sd": 1.31,
    "reward_before": -0.02,
    "reward_after": 1.28,
    "answer_tokens_before": 57.91,
    "answer_tokens_after": 66.02,
    "distinct_2_before": 0.412,
    "distinct_2_after": 0.371,
    "parse_share_before": 0.978,
    "parse_share_after": 0.969,
    "reward_accuracy": 0.742,
    "reward_accuracy_interval": [0.721, 0.762],
    "reward_longer_wins": 0.552,
    "sft_held_out_nats_per_token": 1.07,
    "seconds_by_stage": {
        "language": 128.4,
        "sft": 22.9,
        "collect": 31.0,
        "reward": 44.2,
        "policy": 141.7,
        "evaluate": 19.3,
    },
    "peak_memory_mb": 1843.2,
    "cpu_seconds_by_stage": {"language": 250.1, "policy": 270.2},
    "bleu_before": 9.31,
    "bleu_after": 11.42,
}


def reward_evaluation() -> dict[str, Any]:
    bins = [
        {
            "predicted": 0.525 + 0.05 * index,
            "observed": 0.51 + 0.045 * index + 0.01 * math.sin(index * 2),
            "count": 240 - 21 * index,
        }
        for index in range(10)
    ]
    return {
        "accuracy": 0.742,
        "interval": [0.721, 0.762],
        "pairs": 1680,
        "judgements": 280,
        "longer_wins": 0.552,
        "expected_calibration_error": 0.0231,
        "calibration": bins,
        "by_k": {
            "2": {"accuracy": 0.73, "pairs": 240},
            "4": {"accuracy": 0.751, "pairs": 1440, "interval": [0.728, 0.773]},
        },
    }


def make_run(
    folder: Path,
    *,
    steps: int = 50,
    prompts: int = 400,
    gold: bool = True,
    finished: bool = True,
    every_stage: bool = False,
) -> Path:
    """Write a run folder; `finished=False` stops it in the middle of the policy stage.

    Without `every_stage` it holds a few curves of the policy only, which are quick to draw.
    """
    draw = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
    write_json(
        folder / "environment.json",
        {
            "python": "3.11.9",
            "packages": {"plaudit": "0.1.0", "torch": "2.13.0+cpu"},
            "threads": 2,
            "device": "cpu",
            "precision": "fp32",
            "seed": 0,
            "processor": "AMD EPYC",
            "cores": 2,
        },
    )
    steps = steps if finished else steps * 3 // 5
    rows = list(metrics(draw, steps))
    if not every_stage:
        kept = ("stage", "step", "policy/reward", "policy/gold", "policy/kl", "policy/answer_tokens")
        rows = [{name: row[name] for name in kept} for row in rows if row["stage"] == "policy"]
    if not gold:
        for row in rows:
            row.pop("policy/gold", None)
    write_lines(folder / "metrics.jsonl", rows)
    samples = []
    for step in (0, *range(10, steps + 1, 10)):
        for index in range(8):
            name, text, chinese = prompt(random.Random(index), index)
            found = answer(draw, 0.25 + 0.5 * step / 50, chinese, gold)
            samples.append(
                {
                    "stage": "policy",
                    "step": step,
                    "prompt_id": name,
                    "prompt": text,
                    "answer": found["text"],
                    "reward": found["reward"],
                    "kl": round(0.12 * step + draw.random(), 3),
                    "ended": found["ended"],
                    "tokens": found["tokens"],
                }
            )
    write_lines(folder / "samples.jsonl", samples)
    write_json(folder / "reward-model" / "evaluation.json", reward_evaluation())
    write_json(folder / "lineage.json", LINEAGE if finished else LINEAGE[:4])
    if finished:
        rows = []
        for index in range(prompts):
            name, text, chinese = prompt(draw, index)
            reference = ("" if chinese else " ").join(FULL_ZH[:2] if chinese else FULL[:2])
            rows.append(
                {
                    "prompt_id": name,
                    "prompt": text,
                    "reference": reference,
                    "before": answer(draw, 0.25, chinese, gold),
                    "after": answer(draw, 0.72, chinese, gold),
                }
            )
        write_lines(folder / "evaluation.jsonl", rows)
        summary = dict(SUMMARY)
        if not gold:
            summary = {name: value for name, value in summary.items() if "gold" not in name and "parse" not in name}
        write_json(folder / "summary.json", summary)
    return folder


@pytest.fixture
def made_run(tmp_path: Path) -> Callable[..., Path]:
    """Makes a run folder below the test's own."""
    return lambda **how: make_run(tmp_path / "run", **how)
