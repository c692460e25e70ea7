"""The demo's recipe: it holds together, and the short one is the long one made smaller."""

from __future__ import annotations

import pytest
import yaml

from plaudit.demo import demo_recipe
from plaudit.recipe import recipe_from


@pytest.mark.parametrize("quick", [True, False])
def test_the_recipe_is_one_that_a_file_could_hold(quick):
    """`model_copy` checks nothing, so a contradiction would show only here."""
    recipe = demo_recipe(quick=quick, threads=2)
    assert recipe_from(yaml.safe_load(yaml.safe_dump(recipe.model_dump(mode="json")))) == recipe


@pytest.mark.parametrize("quick", [True, False])
def test_all_stages_are_shown(quick):
    recipe = demo_recipe(quick=quick)
    assert None not in (recipe.world, recipe.language, recipe.sft, recipe.collect, recipe.reward, recipe.policy)
    assert recipe.world is not None
    assert recipe.evaluate.prompts <= recipe.world.held_out


def test_seed_and_threads_are_the_only_differences_between_two_demos():
    one = demo_recipe().model_dump()
    other = demo_recipe(seed=4, threads=2).model_dump()
    assert {name for name in one if one[name] != other[name]} == {"seed", "threads"}


def test_enough_is_evaluated_for_the_claim():
    """400 held-out prompts and the same decoding for every seed."""
    assert demo_recipe().evaluate.prompts >= 400


def test_the_short_one_takes_fewer_steps():
    long, short = demo_recipe(), demo_recipe(quick=True)
    for stage in ("language", "policy"):
        assert getattr(short, stage).steps < getattr(long, stage).steps / 4
        assert getattr(short, stage).optimiser == getattr(long, stage).optimiser
