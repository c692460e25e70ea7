"""The settings of environments: whom the policy talks to, and for how many turns."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from plaudit.section import Section

__all__ = ["ByDesk", "ByOwnFunction", "Playing"]


class _Turns(Section):
    turns: int = Field(default=2, ge=1)
    """Answers of the policy in an episode, at most."""


class ByDesk(_Turns):
    """A customer at a book desk who says what she wants when she is asked: a small task that takes two turns."""

    kind: Literal["desk"]


class ByOwnFunction(_Turns):
    """A Python function of your own, `(episode) -> (reward, reply)`; a reply that is None ends the episode."""

    kind: Literal["function"]
    path: str
    """`file.py:function`."""


Playing = Annotated[ByDesk | ByOwnFunction, Field(discriminator="kind")]
"""The settings of one environment, of whatever kind."""
