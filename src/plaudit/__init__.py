"""Plaudit: reinforcement learning from human feedback, from demonstrations to a model that people prefer."""

__version__ = "0.1.0"
