"""How well a reward recipe does on all of its judgements: k folds by prompt, several seeds, against length alone.

    PLAUDIT_DATA=... python -m benchmarks.real_reward examples/hh_reward.yaml --folds 5 --seeds 3

Each seed deals the prompts into folds anew; each fold is scored by a model that has seen nothing of it. A judgement's
share of right pairs is averaged over the seeds, and the 95 % interval covers both what these judgements and what these
seeds happened to be. "Longer wins" counts characters, a tie one half. A language stage in the recipe is done once, on
the recipe's documents, which hold no judgement. The last line is JSON.

A thumb is right where the score is above 0 for a thumb up. Length alone is then the best cut by characters, chosen on
the very data; inside each quarter of the lengths, `auc` is how often a thumb up scores above a thumb down.

`--test FILE ...` are judgements that nobody trains on: every model of every fold scores them, and the accuracy is the
mean over these models, its interval that of the judgements.
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
from plaudit.models.load import (
    adapted,
    choose_machine,
    context_of,
    load_tokenizer,
    new_lstm_reward,
    new_reward,
)
from plaudit.models.network import RewardNetwork
from plaudit.reading import load
from plaudit.recipe import Recipe, Source, load_recipe
from plaudit.records import Judgement, Thumb
from plaudit.runs import Run
from plaudit.scorers import ModelScorer
from plaudit.seeds import derive
from plaudit.text import Words
from plaudit.training.judged import gathered
from plaudit.training.reward_stage import train_reward


def main() -> None:
    given = arguments()
    recipe = load_recipe(given.recipe, given.set)
    if recipe.reward is None:
        raise SystemExit(f"{given.recipe}: has no reward section")
    begun, cpu = time.perf_counter(), time.process_time()
    judgements = cases_of(recipe.data.judgements)
    print(f"{len(judgements)} judgements, {sum(right(one, [0.0] * len(one.answers))[1] for one in judgements)} cases")
    tests = {path.name: cases_of([Source(path=str(path))]) for path in given.test}
    result = {"benchmark": "real_reward", "recipe": given.recipe.name, "folds": given.folds, "seeds": given.seeds}
    with tempfile.TemporaryDirectory() as work:
        study = Study(recipe, Path(work), judgements, given.folds, tests)
        scores = [study.one_seed(seed) for seed in range(given.seeds)]
    result |= {"judgements": len(judgements), **summary(judgements, scores)}
    if any(isinstance(one.verdict, Thumb) for one in judgements):
        result["quarters_by_length"] = quarters(judgements, scores)
    for name, found in study.tested.items():
        result[f"test {name}"] = summary(tests[name], found)
    result["hardware"] = {"threads": torch.get_num_threads()}
    result |= {"seconds": round(time.perf_counter() - begun, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
    print(json.dumps(result))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test", type=Path, nargs="*", default=[], metavar="FILE", help="judgements to test on only")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting")
    return parser.parse_args()


def cases_of(sources: Sequence[Source]) -> list[Judgement]:
    """The judgements that can be got right or wrong."""
    found = gathered(load(sources, "judgements", seed=0))
    return [one for one in found if right(one, [0.0] * len(one.answers))[1]]


def pairs(judgement: Judgement) -> list[tuple[int, int]]:
    """The pairs (better, worse) that a judgement orders."""
    ranks = judgement.ranks() or ()
    return [(i, j) for i, here in enumerate(ranks) for j, there in enumerate(ranks) if here < there]


class Study:
    """A recipe's judgements in folds, and what is scored by models that have not seen it."""

    def __init__(
        self,
        recipe: Recipe,
        work: Path,
        judgements: Sequence[Judgement],
        folds: int,
        tests: dict[str, list[Judgement]],
    ) -> None:
        self.recipe = recipe
        self.work = work
        self.judgements = judgements
        self.folds = folds
        self.tests = tests
        self.tested: dict[str, list[list[Scored]]] = {name: [] for name in tests}
        self.trunk = self._trunk()

    def _trunk(self) -> str:
        """The folder of the model that every fold starts from."""
        settings = self.recipe.reward
        assert settings is not None
        if settings.start not in ("model", "random", "lstm"):
            return settings.start
        if self.recipe.language is None:
            return self.recipe.model.path
        loop.run(self.recipe, self.work / "language", only="language")
        return str(self.work / "language" / "language")

    def one_seed(self, seed: int) -> list[Scored]:
        """The scores of each judgement's answers, by models that have not seen its prompt."""
        recipe = self.recipe.model_copy(update={"seed": seed})
        prompts = sorted({one.prompt.id for one in self.judgements})
        random.Random(seed).shuffle(prompts)
        fold_of = {prompt: place % self.folds for place, prompt in enumerate(prompts)}
        found: dict[int, Scored] = {}
        for fold in range(self.folds):
            unseen = [i for i, one in enumerate(self.judgements) if fold_of[one.prompt.id] == fold]
            seen = [one for one in self.judgements if fold_of[one.prompt.id] != fold]
            scorer = self._trained(recipe, seen, self.work / f"seed-{seed}-fold-{fold}")
            found |= dict(zip(unseen, score(scorer, [self.judgements[i] for i in unseen]), strict=True))
            shares = [right(self.judgements[i], found[i]) for i in unseen]
            share = sum(won for won, _ in shares) / sum(count for _, count in shares)
            print(f"seed {seed}, fold {fold}: {share:.3f} of {len(unseen)} judgements", flush=True)
            for name, judgements in self.tests.items():
                self.tested[name].append(score(scorer, judgements))
        return [found[i] for i in range(len(self.judgements))]

    def _trained(self, recipe: Recipe, judgements: Sequence[Judgement], folder: Path) -> ModelScorer:
        settings = recipe.reward
        assert settings is not None
        machine = choose_machine(recipe.device, recipe.precision, recipe.threads)
        seed = derive(recipe.seed, "head")
        tokenizer = load_tokenizer(recipe.model.tokenizer or self.trunk)
        if settings.start == "lstm":
            model = new_lstm_reward(tokenizer, machine, seed=seed)
        else:
            model = new_reward(self.trunk, machine, seed=seed, random=settings.start == "random")
            model = adapted(model, recipe.model.adapter, seed=seed, task="SEQ_CLS")
        words = Words(tokenizer, recipe.text, context=context_of(model.config))
        network = RewardNetwork(model, dropout=settings.dropout)
        run = Run(folder, recipe)
        train_reward(run, network, words, judgements, settings, recipe, machine)
        run.close()
        return ModelScorer(network, words, machine, micro_tokens=recipe.micro_tokens)


Scored = Sequence[float]
"""The scores of one judgement's answers."""


def score(scorer: ModelScorer, judgements: Sequence[Judgement]) -> list[Scored]:
    found: list[Scored] = []
    for start in range(0, len(judgements), 64):
        part = judgements[start : start + 64]
        scores = iter(scorer.score_texts([(one.prompt, [(a, True) for a in one.answers]) for one in part]))
        found += [[next(scores) for _ in one.answers] for one in part]
    return found


def right(judgement: Judgement, scores: Scored) -> tuple[float, int]:
    """Cases that the scores have as the judgement does, a draw one half; and all of its cases."""
    if isinstance(judgement.verdict, Thumb):
        return (0.5 if scores[0] == 0 else float((scores[0] > 0) == judgement.verdict.up)), 1
    ordered = pairs(judgement)
    return sum(0.5 if scores[i] == scores[j] else float(scores[i] > scores[j]) for i, j in ordered), len(ordered)


def summary(judgements: Sequence[Judgement], scores: Sequence[Sequence[Scored]]) -> dict[str, Any]:
    """Accuracy with its interval, and what length alone reaches."""
    shares = [[right(one, own) for one, own in zip(judgements, seed, strict=True)] for seed in scores]
    total = sum(count for _, count in shares[0])
    by_seed = [sum(won for won, _ in seed) / total for seed in shares]
    accuracy = statistics.fmean(by_seed)
    mean_won = [statistics.fmean(seed[i][0] for seed in shares) for i in range(len(judgements))]
    spread = sum((won - accuracy * count) ** 2 for won, (_, count) in zip(mean_won, shares[0], strict=True))
    of_judgements = math.sqrt(spread) / total
    of_seeds = statistics.stdev(by_seed) / math.sqrt(len(by_seed)) if len(by_seed) > 1 else 0.0
    error = 1.96 * math.hypot(of_judgements, of_seeds)
    length = length_alone(judgements)
    return {
        "cases": total,
        "accuracy": round(accuracy, 4),
        "interval": [round(accuracy - error, 4), round(accuracy + error, 4)],
        "accuracy_by_seed": [round(share, 4) for share in by_seed],
        "length_alone": round(length, 4),
        "beats_length": accuracy - error > length,
    }


def length_alone(judgements: Sequence[Judgement]) -> float:
    """The better of "longer wins" and "shorter wins"; for thumbs, the best cut by characters, the better way round."""
    thumbs = sorted((len(one.answers[0]), one.verdict.up) for one in judgements if isinstance(one.verdict, Thumb))
    if len(thumbs) < len(judgements):
        shares = [right(one, [float(len(answer)) for answer in one.answers]) for one in judgements if pairs(one)]
        longer = sum(won for won, _ in shares) / sum(count for _, count in shares)
        return max(longer, 1 - longer)
    ups = [up for _, up in thumbs]
    below = [sum(ups[:cut]) + (len(ups) - cut) - sum(ups[cut:]) for cut in range(len(ups) + 1)]  # short ones are up
    return max(max(below), len(ups) - min(below)) / len(ups)


def quarters(judgements: Sequence[Judgement], scores: Sequence[Sequence[Scored]]) -> list[dict[str, Any]]:
    """Inside each quarter of the answers by length: accuracy, that of always saying the same, and the AUC."""
    found = []
    order = sorted(range(len(judgements)), key=lambda i: len(judgements[i].answers[0]))
    for q in range(4):
        mine = order[q * len(order) // 4 : (q + 1) * len(order) // 4]
        ups = [thumb_of(judgements[i]) for i in mine]
        shares = [[right(judgements[i], seed[i])[0] for i in mine] for seed in scores]
        aucs = [auc([(seed[i][0], up) for i, up in zip(mine, ups, strict=True)]) for seed in scores]
        area = statistics.fmean(aucs)
        error = 1.96 * auc_error(area, sum(ups), len(ups) - sum(ups))
        found.append(
            {
                "characters": [len(judgements[mine[0]].answers[0]), len(judgements[mine[-1]].answers[0])],
                "judgements": len(mine),
                "accuracy": round(statistics.fmean(statistics.fmean(seed) for seed in shares), 4),
                "always_the_same": round(max(sum(ups), len(ups) - sum(ups)) / len(ups), 4),
                "auc": round(area, 4),
                "auc_interval": [round(area - error, 4), round(area + error, 4)],
            }
        )
    return found


def thumb_of(judgement: Judgement) -> bool:
    assert isinstance(judgement.verdict, Thumb)
    return judgement.verdict.up


def auc(scored: Sequence[tuple[float, bool]]) -> float:
    """How often an up scores above a down."""
    ups, downs = ([score for score, up in scored if up is side] for side in (True, False))
    return statistics.fmean(0.5 if u == d else float(u > d) for u in ups for d in downs)


def auc_error(area: float, ups: int, downs: int) -> float:
    """Its standard error: Hanley and McNeil 1982, https://doi.org/10.1148/radiology.143.1.7063747."""
    above, below = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (ups - 1) * (above - area**2) + (downs - 1) * (below - area**2)
    return math.sqrt(spread / (ups * downs))


if __name__ == "__main__":
    main()
