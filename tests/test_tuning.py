"""The settings of policy gradients: what a name stands for, and what may be set beside it."""

from __future__ import annotations

import pytest

from plaudit.tuning import PARTS, Policy, parts_of


@pytest.mark.parametrize("name", PARTS)
def test_a_name_stands_for_its_parts(name):
    assert parts_of(Policy(algorithm=name)) == PARTS[name]


def test_a_part_that_is_set_takes_the_place_of_the_algorithms_own():
    policy = Policy.model_validate(
        {"algorithm": "grpo", "baseline": "leave-one-out", "clip": 0.1, "kl": {"where": "reward", "estimator": "k1"}}
    )
    parts = parts_of(policy)
    assert (parts.baseline, parts.clip, parts.where, parts.estimator) == ("leave-one-out", 0.1, "reward", "k1")
    assert (parts.normalise, parts.reduction) == ("group", "answers")  # the rest is grpo's
    assert parts_of(Policy(algorithm="rloo", to_go=False)).to_go is False


def test_ppo_has_the_constants_of_its_first_use_on_language():
    """Ziegler et al. 2019, https://arxiv.org/abs/1909.08593, and their code."""
    policy = Policy()
    assert (policy.algorithm, policy.discount, policy.lambda_, policy.value_weight) == ("ppo", 1.0, 0.95, 0.1)
    assert (parts_of(policy).clip, parts_of(policy).clip_high) == (0.2, None)
    assert (
        policy.value_clip is None
    )  # theirs is 0.2 of a reward with standard deviation 1, which a scorer need not give


def test_steps_of_a_round():
    policy = Policy(prompts_per_round=8, answers_per_prompt=4, minibatch=16, epochs=3)
    assert (policy.answers_per_step, policy.updates_per_round) == (16, 6)
    whole = Policy(prompts_per_round=8, answers_per_prompt=4)
    assert (whole.answers_per_step, whole.updates_per_round) == (32, 1)
    best = Policy(algorithm="rejection", prompts_per_round=8, answers_per_prompt=4, minibatch=4, epochs=3)
    assert best.updates_per_round == 6  # one answer of each prompt is learned from
