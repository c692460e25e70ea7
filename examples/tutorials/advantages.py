"""How much better than expected: two answers, a baseline, and what each does to the policy.

    python examples/tutorials/advantages.py

A reward model gives an answer 4.8 and another one 3.5. Are these good? That depends on the prompt: some prompts get
high scores whatever one answers. Here the prompt alone, before any answer, is scored 4.0, which serves as the guess of
what an answer to it will get. The advantage is what an answer got beyond the guess:

    4.8 - 4.0 = +0.8    better than expected: make it likelier
    3.5 - 4.0 = -0.5    worse than expected: make it less likely

The guess must not depend on the answer, or the gradient would be biased; this one is made before there is an answer.
REINFORCE (Williams 1992, https://doi.org/10.1007/BF00992696) moves the log-probabilities of an answer's tokens by its
advantage. Without a baseline both answers are pushed up, and it is left to the luck of the draw which one more often.

Shape letters:  B answers   T tokens   V vocabulary
"""

from __future__ import annotations

import torch

from plaudit.advantages import gae, leave_one_out, reward_to_go, token_rewards
from plaudit.losses.policy import reinforce_loss
from plaudit.losses.reduction import masked_sum

SCORES = [4.8, 3.5]
PROMPT_SCORE = 4.0


def main() -> None:
    """Print the advantages, by three roads, and what they do to the log-probabilities of the two answers."""
    score_B = torch.tensor(SCORES)
    mask_BT = torch.tensor([[True, True, True], [True, True, False]])  # three tokens, and two with padding behind

    # an answer's score belongs to its last token; from each token on, all of it is still to be earned
    reward_BT = token_rewards(score_B, torch.zeros(2, 3), mask_BT, beta=0.0)  # no cost of KL here
    to_go_BT = reward_to_go(reward_BT, mask_BT)
    advantage_BT = (to_go_BT - PROMPT_SCORE).masked_fill(~mask_BT, 0.0)
    print(f"scores {SCORES}, the prompt alone {PROMPT_SCORE}")
    show("advantages", advantage_BT[:, 0])

    # a critic who says 4.0 before every token gives the same, where GAE trusts what was sampled (lambda 1)
    value_BT = torch.full((2, 3), PROMPT_SCORE)
    show("with a critic's 4.0, GAE(1)", gae(reward_BT, value_BT, mask_BT, lambda_=1.0).advantage_BT[:, 0])

    # with no score for the prompt, each answer can be held against the other ones
    show("against each other", leave_one_out(score_B, torch.tensor([0, 0])))

    # one step of gradient descent on logits that begin equal: the same for all tokens of all answers
    token_BT = torch.tensor([[1, 2, 3], [4, 5, 0]])
    for name, weight_BT in (("the advantages", advantage_BT), ("the scores", to_go_BT)):
        logits_BTV = torch.zeros(2, 3, 6, requires_grad=True)
        before_B, after_B = step(logits_BTV, token_BT, weight_BT, mask_BT)
        show(f"log-probability, a step along {name}", after_B - before_B)


def step(
    logits_BTV: torch.Tensor, token_BT: torch.Tensor, weight_BT: torch.Tensor, mask_BT: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each answer before and after one step of REINFORCE at learning rate 0.1."""

    def logp_BT() -> torch.Tensor:
        return logits_BTV.log_softmax(-1).gather(-1, token_BT.unsqueeze(-1)).squeeze(-1)

    before_B = masked_sum(logp_BT(), mask_BT).detach()
    loss = masked_sum(reinforce_loss(logp_BT(), weight_BT), mask_BT).sum()
    (gradient_BTV,) = torch.autograd.grad(loss, logits_BTV)
    with torch.no_grad():
        logits_BTV -= 0.1 * gradient_BTV
        return before_B, masked_sum(logp_BT(), mask_BT)


def show(what: str, number_B: torch.Tensor) -> None:
    """One line: a number for each of the two answers."""
    print(f"{what}: {number_B[0]:+.1f} and {number_B[1]:+.1f}")


if __name__ == "__main__":
    main()
