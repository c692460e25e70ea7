"""The whole road: language model, demonstrations, judgements, reward model, policy, evaluation, report."""

from __future__ import annotations

from plaudit.loop.road import STAGES, run

__all__ = ["STAGES", "run"]
