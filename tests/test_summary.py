"""The table that a run ends with: taken from what the stages left, nothing invented."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from plaudit.summary import rows, summarise


def put(folder: Path, **files: Any) -> Path:
    for name, value in files.items():
        path = folder / name.replace("__", "/").replace("reward_model", "reward-model")
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".json").write_text(json.dumps(value))
    return folder


def test_an_empty_run_has_times_only(tmp_path):
    assert summarise(tmp_path).keys() == {"seconds_by_stage", "cpu_seconds_by_stage", "peak_memory_mb"}


def test_what_each_stage_found_comes_together(tmp_path):
    lineage = [
        {"stage": "sft", "seconds": 2.5, "cpu_seconds": 2.0},
        {"stage": "policy", "seconds": 60.0, "cpu_seconds": 99.0},
    ]
    found = {"accuracy": 0.7, "interval": [0.6, 0.8], "longer_wins": None, "pairs": 9}
    put(
        tmp_path,
        evaluation={"gold_win_rate": 0.75, "kl_nats": 9.5},
        reward_model__evaluation=found,
        sft__evaluation={"held_out_nats_per_token": 1.25},
        lineage=lineage,
    )
    summary = summarise(tmp_path)
    assert summary.pop("peak_memory_mb") > 10
    assert summary == {
        "gold_win_rate": 0.75,
        "kl_nats": 9.5,
        "reward_accuracy": 0.7,
        "reward_accuracy_interval": [0.6, 0.8],
        "sft_held_out_nats_per_token": 1.25,
        "seconds_by_stage": {"sft": 2.5, "policy": 60.0},
        "cpu_seconds_by_stage": {"sft": 2.0, "policy": 99.0},
    }


def test_a_reward_model_that_could_not_be_measured_has_no_row(tmp_path):
    put(tmp_path, reward_model__evaluation={"pairs": 0})
    assert not [name for name in summarise(tmp_path) if name.startswith("reward")]


def test_the_rows_are_for_people():
    summary = {
        "gold_win_rate": 0.8125,
        "gold_win_rate_interval": [0.7, 0.925],
        "kl_nats": 11.333,
        "distinct_2_before": 0.5,
        "answer_tokens_after": 40.25,
        "peak_memory_mb": 812.4,
        "seconds_by_stage": {"language": 100.4, "sft": 9.6},
        "something_else": 3,
    }
    assert list(rows(summary)) == [
        ("answers preferred by the hidden taste", "81.2 %  (70.0 to 92.5)"),
        ("KL to the model before (nats per answer)", "11.33"),
        ("distinct pairs of tokens, before", "50.0 %"),
        ("answer length (tokens), after", "40.25"),
        ("peak memory (MiB)", "812.40"),
        ("seconds", "language 100, sft 10"),
    ]


def test_an_empty_summary_has_no_rows():
    assert list(rows({})) == []
