"""A Python function as an environment, in memory or in a person's own file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from plaudit.environments.desk import BookDesk
from plaudit.environments.seam import Environment, Step
from plaudit.errors import ScorerError
from plaudit.playing import Playing
from plaudit.records import Episode
from plaudit.scorers.function import load_function

__all__ = ["FunctionEnvironment", "environment_of"]


class FunctionEnvironment:
    """A function `(episode) -> (reward, reply)` as an environment; a reply that is None ends the episode.

    Args:
        function: is called with each `Episode`.
        name: of the function, for messages.
    """

    def __init__(self, function: Callable[[Episode], tuple[float, str | None]], name: str = "the environment") -> None:
        self.function = function
        self.name = name

    def step(self, episodes: Sequence[Episode]) -> list[Step]:
        """What the function says of each episode.

        Raises:
            ScorerError: it fails, or returns what is no number and reply; names the prompt.
        """
        return [self._step(episode) for episode in episodes]

    def _step(self, episode: Episode) -> Step:
        where = f"turn {len(episode.answers)} of an episode of prompt {episode.prompt.id}"
        try:
            found: Any = self.function(episode)
        except Exception as error:
            raise ScorerError(f"{self.name}: {type(error).__name__}: {error}, on {where}") from error
        try:
            reward, reply = found
            reward = float(reward)
        except (TypeError, ValueError) as error:
            raise ScorerError(
                f"{self.name}: must return a reward and a reply, returned {found!r:.60} for {where}"
            ) from error
        if not isinstance(reply, str | None):
            raise ScorerError(f"{self.name}: a reply is a text or None, found {reply!r:.60} for {where}")
        return Step(reward, reply)


def environment_of(settings: Playing) -> Environment:
    """The environment that a recipe describes.

    Raises:
        ScorerError: see `load_function`.
    """
    if settings.path == "desk":
        return BookDesk()
    return FunctionEnvironment(load_function(settings.path, "an episode"), settings.path)
