"""Why people rank many answers at once, and why a reward model should read each of them once.

    python examples/tutorials/rankings.py
    python examples/tutorials/rankings.py --prompt 30 --read 45 --order 10 --ordering bisect

K ranked answers make K (K - 1) / 2 comparisons: 9 make 36, 4 make 6. How many is that in a minute? The assumptions are
the arguments:

* a person reads the prompt once (`--prompt` seconds) and each answer once (`--read` seconds, the same for all);
* putting an answer into its place takes `--order` seconds: for each answer, whatever K is (`--ordering constant`); or
  for each look at an answer that is in its place already, halving the list each time (`bisect`), or going down it
  from the top to the bottom (`every`), which is the most that it can take.

Two things count against K = 9. Its 36 comparisons are not 36 independent ones: a ranking of 9 is one out of 9! orders,
at most log2(9!) = 18.5 bits, where 36 separate comparisons could hold 36. And somebody has to keep nine answers in
mind.

For the machine the pairs are a trap. To score both sides of every pair is to read each answer K - 1 times; the same
loss and the same gradient come from K scores (Ouyang et al. 2022, section 3.5, https://arxiv.org/abs/2203.02155).
"""

from __future__ import annotations

import argparse
import math

import torch

from plaudit.losses import bradley_terry_loss, pairs_of_ranks, pairwise_ranking_loss
from plaudit.testing.tiny import tiny_model


def seconds(k: int, args: argparse.Namespace) -> float:
    """What one ranking of K answers takes."""
    looks = {
        "constant": float(k),
        "bisect": float(sum(math.ceil(math.log2(placed + 1)) for placed in range(k))),
        "every": k * (k - 1) / 2,
    }[args.ordering]
    return float(args.prompt + args.read * k + args.order * looks)


def people(args: argparse.Namespace) -> None:
    """Comparisons and bits a minute, for 9 answers and for 4."""
    print(f"prompt {args.prompt:g} s, reading {args.read:g} s, ordering {args.order:g} s ({args.ordering})")
    rates = []
    for k in (9, 4):
        pairs, bits, took = k * (k - 1) // 2, math.log2(math.factorial(k)), seconds(k, args)
        rates.append((pairs * 60 / took, bits * 60 / took))
        print(
            f"{k} answers: {pairs} comparisons in {took:g} s, {rates[-1][0]:.2f} a minute; "
            f"at most {bits:.1f} bits, {rates[-1][1]:.2f} a minute"
        )
    (pairs_9, bits_9), (pairs_4, bits_4) = rates
    print(f"9 against 4: {pairs_9 / pairs_4:.2f} times the comparisons, {bits_9 / bits_4:.2f} times the bits, a minute")


def machine(k: int) -> None:
    """The loss and the gradient of all pairs of K answers, by scoring pairs and by scoring answers."""
    pairs = pairs_of_ranks([list(range(1, k + 1))])  # the first answer is the best one
    token_KT = torch.randint(3, 40, (k, 12), generator=torch.Generator().manual_seed(k))
    found = []
    for each_once in (False, True):
        model = tiny_model("gpt2", reward=True)
        if each_once:
            score_K = model(input_ids=token_KT).logits[:, 0]
            read, loss = k, pairwise_ranking_loss(score_K, pairs).sum()
        else:
            both_M2 = torch.stack([pairs.better_M, pairs.worse_M], -1)
            score_M2 = model(input_ids=token_KT[both_M2.flatten()]).logits[:, 0].view(-1, 2)
            read, loss = both_M2.numel(), bradley_terry_loss(score_M2[:, 0], score_M2[:, 1]).mean()
        loss.backward()
        gradient_D = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found.append((read, float(loss.detach()), gradient_D))
    (slow, slow_loss, slow_D), (fast, fast_loss, fast_D) = found
    apart = float((slow_D - fast_D).norm() / slow_D.norm())
    print(
        f"{k} answers: {slow} readings pair by pair, {fast} once each: {slow / fast:g} times fewer; "
        f"loss {slow_loss:.4f} and {fast_loss:.4f}, gradients {apart:.0e} apart"
    )


def main() -> None:
    """The table of both."""
    parser = argparse.ArgumentParser(description="What rankings of 9 and of 4 answers give a minute.")
    parser.add_argument("--prompt", type=float, default=0.0, help="seconds to read the prompt (default 0)")
    parser.add_argument("--read", type=float, default=20.0, help="seconds to read an answer (default 20)")
    parser.add_argument("--order", type=float, default=5.0, help="seconds to order an answer (default 5)")
    parser.add_argument("--ordering", choices=["constant", "bisect", "every"], default="constant")
    args = parser.parse_args()
    print("People:")
    people(args)
    print("The reward model:")
    for k in (9, 4):
        machine(k)


if __name__ == "__main__":
    main()
