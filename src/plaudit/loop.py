"""The whole road: language model, demonstrations, judgements, reward model, policy, evaluation, report.

Each stage reads what the one before it left in the run folder and leaves a folder of its own there; nothing is
handed over in memory. So a run that was stopped goes on where it was, with the same bits.
"""

from __future__ import annotations

import itertools
import math
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from plaudit.cache import builtin_folder, keep_builtin, take_builtin
from plaudit.errors import ModelError, RecipeError, RunError
from plaudit.evaluation.compare import compare
from plaudit.evaluation.reward import held_out as held_out_measures
from plaudit.made import make_model
from plaudit.materials import Materials, check_demonstrations, check_judgements, check_prompts, materials_of
from plaudit.models.load import (
    Machine,
    adapted,
    change_config,
    check_reward_model,
    check_suits,
    choose_machine,
    context_of,
    is_lstm,
    load_language,
    load_reward,
    load_tokenizer,
    new_lstm_reward,
    new_reward,
    quality_weights,
    save_model,
)
from plaudit.models.network import Critic, LanguageNetwork, RewardNetwork, TwinQ, new_head
from plaudit.models.packed import bare
from plaudit.reading import held_out, load, write_jsonl
from plaudit.recipe import MADE, Language, Recipe, Sampling, Source, recipe_from
from plaudit.records import Group, Judgement, Prompt
from plaudit.report import write_report
from plaudit.runs import Run, write_json
from plaudit.runs.progress import progress, say
from plaudit.runs.trackers import open_trackers
from plaudit.sampling import ModelSampler, Request
from plaudit.scorers import (
    EnsembleScorer,
    ModelScorer,
    Scorer,
    check_references,
    check_reward,
    load_scorer,
    member_folders,
    scorer_of,
    weighted_scorer,
)
from plaudit.scorers.ensemble import save_ensemble
from plaudit.scoring import ByModel, Scoring
from plaudit.seeds import derive
from plaudit.summary import summarise
from plaudit.text import Words
from plaudit.training.learner import ModelLearner, Part
from plaudit.training.policy_stage import PolicyStage, train_policy
from plaudit.training.preference_stage import preference_items, preference_steps, train_preference
from plaudit.training.reward_stage import train_reward
from plaudit.training.rollouts import Reference
from plaudit.training.text_stages import (
    TokenText,
    demonstration_tokens,
    document_tokens,
    text_loss,
    texts_beside,
    train_language,
    train_sft,
)
from plaudit.tuning import Optimiser, parts_of
from plaudit.worlds.annotators import turned

__all__ = ["STAGES", "run"]

STAGES = ("language", "sft", "collect", "reward", "policy")
"""The stages that a recipe switches on by a section of that name, in their order."""


def run(recipe: Recipe, folder: Path, *, fresh: bool = False, only: str | None = None) -> dict[str, Any]:
    """Go the road that a recipe describes, from wherever the folder's run stopped.

    Args:
        recipe: what to do.
        folder: the run folder.
        fresh: drop the run that is there and start another.
        only: the one stage to do, out of `STAGES`; or `evaluate`, to compare the run's models again.

    Returns:
        The summary, as it stands in `summary.json`. A finished run is not touched: its summary is returned.

    Raises:
        PlauditError: anything that is wrong with recipe, data or models, before work is lost.
        KeyboardInterrupt: somebody pressed Ctrl-C; the same call goes on from there.
    """
    if only not in (None, "evaluate", *STAGES):
        raise RecipeError(f"there is no stage {only!r}; there are {', '.join(STAGES)} and evaluate")
    if only is not None and only != "evaluate":
        recipe = _alone(recipe, only)
    if only == "evaluate" and (fresh or not (folder / "config.yaml").exists()):
        raise RunError(f"{folder}: evaluate needs a run that is there, and does not start another")
    opened = Run(folder, recipe, trackers=[open_trackers(recipe.tracking, folder)], fresh=fresh)
    try:
        done = opened.summary()
        if only == "evaluate":
            return _Road(recipe, opened).evaluate_again()
        if done is not None:
            say(f"{folder} is finished; --fresh starts another run there")
            if not (folder / "report.html").exists():  # it was stopped right before
                write_report(folder)
            return done
        return _Road(recipe, opened).go()
    finally:
        opened.close()


def _alone(recipe: Recipe, only: str) -> Recipe:
    """The recipe with one stage.

    Raises:
        RecipeError: the recipe does not have that stage, or it needs another one's work.
    """
    if getattr(recipe, only) is None:
        raise RecipeError(f"the {only} stage alone: the recipe has no {only} section")
    kept = recipe.model_dump(mode="json", exclude={stage for stage in STAGES if stage != only})
    return recipe_from(kept, where=f"the {only} stage alone")


class _Road:
    """One pass over the stages of a recipe; what is done is skipped."""

    def __init__(self, recipe: Recipe, opened: Run) -> None:
        self.recipe = recipe
        self.run = opened
        self.machine: Machine = choose_machine(recipe.device, recipe.precision, recipe.threads)
        self.materials: Materials = materials_of(recipe, lambda text, n: self.words(self.start()).split_text(text, n))
        self._words: dict[str, Words] = {}

    def go(self) -> dict[str, Any]:
        """All stages that the recipe names, evaluation, report."""
        say(f"computing on {self.machine.describe()}, {torch.get_num_threads()} threads")
        self._look_ahead()
        self.run.keep_environment(
            device=self.machine.device.type,
            precision="bf16" if self.machine.bf16 else "fp32",
            threads=torch.get_num_threads(),
            seed=self.recipe.seed,
        )
        for stage in STAGES:
            if getattr(self.recipe, stage) is not None and not self.run.finished(stage):
                unread = self._waits_for_tokens()
                getattr(self, f"_{stage}")()
                if unread and not self._waits_for_tokens():
                    self._look_ahead()
        if not self.run.finished("evaluate"):
            self._evaluate()
        return self._close()

    def evaluate_again(self) -> dict[str, Any]:
        """Compare the run's models anew, and write summary and report from it."""
        missing = [stage for stage in self._stages() if not self.run.finished(stage)]
        if missing:
            raise RunError(f"{self.folder} is not finished ({', '.join(missing)} to do): run its recipe first")
        if not self._evaluates():
            raise RunError(f"{self.folder} has nothing to compare: that takes a policy or sft stage, and prompts")
        self._look_ahead()
        self.run.forget("evaluate")
        self._evaluate()
        return self._close()

    def _stages(self) -> list[str]:
        return [stage for stage in STAGES if getattr(self.recipe, stage) is not None]

    def _look_ahead(self) -> None:
        """Find what would stop a later stage, before an earlier one works for hours.

        Raises:
            PlauditError: a model cannot be loaded, a file cannot be read, or there is too little in it.
        """
        recipe, left = self.recipe, [stage for stage in self._stages() if not self.run.finished(stage)]
        models = [self.start(), *([self._trunk()] if "reward" in left else [])]
        readers, graders = self._readers(models[:1]), self._readers(models[1:])
        for model in models:
            if model not in MADE:
                check_suits(model, adapter=recipe.model.adapter, checkpointing=recipe.model.checkpointing)
        if self._evaluates():
            graders += self._readers(self._check_scorers())
        if recipe.world is not None:
            return  # there is enough in it, and its texts fit its model
        if "reward" in left:
            assert recipe.reward is not None
            check_judgements(self.materials.judgements(), graders, recipe.data.held_out, recipe.reward)
        if "sft" in left and not self._waits_for_tokens():
            check_demonstrations(self.materials.demonstrations(), readers, recipe.data.held_out)
        if self._evaluates() and not self._waits_for_tokens():
            needed = recipe.policy.prompts_per_round if recipe.policy is not None else 0
            check_prompts(self.materials.prompts(), [*readers, *graders], recipe.data.held_out, needed)

    def _check_scorers(self) -> list[str]:
        """Find what would stop a scorer; gives the trained reward models among them."""
        models = []
        for scoring in self.recipe.scorers.values():
            if not isinstance(scoring, ByModel):
                scorer_of(scoring, self.machine, self._reward_model, micro_tokens=self.recipe.micro_tokens)
            elif scoring.path is not None:
                check_reward(scoring.path)
                models += [str(member) for member in member_folders(scoring.path)]
        if not self._waits_for_tokens():
            check_references(self.recipe.scorers, itertools.chain(*self.materials.prompts()))
        return models

    def _waits_for_tokens(self) -> bool:
        """Whether texts are to be cut after so many tokens of a tokenizer that the language stage has yet to make."""
        data = self.recipe.data
        cuts = any(source.prompt_tokens is not None for source in (*data.demonstrations, *data.prompts))
        return cuts and self.start() in MADE

    def _readers(self, models: Sequence[str]) -> list[Words]:
        """The tokenizers of these models, without that of one which the language stage has yet to make."""
        return [self.words(model) for model in models if model not in MADE]

    def _close(self) -> dict[str, Any]:
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        summary = summarise(self.folder)
        write_json(self.folder / "summary.json", summary)
        write_report(self.folder)
        return summary

    # --- what the stages share --------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.run.folder

    def start(self) -> str:
        """The model before any fine-tuning: the run's own language model, or the recipe's."""
        own = self.folder / "language"
        return str(own) if self.run.finished("language") else self.recipe.model.path

    def tuned(self) -> str:
        """The policy's reference: the supervised model, or the start where there was no such stage."""
        own = self.folder / "sft"
        return str(own) if self.run.finished("sft") else self.start()

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

    # --- the stages -------------------------------------------------------------------------------------------

    def _language(self) -> None:
        """Train it, or take the world's built-in model that an earlier run has trained in the same way."""
        if self.recipe.model.path != "builtin" or self.recipe.world is None:
            with self.stage("language", "language", [self.recipe.model.path, "documents"]):
                self._train_language(self.recipe)
            return
        kept = builtin_folder(self.recipe, self.machine)
        if kept.exists() and self.run.latest("language") is None:  # what was begun here is finished here
            with self.stage("language", "language", ["the built-in model, trained before"]):
                say("language: using the built-in model that was trained before")
                self.run.rewind("language", 0)
                take_builtin(kept, self.folder / "language")
            return
        with self.stage("language", "language", ["documents"]):
            # one built-in model for all seeds; drawn at random, so that an adapter beside it would have no sense
            whole = self.recipe.model.model_copy(update={"adapter": None})
            self._train_language(self.recipe.model_copy(update={"seed": 0, "model": whole}))
        keep_builtin(self.folder / "language", kept)

    def _train_language(self, recipe: Recipe) -> None:
        settings = recipe.language
        assert settings is not None
        documents = self.materials.documents()
        if recipe.model.path in MADE:
            model, words = make_model(recipe, documents, self.machine)
        else:
            model = self.language_model(recipe.model.path, random=recipe.model.random)
            words = self.words(recipe.model.path)
        model = adapted(model, recipe.model.adapter, seed=derive(recipe.seed, "language"))
        train_language(self.run, LanguageNetwork(model), words, documents, settings, recipe, self.machine)
        save_model(model, self.folder / "language", words.tokenizer)

    def _sft(self) -> None:
        settings = self.recipe.sft
        assert settings is not None
        with self.stage("sft", "sft", [self._named(self.start()), "demonstrations"]):
            train, held = self.materials.demonstrations()
            words = self.words(self.start())
            model = adapted(
                self.language_model(self.start()), self.recipe.model.adapter, seed=derive(self.recipe.seed, "sft")
            )
            network = LanguageNetwork(model)
            train_sft(self.run, network, words, train, settings, self.recipe, self.machine)
            found: dict[str, float] = {}
            if held:
                texts = demonstration_tokens(held, words)
                found["held_out_nats_per_token"] = text_loss(network, texts, self.machine, self.recipe.micro_tokens)
            save_model(model, self.folder / "sft", words.tokenizer)
            write_json(self.folder / "sft" / "evaluation.json", found)

    def _collect(self) -> None:
        settings = self.recipe.collect
        there = self.materials.world
        assert settings is not None
        assert there is not None
        with self.stage("collect", "judgements.jsonl", [self._named(self.tuned()), "annotators"]):
            prompts = self.materials.prompts()[0][: settings.prompts]
            words = self.words(self.tuned())
            groups = self._sample(
                "collect", prompts, words, settings.answers_per_prompt, settings.sampling, self.tuned()
            )
            people = there.annotators(settings.annotators, derive(self.recipe.seed, "annotators"), settings.noise)
            judgements = [
                people[i % len(people)].judge(
                    group.prompt,
                    [answer.text for answer in group.answers],
                    derive(self.recipe.seed, "judge", group.prompt.id),
                )
                for i, group in enumerate(groups)
            ]
            for i in range(round(settings.wrong * len(judgements))):  # the prompts come in no order
                judgements[i] = turned(judgements[i])
            write_jsonl(self.folder / "judgements.jsonl", judgements)

    def _sample(
        self, stage: str, prompts: Sequence[Prompt], words: Words, count: int, sampling: Any, path: str
    ) -> list[Group]:
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

    def _judgements(self) -> tuple[list[Judgement], list[Judgement]]:
        if self.recipe.collect is None:
            train, held = self.materials.judgements()
            write_jsonl(self.folder / "judgements.jsonl", [*train, *held])
            return train, held
        path = Source(path=str(self.folder / "judgements.jsonl"))
        return held_out(load([path], "judgements", seed=self.recipe.seed), self.recipe.data.held_out)

    def _trunk(self) -> str:
        """What the reward model starts from."""
        settings = self.recipe.reward
        assert settings is not None
        own = {"sft": self.tuned(), "model": self.start(), "random": self.start(), "lstm": self.start()}
        return own.get(settings.start, settings.start)

    def _reward(self) -> None:
        settings = self.recipe.reward
        assert settings is not None
        trunk = self._trunk()
        with self.stage("reward", "reward-model", [self._named(trunk), "judgements.jsonl"]):
            train, held = self._judgements()
            words = self.words(trunk)
            made = self.folder / "reward-model"
            folders = [made / f"member-{m + 1}" for m in range(settings.members)] if settings.members > 1 else [made]
            for member, folder in enumerate(folders):
                if not folder.exists():  # it was made before an interruption
                    self._train_member(member, folder, trunk, words, train, held)
            networks = [RewardNetwork(load_reward(str(folder), self.machine)[0]) for folder in folders]
            members = [ModelScorer(n, words, self.machine, micro_tokens=self.recipe.micro_tokens) for n in networks]
            found = held_out_measures(members[0] if len(members) == 1 else EnsembleScorer(members).raw(), held)
            self._normalise(folders, members)
            write_json(made / "evaluation.json", found)

    def _train_member(
        self,
        member: int,
        folder: Path,
        trunk: str,
        words: Words,
        train: Sequence[Judgement],
        held: Sequence[Judgement],
    ) -> None:
        """Train one reward model and save it, as it is."""
        settings = self.recipe.reward
        assert settings is not None
        if settings.members > 1:
            say(f"reward: member {member + 1} of {settings.members}")
        seed = derive(self.recipe.seed, "head", member) if member else derive(self.recipe.seed, "head")
        model = self._new_reward(trunk, words, seed)
        network = RewardNetwork(model, dropout=settings.dropout)
        if settings.language:
            network.add_language_head(self.language_model(trunk, random=settings.start == "random"))
        train_reward(self.run, network, words, train, settings, self.recipe, self.machine, held, member=member)
        save_model(model, folder, words.tokenizer, reward_gain=1.0, reward_bias=0.0)

    def _new_reward(self, trunk: str, words: Words, seed: int) -> Any:
        """A reward model that has learned nothing yet."""
        settings = self.recipe.reward
        assert settings is not None
        if settings.start == "lstm":
            return new_lstm_reward(words.tokenizer, self.machine, seed=seed, qualities=settings.qualities)
        model = new_reward(
            trunk,
            self.machine,
            seed=seed,
            random=settings.start == "random",
            checkpointing=self.recipe.model.checkpointing,
            qualities=settings.qualities,
        )
        return adapted(model, self.recipe.model.adapter, seed=seed, task="SEQ_CLS")

    def _normalise(self, folders: Sequence[Path], members: Sequence[ModelScorer]) -> None:
        """Note gain and bias that give the reference's answers mean 0 and, within a prompt, standard deviation 1.

        Comparisons say nothing about how one prompt's answers stand against another's, so the spread between prompts
        is an accident of training; only the spread within a prompt gives one nat of KL the same price in every run.
        Of an ensemble, that is done to each member and then to all of them together.
        """
        settings = self.recipe.reward
        assert settings is not None
        has_prompts = self.recipe.world is not None or bool(self.recipe.data.prompts)
        groups: list[Group] = []
        if settings.normalise_on and has_prompts and self.recipe.policy is not None:
            groups = self._reference_groups(settings.normalise_on, self.recipe.policy.sampling)
        for folder, scorer in zip(folders, members, strict=True):
            scorer.gain, scorer.bias = _standard(scorer, groups)
            change_config(folder, reward_gain=scorer.gain, reward_bias=scorer.bias)
        if len(members) > 1:
            how = {"combine": settings.combine, "caution": settings.caution}
            gain, bias = _standard(EnsembleScorer(members, combine=settings.combine, caution=settings.caution), groups)
            save_ensemble(folders[0].parent, [f.name for f in folders], **how, reward_gain=gain, reward_bias=bias)

    def _reference_groups(self, count: int, sampling: Sampling) -> list[Group]:
        """Two answers of the policy's reference to each of some prompts."""
        prompts = self.materials.prompts()[0][:count]
        return self._sample("normalise", prompts, self.words(self.tuned()), 2, sampling, self.tuned())

    def _graders(self) -> dict[str, Scoring]:
        """What the recipe grades answers by, without the model of a reward stage that it does not have."""
        if not self.recipe.scorers:
            return {} if self.recipe.reward is None else {"reward": ByModel(kind="model")}
        trains = self.recipe.reward is not None
        return {
            name: scoring
            for name, scoring in self.recipe.scorers.items()
            if trains or not isinstance(scoring, ByModel) or scoring.path is not None
        }

    def _scorer(self) -> Scorer:
        if not self.recipe.scorers:
            return self._reward_model(None)
        return weighted_scorer(self._graders(), self.machine, self._reward_model, micro_tokens=self.recipe.micro_tokens)

    def _reward_model(self, path: str | None) -> Scorer:
        """The reward model in a folder, or several of them, or the run's own."""
        folder = path or self.folder / "reward-model"
        return load_scorer(folder, self.machine, self.recipe.text, micro_tokens=self.recipe.micro_tokens)

    def _policy(self) -> None:
        settings, recipe = self.recipe.policy, self.recipe
        assert settings is not None
        by_judgements = parts_of(settings).update == "judgements"
        scored_by = [] if by_judgements else [_source(name, scoring) for name, scoring in self._graders().items()]
        from_what = "judgements.jsonl" if by_judgements else "prompts"
        with self.stage("policy", "policy", [self._named(self.tuned()), *scored_by, from_what]):
            words = self.words(self.tuned())
            seed = derive(recipe.seed, "policy")
            model = adapted(self.language_model(self.tuned()), recipe.model.adapter, seed=seed)
            if by_judgements:
                self._prefer(model, words)
            elif parts_of(settings).rounds:
                self._climb(model, words, seed)
            save_model(model, self.folder / "policy", words.tokenizer)

    def _prefer(self, model: Any, words: Words) -> None:
        """Tune a model on judgements themselves."""
        settings, recipe = self.recipe.policy, self.recipe
        assert settings is not None
        network = LanguageNetwork(model)
        items = preference_items(self._judgements()[0], words, settings)
        learner = self._learner(network, settings.optimiser, preference_steps(len(items), settings))
        train_preference(self.run, learner, self._reference(network), items, settings, recipe)

    def _climb(self, model: Any, words: Words, seed: int) -> None:
        """Tune a model by the rewards of its answers."""
        settings, recipe = self.recipe.policy, self.recipe
        assert settings is not None
        critic = self._critic(model, words, seed) if parts_of(settings).baseline == "value" else None
        auxiliary = None
        if parts_of(settings).update == "phasic":
            size = int(model.config.get_text_config().hidden_size)
            auxiliary = Critic(_flat(new_head(size, bias=True, seed=seed)).to(self.machine.device))
        twins = self._twins(model, seed) if parts_of(settings).update == "soft" else None
        temperature = settings.sampling.temperature
        network = LanguageNetwork(model, critic, auxiliary=auxiliary, twins=twins, temperature=temperature)
        stage = PolicyStage(
            learner=self._learner(network, settings.optimiser, settings.updates),
            reference=self._reference(network),
            sampler=ModelSampler(model, words, self.machine),
            scorer=self._scorer(),
            words=words,
            prompts=self.materials.prompts()[0],
            settings=settings,
            seed=seed,
            beside=self._beside(words),
            observe=self._watch_gold(),
        )
        train_policy(self.run, stage, recipe)

    def _twins(self, model: Any, seed: int) -> TwinQ:
        """Critics of every next token, on a trunk that starts where the policy does; they begin near 0."""
        config = model.config.get_text_config()
        heads = new_head(int(config.hidden_size), bias=False, seed=seed, outputs=2 * int(config.vocab_size))
        with torch.no_grad():
            heads.weight.mul_(0.01)  # apart from one another, but no opinion yet
        trunk = self.language_model(self.tuned())
        return TwinQ(heads.to(self.machine.device), bare(trunk).base_model)

    def _learner(self, network: LanguageNetwork, optimiser: Optimiser, steps: int) -> ModelLearner:
        return ModelLearner(
            network, optimiser, steps=steps, machine=self.machine, micro_tokens=self.recipe.micro_tokens
        )

    def _reference(self, network: LanguageNetwork) -> Reference:
        """The policy where it starts: a copy, or the policy itself without its adapter."""
        adapted_only = self.recipe.model.adapter is not None
        start = (
            network
            if adapted_only
            else LanguageNetwork(self.language_model(self.tuned()), temperature=network.temperature)
        )
        return Reference(start, adapted=adapted_only, machine=self.machine, micro_tokens=self.recipe.micro_tokens)

    def _beside(self, words: Words) -> Callable[[int], list[Part]]:
        """Texts to stay likely while the policy is tuned: pretraining documents, demonstrations."""
        settings, recipe = self.recipe.policy, self.recipe
        assert settings is not None
        terms: dict[str, tuple[float, list[TokenText]]] = {}
        longest = (recipe.language or Language()).max_tokens
        if weight := parts_of(settings).pretraining:
            terms["pretraining_loss"] = weight, document_tokens(self.materials.documents(), words, longest)
        if settings.supervised:
            texts = demonstration_tokens(self.materials.demonstrations()[0], words)
            terms["supervised_loss"] = settings.supervised, texts
        return texts_beside(terms, settings.answers_per_step, derive(recipe.seed, "policy", "beside"))

    def _watch_gold(self) -> Callable[[Sequence[Group]], dict[str, float]]:
        """The hidden taste of a world, for the curves only: nothing learns from it."""
        there = self.materials.world
        if there is None:
            return lambda groups: {}
        return lambda groups: {
            "gold": statistics.fmean(there.gold(g.prompt, answer.text) for g in groups for answer in g.answers)
        }

    def _critic(self, model: Any, words: Words, seed: int) -> Critic:
        """A head on the policy's trunk, or a network that starts from the reward model if it reads the same tokens."""
        settings = self.recipe.policy
        assert settings is not None
        size = int(model.config.get_text_config().hidden_size)
        if settings.critic == "shared":
            return Critic(_flat(new_head(size, bias=True, seed=seed)).to(self.machine.device))
        teacher = next((scoring for scoring in self._graders().values() if isinstance(scoring, ByModel)), None)
        folder = str(member_folders((teacher and teacher.path) or self.folder / "reward-model")[0])
        if teacher and load_tokenizer(folder).get_vocab() == words.tokenizer.get_vocab():
            recompute = self.recipe.model.checkpointing and not is_lstm(check_reward_model(folder))
            trunk, gain, bias = load_reward(folder, self.machine, checkpointing=recompute)
            head = new_head(trunk.score.in_features, bias=True, seed=seed)
            weight_1Q = torch.tensor([quality_weights(trunk.config)], device=trunk.score.weight.device)
            with torch.no_grad():
                head.weight.copy_(weight_1Q @ trunk.score.weight * gain * teacher.weight)
                head.bias.fill_(bias * teacher.weight)
        else:
            trunk = self.language_model(self.tuned())
            head = _flat(new_head(size, bias=True, seed=seed))
        adapter = None if is_lstm(trunk.config) else self.recipe.model.adapter  # an LSTM is trained whole
        body = adapted(bare(trunk).base_model, adapter, seed=seed, task="FEATURE_EXTRACTION")
        return Critic(head.to(self.machine.device), body)

    def _evaluates(self) -> bool:
        """Whether the recipe tunes a model and has prompts to compare it on with the one before."""
        recipe = self.recipe
        tunes = recipe.policy is not None or recipe.sft is not None
        return tunes and (recipe.world is not None or bool(recipe.data.prompts))

    def _evaluate(self) -> None:
        recipe = self.recipe
        if not self._evaluates():
            return
        after = self.folder / ("policy" if recipe.policy is not None else "sft")
        before = self.tuned() if after.name == "policy" else self.start()
        with self.stage("evaluate", "evaluation.jsonl", [self._named(before), after.name]):
            compare(
                self.folder,
                before=self.language_model(before),
                after=self.language_model(str(after)),
                words=self.words(before),
                machine=self.machine,
                prompts=self.materials.prompts()[1][: recipe.evaluate.prompts],
                scorer=self._scorer() if self._graders() else None,
                world=self.materials.world,
                recipe=recipe,
            )

    def _named(self, path: str) -> str:
        """A model's name for people: its folder in the run, or what the recipe calls it."""
        here = Path(path)
        return here.name if here.parent == self.folder else path


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


def _source(name: str, scoring: Scoring) -> str:
    """A scorer's name in the lineage: a reward model's folder, or what kind it is."""
    if isinstance(scoring, ByModel):
        return scoring.path or "reward-model"
    return f"{name} ({scoring.kind})" if name != scoring.kind else name


def _flat(head: torch.nn.Linear) -> torch.nn.Linear:
    """The head with weights 0: a critic that begins by knowing nothing."""
    torch.nn.init.zeros_(head.weight)
    return head


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
