"""Numbers as people read them."""

from __future__ import annotations

import pytest

from plaudit.report.numerals import count, duration, grade, memory, percent, short, signed


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-0.0, "0"),
        (6.0, "6"),
        (1.239, "1.24"),
        (-0.04567, "−0.0457"),
        (318.4, "318"),
        (12345.6, "12,346"),
        (0.0002, "0.0002"),
        (0.00003217, "3.2e−5"),
        (2e9, "2e9"),
    ],
)
def test_short(value, text):
    assert short(value) == text


def test_signed():
    assert [signed(value) for value in (1.5, 0.0, -1.5)] == ["+1.50", "0", "−1.50"]


def test_units():
    assert percent(0.7925) == "79.2\u202f%"
    assert grade(-0.005001) == "−0.01"
    assert count(8000) == "8,000"
    assert [duration(value) for value in (4.23, 59.4, 200, 7500)] == [
        "4.2\u202fs",
        "59\u202fs",
        "3\u202fmin 20\u202fs",
        "2\u202fh 5\u202fmin",
    ]
    assert [memory(value) for value in (512.4, 1843.2)] == ["512\u202fMB", "1.84\u202fGB"]
