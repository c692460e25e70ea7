"""Every policy-gradient algorithm on a task whose optimum is known: how much of the way to it, from samples alone.

    python -m benchmarks.algorithms --json [--seeds 10] [--only rloo ppo] [--work runs/algorithms]

The task is `plaudit.testing.make_laboratory`: three prompts, 121 answers each, rewards, reference, first weights and
sampling drawn anew for each seed. The policy, a small neural network at the reference, learns through the product's
own policy stage (`plaudit.testing.laboratory_stage`), from sampled answers alone; how far it has come is then
computed by enumeration: share = (J - J_ref) / (J* - J_ref), J = E[r] - beta KL, for beta 1, and for beta 0.3 with a
price of KL that falls from 1 (`kl.start`). Algorithms that climb something else are held to what they climb
(`own_objectives.py`), on a table of logits where the network's local optima would be what is measured; their share of
J stands beside.

`--work` keeps what each run reached, and the same command goes on from there. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from benchmarks.measured import circumstances
from benchmarks.own_objectives import Aim, largest_reward, steps_at_rest, text_policy, with_text
from torch import Tensor

from plaudit.batch import pack
from plaudit.models.load import Machine
from plaudit.testing import Laboratory, Table, make_laboratory
from plaudit.testing.stage import LaboratoryNetwork, laboratory_stage
from plaudit.training.learner import ModelLearner, Part
from plaudit.training.preference_stage import PreferenceBatch, PreferenceLoss
from plaudit.training.text_stages import TokenText, texts_beside
from plaudit.tuning import Policy

TEXT_WEIGHT = 0.1
"""Of E_D[log pi] in the objective of ppo-ptx, in units of reward a nat."""
LEARNING = {"learning_rate": 0.02, "warmup": 0, "decay": "linear", "clip_norm": 1e9}
BETAS = (1.0, 0.3)
BAR = (0.99, 0.97)
"""Share of the way on average, and in the worst seed."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """An algorithm as it is run here."""

    settings: Mapping[str, Any]
    """Of the policy section, besides what all have."""
    rounds: int = 1500
    prompts: int = 48
    group: int = 8
    bars: Mapping[float, tuple[float, float]] = field(default_factory=dict)
    """By beta, where they are not `BAR`."""
    aim: Aim | None = None
    """What it is held to, where that is not J."""
    betas: tuple[float, ...] = BETAS
    table: bool = False
    """Tune a table of logits, not a network."""

    def samples(self) -> int:
        """Answers drawn in all."""
        fresh = self.settings.get("fresh", 4) if self.settings.get("baseline") == "fresh" else 0
        return self.rounds * self.prompts * (self.group + fresh)


EPOCHS = 4
"""Times dpo sees each pair."""
IN_LOSS = {"where": "loss", "estimator": "k3"}
IN_REWARD = {"where": "reward", "estimator": "k1"}
CASES = {
    **{
        f"reinforce, {name}": Case(settings={"algorithm": "reinforce", "baseline": name}, rounds=2500)
        for name in ("none", "running", "prompt", "greedy")
    },
    "reinforce, constant": Case(
        settings={"algorithm": "reinforce", "baseline": "constant", "constant": 0.5}, rounds=2500
    ),
    "reinforce, leave-one-out": Case(settings={"algorithm": "reinforce", "baseline": "leave-one-out"}, rounds=800),
    "reinforce, fresh": Case(settings={"algorithm": "reinforce", "baseline": "fresh", "fresh": 4}, rounds=1200),
    "rloo": Case(settings={"algorithm": "rloo"}, rounds=800),
    "grpo, KL in the reward": Case(settings={"algorithm": "grpo", "kl": IN_REWARD}, bars={0.3: (0.99, 0.95)}),
    "dr-grpo, KL in the reward": Case(settings={"algorithm": "dr-grpo", "kl": IN_REWARD}, rounds=800),
    "a2c": Case(settings={"algorithm": "a2c"}, rounds=1000),
    "ppo": Case(settings={"algorithm": "ppo", "epochs": 2}, rounds=1000),
    "reinforce++": Case(settings={"algorithm": "reinforce++"}),
    "sac": Case(
        settings={"algorithm": "sac", "optimiser": {**LEARNING, "learning_rate": 0.01}}, rounds=500, prompts=24
    ),
    "ppg": Case(settings={"algorithm": "ppg", "epochs": 2}),
    "trpo": Case(settings={"algorithm": "trpo", "epochs": 2, "trust": {"bound": 0.01}}, rounds=400),
    "grpo, k3 in the loss": Case(
        settings={"algorithm": "grpo", "kl": IN_LOSS},
        aim=steps_at_rest(over_answers=True, normalised=True, group=8),
        bars=dict.fromkeys(BETAS, (0.93, 0.0)),
        table=True,
    ),
    "dr-grpo, k3 in the loss": Case(
        settings={"algorithm": "dr-grpo", "kl": IN_LOSS},
        aim=steps_at_rest(over_answers=False, normalised=False, group=8),
        bars=dict.fromkeys(BETAS, (0.93, 0.0)),
        table=True,
    ),
    "ppo-ptx": Case(settings={"algorithm": "ppo-ptx", "epochs": 2}, aim=with_text(TEXT_WEIGHT)),
    "dpo": Case(
        settings={"algorithm": "dpo", "optimiser": {**LEARNING, "learning_rate": 0.3}},
        rounds=1600,
        prompts=300,
        group=2,
        table=True,
    ),
    "dapo, no KL": Case(
        settings={"algorithm": "dapo", "kl": {"beta": 0.0, "start": None}},
        aim=largest_reward(),
        bars={1.0: (0.90, 0.80)},
        betas=(1.0,),
        table=True,
    ),
}


def main() -> None:
    given = arguments()
    names = given.only or list(CASES)
    given.work.mkdir(parents=True, exist_ok=True)
    jobs = [(name, beta, seed) for name in names for beta in CASES[name].betas for seed in range(given.seeds)]
    begun = time.perf_counter()
    with ProcessPoolExecutor(given.jobs) as pool:
        runs = dict(zip(jobs, pool.map(one_run, jobs, [given.work] * len(jobs)), strict=True))
    result: dict[str, Any] = {"benchmark": "algorithms", "seeds": given.seeds, "algorithms": {}}
    for name in names:
        for beta in CASES[name].betas:
            mine = [runs[name, beta, seed] for seed in range(given.seeds)]
            row = verdict(CASES[name], beta, mine)
            result["algorithms"][f"{name}, beta {beta:g}"] = row
            print(
                f"{name:28} beta {beta:<4g} {row['optimum_share']:.4f}  worst {row['worst_seed']:.4f}"
                f"  {'holds' if row['holds'] else 'FALLS SHORT'}",
                flush=True,
            )
    result |= circumstances("algorithms")
    result["seconds"] = round(time.perf_counter() - begun, 1)
    if given.json:
        print(json.dumps(result))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", nargs="*", choices=list(CASES), metavar="NAME", help=f"of {', '.join(CASES)}")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side, each on one thread")
    parser.add_argument("--work", type=Path, default=Path("runs/algorithms"), help="where each run's share is kept")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    return parser.parse_args()


class Reached(NamedTuple):
    """How far a run went."""

    share: float
    """Of the way to what it is held to."""
    of_j: float
    """Of the way to the optimum of E[r] - beta KL."""


def one_run(job: tuple[str, float, int], work: Path) -> Reached:
    """One run, or what it reached when it was run before."""
    name, beta, seed = job
    case = CASES[name]
    settings = settings_of(case, beta)
    kept = work / f"{name.replace(', ', '-').replace(' ', '_')}-{beta:g}-{seed}.json"
    described = settings.model_dump(mode="json")
    if kept.exists():
        before = json.loads(kept.read_text(encoding="utf-8"))
        if before["settings"] == described:
            return Reached(before["share"], before.get("of_j", before["share"]))
    torch.set_num_threads(1)
    lab = make_laboratory(seed, beta=beta)
    begun = time.process_time()
    logp_PSV = (from_pairs if case.settings["algorithm"] == "dpo" else from_answers)(lab, case, settings, seed)
    of_j = lab.share(logp_PSV)
    reached = Reached(of_j if case.aim is None else case.aim.share(lab, logp_PSV), of_j)
    found = {"settings": described, **reached._asdict(), "cpu_seconds": round(time.process_time() - begun, 1)}
    kept.write_text(json.dumps(found), encoding="utf-8")
    return reached


def from_answers(lab: Laboratory, case: Case, settings: Policy, seed: int) -> Tensor:
    """[P, S, V] the policy that learned from rewards of its answers."""
    policy = Table(lab) if case.table else None
    if settings.algorithm != "ppo-ptx":
        task = laboratory_stage(lab, settings, seed=seed, policy=policy)
    else:
        # the stage weighs nats per token, beside sums that are divided by the longest answer there may be
        texts, tokens = texts_of(lab, 2000, seed)
        weight = TEXT_WEIGHT * tokens / settings.sampling.max_tokens
        settings = settings.model_copy(update={"pretraining": weight})
        beside = texts_beside({"pretraining_loss": (weight, texts)}, 192, seed)
        task = laboratory_stage(lab, settings, seed=seed, policy=policy, beside=beside)
    task.climb()
    logp_PSV: Tensor = task.policy()
    return logp_PSV.detach()


def texts_of(lab: Laboratory, count: int, seed: int) -> tuple[list[TokenText], float]:
    """So many answers to each prompt by the policy that wrote the text, and how many tokens one has on average."""
    logp_PSV = text_policy(lab)
    answer_PG = lab.sample(logp_PSV, count, torch.Generator().manual_seed(seed))
    lengths = lab.mask_AT.sum(1)
    texts: list[TokenText] = [
        ((lab.ref_PSV.shape[-1] + p,), tuple(lab.token_AT[a, : lengths[a]].tolist()), str(p))
        for p, answers in enumerate(answer_PG.tolist())
        for a in answers
    ]
    return texts, float((lab.answer_logp(logp_PSV).exp() * lengths).sum(-1).mean())


def from_pairs(lab: Laboratory, case: Case, settings: Policy, seed: int) -> Tensor:
    """[P, S, V] the policy that learned from which of two answers, any two, somebody preferred: sigmoid(r - r')."""
    policy, generator = Table(lab), torch.Generator().manual_seed(seed)
    network = LaboratoryNetwork(lab, policy)
    machine = Machine(device=torch.device("cpu"), bf16=False)
    learner = ModelLearner(network, settings.optimiser, steps=case.rounds, machine=machine, micro_tokens=2**30)
    loss, ref_PA = PreferenceLoss(kind="dpo", beta=settings.kl.beta), lab.answer_logp(lab.ref_PSV)
    pairs = case.rounds * case.prompts
    prompt_N = torch.randint(lab.prompts, (pairs,), generator=generator)
    answer_N2 = torch.randint(lab.answers, (pairs, 2), generator=generator)
    reward_N2 = lab.reward_PA[prompt_N[:, None], answer_N2]
    first_N = torch.rand(pairs, generator=generator) < (reward_N2[:, 0] - reward_N2[:, 1]).sigmoid()
    for _ in range(EPOCHS):
        for chosen in torch.randperm(pairs, generator=generator).split(EPOCHS * case.prompts):
            batch = pairs_of(lab, ref_PA, prompt_N[chosen], answer_N2[chosen], first_N[chosen])
            learner.step(Part(batch, loss))
    logp_PSV: Tensor = policy()
    return logp_PSV.detach()


def pairs_of(lab: Laboratory, ref_PA: Tensor, prompt_N: Tensor, answer_N2: Tensor, first_N: Tensor) -> PreferenceBatch:
    """Pairs of answers as a batch; `first_N` says where the first is preferred."""
    lengths, vocabulary = lab.mask_AT.sum(1).tolist(), lab.ref_PSV.shape[-1]
    tokens = [row[:length] for row, length in zip(lab.token_AT.tolist(), lengths, strict=True)]
    won_B = torch.stack([first_N, ~first_N], -1).flatten()
    return PreferenceBatch(
        tree=pack(
            [
                ((vocabulary + p,), [tokens[a] for a in pair])
                for p, pair in zip(prompt_N.tolist(), answer_N2.tolist(), strict=True)
            ]
        ),
        rank_B=torch.where(won_B, 1, 2),
        desirable_B=won_B,
        undesirable_B=~won_B,
        sure_P=torch.ones(len(prompt_N), dtype=torch.float64),
        weight_P=torch.ones(len(prompt_N), dtype=torch.float64),
        ref_logp_B=ref_PA[prompt_N[:, None], answer_N2].flatten(),
    )


def settings_of(case: Case, beta: float) -> Policy:
    """The policy section of a case."""
    falls = {"start": 1.0} if beta < 1 and case.settings["algorithm"] != "dpo" else {}
    given = {
        "steps": case.rounds,
        "prompts_per_round": case.prompts,
        "answers_per_prompt": case.group,
        "sampling": {"max_tokens": 4},
        "optimiser": LEARNING,
        **case.settings,
    }
    given["kl"] = {"beta": beta, **falls, **case.settings.get("kl", {})}
    return Policy.model_validate(given)


def verdict(case: Case, beta: float, runs: Sequence[Reached]) -> dict[str, Any]:
    """How far a case came, and whether that is far enough."""
    mean_bar, worst_bar = case.bars.get(beta, BAR)
    shares = [run.share for run in runs]
    mean, worst = statistics.fmean(shares), min(shares)
    beside = {} if case.aim is None else {"share_of_j": round(statistics.fmean(run.of_j for run in runs), 4)}
    return {
        "objective": "E[r] - beta KL" if case.aim is None else case.aim.says,
        "optimum_share": round(mean, 4),
        "worst_seed": round(worst, 4),
        **beside,
        "samples": case.samples(),
        "holds": mean >= mean_bar and worst >= worst_bar,
    }


if __name__ == "__main__":
    main()
