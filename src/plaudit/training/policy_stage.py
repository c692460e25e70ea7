"""Policy gradient: sample, score, turn rewards into advantages, step; which way is for `algorithms` to say.

Shape letters:  B answers   T tokens   P prompts
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from plaudit.advantages import RunningMean
from plaudit.batch import Needs, select
from plaudit.environments import Environment, Played, play
from plaudit.errors import RecordError
from plaudit.kl import AdaptiveKl, AnnealedKl, FixedKl, KlController
from plaudit.losses.reduction import masked_sum
from plaudit.losses.value import explained_variance
from plaudit.recipe import Recipe
from plaudit.records import Ended, Group, Prompt
from plaudit.runs import Run
from plaudit.runs.progress import say
from plaudit.sampling import Sampler
from plaudit.seeds import derive
from plaudit.text import Words
from plaudit.training.algorithms import Estimate, batch_of, best_of_groups, estimated, kept, loss_of, score_at_end
from plaudit.training.auxiliary import Kept, auxiliary_phase
from plaudit.training.learner import Learner, Part, learning_rate_at
from plaudit.training.objectives import LanguageLoss, TextBatch
from plaudit.training.policy_loss import PolicyBatch, PolicyLoss, apart, check_agreement
from plaudit.training.rollouts import (
    Reference,
    Rollout,
    prompt_scores,
    rolled_out,
    sampled,
)
from plaudit.training.soft import soft_steps
from plaudit.training.stage import group_order, minibatch_indices, run_steps
from plaudit.training.trust_region import ValueLoss, trust_region_step
from plaudit.tuning import Kl, Parts, Policy, parts_of

__all__ = ["PolicyMemory", "PolicyStage", "train_policy"]


def controller_of(settings: Kl, rounds: int) -> KlController:
    """The controller of beta that a recipe describes."""
    if settings.target is not None:
        return AdaptiveKl(settings.beta, settings.target, settings.horizon)
    if settings.start is not None:
        return AnnealedKl(settings.start, settings.beta, max(1, round(settings.anneal * rounds)))
    return FixedKl(settings.beta)


class PolicyMemory:
    """What a round leaves for the next: beta, the running mean, the entropy's weight, the order of prompts."""

    def __init__(self, settings: Policy) -> None:
        self.settings = settings
        self.controller = controller_of(settings.kl, settings.steps)
        self.running = RunningMean(settings.memory)
        self.entropy = settings.entropy
        self.order: list[int] | None = None
        """Prompts by what their answers earned at first, the most first; for the curriculum."""
        self.kept: list[Kept] = []
        """Rounds since the last auxiliary phase, or those that soft actor-critic learns from."""
        self.idle = 0
        """Rounds whose answers were all left out."""
        self.over = False

    def learn_nothing(self, step: int) -> None:
        """Count a round whose answers were all left out, and say so at the 1st, 2nd, 4th, 8th, ... of them."""
        self.idle += 1
        if self.idle.bit_count() == 1:
            rounds = "" if self.idle == 1 else f", as in {self.idle} rounds so far"
            say(f"policy: nothing to learn from in round {step}{rounds}: all of its answers were left out")

    def learn(self, rollout: Rollout, beta: float, metrics: Mapping[str, float]) -> None:
        """Learn from a round."""
        kl_B = masked_sum(rollout.kl_BT, rollout.tree.mask_BT)
        kl, stop = float(masked_sum(rollout.drift_BT, rollout.tree.mask_BT).mean()), self.settings.kl.stop
        self.controller = self.controller.update(kl, rollout.episodes)
        discount = self.settings.turn_discount
        return_B = rollout.still_earned(rollout.score_B - beta * kl_B, discount=discount)
        self.running = self.running.update(return_B[: rollout.episodes])
        if self.settings.entropy_target is not None and "entropy" in metrics:
            error = min(max(1 - metrics["entropy"] / self.settings.entropy_target, -0.2), 0.2)
            self.entropy *= 1 + error
        if stop is not None and kl > stop:
            say(f"policy: {kl:.1f} nats from the reference, above policy.kl.stop {stop}: ending here")
            self.over = True

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "kl": self.controller.state(),
            "running": self.running.state(),
            "entropy": self.entropy,
            "order": self.order,
            "kept": [one.state() for one in self.kept],
            "idle": self.idle,
            "over": self.over,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take it back."""
        self.controller = self.controller.restored(state["kl"])
        self.running = self.running.restored(state["running"])
        self.entropy, self.order, self.over = state["entropy"], state["order"], state["over"]
        self.idle = state["idle"]
        self.kept = [Kept.restored(one) for one in state["kept"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyStage:
    """Everything that a round of policy gradient needs."""

    learner: Learner
    reference: Reference
    sampler: Sampler
    environment: Environment
    """Rewards the answers; a scorer is one by `OneTurn(scorer)`."""
    words: Words
    prompts: Sequence[Prompt]
    settings: Policy
    seed: int
    turns: int = 1
    """Answers of the policy in an episode, at most."""
    beside: Callable[[int], Sequence[Part]] = lambda step: ()
    """What else each optimiser step minimises, by its number: pretraining text, demonstrations."""
    observe: Callable[[Sequence[Group]], Mapping[str, float]] = lambda groups: {}
    """Further metrics of a round's groups, for people to watch; nothing is learned from them."""

    @cached_property
    def parts(self) -> Parts:
        """What the algorithm is made of."""
        return parts_of(self.settings)

    @property
    def has_critic(self) -> bool:
        """Whether values are learned."""
        return self.parts.baseline == "value"

    def round(self, step: int, memory: PolicyMemory) -> tuple[dict[str, float], list[dict[str, object]]]:
        """Sample, score, learn; returns what is to be logged, and some of the answers for people to read."""
        settings, beta = self.settings, memory.controller.beta
        chosen = self._chosen(step, memory)
        played = self._played(chosen, settings.answers_per_prompt, "answer", step)
        rollout = rolled_out(
            self.learner,
            self.reference,
            played,
            critic=self.has_critic,
            distributions=self.parts.where == "loss" and self.parts.estimator == "full",
        )
        rollout = kept(self._with_known(self._as_learned(rollout), played, chosen, step), self.parts)
        estimate = estimated(rollout, settings, self.parts, beta=beta, running=memory.running.baseline)
        turns = len(rollout.score_B) / rollout.episodes
        loss = loss_of(settings, self.parts, beta=beta, entropy=memory.entropy, turns=turns)
        soft = self.parts.update == "soft"
        batch = _without_those_left_out(rollout, _rewarded(rollout) if soft else batch_of(rollout, estimate))
        metrics: dict[str, float] = {}
        if batch is None:
            memory.learn_nothing(step)
        elif soft:
            metrics = self._soft(batch, beta, step, memory)
        else:
            metrics = self._learn(batch, loss, step)
            if self.parts.update == "phasic":
                metrics |= self._auxiliary(batch, memory)
        memory.learn(rollout, beta if self.parts.where == "reward" else 0.0, metrics)
        logged = {
            **_described(played, rollout),
            **{f"reward/{name}": mean for name, mean in played.parts.items()},
            **self.observe(played.groups),
            "beta": beta,
            **({"entropy_weight": loss.entropy} if settings.entropy_target is not None else {}),
            **(_critic_quality(rollout, estimate) if self.has_critic else {}),
            **metrics,
        }
        return logged, _examples(played, rollout)

    def _chosen(self, step: int, memory: PolicyMemory) -> list[Prompt]:
        """The prompts of a round."""
        count, size = len(self.prompts), self.settings.prompts_per_round
        if not self.settings.curriculum:
            return [self.prompts[i] for i in minibatch_indices(count, size, step, seed=self.seed)]
        if memory.order is None:
            say(f"policy: one answer to each of {count} prompts, to begin with those whose answers earn most")
            earned = self._played(self.prompts, 1, "first").totals()
            memory.order = sorted(range(count), key=lambda i: -earned[i])
        pool = max(size, math.ceil(count * (step + 1) / self.settings.steps))
        drawn = minibatch_indices(pool, size, 0, seed=derive(self.seed, "curriculum", step))
        return [self.prompts[memory.order[i]] for i in drawn]

    def _played(self, prompts: Sequence[Prompt], episodes: int, *purpose: int | str, greedy: bool = False) -> Played:
        """So many episodes from each of the prompts; their purpose says their seeds."""
        sampling, seed = self.settings.sampling, 0 if greedy else self.seed
        if greedy:
            sampling = sampling.model_copy(update={"temperature": 0.0})
        groups = sampled(self.sampler, self.words, prompts, sampling, seed, *purpose, answers=episodes)
        played = play(self.sampler, self.environment, self.words, groups, sampling, turns=self.turns)
        return played.with_cut(self.settings.cut_reward)

    def _with_known(self, rollout: Rollout, played: Played, prompts: Sequence[Prompt], step: int) -> Rollout:
        """The rollout with the baseline that no answer of it has a part in, and without episodes to be left out."""
        settings = self.settings
        if settings.drop_cut:
            answers = [answer for group in played.groups for answer in group.answers]
            cut = [e for e, answer in zip(played.episode, answers, strict=True) if answer.ended is Ended.CUT]
            out_E = torch.zeros(rollout.episodes, dtype=torch.bool)
            out_E[cut] = True
            rollout = dataclasses.replace(rollout, keep_B=rollout.keep_B & ~out_E[rollout.episode_B])
        match self.parts.baseline:
            case "prompt":
                known = prompt_scores(self.environment, played.groups[: len(prompts)])
            case "greedy":
                known = self._played(prompts, 1, greedy=True).totals()
            case "fresh":
                totals = self._played(prompts, settings.fresh, "fresh", step).totals()
                known = [statistics.fmean(totals[p * settings.fresh :][: settings.fresh]) for p in range(len(prompts))]
            case _:
                return rollout
        return dataclasses.replace(rollout, baseline_E=torch.tensor(known)[rollout.group_E()])

    def _as_learned(self, rollout: Rollout) -> Rollout:
        """The rollout as one ratio for a whole answer needs it: by the learner's own arithmetic, where that is coarse.

        A ratio is then that of two policies, and what the sampler's rounding adds token by token is not in it.
        """
        if self.learner.full_precision or self.parts.objective not in ("sequence", "answer"):
            return rollout
        logp_BT = self.learner.forward(TextBatch(tree=rollout.tree), Needs(logp=True)).logp_BT.cpu()
        found = apart(logp_BT, rollout.old_logp_BT, rollout.tree.mask_BT)
        check_agreement({name: float(total) / count for name, (total, count) in found.items()}, full_precision=False)
        return dataclasses.replace(rollout, old_logp_BT=logp_BT)

    def _learn(self, batch: PolicyBatch, loss: PolicyLoss, step: int) -> dict[str, float]:
        """The epochs and minibatches of one round; metrics are means over its steps."""
        if self.parts.update == "trust-region":
            return self._learn_in_a_ball(batch, loss, step)
        if self.parts.update == "imitation":
            return self._imitate(batch, step)
        found: list[dict[str, float]] = []
        for metrics in self._steps(batch, loss, step):
            if not found:
                check_agreement(metrics, full_precision=self.learner.full_precision)
            found.append(metrics)
        return _means(found)

    def _steps(self, batch: PolicyBatch, loss: Any, step: int) -> Iterator[dict[str, float]]:
        """The optimiser steps of a round, one by one, each with its share of what is learned beside; their metrics."""
        first = step * self.settings.updates_per_round
        for number, part in enumerate(self._minibatches(batch, step), first):
            yield self.learner.step(Part(part, loss), *self.beside(number))

    def _soft(self, batch: PolicyBatch, beta: float, step: int, memory: PolicyMemory) -> dict[str, float]:
        """Keep the round's rewards, and learn soft values from the rounds that are kept."""
        settings = self.settings.soft
        memory.kept = [*memory.kept, Kept.of(batch)][-settings.replay :]
        return soft_steps(
            self.learner,
            self.reference,
            memory.kept,
            settings,
            answers=self.settings.answers_per_step,
            alpha=beta,
            discount=self.settings.discount,
            lambda_=self.settings.lambda_,
            seed=derive(self.seed, "replay", step),
        )

    def _auxiliary(self, batch: PolicyBatch, memory: PolicyMemory) -> dict[str, float]:
        """Keep the round, and after enough of them let the trunk learn from all."""
        memory.kept.append(Kept.of(batch))
        if len(memory.kept) < self.settings.auxiliary.every:
            return {}
        metrics = auxiliary_phase(self.learner, memory.kept, self.settings.auxiliary)
        memory.kept = []
        return metrics

    def _learn_in_a_ball(self, batch: PolicyBatch, loss: PolicyLoss, step: int) -> dict[str, float]:
        """TRPO's step, and the critic's gradient steps."""
        settings = self.settings
        # the length of a step goes with the root of its KL, and is to fall as a gradient step's does
        left = (learning_rate_at(step, settings.steps, settings.optimiser) / settings.optimiser.learning_rate) ** 2
        metrics = trust_region_step(self.learner, batch, settings.trust, longest=loss.longest, share=left)
        if not self.has_critic:
            return metrics
        return metrics | _means([self.learner.step(Part(p, ValueLoss())) for p in self._minibatches(batch, step)])

    def _imitate(self, batch: PolicyBatch, step: int) -> dict[str, float]:
        """Rejection sampling: the best answer of each group becomes likelier, whatever the others were worth."""
        rows = best_of_groups(batch.advantage_BT[:, 0].tolist(), batch.tree.prompt_of_answers())
        return _means(list(self._steps(select(batch, rows), LanguageLoss(), step)))

    def _minibatches(self, batch: PolicyBatch, step: int) -> Iterator[PolicyBatch]:
        """The batch, or parts of it, as often as there are epochs; further turns make no further steps."""
        answers, planned = batch.tree.answers, self.settings.updates_per_round // self.settings.epochs
        parts = min(planned, math.ceil(answers / self.settings.answers_per_step))
        # all of one size: where answers were left out, a step of the few that are over would weigh them many times
        cuts = [answers * part // parts for part in range(parts + 1)]
        for epoch in range(self.settings.epochs):
            if parts == 1:
                yield batch
                continue
            order = group_order(batch.tree, derive(self.seed, "minibatch", step, epoch))
            for start, end in itertools.pairwise(cuts):
                yield select(batch, order[start:end])


def train_policy(run: Run, stage: PolicyStage, recipe: Recipe) -> None:
    """Tune a policy toward what the scorer likes, staying near its reference; ends early where `kl.stop` says so.

    Raises:
        RecordError: there are fewer prompts than one round needs.
        NumberError: a reward, a loss or a gradient is not finite.
    """
    settings = stage.settings
    if len(stage.prompts) < settings.prompts_per_round:
        raise RecordError(
            f"policy: {len(stage.prompts)} prompts, but policy.prompts_per_round is {settings.prompts_per_round}"
        )
    memory = PolicyMemory(settings)

    def body(step: int) -> dict[str, float] | None:
        if memory.over:
            return None
        metrics, samples = stage.round(step, memory)
        run.keep_samples("policy", step, samples)
        stage.sampler.load(None, step + 1)
        return metrics

    run_steps(
        run,
        "policy",
        stage.learner,
        settings.steps,
        body,
        save_every=recipe.save_every,
        memory=memory,
        watch="reward",
    )


def _means(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: statistics.fmean(metrics[name] for metrics in found) for name in found[0]}


def _rewarded(rollout: Rollout) -> PolicyBatch:
    """The round with each token's reward, the score on the last one, in place of its return."""
    reward_BT = score_at_end(rollout)
    nothing = torch.zeros_like(reward_BT)
    return PolicyBatch(
        tree=rollout.tree,
        old_logp_BT=rollout.old_logp_BT,
        ref_logp_BT=rollout.ref_logp_BT,
        advantage_BT=nothing,
        return_BT=reward_BT,
        value_BT=nothing,
    )


def _without_those_left_out(rollout: Rollout, batch: PolicyBatch) -> PolicyBatch | None:
    """The round's answers from which something is learned; None where there is none."""
    rows = [int(i) for i in rollout.keep_B.nonzero()]
    if not rows:
        return None
    return batch if len(rows) == batch.tree.answers else select(batch, rows)


def _described(played: Played, rollout: Rollout) -> dict[str, float]:
    answers = [answer for group in played.groups for answer in group.answers]
    mask_BT, totals = rollout.tree.mask_BT, played.totals()
    by_group: dict[int, list[float]] = {}
    for group, total in zip(rollout.group_E().tolist(), totals, strict=True):
        by_group.setdefault(group, []).append(total)
    return {
        "reward": statistics.fmean(totals),
        "reward_sd": float(torch.tensor(totals, dtype=torch.float64).std(correction=0)),
        "kl": float(masked_sum(rollout.kl_BT, mask_BT).mean()),
        **({} if rollout.tree.support is None else {"kl_whole": float(masked_sum(rollout.drift_BT, mask_BT).mean())}),
        "answer_tokens": statistics.fmean(len(answer.token_ids) for answer in answers),
        "cut_share": statistics.fmean(answer.ended is Ended.CUT for answer in answers),
        "groups_without_variance": float(sum(len(own) > 1 and max(own) == min(own) for own in by_group.values())),
        "left_out": float((~rollout.keep_B).sum()),
    }


def _critic_quality(rollout: Rollout, estimate: Estimate) -> dict[str, float]:
    mask_BT = rollout.tree.mask_BT & rollout.keep_B[:, None]
    if not bool(mask_BT.any()):
        return {}
    explained = float(explained_variance(rollout.value_BT, estimate.return_BT, mask_BT))
    return {"explained_variance": explained} if math.isfinite(explained) else {}


def _examples(played: Played, rollout: Rollout) -> list[dict[str, object]]:
    """The first episode of each of the first prompts of a round, for people to read."""
    examples: list[dict[str, object]] = []
    kls = masked_sum(rollout.kl_BT, rollout.tree.mask_BT).tolist()
    totals, prompts = played.totals(), rollout.group_E().tolist()
    for p, group in enumerate(played.groups[: min(4, prompts[-1] + 1)]):
        first, answer = prompts.index(p), group.answers[0]
        examples.append(
            {
                "prompt_id": group.prompt.id,
                "prompt": group.prompt.plain(),
                "answer": played.texts[first],
                "reward": round(totals[first], 4),
                "kl": round(kls[first], 4),
                "ended": answer.ended.value,
                "tokens": len(answer.token_ids),
            }
        )
    return examples
