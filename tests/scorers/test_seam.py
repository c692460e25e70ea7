"""What stages and scorers owe each other."""

from __future__ import annotations

import math

import pytest

from plaudit.errors import NumberError, ShapeError
from plaudit.records import Answer, Ended, Group, Prompt
from plaudit.scorers import FunctionScorer, Scores


def group(name, *texts):
    answers = tuple(Answer(text=t, token_ids=(), logps=(), ended=Ended.STOPPED, seed=0) for t in texts)
    return Group(prompt=Prompt(text=name, id=name), context_ids=(1,), answers=answers)


GROUPS = [group("p", "one", ""), group("q", "three")]


def test_a_function_scores_every_answer():
    scores = FunctionScorer(lambda prompt, answer: len(prompt.text or "") + len(answer)).score(GROUPS)
    assert scores.value_PG == ((4.0, 1.0), (6.0,))
    assert scores.flat() == [4.0, 1.0, 6.0]
    scores.check(GROUPS)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_no_number_is_named(value):
    scores = Scores(value_PG=((1.0, 2.0), (value,)))
    with pytest.raises(NumberError, match=rf"the reward of answer 0 to prompt q is {value}: 'three'"):
        scores.check(GROUPS)
    Scores(value_PG=((1.0, 2.0), (value,)), failed={(1, 0): "no connection"}).check(GROUPS)


@pytest.mark.parametrize("values", [((1.0, 2.0),), ((1.0,), (2.0,)), ((1.0, 2.0), (3.0,), ())])
def test_a_value_for_each_answer(values):
    with pytest.raises(ShapeError, match=r"the scorer gave \[.*\] values for \[2, 1\] answers"):
        Scores(value_PG=values).check(GROUPS)
