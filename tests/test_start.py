"""The settings of the model to start from: what contradicts what, and which settings each finding names."""

from __future__ import annotations

import pytest

from plaudit.start import MADE, Adapter, Model


@pytest.mark.parametrize("path", [*MADE, "folder"])
@pytest.mark.parametrize("tokenizer", [None, "other"])
@pytest.mark.parametrize("adapter", [None, Adapter()])
@pytest.mark.parametrize("checkpointing", [True, False])
def test_every_combination(path, tokenizer, adapter, checkpointing):
    model = Model(path=path, tokenizer=tokenizer, adapter=adapter, checkpointing=checkpointing)
    expected = {
        "model.tokenizer": tokenizer is not None and path != "folder",
        "model.adapter": adapter is not None and path == "lstm",
        "model.checkpointing": checkpointing and path == "lstm",
    }
    found = list(model.contradictions())
    assert [about[0] for _, about in found] == [name for name, wrong in expected.items() if wrong]
    assert all(says.startswith(about[0]) and about[1] == "model.path" for says, about in found)
