"""The `Scorer` seam: groups of answers go in, numbers come out."""

from plaudit.scorers.model import ModelScorer
from plaudit.scorers.seam import FunctionScorer, Scorer, Scores

__all__ = ["FunctionScorer", "ModelScorer", "Scorer", "Scores"]
