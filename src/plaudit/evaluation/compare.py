"""The same held-out prompts answered by the tuned model and by the one before it."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from plaudit.batch import Needs, pack
from plaudit.environments import Environment, OneTurn, Played, play
from plaudit.evaluation.best_of_n import best_answers, best_of_n_kl
from plaudit.evaluation.decoding import answer_prompts, sampling_of
from plaudit.evaluation.measures import bleu, distinct_2, gain_in_sd, win_rate
from plaudit.models.load import Machine
from plaudit.models.network import LanguageNetwork
from plaudit.recipe import Recipe, Sampling
from plaudit.records import Group, Prompt
from plaudit.runs import write_json
from plaudit.runs.progress import progress
from plaudit.sampling import ModelSampler, Request
from plaudit.seeds import derive
from plaudit.text import Words
from plaudit.training.learner import forward
from plaudit.training.objectives import TextBatch
from plaudit.tuning import parts_of
from plaudit.worlds.reviews import ReviewWorld

__all__ = ["compare", "mean_kl"]


def compare(
    folder: Path,
    *,
    before: Any,
    after: Any,
    words: Words,
    machine: Machine,
    prompts: Sequence[Prompt],
    environment: Environment | None,
    world: ReviewWorld | None,
    recipe: Recipe,
    turns: int = 1,
) -> dict[str, Any]:
    """Answer the prompts with both models, the same seeds on both sides, and say who wins.

    Under `best-of-n` the tuned model answers each prompt several times, with seeds of its own, and its best answer by
    the scorer counts. `kl_nats` is then the bound log n - (n - 1) / n (`best_of_n_kl`).

    Writes `evaluation.jsonl`, one line a prompt, and `evaluation.json`, the numbers.

    Args:
        folder: the run folder.
        before: the model to beat.
        after: the tuned model.
        environment: gives the reward that was climbed, if there is one.
        world: gives the hidden taste, if there is one.
        turns: answers in an episode, at most.
    """
    settings, seed, policy = recipe.evaluate, derive(recipe.seed, "evaluate"), recipe.policy
    choices = policy.answers_per_prompt if policy is not None and parts_of(policy).update == "selection" else 1
    sides = {"before": answer_prompts(before, words, machine, prompts, settings, seed=seed, title="before")}
    if choices > 1:
        assert isinstance(environment, OneTurn), "a recipe with a policy that is chosen by a reward has scorers"
        own = derive(seed, "best")  # were the answer of before among them, the best could never lose to it
        drawn = answer_prompts(after, words, machine, prompts, settings, seed=own, title="after", answers=choices)
        sides["after"] = best_answers(drawn, environment.scorer)
    else:
        sides["after"] = answer_prompts(after, words, machine, prompts, settings, seed=seed, title="after")
    if settings.decoding == "sample":
        again = derive(seed, "again")
        sides["again"] = answer_prompts(before, words, machine, prompts, settings, seed=again, title="before again")
    found: dict[str, Any] = {"prompts": len(prompts)}
    played: dict[str, Played] = {}
    if environment is not None:
        for side, groups in sides.items():
            sampler = ModelSampler(after if side == "after" else before, words, machine)
            played[side] = play(sampler, environment, words, groups, sampling_of(settings), turns=turns)
    rewards = {side: own.totals() for side, own in played.items()} or None
    texts = {side: [group.answers[0].text for group in groups] for side, groups in sides.items()}
    texts |= {side: list(own.texts) for side, own in played.items()}
    golds = {side: _golds(groups, world) for side, groups in sides.items()} if world is not None else None
    for name, values in (("gold", golds), ("reward", rewards)):
        if values is not None:
            found |= _wins(name, values)
    found |= _diversity(sides["before"], sides["after"])
    found |= _lengths(sides["before"], sides["after"])
    if world is not None:
        for side in ("before", "after"):
            found[f"parse_share_{side}"] = statistics.fmean(
                world.parse_share(group.answers[0].text) for group in sides[side]
            )
    references = [prompt.reference for prompt in prompts if prompt.reference]
    if len(references) == len(prompts):
        for side in ("before", "after"):
            found[f"bleu_{side}"] = bleu([group.answers[0].text for group in sides[side]], references)
    if choices > 1:
        found |= {"best_of": choices, "kl_nats": best_of_n_kl(choices)}
    else:
        sampling = policy.sampling if policy is not None else settings.sampling
        found["kl_nats"] = mean_kl(
            after, before, words, machine, prompts, sampling, seed=derive(seed, "kl"), micro_tokens=recipe.micro_tokens
        )
    _write_lines(folder / "evaluation.jsonl", sides, texts, rewards, golds)
    write_json(folder / "evaluation.json", {k: v for k, v in found.items() if v is not None})
    return found


@torch.no_grad()
def mean_kl(
    after: Any,
    before: Any,
    words: Words,
    machine: Machine,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    seed: int,
    micro_tokens: int,
) -> float:
    """KL(after || before) in nats per answer, by the log-ratio of answers that `after` samples, one a prompt.

    Args:
        sampling: temperature and length of the answers. They are drawn from the whole distribution: greedy answers, or
            only the likeliest tokens, would say nothing about a divergence.
    """
    sampling = sampling.model_copy(update={"temperature": sampling.temperature or 1.0, "top_p": 1.0})
    requests = [
        Request(prompt=prompt, context_ids=words.prompt_ids(prompt), seeds=(derive(seed, prompt.id),))
        for prompt in prompts
    ]
    with progress("KL", len(prompts)) as advance:
        groups = ModelSampler(after, words, machine, progress=advance).sample(requests, sampling)
    batch = TextBatch(tree=pack([(g.context_ids, [g.answers[0].token_ids]) for g in groups]))
    network = LanguageNetwork(before, temperature=sampling.temperature)
    outputs = forward(network, batch, Needs(logp=True), machine=machine, micro_tokens=micro_tokens)
    own = sum(logp for group in groups for logp in group.answers[0].logps)
    return (own - float(outputs.logp_BT.sum())) / len(groups)


def _golds(groups: Sequence[Group], world: ReviewWorld) -> list[float]:
    return [world.gold(group.prompt, group.answers[0].text) for group in groups]


def _wins(name: str, values: dict[str, list[float]]) -> dict[str, Any]:
    rate = win_rate(values["after"], values["before"])
    gain = gain_in_sd(values["after"], values["before"])
    found: dict[str, Any] = {
        f"{name}_win_rate": rate.value,
        f"{name}_win_rate_interval": list(rate.interval),
        f"{name}_gain_sd": gain if math.isfinite(gain) else None,
        f"{name}_before": statistics.fmean(values["before"]),
        f"{name}_after": statistics.fmean(values["after"]),
    }
    if "again" in values:
        found[f"{name}_win_rate_of_before_against_itself"] = win_rate(values["again"], values["before"]).value
    return found


def _diversity(before: Sequence[Group], after: Sequence[Group]) -> dict[str, Any]:
    """Distinct-2 with each pair of answers cut to the shorter of the two."""
    ids = [[group.answers[0].token_ids for group in side] for side in (before, after)]
    lengths = [min(len(a), len(b)) for a, b in zip(*ids, strict=True)]
    values = [distinct_2(side, lengths) for side in ids]
    return {f"distinct_2_{side}": v for side, v in zip(("before", "after"), values, strict=True) if math.isfinite(v)}


def _lengths(before: Sequence[Group], after: Sequence[Group]) -> dict[str, float]:
    return {
        f"answer_tokens_{side}": statistics.fmean(len(group.answers[0].token_ids) for group in groups)
        for side, groups in (("before", before), ("after", after))
    }


def _write_lines(
    path: Path,
    sides: dict[str, list[Group]],
    texts: dict[str, list[str]],
    rewards: dict[str, list[float]] | None,
    golds: dict[str, list[float]] | None,
) -> None:
    lines = []
    for i, group in enumerate(sides["before"]):
        line: dict[str, Any] = {"prompt_id": group.prompt.id, "prompt": group.prompt.plain()}
        if group.prompt.reference:
            line["reference"] = group.prompt.reference
        for side in ("before", "after"):
            answer = sides[side][i].answers[0]
            entry: dict[str, Any] = {
                "text": texts[side][i],
                "tokens": len(answer.token_ids),
                "ended": answer.ended.value,
            }
            if rewards is not None:
                entry["reward"] = round(rewards[side][i], 4)
            if golds is not None:
                entry["gold"] = round(golds[side][i], 4)
            line[side] = entry
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    aside = path.with_name(path.name + ".writing")
    aside.write_text("".join(lines), encoding="utf-8")
    aside.rename(path)
