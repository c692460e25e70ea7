"""A round's answers with all that is known of them: rewards, log-probabilities, values, baselines.

Shape letters:  B answers   T tokens   P prompts
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from plaudit.batch import Needs, Outputs, Support, TokenTree, pack
from plaudit.errors import NumberError, RecipeError
from plaudit.kl import k1
from plaudit.models.load import Machine
from plaudit.models.network import LanguageNetwork
from plaudit.records import Answer, Ended, Group, Prompt
from plaudit.sampling import Request, Sampler
from plaudit.scorers import Scorer
from plaudit.seeds import derive
from plaudit.text import Words
from plaudit.training.learner import Learner, forward
from plaudit.training.objectives import TextBatch
from plaudit.tuning import Policy

__all__ = ["Reference", "Rewards", "Rollout", "greedy_scores", "prompt_scores", "rewarded", "rolled_out", "sampled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """Sampled answers, scored; nothing here carries gradient."""

    tree: TokenTree
    score_B: Tensor
    """[B] rewards."""
    keep_B: Tensor
    """bool [B]: whether something is learned from the answer."""
    old_logp_BT: Tensor
    """[B, T] nats, by the policy that sampled."""
    ref_logp_BT: Tensor
    """[B, T] nats, by the reference."""
    value_BT: Tensor
    """[B, T] the critic's guesses; zeros where there is none."""
    baseline_B: Tensor
    """[B] what was known beforehand: the score of the prompt, of a greedy answer, of fresh ones; zeros elsewhere."""
    ref_logp_BTV: Tensor | None = None
    """[B, T, V] nats, by the reference, where the loss compares whole distributions."""
    whole_ref_logp_BT: Tensor | None = None
    """[B, T] nats, by the reference among all tokens, where top-p left some out and the others are among the rest."""

    @property
    def kl_BT(self) -> Tensor:
        """[B, T] log-ratio of policy to reference at each sampled token, in nats (k1)."""
        return k1(self.old_logp_BT, self.ref_logp_BT)

    @property
    def drift_BT(self) -> Tensor:
        """[B, T] the same from the reference among all tokens: how far answers are from what it would have said.

        Among the tokens that top-p leaves, KL falls to 0 as they become fewer, whatever the reference thinks of them.
        This one begins at what is left out, -log top_p a token at most, and tells the truth afterwards.
        """
        return self.kl_BT if self.whole_ref_logp_BT is None else k1(self.old_logp_BT, self.whole_ref_logp_BT)

    def group_B(self) -> Tensor:
        """int64 [B]: which prompt."""
        return torch.tensor(self.tree.prompt_of_answers())


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewards:
    """What a scorer said of a round."""

    values: list[float]
    """Of each answer, group by group."""
    parts: dict[str, float]
    """Mean of each of the scorer's parts, for people."""


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
        """[B, T] nats, of the tokens that came."""
        return self._outputs(batch, Needs(logp=True)).logp_BT

    def logp_BTV(self, batch: TextBatch) -> Tensor:
        """[B, T, V] nats, of all tokens that could have come."""
        return self._outputs(batch, Needs(distribution=True)).distribution_BTV

    def _outputs(self, batch: TextBatch, needs: Needs) -> Outputs:
        with self._start():
            return forward(self.network, batch, needs, machine=self.machine, micro_tokens=self.micro_tokens)


def sampled(
    sampler: Sampler,
    words: Words,
    prompts: Sequence[Prompt],
    settings: Policy,
    seed: int,
    *purpose: int | str,
    answers: int,
) -> list[Group]:
    """Answers to each of the prompts; purpose, place and number of an answer say its seed.

    Raises:
        RecipeError: top-p leaves tokens out, and the sampler does not say which.
    """
    requests = [
        Request(
            prompt=prompt,
            context_ids=words.prompt_ids(prompt),
            seeds=tuple(derive(seed, *purpose, place, k) for k in range(answers)),
            support=settings.sampling.truncated,
        )
        for place, prompt in enumerate(prompts)
    ]
    groups = sampler.sample(requests, settings.sampling)
    if settings.sampling.truncated and any(a.support is None for group in groups for a in group.answers):
        raise RecipeError(
            f"policy.sampling.top_p {settings.sampling.top_p:g} leaves tokens out, and {type(sampler).__name__} does "
            "not say which (Answer.support): set it to 1"
        )
    return groups


def rewarded(scorer: Scorer, groups: Sequence[Group], cut_reward: float | None) -> Rewards:
    """The reward of each answer.

    Raises:
        NumberError: the scorer failed on an answer, or a score is not finite.
    """
    scores = scorer.score(groups)
    scores.check(groups)
    if scores.failed:
        raise NumberError(f"the scorer failed on {len(scores.failed)} answers: {next(iter(scores.failed.values()))}")
    parts = {
        f"reward/{name}": statistics.fmean(value for values in part for value in values)
        for name, part in scores.parts.items()
    }
    values = scores.flat()
    if cut_reward is not None:
        answers = [answer for group in groups for answer in group.answers]
        values = [
            cut_reward if answer.ended is Ended.CUT else value for answer, value in zip(answers, values, strict=True)
        ]
    return Rewards(values=values, parts=parts)


def prompt_scores(scorer: Scorer, groups: Sequence[Group]) -> list[float]:
    """[P] the score of each prompt alone: of the empty answer to it."""
    empty = Answer(text="", token_ids=(), logps=(), ended=Ended.STOPPED, seed=0)
    return rewarded(
        scorer, [Group(prompt=g.prompt, context_ids=g.context_ids, answers=(empty,)) for g in groups], None
    ).values


def greedy_scores(
    sampler: Sampler, scorer: Scorer, words: Words, prompts: Sequence[Prompt], settings: Policy
) -> list[float]:
    """[P] the score of the likeliest answer to each prompt, token by token (self-critical)."""
    greedy = settings.model_copy(update={"sampling": settings.sampling.model_copy(update={"temperature": 0.0})})
    return rewarded(scorer, sampled(sampler, words, prompts, greedy, 0, answers=1), settings.cut_reward).values


def rolled_out(
    learner: Learner,
    reference: Reference,
    groups: Sequence[Group],
    rewards: Rewards,
    *,
    critic: bool,
    distributions: bool = False,
) -> Rollout:
    """Put the groups into tensors: the sampler's log-probabilities *are* the old ones.

    Where top-p left tokens out, all are taken among the rest, as the sampler's are (`batch.Support`).
    """
    tree = pack(
        [(group.context_ids, [answer.token_ids for answer in group.answers]) for group in groups],
        names=[group.prompt.id for group in groups],
        support=_support([answer for group in groups for answer in group.answers]),
    )
    batch = TextBatch(tree=tree)
    whole = None if tree.support is None else TextBatch(tree=dataclasses.replace(tree, support=None))
    mask_BT = tree.mask_BT()
    logps = torch.tensor([logp for group in groups for answer in group.answers for logp in answer.logps])
    old_logp_BT = torch.zeros(mask_BT.shape).masked_scatter(mask_BT, logps)
    score_B = torch.tensor(rewards.values)
    return Rollout(
        tree=tree,
        score_B=score_B,
        keep_B=torch.ones_like(score_B, dtype=torch.bool),
        old_logp_BT=old_logp_BT,
        ref_logp_BT=reference.logp_BT(batch).cpu(),
        value_BT=learner.forward(batch, Needs(value=True)).value_BT.cpu() if critic else torch.zeros_like(old_logp_BT),
        baseline_B=torch.zeros_like(score_B),
        ref_logp_BTV=reference.logp_BTV(batch).cpu() if distributions else None,
        whole_ref_logp_BT=None if whole is None else reference.logp_BT(whole).cpu(),
    )


def _support(answers: Sequence[Answer]) -> Support | None:
    """What could have come at all the answers' tokens; None where nothing was left out."""
    supports = [answer.support for answer in answers if answer.support is not None]
    return Support.of([tokens for own in supports for tokens in own]) if len(supports) == len(answers) else None
