"""From rewards to advantages: how much better than expected each token did.

Nothing here carries gradient: an advantage is a number that a loss multiplies by. Masks say which tokens of a row the
policy chose. What they leave out (a prompt in front, padding behind, another speaker's turn between) is not a step: it
is skipped, its rewards and values are never read, and it gets 0.

What a baseline does to the expected step, for answers of which each has one score (`plaudit.testing` shows every line
by enumeration):

| | baseline | expected gradient |
|---|---|---|
| `minus_baseline` | a number known before the answer was sampled | the true one |
| `leave_one_out` | mean of the other answers of the group | the true one |
| `batch_mean`, `group_mean` | mean of the batch or the group, own answer included | (N - 1) / N of the true one |
| `group_normalised`, `whiten` | the same, and divided by a standard deviation | another direction |
"""

from __future__ import annotations

from plaudit.advantages.baselines import (
    RunningMean,
    batch_mean,
    group_deviation,
    group_mean,
    group_normalised,
    leave_one_out,
    minus_baseline,
    whiten,
)
from plaudit.advantages.returns import (
    Advantages,
    gae,
    last_token,
    next_selected,
    per_token,
    per_turn,
    reward_to_go,
    token_rewards,
    turn_returns,
)

__all__ = [
    "Advantages",
    "RunningMean",
    "batch_mean",
    "gae",
    "group_deviation",
    "group_mean",
    "group_normalised",
    "last_token",
    "leave_one_out",
    "minus_baseline",
    "next_selected",
    "per_token",
    "per_turn",
    "reward_to_go",
    "token_rewards",
    "turn_returns",
    "whiten",
]
