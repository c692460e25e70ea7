"""Nearness in meaning to a reference or to the prompt, by a text encoder such as MiniLM.

Shape letters:  B texts   T tokens   D hidden size
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModel

from plaudit.models.load import Machine
from plaudit.records import Group, Prompt
from plaudit.scorers.pretrained import Reader, load_reader
from plaudit.scorers.seam import Scores, arranged, pairs, reference_of

__all__ = ["SimilarityScorer", "load_encoder", "mean_over_tokens"]


def mean_over_tokens(state_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """[B, D] the mean of each text's states over its own tokens; what pads is selected away, never multiplied."""
    return state_BTD.masked_fill(~mask_BT[..., None], 0.0).sum(1) / mask_BT.sum(1, keepdim=True)


def load_encoder(path: str, machine: Machine, *, max_tokens: int = 256, micro_tokens: int = 8192) -> Reader:
    """A text encoder from its Transformers folder or by name.

    Raises:
        ModelError: there is none.
    """
    return load_reader(AutoModel, path, machine, max_tokens=max_tokens, micro_tokens=micro_tokens, spare=("pooler",))


class SimilarityScorer:
    """Scores answers by the cosine of their embedding and that of the reference, or of the prompt: -1 to 1.

    A text's embedding is the mean of the encoder's last states over its tokens, of an encoder that was trained so that
    near means alike: Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084. The cosine of two *token* vectors,
    such as the two texts' last ones, is not that: it compares two positions, not two texts; and the states of a
    model that was not trained for it lie in a narrow cone, so that any two of them look alike (Ethayarajh 2019,
    https://arxiv.org/abs/1909.00512).

    Args:
        reader: the encoder.
        to: what an answer should be near to.
        pooling: the `mean` over a text's tokens; or the `first`, right only for an encoder that was trained that way.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        to: Literal["reference", "prompt"] = "reference",
        pooling: Literal["mean", "first"] = "mean",
    ) -> None:
        self.reader = reader
        self.to = to
        self.pooling = pooling

    def score(self, groups: Sequence[Group]) -> Scores:
        """The cosines. A text without tokens is like nothing: 0.

        Raises:
            RecordError: a prompt has no reference; names it.
        """
        wanted = [self._target(group.prompt) for group in groups]
        answers = [answer.text for _, answer in pairs(groups)]
        place = {text: n for n, text in enumerate(dict.fromkeys([*wanted, *answers]))}  # each text is read once
        unit_BD = self.embed(list(place))
        of_answer = [place[target] for target, group in zip(wanted, groups, strict=True) for _ in group.answers]
        cosine_B = (unit_BD[[place[text] for text in answers]] * unit_BD[of_answer]).sum(-1)
        return Scores(value_PG=arranged(cosine_B.tolist(), groups))

    def embed(self, texts: Sequence[str]) -> Tensor:
        """[B, D] embeddings of length 1, in fp32, on the CPU; zeros for a text without tokens."""
        unit_BD = torch.zeros(len(texts), int(self.reader.model.config.get_text_config().hidden_size))
        for places, output, mask_BT in self.reader.outputs(texts):
            state_BTD = output.last_hidden_state.float()
            pooled_BD = mean_over_tokens(state_BTD, mask_BT) if self.pooling == "mean" else state_BTD[:, 0]
            unit_BD[places] = F.normalize(pooled_BD, dim=-1).cpu()
        return unit_BD

    def _target(self, prompt: Prompt) -> str:
        return prompt.plain() if self.to == "prompt" else reference_of(prompt)
