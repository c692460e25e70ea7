"""The settings of policy gradients: what a name stands for, what may be set beside it, and what is refused with why."""

from __future__ import annotations

import pytest

from plaudit.errors import RecipeError
from plaudit.recipe import recipe_from
from plaudit.tuning import PARTS, Policy, parts_of, within_policy

TWO = {"answers_per_prompt": 2, "prompts_per_round": 8}


def said(**given):
    return [found.says for found in within_policy(Policy.model_validate({**TWO, **given}))]


@pytest.mark.parametrize("name", PARTS)
def test_every_algorithm_is_at_one_with_itself(name):
    assert said(algorithm=name) == []
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


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"minibatch": 5}, "minibatch 5 does not divide the 16 answers of a round"),
        ({"decoding": "beam"}, "not draws from the policy: their gradient is not that of the expected reward"),
        ({"sampling": {"temperature": 0}}, "temperature 0 draws the same answer again and again"),
        ({"algorithm": "sac", "sampling": {"top_p": 0.9}}, "top_p 0.9 leaves tokens out, and sac learns what each"),
        ({"entropy_target": 2.0}, "moves the weight policy.entropy, which is 0"),
        ({"algorithm": "rloo", "answers_per_prompt": 1}, "must be 2 or more for rloo, which compares answers"),
        ({"algorithm": "best-of-n", "answers_per_prompt": 1}, "must be 2 or more for best-of-n, which compares"),
        ({"algorithm": "reinforce", "normalise": "group", "answers_per_prompt": 1}, "must be 2 or more for reinforce"),
        ({"algorithm": "a2c", "epochs": 2}, "of a2c is reinforce, which learns from an answer once"),
        ({"algorithm": "reinforce", "minibatch": 8}, "set policy.epochs to 1 and leave policy.minibatch out"),
        ({"algorithm": "ppo", "objective": "sequence"}, "moves answers as wholes, but to_go, a critic and normalise"),
        ({"algorithm": "sac", "entropy": 0.01}, "policy.entropy is not read by sac"),
        ({"algorithm": "sac", "pretraining": 0.1}, "policy.pretraining is not read by sac"),
        ({"algorithm": "sac", "supervised": 0.1}, "policy.supervised is not read by sac"),
        ({"algorithm": "rejection", "entropy": 0.01}, "policy.entropy is not read by rejection"),
        ({"algorithm": "gspo", "reduction": "tokens"}, "has one loss for each answer"),
        ({"algorithm": "rloo", "objective": "answer"}, "policy.objective answer has one loss for each answer"),
        ({"algorithm": "ppo", "dual_clip": 1.1}, "dual_clip 1.1 must be above 1 + the upper clip 0.2"),
        ({"algorithm": "dapo", "dual_clip": 1.25}, "must be above 1 + the upper clip 0.28"),
        ({"algorithm": "ppo-ptx", "pretraining": 0}, "ppo-ptx is ppo with a pretraining term"),
        ({"algorithm": "trpo", "critic": "shared"}, "policy.critic asks for gradient steps on the policy's trunk"),
        ({"algorithm": "trpo", "entropy": 0.01}, "policy.entropy asks for gradient steps"),
        ({"kl": {"target": 6, "horizon": 3}}, "horizon 3 must be more than a fifth of the 16 answers"),
        ({"kl": {"target": 6, "beta": 0}}, "beta must be above 0 to be steered to a target"),
        ({"kl": {"target": 6, "start": 1}}, "both say how beta changes"),
        ({"kl": {"start": 0.01, "beta": 0.1}}, "start 0.01 must fall to a policy.kl.beta above 0 and not above it"),
        ({"algorithm": "grpo", "kl": {"estimator": "k1"}}, "k1 does nothing in the loss, where its expected gradient"),
        ({"algorithm": "grpo", "kl": {"where": "reward"}}, "k3 in the reward leaves a part of its gradient out"),
        ({"algorithm": "dr-grpo", "kl": {"estimator": "full", "against": "old"}}, "full is against the reference"),
        ({"kl": {"against": "old"}}, "against old is for the loss"),
        ({"algorithm": "sac", "kl": {"beta": 0}}, "beta is sac's temperature: it must be above 0"),
        ({"algorithm": "ppg", "critic": "shared"}, "set policy.critic to separate"),
        ({"algorithm": "dpo", "kl": {"beta": 0}}, "beta must be above 0 for dpo"),
        (
            {"algorithm": "dpo", "preference": {"desirable": 2}},
            "preference.desirable is not read by dpo, only by kto",
        ),
        (
            {"algorithm": "dpo", "preference": {"loss": "ipo", "label_smoothing": 0.1}},
            "is not read by ipo, only by dpo",
        ),
        (
            {"algorithm": "dpo", "preference": {"loss": "kto", "desirable": 0, "undesirable": 0}},
            "are both 0: nothing would be learned",
        ),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_contradicts_itself_is_said_with_its_reason(given, says):
    assert any(says in one for one in said(**given)), said(**given)


def test_what_a_term_reads_must_be_there():
    own = {
        "model": {"path": "m"},
        "data": {"prompts": [{"path": "p"}]},
        "scorers": {"s": {"kind": "length", "target": 5}},
    }
    for policy, needs in (
        ({"algorithm": "ppo-ptx"}, r"policy\.pretraining needs data\.documents"),
        ({"algorithm": "rloo", "supervised": 0.1}, r"policy\.supervised needs data\.demonstrations"),
        ({"algorithm": "dpo"}, r"policy needs data\.judgements"),
    ):
        with pytest.raises(RecipeError, match=needs):
            recipe_from({**own, "policy": policy})
    judged = {"model": {"path": "m"}, "data": {"judgements": [{"path": "j"}]}, "policy": {"algorithm": "dpo"}}
    assert recipe_from(judged).policy is not None  # no reward, no prompts
    with pytest.raises(RecipeError, match="policy needs the judgements of the world's annotators"):
        recipe_from({"world": {}, "language": {}, "policy": {"algorithm": "dpo"}})
