"""Several reward models as one scorer, which also says where they disagree.

What one reward model happens to overrate, another one that saw other judgements, or began elsewhere, often does not. So
a policy that climbs their mean, their minimum, or the mean less some of their standard deviation finds fewer errors to
exploit: Coste et al. 2023, https://arxiv.org/abs/2310.02743; Eisenstein et al. 2023, https://arxiv.org/abs/2312.09244.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from plaudit.errors import ModelError, RecipeError
from plaudit.models.load import Machine, check_reward_model, context_of, load_rewards, load_tokenizer
from plaudit.models.network import RewardNetwork
from plaudit.models.packed import bare
from plaudit.recipe import Text
from plaudit.records import Ended, Group, Prompt
from plaudit.runs import read_json, write_json
from plaudit.scorers.model import ModelScorer
from plaudit.scorers.seam import Scores, arranged
from plaudit.text import Words

__all__ = [
    "Combine",
    "EnsembleScorer",
    "check_reward",
    "combined",
    "load_members",
    "load_scorer",
    "member_folders",
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

    def raw(self) -> EnsembleScorer:
        """The mean of what the members say without gain and bias: differences of it are log-odds."""
        return EnsembleScorer([member.raw() for member in self.members])

    def score(self, groups: Sequence[Group]) -> Scores:
        """The combined reward of each answer; the part `disagreement` is the members' standard deviation."""
        texts = [(g.prompt, [(a.text, a.ended is Ended.STOPPED) for a in g.answers]) for g in groups]
        by_member = self.members_say(texts)
        return Scores(
            value_PG=arranged(self.together(by_member), groups),
            parts={"disagreement": arranged(self.apart(by_member), groups)},
            members=tuple(arranged(one, groups) for one in by_member),
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


def save_ensemble(folder: Path, members: Sequence[str], **how: Any) -> None:
    """Note what the models in a folder are: their names, `combine`, `caution`, `reward_gain` and `reward_bias`."""
    write_json(folder / ENSEMBLE, {"members": list(members), **how})


def member_folders(folder: Path | str) -> list[Path | str]:
    """The reward models in a folder: itself, or its members. A name that is no folder is a model's."""
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
    members = load_members(member_folders(folder), machine, text, micro_tokens=micro_tokens)
    if not (Path(folder) / ENSEMBLE).exists():
        return members[0]
    how = read_json(Path(folder) / ENSEMBLE)
    return EnsembleScorer(
        members, combine=how["combine"], caution=how["caution"], gain=how["reward_gain"], bias=how["reward_bias"]
    )
