"""What the studies of the algorithms found, on the page of each: the part of docs/algorithms between `study` marks.

    python -m benchmarks.study_pages

It reads `results/algorithms.json` and `results/world_algorithms.json`, the last lines of the benchmarks of those names,
and writes English and Chinese pages; a test holds pages and results together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.algorithms import CASES, settings_of

RESULTS = Path(__file__).resolve().parent / "results"
PAGES = Path(__file__).resolve().parent.parent / "docs" / "algorithms"
MARKS = ("<!-- study -->", "<!-- /study -->")
WORDS = {
    "en": {
        "samples": "Ten seeds of the laboratory's task, from sampled answers alone",
        "pairs": "Ten seeds of the laboratory's task, from judged pairs of any two answers",
        "lab": " (`python -m benchmarks.algorithms`): how much of the way from the reference to the aim.",
        "head": "| | aim | β | mean | worst seed | of the way to J's optimum |",
        "from": "{beta:g}, from {start:g}",
        "at": " (β = {beta})",
        "table": "on a table of logits",
        "comma": ", ",
        "world": "On the built-in world, {seeds} seeds (`python -m benchmarks.world_algorithms`): hidden taste "
        "{gain:+.2f} sd, {worst:+.2f} in the worst seed, at {kl:.1f} nats; {seconds:.0f} CPU seconds.",
        "text": " The pretraining text became {lost:.3f} nats a token less likely, under `ppo` {other:.3f}; the reward "
        "rose by {reward:.2f} and {other_reward:.2f} sd.",
    },
    "zh": {
        "samples": "实验室任务上的十个种子，只用采样得到的回答",
        "pairs": "实验室任务上的十个种子，用任意两个回答的成对评判",
        "lab": "（`python -m benchmarks.algorithms`）：从参考模型到目标，走完了多大比例。",
        "head": "| | 目标 | β | 均值 | 最差的种子 | 通向 J 最优处的比例 |",
        "from": "从 {start:g} 降到 {beta:g}",
        "at": "（β = {beta}）",
        "table": "用一张 logits 表",
        "comma": "，",
        "world": "在内置世界上，{seeds} 个种子（`python -m benchmarks.world_algorithms`）："
        "隐藏品味 {gain:+.2f} 个标准差，最差的种子 {worst:+.2f}，KL {kl:.1f} 奈特；{seconds:.0f} CPU 秒。",
        "text": "预训练文本每词元的负对数似然升高 {lost:.3f} 奈特，`ppo` 是 {other:.3f}；奖励分别升高 {reward:.2f} 和 "
        "{other_reward:.2f} 个标准差。",
        "KL in the reward": "KL 在奖励里",
        "k3 in the loss": "k3 在损失里",
        "no KL": "不计 KL",
        "the policy at which its expected step is 0; total variation": "期望步为 0 的策略（按总变差距离）",
    },
}


def main() -> None:
    laboratory, world = (read(name) for name in ("algorithms", "world_algorithms"))
    for page in sorted(PAGES.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if MARKS[0] in text:
            page.write_text(filled(text, *page_of(page), laboratory, world), encoding="utf-8")


def read(name: str) -> dict[str, Any]:
    """A benchmark's last line; nothing where it has not been run."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"algorithms": {}}


def page_of(page: Path) -> tuple[str, str]:
    """The algorithm and the language of a page."""
    name = page.name.removesuffix(".md")
    return name.removesuffix(".zh"), "zh" if name.endswith(".zh") else "en"


def filled(text: str, name: str, language: str, laboratory: Mapping[str, Any], world: Mapping[str, Any]) -> str:
    """A page with what is between its marks written anew."""
    found = [part for part in (of_laboratory(name, language, laboratory), of_world(name, language, world)) if part]
    block = "\n\n".join([MARKS[0], *found, MARKS[1]])
    return re.sub(f"{MARKS[0]}(.*?{MARKS[1]})?", lambda match: block, text, count=1, flags=re.DOTALL)


def of_laboratory(name: str, language: str, result: Mapping[str, Any]) -> str:
    """A table with a row for each way in which the algorithm was run there."""
    words, rows = WORDS[language], []
    for title, row in result["algorithms"].items():
        case, beta = title.rsplit(", beta ", 1)
        algorithm, *variant = case.split(", ")
        if algorithm != name:
            continue
        kl = settings_of(CASES[case], float(beta)).kl
        price = f"{kl.beta:g}" if kl.start is None else words["from"].format(beta=kl.beta, start=kl.start)
        how = [words.get(one, one) for one in variant] + [words["table"]] * CASES[case].table
        aim, of_j = row["objective"], f"{row.get('share_of_j', row['optimum_share']):.1%}"
        if kl.beta != float(beta):  # what it is not held to
            of_j += words["at"].format(beta=beta)
        rows.append(
            [
                words["comma"].join(how),
                words.get(aim, f"`{aim}`" if aim.startswith("E[") else aim),
                price,
                f"{row['optimum_share']:.1%}",
                f"{row['worst_seed']:.1%}",
                of_j,
            ]
        )
    if not rows:
        return ""
    said = words["pairs" if name == "dpo" else "samples"] + words["lab"]
    return "\n".join([said, "", words["head"], "|---" * 6 + "|", *(f"| {' | '.join(cells)} |" for cells in rows)])


def of_world(name: str, language: str, result: Mapping[str, Any]) -> str:
    """A sentence; of what is to keep the text, a second one about the text."""
    row, other = result["algorithms"].get(name), result["algorithms"].get("ppo")
    if row is None:
        return ""
    said = WORDS[language]["world"].format(
        seeds=result["seeds"],
        gain=row["gold_gain_sd"],
        worst=row["worst_gold_gain_sd"],
        kl=row["kl_nats"],
        seconds=row["cpu_seconds"],
    )
    if name != "ppo-ptx" or other is None:
        return said
    return said + WORDS[language]["text"].format(
        lost=row["text_nats_lost"],
        other=other["text_nats_lost"],
        reward=row["reward_gain_sd"],
        other_reward=other["reward_gain_sd"],
    )


if __name__ == "__main__":
    main()
