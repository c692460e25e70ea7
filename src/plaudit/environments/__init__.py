"""Whom the policy talks to: what an answer earned, and what is said to it next."""

from plaudit.environments.desk import BookDesk
from plaudit.environments.own import FunctionEnvironment, environment_of
from plaudit.environments.play import Played, play
from plaudit.environments.seam import Environment, OneTurn, Step

__all__ = [
    "BookDesk",
    "Environment",
    "FunctionEnvironment",
    "OneTurn",
    "Played",
    "Step",
    "environment_of",
    "play",
]
