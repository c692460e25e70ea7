"""How well a reward recipe does on all of its judgements: k folds by prompt, several seeds, against length alone.

    PLAUDIT_DATA=... python benchmarks/real_reward.py benchmarks/recipes/hh_reward.yaml --folds 5 --seeds 3

Each seed deals the prompts into folds anew; each fold is scored by a model that has seen nothing of it. A judgement's
share of right pairs is averaged over the seeds, and the 95 % interval covers both what these judgements and what these
seeds happened to be. "Longer wins" counts characters, a tie one half. A language stage in the recipe is done once, on
the recipe's documents, which hold no judgement. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from plaudit import loop
from plaudit.models.load import adapted, choose_machine, context_of, load_tokenizer, new_reward
from plaudit.models.network import RewardNetwork
from plaudit.reading import load
from plaudit.recipe import Recipe, load_recipe
from plaudit.records import Judgement
from plaudit.runs import Run
from plaudit.scorers import ModelScorer
from plaudit.seeds import derive
from plaudit.text import Words
from plaudit.training.reward_stage import train_reward


def main() -> None:
    given = arguments()
    recipe = load_recipe(given.recipe, given.set)
    if recipe.reward is None:
        raise SystemExit(f"{given.recipe}: has no reward section")
    begun, cpu = time.perf_counter(), time.process_time()
    judgements = [one for one in load(recipe.data.judgements, "judgements", seed=0) if pairs(one)]
    print(f"{len(judgements)} judgements, {sum(map(len, map(pairs, judgements)))} pairs", flush=True)
    with tempfile.TemporaryDirectory() as work:
        trunk = trunk_of(recipe, Path(work))
        shares = [
            one_seed(recipe.model_copy(update={"seed": seed}), trunk, judgements, given.folds, Path(work))
            for seed in range(given.seeds)
        ]
    result = {"benchmark": "real_reward", "recipe": given.recipe.name, "folds": given.folds, "seeds": given.seeds}
    result |= {"judgements": len(judgements), "pairs": sum(map(len, map(pairs, judgements)))}
    result |= summary(judgements, shares)
    result |= {"seconds": round(time.perf_counter() - begun, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
    print(json.dumps(result))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting")
    return parser.parse_args()


def pairs(judgement: Judgement) -> list[tuple[int, int]]:
    """The pairs (better, worse) that a judgement orders."""
    ranks = judgement.ranks() or ()
    return [(i, j) for i, here in enumerate(ranks) for j, there in enumerate(ranks) if here < there]


def trunk_of(recipe: Recipe, work: Path) -> str:
    """The folder of the model that every fold starts from."""
    assert recipe.reward is not None
    if recipe.reward.start not in ("model", "random"):
        return recipe.reward.start
    if recipe.language is None:
        return recipe.model.path
    loop.run(recipe, work / "language", only="language")
    return str(work / "language" / "language")


def one_seed(
    recipe: Recipe, trunk: str, judgements: Sequence[Judgement], folds: int, work: Path
) -> list[tuple[float, int]]:
    """Each judgement's right pairs and all of its pairs, by models that have not seen its prompt."""
    prompts = sorted({one.prompt.id for one in judgements})
    random.Random(recipe.seed).shuffle(prompts)
    fold_of = {prompt: place % folds for place, prompt in enumerate(prompts)}
    found: dict[int, tuple[float, int]] = {}
    for fold in range(folds):
        unseen = [i for i, one in enumerate(judgements) if fold_of[one.prompt.id] == fold]
        seen = [one for one in judgements if fold_of[one.prompt.id] != fold]
        scorer = trained(recipe, trunk, seen, work / f"seed-{recipe.seed}-fold-{fold}")
        for start in range(0, len(unseen), 64):
            part = [judgements[i] for i in unseen[start : start + 64]]
            scores = iter(scorer.score_texts([(one.prompt, [(a, True) for a in one.answers]) for one in part]))
            for i, one in zip(unseen[start : start + 64], part, strict=True):
                found[i] = right(one, [next(scores) for _ in one.answers])
        done = [found[i] for i in unseen]
        share = sum(won for won, _ in done) / sum(count for _, count in done)
        print(f"seed {recipe.seed}, fold {fold}: {share:.3f} of {len(done)} judgements", flush=True)
    return [found[i] for i in range(len(judgements))]


def trained(recipe: Recipe, trunk: str, judgements: Sequence[Judgement], folder: Path) -> ModelScorer:
    settings = recipe.reward
    assert settings is not None
    machine = choose_machine(recipe.device, recipe.precision, recipe.threads)
    seed = derive(recipe.seed, "head")
    model = new_reward(trunk, machine, seed=seed, random=settings.start == "random")
    words = Words(load_tokenizer(recipe.model.tokenizer or trunk), recipe.text, context=context_of(model.config))
    model = adapted(model, recipe.model.adapter, seed=seed, task="SEQ_CLS")
    network = RewardNetwork(model, dropout=settings.dropout)
    run = Run(folder, recipe)
    train_reward(run, network, words, judgements, settings, recipe, machine)
    run.close()
    return ModelScorer(network, words, machine, micro_tokens=recipe.micro_tokens)


def right(judgement: Judgement, scores: Sequence[float]) -> tuple[float, int]:
    """Pairs that the scores order as the judgement does, a tie one half; and all of its pairs."""
    ordered = pairs(judgement)
    return sum(0.5 if scores[i] == scores[j] else float(scores[i] > scores[j]) for i, j in ordered), len(ordered)


def summary(judgements: Sequence[Judgement], shares: Sequence[Sequence[tuple[float, int]]]) -> dict[str, Any]:
    """Accuracy with its interval, and what length alone reaches."""
    total = sum(count for _, count in shares[0])
    by_seed = [sum(won for won, _ in seed) / total for seed in shares]
    accuracy = statistics.fmean(by_seed)
    mean_won = [statistics.fmean(seed[i][0] for seed in shares) for i in range(len(judgements))]
    spread = sum((won - accuracy * count) ** 2 for won, (_, count) in zip(mean_won, shares[0], strict=True))
    of_judgements = math.sqrt(spread) / total
    of_seeds = statistics.stdev(by_seed) / math.sqrt(len(by_seed)) if len(by_seed) > 1 else 0.0
    error = 1.96 * math.hypot(of_judgements, of_seeds)
    longer = sum(right(one, [float(len(answer)) for answer in one.answers])[0] for one in judgements) / total
    return {
        "accuracy": round(accuracy, 4),
        "interval": [round(accuracy - error, 4), round(accuracy + error, 4)],
        "accuracy_by_seed": [round(share, 4) for share in by_seed],
        "longer_wins": round(longer, 4),
        "shorter_wins": round(1 - longer, 4),
        "beats_length": accuracy - error > max(longer, 1 - longer),
        "hardware": {"threads": torch.get_num_threads()},
    }


if __name__ == "__main__":
    main()
