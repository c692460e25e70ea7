"""A section is frozen, closed, and keeps its own defaults for what is inside it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from plaudit.section import Section


class Inner(Section):
    size: int = 1
    name: str = "a"


class Outer(Section):
    inner: Inner = Inner(size=2, name="b")


def test_an_inner_section_given_in_part_keeps_the_outer_ones_default():
    assert Outer.model_validate({"inner": {"name": "c"}}).inner == Inner(size=2, name="c")
    assert Outer.model_validate({}).inner == Inner(size=2, name="b")


def test_it_is_closed_and_frozen():
    with pytest.raises(ValidationError, match="Extra inputs"):
        Outer.model_validate({"innr": {}})
    with pytest.raises(ValidationError, match="frozen"):
        Inner().size = 3
