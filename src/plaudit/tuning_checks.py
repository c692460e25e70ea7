"""What a policy section must not say: settings that contradict each other, and those that its algorithm never reads.

A setting that is not read is refused, not passed over: whoever wrote it expects something of it. Nothing here loads
torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from plaudit.tuning import PARTS, Kl, Parts, Policy, Preference, parts_of

__all__ = ["READERS", "Contradiction", "within_policy"]


class Contradiction(NamedTuple):
    """Settings that are right by themselves and not together."""

    says: str
    about: tuple[str, ...]
    """Every setting that it was found from: where one of them is wrong by itself, nothing follows."""


def within_policy(policy: Policy) -> Iterator[Contradiction]:
    """What a recipe's policy section says against itself."""
    yield from _of_unread(policy, parts_of(policy))
    if parts_of(policy).update == "judgements":
        if not policy.kl.beta:
            yield Contradiction("policy.kl.beta must be above 0 for dpo, which divides by it", ("policy.kl.beta",))
        yield from _of_preference(policy.preference)
        return
    yield from _of_rounds(policy)
    yield from _of_parts(policy, parts_of(policy))
    yield from _of_update(policy, parts_of(policy))
    yield from _of_kl(policy, policy.kl, parts_of(policy))


class _Reader(NamedTuple):
    """Who reads a setting."""

    who: str
    reads: Callable[[Policy, Parts], bool]


_BY_LOSS = ("gradient", "phasic")
_BY_ADVANTAGE = (*_BY_LOSS, "trust-region")
_CLIPPED = ("clip", "sequence", "answer")
_ADVANTAGES = _Reader("algorithms that learn from advantages", lambda _, p: p.update in _BY_ADVANTAGE)
_OBJECTIVE = _Reader("algorithms that step by an objective", lambda _, p: p.update in _BY_LOSS)
_CLIP = _Reader(
    "the objectives clip, sequence and answer", lambda _, p: p.update in _BY_LOSS and p.objective in _CLIPPED
)
_CRITIC = _Reader("a critic, baseline value", lambda _, p: p.update in _BY_ADVANTAGE and p.baseline == "value")
_ROUNDS = _Reader("algorithms that learn from answers of their own", lambda _, p: p.rounds)
_TEXTS = _Reader("algorithms that step by a loss of answers", lambda _, p: p.update in (*_BY_ADVANTAGE, "imitation"))
READERS: Mapping[str, _Reader] = {
    "epochs": _Reader(
        "algorithms that go through a round's answers again (dpo has policy.preference.epochs)",
        lambda _, p: p.update in (*_BY_LOSS, "imitation") or (p.update == "trust-region" and p.baseline == "value"),
    ),
    "minibatch": _Reader(
        "algorithms that go through a round's answers in steps (dpo has policy.preference.minibatch)",
        lambda _, p: p.rounds and (p.update != "trust-region" or p.baseline == "value"),
    ),
    "baseline": _ADVANTAGES,
    "constant": _Reader("the baseline constant", lambda _, p: p.baseline == "constant"),
    "fresh": _Reader("the baseline fresh", lambda _, p: p.baseline == "fresh"),
    "memory": _Reader("the baseline running", lambda _, p: p.baseline == "running"),
    "to_go": _Reader(
        "algorithms that learn from advantages without a critic, which always counts so",
        lambda _, p: p.update in _BY_ADVANTAGE and p.baseline != "value",
    ),
    "normalise": _ADVANTAGES,
    "objective": _OBJECTIVE,
    "clip": _CLIP,
    "clip_high": _CLIP,
    "dual_clip": _Reader("the objective clip", lambda _, p: p.update in _BY_LOSS and p.objective == "clip"),
    "truncate": _Reader("the objective weighted", lambda _, p: p.update in _BY_LOSS and p.objective == "weighted"),
    "reduction": _OBJECTIVE,
    "discount": _Reader(
        "what counts rewards from each token on: a critic, to_go, or sac",
        lambda _, p: p.update == "soft" or (p.update in _BY_ADVANTAGE and (p.to_go or p.baseline == "value")),
    ),
    "turn_discount": _ADVANTAGES,
    "lambda_": _Reader(
        "a critic, baseline value, or sac",
        lambda _, p: p.update == "soft" or (p.update in _BY_ADVANTAGE and p.baseline == "value"),
    ),
    "critic": _CRITIC,
    "value_weight": _Reader("policy.critic shared", lambda policy, _: policy.critic == "shared"),
    "value_clip": _Reader(
        "a critic that learns beside the policy", lambda _, p: p.update in _BY_LOSS and p.baseline == "value"
    ),
    "pretraining": _TEXTS,
    "supervised": _TEXTS,
    "cut_reward": _ROUNDS,
    "drop_cut": _ROUNDS,
    "drop_flat": _ROUNDS,
    "entropy": _Reader(_OBJECTIVE.who, lambda _, p: p.update in _BY_ADVANTAGE),
    "entropy_target": _Reader(_OBJECTIVE.who, lambda _, p: p.update in _BY_ADVANTAGE),
    "curriculum": _ROUNDS,
    "kl.where": _ADVANTAGES,
    "kl.estimator": _ADVANTAGES,
    "kl.against": _ADVANTAGES,
    "kl.target": _ROUNDS,
    "kl.horizon": _Reader("policy.kl.target", lambda policy, _: policy.kl.target is not None),
    "kl.start": _ROUNDS,
    "kl.anneal": _Reader("policy.kl.start", lambda policy, _: policy.kl.start is not None),
    "kl.stop": _ROUNDS,
}
"""By setting, who reads it. What is not here may stand in every recipe: how many rounds and of what size, sampling,
optimiser, and the sections that belong to one algorithm."""


def _of_unread(policy: Policy, parts: Parts) -> Iterator[Contradiction]:
    """Settings away from their defaults that nobody reads."""
    own = PARTS[policy.algorithm]
    for name, reader in READERS.items():
        section = policy.kl if name.startswith("kl.") else policy
        field = name.removeprefix("kl.")
        value = getattr(section, field)
        if value in (type(section).model_fields[field].default, getattr(own, field, None)):
            continue
        if not reader.reads(policy, parts):
            yield Contradiction(
                f"policy.{name} is not read by {policy.algorithm} as set here, only by {reader.who}: leave it out",
                (f"policy.{name}", "policy.algorithm", "policy.baseline", "policy.objective", "policy.to_go"),
            )


def _of_preference(preference: Preference) -> Iterator[Contradiction]:
    for name in ("desirable", "undesirable"):
        if preference.loss != "kto" and getattr(preference, name) != Preference.model_fields[name].default:
            yield Contradiction(
                f"policy.preference.{name} is not read by {preference.loss}, only by kto: leave it out, or set "
                "policy.preference.loss to kto",
                (f"policy.preference.{name}", "policy.preference.loss"),
            )
    if preference.loss == "kto" and preference.minibatch == 1:
        yield Contradiction(
            "policy.preference.minibatch 1 leaves kto without answers to other prompts, by which it measures how far "
            "the policy has moved: set it to 2 or more",
            ("policy.preference.minibatch", "policy.preference.loss"),
        )
    if not preference.desirable and not preference.undesirable:
        yield Contradiction(
            "policy.preference.desirable and undesirable are both 0: nothing would be learned",
            ("policy.preference.desirable", "policy.preference.undesirable"),
        )


def _of_rounds(policy: Policy) -> Iterator[Contradiction]:
    answers = policy.prompts_per_round * policy.answers_per_prompt
    if policy.minibatch is not None and answers % policy.minibatch:
        yield Contradiction(
            f"policy.minibatch {policy.minibatch} does not divide the {answers} answers of a round "
            f"({policy.prompts_per_round} prompts x {policy.answers_per_prompt})",
            ("policy.minibatch", "policy.prompts_per_round", "policy.answers_per_prompt"),
        )
    if policy.decoding == "beam":
        yield Contradiction(
            "policy.decoding beam finds the likeliest answers, which are not draws from the policy: their gradient is "
            "not that of the expected reward. Set it to sample; evaluate.decoding may be beam",
            ("policy.decoding",),
        )
    if policy.sampling.temperature == 0:
        yield Contradiction(
            "policy.sampling.temperature 0 draws the same answer again and again: set it above 0",
            ("policy.sampling.temperature",),
        )
    if policy.entropy_target is not None and not policy.entropy:
        yield Contradiction(
            "policy.entropy_target moves the weight policy.entropy, which is 0: give it a start, such as 0.001",
            ("policy.entropy_target", "policy.entropy"),
        )
    if parts_of(policy).baseline == "batch" and answers < 2:
        yield Contradiction(
            "policy.baseline batch compares the answers of a round, and there is 1 of them",
            ("policy.baseline", "policy.prompts_per_round", "policy.answers_per_prompt"),
        )


def _of_parts(policy: Policy, parts: Parts) -> Iterator[Contradiction]:
    if parts.groups and policy.answers_per_prompt < 2:
        yield Contradiction(
            f"policy.answers_per_prompt must be 2 or more for {policy.algorithm}, which compares answers",
            ("policy.answers_per_prompt", "policy.algorithm", "policy.baseline", "policy.normalise"),
        )
    elif parts.drop_flat and policy.answers_per_prompt < 2:
        yield Contradiction(
            "policy.drop_flat leaves out groups whose answers all have one score, as a group of one answer always has: "
            "set policy.answers_per_prompt to 2 or more",
            ("policy.drop_flat", "policy.answers_per_prompt", "policy.algorithm"),
        )
    if parts.objective == "reinforce" and policy.updates_per_round > 1:
        yield Contradiction(
            f"policy.objective of {policy.algorithm} is reinforce, which learns from an answer once, with the policy "
            "that gave it: set policy.epochs to 1 and leave policy.minibatch out, or set policy.objective to weighted",
            ("policy.objective", "policy.algorithm", "policy.epochs", "policy.minibatch"),
        )
    whole = parts.objective in ("sequence", "answer")
    if whole and (parts.to_go or parts.baseline == "value" or parts.normalise == "batch"):
        yield Contradiction(
            f"policy.objective {parts.objective} moves answers as wholes, but to_go, a critic and normalise batch tell "
            "their tokens apart: leave these out",
            ("policy.objective", "policy.algorithm", "policy.to_go", "policy.baseline", "policy.normalise"),
        )
    if whole and parts.reduction != "answers":
        yield Contradiction(
            f"policy.objective {parts.objective} has one loss for each answer: set policy.reduction to answers",
            ("policy.objective", "policy.algorithm", "policy.reduction"),
        )
    if policy.dual_clip is not None and policy.dual_clip <= 1 + (parts.clip_high or parts.clip):
        yield Contradiction(
            f"policy.dual_clip {policy.dual_clip:g} must be above 1 + the upper clip {parts.clip_high or parts.clip}",
            ("policy.dual_clip", "policy.clip", "policy.clip_high"),
        )
    if policy.algorithm == "ppo-ptx" and policy.pretraining == 0:
        yield Contradiction(
            "policy.pretraining is 0, but ppo-ptx is ppo with a pretraining term: give it a weight, or name ppo",
            ("policy.pretraining", "policy.algorithm"),
        )


def _of_update(policy: Policy, parts: Parts) -> Iterator[Contradiction]:
    if parts.update == "trust-region":
        beside = {
            "policy.critic": parts.baseline == "value" and policy.critic == "shared",
            "policy.kl.where": parts.where == "loss",
            "policy.pretraining": parts.pretraining > 0,
            "policy.supervised": policy.supervised > 0,
            "policy.entropy": policy.entropy > 0,
        }
        for name in (name for name, there in beside.items() if there):
            yield Contradiction(
                f"{name} asks for gradient steps on the policy's trunk, and {policy.algorithm} moves it by one step "
                "in a ball of KL only: leave it out",
                (name, "policy.algorithm"),
            )
    if parts.update == "soft" and not policy.kl.beta:
        yield Contradiction(
            "policy.kl.beta is sac's temperature: it must be above 0", ("policy.kl.beta", "policy.algorithm")
        )
    if parts.update == "soft" and policy.sampling.top_p < 1:
        yield Contradiction(
            f"policy.sampling.top_p {policy.sampling.top_p:g} leaves tokens out, and sac learns what each token is "
            "worth, those too: set it to 1",
            ("policy.sampling.top_p", "policy.algorithm"),
        )
    if parts.update == "phasic" and (policy.critic == "shared" or parts.baseline != "value"):
        yield Contradiction(
            f"{policy.algorithm} teaches the policy's trunk what a critic of its own knows: set policy.critic to "
            "separate, and leave policy.baseline at value",
            ("policy.critic", "policy.baseline", "policy.algorithm"),
        )


def _of_kl(policy: Policy, kl: Kl, parts: Parts) -> Iterator[Contradiction]:
    answers = policy.prompts_per_round * policy.answers_per_prompt
    if kl.target is not None and answers >= 5 * kl.horizon:
        yield Contradiction(
            f"policy.kl.horizon {kl.horizon:g} must be more than a fifth of the {answers} answers of a round",
            ("policy.kl.horizon", "policy.kl.target", "policy.prompts_per_round", "policy.answers_per_prompt"),
        )
    if kl.target is not None and not kl.beta:
        yield Contradiction(
            "policy.kl.beta must be above 0 to be steered to a target", ("policy.kl.beta", "policy.kl.target")
        )
    if kl.target is not None and kl.start is not None:
        yield Contradiction(
            "policy.kl.target and policy.kl.start both say how beta changes: leave one out",
            ("policy.kl.target", "policy.kl.start"),
        )
    if kl.start is not None and not 0 < kl.beta <= kl.start:
        yield Contradiction(
            f"policy.kl.start {kl.start:g} must fall to a policy.kl.beta above 0 and not above it, found {kl.beta:g}",
            ("policy.kl.start", "policy.kl.beta"),
        )
    about = ("policy.kl.where", "policy.kl.estimator", "policy.algorithm")
    if parts.where == "loss" and parts.estimator == "k1":
        yield Contradiction(
            "policy.kl.estimator k1 does nothing in the loss, where its expected gradient is zero: set it to k2, k3 or "
            "full, or policy.kl.where to reward",
            about,
        )
    if parts.where == "reward" and parts.estimator != "k1":
        yield Contradiction(
            f"policy.kl.estimator {parts.estimator} in the reward leaves a part of its gradient out: set it to k1, or "
            "policy.kl.where to loss",
            about,
        )
    if parts.where == "loss" and parts.estimator == "full" and kl.against == "old":
        yield Contradiction(
            "policy.kl.estimator full is against the reference: the old policy's distributions are not kept",
            ("policy.kl.against", "policy.kl.estimator"),
        )
    if parts.where == "reward" and kl.against == "old":
        yield Contradiction(
            "policy.kl.against old is for the loss: sampled by the old policy, an answer is nowhere away from it",
            ("policy.kl.against", "policy.kl.where", "policy.algorithm"),
        )
    if parts.where == "loss" and kl.against == "old" and policy.updates_per_round == 1:
        yield Contradiction(
            "policy.kl.against old does nothing in a round of one step, which begins where the old policy is: set "
            "policy.epochs above 1, or a policy.minibatch",
            ("policy.kl.against", "policy.kl.where", "policy.algorithm", "policy.epochs", "policy.minibatch"),
        )
    if kl.against == "old" and kl.target is not None:
        yield Contradiction(
            "policy.kl.target goes by KL to the reference, and policy.kl.against old puts a price on KL to another "
            "policy: leave one out",
            ("policy.kl.target", "policy.kl.against"),
        )
