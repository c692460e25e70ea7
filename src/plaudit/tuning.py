"""The settings of tuning: optimiser, sampling, and which policy gradient, down to the parts that it is made of.

An algorithm is a choice of parts (`Parts`). `PARTS` says which ones a name stands for, and a recipe may set any of them
by itself: `{algorithm: rloo, baseline: group}` is `rloo` with the mean of the whole group. Nothing here loads torch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

from pydantic import Field

from plaudit.section import Section

__all__ = [
    "PARTS",
    "Auxiliary",
    "Baseline",
    "Kl",
    "Optimiser",
    "Parts",
    "Policy",
    "Preference",
    "Sampling",
    "Soft",
    "Trust",
    "parts_of",
]

Baseline = Literal[
    "none", "constant", "running", "batch", "fresh", "prompt", "greedy", "leave-one-out", "group", "value"
]
Normalise = Literal["no", "group", "batch"]
Objective = Literal["reinforce", "weighted", "clip", "sequence", "answer"]
Reduction = Literal["tokens", "answers", "constant"]
Where = Literal["reward", "loss"]
Estimator = Literal["k1", "k2", "k3", "ratio-k3", "full"]


class Optimiser(Section):
    """AdamW with warm-up and decay."""

    learning_rate: float = Field(default=1e-4, gt=0)
    """Step size at its peak."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps over which the learning rate climbs from 0."""
    decay: Literal["linear", "cosine", "constant"] = "cosine"
    """How it falls afterwards."""
    floor: float | None = Field(default=None, ge=0, le=1)
    """Share of it that is left at the end; nothing means a tenth (cosine) or 0 (linear)."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Pull of the weights toward 0, per step and learning rate."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Memory of the gradient's mean."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """Memory of the gradient's square."""
    epsilon: float = Field(default=1e-8, gt=0)
    """Added to the root of the gradient's square."""
    epsilon_form: Literal["pytorch", "tensorflow"] = "pytorch"
    """Added after the square's bias is corrected, or before (`tensorflow`), which makes the first steps shorter."""
    clip_norm: float = Field(default=1.0, gt=0)
    """The gradient's norm is cut here."""


class Sampling(Section):
    """How answers are drawn."""

    temperature: float = Field(default=1.0, ge=0)
    """Logits are divided by it; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw from the likeliest tokens that hold this much probability. A policy is then tuned among these tokens alone,
    and so are its KL and its entropy; `kl.target` and `kl.stop` go by KL to the whole reference (`kl_whole`)."""
    max_tokens: int = Field(default=64, ge=1)
    """Longest answer, in tokens; a longer one is cut there."""
    batch: int = Field(default=256, ge=1)
    """Answers decoded side by side; a finished one makes room for the next."""

    @property
    def truncated(self) -> bool:
        """Whether unlikely tokens are left out of what is drawn from."""
        return self.top_p < 1 and self.temperature > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What an algorithm is made of; the setting of `Policy` or `Kl` with the same name explains each."""

    baseline: Baseline
    to_go: bool = False
    normalise: Normalise = "no"
    objective: Objective = "clip"
    reduction: Reduction = "constant"
    where: Where = "reward"
    estimator: Estimator = "k1"
    clip: float = 0.2
    clip_high: float | None = None
    drop_flat: bool = False
    pretraining: float = 0.0
    update: Literal["gradient", "trust-region", "phasic", "soft", "imitation", "judgements", "selection"] = "gradient"
    """Gradient steps by the objective; TRPO's one step inside a ball of KL; gradient steps with PPG's auxiliary phase;
    soft values of all tokens, with replay; likelihood of each group's best answer; steps on judgements, without
    samples; or none, and the best of several answers is chosen. No setting: other parts follow."""

    @property
    def groups(self) -> bool:
        """Whether an answer is compared with others to the same prompt."""
        return self.baseline in ("leave-one-out", "group") or self.normalise == "group"

    @property
    def rounds(self) -> bool:
        """Whether it learns from answers of its own, round by round."""
        return self.update not in ("judgements", "selection")


PARTS = {
    "reinforce": Parts(baseline="none", to_go=True, objective="reinforce"),
    "a2c": Parts(baseline="value", objective="reinforce"),
    "ppo": Parts(baseline="value", normalise="batch", reduction="tokens"),
    "ppo-ptx": Parts(baseline="value", pretraining=0.5),
    "rloo": Parts(baseline="leave-one-out"),
    "grpo": Parts(baseline="group", normalise="group", reduction="answers", where="loss", estimator="k3"),
    "dr-grpo": Parts(baseline="group", where="loss", estimator="k3"),
    "dapo": Parts(baseline="group", normalise="group", reduction="tokens", clip_high=0.28, drop_flat=True),
    "gspo": Parts(
        baseline="group",
        normalise="group",
        objective="sequence",
        reduction="answers",
        where="loss",
        estimator="k3",
        clip=3e-4,
        clip_high=4e-4,
    ),
    "ppg": Parts(baseline="value", normalise="batch", reduction="tokens", update="phasic"),
    "sac": Parts(baseline="none", update="soft"),
    "trpo": Parts(baseline="value", normalise="batch", update="trust-region"),
    "rejection": Parts(baseline="group", reduction="tokens", update="imitation"),
    "best-of-n": Parts(baseline="group", update="selection"),
    "dpo": Parts(baseline="none", update="judgements"),
    "reinforce++": Parts(baseline="none", to_go=True, normalise="batch", reduction="tokens"),
}
"""What each name stands for; `plaudit.training.algorithms` says where each comes from."""

Algorithm = Literal[
    "reinforce",
    "a2c",
    "ppo",
    "ppo-ptx",
    "rloo",
    "grpo",
    "dr-grpo",
    "dapo",
    "gspo",
    "ppg",
    "sac",
    "trpo",
    "reinforce++",
    "rejection",
    "best-of-n",
    "dpo",
]


class Kl(Section):
    """How far the policy may move from its reference."""

    beta: float = Field(default=0.05, ge=0)
    """Cost of one nat of KL divergence, in units of reward."""
    where: Where | None = None
    """In the `reward` of each token, or a term of the `loss`; nothing: as the algorithm has it."""
    estimator: Estimator | None = None
    """From a sampled token `k1`, `k2`, `k3`, `k3` times the ratio of new to old (`ratio-k3`), or over the `full`
    vocabulary; nothing: as the algorithm has it."""
    against: Literal["reference", "old"] = "reference"
    """Divergence from where the policy started, or from what it was when it sampled (in the loss)."""
    target: float | None = Field(default=None, gt=0)
    """Nats per answer that an adaptive beta steers to; nothing keeps beta fixed."""
    horizon: float = Field(default=2000, gt=0)
    """Answers over which an adaptive beta reacts; where they have several turns, episodes."""
    start: float | None = Field(default=None, gt=0)
    """Beta of the first round, from which an annealed one falls geometrically to `beta`."""
    anneal: float = Field(default=0.6, gt=0, le=1)
    """Share of the rounds over which it falls."""
    stop: float | None = Field(default=None, gt=0)
    """Nats per answer at which tuning stops early."""


class Trust(Section):
    """How far a step of TRPO may go, and how hard it looks for it."""

    bound: float = Field(default=0.01, gt=0)
    """Mean KL(old, new) after a round's prefixes, in nats per token; falls as the learning rate's square does."""
    iterations: int = Field(default=10, ge=1)
    """Of the conjugate gradients."""
    damping: float = Field(default=0.1, ge=0)
    """Multiple of the identity added to the Fisher matrix."""
    fisher_share: float = Field(default=0.25, gt=0, le=1)
    """Of a round's prompts, those whose answers the Fisher matrix is measured on; the bound is kept on all of them."""
    shrink: float = Field(default=0.8, gt=0, lt=1)
    """Each step that is tried, over the one before."""
    tries: int = Field(default=10, ge=1)
    """Steps tried before the policy stays where it was."""


class Auxiliary(Section):
    """The phase of PPG in which the policy's trunk learns what the critic knows."""

    every: int = Field(default=8, ge=1)
    """Rounds from one to the next; it learns from the answers of all of them."""
    epochs: int = Field(default=2, ge=1)
    """Times each of these answers is learned from."""
    clone: float = Field(default=1.0, ge=0)
    """Weight of KL(before the phase, now) beside the squared error of the value, in units of reward squared per nat."""


class Soft(Section):
    """How soft actor-critic learns, at `policy.kl.beta` reward for a nat."""

    updates: int = Field(default=8, ge=1)
    """Optimiser steps after each round."""
    replay: int = Field(default=16, ge=1)
    """Rounds that are kept to learn from."""
    follow: float = Field(default=0.05, gt=0, le=1)
    """How much nearer the critics' slow copies come in a step."""


class Preference(Section):
    """Learning from judgements without a reward model, under `algorithm: dpo`."""

    loss: Literal["dpo", "ipo", "kto"] = "dpo"
    """`dpo`: logistic, of each pair; `ipo`: squared, of each pair; `kto`: of each answer by itself, thumbs too."""
    epochs: float = Field(default=1.0, gt=0)
    """Times each judgement is seen."""
    minibatch: int = Field(default=16, ge=1)
    """Judgements in one optimiser step."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """P(a judgement is the wrong way round)."""
    desirable: float = Field(default=1.0, ge=0)
    """How much a good answer weighs, for `kto`; raise that of the rarer kind until both weigh about the same in all."""
    undesirable: float = Field(default=1.0, ge=0)
    """How much a bad answer weighs, for `kto`."""


class Policy(Section):
    """Policy-gradient tuning against a reward."""

    algorithm: Algorithm = "ppo"
    """What the parts below are where they are not set; `ARCHITECTURE.md` has the table."""
    steps: int = Field(default=50, ge=1)
    """Rounds of sampling and learning."""
    prompts_per_round: int = Field(default=32, ge=1)
    """Prompts answered in one round."""
    answers_per_prompt: int = Field(default=4, ge=1)
    """Answers sampled for each of them (G); under `best-of-n`, those of which the evaluation keeps the best."""
    minibatch: int | None = Field(default=None, ge=1)
    """Answers in one optimiser step; nothing means all of a round."""
    epochs: int = Field(default=1, ge=1)
    """Times each answer is learned from."""
    decoding: Literal["sample", "beam"] = "sample"
    """How answers come about; `beam` is refused, with the reason."""
    baseline: Baseline | None = None
    """What an answer's return is compared with: `none`; a `constant`; the `running` mean of the rounds before; the mean
    of the `batch`; the mean of `fresh` answers to the prompt; the score of the `prompt` alone; that of the `greedy`
    answer; the mean of the group, the answer itself left out (`leave-one-out`) or in (`group`); a critic (`value`)."""
    constant: float = 0.0
    """The constant baseline, in units of reward."""
    fresh: int = Field(default=4, ge=1)
    """Answers drawn for the mean of `fresh` ones, and for nothing else (m')."""
    memory: float = Field(default=0.9, ge=0, lt=1)
    """How much of the running mean stays from round to round."""
    to_go: bool | None = None
    """Count for a token what is earned from it on, not what its whole answer earns; a critic always does."""
    normalise: Normalise | None = None
    """Divide advantages by the standard deviation of their `group`, or give them mean 0 and standard deviation 1 in the
    `batch` (biased); `no` leaves them."""
    objective: Objective | None = None
    """`reinforce`: each answer once; `weighted`: by truncated importance weights; `clip`: PPO's, by token; `sequence`:
    PPO's with one ratio for each answer, the mean of its tokens' (GSPO); `answer`: with their product, the answer as
    one action."""
    clip: float | None = Field(default=None, gt=0, lt=1)
    """The ratio of new to old probability is held inside [1 - clip, 1 + clip]; nothing: as the algorithm has it."""
    clip_high: float | None = Field(default=None, gt=0)
    """And inside [1 - clip, 1 + clip_high] where this is set."""
    dual_clip: float | None = Field(default=None, gt=1)
    """The loss of a token with a negative advantage counts at most this many times its advantage."""
    truncate: float = Field(default=2.0, ge=1)
    """Largest importance weight of the objective `weighted`."""
    reduction: Reduction | None = None
    """Every token weighs the same (`tokens`), every answer does (`answers`), or sums over answers are divided by a
    `constant`, the longest answer there may be, which alone is unbiased."""
    discount: float = Field(default=1.0, gt=0, le=1)
    """Weight of the reward one token later (gamma)."""
    turn_discount: float = Field(default=1.0, gt=0, le=1)
    """Weight of the reward one turn later, in an environment of several turns."""
    lambda_: float = Field(default=0.95, ge=0, le=1)
    """Trust in sampled returns (1) against the critic's guess of them (0); of `sac`, its twins'."""
    critic: Literal["separate", "shared"] = "separate"
    """A network of its own that starts from the reward model, or a head on the policy's trunk."""
    value_weight: float = Field(default=0.1, ge=0)
    """Weight of the critic's loss where it shares the policy's trunk."""
    value_clip: float | None = Field(default=None, gt=0)
    """How far a guess of the critic may move from its old one in a round, in units of reward."""
    pretraining: float | None = Field(default=None, ge=0)
    """Weight of the log-likelihood of data.documents per token (gamma of PPO-ptx), beside the policy's loss as
    `reduction` divides it; nothing: the algorithm's."""
    supervised: float = Field(default=0.0, ge=0)
    """Weight of the log-likelihood of the demonstrations' answers, per token."""
    cut_reward: float | None = None
    """Reward of an answer that never ended, in place of its score; nothing keeps the score."""
    drop_cut: bool = False
    """Learn nothing from answers that never ended."""
    drop_flat: bool | None = None
    """Learn nothing from a group whose answers all have one reward, its KL term included."""
    entropy: float = Field(default=0.0, ge=0)
    """Reward for a nat of entropy per token."""
    entropy_target: float | None = Field(default=None, gt=0)
    """Nats per token that the entropy bonus steers to: it grows below and shrinks above."""
    curriculum: bool = False
    """Prompts whose answers earned most come first; each round then draws on more of them."""
    trust: Trust = Trust()
    auxiliary: Auxiliary = Auxiliary()
    soft: Soft = Soft()
    preference: Preference = Preference()
    kl: Kl = Kl()
    sampling: Sampling = Sampling()
    optimiser: Optimiser = Optimiser(learning_rate=2e-4, decay="constant")

    @property
    def answers_per_step(self) -> int:
        """Answers in one optimiser step."""
        return self.minibatch or self.prompts_per_round * self.answers_per_prompt

    @property
    def updates_per_round(self) -> int:
        """Optimiser steps in a round, as planned."""
        taught = self.prompts_per_round * (1 if parts_of(self).update == "imitation" else self.answers_per_prompt)
        return self.epochs * max(1, taught // self.answers_per_step)

    @property
    def updates(self) -> int:
        """Optimiser steps in all, as planned."""
        if parts_of(self).update == "soft":
            return self.steps * self.soft.updates
        phases = self.steps // self.auxiliary.every if parts_of(self).update == "phasic" else 0
        return self.steps * self.updates_per_round + phases * self.auxiliary.every * self.auxiliary.epochs


def parts_of(policy: Policy) -> Parts:
    """The parts of a recipe's algorithm: those that it sets, the others as the name has them."""
    mine = {field.name: getattr(policy, field.name, None) for field in fields(Parts)}
    mine |= {name: getattr(policy.kl, name) for name in ("where", "estimator")}
    return replace(PARTS[policy.algorithm], **{name: value for name, value in mine.items() if value is not None})
