"""The reward stage of a run: one model or several, trained, measured and brought to one scale."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plaudit.errors import ModelError
from plaudit.evaluation.reward import held_out as held_out_measures
from plaudit.loop.ground import Ground
from plaudit.models.load import adapted, new_lstm_reward, new_reward
from plaudit.models.network import RewardNetwork
from plaudit.models.save import Setting, change_config, save_adapter, save_model
from plaudit.recipe import Reward, Sampling
from plaudit.records import Group, Judgement
from plaudit.runs import read_json, write_json
from plaudit.runs.progress import say
from plaudit.scorers import EnsembleScorer, ModelScorer
from plaudit.scorers.ensemble import load_members, save_ensemble
from plaudit.seeds import derive
from plaudit.text import Words
from plaudit.training.judged import said_by
from plaudit.training.reward_stage import train_reward

__all__ = ["reward_stage", "train_member"]


def reward_stage(ground: Ground) -> None:
    """Train the reward model, or its members, and measure it on what was held out."""
    settings = ground.recipe.reward
    assert settings is not None
    trunk = ground.trunk()
    with ground.stage("reward", "reward-model", [ground.named(trunk), "judgements.jsonl"]):
        train, held = ground.judgements()
        made = ground.folder / "reward-model"
        folders = [made / f"member-{m + 1}" for m in range(settings.members)] if settings.members > 1 else [made]
        for member, folder in enumerate(folders):
            if not folder.exists():  # it was made before an interruption
                train_member(ground, folder, trunk, train, held, member=member)
        loaded = load_members(folders, ground.machine, ground.recipe.text, micro_tokens=ground.recipe.micro_tokens)
        scorer = _normalise(ground, folders, [member.raw() for member in loaded])
        found = held_out_measures(scorer.raw(), held)
        write_json(made / "evaluation.json", {**found, "learned": _learned(train, settings, folders)})


def _learned(train: Sequence[Judgement], settings: Reward, folders: Sequence[Path]) -> dict[str, Any]:
    """What the models learned from, and what they learned beside the scores: how frequent ties are, where grades begin.

    The latter by the name of each model's folder, in the units of the raw score.
    """
    mix = said_by(train, settings)[1]
    beside = {folder.name: read_json(folder / "config.json").get("reward_scales") for folder in folders}
    found = {"judgements": mix.counts, "left_out": mix.left_out, "pooled": mix.pooled, **beside}
    return {name: value for name, value in found.items() if value}


def train_member(
    ground: Ground,
    folder: Path,
    trunk: str,
    train: Sequence[Judgement],
    held: Sequence[Judgement] = (),
    *,
    member: int = 0,
) -> None:
    """Train one reward model of the recipe and save it, at the scale that it came to.

    Args:
        ground: the run, whose recipe has a reward section.
        folder: where the model goes.
        trunk: the model that it starts from.
        train: judgements to learn from.
        held: judgements that patience looks at.
        member: which one of an ensemble.

    Raises:
        RecordError: no judgement orders anything, or patience has nothing to look at.
    """
    settings = ground.recipe.reward
    assert settings is not None
    words = ground.words(trunk)
    if settings.members > 1:
        say(f"reward: member {member + 1} of {settings.members}")
    seed = derive(ground.recipe.seed, "head", member) if member else derive(ground.recipe.seed, "head")
    adapter = None if settings.start == "lstm" else ground.recipe.model.adapter
    shared = folder.parent / "trunk" if settings.members > 1 and adapter is not None else None
    if shared is None:
        model = _new_reward(ground, trunk, words, seed, random=settings.start == "random")
    else:  # one trunk to the last bit, what is drawn at random in it too
        if not shared.exists():
            first = _new_reward(ground, trunk, words, seed, random=settings.start == "random")
            save_model(first, shared, words.tokenizer)
        model = _new_reward(ground, str(shared), words, seed)
    model = adapted(model, adapter, seed=seed, task="SEQ_CLS")
    network = RewardNetwork(model, dropout=settings.dropout)
    if settings.language:
        network.add_language_head(ground.language_model(trunk, random=settings.start == "random"))
    train_reward(ground.run, network, words, train, settings, ground.recipe, ground.machine, held, member=member)
    told: dict[str, Setting] = {"reward_gain": 1.0, "reward_bias": 0.0}
    if network.scales is not None:
        told["reward_scales"] = network.scales.values()
    if shared is not None:
        save_adapter(model, folder, words.tokenizer, trunk="../trunk", **told)
    else:
        save_model(model, folder, words.tokenizer, **told)


def _new_reward(ground: Ground, trunk: str, words: Words, seed: int, *, random: bool = False) -> Any:
    """A reward model that has learned nothing yet."""
    settings = ground.recipe.reward
    assert settings is not None
    if settings.start == "lstm":
        return new_lstm_reward(
            words.tokenizer,
            ground.machine,
            seed=seed,
            head_scale=settings.head_scale,
            qualities=settings.qualities,
        )
    return new_reward(
        trunk,
        ground.machine,
        seed=seed,
        head_scale=settings.head_scale,
        random=random,
        checkpointing=ground.recipe.model.checkpointing,
        qualities=settings.qualities,
    )


def _normalise(ground: Ground, folders: Sequence[Path], members: Sequence[ModelScorer]) -> ModelScorer | EnsembleScorer:
    """Note gain and bias that give the reference's answers mean 0 and, within a prompt, standard deviation 1.

    Comparisons say nothing about how one prompt's answers stand against another's, so the spread between prompts
    is an accident of training; only the spread within a prompt gives one nat of KL the same price in every run.
    Of an ensemble, that is done to each member and then to all of them together. Without prompts it is left out.

    Returns:
        The model, or the ensemble, at that scale.
    """
    settings = ground.recipe.reward
    assert settings is not None
    groups = _reference_groups(ground, settings.normalise_on) if ground.normalises() else []
    if settings.normalise_on and not groups:
        say("reward: left at the scale that it came to, for there are no prompts to normalise it on (data.prompts)")
    for folder, scorer in zip(folders, members, strict=True):
        scorer.gain, scorer.bias = _standard(scorer, groups)
        change_config(folder, reward_gain=scorer.gain, reward_bias=scorer.bias)
    if len(members) == 1:
        return members[0]
    together = EnsembleScorer(members, combine=settings.combine, caution=settings.caution)
    together.gain, together.bias = _standard(together, groups)
    how = {"combine": together.combine, "caution": together.caution}
    scale = {"reward_gain": together.gain, "reward_bias": together.bias}
    save_ensemble(folders[0].parent, [folder.name for folder in folders], **how, **scale)
    return together


def _reference_groups(ground: Ground, count: int) -> list[Group]:
    """Two answers of the policy's reference to each of some prompts, drawn as the policy draws its own.

    The reward stage alone knows no policy: its answers are drawn by the defaults, as long as the model reads.
    """
    policy, read = ground.recipe.policy, ground.recipe.text.max_answer_tokens
    sampling = policy.sampling if policy is not None else Sampling(max_tokens=min(Sampling().max_tokens, read))
    prompts = ground.materials.prompts()[0][:count]
    return ground.sample("normalise", prompts, ground.words(ground.tuned()), 2, sampling, ground.tuned())


def _standard(scorer: ModelScorer | EnsembleScorer, groups: Sequence[Group]) -> tuple[float, float]:
    """Gain and bias after which groups of two answers have mean 0 and, within a prompt, standard deviation 1.

    Raises:
        ModelError: all answers to a prompt have one score.
    """
    if not groups:
        return 1.0, 0.0
    scores = scorer.score(groups)
    scores.check(groups)
    spread = math.sqrt(statistics.fmean((first - second) ** 2 / 2 for first, second in scores.value_PG))
    if spread < 1e-8:
        raise ModelError("the reward model gives all answers to a prompt one score: it has learned nothing")
    return 1 / spread, -statistics.fmean(scores.flat()) / spread
