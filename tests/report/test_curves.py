"""From metrics to curves: what belongs together, and thinning by hand."""

from __future__ import annotations

import pytest

from plaudit.report.curves import Line, against_distance, curves, thin

POLICY = [
    {"stage": "policy", "step": 0, "policy/reward": 1.0, "policy/kl": 4.0, "policy/odd": 7, "seconds": 2.0},
    {"stage": "policy", "step": 1, "policy/reward": 2.0, "policy/kl": 9.0, "policy/odd": 8, "seconds": 2.0},
    {"stage": "policy", "step": 2, "policy/reward": 3.0, "policy/kl": None},
    {"stage": "policy", "step": 3, "policy/reward": 4.0, "policy/kl": -0.5},
]


def test_known_metrics_have_their_words_and_unknown_ones_their_names():
    (stage,) = curves(POLICY, kl_target=6.0)
    assert (stage.stage, stage.steps) == ("policy", 4)
    assert [(curve.word, curve.guide) for curve in stage.main] == [("m.reward", None), ("m.kl", 6.0)]
    assert [curve.lines[0].name for curve in stage.rest] == ["policy/odd", "seconds"]


def test_a_step_without_the_number_is_not_on_the_line():
    (stage,) = curves(POLICY)
    line = stage.main[1].lines[0]
    assert (line.x, line.y) == ((0, 1, 3), (4.0, 9.0, -0.5))


def test_steps_that_count_from_one():
    (stage,) = curves([{"stage": "sft", "step": 1, "sft/loss": 2.0}, {"stage": "sft", "step": 2, "sft/loss": 1.0}])
    assert stage.steps == 2


def test_training_and_held_out_loss_share_a_picture():
    rows = [{"stage": "sft", "step": step, "sft/loss": 2.0, "sft/held_out_loss": 2.5} for step in range(3)]
    (stage,) = curves(rows)
    assert [[line.word for line in curve.lines] for curve in stage.main] == [["training", "m.loss.beside"]]


def test_stages_come_in_the_order_in_which_they_run():
    rows = [{"stage": stage, "step": 0, f"{stage}/loss": 1.0} for stage in ("policy", "odd", "sft", "language")]
    assert [stage.stage for stage in curves(rows)] == ["language", "sft", "policy", "odd"]


def test_a_metric_of_another_group_gives_way_to_the_stage_s_own():
    (stage,) = curves([{"stage": "policy", "step": 0, "old/kl": 5.0, "policy/kl": 1.0}])
    assert stage.main[0].lines[0].name == "policy/kl"


def test_no_metrics_no_stages():
    assert curves([]) == ()


def test_reward_against_distance_by_hand():
    # square roots of KL: 4 -> 2, 9 -> 3, below 0 -> 0; step 2 has no KL
    (stage,) = curves(POLICY)
    (found,) = list(against_distance(stage))
    curve, steps = found
    assert list(steps) == [0, 1, 3]
    assert curve.lines[0].x == pytest.approx((2.0, 3.0, 0.0))
    assert curve.lines[0].y == (1.0, 2.0, 4.0)


def test_thinning_by_hand():
    line = Line(name="n", word="", colour="blue", x=(0, 1, 2, 3, 4), y=(1, 3, 5, 7, 20))
    few = thin(line, 2)  # pieces of ceil(5 / 2) = 3: mean(1, 3, 5) = 3 and mean(7, 20) = 13.5
    assert (few.x, few.y) == ((2, 4), (3.0, 13.5))
    assert thin(line, 5) is line
