"""A trained reward model as a scorer, with the tokenizer it was trained with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from plaudit.batch import Needs, pack
from plaudit.models.load import Machine, context_of, load_reward, load_tokenizer
from plaudit.models.network import RewardNetwork
from plaudit.recipe import Text
from plaudit.records import Ended, Group, Prompt
from plaudit.scorers.seam import Scores
from plaudit.text import Words
from plaudit.training.learner import forward
from plaudit.training.objectives import TextBatch

__all__ = ["ModelScorer"]


class ModelScorer:
    """Scores answers with a reward network: `gain * raw score + bias`.

    It takes words, not the policy's tokens: prompt and answer are tokenised as they were in its training.

    Args:
        network: the reward model.
        words: its own tokenizer.
        machine: device and precision.
        gain: multiplies the raw score.
        bias: is added to it.
        micro_tokens: tokens in one forward pass.
    """

    def __init__(
        self,
        network: RewardNetwork,
        words: Words,
        machine: Machine,
        *,
        gain: float = 1.0,
        bias: float = 0.0,
        micro_tokens: int = 8192,
    ) -> None:
        self.network = network
        self.words = words
        self.machine = machine
        self.gain = gain
        self.bias = bias
        self.micro_tokens = micro_tokens

    @classmethod
    def from_folder(cls, folder: Path | str, machine: Machine, text: Text, *, micro_tokens: int = 8192) -> ModelScorer:
        """A reward model from its Transformers folder.

        Raises:
            ModelError: there is none, or its head was never trained.
        """
        model, gain, bias = load_reward(str(folder), machine)
        words = Words(load_tokenizer(str(folder)), text, context=context_of(model.config))
        return cls(RewardNetwork(model), words, machine, gain=gain, bias=bias, micro_tokens=micro_tokens)

    def score(self, groups: Sequence[Group]) -> Scores:
        """The reward of each answer. An answer that was cut is read without an end token."""
        values = iter(
            self.score_texts([(g.prompt, [(a.text, a.ended is Ended.STOPPED) for a in g.answers]) for g in groups])
        )
        return Scores(value_PG=tuple(tuple(next(values) for _ in group.answers) for group in groups))

    def score_texts(self, texts: Sequence[tuple[Prompt, Sequence[tuple[str, bool]]]]) -> list[float]:
        """Rewards of answers given as words, each with whether it ended by itself; prompt by prompt."""
        if not texts:
            return []
        packed: list[tuple[Sequence[int], Sequence[Sequence[int]]]] = []
        for prompt, answers in texts:
            context = self.words.prompt_ids(prompt)
            packed.append((context, [self.words.answer_ids(a, context_ids=context, ended=done) for a, done in answers]))
        batch = TextBatch(tree=pack(packed, names=[prompt.id for prompt, _ in texts]))
        outputs = forward(self.network, batch, Needs(score=True), machine=self.machine, micro_tokens=self.micro_tokens)
        return [self.gain * raw + self.bias for raw in outputs.score_B.tolist()]
