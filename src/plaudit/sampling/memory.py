"""What a model has read of the answers in flight: keys and values, or the state of an LSTM.

Contexts are read once, however many answers they get; each answer has a row of its own from then on. When one is
finished, the last row in flight takes its place, so that the live ones always come first.

Shape letters:  S answers in flight   C contexts   T tokens   H key heads   E size of a head   N tokens of a packed row
                D hidden size
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from plaudit.models.lstm import LstmModel, State
from plaudit.models.packed import attend, body_of, run_packed

__all__ = ["Context", "KeysAndValues", "Memory", "RecurrentState", "drop", "memory_for"]

Context = tuple[tuple[int, ...], list[int]]
"""Tokens to read, and the rows of the answers that go on from there."""

Item = TypeVar("Item")


class Memory(Protocol):
    """What has been read, one row for each answer in flight."""

    def read(self, contexts: Sequence[Context]) -> Tensor:
        """[C, D] hidden state at the end of each context, which is kept in its rows; new rows follow the live ones."""
        ...

    def read_on(self, token_S: Tensor, length_S: Tensor) -> Tensor:
        """[S, D] hidden state after one more token of each answer, behind as many as the lengths say."""
        ...

    def drop(self, finished: Sequence[int], live: int) -> None:
        """Free the finished ones of the live rows: the last live ones move into their places."""
        ...


def memory_for(model: Any, places: int, longest: int) -> Memory:
    """The memory that suits a model.

    Args:
        model: runs packed, or is an LSTM.
        places: answers in flight at most.
        longest: tokens of a context and its answer at most.
    """
    body = body_of(model)
    return RecurrentState(body) if isinstance(body, LstmModel) else KeysAndValues(model, places, longest)


def drop(rows: list[Item], finished: Sequence[int]) -> None:
    """Take the finished ones out of a list; its last ones move into their places."""
    for place in sorted(finished, reverse=True):
        rows[place] = rows[-1]
        rows.pop()


class RecurrentState:
    """The state of an LSTM after each answer's last token: as large after a thousand tokens as after one."""

    def __init__(self, body: LstmModel) -> None:
        self.body = body
        self.state: State | None = None

    def read(self, contexts: Sequence[Context]) -> Tensor:
        """[C, D] hidden state at the end of each context."""
        fresh = self.body.read([context for context, _ in contexts])
        context_S = [c for _, c in sorted((row, c) for c, (_, rows) in enumerate(contexts) for row in rows)]
        out_LSD, cell_LSD = (part[:, context_S] for part in fresh)
        if self.state is not None:
            out_LSD, cell_LSD = torch.cat([self.state[0], out_LSD], 1), torch.cat([self.state[1], cell_LSD], 1)
        self.state = out_LSD, cell_LSD
        return fresh[0][-1]

    def read_on(self, token_S: Tensor, length_S: Tensor) -> Tensor:
        """[S, D] hidden state after one more token of each answer; where it stands in its text does not matter."""
        del length_S
        assert self.state is not None, "no context was read"
        self.state = self.body.read_on(token_S, self.state)
        return self.state[0][-1]

    def drop(self, finished: Sequence[int], live: int) -> None:
        """Free the finished rows."""
        assert self.state is not None, "no context was read"
        if finished:
            kept = list(range(live))
            drop(kept, finished)
            self.state = self.state[0][:, kept], self.state[1][:, kept]


class KeysAndValues:
    """Keys and values of every layer, `[S, T, H, E]`, laid out before the first token."""

    def __init__(self, model: Any, places: int, longest: int) -> None:
        self.model = model
        self.places, self.longest = places, longest
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    def of(self, layer: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """A layer's keys and values, made on its first use in the precision of its values.

        Rotary embeddings leave keys in fp32 under autocast, but attention reads them in the lower precision anyway.
        """
        if layer not in self.layers:
            shape = (self.places, self.longest, *like.shape[1:])
            self.layers[layer] = like.new_zeros(shape), like.new_zeros(shape)
        return self.layers[layer]

    def read(self, contexts: Sequence[Context]) -> Tensor:
        """[C, D] hidden state at the end of each context."""
        device = next(self.model.parameters()).device
        plan = _FirstRead(self, [(len(context), rows) for context, rows in contexts], device)
        token_N = torch.tensor([token for context, _ in contexts for token in context], device=device)
        return run_packed(self.model, token_N, plan.position_N, plan)[plan.last]

    def read_on(self, token_S: Tensor, length_S: Tensor) -> Tensor:
        """[S, D] hidden state after one more token of each answer."""
        return run_packed(self.model, token_S, length_S, _NextToken(self, length_S))

    def drop(self, finished: Sequence[int], live: int) -> None:
        """Free the finished rows."""
        for place in sorted(finished, reverse=True):
            live -= 1
            if place != live:
                for keys, values in self.layers.values():
                    keys[place] = keys[live]
                    values[place] = values[live]


class _FirstRead:
    """Contexts read for the first time: causal, each into the places of its answers."""

    def __init__(self, memory: KeysAndValues, contexts: Sequence[tuple[int, list[int]]], device: torch.device) -> None:
        self.memory = memory
        sizes = torch.tensor([size for size, _ in contexts])
        self.longest = int(sizes.max())
        step = torch.arange(self.longest)
        self.real_ST = (step < sizes[:, None]).to(device)
        start = sizes.cumsum(0) - sizes
        self.index_ST = (start[:, None] + torch.minimum(step, sizes[:, None] - 1)).to(device)
        self.position_N = step.expand(len(sizes), -1)[self.real_ST.cpu()].to(device)
        self.last = (start + sizes - 1).to(device)
        self.rows = torch.tensor([row for _, rows in contexts for row in rows], device=device)
        self.context_of = torch.tensor([c for c, (_, rows) in enumerate(contexts) for _ in rows], device=device)

    def attend(self, layer: int, query_NHE: Tensor, key_NHE: Tensor, value_NHE: Tensor, scale: float | None) -> Tensor:
        """[N, H, E] mixed values."""
        keys, values = key_NHE[self.index_ST], value_NHE[self.index_ST]
        all_keys, all_values = self.memory.of(layer, value_NHE)
        all_keys[self.rows, : self.longest] = keys[self.context_of].to(all_keys.dtype)
        all_values[self.rows, : self.longest] = values[self.context_of]
        return attend(query_NHE[self.index_ST], keys, values, scale, None, causal=True)[self.real_ST]


class _NextToken:
    """One new token for each answer in flight, after all that stands in its place."""

    def __init__(self, memory: KeysAndValues, length_S: Tensor) -> None:
        self.memory = memory
        self.row = torch.arange(len(length_S), device=length_S.device)
        self.length_S = length_S
        self.longest = int(length_S.max()) + 1
        unseen_ST = torch.arange(self.longest, device=length_S.device) > length_S[:, None]
        self.bias = torch.zeros(unseen_ST.shape, device=length_S.device).masked_fill(unseen_ST, float("-inf"))
        self.bias = self.bias[:, None, None, :]

    def attend(self, layer: int, query_NHE: Tensor, key_NHE: Tensor, value_NHE: Tensor, scale: float | None) -> Tensor:
        """[S, H, E] mixed values."""
        keys, values = self.memory.of(layer, value_NHE)
        keys[self.row, self.length_S] = key_NHE.to(keys.dtype)
        values[self.row, self.length_S] = value_NHE
        live = len(self.row)
        mixed = attend(
            query_NHE[:, None],
            keys[:live, : self.longest],
            values[:live, : self.longest],
            scale,
            self.bias.to(query_NHE.dtype),
            causal=False,
        )
        return mixed[:, 0]
