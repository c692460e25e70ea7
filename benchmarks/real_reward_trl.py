"""TRL's RewardTrainer on one fold of `benchmarks/real_reward.py`, in the peers' environment: tokens in, scores out.

The driver writes the file of arguments; nobody types them. `trunk` is a model folder, `train` the pairs (better, worse)
as tokens, prompt and answer in one row, `test` the rows to score; the scores go to `scores`.

Shape letters:  N rows   T tokens
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import RewardConfig, RewardTrainer


def main() -> None:
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(given["threads"])
    torch.manual_seed(given["seed"])
    model = AutoModelForSequenceClassification.from_pretrained(given["trunk"], num_labels=1, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(given["tokenizer"])
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    train(model, tokenizer, given)
    model.eval()
    with torch.no_grad():
        scores = [score for start in range(0, len(given["test"]), 32) for score in scored(model, given, start)]
    Path(given["scores"]).write_text(json.dumps(scores), encoding="utf-8")


def train(model: Any, tokenizer: Any, given: dict[str, Any]) -> None:
    """The same number of steps, learning rates and pairs as ours; the rest as TRL has it."""
    rows = [{"chosen_ids": better, "rejected_ids": worse} for better, worse in given["train"]]
    with tempfile.TemporaryDirectory() as folder:
        arguments = RewardConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            seed=given["seed"],
            per_device_train_batch_size=given["minibatch"],
            gradient_accumulation_steps=given["parts"],
            max_steps=given["steps"],
            learning_rate=given["learning_rate"],
            lr_scheduler_type=given["decay"],
            warmup_steps=given["warmup"],
            weight_decay=given["weight_decay"],
            max_grad_norm=given["clip_norm"],
            max_length=None,
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            logging_steps=given["steps"],
            dataloader_pin_memory=False,
        )
        trainer = RewardTrainer(
            model=model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
        )
        trainer.train()


def scored(model: Any, given: dict[str, Any], start: int) -> list[float]:
    """Transformers' own scores of the rows from `start` on."""
    rows = [torch.tensor(row) for row in given["test"][start : start + 32]]
    row_NT = pad_sequence(rows, batch_first=True, padding_value=model.config.pad_token_id)
    mask_NT = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    score_N: Tensor = model(input_ids=row_NT, attention_mask=mask_NT, use_cache=False).logits.squeeze(-1)
    return score_N.tolist()


if __name__ == "__main__":
    main()
