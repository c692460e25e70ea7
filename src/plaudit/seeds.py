"""Random numbers as a function of what they are for: (seed, stage, step, item) -> a seed.

Nothing in a run depends on how many random numbers were drawn before, so nothing random has to be saved.
"""

from __future__ import annotations

import hashlib

__all__ = ["derive"]


def derive(seed: int, *parts: str | int) -> int:
    """A seed of 63 bits for one purpose; other parts give an unrelated one."""
    words = "\x1f".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") >> 1
