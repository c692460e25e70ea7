"""What was read, row by row, against whole forward passes: contexts come, answers grow and end, others move up."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.models.packed import body_of, choose_road, own_attention
from plaudit.sampling.memory import KeysAndValues, RecurrentState, drop, memory_for
from plaudit.testing.tiny import tiny_model

MODELS = {kind: tiny_model(kind) for kind in ("llama", "plaudit-lstm")}
assert all(choose_road(model) for model in MODELS.values())  # as the sampler does


def test_the_last_rows_take_the_places_of_the_finished():
    rows = list("abcdef")
    drop(rows, [1, 4])
    assert rows == ["a", "f", "c", "d"]  # e goes first: f takes its place, and then that of b
    drop(rows, [0, 1, 2, 3])
    assert rows == []


def test_each_model_has_the_memory_that_suits_it():
    assert isinstance(memory_for(MODELS["llama"], 4, 9), KeysAndValues)
    assert isinstance(memory_for(MODELS["plaudit-lstm"], 4, 9), RecurrentState)


@torch.no_grad()
def end_of(model, text):
    """[D] the last hidden state of a text, by the model alone."""
    with own_attention(model):
        return body_of(model)(input_ids=torch.tensor([text]), use_cache=False).last_hidden_state[0, -1]


@pytest.mark.parametrize("kind", MODELS)
@settings(derandomize=True, max_examples=25, deadline=None)
@given(data=st.data())
def test_rows_are_texts_whatever_came_and_went(kind, data):
    model = MODELS[kind]
    memory = memory_for(model, 8, 40)
    live: list[list[int]] = []
    tokens = st.integers(3, 40)
    for _ in range(6):
        room = 8 - len(live)
        if room and (not live or data.draw(st.booleans())):
            contexts = data.draw(st.lists(st.lists(tokens, min_size=1, max_size=6), min_size=1, max_size=room))
            texts: dict[tuple[int, ...], list[int]] = {tuple(context): [] for context in contexts}
            for offset, context in enumerate(contexts):
                texts[tuple(context)].append(len(live) + offset)
            with torch.no_grad():
                hidden_CD = memory.read(list(texts.items()))
            live += [list(context) for context in contexts]
            expected = [end_of(model, list(context)) for context in texts]
        else:
            new = [data.draw(tokens) for _ in live]
            lengths = torch.tensor([len(text) for text in live])
            with torch.no_grad():
                hidden_CD = memory.read_on(torch.tensor(new), lengths)
            live = [[*text, token] for text, token in zip(live, new, strict=True)]
            expected = [end_of(model, text) for text in live]
        torch.testing.assert_close(hidden_CD, torch.stack(expected), rtol=0, atol=1e-5 * float(hidden_CD.abs().max()))
        finished = sorted(data.draw(st.sets(st.integers(0, len(live) - 1), max_size=2)))
        memory.drop(finished, len(live))
        drop(live, finished)
