"""A section is frozen, closed, and keeps its own defaults for what is inside it."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import Field, ValidationError

from plaudit.section import Section


class Inner(Section):
    size: int = 1
    name: str = "a"


class Outer(Section):
    inner: Inner = Inner(size=2, name="b")


class Numbers(Section):
    share: Annotated[float, Field(ge=0)] | None = None
    bounds: tuple[float, float] = (0.0, 1.0)
    weights: dict[str, float] = {}
    whole: bool = False
    held: bool | int = 0


def test_an_inner_section_given_in_part_keeps_the_outer_ones_default():
    assert Outer.model_validate({"inner": {"name": "c"}}).inner == Inner(size=2, name="c")
    assert Outer.model_validate({}).inner == Inner(size=2, name="b")


def test_it_is_closed_and_frozen():
    with pytest.raises(ValidationError, match="Extra inputs"):
        Outer.model_validate({"innr": {}})
    with pytest.raises(ValidationError, match="frozen"):
        Inner().size = 3


@pytest.mark.parametrize("given", [{"share": True}, {"bounds": [0, False]}, {"weights": {"a": 0.5, "b": True}}])
def test_a_switch_is_no_number(given):
    with pytest.raises(ValidationError, match="valid number"):
        Numbers.model_validate(given)


def test_a_number_stays_one_and_a_switch_a_switch():
    given = {"share": 1, "bounds": [0, 2.5], "weights": {"a": 1}, "whole": True, "held": True}
    assert Numbers.model_validate(given).model_dump() == {**given, "bounds": (0.0, 2.5)}
    assert Numbers.model_validate(given).held is True
