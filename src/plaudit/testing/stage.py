"""The laboratory's task behind the three seams, so that the product's own policy stage can be measured on it.

    task = laboratory_stage(lab, Policy(algorithm="rloo", steps=300, prompts_per_round=24), seed=0)
    task.climb()
    lab.share(task.policy())        # of the way to the optimum

A prompt of the task is one token beyond the vocabulary of its answers; the end token ends an answer. Everything is
float64 on the CPU.

Shape letters:  P prompts   S prefixes   V vocabulary   A answers   B drawn answers   T tokens
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from plaudit.batch import Needs, Outputs, TokenTree
from plaudit.environments import OneTurn
from plaudit.losses.policy import entropy
from plaudit.models import network as networks
from plaudit.models.load import Machine
from plaudit.records import Answer, Ended, Group, Prompt
from plaudit.sampling import Request
from plaudit.sampling.draw import keep_top
from plaudit.scorers import Scores
from plaudit.seeds import derive
from plaudit.testing.laboratory import Critic, Laboratory, Network, TokenCritic, imitate
from plaudit.training.learner import ModelLearner, Part
from plaudit.training.objectives import TextBatch
from plaudit.training.policy_stage import PolicyMemory, PolicyStage
from plaudit.tuning import Policy, Sampling, parts_of

__all__ = ["LaboratoryNetwork", "LaboratorySampler", "LaboratoryScorer", "LaboratoryStage", "laboratory_stage"]

_END = 0
_CPU = Machine(device=torch.device("cpu"), bf16=False)


class LaboratoryNetwork(networks.Network):
    """A policy of the laboratory, with or without a critic, as a learner trains it."""

    def __init__(
        self,
        lab: Laboratory,
        policy: nn.Module,
        critic: nn.Module | None = None,
        auxiliary: nn.Module | None = None,
        twins: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.twins = nn.ModuleList(twins)
        self.slow_twins = copy.deepcopy(self.twins).requires_grad_(False)
        self.auxiliary = auxiliary
        self.lab = lab
        self.policy = policy
        self.critic = critic
        self.next_SV = _transitions(lab)

    def places(self, tree: TokenTree) -> tuple[Tensor, Tensor, Tensor]:
        """[B, 1] prompt, [B, T] prefix and [B, T] token of each answer of a tree."""
        token_BT = tree.token_BT
        starts = torch.tensor(tree.prompt_starts())
        prompt_B = (tree.token_N[starts] - self.lab.ref_PSV.shape[-1])[torch.tensor(tree.prompt_of_answers())]
        state_BT = torch.zeros_like(token_BT)
        for t in range(1, token_BT.shape[1]):
            state_BT[:, t] = self.next_SV[state_BT[:, t - 1], token_BT[:, t - 1]]
        return prompt_B[:, None], state_BT, token_BT

    def outputs(self, tree: TokenTree, needs: Needs) -> Outputs:
        """What the policy says of answers."""
        prompt_B1, state_BT, token_BT = self.places(tree)
        mask_BT = tree.mask_BT
        found: dict[str, Tensor] = {}
        if needs.logp or needs.entropy or needs.distribution:
            logp_BTV = _on_support(self.policy()[prompt_B1, state_BT], tree)
            found["logp"] = logp_BTV.gather(-1, token_BT[..., None]).squeeze(-1).masked_fill(~mask_BT, 0.0)
            found["entropy"] = entropy(logp_BTV).masked_fill(~mask_BT, 0.0)
            if needs.distribution:
                found["distribution"] = logp_BTV
        if needs.value:
            assert self.critic is not None
            found["value"] = self.critic()[prompt_B1, state_BT].masked_fill(~mask_BT, 0.0)
        if needs.auxiliary:
            assert self.auxiliary is not None
            assert isinstance(self.policy, Network), "an auxiliary head reads a network's hidden layer"
            guess_PS = self.auxiliary(self.policy.tower.hidden()).squeeze(-1)
            found["auxiliary"] = guess_PS[prompt_B1, state_BT].masked_fill(~mask_BT, 0.0)
        for name, wanted, twins in (("q", needs.q, self.twins), ("slow_q", needs.slow_q, self.slow_twins)):
            if wanted:
                found[name] = torch.stack([twin()[prompt_B1, state_BT] for twin in twins], -1)
        return Outputs(**found)

    @torch.no_grad()
    def follow(self, rate: float) -> None:
        """Let the slow copies of the twins come nearer."""
        for slow, fast in zip(self.slow_twins.parameters(), self.twins.parameters(), strict=True):
            slow.lerp_(fast, rate)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """`policy`, and `critic` where there is one."""
        groups = {"policy": list(self.policy.parameters())}
        if self.auxiliary is not None:
            groups["policy"] += list(self.auxiliary.parameters())
        if len(self.twins):
            groups["twins"] = list(self.twins.parameters())
        return groups if self.critic is None else groups | {"critic": list(self.critic.parameters())}


def _on_support(logp_BTV: Tensor, tree: TokenTree) -> Tensor:
    """The log-probabilities among the tokens that could have come; as they are where all could."""
    return logp_BTV if tree.support is None else tree.logps_BTV(logp_BTV)


def _transitions(lab: Laboratory) -> Tensor:
    """[S, V] the prefix after a token; 0 where the answer ends there."""
    next_SV = torch.zeros(lab.ref_PSV.shape[1:], dtype=torch.int64)
    for t in range(lab.token_AT.shape[1] - 1):
        on_A = lab.mask_AT[:, t + 1]
        next_SV[lab.state_AT[on_A, t], lab.token_AT[on_A, t]] = lab.state_AT[on_A, t + 1]
    return next_SV


class LaboratorySampler:
    """Draws from a policy of the laboratory; the first seed of each request says what comes."""

    def __init__(self, network: LaboratoryNetwork) -> None:
        lab = network.lab
        self.network = network
        self.answers = [
            tuple(row[:n]) for row, n in zip(lab.token_AT.tolist(), lab.mask_AT.sum(1).tolist(), strict=True)
        ]
        self._texts = [" ".join(map(str, tokens)) for tokens in self.answers]
        self._ended = [Ended.STOPPED if tokens[-1] == _END else Ended.CUT for tokens in self.answers]

    @torch.no_grad()
    def sample(self, requests: Sequence[Request], sampling: Sampling) -> list[Group]:
        """A group for each request, in order."""
        lab, logp_PSV = self.network.lab, self.network.policy()
        if sampling.truncated:
            logp_PSV = keep_top(logp_PSV.flatten(0, 1), sampling.top_p).view_as(logp_PSV)
        logp_PA = lab.answer_logp(logp_PSV)
        prompts = [request.context_ids[0] - lab.ref_PSV.shape[-1] for request in requests]
        if sampling.temperature == 0:
            likeliest = {p: self._greedy(logp_PSV[p]) for p in set(prompts)}
            drawn = [[likeliest[p]] * len(r.seeds) for p, r in zip(prompts, requests, strict=True)]
        else:
            generator = torch.Generator().manual_seed(requests[0].seeds[0] % 2**63)
            most = max(len(request.seeds) for request in requests)
            rows = torch.multinomial(logp_PA[prompts].exp(), most, replacement=True, generator=generator).tolist()
            drawn = [row[: len(request.seeds)] for row, request in zip(rows, requests, strict=True)]
        logp_PAT = logp_PSV[:, lab.state_AT, lab.token_AT].tolist()
        return [
            self._group(request, row, logp_PAT[p], logp_PSV[p] if request.support and sampling.truncated else None)
            for request, p, row in zip(requests, prompts, drawn, strict=True)
        ]

    def _greedy(self, logp_SV: Tensor) -> int:
        state = 0
        tokens: tuple[int, ...] = ()
        while tokens not in self.answers:
            token = int(logp_SV[state].argmax())
            tokens, state = (*tokens, token), int(self.network.next_SV[state, token])
        return self.answers.index(tokens)

    def _group(
        self, request: Request, answers: Sequence[int], logp_AT: Sequence[Sequence[float]], logp_SV: Tensor | None
    ) -> Group:
        """The answers with their log-probabilities, and where the policy is given with the tokens that it left."""
        return Group(
            prompt=request.prompt,
            context_ids=request.context_ids,
            answers=tuple(
                Answer(
                    text=self._texts[a],
                    token_ids=self.answers[a],
                    logps=tuple(logp_AT[a][: len(self.answers[a])]),
                    ended=self._ended[a],
                    seed=seed,
                    support=None if logp_SV is None else self._support(logp_SV, a),
                )
                for a, seed in zip(answers, request.seeds, strict=True)
            ),
        )

    def _support(self, logp_SV: Tensor, answer: int) -> tuple[tuple[int, ...], ...]:
        states = self.network.lab.state_AT[answer, : len(self.answers[answer])]
        return tuple(tuple(row.nonzero().flatten().tolist()) for row in logp_SV[states] > -torch.inf)

    def load(self, weights: Path | None, version: int) -> None:
        """It shares the learner's weights."""


class LaboratoryScorer:
    """The laboratory's rewards; the empty answer, which stands for the prompt alone, earns the prompt's mean."""

    def __init__(self, lab: Laboratory) -> None:
        self.mean_P: list[float] = lab.reward_PA.mean(1).tolist()
        answers = [tuple(row[:n]) for row, n in zip(lab.token_AT.tolist(), lab.mask_AT.sum(1).tolist(), strict=True)]
        self.rewards: list[dict[tuple[int, ...], float]] = [
            dict(zip(answers, row, strict=True)) for row in lab.reward_PA.tolist()
        ]
        self.vocabulary = lab.ref_PSV.shape[-1]

    def score(self, groups: Sequence[Group]) -> Scores:
        """The reward of each answer."""
        return Scores(value_PG=tuple(tuple(self._reward(g, a.token_ids) for a in g.answers) for g in groups))

    def _reward(self, group: Group, tokens: tuple[int, ...]) -> float:
        prompt = group.context_ids[0] - self.vocabulary
        return self.rewards[prompt][tokens] if tokens else self.mean_P[prompt]


class _Words:
    """The tokens of the laboratory's prompts."""

    def __init__(self, lab: Laboratory) -> None:
        self.first = lab.ref_PSV.shape[-1]

    def prompt_ids(self, prompt: Prompt) -> tuple[int, ...]:
        return (self.first + int(prompt.id),)


class _Reference:
    """The laboratory's reference."""

    def __init__(self, network: LaboratoryNetwork) -> None:
        self.network = network

    def logp_BT(self, batch: TextBatch) -> Tensor:
        return self.logp_BTV(batch).gather(-1, batch.tree.token_BT[..., None]).squeeze(-1)

    def logp_BTV(self, batch: TextBatch) -> Tensor:
        prompt_B1, state_BT, _ = self.network.places(batch.tree)
        return _on_support(self.network.lab.ref_PSV[prompt_B1, state_BT], batch.tree)


@dataclass(frozen=True, kw_only=True)
class LaboratoryStage:
    """The policy stage on the laboratory's task."""

    stage: PolicyStage
    policy: nn.Module
    """What is tuned: its call gives [P, S, V] log-probabilities."""

    def climb(self) -> None:
        """All rounds of the settings."""
        memory = PolicyMemory(self.stage.settings)
        for step in range(self.stage.settings.steps):
            if not memory.over:
                self.stage.round(step, memory)


def laboratory_stage(
    lab: Laboratory,
    settings: Policy,
    *,
    seed: int,
    policy: nn.Module | None = None,
    beside: Callable[[int], Sequence[Part]] = lambda step: (),
) -> LaboratoryStage:
    """The policy stage on the laboratory's task, from its reference.

    Args:
        lab: the task.
        settings: the recipe's policy section; its prompts are the laboratory's, each as often as a round needs.
        seed: of the sampling, and of a network's first weights.
        policy: what is tuned; a small neural network at the reference where none is given.
        beside: what else each optimiser step minimises, by its number.
    """
    if policy is None:
        policy = Network(lab, seed=seed)
        imitate(policy, lab.ref_PSV)
    critic = Critic(lab, seed=seed) if parts_of(settings).baseline == "value" else None
    auxiliary = nn.Linear(64, 1, dtype=torch.float64) if parts_of(settings).update == "phasic" else None
    if auxiliary is not None:
        nn.init.zeros_(auxiliary.weight)
        nn.init.zeros_(auxiliary.bias)
    soft = parts_of(settings).update == "soft"
    twins = [TokenCritic(lab, seed=derive(seed, "twin", k) % 2**31) for k in range(2)] if soft else []
    network = LaboratoryNetwork(lab, policy, critic, auxiliary, twins)
    anything: Any = _Words(lab)
    reference: Any = _Reference(network)
    stage = PolicyStage(
        learner=ModelLearner(network, settings.optimiser, steps=settings.updates, machine=_CPU, micro_tokens=2**30),
        reference=reference,
        sampler=LaboratorySampler(network),
        environment=OneTurn(LaboratoryScorer(lab)),
        words=anything,
        prompts=[Prompt(text=f"{p}", id=f"{p}") for p in range(lab.prompts)],
        settings=settings,
        seed=seed,
        beside=beside,
    )
    return LaboratoryStage(stage=stage, policy=policy)
