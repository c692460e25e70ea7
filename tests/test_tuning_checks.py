"""What a policy section is refused for, with the reason: contradictions, and settings that nobody would read."""

from __future__ import annotations

import pytest

from plaudit.errors import RecipeError
from plaudit.recipe import recipe_from
from plaudit.tuning import PARTS, Kl, Policy
from plaudit.tuning_checks import READERS, within_policy

TWO = {"answers_per_prompt": 2, "prompts_per_round": 8}


def said(**given):
    return [found.says for found in within_policy(Policy.model_validate({**TWO, **given}))]


@pytest.mark.parametrize("name", PARTS)
def test_every_algorithm_is_at_one_with_itself(name):
    assert said(algorithm=name) == []


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
        (
            {"drop_flat": True, "answers_per_prompt": 1},
            "leaves out groups whose answers all have one score, as a group",
        ),
        (
            {"algorithm": "dpo", "preference": {"loss": "kto", "minibatch": 1}},
            "policy.preference.minibatch 1 leaves kto without answers to other prompts",
        ),
        ({"algorithm": "a2c", "epochs": 2}, "of a2c is reinforce, which learns from an answer once"),
        ({"algorithm": "reinforce", "minibatch": 8}, "set policy.epochs to 1 and leave policy.minibatch out"),
        ({"algorithm": "ppo", "objective": "sequence"}, "moves answers as wholes, but to_go, a critic and normalise"),
        ({"algorithm": "sac", "entropy": 0.01}, "policy.entropy is not read by sac"),
        ({"algorithm": "sac", "pretraining": 0.1}, "policy.pretraining is not read by sac"),
        ({"algorithm": "sac", "supervised": 0.1}, "policy.supervised is not read by sac"),
        ({"algorithm": "rejection", "entropy": 0.01}, "policy.entropy is not read by rejection"),
        ({"algorithm": "rejection", "kl": {"where": "loss", "estimator": "k3"}}, "policy.kl.where is not read by reje"),
        ({"algorithm": "rejection", "baseline": "value"}, "policy.baseline is not read by rejection as set here, only"),
        ({"algorithm": "dpo", "epochs": 3}, "dpo has policy.preference.epochs"),
        ({"algorithm": "dpo", "kl": {"beta": 0.1, "target": 6}}, "policy.kl.target is not read by dpo"),
        ({"algorithm": "gspo", "dual_clip": 3}, "policy.dual_clip is not read by gspo as set here, only by the obj"),
        ({"algorithm": "trpo", "clip": 0.1}, "policy.clip is not read by trpo"),
        ({"algorithm": "ppo", "to_go": True}, "policy.to_go is not read by ppo as set here"),
        ({"algorithm": "rloo", "discount": 0.9}, "policy.discount is not read by rloo"),
        (
            {"algorithm": "reinforce", "discount": 0.9, "to_go": False},
            "policy.discount is not read by reinforce as set",
        ),
        (
            {"algorithm": "ppo", "value_weight": 1},
            "policy.value_weight is not read by ppo as set here, only by policy.cr",
        ),
        ({"baseline": "batch", "answers_per_prompt": 1, "prompts_per_round": 1}, "and there is 1 of them"),
        ({"algorithm": "grpo", "kl": {"against": "old"}}, "old does nothing in a round of one step"),
        (
            {"algorithm": "grpo", "epochs": 2, "kl": {"against": "old", "target": 6}},
            "target goes by KL to the reference",
        ),
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
            {"algorithm": "dpo", "preference": {"loss": "kto", "desirable": 0, "undesirable": 0}},
            "are both 0: nothing would be learned",
        ),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_contradicts_itself_is_said_with_its_reason(given, says):
    assert any(says in one for one in said(**given)), said(**given)


READ = [
    {"algorithm": "reinforce", "discount": 0.9},
    {"algorithm": "reinforce", "objective": "weighted", "truncate": 3.0, "epochs": 2},
    {"algorithm": "ppo", "critic": "shared", "value_weight": 0.5, "value_clip": 0.2, "lambda_": 0.9, "dual_clip": 3},
    {"algorithm": "rloo", "baseline": "fresh", "fresh": 2, "entropy": 0.01, "entropy_target": 1.0},
    {"algorithm": "grpo", "epochs": 2, "kl": {"against": "old"}},
    {"algorithm": "gspo", "clip": 0.01, "clip_high": 0.02, "drop_cut": True},
    {"algorithm": "trpo", "epochs": 3, "minibatch": 8, "lambda_": 0.9, "trust": {"bound": 0.1}},
    {"algorithm": "sac", "discount": 0.9, "minibatch": 8, "soft": {"updates": 2}, "kl": {"target": 6}},
    {"algorithm": "rejection", "epochs": 2, "minibatch": 4, "supervised": 0.1, "curriculum": True},
    {"algorithm": "dpo", "preference": {"loss": "ipo", "label_smoothing": 0.1, "epochs": 2}},
    {"algorithm": "ppg", "auxiliary": {"every": 2}},
]


@pytest.mark.parametrize("given", READ, ids=lambda given: given["algorithm"])
def test_what_is_read_may_be_set(given):
    assert said(**given) == []


def test_every_setting_is_everybodys_or_has_its_readers():
    """A new setting must say who reads it, or be listed here as one that all algorithms do."""
    shape = {"algorithm", "steps", "prompts_per_round", "answers_per_prompt", "decoding", "sampling", "optimiser", "kl"}
    sections = {"trust", "auxiliary", "soft", "preference"}  # of one algorithm each
    settings = {*Policy.model_fields, *(f"kl.{name}" for name in Kl.model_fields)}
    assert settings - set(READERS) == {*shape, *sections, "kl.beta"}
    assert set(READERS) <= settings


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
