"""The stages before there is a reward: language, supervised fine-tuning, judgements by simulated annotators."""

from __future__ import annotations

from plaudit.cache import builtin_folder, keep_builtin, take_builtin
from plaudit.loop.ground import Ground
from plaudit.made import make_model
from plaudit.models.load import adapted
from plaudit.models.network import LanguageNetwork
from plaudit.models.save import save_model
from plaudit.reading import write_jsonl
from plaudit.recipe import MADE, Recipe
from plaudit.runs import write_json
from plaudit.runs.progress import say
from plaudit.seeds import derive
from plaudit.training.text_stages import demonstration_tokens, text_loss, train_language, train_sft
from plaudit.worlds.annotators import turned

__all__ = ["collect_stage", "language_stage", "sft_stage"]


def language_stage(ground: Ground) -> None:
    """Train it, or take the world's built-in model that an earlier run has trained in the same way."""
    if ground.recipe.model.path != "builtin" or ground.recipe.world is None:
        with ground.stage("language", "language", [ground.recipe.model.path, "documents"]):
            _train_language(ground, ground.recipe)
        return
    kept = builtin_folder(ground.recipe, ground.machine)
    if kept.exists() and ground.run.latest("language") is None:  # what was begun here is finished here
        with ground.stage("language", "language", ["the built-in model, trained before"]):
            say("language: using the built-in model that was trained before")
            ground.run.rewind("language", 0)
            take_builtin(kept, ground.folder / "language")
        return
    with ground.stage("language", "language", ["documents"]):
        # one built-in model for all seeds; drawn at random, so that an adapter beside it would have no sense
        whole = ground.recipe.model.model_copy(update={"adapter": None})
        _train_language(ground, ground.recipe.model_copy(update={"seed": 0, "model": whole}))
    keep_builtin(ground.folder / "language", kept)


def _train_language(ground: Ground, recipe: Recipe) -> None:
    settings = recipe.language
    assert settings is not None
    documents = ground.materials.documents()
    if recipe.model.path in MADE:
        model, words = make_model(recipe, documents, ground.machine)
    else:
        model = ground.language_model(recipe.model.path, random=recipe.model.random)
        words = ground.words(recipe.model.path)
    model = adapted(model, recipe.model.adapter, seed=derive(recipe.seed, "language"))
    train_language(ground.run, LanguageNetwork(model), words, documents, settings, recipe, ground.machine)
    save_model(model, ground.folder / "language", words.tokenizer)


def sft_stage(ground: Ground) -> None:
    """Train on demonstrations."""
    settings = ground.recipe.sft
    assert settings is not None
    with ground.stage("sft", "sft", [ground.named(ground.start()), "demonstrations"]):
        train, held = ground.materials.demonstrations()
        words = ground.words(ground.start())
        model = adapted(
            ground.language_model(ground.start()), ground.recipe.model.adapter, seed=derive(ground.recipe.seed, "sft")
        )
        network = LanguageNetwork(model)
        train_sft(ground.run, network, words, train, settings, ground.recipe, ground.machine)
        found: dict[str, float] = {}
        if held:
            texts = demonstration_tokens(held, words)
            found["held_out_nats_per_token"] = text_loss(network, texts, ground.machine, ground.recipe.micro_tokens)
        save_model(model, ground.folder / "sft", words.tokenizer)
        write_json(ground.folder / "sft" / "evaluation.json", found)


def collect_stage(ground: Ground) -> None:
    """Let the world's simulated annotators judge answers of the policy's reference."""
    settings = ground.recipe.collect
    there = ground.materials.world
    assert settings is not None
    assert there is not None
    with ground.stage("collect", "judgements.jsonl", [ground.named(ground.tuned()), "annotators"]):
        prompts = ground.materials.prompts()[0][: settings.prompts]
        words = ground.words(ground.tuned())
        groups = ground.sample(
            "collect", prompts, words, settings.answers_per_prompt, settings.sampling, ground.tuned()
        )
        people = there.annotators(settings.annotators, derive(ground.recipe.seed, "annotators"), settings.noise)
        judgements = [
            people[i % len(people)].judge(
                group.prompt,
                [answer.text for answer in group.answers],
                derive(ground.recipe.seed, "judge", group.prompt.id),
            )
            for i, group in enumerate(groups)
        ]
        for i in range(round(settings.wrong * len(judgements))):  # the prompts come in no order
            judgements[i] = turned(judgements[i])
        write_jsonl(ground.folder / "judgements.jsonl", judgements)
