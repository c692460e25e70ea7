"""A round's answers with all that is known of them: rewards, log-probabilities, values, baselines.

Shape letters:  B answers   T tokens   P prompts   E episodes   U turns
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from plaudit.advantages import turn_returns
from plaudit.batch import Needs, Outputs, Support, TokenTree, pack
from plaudit.environments import Environment, Played
from plaudit.errors import RecipeError
from plaudit.kl import k1
from plaudit.models.load import Machine
from plaudit.models.network import LanguageNetwork
from plaudit.records import Answer, Ended, Episode, Group, Prompt
from plaudit.sampling import Request, Sampler
from plaudit.seeds import derive
from plaudit.text import Words
from plaudit.training.learner import Learner, forward
from plaudit.training.objectives import TextBatch
from plaudit.tuning import Sampling

__all__ = ["Reference", "Rollout", "prompt_scores", "rolled_out", "sampled"]


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
    episode_B: Tensor
    """int64 [B]: which episode. The first E answers are the first turns of episodes 0, 1, 2, ..."""
    turn_B: Tensor
    """int64 [B]: which turn of it, from 0."""
    baseline_E: Tensor
    """[E] what was known beforehand: the score of the prompt, of a greedy answer, of fresh ones; zeros elsewhere."""
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

    @property
    def episodes(self) -> int:
        """How many (E)."""
        return len(self.baseline_E)

    def group_E(self) -> Tensor:
        """int64 [E]: which prompt each episode began with."""
        return torch.tensor(self.tree.prompt_of_answers()[: self.episodes])

    def still_earned(self, reward_B: Tensor, *, discount: float = 1.0) -> Tensor:
        """[B] each answer's own reward and those of the later turns of its episode; see `turn_returns`."""
        there_EU = torch.zeros(self.episodes, int(self.turn_B.max()) + 1, dtype=torch.bool)
        there_EU[self.episode_B, self.turn_B] = True
        reward_EU = torch.zeros(there_EU.shape, dtype=reward_B.dtype)
        reward_EU[self.episode_B, self.turn_B] = reward_B
        return turn_returns(reward_EU, there_EU, discount=discount)[self.episode_B, self.turn_B]


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
    sampling: Sampling,
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
            support=sampling.truncated,
        )
        for place, prompt in enumerate(prompts)
    ]
    groups = sampler.sample(requests, sampling)
    if sampling.truncated and any(a.support is None for group in groups for a in group.answers):
        raise RecipeError(
            f"policy.sampling.top_p {sampling.top_p:g} leaves tokens out, and {type(sampler).__name__} does "
            "not say which (Answer.support): set it to 1"
        )
    return groups


def prompt_scores(environment: Environment, groups: Sequence[Group]) -> list[float]:
    """[P] the score of each prompt alone: of the empty answer to it."""
    empty = Answer(text="", token_ids=(), logps=(), ended=Ended.STOPPED, seed=0)
    steps = environment.step(
        [Episode(prompt=g.prompt, context_ids=g.context_ids, answers=(empty,), seed=0) for g in groups]
    )
    return [step.reward for step in steps]


def rolled_out(
    learner: Learner,
    reference: Reference,
    played: Played,
    *,
    critic: bool,
    distributions: bool = False,
) -> Rollout:
    """Put the groups into tensors: the sampler's log-probabilities *are* the old ones.

    Episodes with an answer that failed, or that has no token, are not to be kept.

    Where top-p left tokens out, all are taken among the rest, as the sampler's are (`batch.Support`).
    """
    groups = played.groups
    answers = [answer for group in groups for answer in group.answers]
    failed = {
        episode
        for episode, answer in zip(played.episode, answers, strict=True)
        if answer.ended is Ended.FAILED or not answer.token_ids
    }
    tree = pack(
        [(group.context_ids, [answer.token_ids for answer in group.answers]) for group in groups],
        names=[group.prompt.id for group in groups],
        support=_support(answers),
    )
    batch = TextBatch(tree=tree)
    whole = None if tree.support is None else TextBatch(tree=dataclasses.replace(tree, support=None))
    mask_BT = tree.mask_BT
    logps = torch.tensor([logp for answer in answers for logp in answer.logps])
    old_logp_BT = torch.zeros(mask_BT.shape).masked_scatter(mask_BT, logps)
    score_B = torch.tensor(played.rewards)
    return Rollout(
        tree=tree,
        score_B=score_B,
        keep_B=torch.tensor([episode not in failed for episode in played.episode]),
        old_logp_BT=old_logp_BT,
        ref_logp_BT=reference.logp_BT(batch).cpu(),
        value_BT=learner.forward(batch, Needs(value=True)).value_BT.cpu() if critic else torch.zeros_like(old_logp_BT),
        episode_B=torch.tensor(played.episode),
        turn_B=torch.tensor(played.turn),
        baseline_E=torch.zeros(len(played.texts)),
        ref_logp_BTV=reference.logp_BTV(batch).cpu() if distributions else None,
        whole_ref_logp_BT=None if whole is None else reference.logp_BT(whole).cpu(),
    )


def _support(answers: Sequence[Answer]) -> Support | None:
    """What could have come at all the answers' tokens; None where nothing was left out."""
    supports = [answer.support for answer in answers if answer.support is not None]
    return Support.of([tokens for own in supports for tokens in own]) if len(supports) == len(answers) else None
