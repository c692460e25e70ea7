"""Does the tuned model answer better? Held-out answers of both sides, win rates, diversity."""

from plaudit.evaluation.measures import distinct_2, gain_in_sd, win_rate

__all__ = ["distinct_2", "gain_in_sd", "win_rate"]
