"""The `Scorer` seam: groups of answers go in, numbers come out."""

from plaudit.scorers.assemble import check_references, scorer_of, weighted_scorer
from plaudit.scorers.classifier import ClassifierScorer
from plaudit.scorers.ensemble import EnsembleScorer, check_reward, load_scorer, member_folders
from plaudit.scorers.function import OwnFunctionScorer
from plaudit.scorers.model import ModelScorer
from plaudit.scorers.overlap import OverlapScorer
from plaudit.scorers.seam import FunctionScorer, Scorer, Scores
from plaudit.scorers.service import HttpScorer, Service
from plaudit.scorers.similarity import SimilarityScorer
from plaudit.scorers.surface import LengthScorer, RepetitionScorer
from plaudit.scorers.weighted import Part, WeightedScorer

__all__ = [
    "ClassifierScorer",
    "EnsembleScorer",
    "FunctionScorer",
    "HttpScorer",
    "LengthScorer",
    "ModelScorer",
    "OverlapScorer",
    "OwnFunctionScorer",
    "Part",
    "RepetitionScorer",
    "Scorer",
    "Scores",
    "Service",
    "SimilarityScorer",
    "WeightedScorer",
    "check_references",
    "check_reward",
    "load_scorer",
    "member_folders",
    "scorer_of",
    "weighted_scorer",
]
