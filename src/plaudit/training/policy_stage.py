"""Policy gradient: sample, score, turn rewards into advantages, step; PPO and RLOO from the same parts.

Shape letters:  B answers   T tokens   P prompts
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from plaudit.advantages import gae, leave_one_out, token_rewards, whiten
from plaudit.batch import Needs, pack, select
from plaudit.errors import NumberError, RecordError
from plaudit.kl import AdaptiveKl, FixedKl, KlController, k1
from plaudit.losses.reduction import masked_sum
from plaudit.losses.value import explained_variance
from plaudit.models.load import Machine
from plaudit.models.network import LanguageNetwork
from plaudit.recipe import Kl, Policy, Recipe
from plaudit.records import Ended, Group, Prompt
from plaudit.runs import Run
from plaudit.runs.progress import say
from plaudit.sampling import Request, Sampler
from plaudit.scorers import Scorer
from plaudit.seeds import derive
from plaudit.text import Words
from plaudit.training.learner import ModelLearner, Part, forward
from plaudit.training.objectives import PolicyBatch, PolicyLoss, TextBatch
from plaudit.training.stage import minibatch_indices, run_steps

__all__ = ["Algorithm", "Estimate", "Reference", "algorithm_of", "train_policy"]


class Estimate(NamedTuple):
    """Advantages per token, and what a critic should learn."""

    advantage_BT: Tensor
    return_BT: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """Sampled answers, scored."""

    tree: Any
    score_B: Tensor
    kl_BT: Tensor
    """[B, T] log-ratio of policy to reference at each sampled token, in nats (k1)."""
    value_BT: Tensor
    """[B, T] the critic's guesses; zeros where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """A choice of functions."""

    advantage: Callable[[Rollout, float], Estimate]
    """Rollout and beta to advantages."""
    loss: PolicyLoss


def ppo(settings: Policy) -> Algorithm:
    """Proximal policy optimisation: KL cost per token in the reward, GAE on a critic, clipped ratio.

    Schulman et al. 2017, https://arxiv.org/abs/1707.06347; for language, Ziegler et al. 2019,
    https://arxiv.org/abs/1909.08593.
    """

    def advantage(rollout: Rollout, beta: float) -> Estimate:
        mask_BT = rollout.tree.mask_BT()
        reward_BT = token_rewards(rollout.score_B, rollout.kl_BT, mask_BT, beta=beta)
        found = gae(reward_BT, rollout.value_BT, mask_BT, discount=settings.discount, lambda_=settings.lambda_)
        return Estimate(_whitened(found.advantage_BT, mask_BT, settings.whiten is not False), found.return_BT)

    weight = settings.value_weight if settings.critic == "shared" else 1.0
    return Algorithm(
        advantage=advantage, loss=PolicyLoss(clip=settings.clip, value_weight=weight, entropy=settings.entropy)
    )


def rloo(settings: Policy) -> Algorithm:
    """REINFORCE with a leave-one-out baseline: the KL of the whole answer in its reward, no critic.

    Ahmadian et al. 2024, https://arxiv.org/abs/2402.14740. With one epoch and one minibatch the clip never acts.
    """

    def advantage(rollout: Rollout, beta: float) -> Estimate:
        mask_BT = rollout.tree.mask_BT()
        reward_B = rollout.score_B - beta * masked_sum(rollout.kl_BT, mask_BT)
        group_B = torch.tensor(rollout.tree.prompt_of_answers())
        advantage_BT = leave_one_out(reward_B, group_B)[:, None].expand(mask_BT.shape).masked_fill(~mask_BT, 0.0)
        return Estimate(_whitened(advantage_BT, mask_BT, settings.whiten is True), torch.zeros_like(advantage_BT))

    return Algorithm(advantage=advantage, loss=PolicyLoss(clip=settings.clip, entropy=settings.entropy))


def _whitened(advantage_BT: Tensor, mask_BT: Tensor, wanted: bool) -> Tensor:
    return whiten(advantage_BT, mask_BT) if wanted else advantage_BT


def algorithm_of(settings: Policy) -> Algorithm:
    """The algorithm that a recipe names."""
    return {"ppo": ppo, "rloo": rloo}[settings.algorithm](settings)


def controller_of(settings: Kl) -> KlController:
    """The controller of beta that a recipe describes."""
    if settings.target is None:
        return FixedKl(settings.beta)
    return AdaptiveKl(settings.beta, settings.target, settings.horizon)


class Reference:
    """Log-probabilities of the policy where it started.

    Args:
        network: a frozen copy of it, or the policy itself where only an adapter is trained.
        adapted: switch the adapter off to get back to the start.
        machine: device and precision.
        micro_tokens: tokens in one forward pass.
    """

    def __init__(self, network: LanguageNetwork, *, adapted: bool, machine: Machine, micro_tokens: int) -> None:
        self.network = network
        self.machine = machine
        self.micro_tokens = micro_tokens
        self._start: Callable[[], AbstractContextManager[Any]] = (
            network.model.disable_adapter if adapted else nullcontext
        )

    def logp_BT(self, batch: TextBatch) -> Tensor:
        """[B, T] nats."""
        with self._start():
            return forward(
                self.network, batch, Needs(logp=True), machine=self.machine, micro_tokens=self.micro_tokens
            ).logp_BT


class _Control:
    """The KL controller as the stage's memory, and whether the policy has gone too far."""

    def __init__(self, settings: Kl) -> None:
        self.controller = controller_of(settings)
        self.stop = settings.stop
        self.over = False

    @property
    def beta(self) -> float:
        """Cost of a nat in this round."""
        return self.controller.beta

    def update(self, kl: float, answers: int) -> None:
        """Learn from a round."""
        self.controller = self.controller.update(kl, answers)
        if self.stop is not None and kl > self.stop:
            say(f"policy: {kl:.1f} nats from the reference, above policy.kl.stop {self.stop}: ending here")
            self.over = True

    def state(self) -> dict[str, Any]:
        return {**self.controller.state(), "over": self.over}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.controller = self.controller.restored(state)
        self.over = state["over"]


def train_policy(
    run: Run,
    learner: ModelLearner,
    reference: Reference,
    sampler: Sampler,
    scorer: Scorer,
    words: Words,
    prompts: Sequence[Prompt],
    settings: Policy,
    recipe: Recipe,
    observe: Callable[[Sequence[Group]], Mapping[str, float]] = lambda groups: {},
) -> None:
    """Tune a policy toward what the scorer likes, staying near its reference; ends early where `kl.stop` says so.

    Args:
        observe: further metrics of a round's groups, for people to watch; nothing is learned from them.

    Raises:
        RecordError: there are fewer prompts than one round needs.
        NumberError: a reward, a loss or a gradient is not finite.
    """
    if len(prompts) < settings.prompts_per_round:
        raise RecordError(
            f"policy: {len(prompts)} prompts, but policy.prompts_per_round is {settings.prompts_per_round}"
        )
    algorithm, control = algorithm_of(settings), _Control(settings.kl)
    seed = derive(recipe.seed, "policy")

    def body(step: int) -> dict[str, float] | None:
        if control.over:
            return None
        groups = _sample(sampler, words, prompts, settings, step, seed)
        rewards, parts = _rewards(scorer, groups, settings)
        rollout, old_logp_BT = _rollout(learner, reference, groups, rewards)
        beta = control.beta
        estimate = algorithm.advantage(rollout, beta)
        batch = PolicyBatch(
            tree=rollout.tree,
            old_logp_BT=old_logp_BT,
            advantage_BT=estimate.advantage_BT,
            return_BT=estimate.return_BT,
        )
        metrics = _learn(learner, batch, algorithm, settings, derive(seed, "minibatch", step))
        kl_B = masked_sum(rollout.kl_BT, rollout.tree.mask_BT())
        control.update(float(kl_B.mean()), len(rewards))
        run.keep_samples("policy", step, _examples(groups, rewards, kl_B.tolist()))
        sampler.load(None, step + 1)
        return {
            **_describe(groups, rewards, kl_B),
            **parts,
            **observe(groups),
            "beta": beta,
            **_critic_quality(rollout, estimate, algorithm),
            **metrics,
        }

    run_steps(
        run, "policy", learner, settings.steps, body, save_every=recipe.save_every, memory=control, watch="reward"
    )


def _sample(
    sampler: Sampler, words: Words, prompts: Sequence[Prompt], settings: Policy, step: int, seed: int
) -> list[Group]:
    chosen = minibatch_indices(len(prompts), settings.prompts_per_round, step, seed=seed)
    requests = [
        Request(
            prompt=prompts[i],
            context_ids=words.prompt_ids(prompts[i]),
            seeds=tuple(derive(seed, "answer", step, place, k) for k in range(settings.answers_per_prompt)),
        )
        for place, i in enumerate(chosen)
    ]
    return sampler.sample(requests, settings.sampling)


def _rewards(scorer: Scorer, groups: Sequence[Group], settings: Policy) -> tuple[list[float], dict[str, float]]:
    """The reward of each answer, and the mean of each of the scorer's parts."""
    scores = scorer.score(groups)
    scores.check(groups)
    if scores.failed:
        raise NumberError(f"the scorer failed on {len(scores.failed)} answers: {next(iter(scores.failed.values()))}")
    rewards = scores.flat()
    parts = {
        f"reward/{name}": statistics.fmean(value for values in part for value in values)
        for name, part in scores.parts.items()
    }
    if settings.cut_reward is None:
        return rewards, parts
    answers = [answer for group in groups for answer in group.answers]
    return [
        settings.cut_reward if answer.ended is Ended.CUT else reward
        for answer, reward in zip(answers, rewards, strict=True)
    ], parts


def _rollout(
    learner: ModelLearner, reference: Reference, groups: Sequence[Group], rewards: Sequence[float]
) -> tuple[Rollout, Tensor]:
    """Put the groups into tensors: the sampler's log-probabilities *are* the old ones."""
    tree = pack(
        [(group.context_ids, [answer.token_ids for answer in group.answers]) for group in groups],
        names=[group.prompt.id for group in groups],
    )
    batch = TextBatch(tree=tree)
    old_logp_BT = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(answer.logps) for group in groups for answer in group.answers], batch_first=True
    )
    has_critic = "critic" in learner.network.groups()
    value_BT = learner.forward(batch, Needs(value=True)).value_BT.cpu() if has_critic else torch.zeros_like(old_logp_BT)
    ref_logp_BT = reference.logp_BT(batch).cpu()
    rollout = Rollout(tree=tree, score_B=torch.tensor(rewards), kl_BT=k1(old_logp_BT, ref_logp_BT), value_BT=value_BT)
    return rollout, old_logp_BT


def _learn(
    learner: ModelLearner, batch: PolicyBatch, algorithm: Algorithm, settings: Policy, seed: int
) -> dict[str, float]:
    """The epochs and minibatches of one round; metrics are means over its steps."""
    answers = batch.tree.answers
    size = settings.minibatch or answers
    found: list[dict[str, float]] = []
    for epoch in range(settings.epochs):
        rows = _group_order(batch, derive(seed, epoch)) if size < answers else list(range(answers))
        for start in range(0, answers, size):
            part = batch if size == answers else select(batch, rows[start : start + size])
            metrics = learner.step(Part(part, algorithm.loss))
            if not found:
                _check_ratio(metrics["kl_to_old"])
            found.append(metrics)
    return {name: statistics.fmean(metrics[name] for metrics in found) for name in found[0]}


def _group_order(batch: PolicyBatch, seed: int) -> list[int]:
    """Answers in a random order of their prompts, those of one prompt side by side: they share its tokens."""
    prompt_of = batch.tree.prompt_of_answers()
    rows: dict[int, list[int]] = {}
    for row, p in enumerate(prompt_of):
        rows.setdefault(p, []).append(row)
    order = minibatch_indices(len(rows), len(rows), 0, seed=seed)
    return [row for p in order for row in rows[p]]


def _check_ratio(kl_to_old: float) -> None:
    """Sampler and learner must agree on the first minibatch, where the policy has not moved.

    Raises:
        NumberError: they do not.
    """
    if not kl_to_old < 1e-3:
        raise NumberError(
            f"before the first step the learner's log-probabilities differ from the sampler's (KL {kl_to_old:.2g} nats "
            "per token): their temperature, weights or masks disagree"
        )


def _describe(groups: Sequence[Group], rewards: Sequence[float], kl_B: Tensor) -> dict[str, float]:
    answers = [answer for group in groups for answer in group.answers]
    flat = 0
    first = 0
    for group in groups:
        mine = rewards[first : first + len(group.answers)]
        first += len(group.answers)
        flat += len(mine) > 1 and max(mine) == min(mine)
    return {
        "reward": statistics.fmean(rewards),
        "reward_sd": statistics.pstdev(rewards),
        "kl": float(kl_B.mean()),
        "answer_tokens": statistics.fmean(len(answer.token_ids) for answer in answers),
        "cut_share": statistics.fmean(answer.ended is Ended.CUT for answer in answers),
        "groups_without_variance": float(flat),
    }


def _critic_quality(rollout: Rollout, estimate: Estimate, algorithm: Algorithm) -> dict[str, float]:
    if algorithm.loss.value_weight is None:
        return {}
    explained = float(explained_variance(rollout.value_BT, estimate.return_BT, rollout.tree.mask_BT()))
    return {"explained_variance": explained} if math.isfinite(explained) else {}


def _examples(groups: Sequence[Group], rewards: Sequence[float], kls: Sequence[float]) -> list[dict[str, object]]:
    """The first answer to each of the first prompts of a round, for people to read."""
    examples: list[dict[str, object]] = []
    first = 0
    for group in groups[:4]:
        answer = group.answers[0]
        examples.append(
            {
                "prompt_id": group.prompt.id,
                "prompt": group.prompt.plain(),
                "answer": answer.text,
                "reward": round(rewards[first], 4),
                "kl": round(kls[first], 4),
                "ended": answer.ended.value,
                "tokens": len(answer.token_ids),
            }
        )
        first += len(group.answers)
    return examples
