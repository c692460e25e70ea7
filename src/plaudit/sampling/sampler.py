"""The embedded sampler: batched decoding of a Transformers model, without padding and without waiting.

Prompts are read once, however many answers they get; what was read is kept (`plaudit.sampling.memory`). A finished
answer's place is taken by the last one in flight, so that every step computes live rows only, and waiting requests fill
the free places.

Shape letters:  S answers in flight   T tokens   V vocabulary
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from plaudit.errors import ModelError, NumberError, TextError
from plaudit.models.generation import generate
from plaudit.models.load import Machine
from plaudit.models.logprobs import logits_of
from plaudit.models.packed import choose_road
from plaudit.recipe import Sampling
from plaudit.records import Answer, Ended, Group
from plaudit.sampling.draw import draw, uniforms
from plaudit.sampling.memory import Memory, drop, memory_for
from plaudit.sampling.seam import Request
from plaudit.text import Words

__all__ = ["ModelSampler"]


@dataclass(slots=True)
class _Flight:
    """One answer being written."""

    request: int
    number: int
    name: str
    seed: int
    context: tuple[int, ...]
    budget: int
    uniform: Tensor
    tokens: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    support: list[tuple[int, ...]] | None = None


class ModelSampler:
    """Answers prompts with a Transformers causal language model in this process.

    Args:
        model: the model; shared with whoever trains it.
        words: its tokenizer and stop tokens.
        machine: device and precision.
        progress: called with the number of answers finished, each time some are.
    """

    def __init__(
        self, model: Any, words: Words, machine: Machine, *, progress: Callable[[int], None] | None = None
    ) -> None:
        self.model = model
        self.words = words
        self.machine = machine
        self.version = 0
        self._packed = choose_road(model)
        self._logits = logits_of(model)
        self._progress = progress or (lambda finished: None)

    def load(self, weights: Path | None, version: int) -> None:
        """Note the version: the weights are the learner's own.

        Raises:
            ModelError: there are weights to load.
        """
        if weights is not None:
            raise ModelError(f"the embedded sampler shares its model and loads no weights, found {weights}")
        self.version = version

    @torch.no_grad()
    def sample(self, requests: Sequence[Request], sampling: Sampling) -> list[Group]:
        """A group for each request, in order.

        Raises:
            TextError: a context leaves no room for an answer.
            NumberError: the model gave NaN or infinite logits.
        """
        training = self.model.training
        self.model.eval()
        done: dict[tuple[int, int], Answer] = {}
        try:
            with self.machine.computing():
                flights = list(self._flights(requests, sampling))
                decode = self._decode if self._packed else self._decode_slowly
                for flight, ended in decode(flights, sampling):
                    done[flight.request, flight.number] = self._answer(flight, ended)
        finally:
            self.model.train(training)
        return [
            Group(
                prompt=request.prompt,
                context_ids=request.context_ids,
                answers=tuple(done[r, number] for number in range(len(request.seeds))),
            )
            for r, request in enumerate(requests)
        ]

    def _flights(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[_Flight]:
        for r, request in enumerate(requests):
            budget = sampling.max_tokens
            if self.words.context is not None:
                budget = min(budget, self.words.context - len(request.context_ids))
            if budget < 1:
                raise TextError(
                    f"prompt {request.prompt.id} fills the model's context of {self.words.context} tokens: "
                    "there is no room for an answer"
                )
            for number, seed in enumerate(request.seeds):
                yield _Flight(
                    request=r,
                    number=number,
                    name=request.prompt.id,
                    seed=seed,
                    context=request.context_ids,
                    budget=budget,
                    uniform=uniforms(seed, budget),
                    support=[] if request.support and sampling.truncated else None,
                )

    def _answer(self, flight: _Flight, ended: Ended) -> Answer:
        return Answer(
            text=self.words.answer_text(flight.context, flight.tokens),
            token_ids=tuple(flight.tokens),
            logps=tuple(flight.logps),
            ended=ended,
            seed=flight.seed,
            support=None if flight.support is None else tuple(flight.support),
        )

    def _write(self, flights: Sequence[_Flight], logits_SV: Tensor, sampling: Sampling) -> list[Ended | None]:
        """Give each answer its next token; say which of them ended thereby."""
        uniform_S = torch.stack([flight.uniform[len(flight.tokens)] for flight in flights]).to(logits_SV.device)
        token_S, logp_S, support_SV = draw(logits_SV, uniform_S, temperature=sampling.temperature, top_p=sampling.top_p)
        if not bool(torch.isfinite(logp_S).all()):
            broken = next(f for f, good in zip(flights, torch.isfinite(logp_S).tolist(), strict=True) if not good)
            raise NumberError(
                f"the model's logits are not finite at token {len(broken.tokens)} of an answer to prompt "
                f"{broken.name}: its weights are broken"
            )
        if support_SV is not None:
            _keep_support(flights, support_SV)
        ended: list[Ended | None] = []
        for flight, token, logp in zip(flights, token_S.tolist(), logp_S.tolist(), strict=True):
            flight.tokens.append(token)
            flight.logps.append(logp)
            stopped, cut = token in self.words.stop_ids, len(flight.tokens) == flight.budget
            ended.append(Ended.STOPPED if stopped else Ended.CUT if cut else None)
        return ended

    def _decode(self, waiting: list[_Flight], sampling: Sampling) -> Iterator[tuple[_Flight, Ended]]:
        places = min(sampling.batch, len(waiting))
        longest = max((len(flight.context) + flight.budget for flight in waiting), default=0)
        memory = memory_for(self.model, places, longest)
        queue = list(reversed(waiting))
        live: list[_Flight] = []
        while queue or live:
            if queue and places - len(live) >= max(1, places // 4):
                entering = [queue.pop() for _ in range(min(places - len(live), len(queue)))]
                logits_SV = self._read(memory, entering, first=len(live))
                live += entering
                fresh = slice(len(live) - len(entering), len(live))
            else:
                token_S = torch.tensor([flight.tokens[-1] for flight in live], device=self.machine.device)
                length_S = torch.tensor([len(f.context) + len(f.tokens) - 1 for f in live], device=self.machine.device)
                logits_SV = self._logits(memory.read_on(token_S, length_S))
                fresh = slice(0, len(live))
            ends = self._write(live[fresh], logits_SV, sampling)
            finished = [fresh.start + i for i, ended in enumerate(ends) if ended is not None]
            for place in finished:
                ended = ends[place - fresh.start]
                assert ended is not None
                yield live[place], ended
            memory.drop(finished, len(live))
            drop(live, finished)
            if finished:
                self._progress(len(finished))

    def _read(self, memory: Memory, entering: Sequence[_Flight], first: int) -> Tensor:
        """Run the contexts of the entering answers, each once; returns the logits [S, V] of their first tokens."""
        places: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for offset, flight in enumerate(entering):
            places[flight.context].append(first + offset)
        logits = self._logits(memory.read(list(places.items())))
        order = {context: i for i, context in enumerate(places)}
        return logits[[order[flight.context] for flight in entering]]

    def _decode_slowly(self, waiting: list[_Flight], sampling: Sampling) -> Iterator[tuple[_Flight, Ended]]:
        """For models that cannot be packed: Transformers' own loop over contexts of one length, with our draws."""
        by_length: dict[tuple[int, int], list[_Flight]] = defaultdict(list)
        for flight in waiting:
            by_length[len(flight.context), flight.budget].append(flight)
        for (_, budget), alike in by_length.items():
            for start in range(0, len(alike), sampling.batch):
                flights = alike[start : start + sampling.batch]
                dictate = _Dictate(partial(self._write, sampling=sampling), flights)
                context = torch.tensor([flight.context for flight in flights], device=self.machine.device)
                generate(self.model, context, max_tokens=budget, stop_ids=self.words.stop_ids, processors=[dictate])
                yield from zip(flights, dictate.ends, strict=True)
                self._progress(len(flights))


def _keep_support(flights: Sequence[_Flight], support_SV: Tensor) -> None:
    """Note which tokens could have come, where somebody wants to know."""
    wanting = {s: flight.support for s, flight in enumerate(flights) if flight.support is not None}
    mine_SV = support_SV[list(wanting)].cpu()
    tokens = mine_SV.nonzero()[:, 1].split(mine_SV.sum(1).tolist())
    for kept, own in zip(wanting.values(), tokens, strict=True):
        kept.append(tuple(own.tolist()))


class _Dictate(LogitsProcessor):
    """Makes Transformers' loop take the tokens that we draw, and keeps why each answer ended."""

    def __init__(
        self, write: Callable[[Sequence[_Flight], Tensor], list[Ended | None]], flights: Sequence[_Flight]
    ) -> None:
        self.write = write
        self.flights = flights
        self.ended: list[Ended | None] = [None] * len(flights)

    @property
    def ends(self) -> list[Ended]:
        """Why each answer ended; all have, because none has more tokens left than the loop takes."""
        return [ended for ended in self.ended if ended is not None]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        live = [i for i, ended in enumerate(self.ended) if ended is None]
        for i, ended in zip(live, self.write([self.flights[i] for i in live], scores[live]), strict=True):
            self.ended[i] = ended
        token_S = torch.tensor([flight.tokens[-1] for flight in self.flights], device=scores.device)
        return torch.full_like(scores, float("-inf")).scatter(1, token_S[:, None], 0.0)
