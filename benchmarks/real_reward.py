"""How well a reward recipe does on all of its judgements: k folds by prompt, several seeds, against length alone.

    PLAUDIT_DATA=... python -m benchmarks.real_reward examples/hh_reward.yaml --folds 5 --seeds 3

Each seed deals the prompts into folds anew; each fold is scored by a model that has seen nothing of it. "Longer wins"
counts characters, a draw one half. A language stage in the recipe is done once, on the recipe's documents, which hold
no judgement. The last line is JSON.

A thumb is right where the score is above 0 for a thumb up. Length alone is then the best cut by characters, chosen on
the very data; inside each quarter of the lengths, `auc` is how often a thumb up scores above a thumb down.

`--test FILE ...` are judgements that nobody trains on: every model of every fold scores them, and the accuracy is the
mean over these models.

`--trl` (after `make peers`) gives every fold to TRL's RewardTrainer too: the same trunk, tokens, steps and learning
rates, every ranking as all of its pairs, ties left out, which it cannot take. `difference` is ours less theirs.

`--work DIR` keeps what each fold scored; the same command takes it from there, so an interrupted study goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from benchmarks.agreement import Scored, difference, quarters, right, summary
from benchmarks.measured import circumstances
from transformers import AutoConfig

from plaudit import loop
from plaudit.loop.ground import Ground
from plaudit.loop.reward import train_member
from plaudit.models.load import context_of, load_tokenizer
from plaudit.reading import load
from plaudit.recipe import Recipe, Source, load_recipe
from plaudit.records import Judgement, Thumb
from plaudit.runs import Run, write_json
from plaudit.scorers import ModelScorer
from plaudit.scorers.ensemble import load_members
from plaudit.seeds import derive
from plaudit.text import Words
from plaudit.training.judged import gathered, judged_tokens

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".peers" / "bin" / "python"


def main() -> None:
    given = arguments()
    recipe = load_recipe(given.recipe, given.set)
    if recipe.reward is None:
        raise SystemExit(f"{given.recipe}: has no reward section")
    if given.trl and not PEERS.exists():
        raise SystemExit(f"{PEERS.relative_to(ROOT)} is not there: run `make peers` first")
    judgements = judged(recipe.data.judgements)
    print(f"{len(judgements)} judgements, {sum(right(one, [0.0] * len(one.answers))[1] for one in judgements)} cases")
    tests = {path.name: judged([Source(path=str(path))]) for path in given.test}
    result: dict[str, Any] = {
        "benchmark": "real_reward",
        "recipe": given.recipe.name,
        "folds": given.folds,
        "seeds": given.seeds,
    }
    with tempfile.TemporaryDirectory() as aside:
        work = given.work or Path(aside)
        work.mkdir(parents=True, exist_ok=True)
        study = Study(recipe, work, judgements, given.folds, tests, beside_trl=given.trl)
        scores = [study.one_seed(seed) for seed in range(given.seeds)]
    result |= {"judgements": len(judgements), **summary(judgements, scores)}
    if any(isinstance(one.verdict, Thumb) for one in judgements):
        result["quarters_by_length"] = quarters(judgements, scores)
    if given.trl:
        result["trl"] = summary(judgements, study.theirs)
        result["difference"] = difference(judgements, scores, study.theirs)
    for name, found in study.tested.items():
        result[f"test {name}"] = summary(tests[name], found)
    result |= circumstances("real_reward", "transformers") | {"threads": torch.get_num_threads()}
    if given.trl:
        result["versions"]["trl"] = version_of_trl()
    print(json.dumps(result))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test", type=Path, nargs="*", default=[], metavar="FILE", help="judgements to test on only")
    parser.add_argument("--trl", action="store_true", help="TRL's RewardTrainer on the same folds beside it")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep each fold's scores there, and go on from them")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting")
    return parser.parse_args()


def judged(sources: Sequence[Source]) -> list[Judgement]:
    """The judgements in some files; those that can be got neither right nor wrong, such as a tie of two, only teach."""
    return gathered(load(sources, "judgements", seed=0))


class Study:
    """A recipe's judgements in folds, and what is scored by models that have not seen it."""

    def __init__(
        self,
        recipe: Recipe,
        work: Path,
        judgements: Sequence[Judgement],
        folds: int,
        tests: dict[str, list[Judgement]],
        *,
        beside_trl: bool = False,
    ) -> None:
        self.recipe = recipe
        self.work = work
        self.judgements = judgements
        self.folds = folds
        self.tests = tests
        self.tested: dict[str, list[list[Scored]]] = {name: [] for name in tests}
        self.beside_trl = beside_trl
        self.theirs: list[list[Scored]] = []
        self.trunk = self._trunk()

    def _trunk(self) -> str:
        """The folder of the model that every fold starts from."""
        settings = self.recipe.reward
        assert settings is not None
        if settings.start not in ("model", "random", "lstm"):
            return settings.start
        if self.recipe.language is None:
            return self.recipe.model.path
        if not (self.work / "language" / "language").exists():
            loop.run(self.recipe, self.work / "language", only="language")
        return str(self.work / "language" / "language")

    def one_seed(self, seed: int) -> list[Scored]:
        """The scores of each judgement's answers, by models that have not seen its prompt."""
        prompts = sorted({one.prompt.id for one in self.judgements})
        random.Random(seed).shuffle(prompts)
        fold_of = {prompt: place % self.folds for place, prompt in enumerate(prompts)}
        ours: dict[int, Scored] = {}
        theirs: dict[int, Scored] = {}
        for fold in range(self.folds):
            unseen = [i for i, one in enumerate(self.judgements) if fold_of[one.prompt.id] == fold]
            found = self._one_fold(seed, fold, set(unseen))
            ours |= dict(zip(unseen, found["ours"], strict=True))
            if self.beside_trl:
                theirs |= dict(zip(unseen, found["trl"], strict=True))
            shares = [right(self.judgements[i], ours[i]) for i in unseen]
            share = sum(won for won, _ in shares) / sum(count for _, count in shares)
            print(f"seed {seed}, fold {fold}: {share:.3f} of {len(unseen)} judgements", flush=True)
            for name in self.tests:
                self.tested[name].append(found["tests"][name])
        if self.beside_trl:
            self.theirs.append([theirs[i] for i in range(len(self.judgements))])
        return [ours[i] for i in range(len(self.judgements))]

    def _one_fold(self, seed: int, fold: int, unseen: set[int]) -> dict[str, Any]:
        """What a fold's model, and TRL's where it is asked for, says of what it has not seen."""
        folder = self.work / f"seed-{seed}-fold-{fold}"
        kept = folder / "scores.json"
        found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
        recipe = self.recipe.model_copy(update={"seed": seed})
        seen = [one for i, one in enumerate(self.judgements) if i not in unseen]
        test = [one for i, one in enumerate(self.judgements) if i in unseen]
        if "ours" not in found or found["tests"].keys() != self.tests.keys():
            shutil.rmtree(folder, ignore_errors=True)
            scorer = self._trained(recipe, seen, folder)
            found["ours"] = score(scorer, test)
            found["tests"] = {name: score(scorer, judgements) for name, judgements in self.tests.items()}
            for done_with in ("checkpoints", "reward-model"):
                shutil.rmtree(folder / done_with, ignore_errors=True)
            write_json(kept, found)
        if self.beside_trl and "trl" not in found:
            found["trl"] = self._by_trl(recipe, seen, test, folder)
            write_json(kept, found)
        return found

    def _trained(self, recipe: Recipe, judgements: Sequence[Judgement], folder: Path) -> ModelScorer:
        """The product's own reward model of a recipe, from these judgements."""
        opened = Run(folder, recipe)
        try:
            ground = Ground(recipe, opened)
            train_member(ground, folder / "reward-model", self.trunk, judgements)
        finally:
            opened.close()
        (scorer,) = load_members(
            [folder / "reward-model"], ground.machine, recipe.text, micro_tokens=recipe.micro_tokens
        )
        return scorer

    def _by_trl(
        self, recipe: Recipe, seen: Sequence[Judgement], test: Sequence[Judgement], folder: Path
    ) -> list[Scored]:
        """TRL's scores of the test's answers, after as many steps on all pairs of the seen judgements."""
        settings = recipe.reward
        assert settings is not None
        if settings.start != "model":
            raise SystemExit(f"--trl starts from the recipe's model, and reward.start is {settings.start}")
        tokenizer = load_tokenizer(recipe.model.tokenizer or self.trunk)
        words = Words(tokenizer, recipe.text, context=context_of(AutoConfig.from_pretrained(self.trunk)))
        items, _ = judged_tokens(seen, words, settings)
        train = [
            ([*item.prompt, *item.answers[i]], [*item.prompt, *item.answers[j]])
            for item in items
            for i, here in enumerate(item.ranks)
            for j, there in enumerate(item.ranks)
            if here < there
        ]
        rows = [rows_of(one, words) for one in test]
        steps = max(1, math.ceil(settings.epochs * len(items) / settings.minibatch))
        optimiser = settings.optimiser
        minibatch = max(1, round(settings.epochs * len(train) / steps))
        parts = math.ceil(minibatch / 12)  # less padding and memory, and faster for it
        given = {
            "trunk": self.trunk,
            "tokenizer": recipe.model.tokenizer or self.trunk,
            "threads": torch.get_num_threads(),
            "seed": derive(recipe.seed, "trl") % 2**31,
            "train": train,
            "test": [row for judgement in rows for row in judgement],
            "scores": str(folder / "trl-scores.json"),
            "steps": steps,
            "minibatch": round(minibatch / parts),
            "parts": parts,
            "learning_rate": optimiser.learning_rate,
            "warmup": math.ceil(optimiser.warmup * steps),
            "decay": optimiser.decay,
            "weight_decay": optimiser.weight_decay,
            "clip_norm": optimiser.clip_norm,
        }
        path = folder / "trl.json"
        path.write_text(json.dumps(given), encoding="utf-8")
        done = subprocess.run(
            [PEERS, "-m", "benchmarks.real_reward_trl", str(path)],
            cwd=ROOT,
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"TRL's side ended with {done.returncode}:\n{done.stderr[-4000:]}")
        scores = iter(json.loads((folder / "trl-scores.json").read_text(encoding="utf-8")))
        return [[next(scores) for _ in judgement] for judgement in rows]


def version_of_trl() -> str:
    said = subprocess.run(
        [PEERS, "-c", "from importlib.metadata import version; print(version('trl'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    return said.stdout.strip()


def rows_of(judgement: Judgement, words: Words) -> list[list[int]]:
    """Each answer behind the prompt, as tokens."""
    prompt = words.prompt_ids(judgement.prompt)
    return [[*prompt, *words.answer_ids(answer, context_ids=prompt)] for answer in judgement.answers]


def score(scorer: ModelScorer, judgements: Sequence[Judgement]) -> list[Scored]:
    found: list[Scored] = []
    for start in range(0, len(judgements), 64):
        part = judgements[start : start + 64]
        scores = iter(scorer.score_texts([(one.prompt, [(a, True) for a in one.answers]) for one in part]))
        found += [[next(scores) for _ in one.answers] for one in part]
    return found


if __name__ == "__main__":
    main()
