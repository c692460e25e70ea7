"""A GPT-2, a reward model and a policy gradient: Plaudit's stages from Python, in one page.

    python examples/tutorials/gpt2_reward_policy.py [FOLDER]

The GPT-2 is made here, with two small layers and random weights, so what it says is noise: letters. The people are made
here too. Shown two answers, they choose the one with more vowels, and are wrong one time in ten. From their choices
Plaudit trains a reward model (the same GPT-2 with a linear layer on top, by the Bradley-Terry loss), and then tunes the
GPT-2 against it by REINFORCE with a leave-one-out baseline and a cost for KL. Nobody tells the policy about vowels: it
has to find out from the reward model, which had to find out from the choices.

With a model and files of your own, only the paths change. FOLDER (by default one that is thrown away) keeps the run:
`report.html` in it shows the curves, and `policy/` is a plain Transformers folder.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from plaudit.loop import run
from plaudit.recipe import recipe_from
from plaudit.testing.tiny import LETTERS, tiny_tokenizer

PROMPTS = [f"say {first}{second}" for first in "abcdefghijkl" for second in "mnopqrstuvwxyz"]


def make_gpt2(folder: Path) -> None:
    """A model with its tokenizer, as `from_pretrained` would find them: one token for each letter."""
    tokenizer = tiny_tokenizer()
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=32, n_embd=32, n_layer=2, n_head=4, initializer_range=0.1,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def vowels(text: str) -> float:
    """The share of an answer's characters that are vowels."""
    return sum(letter in "aeiou" for letter in text) / max(1, len(text))


def ask_people(path: Path) -> None:
    """600 choices between two answers of random letters, one line each."""
    draw = random.Random(0)
    lines: list[dict[str, str]] = []
    while len(lines) < 600:
        answers = ["".join(draw.choice(LETTERS) for _ in range(draw.randint(4, 12))) for _ in range(2)]
        if vowels(answers[0]) == vowels(answers[1]):
            continue
        answers.sort(key=vowels, reverse=draw.random() < 0.9)  # the better one first, nine times out of ten
        lines.append({"prompt": PROMPTS[len(lines) % len(PROMPTS)], "chosen": answers[0], "rejected": answers[1]})
    write(path, lines)


def write(path: Path, lines: list[dict[str, str]]) -> None:
    """A file of JSON lines."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def tune(folder: Path) -> dict[str, Any]:
    """Both stages; the summary of the run."""
    make_gpt2(folder / "gpt2")
    ask_people(folder / "choices.jsonl")
    write(folder / "prompts.jsonl", [{"prompt": prompt} for prompt in PROMPTS])
    sampling = {"max_tokens": 12, "temperature": 1.0}
    recipe = recipe_from(
        {
            "threads": 1,
            "device": "cpu",
            "model": {"path": str(folder / "gpt2")},
            "text": {"max_prompt_tokens": 16, "max_answer_tokens": 16},
            "data": {
                "judgements": [{"path": str(folder / "choices.jsonl")}],
                "prompts": [{"path": str(folder / "prompts.jsonl")}],
                "held_out": 0.2,
            },
            "reward": {"start": "model", "epochs": 3, "minibatch": 16, "optimiser": {"learning_rate": 0.01}},
            "policy": {
                "algorithm": "rloo",
                "steps": 30,
                "prompts_per_round": 8,
                "answers_per_prompt": 8,
                "kl": {"beta": 0.05},
                "sampling": sampling,
                "optimiser": {"learning_rate": 0.01, "warmup": 0.0, "decay": "linear"},
            },
            "evaluate": {"prompts": 32, "sampling": sampling},
        }
    )
    return run(recipe, folder / "run")


def main(folder: Path) -> None:
    """Make, ask, train, tune, and compare."""
    summary = tune(folder)
    print(f"reward model: right on {summary['reward_accuracy']:.0%} of the choices that it was not trained on")
    print(f"reward: {summary['reward_before']:.2f} before, {summary['reward_after']:.2f} after")
    print(f"KL to the model before: {summary['kl_nats']:.1f} nats an answer")
    compared = [json.loads(line) for line in (folder / "run" / "evaluation.jsonl").read_text("utf-8").splitlines()]
    for when in ("before", "after"):
        texts = [line[when]["text"] for line in compared]
        share = sum(map(vowels, texts)) / len(texts)
        print(f"{when}: {share:.0%} of the letters are vowels, such as {texts[0]!r}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as thrown_away:
            main(Path(thrown_away))
