"""The policy stage of a run: what it climbs by, what stands beside it, and the step that brings them together."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch

from plaudit.loop.ground import Ground
from plaudit.models.load import adapted, check_reward_model, is_lstm, load_reward, load_tokenizer, quality_weights
from plaudit.models.network import Critic, LanguageNetwork, TwinQ, new_head
from plaudit.models.packed import bare
from plaudit.models.save import save_model
from plaudit.recipe import Language
from plaudit.records import Group
from plaudit.sampling import ModelSampler
from plaudit.scorers import member_folders
from plaudit.scoring import ByModel, Scoring
from plaudit.seeds import derive
from plaudit.text import Words
from plaudit.training.learner import ModelLearner, Part
from plaudit.training.policy_stage import PolicyStage, train_policy
from plaudit.training.preference_stage import preference_items, preference_steps, train_preference
from plaudit.training.rollouts import Reference
from plaudit.training.text_stages import TokenText, demonstration_tokens, document_tokens, texts_beside
from plaudit.tuning import Optimiser, parts_of

__all__ = ["policy_stage"]


def policy_stage(ground: Ground) -> None:
    """Tune the policy, by the rewards of its answers or by judgements themselves."""
    settings, recipe = ground.recipe.policy, ground.recipe
    assert settings is not None
    by_judgements = parts_of(settings).update == "judgements"
    scored_by = [] if by_judgements else [_source(name, scoring) for name, scoring in ground.graders().items()]
    from_what = "judgements.jsonl" if by_judgements else "prompts"
    with ground.stage("policy", "policy", [ground.named(ground.tuned()), *scored_by, from_what]):
        words = ground.words(ground.tuned())
        seed = derive(recipe.seed, "policy")
        model = adapted(ground.language_model(ground.tuned()), recipe.model.adapter, seed=seed)
        if by_judgements:
            _prefer(ground, model, words)
        elif parts_of(settings).rounds:
            _climb(ground, model, words, seed)
        save_model(model, ground.folder / "policy", words.tokenizer)


def _prefer(ground: Ground, model: Any, words: Words) -> None:
    """Tune a model on judgements themselves."""
    settings, recipe = ground.recipe.policy, ground.recipe
    assert settings is not None
    network = LanguageNetwork(model)
    items = preference_items(ground.judgements()[0], words, settings, ground.annotators())
    learner = _learner(ground, network, settings.optimiser, preference_steps(len(items), settings))
    train_preference(ground.run, learner, _reference(ground, network), items, words, settings, recipe)


def _climb(ground: Ground, model: Any, words: Words, seed: int) -> None:
    """Tune a model by the rewards of its answers."""
    settings, recipe = ground.recipe.policy, ground.recipe
    environment = ground.environment()
    assert settings is not None
    assert environment is not None
    critic = _critic(ground, model, words, seed) if parts_of(settings).baseline == "value" else None
    auxiliary = None
    if parts_of(settings).update == "phasic":
        size = int(model.config.get_text_config().hidden_size)
        auxiliary = Critic(_flat(new_head(size, bias=True, seed=seed)).to(ground.machine.device))
    twins = _twins(ground, model, seed) if parts_of(settings).update == "soft" else None
    temperature = settings.sampling.temperature
    network = LanguageNetwork(model, critic, auxiliary=auxiliary, twins=twins, temperature=temperature)
    stage = PolicyStage(
        learner=_learner(ground, network, settings.optimiser, settings.updates),
        reference=_reference(ground, network),
        sampler=ModelSampler(model, words, ground.machine),
        environment=environment,
        turns=ground.turns,
        words=words,
        prompts=ground.materials.prompts()[0],
        settings=settings,
        seed=seed,
        beside=_beside(ground, words),
        observe=_watch_gold(ground),
    )
    train_policy(ground.run, stage, recipe)


def _twins(ground: Ground, model: Any, seed: int) -> TwinQ:
    """Critics of every next token, on a trunk that starts where the policy does; they begin near 0."""
    config = model.config.get_text_config()
    heads = new_head(int(config.hidden_size), bias=False, seed=seed, outputs=2 * int(config.vocab_size))
    with torch.no_grad():
        heads.weight.mul_(0.01)  # apart from one another, but no opinion yet
    trunk = ground.language_model(ground.tuned())
    return TwinQ(heads.to(ground.machine.device), bare(trunk).base_model)


def _learner(ground: Ground, network: LanguageNetwork, optimiser: Optimiser, steps: int) -> ModelLearner:
    return ModelLearner(
        network, optimiser, steps=steps, machine=ground.machine, micro_tokens=ground.recipe.micro_tokens
    )


def _reference(ground: Ground, network: LanguageNetwork) -> Reference:
    """The policy where it starts: a copy, or the policy itself without its adapter."""
    adapted_only = ground.recipe.model.adapter is not None
    start = (
        network
        if adapted_only
        else LanguageNetwork(ground.language_model(ground.tuned()), temperature=network.temperature)
    )
    return Reference(start, adapted=adapted_only, machine=ground.machine, micro_tokens=ground.recipe.micro_tokens)


def _beside(ground: Ground, words: Words) -> Callable[[int], list[Part]]:
    """Texts to stay likely while the policy is tuned: pretraining documents, demonstrations."""
    settings, recipe = ground.recipe.policy, ground.recipe
    assert settings is not None
    terms: dict[str, tuple[float, list[TokenText]]] = {}
    longest = (recipe.language or Language()).max_tokens
    if weight := parts_of(settings).pretraining:
        terms["pretraining_loss"] = weight, document_tokens(ground.materials.documents(), words, longest)
    if settings.supervised:
        texts = demonstration_tokens(ground.materials.demonstrations()[0], words)
        terms["supervised_loss"] = settings.supervised, texts
    return texts_beside(terms, settings.answers_per_step, derive(recipe.seed, "policy", "beside"))


def _watch_gold(ground: Ground) -> Callable[[Sequence[Group]], dict[str, float]]:
    """The hidden taste of a world, for the curves only: nothing learns from it."""
    there = ground.materials.world
    if there is None:
        return lambda groups: {}
    return lambda groups: {
        "gold": statistics.fmean(there.gold(g.prompt, answer.text) for g in groups for answer in g.answers)
    }


def _critic(ground: Ground, model: Any, words: Words, seed: int) -> Critic:
    """A head on the policy's trunk, or a network that starts from the reward model if it reads the same tokens."""
    settings = ground.recipe.policy
    assert settings is not None
    size = int(model.config.get_text_config().hidden_size)
    if settings.critic == "shared":
        return Critic(_flat(new_head(size, bias=True, seed=seed)).to(ground.machine.device))
    teacher = next((scoring for scoring in ground.graders().values() if isinstance(scoring, ByModel)), None)
    folder = str(member_folders((teacher and teacher.path) or ground.folder / "reward-model")[0])
    if teacher and load_tokenizer(folder).get_vocab() == words.tokenizer.get_vocab():
        recompute = ground.recipe.model.checkpointing and not is_lstm(check_reward_model(folder))
        trunk, gain, bias = load_reward(folder, ground.machine, checkpointing=recompute)
        head = new_head(trunk.score.in_features, bias=True, seed=seed)
        weight_1Q = torch.tensor([quality_weights(trunk.config)], device=trunk.score.weight.device)
        with torch.no_grad():
            head.weight.copy_(weight_1Q @ trunk.score.weight * gain * teacher.weight)
            head.bias.fill_(bias * teacher.weight)
    else:
        trunk = ground.language_model(ground.tuned())
        head = _flat(new_head(size, bias=True, seed=seed))
    adapter = None if is_lstm(trunk.config) else ground.recipe.model.adapter  # an LSTM is trained whole
    body = adapted(bare(trunk).base_model, adapter, seed=seed, task="FEATURE_EXTRACTION")
    return Critic(head.to(ground.machine.device), body)


def _flat(head: torch.nn.Linear) -> torch.nn.Linear:
    """The head with weights 0: a critic that begins by knowing nothing."""
    torch.nn.init.zeros_(head.weight)
    return head


def _source(name: str, scoring: Scoring) -> str:
    """A scorer's name in the lineage: a reward model's folder, or what kind it is."""
    if isinstance(scoring, ByModel):
        return scoring.path or "reward-model"
    return f"{name} ({scoring.kind})" if name != scoring.kind else name
