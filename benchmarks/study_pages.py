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

RESULTS = Path(__file__).resolve().parent / "results"
PAGES = Path(__file__).resolve().parent.parent / "docs" / "algorithms"
MARKS = ("<!-- study -->", "<!-- /study -->")
WORDS = {
    "en": {
        "lab": "Ten seeds of the laboratory's task, from sampled answers alone (`python -m benchmarks.algorithms`): "
        "share of the way to the optimum, on average and in the worst seed.",
        "head": "| | aim | β = 1 | β = 0.3 |",
        "world": "On the built-in world, {seeds} seeds (`python -m benchmarks.world_algorithms`): hidden taste "
        "{gain:+.2f} sd, {worst:+.2f} in the worst seed, at {kl:.1f} nats; {seconds:.0f} CPU seconds.",
    },
    "zh": {
        "lab": "在实验室的任务上，只用采样得到的回答，十个种子（`python -m benchmarks.algorithms`）："
        "走完到最优解路程的多少，平均值与最差的种子。",
        "head": "| | 目标 | β = 1 | β = 0.3 |",
        "world": "在内置世界上，{seeds} 个种子（`python -m benchmarks.world_algorithms`）："
        "隐藏偏好 {gain:+.2f} 个标准差，最差的种子 {worst:+.2f}，KL {kl:.1f} 奈特；{seconds:.0f} CPU 秒。",
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
    rows: dict[str, dict[str, Mapping[str, Any]]] = {}
    for case, row in result["algorithms"].items():
        algorithm, *variant, beta = case.split(", ")
        if algorithm == name:
            rows.setdefault(", ".join(variant), {})[beta.removeprefix("beta ")] = row
    if not rows:
        return ""
    lines = [WORDS[language]["lab"], "", WORDS[language]["head"], "|---|---|---|---|"]
    for variant, row in rows.items():
        aim = next(iter(row.values()))["objective"]
        lines.append(f"| {variant} | `{aim}` | {share(row.get('1'))} | {share(row.get('0.3'))} |")
    return "\n".join(lines)


def share(row: Mapping[str, Any] | None) -> str:
    return "" if row is None else f"{row['optimum_share']:.1%}, {row['worst_seed']:.1%}"


def of_world(name: str, language: str, result: Mapping[str, Any]) -> str:
    """A sentence."""
    row = result["algorithms"].get(name)
    if row is None:
        return ""
    return WORDS[language]["world"].format(
        seeds=result["seeds"],
        gain=row["gold_gain_sd"],
        worst=row["worst_gold_gain_sd"],
        kl=row["kl_nats"],
        seconds=row["cpu_seconds"],
    )


if __name__ == "__main__":
    main()
