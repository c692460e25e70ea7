"""One side of `benchmarks/reward_model.py`, in a process of its own: it does a step whenever the driver says so.

The driver writes the arguments; nobody types them. Each side gets the same judgements as texts, makes tokens of them
before its first step, and tells the driver which tokens they were.

Shape letters:  K answers of one prompt   T tokens
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import AutoModelForSequenceClassification, LlamaConfig, PreTrainedTokenizerFast

TOKENS = 64
"""Of the prompt, and of each answer with its end token."""
VOCABULARY = 8192
SPECIAL = ("<unk>", "<pad>", "<s>", "</s>")
LEARNING_RATE = 1e-4
CLIP_NORM = 1.0
MANY = 1_000_000
"""Steps that nobody gets to: the driver says when to stop."""


class Judged(NamedTuple):
    """A prompt and its answers, the best first."""

    prompt: str
    answers: list[str]

    def pairs(self) -> list[tuple[str, str]]:
        """Every better answer beside a worse one."""
        return list(itertools.combinations(self.answers, 2))


class Turns:
    """Waits for the driver's word before each step, and tells it afterwards what the step cost."""

    def __init__(self) -> None:
        self._answer = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what libraries print is not for the driver
        self._begun: float | None = None
        self.step = -1

    def more(self) -> bool:
        """True when there is another step to do, from which on time counts; `step` is its number."""
        cpu = time.process_time()
        self.tell({"cpu": None if self._begun is None else cpu - self._begun})
        another = sys.stdin.readline().strip() == "step"
        self.step += 1
        self._begun = time.process_time()
        return another

    def tell(self, answer: dict[str, Any]) -> None:
        """One line of JSON for the driver."""
        print(json.dumps(answer), file=self._answer, flush=True)


def words() -> PreTrainedTokenizerFast:
    """A tokenizer that makes one token of each word."""
    names = [*SPECIAL, *(f"w{i}" for i in range(VOCABULARY - len(SPECIAL)))]
    plain = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token=SPECIAL[0]))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    unk, pad, bos, eos = SPECIAL
    return PreTrainedTokenizerFast(tokenizer_object=plain, unk_token=unk, pad_token=pad, bos_token=bos, eos_token=eos)


def reward_model() -> Any:
    """The S model: 8.3 million weights drawn from one seed, a head with one label."""
    config = LlamaConfig(
        hidden_size=288,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=6,
        intermediate_size=768,
        vocab_size=VOCABULARY,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=SPECIAL.index("<pad>"),
        bos_token_id=SPECIAL.index("<s>"),
        eos_token_id=SPECIAL.index("</s>"),
        num_labels=1,
    )
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa").train()


def judged(step: int, number: int, answers: int) -> list[Judged]:
    """The judgements of a step."""
    rng = random.Random(1000 * answers + step)

    def text(tokens: int) -> str:
        return " ".join(f"w{rng.randrange(VOCABULARY - len(SPECIAL))}" for _ in range(tokens))

    return [Judged(text(TOKENS), [" " + text(TOKENS - 1) for _ in range(answers)]) for _ in range(number)]


def our_items(given: dict[str, Any], step: int) -> list[Any]:
    """A step's judgements as the product reads them, as tokens."""
    from plaudit.recipe import Reward, Text
    from plaudit.records import Judgement, Prompt, Ranking
    from plaudit.text import Words
    from plaudit.training.judged import judged_tokens

    ranked = [
        Judgement(
            prompt=Prompt(id=str(i), text=one.prompt),
            answers=tuple(one.answers),
            verdict=Ranking(ranks=tuple(range(1, len(one.answers) + 1))),
        )
        for i, one in enumerate(judged(step, given["judgements"], given["answers"]))
    ]
    return judged_tokens(ranked, Words(words(), Text()), Reward())[0]


def our_learner(precision: str, *, clip_norm: float = CLIP_NORM) -> Any:
    """The product's own learner on the S model."""
    from plaudit.models.load import choose_machine
    from plaudit.models.network import RewardNetwork
    from plaudit.recipe import Optimiser, Recipe
    from plaudit.training.learner import ModelLearner

    optimiser = Optimiser(learning_rate=LEARNING_RATE, warmup=0, decay="constant", clip_norm=clip_norm)
    return ModelLearner(
        RewardNetwork(reward_model()),
        optimiser,
        steps=MANY,
        machine=choose_machine("cpu", precision, 1),
        micro_tokens=Recipe.model_fields["micro_tokens"].default,
    )


def ours(turns: Turns, given: dict[str, Any]) -> dict[str, Any]:
    """The product: every answer is scored once, behind its prompt, which is read once."""
    from plaudit.training.judged import judged_batch
    from plaudit.training.learner import Part
    from plaudit.training.objectives import JudgementLoss

    learner = our_learner(given["precision"])
    items = [our_items(given, step) for step in range(given["steps"])]
    while turns.more():
        learner.step(Part(judged_batch(items[turns.step % len(items)]), JudgementLoss()))
    return {"tokens": [*items[0][0].prompt, *items[0][0].answers[0]]}


def trl(turns: Turns, given: dict[str, Any]) -> dict[str, Any]:
    """TRL's RewardTrainer on all pairs."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import RewardConfig, RewardTrainer

    class Wait(TrainerCallback):
        """Stops the training loop between two steps, where nothing of a step is left to do."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            control.should_training_stop = not turns.more()

        def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            control.should_training_stop = not turns.more()

    steps = [judged(step, given["judgements"], given["answers"]) for step in range(given["steps"])]
    rows = [
        {"prompt": one.prompt, "chosen": better, "rejected": worse}
        for step in steps
        for one in step
        for better, worse in one.pairs()
    ]
    pairs = len(rows) // len(steps)
    micro = given.get("micro", pairs)
    with tempfile.TemporaryDirectory() as folder:
        arguments = RewardConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=given["precision"] == "bf16",
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=pairs // micro,
            max_steps=MANY,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            logging_steps=MANY,
            dataloader_pin_memory=False,
            gradient_checkpointing=False,
            max_grad_norm=CLIP_NORM,
        )
        model = reward_model()
        model.set_attn_implementation(given.get("attention", "sdpa"))
        trainer = RewardTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=words(),
            callbacks=[Wait()],
        )
        trainer.train()
        return {"tokens": list(trainer.train_dataset[0]["chosen_ids"])}


def nine(turns: Turns, given: dict[str, Any]) -> dict[str, Any]:
    """A plain loop: each answer behind its prompt, in one batch or one by one, then all pairs."""
    model = reward_model()
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    rows = [rows_KT(step, given["answers"]) for step in range(given["steps"])]
    while turns.more():
        row_KT = rows[turns.step % len(rows)]
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=given["precision"] == "bf16"):
            parts = [
                plain_scores_K(model, part) for part in row_KT.split(1 if given.get("one_by_one") else len(row_KT))
            ]
        loss = pairs_loss(torch.cat(parts))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimiser.step()
        loss.item()
    return {"tokens": rows[0][0].tolist()}


def rows_KT(step: int, answers: int) -> Tensor:
    """A step's one judgement, each answer behind its prompt."""
    (one,) = judged(step, 1, answers)
    return torch.tensor([words().encode(f"{one.prompt}{answer} {SPECIAL[3]}") for answer in one.answers])


def plain_scores_K(model: Any, row_KT: Tensor) -> Tensor:
    """Transformers' own score of each row."""
    scores: Tensor = model(input_ids=row_KT, use_cache=False).logits.squeeze(-1).float()
    return scores


def pairs_loss(score_K: Tensor) -> Tensor:
    """The mean over all pairs, the first answer the best."""
    better, worse = torch.tensor(list(itertools.combinations(range(len(score_K)), 2))).unbind(1)
    return -F.logsigmoid(score_K[better] - score_K[worse]).mean()


def check(given: dict[str, Any]) -> dict[str, Any]:
    """How far the product's scores and gradients are from the plain ones, and the versions that were measured."""
    from plaudit.batch import Needs
    from plaudit.training.judged import judged_batch
    from plaudit.training.learner import Part
    from plaudit.training.objectives import JudgementLoss

    row_KT = rows_KT(0, given["answers"])
    model = reward_model()
    plain_K = plain_scores_K(model, row_KT)
    pairs_loss(plain_K).backward()
    learner = our_learner("fp32", clip_norm=1e9)
    batch = judged_batch(our_items({**given, "judgements": 1}, 0))
    tree_K = learner.forward(batch, Needs(score=True)).score_B
    learner.step(Part(batch, JudgementLoss()))
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    got = {name: parameter.grad for name, parameter in learner.network.model.named_parameters()}
    away = torch.cat([(got[name] - gradient).flatten() for name, gradient in expected.items()])
    whole = torch.cat([gradient.flatten() for gradient in expected.values()])
    return {
        "score_difference": float((tree_K - plain_K).detach().abs().max()),
        "gradient_difference": float(away.norm() / whole.norm()),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("plaudit", "trl", "torch", "transformers", "accelerate", "datasets")},
    }


def picture(given: dict[str, Any]) -> dict[str, Any]:
    """Draw the cost per comparison by the number of answers."""
    from matplotlib.figure import Figure

    folder = Path(given["results"])
    result = json.loads((folder / "reward_model.json").read_text(encoding="utf-8"))
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for (name, costs), colour in zip(result["milliseconds_per_comparison"].items(), ("C0", "C7"), strict=True):
        answers = [int(k) for k in costs]
        axes.plot(answers, list(costs.values()), "o-", color=colour, label=name)
        for k, cost in zip(answers, costs.values(), strict=True):
            axes.annotate(f"{cost:.3g}", (k, cost), textcoords="offset points", xytext=(0, 7), ha="center")
    axes.set(xscale="log", yscale="log", xlabel="ranked answers of a prompt (K)", ylabel="CPU ms per comparison")
    axes.set_xticks(answers, [str(k) for k in answers], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_title("Training a reward model: cost of a comparison, one thread, fp32")
    axes.margins(y=0.15)
    axes.legend()
    figure.savefig(folder / "reward_model.png", dpi=120)
    return {}


TRAINERS: dict[str, Callable[[Turns, dict[str, Any]], dict[str, Any]]] = {"ours": ours, "trl": trl, "nine": nine}
OTHERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {"check": check, "picture": picture}


def main() -> None:
    given = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision(given["matmul"])
    turns = Turns()
    if given["side"] in OTHERS:
        turns.tell(OTHERS[given["side"]](given))
        return
    found = TRAINERS[given["side"]](turns, given)
    turns.tell({**found, "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})


if __name__ == "__main__":
    main()
