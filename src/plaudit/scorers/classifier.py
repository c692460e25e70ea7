"""How sure a text classifier, such as one of sentiment, is of one class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from transformers import AutoModelForSequenceClassification

from plaudit.errors import ModelError
from plaudit.models.load import Machine
from plaudit.records import Answer, Group, Prompt
from plaudit.scorers.pretrained import Reader, load_reader
from plaudit.scorers.seam import Scores, arranged, pairs

__all__ = ["ClassifierScorer", "index_of", "load_classifier"]


def index_of(label: int | str, names: Sequence[str], path: str) -> int:
    """The place of a class.

    Args:
        label: its name, in upper or lower case, or its number from 0.
        names: of all classes, in order.
        path: the classifier, for the error.

    Raises:
        ModelError: there is no such class; lists those that there are.
    """
    known = [name.lower() for name in names]
    if isinstance(label, int) and 0 <= label < len(names):
        return label
    if isinstance(label, str) and known.count(label.lower()) == 1:
        return known.index(label.lower())
    listed = ", ".join(f"{number} {name}" for number, name in enumerate(names))
    raise ModelError(f"{path!r} has no class {label!r}; its classes are {listed}")


def load_classifier(path: str, machine: Machine, *, max_tokens: int = 512, micro_tokens: int = 8192) -> Reader:
    """A sequence classifier from its Transformers folder or by name.

    Raises:
        ModelError: there is none.
    """
    auto = AutoModelForSequenceClassification
    return load_reader(auto, path, machine, max_tokens=max_tokens, micro_tokens=micro_tokens)


class ClassifierScorer:
    """Scores answers by one class of a sequence classifier.

    Args:
        reader: the classifier.
        label: the class, by name or number.
        gives: its raw logit, or its log-probability among all classes, in nats.
        reads: the answer alone, or behind its prompt as one text.

    Raises:
        ModelError: there is no such class; or it is the only one, whose probability says nothing.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        label: int | str,
        gives: Literal["logit", "log_probability"] = "logit",
        reads: Literal["answer", "prompt_and_answer"] = "answer",
    ) -> None:
        config = reader.model.config
        self.reader = reader
        self.index = index_of(label, [str(config.id2label[n]) for n in range(config.num_labels)], reader.path)
        self.gives = gives
        self.reads = reads
        if reads == "prompt_and_answer":  # of a text that is too long, its end is read
            reader.tokenizer.truncation_side = "left"
        if gives == "log_probability" and config.num_labels == 1:
            raise ModelError(f"{reader.path!r} has one class, whose probability is always 1: take its logit")

    def score(self, groups: Sequence[Group]) -> Scores:
        """The class's logit or log-probability for each answer.

        Raises:
            ModelError: a text has no tokens, so there is nothing to classify.
        """
        asked = pairs(groups)
        value_B = [float("nan")] * len(asked)
        for places, output, _ in self.reader.outputs([self._text(prompt, answer) for prompt, answer in asked]):
            logit_BL = output.logits.float()
            found_BL = logit_BL.log_softmax(-1) if self.gives == "log_probability" else logit_BL
            for place, value in zip(places, found_BL[:, self.index].tolist(), strict=True):
                value_B[place] = value
        return Scores(value_PG=arranged(value_B, groups))

    def _text(self, prompt: Prompt, answer: Answer) -> str:
        return answer.text if self.reads == "answer" else prompt.plain() + answer.text
