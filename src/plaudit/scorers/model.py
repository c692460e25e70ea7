"""A trained reward model as a scorer, with the tokenizer it was trained with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from plaudit.batch import Needs, pack
from plaudit.models.load import Machine, quality_weights
from plaudit.models.network import RewardNetwork
from plaudit.models.packed import bare
from plaudit.records import Ended, Group, Prompt
from plaudit.scorers.seam import Scores, arranged
from plaudit.text import Words
from plaudit.training.learner import forward
from plaudit.training.objectives import TextBatch

__all__ = ["ModelScorer"]


class ModelScorer:
    """Scores answers with a reward network: `gain * raw score + bias`.

    Where the network scores several qualities apart, the raw score is their weighted sum, and each is a part.

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
        self._weights = quality_weights(bare(network.model).config)

    @property
    def qualities(self) -> tuple[str, ...]:
        """What it scores apart, by name; nothing where there is one score without a name."""
        config = bare(self.network.model).config
        return tuple(config.id2label.values()) if getattr(config, "reward_weights", None) else ()

    def raw(self) -> ModelScorer:
        """The same without gain and bias: differences of its scores are what training took for log-odds."""
        return ModelScorer(self.network, self.words, self.machine, micro_tokens=self.micro_tokens)

    def score(self, groups: Sequence[Group]) -> Scores:
        """The reward of each answer. An answer that was cut is read without an end token."""
        texts = [(g.prompt, [(a.text, a.ended is Ended.STOPPED) for a in g.answers]) for g in groups]
        raw_BQ = self._raw(texts)
        parts = {name: raw_BQ[:, q].tolist() for q, name in enumerate(self.qualities)}
        return Scores(
            value_PG=arranged(self._rewards(raw_BQ), groups),
            parts={name: arranged(part, groups) for name, part in parts.items()},
        )

    def score_texts(self, texts: Sequence[tuple[Prompt, Sequence[tuple[str, bool]]]]) -> list[float]:
        """Rewards of answers given as words, each with whether it ended by itself; prompt by prompt."""
        return self._rewards(self._raw(texts))

    def _rewards(self, raw_BQ: Tensor) -> list[float]:
        # one quality keeps its bits
        raw_B = raw_BQ[:, 0] * self._weights[0] if len(self._weights) == 1 else raw_BQ @ torch.tensor(self._weights)
        return [self.gain * raw + self.bias for raw in raw_B.tolist()]

    def _raw(self, texts: Sequence[tuple[Prompt, Sequence[tuple[str, bool]]]]) -> Tensor:
        """[B, qualities] what the network says."""
        if not texts:
            return torch.zeros(0, len(self._weights))
        packed: list[tuple[Sequence[int], Sequence[Sequence[int]]]] = []
        for prompt, answers in texts:
            context = self.words.prompt_ids(prompt)
            packed.append((context, [self.words.answer_ids(a, context_ids=context, ended=done) for a, done in answers]))
        batch = TextBatch(tree=pack(packed, names=[prompt.id for prompt, _ in texts]))
        outputs = forward(self.network, batch, Needs(score=True), machine=self.machine, micro_tokens=self.micro_tokens)
        assert outputs.score is not None
        return outputs.score.reshape(len(outputs.score), -1).cpu()
