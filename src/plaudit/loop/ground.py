"""What the stages of a run stand on."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plaudit.environments import Environment, OneTurn, environment_of
from plaudit.errors import ModelError
from plaudit.materials import Materials, materials_of
from plaudit.models.load import Machine, choose_machine, context_of, load_language, load_tokenizer
from plaudit.reading import held_out, load, write_jsonl
from plaudit.recipe import Recipe, Source
from plaudit.records import Group, Judgement, Prompt
from plaudit.runs import Run, recipe_around
from plaudit.runs.progress import progress
from plaudit.sampling import ModelSampler, Request
from plaudit.scorers import Scorer, load_scorer, weighted_scorer
from plaudit.scorers.ensemble import reward_folder
from plaudit.scoring import ByModel, Scoring
from plaudit.seeds import derive
from plaudit.text import Words

__all__ = ["STAGES", "Ground"]

STAGES = ("language", "sft", "collect", "reward", "policy")
"""The stages that a recipe switches on by a section of that name, in their order."""


class Ground:
    """One run of a recipe: its folder, what it works on, and the models that its stages have left so far."""

    def __init__(self, recipe: Recipe, opened: Run) -> None:
        self.recipe = recipe
        self.run = opened
        self.machine: Machine = choose_machine(recipe.device, recipe.precision, recipe.threads)
        self.materials: Materials = materials_of(recipe, lambda text, n: self.words(self.start()).split_text(text, n))
        self._words: dict[str, Words] = {}

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.run.folder

    def stages(self) -> list[str]:
        """The stages of the recipe, in their order."""
        return [stage for stage in STAGES if getattr(self.recipe, stage) is not None]

    def start(self) -> str:
        """The model before any fine-tuning: the run's own language model, or the recipe's."""
        own = self.folder / "language"
        return str(own) if self.run.finished("language") else self.recipe.model.path

    def tuned(self) -> str:
        """The policy's reference: the supervised model, or the start where there was no such stage."""
        own = self.folder / "sft"
        return str(own) if self.run.finished("sft") else self.start()

    def trunk(self) -> str:
        """What the reward model starts from."""
        settings = self.recipe.reward
        assert settings is not None
        own = {"sft": self.tuned(), "model": self.start(), "random": self.start(), "lstm": self.start()}
        return own.get(settings.start, settings.start)

    def words(self, model: str) -> Words:
        """The tokenizer that goes with a model, under the recipe's templates and limits."""
        if model not in self._words:
            here = self.recipe.model.tokenizer if model == self.recipe.model.path else None
            context = _context(model)
            self._words[model] = Words(
                load_tokenizer(here or model), self.recipe.text, context=context, stop_ids=_stop_ids(model)
            )
        return self._words[model]

    def language_model(self, path: str, *, random: bool = False) -> Any:
        """A language model on the machine."""
        return load_language(
            path,
            self.machine,
            checkpointing=self.recipe.model.checkpointing,
            random=random,
            seed=derive(self.recipe.seed, "weights"),
        )

    @contextmanager
    def stage(self, name: str, artifact: str, sources: Sequence[str]) -> Iterator[None]:
        """Time a stage and note what came from what."""
        before = self.run.latest(name)
        spent = before.seconds if before is not None else 0.0
        wall, cpu = time.perf_counter() - spent, time.process_time()
        yield
        self.run.finish(
            name, artifact, sources, seconds=time.perf_counter() - wall, cpu_seconds=time.process_time() - cpu
        )

    def sample(
        self, stage: str, prompts: Sequence[Prompt], words: Words, count: int, sampling: Any, path: str
    ) -> list[Group]:
        """So many answers to each prompt, by the model in a folder; the stage's name makes their seeds."""
        requests = [
            Request(
                prompt=prompt,
                context_ids=words.prompt_ids(prompt),
                seeds=tuple(derive(self.recipe.seed, stage, prompt.id, k) for k in range(count)),
            )
            for prompt in prompts
        ]
        with progress(stage, len(prompts) * count) as advance:
            sampler = ModelSampler(self.language_model(path), words, self.machine, progress=advance)
            return sampler.sample(requests, sampling)

    def judgements(self) -> tuple[list[Judgement], list[Judgement]]:
        """Those to learn from and those held out; they stand in `judgements.jsonl` from then on."""
        if self.recipe.collect is None:
            train, held = self.materials.judgements()
            write_jsonl(self.folder / "judgements.jsonl", [*train, *held])
            return train, held
        path = Source(path=str(self.folder / "judgements.jsonl"))
        return held_out(load([path], "judgements", seed=self.recipe.seed), self.recipe.data.held_out)

    def annotators(self) -> dict[str, float]:
        """Weights of people's judgements, by their name, where the recipe gives any."""
        return {} if self.recipe.reward is None else self.recipe.reward.annotators

    def graders(self) -> dict[str, Scoring]:
        """What the recipe grades answers by, without the model of a reward stage that it does not have."""
        if not self.recipe.scorers:
            return {} if self.recipe.reward is None else {"reward": ByModel(kind="model")}
        trains = self.recipe.reward is not None
        return {
            name: scoring
            for name, scoring in self.recipe.scorers.items()
            if trains or not isinstance(scoring, ByModel) or scoring.path is not None
        }

    def scorer(self) -> Scorer:
        """What the policy climbs: the recipe's scorers together, or the run's reward model."""
        if not self.recipe.scorers:
            return self.reward_model(None)
        return weighted_scorer(self.graders(), self.machine, self.reward_model, micro_tokens=self.recipe.micro_tokens)

    def environment(self) -> Environment | None:
        """What rewards answers: the recipe's environment, or its scorers for one turn; None where there is neither."""
        playing = self.recipe.environment
        if playing is not None:
            return environment_of(playing)
        return OneTurn(self.scorer()) if self.graders() else None

    @property
    def turns(self) -> int:
        """Answers in an episode, at most."""
        return 1 if self.recipe.environment is None else self.recipe.environment.turns

    def reward_model(self, path: str | None) -> Scorer:
        """The reward model in a folder, or several of them, or the run's own.

        One that another run has made reads words by that run's templates, as it was trained.
        """
        folder = self.folder / "reward-model" if path is None else reward_folder(path)
        made_by = None if path is None else recipe_around(Path(folder))
        text = self.recipe.text if made_by is None else made_by.text
        if self.recipe.text.cut_prompts:
            text = text.model_copy(update={"cut_prompts": True})
        return load_scorer(folder, self.machine, text, micro_tokens=self.recipe.micro_tokens)

    def evaluates(self) -> bool:
        """Whether the recipe tunes a model and has prompts to compare it on with the one before."""
        recipe = self.recipe
        tunes = recipe.policy is not None or recipe.sft is not None
        return tunes and self._has_prompts()

    def normalises(self) -> bool:
        """Whether the recipe trains a reward model and has prompts to bring it to a standard scale on."""
        settings = self.recipe.reward
        return settings is not None and bool(settings.normalise_on) and self._has_prompts()

    def _has_prompts(self) -> bool:
        return self.recipe.world is not None or bool(self.recipe.data.prompts)

    def named(self, path: str) -> str:
        """A model's name for people: its folder in the run, or what the recipe calls it."""
        here = Path(path)
        return here.name if here.parent == self.folder else path


def _stop_ids(model: str) -> list[int]:
    """What else ends an answer, by the model's own generation config."""
    from transformers import GenerationConfig

    try:
        ids = GenerationConfig.from_pretrained(model).eos_token_id
    except OSError:
        return []
    return [ids] if isinstance(ids, int) else list(ids or ())


def _context(model: str) -> int | None:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot load {model!r}: {str(error).splitlines()[0]}") from error
    return context_of(config)
