"""Every setting of Plaudit, with its unit and default: one page that a recipe file, `--set` and Python share.

A recipe is YAML. A stage runs when its section is there; the sections are in the order in which they run. In its
paths `$NAME` stands for an environment variable.
Nothing here loads torch, so that `--help` and `plaudit init` answer at once.
"""

from __future__ import annotations

import copy
import difflib
import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

import yaml
from pydantic import Field, ValidationError, ValidationInfo, model_validator

from plaudit.errors import RecipeError
from plaudit.playing import Playing
from plaudit.scoring import KINDS, Scoring
from plaudit.section import Section
from plaudit.sources import Data, Source, Text, World
from plaudit.start import MADE, Adapter, Model
from plaudit.tuning import Kl, Optimiser, Policy, Sampling, parts_of
from plaudit.tuning_checks import Contradiction, within_policy

__all__ = [
    "MADE",
    "Adapter",
    "Collect",
    "Data",
    "Evaluate",
    "Kl",
    "Language",
    "Model",
    "Optimiser",
    "Policy",
    "Recipe",
    "Reward",
    "Sampling",
    "Section",
    "Sft",
    "Source",
    "Text",
    "Tracking",
    "World",
    "load_recipe",
    "override",
    "recipe_from",
    "settings",
]


class Language(Section):
    """Language-model training on raw text."""

    steps: int = Field(default=600, ge=1)
    """Optimiser steps."""
    minibatch: int = Field(default=16, ge=1)
    """Documents in one optimiser step."""
    max_tokens: int = Field(default=512, ge=2)
    """Longest document, in tokens; a longer one is cut into pieces."""
    optimiser: Optimiser = Optimiser(learning_rate=2e-3, weight_decay=0.1, beta2=0.95)


class Sft(Section):
    """Supervised fine-tuning on demonstrations."""

    epochs: float = Field(default=1.0, gt=0)
    """Times each demonstration is seen."""
    minibatch: int = Field(default=16, ge=1)
    """Demonstrations in one optimiser step."""
    optimiser: Optimiser = Optimiser()


class Collect(Section):
    """Sample answers and have simulated annotators of the built-in world rank them."""

    prompts: int = Field(default=800, ge=1)
    """Prompts whose answers are ranked."""
    answers_per_prompt: int = Field(default=4, ge=2)
    """Answers ranked together (K)."""
    annotators: int = Field(default=8, ge=1)
    """Simulated people; each has a reliability of its own."""
    noise: float = Field(default=0.3, ge=0)
    """Scale of the annotators' Gumbel noise, in standard deviations of the hidden taste."""
    wrong: float = Field(default=0.0, ge=0, lt=1)
    """Share of the rankings that are turned upside down, to see what bad labels do."""
    sampling: Sampling = Sampling()


class Reward(Section):
    """Training of the reward model on judgements."""

    start: str = "sft"
    """Trunk: `sft`, `model`, `random`, `lstm` (from nothing), or a decoder's or an encoder's folder or name."""
    head_scale: float = Field(default=1.0, ge=0)
    """Standard deviation of the head's first weights, times sqrt(D + 1); 0: all answers begin equal."""
    epochs: float = Field(default=1.0, gt=0)
    """Times each judgement is seen; rankings over-fit after about two."""
    minibatch: int = Field(default=16, ge=1)
    """Judged prompts in one optimiser step."""
    average: float = Field(default=0.0, ge=0, lt=1)
    """Share of the optimiser steps, the last ones, whose weights are averaged into the model; 0: the last weights."""
    members: int = Field(default=1, ge=1)
    """Reward models, from different seeds, that score together; under `model.adapter` they share one trunk."""
    qualities: dict[str, float] = {}
    """A head for each thing that is judged apart, and its weight in the reward, such as `helpful: 1, harmless: 0.5`."""
    bootstrap: bool = False
    """Each member learns from a draw of its own of the judgements, with replacement."""
    combine: Literal["mean", "minimum", "lower"] = "mean"
    """How members score together; `lower` is their mean less `caution` standard deviations."""
    caution: float = Field(default=1.0, ge=0)
    """Standard deviations between members that `lower` takes off."""
    patience: int | None = Field(default=None, ge=1)
    """Looks at the held-out loss without a better one, after which training ends; the best weights are kept."""
    look_every: int = Field(default=20, ge=1)
    """Optimiser steps between two looks, where there is patience."""
    rankings: Literal["pairs", "whole"] = "pairs"
    """`pairs`: the mean over all pairs of K. `whole`: Plackett-Luce, the best, then the best of the rest, and so on."""
    choices: Literal["softmax", "pairs"] = "softmax"
    """A choice of the best of K: one `softmax` over the K, or the best against each other in `pairs`."""
    ratings: Literal["auto", "pairs", "grades", "squared"] = "auto"
    """Scores by their order in `pairs`, as `grades` or by `squared` error; `auto`: pairs, or grades of lone answers."""
    grades: int = Field(default=5, ge=2)
    """Steps into which the scale of scores is cut; where each begins is learned."""
    ties: bool = True
    """Learn from ties too, and how frequent they are (Davidson's model); else tied pairs are left out."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """P(a pair, a choice or a thumb is the wrong way round); whole rankings, grades and squared errors have no such."""
    margin: float = Field(default=0.0, ge=0)
    """Log-odds demanded of the better answer for each unit of a comparison's stated `strength` (or `margin`)."""
    centring: float = Field(default=0.0, ge=0)
    """Weight of the squared mean score of each prompt's answers, which pulls it to 0."""
    annotators: dict[str, Annotated[float, Field(ge=0)]] = {}
    """How much an annotator's judgements weigh, such as `ann: 0.5`; 1 for who is not named, 0 leaves out."""
    language: float = Field(default=0.0, ge=0)
    """Weight of a language-model loss on the better answers, beside the judgements (nats per token)."""
    adversary: float = Field(default=0.0, ge=0)
    """Train against the worst small shift of the embeddings too; its size, as a share of their norm, such as 0.01."""
    negatives: float = Field(default=0.0, ge=0, le=1)
    """Share of comparisons to which the spoiled answer that the model likes best is added as the worst."""
    curriculum: bool = False
    """See the clearest judgements first, by stated strength or distance of scores, in the first epoch."""
    length_debias: bool = False
    """Let an answer's length explain beforehand what it can of comparisons and thumbs; the reward learns the rest."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the trunk's output that is zeroed before the head, while training."""
    normalise_on: int = Field(default=256, ge=0)
    """Prompts, answered twice, on which rewards get mean 0 and, within a prompt, sd 1; 0, or no prompts: left alone."""
    optimiser: Optimiser = Optimiser()


class Evaluate(Section):
    """Answers on held-out prompts, by the tuned model and by the one before it."""

    prompts: int = Field(default=400, ge=1)
    """Held-out prompts answered, or all there are."""
    decoding: Literal["sample", "greedy", "beam"] = "sample"
    """How both sides answer."""
    beams: int = Field(default=4, ge=2)
    """Width of a beam search."""
    sampling: Sampling = Sampling(temperature=0.8)


class Tracking(Section):
    """Where metrics go besides the run folder."""

    to: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Trackers, each an optional package."""
    project: str = "plaudit"
    """Name under which they file the run."""


class Recipe(Section):
    """The whole road."""

    seed: int = Field(default=0, ge=0)
    """Same recipe, same seed, same machine: same bits."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the models live; `auto` takes the first of cuda, mps, cpu that is there."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`bf16` computes in 16 bits and keeps weights in 32; `auto` takes it where the processor multiplies in it."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads; nothing leaves it to torch."""
    save_every: int = Field(default=20, ge=1)
    """Optimiser steps, or rounds of the policy, between two checkpoints."""
    micro_tokens: int = Field(default=8192, ge=64)
    """Tokens in one forward pass; a minibatch is split to fit, with the same result."""
    world: World | None = None
    model: Model = Model()
    text: Text = Text()
    data: Data = Data()
    language: Language | None = None
    sft: Sft | None = None
    collect: Collect | None = None
    reward: Reward | None = None
    scorers: dict[Annotated[str, Field(pattern=r"^[\w-]+$")], Scoring] = {}
    """The policy's reward, their weighted sum, each under a name; nothing: the reward stage's model alone."""
    environment: Playing | None = None
    policy: Policy | None = None
    evaluate: Evaluate = Evaluate()
    tracking: Tracking = Tracking()

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> Self:
        found = list(_contradictions(self))
        if isinstance(info.context, list):  # somebody collects them
            info.context.extend(found)
        elif found:
            raise ValueError("; ".join(one.says for one in found))
        return self


def _contradictions(recipe: Recipe) -> Iterator[Contradiction]:
    if recipe.policy is not None:
        yield from within_policy(recipe.policy)
    yield from _between_stages(recipe)
    yield from (_of_own_files(recipe) if recipe.world is None else _of_world(recipe, recipe.world))


def _between_stages(recipe: Recipe) -> Iterator[Contradiction]:
    yield from (Contradiction(*found) for found in recipe.model.contradictions())
    yield from _of_optimisers(recipe)
    if recipe.reward is not None:
        yield from _of_reward(recipe.reward)
        yield from _of_qualities(recipe.reward, recipe.data.judgements)
    if recipe.policy is not None:
        yield from _of_scorers(recipe)
        yield from _of_choice(recipe.policy, recipe.evaluate)
    if recipe.environment is not None:
        yield from _of_environment(recipe, recipe.environment)
    if recipe.model.random and recipe.language is None:
        yield Contradiction(
            "model.random draws weights that only the language stage trains: give a language section",
            ("model.random", "language"),
        )


def _of_optimisers(recipe: Recipe) -> Iterator[Contradiction]:
    for stage in ("language", "sft", "reward", "policy"):
        optimiser = getattr(getattr(recipe, stage), "optimiser", None)
        if optimiser is not None and optimiser.floor is not None and optimiser.decay == "constant":
            yield Contradiction(
                f"{stage}.optimiser.floor is where a falling learning rate ends, and decay constant does not fall: "
                "leave floor out, or set decay to linear or cosine",
                (f"{stage}.optimiser.floor", f"{stage}.optimiser.decay"),
            )


def _of_reward(reward: Reward) -> Iterator[Contradiction]:
    """Settings away from their defaults that nobody reads."""
    for name, beside, read in (
        ("combine", "members", reward.members > 1),
        ("caution", "combine", reward.combine == "lower"),
        ("look_every", "patience", reward.patience is not None),
    ):
        if not read and getattr(reward, name) != Reward.model_fields[name].default:
            yield Contradiction(
                f"reward.{name} is not read where reward.{beside} is {getattr(reward, beside)}: leave it out, or set "
                f"reward.{beside}",
                (f"reward.{name}", f"reward.{beside}"),
            )
    if reward.average and reward.patience is not None:
        yield Contradiction(
            "reward.average and reward.patience each say which weights are kept, a mean of the last or the best: "
            "leave one of them out",
            ("reward.average", "reward.patience"),
        )


def _of_qualities(reward: Reward, judgements: Sequence[Source]) -> Iterator[Contradiction]:
    for i, source in enumerate(judgements):
        if source.quality is not None and source.quality not in reward.qualities:
            heads = ", ".join(reward.qualities) or "nothing"
            yield Contradiction(
                f"data.judgements.{i}.quality is {source.quality!r}, for which there is no head: reward.qualities "
                f"names {heads}; give it a weight there, such as {{{source.quality}: 1}}, or leave it out",
                (f"data.judgements.{i}.quality", "reward.qualities"),
            )


def _of_choice(policy: Policy, evaluate: Evaluate) -> Iterator[Contradiction]:
    alike = evaluate.decoding != "sample" or not evaluate.sampling.temperature
    if parts_of(policy).update == "selection" and alike:
        yield Contradiction(
            f"policy.algorithm {policy.algorithm} chooses among different answers, and these are all alike: set "
            "evaluate.decoding to sample and evaluate.sampling.temperature above 0",
            ("policy.algorithm", "evaluate.decoding", "evaluate.sampling.temperature"),
        )


def _of_scorers(recipe: Recipe) -> Iterator[Contradiction]:
    own = [name for name, scorer in recipe.scorers.items() if scorer.kind == "model" and scorer.path is None]
    samples = recipe.policy is None or parts_of(recipe.policy).update != "judgements"
    if recipe.reward is None and not recipe.scorers and recipe.environment is None and samples:
        yield Contradiction(
            "policy needs a reward: give a reward section, or scorers, such as {mine: {kind: model, path: FOLDER}}",
            ("reward", "scorers", "environment"),
        )
    if recipe.reward is not None and recipe.scorers and not own:
        yield Contradiction(
            "reward trains a model that no scorer is: add {kind: model} to scorers, or take the reward section away",
            ("reward", "scorers"),
        )
    for name in own:
        if recipe.reward is None:
            yield Contradiction(
                f"scorers.{name} is the model that the reward stage trains, but there is no reward section: give one, "
                f"or set scorers.{name}.path to a trained one",
                ("reward", f"scorers.{name}"),
            )
    graded = recipe.reward is not None or any(scorer.kind == "model" for scorer in recipe.scorers.values())
    policy, read = recipe.policy, recipe.text.max_answer_tokens
    if policy is not None and samples and graded and policy.sampling.max_tokens > read:
        yield Contradiction(
            f"policy.sampling.max_tokens {policy.sampling.max_tokens} is more than the {read} of "
            "text.max_answer_tokens, behind which the reward model would not read on",
            ("policy.sampling.max_tokens", "text.max_answer_tokens"),
        )


def _of_environment(recipe: Recipe, environment: Playing) -> Iterator[Contradiction]:
    if recipe.policy is None:
        yield Contradiction("environment is for a policy: give a policy section", ("environment", "policy"))
        return
    if recipe.scorers or recipe.reward is not None:
        yield Contradiction(
            "environment gives the reward itself: leave scorers and reward out, or call a scorer from your function",
            ("environment", "scorers", "reward"),
        )
    why = {
        "soft": "whose values do not reach over a reply",
        "imitation": "which copies answers one by one",
        "judgements": "which samples nothing",
        "selection": "which chooses among single answers",
    }.get(parts_of(recipe.policy).update)
    if why is not None:
        yield Contradiction(
            f"environment plays episodes, and {recipe.policy.algorithm} is an algorithm {why}: take another",
            ("environment", "policy.algorithm"),
        )
    if recipe.evaluate.decoding == "beam":
        yield Contradiction(
            "evaluate.decoding beam finds one answer, not a conversation: set it to sample or greedy",
            ("environment", "evaluate.decoding"),
        )


def _of_own_files(recipe: Recipe) -> Iterator[Contradiction]:
    parts = None if recipe.policy is None else parts_of(recipe.policy)
    for stage, needs in (
        ("language", "documents"),
        ("sft", "demonstrations"),
        ("reward", "judgements"),
        ("policy", "judgements" if parts is not None and parts.update == "judgements" else "prompts"),
    ):
        if getattr(recipe, stage) is not None and not getattr(recipe.data, needs):
            yield Contradiction(f"{stage} needs data.{needs}", (f"data.{needs}", "world"))
    if parts is not None and recipe.policy is not None:
        for name, weight, needs in (
            ("pretraining", parts.pretraining, "documents"),
            ("supervised", recipe.policy.supervised, "demonstrations"),
        ):
            if weight and not getattr(recipe.data, needs):
                yield Contradiction(f"policy.{name} needs data.{needs}", (f"data.{needs}", f"policy.{name}", "world"))
    if recipe.reward is not None and recipe.reward.start == "sft" and recipe.sft is None:
        yield Contradiction(
            "reward.start is 'sft' but there is no sft section: set reward.start to 'model'",
            ("reward.start", "sft", "world"),
        )
    if recipe.collect is not None:
        yield Contradiction(
            "collect asks the annotators of a built-in world: set world, or give data.judgements", ("world",)
        )
    if recipe.model.path in MADE and recipe.language is None:
        yield Contradiction(
            f"model.path is {recipe.model.path!r}, a tiny model that the language stage makes from data.documents: set "
            "model.path to yours, or give a language section",
            ("model.path", "world", "language"),
        )


def _of_world(recipe: Recipe, world: World) -> Iterator[Contradiction]:
    for kind in ("documents", "demonstrations", "judgements", "prompts"):
        if getattr(recipe.data, kind):
            yield Contradiction(
                f"data.{kind} is not read where world is set, which has its own: give one of the two", (f"data.{kind}",)
            )
    collect, policy = recipe.collect, recipe.policy
    first = next((stage for stage in ("sft", "collect", "reward", "policy") if getattr(recipe, stage) is not None), "")
    if first and recipe.language is None and recipe.model.path in MADE:
        name = "the built-in model" if recipe.model.path == "builtin" else "an LSTM made from nothing"
        yield Contradiction(
            f"{first} starts from {name}, which the language stage trains: give a language section, or set "
            "model.path to a trained one, such as runs/demo/language",
            ("language", "model.path"),
        )
    by_judgements = policy is not None and parts_of(policy).update == "judgements"
    if (recipe.reward is not None or by_judgements) and collect is None:
        yield Contradiction(
            f"{'reward' if recipe.reward is not None else 'policy'} needs the judgements of the world's annotators: "
            "give a collect section",
            ("collect",),
        )
    if collect is not None and collect.prompts > world.prompts:
        yield Contradiction(
            f"collect.prompts {collect.prompts} is more than the {world.prompts} of world.prompts",
            ("collect.prompts", "world.prompts"),
        )
    if policy is not None and policy.prompts_per_round > world.prompts:
        yield Contradiction(
            f"policy.prompts_per_round {policy.prompts_per_round} is more than the {world.prompts} of world.prompts",
            ("policy.prompts_per_round", "world.prompts"),
        )


def load_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and apply `--set` changes to it.

    Raises:
        RecipeError: lists every unknown or wrong setting at once.
    """
    try:
        given = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: no such recipe; `plaudit init` writes one") from error
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read as a recipe: {error.strerror}") from error
    except _TwiceError as error:
        raise RecipeError(f"{path}: {error.problem}, again in line {error.line}: leave one of them out") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not a YAML file: {error}") from error
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise RecipeError(f"{path}: a recipe holds `setting: value` lines, found a {type(given).__name__}")
    return recipe_from(_expanded(override(given, changes), str(path)), where=str(path))


def read_yaml(text: str) -> Any:
    """What YAML says; a name that stands twice in one section is an error, where YAML's readers take the last.

    Raises:
        yaml.YAMLError: it is not YAML, or a name stands twice.
    """
    return yaml.load(text, Loader=_OnceLoader)


class _TwiceError(yaml.MarkedYAMLError):
    """A name that stands twice in one section."""

    def __init__(self, says: str, mark: Any) -> None:
        super().__init__(problem=says, problem_mark=mark)
        self.line: int = mark.line + 1


class _OnceLoader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A section, whose names must differ."""
        lines: dict[str, int] = {}
        for name, mark in ((key.value, key.start_mark) for key, _ in node.value if isinstance(key.value, str)):
            if name in lines:
                raise _TwiceError(f"{name} stands there twice, first in line {lines[name]}", mark)
            lines[name] = mark.line + 1
        return super().construct_mapping(node, deep)


_PATHS = {"path", "tokenizer", "start", "url"}


def _expanded(given: dict[str, Any], where: str) -> dict[str, Any]:
    """The recipe with `$NAME` and `${NAME}` in its paths replaced by what the environment says."""
    missing: set[str] = set()

    def value_of(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name not in os.environ:
            missing.add(name)
        return os.environ.get(name, "")

    def walk(value: Any, name: str) -> Any:
        if isinstance(value, dict):
            return {key: walk(inner, str(key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [walk(inner, name) for inner in value]
        if name in _PATHS and isinstance(value, str):
            return re.sub(r"\$(?:(\w+)|\{(\w+)\})", value_of, value)
        return value

    expanded: dict[str, Any] = walk(given, "")
    if missing:
        names = ", ".join(sorted(missing))
        raise RecipeError(f"{where}: its paths name {names}, which the environment does not hold")
    return expanded


def override(given: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """`given` with changes such as `policy.kl.beta=0.05` made; values are read as YAML."""
    result: dict[str, Any] = yaml.safe_load(yaml.safe_dump(dict(given), sort_keys=False))
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals or not name:
            raise RecipeError(f"--set takes name=value, such as policy.kl.beta=0.05; found {change!r}")
        place = result
        *sections, last = name.split(".")
        for section in sections:
            inner = place.get(section)
            place[section] = inner if isinstance(inner, dict) else {}
            place = place[section]
        try:
            place[last] = read_yaml(value)
        except yaml.YAMLError as error:
            raise RecipeError(f"--set {change}: the value is not YAML: {error}") from error
    return result


def recipe_from(given: Mapping[str, Any], *, where: str = "recipe") -> Recipe:
    """A validated recipe from plain values.

    Raises:
        RecipeError: lists every problem at once; an unknown name comes with the nearest known one.
    """
    try:
        return Recipe.model_validate(given)
    except ValidationError as error:
        problems = [_problem(found["loc"], found["type"], found["msg"], found["input"]) for found in error.errors()]
        problems += _beside(given, [found["loc"] for found in error.errors()])
        raise RecipeError(f"{where}: " + "; ".join(problems)) from error


def _beside(given: Mapping[str, Any], wrong: Sequence[tuple[int | str, ...]]) -> list[str]:
    """The contradictions among the settings that are right, none that a wrong one may have caused."""
    if () in wrong:
        return []
    found: list[Contradiction] = []
    try:
        Recipe.model_validate(_without(given, wrong), context=found)
    except ValidationError:
        return []
    names = [".".join(map(str, _written(place))) for place in wrong]
    names += [near for place in wrong if (near := _nearest(place))]  # what an unknown name was meant to be
    return [one.says for one in found if not any(_overlap(name, about) for name in names for about in one.about)]


def _without(given: Mapping[str, Any], places: Sequence[tuple[int | str, ...]]) -> dict[str, Any]:
    """A copy without what stands at these places; a list goes whole."""
    rest: dict[str, Any] = copy.deepcopy(dict(given))
    for place in places:
        inner = rest
        names = [str(part) for part in _written(place)]
        for name, after in itertools.zip_longest(names, names[1:]):
            value = inner.get(name)
            if not isinstance(value, dict) or after not in value:
                inner.pop(name, None)
                break
            inner = value
    return rest


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


def _written(place: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Where a setting stands in the file; pydantic also names the kind of a scorer, behind its name."""
    return (*place[:2], *place[3:]) if place[:1] == ("scorers",) else place


def _problem(place: tuple[int | str, ...], kind: str, message: str, value: object) -> str:
    name = ".".join(str(part) for part in _written(place))
    if kind.startswith("union_tag"):
        given = value.get("kind") if isinstance(value, Mapping) else None
        near = next(iter(difflib.get_close_matches(str(given), KINDS, n=1)), "")
        return f"{name}.kind: one of {', '.join(KINDS)}, found {given!r:.80}{_hint(near)}"
    if kind == "extra_forbidden":
        return f"unknown setting {name}{_hint(_nearest(place))}"
    if kind == "tuple_type":
        sources = name.startswith("data.") and name.count(".") == 1
        example = f", such as [{{path: {value}}}]" if sources and isinstance(value, str) else ", such as [a, b]"
        return f"{name}: needs a list{example}, found {value!r:.80}"
    if kind in ("int_parsing", "float_parsing"):
        return f"{name}: needs a {'whole ' if kind.startswith('int') else ''}number, found {value!r:.80}"
    if kind == "model_type":
        return f"{name}: needs settings of its own, `setting: value`, found {value!r:.80}"
    if kind == "value_error":
        return (f"{name}: " if name else "") + message.removeprefix("Value error, ")
    return f"{name}: {message[:1].lower()}{message[1:]}, found {value!r:.80}"


def _hint(near: str) -> str:
    return f" (did you mean {near}?)" if near else ""


def _nearest(place: tuple[int | str, ...]) -> str:
    """The known setting that an unknown name was probably meant to be, or nothing."""
    name = ".".join(str(part) for part in _written(place))
    if place[:1] == ("scorers",) and len(place) > 3:
        here = [f"scorers.{place[1]}.{setting}" for setting in KINDS[str(place[2])].model_fields]
        return next(iter(difflib.get_close_matches(name, here, n=1, cutoff=0.5)), "")
    if place[:1] == ("data",) and len(place) == 4:
        known = [".".join(map(str, (*place[:3], setting))) for setting in Source.model_fields]
        return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.5)), "")
    known = [setting for setting, _, _ in settings(Recipe)]
    known += sorted({setting.rsplit(".", 1)[0] for setting in known if "." in setting})
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    near = near or [full for full in known if full.rsplit(".", 1)[-1] == str(place[-1])]
    return near[0] if near else ""


def settings(section: type[Section], prefix: str = "", at: Section | None = None) -> Iterator[tuple[str, Any, str]]:
    """Every setting below a section: its full name, its default, and what it means.

    Args:
        section: the kind of section.
        prefix: what comes before each name.
        at: a section that holds the defaults, where they differ from the kind's own.
    """
    for name, field in section.model_fields.items():
        if at is not None:
            default = getattr(at, name)
        else:
            default = None if field.is_required() else field.get_default(call_default_factory=True)
        inner = _section_of(field.annotation)
        if inner is not None:
            yield from settings(inner, f"{prefix}{name}.", default)
        else:
            yield f"{prefix}{name}", default, " ".join((field.description or "").split())


def _section_of(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    if get_origin(annotation) in (Union, UnionType):
        for option in get_args(annotation):
            found = _section_of(option)
            if found is not None:
                return found
    return None
