"""One side of `benchmarks/reward_model.py`, in a process of its own: it does a step whenever the driver says so.

    echo '{"side": "ours", ...}' is what the driver writes; nobody types this.

The task: a prompt of 64 tokens, K ranked answers of 64, every pair of them. Both sides get it as texts, tokenise it
before the first step, and must have come to the same tokens. A step's cost is all CPU seconds of the process from the
driver's word to the end of the step: taking the batch, forward, backward, clipping, AdamW, metrics.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForSequenceClassification, LlamaConfig, PreTrainedTokenizerFast

TOKENS = 64
"""Of the prompt, and of each answer with its end token."""
VOCABULARY = 8192
SPECIAL = ("<unk>", "<pad>", "<s>", "</s>")
LEARNING_RATE = 1e-4


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


def batch_of(step: Sequence[Judged]) -> Any:
    """A step's judgements as the product reads them: records, tokens, one packed row."""
    from plaudit.recipe import Text
    from plaudit.records import Judgement, Prompt, Ranking
    from plaudit.text import Words
    from plaudit.training.reward_stage import judged_tokens

    ranked = [
        Judgement(
            prompt=Prompt(id=str(i), text=one.prompt),
            answers=tuple(one.answers),
            verdict=Ranking(ranks=tuple(range(1, len(one.answers) + 1))),
        )
        for i, one in enumerate(step)
    ]
    return judged_tokens(ranked, Words(words(), Text()))


def our_learner(precision: str, *, clip_norm: float = 1.0) -> Any:
    from plaudit.models.load import choose_machine
    from plaudit.models.network import RewardNetwork
    from plaudit.recipe import Optimiser, Recipe
    from plaudit.training.learner import ModelLearner

    optimiser = Optimiser(learning_rate=LEARNING_RATE, warmup=0, decay="constant", clip_norm=clip_norm)
    machine = choose_machine("cpu", precision, 1)
    network = RewardNetwork(reward_model())
    return ModelLearner(network, optimiser, steps=1000, machine=machine, micro_tokens=Recipe.model_fields["micro_tokens"].default)


def ours(turns: Turns, given: dict[str, Any]) -> dict[str, Any]:
    from plaudit.training.learner import Part
    from plaudit.training.objectives import JudgementLoss
    from plaudit.training.reward_stage import judged_batch

    learner = our_learner(given["precision"])
    items = [batch_of(judged(step, given["judgements"], given["answers"])) for step in range(given["steps"])]
    while turns.more():
        learner.step(Part(judged_batch(items[turns.step]), JudgementLoss()))
    return {}


def trl(turns: Turns, given: dict[str, Any]) -> dict[str, Any]:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import RewardConfig, RewardTrainer

    class Wait(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            control.should_training_stop = not turns.more()

        def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            control.should_training_stop = not turns.more()

    steps = [judged(step, given["judgements"], given["answers"]) for step in range(given["steps"] + 1)]
    rows = [
        {"prompt": one.prompt, "chosen": better, "rejected": worse}
        for step in steps
        for one in step
        for better, worse in one.pairs()
    ]
    pairs = len(rows) // len(steps)
    micro = given["micro"] or pairs
    with tempfile.TemporaryDirectory() as folder:
        arguments = RewardConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=given["precision"] == "bf16",
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=pairs // micro,
            max_steps=len(steps),
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            logging_steps=len(steps) + 1,
            dataloader_pin_memory=False,
            **given["settings"],
        )
        model = reward_model()
        model.set_attn_implementation(given["attention"])
        trainer = RewardTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=words(),
            callbacks=[Wait()],
        )
        trainer.train()
        return {"chosen": trainer.train_dataset[0]["chosen_ids"], "optim": str(arguments.optim)}


def nine(turns: Turns, given: dict[str, Any]) -> dict[str, Any]:
    """A plain loop: each answer behind its prompt, in one batch or one by one, then all pairs."""
    model, tokenizer = reward_model(), words()
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    better, worse = torch.tensor(list(itertools.combinations(range(given["answers"]), 2))).unbind(1)
    rows = [
        torch.tensor([tokenizer.encode(f"{one.prompt}{answer} </s>") for one in judged(step, 1, given["answers"]) for answer in one.answers])
        for step in range(given["steps"])
    ]
    while turns.more():
        row_KT = rows[turns.step]
        parts = row_KT.split(1) if given["one_by_one"] else [row_KT]
        with torch.autocast("cpu", torch.bfloat16, enabled=given["precision"] == "bf16"):
            score_K = torch.cat([model(input_ids=part, use_cache=False).logits.squeeze(-1) for part in parts]).float()
        loss = -F.logsigmoid(score_K[better] - score_K[worse]).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        loss.item()
    return {"chosen": rows[0][0].tolist()}


SIDES: dict[str, Callable[[Turns, dict[str, Any]], dict[str, Any]]] = {"ours": ours, "trl": trl, "nine": nine}


def main() -> None:
    given = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision(given["matmul"])
    turns = Turns()
    found = SIDES[given["side"]](turns, given)
    turns.tell({**found, "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})


if __name__ == "__main__":
    main()
