"""The `Scorer` seam: groups of answers go in, numbers come out."""

from plaudit.scorers.ensemble import EnsembleScorer, check_reward, load_scorer, member_folders
from plaudit.scorers.model import ModelScorer
from plaudit.scorers.seam import FunctionScorer, Scorer, Scores

__all__ = [
    "EnsembleScorer",
    "FunctionScorer",
    "ModelScorer",
    "Scorer",
    "Scores",
    "check_reward",
    "load_scorer",
    "member_folders",
]
