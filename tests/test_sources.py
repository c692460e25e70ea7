"""What a recipe says of what is read: the bounds of its numbers, and that nothing is taken for something else."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from plaudit.section import Section
from plaudit.sources import Data, Source, Text, World


@pytest.mark.parametrize(
    ("section", "given"),
    [
        (Source, {}),
        (Source, {"path": "p", "limit": 0}),
        (Source, {"path": "p", "weight": 0}),
        (Source, {"path": "p", "weight": float("inf")}),
        (Source, {"path": "p", "prompt_tokens": 0}),
        (Source, {"path": "p", "scale": [1]}),
        (Source, {"path": "p", "scale": [1, float("nan")]}),
        (Source, {"path": "p", "limit": True}),
        (World, {"name": "films"}),
        (World, {"prompts": 0}),
        (Data, {"held_out": 0}),
        (Data, {"held_out": 1}),
        (Data, {"prompts": "p.jsonl"}),
        (Text, {"max_prompt_tokens": 0}),
        (Text, {"examples": [["a question without its answer"]]}),
    ],
)
def test_what_cannot_be_read_so_is_refused(section: type[Section], given: dict[str, Any]):
    with pytest.raises(ValidationError):
        section.model_validate(given)


def test_a_source_that_says_all_is_kept_as_it_stands():
    given = {
        "path": "ratings.csv",
        "format": "scored-answer",
        "name": "main",
        "split": "test",
        "columns": {"prompt": "question"},
        "limit": 5,
        "shuffle": True,
        "weight": 2.0,
        "prompt_tokens": 8,
        "end": "<|end|>",
        "scale": (1.0, 5.0),
        "quality": "helpful",
    }
    (source,) = Data.model_validate({"judgements": [given]}).judgements
    assert source.model_dump() == given
