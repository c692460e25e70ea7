"""What would stop a later stage of a run, found before an earlier one works for hours."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from plaudit.environments import environment_of
from plaudit.loop.ground import Ground
from plaudit.materials import check_demonstrations, check_judgements, check_prompts, check_prompts_fit
from plaudit.models.load import check_language, check_language_head, check_suits
from plaudit.recipe import MADE
from plaudit.scorers import check_references, check_reward, member_folders, scorer_of
from plaudit.scoring import ByModel
from plaudit.text import Words
from plaudit.training.preference_stage import preference_judgements
from plaudit.tuning import parts_of

__all__ = ["look_ahead", "waits_for_tokens"]


def look_ahead(ground: Ground) -> None:
    """Find what would stop a later stage, before an earlier one works for hours.

    Raises:
        PlauditError: a model cannot be loaded, a file cannot be read, or there is too little in it.
    """
    recipe, left = ground.recipe, [stage for stage in ground.stages() if not ground.run.finished(stage)]
    models = [ground.start(), *([ground.trunk()] if "reward" in left else [])]
    readers, graders = _readers(ground, models[:1]), _readers(ground, models[1:])
    for model in models:
        if model not in MADE:
            check_suits(model, adapter=recipe.model.adapter, checkpointing=recipe.model.checkpointing)
    if "reward" in left and ground.normalises() and models[0] not in MADE:
        check_language(models[0], "reward.normalise_on needs the policy's reference as model.path, or 0 to go without")
    if recipe.reward is not None and recipe.reward.language and "reward" in left and ground.trunk() not in MADE:
        check_language_head(ground.trunk(), lstm=recipe.reward.start == "lstm")
    if recipe.environment is not None:
        environment_of(recipe.environment)
    if ground.evaluates():
        graders += _readers(ground, _check_scorers(ground))
    if recipe.world is not None:
        return  # there is enough in it, and its texts fit its model
    if "reward" in left:
        assert recipe.reward is not None
        check_judgements(ground.materials.judgements(), graders, recipe.data.held_out, recipe.reward)
    if "policy" in left and recipe.policy is not None and parts_of(recipe.policy).update == "judgements":
        learned = preference_judgements(ground.materials.judgements()[0], recipe.policy, ground.annotators())
        for words in readers:
            for one in learned:
                words.prompt_ids(one.prompt)
    if "sft" in left and not waits_for_tokens(ground):
        check_demonstrations(ground.materials.demonstrations(), readers, recipe.data.held_out)
    if ground.evaluates() and not waits_for_tokens(ground):
        needed = recipe.policy.prompts_per_round if recipe.policy is not None else 0
        check_prompts(ground.materials.prompts(), [*readers, *graders], recipe.data.held_out, needed)
    elif "reward" in left and ground.normalises() and not waits_for_tokens(ground):
        check_prompts_fit(ground.materials.prompts()[0], [*readers, *graders])


def _check_scorers(ground: Ground) -> list[str]:
    """Find what would stop a scorer; gives the trained reward models among them."""
    models = []
    for scoring in ground.recipe.scorers.values():
        if not isinstance(scoring, ByModel):
            scorer_of(scoring, ground.machine, ground.reward_model, micro_tokens=ground.recipe.micro_tokens)
        elif scoring.path is not None:
            check_reward(scoring.path)
            models += [str(member) for member in member_folders(scoring.path)]
    if not waits_for_tokens(ground):
        check_references(ground.recipe.scorers, itertools.chain(*ground.materials.prompts()))
    return models


def waits_for_tokens(ground: Ground) -> bool:
    """Whether texts are to be cut after so many tokens of a tokenizer that the language stage has yet to make."""
    data = ground.recipe.data
    cuts = any(source.prompt_tokens is not None for source in (*data.demonstrations, *data.prompts))
    return cuts and ground.start() in MADE


def _readers(ground: Ground, models: Sequence[str]) -> list[Words]:
    """The tokenizers of these models, without that of one which the language stage has yet to make."""
    return [ground.words(model) for model in models if model not in MADE]
