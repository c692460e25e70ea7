"""The `Learner` seam, and the stages that use it: language model, supervised, reward, policy."""

from plaudit.training.learner import Learner, ModelLearner, Part

__all__ = ["Learner", "ModelLearner", "Part"]
