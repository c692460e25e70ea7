"""Random numbers by purpose: the same purpose gives the same number, on any machine, and another gives another."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from plaudit.seeds import derive

PARTS = st.lists(st.one_of(st.integers(), st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x1f"))))


def test_by_hand():
    # first 8 bytes of `printf '0\037sft\0371' | sha256sum`, without the lowest bit
    assert derive(0, "sft", 1) == 0x08F9B6ADD7B43E5D >> 1


@given(st.integers(0, 2**63), PARTS)
def test_a_seed_fits_a_generator(seed, parts):
    assert 0 <= derive(seed, *parts) < 2**63


def test_purposes_are_not_confused():
    purposes: list[tuple[int, *tuple[str | int, ...]]] = [
        (0, "a", "b"),
        (0, "ab"),
        (0, "b", "a"),
        (1, "a", "b"),
        (0, "a", "b", ""),
        (0, "a", 1),
        (0, "a", 11),
    ]
    assert len({derive(seed, *parts) for seed, *parts in purposes}) == len(purposes)
