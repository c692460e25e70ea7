"""RLOO and GRPO beside TRL's: the same model, answers and rewards given to both, loss and gradient compared.

    make peers
    .peers/bin/python -m benchmarks.policy_trl --json

Two rounds of two steps each, so that ratios leave 1 and the policy its reference. A tiny Llama answers, an arbitrary
function of the answer rewards it, and plain gradient descent moves the weights. TRL's trainers run whole and are given
the answers by a model whose `generate` returns them; nothing of theirs is replaced, and gradients are read right before
the optimiser's step. `difference` is the largest of a step: of the loss, in its own unit; of the gradient, the norm of
the difference over the norm.

TRL's RLOO takes a whole answer for one action (`objective: answer`); its GRPO multiplies k3 by the ratio unless told
not to (`kl.estimator: ratio-k3`). Both sides take the old log-probabilities from a forward pass, as TRL does.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import torch
from torch import Tensor

from plaudit.batch import Needs
from plaudit.environments import OneTurn, play
from plaudit.models.load import Machine
from plaudit.models.network import LanguageNetwork
from plaudit.recipe import Text
from plaudit.records import Prompt
from plaudit.sampling import ModelSampler
from plaudit.scorers import FunctionScorer
from plaudit.testing.tiny import tiny_model, tiny_tokenizer
from plaudit.text import Words
from plaudit.training.algorithms import batch_of, estimated, kept, loss_of
from plaudit.training.learner import ModelLearner, Part
from plaudit.training.objectives import TextBatch
from plaudit.training.rollouts import Reference, rolled_out, sampled
from plaudit.tuning import Optimiser, Policy, parts_of

ROUNDS, EPOCHS, GROUP, TOKENS, BETA, RATE = 2, 2, 4, 12, 0.1, 0.05
PROMPTS = [Prompt(text=text, id=text) for text in ("so", "he said", "why not", "a b c", "yes", "no one")]
CPU = Machine(device=torch.device("cpu"), bf16=False)
IN_LOSS = {"beta": BETA, "where": "loss"}
PLAIN = {"trainer": "GRPO", "use_bias_correction_kl": False}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "rloo": (
        {"algorithm": "rloo", "objective": "answer", "reduction": "answers", "kl": {"beta": BETA}},
        {"trainer": "RLOO"},
    ),
    "grpo": ({"algorithm": "grpo", "kl": IN_LOSS}, {**PLAIN, "loss_type": "grpo"}),
    "grpo, ratio-k3": (
        {"algorithm": "grpo", "kl": {**IN_LOSS, "estimator": "ratio-k3"}},
        {"trainer": "GRPO", "loss_type": "grpo"},
    ),
    "dr-grpo": (
        {"algorithm": "dr-grpo", "kl": IN_LOSS},
        {**PLAIN, "loss_type": "dr_grpo", "scale_rewards": "none"},
    ),
    "dapo, k3 in the loss": (
        {"algorithm": "dapo", "kl": {**IN_LOSS, "estimator": "k3"}, "drop_flat": False},
        {**PLAIN, "loss_type": "dapo", "epsilon_high": 0.28},
    ),
}
"""Name -> our policy section, and what TRL's trainer is told."""


class Taken(NamedTuple):
    """A step."""

    loss: float
    gradient_D: Tensor


class Given(NamedTuple):
    """An answer, as both sides get it."""

    prompt: str
    token_ids: tuple[int, ...]
    reward: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for name, (ours, theirs) in CASES.items():
        answers, mine = our_steps(Policy.model_validate({**ours, "sampling": {"max_tokens": TOKENS}}))
        yours = their_steps(answers, **theirs)
        assert len(mine) == len(yours) == ROUNDS * EPOCHS, f"{name}: {len(mine)} steps of ours, {len(yours)} of TRL's"
        losses = [abs(a.loss - b.loss) for a, b in zip(mine, yours, strict=True)]
        gradients = [
            float((a.gradient_D - b.gradient_D).norm() / b.gradient_D.norm()) for a, b in zip(mine, yours, strict=True)
        ]
        found[name] = {"loss_difference": max(losses), "gradient_difference": max(gradients)}
        found[name]["holds"] = max(*losses, *gradients) <= 1e-5
        print(f"{name:21} loss {max(losses):.1e}  gradient {max(gradients):.1e}")
    result = {
        "benchmark": "policy_trl",
        "algorithms": found,
        "hardware": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), "threads": 1},
        "versions": {name: version(name) for name in ("torch", "transformers", "trl")},
        "command": ".peers/bin/python -m benchmarks.policy_trl --json",
    }
    if given.json:
        print(json.dumps(result))
    if not all(row["holds"] for row in found.values()):
        sys.exit(1)


def reward_of(text: str) -> float:
    """Anything that differs from answer to answer."""
    return sum(map(ord, text)) % 17 / 8 - 1


def our_steps(settings: Policy) -> tuple[list[list[Given]], list[Taken]]:
    """Sample, score and step; gives the answers of each round, and the steps."""
    words = Words(tiny_tokenizer(), Text())
    network = LanguageNetwork(tiny_model())
    learner = ModelLearner(network, Optimiser(), steps=99, machine=CPU, micro_tokens=8192)
    reference = Reference(LanguageNetwork(tiny_model()), adapted=False, machine=CPU, micro_tokens=8192)
    sampler = ModelSampler(network.model, words, CPU)
    environment = OneTurn(FunctionScorer(lambda prompt, answer: reward_of(answer)))
    parts, rounds, steps = parts_of(settings), [], []
    for round_ in range(ROUNDS):
        groups = sampled(sampler, words, PROMPTS, settings.sampling, 0, round_, answers=GROUP)
        played = play(sampler, environment, words, groups, settings.sampling, turns=1)
        rollout = rolled_out(learner, reference, played, critic=False)
        old = learner.forward(TextBatch(tree=rollout.tree), Needs(logp=True))
        rollout = kept(dataclasses.replace(rollout, old_logp_BT=old.logp_BT), parts)
        batch = batch_of(rollout, estimated(rollout, settings, parts, beta=BETA))
        loss = loss_of(settings, parts, beta=BETA, entropy=0.0)
        for _ in range(EPOCHS):
            total = loss(learner.forward(batch, loss.needs), batch)
            gradient_D = learner.gradient(Part(batch, loss), group="policy")
            steps.append(Taken(float(total.total) / total.denominator, gradient_D))
            learner.add(-RATE * gradient_D, group="policy")
        answers = [(group.prompt.id, answer) for group in groups for answer in group.answers]
        rounds.append([Given(p, answer.token_ids, r) for (p, answer), r in zip(answers, played.rewards, strict=True)])
    return rounds, steps


def their_steps(rounds: Sequence[Sequence[Given]], *, trainer: str, **told: Any) -> list[Taken]:
    """TRL's trainer on the same answers and rewards."""
    import datasets
    import trl
    from transformers import TrainerCallback

    tokenizer, steps, losses = tiny_tokenizer(), [], []
    with tempfile.TemporaryDirectory() as folder:
        tiny_model().save_pretrained(f"{folder}/model")  # TRL loads the reference from there
        tokenizer.save_pretrained(f"{folder}/model")
        model = _telling(f"{folder}/model", rounds, pad=tokenizer.pad_token_id)
        rewards = iter([[one.reward for one in answers] for answers in rounds])

        class Watching(TrainerCallback):
            def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **more: Any) -> None:
                gradient_D = torch.cat([p.grad.flatten() for p in more["model"].parameters()]).clone()
                steps.append(gradient_D)

        class Telling(getattr(trl, f"{trainer}Trainer")):  # type: ignore[misc]
            def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
                loss = super().compute_loss(*args, **kwargs)
                losses.append(float(loss))
                return loss

        settings = getattr(trl, f"{trainer}Config")(
            output_dir=f"{folder}/out",
            use_cpu=True,
            bf16=False,
            per_device_train_batch_size=len(PROMPTS) * GROUP,
            num_generations=GROUP,
            num_iterations=EPOCHS,
            steps_per_generation=1,
            max_completion_length=TOKENS,
            max_steps=ROUNDS * EPOCHS,
            beta=BETA,
            max_grad_norm=0.0,
            shuffle_dataset=False,
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            **told,
        )
        optimiser = torch.optim.SGD(model.parameters(), lr=RATE)
        Telling(
            model=model,
            args=settings,
            reward_funcs=lambda completions, **_: next(rewards),
            train_dataset=datasets.Dataset.from_list([{"prompt": prompt.text} for prompt in PROMPTS]),
            processing_class=tokenizer,
            optimizers=(optimiser, torch.optim.lr_scheduler.ConstantLR(optimiser, factor=1.0)),
            callbacks=[Watching()],
        ).train()
    return [Taken(loss, gradient_D) for loss, gradient_D in zip(losses, steps, strict=True)]


def _telling(folder: str, rounds: Sequence[Sequence[Given]], *, pad: int) -> Any:
    """The model, but `generate` returns the answers of one round after the other."""
    from transformers import LlamaForCausalLM

    left: Iterator[Sequence[Given]] = iter(rounds)

    class Telling(LlamaForCausalLM):
        def generate(self, input_ids: Tensor, **_: Any) -> Tensor:
            answers = next(left)
            longest = max(len(one.token_ids) for one in answers)
            rows = [[*one.token_ids, *([pad] * (longest - len(one.token_ids)))] for one in answers]
            return torch.cat([input_ids, torch.tensor(rows)], dim=1)

    return Telling.from_pretrained(folder)


if __name__ == "__main__":
    main()
