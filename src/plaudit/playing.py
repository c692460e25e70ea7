"""The settings of an environment: whom the policy talks to, and for how many turns."""

from __future__ import annotations

from pydantic import Field

from plaudit.section import Section

__all__ = ["Playing"]


class Playing(Section):
    """Whom the policy talks to, and who gives its reward in place of scorers; nothing: one answer, graded by them."""

    path: str = "desk"
    """A Python function of your own, `file.py:function`, that is called with the episode so far and returns a reward
    and a reply, or None to end it; or `desk`, a customer who says which book she wants when she is asked."""
    turns: int = Field(default=2, ge=1)
    """Answers of the policy in an episode, at most."""
