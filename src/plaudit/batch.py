"""Prompts and their answers as tensors, packed into one row without a single padding token.

    token_N:  [prompt 0 | its answers, one after the other | prompt 1 | its answers | ...]

A prompt stands there once, however many answers it has: the forward pass of `plaudit.models.packed` lets each
answer see its prompt and itself. Everything about an answer is `[B, T]` (answers by tokens, padded on the
right) or `[B]`, in the order of the answers in the row.

Shape letters:  B answers   P prompts   T tokens of the longest answer   N tokens of the whole row   V vocabulary
                M answer tokens, without padding   K entries of a support
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from plaudit.errors import ShapeError

__all__ = ["Batch", "Loss", "LossSum", "Needs", "Outputs", "Support", "TokenTree", "alike", "pack", "select", "split"]


_OUTSIDE = -1e30
"""Logit of a token that could not have come: finite, so that 0 log 0 is 0 in every entropy and divergence."""


@dataclass(frozen=True, slots=True)
class Support:
    """Which tokens could have come at each answer token, where sampling left some out (top-p).

    Log-probabilities of such answers are taken on it, whoever says them: the policy that sampled, the policy that
    learns, the reference. What is tuned is then the policy that is drawn from, all ratios are 1 before the first step,
    and KL to the reference is 0 where the policy starts (and again where one token is left). Taken over all tokens
    instead, ratios begin at the mass of the nucleus: https://github.com/huggingface/trl/issues/6789. DeepSeek-AI 2025,
    section 3.1 ("Keep Sampling Mask"), https://arxiv.org/abs/2512.02556, for the two policies; the reference is limited
    here as well.
    """

    token_K: Tensor
    """int64 [K] the tokens, answer token after answer token."""
    count_M: Tensor
    """int64 [M] how many there are for each."""

    @classmethod
    def of(cls, tokens: Sequence[Sequence[int]]) -> Support:
        """From the tokens that could have come at each answer token, answer after answer."""
        return cls(
            torch.tensor([token for own in tokens for token in own], dtype=torch.int64),
            torch.tensor([len(own) for own in tokens], dtype=torch.int64),
        )

    def limit(self, logits_MV: Tensor) -> Tensor:
        """[M, V] the logits, so low for tokens outside that their probability is exactly 0."""
        row_K = torch.arange(len(self.count_M), device=self.count_M.device).repeat_interleave(self.count_M)
        outside_MV = torch.ones_like(logits_MV, dtype=torch.bool)
        outside_MV[row_K, self.token_K] = False
        return logits_MV.masked_fill(outside_MV, _OUTSIDE)

    def select(self, kept_M: Tensor) -> Support:
        """Of some of the answer tokens: bool [M]."""
        return Support(self.token_K[kept_M.repeat_interleave(self.count_M)], self.count_M[kept_M])

    def split(self, size: int) -> list[Support]:
        """Pieces for `size` answer tokens each."""
        counts = self.count_M.split(size)
        tokens = self.token_K.split([int(count_M.sum()) for count_M in counts])
        return [Support(token_K, count_M) for token_K, count_M in zip(tokens, counts, strict=True)]

    def to(self, device: torch.device) -> Support:
        """The same on a device."""
        return Support(self.token_K.to(device), self.count_M.to(device))


@dataclass(frozen=True, kw_only=True)
class TokenTree:
    """Prompts with their answers in one packed row; lengths, never token values, say where each one is."""

    token_N: Tensor
    """int64 [N]."""
    prompt_lengths: tuple[int, ...]
    """Tokens of each of the P prompts; at least 1."""
    answer_lengths: tuple[tuple[int, ...], ...]
    """Tokens of each answer, prompt by prompt; 0 is legal."""
    names: tuple[str, ...]
    """Each prompt's id, for messages."""
    support: Support | None = None
    """Which tokens could have come at each of the answers' tokens; None: every one."""

    @property
    def prompts(self) -> int:
        """How many prompts (P)."""
        return len(self.prompt_lengths)

    @property
    def answers(self) -> int:
        """How many answers (B)."""
        return sum(len(lengths) for lengths in self.answer_lengths)

    @property
    def tokens(self) -> int:
        """How many answer tokens: those a loss is about."""
        return sum(sum(lengths) for lengths in self.answer_lengths)

    @property
    def lengths(self) -> list[int]:
        """Length of each of the B answers."""
        return [length for lengths in self.answer_lengths for length in lengths]

    def prompt_of_answers(self) -> list[int]:
        """Index of the prompt of each of the B answers."""
        return [p for p, lengths in enumerate(self.answer_lengths) for _ in lengths]

    def prompt_starts(self) -> list[int]:
        """Where each prompt begins in the row."""
        starts, here = [], 0
        for prompt, answers in zip(self.prompt_lengths, self.answer_lengths, strict=True):
            starts.append(here)
            here += prompt + sum(answers)
        return starts

    def answer_starts(self) -> list[int]:
        """Where each of the B answers begins in the row."""
        starts = []
        for start, prompt, answers in zip(self.prompt_starts(), self.prompt_lengths, self.answer_lengths, strict=True):
            here = start + prompt
            for length in answers:
                starts.append(here)
                here += length
        return starts

    @cached_property
    def mask_BT(self) -> Tensor:
        """bool [B, T]: which places hold an answer token."""
        length_B = self._index(self.lengths)
        return torch.arange(max(self.lengths, default=0), device=self.token_N.device) < length_B[:, None]

    @cached_property
    def token_BT(self) -> Tensor:
        """int64 [B, T]: the answers' tokens, 0 after their end."""
        mask_BT = self.mask_BT
        start_B = self._index(self.answer_starts())
        place_BT = start_B[:, None] + torch.arange(mask_BT.shape[1], device=mask_BT.device)
        return self.token_N[place_BT.masked_fill(~mask_BT, 0)].masked_fill(~mask_BT, 0)

    def source_BT(self) -> Tensor:
        """int64 [B, T]: place in the row whose logits predict each answer token (0 after the answer's end).

        The first token of an answer is predicted by the last token of its prompt, the others by the token before.
        """
        mask_BT = self.mask_BT
        start_B = self._index(self.answer_starts())
        source_BT = start_B[:, None] - 1 + torch.arange(mask_BT.shape[1], device=mask_BT.device)
        if source_BT.shape[1]:
            source_BT[:, 0] = self._prompt_ends()
        return source_BT.masked_fill(~mask_BT, 0)

    def last_B(self) -> Tensor:
        """int64 [B]: place of each answer's last token; of its prompt's last where the answer is empty."""
        start_B, length_B = self._index(self.answer_starts()), self._index(self.lengths)
        return torch.where(length_B > 0, start_B + length_B - 1, self._prompt_ends())

    def position_N(self) -> Tensor:
        """int64 [N]: place of each token in its own text; every answer counts on from its prompt."""
        pieces = []
        for prompt, answers in zip(self.prompt_lengths, self.answer_lengths, strict=True):
            pieces.append(torch.arange(prompt))
            pieces.extend(torch.arange(prompt, prompt + length) for length in answers)
        return torch.cat(pieces).to(self.token_N.device)

    def rows(self) -> tuple[Tensor, Tensor]:
        """int64 [B, T], bool [B, T]: each answer behind a copy of its prompt, as places in the row; which are answer.

        -1 is padding, on the right.
        """
        starts, answer_starts, lengths = self.prompt_starts(), self.answer_starts(), self.lengths
        places, answers = [], []
        for b, p in enumerate(self.prompt_of_answers()):
            prompt = torch.arange(starts[p], starts[p] + self.prompt_lengths[p])
            places.append(torch.cat([prompt, torch.arange(answer_starts[b], answer_starts[b] + lengths[b])]))
            answers.append(torch.arange(len(places[-1])) >= len(prompt))
        place_BT = torch.nn.utils.rnn.pad_sequence(places, batch_first=True, padding_value=-1)
        answer_BT = torch.nn.utils.rnn.pad_sequence(answers, batch_first=True, padding_value=False)
        return place_BT.to(self.token_N.device), answer_BT.to(self.token_N.device)

    def to(self, device: torch.device) -> TokenTree:
        """The same tree on a device."""
        support = None if self.support is None else self.support.to(device)
        return dataclasses.replace(self, token_N=self.token_N.to(device), support=support)

    def logps_BTV(self, logits_BTV: Tensor) -> Tensor:
        """[B, T, V] log-softmax of the logits before each answer token, over the tokens that could have come."""
        if self.support is not None:
            mask_BT = self.mask_BT
            logits_BTV = logits_BTV.index_put((mask_BT,), self.support.limit(logits_BTV[mask_BT]))
        return logits_BTV.log_softmax(-1)

    def _prompt_ends(self) -> Tensor:
        ends = [start + length - 1 for start, length in zip(self.prompt_starts(), self.prompt_lengths, strict=True)]
        return self._index([ends[p] for p in self.prompt_of_answers()])

    def _index(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self.token_N.device)


def pack(
    texts: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]],
    names: Sequence[str] | None = None,
    *,
    support: Support | None = None,
) -> TokenTree:
    """Put prompts and their answers, as token ids, into one row.

    Args:
        texts: for each prompt its tokens (at least one) and the tokens of each of its answers.
        names: a name for each prompt, used in error messages; their numbers when not given.
        support: which tokens could have come at each of the answers' tokens; every one when not given.

    Raises:
        ShapeError: a prompt has no token, or there is no prompt.
    """
    if not texts:
        raise ShapeError("a batch needs at least one prompt, found none")
    names = [str(p) for p in range(len(texts))] if names is None else names
    row: list[int] = []
    for name, (prompt, answers) in zip(names, texts, strict=True):
        if not prompt:
            raise ShapeError(f"prompt {name} has no token; begin it with the tokenizer's start token")
        row.extend(prompt)
        for answer in answers:
            row.extend(answer)
    return TokenTree(
        token_N=torch.tensor(row, dtype=torch.int64),
        prompt_lengths=tuple(len(prompt) for prompt, _ in texts),
        answer_lengths=tuple(tuple(len(answer) for answer in answers) for _, answers in texts),
        names=tuple(names),
        support=support,
    )


def alike(sizes: Sequence[int], *, share: float = 0.7, least: int = 16) -> Iterator[list[int]]:
    """Numbers of the texts that are not empty, in groups whose shortest has that share of the longest's length.

    Args:
        least: texts up to this long make no more groups.
    """
    group: list[int] = []
    for text in sorted((i for i, size in enumerate(sizes) if size), key=lambda i: -sizes[i]):
        if group and max(sizes[text], least) < share * sizes[group[0]]:
            yield group
            group = []
        group.append(text)
    if group:
        yield group


class Batch(Protocol):
    """A frozen dataclass with a `tree` and tensors whose names end in `_BT`, `_BTV`, `_B` or `_P`: the law of suffixes.

    `select` and `split` read the suffixes, so a new kind of batch needs no code for them.
    """

    @property
    def tree(self) -> TokenTree:
        """The tokens that the batch is about."""
        ...


SomeBatch = TypeVar("SomeBatch", bound=Batch)


def select(batch: SomeBatch, rows: Sequence[int]) -> SomeBatch:
    """The batch with only these answers, in their old order; prompts left without one are dropped.

    Tensors named `_BT` are also cut to the longest answer that is left.

    Raises:
        ShapeError: no answer is left, or a tensor's suffix says nothing about answers or prompts.
    """
    tree = batch.tree
    kept = sorted(rows)
    if not kept:
        raise ShapeError(f"no answer is selected out of {tree.answers}: a batch needs one")
    prompt_of = tree.prompt_of_answers()
    starts, answer_starts, lengths = tree.prompt_starts(), tree.answer_starts(), tree.lengths
    prompts = sorted({prompt_of[row] for row in kept})
    pieces, answer_lengths = [], []
    of_prompt: dict[int, list[int]] = {p: [] for p in prompts}
    for row in kept:
        of_prompt[prompt_of[row]].append(row)
    for p in prompts:
        pieces.append(tree.token_N[starts[p] : starts[p] + tree.prompt_lengths[p]])
        pieces.extend(tree.token_N[answer_starts[b] : answer_starts[b] + lengths[b]] for b in of_prompt[p])
        answer_lengths.append(tuple(lengths[b] for b in of_prompt[p]))
    small = TokenTree(
        token_N=torch.cat(pieces),
        prompt_lengths=tuple(tree.prompt_lengths[p] for p in prompts),
        answer_lengths=tuple(answer_lengths),
        names=tuple(tree.names[p] for p in prompts),
        support=None if tree.support is None else tree.support.select(_tokens_of(tree, kept)),
    )
    longest = max(lengths[row] for row in kept)
    return dataclasses.replace(batch, tree=small, **_cut(batch, kept, prompts, longest))  # type: ignore[type-var]


def _tokens_of(tree: TokenTree, rows: Sequence[int]) -> Tensor:
    """bool [M]: which answer tokens are of these answers."""
    device = tree.token_N.device
    kept_B = torch.zeros(tree.answers, dtype=torch.bool, device=device)
    kept_B[list(rows)] = True
    return kept_B.repeat_interleave(torch.tensor(tree.lengths, device=device))


def _cut(batch: Batch, rows: Sequence[int], prompts: Sequence[int], longest: int) -> dict[str, Any]:
    cut: dict[str, Any] = {}
    for field in dataclasses.fields(batch):  # type: ignore[arg-type]
        value = getattr(batch, field.name)
        if not isinstance(value, Tensor):
            continue
        match field.name.rsplit("_", 1)[-1]:
            case "BT" | "BTV":
                cut[field.name] = value[list(rows), :longest]
            case "B":
                cut[field.name] = value[list(rows)]
            case "P":
                cut[field.name] = value[list(prompts)]
            case other:
                raise ShapeError(
                    f"{field.name}: no rule to select along {other!r}; end the name in _BT, _BTV, _B or _P"
                )
    return cut


def split(batch: SomeBatch, max_tokens: int) -> Iterator[SomeBatch]:
    """Cut a batch into pieces of at most `max_tokens` tokens each, never through one prompt's answers."""
    tree = batch.tree
    rows: list[int] = []
    size = first = 0
    for prompt, answers in zip(tree.prompt_lengths, tree.answer_lengths, strict=True):
        tokens = prompt + sum(answers)
        if rows and size + tokens > max_tokens:
            yield select(batch, rows)
            rows, size = [], 0
        rows.extend(range(first, first + len(answers)))
        size += tokens
        first += len(answers)
    if len(rows) == tree.answers:
        yield batch
    elif rows:
        yield select(batch, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a loss reads of the model; nothing else is computed."""

    logp: bool = False
    untempered: bool = False
    """Of the model as it is, whatever temperature the policy samples at."""
    entropy: bool = False
    distribution: bool = False
    value: bool = False
    auxiliary: bool = False
    q: bool = False
    slow_q: bool = False
    score: bool = False
    scales: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What the model says about a batch, in fp32; what was not asked for is None, and asking it is an error."""

    logp: Tensor | None = None
    entropy: Tensor | None = None
    distribution: Tensor | None = None
    value: Tensor | None = None
    auxiliary: Tensor | None = None
    q: Tensor | None = None
    slow_q: Tensor | None = None
    score: Tensor | None = None
    tie: Tensor | None = None
    cut: Tensor | None = None

    @property
    def logp_BT(self) -> Tensor:
        """[B, T] log-probability in nats of each answer token, 0 after the answer's end."""
        return _there(self.logp, "logp")

    @property
    def entropy_BT(self) -> Tensor:
        """[B, T] entropy in nats of the distribution that each token was drawn from, 0 after the end."""
        return _there(self.entropy, "entropy")

    @property
    def distribution_BTV(self) -> Tensor:
        """[B, T, V] log-probability in nats of every token that could have come; after the end, anything."""
        return _there(self.distribution, "distribution")

    @property
    def value_BT(self) -> Tensor:
        """[B, T] the critic's guess, before each token, of the return from there on; 0 after the end."""
        return _there(self.value, "value")

    @property
    def auxiliary_BT(self) -> Tensor:
        """[B, T] the guess, as `value_BT`, of the auxiliary head on the policy's own trunk; 0 after the end."""
        return _there(self.auxiliary, "auxiliary")

    @property
    def q_BTVQ(self) -> Tensor:
        """[B, T, V, 2] twin values of every token that could have come; after the end, anything."""
        return _there(self.q, "q")

    @property
    def slow_q_BTVQ(self) -> Tensor:
        """[B, T, V, 2] the same from the slow copies, without gradient."""
        return _there(self.slow_q, "slow_q")

    @property
    def score_B(self) -> Tensor:
        """[B] the head's score of each answer, read at its last token."""
        return _there(self.score, "score")

    @property
    def tie_parameter(self) -> Tensor:
        """Scalar: how frequent ties are between equal answers (`losses.davidson_loss`)."""
        return _there(self.tie, "tie")

    @property
    def cut_C(self) -> Tensor:
        """[C] the scores between grades, rising."""
        return _there(self.cut, "cut")


def _there(value: Tensor | None, name: str) -> Tensor:
    if value is None:
        raise ShapeError(f"the loss reads {name} but does not list it in its needs")
    return value


class LossSum(NamedTuple):
    """A sum and what to divide it by, so that any split of a batch gives the same mean."""

    total: Tensor
    denominator: float
    metrics: Mapping[str, tuple[Tensor | float, float]] = {}
    """Name -> (sum, count); the learner prints the mean over all micro-batches."""


class Loss(Protocol[SomeBatch]):  # type: ignore[misc]
    """A picklable function of the model's outputs on a batch."""

    @property
    def needs(self) -> Needs:
        """What to compute."""
        ...

    def __call__(self, outputs: Outputs, batch: SomeBatch) -> LossSum:
        """The sum over the batch, and its denominator."""
        ...
