"""The table that a finished run ends with."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from plaudit.runs import read_json

__all__ = ["reward_rows", "rows", "summarise"]


def summarise(folder: Path) -> dict[str, Any]:
    """What the stages of a run found, in one flat dictionary."""
    found: dict[str, Any] = {}
    if (folder / "evaluation.json").exists():
        found |= read_json(folder / "evaluation.json")
    if (folder / "reward-model" / "evaluation.json").exists():
        reward = read_json(folder / "reward-model" / "evaluation.json")
        measured = reward if "accuracy" in reward else reward.get("thumbs", {}).get("signed", {})
        if measured:
            found["reward_accuracy"] = measured["accuracy"]
            found["reward_accuracy_interval"] = measured["interval"]
            found["reward_longer_wins"] = reward.get("length", {}).get("longer_wins")
    if (folder / "sft" / "evaluation.json").exists():
        found |= {f"sft_{name}": value for name, value in read_json(folder / "sft" / "evaluation.json").items()}
    lineage = read_json(folder / "lineage.json") if (folder / "lineage.json").exists() else []
    found["seconds_by_stage"] = {entry["stage"]: entry["seconds"] for entry in lineage}
    found["cpu_seconds_by_stage"] = {entry["stage"]: entry["cpu_seconds"] for entry in lineage}
    found["peak_memory_mb"] = round(_peak_memory(), 1)
    return {name: value for name, value in found.items() if value is not None}


def _peak_memory() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


_WORDS = {
    "gold_win_rate": "answers preferred by the hidden taste",
    "gold_win_rate_of_before_against_itself": "the model before, against itself",
    "gold_gain_sd": "gain in gold (sd of before)",
    "reward_win_rate": "answers with the higher reward",
    "reward_gain_sd": "gain in reward (sd of before)",
    "best_of": "answers to each prompt, the best of which counts",
    "kl_nats": "KL to the model before (nats per answer)",
    "reward_accuracy": "reward model's held-out accuracy",
    "distinct_2_before": "distinct pairs of tokens, before",
    "distinct_2_after": "distinct pairs of tokens, after",
    "parse_share_before": "sentences that parse, before",
    "parse_share_after": "sentences that parse, after",
    "bleu_before": "BLEU, before",
    "bleu_after": "BLEU, after",
    "answer_tokens_before": "answer length (tokens), before",
    "answer_tokens_after": "answer length (tokens), after",
    "sft_held_out_nats_per_token": "supervised model's held-out loss (nats per token)",
    "peak_memory_mb": "peak memory (MiB)",
}
_SHARES = ("rate", "accuracy", "share", "distinct_2")


def rows(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The summary for people: what, and how much."""
    for name, words in _WORDS.items():
        value = summary.get(name)
        if value is None:
            continue
        number = f"{value:.2f}" if isinstance(value, float) else str(value)
        text = f"{100 * value:.1f} %" if any(part in name for part in _SHARES) else number
        interval = summary.get(f"{name}_interval")
        if interval:
            text += f"  ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
        yield words, text
    stages = summary.get("seconds_by_stage", {})
    if stages:
        yield "seconds", ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in stages.items())


def reward_rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What `plaudit evaluate reward` found, for people: what, and how much."""
    yield "judgements", f"{found['judgements']}, of {found['answers']} answers"
    if found["cut_answers"]:
        yield "answers read only in part", str(found["cut_answers"])
    if "accuracy" in found:
        yield "pairs ordered as people did", _share(found)
        if "used" in found:
            yield "  by the members' reward together", _share(found["used"])
        for side, apart in found.get("disagreement", {}).items():
            yield f"  members apart where {side}", f"{apart:.2f} log-odds"
        yield "longer wins", f"{100 * found['length']['longer_wins']:.1f} %"
    elif found.get("pairs") == 0:
        yield "pairs ordered as people did", "no pair is ordered"
    if "against_themselves" in found:
        yield "answers preferred to themselves, left out", str(found["against_themselves"])
    for side, words in (("longer", "longer"), ("shorter", "shorter"), ("similar", "of similar length")):
        part = found.get("length", {}).get(side, {})
        if "accuracy" in part:
            yield f"  where the better answer is {words}", _share(part)
    if "ties" in found:
        ties = found["ties"]
        yield "with ties", f"{100 * ties['accuracy']:.1f} %  ({ties['ties']} ties among {ties['pairs']} pairs)"
    if "accuracy" in found.get("thumbs", {}):
        yield "thumb up above thumb down", f"{100 * found['thumbs']['accuracy']:.1f} %"
    if "expected_calibration_error" in found:
        yield "expected calibration error", f"{found['expected_calibration_error']:.3f}"
    if "temperature" in found:
        yield "temperature that calibrates", f"{found['temperature']:.2f}"
    yield from _reward_parts(found)


def _reward_parts(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "between_annotators" in found.get("agreement", {}):
        yield "annotators agree with each other", _share(found["agreement"], "between_annotators")
    for level, part in found.get("agreement", {}).get("levels", {}).items():
        yield f"  accuracy where {level} of them agree", _share(part)
    for name, parts in found.get("groups", {}).items():
        for value, part in parts.items():
            yield f"{name} {value}", _share(part)
    for name in ("rewardbench", "rewardbench_2"):
        bench = found.get(name, {})
        title = "RewardBench 2" if name.endswith("2") else "RewardBench"
        for part, value in bench.get("sections", bench.get("subsets", {})).items():
            yield f"{title}: {part}", f"{100 * value:.1f}"
        if bench:
            rest = f"  ({len(bench['missing'])} subsets are missing)" if bench["missing"] else ""
            yield f"{title}: score", f"{100 * bench['score']:.1f}{rest}"
    for name, probe in found.get("probes", {}).items():
        change = f"{probe['change']:+.2f} sd, higher in {100 * probe['wins']:.0f} % of {probe['answers']}"
        yield f"probe {name.replace('_', ' ')}", change
    if "order_swap" in found:
        yield "alike in both orders", f"{100 * found['order_swap']['consistent']:.1f} %"
    for row in found.get("best_of_n", {}).get("curve", []):
        gold = f", gold {row['gold']:.2f}" if "gold" in row else ""
        yield f"best of {row['n']} (KL {row['kl']:.2f})", f"reward {row['score']:.2f}{gold}"


def _share(part: Mapping[str, Any], name: str = "accuracy") -> str:
    low, high = part["interval"]
    return f"{100 * part[name]:.1f} %  ({100 * low:.1f} to {100 * high:.1f}), {part['pairs']} pairs"
