"""Several reward models as one scorer, which also says where they disagree.

What one reward model happens to overrate, another one that saw other judgements, or began elsewhere, often does not. So
a policy that climbs their mean, their minimum, or the mean less some of their standard deviation finds fewer errors to
exploit: Coste et al. 2023, https://arxiv.org/abs/2310.02743; Eisenstein et al. 2023, https://arxiv.org/abs/2312.09244.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from plaudit.errors import ModelError, RecipeError
from plaudit.models.load import Machine, check_reward_model, context_of, load_rewards, load_tokenizer
from plaudit.models.network import RewardNetwork
from plaudit.models.packed import bare
from plaudit.recipe import Text
from plaudit.records import Group, Prompt
from plaudit.runs import read_json, write_json
from plaudit.scorers.model import ModelScorer
from plaudit.scorers.seam import Scores, arranged
from plaudit.text import Words

__all__ = [
    "Combine",
    "EnsembleScorer",
    "RawEnsemble",
    "check_reward",
    "combined",
    "load_members",
    "load_scorer",
    "member_folders",
    "reward_folder",
    "save_ensemble",
]

Combine = Literal["mean", "minimum", "lower"]

ENSEMBLE = "ensemble.json"
"""In a folder of several reward models, what they are and how they are combined."""


def combined(scores: Sequence[float], how: Combine, caution: float = 1.0) -> float:
    """One number from the members' scores of one answer.

        mean       mean over the members
        minimum    the least of them
        lower      mean - caution * sd, with the standard deviation of the members themselves (dividing by M)

    Args:
        scores: at least one.
        how: see above.
        caution: standard deviations taken off, for `lower`.

    Raises:
        RecipeError: another `how`.
    """
    match how:
        case "mean":
            return statistics.fmean(scores)
        case "minimum":
            return min(scores)
        case "lower":
            return statistics.fmean(scores) - caution * statistics.pstdev(scores)
    raise RecipeError(f"an ensemble is combined by mean, minimum or lower, not by {how!r}")


class EnsembleScorer:
    """Scores answers with several reward models: `gain * combined + bias`.

    Args:
        members: at least one; each with its own tokenizer, gain and bias.
        combine: how, see `combined`.
        caution: for `lower`.
        gain: multiplies what they say together.
        bias: is added to it.
    """

    def __init__(
        self,
        members: Sequence[ModelScorer],
        *,
        combine: Combine = "mean",
        caution: float = 1.0,
        gain: float = 1.0,
        bias: float = 0.0,
    ) -> None:
        self.members = tuple(members)
        self.combine: Combine = combine
        self.caution = caution
        self.gain = gain
        self.bias = bias

    @property
    def words(self) -> Words:
        """The tokenizer of the first member."""
        return self.members[0].words

    @property
    def qualities(self) -> tuple[str, ...]:
        """What the members score apart."""
        return self.members[0].qualities

    def raw(self) -> RawEnsemble:
        """The members without gain and bias, to be tested; with the reward that they give together."""
        return RawEnsemble(self)

    def score(self, groups: Sequence[Group]) -> Scores:
        """The combined reward of each answer; the part `disagreement` is the members' standard deviation.

        Where the members score several qualities apart, the mean of what they say of each is a part, too.
        """
        said = [member.score(groups) for member in self.members]
        by_member = [one.flat() for one in said]
        shown = {name: _mean([one.parts[name] for one in said]) for name in said[0].parts}
        return Scores(
            value_PG=arranged(self.together(by_member), groups),
            parts=shown | {"disagreement": arranged(self.apart(by_member), groups)},
            members=tuple(one.value_PG for one in said),
            member_parts={name: tuple(one.parts[name] for one in said) for name in said[0].parts},
        )

    def score_texts(self, texts: Sequence[tuple[Prompt, Sequence[tuple[str, bool]]]]) -> list[float]:
        """Rewards of answers given as words, each with whether it ended by itself; prompt by prompt."""
        return self.together(self.members_say(texts))

    def members_say(self, texts: Sequence[tuple[Prompt, Sequence[tuple[str, bool]]]]) -> list[list[float]]:
        """Each member's rewards of answers given as words."""
        return [member.score_texts(texts) for member in self.members]

    def together(self, by_member: Sequence[Sequence[float]]) -> list[float]:
        """One reward of each answer from all members'."""
        found = (combined(said, self.combine, self.caution) for said in zip(*by_member, strict=True))
        return [self.gain * value + self.bias for value in found]

    def apart(self, by_member: Sequence[Sequence[float]]) -> list[float]:
        """How far apart the members are about each answer: their standard deviation, in units of the reward."""
        return [self.gain * statistics.pstdev(said) for said in zip(*by_member, strict=True)]


class RawEnsemble:
    """What several reward models are tested by: log-odds for each, and beside them the reward as it is used.

    Args:
        ensemble: the models, with all gains and biases.
    """

    def __init__(self, ensemble: EnsembleScorer) -> None:
        self.ensemble = ensemble

    @property
    def words(self) -> Words:
        """The tokenizer of the first member."""
        return self.ensemble.words

    def score(self, groups: Sequence[Group]) -> Scores:
        """The mean of what the members say, whose differences are log-odds; `used_PG` is the combined reward."""
        members = self.ensemble.members
        found = EnsembleScorer([member.raw() for member in members]).score(groups)
        said = [
            [member.gain * raw + member.bias for values in raw_PG for raw in values]
            for member, raw_PG in zip(members, found.members, strict=True)
        ]
        return replace(found, used_PG=arranged(self.ensemble.together(said), groups))


def _mean(said: Sequence[tuple[tuple[float, ...], ...]]) -> tuple[tuple[float, ...], ...]:
    """The members' mean for each answer."""
    return tuple(tuple(statistics.fmean(own) for own in zip(*rows, strict=True)) for rows in zip(*said, strict=True))


def save_ensemble(folder: Path, members: Sequence[str], **how: Any) -> None:
    """Note what the models in a folder are: their names, `combine`, `caution`, `reward_gain` and `reward_bias`."""
    write_json(folder / ENSEMBLE, {"members": list(members), **how})


def reward_folder(folder: Path | str) -> Path | str:
    """Where the reward model of a run is; any other folder or name is a model's itself."""
    inner = Path(folder) / "reward-model"
    return inner if inner.exists() else folder


def member_folders(folder: Path | str) -> list[Path | str]:
    """The reward models in a folder, a model's or a run's: itself, or its members. Any other name is a model's."""
    folder = reward_folder(folder)
    path = Path(folder)
    if not (path / ENSEMBLE).exists():
        return [folder]
    return [path / name for name in read_json(path / ENSEMBLE)["members"]]


def check_reward(folder: Path | str) -> None:
    """Refuse what is no trained reward model, nor several of them; their weights are not read.

    Raises:
        ModelError: says what is wrong.
    """
    members = member_folders(folder)
    if not members:
        raise ModelError(f"{folder}: its {ENSEMBLE} names no member")
    for member in members:
        check_reward_model(str(member))


def load_members(
    folders: Sequence[Path | str], machine: Machine, text: Text, *, micro_tokens: int = 8192
) -> list[ModelScorer]:
    """A scorer for each folder of a reward model; adapters of one trunk share it in memory.

    Raises:
        ModelError: there is none, or its head was never trained.
    """
    loaded = load_rewards([str(folder) for folder in folders], machine)
    shared = len(loaded) > 1 and loaded[0][0] is loaded[1][0]
    members = []
    for place, (folder, (model, gain, bias)) in enumerate(zip(folders, loaded, strict=True)):
        network = RewardNetwork(model, adapter=str(place) if shared else None)
        words = Words(load_tokenizer(str(folder)), text, context=context_of(bare(model).config))
        members.append(ModelScorer(network, words, machine, gain=gain, bias=bias, micro_tokens=micro_tokens))
    return members


def load_scorer(
    folder: Path | str, machine: Machine, text: Text, *, micro_tokens: int = 8192
) -> ModelScorer | EnsembleScorer:
    """A trained reward model, or several of them, from a folder.

    Raises:
        ModelError: there is none, or its head was never trained.
    """
    folder = reward_folder(folder)
    members = load_members(member_folders(folder), machine, text, micro_tokens=micro_tokens)
    if not (Path(folder) / ENSEMBLE).exists():
        return members[0]
    how = read_json(Path(folder) / ENSEMBLE)
    return EnsembleScorer(
        members, combine=how["combine"], caution=how["caution"], gain=how["reward_gain"], bias=how["reward_bias"]
    )
