"""The recipe of `plaudit demo`: the whole road on the built-in world, in minutes on a laptop."""

from __future__ import annotations

from plaudit.recipe import (
    Collect,
    Evaluate,
    Kl,
    Language,
    Optimiser,
    Policy,
    Recipe,
    Reward,
    Sampling,
    Sft,
    Text,
    World,
)

__all__ = ["demo_recipe"]


def demo_recipe(*, seed: int = 0, quick: bool = False, threads: int | None = None) -> Recipe:
    """The demo's recipe.

    Args:
        seed: of everything after the built-in model, which is the same for all seeds.
        quick: a shorter road for CI, in about a minute; it shows that everything works, not how well.
        threads: CPU threads; None leaves it to torch.
    """
    sampling = Sampling(max_tokens=64)
    recipe = Recipe(
        seed=seed,
        precision="fp32",  # so small a model is slower in 16 bits, even on processors that multiply in them
        threads=threads,
        world=World(demonstrations=800, prompts=4000, held_out=400),
        text=Text(max_prompt_tokens=64, max_answer_tokens=64),
        language=Language(steps=450, minibatch=16, max_tokens=160),
        sft=Sft(epochs=1, minibatch=16, optimiser=Optimiser(learning_rate=5e-4)),
        collect=Collect(prompts=1100, answers_per_prompt=4, noise=0.3, sampling=sampling),
        reward=Reward(epochs=2, minibatch=8, optimiser=Optimiser(learning_rate=1e-3, weight_decay=0.01)),
        policy=Policy(
            algorithm="ppo",
            steps=42,
            prompts_per_round=32,
            answers_per_prompt=4,
            kl=Kl(beta=0.15),
            sampling=sampling,
            optimiser=Optimiser(learning_rate=4e-4, warmup=0.1, decay="linear"),
        ),
        evaluate=Evaluate(prompts=400, sampling=Sampling(temperature=0.8, max_tokens=64)),
    )
    if not quick:
        return recipe
    return recipe.model_copy(
        update={
            "save_every": 5,
            "world": World(documents=2000, demonstrations=96, prompts=200, held_out=40),
            "language": recipe.language.model_copy(update={"steps": 60}) if recipe.language else None,
            "collect": Collect(prompts=64, answers_per_prompt=4, noise=0.3, sampling=sampling),
            "reward": recipe.reward.model_copy(update={"epochs": 1.0, "normalise_on": 64}) if recipe.reward else None,
            "policy": recipe.policy.model_copy(update={"steps": 6, "prompts_per_round": 16}) if recipe.policy else None,
            "evaluate": recipe.evaluate.model_copy(update={"prompts": 40}),
        }
    )
