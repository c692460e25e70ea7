"""The settings of scorers: what else than the reward model of the run can grade answers, and how grades add up.

A recipe names its scorers, and their sum is the reward:

    reward of an answer = sum over scorers of weight * clip(score)

Each kind is a section of its own, so that it takes the settings that it reads and no others.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from plaudit.section import Section

__all__ = [
    "KINDS",
    "ByBleu",
    "ByChrf",
    "ByClassifier",
    "ByFunction",
    "ByHttp",
    "ByLength",
    "ByModel",
    "ByRepetition",
    "ByRouge",
    "BySimilarity",
    "Scoring",
    "ScoringBy",
]


class ScoringBy(Section):
    """How a score counts in the sum."""

    weight: float = 1.0
    """The score is multiplied by it before scores are added up; below 0 it is a penalty."""
    clip: tuple[float, float] | None = None
    """Lowest and highest score that counts, such as [0, 1], before the weight; nothing lets every score count."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.clip is not None and self.clip[0] >= self.clip[1]:
            raise ValueError(f"clip takes the lowest score and then the highest, found {list(self.clip)}")
        return self

    def reads_reference(self) -> bool:
        """Whether it needs the prompt's reference."""
        return False


class ByModel(ScoringBy):
    """A trained reward model."""

    kind: Literal["model"]
    path: str | None = None
    """Its folder or that of its run, by whose templates it reads; nothing means this run's reward stage trains it."""


class BySimilarity(ScoringBy):
    """Nearness in meaning, -1 to 1: the cosine of two texts' embeddings."""

    kind: Literal["similarity"]
    path: str
    """A text encoder, such as MiniLM: a Transformers folder or name."""
    to: Literal["reference", "prompt"] = "reference"
    """What the answer should be near to: `reference` or `prompt`."""
    pooling: Literal["mean", "first"] = "mean"
    """A text's embedding: the `mean` over its tokens, or the `first` one (for encoders trained that way)."""
    max_tokens: int = Field(default=256, ge=1)
    """Tokens of a text that are read; the rest is left out."""

    def reads_reference(self) -> bool:
        """Whether it needs the prompt's reference."""
        return self.to == "reference"


class ByClassifier(ScoringBy):
    """How sure a text classifier is of one class."""

    kind: Literal["classifier"]
    path: str
    """A sequence classifier, such as one of sentiment: a Transformers folder or name."""
    label: int | str
    """The class: its name in the classifier's config, or its number from 0."""
    gives: Literal["logit", "log_probability"] = "logit"
    """The class's raw `logit`, or its `log_probability` in nats, at most 0."""
    reads: Literal["answer", "prompt_and_answer"] = "answer"
    """What is classified: the `answer` alone, or `prompt_and_answer` as one text."""
    max_tokens: int = Field(default=512, ge=1)
    """Tokens of a text that are read; the rest is left out."""


class ByBleu(ScoringBy):
    """Sentence BLEU to the reference, 0 to 1."""

    kind: Literal["bleu"]
    tokenize: Literal["auto", "13a", "intl", "zh", "char"] = "auto"
    """Sacrebleu's tokenizer; `auto` is `zh` where the reference holds Chinese characters, else `13a`."""

    def reads_reference(self) -> bool:
        """Whether it needs the prompt's reference."""
        return True


class ByChrf(ScoringBy):
    """Sentence chrF to the reference, 0 to 1: F-score of character n-grams; fit for any language."""

    kind: Literal["chrf"]
    word_order: int = Field(default=0, ge=0, le=4)
    """Longest n-gram of words counted too; 2 is chrF++."""

    def reads_reference(self) -> bool:
        """Whether it needs the prompt's reference."""
        return True


class ByRouge(ScoringBy):
    """ROUGE F-score to the reference, 0 to 1; each Chinese character is a word."""

    kind: Literal["rouge"]
    measure: Literal["rouge1", "rouge2", "rougeL"] = "rougeL"
    """Shared words (`rouge1`), pairs of words (`rouge2`), or the longest common subsequence (`rougeL`)."""

    def reads_reference(self) -> bool:
        """Whether it needs the prompt's reference."""
        return True


class ByFunction(ScoringBy):
    """A Python function of your own."""

    kind: Literal["function"]
    path: str = Field(pattern=r".\.py:[A-Za-z_]\w*$")
    """`file.py:function`; it takes a prompt record and an answer's text, and returns a number, higher is better."""
    batch: bool = False
    """It takes a list of such pairs, and returns a list of numbers."""


class ByHttp(ScoringBy):
    """A service that answers a POST of JSON: `{"answers": [...]}` with `{"scores": [...]}`."""

    kind: Literal["http"]
    url: str = Field(pattern=r"^https?://")
    """Where it listens."""
    batch: int = Field(default=32, ge=1)
    """Answers in one request."""
    timeout: float = Field(default=30.0, gt=0)
    """Seconds until the whole reply is there."""
    retries: int = Field(default=3, ge=0)
    """Times a request is sent again after a timeout, a lost connection, or status 429 or 5xx."""
    backoff: float = Field(default=0.5, ge=0)
    """Seconds before the first time; they double with each further one."""
    concurrency: int = Field(default=4, ge=1)
    """Requests under way at once."""
    token_from: str | None = None
    """Environment variable with a token to send as `Authorization: Bearer`."""


class ByLength(ScoringBy):
    """Nearness to a length: 0 at the target, -1 at nothing and at twice the target."""

    kind: Literal["length"]
    target: int = Field(ge=1)
    """The length that costs nothing."""
    unit: Literal["tokens", "characters"] = "characters"
    """What is counted: the policy's `tokens`, or `characters`."""
    tolerance: int = Field(default=0, ge=0)
    """Units on either side that cost nothing either."""
    side: Literal["both", "over", "under"] = "both"
    """What costs: `both`, only `over` the target, or only `under` it."""


class ByRepetition(ScoringBy):
    """Minus the share of n-grams that were there before: 0 without any, toward -1 where all is repeated."""

    kind: Literal["repetition"]
    n: int = Field(default=3, ge=1)
    """Words in an n-gram; each Chinese character is a word."""


Scoring = Annotated[
    ByModel | BySimilarity | ByClassifier | ByBleu | ByChrf | ByRouge | ByFunction | ByHttp | ByLength | ByRepetition,
    Field(discriminator="kind"),
]
"""The settings of one scorer, of whatever kind."""

KINDS: dict[str, type[ScoringBy]] = {
    get_args(section.model_fields["kind"].annotation)[0]: section for section in get_args(get_args(Scoring)[0])
}
"""The section of each kind."""
