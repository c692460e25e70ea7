"""The table that a run ends with: taken from what the stages left, nothing invented."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from plaudit.summary import reward_rows, rows, summarise


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
        "best_of": 16,
        "kl_nats": 11.333,
        "distinct_2_before": 0.5,
        "answer_tokens_after": 40.25,
        "peak_memory_mb": 812.4,
        "seconds_by_stage": {"language": 100.4, "sft": 9.6},
        "something_else": 3,
    }
    assert list(rows(summary)) == [
        ("answers preferred by the hidden taste", "81.2 %  (70.0 to 92.5)"),
        ("answers to each prompt, the best of which counts", "16"),
        ("KL to the model before (nats per answer)", "11.33"),
        ("distinct pairs of tokens, before", "50.0 %"),
        ("answer length (tokens), after", "40.25"),
        ("peak memory (MiB)", "812.40"),
        ("seconds", "language 100, sft 10"),
    ]


def test_an_empty_summary_has_no_rows():
    assert list(rows({})) == []


def test_the_table_of_a_reward_model():
    part = {"accuracy": 0.75, "interval": [0.5, 0.9], "pairs": 4}
    found = {
        "judgements": 5,
        "answers": 9,
        "cut_answers": 1,
        **part,
        "used": part,
        "disagreement": {"right": 0.5, "wrong": 1.25},
        "length": {"longer_wins": 0.6, "longer": part, "shorter": {"pairs": 0}, "similar": {"pairs": 0}},
        "ties": {"accuracy": 0.7, "ties": 2, "pairs": 6},
        "thumbs": {"up": 1, "down": 1, "accuracy": 1.0},
        "expected_calibration_error": 0.0512,
        "temperature": 1.5,
        "agreement": {"between_annotators": 0.9, "interval": [0.8, 1.0], "pairs": 3, "levels": {"all": part}},
        "groups": {"subset": {"easy": part}},
        "rewardbench": {"score": 0.81, "sections": {"Chat": 0.9}, "subsets": {}, "missing": ["shp"]},
        "rewardbench_2": {"score": 0.5, "subsets": {"Math": 0.5}, "missing": []},
        "probes": {"said_twice": {"change": 0.25, "wins": 0.7, "answers": 200}},
        "order_swap": {"consistent": 1.0},
        "best_of_n": {"curve": [{"n": 2, "kl": 0.193, "score": 1.0, "gold": 2.0}]},
    }
    table = dict(reward_rows(found))
    share = "75.0 %  (50.0 to 90.0), 4 pairs"
    assert table == {
        "judgements": "5, of 9 answers",
        "answers read only in part": "1",
        "pairs ordered as people did": share,
        "  by the members' reward together": share,
        "  members apart where right": "0.50 log-odds",
        "  members apart where wrong": "1.25 log-odds",
        "longer wins": "60.0 %",
        "  where the better answer is longer": share,
        "with ties": "70.0 %  (2 ties among 6 pairs)",
        "thumb up above thumb down": "100.0 %",
        "expected calibration error": "0.051",
        "temperature that calibrates": "1.50",
        "annotators agree with each other": "90.0 %  (80.0 to 100.0), 3 pairs",
        "  accuracy where all of them agree": share,
        "subset easy": share,
        "RewardBench: Chat": "90.0",
        "RewardBench: score": "81.0  (1 subsets are missing)",
        "RewardBench 2: Math": "50.0",
        "RewardBench 2: score": "50.0",
        "probe said twice": "+0.25 sd, higher in 70 % of 200",
        "alike in both orders": "100.0 %",
        "best of 2 (KL 0.19)": "reward 1.00, gold 2.00",
    }
    silent = {"judgements": 8, "answers": 8, "cut_answers": 0, "pairs": 0, "against_themselves": 3}
    assert list(reward_rows(silent))[1:] == [
        ("pairs ordered as people did", "no pair is ordered"),
        ("answers preferred to themselves, left out", "3"),
    ]
    bare = {"judgements": 1, "answers": 1, "cut_answers": 0}
    assert list(reward_rows(bare)) == [("judgements", "1, of 1 answers")]
